"""Which pools have to be up before which, as their documents say it; nothing of the machine is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

from poolkit.values import value


class Facts(NamedTuple):
    """What a definition says of its place among others: paths that ``start`` needs, and what is there only after it."""

    name: str
    needs: tuple[str, ...] = ()
    brings: str | None = None
    device: str | None = None
    ident: str | None = None
    searches: bool = False


@value()
class Plan:
    """``names`` in an order in which all can be started one after another.

    ``stands_on`` has for each the pools without which it cannot be up; ``waits_for`` has those besides that are started
    before it, because they may bring what it needs. ``cycles`` are pools that stand on each other in a circle: they
    follow each other by name.
    """

    names: tuple[str, ...]
    stands_on: Mapping[str, frozenset[str]]
    waits_for: Mapping[str, frozenset[str]]
    cycles: tuple[tuple[str, ...], ...] = ()

    def warning(self, name: str) -> str | None:
        """What to say of a pool that is one of a circle."""
        circle = next((names for names in self.cycles if name in names), None)
        if circle is None:
            return None
        names = ", ".join(f"'{one}'" for one in circle)
        return f"by their definitions the pools {names} stand on each other in a circle: they were started by name"


_NODES = re.compile(r"p?\d+|-part\d+")  # what a partition's name has more than its disk's


def facts(definition: Any, *, file_backed: bool) -> Facts:
    """The facts of one definition; ``file_backed`` as the class of its backend says."""
    source, target = getattr(definition, "source", None), getattr(definition, "target", None)
    named = [str(getattr(one, "path", one)) for one in getattr(source, "devices", ())]
    devices = [os.path.normpath(path) for path in named if path.startswith("/")]
    place = getattr(target, "path", None)
    place = os.path.normpath(place) if place and place.startswith("/") else None
    shows = file_backed and not named and not getattr(source, "hosts", ())  # a directory that somebody else fills
    return Facts(
        definition.name,
        tuple(devices + ([place] if place and file_backed else [])),
        None if shows or place in ("/", "/dev") else place,
        devices[0] if len(devices) == 1 and not file_backed else None,
        next((path for path in named if not path.startswith("/")), None),
        # A volume group without devices is looked for on all of them.
        searches=not file_backed and place is not None and os.path.dirname(place) == "/dev",
    )


def plan(pools: Mapping[str, Facts]) -> Plan:
    """The order of these pools; where nothing else says it, by name."""
    on: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    finders = {name for name, one in pools.items() if one.brings is not None and _finds_disks(one.brings)}
    for name, one in pools.items():
        on[name], after[name] = set(), set()
        for path in one.needs:
            found = {other.name for other in pools.values() if other.name != name and _has(other, path)}
            # Many pools may list the disks of their targets in one directory: the path names the target of one of them.
            told = {other for other in found if (ident := pools[other].ident) and ident in path}
            found = told or found
            (on if len(found) == 1 else after)[name].update(found)
        if name not in finders and (one.searches or any(path.startswith("/dev/") for path in one.needs)):
            after[name] |= finders
        after[name] -= on[name]
    names, cycles = _sorted(on, after)
    return Plan(
        names,
        {name: frozenset(others) for name, others in on.items()},
        {name: frozenset(others) for name, others in after.items()},
        cycles,
    )


def _finds_disks(place: str) -> bool:
    return place == "/dev/mapper" or place.startswith("/dev/disk/")


def _has(other: Facts, path: str) -> bool:
    """Whether ``path``, which another pool needs, is there only while ``other`` is up."""
    if other.device is not None and path.startswith(other.device) and _NODES.fullmatch(path[len(other.device) :]):
        return True
    place = other.brings
    if place is None:
        return False
    if path.startswith(f"{place}/"):
        return True
    folder, _, group = place.rpartition("/")
    # dm(4) and lvm(8): a group's volumes are there as VG-LV as well, with each dash of a name doubled.
    return folder == "/dev" and path.startswith(f"/dev/mapper/{group.replace('-', '--')}-")


def _sorted(on: dict[str, set[str]], after: dict[str, set[str]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """All names, each behind what it waits for. Circles are opened in ``on`` and ``after``."""
    done: dict[str, None] = {}
    cycles = []
    left = sorted(on)
    while left:
        ready = [name for name in left if not (on[name] | after[name]) - done.keys()]
        if not ready:
            circle = _circle(left[0], lambda name: (on[name] | after[name]) - done.keys())
            for before, name in zip([None, *circle], circle, strict=False):
                on[name] -= set(circle)
                after[name] -= set(circle)
                after[name] |= set() if before is None else {before}
            cycles.append(tuple(circle))
            continue
        done.update(dict.fromkeys(ready))
        left = [name for name in left if name not in done]
    return tuple(done), tuple(cycles)


def _circle(name: str, waits: Callable[[str], Set[str]]) -> list[str]:
    """The pools of a circle that is reached from ``name``, by name."""
    way: list[str] = []
    while name not in way:
        way.append(name)
        name = min(waits(name))
    return sorted(way[way.index(name) :])
