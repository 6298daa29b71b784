"""No false end of data gets through: one message in, one message out, and nothing on the wire that could be taken
for another. On the octets that leave, and with Postfix as the judge."""

import re
import unittest

from harness import EndToEnd, eventually, expect, message_id_of
from postfix import Postfix, Unavailable
from smuggling import COUNTED, FORGED, VARIANTS, VICTIM, Attacker, with_variant, with_variant_in_the_header
from test_upstream_misbehaves import ScriptedUpstream

FAR = 70_000  # behind what a session and the spool hold of small mail


class Recorder(ScriptedUpstream):
    """Keeps mail data as it came, up to CR LF . CR LF, and the commands."""

    def __init__(self, directory):
        super().__init__(directory, self.play)
        self.mail, self.commands = [], []

    def play(self, wire):
        wire.say("235 2.7.0 signed in")
        while True:
            command = wire.line()
            self.commands.append(command)
            if command == b"DATA\r\n":
                wire.say("354 go on")
                self.mail.append(self.data(wire))
            wire.say("250 2.0.0 done")

    @staticmethod
    def data(wire):
        octets = b"\r\n"
        while not octets.endswith(b"\r\n.\r\n"):
            octets += wire.line()
        return octets


class OnTheWire(EndToEnd):
    def setUp(self):
        super().setUp()
        self.recorder = Recorder(self.directory)
        self.addCleanup(self.recorder.stop)
        self.outtray = self.relay(None, start=False)
        self.outtray.set("mailbox office", port=self.recorder.port, ca_file=self.recorder.ca).start()

    def assert_clean(self, octets):
        """All but the first CR LF, which is of the DATA command."""
        self.assertIsNone(re.search(rb"(?<!\r)\n|\r(?!\n)|\0", octets), "bare LF, bare CR or NUL")
        lines = octets[2:].split(b"\r\n")
        self.assertEqual(lines[-2:], [b".", b""])
        bad = [line for line in lines[:-2] if line.startswith(b".") and not line.startswith(b"..")]
        self.assertEqual(bad, [], "lines with a dot in front that is not stuffed")

    def hand_in(self, messages, transport="DATA", refused=()):
        """Returns what was accepted."""
        with Attacker(self.outtray) as attacker:
            for name, octets in messages.items():
                with self.subTest(name, transport=transport):
                    expect(attacker.hand_in(octets, transport), 554 if name in refused else 250)
        return {name: octets for name, octets in messages.items() if name not in refused}

    def check(self, messages, **how):
        accepted = self.hand_in(messages, **how)
        self.outtray.wait_empty()
        self.assertEqual(len(self.recorder.mail), len(accepted))
        arrived = {message_id_of(octets): octets for octets in self.recorder.mail}
        for name, octets in accepted.items():
            with self.subTest(name, **how):
                left = arrived[message_id_of(octets)]
                self.assert_clean(left)
                for address in (FORGED.encode(), VICTIM.encode()):
                    self.assertEqual(left.count(address), octets.count(address))
        said = b"".join(self.recorder.commands)
        self.assertNotIn(FORGED.encode(), said)
        self.assertNotIn(VICTIM.encode(), said)

    def test_in_the_body(self):
        self.check({name: with_variant(variant, name) for name, variant in VARIANTS.items()})

    def test_far_behind(self):
        self.check({name: with_variant(variant, name, FAR) for name, variant in VARIANTS.items()})

    def test_in_the_header(self):
        """Where a lone CR is no line end that could be mended."""
        self.check({name: with_variant_in_the_header(variant, name) for name, variant in VARIANTS.items()},
                   refused=("CR . CR", "CR . LF", "CR . CR LF", "CR NUL LF . CR LF"))

    def test_in_chunks(self):
        self.check({name: with_variant(variant, name) for name, variant in {**VARIANTS, **COUNTED}.items()},
                   transport="BDAT")


class Judge(EndToEnd):
    """A real server as the upstream."""

    def judge(self, server):
        server.start()
        self.addCleanup(server.stop)
        relay = self.relay(None, start=False)
        relay.set("mailbox office", provider="custom", port=server.port, ca_file=server.ca).start()
        sent = {}
        with Attacker(relay) as attacker:
            for transport, variants in (("DATA", VARIANTS), ("BDAT", {**VARIANTS, **COUNTED})):
                for name, variant in variants.items():
                    sent[(name, transport)] = with_variant(variant, f"{name} {transport}")
                    expect(attacker.hand_in(sent[(name, transport)], transport), 250)
        relay.wait_empty(60)
        try:
            eventually(lambda: len(server.delivered()) >= len(sent), "all have been delivered", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.log()[-4000:]}") from None
        self.assert_one_each(sent, server.delivered())

    def assert_one_each(self, sent, delivered):
        """Each message once, with the commands as its text, for whom it was meant."""
        self.assertEqual(len(delivered), len(sent))
        arrived = {message_id_of(octets): octets for octets in delivered}
        for (name, transport), octets in sent.items():
            with self.subTest(name, transport=transport):
                text = arrived[message_id_of(octets)]
                self.assertIn(f"smuggled {name} {transport}\n".encode(), text)
                self.assertIn(f"RCPT TO:<{VICTIM}>\nDATA\n".encode(), text)
                head = text.split(b"\n\n", 1)[0]
                self.assertNotIn(VICTIM.encode(), head)
                self.assertNotIn(FORGED.encode(), head)


class WithPostfix(Judge):
    def test_postfix_counts_one_message_for_each(self):
        try:
            server = Postfix(self.directory)
        except Unavailable as error:
            self.skipTest(f"no Postfix: {error}")
        self.judge(server)


if __name__ == "__main__":
    unittest.main()
