"""Signing in with OAuth: tokens are fetched, renewed and replaced, and no mail is lost meanwhile."""

import base64
import contextlib
import hashlib
import json
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from harness import MAILBOX, PASSWORD, EndToEnd, eventually, message, message_id_of
from token_server import CLIENT, SECRET, TokenServer

MINUTE = 60


class OAuth(EndToEnd):
    def setUp(self):
        super().setUp()
        self.practice = self.upstream()
        self.good = []
        self.tokens = TokenServer(self.accept).start()
        self.addCleanup(self.tokens.stop)

    def accept(self, token):
        """A token that was given is good, and so are those before it."""
        self.good.append(token)
        self.practice.put_account(address=MAILBOX, tokens=list(self.good))

    def reject_all(self):
        self.good.clear()
        self.tokens.on_token = lambda token: None
        self.practice.put_account(address=MAILBOX)

    def accept_again(self):
        self.tokens.on_token = self.accept

    def oauth_relay(self, **keys):
        relay = self.relay(self.practice, start=False)
        secret = relay.directory / "secret"
        secret.write_text(SECRET + "\n", encoding="ascii")
        secret.chmod(0o600)
        relay.set("mailbox office", password_file=None, tenant="example.onmicrosoft.com", client_id=CLIENT,
                  client_secret_file=secret, token_url=self.tokens.url(), device_url=self.tokens.url("devicecode"))
        relay.set("mailbox office", **keys)
        return relay.start()

    def assert_no_secret_is_told(self, relay):
        log = "\n".join(relay.lines)
        for secret in [SECRET, *self.tokens.tokens]:
            self.assertNotIn(secret, log)
            self.assertNotIn(base64.b64encode(secret.encode())[4:40].decode(), log)

    # The usual way

    def test_an_application_signs_in_and_its_mail_leaves(self):
        relay = self.oauth_relay()
        data = relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)
        self.assertEqual(self.practice.messages()[0]["mechanism"], "XOAUTH2")
        asked = self.tokens.requests
        self.assertEqual(len(asked), 1)
        self.assertEqual(asked[0]["grant_type"], "client_credentials")
        self.assertEqual(asked[0]["client_id"], CLIENT)
        self.assertEqual(asked[0]["scope"], "https://outlook.office365.com/.default")
        self.assertEqual(relay.mailbox()["mechanism"], "XOAUTH2")
        self.assert_no_secret_is_told(relay)

    def test_one_token_serves_several_mailboxes_of_an_application(self):
        relay = self.oauth_relay()
        relay.stop()
        second = "alarms@office.test"
        self.tokens.on_token = lambda token: [self.accept(token),
                                              self.practice.put_account(address=second, tokens=[token])]
        mailbox = dict(relay.sections["mailbox office"])
        for key in ("tenant", "client_id", "client_secret_file", "token_url", "device_url"):
            mailbox.pop(key)
        relay.set("mailbox alarms", **{**mailbox, "address": second, "sign_in": "office"})
        relay.set("route default", mailboxes="office")
        relay.set("route alarms", mailboxes="alarms", recipient_domains="alarm.test")
        relay.start()
        relay.send()
        relay.send(recipients=["duty@alarm.test"])
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual({facts["mailbox"] for facts in self.practice.messages()}, {MAILBOX, second})
        self.assertLessEqual(len(self.tokens.tokens), 2)  # one from each run
        self.assertEqual(self.tokens.highest_overlap, 1)

    def test_a_long_token_goes_in_two_steps(self):
        self.tokens.claims = {"groups": ["g" * 36] * 150}
        relay = self.oauth_relay()
        data = relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assertGreater(len(self.tokens.tokens[0]), 8000)
        self.assert_arrived(self.practice, data)

    # Trouble

    def test_a_refused_token_is_replaced_once_and_then_the_mailbox_pauses(self):
        self.tokens.on_token = lambda token: None
        self.practice.put_account(address=MAILBOX)
        relay = self.oauth_relay()
        sent = [relay.send() for _ in range(3)]
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertEqual(self.practice.counters()["auth_failed"], 2)
        self.assertEqual(len(self.tokens.tokens), 2)
        self.assertIn("New-ServicePrincipal", relay.mailbox()["remedy"])
        self.assertTrue(15 * MINUTE - 5 <= relay.mailbox()["next_try_in"] <= 61 * MINUTE)
        self.assertEqual({entry["state"] for entry in relay.queue()}, {"queued"})
        relay.advance(61 * MINUTE)  # a probe, with a fresh token
        eventually(lambda: self.practice.counters()["auth_failed"] == 3, "it was probed")
        self.assertEqual(len(self.tokens.tokens), 3)
        self.accept_again()
        eventually(lambda: relay.mailbox()["state"] == "paused" and relay.mailbox()["next_try_in"] > 60, "paused again")
        relay.tool("resume", "office")
        self.assertTrue(self.practice.wait_stored(3))
        self.assert_ids(self.practice, [message_id_of(data) for data in sent])
        self.assert_no_secret_is_told(relay)

    def test_a_token_that_is_revoked_in_mid_session_is_replaced(self):
        relay = self.oauth_relay()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.practice.add_rule(stage="mail", reply="530 5.7.57 Client not authenticated to send mail.", times=1)
        data = relay.send()
        self.assertTrue(self.practice.wait_stored(2))
        self.assert_arrived(self.practice, data)
        self.assertEqual(len(self.tokens.tokens), 2)
        self.assertEqual(relay.mailbox()["state"], "ready")

    def test_a_service_that_takes_no_token_in_mid_session_pauses_the_mailbox(self):
        relay = self.oauth_relay()
        self.practice.add_rule(stage="mail", reply="530 5.7.57 Client not authenticated to send mail.")
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertLessEqual(len(self.tokens.tokens), 3)
        self.assertEqual({entry["state"] for entry in relay.queue()}, {"queued"})

    def test_what_google_says_of_a_refusal_is_heard_out(self):
        said = base64.b64encode(b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}').decode()
        self.tokens.on_token = lambda token: None
        self.practice.put_account(address=MAILBOX)
        self.practice.add_rule(stage="auth", reply="334 " + said)
        relay = self.oauth_relay()
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertIn("status 400", relay.mailbox()["last_reply"])
        self.assertIn("https://mail.google.com/", relay.mailbox()["last_reply"])

    def test_a_wrong_secret_is_told_in_words_and_mail_waits(self):
        relay = self.oauth_relay()
        relay.stop()
        (relay.directory / "secret").write_text("the-secret-id\n", encoding="ascii")
        (relay.spool / "tokens").unlink(missing_ok=True)
        asked = len(self.tokens.requests)
        relay.start()
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertIn("secret", relay.mailbox()["problem"].lower())
        self.assertIn("AADSTS7000215", relay.mailbox()["last_reply"])
        self.assertLessEqual(len(self.tokens.requests) - asked, 3)
        self.assertEqual(self.practice.counters()["connections"], 0)
        (relay.directory / "secret").write_text(SECRET, encoding="ascii")
        relay.tool("resume", "office")
        self.assertTrue(self.practice.wait_stored(1))

    def test_without_token_endpoint_mail_waits_and_then_leaves(self):
        self.tokens.stop()
        relay = self.oauth_relay()
        data = relay.send()
        eventually(lambda: relay.mailbox()["state"] == "waiting", "the mailbox waits")
        self.assertEqual(self.practice.counters()["connections"], 0)
        self.tokens.start()
        for _ in range(20):
            relay.advance(MINUTE)
            if self.practice.wait_stored(1, 1):
                break
        self.assert_arrived(self.practice, data)

    def test_a_token_outlives_the_endpoint_and_a_restart(self):
        relay = self.oauth_relay()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        relay.stop()
        self.tokens.stop()
        relay.start()
        relay.send()
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual(len(self.tokens.tokens), 1)

    # Passwords

    def test_a_password_serves_until_oauth_is_set_up(self):
        self.practice.put_account(address=MAILBOX, password=PASSWORD)
        relay = self.relay(self.practice, start=False)
        relay.set("mailbox office", auth="oauth2, password").start()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.messages()[0]["mechanism"], "LOGIN")
        self.assertTrue(any("password" in problem["what"] for problem in relay.status()["problems"]))
        report = relay.tool("--json", "report", "sign-in", check=False)
        self.assertEqual(report.returncode, 1)  # office365 names a day
        self.assertEqual(json.loads(report.stdout)["mailboxes"][0]["signs_in_with"], "password")
        self.assertIn("2026-12-31", relay.tool("report", "sign-in", check=False).stdout.decode())

    def test_a_person_signs_in_with_a_code_and_takes_over_from_the_password(self):
        self.tokens.claims = {"roles": [], "scp": "SMTP.Send offline_access", "upn": MAILBOX}
        self.tokens.device_pending = 2
        self.practice.put_account(address=MAILBOX, password=PASSWORD)
        relay = self.relay(self.practice, start=False)
        relay.set("mailbox office", auth="oauth2, password", tenant="example.onmicrosoft.com", client_id=CLIENT,
                  token_url=self.tokens.url(), device_url=self.tokens.url("devicecode")).start()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        self.assertEqual(self.practice.messages()[0]["mechanism"], "LOGIN")
        said = relay.tool("login", "office").stdout.decode()
        self.assertIn("https://login.example/device", said)
        self.assertIn("ABCD-EFGH", said)
        relay.advance(2 * MINUTE)  # idle connections end
        relay.send()
        self.assertTrue(self.practice.wait_stored(2))
        self.assertEqual(self.practice.messages()[1]["mechanism"], "XOAUTH2")
        self.assertEqual(relay.json("report", "sign-in")["mailboxes"][0]["signs_in_with"], "oauth2")
        self.assert_no_secret_is_told(relay)
        self.assertNotIn("refresh-", "\n".join(relay.lines))

    def test_a_person_signs_in_with_a_browser(self):
        relay = self.relay(self.practice, start=False)
        relay.set("mailbox office", password_file=None, tenant="example.onmicrosoft.com", client_id=CLIENT,
                  grant="browser", token_url=self.tokens.url(), authorize_url=self.tokens.url("authorize")).start()
        data = relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox waits for the person")
        self.assertIn("outtray login office", relay.mailbox()["remedy"])
        tool = subprocess.Popen([relay.binaries / "outtray", "-c", relay.config_file, "login", "office", "--browser"],
                                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(tool.kill)
        page = next(line.strip() for line in tool.stdout if line.startswith("http"))
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page).query))
        self.assertEqual(asked["code_challenge_method"], "S256")
        redirect = asked["redirect_uri"].replace("localhost", "127.0.0.1")  # which not every machine resolves

        def come_back(**query):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"{redirect}/?{urllib.parse.urlencode(query)}", timeout=10).close()

        come_back(code="stolen", state="of-somebody-else")
        self.assertEqual(self.tokens.requests, [])
        come_back(code="the-code", state=asked["state"])
        self.assertEqual(tool.wait(30), 0)
        tool.stdout.close()
        form = self.tokens.requests[0]
        self.assertEqual(form["grant_type"], "authorization_code")
        self.assertEqual(form["code"], "the-code")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        self.assertEqual(challenge.decode().rstrip("="), asked["code_challenge"])
        self.assertTrue(self.practice.wait_stored(1))
        self.assert_arrived(self.practice, data)

    # What the operator sees

    def test_the_token_is_shown_without_being_told(self):
        relay = self.oauth_relay()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        shown = relay.tool("token", "office").stdout.decode()
        for words in ("https://outlook.office365.com", CLIENT, "SMTP.SendAsApp", "for Exchange Online"):
            self.assertIn(words, shown)
        told = relay.json("token", "office")
        self.assertEqual(told["audience"], "https://outlook.office365.com")
        self.assertTrue(all(check["good"] for check in told["checks"]))
        for text in (shown, json.dumps(told)):
            self.assertNotIn(self.tokens.tokens[0][:60], text)

    def test_a_secret_that_ends_soon_is_told(self):
        soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 20 * 86400))
        relay = self.oauth_relay(secret_expires=soon)
        told = eventually(lambda: [problem["what"] for problem in relay.status()["problems"]], "something is told")
        self.assertIn("mailbox office", told[0])
        self.assertIn("secret", told[0])
        self.assertEqual(relay.status()["state"], "attention")

    def test_a_token_without_a_role_may_be_right(self):
        self.tokens.claims = {"roles": []}
        relay = self.oauth_relay()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        checks = relay.json("token", "office")["checks"]
        self.assertTrue(all(check["good"] for check in checks))
        self.assertIn("RBAC for Applications", relay.tool("token", "office").stdout.decode())

    def test_a_token_for_another_service_is_told(self):
        self.tokens.claims = {"aud": "https://graph.microsoft.com", "roles": ["Mail.Send"]}
        relay = self.oauth_relay()
        relay.send()
        self.assertTrue(self.practice.wait_stored(1))
        told = relay.tool("--json", "token", "office", check=False)
        self.assertEqual(told.returncode, 1)
        self.assertIn(False, [check["good"] for check in json.loads(told.stdout)["checks"]])
        self.assertIn("not for Exchange Online", relay.tool("token", "office", check=False).stdout.decode())

    # Much mail

    def test_a_thousand_messages_with_tokens_that_live_a_minute(self):
        self.tokens.life = MINUTE
        self.tokens.delay = 0.05
        relay = self.oauth_relay()
        sent = []
        stop = threading.Event()

        def move():
            while not stop.wait(0.3):
                relay.advance(10)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            for _ in range(1000):
                data = message()
                relay.send(data)
                sent.append(message_id_of(data))
            self.assertTrue(self.practice.wait_stored(1000, 120))
        finally:
            stop.set()
            mover.join()
        self.assert_ids(self.practice, sent)
        self.assertEqual(self.tokens.highest_overlap, 1)
        self.assertGreater(len(self.tokens.tokens), 3)
        self.assertEqual(self.practice.counters()["mailboxes"][MAILBOX]["violations"]["concurrency"], 0)


if __name__ == "__main__":
    unittest.main()
