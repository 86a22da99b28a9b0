"""Fibre Channel ports, and the virtual ones (NPIV) that a port can have: they are made and removed by knobs of the kernel.

A port is known by its names: the WWNN of its node and the WWPN, which is its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from poolkit import errors
from poolkit.host.port import Host
from poolkit.host.undo import Undo

_PORTS = "/sys/class/fc_host"
_PARENT = re.compile(r"/host(\d+)/vport-[^/]+/host\d+/")
_WAIT = 10.0  # seconds in which a virtual port must have come or gone


def _all(host: Host) -> list[int]:
    return [int(name[4:]) for name in host.devices.names(_PORTS) if name.startswith("host") and name[4:].isdigit()]


def exists(host: Host, number: int) -> bool:
    """Whether the SCSI host of that number is a Fibre Channel port."""
    return host.devices.there(f"{_PORTS}/host{number}")


def names(host: Host, number: int) -> tuple[str, str] | None:
    """WWNN and WWPN of a port, 16 hexadecimal digits each; None if it is none."""
    found = [_bare(host.devices.value(f"{_PORTS}/host{number}/{name}")) for name in ("node_name", "port_name")]
    return (found[0], found[1]) if all(found) else None


def find(host: Host, wwnn: str, wwpn: str) -> int | None:
    """The number of the port with these names, virtual or not; None if there is none."""
    wanted = (_bare(wwnn), _bare(wwpn))
    return next((number for number in _all(host) if names(host, number) == wanted), None)


def on_fabric(host: Host, fabric: str) -> int | None:
    """A port on the fabric of that name which can have another virtual one."""
    return next(
        (
            n
            for n in _all(host)
            if _bare(host.devices.value(f"{_PORTS}/host{n}/fabric_name")) == _bare(fabric) and free(host, n)
        ),
        None,
    )


def able(host: Host) -> int | None:
    """The first port that can have another virtual one."""
    return next((number for number in _all(host) if free(host, number)), None)


def free(host: Host, number: int) -> bool:
    """Whether the port is up and can have another virtual one."""
    base = f"{_PORTS}/host{number}"
    most, used = (host.devices.value(f"{base}/{name}") for name in ("max_npiv_vports", "npiv_vports_inuse"))
    if not host.devices.there(f"{base}/vport_create") or host.devices.value(f"{base}/port_state") != "Online":
        return False
    return int(most or 0) > int(used or 0)


def parent(host: Host, number: int) -> int | None:
    """The port that a virtual one belongs to; None for one that is not virtual."""
    found = _PARENT.search(host.devices.real(f"{_PORTS}/host{number}"))
    return int(found[1]) if found else None


def virtual(host: Host, parent: int) -> list[str]:
    """The kernel's names (``vport-2:0-0``) of the virtual ports of a port; none is given twice."""
    base = host.devices.real(f"{_PORTS}/host{parent}").rpartition("/fc_host/")[0]
    return [name for name in host.devices.names(base) if name.startswith("vport-")]


def make(host: Host, parent: int, wwnn: str, wwpn: str, undo: Undo) -> int:
    """Make a virtual port; its number. ``HostError`` if it does not come."""
    wanted = f"{_bare(wwpn)}:{_bare(wwnn)}"
    if not host.step(f"make the virtual port {wanted} of host{parent}", undo):
        return -1
    _tell(host, parent, "create", wanted)
    number = host.wait_for(lambda: _found(host, wwnn, wwpn), _WAIT)
    if number is None:
        raise errors.HostError(f"host{parent} has made no virtual port {wanted} within {_WAIT:g} seconds")
    return number[0]


def remove(host: Host, parent: int, wwnn: str, wwpn: str, undo: Undo) -> None:
    """Remove a virtual port."""
    wanted = f"{_bare(wwpn)}:{_bare(wwnn)}"
    if not host.step(f"remove the virtual port {wanted} of host{parent}", undo):
        return
    _tell(host, parent, "delete", wanted)
    if host.wait_for(lambda: find(host, wwnn, wwpn) is None, _WAIT) is None:
        raise errors.HostError(f"host{parent} still has the virtual port {wanted} after {_WAIT:g} seconds")


def unmake(host: Host, parent: int, wwnn: str, wwpn: str, before: Sequence[str]) -> None:
    """Take ``make`` back: the port is removed if it is there and is none of those that the parent had ``before``."""
    number = find(host, wwnn, wwpn)
    place = "" if number is None else host.devices.real(f"{_PORTS}/host{number}")
    if any(f"/{name}/" in place for name in virtual(host, parent) if name not in before):
        _tell(host, parent, "delete", f"{_bare(wwpn)}:{_bare(wwnn)}")


def remake(host: Host, parent: int, wwnn: str, wwpn: str) -> None:
    """Take ``remove`` back: the port is made, unless it is there."""
    if find(host, wwnn, wwpn) is None:
        _tell(host, parent, "create", f"{_bare(wwpn)}:{_bare(wwnn)}")


def _tell(host: Host, parent: int, what: str, wanted: str) -> None:
    try:
        host.devices.tell(f"{_PORTS}/host{parent}/vport_{what}", wanted)
    except OSError as error:
        raise errors.from_os_error(error, f"{what} the virtual port {wanted} of host{parent}") from error


def _found(host: Host, wwnn: str, wwpn: str) -> tuple[int] | None:
    number = find(host, wwnn, wwpn)
    return None if number is None else (number,)


def _bare(name: str) -> str:
    return name.lower().removeprefix("0x")
