"""What a machine is told to use a volume: libvirt's ``<disk>`` element, and the node for QEMU's ``-blockdev``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolkit import disks, errors
from poolkit.backend import Backend, DiskSource, VolumeInfo
from poolkit.content.recipes import OVERLAYS
from poolkit.engine.chain import walk
from poolkit.model import Encryption, VolumeSecret
from poolkit.xmlmap import replace, write

if TYPE_CHECKING:  # a volume imports this module, and hands itself over
    from poolkit.engine.core import Core
    from poolkit.engine.volume import Volume

_BUSES = {"vd": "virtio", "sd": "scsi", "hd": "ide", "xvd": "xen", "fd": "fdc"}
_TARGET = re.compile("(fd|hd|sd|vd|xvd)[a-zA-Z0-9_]{1,20}")  # a part of libvirt's diskTargetDev
_ENCRYPTION: dict[str, Literal["luks", "qcow"]] = {"luks": "luks", "luks1": "luks", "qcow": "qcow", "aes": "qcow"}


class Image(NamedTuple):
    """One image of a disk: where it is, the format on record, and how it is encrypted (None: it is not)."""

    where: DiskSource
    format: str
    encryption: str | None = None
    stands: bool = False
    """Whether its header names an image below it."""


def disk_xml(volume: Volume, *, chain: bool, pool_form: bool, target: str | None, cache: disks.Cache | None) -> str:
    """See :meth:`poolkit.engine.volume.Volume.disk_xml`."""
    if chain and pool_form:
        raise errors.InvalidArgument("a disk that is named by its pool has no backing chain of its own")
    core, images = volume.pool._core, _images(volume, chain)
    top = images[0]
    dev = _target(target, top)
    source: Any = top.where.source
    if pool_form:
        source = disks.PoolSource(pool=volume.pool.name, volume=volume.name)
    disk = disks.DISKS[type(source)](
        device=_device(top),
        driver=disks.Driver(type=_driver(top, volume), cache=cache or top.where.cache, io=_io(top, cache)),
        source=_encrypted(core, volume, source, top, volume.path),
        target=disks.DiskTarget(dev=dev, bus=_bus(dev, top)),
        readonly=_device(top) == "cdrom",
    )
    if not chain:
        return write(disk)
    below = [
        disks.BACKINGS[type(image.where.source)](
            format=_driver(image, volume), source=_encrypted(core, volume, image.where.source, image, path)
        )
        for image, path in zip(images[1:], _paths(images)[1:], strict=True)
    ]
    return disks.nested(write(disk), [write(backing) for backing in below])


def blockdev(volume: Volume, *, chain: bool, target: str | None, cache: disks.Cache | None) -> dict[str, Any]:
    """See :meth:`poolkit.engine.volume.Volume.blockdev`."""
    images = _images(volume, chain)
    top = images[0]
    name = _target(target, top)
    node: dict[str, Any] = {}
    for number, image in reversed(list(enumerate(images))):
        ident = name if number == 0 else f"{name}-{number}"
        made = disks.image_node(image.where.source, image.format, image.encryption, ident)
        if image.format in OVERLAYS and (chain or not image.stands):
            made["backing"] = node or None  # null: it is to stand on nothing
        node = made
    used = cache or top.where.cache
    options: dict[str, Any] = {"node-name": name}
    if used is not None:
        # What libvirt's words mean, from its own documentation; writethrough is a property of the device and not of the node.
        options["cache"] = {"direct": used in ("none", "directsync"), "no-flush": used == "unsafe"}
    if _io(top, cache) == "native" and node["file"]["driver"] in ("file", "host_device"):
        node["file"]["aio"] = "native"
    if _device(top) == "cdrom":
        options["read-only"] = True
    return options | node


def _images(volume: Volume, chain: bool) -> list[Image]:
    """The images of a disk, the volume's own first; with ``chain`` those below it. Warnings are in ``volume.outcome``."""
    core = volume.pool._core
    with volume._work("vol-disk-xml", shared=True) as (op, backend, record):
        info = core.same_volume(backend, record, volume.info)
        images = [_image(backend, info)]
        if images[0].format in OVERLAYS:
            if chain:
                images += _below(core, volume, info)
            elif images[0].stands:
                op.host.warn(
                    f"volume '{volume.name}' stands on an image that its own header names; a chain that is written down, of "
                    "volumes of active pools alone, is not read from there"
                )
        if info.problem and not op.host.warnings:
            op.host.warn(f"volume '{volume.name}': {info.problem}")
        volume.outcome = op.outcome(False, f"volume '{volume.name}' is described")
    return images


def _image(backend: Backend, info: VolumeInfo) -> Image:
    detail = info.detail or {}
    if detail.get("ambiguous"):
        raise errors.Unsafe(
            f"volume '{info.name}' passes for several formats, and which one a machine would read is not on record",
            pool=backend.pool.name, volume=info.name,
            hint=errors.Hint(
                "say which one it is: ", errors.remedy("vol-adopt", info.name, pool=backend.pool.name, format=...)
            ),
        )  # fmt: skip
    if detail.get("data_file"):
        raise errors.Unsafe(
            f"the data of volume '{info.name}' is in another file, which its header names", pool=backend.pool.name,
            volume=info.name,
        )  # fmt: skip
    if detail.get("error"):
        raise errors.Unsafe(
            f"volume '{info.name}' {info.problem}", pool=backend.pool.name, volume=info.name,
        )  # fmt: skip
    return Image(
        backend.disk_source(info), info.format or "raw", detail.get("encryption"), stands=bool(detail.get("backing"))
    )


def _below(core: Core, volume: Volume, info: VolumeInfo) -> list[Image]:
    """The images below, down to the first that can have none below it; ``Unsafe`` for one that is no volume of an active pool."""
    images: list[Image] = []
    links = walk(core, volume.pool.name, volume.path, info)
    for number, link in enumerate(links):
        if link.problem or link.volume is None or link.pool is None:
            raise errors.Unsafe(
                f"volume '{info.name}' stands on '{link.path[:200]}', which is not given to a machine: "
                + (link.problem or "it is no volume of an active pool"),
                pool=volume.pool.name, volume=info.name,
                hint="make a pool of the folder that holds it, and start that pool",
            )  # fmt: skip
        if number:
            record, below = core.find_volume("path", link.path)
            images.append(_image(core.definitions.backend(core.definitions.running(record)), below))
        if (link.format or "raw") not in OVERLAYS:
            break
    return images


def _paths(images: list[Image]) -> list[str]:
    return [str(getattr(i.where.source, "file", "") or getattr(i.where.source, "dev", "")) for i in images]


def _driver(image: Image, volume: Volume) -> str:
    found = disks.driver_type(image.format)
    if found is None:
        raise errors.Unsupported(
            f"volume '{volume.name}': libvirt has no word for disks of format {image.format}", volume=volume.name,
            hint=errors.Hint("QEMU itself may open it: ", errors.Option("qemu")),
        )  # fmt: skip
    return found


def _encrypted(core: Core, volume: Volume, source: Any, image: Image, path: str) -> Any:
    """``source`` with how the image is encrypted, and the secret whose usage is its ``path``."""
    if image.encryption is None:
        return source
    kind = _ENCRYPTION.get(image.encryption)
    if kind is None:
        raise errors.Unsupported(
            f"volume '{volume.name}': QEMU does not open {image.encryption}, only version 1 of LUKS", volume=volume.name
        )
    from poolkit.state.secrets import Secrets

    try:
        uuid = Secrets(core.locations, core.host).find(path, "volume").uuid
    except errors.SecretNotFound as error:
        raise errors.SecretNotFound(
            f"'{path[:200]}' is encrypted, and no secret has its path as usage", volume=volume.name,
            hint=f"define one with <usage type='volume'><volume>{path[:200]}</volume></usage>, here and in libvirt",
        ) from error  # fmt: skip
    return replace(source, encryption=Encryption(format=kind, secrets=(VolumeSecret(uuid=uuid),)))


def _device(image: Image) -> Literal["disk", "cdrom"]:
    return "cdrom" if image.format == "iso" else "disk"


def _target(said: str | None, image: Image) -> str:
    if said is None:
        return "sda" if _device(image) == "cdrom" else "vda"
    if _TARGET.fullmatch(said) is None:
        raise errors.InvalidArgument(
            f"'{said[:60]}' is no name of a disk in a machine", hint="such as vda, sdb, hda, xvda"
        )
    return said


def _bus(dev: str, image: Image) -> str:
    bus = _BUSES[dev[:3] if dev.startswith("xvd") else dev[:2]]
    return "sata" if bus == "scsi" and _device(image) == "cdrom" else bus


def _io(image: Image, cache: disks.Cache | None) -> disks.Io | None:
    """The hint of the storage; QEMU makes requests natively only past the host's page cache."""
    return image.where.io if cache in (None, "none", "directsync") else None
