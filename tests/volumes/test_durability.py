"""Nothing has a name, is committed or is reported done before what it stands on is on the disk: all verbs, call by call."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host, descriptors
from poolkit.host.directory import Directory
from poolkit.host.files import Files
from tests.durability import Recorder, recording

from .conftest import MIB, share_blocks, xml

POOL = "<pool type='dir'><name>p</name>{}<target><path>{}/images</path></target></pool>"
SECRET = "<secret ephemeral='no' private='no'><usage type='volume'><volume>/v</volume></usage></secret>"
tools = pytest.mark.tools("qemu-img", "prlimit")
Verb = Callable[[Engine, Path], object]


def _pool(engine: Engine) -> Any:
    return engine.pool("p")


def _stray(place: Path) -> None:
    (place / "images" / "stray").write_bytes(_image(place))


def _image(place: Path) -> bytes:
    path = place / "template"
    if not path.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(MIB)], check=True)
    return path.read_bytes()


# In the order in which they are done: each finds what those before it have made.
VERBS: dict[str, Verb] = {
    "define": lambda e, d: e.define(POOL.format("", d)),
    "redefine": lambda e, d: e.define(POOL.format("<features><cow state='no'/></features>", d)),
    "build": lambda e, d: _pool(e).build(),
    "autostart": lambda e, d: _pool(e).autostart(),
    "start": lambda e, d: _pool(e).start(),
    "vol-create": lambda e, d: _pool(e).create_volume(xml("raw")),
    "vol-create sparse": lambda e, d: _pool(e).create_volume(xml("sparse", more="<allocation>0</allocation>")),
    "vol-create, many": lambda e, d: _pool(e).create_volumes(
        [xml("one"), xml("two", more="<allocation>0</allocation>")]
    ),
    "vol-create qcow2": lambda e, d: _pool(e).create_volume(xml("image", format="qcow2")),
    "vol-upload": lambda e, d: _pool(e).volume("raw").upload(BytesIO(b"data" * 100_000)),
    "vol-upload sparse": lambda e, d: _pool(e).volume("sparse").upload(BytesIO(bytes(MIB)), sparse=True),
    "vol-upload image": lambda e, d: _pool(e).volume("image").upload(BytesIO(_image(d))),
    "vol-clone": lambda e, d: _pool(e).volume("raw").clone("copy"),
    "vol-clone by reading": lambda e, d: _pool(e).volume("raw").clone("copy2", reflink=False),
    "vol-clone to qcow2": lambda e, d: _pool(e).volume("raw").clone(xml("converted", MIB, "qcow2")),
    "vol-clone linked": lambda e, d: _pool(e).volume("image").clone("linked", linked=True),
    "vol-resize": lambda e, d: _pool(e).volume("raw").resize(2 * MIB),
    "vol-resize allocate": lambda e, d: _pool(e).volume("raw").resize(3 * MIB, allocate=True),
    "vol-resize qcow2": lambda e, d: _pool(e).volume("image").resize(2 * MIB),
    "vol-wipe": lambda e, d: _pool(e).volume("raw").wipe(),
    "vol-wipe dod": lambda e, d: _pool(e).volume("copy2").wipe("dod"),
    "vol-wipe qcow2": lambda e, d: _pool(e).volume("converted").wipe(),
    "vol-delete": lambda e, d: _pool(e).volume("copy").delete(),
    "vol-adopt": lambda e, d: _pool(e).volume("raw").adopt("raw"),
    "refresh": lambda e, d: (_stray(d), _pool(e).refresh()),
    "autostart off": lambda e, d: _pool(e).autostart(False),
    "destroy": lambda e, d: _pool(e).destroy(),
    "undefine": lambda e, d: _pool(e).undefine(),
    "define again": lambda e, d: e.define(POOL.format("", d).replace("/images", "/other")),
    "build again": lambda e, d: _pool(e).build(),
    "delete": lambda e, d: _pool(e).delete(),
    "secret-define": lambda e, d: e.define_secret(SECRET),
    "secret-set-value": lambda e, d: e.secret("/v").set_value(b"s"),
    "secret-undefine": lambda e, d: e.secret("/v").undefine(),
}


@pytest.fixture(params=["as it is", "no file without a name", "no RENAME_NOREPLACE"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    if request.param != "as it is":
        monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    if request.param == "no RENAME_NOREPLACE":
        monkeypatch.setattr("poolkit.host.libc.rename_noreplace", _lacking)
    with recording(tmp_path, monkeypatch) as seen:
        yield seen


def _lacking(*_: Any, **__: Any) -> None:
    raise OSError(22, "Invalid argument")


@tools
def test_what_is_done_is_on_the_disk(recorder: Recorder, tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        for name, verb in VERBS.items():
            recorder.passes = name == "vol-wipe dod"
            verb(engine, tmp_path)
            recorder.done(name, formats=name in ("vol-adopt", "refresh"))
    assert len(recorder.paths) > 20, "hardly anything was seen"


def test_a_clone_that_shares_blocks_is_on_the_disk(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is brought there while it is put on record, if nothing has a name yet."""
    share_blocks(monkeypatch)
    begun: list[int] = []
    monkeypatch.setattr("poolkit.host.appearing.begin_sync", lambda fd: begun.append(fd) or descriptors.begin_sync(fd))
    with Engine(tmp_path / "root") as engine:
        for name in ("define", "build", "start", "vol-create", "vol-clone"):
            VERBS[name](engine, tmp_path)
            recorder.done(name)
    assert len(begun) == Files.has_unnamed(engine.core.host.operation().files, Directory(str(tmp_path)))


@tools
@pytest.mark.parametrize(
    "name", ["define", "build", "autostart", "vol-create", "vol-clone", "undefine", "vol-resize allocate"]
)
def test_what_is_undone_is_on_the_disk(name: str, recorder: Recorder, tmp_path: Path) -> None:
    """A verb that fails at any point takes its changes back, on the disk, before its journal goes."""
    armed = count = step = 0

    def fault(label: str) -> None:
        nonlocal count
        if label.startswith("passed:"):
            return
        count += 1
        if armed and count == step:
            raise OSError(5, os.strerror(5))

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        for before, verb in VERBS.items():
            if before == name:
                break
            verb(engine, tmp_path)
        recorder.broken.clear()
        for step in range(1, 100):
            count, armed = 0, 1
            try:
                VERBS[name](engine, tmp_path)
            except errors.HostError:
                recorder.failed(f"{name}, failed at step {step}")
            else:
                recorder.done(f"{name} after that")
                break
    assert step > 2


@tools
def test_a_death_is_undone_on_the_disk(recorder: Recorder, tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        VERBS["define"](engine, tmp_path)
        VERBS["autostart"](engine, tmp_path)
    for step in range(1, 30):
        child = os.fork()
        if not child:
            left = step

            def fault(label: str) -> None:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)

            engine = Engine(tmp_path / "root", host=Host(fault=fault))
            engine.pool("p").undefine()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        recorder.broken.clear()
        recorder.clear()
        with Engine(tmp_path / "root") as engine:
            recorder.done(f"recovery after step {step}")
            if not status:
                break
            VERBS["define"](engine, tmp_path)
            VERBS["autostart"](engine, tmp_path)
            recorder.done(f"the same again after step {step}")
    assert step > 4
