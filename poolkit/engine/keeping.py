"""What a verb did to a volume, put on record: the volume, what it stands on, and the sizes of its pool."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from poolkit.backend import Backend, Usage
    from poolkit.engine import marking, standing, writing
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.engine.volume import Volume
    from poolkit.host import undo
    from poolkit.state.inventory import Record
    from poolkit.state.placements import Placement
else:
    marking = later(globals(), "marking", "poolkit.engine.marking")
    standing = later(globals(), "standing", "poolkit.engine.standing")
    writing = later(globals(), "writing", "poolkit.engine.writing")
    undo = later(globals(), "undo", "poolkit.host.undo")


class _Listed(Sequence[VolumeInfo]):
    """The volumes of a pool as they are listed, with such as were made or changed, or without one that is gone.

    Read when somebody looks: the sizes of most types need no volumes.
    """

    def __init__(self, core: Core, record: Record, changed: Mapping[str, VolumeInfo | None]) -> None:
        self._of = core, record, changed

    @cached_property
    def _volumes(self) -> list[VolumeInfo]:
        core, record, changed = self._of
        others = [volume for volume in core.inventory.volumes(record.id) if volume.name not in changed]
        return [*others, *(info for info in changed.values() if info is not None)]

    def __len__(self) -> int:
        return len(self._volumes)

    def __iter__(self) -> Iterator[VolumeInfo]:
        return iter(self._volumes)

    @overload
    def __getitem__(self, at: int) -> VolumeInfo: ...
    @overload
    def __getitem__(self, at: slice) -> list[VolumeInfo]: ...
    def __getitem__(self, at: int | slice) -> VolumeInfo | list[VolumeInfo]:
        return self._volumes[at]


def keep(core: Core, op: Operation, backend: Backend, record: Record, info: VolumeInfo, *, sized: bool = True) -> None:
    """Store a volume that was changed or looked at, with the sizes that its pool has now. Not in a dry run.

    Without ``sized`` the sizes are as they were.
    """
    if not op.dry:
        _put(core, op, backend, record, [info], None, sized=sized)


def keep_new(
    core: Core, op: Operation, backend: Backend, record: Record, made: Sequence[VolumeInfo],
    placed: Placement | None = None,
) -> None:  # fmt: skip
    """Store volumes that were made, with the sizes that their pool has now, in one step. Not in a dry run.

    A volume that was ``placed`` through a flavor comes alone.
    """
    if op.dry:
        return
    for info in made:
        writing.accept(core, op, record, info)
        marking.settle(core, backend, info, placed)
    left = [info for info in made if info != op.listed.get(info.name)]
    if left:
        _put(core, op, backend, record, left, placed)


def expect(core: Core, op: Operation, backend: Backend, record: Record, placed: Placement | None) -> None:
    """Be ready for volumes that are made next: a file is listed in the moment before it has its name.

    So there is one transaction for its format, which must be on record first, and for the listing. Whoever reads may see it
    listed for the moment that the file system needs; work on it has to wait. :func:`keep_new` does the rest.
    """
    marking.mark(backend, placed)

    def enlist(new: Sequence[tuple[VolumeInfo, os.stat_result]]) -> None:
        for info, facts in new:
            op.host.keep_undo(undo.gone(f"{record.target}/{info.name}", record.id, info.name, facts))
        _put(core, op, backend, record, [info for info, _ in new], placed)
        op.listed = {**op.listed, **{info.name: info for info, _ in new}}

    if not backend.may_hang:  # its sizes would be asked for while it is at work
        op.host.on_enlist = enlist


def _put(
    core: Core, op: Operation, backend: Backend, record: Record, volumes: Sequence[VolumeInfo],
    placed: Placement | None, *, sized: bool = True,
) -> None:  # fmt: skip
    volumes = [standing.unmarked(info) for info in volumes]
    changed: dict[str, VolumeInfo | None] = {info.name: info for info in volumes}
    below = standing.edges(backend, op.host, volumes, _names(core, record, changed))
    sizes = _sizes(core, backend, record, changed) if sized else None
    paths = [path for info in volumes for path in standing.paths(op.host, record, info)]
    again = core.inventory.put_volumes(
        record.id, volumes, op.id, below=below, paths=paths, sizes=sizes, placed=placed, whole=op.unmark
    )
    _settle(core, backend, record, changed, again)


def forget(core: Core, op: Operation, backend: Backend, record: Record, info: VolumeInfo) -> None:
    """Drop a volume that is gone from the listing, with the sizes that its pool has now. Not in a dry run."""
    if op.dry:
        return
    sizes = _sizes(core, backend, record, {info.name: None})
    paths = standing.paths(op.host, record, info)
    again = core.inventory.drop_volume(record.id, info.name, op.id, paths=paths, sizes=sizes)
    writing.accept(core, op, record, info)
    _settle(core, backend, record, {info.name: None}, again)


def at_once(
    volume: Volume, verb: str, wait: float | None, abort: threading.Event | None,
    do: Callable[[Backend, VolumeInfo, str], VolumeInfo | None],
) -> tuple[Operation, VolumeInfo] | None:  # fmt: skip
    """Do a verb on a volume as it is listed, without looking at pool and volume first; None if that cannot be.

    ``do`` gets the backend, the volume, and what its storage was at the listing. Returns the work and the volume before it.
    """
    core, pool = volume.pool._core, volume.pool.name
    with core.work(pool, verb, wait, volume=volume.name, abort=abort) as op:
        record = core.record(pool)
        listed = core.inventory.volume(record.id, volume.name)
        if op.dry or record.storage is None or listed is None or not core.runs(record):
            return None
        backend = core.definitions.backend(core.definitions.running(record), op.host)
        if backend.identity(listed) != backend.identity(volume.info):
            return None
        found = do(backend, listed, record.storage)
        if found is None:
            return None
        volume.info = found
        keep(core, op, backend, record, found, sized=False)
    return op, listed


def _names(core: Core, record: Record, also: Iterable[str]) -> Iterator[str]:
    yield from also
    yield from core.listed(record)


def _sizes(
    core: Core, backend: Backend, record: Record, changed: Mapping[str, VolumeInfo | None]
) -> tuple[int, Usage] | None:
    """The version of the listing, and sizes that were taken afterwards; None if they cannot be had."""
    version = core.inventory.version(record.id)
    try:
        return version, backend.usage(_Listed(core, record, changed) if backend.counts_volumes else ())
    except (OSError, errors.PoolkitError):
        return None  # the work is done all the same, and the next refresh says what is wrong


def _settle(
    core: Core, backend: Backend, record: Record, changed: Mapping[str, VolumeInfo | None], version: int | None
) -> None:
    """Take the sizes again if others changed the pool while they were taken: then neither may know of the other's change."""
    if version is None:
        return
    taken = _sizes(core, backend, record, changed)
    if taken is not None:
        core.inventory.set_sizes(record.id, version, taken[1])
