"""What the operator sees of devices: who sends, how, what went wrong, what was said, and who has gone quiet."""

import base64
import contextlib
import json
import re
import shutil
import socket
import sqlite3
import tempfile
import unittest

from harness import PRINTER, RECIPIENT, EndToEnd, eventually, message

COPIER, SCANNER, PROBE, ALARM = "127.9.0.1", "127.9.0.2", "127.9.0.3", "127.9.0.4"
PASSWORD = "Winter-2031-secret"
LOGIN = "someone-private"
DAY = 24 * 3600
UNAVAILABLE, MISSING, USAGE = 69, 66, 64  # exit codes
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Wire:
    """A device of bytes with an address of its own."""

    def __init__(self, relay, source):
        self.socket = socket.create_connection((relay.address, relay.port), timeout=30, source_address=(source, 0))
        self.file = self.socket.makefile("rb")
        self.hear(b"220 ")

    def hear(self, start):
        lines = []
        while not lines or lines[-1][3:4] == b"-":
            lines.append(self.file.readline())
            if not lines[-1]:
                break
        reply = b"".join(lines)
        if not reply.startswith(start):
            raise AssertionError(f"expected {start!r}, heard {reply!r}")
        return reply

    def say(self, octets, start):
        self.socket.sendall(octets)
        return self.hear(start)

    def send(self, data=None, helo=b"EHLO scanner\r\n"):
        """One mail as it should be."""
        self.say(helo, b"250")
        self.say(f"MAIL FROM:<{PRINTER}>\r\n".encode(), b"250")
        self.say(f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"250")
        self.say(b"DATA\r\n", b"354")
        self.say((data or message()) + b".\r\n", b"250")

    def close(self):
        self.file.close()
        self.socket.close()

    def quit(self):
        self.say(b"QUIT\r\n", b"221")
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def sends(relay, source, **values):
    with Wire(relay, source) as wire:
        wire.send(**values)
        wire.quit()


def sends_oddly(relay, source):
    """Commands that end in LF, no HELO, no angle brackets, a header without Date and Message-ID, no QUIT."""
    with Wire(relay, source) as wire:
        wire.say(f"MAIL FROM: {PRINTER}\n".encode(), b"250")
        wire.say(f"RCPT TO: {RECIPIENT}\n".encode(), b"250")
        wire.say(b"DATA\n", b"354")
        wire.say(b"From: <printer@office.test>\r\nSubject: Scan\r\n\r\nHere it is.\r\n.\r\n", b"250")


class Registry(EndToEnd):
    def started(self, practice=None):
        relay = self.relay(practice or self.upstream(), start=False)
        relay.set("device copier", address=COPIER, lane="urgent", max_size="5MB")
        relay.set("device alarm-panel", address=ALARM)
        return relay.start()

    def device(self, relay, name):
        return relay.json("device", name)

    def ended(self, relay, name, sessions=1):
        """What is told at the end of a session is there."""
        return eventually(lambda: (lambda d: d if d["sessions"] >= sessions and d["helo"] else None)(
            self.device(relay, name)), f"{name} has ended a session")

    def states(self, relay):
        return {d["name"]: d["state"] for d in relay.json("devices")["devices"]}


class WhatIsKnown(Registry):
    def test_devices_are_listed_with_what_they_did(self):
        relay = self.started()
        sends_oddly(relay, COPIER)
        sends(relay, SCANNER)
        sends(relay, SCANNER)
        Wire(relay, PROBE).quit()
        self.assertEqual(self.states(relay), {"copier": "ok", SCANNER: "ok", PROBE: "test", "alarm-panel": "never"})
        scanner = self.device(relay, SCANNER)
        self.assertEqual((scanner["messages"], scanner["sessions"], scanner["address"]), (2, 2, SCANNER))
        self.assertGreater(scanner["octets"], 100)
        text = relay.tool("devices").stdout.decode()
        lines = text.splitlines()
        self.assertEqual(lines[0].split(), ["NAME", "ADDRESS", "LAST", "MAIL", "MESSAGES", "STATE"])
        self.assertRegex(text, rf"(?m)^copier +{re.escape(COPIER)} +\d+ s ago +1  ok$")
        self.assertRegex(text, r"(?m)^alarm-panel +- +- +0  never seen$")
        self.assertRegex(text, rf"(?m)^{re.escape(PROBE)} .*  test only$")
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertEqual(lines[-1], "4 devices.")

    def test_quirks_come_with_words_and_what_to_do(self):
        relay = self.started()
        sends_oddly(relay, COPIER)
        copier = eventually(lambda: (lambda d: d if d["quirks"] else None)(self.device(relay, "copier")), "quirks")
        eventually(lambda: "no_quit" in {q["name"] for q in self.device(relay, "copier")["quirks"]},
                   "it has left without QUIT")
        copier = self.device(relay, "copier")
        names = {quirk["name"] for quirk in copier["quirks"]}
        self.assertLessEqual({"bare_lf_commands", "no_helo", "no_brackets", "no_date", "no_message_id"}, names)
        self.assertTrue(all(quirk["words"] for quirk in copier["quirks"]))
        self.assertEqual(copier["rules"]["lane"], "urgent")
        self.assertEqual(copier["rules"]["max_size"], 5 << 20)
        text = relay.tool("device", "copier").stdout.decode()
        self.assertIn("Quirk       no_date: ", text)
        self.assertRegex(text, r"(?m)^Rules +\[device copier\], address 127\.9\.0\.1")
        self.assertRegex(text, r"(?m)^Way +urgent lane of route default$")
        sends(relay, SCANNER)
        self.ended(relay, SCANNER)
        self.assertEqual([quirk["name"] for quirk in self.device(relay, SCANNER)["quirks"]], [])
        self.assertIn("no [device] section", relay.tool("device", SCANNER).stdout.decode())

    def test_quirks_of_the_newest_mail_are_told_apart(self):
        relay = self.started()
        sends_oddly(relay, COPIER)
        sends(relay, COPIER)
        self.ended(relay, "copier", 2)
        eventually(lambda: not any(q["newest"] for q in self.device(relay, "copier")["quirks"]), "the newest is fine")
        self.assertIn("(not in its newest mail)",
                      " ".join(relay.tool("device", "copier").stdout.decode().split()))

    def test_trouble_stands_first_and_goes_with_the_next_mail(self):
        relay = self.started()
        relay.stop()
        relay.set("devices", recipient_domains="office.test").start()
        sends(relay, COPIER)
        with Wire(relay, SCANNER) as wire:
            wire.say(b"EHLO scanner\r\n", b"250")
            wire.say(f"MAIL FROM:<{PRINTER}>\r\n".encode(), b"250")
            wire.say(b"RCPT TO:<boss@elsewhere.test>\r\n", b"5")
            wire.quit()
        self.assertEqual(self.states(relay)[SCANNER], "trouble")
        text = relay.tool("devices").stdout.decode()
        self.assertRegex(text.splitlines()[1], rf"^{re.escape(SCANNER)} .*  trouble$")
        self.assertRegex(text.splitlines()[2], r"^    \d+ s ago: 55\d 5\.")
        self.assertIn("1 of them needs attention", text)
        self.assertEqual(self.device(relay, SCANNER)["refused"], 1)
        sends(relay, SCANNER)
        self.assertEqual(self.states(relay)[SCANNER], "ok")

    def test_a_device_that_goes_quiet_is_told_of(self):
        """Mail every day for three weeks, then none for nine days."""
        relay = self.started()
        for _ in range(21):
            sends(relay, COPIER)
            relay.wait_empty()
            relay.advance(DAY)
        self.assertEqual(relay.tool("status").returncode, 0)
        relay.advance(8 * DAY)
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, 1)
        text = " ".join(done.stdout.decode().split())
        self.assertRegex(text, r"device copier has sent nothing for 9 days; its longest usual silence is \d+ (hours|days)")
        self.assertIn('"outtray device copier --forget"', text)
        self.assertEqual(relay.status()["devices"], {"known": 1, "quiet": 1})
        self.assertEqual(self.states(relay)["copier"], "quiet")
        self.assertIn("gone quiet: nothing for 9 d", relay.tool("device", "copier").stdout.decode())
        sends(relay, COPIER)
        self.assertEqual(relay.tool("status").returncode, 0)

    def test_an_unknown_name_is_answered_with_the_one_that_was_meant(self):
        relay = self.started()
        for name, meant in (("copyer", "copier"), (ALARM, "alarm-panel")):
            done = relay.tool("device", name, check=False)
            self.assertEqual(done.returncode, MISSING)
            self.assertIn(f'did you mean "{meant}"?', done.stderr.decode())
        self.assertEqual(relay.tool("device", "copier", "--forget", check=False).returncode, MISSING)
        self.assertEqual(relay.tool("device", "copier", "--forget", "--transcript", check=False).returncode, USAGE)
        self.assertEqual(relay.tool("devices", "--forget", check=False).returncode, USAGE)

    def test_long_lists_come_in_pages(self):
        relay = self.started()
        for number in range(7):
            Wire(relay, f"127.9.1.{number}").quit()
        names, path = [], "/v1/devices?limit=2"
        while path:
            status, page = relay.api("GET", path)
            self.assertEqual(status, 200)
            names += [device["name"] for device in page["devices"]]
            path = page.get("next") and f"/v1/devices?limit=2&after={page['next']}"
        self.assertEqual(names, sorted([*(f"127.9.1.{number}" for number in range(7)), "alarm-panel", "copier"]))

    def test_what_a_device_says_cannot_drive_the_terminal(self):
        relay = self.started()
        with Wire(relay, COPIER) as wire:
            wire.say(b"EHLO \x1b[2Jevil\x07\r\n", b"5")
            wire.say(b"\x1b]0;title\x07\r\n", b"5")
            wire.send(helo=b"EHLO \x9b2J\xc2\x9b2Jevil\r\n")
            wire.quit()
        self.ended(relay, "copier")
        for arguments in (("devices",), ("device", "copier"), ("device", "copier", "--transcript")):
            self.assertIsNone(CONTROL.search(relay.tool(*arguments).stdout.decode()), arguments)
        self.assertIn(b"EHLO \\x9B2J", relay.tool("device", "copier", "--transcript").stdout)


class WhatWasSaid(Registry):
    def signs_in(self, relay, source):
        """In every way that ends up with a secret on the wire, also as a command."""
        with Wire(relay, source) as wire:
            wire.say(b"EHLO scanner\r\n", b"250")
            wire.say(b"AUTH LOGIN\r\n", b"334")
            wire.say(base64.b64encode(LOGIN.encode()) + b"\r\n", b"334")
            wire.say(base64.b64encode(PASSWORD.encode()) + b"\r\n", b"535")
            wire.say(b"AUTH PLAIN " + base64.b64encode(f"\0{LOGIN}\0{PASSWORD}".encode()) + b"\r\n", b"535")
            wire.say(base64.b64encode(PASSWORD.encode()) + b"\r\n", b"5")
            wire.say(PASSWORD.encode() + b"\r\n", b"5")
            wire.quit()

    def secrets(self):
        plain = base64.b64encode(f"\0{LOGIN}\0{PASSWORD}".encode())
        return (PASSWORD.encode(), LOGIN.encode(), base64.b64encode(PASSWORD.encode()),
                base64.b64encode(LOGIN.encode()), plain)

    def database(self, relay):
        return b"".join(path.read_bytes() for path in sorted(relay.spool.glob("devices.db*")))

    def test_transcripts_are_kept_the_newest_last_and_only_some(self):
        relay = self.started()
        for number in range(7):
            sends(relay, COPIER, helo=f"EHLO copier-{number}\r\n".encode())
            self.ended(relay, "copier", number + 1)
        kept = eventually(lambda: (lambda t: t if len(t) == 5 and "copier-6" in t[0]["text"] else None)(
            relay.json("device", "copier", "--transcript")["transcripts"]), "five are kept")
        self.assertIn("copier-2", kept[-1]["text"])
        text = relay.tool("device", "copier", "--transcript").stdout.decode()
        self.assertEqual(re.findall(r">> EHLO (copier-\d)", text), [f"copier-{number}" for number in range(2, 7)])
        self.assertRegex(text, r"(?m)^ +\d+\.\d{3} << 220 ")
        self.assertRegex(text, r"(?m)octets of mail data")
        self.assertNotIn("scan attached", text)

    def test_no_secret_is_in_transcript_database_or_log(self):
        relay = self.started()
        relay.stop()
        relay.set("listener main", auth="optional")
        relay.start()
        self.signs_in(relay, SCANNER)
        shown = eventually(lambda: relay.json("device", SCANNER, "--transcript")["transcripts"], "it is kept")
        everything = json.dumps(shown).encode() + relay.tool("device", SCANNER, "--transcript").stdout
        everything += relay.tool("device", SCANNER).stdout
        self.assertIn(b"AUTH LOGIN", everything)
        relay.stop()
        stored = self.database(relay)
        self.assertIn(SCANNER.encode(), stored)
        self.assertIn(b"AUTH LOGIN", stored)
        everything += stored + relay.log_file.read_bytes()
        for secret in self.secrets():
            self.assertNotIn(secret, everything)

    def test_what_is_known_outlives_a_restart_and_a_crash(self):
        relay = self.started()
        sends_oddly(relay, COPIER)
        sends(relay, SCANNER)
        self.ended(relay, SCANNER)
        eventually(lambda: self.device(relay, "copier")["quirk_count"] > 0, "the quirks are known")
        before = self.device(relay, "copier")
        relay.restart()
        after = self.device(relay, "copier")
        for key in ("first_seen", "messages", "octets", "address", "sessions"):
            self.assertEqual(before[key], after[key], key)
        self.assertLessEqual({q["name"] for q in before["quirks"]}, {q["name"] for q in after["quirks"]})
        self.assertEqual(len(relay.json("device", SCANNER, "--transcript")["transcripts"]), 1)
        sends(relay, COPIER)
        self.ended(relay, "copier", 2)
        eventually(lambda: relay.advance(11) or self.stored_messages(relay, "copier") == 2, "it is written")
        relay.kill()
        relay.start()
        self.assertEqual(self.device(relay, "copier")["messages"], 2)

    def stored_messages(self, relay, name):
        """As a start after a crash would read it; a write may be half done."""
        with tempfile.TemporaryDirectory() as copy:
            for file in relay.spool.glob("devices.db*"):
                shutil.copy(file, copy)
            with contextlib.closing(sqlite3.connect(f"{copy}/devices.db")) as database:
                row = database.execute("SELECT messages FROM devices WHERE name = ?", (name,)).fetchone()
        return row[0] if row else 0

    def test_what_is_forgotten_stays_so(self):
        relay = self.started()
        sends(relay, COPIER)
        sends(relay, SCANNER)
        self.ended(relay, SCANNER)
        said = relay.tool("device", SCANNER, "--forget").stdout.decode()
        self.assertIn("is forgotten", said)
        relay.wait_event("forgotten", device=SCANNER, by="operator")
        self.assertEqual(relay.tool("device", SCANNER, check=False).returncode, MISSING)
        self.assertTrue(relay.json("device", "copier", "--forget")["forgotten"])
        self.assertEqual(self.states(relay), {"copier": "never", "alarm-panel": "never"})
        relay.restart()
        self.assertEqual(self.states(relay), {"copier": "never", "alarm-panel": "never"})
        sends(relay, SCANNER)
        self.assertEqual(self.device(relay, SCANNER)["messages"], 1)

    def test_a_damaged_database_costs_no_mail(self):
        practice = self.upstream()
        relay = self.started(practice)
        sends(relay, COPIER)
        relay.stop()
        for path in relay.spool.glob("devices.db*"):
            path.write_bytes(b"this is no database" * 1000)
        relay.start()
        sends(relay, COPIER)
        self.assertTrue(practice.wait_stored(2))
        self.assertEqual(self.device(relay, "copier")["messages"], 1)


class WithoutTheDaemon(Registry):
    def test_the_commands_say_that_they_need_it(self):
        relay = self.started()
        relay.stop()
        for arguments in (("devices",), ("device", "copier"), ("device", "copier", "--transcript"),
                          ("device", "copier", "--forget")):
            done = relay.tool(*arguments, check=False)
            self.assertEqual(done.returncode, UNAVAILABLE, arguments)
            self.assertIn("only the running daemon", done.stderr.decode())
            self.assertEqual(done.stdout, b"")


if __name__ == "__main__":
    unittest.main()
