"""Mistakes are told all at once, and the samples work."""

import subprocess
import unittest

from harness import BIN, MAILBOX, PASSWORD, PRINTER, ROOT, EndToEnd, message

EX_USAGE, EX_OSERR, EX_CONFIG = 64, 71, 78

WRONG = """\
[relay]
hostnam = relay.office.test
spool = relative/path
stop_time = 5 parsecs

[listener main]
port = 99999

[mailbox office]
adress = scans@example.com
connections = 0

[devcie copier]
address = 192.168.1.20
"""
MISTAKES = ((2, "hostname"), (3, "absolute"), (4, "5m"), (7, "65535"), (10, "did you mean address"),
            (11, "100"), (13, "[device"))


class Mistakes(EndToEnd):
    def run_with(self, program, text, *arguments):
        file = self.directory / "outtray.conf"
        file.write_text(text, encoding="utf-8")
        return file, subprocess.run([BIN / program, *arguments, "-c", file], capture_output=True,
                                    timeout=60, check=False)

    def test_all_are_told_at_once_by_both_programs(self):
        for program, arguments in (("outtrayd", []), ("outtray", ["check"])):
            with self.subTest(program=program):
                file, done = self.run_with(program, WRONG, *arguments)
                self.assertEqual(done.returncode, EX_CONFIG)
                words = (done.stdout + done.stderr).decode()
                for line, word in MISTAKES:
                    found = [text for text in words.splitlines() if text.startswith(f"{file}:{line}: ")]
                    self.assertEqual(len(found), 1, words)
                    self.assertIn(word, found[0])

    def test_a_line_longer_than_any_buffer(self):
        long = "192.168.1.1, " * 400
        file, done = self.run_with("outtrayd", f"[devices]\nallow = {long}\n")
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn(f"{file}:2: ", done.stderr.decode())

    def test_missing_file(self):
        done = subprocess.run([BIN / "outtrayd", "-c", self.directory / "none.conf"], capture_output=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn(b"none.conf", done.stderr)

    def test_command_line(self):
        for arguments, code in ((["--version"], 0), (["--help"], 0), (["--nonsense"], EX_USAGE),
                                (["word"], EX_USAGE), (["--check"], EX_USAGE)):
            with self.subTest(arguments=arguments):
                done = subprocess.run([BIN / "outtrayd", *arguments], capture_output=True, timeout=60,
                                      check=False)
                self.assertEqual(done.returncode, code)
                self.assertTrue(done.stdout if code == 0 else done.stderr)

    def test_check_finds_a_missing_password(self):
        relay = self.relay(self.upstream())
        self.assertEqual(relay.tool("check").returncode, 0)
        (relay.directory / "password").unlink()
        done = relay.tool("check", check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn(str(relay.directory / "password").encode(), done.stderr)
        self.assertIn(b"1 problem to mend.", done.stderr)

    def test_check_finds_a_password_of_two_lines(self):
        relay = self.relay(self.upstream())
        file = relay.directory / "password"
        file.write_text(f"\ufeff{PASSWORD}\r\n", encoding="utf-8")
        self.assertEqual(relay.tool("check").returncode, 0)
        file.write_text(f"{PASSWORD}\nand more\n", encoding="utf-8")
        done = relay.tool("check", check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn(b"it holds more than one line", done.stderr)

    def test_a_missing_password_is_told_at_the_start_and_by_status(self):
        relay = self.relay(self.upstream(), start=False)
        file = relay.directory / "password"
        file.unlink()
        relay.start()
        event = relay.wait_event("secret-missing", mailbox="office")
        self.assertIn(str(file), event["reason"])
        relay.send()
        relay.wait_event("mailbox-trouble", mailbox="office")
        self.assertIn(f"{file}: there is no such file", relay.status()["problems"][0]["what"])

    def test_check_tells_what_is_surely_a_slip(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("relay", spool_max="10M").set("devices", max_size="35", passwords="/nonexistent/passwords")
        relay.set("notify pager", command="/nonexistent/tell")
        relay.config_file.write_text(relay.config_text(), encoding="utf-8")
        done = relay.tool("check", check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        words = done.stderr.decode()
        for word in ("[devices] max_size is 35 B", "spool_max is 10 MB", "passwords of devices: /nonexistent/passwords",
                     "[notify pager] command: /nonexistent/tell", "2 problems to mend."):
            self.assertIn(word, words)
        self.assertRegex(words, rf"{relay.config_file}:\d+: \[notify pager\]")

    def test_a_spool_in_use_names_the_process(self):
        first = self.relay(None)
        second = self.relay(None, start=False)
        second.set("relay", spool=first.spool).start(wait=False)
        second.wait_end()
        self.assertRegex("\n".join(second.lines), r"is in use by (process \d+|another process, .*); stop that first")

    def test_a_port_that_is_taken_says_which(self):
        first = self.relay(None)
        second = self.relay(None, start=False)
        second.address = first.address
        second.set("listener main", address=first.address).start(wait=False)
        self.assertEqual(second.wait_end(), EX_OSERR)
        self.assertIn("another program listens there", second.lines[-1] + second.lines[-2])

    def test_secrets_are_never_logged(self):
        practice = self.upstream()
        relay = self.relay(practice)
        relay.send()
        self.assertTrue(practice.wait_stored(1))
        relay.stop()
        text = "\n".join(relay.lines)
        self.assertNotIn(PASSWORD, text)
        self.assertNotIn("cHJhY3RpY2UtcGFzc3dvcmQ", text)  # the same in base64


class Samples(EndToEnd):
    def sections_of(self, text):
        sections, keys = {}, {}
        for line in text.splitlines():
            line = line.strip()
            if line.startswith("["):
                keys = sections.setdefault(line.strip("[]"), {})
            elif line and line[0] not in "#;":
                key, _, value = line.partition("=")
                keys[key.strip()] = value.strip()
        return sections

    def test_the_smallest_one_delivers(self):
        """Only addresses, port and paths are replaced by those of the test; no key is added to its sections
        that is not needed for that."""
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        ours = relay.sections
        sample = self.sections_of((ROOT / "conf" / "examples" / "smallest.conf").read_text("utf-8"))
        self.assertEqual(sorted(section.split()[0] for section in sample), ["listener", "mailbox"])
        for section, keys in sample.items():
            place = {key: ours[mine][key] for mine in ours if mine.split()[0] == section.split()[0]
                     for key in ("address", "port", "password_file", "host", "ca_file") if key in ours[mine]}
            keys.update(place)
        sample["relay"] = {"user": "", "spool": relay.spool}
        sample["api"] = {"socket": relay.socket}
        relay.sections = sample
        relay.start()
        data = relay.send(message().replace(PRINTER.encode(), MAILBOX.encode()))
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, data)
        self.assertEqual(practice.messages()[0]["mailbox"], MAILBOX)

    def test_the_full_one_is_all_comments_but_sections(self):
        text = (ROOT / "conf" / "outtray.conf").read_text("utf-8")
        for section, keys in self.sections_of(text).items():
            self.assertEqual(keys, {}, f"[{section}]")

    def test_environment_and_credential_take_the_place_of_a_password_file(self):
        practice = self.upstream()
        credentials = self.directory / "credentials"
        credentials.mkdir()
        (credentials / "office.password").write_text(PASSWORD, encoding="ascii")
        (credentials / "office.password").chmod(0o600)
        for count, (variable, value) in enumerate((("OUTTRAY_PASSWORD_OFFICE", PASSWORD),
                                                   ("CREDENTIALS_DIRECTORY", str(credentials))), 1):
            with self.subTest(variable=variable):
                relay = self.relay(practice, start=False)
                relay.set("mailbox office", password_file=None)
                relay.environment = {variable: value}
                relay.start()
                data = relay.send()
                self.assertTrue(practice.wait_stored(count))
                self.assert_arrived(practice, data)


if __name__ == "__main__":
    unittest.main()
