"""Reaching storage, and SR.probe: what is there. SM drivers of the old kind put what they found into the failure itself."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .api import Api, Call, call
from .database import Row
from .drivers import DRIVERS, Driver, backend_failure, driver
from .marshal import Failure
from .storage import Lun

MAP = "(string -> string) map"
HEAD = '<?xml version="1.0" ?>\n'


def element(name: str, *inner: str) -> str:
    return f"<{name}>{''.join(inner)}</{name}>"


def leaf(name: str, value: object) -> str:
    return element(name, escape(str(value)))


def luns(api: Api, found: Driver, config: dict[str, str]) -> list[Lun]:
    """The LUNs that a device-config reaches."""
    if "targetIQN" in found.required:
        iqns = api.storage.target(config.get("target", ""))
        wanted = config.get("targetIQN", "")
        names = iqns if wanted == "*" else [wanted]
        return [lun for iqn in names for lun in iqns.get(iqn, [])]
    return api.storage.fabric


def reach(api: Api, found: Driver, config: dict[str, str]) -> None:
    """Fail as the driver does where a key is missing, or the storage refuses or does not answer."""
    storage = api.storage
    if "targetIQN" in found.required and config.get("target"):
        place = storage.places.get(f"target|{config['target']}")
        if place is not None and not place.reachable:
            raise backend_failure(141, "Unable to connect to iSCSI service on target")
        if place is not None and place.secret and not _known(api, config, place.secret, "chapuser", "chappassword"):
            raise backend_failure(68, "ISCSI login failed, verify CHAP credentials")
        iqns = storage.target(config["target"])
        if config.get("targetIQN") not in (*iqns, "*"):
            found.check(config, _targets(config, iqns), "targetIQN")
    if "SCSIid" in found.required:
        there = luns(api, found, config)
        if config.get("SCSIid") not in [lun.scsi_id for lun in there]:
            found.check(
                config, _luns(found, there), "" if "SCSIid" not in config and _lacks(found, config) else "SCSIid"
            )
    if found.type == "nfs" and config.get("server") and not config.get("serverpath"):
        found.check(config, _exports(api, config["server"]))
    found.check(config)
    place = storage.place(found, config)
    if not place.reachable:
        number, text = {
            "nfs": (73, "NFS mount error"),
            "smb": (111, "SMB mount error"),
            "iso": (222, "Could not mount the directory specified in Device Configuration"),
            "netapp": (124, "Unable to connect to the array"),
            "equal": (164, "Unable to connect to the array"),
        }.get(found.type, (47, "The SR is not available"))
        raise backend_failure(number, text, "the storage does not answer")
    if place.secret and not _known(api, config, place.secret, "username", "password", "cifspassword"):
        raise backend_failure(125 if found.kind == "array" else 111, "Authentication failed", "permission denied")


def _lacks(found: Driver, config: dict[str, str]) -> bool:
    return any(not config.get(key) for key in found.required if key != "SCSIid")


def _known(api: Api, config: dict[str, str], secret: tuple[str, str], user: str, *keys: str) -> bool:
    """Is the secret in a device-config the one that the storage wants."""
    values = [config.get(key, "") for key in keys]
    for key in keys:
        row = api.db.uuids.get(("secret", config.get(f"{key}_secret", "")))
        values += [row["value"]] if row is not None else []
    return config.get(user) == secret[0] and secret[1] in values


def _targets(config: dict[str, str], iqns: dict[str, list[Lun]]) -> str:
    address, port = config["target"], config.get("port", "3260")
    found = [
        element("TGT", leaf("Index", n), leaf("IPAddress", address), leaf("Port", port), leaf("TargetIQN", iqn))
        for n, iqn in enumerate(iqns)
    ]
    return HEAD + element("iscsi-target-iqns", *found)


def _luns(found: Driver, there: list[Lun]) -> str:
    if "targetIQN" not in found.required:
        devices = [
            element("BlockDevice", leaf("path", f"/dev/disk/by-scsid/{lun.scsi_id}"), leaf("SCSIid", lun.scsi_id),
                    leaf("vendor", "PEER"), leaf("size", lun.size), leaf("lun", lun.number))
            for lun in there
        ]  # fmt: skip
        return HEAD + element("Devlist", *devices)
    found_luns = [
        element(
            "LUN",
            leaf("vendor", "PEER"),
            leaf("LUNid", lun.number),
            leaf("size", lun.size),
            leaf("SCSIid", lun.scsi_id),
        )
        for lun in there
    ]
    return HEAD + element("iscsi-target", *found_luns)


def _exports(api: Api, server: str) -> str:
    paths = {key.split("|")[2] for key in api.storage.places if key.startswith(f"nfs|{server}|")} | {"/export"}
    exports = [
        element("Export", leaf("Target", server), leaf("Path", path), leaf("Accesslist", "*")) for path in sorted(paths)
    ]
    return HEAD + element("nfs-exports", *exports)


@call("SR.probe", "host ref", MAP, "string", MAP, gives="string")
def probe(call: Call, host: Row, device_config: dict[str, str], type: str, sm_config: dict[str, str]) -> str:
    found = driver(type)
    if found.type not in DRIVERS or "SR_PROBE" not in found.features:
        raise backend_failure(38, "The requested operation is not supported by the SR")
    reach(call.api, found, device_config)
    place = call.api.storage.place(found, device_config)
    srs = [
        element(
            "SR", leaf("UUID", uuid), leaf("Devlist", device_config.get("device") or device_config.get("SCSIid", ""))
        )
        for uuid in place.repositories
        if place.types.get(uuid) == found.type
    ]
    return HEAD + element("SRlist", *srs)


@call("SR.probe_ext", "host ref", MAP, "string", MAP, gives="probe_result record set")
def probe_ext(
    call: Call, host: Row, device_config: dict[str, str], type: str, sm_config: dict[str, str]
) -> list[object]:
    found = driver(type)
    if not found.cluster:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", "OpaqueRef:NULL")
    if not device_config.get("provider"):
        options = [{"provider": each} for each in ("iscsi", "hba")]
        return [{"configuration": each, "complete": False, "sr": {}, "extra_info": {}} for each in options]
    results: list[object] = []
    for lun in call.api.storage.fabric:
        if device_config.get("SCSIid", lun.scsi_id) != lun.scsi_id:
            continue
        config = {**device_config, "SCSIid": lun.scsi_id}
        place = call.api.storage.place(found, config)
        stats = [
            {
                "uuid": uuid,
                "name_label": "",
                "name_description": "",
                "free_space": place.size - call.api.storage.used(found, place),
                "total_space": place.size,
                "clustered": True,
                "health": "healthy",
            }
            for uuid in place.repositories
        ]
        for stat in stats or [{}]:
            results.append({"configuration": config, "complete": True, "sr": stat, "extra_info": {}})
    return results
