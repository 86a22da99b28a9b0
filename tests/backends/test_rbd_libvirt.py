"""poolkit and libvirtd beside each other on one Ceph pool: each sees what the other makes, and both say the same of it."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from benchmarks.rbd import define
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.ceph import PROGRAMS, Cluster, until
from tests.conftest import unavailable

from .rbd import fresh, noise, started, volume

pytestmark = [pytest.mark.root, pytest.mark.tools(*PROGRAMS, "libvirtd", "virsh", "unshare")]
MIB = 1 << 20


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A pool of its own: libvirt knows no namespaces."""
    pools = fresh(cluster)
    yield next(pools).pool()
    next(pools, None)


@pytest.fixture(scope="module")
def libvirt(cluster: Cluster, place: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirtd]:
    """A libvirtd with the pool ``disks``, started."""
    if not glob.glob("/usr/lib/*/libvirt/storage-backend/libvirt_storage_backend_rbd.so"):
        unavailable("needs libvirt's rbd driver (libvirt-daemon-driver-storage-rbd)")
    folder = tmp_path_factory.mktemp("peer")
    (folder / "libvirtd").mkdir()
    with PrivateLibvirtd(folder / "libvirtd") as peer:
        # Without this libvirt counts no allocation; poolkit counts unless it is told not to.
        define(cluster, peer, folder, place, "<refresh><volume allocation='default'/></refresh>")
        yield peer


@pytest.fixture
def pool(engine: Engine, cluster: Cluster, place: str) -> Iterator[Pool]:
    pool = started(engine, cluster, (place,))
    yield pool
    for one in pool.volumes():
        one.delete(delete_snapshots=True)


def listed(peer: PrivateLibvirtd) -> list[str]:
    peer.virsh("pool-refresh", "disks")
    return sorted(line.split()[0] for line in peer.virsh("vol-list", "disks").splitlines() if line.strip())


def test_both_say_the_same_of_every_volume(pool: Pool, libvirt: PrivateLibvirtd, tmp_path: Path) -> None:
    pool.create_volume(volume("ours", 16 * MIB)).upload(BytesIO(noise(MIB)), offset=5 * MIB)
    pool.create_volume(volume("plain", 16 * MIB), backend={"features": "layering"})
    libvirt.virsh("vol-create-as", "disks", "theirs", "16M")
    pool.refresh()
    names = ["ours", "plain", "theirs"]
    assert listed(libvirt) == names == [one.name for one in pool.volumes()]
    for name in names:
        ours = pool.volume(name)
        assert libvirt.virsh("vol-dumpxml", name, "--pool", "disks").strip() == ours.xml().strip()
        assert libvirt.virsh("vol-key", name, "--pool", "disks").strip() == ours.key
        assert libvirt.virsh("vol-path", name, "--pool", "disks").strip() == ours.path


def test_both_say_the_same_of_the_pool(pool: Pool, libvirt: PrivateLibvirtd) -> None:
    def same() -> bool:
        pool.refresh()
        libvirt.virsh("pool-refresh", "disks")
        theirs = re.sub(r"(?s)<uuid>.*</uuid>|<refresh>.*</refresh>", "", libvirt.virsh("pool-dumpxml", "disks"))
        return theirs.split() == re.sub(r"<uuid>.*</uuid>", "", pool.xml()).split()

    until("the same figures", same, 20)


def test_each_works_on_what_the_other_made(pool: Pool, libvirt: PrivateLibvirtd) -> None:
    pool.create_volume(volume("ours", 8 * MIB)).upload(BytesIO(b"data"))
    assert listed(libvirt) == ["ours"]
    libvirt.virsh("vol-clone", "ours", "theirs", "--pool", "disks")
    libvirt.virsh("vol-resize", "ours", "16M", "--pool", "disks")
    pool.refresh()
    assert pool.volume("ours").info.capacity == 16 * MIB
    theirs = pool.volume("theirs")
    out = BytesIO()
    theirs.download(out, length=4)
    assert out.getvalue() == b"data"
    assert [link.volume for link in theirs.chain()] == ["theirs", "ours"]
    snapshots = (pool.volume("ours").look().info.detail or {})["snapshots"]
    linked = pool.volume("ours").clone("linked", linked=True)
    assert (pool.volume("ours").look().info.detail or {})["snapshots"] == snapshots, "libvirt's snapshot serves as well"
    for one in (linked, theirs):
        one.delete()
    assert listed(libvirt) == ["ours"]
    libvirt.virsh("vol-delete", "ours", "--pool", "disks", "--delete-snapshots")
    pool.refresh()
    assert pool.volumes() == []
