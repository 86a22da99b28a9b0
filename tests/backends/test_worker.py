"""The child process for work that may hang: what it tells its parent, and how it is given up."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host, child, rollback, undo, worker
from poolkit.host import journal as journals
from poolkit.host.directory import Directory
from poolkit.host.journal import Journal
from poolkit.host.mounts import Mount, MountTable, locate

# What the children run: they import this module by its place, as they import poolkit's own.
HERE = f"{__name__}:"


def call(host: Host, name: str, *arguments: Any, **how: Any) -> Any:
    how.setdefault("answers", lambda: True)
    return worker.result(worker.run(host, HERE + name, arguments, **how))


def add(host: Host, one: int, two: int) -> int:
    return one + two


def count(host: Host, number: int) -> Iterator[int]:
    yield from range(number)
    return "counted"


def fail(host: Host, kind: str) -> None:
    if kind == "poolkit":
        raise errors.NoSpace("it is full", pool="p", hint="make room")
    if kind == "system":
        raise FileNotFoundError(2, "No such file or directory", "/x")
    raise ZeroDivisionError("a mistake of ours")


def make(host: Host, folder: str, name: str) -> int:
    with Directory(folder) as directory, host.files.new(directory, name, format="raw") as new:
        os.write(new.fd, b"data")
    host.progress(1, 2, "half")
    host.change(["true"], undo=["false"])
    return os.getpid()


def tell_secret(host: Host) -> bytes:
    return host.secret("ceph", usage="here")


def copy(host: child.Parent, way: str) -> int:
    stream = child.Stream(host)
    if way == "write":
        return stream.write(b"x" * 3_000_000)
    total = 0
    while data := stream.read(700_000):
        total += len(data)
    return total


def read_fd(host: child.Parent) -> bytes:
    return os.pread(host.fds[0], 100, 0)


def open_fds(host: child.Parent) -> list[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.lexists(link))


def plan(host: Host, path: str) -> int:
    host.files.mkdir(path)
    return host.change(["false"]).status


def hang(host: Host, flag: str) -> None:
    Path(f"{flag}.new").write_text(str(os.getpid()))
    os.rename(f"{flag}.new", flag)
    time.sleep(600)


def die(host: Host) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_and_items() -> None:
    assert call(Host(), "add", 2, 3) == 5
    items = []
    work = worker.run(Host(), HERE + "count", (2000,), answers=lambda: True)
    while True:
        try:
            items.append(next(work))
        except StopIteration as stop:
            assert stop.value == "counted"
            break
    assert items == list(range(2000))


def pid(host: Host) -> int:
    return os.getpid()


def how(host: Host) -> str | None:
    host.warn("mind this")
    return host.cautious


def sleep(host: Host) -> None:
    host.change(["sleep", "600"], undo=["true"])


def test_settings_go_there_and_warnings_come_back() -> None:
    host = Host()
    host.cautious = "/x.damaged"
    assert call(host, "how") == "/x.damaged"
    assert host.warnings == ["mind this"]
    host.close()


def test_an_abort_ends_the_programs_of_the_child(tmp_path: Path) -> None:
    host = Host()
    host.journal = Journal(str(tmp_path), "one", {})
    stop = threading.Thread(target=_abort_when_running, args=(host, tmp_path))
    stop.start()
    with pytest.raises(errors.Aborted):
        call(host, "sleep")
    stop.join()
    head = journals.read(str(tmp_path / "one.journal"))[0]
    deadline = time.monotonic() + 30
    while journals.alive(head) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not journals.alive(head)


def rest_slowly(host: Host) -> None:
    clear = threading.Event.clear

    def later(event: threading.Event) -> None:
        time.sleep(0.3)
        clear(event)

    threading.Event.clear = later  # type: ignore[method-assign]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ends by itself is waited for, however late it gets a processor."""
    monkeypatch.setattr(worker, "_FAREWELL", 100)


@pytest.mark.usefixtures("unhurried")
def test_a_child_whose_work_is_told_ends_by_itself() -> None:
    host = Host()
    call(host, "rest_slowly")  # in the child: between its work and its rest there is time to leave it
    (waiting,) = host.children
    host.close()
    assert waiting.status == 0, "it was at rest when it said that it is, and had no work to be killed at"


def _abort_when_running(host: Host, folder: Path) -> None:
    while not (folder / "one.journal").exists() or "running" not in journals.read(str(folder / "one.journal"))[0]:
        time.sleep(0.01)
    host.abort.set()


@pytest.mark.usefixtures("unhurried")
def test_a_fork_does_not_keep_a_waiting_child() -> None:
    host = Host()
    waiting = call(host, "pid")
    ready, done = os.pipe(), os.pipe()
    if not (fork := os.fork()):
        os.close(done[1])
        os.write(ready[1], b"x")
        os.read(done[0], 1)  # until this process is done with it
        os._exit(0)
    os.read(ready[0], 1)
    (child,) = host.children
    host.close()
    assert child.status == 0, "it ended by itself, and was not killed after a while"
    with pytest.raises(ProcessLookupError):
        os.kill(waiting, 0)
    os.close(done[1])
    os.waitpid(fork, 0)
    for fd in (*ready, done[0]):
        os.close(fd)


def test_a_child_waits_for_the_next_call_until_the_host_is_closed(tmp_path: Path) -> None:
    host = Host()
    first = call(host, "pid")
    with pytest.raises(errors.NoSpace):
        call(host.operation(), "fail", "poolkit")
    assert call(host.operation(), "pid") == first
    flag = tmp_path / "flag"
    flag.write_text("x")
    with open(flag, "rb") as file:
        before = call(host, "open_fds")
        assert call(host, "read_fd", fds=[file.fileno()]) == b"x"
    assert call(host, "pid") == first
    assert call(host, "open_fds") == before
    os.kill(first, signal.SIGKILL)  # as one that waited for too long
    second = call(host, "pid")
    assert second != first
    if not (child := os.fork()):
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if call(host, "pid") not in (first, second) else 1
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(host, "pid") == second, "what a forked process does leaves its parent's child alone"
    host.close()
    host.close()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    assert call(host, "add", 1, 1) == 2
    host.close()


def test_errors_are_the_same_here() -> None:
    with pytest.raises(errors.NoSpace, match="it is full") as caught:
        call(Host(), "fail", "poolkit")
    assert (caught.value.pool, caught.value.hint) == ("p", "make room")
    with pytest.raises(FileNotFoundError) as missing:
        call(Host(), "fail", "system")
    assert missing.value.filename == "/x"
    with pytest.raises(ZeroDivisionError) as mistake:
        call(Host(), "fail", "mistake")
    assert "in a child process" in mistake.value.__notes__[0]
    with pytest.raises(errors.HostError, match="died"):
        call(Host(), "die")


def test_the_parent_keeps_journal_plan_and_progress(tmp_path: Path) -> None:
    faults: list[str] = []
    journal = Journal(str(tmp_path), "one", {})
    adopted = []
    reports = []
    host = Host(fault=faults.append).operation(
        journal=journal, progress=lambda done, total, what: reports.append((done, total, what))
    )
    host.on_adopt = lambda name, inode, format: adopted.append((name, inode, format))
    assert call(host, "make", str(tmp_path), "file") != os.getpid()
    made = tmp_path / "file"
    assert made.read_bytes() == b"data"
    assert adopted == [("file", made.stat().st_ino, "raw")]
    assert reports == [(1, 2, "half")]
    assert [str(step) for step in host.plan] == [f"create {made}", "true"]
    with Directory(str(tmp_path)) as directory:
        named = [] if Host().files.has_unnamed(directory) else ["unlink"]
    assert [step.kind for step in journal.steps] == [*named, "unlink", "run"]
    assert f"name {made.name}" in faults
    host.journal = None
    journal.steps.pop()
    rollback.roll_back(journal, host)
    assert not made.exists()


def test_a_fault_in_the_parent_ends_the_child(tmp_path: Path) -> None:
    def fault(label: str) -> None:
        if label.startswith("name"):
            raise OSError(5, "injected")

    with pytest.raises(OSError, match="injected"):
        call(Host(fault=fault), "make", str(tmp_path), "file")
    assert not (tmp_path / "file").exists()


def test_a_dry_run_there_is_one_here(tmp_path: Path) -> None:
    host = Host(dry_run=True)
    assert call(host, "plan", str(tmp_path / "new")) == 0
    assert [str(step) for step in host.plan] == [f"mkdir {tmp_path}/new", "false"]
    assert list(tmp_path.iterdir()) == []


def test_secrets_come_from_the_parent_and_stay_hidden() -> None:
    host = Host()
    host.on_secret = lambda type, uuid, usage: f"secret of {type} {usage}".encode()
    assert call(host, "tell_secret") == b"secret of ceph here"
    assert host.redact("the secret of ceph here is") == "the *** is"


def test_streams_and_descriptors(tmp_path: Path) -> None:
    out = BytesIO()
    assert call(Host(), "copy", "write", stream=out) == 3_000_000
    assert out.getvalue() == b"x" * 3_000_000
    assert call(Host(), "copy", "read", stream=BytesIO(b"y" * 2_500_000)) == 2_500_000
    (tmp_path / "file").write_bytes(b"by number")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert call(Host(), "read_fd", fds=(fd,)) == b"by number"
    finally:
        os.close(fd)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_silence_is_borne_while_the_server_answers(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    answered = []

    def answers() -> bool:
        answered.append(not flag.exists() or len(answered) < 3)
        return answered[-1]

    with pytest.raises(worker.Silent):
        call(Host(), "hang", str(flag), answers=answers, silence=0.3)
    assert answered[:3] == [True] * 3
    assert answered.count(False) == 1
    assert gone(int(flag.read_text()))


def test_an_abort_ends_the_child(tmp_path: Path) -> None:
    host = Host().operation(abort=threading.Event())
    flag = tmp_path / "flag"

    def stop() -> None:
        while not flag.exists():
            time.sleep(0.01)
        host.abort.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(errors.Aborted):
        call(host, "hang", str(flag))
    thread.join()
    assert gone(int(flag.read_text()))


# -- undo on a network file system ------------------------------------------------------------------------------------


class AwayHost(Host):
    """A host on which a directory passes for the mount of a server."""

    def __init__(self, place: Path, **how: Any) -> None:
        super().__init__(**how)
        self.place = place

    def _view(self) -> Host:
        return AwayHost(self.place, dry_run=self.dry_run, fault=self.fault)

    def mounts(self) -> MountTable:
        return MountTable([*super().mounts(), Mount("0:99", "/", str(self.place), "nfs4", "nas:/x", "rw")])


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that need longer to start than a server may be silent."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nsleep 1\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(worker, "SILENCE", 0.3)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.usefixtures("slow")
def test_a_slow_child_is_not_a_dead_server(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.touch()
    assert rollback.undo_all([undo.unlink(str(made))], AwayHost(tmp_path)) == ((), True)
    assert not made.exists()


@pytest.mark.usefixtures("slow")
def test_an_undo_waits_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    made = place / "made"
    journals = tmp_path / "root" / "state" / "journal"
    asked: list[str] = []
    monkeypatch.setattr(worker, "answers", lambda host, path: bool(asked.append(path)))
    with Engine(tmp_path / "root", host=AwayHost(place)) as engine:
        with pytest.raises(errors.HostError) as caught, engine.core.operations.run("p", "test") as op:
            assert op.host.step("make a folder", undo.rmdir(f"{made}.d"))
            assert op.host.step("make it", undo.unlink(str(made)))
            made.touch()
            raise OSError(5, "Input/output error")
        assert asked == [str(place)], "once for all steps"
        hint = caught.value.hint or ""
        assert f"the server of '{place}' does not answer; it is tried again with the next verb on the pool" in hint
        assert [path.suffix for path in journals.iterdir()] == [".journal"]
        # Whoever only opens the engine, or works on another pool, does not wait for the server.
        monkeypatch.setattr(worker, "answers", lambda host, path: pytest.fail("the server was asked"))
        with Engine(tmp_path / "root", host=AwayHost(place)) as other:
            assert other.recovered == []
        with engine.core.operations.run("q", "test"):
            pass
        assert made.exists()
        assert engine.core.operations.waiting() == [str(next(journals.iterdir()))]
        monkeypatch.setattr(worker, "answers", lambda host, path: True)
        with engine.core.operations.run("p", "test"):
            assert not made.exists()
        assert list(journals.iterdir()) == []


# -- the mount table --------------------------------------------------------------------------------------------------


def table(**kinds: str) -> list[Mount]:
    return [Mount("0:1", "/", target, kind, "source", "rw") for target, kind in kinds.items()]


def test_a_path_is_followed_without_touching_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    (tmp_path / "up").symlink_to("../" + tmp_path.name + "/link")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "trap").symlink_to(tmp_path / "real")
    root = Mount("8:1", "/", "/", "ext4", "/dev/sda1", "rw")
    dead = Mount("0:9", "/", f"{tmp_path}/real/deep", "nfs4", "nas:/x", "rw")
    over = Mount("0:10", "/", f"{tmp_path}/trap", "ext4", "/dev/sdb", "rw")
    mounts = [root, dead, over]
    assert locate(f"{tmp_path}/up", mounts) == (f"{tmp_path}/real/deep", dead)
    assert locate(f"{tmp_path}/link/a/../b", mounts) == (f"{tmp_path}/real/deep/b", dead)
    assert locate(f"{tmp_path}/trap/file", mounts) == (f"{tmp_path}/trap/file", over), "a mount point is no link"
    assert locate(f"{tmp_path}/real/x/y", mounts) == (f"{tmp_path}/real/x/y", root)
    assert locate("/", mounts) == ("/", root)
    assert locate("/", []) == ("/", None)
    with pytest.raises(OSError, match="Too many levels"):
        locate(f"{tmp_path}/loop", mounts)
    host = Host()
    host._shared["mounts"] = MountTable(mounts)
    assert host.mount_at(f"{tmp_path}/up") == dead
    assert host.mount_at(f"{tmp_path}/up/inside") is None
