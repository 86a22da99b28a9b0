"""SR and PBD: the records of repositories, on the storage that they stand for."""

from __future__ import annotations

from typing import Any

from . import probing
from .api import Api, Call, call, setter
from .database import Row
from .disks import row_of
from .drivers import DRIVERS, Driver, backend_failure, driver
from .marshal import Failure, constructed
from .operations import allowed, counted, disks_of, operation, place_of, plugged
from .storage import Disk, Place, vhd_size

MAP = "(string -> string) map"


# -- SR -------------------------------------------------------------------------------------------------------------------


def hidden_passwords(call: Call, config: dict[str, str]) -> dict[str, str]:
    """A device-config in which the passwords are secrets of their own."""
    kept = {}
    for key, value in config.items():
        if key.endswith("password"):
            kept[f"{key}_secret"] = call.db.make("secret", value=value).uuid
        else:
            kept[key] = value
    return kept


@call("SR.create", "host ref", MAP, "int", *["string"] * 4, "bool", MAP, gives="SR ref")
def create(
    call: Call,
    host: Row,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    found, db = driver(type), call.db
    sr = db.make(
        "SR",
        name_label=name_label,
        name_description=name_description,
        type=found.type,
        content_type=content_type or ("iso" if found.kind == "iso" else ""),
        shared=shared,
        sm_config=sm_config,
        physical_size=physical_size,
    )
    config = hidden_passwords(call, device_config)
    hosts = list(db.rows("host")) if shared else [host]
    pbds = [db.make("PBD", host=each.ref, SR=sr.ref, device_config=config) for each in hosts]
    try:
        probing.reach(call.api, found, config)
        place = call.api.storage.place(found, config)
        if found.place in (("device",), ("SCSIid",)):
            wipe(call.api, place)
        place.repositories[sr.uuid] = {}
        place.types[sr.uuid] = found.type
        for pbd in pbds:
            plug(call, pbd)
    except BaseException:
        forgotten(call, sr)
        raise
    return sr.ref


def wipe(api: Api, place: Place) -> None:
    """A device holds one SR; a new one takes the place of the old, whose data is gone."""
    for old in list(place.repositories):
        row = api.db.uuids.get(("SR", old))
        if row is not None and plugged(api, row):
            raise backend_failure(16, "SR device in use", old)
        for disk in place.repositories.pop(old).values():
            if disk.file is not None:
                disk.file.unlink(missing_ok=True)


@call("SR.introduce", *["string"] * 5, "bool", MAP, gives="SR ref")
def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    with call.db.lock:
        if ("SR", uuid) in call.db.uuids:
            raise Failure("SR_UUID_EXISTS", uuid)
        row = call.db.make(
            "SR",
            uuid=uuid,
            name_label=name_label,
            name_description=name_description,
            type=driver(type).type,
            content_type=content_type,
            shared=shared,
            sm_config=sm_config,
            physical_size=-1,
            physical_utilisation=-1,
            virtual_allocation=0,
        )
        allowed(call.api, row)
    return row.ref


@call("SR.forget", "SR ref")
def forget(call: Call, sr: Row) -> None:
    with operation(call, sr, "forget"):
        if plugged(call.api, sr):
            raise Failure("SR_HAS_PBD", sr.ref)
        forgotten(call, sr)


def forgotten(call: Call, sr: Row) -> None:
    """Delete the rows of an SR; its data stays."""
    with call.db.lock:
        for vdi in call.db.of(sr, "VDIs"):
            for vbd in call.db.of(vdi, "VBDs"):
                call.db.drop(vbd)
            call.db.drop(vdi)
        for pbd in call.db.of(sr, "PBDs"):
            call.db.drop(pbd)
        call.db.drop(sr)


@call("SR.destroy", "SR ref")
def destroy(call: Call, sr: Row) -> None:
    db = call.db
    with operation(call, sr, "destroy"):
        if not list(db.of(sr, "PBDs")):
            raise Failure("SR_HAS_NO_PBDS", sr.ref)
        if plugged(call.api, sr):
            raise Failure("SR_HAS_PBD", sr.ref)
        if sr["other_config"].get("indestructible") == "true":
            raise Failure("SR_INDESTRUCTIBLE", sr.ref)
        if any(host["local_cache_sr"] == sr.ref for host in db.rows("host")):
            raise Failure("SR_IS_CACHE_SR", next(host.ref for host in db.rows("host")))
        if any(vdi["managed"] and vdi["type"] != "rrd" for vdi in db.of(sr, "VDIs")):
            raise Failure("SR_NOT_EMPTY")
        found, place = place_of(call.api, sr)
        for disk in place.repositories.pop(sr.uuid, {}).values():
            if disk.file is not None and found.kind != "lun":
                disk.file.unlink(missing_ok=True)
        forgotten(call, sr)


@call("SR.scan", "SR ref")
def scan(call: Call, sr: Row) -> None:
    disks_of(call.api, sr)
    with operation(call, sr, "scan"):
        scanned(call, sr)


def scanned(call: Call, sr: Row) -> None:
    """Let the rows be what is on the storage: by location."""
    api, db = call.api, call.db
    disks = disks_of(api, sr)
    found, place = place_of(api, sr)
    if found.kind == "lun" and found.type != "udev":
        pbd = next(db.of(sr, "PBDs"))
        for lun in probing.luns(api, found, pbd["device_config"]):
            disks.setdefault(lun.scsi_id, Disk(lun.scsi_id, lun.size, lun.file, "raw", managed=False))
    folder = place.folder / sr.uuid
    folder.mkdir(exist_ok=True)
    known = {disk.file for disk in disks.values()}
    for file in folder.iterdir():
        if file not in known and not file.name.startswith("."):
            adopt(found, disks, file)
    for location, disk in list(disks.items()):
        if disk.file is not None and not disk.file.exists():
            del disks[location]
    with db.lock:
        rows = {vdi["location"]: vdi for vdi in db.of(sr, "VDIs")}
        for location, vdi in rows.items():
            if location not in disks:
                db.set(vdi, missing=True) if any(db.of(vdi, "VBDs")) else db.drop(vdi)
        for location, disk in disks.items():
            if location not in rows:
                row_of(call, sr, found, disk)
            elif disk.size != rows[location]["virtual_size"]:
                db.set(rows[location], virtual_size=disk.size)
    counted(api, sr)
    allowed(api, sr)


def adopt(found: Driver, disks: dict[str, Disk], file: Any) -> None:
    """A file that somebody put into the folder of an SR."""
    if found.kind == "iso":
        if file.suffix in (".iso", ".img"):
            disks[file.name] = Disk(file.name, file.stat().st_size, file, "raw")
    elif file.suffix == ".vhd" and (size := vhd_size(file)):
        disks[file.stem] = Disk(file.stem, size, file)


@call("SR.update", "SR ref")
def update(call: Call, sr: Row) -> None:
    disks_of(call.api, sr)
    with operation(call, sr, "update"):
        counted(call.api, sr)


@call("SR.get_supported_types", gives="string set")
def get_supported_types(call: Call) -> list[str]:
    return [*DRIVERS]


setter("SR", "name_label", "string")
setter("SR", "name_description", "string")
setter("SR", "physical_size", "int")


@call("SR.set_shared", "SR ref", "bool")
def set_shared(call: Call, sr: Row, value: bool) -> None:
    pbds = [pbd.ref for pbd in call.db.of(sr, "PBDs")]
    if not value and len(pbds) > 1:
        raise Failure("SR_HAS_MULTIPLE_PBDS", *pbds)
    call.db.set(sr, shared=value)


# -- PBD ------------------------------------------------------------------------------------------------------------------


@call("PBD.create", "PBD record", gives="PBD ref")
def pbd_create(call: Call, record: Any) -> str:
    fields, db = constructed("PBD", record, ("host", "SR", "device_config")), call.db
    host, sr = db.get("host", fields["host"]), db.get("SR", fields["SR"])
    if "SRmaster" in fields["device_config"]:
        raise Failure("INVALID_VALUE", "device_config", "SRmaster")
    with db.lock:
        for pbd in db.of(sr, "PBDs"):
            if pbd["host"] == host.ref:
                raise Failure("PBD_EXISTS", sr.ref, host.ref, pbd.ref)
        fields["device_config"] = hidden_passwords(call, fields["device_config"])
        row = db.make("PBD", **fields)
        allowed(call.api, sr)
    return row.ref


@call("PBD.destroy", "PBD ref")
def pbd_destroy(call: Call, pbd: Row) -> None:
    with call.db.lock:
        if pbd["currently_attached"]:
            raise Failure("OPERATION_NOT_ALLOWED", "PBD is currently attached")
        sr = call.db.tables["SR"].get(pbd["SR"])
        call.db.drop(pbd)
        if sr is not None:
            allowed(call.api, sr)


@call("PBD.set_device_config", "PBD ref", MAP)
def set_device_config(call: Call, pbd: Row, value: dict[str, str]) -> None:
    if pbd["currently_attached"]:
        raise Failure("OPERATION_NOT_ALLOWED", "PBD is currently attached")
    call.db.set(pbd, device_config=hidden_passwords(call, value))


@call("PBD.plug", "PBD ref")
def plug(call: Call, pbd: Row) -> None:
    if pbd["currently_attached"]:
        return
    api, db = call.api, call.db
    sr = db.get("SR", pbd["SR"])
    found = driver(sr["type"])
    with operation(call, sr, "plug"):
        others = plugged(api, sr)
        if others and not sr["shared"]:
            raise Failure("SR_NOT_SHARABLE", sr.ref, pbd["host"])
        probing.reach(api, found, pbd["device_config"])
        place = api.storage.place(found, pbd["device_config"])
        if found.kind in ("lun", "iso", "array") or found.place in ((), ("location",)):
            place.repositories.setdefault(sr.uuid, {})
        if place.types.setdefault(sr.uuid, found.type) != found.type or sr.uuid not in place.repositories:
            where = api.storage.key(found, pbd["device_config"])
            raise backend_failure(47, "The SR is not available", f"no SR {sr.uuid} at {where}")
        db.set(pbd, currently_attached=True)
        if not others:
            scanned(call, sr)
        allowed(api, sr)


@call("PBD.unplug", "PBD ref")
def unplug(call: Call, pbd: Row) -> None:
    if not pbd["currently_attached"]:
        return
    db = call.db
    sr = db.get("SR", pbd["SR"])
    with operation(call, sr, "unplug"), db.lock:
        for vbd in db.rows("VBD"):
            vdi = db.tables["VDI"].get(vbd["VDI"])
            if vdi is None or vdi["SR"] != sr.ref or not vbd["currently_attached"]:
                continue
            if db.get("VM", vbd["VM"])["resident_on"] == pbd["host"]:
                raise Failure("VDI_IN_USE", vdi.ref, "unplug")
        db.set(pbd, currently_attached=False)
        allowed(call.api, sr)
