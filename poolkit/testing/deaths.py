"""The contract of verbs that fail or die at a step."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from poolkit.engine import Engine
from poolkit.testing.interruption import How, interrupted
from poolkit.testing.means import ContractMeans, root_of


def _at_every_step(test: Any) -> Any:
    test.at_every_step = True  # for whoever selects the tests that a fixture ``sampled`` makes shorter
    return test


class DeathContract(ContractMeans):
    """The tests that interrupt a verb at every step."""

    @_at_every_step
    @pytest.mark.parametrize("how", ["killed", "failing"])
    def test_an_interrupted_start_leaves_nothing(
        self, engine: Engine, pool_xml: str, how: How, request: pytest.FixtureRequest
    ) -> None:
        """Built and started with an interruption at each step: all of it is done or nothing of it is left."""
        pool = engine.define(pool_xml)
        pool.destroy()
        build = "build" in self.verbs(pool)
        before = self.traces()
        step = 0

        def start(engine: Engine) -> None:
            engine.pool(pool.name).start(build=build, overwrite=build and self.overwrite)

        for step in _steps(request):
            came = interrupted(root_of(engine), step, how, start)
            if not came:
                break
            with Engine(root_of(engine)) as again:
                if came == "survived":
                    assert again.pool(pool.name).info.active, (
                        f"start ended well although step {step} failed, and is not up"
                    )
                    again.pool(pool.name).destroy()
                    if "erase" in self.verbs(pool):
                        again.pool(pool.name).delete()
                    continue
                if again.pool(pool.name).info.active:
                    break  # all was done, and only the record of the work remained to be cleared
                assert self.traces() == before, f"{how} at step {step}: something is left"
                assert not (left := again.not_undone()), f"{how} at step {step}: not all could be undone: {left}"
        assert step > 1, "start has no step: nothing was tested"
        assert pool.info.active, "start ended without an error, and the pool is not active"
        pool.destroy()

    @_at_every_step
    @pytest.mark.parametrize("how", ["killed", "failing"])
    def test_an_interrupted_create_leaves_nothing(
        self, engine: Engine, pool_xml: str, how: How, request: pytest.FixtureRequest
    ) -> None:
        """A volume made with an interruption at each step is there as a whole or not at all, and no other is lost."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        before = {one.name for one in self.listed(engine, pool)}
        step, done = 0, False
        for step in _steps(request):
            came = interrupted(root_of(engine), step, how, lambda engine: self.made(engine.pool(pool.name)))
            done = not came
            with Engine(root_of(engine)) as again:
                found = {one.name: one for one in self.listed(again, again.pool(pool.name))}
                assert before <= found.keys(), f"{how} at step {step}: a volume is lost"
                new = [one for name, one in found.items() if name not in before]
                assert [one.name for one in new] in ([], [self.volume_names[0]]), (
                    f"{how} at step {step}: {new} are left"
                )
                assert all(one.capacity >= self.capacity for one in new), f"{how} at step {step}: half a volume is left"
                assert new or came in ("killed", "failed"), "nothing was made"
                assert came != "failed" or not new, f"{how} at step {step}: a create that failed left its volume"
                assert not (left := again.not_undone()), f"{how} at step {step}: not all could be undone: {left}"
                if new and "delete" not in self.verbs(pool):
                    break
                if new:
                    again.pool(pool.name).refresh()
                    again.pool(pool.name).volume(new[0].name).delete()
            if done:
                break
        assert step > 1 or not done, "create has no step: nothing was tested"

    @_at_every_step
    @pytest.mark.parametrize("how", ["killed", "failing"])
    def test_an_interrupted_attach_is_whole_or_nothing(
        self, engine: Engine, pool_xml: str, how: How, request: pytest.FixtureRequest
    ) -> None:
        """A volume that is attached with an interruption at each step is attached and said to be, or neither."""
        pool = self.started(engine, pool_xml)
        self.require_attach(pool)
        name = self.volume(pool).name
        before, step, done = self.traces(), 0, False
        for step in _steps(request):
            came = interrupted(root_of(engine), step, how, lambda engine: engine.pool(pool.name).volume(name).attach())
            done = not came
            with Engine(root_of(engine)) as again:
                volume = again.pool(pool.name).volume(name).look()
                there, said = os.path.exists(volume.path), "attached" in (volume.info.detail or {})
                assert there == said, (
                    f"{how} at step {step}: the device is {'' if there else 'not '}there, and said otherwise"
                )
                assert there or came in ("killed", "failed"), "nothing was attached"
                assert came != "failed" or not there, f"{how} at step {step}: an attach that failed left the device"
                assert not (left := again.not_undone()), f"{how} at step {step}: not all could be undone: {left}"
                volume.detach()
                assert self.traces() == before, f"{how} at step {step}: something is left"
            if done:
                break
        assert step > 1 or not done, "attach has no step: nothing was tested"


def _steps(request: pytest.FixtureRequest) -> Iterator[int]:
    every: Iterator[int] = itertools.count(1)
    try:
        sampled: Any = request.getfixturevalue("sampled")
    except pytest.FixtureLookupError:
        return every
    chosen: Iterator[int] = sampled(every)
    return chosen
