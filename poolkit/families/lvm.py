"""LVM: its reports as plain values, the rules of its names, and its refusals in words.

Everything is asked of LVM's own tools, in one report per question and in JSON: the volume groups of the machine with
their devices (``vgs``), and all logical volumes of a group with their segments (``lvs``).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from poolkit import errors
from poolkit.host import undo
from poolkit.host.directory import TEMPORARY
from poolkit.host.port import Host

# lvm(8), "VALID NAMES" and "RESERVED NAMES"; NAME_LEN of lib/metadata/metadata-exported.h is 128 with the final NUL.
_NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}\Z")
_RESERVED = re.compile(
    r"snapshot|pvmove|.*_(cdata|cmeta|corig|cpool|cvol|iorig|imeta|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|"
    r"vdata|vorigin|wcorig)"
)
_DEVICE_NAME = 127  # bytes of a device-mapper name (DM_NAME_LEN of linux/dm-ioctl.h is 128)

_GROUP_FIELDS = (
    "vg_name",
    "vg_uuid",
    "vg_size",
    "vg_free",
    "vg_extent_size",
    "vg_missing_pv_count",
    "lv_count",
    "pv_name",
    "pv_uuid",
)
_FIELDS = (
    "lv_name", "lv_uuid", "lv_size", "lv_role", "lv_parent", "lv_active", "lv_device_open", "lv_health_status",
    "lv_skip_activation", "lv_kernel_major", "lv_kernel_minor", "segtype", "seg_pe_ranges", "origin", "origin_size", "pool_lv",
    "data_percent", "metadata_percent", "zero", "lv_tags", "lv_attr", "vg_uuid", "vg_size", "vg_free", "vg_extent_size",
)  # fmt: skip
UNKNOWN = "[unknown]"
"""The group of a device whose metadata cannot be read."""
# Types that hold the data of other volumes and are none themselves.
POOLS = frozenset(("thin-pool", "cache-pool", "vdo-pool"))


class Group(NamedTuple):
    """A volume group. Sizes in bytes; ``missing`` counts devices that are gone, of which ``lost`` has the UUIDs.

    ``volumes`` counts logical volumes.
    """

    name: str
    uuid: str
    size: int
    free: int
    extent: int
    missing: int
    volumes: int
    devices: tuple[str, ...]
    lost: tuple[str, ...] = ()


class LogicalVolume(NamedTuple):
    """A logical volume, hidden ones (the legs of a mirror, the data of a thin pool) included. Sizes in bytes.

    ``pieces`` are (device or hidden volume, first extent, extent after the last), in order. ``origin_size`` is set for
    snapshots with a space of their own; ``percent`` is how much of a thin volume, a pool or such a space is filled, and
    ``metadata`` of a pool's metadata. ``zero`` says that a thin pool erases what it gives to a volume. ``stale``: the device here
    is not what the metadata says, because another host changed it.
    """

    name: str
    uuid: str
    size: int
    role: str
    parent: str
    active: bool
    open: bool
    health: str
    skip: bool
    device: str
    segtype: str
    pieces: tuple[tuple[str, int, int], ...]
    origin: str
    origin_size: int
    pool: str
    percent: float
    metadata: float
    zero: bool
    tags: tuple[str, ...] = ()
    stale: bool = False

    @property
    def own(self) -> bool:
        """Whether it can be named in a command: a volume or a pool, not a part of one."""
        return (self.role.startswith("public") or self.segtype in POOLS) and not self.parent

    @property
    def external(self) -> bool:
        """Whether thin volumes stand on it from outside their pool: role extthinorigin, multiextthinorigin for several."""
        return "extthinorigin" in self.role

    @property
    def listed(self) -> bool:
        """Whether it is a volume of a storage pool: no pool for others, and not an unfinished one of ours."""
        return self.own and self.segtype not in POOLS and not self.name.startswith(TEMPORARY)

    @property
    def thin(self) -> bool:
        """Whether it takes its space from a thin pool."""
        return self.segtype == "thin"

    @property
    def snapshot(self) -> bool:
        """Whether it is a snapshot with a space of its own, which lives only as long as its origin."""
        return "thicksnapshot" in self.role

    @property
    def partial(self) -> bool:
        """Whether a device that it has data on is missing."""
        return self.health == "partial"

    @property
    def degraded(self) -> bool:
        """Whether all its data is there although a device is missing: LVM activates a RAID volume as long as enough is left."""
        return self.partial and self.active and self.segtype.startswith("raid")

    @property
    def capacity(self) -> int:
        """Bytes of its device; the size of a snapshot is its room for changes."""
        return (self.origin_size or self.size) if self.snapshot else self.size


# -- reports --------------------------------------------------------------------------------------------------------


def report(
    host: Host, tool: str, fields: Sequence[str], *operands: str, hidden: bool = False, shared: bool = False,
    select: str = "", more: Sequence[str] = (), ok: Sequence[int] = (0,),
) -> list[dict[str, str]]:  # fmt: skip
    """The rows of ``lvs``, ``vgs`` or ``pvs``, each a mapping from field to text; sizes are decimal bytes."""
    return told(host, tool, fields, *operands, hidden=hidden, shared=shared, select=select, more=more, ok=ok)[0]


def told(
    host: Host, tool: str, fields: Sequence[str], *operands: str, hidden: bool = False, shared: bool = False,
    select: str = "", more: Sequence[str] = (), ok: Sequence[int] = (0,),
) -> tuple[list[dict[str, str]], str]:  # fmt: skip
    """As ``report``, with what LVM said beside it: its warnings."""
    argv = [tool, "--reportformat", "json", "--units", "b", "--nosuffix"]
    argv += ["--all"] if hidden else []
    argv += ["--select", select] if select else []
    argv += more
    argv += ["--options", ",".join(fields), "--", *operands]
    result = host.query(argv, ok=ok, shared=shared)
    text = result.stdout
    # LVM says "Retrying metadata scan." between the lines of the report; those of JSON begin with one of these.
    lines = [line for line in text.splitlines() if line.lstrip()[:1] in '{}[]"']
    try:
        (rows,) = json.loads("\n".join(lines))["report"][0].values()
        return [{field: _text(row[field]) for field in fields} for row in rows], result.stderr
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise errors.HostError(f"'{tool}' answered something that is no report: {text[:100]!r}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def groups(host: Host) -> list[Group]:
    """All volume groups of this machine; asked once per engine call. Raises ``ToolMissing`` without LVM.

    Two may have one name: whoever writes to a disk, such as a guest, can make a second one.
    """
    found: dict[str, Group] = {}
    # Status 5 is also that of a report in which one group, maybe not ours, is damaged.
    for row in report(host, "vgs", _GROUP_FIELDS, shared=True, ok=(0, 5)):
        uuid, device = row["vg_uuid"], row["pv_name"]
        lost = () if device.startswith("/") or not row["pv_uuid"] else (row["pv_uuid"],)  # it appears as [unknown]
        old = found.get(uuid)
        if old is not None:
            found[uuid] = old._replace(devices=(*old.devices, device), lost=(*old.lost, *lost))
            continue
        found[uuid] = Group(
            row["vg_name"], uuid, integer(row["vg_size"]), integer(row["vg_free"]), integer(row["vg_extent_size"]),
            integer(row["vg_missing_pv_count"]), integer(row["lv_count"]), (device,), lost,
        )  # fmt: skip
    return list(found.values())


def group(host: Host, name: str) -> Group | None:
    """The group of that name, None if there is none; ``Unsafe`` if there are two. Asked once per engine call."""
    found = [g for g in groups(host) if g.name == name]
    if len(found) > 1:
        raise errors.Unsafe(
            f"{'two' if len(found) == 2 else len(found)} volume groups are named '{name}' "
            f"({' and '.join(g.uuid for g in found)})",
            hint="rename one of them: vgrename UUID NEWNAME",
        )
    return found[0] if found else None


class Listing(NamedTuple):
    """All logical volumes of a group by name, and the group's figures (0 where the group has no volume to tell them)."""

    volumes: dict[str, LogicalVolume]
    size: int = 0
    free: int = 0
    extent: int = 0
    uuid: str = ""

    def extents(self, volume: LogicalVolume) -> list[tuple[str, int, int]]:
        """Where its data is: (device, start, end) in bytes from the device's first extent, all legs and their metadata."""
        found = [(n, a * self.extent, b * self.extent) for n, a, b in volume.pieces if not _is_hidden(n)]
        if len(found) != len(volume.pieces):
            for child in self.volumes.values():
                if child.parent == volume.name:
                    found += self.extents(child)
        return found

    def dependents(self, volume: LogicalVolume) -> list[str]:
        """The volumes that would be lost with ``volume``: its snapshots, and thin volumes with it as external origin."""
        based = [v for v in self.volumes.values() if v.origin == volume.name]
        return [v.name for v in based if v.snapshot or v.pool != volume.pool]


def listing(host: Host, group: str, *names: str, select: str = "", more: Sequence[str] = ()) -> Listing:
    """All logical volumes of ``group``, hidden ones included: one call of ``lvs``, whatever their number.

    With ``names`` those alone, and with ``select`` (lvmreport(7)) those it matches; ``more`` are further words for ``lvs``. Asked
    once per engine call, and again after a change.
    """
    found: dict[str, dict[str, str]] = {}
    pieces: dict[str, list[tuple[str, int, int]]] = {}
    row: dict[str, str] = {}
    operands = [f"{group}/{name}" for name in names] or [group]
    for row in report(host, "lvs", _FIELDS, *operands, hidden=True, select=select, shared=True, more=more):
        name = row["lv_name"].strip("[]")
        found.setdefault(name, row)
        pieces.setdefault(name, []).extend(_ranges(row["seg_pe_ranges"]))
    volumes = {name: _volume(name, one, tuple(pieces[name])) for name, one in found.items()}
    return Listing(
        volumes, integer(row.get("vg_size", "")), integer(row.get("vg_free", "")), integer(row.get("vg_extent_size", "")),
        row.get("vg_uuid", ""),
    )  # fmt: skip


def _volume(name: str, row: dict[str, str], pieces: tuple[tuple[str, int, int], ...]) -> LogicalVolume:
    major, minor = row["lv_kernel_major"], row["lv_kernel_minor"]
    return LogicalVolume(
        name, row["lv_uuid"], integer(row["lv_size"]), row["lv_role"], row["lv_parent"].strip("[]"),
        row["lv_active"].startswith("active"), flag(row["lv_device_open"]), row["lv_health_status"],
        flag(row["lv_skip_activation"]), "" if major.startswith("-") else f"{major}:{minor}", row["segtype"], pieces,
        row["origin"].strip("[]"), integer(row["origin_size"]), row["pool_lv"].strip("[]"), _number(row["data_percent"]),
        _number(row["metadata_percent"]), flag(row["zero"]), tuple(filter(None, row["lv_tags"].split(","))),
        row["lv_attr"][4:5] == "X",  # lvs(8), "lv_attr": the state of the device is unknown, as its table does not fit
    )  # fmt: skip


def _ranges(text: str) -> Iterator[tuple[str, int, int]]:
    for part in text.split():
        name, _, span = part.rpartition(":")
        first, _, last = span.partition("-")
        if first.isdigit() and last.isdigit():
            yield name, int(first), int(last) + 1


def _is_hidden(name: str) -> bool:
    return not name.startswith(("/", "[", "unknown"))  # a device that is gone appears as [unknown]


def flag(text: str) -> bool:
    """A binary field: a word or nothing, or with ``report/binary_values_as_numeric`` of lvm.conf 1, 0 or -1 (unknown)."""
    return text not in ("", "0", "-1", "unknown")


def integer(text: str) -> int:
    """As ``_number``, a whole one."""
    return int(_number(text))


def _number(text: str) -> float:
    """A number of a report, 0 for none; ``HostError`` for what is none, or is larger than a size can be."""
    try:
        found = float(text or 0) if "." in text else int(text or 0)
    except ValueError:
        found = -1
    if not 0 <= found < 1 << 63:
        raise errors.HostError(f"LVM reports {text[:40]!r} where a number is to be")
    return found


# -- devices and groups -------------------------------------------------------------------------------------------------


def members(host: Host) -> dict[str, str]:
    """Every device that LVM has labelled, with its volume group (empty for one without)."""
    return {row["pv_name"]: row["vg_name"] for row in report(host, "pvs", ("pv_name", "vg_name"), ok=(0, 5))}


def owner(host: Host, path: str) -> str | None:
    """The group of a labelled device, whoever may use it ("[unknown]" without its metadata); None if LVM reports nothing.

    ``members`` leaves out groups of other hosts and what the devices file or a filter hides.
    """
    more = ["--foreign", "--shared", "--devices", path]
    rows = report(host, "pvs", ("pv_name", "vg_name"), path, more=more, ok=(0, 5))
    return rows[0]["vg_name"] if rows else None


def label(host: Host, path: str) -> str:
    """Make a device a physical volume; returns its UUID. Undone while it is still that one and in no group."""
    digits = secrets.token_hex(16)
    uuid = "-".join(digits[a:b] for a, b in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32)))
    question = ["pvs", "--noheadings", "--options", "pv_uuid,vg_name", "--", path]
    host.change(
        ["pvcreate", "--yes", "--uuid", uuid, "--norestorefile", "--", path],
        undo=undo.run_if(question, uuid, ["pvremove", "--yes", "--", path]),
        whole=True,
    )
    return uuid


def make_group(
    host: Host, name: str, devices: Sequence[str], first: str, *, config: Sequence[str] = (), more: Sequence[str] = (),
    where: str = "",
) -> None:  # fmt: skip
    """Make a group of labelled devices. Undone while ``first``, the UUID of one of them, is in it and it has no volume.

    ``config`` are words for every command on the group, ``more`` for the making of it alone. With ``where``, a selection
    (lvmreport(7)), it is undone while that selects it: a label tells nothing where another host may have made the group.
    """
    question = ["pvs", *config, "--noheadings", "--options", "vg_name", "--select", quoted(pv_uuid=first)]
    if where:
        question = ["vgs", *config, "--noheadings", "--options", "vg_name", "--select", where]
    host.change(
        ["vgcreate", *config, *more, "--", name, *devices],
        undo=undo.run_if(question, name, ["vgremove", *config, "--", name]),
        whole=True,
    )


# -- names ----------------------------------------------------------------------------------------------------------


def name_fault(name: str, group: str | None = None) -> str:
    """Why LVM would not take ``name`` for a volume group, or for a logical volume of ``group``; empty when it would."""
    if name in (".", "..") or not _NAME.match(name):
        return "LVM's names have 1 to 127 of the characters A-Z a-z 0-9 _ . + -, and '-' not in front"
    if group is None:
        return ""
    reserved = _RESERVED.match(name)
    if reserved:
        return f"LVM keeps names with '{reserved[1] or reserved[0]}' for itself"
    length = len(device_name(group, name))
    return f"'{group}' and it together are {length} characters long, and {_DEVICE_NAME} is the most" * (
        length > _DEVICE_NAME
    )


def device_name(group: str, volume: str = "") -> str:
    """The device-mapper name of a logical volume, or the beginning that those of a group have in common."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def active(host: Host, group: str) -> bool:
    """Whether any logical volume of the group is active here, told from the names in /dev/mapper without a program."""
    return bool(_active_names(host, group))


def active_uuid(host: Host, group: str) -> str:
    """The UUID of the group that a volume which is active here belongs to, without dashes and without a program; or empty."""
    for name in _active_names(host, group):
        # libdevmapper's UUID of a volume: LVM- and 32 characters each of the group and the volume
        mark = host.devices.value(f"/sys/dev/block/{host.devices.number(f'/dev/mapper/{name}')}/dm/uuid")
        if mark.startswith("LVM-"):
            return mark[4:36]
    return ""


def _active_names(host: Host, group: str) -> list[str]:
    names: list[str] = host.shared("device mapper", lambda: host.devices.names("/dev/mapper"))
    start = device_name(group)
    return [n for n in names if n.startswith(start) and n[len(start) : len(start) + 1] != "-"]


def quoted(**wanted: str) -> str:
    """A selection (lvmreport(7)) of all these fields having exactly these values."""
    return " && ".join(f'{field}="{value}"' for field, value in wanted.items())
