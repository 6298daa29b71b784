"""The sign-ins against a token service of other people's making: oidc-provider, from the npm registry."""

import contextlib
import html.parser
import http.cookiejar
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request

LABELS = ("full",)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("OUTTRAY_BIN") or ROOT / "build" / "dev")
SERVER = ROOT / "tests" / "oauth" / "oidc_provider.mjs"
PACKAGE = "oidc-provider@9.13.3"
REDIRECT = "http://127.0.0.1:8765/back"
sys.path.insert(0, str(ROOT / "tests" / "oauth"))

from oauth import make_authority  # noqa: E402  pylint: disable=wrong-import-position


class Forms(html.parser.HTMLParser):
    """The first form of a page."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = attrs.get("action")
        if tag == "input" and "name" in attrs:
            self.fields[attrs["name"]] = attrs.get("value", "")


class NoRedirectHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects until one leads to the application."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # pylint: disable=too-many-arguments
        if newurl.startswith(REDIRECT):
            raise urllib.error.HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Browser:
    """Opens pages and submits forms, with cookies."""

    def __init__(self, ca_file):
        context = ssl.create_default_context(cafile=ca_file)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), NoRedirectHome(),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def open(self, url, form=None):
        """The page, and where it came from; the application's URL when it led there."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self.opener.open(url, data, timeout=30) as response:
                return response.read().decode(), response.geturl()
        except urllib.error.HTTPError as error:
            if error.url.startswith(REDIRECT):
                return "", error.url
            raise

    def submit_all(self, url, limit=5):
        """Follows a page's forms until there is none."""
        page, url = self.open(url)
        for _ in range(limit):
            form = Forms(page)
            if form.action is None:
                break
            page, url = self.open(urllib.parse.urljoin(url, form.action), {**form.fields, "confirm": "yes"})
        return page, url


@unittest.skipUnless(shutil.which("npm") and shutil.which("node"), "npm is needed")
class OidcProvider(unittest.TestCase):
    """Each test has a probe of its own; the service is shared."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        # Beside the build, so that it is fetched once.
        modules = BIN / "tests" / "oidc-provider"
        modules.mkdir(parents=True, exist_ok=True)
        if not (modules / "node_modules" / "oidc-provider").exists():
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", modules,
                            PACKAGE], check=True, capture_output=True, timeout=300)
        cls.directory = pathlib.Path(cls.stack.enter_context(tempfile.TemporaryDirectory()))
        make_authority(cls.directory)
        cls.directory.joinpath("node_modules").symlink_to(modules / "node_modules")
        for command in (["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=app", "-keyout",
                         "one.key", "-out", "one.crt"],):
            subprocess.run(["openssl", *command], cwd=cls.directory, check=True, capture_output=True)
        key = cls.directory / "one.pem"
        key.write_bytes((cls.directory / "one.key").read_bytes() + (cls.directory / "one.crt").read_bytes())
        key.chmod(0o600)
        secret = cls.directory / "secret"
        secret.write_text("a secret: +&=%/~\n", encoding="ascii")
        secret.chmod(0o600)
        cls.server = cls.stack.enter_context(subprocess.Popen(
            ["node", SERVER, cls.directory], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        cls.stack.callback(cls.server.kill)
        cls.url = cls.server.stdout.readline().strip()

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def probe(self, client, **settings):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        settings = {"token_url": f"{self.url}/token", "device_url": f"{self.url}/device/auth",
                    "authorize_url": f"{self.url}/auth", "client_id": client, "scope": "SMTP.Send",
                    "ca_file": self.directory / "ca.pem", "directory": directory, **settings}
        return self.start(settings)

    def start(self, settings):
        self.settings = settings
        probe = self.enterContext(subprocess.Popen(
            [BIN / "tests" / "oauth_probe", *(f"{key}={value}" for key, value in settings.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        self.addCleanup(lambda: probe.poll() is None and probe.kill())
        return probe

    def say(self, probe, command, good=True):
        probe.stdin.write(command + "\n")
        probe.stdin.flush()
        word, _, rest = probe.stdout.readline().strip().partition(" ")
        self.assertEqual(word, "OK" if good else "NO", rest)
        return rest

    def end(self, probe):
        probe.stdin.close()
        errors = probe.stderr.read()
        self.assertEqual(probe.wait(30), 0, errors)
        self.assertNotIn("Sanitizer", errors)

    def test_an_app_signs_in_with_its_secret(self):
        probe = self.probe("secret-app", grant="app", secret_file=self.directory / "secret")
        first = self.say(probe, "get")
        self.assertNotEqual(first, self.say(probe, "fresh"))
        self.end(probe)

    def test_an_app_signs_in_with_its_certificate(self):
        for style in ("ps256", "rs256"):
            with self.subTest(style):
                probe = self.probe(f"{style}-app", grant="app", certificate=self.directory / "one.pem", style=style)
                first = self.say(probe, "get")
                self.assertNotEqual(first, self.say(probe, "fresh"))
                self.end(probe)

    def test_a_wrong_secret_is_refused_in_words(self):
        wrong = self.directory / "wrong"
        wrong.write_text("wrong\n", encoding="ascii")
        wrong.chmod(0o600)
        probe = self.probe("secret-app", grant="app", secret_file=wrong)
        self.assertIn("client_refused: The client id and its secret", self.say(probe, "get", good=False))
        self.end(probe)

    def refresh_and_restart(self, probe):
        """Rotated refresh tokens work once each at this service, also after a restart."""
        seen = {self.say(probe, "get"), self.say(probe, "fresh"), self.say(probe, "fresh")}
        self.end(probe)
        probe = self.start(self.settings)
        seen |= {self.say(probe, "fresh"), self.say(probe, "fresh")}
        self.assertGreaterEqual(len(seen), 4)
        self.end(probe)

    def test_a_person_signs_in_by_device_code(self):
        probe = self.probe("person-app", grant="person", scope="openid offline_access SMTP.Send")
        self.assertIn("login_needed", self.say(probe, "get", good=False))
        code, url = self.say(probe, "device").split()
        page, _ = Browser(self.directory / "ca.pem").submit_all(f"{url}?user_code={urllib.parse.quote(code)}")
        self.assertIn("Sign-in Success", page)
        self.say(probe, "login")
        self.refresh_and_restart(probe)

    def test_a_person_signs_in_in_a_browser(self):
        probe = self.probe("person-app", grant="person", scope="openid offline_access SMTP.Send")
        url = self.say(probe, f"browser {REDIRECT}") + "&prompt=consent"
        _, back = Browser(self.directory / "ca.pem").open(url)
        query = urllib.parse.urlsplit(back).query
        self.assertIn("code=", query)
        self.say(probe, f"redirect {query}")
        self.say(probe, "login")
        self.refresh_and_restart(probe)


if __name__ == "__main__":
    unittest.main()
