"""Faults that ``faults.c`` brings about in poolkit and its programs: which there are, and the memory by which one is ordered."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

LOOK, MAKE, READ, WRITE, SYNC, NAME, REMOVE, SIZE, MAP, LOCK, MODE = (1 << n for n in range(11))
CHANGES = MAKE | WRITE | SYNC | NAME | REMOVE | SIZE | MODE
KILL_SELF, KILL_LEADER, KILL_ALL, FAIL, SHORT = range(1, 6)
ACTIONS = {
    KILL_SELF: "kill who calls",
    KILL_LEADER: "kill poolkit",
    KILL_ALL: "kill all",
    FAIL: "error",
    SHORT: "short",
}
FOREVER = 1 << 40
"""So many calls after the first are struck as well: all there are."""

ERRORS = (
    (errno.EIO, LOOK | MAKE | READ | CHANGES | LOCK | MAP),
    (errno.ENOSPC, MAKE | WRITE | SYNC | NAME | SIZE),
    (errno.EDQUOT, MAKE | WRITE | SYNC | NAME | SIZE),
    (errno.EMFILE, LOOK | MAKE),
    (errno.ENFILE, LOOK | MAKE),
    (errno.EROFS, CHANGES & ~SYNC & ~WRITE),
    (errno.EACCES, LOOK | MAKE | NAME | REMOVE | MODE),
    (errno.ENOMEM, LOOK | MAKE | READ | MAP | NAME | REMOVE),
    (errno.ENOLCK, LOCK),
    (errno.EPERM, NAME | MODE),
)
"""What a call may fail with, and the kinds of calls that can."""


class _Control(ctypes.Structure):
    """As ``struct control`` of faults.c has it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("armed", "action", "number", "leader", "dead", "told")),
        *((name, ctypes.c_uint32) for name in ("mask", "unused")),
        *((name, ctypes.c_int64) for name in ("target", "lasting", "count", "struck")),
        ("place", ctypes.c_char * 256),
        ("boot", ctypes.c_char * 256),
        ("where", ctypes.c_char * 512),
    )  # fmt: skip


class Fault(NamedTuple):
    """One fault: ``action`` at the ``target``-th call of the kinds in ``mask``, and at ``lasting`` more."""

    action: int = 0
    target: int = 0
    mask: int = CHANGES
    number: int = 0
    lasting: int = 0
    delay: float = 0.0
    """Instead of at a call: so many seconds after the begin, for those that kill."""

    @property
    def kills(self) -> bool:
        """Whether it ends a process."""
        return self.action in (KILL_SELF, KILL_LEADER, KILL_ALL)

    def __str__(self) -> str:
        if not self.action:
            return "no fault"
        what = errno.errorcode[self.number] if self.action == FAIL else ACTIONS[self.action]
        if self.delay:
            return f"{what} after {self.delay * 1000:.1f} ms"
        more = (
            "" if not self.lasting else " and all after it" if self.lasting == FOREVER else f" and {self.lasting} more"
        )
        return f"{what} at call {self.target}{more} of kinds {self.mask:#x}"


NONE = Fault()


def killing(chance: random.Random, calls: int, seconds: float) -> Fault:
    """A death of poolkit, its program or both: at one of about ``calls`` calls, or at some time within ``seconds``."""
    action = chance.choice((KILL_SELF, KILL_SELF, KILL_LEADER, KILL_ALL, KILL_ALL))
    if chance.random() < 0.25:
        return Fault(action, delay=max(1e-4, chance.random() * seconds))
    return Fault(action, chance.randint(1, calls + 1))


def failing(chance: random.Random, calls: int, seconds: float) -> Fault:
    """A call that fails, or that does a part; once, a few times, or from then on."""
    if chance.random() < 0.15:
        lasting = chance.choice((0, 3, FOREVER))
        return Fault(SHORT, chance.randint(1, calls + 1), READ | WRITE, lasting=lasting)
    number, mask = chance.choice(ERRORS)
    lasting = chance.choice((0, 0, 1, 4, FOREVER))
    return Fault(FAIL, chance.randint(1, calls + 1), mask, number, lasting)


class Control:
    """The memory that all processes with the library share; ``fd`` is inherited by them."""

    def __init__(self, place: Path) -> None:
        self.fd = os.memfd_create("faults")
        os.ftruncate(self.fd, mmap.PAGESIZE)
        self._memory = mmap.mmap(self.fd, mmap.PAGESIZE)
        self._fields = _Control.from_buffer(self._memory)
        self._fields.place = os.fsencode(place)

    def arm(self, fault: Fault, leader: int) -> None:
        """Order ``fault`` for the process ``leader`` and what it starts, or let their calls just be counted."""
        fields = self._fields
        fields.armed = 0
        fields.action, fields.number, fields.leader = fault.action, fault.number, leader
        fields.mask = fault.mask
        fields.lasting = fault.lasting
        fields.target = fault.target if fault.action and not fault.delay else FOREVER
        fields.count = fields.struck = fields.dead = 0
        fields.where = b""
        fields.armed = 1

    def boot(self, file: Path | None) -> None:
        """Let the identity of the machine's boot be read from ``file``, or from where it is."""
        self._fields.boot = b"" if file is None else os.fsencode(file)

    def disarm(self) -> None:
        """From now on nothing happens."""
        self._fields.armed = 0

    @property
    def count(self) -> int:
        """How many calls there were since it was armed."""
        return int(self._fields.count)

    @property
    def where(self) -> str:
        """The call that was struck first, and its file; empty if none was."""
        return str(self._fields.where.decode(errors="replace"))


def compiler() -> str | None:
    """A C compiler, as the benchmarks use."""
    return next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)


def library(folder: Path) -> Path:
    """The library, compiled into ``folder``."""
    made = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler() or "cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made
