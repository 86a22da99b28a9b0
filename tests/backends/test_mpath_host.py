"""Multipath pools on a sysfs that the test writes: what a map is, and which of its paths work."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolkit import errors, xmlmap
from poolkit.backends.mpath import MpathBackend, MpathPool
from poolkit.testing import ScriptedHost
from poolkit.testing.script import Answer

QUESTION = "dmsetup status --noflush --manglename none --target multipath"
ONE = "2 0 0 0 2 1 A 0 1 2 8:0 {} 0 0 1 E 0 1 2 8:16 {} 0 0 1 "  # two groups of one path each (Linux' dm-mpath, multipath_status)


@pytest.fixture(autouse=True)
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that plays ``/sys/block``."""
    monkeypatch.chdir(tmp_path)
    blocks = tmp_path / "sys" / "block"
    for name, label, uuid in (
        ("dm-0", "mpatha", "mpath-3500140512345678a"),
        ("dm-1", "mpatha-part1", "part1-mpath-3500140512345678a"),
        ("dm-2", "vg-lv", "LVM-abc"),
        ("dm-10", "data 1", "mpath-3500140512345678b"),
    ):
        folder = blocks / name
        (folder / "dm").mkdir(parents=True)
        (folder / "queue").mkdir()
        for disk in ("sda", "sdb"):
            (folder / "slaves" / disk).mkdir(parents=True)
        for file, text in {
            "dm/name": label, "dm/uuid": uuid, "dm/suspended": "0", "dev": f"253:{name[3:]}", "size": "2097152", "ro": "0",
            "queue/logical_block_size": "512",
        }.items():  # fmt: skip
            (folder / file).write_text(f"{text}\n")
    for disk, state in (("sda", "running"), ("sdb", "offline")):
        (blocks / disk / "device").mkdir(parents=True)
        (blocks / disk / "device" / "state").write_text(f"{state}\n")
    return blocks


def backend(answer: str | Answer, text: str = "<pool type='mpath'><name>m</name></pool>") -> MpathBackend:
    return MpathBackend(xmlmap.read(text, [MpathPool]), ScriptedHost({QUESTION: answer}, machine="."))


def test_maps_are_listed_and_nothing_else() -> None:
    first, second = backend(f"mpatha: 0 2097152 multipath {ONE.format('A', 'A')}\n").luns()
    assert (first.name, first.node, first.number, first.size, first.wwid) == (
        "dm-0", "/dev/dm-0", "253:0", 1 << 30, "3500140512345678a"
    )  # fmt: skip
    assert (second.name, second.wwid) == ("dm-10", "3500140512345678b")


@pytest.mark.parametrize(
    ("letters", "state"), [("AA", "running"), ("AF", "running"), ("FA", "running"), ("FF", "without a working path")]
)
def test_one_working_path_is_enough(letters: str, state: str) -> None:
    said = f"data 1: 0 2097152 multipath {ONE.format(*letters)}\nmpatha: 0 2097152 multipath {ONE.format('A', 'A')}\n"
    first, second = backend(said).luns()
    assert (first.state, second.state) == ("running", state)


def test_without_an_answer_the_disks_are_asked(maps: Path) -> None:
    pool = backend(Answer(status=1))
    assert [lun.state for lun in pool.luns()] == ["running", "running"]
    (maps / "sda" / "device" / "state").write_text("offline\n")
    assert [lun.state for lun in pool.luns()] == ["without a working path"] * 2
    (maps / "dm-0" / "dm" / "suspended").write_text("1\n")
    assert pool.luns()[0].state == "suspended"


def test_a_map_without_a_path_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.host.worker.DEADLINE", 0.2)
    text = f"mpatha: 0 2097152 multipath {ONE}\ndata 1: 0 2097152 multipath {ONE.format('A', 'A')}\n"
    assert backend(text.format("F", "A")).answers()
    assert not backend(text.format("F", "F")).answers()
    pool = backend(text.format("F", "F"))
    for at_work, alive in (("dm-0", False), ("dm-10", True)):
        pool.working_on = at_work
        assert pool.answers() is alive


def test_the_target_may_be_left_out() -> None:
    assert backend("").pool.target.path == "/dev/mapper"
    other = "<pool type='mpath'><name>m</name><target><path>/dev/other</path></target></pool>"
    assert backend("", other).pool.target.path == "/dev/other"


def test_who_makes_maps_is_said() -> None:
    error = backend("").unsupported("create", "vol-create")
    assert isinstance(error, errors.Unsupported)
    assert "made by multipathd" in str(error.hint)
