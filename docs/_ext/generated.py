"""Writes the reference pages from the code before Sphinx reads the sources, so that they cannot disagree with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from poolkit import disks, errors, schemas
from poolkit.cli.arguments import GLOBAL, Argument
from poolkit.cli.verbs import GROUPS, Verb, verbs
from poolkit.cli.verbs.shapes import SHAPES
from poolkit.xmlmap import Row, reference

log = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app: Sphinx) -> None:
    """Bring the generated pages up to date; an unchanged page keeps its time, so that Sphinx does not read it again."""
    folder = Path(app.srcdir) / "reference" / "generated"
    pages = {"cli.md": command_page(), "errors.md": error_page(), "xml.md": xml_page(), **xml_pages()}
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
            log.info("generated %s", name)
    for page in folder.rglob("*.md"):
        if str(page.relative_to(folder)) not in pages:
            page.unlink()


def cell(text: str) -> str:
    """``text`` for one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def first_paragraph(thing: object) -> str:
    """The first paragraph of a docstring, on one line, with reST's literal marks as Markdown's."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return cell(text.replace("``", "`"))


def command_page() -> Iterator[str]:
    """Every verb of the command, from its table."""
    yield "# The command"
    yield ""
    yield "`poolkit VERB [ARGUMENT...]`. An argument is given in its place or by its name, options stand anywhere, `--` ends"
    yield "them, and no name may be shortened. SIZE is a number of bytes, or a number with one of libvirt's units (`20GiB`)."
    yield "Verbs have virsh's names as well. The exit codes are those of [the errors](errors.md)."
    yield ""
    yield "## Options of every verb"
    yield ""
    yield from arguments(GLOBAL)
    for group, title in GROUPS.items():
        yield f"## {title}"
        yield ""
        for verb in verbs():
            if verb.group == group:
                yield from section(verb)
    yield "## What `--json` prints"
    yield ""
    for shape, meaning in SHAPES.items():
        yield f"{shape}"
        yield f": {cell(meaning)}"
        yield ""


def section(verb: Verb) -> Iterator[str]:
    """One verb: its synopsis, what it does, its arguments."""
    words = [synopsis(argument) for argument in verb.arguments]
    yield f"### {verb.name}"
    yield ""
    yield f"`{' '.join(['poolkit', verb.name, *words])}`"
    yield ""
    help = cell(verb.help)
    yield f"{help[:1].upper()}{help[1:]}. {cell(verb.more)}".rstrip()
    yield ""
    if verb.aliases:
        yield f"virsh's name: {', '.join(f'`{alias}`' for alias in verb.aliases)}."
    yield f"JSON: {verb.json}."
    yield ""
    yield from arguments(verb.arguments)


def synopsis(argument: Argument) -> str:
    """An argument as it stands in the line of the verb."""
    if argument.placed:
        text = f"{argument.value}..." if argument.times in "*+" else argument.value
    else:
        text = f"{argument.name} {argument.value}".rstrip()
    return text if argument.times in "1+" else f"[{text}]"


def arguments(those: Iterable[Argument]) -> Iterator[str]:
    """A definition list of arguments."""
    for argument in those:
        names = [f"`{argument.option} {argument.value}`".replace(" `", "`")]
        if argument.placed:
            names.insert(0, f"`{argument.value}`")
        if argument.short:
            names.append(f"`{argument.short}`")
        yield " or ".join(names)
        yield f": {cell(argument.help)}"
        yield ""


def error_page() -> Iterator[str]:
    """The tree of errors, and what the command's exit status means."""
    tree = list(walk(errors.PoolkitError))
    yield "# Errors and exit codes"
    yield ""
    yield "Every error that poolkit raises on purpose is a {py:class}`~poolkit.errors.PoolkitError`. Its text is one"
    yield "sentence on what failed, where and why; `hint` says what to do, `pool` and `volume` name the subject, and"
    yield "`as_dict()` gives all of it as plain values. The command prints the sentence and the hint on standard error,"
    yield "as a JSON object with `--json`, and ends with the status of the table below."
    yield ""
    yield "## The tree"
    yield ""
    yield "| class | `code` in JSON | exit | libvirt's code | meaning |"
    yield "|---|---|---|---|---|"
    for depth, error in tree:
        indent = "&nbsp;" * 4 * depth
        code = error.code.fget(error.__new__(error)) if isinstance(error.code, property) else error.code
        yield (
            f"| {indent}{{py:class}}`~poolkit.errors.{error.__name__}` | `{code}` | {error.exit_code} | "
            f"{error.libvirt_code} | {first_paragraph(error)} |"
        )
    yield ""
    yield "libvirt's code is the number of `virErrorNumber` that a libvirt client expects in the same case."
    yield ""
    yield "## Exit codes"
    yield ""
    yield "| status | after |"
    yield "|---|---|"
    yield "| 0 | success; also when there was nothing left to do |"
    for status in sorted({error.exit_code for _, error in tree}):
        names = [f"`{error.__name__}`" for _, error in tree if error.exit_code == status]
        yield f"| {status} | {', '.join(names)} |"


def xml_page() -> Iterator[str]:
    """What the pages of the documents have in common."""
    yield "# XML"
    yield ""
    yield "One page for each kind of document. A row is an element or an attribute, in the order in which it is printed;"
    yield "elements may be given in any order. Below what it means stands which values it takes. *Times* says how often"
    yield "it may stand there. A row marked *reported* is"
    yield "printed with what is found on the machine: it is accepted in a definition, and means nothing there. One marked"
    yield "*kept* is information: it is kept and printed, and changes nothing. All others are acted on or refused. *Since* is"
    yield "the version of libvirt that brought it, and empty for what is poolkit's own."
    yield ""
    yield "`poolkit schema` prints the same as RELAX NG or XML Schema, with the pool types of other packages that are"
    yield "installed, and `poolkit validate FILE` checks a document."
    yield ""
    yield from ("```{toctree}", ":maxdepth: 1", ":glob:", "", "xml/*", "```")


def xml_pages() -> dict[str, Iterator[str]]:
    """A page for each document of the mapping."""
    classes = [cls for those in (*schemas.documents().values(), disks.CLASSES) for cls in those]
    documents = [(rows[0].document, cls, rows) for cls in classes if (rows := reference([cls]))]
    return {f"xml/{name.replace(' ', '-')}.md": document_page(name, cls, rows) for name, cls, rows in documents}


def document_page(name: str, cls: type, rows: list[Row]) -> Iterator[str]:
    """The table of one document."""
    kind, _, type = name.partition(" ")
    yield f"# `<{kind} type='{type}'>`" if type else f"# `<{kind}>`"
    yield ""
    yield first_paragraph(cls)
    yield ""
    yield from ("```{rst-class} places", "```", "")
    yield "| place | meaning and value | times | since |"
    yield "|---|---|---|---|"
    for row in rows:
        if row.path.endswith("/@type") and row.path.count("/") == 2 and type:
            continue  # the title says it
        place = row.path.removeprefix(f"/{kind}/")
        doc = f"*{row.effect}* {row.doc}" if row.effect in ("reported", "kept") else row.doc
        # One column for both: beside five others none is wide enough to be read.
        value = "" if row.type == "an element" else f"{row.type[:1].upper()}{row.type[1:]}"
        value += f", `{row.default}` by default" if row.default else ""
        words = "<br>".join(filter(None, (cell(doc), cell(f"{value}." if value else ""))))
        yield f"| `{place}` | {words} | {row.cardinality} | {row.since} |"


def walk(error: type[errors.PoolkitError], depth: int = 0) -> Iterator[tuple[int, type[errors.PoolkitError]]]:
    """The class and all below it, with their depth, in the order of the source."""
    yield depth, error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from walk(child, depth + 1)
