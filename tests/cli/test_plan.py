"""``plan``, ``apply`` and ``diff`` as commands: stored plans as files, folders without documents, and hints that fit them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from poolkit.engine.plan.carrying import Carrier

from .conftest import Command


@pytest.fixture
def wanted(poolkit: Command) -> Path:
    """A folder with the document of a pool that can be built, not yet applied."""
    folder = poolkit.folder / "wanted"
    folder.mkdir()
    (folder / "images.xml").write_text(
        "<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>images</name>"
        f"<target><path>{poolkit.folder}/images</path></target><pk:wanted state='active' build='if-empty'/></pool>\n"
    )
    return folder


def volume(folder: Path, name: str, format: str = "raw", more: str = "", capacity: str = "1048576") -> None:
    (folder / "images").mkdir(exist_ok=True)
    (folder / f"images/{name}.xml").write_text(
        f"<volume><name>{name}</name><capacity>{capacity}</capacity><allocation>0</allocation>"
        f"<target><format type='{format}'/></target>{more}</volume>\n"
    )


def test_a_stored_plan_is_applied_also_if_there_is_nothing_to_do(poolkit: Command, wanted: Path) -> None:
    stored = poolkit.folder / "plan.json"
    poolkit("plan", wanted, "--out", stored, status=2)
    assert "pool 'images' is active" in poolkit("apply", stored).out
    assert "nothing to do: 1 is as wanted" in poolkit("plan", wanted, "--out", stored).out
    assert "there was nothing to do" in poolkit("apply", stored).err
    assert poolkit("--dry-run", "apply", stored).out == "nothing to do: 1 is as wanted\n"


def test_a_stored_plan_is_no_document(poolkit: Command, wanted: Path) -> None:
    stored = poolkit.folder / "plan.json"
    poolkit("plan", wanted, "--out", stored, status=2)
    for verb, words in (("plan", [stored]), ("diff", [stored]), ("apply", [wanted, stored])):
        said = poolkit(verb, *words, status=None).err
        assert "is a stored plan, and no document" in said and f"apply {stored}" in said
    assert not poolkit("list", "--all", "--json").json


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", 'it has no "poolkit-plan"'), ("{", "it is no JSON"), ('{"poolkit-plan": 7}', "is a plan of version 7")],
)
def test_what_is_no_stored_plan_is_said(poolkit: Command, text: str, said: str) -> None:
    file = poolkit.folder / "plan.json"
    file.write_text(text)
    answer = poolkit("apply", file, status=2)
    assert said in answer.err and "plan anew" in answer.err


def test_a_folder_without_documents_is_warned_of(poolkit: Command) -> None:
    empty = poolkit.folder / "empty"
    empty.mkdir()
    answer = poolkit("plan", empty)
    assert answer.out == "" and answer.err == f"warning: there is no document in '{empty}'\n"
    assert "no document" in poolkit("--quiet", "apply", empty).err
    assert poolkit("plan", "--json", empty).json["entries"] == []


@pytest.mark.tools("qemu-img")
def test_apply_advises_nothing_that_it_does_not_take(poolkit: Command, wanted: Path) -> None:
    volume(wanted, "base", "qcow2")
    backing = f"<backingStore><path>{poolkit.folder}/images/base</path><format type='qcow2'/></backingStore>"
    volume(wanted, "child", "qcow2", backing)
    poolkit("apply", wanted)
    volume(wanted, "base", "raw")
    answer = poolkit("apply", "--replace", wanted, status=9)
    assert "the volume 'child' stands on it" in answer.err
    assert "do it by its own verb with --force, and apply again" in answer.err
    volume(wanted, "base", "qcow2")
    volume(wanted, "child", "qcow2")
    said = poolkit("plan", wanted, status=2).out
    assert f"backing_store: path {poolkit.folder}/images/base, format qcow2 -> nothing (only" in said


def test_of_two_pools_with_one_uuid_the_uuid_is_named(poolkit: Command, wanted: Path) -> None:
    uuid = "6a3ab8b2-41f3-4e0b-9f3f-3a3b8d1a2c11"
    for name in ("a", "b"):
        (wanted / f"{name}.xml").write_text(
            f"<pool type='dir'><name>{name}</name><uuid>{uuid}</uuid><target><path>/srv/{name}</path></target></pool>"
        )
    said = poolkit("plan", wanted, status=3).err
    assert f"b.xml:1:1: /pool: the uuid {uuid} is that of another pool, at {wanted}/a.xml" in said
    assert "'b' is described already" not in said


def test_an_export_counts_its_documents(poolkit: Command) -> None:
    poolkit.pool()
    assert poolkit("--dry-run", "export", poolkit.folder / "out").out.startswith("1 document would be in ")
    assert poolkit("export", poolkit.folder / "out").out.startswith("1 document is in ")
    poolkit.pool("other")
    assert poolkit("export", poolkit.folder / "more").out.startswith("2 documents are in ")
    assert json.loads(poolkit("export", "--json", poolkit.folder / "json").out)["files"] == ["images.xml", "other.xml"]


def test_a_stop_is_told_once(poolkit: Command, wanted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        volume(wanted, name)
    whole = Carrier._one

    def last(self: Carrier, entry: Any) -> Any:
        result = whole(self, entry)
        self.abort.set()
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Carrier, "_one", last)
        answer = poolkit("apply", wanted, status=130)
    assert answer.err == "error: stopped on request: 3 of 4 were not finished; apply goes on there\n"
    poolkit("apply", wanted)
    assert poolkit("plan", wanted).out == "nothing to do: all 4 are as wanted\n"


def test_a_pipe_among_documents_is_not_waited_for(poolkit: Command, wanted: Path) -> None:
    (wanted / "linked.xml").symlink_to(wanted)
    assert poolkit("plan", wanted, status=2).err == ""
    os.mkfifo(wanted / "pipe.xml")
    assert f"'{wanted}/pipe.xml' is neither a file nor a folder" in poolkit("plan", wanted, status=1).err


def test_another_type_is_one_change(poolkit: Command, wanted: Path) -> None:
    poolkit("apply", wanted)
    text = (wanted / "images.xml").read_text().replace("'dir'", "'logical'")
    (wanted / "images.xml").write_text(text.replace("<target>", "<source><name>vg0</name></source><target>"))
    said = poolkit("plan", wanted, status=2).out
    assert said.startswith("~ pool images\n    type: dir -> logical (at the next start, or with --restart)\n")


def test_content_that_is_larger_than_its_document_says(poolkit: Command, wanted: Path) -> None:
    volume(wanted, "a", more="<pkv:content xmlns:pkv='urn:poolkit:volume:1' file='a.img'/>", capacity="1024")
    (wanted / "images/a.img").write_bytes(bytes(4096))
    said = poolkit("apply", wanted, status=2).err
    assert "1024 would cut off data" in said and "hint: leave <capacity> out" in said
