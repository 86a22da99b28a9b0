"""The schema files in the package are what the mapping makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import xmlschema
from lxml import etree

from poolkit import schemas
from poolkit.xmlmap import Element, reference, xml
from poolkit.xmlmap.grammar import files
from poolkit.xmlmap.tree import tag_table

from . import CLASSES

FOLDER = Path(schemas.__file__).parent


def test_files_are_up_to_date() -> None:
    made = schemas.generate()
    there = {path.name: path.read_text() for path in [*FOLDER.glob("*.rng"), *FOLDER.glob("*.xsd")]}
    assert there.keys() == made.keys()
    for name, text in made.items():
        assert there[name] == text, f"{name} is out of date: run python -m poolkit.schemas"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.rng")), ids=lambda path: path.name)
def test_relaxng_files_load(path: Path) -> None:
    etree.RelaxNG(etree.parse(str(path)))


@pytest.mark.parametrize("stem", list(schemas.STEMS.values()))
def test_xsd_files_load_from_the_folder(stem: str) -> None:
    schema = xmlschema.XMLSchema11(str(FOLDER / f"{stem}.xsd"))
    assert schema.elements


def test_the_grammars_of_several_documents_refer_to_the_others() -> None:
    for name in ("documents.rng", "documents.xsd"):
        text = (FOLDER / name).read_text()
        assert len(text) < 2000 and "storagevol" + name[-4:] in text and 'name="target"' not in text
    rng, xsd = (
        etree.RelaxNG(etree.parse(FOLDER / "documents.rng")),
        xmlschema.XMLSchema11(str(FOLDER / "documents.xsd")),
    )
    volume = "<volume><name>a</name><capacity>1</capacity></volume>"
    for text, good in {
        f"<documents>{volume}{volume}</documents>": True, volume: True, "<documents/>": True,
        f"<documents>{volume.replace('capacity', 'size')}</documents>": False,
        "<documents><documents/></documents>": False, "<documents><pool type='dri'/></documents>": False,
    }.items():  # fmt: skip
        tree = etree.fromstring(text)
        assert (rng.validate(tree), xsd.is_valid(tree)) == (good, good), text


def test_reference_names_every_element_and_attribute() -> None:
    rows = {(row.document, row.path): row for row in reference(CLASSES)}
    row = rows["pool netfs", "/pool/source/format/@type"]
    assert (row.kind, row.default, row.cardinality, row.since) == ("attribute", "auto", "0..1", "0.4.1")
    assert row.type == "one of auto, nfs, glusterfs, cifs"
    assert rows["pool netfs", "/pool/source/host"].cardinality == "1..n"
    assert rows["pool dir", "/pool/capacity"].reported
    assert rows["volume", "/volume/target/features/extended_l2"].type == "an empty element"
    assert rows["pool scsi", "/pool/source/adapter[@type='fc_host']/@wwpn"].cardinality == "1"
    assert all(row.doc for row in rows.values() if row.type not in ("an element",))


def test_a_class_of_somebody_else() -> None:
    """A pool type of another package needs nothing here but its class."""

    class Toy(Element):
        tag = "pool"
        type = "toy"
        name: str = xml("name", doc="Name.")
        size: int = xml("box/@size", default=3, doc="Size.")

    made = files([*CLASSES[:3], Toy], "all")
    assert "toy" in made["all.rng"]
    assert "toy" in made["all.xsd"]
    assert tag_table([Toy]) == {"pool": {"toy": Toy}}
    with pytest.raises(TypeError, match="two classes describe <pool type='toy'>"):
        tag_table([Toy, type("Other", (Toy,), {"type": "toy"})])
    with pytest.raises(TypeError, match="it has no tag"):
        tag_table([int])
