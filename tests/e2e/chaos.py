"""A submission server in a bad mood: it answers as a seed says, counts everything, and forgets nothing.

It shares no code with the practice upstream. Chaos drives a relay through one seed and says what was broken: mail that
was lost, changed or sent twice without need, and rules of the protocol or of the mailbox that were crossed.
"""

import base64
import contextlib
import dataclasses
import random
import re
import select
import socket
import ssl
import struct
import threading
import time

from harness import MAILBOX, PASSWORD, Device, eventually, expect, lines_of_base64, message, message_id_of
from harness import sha256, without_trace
from practice import certificate

MINUTE, HOUR, DAY = 60, 3600, 86400
CONNECTIONS, PER_MINUTE, WINDOW = 3, 30, 60
AUTH_PAUSE = 15 * MINUTE  # the least wait after "535 5.7.3"
ALARM = "127.0.3.1"
PATIENCE = 60.0  # for the whole of a seed
SETTLED = 0.08  # seconds of silence after which only time can help
STUCK = 10.0  # a message may be under way in such a silence, but not for so long
UNDER_WAY_AT_ONCE = 0.15  # seconds until what the server said has certainly been read

CLOSING = "421 4.3.2 Service not available, closing transmission channel"
CROWDED = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"
NO_ROOM = "452 4.3.1 Insufficient system resources"
BUSY = "451 4.7.500 Server busy. Please try again later"
SERVER_ERROR = "451 4.7.0 Temporary server error. Please try again later. PRX2"
AUTH_LATER = "454 4.7.0 Temporary authentication failure"
AUTH_REFUSED = "535 5.7.3 Authentication unsuccessful"
NO_SUCH = "550 5.1.1 no such recipient"
TOO_LARGE = "552 5.3.4 message size exceeds fixed maximum"
MAILBOX_FULL = "554 5.2.0 STOREDRV.Submission.Exception:QuotaExceeded"
STRANGE = "554 5.2.0 STOREDRV.Submission.Exception:SomethingElse"
ENDINGS = ("close", "fin", "reset", "alert")
LATER = (CLOSING, CROWDED, NO_ROOM, BUSY, SERVER_ERROR)
FAULTS = {
    "banner": (CLOSING, BUSY, "close", "reset", "fin"),
    "ehlo": (CLOSING, BUSY, "close", "reset"),
    "starttls": (CLOSING, "454 4.7.0 TLS not available", "close", "reset"),
    "hello again": (CLOSING, CROWDED, *ENDINGS),
    "auth": (CLOSING, AUTH_LATER, AUTH_LATER, AUTH_REFUSED, AUTH_REFUSED, *ENDINGS),
    "mail": (*LATER, *LATER, TOO_LARGE, MAILBOX_FULL, STRANGE, *ENDINGS),
    "rcpt": (CLOSING, NO_ROOM, BUSY, NO_SUCH, NO_SUCH, NO_SUCH, NO_SUCH, *ENDINGS),
    "data": (*LATER, STRANGE, *ENDINGS),
    "body": ("pause", "pause", "pause", NO_ROOM, CLOSING, *ENDINGS),
    "end": (*LATER, *LATER, TOO_LARGE, MAILBOX_FULL, STRANGE, *ENDINGS,
            *(f"taken {ending}" for ending in ENDINGS), *(f"replied {ending}" for ending in ENDINGS),
            "replied 421"),
    "idle": ("close", "fin", "reset", CLOSING),
}


@dataclasses.dataclass
class Taken:
    """A message that the server took."""

    sender: str
    recipients: list
    data: bytes
    connection: int
    replied: float = 0.0  # when; 0: never
    lost: bool = False  # its reply may not have been read


@dataclasses.dataclass
class Habits:
    """What does not change for a seed."""

    chunking: bool
    pipelining: bool
    mechanisms: str
    misreads: bool  # a chunk behind a refusal is read for commands
    wants_rset: bool  # behind a chunk that was refused
    small_window: bool
    distance: float  # seconds until it looks at what has come

    @classmethod
    def draw(cls, rng, chunking):
        return cls(chunking, rng.random() < 0.8, rng.choice(["PLAIN LOGIN", "LOGIN", "PLAIN", "LOGIN PLAIN"]),
                   rng.random() < 0.3, rng.random() < 0.3, rng.random() < 0.3, rng.choice([0, 0.005, 0.02]))


class Over(Exception):
    """The connection has ended, by them or by us."""


class Wire:
    """A socket with or without TLS, of which every octet and every way to end is ours to choose."""

    def __init__(self, connection, rng):
        self.socket = connection
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rng = rng
        self._tls = self._from_peer = self._to_peer = None
        self._held = b""  # replies that leave with the next
        self.received = bytearray()
        self.total = 0  # octets received

    def start_tls(self, context):
        self._from_peer, self._to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                self._send_tls()
                self._decrypt()  # what came with the end of the handshake
                return
            except ssl.SSLWantReadError:
                self._send_tls()
                self._from_peer.write(self._recv())
            except ssl.SSLError as error:
                raise Over from error

    def _recv(self):
        try:
            octets = self.socket.recv(65536)
        except OSError as error:
            raise Over from error
        if not octets:
            raise Over
        return octets

    def _send_tls(self):
        octets = self._to_peer.read()
        if octets:
            self._send_raw(octets)

    def _send_raw(self, octets):
        try:
            self.socket.sendall(octets)
        except OSError as error:
            raise Over from error

    def _fill(self):
        octets = self._recv()
        if self._tls is None:
            self.received += octets
            return
        self._from_peer.write(octets)
        self._decrypt()

    def _decrypt(self):
        try:
            while True:
                octets = self._tls.read(65536)
                if not octets:
                    raise Over
                self.received += octets
                self.total += len(octets)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise Over from error

    def waits(self, seconds):
        """Whether something arrives within that time."""
        return bool(self.received) or bool(select.select([self.socket], [], [], seconds)[0])

    def anything_behind(self):
        """Octets that came without waiting for the reply to the command just read."""
        while not self.received and select.select([self.socket], [], [], 0.002)[0]:
            try:
                self._fill()
            except Over:
                return False  # an end is not a command
        return bool(self.received)

    def drain(self, quiet):
        """Whatever is on its way."""
        with contextlib.suppress(Over):
            while select.select([self.socket], [], [], quiet)[0]:
                self._fill()

    def consumed(self):
        return self.total - len(self.received)

    def line(self):
        while b"\n" not in self.received:
            self.flush()
            self._fill()
        end = self.received.index(b"\n") + 1
        line = bytes(self.received[:end])
        del self.received[:end]
        return line

    def octets(self, count):
        """As many, in the pieces in which they come."""
        while count > 0:
            if not self.received:
                self.flush()
                self._fill()
            piece = bytes(self.received[:count])
            del self.received[:len(piece)]
            count -= len(piece)
            yield piece

    def _send(self, octets):
        if self._tls is None:
            self._send_raw(octets)
            return
        self._tls.write(octets)
        self._send_tls()

    def flush(self):
        held, self._held = self._held, b""
        if held:
            self._send(held)

    def say(self, text, plainly=False):
        octets = self._held + text.replace("\n", "\r\n").encode() + b"\r\n"
        self._held = b""
        style = "plain" if plainly else self._rng.choices(["plain", "octets", "late", "joined"], [70, 8, 12, 10])[0]
        if style == "joined":
            self._held = octets
        elif style == "octets":
            for octet in octets:
                self._send(bytes([octet]))
        else:
            if style == "late":
                time.sleep(self._rng.uniform(0.002, 0.03))
            self._send(octets)

    def end(self, how):
        """Never returns."""
        with contextlib.suppress(Over):
            self.flush()
            if how == "alert":
                self._alert()
            if how == "close" and self._tls is not None:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._send_tls()
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self._let_go()
        raise Over

    def _alert(self):
        if self._tls is None:
            return
        self._from_peer.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(ssl.SSLError):
            while self._tls.read(65536):
                pass
        self._send_tls()

    def _let_go(self):
        """A close with octets unread would become a reset."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(1)
            while self.socket.recv(65536):
                pass


class Server:
    """`now()` is the relay's clock. `wrongs` collects what must not happen."""

    def __init__(self, directory, seed, chunking, day=0):
        self.seed, self.day = seed, day
        self.rng = random.Random(f"habits {seed}")
        self.habits = Habits.draw(self.rng, chunking)
        made = certificate.make(directory)
        self.ca = made.ca
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(made.chain, made.key)
        self.lock = threading.RLock()
        self.rate = self.rng.choice([0.02, 0.05, 0.12])  # of commands that something happens to
        self.offset = 0.0
        self.log, self.wrongs, self.taken, self.mails, self.refusals = [], [], [], [], []
        self.failed_signin = None  # (real, moved time)
        self.open = {}
        self.accepted = 0
        self.active = time.monotonic()
        self._listener = socket.socket()
        if self.habits.small_window:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(50)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self.lock:
            for session in self.open.values():
                with contextlib.suppress(OSError):
                    session.wire.socket.shutdown(socket.SHUT_RDWR)

    def now(self):
        return time.monotonic() + self.offset

    def note(self, number, text):
        with self.lock:
            self.active = time.monotonic()
            self.log.append(f"{self.active:.3f} {self.now():.0f} [{number}] {text}")

    def wrong(self, number, text):
        with self.lock:
            self.note(number, f"WRONG: {text}")
            self.wrongs.append(f"connection {number}: {text}")

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self.lock:
                    self.accepted += 1
                    session = Session(self, connection, self.accepted)
                    self.open[session.number] = session
                    self.note(session.number, "accepted")
                    if len(self.open) > CONNECTIONS:
                        self.wrong(session.number, f"{len(self.open)} connections: {sorted(self.open)}")
                threading.Thread(target=self._serve, args=(session,), daemon=True).start()

    def _serve(self, session):
        try:
            session.run()
        except Over:
            pass
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.wrong(session.number, f"the server failed: {error!r}")
        with self.lock:
            del self.open[session.number]
            session.wire.socket.close()
            self.note(session.number, "closed")

    # What is counted

    def mail(self, number):
        """MAIL has come."""
        with self.lock:
            self.mails.append(self.now())
            if len(self.mails) > PER_MINUTE and self.mails[-1] - self.mails[-1 - PER_MINUTE] < WINDOW:
                self.wrong(number, f"more than {PER_MINUTE} messages in a minute")

    def sign_in(self, number):
        with self.lock:
            if self.failed_signin is None:
                return
            real, moved = self.failed_signin
            if time.monotonic() - real > UNDER_WAY_AT_ONCE and self.now() - moved < AUTH_PAUSE:
                self.wrong(number, "signs in again too soon after it was refused")

    def take(self, taken):
        with self.lock:
            self.taken.append((self.now(), taken))
            today = sum(len(other.recipients) for when, other in self.taken if when > self.now() - DAY)
            if self.day and today > self.day:
                self.wrong(taken.connection, f"{today} recipients in a day")


class Session:
    """One connection."""

    def __init__(self, server, connection, number):
        self.server, self.number, self.habits = server, number, server.habits
        self.rng = random.Random(f"{server.seed} {number}")
        self.wire = Wire(connection, self.rng)
        self.sender, self.recipients, self.stuck = None, [], False
        self.pipelining = False
        self.last_octet = None  # that may come, because a chunk came though nobody was accepted
        self.misread = False

    def note(self, text):
        self.server.note(self.number, text)

    def wrong(self, text):
        self.server.wrong(self.number, text)

    # Faults

    def draw(self, stage):
        often = {"body": 3, "end": 2, "auth": 3, "rcpt": 0.7}.get(stage, 1)
        return self.rng.choice(FAULTS[stage]) if self.rng.random() < self.server.rate * often else None

    def suffer(self, fault):
        """Ends the connection, or refuses; only then it returns."""
        self.note(f"fault: {fault}")
        if fault in ENDINGS:
            self.forget_replies(fault)
            self.wire.end(fault)
        self.wire.say(fault, plainly=True)
        if fault.startswith("421"):
            self.wire.end("close")

    def forget_replies(self, how):
        """After a reset, or what breaks TLS, nobody knows what was still read."""
        if how not in ("reset", "alert"):
            return
        with self.server.lock:
            for _, taken in self.server.taken:
                if taken.connection == self.number and time.monotonic() - taken.replied < 1:
                    taken.lost = True

    def fault_at(self, stage):
        fault = self.draw(stage)
        if fault is not None:
            self.suffer(fault)
        return fault

    # Reading

    def command(self, alone=False):
        line = self.wire.line()
        text = line.decode("latin-1").rstrip("\r\n")
        self.note(f"< {text[:100]}")
        if not line.endswith(b"\r\n"):
            self.wrong(f"a line without CR: {line[:80]!r}")
        if alone or not (self.pipelining or text.startswith("BDAT")):
            self.stands_alone(text)
        return text

    def stands_alone(self, text):
        if not self.misread and self.wire.anything_behind():
            self.wrong(f"more came behind {text[:40]!r}: {bytes(self.wire.received[:60])!r}")

    def run(self):
        time.sleep(self.rng.choice([0, 0, 0, 0.01, 0.1]))
        self.greet()
        if self.hello("ehlo", "250-chaos\n250-SIZE 40000000\n250 STARTTLS") is None:
            return
        text = self.command(alone=True)
        if text == "QUIT":
            self.quit()
        if text != "STARTTLS":
            self.wrong(f"in the clear: {text[:60]!r}")
        if self.fault_at("starttls"):
            self.expect_quit()
        self.wire.say("220 2.0.0 go on", plainly=True)
        self.wire.start_tls(self.server.context)
        self.hello("hello again", self.offer())
        self.sign_in()
        self.pipelining = self.habits.pipelining
        while True:
            self.transact()

    def offer(self):
        words = ["chaos", "SIZE 40000000", "8BITMIME", "ENHANCEDSTATUSCODES", f"AUTH {self.habits.mechanisms}",
                 *(["PIPELINING"] if self.habits.pipelining else []), *(["CHUNKING"] if self.habits.chunking else [])]
        self.rng.shuffle(words[1:])
        return "\n".join(f"250-{word}" for word in words[:-1]) + f"\n250 {words[-1]}"

    def greet(self):
        if self.fault_at("banner"):
            self.expect_quit()
        if self.wire.anything_behind():
            self.wrong("it spoke before the banner")
        self.wire.say("220 chaos ESMTP")

    def hello(self, stage, offer):
        text = self.command(alone=True)
        if text == "QUIT":
            self.quit()
        if not text.startswith("EHLO "):
            self.wrong(f"instead of EHLO: {text[:60]!r}")
        if self.fault_at(stage):
            self.expect_quit()
        self.wire.say(offer)
        return offer

    def expect_quit(self):
        """After a refusal that ends the session."""
        if self.command(alone=True) != "QUIT":
            self.wrong("it goes on after a refusal that ends the session")
        self.quit()

    def quit(self):
        self.wire.say("221 2.0.0 bye", plainly=True)
        self.wire.end(self.rng.choice(["close", "fin"]))

    def sign_in(self):
        text = self.command(alone=True)
        if text == "QUIT":
            self.quit()
        self.server.sign_in(self.number)
        words = text.split()
        if words[0] != "AUTH" or words[1] not in self.habits.mechanisms.split():
            self.wrong(f"instead of AUTH: {text[:40]!r}")
        said = self.plain(words[2:]) if words[1] == "PLAIN" else self.login(words[2:])
        if said != (MAILBOX, PASSWORD):
            self.wrong(f"wrong credentials: {said}")
        fault = self.draw("auth")
        if fault == AUTH_REFUSED:
            with self.server.lock:
                self.server.failed_signin = time.monotonic(), self.server.now()
        if fault is not None:
            self.suffer(fault)
            self.expect_quit()
        with self.server.lock:
            self.server.failed_signin = None  # two at once may be answered differently
        self.wire.say("235 2.7.0 welcome")

    def ask(self, question):
        self.wire.say("334 " + base64.b64encode(question).decode())
        return self.command(alone=True)

    def plain(self, initial):
        answer = initial[0] if initial else self.ask(b"")
        _, login, password = base64.b64decode(answer).decode().split("\0")
        return login, password

    def login(self, initial):
        login = initial[0] if initial else self.ask(b"Username:")
        password = self.ask(b"Password:")
        return base64.b64decode(login).decode(), base64.b64decode(password).decode()

    # Transactions

    def transact(self):
        if self.sender is None and not self.wire.received:
            self.wire.flush()
            if not self.wire.waits(0.03) and (fault := self.draw("idle")):
                self.note("idle for long enough")
                self.suffer(fault)
            self.wire.waits(None)
            time.sleep(self.habits.distance)
        text = self.command()
        verb = text[:4].upper()
        known = {"MAIL": self.on_mail, "RCPT": self.on_rcpt, "DATA": self.on_data, "BDAT": self.on_bdat,
                 "RSET": self.on_rset, "QUIT": self.on_quit}.get(verb)
        if known is not None:
            known(text)
            return
        if not self.misread:
            self.wrong(f"unknown command {text[:60]!r}")
        self.wire.say("500 5.5.1 unrecognized command")

    def on_quit(self, _text):
        if self.wire.anything_behind():
            self.wrong("more came behind QUIT")
        self.quit()

    def on_rset(self, _text):
        self.sender, self.recipients, self.stuck = None, [], False
        self.wire.say("250 2.0.0 forgotten")

    def on_mail(self, text):
        self.server.mail(self.number)
        self.check_refused()
        found = re.fullmatch(r"MAIL FROM:<([^>]*)>((?: [A-Z0-9=]+)*)", text)
        if not found:
            self.wrong(f"not a MAIL command: {text[:80]!r}")
        if self.sender is not None or self.stuck:
            if not (self.stuck or self.misread):
                self.wrong("a second MAIL in one transaction")
            self.wire.say("503 5.5.1 a transaction is open")
            return
        fault = self.draw("mail")
        if fault is None:
            self.sender = found[1]
            self.wire.say("250 2.1.0 sender fine")
            return
        self.refuse_message(found[1], fault)
        self.suffer(fault)

    def refuse_message(self, sender, fault):
        with self.server.lock:
            self.server.refusals.append((sender, None, fault))

    def check_refused(self):
        """Behind a chunk whose transaction was refused only what was already on its way may come."""
        if self.last_octet is not None and self.wire.consumed() > self.last_octet:
            self.wrong("a new MAIL behind a refusal while the chunk was in flight")

    def on_rcpt(self, text):
        found = re.fullmatch(r"RCPT TO:<([^>]*)>", text)
        if not found:
            self.wrong(f"not a RCPT command: {text[:80]!r}")
        if self.sender is None:
            self.wire.say("503 5.5.1 MAIL first")
            return
        fault = self.draw("rcpt")
        if fault is None:
            self.recipients.append(found[1])
            self.wire.say("250 2.1.5 recipient fine")
            return
        with self.server.lock:
            self.server.refusals.append((self.sender, found[1], fault))
        self.suffer(fault)

    def on_data(self, text):
        self.stands_alone(text)
        if self.habits.chunking:
            self.note("DATA though there is CHUNKING")
        if not self.recipients:
            self.refuse_data()
            return
        fault = self.draw("data")
        if fault is not None:
            self.refuse_message(self.sender, fault)
            self.suffer(fault)
            self.sender, self.recipients = None, []
            return
        self.wire.say("354 go on")
        self.finish(self.read_to_dot())

    def refuse_data(self):
        """With 354 it is only the dot that may follow."""
        self.sender = None
        if self.rng.random() < 0.7:
            self.wire.say("554 5.5.1 no valid recipients")
            return
        self.wire.say("354 nobody, but go on")
        if self.wire.line() != b".\r\n":
            self.wrong("mail data for nobody")
        self.wire.say("554 5.5.1 no valid recipients")

    def read_to_dot(self):
        data = bytearray()
        broken = self.draw("body")
        while True:
            line = self.wire.line()
            if line == b".\r\n":
                return bytes(data)
            data += line[1:] if line.startswith(b".") else line
            if broken and len(data) > 1000:
                self.disturb(broken)
                broken = None

    def on_bdat(self, text):
        found = re.fullmatch(r"BDAT (\d+) LAST", text)
        if not found:
            self.wrong(f"not a BDAT command of this relay: {text[:80]!r}")
        if not self.habits.chunking:
            self.wrong("BDAT without CHUNKING")
        if not self.recipients:
            self.refuse_chunk(int(found[1]))
            return
        data = bytearray()
        broken = self.draw("body")
        for piece in self.wire.octets(int(found[1])):
            data += piece
            if broken and len(data) >= min(int(found[1]) // 2, 40_000):
                self.disturb(broken)
                broken = None
        self.finish(bytes(data))

    def refuse_chunk(self, count):
        """It came in one flight with what was refused."""
        self.sender = None
        if self.habits.misreads:
            self.misread = True
        else:
            for _ in self.wire.octets(count):
                pass
        self.wire.say("503 5.5.1 RCPT first", plainly=True)
        if self.last_octet is None:
            self.wire.drain(UNDER_WAY_AT_ONCE)
            self.last_octet = self.wire.total

    def disturb(self, how):
        if how == "pause":
            time.sleep(self.rng.uniform(0.01, 0.2))
            return
        self.note(f"fault in the middle of mail data: {how}")
        if how in ENDINGS:
            self.forget_replies(how)
            self.wire.end(how)
        self.wire.say(how, plainly=True)
        self.wire.end("close")

    def finish(self, data):
        sender, recipients = self.sender, self.recipients
        self.sender, self.recipients = None, []
        fault = self.draw("end")
        taken = Taken(sender, recipients, data, self.number)
        if fault is None or fault.startswith(("taken", "replied")):
            self.note(f"took {sender} for {recipients}, {len(data)} octets")
            self.server.take(taken)
        if fault is None:
            self.acknowledge(taken)
        elif fault.startswith("taken"):
            self.note(f"fault: {fault}")
            taken.lost = True
            self.forget_replies(fault.split()[1])
            self.wire.end(fault.split()[1])
        elif fault.startswith("replied"):
            self.note(f"fault: {fault}")
            self.acknowledge(taken)
            if fault == "replied 421":
                self.suffer(CLOSING)
            self.wire.flush()
            self.forget_replies(fault.split()[1])
            self.wire.end(fault.split()[1])
        else:
            self.refuse_message(sender, fault)
            self.stuck = self.habits.wants_rset and self.habits.chunking
            self.suffer(fault)

    def acknowledge(self, taken):
        taken.replied = time.monotonic()
        taken.lost = self.misread  # nobody can tell what it answers
        self.wire.say("250 2.0.0 OK, taken")
        taken.replied = time.monotonic()


# The driver

@dataclasses.dataclass
class Sent:
    sender: str
    recipients: list
    data: bytes
    queue_id: str


class Chaos:
    """One seed, from the first message to a quiet end."""

    def __init__(self, test, seed, chunking=True, in_flight=4, count=36, day=0, calm_after=6.0):
        self.test, self.seed, self.count, self.calm_after = test, seed, count, calm_after
        self.rng = random.Random(f"mail {seed}")
        self.server = Server(test.directory / f"chaos{seed}", seed, chunking, day)
        test.addCleanup(self.server.stop)
        self.relay = test.relay(self.server, start=False, log_level="debug")
        self.relay.set("mailbox office", messages_per_minute=PER_MINUTE, in_flight=in_flight,
                       connections=CONNECTIONS, recipients_per_day=day)
        if self.rng.random() < 0.5:
            self.relay.set("mailbox office", urgent_connections=1, urgent_reserve=5)
        self.relay.set("devices", max_messages_per_minute=0)
        self.relay.set("device alarm", address=ALARM, lane="urgent")
        self.sent = []

    def play(self):
        """Raises with everything that is needed to look into it."""
        try:
            self.relay.start()
            self.hand_in(self.count * 2 // 3)
            self.settle()
            self.check_ends()
        except AssertionError as error:
            self.server.wrongs.append(str(error))
        if self.server.wrongs:
            raise AssertionError(self.report())

    def report(self):
        log = self.server.log
        path = self.test.directory.parent / f"outtray-chaos-{self.seed}.log"
        path.write_text("\n".join([*log, "----", *self.relay.lines]) + "\n", encoding="utf-8")
        return "\n".join([f"seed {self.seed}, {self.server.habits}", *self.server.wrongs,
                          f"---- the end of the server's log; all of it and the relay's are in {path}", *log[-150:]])

    # Mail

    def body(self, number):
        dots = b".\r\n..\r\n.start\r\n" if self.rng.random() < 0.5 else b""
        size = self.rng.choices([0, 2000, 65_000, 300_000], [40, 35, 15, 10])[0]
        return dots + (lines_of_base64(size, number) if size else b"A short one.\r\n")

    def sized(self, number):
        """Now and then exactly at the size up to which mail goes in one flight."""
        data = message(subject=f"Scan {number}", body=self.body(number))
        if self.rng.random() < 0.12:
            goal = 65536 + self.rng.choice([-1, 0, 1]) - self.rng.choice([0, 1, 140, 150])
            data = data[:1] + data[1:] + b"x" * max(0, goal - len(data) - 2) + b"\r\n"
            data = re.sub(rb"(x{900})(?=x)", rb"\1\r\n", data)[:goal - 2] + b"\r\n"
        return data

    def hand_in(self, count):
        source = ALARM if self.rng.random() < 0.3 else None
        with Device(self.relay, timeout=60, source=source) as device:
            for _ in range(count):
                number = len(self.sent) + 1
                people = [f"r{number}.{one}@office.test" for one in range(self.rng.choice([1, 1, 1, 2, 3, 6]))]
                data, sender = self.sized(number), f"m{number}@office.test"
                expect(device.mail(sender), 250)
                for person in people:
                    expect(device.rcpt(person), 250)
                answer = expect(device.data(data), 250)
                self.sent.append(Sent(sender, people, data, answer.split()[-1].decode()))

    # Time

    def open_mail(self):
        return [entry for entry in self.relay.queue() if entry["state"] in ("queued", "uncertain")]

    def settle(self):
        began = time.monotonic()
        while True:
            if time.monotonic() - began > self.calm_after:
                self.server.rate = 0
            if len(self.sent) < self.count:
                self.hand_in(min(self.rng.choice([0, 1, 4]), self.count - len(self.sent)))
                if self.rng.random() < 0.15:
                    self.server.note(0, "the relay is stopped and started")
                    self.relay.restart()
            self.wait_silence()
            waiting = self.open_mail()
            if not waiting and len(self.sent) >= self.count:
                return
            if time.monotonic() - began > PATIENCE:
                raise AssertionError(f"it does not come to an end: {waiting} {self.relay.mailbox()}")
            self.move(self.step(waiting) if self.rng.random() < 0.9 else 2 * MINUTE)

    def wait_silence(self):
        began = time.monotonic()
        while True:
            quiet = time.monotonic() - self.server.active > SETTLED
            busy = self.relay.status()["queue"]["in_flight"]
            if quiet and not busy:
                return
            if quiet and time.monotonic() - max(began, self.server.active) > STUCK:
                raise AssertionError(f"a message is under way and nothing happens: {self.relay.queue()}")
            time.sleep(0.01)

    @staticmethod
    def step(waiting):
        due = min((entry["due_in"] or 0 for entry in waiting), default=0)
        return int(due) + 1 if due > 0.5 else 5

    def move(self, seconds):
        """What happens during the move belongs to the time after it: before it there was silence."""
        self.server.offset += seconds
        self.relay.advance(seconds)

    # The end

    def check_ends(self):
        self.server.rate = 0
        self.move(61)  # longer than a connection may be idle
        eventually(lambda: not self.server.open, "every connection is closed when it was idle for long", 10)
        entries = {entry["id"]: entry for entry in self.relay.queue()}
        for sent in self.sent:
            self.check_message(sent, entries.get(sent.queue_id))
        known = {sent.sender for sent in self.sent}
        for _, taken in self.server.taken:
            if taken.sender not in known:
                self.server.wrongs.append(f"somebody else's mail arrived: {taken.sender}")

    def check_message(self, sent, entry):
        shown = self.relay.show(sent.queue_id)["recipients"] if entry else []
        states = {one["path"]: one["state"] for one in shown}
        for person in sent.recipients:
            copies = [taken for _, taken in self.server.taken if person in taken.recipients]
            self.check_recipient(sent, person, entry, states.get(person, "delivered"), copies)
        for _, taken in self.server.taken:
            if taken.sender == sent.sender:
                arrived, _ = without_trace(taken.data)
                if sha256(arrived) != sha256(sent.data):
                    self.complain(sent, f"arrived changed: {arrived[:80]!r}, {len(arrived)} for {len(sent.data)}")

    def complain(self, sent, text):
        self.server.wrongs.append(f"{sent.queue_id} {sent.sender} {message_id_of(sent.data)}: {text}")

    def check_recipient(self, sent, person, entry, state, copies):
        if state == "delivered" and not copies:
            self.complain(sent, f"{person} is said to be reached, and is not")
        if state == "failed" and not self.may_fail(sent, person):
            self.complain(sent, f"{person} failed without a refusal that says so")
        if state == "pending" and not (entry["state"] == "held" and self.was_told(sent, person, STRANGE)):
            self.complain(sent, f"{person} waits for no reason: {entry}")
        for copy in copies[:-1]:
            if not copy.lost:
                self.complain(sent, f"{person} has {len(copies)} copies, though the first reply was not lost")
        if len(copies) > 1 and not self.relay.events("deferred", run=False, queue=sent.queue_id, state="uncertain"):
            self.complain(sent, f"{person} has {len(copies)} copies, and it never was uncertain")

    def was_told(self, sent, person, fault, times=1):
        return sum(other == sent.sender and whom in (None, person) and said == fault
                   for other, whom, said in self.server.refusals) >= times

    def may_fail(self, sent, person):
        return self.was_told(sent, person, NO_SUCH) or self.was_told(sent, person, TOO_LARGE) or \
            self.was_told(sent, person, STRANGE, 2)
