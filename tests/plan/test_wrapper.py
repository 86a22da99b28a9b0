"""Several documents in one file: judged, normalized and described by a grammar as a whole."""

from __future__ import annotations

import pytest
from lxml import etree

from poolkit import errors, schemas, xmlmap
from poolkit.engine.plan import several
from poolkit.xmlmap.judges import Judges

GOOD = b"""<documents xmlns:v='urn:poolkit:volume:1'>
  <pool type='dir'><name>images</name><target><path>/srv</path></target></pool>
  <!-- in any order -->
  <flavor><name>gold</name><backend pool='images'/></flavor>
  <volume><name>a</name><capacity>1</capacity><v:wanted pool='images'/></volume>
  <secret><usage type='ceph'><name>x</name></usage></secret>
  <pool type='dir'><name>more</name><target><path>/srv/more</path></target></pool>
</documents>
"""


@pytest.fixture(scope="module")
def judges() -> Judges:
    return Judges(schemas.several())


def test_each_is_read_and_both_grammars_take_them_in_any_order(judges: Judges) -> None:
    found = several.each(GOOD, "all.xml")
    assert [(one.tag, getattr(one, "name", None)) for one in found] == [
        ("pool", "images"), ("flavor", "gold"), ("volume", "a"), ("secret", None), ("pool", "more"),
    ]  # fmt: skip
    assert judges.against(GOOD) == {"rng": [], "xsd": []}
    single = xmlmap.write(found[0]).encode()
    assert judges.against(single) == {"rng": [], "xsd": []}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("<name>gold</name>", "<name>gold</name><tier/>", (4, 28)),
        ("<flavor>", "<domain/><flavor>", (4, 3)),
        ("type='dir'><name>more", "type='dri'><name>more", (7, 9)),
        ("<secret>", "<secret><value/>", (6, 11)),
    ],
)
def test_what_is_wrong_is_told_with_its_place_in_the_file(
    old: str, new: str, place: tuple[int, int], judges: Judges
) -> None:
    bad = GOOD.replace(old.encode(), new.encode())
    with pytest.raises(errors.InvalidDefinition) as caught:
        several.each(bad, "all.xml")
    assert [(p.line, p.column) for p in caught.value.problems] == [place]
    assert all(judges.against(bad).values())


def test_the_files_of_the_package_load_and_hold_every_kind() -> None:
    import os

    folder = os.path.dirname(schemas.__file__)
    grammar = etree.RelaxNG(etree.parse(f"{folder}/documents.rng"))
    assert grammar.validate(etree.fromstring(GOOD))
    assert not grammar.validate(etree.fromstring(b"<documents><documents/></documents>"))
