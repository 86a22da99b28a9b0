"""Volume groups as pools: made of devices, looked at before something is destroyed, and removed again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from poolkit import errors
from poolkit.backend import Erased, Usage, VolumeInfo
from poolkit.families import blockdevice, lvm
from poolkit.families.lvmvolumes import LvmVolumes
from poolkit.model import Extent
from poolkit.xmlmap import Element, simple, xml


class PhysicalVolume(Element):
    """A device of the volume group."""

    path: str = xml("@path", type=simple.Path, since="0.4.1", effect="acted", doc="Path of the device.")
    free_extents: tuple[Extent, ...] = xml(
        "freeExtent", default=(), reported=True, since="0.4.1", doc="Free space; reported."
    )


class LvmGroup(LvmVolumes):
    """The verbs of a pool that is the volume group ``vg``, of the devices that its definition names."""

    @property
    def devices(self) -> list[str]:
        """The devices that the definition names."""
        return [d.path for d in self.pool.source.devices]

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """Sizes of the group; its thin pools count as used."""
        if self.listed is not None and self.listed.size:
            size, free = self.listed.size, self.listed.free
        else:
            group = self.group()
            size, free = group.size, group.free
        return Usage(size, size - free, free)

    def use(self, volume: lvm.LogicalVolume) -> str:
        """Who has the volume open, in words."""
        return errors.some(blockdevice.users(self.host, volume.device, processes=True)) or "open"

    # -- making and unmaking ------------------------------------------------------------------------------------------

    def check_devices(self, group: lvm.Group) -> None:
        """Raise ``Unsafe`` if the group exists and consists of other devices than the definition names."""
        have = {self.host.devices.number(path) or path for path in group.devices}
        wanted = {self.host.devices.number(path) or path for path in self.devices}
        if wanted and wanted != have:
            raise errors.Unsafe(
                f"pool '{self.pool.name}': the volume group '{self.vg}' exists and consists of "
                f"{', '.join(group.devices)}, not of {', '.join(self.devices)}",
                pool=self.pool.name,
                hint="name no device to take the group as it is, or choose another name",
            )

    def build_group(self, overwrite: bool) -> None:
        """Make the group of the devices; ``Unsafe`` for those that hold anything, unless ``overwrite`` allows to destroy it."""
        if not self.devices:
            raise errors.InvalidState(
                f"pool '{self.pool.name}': there is no volume group '{self.vg}', and no device to make it of",
                pool=self.pool.name,
                hint="add <device path='…'/> to <source>",
            )
        held = self._look_at_devices(overwrite)
        real = [self.host.devices.real(path) for path in self.devices]  # LVM knows not every link to a device
        uuids = []
        for path, device in zip(self.devices, real, strict=True):
            if held[path]:
                # It may be another host's group meanwhile, on storage that hosts share.
                if not self.host.dry_run and (now := blockdevice.holds(self.host, path)) != held[path]:
                    raise errors.Unsafe(
                        f"pool '{self.pool.name}': '{path}' holds {errors.some(now) or 'nothing'} now, and held "
                        f"{errors.some(held[path])} a moment ago: somebody else writes to it", pool=self.pool.name,
                        hint="it was left as it is; find out who does, and build again",
                    )  # fmt: skip
                self.host.change(["wipefs", "--all", "--", device], whole=True)
            uuids.append(lvm.label(self.host, device))
        self.make_group(real, uuids[0])

    def make_group(self, devices: Sequence[str], first: str) -> None:
        """``vgcreate`` of labelled devices; ``first`` is the UUID of one."""
        lvm.make_group(self.host, self.vg, devices, first)

    def remove_group(self) -> None:
        """``vgremove``; without --yes it is refused if a volume came meanwhile."""
        self.host.change(["vgremove", "--", self.vg], whole=True)

    def _look_at_devices(self, overwrite: bool) -> dict[str, tuple[str, ...]]:
        """What each device holds; refuses those that are in use, belong to a group or, without ``overwrite``, hold anything."""
        members = {self.host.devices.number(path): group for path, group in lvm.members(self.host).items()}
        held: dict[str, tuple[str, ...]] = {}
        seen: dict[str, str] = {}
        for path in self.devices:
            number = self.host.devices.number(path)
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
        real = self.host.devices.real(path)
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

    makes_pools = True
    """Whether thin pools of the group are of our own making, and go with it."""

    def erase(self) -> bool:
        """Remove the group and the labels of its devices; refused while it has volumes."""
        group = self.found()
        if group is not None:
            own = [v for v in self.listing().volumes.values() if v.own]
            volumes = [v.name for v in own if not self.makes_pools or v.segtype not in lvm.POOLS]
            if volumes:
                raise errors.Unsafe(
                    f"pool '{self.pool.name}': the volume group '{self.vg}' has the volumes {errors.some(volumes, 10)}"
                    f"; nothing was deleted",
                    pool=self.pool.name,
                    hint="delete its volumes first; poolkit removes nothing that was not asked for by name",
                )
            for pool in own:
                self.host.change(["lvremove", "--yes", "--", f"{self.vg}/{pool.name}"], whole=True)
            self.remove_group()
            labels: Iterable[str] = group.devices
        else:
            # A deletion that was interrupted left labels without a group.
            orphans = {self.host.devices.number(path) for path, name in lvm.members(self.host).items() if not name}
            labels = [
                self.host.devices.real(path)
                for path in self.devices
                if self.host.devices.number(path) in orphans - {""}
            ]
        for path in labels:
            self.host.change(["pvremove", "--yes", "--", path], whole=True)
        return group is not None or bool(labels)

    def erased(self) -> Erased:
        """The group and the labels; nothing else of the devices is written."""
        return Erased(
            f"the volume group '{self.vg}' with LVM's labels of its devices",
            "what was written to the devices, which are not wiped",
        )
