"""Mail programs of other people's making hand in mail, and it arrives octet for octet."""

import email
import smtplib
import socket
import subprocess
import threading
import unittest

from harness import (PRINTER, RECIPIENT, Device, EndToEnd, expect, eventually, lines_of_base64, message,
                     needs_program, stuffed, without_trace)

ODD_BODY = (b".a line with a dot in front\r\n..and with two\r\n.\tand a tab\r\n\r\n"
            b"trailing blanks  \t\r\n" + b"x" * 900 + b"\r\n" + "Grüße, ½ €\r\n".encode() + b"\r\n\r\n")


class Devices(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def program(self, arguments, data=b""):
        done = subprocess.run(list(map(str, arguments)), input=data, capture_output=True, timeout=60,
                              check=False)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def file(self, data):
        path = self.directory / "message.eml"
        path.write_bytes(data)
        return path

    def assert_one_arrives(self, data):
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        self.outtray.wait_empty()

    def test_smtplib(self):
        data = message(body=ODD_BODY)
        self.outtray.send(data)
        self.assert_one_arrives(data)
        facts = self.practice.messages()[0]
        self.assertEqual(facts["forward_paths"], [RECIPIENT])
        self.assertEqual((facts["bare_lf"], facts["bare_cr"]), (0, 0))

    @needs_program("swaks")
    def test_swaks(self):
        data = message(body=ODD_BODY)
        self.program(["swaks", "--server", self.outtray.address, "--port", self.outtray.port,
                      "--from", PRINTER, "--to", RECIPIENT, "--helo", "printer",
                      "--data", f"@{self.file(data.replace(b'%', b'%%'))}", "--suppress-data"])
        # swaks strips the last line ends of a file and ends it with two of its own.
        self.assertTrue(self.practice.wait_stored(1))
        arrived, _ = without_trace(self.stored(self.practice))
        self.assertEqual(arrived.rstrip(b"\r\n"), data.rstrip(b"\r\n"))

    @needs_program("curl")
    def test_curl(self):
        data = message(body=ODD_BODY)
        self.program(["curl", "--silent", "--show-error", "--max-time", "60",
                      "--url", f"smtp://{self.outtray.address}:{self.outtray.port}/printer",
                      "--mail-from", PRINTER, "--mail-rcpt", RECIPIENT, "--upload-file", self.file(data)])
        self.assert_one_arrives(data)

    @needs_program("msmtp")
    def test_msmtp(self):
        data = message(body=ODD_BODY)
        self.program(["msmtp", f"--host={self.outtray.address}", f"--port={self.outtray.port}",
                      "--tls=off", "--auth=off", "--domain=printer", f"--from={PRINTER}",
                      "--set-from-header=off", "--set-date-header=off", RECIPIENT],
                     data.replace(b"\r\n", b"\n"))
        self.assert_one_arrives(data)

    @needs_program("curl")
    def test_curl_sends_a_form_with_an_attachment(self):
        scan = self.directory / "scan.pdf"
        scan.write_bytes(b"%PDF-1.4\n" + bytes(range(256)) * 4000)
        self.program(["curl", "--silent", "--show-error", "--max-time", "60",
                      "--url", f"smtp://{self.outtray.address}:{self.outtray.port}/printer",
                      "--mail-from", PRINTER, "--mail-rcpt", RECIPIENT,
                      "--header", f"From: <{PRINTER}>", "--header", "Subject: Scan",
                      "--form", "=See the attachment.;type=text/plain",
                      "--form", f"file=@{scan};type=application/pdf;encoder=base64"])
        self.assertTrue(self.practice.wait_stored(1))
        arrived = email.message_from_bytes(self.stored(self.practice))
        self.assertEqual(arrived.get_payload()[1].get_payload(decode=True), scan.read_bytes())
        self.assertIsNotNone(arrived["Date"])
        self.assertIsNotNone(arrived["Message-ID"])

    def test_large_scan(self):
        data = message(body=lines_of_base64(12 << 20))
        self.outtray.send(data)
        self.assert_one_arrives(data)

    def test_sizes_around_every_boundary(self):
        """Of the session's buffer, of the spool's blocks and of small and large mail."""
        head = len(message(body=b""))
        sent = []
        for total in (head, 16384, 61439, 61440, 61441, 65535, 65536, 65537, 131072, 262144 + 3):
            body = (b"y" * 76 + b"\r\n") * ((total - head) // 78)
            rest = total - head - len(body)
            body += b"z" * max(rest - 2, 0) + b"\r\n" if rest >= 2 else b""
            sent.append(message(body=body))
        with Device(self.outtray) as device:
            for data in sent:
                device.sendmail(PRINTER, [RECIPIENT], data)
        self.assertTrue(self.practice.wait_stored(len(sent)))
        for data in sent:
            with self.subTest(size=len(data)):
                self.assert_arrived(self.practice, data)


class Quirks(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice)

    def deliver_raw(self, octets):
        """Mail data as these octets, in which the end is included."""
        with Device(self.outtray) as device:
            device.begin()
            device.send(octets)
            answer = device.getreply()
        return answer

    def arrived(self):
        self.assertTrue(self.practice.wait_stored(1))
        return without_trace(self.stored(self.practice))[0]

    def test_only_cr_lf_dot_cr_lf_ends_mail_data(self):
        head = message(body=b"")
        smuggled = b"MAIL FROM:<evil@office.test>\r\nRCPT TO:<x@office.test>\r\nDATA\r\nSubject: 2\r\n\r\n"
        data = head + b"a\n.\n" + smuggled + b"b\r.\r" + smuggled + b"c\n.\r\n" + smuggled + b"d\r\n"
        expect(self.deliver_raw(data + b".\r\n"), 250)
        arrived = self.arrived()
        self.outtray.wait_empty()
        self.assertEqual(len(self.practice.messages()), 1)
        self.assertEqual(arrived.count(b"MAIL FROM:<evil@office.test>"), 3)
        self.assertNotIn(b"\n", arrived.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", arrived.replace(b"\r\n", b""))

    def test_line_ends_become_cr_lf(self):
        head = message(body=b"")
        expect(self.deliver_raw(head + b"lf\ncr\rcrcrlf\r\r\nend\r\n.\r\n"), 250)
        self.assertEqual(self.arrived()[len(head):], b"lf\r\ncr\r\ncrcrlf\r\nend\r\n")

    def test_date_and_message_id_are_added_once_when_missing(self):
        expect(self.deliver_raw(b"From: <printer@office.test>\r\nSubject: bare\r\n\r\nbody\r\n.\r\n"), 250)
        arrived = self.arrived()
        self.assertEqual(arrived.count(b"\r\nDate: ") + arrived.startswith(b"Date: "), 1)
        self.assertEqual(arrived.count(b"\r\nMessage-ID: ") + arrived.startswith(b"Message-ID: "), 1)
        self.assertTrue(arrived.endswith(b"\r\n\r\nbody\r\n"))

    def test_trace_field_names_device_and_relay(self):
        self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        _, trace = without_trace(self.stored(self.practice))
        self.assertRegex(trace.decode(), r"(?s)from printer.*127\.0\.0\.1.*by relay\.office\.test.*;.*\d{4} ")

    def test_loop_is_refused(self):
        hops = tuple(f"Received: from a by b; {number}" for number in range(101))
        with Device(self.outtray) as device:
            device.begin()
            device.send(message(extra=hops) + b".\r\n")
            self.assertEqual(device.getreply()[0] // 100, 5)
        self.assertEqual(self.outtray.queue(), [])

    def test_old_habits_are_served(self):
        """HELO, no HELO, lower case, blanks and missing angle brackets."""
        scripts = (
            [b"HELO printer", b"MAIL FROM:<printer@office.test>", b"RCPT TO:<accounts@office.test>"],
            [b"mail from: <printer@office.test>", b"rcpt to: <accounts@office.test>"],
            [b"helo", b"MAIL FROM: printer@office.test", b"RCPT TO: accounts@office.test"],
            [b"EHLO [192.168.1.20]", b"MAIL FROM:<>", b"RCPT TO:<accounts@office.test>"],
        )
        # A null sender is marked as automatic unless it says so itself.
        sent = [message(subject=str(number), extra=("Auto-Submitted: auto-generated",))
                for number in range(len(scripts))]
        for commands, data in zip(scripts, sent):
            with self.subTest(commands=commands):
                with smtplib.SMTP(self.outtray.address, self.outtray.port, timeout=30) as device:
                    for command in commands:
                        device.send(command + b"\r\n")
                        expect(device.getreply(), 250)
                    expect(device.docmd("DATA"), 354)
                    device.send(data + b".\r\n")
                    expect(device.getreply(), 250)
        self.assertTrue(self.practice.wait_stored(len(sent)))
        for data in sent:
            self.assert_arrived(self.practice, data)

    def test_several_messages_in_one_session_with_pipelining(self):
        sent = [message(subject=str(number), body=ODD_BODY) for number in range(5)]
        group = (f"MAIL FROM:<{PRINTER}> BODY=8BITMIME\r\nRCPT TO:<{RECIPIENT}>\r\n"
                 "RCPT TO:<second@office.test>\r\nDATA\r\n").encode()
        with Device(self.outtray) as device:
            for data in sent:
                device.send(group)
                for code in (250, 250, 250, 354):
                    expect(device.getreply(), code)
                device.send(stuffed(data) + b".\r\n")
                expect(device.getreply(), 250)
        self.assertTrue(self.practice.wait_stored(len(sent)))
        for data in sent:
            self.assert_arrived(self.practice, data)
        self.assertEqual(self.practice.messages()[0]["forward_paths"], [RECIPIENT, "second@office.test"])

    def test_commands_around_mail(self):
        with Device(self.outtray) as device:
            self.assertTrue(device.has_extn("pipelining") and device.has_extn("8bitmime"))
            self.assertTrue(device.has_extn("enhancedstatuscodes"))
            self.assertEqual(device.esmtp_features["size"], str(35 << 20))
            expect(device.noop(), 250)
            self.assertEqual(device.verify(RECIPIENT)[0] // 100, 2)
            self.assertEqual(device.docmd("HELP")[0], 214)
            expect(device.mail(PRINTER), 250)
            expect(device.rset(), 250)
            self.assertEqual(device.rcpt(RECIPIENT)[0], 503)
            self.assertEqual(device.docmd("NONSENSE")[0], 500)
            self.assertEqual(device.docmd("DATA")[0], 503)
            expect(device.docmd("QUIT"), 221)

    def test_dropped_in_mail_data_leaves_nothing(self):
        device = Device(self.outtray)
        device.begin()
        device.send(message(body=lines_of_base64(1 << 20)))
        device.hang_up()
        self.outtray.wait_event("incomplete")
        self.assertEqual(self.outtray.queue(), [])
        self.assertEqual(list(self.outtray.spool.glob("**/*.part")), [])
        eventually(lambda: self.outtray.status()["intake"]["sessions"] == 0, "the session has ended")

    def test_slow_device_does_not_delay_another(self):
        slow = Device(self.outtray)
        slow.begin()
        slow.send(b"Subject: slow\r\n")
        data = self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        slow.send(b"\r\nat last\r\n.\r\n")
        expect(slow.getreply(), 250)
        slow.close()

    def test_many_idle_devices(self):
        devices = [Device(self.outtray) for _ in range(100)]
        data = self.outtray.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        threads = [threading.Thread(target=device.quit) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class Listeners(EndToEnd):
    def test_ipv6(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
                port = probe.getsockname()[1]
        except OSError:
            self.skipTest("this machine has no IPv6 loopback address")
        practice = self.upstream()
        outtray = self.relay(practice, start=False)
        outtray.set("listener six", address="::1", port=port).start()
        data = message()
        v4, outtray.address, outtray.port = (outtray.address, outtray.port), "::1", port
        outtray.send(data)
        outtray.address, outtray.port = v4
        outtray.send()
        self.assertTrue(practice.wait_stored(2))
        self.assert_arrived(practice, data)
        self.assertEqual({event["device"] for event in outtray.events("accepted")}, {"::1", "127.0.0.1"})


if __name__ == "__main__":
    unittest.main()
