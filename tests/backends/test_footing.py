"""Pools on pools: a file is a disk, its partition has a file system with a folder that is a pool; each names what is above."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host
from tests.backends.loops import sh

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "sfdisk", "partx", "mkfs.ext4", "wipefs", "qemu-img")]
MIB = 1 << 20
NODE = "<pool type='disk'><name>disk</name><source><device path='{}'/><format type='gpt'/></source>{}</pool>"


def folder(name: str, path: Path) -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"


def volume(name: str, size: int, more: str = "") -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity><allocation>0</allocation>{more}</volume>"


def dependents(verb: Callable[[], object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the pools and of the volumes that a refusal has."""
    with pytest.raises(errors.HasDependents) as caught:
        verb()
    for name in (*caught.value.pools, *(v for _, v in caught.value.volumes)):
        assert name in str(caught.value)
    return caught.value.pools, tuple("/".join(v) for v in caught.value.volumes)


class Tower:
    """Four active pools, each on the one before it."""

    def __init__(self, engine: Engine, place: Path) -> None:
        self.engine, self.place = engine, place
        self.files = self.up(folder("files", place / "files"), build=True)
        self.loop = ""

    def up(self, xml: str, *, build: bool = False) -> Pool:
        pool = self.engine.define(xml)
        pool.start(build=build)
        return pool

    def build(self) -> None:
        image = self.files.create_volume(volume("disk.img", 200 * MIB))
        self.loop = sh("losetup", "--find", "--show", image.path).strip()
        self.disk = self.up(NODE.format(self.loop, "<target><path>/dev</path></target>"), build=True)
        name = f"{Path(self.loop).name}p1"
        self.part = self.disk.create_volume(volume(name, 100 * MIB))
        source = f"<source><device path='{self.part.path}'/><format type='ext4'/></source>"
        target = f"<target><path>{self.place}/mnt</path></target>"
        self.mounted = self.up(f"<pool type='fs'><name>mounted</name>{source}{target}</pool>", build=True)
        self.upper = self.up(folder("upper", self.place / "mnt" / "inner"), build=True)

    def end(self) -> None:
        subprocess.run(["umount", f"{self.place}/mnt"], capture_output=True, check=False)
        if self.loop:
            subprocess.run(["partx", "--delete", self.loop], capture_output=True, check=False)
            sh("losetup", "--detach", self.loop, check=False)


@pytest.fixture
def tower(engine: Engine, tmp_path: Path) -> Iterator[Tower]:
    built = Tower(engine, tmp_path)
    try:
        built.build()
        yield built
    finally:
        built.end()


def test_every_layer_names_the_pools_above_it(tower: Tower) -> None:
    image = tower.files.volume("disk.img")
    above = ("disk", "mounted", "upper")
    assert dependents(image.delete) == (above, ())
    assert dependents(image.wipe) == (above, ())
    assert dependents(lambda: image.resize(MIB, shrink=True)) == (above, ())
    assert dependents(tower.part.delete) == (("mounted", "upper"), ())
    assert dependents(tower.mounted.destroy) == (("upper",), ())
    tower.upper.destroy()
    with pytest.raises(errors.Busy):  # the mount has the device
        tower.part.delete(force=True)
    tower.mounted.destroy()
    tower.part.delete()
    assert dependents(image.delete)[0] == ("disk",)


def test_stopping_names_the_volumes_that_would_lose_their_base(tower: Tower, tmp_path: Path) -> None:
    tower.upper.destroy()
    base = tower.mounted.create_volume(volume("base", MIB))
    store = f"<target><format type='qcow2'/></target><backingStore><path>{base.path}</path><format type='raw'/></backingStore>"
    tower.files.create_volume(volume("over", MIB, store))
    assert dependents(tower.mounted.destroy) == ((), ("files/over",))
    assert tower.mounted.destroy(force=True).changed
    tower.files.refresh()
    assert tower.files.volume("over").info.problem.startswith("what it stands on is missing")


def test_what_volumes_stand_on_is_not_built_anew(tower: Tower, tmp_path: Path) -> None:
    """Of the file system that is not mounted the index knows the files by their paths, and the device by itself."""
    other = tower.up(folder("other", tmp_path / "other"), build=True)
    base = tower.mounted.create_volume(volume("base", MIB))
    tower.upper.destroy()
    for path in (base.path, tower.part.path):
        store = f"<backingStore><path>{path}</path><format type='raw'/></backingStore>"
        other.create_volume(volume("overlay", MIB, f"{store}<target><format type='qcow2'/></target>"))
        tower.mounted.destroy(force=True)
        for verb in (
            lambda: tower.mounted.build(overwrite=True), lambda: tower.mounted.start(build=True, overwrite=True)
        ):  # fmt: skip
            assert dependents(verb) == ((), ("other/overlay",))
        assert not tower.mounted.build(), "which overwrites nothing"
        tower.mounted.start()
        other.volume("overlay").delete()
    store = f"<backingStore><path>{tower.part.path}</path><format type='raw'/></backingStore>"
    other.create_volume(volume("overlay", MIB, f"{store}<target><format type='qcow2'/></target>"))
    tower.mounted.destroy()
    tower.disk.destroy(force=True)
    assert dependents(lambda: tower.disk.build(overwrite=True)) == ((), ("other/overlay",))
    other.destroy()
    assert tower.mounted.build(overwrite=True)
    tower.disk.start()
    tower.mounted.start()


def test_what_stops_by_nothing_can_be_stopped(tower: Tower) -> None:
    """Neither a folder nor a partition goes away with its pool."""
    assert tower.files.destroy().changed
    assert tower.disk.destroy().changed


def test_a_folder_that_is_a_volume_is_not_removed_from_under_a_pool(engine: Engine, tmp_path: Path) -> None:
    outer = Tower(engine, tmp_path).files
    (tmp_path / "files" / "sub" / "deep").mkdir(parents=True)
    outer.refresh()
    inner = engine.define(folder("inner", tmp_path / "files" / "sub" / "deep"))
    inner.start()
    assert dependents(outer.volume("sub").delete) == (("inner",), ())
    inner.destroy()
    assert dependents(lambda: _start_again(inner, outer)) == (("inner",), ())


def _start_again(inner: Pool, outer: Pool) -> None:
    inner.start()
    outer.destroy()
    outer.delete()


def test_a_bare_device_of_the_kernel_is_followed_down() -> None:
    from poolkit.engine import footing

    root = footing.ground(Host().operation(), ["/"])
    assert "/" in root.paths
