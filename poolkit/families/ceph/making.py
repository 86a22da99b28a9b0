"""New RBD images: what is asked for, and where their content comes from."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from secrets import token_hex

from poolkit import errors
from poolkit.families.ceph import bytes as content
from poolkit.families.ceph.interface import (
    FEATURES,
    LAYERING,
    STRIPING,
    CephError,
    Image,
    ImageName,
    ImageOptions,
    Images,
)
from poolkit.host.port import Host
from poolkit.host.undo import Undo
from poolkit.model import Volume

Make = Callable[[Images, str], None]
"""Makes a whole image under a name."""
_CHOSEN = ("layering", "striping", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling")


def options(
    volume: Volume, *, features: Sequence[str] | str | None, order: int | None, object_size: int | None,
    data_pool: str | None, stripe_unit: int | None, stripe_count: int | None,
) -> ImageOptions:  # fmt: skip
    """Ceph's options for a new image, of the call and of the document; ``InvalidArgument`` for what cannot be meant."""
    wanted = volume.rbd
    if wanted is not None:
        features = wanted.features if features is None else features
        object_size = wanted.object_size if object_size is None and order is None else object_size
        data_pool = wanted.data_pool if data_pool is None else data_pool
        stripe_unit = wanted.stripe_unit if stripe_unit is None else stripe_unit
        stripe_count = wanted.stripe_count if stripe_count is None else stripe_count
    found: dict[str, int | str] = {}
    if object_size is not None:
        if object_size & (object_size - 1) or (order is not None and object_size != 1 << order):
            raise _wrong(volume, f"the size of objects is a power of two, not {object_size}")
        order = object_size.bit_length() - 1
    if order is not None:
        if not 12 <= order <= 25:  # librbd's limits
            raise _wrong(volume, "objects have from 4 KiB to 32 MiB (order 12 to 25)")
        found["order"] = order
    if (stripe_unit is None) != (stripe_count is None):
        raise _wrong(volume, "striping needs both stripe_unit and stripe_count")
    if stripe_unit is not None and stripe_count is not None:
        found |= {"stripe_unit": stripe_unit, "stripe_count": stripe_count}
    if data_pool is not None:
        found["data_pool"] = data_pool
    if features is not None:
        words = features.replace(",", " ").split() if isinstance(features, str) else list(features)
        if unknown := [word for word in words if word not in _CHOSEN]:
            raise errors.InvalidArgument(
                f"volume '{volume.name}': '{unknown[0][:60]}' is no feature that can be chosen", volume=volume.name,
                hint=f"one of: {', '.join(_CHOSEN)}",
            )  # fmt: skip
        found["features"] = sum({FEATURES[word] for word in words}) | (STRIPING if stripe_unit is not None else 0)
    return found


def _wrong(volume: Volume, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"volume '{volume.name}': {why}", volume=volume.name)


def capacity(volume: Volume, pool: str) -> int:
    """The size of a new image; ``InvalidArgument`` without one."""
    if not volume.capacity:
        raise errors.InvalidArgument(f"pool '{pool}': volume '{volume.name}' needs a capacity", volume=volume.name)
    return volume.capacity


def check(volume: Volume, pool: str) -> None:
    """Refuse what no image can have."""
    head = f"pool '{pool}': volume '{volume.name}': "
    target = volume.target
    if "@" in volume.name:
        raise errors.InvalidArgument(f"{head}no image of RBD has an '@' in its name", pool=pool, volume=volume.name)
    if target.format not in (None, "raw", "unknown"):
        raise errors.Unsupported(f"{head}images of RBD are raw, not {target.format}", volume=volume.name)
    if volume.backing_store is not None:
        raise errors.Unsupported(
            f"{head}an image is made on another one by cloning that", volume=volume.name,
            hint=errors.Hint("clone it: ", errors.Option("linked")),
        )  # fmt: skip
    if target.encryption is not None:
        raise errors.Unsupported(f"{head}encrypted images of RBD cannot be made", volume=volume.name)


def filled(host: Host, fd: int, length: int, size: int, wanted: ImageOptions) -> Make:
    """An image of ``size`` bytes that begins with ``length`` bytes of an open file."""

    def make(images: Images, name: str) -> None:
        images.create(name, size, wanted)
        with images.open(name, write=True) as image:
            content.receive(host, image, fd, length)

    return make


class Cloner:
    """Makes images from the image ``origin``, whose identity is ``ident``, of the same cluster."""

    def __init__(
        self,
        host: Host,
        images: Callable[[ImageName], AbstractContextManager[Images]],
        origin: ImageName,
        ident: str,
        undo: Callable[..., Undo],
    ) -> None:
        self._host = host
        self._place = images
        self._origin = origin
        self._ident = ident
        self._undo = undo

    def copy(self, size: int, wanted: ImageOptions) -> Make:
        """A copy of its bytes."""

        def make(images: Images, name: str) -> None:
            with self._place(self._origin) as there, there.open(self._origin.name) as source:
                self._same(source)
                if users := source.watchers():
                    self._host.warn(
                        f"volume '{self._origin.name}' is open elsewhere ({', '.join(users)}) and may be written meanwhile"
                    )
                source.copy(images, name, _inherited(source, wanted), self._progress("copy"))
            self._grow(images, name, size)

        return make

    def clone(
        self, size: int, wanted: ImageOptions, snapshot: str | None, *, flatten: bool, across: bool = False
    ) -> Make:
        """A clone of a snapshot; ``across`` says that it is in another namespace than its source."""

        def make(images: Images, name: str) -> None:
            with self._place(self._origin) as there:
                with there.open(self._origin.name, write=True) as source:
                    self._same(source)
                    chosen, new = self._snapshot(source, snapshot)
                    if new:  # undone in reverse: the clone goes before the snapshot on which it stands
                        self._host.keep_undo(self._undo("remove", name, ""))
                    given = _inherited(source, wanted)
                given = {**given, "features": int(given.get("features", 0)) | LAYERING}
                if across:
                    given["clone_format"] = 2  # the first one cannot leave a namespace
                there.clone(self._origin.name, chosen, images, name, given)
                self._grow(images, name, size)
                if flatten:
                    with images.open(name, write=True) as image:
                        image.flatten(self._progress("flatten"))
                    if new:
                        with there.open(self._origin.name, write=True) as source:
                            source.unprotect(chosen)
                            source.remove_snapshot(chosen)

        return make

    def _snapshot(self, source: Image, wanted: str | None) -> tuple[str, bool]:
        """A protected snapshot, and whether it is new: the one that is asked for, or the last if nothing was written since."""
        name, size = self._origin.name, source.facts().size
        there = {one.name: one for one in source.snapshots() if one.user}
        if wanted is not None:
            if wanted not in there:
                raise errors.InvalidArgument(
                    f"volume '{name}' has no snapshot '{wanted}'", volume=name,
                    hint=f"it has: {', '.join(there) or 'none'}",
                )  # fmt: skip
            chosen, new = wanted, False
        else:
            last = next(reversed(there), None)
            if last is not None and not source.extents(0, size, last):
                chosen, new = last, False
            else:
                chosen, new = f"poolkit-{token_hex(8)}", True
                # Nobody else has that name; what is made in the next moment is not protected yet.
                undo = self._undo("unsnapshot", *self._origin, self._ident, chosen)
                self._host.step(f"make the snapshot {self._origin}@{chosen}", undo)
                source.snapshot(chosen)
        if new or not there[chosen].protected:
            try:
                source.protect(chosen)
            except CephError as error:
                if error.number != errno.EBUSY:  # somebody else has just protected it
                    raise
        return chosen, new

    def _same(self, source: Image) -> None:
        if source.facts().id != self._ident:
            raise errors.Unsafe(f"volume '{self._origin.name}' was replaced since it was listed; it was left alone")

    def _grow(self, images: Images, name: str, size: int) -> None:
        with images.open(name) as image:
            if image.facts().size >= size:
                return
        with images.open(name, write=True) as image:
            image.resize(size, False, self._progress("resize"))

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._host.progress(done, total, what)


def _inherited(source: Image, wanted: ImageOptions) -> ImageOptions:
    """What a clone has of its source where nothing else is asked for, as libvirt does it: features and size of objects."""
    facts = source.facts()
    features = facts.features & sum(FEATURES[word] for word in _CHOSEN if word != "striping")
    return {"order": facts.order, "features": features, **wanted}
