"""What there is to say of a pool: in a module of its own, because a listing of pools needs nothing else of them."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from poolkit.engine.core import Core
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record


class PoolInfo(NamedTuple):
    """Facts of a pool; sizes in bytes (0 when inactive), ``refreshed`` in seconds since 1970.

    ``reason`` says why a pool that was started is not active, or why its last refresh failed.
    """

    name: str
    uuid: str
    type: str
    active: bool
    persistent: bool
    autostart: bool
    target: str | None
    capacity: int
    allocation: int
    available: int
    refreshed: float | None
    reason: str

    @property
    def state(self) -> str:
        """``active``, ``inactive`` or ``invalid`` (its definition file cannot be read)."""
        return "active" if self.active else "inactive" if self.type else "invalid"


def info_of(core: Core, record: Record, *, autostart: bool | None = None, host: Host | None = None) -> PoolInfo:
    """Facts of the pool of an inventory's record; ``autostart`` and ``host`` where many pools are asked for at once."""
    active, reason, moved = core.looked_at(record, host or core.host.operation())
    if moved:
        record = core.listed_anew(record)
    sizes = (record.capacity, record.allocation, record.available) if active else (0, 0, 0)
    return PoolInfo(
        name=record.name,
        uuid=record.uuid,
        type=record.type,
        active=active,
        persistent=record.stamp is not None,
        autostart=core.store.autostart(record.name) if autostart is None else autostart,
        target=record.target,
        capacity=sizes[0],
        allocation=sizes[1],
        available=sizes[2],
        refreshed=record.refreshed,
        reason=reason or record.error or record.trouble or "",
    )
