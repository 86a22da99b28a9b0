"""Block devices and what the kernel says of them, as ``host.devices`` has them.

Backends ask here and not the machine itself, so that a folder can play the machine (``poolkit.testing.ScriptedHost``).
"""

from __future__ import annotations

import os
import stat

from poolkit import errors
from poolkit.host import kernel
from poolkit.host.descriptors import write_some
from poolkit.lean import NamedTuple

_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Node(NamedTuple):
    """The node of a block device; ``number`` is major:minor."""

    number: str
    mode: int
    owner: int
    group: int


class Devices:
    """Those of this machine. What cannot be read is empty, as in :mod:`poolkit.host.kernel`; only ``tell`` changes anything."""

    def value(self, path: str) -> str:
        """The one value of an attribute, without the white space around it."""
        return kernel.value(self.place(path))

    def text(self, path: str) -> str:
        """All of a file."""
        return kernel.text(self.place(path))

    def data(self, path: str) -> bytes:
        """All of a file of bytes, such as a page of a disk's vital product data."""
        return kernel.data(self.place(path))

    def names(self, path: str) -> list[str]:
        """The entries of a folder, numbers in their order."""
        return kernel.names(self.place(path))

    def there(self, path: str) -> bool:
        """Whether there is something at ``path``, links followed."""
        return os.path.exists(self.place(path))

    def real(self, path: str) -> str:
        """``path`` without symbolic links."""
        return os.path.realpath(path)

    def node(self, path: str) -> Node | None:
        """The block device at ``path``, links followed; None if there is none."""
        try:
            facts = os.stat(self.place(path))
        except OSError:
            return None
        number = self.number_of(path, facts)
        return Node(number, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) if number else None

    def number(self, path: str) -> str:
        """``major:minor`` of the block device at ``path``, links followed; empty if there is none."""
        try:
            return self.number_of(path, os.stat(self.place(path)))
        except OSError:
            return ""

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the block device at ``path``; ``Unsafe`` for anything else, and ``OSError``.

        What is none is not even opened: a tape or a watchdog would do something then.
        """
        place = self.place(path)
        if not self.number_of(path, os.stat(place)):
            raise errors.Unsafe(f"'{path}' is not a block device")
        fd = os.open(place, flags | _FLAGS)
        if not self.number_of(path, os.fstat(fd)):
            os.close(fd)
            raise errors.Unsafe(f"'{path}' is not a block device")
        return fd

    def tell(self, path: str, text: str) -> None:
        """Write ``text`` to a knob of the kernel, in one write(2) as it wants it; raises ``OSError``.

        Announces nothing: who has not done so yet calls ``host.files.tell``.
        """
        fd = os.open(self.place(path), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            data = text.encode()
            if write_some(fd, data) != len(data):
                raise errors.HostError(f"the kernel took only a part of '{text}' at '{path}'")
        finally:
            os.close(fd)

    # -- what a folder that plays the machine has otherwise -------------------------------------------------------

    def place(self, path: str) -> str:
        """Where ``path`` is found."""
        return path

    def number_of(self, path: str, facts: os.stat_result) -> str:
        """``major:minor`` of what is at ``path``; empty if it is no block device."""
        if not stat.S_ISBLK(facts.st_mode):
            return ""
        return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"
