"""What a plan consists of, as plain values."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from poolkit.engine.plan.sources import Kind, identity
from poolkit.xmlmap.plain import plain

Action = Literal["add", "change", "remove", "none"]
When = Literal["now", "next-start", "shrink", "replace"]
"""When a change takes effect: at once; when the pool is started the next time, or at once with the word ``restart``; only
with the word ``shrink``; only with the word ``replace``, by deleting the volume and making it anew."""
Word = Literal["shrink", "replace", "delete"]
"""What has to be said for something that destroys data."""

UNSEEN = "unless it is there, which is seen when its pool is active"
"""The note, or its beginning, of a volume that is to be made, and may be there already."""

SIGNS: dict[Action, str] = {"add": "+", "change": "~", "remove": "-", "none": "="}


class Change(NamedTuple):
    """One field: its dotted name as in the class of the document, the value that there is, and the one that is wanted.

    Beside the fields of documents there are ``state`` and ``autostart`` of a pool.
    """

    field: str
    old: Any
    new: Any
    when: When = "now"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"field": self.field, "old": plain(self.old), "new": plain(self.new), "when": self.when}


class Entry(NamedTuple):
    """What is to be done to one pool, volume or secret, in order with the others of a plan.

    ``steps`` are the engine's verbs that do it. ``needs`` are the words without which it is not begun. ``after`` names the
    entries that have to be done before it. ``place`` is where its document begins, empty for what no document describes.
    ``pending`` are changes that were made before, and wait for the next start of the pool.
    """

    action: Action
    kind: Kind
    name: str
    pool: str | None = None
    changes: tuple[Change, ...] = ()
    steps: tuple[str, ...] = ()
    needs: tuple[Word, ...] = ()
    after: tuple[str, ...] = ()
    place: str = ""
    note: str = ""
    pending: tuple[Change, ...] = ()

    @property
    def ident(self) -> str:
        """What tells it from the others of a plan."""
        return identity(self.kind, self.name, self.pool)

    @property
    def unseen(self) -> bool:
        """Whether it is to be made, and may be there already."""
        return self.note.startswith(UNSEEN)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "action": self.action, "kind": self.kind, "name": self.name, "pool": self.pool,
            "changes": [change.as_dict() for change in self.changes], "steps": list(self.steps), "needs": list(self.needs),
            "after": list(self.after), "place": self.place, "note": self.note,
            "pending": [change.as_dict() for change in self.pending],
        }  # fmt: skip


class Result(NamedTuple):
    """What became of one entry: ``error`` if it failed, or was skipped because of another one that did."""

    entry: Entry
    result: Literal["done", "unchanged", "failed", "skipped"]
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


class Applied(NamedTuple):
    """What an apply did, and what is different nevertheless when all is compared again."""

    results: tuple[Result, ...]
    remaining: tuple[Entry, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return any(result.result == "done" for result in self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """What failed or was skipped."""
        return tuple(result for result in self.results if result.error is not None)

    def __bool__(self) -> bool:
        """Whether all is now as it was wanted."""
        return not self.failed and not self.remaining
