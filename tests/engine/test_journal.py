"""The journal holds whole lines or says that it could not be written; its reader makes the best of any file."""

from __future__ import annotations

import errno
import fcntl
import inspect
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolkit import errors
from poolkit.engine import Engine, operation
from poolkit.host import Host, libc, rollback, undo
from poolkit.host import journal as journals

STEP = undo.Undo("unlink", ("/nowhere/a",))


def new(folder: Path) -> journals.Journal:
    return journals.Journal(str(folder / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG], ids=errno.errorcode.get)
def test_a_line_that_fails_at_any_length_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # five thousand of them would take a while
    write = os.write
    left = 0

    def nearly_full(fd: int, data: Any) -> int:
        nonlocal left
        if not left:
            raise OSError(number, os.strerror(number))
        count = write(fd, memoryview(data)[:left])
        left -= count
        return count

    for length in range(300):
        place = tmp_path / str(length)
        journal = new(place)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", nearly_full)
            written = []
            for step in (STEP, undo.Undo("rmdir", ("/nowhere/b",))):
                left = 10_000 if step is STEP and length > 150 else length
                try:
                    journal.append(step)
                    written.append(step)
                except OSError as error:
                    assert error.errno == number
                assert Path(journal.path).read_bytes().endswith(b"\n") or not written
                assert journals.read(journal.path)[1] == written == journal.steps
            left = length % 60
            before = Path(journal.path).read_bytes()
            try:
                journal.running(4711)
            except OSError:
                assert Path(journal.path).read_bytes() == before
            else:
                assert journals.read(journal.path)[0].get("running") == 4711
        journal.append(undo.Undo("rmdir", ("/nowhere/c",)))  # there is room again
        head, steps = journals.read(journal.path)
        assert steps == [*written, undo.Undo("rmdir", ("/nowhere/c",))] and head["pool"] == "p"
        rollback.roll_back(journal, Host())
        assert list((place / "journal").iterdir()) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
def test_on_a_full_file_system_a_step_of_any_length_is_whole_or_refused(small: Path) -> None:
    refused = 0
    for length in (*range(1, 5000, 7), *range(15_000, 17_000, 3)):
        journal = new(small)
        journal.append(STEP)
        long = undo.Undo("unlink", ("/" + "x" * length,))
        try:
            journal.append(long)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            refused += 1
        assert journals.read(journal.path)[1] == journal.steps == [STEP, long][: len(journal.steps)]
        if len(journal.steps) == 1:  # what is shorter fits all the same
            journal.append(undo.Undo("rmdir", ("/nowhere",)))
            assert journals.read(journal.path)[1] == journal.steps and len(journal.steps) == 2
        rollback.complete(journal)
    assert refused > 100


def test_what_cannot_be_journalled_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals.Journal, "append", _full)
    host = Host().operation(journal=new(tmp_path))
    with pytest.raises(OSError, match="No space"):
        host.change(["touch", f"{tmp_path}/made"], undo=["true"])
    with pytest.raises(OSError, match="No space"):
        host.files.mkdir(f"{tmp_path}/made")
    assert not (tmp_path / "made").exists()


def test_a_program_that_could_not_be_journalled_fails_the_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals.Journal, "running", _full)
    host = Host().operation(journal=new(tmp_path))
    with pytest.raises(OSError, match="No space"):
        host.change(["touch", f"{tmp_path}/made"], undo=["rm", "-f", "--", f"{tmp_path}/made"])
    with pytest.raises(OSError, match="No space"):
        host.change(["sleep", "300"])
    assert host.journal is not None
    assert rollback.roll_back(host.journal, host) == []
    assert not (tmp_path / "made").exists()


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# -- reading ----------------------------------------------------------------------------------------------------------

LINES = [json.dumps(["unlink", f"/nowhere/{n}", [1, n]]).encode() for n in range(6)]
HEAD = json.dumps({"pool": "p", "verb": "test", "volume": None, "id": "x", "pid": 1, "since": 1.5}).encode()
DAMAGE = st.one_of(
    st.sampled_from(
        [b"", b"[", b"5", b"null", b"[]", b"[5]", b"[" * 100_000, b"\xff\xfe", b"\0" * 80, b'"x"', b"1" * 5000]
    ),
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"?")),
)

KEYS = ["pool", "pid", "running", "until", "later", "mount", "id", "x"]


def _is_line(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], str))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(0, 6), DAMAGE, max_size=4), st.integers(0, 400), st.booleans())
def test_a_damaged_line_hides_no_other(tmp_path: Path, damage: dict[int, bytes], cut: int, torn: bool) -> None:
    lines = [damage.get(n, line) for n, line in enumerate([HEAD, *LINES])]
    data = b"\n".join(lines) + b"\n"
    if torn:
        data = data[: max(0, len(data) - cut)]
    path = tmp_path / "j"
    path.write_bytes(data)
    steps = journals.read(str(path))[1]
    left = data.removesuffix(b"\n").split(b"\n")
    whole = [undo.Undo(v[0], tuple(v[1:])) for v in map(json.loads, filter(_is_line, left)) if isinstance(v, list)]
    assert [s for s in steps if s.kind != "damaged"] == whole
    bad = [n for n, line in enumerate(left[:-1], 1) if not _is_line(line)]
    assert [s.args[0] for s in steps if s.kind == "damaged"] == bad


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_a_head_of_any_values_can_be_used(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "j"
    path.write_text(json.dumps(facts) + "\n")
    head = journals.read(str(path))[0]
    assert journals.alive(head) in (True, False)
    assert isinstance(head.get("pool", ""), str) and isinstance(head.get("mount", ""), str)


def test_a_damaged_line_is_reported_and_the_others_are_undone(tmp_path: Path) -> None:
    folder = tmp_path / "root/state/journal"
    with Engine(tmp_path / "root") as engine:
        engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/x</path></target></pool>").build()
    for name in ("a", "b"):
        (tmp_path / name).touch()
    steps = [json.dumps(["unlink", f"{tmp_path}/a"]), "[torn", json.dumps(["unlink", f"{tmp_path}/b"])]
    (folder / "x.journal").write_text("\n".join([HEAD.decode(), *steps]) + "\n")
    (folder / "x.journal").chmod(0o600)
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered[0].startswith("undone: test of pool 'p'")
        assert "line 3 of the journal is damaged" in engine.recovered[1]
        assert engine.core.operations.failed() == [f"{folder}/x.journal.failed"]
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize("data", [b"", HEAD[:20], HEAD[:20] + b"\0" * 40], ids=["empty", "torn", "zeros"])
def test_a_journal_whose_process_died_before_its_first_step_goes(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "root/state/journal"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "x.journal").write_bytes(data)
    (folder / "x.journal").chmod(0o600)
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == []
    assert list(folder.iterdir()) == []


def test_a_journal_that_does_not_say_whose_it_is_is_put_aside(tmp_path: Path) -> None:
    folder = tmp_path / "root/state/journal"
    folder.mkdir(mode=0o700, parents=True)
    (tmp_path / "a").touch()
    (folder / "x.journal").write_text("torn\n" + json.dumps(["unlink", f"{tmp_path}/a"]) + "\n")
    (folder / "x.journal").chmod(0o600)
    with Engine(tmp_path / "root") as engine:
        assert "is damaged" in engine.recovered[0]
    assert (tmp_path / "a").exists()
    assert [p.name for p in folder.iterdir()] == ["x.journal.failed"]


def test_a_journal_that_was_taken_for_a_dead_one_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = journals.fcntl.flock
    taken = []

    def flock(fd: int, how: int) -> None:
        if not taken:
            taken.append(os.readlink(f"/proc/self/fd/{fd}"))
            os.unlink(taken[0])
        real(fd, how)

    journal = new(tmp_path)
    monkeypatch.setattr(journals.fcntl, "flock", flock)
    journal.append(STEP)
    assert taken and journals.read(journal.path)[1] == [STEP]
    rollback.complete(journal)


def test_what_another_process_has_taken_back_meanwhile_is_not_undone_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root/state/journal"
    folder.mkdir(mode=0o700, parents=True)
    path = folder / "x.journal"
    path.write_text(HEAD.decode() + "\n" + json.dumps(["unlink", f"{tmp_path}/a"]) + "\n")
    path.chmod(0o600)
    (tmp_path / "a").touch()  # made by somebody after that
    real = fcntl.flock

    def flock(file: Any, how: int) -> None:
        if getattr(file, "mode", "") == "rb":
            path.unlink(missing_ok=True)  # the other process has just ended
        real(file, how)

    monkeypatch.setattr(operation.fcntl, "flock", flock)
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == []
    assert (tmp_path / "a").exists() and not path.exists()


def test_errors_of_the_disk_become_those_of_poolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals.Journal, "append", _full)
    with Engine(tmp_path / "root") as engine:
        with pytest.raises(errors.NoSpace):
            engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/x</path></target></pool>")


def test_a_program_of_another_boot_is_not_alive(tmp_path: Path) -> None:
    journal = new(tmp_path)
    journal.append(STEP)
    journal.running(os.getpid())
    head = journals.read(journal.path)[0]
    assert head["boot"] == undo.boot() and journals.alive(head)
    assert not journals.alive({**head, "boot": "that of another boot"})
    del head["boot"]  # as an earlier version wrote it
    assert journals.alive(head)
    journal.close()


# -- undo steps -------------------------------------------------------------------------------------------------------


def test_each_kind_has_its_fields_and_its_function() -> None:
    assert rollback._ACTS.keys() == undo.KINDS.keys()
    for kind, act in rollback._ACTS.items():
        names = [str(p).partition(":")[0] for p in inspect.signature(act).parameters.values()]
        assert names == ["host", *undo.KINDS[kind][0].split()], kind


# Written by version 0.1.0 as it was before steps had named fields. The lines stay as they are.
OLD = """\
{"pool": "p", "verb": "test", "volume": null, "id": "0123456789abcdef", "pid": 4711, "since": 1764360000.25}
["run", "touch", "HERE/ran"]
["run-if", ["echo", "yes"], "yes\\n", ["touch", "HERE/ran-if"]]
["run-if", ["echo", "no"], "yes\\n", ["touch", "HERE/never"]]
["run-if", ["echo", "yes"], "yes", ["tee", "HERE/input"], "text"]
["write-back", ["echo", "no"], "yes", "/dev/null", [[0, "eJxjYGBgAAAABAAB"]]]
["unmount", "HERE/folder", "/dev/nothing"]
{"running": 4711, "until": 1}
["unlink", "HERE/file"]
["unlink", "HERE/whole", WHOLE, "BOOT"]
["unlink", "HERE/kept", WHOLE, "BOOT"]
["rmdir", "HERE/folder"]
["chmod", "HERE/mode", 416, MODE]
["chown", "HERE/mode", OWNER, GROUP, MODE]
["symlink", "target", "HERE/link"]
["unsymlink", "target", "HERE/new-link"]
["restore", "HERE/.poolkit-0011223344556677", "HERE/removed"]
["trim", "HERE/long", LONG, 4096]
"""


def test_a_journal_of_an_earlier_version_is_undone(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "folder").mkdir()
    for name in ("file", "whole", "kept", "mode", ".poolkit-0011223344556677", "long"):
        (here / name).touch()
    (here / "new-link").symlink_to("target")
    with (here / "long").open("r+b") as file:
        file.truncate(4096)
        libc.fallocate(file.fileno(), libc.FALLOC_FL_KEEP_SIZE, 4096, 1 << 20)
    words = {
        "HERE": str(here), "WHOLE": _identity(here / "whole"), "MODE": _identity(here / "mode"), "BOOT": undo.boot(),
        "LONG": _identity(here / "long"), "OWNER": str(os.getuid()), "GROUP": str(os.getgid()),
    }  # fmt: skip
    text = OLD
    for word, real in words.items():
        text = text.replace(word, real)
    folder = tmp_path / "root/state/journal"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "0123456789abcdef.journal").write_text(text)
    (folder / "0123456789abcdef.journal").chmod(0o600)
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == ["undone: test of pool 'p' by process 4711"]
    names = {"ran", "ran-if", "input", "kept", "mode", "link", "removed", "long"}
    assert {p.name for p in here.iterdir()} == names
    assert (here / "input").read_text() == "text" and os.readlink(here / "link") == "target"
    assert (here / "mode").stat().st_mode & 0o7777 == 0o640
    assert (here / "long").stat().st_blocks <= 8
    assert list(folder.iterdir()) == []


def _identity(path: Path) -> str:
    return json.dumps(undo.identity(path.stat()))


@pytest.mark.parametrize("kind", undo.KINDS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_step_with_any_values_does_no_more_than_fail(kind: str, data: st.DataObject) -> None:
    value = (
        st.none() | st.integers() | st.just("/nowhere/x") | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    )
    if kind.startswith("run"):
        value = st.none() | st.integers() | st.just("no such program") | st.just(["no such program"])
    step = undo.Undo(kind, tuple(data.draw(st.lists(value, max_size=5))))
    assert str(step)
    for failure in rollback.undo_all([step], Host()).failures:
        assert failure.startswith("could not undo")


# -- whose file it is -------------------------------------------------------------------------------------------------


def test_a_journal_of_that_name_is_another_s(tmp_path: Path) -> None:
    journal = new(tmp_path)
    path = Path(journal.path)
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    with pytest.raises(FileExistsError):
        journal.append(STEP)
    assert path.read_bytes() == b"" and journal.steps == []


def test_nothing_is_noted_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    link = tmp_path / "x.journal"
    link.symlink_to("victim")
    journals.put_aside(str(link), later=True)
    assert (tmp_path / "victim").read_text() == "precious"
