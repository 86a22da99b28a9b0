"""Our answer equals ``qemu-img info`` for all it can create, except where the reasons are written down here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from poolkit.formats import FdReader, ImageInfo, check, describe, qemu_driver
from tests.formats.samples import look_at

pytestmark = pytest.mark.tools("qemu-img")

MIB = 1 << 20
SECRET = ("--object", "secret,id=s,data=correct-horse", "-o", "encrypt.key-secret=s")


def create(folder: Path, name: str, *args: str, size: int | None = 24 * MIB) -> Path:
    path = folder / name
    argv = ["qemu-img", "create", "-q", *args, "--", str(path), *([] if size is None else [str(size)])]
    for _ in range(10):  # a busy machine can spoil the timing of the key derivation
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        if "CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return path


def qemu(path: Path, *args: str) -> dict[str, object]:
    argv = ["qemu-img", "info", "--output=json", "-U", *args, "--", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def agree(path: Path, *args: str, **different: object) -> ImageInfo:
    """Compare every fact; ``different`` names those where ours is meant to differ, with our value."""
    theirs = qemu(path, *args)
    info = look_at(path)
    ours = {
        "format": info.qemu_driver,
        "virtual-size": info.capacity,
        "backing-filename": info.backing.name if info.backing else None,
        "backing-filename-format": info.backing.format if info.backing else None,
        "encrypted": info.encryption is not None,
        "cluster-size": info.cluster_size,
    }
    want = {key: theirs.get(key) for key in ours}
    want["encrypted"] = bool(want["encrypted"])
    for key, value in different.items():
        key = key.replace("_", "-")
        assert want[key] != value, f"{key} is no difference any more"
        want[key] = value
    assert ours == want
    assert info.error is None
    with open(path, "rb") as file:
        assert check(FdReader(file.fileno(), file.seek(0, 2)), info) is None, "all of it is there"
    assert not info.unsupported
    assert not info.ambiguous
    specific = theirs.get("format-specific", {})
    if info.format == "qcow2":
        data = specific["data"]
        assert info.compat == data["compat"]
        assert info.data_file == data.get("data-file")
        assert ("lazy_refcounts" in info.features) == data.get("lazy-refcounts", False)
        assert ("extended_l2" in info.features) == data.get("extended-l2", False)
        assert ("zstd" in info.features) == (data.get("compression-type") == "zstd")
        assert ("data_file_raw" in info.features) == data.get("data-file-raw", False)
        assert ("corrupt" in info.features) == data.get("corrupt", False)
        assert info.snapshots == len(theirs.get("snapshots", ()))
    if info.format == "vmdk" and info.subtype != "descriptor":
        assert info.subtype == specific["data"]["create-type"]
    return info


@pytest.mark.parametrize("size", [0, 512, 513, 10 * MIB, 1 << 40])
def test_raw(tmp_path: Path, size: int) -> None:
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(size)
    rounded = {"virtual_size": size} if size % 512 else {}
    agree(path, **rounded)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("cluster", [512, 1024, 4096, 65536, 2 * MIB])
def test_qcow2_clusters(tmp_path: Path, compat: str, cluster: int) -> None:
    agree(create(tmp_path, "a", "-f", "qcow2", "-o", f"compat={compat},cluster_size={cluster}"))


@pytest.mark.parametrize(
    "options",
    [
        "lazy_refcounts=on",
        "extended_l2=on,cluster_size=128k",
        "compression_type=zstd",
        "compression_type=zlib",
        "refcount_bits=1",
        "refcount_bits=64",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        "lazy_refcounts=on,extended_l2=on,compression_type=zstd",
    ],
)
def test_qcow2_options(tmp_path: Path, options: str) -> None:
    agree(create(tmp_path, "a", "-f", "qcow2", "-o", options, size=4 * MIB))


@pytest.mark.parametrize("size", [0, 512, 3 * MIB + 512, 8 << 40, 1 << 60])
def test_qcow2_sizes(tmp_path: Path, size: int) -> None:
    agree(create(tmp_path, "a", "-f", "qcow2", "-o", "cluster_size=2M", size=size))


@pytest.mark.parametrize("raw", ["on", "off"])
def test_qcow2_external_data_file(tmp_path: Path, raw: str) -> None:
    data = tmp_path / "data.raw"
    info = agree(create(tmp_path, "a", "-f", "qcow2", "-o", f"data_file={data},data_file_raw={raw}"))
    assert info.data_file == str(data)
    assert info.external


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("base.img", "file"),
        ("/var/lib/base.img", "file"),
        ("./odd:name", "file"),
        ("grün/ü.img", "file"),
        ("with space,comma", "file"),
        ("nbd://127.0.0.1:1/x", "protocol"),
        ("ssh://host/x", "protocol"),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"/x"}}', "json"),
        ("b" * 1023, "file"),
    ],
)
@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk"])
def test_qcow2_backing(tmp_path: Path, compat: str, name: str, kind: str, format: str) -> None:
    path = create(tmp_path, "a", "-u", "-f", "qcow2", "-o", f"compat={compat}", "-b", name, "-F", format)
    info = agree(path)
    assert info.backing is not None
    assert (info.backing.kind, info.backing.raw, info.backing.clean) == (kind, name.encode(), True)


def test_qcow2_backing_without_format(tmp_path: Path) -> None:
    """QEMU wants a format when it creates: the extension that holds it becomes one that nobody knows."""
    path = create(tmp_path, "a", "-u", "-f", "qcow2", "-b", "base", "-F", "raw")
    data = path.read_bytes()
    at = data.index(b"\xe2\x79\x2a\xca")
    path.write_bytes(data[:at] + b"\x12\x34\x56\x78" + data[at + 4 :])
    info = agree(path)
    assert info.backing is not None
    assert info.backing.format is None


def test_qcow2_snapshots(tmp_path: Path) -> None:
    path = create(tmp_path, "a", "-f", "qcow2")
    for name in ("one", "two"):
        subprocess.run(["qemu-img", "snapshot", "-c", name, str(path)], check=True)
    assert agree(path).snapshots == 2


@pytest.mark.parametrize(("method", "ours"), [("aes", "qcow"), ("luks", "luks")])
def test_qcow2_encryption(tmp_path: Path, method: str, ours: str) -> None:
    quick = ",encrypt.iter-time=10" if method == "luks" else ""
    path = create(tmp_path, "a", "-f", "qcow2", *SECRET, "-o", f"encrypt.format={method}{quick}")
    assert agree(path).encryption == ours


def test_qcow(tmp_path: Path) -> None:
    agree(create(tmp_path, "plain", "-f", "qcow"))
    agree(create(tmp_path, "backed", "-u", "-f", "qcow", "-b", "base", "-F", "raw"))
    assert agree(create(tmp_path, "aes", "-f", "qcow", *SECRET, "-o", "encrypt.format=aes")).encryption == "qcow"


@pytest.mark.parametrize(("cluster", "table"), [(4096, 2), (4096, 16), (65536, 4), (65536, 16), (MIB, 4)])
def test_qed(tmp_path: Path, cluster: int, table: int) -> None:
    agree(create(tmp_path, "a", "-f", "qed", "-o", f"cluster_size={cluster},table_size={table}", size=MIB))


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_qed_backing(tmp_path: Path, format: str) -> None:
    agree(create(tmp_path, "a", "-u", "-f", "qed", "-b", "base", "-F", format))


@pytest.mark.parametrize(
    "subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]
)
@pytest.mark.parametrize("size", [24 * MIB, 5 << 30])
def test_vmdk(tmp_path: Path, subformat: str, size: int) -> None:
    path = create(tmp_path, "a.vmdk", "-f", "vmdk", "-o", f"subformat={subformat}", size=size)
    info = agree(path, **({"cluster_size": None} if subformat == "twoGbMaxExtentSparse" else {}))
    assert info.subtype == subformat
    named = {extent.file for extent in info.extents}
    assert named == {p.name for p in tmp_path.iterdir()} - {"a.vmdk"}


def test_vmdk_converted_to_stream(tmp_path: Path) -> None:
    """A written stream has its directory at the end, and the footer decides."""
    source = tmp_path / "source"
    source.write_bytes(b"data" * 300_000 + bytes(-1_200_000 % 512))
    path = tmp_path / "a.vmdk"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", source, path], check=True
    )
    assert agree(path).subtype == "streamOptimized"


def test_vmdk_with_parent(tmp_path: Path) -> None:
    base = create(tmp_path, "base.vmdk", "-f", "vmdk")
    path = create(tmp_path, "a.vmdk", "-f", "vmdk", "-b", str(base), "-F", "vmdk", size=None)
    info = agree(path, **({"backing_filename_format": None} if qemu(path).get("backing-filename-format") else {}))
    assert info.backing is not None
    assert info.backing.name == str(base)


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=dynamic,force_size=on"])
@pytest.mark.parametrize("size", [8 * MIB, 24 * MIB, 200 << 30])
def test_vpc(tmp_path: Path, options: str, size: int) -> None:
    agree(create(tmp_path, "a", "-f", "vpc", "-o", options, size=size))


@pytest.mark.parametrize("size", [8 * MIB, 24 * MIB])
def test_vpc_fixed(tmp_path: Path, size: int) -> None:
    """QEMU's guess sees raw (only a footer tells); asked for vpc it agrees."""
    path = create(tmp_path, "a", "-f", "vpc", "-o", "subformat=fixed", size=size)
    info = agree(path, "-f", "vpc")
    assert info.tail
    assert qemu(path)["format"] == "raw"


def test_vdi(tmp_path: Path) -> None:
    assert agree(create(tmp_path, "a", "-f", "vdi")).subtype == "dynamic"
    assert agree(create(tmp_path, "b", "-f", "vdi", "-o", "static=on")).subtype == "static"


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed", "block_size=1M", "block_size=256M"])
def test_vhdx(tmp_path: Path, options: str) -> None:
    path = create(tmp_path, "a", "-f", "vhdx", "-o", options)
    agree(path)
    assert describe(str(path))["error"] is None, "the checksums are right"


@pytest.mark.parametrize("cluster", [64 << 10, MIB])
def test_parallels(tmp_path: Path, cluster: int) -> None:
    """QEMU 7.2 does not say the cluster size."""
    info = agree(create(tmp_path, "a", "-f", "parallels", "-o", f"cluster_size={cluster}"), cluster_size=cluster)
    assert info.format == "ploop"


def test_luks_made_by_qemu(tmp_path: Path) -> None:
    """QEMU gives no block size; ours is the sector."""
    path = create(
        tmp_path, "a", "-f", "luks", "--object", "secret,id=s,data=correct", "-o", "key-secret=s,iter-time=10"
    )
    assert agree(path, cluster_size=512).encryption == "luks"


@pytest.mark.tools("cryptsetup")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("small", [False, True])
def test_luks_made_by_cryptsetup(tmp_path: Path, version: int, small: bool) -> None:
    """QEMU 7.2 takes LUKS 2 for raw."""
    path = tmp_path / "luks"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-size", "256"]
    fast += ["--luks2-metadata-size", "64k", "--luks2-keyslots-size", "256k"] if small and version == 2 else []
    subprocess.run(
        ["cryptsetup", "luksFormat", "-q", "--type", f"luks{version}", *fast, str(path), "-"],
        input=b"correct", check=True,
    )  # fmt: skip
    if version == 1:
        agree(path, cluster_size=512)
        return
    info = look_at(path)
    dump = json.loads(
        subprocess.run(["cryptsetup", "luksDump", "--dump-json-metadata", path], capture_output=True, check=True).stdout
    )
    assert info.capacity == 40 * MIB - int(dump["segments"]["0"]["offset"])
    assert info.cluster_size == dump["segments"]["0"]["sector_size"]
    assert (info.format, info.encryption, info.error) == ("luks", "luks2", None)


@pytest.mark.tools("bximage")
@pytest.mark.parametrize("kind", ["growing", "vpc", "vmware4"])
def test_made_by_bochs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    subprocess.run(
        ["bximage", "-func=create", "-hd=10M", f"-imgmode={kind}", "-q", path], check=True, capture_output=True
    )
    theirs = qemu(path)
    info = agree(path, **({} if theirs.get("cluster-size") else {"cluster_size": look_at(path).cluster_size}))
    assert info.format == {"growing": "bochs", "vpc": "vpc", "vmware4": "vmdk"}[kind]


@pytest.mark.tools("create_compressed_fs")
def test_cloop(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "a"
    source.write_bytes(b"some data" * 100_000)
    subprocess.run(["create_compressed_fs", "-q", source, path], check=True, capture_output=True)
    agree(path, cluster_size=65536)


def test_drivers_have_names() -> None:
    assert [qemu_driver(name) for name in ("ploop", "iso", "cow", "qcow2", "luks")] == [
        "parallels", "raw", None, "qcow2", "luks",
    ]  # fmt: skip
