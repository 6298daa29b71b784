"""A real Exim submission service with STARTTLS, unpacked and never installed.

It insists on a user of its own. Therefore it is started by root in a mount namespace, in which this user is another
name for one that every Debian has.
"""

import contextlib
import grp
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess

from harness import MAILBOX, PASSWORD, eventually
from packages import Unavailable, libraries, unpacked
from practice import certificate

PACKAGES = ("exim4-daemon-light", "libgnutls-dane0", "libunbound8", "libevent-2.1-7", "libidn12", "libnsl2",
            "libtirpc3", "libpcre2-8-0")
OWNER, NAME = "mail", "Debian-exim"

CONFIG = """\
exim_path = {root}/usr/sbin/exim4
keep_environment = LD_LIBRARY_PATH
spool_directory = {directory}/spool
log_file_path = {directory}/%s.log
primary_hostname = exim.office.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
host_lookup =
rfc1413_query_timeout = 0s
deliver_drop_privilege = true
tls_advertise_hosts = *
tls_certificate = {chain}
tls_privatekey = {key}
auth_advertise_hosts = ${{if def:tls_in_cipher {{*}}}}
acl_smtp_rcpt = check_rcpt
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0

begin acl
check_rcpt:
  accept authenticated = *
  deny

begin routers
everything:
  driver = accept
  transport = inbox

begin transports
inbox:
  driver = appendfile
  maildir_format
  directory = {directory}/mail
  create_directory
  envelope_to_add
  user = {owner}
  group = {group}

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and {{{{eq {{$auth2}}{{{mailbox}}}}}{{eq {{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and {{{{eq {{$auth1}}{{{mailbox}}}}}{{eq {{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"""
# As sh -c ARGUMENTS: the files that shall be the users and groups, then the command.
IN_A_NAMESPACE = 'mount --bind "$0" /etc/passwd && mount --bind "$1" /etc/group && shift && exec "$@"'


class Exim:
    """Listens on 127.0.0.1 and self.port for MAILBOX and PASSWORD; takes mail for everybody."""

    def __init__(self, directory):
        if os.geteuid() != 0:
            raise Unavailable("Exim has to be started by root")
        if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                                                         check=False).returncode != 0:
            raise Unavailable("this machine gives no mount namespace")
        self.root = unpacked("exim", PACKAGES)
        self.directory = pathlib.Path(directory) / "exim"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = None
        self.ca = None
        self._write()

    def _write(self):
        owner = pwd.getpwnam(OWNER)
        self.directory.parent.chmod(0o755)
        self.directory.mkdir()
        made = certificate.make(self.directory / "tls", ("localhost", "127.0.0.1"), "good")
        self.ca = str(made.ca)
        names = {"root": self.root, "directory": self.directory, "port": self.port, "chain": made.chain,
                 "key": made.key, "owner": OWNER, "group": grp.getgrgid(owner.pw_gid).gr_name, "mailbox": MAILBOX,
                 "password": PASSWORD}
        self._file("exim.conf", CONFIG.format(**names))
        self._file("passwd", pathlib.Path("/etc/passwd").read_text("utf-8")
                   + f"{NAME}:x:{owner.pw_uid}:{owner.pw_gid}::/:/usr/sbin/nologin\n")
        self._file("group", pathlib.Path("/etc/group").read_text("utf-8") + f"{NAME}:x:{owner.pw_gid}:\n")
        for path in (self.directory, self.directory / "tls", made.key, made.chain):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def _file(self, name, text):
        (self.directory / name).write_text(text, encoding="utf-8")

    def start(self):
        with open(self.directory / "output.log", "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", IN_A_NAMESPACE, self.directory / "passwd", self.directory / "group",
                 self.root / "usr/sbin/exim4", "-C", self.directory / "exim.conf", "-bdf"],
                env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": libraries(self.root)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        eventually(self._listens, "Exim listens")
        return self

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Exim ended with {self.process.returncode}: {self.log()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            return probe.recv(4) == b"220 "
        return False

    def stop(self):
        """With the processes that it has started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def log(self):
        return "".join(path.read_text(encoding="utf-8", errors="replace")
                       for path in sorted(self.directory.glob("*.log")))

    def delivered(self):
        """The octets of every message, with the line ends of a Maildir."""
        return [path.read_bytes() for path in sorted((self.directory / "mail" / "new").glob("*"))]
