"""How a volume comes to be that has no content yet: one, or many in one go."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.engine import operation
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from poolkit import model
    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine import asked, cloning, keeping, refreshing
    from poolkit.engine import options as given
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.engine.options import CreateOptions
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume
    from poolkit.host.gathered import Gathered
    from poolkit.state.inventory import Record

    Source = str | bytes | os.PathLike[str] | model.Volume
else:
    asked = later(globals(), "asked", "poolkit.engine.asked")
    cloning = later(globals(), "cloning", "poolkit.engine.cloning")
    given = later(globals(), "given", "poolkit.engine.options")
    keeping = later(globals(), "keeping", "poolkit.engine.keeping")
    refreshing = later(globals(), "refreshing", "poolkit.engine.refreshing")


AT_ONCE = 200
"""Files that are open at the same time, and on record in one step: a process may mostly have 1,024 (setrlimit(2))."""


def one(pool: Pool, source: Source, options: CreateOptions) -> Volume:
    """See :meth:`poolkit.engine.pool.Pool.create_volume`."""
    core, definition = pool._core, _definition(pool, source, options)
    name, wait, abort = definition.name, options.get("wait"), options.get("abort")
    base: AbstractContextManager[Any] = nullcontext(definition)
    if definition.backing_store is not None:
        base = cloning.held_base(core, definition, (pool.name, name), wait, abort)
    work = core.volume_work(pool.name, "vol-create", name, wait=wait, abort=abort, progress=options.get("progress"))
    with base as definition, work as (op, backend, record):
        keeping.expect(core, op, backend, record, pool._placed)
        info = _make(core, op, backend, record, definition, options)
        keeping.keep_new(core, op, backend, record, [info], pool._placed)
        made = _told(pool, op, backend, record, definition, info)
    core.emit(op, "volume-created", pool.name, pool.uuid, name)
    made.outcome = op.outcome(True, f"volume '{name}' is created")
    return made


def many(pool: Pool, sources: Iterable[Source], options: CreateOptions) -> list[Volume]:
    """See :meth:`poolkit.engine.pool.Pool.create_volumes`."""
    core = pool._core
    definitions = [_definition(pool, one, options, f"<definition {number}>") for number, one in enumerate(sources, 1)]
    _require_distinct(pool.name, definitions)
    if not definitions:
        return []
    wait, abort = options.get("wait"), options.get("abort")
    made: list[Volume] = []
    bases = [one.backing_store.path for one in definitions if one.backing_store is not None]
    # Those in the pool itself are locked with all of it.
    held = cloning.held_bases(core, bases, lambda found, _: found == pool.name, wait, abort) if bases else nullcontext()
    work = core.volume_work(pool.name, "vol-create", None, wait=wait, abort=abort, progress=options.get("progress"))
    with held, work as (op, backend, record):
        keeping.expect(core, op, backend, record, pool._placed)
        rest = list(definitions)  # the first is taken out each time: they are some hundred, or some thousand
        while rest:
            made += _portion(pool, op, backend, record, rest, options)
            op.host.progress(len(made), len(definitions), "volumes")
    outcome = op.outcome(True, f"{len(made)} volume{'s are' if len(made) > 1 else ' is'} created")
    for volume in made:
        core.emit(op, "volume-created", pool.name, pool.uuid, volume.name)
        volume.outcome = outcome
    return made


def _portion(
    pool: Pool, op: Operation, backend: Backend, record: Record, rest: list[Any], options: CreateOptions
) -> list[Volume]:
    """Make the first of ``rest``, as many as can be made together, and take them out of it.

    Other types than files have all of them made before the first is on record: an undo takes nothing off the record.
    """
    core = pool._core
    definitions: dict[str, Any] = {}
    infos: dict[str, VolumeInfo] = {}
    gathered: Gathered | None
    with _together(op, backend, record) as gathered:
        while rest and (gathered is None or len(definitions) < AT_ONCE):
            definition, store = rest[0], rest[0].backing_store
            if gathered is not None and store is not None and store.path.rpartition("/")[2] in gathered:
                break  # what it stands on has no name yet
            with _named(pool.name, definition.name):
                if store is not None:
                    definition = cloning.pinned(core, definition)
                op.more = len(rest) > 1
                infos[definition.name] = _make(core, op, backend, record, definition, options)
            definitions[definition.name] = definition
            del rest[0]
    if gathered is not None:
        for name in definitions:
            with _named(pool.name, name):
                listed = op.listed.get(name)
                if listed is None or name in gathered.changed:
                    listed = refreshing.look(core, backend, record, name, listed)
                infos[name] = listed
    keeping.keep_new(core, op, backend, record, list(infos.values()), pool._placed)
    return [_told(pool, op, backend, record, definition, infos[name]) for name, definition in definitions.items()]


def _together(op: Operation, backend: Backend, record: Record) -> AbstractContextManager[Gathered | None]:
    if op.dry or not backend.file_backed or backend.may_hang or record.target is None:
        return nullcontext()
    return op.host.files.gathering(record.target)


@contextmanager
def _named(pool: str, name: str) -> Iterator[None]:
    """An error of the body is told of the volume ``name``."""
    try:
        yield
    except errors.PoolkitError as error:
        error.volume = error.volume or name
        raise
    except OSError as error:
        raise operation.worded(error, pool, "vol-create", name) from error


def _definition(pool: Pool, source: Source, options: CreateOptions, called: str = "<string>") -> Any:
    """The definition that was given, whose name can be one of a volume; ``called`` is what errors call its document."""
    definition = pool.parse_volume(source, filename=options.get("filename", called), strict=options.get("strict", True))
    check_volume_name(definition.name, pool.name)
    return definition


def _require_distinct(pool: str, definitions: Sequence[Any]) -> None:
    seen: dict[str, int] = {}
    for number, definition in enumerate(definitions, 1):
        first = seen.setdefault(definition.name, number)
        if first != number:
            raise errors.InvalidArgument(
                f"definitions {first} and {number} have the same name, '{definition.name}'", pool=pool, volume=definition.name,
                hint="give each volume a name of its own",
            )  # fmt: skip


def _make(
    core: Core, op: Operation, backend: Backend, record: Record, definition: Any, options: CreateOptions
) -> VolumeInfo:
    core.still_there(backend, record, definition.name, dry=op.dry)
    if op.dry and backend.file_backed and definition.target.format in (None, "raw"):
        _foresee_space(backend, definition)
    require_format(backend, definition)
    own = given.of_backend(options, definition)
    backend.require_options("create", own)
    return backend.create(definition, **own)


def _told(pool: Pool, op: Operation, backend: Backend, record: Record, definition: Any, info: VolumeInfo) -> Volume:
    """The volume that was made, with a warning of what of its definition it does not have."""
    made = pool._volume(info, record.target)
    for words in asked.left_out(definition, info, made.path, files=backend.file_backed):
        op.host.warn(words)
    return made


def require_format(backend: Backend, definition: Any) -> None:
    """``Unsupported`` for a format that volumes of the pool's type do not have; types without formats are not asked."""
    known, format = backend.volume_formats, definition.target.format
    if not known or format is None or format in known:
        return
    import difflib

    near = difflib.get_close_matches(format, known, 1)
    raise errors.Unsupported(
        f"volume '{definition.name}': pools of type '{backend.type}' have no volumes of format '{format}'",
        volume=definition.name,
        hint=f"did you mean '{near[0]}'?" if near else f"they have: {', '.join(known)}",
    )


def _foresee_space(backend: Backend, definition: Any) -> None:
    """``NoSpace`` if a raw volume cannot have what it is to reserve; of other formats only the program knows it."""
    wanted = definition.capacity if definition.allocation is None else definition.allocation
    available = backend.usage(()).available
    if wanted > available:
        raise errors.NoSpace(
            f"volume '{definition.name}' needs {wanted} bytes, and the pool has {available}",
            volume=definition.name,
            hint=errors.Hint("reserve less: ", errors.Option("allocation", 0)),
        )
