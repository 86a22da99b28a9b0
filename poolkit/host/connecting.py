"""Connections to servers: nothing waits for ever, and who waits can look at an abort switch."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

TURN = 0.25
"""Seconds between two looks at the abort switch; the time-out of the sockets that are returned."""
_MOST = 8  # addresses of one name that are tried

Place = tuple[int, Any]
"""A family of addresses, and an address of it."""


def places(name: str, port: int) -> list[Place]:
    """The addresses of a host; ``OSError``, and ``UnicodeError`` for what cannot be a name.

    Names are resolved by the system, which has its own time limits.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [(int(family), place) for family, _, _, _, place in found[:_MOST]]


def connect(found: Sequence[Place], patience: float, turn: Callable[[], None]) -> socket.socket:
    """A socket that is connected to the first place that takes it; ``OSError`` of the last one if none does.

    Each has ``patience`` seconds. ``turn`` is called while it waits; what that raises ends it.
    """
    last = OSError(errno.EADDRNOTAVAIL, "it has no address")
    for family, place in found:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _establish(made, place, patience, turn)
            return made
        except OSError as error:
            made.close()
            last = error
        except BaseException:
            made.close()
            raise
    raise last


def _establish(made: socket.socket, place: Any, patience: float, turn: Callable[[], None]) -> None:
    made.setblocking(False)
    until = time.monotonic() + patience
    status = made.connect_ex(place)
    if status not in (0, errno.EINPROGRESS):
        raise OSError(status, os.strerror(status))
    poll = select.poll()
    poll.register(made, select.POLLOUT)
    while not poll.poll(TURN * 1000):
        turn()
        if time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, "it did not answer in time")
    if status := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(status, os.strerror(status))
    made.settimeout(TURN)
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
