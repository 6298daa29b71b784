"""Who may hand in mail, and what is refused at once so that the device shows it."""

import smtplib
import socket
import unittest

from harness import PRINTER, RECIPIENT, Device, EndToEnd, eventually, expect, lines_of_base64, message


class Strangers(EndToEnd):
    def test_a_stranger_is_refused_before_anything_else(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("devices", allow="192.168.7.0/24, 10.0.0.1").start()
        with socket.create_connection((relay.address, relay.port), timeout=30) as stranger:
            said = read_to_end(stranger)
        self.assertRegex(said, rb"^554 5\.7\.1 .*\r\n$")
        self.assertEqual(said.count(b"\n"), 1)
        self.assertEqual(eventually(lambda: relay.status()["intake"]["strangers"], "it is counted"), 1)
        with self.assertRaises(smtplib.SMTPConnectError) as caught:
            Device(relay)
        self.assertEqual(caught.exception.smtp_code, 554)

    def test_allowed_ranges_replace_the_default(self):
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        relay.set("devices", allow="127.0.0.0/30").start()
        relay.send()
        self.assertTrue(practice.wait_stored(1))

    def test_sessions_of_one_device_are_limited(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("devices", max_sessions_per_device=2).start()
        first, second = Device(relay), Device(relay)
        with self.assertRaises((smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected)) as caught:
            Device(relay)
        self.assertEqual(getattr(caught.exception, "smtp_code", 421), 421)
        first.quit()
        second.quit()
        eventually(lambda: relay.status()["intake"]["sessions"] == 0, "both have left")
        Device(relay).quit()


class Sizes(EndToEnd):
    LIMIT = 2 << 20

    def limited(self, **values):
        self.practice = self.upstream()
        relay = self.relay(self.practice, start=False)
        relay.set("devices", max_size="2M", **values)
        return relay.start()

    def test_size_is_announced_and_refused_at_mail(self):
        relay = self.limited()
        with Device(relay) as device:
            self.assertEqual(device.esmtp_features["size"], str(self.LIMIT))
            expect(device.mail(PRINTER, [f"SIZE={self.LIMIT + 1}"]), 552, b"5.3.4")
            expect(device.mail(PRINTER, [f"SIZE={self.LIMIT}"]), 250)

    def test_size_is_refused_while_receiving(self):
        """The device says nothing beforehand. It hears 552 at the end, and the session goes on."""
        relay = self.limited()
        with Device(relay) as device:
            device.begin()
            device.send(message(body=lines_of_base64(self.LIMIT + (1 << 20))) + b".\r\n")
            expect(device.getreply(), 552, b"5.3.4")
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertTrue(self.practice.wait_stored(1))
        relay.wait_empty()
        self.assertEqual(len(self.practice.messages()), 1)

    def test_what_just_fits_is_taken(self):
        relay = self.limited()
        head = len(message(body=b"", message_id="<fits@office.test>"))
        lines, rest = divmod(self.LIMIT - head, 78)
        body = (b"q" * 76 + b"\r\n") * lines
        if rest >= 2:
            body += b"r" * (rest - 2) + b"\r\n"
        data = message(body=body, message_id="<fits@office.test>")
        self.assertLessEqual(len(data), self.LIMIT)
        relay.send(data)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_default_is_what_the_mailbox_takes(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("mailbox office", max_size="5MB").start()
        with Device(relay) as device:
            self.assertEqual(device.esmtp_features["size"], str(5 << 20))

    def test_a_552_upstream_teaches(self):
        practice = self.upstream(limits={"message_size": 3 << 20})
        relay = self.relay(practice)
        refused = relay.send(message(body=lines_of_base64(4 << 20)))
        relay.wait_event("size-learnt")
        with Device(relay) as device:
            self.assertLess(int(device.esmtp_features["size"]), len(refused) + 500)
            expect(device.mail(PRINTER, [f"SIZE={len(refused) + 500}"]), 552)
        data = relay.send(message(body=lines_of_base64(2 << 20)))
        self.assertTrue(practice.wait_stored(1))
        self.assert_arrived(practice, data)

    def test_too_many_recipients(self):
        relay = self.limited(max_recipients=3)
        with Device(relay) as device:
            expect(device.mail(PRINTER), 250)
            for number in range(3):
                expect(device.rcpt(f"r{number}@office.test"), 250)
            self.assertEqual(device.rcpt("r4@office.test")[0], 452)
            expect(device.docmd("DATA"), 354)
            device.send(message() + b".\r\n")
            expect(device.getreply(), 250)
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(len(self.practice.messages()[0]["forward_paths"]), 3)


class DiskBudget(EndToEnd):
    def refused(self, relay):
        """The code that a message of a megabyte ends with, wherever it does."""
        data = message(body=lines_of_base64(1 << 20))
        with Device(relay) as device:
            answer = device.mail(PRINTER, [f"SIZE={len(data)}"])
            if answer[0] != 250:
                return answer
            expect(device.rcpt(RECIPIENT), 250)
            answer = device.docmd("DATA")
            if answer[0] != 354:
                return answer
            device.send(data + b".\r\n")
            return device.getreply()

    def test_452_when_the_budget_is_spent_and_250_again_when_mail_has_left(self):
        practice = self.upstream()
        practice.pause()
        relay = self.relay(practice, start=False, spool_max="4M")
        relay.set("devices", max_spool="1G").start()
        accepted = 0
        for _ in range(12):
            answer = self.refused(relay)
            if answer[0] != 250:
                break
            accepted += 1
        expect(answer, 452, b"4.3.1")
        self.assertGreaterEqual(accepted, 2)
        eventually(lambda: any("spool_max" in line for line in relay.lines), "the log says why")
        practice.resume()
        relay.api("POST", "/v1/mailbox/office/resume")
        self.assertTrue(practice.wait_stored(accepted))
        relay.wait_empty()
        expect(eventually(lambda: next((a for a in [self.refused(relay)] if a[0] == 250), None),
                          "mail is taken again"), 250)

    def test_452_when_the_disk_has_to_stay_free(self):
        relay = self.relay(self.upstream(), spool_min_free="1000T")
        expect(self.refused(relay), 452, b"4.3.1")
        self.assertEqual(relay.queue(), [])


class Noise(EndToEnd):
    def test_other_protocols_end_the_session(self):
        relay = self.relay(self.upstream())
        for octets in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            with self.subTest(octets=octets):
                with socket.create_connection((relay.address, relay.port), timeout=30) as noise:
                    noise.sendall(octets)
                    read_to_end(noise)
        self.assertEqual(relay.queue(), [])

    def test_a_long_line_is_refused_and_the_session_goes_on(self):
        relay = self.relay(self.upstream())
        with Device(relay) as device:
            device.send(b"A" * 20_000 + b"\r\n")
            self.assertEqual(device.getreply()[0], 500)
            device.sendmail(PRINTER, [RECIPIENT], message())

    def test_an_endless_line_ends_the_session(self):
        relay = self.relay(self.upstream())
        with socket.create_connection((relay.address, relay.port), timeout=30) as noise:
            noise.sendall(b"A" * (1 << 20))
            self.assertRegex(read_to_end(noise), rb"\r\n500 [^\n]*\r\n$")
        relay.send()

    def test_endless_nonsense_ends_with_421(self):
        relay = self.relay(self.upstream())
        with socket.create_connection((relay.address, relay.port), timeout=30) as noise:
            noise.sendall(b"NONSENSE\r\n" * 100)
            said = read_to_end(noise)
        self.assertTrue(said.splitlines()[-1].startswith(b"421 "), said[-200:])
        self.assertLess(said.count(b"\n"), 30)
        relay.send()


def read_to_end(connection):
    said = b""
    while chunk := connection.recv(65536):
        said += chunk
    return said


if __name__ == "__main__":
    unittest.main()
