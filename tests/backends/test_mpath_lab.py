"""Multipath pools: multipathd's maps of a disk with two paths, whose paths fail; beside libvirtd."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import worker
from poolkit.testing import BackendContract

from ..lab.fixtures import settle, sh, wait_until
from ..lab.speed import scaled

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("one_child")]

MIB = 1 << 20
EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
XML = "<pool type='mpath'><name>maps</name></pool>"
WWID = "35000c50015ea71ac"  # of the guest's disk with two paths
CONF = """\
defaults {
 find_multipaths no
 user_friendly_names yes
 polling_interval 1
 no_path_retry queue
}
blacklist {
 devnode "^(vd|dm|loop|sr|ram)"
 wwid "0QEMU.*SCSI[12]$"
}
"""


@pytest.fixture(scope="module")
def multipathd() -> Iterator[None]:
    """The daemon, and the map mpatha."""
    sh("modprobe", "-a", "virtio_scsi", "sd_mod", "dm_multipath", "dm_service_time", "scsi_dh_alua")
    Path("/etc/multipath").mkdir(exist_ok=True)
    Path("/etc/multipath.conf").write_text(CONF)
    sh("multipathd")
    try:
        wait_until(lambda: os.path.exists("/dev/mapper/mpatha"), "the multipath device")
        yield
    finally:
        settle()
        for line in sh("dmsetup", "ls").splitlines():
            if "-part" in line:
                sh("dmsetup", "remove", "--retry", line.split()[0], check=False)
        if os.path.exists("/dev/mapper/mpatha"):
            sh("wipefs", "--all", "--quiet", "/dev/mapper/mpatha", check=False)
        sh("multipath", "-F", check=False)
        sh("multipathd", "shutdown", check=False)
        for disk in Path("/sys/block").glob("sd*"):
            sh("multipath", "-w", f"/dev/{disk.name}", check=False)


def paths() -> list[Path]:
    """The states of the two disks that mpatha consists of."""
    map_ = Path("/sys/block", os.path.basename(os.path.realpath("/dev/mapper/mpatha")))
    return sorted(disk / "device" / "state" for disk in (map_ / "slaves").iterdir())


@pytest.mark.usefixtures("multipathd")
class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self) -> str:
        return XML


@pytest.mark.usefixtures("multipathd")
def test_a_map_is_a_volume_and_its_partitions_are_none(engine: Engine) -> None:
    pool = engine.define(XML)
    pool.start()
    (volume,) = pool.volumes()
    number = os.path.basename(os.path.realpath("/dev/mapper/mpatha"))
    assert (volume.name, volume.path, volume.key) == (number, "/dev/mapper/mpatha", WWID)
    assert volume.info.capacity == 1 << 30
    host = Path("/sys/block", number, "slaves").glob("*/device")
    addresses = [link.resolve().name for link in host]
    scsi = engine.define(
        f"<pool type='scsi'><name>one</name><source><adapter name='host{addresses[0].partition(':')[0]}'/></source>"
        "<target><path>/dev/disk/by-path</path></target></pool>"
    )
    scsi.start()
    (path,) = scsi.volumes()
    assert path.key == volume.key, "the same unit has the same key in every pool that sees it"
    with pytest.raises(errors.Busy, match="part of 'mpatha'"):
        path.wipe()
    scsi.destroy()
    sh("parted", "-s", volume.path, "mklabel", "gpt", "mkpart", "p", "1MiB", "20MiB")
    settle()
    wait_until(lambda: os.path.exists("/dev/mapper/mpatha-part1"), "the partition")
    try:
        pool.refresh()
        (volume,) = pool.volumes()
        assert "gpt" in (volume.info.detail or {})["holds"]
        with pytest.raises(errors.Busy, match="part of 'mpatha-part1'"):
            volume.wipe()
    finally:
        sh("dmsetup", "remove", "--retry", "mpatha-part1")
    volume.wipe()
    pool.refresh()
    assert "holds" not in (pool.volumes()[0].info.detail or {})
    pool.destroy()


@pytest.mark.usefixtures("multipathd")
def test_a_path_fails(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One path: all goes on. Both, while requests wait for them: errors after a deadline, and recovery."""
    monkeypatch.setattr(worker, "SILENCE", scaled(8))  # a new child needs about that to start
    monkeypatch.setattr(worker, "DEADLINE", scaled(4))
    pool = engine.define(XML)
    pool.start()
    (volume,) = pool.volumes()
    first, second = paths()
    try:
        first.write_text("offline\n")
        data = os.urandom(MIB)
        pool.refresh()
        assert not (pool.volumes()[0].info.detail or {}).get("error")
        volume.upload(BytesIO(data))
        out = BytesIO()
        volume.download(out, length=MIB)
        assert out.getvalue() == data
        second.write_text("offline\n")
        with pytest.raises(errors.HostError):  # nobody knows yet that the last path is gone: the request waits
            volume.upload(BytesIO(data))
        wait_until(lambda: "A" not in _letters(), "the end of the last path")
        pool.refresh()
        assert "without a working path" in (pool.volumes()[0].info.detail or {})["error"]
        assert pool.volumes()[0].key == volume.key
        with pytest.raises(errors.HostError):
            volume.download(BytesIO(), length=MIB)
    finally:
        for path in (first, second):
            path.write_text("running\n")
    wait_until(lambda: _letters().count("A") == 2, "both paths")
    pool.refresh()
    assert not (pool.volumes()[0].info.detail or {}).get("error")
    volume.upload(BytesIO(bytes(MIB)))
    pool.destroy()


def _letters() -> str:
    return "".join(re.findall(r" \d+:\d+ ([AF]) ", sh("dmsetup", "status", "--noflush", "mpatha")))


@pytest.mark.usefixtures("multipathd")
def test_libvirtd_lists_the_same(engine: Engine, tmp_path: Path) -> None:
    """But for the key, which is the path there."""
    pool: Pool = engine.define(XML)
    pool.start()
    (tmp_path / "pool.xml").write_text(pool.xml(inactive=True))
    (tmp_path / "peer").mkdir()
    with PrivateLibvirtd(tmp_path / "peer") as peer:
        peer.virsh("pool-create", tmp_path / "pool.xml")
        (volume,) = pool.volumes()
        theirs = peer.virsh("vol-dumpxml", "--pool", pool.name, volume.name)
        theirs = re.sub(r"\s*<timestamps>.*?</timestamps>", "", theirs, flags=re.DOTALL)
        theirs = theirs.replace(f"<key>{volume.path}</key>", f"<key>{volume.key}</key>")
        assert theirs.strip().splitlines() == volume.xml().strip().splitlines()
        assert peer.virsh("pool-dumpxml", pool.name).strip() == pool.xml().strip()
    pool.destroy()


@pytest.mark.usefixtures("multipathd")
def test_the_example(engine: Engine) -> None:
    pool = engine.define((EXAMPLES / "pool-mpath.xml").read_text())
    pool.start()
    assert [volume.path for volume in pool.volumes()] == ["/dev/mapper/mpatha"]
    pool.destroy()
