"""Volumes of storage that hosts share: attached to one of them, changed by those whose role allows it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host
from poolkit.host.node import Node, here
from poolkit.state import settings
from tests.backends.toys.held import HeldBackend
from tests.backends.toys.installed import installed
from tests.volumes.conftest import new_pool


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    yield from installed(HeldBackend)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def on(tmp_path: Path, folder: Path, name: str, role: str = "both", **how: object) -> tuple[Engine, Pool]:
    engine = Engine(tmp_path / name, node=Node(name, role), **how)  # type: ignore[arg-type]
    pool = engine.define(f"<pool type='held'><name>p</name><source><folder path='{folder}'/></source></pool>")
    pool.start()
    return engine, pool


VOLUME = "<volume><name>v</name><capacity>512</capacity></volume>"


def test_one_host_has_a_volume_at_a_time(tmp_path: Path, folder: Path) -> None:
    _, one = on(tmp_path, folder, "n1")
    _, two = on(tmp_path, folder, "n2")
    volume = one.create_volume(VOLUME)
    assert volume.attach().changed
    assert not volume.attach().changed
    assert volume.outcome is None or volume.info.detail == {"attached": "n1"}
    two.refresh()
    with pytest.raises(errors.Busy, match="attached to 'n1'"):
        two.volume("v").attach()
    with pytest.raises(errors.Busy, match="attached to 'n1'"):
        two.volume("v").detach()
    assert volume.detach().changed
    assert not volume.detach().changed
    assert two.volume("v").attach().changed
    assert one.volume("v").detach(node="n2", force=True).changed


def test_the_outcome_says_where_it_is(tmp_path: Path, folder: Path) -> None:
    _, pool = on(tmp_path, folder, "n1")
    volume = pool.create_volume(VOLUME)
    assert volume.attach().message == f"volume 'v' is attached: {folder}/v.data"
    assert volume.attach().message == f"volume 'v' is attached already: {folder}/v.data"
    assert volume.detach().message == "volume 'v' is detached"


def test_work_on_a_volume_keeps_others_from_what_it_stands_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are active together: what is looked at of the one must not change while the other is worked on."""

    def attach(self: HeldBackend, info: VolumeInfo, **how: object) -> VolumeInfo:
        if info.name == "s":
            with pytest.raises(errors.Busy, match="vol-attach of volume 'v'"):
                pool.volume("v").attach()
            assert pool.volume("w").attach().changed
        return real(self, info, **how)  # type: ignore[arg-type]

    def volumes(self: HeldBackend, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for info in every(self, known):
            yield info._replace(detail={**(info.detail or {}), "backing": f"{folder}/v"}) if info.name == "s" else info

    real, every = HeldBackend.attach, HeldBackend.volumes
    monkeypatch.setattr(HeldBackend, "together", True)
    monkeypatch.setattr(HeldBackend, "attach", attach)
    monkeypatch.setattr(HeldBackend, "volumes", volumes)
    monkeypatch.setattr(HeldBackend, "exclusive", lambda self, verb: contextlib.nullcontext())
    for name in "vsw":
        (folder / f"{name}.data").write_bytes(bytes(512))
    _, pool = on(tmp_path, folder, "n1")
    assert pool.volume("s").attach().changed
    assert pool.volume("v").attach().changed


def test_a_role_is_asked_before_anything_is_done(tmp_path: Path, folder: Path) -> None:
    _, pool = on(tmp_path, folder, "n1", "compute")
    with pytest.raises(errors.RoleForbidden, match="'n1' is a compute node") as caught:
        pool.create_volume(VOLUME)
    assert isinstance(caught.value, errors.PermissionDenied) and caught.value.exit_code == 12
    assert list(folder.iterdir()) == []


def test_for_another_node_is_something_else_than_for_this_one(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that changes the storage and uses no volumes gives them away all the same."""
    asked: list[str] = []

    def exclusive(self: HeldBackend, verb: str) -> contextlib.AbstractContextManager[None]:
        asked.append(verb)
        return contextlib.nullcontext()

    _, pool = on(tmp_path, folder, "n1")
    volume = pool.create_volume(VOLUME)
    monkeypatch.setattr(HeldBackend, "exclusive", exclusive)
    monkeypatch.setattr(HeldBackend, "attach_listed", lambda self, info, noted, **how: pytest.fail("at once"))
    assert volume.attach(node="n2").message == "volume 'v' is attached to n2"
    assert volume.detach(node="n2", force=True).changed
    monkeypatch.undo()
    monkeypatch.setattr(HeldBackend, "exclusive", exclusive)
    assert volume.attach(node="n1").changed
    assert asked == ["vol-allow", "vol-forget", "vol-attach"]


@pytest.mark.parametrize("node", ["", "a b", "n/1", "-" * 64])
def test_no_volume_is_given_to_what_is_no_name(tmp_path: Path, folder: Path, node: str) -> None:
    _, pool = on(tmp_path, folder, "n1")
    volume = pool.create_volume(VOLUME)
    for call in (lambda: volume.attach(node=node), lambda: volume.detach(node=node, force=True)):
        with pytest.raises(errors.InvalidArgument, match=r"volume 'v': '.*' cannot be the name of a node"):
            call()
    assert not (folder / "v.held").exists()


def test_the_bracket_is_left_when_a_verb_fails(tmp_path: Path, folder: Path) -> None:
    _, pool = on(tmp_path, folder, "n1")
    pool.create_volume(VOLUME)
    with pytest.raises(errors.VolumeExists):
        pool.create_volume(VOLUME)
    assert not (folder / "lock").exists()


def test_an_attach_that_fails_is_taken_back(tmp_path: Path, folder: Path) -> None:
    def fault(label: str) -> None:
        if label == "attached":
            raise OSError(5, "Input/output error")

    _, pool = on(tmp_path, folder, "n1", host=Host(fault=fault))
    volume = pool.create_volume(VOLUME)
    with pytest.raises(errors.HostError):
        volume.attach()
    assert not (folder / "v.held").exists()


def test_a_dry_run_attaches_nothing(tmp_path: Path, folder: Path) -> None:
    _, pool = on(tmp_path, folder, "n1")
    pool.create_volume(VOLUME)
    with Engine(tmp_path / "n1", dry_run=True) as engine:
        outcome = engine.pool("p").volume("v").attach()
    assert outcome.changed and outcome.plan == ("attach v",)
    assert not (folder / "v.held").exists()


def test_volumes_of_files_need_no_attaching(engine: Engine, tmp_path: Path) -> None:
    pool = new_pool(engine, tmp_path / "images")
    volume = pool.create_volume(VOLUME)
    for verb in (volume.attach, volume.detach):
        with pytest.raises(errors.Unsupported, match=r"pools of type 'dir' cannot (at|de)tach volumes"):
            verb()


# -- what this host is -----------------------------------------------------------------------------------------------


def test_without_a_file_a_host_has_its_own_name_and_no_role(tmp_path: Path) -> None:
    assert settings.read(str(tmp_path / "host.toml")) == here()
    with Engine(tmp_path / "root") as engine:
        assert engine.host.operation().node == here()


def test_the_file_says_what_a_host_is(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "host.toml").write_text('[node]\nname = "n2"\nrole = "compute"\n')
    with Engine(tmp_path / "root") as engine:
        assert engine.host.operation().node == Node("n2", "compute")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node", "is no TOML"),
        ("[nodes]\nname='n'", "not 'nodes'"),
        ("node = 1", "node is a table"),
        ("[node]\nrolle = 'both'", "not 'rolle'"),
        ("[node]\nname = 5", "are texts"),
        ("[node]\nname = 'a b'", "cannot be the name of a node"),
        ("[node]\nname = ''", "cannot be the name of a node"),
        ("[node]\nrole = 'master'", "one of control, compute, both, not 'master'"),
    ],
)
def test_what_the_file_must_not_say(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "host.toml"
    file.write_text(text)
    with pytest.raises(errors.InvalidArgument, match=words) as caught:
        settings.read(str(file))
    assert str(file) in str(caught.value)


def test_a_machine_whose_host_name_is_none_for_a_node_is_given_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="(none)"))
    file = tmp_path / "host.toml"
    with pytest.raises(errors.InvalidArgument, match=r"the host name of this machine: '\(none\)' cannot be") as caught:
        settings.read(str(file))
    assert str(caught.value.hint) == 'give it another in host.toml: [node] name = "n1"'
    file.write_text('[node]\nname = "n2"\n')
    assert settings.read(str(file)) == Node("n2")


def test_a_file_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(errors.Unsafe):
        settings.read(str(file))


def test_the_command_attaches_and_detaches(engine: Engine, tmp_path: Path) -> None:
    pool = new_pool(engine, tmp_path / "images")
    pool.create_volume(VOLUME)
    argv = [sys.executable, "-m", "poolkit", "--root", str(engine.locations.state.removesuffix("/state")), "--json"]
    for verb in ("vol-attach", "vol-detach"):
        ran = subprocess.run([*argv, verb, "v", "--pool", pool.name], capture_output=True, text=True, check=False)
        assert ran.returncode == 8, ran
        assert json.loads(ran.stdout or ran.stderr)["error"] == "unsupported"
