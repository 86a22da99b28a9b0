"""A toy whose volumes are attached to one host at a time, and whose storage one role of host may change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import Backend, Usage, VolumeInfo
from poolkit.host.undo import run
from poolkit.model import Pool, Volume
from poolkit.xmlmap import Element, simple, xml


class HeldSource(Element):
    """The storage."""

    path: str = xml("folder/@path", type=simple.AbsPath, doc="A folder that several hosts see.")


class HeldPool(Pool):
    """Files; who has one attached stands in a file of its name and '.held'."""

    type: ClassVar[str] = "held"
    source: HeldSource = xml("source", doc="The storage.")


class HeldBackend(Backend):
    """The storage itself says which host has which volume."""

    type = "held"
    definition = HeldPool

    @property
    def folder(self) -> Path:
        return Path(self.pool.source.path)

    def holder(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{name}.held").read_text()
        return ""

    def usage(self, volumes: Any) -> Usage:
        return Usage(1 << 30, 0, 1 << 30)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for file in sorted(self.folder.glob("*.data")):
            holder = self.holder(file.stem)
            detail = {"attached": holder} if holder else None
            yield VolumeInfo(file.stem, "file", "raw", 512, key=f"held:{file.stem}", path=str(file), detail=detail)

    @contextlib.contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        if self.host.node.role == "compute" and verb not in ("vol-attach", "vol-detach"):
            raise errors.RoleForbidden(f"node '{self.host.node.name}' is a compute node and may not do {verb}")
        lock = self.folder / "lock"
        lock.touch(exist_ok=False)
        try:
            yield
        finally:
            lock.unlink()

    def create(self, volume: Volume) -> VolumeInfo:
        assert (self.folder / "lock").exists()
        (self.folder / f"{volume.name}.data").write_bytes(bytes(512))
        return self.look(volume.name, None)

    def attach(self, info: VolumeInfo, *, shared: bool = False, node: str | None = None) -> VolumeInfo:
        wanted = node or self.host.node.name
        holder = self.holder(info.name)
        if holder not in ("", wanted):
            raise errors.Busy(f"volume '{info.name}' is attached to '{holder}'", volume=info.name)
        place = self.folder / f"{info.name}.held"
        if not holder and self.host.step(f"attach {info.name}", run(["rm", "-f", "--", str(place)])):
            place.write_text(wanted)
            self.host.files.fault("attached")
        return self.look(info.name, info)

    def detach(self, info: VolumeInfo, *, node: str | None = None, force: bool = False) -> VolumeInfo:
        holder = self.holder(info.name)
        if holder not in ("", self.host.node.name) and not (force and node == holder):
            raise errors.Busy(f"volume '{info.name}' is attached to '{holder}'", volume=info.name)
        if holder and self.host.step(f"detach {info.name}"):
            (self.folder / f"{info.name}.held").unlink()
        return self.look(info.name, info)
