"""Many processes on one root: no lost definition, no inconsistent state, and refusals that name the holder."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import private

PROCESSES = 8
VERBS = 200


def _xml(place: str, name: str) -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{place}/{name}</path></target></pool>"


def _worker(place: str, seed: int, failures: multiprocessing.Queue[str]) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "c"]
    try:
        with Engine(f"{place}/root", wait=60) as engine:
            # A pool of this process's own must survive everything the others do.
            own = engine.define(_xml(place, f"own{seed}"))
            for _ in range(VERBS):
                name = chance.choice(names)
                verb = chance.randrange(10)
                try:
                    if verb == 0:
                        engine.define(_xml(place, name))
                    elif verb == 1:
                        engine.pool(name).undefine()
                    elif verb == 2:
                        engine.pool(name).start(build=True)
                    elif verb == 3:
                        engine.pool(name).destroy()
                    elif verb in (4, 5):
                        size = chance.randrange(1, 9999)
                        engine.pool(name).create_volume(
                            f"<volume><name>v{chance.randrange(8)}</name><capacity>{size}</capacity></volume>"
                        )
                    elif verb == 6:
                        engine.pool(name).volume(f"v{chance.randrange(8)}").delete()
                    elif verb == 7:
                        engine.pool(name).refresh()
                    elif verb == 8:
                        engine.pool(name).autostart(chance.random() < 0.5)
                    else:
                        assert f"own{seed}" in [p.name for p in engine.pools()], "my own pool is gone"
                except (errors.NotFound, errors.AlreadyExists, errors.InvalidState):
                    pass  # another process was faster
                except errors.Unsafe as error:
                    if "was replaced since" not in str(error):  # deleted and made anew between look-up and lock
                        raise
                except errors.HostError as error:
                    # A pool that is redefined and not built has no directory yet.
                    if "does not exist" not in str(error):
                        raise
            assert own.info.persistent
    except BaseException as error:
        failures.put(f"process {seed}: {type(error).__name__}: {error}")
        raise


@pytest.mark.timeout(280)
def test_eight_processes_end_in_a_consistent_state(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=_worker, args=(str(tmp_path), n, failures)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    problems = []
    while not failures.empty():
        problems.append(failures.get())
    assert problems == []
    assert [w.exitcode for w in workers] == [0] * PROCESSES
    with Engine(tmp_path / "root") as engine:
        pools = {p.name: p for p in engine.pools()}
        assert {f"own{n}" for n in range(PROCESSES)} <= set(pools)
        assert len({p.uuid for p in pools.values()}) == len(pools)
        for name, info in pools.items():
            assert info.state in ("active", "inactive")
            pool = engine.pool(name)
            assert pool.definition(inactive=True).name == name
            if info.active:
                listed = {v.name: v.info.capacity for v in pool.volumes()}
                real = {e.name: e.stat().st_size for e in os.scandir(tmp_path / name)}
                assert listed == real
        assert engine.core.locks.current("a") == []
        assert not [p for p in (tmp_path / "root").rglob("*") if ".poolkit-" in p.name or ".journal" in p.name]
        engine.core.store.autostart_names()


def test_a_refusal_names_the_work_and_waiting_helps(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(_xml(str(tmp_path), "p"))
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.core.locks.work("p", "vol-wipe", volume="big"):
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert entered.wait(60)
        with pytest.raises(errors.Busy) as caught:
            pool.build()
        assert str(caught.value).startswith(f"pool 'p' is busy: vol-wipe of volume 'big' by process {os.getpid()} (")
        assert "wait=" in (caught.value.hint or "")
        assert caught.value.exit_code == 7
        assert [(w.verb, w.volume) for w in engine.core.locks.current("p")] == [("vol-wipe", "big")]
        # Reading waits for nobody, and other pools do not know.
        assert engine.pools()[0].name == "p"
        assert engine.define(_xml(str(tmp_path), "q")).build()
        threading.Timer(0.2, leave.set).start()
        assert pool.build(wait=60)
    finally:
        leave.set()
        holder.join()


def test_work_on_different_volumes_runs_at_once(engine: Engine, tmp_path: Path) -> None:
    locks = engine.core.locks
    with locks.work("p", "vol-wipe", volume="a"):
        with locks.work("p", "vol-wipe", volume="b"), locks.work("p", "refresh", shared=True):
            pass
        with pytest.raises(errors.Busy), locks.work("p", "vol-resize", volume="a"):
            pass
        with pytest.raises(errors.Busy), locks.work("p", "destroy"):
            pass
    with locks.work("p", "vol-clone", volume="a", shared=True):
        with locks.work("p", "vol-download", volume="a", shared=True):
            pass
        with pytest.raises(errors.Busy), locks.work("p", "vol-delete", volume="a"):
            pass


def test_the_lock_of_a_dead_process_holds_nobody_up(engine: Engine) -> None:
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with engine.core.locks.work("p", "start"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)  # never answered: killed here
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(errors.Busy, match=f"start by process {child}"), engine.core.locks.work("p", "destroy"):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    with engine.core.locks.work("p", "destroy"):
        assert [w.pid for w in engine.core.locks.current("p")] == [os.getpid()]
    for fd in (*ready, *go):
        os.close(fd)


@pytest.mark.parametrize("name", ["ü" * 100, "a b", "%41", "x" * 200, "名前"])
def test_any_name_can_be_locked(engine: Engine, name: str) -> None:
    with engine.core.locks.work(name, "start"), pytest.raises(errors.Busy), engine.core.locks.work(name, "start"):
        pass
    assert engine.core.locks.current(name) == []


def test_an_abort_ends_the_waiting(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(_xml(str(tmp_path), "p"))
    abort = threading.Event()
    with engine.core.locks.work("p", "build"):
        threading.Timer(0.2, abort.set).start()
        with pytest.raises(errors.Aborted):
            pool.start(wait=60, abort=abort)


def test_a_pool_that_is_gone_leaves_no_lock(engine: Engine, tmp_path: Path) -> None:
    work = Path(engine.core.locks.directory)
    text = f"<pool type='dir'><name>p</name><target><path>{tmp_path}/images</path></target></pool>"
    engine.define(text).undefine()
    engine.create(text, build=True).destroy()
    assert [entry.name for entry in work.iterdir()] == ["%definitions"]
    kept = engine.define(text)
    kept.start()
    kept.destroy()
    assert (work / "p" / "gate").exists(), "a pool that is defined keeps it"


def test_who_waits_at_a_gate_that_is_removed_does_not_hold_nothing(engine: Engine, tmp_path: Path) -> None:
    locks = engine.core.locks
    folder = Path(locks.directory, "p")
    entered, go = threading.Event(), threading.Event()
    held: list[bool] = []

    def wait() -> None:
        with locks._gate(str(folder), 60.0, entered.set):  # asked while it waits
            held.append((folder / "gate").exists())
            with pytest.raises(BlockingIOError), (folder / "gate").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        go.set()

    with locks._gate(str(folder), 0.0, None):
        thread = threading.Thread(target=wait)
        thread.start()
        assert entered.wait(60)
        (folder / "gate").unlink()  # as forget does it
        folder.rmdir()
    thread.join(60)
    assert go.is_set() and held == [True]


def test_a_folder_that_is_removed_while_it_is_made_is_made_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes and removes pools of that name, whose work needs the same folder."""
    locks, make = engine.core.locks, private.make
    removals = ["after it was made", "while it is made"]

    def removed(path: str, mode: int = 0o700) -> None:
        make(path, mode)
        if removals:
            os.rmdir(path)
            if removals.pop() == "while it is made":
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    monkeypatch.setattr(private, "make", removed)
    with locks.work("p", "start"):
        assert [work.verb for work in locks.current("p")] == ["start"]
    assert removals == []


def test_a_folder_that_cannot_be_made_is_an_error(engine: Engine) -> None:
    work = Path(engine.core.locks.directory)
    work.mkdir(mode=0o700, parents=True)
    (work / "p").symlink_to("nowhere")
    with pytest.raises(errors.HostError, match="cannot lock"), engine.core.locks.work("p", "start"):
        pass


def test_a_pool_at_work_is_not_forgotten(engine: Engine) -> None:
    locks = engine.core.locks
    with locks.work("p", "start"):
        locks.forget("p")
        assert [work.verb for work in locks.current("p")] == ["start"]
        with pytest.raises(errors.Busy), locks.work("p", "destroy"):
            pass
    locks.forget("p")
    locks.forget("p")
    assert not Path(locks.directory, "p").exists()
