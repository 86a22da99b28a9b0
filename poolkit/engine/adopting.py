"""Putting the format of a volume on record that has none there, or a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.backend import Backend, Recorded, VolumeInfo
from poolkit.engine import writing
from poolkit.engine.operation import Operation, Outcome

if TYPE_CHECKING:
    from poolkit.engine.volume import Volume


def adopt(volume: Volume, format: str | None, wait: float | None) -> Outcome:
    """See :meth:`poolkit.engine.volume.Volume.adopt`."""
    from poolkit.formats import FORMATS

    if format is not None and format not in FORMATS:
        raise errors.InvalidArgument(
            f"'{format[:60]}' is no format of an image", volume=volume.name, hint=f"one of: {', '.join(FORMATS)}"
        )
    with volume._work("vol-adopt", wait=wait) as work:
        op, backend, record = work
        if not backend.keeps_formats:
            if format is None and writing.accept(volume._core, op, record, volume.info):
                volume._emit(op, "volume-changed")
                return op.outcome(True, f"volume '{volume.name}' is taken as it is")
            raise errors.Unsupported(
                f"pool '{volume.pool.name}': volumes of type '{backend.type}' have no format of their own"
            )
        known = volume._core.inventory.volume(record.id, volume.name)
        now = backend.look(volume.name, None)
        if now.type == "dir":
            raise errors.Unsupported(f"volume '{volume.name}' is a directory", volume=volume.name)
        if format is not None:
            how: dict[str, Any] = {"recorded": Recorded(now.inode, format)}
            now = backend.look(volume.name, None, **how)
        detail = now.detail or {}
        if detail.get("unread"):
            raise errors.HostError(f"volume '{volume.name}' {now.problem}", pool=volume.pool.name, volume=volume.name)
        if format == "raw":
            now = now._replace(format="raw")  # and not iso, which is used alike
        if format is None and detail.get("ambiguous"):
            raise errors.Unsafe(
                f"volume '{volume.name}' passes for {now.format} and for {', '.join(detail.get('also', ()))}",
                volume=volume.name, hint=errors.Hint("say which one it is: ", errors.Option("format", ...)),
            )  # fmt: skip
        if format != "raw":
            problem = detail.get("error") or _cut_short(op, backend, now)
            if problem:
                raise errors.Unsafe(
                    f"volume '{volume.name}' is not {format or now.format}: {problem}", volume=volume.name
                )
        volume._store(work, backend, now, now)
        half = writing.accept(volume._core, op, record, now)
    doubt = known is None or not known.recorded or bool((known.detail or {}).get("replaced"))
    changed = doubt or half or known is None or known.format != now.format
    if changed:
        volume._emit(op, "volume-changed")
    words = f"the format of volume '{volume.name}' is on record: {now.format}"
    seen = now if op.dry or now.format != "raw" else backend.look(volume.name, now)
    if seen.format != now.format:
        words += f"; it is shown as {seen.format}, which is used alike"
    return op.outcome(changed, words)


def _cut_short(op: Operation, backend: Backend, info: VolumeInfo) -> str | None:
    """Why an image is not whole, from all its tables."""
    from poolkit.content import copying, images, recipes
    from poolkit.formats import FdReader, as_format

    if info.format in recipes.BYTES:
        return None
    source = backend.source(info)
    with source.open() as fd:
        size = copying.size_of(fd)
        image = as_format(FdReader(fd, size), info.format)
        return images.check_whole(op.host, fd, size, image, str(source))
