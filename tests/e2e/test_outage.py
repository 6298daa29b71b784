"""The upstream, the network or the mailbox is in trouble: mail waits, and leaves when the trouble is gone."""

import random
import time
import unittest

from harness import (MAILBOX, PASSWORD, PRINTER, RECIPIENT, Device, EndToEnd, eventually, lines_of_base64,
                     message, message_id_of)

MINUTE, HOUR, DAY = 60, 3600, 86400


class Outages(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()

    def wait_for_probe(self, relay, patience=30):
        """Moves the clock to the mailbox's next try."""
        wait = eventually(lambda: relay.mailbox()["next_try_in"], "the mailbox waits", patience)
        relay.advance(int(wait) + 1)

    def wait_for_failed_probe(self, relay):
        troubles = len(relay.events("mailbox-trouble"))
        self.wait_for_probe(relay)
        relay.wait_event("mailbox-trouble", troubles + 1)

    def assert_all_waits(self, relay, count):
        messages = relay.queue()
        self.assertEqual(len(messages), count)
        self.assertEqual({entry["state"] for entry in messages}, {"queued"})

    def test_upstream_down_for_a_while_then_everything_leaves(self):
        relay = self.relay(self.practice)
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.practice.pause(drop=True)
        sent = [relay.send() for _ in range(20)]
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        for _ in range(6):
            self.wait_for_failed_probe(relay)
            self.assert_all_waits(relay, 20)
        self.assertTrue(relay.mailbox()["problem"])
        self.practice.resume()
        self.wait_for_probe(relay)
        self.assertTrue(self.practice.wait_stored(21, 60))
        for data in sent:
            self.assert_arrived(self.practice, data)
        relay.wait_empty()
        self.assertEqual(relay.mailbox()["state"], "ready")
        self.assertEqual(relay.mailbox()["problem"], "")

    def test_a_week_without_upstream_costs_no_message(self):
        """Only time counts in which the message could have been tried."""
        self.practice.pause()
        relay = self.relay(self.practice)
        data = relay.send()
        for _ in range(7 * 4):
            relay.advance(DAY // 4)
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        self.assert_all_waits(relay, 1)
        self.practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_unknown_host_name_still_accepts_mail(self):
        relay = self.relay(self.practice, start=False)
        relay.set("mailbox office", host="upstream.invalid").start()
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits", 60)
        self.assert_all_waits(relay, 1)
        self.assertIn("upstream.invalid", str(relay.mailbox()))

    def test_refused_sign_in_pauses_the_mailbox_and_mail_waits(self):
        """Each refused attempt counts towards a lockout, so there is one, and then a pause."""
        self.practice.put_account(address=MAILBOX, password="changed-by-somebody")
        relay = self.relay(self.practice)
        sent = [relay.send() for _ in range(5)]
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertEqual(self.practice.counters()["auth_failed"], 1)
        self.assert_all_waits(relay, 5)
        status = relay.status()
        self.assertEqual(status["state"], "attention")
        self.assertIn("535", relay.mailbox()["last_reply"])
        self.assertTrue(status["problems"][0]["remedy"])
        self.assertNotIn(PASSWORD, str(status) + "\n".join(relay.lines))
        self.wait_for_failed_probe(relay)
        self.assertEqual(self.practice.counters()["auth_failed"], 2)
        (relay.directory / "password").write_text("changed-by-somebody\n", encoding="ascii")
        relay.advance(10)  # it is noticed
        self.assertTrue(self.practice.wait_stored(5))
        for data in sent:
            self.assert_arrived(self.practice, data)
        relay.wait_event("mailbox-recovered")

    def test_missing_password_pauses_until_the_file_is_there(self):
        relay = self.relay(self.practice, start=False)
        (relay.directory / "password").unlink()
        relay.start()
        data = relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertEqual(self.practice.counters()["connections"], 0)
        self.assertIn(str(relay.directory / "password"), str(relay.mailbox()))
        file = relay.directory / "password"
        file.write_text(PASSWORD + "\n", encoding="ascii")
        file.chmod(0o600)
        relay.tool("resume", "office")
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_432_means_fewer_connections(self):
        """Others use the mailbox, too: the service refuses the third connection's mail."""
        practice = self.upstream(limits={"connections": 2})
        relay = self.relay(practice)
        practice.pause()
        sent = [relay.send() for _ in range(40)]
        practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        for _ in range(8):
            if practice.wait_stored(len(sent), 4):
                break
            relay.advance(30)
        self.assertTrue(practice.wait_stored(len(sent), 30))
        self.assert_ids(practice, [message_id_of(data) for data in sent])
        refused = sum(count for code, count in practice.counters()["refused"].items()
                      if code.startswith("432"))
        self.assertLessEqual(refused, 3)

    def test_451_after_the_dot_is_tried_again_soon(self):
        self.practice.add_rule(stage="dot", reply="451 4.7.0 Temporary server error. Please try again later", times=1)
        relay = self.relay(self.practice)
        data = relay.send()
        eventually(lambda: relay.queue() and relay.queue()[0]["due_in"] or relay.mailbox()["next_try_in"],
                   "it waits")
        relay.advance(10 * MINUTE)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_421_at_the_banner_is_the_upstreams_trouble(self):
        self.practice.add_rule(stage="banner", reply="421 4.3.2 Service not available", times=1)
        relay = self.relay(self.practice)
        data = relay.send()
        self.wait_for_probe(relay)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_idle_connections_are_closed_by_the_upstream_without_harm(self):
        practice = self.upstream(limits={"idle_seconds": 1})
        relay = self.relay(practice)
        for number in range(1, 4):
            relay.send()
            self.assertTrue(practice.wait_stored(number))
            eventually(lambda: practice.counters()["connections_open"] == 0, "the upstream has closed")
        self.assertEqual(relay.mailbox()["state"], "ready")
        self.assertEqual(practice.counters()["duplicates"], 0)

    def test_connections_that_end_in_the_moment_of_use(self):
        """The upstream closes idle connections about when the next message is lent one."""
        self.practice.add_rule(stage="idle", match="^data$", delay=0.03)
        relay = self.relay(self.practice)
        pauses = random.Random(1)
        sent = [message(body=lines_of_base64(100_000 if number % 2 else 1_000, number)) for number in range(120)]
        with Device(relay) as device:
            for data in sent:
                device.sendmail(PRINTER, [RECIPIENT], data)
                time.sleep(pauses.uniform(0.02, 0.045))
        self.assertTrue(self.practice.wait_stored(len(sent)))
        self.assert_ids(self.practice, [message_id_of(data) for data in sent])
        self.assertEqual(relay.mailbox()["state"], "ready")

    def test_wall_clock_steps_neither_expire_nor_stall(self):
        self.practice.pause()
        relay = self.relay(self.practice, give_up="1h")
        relay.send()
        relay.advance(30 * DAY)
        self.assert_all_waits(relay, 1)


class SecondMailbox(EndToEnd):
    def test_mail_takes_the_second_mailbox_while_the_first_is_paused(self):
        practice = self.upstream(accounts=[{"address": MAILBOX, "password": "something else"},
                                           {"address": "backup@office.test", "password": PASSWORD}])
        relay = self.relay(practice, start=False)
        relay.set("mailbox backup", **{**relay.sections["mailbox office"], "address": "backup@office.test"})
        relay.start()
        data = relay.send()
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, data)
        self.assertEqual(practice.messages()[0]["mailbox"], "backup@office.test")
        self.assertEqual(relay.mailbox("office")["state"], "paused")
        self.assertEqual(relay.mailbox("backup")["state"], "ready")


if __name__ == "__main__":
    unittest.main()
