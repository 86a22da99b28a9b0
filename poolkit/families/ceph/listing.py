"""From RBD images to listed volumes, without opening those that are as they were."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from poolkit import errors
from poolkit.backend import VolumeInfo, check_volume_name
from poolkit.families.ceph.interface import (
    FAST_DIFF,
    FAST_DIFF_INVALID,
    FEATURES,
    CephError,
    Image,
    ImageName,
    Images,
    Snapshot,
)
from poolkit.host.port import Host

_THREADS = 8  # that open images: most of the time is spent in waiting for the cluster


class Lister:
    """Makes the facts of volumes. ``counted`` False takes the capacity as the allocation, without counting."""

    def __init__(self, host: Host, images: Images, place: tuple[str, str], *, counted: bool) -> None:
        self._host = host
        self._images = images
        self._place = place
        self._counted = counted

    def all(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All images by name, those of ``known`` that have not been changed taken from there."""
        names = {name: ident for name, ident in sorted(self._images.names().items()) if self._ours(name)}
        stamps = dict(zip(names, self._stamps(list(names.values())), strict=True))
        with ThreadPoolExecutor(_THREADS) as threads:
            found = [self._begun(threads, name, ident, stamps[name], known.get(name)) for name, ident in names.items()]
            for one in found:
                info = one if isinstance(one, VolumeInfo) else one.result()
                if info is not None:
                    yield info

    def _begun(
        self, threads: ThreadPoolExecutor, name: str, ident: str, stamp: int, known: VolumeInfo | None
    ) -> VolumeInfo | Any:
        if known is not None and stamp and known.stamp == stamp and (known.detail or {}).get("id") == ident:
            return known
        return threads.submit(self._found, name, stamp)

    def _ours(self, name: str) -> bool:
        if name.startswith(".poolkit-"):
            return False
        try:
            check_volume_name(name)
        except errors.InvalidArgument as error:
            self._host.warn(f"an image is not listed: {error}")
            return False
        return True

    def _stamps(self, idents: list[str]) -> list[int]:
        """A number that changes with the header of an image and with its object map; 0 for an image of the old format."""
        objects = [f"rbd_{what}.{ident}" for ident in idents for what in ("header", "object_map")]
        versions = self._images.versions(objects)
        return [
            (header << 32 ^ bits << 1 ^ self._counted) % (1 << 63) if header else 0
            for header, bits in zip(versions[::2], versions[1::2], strict=True)
        ]

    def one(self, name: str) -> VolumeInfo | None:
        """One image as it is now; None if there is none."""
        try:
            with self._images.open(name) as image:
                return self.told(name, image)
        except CephError as error:
            if error.number == errno.ENOENT:
                return None
            raise

    def _found(self, name: str, stamp: int) -> VolumeInfo | None:
        try:
            with self._images.open(name) as image:
                return self._facts(name, image, stamp)
        except CephError as error:
            if error.number == errno.ENOENT:  # removed since the names were listed
                return None
            if error.number == errno.ETIMEDOUT:
                raise
            why = f"cannot be opened: {os.strerror(error.number)}"
            path = str(ImageName(*self._place, name))
            return VolumeInfo(name, "network", "raw", key=path, path=path, detail={"error": why, "unread": True})

    def told(self, name: str, image: Image) -> VolumeInfo:
        """The facts of an open image."""
        ident = image.facts().id
        stamp = (
            self._stamps([ident])[0] if ident else 0
        )  # before the facts: what changes meanwhile is seen the next time
        return self._facts(name, image, stamp)

    def _facts(self, name: str, image: Image, stamp: int) -> VolumeInfo:
        facts = image.facts()
        allocation = facts.objects << facts.order
        if self._counted and facts.features & FAST_DIFF and not facts.flags & FAST_DIFF_INVALID:
            allocation = sum(size for _, size, exists in image.extents(0, facts.size) if exists)
        detail: dict[str, Any] = {
            "id": facts.id,
            "order": facts.order,
            "features": [word for word, bit in FEATURES.items() if facts.features & bit],
        }
        if facts.parent is not None:
            detail["parent"] = f"{facts.parent[0]}@{facts.parent[1]}"
        if snapshots := _shown(image.snapshots()):
            detail["snapshots"] = snapshots
        path = str(ImageName(*self._place, name))
        if max(facts.size, allocation) >> 63:
            detail = {"error": f"its header says that it has {facts.size} bytes", "unread": True}
            return VolumeInfo(name, "network", "raw", key=path, path=path, detail=detail)
        return VolumeInfo(
            name, "network", "raw", facts.size, allocation, stamp=stamp, key=path, path=path, detail=detail
        )


def _shown(snapshots: list[Snapshot]) -> list[str]:
    return [one.name for one in snapshots if one.user]
