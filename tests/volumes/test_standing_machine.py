"""Any order of making, deleting and listing overlays: the index of backing says what qemu-img finds in the files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool

NAMES = st.sampled_from(["a", "b", "c", "d"])
POOLS = st.sampled_from(["one", "two"])
SIZE = 1 << 16


class Overlays(RuleBasedStateMachine):
    """Two pools whose volumes stand on each other, changed by poolkit and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="poolkit-standing-"))
        self.engine = Engine(self.place / "root")
        self.stale: set[str] = set()  # changed behind poolkit since they were listed
        for name in ("one", "two"):
            self._define(name)
            self.engine.pool(name).start(build=True)

    def teardown(self) -> None:
        self.engine.close()
        shutil.rmtree(self.place)

    def _define(self, name: str) -> None:
        target = f"<target><path>{self.place / name}</path></target>"
        self.engine.define(f"<pool type='dir'><name>{name}</name>{target}</pool>")

    def _pool(self, name: str) -> Pool | None:
        try:
            pool = self.engine.pool(name)
        except errors.PoolNotFound:
            return None
        return pool if pool.info.active else None

    def _truth(self, pool: str) -> dict[str, list[str]]:
        """What each file of a pool stands on directly, by its own header as qemu-img reads it."""
        found = {}
        for file in sorted((self.place / pool).iterdir()):
            argv = ["qemu-img", "info", "--output=json", str(file)]
            facts = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
            below = facts.get("full-backing-filename", facts.get("backing-filename"))
            if below is not None:
                found[file.name] = [below]
        return found

    @rule(pool=POOLS, name=NAMES)
    def make(self, pool: str, name: str) -> None:
        owner = self._pool(pool)
        if owner is not None:
            try:
                owner.create_volume(f"<volume><name>{name}</name><capacity>{SIZE}</capacity></volume>")
            except errors.VolumeExists:
                assert (self.place / pool / name).exists()

    @rule(pool=POOLS, name=NAMES, base=POOLS, below=NAMES)
    def overlay(self, pool: str, name: str, base: str, below: str) -> None:
        owner, other = self._pool(pool), self._pool(base)
        if owner is None or other is None:
            return
        try:
            other.volume(below).clone(name, pool=owner, linked=True)
        except (errors.VolumeExists, errors.VolumeNotFound, errors.Unsafe, errors.HostError):
            pass

    @rule(pool=POOLS, name=NAMES, below=NAMES)
    def overlay_of_a_stranger(self, pool: str, name: str, below: str) -> None:
        """Relative to its own folder; the base need not be there."""
        file = self.place / pool / name
        if name != below and file.parent.exists() and not file.exists():
            argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", below, "-F", "raw", str(file), str(SIZE)]
            subprocess.run(argv, check=True, cwd=file.parent)
            self.stale.add(pool)

    @rule(pool=POOLS, name=NAMES, force=st.booleans())
    def delete(self, pool: str, name: str, force: bool) -> None:
        owner = self._pool(pool)
        if owner is None:
            return
        path = str(self.place / pool / name)
        known = [
            v for p in ("one", "two") if self._pool(p) is not None and p not in self.stale
            for v, below in self._truth(p).items() if path in below and (p, v) != (pool, name)
        ]  # fmt: skip
        try:
            owner.volume(name).delete(force=force)
        except errors.VolumeNotFound:
            pass
        except errors.HasDependents as error:
            assert not force
            assert error.volume_count >= len(known)
            assert (self.place / pool / name).exists()
        except errors.Unsafe:
            assert pool in self.stale
        else:
            assert force or not known

    @rule(pool=POOLS, name=NAMES)
    def delete_behind(self, pool: str, name: str) -> None:
        if (self.place / pool / name).exists():
            (self.place / pool / name).unlink()
            self.stale |= {"one", "two"}

    @rule(pool=POOLS, name=NAMES)
    def wipe(self, pool: str, name: str) -> None:
        owner = self._pool(pool)
        if owner is not None:
            try:
                owner.volume(name).wipe(force=True)
            except (errors.VolumeNotFound, errors.Unsafe):
                pass

    @rule(pool=POOLS)
    def refresh(self, pool: str) -> None:
        if (owner := self._pool(pool)) is not None:
            owner.refresh()
            self.stale.discard(pool)

    @rule(pool=POOLS)
    def stop_and_start(self, pool: str) -> None:
        if (owner := self._pool(pool)) is not None:
            owner.destroy()
            owner.start()
            self.stale.discard(pool)

    @rule(pool=POOLS)
    def undefine(self, pool: str) -> None:
        if (owner := self._pool(pool)) is not None:
            number = self.engine.core.record(pool).id
            owner.destroy()
            owner.undefine()
            assert self.engine.core.inventory.edges(number) == []
            self._define(pool)
            self.engine.pool(pool).start()
            self.stale.discard(pool)

    @rule()
    def open_again(self) -> None:
        self.engine.close()
        self.engine = Engine(self.place / "root")

    @invariant()
    def the_index_is_what_the_files_say(self) -> None:
        for pool in {"one", "two"} - self.stale:
            owner = self._pool(pool)
            assert owner is not None
            edges = self.engine.core.inventory.edges(self.engine.core.record(pool).id)
            found: dict[str, list[str]] = {}
            for edge in edges:
                found.setdefault(edge.name, []).append(edge.said)
                if not self.stale:
                    assert edge.missing == (not Path(edge.said).exists())
            assert found == self._truth(pool)


TestOverlays = pytest.mark.tools("qemu-img")(Overlays.TestCase)
TestOverlays.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
