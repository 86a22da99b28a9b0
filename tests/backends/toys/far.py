"""A toy whose bytes no descriptor reaches: they are fetched and sent through functions, as a network protocol does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from poolkit.backend import Backend, Source, Usage, VolumeInfo
from poolkit.content import filling
from poolkit.model import Pool, Volume
from poolkit.xmlmap import Element, simple, xml

BLOCK = 4096


class FarSource(Element):
    """The storage."""

    path: str = xml("folder/@path", type=simple.AbsPath, doc="A folder of folders of blocks.")


class FarPool(Pool):
    """Folders with a file for each block that is not zero."""

    type: ClassVar[str] = "far"
    source: FarSource = xml("source", doc="The storage.")


class FarBackend(Backend):
    """A volume is a folder of blocks and a file that says its size."""

    type = "far"
    definition = FarPool

    @property
    def folder(self) -> Path:
        return Path(self.pool.source.path)

    def usage(self, volumes: Any) -> Usage:
        return Usage(1 << 30, 0, 1 << 30)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for place in sorted(self.folder.iterdir()):
            size = int((place / "size").read_text())
            used = (len(list(place.iterdir())) - 1) * BLOCK
            yield VolumeInfo(
                place.name, "network", "raw", size, used, size, key=f"far:{place.name}", path=f"far/{place.name}"
            )

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        for block in sorted((self.folder / info.name).glob("[0-9]*")):
            self.host.files.fault(f"fetch {block.name}")
            os.pwrite(fd, block.read_bytes(), int(block.name) * BLOCK)
        if os.fstat(fd).st_size < info.capacity:
            os.ftruncate(fd, info.capacity)

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        place = self.folder / volume.name
        with filling.raw(self.host, source) as fd:
            if not self.host.step(f"make {volume.name}"):
                return VolumeInfo(volume.name)
            place.mkdir()
            for number in range(-(-source.capacity // BLOCK)):
                if (data := os.pread(fd, BLOCK, number * BLOCK)).strip(b"\0"):
                    (place / str(number)).write_bytes(data)
        (place / "size").write_text(str(volume.capacity))
        return self.look(volume.name, None)
