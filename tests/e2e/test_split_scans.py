"""Scans that a device sends in parts (message/partial): joined when the device is set so, else passed on."""

import concurrent.futures
import time
import unittest

from harness import (PRINTER, RECIPIENT, Device, EndToEnd, eventually, lines_of_base64, message,
                     message_id_of, sha256, without_trace)

HOUR = 3600
ROUNDS = 8


def split(data, parts, scan, totals=True):
    """The fragments of a message, as a multi-function printer makes them (RFC 2046 5.2.2)."""
    lines = data.splitlines(keepends=True)
    size = len(lines) // parts + 1
    fragments = []
    for number in range(1, parts + 1):
        total = f"; total={parts}" if totals or number == parts else ""
        outer = ["X-Mailer: Copier 3", f"From: <{PRINTER}>", f"To: <{RECIPIENT}>",
                 f"Subject: Scan ({number}/{parts})", "Date: Fri, 26 Mar 1993 12:59:38 -0500",
                 f"Message-ID: <{scan}.{number}@copier>", "MIME-Version: 1.0",
                 f'Content-Type: message/partial; id="{scan}@copier";', f"\tnumber={number}{total}", "", ""]
        fragments.append("\r\n".join(outer).encode() + b"".join(lines[(number - 1) * size:number * size]))
    return fragments


def scan(octets=300_000, seed=1):
    return message("Scan of the day", lines_of_base64(octets, seed),
                   extra=["MIME-Version: 1.0", "Content-Type: application/pdf; name=scan.pdf",
                          "Content-Transfer-Encoding: base64"])


def body_of(data):
    return data.split(b"\r\n\r\n", 1)[1]


class SplitScans(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def joining(self, **settings):
        relay = self.relay(self.practice, start=False, **settings)
        return relay.set("devices", join_split="yes")

    def assert_whole(self, data, number=1):
        """What arrived is the message that was split, under the outer header of its first part."""
        stored, _ = without_trace(self.stored(self.practice, number))
        header, body = stored.split(b"\r\n\r\n", 1)
        self.assertEqual(sha256(body), sha256(body_of(data)))
        self.assertEqual([line.split(b":")[0].decode() for line in header.split(b"\r\n")],
                         ["X-Mailer", "From", "To", "Date", "Subject", "Message-ID", "MIME-Version",
                          "Content-Type", "Content-Transfer-Encoding"])
        self.assertIn(b"\r\nSubject: Scan of the day\r\n", header)
        self.assertIn(b"\r\nMessage-ID: " + message_id_of(data).encode(), header)
        self.assertNotIn(b"message/partial", header)

    def test_parts_are_joined(self):
        relay = self.joining().start()
        for totals in (True, False):
            with self.subTest(totals=totals):
                data = scan(seed=totals + 1)
                before = len(self.practice.messages())
                for fragment in split(data, 4, f"scan{totals}", totals):
                    relay.send(fragment)
                self.assertTrue(self.practice.wait_stored(before + 1))
                relay.wait_empty()
                self.assertEqual(len(self.practice.messages()), before + 1)
                self.assert_whole(data, before + 1)
                joined = relay.wait_event("joined", before + 1)
                self.assertEqual((joined["parts"], joined["device"]), ("4", "127.0.0.1"))

    def test_parts_come_in_any_order_and_at_once(self):
        relay = self.joining().start()
        scans = [scan(100_000, seed) for seed in range(6)]
        fragments = [fragment for number, data in enumerate(scans)
                     for fragment in reversed(split(data, 7, f"scan{number}"))]
        with concurrent.futures.ThreadPoolExecutor(8) as devices:
            list(devices.map(relay.send, fragments))
        self.assertTrue(self.practice.wait_stored(len(scans)))
        relay.wait_empty()
        self.assert_ids(self.practice, [message_id_of(data) for data in scans])
        order = [facts["message_id"] for facts in self.practice.messages()]
        for data in scans:
            self.assert_whole(data, order.index(message_id_of(data)) + 1)

    def test_without_the_setting_parts_pass_as_they_are(self):
        relay = self.relay(self.practice)
        fragments = split(scan(), 3, "scan")
        for fragment in fragments:
            relay.send(fragment)
        self.assertTrue(self.practice.wait_stored(3))
        for fragment in fragments:
            self.assert_arrived(self.practice, fragment)

    def test_a_device_has_a_setting_of_its_own(self):
        relay = self.joining().set("device plain", address="127.0.0.0/8", join_split="no").start()
        fragments = split(scan(), 2, "scan")
        for fragment in fragments:
            relay.send(fragment)
        self.assertTrue(self.practice.wait_stored(2))
        for fragment in fragments:
            self.assert_arrived(self.practice, fragment)

    def test_other_mail_does_not_wait(self):
        relay = self.joining().start()
        relay.send(split(scan(), 2, "scan")[0])
        data = relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        self.assertEqual(len(relay.queue()), 1)

    def test_a_missing_part_lets_the_others_go_after_an_hour(self):
        relay = self.joining().start()
        fragments = split(scan(), 3, "scan")
        relay.send(fragments[0])
        relay.send(fragments[2])
        self.assertEqual([entry["state"] for entry in relay.queue()], ["queued"] * 2)
        relay.advance(HOUR - 60)
        time.sleep(0.3)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(self.practice.messages(), [])
        relay.advance(60)
        self.assertTrue(self.practice.wait_stored(2))
        relay.wait_empty()
        self.assert_arrived(self.practice, fragments[0])
        self.assert_arrived(self.practice, fragments[2])
        self.assertIn("not all parts", relay.wait_event("not-joined")["reason"])

    def test_together_larger_than_the_mailbox_takes(self):
        """Each part fits, the whole would be refused: better parts than a dead letter."""
        relay = self.joining().set("mailbox office", max_size="1M").start()
        fragments = split(scan(1_500_000), 3, "scan")
        for fragment in fragments:
            relay.send(fragment)
        self.assertTrue(self.practice.wait_stored(3))
        for fragment in fragments:
            self.assert_arrived(self.practice, fragment)
        self.assertIn("larger than the mailboxes", relay.wait_event("not-joined")["reason"])

    def test_different_recipients_are_not_mixed(self):
        relay = self.joining().start()
        first, second = split(scan(), 2, "scan")
        relay.send(first, recipients=["boss@office.test"])
        relay.send(second)
        self.assertEqual(len(relay.queue()), 2)
        self.assertEqual(relay.events("joined"), [])

    def test_a_restart_in_between_changes_nothing(self):
        for end in ("stop", "kill"):
            with self.subTest(end=end):
                relay = self.joining().start()
                data = scan(seed=len(end))
                fragments = split(data, 3, end)
                relay.send(fragments[1])
                relay.send(fragments[0])
                getattr(relay, end)()
                relay.start()
                self.assertEqual(len(relay.queue()), 2)
                before = len(self.practice.messages())
                relay.send(fragments[2])
                self.assertTrue(self.practice.wait_stored(before + 1))
                relay.wait_empty()
                self.assertEqual(len(self.practice.messages()), before + 1)
                self.assert_whole(data, before + 1)

    def test_killed_while_joining(self):
        """Whatever moment it is: the parts or the whole are there, and the whole arrives once."""
        relay = self.joining()
        self.practice.pause()
        scans = [scan(900_000, seed) for seed in range(ROUNDS)]
        for number, data in enumerate(scans):
            relay.start()
            fragments = split(data, 9, f"scan{number}")
            for fragment in fragments[:-1]:
                relay.send(fragment)
            with Device(relay) as device:
                device.sendmail(PRINTER, [RECIPIENT], fragments[-1])
                time.sleep(number * 0.01)  # another moment each time
                relay.kill()
                device.close()
        relay.start()
        eventually(lambda: len(relay.queue()) == ROUNDS, "all are joined")
        self.practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(self.practice.wait_stored(ROUNDS))
        relay.wait_empty()
        self.assert_ids(self.practice, [message_id_of(data) for data in scans])
        order = [facts["message_id"] for facts in self.practice.messages()]
        for data in scans:
            self.assert_whole(data, order.index(message_id_of(data)) + 1)

    def test_a_stop_while_joining_is_clean(self):
        relay = self.joining()
        self.practice.pause()
        data = scan(4_000_000)
        relay.start()
        for fragment in split(data, 5, "scan"):
            relay.send(fragment)
        relay.restart()
        eventually(lambda: len(relay.queue()) == 1, "it is joined")
        self.practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_whole(data)


if __name__ == "__main__":
    unittest.main()
