"""Two hundred scans at once, and devices that pause for as long as they may. Measured on the release build."""

import os
import selectors
import shutil
import socket
import sys
import time
import unittest

from harness import PRINTER, RECIPIENT, expect, message, Device
from test_pressure import ENVELOPE, RELEASE, Pressing, kilobytes, source

LABELS = "full alone"
DEVICES = 200
SCAN = 25 << 20
SPACE = DEVICES * SCAN * 5 // 4
LIMIT_KB = 48 * 1024
MINUTES_15 = 900
BLOCK = (b"y" * 76 + b"\r\n") * 4000
IDLE_SECONDS = 10


class Scanner:
    """A device that hands in one scan, driven by one loop for all of them."""

    def __init__(self, relay, number):
        self.head = memoryview(b"EHLO scanner\r\n" + ENVELOPE + message(subject=f"scan {number}"))
        self.left = SCAN // len(BLOCK)
        self.block = self.head
        self.reply = b""
        self.socket = socket.socket()
        self.socket.bind((source(number), 0))
        self.socket.setblocking(False)
        self.socket.connect_ex((relay.address, relay.port))

    def write(self):
        """False when all of it has been said."""
        self.block = self.block[self.socket.send(self.block):]
        if not self.block and self.left > 0:
            self.left -= 1
            self.block = memoryview(BLOCK if self.left > 0 else b".\r\nQUIT\r\n")
        return len(self.block) > 0

    def read(self):
        """False at the end."""
        chunk = self.socket.recv(65536)
        self.reply += chunk
        return len(chunk) > 0

    @property
    def acknowledged(self):
        return b"\r\n250 2.0.0 Ok: queued as " in self.reply


def hand_in(scanners, watch):
    """Until each has heard all."""
    deadline = time.monotonic() + MINUTES_15
    with selectors.DefaultSelector() as selector:
        for scanner in scanners:
            selector.register(scanner.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, scanner)
        while selector.get_map() and time.monotonic() < deadline:
            for key, events in selector.select(1):
                scanner = key.data
                if events & selectors.EVENT_WRITE and not scanner.write():
                    selector.modify(scanner.socket, selectors.EVENT_READ, scanner)
                if events & selectors.EVENT_READ and not scanner.read():
                    selector.unregister(scanner.socket)
            watch()


@unittest.skipUnless((RELEASE / "outtrayd").exists(), f"no release build in {RELEASE}")
@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a daemon that guards it")
class ManyScans(Pressing):
    def test_200_scans_of_25_mb_at_once(self):
        free = shutil.disk_usage(self.directory).free
        if free < SPACE:
            self.skipTest(f"{self.directory} has {free >> 20} MB free, and this takes {SPACE >> 20} MB")
        relay = self.serving(RELEASE)
        relay.set("relay", log_level="info", spool_max=0)
        self.practice.pause()
        relay.start()
        pid = relay.process.pid
        highest = {"RssAnon": 0}
        scanners = [Scanner(relay, number) for number in range(DEVICES)]
        for scanner in scanners:
            self.addCleanup(scanner.socket.close)

        def watch():
            highest["RssAnon"] = max(highest["RssAnon"], kilobytes(pid, "RssAnon"))

        began = time.monotonic()
        hand_in(scanners, watch)
        took = time.monotonic() - began
        resident = kilobytes(pid, "VmHWM")
        print(f"{DEVICES} scans of {SCAN >> 20} MB at once: {took:.0f} s, resident at most {resident} kB, of which "
              f"its own {highest['RssAnon']} kB", file=sys.stderr)
        self.assertEqual(sum(scanner.acknowledged for scanner in scanners), DEVICES)
        self.assertLess(resident, LIMIT_KB)
        queued = relay.queue()
        self.assertEqual(len(queued), DEVICES)
        self.assertEqual(len({entry["id"] for entry in queued}), DEVICES)
        self.assertGreater(min(entry["size"] for entry in queued), SCAN - 2 * len(BLOCK))


class Pauses(Pressing):
    def test_a_device_may_pause_between_octets_but_not_for_ever(self):
        """Only the silence counts, not the length of the whole."""
        relay = self.serving(idle_time=f"{IDLE_SECONDS}s").start()
        with Device(relay) as device:
            device.begin(PRINTER, [RECIPIENT])
            data = message()
            for part in (data[:20], data[20:40], data[40:] + b".\r\n"):
                time.sleep(IDLE_SECONDS * 0.7)
                device.send(part)
            expect(device.getreply(), 250)
            device.begin(PRINTER, [RECIPIENT])
            device.send(data[:40])
            began = time.monotonic()
            expect(device.getreply(), 421)
            self.assertGreater(time.monotonic() - began, IDLE_SECONDS * 0.9)
        relay.wait_event("incomplete")
        self.assert_all_arrived(relay, [data])


if __name__ == "__main__":
    unittest.main()
