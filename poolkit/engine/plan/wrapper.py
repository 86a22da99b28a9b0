"""Several documents in one file: the children of ``<documents>``, each to be read as a document of its own."""

from __future__ import annotations

import pyexpat
from typing import Any

from poolkit.errors import InvalidDefinition, Problem
from poolkit.xmlmap.reader import DEFAULT_LIMITS, Part
from poolkit.xmlmap.source import Source


class _Stop(Exception):
    """Ends the parse: the reader of documents is to say what is wrong."""


def parts(data: bytes, source: str) -> list[tuple[str, bytes, tuple[int, int], Part]]:
    """Root element, bytes, place, and what the reader has to know of the rest of the file, for each document in it.

    Prefixes that the wrapper declares hold in all of them. ``InvalidDefinition`` for what is not well formed, for a wrapper
    with attributes or text, and for one within another.
    """
    found: list[tuple[str, bytes, tuple[int, int], Part]] = []
    places = Source(data)
    problems: list[Problem] = []
    prefixes: dict[str, str] = {}
    depth = begun = 0
    name = ""
    parser = pyexpat.ParserCreate("UTF-8")

    def wrong(offset: int, message: str, path: str = "/documents") -> None:
        problems.append(Problem(source, *places.place(offset), path, message))

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, begun, name
        depth += 1
        if depth > DEFAULT_LIMITS.depth:
            wrong(parser.CurrentByteIndex, f"elements are nested more than {DEFAULT_LIMITS.depth} deep")
            raise _Stop
        if depth == 1:
            for key, value in attributes.items():
                if key.startswith("xmlns"):
                    prefixes[key[6:]] = value
                else:
                    wrong(0, f"unknown attribute '{key[:60]}'; none is expected here")
        elif depth == 2:
            begun, name = parser.CurrentByteIndex, tag

    def end(_: str) -> None:
        nonlocal depth
        if depth == 2:
            stop = places.tag_end(parser.CurrentByteIndex)
            place = places.place(begun)
            found.append((name, data[begun:stop], place, Part(place, prefixes)))
        depth -= 1

    def chars(text: str) -> None:
        if depth == 1 and text.strip():
            wrong(parser.CurrentByteIndex, "takes no text, and expects <pool>, <volume>, <secret> and <flavor>")

    def doctype(*_: Any) -> None:
        wrong(parser.CurrentByteIndex, "a DOCTYPE is not allowed; remove it", "")
        raise _Stop

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = chars, doctype
    if len(data) > DEFAULT_LIMITS.size:
        raise InvalidDefinition([Problem(source, 0, 0, "", f"the file has more than {DEFAULT_LIMITS.size} bytes")])
    try:
        parser.Parse(data, True)
    except _Stop:
        pass
    except pyexpat.ExpatError as error:
        wrong(parser.ErrorByteIndex, f"not well-formed XML: {pyexpat.ErrorString(error.code)}", "")
    if problems:
        raise InvalidDefinition(problems)
    return found
