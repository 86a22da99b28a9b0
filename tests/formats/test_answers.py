"""What poolkit answers where other readers disagree, guess, open other files or fall over: one test a case."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from poolkit.formats import ImageInfo
from tests.formats import samples
from tests.formats.samples import Sparse, look, look_at, probe

MIB = 1 << 20
FORMAT = (0xE2792ACA, b"raw")


def fails(info: ImageInfo, format: str, words: str) -> None:
    assert info.format == format
    assert info.error is not None
    assert words in info.error
    assert info.capacity is None


# --- VHD


def test_fixed_vhd_is_known_by_its_end_and_says_so() -> None:
    info = probe(Sparse({MIB: samples.vhd_footer(kind=2)}, MIB + 512))
    assert (info.format, info.subtype, info.tail, info.capacity, info.error) == ("vpc", "fixed", True, MIB, None)


def test_a_guest_that_writes_a_footer_leaves_its_content_in_sight() -> None:
    mbr = bytes(510) + b"\x55\xaa"
    info = probe(Sparse({0: mbr, MIB: samples.vhd_footer(kind=2)}, MIB + 512))
    assert (info.format, info.tail, info.hints) == ("vpc", True, ("mbr",))


def test_vhd_version_2() -> None:
    info = look(samples.vhd(version=0x20000))
    fails(info, "vpc", "version 2.0")
    assert info.unsupported


def test_vhd_checksum() -> None:
    info = look(samples.vhd(bad=1))
    assert info.format == "vpc"
    assert info.error == "the checksum of the footer is wrong"


@pytest.mark.parametrize(
    ("creator", "chs", "size"),
    [
        (b"vpc ", (1000, 16, 63), 1000 * 16 * 63 * 512),
        (b"qemu", (1000, 16, 63), 1000 * 16 * 63 * 512),
        (b"qemu", (65535, 16, 255), 7 * MIB),
        (b"win ", (1000, 16, 63), 7 * MIB),
        (b"qem2", (1000, 16, 63), 7 * MIB),
        (b"tap\0", (1000, 16, 63), 7 * MIB),
    ],
)
def test_vhd_size_is_the_one_a_guest_under_qemu_sees(creator: bytes, chs: tuple[int, int, int], size: int) -> None:
    info = look(samples.vhd(creator=creator, chs=chs, size=7 * MIB, original=5 * MIB))
    assert (info.capacity, info.cluster_size, info.error) == (size, 2 * MIB, None)
    assert info.details is not None
    assert info.details["original_size"] == 5 * MIB


def test_differencing_vhd_names_its_parent() -> None:
    info = look(samples.vhd(kind=4, parent="C:\\disks\\bäse.vhd"))
    assert info.backing is not None
    assert (info.subtype, info.backing.name, info.backing.format) == ("differencing", "C:\\disks\\bäse.vhd", "vpc")
    assert any("without its parent" in note for note in info.notes)
    nameless = look(samples.vhd(kind=4, parent_id=bytes(range(16))))
    assert nameless.backing is not None
    assert (nameless.backing.kind, nameless.backing.name) == ("uuid", "03020100-0504-0706-0809-0a0b0c0d0e0f")


# --- VMDK


def test_vmdk_of_two_to_the_56_sectors() -> None:
    fails(look(samples.vmdk(capacity=1 << 56)), "vmdk", "sectors")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "nbd:127.0.0.1:1",
        'json:{"driver":"raw"}',
        "/dev/sda",
        "\\\\.\\PhysicalDrive0",
    ],
)
def test_descriptor_lists_its_extents(name: str) -> None:
    info = look(samples.descriptor(f'RW 2048 FLAT "{name.replace(chr(34), "")}" 16'))
    (extent,) = info.extents
    assert (info.format, info.subtype, info.capacity, info.error) == ("vmdk", "monolithicFlat", MIB, None)
    assert (extent.access, extent.size, extent.type, extent.offset) == ("RW", MIB, "FLAT", 16 * 512)
    assert extent.file == name.replace('"', "")
    assert info.external


def test_descriptor_sums_all_extents() -> None:
    text = samples.descriptor(
        'RW 4192256 SPARSE "d-s001.vmdk"', 'RDONLY 2048 FLAT "x" 0', "RW 10 ZERO", 'NOACCESS 1 SESPARSE "é.vmdk"'
    )
    info = look(text)
    assert info.capacity == (4192256 + 2048 + 10 + 1) * 512
    assert [extent.file for extent in info.extents] == ["d-s001.vmdk", "x", None, "é.vmdk"]


@pytest.mark.parametrize("front", ["", "# text\n\n", "#\r\n  \r\n   \n"])
@pytest.mark.parametrize("end", [b"", bytes(4000)])
def test_descriptor_padded_or_after_comments(front: str, end: bytes) -> None:
    """An empty line (no blank in it) already ends QEMU's search; VMware's first line is enough for us."""
    text = front.encode() + samples.descriptor('RW 8 FLAT "a" 0') + end
    info = look(text)
    if "\n\n" in front:
        assert info.format == "raw"
    else:
        assert (info.format, info.capacity, info.error) == ("vmdk", 4096, None)


def test_descriptor_with_windows_lines() -> None:
    assert look(samples.descriptor('RW 8 FLAT "a" 0').replace(b"\n", b"\r\n")).capacity == 4096


@pytest.mark.parametrize("version", ["version=4", "Version=1", "version=1x", "versions"])
def test_descriptor_of_unknown_version(version: str) -> None:
    text = samples.descriptor('RW 8 FLAT "a" 0', version=version)
    fails(look(text), "vmdk", "version")
    assert look(text.partition(b"\n")[2]).format == "raw", "QEMU takes it for raw as well"


@pytest.mark.parametrize(
    "line",
    [
        'RW -1 FLAT "a" 0',
        'RW 0 FLAT "a" 0',
        "RW x",
        'RW 99999999999999999999 FLAT "a"',
        'RW 36028797018963968 FLAT "a"',
        "",
    ],
)
def test_descriptor_with_impossible_extents(line: str) -> None:
    fails(look(samples.descriptor(line)), "vmdk", "extent")


def test_descriptor_limits() -> None:
    fails(look(samples.descriptor(*["RW 8 ZERO"] * 2001)), "vmdk", "more than 2000")
    fails(look(samples.descriptor('RW 8 FLAT "a"') + b"#" * 70_000), "vmdk", "more than 65536 bytes")


def test_split_extent_of_a_vmdk() -> None:
    info = look(samples.vmdk(text_offset=0))
    assert (info.format, info.subtype, info.capacity, info.error) == ("vmdk", "extent", MIB, None)


def test_sparse_vmdk_without_a_size_names_other_files() -> None:
    text = samples.descriptor('RW 2048 FLAT "/etc/passwd" 0')
    info = look(samples.vmdk(capacity=0, text=text))
    assert [extent.file for extent in info.extents] == ["/etc/passwd"]
    assert (info.capacity, info.external) == (MIB, True)


def test_sparse_vmdk_whose_descriptor_is_not_its_own() -> None:
    own = look(samples.vmdk(text=samples.descriptor('RW 2048 SPARSE "other-name.vmdk"', kind="monolithicSparse")))
    assert (own.extents, own.external, own.subtype) == ((), False, "monolithicSparse")
    for lines in (['RW 2048 FLAT "/etc/passwd" 0'], ['RW 8 SPARSE "a"', 'RW 8 SPARSE "b"']):
        strange = look(samples.vmdk(text=samples.descriptor(*lines, kind="monolithicSparse")))
        assert strange.external


def test_stream_optimised_vmdk_without_footer() -> None:
    fails(look(samples.vmdk(directory=(1 << 64) - 1)), "vmdk", "footer")


def test_footer_of_a_stream_decides() -> None:
    header, footer = samples.vmdk(directory=(1 << 64) - 1, capacity=1 << 20), samples.vmdk(capacity=4096)[:512]
    info = probe(Sparse({0: header, 1 << 20: footer}, (1 << 20) + 1024))
    assert (info.subtype, info.capacity) == ("streamOptimized", 2 * MIB)


def test_cowd_and_sesparse() -> None:
    cowd = look(struct.pack("<4sIIII", b"COWD", 1, 3, 2048, 1) + bytes(2048))
    assert (cowd.format, cowd.subtype, cowd.capacity, cowd.cluster_size) == ("vmdk", "vmfsSparse", MIB, 512)
    sesparse = look(struct.pack("<QQQQ", 0xCAFEBABE, 0x200000001, 2048, 8) + bytes(512))
    assert (sesparse.format, sesparse.subtype, sesparse.capacity) == ("vmdk", "seSparse", MIB)
    assert look(b"\xbe\xba\xfe\xca" + bytes(508)).format == "raw"
    fails(look(struct.pack("<4sIIII", b"COWD", 2, 3, 2048, 1) + bytes(2048)), "vmdk", "COWD version 2")


# --- qcow2


@pytest.mark.parametrize("version", [2, 3])
def test_short_qcow2_with_backing_file(version: int) -> None:
    data = samples.qcow2(version=version, backing=b"/etc/passwd", extensions=(FORMAT,))
    info = look(data[:400])
    assert len(data) < 400
    assert info.backing is not None
    assert (info.format, info.backing.name, info.backing.format, info.error) == ("qcow2", "/etc/passwd", "raw", None)


def test_qcow2_of_72_bytes() -> None:
    assert look(samples.qcow2(version=2)[:72]).error is None
    fails(look(samples.qcow2()[:72]), "qcow2", "truncated")
    fails(look(samples.qcow2()[:71]), "qcow2", "truncated")


def test_qfi_with_a_zero_is_no_magic() -> None:
    assert look(b"QFI\0" + samples.qcow2(version=2)[4:]).format == "raw"
    assert look(samples.qcow2(version=0)).format == "raw"


@pytest.mark.parametrize("version", [4, 1 << 31])
def test_qcow2_of_the_future(version: int) -> None:
    info = look(samples.qcow2(version=version))
    fails(info, "qcow2", f"version {version}")
    assert info.unsupported


@pytest.mark.parametrize("bit", [5, 40, 63])
def test_qcow2_unknown_incompatible_bit(bit: int) -> None:
    info = look(samples.qcow2(incompatible=1 << bit, backing=b"base"))
    fails(info, "qcow2", f"bits: {bit}")
    assert info.unsupported
    assert info.backing is not None, "what was read before is still told"


def test_qcow2_extended_l2_is_fine() -> None:
    info = look(samples.qcow2(incompatible=16))
    assert (info.features, info.error, info.unsupported) == (("extended_l2",), None, False)
    fails(look(samples.qcow2(incompatible=16, cluster_bits=13)), "qcow2", "extended L2")


def test_qcow2_data_file() -> None:
    name = (0x44415441, b"/etc/passwd")
    info = look(samples.qcow2(incompatible=4, autoclear=2, extensions=(name,)))
    assert (info.data_file, info.features, info.external) == ("/etc/passwd", ("data_file", "data_file_raw"), True)
    ignored = look(samples.qcow2(extensions=(name,)))
    assert (ignored.data_file, ignored.external, ignored.error) == (None, False, None)
    assert "data file name is stored" in ignored.notes[0]
    for extensions in ((), ((0x44415441, b""),)):
        fails(look(samples.qcow2(incompatible=4, extensions=extensions)), "qcow2", "not named")


@pytest.mark.parametrize(("size", "capacity"), [(0, 0), (1, 1), (1000, 1000), ((1 << 63) - 1, (1 << 63) - 1)])
def test_qcow2_sizes_are_exact(size: int, capacity: int) -> None:
    info = look(samples.qcow2(size=size))
    assert (info.capacity, info.error) == (capacity, None)
    assert bool(info.notes) == bool(size % 512)


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_qcow2_sizes_beyond_a_file(size: int) -> None:
    fails(look(samples.qcow2(size=size)), "qcow2", "virtual size")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}', "json"),
        (b"nbd://evil/x", "protocol"),
        (b"ssh://evil/x", "protocol"),
        (b"nbd:evil:1:exportname=x", "protocol"),
        (b"file:/etc/shadow", "protocol"),
        (b"/dir/json:x", "file"),
        (b"./a:b", "file"),
        (b"the-fifo", "file"),
    ],
)
def test_qcow2_backing_kinds(raw: bytes, kind: str) -> None:
    info = look(samples.qcow2(backing=raw))
    assert info.backing is not None
    assert (info.backing.name, info.backing.raw, info.backing.kind, info.backing.format) == (
        raw.decode(),
        raw,
        kind,
        None,
    )
    assert info.error is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[2Jx", "\\x1b[2Jx"),
        (b"a\nb", "a\\x0ab"),
        (b"caf\xe9", "caf\\xe9"),
        ("ab\u202egpj.exe".encode(), "ab\\xe2\\x80\\xaegpj.exe"),
        (b"a\\x1b", "a\\x1b"),
        (b"<&'>", "<&'>"),
    ],
)
def test_names_are_clean_text(raw: bytes, shown: str) -> None:
    info = look(samples.qcow2(backing=raw))
    assert info.backing is not None
    assert (info.backing.name, info.backing.raw) == (shown, raw)
    assert info.backing.clean == (shown.encode() == raw)
    assert info.backing.name.isprintable()


def test_a_nul_in_a_name_is_refused() -> None:
    for data in (
        samples.qcow2(backing=b"a\0b"),
        samples.qcow(backing=b"a\0b"),
        samples.qed(features=1, backing=b"a\0b"),
    ):
        info = look(data)
        assert info.error is not None
        assert "NUL" in info.error


def test_extensions_of_odd_length_are_padded() -> None:
    """libvirt 9 does not pad and misses what follows."""
    info = look(samples.qcow2(backing=b"base", extensions=((0x12345678, b"odd"), FORMAT)))
    assert info.backing is not None
    assert info.backing.format == "raw"


def test_extensions_past_the_first_page_are_read() -> None:
    info = look(samples.qcow2(backing=b"base", extensions=((0x12345678, bytes(9000)), FORMAT)))
    assert info.backing is not None
    assert (info.backing.name, info.backing.format) == ("base", "raw")


def test_qcow2_luks_without_its_header() -> None:
    """qemu-img 7.2 dies of this one."""
    fails_with = look(samples.qcow2(crypt=2))
    assert (fails_with.encryption, fails_with.error) == (
        "luks",
        "LUKS encryption is announced and its header is missing",
    )
    pointer = (0x0537BE77, struct.pack(">QQ", 65536, 4096))
    good = probe(Sparse({0: samples.qcow2(crypt=2, extensions=(pointer,)), 65536: samples.luks1()}, 131072))
    assert (good.encryption, good.error) == ("luks", None)


# --- qed


def test_qed_backing_format() -> None:
    plain, pinned = look(samples.qed(features=1, backing=b"base")), look(samples.qed(features=5, backing=b"base"))
    assert plain.backing is not None
    assert pinned.backing is not None
    assert (plain.backing.format, pinned.backing.format) == (None, "raw")


# --- LUKS


def test_luks1() -> None:
    info = look(samples.luks1(payload=8), 10 * MIB)
    assert (info.format, info.libvirt_format, info.encryption) == ("luks", "raw", "luks")
    assert (info.capacity, info.error) == (10 * MIB - 4096, None)


def test_luks1_header_alone_does_not_underflow() -> None:
    fails(look(samples.luks1(), 4096), "luks", "truncated")
    detached = look(samples.luks1(payload=0), 4096)
    assert (detached.capacity, detached.error) == (None, None)
    assert "detached" in detached.notes[0]


def segment(**values: object) -> bytes:
    return json.dumps(
        {"segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", **values}}}
    ).encode()


@pytest.mark.parametrize(
    ("text", "capacity"), [(segment(), 4 * MIB), (segment(offset="1048576"), 19 * MIB), (segment(size="65536"), 65536)]
)
def test_luks2(text: bytes, capacity: int) -> None:
    info = look(samples.luks2(text), 20 * MIB)
    assert (info.format, info.encryption, info.capacity, info.error) == ("luks", "luks2", capacity, None)


def test_luks2_detached() -> None:
    info = look(samples.luks2(segment(offset="0")), 20 * MIB)
    assert (info.capacity, info.error) == (None, None)


# --- discs


def test_iso() -> None:
    info = probe(samples.iso())
    assert (info.format, info.capacity, info.also, info.ambiguous, info.error) == ("iso", 204800, (), False, None)
    assert info.details == {"volume_size": 204800, "label": "LABEL"}
    assert "cut short" in probe(samples.iso(volume=101)).notes[0]


@pytest.mark.tools("genisoimage")
@pytest.mark.parametrize(("options", "also"), [([], ()), (["-udf"], ("udf",)), (["-J", "-R"], ())])
def test_disc_made_by_genisoimage(tmp_path: Path, options: list[str], also: tuple[str, ...]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_text("hello")
    path = tmp_path / "a.iso"
    subprocess.run(["genisoimage", "-quiet", *options, "-V", "NAME", "-o", path, tmp_path / "d"], check=True)
    info = look_at(path)
    assert (info.format, info.capacity, info.also, info.ambiguous) == ("iso", path.stat().st_size, also, False)
    assert info.details is not None
    assert info.details["label"] == "NAME"


@pytest.mark.tools("xorriso")
def test_hybrid_disc(tmp_path: Path) -> None:
    """A partition table in front of a disc is how it boots from a stick, and no second format."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_text("hello")
    path = tmp_path / "a.iso"
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-partition_offset", "16", "-o", str(path), str(tmp_path / "d")]
    subprocess.run(argv, check=True, capture_output=True)
    info = look_at(path)
    assert (info.format, info.also, info.ambiguous) == ("iso", ("mbr",), False)


@pytest.mark.tools("mkudffs")
def test_udf_alone(tmp_path: Path) -> None:
    path = tmp_path / "udf"
    with path.open("wb") as file:
        file.truncate(20 * MIB)
    subprocess.run(["mkudffs", path], check=True, capture_output=True)
    info = look_at(path)
    assert (info.format, info.capacity, info.also, info.ambiguous) == ("raw", 20 * MIB, ("udf",), False)


# --- files that could be two things


@pytest.mark.parametrize(
    ("front", "name"),
    [
        (samples.qcow2(), "qcow2"),
        (samples.descriptor('RW 8 FLAT "/etc/passwd" 0'), "vmdk"),
        (samples.vmdk(), "vmdk"),
        (samples.luks1(payload=8), "luks"),
        (samples.parallels(), "ploop"),
        (samples.vdi(), "vdi"),
    ],
)
def test_a_second_format_makes_it_ambiguous(front: bytes, name: str) -> None:
    info = probe(samples.iso(front))
    assert (info.format, info.also, info.ambiguous) == (name, ("iso",), True)


def test_vdi_inside_another_header() -> None:
    front = bytearray(samples.parallels() + samples.vdi()[64:])
    info = look(bytes(front))
    assert (info.format, info.also, info.ambiguous) == ("ploop", ("vdi",), True)


# --- the rest


@pytest.mark.parametrize("magic", [b"WithouFreSpacExt", b"WithoutFreeSpace"])
def test_both_parallels_magics(magic: bytes) -> None:
    info = look(samples.parallels(magic=magic, sectors=4096))
    assert (info.format, info.libvirt_format, info.qemu_driver) == ("ploop", "ploop", "parallels")
    assert (info.capacity, info.cluster_size, info.error) == (2 * MIB, MIB, None)


def test_old_parallels_counts_32_bits() -> None:
    assert look(samples.parallels(magic=b"WithoutFreeSpace", sectors=(1 << 32) + 8)).capacity == 4096


@pytest.mark.tools("bximage")
@pytest.mark.parametrize("kind", ["growing", "sparse"])
def test_bochs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    argv = ["bximage", "-func=create", "-hd=10M", f"-imgmode={kind}", "-q", path]
    subprocess.run(argv, check=True, capture_output=True)
    info = look_at(path)
    assert (info.format, info.subtype, info.capacity, info.error) == ("bochs", kind, 10321920, None)


def test_bochs_overlays_are_listed_and_not_used() -> None:
    info = look(samples.bochs(subtype=b"Undoable"))
    assert (info.format, info.subtype, info.unsupported) == ("bochs", "undoable", True)
    assert look(samples.bochs(version=0x10000, size=MIB)).capacity == MIB


def test_dmg() -> None:
    info = probe(Sparse({4096: samples.koly(capacity=100)}))
    assert (info.format, info.capacity, info.tail, info.error) == ("dmg", 51200, True, None)
    fails(probe(Sparse({4096: samples.koly(data=(0, 5000))})), "dmg", "data fork ends at 5000")
    fails(probe(Sparse({4096: samples.koly(xml=(1 << 63, 1 << 63))})), "dmg", "property list")
    fails(probe(Sparse({4096: samples.koly(version=5)})), "dmg", "version 5")


def test_images_not_closed_cleanly_say_so() -> None:
    for data in (samples.qed(features=2), samples.parallels(in_use=0x746F6E59), samples.qcow2(incompatible=1)):
        info = look(data)
        assert (info.features, info.error) == (("dirty",), None)
    assert look(samples.qcow2(incompatible=2, compatible=1, autoclear=1)).features == (
        "corrupt",
        "lazy_refcounts",
        "bitmaps",
    )


def test_a_name_ending_in_dmg_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.dmg"
    path.write_bytes(b"no disk image" * 100)
    assert look_at(path).format == "raw"


@pytest.mark.parametrize("data", [samples.cow2(), samples.cow3()])
def test_cow(data: bytes) -> None:
    info = look(data)
    assert info.backing is not None
    assert (info.format, info.capacity, info.backing.name, info.error) == ("cow", MIB, "/base.img", None)


def test_cow_whose_name_fills_its_field() -> None:
    for data, length in ((samples.cow2(backing=b"x" * 1024), 1024), (samples.cow3(backing=b"x" * 4096), 4096)):
        info = look(data)
        assert info.backing is not None
        assert info.backing.raw == b"x" * length


@pytest.mark.tools("uml_mkcow")
def test_cow_made_by_uml(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(MIB))
    subprocess.run(["uml_mkcow", tmp_path / "a.cow", base], check=True, capture_output=True)
    info = look_at(tmp_path / "a.cow")
    assert info.backing is not None
    assert (info.format, info.subtype, info.capacity, info.backing.name) == ("cow", "v3", MIB, str(base))


def test_vdi_versions_and_parents() -> None:
    for version in (0x10000, 0x20000):
        info = look(samples.vdi(version=version))
        fails(info, "vdi", f"version {version >> 16}.0")
        assert info.unsupported
    child = look(samples.vdi(kind=4, parent=bytes(range(1, 17))))
    assert child.backing is not None
    assert (child.subtype, child.backing.kind, child.capacity) == ("differencing", "uuid", MIB)


@pytest.mark.parametrize("size", [0, 1, 511, 513, 32775])
def test_small_raw_files_have_their_exact_size(size: int) -> None:
    info = look(b"x" * size)
    assert (info.format, info.capacity, info.error, info.ambiguous) == ("raw", size, None, False)


def test_the_letters_at_the_end_need_a_whole_sector() -> None:
    assert look(b"conectix").error is not None
    assert look(b"koly" + bytes(507)).format == "raw"
    assert look(bytes(512) + b"koly" + bytes(507)).format == "raw"
