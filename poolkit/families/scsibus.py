"""SCSI host adapters and the logical units behind them, as the kernel has them in sysfs.

Reading sysfs sends no command to any device, so nothing here waits for one, but for :func:`rescan`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from poolkit import errors
from poolkit.families import wwid
from poolkit.host.port import Host

_BUS = "/sys/bus/scsi/devices"
_HOSTS = "/sys/class/scsi_host"
# Peripheral device types that the kernel's disk driver takes (SPC-3 table 83): disks, magneto-optical ones, the reduced
# command set, and zoned ones.
_DISKS = frozenset(("0", "7", "14", "20"))
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ARRIVAL = 10.0  # seconds that the kernel has to make the block device of a unit it has just found


class Lun(NamedTuple):
    """A logical unit that is a disk. Sizes in bytes.

    ``name`` is the volume's, as in libvirt: the address without the host, whose number changes (``unit:0:0:1``); ``node`` the
    kernel's device (``/dev/sda``), ``number`` its major:minor; ``state`` the kernel's word (``running``, ``offline``,
    ``blocked``, ``transport-offline`` ...). ``wwid`` is what the kernel was told when it last asked; empty for one that has
    none. ``device`` is its folder in sysfs; ``maker`` vendor and model, blanks included, where they were asked for.
    """

    name: str
    node: str
    number: str
    size: int
    sector: int
    read_only: bool
    state: str
    wwid: str
    device: str
    maker: tuple[str, str] = ("", "")

    @property
    def address(self) -> str:
        """host:channel:target:lun."""
        return self.device.rpartition("/")[2]


def hosts(host: Host) -> list[int]:
    """The numbers of all SCSI hosts."""
    return [int(name[4:]) for name in host.devices.names(_HOSTS) if name.startswith("host") and name[4:].isdigit()]


def exists(host: Host, number: int) -> bool:
    """Whether there is a SCSI host of that number."""
    return host.devices.there(f"{_HOSTS}/host{number}")


def plugged(host: Host, number: int) -> str:
    """Where the SCSI host hangs on this machine, and its driver."""
    real = host.devices.real(f"{_HOSTS}/host{number}").removeprefix("/sys/devices/").partition(f"/host{number}/")[0]
    return f"{real} ({host.devices.value(f'{_HOSTS}/host{number}/proc_name')})"


def pci(host: Host, number: int) -> tuple[str, int] | None:
    """The PCI address of the adapter (``0000:00:1f.1``) and its ``unique_id``; None where it has no such address."""
    found = _PCI.findall(plugged(host, number))
    unique = host.devices.value(f"{_HOSTS}/host{number}/unique_id")
    return (found[-1], int(unique)) if found and unique.isdigit() else None


def at(host: Host, address: str, unique_id: int) -> int | None:
    """The SCSI host at a PCI address with that ``unique_id``; the first of several, as in libvirt. None if there is none."""
    return next((number for number in hosts(host) if pci(host, number) == (address, unique_id)), None)


def is_iscsi(host: Host, number: int) -> bool:
    """Whether it stands for iSCSI sessions."""
    return host.devices.there(f"/sys/class/iscsi_host/host{number}")


def addresses(host: Host, numbers: Iterable[int]) -> list[str]:
    """The addresses of all units of the hosts that are disks, in their order, whether they have a block device or not."""
    wanted = {str(number) for number in numbers}
    found = []
    for name in host.devices.names(_BUS):
        fields = name.split(":")
        if len(fields) == 4 and fields[0] in wanted and host.devices.value(f"{_BUS}/{name}/type") in _DISKS:
            found.append(name)
    return sorted(found, key=lambda name: [int(field) for field in name.split(":")])


def luns(host: Host, numbers: Iterable[int]) -> list[Lun]:
    """The disks behind the hosts of these numbers. A unit that the kernel has no block device for is left out."""
    return [lun for address in addresses(host, numbers) if (lun := look(host, address)) is not None]


def look(host: Host, address: str) -> Lun | None:
    """The disk at host:channel:target:lun; None if there is none now."""
    device = f"{_BUS}/{address}"
    names = host.devices.names(f"{device}/block")
    if not names:
        return None
    block = f"{device}/block/{names[0]}"
    made = maker(host, device)
    return Lun(
        f"unit:{address.partition(':')[2]}", f"/dev/{names[0].replace('!', '/')}", host.devices.value(f"{block}/dev"),
        int(host.devices.value(f"{block}/size") or 0) * 512,  # always counted in 512 bytes
        int(host.devices.value(f"{block}/queue/logical_block_size") or 512), host.devices.value(f"{block}/ro") == "1",
        host.devices.value(f"{device}/state"), _kept_wwid(host, device, made), device, made,
    )  # fmt: skip


def kept_wwid(host: Host, device: str) -> str:
    """The WWID by the pages that the kernel keeps in the unit's folder of sysfs."""
    return _kept_wwid(host, device, maker(host, device))


def _kept_wwid(host: Host, device: str, maker: tuple[str, str]) -> str:
    name = wwid.of_pages(host.devices.data(f"{device}/vpd_pg83"), b"", *maker)
    return name or wwid.of_pages(b"", host.devices.data(f"{device}/vpd_pg80"), *maker)


def maker(host: Host, device: str) -> tuple[str, str]:
    """Vendor and model of the unit, blanks included."""
    vendor, model = (host.devices.text(f"{device}/{name}").rstrip("\n") for name in ("vendor", "model"))
    return vendor, model


def busy(host: Host, lun: Lun) -> tuple[int, int]:
    """Commands that the disk has not answered yet, and a count that grows with each that it has.

    A command that was given up, and will be sent again, is no answer. SCSI's own figures have all commands, a disk's
    (Linux' block/stat.rst) only reads and writes: they are for what is no SCSI device, such as a map.
    """
    waiting, answered = "", ""
    if lun.device.startswith(f"{_BUS}/"):
        waiting, answered = (host.devices.value(f"{lun.device}/{name}") for name in ("device_busy", "iodone_cnt"))
    if waiting and answered:
        return int(waiting), int(answered, 16)
    fields = host.devices.text(f"/sys/dev/block/{lun.number}/stat").split()
    if len(fields) < 9:
        return 0, 0
    return int(fields[8]), sum(int(fields[place]) for place in (0, 4, 11) if place < len(fields))


def rescan(host: Host, numbers: Iterable[int]) -> None:
    """Have the kernel ask the hosts for units it does not know, and each known one for its size and WWID.

    Units that are gone stay in sysfs: the kernel does not remove them. Waits until new ones have their block devices. May wait
    for a device that does not answer.
    """
    for number in numbers:
        base = f"{_HOSTS}/host{number}"
        if not host.step(f"rescan the logical units of host{number}"):
            continue
        for address in addresses(host, [number]):
            if host.devices.value(f"{_BUS}/{address}/state") == "running":
                with contextlib.suppress(OSError):  # it went away, or does not answer: the listing says so
                    host.devices.tell(f"{_BUS}/{address}/rescan", "1")
        try:
            host.devices.tell(f"{base}/scan", "- - -")
        except OSError as error:
            raise errors.from_os_error(error, f"scan host{number}") from error

        def arrived(number: int = number) -> bool:
            return all(
                host.devices.names(f"{_BUS}/{address}/block")
                or host.devices.value(f"{_BUS}/{address}/state") != "running"
                for address in addresses(host, [number])
            )

        host.wait_for(arrived, _ARRIVAL)
