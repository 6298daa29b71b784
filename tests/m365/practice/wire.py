"""A socket with line input, gathered output, STARTTLS, and the ways a connection can end."""

import contextlib
import select
import socket
import ssl
import struct
import time

CHUNK = 256 * 1024
HANDSHAKE_SECONDS = 30.0
DRAIN_SECONDS = 2.0


class Gone(Exception):
    """The peer closed or reset the connection."""


class Idle(Exception):
    """Nothing arrived in time."""


class Line:
    """One line without its end. `too_long` lines were read to their end and thrown away."""

    def __init__(self, octets, bare_lf, too_long):
        self.octets = octets
        self.bare_lf = bare_lf
        self.too_long = too_long


class Wire:
    """Replies are gathered until input runs out, so that a pipelined group is answered at once."""

    def __init__(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._in = bytearray()
        self._out = bytearray()
        self._tls = (None, None)

    # Input

    def has_input(self):
        """True when octets beyond the current line have been read already."""
        return bool(self._in)

    def read_line(self, limit, timeout):
        """The next line; at most `limit` octets with its end, else it is too long."""
        thrown_away = 0
        while (end := self._in.find(b"\n")) < 0:
            if len(self._in) > limit:
                thrown_away += len(self._in)
                self._in.clear()
            self._in += self._receive(timeout)
        octets = bytes(self._in[:end])
        del self._in[:end + 1]
        too_long = thrown_away + end + 1 > limit
        bare_lf = not octets.endswith(b"\r")
        return Line(b"" if too_long else octets.removesuffix(b"\r"), bare_lf, too_long)

    def read_some(self, timeout, most=CHUNK):
        """At least one octet, at most `most`."""
        if not self._in:
            octets = self._receive(timeout)
            if len(octets) <= most:
                return octets
            self._in += octets
        octets = bytes(self._in[:most])
        del self._in[:most]
        return octets

    def push_back(self, octets):
        self._in[:0] = octets

    def wait_for_input(self, seconds):
        """True as soon as there is something to read (or the peer is gone)."""
        self.flush()
        if self._in or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()):
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self, timeout):
        self.flush()
        try:
            self._sock.settimeout(timeout or None)
            octets = self._sock.recv(CHUNK)
        except TimeoutError as error:
            raise Idle from error
        except OSError as error:
            raise Gone(str(error)) from error
        if not octets:
            raise Gone("end of input")
        return octets

    # Output

    def send(self, octets):
        self._out += octets

    def flush(self):
        if not self._out:
            return
        octets = bytes(self._out)
        self._out.clear()
        try:
            self._sock.settimeout(HANDSHAKE_SECONDS)
            self._sock.sendall(octets)
        except OSError as error:
            raise Gone(str(error)) from error

    # TLS

    def start_tls(self, context):
        """Handshake; returns how many octets of clear text had to be thrown away (RFC 3207)."""
        self.flush()
        discarded = len(self._in)
        self._in.clear()
        try:
            self._sock.settimeout(HANDSHAKE_SECONDS)
            self._sock = context.wrap_socket(self._sock, server_side=True)
        except OSError as error:
            raise Gone(f"TLS handshake: {error}") from error
        if self._sock.version() is None:  # the peer had gone: wrap_socket does nothing then
            raise Gone("TLS handshake: end of input")
        self._tls = self._sock.version(), self._sock.cipher()[0]
        return discarded

    def tls_facts(self):
        """Version and cipher, or two times None in the clear."""
        return self._tls

    # Ends

    def hang(self, stopping):
        """Neither reads nor writes until the peer has closed or the server stops."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        while not stopping.is_set():
            if poll.poll(200):
                raise Gone("end of input while hanging")

    def abort(self):
        """Wakes the session's thread from another one: its next call fails."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self._sock.close()

    def reset(self):
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close_politely(self):
        """All that was sent reaches the peer: close_notify, FIN, then input is drained a while."""
        with contextlib.suppress(OSError, ValueError, Gone):
            self.flush()
            self._notify_close()
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            self._drain(time.monotonic() + DRAIN_SECONDS)
        self.close()

    def _notify_close(self):
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(0)
            with contextlib.suppress(OSError):
                self._sock = self._sock.unwrap()

    def _drain(self, deadline):
        self._sock.settimeout(DRAIN_SECONDS)
        while time.monotonic() < deadline and socket.socket.recv(self._sock, CHUNK):
            pass
