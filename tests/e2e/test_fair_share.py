"""Neither one message nor one route can keep the others from leaving."""

import smtplib
import unittest

from harness import PATIENCE, PRINTER, RECIPIENT, Device, EndToEnd, eventually, message

ALARM = "127.0.0.77"
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


if __name__ == "__main__":
    unittest.main()
