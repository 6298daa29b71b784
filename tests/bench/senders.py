"""The mail servers whose way out is compared, and the sink they send to, behind a link.

Everything runs in a network namespace of its own, the sink in another one behind the link. Postfix and Exim are
Debian's, unpacked below the build folder and never installed, each set up as its informed administrator would to
submit through one mailbox: STARTTLS with verified certificate, AUTH, three connections that are used again.
"""

import contextlib
import glob
import grp
import json
import os
import pathlib
import pwd
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
os.environ.setdefault("OUTTRAY_BIN", str(ROOT / "build" / "release"))
BIN = pathlib.Path(os.environ["OUTTRAY_BIN"]).resolve()
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "m365")]

# pylint: disable=wrong-import-position
import exim  # noqa: E402
import postfix  # noqa: E402
from packages import Unavailable, libraries, unpacked  # noqa: E402
from practice import certificate  # noqa: E402

TOOLS = BIN / "bench"
TICKS = os.sysconf("SC_CLK_TCK")
FAR, FAR_PORT, NEAR_PORT = "10.77.0.2", 2587, 2525
MAILBOX, RECIPIENT = "scanner@office.test", "someone@office.test"
URGENT = "127.0.0.77"
PATIENCE = 300


def build_tools():
    """Compiles the C programs where they are missing or old."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name, libraries in (("sink", ("-pthread", "-lssl", "-lcrypto")), ("link", ())):
        source, made = HERE / f"{name}.c", TOOLS / name
        if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
            continue
        subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", source,
                        "-o", made, *libraries], check=True)


def message(size, number=0):
    """A message of about so many octets; scans are base64."""
    header = (f"From: Scanner <{MAILBOX}>\r\nTo: <{RECIPIENT}>\r\nSubject: Scan {number}\r\n"
              f"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{number}.{os.urandom(8).hex()}@office.test>\r\n\r\n")
    line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n"
    return (header + line * max(1, (size - len(header)) // len(line))).encode()


class Sink:
    """The far end. Events as dictionaries, in order."""

    def __init__(self, directory, delay_ms=0, mbit=0, link=True, message_ms=0, most=0):
        """Without a link it listens on this side, as if on loopback. It may take its time for each message, and take no
        more connections than it likes."""
        self.delay = delay_ms / 1000
        made = certificate.make(pathlib.Path(directory) / "tls", (FAR,), "good")
        self.ca = made.ca
        self.events = []
        self._changed = threading.Condition()
        self._command = [TOOLS / "sink", FAR, str(FAR_PORT), made.chain, made.key, str(message_ms), str(most)]
        if link:
            self._command[:0] = [TOOLS / "link", str(delay_ms), str(mbit)]
        else:
            subprocess.run(["ip", "address", "replace", f"{FAR}/32", "dev", "lo"], check=True)
        self._has_link = link
        self._process = None

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("ready", 1)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        if not self._has_link:
            subprocess.run(["ip", "address", "delete", f"{FAR}/32", "dev", "lo"], check=True)

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    def named(self, name):
        return [event for event in self.events if event["event"] == name]

    def wait(self, name, count, patience=PATIENCE):
        """The events of that name, of which there are at least so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.named(name)) >= count, patience):
                raise RuntimeError(f"{len(self.named(name))} of {count} {name} events after {patience} s")
        return self.named(name)

    def forget(self):
        with self._changed:
            self.events.clear()


class Sender:
    """A server in a session of its own: serve(), which sends at once; or fill() with nothing sent on, then drain()."""

    name = ""

    def __init__(self, directory, sink):
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.sink = sink
        self.process = None

    def environment(self):
        return {"PATH": os.environ["PATH"]}

    def launch(self, command):
        with open(self.directory / "output", "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)

    def wait_listening(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", NEAR_PORT), 5) as probe:
                if probe.recv(4) == b"220 ":
                    return
            time.sleep(0.02)
        raise Unavailable(f"{self.name} did not start: {(self.directory / 'output').read_text()[-600:]}")

    def session_cpu_ms(self, group):
        ticks = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = pathlib.Path(path).read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == group:
                    ticks += sum(int(field) for field in fields[11:15])
        return ticks * 1000 / TICKS

    def cpu_ms(self):
        return self.session_cpu_ms(self.process.pid)

    def stop(self, number=signal.SIGTERM):
        if self.process is None:
            return
        for attempt in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, attempt)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
                break
        self.process = None


def into_a_namespace():
    """Whatever a link does, the host's network has no part in it."""
    if os.environ.get("OUTTRAY_BENCH_NETWORK") == "own":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    os.environ["OUTTRAY_BENCH_NETWORK"] = "own"
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


def submit(count, size):
    """Hands in so many messages on one connection, as fast as they are taken."""
    with smtplib.SMTP("127.0.0.1", NEAR_PORT, timeout=60) as device:
        for number in range(count):
            device.sendmail(MAILBOX, [RECIPIENT], message(size, number))


OUTTRAY = """\
[relay]
user =
hostname = relay.office.test
spool = {directory}/spool
spool_max = 0
spool_min_free = 0
[listener main]
address = 127.0.0.1
port = {port}
[devices]
max_sessions_per_device = 1000
[mailbox office]
provider = custom
address = {mailbox}
password_file = {directory}/password
host = {host}
port = {upstream}
ca_file = {ca}
messages_per_minute = 0
recipients_per_day = 0
{more}
[api]
socket = {directory}/control.sock
"""


class Outtray(Sender):
    name = "outtray"
    more = ""

    def __init__(self, directory, sink):
        super().__init__(directory, sink)
        (self.directory / "password").touch(0o600)
        (self.directory / "password").write_text("practice-password\n", encoding="ascii")

    def start(self, host=FAR, upstream=FAR_PORT):
        text = OUTTRAY.format(directory=self.directory, port=NEAR_PORT, mailbox=MAILBOX, host=host, upstream=upstream,
                              ca=self.sink.ca, more=self.more)
        (self.directory / "outtray.conf").write_text(text, encoding="utf-8")
        self.launch([BIN / "outtrayd", "-c", self.directory / "outtray.conf"])
        self.wait_listening()

    serve = backlog = start

    def fill(self, count, size):
        """Towards a service that never says a word, so that there is no trouble to remember either."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.start("127.0.0.1", silent.getsockname()[1])
            submit(count, size)
            self.stop()
        time.sleep(2)  # a connection that was dropped counts for a second

    def drain(self):
        self.start()
        return 0


class OuttrayQuick(Outtray):
    """Closes its connections soon, so that a cold one can be measured without waiting for long."""

    name = "outtray-cold"
    more = "idle_time = 1s"


class OuttrayInFlight(Outtray):
    """With several transactions in flight on a connection."""

    name = "outtray-4"
    more = "in_flight = 4"


class OuttrayLanes(Outtray):
    """With a device whose mail is urgent."""

    name = "outtray-lanes"
    more = f"[device alarm]\naddress = {URGENT}\nlane = urgent"


POSTFIX = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {directory}/conf
mail_owner = {owner}
setgid_group = {set_gid_group}
default_privs = nobody
import_environment = MAIL_CONFIG MAIL_LOGTAG LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH SASL_PATH
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = postfix.office.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = 0.0.0.0
alias_maps =
message_size_limit = 104857600
mailbox_size_limit = 0
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_relay_restrictions = permit_mynetworks, reject
in_flow_delay = 0s
relayhost = [{host}]:{upstream}
smtp_tls_security_level = verify
smtp_tls_CAfile = {ca}
smtp_tls_verify_cert_match = {host}, hostname
smtp_tls_session_cache_database = btree:{directory}/data/smtp_scache
smtp_tls_connection_reuse = yes
smtp_connection_cache_destinations = {host}
smtp_connection_reuse_time_limit = 480s
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = static:{mailbox}:practice-password
smtp_sasl_security_options =
default_destination_concurrency_limit = 3
initial_destination_concurrency = 3
{more}
"""

POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
smtp unix - - n - - smtp
tlsproxy unix - - n - 0 tlsproxy
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Sender):
    name = "postfix"

    def __init__(self, directory, sink):
        if os.geteuid() != 0:
            raise Unavailable("Postfix has to be started by root")
        self.root = fetch_postfix()
        super().__init__(directory, sink)
        owner = pwd.getpwnam(postfix.OWNER)
        group = grp.getgrnam(postfix.SET_GID_GROUP).gr_gid
        for name in ("conf", "data", *(f"queue/{queue}" for queue in postfix.QUEUES)):
            (self.directory / name).mkdir(parents=True)
            if name not in ("conf", "queue/pid"):
                os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(self.directory / "queue" / name, owner.pw_uid, group)
            (self.directory / "queue" / name).chmod(mode)
        for folder in (self.directory, *self.directory.parents[:2]):
            folder.chmod(0o755)
        (self.directory / "conf" / "dynamicmaps.cf").touch()

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix",
                "MAIL_CONFIG": str(self.directory / "conf"),
                "SASL_PATH": ":".join(glob.glob(f"{self.root}/usr/lib/*/sasl2"))}

    def write(self, more):
        names = {"directory": self.directory, "root": self.root, "owner": postfix.OWNER, "port": NEAR_PORT,
                 "set_gid_group": postfix.SET_GID_GROUP, "host": FAR, "upstream": FAR_PORT,
                 "mailbox": MAILBOX, "ca": self.sink.ca, "more": more}
        for name, text in (("main.cf", POSTFIX), ("master.cf", POSTFIX_MASTER)):
            (self.directory / "conf" / name).write_text(text.format(**names), encoding="utf-8")

    def start(self, more=""):
        self.write(more)
        self.launch([self.root / "usr/lib/postfix/sbin/master", "-c", self.directory / "conf", "-d"])
        self.wait_listening()

    serve = backlog = start

    def fill(self, count, size):
        self.start("defer_transports = smtp")
        submit(count, size)
        time.sleep(2)

    def drain(self):
        self.stop()
        self.start("minimal_backoff_time = 1s")
        time.sleep(1)
        before = self.cpu_ms()
        subprocess.run([self.root / "usr/sbin/postqueue", "-c", self.directory / "conf", "-f"], check=True,
                       env=self.environment())
        return before


EXIM = """\
primary_hostname = exim.office.test
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
exim_user = mail
exim_group = mail
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
{more}
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
message_size_limit = 100M
keep_environment = LD_LIBRARY_PATH
exim_path = {root}/usr/sbin/exim4
acl_smtp_rcpt = accept_all
remote_max_parallel = 3
begin acl
accept_all:
  accept
begin routers
smarthost:
  driver = manualroute
  route_list = * {host} byname
  transport = submission
  self = send
begin transports
submission:
  driver = smtp
  port = {upstream}
  hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_certificates = {ca}
  tls_verify_hosts = *
  hosts_pipe_connect =
  connection_max_messages = 500
begin retry
* * F,1h,1m
begin authenticators
login:
  driver = plaintext
  public_name = PLAIN
  client_send = ^{mailbox}^practice-password
"""


def fetch_postfix():
    return unpacked("postfix", postfix.PACKAGES)


def fetch_exim():
    return unpacked("exim", exim.PACKAGES)


class Exim(Sender):
    """queue_only, then three queue runners. Its packages' user does not exist here, so it runs in a mount namespace
    where it does."""

    name = "exim"

    def __init__(self, directory, sink):
        if os.geteuid() != 0:
            raise Unavailable("Exim has to be started by root")
        self.root = fetch_exim()
        super().__init__(directory, sink)
        mail = pwd.getpwnam("mail")
        for name in ("spool", "log"):
            (self.directory / name).mkdir()
            os.chown(self.directory / name, mail.pw_uid, mail.pw_gid)
        for folder in (self.directory, *self.directory.parents[:2]):
            folder.chmod(0o755)
        for name, line in (("passwd", f"Debian-exim:x:{mail.pw_uid}:{mail.pw_gid}::/nonexistent:/bin/false"),
                           ("group", f"Debian-exim:x:{mail.pw_gid}:")):
            known = pathlib.Path(f"/etc/{name}").read_text(encoding="utf-8")
            (self.directory / name).write_text(f"{known}{line}\n", encoding="utf-8")

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": libraries(self.root)}

    def write(self, more):
        (self.directory / "exim.conf").write_text(
            EXIM.format(root=self.root, directory=self.directory, port=NEAR_PORT, host=FAR, upstream=FAR_PORT, ca=self.sink.ca,
                        mailbox=MAILBOX, more=more), encoding="utf-8")

    def serve(self, more=""):
        self.write(more)
        self.launch(self.command("exec " + self.exim("-bdf")))
        self.wait_listening()

    def backlog(self):
        """Queues, as what it would try at once would be one connection too many; three runners work all the time."""
        self.write("queue_only")
        runner = f"while sleep 1; do {self.exim('-qq')}; done"
        self.launch(self.command(f"({runner}) & ({runner}) & ({runner}) & exec {self.exim('-bdf')}"))
        self.wait_listening()

    def command(self, arguments):
        binds = "".join(f"mount --bind {self.directory}/{name} /etc/{name} && " for name in ("passwd", "group"))
        return ["unshare", "--mount", "sh", "-c", f"{binds}{arguments}"]

    def exim(self, arguments):
        return f"{self.root}/usr/sbin/exim4 -C {self.directory}/exim.conf {arguments}"

    def fill(self, count, size):
        self.serve("queue_only")
        submit(count, size)
        self.stop()

    def drain(self):
        runner = self.exim("-qqf")
        self.launch(self.command(f"{runner} & {runner} & {runner} & wait; sleep 600"))
        return 0


def prepare(names):
    """Builds and fetches what is needed; leaves out of names what cannot be had."""
    build_tools()
    for name, fetch in (("postfix", fetch_postfix), ("exim", fetch_exim)):
        if name not in names:
            continue
        try:
            fetch()
        except (Unavailable, subprocess.SubprocessError) as reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)
            names.remove(name)


SENDERS = {kind.name: kind for kind in (Outtray, OuttrayQuick, OuttrayInFlight, OuttrayLanes, Postfix, Exim)}
