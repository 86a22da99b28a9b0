"""Every state transition of every pool and volume."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from poolkit.engine.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'poolkit.engine' has no attribute {name!r}")
    from poolkit.engine import engine

    return getattr(engine, name)
