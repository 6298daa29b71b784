"""Every refusal that the service is known for, and what becomes of the message and of the mailbox."""

import unittest

from harness import EndToEnd, eventually
from m365 import catalogue

# Whatever is refused on the way to a session or at sign-in is no message's fault.
SESSION_STAGES = ("banner", "ehlo", "starttls", "tls", "auth", "idle")

# What may be seen afterwards, by the catalogue's action: state of the message, state of the mailbox.
EXPECTED = {
    "rcpt": {("dead", "ready")},
    "msg": {("dead", "ready"), ("held", "ready")},
    "hold": {("held", "ready"), ("queued", "paused")},
    "pause": {("queued", "paused")},
    "back": {("queued", "waiting"), ("queued", "ready")},
    "soon": {("queued", "waiting"), ("queued", "ready")},
}
AFTER_ONE_RETRY = {("queued", "ready")}  # where the catalogue's note says that it is tried once more


class Catalogue(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def outcome_of(self, row):
        """Sends a message into the refusal: (message, mailbox, the message's entry)."""
        self.practice.drop_connections()
        eventually(lambda: self.practice.counters()["connections_open"] == 0, "no connection is open")
        self.practice.clear_rules()
        self.practice.add_row(row["name"], times=1)
        self.outtray.send()
        eventually(lambda: self.practice.rules()[0]["fired"], f"{row['name']} was given")
        entry = eventually(self._settled, f"{row['name']} has been dealt with")
        return entry["state"], self.outtray.mailbox()["state"], entry

    def _settled(self):
        entries = self.outtray.queue()
        if not entries or entries[0]["in_flight"]:
            return None
        entry = entries[0]
        waits = entry["due_in"] or self.outtray.mailbox()["state"] != "ready"
        return entry if waits or entry["state"] in ("dead", "held") else None

    def clear(self, entry):
        self.practice.clear_rules()
        self.outtray.tool("delete", entry["id"])
        self.outtray.tool("resume", "office")
        data = self.outtray.send()
        eventually(lambda: self.outtray.mailbox()["state"] == "ready", "the mailbox works again")
        self.outtray.wait_empty()
        self.assert_arrived(self.practice, data)

    def test_every_refusal_has_its_scope(self):
        refusals = [row for row in catalogue().values()
                    if row["action"] in EXPECTED and row.get("in_session", True)
                    and row["stage"] != "idle" and row.get("match") != "XOAUTH2"]
        self.assertGreater(len(refusals), 80)
        for row in refusals:
            with self.subTest(row["name"]):
                message, mailbox, entry = self.outcome_of(row)
                expected = EXPECTED[row["action"]]
                if row.get("note", "").startswith("after one retry five minutes"):
                    expected = AFTER_ONE_RETRY
                try:
                    self.assertIn((message, mailbox), expected,
                                  f"{row['stage']}: {row['reply'][:100]} means {row['action']}")
                    if row["stage"] in SESSION_STAGES:
                        self.assertEqual(message, "queued")
                finally:
                    self.clear(entry)


if __name__ == "__main__":
    unittest.main()
