"""Reading a document: what is refused before the parser sees it, and all problems in the order of the document."""

from __future__ import annotations

import os

from ..errors import InvalidArgument, InvalidDefinition, Problem, shown
from ..lean import TYPE_CHECKING
from .element import Element
from .quote import quoted
from .reader import DEFAULT_LIMITS, LARGEST, _Reader
from .tree import tag_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from .reader import Limits, Part

    E = TypeVar("E", bound=Element)


def read(
    data: str | bytes,
    classes: Sequence[type],
    *,
    filename: str = "<string>",
    strict: bool = True,
    warn: Callable[[Problem], object] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> Any:
    """The object that a document describes, of the one of ``classes`` that its root element and type choose.

    ``strict`` makes unknown elements and attributes, stray text and repeated elements problems; otherwise each is given to
    ``warn`` and left out. ``part`` says where it begins if it is a part of a file. Raises ``InvalidDefinition`` with every
    problem found, in the order of the document.
    """
    table = tag_table(classes)
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError as error:
            raise InvalidDefinition(
                [Problem(filename, 0, 0, "", f"character {error.start + 1} is half of a surrogate pair")]
            ) from None
    size = min(limits.size, LARGEST)
    if len(data) > size:
        raise InvalidDefinition([Problem(filename, 0, 0, "", f"the document has more than {size} bytes")])
    if data.count(b"\n") > limits.lines:
        raise InvalidDefinition([Problem(filename, 0, 0, "", f"the document has more than {limits.lines} lines")])
    reader = _Reader(data, filename, strict, warn, limits, part)
    if b"\0" in data:  # expat takes it for UTF-16
        reader.stop(data.index(b"\0"), "", "is not UTF-8 from here on (a NUL character); save the document as UTF-8")
        raise InvalidDefinition(reader.problems)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        reader.stop(error.start, "", "is not UTF-8 from here on; save the document as UTF-8")
        raise InvalidDefinition(reader.problems) from None
    result = reader.run(table)
    if reader.problems:
        reader.problems.sort(key=lambda one: (one.line, one.column))
        raise InvalidDefinition(reader.problems)
    return result


def read_file(
    path: str,
    classes: Sequence[type],
    *,
    strict: bool = True,
    warn: Callable[[Problem], object] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """As ``read``, of a file; no more than the limit is ever read. Raises a ``HostError`` when it cannot be opened."""
    return read(_bytes_of(path, limits), classes, filename=shown(path), strict=strict, warn=warn, limits=limits)


def given(
    source: str | bytes | os.PathLike[str] | E,
    kind: type[E],
    candidates: Callable[[str | bytes], Sequence[type]] | None = None,
    *,
    filename: str = "<string>",
    strict: bool = True,
) -> E:
    """The definition that a call was given: XML text, the path of a document, or the definition itself.

    ``kind`` is its class, or the one that all classes of such documents extend; then ``candidates`` tells those that a
    text may be read with. Errors name the path instead of ``filename`` where a path was given. Raises
    ``InvalidDefinition``, ``InvalidArgument`` for anything else and for texts that no document can hold, and a
    ``HostError`` for a path that cannot be read.
    """
    if isinstance(source, Element):
        if type(source).tag == kind.tag and (candidates is None or type(source).xml_kind):
            from .checking import faults

            # What a program made has passed no reader, and what is written must be readable again.
            for fault in faults(source):
                raise InvalidArgument(fault)
            return source
    elif isinstance(source, (str, bytes, os.PathLike)):
        hint = None
        if isinstance(source, os.PathLike):
            path = os.fsdecode(source)
            data: str | bytes = _bytes_of(path, DEFAULT_LIMITS)
            filename = shown(path, 4096)
        else:
            data = source
            if filename == "<string>" and isinstance(data, str) and data and "<" not in data:
                hint = "text is read as a document; give the path of one as pathlib.Path"
        try:
            classes = [kind] if candidates is None else candidates(data)
            found: E = read(data, classes, filename=filename, strict=strict)
            return found
        except InvalidDefinition as error:
            error.hint = error.hint or hint
            raise
    what = "None" if source is None else f"an object of type {type(source).__name__}"
    raise InvalidArgument(
        f"{what} is not a <{kind.tag}> document",
        hint="give XML as str or bytes, the path of a document as pathlib.Path, or a definition of that kind",
    )


def _bytes_of(path: str, limits: Limits) -> bytes:
    from ..errors import from_os_error

    try:
        with open(path, "rb") as file:
            return file.read(min(limits.size, LARGEST) + 1)
    except OSError as error:
        raise from_os_error(error, f"read {quoted(path)}") from error
    except ValueError as error:  # a NUL character
        raise InvalidArgument(f"{quoted(path)} cannot be the path of a document: {error}") from error
