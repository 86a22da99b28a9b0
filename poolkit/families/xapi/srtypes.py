"""The types of storage repositories: their keys, and how they keep disks. For what can be said before a host is asked.

What a host says of its own types (the SM records) goes before this table. Its sources are XenServer's and XCP-ng's drivers
(xapi-project/sm) and, for types that are gone, the records and manuals of XenServer 5.6 and 6.1.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from poolkit import errors

MIB = 1 << 20
VHD_BLOCK = 2 * MIB
"""What the size of a VHD is a multiple of, and its least size (drivers/vhdutil.py)."""


class SrType(NamedTuple):
    """One type. ``kind`` is ``vhd`` (files), ``lvm`` (VHDs in logical volumes), ``lun`` (LUNs that exist, one for each disk),
    ``array`` (LUNs that are made), ``iso`` or ``raw``.
    """

    type: str
    label: str
    kind: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    shared: bool = False
    device: str = ""
    """The key of a device which holds one repository and nothing else: a new one takes the place of what it holds."""
    since: str = ""
    """Where it is to be had, if not everywhere today."""

    @property
    def block(self) -> int:
        """Bytes that the sizes of disks are a multiple of."""
        return VHD_BLOCK if self.kind in ("vhd", "lvm") else 1

    @property
    def branches(self) -> bool:
        """Whether disks can share data with snapshots and clones."""
        return self.kind in ("vhd", "lvm", "array")


_CHAP = "chapuser chappassword incoming_chapuser incoming_chappassword multihomed"
_TABLE = f"""
nfs | NFS VHD | vhd | server serverpath | nfsversion options useUDP | shared | |
lvm | Local VHD on LVM | lvm | device | | | device |
hba | HBA, a LUN per VDI | lun | | type | shared | |
netapp | NetApp | array | target username password | controlport usehttps aggregate FlexVols chapuser chappassword allocation \
asis multihomed | shared | | XenServer up to 6.x
lvmohba | LVHD over FC | lvm | SCSIid | allocation | shared | SCSIid |
iscsi | iSCSI, a LUN per VDI | lun | target targetIQN | port force_tapdisk {_CHAP} | shared | |
lvmoiscsi | LVHD over iSCSI | lvm | target targetIQN SCSIid | port LUNid usediscoverynumber allocation multiSession {_CHAP} | \
shared | SCSIid |
equal | EqualLogic | array | target username password | control chapuser chappassword allocation storagepool | shared | | \
XenServer up to 6.x
ext | VHD files on ext | vhd | device | | | device |
file | VHD files in a directory | vhd | location | path | | |
smb | SMB | vhd | server | username password | shared | |
iso | ISO images | iso | location | path options type nfsversion vers username cifspassword iso_path legacy_mode | shared | |
udev | Devices of a host | lun | location | | | |
dummy | xapi's own for tests | raw | | | | |
shm | Shared memory | vhd | location | | | |
rawhba | HBA, a LUN per VDI, nothing made | lun | | type | shared | | XenServer up to 8.2
cslg | StorageLink | array | target username password storageSystemId storagePoolId | adapterid port protocol chapuser \
chappassword provision-type provision-options raid-type | shared | | XenServer up to 6.x
gfs2 | GFS2 | vhd | provider | SCSIid target port targetIQN path {_CHAP} | shared | SCSIid | XenServer
xfs | VHD files on XFS | vhd | device | | | device | XCP-ng
zfs | VHD files on ZFS | vhd | location | | | | XCP-ng
cephfs | CephFS | vhd | server serverpath | options serverport | shared | | XCP-ng
moosefs | MooseFS | vhd | masterhost rootpath | masterport options | shared | | XCP-ng
glusterfs | GlusterFS | vhd | server | backupservers fetchattempts options | shared | | XCP-ng
linstor | LINSTOR (XOSTOR) | vhd | group-name redundancy | provisioning monitor-db-quorum | shared | | XCP-ng
largeblock | VHD files, 4 KiB sectors | vhd | device | | | device | XCP-ng
lvmofcoe | LVHD over FCoE | lvm | SCSIid path | allocation | shared | SCSIid | XenServer up to 8.2
"""


def _type(row: str) -> SrType:
    type, label, kind, required, optional, shared, device, since = (cell.strip() for cell in row.split("|"))
    return SrType(type, label, kind, tuple(required.split()), tuple(optional.split()), bool(shared), device, since)


TYPES = {known.type: known for known in map(_type, _TABLE.strip().splitlines())}
ALIASES = {"lvhd": "lvm", "lvhdoiscsi": "lvmoiscsi", "lvhdohba": "lvmohba", "cifs": "smb"}
RESERVED = ("SRmaster", "multipathing", "multipathhandle")
"""Keys that a host sets by itself."""


def known(type: str) -> SrType | None:
    """The type of that name, in any case; None for one that is not in the table, which a host may have all the same."""
    name = type.lower()
    return TYPES.get(ALIASES.get(name, name))


def plain(type: str) -> str:
    """A type's name as hosts have it."""
    return ALIASES.get(type.lower(), type.lower())


def check(pool: str, type: str, given: Mapping[str, Any], *, whole: bool) -> None:
    """Refuse keys that the type does not have, and, where the ``whole`` configuration is needed, one in which a key is missing.

    ``given`` has None for a value that is a secret. A type that is not in the table is the hosts' own affair.
    """
    found = known(type)
    for key, value in given.items():
        if key in RESERVED:
            raise errors.InvalidArgument(f"pool '{pool}': the hosts set the parameter '{key}' by themselves", pool=pool)
        if value is not None and key.endswith("password"):
            raise errors.InvalidArgument(
                f"pool '{pool}': the parameter '{key}' is a password, and its value is in the definition", pool=pool,
                hint=errors.Hint("define a secret, and name that in its place: ", errors.remedy("secret-define", ...)),
            )  # fmt: skip
    if found is None:
        return
    keys = (*found.required, *found.optional)
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise errors.InvalidArgument(
                f"pool '{pool}': repositories of type '{found.type}' have no parameter '{key}'", pool=pool,
                hint=f"did you mean '{near[0]}'?" if near else f"they have {', '.join(keys)}" if keys else None,
            )  # fmt: skip
    missing = [key for key in found.required if key not in given]
    if whole and missing:
        raise errors.InvalidArgument(
            f"pool '{pool}': repositories of type '{found.type}' need the parameter '{missing[0]}'", pool=pool,
            hint=errors.Hint(
                errors.Setting("source/param", f"<param name='{missing[0]}' value='...'/>", missing[0])
            ),
        )  # fmt: skip


def offered(type: str, *, shared: bool) -> tuple[str, ...]:
    """What disks of a type can have, in the words of flavors; a type that is not in the table is as most are."""
    found = known(type)
    words = {"thin": not found or found.kind == "vhd", "snapshot": not found or found.branches, "shared": shared}
    return tuple(word for word, has in words.items() if has)


def table() -> str:
    """The table of types for the manual, in Markdown."""
    rows = [
        "| type | storage | required parameters | optional parameters | disks | where |",
        "|---|---|---|---|---|---|",
    ]
    for one in TYPES.values():
        keys, more = (", ".join(f"`{key}`" for key in names) for names in (one.required, one.optional))
        where = "; ".join(filter(None, ("shared" if one.shared else "one host", one.since)))
        rows.append(f"| `{one.type}` | {one.label} | {keys} | {more} | {_DISKS[one.kind]} | {where} |")
    return "\n".join(rows) + "\n"


_DISKS = {
    "vhd": "VHD files, thin",
    "lvm": "VHDs in logical volumes, thick",
    "lun": "LUNs that exist",
    "array": "LUNs that are made",
    "iso": "images",
    "raw": "raw",
}
