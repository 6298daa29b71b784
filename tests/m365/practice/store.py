"""Messages on disk with the facts of their session."""

import collections
import contextlib
import json
import os
import pathlib
import threading

from .message import Facts


class Incoming:
    """A message while it arrives. What passes `ceiling` is counted but not written."""

    def __init__(self, path, ceiling):
        self.path = path
        self.facts = Facts()
        self._ceiling = ceiling
        self._file = open(path, "wb")

    def write(self, octets):
        if self.facts.size < self._ceiling:
            self._file.write(octets)
        self.facts.update(octets)

    def close(self):
        self._file.close()

    def discard(self):
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Store:
    """A directory of N.eml and N.json, counted from 1; an old directory is continued."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._number = max((int(path.stem) for path in self._directory.glob("*.json")
                            if path.stem.isdigit()), default=0)
        self._messages = []
        self._copies = collections.Counter()
        self._begun = 0

    def begin(self, ceiling):
        with self._lock:
            self._begun += 1
            return Incoming(self._directory / f"arriving-{os.getpid()}-{self._begun}", ceiling)

    def commit(self, incoming, facts):
        """Keeps the message. Its facts with its number, and whether the mailbox had it before."""
        incoming.close()
        with self._lock:
            self._number += 1
            path = self._directory / f"{self._number}.eml"
            facts = dict(facts, number=self._number, file=str(path))
            key = facts["mailbox"], facts["message_id"]
            self._copies[key] += 1
            duplicate = facts["message_id"] is not None and self._copies[key] > 1
            facts["duplicate"] = duplicate
            os.rename(incoming.path, path)
            path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n",
                                                 encoding="utf-8")
            self._messages.append(facts)
        return facts

    def messages(self):
        with self._lock:
            return list(self._messages)

    def reset(self):
        """Removes the messages of this run; numbers go on."""
        with self._lock:
            for facts in self._messages:
                path = pathlib.Path(facts["file"])
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            self._messages.clear()
            self._copies.clear()
