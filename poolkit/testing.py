"""For the tests of backends, poolkit's own and those of other packages.

:class:`ScriptedHost` answers programs from a script and writes down what was run: a test is then data, a definition and answers
in, lines out. :class:`BackendContract` is the behaviour that every backend owes: subclass it, say how to make a real
pool, and run it against the real thing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from poolkit import errors, registry
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host, Result, undo
from poolkit.host.mounts import Mount, MountTable


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program of the script says."""

    stdout: str = ""
    status: int = 0
    stderr: str = ""


class ScriptedHost(Host):
    """A host without a machine.

    ``answers`` maps the beginning of a command line (as a shell would show it) to its output: text, an
    :class:`Answer`, or a list of them for successive calls. The longest match counts. A query without an answer is an
    error of the test; a change without one succeeds and says nothing. ``lines`` is the transcript: ``?`` a query, ``!`` a
    change, ``<`` an undo. ``fail_at`` makes the change of that number (from 1) fail.
    """

    def __init__(
        self,
        answers: Mapping[str, str | Answer | list[str | Answer]] | None = None,
        *,
        mounts: Iterable[Mount] = (),
        fail_at: int = 0,
        programs: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.answers = {k: list(v) if isinstance(v, list) else v for k, v in (answers or {}).items()}
        self.lines: list[str] = []
        self.fail_at = fail_at
        self.changes = 0
        self.mount_table = list(mounts)
        self.installed = None if programs is None else frozenset(programs)
        self.journal = _MemoryJournal()  # type: ignore[assignment]

    def _view(self) -> Host:
        return self

    def program(self, name: str) -> str:
        """Every program is installed, unless ``programs`` was given."""
        if self.installed is not None and name not in self.installed:
            return super().program(f"{name} (not in the script)")
        return f"/usr/sbin/{name}"

    def mounts(self) -> MountTable:
        """The scripted mount table; a test may change it between calls."""
        return MountTable(self.mount_table)

    def locate(self, path: str) -> tuple[str, Mount | None]:
        """From the scripted table as it is now."""
        self._shared.pop(("locate", path), None)
        return super().locate(path)

    def query(self, argv: Sequence[str], **how: Any) -> Result:
        """Answer from the script."""
        self.lines.append(f"? {shlex.join(argv)}")
        return self._answer(argv, how.get("ok", (0,)), required=True)

    def change(self, argv: Sequence[str], *, undo: Any = None, **how: Any) -> Result:
        """Write the change down, and fail if it is the one to fail."""
        self._step(argv[0], undo)
        self._shared.clear()
        self.lines.append(f"! {shlex.join(argv)}")
        self._count(argv)
        return self._answer(argv, how.get("ok", (0,)), required=False)

    def step(self, label: str, undo: Any = None) -> bool:
        """Write a change by system call down; it is not made."""
        self._step(label, undo)
        self.lines.append(f"! {label}")
        self._count([label])
        return False

    def run_undo(self, argv: Sequence[str], *, input: str | None = None) -> None:
        """Write the undo down."""
        self.lines.append(f"< {shlex.join(argv)}")

    def _count(self, argv: Sequence[str]) -> None:
        self.changes += 1
        if self.changes == self.fail_at:
            raise errors.ToolFailed(
                f"'{argv[0]}' failed with status 5: injected", argv=argv, status=5, stderr="injected"
            )

    def _answer(self, argv: Sequence[str], ok: Sequence[int], *, required: bool) -> Result:
        line = shlex.join(argv)
        key = max((k for k in self.answers if line.startswith(k)), key=len, default=None)
        if key is None:
            if required:
                raise AssertionError(f"the script has no answer for: {line}")
            return Result(tuple(argv), 0, "", "")
        value = self.answers[key]
        if isinstance(value, list):
            value = value.pop(0) if len(value) > 1 else value[0]
        answer = Answer(value) if isinstance(value, str) else value
        if answer.status not in ok:
            raise errors.ToolFailed(
                f"'{argv[0]}' failed with status {answer.status}: {answer.stderr.strip()}",
                argv=argv,
                status=answer.status,
                stdout=answer.stdout,
                stderr=answer.stderr,
            )
        return Result(tuple(argv), answer.status, answer.stdout, answer.stderr)


class _MemoryJournal:
    def __init__(self) -> None:
        self.steps: list[undo.Undo] = []

    def append(self, step: undo.Undo) -> None:
        self.steps.append(step)

    def roll_back(self, host: ScriptedHost) -> None:
        for step in reversed(self.steps):
            if step.kind == "run":
                host.run_undo(step.args)
            else:
                host.lines.append(f"< {step}")
        self.steps.clear()


def transcript(xml: str, verb: Callable[[Any], Any], host: ScriptedHost) -> list[str]:
    """What ``verb`` (a function of the backend) runs for the pool defined by ``xml``: the lines, in order.

    If it fails its changes are undone and the last line is the error.
    """
    from poolkit import xmlmap

    definition: Any = xmlmap.read(xml, registry.definitions())
    backend = registry.backend(definition.type)(definition, host)
    try:
        verb(backend)
    except errors.PoolkitError as error:
        journal: Any = host.journal
        journal.roll_back(host)
        host.lines.append(f"error: {error}")
    return host.lines


class BackendContract:
    """What every backend owes, as pytest tests. Subclass it, define ``pool_xml`` and run it on real storage.

    The fixtures ``pool_xml`` (a definition whose storage can be built or exists) and ``tmp_path`` must be available. Verbs
    that a backend lacks must say so; verbs that it has must keep the promises of :class:`~poolkit.backend.Backend`.
    """

    capacity = 8 << 20
    """Bytes of the volumes the tests make."""
    volume_names = ("first", "second")
    """Names that the backend accepts for new volumes."""
    overwrite = False
    """Whether ``build`` needs ``overwrite``."""

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

    @staticmethod
    def verbs(pool: Pool) -> tuple[str, ...]:
        """The optional verbs of the pool's backend."""
        return registry.backend(pool.info.type).verbs()

    def made(self, pool: Pool, name: str | None = None) -> Volume:
        """A new volume."""
        return pool.create_volume(self.volume_xml(name or self.volume_names[0]))

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
        assert 0 <= info.available <= info.capacity
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
        with Engine(engine.locations.storage.rpartition("/")[0], dry_run=True) as dry:
            if "build" in self.verbs(pool):
                dry.pool(pool.name).build(overwrite=self.overwrite)
        assert not pool.info.active
        if "build" in self.verbs(pool):
            assert pool.build(overwrite=self.overwrite), "the dry run had built it"

    def test_missing_verbs_say_so(self, engine: Engine, pool_xml: str) -> None:
        """A verb that the type does not have is Unsupported and names pool and type."""
        pool = self.started(engine, pool_xml)
        if "create" not in self.verbs(pool):
            try:
                self.made(pool)
            except errors.Unsupported as error:
                assert pool.name in str(error)
            else:
                raise AssertionError("a volume was made by a backend that has no create")
        pool.destroy()

    # -- volumes ----------------------------------------------------------------------------------------------------

    def test_a_new_volume_is_found_every_way(self, engine: Engine, pool_xml: str) -> None:
        """By name, path and key, before and after a refresh and a restart of the pool."""
        pool = self.started(engine, pool_xml)
        if "create" not in self.verbs(pool):
            return
        volume = self.made(pool)
        name = volume.name
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
        if "create" not in self.verbs(pool):
            return
        first = self.made(pool)
        try:
            pool.create_volume(self.volume_xml(first.name))
        except errors.VolumeExists as error:
            assert first.name in str(error)
        else:
            raise AssertionError("the name was given twice")
        assert pool.volume(first.name).key == first.key

    def test_a_volume_can_be_deleted_once(self, engine: Engine, pool_xml: str) -> None:
        """Deleting is repeatable; the space comes back."""
        pool = self.started(engine, pool_xml)
        if "delete" not in self.verbs(pool):
            return
        volume = self.made(pool)
        assert volume.delete()
        assert volume.name not in [v.name for v in pool.volumes()]
        pool.refresh()
        assert volume.name not in [v.name for v in pool.volumes()]
        self.made(pool)

    def test_a_volume_grows(self, engine: Engine, pool_xml: str) -> None:
        """Growing works without a flag, shrinking only with it."""
        pool = self.started(engine, pool_xml)
        if "resize" not in self.verbs(pool):
            return
        volume = self.made(pool)
        size = volume.info.capacity
        assert volume.resize(size * 2)
        assert pool.volume(volume.name).info.capacity == size * 2
        try:
            volume.resize(size)
        except errors.InvalidArgument as error:
            assert "shrink" in (error.hint or "")
        else:
            raise AssertionError("data was cut off without being asked for")

    def test_what_is_uploaded_is_downloaded(self, engine: Engine, pool_xml: str) -> None:
        """Bytes come back as they went in, also from an offset."""
        pool = self.started(engine, pool_xml)
        if not {"create", "upload", "download"} <= set(self.verbs(pool)):
            return
        volume = self.made(pool)
        data = bytes(range(256)) * 4096
        volume.upload(BytesIO(data), offset=4096)
        out = BytesIO()
        volume.download(out, offset=4096, length=len(data))
        assert out.getvalue() == data

    def test_a_clone_has_the_same_bytes(self, engine: Engine, pool_xml: str) -> None:
        """The clone equals its source and is independent of it."""
        pool = self.started(engine, pool_xml)
        if not {"create", "clone", "upload", "download"} <= set(self.verbs(pool)):
            return
        volume = self.made(pool)
        data = b"poolkit!" * 65536
        volume.upload(BytesIO(data))
        clone = volume.clone(self.volume_names[1])
        volume.upload(BytesIO(bytes(len(data))))
        out = BytesIO()
        clone.download(out, length=len(data))
        assert out.getvalue() == data

    def test_a_wipe_leaves_nothing(self, engine: Engine, pool_xml: str) -> None:
        """After a wipe with zeros no old byte can be read through the volume."""
        pool = self.started(engine, pool_xml)
        if not {"create", "wipe", "upload", "download"} <= set(self.verbs(pool)):
            return
        volume = self.made(pool)
        volume.upload(BytesIO(b"secret" * 100_000))
        volume.wipe()
        out = BytesIO()
        volume.download(out)
        assert not out.getvalue().strip(b"\0")

    def test_bad_names_are_refused(self, engine: Engine, pool_xml: str) -> None:
        """Names that could leave the pool or pass for options never reach the storage."""
        pool = self.started(engine, pool_xml)
        if "create" not in self.verbs(pool):
            return
        from poolkit.xmlmap import replace

        before = [v.name for v in pool.volumes()]
        good = pool.parse_volume(self.volume_xml("good"))
        for name in ("..", ".", "-rf", "a\nb", "x" * 256):
            try:
                pool.create_volume(replace(good, name=name))
            except errors.PoolkitError:
                pass
            else:
                raise AssertionError(f"the name {name!r} was accepted")
        pool.refresh()
        assert [v.name for v in pool.volumes()] == before
