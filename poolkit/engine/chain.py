"""The images a volume stands on, one below the other, looked at on request and never during a refresh."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.content import copying, images
from poolkit.engine.core import Core
from poolkit.formats import FORMATS, FdReader, as_format, check, local, read_as
from poolkit.host import worker
from poolkit.host.mounts import network_of

DEPTH = 200
"""Images of a chain that are followed; QEMU itself gives up at a similar depth (libvirt: 200)."""

SECONDS = 10.0
"""Time a walk may take, so that a chain over dead network storage ends."""

_NO_IMAGE = "a directory: it holds no image"


class Link(NamedTuple):
    """One image of a chain. ``problem`` says why the chain cannot be followed from here, or is not to be trusted.

    ``format`` is the one it is read as: on record for volumes of active pools, otherwise as the image above says. ``kind`` is
    file, dir, ``data file`` (which holds the data of the image above it), protocol, json or uuid.
    """

    path: str
    format: str | None
    pool: str | None = None
    volume: str | None = None
    capacity: int | None = None
    kind: str = "file"
    problem: str = ""


def walk(core: Core, pool: str, path: str, info: VolumeInfo, *, deep: bool = False) -> list[Link]:
    """The chain of the volume ``info`` of ``pool``, which is at ``path``; itself first.

    Nothing but regular files and block devices is opened, no link followed. ``deep`` asks of every image whether all of it is
    there, which reads all its tables.

    A problem ends the chain and is in its last link; this raises only for the volume itself.
    """
    links: list[Link] = []
    seen: set[tuple[int, int]] = set()
    deadline = time.monotonic() + SECONDS
    host = core.host.operation()
    alive: set[str] = set()  # mount points whose servers have answered
    format = info.format or "raw"
    link = Link(path, format, pool, info.name, info.capacity)
    while True:
        if len(links) >= DEPTH or time.monotonic() > deadline:
            why = (
                f"the chain has more than {DEPTH} images"
                if len(links) >= DEPTH
                else "following the chain took too long"
            )
            return [*links, link._replace(problem=why)]
        if _without_descriptor(core, link):
            links.append(link)
            below = _stored_below(core, link)
            if below is None:
                return links
            if (below.pool, below.volume) in [(one.pool, one.volume) for one in links] or below.problem:
                return [*links, below._replace(problem=below.problem or "the chain comes back to this image")]
            path, link, format = below.path, below, below.format or "raw"
            continue
        away = network_of(path, host.mounts())
        if away is not None and away.target not in alive:
            if not worker.answers(host, path):
                return [
                    *links,
                    link._replace(problem=f"the server of '{away.target}' does not answer; it was not opened"),
                ]
            alive.add(away.target)
        try:
            with images.opened(path, "the image") as fd:
                facts = os.fstat(fd)
                if (facts.st_dev, facts.st_ino) in seen:
                    return [*links, link._replace(problem="the chain comes back to this image")]
                seen.add((facts.st_dev, facts.st_ino))
                reader = FdReader(fd, copying.size_of(fd))
                image = as_format(reader, format)
                image.error = check(reader, image, deep=deep)
        except errors.PoolkitError as error:
            if os.path.isdir(path):
                link = link._replace(format="dir", kind="dir", capacity=None)
                return [
                    *links,
                    link if info.type == "dir" and not links else link._replace(problem=_NO_IMAGE),
                ]
            return [*links, link._replace(problem=str(error))]
        link = link._replace(capacity=image.capacity)
        if image.error is not None:
            return [*links, link._replace(problem=image.error)]
        if image.data_file is not None:
            data = Link(
                local.beside(image.data_file, path),
                "raw",
                kind="data file",
                problem="not opened: the data above is in it",
            )
            return [*links, link._replace(problem=f"its data is in another file, '{image.data_file[:200]}'"), data]
        links.append(link)
        backing = image.backing
        if backing is None:
            below = _stored_below(core, link)
            if below is None:
                return links
            path, link = below.path, below
            if link.problem:
                return [*links, link]
            format = link.format or "raw"
            continue
        found = local.file_of(backing)
        if found is None:
            return [
                *links,
                Link(backing.name, backing.format, kind=backing.kind, problem="not a file; it was not opened"),
            ]
        try:
            path = images.resolve(found[0], path)
        except errors.Unsafe as error:
            return [*links, Link(backing.name, backing.format, problem=str(error))]
        link = _below(core, path, found[1])
        if link.problem:
            return [*links, link]
        format = link.format or "raw"


def _without_descriptor(core: Core, link: Link) -> bool:
    """Whether a volume's bytes are behind a library or a protocol: what it stands on is known from the listing alone."""
    record = core.inventory.record(link.pool) if link.pool is not None else None
    if record is None or link.volume is None:
        return False
    from poolkit import registry

    return registry.backend(record.type).sends()


def _stored_below(core: Core, link: Link) -> Link | None:
    """What a volume stands on by its storage and not by a header, such as the origin of a snapshot."""
    record = core.inventory.record(link.pool) if link.pool is not None else None
    if record is None or link.volume is None:
        return None
    backend = core.definitions.backend(core.definitions.running(record))
    info = core.inventory.volume(record.id, link.volume)
    if backend.file_backed or info is None:
        return None
    below = backend.below(info)
    return _below(core, below[0], "raw") if below else None


def _below(core: Core, path: str, said: str | None) -> Link:
    if not path.isprintable():
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Link("".join(c if c.isprintable() else "?" for c in shown), said, problem="its name is no clean text")
    try:
        record, info = core.find_volume("path", path)
    except errors.VolumeNotFound:
        if said is None:
            return Link(path, None, problem="the image above does not say its format; it was not opened")
        return Link(path, said, problem="" if said in FORMATS else "the image above says a format that is not known")
    recorded = read_as(info.format)
    link = Link(path, recorded, record.name, info.name)
    if info.type == "dir":
        return link._replace(format="dir", kind="dir", problem=_NO_IMAGE)
    if said is not None and said != recorded:
        return link._replace(problem=f"the image above takes it for {said}; its format on record is {recorded}")
    return link


def trusted(core: Core, pool: str, path: str, info: VolumeInfo) -> list[tuple[str, str]]:
    """Path and format of every image below a volume; ``Unsafe`` if one is no volume of an active pool."""
    found = []
    for link in walk(core, pool, path, info)[1:]:
        if link.problem or link.volume is None:
            why = link.problem or "it is no volume of an active pool"
            raise errors.Unsafe(
                f"volume '{info.name}' stands on '{link.path[:200]}', which is not read: {why}",
                pool=pool, volume=info.name,
                hint="make a pool of the folder that holds it, and start that pool",
            )  # fmt: skip
        found.append((link.path, link.format or "raw"))
    return found
