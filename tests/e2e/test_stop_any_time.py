"""SIGTERM at whatever stage: the daemon ends in time and exits clean, and nothing is lost or sent twice."""

import signal
import time
import unittest

from harness import Device, EndToEnd, eventually, expect, lines_of_base64, message

BEFORE_THE_END = ("connect", "banner", "ehlo", "starttls", "challenge", "auth", "mail", "rcpt", "data")
MUCH = 20_000_000


class WhileSubmitting(EndToEnd):
    def hang_at(self, stage, size=10_000, **rule):
        practice = self.upstream(limits={"chunking": stage != "data"})
        relay = self.relay(practice, stop_time="1s")
        practice.add_rule(stage=stage, action="hang", times=1, **rule)
        data = relay.send(message(body=lines_of_base64(size)))
        eventually(lambda: practice.rules()[0]["fired"] == 1, "the upstream has fallen silent")
        return practice, relay, data

    def assert_sent_after_restart(self, practice, relay, data):
        relay.stop()
        practice.clear_rules()
        relay.start()
        self.assertEqual(relay.events("spool-open")[0]["uncertain"], "0")
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, data)
        relay.wait_empty()
        relay.stop()

    def test_at_each_stage_before_the_end_of_data(self):
        for stage in BEFORE_THE_END:
            with self.subTest(stage=stage):
                self.assert_sent_after_restart(*self.hang_at(stage))

    def test_in_the_middle_of_mail_data(self):
        """More than the kernel's buffers can hold, so that the end of data cannot have left."""
        self.assert_sent_after_restart(*self.hang_at("body", size=MUCH, at=1000))


class WhileAccepting(EndToEnd):
    def begin_mail_data(self, relay):
        """A device in the middle of its mail data, of which the daemon has much already."""
        device = Device(relay)
        device.begin()
        device.send(message(body=lines_of_base64(80_000)))
        eventually(lambda: list((relay.spool / "content").iterdir()), "mail data is on the disk")
        return device

    def test_a_session_whose_mail_was_refused_ends_too(self):
        relay = self.relay(self.upstream(), start=False, stop_time="30s")
        relay.set("devices", max_size="100KB").start()
        device = self.begin_mail_data(relay)
        relay.signal(signal.SIGTERM)
        relay.wait_event("stopping")
        began = time.monotonic()
        device.send(lines_of_base64(200_000) + b".\r\n")
        expect(device.getreply(), 552)
        expect(device.getreply(), 421)
        device.close()
        self.assertEqual(relay.wait_end(), 0)
        self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(relay.events("stop-limit"))

    def test_who_comes_during_a_stop_is_refused_at_once(self):
        relay = self.relay(self.upstream(), stop_time="30s")
        device = self.begin_mail_data(relay)
        relay.signal(signal.SIGTERM)
        relay.wait_event("stopping")
        began = time.monotonic()
        with self.assertRaises(OSError):
            Device(relay)
        self.assertLess(time.monotonic() - began, 5, "it is not left waiting")
        device.send(b".\r\n")
        expect(device.getreply(), 250)
        device.close()
        self.assertEqual(relay.wait_end(), 0)


if __name__ == "__main__":
    unittest.main()
