"""Stopping loses nothing, and two daemons never share a spool."""

import signal
import socket
import threading
import unittest

from harness import Device, EndToEnd, eventually, expect, lines_of_base64, message

LABELS = "threads"
EX_TEMPFAIL, EX_CONFIG, EX_OSERR = 75, 78, 71


class Stopping(EndToEnd):
    def test_idle_daemon_stops_at_once_for_sigterm_and_sigint(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                relay = self.relay(self.upstream())
                relay.signal(number)
                self.assertEqual(relay.wait_end(), 0)
                self.assertFalse(relay.socket.exists())

    def test_idle_devices_hear_421(self):
        relay = self.relay(self.upstream())
        device = Device(relay)
        relay.signal(signal.SIGTERM)
        self.assertEqual(device.getreply()[0], 421)
        device.close()
        self.assertEqual(relay.wait_end(), 0)

    def test_mail_data_under_way_is_finished_and_acknowledged(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice)
        data = message(body=lines_of_base64(300_000))
        device = Device(relay)
        device.begin()
        device.send(data[:150_000])
        eventually(lambda: relay.status()["intake"]["sessions"] == 1, "the device is connected")
        relay.signal(signal.SIGTERM)
        relay.wait_event("stopping")
        with self.assertRaises(OSError):
            while True:  # the listener closes: within a moment nobody new gets in
                Device(relay, timeout=2).close()
        device.send(data[150_000:] + b".\r\n")
        expect(device.getreply(), 250)
        device.close()
        self.assertEqual(relay.wait_end(), 0)
        practice.resume()
        relay.start()
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, data)

    def test_submission_under_way_is_finished(self):
        practice = self.upstream()
        practice.add_rule(stage="dot", delay=2, times=1)
        relay = self.relay(practice)
        data = relay.send()
        eventually(lambda: relay.queue() and relay.queue()[0]["in_doubt"], "its outcome is open")
        relay.stop()
        self.assert_arrived(practice, data)
        relay.start()
        self.assertEqual(relay.queue(), [])
        self.assertEqual(relay.events("spool-open")[0]["uncertain"], "0")
        self.assertEqual(len(practice.messages()), 1)

    def test_stop_time_bounds_the_wait(self):
        """A device that never ends its mail data, and an upstream that never answers."""
        practice = self.upstream()
        practice.add_rule(stage="dot", action="hang-after-store", times=1)
        relay = self.relay(practice, stop_time="2s")
        relay.send()
        eventually(lambda: relay.queue() and relay.queue()[0]["in_doubt"], "its outcome is open")
        device = Device(relay)
        device.begin()
        device.send(b"Subject: endless\r\n")
        relay.signal(signal.SIGTERM)
        self.assertEqual(relay.wait_end(15), 0)
        self.assertTrue(relay.events("stop-limit"))
        relay.start()
        self.assertEqual([entry["state"] for entry in relay.queue()], ["uncertain"])
        self.assertEqual(len(practice.messages()), 1)

    def test_stopping_in_a_flood_loses_nothing(self):
        practice = self.upstream()
        relay = self.relay(practice)
        acknowledged = []

        def hand_in():
            try:
                with Device(relay) as device:
                    for _ in range(500):
                        data = message(body=lines_of_base64(20_000))
                        device.sendmail("printer@office.test", ["accounts@office.test"], data)
                        acknowledged.append(data)
            except Exception:  # pylint: disable=broad-exception-caught
                pass  # it is being stopped

        threads = [threading.Thread(target=hand_in) for _ in range(5)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(acknowledged) > 20, "mail is accepted")
        relay.stop()
        for thread in threads:
            thread.join()
        relay.start()
        eventually(lambda: not relay.queue(), "everything has left", 90)
        for data in acknowledged:
            self.assert_arrived(practice, data)
        self.assertEqual(practice.counters()["duplicates"], 0)

    def test_sighup_changes_nothing_and_says_so(self):
        relay = self.relay(self.upstream())
        relay.signal(signal.SIGHUP)
        relay.wait_event("hangup")
        relay.send()


class TwoDaemons(EndToEnd):
    def test_a_second_daemon_on_the_same_spool_is_refused(self):
        practice = self.upstream()
        first = self.relay(practice)
        second = self.relay(practice, start=False, spool=first.spool)
        second.start(wait=False)
        self.assertEqual(second.wait_end(), EX_TEMPFAIL)
        reason = second.events("start-failed")[0]["reason"]
        self.assertIn(str(first.spool), reason)
        first.send()
        self.assertTrue(practice.wait_stored(1))

    def test_a_second_daemon_on_the_same_port_is_refused(self):
        first = self.relay(self.upstream())
        second = self.relay(None, start=False)
        second.set("listener main", address=first.address)
        second.start(wait=False)
        self.assertEqual(second.wait_end(), EX_OSERR)
        self.assertIn(str(first.port), second.events("start-failed")[0]["reason"])

    def test_a_second_daemon_on_the_same_control_socket_is_refused(self):
        first = self.relay(self.upstream())
        second = self.relay(None, start=False)
        second.set("api", socket=first.socket)
        second.start(wait=False)
        self.assertEqual(second.wait_end(), EX_TEMPFAIL)
        self.assertEqual(first.status()["pid"], first.process.pid)

    def test_a_stale_control_socket_is_replaced(self):
        relay = self.relay(self.upstream())
        relay.kill()
        self.assertTrue(relay.socket.exists())
        relay.start()
        self.assertEqual(relay.status()["pid"], relay.process.pid)

    def test_the_port_is_free_again_after_a_stop(self):
        relay = self.relay(self.upstream())
        relay.stop()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((relay.address, relay.port))


if __name__ == "__main__":
    unittest.main()
