"""Pools of type ``dir``: the files of a directory that is there already or that ``build`` makes."""

from __future__ import annotations

import os
from typing import ClassVar

from poolkit.backend import State
from poolkit.families.filepool import FileBackend
from poolkit.host.mounts import network_of
from poolkit.model import Permissions, PlainSource, Pool, PoolTarget
from poolkit.xmlmap import xml


class DirPool(Pool):
    """A directory whose files are the volumes."""

    type: ClassVar[str] = "dir"
    first: ClassVar[str | None] = "0.4.1"
    cow: bool | None = xml("features/cow/@state", default=None, since="6.6.0", doc="Whether files are copied on write.")
    source: PlainSource = xml("source", default=PlainSource, always=True, doc="Vendor and product only.")
    target: PoolTarget = xml("target", always=True, doc="The directory.")
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )


class DirBackend(FileBackend):
    """Files in a directory of a file system that is mounted already."""

    type = "dir"
    definition = DirPool

    def state(self, *, closely: bool = False) -> State:
        """Whether the directory is there; on a network file system that is believed, for the question could hang."""
        if network_of(self.place, self.host.mounts()) or os.path.isdir(self.place):
            return State(True)
        return State(False, why=f"the directory '{self.place}' does not exist")

    def start(self) -> None:
        """Nothing to bring up: the directory must be there."""
        self.open().close()

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the directory, with the mode, owner and group that the definition gives; one that exists keeps its files."""
        return self.build_directory()

    def erase(self) -> bool:
        """Remove the directory, which must be empty."""
        return self.erase_directory()
