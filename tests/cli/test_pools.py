"""Every verb of pools, once well and once ill."""

from __future__ import annotations

import os

import pytest

from .conftest import Command


def test_a_pool_from_definition_to_nothing(poolkit: Command) -> None:
    assert poolkit("define", poolkit.document()).out == "pool 'images' is defined\n"
    assert poolkit("define", poolkit.document()).out == "pool 'images' is defined so already\n"
    assert poolkit("build", "images").out == "pool 'images' is built\n"
    assert poolkit("start", "images").out == "pool 'images' is active\n"
    assert poolkit("start", "images").out == "pool 'images' is active already\n"
    (poolkit.folder / "images" / "found").write_bytes(b"x" * 5000)
    assert poolkit("refresh", "images").out == "pool 'images' has 1 volumes\n"
    (poolkit.folder / "images" / "found").unlink()
    assert poolkit("destroy", "images").out == "pool 'images' is inactive\n"
    assert poolkit("delete", "images").status == 0
    assert not (poolkit.folder / "images").exists()
    assert poolkit("undefine", "images").out == "pool 'images' is undefined\n"
    assert poolkit("list", "--all", "--json").json == []


@pytest.mark.parametrize(
    "verb", ["undefine", "build", "start", "refresh", "destroy", "delete", "autostart", "info", "dumpxml"]
)
@pytest.mark.parametrize("prefix", ["", "pool-"])
def test_an_unknown_pool_is_named_with_a_near_one(poolkit: Command, verb: str, prefix: str) -> None:
    poolkit("define", poolkit.document())
    answer = poolkit(prefix + verb, "imges", status=4)
    assert answer.out == ""
    assert answer.err == "error: there is no pool 'imges'\nhint: did you mean 'images'?\n"


@pytest.mark.parametrize("verb", ["edit", "uuid", "name"])
def test_other_verbs_name_an_unknown_pool(poolkit: Command, verb: str) -> None:
    assert "there is no pool 'nothing'" in poolkit(verb, "nothing", status=4).err


def test_outcomes_in_json_have_one_shape(poolkit: Command) -> None:
    answer = poolkit("define", poolkit.document(), "--json").json
    assert answer == {
        "verb": "define", "pool": "images", "changed": True, "message": "pool 'images' is defined", "uuid": answer["uuid"],
    }  # fmt: skip
    for verb in ("build", "start", "refresh", "autostart", "destroy", "delete", "undefine"):
        answer = poolkit("--json", verb, "images").json
        more = {"removed", "stays"} if verb == "delete" else set()
        assert answer.keys() == {"verb", "pool", "changed", "message"} | more, verb
        assert (answer["verb"], answer["pool"]) == (verb, "images")
        assert answer["changed"] is True or verb == "refresh"


def test_a_changed_definition_of_an_active_pool_says_what_waits(poolkit: Command) -> None:
    poolkit.pool()
    elsewhere = poolkit.document().read_text().replace("images</path>", "other</path>")
    changed = poolkit.folder / "changed.xml"
    changed.write_text(elsewhere)
    answer = poolkit("define", changed, "--json").json
    assert answer["pending"] == [
        {"path": "target.path", "running": str(poolkit.folder / "images"), "new": str(poolkit.folder / "other")}
    ]
    poolkit("define", poolkit.document())
    answer = poolkit("define", changed)
    assert "note: waits for the next start: target.path:" in answer.err


def test_a_document_with_errors_is_refused_with_every_place(poolkit: Command) -> None:
    bad = poolkit.folder / "bad.xml"
    bad.write_text("<pool type='dir'>\n  <nam>x</nam>\n  <target><path>relative</path></target>\n</pool>\n")
    answer = poolkit("define", bad, status=3)
    assert all(line.startswith(f"error: {bad}:") for line in answer.err.splitlines())
    assert len(answer.err.splitlines()) >= 3
    error = poolkit("define", bad, "--json", status=3).error
    assert error["error"] == "invalid-definition" and error["exit_code"] == 3
    assert {"source", "line", "column", "path", "message"} == error["problems"][0].keys()
    assert [p["line"] for p in error["problems"]] == [1, 2, 3]


def test_unknown_elements_are_dropped_with_a_warning_if_asked(poolkit: Command) -> None:
    file = poolkit.document(more="<bogus/>")
    poolkit("define", file, status=3)
    answer = poolkit("define", file, "--lenient")
    assert answer.err.startswith("warning: ") and "bogus" in answer.err
    assert "bogus" not in poolkit("dumpxml", "images").out


def test_define_reads_standard_input(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(poolkit.document()) as file:
        monkeypatch.setattr("sys.stdin", file)
        assert poolkit("define", "-").status == 0


def test_define_with_validation_and_a_missing_file(poolkit: Command) -> None:
    assert poolkit("define", poolkit.document(), "--validate").status == 0
    assert "cannot read 'nowhere.xml': No such file" in poolkit("define", "nowhere.xml", status=10).err


def test_a_transient_pool_vanishes_when_it_is_stopped(poolkit: Command) -> None:
    poolkit("create", poolkit.document(), status=10)
    assert poolkit("list", "--all", "--json").json == []
    assert poolkit("create", poolkit.document(), "--build").out == "pool 'images' is active\n"
    assert [p["name"] for p in poolkit("list", "--transient", "--json").json] == ["images"]
    assert poolkit("list", "--persistent", "--json").json == []
    assert "transient" in poolkit("autostart", "images", status=6).err
    poolkit("destroy", "images")
    assert poolkit("list", "--all", "--json").json == []


def test_options_that_exclude_each_other(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    for line in (
        ["build", "images", "--overwrite", "--no-overwrite"], ["list", "--transient", "--persistent"],
        ["list", "--autostart", "--no-autostart"], ["start", "images", "--autostart"], ["start"],
        ["schema", "--rng", "--xsd"],
    ):  # fmt: skip
        assert poolkit(*line, status=2).err.startswith("error: "), line


def test_build_options_of_start_imply_build_as_in_virsh(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    poolkit("pool-start", "images", "--no-overwrite")
    assert (poolkit.folder / "images").is_dir()


def test_verbs_say_why_they_do_not_fit_the_state(poolkit: Command) -> None:
    poolkit.pool()
    for verb in ("build", "delete", "undefine"):
        answer = poolkit(verb, "images", status=6)
        assert f"poolkit --root {poolkit.root} destroy images" in answer.err
    poolkit("destroy", "images")
    assert f"poolkit --root {poolkit.root} start images" in poolkit("refresh", "images", status=6).err


def test_autostart_marks_and_starts(poolkit: Command) -> None:
    for name in ("one", "two", "three"):
        poolkit("define", poolkit.document(name))
    poolkit("build", "one")
    poolkit("autostart", "one")
    poolkit("autostart", "two")
    poolkit("autostart", "three")
    poolkit("autostart", "three", "--disable")
    answer = poolkit("start", "--autostart", status=10)
    assert answer.out == "pool 'one' is active\n"
    assert "two" in answer.err and "does not exist" in answer.err
    found = poolkit("start", "--autostart", "--json", status=10).json
    assert [p["pool"] for p in found] == ["one", "two"]
    assert found[0]["changed"] is False and found[1]["error"]["exit_code"] == 10
    assert [p["name"] for p in poolkit("list", "--all", "--no-autostart", "--json").json] == ["three"]


def test_list_shows_what_is_asked_for(poolkit: Command) -> None:
    poolkit.pool("active")
    poolkit("define", poolkit.document("still"))
    assert poolkit("list").out.splitlines() == ["Name    Type  State   Autostart", "active  dir   active  no"]
    assert poolkit("pool-list", "--inactive", "--name").out == "still\n"
    assert poolkit("list", "--all", "--name").out == "active\nstill\n"
    uuid = poolkit("uuid", "active").out.strip()
    assert poolkit("list", "--uuid").out.strip() == uuid
    assert poolkit("list", "--name", "--uuid").out.strip() == f"active {uuid}"
    assert poolkit("name", uuid).out == "active\n"
    assert poolkit("list", "--all", "--type", "fs,netfs", "--json").json == []
    assert len(poolkit("list", "--all", "--type", "dir", "--json").json) == 2
    assert "did you mean 'netfs'" in poolkit("list", "--type", "netf", status=2).err
    details = poolkit("list", "--all", "--details", "--bytes").out.splitlines()
    assert details[0].split() == [
        "Name", "Type", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available", "Target",
    ]  # fmt: skip
    assert details[1].split()[5].isdigit() and details[2].split()[5] == "-"


def test_info_has_the_same_facts_for_people_and_programs(poolkit: Command) -> None:
    poolkit.pool()
    facts = poolkit("info", "images", "--json").json
    assert list(facts) == [
        "name", "uuid", "type", "state", "active", "persistent", "autostart", "target", "capacity", "allocation",
        "available", "refreshed", "reason",
    ]  # fmt: skip
    assert facts["state"] == "active" and facts["capacity"] > 0
    text = poolkit("info", "images", "--bytes").out
    assert f"Capacity:    {facts['capacity']}\n" in text and f"UUID:        {facts['uuid']}\n" in text
    assert [facts] == poolkit("list", "--json").json


def test_a_pool_whose_folder_vanished_is_inactive_with_the_reason(poolkit: Command) -> None:
    poolkit.pool()
    (poolkit.folder / "images").rmdir()
    answer = poolkit("list", "--all")
    assert "inactive" in answer.out
    assert f"pool 'images': the directory '{poolkit.folder / 'images'}' does not exist" in answer.err
    assert poolkit("list", "--all", "--quiet").err == ""
    assert "Reason:" in poolkit("info", "images").out


def test_dumpxml_prints_the_running_or_the_stored_definition(poolkit: Command) -> None:
    poolkit.pool()
    live = poolkit("dumpxml", "images").out
    assert live.startswith("<pool type='dir'>\n  <name>images</name>\n") and "<mode>0711</mode>" in live
    stored = poolkit("dumpxml", "images", "--inactive").out
    assert "<capacity unit='bytes'>0</capacity>" in stored and "<mode>" not in stored
    assert poolkit("dumpxml", "images", "--inactive", "--json").json == {"xml": stored}


def test_a_dry_run_shows_the_steps_and_changes_nothing(poolkit: Command) -> None:
    answer = poolkit("--dry-run", "define", poolkit.document())
    assert answer.out == f"write {poolkit.root}/storage/images.xml\n"
    assert "nothing was changed" in answer.err
    assert poolkit("list", "--all", "--json").json == []
    poolkit("define", poolkit.document())
    plan = poolkit("build", "images", "--dry-run", "--json").json
    assert plan["dry_run"] is True and any(str(poolkit.folder / "images") in line for line in plan["plan"])
    assert not (poolkit.folder / "images").exists()
    poolkit("define", poolkit.document(), "--dry-run")


def test_work_in_progress_is_a_busy_error_that_names_it(poolkit: Command) -> None:
    from poolkit import Engine

    poolkit.pool()
    with Engine(poolkit.root) as engine, engine.core.locks.work("images", "destroy"):
        answer = poolkit("refresh", "images", status=7)
        assert f"pool 'images' is busy: destroy by process {os.getpid()}" in answer.err
        assert poolkit("refresh", "images", "--json", "--wait", "0.05", status=7).error["error"] == "busy"
        assert poolkit("list", "--json").json[0]["state"] == "active"
