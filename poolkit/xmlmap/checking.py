"""Whether a definition that a program made, and no document, can be written so that it is read again."""

from __future__ import annotations

from ..lean import TYPE_CHECKING
from .element import Element
from .quote import quoted, unwritable
from .tree import compile_class

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def faults(value: Element, path: str = "") -> Iterator[str]:
    """What of the texts in ``value`` a document cannot say, each as a sentence with its place."""
    node = compile_class(type(value))
    path = path or f"/{node.name}"
    for name, use in node.uses.items():
        held = getattr(value, name)
        place = f"{path}/{use.field.path}" if use.field.path != "." else path
        for one in held if isinstance(held, tuple) else (held,):
            if isinstance(one, Element):
                yield from faults(one, place)
            elif isinstance(one, str):
                why = _fault(use.simple, one)
                if why:
                    yield f"{place}: {quoted(one)} {why}"
    if node.rest is not None:
        for text in getattr(value, node.rest.name):
            found = unwritable.search(text)
            if found:
                yield f"{path}/{node.rest.path}: holds the character U+{ord(found[0]):04X}, which XML cannot hold"


def _fault(simple: Any, text: str) -> str:
    found = None if text.isprintable() else unwritable.search(text)
    if found is not None and not "\x00" <= found[0] <= "\x9f":
        return f"holds the character U+{ord(found[0]):04X}, which XML cannot hold"
    try:
        simple.parse(text)
    except ValueError as error:
        return str(error)
    return "" if found is None else "holds a control character"


__all__ = ["faults"]
