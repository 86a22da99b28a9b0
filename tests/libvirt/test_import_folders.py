"""import libvirt from folders: what is taken, what is not and why, and that a second time nothing is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from poolkit import Engine, errors
from poolkit.engine.libvirt import found, taking
from poolkit.engine.libvirt.taking import Imported

from ..backends.loops import loop_devices, sh
from ..cli.conftest import Command
from ..plan.conftest import fingerprint
from .conftest import Folders


def taken(engine: Engine, there: Folders) -> Imported:
    return taking.take(engine, found.in_folders(there.root))


def results(made: Imported) -> dict[str, str]:
    return {one.name: one.result for one in made.results}


def test_definitions_marks_secrets_and_what_is_active_are_taken(engine: Engine, there: Folders) -> None:
    there.pool("images", active=True, marked=True)
    there.pool("later")
    there.pool("passing", active=True, stored=False)
    (there.root / "images/images/disk").write_bytes(bytes(512))
    open_, private = there.secret("a"), there.secret("b", b"\0\xff", private="yes")
    made = taken(engine, there)
    assert made.changed and not made.failed and set(results(made).values()) == {"taken"}
    pools = {info.name: info for info in engine.pools()}
    assert {n: (i.active, i.persistent, i.autostart) for n, i in pools.items()} == {
        "images": (True, True, True), "later": (False, True, False), "passing": (True, False, False),
    }  # fmt: skip
    assert pools["images"].uuid == there.uuid("images")
    assert [volume.name for volume in engine.pool("images").volumes()] == ["disk"]
    assert engine.secret(open_).value().reveal() == b"open sesame"
    assert engine.secret_store.read(engine.secret(private).definition) == b"\0\xff"
    assert made.marks == (f"rm {there.storage}/autostart/images.xml",)


def test_a_document_without_a_uuid_is_the_pool_of_its_name(engine: Engine, there: Folders) -> None:
    text = there.document("images").replace(f"  <uuid>{there.uuid('images')}</uuid>\n", "")
    assert "<uuid>" not in text
    there.pool("images", text)
    assert results(taken(engine, there)) == {"images": "taken"}
    again = taken(engine, there)
    assert results(again) == {"images": "unchanged"} and not again.failed
    there.pool("images", text.replace("</path>", "2</path>"))
    assert results(taken(engine, there)) == {"images": "different"}


def test_a_second_time_changes_nothing(engine: Engine, there: Folders, tmp_path: Path) -> None:
    there.pool("images", active=True, marked=True)
    there.pool("passing", active=True, stored=False)
    there.secret("a")
    taken(engine, there)
    kept = [tmp_path / "root/storage", tmp_path / "root/secrets", there.root]
    before = fingerprint(*kept)
    again = taken(engine, there)
    assert not again.changed and set(results(again).values()) == {"unchanged"}
    assert fingerprint(*kept) == before
    assert again.marks  # libvirt has them still


def test_a_dry_run_says_the_same_and_does_nothing(there: Folders, tmp_path: Path) -> None:
    there.pool("images", active=True, marked=True)
    there.secret("a")
    root = tmp_path / "root"
    with Engine(root, dry_run=True) as engine:
        said = [one.messages for one in taken(engine, there).results]
    assert not root.exists()
    with Engine(root) as engine:
        done = [one.messages for one in taken(engine, there).results]
    assert [[m.replace("would be", "is").replace("would have", "has") for m in one] for one in said] == [
        *map(list, done)
    ]


def test_what_is_cut_short_is_finished_the_next_time(engine: Engine, there: Folders) -> None:
    there.pool("images", active=True, marked=True)
    uuid = there.secret("a")
    engine.define(there.document("images"))  # as if killed after this
    engine.define_secret((there.secrets / f"{uuid}.xml").read_text())
    made = taken(engine, there)
    assert made.changed and not made.failed
    info = engine.pool("images").info
    assert info.active and info.autostart and engine.secret(uuid).has_value


BROKEN: dict[str, tuple[str, type[errors.PoolkitError], str]] = {
    "damaged": ("<pool type='dir'><name>damaged</name", errors.InvalidDefinition, "damaged.xml:5"),
    "other": (
        "<pool type='dir'><name>x</name><target><path>/x</path></target></pool>",
        errors.InvalidArgument,
        "pool 'x'",
    ),
    "strange": ("<pool type='strange'><name>strange</name></pool>", errors.PoolkitError, "'strange'"),
}


def test_what_cannot_be_taken_is_told_and_the_rest_goes_on(engine: Engine, there: Folders) -> None:
    for name, (text, _, _) in BROKEN.items():
        there.pool(name, text)
    there.pool("images")
    os.symlink("/etc/hostname", there.storage / "linked.xml")
    (there.secrets / "x.xml").write_text("<secret")
    made = taken(engine, there)
    told = {one.name: one.error for one in made.failed}
    assert sorted(told) == sorted([*BROKEN, "linked", "x"])
    for name, (_, kind, words) in BROKEN.items():
        assert isinstance(told[name], kind) and words in str(told[name])
    assert results(made)["images"] == "taken" and [info.name for info in engine.pools()] == ["images"]


def test_values_that_are_not_to_be_had_are_told(engine: Engine, there: Folders) -> None:
    none, odd, sealed = there.secret("a", None), there.secret("b"), there.secret("c", None)
    (there.secrets / f"{odd}.base64").write_text("%%%")
    (there.secrets / f"{sealed}.sealed").write_text("x")
    warned = {one.name: one.warnings for one in taken(engine, there).results}
    assert "libvirt has none" in warned[none][0]
    assert "is not base64" in warned[odd][0]
    assert f"encrypted, in '{sealed}.sealed'" in warned[sealed][0]
    assert not any(secret.has_value for secret in engine.secrets())


def test_what_is_here_already_and_different_is_left_as_it_is(engine: Engine, there: Folders, tmp_path: Path) -> None:
    own = "<pk:mountpoint xmlns:pk='urn:poolkit:pool:1'/>"
    there.pool("same")
    there.pool("changed")
    there.pool("foreign")
    uuid = there.secret("a")
    engine.define(there.document("same", own))  # what libvirt cannot say makes no difference
    engine.define(there.document("changed").replace("images/changed", "images/elsewhere"))
    engine.define(there.document("foreign", uuid=there.uuid("another")))
    engine.define_secret((there.secrets / f"{uuid}.xml").read_text()).set_value(b"mine")
    before = fingerprint(tmp_path / "root/storage", tmp_path / "root/secrets")
    made = taken(engine, there)
    assert results(made) == {"same": "unchanged", "changed": "different", "foreign": "failed", uuid: "different"}
    assert any("target.path" in warning for one in made.results for warning in one.warnings)
    assert fingerprint(tmp_path / "root/storage", tmp_path / "root/secrets") == before


def test_storage_that_is_not_up_is_not_started(engine: Engine, there: Folders) -> None:
    there.pool("images", active=True)
    (there.root / "images/images").rmdir()
    (one,) = taken(engine, there).results
    assert one.result == "taken" and "does not exist" in one.warnings[0]
    assert not engine.pool("images").info.active


def test_types_that_cannot_be_driven_are_kept(engine: Engine, there: Folders) -> None:
    text = f"<pool type='zfs'><name>z</name><uuid>{there.uuid('z')}</uuid><source><name>z</name></source></pool>\n"
    there.pool("z", text, active=True)
    (one,) = taken(engine, there).results
    assert one.result == "taken" and "cannot drive" in one.warnings[0] and one.error is None


@pytest.mark.root
@pytest.mark.tools("losetup", "mkfs.ext4", "mount", "findmnt")
def test_a_mount_is_adopted_as_it_is(engine: Engine, there: Folders, tmp_path: Path) -> None:
    with loop_devices(tmp_path) as make:
        device, target = make(16), tmp_path / "mnt"
        target.mkdir()
        sh("mkfs.ext4", "-q", device)
        sh("mount", device, str(target))
        mounted = sh("findmnt", "-n", "-o", "ID,OPTIONS", str(target))
        there.pool(
            "disk",
            f"<pool type='fs'><name>disk</name><uuid>{there.uuid('disk')}</uuid><source><device path='{device}'/>"
            f"<format type='ext4'/></source><target><path>{target}</path></target></pool>\n",
            active=True,
        )
        made = taken(engine, there)
        assert not made.failed and engine.pool("disk").info.active
        assert sh("findmnt", "-n", "-o", "ID,OPTIONS", str(target)) == mounted
        engine.pool("disk").destroy()
        assert not taken(engine, there).failed
        assert not engine.pool("disk").info.active, "what is not mounted is not mounted by an import"


# -- places -----------------------------------------------------------------------------------------------------------


def test_a_copy_of_the_folder_does_not_say_what_is_active(engine: Engine, there: Folders) -> None:
    there.pool("images", active=True)
    made = taking.take(engine, found.in_folders(there.root / "etc/libvirt"))
    assert results(made) == {"images": "taken"} and "is not known" in made.warnings[0]
    assert not engine.pool("images").info.active


def test_a_user_has_folders_of_libvirt(monkeypatch: pytest.MonkeyPatch, there: Folders, tmp_path: Path) -> None:
    there.pool("images", active=True, marked=True)
    there.secret("a")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(there.root / "etc"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    (tmp_path / "session/libvirt/storage").mkdir(parents=True)
    there.run.rename(tmp_path / "session/libvirt/storage/run")
    host = found.in_folders()
    assert [(pool.name, pool.active, bool(pool.mark)) for pool in host.pools] == [("images", True, True)]
    assert len(host.secrets) == 1


@pytest.mark.parametrize("place", ["", "empty"])
def test_where_there_is_no_libvirt(tmp_path: Path, place: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="nothing of libvirt"):
        found.in_folders(tmp_path / place)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_took(poolkit: Command, there: Folders) -> None:
    there.pool("images", active=True, marked=True)
    there.pool("damaged", "<pool")
    there.secret("a", b"open sesame")
    said: Any = poolkit("import", "libvirt", "--from", there.root, "--json", status=3)
    facts = {one["name"]: one["result"] for one in said.json["results"]}
    assert facts == {"images": "taken", "damaged": "failed", there.uuid("a"): "taken"}
    assert said.json["marks"] == [f"rm {there.storage}/autostart/images.xml"]
    again = poolkit("import", "libvirt", "--from", there.root, status=3)
    assert "2 here already, 1 not taken" in again.out
    assert "two engines must not both start a pool" in again.err and f"rm {there.storage}" in again.err
    for secret in ("open sesame", "b3BlbiBzZXNhbWU"):
        assert secret not in said.out + said.err + again.out + again.err


def test_what_cannot_be_meant_is_refused(poolkit: Command, there: Folders) -> None:
    assert "one of them" in poolkit("import", "libvirt", "--from", "/", "--uri", "x", status=2).err
    assert "not one of libvirt" in poolkit("import", "libvirtd", status=2).err
    assert "no URI to connect to" in poolkit("import", "libvirt", "-c", "qemu:///system", status=2).err


def test_it_stops_when_it_is_asked_to(engine: Engine, there: Folders) -> None:
    there.pool("a")
    there.pool("b")
    engine.host.abort.set()
    with pytest.raises(errors.Aborted):
        taken(engine, there)
    engine.host.abort.clear()
    assert engine.pools() == []
    assert set(results(taken(engine, there)).values()) == {"taken"}
