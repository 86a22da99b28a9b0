"""Events: what happened to pools and volumes, for subscribers in this process."""

from __future__ import annotations

import time
from threading import Lock

from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


# libvirt's virStoragePoolEventLifecycleType, by number; "created" means built. The others are poolkit's own.
LIFECYCLE = {"defined": 0, "undefined": 1, "started": 2, "stopped": 3, "created": 4, "deleted": 5}


class Event(NamedTuple):
    """``kind`` is a key of ``LIFECYCLE``, ``refreshed``, ``autostart``, or ``volume-created``, ``-deleted``, ``-changed``.

    ``when`` is seconds since 1970.
    """

    kind: str
    pool: str
    uuid: str
    volume: str | None = None
    when: float = 0.0


class Subscriptions:
    """Callbacks to call with every event; thread-safe. A callback that raises does not stop the others or the engine."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._callbacks: dict[int, Callable[[Event], None]] = {}
        self._next = 0

    def add(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``callback`` with every event from now on, in the thread that caused it; returns what ends that."""
        with self._lock:
            number = self._next
            self._next += 1
            self._callbacks[number] = callback

        def cancel() -> None:
            with self._lock:
                self._callbacks.pop(number, None)

        return cancel

    def emit(self, kind: str, pool: str, uuid: str, volume: str | None = None) -> None:
        """Tell all subscribers."""
        if not self._callbacks:
            return
        event = Event(kind, pool, uuid, volume, time.time())
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            try:
                callback(event)
            except Exception:
                import logging

                logging.getLogger("poolkit").exception("a subscriber failed on %s of pool %s", kind, pool)
