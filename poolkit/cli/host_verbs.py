"""The verbs about this machine: what poolkit can do here, what is there to use, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values, shown

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def pool_types() -> list[dict[str, Any]]:
    """Every pool type with what its backend says of itself; ``error`` where it cannot be loaded."""
    from poolkit import registry
    from poolkit.backend import DefinitionOnly

    found = []
    for name in registry.types():
        facts: dict[str, Any] = {
            "type": name, "supported": False, "verbs": [], "source_formats": [], "volume_formats": [], "tools": [],
            "error": None,
        }  # fmt: skip
        try:
            backend = registry.backend(name)
            facts |= {
                "supported": True, "verbs": list(backend.verbs()), "source_formats": list(backend.source_formats),
                "volume_formats": list(backend.volume_formats), "tools": list(backend.tools),
            }  # fmt: skip
            if issubclass(backend, DefinitionOnly):
                facts |= {"supported": False, "error": "this version keeps its definitions, and cannot start its pools"}
        except Exception as error:  # other people's code: one broken package must not hide the others
            facts["error"] = str(error) or type(error).__name__
        found.append(facts)
    return found


def capabilities(session: Session, values: Values) -> None:
    """``capabilities [TYPE]``."""
    types = pool_types()
    if values.type is not None:
        types = [t for t in types if t["type"] == values.type]
        if not types:
            from poolkit import registry

            registry.backend(values.type)  # raises, with the types there are
    if session.json:
        session.value(types)
    elif values.type is not None:
        one = types[0]
        session.facts([
            ("Type", one["type"]), ("Supported", output.yes(one["supported"])),
            *([("Reason", one["error"])] if one["error"] else []), ("Verbs", " ".join(one["verbs"]) or "-"),
            ("Source formats", " ".join(one["source_formats"]) or "-"),
            ("Volume formats", " ".join(one["volume_formats"]) or "-"), ("Programs", " ".join(one["tools"]) or "-"),
        ])  # fmt: skip
    else:
        from poolkit import xmlmap

        session.xml(xmlmap.write(_document(types)))


def _document(types: list[dict[str, Any]]) -> Any:
    from poolkit.documents import CapabilityEnum, CapabilityOptions, PoolTypeCapabilities, StoragePoolCapabilities

    def options(formats: list[str], name: str) -> CapabilityOptions | None:
        if not formats:
            return None
        return CapabilityOptions(default_format=formats[0], enums=(CapabilityEnum(name=name, values=tuple(formats)),))

    return StoragePoolCapabilities(
        pools=tuple(
            PoolTypeCapabilities(
                type=t["type"], supported=t["supported"],
                pool_options=options(t["source_formats"], "sourceFormatType"),
                volume_options=options(t["volume_formats"], "targetFormatType"),
            )
            for t in types
        )
    )  # fmt: skip


# -- sources ----------------------------------------------------------------------------------------------------------


def find_sources(session: Session, values: Values) -> None:
    """``find-sources TYPE [FILE]``."""
    source = None
    if values.srcSpec is not None:
        from poolkit import xmlmap
        from poolkit.documents import FoundSource

        data, filename = session.read(values.srcSpec)
        source = xmlmap.read(data, [FoundSource], filename=filename)
    _found(session, session.engine.discover(values.type, source))


def find_sources_as(session: Session, values: Values) -> None:
    """``find-sources-as TYPE [HOST] [PORT]``."""
    from poolkit.documents import FoundSource
    from poolkit.model import SourceHost

    source = None
    if values.host is not None or values.initiator is not None:
        hosts = () if values.host is None else (SourceHost(name=values.host, port=values.port),)
        source = FoundSource(hosts=hosts, initiator=values.initiator)
    _found(session, session.engine.discover(values.type, source))


def _found(session: Session, sources: list[Any]) -> None:
    from poolkit import xmlmap
    from poolkit.documents import FoundSource, Sources

    if session.json:
        session.value([{"xml": _source_text(one)} for one in sources])
    elif all(isinstance(one, FoundSource) for one in sources):
        session.xml(xmlmap.write(Sources(sources=tuple(sources))))
    else:
        session.xml("<sources>\n" + "".join(_source_text(one) for one in sources) + "</sources>\n")


def _source_text(one: Any) -> str:
    """The ``<source>`` element of what discovery found: a source, or a pool's definition."""
    from poolkit import xmlmap

    text = xmlmap.write(one)
    start, end = text.find("  <source>"), text.find("  </source>")
    return text if start < 0 or end < 0 else text[start:end] + "  </source>\n"


# -- probe ------------------------------------------------------------------------------------------------------------


def probe(session: Session, values: Values) -> None:
    """``probe FILE...``."""
    from poolkit.formats import describe

    answers = [describe(file) for file in values.file]
    if any(a["format"] is None for a in answers):
        session.code = errors.HostError.exit_code
    if session.json:
        session.value(answers)
        return
    session.rows(
        ("File", "Format", "Size", "Backing", "Encrypted", "Compat", "Cluster"),
        [
            (
                a["path"], (a["format"] or "-") + ("?" if a["ambiguous"] else ""), output.size(a["virtual_size"], values.bytes),
                " ".join(filter(None, [a["backing_file"], a["backing_format"] and f"({a['backing_format']})"])) or "-",
                "-" if a["encrypted"] is None else a["encryption"] or output.yes(a["encrypted"]),
                a["compat"] or "-", output.size(a["cluster_size"], values.bytes),
            )
            for a in answers
        ],
        right=("Size", "Cluster"),
    )  # fmt: skip
    for answer in answers:
        file = shown(answer["path"], 4096)
        if answer["error"]:
            session.say("error", f"{file}: {answer['error']}")
        if answer["ambiguous"]:
            session.warn(
                f"{file}: it could also be {', '.join(answer['also'])}; do not use it before you know which it is"
            )
        if answer["data_file"]:
            session.note(f"{file}: its data is in '{answer['data_file']}'")
        for note in answer["notes"]:
            session.note(f"{file}: {note}")


# -- recover, doctor --------------------------------------------------------------------------------------------------


def recover(session: Session, values: Values) -> None:
    """``recover``."""
    engine = session.engine
    if session.options.dry_run:
        from poolkit.host import undo

        lines = []
        for path in engine.operations.left():
            head, steps = undo.read(path)
            lines.append(
                f"{head.get('verb')} of pool '{head.get('pool')}' by process {head.get('pid')}: {len(steps)} steps"
            )
    else:
        lines = [*engine.recovered, *engine.operations.recover(waiting=True)]
    failed = engine.operations.failed()
    if failed:
        session.code = 1
    if session.json:
        session.value({"recovered": lines, "failed": failed})
        return
    for line in lines:
        session.print(line)
    for path in failed:
        session.say("error", f"could not be undone completely, see {path}")
    if not lines and not failed and not session.quiet:
        session.print("nothing was left over")


def doctor(session: Session, values: Values) -> None:
    """``doctor``."""
    from poolkit.cli.doctor import examine

    checks = examine(session)
    blocked = any(c["status"] == "problem" for c in checks)
    session.code = 1 if blocked else 0
    if session.json:
        session.value({"ok": not blocked, "checks": checks})
        return
    session.rows(
        ("State", "What", "Finding"),
        [
            (c["status"], c["name"], c["message"] + (f" ({c['hint']})" if c["hint"] else ""))
            for c in checks
            if not session.quiet or c["status"] == "problem"
        ],
        colour="State",
    )
