"""What an earlier apply of the folder made, and what the folder does not describe any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from poolkit.engine.plan.entries import Change, Entry
from poolkit.engine.plan.marks import Mark, digest, key_of
from poolkit.engine.plan.present import PoolFacts, Present
from poolkit.engine.plan.sources import identity
from poolkit.engine.plan.task import Task

_NOTE = "made by an earlier apply, and no longer described"


def gone(name: str, facts: PoolFacts | None, place: str, note: str = "") -> Entry:
    """The entry of a pool that is not to be there."""
    if facts is None:
        return Entry("none", "pool", name, place=place, note=note)
    steps = (["destroy"] if facts.active else []) + (["undefine"] if facts.persistent else [])
    changes = (Change("state", "active" if facts.active else "inactive", "absent"),)
    return Entry(
        "remove", "pool", name, changes=changes, steps=tuple(steps), place=place, note=note or "its storage stays"
    )


def pruned(
    present: Present, marks: Iterable[Mark], described: Set[str], tasks: Mapping[str, Task]
) -> Iterator[tuple[Entry, Task]]:
    """The removals of what was made and is there still; ``tasks`` are those of what is ``described``."""
    wanted_secrets = {task.present.uuid for key, task in tasks.items() if key.startswith("secret ") and task.present}
    for mark in marks:
        if mark.kind == "secret":
            if mark.name not in wanted_secrets and any(secret.uuid == mark.name for secret in present.secrets()):
                entry = Entry("remove", "secret", mark.name, steps=("secret-undefine",), needs=("delete",), note=_NOTE)
                yield entry, Task(None)
            continue
        if mark.kind == "flavor":
            if identity("flavor", mark.name) not in described and mark.key == digest(present.flavors().get(mark.name)):
                yield Entry("remove", "flavor", mark.name, steps=("flavor-delete",), note=_NOTE), Task(None)
            continue
        if identity(mark.kind, mark.name, mark.pool) in described:
            continue
        facts = present.pool(mark.pool or mark.name)
        if facts is None or facts.record.uuid != mark.uuid:
            continue
        if mark.kind == "pool":
            yield gone(mark.name, facts, "", f"{_NOTE}; its storage stays"), Task(None, None, facts)
        elif facts.active:
            yield from _volume(present, mark)


def _volume(present: Present, mark: Mark) -> Iterator[tuple[Entry, Task]]:
    listing = present.listing(mark.pool or "")
    info = listing.volumes.get(mark.name) if listing is not None else None
    if info is not None and listing is not None and mark.key == key_of(listing.backend, info, listing.path(mark.name)):
        changes = (Change("state", "present", "absent"),)
        entry = Entry("remove", "volume", mark.name, mark.pool, changes, ("vol-delete",), needs=("delete",), note=_NOTE)
        yield entry, Task(None, None, info)
