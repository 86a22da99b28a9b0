"""Starting all marked pools: side by side, in the order in which they stand on each other, and past one that hangs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine, autostart, order
from poolkit.host import systemd
from poolkit.state.store import Locations

from ..backends.fuse import mounted
from ..backends.toys.installed import installed
from ..backends.toys.stuck import StuckBackend


def dir_pool(name: str, path: Path | str) -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"


def fs(name: str, device: str, target: str) -> str:
    return (
        f"<pool type='fs'><name>{name}</name><source><device path='{device}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )


def logical(name: str, *devices: str) -> str:
    source = "".join(f"<device path='{one}'/>" for one in devices)
    return f"<pool type='logical'><name>{name}</name><source><name>{name}</name>{source}</source></pool>"


def disk(name: str, device: str) -> str:
    source = f"<source><device path='{device}'/></source>"
    return f"<pool type='disk'><name>{name}</name>{source}<target><path>/dev</path></target></pool>"


def iscsi(name: str, iqn: str) -> str:
    return (
        f"<pool type='iscsi'><name>{name}</name><source><host name='san'/><device path='{iqn}'/></source>"
        "<target><path>/dev/disk/by-path</path></target></pool>"
    )


def planned(engine: Engine, *documents: str) -> order.Plan:
    names = [engine.define(document).name for document in documents]
    return autostart.plan(engine.core, names)


def edges(plan: order.Plan) -> set[tuple[str, str]]:
    return {(name, below) for name, others in plan.stands_on.items() for below in others}


# -- the order ----------------------------------------------------------------------------------------------------------


def test_a_stack_is_started_from_its_bottom(engine: Engine) -> None:
    plan = planned(
        engine,
        dir_pool("a-images", "/srv/guests/images"),
        fs("b-files", "/dev/vg/guests", "/srv/guests"),
        logical("vg", "/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2026-01.org.example:two-lun-1"),
        iscsi("x-one", "iqn.2026-01.org.example:one"),
        iscsi("y-two", "iqn.2026-01.org.example:two"),
    )
    assert edges(plan) == {("a-images", "b-files"), ("b-files", "vg"), ("vg", "y-two")}
    assert plan.names.index("y-two") < plan.names.index("vg") < plan.names.index("b-files")
    assert plan.names.index("b-files") < plan.names.index("a-images")
    assert plan.waits_for["vg"] == {"x-one"}, "one of its disks may have other paths there"
    assert not plan.cycles


@pytest.mark.parametrize(
    ("above", "below", "stands"),
    [
        (dir_pool("a", "/srv/p/x"), fs("b", "/dev/sdb", "/srv/p/"), True),
        (dir_pool("a", "/srv/pool2"), fs("b", "/dev/sdb", "/srv/p"), False),
        (fs("a", "/dev/sdc", "/srv/p/inner"), fs("b", "/dev/sdb", "/srv/p"), True),
        (dir_pool("a", "/srv/p/x"), dir_pool("b", "/srv/p"), False),
        (fs("a", "/dev/mapper/v--g-guests", "/srv/p"), logical("v-g"), True),
        (fs("a", "/dev/mapper/v--gx-guests", "/srv/p"), logical("v-g"), False),
        (fs("a", "/dev/sdb2", "/srv/p"), disk("b", "/dev/sdb"), True),
        (fs("a", "/dev/nvme0n1p2", "/srv/p"), disk("b", "/dev/nvme0n1"), True),
        (fs("a", "/dev/disk/by-id/x-part1", "/srv/p"), disk("b", "/dev/disk/by-id/x"), True),
        (fs("a", "/dev/sdb2", "/srv/p"), disk("b", "/dev/sdbx"), False),
    ],
)  # fmt: skip
def test_what_stands_on_what(engine: Engine, above: str, below: str, stands: bool) -> None:
    plan = planned(engine, above, below)
    (first, second) = sorted(plan.names)
    assert edges(plan) == ({(first, second)} if stands else set())


def test_what_is_on_a_disk_that_may_come_late_waits_for_those_who_find_disks(engine: Engine) -> None:
    plan = planned(
        engine, logical("a"), fs("b", "/dev/disk/by-uuid/1234", "/srv/b"), iscsi("s", "iqn.2026-01.org.example:one"),
        dir_pool("d", "/srv/d"),
    )  # fmt: skip
    assert {name for name, others in plan.waits_for.items() if others} == {"a", "b"}
    assert not edges(plan)


def test_a_circle_is_opened_by_name(engine: Engine) -> None:
    plan = planned(
        engine, fs("c", "/srv/b/image", "/srv/c"), fs("b", "/srv/a/image", "/srv/b"), fs("a", "/srv/c/image", "/srv/a"),
        dir_pool("d", "/srv/c/x"),
    )  # fmt: skip
    assert plan.names == ("a", "b", "c", "d")
    assert plan.cycles == (("a", "b", "c"),)
    assert edges(plan) == {("d", "c")}
    assert plan.warning("b") and "'a', 'b', 'c'" in str(plan.warning("b")) and plan.warning("d") is None


# -- the start ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stuck() -> Iterator[None]:
    yield from installed(StuckBackend)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


class Clock:
    """Time that passes when the test says so: what starts beside one that hangs is never late, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(autostart, "time", clock)
    return clock


def hanging(fifo: Path) -> int:
    """A descriptor that ``fifo`` is written by, made as soon as somebody reads: who does hangs as long as it is open."""
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        time.sleep(0.01)


def mark(engine: Engine, *documents: str) -> None:
    for document in documents:
        engine.define(document).autostart()


def stuck_pool(name: str, how: str, fifo: Path) -> str:
    return f"<pool type='stuck'><name>{name}</name><source><how in='{how}' path='{fifo}'/></source></pool>"


def good(tmp_path: Path, name: str = "good") -> str:
    (tmp_path / name).mkdir()
    return dir_pool(name, tmp_path / name)


@pytest.mark.parametrize("how", ["program", "child"])
@pytest.mark.usefixtures("stuck")
def test_a_start_that_hangs_is_given_up_and_undone(
    engine: Engine, tmp_path: Path, fifo: Path, clock: Clock, how: str
) -> None:
    mark(engine, stuck_pool("hangs", how, fifo), good(tmp_path))
    starting = engine.starting_autostart(deadline=0.5)
    first = next(starting)
    assert (first.pool, first.result) == ("good", "started")
    kept = hanging(fifo)
    clock.now = 0.5
    results = {one.pool: one for one in starting}
    os.close(kept)
    assert results["hangs"].result == "timed-out"
    assert str(results["hangs"].error) == "pool 'hangs' was not up within 0.5 seconds, and its start was given up"
    assert isinstance(results["hangs"].error, errors.Unreachable)
    assert not engine.info("hangs").active and engine.info("good").active
    assert not (tmp_path / "begun-hangs").exists()
    assert not engine.left_over(), "nothing waits for recovery"


@pytest.mark.usefixtures("stuck")
def test_a_start_that_hangs_in_a_system_call_is_left_behind(
    engine: Engine, tmp_path: Path, fifo: Path, clock: Clock
) -> None:
    mark(engine, stuck_pool("hangs", "caller", fifo), good(tmp_path, "later"))
    kept: list[int] = []

    def pass_away() -> None:
        kept.append(hanging(fifo))
        clock.now = 0.5 + autostart.GRACE

    passing = threading.Thread(target=pass_away)
    passing.start()
    results = {one.pool: one for one in engine.starting_autostart(deadline=0.5, at_once=1)}
    passing.join()
    assert (results["hangs"].result, results["later"].result) == ("timed-out", "started")
    assert "left behind" in (results["hangs"].error or errors.PoolkitError("")).hint  # type: ignore[operator]
    (thread,) = [one for one in threading.enumerate() if one.name == "start hangs"]
    os.close(kept[0])  # the storage answers at last
    thread.join()
    assert not engine.info("hangs").active and not (tmp_path / "begun-hangs").exists()


def test_pools_that_stand_on_one_that_failed_are_not_tried(engine: Engine, tmp_path: Path) -> None:
    there = tmp_path / "mount"
    there.mkdir()
    mark(
        engine, fs("below", str(tmp_path / "no-device"), str(there)), dir_pool("above", there / "x"),
        dir_pool("higher", there / "x" / "y"), good(tmp_path),
    )  # fmt: skip
    results = {one.pool: one for one in engine.starting_autostart()}
    assert {name: one.result for name, one in results.items()} == {
        "below": "failed", "above": "skipped", "higher": "skipped", "good": "started",
    }  # fmt: skip
    assert str(results["above"].error) == "pool 'above' was not started: it stands on pool 'below', which is not up"
    assert not engine.info("above").active, "it would list what is under the mount point"


@pytest.mark.usefixtures("stuck")
def test_so_many_at_once_and_no_more(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, most, lock, together = [0], [0], threading.Lock(), threading.Barrier(3, timeout=60)
    start = StuckBackend.start

    def counted(self: StuckBackend) -> None:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        together.wait()  # three are at work at one time, or this breaks
        start(self)
        with lock:
            at_work[0] -= 1

    monkeypatch.setattr(StuckBackend, "start", counted)
    mark(engine, *(stuck_pool(f"p{n}", "nothing", tmp_path / "x") for n in range(9)))
    results = list(engine.starting_autostart(at_once=3))
    assert [one.result for one in results] == ["started"] * 9 and most[0] == 3
    assert [one.result for one in engine.starting_autostart()] == ["unchanged"] * 9


def test_stopping_ends_it(engine: Engine, tmp_path: Path) -> None:
    mark(engine, good(tmp_path))
    engine.host.abort.set()
    (one,) = engine.starting_autostart()
    assert one.result == "skipped" and isinstance(one.error, errors.Aborted)


@pytest.mark.parametrize("numbers", [{"deadline": 0}, {"deadline": float("nan")}, {"at_once": 0}])
def test_numbers_that_mean_nothing_are_refused(engine: Engine, numbers: dict[str, float]) -> None:
    with pytest.raises(errors.InvalidArgument):
        engine.start_autostart(**numbers)  # type: ignore[arg-type]


def test_a_damaged_definition_stops_no_other(engine: Engine, tmp_path: Path) -> None:
    mark(engine, good(tmp_path), good(tmp_path, "bad"))
    Path(engine.core.store.path("bad")).write_text("<pool")
    results = dict(engine.start_autostart())
    assert isinstance(results["bad"], errors.InvalidDefinition) and engine.info("good").active


@pytest.mark.root
def test_the_command_ends_past_a_directory_that_never_answers(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    root = tmp_path / "root"
    with Engine(root) as engine:
        mark(engine, good(tmp_path), dir_pool("bad", tmp_path / "bad"))
    words = ["--root", str(root), "start", "--autostart", "--deadline", "1"]
    # The deadline of the other passes when this one is up.
    code = (
        "from types import SimpleNamespace\n"
        "from poolkit.engine import autostart\n"
        "from poolkit.cli import main\n"
        "autostart.time = clock = SimpleNamespace(now=0, monotonic=lambda: clock.now)\n"
        "run = autostart._Attempt._run\n"
        "def up(attempt):\n"
        "    run(attempt)\n"
        "    clock.now = 1 + autostart.GRACE\n"
        "autostart._Attempt._run = up\n"
        f"raise SystemExit(main({words}))"
    )
    with mounted(tmp_path / "bad", "silent"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == errors.Unreachable.exit_code, done
    assert "pool 'good' is active\n" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "error: of the pools that are marked for autostart: 1 started, 1 given up after its deadline (bad)"
    )
    with Engine(root) as engine:
        assert engine.info("good").active and not engine.info("bad").active


# -- what starts it at boot -----------------------------------------------------------------------------------------------


UNIT = "[Service]\nExecStart=/usr/bin/poolkit --quiet --wait 60 start --autostart\n"


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "units"
    (folder / "multi-user.target.wants").mkdir(parents=True)
    monkeypatch.setattr(systemd, "SYSTEM", (str(folder), str(tmp_path / "vendor")))
    return folder


def enable(units: Path, text: str, name: str = "poolkit-autostart.service") -> None:
    (units / name).write_text(text)
    (units / "multi-user.target.wants" / name).symlink_to(f"../{name}")


def test_only_an_enabled_unit_starts_it(units: Path, tmp_path: Path) -> None:
    system = Locations.choose()
    own = Locations.choose(tmp_path / "own")
    if os.geteuid() == 0:
        assert autostart.starter(system) is None
        (units / "poolkit-autostart.service").write_text(UNIT)
        assert autostart.starter(system) is None, "installed is not enabled"
        enable(units, UNIT)
        assert autostart.starter(system) == "poolkit-autostart.service"
        (units / "poolkit-autostart.service").unlink()
        (units / "poolkit-autostart.service").symlink_to(os.devnull)
        assert autostart.starter(system) is None, "a masked unit starts nothing"
    assert autostart.starter(own) is None
    enable(units, UNIT.replace("start", f"--root {tmp_path / 'own'} start", 1), "own.service")
    assert autostart.starter(own) == "own.service"


def test_what_is_said_when_a_pool_is_marked(engine: Engine, units: Path, tmp_path: Path) -> None:
    pool = engine.define(good(tmp_path))
    assert pool.autostart().message == (
        "pool 'good' is marked for autostart; nothing on this machine starts it at boot (see the manual's page "
        "'Starting pools at boot')"
    )
    enable(units, f"[Service]\nExecStart=poolkit start --autostart --root={tmp_path / 'root'}\n", "b.service")
    assert pool.autostart().message == "pool 'good' is started at boot, by b.service"
    assert pool.autostart(False).message == "pool 'good' is not marked for autostart"
