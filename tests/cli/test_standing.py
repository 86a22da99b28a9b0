"""The command says what stands on a volume or pool, in words and as JSON, and ``--force`` goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolkit.errors import Unsafe
from tests.cli.conftest import Command

pytestmark = pytest.mark.tools("qemu-img")


@pytest.fixture
def base(poolkit: Command) -> Path:
    poolkit.pool()
    path = poolkit.volume("base")
    for name in ("one", "two"):
        poolkit(
            "vol-create-as",
            "images",
            name,
            "1MiB",
            "--format",
            "qcow2",
            "--backing-vol",
            path,
            "--backing-vol-format",
            "raw",
        )
    return path


@pytest.mark.parametrize(
    "verb",
    [("vol-delete",), ("vol-wipe",), ("vol-resize", "--shrink"), ("vol-upload",)],
    ids=lambda verb: verb[0],
)
def test_a_base_is_spared(poolkit: Command, base: Path, verb: tuple[str, ...]) -> None:
    last = {"vol-resize": ["4096"], "vol-upload": [__file__]}.get(verb[0], [])
    words = [*verb, str(base), *last]
    said = poolkit(*words, status=Unsafe.exit_code).err
    assert "the volumes 'one' and 'two' stand on it" in said
    assert "hint: take them away first; if they are not needed, add --force" in said
    error = poolkit("--json", *words, status=Unsafe.exit_code).error
    assert error["error"] == "has-dependents"
    assert [v["volume"] for v in error["dependents"]["volumes"]] == ["one", "two"]
    poolkit(*words, "--force")


def test_overlays_without_their_base_are_marked(poolkit: Command, base: Path) -> None:
    poolkit("vol-delete", base, "--force")
    listed = poolkit("vol-list", "images")
    assert listed.out.count("qcow2 !") == 2
    assert "2 volumes are damaged, unreadable, not what the record says or without a base" in listed.err
    assert f"Missing: {base}" in " ".join(poolkit("vol-info", "one", "images").out.split())
    assert json.loads(poolkit("--json", "vol-info", "one", "images").out)["missing"] == [str(base)]
    assert "2 volumes stand on images that are missing: 'one' and 'two'" in poolkit("refresh", "images").err


def test_a_folder_under_a_pool_is_spared(poolkit: Command) -> None:
    poolkit.pool("outer")
    (poolkit.folder / "outer" / "inner").mkdir()
    file = poolkit.folder / "inner.xml"
    file.write_text(
        f"<pool type='dir'><name>inner</name><target><path>{poolkit.folder}/outer/inner</path></target></pool>"
    )
    poolkit("define", file)
    poolkit("start", "inner")
    poolkit("refresh", "outer")
    error = poolkit("--json", "vol-delete", "inner", "outer", status=Unsafe.exit_code).error
    assert error["dependents"] == {"volumes": [], "volume_count": 0, "pools": ["inner"], "flavors": []}
    poolkit("destroy", "outer")  # which takes nothing away
    error = poolkit("delete", "outer", status=Unsafe.exit_code).err
    assert "pool 'outer' cannot be deleted: the active pool 'inner' stands on it" in error
    assert "it is not empty" in poolkit("delete", "outer", "--force", status=Unsafe.exit_code).err


def test_a_pool_that_comes_before_its_volume_is_told(poolkit: Command) -> None:
    poolkit.pool()
    poolkit.volume("disk1")
    for verb in ("vol-delete", "vol-info", "vol-wipe"):
        said = poolkit(verb, "images", "disk1", status=4).err
        assert "there is no pool 'disk1'" in said
        assert "hint: the volume comes first, then its pool: disk1 images" in said
    assert "the volume comes first" not in poolkit("vol-delete", "images", "other", status=4).err
