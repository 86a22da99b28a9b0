"""libvirt's storage management as a library: pool and volume XML in, working storage out, with no daemon.

    with poolkit.Engine() as engine:
        pool = engine.define(xml)
        pool.build()
        pool.start()

The names below are loaded when they are first used, so that ``import poolkit`` costs next to nothing.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, module

if TYPE_CHECKING:
    from typing import Any

    from poolkit import errors
    from poolkit.backend import Backend, Usage, VolumeInfo
    from poolkit.engine import Engine
    from poolkit.engine.events import Event
    from poolkit.engine.operation import Outcome
    from poolkit.engine.pool import Pool, PoolInfo
    from poolkit.engine.volume import Volume
    from poolkit.errors import PoolkitError
    from poolkit.host import Host

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Engine",
    "Event",
    "Host",
    "Outcome",
    "Pool",
    "PoolInfo",
    "PoolkitError",
    "Usage",
    "Volume",
    "VolumeInfo",
    "__version__",
    "errors",
]

_PLACES = {
    "Backend": "backend",
    "Engine": "engine.engine",
    "Event": "engine.events",
    "Host": "host.port",
    "Outcome": "engine.operation",
    "Pool": "engine.pool",
    "PoolInfo": "engine.pool",
    "PoolkitError": "errors",
    "Usage": "backend",
    "Volume": "engine.volume",
    "VolumeInfo": "backend",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return module("poolkit.errors")
    if name not in _PLACES:
        raise AttributeError(f"module 'poolkit' has no attribute {name!r}")
    value = globals()[name] = getattr(module(f"poolkit.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
