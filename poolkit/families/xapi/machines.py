"""Disks in virtual machines: a VBD is what connects the two, and is plugged while the machine runs.

Those that poolkit makes have a key in their other-config. Only these are taken away, unless their machine is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.families.xapi import client
from poolkit.families.xapi.client import NULL, Api
from poolkit.families.xapi.disks import Disks
from poolkit.families.xapi.failures import Failed, gone
from poolkit.families.xapi.records import Record
from poolkit.host.undo import Undo

MARK = "poolkit"
"""Key of a VBD's other-config: a text drawn for it alone."""


class Machines:
    """The connections of one disk."""

    def __init__(self, disks: Disks, info: VolumeInfo, undo: Callable[..., Undo]) -> None:
        self.api = disks.api
        self.host = disks.host
        self.info = info
        self.undo = undo
        self._ref, self._record = disks.same(info)

    def attach(self, name: str, *, shared: bool) -> None:
        """Let the machine of that name or uuid have the disk, plugged if it runs. What is so already stays.

        ``Unsupported`` for a machine that cannot take a disk while it runs, ``Busy`` where another one has it, unless ``shared``.
        """
        vm, machine = machine_of(self.api, self.info, name)
        running = machine["power_state"] == "Running"
        if running and _emulated(machine) and machine["guest_metrics"] == NULL:
            raise errors.Unsupported(
                f"volume '{self.info.name}': machine '{name}' runs without drivers for Xen, and takes no disk now",
                volume=self.info.name, hint="install them in the machine, or attach the disk while it is shut down",
            )  # fmt: skip
        vbds = self._vbds()
        mine = {ref: vbd for ref, vbd in vbds.items() if vbd["VM"] == vm}
        if not mine:
            self._refuse_others(vbds, shared)
            mine = self._new(vm, machine["uuid"])
        for ref, vbd in mine.items():
            if running and not vbd["currently_attached"]:
                self.host.files.fault("plug the disk")
                self.api.run("VBD.plug", ref, what=f"plug {self.info.name}")
        if not running:
            self.host.warn(
                f"volume '{self.info.name}': machine '{name}' does not run, and has the disk when it is started"
            )

    def _refuse_others(self, vbds: dict[str, Record], shared: bool) -> None:
        for vbd in vbds.values():
            if not shared and (vbd["currently_attached"] or vbd["other_config"].get(MARK)):
                other = vbd["VM"]
                with gone():
                    other = self.api.ref("VM.get_name_label", vbd["VM"])
                raise errors.Busy(
                    f"volume '{self.info.name}' is attached to machine '{other}'", volume=self.info.name,
                    hint=errors.Hint("detach it there, or, if both can share it, ", errors.Option("shared")),
                )  # fmt: skip

    def _new(self, vm: str, uuid: str) -> dict[str, Record]:
        token = token_hex(16)
        undo = self.undo(f"take disk {self.info.name} from machine {uuid}", "vbd", self.info.name, token)
        if not self.host.step(f"attach disk {self.info.name} to machine {uuid}", undo):
            return {}
        closed = self._record["read_only"] or self._record["is_a_snapshot"]
        record = {
            "VM": vm, "VDI": self._ref, "userdevice": "autodetect", "bootable": False, "mode": "RO" if closed else "RW",
            "type": "Disk", "empty": False, "other_config": {MARK: token}, "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }  # fmt: skip
        ref = self.api.ref("VBD.create", record)
        return {ref: self.api.record("VBD", ref)}

    def detach(self, name: str | None, *, force: bool) -> None:
        """Take the disk from a machine, or from all that poolkit gave it to. ``Busy`` where a machine does not let go of it.

        ``force`` takes it all the same, with what the machine has not written yet.
        """
        vm = machine_of(self.api, self.info, name)[0] if name is not None else None
        for ref, vbd in self._vbds().items():
            if vbd["VM"] != vm if vm is not None else MARK not in vbd["other_config"]:
                continue
            if self.host.step(f"detach disk {self.info.name} (connection {vbd['uuid']})"):
                remove(self.api, ref, vbd, force=force)

    def _vbds(self) -> dict[str, Record]:
        found = {}
        for ref in self.api.refs("VDI.get_VBDs", self._ref):
            with gone():
                found[ref] = self.api.record("VBD", ref)
        return found


def refuse_node(info: VolumeInfo, node: str | None) -> None:
    """``Unsupported`` for a node of poolkit's own: the machines of XAPI's hosts are meant otherwise."""
    if node is not None:
        raise errors.Unsupported(
            f"volume '{info.name}': the hosts of a repository are not poolkit's nodes", volume=info.name,
            hint=errors.Hint("name a machine: ", errors.Option("vm", ...)),
        )  # fmt: skip


def machine_of(api: Api, info: VolumeInfo, name: str) -> tuple[str, Record]:
    """The virtual machine of that uuid or name, and its record; ``NotFound``, or ``InvalidArgument`` for several of a name."""
    found: list[str] = []
    with gone():
        found = [api.ref("VM.get_by_uuid", name)]
    found = found or api.refs("VM.get_by_name_label", name)
    if not found:
        raise errors.NotFound(f"volume '{info.name}': the hosts have no machine '{name}'", volume=info.name)
    if len(found) > 1:
        raise errors.InvalidArgument(
            f"volume '{info.name}': the hosts have {len(found)} machines that are called '{name}'", volume=info.name,
            hint="name it by its uuid",
        )  # fmt: skip
    return found[0], api.record("VM", found[0])


def _emulated(machine: Record) -> bool:
    """Whether a machine runs on emulated hardware; hosts before XenServer 7.5 have no ``domain_type`` to tell it."""
    kind = machine.get("domain_type", "unspecified")
    return bool(kind == "hvm" or (kind == "unspecified" and machine.get("HVM_boot_policy")))


def remove(api: Api, ref: str, vbd: Record, *, force: bool = False) -> None:
    """Unplug and destroy a VBD; a machine that is still busy with it is asked again for a while."""
    until = time.monotonic() + client.PATIENCE
    while vbd["currently_attached"]:
        try:
            api.run("VBD.unplug_force" if force else "VBD.unplug", ref, what="unplug the disk")
        except Failed as failed:
            if failed.code == "DEVICE_DETACH_REJECTED" and time.monotonic() < until:
                api.host.abort.wait(0.5)
                api.host.check_abort()
                continue
            if failed.code not in ("DEVICE_ALREADY_DETACHED", "HANDLE_INVALID"):
                raise
        break
    with gone():
        api.call("VBD.destroy", ref)


def take_back(api: Api, token: str) -> None:
    """Remove the VBD that was made with this text, if it is there."""
    for ref, vbd in api.usable("VBD", "other_config").items():
        if vbd["other_config"].get(MARK) == token:
            remove(api, ref, vbd)
