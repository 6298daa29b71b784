"""A real Postfix submission service as the upstream: STARTTLS, Cyrus SASL, its own ideas of pipelining."""

import unittest

from harness import PRINTER, RECIPIENT, Device, EndToEnd, eventually, lines_of_base64, message, message_id_of
from postfix import REFUSED, Postfix, Unavailable


class Submission(EndToEnd):
    def postfix(self, **options):
        try:
            server = Postfix(self.directory, **options)
        except Unavailable as error:
            self.skipTest(f"no Postfix: {error}")
        server.start()
        self.addCleanup(server.stop)
        return server

    def relay_to(self, server, **keys):
        relay = self.relay(None, start=False)
        relay.set("mailbox office", provider="custom", port=server.port, ca_file=server.ca, **keys)
        return relay.start()

    def assert_delivered(self, server, sent):
        try:
            eventually(lambda: len(server.delivered()) >= len(sent), "Postfix has delivered it", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.log()[-4000:]}") from None
        arrived = {message_id_of(data): data for data in server.delivered()}
        self.assertEqual(len(server.delivered()), len(sent))
        for data in sent:
            body = data.split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n")
            self.assertEqual(arrived[message_id_of(data)].split(b"\n\n", 1)[1], body)

    def test_scram_is_used_where_the_mailbox_names_it(self):
        server = self.postfix(mechanisms="SCRAM-SHA-256 PLAIN LOGIN")
        relay = self.relay_to(server, mechanisms="SCRAM-SHA-256, LOGIN")
        data = relay.send()
        self.assert_delivered(server, [data])
        self.assertEqual(relay.mailbox()["mechanism"], "SCRAM-SHA-256")

    def test_mail_of_every_size_arrives_over_plain(self):
        server = self.postfix(mechanisms="PLAIN")
        relay = self.relay_to(server)
        sent = [message(body=b".dot\r\n..dots\r\n\r\n.\tx\r\n")]
        sent += [message(body=lines_of_base64(size, size)) for size in (3_000, 70_000, 8 << 20)]
        with Device(relay, timeout=60) as device:
            for data in sent:
                device.sendmail(PRINTER, [RECIPIENT], data)
        self.assert_delivered(server, sent)
        relay.wait_empty()
        self.assertEqual(relay.events("signed-in")[0]["mechanism"], "PLAIN")

    def test_four_are_in_flight_on_a_connection(self):
        """One of them is for nobody here: it costs the connection, and none of the others."""
        server = self.postfix(mechanisms="PLAIN")
        relay = self.relay_to(server, connections=1, in_flight=4)
        sent = [relay.send()]
        self.assert_delivered(server, sent)
        for number in range(30):
            with Device(relay) as device:
                data = message(subject=f"Scan {number}")
                device.sendmail(PRINTER, [REFUSED if number == 11 else RECIPIENT], data)
                sent += [data] if number != 11 else []
        self.assert_delivered(server, sent)
        eventually(lambda: [entry["state"] for entry in relay.queue()] == ["dead"], "one was refused")
        self.assertEqual(len(relay.events("signed-in")), 2)

    def test_login_is_the_only_mechanism(self):
        server = self.postfix(mechanisms="LOGIN")
        relay = self.relay_to(server)
        self.assert_delivered(server, [relay.send()])
        self.assertEqual(relay.events("signed-in")[0]["mechanism"], "LOGIN")

    def test_wrong_password_pauses(self):
        server = self.postfix()
        relay = self.relay(None, start=False)
        (relay.directory / "password").write_text("wrong\n", encoding="ascii")
        relay.set("mailbox office", provider="custom", port=server.port, ca_file=server.ca).start()
        relay.send()
        eventually(lambda: relay.mailbox()["state"] == "paused", "the mailbox is paused")
        self.assertIn("535", relay.mailbox()["last_reply"])
        self.assertEqual(len(relay.queue()), 1)

    def test_a_recipient_that_postfix_refuses(self):
        server = self.postfix()
        relay = self.relay_to(server)
        data = relay.send(recipients=[RECIPIENT, REFUSED, "second@office.test"])
        self.assert_delivered(server, [data, data])
        entry = eventually(lambda: [e for e in relay.queue() if e["state"] == "dead"], "one has failed")[0]
        states = [r["state"] for r in relay.show(entry["id"])["recipients"]]
        self.assertEqual(states, ["delivered", "failed", "delivered"])


if __name__ == "__main__":
    unittest.main()
