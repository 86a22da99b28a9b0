"""What this installation can do: the facts that every pool type tells of itself, and libvirt's document of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from poolkit import registry
from poolkit.backend import DefinitionOnly

_TYPES = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog", "gluster", "zfs",
    "vstorage",
)  # fmt: skip
"""libvirt's pool types in the order of its document; further ones follow."""

_OURS = ("luks", "vhdx")
"""Formats that libvirt has no name for: it sees them as raw."""

_FIRST = ("unknown", "none")
"""Formats that libvirt lists before all others."""


def _as_libvirt(formats: tuple[str, ...]) -> tuple[str, ...]:
    """The formats that libvirt has, in its order: the default, which is first here, has its place behind ``none``."""
    known = [f for f in formats if f not in _OURS and not (f == "unknown" and "none" in formats)]
    return tuple(sorted(known, key=lambda f: f not in _FIRST))  # which keeps the order of the rest


class PoolType(NamedTuple):
    """One pool type. ``error`` says why its pools cannot be used; the formats have the default first."""

    type: str
    supported: bool = False
    verbs: tuple[str, ...] = ()
    source_formats: tuple[str, ...] = ()
    volume_formats: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    error: str | None = None


def pool_types() -> list[PoolType]:
    """Every pool type, also those of installed packages that cannot be loaded."""
    return [_told(name) for name in registry.types()]


def _told(name: str) -> PoolType:
    try:
        backend = registry.backend(name)
        keeps_only = issubclass(backend, DefinitionOnly)
        return PoolType(
            name, not keeps_only, backend.verbs(), tuple(backend.source_formats), tuple(backend.volume_formats),
            tuple(backend.tools), "this version keeps its definitions, and cannot start its pools" if keeps_only else None,
        )  # fmt: skip
    except Exception as error:  # other people's code: one broken package must not hide the others
        return PoolType(name, error=str(error) or type(error).__name__)


def document(types: Iterable[PoolType]) -> Any:
    """The same as libvirt's ``<storagepoolCapabilities>``."""
    from poolkit.documents import CapabilityEnum, CapabilityOptions, PoolTypeCapabilities, StoragePoolCapabilities

    def options(formats: tuple[str, ...], name: str) -> CapabilityOptions | None:
        if not formats:
            return None
        enum = CapabilityEnum(name=name, values=_as_libvirt(formats))
        return CapabilityOptions(default_format=formats[0], enums=(enum,))

    return StoragePoolCapabilities(
        pools=tuple(
            PoolTypeCapabilities(
                type=t.type, supported=t.supported,
                pool_options=options(t.source_formats, "sourceFormatType"),
                volume_options=options(t.volume_formats, "targetFormatType"),
            )
            for t in sorted(types, key=lambda one: _TYPES.index(one.type) if one.type in _TYPES else len(_TYPES))
        )
    )  # fmt: skip
