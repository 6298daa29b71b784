#!/usr/bin/env python3
"""Practice upstream: a stand-in for smtp.office365.com. README.md tells how to use it."""

import argparse
import json
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

# pylint: disable=wrong-import-position
from practice.certificate import DEFAULT_NAMES, KINDS  # noqa: E402
from practice.control import Control, ControlError  # noqa: E402
from practice.script import catalogue, rule_of_row  # noqa: E402
from practice.server import DEFAULT_HOSTNAME, PracticeUpstream  # noqa: E402

__all__ = ["Control", "ControlError", "PracticeUpstream", "catalogue", "rule_of_row"]

CTL_HELP = """\
commands:
  counters [NAME]            all counters, or one: stored, mailboxes.ADDRESS.highest_concurrency
  messages                   the facts of every stored message
  message NUMBER             the facts of one
  wait COUNT [SECONDS]       until so many messages are stored (default 30 s); status 1 if not
  rules                      the script, with how often each rule has fired
  rule JSON                  add a rule
  row NAME [FIELD=VALUE...]  add the rule of one row of replies.json, e.g. row concurrency times=1
  clear                      remove all rules
  limits [FIELD=VALUE...]    show the limits, or change some first
  account JSON               add or replace a mailbox
  certificate KIND           present another certificate: good, wrong-name, expired, untrusted
  pause [drop]               stop listening, as if down; drop: end open sessions as well
  resume                     listen again on the same port
  drop                       end open sessions without a word
  reset                      forget messages and counters
  ready                      the facts of the ready line
  stop                       end the server
"""


def main(arguments):
    if arguments[:1] == ["ctl"]:
        return control(arguments[1:])
    return serve(arguments)


# Serving


def serve(arguments):
    options = parse_options(arguments)
    try:
        upstream = make_upstream(options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"m365.py: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: upstream.stopped.set())
    upstream.start()
    try:
        announce(upstream, options.ready_file)
        upstream.stopped.wait()
    finally:
        upstream.stop()
    return 0


def parse_options(arguments):
    parser = argparse.ArgumentParser(prog="m365.py", description=__doc__,
                                     epilog="m365.py ctl SOCKET COMMAND... talks to a running one.")
    parser.add_argument("--directory", help="where mail, certificates and the control socket go "
                        "(default: a temporary directory, removed at the end)")
    parser.add_argument("--host", action="append", metavar="ADDRESS",
                        help="listen here; may be repeated (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    parser.add_argument("--config", metavar="FILE",
                        help="JSON: {accounts: [...], limits: {...}, rules: [...]}")
    parser.add_argument("--account", action="append", default=[], metavar="ADDRESS:PASSWORD",
                        help="a mailbox; may be repeated; tokens and aliases need --config")
    parser.add_argument("--limit", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--certificate", choices=KINDS, default="good")
    parser.add_argument("--name", action="append", metavar="NAME",
                        help="a name or address in the certificate; may be repeated")
    parser.add_argument("--hostname", default=DEFAULT_HOSTNAME, help="the name in its replies")
    parser.add_argument("--log", metavar="FILE", help="one line per event; - is standard error")
    parser.add_argument("--ready-file", metavar="FILE", help="gets the line that stdout gets too")
    return parser.parse_args(arguments)


def make_upstream(options):
    config = {}
    if options.config:
        config = json.loads(pathlib.Path(options.config).read_text(encoding="utf-8"))
    accounts = config.get("accounts", []) + [account_of(text) for text in options.account]
    return PracticeUpstream(
        hosts=options.host or ("127.0.0.1",), port=options.port, directory=options.directory,
        accounts=accounts, limits={**config.get("limits", {}), **fields_of(options.limit)},
        rules=config.get("rules", []), certificate=options.certificate,
        names=options.name or DEFAULT_NAMES, hostname=options.hostname,
        log=log_stream(options.log))


def account_of(text):
    address, _, password = text.partition(":")
    return {"address": address, "password": password}


def fields_of(texts):
    """FIELD=VALUE arguments; a value that is JSON is taken as such, any other as text."""
    fields = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"{text!r} is not FIELD=VALUE")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields


def log_stream(name):
    if name is None:
        return None
    return sys.stderr if name == "-" else open(name, "a", encoding="utf-8")


def announce(upstream, path):
    """One line of JSON, in the ready file first, which is complete as soon as it exists."""
    line = json.dumps({**upstream.ready_facts(), "pid": os.getpid()})
    if path:
        pathlib.Path(path + ".new").write_text(line + "\n", encoding="utf-8")
        os.replace(path + ".new", path)
    print(line, flush=True)


# Control


def control(arguments):
    parser = argparse.ArgumentParser(prog="m365.py ctl", epilog=CTL_HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", help="the control socket named in the ready line")
    parser.add_argument("command", choices=sorted(CTL), metavar="command")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args(arguments)
    try:
        result = CTL[options.command](Control(options.socket), *options.arguments)
    except (ControlError, ValueError, TypeError, KeyError) as error:
        print(f"m365.py ctl: {options.command}: {error}", file=sys.stderr)
        return 2
    if result is not None and not isinstance(result, bool):
        print(json.dumps(result, indent=2) if isinstance(result, (dict, list)) else result)
    return 1 if result is False else 0


def ctl_counters(remote, *names):
    value = remote.counters()
    for name in names:
        value = dig(value, name)
    return value


def dig(value, name):
    """The value under a dotted name, where keys (addresses, reply codes) may hold dots."""
    if name in value:
        return value[name]
    for key in value:
        if name.startswith(key + "."):
            return dig(value[key], name[len(key) + 1:])
    raise KeyError(f"no counter is called {name}")


def ctl_message(remote, number):
    found = [facts for facts in remote.messages() if facts["number"] == int(number)]
    if not found:
        raise ValueError(f"message {number} is not stored")
    return found[0]


def ctl_limits(remote, *changes):
    if changes:
        remote.set_limits(**fields_of(changes))
    return remote.limits()


CTL = {
    "counters": ctl_counters,
    "messages": lambda remote: remote.messages(),
    "message": ctl_message,
    "wait": lambda remote, count, seconds="30": remote.wait_stored(int(count), float(seconds)),
    "rules": lambda remote: remote.rules(),
    "rule": lambda remote, text: remote.add_rule(**json.loads(text)),
    "row": lambda remote, name, *fields: remote.add_row(name=name, **fields_of(fields)),
    "clear": lambda remote: remote.clear_rules(),
    "limits": ctl_limits,
    "account": lambda remote, text: remote.put_account(**json.loads(text)),
    "certificate": lambda remote, kind: remote.use_certificate(kind=kind),
    "pause": lambda remote, *drop: remote.pause(drop=drop == ("drop",)),
    "resume": lambda remote: remote.resume(),
    "drop": lambda remote: remote.drop_connections(),
    "reset": lambda remote: remote.reset(),
    "ready": lambda remote: remote.ready_facts(),
    "stop": lambda remote: remote.stop(),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
