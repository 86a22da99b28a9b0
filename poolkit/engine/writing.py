"""What is written in place: a mark that is there before the first byte, and stays until the volume is whole again.

Work in place is not undone when it fails or its process dies: a part of the volume is new then, and the rest as before.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.facts import Transfer
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.names import quoted
from poolkit.state.unfinished import Mark, Unfinished, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.host import undo
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record
else:
    undo = later(globals(), "undo", "poolkit.host.undo")


WHOLE = Transfer(0, 0, False)
"""What work reaches that writes a volume from its first byte on."""


def note(op: Operation, step: undo.Undo) -> None:
    """Write down for a recovery what is about to be done. Where nothing can be, as on a full disk, the work goes on as ever."""
    with suppress(OSError, errors.NoSpace, errors.PermissionDenied):
        op.host.keep_undo(step)


def key(info: VolumeInfo, place: str | None) -> str:
    """The key of a volume in a pool whose target is ``place``."""
    return info.key or info.path or f"{place}/{info.name}"


@contextmanager
def in_place(
    core: Core, work: tuple[Operation, Backend, Record], info: VolumeInfo, doing: str, transfer: Transfer = WHOLE
) -> Iterator[None]:
    """Write into a volume, within the body: ``doing`` says what is done to it, as a participle.

    Work that ends well takes the mark away, and with it that of earlier work of which it has written everything: with the
    transaction that lists the volume as it is then (``op.unmark``). If the body fails before it has announced a change, all is
    as before.
    """
    from poolkit.content.recipes import BYTES

    op, backend, record = work
    if op.dry or (backend.file_backed and info.format not in BYTES):
        yield  # an image is replaced as a whole
        return
    marks, at = Unfinished(core.inventory.database), key(info, record.target)
    mark = Mark.of(backend.identity(info), doing, transfer)
    before: Mark | None = None
    # Where nothing can be noted, as on a full disk, the work goes on as ever.
    with suppress(OSError, errors.NoSpace, errors.PermissionDenied):
        before = marks.get(at)
        marks.put(at, mark.joined(before))
        op.host.keep_undo(undo.tell(f"volume '{info.name}' of pool '{record.name}' {_part(doing)}"))
    announced = len(op.host.plan)
    try:
        yield
    except BaseException:
        if len(op.host.plan) == announced:
            _leave(marks, at, before)
        raise
    if before is None or before.ended_by(mark, info.capacity):
        op.unmark = at
    else:
        _leave(marks, at, before)


def _leave(marks: Unfinished, at: str, mark: Mark | None) -> None:
    # What cannot be taken away now says too much, and not too little.
    with suppress(OSError, errors.PoolkitError):
        if mark is None:
            marks.drop(at)
        else:
            marks.put(at, mark)


def accept(core: Core, op: Operation, record: Record, info: VolumeInfo) -> bool:
    """Take the mark of a volume away, which is new, or gone, or taken as it is; whether there was one."""
    marks, at = Unfinished(core.inventory.database), key(info, record.target)
    return marks.get(at) is not None if op.dry else marks.drop(at)


def left(core: Core, record: Record, volumes: Iterable[VolumeInfo]) -> dict[str, str]:
    """What is to be said of those of ``volumes``, all of one pool, that were left half-written, by name."""
    marks = Unfinished(core.inventory.database).all()
    if not marks:
        return {}
    found = {info.name: (info, mark) for info in volumes if (mark := marks.get(key(info, record.target))) is not None}
    if not found:
        return {}
    # Not what is at work still.
    alive = {work.volume for work in core.locks.current(record.name) if not work.shared and not work.ticket}
    backend = core.definitions.backend(core.definitions.running(record), core.host.operation())
    return {
        name: _words(mark)
        for name, (info, mark) in found.items()
        if name not in alive and mark.identity == told(backend.identity(info))
    }


def _part(doing: str) -> str:
    return f"was being {doing}: a part of it is new, and the rest as before"


def _words(mark: Mark) -> str:
    again = f"upload it again from byte {mark.start} on" if mark.start else "upload it again"
    return f"it {_part(mark.doing)}; {again}, wipe it or delete it, or adopt it as it is"


def marked(info: VolumeInfo, words: str | None) -> VolumeInfo:
    """A volume with what is to be said of a half-written one, as ``detail["half_written"]``."""
    return info._replace(detail={**(info.detail or {}), "half_written": words}) if words else info


def warn_of(host: Host, pool: str, found: Mapping[str, str]) -> None:
    """Count the volumes of a listing that were left half-written."""
    if found:
        names = sorted(found)
        what = "1 volume is" if len(names) == 1 else f"{len(names)} volumes are"
        why = errors.remedy("vol-info", names[0], pool=pool)
        host.warn(errors.Hint(f"{what} half-written: {quoted(names)}; what was done to it says ", why))


def warn_of_copy(core: Core, op: Operation, record: Record, info: VolumeInfo) -> None:
    """Say that what is being copied was left half-written."""
    words = left(core, record, [info]).get(info.name)
    if words:
        op.host.warn(f"volume '{info.name}' of pool '{record.name}' is half-written, and copied as it is: {words}")
