"""Shared volume groups on a scripted host: what a lock has to cover, what LVM says of locks, and what two hosts do at once."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.backends.shared_lvm import SharedLvmBackend
from poolkit.testing import Answer
from tests.backends.sharedlvm import FAMILY, MIB, OURS, V, backend, changes, group, rows

SNAPSHOT = VolumeInfo("s", "block", capacity=8 * MIB, key="U-s", path="/dev/vg/s")
ELSEWHERE = Answer(status=5, stderr="  LV locked by other host: vg/v\n  Failed to lock logical volume vg/v.\n")
LEASES = {
    "sanlock direct dump /dev/mapper/vg-lvmlock:70254592:1048576": "70254592  lvm_vg  K0-5cuu 0000001695 0002 0001 5\n",
    "sanlock direct dump /dev/mapper/vg-lvmlock:0:1048576": "00000512  lvm_vg  12e48603.two 0000001695 0002 0001\n",
}


def test_a_snapshot_gets_no_room_without_the_lock_of_its_origin() -> None:
    """lvextend takes none for a snapshot: a lock of its own it does not have."""
    free = FAMILY.replace("poolkit.attach.n2", "")
    one = backend(vgs=group(lock="sanlock"), lvs=free, lvchange=ELSEWHERE, **LEASES)
    with pytest.raises(errors.HeldElsewhere, match="'v' is attached to node 'two'"):
        one.resize(SNAPSHOT, 8 * MIB, allocate=True)
    assert [argv[0] for argv in changes(one)] == ["lvchange"]


def test_a_snapshot_that_gets_room_leaves_its_origin_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedLvmBackend, "_verify", lambda self, volume: None)
    one = backend(vgs=group(lock="sanlock"), lvs=FAMILY.replace("poolkit.attach.n2", ""))
    assert "attached" not in (one.resize(SNAPSHOT, 8 * MIB, allocate=True).detail or {})
    done = [argv[3:] if argv[0] == "lvchange" else argv[:1] for argv in changes(one)]
    assert done == [
        ["--activate", "ey", "--ignoreactivationskip", "--yes", "--", "vg/v"],
        ["lvextend"],
        ["--activate", "n", "--yes", "--", "vg/v"],
    ]


def test_an_origin_that_another_host_has_is_not_extended_past_its_lock() -> None:
    one = backend(vgs=group(lock="sanlock"), lvs=FAMILY.replace("poolkit.attach.n2", ""), lvextend=ELSEWHERE, **LEASES)
    with pytest.raises(errors.HeldElsewhere, match="'v' is attached to node 'two'"):
        one.resize(V, 16 * MIB)
    assert [argv[0] for argv in changes(one)] == ["lvextend"]
    assert not any("skiplv" in argv for argv in changes(one))


def test_the_host_that_has_a_snapshot_is_the_one_with_the_lock_of_its_origin() -> None:
    leases = {**LEASES, "lvs": FAMILY.replace("poolkit.attach.n2", "")}
    one = backend(vgs=group(lock="sanlock"), lvchange=ELSEWHERE, **leases)
    with pytest.raises(errors.HeldElsewhere, match="'s' is attached to node 'two'"):
        one.attach(SNAPSHOT)
    assert any("vg/v" in line for line in one.host.lines if "lv_lockargs" in line)  # type: ignore[attr-defined]


ACTIVE = {"lv_active": "active", "lv_kernel_major": "253", "lv_kernel_minor": "0"}


@pytest.mark.parametrize(("mode", "shared"), [("sh", False), ("ex", True)])
def test_what_is_attached_one_way_is_not_said_to_be_attached_the_other(mode: str, shared: bool) -> None:
    """Its lock stays what it was: others would be let in, or shut out."""
    said = f"is attached to 'n1' {'for itself alone already, not shared' if shared else 'as shared already, not for itself'}"
    held = {"lvmlockctl": f"VG vg lock_type=sanlock X\nLS sanlock lvm_vg\nLK VG un ver 9\nLK LV {mode} U-v\n"}
    locked = backend(vgs=group(lock="sanlock"), lvs=rows(**ACTIVE), **held)
    tag = "poolkit.attach.n1" if shared else "poolkit.share.n1"
    tagged = backend(vgs=group(system=OURS, tags="poolkit.control.n1"), lvs=rows(**ACTIVE, lv_tags=tag))
    for one in (locked, tagged):
        with pytest.raises(errors.InvalidState, match=said):
            one.attach(V, shared=shared)
        assert changes(one) == []
        one.attach(V, shared=not shared)
        assert changes(one) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_node_that_has_no_control_is_told_who_can_give_it_a_volume(shared: bool) -> None:
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n2"))
    with pytest.raises(errors.Busy, match="node 'n2' has control") as caught:
        one.attach(V, shared=shared)
    way = f"engine.pool('p').volume('v').attach(node='n1'{', shared=True' if shared else ''})"
    assert f"on the node that has control: {way};" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("said", "kind", "words", "hint"),
    [
        ("  VG vg lock failed: held by other host.\n", errors.LockUnavailable, "VG vg lock failed: held by", "try again"),
        (
            "  Global lock failed: check that global lockspace is started\n", errors.LockUnavailable, "Global lock failed",
            "lvmlockctl --gl-enable",
        ),
        (
            "  LV vg/v lock failed: storage errors for sanlock leases\n  Failed to lock logical volume vg/v.\n",
            errors.LockUnavailable, "LV vg/v lock failed: storage errors", "sanlock client status",
        ),
        ("  VG vg lock failed: lock start in progress\n", errors.LockUnavailable, "lock start in progress", "lvmlockctl --info"),
        (
            "  LV is already locked with incompatible mode: vg/v\n  Failed to lock logical volume vg/v.\n", errors.Busy,
            "attached to this host otherwise", "detach it first",
        ),
    ],
)  # fmt: skip
def test_what_lvm_says_of_its_locks_has_a_way_out(said: str, kind: Any, words: str, hint: str) -> None:
    one = backend(vgs=group(lock="sanlock"), lvextend=Answer(status=5, stderr=said))
    with pytest.raises(kind, match=words) as caught:
        one.resize(V, 16 * MIB)
    assert hint in str(caught.value.hint)
    assert type(caught.value) is kind
    assert len(changes(one)) == 1, "where no lock could be asked for none is passed over"


def test_a_group_is_removed_when_the_other_hosts_have_left_its_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.backends.shared_lvm._PAUSE", 0)
    refused = Answer(status=5, stderr='  Lockspace for "vg" not stopped on other hosts\n')
    locks = "VG vg lock_type=sanlock X\nLS sanlock lvm_vg\n"
    one = backend(vgs=group(lock="sanlock"), vgremove=[refused, refused, ""], lvmlockctl=[locks, ""])
    one.remove_group()
    assert [argv[0] for argv in changes(one)] == ["vgremove"] * 3
    assert one.host.warnings == []
    one = backend(vgs=group(lock="sanlock"), vgremove=refused)
    with pytest.raises(errors.Busy, match="another host has the locks") as caught:
        one.remove_group()
    assert "stop the pool on all other hosts" in str(caught.value.hint)
    alone = backend(vgremove=Answer(status=5, stderr="  Logical volume vg/v in use.\n"))
    with pytest.raises(errors.Busy):
        alone.remove_group()
    assert len(changes(alone)) == 1


def test_the_global_lock_may_have_gone_with_the_group() -> None:
    """Without it no other group is made or removed (lvmlockd(8), "global lock")."""
    others = "VG vg lock_type=sanlock X\nLS sanlock lvm_vg\n\nVG other lock_type=sanlock Y\nLS sanlock lvm_other\n"
    one = backend(vgs=group(lock="sanlock"), lvmlockctl=others)
    one.remove_group()
    assert "lvmlockctl --gl-enable other" in one.host.warnings[0]


def test_a_size_that_was_changed_meanwhile_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.families.blockdevice.opened", lambda *args, **how: contextlib.nullcontext(7))
    monkeypatch.setattr("poolkit.content.copying.size_of", lambda fd: 16 * MIB)
    monkeypatch.setattr(SharedLvmBackend, "identify", lambda self, info, fd: None)
    before, after = rows(), rows(lv_size=str(16 * MIB), **ACTIVE)
    one = backend("compute", vgs=group(lock="sanlock"), lvs=[before, after])
    assert one.attach(V).capacity == 16 * MIB
    wrong = backend("compute", vgs=group(lock="sanlock"))
    with pytest.raises(errors.HostError, match="has 8388608 bytes, and its device '/dev/vg/v' 16777216") as caught:
        wrong.attach(V)
    assert caught.value.hint


def test_stopping_takes_the_records_away_of_what_it_detaches() -> None:
    held = {"lvs": rows(**ACTIVE, lv_tags="poolkit.attach.n1")}
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n1"), **held)
    one.stop()
    assert [argv[3:] for argv in changes(one)] == [
        ["--activate", "n", "--yes", "--", "vg/v"],
        ["--deltag", "poolkit.attach.n1", "--", "vg/v"],
    ]
    two = backend("compute", vgs=group(system=OURS, tags="poolkit.control.n2"), **held)
    two.stop()
    assert [argv[3] for argv in changes(two)] == ["--activate"]
    assert "the control node has to be told" in two.host.warnings[0]


def test_a_volume_of_a_damaged_group_is_detached_and_its_record_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.families.lvmjoint._AGAIN", 0)
    damaged = Answer(
        stdout=group(system=OURS, tags="poolkit.control.n1"),
        stderr="  WARNING: repair VG metadata on /dev/vdb with vgck --updatemetadata.\n",
    )
    one = backend(vgs=damaged, lvs=rows(**ACTIVE, lv_tags="poolkit.attach.n1"))
    one.detach(V)
    assert [argv[3] for argv in changes(one)] == ["--activate"]
    assert "the control node has to be told" in one.host.warnings[0]
