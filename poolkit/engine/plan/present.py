"""What there is: pools, their volumes and secrets, read once for a plan; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.backend import Backend, VolumeInfo
from poolkit.engine.core import Core
from poolkit.engine.describe import describer
from poolkit.xmlmap import definition_alone

if TYPE_CHECKING:  # an engine imports this package, and hands itself over
    from poolkit.engine.engine import Engine
    from poolkit.state.inventory import Record


class PoolFacts(NamedTuple):
    """A pool as it is: ``stored`` is its definition, None for a transient pool and for a file that cannot be read."""

    record: Record
    stored: Any
    running: Any
    active: bool
    autostart: bool

    @property
    def persistent(self) -> bool:
        """Whether it has a definition file, sound or not."""
        return self.record.stamp is not None


_TOLD = ("type", "format", "capacity", "inode", "mode", "owner", "group")
"""What a listing says of a volume that no guest changes by using it."""


class Listing(NamedTuple):
    """The volumes of a pool by name, and what can be asked about them."""

    volumes: dict[str, VolumeInfo]
    backend: Backend
    place: str | None
    known: Mapping[str, VolumeInfo] = {}
    """The last listing that was stored."""
    same: Set[str] = frozenset()
    """Names of volumes that are as that listing has them."""
    links: Set[str] = frozenset()
    """Names of symbolic links, which are no volumes."""

    def path(self, name: str) -> str:
        """Where a volume is."""
        return self.volumes[name].path or f"{self.place}/{name}"

    def stale(self, name: str) -> bool:
        """Whether the stored listing has a volume otherwise than it is; of a pool that is not active there is none."""
        if name in self.same:
            return False
        was, now = self.known.get(name), self.volumes.get(name)
        if was is None or now is None:
            return was is not now
        return any(getattr(was, fact) != getattr(now, fact) for fact in _TOLD)

    def document(self, name: str) -> Any:
        """A volume as a document."""
        return describer(self.place)(self.volumes[name])


class Present:
    """What there is in one root, as far as it is asked for."""

    def __init__(self, engine: Engine) -> None:
        self.core: Core = engine.core
        self.engine = engine
        self.host = engine.host.operation()
        self.core.index.sync()
        self._marked = self.core.store.autostart_names()
        self._records = {record.name: record for record in self.core.inventory.records() if self.core.exists(record)}
        self._names = {record.uuid: record.name for record in self._records.values()}
        self._pools: dict[str, PoolFacts] = {}
        self._listings: dict[str, Listing | None] = {}
        self._secrets: list[Any] | None = None
        self._flavors: dict[str, Any] | None = None

    def names(self) -> list[str]:
        """The names of all pools, in order."""
        return sorted(self._records)

    def pool(self, name: str) -> PoolFacts | None:
        """A pool by name, None if there is none."""
        known = self._pools.get(name)
        if known is None and (record := self._records.get(name)) is not None:
            known = self._pools[name] = self._look(record)
        return known

    def _look(self, record: Record) -> PoolFacts:
        definitions = self.core.definitions
        active = self.core.activity(record, self.host)[0]
        stored = None
        if record.stamp is not None and not record.error:
            stored = definitions.load(record.name, record.stamp)
        running = definitions.running(record) if active else None
        return PoolFacts(record, stored, running, active, record.name in self._marked)

    def by_uuid(self, uuid: str) -> str | None:
        """The name of the pool with that uuid."""
        return self._names.get(uuid)

    def holders(self, claims: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
        """Which of ``claims`` pools of another name have, and the names of those."""
        for claim in sorted(claims):
            if (found := self.core.inventory.claimed([claim], unless=name)) is not None:
                yield found

    def listing(self, name: str, wanted: Any = None) -> Listing | None:
        """The volumes of a pool, active or not; None if its storage is not up, so that nobody can tell.

        ``wanted`` is the document of a pool that is not there yet.
        """
        if name not in self._listings:
            self._listings[name] = self._list(self.pool(name), wanted)
        return self._listings[name]

    def _list(self, facts: PoolFacts | None, wanted: Any) -> Listing | None:
        definition = None if facts is None else facts.running
        if definition is None and wanted is not None:
            definition = definition_alone(wanted)
        elif definition is None and facts is not None:
            definition = facts.stored
        if definition is None:
            return None
        backend = self.core.definitions.backend(definition, self.host)
        record = None if facts is None else facts.record
        active = facts is not None and facts.active
        place = getattr(getattr(definition, "target", None), "path", None)
        if active and record is not None:
            place = record.target
        try:
            if not active and not backend.state().up:
                return None
            _, found, _ = self.core.scan(backend, record if active else None, place)
        except (errors.PoolkitError, OSError):
            if active:
                raise
            return None  # what is not up cannot be told
        volumes = {info.name: info for info in found}
        return Listing(volumes, backend, place, found.known, frozenset(found.same), frozenset(found.links))

    def flavors(self) -> dict[str, Any]:
        """All flavors by name. ``InvalidDefinition`` for a file that was damaged by hand."""
        if self._flavors is None:
            self._flavors = {flavor.name: flavor.definition for flavor in self.engine.flavors.list()}
        return self._flavors

    def secrets(self) -> list[Any]:
        """All secrets."""
        if self._secrets is None:
            self._secrets = list(self.engine.secrets())
        return self._secrets
