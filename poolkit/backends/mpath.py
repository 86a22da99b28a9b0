"""Pools of type ``mpath``: the multipath devices of the host."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import State
from poolkit.families import luns, scsibus
from poolkit.families.luns import LunVolumes
from poolkit.families.scsibus import Lun
from poolkit.model import OptionalTarget, PlainSource, Pool
from poolkit.xmlmap import replace, xml

_MARK = "mpath-"  # what the device-mapper UUID of a map begins with; that of its partitions begins with "partN-mpath-"
_BLOCK = "/sys/block"
_LINKS = 10.0  # seconds that udev has to make the link of a map


class MpathPool(Pool):
    """All multipath devices of this host."""

    type: ClassVar[str] = "mpath"
    first: ClassVar[str | None] = "0.7.1"
    source: PlainSource = xml("source", default=PlainSource, always=True, doc="Vendor and product only.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/mapper, whatever is given: the devices are there."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The target is /dev/mapper where none is given."""
        target = values.get("target") or OptionalTarget()
        values["target"] = target if target.path else replace(target, path="/dev/mapper")


class MpathBackend(LunVolumes):
    """The maps of multipathd."""

    type = "mpath"
    definition = MpathPool
    packages: ClassVar[dict[str, str]] = {"multipathd": "multipath-tools"}
    may_hang = luns.MAY_HANG
    provider = "multipathd, of the logical units that this host sees by several paths"

    def state(self, *, closely: bool = False) -> State:
        """Whether the kernel has the device mapper."""
        if self.host.devices.there("/sys/class/misc/device-mapper"):
            return State(True)
        return State(False, why="the kernel has no device mapper")

    def start(self) -> None:
        """Nothing is brought up: multipathd makes the maps."""
        state = self.state()
        if not state.up:
            raise errors.HostError(
                f"pool '{self.pool.name}': {state.why}", pool=self.pool.name,
                hint="load it, and start multipathd: modprobe dm_multipath; systemctl start multipathd",
            )  # fmt: skip

    def stop(self) -> None:
        """Nothing: the maps are multipathd's."""

    def luns(self) -> list[Lun]:
        """All maps, by number; their partitions, and other mapped devices, are none."""
        paths = self._paths_of_maps()
        said = self.host.devices
        found = []
        for name in said.names(_BLOCK):
            base = f"{_BLOCK}/{name}"
            uuid = said.value(f"{base}/dm/uuid") if name.startswith("dm-") else ""
            if not uuid.startswith(_MARK):
                continue
            disk = next(iter(said.names(f"{base}/slaves")), "")
            size, sector = (int(said.value(f"{base}/{name}") or 0) for name in ("size", "queue/logical_block_size"))
            device = f"{_BLOCK}/{disk}/device"
            state = self._state(base, paths.get(said.value(f"{base}/dm/name")))
            found.append(
                Lun(
                    name, f"/dev/{name}", said.value(f"{base}/dev"), size * 512, sector, said.value(f"{base}/ro") == "1",
                    state, uuid[len(_MARK) :], device,
                    scsibus.maker(self.host, device),
                )
            )  # fmt: skip
        return found

    def _state(self, base: str, working: int | None) -> str:
        said = self.host.devices
        if said.value(f"{base}/dm/suspended") == "1":
            return "suspended"
        if working is None:  # who may not ask the device mapper sees what the disks say
            disks = said.names(f"{base}/slaves")
            working = sum(said.value(f"{_BLOCK}/{disk}/device/state") in ("running", "live") for disk in disks)
        return "running" if working else "without a working path"

    def _paths_of_maps(self) -> dict[str, int]:
        """How many paths of each map work, by its name, as the kernel has it: multipathd may not run."""
        if not self.host.root or not self.host.has_program("dmsetup"):
            return {}
        found = {}
        argv = ["dmsetup", "status", "--noflush", "--manglename", "none", "--target", "multipath"]
        with contextlib.suppress(errors.ToolError):
            for line in self.host.query(argv).stdout.splitlines():
                name, _, rest = line.partition(": 0 ")
                # For each path its major:minor, then A for one that is active or F for one that has failed.
                pairs = itertools.pairwise(rest.split())
                found[name] = sum(state == "A" for path, state in pairs if _is_number(path))
        return found

    def _paths(self, units: Sequence[Lun]) -> dict[str, str]:
        """As in libvirt, below /dev/mapper whatever the target is; udev makes the links."""
        paths = {
            unit.number: f"/dev/mapper/{self.host.devices.value(f'{_BLOCK}/{unit.name}/dm/name')}" for unit in units
        }

        def complete() -> bool:
            return all(self.host.devices.number(path) == number for number, path in paths.items())

        self.host.wait_for(complete, _LINKS)
        return {number: path for number, path in paths.items() if self.host.devices.number(path) == number}

    def ask(self, fd: int, lun: Lun) -> str | None:
        """What the unit says by the path in use, where the maps are named by what units say; else the map's own name.

        A path that fails meanwhile is multipathd's to find out.
        """
        with contextlib.suppress(OSError):
            if scsibus.kept_wwid(self.host, lun.device) == lun.wwid:
                return luns.live_wwid(fd, lun) or lun.wwid
        return lun.wwid

    def stuck(self, lun: Lun, before: tuple[int, int]) -> bool:
        """Also a map that waits for a path."""
        return lun.state != "running" or super().stuck(lun, before)


def _is_number(word: str) -> bool:
    major, _, minor = word.partition(":")
    return major.isdigit() and minor.isdigit()
