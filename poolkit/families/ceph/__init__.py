"""A Ceph cluster as a client sees it: RBD images, whichever of two ways leads to librados and librbd.

:func:`connect` takes the distribution's modules ``rados`` and ``rbd`` where this Python can import them
(:mod:`poolkit.families.ceph.modules`), else the libraries themselves (:mod:`poolkit.families.ceph.libraries`). A connection must
not be used across fork(2), and what hangs in it cannot be interrupted: it belongs into the child that does what may hang.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from poolkit import errors
from poolkit.families.ceph.interface import TAKEN as TAKEN
from poolkit.families.ceph.interface import TIMEOUTS as TIMEOUTS
from poolkit.families.ceph.interface import CephError as CephError
from poolkit.families.ceph.interface import Cluster


@contextmanager
def connect(user: str, settings: Mapping[str, str], *, way: str | None = None) -> Iterator[Cluster]:
    """A connection as ``client.USER`` with the options ``settings`` and none from any file; raises ``CephError``.

    ``way`` is ``modules`` or ``libraries`` for one way alone. ``ToolMissing`` where neither is to be had.
    """
    cluster = _way(way)(user, settings)
    try:
        yield cluster
    finally:
        cluster.close()


def _way(way: str | None) -> Callable[[str, Mapping[str, str]], Cluster]:
    """How to connect; each way knows its own kind of images alone."""
    from poolkit.families.ceph import modules

    if way != "libraries" and modules.PRESENT:
        return modules.Connection  # type: ignore[return-value]
    from poolkit.families.ceph import libraries

    if way == "modules" or not libraries.PRESENT:
        raise _missing()
    return libraries.Connection  # type: ignore[return-value]


def lacks() -> errors.ToolMissing | None:
    """The error of ``connect`` where neither way is to be had."""
    try:
        _way(None)
    except errors.ToolMissing as error:
        return error
    return None


def _missing() -> errors.ToolMissing:
    return errors.ToolMissing(
        "the client library of Ceph is not installed: there are neither the modules rados and rbd for this Python, nor "
        "librados.so.2 and librbd.so.1",
        argv=["librbd.so.1"],
        hint="on Debian: apt install librbd1, or python3-rados and python3-rbd for the system's own Python",
    )
