"""The engine: every state transition of every pool, over one root of definitions and run state."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from poolkit import errors, registry
from poolkit.backend import Backend, Usage, VolumeInfo
from poolkit.engine import admission
from poolkit.engine.events import Event, Subscriptions
from poolkit.engine.index import Index, normal, target_of
from poolkit.engine.operation import Operation, Operations, Outcome
from poolkit.engine.pool import Pool, PoolInfo
from poolkit.engine.volume import Volume
from poolkit.host.port import Host
from poolkit.host.undo import boot
from poolkit.state.inventory import Inventory, Record
from poolkit.state.locks import Locks
from poolkit.state.store import Locations, Store, check_pool_name

if TYPE_CHECKING:
    from poolkit.state.secrets import Secret, Secrets

_KEPT = 64
"""Definitions that are kept in memory: a host can have thousands, and works on few."""


class Engine:
    """Pools and volumes of one root.

    ``root`` moves all of poolkit's own files below one folder; without it the system's places are used as root, the
    user's otherwise (see :mod:`poolkit.state.store`). ``wait`` is how many seconds a verb waits for conflicting work
    before it raises ``Busy``. With ``dry_run`` verbs change nothing and their outcome has the plan. Any number of
    engines, threads and processes may use one root at once. Use as a context manager, or call :meth:`close`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        host: Host | None = None,
        wait: float = 0.0,
        dry_run: bool = False,
    ) -> None:
        self.locations = Locations.choose(root)
        self.host = host or Host(dry_run=dry_run)
        self.wait = wait
        self.store = Store(self.locations)
        self.inventory = Inventory(
            f"{self.locations.state}/inventory.sqlite", fault=self.host.fault, keep=not self.host.dry_run
        )
        self.locks = Locks(f"{self.locations.run}/work")
        self.operations = Operations(self.host, self.locks, self.inventory, f"{self.locations.state}/journal")
        self.events = Subscriptions()
        self._secrets: Secrets | None = None
        self._texts: dict[str, Any] = {}
        self._loaded: dict[str, tuple[int, Any, str]] = {}
        self.host.on_secret = self._secret_value
        self.index = Index(self)
        self._boot: str | None = None
        self._mutex = threading.Lock()
        self.recovered: list[str] = [] if self.host.dry_run else self.operations.recover()
        """What operations that died before had left, and was finished or undone when this engine was opened."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the inventory's connections and end waiting children; pools stay as they are. Repeatable."""
        self.inventory.close()
        self.host.close()

    @property
    def boot(self) -> str:
        """The identity of this boot of the machine: what was active before a reboot is not active now."""
        return self._boot or boot()

    # -- definitions ----------------------------------------------------------------------------------------------

    def parse(self, source: str | bytes | Any, *, filename: str = "<string>", strict: bool = True) -> Any:
        """A pool definition from XML text (or the definition itself), with everything wrong with it in one error.

        ``strict`` makes unknown elements an error; without it they are dropped. Raises ``InvalidDefinition``.
        """
        if not isinstance(source, (str, bytes)):
            return source
        from poolkit import xmlmap

        return xmlmap.read(source, registry.candidates(source), filename=filename, strict=strict)

    def running(self, record: Record) -> Any:
        """The definition a pool was started with."""
        return self._kept(record.live or "", "<string>")

    def _kept(self, text: str, filename: str) -> Any:
        # Definitions are values that do not change, so the last ones read are kept.
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            found = self._texts[text] = self.parse(text, filename=filename, strict=False)
        return found

    def _given(self, source: str | bytes | Any, filename: str, strict: bool) -> Any:
        # A dump of a running pool carries sizes; they are reports, not part of its definition.
        from poolkit import xmlmap

        return xmlmap.without_reports(self.parse(source, filename=filename, strict=strict))

    def load(self, name: str, stamp: int | None = None) -> Any:
        """The stored definition of a pool; ``PoolNotFound``, or ``InvalidDefinition`` if its file was damaged.

        With the ``stamp`` that its file has now, a file that did not change is not read again.
        """
        kept = self._loaded.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        text, settled = self.store.read_with_stamp(name)
        definition = self._kept(text, self.store.path(name))
        if settled is not None and settled == stamp:
            if len(self._loaded) >= _KEPT:
                self._loaded.clear()
            self._loaded[name] = (settled, definition, text)
        return definition

    def backend(self, definition: Any, host: Host | None = None) -> Backend:
        """The executor for a definition."""
        return registry.backend(definition.type)(definition, host or self.host.operation())

    def define(
        self,
        source: str | bytes | Any,
        *,
        filename: str = "<string>",
        strict: bool = True,
        expected: str | None = None,
        wait: float | None = None,
    ) -> Pool:
        """Store a definition; the pool becomes persistent, its state does not change.

        Repeatable: the same definition, with or without its uuid, changes nothing. ``Pool.outcome`` says whether
        anything changed, and for an active pool which fields wait for the next start. Raises ``InvalidDefinition``,
        ``PoolExists`` (name or uuid taken by another pool), ``Conflict`` (source or target belongs to another pool). With
        ``expected`` it replaces only the stored text that is equal to it (``engine.store.read``): ``DefinitionChanged``, or
        ``PoolNotFound`` if there is none any more.
        """
        definition = self._given(source, filename, strict)
        name = check_pool_name(definition.name)
        with self.operations.run(name, "define", wait=self._wait(wait)) as op:
            with self._definitions(op.dry):
                definition, old = admission.admit(self, definition)
                pending = self._pending(self.inventory.record(name), definition)
                if definition != old and expected is not None and expected != self.store.read(name):
                    raise errors.DefinitionChanged(
                        f"the definition of pool '{name}' was changed by others in the meantime",
                        hint="saving now would take their change back",
                    )
                if definition != old and not op.dry:
                    self.store.save(name, self._text(definition), op.host)
                    self.index.sync(name, op.id)
        changed = definition != old
        if changed and not op.dry:
            self.events.emit("defined", name, definition.uuid)
        message = f"pool '{name}' {'is defined' if changed else 'is defined so already'}"
        plan = (f"write {self.store.path(name)}",) if changed else ()
        return Pool(self, name, definition.uuid, Outcome(changed, message, pending, plan=plan))

    def create(
        self,
        source: str | bytes | Any,
        *,
        build: bool = False,
        overwrite: bool = False,
        filename: str = "<string>",
        strict: bool = True,
        wait: float | None = None,
    ) -> Pool:
        """Start a pool without storing its definition: it vanishes when it is stopped. Arguments and errors as
        ``define`` and ``Pool.start``; repeatable for the same definition.
        """
        definition = self._given(source, filename, strict)
        name = check_pool_name(definition.name)
        with self.operations.run(name, "create", wait=self._wait(wait)) as op:
            running = self._running_transient(name, definition)
            if running is not None:
                return Pool(self, name, running.uuid, Outcome(False, f"pool '{name}' is active already"))
            with self._definitions(op.dry):
                definition, _ = admission.admit(self, definition)
            volumes, usage = self.bring_up(definition, op, None, build=build, overwrite=overwrite)
            if not op.dry:
                with self._definitions(op.dry):
                    admission.admit(self, definition)  # nobody took its place while it started
                    row = (name, definition.uuid, definition.type, target_of(definition))
                    claims = tuple(self.backend(definition).claims())
                    self.inventory.add_active(row, claims, self._text(definition), self.boot, op.id, volumes, usage)
        if not op.dry:
            self.events.emit("started", name, definition.uuid)
        return Pool(self, name, definition.uuid, Outcome(True, f"pool '{name}' is active", plan=op.plan()))

    def _running_transient(self, name: str, definition: Any) -> Any:
        """The definition of the transient pool of that name if it runs so already; raises if another pool has the name."""
        record = self.index.sync(name)
        if record is None:
            return None
        if record.stamp is not None:
            raise errors.PoolExists(
                f"pool '{name}' is defined already, so it cannot be made as a transient pool",
                pool=name,
                hint=f"start it: poolkit start {name}",
            )
        if not self.activity(record)[0]:
            return None
        live = self.running(record)
        if live == (admission.with_uuid(definition, live.uuid) if definition.uuid is None else definition):
            return live
        raise errors.PoolExists(
            f"a transient pool '{name}' with another definition is active", pool=name, hint="destroy it first"
        )

    def _definitions(self, dry: bool) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if dry else self.locks.definitions()

    def bring_up(
        self, definition: Any, op: Operation, record: Record | None, *, build: bool = False, overwrite: bool = False
    ) -> tuple[list[VolumeInfo], Usage]:
        """Start the storage of a definition and list it, for the verbs that do so; what fails is undone by ``op``."""
        backend = self.backend(definition, op.host)
        if build:
            backend.build(overwrite=overwrite)
        if op.dry:
            backend.start()
            return [], Usage(0, 0, 0)
        if not (backend.check() and backend.whole):
            backend.start()
        if definition.type in admission.LOCAL:
            admission.refuse_shared_place(self, definition, op.host)
        return self.scan(backend, record, target_of(definition))[1:]

    def scan(self, backend: Backend, record: Record | None, place: str | None) -> tuple[int, list[VolumeInfo], Usage]:
        """The version of the inventory that a listing started from, the listing and the pool's sizes."""
        if backend.host.cautious is not None:
            backend.host.warn(
                f"the inventory was damaged and set aside as '{backend.host.cautious}': images that are listed anew wait for "
                "vol-adopt, or for that file to be removed"
            )
        version, known = self.inventory.known(record, place)
        return version, list(backend.volumes(known)), backend.usage()

    def _pending(self, record: Record | None, definition: Any) -> tuple[tuple[str, Any, Any], ...]:
        if record is None or not record.live or not self.activity(record)[0]:
            return ()
        from poolkit import xmlmap

        # What was dumped of the running pool carries facts of its storage; defining it again leaves nothing pending.
        live = xmlmap.without_reports(self.backend(self.running(record)).live())
        known = {(path, repr(new)) for path, _, new in xmlmap.diff(self.running(record), live)}
        changes = xmlmap.diff(self.running(record), definition)
        return tuple(c for c in changes if (c[0], repr(c[2])) not in known)

    def _text(self, definition: Any) -> str:
        kept = self._loaded.get(definition.name)
        if kept is not None and kept[1] is definition:
            return kept[2]
        from poolkit import xmlmap

        return xmlmap.write(definition)

    # -- look-up ------------------------------------------------------------------------------------------------------

    def pool(self, key: str) -> Pool:
        """A pool by name or by uuid; ``PoolNotFound``."""
        record = self.index.sync(key) if _may_be_name(key) else None
        if record is None:
            record = self._by_uuid(key)
        if record is None:
            self.index.sync()
            record = self.inventory.record(key) or self._by_uuid(key)
        if record is None or not self._exists(record):
            raise self._no_pool(key)
        return Pool(self, record.name, record.uuid)

    def _no_pool(self, key: str) -> errors.PoolNotFound:
        import difflib

        near = difflib.get_close_matches(key, [r.name for r in self.inventory.records()], 1)
        shown = key[:60].encode("unicode_escape").decode("ascii") if not key.isprintable() else key[:200]
        return errors.PoolNotFound(
            f"there is no pool '{shown}'", pool=shown, hint=f"did you mean '{near[0]}'?" if near else None
        )

    def _by_uuid(self, key: str) -> Record | None:
        import uuid

        try:
            return self.inventory.by_uuid(str(uuid.UUID(key)))
        except ValueError:
            return None

    def _exists(self, record: Record) -> bool:
        return record.stamp is not None or (bool(record.active) and record.boot == self.boot)

    def record(self, name: str) -> Record:
        """The inventory's record of a pool, in step with its file; ``PoolNotFound``."""
        record = self.index.sync(name)
        if record is None or not self._exists(record):
            raise self._no_pool(name)
        return record

    def pools(
        self,
        *,
        active: bool | None = None,
        persistent: bool | None = None,
        autostart: bool | None = None,
        types: Iterable[str] = (),
    ) -> list[PoolInfo]:
        """Facts of all pools by name, filtered; what many pools ask the machine is asked once."""
        self.index.sync()
        marked = self.store.autostart_names()
        wanted = frozenset(types)
        host = self.host.operation()
        found = []
        for record in self.inventory.records():
            if not self._exists(record) or (wanted and record.type not in wanted):
                continue
            info = self._info(record, record.name in marked, host)
            if (
                active in (None, info.active)
                and persistent in (None, info.persistent)
                and autostart in (None, info.autostart)
            ):
                found.append(info)
        return found

    def info(self, name: str) -> PoolInfo:
        """Facts of one pool; ``PoolNotFound``."""
        return self._info(self.record(name), self.store.autostart(name), self.host.operation())

    def _info(self, record: Record, autostart: bool, host: Host) -> PoolInfo:
        active, reason = self.activity(record, host)
        sizes = (record.capacity, record.allocation, record.available) if active else (0, 0, 0)
        return PoolInfo(
            name=record.name,
            uuid=record.uuid,
            type=record.type,
            active=active,
            persistent=record.stamp is not None,
            autostart=autostart,
            target=record.target,
            capacity=sizes[0],
            allocation=sizes[1],
            available=sizes[2],
            refreshed=record.refreshed,
            reason=reason or record.error or record.trouble or "",
        )

    def activity(self, record: Record, host: Host | None = None) -> tuple[bool, str]:
        """Whether the pool is active: the run state says so and the storage is up. If only the first, why."""
        if not record.active or not record.live:
            return False, ""
        if record.boot != self.boot:
            return False, ""
        try:
            backend = self.backend(self.running(record), host)
            if backend.check():
                return True, ""
            return False, backend.down or "its storage is not there any more"
        except OSError as error:
            return False, str(errors.from_os_error(error, "look at its storage"))
        except errors.PoolkitError as error:
            return False, str(error)

    def pool_by_target(self, path: str) -> Pool:
        """The pool whose target path is ``path``; ``PoolNotFound``."""
        self.index.sync()
        for record in self.inventory.by_target(normal(path)):
            if self._exists(record):
                return Pool(self, record.name, record.uuid)
        raise errors.PoolNotFound(f"no pool has the target path '{path}'")

    def volume_by_path(self, path: str) -> Volume:
        """The volume at ``path`` in any active pool; ``VolumeNotFound``. One index look-up, whatever the number."""
        return self._find("path", path)

    def volume_by_key(self, key: str) -> Volume:
        """The volume with that key in any active pool; ``VolumeNotFound``."""
        return self._find("key", key)

    def _find(self, column: str, value: str) -> Volume:
        # Volumes of file-backed pools store neither: both are the directory and the name.
        directory, _, name = value.rpartition("/")
        if directory and name:
            for record in self.inventory.by_target(normal(directory)):
                info = self.inventory.volume(record.id, name) if record.active else None
                if info is not None and info.path is None and self._exists(record):
                    return Volume(Pool(self, record.name, record.uuid), info, record.target)
        for number, info in self.inventory.find(column, value):
            owner = self.inventory.by_id(number)
            if owner is not None and owner.active and self._exists(owner):
                return Volume(Pool(self, owner.name, owner.uuid), info, owner.target)
        shown = value[:200] if value.isprintable() else value[:200].encode("unicode_escape").decode("ascii")
        raise errors.VolumeNotFound(
            f"no active pool has a volume with the {column} '{shown}'",
            hint="a file that appeared behind poolkit is listed after the next refresh",
        )

    # -- secrets ------------------------------------------------------------------------------------------------------

    @property
    def secret_store(self) -> Secrets:
        """The secrets of this root."""
        if self._secrets is None:
            from poolkit.state.secrets import Secrets

            self._secrets = Secrets(self.locations, self.host)
        return self._secrets

    def _secret_value(self, uuid: str | None, usage: str | None) -> bytes:
        return self.secret_store.lookup(uuid, usage)

    def define_secret(self, source: str | bytes | Any, *, filename: str = "<string>", strict: bool = True) -> Secret:
        """Store the description of a secret; its value is set on what this returns. Repeatable.

        Raises ``InvalidDefinition``, and ``SecretExists`` when its uuid or usage belong to another secret.
        """
        if self.host.dry_run:
            return self.secret_store.define(source, filename=filename, strict=strict)
        with self.locks.definitions():
            return self.secret_store.define(source, filename=filename, strict=strict)

    def secret(self, key: str) -> Secret:
        """A secret by uuid or by the name of its usage; ``SecretNotFound``."""
        return self.secret_store.find(key)

    def secrets(self) -> list[Secret]:
        """All secrets, by uuid."""
        return self.secret_store.list()

    # -- the whole ----------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``callback`` with every :class:`~poolkit.engine.events.Event` of this engine; returns what ends that."""
        return self.events.add(callback)

    def start_autostart(self) -> list[tuple[str, Outcome | errors.PoolkitError]]:
        """Start every pool marked for autostart; one that fails does not stop the others. For boot time; repeatable."""
        results: list[tuple[str, Outcome | errors.PoolkitError]] = []
        for info in self.pools(autostart=True):
            try:
                results.append((info.name, self.pool(info.name).start()))
            except errors.PoolkitError as error:
                results.append((info.name, error))
        return results

    def discover(self, type: str, source: Any = None) -> list[Any]:
        """Definitions of sources that exist, of a pool type that can be searched; raises ``Unsupported`` otherwise."""
        return list(registry.backend(type).discover(self.host.operation(), source))

    def _wait(self, wait: float | None) -> float:
        return self.wait if wait is None else wait


def _may_be_name(key: str) -> bool:
    try:
        check_pool_name(key)
    except errors.InvalidArgument:
        return False
    return True
