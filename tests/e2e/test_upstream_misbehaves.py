"""An upstream that breaks off, floods, or answers out of turn: nothing is lost, and nothing is sent in a frenzy."""

import contextlib
import socket
import ssl
import threading
import time
import unittest

from harness import MAILBOX, EndToEnd, eventually, message, message_id_of
from practice import certificate

LABELS = "threads"
# Before the mail data everything can be sent again without a copy arriving twice.
STAGES = ("connect", "banner", "ehlo", "starttls", "challenge", "auth", "mail", "rcpt", "data")
HOUR = 3600


class ScriptedUpstream:
    """Takes any sign-in; then play(wire) has the connection. Counts connections and messages."""

    def __init__(self, directory, play):
        made = certificate.make(directory / "scripted")
        self.ca = made.ca
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.chain, made.key)
        self._play = play
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, EOFError), connection:
            wire = Wire(connection)
            wire.say("220 scripted")
            wire.answer("250-scripted\r\n250 STARTTLS")
            wire.answer("220 go on")
            with self._context.wrap_socket(connection, server_side=True) as secured:
                wire = Wire(secured)
                wire.answer("250-scripted\r\n250 AUTH PLAIN")
                wire.line()
                self._play(wire)


class Wire:
    """Lines over a socket."""

    def __init__(self, connection):
        self._connection = connection
        self._file = connection.makefile("rb")

    def say(self, text):
        self._connection.sendall(text.encode() + b"\r\n")

    def line(self):
        line = self._file.readline()
        if not line:
            raise EOFError
        return line

    def answer(self, text):
        self.line()
        self.say(text)

    def read_to_the_end(self):
        while self._file.read(4096):
            pass


class BreaksOff(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def assert_survives(self, rule):
        """One failure, then everything arrives once."""
        expected = len(self.practice.messages()) + 3
        self.practice.drop_connections()
        self.practice.add_rule(times=1, **rule)
        sent = [self.outtray.send() for _ in range(3)]
        for _ in range(300):
            if self.practice.wait_stored(expected, 0.1):
                break
            if self.outtray.mailbox()["next_try_in"] or any(e["due_in"] for e in self.outtray.queue()):
                self.outtray.advance(HOUR)
        self.outtray.wait_empty()
        arrived = [facts["message_id"] for facts in self.practice.messages()[-3:]]
        self.assertEqual(sorted(arrived), sorted(map(message_id_of, sent)))

    def check(self, **rule):
        self.outtray = self.relay(self.practice)
        for stage in STAGES:
            with self.subTest(stage=stage, **rule):
                self.practice.clear_rules()
                self.assert_survives({"stage": stage, **rule})
        counters = self.practice.counters()
        self.assertEqual(counters["duplicates"], 0)
        self.assertLessEqual(counters["mailboxes"][MAILBOX]["highest_concurrency"], 3)
        self.assertEqual(self.outtray.mailbox()["state"], "ready")

    def test_closes_at_each_stage(self):
        self.check(action="close")

    def test_resets_at_each_stage(self):
        self.check(action="reset")

    def test_ends_the_service_at_each_stage(self):
        self.check(reply="421 4.3.2 Service not available")

    def test_answers_out_of_turn_at_each_stage(self):
        self.check(reply="299 what a nice day\n354 go on")


class AfterTheSignIn(EndToEnd):
    def scripted(self, play):
        upstream = ScriptedUpstream(self.directory, play)
        self.addCleanup(upstream.stop)
        return upstream

    def assert_calm(self, play):
        """The first failure makes the mailbox wait; its mail stays."""
        upstream = self.scripted(play)
        relay = self.relay(upstream)
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        time.sleep(1)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(upstream.connections, 1)
        self.assertEqual([entry["state"] for entry in relay.queue()], ["queued"])
        self.assertFalse(relay.queue()[0]["in_flight"])

    def test_a_close_right_after_the_sign_in_is_trouble(self):
        self.assert_calm(lambda wire: wire.say("235 2.7.0 welcome"))

    def test_a_refusal_right_after_the_sign_in_is_trouble(self):
        def play(wire):
            wire.say("235 2.7.0 welcome")
            time.sleep(0.01)
            wire.say("421 4.3.2 Service not available")

        self.assert_calm(play)

    def test_replies_before_their_commands_are_not_taken_for_them(self):
        def play(wire):
            wire.say("235 2.7.0 welcome\r\n250 sender\r\n250 recipient\r\n354 go on\r\n250 taken")
            wire.read_to_the_end()

        self.assert_calm(play)

    def test_a_reply_without_end_is_cut(self):
        def play(wire):
            wire.say("235 2.7.0 welcome")
            wire.line()
            while True:
                wire.say("250-" + "x" * 500)

        self.assert_calm(play)


class BeforeTheSignIn(EndToEnd):
    def test_a_peer_that_stays_counts_after_a_failed_handshake(self):
        """A fourth connection must not be possible while three are open."""
        held = []

        def serve(listener):
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    wire = Wire(connection)
                    wire.say("220 hello")
                    wire.answer("250-hello\r\n250 STARTTLS")
                    wire.answer("220 go on")
                    wire.say("this is no TLS")

        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        relay = self.relay(None, start=False)
        relay.set("mailbox office", port=listener.getsockname()[1]).start()
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        self.assertEqual(relay.mailbox()["connections"], 1)
        held[0].shutdown(socket.SHUT_RDWR)
        eventually(lambda: relay.mailbox()["connections"] == 0, "its end was seen")


class Uncertain(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.add_rule(stage="dot", action="drop-after-store")
        self.outtray = self.relay(self.practice)

    def wait_state(self, state, count=1):
        eventually(lambda: [e["state"] for e in self.outtray.queue() if not e["in_flight"]].count(state) == count,
                   f"{count} are {state}")

    def test_each_loss_after_the_dot_waits_longer_and_the_last_is_held(self):
        """Every further copy may be one too many: in the end somebody has to look."""
        self.outtray.send()
        waits = []
        for copies in range(1, 20):
            self.assertTrue(self.practice.wait_stored(copies))
            entry = eventually(lambda n=copies: [e for e in self.outtray.queue() if e["attempts"] == n],
                               "the loss was recorded")[0]
            if entry["state"] == "held":
                break
            self.assertEqual(entry["state"], "uncertain")
            waits.append(entry["due_in"])
            self.outtray.advance(int(entry["due_in"]) + 1)
        self.assertEqual(self.outtray.queue()[0]["state"], "held")
        self.assertGreater(waits[1], 2 * waits[0])
        self.assertGreater(waits[2], 2 * waits[1])
        copies = len(self.practice.messages())
        self.assertLess(copies, 15)
        self.outtray.advance(24 * HOUR)
        time.sleep(0.5)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(len(self.practice.messages()), copies)
        self.practice.clear_rules()
        self.outtray.tool("retry", self.outtray.queue()[0]["id"])
        self.assertTrue(self.practice.wait_stored(copies + 1))
        self.outtray.wait_empty()

    def test_a_loss_after_the_dot_does_not_spread_to_the_whole_queue(self):
        self.practice.pause()
        for _ in range(10):
            self.outtray.send(message())
        eventually(lambda: self.outtray.mailbox()["state"] == "waiting", "the mailbox waits")
        self.practice.resume()
        self.outtray.api("POST", "/v1/mailbox/office/resume")
        self.wait_state("uncertain")
        time.sleep(1)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(len(self.practice.messages()), 1)
        self.assertEqual(self.outtray.mailbox()["state"], "waiting")
        self.wait_state("queued", 9)


if __name__ == "__main__":
    unittest.main()
