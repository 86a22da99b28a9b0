"""The memory of a booted guest, kept beside the image: later guests of the same shape go on from there.

Booting and compiling Python's libraries take 15 to 40 s without KVM, going on takes one or two. What is saved is a guest
that has its drivers and its libraries loaded and waits to be told its name and folders. Its root is read-only up to then,
so that all of its state is in the memory. Folders of 9p cannot be mounted while a guest is saved.

A state fits one shape of machine, one image and one qemu. It is made under a lock and renamed when complete, as images are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import image as images
from .image import Image

if TYPE_CHECKING:
    from .guest import Guest

WAITING = "lab: waits to be told its name"  # what init.sh writes to the console then
SAVE_TIMEOUT = 900  # seconds; 30 to 90 are usual, and a busy disk can take ten times that
MEMORY = "memory"  # the name of the file, here and in a guest's folder


def key(image: Image, shape: list[str]) -> str:
    """Names the states that fit: the image, the machine without its paths, and the qemu."""
    program = Path(images.which("qemu-system-x86_64") or "qemu-system-x86_64").resolve()
    with contextlib.suppress(OSError):
        found = program.stat()
        shape = [*shape, str(program), str(found.st_size), str(found.st_mtime_ns)]
    return hashlib.sha256("\n".join([image.key, *shape]).encode()).hexdigest()[:16]


def ensure(guest: Guest, image: Image, accel: str) -> Path | None:
    """The folder with the state for a guest, made now if there is none; None where this machine cannot save one."""
    folder = images.cache() / f"state-{key(image, guest.shape())}"
    with _locked(folder.name):
        if not folder.is_dir():
            started = time.monotonic()
            guest.say("saving the state of a booted guest (once; about half a minute)")
            work = (
                images.cache() / "run" / f"{folder.name}.{os.getpid()}.{time.monotonic_ns():x}"
            )  # swept as guests' are
            work.mkdir(parents=True)
            try:
                guest.twin().save(work / MEMORY)
                guest.say(f"saved {folder} in {time.monotonic() - started:.0f} s")
            except Exception as error:  # the lab works without: guests are booted then
                (work / "why").write_text(f"{error}\n")
                guest.say(f"a booted guest could not be saved, so guests will be booted: {error}")
            os.rename(work, folder)
        os.utime(folder)
    return folder if (folder / MEMORY).exists() else None


def discard(folder: Path, why: str) -> None:
    """Let nobody use that state again: a guest did not come up from it."""
    with contextlib.suppress(OSError), _locked(folder.name):
        (folder / "why").write_text(f"{why}\n")
        (folder / MEMORY).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lock of one state."""
    with (images.cache() / f"lock-{name}").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Monitor:
    """qemu's control socket (docs/interop/qmp-spec in qemu's source)."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        here = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.connect(f"/proc/self/fd/{here}/{path.name}")  # a socket's own path may have 107 bytes
        finally:
            os.close(here)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()  # the greeting
        self.call("qmp_capabilities")

    def call(self, verb: str, **arguments: object) -> Any:
        """One command; its answer. RuntimeError with qemu's words if it fails."""
        self._file.write(json.dumps({"execute": verb, "arguments": arguments}) + "\n")
        self._file.flush()
        for line in self._file:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"qemu: {verb}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"qemu: {verb}: it ended without an answer")

    def save(self, file: str, timeout: float = 120) -> None:
        """Write the machine's state to a file, which is relative to qemu's folder; the machine stands still then."""
        self.call("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.call("migrate", uri=f"exec:cat >{file}")
        deadline = time.monotonic() + timeout
        while (status := self.call("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise RuntimeError(f"qemu: saving the state: {status}")
            time.sleep(0.05)

    def close(self) -> None:
        """Let go of the socket."""
        self._file.close()
        self._socket.close()
