"""Whether a definition that a program made, and no document, can be written so that it is read again."""

from __future__ import annotations

from functools import cache

from ..lean import TYPE_CHECKING
from .element import Element
from .quote import quoted, unwritable
from .tree import Use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .element import Field


def faults(value: Element, path: str = "") -> Iterator[str]:
    """What of the texts in ``value`` a document cannot say, each as a sentence with its place."""
    cls = type(value)
    path = path or f"/{cls.tag or cls.__name__}"
    for name, field in cls.xml_fields.items():
        held = getattr(value, name)
        place = f"{path}/{field.path}" if field.path != "." else path
        for one in held if isinstance(held, tuple) else (held,):
            if isinstance(one, Element):
                yield from faults(one, place)
            elif isinstance(one, str):
                why = _foreign_fault(one) if field.foreign else _fault(_simple(field), one)
                if why:
                    yield f"{place}: {why if field.foreign else f'{quoted(one)} {why}'}"


@cache
def _simple(field: Field) -> Any:
    """The simple type of a field. Of its class nothing else is asked, which need not be compiled for a few texts."""
    return Use(field).simple


def _foreign_fault(text: str) -> str:
    found = unwritable.search(text)
    return f"holds the character U+{ord(found[0]):04X}, which XML cannot hold" if found else ""


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
