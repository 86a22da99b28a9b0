"""import libvirt from a libvirtd that runs: its own folders, and a connection. It goes on with its pools as before."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import Engine, errors
from poolkit.engine.libvirt import connection, found, taking

from ..cli.conftest import Command
from ..conftest import unavailable

needs_libvirtd = [pytest.mark.root, pytest.mark.tools("libvirtd", "virsh", "unshare")]
BINDING = "/usr/lib/python3/dist-packages"  # of Debian's python3-libvirt
SECRET = "<secret ephemeral='{}' private='{}'><uuid>{}</uuid><usage type='volume'><volume>{}</volume></usage></secret>"
OPEN, PRIVATE, PASSING = (f"1b4e28ba-2fa1-11d2-883f-00000000000{number}" for number in (1, 2, 3))


class Peer:
    """A libvirtd with pools and secrets."""

    def __init__(self, daemon: PrivateLibvirtd, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder
        self.root = Path(f"/proc/{daemon.pid}/root")
        self.secrets_uri = daemon.uri.replace("storage+", "secret+", 1)
        for name in ("images", "passing", "later"):
            (folder / name).mkdir()
        self.define("images")
        daemon.virsh("pool-start", "images")
        daemon.virsh("pool-autostart", "images")
        daemon.virsh("vol-create-as", "images", "disk", "1M", "--allocation", "0")
        self.define("later")
        daemon.virsh("pool-create", self.write("passing", self.document("passing")))
        for ephemeral, private, uuid in (("no", "no", OPEN), ("no", "yes", PRIVATE), ("yes", "no", PASSING)):
            self.secret("secret-define", self.write(uuid, SECRET.format(ephemeral, private, uuid, uuid)))
            self.secret("secret-set-value", uuid, "b3BlbiBzZXNhbWU=")

    def document(self, name: str) -> str:
        return f"<pool type='dir'><name>{name}</name><target><path>{self.folder / name}</path></target></pool>"

    def write(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.xml"
        file.write_text(text)
        return file

    def define(self, name: str) -> None:
        self.daemon.virsh("pool-define", self.write(name, self.document(name)))

    def secret(self, *words: str | Path) -> None:
        command = ["virsh", "-q", "-c", self.secrets_uri, *map(str, words)]
        subprocess.run(command, check=True, capture_output=True)

    def says(self) -> str:
        """What libvirt has: nothing of it changes."""
        return self.daemon.virsh("pool-list", "--all", "--details") + self.daemon.virsh("pool-dumpxml", "images")


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if why := PrivateLibvirtd.missing():
        unavailable(f"needs {why}")
    with tempfile.TemporaryDirectory() as folder:  # a short path: libvirtd has a socket below it
        (Path(folder) / "pools").mkdir()
        (Path(folder) / "libvirtd").mkdir()
        with PrivateLibvirtd(Path(folder) / "libvirtd") as daemon:
            yield Peer(daemon, Path(folder) / "pools")


@pytest.fixture
def binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Libvirt's Python binding, which the system has for its own Python."""
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    if not glob.glob(f"{BINDING}/libvirtmod.cpython-{version}-*"):
        unavailable("needs python3-libvirt for this version of Python")
    for file in glob.glob(f"{BINDING}/libvirt*"):
        os.symlink(file, tmp_path / os.path.basename(file))
    monkeypatch.syspath_prepend(tmp_path)
    import libvirt

    return libvirt


def states(engine: Engine) -> dict[str, tuple[bool, bool, bool]]:
    return {info.name: (info.active, info.persistent, info.autostart) for info in engine.pools()}


EXPECTED = {"images": (True, True, True), "later": (False, True, False), "passing": (True, False, False)}


class TestDaemon:
    pytestmark = needs_libvirtd

    def test_its_folders_are_taken(self, engine: Engine, peer: Peer) -> None:
        before = peer.says()
        made = taking.take(engine, found.in_folders(peer.root))
        assert not made.failed and states(engine) == EXPECTED
        assert [volume.name for volume in engine.pool("images").volumes()] == ["disk"]
        assert engine.secret(OPEN).value().reveal() == b"open sesame"
        assert engine.secret_store.read(engine.secret(PRIVATE).definition) == b"open sesame"
        assert [secret.uuid for secret in engine.secrets()] == [OPEN, PRIVATE]
        assert not taking.take(engine, found.in_folders(peer.root)).changed
        assert peer.says() == before

    def test_a_connection_says_the_same(self, engine: Engine, peer: Peer, binding: Any) -> None:
        before = peer.says()
        pools = taking.take(engine, connection.at(peer.daemon.uri))
        assert states(engine) == EXPECTED
        assert "has no secrets" in pools.warnings[0]  # this one is for storage alone
        assert pools.marks == (f"virsh -c '{peer.daemon.uri}' pool-autostart --disable images",)
        secrets = taking.take(engine, connection.at(peer.secrets_uri))
        assert engine.secret(OPEN).value().reveal() == b"open sesame"
        assert not engine.secret(PRIVATE).has_value
        passing = engine.secret(PASSING)  # libvirt has no file of it, and poolkit none on a disk
        assert passing.definition.ephemeral and passing.value().reveal() == b"open sesame"
        passing.undefine()
        assert any("secret is private" in warning for one in secrets.results for warning in one.warnings)
        by_folders = taking.take(engine, found.in_folders(peer.root))
        assert [one.name for one in by_folders.results if one.messages] == [PRIVATE]  # its value is in a file
        assert not taking.take(engine, connection.at(peer.daemon.uri)).changed
        assert peer.says() == before

    def test_the_mark_is_removed_as_it_is_said(self, engine: Engine, peer: Peer, binding: Any) -> None:
        (mark,) = taking.take(engine, connection.at(peer.daemon.uri)).marks
        subprocess.run(mark, shell=True, check=True, capture_output=True)
        assert taking.take(engine, connection.at(peer.daemon.uri)).marks == ()
        peer.daemon.virsh("pool-autostart", "images")
        (mark,) = taking.take(engine, found.in_folders(peer.root)).marks
        subprocess.run(mark, shell=True, check=True, capture_output=True)
        assert engine.pool("images").info.autostart and taking.take(engine, found.in_folders(peer.root)).marks == ()
        peer.daemon.virsh("pool-autostart", "--disable", "images")
        peer.daemon.virsh("pool-autostart", "images")


def test_a_driver_without_secrets_and_definitions(engine: Engine, binding: Any) -> None:
    made = taking.take(engine, connection.at("test:///default"))
    (one,) = made.results
    assert (one.name, one.result) == ("default-pool", "taken")
    assert "is active in libvirt, and not taken over so" in one.warnings[0]  # its directory is not there


def test_another_host_is_not_this_one(engine: Engine, binding: Any, tmp_path: Path) -> None:
    text = f"<pool type='dir'><name>p</name><target><path>{tmp_path}</path></target></pool>".encode()
    there = found.Found("x", (found.FoundPool("p", text, "x", active=True),), here=False)
    assert "on the other host" in taking.take(engine, there).results[0].warnings[0]
    assert not engine.pool("p").info.active


def test_no_connection_is_an_error_with_libvirts_reason(poolkit: Command, binding: Any) -> None:
    said = poolkit("import", "libvirt", "--uri", "storage+unix:///system?socket=/nowhere", status=13)
    assert "no connection to the libvirt at" in said.err and "/nowhere" in said.err


def test_without_the_binding_its_extra_is_named(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(errors.Unsupported, match="not installed"):
        connection.at("qemu:///system")
    assert "poolkit[libvirt]" in poolkit("import", "libvirt", "--uri", "qemu:///system", status=8).err
