"""What is read of a partition table, and where a new partition goes: on bytes and answers alone, no disk is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.families import partitiontable
from poolkit.families.partitiontable import GRAIN, Gap, Partition, Table
from poolkit.testing import ScriptedHost

MIB = 1 << 20
MBR = (510, b"\x55\xaa")
BSD = b"\x57\x45\x56\x82"  # DISKMAGIC of sys/disklabel.h, little-endian


def head(*pieces: tuple[int, bytes]) -> bytes:
    data = bytearray(8192)
    for place, piece in pieces:
        data[place : place + len(piece)] = piece
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (head(), ""),
        (head((512, b"EFI PART")), "gpt"),
        (head(MBR, (450, b"\xee"), (512, b"EFI PART")), "gpt"),
        (head((4096, b"EFI PART")), "gpt"),  # sectors of 4096 bytes
        (head((0, b"ER"), (512, b"PM")), "mac"),
        (head((0, b"ER"), (2048, b"PM")), "mac"),
        (head((0, b"ER"), (4096, b"PM")), "mac"),
        (head((0, b"ER")), ""),
        (head((512, b"PM")), ""),
        (head((0, b"\x0b\xe5\xa9\x41")), "dvh"),
        (head((508, b"\xda\xbe")), "sun"),
        (head((512, b"LABELONE"), (536, b"LVM2 001")), "lvm2"),
        (head((0, BSD)), "bsd"),
        (head((64, BSD)), "bsd"),
        (head((512, BSD)), "bsd"),
        (head((128, BSD)), ""),
        (head(MBR, (512, BSD)), "bsd"),
        (head(MBR, (4, b"IPL1")), "pc98"),
        (head((4, b"IPL1")), ""),
        (head(MBR), "dos"),
        (head(MBR, (446, b"\x80"), (450, b"\x83")), "dos"),
        (head(MBR, (450, b"\xee")), "gpt"),  # whose first header is damaged
        (head(MBR, (482, b"\xee"), (450, b"\x83")), "gpt"),
        *((head(MBR, (446 + 16 * n, b"\x31")), "") for n in range(4)),  # code, where a table has flags
    ],
)
def test_the_label_that_the_first_sectors_show(data: bytes, label: str) -> None:
    assert partitiontable.label(data) == label


# -- sfdisk -----------------------------------------------------------------------------------------------------------


NODE = "/dev/disk"


def disk(machine: Path) -> Path:
    """The file that plays a block device, in a folder that plays the machine."""
    for folder in ("dev", "sys/class/block/disk"):
        (machine / folder).mkdir(parents=True)
    (machine / "sys/class/block/disk/dev").write_text("7:0\n")
    return machine / "dev" / "disk"


def sfdisk(node: Path, label: str, *parts: tuple[int, int, int, str], sector: int = 512, last: int = 0) -> ScriptedHost:
    """Number, start and size in MiB, type."""
    grain = MIB // sector
    entries = [
        {"node": f"{NODE}{n}", "start": start * grain, "size": size * grain, "type": code}
        for n, start, size, code in parts
    ]
    found = {
        "label": label,
        "sectorsize": sector,
        "firstlba": 34,
        "lastlba": last // sector - 34,
        "partitions": entries,
    }
    return ScriptedHost({"sfdisk --json": json.dumps({"partitiontable": found})}, machine=node.parents[1])


def chained(node: Path, extended: int, *links: tuple[int, int], sector: int = 512) -> None:
    """Records of logical partitions: where each is, and what it says of the next, from the extended one's start."""
    with node.open("wb") as file:
        for place, link in links:
            record = bytearray(512)
            record[470:474] = (link // sector).to_bytes(4, "little")
            record[510:] = b"\x55\xaa"
            file.seek(extended + place)
            file.write(record)
        file.truncate(200 * MIB)


@pytest.mark.parametrize("sector", [512, 4096])
def test_records_of_logical_partitions_are_followed(tmp_path: Path, sector: int) -> None:
    node = disk(tmp_path)
    chained(node, 10 * MIB, (0, 30 * MIB), (30 * MIB, 12 * MIB), (12 * MIB, 0), (50 * MIB, 0), sector=sector)
    host = sfdisk(node, "dos", (1, 10, 100, "f"), (5, 11, 2, "83"), (6, 41, 2, "83"), (7, 23, 2, "83"), sector=sector)
    table = partitiontable.fetch(host, NODE, "dos", 200 * MIB, sector)
    records = [10 * MIB, 40 * MIB, 22 * MIB]
    assert table.marks == (10 * MIB, 11 * MIB, 41 * MIB, 23 * MIB, *records)
    assert table.gaps == (
        Gap(1 * MIB, 10 * MIB), Gap(110 * MIB, 200 * MIB),
        # A new one needs a MiB for its record, in front of it; the records of others end what is before them.
        Gap(14 * MIB, 22 * MIB, True), Gap(26 * MIB, 40 * MIB, True), Gap(44 * MIB, 110 * MIB, True),
    )  # fmt: skip


@pytest.mark.parametrize("links", [[(0, 5 * MIB), (5 * MIB, 5 * MIB)], [(0, 5 * MIB), (5 * MIB, 9 * MIB)]])
def test_a_chain_of_records_ends_where_it_is_a_ring_or_broken(tmp_path: Path, links: list[tuple[int, int]]) -> None:
    node = disk(tmp_path)
    chained(node, 10 * MIB, *links)
    host = sfdisk(node, "dos", (1, 10, 100, "5"), (5, 11, 2, "83"))
    table = partitiontable.fetch(host, NODE, "dos", 200 * MIB, 512)
    assert table.marks == (10 * MIB, 11 * MIB, 10 * MIB, 15 * MIB)


def test_a_chain_of_records_without_end_is_given_up(tmp_path: Path) -> None:
    node = disk(tmp_path)
    chained(node, 0, *((n * 512, (n + 1) * 512) for n in range(1000)))
    host = sfdisk(node, "dos", (1, 0, 100, "5"))
    assert len(partitiontable.fetch(host, NODE, "dos", 200 * MIB, 512).marks) == 1 + 256


def test_dos_ends_at_two_tib(tmp_path: Path) -> None:
    node = disk(tmp_path)
    table = partitiontable.fetch(sfdisk(node, "dos"), NODE, "dos", 3 << 40, 512)
    assert (table.last, table.gaps) == (2 << 40, (Gap(MIB, 2 << 40),))


@pytest.mark.parametrize(
    ("backup", "grew"), [(100 * MIB // 512 - 1, True), (200 * MIB // 512 - 2, True), (200 * MIB // 512 - 1, False)]
)
def test_the_space_that_a_disk_of_gpt_grew_by(tmp_path: Path, backup: int, grew: bool) -> None:
    node = disk(tmp_path)
    node.write_bytes(head((512, b"EFI PART"), (512 + 32, backup.to_bytes(8, "little"))))
    host = sfdisk(node, "gpt", last=100 * MIB)
    table = partitiontable.fetch(host, NODE, "gpt", 200 * MIB, 512)
    # 32 sectors of entries and one of the header are behind the last that can be used.
    assert table.last == (200 * MIB if grew else 100 * MIB) - 33 * 512


# -- parted -----------------------------------------------------------------------------------------------------------


def parted(label: str, *lines: str) -> Table:
    said = ["BYT;", f"/dev/sda:409600s:scsi:512:512:{label}:QEMU:;", *lines]
    return partitiontable.fetch(ScriptedHost({"parted": "\n".join(said)}), "/dev/sda", label, 200 * MIB, 512)


def test_the_book_keeping_of_tables_is_no_partition() -> None:
    mac = parted("mac", "1:1s:63s:63s::Apple:;", "1:64s:2047s:1984s:free;", "2:2048s:22527s:20480s:ext4::;")
    assert [part.number for part in mac.parts] == [2]
    dvh = parted("dvh", "9:0s:4095s:4096s:::;", "1:4096s:8191s:4096s:ext4::;", "1:8192s:409599s:401408s:free;")
    assert [part.number for part in dvh.parts] == [1]
    late = parted("dvh", "9:0s:4095s:4096s:::;", "1:0s:409599s:409600s:free;")
    assert late.gaps == (Gap(2 * MIB, 200 * MIB),), "its header is where the free space is said to begin"
    plain = parted("bsd", "1:0s:4095s:4096s:ext4::;")
    assert [part.number for part in plain.parts] == [1]
    assert plain.last == 0 and late.last == 200 * MIB


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ("ext4::", "linux"), ("xfs::", "linux"), ("btrfs::", "linux"), ("fat16::", "fat16"), ("fat32::boot", "fat32"),
        ("linux-swap(v1)::", "linux-swap"), ("::swap", "linux-swap"), ("::boot, lvm", "linux-lvm"), ("ext4::raid", "linux-raid"),
        ("::", "none"), ("ntfs::", "none"),
    ],
)  # fmt: skip
def test_the_format_that_parted_says(fields: str, format: str) -> None:
    assert parted("bsd", f"1:2048s:4095s:2048s:{fields};").parts[0].format == format


# -- placing ----------------------------------------------------------------------------------------------------------


def table(label: str, count: int, grain: int = GRAIN, *, first: int = 1, gaps: tuple[Gap, ...] = ()) -> Table:
    numbers = [n for n in range(first, first + 200) if n != partitiontable.OWN.get(label)][:count]
    parts = tuple(Partition(n, n * MIB, (n + 1) * MIB, "primary", "linux") for n in numbers)
    return Table(label, "", 512, grain, parts, gaps or (Gap(500 * MIB, 600 * MIB),), (), 600 * MIB)


@pytest.mark.parametrize(
    ("label", "most", "last"),
    [("dos", 4, 4), ("gpt", 128, 128), ("mac", 63, 64), ("bsd", 8, 8), ("sun", 7, 8), ("dvh", 8, 8), ("pc98", 16, 16)],
)
def test_each_table_is_filled_to_its_last_number(label: str, most: int, last: int) -> None:
    assert partitiontable.place(table(label, most - 1), MIB, "linux").number == last
    with pytest.raises(errors.NoSpace, match=f"the disk has {most} (primary )?partitions"):
        partitiontable.place(table(label, most), MIB, "linux")


def test_a_dos_table_is_filled_as_far_as_sfdisk_handles_it() -> None:
    extended = Partition(1, MIB, 400 * MIB, "extended", "extended")
    logical = [Partition(n, n * MIB, (n + 1) * MIB, "logical", "linux") for n in range(5, 60)]
    full = table("dos", 0, gaps=(Gap(100 * MIB, 200 * MIB, True),))._replace(parts=(extended, *logical))
    last = partitiontable.place(full, MIB, "linux")
    assert (last.number, last.kind) == (60, "logical")
    with pytest.raises(errors.NoSpace, match="the disk has 60 partitions, which is the most that sfdisk handles"):
        partitiontable.place(full._replace(parts=(*full.parts, last)), MIB, "linux")


def test_the_numbers_that_a_table_takes_for_itself() -> None:
    assert partitiontable.place(table("mac", 0), MIB, "linux").number == 2
    assert partitiontable.place(table("sun", 2), MIB, "linux").number == 4
    assert partitiontable.place(table("gpt", 1, first=2), MIB, "linux").number == 1, "the lowest that is free"


@pytest.mark.parametrize(
    ("label", "grain"), [("dos", 512), ("gpt", 512), ("mac", 512), ("sun", 16065 * 512), ("pc98", 16065 * 512)]
)
def test_sizes_are_whole_sectors_or_cylinders(label: str, grain: int) -> None:
    empty = table(label, 0, 16065 * 512)
    assert partitiontable.rounded(empty, 1) == grain
    assert partitiontable.rounded(empty, grain) == grain
    assert partitiontable.rounded(empty, grain + 1) == 2 * grain
    assert partitiontable.place(empty, grain + 1, "linux").size == 2 * grain


def test_the_smallest_extent_that_fits_and_the_first_of_equals() -> None:
    gaps = (Gap(100 * MIB, 130 * MIB), Gap(60 * MIB, 80 * MIB), Gap(10 * MIB, 30 * MIB), Gap(40 * MIB, 50 * MIB))
    empty = table("gpt", 0, gaps=gaps)
    assert partitiontable.place(empty, 20 * MIB, "linux")[1:3] == (10 * MIB, 30 * MIB)
    assert partitiontable.place(empty, 20 * MIB + 1, "linux").start == 100 * MIB
    with pytest.raises(errors.NoSpace, match=f"no free extent has {40 * MIB} bytes; the largest has {30 * MIB}"):
        partitiontable.place(empty, 40 * MIB, "linux")


@pytest.mark.parametrize(("format", "largest"), [("linux", 20), ("extended", 20)])
def test_room_within_the_extended_partition_is_not_for_primary_ones(format: str, largest: int) -> None:
    inside = (Gap(10 * MIB, 30 * MIB), Gap(100 * MIB, 400 * MIB, True))
    with pytest.raises(errors.NoSpace, match=f"the largest has {largest * MIB}$"):
        partitiontable.place(table("dos", 0, gaps=inside), 25 * MIB, format)
