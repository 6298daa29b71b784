"""No room, and nothing that can be written: devices are asked to wait, what is there is served, and it passes by itself."""

import os
import shutil
import smtplib
import subprocess
import time
import unittest

from harness import PRINTER, RECIPIENT, Device, EndToEnd, eventually, expect, lines_of_base64, message

MIB = 1 << 20
ATTENTION = 1


class Limits(EndToEnd):
    def full_relay(self, practice):
        """A relay of two mebibytes whose ordinary part is full; alarms come from 127.0.0.77."""
        relay = self.relay(practice, start=False, spool_max="2M")
        relay.set("devices", max_spool="1G")
        relay.set("device alarm", address="127.0.0.77", lane="urgent").start()
        for octets in (330_000, 50_000, 5_000, 100):
            self.send_until_refused(relay, octets)
        return relay

    def send_until_refused(self, relay, octets):
        with self.assertRaises(smtplib.SMTPDataError) as refusal:
            while True:
                relay.send(message(body=lines_of_base64(octets)))
        self.assertEqual(refusal.exception.smtp_code, 452)

    def refused(self, relay, source=None):
        """The answer to DATA, or None when it was accepted."""
        with smtplib.SMTP(relay.address, relay.port, timeout=30, source_address=source) as device:
            device.ehlo()
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt(RECIPIENT), 250)
            code, text = device.docmd("DATA")
            if code == 354:
                device.send(message() + b".\r\n")
                expect(device.getreply(), 250)
                return None
            return code, text

    def test_the_last_part_is_for_urgent_mail_and_it_passes_by_itself(self):
        practice = self.upstream()
        practice.pause()
        relay = self.full_relay(practice)
        code, text = self.refused(relay)
        self.assertEqual(code, 452)
        self.assertTrue(text.startswith(b"4.3.1"), text)
        self.assertIsNone(self.refused(relay, ("127.0.0.77", 0)))
        self.assertEqual(relay.wait_event("spool-full")["refused"], "normal and bulk")
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION)
        self.assertIn(b"new mail, unless it is urgent, is refused: the waiting mail has reached spool_max",
                      b" ".join(done.stdout.split()))
        practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        relay.wait_event("spool-has-room")
        relay.wait_empty()
        self.assertEqual(len(practice.messages()), int(relay.status()["intake"]["accepted"]))
        self.assertIsNone(self.refused(relay))
        self.assertEqual((len(relay.events("spool-full")), len(relay.events("spool-has-room"))), (1, 1))

    def test_mail_that_grows_beyond_the_limit_is_stopped(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice, start=False, spool_max="2M")
        relay.set("devices", max_spool="1G").start()
        with Device(relay) as device:
            device.begin()
            with self.assertRaises((smtplib.SMTPException, OSError, AssertionError)) as caught:
                device.send(message(body=lines_of_base64(8 * MIB)) + b".\r\n")
                expect(device.getreply(), 250)
            if isinstance(caught.exception, AssertionError):
                self.assertIn("(452, b'4.3.1", str(caught.exception))
        eventually(lambda: not list((relay.spool / "content").iterdir()), "what was taken is given back")
        refused = relay.wait_event("mail-refused")
        self.assertIn("spool_max", refused["reason"])
        self.assertEqual(relay.events("spool-failed"), [])
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION, "though the spool is far from full")
        words = b" ".join(done.stdout.split())
        for word in (b"mail of device " + refused["device"].encode() + b" was refused", b"0 B of all",
                     b"or raise spool_max in [relay]"):
            self.assertIn(word, words)
        relay.advance(3700)
        self.assertEqual(relay.tool("status").returncode, 0, "told of for an hour")
        relay.send()
        self.assertEqual(len(relay.queue()), 1)

    def test_a_large_message_that_does_not_fit_is_told_of_until_it_is_in(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice, start=False, spool_max="4M")
        relay.set("devices", max_spool="1G").start()
        relay.send(message(body=lines_of_base64(2 * MIB)))
        self.send_until_refused(relay, 2 * MIB)
        self.assertFalse(relay.status()["queue"]["full"])
        for _ in range(3):
            self.send_until_refused(relay, 2 * MIB)
        self.assertEqual(len(relay.events("mail-refused")), 1, "one line a minute")
        self.assertEqual(relay.tool("status", check=False).returncode, ATTENTION)
        practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        relay.wait_empty()
        relay.send(message(body=lines_of_base64(2 * MIB)))
        self.assertEqual(relay.tool("status").returncode, 0)


def may_mount():
    return os.geteuid() == 0 and shutil.which("mount") and subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False, capture_output=True).returncode == 0


@unittest.skipUnless(may_mount(), "needs root and the right to mount")
class ReadOnly(EndToEnd):
    def setUp(self):
        super().setUp()
        self.place = self.directory / "disk"
        self.place.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", self.place)
        self.addCleanup(self.unmount)
        self.practice = self.upstream()

    def mount(self, *arguments):
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)

    def unmount(self):
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)

    def make(self, mode):
        """The whole disk becomes read-only (ro) or writable (rw), as after an error or its repair."""
        self.mount("-o", f"remount,{mode}", self.place)

    def refused(self, relay):
        with Device(relay) as device:
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt(RECIPIENT), 250)
            code, text = device.docmd("DATA")
            return code, text

    def test_it_starts_sends_what_it_has_and_recovers(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        self.practice.pause()
        relay.start()
        mails = [relay.send(message(body=lines_of_base64(octets))) for octets in (500, 200_000)]
        relay.stop()
        self.make("ro")
        self.practice.resume()
        relay.start()
        self.assertIn("Read-only file system", relay.wait_event("spool-failing")["reason"])
        self.assertTrue(self.practice.wait_stored(2))
        for data in mails:
            self.assert_arrived(self.practice, data)
        relay.wait_empty()
        code, text = self.refused(relay)
        self.assertEqual(code, 451)
        self.assertIn(b"could not store", text)
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION)
        for word in (b"cannot be written", b"Read-only file system", b"writable again", b"2 messages were sent"):
            self.assertIn(word, b" ".join(done.stdout.split()))
        self.make("rw")
        relay.advance(31)
        relay.wait_event("spool-recovered")
        relay.send()
        self.assertTrue(self.practice.wait_stored(3))
        relay.wait_empty()
        relay.kill()
        relay.start()
        self.assertEqual(relay.queue(), [], "outcomes were written when the disk was well again")
        self.assertEqual(len(self.practice.messages()), 3)

    def test_what_is_deleted_meanwhile_is_said_to_come_back(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        self.practice.pause()
        relay.start()
        for _ in range(2):
            relay.send()
        first, second = (entry["id"] for entry in relay.queue())
        self.restart_read_only(relay)
        for name in (first, second):
            began = time.monotonic()
            done = relay.tool("delete", name, check=False)
            self.assertEqual(done.returncode, os.EX_TEMPFAIL)
            self.assertLess(time.monotonic() - began, 15)
            self.assertIn(f"message {name} is deleted, but that is not yet written to the disk".encode(), done.stderr)
            self.assertIn(b"comes back", done.stderr)
        self.assertEqual(relay.queue(), [])
        self.assertEqual(len(relay.events("delete-unwritten")), 2)
        self.make("rw")
        relay.advance(31)
        relay.wait_event("deleted")
        relay.stop()
        relay.start()
        self.assertEqual(relay.queue(), [])

    def test_it_says_when_it_works_again_though_nothing_waits_for_that(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        relay.start()
        self.restart_read_only(relay)
        relay.wait_event("spool-failing")
        self.assertEqual(self.refused(relay)[0], 451)
        self.make("rw")
        relay.advance(31)
        relay.wait_event("spool-recovered")
        self.assertEqual(relay.tool("status").returncode, 0)

    def test_a_relay_that_has_sent_nothing_begins_with_whole_budgets(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        relay.set("mailbox office", messages_per_minute=30, recipients_per_day=10000)
        relay.start()
        relay.stop()
        self.lose_ledger(relay)
        self.make("ro")
        relay.start()
        mailbox = relay.mailbox()
        self.assertEqual((mailbox["sent_this_minute"], mailbox["recipients_today"], mailbox["budget_why"]), (0, 0, ""))

    def test_a_ledger_that_was_lost_after_mail_was_tried_counts_upwards_and_says_so(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        relay.set("mailbox office", messages_per_minute=30, recipients_per_day=10000).start()
        self.practice.add_rule(stage="rcpt", match=RECIPIENT, reply="450 4.2.1 mailbox busy")
        relay.send()
        eventually(lambda: relay.queue()[0]["attempts"], "it was tried")
        relay.stop()
        self.lose_ledger(relay)
        self.make("ro")
        relay.start()
        mailbox = relay.mailbox()
        self.assertEqual((mailbox["sent_this_minute"], mailbox["recipients_today"]), (30, 101))
        self.assertIn(b"counted upwards after an unclean stop", relay.tool("status", check=False).stdout)

    def lose_ledger(self, relay):
        for file in relay.spool.glob("ledger.db*"):
            file.unlink()

    def restart_read_only(self, relay):
        """A file system that is written to cannot be made read-only."""
        relay.stop()
        self.make("ro")
        relay.start()

    def test_a_disk_that_is_full_to_the_last_octet(self):
        relay = self.relay(self.practice, start=False, spool=self.place / "spool")
        relay.spool = self.place / "spool"
        self.practice.pause()
        relay.start()
        data = relay.send()
        eventually(lambda: relay.mailbox()["next_try_in"], "the mailbox waits")
        with open(self.place / "ballast", "wb") as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(MIB))
                file.flush()
        relay.advance(1)
        for _ in range(400):
            if self.refused_large(relay):
                break
        self.practice.resume()
        relay.advance(3600)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        (self.place / "ballast").unlink()
        relay.advance(31)
        eventually(lambda: self.accepts(relay), "mail is taken again")

    def refused_large(self, relay):
        try:
            relay.send(message(body=lines_of_base64(200_000)))
        except smtplib.SMTPException as refusal:
            self.assertIn(b"4.3", str(refusal).encode())
            return True
        return False

    def accepts(self, relay):
        try:
            relay.send()
        except smtplib.SMTPException:
            return False
        return True


if __name__ == "__main__":
    unittest.main()
