"""What keeps the hosts of one volume group apart: lvmlockd, a system ID that only poolkit gives, or nothing.

A group records which it is: its lock type, or its system ID (lvmlockd(8), lvmsystemid(7)). A host's role says what it may do.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from poolkit import errors
from poolkit.families import lvm
from poolkit.host.node import Node
from poolkit.host.port import Host

LOCKS = ("lvmlockd", "system-id", "none")

TAG = "poolkit"
"""Prefix of the tags that a group and its volumes get: poolkit.control.NODE, poolkit.attach.NODE, poolkit.share.NODE."""

# The permitted operations: whoever has control changes the metadata of the group, and others only use its volumes. What is not
# named here is a change.
USES = frozenset(("vol-attach", "vol-detach"))
RECORDS = frozenset(("vol-allow", "vol-forget"))
"""Attaching and detaching for another node: only what the group notes of it is changed, by who has control."""
CONTENT = frozenset(("vol-upload", "vol-download", "vol-wipe", "vol-overwrite", "vol-permit", "vol-adopt"))
"""Verbs that read or write what a volume holds, and nothing of the group: they need a volume that the host has, or may have."""

# All that a compute node can build, by its first option, with the others that it may have: nothing of it changes the metadata
# of a group.
_COMPUTE = {
    ("vgchange", "--lockstart"): frozenset[str](),
    ("vgchange", "--lockstop"): frozenset[str](),
    ("lvchange", "--activate"): frozenset(("--ignoreactivationskip", "--yes", "--select")),
    ("lvchange", "--refresh"): frozenset[str](),
    ("vgchange", "--test"): frozenset(("--addtag",)),  # LVM's own dry run
}

_BY_LOCKD = "global{use_lvmlockd=1}"
# Copies of the metadata in /etc/lvm are of no use for a group that others change (lvm.conf(5)).
_COMMON = "backup{backup=0 archive=0}"
# Hints hide what other hosts have made. Under lvmlockd LVM uses none, and with a section "devices" here lockstart of LVM 2.03.16
# fails with "invalid parameters".
_NO_HINTS = 'devices{hints="none" obtain_device_list_from_udev=0}'
_ALONE = f"{_NO_HINTS} {_COMMON} global{{use_lvmlockd=0}}"

_FIELDS = (
    "vg_name", "vg_uuid", "vg_size", "vg_free", "vg_extent_size", "vg_missing_pv_count", "lv_count", "vg_systemid",
    "vg_lock_type", "vg_seqno", "vg_tags", "pv_name", "pv_uuid", "pv_missing",
)  # fmt: skip


class SharedGroup(NamedTuple):
    """A volume group as any host can read it; sizes in bytes. ``sequence`` counts the changes of its metadata.

    Of the ``missing`` devices ``lost`` has the UUIDs of those that are not here, and ``left_out`` the paths of the others: a host
    that did not have them wrote the metadata, which calls them missing since. On ``damaged`` devices the copy of the metadata
    cannot be read.
    """

    name: str
    uuid: str
    size: int
    free: int
    extent: int
    missing: int
    volumes: int
    system_id: str
    lock_type: str
    sequence: int
    tags: tuple[str, ...]
    devices: tuple[str, ...]
    lost: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def lock(self) -> str:
        """The one of ``LOCKS`` that the group records."""
        if self.lock_type not in ("", "none"):
            return "lvmlockd"
        return "system-id" if self.system_id else "none"

    @property
    def control(self) -> str:
        """The node that has control, by its tag; empty for none. Only with a system ID a group has one.

        Several, with commas, where two took it at the same moment: then none of them has it.
        """
        return ", ".join(tagged(self.tags, "control"))


def tagged(tags: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The nodes that tags name for ``what``: control, attach or share."""
    start = f"{TAG}.{what}."
    return tuple(sorted(tag.removeprefix(start) for tag in tags if tag.startswith(start)))


# What a machine is called that nobody has named (hostname(5)): more than one of them may be.
_NOBODY = frozenset(("localhost", "localhost.localdomain", "localhost4", "localhost6"))


def own_tag(what: str, node: str, pool: str) -> str:
    """A tag that is to be written; ``InvalidArgument`` for a name that any host may have."""
    if node.lower() in _NOBODY:
        raise errors.InvalidArgument(
            f"pool '{pool}': any host may be named '{node}', so nothing is recorded of it in the group", pool=pool,
            hint="give each host a name of its own, in its host.toml: [node] name = \"n1\"",
        )  # fmt: skip
    return tag(what, node)


def tag(what: str, node: str) -> str:
    """The tag by which a node has ``what``."""
    return f"{TAG}.{what}.{node}"


# LVM tells of a copy of the metadata that it cannot read, and goes on with that of another device.
_DAMAGED = re.compile(r"repair VG metadata on (\S+) with vgck --updatemetadata")


# What a host may read while another one is writing. Metadata that is damaged says so as well, and goes on saying it.
_TORN = re.compile(r"Incorrect checksum in metadata area header|Checksum error")
_TRIES, _SOON = 2, 0.5  # times that it is read again, after so many seconds


def again(said: str) -> Iterator[None]:
    """Come back as often as something is to be read again of which LVM said that."""
    if _TORN.search(said):
        for _ in range(_TRIES):
            time.sleep(_SOON)
            yield


def group(host: Host, name: str, *, anew: bool = False) -> SharedGroup | None:
    """The group of that name, whoever owns it; None if no device has one, ``Unsafe`` if there are two.

    Takes no lock. Asked once per engine call for all groups, and again after a change or to see it ``anew``.
    """
    found: dict[str, SharedGroup] = {}
    more = ("--config", _ALONE, "--foreign", "--shared")
    rows, warnings = lvm.told(host, "vgs", _FIELDS, shared=not anew, more=more, ok=(0, 5))
    for _ in again(warnings):
        if any(row["vg_name"] == name for row in rows):
            break
        rows, warnings = lvm.told(host, "vgs", _FIELDS, more=more, ok=(0, 5))
    damaged = frozenset(_DAMAGED.findall(warnings))
    for row in rows:
        if row["vg_name"] != name:
            continue
        uuid, device = row["vg_uuid"], row["pv_name"]
        if uuid not in found:
            size, free, extent, missing, volumes = (lvm.integer(row[field]) for field in _FIELDS[2:7])
            found[uuid] = SharedGroup(
                name, uuid, size, free, extent, missing, volumes, row["vg_systemid"], row["vg_lock_type"],
                lvm.integer(row["vg_seqno"]), tuple(filter(None, row["vg_tags"].split(","))), (),
            )  # fmt: skip
        one = found[uuid]
        here = device.startswith("/")  # else it appears as [unknown]
        found[uuid] = one._replace(
            devices=(*one.devices, device),
            lost=one.lost if here else (*one.lost, row["pv_uuid"]),
            left_out=(*one.left_out, device) if here and lvm.flag(row["pv_missing"]) else one.left_out,
            damaged=(*one.damaged, device) if device in damaged else one.damaged,
        )
    if len(found) > 1:
        raise errors.Unsafe(
            f"{len(found)} volume groups are named '{name}' ({' and '.join(found)})",
            hint="rename one of them: " + " or ".join(_renaming(one) for one in found.values()),
        )
    return next(iter(found.values()), None)


def _renaming(one: SharedGroup) -> str:
    own = _BY_LOCKD if one.lock == "lvmlockd" else _as_system(one.system_id) if one.system_id else ""
    return shlex.join(["vgrename", "--config", _seeing(one.lock, own), one.uuid, "NEWNAME"])


# -- roles --------------------------------------------------------------------------------------------------------------


def changes(verb: str) -> bool:
    """Whether ``verb`` changes the metadata of a group; so does one that nobody has said more of."""
    return verb not in USES | CONTENT


def permit(node: Node, verb: str, lock: Callable[[], str], pool: str) -> None:
    """Raise ``RoleForbidden`` if the role of this host does not allow ``verb``; the one place that asks for it.

    Without a role a host may do all where lvmlockd keeps hosts apart, and only look elsewhere. ``lock`` says which it is, and is
    asked of a host without a role alone: what a role forbids is refused before any program runs.
    """
    role = node.role or ("both" if lock() == "lvmlockd" else "")
    if not role:
        raise errors.RoleForbidden(
            f"pool '{pool}': node '{node.name}' has no role, and nothing but roles keeps the hosts of this group apart",
            pool=pool, hint="say it in host.toml: [node] role = \"control\" on one host, and \"compute\" on all others",
        )  # fmt: skip
    if role == "compute" and changes(verb):
        raise errors.RoleForbidden(
            f"pool '{pool}': node '{node.name}' is a compute node: it attaches and detaches volumes, and cannot {said(verb)}",
            pool=pool, hint="do it on the control node",
        )  # fmt: skip
    if role == "control" and verb in USES:
        raise errors.RoleForbidden(
            f"pool '{pool}': node '{node.name}' is the control node and no compute node, so it cannot {said(verb)}",
            pool=pool, hint='a host that does both has role = "both" in host.toml',
        )  # fmt: skip


def said(verb: str) -> str:
    """A verb in a sentence."""
    if verb in RECORDS:
        return "attach a volume to another node" if verb == "vol-allow" else "detach a volume from another node"
    word = verb.removeprefix("vol-").replace("-", " ")
    return (
        f"{word} a volume" if verb.startswith("vol-") else f"{word} the group" if verb in ("build", "delete") else word
    )


def command(node: Node, tool: str, words: tuple[str, ...], config: tuple[str, ...], pool: str) -> list[str]:
    """A command on a shared group. On a compute node only those of a closed list can be built: ``RoleForbidden`` for others.

    This list is the guard, and not LVM's ``metadata_read_only``, which has had no effect since 2.03.05.
    """
    options = [word for word in words[: words.index("--") if "--" in words else None] if word.startswith("-")]
    more = _COMPUTE.get((tool, words[0] if words else ""))
    if node.role == "compute" and (more is None or not more.issuperset(options[1:])):
        raise errors.RoleForbidden(
            f"pool '{pool}': '{' '.join((tool, *options))}' is not for a compute node, and '{node.name}' is one",
            pool=pool, hint="do it on the control node",
        )  # fmt: skip
    return [tool, *config, *words]


# -- configuration of commands ----------------------------------------------------------------------------------------------


def config(lock: str, uuid: str, *, guarded: bool = False) -> tuple[str, ...]:
    """The words that make LVM use a group under ``lock``; the pool's ``uuid`` is what its system ID is made of.

    ``guarded`` lets LVM refuse to write metadata as well (``locking_type=4``, which 2.03.16 still knows).
    """
    if lock == "lvmlockd":
        return ("--config", f"{_COMMON} {identity(lock, uuid)}")
    words = (_ALONE, identity(lock, uuid), "global{locking_type=4}" if guarded else "")
    return ("--config", " ".join(filter(None, words)))


def identity(lock: str, uuid: str) -> str:
    """What LVM's configuration has to say to use the group of a pool under ``lock``; empty where nothing has to be said."""
    if lock == "lvmlockd":
        return _BY_LOCKD
    if lock == "system-id":
        return _as_system(system_id(uuid))
    return ""


def _as_system(identifier: str) -> str:
    return f'global{{system_id_source="lvmlocal"}} local{{system_id="{identifier}"}}'


def by_hand(lock: str, uuid: str) -> str:
    """The configuration with which an administrator's commands see all of a group."""
    return _seeing(lock, identity(lock, uuid))


def _seeing(lock: str, own: str) -> str:
    """What has to be said besides ``own`` for LVM to see all of a group."""
    return own if lock == "lvmlockd" else f"{_NO_HINTS} {own}".rstrip()


def system_id(uuid: str) -> str:
    """The system ID of a pool's group (lvmsystemid(7): letters, digits, '_', '.', '-')."""
    return f"poolkit-{uuid}"


# -- lvmlockd ---------------------------------------------------------------------------------------------------------------


def lockspaces(host: Host) -> Mapping[str, str] | None:
    """The lockspaces that lvmlockd of this host has, by the name of their group, with their type; None if it does not run."""
    try:
        said = host.query(["lvmlockctl", "--info"], ok=(0, 1, 255), shared=True)  # 255 without the daemon
    except errors.ToolMissing:
        return None
    if said.status:
        return None
    return dict(re.findall(r"^VG (\S+) lock_type=(\S+)", said.stdout, re.MULTILINE))


def require_lvmlockd(host: Host, pool: str) -> Mapping[str, str]:
    """The lockspaces; ``LockUnavailable`` if lvmlockd does not run."""
    found = lockspaces(host)
    if found is None:
        raise errors.LockUnavailable(
            f"pool '{pool}': lvmlockd does not run on this host", pool=pool,
            hint="start sanlock and lvmlockd, and give this host a number of its own (local/host_id of lvmlocal.conf)",
        )  # fmt: skip
    return found


def mode(host: Host, uuid: str) -> str:
    """How lvmlockd of this host has locked a volume: ``ex``, ``sh``, or empty where it does not say."""
    try:
        said = host.query(["lvmlockctl", "--info"], ok=(0, 1, 255), shared=True)
    except errors.ToolMissing:
        return ""
    found = re.search(rf"^LK LV (ex|sh) {re.escape(uuid)}$", said.stdout, re.MULTILINE)
    return found[1] if found else ""


_AREA = (
    1 << 20
)  # bytes from the start of a lockspace in which sanlock has the leases of hosts, and bytes of one resource


def holder(host: Host, group: str, volume: str, config: Sequence[str]) -> str:
    """The name of the host that has the lock of a volume, as sanlock's leases on the disk say; empty where they do not.

    sanlock(8), "direct dump": a row for each lease, with its owner's number, and for each host its number and name. Of a lease
    that hosts share there is a row for each of them, which ends in ``SH``; one of them is named.
    """
    rows = lvm.report(host, "lvs", ("lv_lockargs",), f"{group}/{volume}", more=config, ok=(0, 5))
    offset = rows[0]["lv_lockargs"].rpartition(":")[2] if rows else ""
    if not offset.isdigit():
        return ""
    device = f"/dev/mapper/{lvm.device_name(group, 'lvmlock')}"
    try:
        owners = _leases(host, f"{device}:{offset}:{_AREA}")
        hosts = _leases(host, f"{device}:0:{_AREA}")
    except errors.ToolError:
        return ""
    owner = next((number for _, number in owners), None)
    # sanlock names a host by a UUID of its own and the host name.
    return next((name.partition(".")[2] or name for name, number in hosts if number == owner), "")


def _leases(host: Host, where: str) -> list[tuple[str, int]]:
    """Resource and owner of the leases in a part of a device that somebody has."""
    found = []
    for line in host.query(["sanlock", "direct", "dump", where]).stdout.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "SH" and words[0].isdigit():
            found.append(("", int(words[0])))
        elif len(words) >= 5 and words[3].isdigit() and words[4].isdigit() and int(words[3]):
            found.append((words[2], int(words[4])))
    return found
