"""A toy whose volumes are packed: their bytes have no descriptor before somebody opens them, and one volume stands on another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from poolkit.backend import Backend, Usage, VolumeInfo
from poolkit.host.undo import run
from poolkit.model import Pool
from poolkit.xmlmap import Element, simple, xml


class PackedSource(Element):
    """The storage."""

    path: str = xml("folder/@path", type=simple.AbsPath, doc="A folder of packed files.")


class PackedPool(Pool):
    """Files that gzip made."""

    type: ClassVar[str] = "packed"
    source: PackedSource = xml("source", doc="The storage.")


class PackedBackend(Backend):
    """Opening a volume unpacks it beside itself, for as long as it is open; NAME-on-BASE stands on BASE."""

    type = "packed"
    definition = PackedPool
    tools = ("gzip",)

    @property
    def folder(self) -> Path:
        return Path(self.pool.source.path)

    def usage(self, volumes: Any) -> Usage:
        return Usage(1 << 30, 0, 1 << 30)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for file in sorted(self.folder.glob("*.gz")):
            size = int.from_bytes(file.read_bytes()[-4:], "little")  # RFC 1952, ISIZE
            yield VolumeInfo(file.stem, "network", "raw", size, size, key=f"packed:{file.stem}", path=str(file))

    @contextmanager
    def open_volume(self, info: VolumeInfo, *, write: bool = False) -> Iterator[int]:
        unpacked = self.folder / f"{info.name}.open"
        self.host.step(f"unpack {info.name}", run(["rm", "-f", "--", str(unpacked)]))
        with open(self.folder / f"{info.name}.gz", "rb") as packed, open(unpacked, "w+b") as file:
            try:
                self.host.query(["gzip", "-dc"], stdin=packed.fileno(), stdout=file.fileno())
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                yield file.fileno()
            finally:
                unpacked.unlink()

    def below(self, info: VolumeInfo) -> tuple[str, ...]:
        _, on, base = info.name.partition("-on-")
        return (f"{self.folder}/{base}.gz",) if on else ()
