"""Pools of type ``scsi``: the logical units behind a SCSI or Fibre Channel host adapter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from poolkit import errors
from poolkit.backend import State, VolumeInfo
from poolkit.families import blockdevice, fchosts, luns, scsibus
from poolkit.families.away import taken_back
from poolkit.families.luns import LunVolumes
from poolkit.model import DeviceTarget, Pool
from poolkit.xmlmap import Element, simple, xml
from poolkit.xmlmap.rules import exactly_one, together

if TYPE_CHECKING:
    from poolkit.host.port import Host

_HOST = re.compile(r"(?:scsi_|fc_)?host([0-9]{1,9})")
APPEARANCE = 5.0
"""Seconds that the units behind a new virtual adapter have to be found; libvirt looks as long."""


class PciAddress(Element):
    """Where the adapter is on the PCI bus, in decimal, octal (0...) or hexadecimal (0x...)."""

    domain: int = xml("@domain", type=simple.Domain, default=0, since="1.2.7", effect="acted", doc="PCI domain.")
    bus: int = xml("@bus", type=simple.Bus, default=0, since="1.2.7", effect="acted", doc="Bus.")
    slot: int = xml("@slot", type=simple.Slot, default=0, since="1.2.7", effect="acted", doc="Slot.")
    function: int = xml("@function", type=simple.Function, default=0, since="1.2.7", effect="acted", doc="Function.")


class ParentAddress(Element):
    """A host adapter by its place, which is stable where its number is not."""

    unique_id: int = xml(
        "@unique_id", type=simple.UInt, since="1.2.7", effect="acted", doc="The adapter's unique_id in sysfs."
    )
    address: PciAddress = xml("address", since="1.2.7", doc="PCI address.")


class ScsiHostAdapter(Element):
    """A SCSI host adapter, by name or by address."""

    type: ClassVar[str] = "scsi_host"
    type_optional: ClassVar[bool] = True
    rules = (exactly_one("name", "parent_address", paths=("@name", "parentaddr")),)
    name: str | None = xml(
        "@name", type=simple.Word, default=None, since="0.6.2", effect="acted", doc="scsi_hostN or hostN."
    )
    parent_address: ParentAddress | None = xml("parentaddr", default=None, since="1.2.7", doc="Its place.")


class FcHostAdapter(Element):
    """A Fibre Channel host adapter, which a virtual one (NPIV) is made of."""

    type: ClassVar[str] = "fc_host"
    # As libvirt: half of the parent's name is none.
    rules = (together("parent_wwnn", "parent_wwpn", paths=("@parent_wwnn", "@parent_wwpn")),)
    parent: str | None = xml(
        "@parent", type=simple.Word, default=None, since="1.0.4", effect="acted", doc="Parent scsi_hostN."
    )
    parent_wwnn: str | None = xml(
        "@parent_wwnn", type=simple.Wwn, default=None, since="3.0.0", effect="acted", doc="Parent's node name."
    )
    parent_wwpn: str | None = xml(
        "@parent_wwpn", type=simple.Wwn, default=None, since="3.0.0", effect="acted", doc="Parent's port name."
    )
    parent_fabric_wwn: str | None = xml(
        "@parent_fabric_wwn", type=simple.Wwn, default=None, since="3.0.0", effect="acted", doc="Parent's fabric name."
    )
    managed: bool | None = xml(
        "@managed",
        default=None,
        since="1.2.11",
        effect="acted",
        doc="Whether start makes it and stop removes it.",
    )
    wwnn: str = xml("@wwnn", type=simple.Wwn, since="1.0.4", effect="acted", doc="World wide node name.")
    wwpn: str = xml("@wwpn", type=simple.Wwn, since="1.0.4", effect="acted", doc="World wide port name.")


class ScsiSource(Element):
    """The adapter."""

    adapter: ScsiHostAdapter | FcHostAdapter = xml("adapter", since="0.6.2", doc="The host adapter.")
    vendor: str | None = xml(
        "vendor/@name", default=None, since="0.8.4", effect="kept", doc="Who made the storage; for information."
    )
    product: str | None = xml(
        "product/@name", default=None, since="0.8.4", effect="kept", doc="What it is; for information."
    )


class ScsiPool(Pool):
    """The logical units of one host adapter."""

    type: ClassVar[str] = "scsi"
    first: ClassVar[str | None] = "0.4.1"
    source: ScsiSource = xml("source", doc="The adapter.")
    target: DeviceTarget = xml("target", doc="Where stable device names are, usually /dev/disk/by-path.")


class ScsiBackend(LunVolumes):
    """A host adapter and the disks behind it."""

    type = "scsi"
    needs_root = ("start", "discover")
    definition = ScsiPool
    usual_target = "/dev/disk/by-path"
    may_hang = luns.MAY_HANG

    # -- the adapter --------------------------------------------------------------------------------------------------

    @property
    def adapter(self) -> ScsiHostAdapter | FcHostAdapter:
        """The adapter as the definition names it."""
        adapter: ScsiHostAdapter | FcHostAdapter = self.pool.source.adapter
        return adapter

    def claims(self) -> Iterable[str]:
        """The adapter; ``InvalidArgument`` for a name that no adapter can have, and a target without paths of devices."""
        self.check_place()
        adapter = self.adapter
        if isinstance(adapter, FcHostAdapter):
            return (f"adapter {adapter.wwpn.lower()}",)
        if adapter.name is not None:
            return (f"adapter host{self._number(adapter.name)}",)
        return (f"adapter {self._words()}",)

    def _number(self, name: str) -> int:
        """The number in ``host5``, ``scsi_host5`` or ``fc_host5``."""
        found = _HOST.fullmatch(name)
        if found is None:
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': '{name}' is no name of a SCSI host adapter", pool=self.pool.name,
                hint="such as scsi_host5; they are in /sys/class/scsi_host",
            )  # fmt: skip
        return int(found[1])

    def _words(self) -> str:
        """The adapter in words."""
        adapter = self.adapter
        if isinstance(adapter, FcHostAdapter):
            return f"Fibre Channel adapter with the WWNN {adapter.wwnn} and the WWPN {adapter.wwpn}"
        if adapter.parent_address is None:
            return f"SCSI host adapter '{adapter.name}'"
        where = adapter.parent_address
        return f"SCSI host adapter with the unique_id {where.unique_id} at {_pci(where.address)}"

    def find(self) -> int | None:
        """The number of the adapter's SCSI host; None if it is not there."""
        adapter = self.adapter
        if isinstance(adapter, FcHostAdapter):
            return fchosts.find(self.host, adapter.wwnn, adapter.wwpn)
        if adapter.parent_address is not None:
            where = adapter.parent_address
            return scsibus.at(self.host, _pci(where.address), where.unique_id)
        number = self._number(adapter.name or "")
        return number if scsibus.exists(self.host, number) else None

    def luns(self) -> list[scsibus.Lun]:
        """The disks behind the adapter."""
        number = self.find()
        return [] if number is None else scsibus.luns(self.host, [number])

    # -- the pool -----------------------------------------------------------------------------------------------------

    def state(self, *, closely: bool = False) -> State:
        """Whether the adapter is there. A Fibre Channel port is never told to be whole: it may have another parent."""
        if self.find() is None:
            return State(False, why=f"there is no {self._words()}")
        return State(True, whole=not isinstance(self.adapter, FcHostAdapter))

    def storage(self) -> str | None:
        """Where the adapter is plugged in, for one that is known by its number alone."""
        number = self.find()
        if number is None or isinstance(self.adapter, FcHostAdapter):
            return None
        return scsibus.plugged(self.host, number)

    def changed_since(self, noted: str) -> str:
        """Numbers of SCSI hosts are given again."""
        number = self.find()
        if number is None or (now := scsibus.plugged(self.host, number)) == noted:
            return ""
        return f"host{number} is another adapter than when the pool was started: {now}, and was {noted}"

    def start(self) -> None:
        """Find the adapter; a managed virtual one is made where it is not there."""
        number = self.find()
        adapter = self.adapter
        if isinstance(adapter, FcHostAdapter):
            if number is not None:
                self._check_parent(adapter, number)
            elif adapter.managed:
                self._make(adapter)
                return
        if number is None:
            hint = "the adapters are in /sys/class/scsi_host; is the driver loaded?"
            if isinstance(adapter, FcHostAdapter):
                hint = "a virtual adapter is made and removed with the pool where the definition says managed='yes'"
            raise errors.HostError(
                f"pool '{self.pool.name}': there is no {self._words()}", pool=self.pool.name, hint=hint
            )

    def _parent(self, adapter: FcHostAdapter) -> int | None:
        """The host that the definition names as the parent, if it names one; ``HostError`` if that is not there."""
        number: int | None
        if adapter.parent is not None:
            number, words = self._number(adapter.parent), f"'{adapter.parent}'"
            number = number if fchosts.exists(self.host, number) else None
        elif adapter.parent_wwnn is not None and adapter.parent_wwpn is not None:
            number = fchosts.find(self.host, adapter.parent_wwnn, adapter.parent_wwpn)
            words = f"{adapter.parent_wwnn}:{adapter.parent_wwpn}"
        elif adapter.parent_fabric_wwn is not None:
            number = fchosts.on_fabric(self.host, adapter.parent_fabric_wwn)
            words = f"on the fabric {adapter.parent_fabric_wwn}"
        else:
            return None
        if number is None:
            raise errors.HostError(
                f"pool '{self.pool.name}': there is no Fibre Channel adapter {words} to be the parent of a virtual one",
                pool=self.pool.name,
                hint="they are in /sys/class/fc_host",
            )
        return number

    def _check_parent(self, adapter: FcHostAdapter, number: int) -> None:
        wanted, have = self._parent(adapter), fchosts.parent(self.host, number)
        if wanted is not None and have is not None and wanted != have:
            raise errors.HostError(
                f"pool '{self.pool.name}': the {self._words()} is there, but it belongs to host{have} and not to "
                f"host{wanted}", pool=self.pool.name,
                hint="correct the parent in the definition, or leave it out",
            )  # fmt: skip

    def _make(self, adapter: FcHostAdapter) -> None:
        parent = self._parent(adapter)
        if parent is None:
            parent = fchosts.able(self.host)
        if parent is None or not fchosts.free(self.host, parent):
            which = "no Fibre Channel adapter" if parent is None else f"host{parent}"
            can = "can" if parent is None else "cannot"
            raise errors.HostError(
                f"pool '{self.pool.name}': {which} {can} have another virtual adapter", pool=self.pool.name,
                hint="npiv_vports_inuse and max_npiv_vports in /sys/class/fc_host/hostN say how many it has and may have",
            )  # fmt: skip
        back = taken_back(self, "remove the virtual port again", "made", parent, *fchosts.virtual(self.host, parent))
        number = fchosts.make(self.host, parent, adapter.wwnn, adapter.wwpn, back)
        if not self.host.dry_run and self.host.wait_for(lambda: scsibus.luns(self.host, [number]), APPEARANCE) is None:
            self.host.warn(
                f"pool '{self.pool.name}': no logical unit has appeared behind the new adapter host{number} yet; "
                "refresh the pool when the fabric has let it in"
            )

    def stop(self) -> None:
        """Remove the virtual adapter of a managed pool, unless one of its disks is in use; else nothing changes."""
        adapter, number = self.adapter, self.find()
        if number is None or not isinstance(adapter, FcHostAdapter) or not adapter.managed:
            return
        parent = fchosts.parent(self.host, number)
        if parent is None:
            return  # the port of a card, not a virtual one
        used = [
            f"volume '{lun.name}' is {errors.some(words)}"
            for lun in self.luns()
            if (words := blockdevice.users(self.host, lun.number, processes=True))
        ]
        if used:
            raise errors.Busy(
                f"pool '{self.pool.name}' cannot be stopped: {errors.some(used, 10, '; ')}", pool=self.pool.name
            )
        back = taken_back(self, "make the virtual port again", "removed", parent)
        fchosts.remove(self.host, parent, adapter.wwnn, adapter.wwpn, back)

    def take_back(self, *what: Any) -> None:
        """The virtual port is known by its names, and by not having been there before."""
        done, parent, *before = what
        adapter = self.adapter
        if isinstance(adapter, FcHostAdapter):
            if done == "made":
                fchosts.unmake(self.host, parent, adapter.wwnn, adapter.wwpn, before)
            else:
                fchosts.remake(self.host, parent, adapter.wwnn, adapter.wwpn)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """As its base, after the adapter was asked for new units and each unit for its size and WWID."""
        number = self.find()
        if number is None:
            raise errors.HostError(f"pool '{self.pool.name}': there is no {self._words()}", pool=self.pool.name)
        if self.host.root:
            scsibus.rescan(self.host, [number])
        return super().volumes(known)

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """The adapters with disks behind them, but for iSCSI sessions; by what is stable, where that is unambiguous."""
        for number in scsibus.hosts(host):
            if not scsibus.addresses(host, [number]) or scsibus.is_iscsi(host, number):
                continue
            adapter: ScsiHostAdapter | FcHostAdapter = ScsiHostAdapter(name=f"scsi_host{number}")
            names, place = fchosts.names(host, number), scsibus.pci(host, number)
            if names is not None:
                adapter = FcHostAdapter(wwnn=names[0], wwpn=names[1])
            elif place is not None and scsibus.at(host, *place) == number:
                fields = [int(field, 16) for field in place[0].replace(".", ":").split(":")]
                address = PciAddress(**dict(zip(("domain", "bus", "slot", "function"), fields, strict=True)))
                adapter = ScsiHostAdapter(parent_address=ParentAddress(unique_id=place[1], address=address))
            yield ScsiPool(
                name=f"scsi-host{number}",
                source=ScsiSource(adapter=adapter),
                target=DeviceTarget(path=luns.BY_PATH),
            )


def _pci(address: PciAddress) -> str:
    """As sysfs writes it."""
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"
