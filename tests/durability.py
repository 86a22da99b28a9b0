"""A recorder of the system calls that change files: it knows at each moment what a power failure could take back.

The calls are made, and the recorder keeps of each file which bytes, and of each folder which names, are not on the disk yet. From
that it sees when something is named, committed or reported before what it stands on is on the disk:

* a file gets a name while its bytes are not on the disk, or while the inventory's last transaction, which has its format, is not;
* a name is given, taken or moved while an undo step is not on the disk, or the folders above the journal are not;
* the inventory commits, a journal goes or a verb is reported done while a file or a folder is not on the disk;
* a pass of a wipe begins while the last one is not on the disk: the cache would merge the two.

What ends with the machine's boot needs no disk (locks and what the ``run`` folder has; undo steps that are for this boot alone),
and what SQLite writes is its own affair: a transaction is on the disk if it was committed with PRAGMA synchronous=FULL.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poolkit.host import libc
from poolkit.host.undo import Undo

Inode = tuple[int, int]


class Recorder:
    """What is not on the disk yet, below ``place``."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self.bytes: dict[Inode, dict[int, str]] = {}
        """Of each file that was written: the offsets and a word for each."""
        self.names: dict[Inode, dict[str, str]] = {}
        """Of each folder: the names that were made or taken."""
        self.paths: dict[Inode, str] = {}
        self.needed: set[str] = set()
        """Journals with a step that must outlive the machine's boot."""
        self.uncommitted = False
        """The inventory's last transaction is not on the disk."""
        self.passes = False
        """No byte may be written twice without being brought to the disk in between."""
        self.broken: list[str] = []
        self.calls: list[str] = []

    # -- what happened ------------------------------------------------------------------------------------------------

    def _fd(self, fd: int) -> Inode:
        facts = os.fstat(fd)
        inode = (facts.st_dev, facts.st_ino)
        self.paths[inode] = os.readlink(f"/proc/self/fd/{fd}")
        return inode

    def _folder(self, path: str | int, dir_fd: int | None) -> tuple[Inode, str]:
        text = os.fsdecode(path)  # type: ignore[arg-type]
        folder = os.path.dirname(text)
        if not os.path.isabs(text) and dir_fd is not None:
            folder = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), folder).rstrip("/")
        facts = os.stat(folder or ".")
        inode = (facts.st_dev, facts.st_ino)
        self.paths[inode] = folder
        return inode, os.path.basename(text)

    def _counts(self, inode: Inode) -> bool:
        path = self.paths.get(inode, "")
        inside = path.startswith(self.place) or path.startswith(self.place + "/")
        return inside and "/root/run" not in path and "/inventory.sqlite" not in path

    def wrote(self, fd: int, offset: int, word: str) -> None:
        inode = self._fd(fd)
        if not self._counts(inode):
            return
        held = self.bytes.setdefault(inode, {})
        if self.passes and offset in held:
            self.fail(f"a pass over {self.paths[inode]} began before the last one was on the disk")
        held[offset] = word

    def named(self, path: Any, dir_fd: int | None, what: str) -> None:
        inode, name = self._folder(path, dir_fd)
        if not self._counts(inode):
            return
        self._journal_first(f"{what} {name}", inode)
        if what == "made" and name.startswith(".poolkit-"):
            return  # nobody minds if it is not there
        pending = self.names.setdefault(inode, {})
        opposite = {"made": "taken", "taken": "made"}[what]
        if pending.get(name) == opposite and opposite == "made":
            del pending[name]  # made and taken again: there is nothing that could come back
        else:
            pending[name] = what

    def synced(self, fd: int) -> None:
        inode = self._fd(fd)
        self.bytes.pop(inode, None)
        self.names.pop(inode, None)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def fail(self, what: str) -> None:
        self.broken.append(what)

    def _is_journal(self, inode: Inode) -> bool:
        return "/state/journal" in self.paths.get(inode, "")

    def _journal_first(self, change: str, folder: Inode) -> None:
        if self._is_journal(folder) or self.paths[folder].endswith(("/root", "/state")):
            return
        late = [i for i in self.bytes if self._is_journal(i)]
        late += [i for i in self.names if self._is_journal(i) and self.needed & self.names[i].keys()]
        if late:
            late += [i for i in self.names if self.paths[i].endswith(("/root", "/root/state"))]
        for inode in late:
            self.fail(f"{change} before its undo step was on the disk ({self.paths[inode]})")

    def whole(self, fd_or_path: int | str, what: str, dir_fd: int | None = None) -> None:
        """A file gets a name now."""
        facts = os.stat(fd_or_path, dir_fd=dir_fd) if dir_fd is not None else os.stat(fd_or_path)
        inode = (facts.st_dev, facts.st_ino)
        if inode in self.bytes:
            self.fail(f"{what} before its bytes were on the disk: {sorted(set(self.bytes[inode].values()))}")

    def settled(self, when: str) -> None:
        """All that was changed must be on the disk now, but for journals and what waits to be removed."""
        for inode, held in self.bytes.items():
            if not self._is_journal(inode) and self._has_name(inode):
                self.fail(f"{when} before {self.paths[inode]} was on the disk: {sorted(set(held.values()))}")
        for inode, pending in self.names.items():
            if not self._is_journal(inode) and os.path.isdir(self.paths[inode]):
                self.fail(f"{when} before the folder {self.paths[inode]} was on the disk: {pending}")

    def _has_name(self, inode: Inode) -> bool:
        path = self.paths[inode].removesuffix(" (deleted)")
        return os.path.exists(path) and os.stat(path).st_ino == inode[1]

    def done(self, verb: str, *, formats: bool = False) -> None:
        """The verb is reported done; ``formats`` says that it has found out some, which count from now on."""
        if formats and self.uncommitted:
            self.fail(f"'{verb}' was reported done before the formats were on the disk")
        self.settled(f"'{verb}' was reported done")
        for inode, pending in self.names.items():
            if self._is_journal(inode) and "taken" in pending.values():
                self.fail(f"'{verb}' was reported done before its journal was gone for good")
        assert self.broken == [], "\n".join([f"{verb}:", *self.broken, "", "calls:", *self.calls[-60:]])
        self.clear()

    def failed(self, verb: str) -> None:
        """The verb is reported failed: as ``done``, but folders that others may use at once stay, and the next verb is to
        bring them to the disk.
        """
        kept = {
            i: {n: w for n, w in p.items() if w == "made" and n in ("storage", "autostart")}
            for i, p in self.names.items()
        }
        for inode, names in kept.items():
            for name in names:
                del self.names[inode][name]
        self.names = {i: p for i, p in self.names.items() if p}
        self.done(verb)
        self.names.update((i, names) for i, names in kept.items() if names)

    def clear(self) -> None:
        """Begin anew, as after a power failure."""
        self.calls.clear()
        self.bytes.clear()
        self.names.clear()


@contextmanager
def recording(place: Path, patch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Record in the body what this process does below ``place``."""
    seen = Recorder(place)

    def around(owner: Any, name: str, note: Callable[..., None], *, before: bool = False) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **how: Any) -> Any:
            seen.calls.append(f"{name} {', '.join(map(_short, args))}")
            if before:
                note(*args, **how)
                return real(*args, **how)
            result = real(*args, **how)
            note(*args, **how)
            return result

        patch.setattr(owner, name, call)

    def write(fd: int, data: Any) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.startswith(("pipe:", "socket:")):
            return
        if path.endswith(".journal"):
            if not _needs_disk(bytes(data)):
                return
            seen.needed.add(os.path.basename(path))
        seen.wrote(fd, os.lseek(fd, 0, os.SEEK_CUR) - len(data), "write")

    def rename(old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        final = not os.path.basename(os.fsdecode(new)).startswith(".poolkit-")
        if final:
            seen.whole(old, f"rename to {new}", src_dir_fd)
            _format_first(seen, new, dst_dir_fd)
        seen.named(old, src_dir_fd, "taken")
        seen.named(new, dst_dir_fd, "made")

    def link(old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **_: Any) -> None:
        seen.whole(old, f"link {new}", src_dir_fd)
        _format_first(seen, new, dst_dir_fd)
        seen.named(new, dst_dir_fd, "made")
        if str(old).startswith("/proc/self/fd/"):
            # btrfs's log has a file without a name only if it is brought to the disk again with its name.
            fd = int(str(old).rpartition("/")[2])
            seen.wrote(fd, -5, "link of a file without a name")
            folder, name = seen._folder(new, dst_dir_fd)
            seen.paths[seen._fd(fd)] = f"{seen.paths[folder]}/{name}"

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if str(path).endswith(".journal"):
            seen.settled("a journal went")
            if seen.uncommitted:
                seen.fail("a journal went before what the inventory committed was on the disk")
        seen.named(path, dir_fd, "taken")

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        new = flags & os.O_CREAT and flags & os.O_TMPFILE != os.O_TMPFILE
        if new and not os.path.lexists(path if dir_fd is None else f"/proc/self/fd/{dir_fd}/{path}"):
            seen.named(path, dir_fd, "made")

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        seen.named(path, dir_fd, "made")

    around(os, "open", opened, before=True)
    around(os, "write", write)
    around(os, "pwrite", lambda fd, data, at: seen.wrote(fd, at, "pwrite"))
    around(os, "ftruncate", lambda fd, size: seen.wrote(fd, -1, "ftruncate"))
    around(
        os, "fchmod", lambda fd, mode: None if os.path.isdir(f"/proc/self/fd/{fd}") else seen.wrote(fd, -2, "fchmod")
    )
    around(os, "copy_file_range", lambda a, fd, length, x, at: seen.wrote(fd, at, "copy_file_range"))
    around(libc, "fallocate", lambda fd, mode, at, length: seen.wrote(fd, -3, "fallocate"))
    around(os, "fsync", seen.synced)
    around(os, "rename", rename, before=True)
    around(os, "replace", rename, before=True)
    around(
        libc,
        "rename_noreplace",
        lambda old, new, dir_fd: rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd),
        before=True,
    )
    around(os, "link", link, before=True)
    around(os, "unlink", unlink, before=True)
    around(os, "mkdir", mkdir, before=True)
    around(os, "rmdir", unlink, before=True)
    around(os, "symlink", lambda target, path, **how: seen.named(path, None, "made"), before=True)
    start = subprocess.Popen

    def popen(argv: Any, *args: Any, **how: Any) -> Any:
        if any(word.endswith("qemu-img") for word in argv):
            for fd in how.get("pass_fds", ()):  # what a program writes is not seen: it may have written all that it got
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                    seen.wrote(fd, -4, "a program")
        return start(argv, *args, **how)

    patch.setattr(subprocess, "Popen", popen)
    connect = sqlite3.connect

    def connected(*args: Any, **how: Any) -> Any:
        db = connect(*args, **how)

        full = True  # as it is unless something else is said

        def trace(statement: str) -> None:
            nonlocal full
            if statement.startswith("PRAGMA synchronous"):
                full = statement.endswith("=FULL")
            if statement == "COMMIT":
                seen.calls.append("COMMIT")
                seen.settled("the inventory committed")
                seen.uncommitted = not full

        db.set_trace_callback(trace)
        return db

    patch.setattr(sqlite3, "connect", connected)
    yield seen


def _format_first(seen: Recorder, new: Any, dir_fd: int | None) -> None:
    where = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
    if where.startswith(seen.place) and seen.uncommitted:
        seen.fail(f"{new} got its name before its format was on the disk")


def _needs_disk(data: bytes) -> bool:
    lines = [json.loads(line) for line in data.splitlines()]
    steps = [Undo(line[0], tuple(line[1:])) for line in lines if isinstance(line, list)]
    return any(not step.ends_with_boot for step in steps)


def _short(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
