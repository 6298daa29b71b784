"""What is known of a mailbox outlives the daemon: its pause, its budget, and what its upstream has taught."""

import unittest

from harness import MAILBOX, PASSWORD, EndToEnd, eventually

MINUTE, HOUR = 60, 3600


class Restarts(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def again(self, relay, kill):
        """Ends the daemon and starts it anew."""
        if kill:
            relay.kill()
        else:
            relay.stop()
        return relay.start()

    def paused(self):
        """A relay whose password is refused, with one message in the queue."""
        relay = self.relay(self.practice, start=False)
        relay.sections["mailbox office"]["password_file"].write_text("wrong\n")
        relay.start()
        self.data = relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        return relay

    def test_a_refused_sign_in_costs_one_attempt_whatever_is_restarted(self):
        for kill in (False, True):
            with self.subTest(kill=kill):
                self.practice.reset()
                relay = self.paused()
                self.assertEqual(self.practice.counters()["auth_failed"], 1)
                for _ in range(3):
                    self.again(relay, kill)
                    relay.wait_event("mailbox-still-in-trouble")
                    self.assertEqual(relay.mailbox()["state"], "paused")
                    self.assertGreater(relay.mailbox()["next_try_in"], MINUTE)
                    self.assertIn("535", relay.mailbox()["last_reply"])
                    relay.send()
                self.assertEqual(self.practice.counters()["auth_failed"], 1)
                self.assertEqual({entry["state"] for entry in relay.queue()}, {"queued"})
                self.assertEqual(len(relay.queue()), 4)

    def test_another_password_lifts_the_pause_at_the_next_start(self):
        relay = self.paused()
        relay.stop()
        relay.sections["mailbox office"]["password_file"].write_text(PASSWORD + "\n")
        relay.start()
        relay.wait_empty()
        self.assert_arrived(self.practice, self.data)
        self.assertEqual(self.practice.counters()["auth_failed"], 1)
        self.assertEqual(relay.mailbox()["state"], "ready")

    def test_another_password_lifts_the_pause_while_it_runs(self):
        relay = self.paused()
        relay.sections["mailbox office"]["password_file"].write_text(PASSWORD + "\n")
        relay.advance(10)
        relay.wait_event("password-changed")
        relay.wait_empty()
        self.assert_arrived(self.practice, self.data)
        self.assertEqual(self.practice.counters()["auth_failed"], 1)

    def test_a_wrong_password_is_tried_once_when_an_operator_says_so(self):
        relay = self.paused()
        for _ in range(5):
            relay.send()
        relay.tool("resume", "office")
        eventually(lambda: self.practice.counters()["auth_failed"] == 2, "it was tried")
        relay.wait_event("mailbox-trouble", 2)
        relay.send()
        self.assertEqual(self.practice.counters()["auth_failed"], 2)

    def test_a_password_is_tried_without_any_mail(self):
        relay = self.relay(self.practice, start=False)
        password = relay.sections["mailbox office"]["password_file"]
        password.write_text("wrong\n")
        relay.start()
        relay.tool("resume", "office")
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertIn("535", relay.mailbox()["last_reply"])
        password.write_text("wrong as well\n")
        relay.tool("resume", "office")
        relay.wait_event("mailbox-trouble", 2)
        self.assertEqual(relay.mailbox()["state"], "paused")
        self.assertTrue(relay.mailbox()["problem"])
        password.write_text(PASSWORD + "\n")
        relay.tool("resume", "office")
        relay.wait_event("signed-in")
        relay.wait_event("mailbox-recovered")
        self.assertEqual((relay.mailbox()["state"], relay.mailbox()["problem"]), ("ready", ""))
        self.assertEqual(self.practice.counters()["auth_failed"], 2)

    def test_another_password_is_tried_by_itself_without_any_mail(self):
        relay = self.relay(self.practice, start=False)
        password = relay.sections["mailbox office"]["password_file"]
        password.write_text("wrong\n")
        relay.start()
        relay.tool("resume", "office")
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        password.write_text(PASSWORD + "\n")
        relay.advance(10)
        relay.wait_event("password-changed")
        eventually(lambda: relay.mailbox()["state"] == "ready", "the mailbox is ready")

    def test_an_upstream_that_is_back_is_found_without_any_mail(self):
        relay = self.relay(self.practice)
        self.practice.pause()
        relay.tool("resume", "office")
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        self.practice.resume()
        relay.tool("resume", "office")
        eventually(lambda: relay.mailbox()["state"] == "ready", "the mailbox is ready")

    def test_the_budget_goes_on(self):
        relay = self.relay(self.practice, start=False)
        relay.set("mailbox office", messages_per_minute=10, recipients_per_day=100).start()
        for _ in range(7):
            relay.send(recipients=["a@office.test", "b@office.test"])
        self.assertTrue(self.practice.wait_stored(7))
        relay.wait_empty()
        self.again(relay, kill=False)
        self.assertEqual(relay.mailbox()["sent_this_minute"], 7)
        self.assertEqual(relay.mailbox()["recipients_today"], 14)
        for _ in range(7):
            relay.send()
        self.assertTrue(self.practice.wait_stored(10))
        eventually(lambda: len(relay.queue()) == 4, "four wait for the minute to pass")
        self.again(relay, kill=True)
        self.assertEqual(relay.mailbox()["sent_this_minute"], 10)
        self.assertGreaterEqual(relay.mailbox()["recipients_today"], 17)
        relay.send()
        self.assertEqual(len(relay.queue()), 5)
        relay.advance(64)
        relay.wait_empty()
        self.assertEqual(len(self.practice.messages()), 15)

    def test_a_lost_or_damaged_account_loses_no_mail(self):
        relay = self.paused()
        relay.stop()
        (relay.spool / "ledger.db").write_bytes(b"no database at all, but something long enough " * 9)
        relay.sections["mailbox office"]["password_file"].write_text(PASSWORD + "\n")
        relay.start()
        relay.wait_event("ledger-damaged")
        relay.wait_empty()
        self.assert_arrived(self.practice, self.data)
        self.assertTrue((relay.spool / "ledger.db.damaged").exists())

    def test_an_uncertain_message_says_so_for_good(self):
        relay = self.relay(self.practice)
        self.practice.add_rule(stage="dot", action="drop-before-store", times=2)
        data = relay.send()
        for losses, wait in ((1, 15 * MINUTE), (2, HOUR)):
            entry = eventually(lambda number=losses: [e for e in relay.queue() if e["losses"] == number
                                                      and e["state"] == "uncertain"], "it is uncertain")[0]
            self.assertGreater(entry["due_in"], wait - MINUTE)
            self.assertIn("was uncertain", relay.tool("show", entry["id"]).stdout.decode())
            relay.advance(wait)
        relay.wait_empty()
        self.assert_arrived(self.practice, data)
        delivered = relay.wait_event("delivered")
        self.assertIn("may have arrived", delivered["doubt"])

    def test_urgent_mail_found_in_doubt_waits_a_minute_only(self):
        relay = self.relay(self.practice, start=False)
        relay.set("device alarm", address="127.0.0.1", lane="urgent").start()
        self.practice.add_rule(stage="dot", action="hang-after-store", times=1)
        relay.send()
        eventually(lambda: [e for e in relay.queue() if e["in_doubt"]], "it is in doubt")
        self.again(relay, kill=True)
        entry = relay.queue()[0]
        self.assertEqual(entry["state"], "uncertain")
        self.assertLess(entry["due_in"], 61)
        relay.advance(60)
        relay.wait_empty()
        self.assertEqual(self.practice.counters()["duplicates"], 1)


if __name__ == "__main__":
    unittest.main()
