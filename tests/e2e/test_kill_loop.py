"""kill -9 in a loop under load, with devices that send again what was not acknowledged, and a checker of its own."""

import collections
import contextlib
import pathlib
import random
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import ledger
from harness import Device, EndToEnd, eventually, lines_of_base64, message

DEVICES = 6
LEDGER = pathlib.Path(ledger.__file__)


class Office:
    """Devices that hand in mail until the daemon dies, and go on with what is left when it is back."""

    def __init__(self, relay, book):
        self.relay, self.book = relay, book
        self.again = [collections.deque() for _ in range(DEVICES)]
        self.acknowledged = 0
        self._numbers = [0] * DEVICES
        self._stop = threading.Event()
        self._threads = []

    def begin(self):
        self._stop.clear()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(DEVICES)]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _next(self, number):
        if self.again[number]:
            return self.again[number].popleft()
        self._numbers[number] += 1
        count = self._numbers[number]
        size = 150_000 if count % 9 == number else 1_500
        return message(body=lines_of_base64(size, number * 100_000 + count))

    def _run(self, number):
        with contextlib.suppress(OSError, smtplib.SMTPException):
            device = Device(self.relay)
            while not self._stop.is_set():
                self._hand_over(device, number, self._next(number))
            device.quit()

    def _hand_over(self, device, number, data):
        self.book.note(ledger.SENT, data)
        whole = False
        try:
            device.begin()
            device.send(data)
            whole = True  # from here on the relay may have all of it
            device.send(b".\r\n")
            code = device.getreply()[0]
        except (OSError, smtplib.SMTPException, AssertionError):
            if whole:
                self.book.note(ledger.LOST, data)
            self.again[number].append(data)
            raise
        if code == 250:
            self.book.note(ledger.ACKNOWLEDGED, data)
            self.acknowledged += 1
        else:  # refused, in so many words
            self.again[number].append(data)


class KillLoop(EndToEnd):
    rounds = 8

    def note_uncertain(self, relay, book):
        after = ""
        while after is not None:
            page = relay.api("GET", f"/v1/queue?limit=500{after}")[1]
            for entry in page["messages"]:
                if entry["state"] == "uncertain":
                    book.note_uncertain(relay.show(entry["id"])["message_id"])
            after = f"&after={page['next']}" if page.get("next") else None

    def check(self, book, practice):
        done = subprocess.run([sys.executable, LEDGER, book.path, practice.directory / "mail"],
                              capture_output=True, check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout.decode() + done.stderr.decode())

    def test_nothing_acknowledged_is_missing(self):
        seed = random.randrange(1 << 32)
        draw = random.Random(seed)
        practice = self.upstream()
        relay = self.relay(practice, start=False, uncertain_wait="15m")
        book = ledger.Ledger(self.directory / "ledger")
        office = Office(relay, book)
        for number in range(self.rounds):
            relay.start()
            self.assertEqual(relay.events("spool-open")[0]["damaged"], "0", f"seed {seed}")
            self.note_uncertain(relay, book)
            before = office.acknowledged
            office.begin()
            eventually(lambda n=before: office.acknowledged > n, f"mail is accepted in round {number}, seed {seed}")
            time.sleep(draw.uniform(0, 0.6))  # any moment will do
            relay.kill()
            office.end()
        relay.start()
        self.note_uncertain(relay, book)
        relay.advance(16 * 60)
        relay.wait_empty(180)
        relay.stop()
        book.close()
        self.check(book, practice)


class Checker(unittest.TestCase):
    """It finds what it is there for."""

    def verdict(self, lines, arrived):
        with contextlib.ExitStack() as stack:
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            book = ledger.Ledger(directory / "ledger")
            stack.callback(book.close)
            for what, data in lines:
                book.note(what, data)
            for number, data in enumerate(arrived):
                (directory / f"{number}.eml").write_bytes(b"Received: by relay\r\n" + data)
            return list(ledger.violations(book.path, directory))

    def test_each_rule(self):
        one, other = message(), message()
        sent, acknowledged = (ledger.SENT, one), (ledger.ACKNOWLEDGED, one)
        self.assertEqual(self.verdict([sent, acknowledged], [one]), [])
        self.assertIn("missing", self.verdict([sent, acknowledged], [])[0])
        self.assertIn("2 times", self.verdict([sent, acknowledged], [one, one])[0])
        self.assertEqual(self.verdict([sent, (ledger.LOST, one), sent, acknowledged], [one, one]), [])
        self.assertIn("never sent", self.verdict([sent, acknowledged], [one, other])[0])
        self.assertIn("changed", self.verdict([sent, acknowledged], [one + b"x"])[0])
        self.assertEqual(self.verdict([sent, (ledger.LOST, one)], []), [])


if __name__ == "__main__":
    unittest.main()
