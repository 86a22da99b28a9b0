"""Names of volumes for VDIs and their snapshots, and back.

A VDI is called by up to 255 bytes of any kind, a snapshot by that and a tag, by which several may be called, or none. Volumes
have names that fit into documents. So ``VDI`` is a disk, ``VDI@TAG`` a snapshot of it, ``VDI@#N`` the one of that number where
the tag does not tell it. What cannot stand in a volume's name, ``@``, ``%`` and a ``#`` at the begin of a tag are written as
``%`` and two hexadecimal digits for each byte, as in a URL. A name stands for one VDI and a VDI has one name.
"""

from __future__ import annotations

import re

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.names import name_fault

_ESCAPE = re.compile("%([0-9A-F]{2})")


def spelled(name: bytes, tag: bytes = b"", number: int | None = None, *, unique: bool = True) -> str:
    """The name of a volume. ``number`` is that of a snapshot, None for a disk; ``unique``: its tag tells it."""
    head = _spelled(name, first=True)
    if number is None:
        return head
    return f"{head}@{_spelled(tag, first=False)}" if tag and unique else f"{head}@#{number}"


def meant(name: str, pool: str) -> tuple[bytes, bytes, int]:
    """Name, tag and number of the VDI that a volume's name stands for: no tag and 0 for a disk.

    ``InvalidArgument`` for a name that ``spelled`` gives to none.
    """
    check_volume_name(name, pool)
    head, at, rest = name.partition("@")
    number = 0
    if at and rest.startswith("#") and rest[1:].isascii() and rest[1:].isdigit() and len(rest) < 12:
        number, rest = int(rest[1:]), ""
    found = _bytes(head), _bytes(rest), number
    again = spelled(found[0], found[1], number if at else None)
    if again != name or not found[0] or max(len(found[0]), len(found[1])) > 255 or b"\0" in found[0] + found[1]:
        why = (
            f"it would have to be written '{again}'"
            if again != name and found[0]
            else "a disk and a tag have 1 to 255 bytes, none of them 0"
        )
        raise errors.InvalidArgument(
            f"pool '{pool}': '{name}' cannot be the name of a disk in Sheepdog: {why}", pool=pool, volume=name,
            hint="VDI is a disk, VDI@TAG a snapshot of it; '@' and '%' in a name are %40 and %25",
        )  # fmt: skip
    return found


def _spelled(name: bytes, *, first: bool) -> str:
    text = name.decode("utf-8", "surrogateescape")
    made = "".join(_escaped(char) if char in "%@/" or name_fault(f"a{char}a") else char for char in text)
    if not first:
        return _escaped(made[0]) + made[1:] if made[:1] == "#" else made
    if made[:1] == "-" or made in (".", "..") or made.startswith(".poolkit-") or not made.strip(" "):
        made = _escaped(made[:1]) + made[1:]
    return made


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _bytes(text: str) -> bytes:
    parts = _ESCAPE.split(text)
    return b"".join(
        bytes([int(part, 16)]) if number % 2 else part.encode("utf-8", "surrogatepass")
        for number, part in enumerate(parts)
    )
