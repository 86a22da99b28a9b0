"""From a type name to its backend class: the modules of ``poolkit/backends`` by their names, then those of installed packages."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache

from poolkit import backends, errors, lean
from poolkit.backend import Backend, DefinitionOnly
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import importlib.metadata
    from typing import Any

    from poolkit.host.port import Host

GROUP = "poolkit.backends"


@cache
def built_in() -> tuple[str, ...]:
    """The types that have a module in ``poolkit/backends``, by name; ``shared_lvm.py`` is the type ``shared-lvm``.

    Modules whose names begin with ``_`` are none. Found by listing the folder once.
    """
    names = [name for folder in backends.__path__ for name in _modules(folder)]
    return tuple(sorted({n.replace("_", "-") for n in names if n.isidentifier() and n[0] != "_"}))


def _modules(folder: str) -> list[str]:
    try:
        return [name[:-3] for name in os.listdir(folder) if name.endswith(".py")]
    except OSError:  # in a zip archive
        from pkgutil import iter_modules

        return [module.name for module in iter_modules([folder])]


@cache
def backend(name: str) -> type[Backend]:
    """The backend class for pools of type ``name``; raises ``Unsupported`` with the types there are.

    A package adds a type with an entry point in the group ``poolkit.backends``, named as the type, whose
    value is the class. It cannot replace one of poolkit's own.
    """
    if name in built_in():
        return _built_in(name)
    point = entry_points().get(name)
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


def executor(definition: Any, host: Host) -> Backend:
    """The backend of a pool, for one operation. What may hang in it is done by a child process."""
    made = backend(definition.type)(definition, host)
    if not made.may_hang:
        return made
    from poolkit.families.away import Away

    away: Any = Away(made)
    return away  # type: ignore[no-any-return]


def types() -> tuple[str, ...]:
    """All type names, by name."""
    return tuple(sorted({*built_in(), *entry_points()}))


def definitions() -> list[type]:
    """The definition classes of all types, for reading a document whose type is not known yet.

    What cannot be loaded is left out here: its own type says why, the others must not suffer.
    """
    return _definitions(types())


def built_in_definitions() -> list[type]:
    """As ``definitions``, of poolkit's own types alone."""
    return _definitions(built_in())


def _definitions(names: tuple[str, ...]) -> list[type]:
    found = []
    for name in names:
        with suppress(errors.Unsupported, AttributeError):
            found.append(backend(name).definition)
    return found


def candidates(document: str | bytes) -> list[type]:
    """The definition classes a pool document may be read with: that of the type it names, or all.

    Most documents name their type in their first tag; importing the other backends for them would be waste. Raises
    ``Unsupported`` for a type that a broken package offers.
    """
    name = _named_type(document)
    if name is not None and (name in built_in() or name in types()):
        return [backend(name).definition]
    return definitions()


def _named_type(document: str | bytes) -> str | None:
    import pyexpat as expat

    found: list[str | None] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        found.append(attributes.get("type") if tag == "pool" else None)
        raise StopIteration

    def refuse(*_: object) -> None:
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    with suppress(expat.ExpatError, StopIteration, ValueError):
        parser.Parse(document[:65536], False)
    return found[0] if found else None


def _built_in(name: str) -> type[Backend]:
    from poolkit.model import Pool

    path = f"{backends.__name__}.{name.replace('-', '_')}"
    try:
        module = lean.module(path)
    except Exception as error:
        raise errors.Unsupported(f"pool type '{name}': {path} cannot be loaded: {error}") from error
    classes = [v for v in vars(module).values() if isinstance(v, type) and getattr(v, "type", None) == name]
    for found in classes:
        if issubclass(found, Backend):
            return found
    for definition in classes:
        if issubclass(definition, Pool):
            return type(f"{definition.__name__}Only", (DefinitionOnly,), {"type": name, "definition": definition})
    raise errors.Unsupported(f"pool type '{name}': {path} has no Backend and no Pool of that type")


@cache
def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """What other packages offer, by the type's name."""
    import importlib.metadata

    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
