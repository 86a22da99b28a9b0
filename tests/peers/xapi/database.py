"""The rows of all classes, who refers to whom, and the log of changes that events are told from."""

from __future__ import annotations

import bisect
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from .marshal import Failure, Text, json_text, xml
from .schema import BACK, CLASSES, NULL, Date, blank

KEPT = 200_000  # changes in the log; who asks for older ones has lost events


def now() -> Date:
    """The time of the server."""
    return Date(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime()))


class Row:
    """An object: its class, its reference and its fields. Fields are changed through the database only."""

    __slots__ = ("_json", "_xml", "cls", "fields", "gone", "ref")

    def __init__(self, cls: str, fields: dict[str, Any]) -> None:
        self.cls = cls
        self.ref = f"OpaqueRef:{uuid.uuid4()}"
        self.fields = fields
        self.gone = False
        self.changed()

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def uuid(self) -> str:
        return str(self.fields["uuid"])

    def changed(self) -> None:
        self._xml: Text | None = None
        self._json: Text | None = None

    def text(self, of: str) -> Text:
        """The record as it goes over the wire, ``of`` being ``xml`` or ``json``."""
        if of == "xml":
            if self._xml is None:
                self._xml = Text(xml(self.fields))
            return self._xml
        if self._json is None:
            self._json = Text(json_text(self.fields))
        return self._json


class Database:
    """All rows. ``lock`` is held for each look and change; who waits for a change waits on it."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.tables: dict[str, dict[str, Row]] = {name: {} for name in CLASSES}
        self.uuids: dict[tuple[str, str], Row] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.generation = 1
        self.oldest = 0  # generation before which the log says nothing any more
        self._when: list[int] = []
        self._what: list[tuple[str, Row]] = []

    # -- looking --------------------------------------------------------------------------------------------------

    def rows(self, cls: str) -> Iterable[Row]:
        return self.tables[cls].values()

    def get(self, cls: str, ref: Any) -> Row:
        """The row that ``ref`` names; HANDLE_INVALID when there is none."""
        row = self.tables[cls].get(ref) if isinstance(ref, str) else None
        if row is None:
            raise Failure("HANDLE_INVALID", cls, str(ref))
        return row

    def by_uuid(self, cls: str, uuid: str) -> Row:
        """The row with ``uuid``; UUID_INVALID when there is none."""
        row = self.uuids.get((cls, uuid))
        if row is None:
            raise Failure("UUID_INVALID", cls, uuid)
        return row

    def of(self, row: Row, field: str) -> Iterator[Row]:
        """The rows that a set of references names."""
        cls = CLASSES[row.cls][field].refers
        return (self.tables[cls][ref] for ref in list(row[field]) if ref in self.tables[cls])

    # -- changing -------------------------------------------------------------------------------------------------

    def make(self, cls: str, **fields: Any) -> Row:
        """A new row."""
        with self.lock:
            row = Row(cls, {**blank(cls), **fields})
            row.fields["uuid"] = fields.get("uuid") or str(uuid.uuid4())
            self.tables[cls][row.ref] = row
            self.uuids[cls, row.uuid] = row
            self.counts[cls] += 1
            for name, target in self._references(row):
                self._back(row, name, target, True)
            self._log("add", row)
            return row

    def set(self, row: Row, **fields: Any) -> None:
        """Change fields; what stays as it was is no event."""
        with self.lock:
            fields = {name: value for name, value in fields.items() if row.fields[name] != value}
            if not fields or row.gone:
                return
            for name in fields:
                if (row.cls, name) in BACK:
                    self._back(row, name, row.fields[name], False)
                    self._back(row, name, fields[name], True)
            row.fields.update(fields)
            self._touch(row)

    def drop(self, row: Row) -> None:
        """Delete a row."""
        with self.lock:
            if row.gone:
                return
            row.gone = True
            del self.tables[row.cls][row.ref]
            self.uuids.pop((row.cls, row.uuid), None)
            for name, target in self._references(row):
                self._back(row, name, target, False)
            self._log("del", row)

    def _references(self, row: Row) -> Iterator[tuple[str, str]]:
        for cls, name in BACK:
            if cls == row.cls and row.fields[name] != NULL:
                yield name, row.fields[name]

    def _back(self, row: Row, name: str, target: str, there: bool) -> None:
        owner = self.tables.get(CLASSES[row.cls][name].refers, {}).get(target)
        if owner is None:
            return
        back = BACK[row.cls, name]
        if there:
            owner.fields[back].append(row.ref)
        elif row.ref in owner.fields[back]:
            owner.fields[back].remove(row.ref)
        self._touch(owner)

    def _touch(self, row: Row) -> None:
        row.changed()
        self._log("mod", row)

    def _log(self, operation: str, row: Row) -> None:
        self.generation += 1
        if row.cls == "session":
            return
        self._when.append(self.generation)
        self._what.append((operation, row))
        if len(self._when) > KEPT:
            self.forget(self._when[KEPT // 2])
        self.lock.notify_all()

    # -- events ---------------------------------------------------------------------------------------------------

    def forget(self, generation: int) -> None:
        """Drop the log up to ``generation``."""
        with self.lock:
            at = bisect.bisect_right(self._when, generation)
            del self._when[:at], self._what[:at]
            self.oldest = generation

    def inject(self, row: Row) -> int:
        """Let there be a change of ``row``, though there is none."""
        with self.lock:
            self._log("mod", row)
            return self.generation

    def since(self, generation: int) -> list[tuple[str, Row]]:
        """What happened after ``generation``, each row once with the last that happened to it."""
        with self.lock:
            seen: dict[int, tuple[str, Row]] = {}
            for operation, row in self._what[bisect.bisect_right(self._when, generation) :]:
                first = seen.pop(id(row), None)
                if operation == "del" and first and first[0] == "add":
                    continue  # came and went in between
                kept = "add" if first and first[0] == "add" and operation == "mod" else operation
                seen[id(row)] = (kept, row)
            return list(seen.values())
