"""The engine: every state transition of every pool, over one root of definitions and run state."""

from __future__ import annotations

from contextlib import nullcontext, suppress

from poolkit import errors
from poolkit.engine.core import Core
from poolkit.engine.index import normal, target_of
from poolkit.engine.poolinfo import info_of
from poolkit.host.port import Host
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.state.store import check_pool_name

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from poolkit import documents, model, registry
    from poolkit.engine import admission, bringing_up, operation
    from poolkit.engine.autostart import Started
    from poolkit.engine.events import Event
    from poolkit.engine.flavors import Flavors
    from poolkit.engine.plan.export import Exported
    from poolkit.engine.plan.plan import Plan
    from poolkit.engine.plan.sources import Document
    from poolkit.engine.pool import Pool
    from poolkit.engine.poolinfo import PoolInfo
    from poolkit.engine.storage_manager import StorageManager
    from poolkit.engine.volume import Volume
    from poolkit.host.node import Node
    from poolkit.state import settings
    from poolkit.state.inventory import Record
    from poolkit.state.secrets import Secret, Secrets
    from poolkit.state.store import Locations
else:
    admission = later(globals(), "admission", "poolkit.engine.admission")
    bringing_up = later(globals(), "bringing_up", "poolkit.engine.bringing_up")
    operation = later(globals(), "operation", "poolkit.engine.operation")
    registry = later(globals(), "registry", "poolkit.registry")
    settings = later(globals(), "settings", "poolkit.state.settings")


class Engine:
    """Pools and volumes of one root.

    ``root`` moves all of poolkit's own files below one folder; without it the system's places are used as root, the
    user's otherwise (see :class:`~poolkit.state.store.Locations`). ``wait`` is how many seconds a verb waits for conflicting work
    before it raises ``Busy``. ``node`` is this host among those that share storage; by default what ``host.toml`` says
    (:mod:`poolkit.state.settings`). With ``dry_run`` verbs change nothing and their outcome has the plan. Any number of
    engines, threads and processes may use one root at once. Use as a context manager, or call :meth:`close`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        host: Host | None = None,
        wait: float = 0.0,
        dry_run: bool = False,
        node: Node | None = None,
    ) -> None:
        self.host = host or Host(dry_run=dry_run)
        self.core = Core(root, self.host, wait)
        """What the verbs stand on. Internal: it changes without notice."""
        self.core.relist = self._relist
        self._secrets: Secrets | None = None
        self.host.on_secret = self._secret_value
        self.host.on_node = lambda: node or settings.read(self.core.locations.settings)
        self.recovered: list[str] = [] if self.host.dry_run else self.core.recover()
        """What operations that died before had left, and was finished or undone when this engine was opened."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the inventory's connections and end waiting children; pools stay as they are. Repeatable."""
        self.core.inventory.close()
        self.host.close()

    @property
    def locations(self) -> Locations:
        """The folders of this root."""
        return self.core.locations

    def _relist(self, record: Record) -> None:
        from poolkit.engine import refreshing

        refreshing.whole(self.core, record.name, record.uuid, 0, quiet=True)

    # -- definitions ----------------------------------------------------------------------------------------------

    def parse(
        self, source: str | bytes | os.PathLike[str] | model.Pool, *, filename: str = "<string>", strict: bool = True
    ) -> Any:
        """A pool definition from XML text, the path of a document or the definition itself; all that is wrong in one error.

        ``strict`` makes unknown elements an error; without it they are dropped. Raises ``InvalidDefinition``,
        ``InvalidArgument`` for anything else and for texts that no document can hold, and a ``HostError`` for a path that
        cannot be read.
        """
        return self.core.definitions.parse(source, filename=filename, strict=strict)

    def define(
        self,
        source: str | bytes | os.PathLike[str] | model.Pool,
        *,
        filename: str = "<string>",
        strict: bool = True,
        expected: str | None = None,
        wait: float | None = None,
    ) -> Pool:
        """Store a definition; the pool becomes persistent, its state does not change.

        ``source`` is XML text, the path of a document or a definition. Repeatable: the same definition, with or without
        its uuid, changes nothing. ``Pool.outcome`` says whether anything changed, and for an active pool which fields
        wait for the next start. Raises ``InvalidDefinition``, ``PoolExists`` (name or uuid taken by another pool),
        ``Conflict`` (source or target belongs to another pool). With ``expected`` it replaces only the stored text that
        is equal to it (:meth:`stored_text`): ``DefinitionChanged``, or ``PoolNotFound`` if there is none any more.
        """
        core = self.core
        definition = core.definitions.given(source, filename, strict)
        name = check_pool_name(definition.name)
        with core.work(name, "define", wait) as op:
            with self._definitions(op.dry):
                definition, old, record = admission.admit(core, definition)
                pending = self._pending(record, definition)
                if definition != old and expected is not None and expected != self.core.store.read(name):
                    raise errors.DefinitionChanged(
                        f"the definition of pool '{name}' was changed by others in the meantime",
                        hint="saving now would take their change back",
                    )
                if definition != old and not op.dry:
                    self.core.store.save(name, self.core.definitions.text(definition), op.host)
                    self.core.index.store(name, op.id)
        changed = definition != old
        if changed and not op.dry:
            self.core.events.emit("defined", name, definition.uuid)
        message = f"pool '{name}' {'is defined' if changed else 'is defined so already'}"
        plan = (f"write {self.core.store.path(name)}",) if changed else ()
        return self._pool(name, definition.uuid, operation.Outcome(changed, message, pending, plan=plan))

    def create(
        self,
        source: str | bytes | os.PathLike[str] | model.Pool,
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
        core = self.core
        definition = core.definitions.given(source, filename, strict)
        name = check_pool_name(definition.name)
        with core.work(name, "create", wait) as op:
            running = self._running_transient(name, definition)
            if running is not None:
                return self._pool(name, running.uuid, operation.Outcome(False, f"pool '{name}' is active already"))
            with self._definitions(op.dry):
                definition = admission.admit(core, definition).definition
            up = bringing_up.bring_up(core, definition, op, None, build=build, overwrite=overwrite)
            if not op.dry:
                with self._definitions(op.dry):
                    admission.admit(core, definition)  # nobody took its place while it started
                    admission.refuse_shared_place(core, definition, op.host)
                    row = (name, definition.uuid, definition.type, target_of(definition))
                    claims = tuple(self.core.definitions.backend(definition).claims())
                    self.core.inventory.add_active(
                        row, claims, self.core.definitions.text(definition), self.core.boot, op.id, up.volumes, up.usage,
                        real=up.real, storage=up.storage, below=up.below,
                    )  # fmt: skip
        if not op.dry:
            self.core.events.emit("started", name, definition.uuid)
        return self._pool(name, definition.uuid, operation.Outcome(True, f"pool '{name}' is active", plan=op.plan()))

    def _running_transient(self, name: str, definition: Any) -> Any:
        """The definition of the transient pool of that name if it runs so already; raises if another pool has the name."""
        record = self.core.index.sync(name)
        if record is None:
            return None
        if record.stamp is not None:
            raise errors.PoolExists(
                f"pool '{name}' is defined already, so it cannot be made as a transient pool",
                pool=name,
                hint=errors.Hint("start it: ", errors.remedy("start", name)),
            )
        if not self.core.activity(record)[0]:
            return None
        live = self.core.definitions.running(record)
        if live == (admission.with_uuid(definition, live.uuid) if definition.uuid is None else definition):
            return live
        raise errors.PoolExists(
            f"a transient pool '{name}' with another definition is active", pool=name, hint="destroy it first"
        )

    def _definitions(self, dry: bool) -> AbstractContextManager[None]:
        return nullcontext() if dry else self.core.locks.definitions()

    def _pending(self, record: Record | None, definition: Any) -> tuple[tuple[str, Any, Any], ...]:
        if record is None or not record.live or not self.core.activity(record)[0]:
            return ()
        from poolkit import xmlmap

        # What was dumped of the running pool carries facts of its storage; defining it again leaves nothing pending.
        live = xmlmap.definition_alone(self.core.definitions.backend(self.core.definitions.running(record)).live())
        known = {(path, repr(new)) for path, _, new in xmlmap.diff(self.core.definitions.running(record), live)}
        changes = xmlmap.diff(self.core.definitions.running(record), definition)
        return tuple(c for c in changes if (c[0], repr(c[2])) not in known)

    def stored_text(self, name: str) -> str:
        """The document of a stored definition as it is in its file, also a damaged one; ``PoolNotFound``."""
        return self.core.store.read(name)

    # -- look-up ------------------------------------------------------------------------------------------------------

    def pool(self, key: str) -> Pool:
        """A pool by name or by uuid; ``PoolNotFound``."""
        record = self.core.index.sync(key) if _may_be_name(key) else None
        if record is None:
            record = self._by_uuid(key)
        if record is None:
            self.core.index.sync()
            record = self.core.inventory.record(key) or self._by_uuid(key)
        if record is None or not self.core.exists(record):
            raise self.core.no_pool(key)
        return self._pool(record.name, record.uuid)

    def _pool(self, name: str, uuid: str, outcome: operation.Outcome | None = None) -> Pool:
        from poolkit.engine.pool import Pool  # which a listing of pools does without

        return Pool(self.core, name, uuid, outcome)

    def _by_uuid(self, key: str) -> Record | None:
        import uuid

        try:
            return self.core.inventory.by_uuid(str(uuid.UUID(key)))
        except ValueError:
            return None

    def pools(
        self,
        *,
        active: bool | None = None,
        persistent: bool | None = None,
        autostart: bool | None = None,
        types: Iterable[str] = (),
    ) -> list[PoolInfo]:
        """Facts of all pools by name, filtered; what many pools ask the machine is asked once."""
        self.core.index.sync()
        marked = self.core.store.autostart_names()
        wanted = frozenset(types)
        host = self.host.operation()
        found = []
        for record in self.core.inventory.records():
            if not self.core.exists(record) or (wanted and record.type not in wanted):
                continue
            info = info_of(self.core, record, autostart=record.name in marked, host=host)
            if (
                active in (None, info.active)
                and persistent in (None, info.persistent)
                and autostart in (None, info.autostart)
            ):
                found.append(info)
        return found

    def info(self, name: str) -> PoolInfo:
        """Facts of one pool; ``PoolNotFound``."""
        return info_of(self.core, self.core.record(name))

    def pool_by_target(self, path: str) -> Pool:
        """The pool whose target path is ``path``; ``PoolNotFound``."""
        self.core.index.sync()
        for record in self.core.inventory.by_target(normal(path)):
            if self.core.exists(record):
                return self._pool(record.name, record.uuid)
        raise errors.PoolNotFound(f"no pool has the target path '{path}'")

    def volume_by_path(self, path: str) -> Volume:
        """The volume at ``path`` in any active pool; ``VolumeNotFound``. One index look-up, whatever the number."""
        return self._find("path", path)

    def volume_by_key(self, key: str) -> Volume:
        """The volume with that key in any active pool; ``VolumeNotFound``."""
        return self._find("key", key)

    def volume(self, word: str, pool: str | None = None) -> Volume:
        """The volume that ``word`` means, as the command's verbs find it; ``VolumeNotFound``, ``PoolNotFound``.

        With ``pool`` a name, key or path of a volume of that pool; without it a key or path in any active pool.
        """
        if pool is None:
            return self._anywhere(word)
        owner = self.pool(pool)
        if "/" not in word:
            return owner.volume(word)
        found = self._anywhere(word)
        if found.pool != owner:
            raise errors.VolumeNotFound(
                f"'{word[:200]}' is a volume of pool '{found.pool.name}', not of '{owner.name}'", pool=owner.name
            )
        return found

    def _anywhere(self, word: str) -> Volume:
        try:
            return self.volume_by_key(word)
        except errors.VolumeNotFound:
            return self.volume_by_path(word)

    def _find(self, column: str, value: str) -> Volume:
        record, info = self.core.find_volume(column, value)
        from poolkit.engine.volume import Volume

        return Volume(self._pool(record.name, record.uuid), info, record.target)

    # -- secrets ------------------------------------------------------------------------------------------------------

    @property
    def secret_store(self) -> Secrets:
        """The secrets of this root."""
        if self._secrets is None:
            from poolkit.state.secrets import Secrets

            self._secrets = Secrets(self.locations, self.host)
        return self._secrets

    def _secret_value(self, type: str, uuid: str | None, usage: str | None) -> bytes:
        return self.secret_store.lookup(type, uuid, usage)

    def define_secret(
        self,
        source: str | bytes | os.PathLike[str] | documents.Secret,
        *,
        filename: str = "<string>",
        strict: bool = True,
    ) -> Secret:
        """Store the description of a secret; its value is set on what this returns. Repeatable.

        ``source`` as for :meth:`define`. Raises ``InvalidDefinition``, and ``SecretExists`` when its uuid or
        usage belong to another secret.
        """
        return self.secret_store.define(source, filename=filename, strict=strict)

    def secret(self, key: str) -> Secret:
        """A secret by uuid or by the name of its usage; ``SecretNotFound``, ``InvalidArgument`` if several have that name."""
        return self.secret_store.find(key)

    def secrets(self) -> list[Secret]:
        """All secrets, by uuid."""
        return self.secret_store.list()

    # -- flavors ------------------------------------------------------------------------------------------------------

    @property
    def flavors(self) -> Flavors:
        """The flavors of this root: kinds of storage, each with the pools that its volumes are placed in."""
        from poolkit.engine.flavors import Flavors

        return Flavors(self.core)

    @property
    def storage_manager(self) -> StorageManager:
        """XenAPI storage repositories as backends of flavors, by numbers: what ``poolkit sm`` does."""
        from poolkit.engine.storage_manager import StorageManager

        return StorageManager(self)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``callback`` with every :class:`~poolkit.engine.events.Event` of this engine; returns what ends that."""
        return self.core.events.add(callback)

    def start_autostart(
        self, *, deadline: float | None = None, at_once: int | None = None
    ) -> list[tuple[str, operation.Outcome | errors.PoolkitError]]:
        """Start every pool marked for autostart; one that fails does not stop the others. For boot time; repeatable.

        As :meth:`starting_autostart`, by name, with the outcome or the error of each.
        """
        found = self.starting_autostart(deadline=deadline, at_once=at_once)
        results: dict[str, operation.Outcome | errors.PoolkitError] = {}
        for one in found:
            ended = one.error if one.outcome is None else one.outcome
            assert ended is not None  # noqa: S101 - it is one of the two
            results[one.pool] = ended
        return sorted(results.items(), key=lambda item: item[0])

    def starting_autostart(self, *, deadline: float | None = None, at_once: int | None = None) -> Iterator[Started]:
        """Start every pool marked for autostart; gives what became of each when that is known.

        ``at_once`` pools are started side by side, each behind those of them it stands on, as their documents say it: a
        directory on another pool's file system, a file system or group on another pool's disk. One whose start takes more than
        ``deadline`` seconds is given up, and what was begun is taken back. One that stands on a pool that is not up is not
        tried. Pools that stand on each other in a circle are started by name, with a warning. ``InvalidArgument`` for a number
        that is not positive.
        """
        from poolkit.engine import autostart

        deadline = autostart.DEADLINE if deadline is None else deadline
        at_once = autostart.AT_ONCE if at_once is None else at_once
        if not deadline > 0 or at_once < 1:
            raise errors.InvalidArgument("a deadline and the number of pools that are started at once are positive")
        self.core.index.sync()
        marked = self.core.store.autostart_names()
        known = [record.name for record in self.core.inventory.records() if self.core.exists(record)]
        plan = autostart.plan(self.core, [name for name in known if name in marked])

        def start(name: str, abort: threading.Event) -> operation.Outcome:
            return self.pool(name).start(abort=abort)

        return autostart.run(plan, start, deadline=deadline, at_once=at_once, abort=self.host.abort)

    def recover(self) -> list[str]:
        """Take back what processes that died had begun, also what waits for a server; a line for each. Repeatable."""
        return [*self.core.operations.recover(waiting=True), *self.secret_store.recover()]

    def left_over(self) -> list[str]:
        """What :meth:`recover` would look at, a line for each operation; changes nothing."""
        from poolkit.host import journal

        lines = []
        for path in self.core.operations.left():
            with suppress(FileNotFoundError):  # its work has ended meanwhile
                head, steps = journal.read(path)
                lines.append(
                    f"{head.get('verb')} of pool '{head.get('pool')}' by process {head.get('pid')}: {len(steps)} steps"
                )
        return lines

    def not_undone(self) -> list[str]:
        """Files with the steps of operations that could not be taken back completely, for people to look at."""
        return self.core.operations.failed()

    def plan(self, documents: Document | Iterable[Document], *, prune: bool = False, strict: bool = True) -> Plan:
        """How this root differs from what ``documents`` want: paths of folders and files, XML texts, or definitions.

        Of a folder every file ``*.xml`` in and below it is read. A volume belongs to the pool that it names, else to the one
        whose name its folder has. Nothing is changed, and no pool has to be active: :meth:`Plan.apply` does it. ``prune`` plans
        to remove what earlier applies of the same paths have made and no document describes any more. Raises
        ``InvalidDefinition`` with all that is wrong with all documents, and a ``HostError`` for what cannot be read.
        """
        from poolkit.engine.plan import plan

        return plan.make(self, documents, prune=prune, strict=strict)

    def stored_plan(self, data: str | bytes, *, filename: str = "<plan>") -> Plan:
        """The plan in the text that :func:`poolkit.engine.plan.stored.text` made of it.

        ``PlanOutdated`` if what there is has changed since, ``InvalidArgument`` for what is no such text.
        """
        from poolkit.engine.plan import stored

        return stored.load(self, data, filename)

    def export(self, *, volumes: bool = False, secrets: bool = True) -> Exported:
        """All pools, with ``volumes`` those of active pools, and ``secrets`` without their values, as documents of a folder.

        A plan of that folder has nothing to do. Transient pools are left out, since they have no definition; what is left out
        is told. Changes nothing.
        """
        from poolkit.engine.plan import export

        return export.documents(self, volumes=volumes, secrets=secrets)

    def discover(
        self,
        type: str,
        source: str | bytes | os.PathLike[str] | documents.FoundSource | None = None,
        *,
        filename: str = "<string>",
        strict: bool = True,
    ) -> list[Any]:
        """Definitions of sources that exist, of a pool type that can be searched; raises ``Unsupported`` otherwise.

        ``source`` is a ``<source>`` document that tells where to look, in the forms that :meth:`define` takes. Without one pools
        of type xensm are searched for where ``[xapi]`` of ``host.toml`` says, or on this host.
        """
        from poolkit.engine import storage_manager

        backend, host = registry.backend(type), self.host.operation()
        if source is None and type == storage_manager.TYPE:
            source = self.storage_manager.place()
        if source is not None:
            from poolkit import documents, xmlmap

            kind = backend.searched or documents.FoundSource
            source = xmlmap.given(source, kind, filename=filename, strict=strict)
        admission.require_root(backend, "discover", host)
        host.packages.update(backend.packages)
        host.bytewise.update(backend.bytewise)
        return list(backend.discover(host, source))

    def proposed(self, type: str, found: Sequence[Any]) -> list[Any]:
        """For each source that :meth:`discover` found a definition for :meth:`define`, with a name that is free."""
        from poolkit.engine.proposing import proposed

        taken = {pool.name for pool in self.pools()}
        definitions = []
        for one in found:
            definitions.append(proposed(type, one, taken))
            taken.add(definitions[-1].name)
        return definitions


def _may_be_name(key: str) -> bool:
    try:
        check_pool_name(key)
    except errors.InvalidArgument:
        return False
    return True
