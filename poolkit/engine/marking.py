"""What storage itself tells of flavors: who else has placed a volume of one name, whatever root or host that was.

Each disk is marked from the moment it is there, and settled when a look at all backends has shown no other of its flavor and
name. Of two that are made at the same time at least one sees the other, since each looks when its own is there. The one with
the lower key waits until the other is gone or settled; the other goes. So one settles, and never two.
"""

from __future__ import annotations

import time
from contextlib import suppress

from poolkit import errors
from poolkit.backend import Mark
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine.core import Core
    from poolkit.host.port import Host
    from poolkit.state.placements import Placement


PATIENCE = 10.0
"""Seconds that another volume of the name has to go or to settle: its maker needs a few calls for that."""


def mark(backend: Backend, placed: Placement | None) -> None:
    """Let a backend mark the volume that it makes next, if it is made through a flavor."""
    backend.mark = None if placed is None else Mark(placed.flavor, placed.reservation)


def keeper(core: Core, pool: str, host: Host) -> Backend | None:
    """The backend of a pool whose storage keeps marks, active or not; None for others, and for what is not there."""
    with suppress(errors.PoolkitError):
        record = core.record(pool)
        active = core.activity(record, host)[0]
        backend = core.definitions.backend(
            core.definitions.running(record) if active else core.definitions.load(pool, record.stamp), host
        )
        return backend if backend.marks() else None
    return None


def _keepers(core: Core, first: Backend, pools: Iterable[str], host: Host) -> Iterator[Backend]:
    """Backends that tell of all marks between them, each storage once."""
    told = {first.marks()}
    yield first
    for pool in pools:
        other = keeper(core, pool, host)
        if other is not None and other.marks() not in told:
            told.add(other.marks())
            yield other


def settle(core: Core, backend: Backend, info: VolumeInfo, placed: Placement | None) -> None:
    """Let a volume stay that was placed through a flavor; ``VolumeExists`` if another one of its flavor and name does."""
    if placed is None or not backend.marks():
        return
    host = backend.host
    keepers = list(_keepers(core, backend, placed.pools, host))
    until, late = time.monotonic() + PATIENCE, False
    while rivals := list(_others(keepers, info, placed)):
        winner = next((key for key, settled in rivals if settled or key < str(info.key)), None)
        if winner is not None or late:
            raise errors.VolumeExists(
                f"flavor '{placed.flavor}' has a volume '{info.name}' already, which another process has made meanwhile",
                pool=backend.pool.name, volume=info.name, hint=f"its key is {winner or rivals[0][0]}",
            )  # fmt: skip
        host.abort.wait(0.1)
        host.check_abort()
        late = time.monotonic() > until  # then there is one more look: the last one may have taken all the time
    backend.settle(info)


def _others(keepers: Iterable[Backend], info: VolumeInfo, placed: Placement) -> Iterator[tuple[str, bool]]:
    """Key of each other volume of the flavor and name, and whether it stays. What this attempt left elsewhere is none."""
    for at, backend in enumerate(keepers):
        try:
            found = backend.placed(placed.flavor, info.name)
        except (errors.PoolkitError, OSError):
            if at == 0:
                raise  # it is where the volume itself is
            continue  # a storage that does not answer to anybody here takes no volume either
        for one in found:
            if one.key != info.key and one.mark.attempt != placed.reservation:
                yield one.key, one.settled
