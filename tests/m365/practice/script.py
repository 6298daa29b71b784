"""Rules that replace replies, delay, hang or drop; and the reply catalogue."""

import dataclasses
import json
import pathlib
import re
import threading

STAGES = ("connect", "banner", "ehlo", "starttls", "tls", "auth", "challenge", "mail", "rcpt",
          "data", "bdat", "body", "dot", "rset", "noop", "vrfy", "help", "quit", "idle")
ACTIONS = ("", "close", "reset", "hang", "drop-before-store", "drop-after-store",
           "hang-after-store")
CATALOGUE = pathlib.Path(__file__).resolve().parent.parent / "replies.json"


@dataclasses.dataclass
class Rule:
    """One line of the script. README.md tells what each field does."""

    stage: str
    match: str = ""
    header: str = ""
    mailbox: str = ""
    tls: bool | None = None
    after: int = 0
    times: int = 0  # 0: for ever
    at: int = 0
    delay: float = 0.0
    reply: str = ""
    action: str = ""
    delay_per_line: float = 0.0
    split: int = 0
    split_pause: float = 0.0
    name: str = ""
    seen: int = dataclasses.field(default=0, init=False)
    fired: int = dataclasses.field(default=0, init=False)

    def __post_init__(self):
        if self.stage not in STAGES:
            raise ValueError(f"no stage is called {self.stage!r}; there are {', '.join(STAGES)}")
        if self.action not in ACTIONS:
            raise ValueError(f"no action is called {self.action!r}; there are "
                             f"{', '.join(filter(None, ACTIONS))}")
        if self.reply and not re.match(r"\d{3}", self.reply):
            raise ValueError(f"the reply {self.reply!r} does not begin with three digits")
        self._match = re.compile(self.match, re.IGNORECASE)
        self._header = re.compile(self.header, re.IGNORECASE | re.MULTILINE)

    @classmethod
    def from_dict(cls, values):
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        unknown = set(values) - known
        if unknown or "stage" not in values:
            raise ValueError(f"a rule has a stage, and may have {', '.join(sorted(known))}; "
                             f"unknown here: {', '.join(sorted(unknown)) or 'nothing'}")
        return cls(**values)

    def fits(self, moment):
        return (self.stage == moment.stage
                and (self.tls is None or self.tls == moment.tls)
                and (not self.mailbox or self.mailbox.lower() == moment.mailbox.lower())
                and bool(self._match.search(moment.argument))
                and bool(self._header.search(moment.header)))

    def is_spent(self):
        return bool(self.times) and self.fired >= self.times

    def as_dict(self):
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a session stands when it asks the script."""

    stage: str
    argument: str = ""
    mailbox: str = ""
    tls: bool = False
    header: str = ""


class Script:
    """The rules in their order; the first that fits and is not spent wins."""

    def __init__(self, rules=()):
        self._lock = threading.Lock()
        self._rules = [self._made(rule) for rule in rules]

    @staticmethod
    def _made(rule):
        return rule if isinstance(rule, Rule) else Rule.from_dict(rule)

    def add(self, rule):
        made = self._made(rule)
        with self._lock:
            self._rules.append(made)

    def clear(self):
        with self._lock:
            self._rules.clear()

    def rules(self):
        with self._lock:
            return [rule.as_dict() for rule in self._rules]

    def find(self, moment):
        """The rule for this moment, counted as fired; or None."""
        with self._lock:
            for rule in self._rules:
                if rule.is_spent() or not rule.fits(moment):
                    continue
                rule.seen += 1
                if rule.seen > rule.after:
                    rule.fired += 1
                    return rule
        return None

    def peek(self, moment):
        """Like find, but nothing is counted: for rules that fire only if time passes."""
        with self._lock:
            for rule in self._rules:
                if not rule.is_spent() and rule.fits(moment) and rule.seen >= rule.after:
                    return rule
        return None


def lines_of(reply):
    """The lines of a reply, each with its code: the text may give the code once only."""
    lines = reply.split("\n")
    if all(re.match(r"\d{3}([ -]|$)", line) for line in lines):
        return lines
    code, texts = reply[:3], [lines[0][4:], *lines[1:]]
    return [f"{code}-{text}" for text in texts[:-1]] + [f"{code} {texts[-1]}"]


def catalogue(path=CATALOGUE):
    """The rows of replies.json by name."""
    rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["replies"]
    return {row["name"]: row for row in rows}


def rule_of_row(row, **more):
    """A rule that gives the reply of one catalogue row."""
    return Rule.from_dict(dict({"name": row["name"], "stage": row["stage"],
                                "match": row.get("match", ""), "reply": row["reply"]}, **more))
