"""The outtray command: with the daemon, and on the spool of one that is down."""

import email
import json
import os
import smtplib
import subprocess
import unittest

from harness import PRINTER, RECIPIENT, EndToEnd, eventually, lines_of_base64, message, without_trace

EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_CANTCREAT, EX_TEMPFAIL, EX_CONFIG = (
    0, 64, 65, 66, 69, 73, 75, 78)
ATTENTION = 1
NOBODY = 65534


class WithTheDaemon(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.pause()
        self.outtray = self.relay(self.practice)

    def text(self, *arguments):
        return self.outtray.tool(*arguments).stdout.decode()

    def code(self, *arguments):
        return self.outtray.tool(*arguments, check=False).returncode

    def only(self):
        return self.outtray.queue()[0]["id"]

    def test_status_of_a_new_relay(self):
        status = self.outtray.json("status")
        self.assertEqual(status["state"], "ok")
        self.assertEqual(status["pid"], self.outtray.process.pid)
        self.assertEqual(status["queue"]["queued"], 0)
        self.assertEqual([box["name"] for box in status["mailboxes"]], ["office"])
        self.assertIn("Outtray is working", self.text("status"))
        self.assertIn(RECIPIENT.split("@")[1], self.text("status"))

    def test_queue_and_show(self):
        data = self.outtray.send(message(subject="Scan from the 2nd floor"))
        entry = self.outtray.json("queue")["messages"][0]
        self.assertEqual((entry["sender"], entry["subject"]), (PRINTER, "Scan from the 2nd floor"))
        self.assertEqual(entry["recipients"][0]["path"], RECIPIENT)
        self.assertGreaterEqual(entry["size"], len(data))
        shown = self.outtray.json("show", entry["id"])
        self.assertEqual(shown["message_id"], email.message_from_bytes(data)["Message-ID"])
        self.assertEqual(shown["listener"], "main")
        for text in (self.text("queue"), self.text("show", entry["id"])):
            for word in (entry["id"], RECIPIENT, PRINTER):
                self.assertIn(word, text)

    def test_long_queue_comes_whole(self):
        count = 750
        with smtplib.SMTP(self.outtray.address, self.outtray.port, timeout=60) as device:
            for number in range(count):
                device.sendmail(PRINTER, [RECIPIENT], message(subject=str(number)))
        listed = self.outtray.json("queue", "--all")["messages"]
        self.assertEqual(len({entry["id"] for entry in listed}), count)
        lines = self.text("queue", "--all").splitlines()
        self.assertEqual(len([line for line in lines if RECIPIENT in line]), count)
        self.assertIn(str(count), self.text("queue"))

    def test_export_is_what_was_accepted(self):
        for body in (b"small\r\n", lines_of_base64(3 << 20)):
            with self.subTest(size=len(body)):
                data = self.outtray.send(message(body=body))
                message_id = self.outtray.queue()[-1]["id"]
                exported = self.outtray.tool("export", message_id).stdout
                self.assertEqual(without_trace(exported)[0], data)
                file = self.directory / "out.eml"
                file.unlink(missing_ok=True)
                done = self.outtray.tool("export", message_id, "-o", file)
                self.assertEqual(file.read_bytes(), exported)
                self.assertIn(f"Wrote {file}: ".encode(), done.stderr)

    def test_export_writes_over_nothing_unless_it_is_told_to(self):
        self.outtray.send()
        file = self.directory / "out.eml"
        file.write_bytes(b"precious")
        done = self.outtray.tool("export", self.only(), "-o", file, check=False)
        self.assertEqual(done.returncode, EX_CANTCREAT)
        self.assertIn(b"--force", done.stderr)
        self.assertEqual(file.read_bytes(), b"precious")
        self.outtray.tool("export", self.only(), "-o", file, "--force")
        self.assertEqual(file.read_bytes(), self.outtray.tool("export", self.only()).stdout)

    def test_delete(self):
        self.outtray.send()
        self.outtray.tool("delete", self.only())
        self.assertEqual(self.outtray.queue(), [])
        self.outtray.restart()
        self.assertEqual(self.outtray.queue(), [])

    def test_retry_all_and_resume(self):
        for _ in range(3):
            self.outtray.send()
        eventually(lambda: self.outtray.mailbox()["state"] == "waiting", "the mailbox waits")
        self.practice.resume()
        self.text("retry", "--all")
        self.text("resume", "office")
        self.assertTrue(self.practice.wait_stored(3))
        self.outtray.wait_empty()

    def test_what_waits_for_its_mailbox_says_so(self):
        self.outtray.send()
        eventually(lambda: self.outtray.mailbox()["state"] == "waiting", "the mailbox waits")
        entry = self.outtray.queue()[0]
        self.assertEqual(entry["waits_for"], "mailbox office")
        self.assertEqual(entry["waits_why"], self.outtray.mailbox()["problem"])
        self.assertLessEqual(entry["due_in"], self.outtray.mailbox()["next_try_in"] + 1)
        self.assertIn("waits for mailbox office: ", self.text("queue"))
        self.assertIn("Waits for   mailbox office: ", self.text("show", entry["id"]))

    def test_what_exceeds_the_minute_says_so(self):
        self.practice.resume()
        busy = self.relay(self.practice, start=False)
        busy.set("mailbox office", messages_per_minute=1).start()
        busy.send()
        self.assertTrue(self.practice.wait_stored(1))
        busy.send()
        eventually(lambda: [entry for entry in busy.queue() if not entry["in_flight"]], "one waits")
        entry = busy.queue()[0]
        self.assertEqual((entry["waits_for"], entry["waits_why"]),
                         ("mailbox office", "the limit of 1 message a minute"))
        self.assertGreater(entry["due_in"], 30)

    def test_what_the_operator_does_is_in_the_log(self):
        self.outtray.send()
        message_id = self.only()
        eventually(lambda: not self.outtray.queue()[0]["in_flight"], "the message waits")
        self.outtray.tool("retry", message_id)
        self.outtray.tool("resume", "office")
        eventually(lambda: self.code("delete", message_id) == EX_OK, "the message is deleted")
        for event, fields in (("retried", {"queue": message_id}), ("deleted", {"queue": message_id}),
                              ("resumed", {"mailbox": "office"})):
            self.outtray.wait_event(event, by="operator", **fields)

    def test_help_on_a_command_and_the_nearest_command(self):
        self.assertIn("--force", self.text("help", "export"))
        self.assertEqual(self.text("export", "--help"), self.text("help", "export"))
        done = self.outtray.tool("qeue", check=False)
        self.assertEqual(done.returncode, EX_USAGE)
        self.assertIn(b'did you mean "queue"', done.stderr)
        self.assertIn(b"show needs a message id", self.outtray.tool("show", check=False).stderr)
        self.assertEqual(self.code("help", "nonsense"), EX_USAGE)
        self.assertEqual(self.code("queue", "--force"), EX_USAGE)

    def test_errors_are_json_where_json_is_asked_for(self):
        for arguments, kind in ((["show", "4711"], "missing"), (["show", "x"], "invalid"),
                                (["show"], "invalid"), (["delete", "4711"], "missing"),
                                (["export", "4711"], "missing"), (["nonsense"], "invalid")):
            with self.subTest(arguments=arguments):
                done = self.outtray.tool("--json", *arguments, check=False)
                self.assertNotEqual(done.returncode, EX_OK)
                error = json.loads(done.stdout)["error"]
                self.assertEqual(error["kind"], kind)
                self.assertTrue(error["text"])

    def test_mistakes_have_words_and_codes(self):
        for arguments, code in ((["show", "4711"], EX_NOINPUT), (["delete", "4711"], EX_NOINPUT),
                                (["retry", "4711"], EX_NOINPUT), (["export", "4711"], EX_NOINPUT),
                                (["resume", "nobody"], EX_NOINPUT), (["show"], EX_USAGE),
                                (["retry"], EX_USAGE), (["nonsense"], EX_USAGE), ([], EX_USAGE),
                                (["--nonsense"], EX_USAGE)):
            with self.subTest(arguments=arguments):
                done = self.outtray.tool(*arguments, check=False)
                self.assertEqual(done.returncode, code)
                self.assertTrue(done.stderr.strip())
        self.assertNotEqual(self.code("show", "../../etc/passwd"), EX_OK)

    def test_ids_may_be_written_as_other_programs_do(self):
        self.outtray.send()
        self.assertEqual(self.text("show", f"0x{self.only()}"), self.text("show", self.only()))

    def test_what_is_for_dead_letters_says_so(self):
        done = self.outtray.tool("requeue", "--all", check=False)
        self.assertEqual(done.returncode, EX_USAGE)
        self.assertIn(b"--all-dead", done.stderr)

    def test_explain_takes_what_went_wrong_here(self):
        for name, verdict in (("certificate", "certificate"), ("connect", "connect"), ("secret", "secret"),
                              ("lookup", "lookup"), ("tls", "tls"), ("timeout", "timeout"), ("lost", "lost"),
                              ("content", "eight_bit_content"), ("address", "recipient_beyond_ascii")):
            with self.subTest(name=name):
                meanings = self.outtray.json("explain", f"({name}) some words")["meanings"]
                self.assertIn(verdict, [meaning["verdict"] for meaning in meanings])
        self.assertEqual(self.code("explain", "(nonsense)"), EX_DATAERR)

    def test_help_and_version(self):
        self.assertIn("export", self.text("--help"))
        self.assertRegex(self.text("--version"), r"^outtray \d+\.\d+\.\d+\n$")

    def test_the_api_refuses_what_it_does_not_know(self):
        for method, path, status in (("GET", "/", 404), ("GET", "/v1/nonsense", 404),
                                     ("GET", "/v1/queue/zz", 400), ("DELETE", "/v1/status", 405),
                                     ("POST", "/v1/mailbox/nobody/resume", 404)):
            with self.subTest(method=method, path=path):
                got, answer = self.outtray.api(method, path)
                self.assertEqual(got, status)
                self.assertTrue(answer["error"]["text"])

    def test_the_clock_moves_only_when_asked_for_at_the_start(self):
        self.outtray.stop()
        self.outtray.options = []
        self.outtray.start()
        self.assertIn(self.outtray.api("POST", "/v1/clock?advance=10")[0], (403, 404))

    def test_the_socket_is_closed_to_others(self):
        self.assertEqual(self.outtray.socket.stat().st_mode & 0o007, 0)


class WithoutTheDaemon(EndToEnd):
    def setUp(self):
        super().setUp()
        practice = self.upstream()
        practice.pause()
        self.outtray = self.relay(practice)
        self.sent = [self.outtray.send(message(subject="small")),
                     self.outtray.send(message(subject="large", body=lines_of_base64(1 << 20)))]

    def assert_readable(self):
        entries = self.outtray.json("queue")["messages"]
        self.assertEqual([entry["subject"] for entry in entries], ["small", "large"])
        for entry, data in zip(entries, self.sent):
            self.assertEqual(without_trace(self.outtray.tool("export", entry["id"]).stdout)[0], data)
            shown = self.outtray.json("show", entry["id"])
            self.assertEqual(shown["recipients"][0]["path"], RECIPIENT)
        done = self.outtray.tool("queue")
        self.assertIn(b"not running", done.stderr)
        self.assertNotIn(b" now ", done.stdout)
        self.assertEqual([entry["due_in"] for entry in entries], [None, None])

    def files(self):
        return {path: path.read_bytes() for path in self.outtray.spool.rglob("*") if path.is_file()}

    def test_after_a_clean_stop(self):
        self.outtray.stop()
        before = self.files()
        self.assert_readable()
        self.assertEqual(self.files(), before, "reading changes nothing")

    def test_after_a_crash(self):
        self.outtray.kill()
        before = self.files()
        self.assert_readable()
        self.assertEqual(self.files(), before, "reading changes nothing")

    def test_what_needs_the_daemon_says_so(self):
        self.outtray.stop()
        for arguments in (["status"], ["delete", "1"], ["retry", "--all"], ["resume", "office"]):
            with self.subTest(arguments=arguments):
                done = self.outtray.tool(*arguments, check=False)
                self.assertEqual(done.returncode, EX_UNAVAILABLE)
                self.assertIn(b"not running", done.stderr)
                done = self.outtray.tool("--json", *arguments, check=False)
                self.assertIn("not running", json.loads(done.stdout)["error"]["text"])


class Trouble(EndToEnd):
    def test_a_refused_recipient_and_the_exit_code_of_status(self):
        practice = self.upstream()
        outtray = self.relay(practice)
        self.assertEqual(outtray.tool("status").returncode, EX_OK)
        practice.add_rule(stage="rcpt", reply="550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found")
        outtray.send()
        eventually(lambda: outtray.queue() and outtray.queue()[0]["state"] == "dead", "a dead letter")
        shown = outtray.show(outtray.queue()[0]["id"])
        self.assertEqual(shown["recipients"][0]["reason"], "There is no such recipient.")
        self.assertIn("address book", shown["recipients"][0]["remedy"])
        self.assertTrue(shown["recipients"][0]["who"])
        text = outtray.tool("show", shown["id"]).stdout.decode()
        self.assertIn("There is no such recipient.", text)
        done = outtray.tool("status", check=False)
        self.assertEqual(done.returncode, ATTENTION)
        self.assertIn(b"needs attention", done.stdout)
        self.assertEqual(outtray.tool("--json", "status", check=False).returncode, ATTENTION)


class Check(EndToEnd):
    def test_json_holds_mistakes_notes_and_a_summary(self):
        relay = self.relay(self.upstream(), start=False)
        relay.config_file.write_text(relay.config_text(), encoding="utf-8")
        answer = relay.json("check")
        self.assertEqual(answer["mistakes"], [])
        self.assertEqual(len(answer["notes"]), 1) # of the spool, which is not there yet
        self.assertEqual(answer["summary"]["mailboxes"][0]["name"], "office")
        self.assertEqual(answer["summary"]["spool"], str(relay.spool))
        relay.config_file.write_text("[relay]\nhostnme = x.example\n", encoding="utf-8")
        done = relay.tool("--json", "check", check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        answer = json.loads(done.stdout)
        self.assertIn(":2: there is no key hostnme", answer["mistakes"][0])
        self.assertIsNone(answer["summary"])

    @unittest.skipIf(os.geteuid() != 0, "only root can become somebody else")
    def test_somebody_else_is_told_to_use_sudo_and_nothing_harmful(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("relay", user="daemon")
        relay.config_file.write_text(relay.config_text(), encoding="utf-8")
        relay.spool.mkdir(mode=0o700)
        (relay.directory / "password").chmod(0o600)
        for path in (self.directory, relay.directory):
            path.chmod(0o755)
        done = subprocess.run([relay.binaries / "outtray", "-c", relay.config_file, "check"],
                              user=NOBODY, group=NOBODY, extra_groups=[], stdin=subprocess.DEVNULL,
                              capture_output=True, check=False, timeout=60)
        words = done.stderr.decode()
        self.assertEqual(done.returncode, EX_OK, words)
        self.assertIn("sudo", words)
        for harmful in ("chown", "chgrp", "chmod"):
            self.assertNotIn(harmful, words)
        # As root it is tried as the daemon's user, who is told how to get there.
        done = relay.tool("check", check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn(f"chown -R daemon {relay.spool}".encode(), done.stderr)
        self.assertIn(b"chown root:daemon ", done.stderr)


class Json(EndToEnd):
    def test_json_is_what_the_api_says(self):
        relay = self.relay(self.upstream())
        for command, path in (("status", "/v1/status"), ("queue", "/v1/queue")):
            with self.subTest(command=command):
                printed = json.loads(relay.tool("--json", command).stdout)
                self.assertEqual(sorted(printed), sorted(relay.api("GET", path)[1]))


if __name__ == "__main__":
    unittest.main()
