"""Guards of shared volume groups that two machines see as well, each by itself on a scripted host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backend import Outside, Source, VolumeInfo
from poolkit.backends.shared_lvm import SharedLvmBackend
from poolkit.families.lvmgroups import PhysicalVolume
from poolkit.families.lvmvolumes import LvmVolumes
from poolkit.model import Volume
from poolkit.testing import Answer
from tests.backends.sharedlvm import FAMILY, MIB, OURS, V, backend, changes, group, rows

SNAPSHOT = VolumeInfo("s", "block", capacity=8 * MIB, key="U-s", path="/dev/vg/s")
FREE = FAMILY.replace("poolkit.attach.n2", "")
ACTIVE = {"lv_active": "active", "lv_kernel_major": "253", "lv_kernel_minor": "0"}
CONTROL = group(system=OURS, tags="poolkit.control.n1")
NOTED = "U-G 7 system-id"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other host makes a group beside a script."""
    monkeypatch.setattr("poolkit.backends.shared_lvm._AT_ONCE", 0)


def refused(kind: type[Exception], said: str, one: SharedLvmBackend, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=said):
        call()
    assert changes(one) == []


@pytest.mark.parametrize("lock", ["sanlock", ""])
@pytest.mark.parametrize("info", [V, SNAPSHOT])
def test_a_family_is_not_shared(lock: str, info: VolumeInfo) -> None:
    one = backend(vgs=group(lock=lock) if lock else CONTROL, lvs=FREE)
    refused(errors.Unsupported, "can be active on one host only", one, lambda: one.attach(info, shared=True))


@pytest.mark.parametrize("force", [False, True])
def test_another_node_is_spoken_for_only_where_records_say_who_has_what(force: bool) -> None:
    locked = backend(vgs=group(lock="sanlock"))
    refused(errors.Unsupported, "a node attaches by itself", locked, lambda: locked.attach(V, node="n2"))
    refused(errors.Unsupported, "only a node itself lets go", locked, lambda: locked.detach(V, node="n2", force=force))
    one = backend(vgs=CONTROL, lvs=rows(lv_tags="poolkit.attach.n2"))
    if force:
        one.detach(V, node="n2", force=True)
        assert [argv[3:] for argv in changes(one)] == [["--deltag", "poolkit.attach.n2", "--", "vg/v"]]
    else:
        refused(errors.Unsafe, "nothing can tell whether node 'n2' still uses", one, lambda: one.detach(V, node="n2"))


@pytest.mark.parametrize("role", ["control", "both"])
def test_who_has_control_gives_volumes_away_and_forgets_them(role: str) -> None:
    one = backend(role, vgs=CONTROL)
    with one.exclusive("vol-allow"):
        one.attach(V, node="n2")
    assert [argv[3:] for argv in changes(one)] == [["--addtag", "poolkit.attach.n2", "--", "vg/v"]]
    one = backend(role, vgs=CONTROL, lvs=rows(lv_tags="poolkit.attach.n2"))
    with one.exclusive("vol-forget"):
        one.detach(V, node="n2", force=True)
    assert [argv[3:] for argv in changes(one)] == [["--deltag", "poolkit.attach.n2", "--", "vg/v"]]
    for call in (lambda: one.attach_listed(V, NOTED, node="n2"), lambda: one.detach_listed(V, NOTED, node="n2")):
        assert call() is None


def test_nobody_is_said_to_be_forgotten_who_is_not() -> None:
    held = rows(lv_tags="poolkit.attach.n2")
    compute = backend("compute", vgs=CONTROL, lvs=held)
    said = "is a compute node: it attaches and detaches volumes, and cannot detach a volume from another node"
    refused(errors.RoleForbidden, said, compute, lambda: compute.exclusive("vol-forget"))
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n3"), lvs=held)
    with pytest.raises(errors.Busy, match="node 'n3' has control") as caught:
        one.detach(V, node="n2", force=True)
    way = "on the node that has control: engine.pool('p').volume('v').detach(node='n2', force=True)"
    assert str(caught.value.hint).startswith(way)
    assert changes(one) == [] and one.host.warnings == []


@pytest.mark.parametrize("role", ["", "compute", "both"])
def test_the_record_of_what_is_detached_is_written_by_who_has_control(role: str) -> None:
    one = backend(role, lvs=rows(**ACTIVE, lv_tags="poolkit.attach.n1"))
    one.stop()
    words = [argv[3:5] for argv in changes(one)]
    if role == "both":
        taken = ["--addtag", "poolkit.control.n1"]
        assert words == [["--activate", "n"], taken, ["--deltag", "poolkit.attach.n1"]]
    else:
        assert words == [["--activate", "n"]]
        assert "the control node has to be told" in one.host.warnings[0]


def test_control_that_lvm_did_not_note_is_not_had() -> None:
    one = backend(vgs=[group(system=OURS)])
    with pytest.raises(errors.HostError, match="LVM ended well, and the group 'vg' does not note") as caught:
        one.exclusive("vol-create")
    assert f'system_id="{OURS}"' in str(caught.value.hint)
    # Another host has taken it by force meanwhile, and writes: nothing is written besides.
    taken = group(system=OURS, tags="poolkit.control.n2")
    one = backend(vgs=[group(system=OURS)] * 4 + [taken])
    with pytest.raises(errors.Busy, match="node 'n2' took control"):
        one.exclusive("vol-create")
    assert len(changes(one)) == 1


def test_nothing_is_recorded_of_a_host_whose_name_any_may_have() -> None:
    one = backend(node="localhost")
    free = backend(vgs=CONTROL)
    for call in (
        lambda: one.exclusive("vol-create"),
        lambda: one.make_group(["/dev/vdb"], "U-P"),
        lambda: free.attach(V, node="localhost.localdomain"),
    ):
        with pytest.raises(errors.InvalidArgument, match="any host may be named 'localhost") as caught:
            call()
        assert "[node] name" in str(caught.value.hint)
    assert changes(one) == changes(free) == []
    given = backend("compute", node="localhost", vgs=CONTROL, lvs=rows(lv_tags="poolkit.attach.localhost"))
    given.detach(V)


def test_what_is_open_is_neither_detached_nor_stopped() -> None:
    one = backend(vgs=CONTROL, lvs=rows(**ACTIVE, lv_device_open="open", lv_tags="poolkit.attach.n1"))
    refused(errors.Busy, "volume 'v' is open", one, lambda: one.detach(V))
    refused(errors.Busy, "pool 'p' cannot be stopped: volume 'v' is open", one, one.stop)


def test_stopping_leaves_the_locks_last() -> None:
    one = backend(vgs=group(lock="sanlock"), lvs=rows(**ACTIVE))
    one.stop()
    assert [argv[3] for argv in changes(one)] == ["--activate", "--lockstop"]
    left = backend(vgs=group(lock="sanlock"), lvmlockctl="")
    left.stop()
    assert changes(left) == []


@pytest.mark.parametrize("lock", ["sanlock", ""])
def test_control_is_taken_by_role_and_where_there_is_any(lock: str) -> None:
    compute = backend("compute", vgs=CONTROL)
    refused(errors.RoleForbidden, "cannot take control", compute, compute.take_control)
    one = backend(lock="auto" if lock else "none", vgs=group(lock=lock))
    refused(errors.Unsupported, "nothing is to be taken", one, one.take_control)


def test_no_snapshot_of_what_another_host_has() -> None:
    one = backend(vgs=CONTROL, lvs=rows(lv_tags="poolkit.attach.n2"))
    text = f"<volume><name>n</name><capacity>{8 * MIB}</capacity><backingStore><path>/dev/vg/v</path></backingStore></volume>"
    snapshot = xmlmap.read(text, [Volume])
    said = "cannot be the origin of a snapshot while it is attached to n2"
    refused(errors.HeldElsewhere, said, one, lambda: one.create(snapshot))


def test_a_group_of_other_devices_is_not_taken() -> None:
    one = backend(vgs=CONTROL)
    source = xmlmap.replace(one.pool.source, devices=(PhysicalVolume(path="/dev/disk/by-id/other"),))
    one.pool = xmlmap.replace(one.pool, source=source)
    refused(errors.Unsafe, "consists of /dev/vdb, not of /dev/disk/by-id/other", one, one.build)


def test_no_group_under_lvmlockd_is_made_without_it() -> None:
    nothing = '{"report": [{"vg": []}]}'
    one = backend(lock="lvmlockd", vgs=nothing, lvmlockctl=Answer(status=255))
    refused(errors.LockUnavailable, "lvmlockd does not run", one, one.build)


def test_who_makes_a_group_has_control_of_it() -> None:
    one = backend(lock="system-id", vgs=CONTROL)
    one.make_group(["/dev/vdb"], "U-P")
    assert "--addtag poolkit.control.n1" in " ".join(changes(one)[-1])


@pytest.mark.parametrize("name", ["v", "s"])
def test_what_is_made_is_detached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = backend(vgs=CONTROL, lvs=FREE if name == "s" else rows(**ACTIVE))
    made = one.find(name)
    monkeypatch.setattr(LvmVolumes, "new", lambda self, *given: made)
    found = one.new(name, [])
    assert found is not None and not found[1].active
    own = [["--activate", "n", "--yes", "--", "vg/v"], ["--setactivationskip", "y", "--", "vg/v"]]
    assert [argv[3:] for argv in changes(one)] == own[: 1 if name == "s" else 2]  # with a snapshot its origin is active


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_a_document_with_permissions_makes_a_volume(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vol-dumpxml prints it. There is no device that could have them: a new volume is detached."""
    one = backend(vgs=CONTROL, lvs=rows(lv_name="gone"))
    monkeypatch.setattr(LvmVolumes, "new", lambda self, name, words, fill=None: self.find("gone"))
    permissions = f"<target><permissions><mode>{mode}</mode><owner>0</owner><group>0</group></permissions></target>"
    text = f"<volume><name>n</name><capacity>{8 * MIB}</capacity>{permissions}</volume>"
    one.create(xmlmap.read(text, [Volume]))
    said = "volume 'n': its device is made anew by each attach, so that the permissions were left out"
    assert [warning.startswith(said) for warning in one.host.warnings] == ([True] if mode == "0660" else [])


def test_a_name_with_a_dot_in_front_is_attached_for_its_bytes_as_every_other() -> None:
    one = backend(vgs=CONTROL, lvs=rows(lv_name=".v"))
    with (
        pytest.raises(errors.HostError, match=r"/dev/vg/\.v"),
        one.open_volume(V._replace(name=".v", path="/dev/vg/.v")),
    ):
        pass
    assert [argv[3] for argv in changes(one)] == ["--activate"]


@pytest.mark.parametrize("less", [0, MIB])
def test_only_growing_passes_the_lock_of_another_host(less: int) -> None:
    held = Answer(status=5, stderr="  LV locked by other host: vg/v\n  Failed to lock logical volume vg/v.\n")
    smaller = {"lvreduce": held, "lvreduce --version": "  LVM version:     2.03.16(2) (2022-05-18)\n"}
    one = backend(vgs=group(lock="sanlock"), lvextend=[held, ""], sanlock="", **smaller)
    if less:
        with pytest.raises(errors.HeldElsewhere):
            one.resize(V, 4 * MIB, shrink=True)
        assert not any("skiplv" in argv for argv in changes(one))
    else:
        one.resize(V, 16 * MIB)
        assert [argv[3:] for argv in changes(one)][-1] == [
            "--lockopt", "skiplv", "--yes", "--extents", "4", "--", "vg/v",
        ]  # fmt: skip
        assert "attached to another host: attach it there again" in one.host.warnings[0]


def test_what_another_host_changed_is_seen() -> None:
    one = backend(vgs=CONTROL)
    noted = one.storage()
    assert noted == NOTED
    assert not one.moved_since(noted) and not one.changed_since(noted)
    assert one.moved_since("U-G 6 system-id") and not one.changed_since("U-G 6 system-id")
    assert "another volume group is named 'vg' now" in one.changed_since("U-H 7 system-id")


@pytest.mark.parametrize("word", ["--foreign", "--shared", 'hints="none"'])
def test_the_group_is_seen_whoever_it_belongs_to(word: str) -> None:
    """Without --shared a host without lvmlockd sees none of its groups, and ends with 0."""
    one = backend(vgs=CONTROL)
    one.shared_group()
    assert word in one.host.lines[0]  # type: ignore[attr-defined]


# -- by one command of LVM ---------------------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A device that LVM has made, of this size, and of the right volume unless it says otherwise."""
    facts: dict[str, Any] = {"size": 8 * MIB, "there": {"/dev/vg/v"}, "identified": []}
    monkeypatch.setattr("os.path.lexists", lambda path: path in facts["there"])
    monkeypatch.setattr(
        "poolkit.families.blockdevice.opened", lambda *args, **how: contextlib.closing(_Opened(os.open("/dev/null", 0)))
    )
    monkeypatch.setattr("poolkit.content.copying.size_of", lambda fd: facts["size"])
    monkeypatch.setattr(LvmVolumes, "identify", lambda self, info, fd: facts["identified"].append(info.key))
    return facts


class _Opened(int):
    def close(self) -> None:
        os.close(self)


def test_the_device_proves_what_was_attached(device: dict[str, Any]) -> None:
    one = backend(vgs=CONTROL)
    found = one.attach_listed(V, NOTED)
    assert found is not None and found.detail == {"attached": ["n1"]}
    assert device["identified"] == ["U-v"]
    device["size"] = 16 * MIB
    again = backend(vgs=CONTROL, lvs=rows(**ACTIVE, lv_size=str(16 * MIB)))
    found = again.attach_listed(V, NOTED)
    assert found is not None and found.capacity == 16 * MIB, "it was looked at again"


def test_the_long_way_proves_it_as_well(device: dict[str, Any]) -> None:
    one = backend(vgs=CONTROL)
    one.attach(V)
    assert device["identified"] == ["U-v"]


@pytest.mark.parametrize("how", ["gone", "in use", "there still", "not in control"])
def test_what_was_detached_is_gone(how: str, device: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    used = Answer(status=5, stderr="  Logical volume vg/v in use.\n")
    said = "" if how == "not in control" else "  Logical volume vg/v changed.\n"
    one = backend(vgs=CONTROL, lvchange=used if how == "in use" else said)
    monkeypatch.setattr(type(one.host.devices), "value", lambda self, path: "LVM-UGUv")
    device["there"] = {"/dev/mapper/vg-v"} if how == "there still" else set()
    found = one.detach_listed(V._replace(detail={"attached": ["n1"]}), NOTED)
    words = [argv[3] for argv in changes(one)]
    if how in ("in use", "there still"):
        assert found is None and words == ["--activate"]
        return
    assert words == ["--activate", "--deltag"]
    assert found is not None
    assert found.detail == ({"attached": ["n1"]} if how == "not in control" else None)
    assert bool(one.host.warnings) == (how == "not in control")


def test_a_device_that_stays_is_not_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    """LVM ends with 0 where it did nothing: then the record stays as well, or another host would get the volume."""
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/mapper/vg-v")
    one = backend(vgs=CONTROL, lvs=rows(**ACTIVE, lv_tags="poolkit.attach.n1"))
    for call in (lambda: one.detach(V), one.stop):
        with pytest.raises(errors.HostError, match="its device '/dev/mapper/vg-v' is there still") as caught:
            call()
        assert f'system_id="{OURS}"' in str(caught.value.hint)
    assert [argv[3] for argv in changes(one)] == ["--activate", "--activate"]


def test_a_snapshot_of_another_pools_volume_is_said_to_be_impossible() -> None:
    one = backend(vgs=CONTROL)
    foreign = Source(Outside(), VolumeInfo("elsewhere", "block", capacity=8 * MIB), "/x", contextlib.nullcontext)  # type: ignore[arg-type]
    new = xmlmap.read(f"<volume><name>n</name><capacity>{8 * MIB}</capacity></volume>", [Volume])
    with pytest.raises(errors.Unsupported, match="is not in the group 'vg', so no snapshot of it can be made there"):
        one.clone(new, foreign, linked=True)


# -- another host writes, or has taken the group ------------------------------------------------------------------------------

TORN = "  Incorrect checksum in metadata area header on /dev/vdb at 4096\n  Failed to scan VG from /dev/vdb\n"
NOTHING = Answer(stdout='{"report": [{"vg": []}]}', stderr=TORN)
GONE = Answer(status=5, stderr=f'{TORN}  Volume group "vg" not found\n')


def test_what_was_read_while_another_host_wrote_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.families.lvmlocks._SOON", 0)
    one = backend(vgs=[NOTHING, NOTHING, CONTROL])
    found = one.shared_group()
    assert found is not None and found.control == "n1"
    one = backend(vgs=CONTROL, lvs=[GONE, GONE, rows()])
    assert one.look("v", None).name == "v"
    for lasting in (backend(vgs=NOTHING), backend(vgs=CONTROL, lvs=GONE, pvs='{"report": [{"pv": []}]}')):
        with pytest.raises(errors.HostError, match="there is no volume group 'vg'"):
            lasting.look("v", None) if lasting.shared_group() else lasting.start()
    away = backend(vgs=CONTROL, lvs=[Answer(status=5, stderr='  Failed to find logical volume "vg/v"\n'), rows()])
    with pytest.raises(errors.VolumeNotFound):
        away.look("v", None)


def test_a_group_that_others_took_is_left_alone_and_the_pool_stops() -> None:
    one = backend(vgs=group(system="poolkit-other"), lvs=rows(**ACTIVE))
    one.stop()
    assert changes(one) == []
    assert "stays so: pool 'p': the group 'vg' belongs to 'poolkit-other'" in one.host.warnings[0]


def test_a_group_at_which_lvm_does_not_look_here_is_no_missing_one() -> None:
    """Where LVM has a devices file, as in RHEL, a disk with a group of another host is not in it: nothing is built over it."""
    pvs = '{"report": [{"pv": [{"pv_name": "/dev/vdb", "vg_name": "vg"}]}]}'
    one = backend(lock="system-id", vgs='{"report": [{"vg": []}]}', pvs=pvs)
    source = xmlmap.replace(one.pool.source, devices=(PhysicalVolume(path="/dev/disk/by-id/a b"),))
    one.pool = xmlmap.replace(one.pool, source=source)
    for call in (one.start, one.build, lambda: one.build(overwrite=True)):
        with pytest.raises(errors.HostError, match="at which LVM of this host does not look") as caught:
            call()
        assert "lvmdevices --adddev '/dev/disk/by-id/a b'" in str(caught.value.hint)
    assert changes(one) == []


@pytest.mark.parametrize(("tag", "shared"), [("share", False), ("attach", True)])
def test_what_was_given_one_way_is_attached_so(tag: str, shared: bool) -> None:
    one = backend("compute", vgs=group(system=OURS, tags="poolkit.control.n2"), lvs=rows(lv_tags=f"poolkit.{tag}.n1"))
    with pytest.raises(errors.InvalidState) as caught:
        one.attach(V, shared=shared)
    way = "attach()" if shared else "attach(shared=True)"
    assert f"attach it as it was given: engine.pool('p').volume('v').{way}; " in str(caught.value.hint)
    assert changes(one) == []
