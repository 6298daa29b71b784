"""AUTH LOGIN and AUTH XOAUTH2 as the service does them."""

import base64
import contextlib

from . import accounts
from .wire import Idle

RESPONSE_LIMIT = 12288  # octets of one base64 line (RFC 4954, 4)


class Cancelled(Exception):
    """The client sent `*`, or a line that no client sends."""


class SignIn:
    """The AUTH command of one session."""

    def __init__(self, session):
        self._session = session
        self._server = session.server
        self._mechanisms = {"LOGIN": self._login, "XOAUTH2": self._xoauth2}

    def auth(self, argument):
        session = self._session
        name, _, initial = argument.partition(" ")
        name, initial = name.upper(), initial.strip()
        if session.ehlo is None:
            session.reply("503 5.5.2 Send hello first")
        elif session.account or session.transaction:
            session.reply("503 5.5.1 Bad sequence of commands")
        elif name not in self._mechanisms or not session.has_tls():
            session.answer("auth", name, f"504 5.7.4 Unrecognized authentication type "
                                         f"{session.tag()}")
        else:
            self._exchange(name, initial)

    def _exchange(self, name, initial):
        try:
            user, account = self._mechanisms[name](initial)
        except Cancelled:
            self._decide(name, "", None)
        else:
            self._decide(name, user, account)

    def _login(self, initial):
        user = accounts.decode(initial or self._challenge("LOGIN", "Username:"))
        password = accounts.decode(self._challenge("LOGIN", "Password:"))
        if not user or password is None:
            return user or "", None
        return user, self._server.accounts.by_password(user, password)

    def _xoauth2(self, initial):
        response = "" if initial == "=" else initial or self._challenge("XOAUTH2", "")
        fields = accounts.parse_xoauth2(accounts.decode(response))
        if fields is None:
            return "", None
        user, token = fields
        return user, self._server.accounts.by_token(user, token)

    def _challenge(self, mechanism, prompt):
        session = self._session
        session.answer("challenge", f"{mechanism} {prompt}".strip(),
                       "334 " + base64.b64encode(prompt.encode()).decode())
        return self._response()

    def _response(self):
        try:
            line = self._session.wire.read_line(RESPONSE_LIMIT, self._server.limits.idle_seconds)
        except Idle:
            raise Cancelled from None
        if line.too_long or line.octets == b"*":
            raise Cancelled
        return line.octets.decode("ascii", "replace")

    def _decide(self, name, user, account):
        """The last reply. The script can refuse right credentials; it cannot accept wrong ones."""
        session = self._session
        answer = f"535 5.7.3 Authentication unsuccessful {session.tag()}"
        rule = session.find("auth", f"{name} {user}".strip())
        scripted = rule.reply if rule else ""
        if account and not (rule and rule.action) and scripted[:1] in ("", "2"):
            self._server.counters.add("auth_ok")
            session.signed_in(account, name)
            session.log("auth-ok", mechanism=name, mailbox=account.address)
            answer = "235 2.7.0 Authentication successful"
        else:
            self._server.counters.add("auth_failed")
            session.log("auth-failed", mechanism=name)
            session.pause(self._server.limits.auth_failure_delay)
            rule = None if scripted.startswith("2") else rule
        self._finish(rule, answer)

    def _finish(self, rule, usual):
        """A scripted 334 (a failure explained, as Google does) is followed by the refusal."""
        session = self._session
        if rule is None:
            session.reply(usual)
        elif session.play(rule, usual).startswith("334"):
            with contextlib.suppress(Cancelled):
                self._response()
            session.reply(usual)
