"""Every example is read and written; what comes out is compared with a file (--regen writes it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolkit.xmlmap import read, read_file, write
from poolkit.xmlmap.tree import compile_class

from . import CLASSES, EXAMPLES, FILES, HERE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, regen: bool) -> None:
    golden = HERE / "golden" / path.name
    value = read_file(str(path), CLASSES)
    text = write(value)
    if regen:
        golden.write_text(text)
    assert text == golden.read_text()
    assert write(read(text, CLASSES)) == text


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in (HERE / "golden").glob("*.xml")} == {path.name for path in FILES}


def test_every_pool_type_has_an_example() -> None:
    types = {cls.type for cls in CLASSES if cls.tag == "pool"}
    assert {f"pool-{kind}.xml" for kind in types} <= {path.name for path in EXAMPLES.glob("*.xml")}


def test_every_mapped_field_is_exercised() -> None:
    """A field counts as exercised when a golden file gives it a value that is not the default.

    What many documents share (permissions, hosts, a pool's name ...) counts once: by the class that declares it.
    """
    seen: set[tuple[str, str]] = set()
    wanted: set[tuple[str, str]] = set()

    def collect(cls: type, into: set[tuple[str, str]]) -> None:
        node = compile_class(cls)
        into.update(
            (use.field.owner.__name__, name)
            for name, use in node.uses.items()
            if use.simple is None or len(use.simple.words) != 1  # not a constant
        )
        if node.rest is not None:
            into.add((node.rest.owner.__name__, node.rest.name))
        for use in node.uses.values():
            for inner in use.classes:
                collect(inner, into)

    def visit(value: object) -> None:
        node = compile_class(type(value))
        if node.rest is not None and getattr(value, node.rest.name):
            seen.add((node.rest.owner.__name__, node.rest.name))
        for name, use in node.uses.items():
            given = getattr(value, name)
            several = given if isinstance(given, tuple) else (given,)
            if given not in (None, ()) and (use.field.default in (None, ()) or given != use.field.initial()):
                seen.add((use.field.owner.__name__, name))
            for one in several:
                if use.classes and one is not None:
                    visit(one)

    for cls in CLASSES:
        collect(cls, wanted)
    for path in FILES:
        visit(read_file(str(path), CLASSES))
    assert not wanted - seen, sorted(wanted - seen)
