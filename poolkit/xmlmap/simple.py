"""The simple types: how a text becomes a value and back, said once for the reader, the writer and both schemas.

A type is a regular expression (in the part of the language that Python and XML Schema share), white space collapsed or kept, an
integer range or a list of words. ``expected`` is what an error message asks for.
"""

from __future__ import annotations

from .. import units
from ..lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# Control characters have no place in a name or path of a definition: they would reach terminals and logs.
CONTROL = "\t\n\r\x7f-\x9f"
_PYTHON_CONTROL = "\x00-\x1f\x7f-\x9f"  # as _has_control has it
BLANK = " \t\r\n"  # XML's white space, which is less than Python's


class Simple:
    """One simple type. ``words`` and ``low``/``high`` narrow ``pattern``; an empty pattern with words means the words.

    ``surely`` tells a text that fits the pattern for certain, as nearly every one does, without a regular expression: loading
    ``re`` and compiling some takes longer than reading a document. Where it says no, the pattern decides.
    """

    __slots__ = ("_match", "collapse", "expected", "form", "high", "low", "name", "pattern", "surely", "to", "words")

    def __init__(
        self,
        name: str,
        *,
        pattern: str = "",
        expected: str = "",
        words: tuple[str, ...] = (),
        low: int | None = None,
        high: int | None = None,
        collapse: bool = True,
        to: Callable[[str], Any] | None = None,
        form: Callable[[Any], str] | None = None,
        surely: Callable[[str], bool] | None = None,
    ) -> None:
        self.name, self.pattern, self.expected, self.words = name, pattern, expected, words
        self.low, self.high, self.collapse = low, high, collapse
        self.to, self.form, self.surely = to, form, surely
        self._match: Callable[[str], object] | None = None
        if words and not expected:
            self.expected = "one of " + ", ".join(words)

    def parse(self, text: str) -> Any:
        """The value of ``text``; raises ``ValueError`` whose text continues a quoted value: ``is not ...``."""
        if self.collapse:
            text = text.strip(BLANK)
        if self.words:
            if text not in self.words:
                raise ValueError(f"is not {self.expected}")
        elif self.surely is None or not self.surely(text):
            if self._match is None:
                import re

                self._match = re.compile(self.pattern.replace(CONTROL, _PYTHON_CONTROL)).fullmatch
            if self._match(text) is None:
                if CONTROL in self.pattern and "control" not in self.expected and _has_control(text):
                    raise ValueError(f"is not {self.expected}: it has a control character, such as a newline")
                raise ValueError(f"is not {self.expected}")
        if self.low is not None and len(text.lstrip("+-0")) > 20:  # more digits than 2^64 has; int() is slow then
            raise ValueError(f"is not {self.expected}")
        value: Any = text if self.to is None else self.to(text)
        if value is not None and (
            (self.low is not None and value < self.low) or (self.high is not None and value > self.high)
        ):
            raise ValueError(f"is not {self.expected}")
        return value


def _has_control(text: str) -> bool:
    return any(c < " " or "\x7f" <= c <= "\x9f" for c in text)


def _is_plain(text: str) -> bool:
    return text.isprintable() and text.strip(" ") != ""


def _is_plain_name(text: str) -> bool:
    return text.isprintable() and text[:1] not in (" ", ".", "") and "/" not in text


def _is_plain_path(text: str) -> bool:
    return text[:1] == "/" and text.isprintable()


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_plain_mode(text: str) -> bool:
    return len(text) == 4 and text[0] == "0" and not text.strip("01234567")


def _is_plain_uuid(text: str) -> bool:
    return [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12] and not text.strip("0123456789abcdef-")


def choice(*words: str) -> Simple:
    """One of ``words``."""
    return Simple("choice", words=words)


def _clean_path(text: str) -> str:
    """Repeated and trailing slashes removed as libvirt does: a leading ``//`` has a meaning of its own in POSIX.

    An address (``gluster://host/volume``) stays as it is: its slashes are no path's (RFC 3986).
    """
    if "://" in text:
        return text
    lead = "//" if text.startswith("//") and not text.startswith("///") else "/" if text.startswith("/") else ""
    return lead + "/".join(part for part in text.split("/") if part) if text.strip("/") else lead


def _octal(text: str) -> int:
    return int(text, 8)


def _owner(text: str) -> int | None:
    number = int(text)
    return None if number in (-1, 2**32 - 1) else number


def _uuid(text: str) -> str:
    digits = "".join(c for c in text.lower() if c in "0123456789abcdef")
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _number(text: str) -> int:
    """Decimal, or hexadecimal with ``0x``; a leading zero is octal in libvirt's PCI addresses."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text, 8) if len(text) > 1 and text[0] == "0" else int(text)


Text = Simple(
    "text",
    pattern=f" *[^ {CONTROL}][^{CONTROL}]*",
    expected="a text without control characters",
    collapse=False,
    surely=_is_plain,
)
Free = Simple("free", pattern=f"[ \t\n\r]*[^ {CONTROL}][^\x7f-\x9f]*", expected="a text", collapse=False)
Name = Simple(
    "name",
    pattern=f" *[^ /{CONTROL}][^/{CONTROL}]*",
    expected="a name (no '/', no control characters)",
    collapse=False,
    surely=_is_plain_name,
)
Dataset = Simple(
    "dataset",
    pattern=f" *[^ /{CONTROL}][^/{CONTROL}]*(/ *[^ /{CONTROL}][^/{CONTROL}]*)*",
    expected="a ZFS pool or dataset (names with '/' between them, no control characters)",
    collapse=False,
)
VolumeName = Simple(
    "volumeName",
    # Not "." and not "..": another first character, or a dot and something else, or two dots and something more.
    pattern="|".join(
        (
            f"( +[^ /{CONTROL}][^/{CONTROL}]*)",
            f"([^ ./{CONTROL}][^/{CONTROL}]*)",
            f"([.][^./{CONTROL}][^/{CONTROL}]*)",
            f"([.][.][^/{CONTROL}]+)",
        )
    ),
    expected="a file name (no '/', no control characters, not '.' or '..')",
    collapse=False,
    surely=_is_plain_name,
)
AbsPath = Simple(
    "absPath",
    pattern=f"/[^{CONTROL}]*",
    expected="an absolute path (it starts with '/')",
    collapse=False,
    to=_clean_path,
    surely=_is_plain_path,
)
Path = Simple(
    "path",
    pattern=f" *[^ {CONTROL}][^{CONTROL}]*",
    expected="a path",
    collapse=False,
    to=_clean_path,
    surely=_is_plain,
)
UInt = Simple(
    "uint", pattern=r"\+?[0-9]+", low=0, high=2**32 - 1, expected="a whole number from 0 to 4294967295", to=int,
    surely=_is_digits,
)  # fmt: skip
ULong = Simple(
    "ulong", pattern=r"\+?[0-9]+", low=0, high=units.LIMIT, expected="a whole number below 2^64", to=int,
    surely=_is_digits,
)  # fmt: skip
Size = Simple(
    "size", pattern=r"\+?[0-9]+", low=0, high=units.LIMIT, expected="a size: a whole number below 2^64", to=int,
    surely=_is_digits,
)  # fmt: skip
_UNITS = frozenset({"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})  # as they are mostly written
Unit = Simple(
    "unit",
    pattern="([bB]([yY][tT][eE][sS]?)?)?|([kKmMgGtTpPeE]([iI]?[bB])?)",
    expected="a unit: bytes, KiB, MiB, GiB, TiB, PiB, EiB or KB, MB, GB, TB, PB, EB",
    surely=_UNITS.__contains__,
)
Port = Simple("port", pattern=r"-?[0-9]+", low=-1, high=65535, expected="a port from -1 to 65535", to=int)
Mode = Simple(
    "mode",
    pattern=r"\+?0*[0-7]{1,3}",
    expected="an octal mode from 0 to 0777",
    to=_octal,
    form=lambda value: f"0{value:o}",
    surely=_is_plain_mode,
)
Owner = Simple(
    "owner",
    pattern=r"-1|(\+?[0-9]+)",
    low=-1,
    high=2**32 - 1,
    expected="a numeric user or group id, or -1 for none",
    to=_owner,
    surely=_is_digits,
)
Uuid = Simple(
    "uuid",
    pattern=r"([ \-]*[0-9a-fA-F]{2}){16}",
    expected="a UUID (32 hexadecimal digits)",
    to=_uuid,
    surely=_is_plain_uuid,
)
YesNo = Simple("yesNo", words=("yes", "no"), to=lambda text: text == "yes", form=lambda value: "yes" if value else "no")
Stamp = Simple("timestamp", pattern=r"[0-9]+(\.[0-9]{1,9})?", expected="seconds with up to nine decimals")
Host = Simple("host", pattern=f"[^ /{CONTROL}]+", expected="a host name or address", collapse=False)
Iqn = Simple("iqn", pattern=f"[^ {CONTROL}]+", expected="an iSCSI qualified name", collapse=False)
Wwn = Simple("wwn", pattern="(0x)?[0-9a-fA-F]{16}", expected="a world wide name (16 hexadecimal digits)")
Word = Simple("word", pattern=r"[A-Za-z0-9_.:+\-]+", expected="a word (letters, digits, . _ : + -)")
Domain = Simple(
    "pciDomain",
    pattern="(0[xX][0-9a-fA-F]{1,4})|(0[0-7]{0,5})|([1-9][0-9]{0,3})",
    expected="a PCI domain, such as 0x0000",
    to=_number,
    form=lambda value: f"0x{value:04x}",
)
Bus = Simple(
    "pciBus",
    pattern="(0[xX][0-9a-fA-F]{1,2})|(0[0-7]{0,2})|(0[0-3][0-7]{2})|([1-9][0-9]?)|(1[0-9]{2})|(2[0-4][0-9])|(25[0-5])",
    expected="a PCI bus from 0x00 to 0xff",
    to=_number,
    form=lambda value: f"0x{value:02x}",
)
Slot = Simple(
    "pciSlot",
    pattern="(0[xX][01]?[0-9a-fA-F])|(0[0-7]?)|(0[0-3][0-7])|([1-9])|([12][0-9])|(3[01])",
    expected="a PCI slot from 0x00 to 0x1f",
    to=_number,
    form=lambda value: f"0x{value:02x}",
)
Function = Simple(
    "pciFunction",
    pattern="(0[xX])?[0-7]",
    expected="a PCI function from 0x0 to 0x7",
    to=_number,
    form=lambda value: f"0x{value:x}",
)
NfsVersion = Simple(
    "nfsVersion", pattern=f" *[^ ,{CONTROL}][^,{CONTROL}]*", expected="a version such as 4.2 (no comma)", collapse=False
)
Version = Simple("version", pattern=r"[0-9]{1,9}\.[0-9]{1,9}", expected="a version such as 1.1")


def of_hint(hint: Any) -> Simple:
    """The simple type that a bare hint means: ``str``, ``int``, ``bool`` (yes/no) or a ``Literal`` of words."""
    if hint is str:
        return Text
    if hint is bool:
        return YesNo
    if hint is int:
        return ULong
    words = getattr(hint, "__args__", ())
    if words and all(isinstance(word, str) for word in words):
        return choice(*words)
    raise TypeError(f"no simple type for the hint {hint!r}: give one with xml(..., type=...)")
