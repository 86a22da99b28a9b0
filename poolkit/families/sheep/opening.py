"""Volumes that were listed, looked up again before they are worked on."""

from __future__ import annotations

from poolkit import errors
from poolkit.backend import Transfer, VolumeInfo
from poolkit.content import space
from poolkit.families.sheep import listing, naming
from poolkit.families.sheep.cluster import Cluster
from poolkit.families.sheep.wire import Inode


def inode(cluster: Cluster, info: VolumeInfo, *, write: bool = False) -> Inode:
    """The inode of a volume that is still the one that was listed, else ``Unsafe``; to ``write`` to no snapshot."""
    raw, tag, number = naming.meant(info.name, cluster.pool)
    found = cluster.inode(cluster.find(raw, tag, number))
    if found is None or found.name != raw:
        raise missing(cluster.pool, info.name)
    same = listing.Lineage(listing.lineage(cluster, found, {})) == listing.identity(info)
    if not same or found.is_snapshot != ("@" in info.name):
        raise errors.Unsafe(
            f"the disk '{info.name}' was replaced since it was listed; it was left alone", pool=cluster.pool, volume=info.name,
            hint=errors.Hint("list it anew: ", errors.remedy("refresh", cluster.pool)),
        )  # fmt: skip
    if write and found.is_snapshot:
        raise errors.Unsupported(f"volume '{info.name}' is a snapshot: it cannot be changed", volume=info.name)
    return found


def data(cluster: Cluster, info: VolumeInfo, transfer: Transfer | None = None, *, write: bool = False) -> Inode:
    """As ``inode``, where the data is laid out as it is understood here and ``transfer`` is within it."""
    found = inode(cluster, info, write=write)
    if found.hyper or found.copy_policy:
        raise strange(info, "a hyper volume" if found.hyper else "erasure coded", "dog vdi read and write")
    if transfer is not None:
        space.check_range(info.name, transfer, found.size)
    return found


def strange(info: VolumeInfo, what: str, tool: str) -> errors.Unsupported:
    """The error for data that is laid out in another way."""
    return errors.Unsupported(
        f"volume '{info.name}' is {what}, whose data is not worked on here", volume=info.name,
        hint=f"Sheepdog's own tool does: {tool}",
    )  # fmt: skip


def missing(pool: str, name: str) -> errors.VolumeNotFound:
    """The error for a volume that is not there."""
    return errors.VolumeNotFound(f"pool '{pool}' has no volume '{name}'", pool=pool, volume=name)
