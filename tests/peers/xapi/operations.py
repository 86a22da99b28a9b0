"""What operations on an SR have in common: who may, one at a time, and what it says of itself afterwards."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from .api import Api, Call
from .database import Row
from .drivers import Driver, backend_failure, driver
from .marshal import Failure
from .storage import Disk, Place

# What an operation on an SR needs of the driver.
NEEDS = {
    "vdi_create": "VDI_CREATE",
    "vdi_destroy": "VDI_DELETE",
    "vdi_resize": "VDI_RESIZE",
    "vdi_clone": "VDI_CLONE",
    "vdi_snapshot": "VDI_SNAPSHOT",
    "vdi_introduce": "VDI_INTRODUCE",
    "vdi_mirror": "VDI_MIRROR",
    "vdi_enable_cbt": "VDI_CONFIG_CBT",
    "vdi_disable_cbt": "VDI_CONFIG_CBT",
    "vdi_data_destroy": "VDI_CONFIG_CBT",
    "vdi_list_changed_blocks": "VDI_CONFIG_CBT",
    "vdi_set_on_boot": "VDI_RESET_ON_BOOT",
    "update": "SR_UPDATE",
}


def plugged(api: Api, sr: Row) -> list[Row]:
    """The PBDs of an SR that are plugged."""
    return [pbd for pbd in api.db.of(sr, "PBDs") if pbd["currently_attached"]]


def place_of(api: Api, sr: Row) -> tuple[Driver, Place]:
    """The driver of an SR and where it is, by any of its PBDs."""
    found = driver(sr["type"])
    for pbd in api.db.of(sr, "PBDs"):
        return found, api.storage.place(found, pbd["device_config"])
    raise Failure("SR_HAS_NO_PBDS", sr.ref)


def disks_of(api: Api, sr: Row) -> dict[str, Disk]:
    """The disks of an SR by location; SR_HAS_NO_PBDS where nobody has it plugged."""
    if not plugged(api, sr):
        raise Failure("SR_HAS_NO_PBDS", sr.ref)
    _, place = place_of(api, sr)
    if not place.reachable:
        raise backend_failure(47, "The SR is not available", "the storage does not answer")
    return place.repositories.setdefault(sr.uuid, {})


@contextmanager
def operation(call: Call, sr: Row, name: str) -> Iterator[None]:
    """Do an operation on an SR, alone on it; what cannot be is refused, and what is in the way is waited for a while."""
    api, db = call.api, call.db
    need = NEEDS.get(name)
    if need and need not in driver(sr["type"]).features:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    mine = call.task.ref if call.task is not None else f"OpaqueRef:{uuid.uuid4()}"
    deadline = time.monotonic() + api.patience
    with db.lock:
        while True:
            if sr.gone:
                raise Failure("HANDLE_INVALID", "SR", sr.ref)
            others = {task: doing for task, doing in sr["current_operations"].items() if task != mine}
            if not [doing for doing in others.values() if (doing, name) != ("plug", "plug")]:
                break
            if time.monotonic() > deadline:
                task, doing = next(iter(others.items()))
                raise Failure("OTHER_OPERATION_IN_PROGRESS", "SR", sr.ref, doing, task)
            db.lock.wait(0.5)
        outer = mine in sr["current_operations"]
        if not outer:
            db.set(sr, current_operations={**sr["current_operations"], mine: name})
    try:
        yield
    finally:
        if not outer:
            with db.lock:
                left = {task: doing for task, doing in sr["current_operations"].items() if task != mine}
                db.set(sr, current_operations=left)


def allowed(api: Api, sr: Row) -> None:
    """Say anew what can be done with an SR and its VDIs."""
    with api.db.lock:
        if sr.gone:
            return
        features = driver(sr["type"]).features
        up = bool(plugged(api, sr))
        can = [name for name, need in NEEDS.items() if up and need in features]
        can += ["plug", "unplug", "pbd_create", "pbd_destroy"] + (["scan"] if up else ["forget", "destroy"])
        api.db.set(sr, allowed_operations=sorted(can))
        for vdi in api.db.of(sr, "VDIs"):
            allowed_vdi(api, vdi, features, up)


def allowed_vdi(api: Api, vdi: Row, features: dict[str, int], up: bool) -> None:
    """Say anew what can be done with a VDI."""
    busy = any(vbd["currently_attached"] for vbd in api.db.of(vdi, "VBDs"))
    can = ["copy", "forget"] if up and vdi["managed"] else []
    if up and vdi["managed"]:
        can += ["update"] if "VDI_UPDATE" in features else []
        can += ["snapshot"] if "VDI_SNAPSHOT" in features and not vdi["sharable"] else []
        can += ["clone"] if not busy else []
        if not busy:
            can += [name for name, need in (("destroy", "VDI_DELETE"), ("resize", "VDI_RESIZE")) if need in features]
        can += ["resize_online"] if busy and "VDI_RESIZE_ONLINE" in features else []
    api.db.set(vdi, allowed_operations=sorted(can))


def counted(api: Api, sr: Row) -> None:
    """Take an SR's numbers anew."""
    found, place = place_of(api, sr)
    disks = place.repositories.get(sr.uuid, {})
    if found.kind == "lun":
        size = sum(disk.size for disk in disks.values())
        used = sum(disk.size for disk in disks.values() if disk.managed)
    else:
        size, used = place.size, api.storage.used(found, place)
    with api.db.lock:
        rows = [vdi for vdi in api.db.of(sr, "VDIs") if vdi["managed"]]
        allocation = sum(vdi["virtual_size"] for vdi in rows)
        api.db.set(sr, physical_size=size, physical_utilisation=used, virtual_allocation=allocation)
