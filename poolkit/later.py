"""Modules that are imported when they are first used, so that a short command does not pay for what it does not need."""

from __future__ import annotations

from poolkit import lean
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def later(scope: dict[str, Any], alias: str, module: str) -> Any:
    """Stand in for ``module`` under the name ``alias`` in ``scope`` (a module's ``globals()``) until an attribute is asked for.

    The real module then takes the place, so that only the first use costs anything.
    """
    return _Later(scope, alias, module)


class _Later:
    __slots__ = ("_where",)

    def __init__(self, scope: dict[str, Any], alias: str, module: str) -> None:
        self._where = (scope, alias, module)

    def __getattr__(self, name: str) -> Any:
        scope, alias, module = self._where
        scope[alias] = lean.module(module)
        return getattr(scope[alias], name)
