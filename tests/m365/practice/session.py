"""One connection: commands and replies."""

import dataclasses
import datetime
import email.utils
import re
import secrets

from . import limits, script
from .counters import timestamp
from .signin import SignIn
from .transfer import Transfer
from .wire import Gone, Idle

COMMAND_LIMIT = 2048  # octets of a command line, room for the parameters of extensions
AUTH_LIMIT = 512  # an AUTH line with an initial response may not be longer (RFC 4954, 4)
MUST_END_GROUP = {"EHLO", "HELO", "STARTTLS", "AUTH", "DATA", "VRFY", "NOOP", "QUIT"}
PARAMETERS = {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"}
RCPT_PARAMETERS = {"NOTIFY", "ORCPT"}
DSN_PARAMETERS = {"RET", "ENVID", "NOTIFY", "ORCPT"}
NOT_ASCII = "553 5.6.7 Address beyond ASCII without SMTPUTF8"
PATH = re.compile(r"\s*<([^<>\r\n]*)>(?:\s+(.*))?$")
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+$")


class Finished(Exception):
    """The session ends here; the argument tells how: "polite", "close" or "reset"."""


@dataclasses.dataclass
class Transaction:
    """From MAIL to the final dot."""

    reverse_path: str
    parameters: dict
    forward_paths: list = dataclasses.field(default_factory=list)
    refused_paths: list = dataclasses.field(default_factory=list)
    pipelined: bool = False
    transport: str = "DATA"
    incoming: object = None

    def envelope(self):
        return " ".join([self.reverse_path, *self.forward_paths])


class Session:
    """`server` gives what all sessions share; see server.Shared."""

    def __init__(self, server, wire, number, client):
        self.server = server
        self.wire = wire
        self.number = number
        self.client = client
        self.ehlo = None
        self.account = None
        self.mechanism = None
        self.transaction = None
        self.dots = 0
        self.last_stage = "connect"
        self._tag = secrets.token_hex(8).upper()
        self._is_refused = False  # after a banner other than 220 only QUIT is served
        self._sign_in = SignIn(self)
        self._transfer = Transfer(self)
        self._commands = {
            "EHLO": self._ehlo, "HELO": self._helo, "STARTTLS": self._starttls,
            "AUTH": self._sign_in.auth, "MAIL": self._mail, "RCPT": self._rcpt,
            "DATA": self._transfer.data, "BDAT": self._transfer.bdat, "RSET": self._rset,
            "NOOP": self._noop, "VRFY": self._vrfy, "HELP": self._help, "QUIT": self._quit,
        }

    # The session from connect to close

    def run(self):
        self.log("connect", client=self.client)
        self.server.counters.add("connections")
        self.server.counters.add("connections_open")
        ending = "close"
        try:
            self._greet()
            while True:
                self._one_command()
        except Finished as finished:
            ending = finished.args[0]
        except (Gone, OSError) as error:
            self.log("gone", why=error)
        finally:
            self._end(ending)

    def _end(self, ending):
        """The mailbox is free before the peer can see the close."""
        self.drop_transaction()
        if self.account:
            self.server.ledger.connection_closed(self.mailbox(), self.number)
        self.server.counters.add("connections_open", -1)
        self.log("close", how=ending, messages=self.dots)
        {"polite": self.wire.close_politely, "close": self.wire.close,
         "reset": self.wire.reset}[ending]()

    def _greet(self):
        rule = self.find("connect", self.client)
        if rule:
            self.play(rule, "")
            if rule.reply:
                raise Finished("polite")
        date = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc))
        banner = self.answer("banner", self.client, f"220 {self.server.hostname} Microsoft ESMTP "
                             f"MAIL Service ready at {date} [{self._tag}]")
        self._is_refused = bool(banner) and not banner.startswith("220")

    def _one_command(self):
        line = self._next_line()
        if line.too_long:
            self.reply("500 5.5.2 Line too long")
            return
        if line.bare_lf:
            self.server.counters.add("commands_with_bare_lf")
        verb, _, argument = line.octets.decode("utf-8", "replace").partition(" ")
        verb, argument = verb.upper(), argument.strip()
        command = self._commands.get(verb)
        if command is None:
            self.reply(f"500 5.3.3 Unrecognized command '{verb[:64]}' {self.tag()}")
        elif verb == "AUTH" and len(line.octets) + 2 > AUTH_LIMIT:
            self.reply("500 5.5.2 Line too long")
        elif self._is_refused and verb != "QUIT":
            self.reply("503 5.5.1 Bad sequence of commands")
        else:
            self._note_pipelining(verb)
            command(argument)
            self.last_stage = verb.lower()

    def _note_pipelining(self, verb):
        if verb in MUST_END_GROUP and self.wire.has_input():
            self.server.counters.add("pipelining_violations")
            self.log("pipelining-violation", command=verb)

    def _next_line(self):
        """The next command, or the end of the session when the client stays silent."""
        rule = self.server.script.peek(self.moment("idle", self.last_stage))
        if rule and not self.wire.wait_for_input(rule.delay):
            rule = self.find("idle", self.last_stage)
            if rule:
                self._send_paced(rule, rule.reply or "451 4.7.0 Timeout waiting for client input")
                self._act(rule.action)
                raise Finished("polite")
        try:
            return self.wire.read_line(COMMAND_LIMIT, self.server.limits.idle_seconds)
        except Idle:
            self.reply(f"451 4.7.0 Timeout waiting for client input {self.tag()}")
            raise Finished("polite") from None

    # Replies, scripted or not

    def mailbox(self):
        return self.account.address if self.account else ""

    def has_tls(self):
        return self.wire.tls_facts()[0] is not None

    def tag(self):
        host = self.server.hostname.split(".")[0].upper()
        return f"[{host}.PRACTICE.PROD.OUTLOOK.COM {timestamp()} {self._tag}]"

    def log(self, what, **facts):
        self.server.log.event(self.number, what, **facts)

    def moment(self, stage, argument, header=""):
        return script.Moment(stage, argument, self.mailbox(), self.has_tls(), header)

    def find(self, stage, argument="", header=""):
        rule = self.server.script.find(self.moment(stage, argument, header))
        if rule:
            self.log("rule", stage=stage, rule=rule.name or "-", action=rule.action or "reply")
        return rule

    def answer(self, stage, argument, default):
        """Sends the scripted or the usual reply; returns it, "" when none was sent."""
        rule = self.find(stage, argument)
        if rule is None:
            self.reply(default)
            return default
        return self.play(rule, default)

    def play(self, rule, default):
        """Delay, reply, action. With an action and no reply nothing is said."""
        self.pause(rule.delay)
        text = rule.reply or ("" if rule.action else default)
        if text:
            self._send_paced(rule, text)
        self._act(rule.action)
        return text

    def reply(self, text):
        self._note_reply(text)
        self.wire.send(b"".join(_encoded(line) for line in script.lines_of(text)))
        if text.startswith("421"):
            raise Finished("polite")

    def _note_reply(self, text):
        if text[0] in "45":
            self.server.counters.refused(text)
            self.log("refuse", reply=text[:3] if text.startswith("500") else text[:120])

    def _send_paced(self, rule, text):
        """Like reply, in the pieces and at the pace of the rule."""
        text = text.replace("{tag}", self.tag()).replace("{hostname}", self.server.hostname)
        text = text.replace("{ip}", self.client)
        if not (rule.delay_per_line or rule.split):
            self.reply(text)
            return
        self._note_reply(text)
        for number, line in enumerate(map(_encoded, script.lines_of(text))):
            self.pause(rule.delay_per_line if number else 0)
            for start in range(0, len(line), rule.split or len(line)):
                self.pause(rule.split_pause if start else 0)
                self.wire.send(line[start:start + (rule.split or len(line))])
                self.wire.flush()
        if text.startswith("421"):
            raise Finished("polite")

    def _act(self, action):
        if not action:
            return
        self.wire.flush()
        if action in ("hang", "hang-after-store"):
            self.wire.hang(self.server.stopping)
            raise Finished("close")
        raise Finished("reset" if action == "reset" else "close")

    def pause(self, seconds):
        """Waits with everything said so far on its way."""
        if seconds > 0:
            self.wire.flush()
            self.server.stopping.wait(seconds)

    # Commands

    def _ehlo(self, argument):
        if not argument:
            self.reply("501 5.5.4 Invalid domain name")
            return
        if _is_positive(self.answer("ehlo", argument, "\n".join(self._ehlo_lines()))):
            self.drop_transaction()
            self.ehlo = argument

    def _ehlo_lines(self):
        first = f"250-{self.server.hostname} Hello [{self.client}]"
        varying = "AUTH LOGIN XOAUTH2" if self.has_tls() else "STARTTLS"
        rules = self.server.limits
        words = [f"SIZE {limits.SIZE_ANNOUNCED}", "PIPELINING", *(("DSN",) if rules.dsn else ()), "ENHANCEDSTATUSCODES",
                 varying, "8BITMIME", *(("BINARYMIME", "CHUNKING") if rules.chunking else ()),
                 *(("SMTPUTF8",) if rules.smtputf8 else ())]
        return [first, *(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"]

    def _helo(self, argument):
        if _is_positive(self.answer("ehlo", argument,
                                    f"250 {self.server.hostname} Hello [{self.client}]")):
            self.drop_transaction()
            self.ehlo = argument

    def _starttls(self, argument):
        if argument:
            self.reply("501 5.5.4 Invalid arguments")
        elif self.has_tls():
            self.reply("503 5.5.1 Only one STARTTLS command can be issued per session")
        elif self.ehlo is None:
            self.reply("503 5.5.2 Send hello first")
        elif _is_positive(self.answer("starttls", "", "220 2.0.0 SMTP server ready")):
            self._handshake()

    def _handshake(self):
        counters = self.server.counters
        try:
            discarded = self.wire.start_tls(self.server.tls_context())
        except Gone:
            counters.add("tls_failures")
            raise
        counters.add("tls_handshakes")
        counters.add("discarded_after_starttls", discarded)
        self.drop_transaction()
        self.ehlo = None
        self.log("tls", version=self.wire.tls_facts()[0], discarded=discarded)
        rule = self.find("tls", self.wire.tls_facts()[0])
        if rule:
            self.play(rule, "")

    def signed_in(self, account, mechanism):
        """Before the 235 leaves: from here on the connection counts for the mailbox."""
        self.account, self.mechanism = account, mechanism
        self.server.ledger.connection_opened(account.address, self.number)

    def _mail(self, argument):
        refusal = self._mail_refusal()
        keyword, _, rest = argument.partition(":")
        path = PATH.match(rest)
        parameters = _parameters(path[2]) if path else {}
        if refusal:
            self.reply(refusal)
        elif keyword.upper() != "FROM" or not path or not _is_path(path[1]):
            self.reply("501 5.1.7 Invalid address")
        elif set(parameters) - self._offered(PARAMETERS) or not parameters.get("SIZE", "0").isdigit():
            self.reply("501 5.5.4 Invalid arguments")
        elif not path[1].isascii() and "SMTPUTF8" not in parameters:
            self.reply(NOT_ASCII)
        else:
            self._open_transaction(rest.strip(), path[1], parameters)

    def _offered(self, parameters):
        rules = self.server.limits
        return parameters - (set() if rules.dsn else DSN_PARAMETERS) - (set() if rules.smtputf8 else {"SMTPUTF8"})

    def _mail_refusal(self):
        if self.ehlo is None:
            return "503 5.5.2 Send hello first"
        if not self.account:
            return f"530 5.7.57 Client not authenticated to send mail. {self.tag()}"
        return "503 5.5.2 Sender already specified" if self.transaction else None

    def _open_transaction(self, argument, reverse_path, parameters):
        default = self._limit_at_mail(parameters) or "250 2.1.0 Sender OK"
        if _is_positive(self.answer("mail", argument, default)):
            self.transaction = Transaction(reverse_path, parameters,
                                           pipelined=self.wire.has_input())

    def _limit_at_mail(self, parameters):
        rules = self.server.limits
        if rules.size_at != "dot" and self.too_large(int(parameters.get("SIZE", 0))):
            return "552 5.3.4 Message size exceeds fixed maximum message size"
        if rules.rate_policy == "refuse" and self.server.ledger.minute_is_full(self.mailbox()):
            return limits.RATE_REFUSAL
        return None

    def too_large(self, size):
        most = self.account.message_size or self.server.limits.message_size
        return size > limits.SIZE_ANNOUNCED or (most and size > most)

    def _rcpt(self, argument):
        keyword, _, rest = argument.partition(":")
        path = PATH.match(rest)
        parameters = _parameters(path[2]) if path else {}
        if not self.transaction:
            self.reply("503 5.5.2 Need mail command")
        elif keyword.upper() != "TO" or not path or not ADDRESS.match(path[1]):
            self.reply("501 5.1.3 Invalid address")
        elif set(parameters) - self._offered(RCPT_PARAMETERS):
            self.reply("501 5.5.4 Invalid arguments")
        elif not path[1].isascii() and "SMTPUTF8" not in self.transaction.parameters:
            self.reply(NOT_ASCII)
        else:
            self._add_recipient(rest.strip(), path[1])

    def _add_recipient(self, argument, forward_path):
        most = self.server.limits.recipients_per_message
        is_full = most and len(self.transaction.forward_paths) >= most
        default = "452 4.5.3 Too many recipients" if is_full else "250 2.1.5 Recipient OK"
        self.transaction.pipelined |= self.wire.has_input()
        accepted = _is_positive(self.answer("rcpt", argument, default))
        kept = self.transaction.forward_paths if accepted else self.transaction.refused_paths
        kept.append(forward_path)

    def drop_transaction(self):
        if self.transaction and self.transaction.incoming:
            self.transaction.incoming.discard()
        self.transaction = None

    def _rset(self, _argument):
        self.drop_transaction()
        self.answer("rset", "", "250 2.0.0 Resetting")

    def _noop(self, argument):
        self.answer("noop", argument, "250 2.0.0 OK")

    def _vrfy(self, argument):
        self.answer("vrfy", argument, "252 2.1.5 Cannot VRFY user")

    def _help(self, argument):
        self.answer("help", argument, "214 2.0.0 This server supports the commands of RFC 5321")

    def _quit(self, _argument):
        self.answer("quit", "", "221 2.0.0 Service closing transmission channel")
        raise Finished("polite")


def _encoded(line):
    return line.encode("utf-8", "surrogateescape") + b"\r\n"


def _is_positive(reply):
    return reply[:1] in ("2", "3")


def _is_path(path):
    return path == "" or ADDRESS.match(path)


def _parameters(text):
    """ESMTP parameters by upper-case keyword; one without a value has an empty one."""
    parts = (part.partition("=") for part in (text or "").split())
    return {keyword.upper(): value for keyword, _, value in parts}
