"""A toy that lists files and believes what is in them, whatever is on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from poolkit.backend import VolumeInfo
from poolkit.backends.dir import DirBackend, DirPool


class ForgetfulPool(DirPool):
    """A directory."""

    type: ClassVar[str] = "forgetful"


class ForgetfulBackend(DirBackend):
    """Takes the record and drops it."""

    type = "forgetful"
    definition = ForgetfulPool

    def volumes(self, known: Mapping[str, VolumeInfo], **record: Any) -> Iterator[VolumeInfo]:
        return super().volumes(known)

    def look(self, name: str, known: VolumeInfo | None, **record: Any) -> VolumeInfo:
        return super().look(name, known)
