"""Mail data as it arrives: the end of data, dot-unstuffing, and facts about the octets."""

import email.parser
import email.utils
import hashlib

FINAL_DOT = b"\r\n.\r\n"
HEAD_KEPT = 256 * 1024


class DotReader:
    """Takes raw octets of DATA, gives unstuffed ones. Only CR LF . CR LF is the end."""

    def __init__(self):
        # The command line's own CR LF counts as the line end before the first octet.
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, octets):
        """Unstuffed octets, and what follows the final dot (None while it has not come)."""
        octets = self._held + octets
        end = octets.find(FINAL_DOT)
        if end >= 0:
            self._held = b""
            return self._unstuffed(octets[:end + 2]), octets[end + len(FINAL_DOT):]
        cut = len(octets) - _length_held(octets)
        self._held = octets[cut:]
        return self._unstuffed(octets[:cut]), None

    def _unstuffed(self, octets):
        octets = octets.replace(b"\r\n.", b"\r\n")
        skipped = min(self._skip, len(octets))
        self._skip -= skipped
        return octets[skipped:]


def _length_held(octets):
    for length in range(len(FINAL_DOT) - 1, 0, -1):
        if octets.endswith(FINAL_DOT[:length]):
            return length
    return 0


class Facts:
    """Counts over the octets of one message, whatever the pieces they come in."""

    def __init__(self):
        self.size = 0
        self.head = bytearray()
        self._hash = hashlib.sha256()
        self._cr = self._lf = self._crlf = 0
        self._ends_in_cr = False
        self._line = 0
        self._longest = 0

    def update(self, octets):
        if not octets:
            return
        self.size += len(octets)
        self._hash.update(octets)
        if len(self.head) < HEAD_KEPT:
            self.head += octets[:HEAD_KEPT - len(self.head)]
        self._count_ends(octets)

    def _count_ends(self, octets):
        self._cr += octets.count(b"\r")
        self._lf += octets.count(b"\n")
        if self._ends_in_cr and octets.startswith(b"\n"):
            self._crlf += 1
            self._longest = max(self._longest, self._line - 1)
            self._line = 0
            octets = octets[1:]
        self._ends_in_cr = octets.endswith(b"\r")
        lines = octets.split(b"\r\n")
        self._crlf += len(lines) - 1
        if len(lines) == 1:
            self._line += len(octets)
            return
        self._longest = max(self._longest, self._line + len(lines[0]),
                            max(map(len, lines[1:-1]), default=0))
        self._line = len(lines[-1])

    def header(self):
        """The header as text, up to the empty line."""
        head = bytes(self.head)
        if head.startswith(b"\r\n"):
            return ""
        return head.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")

    def as_dict(self):
        return {
            "size": self.size,
            "sha256": self._hash.hexdigest(),
            "message_id": message_id(self.header()),
            "bare_lf": self._lf > self._crlf,
            "bare_cr": self._cr > self._crlf,
            "longest_line": max(self._longest, self._line),
        }


def _fields(header):
    return email.parser.HeaderParser().parsestr(header.replace("\r\n", "\n"), headersonly=True)


def message_id(header):
    """The Message-ID field's value, or None."""
    value = _fields(header).get("Message-ID")
    return " ".join(value.split()) if value else None


def from_addresses(header):
    """The addresses of all From fields."""
    fields = _fields(header).get_all("From", [])
    return [address for _, address in email.utils.getaddresses(fields) if address]
