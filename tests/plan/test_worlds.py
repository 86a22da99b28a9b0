"""Whatever the folder and whatever there is: what apply and plan promise holds in random worlds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import Engine
from poolkit.engine.plan.marks import Mark, Marks
from tests.backends.deaths import killed_at
from tests.sweep import Points, Sampled, setting

from .conftest import fingerprint
from .worlds import Random

pytestmark = pytest.mark.tools("qemu-img")


def seeds(sampled: Sampled[int], few: int) -> Iterator[str]:
    """Other worlds in each run, the same again for the same seed of the run; in ``make soak`` many."""
    return (f"{setting()} {number}" for number in sampled(range(200 if setting() == "all" else few)))


def told(plan: object) -> list[str]:
    """What a plan says is to be done."""
    return [str(entry) for entry in plan.entries if entry.action != "none"]  # type: ignore[attr-defined]


def test_what_was_applied_plans_to_nothing_and_a_plan_changes_nothing(tmp_path: Path, sampled: Sampled[int]) -> None:
    done_at_all = 0
    for seed in seeds(sampled, 24):
        world = Random(tmp_path / seed, seed)
        for turn in ("first", "later"):
            with Engine(world.root) as engine:
                before = fingerprint(world.root, world.storage, world.documents)
                done_at_all += len(told(engine.plan(world.documents)))
                assert engine.plan(world.documents).diff() or not engine.plan(world.documents)
                assert fingerprint(world.root, world.storage, world.documents) == before, f"seed {seed}, {turn}"
            with Engine(world.root, dry_run=True) as engine:
                engine.plan(world.documents, prune=True)
                engine.export(volumes=True)
            assert fingerprint(world.root, world.storage, world.documents) == before, f"seed {seed}, {turn}: dry run"
            with Engine(world.root) as engine:
                done = world.apply(engine)
                assert done, f"seed {seed}, {turn}: {[str(r.error) for r in done.failed]} {done.remaining}"
                assert told(engine.plan(world.documents)) == [], f"seed {seed}, {turn}"
                before = fingerprint(world.storage, world.documents)
                assert not world.apply(engine).changed, f"seed {seed}, {turn}"
                assert fingerprint(world.storage, world.documents) == before, f"seed {seed}, {turn}"
            if turn == "first":
                world.later()
    assert done_at_all > 0


def test_an_apply_that_was_killed_and_repeated_ends_the_same(tmp_path: Path, sampled: Sampled[int]) -> None:
    died = 0
    for seed in seeds(sampled, 16):
        chance = random.Random(f"{seed} death")
        world, twin = (Random(tmp_path / seed / name, seed) for name in ("world", "twin"))
        if chance.random() < 0.5:
            for one in (world, twin):
                with Engine(one.root) as engine:
                    done = one.apply(engine)
                    assert done, f"seed {seed}, at first: {[str(r.error) for r in done.failed]} {done.remaining}"
                one.later()
            assert world.told() == twin.told(), f"seed {seed}, before the death"
        points = Points()
        assert not killed_at(twin.root, 0, twin.apply, points)
        step = chance.randint(1, max(1, points.count))
        died += killed_at(world.root, step, world.apply)
        with Engine(world.root) as engine:
            done = world.apply(engine)
            assert done, f"seed {seed}, step {step}: {[str(r.error) for r in done.failed]} {done.remaining}"
            assert told(engine.plan(world.documents)) == []
        assert world.told() == twin.told(), f"seed {seed}, killed at step {step}"
        # What was made just before a death may be nobody's then; nothing belongs to the folder that it did not make.
        assert marks(world) <= marks(twin), f"seed {seed}, killed at step {step}"
    assert died or setting() != "all"


def marks(world: Random) -> set[tuple[str, str, str | None]]:
    """What is there and belongs to the folder of a world; secrets by no more than that there is one."""
    there: set[tuple[str, str, str | None]] = set()
    with Engine(world.root) as engine:
        there |= {("secret", secret.uuid, None) for secret in engine.secrets()}
        there |= {("flavor", flavor.name, None) for flavor in engine.flavors.list()}
        for info in engine.pools():
            there.add(("pool", info.name, None))
            listed = engine.pool(info.name).volumes() if info.active else []
            there |= {("volume", volume.name, info.name) for volume in listed}
        made: list[Mark] = list(Marks(engine.core, str(world.documents.resolve())))
    ours = there & {mark[:3] for mark in made}
    return {(kind, name if kind != "secret" else "", pool) for kind, name, pool in ours}


def test_an_export_plans_to_nothing_but_the_pools_in_another_root(tmp_path: Path, sampled: Sampled[int]) -> None:
    for seed in seeds(sampled, 16):
        world = Random(tmp_path / seed, seed)
        folder = tmp_path / seed / "exported"
        with Engine(world.root) as engine:
            world.apply(engine)
            for path, text in engine.export(volumes=True).files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
            assert told(engine.plan(folder)) == [], f"seed {seed}"
        before = fingerprint(world.storage)
        with Engine(tmp_path / seed / "other") as other:
            plan = other.plan(folder)
            assert {e.action for e in plan.entries if e.kind == "volume"} <= {"none"}, f"seed {seed}: {told(plan)}"
            assert {e.action for e in plan.entries} <= {"none", "add"}, f"seed {seed}: {told(plan)}"
            assert plan.apply(), f"seed {seed}"
            assert told(other.plan(folder)) == [], f"seed {seed}"
        assert fingerprint(world.storage) == before, f"seed {seed}"
