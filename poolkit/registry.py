"""From a type name to its backend class: poolkit's own by module name, then those of installed packages."""

from __future__ import annotations

import contextlib
import importlib
from functools import cache

from poolkit import errors
from poolkit.backend import Backend, DefinitionOnly

BUILT_IN = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "scsi", "mpath", "rbd", "sheepdog", "xensm", "shared-lvm",
    "gluster", "iscsi-direct", "vstorage", "zfs",
)  # fmt: skip

GROUP = "poolkit.backends"


@cache
def backend(name: str) -> type[Backend]:
    """The backend class for pools of type ``name``; raises ``Unsupported`` with the types there are.

    A package adds a type with an entry point in the group ``poolkit.backends``, named as the type, whose
    value is the class. It cannot replace one of poolkit's own.
    """
    if name in BUILT_IN:
        return _built_in(name)
    point = _entry_points().get(name)
    if point is None:
        import difflib

        near = difflib.get_close_matches(name, types(), 1)
        raise errors.Unsupported(
            f"there is no pool type '{name[:60]}'",
            hint=f"did you mean '{near[0]}'?" if near else f"the types are: {', '.join(types())}",
        )
    try:
        loaded = point.load()
    except Exception as error:
        raise errors.Unsupported(f"pool type '{name}': {point.value} cannot be loaded: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Backend) and getattr(loaded, "type", None) == name):
        raise errors.Unsupported(
            f"the installed package '{point.dist.name if point.dist else point.value}' offers pool type '{name}', but "
            f"{point.value} is not a Backend of that type"
        )
    return loaded


def types() -> tuple[str, ...]:
    """All type names, poolkit's own first."""
    return BUILT_IN + tuple(sorted(set(_entry_points()) - set(BUILT_IN)))


def definitions() -> list[type]:
    """The definition classes of all types, for reading a document whose type is not known yet.

    A broken package is left out here: its own type says why, the others must not suffer.
    """
    found = [backend(name).definition for name in BUILT_IN]
    for name in types()[len(BUILT_IN) :]:
        with contextlib.suppress(errors.Unsupported, AttributeError):
            found.append(backend(name).definition)
    return found


def candidates(document: str | bytes) -> list[type]:
    """The definition classes a pool document may be read with: that of the type it names, or all.

    Most documents name their type in their first tag; importing the other backends for them would be waste. Raises
    ``Unsupported`` for a type that a broken package offers.
    """
    name = _named_type(document)
    if name is not None and name in types():
        return [backend(name).definition]
    return definitions()


def _named_type(document: str | bytes) -> str | None:
    from xml.parsers import expat

    found: list[str | None] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        found.append(attributes.get("type") if tag == "pool" else None)
        raise StopIteration

    def refuse(*_: object) -> None:
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    with contextlib.suppress(expat.ExpatError, StopIteration, ValueError):
        parser.Parse(document[:65536], False)
    return found[0] if found else None


def _built_in(name: str) -> type[Backend]:
    from poolkit.model import Pool

    module = importlib.import_module(f"poolkit.backends.{name.replace('-', '_')}")
    classes = [v for v in vars(module).values() if isinstance(v, type) and getattr(v, "type", None) == name]
    for found in classes:
        if issubclass(found, Backend):
            return found
    definition = next(c for c in classes if issubclass(c, Pool))
    return type(f"{definition.__name__}Only", (DefinitionOnly,), {"type": name, "definition": definition})


@cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    import importlib.metadata

    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
