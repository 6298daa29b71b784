"""The connection upstream is made while the device still sends, so that its mail need not wait for it."""

import unittest

from harness import Device, EndToEnd, eventually, expect, message


class Ahead(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def sign_ins(self):
        return len(self.outtray.events("signed-in"))

    def be_proven_and_idle(self):
        """One mail has left, and the connection that it took has ended."""
        self.outtray.send()
        self.outtray.wait_empty()
        self.outtray.advance(61)
        eventually(lambda: self.outtray.mailbox()["connections"] == 0, "the idle connection's end")

    def begin_data(self):
        device = Device(self.outtray)
        self.addCleanup(device.close)
        device.begin()
        return device

    def test_it_is_ready_before_the_scan_has_arrived(self):
        self.be_proven_and_idle()
        scan = message("While it is sent")
        device = self.begin_data()
        eventually(lambda: self.sign_ins() == 2, "the sign-in ahead of the mail")
        device.send(scan + b".\r\n")
        expect(device.getreply(), 250)
        self.outtray.wait_empty()
        self.assert_arrived(self.practice, scan)
        self.assertEqual(self.sign_ins(), 2)

    def test_a_burst_of_devices_opens_one_at_a_time(self):
        self.be_proven_and_idle()
        for _ in range(5):
            self.begin_data()
        eventually(lambda: self.sign_ins() == 2, "the sign-in ahead of the mail")
        self.assertEqual(self.outtray.mailbox()["connections"], 1)

    def test_where_no_mail_follows_it_is_closed_like_any_idle_one(self):
        self.be_proven_and_idle()
        self.begin_data().hang_up()
        eventually(lambda: self.sign_ins() == 2, "the sign-in ahead of the mail")
        self.outtray.advance(61)
        eventually(lambda: self.outtray.mailbox()["connections"] == 0, "the idle connection's end")
        self.assertEqual(len(self.practice.messages()), 1)

    def test_a_mailbox_that_has_not_yet_signed_in_is_tried_with_mail_only(self):
        device = self.begin_data()
        self.outtray.advance(5)
        self.assertEqual(self.outtray.mailbox()["connections"], 0)
        device.send(message() + b".\r\n")
        expect(device.getreply(), 250)
        self.outtray.wait_empty()
        self.assertEqual(self.sign_ins(), 1)


if __name__ == "__main__":
    unittest.main()
