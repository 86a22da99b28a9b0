"""Modules that are imported, and parts of objects that are made, when they are first used: a short command pays for no others."""

from __future__ import annotations

from poolkit import lean
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import cached_property as once
    from typing import Any

__all__ = ["later", "once"]


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


if not TYPE_CHECKING:

    class once:
        """``functools.cached_property``, of which all threads get the same value also where several ask for it at once."""

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self._make = make
            self.__doc__ = make.__doc__

        def __get__(self, one: Any, owner: type) -> Any:
            if one is None:
                return self
            return vars(one).setdefault(self._make.__name__, self._make(one))
