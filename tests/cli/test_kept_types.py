"""Pool types whose definitions are kept and not started: every verb says so, and what was defined is dumped."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command

EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
KEPT = ("gluster", "vstorage", "zfs")


@pytest.mark.parametrize("kind", KEPT)
def test_a_definition_is_kept_as_it_was_given(poolkit: Command, kind: str) -> None:
    file = EXAMPLES / f"pool-{kind}.xml"
    poolkit("define", file, "--validate")
    [name] = [line.split(">")[1].split("<")[0] for line in file.read_text().splitlines() if line.startswith("  <name>")]
    dumped = poolkit("dumpxml", name).out
    kept = poolkit.folder / "dumped.xml"
    kept.write_text(dumped)
    assert "is defined so already" in poolkit("define", kept).out
    assert f"<pool type='{kind}'>" in dumped and poolkit("dumpxml", name).out == dumped
    answer = poolkit("start", name, status=8)
    assert f"can keep definitions of type '{kind}', not start them" in answer.err
    poolkit("undefine", name)


def test_a_dataset_names_a_pool_by_its_last_part(poolkit: Command) -> None:
    file = poolkit.folder / "z.xml"
    file.write_text("<pool type='zfs'><source><name>tank/a/vm</name></source></pool>")
    text = poolkit("normalize", file).out
    assert "<name>vm</name>" in text and "<name>tank/a/vm</name>" in text
    assert "<path>/dev/zvol/tank/a/vm</path>" in text
    for wrong in ("/tank", "tank/", "tank//vm", "tank/ ", ""):
        file.write_text(f"<pool type='zfs'><name>z</name><source><name>{wrong}</name></source></pool>")
        poolkit("normalize", file, status=0 if not wrong else 3)
