"""All documents of one file, as definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolkit import errors, xmlmap
from poolkit.engine.plan.sources import KINDS, classes
from poolkit.engine.plan.wrapper import parts
from poolkit.errors import InvalidDefinition, Problem


def each(
    data: bytes, source: str, *, strict: bool = True, warn: Callable[[Problem], object] | None = None
) -> list[Any]:
    """The definitions in a file, in order; ``InvalidDefinition`` with the problems of all of them."""
    found: list[Any] = []
    problems: list[Problem] = []
    for name, piece, place, part in parts(data, source):
        try:
            if name not in KINDS:
                raise InvalidDefinition(
                    [Problem(source, *place, f"/{name}", f"is no document that can stand here; expected {_expected()}")]
                )
            found.append(xmlmap.read(piece, classes(name, piece), filename=source, strict=strict, warn=warn, part=part))
        except InvalidDefinition as error:
            problems += error.problems
        except errors.PoolkitError as error:  # a type that there is none of
            problems.append(Problem(source, *place, f"/{name}", str(error)))
    if problems:
        raise InvalidDefinition(problems)
    return found


def _expected() -> str:
    return errors.some([f"<{kind}>" for kind in KINDS], len(KINDS))
