"""The verbs between a libvirt host and poolkit: taking over what it has, and writing its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values, usage_error
from poolkit.host import cores

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.libvirt.taking import Taken


def import_libvirt(session: Session, values: Values) -> None:
    """``import libvirt``."""
    from poolkit.engine.libvirt import connection, found, taking

    place = getattr(values, "from")
    if place is not None and values.uri is not None:
        raise usage_error("--from reads folders, --uri asks a libvirt that runs: give one of them", "import")
    cores.forbid()  # it has seen secrets then
    host = found.in_folders(place) if values.uri is None else connection.at(values.uri)

    def report(one: Taken) -> None:
        if one.error is not None:
            session.code = session.code or one.error.exit_code
        if not session.json:
            _say(session, one)

    made = taking.take(session.engine, host, report=report)
    if session.json:
        session.value({
            "changed": made.changed, "results": [_facts(session, one) for one in made.results], "marks": list(made.marks),
            "warnings": list(made.warnings), **({"dry_run": True} if session.options.dry_run else {}),
        })  # fmt: skip
        return
    for warning in made.warnings:
        session.warn(warning)
    for mark in made.marks:
        session.note(f"to remove the mark there: {mark}")
    if not session.quiet:
        _sum(session, made.results, host.where)


def _say(session: Session, one: Taken) -> None:
    if not session.quiet:
        for message in one.messages:
            session.print(message)
    for warning in one.warnings:
        session.warn(warning)
    if one.error is not None:
        session.tell(one.error)


def _sum(session: Session, results: tuple[Taken, ...], where: str) -> None:
    words = {"taken": "would be taken" if session.options.dry_run else "taken", "unchanged": "here already",
             "different": "here already and different", "failed": "not taken"}  # fmt: skip
    counts = {result: sum(one.result == result for one in results) for result in words}
    said = [f"{count} {words[result]}" for result, count in counts.items() if count]
    session.print(f"{where}: {', '.join(said) or 'no pools and no secrets'}")


def _facts(session: Session, one: Taken) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": one.kind, "name": one.name, "result": one.result, "messages": list(one.messages),
        "warnings": list(map(session.words, one.warnings)),
    }  # fmt: skip
    if one.error is not None:
        facts["error"] = session.error_facts(one.error)
    return facts


# -- the other way ----------------------------------------------------------------------------------------------------


def export_libvirt(session: Session, values: Values) -> None:
    """``export --libvirt DIR``; the folder is empty or not there."""
    from poolkit.engine.libvirt import giving

    if values.volumes:
        raise usage_error("libvirt keeps no documents of volumes: leave --volumes out", "export")
    if values.secret_values and values.no_secrets:
        raise usage_error("--secret-values and --no-secrets exclude each other", "export")
    if values.secret_values:
        cores.forbid()
    given = giving.documents(session.engine, secrets=not values.no_secrets, values=values.secret_values)
    if not session.options.dry_run:
        try:
            _write(given, values.dir)
        except OSError as error:
            raise errors.from_os_error(error, f"write the folder '{errors.shown(values.dir, 4096)}'") from error
    if session.json:
        session.value({"files": [*given.files, *given.links, *given.values], "left": list(given.left)})
        return
    for line in given.left:
        session.note(line)
    for name in given.marks:
        session.note(f"pool '{name}' is marked for autostart here and there: two engines must not both start a pool")
    if not session.quiet:
        session.print(
            f"{output.count_of(len(given.files), dry=session.options.dry_run)} in '{values.dir}': copied into /etc/libvirt they "
            "are loaded when libvirtd starts, or by systemctl reload libvirtd"
        )


def _write(given: Any, folder: str) -> None:
    for name, mode in (("storage/autostart", 0o755), ("secrets", 0o700)):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        os.chmod(f"{folder}/{name}", mode)
    secret = {path: value.reveal() for path, value in given.values.items()}
    for path, data in {**{path: text.encode() for path, text in given.files.items()}, **secret}.items():
        with open(os.open(f"{folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    for path, target in given.links.items():
        os.symlink(target, f"{folder}/{path}")
