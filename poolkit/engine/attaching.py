"""Making a volume usable on this host or another one, and ending that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from poolkit.backend import Backend, VolumeInfo
from poolkit.engine.keeping import at_once
from poolkit.engine.operation import Operation, Outcome
from poolkit.host.node import checked

if TYPE_CHECKING:
    from poolkit.engine.volume import Volume


def attach(
    volume: Volume, *, shared: bool, node: str | None, vm: str | None, wait: float | None, abort: threading.Event | None
) -> Outcome:
    """See :meth:`poolkit.engine.volume.Volume.attach`."""
    how = f"attached{f' to {node or vm}' if node or vm else ''}"
    return _move(
        volume, "attach", how, vm, wait, abort, "vol-allow" if _is_other(volume, node) else None,
        lambda backend, now, noted: backend.attach_listed(now, noted, shared=shared, node=node),
        lambda backend, now: backend.attach(now, shared=shared, node=node, **_machine(vm)),
    )  # fmt: skip


def detach(
    volume: Volume, *, node: str | None, vm: str | None, force: bool, wait: float | None, abort: threading.Event | None
) -> Outcome:
    """See :meth:`poolkit.engine.volume.Volume.detach`."""
    how = f"detached{f' from {node or vm}' if node or vm else ''}"
    return _move(
        volume, "detach", how, vm, wait, abort, "vol-forget" if _is_other(volume, node) else None,
        lambda backend, now, noted: backend.detach_listed(now, noted, node=node, force=force),
        lambda backend, now: backend.detach(now, node=node, force=force, **_machine(vm)),
    )  # fmt: skip


def _is_other(volume: Volume, node: str | None) -> bool:
    """Whether a node is not this host; ``InvalidArgument`` for what cannot be the name of one."""
    return node is not None and checked(node, "", f"volume '{volume.name}'").name != volume._core.host.node.name


def _move(
    volume: Volume, verb: str, how: str, vm: str | None, wait: float | None, abort: threading.Event | None,
    bracket: str | None,
    listed: Callable[[Backend, VolumeInfo, str], VolumeInfo | None],
    move: Callable[[Backend, VolumeInfo], VolumeInfo],
) -> Outcome:  # fmt: skip
    """Attach or detach: at once by what is ``listed`` where the backend can, else by a whole ``move``.

    For another node it is something else, which its ``bracket`` says: what is on record of that one is changed.
    """
    if vm is None and bracket is None and (done := at_once(volume, f"vol-{verb}", wait, abort, listed)):
        return _moved(volume, *done, how, moved=True)
    core = volume._core
    with core.volume_work(
        volume.pool.name, f"vol-{verb}", volume.name, wait=wait, abort=abort, bracket=bracket
    ) as work:
        op, backend, record = work
        now = core.same_volume(backend, record, volume.info)
        backend.require_options(verb, _machine(vm))
        volume._store(work, backend, move(backend, now), now)
    return _moved(volume, op, now, how)


def _moved(volume: Volume, op: Operation, before: VolumeInfo, how: str, *, moved: bool = False) -> Outcome:
    changed = bool(op.host.plan) if op.dry else moved or volume.info != before
    if changed:
        volume._emit(op, "volume-changed")
    where = f": {volume.path}" if how == "attached" else ""
    return op.outcome(changed, f"volume '{volume.name}' is {how}{'' if changed else ' already'}{where}")


def _machine(vm: str | None) -> dict[str, str]:
    return {} if vm is None else {"vm": vm}
