"""Somebody sets the wall clock, forward a day and back two: nothing stalls, and nothing comes early."""

import os
import pathlib
import shlex
import shutil
import subprocess
import unittest

from harness import EndToEnd, eventually
from test_wire import Upstream

DAY = 86400
BEFORE = 5 * DAY  # the certificate was made in the past
CC = shlex.split(os.environ.get("CC", "cc"))


class ClockSteps(EndToEnd):
    def begin(self, **options):
        if not shutil.which(CC[0]):
            self.skipTest("there is no C compiler for the library that moves the clock")
        self.step_file = self.directory / "step"
        self.set_clock(0)
        library = self.directory / "stepped_clock.so"
        source = pathlib.Path(__file__).parent / "stepped_clock.c"
        subprocess.run([*CC, "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
        self.upstream = Upstream(self.directory, **options)
        self.addCleanup(self.upstream.stop)
        self.outtray = self.relay(self.upstream, start=False)
        sanitizer = os.environ.get("ASAN_OPTIONS", "")
        self.outtray.environment = {"LD_PRELOAD": str(library), "OUTTRAY_CLOCK_STEP": str(self.step_file),
                                    "ASAN_OPTIONS": f"{sanitizer}:verify_asan_link_order=0"}
        self.outtray.start()

    def set_clock(self, seconds):
        new = self.step_file.with_suffix(".new")
        new.write_text(f"{BEFORE + seconds}\n", encoding="ascii")
        new.rename(self.step_file)

    def arrived(self, count):
        eventually(lambda: len(self.upstream.messages()) == count, f"{count} messages arrived")

    def test_mail_goes_on_after_each_step(self):
        self.begin()
        for number, step in enumerate((0, DAY, -DAY, -3 * DAY, 20 * DAY, 0), 1):
            self.set_clock(step)
            self.outtray.send()
            self.arrived(number)
            self.outtray.wait_empty()
        self.assertEqual(self.outtray.mailbox()["state"], "ready")

    def test_what_waits_is_tried_in_its_time(self):
        for step in (DAY, -2 * DAY):
            with self.subTest(step=step):
                refuse = {"RCPT TO:<": "450 4.2.0 later"}
                self.begin(refuse=refuse)
                self.outtray.send()
                self.outtray.wait_event("deferred")
                self.set_clock(step)
                self.upstream.allow_all()
                self.outtray.send()
                self.arrived(1)  # the other one still waits
                self.assertEqual(len(self.outtray.queue()), 1)
                self.outtray.advance(180)
                self.arrived(2)

    def test_a_mailbox_in_trouble_is_probed_in_its_time(self):
        for step in (DAY, -2 * DAY):
            with self.subTest(step=step):
                self.begin(refuse={"MAIL": "451 4.7.0 Temporary server error"})
                self.outtray.send()
                eventually(lambda: self.outtray.mailbox()["state"] == "waiting", "the mailbox waits")
                self.set_clock(step)
                self.upstream.allow_all()
                self.outtray.send()
                self.outtray.advance(120)
                self.arrived(2)
                eventually(lambda: self.outtray.mailbox()["state"] == "ready", "it has recovered")


if __name__ == "__main__":
    unittest.main()
