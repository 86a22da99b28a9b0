"""Volumes from images that are no volumes yet: files, streams, and what servers have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from poolkit import errors, registry
from poolkit.backend import Backend, Outside, Source, VolumeInfo, check_volume_name
from poolkit.engine.keeping import expect, keep_new
from poolkit.engine.operation import Operation, Outcome
from poolkit.engine.options import ImportOptions, of_backend

if TYPE_CHECKING:  # a pool imports this module
    from poolkit.content.arriving import Checksum
    from poolkit.engine.pool import Pool
    from poolkit.host.port import Host

Origin = str | os.PathLike[str] | BinaryIO
"""A path, an address (http or https), or a binary stream."""


def import_from(pool: Pool, name: str, origin: Origin, how: ImportOptions) -> tuple[VolumeInfo, str | None, Outcome]:
    """See :meth:`poolkit.engine.pool.Pool.import_volume`: the new volume, the place of its pool, and the outcome."""
    from poolkit.content.arriving import Checksum

    check_volume_name(name, pool.name)
    core = pool._core
    said = how.get("checksum")
    checksum = None if said is None else Checksum.parse(said)
    capacity = how.get("capacity")
    if capacity is not None and not 0 < capacity < 1 << 63:
        raise errors.InvalidArgument(f"volume '{name}' cannot have {capacity} bytes", pool=pool.name, volume=name)
    with core.volume_work(
        pool.name, "vol-import", name, wait=how.get("wait"), abort=how.get("abort"), progress=how.get("progress")
    ) as (op, backend, record):
        if "clone" not in registry.backend(record.type).verbs():
            raise backend.unsupported("clone", "vol-import")
        core.still_there(backend, record, name, dry=op.dry)
        options = of_backend(how)
        if how.get("secret") is not None:
            options["secret"] = op.host.secret("volume", uuid=how["secret"])
        backend.require_options("clone", options)
        expect(core, op, backend, record, pool._placed)
        with _arrived(op, backend, origin, checksum, how.get("source_format")) as source:
            if source is None:  # a dry run does not fetch
                made = VolumeInfo(name)
            else:
                made = backend.clone(_definition(name, source, backend, how), source, **options)
        keep_new(core, op, backend, record, [made], pool._placed)
    core.emit(op, "volume-created", pool.name, pool.uuid, name)
    format = f", {made.format}" if made.format else ""
    words = f"volume '{name}' is imported: {made.capacity} bytes{format}"
    return made, record.target, op.outcome(True, words)


def sizes(host: Host, origin: Origin, how: ImportOptions) -> tuple[int, int]:
    """Bytes that a volume of an image will have and take, as far as that can be told before it is read; 0 otherwise.

    Raises as the import, for a file that is no image.
    """
    from poolkit.content import arriving, copying
    from poolkit.host import web

    capacity = taken = 0
    word = os.fspath(origin) if isinstance(origin, (str, os.PathLike)) else ""
    if word and not (isinstance(origin, str) and web.is_url(word)):
        with arriving.local(word) as (fd, in_place):
            if in_place:
                image = arriving.judge(host, fd, f"'{errors.shown(word)}'", how.get("source_format"))
                capacity = copying.size_of(fd) if image.capacity is None else image.capacity
                taken = os.fstat(fd).st_blocks * 512 or capacity
    capacity, said = max(capacity, how.get("capacity") or 0), how.get("allocation")
    return capacity, min(taken if said is None else said, capacity)


def _definition(name: str, source: Source, backend: Backend, how: ImportOptions) -> Any:
    """What is to be made: the image as it is, but for what the caller wants otherwise."""
    from poolkit import model

    wanted = how.get("capacity")
    if wanted is not None and wanted < source.capacity:
        raise errors.InvalidArgument(
            f"{source} has {source.capacity} bytes: {wanted} would cut off data", volume=name,
            hint=errors.Hint("leave ", errors.Option("capacity", ...), " out; the volume can be made smaller afterwards"),
        )  # fmt: skip
    format = how.get("format") or (source.format if backend.file_backed else None)
    permissions = how.get("permissions") or model.Permissions()
    return model.Volume(
        name=name, capacity=wanted or source.capacity, allocation=how.get("allocation"),
        target=model.VolumeTarget(format=format, permissions=permissions),
    )  # fmt: skip


@contextlib.contextmanager
def _arrived(
    op: Operation, backend: Backend, origin: Origin, checksum: Checksum | None, format: str | None
) -> Iterator[Source | None]:
    """The image as a source for a copy: a file in place, or what has been read into a file of our own."""
    from poolkit.content import arriving
    from poolkit.host import web

    host = op.host
    with contextlib.ExitStack() as stack:
        fd: int | None = None
        if isinstance(origin, (str, os.PathLike)):
            word = os.fspath(origin)
            address = isinstance(origin, str) and web.is_url(word)
            what = f"'{web.shown(web.check(word)) if address else errors.shown(word)}'"
            if not address:
                fd, in_place = stack.enter_context(arriving.local(word))
                if in_place and (checksum is None or op.dry):
                    if checksum is not None:
                        arriving.verify(host, fd, checksum)
                    yield _source(op, fd, what, word, format)
                    return
                stream: Any = None if in_place else stack.enter_context(open(fd, "rb", buffering=0, closefd=False))
        else:
            standard = getattr(origin, "name", None) in (0, "<stdin>")
            what, address, stream = "standard input" if standard else "the stream", False, origin
        if op.dry:
            host.step(f"read {what}")
            yield None
            return
        landing = stack.enter_context(backend.landing())
        if address:
            arriving.fetch(host, word, landing, checksum)
        elif stream is not None:
            arriving.take(host, stream, landing, checksum)
        elif fd is not None:
            arriving.copy(host, fd, landing, checksum, what)
        yield _source(op, landing, what, "", format, ours=True)


def _source(op: Operation, fd: int, what: str, path: str, format: str | None, *, ours: bool = False) -> Source:
    from poolkit.content import arriving, copying
    from poolkit.families.entries import detail_of

    image = arriving.judge(op.host, fd, what, format)
    size, facts = copying.size_of(fd), os.fstat(fd)
    info = VolumeInfo(
        os.path.basename(path) or "image", format=image.format, capacity=size if image.capacity is None else image.capacity,
        allocation=facts.st_blocks * 512 or size, physical=size, detail=detail_of(image),
    )  # fmt: skip
    where = os.path.abspath(path) if path else ""
    return Source(Outside(), info, where, lambda: contextlib.nullcontext(fd), words=what, ours=ours)
