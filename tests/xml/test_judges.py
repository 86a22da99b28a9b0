"""Three judges: the reader, RELAX NG and XSD 1.1 agree on valid and on broken documents made from the mapping."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from lxml import etree

from poolkit.model import Volume
from poolkit.schemas import documents as document_classes
from poolkit.xmlmap import InvalidDefinition, read, write
from poolkit.xmlmap.judges import Judges
from poolkit.xmlmap.strategies import Tree, broken, documents

from . import BY_STEM, FILES, thorough

PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


@functools.cache
def judges(stem: str) -> tuple[list[type], Judges]:
    classes = document_classes()[stem]
    return classes, Judges(classes)


def verdicts(stem: str, text: str) -> dict[str, str]:
    """What each judge has against a document; the empty text is for nothing."""
    classes, grammars = judges(stem)
    found = {"reader": "", "rng": "", "xsd": ""}
    try:
        read(text, classes)
    except InvalidDefinition as error:
        found["reader"] = str(error)
    for judge, problems in grammars.against(text.encode()).items():
        found[judge] = "; ".join(problem.message for problem in problems)
    return found


def stem_of(text: str) -> str:
    tag = etree.fromstring(text.encode(), PARSER).tag
    return next(stem for stem, classes in BY_STEM.items() if tag in {cls.tag for cls in classes})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_valid(path: Any) -> None:
    text = path.read_text()
    assert not any(verdicts(stem_of(text), text).values())
    written = write(read(text, BY_STEM[stem_of(text)]))
    assert not any(verdicts(stem_of(text), written).values())


@pytest.mark.parametrize("stem", BY_STEM)
def test_judges_accept_what_is_valid(stem: str) -> None:
    classes = judges(stem)[0]

    @thorough(40)
    @given(documents(classes))
    def check(tree: Tree) -> None:
        text = str(tree)
        assert verdicts(stem, text) == {"reader": "", "rng": "", "xsd": ""}
        value = read(text, classes)
        written = write(value)
        again = read(written, classes)
        assert write(again) == written
        # a volume's figures are filled in when it is printed
        assert again == value or isinstance(value, Volume)
        assert not any(verdicts(stem, written).values())

    check()


@pytest.mark.parametrize("stem", BY_STEM)
def test_judges_agree_on_what_is_broken(stem: str) -> None:
    classes = judges(stem)[0]
    invalid = []

    @thorough(80)
    @given(broken(classes))
    def check(tree: Tree) -> None:
        found = verdicts(stem, str(tree))
        assert len({bool(one) for one in found.values()}) == 1, found
        invalid.append(bool(found["reader"]))

    check()
    assert sum(invalid) > len(invalid) // 3  # most of what was broken is noticed


def test_the_one_thing_only_the_reader_knows() -> None:
    """A size that is too large only when its unit is applied; no schema can multiply."""
    text = "<volume><name>a</name><capacity unit='EiB'>16</capacity></volume>"
    found = verdicts("storagevol", text)
    assert found["rng"] == found["xsd"] == ""
    assert found["reader"] == "<string>:1:44: /volume/capacity: '16' EiB is more than 2^64 bytes"
