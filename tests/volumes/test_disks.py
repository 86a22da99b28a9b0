"""What a machine is told to use a volume, judged by libvirt's own schema and parser, and by QEMU itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lxml.etree
import pytest

from poolkit import disks, errors, model
from poolkit.backend import Backend, VolumeInfo
from poolkit.backends.dir import DirPool
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host
from poolkit.model import Pool as Definition
from poolkit.model import PoolTarget, VolumeTarget
from poolkit.xmlmap import write

from .conftest import MIB, make, new_pool, xml

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
QEMU = "qemu-system-x86_64"
SECRET_UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
KEY = b"correct horse battery staple"
ODD = "disk <&'\"> \u00e9,=;%"

needs_schema = pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas (libvirt0) are not installed")
needs_virsh = pytest.mark.skipif(not shutil.which("virsh"), reason="virsh is not installed")
needs_qemu = pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is not installed")


def odd(pool: Pool, format: str) -> Volume:
    """A volume whose name has what XML, JSON and QEMU's options take for their own."""
    return pool.create_volume(model.Volume(name=ODD, capacity=MIB, allocation=0, target=VolumeTarget(format=format)))


def domain(disk: str) -> str:
    """A machine with that disk."""
    return (
        "<domain type='test'><name>one</name><memory>1024</memory><os><type arch='i686'>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )


@pytest.fixture(scope="module")
def schema() -> lxml.etree.RelaxNG:
    return lxml.etree.RelaxNG(lxml.etree.parse(SCHEMA))


def valid(schema: lxml.etree.RelaxNG, disk: str) -> lxml.etree._Element:
    """The element, if libvirt's schema takes it in a machine."""
    tree = lxml.etree.fromstring(domain(disk).encode())
    schema.assertValid(tree)
    return tree.find("devices/disk")


def kept(disk: str) -> lxml.etree._Element:
    """The disk as libvirt's own parser and writer have it."""
    file = subprocess.run(
        ["virsh", "--connect", "test:///default", "define /dev/stdin; dumpxml one"],
        input=domain(disk), capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = file.stdout
    assert "<domain" in text, file.stderr
    tree = lxml.etree.fromstring(text[text.index("<domain") :].encode())
    return tree.find("devices/disk")


def same(one: lxml.etree._Element, other: lxml.etree._Element) -> None:
    """Every element and attribute of ``one`` is in ``other`` with the same value."""
    assert set(one.attrib.items()) <= set(other.attrib.items())
    for tag in {kid.tag for kid in one}:
        for kid, twin in zip(one.findall(tag), other.findall(tag), strict=True):
            same(kid, twin)


def asked(node: dict[str, Any], *more: str) -> list[dict[str, Any]]:
    """A machine that is not started, with the node on a disk of its own; what QEMU then says of its nodes."""
    device = "virtio-blk-pci" if not node.get("read-only") else "ide-cd"
    words = [
        QEMU, "-machine", "q35,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio", *more,
        "-blockdev", json.dumps(node), "-device", f"{device},drive={node['node-name']}",
    ]  # fmt: skip
    say = '{"execute":"qmp_capabilities"}{"execute":"query-named-block-nodes"}{"execute":"quit"}'
    told = subprocess.run(words, input=say, capture_output=True, text=True, check=False, timeout=60)
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    lists = [a["return"] for a in answers if isinstance(a.get("return"), list)]
    assert lists, told.stderr
    nodes: list[dict[str, Any]] = lists[0]
    return nodes


def node_of(nodes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(node for node in nodes if node["node-name"] == name)


def image_info(node: dict[str, Any], *more: str) -> dict[str, Any]:
    """What qemu-img says of the node."""
    words = ["qemu-img", "info", "--output", "json", *more, "json:" + json.dumps(node)]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


# -- libvirt's form -----------------------------------------------------------------------------------------------------


@needs_schema
@needs_virsh
@pytest.mark.parametrize(
    ("format", "driver"),
    [("raw", "raw"), ("qcow2", "qcow2"), ("qcow", "qcow"), ("qed", "qed"), ("vmdk", "vmdk"), ("vdi", "vdi"), ("vpc", "vpc"),
     ("ploop", "ploop")],
)  # fmt: skip
def test_libvirt_takes_every_format_by_its_own_name(
    pool: Pool, schema: lxml.etree.RelaxNG, format: str, driver: str
) -> None:
    volume = odd(pool, format)
    text = volume.disk_xml()
    disk = valid(schema, text)
    assert disk.find("source").get("file") == volume.path
    assert disk.find("driver").get("type") == driver
    same(disk, kept(text))


@needs_schema
@needs_virsh
def test_the_chain_is_written_down_to_its_end(pool: Pool, other: Pool, schema: lxml.etree.RelaxNG) -> None:
    base = make(other, "base")
    middle = base.clone("middle", pool=other, linked=True)
    top = middle.clone(ODD, pool=pool, linked=True)
    text = top.disk_xml(chain=True)
    disk = valid(schema, text)
    first = disk.find("backingStore")
    assert first.find("source").get("file") == middle.path and first.find("format").get("type") == "qcow2"
    second = first.find("backingStore")
    assert second.find("source").get("file") == base.path and second.find("format").get("type") == "raw"
    assert len(second.find("backingStore")) == 0 and not second.find("backingStore").attrib
    same(disk, kept(text))
    assert not top.outcome.warnings
    plain = valid(schema, top.disk_xml())
    assert plain.find("backingStore") is None
    assert "stands on" in top.outcome.warnings[0]
    assert valid(schema, base.disk_xml(chain=True)).find("backingStore").attrib == {}


def test_a_chain_that_leaves_the_pools_is_refused(pool: Pool, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(bytes(MIB))
    backing = f"<backingStore><path>{foreign}</path><format type='raw'/></backingStore>"
    top = pool.create_volume(xml("top", MIB, "qcow2", backing=backing))
    for ask in (top.disk_xml, top.blockdev):
        with pytest.raises(errors.Unsafe, match="no volume of an active pool"):
            ask(chain=True)


@needs_schema
@needs_virsh
def test_by_pool_and_name(pool: Pool, schema: lxml.etree.RelaxNG) -> None:
    text = odd(pool, "qcow2").disk_xml(pool_form=True, target="sdb", cache="unsafe")
    disk = valid(schema, text)
    assert dict(disk.find("source").attrib) == {"pool": "images", "volume": ODD}
    assert dict(disk.find("target").attrib) == {"dev": "sdb", "bus": "scsi"}
    assert disk.find("driver").get("cache") == "unsafe"
    same(disk, kept(text))
    with pytest.raises(errors.InvalidArgument):
        make(pool, "two").disk_xml(pool_form=True, chain=True)


@pytest.mark.parametrize("target", ["", "vd", "vda'/>", "eth0", "../vda", "v" * 99])
def test_the_name_in_the_machine_is_one(pool: Pool, target: str) -> None:
    volume = make(pool, "disk")
    for ask in (volume.disk_xml, volume.blockdev):
        with pytest.raises(errors.InvalidArgument, match="name of a disk"):
            ask(target=target)


@needs_schema
def test_a_disc_is_a_disc(pool: Pool, place: Path, schema: lxml.etree.RelaxNG) -> None:
    data = bytearray(MIB)
    data[32768:32774] = b"\x01CD001"
    (place / "disc").write_bytes(data)
    pool.refresh()
    volume = pool.volume("disc")
    assert volume.info.format == "iso"
    disk = valid(schema, volume.disk_xml())
    assert disk.get("device") == "cdrom" and disk.find("driver").get("type") == "raw"
    assert disk.find("readonly") is not None and disk.find("target").get("bus") == "sata"


def test_the_format_on_record_stands_whatever_a_guest_writes(pool: Pool, place: Path) -> None:
    volume = make(pool, "disk")
    with (place / "disk").open("r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3" + bytes(96))
    assert "type='raw'" in volume.disk_xml()
    assert volume.blockdev()["driver"] == "raw"


@pytest.mark.parametrize("ask", ["disk_xml", "blockdev"])
def test_what_is_in_doubt_is_not_given_to_a_machine(pool: Pool, place: Path, ask: str) -> None:
    image = place / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    with image.open("r+b") as file:
        file.truncate(MIB)
        file.seek(32768)
        file.write(b"\x01CD001")
    (place / "folder").mkdir()
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={place}/data", place / "outside", "1M"],
        check=True,
    )
    (place / "broken").write_bytes(b"QFI\xfb\0\0\0\3" + b"\xff" * 500)
    pool.refresh()
    for name, error in (
        ("image", errors.Unsafe), ("folder", errors.Unsupported), ("outside", errors.Unsafe), ("broken", errors.Unsafe),
    ):  # fmt: skip
        with pytest.raises(error):
            getattr(pool.volume(name), ask)()


def test_libvirt_has_no_word_for_vhdx_and_qemu_has(pool: Pool) -> None:
    volume = make(pool, "disk", "vhdx")
    with pytest.raises(errors.Unsupported, match="no word for disks of format vhdx"):
        volume.disk_xml()
    assert volume.blockdev()["driver"] == "vhdx"


@pytest.mark.skipif(not shutil.which("xmllint") or not shutil.which("virt-xml-validate"), reason="not installed")
def test_virt_xml_validate_takes_it(pool: Pool, other: Pool, tmp_path: Path) -> None:
    top = make(other, "base").clone("top", pool=pool, linked=True)
    for text, status in ((top.disk_xml(chain=True), 0), (top.disk_xml(chain=True).replace("<source", "<sauce"), 3)):
        file = tmp_path / "domain.xml"
        file.write_text(domain(text))
        told = subprocess.run(["virt-xml-validate", file, "domain"], capture_output=True, text=True, check=False)
        assert told.returncode == status, told.stderr


# -- encryption ---------------------------------------------------------------------------------------------------------


def encrypted(engine: Engine, pool: Pool, place: Path, format: str) -> Volume:
    secret = engine.define_secret(
        f"<secret><uuid>{SECRET_UUID}</uuid><usage type='volume'><volume>{place}/locked</volume></usage></secret>"
    )
    secret.set_value(KEY)
    locked = f"<encryption format='luks'><secret type='passphrase' uuid='{SECRET_UUID}'/></encryption>"
    return pool.create_volume(xml("locked", MIB, format, target=locked))


@needs_schema
@needs_virsh
@needs_qemu
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_encrypted_volume_has_its_secret(
    engine: Engine, pool: Pool, place: Path, schema: lxml.etree.RelaxNG, tmp_path: Path, format: str
) -> None:
    volume = encrypted(engine, pool, place, format)
    text = volume.disk_xml()
    disk = valid(schema, text)
    assert disk.find("driver").get("type") == format
    assert disk.find("source/encryption").get("format") == "luks"
    assert disk.find("source/encryption/secret").get("uuid") == SECRET_UUID
    same(disk, kept(text))
    assert KEY.decode() not in text + json.dumps(volume.blockdev())
    key = tmp_path / "key"
    key.write_bytes(KEY)
    nodes = asked(volume.blockdev(), "-object", f"secret,id=vda-key,file={key}")
    assert node_of(nodes, "vda")["drv"] == ("luks" if format == "raw" else "qcow2")
    assert node_of(nodes, "vda")["image"]["virtual-size"] == MIB
    engine.secret(SECRET_UUID).undefine()
    with pytest.raises(errors.SecretNotFound, match="no secret has its path"):
        volume.disk_xml()


# -- QEMU's form --------------------------------------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("format", ["raw", "qcow2", "qed", "vmdk", "vdi", "vpc", "vhdx", "ploop", "qcow"])
def test_qemu_opens_it_in_the_format_on_record(pool: Pool, format: str) -> None:
    volume = odd(pool, format)
    node = volume.blockdev(target="vdb")
    driver = {"ploop": "parallels"}.get(format, format)
    assert image_info(node)["format"] == driver
    if format in ("raw", "qcow2", "vpc"):
        top = node_of(asked(node), "vdb")
        assert top["drv"] == driver and not top["ro"]
        assert top["image"]["virtual-size"] == volume.info.capacity


@needs_qemu
def test_qemu_opens_the_chain_that_is_written_down(engine: Engine, pool: Pool, other: Pool) -> None:
    base = make(other, "base", "qcow2")
    top = base.clone(ODD, pool=pool, linked=True)
    node = top.blockdev(chain=True)
    # What the header says is not read: it is another image now.
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", top.path], check=True
    )
    files = {n["file"] for n in asked(node) if n["drv"] == "file"}
    assert files == {top.path, base.path}
    assert node["backing"]["backing"] is None


@needs_qemu
def test_qemu_reads_a_disc_only(pool: Pool, place: Path) -> None:
    data = bytearray(MIB)
    data[32768:32774] = b"\x01CD001"
    (place / "disc").write_bytes(data)
    pool.refresh()
    nodes = asked(pool.volume("disc").blockdev())
    assert node_of(nodes, "sda")["ro"] and node_of(nodes, "sda")["drv"] == "raw"


@needs_qemu
@pytest.mark.parametrize("cache", disks.CACHES)
def test_qemu_takes_every_cache_mode(pool: Pool, cache: disks.Cache) -> None:
    node = make(pool, "disk", "qcow2").blockdev(cache=cache)
    found = node_of(asked(node), "vda")["cache"]
    assert found["direct"] == (cache in ("none", "directsync")) and found["no-flush"] == (cache == "unsafe")


# -- the seam -----------------------------------------------------------------------------------------------------------


class Plain(Backend):
    type = "dir"
    definition = DirPool


def backend() -> Plain:
    return Plain(DirPool(name="p", target=PoolTarget(path="/srv")), Host())


@needs_schema
@needs_virsh
def test_a_block_device_is_opened_past_the_page_cache(schema: lxml.etree.RelaxNG) -> None:
    where = backend().disk_source(VolumeInfo("v", "block", path="/dev/vg/v"))
    assert (where.cache, where.io) == ("none", "native")
    disk = disks.BlockDisk(
        driver=disks.Driver(type="raw", cache=where.cache, io=where.io), source=where.source,  # type: ignore[arg-type]
        target=disks.DiskTarget(dev="vda", bus="virtio"),
    )  # fmt: skip
    same(valid(schema, write(disk)), kept(write(disk)))
    assert where.source.node("vda") == {"driver": "host_device", "filename": "/dev/vg/v"}
    for kind in ("dir", "network"):
        with pytest.raises(errors.Unsupported, match=f"it is of type {kind}"):
            backend().disk_source(VolumeInfo("v", kind, path="/x"))


AUTH = {"rbd": "ceph", "iscsi": "iscsi"}


@needs_schema
@needs_virsh
@pytest.mark.parametrize(
    ("protocol", "name", "hosts"),
    [
        ("rbd", f"pool/{ODD}", (("mon1", None), ("::1", 3300))),
        ("rbd", "pool/space/image", ()),
        ("sheepdog", ODD, (("10.0.0.1", 7000),)),
        ("iscsi", "iqn.2026-11.org.example:disks/1", (("portal", 3260),)),
        ("gluster", f"vol/folder/{ODD}", (("one", None), ("two", 24007))),
    ],
)
def test_network_disks_are_libvirts(
    schema: lxml.etree.RelaxNG, protocol: Any, name: str, hosts: tuple[tuple[str, int | None], ...]
) -> None:
    auth = None
    if protocol in AUTH:
        kind: Any = AUTH[protocol]
        auth = disks.DiskAuth(username="me", secret=disks.DiskSecret(type=kind, uuid=SECRET_UUID))
    source = disks.NetworkSource(
        protocol=protocol, name=name, hosts=tuple(disks.DiskHost(name=h, port=p) for h, p in hosts), auth=auth,
        snapshot="snap" if protocol == "rbd" else None, initiator="iqn.me" if protocol == "iscsi" else None,
    )  # fmt: skip
    disk = disks.NetworkDisk(
        driver=disks.Driver(type="raw"), source=source, target=disks.DiskTarget(dev="vda", bus="virtio")
    )
    text = write(disk)
    same(valid(schema, text), kept(text))
    assert kept(text).find("source").get("name") == name


@needs_qemu
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            disks.NetworkSource(
                protocol="iscsi", name="iqn.x/1", hosts=(disks.DiskHost(name="127.0.0.1", port=1),), initiator="iqn.me"
            ),
            "Failed to connect",
        ),
        (
            disks.NetworkSource(protocol="gluster", name="vol/a/b", hosts=(disks.DiskHost(name="127.0.0.1", port=1),)),
            "volume vol, path a/b",
        ),
        (
            disks.NetworkSource(protocol="rbd", name="p/n/i", hosts=(disks.DiskHost(name="127.0.0.1", port=1),)),
            "rbd-no-such' is unexpected",
        ),
    ],
    ids=["iscsi", "gluster", "rbd"],
)
def test_qemu_understands_the_nodes_of_network_disks(source: disks.NetworkSource, said: str) -> None:
    """Nobody listens there: what is wrong with a node is said before QEMU connects, and the rest is the connection's error."""
    node = disks.image_node(source, "raw", None, "vda")
    if source.protocol == "rbd":
        node["file"]["rbd-no-such"] = "x"  # it would try to connect for minutes
    words = [QEMU, "-machine", "none", "-S", "-nodefaults", "-display", "none"]
    words += ["-blockdev", json.dumps({"node-name": "vda", **node})]
    told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if "Unknown driver" in told.stderr or "does not accept value" in told.stderr:
        pytest.skip(f"this QEMU has no driver for {source.protocol}")
    assert said in told.stderr


def test_a_shared_directory_keeps_no_page_cache(tmp_path: Path) -> None:
    from poolkit.backends.netfs import NetfsBackend, NetfsPool, NetfsSource
    from poolkit.model import SourceHost

    definition: Definition = NetfsPool(
        name="n", source=NetfsSource(hosts=(SourceHost(name="h"),), dir="/x"), target=PoolTarget(path="/mnt")
    )
    where = NetfsBackend(definition, Host()).disk_source(VolumeInfo("v", format="raw"))
    assert where.cache == "none" and where.source == disks.FileSource(file="/mnt/v")


def test_it_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    pool = new_pool(engine, tmp_path / "quiet", "quiet")
    volume = make(pool, "disk")
    before = [(p, p.stat().st_mtime_ns) for p in sorted((tmp_path / "quiet").iterdir())]
    volume.disk_xml()
    assert before == [(p, p.stat().st_mtime_ns) for p in sorted((tmp_path / "quiet").iterdir())]
    assert not volume.outcome
