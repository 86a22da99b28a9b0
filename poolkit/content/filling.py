"""The content of a volume as raw bytes: onto a device, or into storage that takes bytes and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

from poolkit import errors
from poolkit.backend import Source
from poolkit.content import copying, inuse, recipes
from poolkit.host.port import Host


def fill(host: Host, target: int, source: Source, *, blank: bool = False, secret: bytes | None = None) -> None:
    """Copy the content of ``source`` into the open device or file ``target``, as raw bytes; images are converted.

    ``blank`` says that the target reads as zeros now. ``SourceChanged`` if the source was changed meanwhile, ``Unsafe``
    for an image that needs another file, ``InvalidArgument`` for a target that is too small.
    """
    if source.sender is not None:
        room = copying.size_of(target)
        _require_room(source, source.capacity, room)
        if not blank:
            copying.zero(target, 0, room, host)
        source.sender(target)
        os.fsync(target)
        return
    with source.open() as fd:
        copying.twice(host, fd, lambda first: _fill(host, target, source, fd, blank and first, secret))


@contextlib.contextmanager
def raw(host: Host, source: Source, *, secret: bytes | None = None) -> Iterator[int]:
    """A descriptor of the bytes that a machine sees in ``source``, from the first to its capacity.

    Raw bytes that have a descriptor are that one, and ``SourceChanged`` is raised at the end if they were changed meanwhile.
    All others go through an unnamed file in the folder for large temporary files.
    """
    if source.sender is not None:
        with source.open() as fd:
            yield fd
        return
    if source.format in recipes.BYTES:
        with source.open() as fd:
            inuse.check_copy(host, fd, source.format, str(source))
            with copying.unchanged(fd, source):
                yield fd
        return

    def convert(fd: int) -> None:
        os.ftruncate(fd, source.capacity)
        fill(host, fd, source, blank=True, secret=secret)

    with host.spooled(source.allocation, convert) as fd:
        yield fd


def _require_room(source: Source, needed: int, room: int) -> None:
    if needed > room:
        raise errors.InvalidArgument(f"{source} has {needed} bytes, and the new volume only {room}")


def _fill(host: Host, target: int, source: Source, fd: int, blank: bool, secret: bytes | None) -> None:
    from poolkit.content import images

    room = copying.size_of(target)
    inuse.check_copy(host, fd, source.format, str(source))
    size, unchanged = copying.size_of(fd), copying.unchanged(fd, source)
    image = images.examine(host, fd, size, source.format, str(source), backing=False)
    needed = size if image.capacity is None else image.capacity
    _require_room(source, needed, room)
    encryption = (source.info.detail or {}).get("encryption")
    if encryption and secret is None:
        secret = images.secret_of(host, source.info, source.path)
    with unchanged:
        if not blank:
            copying.zero(target, needed, room - needed, host)
        if source.format in recipes.BYTES:
            copying.duplicate(host, fd, target, size, reflink=False, blank=blank)
        else:
            _convert(host, fd, source.format, target, blank, encryption, secret)
    os.fsync(target)


def _convert(
    host: Host, fd: int, format: str, target: int, blank: bool, encryption: str | None, secret: bytes | None
) -> None:
    from poolkit.content import images
    from poolkit.formats import qemu_driver

    images.check_reader(host)
    driver = qemu_driver(format)
    if driver is None:
        raise errors.Unsupported(f"qemu-img cannot read the format '{format}'")
    if not images.pinned(fd, format):
        raise errors.Unsafe(
            "others can write the image, and this kernel has no Landlock, which keeps qemu-img to the files it is given",
            hint="copy it to a pool of files first, with a mode that lets nobody else write it",
        )
    size = copying.size_of(target)
    with contextlib.ExitStack() as stack:
        passed = [fd, target]
        objects: list[str] = []
        if secret is not None:
            path, key = stack.enter_context(host.secret_file(secret))
            passed.append(key)
            objects = ["--object", f"secret,id=key0,file={path}"]
        nodes = json.dumps(images.node(fd, format, encryption=encryption))
        # Without --target-is-zero qemu-img writes the zeros too: what the extents held before must not show.
        zero = ["--target-is-zero"] if blank else []
        argv = ["qemu-img", "convert", *objects, "-q", "-n", *zero, "-m", "4", "-f", driver, "-O", "raw", "--"]
        host.change(
            [*argv, f"json:{nodes}", f"/proc/self/fd/{target}"], untrusted=True, pass_fds=passed,
            timeout=600 + size / (1 << 20), limits={"cpu": 600 + size // (4 << 20)},
        )  # fmt: skip
