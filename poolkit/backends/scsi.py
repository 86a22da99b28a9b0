"""Pools of type ``scsi``: the logical units behind a SCSI or Fibre Channel host adapter."""

from __future__ import annotations

from typing import ClassVar

from poolkit.model import Pool, PoolTarget
from poolkit.xmlmap import Effect, Element, simple, xml
from poolkit.xmlmap.rules import exactly_one, requires


class PciAddress(Element):
    """Where the adapter is on the PCI bus, in decimal, octal (0...) or hexadecimal (0x...)."""

    domain: int = xml("@domain", type=simple.Domain, default=0, since="1.2.7", doc="PCI domain.")
    bus: int = xml("@bus", type=simple.Bus, default=0, since="1.2.7", doc="Bus.")
    slot: int = xml("@slot", type=simple.Slot, default=0, since="1.2.7", doc="Slot.")
    function: int = xml("@function", type=simple.Function, default=0, since="1.2.7", doc="Function.")


class ParentAddress(Element):
    """A host adapter by its place, which is stable where its number is not."""

    unique_id: int = xml("@unique_id", type=simple.UInt, since="1.2.7", doc="The adapter's unique_id in sysfs.")
    address: PciAddress = xml("address", since="1.2.7", doc="PCI address.")


class ScsiHostAdapter(Element):
    """A SCSI host adapter, by name or by address."""

    type: ClassVar[str] = "scsi_host"
    type_optional: ClassVar[bool] = True
    rules = (exactly_one("name", "parent_address", paths=("@name", "parentaddr")),)
    name: str | None = xml("@name", type=simple.Word, default=None, since="0.6.2", doc="scsi_hostN or hostN.")
    parent_address: ParentAddress | None = xml("parentaddr", default=None, since="1.2.7", doc="Its place.")


class FcHostAdapter(Element):
    """A Fibre Channel host adapter, which a virtual one (NPIV) is made of."""

    type: ClassVar[str] = "fc_host"
    # As libvirt: half of the parent's name is none.
    rules = (
        requires("parent_wwnn", "parent_wwpn", paths=("@parent_wwnn", "@parent_wwpn")),
        requires("parent_wwpn", "parent_wwnn", paths=("@parent_wwpn", "@parent_wwnn")),
    )
    parent: str | None = xml("@parent", type=simple.Word, default=None, since="1.0.4", doc="Parent scsi_hostN.")
    parent_wwnn: str | None = xml(
        "@parent_wwnn", type=simple.Wwn, default=None, since="3.0.0", doc="Parent's node name."
    )
    parent_wwpn: str | None = xml(
        "@parent_wwpn", type=simple.Wwn, default=None, since="3.0.0", doc="Parent's port name."
    )
    parent_fabric_wwn: str | None = xml(
        "@parent_fabric_wwn", type=simple.Wwn, default=None, since="3.0.0", doc="Parent's fabric name."
    )
    managed: bool | None = xml(
        "@managed", default=None, since="1.2.11", doc="Whether stop removes the virtual adapter."
    )
    wwnn: str = xml("@wwnn", type=simple.Wwn, since="1.0.4", doc="World wide node name.")
    wwpn: str = xml("@wwpn", type=simple.Wwn, since="1.0.4", doc="World wide port name.")


class ScsiSource(Element):
    """The adapter."""

    adapter: ScsiHostAdapter | FcHostAdapter = xml("adapter", since="0.6.2", doc="The host adapter.")
    vendor: str | None = xml("vendor/@name", default=None, since="0.8.4", doc="Who made the storage; for information.")
    product: str | None = xml("product/@name", default=None, since="0.8.4", doc="What it is; for information.")


class ScsiPool(Pool):
    """The logical units of one host adapter."""

    type: ClassVar[str] = "scsi"
    first: ClassVar[str | None] = "0.4.1"
    effect: ClassVar[Effect | None] = "kept"
    source: ScsiSource = xml("source", doc="The adapter.")
    target: PoolTarget = xml("target", doc="Where stable device names are, usually /dev/disk/by-path.")
