"""Each mapped field says what its value does, and what it says is so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import poolkit
from poolkit import registry
from poolkit.backend import DefinitionOnly
from poolkit.xmlmap import Element, reference, xml
from poolkit.xmlmap.rows import Row

from . import CLASSES

PACKAGE = Path(poolkit.__file__).parent
# What only reads, prints or compares documents acts on nothing.
NO_ACTORS = (
    "xmlmap/",
    "schemas/",
    "cli/",
    "model.py",
    "documents.py",
    "engine/describe.py",
    "engine/asked.py",
    "testing.py",
)


def holds_a_value(row: Row) -> bool:
    return not row.type.startswith("an element")


def test_each_field_of_each_document_says_what_its_value_does() -> None:
    silent = [(row.document, row.path) for row in reference(CLASSES) if not row.effect and holds_a_value(row)]
    assert not silent, "say effect='acted' or effect='kept' in its xml(...)"


def test_a_field_that_says_nothing_is_found() -> None:
    class Toy(Element):
        tag = "toy"
        size: int = xml("@size", default=3, doc="Size.")

    assert [row.effect for row in reference([Toy])] == [""]


@pytest.mark.parametrize("type", registry.types())
def test_what_cannot_be_started_is_kept_and_nothing_else(type: str) -> None:
    backend = registry.backend(type)
    rows = [
        row for row in reference([backend.definition]) if holds_a_value(row) and row.path.startswith("/pool/source/")
    ]
    acted = [row.path for row in rows if row.effect == "acted"]
    assert (acted == []) == (issubclass(backend, DefinitionOnly) or not rows or type in ("dir", "mpath"))


def _read_names() -> set[str]:
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix().startswith(NO_ACTORS):
            continue
        found |= {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        }
    return found


def _acted(cls: type, above: str = "") -> set[str]:
    """The names of the fields below a class whose values a verb acts on."""
    from poolkit.xmlmap.rows import _effect
    from poolkit.xmlmap.tree import compile_class

    found = set()
    for name, use in compile_class(cls).uses.items():
        effect = _effect(use, above)
        if use.classes:
            for one in use.classes:
                found |= _acted(one, effect)
        elif effect == "acted":
            found.add(name)
    return found


def test_each_value_that_is_acted_on_is_read_by_something_that_acts() -> None:
    wanted = set().union(*(_acted(cls) for cls in CLASSES))
    assert len(wanted) > 25
    assert wanted - _read_names() == set()
