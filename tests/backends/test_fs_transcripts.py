"""What pools of type fs run, for every verb, when it works and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, registry, xmlmap
from poolkit.backends.dir import DirBackend
from poolkit.backends.fs import FsBackend
from poolkit.families import blockdevice, mkfs
from poolkit.host import Host, undo
from poolkit.host.mounts import Mount
from poolkit.testing import Answer, transcript, undone

from .played import Machine
from .scripted import MountingHost

UUID = "0a3f8c5e-8d0d-4f0a-9d6e-0a54b7f6c001"
MARK = "561ba673-760b-5fd8-a38c-dbbdb771621b"
DEVICE = "/dev/scripted"
TARGET = "/nonexistent/pool"
MKDIR = [f"! mkdir {Path(TARGET).parent}", f"! mkdir {TARGET}"]
UNMADE = [f"< rmdir {TARGET}", f"< rmdir {Path(TARGET).parent}"]


def xml(kind: str = "ext4", options: str = "", device: str = DEVICE) -> str:
    given = "".join(f"<fs:option name='{option}'/>" for option in options.split())
    return (
        "<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>"
        f"<name>disk</name><uuid>{UUID}</uuid><source><device path='{device}'/><format type='{kind}'/></source>"
        f"<target><path>{TARGET}</path></target>"
        f"<fs:mount_opts>{given}</fs:mount_opts></pool>"
    )


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The device is there and holds what is given."""
    machine = Machine(tmp_path / "machine")
    machine.disk("scripted", "8:17", 4 << 20)
    monkeypatch.chdir(machine.folder)
    return partial(machine.holds, "scripted")


def run(verb: Callable[[Any], Any], document: str | None = None, **how: Any) -> list[str]:
    return transcript(document or xml(), verb, MountingHost(machine=".", **how))


def start(backend: Any) -> Any:
    return backend.start()


def build(backend: Any) -> Any:
    return backend.build()


OURS = Mount("8:17", "/", TARGET, "ext4", DEVICE, "rw")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ext2", "-t ext2 -o nosuid,nodev,noexec"),
        ("xfs", "-t xfs -o nosuid,nodev,noexec"),
        ("hfs+", "-t hfsplus -o nosuid,nodev,noexec"),
        ("vfat", "-t vfat -o fmask=0177,dmask=0077,nosuid,nodev,noexec"),
        ("iso9660", "-t iso9660 -o ro,nosuid,nodev,noexec"),
        ("gfs2", "-t gfs2 -o nosuid,nodev,noexec"),
        ("vmfs", "-t vmfs -o nosuid,nodev,noexec"),
    ],
)
def test_start(device: Any, kind: str, words: str) -> None:
    assert run(start, xml(kind)) == [*MKDIR, f"! mount {words} -- {DEVICE} {TARGET}"]


def test_start_leaves_a_directory_that_is_there_as_it_is(device: Any, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir(mode=0o755)
    asked = "<permissions><mode>0700</mode><owner>1</owner><group>1</group></permissions>"
    document = xml().replace(f"<path>{TARGET}</path>", f"<path>{place}</path>{asked}")
    (line,) = run(start, document)
    assert line.startswith("! mount "), "neither mode nor owner is somebody's mount point's"
    assert run(build, document)[-2:] == [f"! chmod 0700 {place}", f"! chown 1:1 {place}"], "but build is asked for them"


def test_start_puts_the_safe_options_last(device: Any) -> None:
    assert run(start, xml(options="noatime commit=5"))[-1] == (
        f"! mount -t ext4 -o noatime,commit=5,nosuid,nodev,noexec -- {DEVICE} {TARGET}"
    )


def test_start_of_what_is_up_changes_nothing(device: Any) -> None:
    assert run(start, mounts=[OURS]) == []


def test_a_mount_of_somebody_else_is_taken_with_a_warning(device: Any) -> None:
    for options, lacks in [("rw,nosuid,rw", "nodev,noexec"), ("rw,nosuid,nodev,noexec", "")]:
        host = MountingHost(mounts=[OURS._replace(options=options)])
        backend: Any = FsBackend(xmlmap.read(xml(), registry.definitions()), host)
        assert backend.state() == (True, not lacks, False, ""), "what start has to say is said"
        backend.start()
        assert [warning.partition(":")[2].partition(":")[0] for warning in host.warnings] == (
            [f" '{TARGET}' was mounted already, without {lacks}"] if lacks else []
        )


def test_start_on_a_taken_target(device: Any) -> None:
    other = Mount("0:30", "/", TARGET, "tmpfs", "tmpfs", "rw")
    assert run(start, mounts=[other]) == [
        f"error: pool 'disk': 'tmpfs' (tmpfs) is mounted at '{TARGET}' already, not '{DEVICE}'"
    ]


def test_start_takes_back_what_failed(device: Any) -> None:
    said = "mount: wrong fs type, bad option\n       dmesg(1) may have more information after failed mount system call."
    answers: dict[str, Any] = {"mount": Answer("", 32, said)}
    assert run(start, answers=answers) == [
        *MKDIR, f"! mount -t ext4 -o nosuid,nodev,noexec -- {DEVICE} {TARGET}", f"< unmount {TARGET} {DEVICE}", *UNMADE,
        f"error: pool 'disk': '{DEVICE}' could not be mounted at '{TARGET}': mount: wrong fs type, bad option",
    ]  # fmt: skip


@pytest.mark.parametrize("step", [1, 2])
def test_start_stops_at_a_directory_that_cannot_be_made(device: Any, step: int) -> None:
    lines = run(start, fail_at=step)
    assert lines[-1] == f"error: '{MKDIR[step - 1][2:]}' failed with status 5: injected"
    assert lines[:step] == MKDIR[:step]
    assert not any("mount" in line for line in lines)


def test_undo_unmounts_only_what_was_mounted(device: Any) -> None:
    host = MountingHost(machine=".")
    transcript(xml(), start, host)
    host.mount_table = [Mount("0:30", "/", TARGET, "tmpfs", "tmpfs", "rw")]
    assert undone(host) == []
    host.mount_table = [OURS]
    assert undone(host) == [f"< umount -- {TARGET}"]
    assert undone(host) == [], "harmless when the mount is gone"


@pytest.mark.parametrize("root", ["/", "/sub"])
def test_a_bind_mount_is_known_again_without_touching_it(tmp_path: Path, root: str) -> None:
    (tmp_path / "data").mkdir()
    below = Mount("8:1", root, str(tmp_path), "ext4", "/dev/sda1", "rw")
    bound = below._replace(root=f"{root.rstrip('/')}/data", target=TARGET)
    document = xml("auto", device=str(tmp_path / "data"))
    host = MountingHost(mounts=[below])
    host.journal.append(undo.unmount(TARGET, str(tmp_path / "data")))  # type: ignore[attr-defined]
    host.mount_table.append(bound._replace(root="/other"))
    assert undone(host) == []
    assert run(lambda backend: backend.stop(), document, mounts=[below, bound._replace(root="/other")]) == []
    host.mount_table[1] = bound
    assert run(lambda backend: backend.stop(), document, mounts=[below, bound]) == [f"! umount -- {TARGET}"]
    assert undone(host) == [f"< umount -- {TARGET}"]


def test_a_directory_of_a_dead_server_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nas = Mount("0:50", "/", "/net", "nfs4", "nas:/x", "rw")
    bound = nas._replace(root="/data", target=TARGET)
    monkeypatch.setattr("os.stat", lambda *_, **__: pytest.fail("it would hang"))
    backend: Any = FsBackend(xmlmap.read(xml("auto", device="/net/data"), registry.definitions()), MountingHost())
    backend.host.mount_table = [nas, bound]
    assert backend.state().up
    backend.host.mount_table = [nas, bound._replace(root="/else")]
    assert not backend.state().up


def test_a_dir_pool_on_a_dead_server_is_not_asked() -> None:
    document = "<pool type='dir'><name>on</name><target><path>/nonexistent/net/images</path></target></pool>"
    backend: Any = DirBackend(xmlmap.read(document, registry.definitions()), MountingHost())
    assert not backend.state().up
    backend.host.mount_table = [Mount("0:50", "/", "/nonexistent/net", "nfs4", "nas:/x", "rw")]
    assert backend.state().up, "what is there cannot be told without waiting"


def test_stop(device: Any) -> None:
    stop = lambda backend: backend.stop()  # noqa: E731
    assert run(stop, mounts=[OURS]) == [f"! umount -- {TARGET}"]
    assert run(stop) == []
    other = Mount("0:30", "/", TARGET, "tmpfs", "tmpfs", "rw")
    assert run(stop, mounts=[other]) == [], "what another one has mounted is left alone"
    assert run(stop, mounts=[OURS, other]) == [
        f"error: pool 'disk': 'tmpfs' (tmpfs) is mounted at '{TARGET}' on top of the pool's own mount"
    ]


def test_stop_of_a_busy_pool_names_the_mount_below(device: Any) -> None:
    answers: dict[str, Any] = {"umount": Answer("", 32, f"umount: {TARGET}: target is busy.")}
    below = Mount("0:31", "/", f"{TARGET}/inner", "tmpfs", "tmpfs", "rw")
    assert run(lambda backend: backend.stop(), answers=answers, mounts=[OURS, below]) == [
        f"! umount -- {TARGET}",
        f"error: pool 'disk': '{TARGET}' is in use by a mount at '{TARGET}/inner'",
    ]
    answers = {"umount": Answer("", 1, "umount: not permitted")}
    assert run(lambda backend: backend.stop(), answers=answers, mounts=[OURS])[-1] == (
        "error: 'umount' failed with status 1: umount: not permitted"
    )


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("ext2", f"mkfs.ext2 -q -U {MARK}"),
        ("ext3", f"mkfs.ext3 -q -U {MARK}"),
        ("ext4", f"mkfs.ext4 -q -U {MARK}"),
        ("xfs", f"mkfs.xfs -q -m uuid={MARK}"),
        ("btrfs", f"mkfs.btrfs -q -U {MARK}"),
        ("vfat", f"mkfs.vfat -i {MARK[:8]}"),
        ("udf", f"mkudffs --bootarea=erase --uuid={MARK.replace('-', '')[:16]}"),
    ],
)
def test_build(device: Any, kind: str, line: str) -> None:
    assert run(build, xml(kind)) == [f"! {line} -- {DEVICE}", *MKDIR]


@pytest.mark.parametrize("kind", ["ext4", "vfat", "udf"])
def test_two_disks_of_one_pool_share_no_identity(kind: str) -> None:
    first, second = (mkfs.mark(kind, UUID, device) for device in ("/dev/disk/by-id/a", "/dev/disk/by-id/b"))
    assert first != second
    assert first == mkfs.mark(kind, UUID, "/dev/disk/by-id/a")


def test_build_over_something_else(device: Any) -> None:
    device("gpt", "xfs")
    assert run(build) == [f"error: pool 'disk': '{DEVICE}' holds gpt and xfs; making a file system would destroy that"]
    assert run(lambda backend: backend.build(overwrite=True)) == [
        f"! wipefs --all --quiet -- {DEVICE}", f"! mkfs.ext4 -q -U {MARK} -F -- {DEVICE}", *MKDIR,
    ]  # fmt: skip


def test_build_again(device: Any) -> None:
    question = f"blkid --probe --output value --match-tag UUID -- {DEVICE}"
    device("ext4")
    assert run(build, answers={"blkid": f"{MARK}\n"}) == [f"? {question}", *MKDIR]
    assert run(build, answers={"blkid": "c0ffee00-0000-4000-8000-000000000000\n"}) == [
        f"? {question}",
        f"error: pool 'disk': '{DEVICE}' holds ext4; making a file system would destroy that",
    ]
    device("vfat")
    assert run(build, xml("vfat"), answers={"blkid": f"{MARK[:4]}-{MARK[4:8]}\n".upper()}) == [f"? {question}", *MKDIR]


@pytest.mark.parametrize(("failing", "undo"), [(1, []), (2, UNMADE[1:]), (3, UNMADE)])
def test_build_takes_back_what_failed(device: Any, failing: int, undo: list[str]) -> None:
    lines = run(build, fail_at=failing)
    wipe = (
        f"< run wipefs --all --quiet -- {DEVICE} "
        f"(if blkid --probe --output value --match-tag UUID -- {DEVICE} says '{MARK}')"
    )
    made = [line for line in lines if line.startswith("<")]
    assert made == [*undo, wipe]
    assert lines[-1].startswith("error: ")
    assert lines[-1].endswith("failed with status 5: injected")


def test_undo_wipes_only_what_build_made(device: Any) -> None:
    host = MountingHost({"blkid": ["", "c0ffee00-0000-4000-8000-000000000000\n", f"{MARK}\n"]})
    transcript(xml(), lambda backend: backend._make(()), host)
    question = f"<? blkid --probe --output value --match-tag UUID -- {DEVICE}"
    assert undone(host) == [question]
    assert undone(host) == [question]
    assert undone(host) == [question, f"< wipefs --all --quiet -- {DEVICE}"]


@pytest.mark.parametrize("kind", ["ufs", "iso9660", "gfs", "vmfs", "hfs+"])
def test_what_cannot_be_made(device: Any, kind: str) -> None:
    assert run(build, xml(kind)) == [
        f"error: pool 'disk': '{DEVICE}' holds nothing that is known, and {kind} cannot be made"
    ]


@pytest.mark.parametrize(("kind", "content"), [("iso9660", "iso9660"), ("gfs2", "gfs2"), ("hfs+", "hfsplus")])
def test_what_is_there_already_need_not_be_made(device: Any, kind: str, content: str) -> None:
    device(content)
    assert run(build, xml(kind)) == MKDIR


def test_one_file_system_or_none() -> None:
    assert mkfs.file_system(("ext4",)) == "ext4"
    assert mkfs.file_system(("gpt", "mbr", "iso9660")) == "iso9660", "what is made to boot from a stick"
    assert mkfs.file_system(("mbr", "udf")) == "udf"
    for found in [(), ("swap",), ("mbr", "ext4"), ("iso9660", "udf"), ("ext4", "xfs"), ("udf", "LVM2_member")]:
        assert mkfs.file_system(found) == ""


def test_state_and_its_reasons(device: Any) -> None:
    def state(backend: Any) -> Any:
        backend.host.lines.append(f"{backend.state().up} {backend.state().why}".strip())

    assert run(state) == [f"False nothing is mounted at '{TARGET}'"]
    assert run(state, mounts=[OURS]) == ["True"]
    assert run(state, mounts=[OURS._replace(source="/dev/other")]) == [
        f"False '/dev/other' (ext4) is mounted at '{TARGET}', not '{DEVICE}'"
    ]


def test_definitions_that_could_never_be_mounted(device: Any) -> None:
    claims = lambda backend: backend.host.lines.extend(backend.claims())  # noqa: E731
    assert run(claims) == [f"target {TARGET}", f"device {DEVICE}"]
    assert run(claims, xml(options="noatime,exec"))[0].startswith("error: pool 'disk': the mount option 'noatime,exec'")
    assert run(claims, xml(device="sdb1")) == ["error: pool 'disk': the device 'sdb1' is not an absolute path"]
    two = xml().replace("<format", "<device path='/dev/sdc'/><format")
    assert run(claims, two) == ["error: pool 'disk': a pool of type fs has one device, not 2"]


def test_a_device_that_is_not_there() -> None:
    assert run(start) == [f"error: the device '{DEVICE}' does not exist"]
    assert run(build) == [f"error: the device '{DEVICE}' does not exist"]
    with pytest.raises(errors.Unsafe, match="is not a block device"), blockdevice.opened(Host(), "/dev/null"):
        pass
