"""The contract of backends passes good toys and fails bad ones, each for its reason."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from poolkit.backend import VolumeInfo
from poolkit.testing import BackendContract
from poolkit.testing.contract import check_listing
from poolkit.testing.marks import MarkContract

from .toys.installed import installed
from .toys.lun import SIZE, LunBackend
from .toys.marking import DistantMarkingBackend, MarkingBackend

ROOT = Path(__file__).resolve().parents[2]


class TestLun(BackendContract):
    @pytest.fixture(autouse=True)
    def toys(self) -> Iterator[None]:
        yield from installed(LunBackend)

    @pytest.fixture
    def pool_xml(self, tmp_path: Path) -> str:
        (tmp_path / "array").mkdir()
        for number in range(3):
            (tmp_path / "array" / f"lun-{number}").write_bytes(bytes(SIZE))
        return f"<pool type='lun'><name>array</name><source><array path='{tmp_path}/array'/></source></pool>"


@pytest.mark.parametrize("type", ["marking", "distant-marking"])
class TestMarking(MarkContract):
    @pytest.fixture(autouse=True)
    def toys(self) -> Iterator[None]:
        yield from installed(MarkingBackend, DistantMarkingBackend)

    @pytest.fixture
    def pool_xml(self, tmp_path: Path, type: str) -> str:
        (tmp_path / "array").mkdir()
        return f"<pool type='{type}'><name>array</name><source><array path='{tmp_path}/array'/></source></pool>"


@cache
def outcome(toy: str, tests: str = "test") -> dict[str, str]:
    """What the contract says of a bad toy, for each of its ``tests``: passed, or why it failed, in one line."""
    options = ["-p", "no:cacheprovider", "-rA", "--tb=line", "--color=no"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/backends/toys/bad.py", "-k", f"{toy} and ({tests})"],
        env={**os.environ, "COLUMNS": "1000"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    lines = re.findall(r"(?m)^(PASSED|FAILED) tests/backends/toys/bad\.py::\w+::(\w+)\S*(?: - (.*))?$", done.stdout)
    return {name: why if what == "FAILED" else "passed" for what, name, why in lines} | {"": done.stdout}


def test_volumes_of_one_key_fail() -> None:
    said = outcome("TestBadLun")
    assert "the volumes 'lun-0' and 'lun-1' have the same key: naa.1" in said["test_each_listed_volume_is_sound"]


def test_sizes_below_zero_fail() -> None:
    infos = [VolumeInfo("a", key="1", capacity=-1)]
    with pytest.raises(AssertionError, match="volume 'a' has the capacity -1"):
        check_listing(infos)
    infos = [VolumeInfo("a", key="1", path="/x"), VolumeInfo("b", key="2", path="/x")]
    with pytest.raises(AssertionError, match="'a' and 'b' have the same path: /x"):
        check_listing(infos)
    with pytest.raises(AssertionError, match="neither path nor key"):
        check_listing([VolumeInfo("a")])
    check_listing([VolumeInfo("a"), VolumeInfo("b")], "/folder")


def test_verbs_that_do_nothing_fail() -> None:
    said = outcome("TestBadLun")
    assert "download gave 0 bytes of volume 'lun-0'" in said["test_what_is_uploaded_is_there"]
    assert "download gave 0 bytes of volume 'lun-0'" in said["test_a_wipe_leaves_nothing"]
    idle = outcome("TestIdleLun")
    assert (
        "what was uploaded to volume 'lun-0' is not what it holds afterwards" in idle["test_what_is_uploaded_is_there"]
    )
    assert idle["test_each_listed_volume_is_sound"] == "passed"
    failed = {name for name, why in idle.items() if name and why != "passed"}
    assert failed == {"test_what_is_uploaded_is_there", "test_a_wipe_leaves_nothing"}


def test_a_record_that_is_dropped_fails() -> None:
    said = outcome("TestForgetful", "a_format_on_record_stays")
    assert "has the format raw; what is on record says qcow2" in said["test_a_format_on_record_stays"]


def test_carelessness_fails() -> None:
    said = outcome("TestCareless", "meets_no_volume or not_empty or the_same_bytes")
    assert (
        "download took another volume, made later under the name 'first'"
        in (said["test_work_meets_no_volume_that_came_later"])
    )
    assert "neither refused, nor is anything said to stay" in said["test_what_is_not_empty_is_not_erased"]
    assert "the clone has not the bytes that its source had" in said["test_a_clone_has_the_same_bytes"]
    greedy = outcome("TestGreedy", "a_larger_clone_ends_in_zeros")
    assert "bytes of a volume that was deleted" in greedy["test_a_larger_clone_ends_in_zeros"]


def test_rounding_that_is_not_foretold_fails() -> None:
    said = outcome("TestGenerous", "plans_to_nothing")
    assert "Change(field='capacity', old=9437184, new=8392705" in said["test_what_was_made_plans_to_nothing"]
    assert said["test_an_export_plans_to_nothing"] == "passed"


@pytest.mark.parametrize(
    ("toy", "why"),
    [
        ("TestMute", "resize: the error does not name 'array': vol-resize is not supported"),
        ("TestWilling", "delete: the type does not have it, and nothing was raised"),
    ],
)
def test_a_missing_verb_that_does_not_say_so_fails(toy: str, why: str) -> None:
    assert why in outcome(toy, "missing_verbs_say_so")["test_missing_verbs_say_so"]


MARKS = {
    "Private": ("a_marked_volume_is_told_of", "placed does not tell of volume 'first', which was made with a mark"),
    "Named": ("marks_say_where_they_are_kept", "marks says 'array of array', and of the same storage elsewhere"),
    "Every": ("a_marked_volume_is_told_of", "a volume of flavor 'contract-gold' is told as one of 'contract-silver'"),
    "Hasty": ("a_marked_volume_is_told_of", "volume 'first' is said to be settled, and nobody settled it"),
    "Idle": ("a_settled_volume_stays_settled", "volume 'first' was settled, and placed does not say so"),
    "Late": ("a_volume_is_marked_from_the_begin", "volume 'first' is listed, and placed does not tell of it"),
    "Copying": ("a_copy_has_no_mark_of_its_source", "after a clone with the mark None placed tells"),
    "Keeping": ("what_is_deleted_is_told_of_no_more", "volume 'first' was deleted, and placed tells"),
}


@pytest.mark.parametrize("kind", MARKS)
def test_marks_that_are_kept_badly_fail(kind: str) -> None:
    test, why = MARKS[kind]
    said = outcome(f"Test{kind}Marks", test)
    assert why in said[f"test_{test}"]


def test_each_assertion_of_the_contract_says_why() -> None:
    """An assertion of a package that pytest does not rewrite tells nothing by itself."""
    for file in (ROOT / "poolkit/testing").glob("*.py"):
        bare = [
            node.lineno
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Assert) and not node.msg
        ]
        assert bare == [], file


def test_what_is_not_asked_is_said_by_name() -> None:
    said = outcome("TestIdleLun")[""]
    assert "pools of type 'idle-lun' have no create: " in said
    assert "pools of type 'idle-lun' have no resize: " in said
    assert "skipped tiers" not in said, "no means are missing"
