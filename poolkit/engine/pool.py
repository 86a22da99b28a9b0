"""A pool of an engine and the verbs one does to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.backend import Backend, check_volume_name
from poolkit.engine.operation import Operation, Outcome, Progress
from poolkit.engine.volume import Volume

if TYPE_CHECKING:
    from poolkit.engine.engine import Engine
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record


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

    def __init__(self, engine: Engine, name: str, uuid: str, outcome: Outcome | None = None) -> None:
        self.engine = engine
        self.name = name
        self.uuid = uuid
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}>"

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def info(self) -> PoolInfo:
        """Facts of the pool now; ``PoolNotFound``."""
        return self.engine.info(self.name)

    def definition(self, *, inactive: bool = False) -> Any:
        """The definition in force: the running one of an active pool with its live facts, else the stored one.

        ``inactive`` always gives the stored one.
        """
        record = self.engine.record(self.name)
        if not inactive and self.engine.activity(record)[0]:
            import dataclasses

            live = self.engine.running(record)
            live = self.engine.backend(live).live()
            return dataclasses.replace(
                live, capacity=record.capacity, allocation=record.allocation, available=record.available
            )
        if record.stamp is None:
            if inactive:
                raise errors.InvalidState(
                    f"pool '{self.name}' is transient: it has no stored definition", pool=self.name
                )
            return self.engine.running(record)
        return self.engine.load(self.name)

    def xml(self, *, inactive: bool = False) -> str:
        """The definition in force as XML, as libvirt prints it; see :meth:`definition`."""
        from poolkit import xmlmap

        return xmlmap.write(self.definition(inactive=inactive))

    # -- transitions ----------------------------------------------------------------------------------------------

    def undefine(self, *, wait: float | None = None) -> Outcome:
        """Forget the stored definition; storage and data stay. ``InvalidState`` while active, ``PoolNotFound``."""
        with self._run("undefine", wait) as op:
            record = self.engine.record(self.name)
            self._require_inactive(record, "undefine", op.host)
            self.engine.store.remove(self.name, op.host)
            if not op.dry:
                self.engine.inventory.drop(record.id, operation=op.id)
        return self._done(op, "undefined", f"pool '{self.name}' is undefined")

    def build(self, *, overwrite: bool = False, wait: float | None = None) -> Outcome:
        """Make the storage that the definition describes; ``overwrite`` allows to destroy what the source holds.

        Repeatable. ``InvalidState`` while active; ``Unsafe`` when the source holds something else.
        """
        with self._run("build", wait) as op:
            record = self.engine.record(self.name)
            self._require_inactive(record, "build", op.host)
            changed = self.engine.backend(self.engine.load(self.name), op.host).build(overwrite=overwrite)
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

        An active pool whose storage can never work again, as when the client of a Gluster mount has died, is brought up anew.
        If anything fails what was started is stopped again and the pool stays inactive.
        """
        engine = self.engine
        with self._run("start", wait, abort=abort) as op:
            record = engine.record(self.name)
            if engine.activity(record, op.host)[0]:
                definition = engine.running(record)
                if not engine.backend(definition, op.host).lame():
                    return Outcome(False, f"pool '{self.name}' is active already")
            else:
                definition = engine.load(self.name, record.stamp)
            volumes, usage = engine.bring_up(definition, op, record, build=build, overwrite=overwrite)
            if not op.dry:
                engine.inventory.set_active(record.id, engine._text(definition), engine.boot, op.id, volumes, usage)
        return self._done(op, "started", f"pool '{self.name}' is active")

    def refresh(self, *, wait: float | None = None, abort: threading.Event | None = None) -> Outcome:
        """List the volumes anew; only what changed is looked into. Holds no lock that listing or look-ups wait for.

        If it fails the pool stays active and the last listing stays; the error is also in ``info.reason``.
        """
        engine = self.engine
        with self._run("refresh", wait, shared=True, abort=abort) as op:
            record = self._require_active("refresh", op.host)
            backend = engine.backend(engine.running(record), op.host)
            try:
                scanned, volumes, usage = engine.scan(backend, record, record.target)
            except (OSError, errors.HostError) as error:
                if not op.dry:
                    engine.inventory.set_trouble(record.id, f"the last refresh failed: {error}")
                raise
            if not op.dry:
                engine.inventory.save_listing(record.id, volumes, scanned, usage)
        changed = engine.inventory.version(record.id) != scanned
        return self._done(op, "refreshed", f"pool '{self.name}' has {len(volumes)} volumes", changed)

    def destroy(self, *, wait: float | None = None) -> Outcome:
        """Take the pool down; no data changes, despite libvirt's name for it. A transient pool is gone. Repeatable."""
        engine = self.engine
        with self._run("destroy", wait) as op:
            record = engine.record(self.name)
            if not record.active or not record.live or record.boot != engine.boot:
                return Outcome(False, f"pool '{self.name}' is inactive already")
            # Stop also what only the run state calls active: half of it may still be up.
            live = engine.running(record)
            engine.backend(live, op.host).stop()
            if not op.dry:
                same = record.stamp is not None and not record.error and engine.load(self.name) == live
                engine.inventory.set_inactive(record.id, op.id, same=same)
        return self._done(op, "stopped", f"pool '{self.name}' is inactive")

    def delete(self, *, wait: float | None = None) -> Outcome:
        """Delete the storage that ``build`` made; the definition stays. Refuses what is active or not empty."""
        engine = self.engine
        with self._run("delete", wait) as op:
            record = engine.record(self.name)
            self._require_inactive(record, "delete", op.host)
            changed = engine.backend(engine.load(self.name), op.host).erase()
        words = "is deleted" if changed else "is deleted already"
        return self._done(op, "deleted" if changed else None, f"the storage of pool '{self.name}' {words}", changed)

    def autostart(self, on: bool = True, *, wait: float | None = None) -> Outcome:
        """Mark the pool to be started at boot (``Engine.start_autostart``), or clear the mark. Repeatable."""
        with self._run("autostart", wait) as op:
            record = self.engine.record(self.name)
            if record.stamp is None:
                raise errors.InvalidState(
                    f"pool '{self.name}' is transient and cannot be started at boot", pool=self.name, hint="define it"
                )
            changed = self.engine.store.set_autostart(self.name, on, op.host)
        words = "is started at boot" if on else "is not started at boot"
        return self._done(op, "autostart" if changed else None, f"pool '{self.name}' {words}", changed)

    # -- volumes ----------------------------------------------------------------------------------------------------

    def volumes(self) -> list[Volume]:
        """All volumes of the last listing by name, with all their facts; ``InvalidState`` unless the pool is active."""
        record = self._require_active("list volumes")
        return [Volume(self, info, record.target) for info in self.engine.inventory.volumes(record.id)]

    def volumes_xml(self) -> list[str]:
        """The XML of every volume of the last listing, in one call and without a limit."""
        from poolkit import xmlmap
        from poolkit.engine.describe import describer

        record = self._require_active("list volumes")
        describe = describer(record.target)
        return [xmlmap.write(describe(info)) for info in self.engine.inventory.volumes(record.id)]

    def volume(self, name: str) -> Volume:
        """A volume by name; ``VolumeNotFound``, ``InvalidState`` unless the pool is active."""
        record = self._require_active("look up a volume")
        info = self.engine.inventory.volume(record.id, name)
        if info is None:
            check_volume_name(name, self.name)
            import difflib

            near = difflib.get_close_matches(name, [v.name for v in self.engine.inventory.volumes(record.id)], 1)
            raise errors.VolumeNotFound(
                f"pool '{self.name}' has no volume '{name}'",
                pool=self.name,
                volume=name,
                hint=f"did you mean '{near[0]}'?"
                if near
                else "a file that appeared behind poolkit is listed after a refresh",
            )
        return Volume(self, info, record.target)

    def create_volume(
        self,
        source: str | bytes | Any,
        *,
        filename: str = "<string>",
        strict: bool = True,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Volume:
        """Make a volume from XML or from a :class:`poolkit.model.Volume`; whole or not at all.

        ``options`` are the backend's own; file pools know ``preallocation`` ("off", "metadata", "falloc", "full"), which a
        definition cannot say. ``Volume.outcome`` is changed unless it is a dry run. Raises ``VolumeExists``, ``NoSpace``,
        ``InvalidDefinition``, ``InvalidState`` unless the pool is active.
        """
        definition = self.parse_volume(source, filename=filename, strict=strict)
        if getattr(definition, "backing_store", None) is not None:
            from poolkit.engine.cloning import pinned

            definition = pinned(self.engine, definition)
        name = check_volume_name(definition.name, self.name)
        with self.volume_work("vol-create", name, wait=wait, abort=abort, progress=progress) as (op, backend, record):
            if not op.dry and self.engine.inventory.volume(record.id, name) is not None:
                self._still_there(backend, record, name)
            backend.require_options("create", options)
            info = backend.create(definition, **options)
            if not op.dry:
                self.engine.inventory.put_volume(record.id, info, op.id)
        self.emit("volume-created", name, op)
        return Volume(self, info, record.target, op.outcome(True, f"volume '{name}' is created"))

    def create_volume_from(
        self,
        definition: str | bytes | Any,
        source: Volume,
        *,
        linked: bool = False,
        reflink: bool | None = None,
        secret: str | None = None,
        filename: str = "<string>",
        strict: bool = True,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Volume:
        """Make a volume with the content of ``source``, a volume of this or another pool; whole or not at all.

        ``definition`` is XML, a :class:`poolkit.model.Volume`, or just the new name. Another format converts; a larger capacity
        is honoured, a smaller one becomes the source's. ``linked`` makes an overlay on the source instead of a copy.
        ``reflink`` True demands that blocks are shared, False that they are copied; None does what is fastest. ``secret``
        (uuid or usage) opens an encrypted source; without it the one whose usage is the source's path. Raises as
        ``create_volume``; ``Unsafe`` for a source that is damaged, ambiguous, or needs files that are no volumes of active pools;
        ``SourceChanged`` if the source was changed meanwhile.
        """
        from poolkit.engine.cloning import create_from

        return create_from(
            self, definition, source, linked=linked, reflink=reflink, secret=secret, filename=filename,
            strict=strict, wait=wait, abort=abort, progress=progress, **options,
        )  # fmt: skip

    def _still_there(self, backend: Backend, record: Record, name: str) -> None:
        try:
            backend.look(name, None)
        except errors.VolumeNotFound:
            self.engine.inventory.drop_volume(record.id, name)
            return
        raise errors.VolumeExists(f"pool '{self.name}' has a volume '{name}' already", pool=self.name, volume=name)

    def parse_volume(self, source: str | bytes | Any, *, filename: str = "<string>", strict: bool = True) -> Any:
        """A volume definition from XML text; ``InvalidDefinition``."""
        if not isinstance(source, (str, bytes)):
            return source
        from poolkit import model, xmlmap

        return xmlmap.read(source, [model.Volume], filename=filename, strict=strict)

    # -- for the verbs ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def volume_work(
        self,
        verb: str,
        name: str,
        *,
        shared: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Operation, Backend, Record]]:
        """Work on one volume of this active pool; ``shared`` work only reads it."""
        engine = self.engine
        with self._run(verb, wait, volume=name, shared=shared, abort=abort, progress=progress) as op:
            record = self._require_active(verb, op.host)
            if record.target is not None:
                place = record.target

                def adopt(name: str, inode: int, format: str) -> None:
                    engine.inventory.record_format(place, name, inode, format)

                op.host.on_adopt = adopt
                if not shared:
                    op.stands_on(place)
            yield op, engine.backend(engine.running(record), op.host), record

    def _run(
        self,
        verb: str,
        wait: float | None,
        *,
        volume: str | None = None,
        shared: bool = False,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> contextlib.AbstractContextManager[Operation]:
        return self.engine.operations.run(
            self.name,
            verb,
            volume=volume,
            shared=shared,
            wait=self.engine._wait(wait),
            abort=abort,
            progress=progress,
        )

    def _require_inactive(self, record: Record, verb: str, host: Host) -> None:
        if self.engine.activity(record, host)[0]:
            raise errors.InvalidState(
                f"cannot {verb} pool '{self.name}' while it is active",
                pool=self.name,
                hint=f"stop it first: poolkit destroy {self.name}",
            )

    def _require_active(self, verb: str, host: Host | None = None) -> Record:
        record = self.engine.record(self.name)
        active, reason = self.engine.activity(record, host)
        if not active:
            why = f": {reason}" if reason else ""
            raise errors.InvalidState(
                f"cannot {verb}: pool '{self.name}' is not active{why}",
                pool=self.name,
                hint=f"start it: poolkit start {self.name}",
            )
        return record

    def emit(self, kind: str, volume: str | None, op: Operation) -> None:
        """Tell the engine's subscribers what ``op`` did."""
        if not op.dry:
            self.engine.events.emit(kind, self.name, self.uuid, volume)

    def _done(self, op: Operation, event: str | None, message: str, changed: bool = True) -> Outcome:
        if event is not None:
            self.emit(event, None, op)
        return op.outcome(changed, message)
