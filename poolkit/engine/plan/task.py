"""What the entries of a plan stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

from poolkit.engine.plan.sources import Wanted


class Task(NamedTuple):
    """What an entry stands for: the document, the definition that the verbs are given, and what there is."""

    wanted: Wanted | None
    definition: Any = None
    present: Any = None
