"""From what a backend found to the volume document: the one place where listed facts become XML fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.model import (
    VOLUME_FEATURES,
    BackingStore,
    Encryption,
    Extent,
    Permissions,
    Timestamps,
    Volume,
    VolumeDevice,
    VolumeFeatures,
    VolumeSecret,
    VolumeSource,
    VolumeTarget,
)

if TYPE_CHECKING:
    from poolkit.engine.core import Core

_NO_SOURCE = VolumeSource()
_NOBODY = Permissions()
_ENCRYPTION: dict[str, Any] = {"luks": "luks", "luks1": "luks", "luks2": "luks2", "qcow": "qcow", "aes": "qcow"}


def describer(directory: str | None) -> Callable[[VolumeInfo], Volume]:
    """A function from listed facts to the volume document, for the volumes of one pool.

    ``directory`` is the place of file-backed volumes, whose path and key are not stored one by one.
    """

    def describe(info: VolumeInfo) -> Volume:
        kind: Any = info.type
        path = info.path
        if path is None and directory is not None:
            path = f"{directory}/{info.name}"
        backing = None
        source = _NO_SOURCE
        format: str | None = info.format or None
        timestamps = (
            Timestamps(atime=_time(info.atime), mtime=_time(info.mtime), ctime=_time(info.ctime))
            if info.ctime
            else None
        )
        # What is reached over the network has no file here, and no owner.
        permissions = _NOBODY if kind == "network" else _permissions(info.mode, info.owner, info.group)
        if info.detail is None:
            target = VolumeTarget(path=path, format=format, permissions=permissions, timestamps=timestamps)
        else:
            target = _rich_target(info.detail, path, format, permissions, timestamps)
            backing = _backing(info.detail, path)
            if "extents" in info.detail:
                source = _source(info.detail["extents"])
        return Volume(
            type=kind,
            name=info.name,
            key=info.key or path,
            source=source,
            capacity=info.capacity,
            allocation=info.allocation,
            physical=info.physical or None,
            target=target,
            backing_store=backing,
        )

    return describe


def _rich_target(
    detail: Mapping[str, Any],
    path: str | None,
    format: str | None,
    permissions: Permissions,
    timestamps: Timestamps | None,
) -> VolumeTarget:
    encryption = None
    secret = detail.get("encryption")
    if secret is not None:
        encryption = Encryption(format=_ENCRYPTION.get(secret, "default"))
    # libvirt has no format "luks": it is raw with encryption.
    return VolumeTarget(
        path=path,
        format="raw" if format == "luks" else format,
        permissions=permissions,
        timestamps=timestamps,
        encryption=encryption,
        compat="1.1" if detail.get("compat") == "1.1" else None,
        cluster_size=detail.get("cluster_size") if format == "qcow2" else None,
        features=_features(detail) if format == "qcow2" and detail.get("compat") == "1.1" else None,
    )


def _features(detail: Mapping[str, Any]) -> VolumeFeatures:
    """As libvirt prints them: an image of the newer version has the element, also without a feature."""
    return VolumeFeatures(words=tuple(word for word in detail.get("features", ()) if word in VOLUME_FEATURES))


def with_secret(volume: Volume, core: Core) -> Volume:
    """The document of an encrypted volume with the uuid of the secret that is for its path, if there is one."""
    from poolkit.state.secrets import Secrets
    from poolkit.xmlmap import replace

    target = volume.target
    if target.encryption is None or target.path is None:
        return volume
    try:
        uuid = Secrets(core.locations, core.host).find(target.path, "volume").uuid
    except errors.PoolkitError:  # there is none, or none that this user may see
        return volume
    encryption = replace(target.encryption, secrets=(VolumeSecret(uuid=uuid),))
    return replace(volume, target=replace(target, encryption=encryption))


def _backing(detail: Mapping[str, Any], image: str | None) -> BackingStore | None:
    """The backing store as libvirt prints it: a local file absolute, whatever the image's way to say it."""
    name = detail.get("backing")
    if name is None:
        return None
    from poolkit.formats import local

    format = detail.get("backing_format")
    found = local.meant(name, detail.get("backing_kind", "file"), format)
    if found is None:
        return BackingStore(path=name, format=local.known_format(format))
    path, format = found
    return BackingStore(path=local.beside(path, image) if image is not None else path, format=format)


def _source(extents: list[list[Any]]) -> VolumeSource:
    devices: dict[str, list[Extent]] = {}
    for path, start, end in extents:
        devices.setdefault(path, []).append(Extent(start=start, end=end))
    return VolumeSource(devices=tuple(VolumeDevice(path=p, extents=tuple(e)) for p, e in devices.items()))


@lru_cache(maxsize=256)
def _permissions(mode: int, owner: int, group: int) -> Permissions:
    return Permissions(mode=mode, owner=owner, group=group)


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds}.{rest:09d}" if rest else str(seconds)
