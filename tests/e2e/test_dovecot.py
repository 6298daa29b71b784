"""A real Dovecot submission service as the upstream, which asks whether a token is good."""

import unittest

from dovecot import Dovecot, Unavailable
from harness import MAILBOX, EndToEnd, eventually, lines_of_base64, message, message_id_of
from token_server import CLIENT, SECRET, TokenServer

LABELS = "full"


class Submission(EndToEnd):
    def setUp(self):
        super().setUp()
        self.tokens = TokenServer().start()
        self.tokens.username = MAILBOX
        self.addCleanup(self.tokens.stop)

    def dovecot(self, **options):
        try:
            server = Dovecot(self.directory, self.tokens.url("introspect"), **options)
        except Unavailable as error:
            self.skipTest(f"no Dovecot: {error}")
        self.addCleanup(server.stop)
        return server.start()

    def relay_to(self, server, **keys):
        relay = self.relay(None, start=False)
        secret = relay.directory / "secret"
        secret.write_text(SECRET + "\n", encoding="ascii")
        secret.chmod(0o600)
        relay.set("mailbox office", provider="custom", port=server.port, ca_file=server.ca, password_file=None,
                  client_id=CLIENT, client_secret_file=secret, token_url=self.tokens.url(), scope="smtp", **keys)
        return relay.start()

    def assert_taken(self, server, sent):
        try:
            eventually(lambda: len(server.sink.messages) >= len(sent), "Dovecot has handed it on", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.log()[-4000:]}") from None
        taken = {message_id_of(data): data for data in server.sink.messages}
        for data in sent:
            self.assertEqual(taken[message_id_of(data)].split(b"\r\n\r\n", 1)[1], data.split(b"\r\n\r\n", 1)[1])

    def sign_in_with(self, mechanism):
        server = self.dovecot(mechanisms=mechanism.lower())
        relay = self.relay_to(server)
        sent = [relay.send(message(body=body)) for body in (b".dot\r\n..dots\r\n", lines_of_base64(300_000))]
        self.assert_taken(server, sent)
        self.assertEqual(relay.mailbox()["mechanism"], mechanism)

    def test_a_token_is_taken_with_xoauth2(self):
        self.sign_in_with("XOAUTH2")

    def test_a_token_is_taken_with_oauthbearer(self):
        self.sign_in_with("OAUTHBEARER")

    def refused_with(self, mechanism):
        """Explained in a challenge first; then a fresh token is tried, once."""
        self.tokens.active = False
        server = self.dovecot(mechanisms=mechanism.lower())
        relay = self.relay_to(server)
        data = relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertEqual(len(self.tokens.tokens), 2)
        self.assertIn("535", relay.mailbox()["last_reply"])
        self.assertIn("status", relay.mailbox()["last_reply"])
        self.tokens.active = True
        relay.tool("resume", "office")
        self.assert_taken(server, [data])

    def test_a_refusal_is_heard_out_with_xoauth2(self):
        self.refused_with("XOAUTH2")

    def test_a_refusal_is_heard_out_with_oauthbearer(self):
        self.refused_with("OAUTHBEARER")


if __name__ == "__main__":
    unittest.main()
