"""The lifecycle as a state machine: any order of verbs, with failures injected anywhere, against a simple model."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import Host


class Lifecycle(RuleBasedStateMachine):
    """One dir pool, a model of it, and an engine that is closed and opened again now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="poolkit-machine-"))
        self.countdown = 0
        self.host = Host(fault=self._fault)
        self.engine = Engine(self.place / "root", host=self.host)
        self.stored: bool = False
        self.cow = True
        self.built = False
        self.active = False
        self.persistent = False
        self.volumes: dict[str, int] = {}

    def _fault(self, label: str) -> None:
        if self.countdown and not label.startswith("passed:"):  # nothing can fail there
            self.countdown -= 1
            if not self.countdown:
                raise OSError(errno.EIO, "injected")

    def teardown(self) -> None:
        self.engine.close()
        shutil.rmtree(self.place)

    def _xml(self) -> str:
        state = "yes" if self.cow else "no"
        return (
            f"<pool type='dir'><name>p</name><features><cow state='{state}'/></features>"
            f"<target><path>{self.place}/images</path></target></pool>"
        )

    def _try(self, verb, expected: type[errors.PoolkitError] | None):
        """Run a verb; returns its result, or None if it failed, as expected or by the injected fault."""
        armed = self.countdown > 0
        try:
            result = verb()
        except errors.HostError as error:
            if armed and "injected" in str(error):
                return None
            assert expected is not None and isinstance(error, expected), f"unexpected: {error}"
            return None
        except errors.PoolkitError as error:
            assert expected is not None and isinstance(error, expected), f"unexpected: {error!r}"
            return None
        finally:
            self.countdown = 0
        assert expected is None, f"expected {expected}"
        return result

    @initialize()
    def begin(self) -> None:
        assert self.engine.pools() == []

    @rule(steps=st.integers(1, 12))
    def fail_the_next_verb(self, steps: int) -> None:
        self.countdown = steps

    @rule()
    def open_again(self) -> None:
        self.engine.close()
        self.engine = Engine(self.place / "root", host=self.host)
        assert self.engine.recovered == []

    @rule(cow=st.booleans())
    def define(self, cow: bool) -> None:
        old, self.cow = self.cow, cow
        pool = self._try(lambda: self.engine.define(self._xml()), None)
        if pool is None:
            # Failed after the rename: the new definition is there all the same.
            stored = self.engine.core.store.stamp("p")
            if stored is None:
                self.cow = old
            else:
                self.stored = True
                self.cow = self.engine.core.definitions.load("p").cow
        else:
            assert pool.outcome.changed == (not self.stored or old != cow)
            self.stored = True

    @precondition(lambda self: self.stored)
    @rule()
    def build(self) -> None:
        outcome = self._try(lambda: self.engine.pool("p").build(), errors.InvalidState if self.active else None)
        if outcome is not None:
            assert outcome.changed == (not self.built)
            self.built = True
        else:
            self.built = (self.place / "images").is_dir()

    @precondition(lambda self: self.stored)
    @rule()
    def start(self) -> None:
        expected = None if self.built else errors.HostError
        outcome = self._try(lambda: self.engine.pool("p").start(), expected)
        if outcome is not None:
            assert outcome.changed == (not self.active)
            self.active = True

    @precondition(lambda self: self.stored)
    @rule()
    def destroy(self) -> None:
        outcome = self._try(lambda: self.engine.pool("p").destroy(), None)
        if outcome is not None:
            assert outcome.changed == self.active
            self.active = False

    @precondition(lambda self: self.stored)
    @rule()
    def refresh(self) -> None:
        self._try(lambda: self.engine.pool("p").refresh(), None if self.active else errors.InvalidState)

    @precondition(lambda self: self.stored)
    @rule()
    def delete(self) -> None:
        expected = errors.InvalidState if self.active else errors.Unsafe if self.volumes else None
        outcome = self._try(lambda: self.engine.pool("p").delete(), expected)
        if outcome is not None:
            assert outcome.changed == self.built
        self.built = (self.place / "images").is_dir()

    @precondition(lambda self: self.stored)
    @rule()
    def undefine(self) -> None:
        outcome = self._try(lambda: self.engine.pool("p").undefine(), errors.InvalidState if self.active else None)
        self.stored = self.engine.core.store.stamp("p") is not None
        assert outcome is None or not self.stored

    @precondition(lambda self: self.stored)
    @rule(name=st.sampled_from("abc"), size=st.integers(1, 1 << 16))
    def create_volume(self, name: str, size: int) -> None:
        expected = None if self.active else errors.InvalidState
        if self.active and name in self.volumes:
            expected = errors.VolumeExists
        xml = f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"
        volume = self._try(lambda: self.engine.pool("p").create_volume(xml), expected)
        if volume is not None:
            assert volume.info.capacity == size
            self.volumes[name] = size

    @precondition(lambda self: self.active and self.volumes)
    @rule(data=st.data(), size=st.integers(1, 1 << 16))
    def resize_volume(self, data: st.DataObject, size: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.volumes)))
        expected = errors.InvalidArgument if size < self.volumes[name] else None
        outcome = self._try(lambda: self.engine.pool("p").volume(name).resize(size), expected)
        real = (self.place / "images" / name).stat().st_size
        assert real in (size, self.volumes[name])
        if outcome is not None:
            assert outcome.changed == (size != self.volumes[name])
            assert real == size
        self.volumes[name] = real

    @precondition(lambda self: self.active and self.volumes)
    @rule(data=st.data())
    def delete_volume(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.volumes)))
        outcome = self._try(lambda: self.engine.pool("p").volume(name).delete(), None)
        if outcome is not None or not (self.place / "images" / name).exists():
            del self.volumes[name]
            if outcome is None:
                self._try(lambda: self.engine.pool("p").refresh(), None)

    @invariant()
    def the_engine_agrees(self) -> None:
        armed, self.countdown = self.countdown, 0
        try:
            pools = self.engine.pools()
            assert [p.name for p in pools] == (["p"] if self.stored else [])
            if self.stored:
                assert pools[0].active == self.active
                assert self.engine.core.definitions.load("p").cow == self.cow
            if self.active:
                listed = {v.name: v.look().info.capacity for v in self.engine.pool("p").volumes()}
                assert listed == self.volumes
            left = [p.name for p in self.place.rglob("*") if p.name.startswith(".poolkit-") or ".journal" in p.name]
            assert left == []
        finally:
            self.countdown = armed


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLifecycle.pytestmark = [pytest.mark.timeout(280)]  # type: ignore[attr-defined]
