"""kill -9 at any moment: what was acknowledged arrives, and arrives once unless it was in doubt."""

import contextlib
import smtplib
import threading
import time
import unittest

from harness import (PRINTER, RECIPIENT, Device, EndToEnd, eventually, lines_of_base64, message, message_id_of,
                     without_trace)

LABELS = "threads"
DEVICES = 8


class Flood:
    """Devices that hand in mail until the daemon dies, and remember what was acknowledged."""

    def __init__(self, relay):
        self.relay = relay
        self.acknowledged = []
        self.tried = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(DEVICES)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        with contextlib.suppress(OSError, smtplib.SMTPException):
            device = Device(self.relay)
            for count in range(1000):
                if self._stopping.is_set():
                    device.quit()
                    return
                size = 150_000 if count % 7 == number % 7 else 1_500
                data = message(body=lines_of_base64(size, number * 1000 + count))
                self.tried.append(data)
                device.sendmail(PRINTER, [RECIPIENT], data)
                self.acknowledged.append(data)

    def join(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join()


class Crash(EndToEnd):
    rounds = 6

    def assert_kept(self, practice, flood):
        """Every acknowledged message is there once, unchanged; anything else there was at least tried."""
        arrived = {}
        for number, facts in enumerate(practice.messages(), 1):
            arrived.setdefault(facts["message_id"], []).append(number)
        for data in flood.acknowledged:
            copies = arrived.get(message_id_of(data), [])
            self.assertEqual(len(copies), 1, f"copies of {message_id_of(data)}")
            self.assertEqual(without_trace(self.stored(practice, copies[0]))[0], data)
        tried = {message_id_of(data): data for data in flood.tried}
        for message_id, copies in arrived.items():
            self.assertEqual(len(copies), 1)
            self.assertEqual(without_trace(self.stored(practice, copies[0]))[0], tried[message_id])

    def test_killed_while_accepting(self):
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        practice.pause()
        floods = []
        for number in range(self.rounds):
            relay.start()
            flood = Flood(relay)
            floods.append(flood)
            eventually(lambda f=flood: len(f.acknowledged) > 5 + number, "mail is accepted")
            relay.kill()
            flood.join()
        relay.start()
        self.assertEqual(int(relay.events("spool-open")[0]["damaged"]), 0)
        together = floods[0]
        for flood in floods[1:]:
            together.acknowledged += flood.acknowledged
            together.tried += flood.tried
        self.assertGreaterEqual(len(relay_ids(relay)), len(together.acknowledged))
        practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        eventually(lambda: not relay.queue(), "everything has left", 120)
        self.assert_kept(practice, together)

    def test_killed_while_accepting_and_sending(self):
        """What was in doubt is sent again after its wait; that is the only way to a second copy."""
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        acknowledged, tried, uncertain = [], {}, 0
        for number in range(self.rounds):
            relay.start()
            uncertain += int(relay.events("spool-open")[0]["uncertain"])
            flood = Flood(relay)
            eventually(lambda: len(practice.messages()) > 8 * (number + 1), "mail has arrived", 60)
            relay.kill()
            flood.join()
            acknowledged += flood.acknowledged
            tried.update((message_id_of(data), data) for data in flood.tried)
        relay.start()
        uncertain += int(relay.events("spool-open")[0]["uncertain"])
        relay.advance(16 * 60)
        eventually(lambda: not relay.queue(), "everything has left", 120)
        ids = [facts["message_id"] for facts in practice.messages()]
        for data in acknowledged:
            self.assertIn(message_id_of(data), ids)
        self.assertLessEqual(len(ids) - len(set(ids)), uncertain, "only what was in doubt may arrive twice")
        for number, message_id in enumerate(ids, 1):
            self.assertEqual(without_trace(self.stored(practice, number))[0], tried[message_id])

    def test_killed_in_doubt_waits_and_is_sent_again_with_the_same_message_id(self):
        practice = self.upstream()
        practice.add_rule(stage="dot", action="hang-after-store", times=1)
        relay = self.relay(practice)
        data = relay.send()
        self.assertTrue(practice.wait_stored(1))
        relay.kill()
        relay.start()
        self.assertEqual(relay.events("spool-open")[0]["uncertain"], "1")
        entry = relay.queue()[0]
        self.assertEqual(entry["state"], "uncertain")
        self.assertGreater(entry["due_in"], 10 * 60)
        time.sleep(0.5)  # nothing may happen now, so there is nothing to wait for
        self.assertEqual(len(practice.messages()), 1)
        relay.advance(15 * 60)
        self.assertTrue(practice.wait_stored(2))
        relay.wait_empty()
        self.assertEqual([facts["message_id"] for facts in practice.messages()], [message_id_of(data)] * 2)

    def test_a_message_with_outcomes_of_some_recipients_does_not_repeat_them(self):
        practice = self.upstream()
        practice.add_rule(stage="rcpt", match="later@", reply="451 4.3.0 later", times=1)
        relay = self.relay(practice)
        relay.send(recipients=["now@office.test", "later@office.test"])
        self.assertTrue(practice.wait_stored(1))
        eventually(lambda: [r["state"] for r in relay.show(relay.queue()[0]["id"])["recipients"]]
                   == ["delivered", "pending"], "the outcome is recorded")
        relay.kill()
        relay.start()
        relay.advance(3600)
        self.assertTrue(practice.wait_stored(2))
        self.assertEqual([facts["forward_paths"] for facts in practice.messages()],
                         [["now@office.test"], ["later@office.test"]])


def relay_ids(relay):
    """All ids, page by page."""
    ids, path = [], "/v1/queue?limit=500"
    while path:
        page = relay.api("GET", path)[1]
        ids += [entry["id"] for entry in page["messages"]]
        path = f"/v1/queue?limit=500&after={page['next']}" if page.get("next") else None
    return ids


if __name__ == "__main__":
    unittest.main()
