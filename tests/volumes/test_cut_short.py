"""An image that was cut short is listed with its error, and nothing is made from it or put in a sound one's place."""

from __future__ import annotations

import os
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine.pool import Pool
from tests.formats import samples

from .conftest import MIB, content, make, put, xml

pytestmark = pytest.mark.tools("qemu-img", "qemu-io")


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    """A qcow2 image with random data in its last clusters."""
    raw, path = tmp_path / "raw", tmp_path / "full.qcow2"
    raw.write_bytes(os.urandom(4 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path.read_bytes()


@pytest.mark.parametrize("left", [1000, 300_000, 2 * MIB, -65536])
def test_half_an_image_is_listed_with_its_error(pool: Pool, image: bytes, left: int) -> None:
    volume = put(pool, "half", image[:left])
    assert volume.info.format == "qcow2"
    assert "truncated" in (volume.info.detail or {})["error"]
    whole = put(pool, "whole", image)
    assert "error" not in (whole.info.detail or {})


@pytest.mark.parametrize("left", [1000, 300_000, 2 * MIB, -1])
def test_no_verb_takes_half_an_image(pool: Pool, other: Pool, image: bytes, left: int) -> None:
    half = put(pool, "half", image[:left])
    before = sorted(path.name for path in Path(pool.info.target or "").iterdir())
    backing = f"<backingStore><path>{half.path}</path><format type='qcow2'/></backingStore>"
    verbs: list[Any] = [
        lambda: half.clone("copy"),
        lambda: half.clone("copy", pool=other),
        lambda: half.clone(xml("copy", None, "raw")),
        lambda: half.clone("copy", linked=True),
        lambda: pool.import_volume("copy", half.path),
        lambda: pool.import_volume("copy", BytesIO(image[:left])),
        lambda: half.resize(8 * MIB),
        lambda: half.adopt(),
        lambda: half.adopt("qcow2"),
        lambda: pool.create_volume(xml("over", None, "qcow2", backing=backing)),
    ]
    for verb in verbs:
        with pytest.raises(errors.Unsafe, match="truncated"):
            verb()
    assert sorted(path.name for path in Path(pool.info.target or "").iterdir()) == before
    assert half.adopt("raw"), "its bytes can be kept as bytes"


def test_a_broken_download_leaves_the_sound_image(pool: Pool, image: bytes) -> None:
    volume = make(pool, "disk", "qcow2", 4 * MIB)
    volume.upload(BytesIO(image))
    for left in (1000, 300_000, len(image) // 2, len(image) - 1):
        with pytest.raises(errors.Unsafe, match="truncated"):
            volume.upload(BytesIO(image[:left]))
        assert content(volume) == image


def test_an_overlay_on_half_an_image_is_neither_flattened_nor_stood_upon(pool: Pool, image: bytes) -> None:
    base = put(pool, "base", image)
    overlay = base.clone("overlay", linked=True)
    os.truncate(base.path, len(image) // 2)
    pool.refresh()
    with pytest.raises(errors.Unsafe, match="truncated"):
        overlay.clone(xml("flat", None, "raw"))
    with pytest.raises(errors.Unsafe, match="truncated"):
        overlay.clone("second", linked=True)


def test_a_reader_that_must_not_read_all_tables_says_so(
    pool: Pool, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolkit.formats import tables

    volume = put(pool, "whole", image)
    monkeypatch.setattr(tables, "LIMIT", 65536 + 8)
    made = volume.clone("copy")
    assert made.outcome is not None
    assert any("was not checked" in warning for warning in made.outcome.warnings)


def test_a_header_alone_is_refused_like_any_half(pool: Pool) -> None:
    head = samples.qcow2(size=MIB)
    broken = head[:36] + b"\0\0\0\1" + head[40:]
    volume = put(pool, "head", broken)
    assert "truncated: the first level table" in (volume.info.detail or {})["error"]
