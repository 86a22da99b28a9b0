"""Toy arrays that keep the marks of flavors in a folder beside the LUNs, and those that get it wrong in one way each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import Mark, Placed, Source, VolumeInfo
from poolkit.content import copying
from poolkit.model import Volume

from .lun import LunBackend, LunPool


class MarkingPool(LunPool):
    """The LUNs of an array that several use."""

    type: ClassVar[str] = "marking"


class MarkingBackend(LunBackend):
    """Keeps a note for each LUN, by its inode number, which is there before the LUN has its name."""

    type = "marking"
    definition: ClassVar[Any] = MarkingPool

    @property
    def notes(self) -> Path:
        folder = Path(f"{self.pool.source.path}.notes")
        folder.mkdir(exist_ok=True)
        return folder

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        for info in super().volumes(known):
            if not info.name.startswith("."):
                yield info

    def marks(self) -> str:
        return f"array {self.pool.source.path}"

    def note(self, key: str, name: str) -> None:
        if self.mark is not None:
            (self.notes / key).write_text(json.dumps([name, *self.mark, False]))

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        found = []
        for file in self.notes.iterdir():
            called, placed, attempt, settled = json.loads(file.read_text())
            if placed == flavor and name in (None, called):
                found.append(Placed(called, file.name, Mark(placed, attempt), True, settled))
        return found

    def settle(self, info: VolumeInfo) -> None:
        file = self.notes / str(info.key)
        file.write_text(json.dumps([*json.loads(file.read_text())[:3], True]))

    def create(self, volume: Volume) -> VolumeInfo:
        path = f"{self.pool.source.path}/{volume.name}"
        hidden = f"{self.pool.source.path}/.{volume.name}"
        if os.path.exists(path):
            raise errors.VolumeExists(f"there is a volume '{volume.name}'", volume=volume.name)
        self.host.files.fault("make the LUN")
        with open(hidden, "xb") as file:
            file.truncate(volume.capacity or 0)
            self.note(f"naa.{os.fstat(file.fileno()).st_ino:016x}", volume.name)
        os.rename(hidden, path)
        self.host.files.fault("tell of the LUN")
        return self.look(volume.name, None)

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        made = self.create(volume)
        with source.open() as fd, self.open_volume(made, write=True) as new:
            copying.duplicate(self.host, fd, new, source.capacity)
        return made

    def delete(self, info: VolumeInfo) -> None:
        os.unlink(info.path or "")
        (self.notes / str(info.key)).unlink(missing_ok=True)


class DistantMarkingPool(MarkingPool):
    """The LUNs of an array that may hang."""

    type: ClassVar[str] = "distant-marking"


class DistantMarkingBackend(MarkingBackend):
    """As the good one; what it does is done in a child process."""

    type = "distant-marking"
    definition = DistantMarkingPool
    may_hang = frozenset({"create", "clone", "delete", "placed", "settle", "volumes", "usage", "look"})


def bad(kind: str) -> tuple[str, Any]:
    """The type and the definition's class of a bad one."""
    pool = type(f"{kind.title()}Pool", (MarkingPool,), {"type": f"{kind}-marking", "__doc__": "The LUNs of an array.",
                                                        "__annotations__": {"type": "ClassVar[str]"}})  # fmt: skip
    return f"{kind}-marking", pool


class PrivateBackend(MarkingBackend):
    """Keeps its notes where no other host sees them."""

    type, definition = bad("private")
    known: ClassVar[dict[int, dict[str, Any]]] = {}

    def note(self, key: str, name: str) -> None:
        self.known.setdefault(id(self), {})[key] = Placed(name, key, self.mark, True, False)  # type: ignore[arg-type]

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        return list(self.known.get(id(self), {}).values())

    def settle(self, info: VolumeInfo) -> None:
        return


class NamedBackend(MarkingBackend):
    """Says where by the pool's own name."""

    type, definition = bad("named")

    def marks(self) -> str:
        return f"array of {self.pool.name}"


class EveryBackend(MarkingBackend):
    """Tells of all marks there are, whatever it is asked for."""

    type, definition = bad("every")

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        return super().placed("contract-gold")


class HastyBackend(MarkingBackend):
    """What is there has settled, it believes."""

    type, definition = bad("hasty")

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        return [one._replace(settled=True) for one in super().placed(flavor, name)]


class IdleBackend(MarkingBackend):
    """Takes the settling of a volume for done."""

    type, definition = bad("idle")

    def settle(self, info: VolumeInfo) -> None:
        return


class LateBackend(MarkingBackend):
    """Notes the mark when the LUN has been there for a while."""

    type, definition = bad("late")

    def create(self, volume: Volume) -> VolumeInfo:
        mark, self.mark = self.mark, None
        made = super().create(volume)
        self.mark = mark
        self.note(str(made.key), made.name)
        return made


class CopyingBackend(MarkingBackend):
    """Copies the note with the LUN."""

    type, definition = bad("copying")

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        made = super().clone(volume, source, linked=linked, reflink=reflink)
        note = self.notes / str(source.info.key)
        if note.exists():
            (self.notes / str(made.key)).write_text(note.read_text())
        return made


class KeepingBackend(MarkingBackend):
    """Keeps the notes of what is deleted."""

    type, definition = bad("keeping")

    def delete(self, info: VolumeInfo) -> None:
        os.unlink(info.path or "")


BAD = (
    PrivateBackend, NamedBackend, EveryBackend, HastyBackend, IdleBackend, LateBackend, CopyingBackend, KeepingBackend,
)  # fmt: skip
