"""What goes over the wire upstream, seen from the other end: sign-in, sessions that are resumed and ended, 8-bit mail."""

import base64
import contextlib
import email
import email.policy
import pathlib
import socket
import ssl
import threading
import unittest

from harness import MAILBOX, PASSWORD, EndToEnd, eventually, message
from practice import certificate

MODERN = ("PIPELINING", "SIZE 1000000", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES")
GREETING = "Gr\u00fc\u00dfe aus dem B\u00fcro\r\n"


class Session:
    """One connection: the commands in the order they came, and what became of it."""

    def __init__(self):
        self.commands = []
        self.messages = []
        self.flights = []  # by message: whether its chunk came with MAIL
        self.resumed = False
        self.ended = False  # the peer said goodbye, to the last octet

    def verbs(self):
        return [command.split()[0].upper() for command in self.commands]


class Upstream:
    """A submission service whose every command can be looked at. refuse: answers by the begin of a command."""

    def __init__(self, directory, keywords=MODERN, mechanisms="PLAIN LOGIN", refuse=None, address="127.0.0.1", tls=None):
        made = certificate.make(pathlib.Path(directory) / "wire", ("localhost", "127.0.0.1", "::1"), "good")
        self.ca = made.ca
        self.sessions = []
        self._keywords, self._mechanisms, self._refuse = keywords, mechanisms, dict(refuse or {})
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
                connection.sendall(line.replace(" ", "-" if number < len(lines) - 1 else " ", 1).encode() + b"\r\n")

        while line := file.readline():
            command = line.decode("ascii").rstrip("\r\n")
            verb = command.split()[0].upper()
            session.commands.append(command)
            if verb == "MAIL" and "PIPELINING" in self._keywords:  # so RCPT is there too
                session.flights.append(b"\nBDAT" in file.peek())
            refusal = next((self._refuse[begin] for begin in self._refuse if command.startswith(begin)), None)
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
                say("250 2.0.0 OK")
            elif verb == "DATA":
                say("354 go on")
                session.messages.append(b"".join(iter(file.readline, b".\r\n")).replace(b"\r\n..", b"\r\n."))
                say("250 2.0.0 OK")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 2.1.0 OK")

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
