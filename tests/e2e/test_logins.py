"""Devices sign in: what programs of other people's making say, what is checked, slowed and written down."""

import base64
import os
import smtplib
import socket
import ssl
import stat
import subprocess
import threading
import time
import unittest

from harness import (PRINTER, RECIPIENT, Device, EndToEnd, eventually, expect, message, needs_program,
                     without_trace)

EASY = set("abcdefghjkmnpqrstuvwxyz23456789")
SECRET = "open-sesame-42"
HERE = "127.0.0.1"  # where all of them come from
SILENCE = 10.0  # seconds behind LF . LF


class Wire:
    """A device of bytes."""

    def __init__(self, relay):
        self.socket = socket.create_connection((relay.address, relay.port), timeout=30)
        self.file = self.socket.makefile("rb")
        self.hear(b"220 ")

    def hear(self, start):
        """The whole reply, which has to begin so."""
        lines = []
        while not lines or lines[-1][3:4] == b"-":
            line = self.file.readline()
            lines.append(line)
            if not line:
                break
        reply = b"".join(lines)
        if not reply.startswith(start):
            raise AssertionError(f"expected {start!r}, heard {reply!r}")
        return reply

    def say(self, text, start):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode() + b"\r\n")
        return self.hear(start)

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def plain(login, password):
    return base64.b64encode(f"\0{login}\0{password}".encode()).decode()


def b64(text):
    return base64.b64encode(text.encode()).decode()


class Logins(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.outtray = self.relay(self.practice, start=False)
        self.passwords = self.outtray.directory / "device-passwords"
        self.outtray.set("devices", passwords=self.passwords)
        self.outtray.set("device camera", login="camera@office.test", lane="urgent")
        self.outtray.set("device copier", address="192.0.2.77")

    def start(self, auth):
        self.outtray.set("listener main", auth=auth)
        self.outtray.start()
        return self.outtray

    def new_password(self, device="camera"):
        return self.outtray.json("passwd", device)["password"]

    def envelope(self):
        eventually(lambda: self.practice.messages(), "the message arrives")
        return self.outtray.wait_event("accepted")

    def device_of_the_mail(self):
        return self.envelope()["device"]

    def program(self, arguments, data=b"", code=0):
        done = subprocess.run(list(map(str, arguments)), input=data, capture_output=True, timeout=60,
                              check=False)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        self.assertEqual(done.returncode == 0, code == 0, said)
        return said

    def assert_not_logged(self, *secrets):
        log = "\n".join(self.outtray.lines)
        for secret in secrets:
            self.assertNotIn(secret, log)
            self.assertNotIn(b64(secret).rstrip("="), log)


class Passwords(Logins):
    """The tool."""

    def test_a_password_is_made_shown_once_and_kept_as_a_hash(self):
        self.outtray.config_file.write_text(self.outtray.config_text(), encoding="utf-8")
        said = self.outtray.tool("passwd", "camera").stdout.decode()
        password = said.splitlines()[0].split()[-1]
        self.assertEqual(len(password), 10)
        self.assertLessEqual(set(password), EASY)
        self.assertIn("camera@office.test", said)
        self.assertNotIn(password, self.passwords.read_text(encoding="ascii"))
        self.assertRegex(self.passwords.read_text(encoding="ascii"), r"\Acamera:\$y\$\S+\n\Z")
        self.assertEqual(stat.S_IMODE(self.passwords.stat().st_mode), 0o640)
        self.assertNotEqual(self.new_password(), self.new_password())
        self.assertEqual(os.listdir(self.outtray.directory).count("device-passwords.new"), 0)

    def test_a_password_can_be_chosen(self):
        self.outtray.config_file.write_text(self.outtray.config_text(), encoding="utf-8")
        for chosen, code in ((f"{SECRET}\n", 0), (SECRET, 0), ("short\n", 65), ("", 65), ("p\u00e4sswort\n", 65),
                             ("x" * 200 + "\n", 65)):
            done = subprocess.run([self.outtray.binaries / "outtray", "-c", self.outtray.config_file, "passwd",
                                   "camera", "--stdin"], input=chosen.encode(), capture_output=True, check=False)
            self.assertEqual(done.returncode, code, (chosen, done))
            self.assertNotIn(SECRET, (done.stdout + done.stderr).decode())

    def test_what_is_wrong_is_told(self):
        self.outtray.config_file.write_text(self.outtray.config_text(), encoding="utf-8")
        done = self.outtray.tool("passwd", "kamera", check=False)
        self.assertEqual(done.returncode, 66)
        self.assertIn(b"there is no [device kamera]", done.stderr)
        self.assertEqual(self.outtray.tool("passwd", check=False).returncode, 64)
        self.assertEqual(self.outtray.tool("--stdin", "status", check=False).returncode, 64)
        self.assertFalse(self.passwords.exists())

    def test_check_tells_when_the_file_is_of_no_use(self):
        self.outtray.set("listener main", auth="required")
        self.outtray.config_file.write_text(self.outtray.config_text(), encoding="utf-8")
        done = self.outtray.tool("check")
        self.assertIn(b"no device has a password yet", done.stdout + done.stderr)
        self.new_password()
        self.assertNotIn(b"no device has a password yet", self.outtray.tool("check").stdout)
        self.passwords.chmod(0o644)
        done = self.outtray.tool("check", check=False)
        self.assertEqual(done.returncode, 78)
        self.assertIn(b"chmod o= ", done.stderr)


class Modes(Logins):
    def test_any_takes_whatever_is_sent(self):
        outtray = self.start("any")
        with Wire(outtray) as wire:
            self.assertIn(b"250-AUTH LOGIN PLAIN\r\n", wire.say("EHLO x", b"250-"))
            self.assertEqual(wire.say("AUTH LOGIN", b"334"), b"334 VXNlcm5hbWU6\r\n")
            self.assertEqual(wire.say(b64("whoever"), b"334"), b"334 UGFzc3dvcmQ6\r\n")
            self.assertEqual(wire.say(b64(SECRET), b"235"), b"235 2.7.0 Authentication successful\r\n")
        with Device(outtray) as device:
            expect(device.login("camera@office.test", SECRET), 235)
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertEqual(self.device_of_the_mail(), HERE)
        self.assert_not_logged(SECRET, "whoever")

    def test_any_names_the_device_whose_password_it_was(self):
        outtray = self.start("any")
        password = self.new_password()
        with Device(outtray) as device:
            device.login("CAMERA@office.test", password)
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertEqual(self.device_of_the_mail(), "camera")
        self.assertEqual(outtray.wait_event("login")["as"], "camera")

    def test_optional_lets_in_without_but_not_with_a_wrong_one(self):
        outtray = self.start("optional")
        password = self.new_password()
        outtray.send()
        with Device(outtray) as device:
            with self.assertRaises(smtplib.SMTPAuthenticationError) as refusal:
                device.login("camera@office.test", "wrong-one")
            self.assertEqual(refusal.exception.args, (535, b"5.7.8 Error: authentication failed"))
            expect(device.login("camera@office.test", password), 235)
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertEqual(outtray.wait_event("accepted", count=2)["device"], "camera")
        self.assert_not_logged(password, "wrong-one")

    def test_required_takes_no_mail_without(self):
        outtray = self.start("required")
        password = self.new_password()
        with Device(outtray) as device:
            self.assertEqual(device.mail(PRINTER), (530, b"5.7.0 Authentication required"))
            expect(device.login("camera@office.test", password), 235)
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertEqual(self.device_of_the_mail(), "camera")
        arrived = self.stored(self.practice)
        self.assertIn(b"with ESMTPA id", without_trace(arrived)[1])

    def test_a_login_through_tls(self):
        outtray = self.start("required")
        password = self.new_password()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with Device(outtray) as device:
            expect(device.starttls(context=context), 220)
            expect(device.login("camera@office.test", password), 235)
            device.sendmail(PRINTER, [RECIPIENT], message())
        self.assertEqual(self.device_of_the_mail(), "camera")
        self.assertIn(b"with ESMTPSA", without_trace(self.stored(self.practice))[1])

    def test_a_device_has_a_mode_of_its_own(self):
        self.outtray.set("device bench", address=HERE, auth="off")
        outtray = self.start("required")
        with Wire(outtray) as wire:
            self.assertNotIn(b"AUTH", wire.say("EHLO x", b"250-"))
            wire.say("AUTH LOGIN", b"502 5.5.1 ")
            wire.say("MAIL FROM:<a@office.test>", b"250 ")

    def test_a_new_password_counts_at_once_and_the_old_one_no_more(self):
        outtray = self.start("required")
        first = self.new_password()
        with Device(outtray) as device:
            device.login("camera@office.test", first)
        second = self.new_password()
        with Device(outtray) as device, self.assertRaises(smtplib.SMTPAuthenticationError):
            device.login("camera@office.test", first)
        with Device(outtray) as device:
            device.login("camera@office.test", second)

    def test_a_file_that_cannot_be_used_is_no_wrong_password(self):
        outtray = self.start("required")
        password = self.new_password()
        self.passwords.chmod(0o644)
        with Wire(outtray) as wire:
            wire.say(f"AUTH PLAIN {plain('camera@office.test', password)}", b"454 4.7.0 ")
            self.assertIn("chmod o= ", outtray.wait_event("login-unchecked")["reason"])
            self.passwords.chmod(0o600)
            wire.say(f"AUTH PLAIN {plain('camera@office.test', password)}", b"235 ")

    def test_the_login_and_password_of_different_devices_do_not_go_together(self):
        outtray = self.start("required")
        camera, copier = self.new_password("camera"), self.new_password("copier")
        with Wire(outtray) as wire:
            wire.say(f"AUTH PLAIN {plain('copier', camera)}", b"535 ")
            wire.say(f"AUTH PLAIN {plain('camera', camera)}", b"535 ")  # its login is another one
            wire.say(f"AUTH PLAIN {plain('copier', copier)}", b"235 ")


class Slowness(Logins):
    def test_wrong_ones_wait_longer_and_longer_and_are_counted(self):
        outtray = self.start("optional")
        took = []
        with Wire(outtray) as wire:
            for _ in range(3):
                began = time.monotonic()
                wire.say(f"AUTH PLAIN {plain('camera@office.test', SECRET)}", b"535 5.7.8 ")
                took.append(time.monotonic() - began)
        self.assertEqual([round(seconds) for seconds in took], [1, 2, 4], took)
        event = outtray.wait_event("login-failed", count=3)
        self.assertEqual((event["wrong"], event["client"]), ("3", HERE))
        self.assert_not_logged(SECRET)

    def test_the_loop_goes_on_meanwhile(self):
        outtray = self.start("optional")
        with Wire(outtray) as wire:
            wire.socket.sendall(b"AUTH PLAIN " + plain("a", "b").encode() + b"\r\n")
            began = time.monotonic()
            for _ in range(20):
                outtray.send()
            self.assertLess(time.monotonic() - began, 20)
            wire.hear(b"535 ")

    def test_many_connections_do_not_guess_faster(self):
        outtray = self.start("optional")
        with Wire(outtray) as wire:
            wire.say(f"AUTH PLAIN {plain('camera', SECRET)}", b"535 ")
        wires = [Wire(outtray) for _ in range(5)]
        began = time.monotonic()
        heard = []

        def guess(wire):
            wire.say(f"AUTH PLAIN {plain('camera', SECRET)}", b"535 ")
            heard.append(time.monotonic() - began)

        threads = [threading.Thread(target=guess, args=(wire,)) for wire in wires]
        for thread in threads:
            thread.start()
        for wire, thread in zip(wires, threads):
            thread.join()
            wire.close()
        heard.sort()
        self.assertEqual(len(heard), 5)
        self.assertGreater(heard[2], 4, heard)

    def test_leaving_early_is_no_way_around(self):
        outtray = self.start("optional")
        for _ in range(3):
            with Wire(outtray) as wire:
                wire.socket.sendall(b"AUTH PLAIN " + plain("camera", SECRET).encode() + b"\r\n")
                time.sleep(0.3)
        with Wire(outtray) as wire:
            began = time.monotonic()
            wire.say(f"AUTH PLAIN {plain('camera', SECRET)}", b"535 ")
            self.assertGreater(time.monotonic() - began, 1.5)


class NothingIsWrittenDown(Logins):
    def test_what_follows_a_refusal_is_not_logged(self):
        outtray = self.start("optional")
        words = [f"word-{number}-of-a-secret" for number in range(8)]
        with Wire(outtray) as wire:
            wire.say("AUTH LOGIN", b"334 ")
            wire.say(b64(words[0]), b"334 ")
            wire.say(b64(words[1]), b"535 ")
            wire.say(b64(words[2]), b"500 ")
            wire.say(words[3], b"500 ")
            wire.say(f"AUTH {words[4]}", b"504 ")
            wire.say(f"AUTH LOGIN {words[5]}", b"501 ")
            wire.say("AUTH LOGIN", b"334 ")
            wire.say("not-base64!" + words[6], b"501 ")
            wire.say("AUTH PLAIN " + plain(words[7], words[7]), b"535 ")
            wire.say("QUIT", b"221 ")
        outtray.wait_event("session-end")
        self.assert_not_logged(*words)
        with Wire(outtray) as wire:
            wire.say("AUTH LOGIN", b"334 ")
            wire.say(b64(words[0]), b"334 ")  # and leaves in the middle
        outtray.wait_event("session-end", count=2)
        self.assert_not_logged(*words)


class Programs(Logins):
    """Mail programs of other people's making."""

    def setUp(self):
        super().setUp()
        self.start("required")
        self.password = self.new_password()
        self.data = message()
        self.file = self.directory / "message.eml"
        self.file.write_bytes(self.data)

    def assert_named(self):
        self.assertEqual(self.device_of_the_mail(), "camera")
        self.outtray.wait_empty()
        self.assert_not_logged(self.password)

    def swaks(self, *arguments, code=0):
        return self.program(["swaks", "--server", self.outtray.address, "--port", self.outtray.port,
                             "--from", PRINTER, "--to", RECIPIENT, "--helo", "printer", *arguments], code=code)

    @needs_program("swaks")
    def test_swaks_login(self):
        said = self.swaks("--auth", "LOGIN", "--auth-user", "camera@office.test",
                          "--auth-password", self.password)
        self.assertIn("334 VXNlcm5hbWU6", said)
        self.assertIn("334 UGFzc3dvcmQ6", said)
        self.assert_named()

    @needs_program("swaks")
    def test_swaks_plain(self):
        self.swaks("--auth", "PLAIN", "--auth-user", "camera@office.test", "--auth-password", self.password)
        self.assert_named()

    @needs_program("swaks")
    def test_swaks_wrong_password(self):
        self.assertIn("535 5.7.8", self.swaks("--auth", "--auth-user", "camera@office.test",
                                              "--auth-password", "wrong-one", code=1))
        self.assertFalse(self.practice.messages())

    def curl(self, mechanism, *options):
        self.program(["curl", "--silent", "--show-error", "--max-time", "60",
                      "--url", f"smtp://{self.outtray.address}:{self.outtray.port}/printer",
                      "--user", f"camera@office.test:{self.password}",
                      "--login-options", f"AUTH={mechanism}", *options,
                      "--mail-from", PRINTER, "--mail-rcpt", RECIPIENT, "--upload-file", self.file])
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, self.data)
        self.assert_named()

    @needs_program("curl")
    def test_curl_plain(self):
        self.curl("PLAIN")

    @needs_program("curl")
    def test_curl_plain_with_initial_response(self):
        self.curl("PLAIN", "--sasl-ir")

    @needs_program("curl")
    def test_curl_login(self):
        self.curl("LOGIN")

    @needs_program("curl")
    def test_curl_login_with_initial_response(self):
        self.curl("LOGIN", "--sasl-ir")

    def msmtp(self, mechanism):
        self.program(["msmtp", f"--host={self.outtray.address}", f"--port={self.outtray.port}", "--tls=off",
                      f"--auth={mechanism}", "--user=camera@office.test", f"--passwordeval=echo {self.password}",
                      "--domain=printer", f"--from={PRINTER}", RECIPIENT], self.data.replace(b"\r\n", b"\n"))
        self.assert_named()

    @needs_program("msmtp")
    def test_msmtp_plain(self):
        self.msmtp("plain")

    @needs_program("msmtp")
    def test_msmtp_login(self):
        self.msmtp("login")

    def test_smtplib(self):
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism), Device(self.outtray) as device:
                device.user, device.password = "camera@office.test", self.password
                authenticate = device.auth_plain if mechanism == "PLAIN" else device.auth_login
                expect(device.auth(mechanism, authenticate, initial_response_ok=False), 235)
                expect(device.ehlo(), 250)  # MailKit does
                device.sendmail(PRINTER, [RECIPIENT], self.data)
        self.assert_named()


class Extensions(Logins):
    def test_chunks_arrive_as_they_are(self):
        outtray = self.start("any")
        data = message(body=b".a dot\r\n..two\r\n" + b"0123456789" * 8 + b"\r\n" + b"x\r\n" * 50000)
        with Wire(outtray) as wire:
            wire.say("EHLO x", b"250-")
            wire.say(f"MAIL FROM:<{PRINTER}>", b"250 ")
            wire.say(f"RCPT TO:<{RECIPIENT}>", b"250 ")
            for start in range(0, len(data), 70001):
                chunk = data[start:start + 70001]
                last = b" LAST" if start + 70001 >= len(data) else b""
                wire.say(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk, b"250 2.0.0 Ok")
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    def test_notifications_are_asked_for_upstream(self):
        outtray = self.start("any")
        with Wire(outtray) as wire:
            wire.say(f"MAIL FROM:<{PRINTER}> RET=HDRS ENVID=job+2B17", b"250 ")
            wire.say(f"RCPT TO:<{RECIPIENT}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;x@office.test", b"250 ")
            wire.say("DATA", b"354 ")
            wire.say(message() + b".\r\n", b"250 ")
        eventually(lambda: self.practice.messages(), "the message arrives")
        parameters = self.practice.messages()[0]["mail_parameters"]
        self.assertEqual((parameters.get("RET"), parameters.get("ENVID")), ("HDRS", "job+2B17"))

    def test_addresses_in_utf8_arrive(self):
        outtray = self.start("any")
        with Wire(outtray) as wire:
            wire.say(f"MAIL FROM:<{PRINTER}> SMTPUTF8", b"250 ")
            wire.say("RCPT TO:<büro@office.test>", b"250 ")
            wire.say("DATA", b"354 ")
            wire.say(message() + b".\r\n", b"250 ")
        eventually(lambda: self.practice.messages(), "the message arrives")
        facts = self.practice.messages()[0]
        self.assertEqual(facts["forward_paths"], ["büro@office.test"])
        self.assertIn("SMTPUTF8", facts["mail_parameters"])

    def test_keywords_are_hidden_from_a_device(self):
        self.outtray.set("device bench", address=HERE,
                         hide="STARTTLS AUTH SIZE CHUNKING PIPELINING 8BITMIME SMTPUTF8 DSN", mt_priority="yes")
        self.outtray.set("devices", auth_equals="yes")
        outtray = self.start("any")
        with Wire(outtray) as wire:
            self.assertEqual(wire.say("EHLO x", b"250-"),
                             b"250-relay.office.test\r\n250-ENHANCEDSTATUSCODES\r\n250-MT-PRIORITY\r\n250 HELP\r\n")


class Silence(Logins):
    """Devices that know no CR."""

    HEADER = b"From: <ups@office.test>\nTo: <accounts@office.test>\nSubject: on battery\n\n"

    def begin(self, outtray):
        wire = Wire(outtray)
        self.addCleanup(wire.close)
        wire.say(b"HELO ups\n", b"250 ")
        wire.say(b"MAIL FROM:<ups@office.test>\n", b"250 ")
        wire.say(b"RCPT TO:<accounts@office.test>\n", b"250 ")
        wire.say(b"DATA\n", b"354 ")
        return wire

    def test_silence_behind_lf_dot_lf_ends_the_mail_and_the_session(self):
        outtray = self.start("any")
        wire = self.begin(outtray)
        began = time.monotonic()
        wire.say(self.HEADER + b"one\n.\n", b"250 2.0.0 Ok: queued as ")
        self.assertAlmostEqual(time.monotonic() - began, SILENCE, delta=3)
        self.assertEqual(wire.file.read(), b"")
        self.assertTrue(self.practice.wait_stored(1))
        self.assertTrue(self.stored(self.practice).endswith(b"\r\n\r\none\r\n"))

    def test_any_octet_proves_that_it_was_content(self):
        outtray = self.start("any")
        wire = self.begin(outtray)
        wire.socket.sendall(self.HEADER + b"one\n.\n")
        time.sleep(SILENCE / 2)
        began = time.monotonic()
        wire.say(b"MAIL FROM:<ceo@office.test>\n.\n", b"250 2.0.0 Ok: queued as ")
        self.assertGreater(time.monotonic() - began, SILENCE - 1)
        self.assertTrue(self.practice.wait_stored(1))
        self.assertTrue(self.stored(self.practice).endswith(b"one\r\n.\r\nMAIL FROM:<ceo@office.test>\r\n"))
        self.assertEqual(len(self.practice.messages()), 1)

    def test_it_can_be_switched_off(self):
        self.outtray.set("devices", lf_dot_lf="no")
        outtray = self.start("any")
        wire = self.begin(outtray)
        wire.socket.sendall(self.HEADER + b"one\n.\n")
        wire.socket.settimeout(SILENCE + 2)
        with self.assertRaises(TimeoutError):
            wire.socket.recv(1)
        self.assertFalse(outtray.events("accepted"))


if __name__ == "__main__":
    unittest.main()
