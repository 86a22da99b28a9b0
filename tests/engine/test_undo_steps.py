"""Each kind of undo step: how it is told, how long it counts, and that it takes back what was done and nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from poolkit.host import Host, rollback, undo
from poolkit.host import journal as journals
from poolkit.host.mounts import Mount, number
from poolkit.testing import ScriptedHost

FACTS = os.stat("/")

# The step, how it is told, and whether a restart of the machine ends it.
STEPS = [
    (undo.run(["rm", "--", "a b"]), "run rm -- a b", False),
    (undo.unmount("/mnt", "/dev/x"), "unmount /mnt /dev/x", True),
    (undo.unlink("/a"), "unlink /a", False),
    (undo.unlink_whole("/a", FACTS), "unlink /a", True),
    (undo.rmdir("/a"), "rmdir /a", False),
    (undo.symlink("to", "/a"), "symlink to /a", False),
    (undo.restore("/k", "/a"), "restore /k /a", False),
    (undo.trim("/a", FACTS), f"trim /a to {FACTS.st_size} bytes", False),
    (undo.overwrite("/k", "/a", FACTS, random=True), "remove /k", False),
    (undo.call("put it back", "m:f", 1), "put it back (by m:f)", False),
    (undo.tell("it is torn"), "it is torn", True),
    (undo.gone("/a", 1, "a"), "list 'a' no more", True),
    (undo.Undo("damaged", (3,)), "line 3 of the journal", False),
    (undo.Undo("of a later version", ("x",)), "of a later version x", False),
]


@pytest.mark.parametrize(("step", "told", "ends"), STEPS, ids=lambda value: getattr(value, "kind", None))
def test_how_a_step_is_told_and_how_long_it_counts(step: undo.Undo, told: str, ends: bool) -> None:
    assert str(step) == told
    assert step.ends_with_boot is ends
    assert step.counts, "this is the boot that it was written in"
    if step.field("boot") is not None:
        later = undo.Undo(step.kind, tuple("another boot" if v == undo.boot() else v for v in step.args))
        assert not later.counts


def test_every_kind_is_told_by_itself() -> None:
    """What is in a journal that lacks values, as of an older version, is told as well."""
    assert {str(undo.Undo(kind, ())) for kind in undo.KINDS} - {""}
    assert all(str(undo.Undo(kind, ())) for kind in undo.KINDS)


@pytest.mark.parametrize("mode", [0o1777, 0o2775, 0o4755])
def test_all_bits_of_a_mode_are_given_back(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    journal = journals.Journal(str(tmp_path / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})
    Host().operation(journal=journal).files.chmod(str(place), 0o700)
    rollback.roll_back(journal, Host())
    assert stat.S_IMODE(place.stat().st_mode) == mode


# -- what is unmounted ----------------------------------------------------------------------------------------------------


def _mount(source: str, fstype: str, device: str = "0:40", target: str = "/mnt/p") -> Mount:
    return Mount(device, "/", target, fstype, source, "rw")


@pytest.mark.parametrize(
    ("source", "mounted", "ours"),
    [
        ("nas:/x", _mount("nas:/x", "nfs4"), True),
        ("nas:/x", _mount("nas:/x/", "nfs"), True),  # as the kernel writes it
        ("nas:/x", _mount("nas:/y", "nfs4"), False),
        ("//nas/x", _mount("//nas/x", "cifs"), True),
        ("//nas/x", _mount("//nas/y", "cifs"), False),
        ("/dev/vg/a", _mount("/dev/vg/a", "ext4"), True),
        ("/dev/nothing/a", _mount("/dev/vg/b", "ext4"), False),
        ("/dev/nothing/a", _mount("/dev/vg/b", "ext4", "0:0"), False),  # no device has this number
        ("tmpfs", _mount("tmpfs", "tmpfs"), True),
        ("tmpfs", _mount("other", "tmpfs"), False),
        ("a:/b", _mount("x:/b", "fuse.sshfs"), False),
        ("/dev/vg/a", None, False),
    ],
)
def test_only_what_was_mounted_is_unmounted(source: str, mounted: Mount | None, ours: bool) -> None:
    host = ScriptedHost(mounts=[] if mounted is None else [mounted])
    rollback.perform(undo.unmount("/mnt/p", source), host, set())
    lazy = (
        "--internal-only --force --lazy " if mounted is not None and mounted.fstype in ("nfs", "nfs4", "cifs") else ""
    )
    assert host.lines == ([f"< umount {lazy}-- /mnt/p"] if ours else [])


@pytest.mark.root
def test_a_device_is_known_by_its_number_whatever_it_is_called(tmp_path: Path) -> None:
    node = tmp_path / "another-name"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(250, 77))
    for device, fstype, ours in (("250:77", "ext4", True), ("250:78", "ext4", False), ("250:77", "nfs4", False)):
        host = ScriptedHost(mounts=[_mount("/dev/vg/a", fstype, device)])
        rollback.perform(undo.unmount("/mnt/p", str(node)), host, set())
        assert bool(host.lines) is ours
    assert number(os.stat(node).st_rdev) == "250:77"


# -- what may still be at work --------------------------------------------------------------------------------------------


def test_a_program_is_at_work_if_it_is_as_old_as_the_journal_says() -> None:
    with subprocess.Popen(["sleep", "1000"]) as program:
        try:
            began = int(Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[19])
            for until, alive in ((began, True), (began + 1, True), (began - 1, False), (0, False)):
                assert journals.alive({"running": program.pid, "until": until}) is alive
            assert not journals.alive({"running": program.pid}), "an older version did not say since when"
        finally:
            program.kill()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert not journals.alive({"running": program.pid, "until": began}), "it has ended, and nobody asked how"
    assert not journals.alive({"running": program.pid, "until": began})
    assert not journals.alive({}) and not journals.alive({"running": None, "until": 1 << 40})
