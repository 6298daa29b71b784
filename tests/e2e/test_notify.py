"""Programs are told what needs a person, by a way that works when mail does not."""

import json
import os
import signal
import time
import unittest

from harness import EndToEnd, eventually, message

REFUSED = "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect."

# Appends what it was given, and how it was called, to a file beside it.
NOTE = """#!/bin/sh
read -r event
printf '%s\\t%s\\t%s\\n' "$1" "$(env | cut -d= -f1 | sort | tr '\\n' ' ')" "$event" >> {file}
echo "told somebody"
"""


class Notify(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def program(self, name, text):
        path = self.directory / name
        path.write_text(text.format(file=self.directory / f"{name}.txt"), encoding="utf-8")
        path.chmod(0o700)
        return path

    def told(self, name="tell"):
        """(argument, names of the environment, event) of each call."""
        path = self.directory / f"{name}.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(argument, names.split(), json.loads(event))
                for argument, names, event in (line.split("\t") for line in lines)]

    def events(self, kind, name="tell"):
        return [event for _, _, event in self.told(name) if event["event"] == kind]

    def wait_event(self, kind, count=1):
        return eventually(lambda: len(self.events(kind)) >= count and self.events(kind), f"{kind} is told")

    def start(self, text=NOTE, **keys):
        relay = self.relay(self.practice, start=False)
        relay.set("notify tell", command=self.program("tell", text), **keys)
        relay.environment["OUTTRAY_PASSWORD_OTHER"] = "secret"
        return relay.start()

    def test_a_paused_mailbox_is_told_once_and_so_is_its_recovery(self):
        relay = self.start()
        self.practice.add_rule(stage="auth", reply=REFUSED)
        relay.send()
        event = self.wait_event("mailbox-paused")[0]
        self.assertEqual((event["mailbox"], event["host"]), ("office", "relay.office.test"))
        self.assertIn("5.7.139", event["reply"])
        self.assertTrue(event["remedy"])
        for _ in range(3):
            relay.advance(3600)
            time.sleep(0.5)
        self.assertEqual(self.events("mailbox-recovered"), [])
        self.practice.clear_rules()
        relay.tool("resume", "office")
        self.wait_event("mailbox-recovered")
        self.assertEqual(len(self.events("mailbox-paused")), 1)
        argument, names, _ = self.told()[0]
        self.assertEqual(argument, "mailbox-paused")
        self.assertNotIn("OUTTRAY_PASSWORD_OTHER", names)
        self.assertEqual(relay.wait_event("notified")["output"], "told somebody")

    def test_dead_letters_held_and_late_mail_are_told_together(self):
        relay = self.start()
        self.practice.add_rule(stage="rcpt", match="nobody@", reply="550 5.1.10 no such recipient")
        self.practice.add_rule(stage="mail", match="held@office.test",
                               reply="550 5.7.60 SMTP; Client does not have permissions to send as this sender")
        for _ in range(3):
            relay.send(recipients=["nobody@office.test"])
        relay.send(sender="held@office.test")
        relay.wait_event("failed", count=3)
        event = self.wait_event("held")[0]
        self.assertIn("5.7.60", event["messages"][0]["reason"])
        relay.advance(61)  # those that came after the first
        eventually(lambda: sum(e["count"] for e in self.events("dead-letter")) == 3, "three are told of")
        self.assertLess(len(self.events("dead-letter")), 4)
        self.assertIn("5.1.10", self.events("dead-letter")[0]["messages"][0]["reason"])
        relay.advance(4 * 3600)
        self.assertEqual(self.wait_event("delayed")[0]["count"], 1)

    def test_only_what_is_wanted_is_told(self):
        relay = self.start(events="held")
        self.practice.add_rule(stage="auth", reply=REFUSED, times=1)
        relay.send()
        relay.wait_event("mailbox-trouble")
        time.sleep(1.5)  # nothing may be told, so there is nothing to wait for
        self.assertEqual(self.told(), [])

    def test_a_program_that_hangs_is_killed_with_its_children(self):
        relay = self.start("#!/bin/sh\nsleep 1000 &\necho $! > {file}\nwait\n")
        self.practice.add_rule(stage="auth", reply=REFUSED)
        relay.send()
        path = self.directory / "tell.txt"
        eventually(lambda: path.exists() and path.read_text(), "it runs")
        child = int(path.read_text())
        relay.send(message())  # nobody waits for it
        relay.advance(31)
        self.assertIn("killed", relay.wait_event("notify-failed")["reason"])

        def is_gone():
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return True
            with open(f"/proc/{child}/stat", encoding="ascii") as file:
                return file.read().split()[2] == "Z"

        eventually(is_gone, "its child is gone too")

    def test_what_it_cannot_do_is_logged(self):
        for text, reason in (("#!/bin/sh\necho cannot reach the pager >&2\nexit 3\n", "exit code 3"),
                             ("no program\n", "")):
            with self.subTest(reason=reason):
                relay = self.start(text)
                self.practice.clear_rules()
                self.practice.add_rule(stage="auth", reply=REFUSED)
                relay.send()
                event = relay.wait_event("notify-failed")
                self.assertIn(reason, event["reason"])
                if reason:
                    self.assertEqual(event["output"], "cannot reach the pager")
                relay.stop()

    def test_much_output_is_read_and_cut(self):
        relay = self.start("#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x\n")
        self.practice.add_rule(stage="auth", reply=REFUSED)
        relay.send()
        event = relay.wait_event("notified")
        self.assertLess(len(event["output"]), 4000)

    def test_a_stop_does_not_wait_for_it(self):
        relay = self.start("#!/bin/sh\necho $$ > {file}\nexec sleep 25\n")
        self.practice.add_rule(stage="auth", reply=REFUSED)
        relay.send()
        path = self.directory / "tell.txt"
        eventually(lambda: path.exists() and path.read_text(), "it runs")
        began = time.monotonic()
        relay.stop()
        self.assertLess(time.monotonic() - began, 15)
        os.kill(int(path.read_text()), signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
