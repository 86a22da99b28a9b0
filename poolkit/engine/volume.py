"""A volume of a pool and the verbs one does to it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

from poolkit import errors
from poolkit.backend import Backend, Transfer, VolumeInfo
from poolkit.engine.operation import Operation, Outcome, Progress
from poolkit.engine.options import CloneOptions

if TYPE_CHECKING:
    import os

    from poolkit import model
    from poolkit.engine.chain import Link
    from poolkit.engine.core import Core
    from poolkit.engine.pool import Pool
    from poolkit.state.inventory import Record

_END = 1 << 63  # the first byte that no file offset reaches


class Volume:
    """A volume as it was listed; ``info`` has its facts and :meth:`look` renews them."""

    __slots__ = ("directory", "info", "outcome", "pool")

    def __init__(self, pool: Pool, info: VolumeInfo, directory: str | None, outcome: Outcome | None = None) -> None:
        self.pool = pool
        self.info = info
        self.directory = directory
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Volume {self.pool.name!r} {self.info.name!r}>"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same volume of the same pool, whatever was known of it when it was listed."""
        if not isinstance(other, Volume):
            return NotImplemented
        return self.pool == other.pool and self.key == other.key and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.pool, self.name))

    @property
    def name(self) -> str:
        """The name, unique in its pool."""
        return self.info.name

    @property
    def path(self) -> str:
        """Where the volume is on this host, or the address a client uses for it."""
        return self.info.path or f"{self.directory}/{self.info.name}"

    @property
    def key(self) -> str:
        """A name that is unique over all pools and stays the same over reboots."""
        return self.info.key or self.path

    @property
    def warning(self) -> str:
        """What an administrator should know of this volume, or an empty string."""
        return str((self.info.detail or {}).get("warning", ""))

    def look(self) -> Volume:
        """The same volume as it is now; ``VolumeNotFound`` if it is gone. Stores what it finds."""
        with self._work("vol-info", shared=True) as (op, backend, record):
            info = backend.look(self.name, self._core.inventory.volume(record.id, self.name))
            if info != self.info and not op.dry:
                # What was seen is told all the same; a refresh stores it when something can be written.
                with contextlib.suppress(errors.NoSpace, errors.PermissionDenied):
                    self._core.inventory.put_volume(record.id, info, op.id)
        return Volume(self.pool, info, self.directory)

    def definition(self) -> Any:
        """The facts as a :class:`poolkit.model.Volume`."""
        from poolkit.engine.describe import describer

        return describer(self.directory)(self.info)

    def xml(self) -> str:
        """The facts as XML, as libvirt prints them: an encrypted volume with the secret whose usage is its path."""
        from poolkit import xmlmap

        definition = self.definition()
        if definition.target.encryption is not None:
            from poolkit.engine.describe import with_secret

            definition = with_secret(definition, self._core)
        return xmlmap.write(definition)

    def delete(self, *, force: bool = False, wait: float | None = None) -> Outcome:
        """Delete the volume and its data. One that is gone already is dropped from the listing, unchanged.

        ``force`` deletes a file that a machine has open as well, else ``Busy``.
        """
        inventory = self._core.inventory
        with self._work("vol-delete", wait=wait) as (op, backend, record):
            changed = True
            try:
                options = _forced(force)
                backend.require_options("delete", options)
                backend.delete(self.info, **options)
            except errors.VolumeNotFound:
                changed = False
            if not op.dry:
                try:
                    inventory.drop_volume(record.id, self.name, op.id)
                except errors.NoSpace as error:
                    if op.id is not None:
                        raise
                    # It is gone, and that is what makes room.
                    op.host.warn(f"the volume is deleted, and is listed until the next refresh: {error}")
        if changed:
            self._emit(op, "volume-deleted")
        words = "is deleted" if changed else "was gone already"
        return op.outcome(changed, f"volume '{self.name}' {words}")

    def resize(
        self,
        capacity: int,
        *,
        delta: bool = False,
        allocate: bool = False,
        shrink: bool = False,
        force: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Set the capacity in bytes, or change it by so many with ``delta``.

        ``allocate`` backs the growth with space, and without growth the holes of a raw volume.

        Less than now needs ``shrink``: the data beyond the new end is lost. With ``shrink`` and ``delta`` the size is
        reduced by ``capacity``. ``force`` works on a file with several names as well. Repeatable without ``delta``.
        """
        inventory = self._core.inventory
        with self._work("vol-resize", wait=wait, abort=abort, progress=progress) as work:
            op, backend, record = work
            now = self._core.same_volume(backend, record, self.info)
            wanted = capacity if not delta else now.capacity - abs(capacity) if shrink else now.capacity + capacity
            if not 0 <= wanted < _END or (delta and capacity < 0 and not shrink):
                raise errors.InvalidArgument(f"volume '{self.name}' cannot have {wanted} bytes", volume=self.name)
            wanted = backend.rounded(wanted)
            if wanted < now.capacity and not shrink:
                raise errors.InvalidArgument(
                    f"volume '{self.name}' has {now.capacity} bytes; making it {wanted} would cut off data",
                    volume=self.name,
                    hint=errors.Hint("if that is meant, add ", errors.Option("shrink")),
                )
            if wanted == now.capacity and (not allocate or now.allocation >= wanted):
                return Outcome(False, f"volume '{self.name}' has {wanted} bytes already")
            options: dict[str, Any] = {**_forced(force)}
            if (now.detail or {}).get("backing") and backend.file_backed and wanted > now.capacity:
                from poolkit.engine.chain import trusted

                options["chain"] = trusted(self._core, self.pool.name, self.path, self.info)
            backend.require_options("resize", options)
            self.info = backend.resize(now, wanted, allocate=allocate, shrink=shrink, **options)
            if not op.dry:
                inventory.put_volume(record.id, self.info, op.id)
        words = f"volume '{self.name}' has {wanted} bytes"
        if wanted == now.capacity:
            words += ", and its space is reserved"
            if not op.dry and self.info.allocation == now.allocation:
                return Outcome(False, words)
        self._emit(op, "volume-changed")
        return op.outcome(True, words)

    def clone(
        self,
        definition: str | bytes | os.PathLike[str] | model.Volume,
        *,
        pool: Pool | None = None,
        **how: Unpack[CloneOptions],
    ) -> Volume:
        """Make a volume with this one's content, in ``pool`` or in this one's; see :meth:`Pool.create_volume_from`."""
        return (pool or self.pool).create_volume_from(definition, self, **how)

    def wipe(
        self,
        algorithm: str = "zero",
        *,
        force: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Make the data unreadable; the volume keeps its name and capacity, and an image becomes an empty one.

        ``algorithm`` is zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random or trim; the outcome's message
        says what it promises. Cannot be undone: an abort leaves the volume partly wiped. ``force`` works on a file with
        several names as well.
        """
        from poolkit.content.wiping import PROMISES, check_algorithm

        check_algorithm(algorithm)
        with self._work("vol-wipe", wait=wait, abort=abort, progress=progress) as work:
            op, backend, record = work
            now = self._core.same_volume(backend, record, self.info)
            options = _forced(force)
            backend.require_options("wipe", options)
            found = backend.wipe(now, algorithm, **options)
            self._store(work, backend, found, now)
        self._emit(op, "volume-changed")
        return op.outcome(True, f"volume '{self.name}' is wiped: {PROMISES[algorithm]}")

    def upload(
        self,
        stream: BinaryIO,
        *,
        offset: int = 0,
        length: int = 0,
        sparse: bool = False,
        force: bool = False,
        backing: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Write the bytes of a binary stream into the volume's storage, from ``offset`` on, ``length`` bytes (0: all).

        The recorded format stays. A raw volume is written in place, and never beyond its capacity. An image is replaced as
        a whole when the last byte has arrived and its header was found sound; ``backing`` accepts one that stands on a
        backing image. ``sparse`` makes holes of zeros. Raises ``InvalidArgument`` for a range outside of the volume.
        """
        transfer = self._transfer(offset, length, sparse)
        with self._work("vol-upload", wait=wait, abort=abort, progress=progress) as work:
            op, backend, record = work
            now = self._core.same_volume(backend, record, self.info)
            options = _forced(force) | ({"backing": True} if backing else {})
            backend.require_options("upload", options)
            found = backend.upload(now, stream, transfer, **options)
            self._store(work, backend, found, now)
        self._emit(op, "volume-changed")
        return op.outcome(True, f"volume '{self.name}' is uploaded")

    def download(
        self,
        stream: BinaryIO,
        *,
        offset: int = 0,
        length: int = 0,
        sparse: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write the bytes of the volume's storage, as they are, to a binary stream; returns how many.

        ``length`` 0 means to the end. ``sparse`` makes holes in a stream that is a regular file. Changes nothing. ``outcome``
        of this object has what there is to be warned of, such as a machine that writes to the volume.
        """
        transfer = self._transfer(offset, length, sparse)
        with self._work("vol-download", shared=True, wait=wait, abort=abort, progress=progress) as (
            op,
            backend,
            record,
        ):
            count = backend.download(self._core.same_volume(backend, record, self.info), stream, transfer)
            self.outcome = op.outcome(False, f"{count} bytes of volume '{self.name}' were read")
            return count

    def chain(self) -> list[Link]:
        """The images this volume stands on, itself first. Opens nothing but regular files and block devices, changes nothing."""
        from poolkit.engine.chain import walk

        return walk(self._core, self.pool.name, self.path, self.info)

    def adopt(self, format: str | None = None, *, wait: float | None = None) -> Outcome:
        """Record the format of the volume; from now on it is never guessed again. Repeatable.

        Without ``format`` the header decides, now; ``Unsafe`` if it passes for several formats. A volume that poolkit made
        needs no adoption; one whose recorded format is wrong gets the right one this way.
        """
        from poolkit.formats import FORMATS

        if format is not None and format not in FORMATS:
            raise errors.InvalidArgument(
                f"'{format[:60]}' is no format of an image", volume=self.name, hint=f"one of: {', '.join(FORMATS)}"
            )
        with self._work("vol-adopt", wait=wait) as work:
            op, backend, record = work
            if not backend.file_backed:
                raise errors.Unsupported(
                    f"pool '{self.pool.name}': volumes of type '{backend.type}' have no format of their own"
                )
            known = self._core.inventory.volume(record.id, self.name)
            now = backend.look(self.name, None)
            if now.type == "dir":
                raise errors.Unsupported(f"volume '{self.name}' is a directory", volume=self.name)
            if format is not None:
                now = backend.look(self.name, VolumeInfo(self.name, format=format, inode=now.inode, physical=1))
            detail = now.detail or {}
            if detail.get("unread"):
                raise errors.HostError(f"volume '{self.name}' {now.problem}", pool=self.pool.name, volume=self.name)
            if format == "raw":
                now = now._replace(format="raw")  # and not iso, which is used alike
            if format is None and detail.get("ambiguous"):
                raise errors.Unsafe(
                    f"volume '{self.name}' passes for {now.format} and for {', '.join(detail.get('also', ()))}",
                    volume=self.name, hint=errors.Hint("say which one it is: ", errors.Option("format", ...)),
                )  # fmt: skip
            if format != "raw":
                problem = detail.get("error") or _cut_short(op, backend, now)
                if problem:
                    raise errors.Unsafe(
                        f"volume '{self.name}' is not {format or now.format}: {problem}", volume=self.name
                    )
            self._store(work, backend, now, now)
        doubt = known is None or not known.recorded or bool((known.detail or {}).get("replaced"))
        changed = doubt or known is None or known.format != now.format
        if changed:
            self._emit(op, "volume-changed")
        words = f"the format of volume '{self.name}' is on record: {now.format}"
        seen = now if op.dry or now.format != "raw" else backend.look(self.name, now)
        if seen.format != now.format:
            words += f"; it is shown as {seen.format}, which is used alike"
        return op.outcome(changed, words)

    # -- parts ----------------------------------------------------------------------------------------------------------

    @property
    def _core(self) -> Core:
        return self.pool._core

    def _work(
        self,
        verb: str,
        *,
        shared: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> contextlib.AbstractContextManager[tuple[Operation, Backend, Record]]:
        return self._core.volume_work(
            self.pool.name, verb, self.name, shared=shared, wait=wait, abort=abort, progress=progress
        )

    def _emit(self, op: Operation, kind: str) -> None:
        self._core.emit(op, kind, self.pool.name, self.pool.uuid, self.name)

    def _store(
        self, work: tuple[Operation, Backend, Record], backend: Backend, found: VolumeInfo | None, before: VolumeInfo
    ) -> None:
        op, _, record = work
        if op.dry:
            return
        self.info = backend.look(self.name, before) if found is None else found
        self._core.inventory.put_volume(record.id, self.info, op.id)

    def _transfer(self, offset: int, length: int, sparse: bool) -> Transfer:
        for what, value in (("offset", offset), ("length", length)):
            if not 0 <= value < _END:
                raise errors.InvalidArgument(
                    f"volume '{self.name}': the {what} {value} is no number of bytes from 0 to 2^63 - 1",
                    volume=self.name,
                )
        return Transfer(offset, length, sparse)


def _cut_short(op: Operation, backend: Backend, info: VolumeInfo) -> str | None:
    """Why an image is not whole, from all its tables."""
    from poolkit.content import copying, images
    from poolkit.formats import FdReader, as_format

    if info.format in images.BYTES:
        return None
    source = backend.source(info)
    with source.open() as fd:
        size = copying.size_of(fd)
        image = as_format(FdReader(fd, size), info.format)
        return images.check_whole(op.host, fd, size, image, str(source))


def _forced(force: bool) -> dict[str, bool]:
    # Only file volumes can have several names; other backends need not know the word.
    return {"force": True} if force else {}
