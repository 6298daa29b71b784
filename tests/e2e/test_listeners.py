"""Listeners: how TLS begins, who may, and what happens when too many come at once."""

import contextlib
import os
import pathlib
import re
import smtplib
import socket
import ssl
import subprocess
import threading
import time
import unittest
import warnings

from harness import (BIN, PATIENCE, PRINTER, RECIPIENT, ROOT, SANITIZE, Device, EndToEnd, eventually, expect,
                     lines_of_base64, message, needs_program)

LABELS = "alone"
RELEASE = BIN if not SANITIZE else ROOT / "build" / "release"
IDLE_SESSIONS = 1000
IDLE_LIMIT_KB = 20 * 1024


def lenient():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def old(version, ciphers="ALL"):
    context = lenient()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return context


def banner(connection):
    """The greeting, and how long it took."""
    began = time.monotonic()
    said = b""
    while not said.endswith(b"\n"):
        chunk = connection.recv(4096)
        if not chunk:
            break
        said += chunk
    return said, time.monotonic() - began


class Listening(EndToEnd):
    def serving(self, tls=None, **devices):
        self.practice = self.upstream()
        relay = self.relay(self.practice, start=False)
        if tls:
            relay.set("listener main", tls=tls)
        relay.set("devices", **devices)
        return relay.start()

    def connect(self, relay, source=None):
        connection = socket.create_connection((relay.address, relay.port), timeout=PATIENCE,
                                              source_address=(source, 0) if source else None)
        self.addCleanup(connection.close)
        return connection

    def arrived(self, number=1):
        self.assertTrue(self.practice.wait_stored(number))
        return self.stored(self.practice, number)


class Modes(Listening):
    def send_over(self, session):
        session.ehlo()
        session.sendmail(PRINTER, [RECIPIENT], message())
        session.quit()

    def test_auto_serves_plaintext_starttls_and_implicit_tls_on_one_port(self):
        relay = self.serving()
        relay.send()
        self.assertIn(b" with ESMTP id ", self.arrived(1))
        with smtplib.SMTP(relay.address, relay.port, local_hostname="p", timeout=PATIENCE) as session:
            session.ehlo()
            self.assertIn("starttls", session.esmtp_features)
            expect(session.starttls(context=lenient()), 220)
            session.ehlo()
            self.assertNotIn("starttls", session.esmtp_features)
            session.sendmail(PRINTER, [RECIPIENT], message())
        self.assertRegex(self.arrived(2), rb"\(using TLSv1\.[23] with cipher [A-Z0-9_-]+\)\r\n\tby [^ ]+ with ESMTPS id ")
        self.send_over(smtplib.SMTP_SSL(relay.address, relay.port, local_hostname="p", timeout=PATIENCE,
                                        context=lenient()))
        self.assertIn(b" with ESMTPS id ", self.arrived(3))

    def test_none_offers_no_tls_and_names_the_setting(self):
        relay = self.serving("none")
        with Device(relay) as device:
            self.assertNotIn("starttls", device.esmtp_features)
            expect(device.docmd("STARTTLS"), 502)
        with self.assertRaises(OSError):
            smtplib.SMTP_SSL(relay.address, relay.port, timeout=PATIENCE, context=lenient())
        self.assertIn("auto", relay.wait_event("tls-failed")["reason"])
        self.assertFalse((relay.spool / "tls").exists(), "no certificate is made for nobody")

    def test_starttls_greets_at_once(self):
        relay = self.serving("starttls")
        said, waited = banner(self.connect(relay))
        self.assertTrue(said.startswith(b"220 "))
        self.assertLess(waited, 0.09 if not SANITIZE else 5)
        with Device(relay) as device:
            expect(device.starttls(context=lenient()), 220)
            device.ehlo()
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.arrived()

    def test_required_takes_nothing_before(self):
        relay = self.serving("required")
        with Device(relay) as device:
            expect(device.mail(PRINTER), 530, b"5.7.0")
            expect(device.starttls(context=lenient()), 220)
            device.ehlo()
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.arrived()

    def test_implicit(self):
        relay = self.serving("implicit")
        self.send_over(smtplib.SMTP_SSL(relay.address, relay.port, local_hostname="p", timeout=PATIENCE,
                                        context=lenient()))
        self.arrived()
        plain = self.connect(relay)
        plain.sendall(b"EHLO printer\r\n")
        event = relay.wait_event("tls-failed")
        self.assertIn("not TLS", event["reason"])
        self.assertNotIn(b"220", plain.recv(4096))

    def test_several_listeners_at_once(self):
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        for port, tls in ((2526, "implicit"), (2527, "required")):
            relay.set(f"listener {tls}", address=relay.address, port=port, tls=tls)
        relay.start()
        self.assertEqual({event["listener"] for event in relay.events("listening")}, {"main", "implicit", "required"})
        smtplib.SMTP_SSL(relay.address, 2526, timeout=PATIENCE, context=lenient()).quit()
        with smtplib.SMTP(relay.address, 2527, timeout=PATIENCE) as session:
            session.ehlo()
            expect(session.mail(PRINTER), 530)
        relay.send()
        self.assertTrue(practice.wait_stored(1))

    def test_a_scan_through_tls(self):
        relay = self.serving()
        data = message(body=lines_of_base64(6 << 20))
        with smtplib.SMTP_SSL(relay.address, relay.port, timeout=PATIENCE, context=lenient()) as session:
            session.sendmail(PRINTER, [RECIPIENT], data)
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_what_stands_behind_starttls_in_the_clear_is_dropped(self):
        relay = self.serving()
        connection = self.connect(relay)
        banner(connection)
        connection.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<x@office.test>\r\nDATA\r\n")
        self.assertEqual(banner(connection)[0], b"220 2.0.0 Ready to start TLS\r\n")
        secure = lenient().wrap_socket(connection)
        secure.sendall(b"RCPT TO:<x@office.test>\r\n")
        self.assertTrue(banner(secure)[0].startswith(b"503 "))
        secure.sendall(b"QUIT\r\n")
        self.assertTrue(banner(secure)[0].startswith(b"221 "))
        secure.close()

    def test_a_hello_sent_along_with_starttls_is_served(self):
        """Some devices do not wait for the 220."""
        relay = self.serving()
        connection = self.connect(relay)
        banner(connection)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = lenient().wrap_bio(incoming, outgoing)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        connection.sendall(b"STARTTLS\r\n" + outgoing.read())
        said = connection.recv(65536)
        line, _, rest = said.partition(b"\r\n")
        self.assertEqual(line, b"220 2.0.0 Ready to start TLS")
        incoming.write(rest)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        connection.sendall(outgoing.read())
        relay.wait_event("secured")


class Clients(Listening):
    @needs_program("openssl")
    def test_openssl(self):
        relay = self.serving()
        for options in (["-starttls", "smtp"], [], ["-starttls", "smtp", "-tls1_2"]):
            done = subprocess.run(["openssl", "s_client", "-connect", f"{relay.address}:{relay.port}", "-crlf",
                                   "-quiet", "-ign_eof", *options], input=b"EHLO there\nQUIT\n",
                                  capture_output=True, timeout=PATIENCE, check=False)
            self.assertIn(b"221 ", done.stdout, done)

    @needs_program("curl")
    def test_curl(self):
        relay = self.serving()
        file = self.directory / "mail.eml"
        for number, (scheme, extra) in enumerate((("smtp", ["--ssl-reqd"]), ("smtps", []), ("smtp", [])), 1):
            file.write_bytes(message())
            subprocess.run(["curl", "-sS", "--insecure", *extra, f"{scheme}://{relay.address}:{relay.port}",
                            "--mail-from", PRINTER, "--mail-rcpt", RECIPIENT, "--upload-file", file],
                           check=True, timeout=PATIENCE)
            self.arrived(number)

    @needs_program("swaks")
    def test_swaks(self):
        relay = self.serving()
        for number, extra in enumerate((["--tls"], ["--tls-on-connect"]), 1):
            subprocess.run(["swaks", "--server", relay.address, "--port", str(relay.port), "--from", PRINTER,
                            "--to", RECIPIENT, *extra], check=True, timeout=PATIENCE, capture_output=True)
            self.arrived(number)


class Certificates(Listening):
    def shown(self, relay):
        with lenient().wrap_socket(self.connect(relay)) as secure:
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))

    def test_one_is_made_once_and_kept(self):
        relay = self.serving()
        directory = relay.spool / "tls"
        made = relay.events("certificate-made")
        self.assertEqual(len(made), 1)
        self.assertEqual(directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual({path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()},
                         {"certificate.pem": 0o600, "private-key.pem": 0o600})
        first = self.shown(relay)
        self.assertEqual(first.split(), (directory / "certificate.pem").read_text("ascii").split())
        relay.restart()
        self.assertEqual(relay.events("certificate-made"), [])
        self.assertEqual(self.shown(relay), first)
        relay.stop()
        (directory / "certificate.pem").unlink()
        relay.start()
        self.assertNotEqual(self.shown(relay), first)

    def test_a_device_that_was_given_it_can_verify_it(self):
        """By the relay's name and by its address."""
        relay = self.serving()
        trusting = ssl.create_default_context(cafile=relay.spool / "tls" / "certificate.pem")
        for name in (relay.address, "relay.office.test", "localhost"):
            with trusting.wrap_socket(self.connect(relay), server_hostname=name) as secure:
                self.assertEqual(secure.version(), "TLSv1.3")
        with self.assertRaises(ssl.SSLCertVerificationError):
            trusting.wrap_socket(self.connect(relay), server_hostname="other.office.test")

    def test_one_of_our_own(self):
        relay = self.relay(self.upstream(), start=False)
        names = {"certificate": self.directory / "c.pem", "private_key": self.directory / "k.pem"}
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj",
                        "/CN=own.office.test", "-keyout", names["private_key"], "-out", names["certificate"]],
                       check=True, capture_output=True)
        relay.set("relay", **names).start()
        self.assertFalse((relay.spool / "tls").exists())
        self.assertEqual(self.shown(relay).split(), names["certificate"].read_text("ascii").split())
        self.assertEqual(relay.wait_event("certificate-ends")["days"], "4")

    def test_one_that_cannot_be_used_ends_the_start(self):
        relay = self.relay(self.upstream(), start=False)
        (self.directory / "c.pem").write_text("nonsense", "ascii")
        (self.directory / "k.pem").touch(0o600)
        relay.set("listener main", certificate=self.directory / "c.pem", private_key=self.directory / "k.pem")
        relay.start(wait=False)
        self.assertEqual(relay.wait_end(), 78)
        self.assertIn("k.pem", relay.events("start-failed")[0]["reason"])


class Legacy(Listening):
    def handshake(self, relay, context):
        with context.wrap_socket(self.connect(relay)) as secure:
            return secure.version(), secure.cipher()[0], banner(secure)[0][:4]

    def test_an_old_device_is_named_with_what_would_help(self):
        relay = self.serving()
        with self.assertRaises(OSError):
            self.handshake(relay, old(ssl.TLSVersion.TLSv1))
        event = relay.wait_event("tls-failed")
        self.assertEqual((event["device"], event["offered"], event["listener"]), ("127.0.0.1", "TLS 1.0", "main"))
        self.assertIn("[devices] legacy_tls", event["reason"])
        with self.assertRaises(OSError):
            self.handshake(relay, old(ssl.TLSVersion.TLSv1_2, "AES128-SHA"))
        event = relay.wait_event("tls-failed", count=2)
        self.assertEqual(event["offered"], "TLS 1.2, RSA key exchange only")
        self.assertIn("[devices] legacy_tls", event["reason"])
        relay.send()
        self.arrived()

    def test_a_listed_one_is_served(self):
        relay = self.serving(legacy_tls="127.0.0.1")
        for version, ciphers in ((ssl.TLSVersion.TLSv1, "ALL"), (ssl.TLSVersion.TLSv1_1, "ALL"),
                                 (ssl.TLSVersion.TLSv1_2, "AES256-SHA"), (ssl.TLSVersion.TLSv1, "AES128-SHA")):
            got = self.handshake(relay, old(version, ciphers))
            self.assertEqual((got[0].replace("v1.0", "v1"), got[2]), (version.name.replace("_", "."), b"220 "))
        self.assertEqual(self.handshake(relay, lenient())[0], "TLSv1.3")

    def test_only_listed_ones_are(self):
        relay = self.serving(legacy_tls="127.0.0.1")
        with self.assertRaises(OSError):
            with old(ssl.TLSVersion.TLSv1).wrap_socket(self.connect(relay, "127.0.0.9")):
                pass
        self.assertEqual(relay.wait_event("tls-failed")["device"], "127.0.0.9")

    @needs_program("openssl")
    def test_openssl_forced_to_tls_1_0(self):
        relay = self.serving(legacy_tls="127.0.0.0/8")
        for options in (["-starttls", "smtp"], []):
            done = subprocess.run(["openssl", "s_client", "-connect", f"{relay.address}:{relay.port}", "-crlf",
                                   "-quiet", "-ign_eof", "-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0", *options],
                                  input=b"EHLO there\nQUIT\n", capture_output=True, timeout=PATIENCE, check=False)
            self.assertIn(b"221 ", done.stdout, done)

    def test_a_device_that_does_not_trust_us_is_named(self):
        relay = self.serving()
        with self.assertRaises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(self.connect(relay), server_hostname=relay.address)
        self.assertIn("does not accept the certificate", relay.wait_event("tls-failed")["reason"])


@unittest.skipIf(SANITIZE, "sanitizers are too slow for times like these")
class Waiting(Listening):
    """How long the banner waits for a TLS hello."""

    def waited(self, relay, source="127.0.0.1"):
        with self.connect(relay, source) as connection:
            said, waited = banner(connection)
            self.assertTrue(said.startswith(b"220 "))
            return waited

    def test_a_tenth_of_a_second_until_an_address_is_known(self):
        relay = self.serving()
        for _ in range(20):
            self.assertTrue(0.09 < self.waited(relay) < 0.4)
        self.assertLess(self.waited(relay), 0.05)
        self.assertGreater(self.waited(relay, "127.0.0.2"), 0.09)

    def test_who_talks_first_is_answered_at_once(self):
        relay = self.serving()
        connection = self.connect(relay)
        connection.sendall(b"EHLO camera\r\n")
        said, waited = banner(connection)
        self.assertTrue(said.startswith(b"220 "), said)
        self.assertLess(waited, 0.09)
        while b"250 HELP\r\n" not in said:
            said += connection.recv(65536)

    def test_a_late_hello_is_waited_for_the_next_time(self):
        relay = self.serving()
        late = self.connect(relay)
        banner(late)
        with contextlib.suppress(OSError):
            lenient().wrap_socket(late)
        self.assertIn("after the greeting", relay.wait_event("tls-failed")["reason"])
        slow = self.connect(relay)
        time.sleep(0.25)
        with lenient().wrap_socket(slow) as secure:
            self.assertTrue(banner(secure)[0].startswith(b"220 "))
        self.assertTrue(0.45 < self.waited(relay) < 0.9)


class WhoMay(Listening):
    def test_a_public_address_without_a_list_is_refused(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("listener world", address="203.0.113.5", port=2525).start(wait=False)
        self.assertEqual(relay.wait_end(), 78)
        self.assertIn("public address", "\n".join(relay.lines))

    def test_messages_of_a_minute_are_limited(self):
        relay = self.serving(max_messages_per_minute=3)
        with Device(relay) as device:
            for _ in range(3):
                device.sendmail(PRINTER, [RECIPIENT], message())
        with Device(relay) as device:
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt(RECIPIENT), 250)
            expect(device.docmd("DATA"), 451, b"4.7.1")
            self.assertIn("max_messages_per_minute", relay.wait_event("mail-refused")["reason"])
            relay.advance(61)
            device.rset()
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertTrue(self.practice.wait_stored(4))

    def test_a_device_has_limits_of_its_own(self):
        relay = self.relay(self.upstream(), start=False)
        relay.set("devices", max_size="20M", max_recipients=10, recipient_domains="nowhere.test")
        relay.set("device small", address="127.0.0.1", max_size="1M", max_recipients=2, max_sessions=1,
                  recipient_domains="office.test").start()
        with Device(relay) as device:
            self.assertEqual(device.esmtp_features["size"], str(1 << 20))
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt("a@office.test"), 250)
            expect(device.rcpt("a@nowhere.test"), 550, b"5.7.1")
            expect(device.rcpt("b@office.test"), 250)
            expect(device.rcpt("c@office.test"), 452)
            with self.connect(relay) as second:
                self.assertTrue(banner(second)[0].startswith(b"421 "))
        with smtplib.SMTP(relay.address, relay.port, timeout=PATIENCE, source_address=("127.0.0.2", 0)) as other:
            other.ehlo()
            self.assertEqual(other.esmtp_features["size"], str(20 << 20))
            expect(other.mail(PRINTER), 250)
            expect(other.rcpt("a@office.test"), 550)
            expect(other.rcpt("a@nowhere.test"), 250)

    def test_a_flood_of_strangers_is_cheap_and_quiet(self):
        relay = self.serving(allow="127.0.0.1")
        refused = 0
        for _ in range(500):
            with self.connect(relay, "127.0.0.2") as stranger, contextlib.suppress(ConnectionError):
                refused += stranger.recv(100).startswith(b"554 ")
        self.assertGreater(refused, 490)
        self.assertEqual(relay.status()["intake"]["strangers"], 500)
        self.assertEqual(len(relay.events("stranger")), 10)
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))


class Pressure(Listening):
    def knock(self, relay, ended):
        while not ended.is_set():
            with contextlib.suppress(OSError), socket.create_connection(
                    (relay.address, relay.port), timeout=5, source_address=("127.0.0.2", 0)) as stranger:
                stranger.recv(100)

    def test_a_flood_of_strangers_leaves_others_served(self):
        relay = self.serving(allow="127.0.0.1")
        ended = threading.Event()
        threads = [threading.Thread(target=self.knock, args=(relay, ended)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: relay.status()["intake"]["strangers"] > 200, "the flood is there")
            for _ in range(5):
                self.assert_served_at_once(relay)
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def idle(self, relay, count, addresses=40):
        for number in range(count):
            self.connect(relay, f"127.0.1.{1 + number % addresses}")

    def assert_served_at_once(self, relay, within=2.0):
        began = time.monotonic()
        relay.send()
        self.assertLess(time.monotonic() - began, within if not SANITIZE else 20)

    def test_idle_connections_leave_others_served(self):
        relay = self.serving()
        self.idle(relay, 1050)
        eventually(lambda: relay.status()["intake"]["sessions"] >= 1000, "they are there")
        time.sleep(1.1)
        for _ in range(3):
            self.assert_served_at_once(relay)
        self.assertLessEqual(relay.status()["intake"]["sessions"], 1001)

    def test_a_device_that_forgets_its_connections_is_served(self):
        relay = self.serving(max_sessions_per_device=3)
        forgotten = [self.connect(relay, "127.0.0.1") for _ in range(3)]
        time.sleep(1.3)
        self.assert_served_at_once(relay)
        heard = [self.all_of(connection) for connection in forgotten]
        self.assertTrue(all(said.startswith(b"220 ") for said in heard), heard)
        self.assertTrue(any(b"\n421 " in said for said in heard), heard)

    @staticmethod
    def all_of(connection):
        """What has come, until the end or half a second of silence."""
        said = b""
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(4096):
                said += chunk
        return said

    def test_who_is_in_a_mail_is_not_disturbed(self):
        relay = self.serving(max_sessions_per_device=1)
        with Device(relay) as device:
            device.begin()
            relay.advance(60)
            with self.connect(relay) as second:
                self.assertTrue(banner(second)[0].startswith(b"421 "))
            device.send(message() + b".\r\n")
            expect(device.getreply(), 250)

    def test_handshakes_that_never_end_leave_others_served(self):
        relay = self.serving()
        for number in range(200):
            self.connect(relay, f"127.0.1.{1 + number % 40}").sendall(b"\x16\x03\x01")
        self.assert_served_at_once(relay)

    def test_accepting_comes_back_when_descriptors_are_free_again(self):
        relay = self.serving(max_sessions_per_device=100000, max_sessions=100000)
        subprocess.run(["prlimit", f"--pid={relay.process.pid}", "--nofile=80:80"], check=True)
        held = []
        for _ in range(120):
            held.append(self.connect(relay))
        relay.wait_event("accept-failed")
        for connection in held:
            connection.close()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))


@unittest.skipUnless((RELEASE / "outtrayd").exists(), f"no release build in {RELEASE}")
@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a daemon that guards it")
class Memory(Listening):
    def test_a_thousand_idle_sessions(self):
        relay = self.relay(self.upstream(), start=False)
        relay.binaries = pathlib.Path(RELEASE)
        relay.set("devices", max_sessions=2000).set("relay", log_level="info").start()
        before = self.resident(relay)
        for number in range(IDLE_SESSIONS):
            self.connect(relay, f"127.0.1.{1 + number % 40}")
        eventually(lambda: relay.status()["intake"]["sessions"] == IDLE_SESSIONS, "they are there")
        time.sleep(0.3)
        after = self.resident(relay)
        print(f"resident: {before} kB alone, {after} kB with {IDLE_SESSIONS} idle sessions")
        self.assertLess(after, IDLE_LIMIT_KB)

    def resident(self, relay):
        text = pathlib.Path(f"/proc/{relay.process.pid}/status").read_text("ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])


if __name__ == "__main__":
    unittest.main()
