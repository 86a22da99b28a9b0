"""A pool of an engine and the verbs one does to it."""

from __future__ import annotations

from poolkit import errors
from poolkit.engine.poolinfo import PoolInfo, info_of
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Iterable, Iterator
    from typing import Any, Unpack

    from poolkit import model, names
    from poolkit.backend import VolumeInfo
    from poolkit.engine import admission, belonging, bringing_up, creating, operation, standing, writing
    from poolkit.engine import options as given
    from poolkit.engine.core import Core
    from poolkit.engine.importing import Origin
    from poolkit.engine.operation import Operation
    from poolkit.engine.options import CloneOptions, CreateOptions, ImportOptions
    from poolkit.engine.volume import Volume
    from poolkit.state.inventory import Record
    from poolkit.state.placements import Placement
else:
    admission = later(globals(), "admission", "poolkit.engine.admission")
    belonging = later(globals(), "belonging", "poolkit.engine.belonging")
    standing = later(globals(), "standing", "poolkit.engine.standing")
    writing = later(globals(), "writing", "poolkit.engine.writing")
    bringing_up = later(globals(), "bringing_up", "poolkit.engine.bringing_up")
    creating = later(globals(), "creating", "poolkit.engine.creating")
    given = later(globals(), "given", "poolkit.engine.options")
    names = later(globals(), "names", "poolkit.names")
    operation = later(globals(), "operation", "poolkit.engine.operation")


__all__ = ["Pool", "PoolInfo"]


class Pool:
    """A pool by name; every call looks at its present state. ``outcome`` is that of the verb that returned it."""

    def __init__(
        self,
        core: Core,
        name: str,
        uuid: str,
        outcome: operation.Outcome | None = None,
        placed: Placement | None = None,
    ) -> None:
        self._placed = placed  # the flavor that makes a volume through this object, and what it has reserved
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
            from poolkit.xmlmap import replace

            live = self._core.definitions.running(record)
            live = self._core.definitions.backend(live).live()
            return replace(live, capacity=record.capacity, allocation=record.allocation, available=record.available)
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

    def undefine(self, *, force: bool = False, wait: float | None = None) -> operation.Outcome:
        """Forget the stored definition; storage and data stay. ``InvalidState`` while active, ``PoolNotFound``.

        ``HasDependents`` while a flavor has the pool as a backend, unless ``force``.
        """
        with self._core.work(self.name, "undefine", wait) as op:
            record = self._core.record(self.name)
            self._core.require_inactive(record, "undefine", op.host)
            belonging.require_no_flavor(self._core, self.name, "undefined", force=force)
            bringing_up.take_leave(self._core, op, record)
            self._core.store.remove(self.name, op.host)
            if not op.dry:
                self._core.inventory.drop(record.id, operation=op.id)
        if not op.dry:
            self._core.locks.forget(self.name)
        return self._done(op, "undefined", f"pool '{self.name}' is undefined")

    def build(self, *, overwrite: bool = False, wait: float | None = None) -> operation.Outcome:
        """Make the storage that the definition describes; ``overwrite`` allows to destroy what the source holds.

        Repeatable. ``InvalidState`` while active; ``Unsafe`` when the source holds something else, ``HasDependents`` when volumes
        of active pools stand on what would be overwritten.
        """
        with self._core.work(self.name, "build", wait) as op:
            record = self._core.record(self.name)
            self._core.require_inactive(record, "build", op.host)
            backend = self._core.definitions.backend(self._core.definitions.load(self.name), op.host)
            admission.require_root(backend, "build", op.host, self.name)
            if overwrite:
                standing.require_free_source(self._core, op.host, backend, record)
            with backend.exclusive("build"):
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
    ) -> operation.Outcome:
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
                    return operation.Outcome(False, f"pool '{self.name}' is active already")
            else:
                definition = core.definitions.load(self.name, record.stamp)
            up = bringing_up.bring_up(core, definition, op, record, build=build, overwrite=overwrite, anew=anew)
            if not op.dry:
                with core.locks.definitions():
                    # Again, under the lock.
                    claims = core.definitions.backend(definition).claims()
                    admission.refuse_claims_of_others(core, self.name, claims, active=True)
                    admission.refuse_shared_place(core, definition, op.host)
                    core.inventory.set_active(
                        record.id, core.definitions.text(definition), core.boot, op.id, up.volumes, up.usage,
                        real=up.real, storage=up.storage, below=up.below,
                    )  # fmt: skip
                standing.warn_of_missing(op.host, self.name, up.below)
                writing.warn_of(op.host, self.name, writing.left(core, core.record(self.name), up.volumes))
        return self._done(op, "started", f"pool '{self.name}' is active")

    def refresh(
        self, volume: str | None = None, *, wait: float | None = None, abort: threading.Event | None = None
    ) -> operation.Outcome:
        """List the volumes anew; only what changed is looked into. Holds no lock that listing or look-ups wait for.

        If it fails the pool stays active and the last listing stays; the error is also in ``info.reason``.
        With ``volume``, a name, only that one is looked at, however many there are: it is listed if it appeared behind poolkit
        and dropped if it is gone; ``VolumeNotFound`` if it is neither listed nor there.
        """
        from poolkit.engine import refreshing

        if volume is not None:
            return refreshing.one(self._core, self.name, self.uuid, volume, wait, abort)
        return refreshing.whole(self._core, self.name, self.uuid, wait, abort)

    def follow(self, *, wait: float | None = None, abort: threading.Event | None = None) -> Iterator[operation.Outcome]:
        """Refresh now and whenever the storage tells of a changed volume, without a lock between; the outcomes.

        ``Unsupported`` for pool types that do not tell. Ends with ``Aborted`` when ``abort`` is set, and with the first error.
        """
        from poolkit.engine import refreshing

        return refreshing.follow(self._core, self.name, self.uuid, wait, abort)

    def destroy(self, *, force: bool = False, wait: float | None = None) -> operation.Outcome:
        """Take the pool down; no data changes, despite libvirt's name for it. A transient pool is gone. Repeatable.

        ``HasDependents`` if other active pools, or volumes of them, stand on what would be taken away, unless ``force``.
        """
        core = self._core
        with self._core.work(self.name, "destroy", wait) as op:
            record = core.record(self.name)
            if not record.active or not record.live or record.boot != core.boot:
                return operation.Outcome(False, f"pool '{self.name}' is inactive already")
            # Stop also what only the run state calls active: half of it may still be up.
            live = core.definitions.running(record)
            backend = core.definitions.backend(live, op.host)
            standing.require_free_pool(core, op, backend, record, "stopped", force=force)
            backend.stop()
            if not op.dry:
                same = record.stamp is not None and not record.error and core.definitions.load(self.name) == live
                core.inventory.set_inactive(record.id, op.id, same=same)
        if not op.dry and record.stamp is None:  # it was transient
            core.locks.forget(self.name)
        return self._done(op, "stopped", f"pool '{self.name}' is inactive")

    def delete(self, *, force: bool = False, wait: float | None = None) -> operation.Outcome:
        """Delete what ``build`` made, as far as the type does; the definition stays. Refuses what is active or not empty.

        ``HasDependents`` if active pools, or volumes of them, stand on it, or a flavor has it as a backend, unless ``force``.
        The outcome's ``removed`` and ``stays`` say what that is, and what is left of the storage.
        """
        core = self._core
        with self._core.work(self.name, "delete", wait) as op:
            record = core.record(self.name)
            self._core.require_inactive(record, "delete", op.host)
            belonging.require_no_flavor(core, self.name, "deleted", force=force)
            backend = core.definitions.backend(core.definitions.load(self.name), op.host)
            standing.require_free_pool(core, op, backend, record, "deleted", force=force)
            with backend.exclusive("delete"):
                changed = backend.erase()
            removed, stays = backend.erased()
        if changed:
            core.emit(op, "deleted", self.name, self.uuid)
        words = f"pool '{self.name}': {removed} {'was removed' if changed else 'is not there any more'}"
        words += f"; what stays: {stays}" if stays else ""
        return op.outcome(changed, words, removed=removed if changed else "", stays=stays)

    def lock_status(self) -> dict[str, Any]:
        """What keeps the hosts of a shared storage apart, as plain values: ``lock``, ``node``, ``role``, and what the type tells.

        ``Unsupported`` for pool types that no other host shares. Changes nothing.
        """
        with self._core.work(self.name, "lock-status", shared=True) as op:
            record = self._core.require_active(self.name, "lock-status", op.host)
            return dict(self._core.definitions.backend(self._core.definitions.running(record), op.host).lock_status())

    def take_control(self, *, wait: float | None = None) -> operation.Outcome:
        """Make this host the one that changes a shared storage, whichever was before. Repeatable.

        Nothing asks the other host: the caller knows that it does not work on the storage any more. ``Unsupported`` where
        hosts need no such agreement, ``RoleForbidden`` for a compute node.
        """
        with self._core.work(self.name, "take-control", wait) as op:
            record = self._core.require_active(self.name, "take-control", op.host)
            backend = self._core.definitions.backend(self._core.definitions.running(record), op.host)
            changed = backend.take_control()
        words = "has control of" if changed else "has control already of"
        return op.outcome(changed, f"node '{op.host.node.name}' {words} the storage of pool '{self.name}'")

    def autostart(self, on: bool = True, *, wait: float | None = None) -> operation.Outcome:
        """Mark the pool to be started at boot (``Engine.start_autostart``), or clear the mark. Repeatable.

        The outcome's message says what will start it: poolkit has no daemon, so a service of the machine must.
        """
        with self._core.work(self.name, "autostart", wait) as op:
            record = self._core.record(self.name)
            if record.stamp is None:
                raise errors.InvalidState(
                    f"pool '{self.name}' is transient and cannot be started at boot", pool=self.name, hint="define it"
                )
            changed = self._core.store.set_autostart(self.name, on, op.host)
        words = _started_at_boot(self._core) if on else "is not marked for autostart"
        return self._done(op, "autostart" if changed else None, f"pool '{self.name}' {words}", changed)

    # -- volumes ----------------------------------------------------------------------------------------------------

    def volumes(self) -> list[Volume]:
        """All volumes of the last listing by name, with all their facts; ``InvalidState`` unless the pool is active."""
        record = self._core.require_active(self.name, "list volumes")
        return list(self._made(record, [self._core.inventory.volumes(record.id)]))

    def iter_volumes(self) -> Iterator[Volume]:
        """The volumes of :meth:`volumes`, made as they are asked for: few are in memory at any time, however many there are.

        One that is made, changed or deleted meanwhile may come as it was before; the others come exactly once.
        """
        record = self._core.require_active(self.name, "list volumes")
        return self._made(record, self._core.inventory.walk(record.id))

    def _made(self, record: Record, portions: Iterable[list[VolumeInfo]]) -> Iterator[Volume]:
        from poolkit.engine.volume import Volume

        for portion in filter(None, portions):
            lacking = self._core.inventory.missing(record.id, portion[0].name, portion[-1].name)
            if half := self._core.half_written(record, portion):
                portion = [writing.marked(info, half.get(info.name)) for info in portion]
            for info in portion:
                yield Volume(self, standing.marked(info, lacking.get(info.name)) if lacking else info, record.target)

    def volumes_xml(self) -> list[str]:
        """The XML of every volume of the last listing, in one call and without a limit."""
        from poolkit import xmlmap
        from poolkit.engine.describe import describer

        record = self._core.require_active(self.name, "list volumes")
        describe = describer(record.target)
        return [xmlmap.write(describe(info)) for info in self._core.inventory.volumes(record.id)]

    def lists(self, name: str) -> bool:
        """Whether the last listing has a volume of that name; ``InvalidState`` unless the pool is active."""
        record = self._core.require_active(self.name, "look up a volume")
        return self._core.inventory.volume(record.id, name) is not None

    def volume(self, name: str) -> Volume:
        """A volume by name; ``VolumeNotFound``, ``InvalidState`` unless the pool is active."""
        record = self._core.require_active(self.name, "look up a volume")
        info = self._core.inventory.volume(record.id, name)
        if info is None:
            names.check_volume_name(name, self.name)
            import difflib

            # Not all of a large pool: a name that was mistyped is mostly next to the right one in the order.
            near = difflib.get_close_matches(name, self._core.inventory.names_near(record.id, name), 1)
            raise errors.VolumeNotFound(
                f"pool '{self.name}' has no volume '{name}'",
                pool=self.name,
                volume=name,
                hint=f"did you mean '{near[0]}'?" if near
                else errors.Hint("a file that appeared behind poolkit is listed by ", errors.remedy("refresh", self.name)),
            )  # fmt: skip
        if half := self._core.half_written(record, [info]):
            info = writing.marked(info, half.get(name))
        if lacking := self._core.inventory.missing(record.id, name):
            info = standing.marked(info, lacking.get(name))
        return self._volume(info, record.target)

    def create_volume(
        self, source: str | bytes | os.PathLike[str] | model.Volume, **how: Unpack[CreateOptions]
    ) -> Volume:
        """Make a volume from XML, the path of a document or a :class:`poolkit.model.Volume`; whole or not at all.

        ``how`` is described by :class:`~poolkit.engine.options.CreateOptions`. ``Volume.outcome`` is changed unless it is a dry
        run. Raises ``VolumeExists``, ``NoSpace``, ``InvalidDefinition``, ``InvalidState`` unless the pool is active.
        """
        return creating.one(self, source, given.checked(how, given.CreateOptions, "create_volume"))

    def create_volumes(
        self, sources: Iterable[str | bytes | os.PathLike[str] | model.Volume], **how: Unpack[CreateOptions]
    ) -> list[Volume]:
        """Make many volumes, all of them or none, in the order of their definitions; each is there whole or not at all.

        Several times as fast as one after the other: no other work is done on the pool meanwhile, and where volumes are files
        the disk is waited for a few times in all. Where the process dies in it the next verb on the pool takes back what it
        had made; a failing machine may leave some of them, each whole. ``how`` counts for each of them, and ``Volume.outcome`` is
        one for all. Raises what :meth:`create_volume` raises; ``InvalidArgument`` if two have the same name.
        """
        return creating.many(self, sources, given.checked(how, given.CreateOptions, "create_volumes"))

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

        options = given.checked(how, given.CloneOptions, "create_volume_from")
        info, directory, outcome = create_from(self, definition, source, options)
        return self._volume(info, directory, outcome)

    def import_volume(self, name: str, origin: Origin, **how: Unpack[ImportOptions]) -> Volume:
        """Make a volume of an image that is no volume yet; whole or not at all.

        ``origin`` is the path of a file or block device, an address (http or https, with the extra ``http``), or a binary
        stream. The format is kept unless ``how`` says otherwise, which :class:`~poolkit.engine.options.ImportOptions`
        describes. Raises as ``create_volume``; ``Unsafe`` for an image that is ambiguous, damaged, cut short, stands on another
        file, or has another checksum; ``HostError`` and ``Unreachable`` for a server that refuses or does not answer.
        """
        from poolkit.engine.importing import import_from

        info, directory, outcome = import_from(
            self, name, origin, given.checked(how, given.ImportOptions, "import_volume")
        )
        return self._volume(info, directory, outcome)

    def _volume(self, info: VolumeInfo, directory: str | None, outcome: operation.Outcome | None = None) -> Volume:
        from poolkit.engine.volume import Volume

        return Volume(self, info, directory, outcome)

    def parse_volume(
        self, source: str | bytes | os.PathLike[str] | model.Volume, *, filename: str = "<string>", strict: bool = True
    ) -> model.Volume:
        """A volume definition from XML text, a path or the definition itself; errors as those of ``Engine.parse``."""
        from poolkit import model, xmlmap

        return xmlmap.given(source, model.Volume, filename=filename, strict=strict)

    def _done(self, op: Operation, event: str | None, message: str, changed: bool = True) -> operation.Outcome:
        if event is not None:
            self._core.emit(op, event, self.name, self.uuid)
        return op.outcome(changed, message)


def _started_at_boot(core: Core) -> str:
    from poolkit.engine.autostart import starter

    unit = starter(core.locations)
    if unit is not None:
        return f"is started at boot, by {unit}"
    return (
        "is marked for autostart; nothing on this machine starts it at boot (see the manual's page "
        "'Starting pools at boot')"
    )
