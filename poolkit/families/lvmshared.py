"""A volume group that hosts share: who may change it, and its volumes, attached to one host or to several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.content import copying
from poolkit.families import blockdevice, lvm, lvmlocks
from poolkit.families.lvm import Listing, LogicalVolume
from poolkit.families.lvmjoint import JointGroup
from poolkit.host.directory import TEMPORARY
from poolkit.model import Permissions


class SharedGroup(JointGroup):
    """The group, who has control of it, and where its volumes are attached."""

    def exclusive(self, verb: str) -> AbstractContextManager[None]:
        """What the role of this host allows; with a system ID the one host that has control, which is taken if nobody has it.

        A host without control attaches what it was given.
        lvmlockd locks the group for each command, and a volume as long as it is active.
        """
        if verb == "build" and self.shared_group() is not None:
            return contextlib.nullcontext()  # it is taken as it is, by hosts of every role: all have the same documents
        lvmlocks.permit(self.host.node, verb, lambda: self.lock, self.pool.name)
        # A group is built where there is none, and what is recorded is looked at before it is changed.
        changes = lvmlocks.changes(verb) and verb not in ("build", *lvmlocks.RECORDS)
        if changes:
            self.require_whole()
        # Attaching and detaching take control themselves where they have something to note, and what only reads or writes a
        # volume where it has to be attached for that.
        if self.lock == "system-id" and changes:
            self._take_control(by_force=False)
        return contextlib.nullcontext()

    def _take_control(self, *, by_force: bool, way: errors.Hint | None = None) -> bool:
        """Have control, unless another node has it: ``Busy``, with a ``way`` to do without, or ``by_force``."""
        group = self.shared_group()
        if group is None or group.control == self.node:
            return False
        others = self._others_in_control(group)
        if others and not by_force:
            take = errors.Hint(
                f"when nothing runs on '{group.control}' any more: ", errors.remedy("take-control", self.pool.name)
            )
            raise errors.Busy(
                f"pool '{self.pool.name}': node '{group.control}' has control of the group '{self.vg}', not '{self.node}'",
                pool=self.pool.name, hint=take if way is None else errors.Hint.joined(way, take),
            )  # fmt: skip
        self.require_whole()
        own = lvmlocks.own_tag("control", self.node, self.pool.name)
        words = [word for node in others for word in ("--deltag", lvmlocks.tag("control", node))]
        self.change("vgchange", *words, "--addtag", own, "--", self.vg)
        if self.host.dry_run:
            return True
        after = self.shared_group()
        has = after is not None and own in after.tags
        if came := self._others_in_control(after):
            # Each of them sees the other's tag, whoever wrote first: both give way, and nobody has half of it.
            if has:
                self.change("vgchange", "--deltag", own, "--", self.vg)
            raise errors.Busy(
                f"pool '{self.pool.name}': node '{', '.join(came)}' took control of the group '{self.vg}' at the same moment",
                pool=self.pool.name,
                hint=errors.Hint("decide which one is to have it, and there: ", errors.remedy("take-control", self.pool.name)),
            )  # fmt: skip
        if not has:
            look = self.by_hand("vgs", "--options", "+vg_tags,vg_seqno", self.vg)
            raise errors.HostError(
                f"pool '{self.pool.name}': LVM ended well, and the group '{self.vg}' does not note that node '{self.node}' has "
                "control", pool=self.pool.name,
                hint=f"see what it notes, and what LVM says beside: {look}",
            )  # fmt: skip
        return True

    def _others_in_control(self, group: lvmlocks.SharedGroup | None) -> list[str]:
        return [node for node in lvmlocks.tagged(group.tags if group else (), "control") if node != self.node]

    def undo_selection(self, **wanted: str) -> str:
        """With a system ID nothing is taken back by a host that has lost control meanwhile: the metadata has one writer."""
        own = super().undo_selection(**wanted)
        return f"{own} && vg_tags={{{lvmlocks.tag('control', self.node)}}}" if self.lock == "system-id" else own

    def take_control(self) -> bool:
        """Make this host the one that changes the group, whichever was before; whether anything changed."""
        lvmlocks.permit(self.host.node, "take-control", lambda: self.lock, self.pool.name)
        if self.lock != "system-id":
            raise errors.Unsupported(
                f"pool '{self.pool.name}': nothing is to be taken, since the group is under {self.lock}",
                pool=self.pool.name,
            )
        return self._take_control(by_force=True)

    def lock_status(self) -> Mapping[str, Any]:
        """What keeps hosts apart, and who has what."""
        group, node = self.shared_group(), self.host.node
        found: dict[str, Any] = {"lock": self.lock, "node": node.name, "role": node.role or None}
        if group is not None:
            found["sequence"] = group.sequence
        if self.lock == "lvmlockd":
            spaces = lvmlocks.lockspaces(self.host)
            found |= {"daemon": spaces is not None, "lockspace": (spaces or {}).get(self.vg)}
        if self.lock == "system-id" and group is not None:
            found["control"] = group.control or None
        found["attached"] = {
            volume.name: holders
            for volume in self.listing().volumes.values()
            if volume.listed and (holders := self.holders(volume))
        }
        return found

    def change(self, tool: str, *words: str, undo: Sequence[str] | None = None, volume: str | None = None) -> None:
        """Run a command on the group, if this host may give it; LVM's refusals become errors of their own."""
        with self.worded(volume):
            self.host.change(self.command(tool, *words), undo=undo, whole=True)

    # -- where volumes are ------------------------------------------------------------------------------------------------

    def info(self, found: Listing, volume: LogicalVolume) -> VolumeInfo:
        """As for every logical volume, and where it is attached."""
        info = super().info(found, volume)
        holders = self.holders(volume)
        if not holders:
            return info
        return info._replace(detail={**(info.detail or {}), "attached": holders})

    def holders(self, volume: LogicalVolume) -> list[str]:
        """The nodes that have a volume: this one, if it is active here, and those that a tag names."""
        tags = volume.tags
        nodes = {*lvmlocks.tagged(tags, "attach"), *lvmlocks.tagged(tags, "share")}
        return sorted(nodes | ({self.node} if volume.active else set()))

    def family(self, volume: LogicalVolume) -> list[LogicalVolume]:
        """The volume and what is active together with it: an origin and its snapshots."""
        if not volume.snapshot and "thickorigin" not in volume.role:
            return [volume]
        origin = volume.origin if volume.snapshot else volume.name
        return [v for v in self.listing().volumes.values() if v.name == origin or (v.snapshot and v.origin == origin)]

    def warning_of(self, volume: LogicalVolume) -> str:
        """A volume without a device is detached, which is no fault."""
        if volume.stale:
            return "it was resized elsewhere, and its device here has the old size: attach it again"
        return super().warning_of(volume) if volume.active else ""

    @property
    def recorded(self) -> bool:
        """Whether the group notes who has a volume."""
        return self.lock == "system-id" and self.pool.source.attach_record is not False

    # -- attaching -------------------------------------------------------------------------------------------------------

    def attach(self, info: VolumeInfo, *, shared: bool = False, node: str | None = None) -> VolumeInfo:
        """Activate the volume on this host, after it was recorded where the lock is a system ID; see there for ``node``."""
        volume = self._same(info)
        recorded = self.recorded
        if node not in (None, self.node) and not recorded:
            raise errors.Unsupported(
                f"volume '{info.name}': under {self.lock} a node attaches by itself, without being allowed to",
                volume=info.name,
            )
        if shared and (volume.snapshot or "thickorigin" in volume.role):
            raise errors.Unsupported(
                f"volume '{info.name}' and its snapshots can be active on one host only", volume=info.name
            )
        if volume.active and node in (None, self.node) and self.lock == "lvmlockd":
            mode = lvmlocks.mode(self.host, volume.uuid)
            if mode == ("ex" if shared else "sh"):
                raise self._otherwise(volume, self.node, shared)
        if recorded:
            self._record(volume, node or self.node, shared)
        if node in (None, self.node):
            self.activate_here(volume, shared)
        return info if self.host.dry_run else self.look(info.name, info)

    def _record(self, volume: LogicalVolume, node: str, shared: bool) -> None:
        """The tag by which ``node`` may have the volume: written by a host that has control, found by all others."""
        alone, together = lvmlocks.tagged(volume.tags, "attach"), lvmlocks.tagged(volume.tags, "share")
        others = {*alone, *(() if shared else together)}
        for one in self.family(volume):
            others |= set(self.holders(one)) if one.name != volume.name else set()
        if others - {node}:
            raise self._held(volume.name, sorted(others - {node}))
        what = "share" if shared else "attach"
        if node in (together if shared else alone):
            return
        if node in (alone if shared else together):
            raise self._otherwise(volume, node, shared)
        give = (
            errors.remedy("vol-attach", volume.name, pool=self.pool.name, node=node, shared=True) if shared
            else errors.remedy("vol-attach", volume.name, pool=self.pool.name, node=node)
        )  # fmt: skip
        if self.host.node.role == "compute":
            raise errors.RoleForbidden(
                f"volume '{volume.name}' has not been given to node '{node}'", volume=volume.name,
                hint=errors.Hint("on the control node: ", give),
            )  # fmt: skip
        self._take_control(by_force=False, way=errors.Hint("on the node that has control: ", give))
        self.require_whole()
        name, tag = f"{self.vg}/{volume.name}", lvmlocks.own_tag(what, node, self.pool.name)
        undo = self.command(
            "lvchange", "--deltag", tag, "--select", self.undo_selection(lv_uuid=volume.uuid), "--", self.vg
        )
        self.change("lvchange", "--addtag", tag, "--", name, undo=undo, volume=volume.name)

    def _otherwise(self, volume: LogicalVolume, node: str, shared: bool) -> errors.InvalidState:
        """The error for a volume that a node has alone and is to share, or the other way round: its lock stays what it was."""
        name, pool = volume.name, self.pool.name
        have, wanted = ("for itself alone", "shared") if shared else ("as shared", "for itself alone")
        if node == self.node and volume.active:
            way = errors.Hint("detach it first: ", errors.remedy("vol-detach", name, pool=pool))
        else:  # it is on record, and may be active there or not
            forget = errors.remedy("vol-detach", name, pool=pool, node=node, force=True)
            way = errors.Hint(f"when it is not active on '{node}', on the control node: ", forget)
        if node == self.node and not volume.active:
            so = errors.remedy("vol-attach", name, pool=pool)
            together = errors.remedy("vol-attach", name, pool=pool, shared=True)
            way = errors.Hint.joined(errors.Hint("attach it as it was given: ", so if shared else together), way)
        return errors.InvalidState(
            f"volume '{name}' is attached to '{node}' {have} already, not {wanted}", volume=name, hint=way
        )

    def elsewhere(self, name: str, lock: str = "") -> errors.HeldElsewhere:
        """The error for a volume whose lock another host has; ``lock`` names the one that has it, such as a snapshot's origin."""
        who = lvmlocks.holder(self.host, self.vg, lock or name, self.config)
        return self._held(name, [f"node '{who}'" if who else "another host"])

    def _held(self, name: str, holders: Sequence[str]) -> errors.HeldElsewhere:
        return errors.HeldElsewhere(
            f"volume '{name}' is attached to {', '.join(holders)}", volume=name, hint=self._way_out(name, holders)
        )

    def _way_out(self, name: str, holders: Sequence[str]) -> errors.Hint:
        there = errors.Hint("detach it there: ", errors.remedy("vol-detach", name, pool=self.pool.name))
        others = [node for node in holders if node != self.node]
        if not self.recorded or not others:
            return there
        forget = errors.remedy("vol-detach", name, pool=self.pool.name, node=others[0], force=True)
        said = f"if it is not active on '{others[0]}' any more, or that is known to be dead, on the control node: "
        return errors.Hint.joined(there, errors.Hint(said, forget))

    def require_detached(self, volume: LogicalVolume, what: str) -> None:
        """Raise ``HeldElsewhere`` if any host has the volume, as far as this one can see; ``what`` ends "it cannot be"."""
        for one in self.family(volume):
            holders = self.holders(one)
            if not holders:
                continue
            it = "it" if one.name == volume.name else f"'{one.name}'"
            raise errors.HeldElsewhere(
                f"volume '{volume.name}' cannot be {what} while {it} is attached to "
                f"{', '.join(holders)}", volume=volume.name, hint=self._way_out(one.name, holders),
            )  # fmt: skip

    def activate_here(self, volume: LogicalVolume, shared: bool) -> None:
        """Make the volume's device on this host, and see that it is there; undone if the verb fails."""
        name = f"{self.vg}/{volume.name}"
        if volume.active:
            if volume.stale:
                self.change("lvchange", "--refresh", "--", name, volume=volume.name)
            return
        how = {"lvmlockd": "sy" if shared else "ey"}.get(self.lock, "y")
        try:
            self.change(
                "lvchange", "--activate", how, "--ignoreactivationskip", "--yes", "--", name,
                undo=self.command("lvchange", "--activate", "n", "--yes", "--", name), volume=volume.name,
            )  # fmt: skip
        except errors.HeldElsewhere as error:
            raise self.elsewhere(volume.name, volume.origin if volume.snapshot else "") from error
        if not self.host.dry_run:
            self._verify(volume)

    def _verify(self, volume: LogicalVolume) -> None:
        """LVM can end with 0 and have activated nothing: only the device proves it."""
        path = f"/dev/{self.vg}/{volume.name}"
        with blockdevice.opened(self.host, path) as fd:
            self.identify(VolumeInfo(volume.name, key=volume.uuid, path=path), fd)
            size = copying.size_of(fd)
        if size not in (volume.capacity, self._capacity(volume)):
            raise errors.HostError(
                f"volume '{volume.name}' has {volume.capacity} bytes, and its device '{path}' {size}", volume=volume.name,
                hint="nothing is attached now: try again, and if that does not help look at what dmsetup table and lvs say of it",
            )  # fmt: skip

    def _capacity(self, volume: LogicalVolume) -> int:
        """What the metadata says now: another host may have changed the size between the look and the activation."""
        return self.find(volume.name)[1].capacity

    def detach(self, info: VolumeInfo, *, node: str | None = None, force: bool = False) -> VolumeInfo:
        """Deactivate the volume on this host; with ``node`` and ``force`` forget that another one had it."""
        volume = self._same(info)
        who = node or self.node
        if who != self.node:
            self._forget(volume, who, force)
            return info if self.host.dry_run else self.look(info.name, info)
        if volume.active:
            if volume.open:
                raise errors.Busy(f"volume '{info.name}' is {self.use(volume)}", volume=info.name)
            self.deactivate(volume.name)
        self._untag(volume)
        return info if self.host.dry_run else self.look(info.name, info)

    def _forget(self, volume: LogicalVolume, node: str, force: bool) -> None:
        if self.lock != "system-id":
            raise errors.Unsupported(
                f"volume '{volume.name}': under {self.lock} only a node itself lets go of a volume", volume=volume.name,
                hint="the lease of a dead node ends by itself, after about three minutes" * (self.lock == "lvmlockd") or None,
            )  # fmt: skip
        if not force:
            raise errors.Unsafe(
                f"nothing can tell whether node '{node}' still uses volume '{volume.name}'",
                volume=volume.name,
                hint=errors.Hint("if it is known to be dead, or to have detached it, add ", errors.Option("force")),
            )
        if tags := self._tags(volume, node):
            forget = errors.remedy("vol-detach", volume.name, pool=self.pool.name, node=node, force=True)
            self._take_control(by_force=False, way=errors.Hint("on the node that has control: ", forget))
            self._take_away(volume, tags)

    def _untag(self, volume: LogicalVolume) -> None:
        """Take the record away of what is detached here; where this host must not write it stays, with a warning."""
        tags = self._tags(volume, self.node)
        group = self.shared_group() if tags else None
        if group is None:
            return
        may = self.host.node.role in ("control", "both") and group.control in ("", self.node)
        if not may or group.missing or group.damaged:
            self.warn_of_record(volume.name)
            return
        self._take_control(by_force=False)
        self._take_away(volume, tags)

    @staticmethod
    def _tags(volume: LogicalVolume, node: str) -> list[str]:
        return [tag for what in ("attach", "share") if (tag := lvmlocks.tag(what, node)) in volume.tags]

    def _take_away(self, volume: LogicalVolume, tags: Sequence[str]) -> None:
        self.require_whole()
        words = [word for tag in tags for word in ("--deltag", tag)]
        self.change("lvchange", *words, "--", f"{self.vg}/{volume.name}", volume=volume.name)

    def warn_of_record(self, name: str) -> None:
        """Say that the group still notes that this host has a volume, and who can mend it: the metadata has one writer."""
        self.host.warn(
            errors.Hint(
                f"volume '{name}' is not active on '{self.node}' any more; the control node has to be told: ",
                errors.remedy("vol-detach", name, pool=self.pool.name, node=self.node, force=True),
            )
        )

    def deactivate(self, name: str) -> None:
        """Take the device of a volume away on this host."""
        # --yes: LVM asks before it changes a snapshot, because its origin changes with it.
        self.change("lvchange", "--activate", "n", "--yes", "--", f"{self.vg}/{name}", volume=name)
        device = self._mapped(name)
        if not self.host.dry_run and os.path.exists(device):
            raise errors.HostError(
                f"volume '{name}': LVM ended well, and its device '{device}' is there still, so it is not detached", volume=name,
                hint=f"what has it, and what LVM says: dmsetup info {device}, {self.by_hand('lvs', f'{self.vg}/{name}')}",
            )  # fmt: skip

    def _mapped(self, name: str) -> str:
        return f"/dev/mapper/{lvm.device_name(self.vg, name)}"

    def _give(self, device: str, wanted: Permissions) -> None:
        """A new volume is detached, and each attach makes its device anew, with what udev gives it."""
        asked = (wanted.mode, wanted.owner, wanted.group)
        if any(value not in (None, -1, usual) for value, usual in zip(asked, (0o600, 0, 0), strict=True)):
            self.host.warn(
                f"volume '{os.path.basename(device)}': its device is made anew by each attach, so that the permissions were left "
                "out; rules of udev give it some"
            )

    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> Any:
        """As for every block device; a detached volume is attached for as long as it is open."""
        return self._attached(info, write, force)

    @contextlib.contextmanager
    def _attached(self, info: VolumeInfo, write: bool, force: bool) -> Iterator[int]:
        volume = None if info.name.startswith(TEMPORARY) else self.find(info.name)[1]
        path = f"/dev/{self.vg}/{info.name}"
        here = volume is None or volume.active or os.path.exists(path)
        if volume is not None and not here:
            # Reading is asked of no bracket, and a host that may only look attaches nothing for it either.
            lvmlocks.permit(self.host.node, "vol-download", lambda: self.lock, self.pool.name)
            if self.lock == "system-id":
                self.require_detached(volume, "opened")
                if self.host.node.role == "compute":
                    raise errors.RoleForbidden(
                        f"volume '{info.name}' is not attached to this node, '{self.node}'",
                        volume=info.name,
                        hint=errors.Hint("attach it: ", errors.remedy("vol-attach", info.name, pool=self.pool.name)),
                    )
                # Nothing notes that it is attached, so this is for the one that gives volumes away.
                self._take_control(by_force=False)
            self.activate_here(volume, shared=False)
        with super().open_volume(info._replace(path=path), write=write, force=force) as fd:
            yield fd
        if volume is not None and not here:
            try:
                self.deactivate(info.name)
            except errors.Busy:  # somebody came to read it as well
                self.host.warn(f"volume '{info.name}' stays attached here: it is {self.use(self.find(info.name)[1])}")
