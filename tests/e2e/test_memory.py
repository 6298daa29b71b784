"""Memory: small when idle, and flat however large a scan is. Measured on the release build, without sanitizers."""

import os
import pathlib
import re
import sys
import threading
import time
import unittest

from harness import BIN, PRINTER, RECIPIENT, ROOT, SANITIZE, Device, EndToEnd, expect, message, Relay

LABELS = "alone"
IDLE_LIMIT_KB = 7 * 1024
SCAN_LIMIT_KB = 2 * 1024
SCAN = 100 << 20
CHUNK = b"y" * 76 + b"\r\n"
RELEASE = BIN if not SANITIZE else ROOT / "build" / "release"


def kilobytes(pid, file, name):
    text = pathlib.Path(f"/proc/{pid}/{file}").read_text(encoding="ascii")
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1])


def pss(pid):
    return kilobytes(pid, "smaps_rollup", "Pss")


def own(pid):
    """What no other process can share: not the code of libraries."""
    return kilobytes(pid, "smaps_rollup", "Pss_Anon")


def high_water(pid):
    return kilobytes(pid, "status", "VmHWM")


def forget_high_water(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


class Peak:
    """The highest proportional set size while it runs."""

    def __init__(self, pid):
        self.highest = 0
        self._pid = pid
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ending.is_set():
            self.highest = max(self.highest, pss(self._pid))
            time.sleep(0.01)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()


@unittest.skipUnless((RELEASE / "outtrayd").exists(), f"no release build in {RELEASE}")
@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a daemon that guards it")
class Memory(EndToEnd):
    def released(self, upstream):
        directory = self.directory / "released"
        directory.mkdir()
        relay = Relay(directory, upstream, options=(), binaries=RELEASE)
        relay.set("relay", log_level="info").set("devices", max_size="150M")
        relay.set("mailbox office", max_size="150M", messages_per_minute=30)
        self._relays.append(relay)
        self.addCleanup(self._end, relay)
        return relay.start()

    def send_large(self, relay):
        data = message()
        sent = len(data)
        with Device(relay, timeout=120) as device:
            device.begin(PRINTER, [RECIPIENT])
            device.send(data)
            block = CHUNK * 1000
            while sent < SCAN:
                device.send(block)
                sent += len(block)
            device.send(b".\r\n")
            expect(device.getreply(), 250)
        return sent

    def test_idle_and_with_a_scan_of_100_mb(self):
        """The first message of all brings in the code of the TLS library, whatever its size; so the scan is
        compared with a small message, and what is the daemon's own with the idle daemon."""
        practice = self.upstream(limits={"message_size": 0})
        relay = self.released(practice)
        time.sleep(1.5)  # one tick of the loop, so that everything that is ever used at rest has been
        pid = relay.process.pid
        idle, idle_own = pss(pid), own(pid)
        relay.send()
        self.assertTrue(practice.wait_stored(1))
        small, small_high = pss(pid), high_water(pid)
        forget_high_water(pid)
        with Peak(pid) as peak:
            sent = self.send_large(relay)
            self.assertTrue(practice.wait_stored(2, 120))
        added, added_own = high_water(pid) - small_high, own(pid) - idle_own
        print(f"proportional set size: idle {idle} kB, after a small message {small} kB, with a scan of "
              f"{sent >> 20} MB at most {peak.highest} kB; the scan added {added} kB to the high-water mark "
              f"of the small message and {added_own} kB of its own memory to the idle daemon", file=sys.stderr)
        self.assertLess(idle, IDLE_LIMIT_KB)
        self.assertLess(small, IDLE_LIMIT_KB)
        self.assertLess(added, SCAN_LIMIT_KB)
        self.assertLess(added_own, SCAN_LIMIT_KB)
        self.assertLess(peak.highest - small, SCAN_LIMIT_KB)

    def test_a_waiting_message_costs_less_than_a_kilobyte(self):
        practice = self.upstream()
        practice.pause()
        relay = self.released(practice)
        pid = relay.process.pid
        count = 5000
        with Device(relay) as device:
            for _ in range(200):
                device.sendmail(PRINTER, [RECIPIENT], message())
            before = pss(pid)
            for _ in range(count):
                device.sendmail(PRINTER, [RECIPIENT], message())
        cost = (pss(pid) - before) * 1024 / count
        print(f"a waiting message costs {cost:.0f} octets", file=sys.stderr)
        self.assertLess(cost, 1024)


if __name__ == "__main__":
    unittest.main()
