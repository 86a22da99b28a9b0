"""Toy arrays whose LUNs can be made and deleted, by somebody who trusts names.

The careless one tells volumes apart by their names alone, deletes all of them with the pool, and makes clones that it does not
fill. The greedy one clones soundly, and leaves beyond the end what was there before. The generous one makes them larger
than was asked for. The mute one does not say which
pool cannot do a thing, and the willing one takes for done what it cannot do.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import Source, VolumeInfo
from poolkit.content import copying
from poolkit.model import Volume
from poolkit.xmlmap import replace

from .lun import LunBackend, LunPool


class CarelessPool(LunPool):
    """The LUNs of an array that anybody can make."""

    type: ClassVar[str] = "careless"


class CarelessBackend(LunBackend):
    """See the module's text."""

    type = "careless"
    definition = CarelessPool

    def identity(self, info: VolumeInfo) -> str:
        return info.name

    def erase(self) -> bool:
        if os.listdir(self.pool.source.path) and self.host.step("delete the array"):
            shutil.rmtree(self.pool.source.path)
            os.mkdir(self.pool.source.path)
            return True
        return False

    def create(self, volume: Volume) -> VolumeInfo:
        path = f"{self.pool.source.path}/{volume.name}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise errors.VolumeExists(f"there is a volume '{volume.name}'", volume=volume.name) from None
        os.truncate(fd, volume.capacity or 0)
        os.close(fd)
        return self.look(volume.name, None)

    def delete(self, info: VolumeInfo) -> None:
        try:
            os.unlink(info.path or "")
        except FileNotFoundError:
            raise self.missing(info.name) from None

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        return self.create(volume)


class GreedyPool(LunPool):
    """The LUNs of an array that gives blocks away as they are."""

    type: ClassVar[str] = "greedy"


class GreedyBackend(CarelessBackend):
    """See the module's text."""

    type = "greedy"
    definition = GreedyPool

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        made = self.create(volume)
        with source.open() as fd, self.open_volume(made, write=True) as new:
            copying.duplicate(self.host, fd, new, source.capacity)
            os.pwrite(new, b"old data", source.capacity + 4096)
        return made


class GenerousPool(LunPool):
    """The LUNs of an array that are whole MiB."""

    type: ClassVar[str] = "generous"


class GenerousBackend(CarelessBackend):
    """Rounds what it makes, and does not say so."""

    type = "generous"
    definition = GenerousPool

    def create(self, volume: Volume) -> VolumeInfo:
        return super().create(replace(volume, capacity=-(-(volume.capacity or 0) >> 20) << 20))


class MutePool(LunPool):
    """The LUNs of an array."""

    type: ClassVar[str] = "mute"


class MuteBackend(LunBackend):
    """See the module's text."""

    type = "mute"
    definition = MutePool

    def unsupported(self, method: str, verb: str | None = None) -> errors.Unsupported:
        return errors.Unsupported(f"{verb or method} is not supported")


class WillingPool(LunPool):
    """The LUNs of an array."""

    type: ClassVar[str] = "willing"


class WillingBackend(LunBackend):
    """Its class has no delete, and says so; its objects take one for done."""

    type = "willing"
    definition = WillingPool

    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__("_idle" if name == "delete" else name)

    def _idle(self, info: VolumeInfo) -> None:
        return
