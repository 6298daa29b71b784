"""What goes over the wire upstream, seen from the other end: sign-in, sessions that are resumed and ended, 8-bit mail."""

import base64
import contextlib
import email
import email.policy
import os
import pathlib
import socket
import ssl
import struct
import threading
import time
import unittest

from harness import MAILBOX, PASSWORD, PRINTER, RECIPIENT, Device, EndToEnd, eventually, message
from practice import certificate

MODERN = ("PIPELINING", "SIZE 1000000", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES")
GREETING = "Gr\u00fc\u00dfe aus dem B\u00fcro\r\n"


class Session:
    """One connection: the commands in the order they came, and what became of it."""

    def __init__(self):
        self.commands = []
        self.messages = []
        self.flights = []  # by message: whether its chunk came with MAIL
        self.held = None  # replies that wait, while they do
        self.resumed = False
        self.ended = False  # the peer said goodbye, to the last octet

    def verbs(self):
        return [command.split()[0].upper() for command in self.commands]


class Hold:
    """Keeps all replies back from the second message of a session on, until so many messages have come. Then it answers
    them all; or answers so many and closes; or resets the connection. Only once."""

    def __init__(self, messages, then="answer", answer=0):
        self.messages, self.then, self.answer, self.used = messages, then, answer, False


class Upstream:
    """A submission service whose every command can be looked at. refuse: answers by the begin of a command."""

    def __init__(self, directory, keywords=MODERN, mechanisms="PLAIN LOGIN", refuse=None, address="127.0.0.1", tls=None,
                 hold=None, pace=0):
        made = certificate.make(pathlib.Path(directory) / "wire", ("localhost", "127.0.0.1", "::1"), "good")
        self.ca = made.ca
        self.sessions = []
        self._keywords, self._mechanisms, self._refuse = keywords, mechanisms, dict(refuse or {})
        self._hold, self._pace = hold, pace
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.chain, made.key)
        if tls:
            self._context.maximum_version = tls
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self._socket.close()

    def allow_all(self):
        self._refuse.clear()

    def messages(self):
        return [data for session in self.sessions for data in session.messages]

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                session = Session()
                self.sessions.append(session)
                threading.Thread(target=self._serve, args=(connection, session), daemon=True).start()

    def _serve(self, connection, session):
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"220 wire\r\n")
            self._talk(connection, session, ["STARTTLS"])
            with self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as secured:
                session.resumed = secured.session_reused
                self._talk(secured, session, [f"AUTH {self._mechanisms}", *self._keywords])
                with contextlib.suppress(ssl.SSLEOFError):
                    session.ended = secured.recv(1) == b""

    def _talk(self, connection, session, keywords):
        """Until STARTTLS, QUIT or the end."""
        file = connection.makefile("rb")

        def say(*lines):
            for number, line in enumerate(lines):
                data = line.replace(" ", "-" if number < len(lines) - 1 else " ", 1).encode() + b"\r\n"
                if session.held is None:
                    connection.sendall(data)
                else:
                    session.held.append(data)

        while line := file.readline():
            command = line.decode("ascii").rstrip("\r\n")
            verb = command.split()[0].upper()
            session.commands.append(command)
            if verb == "MAIL" and self._hold and not self._hold.used and session.messages and session.held is None:
                session.held = []
            if verb == "MAIL" and "PIPELINING" in self._keywords:  # so RCPT is there too
                session.flights.append(b"\nBDAT" in file.peek())
            refusal = next((text for begin, text in list(self._refuse.items()) if command.startswith(begin)), None)
            if refusal:
                say(refusal)
            elif verb == "EHLO":
                say("250 wire", *(f"250 {keyword}" for keyword in keywords))
            elif verb == "STARTTLS":
                say("220 go on")
                return
            elif verb == "AUTH":
                self._sign_in(command, file, say)
            elif verb == "BDAT":
                session.messages.append(file.read(int(command.split()[1])))
                time.sleep(self._pace)
                say("250 2.0.0 OK")
                if session.held is not None and len(session.messages) > self._hold.messages:
                    self._stop_holding(connection, session)
            elif verb == "DATA":
                say("354 go on")
                session.messages.append(b"".join(iter(file.readline, b".\r\n")).replace(b"\r\n..", b"\r\n."))
                say("250 2.0.0 OK")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 2.1.0 OK")

    def _stop_holding(self, connection, session):
        hold, held = self._hold, session.held
        hold.used, session.held = True, None
        if hold.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(connection.detach())
            raise ConnectionResetError
        connection.sendall(b"".join(held if hold.then == "answer" else held[:3 * hold.answer]))  # to MAIL, RCPT, BDAT
        if hold.then == "close":
            with contextlib.suppress(OSError):
                connection.unwrap()
            raise ConnectionResetError

    @staticmethod
    def _sign_in(command, file, say):
        """235 for the right name and password, in whatever form."""
        words = command.split()
        given = [base64.b64decode(words[2])] if len(words) > 2 else []
        for prompt in ("Username:", "Password:") if words[1] == "LOGIN" else ("",):
            if len(given) < (2 if words[1] == "LOGIN" else 1) and not (prompt == "Username:" and given):
                say("334 " + base64.b64encode(prompt.encode()).decode())
                given.append(base64.b64decode(file.readline()))
        wanted = [MAILBOX, PASSWORD] if words[1] == "LOGIN" else [f"\0{MAILBOX}\0{PASSWORD}"]
        say("235 2.7.0 OK" if [part.decode() for part in given] == wanted else "535 5.7.8 no")


class Wire(EndToEnd):
    def begin(self, settings=None, **options):
        self.upstream = Upstream(self.directory, **options)
        self.addCleanup(self.upstream.stop)
        self.outtray = self.relay(self.upstream, start=False)
        self.outtray.set("mailbox office", **(settings or {}))
        self.outtray.start()

    def wait_messages(self, count):
        eventually(lambda: len(self.upstream.messages()) >= count, f"{count} messages")
        self.outtray.wait_empty()

    def deliver(self, data=None, count=1):
        have = len(self.upstream.messages())
        for _ in range(count):
            self.outtray.send(data)
        self.wait_messages(have + count)


class Sessions(Wire):
    def test_the_sign_in_takes_as_few_round_trips_as_it_can(self):
        for mechanisms, expected in (("PLAIN LOGIN", "AUTH PLAIN "), ("LOGIN", "AUTH LOGIN ")):
            with self.subTest(mechanisms=mechanisms):
                self.begin(mechanisms=mechanisms)
                self.deliver()
                self.assertEqual(self.upstream.sessions[0].verbs()[:5], ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"])
                self.assertTrue(self.upstream.sessions[0].commands[3].startswith(expected))

    def test_a_server_that_wants_to_ask_for_the_login_may(self):
        self.begin(mechanisms="LOGIN", refuse={"AUTH LOGIN ": "501 5.5.4 no argument"})
        self.deliver()
        self.assertEqual(self.upstream.sessions[0].commands[4], "AUTH LOGIN")
        self.assertEqual(len(self.upstream.sessions), 1)

    def test_the_next_connection_resumes_the_session(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version.name):
                self.begin({"idle_time": "5s"}, tls=version)
                for number in range(3):
                    self.deliver()
                    eventually(lambda: self.idle(), "the connection is idle")
                    self.outtray.advance(6)
                    eventually(lambda: self.upstream.sessions[number].ended, "it has ended")
                    self.outtray.advance(2)
                self.assertEqual([session.resumed for session in self.upstream.sessions], [False, True, True])

    def idle(self):
        return self.outtray.status()["queue"]["in_flight"] == 0

    def test_it_says_goodbye_when_idle_and_when_old(self):
        for settings, steps in (({"idle_time": "20s"}, (19, 2)), ({"idle_time": "10m", "session_time": "1m"}, (59, 2))):
            with self.subTest(**settings):
                self.begin(settings)
                self.deliver()
                self.outtray.advance(steps[0])
                self.deliver()
                self.assertEqual(len(self.upstream.sessions), 1)
                if "session_time" not in settings:
                    self.outtray.advance(steps[0])
                self.outtray.advance(steps[1])
                eventually(lambda: self.upstream.sessions[0].ended, "it has ended")
                self.assertEqual(self.upstream.sessions[0].verbs()[-1], "QUIT")
                self.assertEqual(self.outtray.mailbox()["state"], "ready")

    def test_small_mail_takes_one_flight_once_a_chunk_was_taken(self):
        self.begin()
        for _ in range(3):
            self.deliver()
        self.outtray.advance(25)  # then it may have gone without a sign
        self.deliver()
        session = self.upstream.sessions[0]
        self.assertEqual(session.verbs()[4:], ["MAIL", "RCPT", "BDAT"] * 4)
        self.assertEqual(session.flights, [False, True, True, False])


class InFlight(Wire):
    """Several small messages under way on one connection."""

    def begin_held(self, hold, count, **settings):
        """One message, and then so many that come together."""
        self.begin({"connections": "1", "in_flight": "4", **settings}, hold=hold)
        self.deliver()
        for _ in range(count):
            self.outtray.send()

    def states(self):
        return sorted(entry["state"] for entry in self.outtray.queue())

    def subjects(self):
        return [email.message_from_bytes(data)["Message-ID"] for data in self.upstream.messages()]

    def test_four_are_under_way_at_one_time(self):
        self.begin_held(Hold(4), 6)
        self.wait_messages(7)
        session, = self.upstream.sessions
        self.assertEqual(session.verbs()[4:], ["MAIL", "RCPT", "BDAT"] * 7)
        self.assertEqual(session.flights, [False] + [True] * 6)
        self.assertEqual(len(set(self.subjects())), 7)

    def test_never_more_than_are_allowed(self):
        self.begin_held(Hold(3), 3, in_flight="2")
        eventually(lambda: len(self.upstream.messages()) == 3, "two are under way")
        entries = self.outtray.queue()
        self.assertEqual(sorted(entry["in_flight"] for entry in entries), [False, True, True])
        self.outtray.kill()  # no reply will come

    def test_a_reset_is_uncertain_for_each_of_them_and_no_other(self):
        self.begin_held(Hold(4, "reset"), 6)
        eventually(lambda: self.states() == ["queued"] * 2 + ["uncertain"] * 4, "four are in doubt")
        self.assertEqual(self.outtray.mailbox()["failed"], 1)  # it is one trouble
        sent = self.subjects()
        self.outtray.advance(60)
        eventually(lambda: self.states() == ["uncertain"] * 4, "the others are delivered")
        self.outtray.advance(20 * 60)
        self.outtray.wait_empty()
        again = self.subjects()[5:]
        self.assertEqual(sorted(again[2:]), sorted(sent[1:]))
        self.assertFalse(set(again[:2]) & set(sent))

    def test_what_a_server_did_not_look_at_before_it_closed_is_certain(self):
        self.begin_held(Hold(4, "close", answer=2), 4)
        self.outtray.wait_empty()
        self.assertEqual(len(self.upstream.sessions), 2)
        first, second = self.upstream.sessions
        self.assertEqual((len(first.messages), len(second.messages)), (5, 2))
        self.assertEqual(first.messages[3:], second.messages)
        self.assertEqual(self.outtray.mailbox()["state"], "ready")

    def test_a_refusal_in_their_middle_costs_the_connection_and_no_other_message(self):
        self.begin({"connections": "1", "in_flight": "4"}, hold=Hold(4), refuse={"RCPT TO:<nobody@": "550 5.1.1 no"})
        self.deliver()
        for recipient in ("someone", "nobody", "someone", "someone"):
            self.outtray.send(recipients=[f"{recipient}@office.test"])
        eventually(lambda: self.states() == ["dead"], "the others are delivered")
        self.assertEqual(len(self.upstream.sessions), 1)
        self.assertEqual(self.upstream.sessions[0].verbs()[-1], "QUIT")
        self.outtray.send()
        eventually(lambda: len(self.upstream.sessions) == 2, "a new connection")

    def test_a_large_message_goes_alone(self):
        self.begin_held(None, 0)
        for size in (100, 200_000, 100):
            self.outtray.send(message(body=(b"x" * 70 + b"\r\n") * (size // 72)))
        self.wait_messages(4)
        session, = self.upstream.sessions
        large = max(range(4), key=lambda number: len(session.messages[number]))
        self.assertFalse(session.flights[large])

    def test_small_mail_of_others_does_not_keep_a_large_message_waiting(self):
        self.begin({"connections": "1", "in_flight": "4"}, pace=0.05)
        self.outtray.stop()
        self.outtray.set("route default", mailboxes="office").set("route scans", mailboxes="office")
        self.outtray.set("device scanner", address="127.0.3.1", route="scans").start()
        with Device(self.outtray) as device:
            for number in range(60):
                device.sendmail(PRINTER, [RECIPIENT], message())
                if number == 20:
                    self.outtray.send(message(body=(b"x" * 70 + b"\r\n") * 2000), source="127.0.3.1")
        self.wait_messages(61)
        sizes = [len(data) for data in self.upstream.messages()]
        self.assertLess(sizes.index(max(sizes)), 50)

    def begin_with_a_queue(self, **options):
        """Five messages wait when it starts; nobody has ever answered."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.upstream = Upstream(self.directory, **options)
            self.addCleanup(self.upstream.stop)
            self.outtray = self.relay(self.upstream, start=False)
            self.outtray.set("mailbox office", in_flight="4", port=silent.getsockname()[1]).start()
            for _ in range(5):
                self.outtray.send()
            self.outtray.stop()
        time.sleep(1.1)  # what was dropped counts for a second
        self.outtray.set("mailbox office", port=self.upstream.port).start()

    def test_the_other_connections_wait_for_the_first_sign_in(self):
        self.begin_with_a_queue()
        self.wait_messages(5)
        self.assertEqual(len(self.upstream.sessions), 3)

    def test_a_refused_sign_in_is_tried_by_one_connection(self):
        self.begin_with_a_queue(refuse={"AUTH": "535 5.7.3 Authentication unsuccessful"})
        eventually(lambda: self.outtray.mailbox()["state"] == "paused", "the mailbox is paused")
        time.sleep(0.5)
        self.assertEqual([verb for session in self.upstream.sessions for verb in session.verbs()].count("AUTH"), 1)
        self.assertEqual(self.outtray.mailbox()["failed"], 1)

    def test_three_connections_are_used_and_no_more(self):
        self.begin({"in_flight": "4"})
        for _ in range(40):
            self.outtray.send()
        self.wait_messages(40)
        self.assertLessEqual(len(self.upstream.sessions), 3)
        self.assertEqual(len(set(self.subjects())), 40)


class EightBit(Wire):
    def eight_bit(self, header):
        return (f"From: <{MAILBOX}>\r\nTo: <someone@office.test>\r\nSubject: x\r\nMIME-Version: 1.0\r\n{header}\r\n"
                ).encode()

    def test_it_passes_where_it_may(self):
        self.begin()
        data = self.eight_bit("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n")
        self.deliver(data + GREETING.encode())
        self.assertIn(GREETING.encode(), self.upstream.messages()[0])
        self.assertIn(" BODY=8BITMIME", self.upstream.sessions[0].commands[4])

    def test_it_is_converted_for_a_server_that_does_not_take_it(self):
        for keywords in ((), ("CHUNKING", "PIPELINING", "SIZE 1000000")):
            with self.subTest(keywords=keywords):
                self.begin(keywords=keywords)
                part = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + GREETING
                scan = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xff\xd8x\r\n"
                data = (self.eight_bit('Content-Type: multipart/mixed; boundary="b"\r\n') + b"--b\r\n" + part.encode() +
                        b"--b\r\n" + scan + b"--b--\r\n")
                self.deliver(data)
                arrived = self.upstream.messages()[0]
                self.assertTrue(arrived.isascii())
                parts = email.message_from_bytes(arrived, policy=email.policy.SMTP).get_payload()
                self.assertEqual(parts[0].get_payload(decode=True).decode().strip(), GREETING.strip())
                self.assertEqual(parts[1].get_payload(decode=True), b"\xff\xd8x")
                self.assertNotIn("BODY=", " ".join(self.upstream.sessions[0].commands))
                self.assertNotIn("SIZE=", " ".join(self.upstream.sessions[0].commands))

    def test_a_long_text_is_converted_whole(self):
        self.begin(keywords=())
        text = GREETING * 20_000
        self.deliver(self.eight_bit("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n") +
                     text.encode())
        arrived = email.message_from_bytes(self.upstream.messages()[0])
        self.assertEqual(arrived.get_payload(decode=True).replace(b"\r\n", b"\n").decode(), text.replace("\r\n", "\n"))

    def test_seven_bit_mail_is_not_touched(self):
        self.begin(keywords=())
        data = message(body=b"plain = plain \r\n")
        self.deliver(data)
        self.assertTrue(self.upstream.messages()[0].endswith(b"plain = plain \r\n"))

    def test_what_is_signed_is_a_dead_letter_and_costs_nobody_else(self):
        self.begin(keywords=())
        self.outtray.send(self.eight_bit('Content-Type: multipart/signed; boundary="s"\r\n') +
                          b"--s\r\nContent-Type: text/plain\r\n\r\n" + GREETING.encode() + b"--s--\r\n")
        entry = eventually(lambda: [e for e in self.outtray.queue() if e["state"] == "dead"], "it is dead")[0]
        self.assertIn("cannot be converted", self.outtray.show(entry["id"])["recipients"][0]["reply"])
        self.assertEqual(self.outtray.mailbox()["state"], "ready")
        self.outtray.send()
        eventually(lambda: len(self.upstream.messages()) == 1, "the other one")


if __name__ == "__main__":
    unittest.main()
