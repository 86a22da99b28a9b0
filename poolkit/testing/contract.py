"""The behaviour that every backend owes, as tests of pytest."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, registry
from poolkit.backend import Backend, VolumeInfo, check_volume_name
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.testing.interruption import How, interrupted

_SHOWN = 1 << 20  # bytes of a volume that are written and compared


def _at_every_step(test: Any) -> Any:
    test.at_every_step = True  # for whoever selects the tests that a fixture ``sampled`` makes shorter
    return test


class BackendContract:
    """What every backend owes. Subclass it, define the fixture ``pool_xml`` and run it on real storage.

    ``pool_xml`` is the definition of a pool whose storage exists or can be built. A type without ``create`` needs storage that
    has volumes already; what they hold is overwritten. What cannot be asked of a type is skipped, with a sentence that begins
    with "not applicable" and names the missing verb.

    The tests that interrupt a verb at every step take all steps; a fixture ``sampled`` (a function from the steps to those to
    take), where the project has one, chooses among them.
    """

    capacity = 8 << 20
    """Bytes of the volumes the tests make."""
    volume_names: tuple[str, ...] = ("first", "second")
    """Names that the backend accepts for new volumes."""
    overwrite = False
    """Whether ``build`` needs ``overwrite``."""

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        """An engine whose files are all below the test's own folder."""
        with Engine(tmp_path / "root") as engine:
            yield engine

    def volume_xml(self, name: str, capacity: int | None = None) -> str:
        """The definition of a new volume."""
        size = self.capacity if capacity is None else capacity
        return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"

    def started(self, engine: Engine, pool_xml: str) -> Pool:
        """The pool, defined, built if its type can be, and active."""
        pool = engine.define(pool_xml)
        if "build" in self.verbs(pool):
            pool.build(overwrite=self.overwrite)
        pool.start()
        return pool

    def made(self, pool: Pool, name: str | None = None) -> Volume:
        """A new volume."""
        return pool.create_volume(self.volume_xml(name or self.volume_names[0]))

    def traces(self) -> object:
        """What a pool that is up, or was built, leaves on the machine, to be compared: mounts, device nodes, a signature ..."""
        return None

    # -- what the tests are made of -----------------------------------------------------------------------------------

    @staticmethod
    def verbs(pool: Pool) -> tuple[str, ...]:
        """The optional verbs of the pool's backend."""
        return registry.backend(pool.info.type).verbs()

    def require(self, pool: Pool, *verbs: str) -> None:
        """Skip the test, by name, for a type without one of ``verbs``."""
        missing = [verb for verb in verbs if verb not in self.verbs(pool)]
        if missing:
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' have no {' and no '.join(missing)}")

    @staticmethod
    def backend(engine: Engine, pool: Pool) -> Backend:
        """The pool's backend, which asks the storage and not the inventory."""
        definition = pool.definition()
        return registry.executor(definition, engine.host.operation())

    def listed(self, engine: Engine, pool: Pool, known: Iterable[VolumeInfo] = ()) -> list[VolumeInfo]:
        """What the backend lists now, each volume checked."""
        found = list(self.backend(engine, pool).volumes({one.name: one for one in known}))
        target = getattr(getattr(pool.definition(), "target", None), "path", None)
        check_listing(found, target)
        return found

    def volume(self, pool: Pool) -> Volume:
        """A volume to work on: a new one, or the first of those that the storage has."""
        if "create" in self.verbs(pool):
            return self.made(pool)
        volumes = pool.volumes()
        assert volumes, f"pools of type '{pool.info.type}' have no create: the storage of the test must have a volume"
        return volumes[0]

    def content(self, engine: Engine, volume: Volume, length: int, offset: int = 0) -> bytes:
        """Bytes of a volume, by every way there is to read them: they must agree."""
        ways: dict[str, bytes] = {}
        if "download" in self.verbs(volume.pool):
            out = BytesIO()
            volume.download(out, offset=offset, length=length)
            ways["download"] = out.getvalue()
        with contextlib.suppress(errors.Unsupported):
            backend = self.backend(engine, volume.pool)
            with backend.source(backend.look(volume.name, volume.info)).open() as fd:
                ways["opening it"] = os.pread(fd, length, offset)
        if not ways:
            pytest.skip(
                f"not applicable: volumes of type '{volume.pool.info.type}' cannot be read: no download, no open_volume"
            )
        for way, data in ways.items():
            assert len(data) == length, (
                f"{way} gave {len(data)} bytes of volume '{volume.name}' where {length} were asked for"
            )
        assert len(set(ways.values())) == 1, f"{' and '.join(ways)} give different bytes of volume '{volume.name}'"
        return next(iter(ways.values()))

    def fill(self, engine: Engine, volume: Volume, offset: int = 0) -> bytes:
        """Upload new bytes to a volume, and see them there; returns them."""
        data = os.urandom(min(_SHOWN, volume.info.capacity - offset))
        volume.upload(BytesIO(data), offset=offset)
        assert self.content(engine, volume, len(data), offset) == data, (
            f"what was uploaded to volume '{volume.name}' is not what it holds afterwards"
        )
        return data

    # -- the pool -------------------------------------------------------------------------------------------------

    def test_the_lifecycle_is_repeatable(self, engine: Engine, pool_xml: str) -> None:
        """Every transition can be repeated, and says that nothing changed."""
        pool = engine.define(pool_xml)
        assert pool.outcome
        assert not engine.define(pool_xml).outcome
        if "build" in self.verbs(pool):
            assert pool.build(overwrite=self.overwrite)
            assert not pool.build()
        assert pool.info.state == "inactive"
        assert pool.start()
        assert not pool.start()
        assert pool.info.state == "active"
        assert not engine.define(pool.xml(inactive=True)).outcome
        assert pool.destroy()
        assert not pool.destroy()
        assert pool.info.state == "inactive"
        assert pool.undefine()

    def test_sizes_are_plausible(self, engine: Engine, pool_xml: str) -> None:
        """Capacity, allocation and available are byte counts that fit together, and 0 when inactive."""
        pool = self.started(engine, pool_xml)
        info = pool.info
        assert info.capacity > 0
        assert 0 <= info.allocation <= info.capacity
        assert 0 <= info.available <= info.capacity, "what is available is a number of bytes up to the capacity"
        pool.destroy()
        assert pool.info.capacity == 0

    def test_the_dump_is_accepted_again(self, engine: Engine, pool_xml: str) -> None:
        """What is dumped of a live pool defines the same pool."""
        pool = self.started(engine, pool_xml)
        live = engine.parse(pool.xml())
        assert live.name == pool.name
        assert live.uuid == pool.uuid
        assert engine.parse(pool.xml(inactive=True)) == pool.definition(inactive=True)
        pool.destroy()

    def test_a_dry_run_changes_nothing(self, engine: Engine, pool_xml: str) -> None:
        """The plan is told and the pool stays inactive."""
        pool = engine.define(pool_xml)
        self.require(pool, "build")
        with Engine(_root(engine), dry_run=True) as dry:
            dry.pool(pool.name).build(overwrite=self.overwrite)
        assert not pool.info.active
        assert pool.build(overwrite=self.overwrite), "the dry run had built it"

    def test_a_dry_run_changes_no_volume(self, engine: Engine, pool_xml: str) -> None:
        """Creating, resizing and deleting are planned and not done."""
        pool = self.started(engine, pool_xml)
        verbs = self.verbs(pool)
        volume = self.volume(pool)
        before = self.listed(engine, pool)
        with Engine(_root(engine), dry_run=True) as dry:
            there = dry.pool(pool.name)
            with contextlib.suppress(errors.Unsupported):  # not every volume of a type may be able to grow
                there.volume(volume.name).resize(2 * volume.info.capacity)
            if "create" in verbs:
                there.create_volume(self.volume_xml(next(n for n in self.volume_names if n != volume.name)))
            if "delete" in verbs:
                there.volume(volume.name).delete()
        facts = [(one.name, one.key, one.path, one.capacity) for one in before]
        now = [(one.name, one.key, one.path, one.capacity) for one in self.listed(engine, pool)]
        assert now == facts, "a dry run changed volumes"

    def test_missing_verbs_say_so(self, engine: Engine, pool_xml: str) -> None:
        """A verb that the type does not have is Unsupported and names pool and type."""
        pool = self.started(engine, pool_xml)
        calls: dict[str, Callable[[Volume], object]] = {
            "resize": lambda volume: volume.resize(volume.info.capacity + (1 << 20)),
            "wipe": lambda volume: volume.wipe(),
            "upload": lambda volume: volume.upload(BytesIO(b"x")),
            "download": lambda volume: volume.download(BytesIO()),
            "delete": lambda volume: volume.delete(),
        }
        missing = [verb for verb in ("create", *calls) if verb not in self.verbs(pool)]
        if not missing:
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' have every verb of volumes")
        volumes = pool.volumes()
        for verb in missing:
            with pytest.raises(errors.Unsupported) as caught:
                if verb == "create":
                    self.made(pool)
                elif volumes:
                    calls[verb](volumes[0])
                else:
                    raise self.backend(engine, pool).unsupported(verb)
            assert pool.name in str(caught.value), f"{verb}: the error does not name the pool"

    # -- the listing ------------------------------------------------------------------------------------------------

    def test_each_listed_volume_is_sound(self, engine: Engine, pool_xml: str) -> None:
        """Names that can be given, keys and paths that no other has, sizes of at least 0, details that can be stored."""
        pool = self.started(engine, pool_xml)
        if "create" in self.verbs(pool):
            made = [self.made(pool, name) for name in self.volume_names[:2]]
            assert len(made) == 2, "the test needs two names for volumes"
        found = self.listed(engine, pool)
        assert found, "nothing is listed: the storage of the test must have a volume"
        assert sorted(one.name for one in found) == sorted(volume.name for volume in pool.volumes())

    def test_a_listing_knows_what_has_not_changed(self, engine: Engine, pool_xml: str) -> None:
        """A volume whose stamp is the same is the same."""
        pool = self.started(engine, pool_xml)
        self.volume(pool)
        first = {one.name: one for one in self.listed(engine, pool)}
        again = {one.name: one for one in self.listed(engine, pool, first.values())}
        assert again.keys() == first.keys(), "the volumes of two listings differ although nothing happened"
        for name, info in again.items():
            if info.stamp and info.stamp == first[name].stamp:
                assert info == first[name], f"the facts of volume '{name}' changed, its stamp did not"

    def test_a_resize_is_seen_by_the_next_listing(self, engine: Engine, pool_xml: str) -> None:
        """A volume that was resized is not taken from the last listing."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "resize")
        volume = self.volume(pool)
        before = self.listed(engine, pool)
        size = self.backend(engine, pool).rounded(2 * volume.info.capacity)
        volume.resize(size)
        (now,) = [one for one in self.listed(engine, pool, before) if one.name == volume.name]
        assert now.capacity == size, f"the listing took the old size of volume '{volume.name}' from the last one"

    # -- volumes ----------------------------------------------------------------------------------------------------

    def test_a_volume_is_found_every_way(self, engine: Engine, pool_xml: str) -> None:
        """By name, path and key, before and after a refresh and a restart of the pool."""
        pool = self.started(engine, pool_xml)
        volume = self.volume(pool)
        name = volume.name
        if "create" in self.verbs(pool):
            assert volume.info.capacity >= self.capacity
        for again in (lambda: None, pool.refresh, lambda: (pool.destroy(), pool.start())):
            again()
            found = pool.volume(name)
            assert found.info.capacity == volume.info.capacity
            assert engine.volume_by_path(found.path).name == name
            assert engine.volume_by_key(found.key).name == name
            assert name in [v.name for v in pool.volumes()]
        assert engine.volume_by_path(volume.path).definition() == volume.definition()

    def test_a_name_is_given_once(self, engine: Engine, pool_xml: str) -> None:
        """A second volume of the same name is refused and the first one keeps its data."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        first = self.made(pool)
        with pytest.raises(errors.VolumeExists, match=first.name):
            pool.create_volume(self.volume_xml(first.name))
        assert pool.volume(first.name).key == first.key

    def test_a_foreign_volume_survives_a_failed_create(self, engine: Engine, pool_xml: str, tmp_path: Path) -> None:
        """What somebody else made under the wanted name since the last listing is neither taken over nor undone."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        with Engine(tmp_path / "another-root") as another:
            unaware = another.define(pool_xml)
            unaware.start()
            foreign = self.made(pool)
            data = self.fill(engine, foreign) if "upload" in self.verbs(pool) else None
            with pytest.raises(errors.PoolkitError) as caught:
                self.made(unaware)
        names = [one.name for one in self.listed(engine, pool)]
        assert foreign.name in names, (
            f"a failed create deleted the volume '{foreign.name}' that had the name already: undo by identity, not by name"
        )
        assert isinstance(caught.value, errors.VolumeExists), f"it must be VolumeExists, not {caught.value!r}"
        found = self.backend(engine, pool).look(foreign.name, None)
        identity = self.backend(engine, pool).identity
        assert identity(found) == identity(foreign.info), f"the volume '{foreign.name}' was replaced by a failed create"
        if data is not None:
            assert self.content(engine, foreign, len(data)) == data, (
                "a failed create changed the volume that had the name"
            )

    def test_a_volume_can_be_deleted_once(self, engine: Engine, pool_xml: str) -> None:
        """Deleting is repeatable; the name is free again."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "delete")
        volume = self.made(pool)
        assert volume.delete()
        assert volume.name not in [v.name for v in pool.volumes()]
        assert volume.name not in [one.name for one in self.listed(engine, pool)]
        self.made(pool)

    def test_a_volume_grows(self, engine: Engine, pool_xml: str) -> None:
        """Growing works without a flag, shrinking only with it."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "resize")
        volume = self.volume(pool)
        size = volume.info.capacity
        assert volume.resize(size * 2)
        assert pool.volume(volume.name).info.capacity == size * 2
        with pytest.raises(errors.InvalidArgument) as caught:
            volume.resize(size)
        assert "shrink" in (caught.value.hint or ""), "the hint does not say how data may be cut off"

    def test_what_is_uploaded_is_there(self, engine: Engine, pool_xml: str) -> None:
        """Bytes come back as they went in, by every way of reading, also from an offset; the second time as well."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "upload")
        volume = self.volume(pool)
        head = self.fill(engine, volume)[:4096]
        self.fill(engine, volume, offset=4096)
        assert self.content(engine, volume, 4096) == head, "an upload from byte 4096 on changed bytes before that"

    def test_a_clone_has_the_same_bytes(self, engine: Engine, pool_xml: str) -> None:
        """The clone equals its source and is independent of it."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "clone", "upload")
        volume = self.made(pool)
        data = self.fill(engine, volume)
        clone = volume.clone(self.volume_names[1])
        self.fill(engine, volume)
        assert self.content(engine, clone, len(data)) == data

    def test_a_wipe_leaves_nothing(self, engine: Engine, pool_xml: str) -> None:
        """After a wipe with zeros no old byte can be read through the volume, at its end neither."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "wipe", "upload")
        volume = self.volume(pool)
        end = max(0, volume.info.capacity - 65536)
        self.fill(engine, volume)
        self.fill(engine, volume, offset=end)
        volume.wipe()
        volume = pool.volume(volume.name)
        for offset in (0, end):
            length = min(_SHOWN, volume.info.capacity - offset)
            left = self.content(engine, volume, length, offset)
            assert not left.strip(b"\0"), (
                f"bytes from {offset} on can still be read after the wipe of volume '{volume.name}'"
            )

    def test_bad_names_are_refused(self, engine: Engine, pool_xml: str) -> None:
        """Names that could leave the pool or pass for options never reach the storage."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        from poolkit.xmlmap import replace

        before = [one.name for one in self.listed(engine, pool)]
        good = pool.parse_volume(self.volume_xml("good"))
        for name in ("..", ".", "-rf", "a\nb", "x" * 256):
            try:
                pool.create_volume(replace(good, name=name))
            except errors.PoolkitError:
                pass
            else:
                raise AssertionError(f"the name {name!r} was accepted")
        assert [one.name for one in self.listed(engine, pool)] == before

    # -- deaths and failures ----------------------------------------------------------------------------------------

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
            if not interrupted(_root(engine), step, how, start):
                break
            with Engine(_root(engine)) as again:
                if again.pool(pool.name).info.active:
                    break  # all was done, and only the record of the work remained to be cleared
                assert self.traces() == before, f"{how} at step {step}: something is left"
                assert again.not_undone() == [], f"{how} at step {step}: not all could be undone"
        assert step > 1, "start has no step: nothing was tested"
        assert pool.info.active
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
            done = not interrupted(_root(engine), step, how, lambda engine: self.made(engine.pool(pool.name)))
            with Engine(_root(engine)) as again:
                found = {one.name: one for one in self.listed(again, again.pool(pool.name))}
                assert before <= found.keys(), f"{how} at step {step}: a volume is lost"
                new = [one for name, one in found.items() if name not in before]
                assert [one.name for one in new] in ([], [self.volume_names[0]]), (
                    f"{how} at step {step}: {new} are left"
                )
                assert all(one.capacity >= self.capacity for one in new), f"{how} at step {step}: half a volume is left"
                assert new or not done, "nothing was made"
                assert done or how == "killed" or not new, f"{how} at step {step}: a create that failed left its volume"
                assert again.not_undone() == [], f"{how} at step {step}: not all could be undone"
                if new and "delete" not in self.verbs(pool):
                    break
                if new:
                    again.pool(pool.name).refresh()
                    again.pool(pool.name).volume(new[0].name).delete()
            if done:
                break
        assert step > 1 or not done, "create has no step: nothing was tested"


def check_listing(found: Iterable[VolumeInfo], target: str | None = None) -> None:
    """Raise ``AssertionError``, with the reason, for volumes that cannot be those of one pool.

    ``target`` is the folder of volumes that name neither path nor key.
    """
    owners: dict[tuple[str, str], str] = {}
    for info in found:
        check_volume_name(info.name)
        path = info.path or (f"{target}/{info.name}" if target else None)
        assert path or info.key, f"volume '{info.name}' has neither path nor key"
        for what, value in (("name", info.name), ("path", path), ("key", info.key or path)):
            if value and (what, value) in owners:
                raise AssertionError(
                    f"the volumes '{owners[what, value]}' and '{info.name}' have the same {what}: {value}"
                )
            owners[what, value or ""] = info.name
        for what in (
            "capacity",
            "allocation",
            "physical",
            "inode",
            "mode",
            "owner",
            "group",
            "atime",
            "mtime",
            "ctime",
        ):
            number = getattr(info, what)
            assert isinstance(number, int) and number >= 0, f"volume '{info.name}' has the {what} {number!r}"
        assert info.type in ("file", "block", "dir", "network", "netdir"), (
            f"volume '{info.name}' has the type {info.type!r}"
        )
        try:
            json.dumps(dict(info.detail or {}))
        except TypeError as error:
            raise AssertionError(f"volume '{info.name}': its details are no plain values: {error}") from error


def _steps(request: pytest.FixtureRequest) -> Iterator[int]:
    every: Iterator[int] = itertools.count(1)
    try:
        sampled: Any = request.getfixturevalue("sampled")
    except pytest.FixtureLookupError:
        return every
    chosen: Iterator[int] = sampled(every)
    return chosen


def _root(engine: Engine) -> str:
    return engine.locations.storage.rpartition("/")[0]
