"""Toys as if a package had installed them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poolkit import registry
from poolkit.backend import Backend


class Point:
    """An entry point."""

    dist = None

    def __init__(self, backend: type[Backend]) -> None:
        self.backend = backend
        self.value = f"{backend.__module__}:{backend.__name__}"

    def load(self) -> type[Backend]:
        return self.backend


def installed(*backends: type[Backend]) -> Iterator[None]:
    """Have the types known for a while."""
    with pytest.MonkeyPatch.context() as patch:
        registry.backend.cache_clear()
        patch.setattr(registry, "_entry_points", lambda: {one.type: Point(one) for one in backends})
        yield
    registry.backend.cache_clear()
