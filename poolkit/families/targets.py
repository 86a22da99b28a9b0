"""The target directory of a pool: how it is made and removed, and what is in the way of that."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from poolkit import errors
from poolkit.backend import quoted
from poolkit.families.entries import listable
from poolkit.host.directory import parent_of

if TYPE_CHECKING:
    from poolkit.families.directory import DirectoryBackend


def build(backend: DirectoryBackend, *, only_new: bool = False) -> bool:
    """Make the target directory and give it the definition's mode (0711 by default), owner and group.

    With ``only_new`` one that is there stays as it is: a mount point is somebody's, and may be ``/mnt``.
    """
    wanted = backend.pool.target.permissions
    files = backend.host.files
    # A link that an administrator made is followed, as libvirt does, and none of anybody else.
    try:
        with suppress(FileNotFoundError), parent_of(backend.place):
            pass
        place = backend.host.locate(backend.place)[0]
        made = files.mkdir(backend.place, 0o711 if wanted.mode is None else wanted.mode)
    except (FileExistsError, NotADirectoryError):
        raise in_the_way(backend) from None
    if (made and backend.host.dry_run) or (only_new and not made):
        return made
    changed = made
    if wanted.mode is not None:
        changed |= files.chmod(place, wanted.mode)
    owner, group = (-1 if number is None else number for number in (wanted.owner, wanted.group))
    if owner != -1 or group != -1:
        changed |= files.chown(place, owner, group)
    return changed


def erase(backend: DirectoryBackend) -> bool:
    """Remove the target directory; ``Unsafe`` if anything is in it, and for a link, which ``build`` never made."""
    if os.path.islink(backend.place):
        real = os.path.realpath(backend.place)
        raise errors.Unsafe(
            f"pool '{backend.pool.name}': '{backend.place}' was not removed: it is a symbolic link to '{real}'",
            pool=backend.pool.name, hint=f"if both are to go: rmdir '{real}' && rm '{backend.place}'",
        )  # fmt: skip
    try:
        if backend.host.dry_run and os.listdir(backend.place):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), backend.place)
        return backend.host.files.rmdir(backend.place)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise in_the_way(backend) from None
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.EEXIST):
            raise
        busy = error.errno == errno.EBUSY
        why = "something is mounted there" if busy else "it is not empty"
        first = "unmount that" if busy else f"delete its volumes{_others(backend.place)}"
        raise errors.Unsafe(
            f"pool '{backend.pool.name}': the directory '{backend.place}' was not removed: {why}",
            pool=backend.pool.name,
            hint=f"{first} first; poolkit removes nothing that was not asked for by name",
        ) from None


def _others(place: str) -> str:
    """What of the directory no verb can delete, as the end of a sentence: links, special files, names that are not listed."""
    try:
        with os.scandir(place) as entries:
            kinds = [
                (one.name, one.is_file(follow_symlinks=False) or one.is_dir(follow_symlinks=False)) for one in entries
            ]
    except OSError:
        return ""
    said = [
        os.fsencode(name).decode("utf-8", "backslashreplace")
        for name, plain in kinds
        if not plain or not listable(name)
    ]
    names = [errors.shown(name, 255) for name in sorted(said)]
    return f" and, by hand, what is none ({quoted(names)})" if names else ""


def in_the_way(backend: DirectoryBackend) -> errors.HostError:
    """The error where something on the way to the directory, or in its place, is no directory."""
    path = backend.place
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return errors.HostError(
        f"pool '{backend.pool.name}': '{path}' is not a directory", pool=backend.pool.name,
        hint="move it away, or give the pool another target",
    )  # fmt: skip
