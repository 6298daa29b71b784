"""The whole: listening sockets, sessions, and what tests and the control socket call."""

import contextlib
import errno
import pathlib
import shutil
import socket
import ssl
import tempfile
import threading
import time

from . import accounts, certificate, counters, limits, script, store
from .control import ControlServer
from .session import Session
from .wire import Wire

BACKLOG = 128
STOP_SECONDS = 5.0
PORT_TRIES = 20
DEFAULT_HOSTNAME = "PRACTICE0001.outlook.office365.com"
DEFAULT_ACCOUNT = {"address": "scanner@office.test", "password": "practice-password",
                   "token": "practice-token"}


class Shared:
    """What every session of one server uses."""

    def __init__(self, directory, hostname, log):
        self.hostname = hostname
        self.counters = counters.Counters()
        self.log = counters.EventLog(log)
        self.limits = limits.Limits()
        self.ledger = limits.Ledger(self.limits)
        self.accounts = accounts.Accounts()
        self.script = script.Script()
        self.store = store.Store(directory / "mail")
        self.stopping = threading.Event()
        self._context = None

    def present(self, made):
        """The certificate for handshakes from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(made.chain, made.key)
        self._context = context

    def tls_context(self):
        return self._context


class PracticeUpstream:
    """The practice upstream, in this process. Use it in a `with`, or call start and stop.

    hosts        addresses to listen on, all with the same port; port 0 picks a free one
    directory    everything it writes (tls/, mail/, control.sock); default: a temporary one
    accounts     dictionaries: address, password, token, aliases, message_size
    limits       dictionary of limits.Limits fields
    rules        dictionaries of script.Rule fields
    certificate  one of certificate.KINDS
    log          a text stream for one line per event
    """

    def __init__(self, *, hosts=("127.0.0.1",), port=0, directory=None, accounts=(), limits=None,
                 rules=(), certificate="good", names=certificate.DEFAULT_NAMES,
                 hostname=DEFAULT_HOSTNAME, log=None):
        self._temporary = tempfile.mkdtemp(prefix="m365-") if directory is None else None
        self.directory = pathlib.Path(directory or self._temporary).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.hosts, self.port = tuple(hosts), port
        self._names = tuple(names)
        self._shared = Shared(self.directory, hostname, log)
        for account in accounts or [DEFAULT_ACCOUNT]:
            self._shared.accounts.put(account)
        self._shared.limits.change(limits or {})
        for rule in rules:
            self._shared.script.add(rule)
        self.ca = str(self.use_certificate(certificate))
        self._lock = threading.Lock()
        self._listeners = []
        self._sessions = {}
        self._connections = 0
        self._control = ControlServer(self, self.directory / "control.sock")
        self.control = str(self._control.path)
        self.stopped = threading.Event()

    # Life

    def start(self):
        self._control.start()
        self.resume()
        return self

    def stop(self):
        """Ends all sessions; safe to call again."""
        self._shared.stopping.set()
        self.pause()
        self.drop_connections()
        for thread, _ in self._sessions_now():
            thread.join(STOP_SECONDS)
        self._control.stop()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self.stopped.set()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def ready_facts(self):
        return {"hosts": list(self.hosts), "port": self.port, "ca": self.ca,
                "control": self.control, "mail": str(self.directory / "mail"),
                "accounts": self._shared.accounts.addresses()}

    # The listening sockets

    def pause(self, drop=False):
        """Closes the listening sockets, as if down; open sessions go on unless dropped."""
        with self._lock:
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread inside accept()
            listener.close()
        if drop:
            self.drop_connections()

    def resume(self):
        """Listens again, on the same port."""
        with self._lock:
            if self._listeners:
                return
            self._listeners = self._listen_on_all()
            self.port = self._listeners[0].getsockname()[1]
            for listener in self._listeners:
                threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _listen_on_all(self):
        """All hosts on one port; a free port on the first host may be taken on the second."""
        for attempt in range(PORT_TRIES):
            opened, port = [], self.port
            try:
                for host in self.hosts:
                    opened.append(_listen(host, port))
                    port = opened[0].getsockname()[1]
                return opened
            except OSError as error:
                for listener in opened:
                    listener.close()
                is_last = attempt == PORT_TRIES - 1
                if self.port or error.errno != errno.EADDRINUSE or is_last:
                    raise
        return None

    def _accept(self, listener):
        while True:
            try:
                sock, address = listener.accept()
            except OSError:
                return
            self._begin_session(sock, address[0])

    def _begin_session(self, sock, client):
        with self._lock:
            self._connections += 1
            number = self._connections
            session = Session(self._shared, Wire(sock), number, client)
            thread = threading.Thread(target=self._run_session, args=(session,), daemon=True)
            self._sessions[number] = (thread, session)
            thread.start()

    def _run_session(self, session):
        try:
            session.run()
        finally:
            with self._lock:
                del self._sessions[session.number]

    def _sessions_now(self):
        with self._lock:
            return list(self._sessions.values())

    def drop_connections(self):
        """Closes every open session without a word."""
        for _, session in self._sessions_now():
            session.wire.abort()

    # What tests ask and change while it runs

    def counters(self):
        return {**self._shared.counters.snapshot(), **self._shared.ledger.snapshot()}

    def messages(self):
        """The facts of every stored message, in the order of arrival."""
        return self._shared.store.messages()

    def wait_stored(self, count, timeout=30.0):
        """True when at least so many messages are stored before the time is up."""
        return wait_until(lambda: len(self.messages()) >= count, timeout)

    def reset(self):
        """Forgets messages, counters and used-up limits; rules and limits stay."""
        self._shared.store.reset()
        self._shared.counters.reset()
        self._shared.ledger.reset()

    def add_rule(self, **fields):
        self._shared.script.add(fields)

    def add_row(self, name, **fields):
        """A rule from the reply catalogue, e.g. add_row("concurrency", times=1)."""
        rows = script.catalogue()
        if name not in rows:
            raise ValueError(f"replies.json has no row called {name!r}")
        self._shared.script.add(script.rule_of_row(rows[name], **fields))

    def rules(self):
        return self._shared.script.rules()

    def clear_rules(self):
        self._shared.script.clear()

    def limits(self):
        return self._shared.limits.as_dict()

    def set_limits(self, **values):
        self._shared.limits.change(values)

    def put_account(self, **fields):
        """Adds a mailbox, or replaces it with its password, token and aliases."""
        self._shared.accounts.put(fields)

    def use_certificate(self, kind):
        """Presents another kind of certificate from the next handshake on; returns the CA."""
        made = certificate.make(self.directory / "tls", self._names, kind)
        self._shared.present(made)
        return made.ca


def _listen(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def wait_until(condition, timeout, interval=0.02):
    """Asks again and again; the last answer counts."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return bool(condition())
        time.sleep(interval)
    return True
