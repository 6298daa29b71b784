"""What happened, counted, and the log of events."""

import datetime
import re
import threading

SCALARS = (
    "connections", "connections_open", "tls_handshakes", "tls_failures", "auth_ok", "auth_failed",
    "stored", "duplicates", "messages_with_bare_lf", "messages_with_bare_cr",
    "commands_with_bare_lf", "pipelining_violations", "discarded_after_starttls",
    "highest_messages_per_connection",
)

REPLY_KEY = re.compile(r"(\d{3})[ -](?:(\d\.\d{1,3}\.\d{1,3})\b)?")


def reply_key(text):
    """The codes of a reply: "432 4.3.2", or "500" when it has no enhanced status code."""
    found = REPLY_KEY.match(text)
    return " ".join(filter(None, found.groups())) if found else text[:3]


class Counters:
    """Numbers that any thread may raise. `refused` counts 4xx and 5xx replies by their codes."""

    def __init__(self):
        self._lock = threading.Lock()
        self._clear()

    def _clear(self):
        self._values = dict.fromkeys(SCALARS, 0)
        self._refused = {}

    def add(self, name, amount=1):
        with self._lock:
            self._values[name] += amount

    def highest(self, name, value):
        with self._lock:
            self._values[name] = max(self._values[name], value)

    def refused(self, reply):
        key = reply_key(reply)
        with self._lock:
            self._refused[key] = self._refused.get(key, 0) + 1

    def snapshot(self):
        with self._lock:
            return dict(self._values, refused=dict(self._refused))

    def reset(self):
        """Starts again from nought; connections that are open stay counted as open."""
        with self._lock:
            still_open = self._values["connections_open"]
            self._clear()
            self._values["connections_open"] = still_open


def timestamp(moment=None):
    """UTC with milliseconds, as in the service's own reply tags."""
    moment = moment or datetime.datetime.now(datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class EventLog:
    """One line per event. Callers never pass credentials or what a client typed unasked."""

    def __init__(self, stream=None):
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, connection, what, **facts):
        if self._stream is None:
            return
        parts = [timestamp(), f"c{connection}" if connection else "-", what]
        parts += [f"{key}={_plain(value)}" for key, value in facts.items()]
        with self._lock:
            self._stream.write(" ".join(parts) + "\n")
            self._stream.flush()


def _plain(value):
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return f'"{text}"' if " " in text or not text else text
