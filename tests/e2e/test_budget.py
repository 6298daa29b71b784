"""The budget in its less usual moments: an alarm behind everything else, and mail for more people than a day has."""

import threading
import time
import unittest

from harness import EndToEnd, Device, PRINTER, RECIPIENT, eventually, message, message_id_of

ALARM = "127.0.3.1"
WAITING = 2000
PER_SECOND = 20
DAY = 86400


class Budget(EndToEnd):
    def hand_in(self, relay, count):
        """So many scans, by ten devices at a time; returns their Message-IDs."""
        sent = [message(subject=f"Scan {number}") for number in range(count)]

        def device_of(share):
            with Device(relay, timeout=120) as device:
                for data in share:
                    device.sendmail(PRINTER, [RECIPIENT], data)

        threads = [threading.Thread(target=device_of, args=(sent[start::10],)) for start in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [message_id_of(data) for data in sent]

    def arrival(self, practice, name):
        return next((facts["arrived_unix"] for facts in practice.messages() if facts["message_id"] == name), None)

    def test_an_alarm_passes_two_thousand_waiting_scans(self):
        """At twenty messages a second it arrives at once: one is kept for it."""
        practice = self.upstream(limits={"messages_per_minute": PER_SECOND, "minute": 1.0, "rate_policy": "delay"})
        relay = self.relay(practice, start=False, log_level="info")
        relay.set("device alarm", address=ALARM, lane="urgent")
        practice.pause()
        relay.start()
        sent = self.hand_in(relay, WAITING)
        practice.resume()
        relay.tool("resume", "office")
        self.assertTrue(practice.wait_stored(3 * PER_SECOND, 60))
        delays = []
        for _ in range(5):
            alarm = message(subject="Alarm")
            began = time.time()
            relay.send(alarm, source=ALARM)
            name = message_id_of(alarm)
            delays.append(eventually(lambda name=name: self.arrival(practice, name), "the alarm arrived", 20) - began)
            sent.append(name)
        self.assertGreater(len(relay.queue()), WAITING // 10, "there was a queue to pass")
        # The upstream keeps each reply back for up to three messages' time; sanitizers and two cores take theirs.
        self.assertLess(sorted(delays)[2], 1.0, delays)

    def test_lanes_by_listener_device_and_importance(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice, start=False)
        relay.set("listener main", lane="bulk")
        relay.set("device panel", address="127.0.3.2", lane="urgent")
        relay.set("device erp", address="127.0.3.3", importance="yes")
        relay.start()
        cases = (("127.0.3.9", (), "bulk"), ("127.0.3.9", ("Importance: high",), "bulk"),
                 ("127.0.3.2", (), "urgent"), ("127.0.3.3", (), "bulk"),
                 ("127.0.3.3", ("Importance: High",), "urgent"), ("127.0.3.3", ("X-Priority: 1 (Highest)",), "urgent"),
                 ("127.0.3.3", ("importance: low",), "bulk"), ("127.0.3.3", ("X-Priority: 3",), "bulk"))
        for source, extra, lane in cases:
            with self.subTest(source=source, extra=extra):
                data = message(extra=extra)
                relay.send(data, source=source)
                found = eventually(lambda name=message_id_of(data): self.lane_of(relay, name), "it is in the queue")
                self.assertEqual(found, lane)

    def lane_of(self, relay, message_id):
        return next((entry["lane"] for entry in relay.queue()
                     if relay.show(entry["id"])["message_id"] == message_id), None)

    def test_mail_for_more_people_than_a_day_has_leaves_in_parts(self):
        practice = self.upstream(limits={"recipients_per_day": 0})
        relay = self.relay(practice, start=False)
        relay.set("mailbox office", recipients_per_day=4).start()
        relay.send(recipients=["earlier@office.test"])
        self.assertTrue(practice.wait_stored(1))
        people = [f"{name}@office.test" for name in "abcdefghi"]
        relay.send(recipients=people)
        for expected in (3, 7, 9):
            eventually(lambda count=expected: self.reached(practice) == count + 1, f"{expected} were reached")
            relay.wait_event("split") if expected == 3 else None  # pylint: disable=expression-not-assigned
            relay.advance(DAY + 600)
        relay.wait_empty()
        paths = [path for facts in practice.messages()[1:] for path in facts["forward_paths"]]
        self.assertEqual(sorted(paths), sorted(people))

    def reached(self, practice):
        return sum(len(facts["forward_paths"]) for facts in practice.messages())


if __name__ == "__main__":
    unittest.main()
