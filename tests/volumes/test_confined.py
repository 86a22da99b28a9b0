"""No header decides what a tool opens: neither one that was there when it was examined nor one put in after that."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host, confine

from .conftest import MIB, RecordingHost, content, make, put, xml

MARKER = b"what only root may read\n" * 2000
_IN_OPEN = 0x20  # linux/inotify.h
landlock = pytest.mark.skipif(not confine.abi(), reason="this kernel has no Landlock")
tools = pytest.mark.tools("qemu-img", "prlimit")


class Watched:
    """What a hostile header may name, and whether anybody opens it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file, self.fifo = folder / "shadow", folder / "fifo"
        self.file.write_bytes(MARKER)
        os.mkfifo(self.fifo)
        # Held open, so that who opens it does not wait for ever.
        self._fifo = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._libc = ctypes.CDLL(None)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in (self.file, self.fifo):
            assert self._libc.inotify_add_watch(self._inotify, os.fsencode(path), _IN_OPEN) > 0
        self.names = {
            "file": str(self.file),
            "fifo": str(self.fifo),
            "address": f"nbd://127.0.0.1:{self._listener.getsockname()[1]}/",
        }

    def forget(self) -> None:
        """Forget what was opened so far."""
        try:
            while os.read(self._inotify, 4096):
                pass
        except BlockingIOError:
            pass

    def untouched(self) -> bool:
        """Whether nothing was opened or connected to since, and the file is as it was."""
        touched, _, _ = select.select([self._inotify, self._listener], [], [], 0)
        return not touched and self.file.read_bytes() == MARKER

    def close(self) -> None:
        """Give everything back."""
        os.close(self._inotify)
        os.close(self._fifo)
        self._listener.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(tmp_path / "others")
    yield found
    found.close()


def backed(folder: Path, name: str, format: str = "qcow2") -> bytes:
    """An empty image that names a backing image."""
    path = folder / "made"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", format, "-u", "-b", name, "-F", "raw", "--", path, str(MIB)], check=True
    )
    return path.read_bytes()


def with_data_file(folder: Path, name: str) -> bytes:
    """An empty image that keeps its data in another file."""
    path, data = folder / "made", folder / "data"
    options = f"data_file={data},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "--", path, str(MIB)], check=True)
    subprocess.run(["qemu-img", "amend", "-f", "qcow2", "-o", f"data_file={name}", "--", path], check=True)
    return path.read_bytes()


VERBS: dict[str, Callable[[Volume], object]] = {
    "grow": lambda v: v.resize(4 * MIB),
    "shrink": lambda v: v.resize(MIB // 2, shrink=True),
    "clone larger": lambda v: v.clone(xml("clone", 4 * MIB, "qcow2")),
    "convert": lambda v: v.clone(xml("clone", None, "raw")),
    "convert larger": lambda v: v.clone(xml("clone", 4 * MIB, "qcow2", target="<clusterSize unit='B'>4096</clusterSize>")),
}  # fmt: skip


@tools
@pytest.mark.parametrize("confined", [True, False], ids=["confined", "by its nodes alone"])
@pytest.mark.parametrize("named", ["file", "fifo", "address"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_an_image_stands_on_is_not_opened(
    pool: Pool, engine: Engine, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, named: str,
    confined: bool,
) -> None:  # fmt: skip
    if not confined:
        monkeypatch.setattr(confine, "restrict", lambda *_: None)
    volume = put(pool, "disk", backed(tmp_path, watched.names[named]))
    ran = []

    def started(label: str) -> None:
        if label == "qemu-img":
            ran.append(label)
            watched.forget()

    engine.host.fault = started
    try:
        VERBS[verb](volume)
    except errors.PoolkitError as error:
        assert verb != "shrink", error
    else:
        assert verb == "shrink", "an image that grows or is read needs to be trusted as far down as it goes"
    assert watched.untouched() or not ran
    assert [v.name for v in pool.volumes()] == ["disk"]


@tools
@pytest.mark.parametrize("confined", [True, False], ids=["confined", "by its nodes alone"])
@pytest.mark.parametrize("named", ["file", "fifo", "address"])
@pytest.mark.parametrize("verb", ["grow", "shrink", "convert"])
def test_a_backing_image_put_in_after_the_examination_is_not_opened(
    pool: Pool, engine: Engine, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, named: str,
    confined: bool,
) -> None:  # fmt: skip
    if not confined:
        monkeypatch.setattr(confine, "restrict", lambda *_: None)
    _race(pool, engine, watched, verb, backed(tmp_path, watched.names[named]))


@tools
@landlock
@pytest.mark.parametrize("verb", ["grow", "shrink", "convert"])
def test_a_data_file_put_in_after_the_examination_is_not_opened(
    pool: Pool, engine: Engine, watched: Watched, tmp_path: Path, verb: str
) -> None:
    _race(pool, engine, watched, verb, with_data_file(tmp_path, watched.names["file"]))


@tools
@pytest.mark.parametrize("verb", ["grow", "shrink", "convert"])
def test_without_landlock_a_tool_gets_a_copy_of_what_others_can_write(
    pool: Pool, engine: Engine, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(confine, "abi", lambda: 0)
    hostile = with_data_file(tmp_path, watched.names["file"])
    volume = make(pool, "disk", "qcow2")
    os.chmod(volume.path, 0o666)
    pool.refresh()
    _race(pool, engine, watched, verb, hostile, done=True)
    engine.host.fault = None
    assert {p.name for p in Path(volume.path).parent.iterdir()} <= {"disk", "clone"}


def _race(pool: Pool, engine: Engine, watched: Watched, verb: str, hostile: bytes, done: bool = False) -> None:
    volume = pool.volume("disk") if done else make(pool, "disk", "qcow2")
    turns = []

    def swap(label: str) -> None:
        if label == "qemu-img":
            with open(volume.path, "r+b") as file:
                file.write(hostile)
            watched.forget()
            turns.append(label)

    engine.host.fault = swap
    try:
        made = VERBS[verb](volume)
    except errors.PoolkitError:
        pass
    else:
        assert not isinstance(made, Volume) or MARKER[:20] not in content(made)
    assert turns, "the race was not run"
    assert watched.untouched()


@tools
def test_a_trusted_chain_is_what_an_overlay_grows_on(pool: Pool, host: RecordingHost) -> None:
    """What was beyond the overlay's end in the base must read as zeros when the overlay reaches there."""
    base = make(pool, "base", "raw", 4 * MIB)
    with open(base.path, "r+b") as file:
        file.write(b"x" * 4 * MIB)
    pool.refresh()
    overlay = pool.volume("base").clone("overlay", linked=True)
    end = MIB + 512  # within a cluster
    overlay.resize(end, shrink=True)
    overlay.resize(3 * MIB)
    flat = content(overlay.clone(xml("flat", None, "raw")))
    assert flat[:end] == b"x" * end and flat[end:] == bytes(3 * MIB - end)
    larger = overlay.clone(xml("larger", 4 * MIB, "qcow2"))
    flat = content(larger.clone(xml("flat2", None, "raw")))
    assert flat[:end] == b"x" * end and flat[end:] == bytes(4 * MIB - end)
    assert {argv[1] for argv in host.calls} >= {"create", "resize", "convert"}


# -- the confinement itself -----------------------------------------------------------------------------------------


def ask(script: str, *fds: int) -> str:
    """What a shell prints that is run as a tool for untrusted images; its errors count as words, too."""
    done = Host().query(["bash", "-c", script], ok=range(256), untrusted=True, pass_fds=fds)
    return done.stdout + done.stderr


@landlock
def test_a_confined_program_opens_nothing_by_name(watched: Watched, tmp_path: Path) -> None:
    assert "denied" in ask(f"cat {watched.file}")
    assert "denied" in ask(f"cat /proc/{os.getpid()}/root{watched.file}")
    assert "denied" in ask(f"echo x >>{watched.file}")
    assert "denied" in ask(f"echo x >{tmp_path}/new")
    assert "denied" in ask(f"rm {watched.file}")
    assert "denied" in ask(f"ls {tmp_path}")
    assert watched.untouched() and not (tmp_path / "new").exists()
    assert MARKER.decode() not in ask(f"cat {watched.file}")


@landlock
@pytest.mark.root
@pytest.mark.parametrize(
    "folder", ["/usr", "/etc", "/etc/ssl", "/etc/ssl/private", "/usr/local/etc", "/root", "/var/lib"]
)
def test_a_confined_program_sees_no_folder_that_may_hold_what_is_roots(folder: str) -> None:
    if Path(folder).is_dir():
        assert "denied" in ask(f"ls {folder}")


@landlock
def test_a_confined_program_opens_again_what_it_was_given_and_no_more(watched: Watched) -> None:
    reading = os.open(watched.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert ask(f"cat /proc/self/fd/{reading}", reading) == MARKER.decode()
        assert "denied" in ask(f"echo x >>/proc/self/fd/{reading}", reading)
        assert "denied" in ask(f"cat {watched.fifo}", reading)
    finally:
        os.close(reading)
    writing = os.open(watched.file, os.O_RDWR | os.O_CLOEXEC)
    try:
        assert ask(f"echo x >/proc/self/fd/{writing}", writing) == ""
    finally:
        os.close(writing)
    assert watched.file.read_bytes() == b"x\n"


@pytest.mark.skipif(confine.abi() < 4 and os.geteuid() != 0, reason="neither root nor rules for TCP in this kernel")
def test_a_confined_program_has_no_network(watched: Watched) -> None:
    _, port = watched.names["address"].rsplit(":", 1)
    said = ask(f"exec 3<>/dev/tcp/127.0.0.1/{port.strip('/')} && echo connected")
    assert "connected" not in said and "/dev/tcp" in said
    assert watched.untouched()


@landlock
def test_a_confined_program_runs_only_what_is_installed(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    assert "ran" not in ask(str(program))


@landlock
def test_only_the_program_is_confined_and_not_this_process(watched: Watched) -> None:
    ask("true")
    assert watched.file.read_bytes() == MARKER
    assert Host().query(["cat", "--", str(watched.file)]).stdout == MARKER.decode()


def test_a_program_that_cannot_be_confined_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "abi", lambda: 1)
    monkeypatch.setattr(confine, "RESTRICT_SELF", -1)
    monkeypatch.setattr(confine, "CREATE_RULESET", -1)
    with pytest.raises(errors.HostError, match="could not be confined"):
        Host().query(["true"], untrusted=True)
