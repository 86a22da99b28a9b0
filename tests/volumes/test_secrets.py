"""Secrets: found by uuid and usage, kept where nobody else reads them, and never shown by accident."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.state.secrets import LARGEST, Passphrase

from .conftest import xml

UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"


def document(more: str = "", usage: str = "<usage type='volume'><volume>/a</volume></usage>", flags: str = "") -> str:
    return f"<secret {flags}>{more}{usage}</secret>"


def test_a_secret_is_found_by_uuid_and_usage(engine: Engine) -> None:
    made = engine.define_secret(document(f"<uuid>{UUID}</uuid>"))
    assert made.changed and made.uuid == UUID and made.usage == ("volume", "/a")
    assert not engine.define_secret(document()).changed, "without its uuid it is found by its usage"
    assert engine.secret(UUID.upper()).uuid == engine.secret("/a").uuid == UUID
    assert [s.uuid for s in engine.secrets()] == [UUID]
    assert made.set_value(b"x") and not made.set_value(b"x") and made.set_value(Passphrase(b"y"))
    assert engine.secret("/a").value() == Passphrase(b"y")
    assert engine.host.operation().secret("volume", usage="/a") == b"y"
    assert engine.host.operation().secret("volume", uuid=UUID) == b"y"
    assert made.undefine() and not made.undefine()
    assert engine.secrets() == []
    assert list(Path(engine.locations.secrets).iterdir()) == [], "the value is gone for good"
    with pytest.raises(errors.SecretNotFound, match="no secret '/a'"):
        engine.secret("/a")


@pytest.mark.parametrize(
    ("kind", "element"),
    [("ceph", "name"), ("iscsi", "target"), ("tls", "name"), ("vtpm", "name"), ("smb", "name"), ("xapi", "name")],
)
def test_every_usage_is_known(engine: Engine, kind: str, element: str) -> None:
    made = engine.define_secret(document(usage=f"<usage type='{kind}'><{element}>n</{element}></usage>"))
    assert engine.secret("n").usage == (kind, "n") == made.usage
    assert engine.secret("n").xml() == made.xml()


def test_a_secret_is_found_by_what_it_is_for(engine: Engine) -> None:
    engine.define_secret(document(usage="<usage type='ceph'><name>/a</name></usage>")).set_value(b"ceph")
    with pytest.raises(errors.SecretNotFound, match="no secret '/a'"):
        engine.host.operation().secret("volume", usage="/a")
    volume = engine.define_secret(document())
    volume.set_value(b"volume")
    assert engine.host.operation().secret("volume", usage="/a") == b"volume"
    assert engine.host.operation().secret("ceph", usage="/a") == b"ceph"
    with pytest.raises(errors.InvalidArgument, match="'/a' is the name of 2 secrets") as caught:
        engine.secret("/a")
    assert f"{volume.uuid} (volume)" in (caught.value.hint or "")
    with pytest.raises(errors.Unsafe, match="is of type 'volume', not 'iscsi'"):
        engine.host.operation().secret("iscsi", uuid=volume.uuid)


def test_a_secret_that_may_be_meant_is_named(engine: Engine) -> None:
    made = engine.define_secret(document(usage="<usage type='ceph'><name>client.poolkit</name></usage>"))
    for key, meant in (("client.polkit", "client.poolkit"), (made.uuid[:-1], made.uuid)):
        with pytest.raises(errors.SecretNotFound) as caught:
            engine.secret(key)
        assert caught.value.hint == f"did you mean '{meant}'?"
    with pytest.raises(errors.SecretNotFound) as caught:
        engine.secret("other")
    assert str(caught.value.hint).startswith("define it: ")


def test_a_lock_on_secrets_that_is_held_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.define_secret(document())
    monkeypatch.setattr("poolkit.state.locks.GATE", 0.05)
    with open(Path(engine.locations.run) / "work" / "%secrets" / "gate", "rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(errors.Busy, match="has been locked by another process"):
            engine.define_secret(document(usage="<usage type='ceph'><name>n</name></usage>"))
    assert len(engine.secrets()) == 1


def test_files_are_for_their_owner_only(engine: Engine) -> None:
    engine.define_secret(document()).set_value(b"value")
    folder = Path(engine.locations.secrets)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert b"value" not in b"".join(p.read_bytes() for p in folder.glob("*.xml"))
    value = next(folder.glob("*.value"))
    value.chmod(0o644)
    with pytest.raises(errors.Unsafe, match="read by others") as caught:
        engine.secret("/a").value()
    assert "chmod 600" in (caught.value.hint or "")


def test_an_ephemeral_secret_is_kept_in_memory(engine: Engine) -> None:
    made = engine.define_secret(document(flags="ephemeral='yes'"))
    made.set_value(b"value")
    assert not Path(engine.locations.secrets).exists()
    assert engine.secret("/a").value().reveal() == b"value"
    (path,) = Path(engine.secret_store.memory).glob("*.value")
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
    assert kind in ("tmpfs", "ramfs")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    made.undefine()
    path.parent.rmdir()


@pytest.mark.root
def test_a_folder_in_memory_that_is_somebody_elses_is_neither_read_nor_used(engine: Engine) -> None:
    made = engine.define_secret(document(flags="ephemeral='yes'"))
    made.set_value(b"planted")
    folder = Path(engine.secret_store.memory)
    try:
        os.chown(folder, 65534, 65534)  # anybody may make a folder of that name in shared memory
        assert engine.secrets() == []
        with pytest.raises(errors.SecretNotFound):
            engine.host.operation().secret("volume", usage="/a")
        for change in (lambda: engine.define_secret(document(flags="ephemeral='yes'")), lambda: made.set_value(b"new")):
            with pytest.raises(errors.Unsafe, match=r"belongs to another user|is not for this user alone"):
                change()
        assert {path.name for path in folder.iterdir()} == {f"{made.uuid}.xml", f"{made.uuid}.value"}
        os.chown(folder, 0, 0)
        assert engine.secret("/a").value().reveal() == b"planted"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["open to others", "link"])
def test_a_folder_in_memory_that_others_can_reach_gets_no_secret(engine: Engine, tmp_path: Path, kind: str) -> None:
    folder = Path(engine.secret_store.memory)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o750)
    try:
        with pytest.raises(errors.Unsafe, match="is not for this user alone; the secret was not stored"):
            engine.define_secret(document(flags="ephemeral='yes'"))
        assert list(folder.iterdir()) == []
    finally:
        folder.unlink() if kind == "link" else folder.rmdir()


def test_a_damaged_secret_does_not_hide_the_others(engine: Engine) -> None:
    engine.define_secret(document()).set_value(b"value")
    (Path(engine.locations.secrets) / "bad.xml").write_text("<secret")
    assert engine.secret("/a").value().reveal() == b"value"
    store = engine.secret_store
    assert len(store.list()) == 1
    assert "bad.xml" in store.damaged[0]


def test_a_private_secret_is_used_and_not_given_out(engine: Engine) -> None:
    made = engine.define_secret(document(flags="private='yes'"))
    made.set_value(b"value")
    with pytest.raises(errors.Unsafe, match="is private"):
        made.value()
    assert engine.host.operation().secret("volume", usage="/a") == b"value"
    with pytest.raises(errors.Unsafe, match="stays so"):
        engine.define_secret(document(f"<uuid>{made.uuid}</uuid>"))


def test_conflicts_are_refused(engine: Engine) -> None:
    made = engine.define_secret(document())
    with pytest.raises(errors.SecretExists, match="is for volume '/a' already"):
        engine.define_secret(document(f"<uuid>{UUID}</uuid>"))
    with pytest.raises(errors.SecretExists, match="something else"):
        engine.define_secret(document(f"<uuid>{made.uuid}</uuid>", usage=""))
    with pytest.raises(errors.SecretExists, match="kept elsewhere"):
        engine.define_secret(document(flags="ephemeral='yes'"))
    assert engine.define_secret(document("<description>new words</description>")).changed


def test_values_have_limits(engine: Engine) -> None:
    made = engine.define_secret(document())
    assert not made.has_value
    with pytest.raises(errors.SecretNotFound, match="has no value") as caught:
        made.value()
    assert "set_value" in (caught.value.hint or "")
    for size in (0, LARGEST + 1):
        with pytest.raises(errors.InvalidArgument, match="1 to 65536 bytes"):
            made.set_value(bytes(size))
    made.set_value(bytes(LARGEST))
    assert made.has_value


def test_a_passphrase_never_shows_itself() -> None:
    value = Passphrase(b"hunter2")
    assert "hunter2" not in repr(value) + str(value) + f"{value}" + f"{value!r:>20}"
    with pytest.raises(TypeError):
        pickle.dumps(value)
    with pytest.raises(TypeError):
        hash(value)
    assert value != b"hunter2" and value == Passphrase(b"hunter2")


def test_a_dry_run_keeps_nothing(engine: Engine, tmp_path: Path) -> None:
    with Engine(tmp_path / "root", dry_run=True) as dry:
        dry.define_secret(document())
    assert engine.secrets() == []


@pytest.mark.tools("qemu-img")
def test_an_encrypted_volume_names_the_secret_that_is_for_its_path(engine: Engine, pool: Pool) -> None:
    key = engine.define_secret(document(f"<uuid>{UUID}</uuid>", usage=""))
    key.set_value(b"pass")
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"
    made = pool.create_volume(xml("disk", format="qcow2", target=encryption))
    assert "<encryption format='luks'>" in made.xml() and "<secret" not in made.xml(), "which one it was is not known"
    key.undefine()
    own = engine.define_secret(document(usage=f"<usage type='volume'><volume>{made.path}</volume></usage>"))
    assert f"<secret type='passphrase' uuid='{own.uuid}'/>" in made.xml()
    own.set_value(b"other")
    # The document makes the same volume again.
    text = made.xml().replace("<name>disk</name>", "<name>again</name>")
    assert pool.create_volume(text).info.detail["encryption"] == "luks"
    # A copy of the bytes stays one, whatever secrets there are.
    assert made.clone("copy").info.detail["encryption"] == "luks"


# -- values that are elsewhere --------------------------------------------------------------------------------------------


def elsewhere(**where: object) -> str:
    words = " ".join(f"{name}='{value}'" for name, value in where.items())
    return document(
        f"<pks:value xmlns:pks='urn:poolkit:secret:1' {words}/>", usage="<usage type='xapi'><name>x</name></usage>"
    )


@pytest.fixture
def value(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_bytes(b"first\n")
    path.chmod(0o600)
    return path


def test_a_value_is_read_where_the_description_says(engine: Engine, value: Path) -> None:
    made = engine.define_secret(elsewhere(file=value))
    ask = engine.host.operation().secret
    assert made.has_value and ask("xapi", usage="x") == b"first"
    value.write_bytes(b"second")
    assert ask("xapi", uuid=made.uuid) == b"second", "it is read anew each time"
    with pytest.raises(errors.Unsafe, match="is of type 'xapi', not 'smb'"):
        ask("smb", uuid=made.uuid)
    with pytest.raises(errors.SecretNotFound):
        ask("smb", usage="x")
    with pytest.raises(errors.InvalidState, match="is not kept here"):
        made.set_value(b"third")
    assert f"file='{value}'" in made.xml() and engine.secret(made.uuid).xml() == made.xml()
    assert not [path for path in Path(engine.locations.secrets).iterdir() if path.suffix != ".xml"]
    value.unlink()
    assert not made.has_value
    with pytest.raises(errors.SecretNotFound, match=f"should be in '{value}', and there is no such file"):
        ask("xapi", usage="x")
    assert made.undefine()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o660])
def test_a_file_that_others_reach_is_not_read(engine: Engine, value: Path, mode: int) -> None:
    engine.define_secret(elsewhere(file=value))
    value.chmod(mode)
    with pytest.raises(errors.Unsafe):
        engine.host.operation().secret("xapi", usage="x")


@pytest.mark.parametrize("how", ["link", "fifo", "folder", "second name", "empty", "large", "open folder"])
def test_what_is_no_plain_file_of_ours_is_not_read(engine: Engine, value: Path, how: str) -> None:
    place = value.parent / "place"
    if how == "link":
        place.symlink_to(value)
    elif how == "fifo":
        os.mkfifo(place, 0o600)
    elif how == "folder":
        place.mkdir(0o700)
    elif how == "second name":
        os.link(value, place)
    elif how == "open folder":
        place.mkdir()
        place.chmod(0o777)
        shutil.move(value, place / "value")
        place /= "value"
    else:
        place.write_bytes(b"\n" if how == "empty" else b"x" * (LARGEST + 2))
        place.chmod(0o600)
    engine.define_secret(elsewhere(file=place))
    with pytest.raises((errors.Unsafe, errors.InvalidArgument)):
        engine.host.operation().secret("xapi", usage="x")


@pytest.mark.root
def test_a_file_of_another_user_is_not_read(engine: Engine, value: Path) -> None:
    engine.define_secret(elsewhere(file=value))
    os.chown(value, 4711, 4711)
    with pytest.raises(errors.Unsafe, match="belongs to another user"):
        engine.host.operation().secret("xapi", usage="x")


def test_a_credential_of_systemd(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made = engine.define_secret(elsewhere(credential="san"))
    ask = engine.host.operation().secret
    with pytest.raises(errors.SecretNotFound, match="no service has handed one over") as caught:
        ask("xapi", usage="x")
    assert caught.value.hint == "run poolkit in a service with LoadCredential=san:FILE"
    (tmp_path / "handed").mkdir(0o700)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "handed"))
    assert not made.has_value
    with pytest.raises(errors.SecretNotFound, match="no such file"):
        ask("xapi", usage="x")
    (tmp_path / "handed" / "san").write_bytes(b"handed over")
    (tmp_path / "handed" / "san").chmod(0o440)  # what systemd's ACL for the service's user looks like
    assert made.has_value and ask("xapi", usage="x") == b"handed over"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "handed")
    assert not made.has_value, "a relative folder is none"


@pytest.mark.parametrize("where", [{}, {"file": "/a", "credential": "b"}, {"file": "a"}, {"credential": "../a"}])
def test_a_value_is_in_one_place(engine: Engine, where: dict[str, str]) -> None:
    with pytest.raises(errors.InvalidDefinition):
        engine.define_secret(elsewhere(**where))


def test_a_kept_value_is_not_given_up_for_one_elsewhere(engine: Engine, value: Path) -> None:
    made = engine.define_secret(document())
    made.set_value(b"kept")
    with pytest.raises(errors.InvalidState, match="has a value that is kept here"):
        made.refer_to(file=str(value))
    assert made.value() == Passphrase(b"kept")
    made.undefine()
    made = engine.define_secret(document())
    assert made.refer_to(file=str(value)) and not made.refer_to(file=str(value))
    assert engine.secret("/a").value() == Passphrase(b"first")
    with pytest.raises(errors.InvalidDefinition):
        made.refer_to(file="relative")
