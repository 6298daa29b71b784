"""Each failure has its own scope: recipient, message, mailbox; and uncertainty is never silent."""

import time
import unittest

from harness import EndToEnd, Device, PRINTER, eventually, lines_of_base64, message, message_id_of

GOOD, BAD, LATER = "good@office.test", "nobody@office.test", "later@office.test"


class Recipients(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def states(self):
        entry = eventually(self.outtray.queue, "the message is still listed")[0]
        return {r["path"]: r["state"] for r in self.outtray.show(entry["id"])["recipients"]}

    def test_a_refused_recipient_touches_no_other(self):
        self.practice.add_rule(stage="rcpt", match=BAD, reply="550 5.1.10 RESOLVER.ADR.RecipientNotFound")
        self.outtray.send(recipients=[GOOD, BAD, "third@office.test"])
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.messages()[0]["forward_paths"], [GOOD, "third@office.test"])
        failed = self.outtray.wait_event("failed")
        self.assertIn(BAD, failed["to"])
        self.assertIn("5.1.10", failed["reply"])
        eventually(lambda: self.states() == {GOOD: "delivered", BAD: "failed", "third@office.test": "delivered"},
                   "each has its outcome")
        self.assertEqual(self.outtray.queue()[0]["state"], "dead")
        self.assertEqual(self.outtray.status()["state"], "attention")
        self.outtray.advance(86400)
        time.sleep(0.5)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(len(self.practice.messages()), 1)

    def test_a_deferred_recipient_is_tried_alone(self):
        self.practice.add_rule(stage="rcpt", match=LATER, reply="450 4.2.1 mailbox busy", times=1)
        self.outtray.send(recipients=[GOOD, LATER])
        self.assertTrue(self.practice.wait_stored(1))
        eventually(lambda: self.states() == {GOOD: "delivered", LATER: "pending"}, "one is left")
        self.outtray.advance(3600)
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual(self.practice.messages()[1]["forward_paths"], [LATER])
        self.outtray.wait_empty()

    def test_all_recipients_refused(self):
        self.practice.add_rule(stage="rcpt", reply="550 5.1.1 no such user")
        self.outtray.send(recipients=[GOOD, BAD])
        eventually(lambda: self.states() == {GOOD: "failed", BAD: "failed"}, "both have failed")
        self.assertEqual(self.practice.messages(), [])
        self.practice.clear_rules()
        data = self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_a_dead_letter_can_be_retried(self):
        self.practice.add_rule(stage="rcpt", match=BAD, reply="550 5.1.1 no such user", times=1)
        data = self.outtray.send(recipients=[BAD])
        entry = eventually(lambda: [e for e in self.outtray.queue() if e["state"] == "dead"], "it is dead")[0]
        self.outtray.tool("retry", entry["id"])
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        self.outtray.wait_empty()


class Messages(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def test_a_refused_message_holds_up_no_other(self):
        self.practice.add_rule(stage="dot", header="Subject: spam",
                               reply="554 5.2.0 STOREDRV.Submission.Exception:Something")
        self.outtray.send(message(subject="spam"))
        data = self.outtray.send(message(subject="fine"))
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        entry = eventually(lambda: [e for e in self.outtray.queue() if e["attempts"] > 0], "it was tried")[0]
        self.assertIn("STOREDRV", self.outtray.show(entry["id"])["recipients"][0]["reply"])

    def test_connection_lost_before_the_dot_is_tried_again_soon_without_a_copy(self):
        self.practice.add_rule(stage="body", at=50_000, action="reset", times=1)
        data = self.outtray.send(message(body=lines_of_base64(6_000_000)))  # more than a kernel takes at once
        wait_retry(self.outtray)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        self.assertEqual(self.practice.counters()["duplicates"], 0)

    def test_lost_after_the_dot_is_uncertain_and_sent_once_more(self):
        for action, copies in (("drop-after-store", 2), ("drop-before-store", 1)):
            with self.subTest(action=action):
                before = len(self.practice.messages())
                self.practice.add_rule(stage="dot", action=action, times=1)
                data = self.outtray.send()
                entry = eventually(lambda: [e for e in self.outtray.queue() if e["state"] == "uncertain"],
                                   "it is uncertain")[0]
                self.assertGreater(entry["due_in"], 10 * 60)
                self.assertEqual(self.outtray.status()["queue"]["uncertain"], 1)
                self.outtray.advance(15 * 60 + 30)
                self.assertTrue(self.practice.wait_stored(before + copies))
                self.outtray.wait_empty()
                ids = [facts["message_id"] for facts in self.practice.messages()[before:]]
                self.assertEqual(ids, [message_id_of(data)] * copies)

    def test_errors_after_the_reply_change_nothing(self):
        self.practice.add_rule(stage="quit", action="reset")
        data = self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.outtray.wait_empty()
        self.practice.drop_connections()
        time.sleep(0.3)  # nothing may happen now, so there is nothing to wait for
        self.assert_arrived(self.practice, data)
        self.assertEqual(self.outtray.events("failed") + self.outtray.events("deferred"), [])

    def test_replies_in_pieces_and_in_many_lines(self):
        self.practice.add_rule(stage="dot", reply="250-2.0.0 OK\nstill\n2.0.0 done", split=3,
                               split_pause=0.01, times=1)
        self.practice.add_rule(stage="mail", reply="250 2.1.0 Sender OK", split=1, times=1)
        data = self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.outtray.wait_empty()
        self.assert_arrived(self.practice, data)

    def test_reverse_path_is_the_mailbox_unless_it_may_send_as_others(self):
        with Device(self.outtray) as device:
            device.sendmail("", ["accounts@office.test"], message())
            device.sendmail(PRINTER, ["accounts@office.test"], message())
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual({facts["reverse_path"] for facts in self.practice.messages()},
                         {"scanner@office.test", PRINTER})

    def test_give_up_counts_only_time_in_which_it_could_be_tried(self):
        relay = self.relay(self.practice, give_up="2h")
        self.practice.add_rule(stage="rcpt", match=LATER, reply="450 4.2.1 mailbox busy")
        relay.send(recipients=[LATER])
        attempts, waited = 1, 0
        for attempts in range(1, 50):
            entry = eventually(lambda a=attempts: relay.queue()[0]["attempts"] == a and relay.queue()[0],
                               f"attempt {attempts} has ended")
            if entry["state"] == "dead":
                break
            relay.advance(int(entry["due_in"]) + 1)
            waited += entry["due_in"]
        self.assertEqual(relay.queue()[0]["state"], "dead")
        self.assertGreater(waited, 7000)
        self.assertGreater(attempts, 4)
        self.assertIn("450", relay.show(relay.queue()[0]["id"])["recipients"][0]["reply"])

    def test_time_with_the_mailbox_paused_does_not_count(self):
        self.practice.add_rule(stage="auth", reply="535 5.7.139 Authentication unsuccessful", times=3)
        relay = self.relay(self.practice, give_up="2h")
        data = relay.send()
        for number in range(1, 4):
            eventually(lambda n=number: self.practice.counters()["auth_failed"] == n, "it was probed")
            eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
            relay.advance(2 * 86400)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)


def wait_retry(relay):
    """Waits until the failure has been noticed, and moves the clock past any wait."""
    eventually(lambda: relay.mailbox()["next_try_in"] or any(e["due_in"] for e in relay.queue()),
               "it waits for another try")
    relay.advance(600)


if __name__ == "__main__":
    unittest.main()
