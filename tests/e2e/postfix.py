"""A real Postfix submission service with STARTTLS and Cyrus SASL, unpacked and never installed.

The Debian packages are fetched with apt-get and unpacked below the build folder. Everything that runs has its
configuration, queue and mail below one directory of the test. Postfix has to be started by root; it runs as
users that every Debian has.
"""

import contextlib
import glob
import os
import pathlib
import pwd
import grp
import signal
import socket
import subprocess

from harness import MAILBOX, PASSWORD, eventually
from packages import Unavailable, unpacked
from practice import certificate

PACKAGES = ("postfix", "libsasl2-modules", "libsasl2-modules-db", "sasl2-bin")
REFUSED = "nobody@office.test"
OWNER, SET_GID_GROUP, NOBODY = "mail", "games", "nobody"
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "pid",
          "private", "public", "saved", "trace")

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {directory}/conf
mail_owner = {owner}
setgid_group = {set_gid_group}
default_privs = {nobody}
import_environment = MAIL_CONFIG MAIL_LOGTAG LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH SASL_PATH
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = postfix.office.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
message_size_limit = 36700160
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = office.test
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {key}, {chain}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{{{{refused} = 550 5.1.1 No such user}}}},
    permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {directory}/conf/sasl/sasldb2
mech_list: {mechanisms}
"""


class Postfix:
    """Listens on 127.0.0.1 and self.port for MAILBOX and PASSWORD; takes mail for office.test but for REFUSED."""

    def __init__(self, directory, mechanisms="PLAIN LOGIN"):
        if os.geteuid() != 0:
            raise Unavailable("Postfix has to be started by root")
        self.root = unpacked("postfix", PACKAGES)
        self.directory = pathlib.Path(directory) / "postfix"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._make_directories()
        made = certificate.make(self.directory / "tls", ("localhost", "127.0.0.1"), "good")
        self.ca = str(made.ca)
        self._write(made, mechanisms)
        self._add_user()
        self.process = None

    def _make_directories(self):
        owner = pwd.getpwnam(OWNER)
        self.directory.parent.chmod(0o755)
        for name in ("conf", "conf/sasl", "tls", *(f"queue/{queue}" for queue in QUEUES)):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name in ("data", "mail", *(f"queue/{queue}" for queue in QUEUES if queue != "pid")):
            (self.directory / name).mkdir(exist_ok=True)
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        group = grp.getgrnam(SET_GID_GROUP).gr_gid
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(self.directory / "queue" / name, owner.pw_uid, group)
            (self.directory / "queue" / name).chmod(mode)

    def _write(self, made, mechanisms):
        owner = pwd.getpwnam(OWNER)
        names = {"directory": self.directory, "root": self.root, "owner": OWNER, "nobody": NOBODY,
                 "set_gid_group": SET_GID_GROUP, "uid": owner.pw_uid, "gid": owner.pw_gid,
                 "key": made.key, "chain": made.chain, "port": self.port, "mechanisms": mechanisms, "refused": REFUSED}
        for name, text in (("conf/main.cf", MAIN), ("conf/master.cf", MASTER), ("conf/sasl/smtpd.conf", SASL)):
            (self.directory / name).write_text(text.format(**names), encoding="utf-8")
        (self.directory / "conf" / "dynamicmaps.cf").touch()

    def _environment(self):
        libraries = glob.glob(f"{self.root}/usr/lib/*/sasl2")
        return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix",
                "MAIL_CONFIG": str(self.directory / "conf"), "SASL_PATH": ":".join(libraries)}

    def _add_user(self):
        user, domain = MAILBOX.split("@")
        database = self.directory / "conf" / "sasl" / "sasldb2"
        subprocess.run([self.root / "usr/sbin/saslpasswd2", "-p", "-c", "-f", database, "-u", domain, user],
                       input=PASSWORD.encode(), env=self._environment(), check=True, timeout=30,
                       capture_output=True)
        database.chmod(0o644)

    def start(self):
        log = open(self.directory / "master.log", "wb")
        with log:
            self.process = subprocess.Popen(
                [self.root / "usr/lib/postfix/sbin/master", "-c", self.directory / "conf", "-d"],
                env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        eventually(self._listens, "Postfix listens")
        return self

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Postfix ended with {self.process.returncode}: {self.log()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            return probe.recv(4) == b"220 "
        return False

    def stop(self):
        """The master's whole session, all of which it has started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def log(self):
        texts = [path.read_text(encoding="utf-8", errors="replace")
                 for path in (self.directory / "master.log", self.directory / "mail.log") if path.exists()]
        return "".join(texts)

    def delivered(self):
        """The octets of every message, with the line ends of a Maildir."""
        folder = self.directory / "mail" / "inbox" / "new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []
