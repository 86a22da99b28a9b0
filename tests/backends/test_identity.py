"""A disk pool is of one disk: another one that comes to be at its path is not taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.families import partitiontable
from tests.backends.loops import loop_devices, sh

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "sfdisk", "partx")]
OTHER = "another disk is at '{}', or it has another partition table"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., str]]:
    with loop_devices(tmp_path) as make:
        yield make


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_another_disk_at_the_same_path_is_noticed(
    engine: Engine, loop: Callable[..., str], tmp_path: Path, label: str
) -> None:
    first, second = loop(), loop()
    for device in (first, second):
        sh("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, input=f"label: {label}\n")
    link = tmp_path / "disk"
    link.symlink_to(first)
    pool = engine.define(
        f"<pool type='disk'><name>p</name><source><device path='{link}'/><format type='{label}'/></source>"
        "<target><path>/dev</path></target></pool>"
    )
    pool.start()
    assert pool.info.active
    link.unlink()
    link.symlink_to(second)
    info = pool.info
    assert (info.active, info.reason) == (False, OTHER.format(link))
    with pytest.raises(errors.InvalidState, match="another disk"):
        pool.refresh()
    link.unlink()
    link.symlink_to(first)
    assert pool.info.active, "the disk is back"
    link.unlink()
    link.symlink_to(second)
    assert pool.start().changed
    assert pool.info.active


def test_a_table_without_identity_tells_nothing() -> None:
    head = bytearray(8192)
    head[510:512] = b"\x55\xaa"
    assert partitiontable.identity(bytes(head)) == ""
