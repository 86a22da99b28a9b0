"""Fibre Channel ports, and the virtual ones (NPIV) that a port can have: they are made and removed by knobs of the kernel.

A port is known by its names: the WWNN of its node and the WWPN, which is its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from poolkit import errors
from poolkit.families.scsibus import poke
from poolkit.host import kernel
from poolkit.host.port import Host
from poolkit.host.undo import Undo

_PORTS = "/sys/class/fc_host"
_PARENT = re.compile(r"/host(\d+)/vport-[^/]+/host\d+/")
_WAIT = 10.0  # seconds in which a virtual port must have come or gone


def _all() -> list[int]:
    return [int(name[4:]) for name in kernel.names(_PORTS) if name.startswith("host") and name[4:].isdigit()]


def exists(number: int) -> bool:
    """Whether the SCSI host of that number is a Fibre Channel port."""
    return os.path.isdir(f"{_PORTS}/host{number}")


def names(number: int) -> tuple[str, str] | None:
    """WWNN and WWPN of a port, 16 hexadecimal digits each; None if it is none."""
    found = [_bare(kernel.value(f"{_PORTS}/host{number}/{name}")) for name in ("node_name", "port_name")]
    return (found[0], found[1]) if all(found) else None


def find(wwnn: str, wwpn: str) -> int | None:
    """The number of the port with these names, virtual or not; None if there is none."""
    wanted = (_bare(wwnn), _bare(wwpn))
    return next((number for number in _all() if names(number) == wanted), None)


def on_fabric(fabric: str) -> int | None:
    """A port on the fabric of that name which can have another virtual one."""
    return next(
        (n for n in _all() if _bare(kernel.value(f"{_PORTS}/host{n}/fabric_name")) == _bare(fabric) and free(n)), None
    )


def able() -> int | None:
    """The first port that can have another virtual one."""
    return next((number for number in _all() if free(number)), None)


def free(number: int) -> bool:
    """Whether the port is up and can have another virtual one."""
    base = f"{_PORTS}/host{number}"
    most, used = (kernel.value(f"{base}/{name}") for name in ("max_npiv_vports", "npiv_vports_inuse"))
    if not os.path.exists(f"{base}/vport_create") or kernel.value(f"{base}/port_state") != "Online":
        return False
    return int(most or 0) > int(used or 0)


def parent(number: int) -> int | None:
    """The port that a virtual one belongs to; None for one that is not virtual."""
    found = _PARENT.search(os.path.realpath(f"{_PORTS}/host{number}"))
    return int(found[1]) if found else None


def virtual(parent: int) -> list[str]:
    """The kernel's names (``vport-2:0-0``) of the virtual ports of a port; none is given twice."""
    base = os.path.realpath(f"{_PORTS}/host{parent}").rpartition("/fc_host/")[0]
    return [name for name in kernel.names(base) if name.startswith("vport-")]


def make(host: Host, parent: int, wwnn: str, wwpn: str, undo: Undo) -> int:
    """Make a virtual port; its number. ``HostError`` if it does not come."""
    wanted = f"{_bare(wwpn)}:{_bare(wwnn)}"
    if not host.step(f"make the virtual port {wanted} of host{parent}", undo):
        return -1
    _tell(parent, "create", wanted)
    number = host.wait_for(lambda: _found(wwnn, wwpn), _WAIT)
    if number is None:
        raise errors.HostError(f"host{parent} has made no virtual port {wanted} within {_WAIT:g} seconds")
    return number[0]


def remove(host: Host, parent: int, wwnn: str, wwpn: str, undo: Undo) -> None:
    """Remove a virtual port."""
    wanted = f"{_bare(wwpn)}:{_bare(wwnn)}"
    if not host.step(f"remove the virtual port {wanted} of host{parent}", undo):
        return
    _tell(parent, "delete", wanted)
    if host.wait_for(lambda: find(wwnn, wwpn) is None, _WAIT) is None:
        raise errors.HostError(f"host{parent} still has the virtual port {wanted} after {_WAIT:g} seconds")


def unmake(parent: int, wwnn: str, wwpn: str, before: Sequence[str]) -> None:
    """Take ``make`` back: the port is removed if it is there and is none of those that the parent had ``before``."""
    number = find(wwnn, wwpn)
    place = "" if number is None else os.path.realpath(f"{_PORTS}/host{number}")
    if any(f"/{name}/" in place for name in virtual(parent) if name not in before):
        _tell(parent, "delete", f"{_bare(wwpn)}:{_bare(wwnn)}")


def remake(parent: int, wwnn: str, wwpn: str) -> None:
    """Take ``remove`` back: the port is made, unless it is there."""
    if find(wwnn, wwpn) is None:
        _tell(parent, "create", f"{_bare(wwpn)}:{_bare(wwnn)}")


def _tell(parent: int, what: str, wanted: str) -> None:
    try:
        poke(f"{_PORTS}/host{parent}/vport_{what}", wanted)
    except OSError as error:
        raise errors.from_os_error(error, f"{what} the virtual port {wanted} of host{parent}") from error


def _found(wwnn: str, wwpn: str) -> tuple[int] | None:
    number = find(wwnn, wwpn)
    return None if number is None else (number,)


def _bare(name: str) -> str:
    return name.lower().removeprefix("0x")
