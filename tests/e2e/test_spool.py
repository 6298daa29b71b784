"""outtray spool: check, stats and export, with the daemon and without, on a spool that is well and one that is not."""

import unittest

from harness import PRINTER, RECIPIENT, EndToEnd, eventually, lines_of_base64, message, without_trace

EX_OK, EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_CANTCREAT = 0, 64, 65, 69, 73
ATTENTION = 1
SMALL, LARGE = b"these octets stand in the journal", b"these octets stand in a body of their own"


class Spool(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.pause()
        self.outtray = self.relay(self.practice)

    def fill(self):
        """A small message, a large one, and one that is left alone."""
        mails = [message(body=SMALL + b"\r\n"), message(body=lines_of_base64(300_000) + LARGE + b"\r\n"), message()]
        for data in mails:
            self.outtray.send(data)
        eventually(lambda: not any(entry["in_flight"] for entry in self.outtray.queue()), "nothing is being sent")
        return mails, [entry["id"] for entry in self.outtray.queue()]

    def run_tool(self, *arguments):
        done = self.outtray.tool("spool", *arguments, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def damage(self, where, mark):
        """Below the daemon, as a bad disk does."""
        for file in (self.outtray.spool / where).iterdir():
            at = file.read_bytes().find(mark)
            if at >= 0:
                with open(file, "r+b") as opened:
                    opened.seek(at)
                    opened.write(b"T")
                return
        self.fail(f"{mark} is not in {where}")

    def ways(self):
        """With the daemon, then without."""
        yield "online"
        self.outtray.stop()
        yield "offline"

    def test_a_spool_that_is_well(self):
        mails, ids = self.fill()
        for way in self.ways():
            with self.subTest(way):
                code, out, _ = self.run_tool("check")
                self.assertEqual(code, EX_OK, out)
                self.assertIn("everything verifies", out)
                answer = self.outtray.json("spool", "check")
                self.assertEqual((answer["bodies"], answer["bad"], answer["damage"]), (1, 0, []))
                self.assertGreaterEqual(answer["segments"], 1)
                self.assertGreater(answer["octets"], 300_000)
                stats = self.outtray.json("spool", "stats")
                self.assertEqual((stats["queued"], stats["bodies"], stats["lanes"]["normal"]), (3, 1, 3))
                self.assertGreater(stats["disk_bytes"], stats["living_bytes"])
                self.assertIn("3 waiting", self.run_tool("stats")[1])
                directory = self.directory / f"saved-{way}"
                code, out, _ = self.run_tool("export", directory)
                self.assertEqual(code, EX_OK, out)
                self.assertIn("Saved 3 messages", out)
                for data, message_id in zip(mails, ids):
                    saved = (directory / f"{message_id}.eml").read_bytes()
                    self.assertEqual(without_trace(saved)[0], data)
                    envelope = (directory / f"{message_id}.txt").read_text(encoding="utf-8")
                    for word in (f"<{PRINTER}>", f"<{RECIPIENT}> pending", message_id):
                        self.assertIn(word, envelope)

    def test_export_writes_over_nothing(self):
        _, ids = self.fill()
        directory = self.directory / "saved"
        directory.mkdir()
        precious = directory / f"{ids[0]}.eml"
        precious.write_bytes(b"precious")
        code, out, err = self.run_tool("export", directory)
        self.assertEqual(code, EX_CANTCREAT, out)
        self.assertIn(f"{precious} is there already", err)
        self.assertEqual(precious.read_bytes(), b"precious")
        self.assertTrue((directory / f"{ids[1]}.eml").exists())
        (self.directory / "file").write_bytes(b"")
        self.assertEqual(self.run_tool("export", self.directory / "file")[0], EX_CANTCREAT)

    def test_damage_is_found_counted_shown_and_saved_as_far_as_it_can_be_read(self):
        for way in ("online", "offline"):
            with self.subTest(way):
                self.outtray = self.relay(self.practice)
                mails, ids = self.fill()
                if way == "offline":
                    self.outtray.stop()
                self.damage("journal", SMALL)
                self.damage("content", LARGE[:20])
                code, out, _ = self.run_tool("check")
                self.assertEqual(code, EX_DATAERR, out)
                for word in (f"message {ids[0]}", f"message {ids[1]}", "2 places do not verify",
                             f"Messages that are hit: {ids[0]}, {ids[1]}."):
                    self.assertIn(word, out)
                answer = self.run_tool("check", "--json")
                self.assertEqual(answer[0], EX_DATAERR)
                self.assert_saved(mails, ids, self.directory / f"saved-{way}")
                if way == "online":
                    self.assert_shown(ids)

    def assert_saved(self, mails, ids, directory):
        code, out, _ = self.run_tool("export", directory)
        self.assertEqual(code, EX_DATAERR, out)
        self.assertIn("2 of them are damaged", out)
        whole = (directory / f"{ids[2]}.eml").read_bytes()
        self.assertEqual(without_trace(whole)[0], mails[2])
        for number in (0, 1):
            saved = without_trace((directory / f"{ids[number]}.damaged.eml").read_bytes())[0]
            self.assertEqual(len(saved), len(mails[number]))
            self.assertEqual(sum(a != b for a, b in zip(saved, mails[number])), 1)
            self.assertFalse((directory / f"{ids[number]}.eml").exists())
            self.assertIn("Damaged:", (directory / f"{ids[number]}.txt").read_text(encoding="utf-8"))

    def assert_shown(self, ids):
        states = {entry["id"]: (entry["state"], entry["damaged"]) for entry in self.outtray.queue()}
        self.assertEqual(states, {ids[0]: ("held", True), ids[1]: ("held", True), ids[2]: ("queued", False)})
        done = self.outtray.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION)
        self.assertIn(b"2 messages are damaged on the disk", done.stdout)
        self.outtray.wait_event("damage-found", count=2)

    def test_the_rest_is_served_and_what_was_set_aside_is_saved(self):
        mails, ids = self.fill()
        self.outtray.kill()
        segment = next((self.outtray.spool / "journal").glob("0*.seg"))
        at = segment.read_bytes().find(SMALL)
        start = segment.read_bytes().rfind(segment.read_bytes()[4096:4104], 0, at)
        with open(segment, "r+b") as file:
            file.seek(start + 32)  # in a length field
            file.write(b"\xff")
        self.outtray.start()
        self.assertEqual(self.outtray.events("spool-open")[0]["damaged"], "1")
        self.assertEqual([entry["id"] for entry in self.outtray.queue()], ids[1:])
        done = self.outtray.tool("status", check=False)
        self.assertIn(b"damage was found in the spool at the last start (1 place)", done.stdout)
        directory = self.directory / "saved"
        code, out, _ = self.run_tool("export", directory)
        self.assertEqual(code, EX_DATAERR, out)
        aside = [file.read_bytes() for file in (directory / "set-aside").iterdir()]
        self.assertEqual(len(aside), 1)
        self.assertIn(SMALL, aside[0])
        self.practice.resume()
        self.outtray.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(self.practice.wait_stored(2))
        for data in mails[1:]:
            self.assert_arrived(self.practice, data)

    def test_the_command_line(self):
        for words in ((), ("nonsense",), ("check", "more"), ("export",), ("stats", "more")):
            self.assertEqual(self.run_tool(*words)[0], EX_USAGE, words)
        self.assertIn(b"spool export DIR", self.outtray.tool("help", "spool").stdout)
        self.assertEqual(self.outtray.api("POST", "/v1/spool/check?after=nonsense")[0], 400)


if __name__ == "__main__":
    unittest.main()
