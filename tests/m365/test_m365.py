#!/usr/bin/env python3
"""Proves the practice upstream with smtplib, raw sockets and the openssl command."""

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

# pylint: disable=wrong-import-position
from m365 import Control, PracticeUpstream, catalogue, rule_of_row  # noqa: E402
from practice.limits import Ledger, Limits  # noqa: E402
from practice.message import DotReader, Facts  # noqa: E402
from practice.script import ACTIONS, lines_of  # noqa: E402

USER, PASSWORD, TOKEN = "scanner@office.test", "practice-password", "practice-token"
ACCOUNT = {"address": USER, "password": PASSWORD, "token": TOKEN, "aliases": ["copier@office.test"]}
LOGIN_USER = base64.b64encode(USER.encode()).decode()
LOGIN_PASSWORD = base64.b64encode(PASSWORD.encode()).decode()


def xoauth2(user=USER, token=TOKEN):
    return base64.b64encode(f"user={user}\1auth=Bearer {token}\1\1".encode()).decode()


class Dialogue:
    """A client that sends exactly what it is told and reads replies."""

    def __init__(self, upstream, host="127.0.0.1"):
        self.ca = upstream.ca
        self.sock = socket.create_connection((host, upstream.port), timeout=10)
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, octets):
        self.sock.sendall(octets if isinstance(octets, bytes) else octets.encode())

    def reply(self):
        """One whole reply; lines joined with newlines, "" at the end of the connection."""
        lines = []
        while True:
            line = self.file.readline().decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    def do(self, command):
        self.send(command + "\r\n")
        return self.reply()

    def tls(self, name="localhost", behind=b""):
        self.do("EHLO device.test")
        self.send(b"STARTTLS\r\n" + behind)
        self.reply()
        self.handshake(name)

    def handshake(self, name="localhost"):
        context = ssl.create_default_context(cafile=self.ca)
        self.file.close()
        self.sock = context.wrap_socket(self.sock, server_hostname=name)
        self.file = self.sock.makefile("rb")

    def sign_in(self):
        self.tls()
        self.do("EHLO device.test")
        self.do("AUTH LOGIN")
        self.do(LOGIN_USER)
        return self.do(LOGIN_PASSWORD)

    def envelope(self, *recipients):
        self.do(f"MAIL FROM:<{USER}>")
        for recipient in recipients or ("boss@office.test",):
            self.do(f"RCPT TO:<{recipient}>")

    def submit(self, content=b"From: scanner@office.test\r\nSubject: scan\r\n\r\nx\r\n"):
        self.envelope()
        self.do("DATA")
        self.send(content + b".\r\n")
        return self.reply()


class WithUpstream(unittest.TestCase):
    """Starts an upstream for each test."""

    settings = {}

    def setUp(self):
        self.log = io.StringIO()
        self.upstream = PracticeUpstream(accounts=[ACCOUNT], log=self.log, **self.settings)
        self.addCleanup(self.upstream.stop)
        self.upstream.start()

    def dialogue(self, *, greet=True, **options):
        dialogue = Dialogue(self.upstream, **options)
        self.addCleanup(dialogue.close)
        if greet:
            dialogue.reply()
        return dialogue

    def signed_in(self):
        dialogue = self.dialogue()
        self.assertEqual(dialogue.sign_in(), "235 2.7.0 Authentication successful")
        return dialogue

    def counter(self, name):
        return self.upstream.counters()[name]

    def wait_closed(self):
        deadline = time.monotonic() + 5
        while self.counter("connections_open") and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self.counter("connections_open"), 0)


class Texts(WithUpstream):
    """What it says, to the letter."""

    def test_banner(self):
        banner = self.dialogue(greet=False).reply()
        self.assertRegex(banner, r"^220 \S+\.outlook\.office365\.com Microsoft ESMTP MAIL Service "
                                 r"ready at \w{3}, \d{2} \w{3} \d{4} [\d:]{8} \+0000 "
                                 r"\[[0-9A-F]+\]$")

    def test_ehlo_lists_before_and_after_starttls(self):
        client = self.dialogue()
        self.assertEqual(words(client.do("EHLO a")), [
            "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS",
            "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"])
        client.tls()
        self.assertEqual(words(client.do("EHLO a")), [
            "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "AUTH LOGIN XOAUTH2",
            "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"])

    def test_success_replies(self):
        client = self.signed_in()
        self.assertEqual(client.do(f"MAIL FROM:<{USER}> SIZE=100"), "250 2.1.0 Sender OK")
        self.assertEqual(client.do("RCPT TO:<a@b.test>"), "250 2.1.5 Recipient OK")
        self.assertEqual(client.do("DATA"), "354 Start mail input; end with <CRLF>.<CRLF>")
        client.send("Message-ID: <1@x.test>\r\n\r\n.\r\n")
        self.assertRegex(client.reply(), r"^250 2\.0\.0 OK <1@x\.test> \[Hostname=\S+\]$")
        self.assertEqual(client.do("RSET"), "250 2.0.0 Resetting")
        self.assertEqual(client.do("QUIT"), "221 2.0.0 Service closing transmission channel")
        self.assertEqual(client.reply(), "")

    def test_starttls_reply(self):
        client = self.dialogue()
        client.do("EHLO a")
        self.assertEqual(client.do("STARTTLS"), "220 2.0.0 SMTP server ready")

    def test_unknown_command_and_bad_sequence(self):
        client = self.dialogue()
        self.assertRegex(client.do("XYZZY secret"), r"^500 5\.3\.3 Unrecognized command 'XYZZY' \[")
        self.assertEqual(client.do("MAIL FROM:<a@b>"), "503 5.5.2 Send hello first")
        self.assertNotIn("secret", self.log.getvalue())


def words(ehlo):
    return [line[4:] for line in ehlo.split("\n")[1:]]


class SignIn(WithUpstream):
    """STARTTLS and AUTH."""

    def test_mail_without_auth_is_530(self):
        client = self.dialogue()
        client.do("EHLO a")
        self.assertIn("530 5.7.57", client.do("MAIL FROM:<a@b.test>"))
        client.tls()
        client.do("EHLO a")
        self.assertIn("530 5.7.57", client.do("MAIL FROM:<a@b.test>"))

    def test_auth_before_tls_and_plain_are_504(self):
        client = self.dialogue()
        client.do("EHLO a")
        self.assertIn("504 5.7.4", client.do("AUTH LOGIN"))
        client.tls()
        client.do("EHLO a")
        self.assertIn("504 5.7.4", client.do("AUTH PLAIN AHgAeQ=="))

    def test_ehlo_is_forgotten_after_starttls(self):
        client = self.dialogue()
        client.tls()
        self.assertEqual(client.do("AUTH LOGIN"), "503 5.5.2 Send hello first")

    def test_clear_text_behind_starttls_is_discarded(self):
        client = self.dialogue()
        client.tls(behind=b"EHLO smuggled\r\n")
        self.assertEqual(client.do("AUTH LOGIN"), "503 5.5.2 Send hello first")
        self.assertEqual(self.counter("discarded_after_starttls"), len(b"EHLO smuggled\r\n"))
        self.assertEqual(self.counter("pipelining_violations"), 1)

    def test_login_in_two_ways(self):
        for command in ("AUTH LOGIN", "auth login"):
            client = self.dialogue()
            client.tls()
            client.do("EHLO a")
            self.assertEqual(client.do(command), "334 VXNlcm5hbWU6")
            self.assertEqual(client.do(LOGIN_USER), "334 UGFzc3dvcmQ6")
            self.assertEqual(client.do(LOGIN_PASSWORD), "235 2.7.0 Authentication successful")
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertEqual(client.do(f"AUTH LOGIN {LOGIN_USER}"), "334 UGFzc3dvcmQ6")
        self.assertEqual(client.do(LOGIN_PASSWORD), "235 2.7.0 Authentication successful")
        self.assertEqual(self.counter("auth_ok"), 3)

    def test_xoauth2_one_step_and_two_step(self):
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertEqual(client.do(f"auth xoauth2 {xoauth2()}"),
                         "235 2.7.0 Authentication successful")
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertEqual(client.do("AUTH XOAUTH2"), "334 ")
        self.assertEqual(client.do(xoauth2()), "235 2.7.0 Authentication successful")
        self.assertIn("250", client.submit())
        self.assertEqual(self.upstream.messages()[0]["mechanism"], "XOAUTH2")

    def test_wrong_credentials_are_535_at_once(self):
        wrong = (xoauth2(token="wrong"), xoauth2(user="nobody@office.test"), "rubbish", "dXNlcj0=")
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        for response in wrong:
            with self.subTest(response):
                client.do("AUTH XOAUTH2")
                self.assertRegex(client.do(response),
                                 r"^535 5\.7\.3 Authentication unsuccessful \[.+\]$")
        client.do("AUTH LOGIN")
        client.do(LOGIN_USER)
        self.assertIn("535 5.7.3", client.do(base64.b64encode(b"wrong").decode()))
        self.assertEqual(self.counter("auth_failed"), len(wrong) + 1)

    def test_cancel_is_535(self):
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        for mechanism in ("LOGIN", "XOAUTH2"):
            client.do(f"AUTH {mechanism}")
            self.assertIn("535 5.7.3", client.do("*"))

    def test_long_token_needs_two_steps(self):
        token = "t" * 4000
        self.upstream.put_account(address=USER, token=token)
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertIn("500 5.5.2", client.do("AUTH XOAUTH2 " + xoauth2(token=token)))
        self.assertIn("500 5.5.2", client.do("AUTH XOAUTH2 " + "A" * 500))
        client.do("AUTH XOAUTH2")
        self.assertIn("235", client.do(xoauth2(token=token)))

    def test_credentials_are_not_logged(self):
        self.signed_in()
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        client.do(LOGIN_PASSWORD)
        for secret in (PASSWORD, LOGIN_PASSWORD, LOGIN_PASSWORD.upper()):
            self.assertNotIn(secret, self.log.getvalue())

    def test_certificates(self):
        for kind, said in (("good", None), ("wrong-name", "Hostname mismatch"),
                           ("expired", "expired"), ("untrusted", "unable to get")):
            with self.subTest(kind):
                self.upstream.use_certificate(kind)
                client = self.dialogue()
                if said is None:
                    for name in ("localhost", "smtp.office365.test", "127.0.0.1", "::1"):
                        self.dialogue().tls(name)
                    continue
                with self.assertRaisesRegex(ssl.SSLCertVerificationError, said):
                    client.tls()


class MailData(WithUpstream):
    """DATA, BDAT, and the facts."""

    def test_stored_octets_are_the_unstuffed_ones(self):
        client = self.signed_in()
        client.submit(b"Subject: x\r\n\r\n..dot\r\n...\r\n.text\r\n")
        facts = self.upstream.messages()[0]
        stored = pathlib.Path(facts["file"]).read_bytes()
        self.assertEqual(stored, b"Subject: x\r\n\r\n.dot\r\n..\r\ntext\r\n")
        self.assertEqual(facts["sha256"], hashlib.sha256(stored).hexdigest())
        self.assertEqual(facts, json.loads(pathlib.Path(facts["file"]).with_suffix(".json")
                                           .read_text(encoding="utf-8")))

    def test_only_crlf_dot_crlf_ends_the_data(self):
        client = self.signed_in()
        wrong_ends = b"a\n.\nb\n.\r\nc\r\n.\nd\r.\re\r\n.\rf\r\n"
        self.assertIn("250", client.submit(wrong_ends))
        facts = self.upstream.messages()[0]
        self.assertTrue(facts["bare_lf"] and facts["bare_cr"])
        self.assertEqual(facts["size"], len(wrong_ends) - 2)
        self.assertEqual(self.counter("messages_with_bare_lf"), 1)

    def test_facts_of_a_session(self):
        client = self.signed_in()
        client.do("MAIL FROM:<scanner@office.test> SIZE=77 BODY=8BITMIME")
        client.do("RCPT TO:<a@b.test> NOTIFY=NEVER")
        client.do("RCPT TO:<not an address>")
        client.do("RCPT TO:<c@d.test>")
        client.do("DATA")
        client.send("Message-ID:\r\n <1@x>\r\n\r\n" + "x" * 998 + "\r\n.\r\n")
        client.reply()
        expected = {
            "mailbox": USER, "mechanism": "LOGIN", "reverse_path": USER,
            "forward_paths": ["a@b.test", "c@d.test"],
            "mail_parameters": {"SIZE": "77", "BODY": "8BITMIME"}, "tls_version": "TLSv1.3",
            "ehlo": "device.test", "transport": "DATA", "pipelined": False, "number": 1,
            "message_id": "<1@x>", "bare_lf": False, "bare_cr": False, "longest_line": 998,
            "connection": 1, "message_on_connection": 1, "duplicate": False}
        facts = self.upstream.messages()[0]
        self.assertEqual({key: facts[key] for key in expected}, expected)
        self.assertTrue(facts["tls_cipher"])

    def test_pipelined_group_in_one_packet(self):
        client = self.signed_in()
        client.send("MAIL FROM:<scanner@office.test>\r\nRCPT TO:<a@b.test>\r\n"
                    "RCPT TO:<bad>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        self.assertEqual([client.reply()[:3] for _ in range(5)],
                         ["250", "250", "501", "250", "354"])
        client.send("\r\nx\r\n.\r\nMAIL FROM:<scanner@office.test>\r\nRSET\r\nQUIT\r\n")
        self.assertEqual([client.reply()[:3] for _ in range(4)], ["250", "250", "250", "221"])
        facts = self.upstream.messages()[0]
        self.assertTrue(facts["pipelined"])
        self.assertEqual(facts["forward_paths"], ["a@b.test", "c@d.test"])
        self.assertEqual(self.counter("pipelining_violations"), 0)

    def test_bdat(self):
        client = self.signed_in()
        client.send("MAIL FROM:<scanner@office.test> BODY=BINARYMIME\r\nRCPT TO:<a@b.test>\r\n"
                    "BDAT 7\r\na\r\n.\r\nbBDAT 0\r\nBDAT 3 LAST\r\nc\nd")
        replies = [client.reply() for _ in range(5)]
        self.assertEqual([reply[:3] for reply in replies], ["250"] * 5)
        self.assertIn("CHUNK received OK, 7 octets", replies[2])
        facts = self.upstream.messages()[0]
        self.assertEqual(pathlib.Path(facts["file"]).read_bytes(), b"a\r\n.\r\nbc\nd")
        self.assertEqual(facts["transport"], "BDAT")
        self.assertIn("503", client.do("BDAT 0 LAST"))

    def test_bdat_and_data_do_not_mix(self):
        client = self.signed_in()
        client.envelope()
        client.send("BDAT 2\r\nab")
        client.reply()
        self.assertIn("503", client.do("DATA"))
        client.do("RSET")
        client.do("MAIL FROM:<scanner@office.test> BODY=BINARYMIME")
        client.do("RCPT TO:<a@b.test>")
        self.assertIn("503", client.do("DATA"))
        self.assertEqual(self.upstream.messages(), [])

    def test_refused_bdat_still_takes_its_octets(self):
        client = self.signed_in()
        client.send("BDAT 6\r\nQUIT\r\nNOOP\r\n")
        self.assertIn("503", client.reply())
        self.assertIn("250", client.reply())

    def test_smtplib(self):
        with smtplib.SMTP("127.0.0.1", self.upstream.port) as client:
            client.starttls(context=ssl.create_default_context(cafile=self.upstream.ca))
            client.login(USER, PASSWORD)
            content = "Message-ID: <1@x>\n\n.\n..\n" + "line\n" * 50000
            self.assertEqual(client.sendmail(USER, ["a@b.test", "c@d.test"], content), {})
        stored = pathlib.Path(self.upstream.messages()[0]["file"]).read_bytes()
        self.assertEqual(stored, content.replace("\n", "\r\n").encode())

    def test_any_cut_of_the_octets_gives_the_same(self):
        choice = random.Random(7)
        for _ in range(400):
            body = bytes(choice.choice(b"\r\n..a") for _ in range(40))
            whole = DotReader().feed(body + b"\r\n.\r\nREST")
            reader, out, rest, position = DotReader(), b"", None, 0
            octets = body + b"\r\n.\r\nREST"
            while rest is None:
                step = choice.randrange(1, 5)
                piece, rest = reader.feed(octets[position:position + step])
                out, position = out + piece, position + step
            self.assertEqual((out, rest + octets[position:]), whole)
            self.check_facts(out, choice)

    def check_facts(self, octets, choice):
        facts, position = Facts(), 0
        while position < len(octets):
            step = choice.randrange(1, 5)
            facts.update(octets[position:position + step])
            position += step
        left = octets.replace(b"\r\n", b"")
        got = facts.as_dict()
        self.assertEqual(got["bare_lf"], b"\n" in left)
        self.assertEqual(got["bare_cr"], b"\r" in left)
        self.assertEqual(got["longest_line"], max(map(len, octets.split(b"\r\n"))))


class LimitsOfAMailbox(WithUpstream):
    """Concurrency, rate, recipients, size, send-as."""

    def test_the_fourth_connection_is_refused_after_its_final_dot(self):
        clients = [self.signed_in() for _ in range(4)]
        answers = [client.submit() for client in clients]
        self.assertEqual([answer[:3] for answer in answers], ["250", "250", "250", "432"])
        self.assertRegex(answers[3], r"^432 4\.3\.2 Concurrent connections limit exceeded\. Visit "
                         r"https://aka\.ms/concurrent_sending for more information\. \[Hostname=")
        clients[0].do("QUIT")
        self.assertIn("250", clients[3].submit())
        mailbox = self.counter("mailboxes")[USER]
        self.assertEqual((mailbox["highest_concurrency"], mailbox["violations"]["concurrency"]),
                         (4, 1))
        self.assertEqual(self.counter("refused"), {"432 4.3.2": 1})

    def test_a_mailbox_is_free_before_the_client_sees_the_close(self):
        for _ in range(20):
            client = self.signed_in()
            client.do("QUIT")
            self.assertEqual(client.reply(), "")
        self.assertEqual(self.counter("mailboxes")[USER]["highest_concurrency"], 1)

    def test_rate_is_delayed_into_the_next_minute(self):
        self.upstream.set_limits(messages_per_minute=2, minute=0.6)
        client = self.signed_in()
        begin = time.monotonic()
        for _ in range(3):
            self.assertIn("250", client.submit())
        self.assertGreaterEqual(time.monotonic() - begin, 0.55)
        self.assertEqual(self.counter("violations")["rate"], 1)

    def test_rate_is_refused(self):
        self.upstream.set_limits(messages_per_minute=1, rate_policy="refuse")
        client = self.signed_in()
        client.submit()
        self.assertEqual(client.do(f"MAIL FROM:<{USER}>"), "421 4.4.2 Message submission rate for "
                         "this client has exceeded the configured limit")
        self.assertEqual(client.reply(), "")

    def test_ledger_slots(self):
        now = [1000.0]
        ledger = Ledger(Limits(messages_per_minute=2), clock=lambda: now[0])
        self.assertEqual([ledger.reserve_message("m") for _ in range(5)], [0, 0, 60, 60, 120])
        now[0] += 200
        self.assertEqual(ledger.reserve_message("m"), 0)
        self.assertEqual(ledger.snapshot()["violations"]["rate"], 3)

    def test_recipients_of_a_message_and_of_a_day(self):
        self.upstream.set_limits(recipients_per_message=2, recipients_per_day=3)
        client = self.signed_in()
        client.envelope("a@b.test", "b@b.test")
        self.assertEqual(client.do("RCPT TO:<c@b.test>"), "452 4.5.3 Too many recipients")
        client.do("DATA")
        self.assertIn("250", client.do("\r\n."))
        client.envelope("a@b.test", "b@b.test")
        client.do("DATA")
        self.assertRegex(client.do("\r\n."), r"^554 5\.2\.0 STOREDRV\.Submission\.Exception:"
                         r"SubmissionQuotaExceededException; ")
        self.assertEqual(self.counter("mailboxes")[USER]["recipients_today"], 2)

    def test_size(self):
        refusal = "552 5.3.4 Message size exceeds fixed maximum message size"
        client = self.signed_in()
        self.assertEqual(client.do(f"MAIL FROM:<{USER}> SIZE=36700161"), refusal)
        self.assertIn("250", client.do(f"MAIL FROM:<{USER}> SIZE=36700160"))
        client.do("RSET")
        self.upstream.set_limits(message_size=20)
        self.assertEqual(client.submit(b"\r\n" + b"x" * 20 + b"\r\n"), refusal)
        self.upstream.set_limits(size_at="mail")
        self.assertIn("250", client.submit(b"\r\n" + b"x" * 20 + b"\r\n"))
        self.upstream.put_account(**ACCOUNT, message_size=1000)
        self.assertIn("552", client.do(f"MAIL FROM:<{USER}> SIZE=21"))

    def test_header_from(self):
        client = self.signed_in()
        other = b"From: Boss <boss@office.test>\r\n\r\nx\r\n"
        self.assertIn("250", client.submit(other))
        self.upstream.set_limits(check_from=True)
        self.assertIn("250", client.submit(b'From: "A, B" <COPIER@office.test>\r\n\r\nx\r\n'))
        self.assertRegex(client.submit(other), r"^554 5\.2\.252 SendAsDenied; scanner@office\.test "
                         r"not allowed to send as boss@office\.test; STOREDRV")
        self.assertIn("5.7.512", client.submit(b"Subject: no From\r\n\r\nx\r\n"))

    def test_duplicates_and_messages_on_a_connection(self):
        client = self.signed_in()
        for _ in range(3):
            client.submit(b"Message-ID: <same@x>\r\n\r\nx\r\n")
        client.submit(b"Subject: without\r\n\r\nx\r\n")
        client.submit(b"Subject: without\r\n\r\nx\r\n")
        self.assertEqual(self.counter("duplicates"), 2)
        self.assertEqual(self.counter("highest_messages_per_connection"), 5)

    def test_unknown_limits_change_nothing(self):
        for values in ({"connections": 9, "bogus": 1}, {"connections": -1},
                       {"rate_policy": "perhaps"}):
            with self.assertRaises(ValueError):
                self.upstream.set_limits(**values)
        self.assertEqual(self.upstream.limits()["connections"], 3)


class Scripted(WithUpstream):
    """Rules."""

    def test_by_recipient_and_times(self):
        self.upstream.add_rule(stage="rcpt", match="^<bad@", reply="550 5.1.10 No", after=1,
                               times=1)
        client = self.signed_in()
        client.do(f"MAIL FROM:<{USER}>")
        for expected in ("250", "550", "250"):
            self.assertIn(expected, client.do("RCPT TO:<bad@b.test>"))
            self.assertIn("250", client.do("RCPT TO:<good@b.test>"))
        self.assertEqual(self.upstream.rules()[0]["fired"], 1)

    def test_drop_before_and_after_storing(self):
        for action, stored in (("drop-before-store", 0), ("drop-after-store", 1), ("reset", 1)):
            with self.subTest(action):
                self.upstream.add_rule(stage="dot", action=action, times=1)
                client = self.signed_in()
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.submit(), "")
                self.wait_closed()
                self.assertEqual(len(self.upstream.messages()), stored)
        left = list((self.upstream.directory / "mail").glob("arriving-*"))
        self.assertEqual(left, [])

    def test_hang_counts_until_the_client_closes(self):
        self.upstream.add_rule(stage="dot", action="hang-after-store")
        client = self.signed_in()
        client.sock.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            client.submit()
        self.assertEqual(self.counter("mailboxes")[USER]["open"], 1)
        self.assertTrue(self.upstream.wait_stored(1, 1))
        client.close()
        self.wait_closed()
        self.assertEqual(self.counter("mailboxes")[USER]["open"], 0)

    def test_close_in_the_middle_of_mail_data(self):
        self.upstream.add_rule(stage="body", at=100000, action="reset")
        client = self.signed_in()
        with self.assertRaises(OSError):
            for _ in range(100):
                client.submit(b"x" * 98 + b"\r\n")
                client.submit(b"\r\n" + (b"y" * 98 + b"\r\n") * 5000)
        self.wait_closed()
        self.assertEqual(self.counter("stored"), 1)

    def test_reply_in_pieces_and_lines(self):
        self.upstream.add_rule(stage="noop", reply="250-one\n250 two", split=3, split_pause=0.01,
                               delay_per_line=0.2)
        client = self.dialogue()
        begin = time.monotonic()
        self.assertEqual(client.do("NOOP"), "250-one\n250 two")
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)

    def test_code_once_in_a_reply_of_many_lines(self):
        self.assertEqual(lines_of("451 a\nb\nc"), ["451-a", "451-b", "451 c"])
        self.assertEqual(lines_of("250-a\n250 b"), ["250-a", "250 b"])
        self.assertEqual(lines_of("334 "), ["334 "])

    def test_idle(self):
        self.upstream.add_rule(stage="idle", match="^data$", delay=0.1)
        client = self.signed_in()
        time.sleep(0.2)
        client.submit()
        self.assertIn("451 4.7.0 Timeout waiting for client input", client.reply())
        self.assertEqual(client.reply(), "")

    def test_connect_banner_and_tls_stages(self):
        self.upstream.add_rule(stage="connect", action="close", times=1)
        self.upstream.add_rule(stage="banner", reply="554 5.3.2 not today", times=1)
        self.upstream.add_rule(stage="tls", reply="421 4.7.66 TLS too old", times=1)
        self.assertEqual(self.dialogue(greet=False).reply(), "")
        client = self.dialogue(greet=False)
        self.assertEqual(client.reply(), "554 5.3.2 not today")
        self.assertIn("503", client.do("EHLO a"))
        self.assertIn("221", client.do("QUIT"))
        client = self.dialogue()
        client.tls()
        self.assertEqual(client.reply(), "421 4.7.66 TLS too old")
        self.assertEqual(client.reply(), "")

    def test_a_script_cannot_accept_wrong_credentials(self):
        self.upstream.add_rule(stage="auth", reply="235 2.7.0 welcome")
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertIn("535", client.do(f"AUTH XOAUTH2 {xoauth2(token='wrong')}"))
        self.assertEqual(client.do(f"AUTH XOAUTH2 {xoauth2()}"), "235 2.7.0 welcome")

    def test_failure_explained_by_a_challenge(self):
        self.upstream.add_rule(stage="auth", match="XOAUTH2", reply="334 eyJzdGF0dXMiOiI0MDEifQ==")
        client = self.dialogue()
        client.tls()
        client.do("EHLO a")
        self.assertIn("334 eyJ", client.do(f"AUTH XOAUTH2 {xoauth2()}"))
        self.assertIn("535", client.do(""))
        self.assertIn("530", client.do(f"MAIL FROM:<{USER}>"))

    def test_by_mailbox_header_and_tls(self):
        self.upstream.add_rule(stage="dot", mailbox="other@office.test", reply="451 4.0.0 a")
        self.upstream.add_rule(stage="dot", header="^Subject: .*urgent", reply="451 4.0.0 b")
        self.upstream.add_rule(stage="ehlo", tls=True, reply="250 only SIZE", times=1)
        client = self.dialogue()
        client.tls()
        self.assertEqual(client.do("EHLO a"), "250 only SIZE")
        client.do(f"AUTH XOAUTH2 {xoauth2()}")
        self.assertIn("250", client.submit())
        self.assertEqual(client.submit(b"Subject: most Urgent\r\n\r\n\r\n"), "451 4.0.0 b")

    def test_bad_rules(self):
        for rule in ({"stage": "lunch"}, {"stage": "dot", "action": "fly"}, {"reply": "250 x"},
                     {"stage": "dot", "reply": "no code"}, {"stage": "dot", "colour": "red"}):
            with self.subTest(rule), self.assertRaises((ValueError, TypeError)):
                self.upstream.add_rule(**rule)

    def test_refused_messages_leave_no_file(self):
        self.upstream.add_row("mailbox-full")
        client = self.signed_in()
        self.assertIn("554 5.2.2 mailbox full; STOREDRV", client.submit())
        self.assertEqual(list((self.upstream.directory / "mail").iterdir()), [])


class Catalogue(WithUpstream):
    """replies.json: every row is given as written at its stage."""

    def test_every_row(self):
        rows = catalogue()
        self.assertGreater(len(rows), 100)
        for row in rows.values():
            with self.subTest(row["name"]):
                self.assertIn(row["action"],
                              ("soon", "back", "conc", "pause", "rcpt", "msg", "hold", "none"))
                self.upstream.clear_rules()
                self.upstream.add_row(row["name"], times=1)
                got = self.reply_at(row["stage"])
                expected = "\n".join(lines_of(row["reply"])).partition("{")[0]
                self.assertTrue(got.startswith(expected), got)

    def reply_at(self, stage):
        client = self.dialogue(greet=False)
        if stage == "banner":
            return client.reply()
        client.reply()
        if stage == "ehlo":
            return client.do("EHLO a")
        if stage == "starttls":
            client.do("EHLO a")
            return client.do("STARTTLS")
        client.tls()
        if stage == "tls":
            return client.reply()
        client.do("EHLO a")
        reply = client.do(f"AUTH XOAUTH2 {xoauth2()}")
        if stage == "idle":
            client.submit()
            return client.reply()
        return reply if stage == "auth" else self.reply_in_transaction(client, stage)

    @staticmethod
    def reply_in_transaction(client, stage):
        for at, command in (("mail", f"MAIL FROM:<{USER}>"), ("rcpt", "RCPT TO:<a@b.test>"),
                            ("data", "DATA"), ("dot", "Subject: x\r\n\r\n.")):
            reply = client.do(command)
            if at == stage:
                client.close()
                return reply
        raise AssertionError(stage)

    def test_idle_rows_wait_for_silence(self):
        self.assertEqual(rule_of_row(catalogue()["idle-timeout"], delay=5.0).delay, 5.0)
        self.upstream.add_row("idle-timeout", delay=5.0)
        client = self.signed_in()
        client.submit()
        self.assertIn("250", client.do("NOOP"))


class Running(WithUpstream):
    """Down and up again, the control socket, many clients, both families."""

    settings = {"hosts": ("127.0.0.1", "::1")}

    def test_down_and_up_on_the_same_port(self):
        port, client = self.upstream.port, self.signed_in()
        self.upstream.pause()
        for host in ("127.0.0.1", "::1"):
            with self.assertRaises(ConnectionRefusedError):
                Dialogue(self.upstream, host=host)
        self.assertIn("250", client.submit())
        self.upstream.resume()
        self.assertEqual(self.upstream.port, port)
        for host in ("127.0.0.1", "::1"):
            self.assertIn("250", self.dialogue(host=host).do("NOOP"))
        self.upstream.pause(drop=True)
        self.assertEqual(client.reply(), "")
        self.wait_closed()

    def test_control_from_another_process(self):
        remote = Control(self.upstream.control)
        remote.add_rule(stage="mail", reply="451 4.3.0 x", times=1)
        remote.set_limits(messages_per_minute=0)
        client = self.signed_in()
        self.assertEqual(client.do(f"MAIL FROM:<{USER}>"), "451 4.3.0 x")
        client.submit()
        self.assertTrue(remote.wait_stored(1, timeout=2))
        self.assertFalse(remote.wait_stored(2, timeout=0.1))
        self.assertEqual(remote.messages(), self.upstream.messages())
        self.assertEqual(remote.counters(), self.upstream.counters())
        remote.reset()
        self.assertEqual(remote.messages(), [])
        with self.assertRaisesRegex(Exception, "no stage is called 'x'"):
            remote.add_rule(stage="x")

    def test_many_clients_at_once(self):
        self.upstream.set_limits(connections=0, messages_per_minute=0)

        def work():
            client = Dialogue(self.upstream)
            client.reply()
            client.sign_in()
            for _ in range(10):
                client.submit()
            client.do("QUIT")
            client.close()

        threads = [threading.Thread(target=work) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual(self.counter("stored"), 200)
        self.assertEqual([facts["number"] for facts in self.upstream.messages()],
                         list(range(1, 201)))
        self.assertEqual(self.counter("highest_messages_per_connection"), 10)

    def test_every_action_ends_the_session(self):
        for action in filter(None, ACTIONS):
            self.upstream.clear_rules()
            self.upstream.add_rule(stage="noop", action=action)
            client = self.dialogue()
            client.send("NOOP\r\n")
            if not action.startswith("hang"):
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.reply(), "")
            client.close()
            self.wait_closed()


class AsAProgram(unittest.TestCase):
    """m365.py in a process of its own, with the openssl command and a large message."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="m365-test-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.process = subprocess.Popen(
            [sys.executable, HERE / "m365.py", "--directory", self.directory / "state",
             "--account", f"{USER}:{PASSWORD}", "--limit", "message_size=157286400",
             "--ready-file", self.directory / "ready", "--log", self.directory / "log"],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end)
        self.ready = json.loads(self.process.stdout.readline())

    def end(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()

    def ctl(self, *arguments):
        return subprocess.run([sys.executable, HERE / "m365.py", "ctl", self.ready["control"],
                               *arguments], capture_output=True, text=True, check=False)

    def test_ready_file_and_stop(self):
        self.assertEqual(json.loads((self.directory / "ready").read_text()), self.ready)
        self.assertEqual(self.ready["pid"], self.process.pid)
        self.assertEqual(self.ctl("counters", "stored").stdout, "0\n")
        self.assertEqual(self.ctl("counters", "bogus").returncode, 2)
        self.assertEqual(self.ctl("wait", "1", "0.1").returncode, 1)
        self.assertEqual(self.ctl("row", "concurrency", "times=2").returncode, 0)
        self.assertEqual(json.loads(self.ctl("rules").stdout)[0]["times"], 2)
        self.assertEqual(self.ctl("stop").returncode, 0)
        self.assertEqual(self.process.wait(10), 0)
        self.assertFalse(os.path.exists(self.ready["control"]))

    def test_openssl_client(self):
        done = subprocess.run(
            ["openssl", "s_client", "-starttls", "smtp", "-crlf", "-CAfile", self.ready["ca"],
             "-verify_return_error", "-verify_hostname", "smtp.office365.test",
             "-connect", f"127.0.0.1:{self.ready['port']}"],
            input="QUIT\n", capture_output=True, text=True, timeout=20, check=False)
        self.assertIn("Verification: OK", done.stdout)

    def test_100_megabytes_in_flat_memory(self):
        block = (b"x" * 76 + b"\r\n") * 13_500
        content = b"Message-ID: <large@x>\r\n\r\n" + block * 100
        before = peak_kilobytes(self.process.pid)
        begin = time.monotonic()
        with smtplib.SMTP("127.0.0.1", self.ready["port"]) as client:
            client.starttls(context=ssl.create_default_context(cafile=self.ready["ca"]))
            client.login(USER, PASSWORD)
            client.mail(USER, [f"SIZE={len(content)}"])
            client.rcpt("a@b.test")
            client.docmd("DATA")
            client.send(content + b".\r\n")
            self.assertEqual(client.getreply()[0], 250)
        self.assertLess(time.monotonic() - begin, 30)
        facts = json.loads((self.directory / "state/mail/1.json").read_text())
        self.assertEqual(facts["size"], len(content))
        self.assertEqual(facts["sha256"], hashlib.sha256(content).hexdigest())
        self.assertLess(peak_kilobytes(self.process.pid) - before, 8192)


def peak_kilobytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    unittest.main()
