"""Who asked to hear of success hears once; who wants the message back gets it; and the wall clock decides nothing."""

import email
import email.policy
import smtplib
import subprocess
import time
import unittest

from harness import EndToEnd, Device, MAILBOX, RECIPIENT, eventually, expect, lines_of_base64, message, needs_program

OPERATOR = "it@office.test"
SENDER = "jane@example.org"
BAD = "nobody@office.test"
LATER = "later@office.test"
GATHER, HOUR, DAY = 301, 3600, 86400


def part(report, content_type):
    return next(part for part in report.walk() if part.get_content_type() == content_type)


class Told(EndToEnd):
    DSN = False

    def setUp(self):
        super().setUp()
        self.practice = self.upstream(limits={"dsn": self.DSN})
        self.practice.add_rule(stage="rcpt", match=BAD, reply="550 5.1.10 RESOLVER.ADR.RecipientNotFound")
        self.practice.add_rule(stage="rcpt", match=LATER, reply="450 4.2.1 mailbox busy")

    def begin(self, report_to_sender="asked", **settings):
        relay = self.relay(self.practice, start=False, **settings)
        relay.set("devices", report_to_sender=report_to_sender)
        return relay.start()

    @staticmethod
    def submit(relay, recipients, sender=SENDER, options=(), data=None):
        """Recipients with their options."""
        with Device(relay) as device:
            expect(device.mail(sender, options), 250)
            for recipient, wishes in recipients.items():
                expect(device.rcpt(recipient, wishes), 250)
            expect(device.data(data or message()), 250)

    def reports(self, to=SENDER):
        return [email.message_from_bytes(self.stored(self.practice, number), policy=email.policy.default)
                for number, facts in enumerate(self.practice.messages(), 1) if facts["forward_paths"] == [to]]

    def wait_reports(self, count, to=SENDER):
        return eventually(lambda: len(self.reports(to)) >= count and self.reports(to), f"{to} has {count} reports")

    def assert_nothing_more(self, relay, count, to=SENDER):
        """Also not after a while."""
        relay.advance(GATHER)
        time.sleep(1.3)  # a tick and the way upstream
        self.assertEqual(len(self.reports(to)), count)


class Success(Told):
    def test_a_server_without_dsn_leaves_it_to_the_relay_to_tell(self):
        relay = self.begin()
        self.submit(relay, {"joe@office.test": ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;joe+2Bx@office.test"],
                            "jim@office.test": ["NOTIFY=FAILURE"]},
                    options=["ENVID=QQ+2B314", "RET=FULL"], data=message(subject="The scan"))
        report = self.wait_reports(1)[0]
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertIn(MAILBOX, report["From"])
        status = part(report, "message/delivery-status")
        about, recipient = status.get_payload()
        self.assertEqual(about["Original-Envelope-Id"], "QQ+314")
        self.assertEqual(recipient["Original-Recipient"], "rfc822;joe+x@office.test")
        self.assertEqual((recipient["Action"], recipient["Status"]), ("relayed", "2.1.9"))
        self.assertNotIn("jim@", status.as_string())
        self.assertIn("Subject: The scan", part(report, "text/rfc822-headers").get_payload())
        self.assertNotIn("scan attached", report.as_string())  # RET=FULL is for failures
        relay.wait_empty()
        self.assert_nothing_more(relay, 1)

    def test_each_recipient_is_told_of_once_though_others_come_later(self):
        relay = self.begin()
        self.submit(relay, {"joe@office.test": ["NOTIFY=SUCCESS"], LATER: ["NOTIFY=SUCCESS"]})
        self.assertIn("joe@", part(self.wait_reports(1)[0], "message/delivery-status").as_string())
        self.practice.clear_rules()
        relay.advance(HOUR)
        second = part(self.wait_reports(2)[1], "message/delivery-status").as_string()
        self.assertIn(LATER, second)
        self.assertNotIn("joe@", second)
        relay.wait_empty()
        self.assert_nothing_more(relay, 2)

    def test_it_is_nobody_elses_business(self):
        rows = {"unasked": ("yes", SENDER, []), "never": ("yes", SENDER, ["NOTIFY=NEVER"]),
                "only failure": ("asked", SENDER, ["NOTIFY=FAILURE,DELAY"]),
                "switched off": ("no", SENDER, ["NOTIFY=SUCCESS"]), "null": ("yes", "", ["NOTIFY=SUCCESS"]),
                "unanswerable": ("yes", "scanner@printer.local", ["NOTIFY=SUCCESS"])}
        for number, (name, (how, sender, wishes)) in enumerate(rows.items(), 1):
            with self.subTest(name):
                relay = self.begin(how, operator=OPERATOR)
                self.submit(relay, {RECIPIENT: wishes}, sender=sender)
                relay.wait_empty()
                self.assertTrue(self.practice.wait_stored(number))
                self.assertEqual(relay.events("report"), [])
                relay.stop()

    @needs_program("msmtp")
    def test_a_mail_program_that_asks_is_told(self):
        relay = self.begin()
        subprocess.run(["msmtp", "--host", relay.address, "--port", str(relay.port), "--from", SENDER,
                        "--dsn-notify=success,failure", "--dsn-return=headers", RECIPIENT],
                       input=message(subject="Asked"), check=True, timeout=30)
        self.assertIn("Subject: Asked", part(self.wait_reports(1)[0], "text/rfc822-headers").get_payload())

    def test_a_kill_before_it_has_left_loses_no_report(self):
        relay = self.begin()
        self.practice.add_rule(stage="rcpt", match=SENDER, reply="450 4.2.1 not now")
        self.submit(relay, {RECIPIENT: ["NOTIFY=SUCCESS"]})
        relay.wait_event("report", about="relayed")
        relay.wait_event("deferred")
        relay.kill()
        relay.start()
        self.practice.clear_rules()
        relay.advance(HOUR)
        self.wait_reports(1)
        relay.wait_empty()
        self.assert_nothing_more(relay, 1)

    def delete(self, relay, ids):
        """How many of them were there."""
        there = [entry["id"] for entry in relay.queue() if entry["id"] in ids]
        for number in there:
            relay.api("DELETE", f"/v1/queue/{number}")
        return len(there)

    def test_a_spool_that_is_full_delays_it_only(self):
        relay = self.relay(self.practice, start=False, spool_max="2M")
        relay.set("devices", max_spool="1G").start()
        self.practice.add_rule(stage="mail", reply="451 4.7.500 Server busy", times=1)
        self.submit(relay, {RECIPIENT: ["NOTIFY=SUCCESS"]})
        relay.wait_event("mailbox-trouble")
        for octets in (330_000, 50_000, 5_000, 100):
            with self.assertRaises(smtplib.SMTPDataError):
                while True:
                    relay.send(message(body=lines_of_base64(octets)), recipients=[LATER])
        relay.tool("resume", "office")
        relay.wait_event("report-waits", to=f"<{SENDER}>")
        waiting = {entry["id"] for entry in relay.queue()}
        eventually(lambda: not self.delete(relay, waiting), "they are deleted, once none is just being sent")
        relay.advance(61)
        self.wait_reports(1)
        relay.wait_empty()
        self.assert_nothing_more(relay, 1)


class SuccessWithDsn(Told):
    DSN = True

    def test_a_server_with_dsn_is_told_and_tells(self):
        relay = self.begin("yes")
        self.practice.add_rule(stage="rcpt", match=r"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;joe@office\.test",
                               reply="250 2.1.5 OK, with DSN")
        self.practice.add_rule(stage="mail", match="RET=HDRS ENVID=QQ314", reply="250 2.1.0 OK, with DSN")
        self.submit(relay, {"joe@office.test": ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;joe@office.test"]},
                    options=["RET=HDRS", "ENVID=QQ314"])
        relay.wait_empty()
        self.assertEqual([rule["fired"] for rule in self.practice.rules()][-2:], [1, 1])
        self.assertEqual(relay.events("report"), [])


class WhatIsReturned(Told):
    def test_a_failed_message_comes_back_whole_where_asked(self):
        relay = self.begin()
        whole = ["NOTIFY=FAILURE"]
        self.submit(relay, {BAD: whole}, options=["RET=FULL", "ENVID=one"], data=message(subject="The scan"))
        eventually(lambda: relay.queue()[0]["state"] == "dead", "it is dead")
        relay.advance(GATHER)
        report = self.wait_reports(1)[0]
        returned = part(report, "message/rfc822").get_payload(0)
        self.assertEqual(returned["Subject"], "The scan")
        self.assertIn("scan attached", returned.get_payload())
        self.submit(relay, {BAD: whole}, options=["RET=HDRS"], data=message(subject="The other"))
        self.submit(relay, {BAD: whole}, sender="joe@example.org", options=["RET=FULL"],
                    data=message(body=b"A long line of text.\r\n" * 5000))
        relay.wait_event("failed", count=3)
        relay.advance(GATHER)
        self.assertIn("The other", part(self.wait_reports(2)[1], "text/rfc822-headers").get_payload())
        part(self.wait_reports(1, "joe@example.org")[0], "text/rfc822-headers")  # too large

    def test_a_delay_is_told_to_whom_wants_it(self):
        relay = self.begin("yes", operator=OPERATOR)
        wishes = {"a@example.org": [], "b@example.org": ["NOTIFY=DELAY"], "c@example.org": ["NOTIFY=FAILURE"],
                  "d@example.org": ["NOTIFY=NEVER"], "e@example.org": ["NOTIFY=SUCCESS"]}
        for sender, options in wishes.items():
            self.submit(relay, {LATER: options}, sender=sender)
        relay.wait_event("deferred", count=len(wishes))
        relay.advance(4 * HOUR + 1)
        time.sleep(1.3)
        relay.advance(GATHER)
        self.assertIn("5 messages", self.wait_reports(1, OPERATOR)[0]["Subject"])
        for sender in ("a@example.org", "b@example.org"):
            self.wait_reports(1, sender)
        for sender in ("c@example.org", "d@example.org", "e@example.org"):
            self.assert_nothing_more(relay, 0, sender)


class Killed(Told):
    """What was not told before the daemon was killed is told after, once."""

    def check(self, recipients):
        relay = self.begin(operator=OPERATOR)
        relay.send(recipients=recipients)
        relay.wait_event("failed")
        time.sleep(0.3)  # the outcome is on the disk; before, nobody could know of it
        relay.kill()
        relay.start()
        time.sleep(1.3)  # it looks for what has failed first
        relay.advance(GATHER)
        report = self.wait_reports(1, OPERATOR)[0]
        status = part(report, "message/delivery-status").as_string()
        self.assertIn(BAD, status)
        self.assertNotIn(LATER, status)
        eventually(lambda: len(relay.queue()) == 1, "the report has left")
        time.sleep(1.3)  # that it was told is written
        relay.kill()
        relay.start()
        time.sleep(1.3)
        self.assert_nothing_more(relay, 1, OPERATOR)
        return relay

    def test_a_part_of_the_recipients(self):
        relay = self.check([BAD, LATER, RECIPIENT])
        self.assertEqual(relay.queue()[0]["state"], "queued")
        self.practice.clear_rules()
        relay.advance(HOUR)
        eventually(lambda: relay.queue()[0]["state"] == "dead", "the others have theirs")
        self.assert_nothing_more(relay, 1, OPERATOR)  # nothing new has failed

    def test_a_dead_letter(self):
        self.check([BAD])

    def test_one_that_fails_after_another_was_told_of(self):
        relay = self.check([BAD, LATER])
        self.practice.clear_rules()
        self.practice.add_rule(stage="rcpt", match=LATER, reply="550 5.1.1 User unknown")
        relay.advance(HOUR)
        eventually(lambda: relay.queue()[0]["state"] == "dead", "all have failed")
        relay.kill()
        relay.start()
        time.sleep(1.3)
        relay.advance(GATHER)
        self.assertIn(LATER, part(self.wait_reports(2, OPERATOR)[1], "message/delivery-status").as_string())
        self.assert_nothing_more(relay, 2, OPERATOR)


class WallClock(Told):
    def step(self, relay, **how):
        self.assertEqual(relay.api("POST", "/v1/clock?" + "&".join(f"{k}={v}" for k, v in how.items()))[0], 200)

    def test_set_forward_it_makes_nothing_late(self):
        relay = self.begin(operator=OPERATOR)
        relay.send(recipients=[LATER])
        relay.wait_event("deferred")
        self.step(relay, wall_forward=DAY)
        time.sleep(1.3)
        self.assert_nothing_more(relay, 0, OPERATOR)
        relay.advance(4 * HOUR)
        time.sleep(1.3)
        relay.advance(GATHER)
        self.wait_reports(1, OPERATOR)

    def test_set_back_it_keeps_no_notice(self):
        relay = self.begin(operator=OPERATOR)
        relay.send(recipients=[LATER])
        relay.wait_event("deferred")
        self.step(relay, wall_back=2 * DAY)
        relay.advance(4 * HOUR + 1)
        time.sleep(1.3)
        relay.advance(GATHER)
        self.wait_reports(1, OPERATOR)


class BeyondAscii(Told):
    """A server that takes no addresses beyond ASCII."""

    FAR = "b\u00fcro@office.test"

    def setUp(self):
        super().setUp()
        self.practice.set_limits(smtputf8=False)

    def submit_utf8(self, relay, sender, recipients):
        with Device(relay) as device:
            for line in (f"MAIL FROM:<{sender}> SMTPUTF8", *(f"RCPT TO:<{r}>" for r in recipients)):
                device.send(line.encode() + b"\r\n")
                expect(device.getreply(), 250)
            expect(device.data(message()), 250)

    def test_such_a_recipient_fails_and_the_others_get_it(self):
        relay = self.begin(operator=OPERATOR)
        self.submit_utf8(relay, SENDER, [self.FAR, RECIPIENT, "b\u00e4r@office.test"])
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.messages()[0]["forward_paths"], [RECIPIENT])
        entry = eventually(lambda: relay.queue() and relay.queue()[0], "it is listed")
        self.assertEqual(entry["state"], "dead")
        states = [r["state"] for r in relay.show(entry["id"])["recipients"]]
        self.assertEqual(states, ["failed", "delivered", "failed"])
        failed = relay.wait_event("failed")
        self.assertIn("SMTPUTF8", failed["reason"])
        self.assertIn("plain ASCII", failed["remedy"])
        self.assertEqual(self.practice.counters()["refused"], {})
        relay.advance(GATHER)
        report = self.wait_reports(1, OPERATOR)[0]
        self.assertIn("beyond ASCII", report.get_body().get_content())
        self.assertIn(r"Final-Recipient: utf-8; b\x{FC}ro@office.test", report.as_string())

    def test_nobody_left_costs_no_transaction_and_no_connection(self):
        relay = self.begin()
        self.submit_utf8(relay, SENDER, [self.FAR])
        eventually(lambda: relay.queue() and relay.queue()[0]["state"] == "dead", "it is dead")
        self.assertEqual(self.practice.counters()["refused"], {})
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.counters()["connections"], 1)
        self.assertEqual(relay.mailbox()["state"], "ready")

    def test_such_a_sender_fails_the_message_with_a_remedy(self):
        relay = self.begin()
        self.submit_utf8(relay, self.FAR, [RECIPIENT])  # office.test is in send_as
        eventually(lambda: relay.queue() and relay.queue()[0]["state"] == "dead", "it is dead")
        self.assertIn("send_as", relay.wait_event("failed")["remedy"])
        self.assertEqual(self.practice.messages(), [])
        self.practice.set_limits(smtputf8=True)
        self.practice.drop_connections()
        relay.tool("requeue", relay.queue()[0]["id"])
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.messages()[0]["reverse_path"], self.FAR)


if __name__ == "__main__":
    unittest.main()
