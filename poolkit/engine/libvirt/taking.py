"""Taking over what a libvirt host has: secrets, definitions and marks for autostart; what is active there is adopted as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolkit import errors, registry, xmlmap
from poolkit.backend import DefinitionOnly, State
from poolkit.engine.libvirt.found import Found, FoundPool, FoundSecret
from poolkit.xmlmap import replace, without_reports

if TYPE_CHECKING:  # an engine is handed over
    from poolkit.engine.engine import Engine
    from poolkit.engine.operation import Outcome
    from poolkit.state.inventory import Record


class Taken(NamedTuple):
    """What became of one pool or secret.

    ``different`` is one that is here already and is not as in libvirt: it is left as it is. ``messages`` say what was done (in
    a dry run would be), ``warnings`` what was not, and ``error`` what failed.
    """

    kind: Literal["pool", "secret"]
    name: str
    result: Literal["taken", "unchanged", "different", "failed"]
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: errors.PoolkitError | None = None


class Imported(NamedTuple):
    """What became of all; ``marks`` has the command that removes libvirt's mark of each pool that both would start at boot."""

    results: tuple[Taken, ...]
    marks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or in a dry run would be."""
        return any(one.messages for one in self.results)

    @property
    def failed(self) -> tuple[Taken, ...]:
        """What failed, wholly or in part."""
        return tuple(one for one in self.results if one.error is not None)


def take(engine: Engine, found: Found, *, report: Callable[[Taken], object] | None = None) -> Imported:
    """Define what ``found`` has and is not here yet, mark it for autostart as there, and adopt what is active there.

    Nothing is stopped, mounted or started that is not up, nothing that is here already is changed, and nothing in libvirt.
    What cannot be taken is told, and the rest goes on. Repeatable. ``report`` gets each result when it is known.
    """
    results: list[Taken] = []
    marks: list[str] = []
    everything: tuple[FoundSecret | FoundPool, ...] = (*found.secrets, *found.pools)
    for one in everything:
        work: _Work = _Secret(engine, one) if isinstance(one, FoundSecret) else _Pool(engine, one, found.here)
        results.append(work.result())
        if isinstance(one, FoundPool) and one.mark and work.marked:
            marks.append(one.mark)
        if report is not None:
            report(results[-1])
    warnings = list(found.notes)
    if marks:
        warnings.append(
            "two engines must not both start a pool: what is marked for autostart in libvirt is marked here as well "
            f"({len(marks)} {'pool' if len(marks) == 1 else 'pools'}). When poolkit is to start it, remove libvirt's marks"
        )
    if any(one.active for one in found.pools):
        warnings.append(
            "pools that are active in both are one storage: whoever stops such a pool takes it from both, and after one has "
            "made or deleted a volume the other has to refresh"
        )
    return Imported(tuple(results), tuple(marks), tuple(warnings))


class _Work:
    """The work on one object: what it did, and what not."""

    kind: Literal["pool", "secret"]

    def __init__(self, engine: Engine, name: str, source: str, error: errors.PoolkitError | None) -> None:
        self.engine, self.name, self.source, self.error = engine, name, source, error
        self.dry = engine.host.dry_run
        self.marked = False
        self.different = False
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def result(self) -> Taken:
        """Do it."""
        begun = False
        try:
            if self.error is None:
                begun = self.define()
                self.finish()
        except errors.Aborted:
            raise
        except errors.PoolkitError as error:
            self.error = error
        failed = self.error is not None and not begun
        state: Any = (
            "failed" if failed else "different" if self.different else "taken" if self.messages else "unchanged"
        )
        return Taken(self.kind, self.name, state, tuple(self.messages), tuple(self.warnings), self.error)

    def define(self) -> bool:
        """Store the definition, unless it is here; true when it is."""
        raise NotImplementedError

    def finish(self) -> None:
        """What comes after the definition."""

    def did(self, message: str) -> None:
        """Note what was done, or would be."""
        self.messages.append(message)

    def read(self, data: bytes, classes: Any, part: Any = None) -> Any:
        """The definition in a document; what poolkit does not know is left out and told of."""

        def warn(problem: errors.Problem) -> None:
            self.warnings.append(f"left out: {problem}")

        text = xmlmap.read(data, classes, filename=self.source, strict=False, warn=warn, part=part)
        return without_reports(text)


class _Pool(_Work):
    kind = "pool"

    def __init__(self, engine: Engine, one: FoundPool, here: bool) -> None:
        super().__init__(engine, one.name, one.source, one.error)
        self.one, self.here = one, here
        self.definition: Any = None
        self.record: Record | None = None

    def define(self) -> bool:
        """Store the definition of a persistent pool; that of a transient one is only looked at."""
        self.definition = self.read(self.one.data, registry.candidates(self.one.data), self.one.part)
        if self.definition.name != self.name:
            raise errors.InvalidArgument(
                f"'{self.source}' describes pool '{self.definition.name}': libvirt does not load it, either",
                pool=self.name,
            )
        core = self.engine.core
        self.record = core.index.sync(self.name)
        if self.record is not None and not core.exists(self.record):
            self.record = None
        if self.record is not None and self.record.stamp is not None:
            self._compare(self.record)
        elif self.one.persistent:
            self.engine.define(self.definition)
            self.did(f"pool '{self.name}' {'would be' if self.dry else 'is'} defined")
            self.record = core.index.sync(self.name)
        return True

    def _compare(self, record: Record) -> None:
        if record.error:
            raise errors.InvalidState(
                f"pool '{self.name}' is here already, and its definition cannot be read: {record.error}", pool=self.name
            )
        stored = self.engine.core.definitions.load(self.name)
        if self.definition.uuid is None:  # a document by hand: libvirt gives it another one each time it is loaded
            self.definition = replace(self.definition, uuid=stored.uuid)
        if stored.uuid != self.definition.uuid:
            raise errors.PoolExists(
                f"there is another pool '{self.name}' here already, with the uuid {stored.uuid}", pool=self.name,
                hint="undefine the one that is not needed, or define libvirt's under another name",
            )  # fmt: skip
        fields = [field for field, _, _ in xmlmap.diff(xmlmap.without_own(stored), self.definition)]
        if fields:
            self.different = True
            self.warnings.append(
                f"pool '{self.name}' is here already, and is left as it is; libvirt has another {errors.some(fields)}"
            )

    def finish(self) -> None:
        """Mark it for autostart as there, and adopt it if it is active there."""
        if self.one.mark:
            self._mark()
        if not self.one.active:
            return
        if not self.here:
            self.warnings.append(f"pool '{self.name}' is active on the other host, and not looked for here")
            return
        core = self.engine.core
        if self.record is not None and core.activity(self.record)[0]:
            return
        if issubclass(registry.backend(self.definition.type), DefinitionOnly):
            self.warnings.append(f"pool '{self.name}' is kept, and not active here: this version cannot drive its type")
            return
        state = self._state()
        if not state.up:
            self.warnings.append(f"pool '{self.name}' is active in libvirt, and not taken over so: {state.why}")
            return
        if not self.dry:
            self._adopt()
        kind = "" if self.one.persistent else " as a transient pool"
        self.did(
            f"pool '{self.name}' {'would be' if self.dry else 'is'} active{kind}: its storage is up, and was left so"
        )

    def _mark(self) -> None:
        if self.engine.core.store.autostart(self.name):
            self.marked = True
            return
        if not self.dry:
            self.engine.pool(self.name).autostart()
        self.marked = True
        self.did(f"pool '{self.name}' {'would be' if self.dry else 'is'} marked for autostart")

    def _state(self) -> State:
        core = self.engine.core
        definition = core.definitions.load(self.name) if self.different else self.definition
        try:
            return core.definitions.backend(definition, self.engine.host.operation()).state()
        except (errors.PoolkitError, OSError) as error:
            return State(False, why=str(error))

    def _adopt(self) -> None:
        try:
            if self.one.persistent:
                outcome: Outcome | None = self.engine.pool(self.name).start()
            else:
                outcome = self.engine.create(self.definition).outcome
        except errors.PoolkitError as error:
            self.warnings.append(f"pool '{self.name}' is active in libvirt, and could not be taken over so")
            raise error
        self.warnings += outcome.warnings if outcome is not None else ()


class _Secret(_Work):
    kind = "secret"

    def __init__(self, engine: Engine, one: FoundSecret) -> None:
        super().__init__(engine, one.uuid, one.source, one.error)
        self.one = one
        self.secret: Any = None

    def define(self) -> bool:
        """Store the description, unless it is here."""
        from poolkit import documents

        definition = self.read(self.one.data, [documents.Secret])
        self.name = definition.uuid or self.name
        known = next((secret for secret in self.engine.secrets() if secret.uuid == definition.uuid), None)
        if known is not None and xmlmap.without_own(known.definition) != definition:
            self.different = True
            self.warnings.append(f"secret {self.name} is here already with another description, and is left as it is")
        self.secret = known or self.engine.define_secret(definition)
        if known is None:
            self.did(f"secret {self.name} {'would be' if self.dry else 'is'} defined")
        return True

    def finish(self) -> None:
        """Store the value, unless there is one."""
        value = self.one.value
        if value is None:
            if self.messages or not self.secret.has_value:
                self.warnings.append(f"secret {self.name} has no value: {self.one.why}")
            return
        if self.secret.has_value:
            try:
                same = self.engine.secret_store.read(self.secret.definition) == value.reveal()
            except errors.PoolkitError as error:
                self.warnings.append(f"whether secret {self.name} has libvirt's value is not known: {error}")
                return
            if not same:
                self.different = True
                self.warnings.append(f"secret {self.name} has another value than in libvirt, and keeps it")
            return
        if not self.dry:
            self.secret.set_value(value)
        self.did(f"secret {self.name} {'would have' if self.dry else 'has'} its value")
