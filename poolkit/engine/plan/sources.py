"""The documents of a folder: what is wanted, read whole before anything is compared, with all that is wrong at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from poolkit import errors, registry
from poolkit.backend import check_volume_name
from poolkit.errors import InvalidDefinition, Problem
from poolkit.state.store import check_pool_name
from poolkit.xmlmap import Element
from poolkit.xmlmap.source import root as root_of

Kind = Literal["pool", "volume", "secret", "flavor"]
Document = str | bytes | os.PathLike[str] | Element
"""XML text, the path of a file or folder, or a definition."""
KINDS = ("pool", "volume", "secret", "flavor")
WRAPPER = "documents"
"""The root element of a file that holds several documents."""


class Place(NamedTuple):
    """Where a document begins: its file, with line and column from 1; both are 0 for a definition that a program made."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Wanted(NamedTuple):
    """One document. ``folder`` is where relative paths in it begin; ``pool`` is the pool of a volume."""

    kind: Kind
    definition: Any
    place: Place
    folder: str = ""
    pool: str | None = None

    @property
    def name(self) -> str:
        """The name; of a secret its uuid, or what it is for."""
        if self.kind != "secret":
            return str(self.definition.name)
        usage = self.definition.usage
        return self.definition.uuid or (f"{usage.type} {usage.id}" if usage is not None else "without usage")

    @property
    def ident(self) -> str:
        """What tells it from all others."""
        return identity(self.kind, self.name, self.pool)

    def problem(self, message: str, path: str = "") -> Problem:
        """Something wrong with it."""
        return Problem(self.place.source, self.place.line, self.place.column, path or f"/{self.kind}", message)


def identity(kind: str, name: str, pool: str | None = None) -> str:
    """What tells a thing from all others: ``pool NAME``, ``volume POOL/NAME``, ``secret UUID``."""
    return f"{kind} {pool}/{name}" if kind == "volume" else f"{kind} {name}"


def said(kind: str, name: str, pool: str | None = None) -> str:
    """A thing in a sentence."""
    return f"{kind} '{name}'" + (f" of pool '{pool}'" if pool else "")


class _Text(NamedTuple):
    data: bytes
    source: str
    path: str


def read(documents: Iterable[Document], *, strict: bool = True) -> list[Wanted]:
    """All documents, in order: those of a folder by their paths. ``InvalidDefinition`` with every problem of all of them."""
    problems: list[Problem] = []
    found: list[Wanted] = []
    for number, one in enumerate(documents, 1):
        if isinstance(one, Element):
            found += _given(one, problems)
        elif isinstance(one, (str, bytes)):
            text = _Text(one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one, f"<{number}>", "")
            found += _parsed(text, strict, problems)
        elif isinstance(one, os.PathLike):
            for path in _files(os.fspath(one)):
                if os.path.islink(path) and not os.path.exists(path):
                    problems.append(_dangling(path))
                else:
                    found += _parsed(_opened(path), strict, problems)
        else:
            raise errors.InvalidArgument(
                f"an object of type {type(one).__name__} is no document",
                hint="give the path of a folder or file as pathlib.Path, XML as str or bytes, or a definition",
            )
    problems += _twice(found)
    if problems:
        raise InvalidDefinition(problems)
    return found


def _files(path: str) -> Iterator[str]:
    """The file, or all files ``*.xml`` in and below a folder, by path; hidden ones and linked folders are passed over."""
    if not os.path.isdir(path):
        yield path
        return
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise errors.from_os_error(error, f"read the folder '{path}'") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.name.endswith(".xml") and not os.path.isdir(entry.path):
            if os.path.exists(entry.path) and not os.path.isfile(entry.path):  # to open a pipe waits for a writer
                raise errors.InvalidArgument(
                    f"'{entry.path}' is neither a file nor a folder", hint="take it out of the folder of documents"
                )
            yield entry.path


def _dangling(path: str) -> Problem:
    """A symbolic link that leads nowhere: an editor's lock, or the document of a folder that was moved."""
    return Problem(
        errors.shown(path, 4096),
        0,
        0,
        "",
        f"is a symbolic link to '{errors.shown(os.readlink(path), 4096)}', which leads nowhere",
    )


def _opened(path: str) -> _Text:
    from poolkit.xmlmap.reader import DEFAULT_LIMITS

    try:
        with open(path, "rb") as file:
            return _Text(file.read(DEFAULT_LIMITS.size + 1), errors.shown(path, 4096), path)
    except OSError as error:
        raise errors.from_os_error(error, f"read '{errors.shown(path, 4096)}'") from error


def _parsed(text: _Text, strict: bool, problems: list[Problem]) -> Iterator[Wanted]:
    root, start = root_of(text.data)
    pieces: Iterable[tuple[str, bytes, tuple[int, int], Any]]
    try:
        if root == WRAPPER:
            from poolkit.engine.plan.wrapper import parts

            pieces = parts(text.data, text.source)
        else:
            line = text.data.count(b"\n", 0, start) + 1
            pieces = [(root, text.data, (line, start - text.data.rfind(b"\n", 0, start)), None)]
        for name, data, place, part in pieces:
            try:
                yield from _one(name, data, text, Place(text.source, *place), part, strict)
            except InvalidDefinition as error:
                problems += error.problems
            except errors.PoolkitError as error:  # a type that there is none of, a name that none can have
                problems.append(Problem(text.source, *place, f"/{name}", str(error)))
    except InvalidDefinition as error:
        problems += error.problems


def _one(root: str, data: bytes, text: _Text, place: Place, part: Any, strict: bool) -> Iterator[Wanted]:
    from poolkit import xmlmap

    if root not in (*KINDS, ""):
        known = f"<pool>, <volume>, <secret>, <flavor>, or <{WRAPPER}> around several of them"
        raise InvalidDefinition([Problem(*place, f"/{root}", f"is no document that can be planned; expected {known}")])
    definition = xmlmap.read(data, classes(root, data), filename=text.source, strict=strict, part=part)
    yield _wanted(definition, place, os.path.dirname(text.path))


def classes(kind: str, data: bytes | str) -> list[type]:
    """The classes that a document of that kind may be of; those of pools are told by its text."""
    from poolkit import documents, model

    kinds: dict[str, list[type]] = {
        "volume": [model.Volume], "secret": [documents.Secret], "flavor": [documents.Flavor],
    }  # fmt: skip
    return kinds.get(kind) or registry.candidates(data)


def _given(definition: Element, problems: list[Problem]) -> Iterator[Wanted]:
    from poolkit.xmlmap.checking import faults

    place = Place(f"<{type(definition).__name__}>")
    found = [Problem(place.source, 0, 0, "", fault) for fault in faults(definition)]
    if not found and type(definition).tag not in KINDS:
        found = [Problem(place.source, 0, 0, "", "is neither a pool nor a volume, and no secret or flavor")]
    problems += found
    if not found:
        try:
            yield _wanted(definition, place, "")
        except InvalidDefinition as error:
            problems += error.problems
        except errors.PoolkitError as error:
            problems.append(Problem(place.source, 0, 0, "", str(error)))


def _wanted(definition: Any, place: Place, folder: str) -> Wanted:
    kind: Any = definition.tag
    if kind in ("pool", "flavor"):
        check_pool_name(definition.name)
        return Wanted(kind, definition, place, folder)
    if kind == "secret":
        return Wanted(kind, definition, place, folder)
    pool = definition.wanted.pool if definition.wanted is not None else None
    if pool is None and folder:
        pool = os.path.basename(os.path.abspath(folder))
    if pool is None:
        raise InvalidDefinition(
            [Problem(*place, "/volume", "says no pool; expected <pkv:wanted pool='NAME'/>, or a folder of that name")]
        )
    check_volume_name(definition.name, pool)
    return Wanted(kind, definition, place, folder, pool)


def _twice(found: list[Wanted]) -> Iterator[Problem]:
    """A thing that two documents describe: which of them counts would depend on their order."""
    seen: dict[Any, Wanted] = {}
    for one in found:
        keys: dict[Any, str] = {one.ident: f"{said(one.kind, one.name, one.pool)} is described already, at"}
        if one.kind == "pool" and one.definition.uuid is not None:
            keys["uuid", one.definition.uuid] = f"the uuid {one.definition.uuid} is that of another pool, at"
        usage = one.definition.usage if one.kind == "secret" else None
        if usage is not None:
            keys["usage", usage] = f"a secret of type '{usage.type}' for '{usage.id}' is described already, at"
        for key, words in keys.items():
            first = seen.setdefault(key, one)
            if first is not one:
                yield one.problem(f"{words} {first.place}")
                break
