"""Neither one message nor one route can keep the others from leaving."""

import concurrent.futures
import smtplib
import unittest

from harness import PATIENCE, PRINTER, RECIPIENT, Device, EndToEnd, eventually, expect, lines_of_base64, message

ALARM = "127.0.0.77"
COPIER = "127.0.0.88"
POISON = "poison@office.test"


class DeviceAt(Device):
    """A device with an address of its own."""

    def __init__(self, relay, source):
        smtplib.SMTP.__init__(self, relay.address, relay.port, local_hostname="alarm",
                              timeout=PATIENCE, source_address=(source, 0))
        self.ehlo()


class FairShare(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def send_alarm(self, relay, recipient):
        with DeviceAt(relay, ALARM) as device:
            device.sendmail(PRINTER, [recipient], message())

    def wait_for_trouble(self, relay, attempts):
        """The connections made so far, once the next failure has been noticed."""
        eventually(lambda: self.practice.counters()["connections"] >= attempts
                   and relay.mailbox()["next_try_in"], "the mailbox waits")
        return self.practice.counters()["connections"]

    def test_a_message_that_breaks_every_session_lets_others_try(self):
        """It looks like trouble of the upstream, so it is not counted against the message; and it is urgent."""
        self.practice.add_rule(stage="rcpt", match=POISON, action="close")
        relay = self.relay(self.practice, start=False)
        relay.set("device alarm", address=ALARM, lane="urgent").start()
        self.send_alarm(relay, POISON)
        connections = self.wait_for_trouble(relay, 1)
        data = relay.send()
        for _ in range(2):
            relay.advance(int(relay.mailbox()["next_try_in"]) + 1)
            if self.practice.wait_stored(1, 3):
                break
            connections = self.wait_for_trouble(relay, connections + 1)
        self.assert_arrived(self.practice, data)
        eventually(lambda: [entry["state"] for entry in relay.queue()] == ["queued"], "it waits for its turn")
        self.practice.clear_rules()
        relay.advance(3600)
        self.assertTrue(self.practice.wait_stored(2))

    def test_routes_that_share_a_mailbox_take_turns(self):
        relay = self.relay(self.practice, start=False)
        relay.set("route default", mailboxes="office").set("route alarms", mailboxes="office")
        relay.set("mailbox office", connections=1)
        relay.set("device alarm", address=ALARM, route="alarms").start()
        self.practice.pause()
        with Device(relay) as device:
            for _ in range(30):
                device.sendmail(PRINTER, [RECIPIENT], message())
        self.send_alarm(relay, "guard@office.test")
        eventually(lambda: relay.mailbox()["next_try_in"], "the mailbox waits")
        self.practice.resume()
        relay.advance(3600)
        self.assertTrue(self.practice.wait_stored(31))
        first = [path for facts in self.practice.messages()[:3] for path in facts["forward_paths"]]
        self.assertIn("guard@office.test", first)


class SpoolShare(EndToEnd):
    """One device cannot fill the spool for the others."""

    SHARE = 3 << 20

    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.pause()

    def sharing(self, **settings):
        relay = self.relay(self.practice, start=False, **settings)
        return relay.set("device copier", address=COPIER, max_spool="3M")

    def scan(self, relay, source=COPIER, announced=False, octets=1 << 20):
        """How a message of a megabyte ends."""
        data = message(body=lines_of_base64(octets))
        with DeviceAt(relay, source) as device:
            expect(device.mail(PRINTER, [f"SIZE={len(data)}"] if announced else []), 250)
            expect(device.rcpt(RECIPIENT), 250)
            answer = device.docmd("DATA")
            if answer[0] != 354:
                return answer
            device.send(data + b".\r\n")
            return device.getreply()

    def fill(self, relay, **how):
        """The refusal, and how many were taken before it."""
        for count in range(10):
            answer = self.scan(relay, **how)
            if answer[0] != 250:
                return answer, count
        return self.fail("nothing was refused")

    def leave(self, relay):
        self.practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        relay.advance(3600)
        relay.wait_empty()

    def test_a_device_beyond_its_share_is_asked_to_wait_and_others_are_served(self):
        relay = self.sharing().start()
        answer, count = self.fill(relay)
        expect(answer, 452, b"4.3.1 ")
        self.assertIn(b"max_spool", answer[1])
        self.assertEqual(count, 2)
        refused = relay.events("mail-refused")[-1]
        self.assertEqual(refused["device"], "copier")
        self.assertIn("max_spool", refused["reason"])
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, 1)
        words = b" ".join(done.stdout.split())
        self.assertIn(b"mail of device copier was refused less than a minute ago, and none was accepted from it "
                      b"since: the waiting mail of copier has reached its share of the spool (3 MB); 2", words)
        self.assertIn(b"raise max_spool of its [device]", words)
        for _ in range(4):
            expect(self.scan(relay, ALARM), 250)
        self.assertEqual(relay.tool("status", check=False).returncode, 1, "others help the copier nothing")
        self.leave(relay)
        expect(self.scan(relay), 250)
        self.assertEqual(relay.tool("status").returncode, 0)

    def test_a_size_that_is_said_is_refused_before_it_is_sent(self):
        relay = self.sharing().start()
        answer, count = self.fill(relay, announced=True)
        expect(answer, 452, b"max_spool")
        self.assertEqual(count, 2)
        expect(self.scan(relay, octets=100_000), 250)

    def test_an_address_without_a_name_has_the_common_share(self):
        relay = self.sharing().set("devices", max_spool="2M").start()
        expect(self.scan(relay, ALARM), 250)
        expect(self.scan(relay, ALARM), 452, b"max_spool")
        expect(self.scan(relay, "127.0.0.78"), 250)
        self.assertEqual(self.fill(relay)[1], 2)

    def test_the_default_is_half_the_spool(self):
        relay = self.relay(self.practice, spool_max="6M")
        self.assertEqual(self.fill(relay, source=ALARM)[1], 2)
        expect(self.scan(relay, "127.0.0.78"), 250)

    def test_many_sessions_at_once_stay_within_the_share(self):
        relay = self.sharing().start()
        with concurrent.futures.ThreadPoolExecutor(16) as devices:
            answers = [answer[0] for answer in devices.map(lambda _: self.scan(relay), range(32))]
        self.assertEqual(set(answers), {250, 452})
        self.assertLessEqual(sum(entry["size"] for entry in relay.queue()), self.SHARE)
        self.assertGreaterEqual(answers.count(250), 1)
        self.leave(relay)
        expect(self.scan(relay), 250)

    def test_what_waits_counts_after_a_crash(self):
        relay = self.sharing().start()
        self.fill(relay)
        relay.kill()
        relay.start()
        expect(self.scan(relay), 452, b"max_spool")
        expect(self.scan(relay, ALARM), 250)


if __name__ == "__main__":
    unittest.main()
