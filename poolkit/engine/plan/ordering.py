"""The order in which things are to be done, and what each waits for."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from poolkit import registry
from poolkit.engine import order
from poolkit.engine.admission import as_uuid
from poolkit.engine.plan.entries import Entry
from poolkit.engine.plan.present import Present
from poolkit.engine.plan.secrets import named
from poolkit.engine.plan.sources import identity
from poolkit.engine.plan.task import Task


class Groups(NamedTuple):
    """Entries that are compared and not yet in order."""

    secrets: list[Entry]
    flavors: list[Entry]
    pools: dict[str, Entry]
    volumes: list[Entry]
    pruned: list[Entry]


class Ordering:
    """Puts the entries of one plan in order. ``described`` are the names of pools with a document.

    ``places`` are the paths of wanted volumes, with the entries that make them.
    """

    def __init__(
        self, present: Present, tasks: Mapping[str, Task], described: Collection[str], places: Mapping[str, str]
    ) -> None:
        self.present, self.tasks, self.described, self.places = present, tasks, described, places

    def run(self, groups: Groups) -> list[Entry]:
        """Secrets, flavors, pools behind those they stand on, volumes behind their pools and what they are made from.

        Removals come last, and the other way round, but for a pool that has what another one is to get.
        """
        secrets, flavors, pools, volumes, pruned = groups
        everything = {**pools, **{e.name: e for e in pruned if e.kind == "pool"}}
        removed = {name for name, entry in everything.items() if entry.action == "remove"}
        facts = {name: self._facts(name) for name in everything}
        way = order.plan(facts)
        begun = tuple(e.ident for e in secrets if e.action not in ("none", "remove"))
        made, gone = [], []
        for name in way.names:
            entry = everything[name]
            if name in removed:
                gone.append(entry)
                continue
            after = [identity("pool", o) for o in sorted(way.stands_on[name] | way.waits_for[name]) if o not in removed]
            below = [self.places[path] for path in facts[name].needs if path in self.places]
            freed = [identity("pool", o) for o in self._holders(entry) if o in everything]
            made.append(entry._replace(after=(*begun, *dict.fromkeys((*after, *freed)), *below)))
        kept = [e._replace(after=tuple(self._before(e, begun))) for e in volumes if e.action != "remove"]
        dropped = [e for e in [*volumes, *pruned] if e.kind == "volume" and e.action == "remove"]
        dropped = _sorted(list(self._without_those_above(dropped)))
        lost = [e.ident for e in dropped]
        named = self._named([e for e in [*flavors, *pruned] if e.kind == "flavor" and e.action != "none"])
        ended = []
        for entry in reversed(gone):
            above = [e.ident for e in gone if entry.name in way.stands_on[e.name] | way.waits_for[e.name]]
            own = (i for i in lost if i.startswith(f"volume {entry.name}/"))
            ended.append(entry._replace(after=(*own, *named.get(entry.name, ()), *above)))
        # A flavor goes when its volumes are gone, a secret when nothing is left that needs it.
        empty = [e._replace(after=tuple(lost)) for e in _removed("flavor", flavors, pruned)]
        unused = [e._replace(after=tuple(x.ident for x in ended)) for e in _removed("secret", secrets, pruned)]
        begin = [e for e in [*secrets, *flavors] if e.action != "remove"]
        return [*begin, *_sorted([*made, *kept]), *dropped, *empty, *ended, *unused]

    def _named(self, flavors: Sequence[Entry]) -> dict[str, list[str]]:
        """What is done to flavors, by the pools that they have as backends now: a pool goes when none has it any more."""
        found: dict[str, list[str]] = {}
        present = self.present.flavors() if flavors else {}
        for entry in flavors:
            for backend in present[entry.name].backends if entry.name in present else ():
                found.setdefault(backend.pool, []).append(entry.ident)
        return found

    def _holders(self, entry: Entry) -> Iterator[str]:
        """Pools that still have a source, target, uuid or name that another one is to get.

        They are to let go of it: a plan in which they kept it was refused.
        """
        if "define" not in entry.steps:
            return
        definition = self.tasks[entry.ident].definition
        backend = self.present.core.definitions.backend(definition)
        yield from (other for _, other in self.present.holders(backend.claims(), entry.name))
        by_uuid = self.present.by_uuid
        named = (definition.uuid, by_uuid(definition.uuid or ""), by_uuid(as_uuid(entry.name) or ""))
        yield from (other for other in named if other not in (None, entry.name))

    def _facts(self, name: str) -> order.Facts:
        task = self.tasks[identity("pool", name)]
        definition = task.definition or (task.present and (task.present.running or task.present.stored))
        if definition is None:
            return order.Facts(name)
        return order.facts(definition, file_backed=registry.backend(definition.type).file_backed)

    def _before(self, entry: Entry, secrets: Collection[str]) -> Iterator[str]:
        if entry.pool in self.described:
            yield identity("pool", entry.pool or "")
        one = self.tasks[entry.ident].wanted
        if one is None:
            return
        if secrets and any(named(one.definition)):
            yield from secrets
        if one.definition.backing_store is not None:
            path = one.definition.backing_store.path
            below = self.places.get(os.path.normpath(path)) if path.startswith("/") else None
            if below is None and not path.startswith("/") and "://" not in path:
                below = identity("volume", path, one.pool)
            if below is not None and below != entry.ident:
                yield below
        content = one.definition.content
        if content is not None and content.volume is not None:
            yield identity("volume", content.volume, content.pool or one.pool)

    def _without_those_above(self, entries: list[Entry]) -> Iterator[Entry]:
        """An overlay is removed before the image it stands on."""
        paths = {}
        for entry in entries:
            listing = self.present.listing(entry.pool or "")
            if listing is not None and entry.name in listing.volumes:
                document = listing.document(entry.name)
                below = document.backing_store.path if document.backing_store is not None else None
                paths[entry.ident] = (document.target.path, below)
        standing: dict[str, list[str]] = {}
        for ident, (_, below) in paths.items():
            if below is not None:
                standing.setdefault(below, []).append(ident)
        for entry in entries:
            above = standing.get(paths.get(entry.ident, ("", None))[0], ())
            pool = [identity("pool", entry.pool or "")] if entry.pool in self.described else []
            yield entry._replace(after=(*pool, *above))


def _removed(kind: str, *entries: list[Entry]) -> list[Entry]:
    return [e for some in entries for e in some if e.kind == kind and e.action == "remove"]


def _sorted(entries: list[Entry]) -> list[Entry]:
    """Each behind those of the list that it waits for; what waits for itself in a circle stays where it is."""
    known = {entry.ident: entry for entry in entries}
    done: dict[str, Entry] = {}

    def place(entry: Entry) -> None:
        stack = [(entry, iter(entry.after))]
        way = {entry.ident}
        while stack:
            top, rest = stack[-1]
            for ident in rest:
                if ident in known and ident not in done and ident not in way:
                    way.add(ident)
                    stack.append((known[ident], iter(known[ident].after)))
                    break
            else:
                stack.pop()
                done.setdefault(top.ident, top)

    for entry in entries:
        if entry.ident not in done:
            place(entry)
    return list(done.values())
