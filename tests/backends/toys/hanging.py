"""A toy whose storage can stop answering: reading its index hangs while that is a FIFO that nobody writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from poolkit.backend import Backend, Transfer, Usage, VolumeInfo
from poolkit.model import Pool
from poolkit.xmlmap import Element, simple, xml


class HangingSource(Element):
    """The storage."""

    path: str = xml("index/@path", type=simple.AbsPath, doc="A file with one name in each line.")


class HangingPool(Pool):
    """Names in a file."""

    type: ClassVar[str] = "hanging"
    source: HangingSource = xml("source", doc="The storage.")


class HangingBackend(Backend):
    """All in one class, as a package would have it; says who listed."""

    type = "hanging"
    definition = HangingPool
    may_hang = ("volumes", "usage", "create", "upload", "download")

    @property
    def index(self) -> Path:
        return Path(self.pool.source.path)

    def answers(self) -> bool:
        return not self.index.is_fifo()

    def usage(self, volumes: Any) -> Usage:
        return Usage(100, len(volumes), 100 - len(volumes))

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for name in self.index.read_text().split():
            yield VolumeInfo(name, "network", "raw", 8, 8, key=f"hang:{name}", detail={"pid": os.getpid()})

    def create(self, volume: Any) -> VolumeInfo:
        before = self.index.read_text()
        if self.host.step(f"add {volume.name}"):
            self.index.write_text(f"{before}{volume.name}\n")
        return self.look(volume.name, None)

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        self.index.with_suffix(".data").write_bytes(stream.read())
        return info

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        return stream.write(self.index.with_suffix(".data").read_bytes()[transfer.offset :])
