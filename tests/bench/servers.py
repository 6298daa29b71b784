"""The mail servers that are compared, each on a fresh file system, and what measures them.

Postfix and Exim are Debian's, unpacked below the build folder and never installed. Each is set up as its informed
administrator would for a host that only queues: nothing is looked up, nothing is limited that the comparison
would hit, no delivery is tried, and what the server does by default to make mail durable stays as it is.
"""

import contextlib
import glob
import grp
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
os.environ.setdefault("OUTTRAY_BIN", str(ROOT / "build" / "release"))
BIN = pathlib.Path(os.environ["OUTTRAY_BIN"]).resolve()
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import exim  # noqa: E402  pylint: disable=wrong-import-position
import postfix  # noqa: E402  pylint: disable=wrong-import-position
from packages import Unavailable, libraries, unpacked  # noqa: E402  pylint: disable=wrong-import-position

TOOLS = BIN / "bench"
TICKS = os.sysconf("SC_CLK_TCK")
FLUSHES = "fsync,fdatasync,sync_file_range,syncfs,msync,sync"
FLUSH = re.compile(r"\b(fsync|fdatasync|syncfs|msync|sync)\(")  # sync_file_range() promises nothing
START_PATIENCE, STOP_PATIENCE = 20, 30
CONNECTIONS_MAX = 400


# ---- our programs ----

def build_tools():
    """Compiles the C programs of this folder where they are missing or old."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name, flags in (("smtp_load", ()), ("disk_limits", ("-pthread",)), ("slow_flush.so", ("-shared", "-fPIC"))):
        source, made = HERE / (name.removesuffix(".so") + ".c"), TOOLS / name
        if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
            continue
        subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", *flags,
                        source, "-o", made, "-ldl"], check=True)


def load(port, timeout=600, **options):
    """What smtp_load measured; options as its own, with _ for -."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    done = subprocess.run([TOOLS / "smtp_load", f"--port={port}", *arguments], capture_output=True, text=True,
                          timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- file systems ----

class Image:
    """A new ext4 with a journal in a file, mounted; or, where we may not mount, or should not, just a folder."""

    def __init__(self, work, size="6G", plain=False):
        self.file = pathlib.Path(work) / "image"
        self.path = pathlib.Path(work) / "mounted"
        self.size = size
        self.plain = plain
        self.mounted = False

    def __enter__(self):
        self.path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and not self.plain:
            self.file.unlink(missing_ok=True)
            subprocess.run(["truncate", "-s", self.size, self.file], check=True)
            # Without lazy: nothing is initialised behind the measurement's back.
            subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.file],
                           check=True, stderr=subprocess.DEVNULL)
            mount = subprocess.run(["mount", "-o", "loop", self.file, self.path], check=False, capture_output=True)
            self.mounted = mount.returncode == 0
        if not self.mounted and not self.plain:
            print("note: no file system can be mounted here; the figures are those of the one in use", file=sys.stderr)
        self.path.chmod(0o755)
        return self.path

    def __exit__(self, *_):
        for _ in range(50):
            if not self.mounted or subprocess.run(["umount", self.path], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f"cannot unmount {self.path}")
        self.mounted = False
        shutil.rmtree(self.path, ignore_errors=True)
        self.file.unlink(missing_ok=True)


# ---- servers ----

class Server:
    """A server in a session of its own, listening on 127.0.0.1 and self.port."""

    name = ""
    stores = True

    def __init__(self, directory, preload=None):
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.preload = dict(preload or {})
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {"PATH": os.environ["PATH"]}

    def start(self):
        with open(self.directory / "output", "wb") as log:
            self.process = subprocess.Popen(self.command(), env={**self.environment(), **self.preload},
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_PATIENCE
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{self.name} did not start: {self.output()[-400:]}")
            time.sleep(0.02)
        return self

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            return probe.recv(4) == b"220 "
        return False

    def output(self):
        return (self.directory / "output").read_text(encoding="utf-8", errors="replace")

    def processes(self):
        """The ids of the processes of its session, and the ticks they and their ended children have used."""
        ids, ticks = [], 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = pathlib.Path(path).read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    ids.append(path.split("/")[2])
                    ticks += sum(int(field) for field in fields[11:15])
        return ids, ticks

    def cpu_ms(self):
        return self.processes()[1] * 1000 / TICKS

    def memory_kb(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[1])

    def flushes(self, messages, **options):
        """The flushes of each of so many messages, counted with strace; None where there is none."""
        if not shutil.which("strace"):
            return None
        trace = self.directory / "trace"
        ids = [argument for number in self.processes()[0] for argument in ("-p", number)]
        with subprocess.Popen(["strace", "-f", "-qq", "-e", f"trace={FLUSHES}", "-o", trace, *ids],
                              stderr=subprocess.DEVNULL) as tracer:
            time.sleep(0.7)
            before = len(FLUSH.findall(trace.read_text(encoding="ascii", errors="replace")))
            measured = load(self.port, messages=messages, **options)
            count = len(FLUSH.findall(trace.read_text(encoding="ascii", errors="replace"))) - before
            tracer.send_signal(signal.SIGINT)
        return count / measured["messages"]

    def stop(self):
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_PATIENCE)
                break
        for number in self.processes()[0]:  # in the session, but not in the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)


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
address = scanner@office.test
password_file = {directory}/password
host = localhost
port = {upstream}
messages_per_minute = 0
{more}
[api]
socket = {directory}/control.sock
"""


class Outtray(Server):
    """As it comes; nobody answers at its upstream's port unless one is given."""

    name = "outtray"

    def __init__(self, directory, preload=None, upstream=None):
        super().__init__(directory, preload)
        self.set_upstream(upstream)
        password = self.directory / "password"
        password.touch(0o600)
        password.write_text("practice-password\n", encoding="ascii")

    def set_upstream(self, upstream):
        more = f"ca_file = {upstream.ca}" if upstream else ""
        text = OUTTRAY.format(directory=self.directory, port=self.port, upstream=upstream.port if upstream else 1, more=more)
        (self.directory / "outtray.conf").write_text(text, encoding="utf-8")

    def command(self):
        return [BIN / "outtrayd", "-c", self.directory / "outtray.conf"]


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
import_environment = MAIL_CONFIG MAIL_LOGTAG LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH LD_PRELOAD
    OUTTRAY_BENCH_FLUSH_US
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = postfix.office.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
message_size_limit = 104857600
mailbox_size_limit = 0
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
default_process_limit = {connections}
in_flow_delay = 0s
{more}
"""

POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
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
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """Queues and defers: mail reaches the deferred queue."""

    name = "postfix"
    more = "defer_transports = smtp"

    def __init__(self, directory, preload=None):
        if os.geteuid() != 0:
            raise Unavailable("Postfix has to be started by root")
        self.root = unpacked("postfix", postfix.PACKAGES)
        super().__init__(directory, preload)
        owner = pwd.getpwnam(postfix.OWNER)
        group = grp.getgrnam(postfix.SET_GID_GROUP).gr_gid
        for name in ("conf", "data", *(f"queue/{queue}" for queue in postfix.QUEUES)):
            (self.directory / name).mkdir(parents=True)
            if name not in ("conf", "queue/pid"):
                os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(self.directory / "queue" / name, owner.pw_uid, group)
            (self.directory / "queue" / name).chmod(mode)
        names = {"directory": self.directory, "root": self.root, "owner": postfix.OWNER, "port": self.port,
                 "set_gid_group": postfix.SET_GID_GROUP, "connections": CONNECTIONS_MAX, "more": self.more}
        for name, text in (("main.cf", POSTFIX), ("master.cf", POSTFIX_MASTER)):
            (self.directory / "conf" / name).write_text(text.format(**names), encoding="utf-8")
        (self.directory / "conf" / "dynamicmaps.cf").touch()

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix",
                "MAIL_CONFIG": str(self.directory / "conf")}

    def command(self):
        return [self.root / "usr/lib/postfix/sbin/master", "-c", self.directory / "conf", "-d"]


class PostfixHold(Postfix):
    """Holds all mail: the least that Postfix can do with it."""

    name = "postfix-hold"
    more = "smtpd_recipient_restrictions = static:hold"


EXIM = """\
primary_hostname = exim.office.test
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
exim_user = mail
exim_group = mail
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
queue_only
split_spool_directory
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_connect_backlog = {connections}
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
message_size_limit = 100M
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : OUTTRAY_BENCH_FLUSH_US
exim_path = {root}/usr/sbin/exim4
acl_smtp_rcpt = accept_all
begin acl
accept_all:
  accept
begin routers
begin transports
begin retry
"""


class Exim(Server):
    """queue_only. Its packages' user does not exist here, so it runs in a mount namespace where it does."""

    name = "exim"

    def __init__(self, directory, preload=None):
        if os.geteuid() != 0:
            raise Unavailable("Exim has to be started by root")
        self.root = unpacked("exim", exim.PACKAGES)
        super().__init__(directory, preload)
        mail = pwd.getpwnam("mail")
        for name in ("spool", "log"):
            (self.directory / name).mkdir()
            os.chown(self.directory / name, mail.pw_uid, mail.pw_gid)
        (self.directory / "exim.conf").write_text(
            EXIM.format(root=self.root, directory=self.directory, port=self.port, connections=CONNECTIONS_MAX), encoding="utf-8")
        for name, line in (("passwd", f"Debian-exim:x:{mail.pw_uid}:{mail.pw_gid}::/nonexistent:/bin/false"),
                           ("group", f"Debian-exim:x:{mail.pw_gid}:")):
            known = pathlib.Path(f"/etc/{name}").read_text(encoding="utf-8")
            (self.directory / name).write_text(f"{known}{line}\n", encoding="utf-8")

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": libraries(self.root)}

    def command(self):
        binds = "".join(f"mount --bind {self.directory}/{name} /etc/{name} && " for name in ("passwd", "group"))
        return ["unshare", "--mount", "sh", "-c",
                f"{binds}exec {self.root}/usr/sbin/exim4 -C {self.directory}/exim.conf -bdf"]


class SmtpSink(Server):
    """Postfix's smtp-sink, which stores nothing: the limit of machine and driver."""

    name = "smtp-sink"
    stores = False

    def __init__(self, directory, preload=None):
        self.root = unpacked("postfix", postfix.PACKAGES)
        super().__init__(directory, preload)

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix"}

    def command(self):
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        return [self.root / "usr/sbin/smtp-sink", *user, f"127.0.0.1:{self.port}", str(CONNECTIONS_MAX)]


SERVERS = {server.name: server for server in (Outtray, Postfix, PostfixHold, Exim, SmtpSink)}


def smtp_source(port, connections, messages, size, many):
    """Messages a second, by Postfix's own driver."""
    root = unpacked("postfix", postfix.PACKAGES)
    keep = ("-d",) if many else ()
    began = time.monotonic()
    subprocess.run([root / "usr/sbin/smtp-source", *keep, "-s", str(connections), "-m", str(messages), "-l", str(size),
                    "-f", "printer@office.test", "-t", "somebody@example.net", f"inet:127.0.0.1:{port}"],
                   env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": f"{root}/usr/lib/postfix"}, check=True, timeout=600)
    return messages / (time.monotonic() - began)
