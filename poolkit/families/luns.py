"""Logical units as volumes: the LUNs of a SCSI host, an iSCSI session, or whatever makes disks appear on this host.

What a pool type writes: ``luns()``, its units now, from sysfs alone (:mod:`poolkit.families.scsibus`), and the pool's own verbs.
The rest is here:

* **Names** are libvirt's, ``unit:CHANNEL:TARGET:LUN``. **Keys** are WWIDs (:mod:`poolkit.families.wwid`), which are the same in
  every pool that sees the unit, whatever path leads to it; a unit without one has its path. **Paths** are udev's links in the
  pool's target directory, which are waited for.
* **A unit is what its WWID says.** It is asked anew, by INQUIRY, each time a volume is listed or opened: if a target has put
  another unit in the place of the one that was listed, ``look`` and ``identify`` raise ``Unsafe`` with both WWIDs. A unit that
  the target has no more is not listed, although the kernel keeps its device.
* **What a unit holds** is shown in ``detail["holds"]``; a unit has no format, as in libvirt, and nothing is
  decided by it.
* **Writing** needs a unit that the host does not use: mounted, swap, part of a volume group or multipath map are ``Busy``; what
  is read-only or reserved by another host says so.
* **What may hang.** Every command to a unit may wait for a target that does not answer. A class takes ``may_hang = MAY_HANG``,
  so that all that sends one is done in a child; ``answers`` looks at sysfs alone: units that are blocked or offline, or that
  complete no request for some seconds, do not answer.

Luns are made and removed on the target: ``create``, ``delete`` and ``resize`` say by whom (:attr:`LunVolumes.provider`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import Source, Usage, VolumeInfo
from poolkit.families import scsibus, wwid
from poolkit.families.blockdevice import BlockBackend
from poolkit.families.scsibus import Lun
from poolkit.host import kernel, mounts, sgio
from poolkit.host.descriptors import blank, read_at

MAY_HANG = ("start", "stop", "volumes", "usage", "look", "wipe", "upload", "download", "overwrite", "open_volume")
"""The methods that send commands to units, or make the kernel do so."""

HEAD = 68 << 10
"""Bytes of a unit that are looked at: all signatures but VMFS' are in them."""
BY_PATH = "/dev/disk/by-path"
_RESERVED = "another host has reserved it"
_LINKS = 30.0  # seconds that udev has to make its links, unless it says before that it has done all it will
_UDEV = "/run/udev"
_CONTENT_LINKS = (
    "lvm-pv-uuid-",
    "md-uuid-",
    "md-name-",
    "dm-uuid-",
    "dm-name-",
)  # they change with what the unit holds


class _Head:
    """The first bytes of a unit, as something that formats can be recognised in."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread(self, length: int, offset: int) -> bytes:
        return self._data[offset : offset + length]


class LunVolumes(BlockBackend):
    """Everything about volumes that are logical units."""

    provider: ClassVar[str] = "the storage behind the host adapter"
    """Who makes, grows and removes units, as the subject of a sentence."""

    def luns(self) -> Sequence[Lun]:
        """The pool's units now, in order, without sending any of them a command."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """The directory in which the volumes' paths are."""
        path: str = os.path.normpath(self.pool.target.path)
        return path

    def check_place(self) -> None:
        """``InvalidArgument`` for a target path that cannot have links to devices, as libvirt refuses it."""
        if self.place != "/dev" and not self.place.startswith("/dev/"):
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': no paths of devices are in '{self.place}'", pool=self.pool.name,
                hint="use /dev/disk/by-path, /dev/disk/by-id or another directory below /dev as the target path",
            )  # fmt: skip

    # -- facts --------------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """Every unit that answers to its address; one that became another unit since ``known`` is warned of."""
        luns = self.luns()
        paths = self._paths(luns)
        for count, lun in enumerate(luns):
            self.host.progress(count, len(luns), lun.name)  # a sign of life: silence means that one unit hangs
            info = self._info(lun, paths.get(lun.number))
            if info is None:
                continue
            old = known.get(lun.name)
            if old is not None and self.identity(old) != self.identity(info):
                self.host.warn(f"pool '{self.pool.name}': {swapped(info.name, old.key, info.key)}")
            yield old if old == info and old is not None else info  # the same object: nothing to be stored

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One unit as it is now; ``Unsafe``, with both WWIDs, if it is another one than ``known``."""
        for lun in self.luns():
            if lun.name != name:
                continue
            info = self._info(lun, self._paths([lun]).get(lun.number))
            if info is not None:
                if known is not None and self.identity(known) != self.identity(info):
                    raise self._another(info.name, known.key, info.key)
                return info
        raise self.missing(name)

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The sum of the units; as in libvirt all of it counts as allocated."""
        total = sum(volume.capacity for volume in volumes)
        return Usage(total, total, 0)

    def source(self, info: VolumeInfo) -> Source:
        """The unit as raw bytes, whatever it holds."""
        return super().source(info._replace(format="raw"))

    def _info(self, lun: Lun, link: str | None) -> VolumeInfo | None:
        """What is to be said of a unit; None if the target has it no more."""
        detail: dict[str, Any] = {}
        path = link or lun.node
        if link is None:
            detail["warning"] = f"it has no link in '{self.place}': its path may change with the next restart"
        name = lun.wwid
        held: tuple[str, ...] = ()
        if lun.state != "running":
            detail["error"] = f"the kernel has it as {lun.state or 'gone'}"
        else:
            try:
                with _opened(lun) as fd:
                    live = self.ask(fd, lun)
                    name = lun.wwid if live is None else live
                    if lun.size:
                        try:
                            _uncached(fd, HEAD)
                            held = recognised(read_at(fd, min(HEAD, lun.size), 0))
                        except OSError as error:
                            taken = _conflict(error, fd)
                            detail["error"] = f"it cannot be read: {_RESERVED if taken else error.strerror or error}"
            except FileNotFoundError:
                return None
            except PermissionError:
                detail["warning"] = "this user may not open it, so nothing is known of its content"
            except OSError as error:
                detail["error"] = f"it does not answer: {error.strerror or error}"
        if held:
            detail["holds"] = list(held)
        if lun.read_only:
            detail["read_only"] = True
        mode, owner, group = _permissions(lun.node)
        return VolumeInfo(
            lun.name, "block", "", lun.size, lun.size, lun.size, mode=mode, owner=owner, group=group,
            key=name or path, path=path, detail=detail or None,
        )  # fmt: skip

    def _paths(self, luns: Sequence[Lun]) -> dict[str, str]:
        """For each unit, by its number, its path in the target directory; those without one are left out."""
        if self.place == "/dev":
            return {lun.number: lun.node for lun in luns}
        self.check_place()
        found: dict[str, str] = {}

        def complete() -> bool:
            found.update(_links(self.place, luns))
            return all(lun.number in found or _settled(lun) for lun in luns)

        self.host.wait_for(complete, _LINKS)
        found.update(_links(self.place, luns))  # what was made between the look at the links and that at udev
        return found

    def ask(self, fd: int, lun: Lun) -> str | None:
        """The WWID of the open unit by its own word, as :func:`live_wwid`."""
        return live_wwid(fd, lun)

    # -- identity -----------------------------------------------------------------------------------------------------

    def identify(self, info: VolumeInfo, fd: int) -> None:
        """The open device must have the WWID that was listed, by its own word."""
        number = mounts.number(os.fstat(fd).st_rdev)
        lun = next((lun for lun in self.luns() if lun.number == number), None)
        if lun is None or lun.name != info.name:
            raise self.replaced(f"'{info.path}'", info.name)
        try:
            live = self.ask(fd, lun)
        except FileNotFoundError:
            raise self.missing(info.name) from None
        now = (lun.wwid if live is None else live) or info.path
        if now != info.key:
            raise self._another(info.name, info.key, now)

    def _another(self, name: str, old: str | None, new: str | None) -> errors.Unsafe:
        return errors.Unsafe(
            f"pool '{self.pool.name}': {swapped(name, old, new)}; it was left alone", pool=self.pool.name, volume=name,
            hint=errors.Hint("if that is right, list it anew: ", errors.remedy("refresh", self.pool.name)),
        )  # fmt: skip

    @contextlib.contextmanager
    def _open(self, info: VolumeInfo, write: bool, force: bool) -> Iterator[int]:
        """As its base; says what SCSI has to say of a unit that cannot be written."""
        if write and self._read_only(info):
            raise errors.Unsafe(
                f"pool '{self.pool.name}': volume '{info.name}' is read-only, as its target has it", pool=self.pool.name,
                volume=info.name, hint=f"{self.provider} decides that",
            )  # fmt: skip
        try:
            with super()._open(info, write, force) as fd:
                _uncached(fd)
                try:
                    yield fd
                except OSError as error:
                    if _conflict(error, fd):
                        raise errors.Busy(
                            f"pool '{self.pool.name}': volume '{info.name}' is reserved by another host", volume=info.name,
                            hint=f"who holds it: sg_persist --in --read-full-status {info.path}",
                        ) from error  # fmt: skip
                    raise
        except errors.PoolkitError as error:
            if error.pool is None:
                error.pool, error.volume = self.pool.name, info.name
            raise

    def _read_only(self, info: VolumeInfo) -> bool:
        return any(lun.name == info.name and lun.read_only for lun in self.luns())

    def overwrite(self, info: VolumeInfo, source: Source, *, force: bool = False) -> VolumeInfo:
        """Copy the content of ``source`` onto the unit, images as what they hold; the rest of the unit becomes zeros."""
        label = f"copy {source} to {info.path}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self.open_volume(info, write=True, force=force) as fd:
            self.host.step(label)
            self.fill(fd, source)
        return self.look(info.name, info)

    # -- what may hang ------------------------------------------------------------------------------------------------

    def answers(self) -> bool:
        """Whether the units do what they are asked for, by what sysfs shows of them within some seconds."""
        from poolkit.host import worker

        until = time.monotonic() + worker.DEADLINE
        first = {lun.number: scsibus.busy(self.host, lun) for lun in self.luns()}
        while any(
            self.stuck(lun, first.get(lun.number, (0, 0)))
            for lun in self.luns()
            if self.working_on in (None, lun.name)
        ):  # fmt: skip
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def stuck(self, lun: Lun, before: tuple[int, int]) -> bool:
        """Whether a unit has done nothing since ``before`` (``scsibus.busy``) although it was asked for something."""
        if lun.state in ("blocked", "quiesce", "created-blocked"):
            return True  # its transport may come back, and all requests wait for that
        waiting, done = scsibus.busy(self.host, lun)
        return waiting > 0 and before[0] > 0 and done == before[1]

    # -- words --------------------------------------------------------------------------------------------------------

    def unsupported(self, method: str, verb: str | None = None) -> errors.Unsupported:
        """As its base; says who can."""
        return made_elsewhere(super().unsupported(method, verb), method, self.provider)


def made_elsewhere(error: errors.Unsupported, method: str, provider: str) -> errors.Unsupported:
    """The error for a verb that ``provider`` alone can do, with that as its hint."""
    if method in ("create", "clone", "delete", "resize"):
        done = {"create": "made", "clone": "made", "delete": "removed", "resize": "resized"}[method]
        error.hint = f"logical units are {done} by {provider}; afterwards: refresh the pool"
    return error


def live_wwid(fd: int, lun: Lun) -> str | None:
    """The WWID of the open unit by its own word; None if it does not speak SCSI. Sends commands; raises ``OSError``.

    ``FileNotFoundError`` when the target has no unit there any more.
    """
    page = sgio.inquiry(fd, 0x83)
    if page is None:
        return None
    if name := wwid.of_pages(page, b"", *lun.maker):
        return name
    return wwid.of_pages(b"", sgio.inquiry(fd, 0x80) or b"", *lun.maker)


@contextlib.contextmanager
def _opened(lun: Lun) -> Iterator[int]:
    """The unit's device for reading; it is its own, whatever has its name meanwhile. Raises ``OSError``."""
    fd = os.open(lun.node, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISBLK(facts.st_mode) or mounts.number(facts.st_rdev) != lun.number:
            raise FileNotFoundError(errno.ENOENT, "the device has another name now")
        yield fd
    finally:
        os.close(fd)


def _uncached(fd: int, length: int = 0) -> None:
    """Let what is read next come from the unit: other hosts write to it as well, and may keep this one from reading it.

    The kernel keeps what was read for as long as anybody has the device open. What is not written back yet stays.
    """
    os.posix_fadvise(fd, 0, length, os.POSIX_FADV_DONTNEED)


def recognised(head: bytes) -> tuple[str, ...]:
    """All that is known of in the first ``HEAD`` bytes of a unit: partition tables, file systems, members of groups ..."""
    from poolkit.formats import content

    return tuple(content(_Head(head))) if not blank(head) else ()


def _links(place: str, luns: Sequence[Lun]) -> dict[str, str]:
    """The links in ``place`` that lead to the units, by number; of several the one with the WWID, else the first by name."""
    wanted = {os.path.basename(lun.node): lun for lun in luns}
    found: dict[str, tuple[Any, str]] = {}
    for entry in kernel.names(place):
        path = f"{place}/{entry}"
        target = kernel.link(path)
        lun = wanted.get(os.path.basename(target) if target else "")
        if lun is None or os.path.realpath(path) != lun.node:
            continue
        rank = (entry.startswith(_CONTENT_LINKS), not lun.wwid or not entry.endswith(lun.wwid), entry)
        if lun.number not in found or rank < found[lun.number][0]:
            found[lun.number] = (rank, path)
    return {number: path for number, (_, path) in found.items()}


def _settled(lun: Lun) -> bool:
    """Whether udev has done what it does for a new unit, or does not run: then no link will come."""
    if not os.path.exists(f"{_UDEV}/control"):
        return True
    return os.path.exists(f"{_UDEV}/data/b{lun.number}") and not os.path.exists(f"{_UDEV}/queue")


def _permissions(node: str) -> tuple[int, int, int]:
    with contextlib.suppress(OSError):
        facts = os.stat(node)
        return stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid
    return 0o600, 0, 0


def swapped(name: str, old: str | None, new: str | None) -> str:
    """What there is to be said of a volume that is another unit than before, by the keys of the two."""
    return f"volume '{name}' is another logical unit than the one that was listed: its WWID is {new}, and was {old}"


def _conflict(error: OSError, fd: int) -> bool:
    """Whether a reservation is why the open unit could not be used: what is cached tells it as any other error."""
    if error.errno == errno.EBADE:  # what the kernel makes of the status RESERVATION CONFLICT
        return True
    with contextlib.suppress(OSError):
        return error.errno == errno.EIO and sgio.reserved(fd)
    return False
