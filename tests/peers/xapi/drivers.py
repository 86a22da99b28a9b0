"""The SR types: what their SM records say, which keys they need, and what they answer when one is missing.

The capabilities are those of XenServer's own SM records (6.1 for what is gone since, 8 for the rest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .marshal import Failure

CLUSTERED = "corosync"

# What a type's SR.probe or SR.create answers for want of a key: the number of SR_BACKEND_FAILURE and its text.
MISSING = {
    "device": (90, "The request is missing the device parameter"),
    "location": (94, "The request is missing the location parameter"),
    "target": (95, "The request is missing the target parameter"),
    "targetIQN": (96, "The request is missing or has an incorrect target IQN parameter"),
    "serverpath": (101, "The request is missing the serverpath parameter"),
    "server": (102, "The request is missing the server parameter"),
    "SCSIid": (107, "The SCSIid parameter is missing or incorrect"),
}
SEVERAL = (115, "The request is missing one or more of the required parameters")
ARRAY = {
    "netapp": {"target": 120, "username": 121, "password": 122, "aggregate": 123},
    "equal": {"target": 160, "username": 161, "password": 162, "storagepool": 163},
}

_VDI = "VDI_CREATE VDI_DELETE VDI_ATTACH VDI_DETACH"
_COW = f"{_VDI} VDI_CLONE VDI_SNAPSHOT VDI_RESIZE VDI_UPDATE"
_FILE = f"SR_PROBE SR_UPDATE {_COW} VDI_MIRROR VDI_GENERATE_CONFIG VDI_RESET_ON_BOOT/2 VDI_CONFIG_CBT THIN_PROVISIONING"
_LVM = f"SR_PROBE SR_UPDATE {_COW} VDI_MIRROR VDI_RESET_ON_BOOT/2 VDI_CONFIG_CBT"
_LUN = f"SR_PROBE {_VDI} VDI_INTRODUCE"
_ARRAY = f"SR_PROBE SR_UPDATE {_VDI} VDI_CLONE VDI_SNAPSHOT VDI_RESIZE"
_CHAP = "chapuser chappassword incoming_chapuser incoming_chappassword multihomed"


@dataclass(frozen=True)
class Driver:
    """A type of SR. ``kind`` is how it keeps disks, ``place`` the keys that say where."""

    type: str
    label: str
    kind: str
    place: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    features: dict[str, int]
    cluster: bool = False

    def sm(self) -> dict[str, Any]:
        """The fields of its SM record."""
        keys = {key: f"{key.replace('_', ' ')} (required)" for key in self.required}
        keys |= {key: f"{key.replace('_', ' ')} (optional)" for key in self.optional}
        return {
            "name_label": self.label,
            "name_description": f"SR plugin which keeps disks as {KINDS[self.kind]}",
            "type": self.type,
            "vendor": "poolkit's tests",
            "copyright": "none",
            "version": "3.0",
            "required_api_version": "1.0",
            "configuration": keys,
            "capabilities": [*self.features],
            "features": self.features,
            "driver_filename": f"/opt/xensource/sm/{self.type}SR",
            "required_cluster_stack": [CLUSTERED] if self.cluster else [],
        }

    def check(self, config: dict[str, str], details: str = "", wanted: str = "") -> None:
        """Refuse a device-config in which a key is missing; ``details`` is the XML that helps to fill it in."""
        missing = [key for key in self.required if not config.get(key) and not config.get(f"{key}_secret")]
        if wanted:
            missing = [wanted]
        if not missing:
            return
        key = missing[0]
        number, text = MISSING.get(key, SEVERAL)
        if self.type in ARRAY and key in ARRAY[self.type]:
            number, text = ARRAY[self.type][key], f"The request is missing the {key} parameter"
        if self.type == "iso":
            number, text = 220, "The request is missing the location parameter"
        raise backend_failure(number, text, details)


KINDS = {
    "vhd": "VHD files",
    "lvm": "VHDs in logical volumes",
    "lun": "LUNs, one for each VDI",
    "array": "LUNs that it makes on an array",
    "iso": "ISO images",
}


def backend_failure(number: int, text: str, details: str = "") -> Failure:
    """What an SM driver answers."""
    return Failure(f"SR_BACKEND_FAILURE_{number}", "", text, details)


def _driver(line: str) -> Driver:
    label, type, kind, place, required, optional, features = (word.strip() for word in line.split("|"))
    return Driver(
        type,
        label,
        kind,
        tuple(place.split()),
        tuple(required.split()),
        tuple(optional.split()),
        {name: int(version or 1) for name, _, version in (word.partition("/") for word in features.split())},
        cluster=type == "gfs2",
    )


# label | type | kind | keys that say where | required | optional | features
TYPES = f"""
NFS VHD | nfs | vhd | server serverpath | server serverpath | nfsversion options useUDP | {_FILE} SR_CACHING
SMB | smb | vhd | server | server | username password | {_FILE}
Local Path VHD | file | vhd | location | location | | {_FILE}
Local EXT3 VHD | ext | vhd | device | device | | {_FILE} SR_SUPPORTS_LOCAL_CACHING
Local XFS VHD | xfs | vhd | device | device | | {_FILE}
Large Block SR | largeblock | vhd | device | device | | {_FILE}
Local ZFS VHD | zfs | vhd | location | location | | {_FILE.replace("SR_PROBE ", "")}
CephFS | cephfs | vhd | server serverpath | server serverpath | options serverport | {_FILE.replace("VDI_CONFIG_CBT ", "")}
MooseFS | moosefs | vhd | masterhost rootpath | masterhost rootpath | masterport options | {_FILE}
GlusterFS | glusterfs | vhd | server | server | backupservers fetchattempts options | {_FILE}
LINSTOR | linstor | vhd | group-name | group-name redundancy | provisioning monitor-db-quorum | SR_UPDATE {_COW} VDI_MIRROR
GFS2 | gfs2 | vhd | SCSIid | provider SCSIid | target port targetIQN path {_CHAP} | {_COW} SR_METADATA
Shared memory | shm | vhd | location | location | | {_VDI} VDI_CLONE VDI_SNAPSHOT SR_SCAN
Dummy | dummy | vhd | | | | {_COW} VDI_INTRODUCE VDI_MIRROR
Local VHD on LVM | lvm | lvm | device | device | | {_LVM} SR_TRIM
LVHD over iSCSI | lvmoiscsi | lvm | SCSIid | target targetIQN SCSIid | port LUNid usediscoverynumber allocation multiSession \
{_CHAP} | {_LVM} SR_METADATA VDI_GENERATE_CONFIG SR_TRIM
LVHD over FC | lvmohba | lvm | SCSIid | SCSIid | allocation | {_LVM} SR_METADATA VDI_GENERATE_CONFIG SR_TRIM
iSCSI | iscsi | lun | target targetIQN | target targetIQN | port force_tapdisk {_CHAP} | {_LUN}
HBA LUN-per-VDI driver | hba | lun | | | type | {_LUN}
Raw HBA | rawhba | lun | | | type | VDI_ATTACH VDI_DETACH VDI_DELETE
NetApp | netapp | array | target | target username password | controlport usehttps aggregate FlexVols chapuser chappassword \
allocation asis multihomed | {_ARRAY}
EqualLogic | equal | array | target | target username password | control chapuser chappassword allocation storagepool | {_ARRAY}
StorageLink | cslg | array | target storageSystemId storagePoolId | target username password storageSystemId storagePoolId | \
adapterid port protocol chapuser chappassword provision-type provision-options raid-type | \
{_ARRAY} VDI_RESIZE_ONLINE VDI_INTRODUCE VDI_UPDATE
ISO | iso | iso | location | location | path options type nfsversion vers username cifspassword iso_path legacy_mode | \
SR_SCAN {_VDI}
Physical devices | udev | lun | location | location | | SR_UPDATE VDI_ATTACH VDI_DETACH VDI_INTRODUCE VDI_UPDATE
"""

DRIVERS = {driver.type: driver for driver in map(_driver, TYPES.strip().splitlines())}
ALIASES = {"lvhd": "lvm", "lvhdoiscsi": "lvmoiscsi", "lvhdohba": "lvmohba", "cifs": "smb"}


def driver(type: str) -> Driver:
    """The type of that name, in any case; SR_UNKNOWN_DRIVER for another."""
    name = type.lower()
    try:
        return DRIVERS[ALIASES.get(name, name)]
    except KeyError:
        raise Failure("SR_UNKNOWN_DRIVER", type) from None
