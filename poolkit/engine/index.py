"""The index of definitions: the inventory's rows kept in step with the files, so that listing parses nothing."""

from __future__ import annotations

import os

from poolkit import errors
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from poolkit.engine.definitions import Definitions
    from poolkit.state.inventory import Inventory, Record
    from poolkit.state.store import Store


_UNREAD = 0
"""The stamp of a definition that could not be read: no file has it, so it is read again."""


class Index:
    """Brings the inventory up to date with the definition files; ``runs`` says of a record whether the pool is active.

    ``definitions`` is asked for when a file has to be read.
    """

    def __init__(
        self, definitions: Callable[[], Definitions], store: Store, inventory: Inventory, runs: Callable[[Record], bool]
    ) -> None:
        self._definitions = definitions
        self._store = store
        self._inventory = inventory
        self._runs = runs

    def sync(self, only: str | None = None, operation: str | None = None) -> Record | None:
        """Bring the inventory's index up to date with the definition files; a changed file costs one parse.

        With ``only`` for that pool alone, whose record is returned.
        """
        if only is not None:
            stamp = self._store.stamp(only)
            files = {} if stamp is None else {only: stamp}
            record = self._inventory.record(only)
            if record is None and stamp is None:
                return None
            if record is not None and stamp is not None and record.stamp == stamp:
                return record
            known = {} if record is None else {only: record.stamp}
        else:
            files = dict(self._store.names())
            known = dict(self._inventory.stamps())
        for name, stamp in files.items():
            if name not in known or known[name] != stamp:
                self._add(name, stamp, operation)
        for name, old in known.items():
            record = None if name in files else self._inventory.record(name)
            if record is not None and (old is not None or not self._runs(record)):
                self._remove(record)
        return self._inventory.record(only) if only is not None else None

    def store(self, name: str, operation: str | None) -> None:
        """Take up a definition whose file was just written; its text is read again, and not parsed."""
        stamp = self._store.stamp(name)
        if stamp is not None:
            self._add(name, stamp, operation)

    def _add(self, name: str, stamp: int, operation: str | None) -> None:
        try:
            definitions = self._definitions()
            definition = definitions.load(name)
            if definition.name != name:
                told = f"it defines a pool named '{definition.name}'"
                raise errors.InvalidDefinition([errors.Problem(self._store.path(name), 0, 0, "/pool/name", told)])
            claims = frozenset(definitions.backend(definition).claims())
            target = target_of(definition)
            record = self._inventory.record(name)
            if record is not None and self._runs(record):
                # The running pool keeps its place until it stops, and nobody may take it meanwhile.
                live = definitions.running(record)
                claims |= frozenset(definitions.backend(live).claims())
                target = target_of(live)
        except errors.PoolNotFound:
            return
        except errors.InvalidDefinition as error:
            self._damaged(name, stamp, str(error))
            return
        except errors.PoolkitError as error:
            if operation is not None:
                raise
            # Today it cannot be read; what is known of it stays, and it is read again the next time.
            self._unread(name, str(error))
            return
        self._inventory.put(
            name,
            definition.uuid or "",
            definition.type,
            stamp=stamp,
            claims=sorted(claims),
            target=target,
            operation=operation,
        )

    def _is_there(self, number: int) -> bool:
        record = self._inventory.by_id(number)
        return record is not None and (self._store.stamp(record.name) is not None or self._runs(record))

    def _damaged(self, name: str, stamp: int, error: str) -> None:
        # What runs goes on, at its place; of what does not, only the name is known.
        record = self._inventory.record(name)
        if record is not None and self._runs(record):
            self._put(record, stamp, error)
        else:
            self._inventory.put(name, "", "", stamp=stamp, claims=(), target=None, error=error)

    def _unread(self, name: str, error: str) -> None:
        record = self._inventory.record(name)
        if record is None:
            self._inventory.put(name, "", "", stamp=_UNREAD, claims=(), target=None, error=error)
        elif record.stamp != _UNREAD or record.error != error:
            self._put(record, _UNREAD, error)

    def _put(self, record: Record, stamp: int | None, error: str | None) -> None:
        self._inventory.put(
            record.name,
            record.uuid,
            record.type,
            stamp=stamp,
            claims=self._inventory.claims(record.id),
            target=record.target,
            error=error,
        )

    def _remove(self, record: Record) -> None:
        # The file was removed: an active pool goes on as a transient one, another is forgotten.
        if self._runs(record):
            self._put(record, None, record.error)
        else:
            # It may have been defined, or started, since the files were listed.
            self._inventory.drop(record.id, unless=lambda: self._is_there(record.id))


def target_of(definition: Any) -> str | None:
    """The target path of a definition in its plain form, or None."""
    path = getattr(getattr(definition, "target", None), "path", None)
    return normal(path) if path else None


def normal(path: str) -> str:
    """A path without doubled slashes and dots; what is no absolute path stays as it is."""
    return os.path.normpath(path) if path.startswith("/") else path
