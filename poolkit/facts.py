"""What backends and the engine tell each other: volumes as they were found, sizes, states, sources of new volumes.

:mod:`poolkit.backend` has all of these as well, for backends.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.values import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from poolkit import disks


class Usage(NamedTuple):
    """Sizes of a pool in bytes."""

    capacity: int
    allocation: int
    available: int


class State(NamedTuple):
    """Whether a pool's storage is up.

    ``why`` says why it is not, as the end of a sentence ("nothing is mounted at '/x'"). ``whole`` False: a part of what is up
    may be down, so that starting the pool has work to do. ``lame``: what is up can never work again and has to be started
    anew; told only where ``Backend.state`` was asked to look closely.
    """

    up: bool
    whole: bool = True
    lame: bool = False
    why: str = ""


class Erased(NamedTuple):
    """What ``erase`` removes and what it leaves there, in words that begin or end a sentence; ``stays`` is empty for nothing."""

    removed: str
    stays: str = ""


class VolumeInfo(NamedTuple):
    """One volume as a backend finds it; sizes in bytes, times in nanoseconds since 1970.

    ``stamp`` changes whenever the volume does: a refresh that finds it unchanged keeps what it knows. It is 0 where that
    cannot be told. ``detail`` has the rarer facts, by name: ``backing``, ``backing_format``, ``encryption``, ``compat``,
    ``cluster_size``, ``features``, ``extents``, ``warning``, ``error`` ...; all are plain JSON values.
    """

    name: str
    type: str = "file"
    format: str = ""
    capacity: int = 0
    allocation: int = 0
    physical: int = 0
    stamp: int = 0
    inode: int = 0
    mode: int = 0
    owner: int = 0
    group: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    key: str | None = None
    path: str | None = None
    detail: Mapping[str, Any] | None = None

    @property
    def recorded(self) -> bool:
        """Whether the format is a fact to keep: it was read, and the file passes for no other or is known by its record."""
        detail = self.detail or {}
        return not detail.get("unread") and (not detail.get("ambiguous") or bool(detail.get("replaced")))

    @property
    def problem(self) -> str:
        """What is wrong with the volume, or where its content contradicts the format on record; else an empty string."""
        detail = self.detail or {}
        if detail.get("error"):
            return str(detail["error"])
        if detail.get("missing"):
            from poolkit.names import quoted

            return f"what it stands on is missing: {quoted(detail['missing'])}"
        if detail.get("half_written"):
            return f"it is half-written: {detail['half_written']}"
        if detail.get("ambiguous") or detail.get("looks_like"):
            return str(detail.get("warning") or "it passes for several formats")
        return ""


class Recorded(NamedTuple):
    """The format on record of one volume, and the inode number of the file that it belongs to: another file has another."""

    inode: int
    format: str


class Transfer(NamedTuple):
    """The range of an upload or download: ``length`` 0 means to the end. ``sparse`` keeps holes as holes."""

    offset: int = 0
    length: int = 0
    sparse: bool = False


class DiskSource(NamedTuple):
    """How a machine reaches the bytes of a volume, and what suits the storage: ``cache`` and ``io`` as libvirt's ``<driver>``
    has them, None where nothing needs to be said.
    """

    source: disks.Source
    cache: disks.Cache | None = None
    io: disks.Io | None = None


class Outside(NamedTuple):
    """Stands for the pool of what belongs to none: an image that is imported."""

    name: str = ""
    type: str = ""


@value(frozen=True)
class Source:
    """What a new volume is made from: a volume of this or another pool, handed over by its own backend, or an image.

    ``pool`` is the definition of the pool it belongs to (a backend that finds its own pool here may use a means of its
    own, such as a snapshot); ``info`` the volume as it is now. ``path`` is for tools and people. The format is the recorded
    one, never a guess. Built by :meth:`poolkit.backend.Backend.source`.
    """

    pool: Any
    info: VolumeInfo
    path: str
    opener: Callable[[], AbstractContextManager[int]]
    sender: Callable[[int], object] | None = None
    """Where the storage has no descriptor: writes all bytes, raw, into an open file or device that reads as zeros."""
    words: str = ""
    """What errors call it, where it is no volume."""
    ours: bool = False
    """Whether its file has no other user: a backend may make the volume of the very file."""

    def open(self) -> AbstractContextManager[int]:
        """A context manager that gives a read-only descriptor of the bytes: a regular file or block device, checked.

        Raises ``Unsafe`` for anything else. Where ``sender`` is set the bytes are first brought into an unnamed file: who only
        writes them somewhere calls that instead.
        """
        return self.opener()

    @property
    def format(self) -> str:
        """The recorded format; storage without formats is ``raw``."""
        return self.info.format or "raw"

    @property
    def capacity(self) -> int:
        """Bytes that a machine sees."""
        return self.info.capacity

    @property
    def allocation(self) -> int:
        """Bytes in use."""
        return self.info.allocation

    def __str__(self) -> str:
        return self.words or f"volume '{self.info.name}' of pool '{self.pool.name}'"


class Mark(NamedTuple):
    """The flavor that a volume is placed through, and a word that no other attempt to place one has."""

    flavor: str
    attempt: str


class Placed(NamedTuple):
    """A volume that has a mark; ``name`` is known of a finished one that is ``here``, in the very pool that was asked.

    ``settled``: it stays. One that is not may still give way to another one of its flavor and name.
    """

    name: str
    key: str
    mark: Mark
    here: bool
    settled: bool
