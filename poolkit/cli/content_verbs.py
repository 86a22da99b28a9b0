"""The verbs for the content of volumes: copies, wiping, bytes in and out, chains and formats."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values, usage_error
from poolkit.cli.lookup import facts, find, permissions, preallocation, volume_format
from poolkit.host.directory import parent_of

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_OPEN_TO_ALL = ("/dev/shm/", "/dev/mqueue/")  # noqa: S108 - where others make files, not where we do


def clone(session: Session, values: Values) -> None:
    """``vol-clone VOL NEWNAME``."""
    from poolkit import xmlmap
    from poolkit.backend import check_volume_name

    if values.flavor is not None and (values.to_pool is not None or values.overwrite):
        raise usage_error("--flavor finds the pool: --to-pool and --overwrite mean nothing with it", "vol-clone")
    source = find(session, values.vol, values.pool)
    pool = session.engine.pool(values.to_pool) if values.to_pool is not None else source.pool
    check_volume_name(values.newname, pool.name)
    if values.overwrite:
        if values.linked or values.reflink or values.format or values.capacity is not None:
            raise usage_error(
                "--overwrite copies content alone: --linked, --reflink, --format and --capacity mean nothing with it"
            )
        there = pool.volume(values.newname)
        session.done(there.overwrite(source), pool.name, volume=facts(pool.volume(values.newname)))
        return
    definition = _clone_of(source, values, pool)
    if values.print_xml:
        session.xml(xmlmap.write(definition))
        return
    how: Any = {
        "linked": values.linked, "reflink": _reflink(values), "secret": values.secret, **preallocation(values)
    }  # fmt: skip
    if values.flavor is None:
        made = pool.create_volume_from(definition, source, **how)
    else:
        made = session.engine.flavors.get(values.flavor).place(
            values.newname, lambda there: there.create_volume_from(_clone_of(source, values, there), source, **how),
            capacity=definition.capacity or 0, allocation=0 if values.linked else source.info.allocation,
            format=volume_format(values.format),
        )  # fmt: skip
        session.note(f"volume '{made.name}' is in pool '{made.pool.name}'")
    session.done(made.outcome, made.pool.name, volume=facts(made))


def _clone_of(source: Volume, values: Values, pool: Pool) -> Any:
    """The document of a clone in a pool."""
    from poolkit import xmlmap
    from poolkit.engine.cloning import definition_for

    definition = definition_for(source, values.newname, pool, linked=values.linked)
    format = volume_format(values.format)
    if format is not None and format != definition.target.format:
        # What belongs to the old format (clusters, compat, encryption) stays behind.
        target = type(definition.target)(format=format, nocow=definition.target.nocow)
        definition = xmlmap.replace(definition, target=target)
    owned = permissions(values, source if values.same_owner else None)
    definition = xmlmap.replace(definition, target=xmlmap.replace(definition.target, permissions=owned))
    if values.capacity is not None:
        if values.capacity < source.info.capacity:
            raise errors.InvalidArgument(
                f"volume '{source.name}' has {source.info.capacity} bytes, and a copy is never smaller: "
                f"{values.capacity} would cut off data",
                pool=source.pool.name, volume=source.name,
                hint="leave --capacity out; the copy can be made smaller by vol-resize --shrink",
            )  # fmt: skip
        definition = xmlmap.replace(definition, capacity=values.capacity)
    return definition


def create_from(session: Session, values: Values) -> None:
    """``vol-create-from POOL FILE VOL``."""
    from poolkit.cli.document_verbs import load

    definition = load(session, values.file, "volume", lenient=values.lenient, validate=values.validate)
    source = find(session, values.vol, values.inputpool, "inputpool")
    pool = session.engine.pool(values.pool)
    made = pool.create_volume_from(
        definition, source, linked=values.linked, reflink=_reflink(values), secret=values.secret,
        **preallocation(values),
    )  # fmt: skip
    session.done(made.outcome, pool.name, volume=facts(made))


def _reflink(values: Values) -> bool | None:
    if values.reflink and values.no_reflink:
        raise usage_error("--reflink and --no-reflink contradict each other")
    return True if values.reflink else False if values.no_reflink else None


def wipe(session: Session, values: Values) -> None:
    """``vol-wipe VOL``."""
    volume = find(session, values.vol, values.pool)
    outcome = volume.wipe(values.algorithm or "zero", force=values.force)
    session.done(outcome, volume.pool.name, volume=facts(volume))


def upload(session: Session, values: Values) -> None:
    """``vol-upload VOL FILE``."""
    volume = find(session, values.vol, values.pool)
    options: dict[str, Any] = {"backing": True} if values.allow_backing else {}
    with _reading(values.file) as stream:
        outcome = volume.upload(
            stream, offset=values.offset or 0, length=values.length or 0, sparse=values.sparse, force=values.force,
            form=values.form, **options,
        )  # fmt: skip
    session.done(outcome, volume.pool.name, volume=facts(volume))


def download(session: Session, values: Values) -> None:
    """``vol-download VOL FILE``."""
    from poolkit.engine.operation import Outcome

    volume = find(session, values.vol, values.pool)
    if session.options.dry_run:
        session.done(Outcome(True, plan=(_foreseen(values, volume),)), volume.pool.name)
        return
    to_output = _descriptor(values.file) == 1
    try:
        with _writing(values.file, volume) as (stream, unfinished, settle):
            count = volume.download(
                stream, offset=values.offset or 0, length=values.length or 0, sparse=values.sparse, form=values.form,
                unfinished=unfinished, settle=settle,
            )  # fmt: skip
    except errors.HostError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise BrokenPipeError(*error.__cause__.args) from error  # the reader has enough, as with every other answer
        raise
    warnings = () if volume.outcome is None else volume.outcome.warnings
    if to_output:  # the bytes are there; nothing else belongs there
        for warning in warnings:
            session.warn(warning)
    else:
        words = f"{output.size(count, False)} of volume '{volume.name}' are in '{errors.shown(values.file, 4096)}'"
        session.done(Outcome(True, words, warnings=warnings), volume.pool.name, bytes=count)


def _foreseen(values: Values, volume: Volume) -> str:
    """What a download would do, as far as it can be known: raises what it would meet at once."""
    count = max(0, volume.info.physical - (values.offset or 0))
    count = min(count, values.length or count)
    if _descriptor(values.file) is None:
        with contextlib.ExitStack() as stack:
            try:
                folder, name = stack.enter_context(parent_of(values.file))
                old = _stat(name, folder)
                free = os.fstatvfs(folder)
            except OSError as error:
                raise errors.from_os_error(error, f"write '{errors.shown(values.file, 4096)}'") from error
            if old is not None:
                _check_other(values.file, old, volume)
                _check_owner(values.file, folder, old)
            room = free.f_bavail * free.f_frsize
            if (old is None or stat.S_ISREG(old.st_mode)) and not values.sparse and count > room:
                raise errors.NoSpace(
                    f"'{errors.shown(values.file, 4096)}' needs {count} bytes, and its file system has {room}"
                )
    return f"write {count} bytes of volume '{volume.name}' to '{errors.shown(values.file, 4096)}'"


def chain(session: Session, values: Values) -> None:
    """``vol-chain VOL``."""
    links = find(session, values.vol, values.pool).chain()
    if links[-1].problem:
        session.code = errors.Unsafe.exit_code
    if session.json:
        session.value([link._asdict() for link in links])
        return
    session.rows(
        ("Depth", "Format", "Capacity", "Pool", "Path"),
        [
            (
                str(number), link.format or "-", "-" if link.capacity is None else output.size(link.capacity, values.bytes),
                link.pool or "-", link.path,
            )
            for number, link in enumerate(links)
        ],
        right=("Depth", "Capacity"),
    )  # fmt: skip
    if links[-1].problem:
        session.warn(f"'{links[-1].path}': {links[-1].problem}")


def adopt(session: Session, values: Values) -> None:
    """``vol-adopt VOL``."""
    volume = find(session, values.vol, values.pool)
    session.done(volume.adopt(volume_format(values.format)), volume.pool.name, volume=facts(volume))


def attach(session: Session, values: Values) -> None:
    """``vol-attach VOL``."""
    volume = find(session, values.vol, values.pool)
    session.done(
        volume.attach(shared=values.shared, node=values.node, vm=values.vm), volume.pool.name, volume=facts(volume)
    )


def detach(session: Session, values: Values) -> None:
    """``vol-detach VOL``."""
    volume = find(session, values.vol, values.pool)
    session.done(
        volume.detach(node=values.node, vm=values.vm, force=values.force), volume.pool.name, volume=facts(volume)
    )


@contextlib.contextmanager
def _reading(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    except OSError as error:
        raise errors.from_os_error(error, f"read '{errors.shown(file, 4096)}'") from error
    with open(fd, "rb", buffering=0) as stream:
        yield stream


_Target = tuple[BinaryIO, str | None, Callable[[], None] | None]


@contextlib.contextmanager
def _writing(file: str, volume: Volume | None = None) -> Iterator[_Target]:
    """Where a download goes: a regular file is replaced when all bytes are there and keeps its content until then.

    With the path that the unfinished file has, or gets for a moment, and what puts it into its place.
    """
    number = _descriptor(file)
    if number == 1:
        yield sys.stdout.buffer, None, None
        sys.stdout.buffer.flush()
        return
    if number is not None:
        # Itself and not what it leads to: that may be a socket, or be written to from its beginning by a second opening.
        try:
            fd = os.dup(number)
        except OSError as error:
            raise errors.from_os_error(error, f"write '{errors.shown(file, 4096)}'") from error
        with open(fd, "wb") as stream:
            _check_other(file, os.fstat(fd), volume)
            yield stream, None, None
        return
    where = os.path.abspath(file)
    if where.startswith(("/dev/", "/proc/")) and not where.startswith(_OPEN_TO_ALL):
        # Nobody else makes links there, and those to open descriptors lead to what has no name.
        with open(_open(file, file, os.O_WRONLY), "wb") as stream:
            _check_other(file, os.fstat(stream.fileno()), volume)
            yield stream, None, None
        return
    with contextlib.ExitStack() as stack:
        try:
            folder, name = stack.enter_context(parent_of(file))
            old = _stat(name, folder)
        except OSError as error:
            raise errors.from_os_error(error, f"write '{errors.shown(file, 4096)}'") from error
        if old is not None:
            _check_other(file, old, volume)
            _check_owner(file, folder, old)
            if not stat.S_ISREG(old.st_mode):
                with open(_open(name, file, os.O_WRONLY | os.O_NOFOLLOW, folder), "wb") as stream:
                    yield stream, None, None
                return
        temporary = f"{name[:80]}.{os.urandom(6).hex()}.part"
        try:
            # A new file is for its owner only: it is a disk. One without a name is gone if this process is killed.
            with open(_unnamed(file, folder) or _open(temporary, file, _NEW, folder), "wb") as stream:
                yield stream, _place(folder, temporary), lambda: _settle(stream, file, folder, (temporary, name), old)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)


def _settle(stream: BinaryIO, file: str, folder: int, names: tuple[str, str], old: os.stat_result | None) -> None:
    """Put a file that is whole into the place of ``old``: the ``names`` are that for a moment, and its own."""
    temporary, name = names
    try:
        stream.flush()
        if old is not None:
            with contextlib.suppress(PermissionError):
                os.fchown(stream.fileno(), old.st_uid, old.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(old.st_mode))
        if os.fstat(stream.fileno()).st_nlink == 0:
            os.link(f"/proc/self/fd/{stream.fileno()}", temporary, dst_dir_fd=folder)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise errors.from_os_error(error, f"write '{errors.shown(file, 4096)}'") from error


def _descriptor(file: str) -> int | None:
    """The number of the open descriptor that a name stands for: ``-``, ``/dev/stdout``, ``/dev/fd/63`` of ``>(...)``."""
    known = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
    folder, _, word = file.rpartition("/")
    if folder in ("/dev/fd", "/proc/self/fd") and word.isascii() and word.isdigit():
        return int(word) if len(word) < 9 else None
    return known.get(file)


def _unnamed(file: str, folder: int) -> int | None:
    """A new file that has no name yet; None where the file system, or a /proc that is missing, does not allow that."""
    if not os.path.exists("/proc/self/fd"):
        return None
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise errors.from_os_error(error, f"write '{errors.shown(file, 4096)}'") from error


def _place(folder: int, name: str) -> str | None:
    """The path of a name in an open folder: a recovery needs it."""
    with contextlib.suppress(OSError):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
    return None


def _stat(name: str, folder: int) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _check_other(file: str, old: os.stat_result, volume: Volume | None) -> None:
    """Refuse to write to the volume itself."""
    # Only what may be the same file is looked at: a volume whose server is dead would not answer.
    if volume is not None and (volume.info.inode in (old.st_ino, 0) or os.path.abspath(file) == volume.path):
        with contextlib.suppress(OSError):
            if os.path.samestat(old, os.stat(volume.path)):
                raise errors.InvalidArgument(f"'{errors.shown(file, 4096)}' is the volume itself")


def _check_owner(file: str, folder: int, old: os.stat_result) -> None:
    """Refuse to replace what somebody else has put where everybody may write."""
    place = os.stat(".", dir_fd=folder)
    if place.st_mode & stat.S_ISVTX and place.st_mode & stat.S_IWOTH and old.st_uid not in (os.geteuid(), place.st_uid):
        # As the kernel has it with fs.protected_regular: its owner could read the disk.
        raise errors.Unsafe(
            f"'{errors.shown(file, 4096)}' belongs to user {old.st_uid}, in a folder where everybody may write; it was left "
            "alone",
            hint="remove it, or write to another place",
        )


def _open(path: str, file: str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        raise errors.from_os_error(error, f"write '{errors.shown(file, 4096)}'") from error
