"""event.from: what changed, as whole records; and event.inject."""

from __future__ import annotations

import re
import time
from typing import Any

from .api import MESSAGES, Call, Message
from .database import Row
from .marshal import Failure, Text, json_text, xml
from .schema import CLASSES

LONGEST = 60.0  # seconds that one call may wait


class Subscription:
    """Which changes a caller asks for: ``*``, a class, or ``class/reference``."""

    def __init__(self, classes: list[str]) -> None:
        known = {name.lower(): name for name in CLASSES}
        self.classes: set[str] = set()
        self.objects: set[tuple[str, str]] = set()
        for text in classes:
            name, slash, ref = text.partition("/")
            if text == "*":
                self.classes |= set(CLASSES) - {"session"}
            elif not name or (slash and not ref):
                raise Failure("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)
            elif name.lower() in known:
                real = known[name.lower()]
                self.objects.add((real, ref)) if slash else self.classes.add(real)

    def wants(self, row: Row) -> bool:
        return row.cls in self.classes or (row.cls, row.ref) in self.objects


def wait(call: Call, classes: list[str], token: str, timeout: float) -> tuple[list[tuple[str, Row]], int]:
    """The changes after ``token``; waits for one."""
    db = call.db
    wanted = Subscription(classes)
    match = re.fullmatch(r"(\d+),(\d+)", token) if token else None
    if token and not match:
        raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    deadline = time.monotonic() + min(max(timeout, 0), LONGEST)
    with db.lock:
        if match is None:
            rows = [row for cls in db.tables for row in db.rows(cls) if wanted.wants(row)]
            if rows:
                return [("add", row) for row in rows], db.generation
        since = int(match[1]) if match else db.generation
        while True:
            if since < db.oldest:
                raise Failure("EVENTS_LOST")
            assert call.session is not None
            if call.session.gone:
                raise Failure("SESSION_INVALID", call.session.ref)
            found = [(what, row) for what, row in db.since(since) if wanted.wants(row)]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found, db.generation
            db.lock.wait(left)


def batch(call: Call, of: str, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    """The whole answer."""
    found, generation = wait(call, classes, token, timeout)
    with call.db.lock:
        events: list[Any] = [
            {
                "id": str(generation),
                "timestamp": "0.0",
                "class": row.cls.lower(),
                "operation": what,
                "ref": row.ref,
                **({} if what == "del" else {"snapshot": row.text(of)}),
            }
            for what, row in found
        ]
        counts = {name.lower(): len(rows) for name, rows in call.db.tables.items() if name != "session"}
    return {"events": events, "valid_ref_counts": counts, "token": f"{generation:020d},{generation:020d}"}


def inject(call: Call, cls: str, ref: str) -> str:
    known = {name.lower(): name for name in CLASSES}
    generation = call.db.inject(call.db.get(known.get(cls.lower(), cls), ref))
    return f"{generation:020d},{generation:020d}"


def current(call: Call) -> int:
    return call.db.generation


def _from(call: Call, classes: list[str], token: str, timeout: float) -> Text:
    found = batch(call, call.of, classes, token, timeout)
    return Text(json_text(found) if call.of == "json" else xml(found))


_PARAMETERS = ("string set", "string", "float")
MESSAGES["event.from"] = Message("event.from", _PARAMETERS, "an event batch", _from)
MESSAGES["event.inject"] = Message("event.inject", ("string", "string"), "string", inject)
MESSAGES["event.get_current_id"] = Message("event.get_current_id", (), "int", current)
