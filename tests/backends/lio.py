"""The kernel's own SCSI target (LIO), by configfs: units of files, behind local SCSI hosts (tcm_loop) or Fibre Channel."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from tests.lab.fixtures import settle, sh, wait_until

CONFIG = Path("/sys/kernel/config/target")
FOLDER = Path("/tmp/lio")
_names = itertools.count(1)


def mounted() -> None:
    """configfs, and LIO in it."""
    sh("modprobe", "-a", "configfs", "target_core_mod", "target_core_file", "sd_mod")
    if not CONFIG.is_dir():
        sh("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    FOLDER.mkdir(exist_ok=True)


class Store:
    """A file that can be given out as a unit: its WWID comes of ``serial``, 32 hexadecimal digits."""

    def __init__(self, name: str, size: int = 32 << 20, serial: str | None = None) -> None:
        mounted()
        self.name, self.size = name, size
        self.file = FOLDER / name
        self.file.touch()
        os.truncate(self.file, size)
        self.path = CONFIG / "core" / "fileio_7" / name
        self.path.mkdir(parents=True)
        (self.path / "control").write_text(f"fd_dev_name={self.file},fd_dev_size={size}")
        (self.path / "enable").write_text("1")
        (self.path / "wwn" / "vpd_unit_serial").write_text(serial or name.encode().hex().ljust(32, "0"))

    def remove(self) -> None:
        """Nobody has it any more."""
        self.path.rmdir()
        self.file.unlink()


class Loop:
    """A local SCSI host with units of LIO; ``number`` is the host's."""

    def __init__(self, wwn: str = "6001405aaaaaaa10") -> None:
        mounted()
        sh("modprobe", "tcm_loop")
        before = _hosts()
        self.base = CONFIG / "loopback" / f"naa.{wwn}"
        self.tpg = self.base / "tpgt_1"
        self.tpg.mkdir(parents=True)
        (self.tpg / "nexus").write_text(f"naa.{wwn[:-1]}f")
        (self.number,) = _hosts() - before

    def give(self, store: Store, lun: int) -> str:
        """Put the file behind that number; the kernel is told. Returns the device."""
        place = self.tpg / "lun" / f"lun_{lun}"
        place.mkdir()
        (place / "store").symlink_to(store.path)
        wait_until(lambda: self.blocks(lun), f"LUN {lun}")
        return f"/dev/{self.blocks(lun)[0]}"

    def blocks(self, lun: int) -> list[str]:
        """The kernel's names for the unit."""
        return [block.name for block in Path("/sys/bus/scsi/devices").glob(f"{self.number}:*:{lun}/block/*")]

    def take(self, lun: int) -> None:
        """Take the unit away; the kernel is told."""
        place = self.tpg / "lun" / f"lun_{lun}"
        (place / "store").unlink()
        place.rmdir()
        wait_until(lambda: not self.blocks(lun), "the end of the unit")

    def remove(self) -> None:
        """With all of its units."""
        for place in sorted(self.tpg.glob("lun/lun_*")):
            if (place / "store").is_symlink():
                self.take(int(place.name[4:]))
        (self.tpg / "nexus").write_text("NULL")
        self.tpg.rmdir()
        self.base.rmdir()
        settle()


class Lio:
    """What a test made of LIO, to be taken down again."""

    def __init__(self) -> None:
        self.stores: list[Store] = []
        self.loops: list[Loop] = []

    def store(self, name: str, size: int = 32 << 20) -> Store:
        """A new file."""
        self.stores.append(Store(name, size))
        return self.stores[-1]

    def loop(self, **how: str) -> Loop:
        """A new local host."""
        self.loops.append(Loop(f"6001405aaaaaa{next(_names):02x}0", **how))
        return self.loops[-1]

    def close(self) -> None:
        """Take down all that is there still."""
        for loop in self.loops:
            loop.remove()
        for store in self.stores:
            store.remove()


def _hosts() -> set[int]:
    return {int(path.name[4:]) for path in Path("/sys/class/scsi_host").glob("host*")}
