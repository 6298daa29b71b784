"""Mail programs of other people's making, with every kind of TLS and login they have, and an attachment."""

import contextlib
import email.message
import itertools
import os
import smtplib
import ssl
import subprocess
import unittest

from clients import LOGIN, MAILERS, MECHANISMS, MODES, SCAN, Clients, attached
from harness import (PATIENCE, PRINTER, RECIPIENT, EndToEnd, expect, lines_of_base64, needs_program, sha256,
                     stuffed, without_trace)
from packages import Unavailable, unpacked

LARGE = 20 << 20
PERL_PACKAGES = ("libio-socket-ssl-perl", "libnet-ssleay-perl", "libauthen-sasl-perl")


class Programs(Clients):
    @needs_program("swaks")
    def test_swaks(self):
        """With its five ways to use TLS or not."""
        ways = ((), ("--tls",), ("--tls-on-connect",), ("--tls-optional",), ("--tls-optional-strict",))
        for number, options in enumerate(ways):
            mechanism = MECHANISMS[number % 2]
            with self.subTest(options=options, mechanism=mechanism):
                self.program(["swaks", "--server", self.outtray.address, "--port", self.outtray.port, "--helo", "swaks",
                              "--from", PRINTER, "--to", RECIPIENT, "--auth", mechanism, "--auth-user", LOGIN,
                              "--auth-password", self.password, "--attach-type", "application/pdf",
                              "--attach-name", "scan.pdf", "--attach", f"@{self.scan}", "--suppress-data",
                              *options])
                self.assert_scan("starttls" if options else "none")

    def curl(self, tls, mechanism, file):
        scheme = "smtps" if tls == "implicit" else "smtp"
        required = ["--ssl-reqd"] if tls == "starttls" else []
        self.program(["curl", "--silent", "--show-error", "--max-time", "100", *required,
                      "--cacert", self.authority,
                      "--url", f"{scheme}://{self.outtray.address}:{self.outtray.port}/curl",
                      "--user", f"{LOGIN}:{self.password}", "--login-options", f"AUTH={mechanism}",
                      "--mail-from", PRINTER, "--mail-rcpt", RECIPIENT, "--upload-file", file])

    @needs_program("curl")
    def test_curl(self):
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism):
                data, file = self.message_file()
                self.curl(tls, mechanism, file)
                self.assert_same(data, tls)

    @needs_program("curl")
    def test_curl_uploads_20_mb(self):
        for tls in ("none", "implicit"):
            with self.subTest(tls=tls):
                data, file = self.message_file(LARGE)
                self.curl(tls, "PLAIN", file)
                self.assert_same(data, tls)

    @needs_program("msmtp")
    def test_msmtp(self):
        options = {"none": ["--tls=off"], "starttls": ["--tls=on", "--tls-starttls=on"],
                   "implicit": ["--tls=on", "--tls-starttls=off"]}
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism):
                data, _ = self.message_file()
                self.program(["msmtp", f"--host={self.outtray.address}", f"--port={self.outtray.port}",
                              *options[tls], *([f"--tls-trust-file={self.authority}"] if tls != "none" else []),
                              f"--auth={mechanism.lower()}", f"--user={LOGIN}",
                              f"--passwordeval=echo {self.password}", "--domain=msmtp", f"--from={PRINTER}",
                              "--set-from-header=off", "--set-date-header=off", RECIPIENT],
                             data.replace(b"\r\n", b"\n"))
                self.assert_same(data, tls)

    @contextlib.contextmanager
    def smtplib(self, tls):
        trust = ssl.create_default_context(cafile=self.authority)
        place = (self.outtray.address, self.outtray.port, "python")
        if tls == "implicit":
            session = smtplib.SMTP_SSL(*place, timeout=PATIENCE, context=trust)
        else:
            session = smtplib.SMTP(*place, timeout=PATIENCE)
        with session:
            if tls == "starttls":
                expect(session.starttls(context=trust), 220)
            session.ehlo()
            session.user, session.password = LOGIN, self.password
            yield session

    def test_smtplib(self):
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism), self.smtplib(tls) as session:
                expect(session.auth(mechanism, getattr(session, f"auth_{mechanism.lower()}")), 235)
                session.send_message(self.composed())
                self.assert_scan(tls)

    @staticmethod
    def composed():
        mail = email.message.EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = PRINTER, RECIPIENT, "Scan"
        mail.set_content("Please find the scan attached.\n.\n..\n")
        mail.add_attachment(SCAN, maintype="application", subtype="pdf", filename="Grüße.pdf")
        return mail

    @needs_program("perl")
    def test_perl(self):
        try:
            root = unpacked("perl", PERL_PACKAGES)
        except Unavailable as error:
            self.skipTest(f"no IO::Socket::SSL: {error}")
        folders = [root / "usr/share/perl5", *root.glob("usr/lib/*/perl5/*")]
        environment = {**os.environ, "PERL5LIB": ":".join(map(str, folders))}
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism):
                data, file = self.message_file()
                self.program(["perl", MAILERS / "net_smtp.pl", self.outtray.address, self.outtray.port, tls, mechanism,
                              LOGIN, self.password, self.authority, PRINTER, RECIPIENT, file], environment=environment)
                self.assert_same(data, tls)


OLD = {  # what an old device can do: options of openssl s_client, and how the relay should name it
    "TLS 1.0": (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "TLS 1.0", "TLSv1 "),
    "TLS 1.1": (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "TLS 1.1", "TLSv1.1 "),
    "TLS 1.0, RSA key exchange": (["-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"],
                                  "TLS 1.0, RSA key exchange only", "TLSv1 "),
    "TLS 1.2, RSA key exchange, CBC": (["-tls1_2", "-cipher", "AES256-SHA:@SECLEVEL=0"],
                                       "TLS 1.2, RSA key exchange only", "TLSv1.2 "),
    "TLS 1.2, RSA key exchange, CBC, SHA-256": (["-tls1_2", "-cipher", "AES128-SHA256:@SECLEVEL=0"],
                                                "TLS 1.2, RSA key exchange only", "TLSv1.2 "),
}


@needs_program("openssl")
class OldDevices(EndToEnd):
    """A whole session through openssl s_client, which can be held to what an old device speaks."""

    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice, start=False)
        self.data = attached(lines_of_base64(100_000))

    def session(self, options):
        """What the relay answered, and what openssl had to say."""
        words = (f"EHLO old\r\nMAIL FROM:<{PRINTER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
                 + stuffed(self.data) + b".\r\nQUIT\r\n")
        done = subprocess.run(["openssl", "s_client", "-connect", f"{self.outtray.address}:{self.outtray.port}",
                               "-quiet", "-ign_eof", *options], input=words, capture_output=True, timeout=60,
                              check=False)
        return done.stdout, done.stderr.decode("utf-8", "replace")

    def test_a_listener_for_old_devices_serves_them(self):
        self.outtray.set("devices", legacy_tls="127.0.0.0/8").start()
        number = 0
        for (name, (options, _, version)), start in itertools.product(OLD.items(), ([], ["-starttls", "smtp"])):
            number += 1
            with self.subTest(name, start=start):
                said, noise = self.session(options + start)
                self.assertIn(b"\r\n250 2.0.0 Ok: queued as ", said, noise)
                self.assertIn(b"\r\n221 ", said)
                self.assertTrue(self.practice.wait_stored(number))
                arrived, trace = without_trace(self.stored(self.practice, number))
                self.assertEqual(sha256(arrived), sha256(self.data))
                self.assertIn(f"(using {version}".encode(), trace)

    def test_any_other_refuses_them_and_says_what_would_help(self):
        self.outtray.start()
        for number, (name, (options, offered, _)) in enumerate(OLD.items(), 1):
            with self.subTest(name):
                said, noise = self.session(options)
                self.assertNotIn(b"220 ", said)
                self.assertIn("alert", noise)
                event = self.outtray.wait_event("tls-failed", number)
                self.assertEqual((event["device"], event["offered"]), ("127.0.0.1", offered))
                self.assertIn("[devices] legacy_tls", event["reason"])
        self.assertEqual(self.practice.messages(), [])
        self.outtray.send(self.data)
        self.assertTrue(self.practice.wait_stored(1))


if __name__ == "__main__":
    unittest.main()
