#!/usr/bin/env python3
"""A token service for tests: OAuth 2.0 over HTTPS on the loopback, with a certificate of its own authority.

    tests/oauth/oauth.py --directory DIR [--certificate PEM]

Prints one line of JSON when it is ready (url, ca_file, proxy) and serves until its standard input ends. The proxy is a
plain one for CONNECT, which wants a login when its setting "proxy_login" is one (USER:PASSWORD). It speaks client credentials
(secret, or private_key_jwt with PS256 or RS256), refresh tokens with rotation, device codes (RFC 8628), codes with
PKCE (RFC 7636) and JWT bearer requests; assertions are verified by the openssl command.

/control changes it: POST a JSON object of settings to be changed; "rules" is a new list, and each of the next
requests is answered by the first of them instead, until it was used "times" (1) times:
    {"status": 503, "headers": {"Retry-After": "7"}, "body": "...", "json": {...}, "delay": 2.0, "drop": true}
GET /control tells settings, rules left, and every request: its path, form (secrets included) and time.
"""

import argparse
import base64
import contextlib
import email.utils
import hashlib
import http.server
import itertools
import json
import pathlib
import secrets
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLOCK_SLACK = 300
DEFAULTS = {
    "client_id": "11111111-2222-3333-4444-555555555555",
    "secret": "practice secret/+&=%",  # "" = a public client
    "life": 3600,
    "expires_as_text": False,
    "rotate": True,
    "refresh": True,  # whether a person's sign-in gets a refresh token
    "clock_ahead": 0,  # seconds of this service's clock before the machine's
    "device_pending": 1,  # questions that are answered with authorization_pending
    "device_slow_down": 0,  # and so many with slow_down before
    "interval": 1,
    "device_life": 900,
    "device_answer": "",  # an error that ends the device flow
    "token_pad": 0,  # octets that make tokens longer
    "proxy_login": "",
}


class Refused(Exception):
    """An OAuth error on its way to the client."""

    def __init__(self, error, number=0, text="refused", status=400):
        super().__init__(error)
        self.error, self.number, self.text, self.status = error, number, text, status


def run(*command, data=None):
    return subprocess.run(command, input=data, capture_output=True, check=True)


def make_authority(directory):
    """ca.pem, and server.pem with server.key for localhost and 127.0.0.1."""
    d = pathlib.Path(directory)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=Practice authority",
        "-keyout", d / "ca.key", "-out", d / "ca.pem")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", d / "server.key",
        "-out", d / "server.csr")
    (d / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="ascii")
    run("openssl", "x509", "-req", "-in", d / "server.csr", "-CA", d / "ca.pem", "-CAkey", d / "ca.key",
        "-CAcreateserial", "-days", "30", "-extfile", d / "server.ext", "-out", d / "server.pem")


def unpack(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def pack(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature_is_good(token, algorithm, certificate):
    """As the openssl command finds."""
    signed, _, signature = token.rpartition(".")
    options = []
    if algorithm == "PS256":
        options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"]
    with tempfile.TemporaryDirectory() as directory:
        d = pathlib.Path(directory)
        (d / "public").write_bytes(run("openssl", "x509", "-in", certificate, "-noout", "-pubkey").stdout)
        (d / "signature").write_bytes(unpack(signature))
        result = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", d / "public", "-signature", d / "signature", *options],
            input=signed.encode(), capture_output=True, check=False)
        return result.returncode == 0


def thumbprint(certificate, algorithm):
    der = run("openssl", "x509", "-in", certificate, "-outform", "DER").stdout
    return pack((hashlib.sha256 if algorithm == "PS256" else hashlib.sha1)(der).digest())


class State:
    """What the service knows; one lock guards it."""

    def __init__(self, certificate):
        self.lock = threading.Lock()
        self.settings = dict(DEFAULTS)
        self.certificate = certificate
        self.rules = []
        self.requests = []
        self.refresh_tokens = {}
        self.codes = {}
        self.devices = {}
        self.access_tokens = {}
        self.assertions = set()
        self.under_way = self.most_at_a_time = self.proxied = 0
        self.numbers = itertools.count(1)

    def now(self):
        return time.time() + self.settings["clock_ahead"]

    def check_times(self, claims):
        now = self.now()
        if not claims.get("nbf", claims["iat"]) - CLOCK_SLACK <= now <= claims["exp"]:
            raise Refused("invalid_client", 700024, "Client assertion is not within its valid time range.", 401)

    def check_assertion(self, form, url):
        token = form["client_assertion"]
        header, claims = (json.loads(unpack(part)) for part in token.split(".")[:2])
        algorithm = header["alg"]
        name = {"PS256": "x5t#S256", "RS256": "x5t"}[algorithm]
        if form.get("client_assertion_type") != ASSERTION_TYPE or header.get("typ") != "JWT":
            raise Refused("invalid_request", 0, "not an assertion")
        if not self.certificate or header[name] != thumbprint(self.certificate, algorithm):
            raise Refused("invalid_client", 700027, "the certificate is not registered", 401)
        if not signature_is_good(token, algorithm, self.certificate):
            raise Refused("invalid_client", 700027, "the signature is wrong", 401)
        self.check_times(claims)
        wanted = self.settings["client_id"]
        if claims["iss"] != wanted or claims["sub"] != wanted or claims["aud"] != url:
            raise Refused("invalid_client", 50012, "iss, sub or aud is wrong", 401)
        if claims["jti"] in self.assertions:
            raise Refused("invalid_client", 0, "this assertion was used before", 401)
        self.assertions.add(claims["jti"])

    def check_client(self, form, url):
        if form.get("client_id") != self.settings["client_id"]:
            raise Refused("unauthorized_client", 700016, "no such application")
        if "client_assertion" in form:
            self.check_assertion(form, url)
        elif self.settings["secret"] != form.get("client_secret", ""):
            number = 7000215 if "client_secret" in form else 7000218
            raise Refused("invalid_client", number, f"AADSTS{number}: the client secret is wrong or missing", 401)

    def token(self, form, person=False):
        life = self.settings["life"]
        number = next(self.numbers)
        claims = {"aud": "https://outlook.office.com", "appid": form.get("client_id", ""), "tid": "practice",
                  "iat": int(self.now()), "exp": int(self.now()) + life, "jti": number,
                  "pad": "x" * self.settings["token_pad"]}
        claims.update({"scp": "SMTP.Send", "upn": "scanner@office.test"} if person else {"roles": ["SMTP.SendAsApp"]})
        access = ".".join([pack(b'{"alg":"none"}'), pack(json.dumps(claims).encode()), pack(secrets.token_bytes(16))])
        self.access_tokens[access] = self.now() + life
        answer = {"token_type": "Bearer", "access_token": access,
                  "expires_in": str(life) if self.settings["expires_as_text"] else life}
        if person and self.settings["refresh"]:
            answer["refresh_token"] = f"refresh-{number}-{secrets.token_hex(16)}"
            self.refresh_tokens[answer["refresh_token"]] = True
        return answer

    def by_refresh(self, form):
        old = form.get("refresh_token", "")
        if not self.refresh_tokens.get(old):
            raise Refused("invalid_grant", 700082, "AADSTS700082: The refresh token has expired.")
        answer = self.token(form, person=True)
        if self.settings["rotate"]:
            self.refresh_tokens[old] = False
        else:
            self.refresh_tokens.pop(answer.pop("refresh_token", ""), None)
        return answer

    def by_device(self, form):
        device = self.devices.get(form.get("device_code", ""))
        if device is None:
            raise Refused("bad_verification_code", 70018)
        if self.settings["device_answer"]:
            raise Refused(self.settings["device_answer"])
        device["polls"] += 1
        if device["polls"] <= self.settings["device_slow_down"]:
            raise Refused("slow_down")
        if device["polls"] <= self.settings["device_slow_down"] + self.settings["device_pending"]:
            raise Refused("authorization_pending", 70016)
        return self.token(form, person=True)

    def by_code(self, form):
        wanted = self.codes.pop(form.get("code", ""), None)
        if wanted is None:
            raise Refused("invalid_grant", 54005)
        challenge = pack(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if challenge != wanted["code_challenge"] or form.get("redirect_uri") != wanted["redirect_uri"]:
            raise Refused("invalid_grant", 501481)
        return self.token(form, person=True)

    def by_service_account(self, form, url):
        token = form["assertion"]
        header, claims = (json.loads(unpack(part)) for part in token.split(".")[:2])
        if header["alg"] != "RS256" or not signature_is_good(token, "RS256", self.certificate):
            raise Refused("invalid_grant", 0, "Invalid JWT Signature.")
        if claims["aud"] != url or not claims["sub"] or claims["exp"] - claims["iat"] > 3600:
            raise Refused("invalid_grant", 0, "Invalid JWT")
        if not claims["iat"] - CLOCK_SLACK <= self.now() <= claims["exp"]:
            raise Refused("invalid_grant", 0, "Invalid JWT: Token must be a short-lived token (60 minutes)")
        return self.token(form)

    def grant(self, form, url):
        kind = form.get("grant_type")
        if kind == JWT_BEARER_GRANT:
            return self.by_service_account(form, url)
        self.check_client(form, url)
        if kind == "client_credentials":
            return self.token(form)
        if kind == "refresh_token":
            return self.by_refresh(form)
        if kind == DEVICE_GRANT:
            return self.by_device(form)
        if kind == "authorization_code":
            return self.by_code(form)
        raise Refused("unsupported_grant_type")

    def device(self, form, url):
        self.check_client(form, url)
        code = secrets.token_hex(32)
        self.devices[code] = {"polls": 0}
        return {"device_code": code, "user_code": "PRACTICE1", "verification_uri": "https://localhost/device",
                "expires_in": self.settings["device_life"], "interval": self.settings["interval"],
                "message": "Open https://localhost/device and enter PRACTICE1."}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; the state is the server's."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass

    def date_time_string(self, timestamp=None):
        return email.utils.formatdate(timestamp or self.server.state.now(), usegmt=True)

    def answer(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        names = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
        for name, value in {**names, **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def refuse(self, refusal):
        body = {"error": refusal.error, "error_description": refusal.text, "trace_id": "trace-1",
                "correlation_id": "correlation-1"}
        if refusal.number:
            body["error_codes"] = [refusal.number]
            body["error_description"] = f"AADSTS{refusal.number}: {refusal.text} Trace ID: trace-1"
        self.answer(refusal.status, body)

    def by_rule(self, rule):
        time.sleep(rule.get("delay", 0))
        if rule.get("drop"):
            self.close_connection = True
            return True
        if "status" not in rule:
            return False
        body = json.dumps(rule["json"]).encode() if "json" in rule else rule.get("body", "").encode()
        self.answer(rule["status"], body, rule.get("headers", {}))
        return True

    def take_rule(self):
        state = self.server.state
        with state.lock:
            if not state.rules:
                return None
            rule = state.rules[0]
            rule["times"] = rule.get("times", 1) - 1
            if rule["times"] <= 0:
                state.rules.pop(0)
            return rule

    def control(self, change):
        state = self.server.state
        with state.lock:
            state.rules[:] = change.pop("rules", state.rules)
            state.settings.update(change)
            if change.pop("forget", False):
                state.requests.clear()
            self.answer(200, {"settings": state.settings, "rules": state.rules, "requests": state.requests,
                              "most_at_a_time": state.most_at_a_time, "proxied": state.proxied})

    def serve_form(self, form):
        state = self.server.state
        path = urllib.parse.urlsplit(self.path).path
        with state.lock:
            state.requests.append({"path": path, "form": form, "at": time.time()})
        rule = self.take_rule()
        if rule is not None and self.by_rule(rule):
            return
        url = self.server.url + path
        try:
            with state.lock:
                answer = state.device(form, url) if path.endswith("devicecode") else state.grant(form, url)
            self.answer(200, answer)
        except Refused as refusal:
            self.refuse(refusal)

    def do_POST(self):  # pylint: disable=invalid-name
        state = self.server.state
        data = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        if self.path == "/control":
            self.control(json.loads(data))
            return
        with state.lock:
            state.under_way += 1
            state.most_at_a_time = max(state.most_at_a_time, state.under_way)
        try:
            self.serve_form({key: values[0] for key, values in
                             urllib.parse.parse_qs(data, keep_blank_values=True, strict_parsing=True).items()})
        finally:
            with state.lock:
                state.under_way -= 1

    def introspect(self):
        state = self.server.state
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if state.access_tokens.get(token, 0) <= state.now():
            self.answer(401, {"active": False})
            return
        self.answer(200, {"active": True, "username": "scanner@office.test", "email": "scanner@office.test"})

    def authorize(self, query):
        """The person in the browser says yes."""
        state = self.server.state
        code = secrets.token_hex(16)
        state.codes[code] = query
        back = urllib.parse.urlencode({"code": code, "state": query["state"]})
        self.answer(302, b"", {"Location": f"{query['redirect_uri']}?{back}"})

    def do_GET(self):  # pylint: disable=invalid-name
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/control":
            self.control({})
        elif parts.path.endswith("authorize"):
            self.authorize(dict(urllib.parse.parse_qsl(parts.query)))
        elif parts.path.endswith("introspect"):
            self.introspect()
        else:
            self.answer(404, b"<html>not found</html>", {"Content-Type": "text/html"})


class Server(http.server.ThreadingHTTPServer):
    """A handshake that fails or hangs is its own thread's trouble."""

    daemon_threads = True
    request_queue_size = 64
    tls = state = url = None

    def finish_request(self, request, client_address):
        with contextlib.suppress(OSError):
            request.settimeout(30)
            super().finish_request(self.tls.wrap_socket(request, server_side=True), client_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Proxy(socketserver.StreamRequestHandler):
    """CONNECT, and nothing else."""

    def handle(self):
        state = self.server.state
        target = self.rfile.readline().split()[1].decode().rpartition(":")
        headers = {}
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        login = state.settings["proxy_login"]
        if login and headers.get("proxy-authorization") != "Basic " + base64.b64encode(login.encode()).decode():
            self.wfile.write(b"HTTP/1.1 407 Authentication required\r\nContent-Length: 0\r\n\r\n")
            return
        state.proxied += 1
        with socket.create_connection((target[0], int(target[2]))) as upstream:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self.copy, args=(upstream, self.connection), daemon=True)
            back.start()
            self.copy(self.connection, upstream)
            back.join()

    @staticmethod
    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class ProxyServer(socketserver.ThreadingTCPServer):
    """Beside the service."""

    daemon_threads = allow_reuse_address = True
    state = None


def make_server(directory, certificate="", address="127.0.0.1"):
    """Listens; call serve_forever()."""
    make_authority(directory)
    server = Server((address, 0), Handler)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(pathlib.Path(directory, "server.pem"), pathlib.Path(directory, "server.key"))
    server.state = State(certificate)
    server.url = f"https://{address}:{server.server_address[1]}"
    return server


class OAuthServer:
    """The service in a thread of this process; a context manager."""

    def __init__(self, directory, certificate=""):
        self.server = make_server(directory, certificate)
        self.state = self.server.state
        self.url = self.server.url
        self.ca_file = str(pathlib.Path(directory, "ca.pem"))
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def set(self, **settings):
        with self.state.lock:
            self.state.settings.update(settings)

    def rule(self, **rule):
        with self.state.lock:
            self.state.rules.append(rule)

    def requests(self):
        with self.state.lock:
            return list(self.state.requests)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True, help="for its keys and certificates")
    parser.add_argument("--certificate", default="", help="the application's, as registered")
    options = parser.parse_args()
    server = make_server(options.directory, options.certificate)
    proxy = ProxyServer(("127.0.0.1", 0), Proxy)
    proxy.state = server.state
    for each in (server, proxy):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    print(json.dumps({"url": server.url, "ca_file": str(pathlib.Path(options.directory, "ca.pem")),
                      "proxy": f"http://127.0.0.1:{proxy.server_address[1]}"}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
