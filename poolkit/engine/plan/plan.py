"""A plan: how a root differs from a folder of documents, and what makes it so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.engine.plan import sources
from poolkit.engine.plan.entries import Applied, Entry, Result
from poolkit.engine.plan.marks import Marks
from poolkit.engine.plan.planning import Planned, Planner
from poolkit.engine.plan.present import Present
from poolkit.engine.plan.sources import Document, Wanted
from poolkit.engine.plan.task import Task
from poolkit.xmlmap import Element

if TYPE_CHECKING:  # an engine imports this package, and hands itself over
    from poolkit.engine.engine import Engine

VERSION = 1
"""Of the form of stored plans and of what ``--json`` prints."""
WORDS = ("shrink", "replace", "delete")


class Plan:
    """How a root differs from what documents want: ``entries`` in the order in which they are done.

    A snapshot: nothing was changed for it, and it does not change. True in a condition when there is something to do.
    Made by :meth:`poolkit.engine.engine.Engine.plan`.
    """

    def __init__(
        self,
        engine: Engine,
        wanted: Sequence[Wanted],
        planned: Planned,
        *,
        folder: str | None = None,
        prune: bool = False,
    ) -> None:
        self.engine = engine
        self.wanted = tuple(wanted)
        self.entries = tuple(planned.entries)
        self.folder = folder
        """Whose earlier applies are remembered; None where no folder or file was given."""
        self.prune = prune
        self._tasks = planned.tasks
        self._stale = planned.stale

    def __bool__(self) -> bool:
        return any(entry.action != "none" for entry in self.entries)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.entries)} entries, {sum(e.action != 'none' for e in self.entries)} to do>"

    def task(self, entry: Entry) -> Task:
        """What an entry of this plan stands for: the document, the definition that is stored or made, and what there is."""
        return self._tasks.get(entry.ident) or Task(None)

    @property
    def needs(self) -> dict[str, tuple[Entry, ...]]:
        """The words without which it is not applied, each with the entries that need it."""
        asked = {word: tuple(e for e in self.entries if word in e.needs) for word in WORDS}
        return {word: entries for word, entries in asked.items() if entries}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``plan --json`` prints them."""
        return {"version": VERSION, "changed": bool(self), "entries": [entry.as_dict() for entry in self.entries]}

    def diff(self) -> str:
        """A unified diff of normalized documents, what there is against what is wanted; empty where there is nothing to do."""
        from poolkit.engine.plan import difference

        return "".join(f"{line}\n" for line in difference.lines(self))

    def apply(
        self,
        *,
        restart: bool = False,
        shrink: bool = False,
        replace: bool = False,
        delete: bool = False,
        overwrite: bool = False,
        at_once: int = 8,
        report: Callable[[Result], object] | None = None,
    ) -> Applied:
        """Do what the plan says, and compare again.

        ``restart`` stops and starts active pools for what waits for that. What destroys data needs a word each: ``shrink``
        volumes, ``replace`` volumes by new ones, ``delete`` volumes (and values of secrets); ``overwrite`` lets the build of a
        pool destroy what its source holds. Without a word that is needed nothing is begun: ``Unsafe``, with all that need it.
        ``at_once`` is how many pools are worked on side by side; ``report`` gets the result of each entry when it has ended. What
        stands on something that failed is skipped, and the rest goes on. Safe to interrupt and to repeat.
        """
        from poolkit.engine.plan.carrying import Carrier, How

        self._require({"shrink": shrink, "replace": replace, "delete": delete})
        engine = self.engine
        if engine.host.dry_run:
            return Applied(tuple(Result(entry, "unchanged") for entry in self.entries), ())
        report = report or (lambda result: None)
        with contextlib.ExitStack() as open:
            marks = open.enter_context(Marks(engine.core, self.folder)) if self.folder is not None else None
            carrier = Carrier(engine, self._tasks, How(restart, overwrite, at_once), marks)
            results = list(self._refreshed(carrier.wait))
            for result in results:
                report(result)
            results += carrier.run(self.entries, report)
        ill = {result.entry.ident for result in results if result.error is not None}
        try:
            again = compare(engine, self.wanted, folder=self.folder, prune=self.prune).entries
        except errors.InvalidDefinition:
            if not ill:
                raise
            again = ()  # what is in the way is there since the apply; the results tell of it
        return Applied(tuple(results), tuple(e for e in again if e.action != "none" and e.ident not in ill))

    def _refreshed(self, wait: float) -> Iterator[Result]:
        """List pools anew whose listing has a wanted volume otherwise than it is: others were there, or a verb was killed.

        That is no change of the world, and no result, but where it fails.
        """
        for name in self._stale:
            try:
                self.engine.pool(name).refresh(wait=wait)
            except errors.PoolkitError as error:
                yield Result(Entry("none", "pool", name), "failed", error=error)

    def _require(self, given: dict[str, bool]) -> None:
        lacking = [(word, entries) for word, entries in self.needs.items() if not given[word]]
        if not lacking:
            return
        lines = []
        for word, entries in lacking:
            names = errors.some([f"'{e.name}'" + (f" of pool '{e.pool}'" if e.pool else "") for e in entries], 10)
            lines.append(f"nothing was begun: {_DESTROYS[word]} {names}")
        raise errors.Unsafe(
            "\n".join(lines),
            hint=errors.Hint("if that is meant, add ", *_between([errors.Option(w) for w, _ in lacking])),
        )


_DESTROYS = {
    "shrink": "data beyond the new end would be lost of", "replace": "all data would be lost, for they are made anew, of",
    "delete": "with all data would be deleted",
}  # fmt: skip


def _between(options: list[Any]) -> list[Any]:
    parts: list[Any] = []
    for option in options:
        parts += [" and ", option] if parts else [option]
    return parts


def make(engine: Engine, documents: Document | Iterable[Document], *, prune: bool = False, strict: bool = True) -> Plan:
    """See :meth:`poolkit.engine.engine.Engine.plan`."""
    if isinstance(documents, (str, bytes, os.PathLike, Element)):
        documents = [documents]
    documents = list(documents)
    paths = [os.path.realpath(os.fspath(one)) for one in documents if isinstance(one, os.PathLike)]
    folder = "\n".join(sorted(os.fsdecode(path) for path in paths)) if paths else None
    if prune and folder is None:
        raise errors.InvalidArgument("only what was applied of a folder or of files can be pruned: give their paths")
    return compare(engine, sources.read(documents, strict=strict), folder=folder, prune=prune)


def compare(engine: Engine, wanted: Sequence[Wanted], *, folder: str | None = None, prune: bool = False) -> Plan:
    """The plan for documents that were read."""
    marks = list(Marks(engine.core, folder)) if prune and folder is not None else []
    return Plan(engine, wanted, Planner(Present(engine), wanted, marks).run(), folder=folder, prune=prune)
