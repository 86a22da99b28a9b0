"""SCSI pools on Fibre Channel: FCoE between the guest's two network cards, the kernel's target, and virtual ports (NPIV)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.families import fchosts, scsibus
from poolkit.host import Host

from ..lab.fixtures import settle, sh, wait_until
from ..sweep import Sampled
from .deaths import deaths
from .lio import CONFIG, Lio, Store

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("one_child")]

EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
NODE, PORT = "1000525400000001", "2000525400000001"  # of the first card: FCoE makes them of its address
VIRTUAL = ("2001001b32a9da4e", "2101001b32a9da4e")


class Fabric:
    """Two ports on one wire; the second one is a target with a unit."""

    def __init__(self) -> None:
        sh("modprobe", "-a", "virtio_net", "fcoe", "tcm_fc")
        self.lio = Lio()
        store = self.lio.store("fc01")
        self.cards = [_card(f"52:54:00:00:00:0{n}") for n in (1, 2)]
        for card in self.cards:
            sh("ip", "link", "set", card, "up", "mtu", "4000")
        names = [f"20:00:52:54:00:00:00:0{n}" for n in (1, 2)]
        target = _controller(self.cards[1])
        self.tpg = CONFIG / "fc" / names[1] / "tpgt_1"
        self.tpg.mkdir(parents=True)
        self.acl = self.tpg / "acls" / names[0]
        self.acl.mkdir()
        self.give(store, 0)
        (target / "enabled").write_text("1")
        # The initiator that is enabled first would see a port that is no target yet, and never ask again.
        wait_until(lambda: "Online" in _states(target), "the target's port")
        initiator = _controller(self.cards[0])
        (initiator / "enabled").write_text("1")
        wait_until(lambda: fchosts.find(Host(), NODE, PORT) is not None, "the initiator's port")
        self.number = fchosts.find(Host(), NODE, PORT)
        assert self.number is not None
        wait_until(lambda: scsibus.luns(Host(), [self.number]), "the unit")

    def give(self, store: Store, lun: int) -> None:
        """Put the file behind that number, for the initiator's port."""
        for place, link, target in (
            (self.tpg / "lun" / f"lun_{lun}", "l", store.path),
            (self.acl / f"lun_{lun}", "x", self.tpg / "lun" / f"lun_{lun}"),
        ):
            place.mkdir()
            (place / link).symlink_to(target)

    def take(self, lun: int) -> None:
        """Take the unit away; nobody is told."""
        for place, link in ((self.acl / f"lun_{lun}", "x"), (self.tpg / "lun" / f"lun_{lun}", "l")):
            (place / link).unlink()
            place.rmdir()

    def close(self) -> None:
        for card in self.cards:
            Path("/sys/bus/fcoe/ctlr_destroy").write_text(card)
        self.take(0)
        self.acl.rmdir()
        self.tpg.rmdir()
        self.tpg.parent.rmdir()
        settle()
        self.lio.close()


def _card(address: str) -> str:
    return next(p.parent.name for p in Path("/sys/class/net").glob("*/address") if p.read_text().strip() == address)


def _controller(card: str) -> Path:
    Path("/sys/bus/fcoe/ctlr_create").write_text(card)
    (made,) = [link.resolve() for link in Path("/sys/bus/fcoe/devices").glob("ctlr_*") if card in link.resolve().parts]
    (made / "mode").write_text("vn2vn")
    return made


def _states(controller: Path) -> str:
    return "".join(path.read_text() for path in controller.glob("host*/fc_host/host*/port_state"))


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    made = Fabric()
    yield made
    made.close()


def xml(adapter: str, name: str = "fc") -> str:
    return (
        f"<pool type='scsi'><name>{name}</name><source><adapter type='fc_host' {adapter}/></source>"
        "<target><path>/dev/disk/by-path</path></target></pool>"
    )


def virtual() -> bool:
    return fchosts.find(Host(), *VIRTUAL) is not None


def test_the_units_of_a_port(engine: Engine, fabric: Fabric) -> None:
    pool = engine.define(xml(f"wwnn='{NODE}' wwpn='{PORT}'"))
    pool.start()
    (volume,) = pool.volumes()
    assert re.fullmatch(r"/dev/disk/by-path/pci-[0-9a-f:.]+-fc-0x2000525400000002-lun-0", volume.path)
    assert volume.key == scsibus.luns(Host(), [fabric.number])[0].wwid != volume.path
    data = os.urandom(100_000)
    volume.upload(BytesIO(data))
    out = BytesIO()
    volume.download(out, length=len(data))
    assert out.getvalue() == data
    found = [one.source.adapter for one in engine.discover("scsi") if one.source.adapter.type == "fc_host"]
    assert [(one.wwnn, one.wwpn) for one in found] == [(NODE, PORT)]
    pool.destroy()
    assert fchosts.find(Host(), NODE, PORT) == fabric.number


def test_a_unit_is_added_and_taken_away(engine: Engine, fabric: Fabric) -> None:
    pool = engine.define(xml(f"wwnn='{NODE}' wwpn='{PORT}'"))
    pool.start()
    assert [volume.name for volume in pool.volumes()] == ["unit:0:0:0"]
    store = fabric.lio.store("fc02", 48 << 20)
    fabric.give(store, 1)
    pool.refresh()
    first, second = pool.volumes()
    assert (first.name, second.name, second.info.capacity) == ("unit:0:0:0", "unit:0:0:1", 48 << 20)
    assert second.path.endswith("-fc-0x2000525400000002-lun-1") and first.key != second.key
    second.upload(BytesIO(b"more"))
    fabric.take(1)
    pool.refresh()
    assert [volume.name for volume in pool.volumes()] == ["unit:0:0:0"]
    with pytest.raises(errors.VolumeNotFound):
        pool.volume("unit:0:0:1")
    pool.destroy()


@pytest.mark.lab(timeout=300)
def test_a_managed_virtual_port_lives_as_long_as_the_pool(
    engine: Engine, fabric: Fabric, sampled: Sampled[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolkit.backends.scsi.APPEARANCE", 0.2)  # on this wire there is no unit for it
    names = f"wwnn='{VIRTUAL[0]}' wwpn='{VIRTUAL[1]}'"
    with pytest.raises(errors.HostError, match="there is no Fibre Channel adapter") as caught:
        engine.define(xml(names, "unmanaged")).start()
    assert "managed='yes'" in str(caught.value.hint)
    engine.pool("unmanaged").undefine()
    for adapter in (
        f"parent='scsi_host{fabric.number}' managed='yes' {names}",
        f"parent_wwnn='{NODE}' parent_wwpn='{PORT}' managed='yes' {names}",
        f"managed='yes' {names}",
    ):
        pool = engine.define(xml(adapter))
        assert pool.start()
        number = fchosts.find(Host(), *VIRTUAL)
        assert number is not None
        assert pool.info.active
        if "managed='yes' wwnn" not in adapter or "parent" in adapter:
            assert fchosts.parent(Host(), number) == fabric.number
        assert pool.destroy()
        assert not virtual()
        assert not pool.info.active
    wrong = engine.define(xml(f"parent='scsi_host99' managed='yes' {names}"))
    with pytest.raises(errors.HostError, match="'scsi_host99' to be the parent"):
        wrong.start()

    pool = engine.define(xml(f"parent='scsi_host{fabric.number}' managed='yes' {names}"))
    root = Path(engine.locations.storage).parent
    for cleaned in deaths(root, lambda engine: engine.pool("fc").start(), sampled):
        assert cleaned.not_undone() == []
        if cleaned.pool("fc").info.active:
            break
        assert not virtual(), "a start that died has left its port"
    pool.start()
    assert virtual()
    for cleaned in deaths(root, lambda engine: engine.pool("fc").destroy(), sampled):
        assert cleaned.not_undone() == []
        assert cleaned.pool("fc").info.active == virtual()
        cleaned.pool("fc").start()
    assert not virtual()


def test_a_port_that_is_not_the_pools_stays(engine: Engine, fabric: Fabric) -> None:
    name = ":".join(reversed(VIRTUAL))
    Path(f"/sys/class/fc_host/host{fabric.number}/vport_create").write_text(name)
    wait_until(virtual, "the virtual port")
    try:
        pool = engine.define(xml(f"wwnn='{VIRTUAL[0]}' wwpn='{VIRTUAL[1]}'"))
        pool.start()
        pool.destroy()
        assert virtual()
        with pytest.raises(errors.HostError, match="belongs to host"):
            engine.define(
                xml(f"parent_wwnn='{NODE[:-1]}2' parent_wwpn='{PORT[:-1]}2' wwnn='{VIRTUAL[0]}' wwpn='{VIRTUAL[1]}'")
            ).start()
    finally:
        Path(f"/sys/class/fc_host/host{fabric.number}/vport_delete").write_text(name)
        wait_until(lambda: not virtual(), "the end of the virtual port")


@pytest.mark.parametrize("example", ["pool-scsi-fc.xml", "pool-scsi-fc-fabric.xml"])
def test_the_examples(engine: Engine, fabric: Fabric, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but for the number or the names of the parent, which the machine gives."""
    monkeypatch.setattr("poolkit.backends.scsi.APPEARANCE", 0.2)
    wire = Path(f"/sys/class/fc_host/host{fabric.number}/fabric_name").read_text().strip().removeprefix("0x").zfill(16)
    theirs = {"scsi_host5": f"scsi_host{fabric.number}", "20000000c9831b4a": NODE, "10000000c9831b4a": PORT}
    document = (EXAMPLES / example).read_text()
    for word, ours in (theirs | {"2002000573de9a81": wire}).items():
        document = document.replace(word, ours)
    pool = engine.define(document)
    adapter = pool.definition().source.adapter
    parent = Path(f"/sys/class/fc_host/host{fabric.number}")
    if not adapter.managed:
        (parent / "vport_create").write_text(f"{adapter.wwpn}:{adapter.wwnn}")
        wait_until(lambda: fchosts.find(Host(), adapter.wwnn, adapter.wwpn) is not None, "the virtual port")
    pool.start()
    assert fchosts.find(Host(), adapter.wwnn, adapter.wwpn) is not None
    pool.destroy()
    assert (fchosts.find(Host(), adapter.wwnn, adapter.wwpn) is None) == bool(adapter.managed)
    if not adapter.managed:
        (parent / "vport_delete").write_text(f"{adapter.wwpn}:{adapter.wwnn}")
        wait_until(lambda: fchosts.find(Host(), adapter.wwnn, adapter.wwpn) is None, "the end of the virtual port")
