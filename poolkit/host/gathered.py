"""New files that get their names together: the disk is waited for once for all of them where once for each would be.

On file systems with a journal the first fsync of many new files brings all of them to the disk, and the others find nothing
to wait for. Nothing that a single new file has is missing: each is whole, on the disk and on record before it has its name.
"""

from __future__ import annotations

import os
from contextlib import suppress

from poolkit import errors
from poolkit.host import undo
from poolkit.host.directory import Directory
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from poolkit.host.appearing import NewFile, NewFiles, Port


class Gathered:
    """The files of :meth:`poolkit.host.appearing.NewFiles.gathering`.

    ``changed`` are the names of those that turned out other than they were described, or could not be described: only a look
    at them tells what they are.
    """

    def __init__(self, files: NewFiles, host: Port, path: str) -> None:
        self._files = files
        self._host = host
        self._directory = Directory(path)
        self.unnamed = files.has_unnamed(self._directory)
        self._waiting: list[tuple[NewFile, Callable[[NewFile], Any]]] = []
        self._names: set[str] = set()
        self.changed: list[str] = []

    def __contains__(self, name: str) -> bool:
        """Whether a file waits for that name."""
        return name in self._names

    def add(self, new: NewFile, describe: Callable[[NewFile], Any]) -> None:
        """Take over a file that is filled, with its descriptor; ``VolumeExists`` if another one waits for its name."""
        if new.name in self._names:
            raise errors.VolumeExists(f"'{self._directory.join(new.name)}' is made twice", volume=new.name)
        new.waits, new.directory = True, self._directory
        self._names.add(new.name)
        self._waiting.append((new, describe))

    def appear(self) -> None:
        """Give all of them their names, durably."""
        if not self._waiting:
            return
        files, host = [new for new, _ in self._waiting], self._host
        for new in files:
            self._files.fault(f"fsync {new.name}")
            os.fsync(new.fd)
        seen = {}
        for new, describe in self._waiting:
            new.info = describe(new)
            seen[new.name] = _state(os.fstat(new.fd))
            host.keep_undo(undo.unlink_whole(self._directory.join(new.name), new.facts))
        host.enlist([new.appearing for new in files])
        host.check_abort()
        for new in files:
            self._files.fault(f"name {new.name}")
            self._files.give_name(new)
        self._files.fault(f"fsync directory of {files[-1].name}")
        os.fsync(self._directory.fd)
        self._let_go()
        for new in files:
            if new.info is None or _state(self._directory.lstat(new.name)) != seen[new.name]:
                self.changed.append(new.name)

    def _let_go(self) -> None:
        for new, _ in self._waiting:
            with suppress(OSError):
                os.close(new.fd)
        self._waiting.clear()

    def close(self) -> None:
        """Close what is open still: files that have got no name are gone with that. Repeatable."""
        self._let_go()
        self._directory.close()


def _state(facts: os.stat_result) -> tuple[int, int, int]:
    """What of a file was described and may change when it gets its name and is closed, as reserved blocks are given back."""
    return facts.st_ino, facts.st_size, facts.st_blocks
