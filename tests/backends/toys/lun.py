"""Toy pools whose volumes are there already, as the LUNs of an array are: no create, no delete.

The good one keeps the contract. The bad one answers every question, and nothing that it says is true: its upload, download and
wipe do nothing, two of its volumes have one key, and one has a negative size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

from poolkit.backend import Backend, Transfer, Usage, VolumeInfo
from poolkit.content import copying, wiping
from poolkit.model import Pool
from poolkit.xmlmap import Element, simple, xml

SIZE = 2 << 20


class ArraySource(Element):
    """The array."""

    path: str = xml("array/@path", type=simple.AbsPath, doc="The folder that plays the array.")


class LunPool(Pool):
    """The LUNs of a toy array."""

    type: ClassVar[str] = "lun"
    source: ArraySource = xml("source", doc="The array.")


class LunBackend(Backend):
    """Files that somebody else made."""

    type = "lun"
    definition = LunPool

    def usage(self, volumes: Any) -> Usage:
        size = sum(volume.capacity for volume in volumes)
        return Usage(size, size, 0)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for name in sorted(os.listdir(self.pool.source.path)):
            path = f"{self.pool.source.path}/{name}"
            size = os.stat(path).st_size
            yield VolumeInfo(name, "block", "raw", size, size, key=f"naa.{os.stat(path).st_ino:016x}", path=path)

    @contextmanager
    def open_volume(self, info: VolumeInfo, *, write: bool = False) -> Iterator[int]:
        fd = os.open(info.path or "", (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        with self.open_volume(info, write=True) as fd:
            if self.host.step(f"upload to {info.name}"):
                copying.upload(self.host, fd, stream, transfer, info.capacity)
                os.fsync(fd)
        return info

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        with self.open_volume(info) as fd:
            return copying.download(self.host, fd, stream, transfer, info.capacity)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        with self.open_volume(info, write=True) as fd:
            if self.host.step(f"wipe {info.name}"):
                wiping.wipe(self.host, fd, info.capacity, algorithm)
        return info


class BadLunPool(LunPool):
    """The LUNs of an array that lies."""

    type: ClassVar[str] = "bad-lun"


class BadLunBackend(LunBackend):
    """See the module's text."""

    type = "bad-lun"
    definition = BadLunPool

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for info in super().volumes(known):
            yield info._replace(
                key="naa.1" if info.name != "lun-2" else "naa.2", capacity=SIZE if info.name != "lun-2" else -1
            )

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        return info

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        return 0

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        return info


class IdleLunPool(LunPool):
    """The LUNs of an array that forgets."""

    type: ClassVar[str] = "idle-lun"


class IdleLunBackend(LunBackend):
    """Lists soundly; its upload and wipe do nothing."""

    type = "idle-lun"
    definition = IdleLunPool
    upload = BadLunBackend.upload
    wipe = BadLunBackend.wipe
