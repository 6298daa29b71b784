"""What intake notices of a device: connection tests, quirks, trouble, and what was said, without its secrets."""

import base64
import smtplib
import socket
import ssl
import time
import unittest
import warnings

from harness import PATIENCE, PRINTER, RECIPIENT, Device, EndToEnd, eventually, expect, message

HERE = "127.0.0.1"
SECRET = "open-sesame-42"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def lenient(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Noticed(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice, start=False)

    def connect(self):
        connection = socket.create_connection((self.outtray.address, self.outtray.port), timeout=PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def say(self, connection, octets, start):
        """Sends, and returns the reply to it."""
        connection.sendall(octets)
        said = b""
        while not said.endswith(b"\n") or said.split(b"\r\n")[-2][3:4] == b"-":
            chunk = connection.recv(65536)
            if not chunk:
                break
            said += chunk
        self.assertTrue(said.startswith(start), said)
        return said

    def known(self, name=HERE):
        status, device = self.outtray.api("GET", f"/v1/devices/{name}")
        return device if status == 200 else None

    def until(self, what, condition, name=HERE):
        return eventually(lambda: (lambda d: d if d and condition(d) else None)(self.known(name)), what)

    def quirks(self, device):
        return {quirk["name"] for quirk in device["quirks"]}

    def transcripts(self, number=1, name=HERE):
        """The newest first, once there are so many."""
        def ask():
            status, answer = self.outtray.api("GET", f"/v1/devices/{name}/transcripts")
            return answer["transcripts"] if status == 200 and len(answer["transcripts"]) >= number else None

        return [item["text"] for item in eventually(ask, f"{name} has {number} transcripts")]


class Tests(Noticed):
    def test_connection_tests_are_no_trouble(self):
        """Hung up at once, EHLO and QUIT, EHLO and AUTH and QUIT, EHLO and hung up."""
        self.outtray.start()
        self.connect().close()
        for lines in ((b"EHLO printer\r\n", b"QUIT\r\n"), (b"EHLO printer\r\n",),
                      (b"EHLO printer\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"QUIT\r\n")):
            connection = self.connect()
            self.say(connection, b"", b"220 ")
            for line in lines:
                self.say(connection, line, b"2")
            connection.close()
        device = self.until("they are counted", lambda d: d["probes"] == 4)
        self.assertEqual((device["sessions"], device["messages"], device["refused"], device["error"]),
                         (4, 0, 0, ""))
        self.assertEqual(device["state"], "test")
        self.assertEqual(self.outtray.events("refused"), [])

    def test_a_mail_is_no_connection_test(self):
        self.outtray.start()
        self.outtray.send()
        device = self.until("its session has ended", lambda d: d["helo"] == "printer")
        self.assertEqual((device["messages"], device["probes"], device["error"]), (1, 0, ""))
        self.assertEqual(self.quirks(device), set())


class Trouble(Noticed):
    def test_wrong_passwords_are_told_and_in_no_transcript(self):
        passwords = self.outtray.directory / "device-passwords"
        self.outtray.set("devices", passwords=passwords).set("device camera", login="camera")
        self.outtray.set("listener main", auth="optional").start()
        password = self.outtray.json("passwd", "camera")["password"]
        connection = self.connect()
        self.say(connection, b"", b"220 ")
        self.say(connection, b"EHLO camera\r\n", b"250")
        self.say(connection, b"AUTH LOGIN\r\n", b"334 ")
        self.say(connection, b64("camera").encode() + b"\r\n", b"334 ")
        self.say(connection, b64(SECRET).encode() + b"\r\n", b"535 ")
        self.say(connection, b64(SECRET).encode() + b"\r\n", b"500 ")  # an HP does that
        self.say(connection, SECRET.encode() + b"\r\n", b"500 ")
        self.assertTrue(self.known()["error"].startswith("500 "), self.known())
        self.say(connection, f"AUTH PLAIN {b64(chr(0) + 'camera' + chr(0) + SECRET)}\r\n".encode(), b"535 ")
        self.assertIn("login refused: ", self.known()["error"])
        self.say(connection, f"AUTH PLAIN {b64(chr(0) + 'camera' + chr(0) + password)}\r\n".encode(), b"235 ")
        self.say(connection, b"QUIT\r\n", b"221 ")
        connection.close()
        text = self.transcripts(name="camera")[0]
        self.assertIn(">> AUTH LOGIN\n", text)
        self.assertIn("octets hidden)\n", text)
        self.assertIn("-- signed in as camera\n", text)
        for secret in (SECRET, b64(SECRET), b64(SECRET)[:5], password, b64("camera")):
            self.assertNotIn(secret, text)
        self.assertEqual(self.known("camera")["sessions"], 1)
        self.assertEqual(self.known()["sessions"], 1)

    def test_refused_recipients_and_messages_are_counted(self):
        self.outtray.set("devices", recipient_domains="office.test", max_size="1K").start()
        with Device(self.outtray) as device:
            expect(device.mail(PRINTER), 250)
            expect(device.rcpt("a@elsewhere.test"), 550)
            self.assertEqual(self.known()["error"], "550 5.7.1 Mail to this domain is not allowed here")
            expect(device.rcpt(RECIPIENT), 250)
            expect(device.docmd("DATA"), 354)
            device.send(message(body=b"x" * 70 + b"\r\n") + (b"x" * 70 + b"\r\n") * 20 + b".\r\n")
            expect(device.getreply(), 552)
            expect(device.docmd("XYZZY"), 500)
        known = self.until("its session has ended", lambda d: d["helo"])
        self.assertEqual((known["refused"], known["messages"], known["probes"]), (2, 0, 0))
        self.assertEqual(known["error"], "500 5.5.1 Command not recognised")

    def test_mail_data_that_does_not_end_is_told(self):
        self.outtray.start()
        device = Device(self.outtray)
        device.begin()
        device.send(b"Subject: private matters\r\n\r\nhalf of it")
        device.hang_up()
        known = self.until("it is told", lambda d: d["error"])
        self.assertIn("before the end of the mail data", known["error"])
        text = self.transcripts()[0]
        self.assertIn("octets of mail data in ", text)
        self.assertNotIn("private", text)

    def test_a_failed_handshake_is_told_with_what_would_help(self):
        self.outtray.start()
        with self.assertRaises(OSError):
            lenient(ssl.TLSVersion.TLSv1).wrap_socket(self.connect())
        known = self.until("it is told", lambda d: d["error"] and d["quirks"])
        self.assertIn("offered TLS 1.0", known["error"])
        self.assertIn("legacy_tls", known["error"])
        self.assertLessEqual({"tls1.0", "tls_failed", "tls_first"}, self.quirks(known))
        self.assertIn("legacy_tls", self.transcripts()[0])


class Quirks(Noticed):
    def test_old_tls_is_noted_by_its_version(self):
        self.outtray.set("devices", legacy_tls="127.0.0.0/8").start()
        for version, name in ((ssl.TLSVersion.TLSv1, "tls1.0"), (ssl.TLSVersion.TLSv1_1, "tls1.1")):
            with smtplib.SMTP(self.outtray.address, self.outtray.port, local_hostname="old",
                              timeout=PATIENCE) as session:
                session.ehlo()
                expect(session.starttls(context=lenient(version)), 220)
                session.ehlo()
                session.sendmail(PRINTER, [RECIPIENT], message())
            self.until(f"{name} is noted", lambda d, name=name: name in self.quirks(d))
        known = self.known()
        self.assertRegex(known["tls"], r"^TLSv1\.1 ")
        self.assertEqual(known["error"], "")
        text = self.transcripts(2)[0]
        self.assertIn(">> STARTTLS\n", text)
        self.assertIn("-- TLSv1.1 ", text)
        self.assertIn(f">> mail FROM:<{PRINTER}>", text)

    def test_tls_on_a_port_with_a_greeting_is_noted(self):
        self.outtray.start()
        with smtplib.SMTP_SSL(self.outtray.address, self.outtray.port, timeout=PATIENCE,
                              context=lenient()) as session:
            session.sendmail(PRINTER, [RECIPIENT], message())
        known = self.until("it is noted", lambda d: d["quirks"])
        self.assertEqual(self.quirks(known), {"tls_first"})
        self.assertRegex(known["tls"], r"^TLSv1\.[23] ")

    def test_what_a_mail_lacked_is_noted(self):
        self.outtray.start()
        with Device(self.outtray) as device:
            device.begin()
            device.send(b"From: <printer@office.test>\nTo: <a@office.test>\nSubject: x\n\ny\n\r\n.\r\n")
            expect(device.getreply(), 250)
        known = self.until("its session has ended", lambda d: d["helo"])
        self.assertEqual(self.quirks(known), {"no_date", "no_message_id", "bare_lf"})
        self.assertIn("-- put right: no_message_id,no_date,bare_lf\n", self.transcripts()[0])

    def test_who_does_not_wait_for_the_greeting_is_noted(self):
        self.outtray.start()
        connection = self.connect()
        connection.sendall(b"EHLO camera\r\nQUIT\r\n")
        while connection.recv(65536):
            pass
        known = self.until("it is noted", lambda d: d["quirks"])
        self.assertEqual(self.quirks(known), {"talks_first"})
        self.assertEqual(known["probes"], 1)

    def test_a_split_scan_comes_with_the_menu_to_switch_that_off(self):
        self.outtray.start()
        with Device(self.outtray) as device:
            device.begin()
            device.send(message(body=b"Subject: scan\r\n\r\n", extra=(
                'Content-Type: message/partial; id="x@printer"; number=1; total=3',)) + b".\r\n")
            expect(device.getreply(), 250)
        known = self.until("it is noted", lambda d: d["quirks"])
        quirk = known["quirks"][0]
        self.assertEqual((quirk["name"], quirk["newest"]), ("message_partial", True))
        for maker in ("Canon", "FUJIFILM", "Ricoh", "Konica Minolta"):
            self.assertIn(maker, quirk["remedy"])

    def test_whoever_leaves_behind_the_dot_has_handed_in_its_mail(self):
        """A camera resets the connection, or closes it without QUIT."""
        self.outtray.start()
        sent = [message(subject=str(number)) for number in range(20)]
        for number, data in enumerate(sent):
            device = Device(self.outtray)
            device.begin()
            device.send(data + b".\r\n")
            if number % 2:
                device.hang_up()
            else:
                device.close()
        self.assertTrue(self.practice.wait_stored(len(sent)))
        for data in sent:
            self.assert_arrived(self.practice, data)
        known = self.until("all are counted", lambda d: d["messages"] == len(sent))
        self.assertIn("no_quit", self.quirks(known))
        self.assertEqual(known["error"], "")


class Slow(Noticed):
    def test_a_slow_device_may_take_its_time_and_a_stalled_one_is_told(self):
        """The time between octets counts, and not the whole."""
        self.outtray.set("devices", idle_time="10s").start()
        with Device(self.outtray) as device:
            device.begin()
            for octet in (b"S", b"ubject: slow\r\n", b"\r\n", b"at "):
                device.send(octet)
                time.sleep(4)  # what this test is about
            device.send(b"last\r\n.\r\n")
            expect(device.getreply(), 250)
        device = Device(self.outtray)
        device.begin()
        device.send(b"Subject: stalled\r\n")
        expect(device.getreply(), 421, b"Timeout")
        device.close()
        self.outtray.wait_event("incomplete")
        self.assertTrue(self.practice.wait_stored(1))
        self.outtray.wait_empty()
        self.assertEqual(len(self.practice.messages()), 1)
        self.assertIn("before the end of the mail data", self.until("it is told", lambda d: d["error"])["error"])


if __name__ == "__main__":
    unittest.main()
