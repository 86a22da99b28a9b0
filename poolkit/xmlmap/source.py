"""A document's bytes: where things are in them, and pieces of them kept verbatim.

The reader remembers byte offsets only; lines, columns and the places of attributes are worked out when they are told.
"""

from __future__ import annotations

from ..lean import pattern

_FIRST = 1 << 16  # bytes of a document in which its root begins, or it is not seen
# What was passed over is not tried in other parts: of n blanks there would be 2**n.
_ROOT = pattern(rb"(?s:(?:\xef\xbb\xbf)?(?>\s+|<\?.*?\?>|<!--.*?-->)*+<([A-Za-z_][\w.:-]*))")


def root(data: bytes) -> tuple[str, int]:
    """The name of a document's root element, and the offset of its tag; an empty name where that cannot be seen.

    For choosing what reads it: comments and processing instructions may come first, and whatever is odd is the reader's to judge.
    """
    found = _ROOT.match(data[:_FIRST])
    return (found[1].decode(), found.start(1) - 1) if found else ("", 0)


class Source:
    """The bytes of one document, known to be UTF-8."""

    __slots__ = ("data", "first")

    def __init__(self, data: bytes, first: tuple[int, int] = (1, 1)) -> None:
        self.data = data
        self.first = first
        """Line and column of the first byte, where the document is a part of a file."""

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of a byte; columns count characters."""
        start = self.data.rfind(b"\n", 0, offset) + 1
        text = self.data[start:offset].decode("utf-8", "replace")
        line, column = self.first
        if start:
            return self.data.count(b"\n", 0, start) + line, len(text) + 1
        return line, len(text.lstrip("\ufeff")) + column

    def tag_end(self, offset: int) -> int:
        """The offset after the ``>`` of the tag that starts at ``offset``."""
        data, quote, at = self.data, 0, offset
        end = len(data)
        while at < end:
            byte = data[at]
            if quote:
                quote = 0 if byte == quote else quote
            elif byte in (34, 39):
                quote = byte
            elif byte == 62:
                return at + 1
            at += 1
        return end

    def attribute_place(self, offset: int, name: str) -> int:
        """The offset of an attribute's name inside the tag that starts at ``offset``."""
        import re

        tag = self.data[offset : self.tag_end(offset)]
        for match in re.finditer(rb"""([^\s=<'"/]+)\s*=\s*("[^"]*"|'[^']*')""", tag):
            if match[1] == name.encode():
                return offset + match.start(1)
        return offset

    def text_place(self, offset: int) -> int:
        """The offset of the first character of an element's text that is not blank."""
        at = end = self.tag_end(offset)
        while at < len(self.data) and self.data[at] in b" \t\r\n":
            at += 1
        return at if self.data[at : at + 1] != b"<" else end

    def fragment(self, start: int, last: int, outside: dict[str, str]) -> str:
        """A kept element as it stands in the document, with the prefixes it needs declared on it."""
        head = self.tag_end(start)
        empty = self.data[head - 2] == ord("/")  # <a/> is its own end
        text = self.data[start : head if empty else self.tag_end(last)].decode()
        if outside:
            at = 1
            while text[at] not in " \t\r\n/>":
                at += 1
            declared = "".join(
                f" xmlns:{prefix}={_attribute(uri)}" for prefix, uri in sorted(outside.items()) if prefix
            )
            text = text[:at] + declared + text[at:]
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _attribute(text: str) -> str:
    return "'" + text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;") + "'"
