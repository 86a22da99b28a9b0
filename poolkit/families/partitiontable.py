"""Partition tables: reading them, the free space between the partitions, and where a new partition fits.

dos and gpt are read and written by sfdisk, which tells types and identities; sun, mac, bsd, dvh and pc98 by parted, which
knows their geometry and hides their book-keeping slices. All sizes and places here are bytes; ends are exclusive.
"""

from __future__ import annotations

import binascii
import json
import os
import re
from typing import NamedTuple

from poolkit import errors
from poolkit.host.descriptors import read_at
from poolkit.host.port import Host

GRAIN = 1 << 20  # new partitions begin at a multiple of this, as those of all present partitioners do
DOS_SECTORS = 1 << 32  # a dos table counts sectors in 32 bits: 2 TiB with sectors of 512 bytes
GPT_ENTRIES = 128
DOS_MOST = 60  # MAXIMUM_PARTS of libfdisk/src/dos.c
# Largest number of a partition; parted 3.5 and the formats' own documents.
ENTRIES = {"mac": 64, "bsd": 8, "sun": 8, "dvh": 8, "pc98": 16}
SFDISK = ("dos", "gpt")
OWN = {"mac": 1, "sun": 3}  # the number that a table takes for itself; that of sun is the whole disk
CYLINDERS = ("sun", "pc98")  # partitions begin and end at a cylinder

# What is written for a volume format: sfdisk(8) type code of dos; type GUID of gpt (UEFI and the Linux discoverable
# partitions). As libvirt has it, "none" is an ordinary Linux partition.
DOS = {
    "none": "83", "linux": "83", "fat16": "e", "fat32": "c", "linux-swap": "82", "linux-lvm": "8e", "linux-raid": "fd",
    "extended": "f",
}  # fmt: skip
GPT = {
    "none": "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "fat16": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "fat32": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    "linux-swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "linux-lvm": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
    "linux-raid": "A19D880F-05FC-4D3B-A006-743F0F84911E",
}  # fmt: skip
_FORMATS = {
    **{code: name for name, code in (*DOS.items(), *GPT.items()) if name != "none"},
    "1": "fat16", "4": "fat16", "6": "fat16", "b": "fat32", "5": "extended", "85": "extended",
}  # fmt: skip
# For parted: a file system's name decides the type; a flag is set where that does not do.
PARTED = {
    "none": ("ext2", ""), "linux": ("ext2", ""), "fat16": ("fat16", ""), "fat32": ("fat32", ""),
    "linux-swap": ("linux-swap", ""), "linux-lvm": ("ext2", "lvm"), "linux-raid": ("ext2", "raid"),
}  # fmt: skip


def identity(head: bytes) -> str:
    """What tells a disk's table from others, of its first 8 KiB: the GUID of gpt, the number of dos; empty if there is none."""
    kind = label(head)
    if kind == "gpt":
        at = 512 if head[512:520] == b"EFI PART" else 4096
        if not _is_header(head[at : at + 512]):
            return ""  # the other table at the disk's end has it
        return f"gpt {head[at + 56 : at + 72].hex()}"  # UEFI 2.10, 5.3.2: DiskGUID
    mark = head[440:444]  # the signature of a disk, as Windows and the kernel have it
    return f"dos {mark.hex()}" if kind == "dos" and mark != bytes(4) else ""


def _is_header(data: bytes) -> bool:
    """Whether a sector is a header of gpt that says what was written: UEFI 2.10, 5.3.2, its checksum over its own length."""
    length = int.from_bytes(data[12:16], "little")
    if data[:8] != b"EFI PART" or not 92 <= length <= len(data):
        return False
    return binascii.crc32(data[:16] + bytes(4) + data[20:length]) == int.from_bytes(data[16:20], "little")


class Partition(NamedTuple):
    """One entry. ``kind`` is primary, extended or logical; ``type`` the table's own code, ``format`` the volume's."""

    number: int
    start: int
    end: int
    kind: str
    format: str
    type: str = ""
    uuid: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


class Gap(NamedTuple):
    """Free space in which a partition may begin at ``start``, which is aligned; ``logical``: within the extended one."""

    start: int
    end: int
    logical: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


class Table(NamedTuple):
    """A partition table. ``grain`` is what starts are aligned to; ``ident`` its identity, if it has one.

    ``damaged`` says which of gpt's two copies is, if one is: what is known comes from the other one then.
    ``marks`` are the starts of all that is in use, book-keeping included, and ``last`` is the end of usable space.
    """

    label: str
    ident: str
    sector: int
    grain: int
    parts: tuple[Partition, ...]
    gaps: tuple[Gap, ...]
    marks: tuple[int, ...]
    last: int
    damaged: str = ""

    def find(self, number: int) -> Partition | None:
        """The partition of that number."""
        return next((p for p in self.parts if p.number == number), None)

    @property
    def extended(self) -> Partition | None:
        """The extended partition."""
        return next((p for p in self.parts if p.kind == "extended"), None)

    @property
    def logical(self) -> tuple[Partition, ...]:
        """The partitions within it, by number."""
        return tuple(p for p in self.parts if p.kind == "logical")


def label(head: bytes) -> str:
    """The kind of table that the first 8 KiB of a disk show, by libvirt's name for it; empty if there is none."""
    from poolkit.formats import raw

    if b"EFI PART" in (head[512:520], head[4096:4104]):
        return "gpt"
    if head[:2] == b"ER" and b"PM" in (head[512:514], head[2048:2050], head[4096:4098]):
        return "mac"
    if head[:4] == b"\x0b\xe5\xa9\x41":
        return "dvh"
    if head[508:510] == b"\xda\xbe":
        return "sun"
    found = raw.hints(head[:4096])
    if "LVM2_member" in found:
        return "lvm2"
    if any(head[place : place + 4] == b"\x57\x45\x56\x82" for place in (0, 64, 512)):
        return "bsd"
    if "mbr" not in found:
        return ""
    if head[4:8] == b"IPL1":
        return "pc98"
    # A boot sector without a table, such as that of a whole-disk boot loader, has entries with other flags.
    if any(head[450 + 16 * i] == 0xEE for i in range(4)):
        return "gpt"  # UEFI 2.10, 5.2.3: its protective record, also where the first header is damaged
    return "dos" if all(head[446 + 16 * i] in (0, 0x80) for i in range(4)) else ""


def read(host: Host, node: str, label: str, size: int, sector: int) -> Table:
    """The table of the disk ``node`` of ``size`` bytes, whose kind is known to be ``label``; asked once until a change."""
    table: Table = host.shared(("table", node), lambda: fetch(host, node, label, size, sector))
    return table


def fetch(host: Host, node: str, label: str, size: int, sector: int) -> Table:
    """As ``read``, asked now."""
    return _sfdisk(host, node, label, size, sector) if label in SFDISK else _parted(host, node, label)


# -- sfdisk -----------------------------------------------------------------------------------------------------------


def _sfdisk(host: Host, node: str, label: str, size: int, sector: int) -> Table:
    answer = host.query(["sfdisk", "--json", "--", node])
    text = answer.stdout
    damaged = next((one for one in ("primary", "backup") if f"The {one} GPT table is corrupt" in answer.stderr), "")
    try:
        found = json.loads(_clean(text))["partitiontable"]
        sector = _whole(found.get("sectorsize", sector)) or sector
        kind = found["label"]
        parts = [_entry(kind, _number(p["node"], node), p, sector) for p in found.get("partitions", ())]
        usable = (0, size)
        if kind == "gpt":
            usable = (_whole(found["firstlba"]) * sector, (_whole(found["lastlba"]) + 1) * sector)
        length = _whole(found.get("table-length", GPT_ENTRIES))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise errors.HostError(f"'sfdisk' answered something that is no partition table: {text[:100]!r}") from None
    if kind != label or any(kind == "dos" and p.type.lower() == "ee" for p in parts):
        raise errors.HostError(
            f"the first sectors of '{node}' show a table of type {label}, and sfdisk reads "
            f"{'the protective record of gpt' if kind == label else f'one of type {kind}'}",
            hint="gpt's tables are damaged, or the disk had sectors of another size when it was written: "
            f"sfdisk --dump {node}",
        )
    if kind == "gpt" and not damaged and _grown(host, node, size, sector):
        # The next write moves the second table to the disk's end: its entries there, and one sector of header.
        entries = -(-length * 128 // sector)
        usable = (usable[0], (size // sector - entries - 1) * sector)
    parts.sort()
    first, last = max(GRAIN, usable[0]), min(size, usable[1])
    taken = []
    if kind == "dos":
        last = min(last, DOS_SECTORS * sector)
        extended = next((p for p in parts if p.kind == "extended"), None)
        taken = _records(host, node, extended, sector) if extended is not None else []
    gaps = _gaps([p for p in parts if p.kind != "logical"], first, last)
    for extended in [p for p in parts if p.kind == "extended"]:
        inner = [(p.start, p.end) for p in parts if p.kind == "logical"] + taken
        # In front of a logical partition its own record of one sector needs room: sfdisk puts it 1 MiB before.
        gaps += [
            Gap(gap.start + GRAIN, gap.end, True)
            for gap in _between(inner, _up(extended.start, GRAIN), extended.end)
            if gap.size > GRAIN
        ]
    marks = (*(p.start for p in parts), *(start for start, _ in taken))
    return Table(kind, str(found.get("id", "")), sector, GRAIN, tuple(parts), tuple(gaps), marks, last, damaged)


def _clean(text: str) -> str:
    """Lone surrogates in names are no UTF-8: the host shows each byte as ``\\xNN``, which is no JSON."""
    if "\\x" not in text:
        return text
    return re.sub(r"\\(\\|x[0-9a-f]{2})", lambda found: found[0] if found[1] == "\\" else "\ufffd", text)


def _whole(value: object) -> int:
    """A number of sectors or of bytes, which sfdisk writes as a number or as a text; ``ValueError`` for none."""
    found = int(value) if isinstance(value, str) else value
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 63:
        raise ValueError(value)
    return found


def _positive(value: object) -> int:
    found = _whole(value)
    if not found:
        raise ValueError(value)
    return found


def _number(part: str, node: str) -> int:
    """The number of the partition that sfdisk calls ``part``: the disk's own name may end in digits."""
    tail = part.removeprefix(node)
    if tail == part:
        raise ValueError(part)
    return int(tail.removeprefix("-part").removeprefix("p"))


def _grown(host: Host, node: str, size: int, sector: int) -> bool:
    """Whether the second table of gpt is not at the disk's end, because the disk was made larger (UEFI 5.3.2)."""
    header = _sectors(host, node, sector, 40)
    return header[:8] == b"EFI PART" and int.from_bytes(header[32:40], "little") < size // sector - 1


def _sectors(host: Host, node: str, offset: int, length: int) -> bytes:
    fd = host.devices.open(node)
    try:
        return read_at(fd, length, offset)
    finally:
        os.close(fd)


def _entry(label: str, number: int, entry: dict[str, object], sector: int) -> Partition:
    start = _whole(entry["start"]) * sector
    code = str(entry["type"])
    format = _FORMATS.get(code if label == "gpt" else code.lower(), "none")
    kind = "extended" if format == "extended" else "logical" if label == "dos" and number > 4 else "primary"
    end = start + _whole(entry["size"]) * sector
    return Partition(number, start, end, kind, format, code, str(entry.get("uuid", "")))


def _records(host: Host, node: str, extended: Partition, sector: int) -> list[tuple[int, int]]:
    """Places of the records that chain logical partitions: sfdisk does not tell them, and parted puts them anywhere."""
    places: list[tuple[int, int]] = []
    here = extended.start
    fd = host.devices.open(node)
    try:
        while len(places) < 256:  # a chain may be a ring
            data = read_at(fd, 512, here)
            if data[510:512] != b"\x55\xaa":
                break
            places.append((here, here + sector))
            link = int.from_bytes(data[470:474], "little") * sector  # the second entry's first sector
            here = extended.start + link
            if not link or any(here == place for place, _ in places):
                break
    finally:
        os.close(fd)
    return places


# -- parted -----------------------------------------------------------------------------------------------------------


def _parted(host: Host, node: str, label: str) -> Table:
    # In cylinders the first line below the disk's is the geometry: cylinders:heads:sectors:size of one.
    words = ["unit", "s", "print", "free", *(["unit", "cyl", "print"] if label in CYLINDERS else [])]
    text = host.query(["parted", "--script", "--machine", "--", node, *words]).stdout
    parts: list[Partition] = []
    gaps: list[Gap] = []
    try:
        lines = [line.rstrip(";") for line in text.splitlines()]
        sector = _positive(lines[1].removeprefix(f"{node}:").split(":")[2])
        grain = GRAIN
        if "CYL" in lines:
            heads, sectors = lines[lines.index("CYL") + 2].split(":")[1:3]
            grain = _positive(heads) * _positive(sectors) * sector
            lines = lines[: lines.index("CYL")]
        header = 0
        for line in lines[2:]:
            number, start, end, _, *rest = line.split(":")
            first, last = _whole(start[:-1]) * sector, (_whole(end[:-1]) + 1) * sector
            if rest == ["free"]:
                # The table of sun is in its first cylinder, which its partitions may have; that of dvh in its header.
                gaps += _gaps([], max(first, grain, header), last, grain)
            elif label == "dvh" and first == 0:
                header = last
            elif not (label == "mac" and first == sector):  # the map itself is a partition of it
                parts.append(Partition(_positive(number), first, last, "primary", _parted_format(rest)))
    except (ValueError, LookupError):
        raise errors.HostError(f"'parted' answered something that is no partition table: {text[:100]!r}") from None
    marks = tuple(p.start for p in parts)
    return Table(
        label, "", sector, grain, tuple(sorted(parts)), tuple(gaps), marks, max((g.end for g in gaps), default=0)
    )


def _parted_format(fields: list[str]) -> str:
    system, _, flags = (*fields, "", "", "")[:3]
    set_flags = {word.strip() for word in flags.split(",")}
    for flag in ("lvm", "raid", "swap"):
        if flag in set_flags:
            return f"linux-{flag}"
    if system.startswith("linux-swap"):
        return "linux-swap"
    return system if system in ("fat16", "fat32") else "linux" if system.startswith(("ext", "xfs", "btrfs")) else "none"


# -- free space ---------------------------------------------------------------------------------------------------------


def _gaps(parts: list[Partition], first: int, last: int, grain: int = GRAIN) -> list[Gap]:
    return _between([(p.start, p.end) for p in parts], first, last, grain)


def _between(taken: list[tuple[int, int]], first: int, last: int, grain: int = GRAIN) -> list[Gap]:
    """What is left of ``first`` to ``last``, with aligned starts; pieces smaller than the alignment are not worth it."""
    gaps = []
    here = first
    for start, end in [*sorted(taken), (last, last)]:
        aligned = _up(here, grain)
        if min(start, last) - aligned >= grain:
            gaps.append(Gap(aligned, min(start, last)))
        here = max(here, end)
    return gaps


def _up(value: int, grain: int) -> int:
    return -(-value // grain) * grain


def rounded(table: Table, size: int) -> int:
    """The size that a partition of ``size`` bytes really gets: whole sectors, or cylinders."""
    return _up(size, table.grain if table.label in CYLINDERS else table.sector)


def place(table: Table, size: int, format: str) -> Partition:
    """Where a new partition goes: in the smallest free extent that it fits in, with the lowest free number.

    On dos it is a primary one while there are numbers for that, else a logical one, as libvirt does; if it fits only
    into the extended partition it is logical as well. ``NoSpace`` or ``Unsupported``, in words that follow the pool's name.
    """
    size = rounded(table, size)
    free = [n for n in range(1, _entries(table) + 1) if table.find(n) is None and n != OWN.get(table.label)]
    kinds: list[str] = ["primary"] if free else []
    if format == "extended":
        if table.label != "dos":
            raise errors.Unsupported(f"a table of type {table.label} has no extended partitions")
        if table.extended is not None:
            raise errors.Unsupported("the disk has an extended partition already, and there can be only one")
        kinds = ["extended"] if free else []
    elif table.extended is not None:
        kinds.append("logical")
    if not kinds:
        raise errors.NoSpace(_full(table, format))
    for kind in kinds:
        fits = [gap for gap in table.gaps if gap.size >= size and gap.logical == (kind == "logical")]
        if fits:
            gap = min(fits, key=lambda gap: (gap.size, gap.start))
            number = 5 + len(table.logical) if kind == "logical" else free[0]
            if kind == "logical" and number > DOS_MOST:
                raise errors.NoSpace(f"the disk has {DOS_MOST} partitions, which is the most that sfdisk handles")
            return Partition(number, gap.start, gap.start + size, kind, format)
    largest = max((g.size for g in table.gaps if g.logical == (kinds == ["logical"]) or len(kinds) > 1), default=0)
    raise errors.NoSpace(f"no free extent has {size} bytes; the largest has {largest}")


def _entries(table: Table) -> int:
    return {"dos": 4, "gpt": GPT_ENTRIES}.get(table.label) or ENTRIES[table.label]


def _full(table: Table, format: str) -> str:
    count = _entries(table) - (table.label in OWN)
    if table.label == "dos":
        more = "" if format == "extended" else " and no extended one"
        return f"the disk has {count} primary partitions{more}; a table of type dos has room for {count}"
    return f"the disk has {count} partitions, which is the most that a table of type {table.label} has room for"


def room(table: Table, part: Partition) -> int:
    """How many bytes the partition could have if it grew into the free space right behind it."""
    extended = table.extended
    bound = extended.end if part.kind == "logical" and extended is not None else table.last
    return min([mark for mark in table.marks if mark >= part.end] + [max(bound, part.end)]) - part.start
