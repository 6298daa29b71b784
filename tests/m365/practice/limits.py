"""The limits of a mailbox, and the ledger that watches them."""

import collections
import dataclasses
import threading
import time

MEBIBYTE = 1024 * 1024
SIZE_ANNOUNCED = 150 * MEBIBYTE
DAY = 24 * 3600.0

CONCURRENCY_REFUSAL = ("432 4.3.2 Concurrent connections limit exceeded. "
                       "Visit https://aka.ms/concurrent_sending for more information.")
RATE_REFUSAL = ("421 4.4.2 Message submission rate for this client has exceeded the configured "
                "limit")
QUOTA_REFUSAL = ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; "
                 "Failed to process message due to a permanent exception with message The "
                 "submission quota of the sender is exceeded.")


@dataclasses.dataclass
class Limits:
    """Everything about limits that may change while the server runs. 0 switches a limit off."""

    connections: int = 3
    messages_per_minute: int = 30
    minute: float = 60.0  # seconds; shorter in tests
    rate_policy: str = "delay"  # or "refuse"
    recipients_per_day: int = 10000
    recipients_per_message: int = 500
    message_size: int = 35 * MEBIBYTE
    size_at: str = "both"  # or "mail", "dot": where a message that is too large is refused
    check_from: bool = False
    chunking: bool = True  # announced
    dsn: bool = True
    smtputf8: bool = True
    idle_seconds: float = 300.0
    auth_failure_delay: float = 0.0  # the service takes about 8 s

    CHOICES = {"rate_policy": ("delay", "refuse"), "size_at": ("both", "mail", "dot")}

    def change(self, values):
        """Sets the given fields, all or none."""
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def _checked(self, name, value):
        types = {field.name: field.type for field in dataclasses.fields(self)}
        if name not in types:
            raise ValueError(f"no limit is called {name}; there are {', '.join(types)}")
        if types[name] is bool:
            return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "on")
        value = types[name](value)
        if name in self.CHOICES and value not in self.CHOICES[name]:
            raise ValueError(f"{name} is one of {', '.join(self.CHOICES[name])}, not {value}")
        if types[name] is not str and value < 0:
            raise ValueError(f"{name} cannot be negative")
        return value

    def as_dict(self):
        return dataclasses.asdict(self)


class _Entry:
    """What is known of one mailbox."""

    def __init__(self):
        self.open = []  # connection numbers in the order of their sign-in
        self.attempts = collections.deque()  # when each final dot came
        self.slots = collections.deque()  # when each message is let through; may lie ahead
        self.recipients = collections.deque()  # (when, how many)
        self.clear()

    def clear(self):
        self.highest_concurrency = len(self.open)
        self.highest_per_minute = 0
        self.stored = 0
        self.violations = {"concurrency": 0, "rate": 0, "recipients": 0}
        self.attempts.clear()
        self.slots.clear()
        self.recipients.clear()

    def as_dict(self):
        return {
            "open": len(self.open),
            "highest_concurrency": self.highest_concurrency,
            "highest_per_minute": self.highest_per_minute,
            "recipients_today": sum(count for _, count in self.recipients),
            "stored": self.stored,
            "violations": dict(self.violations),
        }


class Ledger:
    """Watches every mailbox. The clock is a function so that tests can turn it."""

    def __init__(self, limits, clock=time.monotonic):
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._entries = collections.defaultdict(_Entry)

    def connection_opened(self, mailbox, connection):
        with self._lock:
            entry = self._entries[mailbox]
            entry.open.append(connection)
            entry.highest_concurrency = max(entry.highest_concurrency, len(entry.open))
            if self._limits.connections and len(entry.open) > self._limits.connections:
                entry.violations["concurrency"] += 1

    def connection_closed(self, mailbox, connection):
        with self._lock:
            self._entries[mailbox].open.remove(connection)

    def connection_is_over(self, mailbox, connection):
        """True for the fourth connection and later ones, while three older ones are open."""
        with self._lock:
            rank = self._entries[mailbox].open.index(connection)
            return bool(self._limits.connections) and rank >= self._limits.connections

    def message_attempted(self, mailbox):
        """Notes a final dot, whatever its reply will be."""
        with self._lock:
            entry, now = self._entries[mailbox], self._clock()
            entry.attempts.append(now)
            while entry.attempts[0] <= now - self._limits.minute:
                entry.attempts.popleft()
            entry.highest_per_minute = max(entry.highest_per_minute, len(entry.attempts))

    def minute_is_full(self, mailbox):
        """For the policy "refuse", at MAIL; counts as a violation when true."""
        with self._lock:
            entry = self._entries[mailbox]
            full = self._next_slot(entry) > self._clock()
            entry.violations["rate"] += full
            return full

    def reserve_message(self, mailbox):
        """Seconds until this message may be let through (0: now), its place taken.

        With the policy "refuse" no place is taken when there is none, and the answer is above 0.
        """
        with self._lock:
            entry, now = self._entries[mailbox], self._clock()
            slot = self._next_slot(entry)
            late = slot > now
            entry.violations["rate"] += late
            if late and self._limits.rate_policy == "refuse":
                return slot - now
            entry.slots.append(max(slot, now))
            while len(entry.slots) > max(1, self._limits.messages_per_minute):
                entry.slots.popleft()
            return max(0.0, slot - now)

    def _next_slot(self, entry):
        allowed = self._limits.messages_per_minute
        if not allowed or len(entry.slots) < allowed:
            return 0.0
        return entry.slots[-allowed] + self._limits.minute

    def take_recipients(self, mailbox, count):
        """False, and nothing taken, when the day's recipients would be exceeded."""
        with self._lock:
            entry, now = self._entries[mailbox], self._clock()
            while entry.recipients and entry.recipients[0][0] <= now - DAY:
                entry.recipients.popleft()
            used = sum(taken for _, taken in entry.recipients)
            allowed = self._limits.recipients_per_day
            if allowed and used + count > allowed:
                entry.violations["recipients"] += 1
                return False
            entry.recipients.append((now, count))
            return True

    def message_stored(self, mailbox):
        with self._lock:
            self._entries[mailbox].stored += 1

    def snapshot(self):
        """All mailboxes, and the violations of all together."""
        with self._lock:
            mailboxes = {name: entry.as_dict() for name, entry in self._entries.items()}
        total = {"concurrency": 0, "rate": 0, "recipients": 0}
        for entry in mailboxes.values():
            for kind, count in entry["violations"].items():
                total[kind] += count
        return {"mailboxes": mailboxes, "violations": total}

    def reset(self):
        """Forgets the past; open connections stay known."""
        with self._lock:
            for entry in self._entries.values():
                entry.clear()
