"""Mailboxes and how they sign in."""

import base64
import binascii
import dataclasses
import hmac
import threading


@dataclasses.dataclass(frozen=True)
class Account:
    """One mailbox. No password means LOGIN always fails, no token the same for XOAUTH2."""

    address: str
    password: str = ""
    token: str = ""
    tokens: tuple = ()  # others that are good as well
    aliases: tuple = ()
    message_size: int = 0  # 0: the general limit

    @classmethod
    def from_dict(cls, values):
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown or "@" not in values.get("address", ""):
            raise ValueError(f"an account has {', '.join(sorted(known))}, and an address with @; "
                             f"unknown here: {', '.join(sorted(unknown)) or 'nothing'}")
        return cls(**dict(values, aliases=tuple(values.get("aliases", ())),
                          tokens=tuple(values.get("tokens", ()))))

    def may_send_as(self, address):
        wanted = address.lower()
        return any(wanted == own.lower() for own in (self.address, *self.aliases))


class Accounts:
    """The mailboxes by address; letter case does not matter in the user name."""

    def __init__(self, accounts=()):
        self._lock = threading.Lock()
        self._by_address = {}
        for account in accounts:
            self.put(account)

    def put(self, account):
        if isinstance(account, dict):
            account = Account.from_dict(account)
        with self._lock:
            self._by_address[account.address.lower()] = account

    def addresses(self):
        with self._lock:
            return [account.address for account in self._by_address.values()]

    def by_password(self, user, password):
        return self._find(user, "password", password)

    def by_token(self, user, token):
        account = self._find(user, "token", token)
        if account is None:
            with self._lock:
                account = self._by_address.get(user.lower())
            if account is None or token not in account.tokens:
                return None
        return account

    def _find(self, user, field, offered):
        with self._lock:
            account = self._by_address.get(user.lower())
        expected = getattr(account, field, "")
        if not expected or not hmac.compare_digest(expected.encode(), offered.encode()):
            return None
        return account


def decode(line):
    """The text inside one base64 line of SASL, or None."""
    try:
        return base64.b64decode(line, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def parse_xoauth2(text):
    """User and token of `user=U^Aauth=Bearer T^A^A`, or None when it is not that."""
    parts = text.split("\x01") if text else []
    if len(parts) != 4 or parts[2:] != ["", ""]:
        return None
    user, bearer = parts[0], parts[1]
    if not user.startswith("user=") or not bearer.startswith("auth=Bearer "):
        return None
    return user[len("user="):], bearer[len("auth=Bearer "):]
