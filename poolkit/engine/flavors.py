"""Flavors: kinds of storage under one name, and the placing of their volumes in pools."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from poolkit import errors
from poolkit.engine import placing
from poolkit.engine.operation import Outcome
from poolkit.engine.options import CloneOptions, CreateOptions, ImportOptions, checked
from poolkit.engine.policies import Facts, Request, order, room, why_not
from poolkit.state.flavors import FlavorStore
from poolkit.state.placements import Ledger

if TYPE_CHECKING:
    from poolkit import documents, model
    from poolkit.engine.core import Core
    from poolkit.engine.importing import Origin
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume


class Verdict(NamedTuple):
    """What a flavor would do with one backend: ``turn`` counts from 1, 0 if it would not be tried; then ``why`` says why."""

    facts: Facts
    turn: int
    room: int
    why: str


class Flavors:
    """The flavors of one root."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = FlavorStore(core.locations)

    def define(
        self,
        source: str | bytes | os.PathLike[str] | documents.Flavor,
        *,
        filename: str = "<string>",
        strict: bool = True,
    ) -> Flavor:
        """Store a flavor, or change it; ``Flavor.outcome`` says whether anything changed. Repeatable.

        Volumes stay where they are. Pools need not be there yet. ``InvalidDefinition``, ``InvalidArgument`` for a pool that is
        named twice, and ``HasDependents`` if a backend is left out that has volumes of the flavor: drain it instead.
        """
        from poolkit import documents, xmlmap

        definition = xmlmap.definition_alone(xmlmap.given(source, documents.Flavor, filename=filename, strict=strict))
        with placing.changing(self._core):
            return self._stored(definition)

    def change(self, name: str, edit: Callable[[documents.Flavor], documents.Flavor]) -> Flavor:
        """Store what ``edit`` makes of a flavor as it is now. Nobody else changes a flavor meanwhile, so ``edit`` is to be quick.

        Errors as of :meth:`get` and :meth:`define`.
        """
        with placing.changing(self._core):
            return self._stored(edit(self._store.load(name)))

    def _stored(self, definition: documents.Flavor) -> Flavor:
        names = [backend.pool for backend in definition.backends]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise errors.InvalidArgument(f"flavor '{definition.name}' names the pool '{twice[0]}' twice")
        path, host = self._store.path(definition.name), self._core.host.operation()
        try:
            old: Any = self._store.load(definition.name)
        except errors.FlavorNotFound:
            old = None
        if old is not None:
            there = {backend.pool for backend in old.backends} - set(names)
            left = [one for one in placing.placed(self._core, old) if one[0] in there]
            if left:
                raise _in_use(definition.name, left, "stored with a backend less")
        changed = definition != old
        if changed:
            self._store.save(definition, host)
        words = "is defined" if changed else "is defined so already"
        plan = (f"write {path}",) if changed else ()
        return Flavor(self._core, definition, Outcome(changed, f"flavor '{definition.name}' {words}", plan=plan))

    def get(self, name: str) -> Flavor:
        """A flavor by name; ``FlavorNotFound``."""
        return Flavor(self._core, self._store.load(name))

    def list(self) -> list[Flavor]:
        """All flavors, by name. ``InvalidDefinition`` for a file that was damaged by hand."""
        return [self.get(name) for name in self._store.names()]


class Flavor:
    """A flavor as it was read. ``outcome`` is that of the call that returned it."""

    def __init__(self, core: Core, definition: documents.Flavor, outcome: Outcome | None = None) -> None:
        self._core = core
        self.definition = definition
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Flavor {self.name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    def xml(self) -> str:
        """The document."""
        from poolkit import xmlmap

        return xmlmap.write(self.definition)

    def volumes(self) -> list[tuple[str, str]]:
        """Pool and name of the volumes that were placed through it and are there, by name."""
        return placing.placed(self._core, self.definition)

    def delete(self) -> Outcome:
        """Forget the flavor; pools and volumes stay. ``HasDependents`` while volumes of it are there. Repeatable."""
        store, host = FlavorStore(self._core.locations), self._core.host.operation()
        with placing.changing(self._core):
            left = self.volumes()
            if left:
                raise _in_use(self.name, left, "deleted")
            changed = store.remove(self.name, host)
        words = "is deleted" if changed else "was gone already"
        plan = (f"unlink {store.path(self.name)}",) if changed else ()
        return Outcome(changed, f"flavor '{self.name}' {words}", plan=plan)

    def explain(self, capacity: int = 0, allocation: int | None = None, format: str | None = None) -> list[Verdict]:
        """What would become of a volume of so many bytes: the backends that would be tried, in order, then the others.

        ``allocation`` None means all of the capacity. Changes nothing.
        """
        request = Request(capacity, capacity if allocation is None else allocation)
        facts = placing.facts(self._core, self.definition, format).facts
        refused = [(one, one.refused or why_not(one, request)) for one in facts]
        last = Ledger(self._core.inventory.database).last(self.name)
        fitting = order(self.definition.policy, [one for one, why in refused if not why], request, last)
        tried = [Verdict(one, at, room(one, request), "") for at, one in enumerate(fitting, 1)]
        return tried + [Verdict(one, 0, room(one, request), why) for one, why in refused if why]

    def create_volume(
        self, source: str | bytes | os.PathLike[str] | model.Volume, **how: Unpack[CreateOptions]
    ) -> Volume:
        """Make a volume in the first backend that takes it; ``Volume.pool`` is where it is. Arguments as ``Pool.create_volume``.

        A backend that is full, unreachable, busy, down or cannot do it, or refuses the login, is passed over; what is wrong with
        the volume itself ends the search, and so does its name if any backend has it (``VolumeExists``). ``NotPlaced`` says
        of each backend why it did not take the volume.
        """
        from poolkit import model, xmlmap

        options = checked(how, CreateOptions, "create_volume")
        volume = xmlmap.given(
            source, model.Volume, filename=options.get("filename", "<string>"), strict=options.get("strict", True)
        )
        return self.place(
            volume.name, lambda pool: pool.create_volume(volume, **options), capacity=volume.capacity or 0,
            allocation=volume.allocation, format=volume.target.format, wait=options.get("wait"),
        )  # fmt: skip

    def create_volume_from(
        self, definition: str | bytes | os.PathLike[str] | model.Volume, source: Volume, **how: Unpack[CloneOptions]
    ) -> Volume:
        """Make a volume with the content of ``source`` in the first backend that takes it: a clone.

        Arguments as ``Pool.create_volume_from``, and errors also as ``create_volume``.
        """
        from poolkit import model, xmlmap

        options = checked(how, CloneOptions, "create_volume_from")
        if isinstance(definition, str) and definition.lstrip()[:1] != "<":
            asked = model.Volume(name=definition)
        else:
            asked = xmlmap.given(
                definition,
                model.Volume,
                filename=options.get("filename", "<string>"),
                strict=options.get("strict", True),
            )
            definition = asked
        said = asked.allocation
        return self.place(
            asked.name, lambda pool: pool.create_volume_from(definition, source, **options),
            capacity=max(asked.capacity or 0, source.info.capacity),
            allocation=0 if options.get("linked") else source.info.allocation if said is None else said,
            format=asked.target.format, wait=options.get("wait"),
        )  # fmt: skip

    def import_volume(self, name: str, origin: Origin, **how: Unpack[ImportOptions]) -> Volume:
        """Make a volume of an image in the first backend that takes it. Arguments as ``Pool.import_volume``.

        Errors also as ``create_volume``. A stream can be read once: it goes to the first backend alone in which there is room.
        What a server has is fetched anew for each backend that is tried.
        """
        from poolkit.engine.importing import sizes

        options = checked(how, ImportOptions, "import_volume")
        capacity, allocation = sizes(self._core.host.operation(), origin, options)
        return self.place(
            name, lambda pool: pool.import_volume(name, origin, **options), capacity=capacity, allocation=allocation,
            format=options.get("format"), wait=options.get("wait"), again=isinstance(origin, (str, os.PathLike)),
        )  # fmt: skip

    def place(
        self, name: str, make: Callable[[Pool], Volume], *, capacity: int = 0, allocation: int | None = None,
        format: str | None = None, wait: float | None = None, again: bool = True,
    ) -> Volume:  # fmt: skip
        """Make a volume ``name`` by ``make``, which is given one backend after the other; errors as ``create_volume``.

        ``capacity`` and ``allocation`` are the bytes that it will have and take, None for all of them, and ``format`` what
        backends must have. Without ``again`` the first backend that refuses ends the search.
        """
        request = Request(capacity, capacity if allocation is None else min(allocation, capacity))
        return placing.place(self._core, self.definition, placing.Job(name, request, format, make, again), wait)


def _in_use(flavor: str, left: list[tuple[str, str]], what: str) -> errors.HasDependents:
    said = errors.some([f"'{name}' in pool '{pool}'" for pool, name in left], 3)
    error = errors.HasDependents(
        f"flavor '{flavor}' cannot be {what}: it has volumes: {said}",
        hint="delete them first, or mark the backend as drained: <backend ... drained='yes'/>",
    )
    error.volumes, error.volume_count = tuple(left[:5]), len(left)
    return error
