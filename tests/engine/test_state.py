"""What poolkit keeps must stay right beside other processes, over forks, errors of one moment, and damage."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Recorded, Usage, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.health import examine
from poolkit.host import forks
from poolkit.state import packing
from poolkit.state.database import VERSION
from poolkit.state.inventory import Inventory
from poolkit.state.locks import GATE, Locks
from tests.inventories import OLDEST, age

POOL = "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>"
USAGE = Usage(1, 1, 1)


def _xml(place: Path, name: str = "p") -> str:
    return POOL.format(name, place)


def _number(inventory: Inventory, name: str) -> int:
    record = inventory.record(name)
    assert record is not None
    return record.id


def _first_version(path: Path) -> None:
    """An inventory as the first version of its schema had it: one active pool with one volume."""
    block = packing.encode({"disk": VolumeInfo("disk", "file", "raw", 5, 5, 5, 9, 77)})[4:]  # without a checksum
    db = sqlite3.connect(path)
    db.executescript("""
        PRAGMA journal_mode=WAL;
        CREATE TABLE pools (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL, type TEXT NOT NULL, stamp INTEGER,
            claims TEXT NOT NULL, target TEXT, active INTEGER NOT NULL DEFAULT 0, boot TEXT, live TEXT,
            capacity INTEGER NOT NULL DEFAULT 0, allocation INTEGER NOT NULL DEFAULT 0,
            available INTEGER NOT NULL DEFAULT 0, started REAL, refreshed REAL, error TEXT, trouble TEXT,
            version INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX pools_uuid ON pools (uuid);
        CREATE INDEX pools_target ON pools (target) WHERE target IS NOT NULL;
        CREATE TABLE blocks (id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, first TEXT NOT NULL, volumes BLOB NOT NULL);
        CREATE UNIQUE INDEX blocks_first ON blocks (pool, first);
        CREATE TABLE places (
            pool INTEGER NOT NULL, name TEXT NOT NULL, key TEXT, path TEXT, PRIMARY KEY (pool, name)) WITHOUT ROWID;
        CREATE INDEX places_key ON places (key);
        CREATE INDEX places_path ON places (path);
        CREATE TABLE touched (pool INTEGER NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, at REAL NOT NULL);
        CREATE INDEX touched_version ON touched (pool, version);
        CREATE TABLE formats (place TEXT NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, format TEXT NOT NULL,
            PRIMARY KEY (place, name)) WITHOUT ROWID;
        CREATE TABLE completed (operation TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
        INSERT INTO formats VALUES ('/p', 'gone', 3, 'qcow2');
        PRAGMA user_version=1;
    """)
    db.execute(
        "INSERT INTO pools (name, uuid, type, stamp, claims, target, active, live, boot, version) "
        "VALUES ('p', 'u', 'dir', 1, '[\"directory /p\", \"x\"]', '/p', 1, '<pool/>', 'b', 4)"
    )
    db.execute("INSERT INTO blocks VALUES (1, 1, 'disk', ?)", (block,))
    db.commit()
    db.close()


def test_an_inventory_of_the_first_version_keeps_all_it_knows(tmp_path: Path) -> None:
    _first_version(tmp_path / "i.sqlite")
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    record = inventory.record("p")
    assert record is not None
    assert (record.id, record.active, record.version, record.live) == (1, 1, 4, "<pool/>")
    assert inventory.claims(1) == ["directory /p", "x"]
    assert inventory.claimed(["x"], unless="other") == ("x", "p")
    assert inventory.known(record)[1]["disk"].format == "raw"
    assert inventory.formats("/p") == {"gone": Recorded(3, "qcow2")}
    inventory.close()
    assert not (tmp_path / "i.sqlite-shm").exists(), "no file is mapped any more"


def _shape(path: Path) -> set[tuple[Any, ...]]:
    """Tables with their columns, and indexes, of an inventory; without the order in which columns were added."""
    with closing(sqlite3.connect(path)) as db, db:
        named = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        columns = {(table, *row[1:]) for _, table in named for row in db.execute(f"PRAGMA table_info({table})")}
    return {*named, *columns}


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_inventory_of_any_earlier_version_becomes_one_of_this(version: int, tmp_path: Path) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    Inventory(str(new)).make()
    if version < OLDEST:
        _first_version(old)
    else:
        Inventory(str(old)).make()
        age(old, version)
    assert _shape(old) != _shape(new)
    inventory = Inventory(str(old))
    assert len(inventory.records()) == (version < OLDEST)
    inventory.close()
    assert _shape(old) == _shape(new)


def test_a_number_is_never_given_to_another_pool(tmp_path: Path) -> None:
    numbers = []
    for round in range(2):  # the second time in an inventory that took the place of a lost one
        inventory = Inventory(str(tmp_path / f"{round}.sqlite"))
        inventory.make()
        for name in ("a", "b"):
            inventory.put(name, name, "dir", stamp=1, claims=(), target=None)
            numbers.append(_number(inventory, name))
            inventory.drop(numbers[-1])
    assert len(set(numbers)) == 4


def test_what_was_read_of_a_pool_touches_no_pool_that_came_after_it(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    inventory.make()
    inventory.put("p", "1", "dir", stamp=1, claims=(), target=None)
    old = _number(inventory, "p")
    inventory.drop(old)
    inventory.add_active(("q", "2", "dir", None), (), "<pool/>", "boot", None, [VolumeInfo("v")], USAGE)
    new = _number(inventory, "q")
    with pytest.raises(errors.HostError, match="taken away"):
        inventory.put_volumes(old, [VolumeInfo("w")])
    with pytest.raises(errors.HostError, match="taken away"):
        inventory.save_listing(old, [VolumeInfo("w")], 0, USAGE)
    inventory.drop_volume(old, "v")
    inventory.set_trouble(old, "x")
    inventory.set_inactive(old)
    inventory.drop(old, unless=lambda: False)
    record = inventory.by_id(new)
    assert record is not None
    assert (record.name, record.active, record.trouble) == ("q", 1, None)
    assert [v.name for v in inventory.volumes(new)] == ["v"]


def test_a_child_that_is_forked_beside_writing_threads_works(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 60.0)  # a disk that others write to may take seconds for a commit
    engine.define(_xml(tmp_path / "p")).start(build=True)
    stop = threading.Event()

    def write(number: int) -> None:
        while not stop.is_set():
            engine.core.inventory.set_trouble(_number(engine.core.inventory, "p"), f"{number}")
            with engine.core.locks.work(f"lock{number}", "test"):
                pass

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    ended = []
    try:
        for _ in range(25):
            child = os.fork()
            if not child:
                signal.alarm(120)  # the default action ends a child that hangs
                engine.core.inventory.set_trouble(_number(engine.core.inventory, "p"), "child")
                os._exit(0 if [i.name for i in engine.pools()] == ["p"] else 1)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ended == [0] * 25


def test_a_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    locks = Locks(str(tmp_path))
    read, write = os.pipe()
    with locks.work("p", "work"), locks.definitions():
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    try:
        with locks.definitions(), locks.work("p", "other"):
            pass
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)


def test_a_lock_ends_with_its_owner_though_a_child_lives_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    began, begins = os.pipe()
    owner = os.fork()
    if not owner:
        with Locks(str(tmp_path)).work("p", "work"):
            if os.fork():
                os.read(began, 1)
                os._exit(0)  # as if killed: nothing is let go of
            os.write(begins, b"x")
            os.read(read, 1)
            os._exit(0)
    os.waitpid(owner, 0)
    try:
        with Locks(str(tmp_path)).work("p", "other"):
            pass
    finally:
        os.write(write, b"x")


def test_a_lock_is_given_up_whoever_has_its_descriptor_too(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    forks.hold(fd)
    fcntl.flock(fd, fcntl.LOCK_EX)
    other = os.dup(fd)
    forks.release(fd)
    with open(tmp_path / "lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_work_that_cannot_be_looked_at_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    locks = Locks(str(tmp_path))
    real = os.open

    def fail(path: str, flags: int, *args: int, **more: int) -> int:
        if path == str(tmp_path / "p") if what == "folder" else path.startswith(f"{os.getpid()}-"):
            raise OSError(24, "Too many open files", path)
        return real(path, flags, *args, **more)

    with locks.work("p", "work"), monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(errors.HostError, match="Too many open files"):
            locks.current("p")
        with pytest.raises(errors.HostError, match="Too many open files"), locks.work("p", "other"):
            pass


def test_a_child_made_within_a_verb_takes_nothing_back(tmp_path: Path) -> None:
    kept, me = tmp_path / "kept", os.getpid()
    with Engine(tmp_path / "root") as engine:
        try:
            with engine.core.work("p", "work") as op:
                op.host.files.write(str(kept), b"x")
                op.host.files.mkdir(str(tmp_path / "made"))
                child = os.fork()
                if not child:
                    with pytest.raises(errors.HostError, match="forked while work was being done"):
                        op.host.files.mkdir(str(tmp_path / "other"))
                    raise SystemExit  # through the verb, as the child of a callback would end
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert (tmp_path / "made").is_dir(), "the child undid its parent's work"
                assert len(engine.core.operations.left()) == 1
        finally:
            if os.getpid() != me:
                os._exit(0 if not (tmp_path / "other").exists() else 1)
        assert engine.core.operations.left() == []
    assert kept.exists()


def test_a_journal_ends_with_its_process_though_a_child_lives_on(tmp_path: Path) -> None:
    root, made = tmp_path / "root", tmp_path / "made"
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        engine = Engine(root)
        with engine.core.work("p", "work") as op:
            op.host.files.mkdir(str(made))
            if not os.fork():
                os.write(writing, b"x")
                time.sleep(30)
                os._exit(0)
            os.read(reading, 1)  # the child has begun
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(writing)
    assert made.exists()
    with Engine(root) as engine:
        assert [line.partition(" by ")[0] for line in engine.recovered] == ["undone: work of pool 'p'"]
    assert not made.exists()
    os.close(reading)


def test_who_looks_whether_work_is_dead_keeps_nobody_from_taking_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    if not (child := os.fork()):
        with Engine(tmp_path / "root") as engine, engine.core.work("p", "work") as op:
            op.host.files.mkdir(str(made))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = (tmp_path / "root").rglob("*.journal")
    look = os.open(left, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    sleep = time.sleep

    def looked(seconds: float) -> None:
        fcntl.flock(look, fcntl.LOCK_UN)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", looked)
    with Engine(tmp_path / "root") as engine, engine.core.work("p", "other"):
        assert not made.exists()
    os.close(look)


def test_what_is_read_without_a_file_is_closed_for_all_threads_and_with_each(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "root")
    database = engine.core.inventory.database
    seen: list[sqlite3.Connection] = []
    here, go = threading.Barrier(2), threading.Event()

    def look(stay: bool) -> None:
        assert not engine.pools()
        seen.append(database.connection)
        if stay:
            here.wait()
            go.wait()

    ends = threading.Thread(target=look, args=(False,))
    ends.start()
    ends.join()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        seen[0].execute("SELECT 1")
    stays = threading.Thread(target=look, args=(True,))
    stays.start()
    here.wait()
    look(stay=False)
    seen[1].execute("SELECT 1")
    engine.close()
    go.set()
    stays.join()
    for connection in seen[1:]:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_a_child_made_within_a_transaction_is_told_and_takes_nothing_back(tmp_path: Path) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    with inventory.transaction("one"):
        child = os.fork()
        if not child:
            try:
                inventory.records()
            except errors.HostError as error:
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert inventory.completed("one")


def test_a_gate_that_is_held_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GATE > 1
    monkeypatch.setattr("poolkit.state.locks.GATE", 0.05)
    locks = Locks(str(tmp_path))
    with locks.work("p", "x"):
        pass
    with open(tmp_path / "p" / "gate", "rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(errors.Busy, match="gate"), locks.work("p", "y"):
            pass

        def stop() -> None:
            raise errors.Aborted("stop")

        with pytest.raises(errors.Aborted), locks.work("p", "y", wait=60, check=stop):
            pass


def test_who_comes_later_waits_behind_who_waits(tmp_path: Path) -> None:
    locks = Locks(str(tmp_path))
    entered = threading.Event()

    def pool_wide() -> None:
        with locks.work("p", "start", wait=60):
            entered.set()

    with locks.work("p", "vol", volume="a"):
        thread = threading.Thread(target=pool_wide)
        thread.start()
        while not any(w.ticket for w in locks.current("p")):
            time.sleep(0.001)
        # What this thread does within its work goes on, or both would wait for each other.
        with locks.work("p", "vol", volume="b"):
            pass
        refused: list[str] = []

        def late() -> None:
            try:
                with locks.work("p", "vol", volume="c"):
                    pass
            except errors.Busy as error:
                refused.append(str(error))

        other = threading.Thread(target=late)
        other.start()
        other.join()
        assert "start by process" in refused[0]
        assert "waits its turn" in refused[0]
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()


@pytest.mark.parametrize("name", ["p.gate", "gate", "%definitions", "p.journal", "%definitions.gate"])
def test_no_name_of_a_pool_is_in_the_way_of_another(tmp_path: Path, name: str) -> None:
    locks = Locks(str(tmp_path))
    with locks.work("p", "x"), locks.definitions(), locks.work(name, "y"):
        assert [w.verb for w in locks.current("p")] == ["x"]
        assert [w.verb for w in locks.current(name)] == ["y"]


def test_looking_for_dead_work_is_in_nobodys_way(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolkit.host.undo import Undo

    with engine.core.operations.run("p", "work", volume="v") as op:
        op.journal.append(Undo("unlink", (str(tmp_path / "nothing"),)))
        taken = []
        monkeypatch.setattr(Locks, "work", lambda self, pool, verb, **more: taken.append(verb))
        assert engine.core.operations.recover() == []
        assert taken == []


def test_a_clock_that_is_set_loses_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = Inventory(str(tmp_path / "i.sqlite"))
    inventory.make()
    inventory.put("p", "1", "dir", stamp=1, claims=(), target=None)
    pool = _number(inventory, "p")
    scanned = inventory.version(pool)
    inventory.put_volumes(pool, [VolumeInfo("new")])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 86400)
    inventory.put_volumes(pool, [VolumeInfo("newer")])
    inventory.save_listing(pool, [], scanned, USAGE)  # a scan that began before both
    assert sorted(v.name for v in inventory.volumes(pool)) == ["new", "newer"]


@pytest.mark.parametrize("number", [5, 24])  # EIO, EMFILE
def test_an_error_of_one_moment_makes_no_pool_invalid(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    engine.define(_xml(tmp_path / "p"))
    os.utime(engine.core.store.path("p"))  # so that it has to be read again
    with monkeypatch.context() as patch:

        def fail(name: str) -> None:
            raise errors.from_os_error(OSError(number, os.strerror(number)), "read the definition")

        patch.setattr(engine.core.store, "read_with_stamp", fail)
        info = engine.info("p")
        assert info.state == "inactive"
        assert os.strerror(number) in info.reason
        with pytest.raises(errors.PoolkitError):
            engine.define(_xml(tmp_path / "p", "q"))
    assert engine.info("p").reason == ""
    with pytest.raises(errors.Conflict):
        engine.define(_xml(tmp_path / "p", "q"))


@pytest.mark.parametrize("before", [False, True])
def test_a_definition_that_was_refused_has_not_taken_effect(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    if before:
        engine.define(_xml(tmp_path / "old"))
    text = engine.core.store.read("p") if before else None
    with monkeypatch.context() as patch:

        def fail(*args: object, **more: object) -> None:
            raise errors.NoSpace("the disk is full")

        patch.setattr(engine.core.inventory, "put", fail)
        with pytest.raises(errors.NoSpace):
            engine.define(_xml(tmp_path / "new"))
    if text is None:
        assert engine.pools() == []
    else:
        assert engine.core.store.read("p") == text
        assert engine.info("p").target == str(tmp_path / "old")
    assert [n for n in os.listdir(engine.core.store.directory) if n.startswith(".")] == []
    assert engine.define(_xml(tmp_path / "new")).outcome
    assert [n for n in os.listdir(engine.core.store.directory) if n.startswith(".")] == []


def _damage(root: Path, offset: int) -> None:
    db = sqlite3.connect(root / "state" / "inventory.sqlite")
    (block,) = db.execute("SELECT volumes FROM blocks").fetchone()
    torn = bytearray(block)
    torn[offset] ^= 0x40
    db.execute("UPDATE blocks SET volumes = ?", (bytes(torn),))
    db.commit()
    db.close()


@pytest.mark.parametrize("offset", [0, 5, 30, -3])
def test_a_damaged_listing_is_told_and_made_anew(tmp_path: Path, offset: int) -> None:
    root = tmp_path / "root"
    with Engine(root) as engine:
        pool = engine.define(_xml(tmp_path / "p"))
        pool.start(build=True)
        (tmp_path / "p" / "disk").write_bytes(bytes(1 << 16))
        pool.refresh()
    _damage(root, offset)
    with Engine(root) as engine:
        pool = engine.pool("p")
        assert engine.core.inventory.damaged_pools() == ["p"]
        for look in (pool.volumes, lambda: pool.volume("disk")):
            with pytest.raises(errors.HostError, match="damaged") as caught:
                look()
            assert "engine.pool('p').refresh()" in str(caught.value.hint)
        pool.refresh()
        assert [v.name for v in pool.volumes()] == ["disk"]
        assert engine.core.inventory.damaged_pools() == []
        assert engine.core.inventory.damaged is not None, "formats that were on record in it are not guessed"


def test_an_interrupted_part_is_counted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two lines of the part's beginning: no later fork waits for a part that has ended."""

    class Interrupted(threading.Condition):
        def __exit__(self, *how: object) -> None:
            super().__exit__(*how)
            self.__class__ = threading.Condition  # once
            raise KeyboardInterrupt

    monkeypatch.setattr(forks, "_turn", Interrupted())
    with pytest.raises(KeyboardInterrupt), forks.undivided():
        pass
    began = threading.Event()

    def fork() -> None:
        if not (child := os.fork()):
            os._exit(1 if forks._cut else 0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            began.set()

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert began.is_set(), "a fork of another thread waited, and was told that a part was cut"


def test_no_fork_cuts_the_look_at_the_inventory(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    forked = threading.Event()
    real = sqlite3.connect

    def connect(*what: Any, **how: Any) -> sqlite3.Connection:
        if "mode=ro" in what[0]:
            thread = threading.Thread(target=fork, daemon=True)
            thread.start()
            assert not forked.wait(0.2), "a child was made with a connection that is being opened"
            threads.append(thread)
        return real(*what, **how)

    def fork() -> None:
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
        forked.set()

    threads: list[threading.Thread] = []
    monkeypatch.setattr(sqlite3, "connect", connect)
    found = [one.status for one in examine(opened=lambda: engine) if one.name == "inventory"]
    assert found == ["ok"]
    assert forked.wait(30)
    assert len(threads) == 1
