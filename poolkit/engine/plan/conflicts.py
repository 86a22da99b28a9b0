"""What documents want that cannot be together, found before anything is done: each with the places of both.

A verb would refuse it as well, but only at the second of the two, when the first is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from poolkit import errors
from poolkit.engine import admission
from poolkit.engine.plan.entries import Entry
from poolkit.engine.plan.present import Present
from poolkit.engine.plan.sources import Wanted
from poolkit.errors import Problem


def of_pools(
    present: Present, pools: Mapping[str, Wanted], entries: Mapping[str, Entry], state: Callable[[str], str | None]
) -> Iterator[Problem]:
    """Pools that would have one source, target or directory, or one of which the name is another's uuid.

    ``pools`` are those with a document, ``entries`` what is to be done to each, ``state`` gives the state that one is to have.
    """
    staying = {name: one for name, one in pools.items() if state(name) != "absent"}
    yield from _names(present, staying, pools, lambda one: "define" in entries[one.name].steps)
    taken: dict[str, Wanted] = {}
    waits: dict[str, list[str]] = {}
    for name, one in staying.items():
        try:
            claims = list(present.core.definitions.backend(one.definition).claims())
        except errors.PoolkitError as error:
            yield one.problem(str(error))
            continue
        first = next(((claim, taken[claim]) for claim in claims if claim in taken), None)
        if first is not None:
            claim, other = first
            yield one.problem(
                f"pool '{name}' would use {admission.claim_words(claim)}, as pool '{other.name}' does, at {other.place}"
            )
            continue
        taken.update(dict.fromkeys(claims, one))
        if "define" in entries[name].steps:
            held = list(present.holders(claims, name))
            yield from _taken(one, held, pools)
            # Who goes lets go of all, whatever it waits for.
            waits[name] = [other for _, other in held if other in staying]
    yield from _circle(pools, waits)
    yield from _directories(present, [one for name, one in staying.items() if state(name) != "inactive"])


def _names(
    present: Present, pools: Mapping[str, Wanted], described: Mapping[str, Wanted], defined: Callable[[Wanted], bool]
) -> Iterator[Problem]:
    """Pools of which the name stands for another one as well: ``defined`` says which ones are to be defined."""
    named = {admission.as_uuid(name) or name: one for name, one in pools.items()}
    for one in pools.values():
        uuid = one.definition.uuid
        other = named.get(uuid)
        if other is not None and other is not one and (defined(one) or defined(other)):
            yield one.problem(
                f"the uuid of pool '{one.name}' is the name of another pool, at {other.place}", "/pool/uuid"
            )
        if not defined(one):
            continue
        if uuid is not None and uuid not in described and present.pool(uuid) is not None:
            yield one.problem(
                f"the uuid of pool '{one.name}' is the name of another pool, which no document describes", "/pool/uuid"
            )
        owner = present.by_uuid(admission.as_uuid(one.name) or "")
        if owner is None or owner == one.name:
            continue
        if owner not in described:
            yield one.problem(
                f"the name of pool '{one.name}' is the uuid of pool '{owner}', which no document describes",
                "/pool/name",
            )
        elif owner in pools and pools[owner].definition.uuid is None:
            yield one.problem(
                f"the name of pool '{one.name}' is the uuid of pool '{owner}', at {pools[owner].place}", "/pool/name"
            )


def _taken(one: Wanted, held: Iterable[tuple[str, str]], described: Mapping[str, Wanted]) -> Iterator[Problem]:
    """What is ``held`` by a pool that no document describes; one that is described lets go of it first (``Ordering``)."""
    for claim, other in held:
        if other not in described:
            yield one.problem(
                f"pool '{one.name}' would use {admission.claim_words(claim)}, which belongs to pool '{other}', "
                "which no document describes"
            )
            return


def _circle(pools: Mapping[str, Wanted], waits: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Pools that are to get what others have, which are to get what they have: each ``waits`` for another, and none can begin."""
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        first, *others = sorted(error.args[1][1:])
        beside = " and ".join(f"'{one}', at {pools[one].place}" for one in others)
        yield pools[first].problem(
            f"pool '{first}' would get what another pool has, and that in the end what '{first}' has, so that none of them can "
            f"begin: {beside}; let one of them have another source or target first"
        )


def _directories(present: Present, pools: Iterable[Wanted]) -> Iterator[Problem]:
    """Pools whose paths lead to one directory; network file systems are not asked, as that may hang."""
    from poolkit.host.mounts import is_network

    found: dict[Any, Wanted] = {}
    for one in pools:
        if not admission.lists(one.definition.type):
            continue
        path = one.definition.target.path
        try:
            real, mount = present.host.locate(path)
            if mount is not None and is_network(mount.fstype):
                continue
            place = _place(real)
        except OSError:
            continue  # a loop of links, or what cannot be looked at: the verb that needs it tells of that
        other = found.setdefault(place, one)
        theirs = other.definition.target.path
        if os.path.normpath(theirs) != os.path.normpath(path):
            yield one.problem(
                f"pool '{one.name}' would list the directory of pool '{other.name}', at {other.place}: '{path}' and "
                f"'{theirs}' are the same",
                "/pool/target/path",
            )


def _place(path: str) -> tuple[Any, ...]:
    """What a path without links leads to, or will lead to when it is made: what there is of it, and the names below that.

    Raises ``OSError`` where it cannot be looked at.
    """
    from poolkit.host.undo import identity

    below: list[str] = []
    while True:
        try:
            return (*identity(os.stat(path)), *reversed(below))
        except (FileNotFoundError, NotADirectoryError):
            path, name = os.path.split(path)
            below.append(name)


def of_flavors(
    present: Present, wanted: Iterable[Wanted], going: Mapping[str, Wanted | None], gone: Iterable[str]
) -> Iterator[Problem]:
    """Pools that are to go while a flavor that stays has them as a backend.

    ``wanted`` are the flavors that are to be, ``going`` the pools that are to go, with their documents (None for one that is
    pruned), ``gone`` the names of flavors that go.
    """
    if not going:
        return
    documents = {one.name: one for one in wanted}
    left = set(gone)
    flavors = {name: flavor for name, flavor in present.flavors().items() if name not in left}
    flavors |= {name: one.definition for name, one in documents.items()}
    for flavor in flavors.values():
        described = documents.get(flavor.name)
        for pool in dict.fromkeys(backend.pool for backend in flavor.backends if backend.pool in going):
            where = f", at {described.place}" if described is not None else ""
            one = going[pool]
            if one is not None:
                yield one.problem(f"pool '{pool}' is to be absent, and is a backend of flavor '{flavor.name}'{where}")
            elif described is not None:
                yield described.problem(
                    f"flavor '{flavor.name}' has pool '{pool}' as a backend, which no document describes any more and which "
                    "would be removed"
                )
            else:
                yield Problem(
                    f"pool '{pool}'", 0, 0, "",
                    f"no document describes it any more, and it would be removed; it is a backend of flavor '{flavor.name}'",
                )  # fmt: skip
