"""A ledger of what devices handed over and were told, and a checker that compares it with what arrived.

The checker is a program of its own. It knows nothing of the relay: it reads the ledger, and the files that the
upstream has stored.

    ledger.py LEDGER MAIL_DIRECTORY

Rules: what was acknowledged is there, unchanged. What was never tried is not there. A second copy is there only where
a device's reply was lost and it sent the message again, or where the relay said that the outcome is uncertain.
"""

import collections
import hashlib
import pathlib
import re
import sys
import threading

SENT, ACKNOWLEDGED, LOST, UNCERTAIN = "sent", "acknowledged", "lost", "uncertain"
TRACE = re.compile(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
MESSAGE_ID = re.compile(rb"^Message-ID: *(<[^>]*>)", re.MULTILINE | re.IGNORECASE)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def message_id_of(data):
    return MESSAGE_ID.search(data)[1].decode()


class Ledger:
    """One line an event; each is in the file before the next thing happens."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._file = open(self.path, "a", encoding="ascii", buffering=1)
        self._lock = threading.Lock()

    def note(self, what, data):
        with self._lock:
            self._file.write(f"{what} {message_id_of(data)} {digest(data)}\n")

    def note_uncertain(self, message_id):
        with self._lock:
            self._file.write(f"{UNCERTAIN} {message_id} -\n")

    def close(self):
        self._file.close()


def violations(ledger, mail):
    """What the rules forbid, as texts."""
    events, digests = collections.defaultdict(collections.Counter), {}
    for line in pathlib.Path(ledger).read_text(encoding="ascii").splitlines():
        what, message_id, value = line.split()
        events[message_id][what] += 1
        if what == SENT:
            digests[message_id] = value
    copies = collections.Counter()
    for file in sorted(pathlib.Path(mail).glob("*.eml")):
        data = file.read_bytes()
        message_id = message_id_of(data)
        copies[message_id] += 1
        if message_id not in digests:
            yield f"{message_id} arrived and was never sent ({file})"
        elif digest(data[TRACE.match(data).end():]) != digests[message_id]:
            yield f"{message_id} arrived changed ({file})"
    for message_id, seen in events.items():
        if seen[ACKNOWLEDGED] and not copies[message_id]:
            yield f"{message_id} was acknowledged and is missing"
        allowed = seen[ACKNOWLEDGED] + seen[LOST] + seen[UNCERTAIN]
        if copies[message_id] > allowed:
            yield f"{message_id} arrived {copies[message_id]} times: {dict(seen)}"


def main():
    found = list(violations(*sys.argv[1:]))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
