"""Names of volumes for disks, and back.

A label of XenAPI is any text, and several disks may have the same. A volume has its disk's label, in which what a volume's name
cannot have, and ``%``, is written as ``%`` and two hexadecimal digits for each byte, as in a URL. Disks of one label have the
begin of their uuids behind it, ``data (1f3a5b7c)``; one without a label, or with one that is too long, is called by its uuid.
Where another disk has that for its label, a number follows the uuid.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.names import name_fault

_ESCAPE = re.compile("%([0-9A-F]{2})")
_TWIN = re.compile(r"(.+) \(([0-9a-f]{8})\)")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:;=+~@() -]{0,199}")  # what most labels are; the same as a name
_LONGEST = 240  # bytes of a label that is used as a name: with a part of the uuid it has at most 255


def spelled(label: str) -> str:
    """A label as the name of a volume; empty for one that cannot be, which is called by its uuid."""
    if _PLAIN.fullmatch(label):
        return label
    made = "".join(_escaped(char) if char in "%/" or name_fault(f"a{char}a") else char for char in label)
    if made[:1] == "-" or made in (".", "..") or made.startswith(".poolkit-") or not made.strip(" "):
        made = _escaped(made[:1]) + made[1:] if made else ""
    return made if len(made.encode("utf-8", "surrogatepass")) <= _LONGEST else ""


def label(name: str, pool: str) -> str:
    """The label of a disk that a volume's name stands for; ``InvalidArgument`` for a name that ``spelled`` gives to none."""
    check_volume_name(name, pool)
    parts = _ESCAPE.split(name)
    try:
        found = b"".join(
            bytes([int(part, 16)]) if number % 2 else part.encode("utf-8") for number, part in enumerate(parts)
        ).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        found = ""
    if spelled(found) != name:
        raise errors.InvalidArgument(
            f"pool '{pool}': '{name}' cannot be the name of a disk: a label has at most {_LONGEST} bytes, and '%' in it is "
            "written %25", pool=pool, volume=name,
        )  # fmt: skip
    return found


def names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The name of each disk among all of a repository."""
    records = list(records)
    found = [spelled(record["name_label"]) for record in records]
    counts = Counter(found)
    if len(counts) == len(found) and "" not in counts:
        return found
    taken: set[str] = {name for name, count in counts.items() if name and count == 1}
    for number, name in enumerate(found):
        if not name or counts[name] > 1:
            uuid = str(records[number]["uuid"])
            ways = itertools.chain(
                [f"{name} ({uuid[:8]})"] if name else (), [uuid], (f"{uuid} ({n})" for n in itertools.count(2))
            )
            found[number] = next(one for one in ways if one not in taken)
            taken.add(found[number])
    return found


def twin(name: str) -> tuple[str, str] | None:
    """The label and the begin of the uuid, of a name that only one of several disks of a label has."""
    found = _TWIN.fullmatch(name)
    return (found[1], found[2]) if found else None


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
