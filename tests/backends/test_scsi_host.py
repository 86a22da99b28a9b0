"""SCSI pools on a sysfs that the test writes: which adapter is meant, which of its units are volumes, what is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backends.scsi import ScsiBackend, ScsiPool
from poolkit.families import fchosts, scsibus
from poolkit.testing import ScriptedHost
from poolkit.testing.script import ScriptedDevices

NAA = bytes([0, 0x83, 0, 12, 1, 3, 0, 8]) + bytes.fromhex("500140512345678a")
_minors = itertools.count(100_000)


class Machine:
    """Hosts and units in a folder that plays the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bus = root / "sys/bus/scsi/devices"
        self.hosts, self.ports = root / "sys/class/scsi_host", root / "sys/class/fc_host"
        for folder in (self.bus, self.hosts, self.ports):
            folder.mkdir(parents=True)

    @property
    def played(self) -> ScriptedHost:
        return ScriptedHost(machine=self.root)

    def host(self, number: int, place: str, unique_id: int = 0, driver: str = "ahci") -> None:
        real = self.root / "sys/devices" / place / f"host{number}/scsi_host/host{number}"
        write(real, unique_id=f"{unique_id}\n", proc_name=f"{driver}\n")
        (self.hosts / f"host{number}").symlink_to(real)

    def unit(self, address: str, type: int = 0, **facts: str) -> None:
        folder = self.bus / address
        write(folder, type=f"{type}\n", state="running\n", vendor="ACME    \n", model="Disk            \n")
        (folder / "vpd_pg83").write_bytes(NAA)
        if "block" in facts:
            block = folder / "block" / facts.pop("block")
            write(block, dev=f"8:{next(_minors)}\n", size="2048\n", ro="0\n", **facts)
            write(block / "queue", logical_block_size="4096\n")

    def port(self, number: int, wwnn: str, wwpn: str, place: str = "", **facts: str) -> None:
        real = self.root / "sys/devices" / (place or f"pci/host{number}") / f"fc_host/host{number}"
        facts = {"port_state": "Online", "max_npiv_vports": "2", "npiv_vports_inuse": "0", **facts}
        write(real, node_name=f"0x{wwnn}\n", port_name=f"0x{wwpn}\n", **facts)
        if not place:
            (real / "vport_create").touch()
            (real / "vport_delete").touch()
        (self.ports / f"host{number}").symlink_to(real)


def write(folder: Path, **facts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in facts.items():
        (folder / name).write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def backend(machine: Machine, adapter: str, target: str = "/dev/disk/by-path") -> ScsiBackend:
    text = f"<pool type='scsi'><name>p</name><source>{adapter}</source><target><path>{target}</path></target></pool>"
    return ScsiBackend(xmlmap.read(text, [ScsiPool]), machine.played)


def named(machine: Machine, name: str, **more: Any) -> ScsiBackend:
    return backend(machine, f"<adapter type='scsi_host' name='{name}'/>", **more)


def test_units_are_the_disks_of_one_host_in_the_order_of_their_numbers(machine: Machine) -> None:
    machine.host(1, "pci0000:00/0000:00:1f.2")
    machine.host(10, "pci0000:00/0000:00:1e.0")
    for address, block in (("1:0:0:300", "sdc"), ("1:0:0:2", "sda"), ("1:0:10:0", "sdd"), ("1:0:2:0", "sdb")):
        machine.unit(address, block=block)
    machine.unit("1:0:0:3", type=5, block="sr0")
    machine.unit("1:0:0:4", type=13)
    machine.unit("1:0:0:5")  # a disk whose device has not come yet
    machine.unit("10:0:0:0", block="sde")
    found = named(machine, "scsi_host1").luns()
    assert [lun.name for lun in found] == ["unit:0:0:2", "unit:0:0:300", "unit:0:2:0", "unit:0:10:0"]
    assert [lun.node for lun in found] == ["/dev/sda", "/dev/sdc", "/dev/sdb", "/dev/sdd"]
    assert {(lun.size, lun.sector, lun.wwid, lun.state) for lun in found} == {
        (2048 * 512, 4096, "3500140512345678a", "running")
    }
    assert named(machine, "host7").luns() == []


@pytest.mark.parametrize("name", ["host1", "scsi_host1", "fc_host1"])
def test_an_adapter_by_its_name(machine: Machine, name: str) -> None:
    assert not named(machine, name).state().up
    machine.host(1, "pci0000:00/0000:00:1f.2")
    assert named(machine, name).state().up
    assert list(named(machine, name).claims()) == ["adapter host1"]


@pytest.mark.parametrize("name", ["1", "host", "hostx", "scsi_1", "eth0", "host-1", "host1.1", "sshost1"])
def test_what_is_no_name_of_an_adapter(machine: Machine, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="no name of a SCSI host adapter"):
        list(named(machine, name).claims())


def test_an_adapter_by_its_place(machine: Machine) -> None:
    machine.host(0, "pci0000:00/0000:00:1f.2/ata1", 1)
    machine.host(3, "pci0000:00/0000:00:1f.2/ata2", 2)
    text = (
        "<adapter type='scsi_host'><parentaddr unique_id='{}'><address domain='0x0000' bus='0x00' slot='0x1f' "
        "function='0x2'/></parentaddr></adapter>"
    )
    assert backend(machine, text.format(1)).find() == 0
    assert backend(machine, text.format(2)).find() == 3
    assert backend(machine, text.format(3)).find() is None
    assert "with the unique_id 3 at 0000:00:1f.2" in backend(machine, text.format(3)).state().why


def test_a_number_that_was_given_to_another_adapter(machine: Machine) -> None:
    machine.host(2, "pci0000:00/0000:00:1f.2")
    pool = named(machine, "host2")
    noted = pool.storage()
    assert noted is not None
    assert pool.changed_since(noted) == ""
    (machine.hosts / "host2").unlink()
    machine.host(2, "pci0000:00/0000:00:05.0", driver="virtio_scsi")
    assert re.search(
        r"host2 is another adapter .*0000:00:05\.0 \(virtio_scsi\), and was .*0000:00:1f\.2", pool.changed_since(noted)
    )


def test_ports_of_fibre_channel(machine: Machine) -> None:
    machine.port(4, "20000000c9831b4a", "10000000c9831b4a", fabric_name="0x2002000573de9a81\n")
    machine.port(5, "20000000c9831b4b", "10000000c9831b4b", "pci/host4/vport-4:0-0/host5")
    by_names = "<adapter type='fc_host' {} wwnn='20000000C9831B4B' wwpn='10000000c9831b4b'/>"
    pool = backend(machine, by_names.format(""))
    assert (pool.find(), fchosts.parent(pool.host, 5), fchosts.parent(pool.host, 4)) == (5, 4, None)
    pool.start()
    backend(machine, by_names.format("parent='scsi_host4'")).start()
    with pytest.raises(errors.HostError, match="there is no Fibre Channel adapter 'scsi_host9' to be the parent"):
        backend(machine, by_names.format("parent='scsi_host9'")).start()
    machine.port(6, "20000000c9831b4c", "10000000c9831b4c")
    with pytest.raises(errors.HostError, match="belongs to host4 and not to host6"):
        backend(machine, by_names.format("parent='scsi_host6'")).start()
    with pytest.raises(errors.HostError, match="belongs to host4 and not to host6"):
        backend(machine, by_names.format("parent_wwnn='20000000c9831b4c' parent_wwpn='10000000c9831b4c'")).start()
    assert fchosts.on_fabric(pool.host, "2002000573DE9A81") == 4
    assert fchosts.able(pool.host) == 4
    write(machine.ports / "host4", npiv_vports_inuse="2\n")
    assert (fchosts.able(pool.host), fchosts.on_fabric(pool.host, "2002000573de9a81")) == (6, None)
    write(machine.ports / "host6", port_state="Linkdown\n")
    missing = "<adapter type='fc_host' managed='yes' {} wwnn='20000000c9831b4d' wwpn='10000000c9831b4d'/>"
    for parent, words in (
        ("", "no Fibre Channel adapter can have another"),
        ("parent='scsi_host4'", "host4 cannot have"),
    ):
        with pytest.raises(errors.HostError, match=words):
            backend(machine, missing.format(parent)).start()
    with pytest.raises(errors.HostError) as caught:
        backend(machine, missing.replace("managed='yes'", "").format("")).start()
    assert "managed='yes'" in str(caught.value.hint)


def test_a_virtual_port_is_taken_back_only_if_it_is_the_one_that_was_made(machine: Machine) -> None:
    names = ("20000000c9831b4b", "10000000c9831b4b")
    pool = backend(machine, f"<adapter type='fc_host' managed='yes' wwnn='{names[0]}' wwpn='{names[1]}'/>")
    machine.port(4, "20000000c9831b4a", "10000000c9831b4a")

    def told() -> list[tuple[str, str]]:
        """What the knobs were told since the last look."""
        knobs = [machine.ports / "host4" / f"vport_{what}" for what in ("create", "delete")]
        found = [(knob.name, text) for knob in knobs if (text := knob.read_text())]
        for knob in knobs:
            knob.write_text("")
        return found

    pool.take_back("made", 4)  # it never came
    assert told() == []
    pool.take_back("removed", 4)
    assert told() == [("vport_create", f"{names[1]}:{names[0]}")]
    machine.port(5, *names, "pci/host4/vport-4:0-1/host5")
    assert fchosts.virtual(pool.host, 4) == ["vport-4:0-1"]
    pool.take_back("made", 4, "vport-4:0-1")  # somebody had it before
    pool.take_back("removed", 4)  # it is there again
    assert told() == []
    pool.take_back("made", 4, "vport-4:0-0")
    assert told() == [("vport_delete", f"{names[1]}:{names[0]}")]


def test_a_knob_is_told_at_once_and_through_no_link(machine: Machine) -> None:
    """The kernel takes each write(2) as a whole command."""
    machine.port(4, "20000000c9831b4a", "10000000c9831b4a")
    knob = machine.ports / "host4" / "vport_create"
    (machine.ports / "host4" / "other").symlink_to(knob)
    devices = machine.played.devices
    devices.tell("/sys/class/fc_host/host4/vport_create", "a:b")
    assert knob.read_text() == "a:b"
    with pytest.raises(OSError, match="symbolic links"):
        devices.tell("/sys/class/fc_host/host4/other", "c:d")
    with pytest.raises(FileNotFoundError):  # a knob is never made
        devices.tell("/sys/class/fc_host/host4/none", "c:d")
    assert knob.read_text() == "a:b"


@pytest.mark.parametrize("path", ["/srv", "/", "/devices/x", "/dev/../srv"])
def test_a_target_outside_of_dev_is_refused(machine: Machine, path: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="no paths of devices are in"):
        list(named(machine, "host1", target=path).claims())
    assert list(named(machine, "host1", target="/dev/disk/by-id/").claims())


def test_adapters_are_found_by_what_is_stable(machine: Machine) -> None:
    machine.host(0, "pci0000:00/0000:00:1f.2/ata1", 7)
    machine.host(1, "pci0000:00/0000:00:1f.2/ata2", 7)  # the same place, the same unique_id
    machine.host(2, "pseudo_0/adapter0", driver="scsi_debug")
    machine.host(3, "pci0000:00/0000:00:02.0")
    machine.host(4, "pci0000:00/0000:00:03.0")
    machine.port(4, "20000000c9831b4a", "10000000c9831b4a")
    for number in (0, 1, 2, 4):  # nothing is behind host3
        machine.unit(f"{number}:0:0:0", block=f"sd{number}")
    found = [xmlmap.write(pool) for pool in ScsiBackend.discover(machine.played, None)]
    adapters = [re.findall(r"<(?:adapter|parentaddr) [^>]*>", text)[-1] for text in found]
    assert adapters == [
        "<parentaddr unique_id='7'>",
        "<adapter type='scsi_host' name='scsi_host1'/>",
        "<adapter type='scsi_host' name='scsi_host2'/>",
        "<adapter type='fc_host' wwnn='20000000c9831b4a' wwpn='10000000c9831b4a'/>",
    ]


def test_commands_of_every_kind_count(machine: Machine) -> None:
    """What a rescan sends is neither a read nor a write."""
    machine.host(1, "pci0000:00/0000:00:1f.2")
    machine.unit("1:0:0:0", block="sda")
    pool = named(machine, "host1")
    (lun,) = pool.luns()
    assert scsibus.busy(pool.host, lun) == (0, 0)  # no disk of this machine has that number
    write(machine.bus / "1:0:0:0", device_busy="2\n", iodone_cnt="0x1f\n")
    assert scsibus.busy(pool.host, lun) == (2, 31)


class AtWork(ScriptedDevices):
    """The disk answers a command between two looks."""

    answered = 0

    def value(self, path: str) -> str:
        if path.endswith("/iodone_cnt"):
            self.answered += 1
            return hex(self.answered)
        return super().value(path)


@pytest.mark.parametrize(
    ("waiting", "at_work", "state", "alive"),
    [
        (0, False, "running", True),
        (3, False, "running", False),
        (3, True, "running", True),
        (0, False, "blocked", False),
        (0, False, "offline", True),  # requests fail at once
    ],
)
def test_a_unit_that_hangs_is_told_by_sysfs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, waiting: int, at_work: bool, state: str, alive: bool
) -> None:
    """Blocked, or with a request that does not end; not one that is merely busy or has nothing to do."""
    monkeypatch.setattr("poolkit.host.worker.DEADLINE", 0.3)
    machine.host(1, "pci0000:00/0000:00:1f.2")
    machine.unit("1:0:0:0", block="sda")
    write(machine.bus / "1:0:0:0", device_busy=f"{waiting}\n", iodone_cnt="0x5\n", state=state)
    pool = named(machine, "host1")
    if at_work:
        pool.host.devices = AtWork(machine.root)
    assert pool.answers() is alive
