"""Whom mail is from: acceptable to the mailbox, and the original is not lost."""

import re
import unittest
from email.header import decode_header, make_header

from harness import EndToEnd, Device, MAILBOX, PASSWORD, RECIPIENT, expect


def header_of(stored):
    """The header's fields by name, unfolded."""
    head = re.sub(r"\r\n[ \t]+", " ", stored.split(b"\r\n\r\n")[0].decode())
    return dict(line.split(": ", 1) for line in head.split("\r\n"))


class Identity(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream(limits={"check_from": True})

    def sent_as(self, fields, sender="copier@copier.local", settings=(), device=()):
        """What arrives of a message with these header fields."""
        outtray = self.relay(self.practice, start=False)
        outtray.set("mailbox office", send_as=None)
        outtray.set("mailbox office", **dict(settings))
        if device:
            outtray.set("device copier", address="127.0.0.1", **dict(device))
        outtray.start()
        with Device(outtray) as printer:
            printer.mail(sender)
            printer.rcpt(RECIPIENT)
            printer.data(f"{fields}\r\nSubject: Scan\r\n\r\nBody, not changed. \r\n.\r\nEnd\r\n")
        self.assertTrue(self.practice.wait_stored(1), "\n".join(outtray.lines[-20:]))
        stored = self.stored(self.practice)
        self.assertTrue(stored.endswith(b"\r\n\r\nBody, not changed. \r\n.\r\nEnd\r\n"), stored)
        return header_of(stored), self.practice.messages()[0]

    def test_a_device_with_an_address_of_its_own_gets_its_mail_through(self):
        header, facts = self.sent_as("From: Copier <scan@customer-mail.com>")
        self.assertEqual(header["From"], f"Copier <{MAILBOX}>")
        self.assertEqual(header["Reply-To"], "Copier <scan@customer-mail.com>")
        self.assertEqual(facts["reverse_path"], MAILBOX)

    def test_an_address_that_cannot_be_answered_stays_visible(self):
        header, _ = self.sent_as("From: root@nas")
        self.assertEqual(header["X-Original-From"], "root@nas")
        self.assertNotIn("Reply-To", header)

    def test_an_address_that_the_mailbox_may_send_as_is_kept(self):
        self.practice.put_account(address=MAILBOX, password=PASSWORD, aliases=("alarm@office.test",))
        header, facts = self.sent_as("From: Alarm <alarm@office.test>", sender="alarm@office.test",
                                     settings={"send_as": "alarm@office.test"})
        self.assertEqual(header["From"], "Alarm <alarm@office.test>")
        self.assertEqual(facts["reverse_path"], "alarm@office.test")

    def test_mail_with_the_null_reverse_path_goes_out_as_the_mailbox(self):
        header, facts = self.sent_as(f"From: {MAILBOX}", sender="")
        self.assertEqual(facts["reverse_path"], MAILBOX)
        self.assertEqual(header["Auto-Submitted"], "auto-generated")

    def test_a_device_may_have_a_name_and_an_address_of_its_own(self):
        header, _ = self.sent_as("From: x@customer-mail.com", settings={"from_name": "Office"},
                                 device={"from": MAILBOX, "from_name": "Copier, hall"})
        self.assertEqual(header["From"], f'"Copier, hall" <{MAILBOX}>')
        self.assertEqual(header["Reply-To"], "x@customer-mail.com")

    def test_an_address_beyond_ascii_never_makes_the_header_need_smtputf8(self):
        outtray = self.relay(self.practice)
        with Device(outtray) as printer:
            for line in ("MAIL FROM:<kopierer-b\u00fcro@example.com> SMTPUTF8", f"RCPT TO:<{RECIPIENT}>"):
                printer.send(line.encode() + b"\r\n")
                expect(printer.getreply(), 250)
            expect(printer.data("From: <kopierer-b\u00fcro@example.com>\r\nTo: B\u00fcro <jane@office.test>\r\n"
                                "Subject: Gr\u00fc\u00dfe\r\n\r\nBody\r\n".encode()), 250)
        self.assertTrue(self.practice.wait_stored(1), "\n".join(outtray.lines[-20:]))
        stored = self.stored(self.practice)
        self.assertTrue(stored.isascii(), stored)
        header = header_of(stored)
        self.assertNotIn("Reply-To", header)
        read = {name: str(make_header(decode_header(header[name]))) for name in ("X-Original-From", "To", "Subject")}
        self.assertEqual(read, {"X-Original-From": "<kopierer-b\u00fcro@example.com>",
                                "To": "B\u00fcro <jane@office.test>", "Subject": "Gr\u00fc\u00dfe"})


if __name__ == "__main__":
    unittest.main()
