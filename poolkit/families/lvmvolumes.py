"""The volumes of a volume group: what pools on LVM do with one of them, whoever may write the group."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from poolkit import errors
from poolkit.backend import Source, VolumeInfo, quoted
from poolkit.families import blockdevice, lvm, lvmrefusals
from poolkit.families.lvm import Listing, LogicalVolume
from poolkit.families.lvmcommands import LvmCommands
from poolkit.host import kernel, mounts
from poolkit.host.directory import TEMPORARY
from poolkit.model import Permissions, Volume
from poolkit.xmlmap import replace

_FILLING = 80  # percent from which on it is said

Fill = Callable[[int, LogicalVolume], None]
"""Writes the content of a new volume onto its open device."""


class LvmVolumes(LvmCommands):
    """The verbs of volumes that are logical volumes of the group ``vg``."""

    thin_pool_name: str | None = None
    """The thin pool for volumes with less space than capacity; None for the only one of the group."""

    def __init__(self, definition: Any, host: Any) -> None:
        super().__init__(definition, host)
        self.listed: Listing | None = None

    # -- listing ----------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All volumes, by one report for the whole group."""
        self.listed = found = self.listing()
        for volume in found.volumes.values():
            if volume.segtype == "thin-pool":
                self._warn_of(volume)
            if volume.listed:
                info = self.info(found, volume)
                old = known.get(volume.name)
                yield old if old is not None and old == info else info

    def _warn_of(self, pool: LogicalVolume) -> None:
        for what, percent in (("space of ", pool.percent), ("metadata of ", pool.metadata)):
            if percent >= _FILLING:
                self.host.warn(
                    f"the {what}the thin pool '{self.vg}/{pool.name}' is filled to {int(percent)} %: "
                    "writes to its volumes fail when nothing is left"
                )

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One volume as it is now."""
        found, volume = self.find(name)
        return self.info(found, volume)

    def is_thin(self, info: VolumeInfo) -> bool:
        """Whether it takes its space from a thin pool, one that zeros it: else its old data would be the next volume's."""
        volume = self.find(info.name)[1]
        return volume.thin and volume.zero

    def find(self, name: str) -> tuple[Listing, LogicalVolume]:
        """A volume by name, with the listing that has all its parts; ``VolumeNotFound``."""
        if lvm.name_fault(name, self.vg):
            raise self.missing(name)
        try:
            found = self.listing(name)
        except errors.ToolFailed as error:
            if "Failed to find logical volume" in error.stderr:
                raise self.missing(name) from error
            raise
        volume = found.volumes.get(name)
        if volume is None or not volume.listed:
            raise self.missing(name)
        if any(not piece[0].startswith("/") for piece in volume.pieces):
            found = self.listing()  # its parts have rows of their own
            volume = found.volumes.get(name, volume)
        return found, volume

    def info(self, found: Listing, volume: LogicalVolume) -> VolumeInfo:
        """What is reported of a volume. Its allocation counts every leg, and of a thin volume what is filled."""
        path = f"/dev/{self.vg}/{volume.name}"
        extents = found.extents(volume)
        used = sum(end - start for _, start, end in extents) or volume.size
        detail: dict[str, Any] = {"extents": [list(one) for one in extents]} if extents else {}
        # A cached volume has an origin too: the hidden volume that holds its data.
        if volume.origin and (volume.snapshot or volume.thin) and not volume.origin.endswith("_vorigin"):
            detail["backing"] = f"/dev/{self.vg}/{volume.origin}"
        if volume.partial and not volume.degraded:
            detail["error"] = f"{self.missing_device()}, and the volume has data on it"
        elif warning := self.warning_of(volume):
            detail["warning"] = warning
        facts = None
        if volume.active:
            with contextlib.suppress(OSError):
                facts = os.stat(path)
        return VolumeInfo(
            name=volume.name,
            type="block",
            capacity=volume.capacity,
            allocation=int(volume.size * volume.percent / 100) if volume.thin else used,
            mode=stat.S_IMODE(facts.st_mode) if facts else 0o600,
            owner=facts.st_uid if facts else 0,
            group=facts.st_gid if facts else 0,
            key=volume.uuid,
            path=path,
            detail=detail or None,
        )

    def warning_of(self, volume: LogicalVolume) -> str:
        """What an administrator should know of a volume, or an empty string."""
        if not volume.active:
            return "it is not active, so it has no device" + " (activation is skipped)" * volume.skip
        if volume.degraded:
            return "a device of it is missing: it has its data, and a copy less than it should have"
        if volume.health:
            return f"LVM reports its state as: {volume.health}"
        if volume.snapshot and volume.percent >= 100:
            return "the room for its changes is full: the snapshot is lost"
        if volume.snapshot and volume.percent >= _FILLING:
            return (
                f"the room for its changes is filled to {int(volume.percent)} %: when it is full the snapshot is lost"
            )
        return ""

    def missing_device(self) -> str:
        """Which devices of the group are not there, as a sentence without its end."""
        group = self.found()
        return f"{lvmrefusals.missing_words(group.lost if group is not None else ())} missing"

    # -- making -------------------------------------------------------------------------------------------------------

    def rounded(self, capacity: int) -> int:
        """LVM gives whole extents."""
        extent = self.group().extent
        return -(-capacity // extent) * extent

    def create(self, volume: Volume, *, stripes: int = 0, mirrors: int = 0) -> VolumeInfo:
        """Make a volume: linear, over several devices (``stripes``), with further copies on others (``mirrors``), or both.

        A smaller allocation than capacity makes a thin volume in the group's thin pool, a backing store in the group a
        snapshot of it. Capacities are rounded up to whole extents. What the extents held before is not erased.
        """
        self.check_new(volume)
        if volume.backing_store is not None:
            self._check_layout(volume, "a snapshot", stripes, mirrors)
            return self._make(volume, self._snapshot(volume, self._origin(volume.backing_store.path)))
        return self._make(volume, self._space(volume, volume.capacity or 0, stripes, mirrors))

    def check_new(self, volume: Volume) -> None:
        """Name and format, and the capacity, which only a snapshot has from elsewhere."""
        self._check(volume)
        if volume.backing_store is None and not volume.capacity:
            raise errors.InvalidArgument(f"volume '{volume.name}' needs a capacity", volume=volume.name)

    def clone(
        self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None,
        secret: bytes | None = None, stripes: int = 0, mirrors: int = 0,
    ) -> VolumeInfo:  # fmt: skip
        """Make a volume with the bytes of any other; an image becomes raw. A thin volume of the group shares its blocks.

        ``linked`` makes a snapshot of a volume of this group. Less allocation than capacity makes a thin volume if the group
        has a thin pool.
        """
        self._check(volume)
        ours = self.ours(source)
        if volume.capacity and volume.capacity < source.capacity:
            raise errors.InvalidArgument(
                f"volume '{volume.name}' would have {volume.capacity} bytes, and {source} has {source.capacity}",
                volume=volume.name,
            )
        if linked and not ours:
            raise errors.Unsupported(
                f"{source} is not in the group '{self.vg}', so no snapshot of it can be made there"
            )
        origin = self.find(source.info.name)[1] if ours and (linked or reflink is not False) else None
        capacity = max(volume.capacity or 0, source.capacity)
        full = volume.allocation is None or volume.allocation >= capacity
        if origin is not None and (linked or (origin.thin and not full and capacity == source.capacity)):
            self._check_layout(volume, "a snapshot", stripes, mirrors)
            return self._make(volume, self._snapshot(volume, origin))
        if reflink:
            raise errors.Unsupported(
                f"{source} and a copy of it in '{self.vg}' cannot share blocks",
                hint=errors.Hint("make a snapshot of it: ", errors.Option("linked")),
            )
        if self.listing(select=lvm.quoted(lv_name=volume.name)).volumes:
            raise self._exists(volume.name)
        if not full:
            try:
                self._thin_pool(volume)
            except errors.Unsupported:  # a sparse source is copied in full where there is no thin pool
                volume = replace(volume, allocation=None)
        words = self._space(volume, capacity, stripes, mirrors)
        return self._make(
            volume, words, lambda fd, one: self.fill(fd, source, blank=one.thin and one.zero, secret=secret)
        )

    def ours(self, source: Source) -> bool:
        """Whether it is a volume of this group."""
        return bool(getattr(source.pool, "type", "") == self.type and source.pool.source.name == self.vg)

    def _check(self, volume: Volume) -> None:
        why = lvm.name_fault(volume.name, self.vg)
        if why:
            raise errors.InvalidArgument(
                f"'{volume.name[:60]}' cannot be the name of a logical volume: {why}", volume=volume.name
            )
        if volume.target.format not in (None, "raw", "none", "unknown") or volume.target.encryption is not None:
            what = "encrypted" if volume.target.encryption is not None else volume.target.format
            raise errors.Unsupported(f"volume '{volume.name}': logical volumes are raw, not {what}", volume=volume.name)

    def _space(self, volume: Volume, capacity: int, stripes: int = 0, mirrors: int = 0) -> list[str]:
        """The words of lvcreate that say from where the space comes."""
        group = self.group()
        extents = -(-capacity // group.extent)
        if volume.allocation is not None and volume.allocation < capacity:
            self._check_layout(volume, "a thin volume", stripes, mirrors)
            pool = self._thin_pool(volume)
            return ["--type", "thin", "--virtualsize", f"{extents * group.extent}b", "--thinpool", pool, "--", self.vg]
        needed = extents * (mirrors + 1) * group.extent
        if needed > group.free:
            raise errors.NoSpace(
                f"pool '{self.pool.name}': volume '{volume.name}' needs {needed} bytes, and {group.free} are free",
                hint="give <allocation>0</allocation> for a volume in the thin pool" if self._thin_pools() else None,
            )
        words = ["--zero", "y", "--wipesignatures", "y", "--extents", str(extents)]
        if mirrors and stripes > 1:
            words += ["--type", "raid10", "--stripes", str(stripes), "--mirrors", str(mirrors)]
        elif mirrors:
            words += ["--type", "raid1", "--mirrors", str(mirrors)]
        elif stripes > 1:
            words += ["--type", "striped", "--stripes", str(stripes)]
        return [*words, "--", self.vg]

    @staticmethod
    def _check_layout(volume: Volume, what: str, stripes: int, mirrors: int) -> None:
        if stripes > 1 or mirrors:
            raise errors.InvalidArgument(
                f"volume '{volume.name}' would be {what}, which lies where its origin or its thin pool does: it has no "
                "stripes or mirrors of its own",
                volume=volume.name,
            )

    def _thin_pools(self) -> list[str]:
        return list(self.listing(select=lvm.quoted(segtype="thin-pool")).volumes)

    def _thin_pool(self, volume: Volume) -> str:
        """The thin pool for a volume with less space than capacity."""
        pools = self._thin_pools()
        wanted = self.thin_pool_name
        if wanted in pools or (wanted is None and len(pools) == 1):
            return wanted or pools[0]
        if wanted is not None:
            why = f"the group '{self.vg}' has no thin pool '{wanted}'"
            hint: str = errors.Hint("make it: ", errors.remedy("build", self.pool.name))
        elif pools:
            why = f"the group '{self.vg}' has several thin pools, {', '.join(pools)}"
            hint = "name one in the pool's definition: <pk:thin_pool name='…'/>"
        else:
            why = f"the group '{self.vg}' has no thin pool"
            hint = "leave the allocation out to reserve all space, or name a thin pool in the definition and build it"
        raise errors.Unsupported(
            f"volume '{volume.name}' has less allocation than capacity, and {why}", volume=volume.name, hint=hint
        )

    def _origin(self, path: str) -> LogicalVolume:
        """The volume of this group that a backing store names, by its path."""
        folder, _, name = path.rpartition("/")
        if folder != f"/dev/{self.vg}":
            raise errors.Unsupported(
                f"the backing store '{path[:200]}' is not in the group '{self.vg}', so no snapshot of it can be made",
                hint=f"snapshots are of /dev/{self.vg}/NAME",
            )
        return self.find(name)[1]

    def _snapshot(self, volume: Volume, origin: LogicalVolume) -> list[str]:
        """The words of lvcreate for a snapshot; allocation, else capacity, is the room for what changes later."""
        size = origin.capacity
        if volume.capacity and volume.capacity > size:
            raise errors.InvalidArgument(
                f"volume '{volume.name}' would be a snapshot of '{origin.name}', so it has its {size} bytes",
                volume=volume.name,
            )
        if origin.thin:
            return ["--snapshot", "--setactivationskip", "n", "--", f"{self.vg}/{origin.name}"]
        if origin.snapshot:
            raise errors.Unsupported(f"'{origin.name}' is a snapshot itself, and LVM makes none of those")
        extent = self.group().extent
        extents = -(-(volume.allocation or volume.capacity or size) // extent)
        return ["--snapshot", "--extents", str(extents), "--", f"{self.vg}/{origin.name}"]

    def _make(self, volume: Volume, words: list[str], fill: Fill | None = None) -> VolumeInfo:
        """Make a logical volume under a name of our own, fill it, and give it its name last: whole or not at all."""
        path = f"/dev/{self.vg}/{volume.name}"
        one = self.new(volume.name, words, fill)
        if one is None:
            return VolumeInfo(volume.name, "block", capacity=volume.capacity or 0, path=path)
        wanted = volume.target.permissions
        if wanted != Permissions():
            self._give(os.path.realpath(path), wanted)
        if fill is None and all(piece[0].startswith("/") for piece in one[1].pieces):
            return self.info(*one)
        return self.look(volume.name, None)

    def new(self, name: str, words: list[str], fill: Fill | None = None) -> tuple[Listing, LogicalVolume] | None:
        """``lvcreate`` with ``words``, so that ``name`` appears when ``fill`` is done; None in a dry run."""
        temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
        with self.worded(name):
            self.host.change(
                self.command("lvcreate", "--yes", "--name", temporary, *words),
                undo=self.command(
                    "lvremove", "--yes", "--select", self.undo_selection(vg_name=self.vg, lv_name=temporary)
                ),
                whole=True,
            )
        undo = None
        if not self.host.dry_run:
            found = self.listing(temporary)
            one = found.volumes[temporary]
            undo = self.command("lvremove", "--yes", "--select", self.undo_selection(lv_uuid=one.uuid))
            if fill is not None:
                info = VolumeInfo(temporary, "block", key=one.uuid, path=f"/dev/{self.vg}/{temporary}")
                with self.open_volume(info, write=True) as fd:
                    fill(fd, one)
        with self.worded(name):
            self.host.change(self.command("lvrename", "--", self.vg, temporary, name), undo=undo, whole=True)
        return None if self.host.dry_run else (found, one._replace(name=name))

    def _exists(self, name: str) -> errors.VolumeExists:
        return errors.VolumeExists(f"pool '{self.pool.name}' has a volume '{name}' already", volume=name)

    # -- changing -----------------------------------------------------------------------------------------------------

    def resize(
        self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False, force: bool = False
    ) -> VolumeInfo:
        """Set the size, rounded up to whole extents. The origin of snapshots can only grow, and only while inactive.

        A snapshot keeps its size; ``allocate`` gives it room for the change of every byte.
        """
        volume = self._same(info)
        name = f"volume '{volume.name}'"
        if volume.snapshot:
            return self._give_room(info, volume, capacity, allocate)
        if allocate and volume.thin:
            raise errors.Unsupported(f"{name} is thin: its space comes as it is written", volume=volume.name)
        group = self.group()
        extents = -(-capacity // group.extent)
        smaller = extents * group.extent < volume.size
        if smaller or volume.active or volume.external:
            self._alone(volume, "resized", "" if smaller else f"lvchange -an {self.vg}/{volume.name}, or ")
        if smaller and volume.open and not force:
            raise errors.Busy(
                f"{name} cannot be made smaller while it is in use{self._users(volume)}", volume=volume.name
            )
        words = ["lvreduce", "--force", *self._ignore_content()] if smaller else ["lvextend"]
        if extents * group.extent != volume.size:
            with self.worded(volume.name):
                self.host.change(
                    self.command(*words, "--yes", "--extents", str(extents), "--", f"{self.vg}/{volume.name}"),
                    whole=True,
                )
        return info if self.host.dry_run else self.look(volume.name, info)

    def _give_room(self, info: VolumeInfo, volume: LogicalVolume, capacity: int, allocate: bool) -> VolumeInfo:
        if not allocate or capacity != volume.capacity:
            more = self.by_hand("lvextend", "-L", "+SIZE", f"{self.vg}/{volume.name}")
            raise errors.Unsupported(
                f"volume '{volume.name}' is a snapshot: it has the size of '{volume.origin}'",
                volume=volume.name,
                hint=errors.Hint(
                    "for room for its changes give the size it has and ", errors.Option("allocate"), f", or: {more}"
                ),
            )
        extents = -(-capacity // self.group().extent)
        # 16 bytes per chunk of at least 4 KiB say what was changed; lvextend stops at what the snapshot can use.
        words = self.command("lvextend", "--yes", "--extents", str(extents + extents // 128 + 1))
        try:
            with self.worded(volume.name):
                self.host.change([*words, "--", f"{self.vg}/{volume.name}"], whole=True)
        except errors.ToolFailed as error:
            if "matches existing size" not in error.stderr:
                raise
        return info if self.host.dry_run else self.look(volume.name, info)

    def _ignore_content(self) -> list[str]:
        """From 2.03.17 on lvreduce looks into the volume and refuses to cut a file system, even when forced."""
        version = self.host.query(["lvreduce", "--version"], shared=True).stdout.split("LVM version:")[-1].split("(")[0]
        numbers = tuple(int(n) for n in version.strip().split(".") if n.isdigit())
        return ["--fs", "ignore"] if numbers >= (2, 3, 17) else []

    def delete(self, info: VolumeInfo) -> None:
        """Remove the logical volume that was listed; not one with snapshots, which would go with it, nor one in use."""
        volume = self._same(info)
        self._alone(volume, "deleted")
        if volume.open:
            raise errors.Busy(
                f"volume '{volume.name}' cannot be deleted while it is in use{self._users(volume)}", volume=volume.name
            )
        with self.worded(volume.name):
            self.host.change(
                self.command(
                    "lvremove", "--yes", "--select", lvm.quoted(lv_uuid=volume.uuid), "--", f"{self.vg}/{volume.name}"
                ),
                whole=True,
            )

    def _same(self, info: VolumeInfo) -> LogicalVolume:
        """The volume that was listed; ``Unsafe`` if another one has its name now."""
        volume = self.find(info.name)[1]
        if info.key and volume.uuid != info.key:
            raise self.replaced(f"'{info.path}'", info.name)
        return volume

    def _alone(self, volume: LogicalVolume, verb: str, way: str = "") -> None:
        """Refuse a volume that others live on: lvremove takes them along, and lvextend the end that they show."""
        if "thickorigin" in volume.role or volume.external:
            names = self.listing().dependents(volume)
            what = f"the volume{'' if len(names) == 1 else 's'} {quoted(names)}" if names else "other volumes"
            raise errors.InvalidState(
                f"volume '{volume.name}' cannot be {verb}: {what} stand{'s' if len(names) == 1 else ''} on it",
                volume=volume.name,
                hint="delete those that are based on it first"
                if volume.external
                else f"{way}delete its snapshots first",
            )

    def _users(self, volume: LogicalVolume) -> str:
        words = blockdevice.users(self.host, volume.device, processes=True)
        return f": {errors.some(words)}" if words else ""

    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> Any:
        """As for every block device; ``InvalidState`` for a volume that is not active."""
        there = os.path.exists(info.path or "")
        if not there:
            self._same(info)
        if (write or not there) and (why := (info.detail or {}).get("error")):
            raise errors.InvalidState(
                f"volume '{info.name}' cannot be {'written to' if there else 'opened'}: {why}",
                volume=info.name, hint=self.lost(),
            )  # fmt: skip
        if not there:
            raise errors.InvalidState(
                f"volume '{info.name}' is not active, so it has no device",
                volume=info.name,
                hint=f"activate it: lvchange -ay -K {self.vg}/{info.name}",
            )
        return super().open_volume(info, write=write, force=force)

    def identify(self, info: VolumeInfo, fd: int) -> None:
        """The device-mapper UUID of an LV is 'LVM-' and the UUIDs of group and volume, without dashes."""
        number = mounts.number(os.fstat(fd).st_rdev)
        uuid = kernel.value(f"/sys/dev/block/{number}/dm/uuid")
        if not uuid.startswith("LVM-") or not info.key or not uuid.endswith(info.key.replace("-", "")):
            raise self.replaced(f"'{info.path}'", info.name)
