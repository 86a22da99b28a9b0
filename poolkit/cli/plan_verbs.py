"""The verbs of storage as code: ``plan``, ``apply``, ``diff`` and ``export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values, usage_error
from poolkit.cli.session import SOMETHING_TO_DO

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.plan.entries import Change, Entry, Result
    from poolkit.engine.plan.plan import Plan

_COLOURS = {"add": output.GREEN, "change": output.YELLOW, "remove": output.RED, "none": output.DIM}
_WHEN = {
    "now": "", "next-start": "at the next start, or with --restart", "shrink": "only with --shrink: data is lost",
    "replace": "only with --replace: all data is lost",
}  # fmt: skip


def _planned(session: Session, values: Values) -> Plan:
    """The plan of paths; ``-`` is one document on standard input."""
    for path in values.path:
        if path != "-" and _plan_in(path) is not None:
            raise usage_error(
                f"'{errors.shown(path, 4096)}' is a stored plan, and no document", session.verb,
                errors.Hint("apply it alone: ", errors.remedy("apply", path)),
            )  # fmt: skip
    paths: list[Any] = [Path(path) if path != "-" else session.read("-")[0] for path in values.path]
    made = session.engine.plan(paths, prune=values.prune, strict=not values.lenient)
    if not made.wanted:
        session.warn(f"there is no document in {', '.join(errors.shown(repr(path), 4096) for path in values.path)}")
    return made


def plan(session: Session, values: Values) -> None:
    """``plan PATH...``."""
    session.options.dry_run = True  # an engine that writes nothing at all
    made = _planned(session, values)
    if values.out is not None:
        from poolkit.engine.plan.stored import text

        _write(values.out, text(made))
    if session.json:
        session.value(made.as_dict())
    else:
        _print(session, made, everything=values.all)
        _sum(session, made)
    session.code = session.code or (SOMETHING_TO_DO if made else 0)


def diff(session: Session, values: Values) -> None:
    """``diff PATH...``."""
    session.options.dry_run = True
    made = _planned(session, values)
    text = made.diff()
    if session.json:
        session.value({"changed": bool(made), "diff": text})
    else:
        for line in output.xml_for_terminal(text).splitlines():
            session.lines([session.paint(line, _of_line(line))])
    session.code = session.code or (SOMETHING_TO_DO if made else 0)


def _of_line(line: str) -> str:
    if line.startswith(("---", "+++")):
        return output.BOLD
    return {"+": output.GREEN, "-": output.RED, "@": output.DIM}.get(line[:1], "")


def apply(session: Session, values: Values) -> None:
    """``apply PATH...``."""
    at_once = 8 if values.at_once is None else values.at_once
    if at_once < 1:
        raise usage_error("--at-once is how many pools are worked on at one time: 1 or more", "apply")
    made = _stored(session, values)
    if made is None:  # one that has nothing to do is false
        made = _planned(session, values)
    if not session.json and not session.quiet:
        _print(session, made, everything=values.all)
    if session.options.dry_run:
        if session.json:
            session.value(made.as_dict())
        else:
            _sum(session, made)
        return

    stopped = 0

    def report(result: Result) -> None:
        nonlocal stopped
        if isinstance(result.error, errors.Aborted):
            stopped += 1
        elif not session.json and result.result != "unchanged":
            _say(session, result)

    done = made.apply(
        restart=values.restart, shrink=values.shrink, replace=values.replace, delete=values.delete,
        overwrite=values.overwrite, at_once=at_once, report=report,
    )  # fmt: skip
    for result in done.failed:
        if isinstance(result.error, errors.PoolkitError):
            session.code = session.code or result.error.exit_code
    if done.remaining:
        session.code = session.code or errors.InvalidState.exit_code
    if session.json:
        entries = [entry.as_dict() for entry in done.remaining]
        facts = {"changed": done.changed, "results": [_facts(session, r) for r in done.results], "remaining": entries}
        session.value(facts)
        return
    if stopped:
        session.say(
            "error", f"stopped on request: {stopped} of {len(done.results)} were not finished; apply goes on there"
        )
    for entry in done.remaining:
        session.say("error", f"{_name(entry)} is different still: {_why(entry)}")
    if not done.changed and done:
        session.note("there was nothing to do")


def _stored(session: Session, values: Values) -> Plan | None:
    if len(values.path) != 1 or values.path[0] == "-":
        return None
    data = _plan_in(values.path[0])
    if data is None:
        return None
    if values.prune:
        raise usage_error("a stored plan says itself what is pruned: leave --prune out", "apply")
    return session.engine.stored_plan(data, filename=values.path[0])


def _plan_in(path: str) -> bytes | None:
    """What a file with a stored plan holds; None where there is another file, a folder or nothing."""
    from poolkit.engine.plan.stored import is_plan

    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            return head + file.read(256 << 20) if is_plan(head) else None
    except OSError as error:
        raise errors.from_os_error(error, f"read '{errors.shown(path, 4096)}'") from error


def _facts(session: Session, result: Result) -> dict[str, Any]:
    entry = result.entry
    facts: dict[str, Any] = {
        "kind": entry.kind, "name": entry.name, "pool": entry.pool, "result": result.result,
        "messages": list(result.messages), "warnings": list(result.warnings),
    }  # fmt: skip
    if isinstance(result.error, errors.PoolkitError):
        facts["error"] = session.error_facts(result.error)
    return facts


def _say(session: Session, result: Result) -> None:
    if not session.quiet:
        for message in result.messages:
            session.print(message)
    for warning in result.warnings:
        session.warn(warning)
    if isinstance(result.error, errors.PoolkitError):
        session.tell(result.error)


# -- words ------------------------------------------------------------------------------------------------------------


def _print(session: Session, made: Plan, *, everything: bool) -> None:
    from poolkit.engine.plan.entries import SIGNS

    for entry in made.entries:
        if entry.action == "none" and not entry.pending and not everything:
            continue
        note = f"  ({entry.note})" if entry.note else ""
        head = errors.shown(f"{SIGNS[entry.action]} {_name(entry)}{note}", 4096)
        session.lines([session.paint(head, _COLOURS[entry.action])])
        for change in entry.changes:
            session.print(f"    {_change(change)}")
        for change in entry.pending:
            session.print(f"    waits for the next start, or for --restart: {_change(change, plain=True)}")


def _name(entry: Entry) -> str:
    return f"{entry.kind} {entry.name}" + (f" of pool {entry.pool}" if entry.pool else "")


def _change(change: Change, *, plain: bool = False) -> str:
    from poolkit.xmlmap.plain import word

    when = "" if plain or not _WHEN[change.when] else f" ({_WHEN[change.when]})"
    old, new = (
        ("yes" if v else "no") if isinstance(v, bool) else _octal(change.field, v) or word(v)
        for v in (change.old, change.new)
    )
    return f"{change.field}: {old} -> {new}{when}"


def _octal(field: str, value: Any) -> str:
    return f"{value:04o}" if field.endswith(".mode") and isinstance(value, int) else ""


def _why(entry: Entry) -> str:
    return "; ".join(_change(change, plain=True) for change in entry.changes) or entry.note or entry.action


def _sum(session: Session, made: Plan) -> None:
    counts = {action: sum(e.action == action for e in made.entries) for action in ("add", "change", "remove", "none")}
    if session.quiet:
        return
    if made:
        session.print(
            f"{counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove; {counts['none']} as wanted"
        )
    elif counts["none"]:
        count = counts["none"]
        session.print(f"nothing to do: {'1 is' if count == 1 else f'all {count} are'} as wanted")
    for word, entries in made.needs.items():
        session.note(f"apply needs --{word} for {len(entries)} of them")


# -- export -----------------------------------------------------------------------------------------------------------


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise errors.from_os_error(error, f"write '{errors.shown(path, 4096)}'") from error


def export(session: Session, values: Values) -> None:
    """``export DIR``."""
    folder = values.dir
    try:
        there = os.listdir(folder)
    except FileNotFoundError:
        there = []
    except OSError as error:
        raise errors.from_os_error(error, f"read the folder '{errors.shown(folder, 4096)}'") from error
    if there:
        raise errors.InvalidArgument(
            f"the folder '{errors.shown(folder, 4096)}' is not empty",
            hint="name a new one: what is there might be wanted no more",
        )
    if values.libvirt:
        from poolkit.cli.libvirt_verbs import export_libvirt

        export_libvirt(session, values)
        return
    if values.secret_values:
        raise usage_error("values of secrets are written for libvirt alone: add --libvirt", "export")
    made = session.engine.export(volumes=values.volumes, secrets=not values.no_secrets)
    if not session.options.dry_run:
        try:
            os.makedirs(folder, exist_ok=True)
            for parent in sorted({os.path.dirname(path) for path in made.files} - {""}):
                os.makedirs(f"{folder}/{parent}", exist_ok=True)
        except OSError as error:
            raise errors.from_os_error(error, f"make the folder '{errors.shown(folder, 4096)}'") from error
        for path, text in made.files.items():
            _write(f"{folder}/{path}", text)
    if session.json:
        session.value({"files": list(made.files), "left": list(made.left)})
        return
    for line in made.left:
        session.note(line)
    if not session.quiet:
        session.print(f"{output.count_of(len(made.files), dry=session.options.dry_run)} in '{folder}'")
