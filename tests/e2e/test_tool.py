"""The outtray command: with the daemon, and on the spool of one that is down."""

import email
import json
import smtplib
import unittest

from harness import PRINTER, RECIPIENT, EndToEnd, eventually, lines_of_base64, message, without_trace

EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 0, 64, 65, 66, 69, 75, 78


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
                self.outtray.tool("export", message_id, "-o", file)
                self.assertEqual(file.read_bytes(), exported)

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


class Json(EndToEnd):
    def test_json_is_what_the_api_says(self):
        relay = self.relay(self.upstream())
        for command, path in (("status", "/v1/status"), ("queue", "/v1/queue")):
            with self.subTest(command=command):
                printed = json.loads(relay.tool("--json", command).stdout)
                self.assertEqual(sorted(printed), sorted(relay.api("GET", path)[1]))


if __name__ == "__main__":
    unittest.main()
