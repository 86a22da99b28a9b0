"""What hosts say of a type, and of the storage that a new repository is to be made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poolkit import errors
from poolkit.families.xapi import failures, srtypes
from poolkit.families.xapi.client import Api
from poolkit.families.xapi.failures import Failed
from poolkit.families.xapi.records import Record

_CANNOT = ("SR_BACKEND_FAILURE_38", "SR_OPERATION_NOT_SUPPORTED", "UNIMPLEMENTED_IN_SM_BACKEND", "NOT_IMPLEMENTED")


def manager(api: Api, type: str) -> Record | None:
    """The record of the hosts' driver (SM) for a type, if they have one."""
    wanted = srtypes.plain(type)
    return next((one for one in api.usable("SM", "type").values() if one["type"] == wanted), None)


def features(api: Api, type: str) -> frozenset[str]:
    """What the hosts' driver of a type can do, such as ``VDI_SNAPSHOT``."""
    found = manager(api, type)
    # What has a version in "features" is a word in "capabilities", which older hosts have alone.
    return frozenset(found.get("features") or found["capabilities"]) if found else frozenset()


def check_type(api: Api, pool: str, type: str, keys: Sequence[str]) -> None:
    """Refuse a type that the hosts do not have, and keys that neither they nor the table of types know."""
    found = manager(api, type)
    if found is None:
        types = sorted(one["type"] for one in api.usable("SM", "type").values())
        raise errors.Unsupported(
            f"pool '{pool}': the hosts have no driver for repositories of type '{type}'", pool=pool,
            hint=f"they have {errors.some(types, 30)}",
        )  # fmt: skip
    if srtypes.known(type) is None and (odd := [key for key in keys if key not in found["configuration"]]):
        raise errors.InvalidArgument(
            f"pool '{pool}': repositories of type '{type}' have no parameter '{odd[0]}'", pool=pool,
            hint=f"the hosts name {', '.join(found['configuration'])}" if found["configuration"] else None,
        )  # fmt: skip


def look(api: Api, pool: str, host: str, type: str, config: Mapping[str, str], *, overwrite: bool) -> None:
    """See what the storage holds. ``Unsafe`` for a device with a repository on it, ``InvalidArgument`` with what could be meant.

    Where repositories can be side by side, as on a share, those that are there are warned of.
    """
    try:
        text = api.ref("SR.probe", host, dict(config), srtypes.plain(type), {})
    except Failed as failed:
        if failed.code in _CANNOT:
            return
        raise failures.meaning(failed, pool, doing="look at the storage") from failed
    uuids = failures.elements(text, "UUID")
    if not uuids:
        return
    found = srtypes.known(type)
    if not (found and found.device):
        api.host.warn(f"pool '{pool}': the storage has repositories already, which stay: {errors.some(uuids)}")
    elif not overwrite:
        raise errors.Unsafe(
            f"pool '{pool}': the device holds a repository with the uuid {errors.some(uuids)}", pool=pool,
            hint=errors.Hint(
                "to use it, name its uuid ", errors.Setting("source/sr/@uuid", "in the definition, <sr uuid=...>"),
                ", and start the pool; to destroy what it holds: ",
                errors.remedy("build", pool, overwrite=True),
            ),
        )  # fmt: skip
