"""The keyword arguments of the verbs that make volumes, described once for every door that leads to them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from poolkit.engine.operation import Progress


class CreateOptions(TypedDict, total=False):
    """How :meth:`~poolkit.engine.pool.Pool.create_volume` makes a volume."""

    filename: str
    """What errors call the document."""
    strict: bool
    """Whether an unknown element of the document is an error (the default)."""
    wait: float | None
    """Seconds to wait for conflicting work; None is the engine's own patience."""
    abort: threading.Event | None
    """Stops the work when it is set."""
    progress: Progress | None
    """Called with bytes done, bytes in all, and what is being done."""
    preallocation: Literal["off", "metadata", "falloc", "full"] | None
    """What space of a file is reserved, which a document cannot say."""
    backend: Mapping[str, Any]
    """Options that only this pool type knows, by name; ``Unsupported`` for one that it does not."""


class CloneOptions(CreateOptions, total=False):
    """How :meth:`~poolkit.engine.pool.Pool.create_volume_from` and :meth:`~poolkit.engine.volume.Volume.clone` copy a volume."""

    linked: bool
    """An overlay on the source instead of a copy."""
    reflink: bool | None
    """True demands that blocks are shared, False that they are copied; None does what is fastest."""
    secret: str | None
    """Uuid or usage of the secret that opens an encrypted source; None takes the one whose usage is the source's path."""


def checked(options: CreateOptions, kind: type[CreateOptions], verb: str) -> CloneOptions:
    """``options``, as the verb's own; ``TypeError`` for a keyword it does not know, as for any other call."""
    for name in options:
        if name not in kind.__annotations__:
            import difflib

            near = difflib.get_close_matches(name, kind.__annotations__, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise TypeError(f"{verb}() has no keyword argument '{name}'{meant}")
    return CloneOptions(**options)  # type: ignore[typeddict-item]


def of_backend(options: CloneOptions) -> dict[str, Any]:
    """Those of the options that the backend is given."""
    found = dict(options.get("backend", {}))
    if options.get("preallocation") is not None:
        found["preallocation"] = options["preallocation"]
    return found
