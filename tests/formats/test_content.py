"""What a device holds: real file systems and tables, made by their own tools, and what one leaves behind another."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from poolkit.formats import FdReader, content, describe, probe
from tests.formats import samples
from tests.formats.samples import Sparse, look_at

MIB = 1 << 20


def image(tmp_path: Path, size: int = 64 * MIB) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def run(*argv: object, **options: object) -> None:
    words = [str(word) for word in argv]
    words[0] = shutil.which(words[0], path="/usr/sbin:/sbin:/usr/bin:/bin") or words[0]
    done = subprocess.run(words, capture_output=True, check=False, timeout=120, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


def found(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        return content(FdReader(file.fileno(), path.stat().st_size))


MAKERS = [
    pytest.param(argv, size, names, hints, marks=pytest.mark.tools(argv[0]), id="-".join(argv[:3]))
    for argv, size, names, hints in (
        (("mkfs.ext2", "-q"), 64, ("ext2",), ("ext2",)),
        (("mkfs.ext3", "-q"), 64, ("ext3",), ("ext3",)),
        (("mkfs.ext4", "-q"), 64, ("ext4",), ("ext4",)),
        (("mkfs.ext4", "-q", "-b", "1024"), 64, ("ext4",), ("ext4",)),
        (("mkfs.xfs", "-q"), 320, ("xfs",), ("xfs",)),
        (("mkfs.btrfs", "-q"), 256, ("btrfs",), ()),
        (("mkfs.vfat", "-F", "12"), 4, ("vfat",), ("vfat",)),
        (("mkfs.vfat", "-F", "16"), 32, ("vfat",), ("vfat",)),
        (("mkfs.vfat", "-F", "32"), 64, ("vfat",), ("vfat",)),
        (("mkfs.ntfs", "-F", "-Q", "-q"), 64, ("ntfs",), ("ntfs",)),
        (("mkswap",), 64, ("swap",), ("swap",)),
        (("mkswap", "-p", "65536"), 64, ("swap",), ()),
        (("mkudffs",), 64, ("udf",), ("udf",)),
        (("mkfs.gfs2", "-q", "-O", "-p", "lock_nolock"), 128, ("gfs2",), ()),
        (("mkfs.ocfs2", "-q", "-x", "-M", "local", "--fs-feature-level=max-compat"), 256, ("ocfs2",), ()),
    )
]


@pytest.mark.parametrize(("argv", "size", "names", "hints"), MAKERS)
def test_file_systems(
    tmp_path: Path, argv: tuple[str, ...], size: int, names: tuple[str, ...], hints: tuple[str, ...]
) -> None:
    path = image(tmp_path, size * MIB)
    run(*argv, path, input=b"y\n")
    assert found(path) == names
    info = look_at(path)
    assert (info.format, info.hints, info.capacity, info.ambiguous) == ("raw", hints, size * MIB, False)


@pytest.mark.tools("mksquashfs")
def test_squashfs(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    run("mksquashfs", tmp_path / "d", tmp_path / "image", "-quiet", "-no-progress")
    assert found(tmp_path / "image") == ("squashfs",)


@pytest.mark.tools("sfdisk")
@pytest.mark.parametrize(
    ("label", "names"), [("dos", ("mbr",)), ("gpt", ("mbr", "gpt")), ("sun", ("sun",)), ("sgi", ("dvh",))]
)
def test_partition_tables(tmp_path: Path, label: str, names: tuple[str, ...]) -> None:
    path = image(tmp_path)
    run("sfdisk", "-q", path, input=f"label: {label}\n".encode())
    assert found(path) == names


@pytest.mark.tools("parted")
@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("msdos", ("mbr",)),
        ("gpt", ("mbr", "gpt")),
        ("mac", ("mac",)),
        ("bsd", ("bsd",)),
        ("sun", ("sun",)),
        ("dvh", ("dvh",)),
    ],
)
def test_tables_made_by_parted(tmp_path: Path, label: str, names: tuple[str, ...]) -> None:
    path = image(tmp_path)
    run("parted", "-s", path, "mklabel", label)
    assert found(path) == names


@pytest.mark.tools("sfdisk")
def test_the_second_gpt_counts(tmp_path: Path) -> None:
    path = image(tmp_path)
    run("sfdisk", "-q", path, input=b"label: gpt\n")
    with path.open("r+b") as file:
        file.write(bytes(MIB))
    assert found(path) == ("gpt",)


def test_gpt_on_sectors_of_4_kib() -> None:
    assert content(Sparse({4096: b"EFI PART"}, MIB)) == ("gpt",)


@pytest.mark.parametrize("sector", [0, 1, 2, 3])
def test_lvm(tmp_path: Path, sector: int) -> None:
    path = image(tmp_path)
    path.write_bytes(lvm_label(sector))
    assert found(path) == ("LVM2_member",)


def lvm_label(sector: int) -> bytes:
    """A label header as LVM's ``lib/label/label.h`` has it; pvcreate itself wants a block device."""
    return bytes(sector * 512) + struct.pack("<8sQII8s", b"LABELONE", sector, 0, 32, b"LVM2 001") + bytes(4096)


@pytest.mark.parametrize(
    ("place", "magic"),
    [
        (0, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
        (4096, b"\xfc\x4e\x2b\xa9"),
        ((64 * MIB // 512 - 16 & ~7) * 512, b"\xfc\x4e\x2b\xa9"),
        (64 * MIB - 65536, b"\xfc\x4e\x2b\xa9"),
        (64 * MIB - 65536, b"\xa9\x2b\x4e\xfc"),
    ],
)
def test_raid_members(place: int, magic: bytes) -> None:
    """Superblocks 1.1, 1.2, 1.0 and 0.90 in both byte orders, where md(4) puts them."""
    assert content(Sparse({place: magic}, 64 * MIB)) == ("linux_raid_member",)


@pytest.mark.parametrize("label", [0, 256 << 10, 63 * MIB + (512 << 10), 63 * MIB + (768 << 10)])
@pytest.mark.parametrize("magic", [b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"])
def test_zfs(label: int, magic: bytes) -> None:
    """An uberblock in the ring of any of the four labels, in either byte order."""
    assert content(Sparse({label + (131 << 10): magic}, 64 * MIB + 1000)) == ("zfs_member",)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({0: b"bluestore block device\n"}, "ceph_bluestore"),
        ({3: b"EXFAT   "}, "exfat"),
        ({1024: b"H+\0\4"}, "hfsplus"),
        ({1024: b"BD", 1044: b"\0\0\x10\0"}, "hfs"),
        ({1024: b"\2\0\0\0\0\0\x34\x34"}, "nilfs2"),
        ({1024: b"HX\0\5"}, "hfsplus"),
        ({1024: b"\x10\x20\xf5\xf2"}, "f2fs"),
        ({65588: b"ReIsEr2Fs"}, "reiserfs"),
        ({32768: b"JFS1"}, "jfs"),
        ({MIB: b"\x0d\xd0\x01\xc0"}, "VMFS_volume_member"),
        ({0: b"ER", 512: b"PM"}, "mac"),
        ({512: b"\x57\x45\x56\x82", 644: b"\x57\x45\x56\x82"}, "bsd"),
        ({16384: b"SKUL\xba\xbe"}, "luks"),
        ({4 * MIB: b"SKUL\xba\xbe"}, "luks"),
        ({0: samples.qcow2()}, "qcow2"),
        ({64 * MIB - 512: samples.koly()}, "dmg"),
    ],
)
def test_signatures(parts: dict[int, bytes], name: str) -> None:
    assert content(Sparse(parts, 64 * MIB)) == (name,)


@pytest.mark.tools("mkfs.ext4", "sfdisk")
def test_layers_are_all_listed(tmp_path: Path) -> None:
    """A disk that was a RAID member, then partitioned, with a disc image's marks: nothing hides another."""
    path = image(tmp_path)
    run("mkfs.ext4", "-q", path)
    run("sfdisk", "-q", "--wipe", "never", path, input=b"label: dos\n")
    with path.open("r+b") as file:
        file.seek((64 * MIB // 512 - 16 & ~7) * 512)
        file.write(b"\xfc\x4e\x2b\xa9")
        file.seek(32768)
        file.write(b"\1CD001\1")
    assert found(path) == ("mbr", "ext4", "iso9660", "linux_raid_member")


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 70_000, 64 * MIB])
def test_nothing_is_nothing(size: int) -> None:
    reader = Sparse({}, size)
    assert content(reader) == ()
    assert probe(reader).hints == ()
    assert reader.bytes < 600 << 10


def test_random_text_is_nothing() -> None:
    assert content(Sparse({0: b"The quick brown fox. " * 200_000})) == ()


def test_two_letters_are_no_file_system() -> None:
    assert content(Sparse({1024: b"BD", 1080: b"\x53\xef"}, MIB)) == ()


def test_an_unreadable_device_is_not_an_empty_one() -> None:
    class Broken(Sparse):
        def pread(self, length: int, offset: int) -> bytes:
            raise OSError(5, "Input/output error")

    broken = Broken({}, MIB)
    assert content(broken) == ("unreadable",)
    info = probe(broken)
    assert (info.format, info.capacity, info.error) == ("raw", None, "cannot be read: Input/output error")


def test_description_has_the_content(tmp_path: Path) -> None:
    path = image(tmp_path, MIB)
    path.write_bytes(lvm_label(1))
    assert describe(str(path))["content"] == ["LVM2_member"]
