"""What a new image is to be: from a definition of a volume to the combination that is made, or the reason why it cannot be."""

from __future__ import annotations

from poolkit import errors
from poolkit.lean import TYPE_CHECKING
from poolkit.values import value

if TYPE_CHECKING:
    from poolkit.host.port import Host
    from poolkit.model import Encryption, Volume

PREALLOCATION: dict[str, tuple[str, ...]] = {
    "raw": ("off", "falloc", "full"),
    "qcow2": ("off", "metadata", "falloc", "full"),
    "luks": ("off", "metadata", "falloc", "full"),
    "vdi": ("off", "metadata"),
    "vhdx": ("off", "full"),
    "vpc": ("off", "full"),
    "vmdk": ("off",),
    "qed": ("off",),
    "qcow": ("off",),
    "ploop": ("off",),
}
"""The formats that can be made, each with its ways of preallocation."""

BYTES = frozenset(("raw", "iso", "fat", "none", "unknown"))
"""Formats whose capacity is the size of the file: their bytes are the data."""

OVERLAYS = frozenset(("qcow2", "qed", "qcow", "vmdk"))
"""Formats that can stand on a backing image."""


@value(frozen=True)
class Recipe:
    """A new image, checked: every combination that qemu-img would refuse has been refused with a sentence."""

    format: str
    capacity: int
    preallocation: str = "off"
    cluster_size: int | None = None
    compat: str | None = None
    features: tuple[str, ...] = ()
    encryption: Encryption | None = None
    secret: bytes | None = None
    backing: tuple[str, str] | None = None


def format_of(volume: Volume, default: str = "raw") -> str:
    """The format a definition asks for, in our names: raw with LUKS encryption is ``luks``."""
    format = volume.target.format or default
    if format == "vhd":
        return "vpc"
    if format in BYTES and volume.target.encryption is not None and volume.target.encryption.format != "qcow":
        return "luks"
    return format


def recipe(
    host: Host | None,
    volume: Volume,
    capacity: int,
    *,
    default: str = "raw",
    preallocation: str | None = None,
    copied: str | None = None,
) -> Recipe:
    """What is to be made for a definition; ``InvalidArgument`` or ``Unsupported`` with the reason where that cannot be.

    Without a ``host`` no secret is looked up: what is made of it is for a plan.
    ``copied`` is the format of the volume it is made from: a copy of its bytes needs no secret, and may have a format
    that cannot be made anew.
    """
    name, target = volume.name, volume.target
    format = format_of(volume, default)
    if format not in PREALLOCATION and format not in BYTES and format != copied:
        raise errors.Unsupported(
            f"volume '{name}': the format '{format}' cannot be created",
            volume=name,
            hint=f"these can be: {', '.join(f for f in PREALLOCATION if f != 'luks')}",
        )
    wanted = preallocation or "off"
    if wanted not in PREALLOCATION.get(format, ("off",)):
        raise _wrong(
            name, f"preallocation '{wanted}' is not one of {', '.join(PREALLOCATION[format])} for format {format}"
        )
    compat, features = (target.compat, target.feature_words) if format == "qcow2" else (None, ())  # as libvirt
    if features:
        if "data_file" in target.feature_words:
            raise errors.Unsafe(
                f"volume '{name}': an image whose data is in a second file is not made", volume=name,
                hint="leave out the feature data_file",
            )  # fmt: skip
        if compat == "0.10":
            raise _wrong(name, "features need compat 1.1")
    if compat not in (None, "0.10", "1.1"):
        raise _wrong(name, "compat is 0.10 or 1.1")
    size = target.cluster_size if format in ("qcow2", "qed") else None
    if size is not None:
        low, high = (512, 2 << 20) if format == "qcow2" else (4096, 64 << 20)
        if size & (size - 1) or not low <= size <= high:
            raise _wrong(name, f"the cluster size of {format} is a power of two from {low} to {high} bytes")
        if "extended_l2" in features and size < 16384:
            raise _wrong(name, "extended_l2 needs clusters of 16384 bytes or more")
    backing = volume.backing_store
    if backing is not None:
        if format not in OVERLAYS:
            raise _wrong(name, f"the format {format} has no backing store")
        if backing.format is None:
            raise errors.Unsafe(
                f"volume '{name}': the backing store '{backing.path}' needs its format", volume=name,
                hint="add <format type='…'/> to <backingStore>: guessing it would let its content decide what is read",
            )  # fmt: skip
        if wanted != "off" and "extended_l2" not in features:
            raise _wrong(name, "an overlay is preallocated only with the feature extended_l2")
    encryption = target.encryption
    if format == copied and encryption is not None and not encryption.secrets:
        encryption = None
    if format == "luks" and encryption is None and format != copied:
        raise _wrong(name, _NO_KEY)
    secret = _secret_for(host, name, format, encryption)
    if format not in BYTES:
        capacity = -(-capacity // 512) * 512  # images have whole sectors
    return Recipe(
        format, capacity, wanted, size, compat, features,
        encryption if secret is not None else None, secret,
        None if backing is None or backing.format is None else (backing.path, backing.format),
    )  # fmt: skip


def _wrong(name: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"volume '{name}': {why}", volume=name)


_NO_KEY = "encryption needs a secret: <encryption format='luks'><secret type='passphrase' uuid='…'/></encryption>"


def _secret_for(host: Host | None, name: str, format: str, encryption: Encryption | None) -> bytes | None:
    if encryption is None:
        return None
    if format not in ("luks", "qcow2"):
        raise errors.Unsupported(f"volume '{name}': format {format} cannot be encrypted", volume=name, hint="use qcow2")
    if encryption.format not in ("luks", "luks-any") or encryption.engine == "librbd":
        raise errors.Unsupported(
            f"volume '{name}': encryption '{encryption.format}' cannot be made", volume=name, hint="use luks"
        )
    if not encryption.secrets:
        raise _wrong(name, _NO_KEY)
    first = encryption.secrets[0]
    return None if host is None else host.secret("volume", uuid=first.uuid, usage=first.usage)
