"""A file system of its own below a running daemon, made read-only, or full to the last block: mail is refused in so many words,
what is there is sent, the status says so, and it passes by itself when the disk is well again."""

import errno
import os
import pathlib
import shutil
import smtplib
import subprocess
import time
import unittest

from harness import EndToEnd, eventually, lines_of_base64, message, message_id_of

MIB = 1 << 20
ATTENTION = 1
DISK_SIZE = "64M"
NEEDED = ("mount", "umount", "mkfs.ext4", "e2fsck", "findmnt")


def may_be_had():
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control") and all(shutil.which(name) for name in NEEDED)


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


@unittest.skipUnless(may_be_had(), "needs root, loop devices and mkfs.ext4")
class RealDisk(EndToEnd):
    def setUp(self):
        super().setUp()
        self.image, self.place = self.directory / "image", self.directory / "disk"
        self.place.mkdir()
        run("truncate", "-s", DISK_SIZE, self.image)
        run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        run("mount", "-o", "loop", self.image, self.place)
        self.addCleanup(self.unmount)
        self.practice = self.upstream()
        self.practice.pause()
        self.outtray = self.relay(self.practice, start=False, spool=self.place / "spool")
        self.outtray.spool = self.place / "spool"
        self.outtray.start()

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.place], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.05)

    def make(self, mode):
        """ro or rw."""
        run("mount", "-o", f"remount,{mode}", self.place)

    def refused(self, data=None):
        """The answer that refuses this mail; None when it was accepted."""
        try:
            self.outtray.send(data or message())
        except smtplib.SMTPResponseException as refusal:
            return refusal.smtp_code, refusal.smtp_error
        except smtplib.SMTPServerDisconnected:
            return 0, b""
        return None

    def said(self, *words):
        """That the status needs attention, and says this."""
        done = self.outtray.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION)
        text = b" ".join(done.stdout.split())
        for word in words:
            self.assertIn(word, text)

    def let_mail_leave(self):
        self.practice.resume()
        self.outtray.api("POST", "/v1/mailbox/office/resume")

    def assert_well(self, expected):
        """Exactly these have arrived, and after kill -9 nothing is left."""
        self.outtray.wait_empty()
        self.assertEqual(self.outtray.tool("status", check=False).returncode, 0)
        self.outtray.kill()
        self.outtray.start()
        self.assertEqual(self.outtray.events("spool-open")[0]["damaged"], "0")
        self.assertEqual(self.outtray.queue(), [])
        self.assert_ids(self.practice, [message_id_of(data) for data in expected])


class ReadOnly(RealDisk):
    def hand_in(self):
        mails = [self.outtray.send(message(body=lines_of_base64(octets))) for octets in (500, 200_000, 900)]
        eventually(lambda: self.outtray.mailbox()["next_try_in"], "the mailbox waits")
        return mails

    def check_that_it_only_sends(self, mails):
        code, text = eventually(self.refused, "mail is refused")
        self.assertEqual(code, 451)
        self.assertIn(b"4.3.", text)
        self.assertIn("Read-only file system", self.outtray.wait_event("spool-failing")["reason"])
        self.said(b"cannot be written", b"Read-only file system")
        self.let_mail_leave()
        self.assertTrue(self.practice.wait_stored(3))
        self.outtray.wait_empty()
        for data in mails:
            self.assert_arrived(self.practice, data)
        self.said(b"3 messages were sent")

    def test_it_starts_on_one_and_recovers(self):
        mails = self.hand_in()
        self.outtray.stop()
        self.make("ro")
        self.outtray.start()
        self.check_that_it_only_sends(mails)
        self.make("rw")
        self.outtray.advance(31)
        self.outtray.wait_event("spool-recovered")
        mails.append(self.outtray.send())
        self.assertTrue(self.practice.wait_stored(4))
        self.assert_well(mails)

    def test_the_kernel_makes_it_one_after_an_error(self):
        """Nobody else can while files are open for writing; and only mounting it again makes it writable."""
        mails = self.hand_in()
        self.fail_the_file_system()
        self.check_that_it_only_sends(mails)
        self.outtray.stop()
        self.assertEqual(self.outtray.events("outcomes-unwritten")[0]["messages"], "3")
        self.unmount()
        subprocess.run(["e2fsck", "-fy", self.image], check=False, capture_output=True, timeout=60)
        run("mount", "-o", "loop", self.image, self.place)
        self.outtray.start()
        self.assertEqual(self.outtray.events("spool-open")[0]["damaged"], "0")
        self.assertTrue(self.practice.wait_stored(6), "no outcome could be kept, so all are sent again")
        self.assert_well(2 * mails)

    def fail_the_file_system(self):
        device = run("findmnt", "-n", "-o", "SOURCE", self.place).stdout.decode().strip()
        switch = pathlib.Path("/sys/fs/ext4") / pathlib.Path(device).name / "trigger_fs_error"
        if not switch.exists():
            self.skipTest("this kernel's ext4 cannot be told that there is an error")
        run("mount", "-o", "remount,errors=remount-ro", self.place)
        switch.write_text("by a test", encoding="ascii")


class Full(RealDisk):
    def fill_up(self):
        """To the last block."""
        with open(self.place / "ballast", "wb", buffering=0) as file:
            for piece in (MIB, 4096):
                with self.assertRaises(OSError) as caught:
                    while True:
                        file.write(bytes(piece))
                        os.fsync(file.fileno())
                self.assertEqual(caught.exception.errno, errno.ENOSPC)

    def test_it_refuses_sends_what_it_has_and_recovers(self):
        mails = [self.outtray.send(message(body=lines_of_base64(octets))) for octets in (500, 200_000)]
        eventually(lambda: self.outtray.mailbox()["next_try_in"], "the mailbox waits")
        self.fill_up()
        self.outtray.advance(1)
        answer = eventually(lambda: self.refused(message(body=lines_of_base64(300_000))), "large mail is refused")
        self.assertIn(answer[0], (451, 452))
        self.assertIn(b"4.3.", answer[1])
        while True:  # what the journal has prepared lasts for a while
            data = message(body=lines_of_base64(40_000))
            answer = self.refused(data)
            if answer:
                break
            mails.append(data)
        self.assertIn(answer[0], (451, 452))
        self.assertIn(b"4.3.", answer[1])
        self.said(b"refused")
        self.let_mail_leave()
        self.assertTrue(self.practice.wait_stored(len(mails)))
        (self.place / "ballast").unlink()
        self.outtray.advance(31)
        eventually(lambda: self.refused(mails[0]) is None, "mail is taken again")
        self.assertTrue(self.practice.wait_stored(len(mails) + 1))
        self.assert_well([*mails, mails[0]])


if __name__ == "__main__":
    unittest.main()
