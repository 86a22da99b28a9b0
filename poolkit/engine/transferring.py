"""The bytes of a volume as they are: written from a stream, and read into one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.engine import standing, writing
from poolkit.engine.operation import Outcome, Progress
from poolkit.engine.options import forced
from poolkit.host import undo

if TYPE_CHECKING:
    from poolkit.engine.volume import Volume

_END = 1 << 63  # the first byte that no file offset reaches

Part = tuple[int, int, bool]
"""First byte, length (0: to the end), and whether holes are kept."""


def upload(
    volume: Volume, stream: BinaryIO, part: Part, *, force: bool, backing: bool, form: str | None, wait: float | None,
    abort: threading.Event | None, progress: Progress | None,
) -> Outcome:  # fmt: skip
    """See :meth:`poolkit.engine.volume.Volume.upload`."""
    transfer = _transfer(volume, *part)
    with volume._work("vol-upload", wait=wait, abort=abort, progress=progress) as work:
        op, backend, record = work
        now = volume._core.same_volume(backend, record, volume.info)
        standing.require_free_volume(volume._core, op, backend, record, now, "overwritten", force=force)
        options = forced(force) | ({"backing": True} if backing else {}) | _packed(form)
        backend.require_options("upload", options)
        with writing.in_place(volume._core, work, now, "written to", transfer):
            found = backend.upload(now, stream, transfer, **options)
        volume._store(work, backend, found, now)
    volume._emit(op, "volume-changed")
    return op.outcome(True, f"volume '{volume.name}' is uploaded")


def download(
    volume: Volume, stream: BinaryIO, part: Part, *, unfinished: str | None, settle: Callable[[], None] | None,
    form: str | None, wait: float | None, abort: threading.Event | None, progress: Progress | None,
) -> int:  # fmt: skip
    """See :meth:`poolkit.engine.volume.Volume.download`."""
    transfer = _transfer(volume, *part)
    with volume._work("vol-download", shared=True, wait=wait, abort=abort, progress=progress) as work:
        op, backend, record = work
        if unfinished is not None and not op.dry:
            facts = os.stat(unfinished, follow_symlinks=False) if os.path.lexists(unfinished) else None
            writing.note(op, undo.unlink(unfinished, facts))
        now = volume._core.same_volume(backend, record, volume.info)
        writing.warn_of_copy(volume._core, op, record, now)
        backend.require_options("download", _packed(form))
        count = backend.download(now, stream, transfer, **_packed(form))
        if settle is not None:
            settle()
        volume.outcome = op.outcome(False, f"{count} bytes of volume '{volume.name}' were read")
        return count


def _transfer(volume: Volume, offset: int, length: int, sparse: bool) -> Transfer:
    for what, value in (("offset", offset), ("length", length)):
        if not 0 <= value < _END:
            raise errors.InvalidArgument(
                f"volume '{volume.name}': the {what} {value} is no number of bytes from 0 to 2^63 - 1",
                volume=volume.name,
            )
    return Transfer(offset, length, sparse)


def _packed(form: str | None) -> dict[str, str]:
    return {} if form is None else {"form": form}
