"""From a definition to running storage and its listing: the part that ``start`` and ``create`` share."""

from __future__ import annotations

from poolkit import errors
from poolkit.backend import Usage
from poolkit.engine import admission, standing
from poolkit.engine.index import target_of
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.state.backing import Edge, Standing
    from poolkit.state.inventory import Record


class Up(NamedTuple):
    """What is stored of a pool that was brought up; ``real`` and ``storage`` are described by ``Record``."""

    volumes: Sequence[VolumeInfo]
    usage: Usage
    real: str | None = None
    storage: str | None = None
    below: Standing | Sequence[Edge] = ()


def _is_up(backend: Backend) -> bool:
    """Whether somebody else has brought it up already; what cannot be asked without root is not."""
    try:
        return backend.state().up
    except errors.HostError:
        return False


def bring_up(
    core: Core,
    definition: Any,
    op: Operation,
    record: Record | None,
    *,
    build: bool = False,
    overwrite: bool = False,
    anew: bool = False,
) -> Up:
    """Start the storage of a definition and list it; what fails is undone by ``op``.

    ``anew`` starts also what seems to be up, because it can never work again.
    """
    backend = core.definitions.backend(definition, op.host)
    admission.refuse_claims_of_others(core, definition.name, backend.claims(), active=True)
    if not op.dry and not op.host.root and "start" in backend.needs_root and not _is_up(backend):
        admission.require_root(backend, "start", op.host, definition.name)
    if build:
        if overwrite:
            standing.require_free_source(core, op.host, backend, record)
        with backend.exclusive("build"):
            backend.build(overwrite=overwrite)
    if op.dry:
        backend.start()
        return Up([], Usage(0, 0, 0))
    state = backend.state()
    if not (state.up and state.whole) or anew:
        backend.start()
    admission.refuse_shared_place(core, definition, op.host)
    target = target_of(definition)
    real = op.host.locate(target)[0] if target is not None and backend.file_backed else None
    storage = backend.storage()
    _, volumes, usage = core.scan(backend, record, target)
    below = standing.below(backend, op.host, volumes)
    return Up(volumes, usage, real, storage, below)


def take_leave(core: Core, op: Operation, record: Record) -> None:
    """Before a definition goes: let the backend take away what stood for the pool elsewhere. What cannot be done is warned of."""
    if record.error:
        return
    try:
        core.definitions.backend(core.definitions.load(record.name), op.host).undefined()
    except errors.PoolkitError as error:
        op.host.warn(f"pool '{record.name}' is undefined, and something of it is left elsewhere: {error}")
