"""What poolkit asks of Ceph: a cluster, the images of a pool, and an open image, whichever way leads to them.

Everything raises :class:`CephError` with the number that Ceph gave, and nothing else. Any call may wait as long as the time-outs
of the connection say.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

TIMEOUTS = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")
"""The options that end what would wait for ever; Ceph's own defaults are 300 seconds and twice none."""

LAYERING, STRIPING, FAST_DIFF, DATA_POOL = 1 << 0, 1 << 1, 1 << 4, 1 << 7
FEATURES = {
    "layering": LAYERING, "striping": STRIPING, "exclusive-lock": 1 << 2, "object-map": 1 << 3, "fast-diff": FAST_DIFF,
    "deep-flatten": 1 << 5, "journaling": 1 << 6, "data-pool": DATA_POOL, "operations": 1 << 8, "migrating": 1 << 9,
    "non-primary": 1 << 10, "dirty-cache": 1 << 11,
}  # fmt: skip
"""Features of images by their names (rbd/features.h)."""
FAST_DIFF_INVALID = 1 << 1  # of an image's flags (rbd/librbd.h): its object map cannot be believed

ImageOptions = Mapping[str, int | str]
"""What a new image is to be, by the names of librbd: features, order, stripe_unit, stripe_count, data_pool, clone_format.
What is not there is the cluster's to choose."""
Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""


class CephError(Exception):
    """What Ceph answered: ``number`` is an errno, positive; ``what`` says what was asked."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, what)
        self.number = number
        self.what = what


class ImageName(NamedTuple):
    """Where an image is: pool, namespace (empty for none), name."""

    pool: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As Ceph and libvirt write it, ``pool/name`` or ``pool/namespace/name``."""
        return "/".join(part for part in self if part)


class Facts(NamedTuple):
    """One image; sizes in bytes. ``flags`` is 0 for an image whose maps can be believed."""

    id: str
    size: int
    order: int
    objects: int
    features: int
    flags: int
    parent: tuple[ImageName, str] | None
    """The image that this one is a clone of, and the snapshot of it; None for one that stands alone."""


class Snapshot(NamedTuple):
    """One snapshot. ``user`` False: Ceph keeps it for itself (trash, mirroring, groups)."""

    id: int
    name: str
    protected: bool
    user: bool = True


class Image(Protocol):
    """An open image: of one kind of opening, to read or to write, until it is closed."""

    def facts(self) -> Facts:
        """What it is now."""

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest first."""

    def extents(self, offset: int, length: int, since: str | None = None) -> list[tuple[int, int, bool]]:
        """Ranges that hold data, as (offset, length, whether it exists), or that changed ``since`` a snapshot.

        Whole objects, from the object map where the image has fast-diff. Data of its parent is not told.
        """

    def data(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """As ``extents``, to the byte, and with the parent's data."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes; fewer at the end of the image."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``, within the size."""

    def discard(self, offset: int, length: int) -> None:
        """Give a range back; it reads as zeros, or as what the parent has, where it is less than an object."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, without space where that can be."""

    def flush(self) -> None:
        """Return when what was written is in the cluster."""

    def resize(self, size: int, shrink: bool, progress: Progress) -> None:
        """Set the size."""

    def snapshot(self, name: str) -> None:
        """Make a snapshot."""

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot."""

    def protect(self, name: str) -> None:
        """Protect a snapshot, as clones of the first kind need."""

    def unprotect(self, name: str) -> None:
        """Take the protection away; EBUSY while there are clones of the first kind."""

    def flatten(self, progress: Progress) -> None:
        """Copy what the clone has from its parent, and let go of that."""

    def children(self) -> list[ImageName]:
        """Clones of its snapshots."""

    def watchers(self) -> list[str]:
        """Addresses of the clients that have it open to write, this one included."""

    def copy(self, target: Images, name: str, options: ImageOptions, progress: Progress) -> None:
        """Make an image with the same bytes, holes kept; the snapshots stay here."""


class Images(Protocol):
    """The images of one namespace of a pool."""

    def bytes_used(self) -> int:
        """Bytes that the pool's objects hold, as the cluster last counted them; ENOENT for a pool that is gone."""

    def names(self) -> dict[str, str]:
        """All images: name and identity; the identity is empty for images of the old format 1."""

    def versions(self, objects: Sequence[str]) -> list[int]:
        """A number for each object that grows with every change of it; 0 for one that is not there. All are asked at once."""

    def create(self, name: str, size: int, options: ImageOptions) -> None:
        """Make an image of zeros; EEXIST."""

    def clone(self, name: str, snapshot: str, target: Images, new: str, options: ImageOptions) -> None:
        """Make an image that shares the data of a snapshot of ``name``."""

    def put(self, name: str, data: bytes) -> None:
        """Make an object; EEXIST for one that is there, and then nothing is changed."""

    def call(self, name: str, kind: str, method: str, data: bytes) -> None:
        """Have the cluster call a method of an object's class (``rbd``), which is done whole or not at all."""

    def drop(self, name: str) -> None:
        """Remove an object."""

    def remove(self, name: str, progress: Progress) -> None:
        """Remove an image; ENOTEMPTY with snapshots, EBUSY while somebody has it open."""

    def open(self, name: str, *, snapshot: str | None = None, write: bool = False) -> AbstractContextManager[Image]:
        """An image, open as long as the body. Only one that is open to write is seen by others as in use."""


class Cluster(Protocol):
    """A connection."""

    def space(self) -> tuple[int, int]:
        """Bytes of the cluster: all, and those that are free."""

    def images(self, pool: str, namespace: str) -> AbstractContextManager[Images]:
        """The images of a pool; ENOENT."""

    def close(self) -> None:
        """Disconnect."""


TAKEN = errno.EEXIST
"""The name is another image's."""
