"""Devices that are too many, too fast, too slow, or gone in the middle: whoever is in order is served as ever, nothing
that was acknowledged is lost, and memory stays where it was."""

import contextlib
import fcntl
import os
import pathlib
import random
import re
import resource
import select
import smtplib
import socket
import ssl
import struct
import termios
import threading
import time
import unittest

from harness import (BIN, PATIENCE, PRINTER, RECIPIENT, ROOT, SANITIZE, EndToEnd, Relay, eventually, lines_of_base64,
                     message, message_id_of, stuffed)

LABELS = "alone"
RELEASE = BIN if not SANITIZE else ROOT / "build" / "release"
CROWD = 1000
SILENT = 6  # devices that read nothing
PATIENT = 40  # devices that try until they are rid of their mail
IDLE_LIMIT_KB = 20 * 1024
HELLOS_LIMIT_KB = 80 * 1024  # OpenSSL needs 50 KB for a handshake, whoever begins it
AT_ONCE = 5.0 if not SANITIZE else 20.0  # generous: the machine may be busy with other things
FEW_DESCRIPTORS = 64
ENVELOPE = f"MAIL FROM:<{PRINTER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()


def source(number):
    """An address for each device."""
    return f"127.0.{2 + number // 200}.{1 + number % 200}"


def kilobytes(pid, name):
    text = pathlib.Path(f"/proc/{pid}/status").read_text("ascii")
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1])


def lenient():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def first_flight():
    """A whole TLS hello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        lenient().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def reset(connection):
    """Ends it with RST: what has not left yet never does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Pressing(EndToEnd):
    def serving(self, binaries=BIN, **devices):
        self.practice = self.upstream()
        directory = self.directory / "relay"
        directory.mkdir()
        relay = Relay(directory, self.practice, binaries=binaries)
        relay.set("devices", max_sessions_per_device=None, **devices)
        self._relays.append(relay)
        self.addCleanup(self._end, relay)
        return relay

    def connect(self, relay, number=0):
        connection = socket.create_connection((relay.address, relay.port), PATIENCE, (source(number), 0))
        self.addCleanup(connection.close)
        return connection

    def read_to(self, connection, pattern):
        said = b""
        while not re.search(pattern, said):
            chunk = connection.recv(65536)
            if not chunk:
                raise AssertionError(f"the connection ended behind {said[-300:]!r}")
            said += chunk
        return said

    def assert_served(self, relay, when):
        began = time.monotonic()
        data = relay.send()
        took = time.monotonic() - began
        self.assertLess(took, AT_ONCE, when)
        return data

    def sessions(self, relay, number):
        eventually(lambda: relay.status()["intake"]["sessions"] == number, f"there are {number} sessions")

    def assert_all_arrived(self, relay, expected, patience=60):
        relay.wait_empty(patience)
        self.assert_ids(self.practice, [message_id_of(data) for data in expected])


@unittest.skipUnless((RELEASE / "outtrayd").exists(), f"no release build in {RELEASE}")
@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a daemon that guards it")
class Crowds(Pressing):
    """On the release build, without sanitizers."""

    def crowd(self, octets, wait_for):
        relay = self.serving(RELEASE, max_sessions=2 * CROWD)
        relay.set("relay", log_level="info").start()
        before = self.assert_served(relay, "before")
        alone = kilobytes(relay.process.pid, "VmRSS")
        connections = [self.connect(relay, number) for number in range(CROWD)]
        for connection in connections:
            connection.sendall(octets)
        wait_for(relay, connections)
        resident = kilobytes(relay.process.pid, "VmRSS")
        during = self.assert_served(relay, "with all of them there")
        self.assertGreaterEqual(relay.status()["intake"]["sessions"], CROWD)
        self.assert_all_arrived(relay, [before, during])
        for connection in connections:
            connection.close()
        self.sessions(relay, 0)
        self.assert_served(relay, "afterwards")
        return alone, resident

    def test_a_thousand_devices_that_say_hello_and_no_more(self):
        def wait(_, connections):
            for connection in connections:
                self.read_to(connection, rb"\n250 [^\n]*\n")

        alone, resident = self.crowd(b"EHLO camera\r\n", wait)
        print(f"resident: {alone} kB alone, {resident} kB with {CROWD} silent sessions")
        self.assertLess(resident, IDLE_LIMIT_KB)

    def test_a_thousand_tls_hellos_of_which_the_end_is_missing(self):
        def wait(relay, _):
            self.sessions(relay, CROWD)
            time.sleep(0.5)  # for the last hello to be looked at, which nothing tells

        alone, resident = self.crowd(first_flight()[:-10], wait)
        print(f"resident: {alone} kB alone, {resident} kB with {CROWD} half-open TLS hellos")
        self.assertLess(resident, HELLOS_LIMIT_KB)

    def test_who_never_reads_gets_no_more_memory(self):
        """Each device says as much as can be said, and hears the answers only then: none is missing."""
        relay = self.serving(RELEASE)
        relay.set("relay", log_level="info").start()
        alone = kilobytes(relay.process.pid, "VmRSS")
        connections = [self.connect(relay, number) for number in range(SILENT)]
        said = [self.say_until_blocked(connection) for connection in connections]
        resident = kilobytes(relay.process.pid, "VmRSS")
        print(f"resident: {alone} kB alone, {resident} kB with {SILENT} devices that said {sum(said) >> 20} MB "
              "and read nothing")
        self.assertGreater(min(said), 200_000)
        self.assertLess(resident - alone, SILENT * 512)
        self.assert_served(relay, "with all of them there")
        for connection, octets in zip(connections, said):
            self.assertEqual(self.answers(connection), octets // len(b"NOOP\r\n") + 2)

    @staticmethod
    def say_until_blocked(connection):
        """How many octets of NOOP were taken."""
        block, total = b"NOOP\r\n" * 1000, 0
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.setblocking(False)
        while select.select([], [connection], [], 0.3)[1]:
            with contextlib.suppress(BlockingIOError):
                total += connection.send(block[total % 6:])
        return total

    @staticmethod
    def answers(connection):
        """Final lines of replies, up to that of QUIT."""
        connection.setblocking(True)
        connection.settimeout(PATIENCE)
        quitting = threading.Thread(target=connection.sendall, args=(b"\r\nQUIT\r\n",))
        quitting.start()
        with connection.makefile("rb") as file:
            heard = sum(line.startswith((b"220 ", b"250 ", b"500 ", b"221 ")) for line in file)
        quitting.join()
        return heard


class Floods(Pressing):
    """From one address; another one is served meanwhile."""

    @contextlib.contextmanager
    def flood(self, target, number):
        ended = threading.Event()
        threads = [threading.Thread(target=target, args=(ended,)) for _ in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def assert_others_are_served(self, relay):
        sent = [self.assert_served(relay, "in the flood") for _ in range(3)]
        self.assertTrue(self.practice.wait_stored(len(sent)))
        return sent

    def test_a_device_that_connects_again_and_again(self):
        relay = self.serving().start()

        def knock(ended):
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    reset(socket.create_connection((relay.address, relay.port), 5, (source(1), 0)))

        with self.flood(knock, 4):
            eventually(lambda: relay.status()["intake"]["sessions_ever"] > 200, "the flood is there")
            sent = self.assert_others_are_served(relay)
        self.assert_all_arrived(relay, sent)
        self.sessions(relay, 0)

    def test_fifty_sessions_of_junk(self):
        relay = self.serving().start()
        noise = random.Random(1)

        def babble(ended):
            connections = {}
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    while len(connections) < 10:
                        connection = socket.create_connection((relay.address, relay.port), 5, (source(1), 0))
                        connections[connection.fileno()] = connection
                for number in list(connections):
                    try:
                        connections[number].setblocking(False)
                        connections[number].send(noise.randbytes(2000))
                    except BlockingIOError:
                        continue
                    except OSError:
                        connections.pop(number).close()
            for connection in connections.values():
                reset(connection)

        with self.flood(babble, 5):
            eventually(lambda: relay.status()["intake"]["sessions_ever"] > 60, "the junk is there")
            sent = self.assert_others_are_served(relay)
        self.assert_all_arrived(relay, sent)
        self.sessions(relay, 0)


class Descriptors(Pressing):
    def few(self):
        """A folder with an outtrayd that may have so many, ever."""
        folder = self.directory / "few"
        folder.mkdir()
        (folder / "outtray").symlink_to(BIN.resolve() / "outtray")
        (folder / "outtrayd").write_text(
            f'#!/bin/sh\nulimit -n {FEW_DESCRIPTORS}\nexec {BIN.resolve() / "outtrayd"} "$@"\n', encoding="utf-8")
        (folder / "outtrayd").chmod(0o755)
        return folder

    def hand_in(self, relay, number, taken):
        """As a device does that tries until it is rid of its mail."""
        data = message(subject=str(number), body=lines_of_base64(150_000, number))
        while True:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                with smtplib.SMTP(relay.address, relay.port, "camera", PATIENCE, (source(number), 0)) as session:
                    session.sendmail(PRINTER, [RECIPIENT], data)
                    taken.append(data)
                    return
            time.sleep(0.1)

    def test_a_relay_with_few_serves_all_in_turn(self):
        relay = self.serving(self.few()).start()
        limits = resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE)
        self.assertEqual(limits, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
        idle = [self.connect(relay, 100 + number) for number in range(FEW_DESCRIPTORS)]
        relay.wait_event("accept-failed")
        for connection in idle:
            reset(connection)
        taken = []
        threads = [threading.Thread(target=self.hand_in, args=(relay, number, taken)) for number in range(PATIENT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE * 2)
        self.assertEqual(len(taken), PATIENT)
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assert_all_arrived(relay, taken)


class Breaks(Pressing):
    """Devices that end the connection at the wrong moment, or only half of it."""

    HALF = message(body=lines_of_base64(500_000))[:-1000]
    STAGES = {
        "connected": b"",
        "half a command": b"EH",
        "EHLO": b"EHLO camera\r\n",
        "AUTH": b"EHLO camera\r\nAUTH LOGIN\r\n",
        "STARTTLS": b"EHLO camera\r\nSTARTTLS\r\n",
        "half a hello": first_flight()[:100],
        "a hello": first_flight(),
        "STARTTLS and a hello": b"STARTTLS\r\n" + first_flight(),
        "MAIL": b"EHLO camera\r\nMAIL FROM:<a@office.test>\r\n",
        "RCPT": b"EHLO camera\r\nMAIL FROM:<a@office.test>\r\nRCPT TO:<b@office.test>\r\n",
        "DATA": b"EHLO camera\r\n" + ENVELOPE,
        "half a chunk": b"EHLO camera\r\n" + ENVELOPE.replace(b"DATA", b"BDAT 100000") + b"x" * 1000,
        "half a header": b"EHLO camera\r\n" + ENVELOPE + b"Subject: ",
        "half a message": b"EHLO camera\r\n" + ENVELOPE + HALF,
        "half an end": b"EHLO camera\r\n" + ENVELOPE + message() + b".\r",
    }

    def assert_nothing_is_left(self, relay, expected):
        self.sessions(relay, 0)
        self.assertEqual(list(relay.spool.glob("**/*.part")), [])
        self.assert_all_arrived(relay, expected)

    def test_reset_at_every_stage(self):
        relay = self.serving().start()
        for octets in self.STAGES.values():
            for wait in (False, True):
                connection = self.connect(relay, 1)
                connection.sendall(octets)
                if wait:
                    with contextlib.suppress(TimeoutError):
                        connection.settimeout(0.15)
                        connection.recv(65536)
                reset(connection)
        sent = [relay.send()]
        self.assert_nothing_is_left(relay, sent)

    def test_reset_behind_the_end_still_commits(self):
        """All of it has arrived, but perhaps nobody has looked at it."""
        relay = self.serving().start()
        sent = [message(subject=str(size), body=lines_of_base64(size)) for size in (1_000, 400_000) * 10]
        for data in sent:
            connection = self.connect(relay, 1)
            connection.sendall(b"EHLO camera\r\n" + ENVELOPE + data + b".\r\n")
            eventually(lambda: self.unsent(connection) == 0, "all has arrived")  # pylint: disable=cell-var-from-loop
            reset(connection)
        relay.wait_event("accepted", len(sent))
        self.assert_nothing_is_left(relay, sent)

    @staticmethod
    def unsent(connection):
        """Octets that the peer's system has not acknowledged."""
        return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]

    def half_close(self, relay, octets, tls):
        """Sends all of it at once, and FIN; returns all that is said."""
        connection = self.connect(relay, 1)
        stream = lenient().wrap_socket(connection) if tls else connection
        self.addCleanup(stream.close)
        stream.sendall(octets)
        with socket.socket(fileno=os.dup(stream.fileno())) as same:
            same.shutdown(socket.SHUT_WR)
        said = b""
        while chunk := stream.recv(65536):
            said += chunk
        return said

    def test_half_closed_behind_the_end_is_acknowledged(self):
        """As netcat and some cameras do."""
        relay = self.serving().start()
        sent = []
        for tls in (False, True):
            for size in (1_000, 400_000):
                for ending in (b"", b"QUIT\r\n"):
                    with self.subTest(tls=tls, size=size, ending=ending):
                        sent.append(message(body=lines_of_base64(size)))
                        said = self.half_close(relay, b"EHLO camera\r\n" + ENVELOPE + sent[-1] + b".\r\n" + ending, tls)
                        self.assertIn(b"\r\n250 2.0.0 Ok: queued as ", said)
                        self.assertEqual(b"\r\n221 " in said, ending != b"")
        self.assert_nothing_is_left(relay, sent)

    def test_half_closed_behind_several_messages(self):
        relay = self.serving().start()
        sent = [message(subject=str(number), body=lines_of_base64(90_000, number)) for number in range(5)]
        said = self.half_close(relay, b"EHLO camera\r\n" + b"".join(ENVELOPE + data + b".\r\n" for data in sent), False)
        self.assertEqual(said.count(b"\r\n250 2.0.0 Ok: queued as "), 5)
        self.assert_nothing_is_left(relay, sent)

    def test_half_closed_before_the_end_keeps_nothing(self):
        relay = self.serving().start()
        for number, octets in enumerate((message(), self.HALF), 1):
            said = self.half_close(relay, b"EHLO camera\r\n" + ENVELOPE + octets, False)
            self.assertNotIn(b"queued as", said)
            relay.wait_event("incomplete", number)
        self.assert_nothing_is_left(relay, [])


class Slowness(Pressing):
    def test_one_octet_at_a_time(self):
        """In the clear and as TLS records; others are served meanwhile."""
        relay = self.serving().start()
        sent = []
        for tls in (False, True):
            connection = self.connect(relay, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = lenient().wrap_socket(connection) if tls else connection
            self.addCleanup(stream.close)
            sent.append(message(body=b"..dots\r\n.\r\n.end\r\n"))
            wire = b"EHLO camera\r\n" + ENVELOPE + stuffed(sent[-1]) + b".\r\n"
            for position in range(len(wire)):
                stream.sendall(wire[position:position + 1])
                if position == len(wire) // 2:
                    sent.append(self.assert_served(relay, "in the middle of it"))
                time.sleep(0.0005)
            self.read_to(stream, rb"\n250 2.0.0 Ok: queued as ")
            stream.close()
        self.assert_all_arrived(relay, sent)
        for data in sent:
            self.assert_arrived(self.practice, data)

    def test_replies_are_read_one_octet_at_a_time(self):
        relay = self.serving().start()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect((relay.address, relay.port))
            connection.settimeout(PATIENCE)
            data = message()
            connection.sendall(b"EHLO camera\r\n" + b"HELP\r\n" * 500 + ENVELOPE + data + b".\r\nQUIT\r\n")
            said = b""
            while octet := connection.recv(1):
                said += octet
        self.assertEqual(said.count(b"\r\n214 "), 500)
        self.assertIn(b"\r\n250 2.0.0 Ok: queued as ", said)
        self.assertIn(b"\r\n221 ", said)
        self.assert_all_arrived(relay, [data])


if __name__ == "__main__":
    unittest.main()
