"""schema --catalog: what validators find by it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from lxml import etree

from .conftest import Command

EXAMPLES = Path(__file__).parents[2] / "examples/xml"


def judged(catalog: Path, kind: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """xmllint finds the grammar by its name."""
    command = ["xmllint", "--noout", "--nonet", "--relaxng", f"urn:poolkit:schema:{kind}", *map(str, files)]
    environment = {**os.environ, "XML_CATALOG_FILES": catalog.as_uri()}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.tools("xmllint", "xmlcatalog")
@pytest.mark.parametrize("into", [False, True])
def test_validators_find_each_grammar_by_its_name(tmp_path: Path, poolkit: Command, into: bool) -> None:
    catalog = tmp_path / "my grammars" / "catalog.xml"
    if into:
        poolkit("schema", "--into", catalog.parent)
    else:
        catalog.parent.mkdir()
        catalog.write_text(poolkit("schema", "--catalog").out)
    for kind, begins in {"pool": "pool-", "volume": "volume-", "secret": "secret-", "flavor": "flavor-"}.items():
        done = judged(catalog, kind, *sorted(EXAMPLES.glob(f"{begins}*.xml")))
        assert done.returncode == 0, done.stderr
    several = tmp_path / "several.xml"
    several.write_text("<documents><volume><name>a</name><capacity>1</capacity></volume></documents>")
    done = judged(catalog, "documents", several, *sorted(EXAMPLES.glob("pool-*.xml")))
    assert done.returncode == 0, f"what the grammar refers to is not found: {done.stderr}"
    broken = poolkit.document(more="<tagret/>")
    assert "tagret" in judged(catalog, "pool", broken).stderr
    several.write_text("<documents><volume><name>a</name><tagret/></volume></documents>")
    assert judged(catalog, "documents", several).returncode != 0
    for name in ("urn:poolkit:schema:pool:xsd", "urn:poolkit:schema:sources", "urn:poolkit:pool:1"):
        command = ["xmlcatalog", str(catalog), name]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert (
            etree.parse(unquote(found.removeprefix("file://")))
            .getroot()
            .tag.endswith("}schema" if ":sources" not in name else "}grammar")
        )


def test_every_entry_leads_to_a_file(tmp_path: Path, poolkit: Command) -> None:
    poolkit("schema", "--into", tmp_path / "grammars")
    catalog = etree.parse(tmp_path / "grammars/catalog.xml").getroot()
    named = {entry.get("uri") for entry in catalog}
    listed = poolkit("schema", "--into", tmp_path / "grammars", "--json").json["files"]
    assert named | {"catalog.xml"} == {os.path.basename(file) for file in listed}
    assert sorted(listed) == sorted(map(str, (tmp_path / "grammars").iterdir()))


@pytest.mark.parametrize("line", [["--rng"], ["--xsd"], ["--document", "pool"]])
def test_a_catalog_is_of_all_documents(poolkit: Command, line: list[str]) -> None:
    assert "all documents" in poolkit("schema", "--catalog", *line, status=2).err
