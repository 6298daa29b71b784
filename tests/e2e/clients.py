"""What the tests with mail programs of other people's making share: a listener that asks for a login, and a scan."""

import email
import pathlib
import subprocess

from harness import EndToEnd, lines_of_base64, message, without_trace

MAILERS = pathlib.Path(__file__).resolve().parent / "mailers"
LOGIN = "camera@office.test"
SCAN = b"%PDF-1.4\n.\n..\r\n\r\n.\r\n" + bytes(range(256)) * 600 + b"\n."
MODES = ("none", "starttls", "implicit")
MECHANISMS = ("PLAIN", "LOGIN")


class Clients(EndToEnd):
    """Each program signs in, sends, and what arrives is compared."""

    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice, start=False)
        self.outtray.set("listener main", auth="required")
        self.outtray.set("devices", passwords=self.directory / "device-passwords")
        self.outtray.set("device camera", login=LOGIN)
        self.configure(self.outtray)
        self.outtray.start()
        self.password = self.outtray.json("passwd", "camera")["password"]
        self.authority = self.outtray.spool / "tls" / "certificate.pem"
        self.scan = self.directory / "scan.pdf"
        self.scan.write_bytes(SCAN)
        self.number = 0

    def configure(self, outtray):
        """More of it."""

    def program(self, arguments, data=b"", environment=None):
        done = subprocess.run(list(map(str, arguments)), input=data, capture_output=True, timeout=120,
                              check=False, env=environment)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def arrived(self, tls):
        """The next message, without its trace field, which tells how it came."""
        self.number += 1
        self.assertTrue(self.practice.wait_stored(self.number))
        data, trace = without_trace(self.stored(self.practice, self.number))
        self.assertIn(b" with ESMTPA id " if tls == "none" else b" with ESMTPSA id ", trace)
        self.assertEqual(self.outtray.wait_event("accepted", self.number)["device"], "camera")
        self.assertEqual((self.practice.messages()[-1]["bare_lf"], self.practice.messages()[-1]["bare_cr"]), (0, 0))
        return data

    def assert_same(self, data, tls):
        arrived = self.arrived(tls)
        self.assertEqual(len(arrived), len(data))
        self.assertTrue(arrived == data, "the octets differ")

    def assert_scan(self, tls):
        """That the program's own message has the scan attached, octet for octet."""
        parts = [part for part in email.message_from_bytes(self.arrived(tls)).walk() if part.get_filename()]
        self.assertEqual(len(parts), 1)
        self.assertTrue(parts[0].get_payload(decode=True) == SCAN, "the attachment differs")

    def message_file(self, octets=200_000):
        """(a message with an attachment, the file with it)"""
        data = attached(lines_of_base64(octets, self.number))
        path = self.directory / "message.eml"
        path.write_bytes(data)
        return data, path


def attached(base64):
    head = (b"This is a multipart message.\r\n--scan\r\nContent-Type: text/plain\r\n\r\n.\r\n..a dot\r\n.\r\n"
            b"--scan\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
            b"Content-Disposition: attachment; filename=scan.pdf\r\n\r\n")
    return message(extra=("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=scan"),
                   body=head + base64 + b"--scan--\r\n")
