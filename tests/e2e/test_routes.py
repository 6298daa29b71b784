"""Which mailbox mail leaves through, and in which order."""

import unittest

from harness import EndToEnd, MAILBOX, PASSWORD, RECIPIENT, eventually, message

SECOND = "second@office.test"


class Routes(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.practice.put_account(address=SECOND, password=PASSWORD, aliases=("printer@office.test",))
        self.outtray = self.relay(self.practice, start=False)
        office = self.outtray.sections["mailbox office"]
        self.outtray.set("mailbox second", **{**office, "address": SECOND})

    def mailboxes_of(self, count):
        self.assertTrue(self.practice.wait_stored(count))
        return [facts["mailbox"] for facts in self.practice.messages()]

    def test_two_mailboxes_share_by_what_is_left_of_them(self):
        for name in ("office", "second"):
            self.outtray.set(f"mailbox {name}", messages_per_minute=10)
        self.outtray.start()
        for _ in range(20):
            self.outtray.send()
        used = self.mailboxes_of(20)
        self.assertEqual((used.count(MAILBOX), used.count(SECOND)), (10, 10))

    def test_in_order_the_second_is_used_only_when_the_first_cannot_be(self):
        self.outtray.set("route default", mailboxes="office, second", choose="order")
        self.outtray.set("mailbox office", messages_per_minute=5)
        self.outtray.start()
        for _ in range(8):
            self.outtray.send()
            self.outtray.wait_empty()
        self.assertEqual(self.mailboxes_of(8), [MAILBOX] * 5 + [SECOND] * 3)

    def test_a_backup_takes_over_after_its_time_and_gives_back(self):
        self.outtray.set("route default", mailboxes="office", backup="second", backup_after="20m")
        self.outtray.start()
        self.practice.put_account(address=MAILBOX, password="another")
        self.outtray.send()
        self.outtray.wait_event("mailbox-trouble")
        self.outtray.advance(600)
        self.assertEqual(self.practice.messages(), [])
        self.outtray.advance(900)
        self.assertEqual(self.mailboxes_of(1), [SECOND])
        self.practice.put_account(address=MAILBOX, password=PASSWORD)
        self.outtray.tool("resume", "office")
        self.outtray.send()
        self.assertEqual(self.mailboxes_of(2)[1], MAILBOX)

    def test_urgent_mail_takes_the_backup_at_once(self):
        self.outtray.set("route default", mailboxes="office", backup="second", backup_after="1d")
        self.outtray.set("device alarm", address="127.0.0.1", lane="urgent")
        self.outtray.start()
        self.practice.put_account(address=MAILBOX, password="another")
        self.outtray.send()
        self.assertEqual(self.mailboxes_of(1), [SECOND])

    def test_a_route_is_chosen_by_the_recipients_domains(self):
        self.outtray.set("route default", mailboxes="office")
        self.outtray.set("route inside", mailboxes="second", recipient_domains="inside.test")
        self.outtray.start()
        self.outtray.send(recipients=["a@inside.test", "b@inside.test"])
        self.assertEqual(self.mailboxes_of(1), [SECOND])
        self.outtray.send(recipients=["a@inside.test", RECIPIENT])
        self.assertEqual(self.mailboxes_of(2)[1], MAILBOX)


class Order(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice, start=False)
        self.outtray.set("device alarm", address="127.0.0.9", lane="urgent")

    def alarm(self):
        data = message(subject="Alarm")
        self.outtray.send(data, source="127.0.0.9")
        return data

    def test_a_part_of_the_minute_is_kept_for_urgent_mail(self):
        self.outtray.set("mailbox office", messages_per_minute=6, urgent_reserve=2)
        self.outtray.start()
        for _ in range(8):
            self.outtray.send()
        self.assertTrue(self.practice.wait_stored(4))
        eventually(lambda: len(self.outtray.queue()) == 4, "the others wait")
        self.alarm()
        self.assertTrue(self.practice.wait_stored(5))
        self.assertEqual(len(self.outtray.queue()), 4)
        self.outtray.advance(64)
        self.outtray.wait_empty()

    def test_many_recipients_go_in_several_messages(self):
        self.outtray.set("mailbox office", recipients_per_message=3)
        self.outtray.start()
        everybody = [f"r{number}@office.test" for number in range(8)]
        self.outtray.send(recipients=everybody)
        self.assertTrue(self.practice.wait_stored(3))
        self.outtray.wait_empty()
        reached = [path for facts in self.practice.messages() for path in facts["forward_paths"]]
        self.assertEqual(sorted(reached), sorted(everybody))
        self.assertEqual({len(facts["forward_paths"]) for facts in self.practice.messages()}, {2, 3})
        self.assertEqual(len({facts["message_id"] for facts in self.practice.messages()}), 1)


if __name__ == "__main__":
    unittest.main()
