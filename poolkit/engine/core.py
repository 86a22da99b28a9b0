"""What every verb stands on: the folders, the machine, the definitions, the inventory, the locks and the events."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext, suppress

from poolkit import errors
from poolkit.engine.index import Index, normal
from poolkit.host import places, private
from poolkit.host.kernel import boot
from poolkit.later import later, once
from poolkit.lean import TYPE_CHECKING
from poolkit.state.inventory import Inventory
from poolkit.state.pools import JOURNALS
from poolkit.state.store import Locations, Store, check_root

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from poolkit import listing
    from poolkit.backend import Backend, Usage, VolumeInfo
    from poolkit.engine.definitions import Definitions
    from poolkit.engine.events import Subscriptions
    from poolkit.engine.operation import Operation, Operations, Progress
    from poolkit.host.port import Host
    from poolkit.listing import Listing
    from poolkit.state.inventory import Record
    from poolkit.state.locks import Locks
else:
    listing = later(globals(), "listing", "poolkit.listing")


class Core:
    """The parts of one engine, shared by its pools and volumes. Internal: it changes without notice."""

    def __init__(self, root: str | os.PathLike[str] | None, host: Host, wait: float) -> None:
        if root is not None:
            check_root(root)
        self.locations = Locations.choose(root)
        self.host = host
        self.wait = wait
        self.store = Store(self.locations)
        self.inventory = Inventory(f"{self.locations.state}/inventory.sqlite", fault=host.fault, keep=not host.dry_run)
        self.relist: Callable[[Record], object] = lambda record: None
        """Lists a pool anew; the engine says how."""
        self.boot = boot()
        """The identity of this boot of the machine: what was active before a reboot is not active now."""
        self.index = Index(lambda: self.definitions, self.store, self.inventory, self.runs)

    @once
    def definitions(self) -> Definitions:
        """Definitions in memory."""
        from poolkit.engine.definitions import Definitions  # what is on record of a pool tells most of it

        return Definitions(self.store, self.host)

    @once
    def locks(self) -> Locks:
        """Who works on what."""
        from poolkit.state.locks import Locks  # a look takes none

        return Locks(f"{self.locations.run}/work")

    @once
    def operations(self) -> Operations:
        """What runs verbs and takes back what dead processes had begun."""
        from poolkit.engine.operation import Operations

        return Operations(self.host, self.locks, self.inventory, self._journals)

    @once
    def events(self) -> Subscriptions:
        """Whom to tell what happened."""
        from poolkit.engine.events import Subscriptions

        return Subscriptions()

    @property
    def _journals(self) -> str:
        return f"{self.locations.state}/{JOURNALS}"

    def recover(self) -> list[str]:
        """Take back what dead processes had begun, see :meth:`Operations.recover`; mostly there is nothing."""
        return self.operations.recover() if self.has_journals() else []

    def has_journals(self) -> bool:
        """Whether there are journals: of work in progress, or left by dead processes."""
        return bool(private.files(self._journals, ".journal"))

    # -- pools ----------------------------------------------------------------------------------------------------

    def record(self, name: str) -> Record:
        """The inventory's record of a pool, in step with its file; ``PoolNotFound``."""
        record = self.index.sync(name)
        if record is None or not self.exists(record):
            raise self.no_pool(name)
        return record

    def exists(self, record: Record) -> bool:
        """Whether the pool is defined, or runs without a definition."""
        return record.stamp is not None or (bool(record.active) and record.boot == self.boot)

    def runs(self, record: Record) -> bool:
        """Whether the run state says that the pool is active; its storage is not asked."""
        return bool(record.active and record.live) and record.boot == self.boot

    def activity(self, record: Record, host: Host | None = None) -> tuple[bool, str]:
        """Whether the pool is active: the run state says so and the storage is up. If only the first, why."""
        return self.looked_at(record, host)[:2]

    def looked_at(self, record: Record, host: Host | None = None) -> tuple[bool, str, bool]:
        """As :meth:`activity`, and whether the storage says that somebody has changed it since it was listed."""
        if not self.runs(record):
            return False, "", False
        host = host or self.host.operation()
        try:
            if record.storage is not None and (why := places.gone(record.storage, host.mounts)) is not None:
                return not why, why, False
            backend = self.definitions.backend(self.definitions.running(record), host)
            state = backend.state()
            if not state.up:
                return False, state.why or "its storage is not there any more", False
            if record.storage is None:
                return True, "", False
            why = backend.changed_since(record.storage)
            return not why, why, not why and backend.moved_since(record.storage)
        except OSError as error:
            return False, str(errors.from_os_error(error, "look at its storage")), False
        except errors.PoolkitError as error:
            return False, str(error), False

    def require_active(self, name: str, verb: str, host: Host | None = None) -> Record:
        """The record of an active pool; ``InvalidState`` for any other.

        Without the ``host`` of a verb it is for a look, at the listing as it is after what others have changed of the storage.
        """
        record = self.record(name)
        active, reason, moved = self.looked_at(record, host)
        if active:
            return self.listed_anew(record) if moved and host is None else record
        from poolkit.engine.operation import said

        words = f"{said(verb)} a volume" if verb.startswith("vol-") else verb
        if verb in ("lock-status", "take-control"):  # names, and not English verbs
            words = f"{said(verb)} it"
        raise errors.InvalidState(
            f"cannot {words}: pool '{name}' is not active{f': {reason}' if reason else ''}",
            pool=name,
            hint=errors.Hint("start it: ", errors.remedy("start", name)),
        )

    def listed_anew(self, record: Record) -> Record:
        """The record of a pool whose storage was changed, after a listing. Where that cannot be, the next look tries again."""
        with suppress(errors.PoolkitError):  # such as Busy: somebody is at work on it here
            self.relist(record)
        return self.record(record.name)

    def require_inactive(self, record: Record, verb: str, host: Host) -> None:
        """Raise ``InvalidState`` if the pool is active."""
        if self.activity(record, host)[0]:
            raise errors.InvalidState(
                f"cannot {verb} pool '{record.name}' while it is active",
                pool=record.name,
                hint=errors.Hint("stop it first: ", errors.remedy("destroy", record.name)),
            )

    def no_pool(self, key: str) -> errors.PoolNotFound:
        """The error for a pool that is not there, with the name that may be meant."""
        import difflib

        names = {r.name.lower(): r.name for r in self.inventory.records()}
        near = [names[word] for word in difflib.get_close_matches(key[:255].lower(), names, 1)]
        shown = errors.shown(key)
        return errors.PoolNotFound(
            f"there is no pool '{shown}'",
            pool=shown,
            hint=f"did you mean '{near[0]}'?"
            if near
            else errors.Hint("those there are: ", errors.remedy("list", all=True)),
        )

    def scan(self, backend: Backend, record: Record | None, place: str | None) -> tuple[int, Listing, Usage]:
        """The version of the inventory that a listing started from, the listing and the pool's sizes."""
        version, known = self.inventory.known(record)
        # A backend that keeps no formats need not know the word.
        how: dict[str, Any] = {}
        if backend.keeps_formats and place is not None:
            how["recorded"] = self.inventory.formats(place)
        backend.host.cautious = self.inventory.damaged
        if backend.host.cautious is not None:
            backend.host.warn(
                f"the inventory was damaged and set aside as '{backend.host.cautious}': images that are listed anew wait for "
                "vol-adopt, or for that file to be removed"
            )
        found = listing.Listing(known)
        backend.scan(found, **how)
        return version, found, backend.usage(found)

    # -- work -----------------------------------------------------------------------------------------------------

    def work(
        self,
        pool: str,
        verb: str,
        wait: float | None = None,
        *,
        volume: str | None = None,
        shared: bool = False,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> AbstractContextManager[Operation]:
        """Do a verb of a pool: see :meth:`Operations.run`. ``wait`` None is the engine's own."""
        patience = self.wait if wait is None else wait
        return self.operations.run(
            pool, verb, volume=volume, shared=shared, wait=patience, abort=abort, progress=progress
        )

    def emit(self, op: Operation, kind: str, pool: str, uuid: str, volume: str | None = None) -> None:
        """Tell the subscribers what ``op`` did; a dry run did nothing."""
        if not op.dry:
            self.events.emit(kind, pool, uuid, volume)

    # -- volumes --------------------------------------------------------------------------------------------------

    @contextmanager
    def volume_work(
        self,
        pool: str,
        verb: str,
        name: str | None,
        *,
        shared: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
        bracket: str | None = None,
    ) -> Iterator[tuple[Operation, Backend, Record]]:
        """Work on one volume of an active pool, or on any of them (None); ``shared`` work only reads it.

        ``bracket`` is what the work is to hosts that share the storage, if that is not ``verb``.
        """
        with self.work(pool, verb, wait, volume=name, shared=shared, abort=abort, progress=progress) as op:
            record = self.require_active(pool, verb, op.host)
            if record.target is not None:
                place = record.target

                def adopt(name: str, inode: int, format: str) -> None:
                    self.inventory.record_format(place, name, inode, format)

                op.host.on_adopt = adopt
                if not shared:
                    op.stands_on(place)
            backend = self.definitions.backend(self.definitions.running(record), op.host)
            other = self._below(backend, record, name)
            patience = self.wait if wait is None else wait
            with (
                nullcontext() if other is None
                else self.operations.lock(pool, verb, other, shared, patience, abort or self.host.abort),
                nullcontext() if shared else backend.exclusive(bracket or verb),
            ):  # fmt: skip
                yield op, backend, record

    def _below(self, backend: Backend, record: Record, name: str | None) -> str | None:
        """The volume of the same pool that a listed one stands on, where the two are worked on together."""
        info = self.inventory.volume(record.id, name) if backend.together and name is not None else None
        below = (info.detail or {}).get("backing") if info is not None else None
        found = os.path.basename(below) if below else None
        return found if found != name else None

    def same_volume(self, backend: Backend, record: Record, info: VolumeInfo) -> VolumeInfo:
        """The volume as it is now; ``Unsafe`` if it is another one than was listed, such as a partition renumbered since."""
        now = backend.look(info.name, self.inventory.volume(record.id, info.name))
        if backend.identity(now) != backend.identity(info):
            raise backend.replaced(f"volume '{info.name}'", info.name)
        if covered := (now.detail or {}).get("covered"):
            raise errors.Unsafe(f"volume '{info.name}': {covered}", pool=record.name, volume=info.name)
        if (now.detail or {}).get("unread"):
            raise errors.HostError(
                f"volume '{info.name}' {now.problem}, so its format is not known", pool=record.name, volume=info.name
            )
        if (now.detail or {}).get("unseen"):
            raise errors.HostError(
                f"volume '{info.name}' {now.problem}, so its capacity is not known", pool=record.name, volume=info.name
            )
        return now

    def find_volume(self, column: str, value: str) -> tuple[Record, VolumeInfo]:
        """The volume whose ``path`` or ``key`` that is, in any active pool; ``VolumeNotFound``. One index look-up."""
        # Volumes of file-backed pools store neither: both are the directory and the name.
        directory, _, name = value.rpartition("/")
        if directory and name:
            for place in self._spellings(directory):
                for record in self.inventory.by_target(place):
                    info = self.inventory.volume(record.id, name) if record.active else None
                    if info is not None and info.path is None and self.exists(record):
                        return record, info
        for number, info in self.inventory.find(column, value):
            owner = self.inventory.by_id(number)
            if owner is not None and owner.active and self.exists(owner):
                return owner, info
        raise errors.VolumeNotFound(
            f"no active pool has a volume with the {column} '{errors.shown(value)}'",
            hint="a file that appeared behind poolkit is listed after the next refresh",
        )

    def _spellings(self, directory: str) -> Iterator[str]:
        """The paths under which a pool may have a directory: as it is said, and without symbolic links."""
        said = normal(directory)
        yield said
        if said.startswith("/"):
            with suppress(OSError):  # a loop of links
                real = self.host.operation().locate(said)[0]
                if real != said:
                    yield real

    def half_written(self, record: Record, volumes: Iterable[VolumeInfo]) -> dict[str, str]:
        """What is to be said of those of ``volumes``, all of one pool, that were left half-written, by name; mostly none is."""
        if not self.inventory.has_half_written():
            return {}
        from poolkit.engine import writing

        return writing.left(self, record, volumes)

    def as_listed(self, record: Record, info: VolumeInfo) -> VolumeInfo | None:
        """The volume as it is now, if its entry alone tells that it is as it was listed and that there is no more to say of it.

        By the rule of a refresh: what has the same stamp is the same. So a look at it needs neither the definition nor a lock.
        """
        if not info.stamp or info.detail is not None or record.storage is None or record.target is None:
            return None
        if not self.runs(record) or self.has_journals() or self.inventory.damaged is not None:
            return None
        inventory, mounts = self.inventory, self.host.operation().mounts
        with suppress(OSError, errors.PoolkitError):  # the long way says what is wrong
            facts = places.unchanged(record.storage, info.name, info.stamp, mounts)
            if facts is None or inventory.volume(record.id, info.name) != info:
                return None
            if inventory.format(record.target, info.name) is None and not self.half_written(record, [info]):
                return info._replace(atime=facts.st_atime_ns)
        return None

    def listed(self, record: Record) -> Iterator[str]:
        """The names of a pool's volumes, read when the first is asked for."""
        yield from self.inventory.names(record.id)

    def still_there(self, backend: Backend, record: Record, name: str, *, dry: bool = False) -> None:
        """Raise ``VolumeExists`` if a listed volume is really there; else it is dropped from the listing.

        A ``dry`` run drops nothing, and foresees the file that is not listed, on which the work itself would fail.
        """
        if self.inventory.volume(record.id, name) is None and not (dry and backend.file_backed):
            return
        try:
            backend.look(name, None)
        except errors.VolumeNotFound:
            if not dry:
                self.inventory.drop_volume(record.id, name)
            return
        raise errors.VolumeExists(f"pool '{record.name}' has a volume '{name}' already", pool=record.name, volume=name)
