"""The keyword arguments of the verbs that make volumes, described once for every door that leads to them."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from typing import Any, Literal, TypeVar

    from poolkit.engine.operation import Progress
    from poolkit.model import Permissions, Volume

    Options = TypeVar("Options", "CreateOptions", "CloneOptions", "ImportOptions")


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


class ImportOptions(TypedDict, total=False):
    """How :meth:`~poolkit.engine.pool.Pool.import_volume` makes a volume of an image."""

    format: str | None
    """The format of the volume; that of the image by default, raw where volumes are devices."""
    source_format: str | None
    """The format of the image, where its header must not decide."""
    capacity: int | None
    """Bytes that a machine sees, if more than the image has."""
    allocation: int | None
    """Bytes to reserve; None takes what the data takes, or everything where the pool's type has no less."""
    checksum: str | None
    """``sha256:HEX`` or ``sha512:HEX`` of the image's bytes as they come."""
    permissions: Permissions | None
    """Mode, owner and group of the volume."""
    secret: str | None
    """Uuid or usage of the secret that opens an encrypted image which is to be converted."""
    wait: float | None
    """As for :class:`CreateOptions`, and so are the others."""
    abort: threading.Event | None
    progress: Progress | None
    preallocation: Literal["off", "metadata", "falloc", "full"] | None
    backend: Mapping[str, Any]


def checked(options: Options, kind: type[Options], verb: str) -> Options:
    """``options``, as the verb's own; ``TypeError`` for a keyword it does not know, as for any other call."""
    for name in options:
        if name not in kind.__annotations__:
            import difflib

            near = difflib.get_close_matches(name, kind.__annotations__, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise TypeError(f"{verb}() has no keyword argument '{name}'{meant}")
    return options


def of_backend(
    options: CreateOptions | CloneOptions | ImportOptions, definition: Volume | None = None
) -> dict[str, Any]:
    """Those of the options that the backend is given, with what the definition of the volume says of its layout."""
    found = dict(options.get("backend", {}))
    layout = definition.layout if definition is not None else None
    if layout is not None:
        asked = {"stripes": layout.stripes, "mirrors": layout.mirrors}
        found = {key: number for key, number in asked.items() if number is not None} | found
    if options.get("preallocation") is not None:
        found["preallocation"] = options["preallocation"]
    return found


def forced(force: bool) -> dict[str, bool]:
    """The option for a backend that ``force`` is: only volumes that are files know the word, so others are not asked."""
    return {"force": True} if force else {}
