"""The volumes that entries of a directory are: of files that were read, that could not be, and of what is mounted on one."""

from __future__ import annotations

import errno

from poolkit.backend import VolumeInfo
from poolkit.host.directory import TEMPORARY
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING
from poolkit.names import name_fault

if TYPE_CHECKING:
    import os
    from typing import Any

    from poolkit.families import newfiles
    from poolkit.formats import ImageInfo
    from poolkit.host import places
    from poolkit.host.mounts import Mount
else:
    newfiles = later(globals(), "newfiles", "poolkit.families.newfiles")
    places = later(globals(), "places", "poolkit.host.places")


BYTES = ("raw", "iso")
"""Formats of which the bytes of the file are those of the disk."""
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # the fault of this process or machine, not of an entry


def under(name: str, mount: Mount, old: VolumeInfo | None) -> VolumeInfo:
    """An entry on which something is mounted: a directory, unless it was known as a file, whose record stays with it."""
    why = f"{mount.words()} is mounted on it, so it is not touched"
    if old is None or old.type == "dir":
        return VolumeInfo(name, "dir", "dir", detail={"covered": why, "warning": why})
    return old._replace(stamp=0, detail={**(old.detail or {}), "covered": why, "error": why})


def failed(name: str, old: VolumeInfo | None, error: OSError) -> VolumeInfo | None:
    """An entry of which not even the kind can be had: what is known of it stays, with the error."""
    if error.errno in _OURS:
        raise error
    if not listable(name):
        return None
    why = f"cannot be looked at: {error.strerror}"
    if old is None:
        return VolumeInfo(name, detail={"error": why, "unread": True})
    detail = {**(old.detail or {}), "error": why}
    detail.pop("covered", None)
    return old._replace(stamp=0, detail=detail)


def unread(name: str, facts: os.stat_result, recorded: str | None, detail: dict[str, Any]) -> VolumeInfo:
    """A file that could not be read: it is tried again at every look, and what it holds is not guessed."""
    if recorded is None:
        detail["unread"] = True
    elif recorded not in BYTES:
        detail["unseen"] = True  # its capacity, and what it stands on, are in the header
    return volume(name, facts, 0, recorded or "", facts.st_size, detail)._replace(stamp=0)


def volume(
    name: str, facts: os.stat_result, now: int, format: str, capacity: int, detail: dict[str, Any] | None
) -> VolumeInfo:
    """A file that was looked at when the clock said ``now``."""
    ctime = facts.st_ctime_ns
    return VolumeInfo(
        name, "file", format, capacity, facts.st_blocks * 512, facts.st_size,
        0 if newfiles.is_young(ctime, now) else places.stamp_of(facts), facts.st_ino, facts.st_mode & 0o7777,
        facts.st_uid, facts.st_gid, facts.st_atime_ns, facts.st_mtime_ns, ctime, None, None, detail,
    )  # fmt: skip


def detail_of(image: ImageInfo) -> dict[str, Any] | None:
    """The rarer facts of an image as plain values, only those that say something."""
    detail: dict[str, Any] = {}
    if image.compat is not None:
        detail["compat"] = image.compat
    if image.cluster_size is not None:
        detail["cluster_size"] = image.cluster_size
    if image.features:
        detail["features"] = list(image.features)
    backing = image.backing
    if backing is not None:
        detail["backing"] = backing.name
        detail["backing_kind"] = backing.kind
        if backing.format is not None:
            detail["backing_format"] = backing.format
    if image.data_file is not None:
        detail["data_file"] = image.data_file
    parts = dict.fromkeys(extent.file for extent in image.extents if extent.file)
    if parts:
        detail["extent_files"] = list(parts)
    if image.encryption is not None:
        detail["encryption"] = image.encryption
    if image.hints:
        detail["content"] = list(image.hints)
    if image.also:
        detail["also"] = list(image.also)
    if image.ambiguous:
        detail["ambiguous"] = True
    if image.looks is not None:
        detail["looks_like"] = image.looks
    if image.unsupported:
        detail["unsupported"] = True
    if image.error is not None:
        detail["error"] = image.error
    if image.notes:
        detail["warning"] = "; ".join(image.notes)
    return detail or None


def listable(name: str) -> bool:
    """Whether an entry of that name may be a volume: not ours, and XML can carry it (no control characters, UTF-8)."""
    return not name.startswith(TEMPORARY) and (name.isprintable() or not name_fault(name))
