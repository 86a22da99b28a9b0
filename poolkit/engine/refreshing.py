"""The volumes of a pool listed anew: all of them, or the one of which a caller knows that it was changed."""

from __future__ import annotations

from poolkit import errors
from poolkit.engine.operation import worded
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.names import check_volume_name

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from typing import Any

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine import keeping, standing, watching, writing
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Outcome
    from poolkit.host.port import Host
    from poolkit.listing import Listing
    from poolkit.state.inventory import Record
else:
    watching = later(globals(), "watching", "poolkit.engine.watching")
    keeping = later(globals(), "keeping", "poolkit.engine.keeping")
    standing = later(globals(), "standing", "poolkit.engine.standing")
    writing = later(globals(), "writing", "poolkit.engine.writing")


def whole(
    core: Core, pool: str, uuid: str, wait: float | None, abort: threading.Event | None = None, *, quiet: bool = False
) -> Outcome:
    """See :meth:`poolkit.engine.pool.Pool.refresh`; ``quiet`` tells of nothing where nothing has changed."""
    with core.work(pool, "refresh", wait, shared=True, abort=abort) as op:
        record = core.require_active(pool, "refresh", op.host)
        backend = core.definitions.backend(core.definitions.running(record), op.host)
        change = watching.Change(core, record, backend)
        at_work = {work.volume for work in core.locks.current(pool) if work.volume is not None and not work.shared}
        try:
            scanned, volumes, usage = core.scan(backend, record, record.target)
        except (OSError, errors.HostError) as error:
            if not op.dry:
                told = worded(error, pool, "refresh", None) if isinstance(error, OSError) else error
                core.inventory.set_trouble(record.id, f"the last refresh failed: {told}")
            raise
        below = standing.below(backend, op.host, volumes)
        if not op.dry:
            core.inventory.save_listing(record.id, volumes, scanned, usage, below, at_work=at_work)
            change.listed()
        _warn_of_problems(op.host, pool, volumes)
        writing.warn_of(op.host, pool, writing.left(core, record, volumes))
        standing.warn_of_missing(op.host, pool, below)
    changed = core.inventory.version(record.id) != scanned
    if change.tell(op) or not quiet:
        core.emit(op, "refreshed", pool, uuid)
    return op.outcome(changed, f"pool '{pool}' has {len(volumes)} volumes")


def follow(core: Core, pool: str, uuid: str, wait: float | None, abort: threading.Event | None) -> Iterator[Outcome]:
    """See :meth:`poolkit.engine.pool.Pool.follow`."""
    mark = ""
    while True:
        host = core.host.operation(abort=abort)
        record = core.require_active(pool, "refresh", host)
        # What changes during a listing has changed after this.
        mark = core.definitions.backend(core.definitions.running(record), host).changes(mark)
        yield whole(core, pool, uuid, wait, abort)


def one(core: Core, pool: str, uuid: str, name: str, wait: float | None, abort: threading.Event | None) -> Outcome:
    """See :meth:`poolkit.engine.pool.Pool.refresh`."""
    check_volume_name(name, pool)
    with core.volume_work(pool, "refresh", name, shared=True, wait=wait, abort=abort) as (op, backend, record):
        old = core.inventory.volume(record.id, name)
        backend.host.cautious = core.inventory.damaged
        try:
            info = look(core, backend, record, name, old)
        except errors.VolumeNotFound:
            if old is None:
                raise
            keeping.forget(core, op, backend, record, old)
            changed, words = True, f"volume '{name}' is not there any more"
        else:
            below = standing.edges(backend, op.host, [info], core.listed(record))
            missing = sorted(edge.said for edge in below if edge.missing)
            changed = not _same(info, old) or missing != core.inventory.missing(record.id, name).get(name, [])
            if changed:
                keeping.keep(core, op, backend, record, info)
            words = f"volume '{name}' is {'new' if old is None else 'as it was' if not changed else 'listed anew'}"
            half = writing.left(core, record, [info]).get(name)
            problem = writing.marked(standing.marked(info, missing), half).problem
            if problem:
                op.host.warn(f"volume '{name}': {problem}")
        core.emit(op, "refreshed", pool, uuid, name)
    return op.outcome(changed, words)


def look(core: Core, backend: Backend, record: Record, name: str, old: VolumeInfo | None) -> VolumeInfo:
    """A volume as it is now; ``old`` is what is on record of it. ``VolumeNotFound``."""
    place = record.target if backend.keeps_formats else None
    recorded = None if place is None else core.inventory.format(place, name)
    how: dict[str, Any] = {} if recorded is None else {"recorded": recorded}  # others need not know the word
    return backend.look(name, old, **how)


def _same(info: VolumeInfo, old: VolumeInfo | None) -> bool:
    """Whether nothing is new but when it was read last, which a refresh of the whole pool does not count either."""
    return old is not None and info == old._replace(atime=info.atime)


def _warn_of_problems(host: Host, pool: str, volumes: Listing) -> None:
    """Count the volumes that are damaged, unreadable, or another format than is on record."""
    odd = sorted(name for one, names in volumes.kinds() if one.problem for name in names)
    if odd:
        names = errors.some([f"'{name}'" for name in odd], 3)
        what = "1 volume is" if len(odd) == 1 else f"{len(odd)} volumes are"
        why = errors.remedy("vol-info", odd[0], pool=pool)
        host.warn(
            errors.Hint(f"{what} damaged, unreadable or not what the record says: {names}; what is wrong says ", why)
        )
