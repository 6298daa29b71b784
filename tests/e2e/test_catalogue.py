"""Every refusal that the service is known for, and what becomes of the message, its recipients, the mailbox and
the connection."""

import unittest

from harness import EndToEnd, eventually, message
from m365 import catalogue

FIRST, SECOND, THIRD = RECIPIENTS = ("first@office.test", "second@office.test", "third@office.test")

CONNECTIONS = 20

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
    "conc": {("queued", "waiting")},  # with one connection
}
AFTER_ONE_RETRY = {("queued", "ready")}  # where the catalogue's note says that it is tried once more


class Catalogue(EndToEnd):
    def setUp(self):
        super().setUp()
        # Only one is ever used, but those that were closed a moment ago count.
        self.practice = self.upstream(limits={"connections": CONNECTIONS})
        self.outtray = self.relay(self.practice, start=False)
        self.outtray.set("mailbox office", connections=CONNECTIONS).start()

    def connections(self):
        return self.practice.counters()["connections"]

    def refuse(self, row):
        """Sends a message into the refusal; returns what has become of it. Only the second recipient is refused."""
        self.practice.drop_connections()
        eventually(lambda: self.practice.counters()["connections_open"] == 0, "no connection is open")
        self.practice.clear_rules()
        self.practice.set_limits(chunking=row["stage"] != "data")  # DATA is said only where there is no BDAT
        self.practice.add_row(row["name"], times=1, **({"match": SECOND} if row["stage"] == "rcpt" else {}))
        data = message(subject=row["name"])
        self.outtray.send(data, recipients=RECIPIENTS)
        eventually(lambda: self.practice.rules()[0]["fired"], f"{row['name']} was given")
        entry = eventually(self._settled, f"{row['name']} has been dealt with")
        return self.outtray.show(entry["id"])

    def _settled(self):
        entries = self.outtray.queue()
        if not entries or entries[0]["in_flight"]:
            return None
        entry = entries[0]
        waits = entry["due_in"] or self.outtray.mailbox()["state"] != "ready"
        return entry if waits or entry["state"] in ("dead", "held") else None

    def next_connection_is_new(self, entry):
        """Clears up, sends another message, and tells whether it needed another connection."""
        self.practice.clear_rules()
        self.assertLess(self.outtray.api("DELETE", f"/v1/queue/{entry['id']}")[0], 300)
        before = self.connections()
        if self.outtray.mailbox()["state"] != "ready":
            self.outtray.tool("resume", "office")
        data = self.outtray.send()
        self.outtray.wait_empty()
        eventually(lambda: self.outtray.mailbox()["state"] == "ready", "the mailbox works again")
        self.assert_arrived(self.practice, data)
        return self.connections() > before

    def check_recipients(self, row, entry):
        """One who was refused touches no other; what concerns all leaves them alike."""
        states = {recipient["path"]: recipient["state"] for recipient in entry["recipients"]}
        failed = entry["state"] == "dead"
        if row["stage"] == "rcpt" and entry["state"] != "queued" or row["name"] == "too-many-recipients":
            self.assertEqual(states, {FIRST: "delivered", SECOND: "failed" if failed else "pending",
                                      THIRD: "delivered"})
        elif row["stage"] == "rcpt":
            self.assertEqual(states[SECOND], "pending")
        else:
            self.assertEqual(states, dict.fromkeys(RECIPIENTS, "failed" if failed else "pending"))

    def check_connection(self, row, mailbox, is_new):
        """A refusal of a message or recipient costs no connection; trouble of any other kind ends it."""
        ends = (row["stage"] in SESSION_STAGES or mailbox != "ready"
                or row["reply"].startswith(("421", "500", "503")))  # over, or out of step
        self.assertEqual(is_new, ends, "another connection" if is_new else "the same connection")

    def check(self, row):
        entry = self.refuse(row)
        mailbox = self.outtray.mailbox()
        expected = EXPECTED[row["action"]]
        if row.get("note", "").startswith("after one retry five minutes"):
            expected = AFTER_ONE_RETRY
        is_new = self.next_connection_is_new(entry)
        self.assertIn((entry["state"], mailbox["state"]), expected,
                      f"{row['stage']}: {row['reply'][:100]} means {row['action']}")
        if row["stage"] in SESSION_STAGES:
            self.assertEqual(entry["state"], "queued")
        if mailbox["state"] != "ready":
            self.assertTrue(mailbox["problem"] and mailbox["remedy"])
        self.check_recipients(row, entry)
        self.check_connection(row, mailbox["state"], is_new)

    def test_every_refusal_has_its_scope(self):
        refusals = [row for row in catalogue().values()
                    if row["action"] in EXPECTED and row.get("in_session", True)
                    and row["stage"] != "idle" and row.get("match") != "XOAUTH2"]
        self.assertGreater(len(refusals), 80)
        # What takes connections away comes last: with one alone, the next waits for the peer's close.
        for row in sorted(refusals, key=lambda row: row["action"] == "conc"):
            with self.subTest(row["name"]):
                self.check(row)

    def test_a_session_that_ends_while_idle_costs_a_connection_only(self):
        rows = [row for row in catalogue().values() if row["stage"] == "idle"]
        self.assertTrue(rows)
        for row in rows:
            with self.subTest(row["name"]):
                self.practice.clear_rules()
                self.outtray.send()
                self.outtray.wait_empty()
                self.practice.add_row(row["name"], times=1, match=".")
                data = self.outtray.send()
                self.outtray.wait_empty()
                self.assert_arrived(self.practice, data)
                self.assertEqual(self.outtray.mailbox()["state"], "ready")


if __name__ == "__main__":
    unittest.main()
