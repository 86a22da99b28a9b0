"""The verbs of documents: reading them for other verbs, validating, normalising, and printing their grammar."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values, usage_error
from poolkit.errors import InvalidDefinition, Problem

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.xmlmap.judges import Judges

_ROOTS = {
    "pool": "pool", "volume": "volume", "secret": "secret", "flavor": "flavor", "sources": "sources", "source": "sources",
    "storagepoolCapabilities": "capabilities", "poolCapabilities": "capabilities", "documents": "documents",
}  # fmt: skip
_NETWORK = ("rbd", "sheepdog", "gluster", "iscsi-direct")


def classes(kind: str) -> list[type]:
    """The classes of one kind of document, those of installed packages included."""
    if kind == "pool":
        from poolkit import registry

        return registry.definitions()
    if kind == "volume":
        from poolkit.model import Volume

        return [Volume]
    if kind == "documents":
        from poolkit import registry, schemas

        return schemas.several(registry.definitions())
    from poolkit import documents

    others: dict[str, list[type]] = {
        "secret": [documents.Secret],
        "flavor": [documents.Flavor],
        "sources": [documents.Sources, documents.FoundSource],
        "capabilities": [documents.StoragePoolCapabilities, documents.PoolCapabilities],
    }
    return others[kind]


def kind_of(data: bytes) -> str:
    """Which kind of document this is, by its root element; ``pool`` if that cannot be seen."""
    from poolkit.xmlmap.source import root

    return _ROOTS.get(root(data)[0], "pool")


def _reading_classes(data: bytes, kind: str) -> list[type]:
    if kind != "pool":
        return classes(kind)
    from poolkit import registry

    return registry.candidates(data)


def read(session: Session, data: bytes, filename: str, kind: str, *, lenient: bool = False) -> Any:
    """The object that a document describes; ``InvalidDefinition``."""
    from poolkit import xmlmap

    def warn(problem: Problem) -> None:
        session.warn_of_document(str(problem))

    if kind == "documents":
        from poolkit.engine.plan import several

        return several.each(data, filename, strict=not lenient, warn=warn)
    return xmlmap.read(data, _reading_classes(data, kind), filename=filename, strict=not lenient, warn=warn)


def load(session: Session, file: str, kind: str, *, lenient: bool = False, validate: bool = False) -> Any:
    """The object that the document in ``file`` describes; with ``validate`` both grammars must accept it, too."""
    data, filename = session.read(file)
    definition = read(session, data, filename, kind, lenient=lenient)
    if validate:
        problems = [p for judge in judge_by_grammars(data, filename, kind).values() for p in judge]
        if problems:
            raise InvalidDefinition(problems)
    return definition


# -- validate ---------------------------------------------------------------------------------------------------------


def judge_by_grammars(data: bytes, filename: str, kind: str) -> dict[str, list[Problem]]:
    """What the RELAX NG and the XSD grammar have against a document that the reader accepted."""
    return judges_of(tuple(_reading_classes(data, kind))).against(data, filename)


@cache
def judges_of(of: tuple[type, ...]) -> Judges:
    """Those of the documents of these classes, made once."""
    from poolkit.xmlmap.judges import Judges

    return Judges(of)


def validate(session: Session, values: Values) -> None:
    """``validate FILE...``."""
    verdicts = []
    for file in values.file:
        try:
            verdict = _verdict(session, file)
        except errors.HostError as error:
            session.code = session.code or error.exit_code
            problem = Problem(errors.shown(file, 4096), 0, 0, "", str(error))
            verdict = {"file": file, "valid": False, "kind": None, "problems": [problem], "judges": {}}
        verdicts.append(verdict)
        if not session.json:
            for problem in verdict["problems"]:
                # That a file cannot be read says its name already.
                session.say("error", str(problem) if verdict["kind"] is not None else problem.message)
            if verdict["valid"] and not session.quiet:
                session.print(f"{file}: valid")
        if not verdict["valid"]:
            session.code = session.code or InvalidDefinition.exit_code
    if session.json:
        session.value([v | {"problems": [p._asdict() for p in v["problems"]]} for v in verdicts])


def _verdict(session: Session, file: str) -> dict[str, Any]:
    data, filename = session.read(file)
    kind = kind_of(data)
    judges: dict[str, bool] = {}
    problems: list[Problem] = []
    try:
        read(session, data, filename, kind)
        judges["reader"] = True
    except InvalidDefinition as error:
        # Its problems say place, cause and remedy; what the grammars say of the same document would bury them.
        judges["reader"] = False
        problems = list(error.problems)
    else:
        for judge, found in judge_by_grammars(data, filename, kind).items():
            judges[judge] = not found
            problems += found
    return {"file": file, "valid": not problems, "kind": kind, "problems": problems, "judges": judges}


def normalize(session: Session, values: Values) -> None:
    """``normalize FILE...``."""
    from poolkit import xmlmap

    made = []
    for file in values.file:
        data, filename = session.read(file)
        kind = kind_of(data)
        definition = read(session, data, filename, kind, lenient=values.lenient)
        several = definition if kind == "documents" else [definition]
        text = "".join(xmlmap.write(_normal(one, values.pool_type)) for one in several)
        if kind == "documents":
            text = f"<documents>\n{text}</documents>\n"
        made.append({"file": filename, "xml": text, **session.document_facts()})
        session.document_warnings.clear()
    if session.json:
        session.value(made)
        return
    for one in made:
        session.xml(one["xml"])


def _normal(definition: Any, pool_type: str | None) -> Any:
    from poolkit import xmlmap

    if definition.tag in ("pool", "volume"):
        definition = xmlmap.without_reports(definition)  # what is found is told anew by each dump
    if definition.tag == "volume" and pool_type is not None:
        definition = _in_pool(definition, pool_type)
    return definition


def _in_pool(volume: Any, type: str) -> Any:
    """A volume's document with what a pool of that type gives it: its type and, if it says none, its format."""
    from poolkit import registry
    from poolkit.xmlmap import replace

    backend = registry.backend(type)
    kind = "file" if backend.file_backed else "network" if type in _NETWORK else "block"
    formats = backend.volume_formats
    if volume.target.format is None and formats:
        volume = replace(volume, target=replace(volume.target, format=formats[0]))
    return replace(volume, type=kind)


def schema(session: Session, values: Values) -> None:
    """``schema``."""
    from poolkit import xmlmap

    if values.rng and values.xsd:
        raise usage_error("--rng and --xsd exclude each other", "schema")
    if values.catalog or values.into is not None:
        if values.rng or values.xsd or values.document is not None:
            raise usage_error("a catalog has the grammars of all documents, of both kinds", "schema")
        from poolkit.cli import catalog

        catalog.schema_catalog(session, values)
        return
    if values.document == "plan":
        from poolkit.schemas import plan_schema

        if values.rng or values.xsd:
            raise usage_error("a plan is no XML: its grammar is a JSON Schema", "schema")
        session.out.write(plan_schema())
        return
    of = classes(values.document or "pool")
    text = xmlmap.xsd(of) if values.xsd else xmlmap.relaxng(of)
    if session.json:
        session.value({"xml": text})
        return
    session.out.write(output.xml_for_terminal(text))
