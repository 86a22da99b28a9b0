"""The contract of what storage as code stands on: documents are compared with volumes by what a backend says of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.model import WantedVolume
from poolkit.testing.means import ContractMeans
from poolkit.xmlmap import replace


class DocumentContract(ContractMeans):
    """The tests of plans."""

    odd = 4097
    """Bytes beyond a round capacity that are asked for, to see what becomes of them."""

    def test_an_export_plans_to_nothing(self, engine: Engine, pool_xml: str, tmp_path: Path) -> None:
        """What is told of a pool and its volumes, read as what is wanted, is met by them."""
        pool = self.started(engine, pool_xml)
        self.volume(pool)
        for path, text in engine.export(volumes=True, secrets=False).files.items():
            (tmp_path / "exported" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "exported" / path).write_text(text)
        plan = engine.plan(tmp_path / "exported")
        assert len(plan.entries) > 1, "nothing was exported but the pool"
        assert not plan, f"what was exported is to be changed: {_told(plan)}"

    def test_what_was_made_plans_to_nothing(self, engine: Engine, pool_xml: str) -> None:
        """A new volume of any capacity has the one that ``capacity_of`` foretells."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        self._met(engine, pool, self.capacity + self.odd)

    def test_what_was_grown_plans_to_nothing(self, engine: Engine, pool_xml: str) -> None:
        """A volume that was resized to any capacity has the one that ``capacity_of`` foretells."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "resize")
        self._met(engine, pool, self.capacity)
        self._met(engine, pool, 2 * self.capacity + self.odd)

    def _met(self, engine: Engine, pool: Pool, size: int) -> None:
        document = self._wanted(pool, size)
        plan = engine.plan(document)
        assert plan, f"nothing is to be done for {size} bytes"
        done = plan.apply()
        assert done, f"{size} bytes: {[str(r.error) for r in done.failed]} {list(done.remaining)}"
        assert not engine.plan(document), f"{size} bytes are to be changed again: {_told(engine.plan(document))}"
        assert pool.volume(self.volume_names[0]).info.capacity >= size, "the volume is smaller than was wanted"

    def _wanted(self, pool: Pool, size: int) -> Any:
        definition = pool.parse_volume(self.volume_xml(self.volume_names[0], size))
        return replace(definition, wanted=WantedVolume(pool=pool.name))


def _told(plan: Any) -> list[str]:
    return [f"{e.action} {e.ident} {[tuple(c) for c in e.changes]}" for e in plan.entries if e.action != "none"]
