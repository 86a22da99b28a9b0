"""export --libvirt: files that a real libvirtd loads, and that come back by an import as they were."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import Engine, registry, xmlmap
from poolkit.engine.libvirt import found, giving, taking

from ..cli.conftest import Command
from ..conftest import unavailable
from .conftest import Folders

EXAMPLES = sorted((Path(__file__).parents[2] / "examples/xml").glob("pool-*.xml"))


THEIRS = [
    path for path in EXAMPLES if any(getattr(one, "first", None) for one in registry.candidates(path.read_text()))
]
"""Of types that libvirt has."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    if why := PrivateLibvirtd.missing():
        unavailable(f"needs {why}")
    with tempfile.TemporaryDirectory() as folder, PrivateLibvirtd(Path(folder)) as daemon:  # a short path
        yield daemon


def loaded(daemon: PrivateLibvirtd, folder: Path, names: set[str], active: frozenset[str] = frozenset()) -> list[str]:
    """Put a folder into libvirt's and let the daemon load it; the names of its pools, waited for if some are wanted.

    It loads one after the other, and starts those that are marked for it when all are loaded.
    """
    shutil.copytree(folder, f"/proc/{daemon.pid}/root/etc/libvirt", dirs_exist_ok=True, symlinks=True)
    os.kill(daemon.pid, signal.SIGHUP)
    there: list[str] = []
    for _ in range(400):
        there = list(map(str.strip, daemon.virsh("pool-list", "--all", "--name").splitlines()))
        if names <= set(there) and active <= set(daemon.virsh("pool-list", "--name").split()):
            break
        time.sleep(0.05)
    return there


def normal(text: str) -> object:
    """A definition without what is reported."""
    return xmlmap.without_reports(xmlmap.read(text, registry.candidates(text), strict=False))


@pytest.mark.root
@pytest.mark.tools("libvirtd", "virsh", "unshare")
def test_libvirtd_loads_it(poolkit: Command, daemon: PrivateLibvirtd, tmp_path: Path) -> None:
    poolkit("define", poolkit.document("images", "<pk:mountpoint xmlns:pk='urn:poolkit:pool:1'/>"))
    poolkit("autostart", "images")
    (tmp_path / "images").mkdir()
    poolkit("define", poolkit.document("my pool é"))
    secret = tmp_path / "secret.xml"
    uuid = Folders.uuid("s")
    secret.write_text(
        f"<secret private='yes'><uuid>{uuid}</uuid><usage type='volume'><volume>/a</volume></usage></secret>"
    )
    poolkit("secret-define", secret)
    (tmp_path / "value").write_bytes(b"\0open sesame")
    poolkit("secret-set-value", uuid, "--file", tmp_path / "value", "--plain")
    said = poolkit("export", "--libvirt", "--secret-values", tmp_path / "out")
    assert "pool 'images' loses <pk:mountpoint>" in said.err and "two engines" in said.err
    there = loaded(daemon, tmp_path / "out", {"images", "my pool é"}, frozenset({"images"}))
    assert {"images", "my pool é"} <= set(there)
    facts = dict(line.split(":", 1) for line in daemon.virsh("pool-info", "images").splitlines() if ":" in line)
    assert {k: facts[k].strip() for k in ("State", "Persistent", "Autostart")} == {
        "State": "running", "Persistent": "yes", "Autostart": "yes",
    }  # fmt: skip
    uri = daemon.uri.replace("storage+", "secret+", 1)
    listed = subprocess.run(
        ["virsh", "-q", "-c", uri, "secret-list"], capture_output=True, text=True, check=True
    ).stdout
    assert uuid in listed and "/a" in listed
    kept = Path(f"/proc/{daemon.pid}/root/etc/libvirt/secrets/{uuid}.base64")
    assert base64.b64decode(kept.read_bytes()) == b"\0open sesame"
    with Engine(tmp_path / "again") as engine:
        made = taking.take(engine, found.in_folders(f"/proc/{daemon.pid}/root"))
        assert not made.failed
        assert engine.secret_store.read(engine.secret(uuid).definition) == b"\0open sesame"
        assert engine.pool("images").info.active and engine.pool("images").info.autostart
        assert normal(engine.pool("images").xml(inactive=True)) == normal(
            (tmp_path / "out/storage/images.xml").read_text()
        )


@pytest.mark.root
@pytest.mark.tools("libvirtd", "virsh", "unshare")
def test_libvirtd_loads_every_type_of_pool_that_it_has(tmp_path: Path, daemon: PrivateLibvirtd) -> None:
    definitions = {}
    for number, example in enumerate(THEIRS):
        with Engine(tmp_path / f"root{number}") as engine:  # of its own: two examples may have one source
            # Libvirt looks for two pools with one virtual adapter, and two examples have the same.
            pool = engine.define(example.read_text().replace("c9831b4b'", f"c9831{number:03x}'"))
            given = giving.documents(engine)
            for path, text in given.files.items():
                definition = normal(text)
                name = f"{pool.name}-{number}"
                changed = xmlmap.replace(definition, name=name, uuid=Folders.uuid(f"{number:04}"))  # type: ignore[type-var]
                definitions[name] = changed
                file = tmp_path / "out" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                (file.parent / f"{name}.xml").write_text(xmlmap.write(changed))
            assert given.files or any("libvirt has no" in line for line in given.left), example
    wanted = set(definitions)
    there = loaded(daemon, tmp_path / "out", wanted)
    assert wanted - set(there) == set(), (daemon.directory / "log").read_text()
    differ = {}
    for name in sorted(wanted):
        kept = normal(daemon.virsh("pool-dumpxml", "--inactive", name))
        if found := xmlmap.diff(kept, xmlmap.replace(definitions[name], metadata=())):
            differ[name] = found
    assert differ == {}


@pytest.mark.parametrize("example", THEIRS, ids=lambda path: path.stem)
def test_what_is_written_comes_back_by_an_import(tmp_path: Path, example: Path) -> None:
    with Engine(tmp_path / "one") as one, Engine(tmp_path / "other") as other:
        pool = one.define(example)
        pool.autostart()
        given = giving.documents(one)
        for path, text in given.files.items():
            (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / path).write_text(text)
        for path, target in given.links.items():
            (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / path).symlink_to(target)
        if not given.files:
            assert "libvirt has no" in given.left[0]
            return
        made = taking.take(other, found.in_folders(tmp_path / "out"))
        assert not made.failed
        stored = [xmlmap.without_own(engine.pool(pool.name).definition(inactive=True)) for engine in (one, other)]
        assert stored[0] == stored[1] and other.pool(pool.name).info.autostart


def test_what_libvirt_has_not_is_left_out_and_told(engine: Engine, tmp_path: Path) -> None:
    names = ("pool-shared-lvm", "pool-xensm", "pool-netfs-smb-login", "pool-dir-full", "pool-iscsi-mutual")
    for name in names:
        engine.define(tmp_path.joinpath(EXAMPLES[0].parent, f"{name}.xml"))
    for name in ("secret-smb", "secret-volume"):
        engine.define_secret(EXAMPLES[0].parent / f"{name}.xml")
    engine.define_secret("<secret ephemeral='yes'><usage type='volume'><volume>/e</volume></usage></secret>").set_value(
        b"x"
    )
    given = giving.documents(engine)
    text = "".join(given.files.values())
    assert "urn:poolkit" not in text and "pk" + ":" not in text
    told = "\n".join(given.left)
    for words in (
        "type 'shared-lvm'",
        "type 'xensm'",
        "login of type 'smb'",
        "secrets of type 'smb'",
        "in memory",
        "<pk:mutual_auth>",
    ):
        assert words in told, words
    assert len(given.files) == 3  # two pools and a secret


def test_a_transient_pool_is_told_once(engine: Engine, tmp_path: Path) -> None:
    engine.create(f"<pool type='dir'><name>passing</name><target><path>{tmp_path}</path></target></pool>")
    left = giving.documents(engine).left
    assert left == ("pool 'passing' was left out: it is transient: it has no stored definition",)


def test_values_are_written_when_they_are_asked_for(poolkit: Command, tmp_path: Path) -> None:
    uuid = Folders.uuid("s")
    document = tmp_path / "s.xml"
    document.write_text(f"<secret><uuid>{uuid}</uuid><usage type='volume'><volume>/a</volume></usage></secret>")
    poolkit("secret-define", document)
    (tmp_path / "value").write_bytes(b"open sesame")
    poolkit("secret-set-value", uuid, "--file", tmp_path / "value", "--plain")
    assert f"the value of secret {uuid} was left out" in poolkit("export", "--libvirt", tmp_path / "without").err
    assert [path.name for path in (tmp_path / "without/secrets").iterdir()] == [f"{uuid}.xml"]
    said = poolkit("export", tmp_path / "with", "--libvirt", "--secret-values", "--json")
    assert said.json == {"files": [f"secrets/{uuid}.xml", f"secrets/{uuid}.base64"], "left": []}
    file = tmp_path / f"with/secrets/{uuid}.base64"
    assert file.read_bytes() == b"b3BlbiBzZXNhbWU="
    assert os.stat(file).st_mode & 0o777 == 0o600 and os.stat(file.parent).st_mode & 0o777 == 0o700
    assert (
        not list(poolkit.folder.glob("none*"))
        and poolkit("export", tmp_path / "none", "--libvirt", "--dry-run").status == 0
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "line", [["--libvirt", "--volumes"], ["--secret-values"], ["--libvirt", "--secret-values", "--no-secrets"]]
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(poolkit: Command, tmp_path: Path, line: list[str]) -> None:
    poolkit("export", tmp_path / "out", *line, status=2)
    assert not (tmp_path / "out").exists()
