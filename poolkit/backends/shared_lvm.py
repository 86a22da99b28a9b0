"""Pools of type ``shared-lvm``: an LVM volume group on storage that several hosts see."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from poolkit import errors
from poolkit.backend import Erased, Source, State, Usage, VolumeInfo
from poolkit.families import lvm, lvmlocks
from poolkit.families.lvm import Listing, LogicalVolume
from poolkit.families.lvmatonce import AtOnce
from poolkit.families.lvmgroups import PhysicalVolume
from poolkit.families.lvmvolumes import Fill
from poolkit.model import OptionalTarget, Pool, Volume
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one

_ATTEMPTS = 5
_PAUSE = 1.0  # seconds between them
_AT_ONCE = 1.0  # seconds after which a new group is looked at again: another host may have been making one, too
_LEAVING = 15  # seconds for which a host that has left the locks of a group may still count, 10 as measured


class SharedLvmSource(Element):
    """The volume group and how hosts are kept apart."""

    devices: tuple[PhysicalVolume, ...] = xml(
        "device", default=(), doc="Devices, by a name that is the same on every host."
    )
    name: str | None = xml(
        "name", type=simple.Name, default=None, effect="acted", doc="Volume group; the pool's name by default."
    )
    format: Literal["lvm2"] = xml("format/@type", default="lvm2", effect="kept", doc="LVM version 2.")
    lock: Literal["auto", "lvmlockd", "system-id", "none"] = xml(
        "lock/@type",
        default="auto",
        effect="acted",
        doc="Protection; auto takes the best that the hosts have, none must be asked for.",
    )
    attach_record: bool | None = xml(
        "lock/@record",
        default=None,
        effect="acted",
        doc="Whether an attach is recorded in the volume group (system-id only); yes by default.",
    )
    vendor: str | None = xml("vendor/@name", default=None, effect="kept", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, effect="kept", doc="What it is; for information.")


class SharedLvmPool(Pool):
    """A volume group that several hosts share."""

    type: ClassVar[str] = "shared-lvm"
    spare: ClassVar[dict[str, tuple[str, ...]]] = {}
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name", type=simple.Name, source="source.name", effect="acted", doc="Name; the source's by default."
    )
    source: SharedLvmSource = xml("source", default=SharedLvmSource, doc="The volume group and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/ and the volume group; what is given is ignored."
    )
    flavor: str | None = xml(
        "flavor", type=simple.Word, default=None, effect="kept", doc="Group of pools a volume may be placed in."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, and the target follows from it."""
        source = values.get("source") or SharedLvmSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/{source.name}")


class SharedLvmBackend(AtOnce):
    """A volume group that several hosts use: changed by those whose role is control, its volumes attached to one host each."""

    type = "shared-lvm"
    offers = ("shared",)
    definition = SharedLvmPool
    needs_root = ("start", "build")
    tools = bytewise = (
        "vgs", "lvs", "pvs", "pvcreate", "pvremove", "vgcreate", "vgchange", "vgremove", "lvcreate", "lvrename", "lvremove",
        "lvextend", "lvreduce", "lvchange", "wipefs",
    )  # fmt: skip
    packages: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(tools, "lvm2"), "wipefs": "util-linux", "lvmlockctl": "lvm2-lockd",
    }  # fmt: skip
    source_formats = ("lvm2",)

    def claims(self) -> Iterable[str]:
        """The group and its devices."""
        return (f"group {self.vg}", *(f"device {path}" for path in self.devices))

    # -- the pool -------------------------------------------------------------------------------------------------------

    def state(self, *, closely: bool = False) -> State:
        """Whether the group is there, in full, and what keeps the hosts apart works here."""
        try:
            group = self.shared_group()
            if group is None:
                return State(False, why=f"there is no volume group '{self.vg}'")
            if self.lock == "lvmlockd" and self.vg not in (lvmlocks.lockspaces(self.host) or {}):
                return State(False, why=f"the locks of the group '{self.vg}' are not started")
        except (errors.Unsafe, errors.Unsupported, errors.LockUnavailable) as error:
            return State(False, why=str(error))
        return State(True, whole=False)  # starting looks at more than a list of pools can

    def storage(self) -> str | None:
        """The UUID of the group, how often its metadata was changed, and its lock."""
        group = self.shared_group()
        return f"{group.uuid} {group.sequence} {group.lock}" if group is not None else None

    def changed_since(self, noted: str) -> str:
        """Whether another group has the name."""
        group = self.shared_group()
        same = group is None or group.uuid == noted.partition(" ")[0]
        return "" if same else f"another volume group is named '{self.vg}' now"

    def moved_since(self, noted: str) -> bool:
        """Whether any host has changed the metadata."""
        return self.storage() not in (None, noted)

    def start(self) -> None:
        """Join the locks of the group, or look whether it is ours; no volume is activated."""
        group = self.shared_group()
        if group is None:
            raise self.gone()
        self.require_whole()
        if self.lock == "none":
            self.host.warn(
                f"nothing keeps other hosts from changing the group '{self.vg}' at the same time: two changes at once destroy it"
            )
        self.check_guard()
        self._join_locks()

    def _join_locks(self) -> None:
        """Start lvmlockd's locks of the group where that is its lock and they are not started; undone if the verb fails."""
        if self.lock != "lvmlockd" or self.vg in lvmlocks.require_lvmlockd(self.host, self.pool.name):
            return
        start, stop = self._locking()
        for attempt in range(_ATTEMPTS):
            try:
                with self.worded():
                    # The first host of a group, and one that was killed, wait for sanlock: up to three minutes.
                    self.host.change(start, undo=stop, timeout=300, whole=True)
                return
            except errors.LockUnavailable as error:
                # lvmlockd may look for the device of its locks before udev has made it: "invalid parameters".
                if "invalid parameters" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE)

    def _locking(self) -> tuple[list[str], list[str]]:
        """The commands that join and leave the locks of the group."""
        start, stop = (self.command("vgchange", how, "--", self.vg) for how in ("--lockstart", "--lockstop"))
        return start, stop

    def stop(self) -> None:
        """Detach what is attached here and leave the locks; ``Busy`` while a volume is in use."""
        if self.shared_group() is None:
            return
        try:
            _ = self.lock
        except (
            errors.Unsafe,
            errors.Unsupported,
        ) as error:  # it is not ours any more, and what is of it is not ours to take down
            self.host.warn(f"what is active here of the group '{self.vg}' stays so: {error}")
            return
        up = [v for v in self.listing().volumes.values() if v.own and v.active]
        used = [f"volume '{v.name}' is {self.use(v)}" for v in up if v.open]
        if used:
            raise errors.Busy(
                f"pool '{self.pool.name}' cannot be stopped: {errors.some(used, 10, '; ')}", pool=self.pool.name
            )
        for volume in up:
            self.deactivate(volume.name)
            self._untag(volume)
        if self.lock == "lvmlockd" and self.vg in (lvmlocks.lockspaces(self.host) or {}):
            self.change("vgchange", "--lockstop", "--", self.vg)

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the group of the devices, for all hosts; a group that exists is taken as it is if its devices fit."""
        group = self.shared_group()
        if group is not None:
            _ = self.lock  # raises for one that is not ours
            self.require_whole()
            self.check_devices(self.group())
            return False
        # The bracket let pass what was there.
        lvmlocks.permit(self.host.node, "build", lambda: self.lock, self.pool.name)
        if self.lock == "lvmlockd":
            lvmlocks.require_lvmlockd(self.host, self.pool.name)
        try:
            if damage := self.damage():  # no place for a new group
                raise damage
            self.build_group(overwrite)
        except (errors.HostError, errors.Unsafe, errors.Busy) as error:
            if self._came_meanwhile():
                raise self._just_made() from error
            raise
        if self.lock == "lvmlockd":
            # Only with its locks can the group be removed, if what follows fails.
            self.change("vgchange", "--lockstop", "--", self.vg, undo=self._locking()[0])
        return True

    def _came_meanwhile(self) -> bool:
        """Whether there is a whole group now, and not of our making."""
        with contextlib.suppress(errors.PoolkitError):
            group = None if self.host.dry_run else lvmlocks.group(self.host, self.vg, anew=True)
            return group is not None and not (self._mark in group.tags or group.missing or group.damaged)
        return False

    def _just_made(self) -> errors.Busy:
        return errors.Busy(
            f"pool '{self.pool.name}': another host has just made a group '{self.vg}', and that is the one there is",
            pool=self.pool.name, hint=errors.Hint("if it is meant to be: ", errors.remedy("start", self.pool.name)),
        )  # fmt: skip

    _mark = ""
    """A tag that only the group has which was made here."""

    def make_group(self, devices: Sequence[str], first: str) -> None:
        """``vgcreate`` with what keeps hosts apart; nothing is activated by itself."""
        self._mark = lvmlocks.tag("made", secrets.token_hex(8))
        more = ["--setautoactivation", "n", "--addtag", lvmlocks.TAG, "--addtag", self._mark]
        if self.lock == "lvmlockd":
            more += ["--locktype", "sanlock"]  # --shared would take dlm where that is what runs
        if self.lock == "system-id":
            more += ["--addtag", lvmlocks.own_tag("control", self.node, self.pool.name)]
        where = f"{self.undo_selection(vg_name=self.vg)} && vg_tags={{{self._mark}}}"
        lvm.make_group(self.host, self.vg, devices, first, config=self.config, more=more, where=where)
        if not self.host.dry_run:
            self._require_made(devices)

    def _require_made(self, devices: Sequence[str]) -> None:
        """Raise where the group on the devices is not the one with our mark: before there is one no lock keeps hosts apart.

        Of two hosts that make it at once the one that wrote last has it, if it wrote all devices last.
        """
        time.sleep(_AT_ONCE)
        torn = errors.HostError(
            f"pool '{self.pool.name}': another host made the group '{self.vg}' of the same devices at the same moment, and "
            "neither is whole", pool=self.pool.name,
            hint=errors.Hint(
                f"as long as it has no volumes, on one host: wipefs --all -- {shlex.join(devices)}, and there "
                "alone: ", errors.remedy("build", self.pool.name),
            ),
        )  # fmt: skip
        try:
            group = lvmlocks.group(self.host, self.vg, anew=True)
        except errors.Unsafe as error:
            raise torn from error
        if group is None or group.missing or group.damaged:
            raise torn
        if self._mark not in group.tags:
            raise self._just_made()

    makes_pools = False  # they cannot be shared

    def erase(self) -> bool:
        """As for groups of one host; who may remove no group takes no label away either."""
        lvmlocks.permit(self.host.node, "delete", lambda: self.lock, self.pool.name)
        return super().erase()

    def remove_group(self) -> None:
        """``vgremove``; other hosts that have the locks started keep it there."""
        self._join_locks()
        for left in reversed(range(_LEAVING if self.lock == "lvmlockd" else 1)):
            try:
                self.change("vgremove", "--", self.vg)
                break
            except errors.Busy:
                if not left:
                    raise
                time.sleep(_PAUSE)
        others = [] if self.lock != "lvmlockd" else sorted({*(lvmlocks.lockspaces(self.host) or {})} - {self.vg})
        if others:
            self.host.warn(
                f"the group '{self.vg}' may have had the global lock of LVM, without which no group is made or removed: if LVM "
                f'says "Global lock failed", give it to another group, on one host: lvmlockctl --gl-enable {others[0]}'
            )

    def erased(self) -> Erased:
        """As for groups of one host."""
        return Erased(
            f"the volume group '{self.vg}' with LVM's labels of its devices, for all hosts",
            "what was written to the devices, which are not wiped",
        )

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """Sizes of the group."""
        group = self.group()
        return Usage(group.size, group.size - group.free, group.free)

    # -- volumes ----------------------------------------------------------------------------------------------------------

    def create(self, volume: Volume, *, stripes: int = 0, mirrors: int = 0) -> VolumeInfo:
        """Make a volume; it is zeroed in front and detached then. Thin ones cannot be shared, RAID is not supported."""
        self._check_shared(volume, mirrors)
        with self._origin_named(volume.backing_store.path.rpartition("/")[2] if volume.backing_store else ""):
            return super().create(volume, stripes=stripes)

    def clone(
        self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None,
        secret: bytes | None = None, stripes: int = 0, mirrors: int = 0,
    ) -> VolumeInfo:  # fmt: skip
        """Make a volume with the bytes of any other; ``linked`` a snapshot of a detached volume of the group."""
        self._check_shared(volume, mirrors)
        if linked and self.ours(source):
            self.require_detached(self._same(source.info), "the origin of a snapshot")
        with self._origin_named(source.info.name if linked else ""):
            return super().clone(
                replace(volume, allocation=None), source, linked=linked, reflink=reflink, secret=secret, stripes=stripes
            )

    @contextlib.contextmanager
    def _origin_named(self, name: str) -> Iterator[None]:
        """Say who has the origin of a snapshot, where its lock is what LVM could not get."""
        try:
            yield
        except errors.HeldElsewhere as error:
            if not name or error.volume == name:
                raise
            raise self.elsewhere(name) from error

    def _check_shared(self, volume: Volume, mirrors: int) -> None:
        if mirrors:
            raise errors.Unsupported(f"volume '{volume.name}': a shared group has no mirrors", volume=volume.name)
        if volume.backing_store is not None:
            self.require_detached(self._origin(volume.backing_store.path), "the origin of a snapshot")
        elif volume.allocation is not None and volume.capacity and volume.allocation < volume.capacity:
            raise errors.Unsupported(
                f"volume '{volume.name}' has less allocation than capacity, and thin volumes cannot be shared by hosts",
                volume=volume.name, hint="leave the allocation out",
            )  # fmt: skip

    def new(self, name: str, words: list[str], fill: Fill | None = None) -> tuple[Listing, LogicalVolume] | None:
        """As for groups of one host; it is detached at the end, and skipped where everything is activated."""
        made = super().new(name, words, fill)
        if made is None:
            return None
        found, volume = made
        if volume.snapshot:  # its origin is active with it
            self.deactivate(volume.origin)
        else:
            self.deactivate(name)
            self.change("lvchange", "--setactivationskip", "y", "--", f"{self.vg}/{name}", volume=name)
        return found, volume._replace(active=False, device="")

    def delete(self, info: VolumeInfo) -> None:
        """Remove a volume that is attached nowhere."""
        volume = self._same(info)
        self.require_detached(volume, "deleted")
        with self._with_origin(volume):
            try:
                super().delete(info)
            except errors.HeldElsewhere as error:
                raise self.elsewhere(volume.name) from error

    @contextlib.contextmanager
    def _with_origin(self, volume: LogicalVolume) -> Iterator[None]:
        """Hold the lock of a snapshot's origin, whose host goes on writing to what is changed: LVM does not take it."""
        if self.lock != "lvmlockd" or not volume.snapshot or volume.active:
            yield
            return
        origin = self.find(volume.origin)[1]
        self.activate_here(origin, shared=False)
        yield
        self.deactivate(origin.name)

    def resize(
        self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False, force: bool = False
    ) -> VolumeInfo:
        """Set the size; a volume that is attached elsewhere can grow, and is attached there anew to see it."""
        volume = self._same(info)
        elsewhere = [node for node in self.holders(volume) if node != self.node]
        alone = len(self.family(volume)) == 1  # else their devices depend on each other
        if not alone:
            self.require_detached(volume, "resized")
        if shrink and capacity < volume.size:
            self.require_detached(volume, "made smaller")
        try:
            with self._with_origin(volume):
                found = super().resize(info, capacity, allocate=allocate, shrink=shrink, force=force)
            if volume.snapshot and not self.host.dry_run:
                found = self.look(volume.name, info)  # as it is without its origin's lock
        except errors.HeldElsewhere as error:
            if volume.snapshot and error.volume != volume.name:
                raise
            if capacity <= volume.size or not alone:
                raise self.elsewhere(volume.name) from error
            extents = -(-capacity // self.group().extent)
            words = ("--lockopt", "skiplv", "--yes", "--extents", str(extents), "--", f"{self.vg}/{volume.name}")
            self.change("lvextend", *words, volume=volume.name)
            elsewhere = elsewhere or [lvmlocks.holder(self.host, self.vg, volume.name, self.config) or "another host"]
            found = info if self.host.dry_run else self.look(volume.name, info)
        if elsewhere:
            self.host.warn(
                f"volume '{info.name}' is attached to {', '.join(elsewhere)}: attach it there again to see the size"
            )
        return found
