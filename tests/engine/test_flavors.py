"""Flavors: which backend is chosen, what is passed over, what ends the search, and many processes at once."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolkit import errors
from poolkit.backends.dir import DirBackend
from poolkit.engine import Engine, placing
from poolkit.engine.policies import Facts, Request, may_fit, order, room, why_not
from poolkit.host import journal
from poolkit.state.locks import Locks, Work
from poolkit.state.placements import Ledger, Placement
from tests.backends.loops import sh

SIZE = 64 << 10
POLICIES = ("first-fit", "most-free", "best-fit", "round-robin")


@settings(max_examples=60, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), max_size=6), st.sampled_from(POLICIES)
)
def test_policies_try_each_backend_once_and_a_lower_priority_first(
    drawn: list[tuple[int, int, int]], policy: str
) -> None:
    those = [
        Facts(f"p{at}", at, priority, total=20, free=free, provisioned=used)
        for at, (priority, free, used) in enumerate(drawn)
    ]
    request = Request(1, 1)
    found = order(policy, those, request, "p1")
    assert sorted(found) == sorted(those)
    assert [one.priority for one in found] == sorted(one.priority for one in those)
    for before, after in itertools.pairwise(found):
        if before.priority != after.priority:
            continue
        has = room(before, request), room(after, request)
        assert policy != "most-free" or has[0] >= has[1]
        assert policy != "best-fit" or has[0] <= has[1]
        assert policy != "first-fit" or before.place < after.place
        assert policy != "round-robin" or (before.place <= 1, before.place) < (after.place <= 1, after.place)


def test_room_of_thin_and_thick_volumes() -> None:
    facts = Facts("p", total=1000, free=700, provisioned=400, promised=50, promised_space=20, ratio=2.0, reserve=10)
    assert room(facts, Request(100, 100)) == min(700 - 100 - 20, 1000 - 100 - 400 - 50)
    thin = facts._replace(thin=True)
    assert room(thin, Request(100, 0)) == 2 * 900 - 400 - 50
    assert room(thin, Request(100, 0), promised=False) == 2 * 900 - 400
    assert why_not(thin, Request(1350, 0)) == "" and "room for 1350" in why_not(thin, Request(1351, 0))
    assert "581 bytes of space" in why_not(thin, Request(1000, 581)) and not why_not(thin, Request(1000, 580))
    assert why_not(Facts("unknown"), Request(1 << 60, 0)) == ""
    # What others have taken and may give back again stands in nobody's way for good, what is listed does.
    taken = Facts("p", total=1000, free=0, promised=600, promised_space=600)
    assert may_fit(taken, Request(500, 500)) and not may_fit(taken._replace(provisioned=600), Request(500, 500))


def volume(name: str, capacity: int = SIZE, allocation: int | None = None) -> str:
    said = "" if allocation is None else f"<allocation>{allocation}</allocation>"
    return f"<volume><name>{name}</name><capacity>{capacity}</capacity>{said}</volume>"


def flavor(*backends: str, more: str = "") -> str:
    return f"<flavor><name>gold</name>{more}{''.join(f'<backend pool={b}/>' for b in backends)}</flavor>"


@pytest.fixture
def pools(engine: Engine, tmp_path: Path) -> Callable[..., None]:
    def make(*names: str) -> None:
        for name in names:
            target = f"<target><path>{tmp_path / name}/images</path></target>"
            pool = engine.define(f"<pool type='dir'><name>{name}</name>{target}</pool>")
            pool.build()
            pool.start()

    return make


def failing(pool: str, fault: errors.PoolkitError) -> Callable[..., object]:
    """A ``create`` that raises ``fault`` in one pool."""
    make = DirBackend.create

    def create(self: DirBackend, *args: object, **how: object) -> object:
        if self.pool.name == pool:
            raise fault
        return make(self, *args, **how)

    return create


FAULTS = [
    errors.NoSpace("it is full"), errors.Unreachable("no answer"), errors.Unsupported("not here"), errors.Busy("at work"),
    errors.ToolFailed("the program failed"), errors.PermissionDenied("read-only"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.code)
def test_what_a_backend_cannot_do_goes_to_the_next(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fault: errors.PoolkitError
) -> None:
    pools("a", "b")
    gold = engine.flavors.define(flavor("'a'", "'b'"))
    monkeypatch.setattr(DirBackend, "create", failing("a", fault))
    assert gold.create_volume(volume("v")).pool.name == "b"
    assert Ledger(engine.core.inventory.database).promised() == {}
    engine.pool("b").destroy()
    with pytest.raises(errors.NotPlaced) as refused:
        gold.create_volume(volume("w"))
    assert [(pool, code) for pool, code, _ in refused.value.backends] == [("a", fault.code), ("b", "invalid-state")]
    assert str(fault) in str(refused.value)


@pytest.mark.parametrize("fault", [errors.InvalidArgument("no"), errors.Unsafe("no"), errors.SecretNotFound("no")])
def test_what_is_wrong_with_the_volume_ends_the_search(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fault: errors.PoolkitError
) -> None:
    pools("a", "b")

    def create(self: DirBackend, *args: object, **how: object) -> object:
        raise fault

    monkeypatch.setattr(DirBackend, "create", create)
    with pytest.raises(type(fault)):
        engine.flavors.define(flavor("'a'", "'b'")).create_volume(volume("v"))
    assert Ledger(engine.core.inventory.database).promised() == {}


def test_a_refused_login_marks_the_backend_until_it_is_refreshed(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools("a", "b")
    gold = engine.flavors.define(flavor("'a'", "'b'"))
    with monkeypatch.context() as patch:
        patch.setattr(DirBackend, "create", failing("a", errors.LoginRefused("wrong password")))
        made = gold.create_volume(volume("v"))
    assert made.pool.name == "b" and made.outcome is not None and "wrong password" in made.outcome.warnings[0]
    assert gold.create_volume(volume("w")).pool.name == "b"  # it is not tried again, although it would work
    assert ["wrong password" in one.why for one in gold.explain()] == [False, True]
    engine.pool("a").refresh()
    assert gold.create_volume(volume("x")).pool.name == "a"


def test_a_name_is_free_in_no_backend_that_has_it(engine: Engine, pools: Callable[..., None], tmp_path: Path) -> None:
    pools("a", "b", "c")
    gold = engine.flavors.define(flavor("'a'", "'b'", "'c' drained='yes'"))
    (tmp_path / "b/images/behind").touch()  # not listed
    engine.pool("c").create_volume(volume("down"))
    engine.pool("c").destroy()
    for name, pool in (("behind", "b"), ("down", "c")):
        with pytest.raises(errors.VolumeExists, match=f"in pool '{pool}'"):
            gold.create_volume(volume(name))


def test_needs_and_drained_backends(engine: Engine, pools: Callable[..., None]) -> None:
    pools("a", "b")
    gold = engine.flavors.define(flavor("'a' drained='yes'", "'b'"))
    assert gold.create_volume(volume("v")).pool.name == "b"
    shared = engine.flavors.define(
        "<flavor><name>s</name><requires><capability name='shared'/></requires><backend pool='b'/></flavor>"
    )
    with pytest.raises(errors.NotPlaced, match="do not offer: shared"):
        shared.create_volume(volume("w"))


def test_a_flavor_in_use_is_not_deleted_nor_loses_the_backend(engine: Engine, pools: Callable[..., None]) -> None:
    pools("a", "b")
    gold = engine.flavors.define(flavor("'a'", "'b'"))
    made = gold.create_volume(volume("v"))
    with pytest.raises(errors.HasDependents, match="'v' in pool 'a'"):
        gold.delete()
    with pytest.raises(errors.HasDependents, match="a backend less"):
        engine.flavors.define(flavor("'b'"))
    made.delete()
    engine.pool("a").create_volume(volume("v"))  # another volume of that name is not the flavor's
    assert gold.volumes() == [] and gold.delete() and not gold.delete()
    with pytest.raises(errors.FlavorNotFound):
        engine.flavors.get("gold")


def test_clones_and_imports_fall_through_and_a_stream_is_read_once(
    engine: Engine, pools: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools("a", "b", "c")
    gold = engine.flavors.define(flavor("'a'", "'b'"))
    image = tmp_path / "image"
    image.write_bytes(b"content" * 100)
    source = engine.pool("c").import_volume("source", image)
    clone = DirBackend.clone

    def full(self: DirBackend, *args: Any, **how: Any) -> Any:
        if self.pool.name == "a":
            raise errors.NoSpace("it is full")
        return clone(self, *args, **how)

    monkeypatch.setattr(DirBackend, "clone", full)
    document = "<volume><name>v</name><capacity>4096</capacity></volume>"
    made = [
        gold.create_volume_from("u", source), gold.create_volume_from(document, source), gold.import_volume("w", image),
        gold.create_volume_from("x", source, linked=True),
    ]  # fmt: skip
    assert [(one.name, one.pool.name, one.info.capacity) for one in made] == [
        ("u", "b", 700), ("v", "b", 4096), ("w", "b", 700), ("x", "b", 1024)
    ]  # fmt: skip
    assert gold.volumes() == [("b", name) for name in "uvwx"]
    with pytest.raises(errors.NoSpace):
        gold.import_volume("y", BytesIO(b"once"))
    with pytest.raises(errors.NotPlaced) as refused:
        gold.import_volume("y", image, capacity=1 << 60)
    assert [code for _, code, _ in refused.value.backends] == ["no-space", "no-space"]
    assert Ledger(engine.core.inventory.database).promised() == {}
    monkeypatch.undo()
    assert gold.import_volume("y", BytesIO(b"once")).pool.name == "a"


def test_the_reservation_of_a_dead_process_ends(engine: Engine, pools: Callable[..., None]) -> None:
    pools("a")
    gold = engine.flavors.define(flavor("'a'"))
    ledger, record = Ledger(engine.core.inventory.database), engine.core.record("a")
    dead = subprocess.Popen(["true"])
    dead.wait()
    everything = (1 << 62, 1 << 62)
    assert ledger.reserve(Placement("gold", "x"), (record.id, "a"), "w", dead.pid, everything, {}, {})
    assert gold.explain(SIZE)[0].turn == 0
    assert gold.create_volume(volume("v")).pool.name == "a" and ledger.promised() == {}


EVERYTHING = (1 << 62, 1 << 62)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that placing sees; the test moves them on."""
    now = [0.0]
    monkeypatch.setattr(placing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_volumes_of_others_are_waited_for_as_long_as_they_come_and_go(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    pools("a")
    gold = engine.flavors.define(flavor("'a'"))
    ledger, pool = Ledger(engine.core.inventory.database), (engine.core.record("a").id, "a")
    with ExitStack() as others:
        others.enter_context(engine.core.locks.work("%placing", "vol-create", volume="other"))

        def next_one(turn: int) -> None:
            with engine.core.inventory.database.transaction() as db:
                db.execute("DELETE FROM reservations")
            placement = Placement("gold", f"{turn}")
            assert ledger.reserve(placement, pool, "other", os.getpid(), (turn, EVERYTHING[1]), {}, {})

        def wait(seconds: float) -> bool:
            clock[0] += 8
            turns.append(len(turns) + 1)
            if len(turns) < 6:
                next_one(len(turns))
            else:
                others.close()  # it dies and leaves its reservation
            return False

        turns: list[int] = []
        next_one(0)
        monkeypatch.setattr(engine.core.host.abort, "wait", wait)
        assert gold.create_volume(volume("v")).pool.name == "a"
        assert len(turns) == 6 and clock[0] > 4 * placing.PATIENCE and ledger.promised() == {}


def test_what_might_fit_is_not_refused_when_others_stand_still(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    pools("a")
    gold = engine.flavors.define(flavor("'a'"))
    ledger, pool = Ledger(engine.core.inventory.database), (engine.core.record("a").id, "a")
    with engine.core.locks.work("%placing", "vol-create", volume="other"):
        assert ledger.reserve(Placement("gold", "x"), pool, "other", os.getpid(), EVERYTHING, {}, {})
        monkeypatch.setattr(engine.core.host.abort, "wait", lambda seconds: clock.__setitem__(0, clock[0] + 1))
        with pytest.raises(errors.Busy, match="'v' beside volumes that other processes are making"):
            gold.create_volume(volume("v"))
        assert placing.PATIENCE < clock[0] < placing.PATIENCE + 3
        assert len(ledger.promised()) == 1


def test_a_reservation_that_is_made_while_the_dead_are_looked_for_stays(
    engine: Engine, pools: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools("a")
    gold = engine.flavors.define(flavor("'a'"))
    ledger, pool = Ledger(engine.core.inventory.database), (engine.core.record("a").id, "a")
    assert ledger.reserve(Placement("gold", "dead"), pool, "dead", 0, (1, 1), {}, {})
    current = type(engine.core.locks).current

    def reserved_meanwhile(locks: Locks, name: str) -> list[Work]:
        found = current(locks, name)
        seen = ledger.promised()
        assert ledger.reserve(Placement("gold", "new"), pool, "new", os.getpid(), (7, 7), {}, seen)
        return found

    monkeypatch.setattr(Locks, "current", reserved_meanwhile)
    gold.create_volume(volume("v"))
    assert ledger.promised() == {pool[0]: (7, 7)}


CHILD = """
import json, sys
from poolkit import errors
from poolkit.engine import Engine
root, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stop = int(sys.argv[4]) if len(sys.argv) > 4 else 0
with Engine(root, wait=60) as engine:
    gold, told = engine.flavors.get("gold"), []
    for number in range(first, first + count):
        try:
            made = gold.create_volume(f"<volume><name>v{number}</name><capacity>65536</capacity></volume>")
            told.append([made.name, made.pool.name, []])
        except errors.NotPlaced as error:
            told.append([f"v{number}", "", [code for _, code, _ in error.backends]])
        if number == first + stop - 1:
            print("so many", file=sys.stderr, flush=True)
        if number == first + 2 * stop - 1:
            sys.stdin.readline()
    print(json.dumps(told))
"""


@contextmanager
def mounted(places: list[Path], size: int) -> Iterator[None]:
    try:
        for place in places:
            place.mkdir()
            sh("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
        yield
    finally:
        for place in places:
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.parametrize("killed", [False, True], ids=["whole", "one backend killed midway"])
def test_many_processes_fill_the_backends_exactly(
    engine: Engine, pools: Callable[..., None], tmp_path: Path, killed: bool
) -> None:
    names = ["a", "b", "c"]
    stop = ["15"] if killed else []
    with mounted([tmp_path / name for name in names], 100 * SIZE):
        pools(*names)
        engine.flavors.define(flavor(*(f"'{name}'" for name in names), more="<policy type='round-robin'/>"))
        call = [sys.executable, "-c", CHILD, str(tmp_path / "root")]
        children = [
            subprocess.Popen(
                [*call, str(at * 50), "50", *stop], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            )
            for at in range(8)
        ]  # fmt: skip
        kept = os.open(tmp_path / "b", os.O_RDONLY)  # what was killed can be looked at
        try:
            if killed:
                # None makes more than 30 before it goes: 240 leave room everywhere, and one has made 15.
                assert children[0].stderr is not None
                assert children[0].stderr.readline() == "so many\n"
                sh("umount", "-l", str(tmp_path / "b"))
                for child in children:
                    assert child.stdin is not None
                    child.stdin.write("go on\n")
                    child.stdin.flush()
            ended = [child.communicate(timeout=200) for child in children]
            assert [child.returncode for child in children] == [0] * 8, [said for _, said in ended]
            told = [one for out, _ in ended for one in json.loads(out)]
            there = {name: set(os.listdir(tmp_path / name / "images")) for name in ("a", "c")}
            fd = os.open("images", os.O_RDONLY, dir_fd=kept)
            there["b"] = set(os.listdir(fd))
            os.close(fd)
        finally:
            os.close(kept)
    made = [(name, pool) for name, pool, _ in told if pool]
    assert len(told) == 400 and len({name for name, _ in made}) == len(made)
    # What was begun on the file system that went away, and failed, can be taken back only there.
    there["b"] -= {journal.read(path)[0]["volume"] for path in engine.core.operations.waiting()}
    assert there == {pool: {name for name, where in made if where == pool} for pool in names}
    refusals = [why for _, pool, why in told if not pool]
    assert len(there["a"]) == len(there["c"]) == 100
    if killed:
        assert 0 < len(there["b"]) < 100
        assert all(
            why[0] == why[2] == "no-space" and why[1] in ("invalid-state", "host-error", "no-space") for why in refusals
        )
    else:
        assert len(made) == 300 and refusals == [["no-space"] * 3] * 100


def test_two_processes_place_one_name_once(engine: Engine, pools: Callable[..., None], tmp_path: Path) -> None:
    pools("a", "b")
    engine.flavors.define(flavor("'a'", "'b'", more="<policy type='round-robin'/>"))
    code = CHILD.replace("errors.NotPlaced as error", "errors.VolumeExists").replace(
        "[code for _, code, _ in error.backends]", "[]"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "root"), "0", "5"]
    children = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    told = [one for child in children for one in json.loads(child.communicate(timeout=100)[0])]
    assert sorted(name for name, pool, _ in told if pool) == [f"v{number}" for number in range(5)]
