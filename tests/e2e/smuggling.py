"""Mail data that some server somewhere would take for two messages, and who hands it in.

Each variant stands where an attacker puts a false end of data; behind it come commands and a second message, as one
write. A relay that passes any of it on as it came lends its name to the second message.
"""

from harness import PRINTER, RECIPIENT, Device, expect, message

FORGED, VICTIM = "forged@office.test", "victim@office.test"
# By what they hope for. CR CR LF . CR LF is not here: it contains the one true end of data.
VARIANTS = {
    # A server that takes a lone LF or CR for a line end, on one side of the dot or on both.
    "LF . LF": b"\n.\n",
    "LF . CR": b"\n.\r",
    "LF . CR LF": b"\n.\r\n",
    "CR . CR": b"\r.\r",
    "CR . LF": b"\r.\n",
    "CR . CR LF": b"\r.\r\n",
    "CR LF . LF": b"\r\n.\n",
    "CR LF . CR": b"\r\n.\r",
    "LF LF . CR LF": b"\n\n.\r\n",
    "LF CR . LF CR": b"\n\r.\n\r",
    # A server that takes any number of CR before the LF for one line end, or for none.
    "CR CR LF . CR CR LF": b"\r\r\n.\r\r\n",
    "LF . CR CR LF": b"\n.\r\r\n",
    "CR LF . CR CR LF": b"\r\n.\r\r\n",
    "CR CR LF . LF": b"\r\r\n.\n",
    "CR CR LF . CR": b"\r\r\n.\r",
    # A server, or a filter in front of it, that drops NUL octets, or ends a string at one.
    "CR LF NUL . CR LF": b"\r\n\0.\r\n",
    "CR LF . NUL CR LF": b"\r\n.\0\r\n",
    "CR LF . CR NUL LF": b"\r\n.\r\0\n",
    "CR NUL LF . CR LF": b"\r\0\n.\r\n",
    "CR LF NUL . CR": b"\r\n\0.\r",
    "CR LF NUL . LF": b"\r\n\0.\n",
    # A server that unstuffs twice, or not where it should.
    "CR LF . . CR LF": b"\r\n..\r\n",
    "LF . . CR LF": b"\n..\r\n",
    "LF . . LF": b"\n..\n",
    "CR LF . . . CR LF": b"\r\n...\r\n",
    "CR LF . . CR": b"\r\n..\r",
    # A server that trims lines, knows more line ends than there are, or looks at seven bits only.
    "CR LF . blank CR LF": b"\r\n. \r\n",
    "CR LF . tab CR LF": b"\r\n.\t\r\n",
    "CR LF blank . CR LF": b"\r\n .\r\n",
    "VT . VT": b"\x0b.\x0b",
    "FF . FF": b"\x0c.\x0c",
    "next line, in Latin-1": b"\x85.\x85",
    "next line, in UTF-8": b"\xc2\x85.\xc2\x85",
    "line separator, in UTF-8": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "CR LF . CR LF with the eighth bit": b"\x8d\x8a\xae\x8d\x8a",
    "CR LF . at the end of a write": b"\r\n.",
}
# Only where octets are counted: the true end of data means nothing there.
COUNTED = {"CR LF . CR LF": b"\r\n.\r\n", "CR CR LF . CR LF": b"\r\r\n.\r\n"}


def forged(mark):
    """What follows a false end of data."""
    return (f"MAIL FROM:<{FORGED}>\r\nRCPT TO:<{VICTIM}>\r\nDATA\r\nFrom: <{FORGED}>\r\nTo: <{VICTIM}>\r\n"
            f"Subject: smuggled\r\n\r\nsmuggled {mark}\r\n").encode()


def with_variant(variant, mark, padding=0):
    """A message whose body has it, behind so many octets more."""
    filler = b"".join(b"y" * 76 + b"\r\n" for _ in range(padding // 78))
    return message(subject=str(mark), body=filler + b"before" + variant + forged(mark))


def with_variant_in_the_header(variant, mark):
    """The second message has no header of its own here: its fields would end ours."""
    field = b"X-Scanner: three"
    return message(subject=str(mark), extra=[field.decode(), "X-Room: four"]).replace(
        field, field + variant + forged(mark).replace(b"\r\n\r\n", b"\r\n"))


class Attacker(Device):
    """Says everything at once and counts the answers."""

    def hand_in(self, octets, transport="DATA"):
        """The answer to the mail data."""
        envelope = f"MAIL FROM:<{PRINTER}> BODY=8BITMIME\r\nRCPT TO:<{RECIPIENT}>\r\n".encode()
        if transport == "DATA":
            self.send(envelope + b"DATA\r\n" + octets + b"\r\n.\r\n")
            codes = (250, 250, 354, 250)
        else:
            half = octets.index(b"before") + len(b"before") + 2  # within the variant
            chunks = (octets[:half], octets[half:], b"")
            self.send(envelope + b"".join(f"BDAT {len(chunk)}{' LAST' if not chunk else ''}\r\n".encode() + chunk
                                          for chunk in chunks))
            codes = (250, 250, 250, 250, 250)
        for code in codes[:-1]:
            expect(self.getreply(), code)
        final = self.getreply()
        self.send(b"HELP\r\n")
        expect(self.getreply(), 214)
        return final
