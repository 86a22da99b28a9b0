"""The only door to the machine: programs, files, mounts, work that may hang, and what takes a change back."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from poolkit.host.port import Host, Result, Step

__all__ = ["Host", "Result", "Step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'poolkit.host' has no attribute {name!r}")
    from poolkit.host import port

    return getattr(port, name)
