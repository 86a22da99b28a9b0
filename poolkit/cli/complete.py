"""What the completion scripts ask: the words that may stand at the end of a command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

from poolkit import errors
from poolkit.cli.arguments import GLOBAL, Argument, is_option, next_place, without_replaced
from poolkit.cli.verbs import Verb, find, verbs


def answer(line: Sequence[str]) -> int:
    """Print the candidates for the last of ``line``'s words; never an error, for nobody could read it."""
    try:
        sys.stdout.write("".join(f"{c}\n" for c in candidates(line)))
    except BrokenPipeError:
        raise
    except Exception:
        return 1
    return 0


def candidates(line: Sequence[str]) -> list[str]:
    """Candidates as ``word TAB description``, or the single line ``:file`` or ``:directory``."""
    # bash splits --pool=x into three words; to others it is one.
    parts: list[str] = []
    for at, part in enumerate(line):
        if part.startswith("--") and "=" in part:
            parts += part.split("=", 1)
        elif part != "=" or not at or not line[at - 1].startswith("--"):
            parts.append(part)
        elif at == len(line) - 1:
            parts.append("")
    *before, last = parts or [""]
    verb, values, wanted = _place(before)
    if (wanted is None or wanted.late) and last.startswith("-"):
        options = [a for a in (*(verb.arguments if verb else ()), *GLOBAL) if not a.placed or verb is None]
        given = set(before)
        found: Iterable[str] = (f"{a.name}\t{a.help}" for a in options if a.name not in given)
    elif verb is None and wanted is None:
        found = _verbs(last)
    else:
        if wanted is not None and wanted.kind in ("file", "directory"):
            return [f":{wanted.kind}"]
        found = [] if wanted is None else _values(wanted, values, verb.name if verb is not None else "")
    return [c for c in found if c.startswith(last) and c.replace("\t", "").isprintable()]


def _place(before: Sequence[str]) -> tuple[Verb | None, dict[str, str], Argument | None]:
    """The verb, the values so far, and the argument whose value comes next (None: a verb, an option, or nothing)."""
    verb: Verb | None = None
    values: dict[str, str] = {}
    pending: Argument | None = None
    only_data = False
    for word in before:
        if pending is not None:
            values[pending.key] = word
            pending = None
        elif word == "--" and not only_data:
            only_data = True
        elif is_option(word) and not only_data:
            options = {a.option: a for a in (*GLOBAL, *(verb.arguments if verb else ()))}
            argument = options.get(word)
            pending = argument if argument is not None and argument.kind != "flag" else None
        elif verb is None:
            verb = find(word)
            if verb is None:
                return None, values, Argument("", "", "nothing")
        else:
            place = _next(verb, values)
            if place is not None:
                values[place.key] = word
    if pending is not None or verb is None:
        return verb, values, pending
    return verb, values, _next(verb, values)


def _next(verb: Verb, values: dict[str, str]) -> Argument | None:
    given = [f"--{key.replace('_', '-')}" for key in values]
    return next_place(without_replaced(verb.arguments, given), values)


def _verbs(last: str) -> Iterator[str]:
    for verb in verbs():
        yield f"{verb.name}\t{verb.help}"
        # virsh's names double the list: they are offered to who begins to type one.
        for alias in verb.aliases:
            if last and alias.startswith(last) and not verb.name.startswith(last):
                yield f"{alias}\t{verb.help}"


def _values(argument: Argument, values: dict[str, str], verb: str) -> Iterable[str]:
    kind = argument.kind
    if kind in ("word", "words"):
        return argument.choices or (_types() if argument.key == "type" else ())
    if kind == "verb":
        return [f"{verb.name}\t{verb.help}" for verb in verbs()]
    if kind == "pool":
        return _pools(values.get("root"))
    if kind == "volume":
        return _volumes(values.get("root"), values.get("pool"))
    if argument.key in ("type", "pool_type"):
        return _types()
    if argument.key in ("format", "backing_vol_format", "source_format"):
        return _formats(argument.key, verb, values)
    return ()


def _formats(key: str, verb: str, values: dict[str, str]) -> Iterable[str]:
    """The formats that the verb would take: what can be made, what can be read, or the sources of a type of pool."""
    from poolkit import registry

    if key == "source_format" and verb != "vol-import":
        return registry.backend(values["type"]).source_formats if "type" in values else ()
    if key != "format" or verb == "vol-adopt":
        from poolkit.formats import FORMATS

        return FORMATS
    from poolkit.content.recipes import PREALLOCATION
    from poolkit.model import FILE_FORMATS

    files = tuple(
        word for word in FILE_FORMATS if word in PREALLOCATION and word != "luks"
    )  # that is raw with a secret
    pool = values.get("to_pool") or values.get("pool")
    try:
        backend = registry.backend(_type_of(values.get("root"), pool)) if pool is not None else None
    except errors.PoolkitError:
        backend = None
    if backend is None:
        return files
    return files if backend.file_backed else backend.volume_formats


def _type_of(root: str | None, pool: str) -> str:
    from poolkit.engine import Engine

    with Engine(root, dry_run=True) as engine:
        return engine.pool(pool).info.type


def _types() -> Iterable[str]:
    from poolkit import registry

    return registry.types()


def _pools(root: str | None) -> list[str]:
    from poolkit.state.store import Locations, Store

    # The stored ones only: a directory read, where asking the engine would bring up the whole house at each key.
    return sorted(name for name, _ in Store(Locations.choose(root)).names())


def _volumes(root: str | None, pool: str | None) -> Iterator[str]:
    import os

    from poolkit.engine import Engine
    from poolkit.state.store import Locations

    if not os.path.isdir(Locations.choose(root).state):
        return
    # A dry run, so that pressing a key recovers and changes nothing.
    with Engine(root, dry_run=True) as engine:
        if pool is not None:
            yield from (volume.name for volume in engine.pool(pool).iter_volumes())
            return
        for info in engine.pools(active=True):
            yield from (volume.path for volume in engine.pool(info.name).iter_volumes())
