"""A pool of an engine and the verbs one does to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from poolkit import errors
from poolkit.backend import Backend, VolumeInfo, check_volume_name
from poolkit.engine import admission
from poolkit.engine.bringing_up import bring_up
from poolkit.engine.core import Core
from poolkit.engine.operation import Operation, Outcome
from poolkit.engine.options import CloneOptions, CreateOptions, checked, of_backend
from poolkit.engine.volume import Volume
from poolkit.host.port import Host
from poolkit.state.inventory import Record

if TYPE_CHECKING:
    import os

    from poolkit import model


class PoolInfo(NamedTuple):
    """Facts of a pool; sizes in bytes (0 when inactive), ``refreshed`` in seconds since 1970.

    ``reason`` says why a pool that was started is not active, or why its last refresh failed.
    """

    name: str
    uuid: str
    type: str
    active: bool
    persistent: bool
    autostart: bool
    target: str | None
    capacity: int
    allocation: int
    available: int
    refreshed: float | None
    reason: str

    @property
    def state(self) -> str:
        """``active``, ``inactive`` or ``invalid`` (its definition file cannot be read)."""
        return "active" if self.active else "inactive" if self.type else "invalid"


class Pool:
    """A pool by name; every call looks at its present state. ``outcome`` is that of the verb that returned it."""

    def __init__(self, core: Core, name: str, uuid: str, outcome: Outcome | None = None) -> None:
        self._core = core
        self.name = name
        self.uuid = uuid
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same pool of the same root, whatever engine or look-up it came from."""
        if not isinstance(other, Pool):
            return NotImplemented
        mine, theirs = (self.uuid or self.name, self._core.locations), (other.uuid or other.name, other._core.locations)
        return mine == theirs

    def __hash__(self) -> int:
        return hash(self.uuid or self.name)

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def info(self) -> PoolInfo:
        """Facts of the pool now; ``PoolNotFound``."""
        return info_of(self._core, self._core.record(self.name))

    def definition(self, *, inactive: bool = False) -> Any:
        """The definition in force: the running one of an active pool with its live facts, else the stored one.

        ``inactive`` always gives the stored one.
        """
        record = self._core.record(self.name)
        if not inactive and self._core.activity(record)[0]:
            import dataclasses

            live = self._core.definitions.running(record)
            live = self._core.definitions.backend(live).live()
            return dataclasses.replace(
                live, capacity=record.capacity, allocation=record.allocation, available=record.available
            )
        if record.stamp is None:
            if inactive:
                raise errors.InvalidState(
                    f"pool '{self.name}' is transient: it has no stored definition", pool=self.name
                )
            return self._core.definitions.running(record)
        return self._core.definitions.load(self.name)

    def xml(self, *, inactive: bool = False) -> str:
        """The definition in force as XML, as libvirt prints it; see :meth:`definition`."""
        from poolkit import xmlmap

        return xmlmap.write(self.definition(inactive=inactive))

    # -- transitions ----------------------------------------------------------------------------------------------

    def undefine(self, *, wait: float | None = None) -> Outcome:
        """Forget the stored definition; storage and data stay. ``InvalidState`` while active, ``PoolNotFound``."""
        with self._core.work(self.name, "undefine", wait) as op:
            record = self._core.record(self.name)
            self._core.require_inactive(record, "undefine", op.host)
            self._core.store.remove(self.name, op.host)
            if not op.dry:
                self._core.inventory.drop(record.id, operation=op.id)
        return self._done(op, "undefined", f"pool '{self.name}' is undefined")

    def build(self, *, overwrite: bool = False, wait: float | None = None) -> Outcome:
        """Make the storage that the definition describes; ``overwrite`` allows to destroy what the source holds.

        Repeatable. ``InvalidState`` while active; ``Unsafe`` when the source holds something else.
        """
        with self._core.work(self.name, "build", wait) as op:
            record = self._core.record(self.name)
            self._core.require_inactive(record, "build", op.host)
            backend = self._core.definitions.backend(self._core.definitions.load(self.name), op.host)
            admission.require_root(backend, "build", op.host, self.name)
            changed = backend.build(overwrite=overwrite)
        words = "is built" if changed else "is built already"
        return self._done(op, "created" if changed else None, f"pool '{self.name}' {words}", changed)

    def start(
        self,
        *,
        build: bool = False,
        overwrite: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
    ) -> Outcome:
        """Bring the pool up and list its volumes; ``build`` makes its storage first. Repeatable.

        An active pool whose storage can never work again, as when the client of a Gluster mount has died or
        an NFS handle is stale, is brought up anew.
        If anything fails what was started is stopped again and the pool stays inactive.
        """
        core = self._core
        with self._core.work(self.name, "start", wait, abort=abort) as op:
            record = core.record(self.name)
            anew = core.activity(record, op.host)[0]
            if anew:
                definition = core.definitions.running(record)
                if not core.definitions.backend(definition, op.host).state(closely=True).lame:
                    return Outcome(False, f"pool '{self.name}' is active already")
            else:
                definition = core.definitions.load(self.name, record.stamp)
            up = bring_up(core, definition, op, record, build=build, overwrite=overwrite, anew=anew)
            if not op.dry:
                with core.locks.definitions():
                    admission.refuse_shared_place(core, definition, op.host)  # again, under the lock
                    core.inventory.set_active(
                        record.id, core.definitions.text(definition), core.boot, op.id, up.volumes, up.usage,
                        real=up.real, storage=up.storage,
                    )  # fmt: skip
        return self._done(op, "started", f"pool '{self.name}' is active")

    def refresh(self, *, wait: float | None = None, abort: threading.Event | None = None) -> Outcome:
        """List the volumes anew; only what changed is looked into. Holds no lock that listing or look-ups wait for.

        If it fails the pool stays active and the last listing stays; the error is also in ``info.reason``.
        """
        core = self._core
        with self._core.work(self.name, "refresh", wait, shared=True, abort=abort) as op:
            record = self._core.require_active(self.name, "refresh", op.host)
            backend = core.definitions.backend(core.definitions.running(record), op.host)
            try:
                scanned, volumes, usage = core.scan(backend, record, record.target)
            except (OSError, errors.HostError) as error:
                if not op.dry:
                    core.inventory.set_trouble(record.id, f"the last refresh failed: {error}")
                raise
            if not op.dry:
                core.inventory.save_listing(record.id, volumes, scanned, usage)
            _warn_of_problems(op.host, self.name, volumes)
        changed = core.inventory.version(record.id) != scanned
        return self._done(op, "refreshed", f"pool '{self.name}' has {len(volumes)} volumes", changed)

    def destroy(self, *, wait: float | None = None) -> Outcome:
        """Take the pool down; no data changes, despite libvirt's name for it. A transient pool is gone. Repeatable."""
        core = self._core
        with self._core.work(self.name, "destroy", wait) as op:
            record = core.record(self.name)
            if not record.active or not record.live or record.boot != core.boot:
                return Outcome(False, f"pool '{self.name}' is inactive already")
            # Stop also what only the run state calls active: half of it may still be up.
            live = core.definitions.running(record)
            core.definitions.backend(live, op.host).stop()
            if not op.dry:
                same = record.stamp is not None and not record.error and core.definitions.load(self.name) == live
                core.inventory.set_inactive(record.id, op.id, same=same)
        return self._done(op, "stopped", f"pool '{self.name}' is inactive")

    def delete(self, *, wait: float | None = None) -> Outcome:
        """Delete what ``build`` made, as far as the type does; the definition stays. Refuses what is active or not empty.

        The outcome's ``removed`` and ``stays`` say what that is, and what is left of the storage.
        """
        core = self._core
        with self._core.work(self.name, "delete", wait) as op:
            record = core.record(self.name)
            self._core.require_inactive(record, "delete", op.host)
            backend = core.definitions.backend(core.definitions.load(self.name), op.host)
            changed = backend.erase()
            removed, stays = backend.erased()
        if changed:
            core.emit(op, "deleted", self.name, self.uuid)
        words = f"pool '{self.name}': {removed} {'was removed' if changed else 'is not there any more'}"
        words += f"; what stays: {stays}" if stays else ""
        return op.outcome(changed, words, removed=removed if changed else "", stays=stays)

    def autostart(self, on: bool = True, *, wait: float | None = None) -> Outcome:
        """Mark the pool to be started at boot (``Engine.start_autostart``), or clear the mark. Repeatable."""
        with self._core.work(self.name, "autostart", wait) as op:
            record = self._core.record(self.name)
            if record.stamp is None:
                raise errors.InvalidState(
                    f"pool '{self.name}' is transient and cannot be started at boot", pool=self.name, hint="define it"
                )
            changed = self._core.store.set_autostart(self.name, on, op.host)
        words = "is started at boot" if on else "is not started at boot"
        return self._done(op, "autostart" if changed else None, f"pool '{self.name}' {words}", changed)

    # -- volumes ----------------------------------------------------------------------------------------------------

    def volumes(self) -> list[Volume]:
        """All volumes of the last listing by name, with all their facts; ``InvalidState`` unless the pool is active."""
        record = self._core.require_active(self.name, "list volumes")
        return [Volume(self, info, record.target) for info in self._core.inventory.volumes(record.id)]

    def volumes_xml(self) -> list[str]:
        """The XML of every volume of the last listing, in one call and without a limit."""
        from poolkit import xmlmap
        from poolkit.engine.describe import describer

        record = self._core.require_active(self.name, "list volumes")
        describe = describer(record.target)
        return [xmlmap.write(describe(info)) for info in self._core.inventory.volumes(record.id)]

    def volume(self, name: str) -> Volume:
        """A volume by name; ``VolumeNotFound``, ``InvalidState`` unless the pool is active."""
        record = self._core.require_active(self.name, "look up a volume")
        info = self._core.inventory.volume(record.id, name)
        if info is None:
            check_volume_name(name, self.name)
            import difflib

            near = difflib.get_close_matches(name, [v.name for v in self._core.inventory.volumes(record.id)], 1)
            raise errors.VolumeNotFound(
                f"pool '{self.name}' has no volume '{name}'",
                pool=self.name,
                volume=name,
                hint=f"did you mean '{near[0]}'?"
                if near
                else errors.Hint(
                    "a file that appeared behind poolkit is listed by ", errors.remedy("refresh", self.name)
                ),
            )
        return Volume(self, info, record.target)

    def create_volume(
        self, source: str | bytes | os.PathLike[str] | model.Volume, **how: Unpack[CreateOptions]
    ) -> Volume:
        """Make a volume from XML, the path of a document or a :class:`poolkit.model.Volume`; whole or not at all.

        ``how`` is described by :class:`~poolkit.engine.options.CreateOptions`. ``Volume.outcome`` is changed unless it is a dry
        run. Raises ``VolumeExists``, ``NoSpace``, ``InvalidDefinition``, ``InvalidState`` unless the pool is active.
        """
        from poolkit.engine.asked import left_out
        from poolkit.engine.cloning import pinned

        options = checked(how, CreateOptions, "create_volume")
        core = self._core
        definition = pinned(core, self._given_volume(source, options))
        name = check_volume_name(definition.name, self.name)
        with core.volume_work(
            self.name, "vol-create", name, wait=options.get("wait"), abort=options.get("abort"),
            progress=options.get("progress"),
        ) as (op, backend, record):  # fmt: skip
            core.still_there(backend, record, name, dry=op.dry)
            if op.dry and backend.file_backed and definition.target.format in (None, "raw"):
                _foresee_space(backend, definition)
            own = of_backend(options)
            backend.require_options("create", own)
            info = backend.create(definition, **own)
            if not op.dry:
                core.inventory.put_volume(record.id, info, op.id)
            made = Volume(self, info, record.target)
            for words in left_out(definition, info, made.path, files=backend.file_backed):
                op.host.warn(words)
        core.emit(op, "volume-created", self.name, self.uuid, name)
        made.outcome = op.outcome(True, f"volume '{name}' is created")
        return made

    def create_volume_from(
        self, definition: str | bytes | os.PathLike[str] | model.Volume, source: Volume, **how: Unpack[CloneOptions]
    ) -> Volume:
        """Make a volume with the content of ``source``, a volume of this or another pool; whole or not at all.

        ``definition`` is XML, the path of a document, a :class:`poolkit.model.Volume`, or just the new name.
        Another format converts; a larger capacity is honoured, a smaller one becomes the source's. ``how`` is described by
        :class:`~poolkit.engine.options.CloneOptions`. Raises as ``create_volume``; ``Unsafe`` for a source that is damaged,
        ambiguous, or needs files that are no volumes of active pools; ``SourceChanged`` if the source was changed meanwhile.
        """
        from poolkit.engine.cloning import create_from

        options = checked(how, CloneOptions, "create_volume_from")
        info, directory, outcome = create_from(self, definition, source, options)
        return Volume(self, info, directory, outcome)

    def _given_volume(self, source: str | bytes | os.PathLike[str] | model.Volume, options: CreateOptions) -> Any:
        return self.parse_volume(
            source, filename=options.get("filename", "<string>"), strict=options.get("strict", True)
        )

    def parse_volume(
        self, source: str | bytes | os.PathLike[str] | model.Volume, *, filename: str = "<string>", strict: bool = True
    ) -> model.Volume:
        """A volume definition from XML text, a path or the definition itself; errors as those of ``Engine.parse``."""
        from poolkit import model, xmlmap

        return xmlmap.given(source, model.Volume, filename=filename, strict=strict)

    def _done(self, op: Operation, event: str | None, message: str, changed: bool = True) -> Outcome:
        if event is not None:
            self._core.emit(op, event, self.name, self.uuid)
        return op.outcome(changed, message)


def info_of(core: Core, record: Record, *, autostart: bool | None = None, host: Host | None = None) -> PoolInfo:
    """Facts of the pool of an inventory's record; ``autostart`` and ``host`` where many pools are asked for at once."""
    active, reason = core.activity(record, host or core.host.operation())
    sizes = (record.capacity, record.allocation, record.available) if active else (0, 0, 0)
    return PoolInfo(
        name=record.name,
        uuid=record.uuid,
        type=record.type,
        active=active,
        persistent=record.stamp is not None,
        autostart=core.store.autostart(record.name) if autostart is None else autostart,
        target=record.target,
        capacity=sizes[0],
        allocation=sizes[1],
        available=sizes[2],
        refreshed=record.refreshed,
        reason=reason or record.error or record.trouble or "",
    )


def _foresee_space(backend: Backend, definition: Any) -> None:
    """``NoSpace`` if a raw volume cannot have what it is to reserve; of other formats only the program knows it."""
    wanted = definition.capacity if definition.allocation is None else definition.allocation
    available = backend.usage(()).available
    if wanted > available:
        raise errors.NoSpace(
            f"volume '{definition.name}' needs {wanted} bytes, and the pool has {available}",
            volume=definition.name,
            hint=errors.Hint("reserve less: ", errors.Option("allocation", 0)),
        )


def _warn_of_problems(host: Host, pool: str, volumes: Sequence[VolumeInfo]) -> None:
    """Count the volumes that are damaged, unreadable, or another format than is on record."""
    odd = [v.name for v in volumes if v.detail is not None and v.problem]
    if odd:
        names = ", ".join(f"'{name}'" for name in odd[:3]) + (", ..." if len(odd) > 3 else "")
        what = "1 volume is" if len(odd) == 1 else f"{len(odd)} volumes are"
        why = errors.remedy("vol-info", odd[0], pool=pool)
        host.warn(
            errors.Hint(f"{what} damaged, unreadable or not what the record says: {names}; what is wrong says ", why)
        )
