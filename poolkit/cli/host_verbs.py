"""The verbs about this machine: what poolkit can do here, what is there to use, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def capabilities(session: Session, values: Values) -> None:
    """``capabilities [TYPE]``."""
    from poolkit.engine.capabilities import document, pool_types

    types = pool_types()
    if values.type is not None:
        types = [t for t in types if t.type == values.type]
        if not types:
            from poolkit import registry

            registry.backend(values.type)  # raises, with the types there are
    if session.json:
        session.value([t._asdict() for t in types])
    elif values.type is not None:
        one = types[0]
        session.facts([
            ("Type", one.type), ("Supported", output.yes(one.supported)),
            *([("Reason", one.error)] if one.error else []), ("Verbs", " ".join(one.verbs) or "-"),
            ("Source formats", " ".join(one.source_formats) or "-"),
            ("Volume formats", " ".join(one.volume_formats) or "-"), ("Programs", " ".join(one.tools) or "-"),
        ])  # fmt: skip
    else:
        from poolkit import xmlmap

        session.xml(xmlmap.write(document(types)))


# -- sources ----------------------------------------------------------------------------------------------------------


def find_sources(session: Session, values: Values) -> None:
    """``find-sources TYPE [FILE]``."""
    data, filename = (None, "") if values.srcSpec is None else session.read(values.srcSpec)
    _found(session, values, session.engine.discover(values.type, data, filename=filename))


def find_sources_as(session: Session, values: Values) -> None:
    """``find-sources-as TYPE [HOST] [PORT]``."""
    from poolkit.documents import FoundSource
    from poolkit.model import SourceHost

    source = None
    if values.host is not None or values.initiator is not None:
        hosts = () if values.host is None else (SourceHost(name=values.host, port=values.port),)
        source = FoundSource(hosts=hosts, initiator=values.initiator)
    _found(session, values, session.engine.discover(values.type, source))


def _found(session: Session, values: Values, sources: list[Any]) -> None:
    from poolkit import xmlmap
    from poolkit.documents import FoundSource, Sources

    if values.define:
        texts = [xmlmap.write(one) for one in session.engine.proposed(values.type, sources)]
        if session.json:
            session.value([{"xml": text} for text in texts])
        else:
            session.xml("\n".join(texts))
        return
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
        file = errors.shown(answer["path"], 4096)
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
    lines = engine.left_over() if session.options.dry_run else [*engine.recovered, *engine.recover()]
    failed = engine.not_undone()
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
    from poolkit.engine.health import examine

    findings = examine(session.options.root, lambda: session.engine)
    blocked = any(f.status == "problem" for f in findings)
    session.code = 1 if blocked else 0
    if session.json:
        session.value(
            {
                "ok": not blocked,
                "checks": [f._asdict() | ({"hint": session.words(f.hint)} if f.hint else {}) for f in findings],
            }
        )
        return
    session.rows(
        ("State", "What", "Finding"),
        [
            (f.status, f.name, f.message + (f" ({session.words(f.hint)})" if f.hint else ""))
            for f in findings
            if not session.quiet or f.status == "problem"
        ],
        colour="State",
    )
