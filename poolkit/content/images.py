"""Images that are more than bytes: what may be made of them, and the calls of qemu-img that make it.

No header is trusted. Before qemu-img sees an image, our own reader has read its header as the recorded format, and what
points outside of it (data files, extents, parents known by identity) is refused. qemu-img is given descriptors that are open
already, every format and the whole chain of backing images by name, so that nothing in the image decides what is opened.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.content.recipes import BYTES, OVERLAYS
from poolkit.formats import FdReader, as_format, check, qemu_driver
from poolkit.host.descriptors import read_at, write_at
from poolkit.lean import TYPE_CHECKING, pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from poolkit.backend import VolumeInfo
    from poolkit.content.recipes import Recipe
    from poolkit.formats import ImageInfo
    from poolkit.host.port import Host
    from poolkit.model import Encryption

NAMING = frozenset(("qcow2", "vmdk"))
"""Formats whose header can name files that a node cannot rule out: a qcow2's data file, the extents of a VMDK."""

UNLOCKING: int | None = None
"""Milliseconds of a processor that trying one passphrase of a new image is to take; None is qemu-img's own choice, two seconds.

The longer, the longer takes who tries many. Tests that are not about that make it short.
"""

RESIZABLE = frozenset(("raw", "qcow2", "qed", "luks"))
_SECRET = "key0"  # noqa: S105 - the name of an object of qemu-img, not a secret
# qemu-img measures the processor to make LUKS slow to guess. Where the kernel counts processor time in ticks
# (CONFIG_TICK_CPU_ACCOUNTING), up to four of ten runs of 7.2 end with "Unable to get accurate CPU usage".
_ATTEMPTS = 30
_FLOOR = (5, 1)  # -o extent_size_hint and compression types
_WORD = pattern(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_VERSION = pattern(r"version (\d+)\.(\d+)(?:\.(\d+))?")
# CVE-2024-4467, by the announcements of QEMU 7.2.13, 8.2.6 and 9.0.2 (qemu-devel, 16 and 17 July 2024), and Debian 12's first
# package with the fix by its changelog, 1:7.2+dfsg-7+deb12u7, which kept the number 7.2 of its upstream source.
_FIXED = {(7, 2): 13, (8, 2): 6, (9, 0): 2}
_FIXED_SINCE = (9, 1)
_DEBIAN = pattern(r"\(Debian 1:7\.2\+dfsg-7\+deb12u(\d+)")
_DEBIAN_FIXED = 7


# -- looking before acting ------------------------------------------------------------------------------------------


class _Watched(FdReader):
    """A reader of tables, of which there may be many: it stops on abort."""

    __slots__ = ("host",)

    def __init__(self, host: Host, fd: int, size: int) -> None:
        super().__init__(fd, size)
        self.host = host

    def pread(self, length: int, offset: int) -> bytes:
        self.host.check_abort()
        return super().pread(length, offset)


def check_whole(host: Host, fd: int, size: int, info: ImageInfo, what: str) -> str | None:
    """What is wrong with an open image whose header ``info`` tells, by all its tables; a warning where those are too many."""
    before = len(info.notes)
    problem = check(_Watched(host, fd, size), info)
    for note in info.notes[before:]:
        host.warn(f"{what}: {note}")
    return problem


def examine(host: Host, fd: int, size: int, format: str, what: str, *, backing: bool = True) -> ImageInfo:
    """The header of an open image, read as ``format``; ``Unsafe`` with the reason for one that must not be worked on.

    That is one that is damaged or was cut short, needs features unknown here, or keeps data in other files. ``backing``
    False refuses a backing image as well.
    """
    info = as_format(FdReader(fd, size), format)
    if format in BYTES:
        return info
    outside = [extent.file for extent in info.extents if extent.file is not None]
    why = ""
    if info.error is not None:
        why = info.error
    elif info.unsupported:
        why = "it needs features that poolkit does not know"
    elif info.data_file is not None:
        why = f"its data is in another file, '{info.data_file[:200]}'"
    elif outside:
        why = f"it is a description of other files, such as '{str(outside[0])[:200]}'"
    elif info.subtype == "descriptor":
        why = "it is a description of other files"
    elif info.backing is not None and info.backing.kind == "uuid":
        why = "its parent is known by identity only"
    elif info.backing is not None and not backing:
        why = f"it stands on a backing image, '{info.backing.name[:200]}'"
    else:
        why = check_whole(host, fd, size, info, what) or ""
    if why:
        raise errors.Unsafe(f"{what} is not used as {format}: {why}")
    return info


def check_path(path: str, what: str) -> None:
    """``Unsafe`` for a path that depends on where somebody stands."""
    if not path.startswith("/"):
        raise errors.Unsafe(
            f"{what} '{path[:200]}' is not an absolute path", hint="name the whole path, beginning with '/'"
        )


@contextmanager
def opened(path: str, what: str) -> Iterator[int]:
    """A read-only descriptor of an absolute path that is a regular file or block device, not a link; ``Unsafe`` else."""
    check_path(path, what)
    if path.startswith("/dev/"):
        path = os.path.realpath(path)  # device names are links that udev makes
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        import errno

        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise errors.Unsafe(f"{what} '{path[:200]}' is a link or socket; it was not opened") from error
        raise errors.from_os_error(error, f"open {what} '{path[:200]}'") from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise errors.Unsafe(f"{what} '{path[:200]}' is neither a file nor a block device")
        yield fd
    finally:
        os.close(fd)


def resolve(name: bytes, overlay: str) -> str:
    """The path that a backing name in the image ``overlay`` means: relative ones start at the folder of the image.

    ``Unsafe`` for one that goes up from a symbolic link: QEMU would come out elsewhere than the words say.
    """
    path = os.path.join(os.path.dirname(overlay), os.fsdecode(name))
    here: list[str] = []
    for part in path.split("/"):
        if part == ".." and here:
            if b"\0" not in name and os.path.islink("/" + "/".join(here)):
                raise errors.Unsafe(
                    f"the backing image '{path[:200]}' goes up from a symbolic link; it was not followed",
                    hint="name it by the path it really has",
                )
            here.pop()
        elif part not in ("", ".", ".."):
            here.append(part)
    return os.path.normpath(path)


# -- making, converting, resizing -------------------------------------------------------------------------------------


def create(host: Host, fd: int, name: str, wanted: Recipe) -> None:
    """Make an empty image in the open empty file ``fd``; ``name`` is what the volume will be called."""
    argv, secret = _target(host, "create", "-f", wanted)
    if wanted.backing is not None:
        # -u: the backing image was checked by us; qemu-img need not open it.
        path, format = wanted.backing
        argv += ["-u", "-b", path, "-F", _driver(format)]
    with _of_age(host, wanted):
        _run(host, [*argv, "--", _file(fd), str(wanted.capacity)], (fd,), secret, wanted.capacity)
    finish(fd, name, wanted.format)


def convert(
    host: Host, nodes: dict[str, Any], fds: Sequence[int], format: str, key: bytes | None, fd: int, name: str,
    wanted: Recipe, expected: int,
) -> None:  # fmt: skip
    """Write the content of the image that ``nodes`` describes (see :func:`node`) as a new image into ``fd``.

    ``key`` opens the source. ``expected`` is how many bytes the result may have, for the progress.
    """
    import json

    check_reader(host)
    argv, secret = _target(host, "convert", "-O", wanted, source=key)
    # One thread less than qemu-img's sixteen would need for an address space of 1 GiB; order does not matter to us.
    argv[2:2] = ["-W", "-m", "4", "-f", _driver(format)]
    source = "json:" + json.dumps(nodes, ensure_ascii=True)

    def poll() -> None:
        host.progress(min(os.fstat(fd).st_blocks * 512, expected), expected, "convert")

    with _of_age(host, wanted):
        _run(host, [*argv, "--", source, _file(fd)], (fd, *fds), secret, wanted.capacity, poll=poll, source=key)
    finish(fd, name, wanted.format)
    host.progress(expected, expected, "convert")


def resize(
    host: Host, nodes: dict[str, Any], fds: Sequence[int], format: str, capacity: int, *, shrink: bool, allocate: bool,
    key: bytes | None = None,
) -> None:  # fmt: skip
    """Set the capacity of the image that ``nodes`` describes (see :func:`node`), whose descriptors are ``fds``.

    The caller has asked :func:`check_resize`. An image that grows needs its chain in ``nodes``: where the one below is
    longer, the new end is made to read as zeros.
    """
    import json

    check_reader(host)
    argv = ["qemu-img", "resize", "-q", "-f", _driver(format)]
    if shrink:
        argv.append("--shrink")
    if allocate:
        argv.append("--preallocation=falloc")
    image = "json:" + json.dumps(nodes, ensure_ascii=True)
    host.files.fault("resize an image")
    _run(host, [*argv, "--", image, str(-(-capacity // 512) * 512)], fds, None, capacity, source=key)


def check_resize(host: Host, fd: int, format: str, capacity: int, *, shrink: bool) -> ImageInfo:
    """The header of an open image; ``Unsupported`` or ``Unsafe`` for one that cannot be given that capacity, with the reason."""
    if format not in RESIZABLE:
        raise errors.Unsupported(
            f"images of format {format} cannot be resized",
            hint="clone the volume to qcow2 or raw with a larger capacity",
        )
    info = examine(host, fd, os.fstat(fd).st_size, format, "the image")
    if format == "qed" and info.capacity is not None and capacity < info.capacity:
        raise errors.Unsupported("images of format qed cannot be made smaller")
    if format == "qcow2" and info.snapshots and (info.compat != "1.1" or shrink):
        raise errors.Unsupported(
            "a qcow2 image with internal snapshots cannot be resized so",
            hint="delete the snapshots first, with: qemu-img snapshot -d; a clone of it would have them, too",
        )
    return info


def pinned(fd: int, format: str) -> bool:
    """Whether a tool that opens the image opens nothing else, even if its header is another by then.

    So it is where the tool is confined, for formats that cannot name other files, and where nobody else can write the image.
    """
    from poolkit.host import confine

    if format not in NAMING or confine.abi():
        return True
    facts = os.fstat(fd)
    return facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o022  # the mask of an ACL shows as the group's


def node(fd: int, format: str, *, backing: Any = None, encryption: str | None = None) -> dict[str, Any]:
    """An open image as a block node of QEMU: descriptor, format and backing are all said, so nothing is looked up."""
    block = stat.S_ISBLK(os.fstat(fd).st_mode)
    answer: dict[str, Any] = {
        "driver": _driver(format),
        "file": {"driver": "host_device" if block else "file", "filename": _file(fd)},
    }
    if format in OVERLAYS:
        answer["backing"] = backing
    if format == "luks":
        answer["key-secret"] = _SECRET
    elif encryption is not None and format == "qcow2":
        answer["encrypt"] = {"format": "luks", "key-secret": _SECRET}
    return answer


def finish(fd: int, name: str, format: str) -> None:
    """Give a VMDK the name of its only extent: qemu-img wrote that of the descriptor it was given."""
    if format != "vmdk":
        return
    # VMware's Virtual Disk Format 5.0: the descriptor's first sector and its sectors are at 28 and 36, little-endian.
    head = read_at(fd, 512, 0)
    start, length = (int.from_bytes(head[at : at + 8], "little") * 512 for at in (28, 36))
    if not 0 < length <= 1 << 16:
        return
    text = read_at(fd, length, start).rstrip(b"\0")
    quoted = name.replace("\\", "_").replace('"', "_").encode()
    import re

    text = re.sub(rb'(?m)^(RW \d+ SPARSE )"[^"]*"', lambda m: m[1] + b'"' + quoted + b'"', text)
    if len(text) <= length:
        write_at(fd, text.ljust(length, b"\0"), start)


_GET_FLAGS, _SET_FLAGS, _NOCOW = 0x80086601, 0x40086602, 0x00800000  # linux/fs.h: FS_IOC_GETFLAGS, FS_NOCOW_FL ...


def no_cow(fd: int, off: bool = True) -> bool:
    """Turn copy-on-write off (or on) for an empty file or new files of a directory; whether the file system took it.

    Only btrfs and the like do; others have none to turn off, or cannot.
    """
    import fcntl

    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8)), "little")
        wanted = flags | _NOCOW if off else flags & ~_NOCOW
        if wanted != flags:
            fcntl.ioctl(fd, _SET_FLAGS, wanted.to_bytes(8, "little"))
        return bool(int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8)), "little") & _NOCOW) is off
    except OSError:
        return False


def keep_no_cow(old: int, new: int) -> None:
    """Turn copy-on-write off for the empty file ``new`` if it is off for ``old``."""
    import fcntl

    with suppress(OSError):
        if int.from_bytes(fcntl.ioctl(old, _GET_FLAGS, bytes(8)), "little") & _NOCOW:
            no_cow(new)


def check_version(host: Host, floor: tuple[int, int] = _FLOOR, what: str = "poolkit") -> None:
    """``Unsupported`` for a qemu-img older than ``floor``, which ``what`` needs."""
    match = _VERSION.search(_told(host))
    if match is not None and (int(match[1]), int(match[2])) < floor:
        raise errors.Unsupported(
            f"{what} needs qemu-img {floor[0]}.{floor[1]} or later; here is {match[1]}.{match[2]}",
            hint="upgrade qemu-utils",
        )


def reads_safely(told: str) -> bool:
    """Whether a qemu-img that says ``told`` of itself (``--version``) is known to have the end of CVE-2024-4467."""
    match = _VERSION.search(told)
    if match is None:
        return False
    version, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
    package = _DEBIAN.search(told)
    return (
        version >= _FIXED_SINCE
        or (version in _FIXED and patch >= _FIXED[version])
        or (package is not None and int(package[1]) >= _DEBIAN_FIXED)
    )


def check_reader(host: Host) -> None:
    """``Unsupported`` for a qemu-img that opens what an image's header names (CVE-2024-4467), even if told otherwise.

    Only images that exist already are dangerous; making an empty one is not.
    """
    told = _told(host)
    if reads_safely(told):
        return
    here = told.partition("\n")[0].removeprefix("qemu-img version ")[:80] or "unknown"
    raise errors.Unsupported(
        f"this qemu-img ({here}) may open files that an image names (CVE-2024-4467), so it is given no existing image",
        hint="upgrade qemu-utils: 7.2.13, 8.2.6, 9.0.2 and 9.1 are safe, and so is Debian 12's since deb12u7",
    )


def _told(host: Host) -> str:
    return host.version("qemu-img")


@contextmanager
def _of_age(host: Host, wanted: Recipe) -> Iterator[None]:
    """Make an image in the body. If that fails, a qemu-img that is too old for it is named as the reason."""
    try:
        yield
    except errors.ToolFailed:
        check_version(host)
        if "extended_l2" in wanted.features:
            check_version(host, (5, 2), "the feature extended_l2")
        raise


def _target(
    host: Host, verb: str, flag: str, wanted: Recipe, source: bytes | None = None
) -> tuple[list[str], bytes | None]:
    """The first words of a call that makes an image, with its options, and the passphrase it needs."""
    options: list[str] = []
    fmt = wanted.format
    if wanted.compat is not None:
        options.append(f"compat={wanted.compat}")
    if wanted.cluster_size is not None:
        options.append(f"cluster_size={wanted.cluster_size}")
    if "lazy_refcounts" in wanted.features:
        options.append("lazy_refcounts=on")
    if "extended_l2" in wanted.features:
        options.append("extended_l2=on")
    if fmt == "vpc":
        options.append("force_size=on")  # else the size is rounded up to whole cylinders
    if wanted.preallocation != "off":
        own = {"vpc": "subformat=fixed", "vhdx": "subformat=fixed", "vdi": "static=on"}
        options.append(own.get(fmt, f"preallocation={wanted.preallocation}"))
    if wanted.secret is not None and wanted.encryption is not None:
        prefix = "encrypt." if fmt == "qcow2" else ""
        if prefix:
            options.append("encrypt.format=luks")
        options.append(f"{prefix}key-secret=key1")
        if UNLOCKING is not None:
            options.append(f"{prefix}iter-time={UNLOCKING}")
        options += [f"{prefix}{o}" for o in _cipher(wanted.encryption)]
    # The default hint of XFS, 1 MiB, allocates ten times the data of a fragmented image.
    options.append("extent_size_hint=0")
    words = ["qemu-img", verb, "-q", flag, _driver(fmt), "-o", ",".join(options)]
    return words, wanted.secret


def _cipher(encryption: Encryption) -> list[str]:
    cipher, ivgen = encryption.cipher, encryption.ivgen
    found: list[tuple[str, str | None]] = []
    if cipher is not None:
        found = [
            ("cipher-alg", f"{cipher.name}-{cipher.size}"), ("cipher-mode", cipher.mode), ("hash-alg", cipher.hash)
        ]  # fmt: skip
    if ivgen is not None:
        found += [("ivgen-alg", ivgen.name), ("ivgen-hash-alg", ivgen.hash)]
    for key, value in found:
        if value is not None and not _WORD.match(value):
            raise errors.InvalidArgument(f"encryption: '{value[:60]}' is not a name for {key}")
    return [f"{key}={value}" for key, value in found if value is not None]


def _run(
    host: Host, argv: list[str], fds: Sequence[int], secret: bytes | None, capacity: int, *,
    poll: Any = None, source: bytes | None = None,
) -> None:  # fmt: skip
    from contextlib import ExitStack

    with ExitStack() as stack:
        passed = list(fds)
        objects: list[str] = []
        for ident, value in (("key1", secret), (_SECRET, source)):
            if value is not None:
                path, number = stack.enter_context(host.secret_file(value))
                passed.append(number)
                objects += ["--object", f"secret,id={ident},file={path}"]
        argv[2:2] = objects
        # Room for all tables of an image with small clusters, and for the 128 MiB that the parallels driver takes at a
        # time; what grows beyond that is not what was asked for.
        room = capacity + capacity // 8 + (256 << 20)
        limits = {"fsize": min(room, (1 << 63) - 1), "cpu": 600 + capacity // (4 << 20)}
        for attempt in range(_ATTEMPTS):
            try:
                host.change(
                    argv, untrusted=True, pass_fds=passed, poll=poll, limits=limits, timeout=600 + capacity / (1 << 20)
                )  # fmt: skip
                return
            except errors.ToolFailed as error:
                if "No space left on device" in error.stderr or "Disk quota exceeded" in error.stderr:
                    raise errors.NoSpace(error.message) from error
                if "accurate CPU usage" not in error.stderr or attempt == _ATTEMPTS - 1:
                    raise


def _driver(format: str) -> str:
    driver = "raw" if format in BYTES else qemu_driver(format)
    if driver is None:
        raise errors.Unsupported(f"qemu-img cannot read the format '{format}'")
    return driver


def _file(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def secret_of(host: Host, info: VolumeInfo, path: str) -> bytes:
    """The secret of an encrypted image: the one whose usage is the volume's path; ``SecretNotFound`` says how to name another."""
    try:
        return host.secret("volume", usage=path)
    except errors.SecretNotFound as error:
        raise errors.SecretNotFound(
            f"volume '{info.name}' is encrypted, and no secret has its path as usage", volume=info.name,
            hint=errors.Hint(
                f"define one with <usage type='volume'><volume>{path}</volume></usage>, or name it: ",
                errors.Option("secret", ...),
            ),
        ) from error  # fmt: skip
