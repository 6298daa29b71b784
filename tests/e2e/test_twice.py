"""A device that sends the same mail again: recognised, marked, and where wanted sent only once."""

import time
import unittest

from harness import EndToEnd, Device, PRINTER, RECIPIENT, eventually, expect, lines_of_base64, message


class Twice(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def start(self, how=None):
        relay = self.relay(self.practice, start=False)
        if how:
            relay.set("devices", sent_twice=how)
        return relay.start()

    def stays_at(self, count):
        time.sleep(0.7)  # nothing may happen, so there is nothing to wait for
        self.assertEqual(len(self.practice.messages()), count)

    def test_it_is_marked_and_sent_unless_told_otherwise(self):
        relay = self.start()
        self.practice.add_rule(stage="auth", reply="454 4.7.0 Temporary authentication failure")
        data = message(body=lines_of_base64(200_000))
        relay.send(data)
        relay.send(data)
        first, second = relay.queue()
        event = relay.wait_event("sent-twice")
        self.assertEqual((event["queue"], event["first"]), (second["id"], first["id"]))
        self.assertNotIn("sent_twice", relay.show(first["id"])["repairs"])
        self.assertIn("sent_twice", relay.show(second["id"])["repairs"])
        self.practice.clear_rules()
        relay.tool("resume", "office")
        self.assertTrue(self.practice.wait_stored(2))
        device = eventually(lambda: relay.api("GET", "/v1/devices/127.0.0.1")[1], "it is known")
        eventually(lambda: "sent_twice" in str(relay.api("GET", "/v1/devices/127.0.0.1")[1]), f"{device} has the quirk")

    def test_once_means_once(self):
        relay = self.start("once")
        data = message()
        with Device(relay) as device:
            device.sendmail(PRINTER, [RECIPIENT], data)
            answers = []
            for _ in range(3):
                device.begin()
                device.send(data + b".\r\n")
                answers.append(device.getreply())
        first = relay.wait_event("accepted")["queue"]
        for answer in answers:
            self.assertIn(first.encode(), expect(answer, 250))
        self.assertTrue(self.practice.wait_stored(1))
        relay.wait_event("sent-twice", count=3, effect="accepted, and not sent again")
        self.stays_at(1)
        relay.wait_empty()

    def test_who_did_not_wait_for_the_250_is_sent_once_too(self):
        relay = self.start("once")
        data = message()
        device = Device(relay)
        device.begin()
        device.send(data + b".\r\n")
        device.hang_up()
        relay.wait_event("accepted")
        relay.send(data)
        self.assertTrue(self.practice.wait_stored(1))
        self.stays_at(1)

    def test_what_differs_is_sent(self):
        relay = self.start("once")
        data = message(message_id="<same@office.test>")
        relay.send(data)
        relay.send(data, recipients=["other@office.test"])
        relay.send(data, sender="other@office.test")
        relay.send(data + b"x\r\n")
        relay.send(data, source=relay.address.rsplit(".", 1)[0] + ".250")
        self.assertTrue(self.practice.wait_stored(5))
        self.assertEqual(relay.events("sent-twice"), [])

    def test_chunks_and_lines_are_the_same_mail(self):
        relay = self.start("once")
        data = message(body=b".dotted\r\n..more\r\n")
        relay.send(data)
        with Device(relay) as device:
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt(RECIPIENT), 250)
            device.send(f"BDAT {len(data)} LAST\r\n".encode() + data)
            expect(device.getreply(), 250)
        self.assertTrue(self.practice.wait_stored(1))
        relay.wait_event("sent-twice")
        self.stays_at(1)

    def test_after_a_quarter_of_an_hour_it_is_new_mail(self):
        relay = self.start("once")
        data = message()
        relay.send(data)
        relay.advance(15 * 60 + 1)
        relay.send(data)
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual(relay.events("sent-twice"), [])

    def test_a_device_may_differ_from_the_others(self):
        relay = self.relay(self.practice, start=False)
        relay.set("devices", sent_twice="once")
        relay.set("device alarm", address="127.0.0.0/8", sent_twice="mark")
        relay.start()
        data = message()
        relay.send(data)
        relay.send(data)
        self.assertTrue(self.practice.wait_stored(2))


if __name__ == "__main__":
    unittest.main()
