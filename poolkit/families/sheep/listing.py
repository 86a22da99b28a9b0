"""From inodes to volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from poolkit import errors
from poolkit.backend import VolumeInfo, check_volume_name
from poolkit.families.sheep import naming, wire
from poolkit.families.sheep.client import Failed
from poolkit.families.sheep.cluster import Cluster
from poolkit.families.sheep.wire import Inode

_DEPTH = 64  # snapshots of one disk that are followed to tell it from another one of its name


class Lineage(frozenset[str]):
    """The VDIs that a disk is or was before its snapshots: the same disk as another one if they have one in common."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lineage) and not self.isdisjoint(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def identity(info: VolumeInfo) -> Lineage:
    """Which disk a volume is, as it was listed."""
    return Lineage((info.detail or {}).get("lineage", ()))


def volumes(cluster: Cluster, place: str) -> Iterator[VolumeInfo]:
    """All disks and snapshots, in the order of their numbers; ``place`` is what their paths begin with."""
    inodes: dict[int, Inode] = {}
    for vid in cluster.vids():
        cluster.connection.host.check_abort()
        try:
            found = cluster.inode(vid)
        except wire.Damaged as error:
            cluster.connection.host.warn(f"{error}; it is not listed")
            continue
        if found is not None:
            inodes[vid] = found
    tags = Counter((one.name, one.tag) for one in inodes.values() if one.is_snapshot)
    for one in inodes.values():
        name = naming.spelled(
            one.name, one.tag, one.snapshot if one.is_snapshot else None, unique=tags[one.name, one.tag] == 1
        )
        try:
            check_volume_name(name)
        except errors.InvalidArgument:
            cluster.connection.host.warn(f"VDI {one.vid:x} is not listed: its name is too long to be written")
            continue
        try:
            info = volume(cluster, one, name, place, inodes)
        except Failed as failed:
            if failed.result not in (wire.NO_OBJECT, wire.NO_VDI):  # it was deleted meanwhile
                raise
            continue
        except wire.Damaged as error:
            detail = {"error": str(error).removeprefix(f"pool '{cluster.pool}': "), "unread": True}
            info = VolumeInfo(name, "network", "raw", key=f"{place}/{name}", path=f"{place}/{name}", detail=detail)
        yield info


def volume(cluster: Cluster, inode: Inode, name: str, place: str, known: Mapping[int, Inode]) -> VolumeInfo:
    """One disk or snapshot; ``known`` has inodes that were read already."""
    detail: dict[str, Any] = {
        "vdi_id": f"{inode.vid:x}", "lineage": lineage(cluster, inode, known), "object_size": 1 << inode.shift,
        "copies": inode.copies,
    }  # fmt: skip
    if inode.is_snapshot:
        detail |= {"snapshot_of": naming.spelled(inode.name), "snapshot_id": inode.snapshot}
    used = 0
    if inode.hyper:
        detail["warning"] = "a hyper volume: its space is not counted, and its data cannot be worked on"
    else:
        at = 0
        while at < inode.objects:
            count = min(65536, inode.objects - at)
            used += cluster.entries(inode, at, count).count(inode.vid)
            at += count
        if inode.copy_policy:
            detail["warning"] = "its data is erasure coded, and cannot be worked on"
    path = f"{place}/{name}"
    return VolumeInfo(
        name, "network", "raw", inode.size, used << inode.shift, key=path, path=path, detail=detail,
        mode=0o400 if inode.is_snapshot else 0o600,
    )  # fmt: skip


def lineage(cluster: Cluster, inode: Inode, known: Mapping[int, Inode]) -> list[str]:
    """What a ``Lineage`` is made of: the VDI, and for a disk those that its snapshots have made of it, with their times."""
    found: list[str] = []
    one: Inode | None = inode
    while one is not None and one.name == inode.name and len(found) < _DEPTH:
        found.append(f"{one.vid:x}-{one.created:x}")
        if inode.is_snapshot or not one.parent:
            break
        one = known.get(one.parent) or cluster.inode(one.parent)
    return found
