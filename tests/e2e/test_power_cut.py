"""The power fails at any moment, under file systems that others have written: ext4, XFS and btrfs.

The daemon's spool is on a real file system, on a disk that remembers every write and every flush (recorded_disk.py). From that
record come disks as the power may have left them: all that was flushed, and of the rest any part. The kernel's file system
recovers each as it would after a real cut, then a daemon starts on it: what a device had been told was accepted before the cut is
there, whole, and there once, unless the upstream had taken it by then.
"""

import collections
import contextlib
import os
import pathlib
import random
import smtplib
import subprocess
import threading
import time
import unittest

import recorded_disk
from harness import Device, EndToEnd, eventually, lines_of_base64, message, message_id_of, needs_program, without_trace
from packages import Unavailable, libraries, unpacked

LABELS = "full alone"

EX_DATAERR = 65
DEVICES, CUTS = 4, 16
SMALL, LARGE = 1_500, 400_000
ACCEPTING, SENDING = 3.0, 2.0  # seconds
NO_FLUSH = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync",
            "-e", "inject=fdatasync,fsync:retval=0")
MAKERS = {
    "xfs": ("mkfs.xfs", ("xfsprogs", "liburcu8", "libinih1", "libicu72", "libedit2", "libbsd0", "libmd0"), "320M"),
    "btrfs": ("mkfs.btrfs", ("btrfs-progs", "liblzo2-2"), "320M"),
}


class Load:
    """Devices that hand in mail, and when, counted in records of the disk, each was told 250."""

    def __init__(self, relay, disk):
        self.relay, self.disk = relay, disk
        self.acknowledged, self.sent = {}, {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(DEVICES)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number):
        with contextlib.suppress(smtplib.SMTPException, OSError), Device(self.relay) as device:
            for count in range(1_000_000):
                if self._stop.is_set():
                    return
                data = message(body=lines_of_base64(LARGE if count % 8 == number else SMALL, number * 1_000_000 + count))
                self.sent[message_id_of(data)] = data
                device.sendmail("printer@office.test", ["accounts@office.test"], data)
                self.acknowledged[message_id_of(data)] = len(self.disk.records)


class Arrivals:
    """What the upstream took, and from which record of the disk on that may have been."""

    def __init__(self, practice, disk):
        self.practice, self.disk = practice, disk
        self.first = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        seen = known = 0
        ended = False
        while not ended:  # and once more after the end
            ended = self._stop.wait(0.01)
            before, seen = seen, len(self.disk.records)
            messages = self.practice.messages()
            for facts in messages[known:]:
                self.first[facts["message_id"]] = before
            known = len(messages)


@unittest.skipUnless(recorded_disk.may_be_had(), "needs root, /dev/fuse and loop devices")
class PowerCut(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = random.randrange(1 << 32)
        self.draw = random.Random(self.seed)

    def make(self, kind):
        """An empty file system of that kind."""
        image = self.directory / "image"
        if kind == "ext4":
            recorded_disk.run("truncate", "-s", "256M", image)
            recorded_disk.run("mkfs.ext4", "-q", "-F", image)
            return image
        maker, packages, size = MAKERS[kind]
        if kind not in pathlib.Path("/proc/filesystems").read_text(encoding="ascii").split():
            self.skipTest(f"the kernel has no {kind}")
        try:
            root = unpacked(kind, packages)
        except Unavailable as reason:
            self.skipTest(str(reason))
        program = next(path for path in (root / "sbin" / maker, root / "usr/sbin" / maker, root / "bin" / maker) if path.exists())
        recorded_disk.run("truncate", "-s", size, image)
        done = subprocess.run([program, image], capture_output=True, check=False, timeout=120,
                              env={**os.environ, "LD_LIBRARY_PATH": f"{libraries(root)}:{root}/lib/x86_64-linux-gnu"})
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return image

    def record(self, disk, flushes=True):
        """(acknowledged, sent, arrived) of some seconds of mail, the upstream away at first."""
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice, start=False, spool=disk.mounted / "spool", log_level="info")
        relay.start()
        with contextlib.ExitStack() as stack:
            if not flushes:
                tracer = stack.enter_context(subprocess.Popen([*NO_FLUSH, "-p", str(relay.process.pid)]))
                stack.callback(tracer.terminate)
                status = pathlib.Path(f"/proc/{relay.process.pid}/status")
                eventually(lambda: "TracerPid:\t0\n" not in status.read_text(encoding="ascii"), "it is traced")
            load = stack.enter_context(Load(relay, disk))
            time.sleep(ACCEPTING)
            arrivals = stack.enter_context(Arrivals(practice, disk))
            practice.resume()
            relay.api("POST", "/v1/mailbox/office/resume")
            time.sleep(SENDING)
            end = len(disk.records)
            relay.kill()
        self.assertGreater(len(load.acknowledged), 20, "mail was taken")
        if flushes:
            self.assertGreater(len(arrivals.first), 0, "mail was sent on")
        return load, arrivals.first, end

    def after(self, image):
        """(message id, data) of all that a daemon finds on this disk."""
        place = self.directory / "after"
        with recorded_disk.mounted(image, place):
            relay = self.relay(start=False, spool=place / "spool")
            relay.start()
            opened = relay.events("spool-open")[0]
            check = relay.tool("spool", "check", check=False)
            saved = self.directory / "saved"
            export = relay.tool("spool", "export", saved, check=False)
            aside = [path.suffix for path in saved.glob("set-aside/*")]
            relay.stop()
            found = [without_trace(path.read_bytes())[0] for path in sorted(saved.glob("*.eml"))]
            recorded_disk.run("rm", "-rf", saved)
            if opened["damaged"] != "0":
                yield f"damage: {opened}"
            if set(aside) - {".torn"}:  # a flush that nobody was told of may be torn
                yield f"set aside: {aside}"
            for done, fine in ((check, (0,)), (export, (EX_DATAERR,) if aside else (0,))):
                if done.returncode not in fine:
                    yield f"{done.args[3:]}: {done.stdout.decode()} {done.stderr.decode()}"
            yield found

    def violations(self, image, cut, load, arrived):
        *trouble, found = self.after(image)
        yield from trouble
        copies = collections.Counter(message_id_of(data) for data in found)
        for data in found:
            if load.sent.get(message_id_of(data)) != data:
                yield f"{message_id_of(data)} is not what was sent"
        for message_id, count in copies.items():
            if count > 1:
                yield f"{message_id} is there {count} times"
        for message_id, at in load.acknowledged.items():
            if at <= cut and not copies[message_id] and arrived.get(message_id, cut + 1) > cut:
                yield f"{message_id} was acknowledged at {at} and is missing"

    def run_on(self, kind, cuts=CUTS, flushes=True):
        """[(cut, what is wrong)]"""
        disk = recorded_disk.RecordedDisk(self.directory / "disk", self.make(kind))
        with disk:
            load, arrived, end = self.record(disk, flushes)
            first = min(load.acknowledged.values())
        cuts = sorted(self.draw.randint(first, end) for _ in range(cuts - 1)) + [end]
        return [(cut, wrong) for cut, image in disk.images(cuts, self.draw)
                for wrong in self.violations(image, cut, load, arrived)]

    def test_on_ext4(self):
        self.assertEqual(self.run_on("ext4"), [], f"seed {self.seed}")

    def test_on_xfs(self):
        self.assertEqual(self.run_on("xfs"), [], f"seed {self.seed}")

    def test_on_btrfs(self):
        self.assertEqual(self.run_on("btrfs"), [], f"seed {self.seed}")

    @needs_program("strace")
    def test_it_would_be_noticed_if_nothing_were_flushed(self):
        wrong = self.run_on("ext4", cuts=3, flushes=False)
        self.assertTrue([text for _, text in wrong if "is missing" in text], wrong)


if __name__ == "__main__":
    unittest.main()
