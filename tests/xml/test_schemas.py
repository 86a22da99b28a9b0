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


@pytest.mark.parametrize("stem", ["storagepool", "storagevol", "secret", "storagepoolcaps", "sources"])
def test_xsd_files_load_from_the_folder(stem: str) -> None:
    schema = xmlschema.XMLSchema11(str(FOLDER / f"{stem}.xsd"))
    assert schema.elements


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
