"""Shared volume groups on a scripted host: what each role may do, what each lock makes LVM do, and who has a volume."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from poolkit import engine, errors, xmlmap
from poolkit.backend import VERBS, VolumeInfo
from poolkit.backends.shared_lvm import SharedLvmBackend
from poolkit.families import lvmlocks
from poolkit.families.lvmgroups import PhysicalVolume
from poolkit.families.lvmvolumes import LvmVolumes
from poolkit.host.node import Node
from poolkit.model import Volume
from poolkit.testing import Answer, undone
from tests.backends.sharedlvm import FAMILY, MIB, OURS, UUID, V, backend, changes, group, rows

# The matrix of permitted operations, verb by verb of the engine, as the manual has it.
MATRIX = {
    "control": {
        "vol-create",
        "vol-clone",
        "vol-import",
        "vol-delete",
        "vol-resize",
        "vol-allow",
        "vol-forget",
        "build",
        "delete",
        "take-control",
    },
    "compute": {"vol-attach", "vol-detach"},
}
MATRIX["both"] = MATRIX["control"] | MATRIX["compute"]
ANYONE = {"vol-upload", "vol-download", "vol-wipe", "vol-overwrite", "vol-permit", "vol-adopt"}  # of what the host has


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other host makes a group beside a script."""
    monkeypatch.setattr("poolkit.backends.shared_lvm._AT_ONCE", 0)


@pytest.mark.parametrize("role", MATRIX)
@pytest.mark.parametrize("verb", sorted(MATRIX["both"] | ANYONE))
@pytest.mark.parametrize("lock", lvmlocks.LOCKS)
def test_the_matrix_of_permitted_operations(role: str, verb: str, lock: str) -> None:
    if verb in MATRIX[role] | ANYONE:
        lvmlocks.permit(Node("n1", role), verb, lambda: lock, "p")
        return
    with pytest.raises(errors.RoleForbidden, match=f"pool 'p': node 'n1' is (a|the) {role} node"):
        lvmlocks.permit(Node("n1", role), verb, lambda: lock, "p")


def test_the_matrix_has_every_verb_that_changes_something() -> None:
    known = {"start", "stop", "download", "discover", "erase"}  # erase is the engine's delete
    methods = {verb.removeprefix("vol-") for verb in MATRIX["both"] | ANYONE} | known
    assert set(VERBS) <= methods
    # What the engine calls them, wherever it works on a volume, but for what only looks.
    texts = [file.read_text() for file in Path(engine.__file__).parent.rglob("*.py")]
    verbs = {verb for text in texts for verb in re.findall(r"[(\s]\"(vol-[a-z-]+)\"", text)}
    assert "vol-import" in verbs
    assert verbs - {"vol-info", "vol-disk-xml"} <= MATRIX["both"] | ANYONE


def test_a_verb_of_which_nothing_is_said_is_a_change() -> None:
    with pytest.raises(errors.RoleForbidden, match="cannot invent a volume"):
        lvmlocks.permit(Node("n1", "compute"), "vol-invent", lambda: "lvmlockd", "p")
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n2"))
    with pytest.raises(errors.Busy, match="has control"):
        one.exclusive("vol-invent")


@pytest.mark.parametrize("verb", sorted(MATRIX["both"]))
def test_a_host_without_a_role_needs_lvmlockd(verb: str) -> None:
    lvmlocks.permit(Node("n1"), verb, lambda: "lvmlockd", "p")
    for lock in ("system-id", "none"):
        with pytest.raises(errors.RoleForbidden, match="has no role"):
            lvmlocks.permit(Node("n1"), verb, lambda lock=lock: lock, "p")


@pytest.mark.parametrize(
    "argv",
    [
        ["lvcreate", "--yes"], ["lvremove"], ["lvextend"], ["lvrename"], ["lvchange", "--addtag"], ["lvchange", "--deltag"],
        ["lvchange", "--setactivationskip"], ["vgchange", "--addtag"], ["vgcreate"], ["vgremove"], ["pvcreate"], ["lvchange"],
        ["lvchange", "--activate", "y", "--addtag", "t", "--", "vg/v"], ["vgchange", "--lockstart", "--locktype", "none"],
    ],
)  # fmt: skip
def test_a_compute_node_can_build_no_other_commands(argv: list[str]) -> None:
    with pytest.raises(errors.RoleForbidden, match="not for a compute node"):
        backend("compute").command(*argv)


@pytest.mark.parametrize(
    ("lock", "text"),
    [
        ("lvmlockd", "backup{backup=0 archive=0} global{use_lvmlockd=1}"),
        (
            "system-id",
            'devices{hints="none" obtain_device_list_from_udev=0} backup{backup=0 archive=0} global{use_lvmlockd=0} '
            f'global{{system_id_source="lvmlocal"}} local{{system_id="{OURS}"}}',
        ),
        (
            "none",
            'devices{hints="none" obtain_device_list_from_udev=0} backup{backup=0 archive=0} global{use_lvmlockd=0}',
        ),
    ],
)
def test_every_command_sees_the_group_under_its_lock(lock: str, text: str) -> None:
    assert lvmlocks.config(lock, UUID) == ("--config", text)


@pytest.mark.parametrize(
    ("lock", "text"),
    [
        ("lvmlockd", "global{use_lvmlockd=1}"),
        ("none", 'devices{hints="none" obtain_device_list_from_udev=0}'),
        (
            "system-id",
            'devices{hints="none" obtain_device_list_from_udev=0} '
            f'global{{system_id_source="lvmlocal"}} local{{system_id="{OURS}"}}',
        ),
    ],
)
def test_a_command_given_by_hand_sees_all_of_the_group(lock: str, text: str) -> None:
    assert lvmlocks.by_hand(lock, UUID) == text


def test_a_compute_node_lets_lvm_refuse_to_write_as_well() -> None:
    assert "locking_type=4" in backend("compute").command("lvchange", "--activate", "y")[2]
    assert "locking_type=4" not in backend("compute").command("lvchange", "--refresh")[2]  # which that would refuse
    assert "locking_type=4" not in backend("both").command("lvchange", "--activate", "y")[2]
    locked = backend("compute", vgs=group(lock="sanlock"))
    assert "locking_type=4" not in locked.command("lvchange", "--activate", "ey")[2]  # lvmlockd guards that


def test_what_a_role_forbids_runs_no_program() -> None:
    one = backend("compute")
    with pytest.raises(errors.RoleForbidden):
        one.exclusive("vol-create")
    assert one.host.lines == []  # type: ignore[attr-defined]


REFUSES = Answer(status=5, stderr="  Operation prohibited while --readonly is set.\n  Can't get lock for vg.\n")


@pytest.mark.parametrize(
    ("role", "answer", "warned"),
    [
        ("compute", REFUSES, ""),
        ("compute", "", "LVM here would write the metadata of 'vg'"),
        ("compute", Answer(status=5, stderr="  Can't get lock for vg.\n"), "could not be tried: Can't get lock for vg"),
        ("control", "", ""),
    ],
)
def test_starting_tries_whether_lvm_still_refuses_to_write(role: str, answer: Any, warned: str) -> None:
    one = backend(role, vgchange=answer)
    one.start()
    tried = [line for line in one.host.lines if "vgchange" in line]  # type: ignore[attr-defined]
    assert len(tried) == (role == "compute")
    assert all("locking_type=4" in line and "--test --addtag" in line for line in tried)
    assert len(one.host.warnings) == bool(warned)
    assert all(warned in words for words in one.host.warnings)
    assert changes(one) == []


# -- which lock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "lock"),
    [(group(lock="sanlock"), "lvmlockd"), (group(system=OURS), "system-id")],
)
def test_the_group_says_its_lock(answer: str, lock: str) -> None:
    assert backend(vgs=answer).lock == lock
    assert backend(lock=lock, vgs=answer).lock == lock


@pytest.mark.parametrize("wanted", ["none", "system-id"])
def test_a_lower_protection_than_the_group_has_is_refused(wanted: str) -> None:
    with pytest.raises(errors.Unsafe, match=f"under lvmlockd, and the definition says {wanted}") as caught:
        _ = backend(lock=wanted, vgs=group(lock="sanlock")).lock
    assert "<lock type='lvmlockd'/>" in str(caught.value.hint)


@pytest.mark.parametrize("wanted", ["auto", "lvmlockd", "none"])
def test_locks_of_another_type_are_not_used(wanted: str) -> None:
    one = backend(lock=wanted, vgs=group(lock="dlm"))
    said = "the locks of the group 'vg' are of type 'dlm', and poolkit knows those of sanlock alone"
    with pytest.raises(errors.Unsupported, match=said) as caught:
        one.start()
    assert "vgchange --locktype sanlock vg" in str(caught.value.hint)
    assert not one.state().up and said in one.state().why
    assert changes(one) == []


def test_a_lock_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(errors.InvalidDefinition, match=r"'dlm'.*lvmlockd.*system-id.*none"):
        backend(lock="dlm")


def test_a_new_group_gets_locks_of_sanlock() -> None:
    one = backend(lock="lvmlockd", vgs=group(lock="sanlock"))
    one.make_group(["/dev/vdb"], "U-P")
    words = changes(one)[-1][3:]
    (mark,) = [word for word in words if word.startswith("poolkit.made.")]
    assert words == [
        "--setautoactivation", "n", "--addtag", "poolkit", "--addtag", mark, "--locktype", "sanlock", "--", "vg", "/dev/vdb",
    ]  # fmt: skip


def test_a_new_group_is_taken_back_where_only_its_system_id_shows_it() -> None:
    """By its mark: another host may have labelled the device anew, or have made its group of our label."""
    one = backend(lock="system-id", vgs=group(system=OURS))
    one.make_group(["/dev/vdb"], "U-P")
    (mark,) = [word for word in changes(one)[-1] if word.startswith("poolkit.made.")]
    asked, *_ = undone(one.host)  # type: ignore[arg-type]
    assert asked.startswith("<? vgs") and f'system_id="{OURS}"' in asked
    # Nor is it where another host has taken control of it since.
    where = f'vg_name="vg" && vg_tags={{poolkit.control.n1}} && vg_tags={{{mark}}}'
    assert shlex.split(asked)[-2:] == ["--select", where]


def test_no_protection_must_be_asked_for() -> None:
    with pytest.raises(errors.Unsafe, match="nothing keeps the hosts"):
        _ = backend(vgs=group()).lock
    one = backend(lock="none", vgs=group())
    one.start()
    assert "two changes at once destroy it" in one.host.warnings[0]


def test_a_group_of_another_pool_is_not_used() -> None:
    one = backend(vgs=group(system="poolkit-other"))
    assert not one.state().up and "belongs to 'poolkit-other'" in one.state().why
    with pytest.raises(errors.Unsafe, match="belongs to"):
        one.exclusive("vol-create")


def test_two_groups_of_one_name_are_not_used() -> None:
    two = json.loads(group(system=OURS))
    two["report"][0]["vg"].append({**two["report"][0]["vg"][0], "vg_uuid": "U-H"})
    with pytest.raises(errors.Unsafe, match="2 volume groups are named 'vg'") as caught:
        backend(vgs=json.dumps(two)).shared_group()
    said = Answer(status=5, stderr="  Multiple VGs found with the same name: skipping vg\n")
    with pytest.raises(errors.Unsafe, match="2 volume groups are named 'vg'"):
        backend(vgs=[group(system=OURS), json.dumps(two)], lvs=said).look("v", None)
    # Without its system ID LVM would not rename a group.
    assert f'local{{system_id="{OURS}"}}\' U-H NEWNAME' in str(caught.value.hint)


def test_a_new_group_is_the_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a group no lock keeps two hosts from making it at once: the one that wrote last has it."""
    theirs = group(system=OURS, tags="poolkit,poolkit.control.n2,poolkit.made.0123456789abcdef")
    one = backend(lock="system-id", vgs=['{"report": [{"vg": []}]}', theirs])
    with pytest.raises(errors.Busy, match="another host has just made a group 'vg'") as caught:
        one.make_group(["/dev/vdb"], "U-P")
    assert str(caught.value.hint) == "if it is meant to be: engine.pool('p').start()"
    # Its commands may fail first, and its devices belong to a group that was not there a moment ago.
    used = Answer(status=5, stderr="  A volume group called vg already exists.\n")
    hidden = '{"report": [{"pv": [{"pv_name": "/dev/vdb", "vg_name": "vg"}]}]}'
    nothing = '{"report": [{"vg": []}]}'
    for answers in ({"vgcreate": used, "pvs": '{"report": [{"pv": []}]}'}, {"pvs": hidden}):
        one = backend(lock="system-id", vgs=[nothing, nothing, theirs], **answers)
        monkeypatch.setattr(one, "_look_at_devices", lambda overwrite: {"/dev/vdb": ()})
        one.pool = xmlmap.replace(
            one.pool, source=xmlmap.replace(one.pool.source, devices=(PhysicalVolume(path="/dev/vdb"),))
        )
        with pytest.raises(errors.Busy, match="another host has just made a group 'vg'"):
            one.build()
    two = json.loads(group(system=OURS))
    two["report"][0]["vg"].append({**two["report"][0]["vg"][0], "vg_uuid": "U-H"})
    for torn in (json.dumps(two), '{"report": [{"vg": []}]}', group(system=OURS, missing=1, device="[unknown]")):
        one = backend(lock="system-id", vgs=['{"report": [{"vg": []}]}', torn])
        with pytest.raises(errors.HostError, match="at the same moment, and neither is whole") as caught:
            one.make_group(["/dev/vdb", "/dev/a b"], "U-P")
        assert "wipefs --all -- /dev/vdb '/dev/a b'" in str(caught.value.hint)


def test_a_compute_node_makes_and_removes_no_group_whoever_asks() -> None:
    one = backend("compute", lock="system-id", vgs='{"report": [{"vg": []}]}')
    for call in (one.build, lambda: one.build(overwrite=True), one.erase):
        with pytest.raises(errors.RoleForbidden, match=r"is a compute node: .* cannot (build|delete) the group"):
            call()
    with pytest.raises(errors.RoleForbidden, match="cannot build the group"):
        one.exclusive("build")
    assert changes(one) == []


@pytest.mark.parametrize("role", ["", "compute", "control"])
def test_a_group_that_is_there_is_built_for_every_role(role: str) -> None:
    """A document that says to build what is not there is the same on all hosts."""
    one = backend(role, vgs=group(system=OURS, tags="poolkit.control.n2"))
    with one.exclusive("build"):
        assert not one.build(overwrite=True)
    assert changes(one) == []


def test_a_thin_pool_that_somebody_made_in_a_shared_group_does_not_go_with_it() -> None:
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n1"), lvs=rows(lv_name="t", segtype="thin-pool"))
    with pytest.raises(errors.Unsafe, match="has the volumes t; nothing was deleted"):
        one.erase()
    assert changes(one) == []


def test_what_is_no_number_is_an_error() -> None:
    odd = json.loads(group(system=OURS))
    for field in ("vg_size", "vg_seqno", "vg_missing_pv_count"):
        report = json.loads(json.dumps(odd))
        report["report"][0]["vg"][0][field] = "many"
        with pytest.raises(errors.HostError, match="LVM reports 'many' where a number is to be"):
            backend(vgs=json.dumps(report)).shared_group()


PARTIAL: dict[str, tuple[Any, str, str]] = {
    "missing": (
        group(system=OURS, tags="poolkit.control.n1", missing=1, device="[unknown]"),
        "1 of the 1 devices of 'vg' is missing here", f"""local{{system_id="{OURS}"}}' --removemissing vg takes it out""",
    ),
    "left out": (
        group(system=OURS, tags="poolkit.control.n1", missing=1, left_out=True),
        "'/dev/vdb' of 'vg' is shut out, because the group was changed on a host that did not have it",
        f"""local{{system_id="{OURS}"}}' --restoremissing vg /dev/vdb""",
    ),
    "damaged": (
        Answer(
            stdout=group(system=OURS, tags="poolkit.control.n1"),
            stderr="  WARNING: repair VG metadata on /dev/vdb with vgck --updatemetadata.\n",
        ),
        "the copy of the metadata of 'vg' on '/dev/vdb' is damaged",
        f"""vgck --config '{lvmlocks.by_hand("system-id", UUID)}' --updatemetadata vg;""",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", PARTIAL)
def test_a_group_that_is_not_whole_is_neither_started_nor_changed(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LVM itself changes tags then, and by that shuts the device out for all hosts."""
    monkeypatch.setattr("poolkit.families.lvmjoint._AGAIN", 0)
    answer, said, hint = PARTIAL[how]
    one = backend(vgs=answer)
    calls = [one.start, one.build, lambda: one.attach(V)]
    changing = MATRIX["control"] - {"build", "vol-allow", "vol-forget"}
    calls += [lambda verb=verb: one.exclusive(verb) for verb in sorted(changing)]  # type: ignore[misc]
    for call in calls:
        with pytest.raises(errors.HostError, match=said) as caught:
            call()
        assert hint in str(caught.value.hint)
    one.exclusive("vol-attach")  # of what is recorded nothing is written
    assert changes(one) == []


def test_a_host_that_lacks_a_device_takes_no_control_and_no_record_away() -> None:
    held = group(system=OURS, tags="poolkit.control.n2", missing=1, device="[unknown]")
    one = backend(vgs=held)
    with pytest.raises(errors.HostError, match="is missing here"):
        one.take_control()
    ours = group(system=OURS, tags="poolkit.control.n1", missing=1, device="[unknown]")
    one = backend(vgs=ours, lvs=rows(lv_tags="poolkit.attach.n1"))
    one.detach(V)
    assert "the control node has to be told" in one.host.warnings[0]
    one = backend(vgs=ours, lvs=rows(lv_tags="poolkit.attach.n2"))
    with pytest.raises(errors.HostError, match="is missing here"):
        one.detach(V, node="n2", force=True)
    assert changes(one) == []


def test_metadata_that_another_host_was_just_writing_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.families.lvmjoint._AGAIN", 0)
    one = backend(vgs=[PARTIAL["damaged"][0], group(system=OURS)])
    one.require_whole()
    assert len(one.host.lines) == 2  # type: ignore[attr-defined]


def test_a_volume_that_lost_a_device_is_not_attached() -> None:
    refused = Answer(
        status=5,
        stderr="  WARNING: Couldn't find device with uuid ct80oT-q8.\n  Refusing activation of partial LV vg/v.  Use '--act\n",
    )
    one = backend(vgs=group(lock="sanlock", missing=1, device="[unknown]"), lvchange=refused)
    said = "volume 'v' cannot be activated while the physical volume ct80oT-q8 is missing"
    with pytest.raises(errors.HostError, match=said) as caught:
        one.attach(V)
    assert "connect that device" in str(caught.value.hint)


# -- who has control, and who has a volume -----------------------------------------------------------------------------------


def test_control_is_taken_where_nobody_has_it() -> None:
    one = backend()
    one.exclusive("vol-create")
    assert changes(one)[-1][-4:] == ["--addtag", "poolkit.control.n1", "--", "vg"]
    again = backend(vgs=group(system=OURS, tags="poolkit,poolkit.control.n1"))
    again.exclusive("vol-create")
    assert changes(again) == []


def test_control_of_another_host_is_taken_only_when_asked_for() -> None:
    held = group(system=OURS, tags="poolkit.control.n2")
    one = backend(vgs=[held] * 5 + [group(system=OURS, tags="poolkit.control.n1")])
    with pytest.raises(errors.Busy, match="node 'n2' has control"):
        one.exclusive("vol-create")
    assert changes(one) == []
    assert one.take_control()
    assert changes(one)[-1][3:] == ["--deltag", "poolkit.control.n2", "--addtag", "poolkit.control.n1", "--", "vg"]


def test_control_that_two_took_at_the_same_moment_is_nobodys() -> None:
    both = group(system=OURS, tags="poolkit.control.n1,poolkit.control.n2")
    one = backend(vgs=[group(system=OURS)] * 4 + [both])
    with pytest.raises(errors.Busy, match="node 'n2' took control of the group 'vg' at the same moment"):
        one.exclusive("vol-create")
    assert [argv[3:5] for argv in changes(one)] == [
        ["--addtag", "poolkit.control.n1"],
        ["--deltag", "poolkit.control.n1"],
    ]
    for verb in ("vol-create", "vol-delete"):
        left = backend(vgs=both)
        with pytest.raises(errors.Busy, match="node 'n1, n2' has control"):
            left.exclusive(verb)
        assert changes(left) == []
    third = backend(node="n3", vgs=[both] * 3 + [group(system=OURS, tags="poolkit.control.n3")])
    assert third.take_control()
    assert changes(third)[-1][3:-2] == [
        "--deltag", "poolkit.control.n1", "--deltag", "poolkit.control.n2", "--addtag", "poolkit.control.n3",
    ]  # fmt: skip


def test_what_is_taken_back_is_so_only_by_the_host_that_has_control_still() -> None:
    """It may have died in the middle, and another host have taken control since: two that write destroy the group."""
    one = backend(vgs=group(system=OURS, tags="poolkit.control.n1"))
    with pytest.raises(KeyError):  # the scripted LVM makes no volume
        one.create(xmlmap.read(f"<volume><name>n</name><capacity>{8 * MIB}</capacity></volume>", [Volume]))
    with pytest.raises(errors.HostError, match="/dev/vg/v"):
        one.attach(V)
    one.attach_listed(V, "U-G 7 system-id")
    commands = [shlex.split(line[2:]) for line in undone(one.host)]  # type: ignore[arg-type]
    writing = [argv for argv in commands if argv[3:5] != ["--activate", "n"]]
    assert [argv[0] for argv in writing] == ["lvchange", "lvchange", "lvremove"]
    assert all("vg_tags={poolkit.control.n1}" in argv[argv.index("--select") + 1] for argv in writing), writing


@pytest.mark.parametrize("verb", ["vol-upload", "vol-wipe", "vol-adopt"])
@pytest.mark.parametrize("role", ["compute", "both"])
def test_what_a_host_has_it_writes_without_control(verb: str, role: str) -> None:
    one = backend(role, vgs=group(system=OURS, tags="poolkit.control.n2"))
    with one.exclusive(verb):
        pass
    assert changes(one) == []


@pytest.mark.parametrize(
    ("role", "lock", "kind", "said"),
    [
        ("", "auto", errors.RoleForbidden, "has no role"),
        ("", "none", errors.RoleForbidden, "has no role"),
        ("compute", "auto", errors.RoleForbidden, "is not attached to this node, 'n1'"),
        ("both", "auto", errors.Busy, "node 'n2' has control"),
        ("control", "auto", errors.Busy, "node 'n2' has control"),
    ],
)
def test_a_volume_is_attached_for_its_bytes_only_by_who_may(role: str, lock: str, kind: Any, said: str) -> None:
    """Reading asks no bracket, and whoever gives volumes away knows of no other host that has one attached for that."""
    held = group() if lock == "none" else group(system=OURS, tags="poolkit.control.n2")
    one = backend(role, lock=lock, vgs=held)
    with pytest.raises(kind, match=said), one.open_volume(V):
        pass
    assert changes(one) == []


def test_a_node_without_control_attaches_what_it_was_given_and_nothing_else() -> None:
    held = group(system=OURS, tags="poolkit.control.n2")
    given = backend(vgs=held, lvs=rows(lv_tags="poolkit.attach.n1"))
    with given.exclusive("vol-attach"), pytest.raises(errors.HostError, match="/dev/vg/v"):
        given.attach(V)
    assert [argv[3] for argv in changes(given)] == ["--activate"]
    other = backend(vgs=held)
    with other.exclusive("vol-attach"), pytest.raises(errors.Busy, match="node 'n2' has control"):
        other.attach(V)
    assert changes(other) == []


@pytest.mark.parametrize("what", ["attach", "share"])
def test_a_volume_of_another_host_is_named_with_it(what: str) -> None:
    one = backend(lvs=rows(lv_tags=f"poolkit.{what}.n2"))
    assert one.look("v", None).detail["attached"] == ["n2"]  # type: ignore[index]
    for call in (lambda: one.attach(V), lambda: one.delete(V), lambda: one.resize(V, 4 * MIB, shrink=True)):
        with pytest.raises(errors.HeldElsewhere, match="n2") as caught:
            call()
        assert "on the control node: engine.pool('p').volume('v').detach(node='n2', force=True)" in str(
            caught.value.hint
        )
    assert changes(one) == []


def test_an_attach_is_recorded_before_it_happens() -> None:
    one = backend(node="n1", vgs=group(system=OURS, tags="poolkit.control.n1"))
    with pytest.raises(errors.HostError, match="/dev/vg/v"):  # the scripted LVM ends with 0 and makes no device
        one.attach(V)
    first, second = changes(one)[:2]
    assert first[3:] == ["--addtag", "poolkit.attach.n1", "--", "vg/v"]
    assert second[3:] == ["--activate", "y", "--ignoreactivationskip", "--yes", "--", "vg/v"]


def test_without_records_nothing_is_written() -> None:
    one = backend("compute")
    one.pool = xmlmap.replace(one.pool, source=xmlmap.replace(one.pool.source, attach_record=False))
    with pytest.raises(errors.HostError, match="/dev/vg/v"):
        one.attach(V)
    assert [argv[0] for argv in changes(one)] == ["lvchange"]


def test_a_snapshot_is_where_its_origin_is() -> None:
    """LVM activates both together: what is done to one of them is done to the other."""
    one = backend(lvs=FAMILY)
    snapshot = VolumeInfo("s", "block", capacity=8 * MIB, key="U-s", path="/dev/vg/s")
    with pytest.raises(errors.HeldElsewhere, match="'s' is attached to n2"):
        one.attach(snapshot)
    for call in (lambda: one.delete(snapshot), lambda: one.resize(snapshot, 8 * MIB, allocate=True)):
        with pytest.raises(errors.HeldElsewhere, match=r"'s' cannot be (deleted|resized) while 'v' is attached to n2"):
            call()
    with pytest.raises(errors.HeldElsewhere, match="'v' cannot be resized while it is attached to n2"):
        one.resize(V, 16 * MIB)
    assert changes(one) == []


def test_a_snapshot_is_not_removed_without_the_lock_of_its_origin() -> None:
    refused = Answer(status=5, stderr="  LV locked by other host: vg/v\n  Failed to lock logical volume vg/v.\n")
    one = backend(vgs=group(lock="sanlock"), lvs=FAMILY.replace("poolkit.attach.n2", ""), lvchange=refused, sanlock="")
    with pytest.raises(errors.HeldElsewhere, match="'v' is attached to another host"):
        one.delete(VolumeInfo("s", "block", capacity=8 * MIB, key="U-s", path="/dev/vg/s"))
    assert [argv[0] for argv in changes(one)] == ["lvchange"]


def test_a_group_that_cannot_be_read_is_no_missing_group() -> None:
    pvs = json.dumps({"report": [{"pv": [{"pv_name": "/dev/vdb", "vg_name": "[unknown]"}]}]})
    one = backend(vgs='{"report": [{"vg": []}]}', pvs=pvs)
    path = "/dev/disk/by-id/shared"
    source = xmlmap.replace(one.pool.source, lock="system-id", devices=(PhysicalVolume(path=path),))
    one.pool = xmlmap.replace(one.pool, source=source)
    for call in (one.start, one.build):
        with pytest.raises(errors.HostError, match=f"the metadata of a volume group on '{path}' is damaged") as caught:
            call()
        assert str(caught.value.hint).endswith(f"on each device: pvck --repair --file COPY {path}")
    assert changes(one) == []


def test_what_two_read_at_once_stays_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who attached it has read all when it ends, whatever the other one does."""
    monkeypatch.setattr(SharedLvmBackend, "_verify", lambda self, volume: None)
    monkeypatch.setattr(LvmVolumes, "open_volume", lambda self, info, **how: contextlib.nullcontext(7))
    down = shlex.join(["lvchange", *lvmlocks.config("system-id", UUID), "--activate", "n"])
    one = backend(**{down: Answer(status=5, stderr="  Logical volume vg/v in use.\n")})
    with one.open_volume(V) as fd:
        assert fd == 7
    assert one.host.warnings == ["volume 'v' stays attached here: it is open"]


def test_thin_volumes_and_mirrors_are_refused() -> None:
    one = backend()
    thin = xmlmap.read(
        "<volume><name>t</name><capacity>8388608</capacity><allocation>0</allocation></volume>", [Volume]
    )
    with pytest.raises(errors.Unsupported, match="thin volumes cannot be shared"):
        one.create(thin)
    whole = xmlmap.read("<volume><name>t</name><capacity>8388608</capacity></volume>", [Volume])
    with pytest.raises(errors.Unsupported, match="no mirrors"):
        one.create(whole, mirrors=1)
    assert changes(one) == []


@pytest.mark.parametrize(
    "said",
    [
        "  LV locked by other host: vg/v\n  Failed to lock logical volume vg/v.\n",
        "  Failed to lock logical volume vg/v.\n",
        "  LV locked by other host: vg/v\n  Failed to lock origin LV vg/v.\n",
    ],
)
@pytest.mark.parametrize(
    "owner",
    [
        "70254592  lvm_vg  K0tHvR-fHzT-5cuu 0000001695 0002 0001 5\n",
        "70254592  lvm_vg  K0tHvR-fHzT-5cuu 0000000000 0001 0001 2\n      0002 0001 SH\n",  # it was alpha's before
    ],
)
def test_sanlocks_leases_tell_who_has_a_volume(said: str, owner: str) -> None:
    hosts = (
        "  offset  lockspace  resource  timestamp  own  gen lver\n"
        "00000000  lvm_vg  5dd6fd34-f096-499f-bf82-8d5f69bda1b9.alpha 0000001693 0001 0004\n"
        "00000512  lvm_vg  12e48603-0631-411c-bb4f-5445978d0d4c.beta.example 0000001695 0002 0001\n"
    )
    one = backend(
        vgs=group(lock="sanlock"), lvchange=Answer(status=5, stderr=said),
        **{
            "sanlock direct dump /dev/mapper/vg-lvmlock:70254592:1048576": owner,
            "sanlock direct dump /dev/mapper/vg-lvmlock:0:1048576": hosts,
        },
    )  # fmt: skip
    with pytest.raises(errors.HeldElsewhere, match=r"attached to node 'beta\.example'"):
        one.attach(V)


def test_without_lvmlockd_its_group_is_down() -> None:
    one = backend(
        vgs=group(lock="sanlock"), lvmlockctl=Answer(status=255, stderr="/run/lvm/lvmlockd.socket: connect failed")
    )
    assert not one.state().up
    with pytest.raises(errors.LockUnavailable, match="lvmlockd does not run"):
        one.start()
    none = backend(vgs=group(lock="sanlock"), lvmlockctl="")
    assert none.state().why == "the locks of the group 'vg' are not started"
    none.start()
    assert changes(none)[-1][3:] == ["--lockstart", "--", "vg"]


def test_a_stale_device_is_told_and_refreshed() -> None:
    active = {"lv_active": "active", "lv_kernel_major": "253", "lv_kernel_minor": "0", "lv_tags": "poolkit.attach.n1"}
    one = backend(lvs=rows(lv_attr="-wi-XX--X-k", **active))
    assert "old size" in one.look("v", None).detail["warning"]  # type: ignore[index]
    one.attach(V)
    assert changes(one)[-1][3:] == ["--refresh", "--", "vg/v"]
    fresh = backend(lvs=rows(lv_attr="-wi-a-----k", **active))
    fresh.attach(V)
    assert changes(fresh) == []
