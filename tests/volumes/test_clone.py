"""Copies of volumes: the same bytes, the same holes, whole or not there; and the sources that are refused."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.content import copying
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host
from poolkit.host.mounts import Mount, MountTable, number
from poolkit.xmlmap import replace
from tests.formats import samples

from .conftest import MIB, SECRET, RecordingHost, content, entries, make, put, refuse_ioctl, xml

tools = pytest.mark.tools("qemu-img", "prlimit")
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "ploop")
DATA = bytes(range(256)) * 1024


def filled(pool: Pool, name: str, format: str, size: int = 4 * MIB) -> Volume:
    """A volume of any format with data in its middle, written by qemu-img."""
    if format == "raw":
        volume = make(pool, name, size=size)
        volume.upload(BytesIO(DATA), offset=MIB)
        return volume
    raw = filled(pool, f"{name}.raw", "raw", size)
    return raw.clone(xml(name, size, format))


def as_raw(volume: Volume) -> bytes:
    """What a machine would see, as qemu-img reads it."""
    driver = {"ploop": "parallels"}.get(volume.info.format, volume.info.format)
    done = subprocess.run(
        ["qemu-img", "dd", "-f", driver, "-O", "raw", "bs=4M", f"if={volume.path}", f"of={volume.path}.dd"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = Path(f"{volume.path}.dd")
    data = out.read_bytes()
    out.unlink()
    return data


def test_a_copy_has_the_bytes_and_the_holes(pool: Pool, other: Pool, host: RecordingHost) -> None:
    source = filled(pool, "disk", "raw", 64 * MIB)
    used = pool.volume("disk").look().info.allocation
    for target in (pool, other):
        clone = source.clone("clone", pool=target)
        assert content(clone) == content(source)
        assert clone.info.capacity == 64 * MIB
        assert clone.look().info.allocation <= used + 65536, "holes were filled"
        assert target.volume("clone").info.inode == clone.info.inode
    assert host.calls == []


def test_a_copy_is_independent(pool: Pool) -> None:
    source = filled(pool, "disk", "raw")
    clone = source.clone("clone")
    source.wipe()
    assert content(clone)[MIB : MIB + len(DATA)] == DATA


@tools
@pytest.mark.parametrize("format", FORMATS)
def test_a_copy_in_the_same_format_is_the_same_file(pool: Pool, other: Pool, format: str, host: RecordingHost) -> None:
    source = filled(pool, "disk", format)
    before = len(host.calls)
    clone = source.clone("clone", pool=other)
    assert content(clone) == content(source)
    assert (clone.info.format, clone.info.capacity) == (source.info.format, source.info.capacity)
    assert len(host.calls) == before, "a copy needs no program"


@tools
@pytest.mark.parametrize("format", FORMATS)
def test_a_conversion_keeps_what_a_machine_sees(pool: Pool, other: Pool, format: str) -> None:
    source = filled(pool, "disk", format)
    wanted = bytes(MIB) + DATA + bytes(4 * MIB - MIB - len(DATA))
    assert as_raw(source) == wanted
    there = source.clone(xml("qcow2", None, "qcow2"), pool=other)
    back = there.clone(xml("back", None, "raw", more="<allocation>0</allocation>"))
    assert content(back) == wanted
    assert there.info.format == "qcow2" and back.info.format == "raw"
    assert back.look().info.allocation < MIB


@tools
@pytest.mark.parametrize(("format", "target"), [("raw", None), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", None)])
def test_a_larger_capacity_is_honoured_and_a_smaller_one_is_the_sources(
    pool: Pool, format: str, target: str | None
) -> None:
    source = filled(pool, "disk", format)
    clone = source.clone(xml("larger", 8 * MIB, target or format))
    assert clone.info.capacity == 8 * MIB
    assert as_raw(clone)[: 4 * MIB] == as_raw(source)
    assert source.clone(xml("smaller", MIB, target or format)).info.capacity == 4 * MIB


@tools
def test_a_larger_copy_of_a_format_that_cannot_grow_is_refused_before_copying(pool: Pool, place: Path) -> None:
    source = filled(pool, "disk", "vdi")
    before = entries(place)
    with pytest.raises(errors.Unsupported, match="cannot be resized"):
        source.clone(xml("larger", 8 * MIB, "vdi"))
    assert entries(place) == before


@tools
def test_other_options_than_the_sources_are_a_conversion(pool: Pool) -> None:
    source = filled(pool, "disk", "qcow2")
    clone = source.clone(xml("other", None, "qcow2", target="<clusterSize>4096</clusterSize>"))
    assert (clone.info.detail or {})["cluster_size"] == 4096
    assert as_raw(clone) == as_raw(source)


@tools
def test_a_linked_clone_has_no_data_of_its_own(pool: Pool, other: Pool) -> None:
    source = filled(pool, "disk", "qcow2")
    for target in (pool, other):
        clone = source.clone("linked", pool=target, linked=True)
        assert clone.info.allocation < MIB and clone.info.capacity == 4 * MIB
        assert (clone.info.detail or {})["backing"] == source.path
        assert as_raw(clone) == as_raw(source)
    with pytest.raises(errors.InvalidArgument, match="has the format qcow2, not vdi"):
        source.clone(xml("vdi", None, "vdi"), linked=True)


@tools
def test_flattening_reads_backing_images_that_are_volumes(pool: Pool, other: Pool) -> None:
    base = filled(pool, "base", "raw")
    middle = base.clone("middle", pool=other, linked=True)
    top = middle.clone("top", linked=True)
    flat = top.clone(xml("flat", None, "raw"))
    assert content(flat) == content(base)
    assert [link.volume for link in top.chain()] == ["top", "middle", "base"]
    assert len(flat.chain()) == 1


@tools
def test_flattening_reads_nothing_that_is_no_volume(pool: Pool, place: Path, tmp_path: Path) -> None:
    marker = tmp_path / "host-file"
    marker.write_bytes(b"not yours\n" * 1000)
    source = put(
        pool, "evil", samples.qcow2(size=MIB, backing=str(marker).encode(), extensions=((0xE2792ACA, b"raw"),))
    )
    before = entries(place)
    with pytest.raises(errors.Unsafe, match="no volume of an active pool") as caught:
        source.clone(xml("flat", None, "raw"))
    assert "make a pool" in (caught.value.hint or "")
    assert entries(place) == before
    # A byte copy carries the name along and reads nothing.
    clone = source.clone("clone")
    assert content(clone) == content(source)


@tools
def test_the_chain_is_pinned_in_the_call(pool: Pool, host: RecordingHost) -> None:
    base = filled(pool, "base, with=comma", "raw")
    top = base.clone("top", linked=True)
    top.clone(xml("flat", None, "raw"))
    call = next(c for c in reversed(host.calls) if c[:2] == ("qemu-img", "convert"))
    import json

    node = json.loads(next(w for w in call if w.startswith("json:"))[5:])
    assert node["driver"] == "qcow2" and node["backing"]["driver"] == "raw"
    assert "comma" not in str(call)


def test_a_relative_backing_name_does_not_change_its_meaning(pool: Pool, other: Pool, place: Path) -> None:
    put(pool, "base", bytes(MIB))
    source = put(pool, "top", samples.qcow2(size=MIB, backing=b"base", extensions=((0xE2792ACA, b"raw"),)))
    assert content(source.clone("near")) == content(source)
    with pytest.raises(errors.Unsafe, match="relative to its own folder, 'base'"):
        source.clone("far", pool=other)
    assert other.volumes() == []


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "external data": (
        "qcow2",
        samples.qcow2(incompatible=4, extensions=((0x44415441, b"/etc/passwd"),)),
        "another file",
    ),
    "unknown feature": ("qcow2", samples.qcow2(incompatible=1 << 7), "not used as qcow2"),
    "version 4": ("qcow2", samples.qcow2(version=4), "not used as qcow2"),
    "truncated": ("qcow2", samples.qcow2()[:60], "not used as qcow2"),
    "passwd": ("vmdk", samples.descriptor('RW 63 FLAT "/etc/passwd" 0'), "description of other files"),
    "dotdot": ("vmdk", samples.descriptor('RW 63 FLAT "../../etc/passwd" 0'), "description of other files"),
    "nbd": ("vmdk", samples.descriptor('RW 63 FLAT "nbd:localhost:1" 0'), "description of other files"),
    "json": ("vmdk", samples.descriptor('RW 63 FLAT "json:{}" 0'), "description of other files"),
    "device": ("vmdk", samples.descriptor('RW 63 FLAT "/dev/sda" 0'), "description of other files"),
    "physical drive": ("vmdk", samples.descriptor(r'RW 63 FLAT "\\.\PhysicalDrive0" 0'), "description of other files"),
    "differencing": ("vpc", samples.vhd(kind=4), "not used as vpc|known by|not a file"),
    "vdi bomb": ("vdi", samples.vdi(version=0x20000), "not used as vdi"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["copy", "convert", "link"])
def test_images_that_are_not_what_they_seem_are_refused(pool: Pool, place: Path, name: str, how: str) -> None:
    format, data, said = REFUSED[name]
    source = put(pool, "source", data.ljust(65536, b"\0"))
    assert source.info.format == format
    before = entries(place)
    with pytest.raises(errors.Unsafe, match=said):
        if how == "convert":
            source.clone(xml("clone", MIB, "raw"))
        else:
            source.clone("clone", linked=how == "link")
    assert entries(place) == before


def test_a_directory_and_itself_cannot_be_cloned(pool: Pool, place: Path) -> None:
    (place / "folder").mkdir()
    pool.refresh()
    with pytest.raises(errors.Unsupported, match="is a directory"):
        pool.volume("folder").clone("clone")
    make(pool, "disk")
    with pytest.raises(errors.VolumeExists, match="from itself"):
        pool.volume("disk").clone("disk")
    with pytest.raises(errors.VolumeExists):
        pool.volume("disk").clone("folder")
    with pytest.raises(errors.InvalidArgument, match="no backing store of its own"):
        pool.volume("disk").clone(
            xml("x", backing="<backingStore><path>/x</path><format type='raw'/></backingStore>", format="qcow2")
        )


# -- what happens meanwhile ---------------------------------------------------------------------------------------------


def during(engine: Engine, label: str, action: Callable[[], Any]) -> Host:
    """Do ``action`` once when the engine reaches that point."""
    done: list[bool] = []

    def fault(reached: str) -> None:
        if reached == label and not done:
            done.append(True)
            action()

    engine.host.fault = fault
    return engine.host


@pytest.mark.parametrize("hidden", [False, True])
def test_a_source_that_changes_meanwhile_is_noticed(engine: Engine, pool: Pool, place: Path, hidden: bool) -> None:
    source = filled(pool, "disk", "raw")
    before = entries(place)
    facts = (place / "disk").stat()

    def write() -> None:
        with (place / "disk").open("r+b") as file:
            file.write(b"changed")
        if hidden:  # as rsync and tar do, and whoever has it mapped may have done
            os.utime(place / "disk", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    during(engine, "reflink", write)
    with pytest.raises(errors.HostError, match="was changed while it was copied"):
        source.clone("clone")
    assert entries(place) == before
    assert pool.volumes()[0].name == "disk" and len(pool.volumes()) == 1


def test_times_that_settle_late_on_smb_are_no_change(
    engine: Engine, pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = filled(pool, "disk", "raw")
    smb = MountTable([Mount(number(place.stat().st_dev), "/", "/elsewhere", "cifs", "//nas/x", "rw")])
    monkeypatch.setattr("poolkit.host.Host.mounts", lambda self: smb)
    monkeypatch.setattr("poolkit.content.copying.SMB_LAG", 0.0)
    during(engine, "reflink", lambda: os.utime(place / "disk"))  # the server's own idea of the last write
    assert source.clone("clone").info.capacity == source.info.capacity
    assert sorted(entries(place)) == ["clone", "disk"]


def test_a_source_cut_short_meanwhile_is_noticed(engine: Engine, pool: Pool, place: Path) -> None:
    source = filled(pool, "disk", "raw")
    during(engine, "reflink", lambda: os.truncate(place / "disk", 4096))
    with pytest.raises(errors.HostError, match="was changed"):
        source.clone("clone")
    assert [p.name for p in place.iterdir()] == ["disk"]


@pytest.mark.parametrize("plant", ["link", "file", "directory"])
def test_a_name_taken_meanwhile_is_left_alone(
    engine: Engine, pool: Pool, place: Path, tmp_path: Path, plant: str
) -> None:
    source = filled(pool, "disk", "raw")
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def take() -> None:
        if plant == "link":
            (place / "clone").symlink_to(victim)
        elif plant == "directory":
            (place / "clone").mkdir()
        else:
            (place / "clone").write_text("precious")

    during(engine, "copying", take)
    with pytest.raises(errors.VolumeExists):
        source.clone("clone")
    assert victim.read_text() == "precious"
    assert sorted(p.name for p in place.iterdir()) == ["clone", "disk"]


def test_an_abort_leaves_nothing(engine: Engine, pool: Pool, place: Path) -> None:
    import threading

    source = filled(pool, "disk", "raw")
    abort = threading.Event()
    with pytest.raises(errors.Aborted):
        source.clone("clone", reflink=False, abort=abort, progress=lambda done, total, what: abort.set())
    assert [p.name for p in place.iterdir()] == ["disk"]


@tools
def test_an_abort_ends_a_running_tool(engine: Engine, pool: Pool, place: Path) -> None:
    import threading

    source = filled(pool, "disk", "raw")
    abort = threading.Event()
    during(engine, "qemu-img", abort.set)
    with pytest.raises(errors.Aborted):
        source.clone(xml("clone", None, "qcow2"), abort=abort)
    assert [p.name for p in place.iterdir()] == ["disk"]


def test_progress_comes_to_its_end(pool: Pool) -> None:
    told: list[tuple[int, int, str]] = []
    filled(pool, "disk", "raw").clone("clone", progress=lambda *facts: told.append(facts))
    assert told[-1][0] == told[-1][1] == 4 * MIB
    assert [t[0] for t in told] == sorted(t[0] for t in told)


def test_a_copy_that_cannot_fit_is_refused_before_it_begins(
    pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = filled(pool, "disk", "raw")
    monkeypatch.setattr(copying, "free_space", lambda fd: 4096)
    with pytest.raises(errors.NoSpace, match="are needed and 4096 are free"):
        source.clone("clone", reflink=False)
    assert [p.name for p in place.iterdir()] == ["disk"]


def test_all_space_can_be_asked_for(pool: Pool) -> None:
    source = filled(pool, "disk", "raw")
    whole = source.clone(xml("whole", None, "raw", more=f"<allocation>{4 * MIB}</allocation>"))
    assert whole.look().info.allocation >= 4 * MIB
    assert content(whole) == content(source)
    assert source.clone("falloc", preallocation="falloc").look().info.allocation >= 4 * MIB
    room = os.statvfs(os.path.dirname(source.path))
    size = (room.f_bavail + room.f_blocks) * room.f_frsize
    with pytest.raises(errors.NoSpace):
        source.clone(xml("huge", size, "raw", more=f"<allocation>{size}</allocation>"))
    with pytest.raises(errors.PoolkitError):
        pool.volume("huge")


def test_a_dry_run_copies_nothing(pool: Pool, place: Path, tmp_path: Path) -> None:
    source = filled(pool, "disk", "raw")
    with Engine(tmp_path / "root", dry_run=True) as dry:
        made = dry.pool("images").volume(source.name).clone("clone")
        assert made.outcome is not None
        assert made.outcome.plan == (f"copy {place}/disk to {place}/clone raw",)
    assert [p.name for p in place.iterdir()] == ["disk"]


@tools
def test_encrypted_volumes_are_copied_converted_and_opened(engine: Engine, pool: Pool, host: RecordingHost) -> None:
    secret = engine.define_secret("<secret><usage type='volume'><volume>elsewhere</volume></usage></secret>")
    secret.set_value(SECRET)
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/></encryption>"
    plain = filled(pool, "disk", "raw")
    closed = plain.clone(xml("closed", None, "qcow2", target=encryption))
    assert (closed.info.detail or {})["encryption"] == "luks"
    assert DATA[:65536] not in content(closed)
    assert content(closed.clone("copy")) == content(closed)
    with pytest.raises(errors.SecretNotFound, match="no secret has its path"):
        closed.clone(xml("open", None, "raw"))
    assert content(closed.clone(xml("open", None, "raw"), secret="elsewhere")) == content(plain)
    own = engine.define_secret(f"<secret><usage type='volume'><volume>{closed.path}</volume></usage></secret>")
    own.set_value(SECRET)
    assert content(closed.clone(xml("open2", None, "raw"))) == content(plain)
    closed.resize(8 * MIB)
    assert closed.info.capacity == 8 * MIB
    assert all(SECRET.decode() not in " ".join(call) for call in host.calls)


@tools
def test_a_document_without_a_format_asks_for_raw(pool: Pool) -> None:
    image = filled(pool, "disk", "qcow2")
    made = pool.create_volume_from("<volume><name>made</name><capacity>0</capacity></volume>", image)
    assert made.info.format == "raw" and content(made) == content(image.clone(xml("flat", None, "raw")))
    assert image.clone("same").info.format == "qcow2", "a name alone asks for the same again"
    assert image.clone(xml("over", None), linked=True).info.format == "qcow2"


@tools
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_what_is_not_to_be_encrypted_is_not(engine: Engine, pool: Pool, format: str) -> None:
    secret = engine.define_secret("<secret><usage type='volume'><volume>elsewhere</volume></usage></secret>")
    secret.set_value(SECRET)
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/></encryption>"
    plain = filled(pool, "disk", "raw")
    closed = plain.clone(xml("closed", None, format, target=encryption))
    for wanted in (None, "qcow2") if format == "qcow2" else ("raw",):
        with pytest.raises(errors.SecretNotFound, match="no secret has its path") as caught:
            closed.clone(xml("open", None, wanted))
        assert "secret=..." in str(caught.value.hint)
        assert "open" not in [volume.name for volume in pool.volumes()]
        made = closed.clone(xml(f"open-{wanted}", None, wanted), secret="elsewhere")
        assert made.info.format == (wanted or "raw") and "encryption" not in (made.info.detail or {})
        assert content(made.clone(xml(f"flat-{wanted}", None, "raw"))) == content(plain)
    # Grown copies of the same kind, and copies with a secret of their own, are opened by the secret that was named.
    same = closed.definition()
    if format == "qcow2":
        grown = closed.clone(replace(same, name="grown", capacity=8 * MIB, key=None), secret="elsewhere")
        assert grown.info.capacity == 8 * MIB and (grown.info.detail or {})["encryption"] == "luks"
    else:
        again = closed.clone(xml("again", None, format, target=encryption), secret="elsewhere")
        assert (again.info.detail or {})["encryption"] == "luks"


def test_a_secret_for_what_is_not_encrypted_is_refused(engine: Engine, pool: Pool) -> None:
    engine.define_secret("<secret><usage type='volume'><volume>x</volume></usage></secret>").set_value(SECRET)
    with pytest.raises(errors.InvalidArgument, match="'disk' is not encrypted, and a secret was given to open it"):
        filled(pool, "disk", "raw").clone("copy", secret="x")


@tools
@pytest.mark.parametrize(
    ("fails", "words"), [(12, "accurate CPU usage"), (99, "accurate CPU usage"), (1, "other words")]
)
def test_a_failed_measurement_of_the_processor_is_repeated(
    engine: Engine, pool: Pool, monkeypatch: pytest.MonkeyPatch, fails: int, words: str
) -> None:
    engine.define_secret("<secret><usage type='volume'><volume>x</volume></usage></secret>").set_value(SECRET)
    tried, real = [0], Host.change

    def change(self: Host, argv: Any, **how: Any) -> Any:
        if argv[0] == "qemu-img":
            tried[0] += 1
            if tried[0] <= fails:
                raise errors.ToolFailed("failed", argv=argv, status=1, stderr=f"qemu-img: Unable to get {words}")
        return real(self, argv, **how)

    monkeypatch.setattr(Host, "change", change)
    encryption = "<encryption format='luks'><secret type='passphrase' usage='x'/></encryption>"
    if fails == 12:
        assert (pool.create_volume(xml("disk", MIB, target=encryption)).info.detail or {})["encryption"] == "luks"
        assert tried[0] >= 13, "that of a busy machine may really fail"
        return
    with pytest.raises(errors.ToolFailed):
        pool.create_volume(xml("disk", MIB, target=encryption))
    assert tried[0] == (30 if fails == 99 else 1)
    assert not pool.volumes()


# -- the loop itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [(), ("ioctl",), ("ioctl", "copy_file_range")])
@pytest.mark.parametrize("size", [0, 1, 4095, 3 * MIB + 17])
def test_every_way_of_copying_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], size: int
) -> None:
    import fcntl

    def refuse(*args: Any) -> int:
        raise OSError(errno.EXDEV, "across file systems")

    if "ioctl" in broken:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    if "copy_file_range" in broken:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    data = bytearray(size)
    data[size // 2 : size // 2 + 1000] = b"x" * min(1000, size - size // 2)
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as a, (tmp_path / "b").open("w+b") as b:
        b.truncate(size)
        copying.duplicate(Host(), a.fileno(), b.fileno(), size)
    assert (tmp_path / "b").read_bytes() == data


def test_a_target_that_is_not_blank_gets_its_holes_cleared(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as a, (tmp_path / "b").open("w+b") as b:
        a.truncate(4 * MIB)
        os.pwrite(a.fileno(), b"data", MIB)
        b.write(b"\xff" * 4 * MIB)
        b.flush()
        copying.duplicate(Host(), a.fileno(), b.fileno(), 4 * MIB, reflink=False, blank=False)
        assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_demanded_sharing_says_where_it_is_not_to_be_had(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_ioctl(monkeypatch, 0x40049409, errno.EOPNOTSUPP)  # linux/fs.h, FICLONE
    with pytest.raises(errors.Unsupported, match="cannot share blocks"):
        filled(pool, "disk", "raw").clone("clone", reflink=True)
    assert len(pool.volumes()) == 1


def test_an_abort_ends_the_wait_for_the_source(pool: Pool, other: Pool) -> None:
    volume = make(pool, "disk")
    abort = threading.Event()
    abort.set()
    with (
        pool._core.locks.work("images", "vol-wipe", volume="disk"),
        pytest.raises(errors.Aborted),
    ):
        volume.clone("copy", pool=other, wait=300, abort=abort)
    assert other.volumes() == []
