"""Block devices: what they are used for, what they hold, and the bytes of volumes that are devices.

A device is opened by the path that udev's links lead to, and is used only when the open descriptor is a block device.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from poolkit import errors
from poolkit.backend import Backend, Source, Transfer, VolumeInfo
from poolkit.content import copying, inuse, wiping
from poolkit.host import kernel, mounts
from poolkit.host.port import Host
from poolkit.model import Permissions

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def number(path: str) -> str:
    """``major:minor`` of the block device at ``path``, links followed; empty if there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    return mounts.number(facts.st_rdev) if stat.S_ISBLK(facts.st_mode) else ""


@contextlib.contextmanager
def opened(host: Host, path: str, *, write: bool = False, exclusive: bool = False) -> Iterator[int]:
    """A descriptor of the block device at ``path``; ``Unsafe`` for anything else, ``HostError`` if it is not there.

    ``exclusive`` raises ``Busy``, naming the user, for a device that is mounted or part of something (``O_EXCL``).
    """
    real = os.path.realpath(path)
    try:
        if not stat.S_ISBLK(os.stat(real).st_mode):
            raise errors.Unsafe(f"'{path}' is not a block device")  # opening a tape or a watchdog would do something
        mode = os.O_RDWR if write else os.O_RDONLY
        fd = os.open(real, mode | _FLAGS | (os.O_EXCL if exclusive else 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise errors.HostError(f"the device '{path}' does not exist") from None
        if error.errno == errno.EBUSY:
            raise errors.Busy(f"'{path}' is in use{_by(users(host, number(real)))}") from None
        raise errors.from_os_error(error, f"open '{path}'") from error
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise errors.Unsafe(f"'{path}' is not a block device")
        yield fd
    finally:
        os.close(fd)


def holds(host: Host, path: str) -> tuple[str, ...]:
    """What is recognised on the device (``ext4``, ``gpt``, ``LVM2_member`` ...), asked before something destroys it.

    ``Busy`` for a device in use, whatever it holds. Empty when nothing is known to be there.
    """
    from poolkit.formats import FdReader, content

    with opened(host, path, exclusive=True) as fd:
        return tuple(content(FdReader(fd, copying.size_of(fd))))


def users(host: Host, device: str, *, processes: bool = False) -> list[str]:
    """Who uses the device ``major:minor``, in words: mounts, devices made of it and, if asked, processes (proc(5))."""
    found = [f"mounted at '{m.target}'" for m in host.mounts() if m.device == device]
    base = f"/sys/dev/block/{device}"
    for holder in kernel.names(f"{base}/holders"):
        found.append(f"part of '{kernel.value(f'/sys/class/block/{holder}/dm/name') or holder}'")
    for part in kernel.names(base):
        inner = kernel.value(f"{base}/{part}/dev") if os.path.exists(f"{base}/{part}/partition") else ""
        found += [f"its partition '{part}' is {words}" for words in users(host, inner)] if inner else []
    real = os.path.basename(os.path.realpath(base))
    found += ["swap space"] * any(line.startswith(f"/dev/{real} ") for line in kernel.text("/proc/swaps").splitlines())
    return found + (_processes(device) if processes else [])


def _processes(device: str) -> list[str]:
    major, _, minor = device.partition(":")
    wanted = os.makedev(int(major), int(minor))
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for fd in kernel.names(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                facts = os.stat(f"/proc/{pid}/fd/{fd}")
                if stat.S_ISBLK(facts.st_mode) and facts.st_rdev == wanted:
                    found.append(f"open in process {pid} ({kernel.value(f'/proc/{pid}/comm')})")
                    break
    return found


def _by(words: list[str]) -> str:
    return f": {', '.join(words[:5])}" if words else ""


class BlockBackend(Backend):
    """The base of pool types whose volumes are block devices of this host: everything about their bytes."""

    def open_volume(self, info: VolumeInfo, *, write: bool = False, force: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the volume's device, after ``identify``. Writing needs a device that nothing has claimed."""
        return self._open(info, write, force)

    @contextlib.contextmanager
    def _open(self, info: VolumeInfo, write: bool, force: bool) -> Iterator[int]:
        if not info.path:
            raise self.unsupported("open_volume", f"open volume '{info.name}' as a device")
        with opened(self.host, info.path, write=write, exclusive=write and not force) as fd:
            self.identify(info, fd)
            if write:
                inuse.require_free(fd, f"volume '{info.name}'", force=force, volume=info.name)
            yield fd

    def identify(self, info: VolumeInfo, fd: int) -> None:
        """Raise ``Unsafe`` unless the open device is the volume that was listed."""

    def _give(self, device: str, wanted: Permissions) -> None:
        """Give a new volume's device node the mode, owner and group that its definition names."""
        if wanted.mode is not None:
            self.host.files.chmod(device, wanted.mode)
        if wanted.owner is not None or wanted.group is not None:
            owner, group = (-1 if value is None else value for value in (wanted.owner, wanted.group))
            self.host.files.chown(device, owner, group)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero", *, force: bool = False) -> VolumeInfo:
        """Wipe every byte of the device; its size and name stay."""
        wiping.check_algorithm(algorithm)
        label = f"wipe {info.path} with {algorithm}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            thin = self.is_thin(info)
            self.host.step(label)
            wiping.wipe(self.host, fd, copying.size_of(fd), algorithm, thin=thin)
        return self.look(info.name, info)

    def is_thin(self, info: VolumeInfo) -> bool:
        """Whether the device gets its space as it is written, so that zeros should not be written for their own sake."""
        return False

    def upload(
        self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, *, backing: bool = False, force: bool = False
    ) -> VolumeInfo:
        """Write the bytes of ``stream`` over those of the device, within its size."""
        label = f"upload to {info.path} from byte {transfer.offset}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            size = self._range(info, transfer, fd)
            self.host.step(label)
            copying.upload(self.host, fd, stream, transfer, size)
            self.host.files.fault(f"fsync {info.name}")
            os.fsync(fd)
        return self.look(info.name, info)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the bytes of the device, as they are, to ``stream``."""
        with self.open_volume(info) as fd:
            inuse.check_copy(self.host, fd, "raw", f"volume '{info.name}'")
            return copying.download(self.host, fd, stream, transfer, self._range(info, transfer, fd))

    def _range(self, info: VolumeInfo, transfer: Transfer, fd: int) -> int:
        size = copying.size_of(fd)
        if transfer.offset > size or transfer.offset + transfer.length > size:
            raise errors.InvalidArgument(
                f"volume '{info.name}' has {size} bytes; "
                f"the range from {transfer.offset} of {transfer.length or 'all further'} bytes is not within it",
                volume=info.name,
            )
        return size

    def fill(self, target: int, source: Source, *, blank: bool = False, secret: bytes | None = None) -> None:
        """Copy the content of ``source`` onto the open device ``target``, as raw bytes; images are converted.

        ``blank`` says that the device reads as zeros now. ``SourceChanged`` if the source was changed meanwhile, ``Unsafe``
        for an image that needs another file, ``InvalidArgument`` for a device that is too small.
        """
        with source.open() as fd:
            copying.twice(self.host, fd, lambda first: self._fill(target, source, fd, blank and first, secret))

    def _fill(self, target: int, source: Source, fd: int, blank: bool, secret: bytes | None) -> None:
        from poolkit.content import images

        room = copying.size_of(target)
        inuse.check_copy(self.host, fd, source.format, str(source))
        size, unchanged = copying.size_of(fd), copying.unchanged(fd, source)
        image = images.examine(self.host, fd, size, source.format, str(source), backing=False)
        needed = size if image.capacity is None else image.capacity
        if needed > room:
            raise errors.InvalidArgument(f"{source} has {needed} bytes, and the new volume only {room}")
        encryption = (source.info.detail or {}).get("encryption")
        if encryption and secret is None:
            secret = images.secret_of(self.host, source.info, source.path)
        with unchanged:
            if not blank:
                copying.zero(target, needed, room - needed, self.host)
            if source.format in images.BYTES:
                copying.duplicate(self.host, fd, target, size, reflink=False, blank=blank)
            else:
                self._convert(fd, source.format, target, blank, encryption, secret)
        os.fsync(target)

    def _convert(
        self, fd: int, format: str, target: int, blank: bool, encryption: str | None, secret: bytes | None
    ) -> None:
        from poolkit.content import images
        from poolkit.formats import qemu_driver

        images.check_reader(self.host)
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
                path, key = stack.enter_context(self.host.secret_file(secret))
                passed.append(key)
                objects = ["--object", f"secret,id=key0,file={path}"]
            nodes = json.dumps(images.node(fd, format, encryption=encryption))
            # Without --target-is-zero qemu-img writes the zeros too: what the extents held before must not show.
            zero = ["--target-is-zero"] if blank else []
            argv = ["qemu-img", "convert", *objects, "-q", "-n", *zero, "-m", "4", "-f", driver, "-O", "raw", "--"]
            self.host.change(
                [*argv, f"json:{nodes}", f"/proc/self/fd/{target}"], untrusted=True, pass_fds=passed,
                timeout=600 + size / (1 << 20), limits={"cpu": 600 + size // (4 << 20)},
            )  # fmt: skip
