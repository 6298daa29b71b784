"""A week of an office in minutes: thirty devices, bursts, an outage, throttling, a full mailbox, restarts and kills,
and other software that holds a connection. Everything arrives once, and no limit is ever crossed.

The clocks of the daemon and of the practice upstream are moved together.
"""

import random
import time
import unittest

from harness import MAILBOX, PASSWORD, EndToEnd, eventually, message, message_id_of
from other_software import OtherSoftware

LABELS = "full"

MINUTE, HOUR, DAY = 60, 3600, 86400
DEVICES = 30
STEP = 10 * MINUTE
OPENS, CLOSES = 8 * HOUR, 18 * HOUR
PER_MINUTE, PER_DAY = 30, 450
SETTLE = 0.04  # seconds between two looks that must agree


class Week:
    """The office: moves both clocks, sends what its devices have, and notes when they began."""

    def __init__(self, test):
        self.test = test
        self.offset = 0
        self.now = 0  # seconds since Monday, midnight
        self.sent = []
        self.random = random.Random(2025)
        self.practice = test.upstream(limits={"messages_per_minute": PER_MINUTE, "rate_policy": "refuse",
                                              "recipients_per_day": PER_DAY})
        # pylint: disable=protected-access
        self.practice._shared.ledger._clock = lambda: time.monotonic() + self.offset
        self.relay = test.relay(self.practice, start=False)
        self.relay.set("mailbox office", messages_per_minute=PER_MINUTE, recipients_per_day=PER_DAY)
        self.relay.set("device alarm", address="127.0.2.1", lane="urgent").start()

    # Time

    def move(self, seconds):
        """The upstream's clock goes first: for a moment the relay thinks that less time has passed."""
        time.sleep(SETTLE)
        self.offset += seconds
        self.now += seconds
        self.relay.advance(seconds)

    def quiet(self):
        """Nothing moves any more until time passes."""
        def seen():
            queue = self.relay.status()["queue"]
            return None if queue["in_flight"] else (queue["queued"], queue["uncertain"], len(self.practice.messages()))
        def twice_alike():
            first = seen()
            time.sleep(SETTLE)
            return first is not None and first == seen()
        eventually(twice_alike, "nothing moves", 60)

    def until(self, when):
        """Goes on without new mail."""
        step, left = MINUTE, None
        while self.now < when:
            self.quiet()
            before, left = left, len(self.practice.messages())
            step = 70 if left != before else min(2 * step, HOUR)  # while mail leaves, minute by minute
            self.move(min(when - self.now, step))

    def restart(self, kill=False):
        if kill:
            self.relay.kill()
        else:
            self.relay.stop()
        self.relay.options = [f"--test-clock={self.offset}"]
        self.relay.start()

    # Mail

    def send(self, count=1, device=None):
        for _ in range(count):
            number = device or self.random.randrange(DEVICES) + 1
            people = self.random.choices(("a", "b", "c", "d"), k=self.random.choice((1, 1, 1, 2, 3)))
            data = message(subject=f"Scan {len(self.sent)}", body=b"line\r\n" * self.random.choice((5, 50, 3000)))
            self.relay.send(data, recipients=[f"{name}@office.test" for name in sorted(set(people))],
                            source=f"127.0.2.{number}")
            self.sent.append(message_id_of(data))

    def office_hours(self, until, per_step=(1, 6)):
        """Mail comes now and then."""
        while self.now < until:
            self.send(self.random.randint(*per_step))
            self.quiet()
            self.move(STEP)


class OfficeWeek(EndToEnd):
    def box(self):
        return self.week.practice.counters()["mailboxes"][MAILBOX]

    def assert_no_limit_crossed(self):
        box = self.box()
        self.assertEqual(box["violations"], {"concurrency": 0, "rate": 0, "recipients": 0})
        self.assertLessEqual(box["highest_concurrency"], 3)
        self.assertLessEqual(box["highest_per_minute"], PER_MINUTE)

    def test_a_week(self):
        self.week = Week(self)
        for number, day in enumerate((self.monday, self.tuesday, self.wednesday, self.thursday, self.friday)):
            self.week.until(number * DAY + OPENS)
            day(number * DAY)
            if day != self.friday:
                self.assert_no_limit_crossed()
        self.week.until(7 * DAY)
        self.finish()

    def monday(self, day):
        """Quiet, but for a burst of eighty pages before noon."""
        self.week.office_hours(day + 11 * HOUR)
        self.week.send(80)
        self.week.office_hours(day + CLOSES)

    def tuesday(self, day):
        """The line is down from ten to one; the daemon is restarted when it is back."""
        self.week.office_hours(day + 10 * HOUR)
        self.week.practice.pause(drop=True)
        self.week.office_hours(day + 13 * HOUR)
        self.week.practice.resume()
        self.week.restart()
        self.week.office_hours(day + CLOSES)

    def wednesday(self, day):
        """The service throttles in the afternoon; the daemon is killed in the middle of it."""
        practice = self.week.practice
        self.week.office_hours(day + 13 * HOUR)
        for name in ("concurrency", "submission-rate-mail", "server-busy-500", "temporary-server-error-dot"):
            practice.add_row(name, times=4, after=5)
        practice.add_rule(stage="dot", delay=0.2, times=20)
        self.week.office_hours(day + 15 * HOUR)
        self.week.send(40)
        self.week.restart(kill=True)
        self.week.office_hours(day + CLOSES)
        practice.clear_rules()

    def thursday(self, day):
        """The mailbox is full during the night; the alarm reports all the same, and waits."""
        self.week.office_hours(day + CLOSES)
        self.week.until(day + 20 * HOUR)
        self.week.practice.add_row("mailbox-full")
        for _ in range(5):
            self.week.send(1, device=1)
            self.week.until(self.week.now + HOUR)
        self.assertIn(self.week.practice.rules()[0]["fired"], range(2, 12), "it was probed, no more")
        self.assertEqual(self.week.relay.mailbox()["state"], "paused")
        self.week.practice.clear_rules()

    def friday(self, day):
        """Other software takes connections; the daemon is killed once more."""
        practice, week = self.week.practice, self.week
        week.office_hours(day + 10 * HOUR)
        with OtherSoftware(practice, MAILBOX, PASSWORD), OtherSoftware(practice, MAILBOX, PASSWORD):
            before = practice.counters()["refused"].get("432 4.3.2", 0)
            week.office_hours(day + 14 * HOUR, per_step=(4, 9))
            week.restart(kill=True)
            week.office_hours(day + 16 * HOUR, per_step=(4, 9))
            refusals = practice.counters()["refused"].get("432 4.3.2", 0) - before
            self.assertLessEqual(refusals, 8, "it settles on what is free")
        week.office_hours(day + CLOSES)

    def finish(self):
        """Everything is there, and what is there twice was said to be uncertain."""
        week = self.week
        for _ in range(20):
            if not week.relay.queue():
                break
            week.until(week.now + 6 * HOUR)
        self.assertEqual(week.relay.queue(), [])
        arrived = [facts["message_id"] for facts in week.practice.messages()]
        self.assertEqual(set(arrived), set(week.sent))
        twice = {name for name in arrived if arrived.count(name) > 1}
        flagged = [event for event in week.relay.events("delivered", run=False) if event.get("doubt")]
        self.assertLessEqual(len(arrived) - len(set(arrived)), len(flagged))
        self.assertLess(len(twice), 8)
        box = self.box()
        self.assertLessEqual(box["highest_per_minute"], PER_MINUTE)
        self.assertEqual((box["violations"]["rate"], box["violations"]["recipients"]), (0, 0))
        self.assertEqual(week.relay.mailbox()["state"], "ready")
        self.assertGreater(len(week.sent), 1000)


if __name__ == "__main__":
    unittest.main()
