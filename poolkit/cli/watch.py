"""``event`` and ``secret-event``: what happens to pools and secrets, seen by looking again.

There is no daemon to tell of changes, and other processes make them: what is kept is compared with what it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit.cli.arguments import Values, usage_error

if TYPE_CHECKING:
    from poolkit.cli.session import Session

POOL_EVENTS = ("lifecycle", "refresh")
SECRET_EVENTS = ("lifecycle", "value-changed")
_PAUSE = 0.5  # seconds between two looks


class Seen(NamedTuple):
    """One pool or secret at one time: by ``name``, whether it is ``stored``, ``active``, and what changes with its content."""

    name: str
    stored: bool
    active: bool
    mark: Any


Look = Callable[[], dict[str, Seen]]


def pool_changes(old: dict[str, Seen], new: dict[str, Seen]) -> Iterator[tuple[str, str, str]]:
    """The event, the name of the pool, and what happened, for what differs. Keys are uuids."""
    for uuid in [*new, *(u for u in old if u not in new)]:
        before, now = old.get(uuid), new.get(uuid)
        name = (now or before or Seen(uuid, False, False, None)).name
        if now is not None and now.stored and not (before and before.stored):
            yield "lifecycle", name, "Defined"
        if now is not None and now.active and not (before and before.active):
            yield "lifecycle", name, "Started"
        elif now is not None and before is not None and now.active and now.mark != before.mark:
            yield "refresh", name, ""
        if before is not None and before.active and not (now and now.active):
            yield "lifecycle", name, "Stopped"
        if before is not None and before.stored and not (now and now.stored):
            yield "lifecycle", name, "Undefined"


def secret_changes(old: dict[str, Seen], new: dict[str, Seen]) -> Iterator[tuple[str, str, str]]:
    """As :func:`pool_changes`, for secrets."""
    for uuid in [*new, *(u for u in old if u not in new)]:
        before, now = old.get(uuid), new.get(uuid)
        if before is None:
            yield "lifecycle", uuid, "Defined"
        if now is None:
            yield "lifecycle", uuid, "Undefined"
        elif now.mark is not None and now.mark != (before.mark if before else None):
            yield "value-changed", uuid, ""


def pool_event(session: Session, values: Values) -> None:
    """``event``."""

    def look() -> dict[str, Seen]:
        found = session.engine.pools()
        return {i.uuid or i.name: Seen(i.name, i.persistent, i.active, i.refreshed) for i in found}

    wanted = session.engine.pool(values.pool).name if values.pool is not None else None
    _watch(session, values, POOL_EVENTS, "storage pool", look, pool_changes, wanted)


def secret_event(session: Session, values: Values) -> None:
    """``secret-event``."""
    import os

    def mark(secret: Any) -> Any:
        try:
            facts = os.stat(session.engine.secret_store.value_path(secret.definition))
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns

    def look() -> dict[str, Seen]:
        return {s.uuid: Seen(s.uuid, True, False, mark(s)) for s in session.engine.secrets()}

    wanted = session.engine.secret(values.secret).uuid if values.secret is not None else None
    _watch(session, values, SECRET_EVENTS, "secret", look, secret_changes, wanted)


def _watch(
    session: Session, values: Values, kinds: tuple[str, ...], what: str, look: Look,
    changes: Callable[[dict[str, Seen], dict[str, Seen]], Iterator[tuple[str, str, str]]], wanted: str | None,
) -> None:  # fmt: skip
    if values.list:
        for kind in kinds:
            session.print(kind)
        return
    if values.event is None:
        raise usage_error("one of --list and --event TYPE is needed", session.verb)
    until = None if values.timeout is None else time.monotonic() + values.timeout
    count = 0
    old = look()
    session.heeds = True
    while not session.stopping and (values.loop or not count):
        new = look()
        for kind, name, detail in changes(old, new):
            if kind == values.event and wanted in (None, name):
                count += 1
                _tell(session, values, what, kind, name, detail)
                if not values.loop:
                    break
        old = new
        if count and not values.loop:
            break
        if until is not None and time.monotonic() >= until:
            session.note("event loop timed out")
            break
        time.sleep(_PAUSE if until is None else max(0.0, min(_PAUSE, until - time.monotonic())))
    session.note(f"events received: {count}")
    session.code = 0 if count else 1


def _tell(session: Session, values: Values, what: str, kind: str, name: str, detail: str) -> None:
    now = time.time()
    if session.json:
        import json

        session.out.write(
            json.dumps({"event": kind, "name": name, "detail": detail or None, "time": round(now, 3)}) + "\n"
        )
    else:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S: ", time.localtime(now)) if values.timestamp else ""
        session.print(f"{stamp}event '{kind}' for {what} '{name}'" + (f": {detail}" if detail else ""))
    session.out.flush()
