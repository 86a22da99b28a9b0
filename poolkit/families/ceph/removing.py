"""Removing RBD images and snapshots: what was asked for by name, and what an operation that failed had made."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator

from poolkit import errors
from poolkit.families.ceph.interface import CephError, Image, Images
from poolkit.host.port import Host

_DEAD = 40.0
"""Seconds after which a client that died is forgotten: osd_client_watch_timeout, 30 by default, and some more."""


@contextlib.contextmanager
def opened(images: Images, name: str, pool: str, *, write: bool = False) -> Iterator[Image]:
    """An open image; ``VolumeNotFound``."""
    with contextlib.ExitStack() as stack:
        try:
            image = stack.enter_context(images.open(name, write=write))
        except CephError as error:
            if error.number != errno.ENOENT:
                raise
            raise errors.VolumeNotFound(f"pool '{pool}' has no volume '{name}'", pool=pool, volume=name) from error
        yield image


def remove(host: Host, images: Images, name: str, ident: str, pool: str, *, snapshots: bool) -> None:
    """Remove the image ``name`` with the identity ``ident``, and with ``snapshots`` these.

    ``Unsafe`` for one with snapshots otherwise, and for another image under the name; ``InvalidState`` for one that clones stand
    on, ``Busy`` for one that somebody has open.
    """
    facts = {"pool": pool, "volume": name}
    with opened(images, name, pool) as image:
        if image.facts().id != ident:
            raise errors.Unsafe(f"the image '{name}' was replaced since it was listed; it was left alone", **facts)
        kept = image.snapshots()
        if any(one.user for one in kept) and not snapshots:
            names = ", ".join(f"'{one.name}'" for one in kept if one.user)
            raise errors.Unsafe(
                f"volume '{name}' has snapshots, which would be lost with it: {names}",
                hint=errors.Hint("if they are to go as well: ", errors.Option("delete-snapshots", keyword="delete_snapshots")),
                **facts,
            )  # fmt: skip
        if clones := [str(one) for one in image.children()]:
            raise errors.InvalidState(
                f"volume '{name}' is what other images stand on: {', '.join(sorted(clones))}",
                hint="delete them first, or let them stand alone: rbd flatten", **facts,
            )  # fmt: skip
        if users := image.watchers():
            raise _in_use(name, users, facts)
    if kept:
        with opened(images, name, pool, write=True) as image:
            for one in kept:
                if one.protected:
                    image.unprotect(one.name)
                if one.user:
                    image.remove_snapshot(one.name)
    try:
        images.remove(name, lambda done, total: host.progress(done, total, "remove"))
    except CephError as error:
        if error.number == errno.ENOENT:
            if name not in images.names():
                return  # somebody else was faster
            raise errors.HostError(
                f"volume '{name}' could not be removed: Ceph says that something of it is not there",
                hint="is the quota of the Ceph pool full? some versions remove nothing then; raise it", **facts,
            ) from error  # fmt: skip
        if error.number != errno.EBUSY:
            raise
        with opened(images, name, pool) as image:
            users = image.watchers()
        raise _in_use(name, users, facts) from error


def _in_use(name: str, users: list[str], facts: dict[str, str]) -> errors.Busy:
    return errors.Busy(
        f"volume '{name}' is open elsewhere, by the client {' and '.join(users) or 'of a machine'}",
        hint="a client that died counts for half a minute longer", **facts,
    )  # fmt: skip


def take_back(images: Images, name: str, ident: str) -> None:
    """Remove an image that an operation had made: if it has the identity ``ident``, which is empty for a name that was drawn.

    A client that died while it wrote is waited for. ``Unreachable``, which is tried again later, if it does not go.
    """
    if ident:
        try:
            with images.open(name) as image:
                if image.facts().id != ident:
                    return
        except CephError as error:
            if error.number == errno.ENOENT:
                return
            raise
    until = time.monotonic() + _DEAD
    while True:
        try:
            images.remove(name, lambda *_: None)
            return
        except CephError as error:
            if error.number == errno.ENOENT and name not in images.names():
                return
            if error.number not in (errno.EBUSY, errno.ENOENT):
                raise
            if time.monotonic() > until:
                raise errors.Unreachable(f"the image '{name}' is still open elsewhere, or its pool full") from error
        time.sleep(0.5)


def take_back_snapshot(images: Images, name: str, ident: str, snapshot: str) -> None:
    """Remove a snapshot that a clone was to stand on, of the image ``ident``, if it is there."""
    try:
        with images.open(name, write=True) as image:
            found = {one.name: one for one in image.snapshots()}.get(snapshot)
            if found is None or image.facts().id != ident:
                return
            if found.protected:
                image.unprotect(snapshot)
            image.remove_snapshot(snapshot)
    except CephError as error:
        if error.number != errno.ENOENT:
            raise
