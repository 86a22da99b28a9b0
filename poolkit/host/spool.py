"""Unnamed temporary files for the content of volumes: the kernel frees them with their last descriptor, whatever happens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from poolkit import errors

_LARGE = "/var/tmp"  # noqa: S108 - no name is made there; unlike /tmp it is on a disk (file-hierarchy(7))


def folder() -> str:
    """Where large temporary files go: ``TMPDIR``, else ``/var/tmp``."""
    return os.environ.get("TMPDIR") or (_LARGE if os.path.isdir(_LARGE) else tempfile.gettempdir())


@contextmanager
def spooled(needed: int, fill: Callable[[int], object]) -> Iterator[int]:
    """A descriptor of an unnamed file into which ``fill`` has written; at its begin.

    ``needed`` is how many bytes that will be about: ``NoSpace`` at once if they are not free.
    """
    place = folder()
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(tempfile.TemporaryFile(dir=place, buffering=0)).fileno()
        except OSError as error:
            raise errors.from_os_error(error, f"make a temporary file in '{place}'") from error
        facts = os.fstatvfs(fd)
        free = facts.f_bavail * facts.f_frsize
        if needed > free:
            raise errors.NoSpace(
                f"'{place}' has {free} bytes free for temporary files, and {needed} are needed",
                hint="name a larger folder in the environment variable TMPDIR",
            )
        fill(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
