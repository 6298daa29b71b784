"""A disk that lies and descriptors that run out: it is said, it passes, and nothing spins or is stuck."""

import contextlib
import os
import resource
import socket
import time
import unittest

from harness import Device, EndToEnd, eventually, expect, message

MARK = b"these octets will be damaged"


class Damage(EndToEnd):
    def test_a_damaged_message_is_held_and_can_be_deleted(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice)
        relay.send(message(body=MARK + b"\r\n"))
        intact = relay.send()
        eventually(lambda: relay.mailbox()["next_try_in"], "the mailbox waits")
        self.damage(relay.spool / "journal")
        practice.resume()
        relay.advance(3600)
        relay.wait_event("unreadable")
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, intact)
        left = eventually(lambda: [e for e in relay.queue() if not e["in_flight"]], "its lease has ended")
        self.assertEqual([(e["state"], e["damaged"]) for e in left], [("held", True)])
        name = left[0]["id"].encode()
        done = relay.tool("status", check=False)
        self.assertEqual(done.returncode, 1)
        words = b" ".join(done.stdout.split())
        self.assertIn(b"1. 1 message is damaged on the disk: " + name + b" ->", words)
        self.assertNotIn(b" 2. ", words, "it is told of once")
        self.assertNotIn(b"retry", words)
        self.assertIn(b"damaged", relay.tool("queue").stdout)
        self.assertEqual(relay.api("DELETE", f"/v1/queue/{left[0]['id']}")[0], 200)
        self.assertEqual(relay.queue(), [])

    def damage(self, journal):
        """Below the daemon, as a bad disk does."""
        for segment in journal.glob("*.seg"):
            at = segment.read_bytes().find(MARK)
            if at >= 0:
                with open(segment, "r+b") as file:
                    file.seek(at)
                    file.write(b"T")
                return
        self.fail("the message is not in the journal")


class Descriptors(EndToEnd):
    @contextlib.contextmanager
    def few(self, relay, more):
        """Only so many more than are open now."""
        limits = resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{relay.process.pid}/fd"))
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (used + more, limits[1]))
        try:
            yield
        finally:
            resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, limits)

    def seconds_of(self, relay):
        """Processor time used so far."""
        with open(f"/proc/{relay.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def assert_calm(self, relay):
        used, lines = self.seconds_of(relay), len(relay.lines)
        time.sleep(2)  # nothing much may happen now, so there is nothing to wait for
        self.assertLess(self.seconds_of(relay) - used, 0.3)
        self.assertLess(len(relay.lines) - lines, 20)

    def test_a_crowd_at_the_control_socket_does_not_make_the_daemon_spin(self):
        relay = self.relay(self.upstream())
        with self.few(relay, 2), contextlib.ExitStack() as crowd:
            for _ in range(8):
                visitor = crowd.enter_context(socket.socket(socket.AF_UNIX))
                visitor.connect(str(relay.socket))
            self.assert_calm(relay)
        self.assertEqual(relay.status()["pid"], relay.process.pid)

    def test_a_crowd_of_devices_waits_and_is_served(self):
        practice = self.upstream()
        relay = self.relay(practice)
        with Device(relay) as first:
            with self.few(relay, 1), contextlib.ExitStack() as crowd:
                for _ in range(5):
                    crowd.enter_context(socket.create_connection((relay.address, relay.port)))
                relay.wait_event("accept-failed")
                self.assert_calm(relay)
                first.begin()
                first.send(message() + b".\r\n")
                expect(first.getreply(), 250)
            data = relay.send()
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(practice.wait_stored(2))
        self.assert_arrived(practice, data)


if __name__ == "__main__":
    unittest.main()
