"""An OAuth 2.0 server on the loopback, for tests: client credentials, codes, refresh tokens, introspection.

It answers what a test tells it to, keeps what it was asked, and notices requests that overlap. Plain HTTP, which the
relay speaks to the loopback only.
"""

import base64
import contextlib
import http.server
import itertools
import json
import threading
import time
import urllib.parse

SECRET = "secret-value-of-the-application"
CLIENT = "11111111-2222-3333-4444-555555555555"


def jwt(number, **claims):
    """What looks like an access token of Microsoft's; nobody checks its signature."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    usual = {"aud": "https://outlook.office365.com", "appid": CLIENT, "tid": "example.onmicrosoft.com",
             "roles": ["SMTP.SendAsApp"], "iat": int(time.time()), "exp": int(time.time()) + 3600, "number": number}
    return ".".join([part({"alg": "RS256", "typ": "JWT"}), part({**usual, **claims}), "c2lnbmF0dXJl" * 40])


class TokenServer:
    """`on_token(token)` hears each token that is given before it is."""

    def __init__(self, on_token=lambda token: None):
        self.on_token = on_token
        self.life = 3600
        self.claims = {}
        self.error = None  # (status, JSON object) instead of a token
        self.delay = 0
        self.device_pending = 0  # polls before the person is done
        self.active, self.username = True, ""  # what introspection says of a token of ours
        self.requests = []  # the forms
        self.tokens = []
        self.highest_overlap = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._server = None
        self.port = 0

    def start(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def url(self, path="token"):
        return f"http://127.0.0.1:{self.port}/{path}"

    def of(self, grant):
        return [form for form in self.requests if form.get("grant_type", "").endswith(grant)]

    def _handler(self):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
                status, answer = owner.answer(self.path, form)
                body = json.dumps(answer).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def answer(self, path, form):
        if path.endswith("introspect"):
            known = self.active and form.get("token") in self.tokens
            return 200, {"active": True, "username": self.username} if known else {"active": False}
        with self._lock:
            self.requests.append(form)
            self._under_way += 1
            self.highest_overlap = max(self.highest_overlap, self._under_way)
        try:
            time.sleep(self.delay)
            if self.error:
                return self.error
            return self._device() if path.endswith("devicecode") else self._token(form)
        finally:
            with self._lock:
                self._under_way -= 1

    def _device(self):
        return 200, {"device_code": "device-code-" + "d" * 60, "user_code": "ABCD-EFGH", "expires_in": 900,
                     "interval": 1, "verification_uri": "https://login.example/device",
                     "message": "To sign in, open the page."}

    def _token(self, form):
        if form.get("grant_type", "").endswith("device_code") and self.device_pending > 0:
            self.device_pending -= 1
            return 400, {"error": "authorization_pending", "error_description": "not yet"}
        if form.get("grant_type") == "client_credentials" and form.get("client_secret") != SECRET:
            return 401, {"error": "invalid_client", "error_codes": [7000215], "trace_id": "trace-1",
                         "correlation_id": "correlation-1",
                         "error_description": "AADSTS7000215: Invalid client secret provided."}
        number = next(self._numbers)
        token = jwt(number, **self.claims)
        self.tokens.append(token)
        self.on_token(token)
        answer = {"token_type": "Bearer", "expires_in": self.life, "access_token": token}
        if form.get("grant_type") != "client_credentials":
            answer["refresh_token"] = f"refresh-{number}-" + "r" * 60
        return 200, answer
