"""One mapping: field specs of a class become its reader, its writer, its schemas and its rows of the reference.

    from poolkit.xmlmap import Element, xml, read, write

Each part is imported when first used.
"""

from __future__ import annotations

from .. import lean
from ..lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ..errors import InvalidDefinition, Problem
    from .element import (
        REQUIRED,
        Effect,
        Element,
        definition_alone,
        diff,
        foreign,
        own_fields,
        replace,
        without_own,
        without_reports,
        xml,
    )
    from .grammar import files, relaxng, rng_validator, xsd, xsd_validator
    from .reader import DEFAULT_LIMITS, Limits
    from .reading import given, read, read_file
    from .rows import Row, reference
    from .writer import escape, escape_attribute, write

_LAZY = {
    **dict.fromkeys(
        (
            "REQUIRED",
            "Effect",
            "Element",
            "definition_alone",
            "diff",
            "foreign",
            "own_fields",
            "replace",
            "without_own",
            "without_reports",
            "xml",
        ),
        "element",
    ),
    "Row": "rows",
    "reference": "rows",
    "files": "grammar",
    "relaxng": "grammar",
    "rng_validator": "grammar",
    "xsd": "grammar",
    "xsd_validator": "grammar",
    "DEFAULT_LIMITS": "reader",
    "Limits": "reader",
    "given": "reading",
    "read": "reading",
    "read_file": "reading",
    "escape": "writer",
    "escape_attribute": "writer",
    "write": "writer",
    "InvalidDefinition": "..errors",
    "Problem": "..errors",
}


def __getattr__(name: str) -> Any:
    place = _LAZY.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    above, _, _ = __name__.rpartition(".")
    full = f"{above}.{place[2:]}" if place[0] == "." else f"{__name__}.{place}"
    value = globals()[name] = getattr(lean.module(full), name)
    return value


__all__ = [
    "DEFAULT_LIMITS",
    "REQUIRED",
    "Effect",
    "Element",
    "InvalidDefinition",
    "Limits",
    "Problem",
    "Row",
    "definition_alone",
    "diff",
    "escape",
    "escape_attribute",
    "files",
    "foreign",
    "given",
    "own_fields",
    "read",
    "read_file",
    "reference",
    "relaxng",
    "replace",
    "rng_validator",
    "without_own",
    "without_reports",
    "write",
    "xml",
    "xsd",
    "xsd_validator",
]
