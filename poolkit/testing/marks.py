"""The contract of the marks that storage keeps with volumes, for the flavors of several hosts that know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from poolkit import registry, xmlmap
from poolkit.backend import Mark, Placed, VolumeInfo
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host
from poolkit.model import Volume
from poolkit.testing.means import ContractMeans

FLAVOR, OTHER = "contract-gold", "contract-silver"
FIRST, SECOND = Mark(FLAVOR, "first-attempt"), Mark(FLAVOR, "second-attempt")


class MarkContract(ContractMeans):
    """The tests of ``marks``, ``mark``, ``placed`` and ``settle``; of types whose ``marks`` is empty nothing is asked."""

    def marking(self, engine: Engine, pool_xml: str, *verbs: str) -> Pool:
        """The pool, active, of a type that keeps marks and has ``create`` and ``verbs``."""
        pool = self.started(engine, pool_xml)
        if not self.backend(engine, pool).marks():
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' keep no marks of flavors")
        self.require(pool, "create", *verbs)
        return pool

    @staticmethod
    def fresh(engine: Engine, pool: Pool, fault: Callable[[str], None] | None = None) -> Any:
        """A backend that remembers nothing, as in another process."""
        host = Host(fault=fault)
        host.on_secret = engine.host.on_secret
        return registry.executor(pool.definition(), host)

    def marked(self, engine: Engine, pool: Pool, mark: Mark | None, name: str | None = None) -> VolumeInfo:
        """A volume that the backend itself has made."""
        backend = self.fresh(engine, pool)
        backend.mark = mark
        made: VolumeInfo = backend.create(xmlmap.given(self.volume_xml(name or self.volume_names[0]), Volume))
        return made

    def told(self, engine: Engine, pool: Pool, flavor: str = FLAVOR, name: str | None = None) -> list[Placed]:
        """What a backend that has made none of them tells of a flavor's volumes, by key; each key once."""
        found: list[Placed] = sorted(self.fresh(engine, pool).placed(flavor, name), key=lambda one: one.key)
        keys = [one.key for one in found]
        assert len(set(keys)) == len(keys), f"placed tells of one volume several times: {keys}"
        return found

    # -- tests --------------------------------------------------------------------------------------------------------

    def test_marks_say_where_they_are_kept(self, engine: Engine, pool_xml: str, tmp_path: Path) -> None:
        """The same text wherever the pool is defined, whatever it is called there: who uses one storage must know that."""
        pool = self.marking(engine, pool_xml)
        said = self.fresh(engine, pool).marks()
        with Engine(tmp_path / "another-root") as another:
            self.prepare(another)
            there = self.fresh(another, another.define(pool_xml)).marks()
        renamed = xmlmap.replace(pool.definition(), name="another-name", uuid=None)
        others = {there, registry.executor(renamed, Host()).marks()}
        assert others == {said}, f"marks says '{said}', and of the same storage elsewhere {sorted(others)}"

    def test_a_marked_volume_is_told_of(self, engine: Engine, pool_xml: str) -> None:
        """From the flavor and from its name, by everybody; of no other flavor, no other name, and none that has no mark."""
        pool = self.marking(engine, pool_xml)
        first, second = self.volume_names[:2]
        assert self.told(engine, pool) == [], "placed tells of volumes before any was marked"
        info = self.marked(engine, pool, FIRST)
        self.marked(engine, pool, None, second)
        for name in (None, first):
            found = self.told(engine, pool, name=name)
            assert found, f"placed does not tell of volume '{first}', which was made with a mark"
            assert [one.key for one in found] == [info.key], (
                f"placed tells of the keys {[one.key for one in found]}; volume '{first}' has {info.key}, and no other a mark"
            )
            (one,) = found
            assert one.mark == FIRST, f"the mark of volume '{first}' is {one.mark}, and was {FIRST}"
            assert one.here and one.name == first, (
                f"placed tells of the volume as '{one.name}', here: {one.here}; it is '{first}' of this pool"
            )
            assert not one.settled, f"volume '{first}' is said to be settled, and nobody settled it"
        assert self.told(engine, pool, OTHER) == [], f"a volume of flavor '{FLAVOR}' is told as one of '{OTHER}'"
        assert self.told(engine, pool, name=second) == [], f"volume '{second}' has no mark, and placed tells of it"

    def test_a_settled_volume_stays_settled(self, engine: Engine, pool_xml: str) -> None:
        """``settle`` is seen by everybody, can be repeated, and changes nothing else of the volume, and no other volume."""
        pool = self.marking(engine, pool_xml)
        first, second = self.volume_names[:2]
        info, other = self.marked(engine, pool, FIRST), self.marked(engine, pool, SECOND, second)
        before = [self.facts(one) for one in self.listed(engine, pool)]
        for _ in range(2):
            self.fresh(engine, pool).settle(info)
            found = {one.key: one.settled for one in self.told(engine, pool)}
            assert found.get(str(info.key)), f"volume '{first}' was settled, and placed does not say so"
            assert found.get(str(other.key)) is False, (
                f"settling volume '{first}' changed what placed says of '{second}'"
            )
        after = [self.facts(one) for one in self.listed(engine, pool)]
        assert after == before, f"settling volume '{first}' changed the listing"

    def test_a_volume_is_marked_from_the_begin(self, engine: Engine, pool_xml: str) -> None:
        """At no step of ``create`` a volume is listed that ``placed`` does not tell of: another host may look just then."""
        pool = self.marking(engine, pool_xml)
        name, labels = self.volume_names[0], list[str]()

        def look(label: str) -> None:
            labels.append(label)
            listed = [one.key for one in self.listed(engine, pool) if one.name == name]
            keys = [one.key for one in self.told(engine, pool, name=name)]
            assert set(listed) <= set(keys), (
                f"at the step '{label}' volume '{name}' is listed, and placed does not tell of it"
            )

        backend = self.fresh(engine, pool, look)
        backend.mark = FIRST
        backend.create(xmlmap.given(self.volume_xml(name), Volume))
        assert labels, "create has no step: nothing was tested"
        look("the end")

    def test_a_copy_has_no_mark_of_its_source(self, engine: Engine, pool_xml: str) -> None:
        """A clone has the mark that it was made with, or none, whatever its source has; that keeps its own."""
        pool = self.marking(engine, pool_xml, "clone")
        first, second = self.volume_names[:2]
        source = self.marked(engine, pool, FIRST)
        self.fresh(engine, pool).settle(source)
        for mark in (None, SECOND):
            backend = self.fresh(engine, pool)
            backend.mark = mark
            made = backend.clone(
                xmlmap.given(self.volume_xml(second), Volume), backend.source(backend.look(first, None))
            )
            found = {one.key: (one.mark, one.settled) for one in self.told(engine, pool)}
            wanted = {str(source.key): (FIRST, True), **({str(made.key): (mark, False)} if mark else {})}
            assert found == wanted, f"after a clone with the mark {mark} placed tells {_words(found.items())}"
            if "delete" not in self.verbs(pool):
                break
            backend.delete(made)

    def test_what_is_deleted_is_told_of_no_more(self, engine: Engine, pool_xml: str) -> None:
        """A mark goes with its volume, and a later volume of that name has none of it."""
        pool = self.marking(engine, pool_xml, "delete")
        info = self.marked(engine, pool, FIRST)
        self.fresh(engine, pool).settle(info)
        self.fresh(engine, pool).delete(info)
        left = self.told(engine, pool)
        assert left == [], f"volume '{info.name}' was deleted, and placed tells {_words(left)}"
        self.marked(engine, pool, None)
        left = self.told(engine, pool)
        assert left == [], f"a new volume '{info.name}' without a mark got that of the one before: {_words(left)}"


def _words(found: Iterable[object]) -> str:
    return "; ".join(map(str, found)) or "of none"
