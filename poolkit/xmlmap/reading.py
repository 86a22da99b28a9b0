"""Reading a document: what is refused before the parser sees it, and all problems in the order of the document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InvalidDefinition, Problem
from .quote import quoted, shown
from .reader import DEFAULT_LIMITS, LARGEST, Limits, _Reader
from .tree import tag_table


def read(
    data: str | bytes,
    classes: Sequence[type],
    *,
    filename: str = "<string>",
    strict: bool = True,
    warn: Callable[[Problem], object] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """The object that a document describes, of the one of ``classes`` that its root element and type choose.

    ``strict`` makes unknown elements and attributes, stray text and repeated elements problems; otherwise each is given to
    ``warn`` and left out. Raises ``InvalidDefinition`` with every problem found, in the order of the document.
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
    reader = _Reader(data, filename, strict, warn, limits)
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
    from ..errors import from_os_error

    try:
        with open(path, "rb") as file:
            data = file.read(min(limits.size, LARGEST) + 1)
    except OSError as error:
        raise from_os_error(error, f"read {quoted(path)}") from error
    return read(data, classes, filename=shown(path), strict=strict, warn=warn, limits=limits)
