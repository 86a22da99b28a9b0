"""The contract of what a backend does to its pool, and of the verbs that it has not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from io import BytesIO

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.volume import Volume
from poolkit.testing.means import ContractMeans, root_of


class PoolContract(ContractMeans):
    """The tests of a pool's verbs."""

    def test_the_lifecycle_is_repeatable(self, engine: Engine, pool_xml: str) -> None:
        """Every transition can be repeated, and says that nothing changed."""
        pool = engine.define(pool_xml)
        assert pool.outcome, "defining a new pool says that nothing changed"
        assert not engine.define(pool_xml).outcome, "defining a pool twice says that something changed"
        if "build" in self.verbs(pool):
            assert pool.build(overwrite=self.overwrite), "the first build says that nothing changed"
            assert not pool.build(), "a second build says that something changed"
        assert pool.info.state == "inactive", f"a pool that was never started is {pool.info.state}"
        assert pool.start(), "the first start says that nothing changed"
        assert not pool.start(), "starting what is up says that something changed"
        assert pool.info.state == "active", f"the pool is {pool.info.state} after start"
        assert not engine.define(pool.xml(inactive=True)).outcome, "what is dumped of the pool defines another one"
        assert pool.destroy(), "destroy of an active pool says that nothing changed"
        assert not pool.destroy(), "a second destroy says that something changed"
        assert pool.info.state == "inactive", f"the pool is {pool.info.state} after destroy"
        assert pool.undefine(), "undefine of a defined pool says that nothing changed"

    def test_sizes_are_plausible(self, engine: Engine, pool_xml: str) -> None:
        """Capacity, allocation and available are byte counts that fit together, and 0 when inactive."""
        pool = self.started(engine, pool_xml)
        info = pool.info
        assert info.capacity > 0, f"an active pool has the capacity {info.capacity}"
        assert 0 <= info.allocation <= info.capacity, f"{info.allocation} of {info.capacity} bytes are allocated"
        assert 0 <= info.available <= info.capacity, "what is available is a number of bytes up to the capacity"
        pool.destroy()
        assert pool.info.capacity == 0, f"an inactive pool has the capacity {pool.info.capacity}"

    def test_the_dump_is_accepted_again(self, engine: Engine, pool_xml: str) -> None:
        """What is dumped of a live pool defines the same pool."""
        pool = self.started(engine, pool_xml)
        live = engine.parse(pool.xml())
        assert live.name == pool.name, f"the dump of pool '{pool.name}' has the name '{live.name}'"
        assert live.uuid == pool.uuid, f"the dump has the UUID {live.uuid}, the pool {pool.uuid}"
        kept = engine.parse(pool.xml(inactive=True))
        assert kept == pool.definition(inactive=True), "what is dumped of the definition reads as another one"
        pool.destroy()

    def test_a_dry_run_changes_nothing(self, engine: Engine, pool_xml: str) -> None:
        """The plan is told and the pool stays inactive."""
        pool = engine.define(pool_xml)
        self.require(pool, "build")
        with Engine(root_of(engine), dry_run=True) as dry:
            dry.pool(pool.name).build(overwrite=self.overwrite)
        assert not pool.info.active, "a dry run of build made the pool active"
        assert pool.build(overwrite=self.overwrite), "the dry run had built it"

    def test_a_dry_run_changes_no_volume(self, engine: Engine, pool_xml: str) -> None:
        """Creating, resizing and deleting are planned and not done."""
        pool = self.started(engine, pool_xml)
        verbs = self.verbs(pool)
        volume = self.volume(pool)
        before = self.listed(engine, pool)
        with Engine(root_of(engine), dry_run=True) as dry:
            there = dry.pool(pool.name)
            with contextlib.suppress(errors.Unsupported):  # not every volume of a type may be able to grow
                there.volume(volume.name).resize(2 * volume.info.capacity)
            if "create" in verbs:
                there.create_volume(self.volume_xml(next(n for n in self.volume_names if n != volume.name)))
            if "delete" in verbs:
                there.volume(volume.name).delete()
        now = [self.facts(one) for one in self.listed(engine, pool)]
        assert now == [self.facts(one) for one in before], "a dry run changed volumes"

    def test_missing_verbs_say_so(self, engine: Engine, pool_xml: str) -> None:
        """A verb that the type does not have is Unsupported, names the pool and its type, and does nothing."""
        pool = self.started(engine, pool_xml)
        of_volumes: dict[str, Callable[[Volume], object]] = {
            "resize": lambda volume: volume.resize(volume.info.capacity + (1 << 20)),
            "permit": lambda volume: volume.permit(mode=0o600),
            "wipe": lambda volume: volume.wipe(),
            "upload": lambda volume: volume.upload(BytesIO(b"x")),
            "download": lambda volume: volume.download(BytesIO()),
            "clone": lambda volume: volume.clone(next(n for n in self.volume_names if n != volume.name)),
            "delete": lambda volume: volume.delete(),
        }
        of_pools: dict[str, Callable[[], object]] = {
            "create": lambda: self.made(pool),
            "build": lambda: (pool.destroy(), pool.build()),
            "erase": lambda: (pool.destroy(), pool.delete()),
        }
        missing = [verb for verb in (*of_volumes, *of_pools) if verb not in self.verbs(pool)]
        if not missing:
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' have every verb")
        volume = self.volume(pool) if not of_volumes.keys().isdisjoint(missing) else None
        before = [self.facts(one) for one in self.listed(engine, pool)]
        for verb in missing:
            try:
                if verb in of_pools:
                    of_pools[verb]()
                elif volume is not None:
                    of_volumes[verb](volume)
            except errors.Unsupported as error:
                for word in (f"'{pool.name}'", f"'{pool.info.type}'"):
                    assert word in str(error), f"{verb}: the error does not name {word}: {error}"
            except errors.PoolkitError as error:
                raise AssertionError(f"{verb}: the error for a missing verb is no Unsupported: {error!r}") from error
            else:
                raise AssertionError(f"{verb}: the type does not have it, and nothing was raised")
        pool.start()
        after = [self.facts(one) for one in self.listed(engine, pool)]
        assert after == before, "a verb that the type does not have changed volumes"

    def test_what_is_not_empty_is_not_erased(self, engine: Engine, pool_xml: str) -> None:
        """``delete`` of a pool with a volume is refused, or says that the volumes stay; they do."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "erase")
        volume = self.volume(pool)
        data = self.fill(engine, volume) if "upload" in self.verbs(pool) else b""
        pool.destroy()
        try:
            outcome = pool.delete()
        except errors.Unsafe:
            pass  # it says why: that is what the user reads
        except errors.PoolkitError as error:
            raise AssertionError(f"deleting a pool with volumes must be Unsafe, not {error!r}") from error
        else:
            assert outcome.stays, "deleting a pool with volumes was neither refused, nor is anything said to stay"
        if "build" in self.verbs(pool):
            pool.build()
        pool.start()
        names = [one.name for one in self.listed(engine, pool)]
        assert volume.name in names, f"deleting the pool deleted its volume '{volume.name}'"
        if data:
            left = self.content(engine, pool.volume(volume.name), len(data))
            assert left == data, f"deleting the pool changed its volume '{volume.name}'"
