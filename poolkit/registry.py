"""From a type name to its backend class: poolkit's own by module name, then those of installed packages."""

from __future__ import annotations

import importlib
from functools import cache

from poolkit import errors
from poolkit.backend import Backend

BUILT_IN = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "scsi", "mpath", "rbd", "sheepdog", "xensm", "shared-lvm",
)  # fmt: skip

GROUP = "poolkit.backends"


@cache
def backend(type: str) -> type[Backend]:
    """The backend class for pools of ``type``; raises ``Unsupported`` with the types there are.

    A package adds a type with an entry point in the group ``poolkit.backends``, named as the type, whose
    value is the class. It cannot replace one of poolkit's own.
    """
    if type in BUILT_IN:
        module = importlib.import_module(f"poolkit.backends.{type.replace('-', '_')}")
        for value in vars(module).values():
            if isinstance(value, _class) and issubclass(value, Backend) and getattr(value, "type", None) == type:
                return value
        raise AssertionError(f"{module.__name__} has no backend of type {type}")
    point = _entry_points().get(type)
    if point is None:
        import difflib

        near = difflib.get_close_matches(type, types(), 1)
        raise errors.Unsupported(
            f"there is no pool type '{type[:60]}'",
            hint=f"did you mean '{near[0]}'?" if near else f"the types are: {', '.join(types())}",
        )
    loaded = point.load()
    if not (isinstance(loaded, _class) and issubclass(loaded, Backend) and getattr(loaded, "type", None) == type):
        raise errors.Unsupported(
            f"the installed package '{point.dist.name if point.dist else point.value}' offers pool type '{type}', but "
            f"{point.value} is not a Backend of that type"
        )
    return loaded


def types() -> tuple[str, ...]:
    """All type names, poolkit's own first."""
    return BUILT_IN + tuple(sorted(set(_entry_points()) - set(BUILT_IN)))


def definitions() -> list[type]:
    """The definition classes of all types, for reading a document whose type is not known yet."""
    return [backend(type).definition for type in types()]


@cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    import importlib.metadata

    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


_class = type
