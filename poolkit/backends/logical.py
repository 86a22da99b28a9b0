"""Pools of type ``logical``: an LVM volume group whose logical volumes are the volumes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from poolkit import errors
from poolkit.backend import Erased, State, Usage, VolumeInfo
from poolkit.families import blockdevice, lvm
from poolkit.families.lvmvolumes import LvmVolumes
from poolkit.model import Extent, OptionalTarget, Pool
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one

if TYPE_CHECKING:
    from poolkit.host.port import Host


class PhysicalVolume(Element):
    """A device of the volume group."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", effect="acted", doc="Path of the device.")
    free_extents: tuple[Extent, ...] = xml(
        "freeExtent", default=(), compare=False, since="0.4.1", doc="Free space; reported."
    )


class LogicalSource(Element):
    """The volume group."""

    devices: tuple[PhysicalVolume, ...] = xml(
        "device", default=(), since="0.4.1", doc="Devices that build makes it of."
    )
    name: str | None = xml(
        "name",
        type=simple.Name,
        default=None,
        since="0.4.5",
        effect="acted",
        doc="Volume group; the pool's name by default.",
    )
    format: Literal["lvm2", "unknown"] = xml(
        "format/@type", default="lvm2", since="0.4.1", effect="kept", doc="LVM version 2."
    )
    vendor: str | None = xml(
        "vendor/@name", default=None, since="0.8.4", effect="kept", doc="Who made the storage; for information."
    )
    product: str | None = xml(
        "product/@name", default=None, since="0.8.4", effect="kept", doc="What it is; for information."
    )


class ThinPool(Element):
    """A thin pool of the group, for volumes with less allocation than capacity."""

    name: str = xml("@name", type=simple.Word, effect="acted", doc="Its name in the group.")
    capacity: int | None = xml(
        "capacity",
        type=simple.Size,
        default=None,
        effect="acted",
        doc="Space that build gives it; all of the group by default.",
    )


class LogicalPool(Pool):
    """A volume group of this host."""

    type: ClassVar[str] = "logical"
    first: ClassVar[str | None] = "0.4.1"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: LogicalSource = xml("source", default=LogicalSource, doc="The volume group and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/ and the volume group; what is given is ignored."
    )
    thin_pool: ThinPool | None = xml(
        "pk:thin_pool", default=None, doc="Thin pool that build makes and new volumes use."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, and the target follows from it."""
        source = values.get("source") or LogicalSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/{source.name}")


class LogicalBackend(LvmVolumes):
    """A volume group that this host alone uses, and its logical volumes."""

    type = "logical"
    needs_root = ("start", "build", "discover")
    definition = LogicalPool
    tools = (
        "vgs", "lvs", "pvs", "pvcreate", "pvremove", "vgcreate", "vgchange", "vgremove", "lvcreate", "lvrename", "lvremove",
        "lvextend", "lvreduce", "lvchange", "wipefs",
    )  # fmt: skip
    packages: ClassVar[Mapping[str, str]] = dict.fromkeys(tools, "lvm2") | {"wipefs": "util-linux"}
    source_formats = ("lvm2", "unknown")

    @property
    def thin_pool_name(self) -> str | None:  # type: ignore[override]
        """The thin pool that the definition names."""
        return self.pool.thin_pool.name if self.pool.thin_pool is not None else None

    @property
    def devices(self) -> list[str]:
        """The devices that the definition names."""
        return [d.path for d in self.pool.source.devices]

    def claims(self) -> Iterable[str]:
        """The group and its devices; ``InvalidArgument`` for a thin pool that cannot be made."""
        thin = self.thin_pool_name
        why = lvm.name_fault(thin, self.vg) if thin is not None else ""
        if why:
            raise errors.InvalidArgument(f"'{thin}' cannot be the name of a thin pool: {why}", pool=self.pool.name)
        if self.pool.thin_pool is not None and self.pool.thin_pool.capacity == 0:
            raise errors.InvalidArgument(f"the thin pool '{thin}' needs a capacity above 0", pool=self.pool.name)
        return (f"group {self.vg}", *(f"device {path}" for path in self.devices))

    def state(self, *, closely: bool = False) -> State:
        """Whether the group is there and something of it is active; a group without volumes is up when it is there.

        It is never told to be whole: some of its volumes may have been active before the pool, such as the host's own disk.
        """
        if lvm.active(self.host, self.vg):
            return State(True, whole=False)
        try:
            group = lvm.group(self.host, self.vg)
        except errors.Unsafe as error:
            return State(False, why=str(error))
        if group is None:
            return State(False, why=f"there is no volume group '{self.vg}'")
        if not group.volumes or all(v.skip for v in self.listing().volumes.values() if v.own):
            return State(True, whole=False)
        return State(False, why=f"no logical volume of the group '{self.vg}' is active")

    def start(self) -> None:
        """Activate what is not active; of that, a failure or a crash leaves nothing active."""
        down = [v for v in self.listing().volumes.values() if v.own and not v.active and not v.skip]
        if down:
            with lvm.worded(self.pool.name):
                self.host.change(
                    ["vgchange", "--activate", "ly", "--", self.vg], undo=self._activate("ln", down), whole=True
                )

    def stop(self) -> None:
        """Deactivate all volumes; ``Busy``, naming them and who has them open, when one is in use."""
        if lvm.group(self.host, self.vg) is None:
            return
        up = [v for v in self.listing().volumes.values() if v.own and v.active]
        used = [f"volume '{v.name}' is {self._use(v)}" for v in up if v.open and v.segtype not in lvm.POOLS]
        if used:
            raise errors.Busy(f"pool '{self.pool.name}' cannot be stopped: {'; '.join(used[:10])}", pool=self.pool.name)
        if up:
            with lvm.worded(self.pool.name):
                self.host.change(
                    ["vgchange", "--activate", "ln", "--", self.vg], undo=self._activate("ly", up), whole=True
                )

    def _activate(self, how: str, volumes: list[lvm.LogicalVolume]) -> list[str]:
        names = [f"{self.vg}/{v.name}" for v in sorted(volumes, key=lambda v: v.segtype in lvm.POOLS)]
        # --yes: LVM asks before it changes a snapshot, because its origin changes with it.
        return ["lvchange", "--yes", "--activate", how, "--", *names]

    def _use(self, volume: lvm.LogicalVolume) -> str:
        return ", ".join(blockdevice.users(self.host, volume.device, processes=True)[:5]) or "open"

    # -- making and unmaking ------------------------------------------------------------------------------------------

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the group of the devices, and the thin pool. A group that exists is taken as it is if its devices fit."""
        group = lvm.group(self.host, self.vg)
        changed = group is None
        if group is None:
            self._build_group(overwrite)
        else:
            self._check_devices(group)
        return self._build_thin_pool(new=changed) or changed

    def _check_devices(self, group: lvm.Group) -> None:
        have = {blockdevice.number(path) or path for path in group.devices}
        wanted = {blockdevice.number(path) or path for path in self.devices}
        if wanted and wanted != have:
            raise errors.Unsafe(
                f"pool '{self.pool.name}': the volume group '{self.vg}' exists and consists of "
                f"{', '.join(group.devices)}, not of {', '.join(self.devices)}",
                pool=self.pool.name,
                hint="name no device to take the group as it is, or choose another name",
            )

    def _build_group(self, overwrite: bool) -> None:
        if not self.devices:
            raise errors.InvalidState(
                f"pool '{self.pool.name}': there is no volume group '{self.vg}', and no device to make it of",
                pool=self.pool.name,
                hint="add <device path='…'/> to <source>",
            )
        held = self._look_at_devices(overwrite)
        real = [os.path.realpath(path) for path in self.devices]  # LVM knows not every link to a device
        uuids = []
        for path, device in zip(self.devices, real, strict=True):
            if held[path]:
                self.host.change(["wipefs", "--all", "--", device], whole=True)
            uuids.append(lvm.label(self.host, device))
        lvm.make_group(self.host, self.vg, real, uuids[0])

    def _look_at_devices(self, overwrite: bool) -> dict[str, tuple[str, ...]]:
        """What each device holds; refuses those that are in use, belong to a group or, without ``overwrite``, hold anything."""
        members = {blockdevice.number(path): group for path, group in lvm.members(self.host).items()}
        held: dict[str, tuple[str, ...]] = {}
        seen: dict[str, str] = {}
        for path in self.devices:
            number = blockdevice.number(path)
            if number in seen:
                raise errors.InvalidArgument(
                    f"pool '{self.pool.name}': '{path}' and '{seen[number]}' are the same device", pool=self.pool.name
                )
            if number and members.get(number):
                raise errors.Unsafe(
                    f"pool '{self.pool.name}': '{path}' belongs to the volume group '{members[number]}'",
                    pool=self.pool.name,
                    hint="take it out of that group first: vgreduce, or vgremove",
                )
            held[path] = blockdevice.holds(self.host, path)
            if held[path] and not overwrite:
                raise errors.Unsafe(
                    f"pool '{self.pool.name}': '{path}' holds {', '.join(held[path])}, which building would destroy",
                    pool=self.pool.name,
                    hint=errors.Hint("if that is meant, add ", errors.Option("overwrite")),
                )
            if "LVM2_member" in held[path]:
                self._check_owner(path)
            seen[number] = path
        return held

    def _check_owner(self, path: str) -> None:
        real = os.path.realpath(path)
        group = lvm.owner(self.host, real)
        if group == "":
            return
        if group is None:
            fault = "holds a label of LVM that LVM does not report, so it may belong to a volume group"
        else:
            fault = f"belongs to the volume group '{group}', which this host must not use or does not see in full"
        raise errors.Unsafe(
            f"pool '{self.pool.name}': '{path}' {fault}",
            pool=self.pool.name,
            hint=f"if nobody needs that group: wipefs --all {real}",
        )

    def _build_thin_pool(self, *, new: bool) -> bool:
        wanted = self.pool.thin_pool
        if wanted is None:
            return False
        # In a dry run a new group is not there to be asked.
        found = None if new else self.listing(select=lvm.quoted(lv_name=wanted.name)).volumes.get(wanted.name)
        if found is not None and found.segtype == "thin-pool":
            return False
        if found is not None:
            raise errors.AlreadyExists(
                f"pool '{self.pool.name}': '{wanted.name}' in the group '{self.vg}' is no thin pool but "
                f"a {found.segtype} volume",
                pool=self.pool.name,
            )
        # lvcreate takes whole sectors, and rounds them up to extents itself.
        size = (
            ["--extents", "100%FREE"] if wanted.capacity is None else ["--size", f"{-(-wanted.capacity // 512) * 512}b"]
        )
        self.new(wanted.name, ["--type", "thin-pool", *size, "--", self.vg])
        return True

    def erase(self) -> bool:
        """Remove the group and the labels of its devices; refused while it has volumes."""
        group = lvm.group(self.host, self.vg)
        if group is not None:
            own = [v for v in self.listing().volumes.values() if v.own]
            volumes = [v.name for v in own if v.segtype not in lvm.POOLS]
            if volumes:
                raise errors.Unsafe(
                    f"pool '{self.pool.name}': the volume group '{self.vg}' has the volumes {', '.join(volumes[:10])}"
                    f"{' and others' if len(volumes) > 10 else ''}; nothing was deleted",
                    pool=self.pool.name,
                    hint="delete its volumes first; poolkit removes nothing that was not asked for by name",
                )
            for pool in own:
                self.host.change(["lvremove", "--yes", "--", f"{self.vg}/{pool.name}"], whole=True)
            # Without --yes: refused if a volume came meanwhile.
            self.host.change(["vgremove", "--", self.vg], whole=True)
            labels: Iterable[str] = group.devices
        else:
            # A deletion that was interrupted left labels without a group.
            orphans = {blockdevice.number(path) for path, name in lvm.members(self.host).items() if not name}
            labels = [os.path.realpath(path) for path in self.devices if blockdevice.number(path) in orphans - {""}]
        for path in labels:
            self.host.change(["pvremove", "--yes", "--", path], whole=True)
        return group is not None or bool(labels)

    def erased(self) -> Erased:
        """The group and the labels; nothing else of the devices is written."""
        return Erased(
            f"the volume group '{self.vg}' with LVM's labels of its devices",
            "what was written to the devices, which are not wiped",
        )

    # -- facts ----------------------------------------------------------------------------------------------------------

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """Sizes of the group; its thin pools count as used."""
        if self.listed is not None and self.listed.size:
            size, free = self.listed.size, self.listed.free
        else:
            group = self.group()
            size, free = group.size, group.free
        return Usage(size, size - free, free)

    def live(self) -> Any:
        """The definition with the devices of the group: those it names under their names there, then the others."""
        group = self.group()
        named = {blockdevice.number(d.path): d for d in self.pool.source.devices}
        found = [
            named.get(blockdevice.number(path)) or PhysicalVolume(path=path) for path in group.devices if path[0] == "/"
        ]
        return replace(self.pool, source=replace(self.pool.source, devices=tuple(found)))

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """Every volume group of this host."""
        from poolkit.documents import FoundDevice, FoundSource

        for group in lvm.groups(host):
            devices = tuple(FoundDevice(path=path) for path in group.devices if path[0] == "/")
            yield FoundSource(devices=devices, name=group.name, format="lvm2")
