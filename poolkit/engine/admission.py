"""Whether a pool may be: its name, its uuid and what it claims belong to no other pool, and no other lists its directory."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

from poolkit import errors, registry
from poolkit.backend import Backend
from poolkit.engine.core import Core
from poolkit.host.port import Host
from poolkit.host.undo import identity
from poolkit.state.inventory import Record


class Admitted(NamedTuple):
    """A definition that may be: with its uuid, the stored one it would replace, and the record of its name."""

    definition: Any
    old: Any
    record: Record | None


def admit(core: Core, definition: Any) -> Admitted:
    """Look whether another pool is in the way of a definition, and raise if there is one.

    What other pools claim is looked up by index. Before that the folder of definitions is read once, with one stat(2) for each
    file: nothing else shows that one was edited by hand, and claims something else since.
    """
    import uuid

    name = definition.name
    core.index.sync()
    record = core.inventory.record(name)
    if definition.uuid is not None:
        other = core.inventory.by_uuid(definition.uuid)
        if other is not None and other.name != name:
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
    backend = core.definitions.backend(definition)
    taken = core.inventory.claimed(backend.claims(), unless=name)
    if taken is not None:
        claim, other_name = taken
        raise errors.Conflict(
            f"pool '{name}' would use {_claim_words(claim)}, which belongs to pool '{other_name}'",
            pool=name,
            hint=f"undefine '{other_name}', or give this pool another source or target",
        )
    old = None
    if record is not None and record.stamp is not None and not record.error:
        old = core.definitions.load(name)
    return Admitted(definition, old, record)


def refuse_shared_place(core: Core, definition: Any, host: Host) -> None:
    """Raise ``Conflict`` if another active pool lists the very directory that this one has just brought up."""
    # Two paths can lead to one directory, which text does not show; network file systems are not asked, as that may hang.
    from poolkit.host.mounts import network_of

    if not _lists(definition.type):
        return
    others = [o for o in core.inventory.active_targets(core.boot) if o[0] != definition.name and _lists(o[2])]
    if not others:
        return
    path, mounts = definition.target.path, host.mounts()
    if network_of(path, mounts):
        return
    place = identity(os.stat(path))
    for other, target, _ in others:
        if network_of(target, mounts):
            continue
        with contextlib.suppress(OSError):
            if identity(os.stat(target)) == place:
                raise errors.Conflict(
                    f"pool '{definition.name}' would list the directory of the active pool '{other}': "
                    f"'{path}' and '{target}' are the same",
                    pool=definition.name,
                )


def _lists(type: str) -> bool:
    """Whether the volumes of pools of that type are the entries of a directory."""
    try:
        return registry.backend(type).file_backed
    except errors.Unsupported:
        return False  # a package that is broken or gone


def with_uuid(definition: Any, uuid: str) -> Any:
    """The definition with that uuid."""
    from poolkit.xmlmap import replace

    return replace(definition, uuid=uuid)


def _claim_words(claim: str) -> str:
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
