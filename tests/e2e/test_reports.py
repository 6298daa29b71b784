"""Mail that fails or is late is told of: once, together, to whoever should know; and dead letters go in their time."""

import email
import email.policy
import subprocess
import time
import unittest

from harness import EndToEnd, Device, MAILBOX, RECIPIENT, eventually, expect, message

OPERATOR = "it@office.test"
SENDER = "jane@example.org"
BAD = "nobody@office.test"
GATHER, HOUR, DAY = 301, 3600, 86400


class Reports(EndToEnd):
    """What they have in common: an upstream that knows no recipient BAD."""

    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.add_rule(stage="rcpt", match=BAD, reply="550 5.1.10 RESOLVER.ADR.RecipientNotFound")

    def reports(self, to=OPERATOR):
        found = []
        for number, facts in enumerate(self.practice.messages(), 1):
            if facts["forward_paths"] == [to]:
                found.append(email.message_from_bytes(self.stored(self.practice, number),
                                                      policy=email.policy.default))
        return found

    def wait_reports(self, count, to=OPERATOR):
        return eventually(lambda: len(self.reports(to)) >= count and self.reports(to), f"{to} has {count} reports")

    @staticmethod
    def dead(relay):
        return [entry for entry in relay.queue() if entry["state"] == "dead"]

    def wait_dead(self, relay, count=1):
        return eventually(lambda: len(self.dead(relay)) == count and self.dead(relay), f"{count} are dead letters")


class ToTheOperator(Reports):
    def test_one_report_tells_of_all_that_failed_within_some_minutes(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        for number in range(3):
            relay.send(message(subject=f"Scan {number}"), recipients=[BAD])
        self.wait_dead(relay, 3)
        time.sleep(1.5)  # nothing may be reported yet, so there is nothing to wait for
        self.assertEqual(self.reports(), [])
        relay.advance(GATHER)
        report = self.wait_reports(1)[0]
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertIn(MAILBOX, report["From"])
        self.assertEqual(report["To"].addresses[0].addr_spec, OPERATOR)
        self.assertIn("3 messages", report["Subject"])
        words = report.get_body().get_content()
        for text in (BAD, "There is no such recipient", "Scan 0", "Scan 2", "5.1.10"):
            self.assertIn(text, words)
        statuses = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
        self.assertEqual(len(statuses), 3)
        relay.advance(GATHER * 2)
        time.sleep(1.5)  # nor a second time
        self.assertEqual(len(self.reports()), 1)

    def test_a_single_report_is_as_the_standard_says(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        relay.send(message(subject="The scan"), recipients=[BAD, RECIPIENT])
        self.wait_dead(relay)
        relay.advance(GATHER)
        report = self.wait_reports(1)[0]
        self.assertEqual(report.get_content_type(), "multipart/report")
        status = next(part for part in report.walk() if part.get_content_type() == "message/delivery-status")
        fields = status.get_payload()[1]
        self.assertEqual((fields["Action"], fields["Status"]), ("failed", "5.1.10"))
        self.assertIn(BAD, fields["Final-Recipient"])
        headers = next(part for part in report.walk() if part.get_content_type() == "text/rfc822-headers")
        self.assertIn("Subject: The scan", headers.get_payload())
        self.assertNotIn(RECIPIENT, status.as_string())

    def test_what_was_not_reported_is_after_a_restart_and_what_was_is_not(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        relay.send(recipients=[BAD])
        self.wait_dead(relay)
        relay.kill()
        relay.start()
        time.sleep(1.5)  # it looks for dead letters first
        relay.advance(GATHER)
        self.wait_reports(1)
        eventually(lambda: len(relay.queue()) == 1, "the report has left")
        relay.restart()
        time.sleep(1.5)  # nothing may happen
        relay.advance(GATHER)
        time.sleep(1.5)
        self.assertEqual(len(self.reports()), 1)

    def test_a_report_that_fails_is_not_reported(self):
        relay = self.relay(self.practice, operator=BAD)
        relay.send(recipients=[BAD])
        self.wait_dead(relay)
        relay.advance(GATHER)
        self.wait_dead(relay, 2)
        self.assertIn("nobody gets a report about a report", relay.wait_event("report-failed")["remedy"])
        for _ in range(3):
            relay.advance(HOUR)
            time.sleep(1.2)
        self.assertEqual(len(self.dead(relay)), 2)
        self.assertEqual(len(relay.events("report")), 1)

    def test_nobody_named_is_nobody_mailed(self):
        relay = self.relay(self.practice)
        relay.send(recipients=[BAD])
        self.wait_dead(relay)
        relay.advance(GATHER)
        time.sleep(1.5)
        self.assertEqual(relay.events("report"), [])
        self.assertIn("could not be delivered", relay.status()["problems"][0]["what"])

    def test_expired_mail_is_reported_as_given_up(self):
        relay = self.relay(self.practice, operator=OPERATOR, give_up="1h", delay_notice="0")
        self.practice.add_rule(stage="rcpt", match="later@office.test", reply="450 4.2.1 mailbox busy")
        relay.send(recipients=["later@office.test"])

        def dead_after_a_while():
            relay.advance(600)
            time.sleep(0.3)
            return self.dead(relay)

        eventually(dead_after_a_while, "it is given up")
        relay.advance(GATHER)
        report = self.wait_reports(1)[0]
        self.assertIn("It was tried for as long as give_up", report.get_body().get_content())

    def test_mail_that_was_held_and_refused_again_is_spoken_of_as_a_dead_letter(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        self.practice.add_rule(stage="mail", match="scanner@", times=2,
                               reply="554 5.9.9 This is a reply that nobody knows")
        relay.send(sender="scanner@office.test")
        held = eventually(lambda: relay.queue() and relay.queue()[0], "it is listed")
        eventually(lambda: relay.queue()[0]["state"] == "held", "it is held")
        relay.tool("retry", held["id"])
        self.wait_dead(relay)
        relay.advance(GATHER)
        text = " ".join(self.wait_reports(1)[0].get_body().get_content().split())
        self.assertIn("It is kept as a dead letter", text)
        self.assertIn('remove the cause; then "outtray requeue" tries it again', text)
        self.assertNotIn("it becomes a dead letter", text)

    def test_a_subject_in_octets_is_read_as_the_repaired_header_has_it(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        relay.send(b"From: scanner@office.test\r\nSubject: B\xfcro \x80 1\r\n\r\nBody\r\n", recipients=[BAD])
        self.wait_dead(relay)
        relay.advance(GATHER)
        self.assertIn("Subject: B\u00fcro \u20ac 1", self.wait_reports(1)[0].get_body().get_content())

    def test_a_hundred_failures_are_one_report_that_counts_them(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        with Device(relay) as device:
            for _ in range(70):
                device.sendmail("printer@office.test", [BAD], message())
        self.wait_dead(relay, 70)
        relay.advance(GATHER)
        report = self.wait_reports(1)[0]
        self.assertIn("70 messages", report["Subject"])
        self.assertIn("... and 20 more", report.get_body().get_content())


class ToTheSender(Reports):
    def setUp(self):
        super().setUp()
        self.outtray = None

    def begin(self, report_to_sender):
        self.outtray = self.relay(self.practice, start=False)
        self.outtray.set("devices", report_to_sender=report_to_sender)
        self.outtray.start()

    def submit(self, sender, options=(), data=None):
        with Device(self.outtray) as device:
            expect(device.mail(sender), 250)
            expect(device.rcpt(BAD, options), 250)
            expect(device.data(data or message()), 250)

    def test_each_sender_hears_of_its_own_mail_where_configured(self):
        self.begin("yes")
        self.submit(SENDER)
        self.submit("joe@example.org")
        self.submit(SENDER)
        self.submit("scanner@printer.local")  # nobody could answer that
        self.submit("")
        self.wait_dead(self.outtray, 5)
        self.outtray.advance(GATHER)
        self.assertIn("2 messages", self.wait_reports(1, SENDER)[0]["Subject"])
        report = self.wait_reports(1, "joe@example.org")[0]
        self.assertNotIn("messages", report["Subject"])
        self.assertNotIn("outtray ", report.get_body().get_content())
        time.sleep(1.5)
        self.assertEqual(len(self.practice.messages()), 2)

    def test_by_default_only_who_asked_hears(self):
        self.begin("asked")
        self.submit(SENDER)
        self.submit("joe@example.org", ["NOTIFY=FAILURE", "ORCPT=rfc822;nobody@office.test"])
        self.submit("jim@example.org", ["NOTIFY=DELAY"])
        self.submit("jill@example.org", ["NOTIFY=NEVER"])
        self.wait_dead(self.outtray, 4)
        self.outtray.advance(GATHER)
        report = self.wait_reports(1, "joe@example.org")[0]
        self.assertIn("Original-Recipient: rfc822;nobody@office.test", report.as_string())
        time.sleep(1.5)
        self.assertEqual(len(self.practice.messages()), 1)

    def test_never_means_never(self):
        self.begin("yes")
        self.submit(SENDER, ["NOTIFY=NEVER"])
        self.wait_dead(self.outtray)
        self.outtray.advance(GATHER)
        time.sleep(1.5)
        self.assertEqual(self.practice.messages(), [])


class LateMail(Reports):
    def test_one_notice_tells_of_all_late_mail_and_of_the_mailbox(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        self.practice.add_rule(stage="auth",
                               reply="535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.")
        for number in range(4):
            relay.send(message(subject=f"Scan {number}"))
        relay.wait_event("mailbox-trouble")
        relay.advance(4 * HOUR + 1)
        time.sleep(1.5)
        relay.advance(GATHER)
        relay.wait_event("report", about="delayed", messages="4")
        self.practice.clear_rules()
        relay.tool("resume", "office")
        report = self.wait_reports(1)[0]
        self.assertIn("delayed", report["Subject"])
        words = report.get_body().get_content()
        self.assertIn("It waits for mailbox office", words)
        self.assertIn("Scan 3", words)
        self.assertIn("Action: delayed", report.as_string())
        relay.wait_empty()
        relay.advance(DAY)
        time.sleep(1.5)
        self.assertEqual(len(self.reports()), 1)
        self.assertEqual(relay.events("failed"), [])

    def test_a_paused_mailbox_makes_no_dead_letters(self):
        relay = self.relay(self.practice, give_up="2h")
        self.practice.add_rule(stage="auth",
                               reply="535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.")
        relay.send()
        relay.wait_event("mailbox-trouble")
        for _ in range(8):
            relay.advance(12 * HOUR)
            time.sleep(0.3)
        self.assertEqual([entry["state"] for entry in relay.queue()], ["queued"])
        self.practice.clear_rules()
        relay.tool("resume", "office")
        self.assertTrue(self.practice.wait_stored(1))

    def test_a_notice_comes_once_even_after_a_restart(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        self.practice.add_rule(stage="rcpt", match="later@office.test", reply="450 4.2.1 mailbox busy")
        relay.send(recipients=["later@office.test"])
        relay.wait_event("deferred")
        relay.advance(4 * HOUR + 1)
        time.sleep(1.5)
        relay.advance(GATHER)
        self.wait_reports(1)
        relay.restart()
        relay.advance(5 * HOUR)
        time.sleep(1.5)
        relay.advance(GATHER)
        time.sleep(1.5)
        self.assertEqual(len(self.reports()), 1)


class DeadLetters(Reports):
    def test_they_are_listed_exported_and_tried_anew(self):
        relay = self.relay(self.practice)
        for _ in range(2):
            relay.send(recipients=[BAD])
        relay.send(recipients=["fine@office.test"])
        first, second = self.wait_dead(relay, 2)
        listed = relay.tool("dead").stdout.decode()
        self.assertIn(first["id"], listed)
        self.assertIn("5.1.10", listed)
        self.assertEqual({m["id"] for m in relay.json("dead")["messages"]}, {first["id"], second["id"]})
        self.assertIn(b"Subject: Scan", relay.tool("export", first["id"]).stdout)
        self.practice.clear_rules()
        relay.tool("requeue", first["id"])
        self.assertTrue(self.practice.wait_stored(2))
        self.assertIn(b"1 dead letter is due now", relay.tool("requeue", "--all-dead").stdout)
        self.assertTrue(self.practice.wait_stored(3))
        relay.wait_empty()
        self.assertIn(b"There are no dead letters", relay.tool("dead").stdout)

    def test_the_list_can_be_had_while_the_daemon_is_down(self):
        relay = self.relay(self.practice)
        relay.send(recipients=[BAD])
        entry = self.wait_dead(relay)[0]
        relay.stop()
        self.assertEqual([m["id"] for m in relay.json("dead")["messages"]], [entry["id"]])
        self.assertEqual(relay.json("dead")["total"], 1)

    def test_one_that_nobody_has_seen_is_kept(self):
        relay = self.relay(self.practice)
        relay.send(recipients=[BAD])
        relay.wait_event("failed")
        relay.advance(30 * DAY)
        time.sleep(1.5)
        self.assertEqual(relay.events("dead-letter-deleted"), [])
        self.assertEqual(len(self.dead(relay)), 1)  # now it was listed
        relay.wait_event("dead-letter-deleted")
        relay.wait_empty()

    def test_one_that_was_reported_goes_after_its_time_which_a_restart_does_not_begin_anew(self):
        relay = self.relay(self.practice, operator=OPERATOR, dead_keep="3d")
        relay.send(recipients=[BAD])
        relay.wait_event("failed")
        relay.advance(GATHER)
        time.sleep(1.2)
        relay.advance(GATHER)
        self.wait_reports(1)
        relay.advance(2 * DAY)
        relay.restart()
        time.sleep(1.5)
        self.assertEqual(relay.events("dead-letter-deleted"), [])
        relay.advance(DAY)
        self.assertIn("reported", relay.wait_event("dead-letter-deleted")["reason"])
        relay.wait_empty()

    def test_held_mail_stays_and_comes_first_in_the_status(self):
        relay = self.relay(self.practice, dead_keep="1h")
        self.practice.add_rule(stage="mail", reply="550 5.7.60 SMTP; Client does not have permissions to send as "
                                                   "this sender")
        relay.send()
        eventually(lambda: relay.queue()[0]["state"] == "held", "it is held")
        relay.advance(60 * DAY)
        time.sleep(1.5)
        self.assertEqual(relay.queue()[0]["state"], "held")
        self.assertIn("held", relay.status()["problems"][0]["what"])

    def test_a_damaged_history_costs_no_mail(self):
        relay = self.relay(self.practice, operator=OPERATOR)
        relay.send(recipients=[BAD])
        self.wait_dead(relay)
        relay.stop()
        (relay.spool / "history.db").write_bytes(b"this is no database" * 1000)
        relay.start()
        relay.wait_event("history-damaged")
        time.sleep(1.2)
        relay.advance(GATHER)
        self.wait_reports(1)
        self.assertEqual(len(self.dead(relay)), 1)


class Unknown(Reports):
    def test_replies_that_no_verdict_knows_are_collected_and_kept(self):
        relay = self.relay(self.practice)
        for number, host in enumerate(("AM0PR04MB1234.eurprd04", "DB9PR07MB9999.eurprd07")):
            self.practice.clear_rules()
            self.practice.add_rule(stage="rcpt", reply=f"550 5.9.{number % 1}9 The moon is wrong for "
                                                       f"u{number}@office.test [{host} 2026-01-0{number + 1}]")
            relay.send()
            relay.wait_event("failed", count=number + 1)
        replies = relay.json("replies", "--unknown")["replies"]
        self.assertEqual([(r["stage"], r["count"]) for r in replies], [("rcpt", 2)])
        self.assertEqual(replies[0]["reply"], "550 5.9.9 The moon is wrong for <...> [...]")
        relay.restart()
        self.assertEqual(relay.json("replies", "--unknown")["replies"][0]["count"], 2)
        self.assertIn(b"The moon is wrong", relay.tool("replies", "--unknown").stdout)

    def test_known_ones_are_not(self):
        relay = self.relay(self.practice)
        relay.send(recipients=[BAD])
        self.wait_dead(relay)
        self.assertIn(b"could explain every reply", relay.tool("replies", "--unknown").stdout)

    def test_explain_takes_a_reply_as_long_as_exchange_makes_them(self):
        relay = self.relay(self.practice, start=False)
        reply = "554 5.2.252 SendAsDenied; STOREDRV.Submission.Exception:SendAsDeniedException; " + "0.35250:0A00A280, " * 600
        done = subprocess.run([relay.binaries / "outtray", "explain", reply], capture_output=True, check=True)
        self.assertIn(b"send_as_denied", done.stdout)

    def test_explain_needs_no_daemon(self):
        relay = self.relay(self.practice, start=False)
        done = subprocess.run([relay.binaries / "outtray", "--json", "explain",
                               "550 5.7.30 Basic authentication is not supported for Client Submission."],
                              capture_output=True, check=True)
        self.assertIn(b'"pause"', done.stdout)


if __name__ == "__main__":
    unittest.main()
