"""Plans that are kept in a file: made and looked at today, carried out tomorrow, and only if nothing has moved since."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from poolkit import errors, xmlmap
from poolkit.engine.plan.plan import VERSION, Plan, compare
from poolkit.engine.plan.sources import Place, Wanted, classes

if TYPE_CHECKING:  # an engine imports this package, and hands itself over
    from poolkit.engine.engine import Engine

MARK = "poolkit-plan"
"""The key that a file with a plan has, and its version as the value."""


def text(plan: Plan) -> str:
    """A plan as the text of a file: with its documents, and all that was different when it was made."""
    wanted = [
        {
            "kind": one.kind, "document": xmlmap.write(one.definition), "place": list(one.place), "folder": one.folder,
            "pool": one.pool,
        }
        for one in plan.wanted
    ]  # fmt: skip
    facts = {MARK: VERSION, "folder": plan.folder, "prune": plan.prune, "wanted": wanted, "plan": plan.as_dict()}
    return json.dumps(facts, indent=1) + "\n"


def is_plan(data: bytes) -> bool:
    """Whether that is meant as a stored plan, and not as a document."""
    return data.lstrip()[:1] == b"{"


def load(engine: Engine, data: bytes | str, filename: str = "<plan>") -> Plan:
    """The plan that was stored, made anew of its documents.

    ``PlanOutdated`` if it is not the same any more, ``InvalidArgument`` for what is no plan of this version.
    """
    try:
        facts = json.loads(data)
        if facts[MARK] != VERSION:
            raise errors.InvalidArgument(
                f"'{filename}' is a plan of version {facts[MARK]}, and not {VERSION}: plan anew"
            )
        wanted = [_wanted(one, filename) for one in facts["wanted"]]
        folder, prune, then = facts["folder"], bool(facts["prune"]), facts["plan"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.InvalidArgument(
            f"'{filename}' is no plan that was stored: {_lacking(error)}", hint="plan anew, with a file for the plan"
        ) from error
    plan = compare(engine, wanted, folder=folder, prune=prune)
    if plan.as_dict() != then:
        raise errors.PlanOutdated(
            f"what there is has changed since the plan in '{filename}' was made: {_moved(plan, then)}",
            hint="plan anew, and look at the new plan",
        )
    return plan


def _lacking(error: Exception) -> str:
    """What a file lacks that is none."""
    if isinstance(error, KeyError):
        return f"it has no {json.dumps(str(error.args[0]))}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON: {error}"
    return "its parts have another form" if isinstance(error, TypeError) else str(error)


def _moved(plan: Plan, then: Any) -> str:
    before = {(e["kind"], e["pool"], e["name"]): e for e in then["entries"]}
    now = {(e.kind, e.pool, e.name): e.as_dict() for e in plan.entries}
    names = [
        f"{k} '{n}'"
        for (k, p, n) in [*now, *(b for b in before if b not in now)]
        if before.get((k, p, n)) != now.get((k, p, n))
    ]
    return errors.some(names, 5) or "the order of its entries"


def _wanted(one: Any, filename: str) -> Wanted:
    kind, data = one["kind"], one["document"]
    definition = xmlmap.read(data, classes(kind, data), filename=filename)
    return Wanted(kind, definition, Place(*one["place"]), one["folder"], one["pool"])
