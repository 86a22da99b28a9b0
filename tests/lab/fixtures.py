"""Fixtures of the lab: empty disks, SCSI hosts and an NFS server for tests in the guest; guests for tests outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BY_ID = Path("/dev/disk/by-id")


def sh(*argv: str, check: bool = True) -> str:
    """Run a command in the guest; its standard output. A failure raises with what it said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def settle() -> None:
    """Wait until udev has made the links of all it was told of."""
    sh("udevadm", "settle", "-t", "30", check=False)


# disks


def tree(*devices: str) -> list[dict[str, Any]]:
    """What sits on devices, themselves first, as lsblk sees it; each thing once, after all that it stands on."""
    said = sh("lsblk", "--json", "--paths", "--output", "PATH,TYPE,MOUNTPOINTS", "--list", *devices)
    found: dict[str, dict[str, Any]] = {}
    for entry in json.loads(said)["blockdevices"]:
        found.pop(entry["path"], None)
        found[entry["path"]] = entry
    return list(found.values())


def release(*devices: str) -> None:
    """Unmount and take apart what a test left on devices, newest layer first."""
    for entry in reversed(tree(*devices)):
        path = str(entry["path"])
        for place in filter(None, entry["mountpoints"]):
            if place == "[SWAP]":
                sh("swapoff", path, check=False)
            else:
                sh("umount", "--all-targets", path, check=False)
        if entry["type"] not in ("disk", "part"):
            sh("dmsetup", "remove", "--retry", "--force", path, check=False)


def touched(device: str) -> bool:
    """Whether anything was written to a disk since it was emptied, or sits on it."""
    block = Path("/sys/block", os.path.basename(device))
    if list(block.glob(f"{block.name}*/partition")) or os.listdir(block / "holders"):
        return True
    return _writes(device) != _emptied.get(device)


def _writes(device: str) -> list[str]:
    """Counters of a disk that grow with each write and discard (Linux' Documentation/block/stat.rst)."""
    fields = Path("/sys/block", os.path.basename(device), "stat").read_text().split()
    return fields[4:7] + fields[11:14]


_emptied: dict[str, list[str]] = {}


def wipe(disks: list[str]) -> list[str]:
    """Make disks empty again, whatever is on them; returns why that could not be done."""
    devices = [device for disk in disks if touched(device := os.path.realpath(disk))]
    if not devices:
        return []
    release(*devices)
    problems = []
    for device in devices:
        # Discarding punches holes in the disk's file: all of it reads as zeros again, in no time.
        done = subprocess.run(["blkdiscard", "--force", device], capture_output=True, text=True, check=False)
        if done.returncode:
            problems.append(f"{device} could not be emptied: {done.stderr.strip()}")
        sh("blockdev", "--rereadpt", device, check=False)
    settle()
    for entry in tree(*devices):
        if entry["path"] not in devices:
            problems.append(f"{entry['path']} is still on one of {', '.join(devices)}")
    _emptied.update({device: _writes(device) for device in devices})
    return problems


def virtio_disks() -> list[str]:
    """The guest's own disks, by their links."""
    return sorted(str(path) for path in BY_ID.glob("virtio-DISK?"))


@pytest.fixture
def lab_disks(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Empty disks of 1 GiB, as /dev/disk/by-id/virtio-DISK1 and so on: four, or as many as ``lab(disks=N)`` says.

    They are emptied after the test. If a test leaves one in a state that cannot be undone, the tests after it get a
    fresh guest.
    """
    marker = request.node.get_closest_marker("lab")
    wanted = marker.kwargs.get("disks", 4) if marker else 4
    disks = virtio_disks()
    if len(disks) < wanted:
        pytest.fail(f"the guest has {len(disks)} disks, the test asks for {wanted}", pytrace=False)
    disks = disks[:wanted]
    _note_empty(disks)
    yield disks
    empty(request, disks)


def empty(request: pytest.FixtureRequest, disks: list[str]) -> None:
    """Empty the disks, or have the guest replaced."""
    if problems := wipe(disks):
        from . import inside

        inside.reboot(request.session, "; ".join(problems))


@pytest.fixture
def lab_scsi_disks(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Two empty SCSI disks of 1 GiB on a real (virtio) controller, with by-path links; emptied after the test."""
    sh("modprobe", "-a", "virtio_scsi", "sd_mod")
    disks = [str(BY_ID / f"scsi-0QEMU_QEMU_HARDDISK_SCSI{number}") for number in (1, 2)]
    wait_until(lambda: all(os.path.exists(disk) for disk in disks), "the SCSI disks")
    _note_empty(disks)
    yield disks
    empty(request, disks)


def _note_empty(disks: list[str]) -> None:
    for device in map(os.path.realpath, disks):
        _emptied.setdefault(device, _writes(device))


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until the condition holds; AssertionError after that many seconds of a quiet machine."""
    from .speed import scaled

    seconds = scaled(seconds)
    deadline = time.monotonic() + seconds
    late = False
    while not condition():
        if late:
            raise AssertionError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.05)
        late = time.monotonic() > deadline  # then there is one more look: the last one may have taken all the time
    settle()


# SCSI


@dataclass
class ScsiHost:
    """A host made by scsi_debug: its name (``host3``) and its disks (``/dev/sda`` ...) at the time it was made."""

    name: str
    disks: list[str] = field(default_factory=list)

    def rescan(self) -> None:
        """Have the host look for new LUNs."""
        Path(f"/sys/class/scsi_host/{self.name}/scan").write_text("- - -")
        settle()


@pytest.fixture
def lab_scsi() -> Iterator[Callable[..., list[ScsiHost]]]:
    """Makes SCSI hosts: ``lab_scsi(luns=3, hosts=1, size_mb=16, **parameters of scsi_debug)``, once in a test.

    All LUNs of scsi_debug share one memory. They have by-id links and no by-path links; ``lab_scsi_disks`` have both.
    """

    def make(luns: int = 1, hosts: int = 1, size_mb: int = 16, **parameters: object) -> list[ScsiHost]:
        words = {"dev_size_mb": size_mb, "num_tgts": 1, "max_luns": luns, "add_host": hosts, **parameters}
        sh("modprobe", "sd_mod")
        sh("modprobe", "scsi_debug", *(f"{key}={value}" for key, value in words.items()))
        settle()
        found = sorted(Path("/sys/bus/pseudo/drivers/scsi_debug").glob("adapter*/host*"))
        made = []
        for host in found:
            blocks = sorted(path.name for path in host.glob("target*/*/block/*"))
            made.append(ScsiHost(host.name, [f"/dev/{name}" for name in blocks]))
        return made

    yield make
    if Path("/sys/module/scsi_debug").exists():
        for disk in Path("/sys/bus/pseudo/drivers/scsi_debug").glob("adapter*/host*/target*/*/block/*"):
            release(f"/dev/{disk.name}")
        settle()
        unload("scsi_debug")


def unload(module: str) -> None:
    """Take a module of the kernel away; udev has its devices open now and then, and for that long it stays."""

    def gone() -> bool:
        sh("rmmod", module, check=False)
        return not Path("/sys/module", module).exists()

    wait_until(gone, f"the end of the module {module}")


# NFS


class NfsServer:
    """A kernel NFS server (v3 and v4.2) on 127.0.0.1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exports: list[Path] = []

    def start(self) -> None:
        """Start the server, with no grace period: a first file over v4 would wait it out."""
        sh("modprobe", "nfsd")
        if not os.path.ismount("/proc/fs/nfsd"):
            sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        if subprocess.run(["pidof", "rpcbind"], capture_output=True, check=False).returncode:
            sh("rpcbind", "-w")
        sh("rpc.nfsd", "-G", "10", "-L", "10", "4")  # 10 s: the shortest the kernel takes
        sh("rpc.mountd")
        Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")  # only counts once mountd runs

    def stop(self) -> None:
        """Stop serving; mounts of clients hang or fail from now on. ``start`` brings it back with its exports."""
        sh("rpc.nfsd", "0")
        sh("killall", "-q", "-w", "rpc.mountd", check=False)

    def export(self, name: str, size: str = "64m", options: str = "rw,no_root_squash,insecure,no_subtree_check") -> str:
        """Export a new directory with a file system of its own; returns its path on the server."""
        path = self.root / name
        path.mkdir(parents=True)
        sh("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
        self.exports.append(path)
        sh("exportfs", "-o", f"{options},fsid={len(self.exports)}", f"127.0.0.1:{path}")
        return str(path)

    def close(self) -> None:
        """Unmount clients, stop the server and remove the exports."""
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        for fields in reversed(mounts):
            if fields[2] in ("nfs", "nfs4"):
                sh("umount", "-f", "-l", fields[1], check=False)
        sh("exportfs", "-ua")
        self.stop()
        for path in self.exports:
            sh("umount", "-l", str(path), check=False)
            path.rmdir()


@pytest.fixture
def lab_nfs() -> Iterator[NfsServer]:
    """A running NFS server: ``path = lab_nfs.export("vols")``, then mount 127.0.0.1:path. ``stop`` and ``start`` it."""
    server = NfsServer(Path("/srv/nfs"))
    server.start()
    yield server
    server.close()


# outside


@pytest.fixture
def bootable() -> None:
    """For tests on the host that have guests started: skip (fail in continuous integration) where none can be had."""
    from ..conftest import unavailable
    from . import image

    try:
        image.ensure()
    except image.LabUnavailable as error:
        unavailable(f"needs the lab: {error}")


@pytest.fixture
def lab_guest() -> Iterator[Callable[..., object]]:
    """For tests on the host: ``lab_guest("one", shared=disk, ip="10.0.0.1/24")`` is a started Guest, stopped after."""
    with _starting() as start:
        yield lambda name, **options: start(name, **options)[0]


@pytest.fixture(scope="module")
def lab_guests() -> Iterator[Callable[..., list[Any]]]:
    """As ``lab_guest``, for all tests of a module: ``lab_guests("one", "two", shared=disk)`` boots several beside each other."""
    with _starting() as start:
        yield start


@contextlib.contextmanager
def _starting() -> Iterator[Callable[..., list[Any]]]:
    from ..conftest import unavailable
    from .guest import Guest
    from .image import LabUnavailable

    guests: list[Guest] = []

    def start(*names: str, **options: object) -> list[Guest]:
        new = [Guest(name, **options) for name in names]  # type: ignore[arg-type]
        guests.extend(new)
        try:
            for guest in new:
                guest.launch()
        except LabUnavailable as error:
            unavailable(f"needs the lab: {error}")
        for guest in new:
            guest.wait_ready()
        return new

    try:
        yield start
    finally:
        for guest in guests:
            guest.stop()
