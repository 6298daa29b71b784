"""Many devices at once, and never more connections upstream than the mailbox allows."""

import threading
import unittest

from harness import MAILBOX, PRINTER, RECIPIENT, Device, EndToEnd, lines_of_base64, message, message_id_of

LABELS = "threads"
DEVICES = 20
MESSAGES = 100
LARGE_EVERY = 10


class Concurrency(EndToEnd):
    def hand_in(self, relay, shares):
        """One thread and one connection for each share; returns what went wrong."""
        failures = []

        def device_of(share):
            try:
                with Device(relay, timeout=120) as device:
                    for data in share:
                        device.sendmail(PRINTER, [RECIPIENT], data)
            except Exception as error:  # pylint: disable=broad-exception-caught
                failures.append(error)

        threads = [threading.Thread(target=device_of, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures

    def mail(self):
        return [message(subject=str(number),
                        body=lines_of_base64(200_000 if number % LARGE_EVERY == 0 else 3_000, number))
                for number in range(MESSAGES)]

    def assert_all_once(self, practice, sent):
        self.assert_ids(practice, [message_id_of(data) for data in sent])
        for data in sent[::LARGE_EVERY // 2]:
            self.assert_arrived(practice, data)
        counters = practice.counters()
        self.assertEqual(counters["duplicates"], 0)
        self.assertEqual(counters["mailboxes"][MAILBOX]["violations"]["concurrency"], 0)
        return counters["mailboxes"][MAILBOX]["highest_concurrency"]

    def test_100_messages_from_20_connections_arrive_once_over_three(self):
        practice = self.upstream()
        relay = self.relay(practice)
        sent = self.mail()
        failures = self.hand_in(relay, [sent[start::DEVICES] for start in range(DEVICES)])
        self.assertEqual(failures, [])
        self.assertTrue(practice.wait_stored(MESSAGES, 90))
        self.assertEqual(self.assert_all_once(practice, sent), 3)
        self.assertLessEqual(practice.counters()["connections"], 6, "connections are used again")
        relay.wait_empty()

    def test_a_full_queue_leaves_over_the_configured_number(self):
        for connections in (1, 2):
            with self.subTest(connections=connections):
                practice = self.upstream(limits={"connections": connections})
                relay = self.relay(practice, start=False)
                relay.set("mailbox office", connections=connections)
                practice.pause()
                relay.start()
                sent = self.mail()
                self.assertEqual(self.hand_in(relay, [sent]), [])
                self.assertEqual(len(relay.queue()), MESSAGES)
                practice.resume()
                relay.api("POST", "/v1/mailbox/office/resume")
                self.assertTrue(practice.wait_stored(MESSAGES, 90))
                self.assertEqual(self.assert_all_once(practice, sent), connections)

    def test_messages_a_minute(self):
        """Those above the limit wait for the next minute, here moved by hand."""
        practice = self.upstream(limits={"messages_per_minute": 30})
        relay = self.relay(practice, start=False)
        relay.set("mailbox office", messages_per_minute=10).start()
        sent = [message() for _ in range(25)]
        self.assertEqual(self.hand_in(relay, [sent]), [])
        for expected in (10, 20, 25):
            self.assertTrue(practice.wait_stored(expected, 30))
            self.assertEqual(len(practice.messages()), expected)
            self.assertLessEqual(relay.mailbox()["sent_this_minute"], 10)
            relay.advance(64)
        self.assert_ids(practice, [message_id_of(data) for data in sent])


if __name__ == "__main__":
    unittest.main()
