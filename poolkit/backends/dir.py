"""Pools of type ``dir``: the files of a directory that is there already or that ``build`` makes."""

from __future__ import annotations

import os

from poolkit import errors
from poolkit.backend import State
from poolkit.families.filepool import FileBackend
from poolkit.host.mounts import network_of
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.model import Permissions, PlainSource, Pool, PoolTarget
from poolkit.xmlmap import xml
from poolkit.xmlmap.tree import Flag

if TYPE_CHECKING:
    from typing import ClassVar

    from poolkit.content import images
    from poolkit.families import mounting
    from poolkit.host import places
else:
    images = later(globals(), "images", "poolkit.content.images")
    mounting = later(globals(), "mounting", "poolkit.families.mounting")
    places = later(globals(), "places", "poolkit.host.places")


class DirPool(Pool):
    """A directory whose files are the volumes."""

    type: ClassVar[str] = "dir"
    first: ClassVar[str | None] = "0.4.1"
    cow: bool | None = xml(
        "features/cow/@state", default=None, since="6.6.0", effect="acted", doc="Whether files are copied on write."
    )
    source: PlainSource = xml("source", default=PlainSource, always=True, doc="Vendor and product only.")
    target: PoolTarget = xml("target", always=True, doc="The directory.")
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )
    mountpoint: bool = xml(
        "pk:mountpoint",
        type=Flag,
        default=False,
        effect="acted",
        doc="Build and start refuse the target unless something is mounted there.",
    )
    follow: bool = xml(
        "pk:follow", type=Flag, default=False, effect="acted",
        doc="Symbolic links to files below the target are volumes, to be read and copied.",
    )  # fmt: skip


class DirBackend(FileBackend):
    """Files in a directory of a file system that is mounted already."""

    type = "dir"
    definition = DirPool

    def state(self, *, closely: bool = False) -> State:
        """Whether the directory is there; on a network file system that is believed, for the question could hang.

        There it is never told to be whole, so that start asks.
        Lame is one of which the server says, asked closely, that it is not there any more.
        """
        network = network_of(self.place, self.host.mounts()) is not None
        if network or os.path.isdir(self.place):
            why = self._unmounted()
            return State(False, why=why) if why else State(True, whole=not network, lame=closely and self._is_gone())
        return State(False, why=f"the directory '{self.place}' does not exist")

    def storage(self) -> str | None:
        """The directory, of which a look tells without this class whether it is up: as ``state`` does, unless more is asked."""
        alone = type(self) is DirBackend and not self.pool.mountpoint
        return places.note(self.place, self.host.mounts(), alone=alone)

    def _is_gone(self) -> bool:
        """Whether the directory on a network file system is gone, by the answer of its server within some seconds."""
        if network_of(self.place, self.host.mounts()) is None:
            return False
        from poolkit.host import worker

        said = worker.asked(self.host, self.place)
        return said is not None and said.status != 0

    def _unmounted(self) -> str:
        """Why the directory is not a mount point although the definition says that it is one; else an empty string."""
        if not self.pool.mountpoint or mounting.at(self.host, self.place) is not None:
            return ""
        return f"nothing is mounted at '{self.place}'"

    def _require_mounted(self) -> None:
        if why := self._unmounted():
            raise errors.HostError(
                f"pool '{self.pool.name}': {why}, and its definition says that it is a mount point", pool=self.pool.name,
                hint="mount its file system there first",
            )  # fmt: skip

    def start(self) -> None:
        """Nothing to bring up: the directory must be there, as a mount point if the definition says so.

        ``Unreachable`` where it is on a network file system whose server does not answer: opening it would hang.
        """
        self._require_mounted()
        network = network_of(self.place, self.host.mounts())
        if network is not None and not self.host.dry_run:
            from poolkit.host import worker

            if not worker.answers(self.host, self.place):
                raise errors.Unreachable(
                    f"pool '{self.pool.name}': the server of {network.words()}, which has '{self.place}', did not answer "
                    f"within {worker.DEADLINE:g} seconds",
                    pool=self.pool.name, hint="is the server up, and does a firewall let it answer?",
                )  # fmt: skip
        self.open().close()

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the directory, with the mode, owner and group that the definition gives; one that exists keeps its files.

        Copy-on-write of new files is turned off or on as ``<cow>`` says; a warning where the file system has no say in it.
        A mount point is not made: whoever says that the directory is one has to mount it.
        """
        self._require_mounted()
        made = self.build_directory()
        if self.pool.cow is not None:
            word = "on" if self.pool.cow else "off"
            if self.host.step(f"turn copy-on-write {word} for new files in {self.place}"):
                with self.open() as directory:
                    taken = images.no_cow(directory.fd, off=not self.pool.cow)
                if not taken and not self.pool.cow:
                    self.host.warn(
                        f"pool '{self.pool.name}': the file system of '{self.place}' cannot turn copy-on-write off"
                    )
        return made

    def erase(self) -> bool:
        """Remove the directory, which must be empty. A mount point stays: it was not made by ``build``."""
        if self.pool.mountpoint:
            raise errors.Unsafe(
                f"pool '{self.pool.name}': the directory '{self.place}' was not removed: it is a mount point that poolkit did "
                "not make", pool=self.pool.name, hint="unmount what is there and remove the directory by rmdir",
            )  # fmt: skip
        return self.erase_directory()
