"""VDI: the records of disks, and the files that hold them."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .api import Api, Call, call, setter
from .database import Row
from .drivers import Driver, backend_failure
from .marshal import Failure, constructed
from .operations import allowed_vdi, counted, disks_of, operation, place_of
from .schema import NULL, Date
from .storage import BLOCK, EXTENT, LARGEST, MIB, Disk, Place, rounded

MAP = "(string -> string) map"


def row_of(call: Call, sr: Row, found: Driver, disk: Disk, **fields: Any) -> Row:
    """The row of a disk; what an SR does not remember itself is empty."""
    kept = disk.kept if "SR_METADATA" in found.features or found.type == "lvm" else {}
    if found.kind == "iso":
        kept = {"name_label": disk.location}
    sm_config = {"vhd-parent": disk.parent} if disk.parent else {}
    if found.kind == "lun":
        sm_config = {"SCSIid": disk.location, "LUNid": disk.location, **sm_config}
    values: dict[str, Any] = {
        "name_label": "base copy" if disk.hidden else kept.get("name_label", ""),
        "name_description": kept.get("name_description", ""),
        "type": "user",
        "read_only": disk.hidden or found.kind == "iso",
        "location": disk.location,
        "managed": disk.managed and not disk.hidden,
        "physical_utilisation": call.api.storage.taken(found, disk),
        "virtual_size": disk.size,
    }
    values |= fields
    values["sm_config"] = {**sm_config, **values.get("sm_config", {})}
    ident = disk.location if is_uuid(disk.location) else str(uuid.uuid4())
    vdi = call.db.make("VDI", SR=sr.ref, uuid=ident, **values)
    allowed_vdi(call.api, vdi, found.features, True)
    return vdi


def is_uuid(text: str) -> bool:
    """Is a location the uuid of its VDI, as with VHDs."""
    return len(text) == 36 and text.count("-") == 4


def disk_of(api: Api, vdi: Row) -> tuple[Driver, Place, Disk]:
    """Where the bytes of a VDI are."""
    sr = api.db.get("SR", vdi["SR"])
    disk = disks_of(api, sr).get(vdi["location"])
    if disk is None or vdi["missing"]:
        raise Failure("VDI_MISSING", sr.ref, vdi.ref)
    return *place_of(api, sr), disk


def idle(api: Api, vdi: Row, doing: str) -> None:
    """VDI_IN_USE where a virtual machine has it."""
    if any(vbd["currently_attached"] for vbd in api.db.of(vdi, "VBDs")):
        raise Failure("VDI_IN_USE", vdi.ref, doing)


@contextmanager
def using(call: Call, vdi: Row, doing: str) -> Iterator[None]:
    """Do something long with a VDI, and say so in it."""
    mine = call.task.ref if call.task is not None else f"OpaqueRef:{uuid.uuid4()}"
    with call.db.lock:
        for task, other in vdi["current_operations"].items():
            raise Failure("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref, other, task)
        call.db.set(vdi, current_operations={mine: doing})
    try:
        yield
    finally:
        call.db.set(vdi, current_operations={})


def refreshed(call: Call, sr: Row, found: Driver, *pairs: tuple[Row, Disk]) -> None:
    """Say what disks take now, and their SR."""
    for vdi, disk in pairs:
        call.db.set(vdi, physical_utilisation=call.api.storage.taken(found, disk), virtual_size=disk.size)
    counted(call.api, sr)


# -- making ---------------------------------------------------------------------------------------------------------------


def fitting(found: Driver, size: int, raw: bool) -> int:
    """The size that a disk gets which was asked for with ``size``."""
    if size <= 0 or (size > LARGEST and found.kind in ("vhd", "lvm") and not raw):
        limits = f"VDI size must be between 1 MB and {LARGEST // MIB} MB"
        raise backend_failure(79, f"VDI Invalid size [opterr={limits}]")
    return rounded(size, EXTENT if raw else BLOCK if found.kind in ("vhd", "lvm") else MIB)


@call("VDI.create", "VDI record", gives="VDI ref")
def create(call: Call, record: Any) -> str:
    fields = constructed("VDI", record, ("SR", "virtual_size", "type", "sharable", "read_only", "other_config"))
    sr = call.db.get("SR", fields.pop("SR"))
    if fields["type"] == "cbt_metadata":
        raise Failure("VDI_INCOMPATIBLE_TYPE", NULL, fields["type"])
    disks_of(call.api, sr)
    with operation(call, sr, "vdi_create"):
        vdi, _ = made(call, sr, fields)
    return vdi.ref


def made(call: Call, sr: Row, fields: dict[str, Any]) -> tuple[Row, Disk]:
    """A new, empty VDI."""
    api = call.api
    found, place = place_of(api, sr)
    disks = disks_of(api, sr)
    if place.lasts == 0:
        place.reachable = False
        disks_of(api, sr)  # refuses
    raw = found.kind in ("array", "iso") or fields.get("sm_config", {}).get("type") == "raw"
    size = fitting(found, fields["virtual_size"], raw and found.kind == "lvm")
    if found.kind == "lun":
        return adopted(call, sr, fields, size)
    format = "raw" if raw else "vpc"
    if found.kind == "lvm":
        need = api.storage.thick(size, format)
    elif found.kind == "array":
        need = size
    else:
        need = 0 if raw else 2 * 1024 + 512
    api.storage.want(found, place, need)
    ident = str(uuid.uuid4())
    location = fields.get("name_label", "") if found.kind == "iso" else ident
    if location in disks or not location or "/" in location:
        raise backend_failure(43, "The VDI already exists" if location in disks else f"not a file name: {location!r}")
    folder = place.folder / sr.uuid
    folder.mkdir(exist_ok=True)
    file = folder / (location if found.kind == "iso" else f"{ident}.{'raw' if raw else 'vhd'}")
    disk = Disk(location, size, file, format)
    keep(disk, fields)
    if raw:
        with file.open("wb") as new:
            new.truncate(size)
    else:
        api.storage.empty(size, file)
    disks[location] = disk
    place.lasts -= place.lasts > 0
    values = {name: value for name, value in fields.items() if name != "virtual_size"}
    vdi = row_of(call, sr, found, disk, **values)
    refreshed(call, sr, found)
    return vdi, disk


def keep(disk: Disk, fields: dict[str, Any]) -> None:
    """What SRs with metadata write next to the disk."""
    disk.kept |= {name: fields[name] for name in ("name_label", "name_description") if name in fields}


def adopted(call: Call, sr: Row, fields: dict[str, Any], size: int) -> tuple[Row, Disk]:
    """Of the LUNs that nobody has, the smallest that is large enough."""
    with call.db.lock:
        free = [vdi for vdi in call.db.of(sr, "VDIs") if not vdi["managed"] and vdi["virtual_size"] >= size]
        if not free:
            raise backend_failure(44, "There is insufficient space")
        vdi = min(free, key=lambda vdi: (vdi["virtual_size"], vdi["location"]))
        found, _, disk = disk_of(call.api, vdi)
        disk.managed = True
        values = {name: value for name, value in fields.items() if name not in ("virtual_size", "sm_config")}
        call.db.set(vdi, managed=True, sm_config={**vdi["sm_config"], **fields.get("sm_config", {})}, **values)
        allowed_vdi(call.api, vdi, found.features, True)
        refreshed(call, sr, found, (vdi, disk))
    return vdi, disk


# -- unmaking -------------------------------------------------------------------------------------------------------------


@call("VDI.destroy", "VDI ref")
def destroy(call: Call, vdi: Row) -> None:
    api, db = call.api, call.db
    sr = db.get("SR", vdi["SR"])
    if sr["type"] == "udev":
        raise Failure("VDI_IS_A_PHYSICAL_DEVICE", vdi.ref)
    disks = disks_of(api, sr)
    with operation(call, sr, "vdi_destroy"), using(call, vdi, "destroy"):
        idle(api, vdi, "destroy")
        if vdi.gone:
            raise Failure("HANDLE_INVALID", "VDI", vdi.ref)
        if not vdi["managed"]:
            raise Failure("VDI_NOT_MANAGED", vdi.ref)
        found, _, disk = disk_of(api, vdi)
        with db.lock:
            for vbd in db.of(vdi, "VBDs"):
                db.drop(vbd)
            if found.kind == "lun":
                disk.managed = False
                fields = {"name_label": "", "name_description": "", "other_config": {}, "tags": [], "managed": False}
                db.set(vdi, **fields)
                allowed_vdi(api, vdi, found.features, True)
            else:
                removed(disks, disk)
                db.drop(vdi)
                if api.storage.coalesce:
                    coalesced(call, sr, disks)
        counted(api, sr)


def removed(disks: dict[str, Disk], disk: Disk) -> None:
    del disks[disk.location]
    if disk.file is not None:
        disk.file.unlink(missing_ok=True)


def coalesced(call: Call, sr: Row, disks: dict[str, Disk]) -> None:
    """What the garbage collector does: bases without children go, and bases with one child become one with it."""
    again = True
    while again:
        again = False
        for base in [disk for disk in disks.values() if disk.hidden]:
            children = [disk for disk in disks.values() if disk.parent == base.location]
            if len(children) > 1:
                continue
            for child in children:
                child.parent, child.shared = base.parent, base.shared
                child.kept.pop("snapshot", None)
                if (row := call.db.uuids.get(("VDI", child.location))) is not None:
                    config = {k: v for k, v in row["sm_config"].items() if k != "vhd-parent"}
                    call.db.set(row, sm_config={**config, "vhd-parent": base.parent} if base.parent else config)
                    found, _ = place_of(call.api, sr)
                    call.db.set(row, physical_utilisation=call.api.storage.taken(found, child))
            removed(disks, base)
            if (row := call.db.uuids.get(("VDI", base.location))) is not None:
                call.db.drop(row)
            again = True


@call("VDI.forget", "VDI ref")
def forget(call: Call, vdi: Row) -> None:
    idle(call.api, vdi, "forget")
    with call.db.lock:
        for vbd in call.db.of(vdi, "VBDs"):
            call.db.drop(vbd)
        call.db.drop(vdi)


# -- changing -------------------------------------------------------------------------------------------------------------


@call("VDI.resize", "VDI ref", "int")
def resize(call: Call, vdi: Row, size: int) -> None:
    idle(call.api, vdi, "resize")
    resized(call, vdi, size)


def resized(call: Call, vdi: Row, size: int) -> None:
    api = call.api
    sr = call.db.get("SR", vdi["SR"])
    disks_of(api, sr)
    with operation(call, sr, "vdi_resize"), using(call, vdi, "resize"):
        found, place, disk = disk_of(api, vdi)
        if size < disk.size:
            raise backend_failure(79, "VDI Invalid size [opterr=shrinking not allowed]")
        new = fitting(found, size, disk.format == "raw" and found.kind == "lvm")
        if found.kind == "lvm":
            more = api.storage.thick(new, disk.format) - api.storage.taken(found, disk)
        else:
            more = new - disk.size if found.kind == "array" else 0
        api.storage.want(found, place, max(more, 0))
        grown(api, disk, new)
        refreshed(call, sr, found, (vdi, disk))


def grown(api: Api, disk: Disk, size: int) -> None:
    """Make a disk larger; qemu-img cannot do that with a VHD in place, so it gets a new file."""
    old, disk.size = disk.size, size
    if disk.file is None or size == old:
        return
    if disk.format == "raw":
        os.truncate(disk.file, size)
        return
    own = disk.file.stat().st_size - disk.shared
    with scratch(disk.file.parent) as raw:
        disk.size = old
        api.storage.to_raw(disk, raw)
        disk.size = size
        api.storage.from_raw(disk, raw)
    disk.shared = max(disk.file.stat().st_size - own, 0) if disk.parent else 0


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A file that is gone in the end."""
    handle, name = tempfile.mkstemp(prefix=".work-", dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@call("VDI.update", "VDI ref")
def update(call: Call, vdi: Row) -> None:
    found, _, disk = disk_of(call.api, vdi)
    if "VDI_UPDATE" not in found.features:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", vdi["SR"])
    keep(disk, vdi.fields)


def kept(name: str, call: Call, vdi: Row, value: str) -> None:
    """Write what was set next to the disk."""
    keep(disk_of(call.api, vdi)[2], {name: value})


for _name in ("name_label", "name_description"):
    setter("VDI", _name, "string", partial(kept, _name))
for _name in ("read_only", "sharable", "allow_caching"):
    setter("VDI", _name, "bool")


@call("VDI.set_on_boot", "VDI ref", "enum on_boot")
def set_on_boot(call: Call, vdi: Row, value: str) -> None:
    sr = call.db.get("SR", vdi["SR"])
    with operation(call, sr, "vdi_set_on_boot"):
        call.db.set(vdi, on_boot=value)


@call(
    "VDI.introduce", "string", "string", "string", "SR ref", "enum vdi_type", "bool", "bool", MAP, "string", MAP, MAP,
    "bool", "int", "int", "pool ref?", "bool", "datetime", "VDI ref?", gives="VDI ref",
)  # fmt: skip
def introduce(
    call: Call, ident: str, name_label: str, name_description: str, sr: Row, type: str, sharable: bool, read_only: bool,
    other_config: dict[str, str], location: str, xenstore_data: dict[str, str], sm_config: dict[str, str], managed: bool,
    virtual_size: int, physical_utilisation: int, metadata_of_pool: Row | None, is_a_snapshot: bool, snapshot_time: Date,
    snapshot_of: Row | None,
) -> str:  # fmt: skip
    disks = disks_of(call.api, sr)
    with operation(call, sr, "vdi_introduce"), call.db.lock:
        if ("VDI", ident) in call.db.uuids:
            raise Failure("UUID_INVALID", "VDI", ident)
        if any(vdi["location"] == location for vdi in call.db.of(sr, "VDIs")):
            raise Failure("LOCATION_NOT_UNIQUE", sr.ref, location)
        if location not in disks:
            raise backend_failure(46, "The VDI is not available")
        found, _ = place_of(call.api, sr)
        disks[location].managed = managed
        row = row_of(
            call, sr, found, disks[location], name_label=name_label, name_description=name_description, type=type,
            sharable=sharable, read_only=read_only, other_config=other_config, xenstore_data=xenstore_data,
            sm_config=sm_config, is_a_snapshot=is_a_snapshot, snapshot_time=snapshot_time,
            snapshot_of=snapshot_of.ref if snapshot_of else NULL,
            metadata_of_pool=metadata_of_pool.ref if metadata_of_pool else NULL,
        )  # fmt: skip
        counted(call.api, sr)
    return row.ref
