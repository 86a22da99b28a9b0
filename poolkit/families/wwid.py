"""The name that a logical unit has by itself: the WWID, as udev, multipath and libvirt spell it.

It is made of the unit's own words: page 0x83 of its vital product data, whose designators SPC-3 describes (7.6.3), else the
serial number of page 0x80. Which designator is taken, and how it is written, is what scsi_id(8) does, which gives udev its
``ID_SERIAL``, multipath its WWIDs and libvirt its keys: the digit of the designator's type, then its value.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BINARY, _ASCII = 1, 2  # code sets
_VENDOR, _T10, _EUI64, _NAA = 0, 1, 2, 3  # types of designators
_REGISTERED, _EXTENDED = 5, 6  # kinds of NAA: IEEE registered, and with an extension by the vendor
# scsi_id's preference: the type, the kind of NAA or any, the code set.
_ORDER = (
    (_NAA, _EXTENDED, _BINARY), (_NAA, _EXTENDED, _ASCII), (_NAA, _REGISTERED, _BINARY), (_NAA, _REGISTERED, _ASCII),
    (_NAA, None, _BINARY), (_NAA, None, _ASCII), (_EUI64, None, _BINARY), (_EUI64, None, _ASCII),
    (_T10, None, _BINARY), (_T10, None, _ASCII), (_VENDOR, None, _BINARY), (_VENDOR, None, _ASCII),
)  # fmt: skip
_MAKER = 8  # bytes that a T10 designator begins with, for the maker (SPC-3 7.6.3.4)
_ALLOWED = re.compile(r"[^0-9A-Za-z#+\-.:=@_/]")  # what udev keeps of a name; else '_'


class Designator(NamedTuple):
    """One name of page 0x83 that is the unit's own, and not that of the port or the target."""

    kind: int
    code: int
    value: bytes


def designators(page: bytes) -> list[Designator]:
    """The unit's own designators on page 0x83, header included; what is cut short or malformed is left out."""
    found: list[Designator] = []
    if len(page) < 4 or page[1] != 0x83:
        return found
    place, end = 4, min(len(page), 4 + int.from_bytes(page[2:4], "big"))
    while place + 4 <= end:
        value = page[place + 4 : place + 4 + page[place + 3]]
        if len(value) == page[place + 3] and value and not page[place + 1] & 0x30:  # the association: logical unit
            found.append(Designator(page[place + 1] & 0x0F, page[place] & 0x0F, value))
        place += 4 + page[place + 3]
    return found


def of_pages(identification: bytes, serial: bytes = b"", vendor: str = "", model: str = "") -> str:
    """The WWID that the pages 0x83 and 0x80 give, with their headers; empty where they give none.

    ``vendor`` and ``model`` are those of the standard inquiry, 8 and 16 characters: they come before what only the vendor
    promises to be unique.
    """
    maker = f"{vendor[:8]:<8}{model[:16]:<16}"
    found = designators(identification)
    for kind, naa, code in _ORDER:
        for one in found:
            if one.kind != kind or one.code != code or (naa is not None and one.value[0] >> 4 != naa):
                continue
            if kind == _T10 and len(one.value.strip(b" \0")) <= _MAKER:
                continue  # the maker alone, such as of LIO's units without a serial number: all of them have it
            value = one.value.decode("latin-1") if code == _ASCII else one.value.hex()
            return _plain(f"{kind}{maker if kind == _VENDOR else ''}{value}")
    number = serial[4 : 4 + int.from_bytes(serial[2:4], "big")] if len(serial) > 4 and serial[1] == 0x80 else b""
    text = number.decode("latin-1").rstrip("\0").strip()
    return _plain(f"S{maker}{text}") if text else ""


def _plain(text: str) -> str:
    """As udev has it in names of links: runs of white space are one '_', and so is what a name cannot have."""
    return _ALLOWED.sub("_", "_".join(text.replace("\0", " ").split()))
