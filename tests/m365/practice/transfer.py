"""Mail data: DATA and BDAT, the checks after the final dot, storing."""

import datetime
import time

from . import limits
from .counters import timestamp
from .message import DotReader, from_addresses
from .wire import Gone, Idle

BODY_SECONDS = 300.0
STORE_FIRST = ("drop-after-store", "hang-after-store")


class Transfer:
    """DATA and BDAT of one session."""

    def __init__(self, session):
        self._session = session
        self._server = session.server
        self._body_rule = None

    def data(self, _argument):
        session = self._session
        refusal = self._refusal(session.transaction)
        if refusal:
            session.reply(refusal)
            return
        transaction = session.transaction
        reply = session.answer("data", transaction.envelope(),
                               "354 Start mail input; end with <CRLF>.<CRLF>")
        if reply.startswith("354"):
            session.wire.flush()
            self._begin(transaction, "DATA")
            self._receive_until_dot(transaction.incoming)
            self._complete(transaction)

    def _refusal(self, transaction):
        if not transaction:
            return "503 5.5.2 Need mail command"
        if not transaction.forward_paths:
            return "503 5.5.2 Need rcpt command"
        if transaction.incoming:
            return "503 5.5.1 BDAT has begun; DATA and BDAT cannot be mixed"
        if transaction.parameters.get("BODY", "").upper() == "BINARYMIME":
            return "503 5.5.1 BODY=BINARYMIME needs BDAT"
        return None

    def _begin(self, transaction, transport):
        transaction.transport = transport
        transaction.incoming = self._server.store.begin(limits.SIZE_ANNOUNCED)
        self._body_rule = self._server.script.peek(
            self._session.moment("body", transaction.envelope()))

    def _receive_until_dot(self, incoming):
        reader, rest = DotReader(), None
        while rest is None:
            octets, rest = reader.feed(self._read())
            incoming.write(octets)
            self._play_body_rule(incoming)
        self._session.wire.push_back(rest)

    def _read(self, most=None):
        try:
            return self._session.wire.read_some(BODY_SECONDS, *([most] if most else []))
        except Idle:
            raise Gone("no mail data in time") from None

    def _play_body_rule(self, incoming):
        rule = self._body_rule
        if rule and incoming.facts.size >= rule.at:
            self._body_rule = None
            rule = self._session.find("body", self._session.transaction.envelope())
            if rule:
                self._session.play(rule, "")

    # BDAT

    def bdat(self, argument):
        session = self._session
        words = argument.split()
        if not words or not words[0].isdigit() or words[1:] not in ([], ["LAST"], ["last"]):
            session.reply("501 5.5.4 Invalid arguments")
            return
        transaction, size = session.transaction, int(words[0])
        if not transaction or not transaction.forward_paths:
            self._skip(size)
            session.reply("503 5.5.2 Need rcpt command" if transaction else
                          "503 5.5.2 Need mail command")
            return
        if transaction.incoming is None:
            self._begin(transaction, "BDAT")
        self._receive_octets(transaction.incoming, size)
        if len(words) == 2:
            self._complete(transaction)
        else:
            self._chunk_done(transaction, size)

    def _chunk_done(self, transaction, size):
        reply = self._session.answer("bdat", transaction.envelope(),
                                     f"250 2.6.0 CHUNK received OK, {size} octets")
        if reply[:1] not in ("2", ""):
            self._session.drop_transaction()

    def _receive_octets(self, incoming, size):
        while size:
            octets = self._read(size)
            size -= len(octets)
            incoming.write(octets)
            self._play_body_rule(incoming)

    def _skip(self, size):
        while size:
            size -= len(self._read(size))

    # After the final dot, or the last chunk

    def _complete(self, transaction):
        session, incoming = self._session, transaction.incoming
        session.dots += 1
        header = incoming.facts.header()
        self._server.ledger.message_attempted(session.mailbox())
        self._server.counters.highest("highest_messages_per_connection", session.dots)
        rule = session.find("dot", transaction.envelope(), header)
        if rule is None:
            session.reply(self._judge(transaction, header))
        else:
            self._complete_by_rule(transaction, header, rule)
        session.drop_transaction()

    def _complete_by_rule(self, transaction, header, rule):
        """The script may refuse, or lose the message or its reply; it cannot skip the limits."""
        is_refusal = rule.reply[:1] in ("4", "5")
        if is_refusal or (rule.action and rule.action not in STORE_FIRST):
            self._session.play(rule, "")
            return
        usual = self._judge(transaction, header)
        if usual.startswith("250"):
            self._session.play(rule, usual)
        else:
            self._session.reply(usual)

    def _judge(self, transaction, header):
        """The usual reply; the message is stored when it is 250."""
        refusal = self._limit_exceeded(transaction, header)
        if refusal:
            return refusal
        wait = self._server.ledger.reserve_message(self._session.mailbox())
        if wait > 0 and self._server.limits.rate_policy == "refuse":
            return limits.RATE_REFUSAL
        self._session.pause(wait)
        facts = self._store(transaction)
        identity = facts['message_id'] or f'<{facts["sha256"][:16]}@{self._server.hostname}>'
        return f"250 2.0.0 OK {identity} [Hostname={self._server.hostname}]"

    def _limit_exceeded(self, transaction, header):
        session, server = self._session, self._server
        host = f"[Hostname={server.hostname}]"
        if server.ledger.connection_is_over(session.mailbox(), session.number):
            return limits.CONCURRENCY_REFUSAL + " " + host
        size = transaction.incoming.facts.size
        if size > limits.SIZE_ANNOUNCED or (server.limits.size_at != "mail"
                                            and session.too_large(size)):
            return "552 5.3.4 Message size exceeds fixed maximum message size"
        if server.limits.check_from and (refusal := self._send_as_refusal(header)):
            return f"{refusal} {host}"
        if not server.ledger.take_recipients(session.mailbox(), len(transaction.forward_paths)):
            return limits.QUOTA_REFUSAL + " " + host
        return None

    def _send_as_refusal(self, header):
        account, senders = self._session.account, from_addresses(header)
        if not senders:
            return ("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant "
                    "and include a valid From address")
        for sender in senders:
            if not account.may_send_as(sender):
                return (f"554 5.2.252 SendAsDenied; {account.address} not allowed to send as "
                        f"{sender}; STOREDRV.Submission.Exception:SendAsDeniedException."
                        "MapiExceptionSendAsDenied; Failed to process message due to a permanent "
                        "exception with message Cannot submit message.")
        return None

    def _store(self, transaction):
        server, session = self._server, self._session
        facts = server.store.commit(transaction.incoming, self._facts(transaction))
        transaction.incoming = None
        server.counters.add("stored")
        server.counters.add("duplicates", facts["duplicate"])
        server.counters.add("messages_with_bare_lf", facts["bare_lf"])
        server.counters.add("messages_with_bare_cr", facts["bare_cr"])
        server.ledger.message_stored(session.mailbox())
        session.log("stored", number=facts["number"], mailbox=facts["mailbox"],
                    size=facts["size"], recipients=len(facts["forward_paths"]),
                    message_id=facts["message_id"] or "-", duplicate=facts["duplicate"])
        return facts

    def _facts(self, transaction):
        session = self._session
        version, cipher = session.wire.tls_facts()
        now = time.time()
        arrived = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        return {
            "mailbox": session.mailbox(), "mechanism": session.mechanism,
            "reverse_path": transaction.reverse_path,
            "forward_paths": transaction.forward_paths,
            "forward_paths_refused": transaction.refused_paths,
            "mail_parameters": transaction.parameters,
            "tls_version": version, "tls_cipher": cipher, "ehlo": session.ehlo,
            "client": session.client, "transport": transaction.transport,
            "pipelined": transaction.pipelined, "arrived": timestamp(arrived),
            "arrived_unix": now, "connection": session.number,
            "message_on_connection": session.dots,
            **transaction.incoming.facts.as_dict(),
        }
