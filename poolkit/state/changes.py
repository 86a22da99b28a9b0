"""What a listing changes of what is known of a pool: the entries that are stored, and what the next listing starts from."""

from __future__ import annotations

from itertools import repeat

from poolkit.facts import VolumeInfo
from poolkit.lean import TYPE_CHECKING
from poolkit.listing import Alike

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poolkit.listing import Listing
    from poolkit.state.packing import Entry


_NOTHING = (None, None, None)


def fresh(found: Listing) -> Mapping[str, Entry]:
    """What is new in a listing, as it is stored."""
    if not found.alike and not found.others:
        return found.plain
    fresh: dict[str, Entry] = {**found.plain, **found.others} if found.plain or found.others else {}
    for like, numbers in found.alike.values():
        fresh.update(zip(numbers, zip(numbers.values(), repeat(like)), strict=False))
    return fresh


def is_recorded(name: str, entry: Entry) -> bool:
    """Whether the listing carries the format of a file from now on."""
    if isinstance(entry, bytes):
        return True
    info = entry if isinstance(entry, VolumeInfo) else entry[1].volume(name, entry[0])
    return bool(info.inode) and info.recorded


def is_told(entry: Entry) -> bool:
    """Whether more than numbers is known of a volume, and told of it alone."""
    return isinstance(entry, VolumeInfo) and entry[14:] != _NOTHING


def told(volumes: Mapping[str, Entry]) -> dict[str, VolumeInfo]:
    """The volumes that are told alone."""
    return {name: entry for name, entry in volumes.items() if isinstance(entry, VolumeInfo) and is_told(entry)}


def alike(known: Mapping[str, Alike], fresh: Mapping[str, Entry], missing: Sequence[str]) -> dict[str, Alike]:
    """What is told together of a listing that has changed; ``known`` may be in use, and stays as it is."""
    gone = {*fresh, *missing}
    found = {}
    for key, one in known.items():
        left = {name: numbers for name, numbers in one.numbers.items() if name not in gone}
        if left:
            found[key] = Alike(one.like, left)
    new: dict[int, Alike] = {}
    for name, entry in fresh.items():
        if isinstance(entry, tuple) and not isinstance(entry, VolumeInfo):
            numbers, like = entry
            if (into := new.get(id(like))) is None:
                into = new[id(like)] = found.setdefault(like.key(), Alike(like, {}))
            into.numbers[name] = numbers
    return found
