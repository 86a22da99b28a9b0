"""Which flavors a pool is a backend of, and what is refused while it is one."""

from __future__ import annotations

from contextlib import suppress

from poolkit import errors
from poolkit.backend import quoted
from poolkit.lean import TYPE_CHECKING
from poolkit.state.flavors import FlavorStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolkit.engine.core import Core


def flavors_of(core: Core, pool: str) -> Iterator[str]:
    """The flavors that name a pool as a backend, drained or not, by name; a file that was damaged by hand names none."""
    store = FlavorStore(core.locations)
    for name in store.names():
        with suppress(errors.InvalidDefinition, errors.FlavorNotFound):
            if any(backend.pool == pool for backend in store.load(name).backends):
                yield name


def require_no_flavor(core: Core, pool: str, doing: str, *, force: bool = False) -> None:
    """``HasDependents`` if a flavor has the pool as a backend, unless ``force``; ``doing`` is a participle."""
    names = () if force else tuple(flavors_of(core, pool))
    if not names:
        return
    what = "the flavor" if len(names) == 1 else "the flavors"
    error = errors.HasDependents(
        f"pool '{pool}' cannot be {doing}: it is a backend of {what} {quoted(names)}", pool=pool,
        hint=errors.Hint(
            "take it out of there first, or delete what names it: ", errors.remedy("flavor-delete", names[0]),
            "; if that is to name what there is not, add ", errors.Option("force"),
        ),
    )  # fmt: skip
    error.flavors = names
    raise error
