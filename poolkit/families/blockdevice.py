"""Block devices: what they are used for, what they hold, and the bytes of volumes that are devices.

A device is opened by the path that udev's links lead to, and is used only when the open descriptor is a block device.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from poolkit import errors
from poolkit.backend import Backend, Source, Transfer, VolumeInfo
from poolkit.content import copying, filling, inuse, space, wiping
from poolkit.host.devices import Devices
from poolkit.host.port import Host
from poolkit.model import Permissions


@contextlib.contextmanager
def opened(host: Host, path: str, *, write: bool = False, exclusive: bool = False) -> Iterator[int]:
    """A descriptor of the block device at ``path``; ``Unsafe`` for anything else, ``HostError`` if it is not there.

    ``exclusive`` raises ``Busy``, naming the user, for a device that is mounted or part of something (``O_EXCL``).
    """
    real = host.devices.real(path)
    flags = os.O_NOFOLLOW | (os.O_RDWR if write else os.O_RDONLY) | (os.O_EXCL if exclusive else 0)
    try:
        fd = host.devices.open(real, flags)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise errors.HostError(f"the device '{path}' does not exist") from None
        if error.errno == errno.EBUSY:
            raise errors.Busy(f"'{path}' is in use{_by(users(host, host.devices.number(real)))}") from None
        raise errors.from_os_error(error, f"open '{path}'") from error
    except errors.Unsafe as error:
        raise errors.Unsafe(f"'{path}' is not a block device") from error
    try:
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
    said = host.devices
    base = f"/sys/dev/block/{device}"
    for holder in said.names(f"{base}/holders"):
        found.append(f"part of '{said.value(f'/sys/class/block/{holder}/dm/name') or holder}'")
    for part in said.names(base):
        inner = said.value(f"{base}/{part}/dev") if said.there(f"{base}/{part}/partition") else ""
        found += [f"its partition '{part}' is {words}" for words in users(host, inner)] if inner else []
    swap = f"/dev/{os.path.basename(said.real(base))} "
    found += ["swap space"] * any(line.startswith(swap) for line in said.text("/proc/swaps").splitlines())
    return found + (_processes(said, device) if processes else [])


def _processes(said: Devices, device: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, said.names("/proc")):
        if any(said.number(f"/proc/{pid}/fd/{fd}") == device for fd in said.names(f"/proc/{pid}/fd")):
            found.append(f"open in process {pid} ({said.value(f'/proc/{pid}/comm')})")
    return found


def _by(words: list[str]) -> str:
    return f": {errors.some(words)}" if words else ""


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
            size = space.check_range(info.name, transfer, copying.size_of(fd))
            self.host.step(label)
            copying.upload(self.host, fd, stream, transfer, size)
            self.host.files.fault(f"fsync {info.name}")
            os.fsync(fd)
        return self.look(info.name, info)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the bytes of the device, as they are, to ``stream``."""
        with self.open_volume(info) as fd:
            inuse.check_copy(self.host, fd, "raw", f"volume '{info.name}'")
            return copying.download(
                self.host, fd, stream, transfer, space.check_range(info.name, transfer, copying.size_of(fd))
            )

    def fill(self, target: int, source: Source, *, blank: bool = False, secret: bytes | None = None) -> None:
        """Copy the content of ``source`` onto the open device ``target``, as raw bytes; images are converted.

        ``blank`` says that the device reads as zeros now. ``SourceChanged`` if the source was changed meanwhile, ``Unsafe``
        for an image that needs another file, ``InvalidArgument`` for a device that is too small.
        """
        filling.fill(self.host, target, source, blank=blank, secret=secret)
