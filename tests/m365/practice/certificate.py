"""A small CA and server certificates, good and bad, made with the openssl command."""

import ipaddress
import pathlib
import secrets
import subprocess
import typing

DEFAULT_NAMES = ("localhost", "smtp.office365.test", "127.0.0.1", "::1")
WRONG_NAMES = ("somebody-else.test",)
KINDS = ("good", "wrong-name", "expired", "untrusted")

CONFIG = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = {subject}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(typing.NamedTuple):
    """What a server presents (chain and key) and what a client is to trust (ca)."""

    ca: pathlib.Path
    chain: pathlib.Path
    key: pathlib.Path


def make(directory, names=DEFAULT_NAMES, kind="good"):
    """A certificate of the given kind in the directory; ca.pem there is made once and kept."""
    if kind not in KINDS:
        raise ValueError(f"no certificate is called {kind!r}; there are {', '.join(KINDS)}")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    trusted = _authority(directory, "ca")
    issuer = _authority(directory, "other-ca") if kind == "untrusted" else trusted
    names = WRONG_NAMES if kind == "wrong-name" else names
    chain, key = _issue(directory, kind, names, issuer, days=-1 if kind == "expired" else 825)
    return Certificate(trusted, chain, key)


def _authority(directory, name):
    path = directory / f"{name}.pem"
    if not path.exists():
        config = _config(directory / f"{name}.cnf", f"Practice upstream {name}", "DNS:unused")
        _openssl("req", "-x509", "-config", config, "-extensions", "ca", *NEW_KEY, "-days", "3650",
                 "-keyout", path.with_suffix(".key"), "-out", path)
    return path


def _issue(directory, stem, names, issuer, days):
    chain, key = directory / f"{stem}.pem", directory / f"{stem}.key"
    request = directory / f"{stem}.csr"
    config = _config(directory / f"{stem}.cnf", names[0], ", ".join(map(_alternative_name, names)))
    _openssl("req", "-new", "-config", config, *NEW_KEY, "-keyout", key, "-out", request)
    _openssl("x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer.with_suffix(".key"),
             "-set_serial", f"0x{secrets.token_hex(16)}", "-days", str(days),
             "-extfile", config, "-extensions", "server", "-out", chain)
    return chain, key


def _config(path, subject, names):
    path.write_text(CONFIG.format(subject=subject, names=names), encoding="ascii")
    return path


def _alternative_name(name):
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
