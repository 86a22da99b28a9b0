"""A volume of a pool and the verbs one does to it."""

from __future__ import annotations

import os
from contextlib import suppress

from poolkit import errors
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO, Unpack

    from poolkit import disks, model
    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine import keeping, operation, standing, writing
    from poolkit.engine import options as given
    from poolkit.engine.chain import Link
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation, Progress
    from poolkit.engine.options import CloneOptions
    from poolkit.engine.pool import Pool
    from poolkit.host import undo
    from poolkit.state.inventory import Record
else:
    standing = later(globals(), "standing", "poolkit.engine.standing")
    writing = later(globals(), "writing", "poolkit.engine.writing")
    keeping = later(globals(), "keeping", "poolkit.engine.keeping")
    given = later(globals(), "given", "poolkit.engine.options")
    operation = later(globals(), "operation", "poolkit.engine.operation")
    undo = later(globals(), "undo", "poolkit.host.undo")

_END = 1 << 63  # the first byte that no file offset reaches
_MODES = 0o7777  # chmod(2)


class Volume:
    """A volume as it was listed; ``info`` has its facts and :meth:`look` renews them."""

    __slots__ = ("directory", "info", "outcome", "pool")

    def __init__(
        self, pool: Pool, info: VolumeInfo, directory: str | None, outcome: operation.Outcome | None = None
    ) -> None:
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
        """The same volume as it is now; ``VolumeNotFound`` if it is gone, ``Busy`` while it is changed. Stores what it finds.

        A plain file that has the stamp with which it was listed is as it was, and no lock is taken for it.
        """
        now = self._core.inventory.record(self.pool.name)
        if now is not None and (same := self._core.as_listed(now, self.info)) is not None:
            return Volume(self.pool, same, self.directory)
        with self._work("vol-info", shared=True) as (op, backend, record):
            from poolkit.engine.refreshing import look

            info = look(self._core, backend, record, self.name, self._core.inventory.volume(record.id, self.name))
            below = standing.edges(backend, op.host, [info], self._core.listed(record))
            lacking = [edge.said for edge in below if edge.missing]
            half = writing.left(self._core, record, [info]).get(self.name)
            seen = writing.marked(standing.marked(info, lacking), half)
            if seen != self.info:
                # What was seen is told all the same; a refresh stores it when something can be written.
                with suppress(errors.NoSpace, errors.PermissionDenied):
                    keeping.keep(self._core, op, backend, record, info)
        return Volume(self.pool, seen, self.directory)

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

    def disk_xml(
        self,
        *,
        chain: bool = False,
        pool_form: bool = False,
        target: str | None = None,
        cache: disks.Cache | None = None,
    ) -> str:
        """The ``<disk>`` element with which a domain of libvirt uses the volume, in the format on record.

        ``chain`` writes down every image below it, so that none is looked for in a header: each must be a volume of an active
        pool, else ``Unsafe``. ``pool_form`` names pool and volume instead of a place. ``target`` is the disk's name in the
        machine (vda; sda for a disc), ``cache`` one of libvirt's modes instead of what suits the storage. An encrypted volume
        has the secret whose usage is its path, else ``SecretNotFound``. ``Unsafe`` for a volume whose format is in doubt,
        ``Unsupported`` for one that no machine can use. Warnings are in ``outcome``; changes nothing.
        """
        from poolkit.engine.disks import disk_xml

        return disk_xml(self, chain=chain, pool_form=pool_form, target=target, cache=cache)

    def blockdev(
        self, *, chain: bool = False, target: str | None = None, cache: disks.Cache | None = None
    ) -> dict[str, Any]:
        """The node that QEMU's ``-blockdev`` and ``json:`` take; arguments and errors as :meth:`disk_xml`.

        Its name is ``target``. Secrets are left to whoever starts QEMU: ids of ``-object secret`` are that name with ``-key``
        (passphrase of the volume) and ``-auth`` (login); with ``chain`` the image number n below has ``-n-key``.
        """
        from poolkit.engine.disks import blockdev

        return blockdev(self, chain=chain, target=target, cache=cache)

    def delete(
        self, *, force: bool = False, delete_snapshots: bool = False, wait: float | None = None
    ) -> operation.Outcome:
        """Delete the volume and its data. One that is gone already is dropped from the listing, unchanged.

        ``HasDependents`` if other volumes or active pools stand on it, ``Busy`` for a file that a machine has open: ``force``
        deletes both. ``delete_snapshots`` deletes the snapshots that are part of a volume along with it, where the pool type
        has such, else ``Unsafe``.
        """
        with self._work("vol-delete", wait=wait) as (op, backend, record):
            standing.require_free_volume(self._core, op, backend, record, self.info, "deleted", force=force)
            changed = True
            try:
                options = {"delete_snapshots": True} if delete_snapshots else {}
                _require_snapshots(backend, options)
                backend.require_options("delete", options)
                with suppress(errors.Unsupported):  # what stands on it may be all that was to be forced
                    backend.require_options("delete", given.forced(force))
                    options |= given.forced(force)
                if backend.file_backed:
                    writing.note(op, undo.gone(self.path, record.id, self.name))
                backend.delete(self.info, **options)
            except errors.VolumeNotFound:
                changed = False
            except (OSError, errors.HostError):
                if backend.file_backed and not os.path.lexists(self.path):
                    with suppress(errors.PoolkitError):  # then it is listed until the next refresh
                        self._core.inventory.drop_volume(record.id, self.name, paths=[self.path])
                raise
            try:
                keeping.forget(self._core, op, backend, record, self.info)
            except (errors.HostError, errors.Busy) as error:
                if any(step.kind != "gone" for step in op.journal.steps):
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
    ) -> operation.Outcome:
        """Set the capacity in bytes, or change it by so many with ``delta``.

        ``allocate`` backs the growth with space, and without growth the holes of a raw volume.

        Less than now needs ``shrink``: the data beyond the new end is lost. With ``shrink`` and ``delta`` the size is
        reduced by ``capacity``. ``HasDependents`` for less than now while other volumes or active pools stand on it. ``force``
        does that, and works on a file with several names, as well. Repeatable without ``delta``.
        """
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
                return operation.Outcome(False, f"volume '{self.name}' has {wanted} bytes already")
            if wanted < now.capacity:
                standing.require_free_volume(self._core, op, backend, record, now, "made smaller", force=force)
            options: dict[str, Any] = {**given.forced(force)}
            if (now.detail or {}).get("backing") and backend.file_backed and wanted > now.capacity:
                from poolkit.engine.chain import trusted

                options["chain"] = trusted(self._core, self.pool.name, self.path, self.info)
            backend.require_options("resize", options)
            self.info = backend.resize(now, wanted, allocate=allocate, shrink=shrink, **options)
            keeping.keep(self._core, op, backend, record, self.info)
        words = f"volume '{self.name}' has {wanted} bytes"
        if wanted == now.capacity:
            words += ", and its space is reserved"
            if not op.dry and self.info.allocation == now.allocation:
                return operation.Outcome(False, words)
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

    def permit(
        self,
        *,
        mode: int | None = None,
        owner: int | None = None,
        group: int | None = None,
        force: bool = False,
        wait: float | None = None,
    ) -> operation.Outcome:
        """Set the permission bits and the owner and group, by number, of a volume that is a file; None leaves one as it is.

        ``Unsupported`` where volumes are no files. ``force`` works on a file with several names as well. Warns of what the
        file system has otherwise nevertheless. Repeatable.
        """
        if mode is not None and not 0 <= mode <= _MODES:
            raise errors.InvalidArgument(f"volume '{self.name}' cannot have the mode {mode:o}", volume=self.name)
        asked = {"mode": mode, "owner": owner, "group": group}
        with self._work("vol-permit", wait=wait) as work:
            op, backend, record = work
            now = self._core.same_volume(backend, record, self.info)
            if "permit" in backend.verbs() and all(value in (None, getattr(now, k)) for k, value in asked.items()):
                return operation.Outcome(False, f"volume '{self.name}' has these permissions already")
            backend.require_options("permit", given.forced(force))
            self.info = backend.permit(now, mode, owner, group, **given.forced(force))
            keeping.keep(self._core, op, backend, record, self.info)
            for what, value in asked.items():
                if not op.dry and value not in (None, getattr(self.info, what)):
                    op.host.warn(f"volume '{self.name}': its {what} is another still: the file system decides that")
        self._emit(op, "volume-changed")
        return op.outcome(True, f"volume '{self.name}' has new permissions")

    def wipe(
        self,
        algorithm: str = "zero",
        *,
        force: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> operation.Outcome:
        """Make the data unreadable; the volume keeps its name and capacity, and an image becomes an empty one.

        ``algorithm`` is zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random or trim; the outcome's message
        says what it promises. Cannot be undone: an abort leaves the volume partly wiped. ``HasDependents`` if other volumes or
        active pools stand on it. ``force`` wipes it nevertheless, and a file with several names as well.
        """
        from poolkit.content.wiping import PROMISES, check_algorithm

        check_algorithm(algorithm)
        with self._work("vol-wipe", wait=wait, abort=abort, progress=progress) as work:
            op, backend, record = work
            now = self._core.same_volume(backend, record, self.info)
            standing.require_free_volume(self._core, op, backend, record, now, "wiped", force=force)
            options = given.forced(force)
            backend.require_options("wipe", options)
            with writing.in_place(self._core, work, now, "wiped"):
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
        form: str | None = None,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> operation.Outcome:
        """Write the bytes of a binary stream into the volume's storage, from ``offset`` on, ``length`` bytes (0: all).

        The recorded format stays. A raw volume is written in place, and never beyond its capacity. An image is replaced as
        a whole when the last byte has arrived and its header was found sound; ``backing`` accepts one that stands on a
        backing image. ``sparse`` makes holes of zeros. ``form`` says what the bytes are packed as, for pool types that know
        such (``vhd`` and ``tar`` of xensm). Raises ``InvalidArgument`` for a range outside of the volume, and
        ``HasDependents`` if other volumes or active pools stand on it, unless ``force``.
        """
        from poolkit.engine.transferring import upload

        return upload(
            self, stream, (offset, length, sparse), force=force, backing=backing, form=form, wait=wait, abort=abort,
            progress=progress,
        )  # fmt: skip

    def overwrite(
        self,
        source: Volume,
        *,
        force: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> operation.Outcome:
        """Replace all content by that of ``source``, a volume of any pool; images as what they hold.

        For pools whose volumes are made elsewhere, such as logical units; ``Unsupported`` for others, which have clones.
        ``InvalidArgument`` if it does not fit; what is left of the volume reads as zeros then.
        """
        from poolkit.engine.cloning import overwrite

        return overwrite(self, source, given.forced(force), wait, abort, progress)

    def download(
        self,
        stream: BinaryIO,
        *,
        offset: int = 0,
        length: int = 0,
        sparse: bool = False,
        unfinished: str | None = None,
        settle: Callable[[], None] | None = None,
        form: str | None = None,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write the bytes of the volume's storage, as they are, to a binary stream; returns how many.

        ``length`` 0 means to the end. ``sparse`` makes holes in a stream that is a regular file. Changes nothing. ``outcome``
        of this object has what there is to be warned of, such as a machine that writes to the volume. ``unfinished`` is the
        path that the caller's own file has until it is whole, which is removed if the work fails or its process dies;
        ``settle`` is called when all bytes are there, to put the file into its place. ``form`` is as for :meth:`upload`.
        """
        from poolkit.engine.transferring import download

        return download(
            self, stream, (offset, length, sparse), unfinished=unfinished, settle=settle, form=form, wait=wait, abort=abort,
            progress=progress,
        )  # fmt: skip

    def attach(
        self,
        *,
        shared: bool = False,
        node: str | None = None,
        vm: str | None = None,
        wait: float | None = None,
        abort: threading.Event | None = None,
    ) -> operation.Outcome:
        """Make the volume usable on this host alone, or with ``shared`` on this one as on others; its ``path`` is there then.

        Repeatable: what is attached already is unchanged, but for a size that was changed elsewhere, which is seen then.
        ``node`` allows another host to attach it, where the storage needs that; ``vm`` plugs it into a virtual machine of the
        storage's own hosts, by name or uuid (xensm). ``Busy``, with the holder's name, for what is
        attached elsewhere; ``Unsupported`` for pool types whose volumes need no attaching.
        """
        from poolkit.engine.attaching import attach

        return attach(self, shared=shared, node=node, vm=vm, wait=wait, abort=abort)

    def detach(
        self,
        *,
        node: str | None = None,
        vm: str | None = None,
        force: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
    ) -> operation.Outcome:
        """End what :meth:`attach` began. Repeatable. ``Busy``, with the user, while the volume is in use on this host.

        ``vm`` ends it for one virtual machine; without, for all that :meth:`attach` plugged it into.
        With ``node`` and ``force`` it ends for another host, of which the caller knows that it is dead or has let go.
        """
        from poolkit.engine.attaching import detach

        return detach(self, node=node, vm=vm, force=force, wait=wait, abort=abort)

    def chain(self) -> list[Link]:
        """The images this volume stands on, itself first. Opens nothing but regular files and block devices, changes nothing."""
        from poolkit.engine.chain import walk

        return walk(self._core, self.pool.name, self.path, self.info)

    def adopt(self, format: str | None = None, *, wait: float | None = None) -> operation.Outcome:
        """Record the format of the volume; from now on it is never guessed again. Repeatable.

        Without ``format`` the header decides, now; ``Unsafe`` if it passes for several formats. A volume that poolkit made
        needs no adoption; one whose recorded format is wrong gets the right one this way. A volume that was left half-written
        is taken as it is, and not told of any more.
        """
        from poolkit.engine.adopting import adopt

        return adopt(self, format, wait)

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
    ) -> AbstractContextManager[tuple[Operation, Backend, Record]]:
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
        keeping.keep(self._core, op, backend, record, self.info)


def _require_snapshots(backend: Backend, options: dict[str, bool]) -> None:
    try:
        backend.require_options("delete", {key: True for key in options if key == "delete_snapshots"})
    except errors.Unsupported as error:
        raise errors.Unsupported(
            f"snapshots are not deleted along with a volume in pools of type '{backend.type}'", pool=error.pool,
            hint="a snapshot is a volume of its own: delete it by its name",
        ) from error  # fmt: skip
