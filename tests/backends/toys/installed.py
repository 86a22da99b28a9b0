"""Toys as if a package had installed them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from poolkit import registry
from poolkit.backend import Backend


class Point:
    """An entry point."""

    dist = None

    def __init__(self, backend: type[Backend]) -> None:
        self.backend = backend
        self.name = backend.type
        self.value = f"{backend.__module__}:{backend.__name__}"

    def load(self) -> type[Backend]:
        return self.backend


def installed(*backends: type[Backend]) -> Iterator[None]:
    """Have the types known for a while."""
    with pytest.MonkeyPatch.context() as patch:
        forget()
        patch.setattr(importlib.metadata, "entry_points", lambda **_: [Point(one) for one in backends])
        yield
    forget()


def forget() -> None:
    """Have the registry ask anew."""
    registry.entry_points.cache_clear()
    registry.backend.cache_clear()
