"""Killed or failing at any step, nothing is half-made, nothing is lost, and the same call succeeds afterwards."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host, rollback, undo
from poolkit.host import journal as journals
from poolkit.state.database import Database
from tests.sweep import Points, Sampled

Verb = Callable[[Engine, Path], object]


def _pool_xml(place: Path, extra: str = "") -> str:
    return f"<pool type='dir'><name>p</name>{extra}<target><path>{place}/images</path></target></pool>"


def _volume_xml(name: str, size: int = 1 << 20) -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"


def _nothing(engine: Engine, place: Path) -> None:
    pass


def _defined(engine: Engine, place: Path) -> None:
    engine.define(_pool_xml(place)).autostart()


def _built(engine: Engine, place: Path) -> None:
    _defined(engine, place)
    engine.pool("p").build()


def _active(engine: Engine, place: Path) -> None:
    _built(engine, place)
    engine.pool("p").start()
    engine.pool("p").create_volume(_volume_xml("old"))


# name -> (what was done before, the verb, what must hold after it succeeded)
VERBS: dict[str, tuple[Verb, Verb, Callable[[Engine], bool]]] = {
    "define": (_nothing, lambda e, d: e.define(_pool_xml(d)), lambda e: not e.pool("p").info.active),
    "redefine": (
        _defined,
        lambda e, d: e.define(_pool_xml(d, "<features><cow state='no'/></features>")),
        lambda e: e.pool("p").definition().cow is False,
    ),
    "build": (_defined, lambda e, d: e.pool("p").build(), lambda e: bool(e.pool("p").start())),
    "start": (_built, lambda e, d: e.pool("p").start(), lambda e: e.pool("p").info.active),
    "refresh": (_active, lambda e, d: e.pool("p").refresh(), lambda e: len(e.pool("p").volumes()) == 1),
    "vol-create": (
        _active,
        lambda e, d: e.pool("p").create_volume(_volume_xml("new")),
        lambda e: e.pool("p").volume("new").info.capacity == 1 << 20,
    ),
    "vol-resize": (
        _active,
        lambda e, d: e.pool("p").volume("old").resize(2 << 20, allocate=True),
        lambda e: e.pool("p").volume("old").look().info.capacity == 2 << 20,
    ),
    "vol-delete": (
        _active,
        lambda e, d: e.pool("p").volume("old").delete(),
        lambda e: e.pool("p").volumes() == [],
    ),
    "destroy": (_active, lambda e, d: e.pool("p").destroy(), lambda e: not e.pool("p").info.active),
    "autostart": (_built, lambda e, d: e.pool("p").autostart(False), lambda e: not e.pool("p").info.autostart),
    "undefine": (_built, lambda e, d: e.pool("p").undefine(), lambda e: e.pools() == []),
    "delete": (_built, lambda e, d: e.pool("p").delete(), lambda e: e.pool("p").build().changed),
}


def _leftovers(place: Path) -> list[str]:
    found = [str(p.relative_to(place)) for p in place.rglob("*") if p.name.startswith(".poolkit-")]
    found += [str(p.relative_to(place)) for p in place.rglob("*.journal*")]
    found += [str(p.relative_to(place)) for p in place.rglob("autostart/*") if not p.exists()]
    # Space that was reserved beyond the end of a volume and is not part of it.
    volumes = [(p, p.stat()) for p in place.glob("images/*")]
    found += [str(p.relative_to(place)) for p, s in volumes if s.st_blocks * 512 > s.st_size + 4096]
    return found


def _run_and_die(place: Path, verb: Verb, step: int | str, passed: Points | None = None) -> bool:
    """Run ``verb`` in a child that is killed at its ``step``-th fault point, or at the one so called; whether it came so far.

    ``passed`` counts the points it came to.
    """
    passed = passed or Points()
    child = os.fork()
    if child == 0:

        def fault(label: str) -> None:
            if step in (passed.add(), label):
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            with Engine(place / "root", host=Host(fault=fault)) as engine:
                verb(engine, place)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, f"the verb failed by itself at step {step}"
    return False


@pytest.mark.parametrize("name", VERBS)
def test_killed_at_every_step(name: str, tmp_path: Path, sampled: Sampled[int]) -> None:
    before, verb, after = VERBS[name]
    for step in sampled(range(1, 200)):
        passed = Points()
        place = tmp_path / str(step)
        place.mkdir()
        with Engine(place / "root") as engine:
            before(engine, place)
            known = [p.name for p in engine.pools()]
        if not _run_and_die(place, verb, step, passed):
            break
        with Engine(place / "root") as engine:
            assert _leftovers(place) == [], f"killed at step {step}"
            if name != "undefine":
                assert set(known) <= {p.name for p in engine.pools()}, f"lost a definition at step {step}"
            for pool in engine.pools():
                assert pool.state in ("active", "inactive")
                if pool.active:
                    listed = {volume.name for volume in engine.pool(pool.name).volumes()}
                    assert listed == set(os.listdir(place / "images")), f"killed at step {step}"
                    engine.pool(pool.name).refresh()
            try:
                verb(engine, place)
            except errors.AlreadyExists:
                assert name == "vol-create"  # it had just come under its name
            except errors.NotFound:
                assert name in ("undefine", "vol-delete")  # it was gone already
            assert after(engine), f"killed at step {step}"
        assert _leftovers(place) == []
    assert passed.count >= (1 if name in ("refresh",) else 2), "the verb has no fault points: nothing was tested"


# Verbs that have both something to undo and something to commit.
COMMITTED = ["define", "redefine", "vol-create", "vol-resize", "undefine"]


@pytest.mark.parametrize("unnamed", [True, False], ids=["no name", "temporary"])
@pytest.mark.parametrize("name", COMMITTED)
def test_what_was_committed_stays_if_its_journal_could_not_end(
    name: str, unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    before, verb, after = VERBS[name]
    with Engine(tmp_path / "root") as engine:
        before(engine, tmp_path)
    assert _run_and_die(tmp_path, verb, "passed: done")
    assert len(list(tmp_path.rglob("*.journal"))) == 1
    with Engine(tmp_path / "root") as engine:
        assert [line.partition(":")[0] for line in engine.recovered] == ["finished"]
        assert _leftovers(tmp_path) == []
        assert after(engine)


def test_killed_while_replacing_a_file_that_cannot_have_two_names(
    tmp_path: Path, sampled: Sampled[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on vfat, and on some file systems of FUSE: the old definition waits as a copy."""

    def link(*names: object, **how: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_killed_at_every_step("redefine", tmp_path, sampled)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL])
def test_a_file_that_cannot_have_two_names_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*names: object, **how: object) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o640)
    monkeypatch.setattr(os, "link", link)
    journal = journals.Journal(str(tmp_path / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})
    host = Host().operation(journal=journal)
    if number == errno.EINVAL:
        with pytest.raises(OSError, match="Invalid argument"):
            host.files.replace(str(file), b"new")
    else:
        host.files.replace(str(file), b"new")
        assert file.read_text() == "new"
        rollback.roll_back(journal, host)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("old", 0o640)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".poolkit-")] == []


def test_killed_at_every_step_where_no_file_can_be_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampled: Sampled[int]
) -> None:
    monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    test_killed_at_every_step("vol-create", tmp_path, sampled)


def test_a_file_that_was_whole_when_the_power_failed_stays_and_keeps_its_format(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        _active(engine, tmp_path)
        engine.pool("p").volume("old").upload(BytesIO(b"QFI\xfb\0\0\0\3" + bytes(504)))  # what a guest may write
    assert _run_and_die(tmp_path, lambda e, _: e.pool("p").volume("old").clone("new"), "fsync directory of new")
    (journal,) = tmp_path.rglob("*.journal")
    text = journal.read_text()
    assert undo.boot() in text
    journal.write_text(text.replace(undo.boot(), "that of another boot"))
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == []
        assert _leftovers(tmp_path) == []
        engine.pool("p").refresh()
        assert {v.name: v.info.format for v in engine.pool("p").volumes()} == {"new": "raw", "old": "raw"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", VERBS)
def test_failing_at_every_step(name: str, number: int, tmp_path: Path, sampled: Sampled[int]) -> None:
    before, verb, after = VERBS[name]
    for step in sampled(range(1, 200)):
        place = tmp_path / str(step)
        place.mkdir()
        count = 0
        armed = True

        def fault(label: str) -> None:
            nonlocal count
            if label.startswith("passed:"):
                return  # nothing can fail there
            count += 1
            if armed and count == step:  # noqa: B023 - called within this turn of the loop
                raise OSError(number, os.strerror(number))

        with Engine(place / "root") as engine:
            before(engine, place)
        with Engine(place / "root", host=Host(fault=fault)) as engine:
            try:
                verb(engine, place)
            except errors.HostError as error:
                failed = True
                assert os.strerror(number) in str(error)
                kinds = {errno.ENOSPC: errors.NoSpace, errno.EACCES: errors.PermissionDenied}
                assert type(error) is kinds.get(number, errors.HostError)
            else:
                failed = False
            armed = False
            points = count
            assert _leftovers(place) == [], f"failed at step {step}"
            if name == "undefine" and failed:
                assert [p.autostart for p in engine.pools()] == [True], f"failed at step {step}"
            try:
                verb(engine, place)
            except errors.AlreadyExists:
                assert name == "vol-create"
            except errors.NotFound:
                assert name in ("undefine", "vol-delete")
            assert after(engine), f"failed at step {step}"
        if not failed:
            break
    assert points > 0


def test_what_an_undo_could_not_do_is_done_by_the_next_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(tmp_path / "root") as engine:
        _active(engine, tmp_path)
    unlink = os.unlink
    away = True

    def read_only(path: str, **how: int) -> None:
        if away and not str(path).endswith(".journal"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, **how)

    def fault(label: str) -> None:
        if away and label == "fsync directory of new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", read_only)
            with pytest.raises(errors.HostError, match="Input/output error") as caught:
                engine.pool("p").create_volume(_volume_xml("new"))
        assert "Read-only file system; it is tried again" in str(caught.value.hint)
        assert "Errno" not in str(caught.value.hint)
        assert engine.core.operations.failed() == [] and len(engine.core.operations.waiting()) == 1
        assert [v.name for v in engine.pool("p").volumes()] == ["old"]
        away = False
        engine.pool("p").volume("old").resize(2 << 20)
        assert _leftovers(tmp_path) == []
        assert os.listdir(tmp_path / "images") == ["old"]


def test_a_journal_that_cannot_be_removed_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(tmp_path / "root") as engine:
        _active(engine, tmp_path)

    def fault(label: str) -> None:
        if label == "fsync directory of new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def stuck(path: str, *, on_disk: bool = True) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("poolkit.host.journal.remove", stuck)
            with pytest.raises(errors.HostError, match="Input/output error") as caught:
                engine.pool("p").create_volume(_volume_xml("new"))
        assert "could not be removed yet: Read-only file system" in str(caught.value.hint)
    with Engine(tmp_path / "root"):
        assert _leftovers(tmp_path) == []


def test_a_commit_that_took_effect_and_says_that_it_failed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(tmp_path / "root") as engine:
        _active(engine, tmp_path)
        commit = Database._commit
        seen = {ident for (ident,) in engine.core.inventory.database.rows("SELECT operation FROM completed")}

        def last_step_fails(db: sqlite3.Connection, until: float) -> None:
            new = {ident for (ident,) in db.execute("SELECT operation FROM completed")} - seen
            seen.update(new)
            commit(db, until)
            if new:
                raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "_commit", staticmethod(last_step_fails))
            engine.pool("p").create_volume(_volume_xml("new"))
            assert engine.pool("p").volume("old").delete().warnings == ()
        assert [volume.name for volume in engine.pool("p").volumes()] == os.listdir(tmp_path / "images") == ["new"]


def test_a_volume_that_is_removed_and_not_for_good_is_listed_no_more(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        _active(engine, tmp_path)

    def fault(label: str) -> None:
        if label == "fsync directory of old":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        with pytest.raises(errors.HostError, match="Input/output error"):
            engine.pool("p").volume("old").delete()
        assert engine.pool("p").volumes() == []


@pytest.mark.parametrize("point", ["rename p.xml", "fsync directory of p.xml"])
def test_a_file_is_known_again_when_its_device_has_another_number_after_a_boot(tmp_path: Path, point: str) -> None:
    with Engine(tmp_path / "root") as engine:
        _defined(engine, tmp_path)
        before = engine.pool("p").xml(inactive=True)
    assert _run_and_die(tmp_path, VERBS["redefine"][1], point)
    (journal,) = tmp_path.rglob("*.journal")
    device = os.stat(journal).st_dev
    text = journal.read_text().replace(undo.boot(), "that of another boot")
    assert f"[{device}, " in text
    journal.write_text(text.replace(f"[{device}, ", f"[{device + 7}, "))
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered != [] and _leftovers(tmp_path) == []
        assert engine.pool("p").xml(inactive=True) == before
