"""Carrying a plan out by the engine's own verbs: side by side where nothing depends on each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.engine import belonging
from poolkit.engine.plan.entries import Entry, Result
from poolkit.engine.plan.marks import Mark, Marks, digest, key_of
from poolkit.engine.plan.schedule import Schedule
from poolkit.engine.plan.sources import said
from poolkit.engine.plan.task import Task
from poolkit.xmlmap import replace

if TYPE_CHECKING:  # an engine imports this package, and hands itself over
    from poolkit.engine.engine import Engine
    from poolkit.engine.operation import Outcome
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume

PATIENCE = 60.0
"""Seconds that a step waits for conflicting work of others, such as a clone from a pool that another step works on."""


class How(NamedTuple):
    """What the caller allows; see :meth:`poolkit.engine.plan.plan.Plan.apply`."""

    restart: bool = False
    overwrite: bool = False
    at_once: int = 8


class Carrier:
    """Does what the entries of one plan say."""

    def __init__(self, engine: Engine, tasks: dict[str, Task], how: How, marks: Marks | None) -> None:
        self.engine, self.tasks, self.how, self.marks = engine, tasks, how, marks
        self.wait = max(engine.core.wait, PATIENCE)
        self.abort = engine.host.abort

    def run(self, entries: Sequence[Entry], report: Callable[[Result], object]) -> list[Result]:
        """All entries, each when those before it are done; what waits for one that failed is skipped. In order of their ends."""
        schedule = Schedule(entries, self._work)
        busy: dict[Future[Result], Entry] = {}
        results: list[Result] = []

        def end(result: Result) -> None:
            results.append(result)
            report(result)

        def settle() -> None:
            while schedule.ended:
                entry, lost = schedule.ended.popleft()
                end(
                    Result(entry, "unchanged")
                    if lost is None
                    else Result(entry, "skipped", error=_without(entry, lost))
                )

        at_once = max(1, self.how.at_once)
        with ThreadPoolExecutor(at_once, thread_name_prefix="apply") as workers:
            while schedule or busy:
                while len(busy) < at_once and not self.abort.is_set() and (entry := schedule.take()) is not None:
                    busy[workers.submit(self._one, entry)] = entry
                settle()
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    schedule.end(busy.pop(future), failed=result.error is not None)
                    end(result)
                settle()
                if self.abort.is_set() and not busy:
                    for entry in schedule.left():
                        end(Result(entry, "skipped", error=errors.Aborted("stopped on request")))
                    break
        return results

    def _work(self, entry: Entry) -> bool:
        return bool(entry.steps) or bool(entry.pending and self.how.restart)

    def _one(self, entry: Entry) -> Result:
        try:
            work = {"pool": self._pool, "volume": self._volume, "secret": self._secret, "flavor": self._flavor}
            outcomes = work[entry.kind](entry)
        except errors.PoolkitError as error:
            error.hint = _unforced(error.hint)
            return Result(entry, "failed", error=error)
        except OSError as error:
            return Result(entry, "failed", error=errors.from_os_error(error, f"work on {entry.kind} '{entry.name}'"))
        changed = any(outcome.changed for outcome in outcomes)
        messages = tuple(outcome.message for outcome in outcomes if outcome.message)
        warnings = tuple(str(w) for outcome in outcomes for w in outcome.warnings)
        return Result(entry, "done" if changed else "unchanged", messages, warnings)

    def _mark(self, mark: Mark) -> None:
        if self.marks is not None:
            self.marks.add(mark)

    def _unmark(self, entry: Entry) -> None:
        if self.marks is not None:
            self.marks.drop(entry.kind, entry.name, entry.pool)

    # -- secrets ------------------------------------------------------------------------------------------------------

    def _secret(self, entry: Entry) -> list[Outcome]:
        from poolkit.engine.operation import Outcome

        if entry.action == "remove":
            present = self.tasks[entry.ident].present
            found = present or self.engine.secret(entry.name)
            gone = found.undefine()
            if self.marks is not None:
                self.marks.drop("secret", found.uuid, None)
            return [Outcome(gone, f"secret {found.uuid} is deleted")]
        made = self.engine.define_secret(self.tasks[entry.ident].definition)
        if entry.action == "add":
            self._mark(Mark("secret", made.uuid))
        return [Outcome(made.changed, f"secret {made.uuid} is defined")]

    # -- flavors ------------------------------------------------------------------------------------------------------

    def _flavor(self, entry: Entry) -> list[Outcome]:
        flavors = self.engine.flavors
        if entry.action == "remove":
            outcome: Outcome | None = flavors.get(entry.name).delete()
            self._unmark(entry)
        else:
            definition = self.tasks[entry.ident].definition
            ours = self.marks is not None and self.marks.get("flavor", entry.name, None) is not None
            if entry.action == "add" or ours:
                # Before it is made: a death in between leaves the mark of what there is not, or of what is there already.
                self._mark(Mark("flavor", entry.name, key=digest(definition)))
            outcome = flavors.define(definition).outcome
        return [outcome] if outcome is not None else []

    # -- pools --------------------------------------------------------------------------------------------------------

    def _pool(self, entry: Entry) -> list[Outcome]:
        outcomes: list[Outcome] = []
        task = self.tasks[entry.ident]
        if entry.action == "remove":
            pool = self.engine.pool(entry.name)
            if "undefine" in entry.steps:  # asked before the pool is taken down: it is left as it is, or it goes
                belonging.require_no_flavor(self.engine.core, entry.name, "undefined")
            if "destroy" in entry.steps:
                outcomes.append(pool.destroy(wait=self.wait))
            if "undefine" in entry.steps:
                outcomes.append(pool.undefine(wait=self.wait))
            self._unmark(entry)
            return outcomes
        definition = task.definition
        asked = task.wanted.definition.wanted if task.wanted is not None else None
        if "define" in entry.steps:
            if definition.uuid is None:
                import uuid

                definition = replace(definition, uuid=str(uuid.uuid4()))
            if entry.action == "add":
                # Before it is made: nobody else can make a pool with that uuid, so a death in between loses nothing.
                self._mark(Mark("pool", entry.name, None, definition.uuid))
            pool = self.engine.define(definition, wait=self.wait)
            outcomes += [pool.outcome] if pool.outcome is not None else []
        pool = self.engine.pool(entry.name)
        if "autostart" in entry.steps and asked is not None:
            outcomes.append(pool.autostart(bool(asked.autostart), wait=self.wait))
        if "destroy" in entry.steps:
            outcomes.append(pool.destroy(wait=self.wait))
        waits = bool(entry.pending) or any(change.when == "next-start" for change in entry.changes)
        if self.how.restart and waits and "start" not in entry.steps and pool.info.active:
            outcomes.append(pool.destroy(wait=self.wait))
            outcomes.append(self._start(pool, asked))
        elif "start" in entry.steps:
            outcomes.append(self._start(pool, asked))
        return outcomes

    def _start(self, pool: Pool, asked: Any) -> Outcome:
        build = asked is not None and asked.build == "if-empty"
        return pool.start(build=build, overwrite=build and self.how.overwrite, wait=self.wait, abort=self.abort)

    # -- volumes ------------------------------------------------------------------------------------------------------

    def _volume(self, entry: Entry) -> list[Outcome]:
        outcomes: list[Outcome] = []
        pool = self.engine.pool(entry.pool or "")
        task = self.tasks[entry.ident]
        if "vol-delete" in entry.steps:
            try:
                outcomes.append(pool.volume(entry.name).delete(wait=self.wait))
            except errors.VolumeNotFound:
                if entry.action != "remove":
                    raise
            if entry.action == "remove":
                self._unmark(entry)
                return outcomes
        if entry.action == "change" and not outcomes:
            return self._changed(pool.volume(entry.name), entry)
        try:
            made = self._make(pool, entry, task)
        except errors.VolumeExists:
            if not entry.unseen or not pool.lists(entry.name):
                raise  # what has its name is no volume
            return outcomes  # it was there; whether it is as wanted is seen when all is compared again
        self._mark(Mark("volume", entry.name, entry.pool, pool.uuid, self._key(made)))
        return outcomes + ([made.outcome] if made.outcome is not None else [])

    def _changed(self, volume: Volume, entry: Entry) -> list[Outcome]:
        outcomes: list[Outcome] = []
        wanted = {change.field.rpartition(".")[2]: change.new for change in entry.changes}
        if "vol-resize" in entry.steps:
            key = self._key(volume)
            shrink = "shrink" in entry.needs
            outcomes.append(volume.resize(wanted.pop("capacity"), shrink=shrink, wait=self.wait, abort=self.abort))
            mark = self.marks.get("volume", entry.name, entry.pool) if self.marks is not None else None
            if mark is not None and mark.key == key:
                # What was resized may be a new file, and is ours if the old one was.
                self._mark(mark._replace(key=self._key(volume.pool.volume(entry.name))))
        if "vol-permit" in entry.steps:
            outcomes.append(volume.pool.volume(entry.name).permit(**wanted, wait=self.wait))
        return outcomes

    def _key(self, volume: Volume) -> str:
        if self.marks is None:
            return ""
        backend = self.engine.core.definitions.backend(volume.pool.definition(), self.engine.core.host.operation())
        return key_of(backend, volume.info, volume.path)

    def _make(self, pool: Pool, entry: Entry, task: Task) -> Volume:
        definition = task.definition
        content = task.wanted.definition.content if task.wanted is not None else None
        if content is None:
            return pool.create_volume(definition, wait=self.wait, abort=self.abort)
        if content.volume is not None:
            source = self.engine.pool(content.pool or pool.name).volume(content.volume)
            return pool.create_volume_from(definition, source, wait=self.wait, abort=self.abort)
        folder = task.wanted.folder if task.wanted is not None else ""
        target = definition.target
        return pool.import_volume(
            entry.name, os.path.join(folder, content.file), format=target.format, capacity=definition.capacity,
            allocation=definition.allocation, checksum=content.checksum, permissions=target.permissions, wait=self.wait,
            abort=self.abort,
        )  # fmt: skip


def _unforced(hint: str | None) -> str | None:
    """The hint of a verb, for whoever called apply: it takes no ``force``, and a capacity is said in the document."""
    if not isinstance(hint, errors.Hint):
        return hint
    parts: list[Any] = []
    for part in hint.parts:
        if isinstance(part, errors.Option) and part.name == "force":
            if parts and isinstance(parts[-1], str):
                parts[-1] = parts[-1].removesuffix("add ")
            parts += ["do it by its own verb with ", part, ", and apply again"]
        elif isinstance(part, errors.Option) and part.name == "capacity":
            parts.append("<capacity>")
        else:
            parts.append(part)
    return errors.Hint(*parts)


def _without(entry: Entry, lost: Entry) -> errors.InvalidState:
    return errors.InvalidState(
        f"{said(entry.kind, entry.name, entry.pool)} was left alone, because {said(lost.kind, lost.name, lost.pool)} failed",
        pool=entry.pool,
        hint="when that one is right, apply again: what is done already is left as it is",
    )  # fmt: skip
