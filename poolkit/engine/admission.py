"""Whether a pool may be: its name, its uuid and what it claims belong to no other pool, and no other lists its directory."""

from __future__ import annotations

import os
from contextlib import suppress

from poolkit import errors, registry
from poolkit.host.undo import identity
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from poolkit.backend import Backend
    from poolkit.engine.core import Core
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record


class Admitted(NamedTuple):
    """A definition that may be: with its uuid, the stored one it would replace, and the record of its name."""

    definition: Any
    old: Any
    record: Record | None


def admit(core: Core, definition: Any) -> Admitted:
    """Look whether another pool is in the way of a definition, and raise if there is one.

    Names, uuids and claims are looked up by index, so it costs the same among ten pools and among thousands. Only of the pools
    that are in the way the files are looked at: somebody may have edited them since. Another file that was edited by hand, to
    claim the same, is as one that is edited in the next moment: what it claims is seen when a pool is started.
    """
    import uuid

    name = definition.name
    record = core.index.sync(name)
    if definition.uuid is not None:
        other = _now(core, name, lambda: core.inventory.by_uuid(definition.uuid))
        if other is not None:
            raise errors.PoolExists(
                f"the uuid {definition.uuid} belongs to pool '{other.name}'; a pool cannot be renamed by defining it",
                pool=name,
                hint=f"undefine '{other.name}' first, or leave the uuid out",
            )
        if record is not None and record.uuid not in ("", definition.uuid):
            raise errors.PoolExists(
                f"pool '{name}' exists already with the uuid {record.uuid}",
                pool=name,
                hint="leave the uuid out to change that pool, or undefine it first",
            )
    else:
        known = record.uuid if record is not None and record.uuid else None
        definition = with_uuid(definition, known or str(uuid.uuid4()))
    _refuse_names_of_others(core, definition)
    claims = list(core.definitions.backend(definition).claims())
    if _now(core, name, lambda: _owner(core, claims, name)) is not None:
        refuse_claims_of_others(core, name, claims)
    old = None
    if record is not None and record.stamp is not None and not record.error:
        old = core.definitions.load(name)
    return Admitted(definition, old, record)


def _now(core: Core, name: str, ask: Callable[[], Record | None]) -> Record | None:
    """The other pool that ``ask`` finds, when the definitions of those it found before are as their files say now."""
    looked: set[str] = set()
    while (other := ask()) is not None and other.name != name:
        if other.name in looked:
            return other
        looked.add(other.name)
        core.index.sync(other.name)
    return None


def _owner(core: Core, claims: Iterable[str], name: str) -> Record | None:
    taken = core.inventory.claimed(claims, unless=name)
    return None if taken is None else core.inventory.record(taken[1])


def refuse_claims_of_others(core: Core, name: str, claims: Iterable[str], *, active: bool = False) -> None:
    """Raise ``Conflict`` if another pool has one of the claims; with ``active``, an active pool."""
    taken = core.inventory.claimed(claims, unless=name, since=core.boot if active else None)
    if taken is None:
        return
    claim, other = taken
    raise errors.Conflict(
        f"pool '{name}' would use {claim_words(claim)}, which belongs to {'the active ' if active else ''}pool '{other}'",
        pool=name,
        hint=f"{'stop' if active else 'undefine'} '{other}', or give this pool another source or target",
    )


def _refuse_names_of_others(core: Core, definition: Any) -> None:
    """Raise ``PoolExists`` if a name would stand for two pools: one that is another's uuid, or a uuid that is another's name.

    A pool is found by its name first, so the other one could not be reached any more.
    """
    name, text = definition.name, as_uuid(definition.name)
    other = _now(core, name, lambda: core.inventory.by_uuid(text)) if text is not None else None
    if other is not None:
        raise errors.PoolExists(
            f"pool '{name}' would have the uuid of pool '{other.name}' as its name",
            pool=name,
            hint="choose another name",
        )
    named = core.index.sync(definition.uuid)
    if named is not None and named.name != name:
        raise errors.PoolExists(
            f"pool '{name}' would have the name of pool '{named.name}' as its uuid",
            pool=name,
            hint="leave the uuid out",
        )


def as_uuid(name: str) -> str | None:
    """The uuid that a name is read as, in any spelling, if it is one."""
    import uuid

    with suppress(ValueError):
        return str(uuid.UUID(name))
    return None


def refuse_shared_place(core: Core, definition: Any, host: Host) -> None:
    """Raise ``Conflict`` if another active pool lists the very directory that this one has just brought up."""
    # Two paths can lead to one directory, which text does not show; network file systems are not asked, as that may hang.
    from poolkit.host.mounts import network_of

    if not lists(definition.type):
        return
    path, mounts = definition.target.path, host.mounts()
    if network_of(path, mounts):
        return
    facts = os.stat(path)
    place = identity(facts)
    for other, target, type in core.inventory.on_directory(core.boot, facts.st_ino):
        if other == definition.name or not lists(type) or network_of(target, mounts):
            continue
        with suppress(OSError):
            if identity(os.stat(target)) == place:
                raise errors.Conflict(
                    f"pool '{definition.name}' would list the directory of the active pool '{other}': "
                    f"'{path}' and '{target}' are the same",
                    pool=definition.name,
                )


def lists(type: str) -> bool:
    """Whether the volumes of pools of that type are the entries of a directory."""
    try:
        return registry.backend(type).file_backed
    except errors.Unsupported:
        return False  # a package that is broken or gone


def with_uuid(definition: Any, uuid: str) -> Any:
    """The definition with that uuid."""
    from poolkit.xmlmap import replace

    return replace(definition, uuid=uuid)


def claim_words(claim: str) -> str:
    """A claim in a sentence."""
    kind, _, value = claim.partition(" ")
    return f"the {kind} '{value}'"


def require_root(backend: Backend | type[Backend], verb: str, host: Host, pool: str | None = None) -> None:
    """``PermissionDenied`` if only root can do that with such a pool, and this process is not root's."""
    if verb in backend.needs_root and not host.root:
        doing = "search for sources" if verb == "discover" else verb
        what = f"cannot {doing} pool '{pool}'" if pool else f"cannot {doing} of type '{backend.type}'"
        raise errors.PermissionDenied(
            f"{what}: that needs root" + (f" with pools of type '{backend.type}'" if pool else ""),
            pool=pool,
            hint="do it as root, such as with sudo; root has folders of its own for definitions and state",
        )
