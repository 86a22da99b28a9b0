"""Tests of the mapping: reading, writing, schemas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from poolkit.schemas import documents

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "xml"
FILES = sorted([*EXAMPLES.glob("*.xml"), *(HERE / "documents").glob("*.xml")], key=lambda path: path.name)
CLASSES: list[Any] = [cls for classes in documents().values() for cls in classes]
BY_STEM: dict[str, list[Any]] = documents()

# POOLKIT_EXAMPLES=2000 pytest tests/xml searches at random and for longer; otherwise every run tries the same documents.
WANTED = int(os.environ.get("POOLKIT_EXAMPLES", "0"))


def thorough(examples: int, **more: object) -> settings:
    """Settings for a property that looks at ``examples`` documents."""
    return settings(
        max_examples=WANTED or examples,
        derandomize=not WANTED,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def sample(strategy: SearchStrategy, count: int) -> list:
    """Some values of a strategy, for a check that wants them all at once."""
    found: list = []

    @thorough(count, phases=[Phase.generate])
    @given(strategy)
    def collect(value: object) -> None:
        found.append(value)

    collect()
    return found
