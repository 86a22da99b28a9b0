"""The verbs of flavors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolkit.cli import output
from poolkit.cli.arguments import Values
from poolkit.cli.lookup import volume_format

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.operation import Outcome


def done(session: Session, outcome: Outcome | None, flavor: str) -> None:
    """Report what was done with a flavor."""
    if session.json and outcome is not None:
        session.value({"verb": session.verb, "flavor": flavor, **session.outcome_facts(outcome)})
    else:
        session.done(outcome, flavor)


def define(session: Session, values: Values) -> None:
    """``flavor-define FILE``."""
    from poolkit.cli.document_verbs import load

    definition = load(session, values.file, "flavor", lenient=values.lenient, validate=values.validate)
    flavor = session.engine.flavors.define(definition)
    done(session, flavor.outcome, flavor.name)


def delete(session: Session, values: Values) -> None:
    """``flavor-delete FLAVOR``."""
    flavor = session.engine.flavors.get(values.flavor)
    done(session, flavor.delete(), flavor.name)


def dumpxml(session: Session, values: Values) -> None:
    """``flavor-dumpxml FLAVOR``."""
    session.xml(session.engine.flavors.get(values.flavor).xml())


def list_flavors(session: Session, values: Values) -> None:
    """``flavor-list``."""
    found = [flavor.definition for flavor in session.engine.flavors.list()]
    if session.json:
        session.value(
            [
                {"name": f.name, "description": f.description, "policy": f.policy, "backends": [b.pool for b in f.backends]}
                for f in found
            ]
        )  # fmt: skip
        return
    session.rows(
        ("Name", "Policy", "Backends", "Description"),
        [(f.name, f.policy, ", ".join(b.pool for b in f.backends) or "-", f.description or "-") for f in found],
    )


def explain(session: Session, values: Values) -> None:
    """``flavor-explain FLAVOR [CAPACITY]``."""
    flavor = session.engine.flavors.get(values.flavor)
    found = flavor.explain(values.capacity or 0, values.allocation, volume_format(values.format))
    if session.json:
        session.value(
            [
                {
                    "pool": one.facts.pool, "turn": one.turn, "why": one.why, "room": one.room,
                    **{
                        key: getattr(one.facts, key)
                        for key in ("priority", "total", "free", "provisioned", "promised", "reserved", "ratio")
                    },
                }
                for one in found
            ]
        )  # fmt: skip
        return
    session.rows(
        ("Turn", "Pool", "Total", "Free", "Provisioned", "Room", "Why not"),
        [
            (
                str(one.turn or "-"), one.facts.pool,
                *(
                    output.size(n if one.facts.total else None, values.bytes)
                    for n in (one.facts.total, one.facts.free, one.facts.provisioned, one.room)
                ),
                one.why or "-",
            )
            for one in found
        ],
        right=("Total", "Free", "Provisioned", "Room"),
    )  # fmt: skip
