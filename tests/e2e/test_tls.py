"""Nothing leaves without TLS to a server that proved its name."""

import unittest

from harness import EndToEnd, eventually


class Certificates(EndToEnd):
    def assert_nothing_is_sent(self, practice, relay, *words):
        relay.send()
        box = eventually(lambda: relay.mailbox() if relay.mailbox()["state"] != "ready" else None,
                         "the mailbox is in trouble")
        text = str(relay.status()).lower()
        for word in words:
            self.assertIn(word, text)
        self.assertTrue(box["problem"] and box["remedy"])
        self.assertEqual(practice.messages(), [])
        counters = practice.counters()
        self.assertEqual((counters["auth_ok"], counters["auth_failed"]), (0, 0), "no credentials are shown")
        self.assertEqual(relay.queue()[0]["state"], "queued")

    def test_certificate_for_another_name(self):
        practice = self.upstream(certificate="wrong-name")
        self.assert_nothing_is_sent(practice, self.relay(practice), "certificate", "localhost")

    def test_certificate_of_an_unknown_authority(self):
        practice = self.upstream(certificate="untrusted")
        self.assert_nothing_is_sent(practice, self.relay(practice), "certificate")

    def test_expired_certificate(self):
        practice = self.upstream(certificate="expired")
        self.assert_nothing_is_sent(practice, self.relay(practice), "certificate", "expired")

    def test_system_authorities_do_not_trust_it(self):
        practice = self.upstream()
        relay = self.relay(practice, start=False)
        relay.set("mailbox office", ca_file=None).start()
        self.assert_nothing_is_sent(practice, relay, "certificate")

    def test_everything_leaves_when_the_certificate_is_mended(self):
        practice = self.upstream(certificate="expired")
        relay = self.relay(practice)
        self.assert_nothing_is_sent(practice, relay)
        practice.use_certificate("good")
        relay.tool("resume", "office")
        self.assertTrue(practice.wait_stored(1))
        self.assertIn(practice.messages()[0]["tls_version"], ("TLSv1.2", "TLSv1.3"))


class Stripping(EndToEnd):
    def refused_in_clear(self, **rule):
        practice = self.upstream()
        practice.add_rule(tls=False, **rule)
        relay = self.relay(practice)
        relay.send()
        eventually(lambda: relay.mailbox()["state"] != "ready", "the mailbox is in trouble")
        counters = practice.counters()
        self.assertEqual((counters["auth_ok"], counters["auth_failed"], counters["stored"]), (0, 0, 0))
        return practice, relay

    def test_starttls_taken_out_of_ehlo(self):
        _, relay = self.refused_in_clear(
            stage="ehlo", reply="250-relay\nSIZE 157286400\nAUTH LOGIN PLAIN\n8BITMIME")
        self.assertIn("starttls", str(relay.status()).lower())

    def test_starttls_refused(self):
        self.refused_in_clear(stage="starttls", reply="454 4.7.0 TLS not available due to local problem")

    def test_starttls_that_ends_in_noise(self):
        self.refused_in_clear(stage="starttls", reply="220 2.0.0 go ahead\n", action="close")

    def test_replies_injected_before_tls_are_discarded(self):
        """Octets behind the 220, in clear, must not count as replies after the handshake."""
        practice = self.upstream()
        practice.add_rule(stage="starttls", reply="220 2.0.0 Ready\r\n250-injected\r\n250 AUTH PLAIN", times=1)
        relay = self.relay(practice)
        relay.send()
        eventually(lambda: relay.mailbox()["state"] != "ready" or practice.messages(), "something happens")
        self.assertEqual(practice.counters()["auth_failed"], 0)


if __name__ == "__main__":
    unittest.main()
