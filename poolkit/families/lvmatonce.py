"""Attaching and detaching by one command of LVM, without a look before and after.

What has to be so before is a selection (lvmreport(7)) that is part of the command, so that LVM compares and acts under one
lock; the device proves the rest. Where nothing is selected nothing happens, and the long way finds out why.
"""

from __future__ import annotations

import os
import stat

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.content import copying
from poolkit.families import blockdevice, lvm, lvmlocks
from poolkit.families.lvmshared import SharedGroup

_TOLD = frozenset(("backing", "error", "warning"))
"""Details of a volume with which more has to be looked at."""


class AtOnce(SharedGroup):
    """Volumes that are attached as they are listed."""

    def attach_listed(
        self, info: VolumeInfo, noted: str, *, shared: bool = False, node: str | None = None
    ) -> VolumeInfo | None:
        """As ``attach``, of a plain volume that nobody had at the listing, for this host alone."""
        known = self._known(info, noted, "vol-attach") if node in (None, self.node) else None
        if known is None or shared or not _TOLD.isdisjoint(info.detail or {}):
            return None
        if (info.detail or {}).get("attached", [self.node]) != [self.node] or os.path.lexists(self._mapped(info.name)):
            return None
        name, recorded = f"{self.vg}/{info.name}", self.recorded
        where = f'{known} && lv_attr=~"^-"'  # neither origin nor snapshot: those are active together
        if recorded:
            tag = lvmlocks.tag("attach", self.node)
            if self.host.node.role != "compute":
                free = f"{where} && lv_tags={{}} && {self._in_control()}"
                undone = self.undo_selection(lv_uuid=str(info.key))
                undo = self.command("lvchange", "--deltag", tag, "--select", undone, "--", self.vg)
                self.change("lvchange", "--addtag", tag, "--select", free, "--", self.vg, undo=undo, volume=info.name)
            where += f" && lv_tags={{{tag}}}"
        how = "ey" if self.lock == "lvmlockd" else "y"
        try:
            self.change(
                "lvchange", "--activate", how, "--ignoreactivationskip", "--yes", "--select", where, "--", self.vg,
                undo=self.command("lvchange", "--activate", "n", "--yes", "--", name), volume=info.name,
            )  # fmt: skip
        except errors.HeldElsewhere as error:
            raise self.elsewhere(info.name) from error
        return self._there(info)

    def _there(self, info: VolumeInfo) -> VolumeInfo | None:
        """The volume as its device shows it; None if there is none, since LVM ends with 0 as well where it selected nothing."""
        path = f"/dev/{self.vg}/{info.name}"
        if not os.path.lexists(path):
            return None
        with blockdevice.opened(self.host, path) as fd:
            self.identify(info._replace(path=path), fd)
            size, facts = copying.size_of(fd), os.fstat(fd)
        if size != info.capacity:
            return self.look(info.name, info)
        detail = {**(info.detail or {}), "attached": [self.node]}
        mode = stat.S_IMODE(facts.st_mode)
        return info._replace(mode=mode, owner=facts.st_uid, group=facts.st_gid, detail=detail)

    def detach_listed(
        self, info: VolumeInfo, noted: str, *, node: str | None = None, force: bool = False
    ) -> VolumeInfo | None:
        """As ``detach``, of what this host has."""
        known = self._known(info, noted, "vol-detach") if node in (None, self.node) else None
        if known is None or "error" in (info.detail or {}):
            return None
        device = self._mapped(info.name)
        group = noted.partition(" ")[0]
        mark = self.host.devices.value(f"/sys/dev/block/{self.host.devices.number(device)}/dm/uuid")
        if mark != "LVM-" + f"{group}{info.key}".replace("-", ""):  # libdevmapper's UUID of a volume
            return None
        argv = self.command("lvchange", "--activate", "n", "--yes", "--", f"{self.vg}/{info.name}")
        argv[2] += " activation{retry_deactivation=0}"  # what is in use is told at once, the long way
        try:
            with self.worded(info.name):
                self.host.change(argv, whole=True)
        except errors.Busy:
            return None
        if os.path.lexists(device):
            return None
        left = {key: value for key, value in (info.detail or {}).items() if key not in ("attached", "warning")}
        if self.recorded and not self._untagged(info, known):
            left["attached"] = [self.node]
        return info._replace(mode=0o600, owner=0, group=0, detail=left or None)

    def _untagged(self, info: VolumeInfo, known: str) -> bool:
        """Whether the record of an attachment could be taken away by this host; a warning where it could not."""
        if self.host.node.role != "compute":
            tags = [word for what in ("attach", "share") for word in ("--deltag", lvmlocks.tag(what, self.node))]
            where = f"{known} && {self._in_control()}"
            argv = self.command("lvchange", *tags, "--select", where, "--", self.vg)
            with self.worded(info.name):
                if "changed" in self.host.change(argv, whole=True).stdout:  # LVM tells of each that it selected
                    return True
        self.warn_of_record(info.name)
        return False

    def _known(self, info: VolumeInfo, noted: str, verb: str) -> str | None:
        """The selection of a volume that is as it was listed; None where that cannot be told. ``RoleForbidden``."""
        group, _, rest = noted.partition(" ")
        lock = rest.partition(" ")[2]
        wanted = self.pool.source.lock
        if self.host.dry_run or not info.key or lock not in lvmlocks.LOCKS or wanted not in (lock, "auto"):
            return None
        self.__dict__["lock"] = lock  # as it was when the group was listed; the selection has it too
        lvmlocks.permit(self.host.node, verb, lambda: lock, self.pool.name)
        facts = {"vg_uuid": group, "lv_uuid": info.key}
        if lock == "lvmlockd":
            facts["vg_lock_type"] = "sanlock"
        if lock == "system-id":
            facts["vg_systemid"] = lvmlocks.system_id(self.pool.uuid)
        return lvm.quoted(**facts)

    def _in_control(self) -> str:
        # A change while a device is away would shut that device out for all hosts.
        return f"vg_tags={{{lvmlocks.tag('control', self.node)}}} && vg_missing_pv_count=0"
