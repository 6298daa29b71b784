"""What every end-to-end test uses: the daemon, the practice upstream, and waiting for conditions.

A test derives from EndToEnd and asks it for what it needs; everything is stopped by process id and removed at
the end. Nothing waits by sleeping for a guessed time: Relay.wait_event and eventually() wait for a condition.
The daemon listens on a loopback address of its own, so tests that run side by side cannot collide.

    OUTTRAY_BIN        folder with outtrayd and outtray (default: build/dev)
    OUTTRAY_SANITIZE   what they were built with, such as address,undefined
"""

import base64
import contextlib
import email.utils
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("OUTTRAY_BIN") or ROOT / "build" / "dev")
SANITIZE = os.environ.get("OUTTRAY_SANITIZE", "")
# A test that is ended from outside leaves no daemon behind. The process id stays the same.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
if not (BIN / "outtrayd").exists():
    raise SystemExit(f"{BIN}/outtrayd does not exist: build it, or set OUTTRAY_BIN to the folder that has it")
sys.path.insert(0, str(ROOT / "tests" / "m365"))

from m365 import PracticeUpstream  # noqa: E402  pylint: disable=wrong-import-position

MAILBOX = "scanner@office.test"
PASSWORD = "practice-password"
PRINTER = "printer@office.test"
RECIPIENT = "accounts@office.test"
PATIENCE = 30.0  # seconds for anything that should happen soon; sanitizers and two cores are slow
SANITIZER_WORDS = re.compile(r"Sanitizer|runtime error:")
ADDRESS_TRIES = 50
OCTETS_OF_A_LINE, LENGTH_OF_A_LINE = 57, 78  # of base64, with CR LF


def eventually(condition, what, patience=PATIENCE):
    """Asks until the answer is true and returns it; fails the test otherwise."""
    deadline = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"within {patience:.0f} s it did not come true that {what}")
        time.sleep(0.02)


def loopback_address(port=2525):
    """An address of 127/8 that nobody listens on at this port."""
    for _ in range(ADDRESS_TRIES):
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, port))
            return address
    raise RuntimeError("found no free loopback address")


# Mail

_numbers = itertools.count(1)


def message(subject="Scan", body=b"Please find the scan attached.\r\n", message_id=None, extra=()):
    """A message in CR LF form that the relay has nothing to add to."""
    message_id = message_id or f"<{next(_numbers)}.{os.getpid()}.{random.getrandbits(32):x}@office.test>"
    lines = [f"From: <{PRINTER}>", f"To: <{RECIPIENT}>", f"Subject: {subject}",
             f"Date: {email.utils.formatdate(0)}", f"Message-ID: {message_id}", *extra, ""]
    return "\r\n".join(lines).encode() + b"\r\n" + body


def message_id_of(data):
    return re.search(rb"^Message-ID: *(<[^>]*>)", data, re.MULTILINE | re.IGNORECASE)[1].decode()


def lines_of_base64(octets, seed=1):
    """A body of about that many octets, as an attachment looks."""
    noise = random.Random(seed).randbytes(octets * OCTETS_OF_A_LINE // LENGTH_OF_A_LINE)
    return b"".join(base64.b64encode(noise[start:start + OCTETS_OF_A_LINE]) + b"\r\n"
                    for start in range(0, len(noise), OCTETS_OF_A_LINE))


def without_trace(stored):
    """What arrived, less the one field that the relay puts in front; and that field."""
    found = re.match(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", stored)
    if not found:
        raise AssertionError(f"no trace field in front of {stored[:200]!r}")
    return stored[found.end():], found[0]


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


class Device(smtplib.SMTP):
    """A device on smtplib that has said EHLO."""

    def __init__(self, relay, timeout=PATIENCE, source=None):
        super().__init__(relay.address, relay.port, local_hostname="printer", timeout=timeout,
                         source_address=(source, 0) if source else None)
        self.ehlo()

    def begin(self, sender=PRINTER, recipients=(RECIPIENT,)):
        """Up to the 354."""
        expect(self.mail(sender), 250)
        for recipient in recipients:
            expect(self.rcpt(recipient), 250)
        expect(self.docmd("DATA"), 354)

    def hang_up(self):
        """Ends the connection without a word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


def expect(answer, code, words=b""):
    if answer[0] != code or words not in answer[1]:
        raise AssertionError(f"expected {code} with {words!r}, got {answer}")
    return answer[1]


def stuffed(data):
    return re.sub(rb"(?m)^\.", b"..", data)


# The daemon

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def parse_event(line):
    """The fields of one log line."""
    return {name: json.loads(value) if value.startswith('"') and "\\x" not in value else value.strip('"')
            for name, value in FIELD.findall(line)}


class Relay:
    """outtrayd with a configuration and a spool of its own below one directory."""

    def __init__(self, directory, upstream=None, options=("--test-clock",), binaries=BIN):
        self.directory = pathlib.Path(directory)
        self.binaries = pathlib.Path(binaries)
        self.options = list(options)
        self.address, self.port = loopback_address(), 2525
        self.spool = self.directory / "spool"
        self.socket = self.directory / "control.sock"
        self.config_file = self.directory / "outtray.conf"
        self.log_file = self.directory / "outtrayd.log"
        self.sections = self._default_sections(upstream)
        self.environment = {}
        self.process = None
        self.lines = []
        self._lines_of_run = 0
        self._changed = threading.Condition()
        self._reader = None

    def _default_sections(self, upstream):
        password_file = self.directory / "password"
        password_file.write_text(PASSWORD + "\n", encoding="ascii")
        password_file.chmod(0o600)
        return {
            "relay": {"user": "", "hostname": "relay.office.test", "spool": self.spool,
                      "spool_min_free": "0", "log_level": "debug", "uncertain_wait": "15m"},
            "listener main": {"address": self.address, "port": self.port},
            "devices": {"max_sessions_per_device": 200},
            "mailbox office": {"address": MAILBOX, "send_as": "office.test",
                               "password_file": password_file,
                               "host": "localhost", "port": upstream.port if upstream else 1,
                               "messages_per_minute": 0,
                               **({"ca_file": upstream.ca} if upstream else {})},
            "api": {"socket": self.socket},
        }

    def set(self, section, **values):
        """Changes the configuration; None takes a key out."""
        keys = self.sections.setdefault(section, {})
        keys.update(values)
        for name in [name for name, value in keys.items() if value is None]:
            del keys[name]
        return self

    def config_text(self):
        return "".join(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                       for section, keys in self.sections.items())

    # Life

    def start(self, wait=True):
        self.config_file.write_text(self.config_text(), encoding="utf-8")
        self._lines_of_run = len(self.lines)
        self.process = subprocess.Popen(
            [*DIES_WITH_US, self.binaries / "outtrayd", "-c", self.config_file, *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **self.environment})
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        if wait:
            self.wait_event("started")
        return self

    def _read(self, stream):
        with open(self.log_file, "a", encoding="utf-8") as file:
            for line in stream:
                text = line.decode("utf-8", "replace").rstrip("\n")
                file.write(f"{time.monotonic():.3f} {text}\n")
                file.flush()
                with self._changed:
                    self.lines.append(text)
                    self._changed.notify_all()
        stream.close()

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def wait_end(self, timeout=60):
        """The exit code of a daemon that ends by itself."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        self.check_sanitizers()
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, code=0):
        """A clean stop; the exit code counts."""
        self.signal(signal.SIGTERM)
        ended = self.wait_end()
        if ended != code:
            raise AssertionError(f"outtrayd ended with {ended}, expected {code}")

    def kill(self):
        """As a loss of power, but for the kernel's memory."""
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        self.check_sanitizers()

    def restart(self):
        self.stop()
        return self.start()

    def check_sanitizers(self):
        bad = [line for line in self.lines if SANITIZER_WORDS.search(line)]
        if bad:
            start = self.lines.index(bad[0])
            raise AssertionError("a sanitizer has found something:\n"
                                 + "\n".join(self.lines[start:start + 60]))

    # What it logs. `run=False` also looks at the runs before the last start.

    def events(self, name, run=True, **fields):
        with self._changed:
            lines = self.lines[self._lines_of_run if run else 0:]
        mark = f"event={name}"
        parsed = (parse_event(line) for line in lines if mark in line)
        return [event for event in parsed
                if event.get("event") == name and all(event.get(k) == v for k, v in fields.items())]

    def wait_event(self, name, count=1, patience=PATIENCE, **fields):
        """The last of at least so many events."""
        deadline = time.monotonic() + patience
        while True:
            found = self.events(name, **fields)
            if len(found) >= count:
                return found[-1]
            if self.process.poll() is not None:
                self._reader.join(PATIENCE)
                found = self.events(name, **fields)
                if len(found) >= count:
                    return found[-1]
                raise AssertionError(f"outtrayd ended with {self.process.returncode} before event={name}\n"
                                     + "\n".join(self.lines[-20:]))
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no event={name} {fields} within {patience:.0f} s")
            with self._changed:
                self._changed.wait(min(left, 0.2))

    # The tool and the API

    def tool(self, *arguments, check=True):
        done = subprocess.run([self.binaries / "outtray", "-c", self.config_file, *map(str, arguments)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE * 2,
                              check=False)
        if SANITIZER_WORDS.search(done.stderr.decode("utf-8", "replace")):
            raise AssertionError(done.stderr.decode("utf-8", "replace"))
        if check and done.returncode != 0:
            raise AssertionError(f"outtray {arguments}: {done.returncode} {done.stderr.decode()}")
        return done

    def json(self, *arguments):
        return json.loads(self.tool("--json", *arguments).stdout)

    def api(self, method, path):
        """(status, parsed answer)"""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(PATIENCE)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.socket))
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if body else None

    def status(self):
        return self.api("GET", "/v1/status")[1]

    def mailbox(self, name="office"):
        return next(box for box in self.status()["mailboxes"] if box["name"] == name)

    def queue(self):
        return self.api("GET", "/v1/queue?limit=500")[1]["messages"]

    def show(self, message_id):
        return self.api("GET", f"/v1/queue/{message_id}")[1]

    def advance(self, seconds):
        """Moves the daemon's clock."""
        status, answer = self.api("POST", f"/v1/clock?advance={seconds}")
        if status != 200:
            raise AssertionError(f"the clock did not move: {status} {answer}")

    def wait_empty(self, patience=PATIENCE):
        eventually(lambda: not self.queue(), "the queue is empty", patience)

    # Sending

    def send(self, data=None, sender=PRINTER, recipients=(RECIPIENT,), source=None):
        """As a device (at this address) does; returns what was sent."""
        data = data or message()
        with Device(self, source=source) as device:
            device.sendmail(sender, list(recipients), data)
        return data


class EndToEnd(unittest.TestCase):
    """Gives each test a directory, and stops what the test has started."""

    maxDiff = 2000

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="outtray-e2e-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self._relays = []

    def shortDescription(self):
        """The names say it."""

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        outcome = super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            self._show_logs()
        return outcome

    def _show_logs(self):
        for relay in self._relays:
            print(f"---- the end of outtrayd's log in {self.id()}", file=sys.stderr)
            print("\n".join(relay.lines[-80:]), file=sys.stderr)

    def upstream(self, **options):
        limits = {"messages_per_minute": 0, **options.pop("limits", {})}
        server = PracticeUpstream(directory=self.directory / f"upstream{random.getrandbits(24):x}",
                                  limits=limits, **options)
        server.start()
        self.addCleanup(server.stop)
        return server

    def relay(self, upstream=None, start=True, **settings):
        """A relay; settings are of [relay]."""
        directory = self.directory / f"relay{len(self._relays)}"
        directory.mkdir()
        relay = Relay(directory, upstream)
        relay.set("relay", **settings)
        self._relays.append(relay)
        self.addCleanup(self._end, relay)
        return relay.start() if start else relay

    def _end(self, relay):
        if relay.is_running():
            relay.signal(signal.SIGTERM)
            try:
                code = relay.wait_end()
            except subprocess.TimeoutExpired:
                relay.process.kill()
                relay.process.wait()
                raise AssertionError("outtrayd did not stop") from None
            self.assertEqual(code, 0, "exit code of outtrayd")
        relay.check_sanitizers()

    # What arrived

    def stored(self, upstream, number=1):
        """The octets of the message, in the order of arrival."""
        facts = upstream.messages()[number - 1]
        path = upstream.directory / "mail" / f"{facts['number']}.eml"
        return path.read_bytes()

    def assert_arrived(self, upstream, data):
        """That this message is there once, and unchanged but for the trace field."""
        mine = [number for number, facts in enumerate(upstream.messages(), 1)
                if facts["message_id"] == message_id_of(data)]
        self.assertEqual(len(mine), 1, f"copies of {message_id_of(data)}")
        arrived, _ = without_trace(self.stored(upstream, mine[0]))
        self.assertEqual(sha256(arrived), sha256(data), f"{arrived[:300]!r} is not {data[:300]!r}")

    def assert_ids(self, upstream, expected):
        """That exactly these messages are there, once each."""
        arrived = sorted(facts["message_id"] for facts in upstream.messages())
        self.assertEqual(arrived, sorted(expected))


def needs_program(*names):
    missing = [name for name in names if not shutil.which(name)]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")
