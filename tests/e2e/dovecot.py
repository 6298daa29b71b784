"""A real Dovecot submission service with XOAUTH2 and OAUTHBEARER, unpacked and never installed.

It asks an introspection endpoint whether a token is good, and hands mail to a small sink, which keeps it. The
Debian packages are fetched as those of Postfix are. Dovecot knows its own paths, so it sees the packages laid over
/usr, in a mount namespace of its own; that takes root.
"""

import contextlib
import os
import pathlib
import pwd
import shlex
import socket
import socketserver
import subprocess
import threading

from harness import eventually
from packages import Unavailable, unpacked
from practice import certificate

PACKAGES = ("dovecot-core", "dovecot-submissiond", "libexttextcat-2.0-0", "liblua5.4-0", "libsodium23", "libstemmer0d",
            "libtirpc3", "libunwind8", "libwrap0", "libapparmor1", "libicu72")
OWNER, NOBODY = "mail", "nobody"

CONFIGURATION = """\
protocols = submission
listen = 127.0.0.1
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
default_internal_user = {owner}
default_internal_group = {owner}
default_login_user = {nobody}
first_valid_uid = 1
hostname = dovecot.office.test
ssl = required
ssl_cert = <{chain}
ssl_key = <{key}
auth_mechanisms = {mechanisms}
auth_verbose = yes
mail_location = maildir:{directory}/mail
submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
submission_relay_ssl = no
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {directory}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={directory}/mail
}}
"""

INTROSPECTION = """\
introspection_mode = post
introspection_url = {url}
username_attribute = username
active_attribute = active
active_value = true
"""


class Sink(socketserver.ThreadingTCPServer):
    """Takes mail from whoever connects, and keeps it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        self.messages = []
        super().__init__(("127.0.0.1", 0), SinkSession)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class SinkSession(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        self.say("220 sink")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.say("250-sink\r\n250-8BITMIME\r\n250 SIZE 100000000")
            elif verb == b"DATA":
                self.say("354 go on")
                self.server.messages.append(self.take())
                self.say("250 2.0.0 taken")
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 2.0.0 ok")

    def take(self):
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


class Dovecot:
    """Listens on 127.0.0.1 and self.port; tokens are what `introspection` (a URL) says is good."""

    def __init__(self, directory, introspection, mechanisms="xoauth2 oauthbearer"):
        if os.geteuid() != 0:
            raise Unavailable("Dovecot has to be started by root")
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
            raise Unavailable("a mount namespace cannot be made here")
        self.root = unpacked("dovecot", PACKAGES)
        self.directory = pathlib.Path(directory) / "dovecot"
        self.sink = Sink()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory.parent.chmod(0o755)
        for name in ("run", "state", "mail", "tls"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        owner = pwd.getpwnam(OWNER)
        os.chown(self.directory / "mail", owner.pw_uid, owner.pw_gid)
        made = certificate.make(self.directory / "tls", ("localhost", "127.0.0.1"), "good")
        self.ca = str(made.ca)
        names = {"directory": self.directory, "owner": OWNER, "nobody": NOBODY, "key": made.key,
                 "chain": made.chain, "port": self.port, "sink": self.sink.server_address[1],
                 "mechanisms": mechanisms, "url": introspection}
        for name, text in (("dovecot.conf", CONFIGURATION), ("oauth2.conf", INTROSPECTION)):
            (self.directory / name).write_text(text.format(**names), encoding="utf-8")
        self.process = None

    def start(self):
        inside = (f"mount -t overlay overlay -o lowerdir={shlex.quote(str(self.root / 'usr'))}:/usr /usr && "
                  f"exec dovecot -F -c {shlex.quote(str(self.directory / 'dovecot.conf'))}")
        with open(self.directory / "master.log", "wb") as log:
            self.process = subprocess.Popen(["unshare", "--mount", "sh", "-c", inside], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        try:
            eventually(self._listens, "Dovecot listens")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Dovecot ended with {self.process.returncode}: {self.log()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            return probe.recv(4) == b"220 "
        return False

    def stop(self):
        """The master ends its children."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.sink.shutdown()
        self.sink.server_close()

    def log(self):
        texts = [path.read_text(encoding="utf-8", errors="replace")
                 for path in (self.directory / "master.log", self.directory / "dovecot.log") if path.exists()]
        return "".join(texts)
