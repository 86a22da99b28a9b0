"""Flavors over repositories: any number of processes, each with a root of its own, and what the hosts tell is what there is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.engine import Engine, marking, placing
from poolkit.families.xapi import marks
from poolkit.host import Host
from tests.backends.xensm import MIB, pool_of, prepare, volume_of
from tests.backends.xensm.server import calls
from tests.sweep import setting
from tests.xapi import Xapi

pytestmark = pytest.mark.tools("qemu-img")
SIZE, TAKEN = 4 * MIB, 8 * MIB  # of a disk in logical volumes: with the tables of its VHD it takes two extents
BACKENDS = ("a", "b", "c")
FLAVOR = f"<flavor><name>gold</name><policy type='{{}}'/>{''.join(f'<backend pool={n!r}/>' for n in BACKENDS)}</flavor>"


def pool(xapi: Any, name: str) -> str:
    """A repository of logical volumes on a device of its own."""
    return pool_of(xapi, "lvm", {"device": f"/dev/{name}"}, name=name)


def rooted(folder: Path, xapi: Any, policy: str = "round-robin") -> Engine:
    """An engine of a new root with the pools, active, and the flavor."""
    engine = Engine(folder)
    prepare(engine, xapi)
    for name in BACKENDS:
        engine.define(pool(xapi, name)).start(build=True)
    engine.flavors.define(FLAVOR.format(policy))
    return engine


@pytest.fixture
def two(tmp_path: Path, xapi: Any) -> Iterator[tuple[Engine, Engine]]:
    """Two roots with the same flavor."""
    with rooted(tmp_path / "one", xapi) as one, rooted(tmp_path / "two", xapi) as other:
        yield one, other


def disks(xapi: Any) -> list[tuple[str, str, dict[str, str]]]:
    """Repository, label and other-config of all disks that there are."""
    with calls(xapi) as api:
        names = {ref: sr["name_label"] for ref, sr in api.call("SR.get_all_records").items()}
        found = api.call("VDI.get_all_records").values()
        return sorted((names[one["SR"]], one["name_label"], one["other_config"]) for one in found)


def test_what_one_root_has_placed_is_the_flavors_in_every_root(two: tuple[Engine, Engine], xapi: Any) -> None:
    one, other = two
    made = one.flavors.get("gold").create_volume(volume_of("v", SIZE))
    gold = other.flavors.get("gold")
    assert gold.volumes() == [(made.pool.name, "v")]
    with pytest.raises(errors.VolumeExists):
        gold.create_volume(volume_of("v", SIZE))
    with pytest.raises(errors.HasDependents):
        gold.delete()
    made.pool.create_volume(volume_of("no flavor's", SIZE))
    made.clone("linked", linked=True)
    made.clone("v@1", linked=True)
    made.clone("copy")
    assert gold.volumes() == [(made.pool.name, "v")]  # and no copy of it
    other.pool(made.pool.name).refresh()
    other.pool(made.pool.name).volume("v").delete()
    assert one.flavors.get("gold").volumes() == [], "although it is listed there still"
    xapi.fault("session.login_with_password", "http")
    assert one.flavors.get("gold").volumes() == [(made.pool.name, "v")], "what this root knows, where nobody answers"


def test_room_is_what_the_hosts_say_and_not_what_this_root_lists(two: tuple[Engine, Engine]) -> None:
    one, other = two
    before = {verdict.facts.pool: verdict.facts for verdict in other.flavors.get("gold").explain(SIZE)}
    one.pool("b").create_volume(volume_of("v", SIZE))
    after = {verdict.facts.pool: verdict.facts for verdict in other.flavors.get("gold").explain(SIZE)}
    assert before["a"] == after["a"]
    assert after["b"].provisioned - before["b"].provisioned == SIZE
    assert before["b"].free - after["b"].free == TAKEN


def test_of_two_disks_of_one_name_that_are_there_at_once_one_stays(
    two: tuple[Engine, Engine], xapi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither saw the name when it began, and both have a disk before either looks for others."""
    for engine, first in zip(two, ("a", "c"), strict=True):
        others = "".join(f"<backend pool='{name}' priority='{int(name != first)}'/>" for name in BACKENDS)
        engine.flavors.define(f"<flavor><name>gold</name>{others}</flavor>")
    monkeypatch.setattr(placing, "_require_free_name", lambda *_: None)
    both, settle = threading.Barrier(2, timeout=60), marking.settle
    keys: list[str] = []

    def at_once(core: Any, backend: Any, info: Any, placed: Any) -> None:
        keys.append(str(info.key))
        both.wait()
        settle(core, backend, info, placed)

    monkeypatch.setattr(marking, "settle", at_once)
    made: list[str] = []
    refused: list[errors.PoolkitError] = []

    def place(engine: Engine) -> None:
        try:
            made.append(engine.flavors.get("gold").create_volume(volume_of("v", SIZE)).key)
        except errors.PoolkitError as error:
            refused.append(error)

    threads = [threading.Thread(target=place, args=(engine,)) for engine in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [min(keys)] and [type(error) for error in refused] == [errors.VolumeExists], refused
    assert len(whole(xapi)["a"] + whole(xapi)["c"]) == 1


def test_a_disk_that_comes_after_the_look_of_another_goes(
    two: tuple[Engine, Engine], xapi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(placing, "_require_free_name", lambda *_: None)
    made = one.flavors.get("gold").create_volume(volume_of("v", SIZE))
    other.flavors.define(
        FLAVOR.format("first-fit").replace(f"'{made.pool.name}'/", f"'{made.pool.name}' drained='yes'/")
    )
    with pytest.raises(errors.VolumeExists, match="another process"):
        other.flavors.get("gold").create_volume(volume_of("v", SIZE))
    assert [(sr, label) for sr, label, _ in disks(xapi)] == [(made.pool.name, "v")]


def test_a_rival_that_went_while_nobody_could_look_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the hosts take all the time for one answer: else both would go, each for the other."""
    clock, looks, settled = [0.0], iter(([("z", False)], [])), list[VolumeInfo]()

    def others(*_: Any) -> list[tuple[str, bool]]:
        clock[0] += 100
        return next(looks)

    monkeypatch.setattr(marking, "_others", others)
    monkeypatch.setattr(marking, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    backend: Any = SimpleNamespace(marks=lambda: "here", host=Host(), settle=settled.append)
    placed: Any = SimpleNamespace(flavor="gold", pools=())
    core: Any = None
    marking.settle(core, backend, VolumeInfo("v", key="a"), placed)
    assert [one.key for one in settled] == ["a"]


CHILD = """
import json, sys
from poolkit import errors
from poolkit.engine import Engine, marking
from poolkit.families.xapi import disks
marking.PATIENCE = disks.STALE = 600  # all are alive, however long each has to wait for a processor
root, names = sys.argv[1], sys.argv[2:]
with Engine(root, wait=120) as engine:
    gold, told = engine.flavors.get("gold"), []
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    for name in names:
        try:
            made = gold.create_volume(f"<volume><name>{name}</name><capacity>4194304</capacity></volume>")
            told.append([name, made.pool.name, []])
        except errors.VolumeExists:
            told.append([name, "", ["volume-exists"]])
        except errors.NotPlaced as error:
            told.append([name, "", [[pool, code] for pool, code, _ in error.backends]])
    print(json.dumps(told))
"""


def placed_by(folder: Path, xapi: Any, names: list[list[str]]) -> list[tuple[str, str, Any]]:
    """What processes tell that place these names, each with a root of its own, all at the same time: name, pool, why not."""
    for at in range(len(names)):
        rooted(folder / str(at), xapi).close()
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder / str(at)), *mine], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for at, mine in enumerate(names)
    ]
    try:
        for child in children:
            assert child.stderr is not None and child.stderr.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        answers = [child.communicate(timeout=1200) for child in children]
        assert all(child.returncode == 0 for child in children), [said for _, said in answers]
        return [(name, pool, why) for out, _ in answers for name, pool, why in json.loads(out)]
    finally:
        for child in children:
            child.kill()
            child.wait()


def whole(xapi: Any) -> dict[str, list[str]]:
    """The labels of the disks of each repository; none is unfinished, and each is settled."""
    found: dict[str, list[str]] = {name: [] for name in BACKENDS}
    for sr, label, config in disks(xapi):
        assert marks.SETTLED in config and not any(key.startswith(marks.NEW) for key in config), (label, config)
        found[sr].append(label)
    return found


@pytest.mark.usefixtures("sampled")
def test_many_roots_place_one_name_once(tmp_path: Path, xapi: Any) -> None:
    """Everybody wants the same names: 8 processes 10 of them in ``make soak``, fewer otherwise."""
    processes, names = (8, 10) if setting() == "all" else (4, 5)
    wanted = [f"v{number}" for number in range(names)]
    told = placed_by(tmp_path, xapi, [wanted] * processes)
    there = whole(xapi)
    assert sorted(label for labels in there.values() for label in labels) == sorted(wanted)
    assert sorted((name, pool) for name, pool, _ in told if pool) == sorted(
        (label, pool) for pool, labels in there.items() for label in labels
    )
    assert [why for _, pool, why in told if not pool] == [["volume-exists"]] * (names * (processes - 1))


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("failing", [False, True], ids=["whole", "one backend fails midway"])
def test_many_roots_fill_the_backends_exactly(tmp_path: Path, xapi: Xapi, failing: bool) -> None:
    """A quarter of what is asked for has no room: in ``make soak`` 8 processes ask for 50 each, and 300 find room."""
    processes, each = (8, 50) if setting() == "all" else (4, 8)
    room = processes * each // 4
    rooted(tmp_path / "first", xapi).close()
    with calls(xapi) as api:
        srs = {sr["name_label"]: sr["uuid"] for sr in api.call("SR.get_all_records").values()}
    for name in BACKENDS:
        xapi.control("size", sr=srs[name], size=room * TAKEN)
    names = [[f"v{at}-{number}" for number in range(each)] for at in range(processes)]
    if failing:
        xapi.control("lasts", disks=room // 2, sr=srs["b"])
    told = placed_by(tmp_path, xapi, names)
    xapi.control("clear")
    there = whole(xapi)
    assert there == {name: sorted(label for label, pool, _ in told if pool == name) for name in BACKENDS}, (
        "lost or doubled"
    )
    refused = [why for _, pool, why in told if not pool]
    assert len(told) == processes * each and [[pool for pool, _ in why] for why in refused] == [list("abc")] * len(
        refused
    )
    assert len(there["a"]) == len(there["c"]) == room
    if failing:
        assert len(there["b"]) == room // 2
        assert {why[1][1] for why in refused} == {"invalid-state"}
        assert all(why[0][1] == why[2][1] == "no-space" for why in refused), refused
    else:
        assert len(there["b"]) == room
        assert [code for why in refused for _, code in why] == ["no-space"] * 3 * room


def test_hosts_that_know_nothing_of_each_other_are_all_asked(
    tmp_path: Path, xapi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flavor over two pools of hosts: a disk of the name at the others is seen, and one that is gone is not."""
    monkeypatch.setattr(placing, "_require_free_name", lambda *_: None)
    with Xapi(hosts=1, tls=False) as far, Engine(tmp_path / "one") as one, Engine(tmp_path / "two") as other:
        for engine, first in ((one, "near"), (other, "far")):
            prepare(engine, xapi)
            for name, server in (("near", xapi), ("far", far)):
                engine.define(pool(server, name)).start(build=True)
            backends = "".join(f"<backend pool='{name}' priority='{int(name != first)}'/>" for name in ("near", "far"))
            engine.flavors.define(f"<flavor><name>gold</name>{backends}</flavor>")
        made = one.flavors.get("gold").create_volume(volume_of("v", SIZE))
        gold = other.flavors.get("gold")
        with pytest.raises(errors.VolumeExists, match="another process"):
            gold.create_volume(volume_of("v", SIZE))
        assert (made.pool.name, [label for _, label, _ in disks(far)]) == ("near", [])
        made.delete()
        assert gold.create_volume(volume_of("v", SIZE)).pool.name == "far"
        assert one.flavors.get("gold").volumes() == [("far", "v")]
