"""What ``delete`` says is what it did: which part of the storage is gone and which stays, for every type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolkit import registry
from poolkit.backend import Backend
from poolkit.cli import main
from poolkit.engine import Engine
from tests.backends.loops import loop_devices, sh

DIR = "<pool type='dir'><name>p</name><target><path>{}</path></target></pool>"
SOURCES = {
    "fs": "<device path='/dev/sdz'/>",
    "netfs": "<host name='nas'/><dir path='/export'/>",
    "logical": "<device path='/dev/sdz'/><name>guests</name>",
    "disk": "<device path='/dev/sdz'/>",
}
SAID = {
    "fs": ("the mount directory '/srv/p'", "'/dev/sdz' with its file system and all files"),
    "netfs": ("the mount directory '/srv/p'", "'nas:/export' with all files"),
    "logical": (
        "the volume group 'guests' with LVM's labels of its devices",
        "what was written to the devices, which are not wiped",
    ),
    "disk": ("the partition table of '/dev/sdz'", "what was written to the disk, which is not wiped"),
}


@pytest.mark.parametrize("type", SOURCES)
def test_each_type_says_what_goes_and_what_stays(engine: Engine, type: str) -> None:
    definition = engine.parse(
        f"<pool type='{type}'><name>p</name><source>{SOURCES[type]}</source><target><path>/srv/p</path></target></pool>"
    )
    assert tuple(engine.core.definitions.backend(definition).erased()) == SAID[type]


def test_no_type_that_deletes_leaves_it_unsaid() -> None:
    for type in registry.types():
        cls = registry.backend(type)
        assert cls.erase is Backend.erase or cls.erased is not Backend.erased, type


def test_the_directory_of_a_dir_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "p"
    with Engine(tmp_path / "root") as engine:
        engine.define(DIR.format(place)).build()
    command = ["--root", str(tmp_path / "root"), "--json", "delete", "p"]
    answers = []
    for _ in range(2):
        assert main(command) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert [(a["changed"], a["message"], a["removed"], a["stays"]) for a in answers] == [
        (True, f"pool 'p': the directory '{place}' was removed", f"the directory '{place}'", ""),
        (False, f"pool 'p': the directory '{place}' is not there any more", "", ""),
    ]
    assert not place.exists()


@pytest.mark.root
@pytest.mark.tools("losetup", "mkfs.ext4", "mount")
def test_the_file_system_of_an_fs_pool_stays(engine: Engine, tmp_path: Path) -> None:
    with loop_devices(tmp_path) as loop:
        device = loop(32)
        made = engine.define(
            f"<pool type='fs'><name>p</name><source><device path='{device}'/><format type='ext4'/></source>"
            f"<target><path>{tmp_path}/mnt</path></target></pool>"
        )
        made.start(build=True)
        made.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
        made.destroy()
        outcome = made.delete()
        assert outcome.message == (
            f"pool 'p': the mount directory '{tmp_path}/mnt' was removed; what stays: "
            f"'{device}' with its file system and all files"
        )
        assert (outcome.removed, outcome.stays) == (
            f"the mount directory '{tmp_path}/mnt'", f"'{device}' with its file system and all files",
        )  # fmt: skip
        assert not (tmp_path / "mnt").exists()
        assert sh("blkid", "-p", "-o", "value", "-s", "TYPE", device).strip() == "ext4"
        made.start()
        assert [v.name for v in made.volumes() if v.info.type == "file"] == ["v"]
        made.destroy()
