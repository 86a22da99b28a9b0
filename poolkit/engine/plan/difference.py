"""A plan as a unified diff of normalized documents, what there is against what is wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from poolkit import xmlmap
from poolkit.engine.describe import describer
from poolkit.engine.plan.entries import Change, Entry
from poolkit.model import WantedPool
from poolkit.xmlmap import replace, without_reports

if TYPE_CHECKING:
    from poolkit.engine.plan.plan import Plan


def lines(plan: Plan) -> Iterator[str]:
    """The lines of the diff, without line ends; none where there is nothing to do."""
    for entry in plan.entries:
        if entry.action == "none":
            continue
        old, new = _texts(plan, entry)
        name = entry.ident.replace(" ", "/", 1)
        before, after = f"present/{name}" if old else "/dev/null", f"wanted/{name}" if new else "/dev/null"
        yield from difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm="")


def _texts(plan: Plan, entry: Entry) -> tuple[str, str]:
    task = plan.task(entry)
    if entry.kind == "secret":
        old = task.present.xml() if task.present is not None else ""
        new = task.definition
        if new is not None and new.uuid is None and task.present is not None:
            new = replace(new, uuid=task.present.uuid)
        return old, "" if new is None else xmlmap.write(new)
    if entry.kind == "flavor":
        return _written(task.present), _written(task.definition)
    if entry.kind == "pool":
        wanted = task.wanted.definition.wanted if task.wanted is not None else None
        return _pool(entry, task.present, task.definition, wanted)
    new = "" if entry.action == "remove" else None
    if task.present is None:
        return "", xmlmap.write(
            without_reports(task.wanted.definition)
        ) if task.wanted is not None and new is None else ""
    pool = plan.engine.pool(entry.pool or "")
    document = without_reports(describer(pool.info.target)(task.present))
    return xmlmap.write(document), xmlmap.write(_changed(document, entry.changes)) if new is None else new


def _written(definition: Any) -> str:
    return "" if definition is None else xmlmap.write(definition)


def _pool(entry: Entry, facts: Any, definition: Any, wanted: Any) -> tuple[str, str]:
    """State and autostart are said on both sides where they differ."""
    said = {change.field: change for change in entry.changes if change.field in ("state", "autostart")}
    build = wanted.build if wanted is not None else "never"
    before = {field: change.old for field, change in said.items()}
    old = "" if facts is None or facts.stored is None else _with(facts.stored, before, build)
    if entry.action == "remove":
        return old, ""
    return old, _with(definition, {field: change.new for field, change in said.items()}, build)


def _with(definition: Any, said: dict[str, Any], build: Any) -> str:
    return xmlmap.write(replace(definition, wanted=WantedPool(build=build, **said)) if said else definition)


def _changed(document: Any, changes: tuple[Change, ...]) -> Any:
    for change in changes:
        document = _put(document, change.field.split("."), change.new)
    return document


def _put(document: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return replace(document, **{head: _put(getattr(document, head), rest, value) if rest else value})
