"""Secrets and flavors, wanted against present: what has a description and no storage of its own."""

from __future__ import annotations

from typing import Any

from poolkit import xmlmap
from poolkit.engine.plan.entries import Action, Change, Entry
from poolkit.engine.plan.present import Present
from poolkit.engine.plan.sources import Wanted
from poolkit.engine.plan.task import Task
from poolkit.errors import Problem
from poolkit.xmlmap import definition_alone, replace


def absent(one: Wanted) -> bool:
    """Whether a document says that its thing is to be gone."""
    wanted = getattr(one.definition, "wanted", None)
    return wanted is not None and wanted.state == "absent"


def secret(one: Wanted, present: Present, problems: list[Problem]) -> tuple[Entry, Task]:
    """A secret by its uuid, else by what it is for."""
    definition = definition_alone(one.definition)
    known = present.secrets()
    by_uuid = next((s for s in known if definition.uuid is not None and s.uuid == definition.uuid), None)
    by_usage = next((s for s in known if definition.usage is not None and s.definition.usage == definition.usage), None)
    old = by_uuid or by_usage
    if absent(one):
        entry = _gone("secret", one, "secret-undefine")._replace(needs=("delete",)) if old is not None else _same(one)
        return entry, Task(one, None, old)
    if old is not None and definition.uuid not in (None, old.uuid):
        problems.append(
            one.problem(f"a secret for that exists, with the uuid {old.uuid}; leave the uuid out", "/secret/uuid")
        )
    elif by_uuid is not None and by_usage is not by_uuid and (by_usage or by_uuid.definition.usage != definition.usage):
        problems.append(one.problem(f"secret {by_uuid.uuid} exists and is for something else", "/secret/usage"))
    if old is not None and definition.uuid is None:
        definition = replace(definition, uuid=old.uuid)
    entry = _compared("secret-define", one, definition, None if old is None else old.definition)
    return entry, Task(one, definition, old)


def flavor(one: Wanted, present: Present) -> tuple[Entry, Task]:
    """A flavor by its name."""
    old = present.flavors().get(one.name)
    if absent(one):
        entry = _gone("flavor", one, "flavor-delete") if old is not None else _same(one)
        return entry, Task(one, None, old)
    definition = definition_alone(one.definition)
    return _compared("flavor-define", one, definition, old), Task(one, definition, old)


def _same(one: Wanted) -> Entry:
    return Entry("none", one.kind, one.name, place=str(one.place))


def _gone(kind: Any, one: Wanted, step: str) -> Entry:
    changes = (Change("state", "present", "absent"),)
    return Entry("remove", kind, one.name, changes=changes, steps=(step,), place=str(one.place))


def _compared(step: str, one: Wanted, definition: Any, old: Any) -> Entry:
    if old is None:
        return _same(one)._replace(action="add", steps=(step,))
    changes = tuple(Change(*found) for found in xmlmap.diff(old, definition))
    action: Action = "change" if changes else "none"
    return _same(one)._replace(action=action, changes=changes, steps=(step,) if changes else ())
