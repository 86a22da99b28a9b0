"""From what is wanted and what there is to a plan: every document compared, in the order in which things are to be done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.engine.creating import require_format
from poolkit.engine.plan import conflicts
from poolkit.engine.plan.comparing import of_pool, of_volume
from poolkit.engine.plan.descriptions import absent, flavor, secret
from poolkit.engine.plan.entries import UNSEEN, Action, Change, Entry, Word
from poolkit.engine.plan.ordering import Groups, Ordering
from poolkit.engine.plan.present import Listing, PoolFacts, Present
from poolkit.engine.plan.pruning import gone, pruned
from poolkit.engine.plan.secrets import lacking
from poolkit.engine.plan.sources import Wanted, identity
from poolkit.engine.plan.task import Task
from poolkit.errors import InvalidDefinition, Problem
from poolkit.xmlmap import definition_alone, replace

if TYPE_CHECKING:
    from poolkit.engine.plan.marks import Mark


class Planned(NamedTuple):
    """The entries in order, what each stands for, and active pools whose stored listing has a wanted volume otherwise."""

    entries: list[Entry]
    tasks: dict[str, Task]
    stale: list[str]


class Planner:
    """Makes one plan. All that is wrong is collected in ``problems``."""

    def __init__(self, present: Present, wanted: Sequence[Wanted], prunable: Sequence[Mark] = ()) -> None:
        self.present = present
        self.wanted = wanted
        self.prunable = prunable
        self.problems: list[Problem] = []
        self.tasks: dict[str, Task] = {}
        self.pools = {one.name: one for one in wanted if one.kind == "pool"}
        self.volumes = [one for one in wanted if one.kind == "volume"]
        self._used = {pool for one in self.volumes for pool in _pools_of(one)}
        self._described = {one.ident for one in wanted}
        self._absent = {one.ident for one in self.volumes if absent(one)}
        self._secrets: list[Task] = []
        self._stale: set[str] = set()
        self._places: dict[str, str] = {}
        """Paths of wanted volumes, and the entries that make them."""

    def run(self) -> Planned:
        """The plan; ``InvalidDefinition`` with all that cannot be meant."""
        secrets = [self._kept(one, secret(one, self.present, self.problems)) for one in self._of("secret")]
        self._secrets = [self.tasks[one.ident] for one in self._of("secret")]
        flavors = [self._kept(one, flavor(one, self.present)) for one in self._of("flavor")]
        pools = {name: self._pool(one) for name, one in self.pools.items()}
        volumes = [entry for one in self.volumes if (entry := self._volume(one)) is not None]
        removals = list(pruned(self.present, self.prunable, self._described, self.tasks))
        self._refuse_conflicts(pools, flavors, [entry for entry, _ in removals])
        if self.problems:
            raise InvalidDefinition(self.problems)
        self.tasks.update((entry.ident, task) for entry, task in removals)
        ordering = Ordering(self.present, self.tasks, self.pools, self._places)
        entries = ordering.run(Groups(secrets, flavors, pools, volumes, [entry for entry, _ in removals]))
        return Planned(entries, self.tasks, sorted(self._stale))

    def _refuse_conflicts(self, pools: Mapping[str, Entry], flavors: Iterable[Entry], pruned: Iterable[Entry]) -> None:
        self.problems += conflicts.of_pools(self.present, self.pools, pools, self.state)
        removed = [entry for entry in (*pools.values(), *flavors, *pruned) if entry.action == "remove"]
        going = {entry.name: self.pools.get(entry.name) for entry in removed if entry.kind == "pool"}
        gone = [entry.name for entry in removed if entry.kind == "flavor"]
        staying = [one for one in self._of("flavor") if not absent(one)]
        self.problems += conflicts.of_flavors(self.present, staying, going, gone)

    def _of(self, kind: str) -> Iterator[Wanted]:
        return (one for one in self.wanted if one.kind == kind)

    def _kept(self, one: Wanted, found: tuple[Entry, Task]) -> Entry:
        entry, self.tasks[one.ident] = found
        return entry

    # -- pools --------------------------------------------------------------------------------------------------------

    def state(self, name: str) -> str | None:
        """The state that a pool is to have; None for the one it has. Volumes need an active pool."""
        one = self.pools.get(name)
        if one is None:
            return None
        asked = one.definition.wanted.state if one.definition.wanted is not None else None
        return asked or ("active" if name in self._used else None)

    def _pool(self, one: Wanted) -> Entry:
        facts = self.present.pool(one.name)
        definition = definition_alone(one.definition)
        state = self.state(one.name)
        place = str(one.place)
        if state == "absent":
            self.tasks[one.ident] = Task(one, None, facts)
            return gone(one.name, facts, place)
        if facts is not None and definition.uuid is None and facts.record.uuid:
            definition = replace(definition, uuid=facts.record.uuid)
        self._refuse_taken(one, definition, facts)
        self.tasks[one.ident] = Task(one, definition, facts)
        changes, steps, pending = self._pool_changes(one, definition, facts, state)
        action: Action = "add" if facts is None else "change" if changes else "none"
        note = lacking(definition, self.present, self._secrets) if "start" in steps else ""
        return Entry(
            action, "pool", one.name, changes=tuple(changes), steps=tuple(steps), place=place, note=note, pending=pending
        )  # fmt: skip

    def _refuse_taken(self, one: Wanted, definition: Any, facts: PoolFacts | None) -> None:
        if definition.uuid is None:
            return
        if facts is not None and facts.record.uuid not in ("", definition.uuid):
            self.problems.append(
                one.problem(
                    f"pool '{one.name}' exists with the uuid {facts.record.uuid}; leave the uuid out", "/pool/uuid"
                )
            )
        other = self.present.by_uuid(definition.uuid) if facts is None else None
        if other is not None and self.state(other) != "absent":
            self.problems.append(one.problem(f"the uuid {definition.uuid} belongs to pool '{other}'", "/pool/uuid"))

    def _pool_changes(
        self, one: Wanted, definition: Any, facts: PoolFacts | None, state: str | None
    ) -> tuple[list[Change], list[str], tuple[Change, ...]]:
        asked = one.definition.wanted
        active = facts is not None and facts.active
        changes: list[Change] = []
        steps: list[str] = []
        pending: tuple[Change, ...] = ()
        if facts is None:
            steps.append("define")
        elif facts.stored is None:
            changes.append(Change("definition", None if not facts.persistent else "damaged", "stored"))
            steps.append("define")
        else:
            found = list(of_pool(facts.stored, definition, active=active and state != "inactive"))
            if found:
                changes += found
                steps.append("define")
            elif facts.running is not None and facts.running != definition and state != "inactive":
                live = self.present.core.definitions.backend(facts.running, self.present.host).live()
                known = {(path, repr(new)) for path, _, new in _diff(facts.running, definition_alone(live))}
                pending = tuple(
                    change for change in of_pool(facts.running, definition, active=True)
                    if change.when == "next-start" and (change.field, repr(change.new)) not in known
                )  # fmt: skip
        if asked is not None and asked.autostart is not None:
            marked = facts.autostart if facts is not None else False
            if marked != asked.autostart:
                changes.append(Change("autostart", marked, asked.autostart))
                steps.append("autostart")
        if state is not None and (state == "active") != active:
            changes.append(Change("state", "active" if active else "inactive", state))
            steps.append("start" if state == "active" else "destroy")
        return changes, steps, pending

    # -- volumes ------------------------------------------------------------------------------------------------------

    def _volume(self, one: Wanted) -> Entry | None:
        pool = one.pool or ""
        facts = self.present.pool(pool)
        owner = self.pools.get(pool)
        if facts is None and owner is None:
            self.problems.append(
                one.problem(f"volume '{one.name}' is for pool '{pool}', which no document describes", "/volume")
            )
            return None
        definition = definition_alone(one.definition)
        going = one.ident in self._absent
        if self.state(pool) == "absent":
            if not going:
                self.problems.append(one.problem(f"volume '{one.name}' is for pool '{pool}', which is to be absent"))
            return None
        if not going and not self._content_is_there(one):
            return None
        listing = self.present.listing(pool, None if owner is None else owner.definition)
        entry = self._compared(one, listing, going)
        if entry.action == "add" and entry.steps == ("vol-create",):
            self._refuse_unmade(one, definition, listing, owner.definition if owner else facts and facts.stored)
        if entry.steps and entry.steps[-1] in ("vol-create", "vol-import", "vol-clone"):
            notes = (entry.note, lacking(definition, self.present, self._secrets))
            entry = entry._replace(note="; ".join(filter(None, notes)))
        info = listing.volumes.get(one.name) if listing is not None else None
        self.tasks[one.ident] = Task(one, definition, info)
        if facts is not None and facts.active and listing is not None and listing.stale(one.name):
            self._stale.add(pool)
        base = getattr(getattr(owner.definition if owner else facts and facts.stored, "target", None), "path", None)
        if base is not None:
            self._places[os.path.normpath(f"{base}/{one.name}")] = one.ident
        if entry.action != "none":
            needed = [pool] if entry.steps[-1] != "vol-clone" else _pools_of(one)
            for idle in filter(self._idle, needed):
                self.problems.append(
                    one.problem(
                        f"volume '{one.name}' cannot be worked on: pool '{idle}' is not active, and is not to be"
                    )
                )
        return entry

    def _refuse_unmade(self, one: Wanted, definition: Any, listing: Listing | None, pool: Any) -> None:
        """Tell what can be no new volume of its pool. One that may be there already is only to have a format of the pool's."""
        if listing is None and pool is None:
            return
        backend = self.present.core.definitions.backend(definition_alone(pool)) if listing is None else listing.backend
        try:
            require_format(backend, definition)
            if listing is not None:
                backend.check_new(definition)
        except (errors.InvalidArgument, errors.Unsupported, errors.Unsafe) as error:
            self.problems.append(one.problem(f"{error}; {error.hint}" if error.hint else str(error), "/volume"))

    def _idle(self, pool: str) -> bool:
        """Whether a pool is not active, and the plan does not start it."""
        facts = self.present.pool(pool)
        state = self.state(pool)
        return state in ("inactive", "absent") or (state is None and not (facts is not None and facts.active))

    def _content_is_there(self, one: Wanted) -> bool:
        content = one.definition.content
        if content is None:
            return True
        why = ""
        if content.file is not None:
            path = os.path.join(one.folder, content.file)
            if not os.path.isfile(path):
                why = f"its content is to come from '{path}', which is no file"
            elif content.checksum is not None:
                from poolkit.content.arriving import Checksum

                try:
                    Checksum.parse(content.checksum)
                except errors.PoolkitError as error:
                    why = str(error)
        else:
            pool = content.pool or one.pool or ""
            source = identity("volume", content.volume, pool)
            known = source in self._described
            listing = None if known else self.present.listing(pool) if self.present.pool(pool) is not None else None
            if source in self._absent:
                why = f"its content is to come from volume '{content.volume}' of pool '{pool}', which is to be absent"
            elif not known and (listing is None or content.volume not in listing.volumes):
                why = f"its content is to come from volume '{content.volume}' of pool '{pool}', which there is not"
            elif content.checksum is not None:
                why = "a checksum is that of a file"
        if why:
            self.problems.append(one.problem(f"volume '{one.name}': {why}", "/volume/pkv:content"))
        return not why

    @staticmethod
    def _compared(one: Wanted, listing: Listing | None, going: bool) -> Entry:
        place = str(one.place)
        base = Entry("none", "volume", one.name, one.pool, place=place)
        there = listing is not None and one.name in listing.volumes
        if going:
            if listing is not None and not there:
                return base
            note = "" if listing is not None else "if it is there, which is seen when its pool is active"
            change = Change("state", "present", "absent")
            return base._replace(
                action="remove", changes=(change,), steps=("vol-delete",), needs=("delete",), note=note
            )
        step = "vol-create"
        if one.definition.content is not None:
            step = "vol-import" if one.definition.content.file is not None else "vol-clone"
        if listing is None or not there:
            note = UNSEEN
            if listing is not None:
                note = "a symbolic link has its name, and is not replaced" if one.name in listing.links else ""
            return base._replace(action="add", steps=(step,), note=note)
        changes = tuple(of_volume(one.definition, listing.document(one.name), listing.backend, listing.place))
        if not changes:
            return base
        note = ""
        if any(change.field == "capacity" for change in changes):
            note = listing.backend.fixed_size(listing.volumes[one.name]) or ""
        if note or any(change.when == "replace" for change in changes):
            if not note and all(
                change.field.startswith("target.permissions.") for change in changes if change.when == "replace"
            ):
                note = f"pools of type '{listing.backend.type}' cannot change who may use a volume that is there"
            changes = tuple(change._replace(when="replace") for change in changes)
            return base._replace(
                action="change", changes=changes, steps=("vol-delete", step), needs=("replace",), note=note
            )
        needs: tuple[Word, ...] = ("shrink",) if any(change.when == "shrink" for change in changes) else ()
        steps = {"vol-resize" if change.field == "capacity" else "vol-permit": None for change in changes}
        return base._replace(action="change", changes=changes, steps=tuple(steps), needs=needs)


def _pools_of(one: Wanted) -> list[str]:
    """The pools that have to be active for a volume: its own, and the one that its content comes from."""
    content = one.definition.content
    source = (content.pool or one.pool) if content is not None and content.volume is not None else one.pool
    return sorted({one.pool or "", source or ""})


def _diff(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    from poolkit import xmlmap

    return xmlmap.diff(old, new)
