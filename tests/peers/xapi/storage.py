"""The storage that SRs are made on: places with a size, LUNs, and the disks that SRs keep there as files."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from .drivers import Driver, backend_failure

MIB = 1 << 20
GIB = 1 << 30
EXTENT = 4 * MIB  # of a logical volume
BLOCK = 2 * MIB  # of a VHD
LARGEST = 2040 * GIB  # that a VHD can be
CHAIN = 30  # VHDs, the longest chain


def rounded(size: int, to: int) -> int:
    """``size`` rounded up."""
    return -(-size // to) * to


@dataclass
class Lun:
    """A LUN of an array or a fibre-channel fabric."""

    scsi_id: str
    size: int
    number: int
    file: Path


@dataclass
class Disk:
    """A disk of an SR. ``shared`` bytes of its file are its parent's. Without a file it reads as zeros."""

    location: str
    size: int
    file: Path | None = None
    format: str = "vpc"
    shared: int = 0
    parent: str = ""
    hidden: bool = False
    managed: bool = True
    kept: dict[str, str] = field(default_factory=dict)  # names that the SR itself remembers


@dataclass
class Place:
    """Where SRs can be: a share, a device, an array. The content survives an SR.forget."""

    folder: Path
    size: int
    reachable: bool = True
    lasts: int = -1  # disks that can be made until it is not reachable any more
    secret: tuple[str, str] | None = None  # user and password that it wants
    repositories: dict[str, dict[str, Disk]] = field(default_factory=dict)  # by uuid of the SR
    types: dict[str, str] = field(default_factory=dict)


class Storage:
    """All places, the targets with their LUNs, and the work on files."""

    def __init__(self, root: Path, size: int = 64 * GIB) -> None:
        self.root = root
        self.size = size
        self.places: dict[str, Place] = {}
        self.targets: dict[str, dict[str, list[Lun]]] = {}  # address -> IQN -> LUNs
        self.fabric: list[Lun] = []
        self.coalesce = True
        self._lock = threading.Lock()
        self._templates: dict[int, Path] = {}
        (root / "templates").mkdir(parents=True, exist_ok=True)
        self.fabric = self.luns("fabric", [1, 2, 4, 8, 64])

    # -- places ---------------------------------------------------------------------------------------------------

    def luns(self, name: str, sizes: list[float]) -> list[Lun]:
        """LUNs of so many GiB, as sparse files."""
        folder = self.root / "luns"
        folder.mkdir(exist_ok=True)
        made = []
        for number, gib in enumerate(sizes):
            scsi_id = "36001405" + uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}").hex[:25]
            file = folder / scsi_id
            with file.open("wb") as new:
                new.truncate(int(gib * GIB))
            made.append(Lun(scsi_id, int(gib * GIB), number, file))
        return made

    def target(self, address: str) -> dict[str, list[Lun]]:
        """The IQNs of a target and their LUNs; a target nobody has told of has one IQN and five LUNs."""
        with self._lock:
            if address not in self.targets:
                iqn = f"iqn.2010-01.org.example:{address}"
                self.targets[address] = {iqn: self.luns(iqn, [1, 2, 4, 8, 64])}
            return self.targets[address]

    def key(self, driver: Driver, config: dict[str, str]) -> str:
        """What names the place of an SR; two SRs of one type and the same values are at one place."""
        family = "lun" if driver.place == ("SCSIid",) else driver.kind if driver.place == ("device",) else driver.type
        if driver.place == ("device",):
            family = "device"
        return "|".join([family, *(config.get(key, "") for key in driver.place)])

    def place(self, driver: Driver, config: dict[str, str]) -> Place:
        """The place that a device-config means."""
        key = self.key(driver, config)
        with self._lock:
            if key not in self.places:
                folder = self.root / "places" / uuid.uuid5(uuid.NAMESPACE_URL, key).hex[:12]
                folder.mkdir(parents=True, exist_ok=True)
                self.places[key] = Place(folder, self._size(driver, config))
            return self.places[key]

    def _size(self, driver: Driver, config: dict[str, str]) -> int:
        if driver.place != ("SCSIid",):
            return self.size
        luns = [*self.fabric, *(lun for iqns in self.targets.values() for found in iqns.values() for lun in found)]
        return next((lun.size for lun in luns if lun.scsi_id == config.get("SCSIid")), self.size)

    # -- space ----------------------------------------------------------------------------------------------------

    def taken(self, driver: Driver, disk: Disk) -> int:
        """The bytes of its place that a disk takes."""
        if disk.file is None:
            return BLOCK if driver.kind == "vhd" else disk.size
        if driver.kind in ("array", "lun"):
            return disk.size if disk.managed else 0
        if driver.kind == "lvm" and not disk.hidden and not (disk.shared and disk.kept.get("snapshot")):
            return self.thick(disk.size, disk.format)
        own = max(disk.file.stat().st_size - disk.shared, 0) if disk.file.exists() else 0
        return rounded(own, EXTENT) if driver.kind == "lvm" else own

    def thick(self, size: int, format: str = "vpc") -> int:
        """What a disk takes in logical volumes: all of it, and the VHD's own tables."""
        return rounded(size if format == "raw" else size + self.overhead(size), EXTENT)

    @staticmethod
    def overhead(size: int) -> int:
        """The tables of a full VHD: a sector of bitmap and four bytes for each block."""
        blocks = rounded(size, BLOCK) // BLOCK
        return 2048 + 512 * blocks + rounded(4 * blocks, 512)

    def used(self, driver: Driver, place: Place) -> int:
        return sum(self.taken(driver, disk) for disks in place.repositories.values() for disk in disks.values())

    def want(self, driver: Driver, place: Place, more: int) -> None:
        """SR_BACKEND_FAILURE_44 where ``more`` bytes are not there."""
        if self.used(driver, place) + more > place.size:
            raise backend_failure(44, "There is insufficient space")

    # -- files ----------------------------------------------------------------------------------------------------

    def empty(self, size: int, file: Path) -> None:
        """A dynamic VHD of ``size`` with nothing in it; qemu-img makes one of each size, of which each disk gets a copy."""
        with self._lock:
            template = self._templates.get(size)
            if template is None:
                template = self.root / "templates" / f"{size}.vhd"
                qemu_img("create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", str(template), str(size))
                self._templates[size] = template
        shutil.copyfile(template, file)

    def to_raw(self, disk: Disk, raw: Path) -> None:
        """The content of a disk as a sparse raw file."""
        if disk.file is None or not disk.file.exists():
            with raw.open("wb") as new:
                new.truncate(disk.size)
        elif disk.format == "raw":
            copy_sparse(disk.file, raw)
        else:
            qemu_img("convert", "-q", "-f", "vpc", "-O", "raw", str(disk.file), str(raw))

    def from_raw(self, disk: Disk, raw: Path) -> None:
        """Put the content of a raw file into a disk, which gets a new file: the old one may be others' as well."""
        assert disk.file is not None
        os.truncate(raw, disk.size)
        new = disk.file.with_name(f".{disk.file.name}.new")
        if disk.format == "raw":
            copy_sparse(raw, disk.file if disk.file.parent.name == "luns" else new)
        else:
            options = "subformat=dynamic,force_size=on"
            qemu_img("convert", "-q", "-f", "raw", "-O", "vpc", "-o", options, str(raw), str(new))
        if new.exists():
            new.replace(disk.file)
        disk.shared = 0


def qemu_img(*words: str) -> None:
    """Run qemu-img; SR_BACKEND_FAILURE_78 with what it says where it fails."""
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise backend_failure(78, "VDI Creation failed", done.stderr.strip())


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what is data; holes stay holes."""
    size = source.stat().st_size
    with source.open("rb") as old, target.open("r+b" if target.exists() else "wb") as new:
        new.truncate(0)
        new.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)


def vhd_size(file: Path) -> int:
    """The virtual size that a VHD's footer tells; 0 for what is no VHD."""
    with file.open("rb") as vhd:
        footer = vhd.read(512)
    return struct.unpack_from(">Q", footer, 48)[0] if footer[:8] == b"conectix" else 0
