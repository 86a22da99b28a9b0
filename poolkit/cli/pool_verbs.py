"""The verbs of pools."""

from __future__ import annotations

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import usage_error
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from poolkit.cli.arguments import Values
    from poolkit.cli.session import Session
    from poolkit.engine.pool import Pool, PoolInfo


def _overwrite(values: Values, verb: str) -> bool:
    if values.overwrite and values.no_overwrite:
        raise usage_error("--overwrite and --no-overwrite exclude each other", verb)
    return bool(values.overwrite)


def _with_build(values: Values) -> bool:
    # As in virsh: either of the two says that the pool is to be built.
    return bool(values.build or values.overwrite or values.no_overwrite)


def define(session: Session, values: Values) -> None:
    """``define FILE``."""
    from poolkit.cli.document_verbs import load

    definition = load(session, values.file, "pool", lenient=values.lenient, validate=values.validate)
    _done(session, session.engine.define(definition))


def create(session: Session, values: Values) -> None:
    """``create FILE``."""
    from poolkit.cli.document_verbs import load

    overwrite = _overwrite(values, "create")
    definition = load(session, values.file, "pool", lenient=values.lenient, validate=values.validate)
    _done(session, session.engine.create(definition, build=_with_build(values), overwrite=overwrite))


def _done(session: Session, pool: Pool) -> None:
    session.done(pool.outcome, pool.name, uuid=pool.uuid)


def undefine(session: Session, values: Values) -> None:
    """``undefine POOL``."""
    pool = session.engine.pool(values.pool)
    session.done(pool.undefine(force=values.force), pool.name)


def build(session: Session, values: Values) -> None:
    """``build POOL``."""
    overwrite = _overwrite(values, "build")
    pool = session.engine.pool(values.pool)
    session.done(pool.build(overwrite=overwrite), pool.name)


def start(session: Session, values: Values) -> None:
    """``start POOL``, or ``start --autostart``."""
    overwrite = _overwrite(values, "start")
    if values.autostart:
        if values.pool is not None or _with_build(values):
            raise usage_error(
                "--autostart starts the marked pools as they are: it takes no pool and no build option", "start"
            )
        _start_marked(session, values.deadline)
        return
    if values.deadline is not None:
        raise usage_error("--deadline is for --autostart", "start")
    if values.pool is None:
        raise usage_error("pool is missing (name or uuid of the pool)", "start")
    pool = session.engine.pool(values.pool)
    session.done(pool.start(build=_with_build(values), overwrite=overwrite), pool.name)


def _start_marked(session: Session, deadline: float | None) -> None:
    answers: list[dict[str, Any]] = []
    found: dict[str, list[str]] = {}
    for one in session.engine.starting_autostart(deadline=deadline):
        found.setdefault(one.result, []).append(one.pool)
        facts: dict[str, Any] = {"pool": one.pool, "result": one.result, "seconds": round(one.seconds, 1)}
        if one.outcome is not None:
            answers.append({**facts, **session.outcome_facts(one.outcome)})
            if not session.json:
                session.done(one.outcome, one.pool)
        elif one.error is not None:
            session.code = session.code or one.error.exit_code
            answers.append({**facts, "error": session.error_facts(one.error)})
            if not session.json:
                session.fail(one.error)
    if session.json:
        session.value(sorted(answers, key=lambda answer: str(answer["pool"])))
    elif not session.options.dry_run:
        _sum_up(session, found)


_RESULTS = {
    "started": "started", "unchanged": "active already", "failed": "failed", "timed-out": "given up after its deadline",
    "skipped": "not tried",
}  # fmt: skip


def _sum_up(session: Session, found: Mapping[str, list[str]]) -> None:
    """How many pools had which end, with the names of those that are not up."""
    parts = []
    for result, words in _RESULTS.items():
        if names := sorted(found.get(result, ())):
            which = "" if result in ("started", "unchanged") else f" ({', '.join(names)})"
            parts.append(f"{len(names)} {words}{which}")
    if session.code:
        session.say("error", f"of the pools that are marked for autostart: {', '.join(parts)}")
    else:
        session.note(", ".join(parts) or "no pool is marked for autostart")


def refresh(session: Session, values: Values) -> None:
    """``refresh POOL [--vol NAME] [--follow]``."""
    pool = session.engine.pool(values.pool)
    if values.follow and values.vol is not None:
        raise usage_error("--follow looks at all volumes, and --vol at one", session.verb)
    if values.follow:
        session.heeds = True
        try:
            for outcome in pool.follow():
                session.done(outcome, pool.name)
                session.out.flush()
        except errors.Aborted:
            if not session.stopping:
                raise
        return
    session.done(pool.refresh(values.vol), pool.name)


def destroy(session: Session, values: Values) -> None:
    """``destroy POOL``."""
    pool = session.engine.pool(values.pool)
    session.done(pool.destroy(force=values.force), pool.name)


def delete(session: Session, values: Values) -> None:
    """``delete POOL``."""
    pool = session.engine.pool(values.pool)
    session.done(pool.delete(force=values.force), pool.name)


def autostart(session: Session, values: Values) -> None:
    """``autostart POOL``."""
    pool = session.engine.pool(values.pool)
    session.done(pool.autostart(not values.disable), pool.name)


def list_pools(session: Session, values: Values) -> None:
    """``list``."""
    if values.transient and values.persistent:
        raise usage_error("--transient and --persistent exclude each other", "list")
    if values.autostart and values.no_autostart:
        raise usage_error("--autostart and --no-autostart exclude each other", "list")
    pools = session.engine.pools(
        active=None if values.all else not values.inactive,
        persistent=True if values.persistent else False if values.transient else None,
        autostart=True if values.autostart else False if values.no_autostart else None,
        types=_types(values.type),
    )
    if session.json:
        session.value([facts(info) for info in pools])
    elif values.name or values.uuid:
        for info in pools:
            session.print(" ".join([info.name] * values.name + [info.uuid or "-"] * values.uuid))
    elif values.details:
        session.rows(
            ("Name", "Type", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available", "Target"),
            [
                (
                    i.name, i.type or "-", i.state, output.yes(i.autostart), output.yes(i.persistent),
                    *(output.size(n if i.active else None, values.bytes) for n in (i.capacity, i.allocation, i.available)),
                    i.target or "-",
                )
                for i in pools
            ],
            right=("Capacity", "Allocation", "Available"), colour="State",
        )  # fmt: skip
        _reasons(session, pools)
    else:
        session.rows(
            ("Name", "Type", "State", "Autostart"),
            [(i.name, i.type or "-", i.state, output.yes(i.autostart)) for i in pools],
            colour="State",
        )
        _reasons(session, pools)


def _types(wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    if not wanted:
        return ()
    from poolkit import registry
    from poolkit.cli.arguments import near

    known = registry.types()
    for one in wanted:
        if one not in known:
            hint = near(one, known) or f"the types are: {', '.join(known)}"
            raise usage_error(f"there is no pool type '{errors.shown(one, 60)}'", "list", hint)
    return wanted


def _reasons(session: Session, pools: list[PoolInfo]) -> None:
    for info in pools:
        if info.reason:
            session.note(f"pool '{info.name}': {info.reason.splitlines()[0]}")


def facts(info: PoolInfo) -> dict[str, Any]:
    """The facts of a pool as plain values."""
    first = {"name": info.name, "uuid": info.uuid, "type": info.type, "state": info.state}
    return first | {key: value for key, value in info._asdict().items() if key not in first}


def info(session: Session, values: Values) -> None:
    """``info POOL``."""
    found = session.engine.pool(values.pool).info
    if session.json:
        session.value(facts(found))
        return
    sizes = [
        (word, output.size(number if found.active else None, values.bytes))
        for word, number in (
            ("Capacity", found.capacity), ("Allocation", found.allocation), ("Available", found.available)
        )
    ]  # fmt: skip
    session.facts([
        ("Name", found.name), ("UUID", found.uuid or "-"), ("Type", found.type or "-"), ("State", found.state),
        *([("Reason", line) for line in found.reason.splitlines()]),
        ("Persistent", output.yes(found.persistent)), ("Autostart", output.yes(found.autostart)),
        ("Target", found.target or "-"), *sizes, ("Refreshed", output.when(found.refreshed)),
    ])  # fmt: skip


def dumpxml(session: Session, values: Values) -> None:
    """``dumpxml POOL``."""
    session.xml(session.engine.pool(values.pool).xml(inactive=values.inactive))


def edit(session: Session, values: Values) -> None:
    """``edit POOL``."""
    from poolkit.cli.editor import edit_pool

    edit_pool(session, session.engine.pool(values.pool))


def uuid(session: Session, values: Values) -> None:
    """``uuid POOL``."""
    session.text("uuid", session.engine.pool(values.pool).uuid)


def name(session: Session, values: Values) -> None:
    """``name POOL``."""
    session.text("name", session.engine.pool(values.pool).name)


def lock_status(session: Session, values: Values) -> None:
    """``lock-status POOL``."""
    found = session.engine.pool(values.pool).lock_status()
    if session.json:
        session.value(found)
        return
    attached = found.pop("attached", {})
    rows = [(key.replace("_", " ").capitalize(), "-" if value is None else str(value)) for key, value in found.items()]
    rows += [(f"Attached: {name}", ", ".join(nodes)) for name, nodes in sorted(attached.items())]
    session.facts(rows)


def take_control(session: Session, values: Values) -> None:
    """``take-control POOL``."""
    pool = session.engine.pool(values.pool)
    session.done(pool.take_control(), pool.name)
