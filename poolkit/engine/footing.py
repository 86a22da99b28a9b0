"""Pools on pools: which active pools would lose their storage with a volume, or with another pool.

It is told by facts. What a pool claims (its target, its devices) and what its backend says besides are followed down: a path
to its mount and that mount's device, a partition to its disk, a device of device-mapper or MD to what it is made of, a loop
device to its file. Another pool is below if one of those is its volume, or within the folder that it mounts.
"""

from __future__ import annotations

import os
import stat

from poolkit import errors, registry
from poolkit.backend import Backend
from poolkit.host import kernel
from poolkit.host.mounts import locate, may_wait, number
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poolkit.backend import VolumeInfo
    from poolkit.engine.core import Core
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record


class Ground(NamedTuple):
    """All that something stands on: paths without symbolic links, and devices as ``major:minor``."""

    paths: frozenset[str]
    devices: frozenset[str]


def ground(host: Host, sources: Iterable[str]) -> Ground:
    """What these paths stand on, down to the disks. Nothing that may wait for somebody is touched."""
    todo, paths, devices = list(sources), set[str](), set[str]()
    table = host.mounts()
    while todo:
        try:
            real, mount = locate(todo.pop(), table, may_wait)
        except OSError:  # a loop of links
            continue
        if real in paths:
            continue
        paths.add(real)
        if mount is None or may_wait(mount.fstype):
            continue
        device = block(real)
        if device:
            todo += _follow(device, devices)
            continue
        if os.path.exists(f"/sys/dev/block/{mount.device}"):
            todo += _follow(mount.device, devices)
        elif mount.source.startswith("/dev/"):
            todo.append(mount.source)  # btrfs has a number of its own
    return Ground(frozenset(paths), frozenset(devices))


def block(path: str) -> str:
    """``major:minor`` of the block device at ``path``; empty if there is none."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return ""
    return number(facts.st_rdev) if stat.S_ISBLK(facts.st_mode) else ""


def whole(paths: Iterable[str]) -> Iterator[str]:
    """``major:minor`` of the block devices at these paths, and of their partitions."""
    for device in filter(None, map(block, paths)):
        yield device
        base = f"/sys/dev/block/{device}"
        for name in kernel.names(base):
            if os.path.exists(f"{base}/{name}/partition"):
                yield kernel.value(f"{base}/{name}/dev")


def _follow(device: str, devices: set[str]) -> Iterator[str]:
    """Add a device and all that it is made of; the files of loop devices among them are given back."""
    if device in devices:
        return
    devices.add(device)
    base = f"/sys/dev/block/{device}"
    for name in kernel.names(f"{base}/slaves"):
        yield from _follow(kernel.value(f"{base}/slaves/{name}/dev"), devices)
    if os.path.exists(f"{base}/partition"):
        yield from _follow(kernel.value(f"{os.path.realpath(base)}/../dev"), devices)
    if file := _loop_file(base):
        yield file


def _loop_file(base: str) -> str:
    file = kernel.text(f"{base}/loop/backing_file").removesuffix("\n")
    return file if file.startswith("/") else ""


# -- who stands on it -----------------------------------------------------------------------------------------------


def pools_on_volume(core: Core, host: Host, record: Record, info: VolumeInfo, real: str) -> tuple[str, ...]:
    """Names of the other active pools that stand on a volume, which is at ``real``."""
    if info.path is None and info.type != "dir" and not _is_looped(real):
        return ()  # nothing stands on a file but by a loop device
    device = block(real) if info.path is not None else ""
    return tuple(
        name for name, on in _others(core, host, record)
        if device in on.devices or any(_within(path, real) for path in on.paths)
    )  # fmt: skip


def pools_on_pool(core: Core, host: Host, backend: Backend, record: Record) -> tuple[str, ...]:
    """Names of the other active pools that stand on what a pool brings up."""
    others = list(_others(core, host, record))
    if not others:
        return ()
    if backend.file_backed and record.target is not None:
        real = record.real or record.target
        return tuple(name for name, on in others if any(_within(path, real) for path in on.paths))
    volumes = core.inventory.volumes(record.id)
    devices = {block(v.path) for v in volumes if v.path is not None} - {""}
    return tuple(name for name, on in others if devices & on.devices)


def _others(core: Core, host: Host, but: Record) -> Iterator[tuple[str, Ground]]:
    for ident, name, type, live, claims in core.inventory.active_claims(core.boot):
        if ident == but.id:
            continue
        sources = [
            value for kind, _, value in (c.partition(" ") for c in claims) if kind in _LOCAL and value[:1] == "/"
        ]
        sources += _said(core, host, type, live)
        if sources:
            yield name, ground(host, sources)


_LOCAL = ("target", "device")


def _said(core: Core, host: Host, type: str, live: str) -> list[str]:
    """What a pool's own backend says, where its type has something to say."""
    try:
        if registry.backend(type).stands_on is Backend.stands_on:
            return []
        return list(core.definitions.backend(core.definitions.from_text(live), host).stands_on())
    except (OSError, errors.PoolkitError):
        return []  # a package that is gone, a program that is missing: what it claims is known all the same


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_looped(real: str) -> bool:
    return any(
        _loop_file(f"/sys/block/{name}") == real for name in kernel.names("/sys/block") if name.startswith("loop")
    )
