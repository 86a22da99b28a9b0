"""What a logical pool runs, line by line: every verb, every failing step with what takes it back, every refusal's words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backend import Source, Transfer, VolumeInfo
from poolkit.backends.logical import LogicalBackend, LogicalPool
from poolkit.families import lvm, lvmrefusals
from poolkit.host import Host
from poolkit.host.mounts import Mount
from poolkit.model import Volume
from poolkit.testing import Answer, ScriptedHost, transcript
from tests.backends.played import Machine

MIB = 1 << 20
EXTENT = 4 * MIB
TOKEN = "7" * 16
TEMP = f".poolkit-{TOKEN}"
PV = "777777-7777-7777-7777-7777-7777-777777"
THIN = "<pk:thin_pool xmlns:pk='urn:poolkit:pool:1' name='tp'/>"

VGS = "? vgs --reportformat json --units b --nosuffix --options " + ",".join(lvm._GROUP_FIELDS) + " --"
PVS = "? pvs --reportformat json --units b --nosuffix --options pv_name,vg_name --"
FIELDS = ",".join(lvm._FIELDS)
LVS = f"? lvs --reportformat json --units b --nosuffix --all --options {FIELDS} -- vg"


def selected(what: str) -> str:
    return f"? lvs --reportformat json --units b --nosuffix --all --select '{what}' --options {FIELDS} -- vg"


def pool(*devices: str, extra: str = "") -> str:
    paths = "".join(f"<device path='{path}'/>" for path in devices)
    return f"<pool type='logical'><name>p</name><source>{paths}<name>vg</name></source>{extra}</pool>"


def report(kind: str, *rows: dict[str, str]) -> str:
    return json.dumps({"report": [{kind: rows}]})


def vg(
    *devices: str, name: str = "vg", free: int = 100 * EXTENT, count: int = 0, uuid: str = "U-G"
) -> list[dict[str, str]]:
    facts = (name, uuid, 200 * EXTENT, free, EXTENT, 0, count)
    return [
        dict(zip(lvm._GROUP_FIELDS, map(str, (*facts, device, f"PV-{at}")), strict=True))
        for at, device in enumerate(devices or ("/dev/vdb",))
    ]


def lv(name: str, **facts: str) -> dict[str, str]:
    row = dict.fromkeys(lvm._FIELDS, "")
    row |= {
        "lv_name": name, "lv_uuid": f"U-{name.strip('[]')}", "lv_size": str(2 * EXTENT), "lv_role": "public",
        "lv_active": "active", "lv_kernel_major": "253", "lv_kernel_minor": "0", "segtype": "linear",
        "seg_pe_ranges": "/dev/vdb:0-1", "vg_size": str(200 * EXTENT), "vg_free": str(100 * EXTENT),
        "vg_extent_size": str(EXTENT),
    }  # fmt: skip
    return row | facts


def snapshot(name: str, origin: str, origin_size: str = "1", **facts: str) -> dict[str, str]:
    return lv(name, lv_role="public,snapshot,thicksnapshot", origin=origin, origin_size=origin_size, **facts)


def script(**answers: Any) -> ScriptedHost:
    """A host with one group 'vg' of 200 extents; ``lvs`` is the list of its rows, or of lists for successive questions."""
    fail_at = answers.pop("fail_at", 0)
    lines: dict[str, Any] = {
        "vgs": report("vg", *vg()),
        "lvs": report("lv"),
        "pvs": report("pv"),
        "lvreduce --version": "  LVM version:     2.03.16(2) (2022-05-18)\n",
    }
    for tool, rows in answers.items():
        if isinstance(rows, (str, Answer)):
            lines[tool] = rows
        elif rows and isinstance(rows[0], list):
            lines[tool] = [report(tool[:2], *one) for one in rows]
        else:
            lines[tool] = report(tool[:2], *rows)
    return ScriptedHost(lines, fail_at=fail_at, machine=".")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Four disks that hold nothing, and no active volumes; the test puts there what it needs."""
    monkeypatch.setattr("secrets.token_hex", lambda size=16: "7" * (2 * size))
    played = Machine(tmp_path)
    for minor, letter in enumerate("bcde"):
        played.disk(f"vd{letter}", f"252:{16 * minor}", 1 << 20)
    monkeypatch.chdir(tmp_path)
    return played


def active(machine: Machine, *names: str) -> None:
    """Names in ``/dev/mapper``."""
    for name in names:
        machine.write(f"/dev/mapper/{name}", "")


def volume(name: str = "v", capacity: int = 2 * EXTENT, **more: Any) -> Volume:
    extra = "".join(f"<{key}>{value}</{key}>" for key, value in more.items())
    text = f"<volume><name>{name}</name><capacity>{capacity}</capacity>{extra}</volume>"
    made = xmlmap.read(text, [Volume])
    assert isinstance(made, Volume)
    return made


def info(name: str = "v", **facts: Any) -> VolumeInfo:
    return VolumeInfo(name, "block", key=f"U-{name}", path=f"/dev/vg/{name}", **facts)


# -- build ------------------------------------------------------------------------------------------------------------

LABEL = [f"! pvcreate --yes --uuid {PV} --norestorefile -- {{}}"]
UNLABEL = (
    f"< run pvremove --yes -- {{0}} (if pvs --noheadings --options pv_uuid,vg_name -- {{0}} says '{PV}')"
)  # fmt: skip
UNGROUP = f"< run vgremove -- vg (if pvs --noheadings --options vg_name --select pv_uuid=\"{PV}\" says 'vg')"
NEWTHIN = f"! lvcreate --yes --name {TEMP} --type thin-pool --extents 100%FREE -- vg"
LOOKTEMP = f"? lvs --reportformat json --units b --nosuffix --all --options {FIELDS} -- vg/{TEMP}"
RENAME = f"! lvrename -- vg {TEMP} "
UNTEMP = f'< lvremove --yes --select \'vg_name="vg" && lv_name="{TEMP}"\''
UNNEW = f"< lvremove --yes --select 'lv_uuid=\"U-{TEMP}\"'"


def new_thin() -> list[dict[str, str]]:
    return [lv(TEMP, segtype="thin-pool", lv_role="private")]


def test_build_labels_the_devices_and_makes_the_group_and_its_thin_pool() -> None:
    host = script(vgs=report("vg"), lvs=new_thin())
    lines = transcript(pool("/dev/vdb", "/dev/vdc", extra=THIN), lambda b: b.build(), host)
    assert lines == [
        VGS,
        PVS,
        f"! pvcreate --yes --uuid {PV} --norestorefile -- /dev/vdb",
        f"! pvcreate --yes --uuid {PV} --norestorefile -- /dev/vdc",
        "! vgcreate -- vg /dev/vdb /dev/vdc",
        NEWTHIN,
        LOOKTEMP,
        f"{RENAME}tp",
    ]


@pytest.mark.parametrize(
    ("step", "undone"),
    [
        (1, [UNLABEL.format("/dev/vdb")]),
        (2, [UNLABEL.format("/dev/vdc"), UNLABEL.format("/dev/vdb")]),
        (3, [UNGROUP, UNLABEL.format("/dev/vdc"), UNLABEL.format("/dev/vdb")]),
        (4, [UNTEMP, UNGROUP, UNLABEL.format("/dev/vdc"), UNLABEL.format("/dev/vdb")]),
        (5, [UNNEW, UNTEMP, UNGROUP, UNLABEL.format("/dev/vdc"), UNLABEL.format("/dev/vdb")]),
    ],
)
def test_every_failing_step_of_build_is_taken_back(step: int, undone: list[str]) -> None:
    host = script(vgs=report("vg"), lvs=new_thin(), fail_at=step)
    lines = transcript(pool("/dev/vdb", "/dev/vdc", extra=THIN), lambda b: b.build(), host)
    assert [line for line in lines if line.startswith("<")] == undone
    assert lines[-1].endswith("failed with status 5: injected")


def test_build_with_overwrite_removes_what_is_there_first(machine: Machine) -> None:
    machine.holds("vdc", "gpt", "ext4")
    lines = transcript(pool("/dev/vdb", "/dev/vdc"), lambda b: b.build(overwrite=True), script(vgs=report("vg")))
    assert [line for line in lines if line[0] == "!"] == [
        f"! pvcreate --yes --uuid {PV} --norestorefile -- /dev/vdb",
        "! wipefs --all -- /dev/vdc",
        f"! pvcreate --yes --uuid {PV} --norestorefile -- /dev/vdc",
        "! vgcreate -- vg /dev/vdb /dev/vdc",
    ]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (
            [{"pv_name": "/dev/vdc", "vg_name": "far"}],
            "belongs to the volume group 'far', which this host must not use or does not see in full",
        ),
        ([], "holds a label of LVM that LVM does not report, so it may belong to a volume group"),
        ([{"pv_name": "/dev/vdc", "vg_name": ""}], ""),
    ],
)
def test_overwrite_spares_groups_that_this_host_does_not_show(
    machine: Machine, rows: list[dict[str, str]], fault: str
) -> None:
    machine.holds("vdc", "LVM2_member")
    host = script(vgs=report("vg"))
    asked = PVS.replace("--options", "--foreign --shared --devices /dev/vdc --options") + " /dev/vdc"
    host.answers[asked[2:]] = Answer(report("pv", *rows), 0 if rows else 5)
    if not fault:
        lines = transcript(pool("/dev/vdc"), lambda b: b.build(overwrite=True), host)
        assert lines[:4] == [VGS, PVS, asked, "! wipefs --all -- /dev/vdc"]
        return
    said = refusal(pool("/dev/vdc"), lambda b: b.build(overwrite=True), host)
    assert said == (f"pool 'p': '/dev/vdc' {fault}", "if nobody needs that group: wipefs --all /dev/vdc")


def test_what_came_to_a_device_after_the_look_is_not_wiped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On storage that hosts share it may be the group of another one that builds at the same moment."""
    machine.holds("vdc", "ext4")
    held = [("ext4",), ("LVM2_member",)]
    monkeypatch.setattr("poolkit.families.blockdevice.holds", lambda host, path: held.pop(0))
    host = script(vgs=report("vg"))
    said = refusal(pool("/dev/vdc"), lambda b: b.build(overwrite=True), host)
    assert said[0] == (
        "pool 'p': '/dev/vdc' holds LVM2_member now, and held ext4 a moment ago: somebody else writes to it"
    )
    assert not any(line.startswith("!") for line in host.lines)


def test_a_group_that_is_there_is_taken_as_it_is() -> None:
    for devices in ((), ("/dev/vdb", "/dev/vdc"), ("/dev/vdc", "/dev/vdb")):
        host = script(vgs=vg("/dev/vdb", "/dev/vdc"))
        assert transcript(pool(*devices), lambda b: b.build(overwrite=True), host) == [VGS]
    host = script(lvs=[lv("tp", segtype="thin-pool", lv_role="private")])
    assert transcript(pool(extra=THIN), lambda b: b.build(), host) == [VGS, selected('lv_name="tp"')]


def test_the_capacity_of_a_thin_pool_is_rounded_up() -> None:
    sized = THIN.replace("/>", "><pk:capacity>5000000</pk:capacity></pk:thin_pool>")
    lines = transcript(pool(extra=sized), lambda b: b.build(), script(lvs=[[], new_thin()]))
    assert f"! lvcreate --yes --name {TEMP} --type thin-pool --size 5000192b -- vg" in lines
    none = sized.replace("5000000", "0")
    assert refusal(pool(extra=none), lambda b: b.claims(), script())[0] == (
        "the thin pool 'tp' needs a capacity above 0"
    )


def refusal(xml: str, verb: Callable[[Any], object], host: ScriptedHost) -> tuple[str, str | None]:
    """The sentence and the hint of a refusal, which must come before any change."""
    backend = LogicalBackend(xmlmap.read(xml, [LogicalPool]), host)
    with pytest.raises(errors.PoolkitError) as caught:
        verb(backend)
    assert not host.changes
    return str(caught.value), caught.value.hint


def test_what_build_refuses(machine: Machine) -> None:
    machine.holds("vdc", "gpt", "ext4")

    def refused(xml: str, **answers: Any) -> tuple[str, str | None]:
        return refusal(xml, lambda b: b.build(), script(**answers))

    none = report("vg")
    assert refused(pool(), vgs=none) == (
        "pool 'p': there is no volume group 'vg', and no device to make it of",
        "add <device path='…'/> to <source>",
    )
    assert refused(pool("/dev/vdb", "/dev/vdc"), vgs=none) == (
        "pool 'p': '/dev/vdc' holds gpt, ext4, which building would destroy",
        "if that is meant, add overwrite=True",
    )
    assert refused(pool("/dev/vdb"), vgs=none, pvs=[{"pv_name": "/dev/vdb", "vg_name": "theirs"}]) == (
        "pool 'p': '/dev/vdb' belongs to the volume group 'theirs'",
        "take it out of that group first: vgreduce, or vgremove",
    )
    assert refused(pool("/dev/vdb", "/dev/vdb"), vgs=none) == (
        "pool 'p': '/dev/vdb' and '/dev/vdb' are the same device",
        None,
    )
    assert refused(pool("/dev/vdd"), vgs=vg("/dev/vdb")) == (
        "pool 'p': the volume group 'vg' exists and consists of /dev/vdb, not of /dev/vdd",
        "name no device to take the group as it is, or choose another name",
    )
    assert refused(pool(extra=THIN), lvs=[lv("tp")]) == (
        "pool 'p': 'tp' in the group 'vg' is no thin pool but a linear volume",
        None,
    )
    assert refused(pool(), vgs=[*vg(), *vg(uuid="U-OTHER")]) == (
        "two volume groups are named 'vg' (U-G and U-OTHER)",
        "rename one of them: vgrename UUID NEWNAME",
    )


@pytest.mark.parametrize("name", ["-n", "a b", "..", "a,b", "$(id)", "ü", "x" * 128])
def test_names_that_lvm_cannot_have_are_refused_before_anything_is_asked(name: str) -> None:
    xml = pool().replace("<name>vg</name>", f"<name>{name}</name>")
    host = script()
    said, _ = refusal(xml, lambda b: list(b.claims()), host)
    assert said.startswith(f"'{name[:60]}' cannot be the name of a volume group: ")
    assert host.lines == []
    thin = THIN.replace("'tp'", "'a_tdata'")
    assert refusal(pool(extra=thin), lambda b: list(b.claims()), host)[0] == (
        "'a_tdata' cannot be the name of a thin pool: LVM keeps names with 'tdata' for itself"
    )


def test_what_a_pool_claims() -> None:
    backend = LogicalBackend(xmlmap.read(pool("/dev/vdb"), [LogicalPool]), script())
    assert list(backend.claims()) == ["group vg", "device /dev/vdb"]


# -- up and down ------------------------------------------------------------------------------------------------------


def rows() -> list[dict[str, str]]:
    return [
        lv("root"),
        lv("off", lv_active="", lv_kernel_major="-1"),
        lv("skipped", lv_active="", lv_skip_activation="skip activation"),
        lv("tp", lv_active="", segtype="thin-pool", lv_role="private"),
        lv("[tp_tdata]", lv_active="", lv_role="private,thin,pool,data", lv_parent="tp"),
    ]


def test_start_activates_what_is_not_active_and_takes_back_that_alone() -> None:
    assert transcript(pool(), lambda b: b.start(), script(lvs=rows())) == [LVS, "! vgchange --activate ly -- vg"]
    assert transcript(pool(), lambda b: b.start(), script(lvs=rows(), fail_at=1)) == [
        LVS,
        "! vgchange --activate ly -- vg",
        "< lvchange --yes --activate ln -- vg/off vg/tp",
        "error: 'vgchange' failed with status 5: injected",
    ]
    assert transcript(pool(), lambda b: b.start(), script(lvs=[lv("root")])) == [LVS]


def test_stop_deactivates_and_takes_that_back() -> None:
    up = [lv("a"), lv("off", lv_active=""), lv("tp", segtype="thin-pool", lv_role="private", lv_device_open="open")]
    assert transcript(pool(), lambda b: b.stop(), script(lvs=up, fail_at=1)) == [
        VGS,
        LVS,
        "! vgchange --activate ln -- vg",
        "< lvchange --yes --activate ly -- vg/a vg/tp",
        "error: 'vgchange' failed with status 5: injected",
    ]
    assert transcript(pool(), lambda b: b.stop(), script(vgs=report("vg"))) == [VGS]
    assert transcript(pool(), lambda b: b.stop(), script()) == [VGS, LVS]


def test_stop_names_what_is_open() -> None:
    host = script(lvs=[lv("a", lv_device_open="open"), lv("b"), lv("c", lv_device_open="open", lv_kernel_minor="7")])
    host.mount_table = [Mount(f"253:{n}", "/", f"/srv/{n}", "ext4", "/dev/dm", "rw") for n in (0, 1, 7)]
    assert refusal(pool(), lambda b: b.stop(), host)[0] == (
        "pool 'p' cannot be stopped: volume 'a' is mounted at '/srv/0'; volume 'c' is mounted at '/srv/7'"
    )


def test_binary_values_may_be_numbers() -> None:
    """``report/binary_values_as_numeric`` of lvm.conf."""
    used = script(lvs=[lv("v", lv_device_open="1", lv_skip_activation="0")])
    assert refusal(pool(), lambda b: b.stop(), used)[0] == "pool 'p' cannot be stopped: volume 'v' is open"
    assert refusal(pool(), lambda b: b.delete(info()), used)[0] == "volume 'v' cannot be deleted while it is in use"
    off = {"lv_active": "", "lv_device_open": "-1"}
    host = script(lvs=[lv("a", lv_skip_activation="1", **off), lv("b", lv_skip_activation="0", **off)], fail_at=1)
    assert any(line.endswith("vg/b") for line in transcript(pool(), lambda b: b.start(), host))


def test_state_asks_no_program_while_something_is_active(machine: Machine) -> None:
    def state(host: ScriptedHost) -> tuple[bool, str, list[str]]:
        backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
        found = backend.state()
        return found.up, found.why, host.lines

    active(machine, "control", "vg-a")
    assert state(script()) == (True, "", [])
    (machine.folder / "dev/mapper/vg-a").unlink()
    active(machine, "vg--a", "vg2-a", "vg--a-b")  # volumes of the groups 'vg2' and 'vg-a'
    assert state(script()) == (True, "", [VGS])
    assert state(script(vgs=report("vg"))) == (False, "there is no volume group 'vg'", [VGS])
    off = script(vgs=vg(count=1), lvs=[lv("a", lv_active="")])
    assert state(off) == (False, "no logical volume of the group 'vg' is active", [VGS, LVS])
    skipped = script(vgs=vg(count=1), lvs=[lv("a", lv_active="", lv_skip_activation="skip activation")])
    assert state(skipped)[0]


def test_two_groups_of_one_name_stop_only_the_pool_of_that_name() -> None:
    def rows(name: str) -> str:
        return report("vg", *vg("/dev/vdb"), *vg("/dev/vdc", name=name, uuid="U-2"), *vg(name=name, uuid="U-3"))

    other = script(vgs=rows("other"), lvs=[lv("a")])
    assert LogicalBackend(xmlmap.read(pool(), [LogicalPool]), other).group().devices == ("/dev/vdb",)
    assert [s.name for s in LogicalBackend.discover(other, None)] == ["vg", "other", "other"]
    said = "3 volume groups are named 'vg' (U-G and U-2 and U-3)"
    multiple = Answer("", 5, "  Multiple VGs found with the same name: skipping vg\n")
    for verb in (lambda b: b.group(), lambda b: b.stop(), lambda b: b.start(), lambda b: b.erase()):
        assert refusal(pool(), verb, script(vgs=rows("vg"), lvs=multiple))[0] == said
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script(vgs=rows("vg")))
    assert backend.state() == (False, True, False, said)


def test_delete_removes_group_and_labels() -> None:
    group = vg("/dev/vdb", "/dev/vdc", count=1)
    host = script(vgs=group, lvs=[lv("tp", segtype="thin-pool", lv_role="private")])
    assert transcript(pool(), lambda b: b.erase(), host) == [
        VGS,
        LVS,
        "! lvremove --yes -- vg/tp",
        "! vgremove -- vg",
        "! pvremove --yes -- /dev/vdb",
        "! pvremove --yes -- /dev/vdc",
    ]
    # Interrupted after vgremove: the labels of the definition's devices are left, and are removed.
    rest = [{"pv_name": "/dev/vdb", "vg_name": ""}, {"pv_name": "/dev/vdc", "vg_name": "theirs"}]
    host = script(vgs=report("vg"), pvs=rest)
    assert transcript(pool("/dev/vdb", "/dev/vdc"), lambda b: b.erase(), host) == [
        VGS,
        PVS,
        "! pvremove --yes -- /dev/vdb",
    ]
    host = script(lvs=[lv("a"), lv(TEMP), snapshot("snapped", "a")])
    assert refusal(pool(), lambda b: b.erase(), host) == (
        f"pool 'p': the volume group 'vg' has the volumes a, {TEMP}, snapped; nothing was deleted",
        "delete its volumes first; poolkit removes nothing that was not asked for by name",
    )


# -- listing ----------------------------------------------------------------------------------------------------------


def test_refresh_is_one_report() -> None:
    raid = {"lv_role": "private,raid,image", "lv_parent": "raid"}
    host = script(
        lvs=[
            lv("wide", lv_size=str(3 * EXTENT)),
            lv("wide", lv_size=str(3 * EXTENT), seg_pe_ranges="/dev/vdc:9-9"),
            lv("raid", segtype="raid1", seg_pe_ranges="raid_rimage_0:0-1 raid_rimage_1:0-1"),
            lv("[raid_rimage_0]", seg_pe_ranges="/dev/vdb:10-11", **raid),
            lv("[raid_rimage_1]", seg_pe_ranges="/dev/vdc:10-11", **raid),
            lv("[raid_rmeta_0]", seg_pe_ranges="/dev/vdb:12-12", **raid),
            snapshot("snap", "wide", str(3 * EXTENT), data_percent="100.00"),
            lv("tp", segtype="thin-pool", lv_role="private"),
            lv("thin", segtype="thin", seg_pe_ranges="", pool_lv="tp", data_percent="25.00"),
            snapshot("virtual", "[virtual_vorigin]", str(EXTENT)),
            lv("broken", lv_health_status="refresh needed"),
            lv(TEMP),
            lv("[lvol0_pmspare]", lv_role="private,pool,spare"),
        ]
    )
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
    found = {v.name: v for v in backend.volumes({})}
    assert host.lines == [LVS]
    assert tuple(backend.usage(())) == (200 * EXTENT, 100 * EXTENT, 100 * EXTENT)
    assert host.lines == [LVS]
    assert {n: (v.capacity // EXTENT, v.allocation / EXTENT) for n, v in found.items()} == {
        "wide": (3, 3),
        "raid": (2, 5),
        "snap": (3, 2),
        "thin": (2, 0.5),
        "virtual": (1, 2),
        "broken": (2, 2),
    }
    assert found["wide"].detail == {"extents": [["/dev/vdb", 0, 2 * EXTENT], ["/dev/vdc", 9 * EXTENT, 10 * EXTENT]]}
    assert found["snap"].detail is not None
    assert found["snap"].detail["backing"] == "/dev/vg/wide"
    assert found["snap"].detail["warning"] == "the room for its changes is full: the snapshot is lost"
    assert found["broken"].detail is not None
    assert found["broken"].detail["warning"] == "LVM reports its state as: refresh needed"
    assert "backing" not in (found["virtual"].detail or {})
    assert (found["wide"].key, found["wide"].path, found["wide"].type) == ("U-wide", "/dev/vg/wide", "block")


MISSING = "the physical volume PV-1 is missing"


def lost(*rows: dict[str, str], more: list[Any] | None = None) -> ScriptedHost:
    """A group whose second device is gone: ``more`` are the volumes after the first change."""
    return script(vgs=vg("/dev/vdb", "[unknown]"), lvs=[list(rows), *(more or [])])


def test_a_volume_without_a_device_says_which_one_is_missing() -> None:
    raid = {"segtype": "raid1", "lv_health_status": "partial", "seg_pe_ranges": "raid_rimage_0:0-1 raid_rimage_1:0-1"}
    host = lost(
        lv("sound"),
        lv("broken", lv_health_status="partial", lv_active="", seg_pe_ranges="[unknown]:0-1"),
        lv("raid", **raid),
    )
    found = {v.name: v for v in LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host).volumes({})}
    assert host.lines == [LVS, VGS]
    assert {name: v.problem for name, v in found.items()} == {
        "sound": "", "broken": f"{MISSING}, and the volume has data on it", "raid": "",
    }  # fmt: skip
    assert (found["raid"].detail or {})["warning"] == (
        "a device of it is missing: it has its data, and a copy less than it should have"
    )


def test_what_is_whole_of_a_group_that_lost_a_device_is_activated() -> None:
    down = {"lv_active": ""}
    half = {"lv_health_status": "partial", "seg_pe_ranges": "[unknown]:0-1", **down}
    whole, broken = lv("v", **down), lv("b", **half)
    host = lost(whole, broken, more=[[lv("v"), broken]])
    start = "vgchange --activate ly --activationmode degraded -- vg"
    lines = transcript(pool(), lambda b: b.start(), host)
    assert lines[:2] == [LVS, f"! {start}"]
    assert host.warnings == [f"pool 'p': {MISSING}; without it 'b' cannot be used; {lvmrefusals.CONNECT}"]


def test_a_whole_volume_that_was_not_activated_is_an_error() -> None:
    rows = [lv("v", lv_active=""), lv("b", lv_health_status="partial", lv_active="")]
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), lost(*rows, more=[rows]))
    with pytest.raises(errors.HostError, match=r"^pool 'p': 'v' could not be activated"):
        backend.start()


def test_a_group_of_which_nothing_is_whole_is_up() -> None:
    rows = vg("/dev/vdb", "[unknown]", count=1)
    host = script(vgs=rows, lvs=[lv("b", lv_health_status="partial", lv_active="")])
    assert LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host).state().up


def test_what_cannot_be_changed_without_a_device_names_it() -> None:
    said = Answer(
        "", 5, "  WARNING: Couldn't find device with uuid PV-1.\n  Cannot change VG vg while PVs are missing.\n"
    )
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script(lvcreate=said))
    with pytest.raises(errors.HostError) as caught:
        backend.create(volume())
    assert str(caught.value) == f"pool 'p': its volume group cannot be changed while {MISSING}"
    assert caught.value.hint == lvmrefusals.connect("vgreduce --removemissing vg")


def test_another_group_of_that_name_is_noticed() -> None:
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script(vgs=vg(uuid="A-B")))
    noted = backend.storage()
    assert noted == "AB"
    assert backend.changed_since("AB") == ""
    assert backend.changed_since("CD") == "another volume group has the name 'vg' now"


def test_what_is_filling_up_is_said_before_it_is_full() -> None:
    tp = {"segtype": "thin-pool", "lv_role": "private"}
    host = script(
        lvs=[
            snapshot("low", "o", data_percent="79.99"),
            snapshot("high", "o", data_percent="80.00"),
            lv("tp", data_percent="91.50", metadata_percent="12.00", **tp),
            lv("meta", data_percent="1.00", metadata_percent="80.00", **tp),
        ]
    )
    found = {v.name: v for v in LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host).volumes({})}
    assert "warning" not in (found["low"].detail or {})
    assert (found["high"].detail or {})["warning"] == (
        "the room for its changes is filled to 80 %: when it is full the snapshot is lost"
    )
    full = "writes to its volumes fail when nothing is left"
    assert host.warnings == [
        f"the space of the thin pool 'vg/tp' is filled to 91 %: {full}",
        f"the metadata of the thin pool 'vg/meta' is filled to 80 %: {full}",
    ]


def test_a_cached_volume_is_no_snapshot() -> None:
    for segtype, hidden in (("cache", "[v_corig]"), ("writecache", "[v_wcorig]")):
        cached = lv("v", segtype=segtype, origin=hidden, data_percent="100.00", seg_pe_ranges="v_corig:0-1")
        backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script(lvs=[cached]))
        (found,) = backend.volumes({})
        assert (found.capacity, found.allocation, found.detail) == (2 * EXTENT, 2 * EXTENT, None)
        lines = transcript(pool(), lambda b: b.resize(info(), 3 * EXTENT), script(lvs=[cached]))
        assert "! lvextend --yes --extents 3 -- vg/v" in lines


def test_a_snapshot_of_a_thin_volume_has_its_size() -> None:
    """Not that of the external origin it stands on, which may be smaller."""
    thin = lv("o", segtype="thin", seg_pe_ranges="", origin="ext", origin_size=str(EXTENT))
    wanted = volume(backingStore="<path>/dev/vg/o</path>")
    lines = transcript(pool(), lambda b: b.create(wanted), script(lvs=[[thin], [lv(TEMP)], [lv("v")]]))
    assert f"! lvcreate --yes --name {TEMP} --snapshot --setactivationskip n -- vg/o" in lines


@pytest.mark.parametrize(
    ("verb", "rows"),
    [
        (lambda b: b.create(volume()), [lv(TEMP)]),
        (lambda b: b.create(volume(backingStore="<path>/dev/vg/o</path>", allocation=1)), [lv("o"), lv(TEMP)]),
        (lambda b: b.delete(info()), [lv("v")]),
        (lambda b: b.resize(info(), 4 * EXTENT), [lv("v")]),
        (lambda b: b.resize(info(), EXTENT, shrink=True), [lv("v")]),
    ],
    ids=["create", "snapshot", "delete", "grow", "shrink"],
)
def test_sizes_are_asked_for_anew_after_each_change(
    verb: Callable[[LogicalBackend], object], rows: list[dict[str, str]]
) -> None:
    """Whatever was answered before: a snapshot and its origin, and all others, take their space from one group."""
    host = script(lvs=rows)
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
    backend.usage(())
    verb(backend)
    backend.usage(())
    changes = [at for at, line in enumerate(host.lines) if line.startswith("! ")]
    assert changes, host.lines
    assert VGS in host.lines[changes[-1] + 1 :], host.lines


def test_an_empty_group_has_sizes_too() -> None:
    host = script()
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
    assert list(backend.volumes({})) == []
    assert tuple(backend.usage(())) == (200 * EXTENT, 100 * EXTENT, 100 * EXTENT)
    assert host.lines == [LVS, VGS]


def test_what_is_gone_is_said() -> None:
    gone = Answer(report("lv"), 5, '  Volume group "vg" not found\n  Cannot process volume group vg\n')
    assert refusal(pool(), lambda b: list(b.volumes({})), script(lvs=gone)) == (
        "pool 'p': there is no volume group 'vg'",
        "connect its devices; only if there never was one: engine.pool('p').build()",
    )
    absent = Answer(report("lv"), 5, '  Failed to find logical volume "vg/v"\n')
    assert refusal(pool(), lambda b: b.look("v", None), script(lvs=absent))[0] == "pool 'p' has no volume 'v'"
    assert refusal(pool(), lambda b: b.look("a_tmeta", None), script())[0] == "pool 'p' has no volume 'a_tmeta'"
    assert refusal(pool(), lambda b: b.look("v", None), script(lvs="no JSON"))[0] == (
        "'lvs' answered something that is no report: 'no JSON'"
    )


def test_what_lvm_says_amid_a_report_is_no_part_of_it() -> None:
    host = ScriptedHost({"lvs": '  {\n    "report": [\n  Retrying metadata scan.\n      {"lv": []}\n    ]\n  }\n'})
    assert lvm.report(host, "lvs", ("lv_name",)) == []


def test_discovery_and_the_live_definition() -> None:
    host = script(vgs=[*vg("/dev/vdb", "[unknown]"), *vg("/dev/vdd", name="other", uuid="U-2")])
    sources = list(LogicalBackend.discover(host, None))
    assert [(s.name, s.format, [d.path for d in s.devices]) for s in sources] == [
        ("vg", "lvm2", ["/dev/vdb"]),
        ("other", "lvm2", ["/dev/vdd"]),
    ]
    live = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host).live()
    assert [d.path for d in live.source.devices] == ["/dev/vdb"]


# -- volumes ----------------------------------------------------------------------------------------------------------

LINEAR = f"! lvcreate --yes --name {TEMP} --zero y --wipesignatures y --extents 2 -- vg"
THINS = selected('segtype="thin-pool"')


def test_create_gives_the_name_last() -> None:
    made: list[VolumeInfo] = []
    host = script(lvs=[lv(TEMP)])
    lines = transcript(pool(), lambda b: made.append(b.create(volume())), host)
    assert lines == [VGS, LINEAR, LOOKTEMP, f"{RENAME}v"]
    assert (made[0].name, made[0].path, made[0].key, made[0].capacity) == ("v", "/dev/vg/v", f"U-{TEMP}", 2 * EXTENT)


@pytest.mark.parametrize(("step", "undone"), [(1, [UNTEMP]), (2, [UNNEW, UNTEMP])])
def test_every_failing_step_of_create_is_taken_back(step: int, undone: list[str]) -> None:
    lines = transcript(pool(), lambda b: b.create(volume()), script(lvs=[lv(TEMP)], fail_at=step))
    assert [line for line in lines if line.startswith("<")] == undone


@pytest.mark.parametrize(
    ("wanted", "options", "words"),
    [
        (volume(capacity=1), {}, "--zero y --wipesignatures y --extents 1 -- vg"),
        (volume(), {"stripes": 2}, "--zero y --wipesignatures y --extents 2 --type striped --stripes 2 -- vg"),
        (
            volume(),
            {"stripes": 2, "mirrors": 1},
            "--zero y --wipesignatures y --extents 2 --type raid10 --stripes 2 --mirrors 1 -- vg",
        ),
        (volume(), {"mirrors": 1}, "--zero y --wipesignatures y --extents 2 --type raid1 --mirrors 1 -- vg"),
        (volume(allocation=0), {}, f"--type thin --virtualsize {2 * EXTENT}b --thinpool tp -- vg"),
    ],
)
def test_layouts(wanted: Volume, options: dict[str, int], words: str) -> None:
    tp = lv("tp", segtype="thin-pool", lv_role="private")
    host = script(**{"lvs": [lv(TEMP)], f"{THINS[2:]}": "x"})
    host.answers[THINS[2:]] = report("lv", tp)
    lines = transcript(pool(), lambda b: b.create(wanted, **options), host)
    assert f"! lvcreate --yes --name {TEMP} {words}" in lines


def test_snapshots_are_of_volumes_of_the_group() -> None:
    below = "<path>/dev/vg/origin</path>"
    for origin, words in (
        (lv("origin"), "--snapshot --extents 1 -- vg/origin"),
        (lv("origin", segtype="thin", seg_pe_ranges=""), "--snapshot --setactivationskip n -- vg/origin"),
    ):
        host = script(lvs=[[origin], [lv(TEMP)], [lv("v")]])
        lines = transcript(pool(), lambda b: b.create(volume(backingStore=below, allocation=1)), host)
        assert f"! lvcreate --yes --name {TEMP} {words}" in lines, lines
    other = volume(backingStore="<path>/dev/other/origin</path>")
    assert refusal(pool(), lambda b: b.create(other), script()) == (
        "the backing store '/dev/other/origin' is not in the group 'vg', so no snapshot of it can be made",
        "snapshots are of /dev/vg/NAME",
    )
    large = volume(capacity=9 * EXTENT, backingStore=below)
    assert refusal(pool(), lambda b: b.create(large), script(lvs=[lv("origin")]))[0] == (
        f"volume 'v' would be a snapshot of 'origin', so it has its {2 * EXTENT} bytes"
    )
    chained = script(lvs=[snapshot("origin", "x")])
    assert refusal(pool(), lambda b: b.create(volume(capacity=1, backingStore=below)), chained)[0] == (
        "'origin' is a snapshot itself, and LVM makes none of those"
    )


def test_what_create_refuses() -> None:
    def refused(wanted: Volume, xml: str = "", **answers: Any) -> tuple[str, str | None]:
        return refusal(xml or pool(), lambda b: b.create(wanted), script(**answers))

    assert refused(volume(capacity=0)) == ("volume 'v' needs a capacity", None)
    assert refused(volume(capacity=101 * EXTENT)) == (
        f"pool 'p': volume 'v' needs {101 * EXTENT} bytes, and {100 * EXTENT} are free",
        None,
    )
    assert refused(volume("a_rmeta_1")) == (
        "'a_rmeta_1' cannot be the name of a logical volume: LVM keeps names with 'rmeta' for itself",
        None,
    )
    assert refused(volume("v" * 125))[0].endswith("it together are 128 characters long, and 127 is the most")
    assert refused(volume(target="<format type='qcow2'/>")) == (
        "volume 'v': logical volumes are raw, not qcow2",
        None,
    )
    less = volume(allocation=0)
    assert refused(less) == (
        "volume 'v' has less allocation than capacity, and the group 'vg' has no thin pool",
        "leave the allocation out to reserve all space, or name a thin pool in the definition and build it",
    )
    two = [lv(name, segtype="thin-pool", lv_role="private") for name in ("one", "two")]
    assert refused(less, lvs=two) == (
        "volume 'v' has less allocation than capacity, and the group 'vg' has several thin pools, one, two",
        "name one in the pool's definition: <pk:thin_pool name='…'/>",
    )
    assert refused(less, pool(extra=THIN), lvs=two) == (
        "volume 'v' has less allocation than capacity, and the group 'vg' has no thin pool 'tp'",
        "make it: engine.pool('p').build()",
    )


def test_lvms_own_refusals_are_told_apart() -> None:
    full = Answer("", 5, '  Volume group "vg" has insufficient free space (1 extents): 2 required.\n')
    taken = Answer("", 5, '  Logical Volume "v" already exists in volume group "vg"\n')
    for tool, answer, kind, said in (
        ("lvcreate", full, errors.NoSpace, 'Volume group "vg" has insufficient free space (1 extents): 2 required'),
        ("lvrename", taken, errors.VolumeExists, "pool 'p' has a volume 'v' already"),
    ):
        host = script(**{"lvs": [lv(TEMP)], tool: answer})
        backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
        with pytest.raises(kind) as caught:
            backend.create(volume())
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("version", "target", "what", "module"),
    [
        ("(unknown version)", "striped", "", "dm_mod"), ("4.48.0 (2023-03-01)", "striped", " for 'striped'", "dm_striped"),
        ("4.48.0", "thin-pool", " for 'thin-pool'", "dm_thin_pool"), ("4.48.0", "raid1", " for 'raid1'", "dm_raid"),
    ],
)  # fmt: skip
def test_a_kernel_without_device_mapper(version: str, target: str, what: str, module: str) -> None:
    said = (
        f"  Incompatible libdevmapper 1.02.185 (2022-05-18) and kernel driver {version}.\n"
        f"  {target}: Required device-mapper target(s) not detected in your kernel.\n"
        "  Run `lvcreate --help' for more information.\n"
    )
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script(lvcreate=Answer("", 3, said)))
    with pytest.raises(errors.HostError) as caught:
        backend.create(volume())
    assert str(caught.value) == f"pool 'p': the kernel has no device mapper{what}"
    assert caught.value.hint == f"load it: modprobe {module}"


def test_resize_in_whole_extents() -> None:
    host = script(lvs=[lv("v")])
    lines = transcript(pool(), lambda b: b.resize(info(), 2 * EXTENT + 1), host)
    assert lines[1:3] == [VGS, "! lvextend --yes --extents 3 -- vg/v"]
    lines = transcript(pool(), lambda b: b.resize(info(), EXTENT, shrink=True), script(lvs=[lv("v")]))
    assert lines[-2] == "! lvreduce --force --yes --extents 1 -- vg/v"
    new = {"lvs": [lv("v")], "lvreduce --version": "  LVM version:     2.03.23(2) (2023-11-21)\n"}
    lines = transcript(pool(), lambda b: b.resize(info(), EXTENT, shrink=True), script(**new))
    assert lines[-2] == "! lvreduce --force --fs ignore --yes --extents 1 -- vg/v"
    host = script(lvs=[lv("v")])
    assert "!" not in "".join(transcript(pool(), lambda b: b.resize(info(), 2 * EXTENT), host))
    assert LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script()).rounded(1) == EXTENT


def test_what_resize_and_delete_refuse() -> None:
    origin = [lv("v", lv_role="public,origin,thickorigin"), snapshot("s", "v")]
    for verb, word, way in (
        (lambda b: b.resize(info(), 9 * EXTENT), "resized", "lvchange -an vg/v, or "),
        (lambda b: b.resize(info(), EXTENT, shrink=True), "resized", ""),
        (lambda b: b.delete(info()), "deleted", ""),
    ):
        assert refusal(pool(), verb, script(lvs=origin)) == (
            f"volume 'v' cannot be {word}: the volume 's' stands on it",
            f"{way}delete its snapshots first",
        )
    for role in ("public,origin,extthinorigin", "public,origin,multiextthinorigin"):
        external = [lv("v", lv_role=role), *(lv(n, origin="v", segtype="thin", pool_lv="tp") for n in "ab")]
        assert refusal(pool(), verb, script(lvs=external)) == (
            "volume 'v' cannot be deleted: the volumes 'a' and 'b' stand on it",
            "delete those that are based on it first",
        )
    opened = script(lvs=[lv("v", lv_device_open="open")])
    assert refusal(pool(), lambda b: b.delete(info()), opened)[0] == ("volume 'v' cannot be deleted while it is in use")
    assert refusal(pool(), lambda b: b.resize(info(), EXTENT, shrink=True), opened)[0] == (
        "volume 'v' cannot be made smaller while it is in use"
    )
    snapped = script(lvs=[snapshot("v", "o")])
    assert refusal(pool(), lambda b: b.resize(info(), EXTENT), snapped) == (
        "volume 'v' is a snapshot: it has the size of 'o'",
        "for room for its changes give the size it has and allocate=True, or: lvextend -L +SIZE vg/v",
    )
    thin = script(lvs=[lv("v", segtype="thin", seg_pe_ranges="")])
    assert refusal(pool(), lambda b: b.resize(info(), 9 * EXTENT, allocate=True), thin)[0] == (
        "volume 'v' is thin: its space comes as it is written"
    )
    replaced = script(lvs=[lv("v", lv_uuid="another")])
    assert refusal(pool(), lambda b: b.delete(info()), replaced) == (
        "'/dev/vg/v' was replaced since it was listed; it was left alone",
        "list it anew: engine.pool('p').refresh()",
    )


def test_the_origin_of_snapshots_grows_while_it_is_inactive() -> None:
    origin = [lv("v", lv_role="public,origin,thickorigin", lv_active=""), snapshot("s", "v", lv_active="")]
    lines = transcript(pool(), lambda b: b.resize(info(), 3 * EXTENT), script(lvs=origin))
    assert "! lvextend --yes --extents 3 -- vg/v" in lines
    assert (
        "the volume 's' stands on it"
        in refusal(pool(), lambda b: b.resize(info(), EXTENT, shrink=True), script(lvs=origin))[0]
    )
    external = [lv("v", lv_role="public,origin,extthinorigin", lv_active=""), lv("t", origin="v", pool_lv="tp")]
    assert (
        "the volume 't' stands on it"
        in refusal(pool(), lambda b: b.resize(info(), 3 * EXTENT), script(lvs=external))[0]
    )


def test_a_snapshot_gets_room_for_every_change() -> None:
    snap = [snapshot("v", "o", str(256 * EXTENT))]
    same = Answer("", 5, "  New size (2 extents) matches existing size (2 extents).\n")
    for answers in ({}, {"lvextend": same}):
        host = script(lvs=snap, **answers)
        lines = transcript(pool(), lambda b: b.resize(info(), 256 * EXTENT, allocate=True), host)
        assert lines[-2] == "! lvextend --yes --extents 259 -- vg/v"


def test_delete_is_bound_to_the_volume_that_was_listed() -> None:
    lines = transcript(pool(), lambda b: b.delete(info()), script(lvs=[lv("v")]))
    assert lines[-1] == "! lvremove --yes --select 'lv_uuid=\"U-v\"' -- vg/v"


def test_a_volume_without_a_device_says_how_to_get_one() -> None:
    for verb in (lambda b: b.wipe(info()), lambda b: b.download(info(), None, Transfer())):
        assert refusal(pool(), verb, script(lvs=[lv("v", lv_active="")])) == (
            "volume 'v' is not active, so it has no device",
            "activate it: lvchange -ay -K vg/v",
        )


# -- clones -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was copied onto which device: (name, blank[, secret]). An exception in it is raised instead."""
    done: list[Any] = []

    def fill(
        self: LogicalBackend, fd: int, source: Source, *, blank: bool = False, secret: bytes | None = None
    ) -> None:
        if done and isinstance(done[0], Exception):
            raise done[0]
        done.append((source.info.name, blank, *([secret] if secret else [])))

    monkeypatch.setattr(LogicalBackend, "fill", fill)
    monkeypatch.setattr(LogicalBackend, "open_volume", lambda self, info, write=False: contextlib.nullcontext(99))
    return done


def source(name: str = "o", xml: str = "", capacity: int = 2 * EXTENT) -> Source:
    return Source(xmlmap.read(xml or pool(), [LogicalPool]), info(name, capacity=capacity), f"/dev/vg/{name}", None)


ELSEWHERE = "<pool type='logical'><name>e</name><source><name>elsewhere</name></source></pool>"


def test_a_clone_is_copied_before_it_has_its_name(copied: list[Any]) -> None:
    host = script(lvs=[[lv("o")], [], [lv(TEMP)], [lv("v")]])
    lines = transcript(pool(), lambda b: b.clone(volume(), source()), host)
    assert [line for line in lines if line[0] == "!"] == [LINEAR, f"{RENAME}v"]
    assert copied == [("o", False)]


def test_the_secret_of_an_encrypted_source_reaches_the_copy(copied: list[Any]) -> None:
    host = script(lvs=[[], [lv(TEMP)], [lv("v")]])
    transcript(pool(), lambda b: b.clone(volume(), source(xml=ELSEWHERE), secret=b"key"), host)
    assert copied == [("o", False, b"key")]


def test_a_copy_that_fails_is_taken_back(copied: list[Any]) -> None:
    copied.append(errors.HostError("the disk is bad"))
    host = script(lvs=[[lv("o")], [], [lv(TEMP)]])
    lines = transcript(pool(), lambda b: b.clone(volume(), source()), host)
    assert lines[-2:] == [UNTEMP, "error: the disk is bad"]


def test_thin_volumes_share_their_blocks_with_their_clones(copied: list[Any]) -> None:
    thin = lv("o", segtype="thin", seg_pe_ranges="")
    host = script(lvs=[[thin], [lv(TEMP)], [lv("v")]])
    lines = transcript(pool(), lambda b: b.clone(volume(allocation=0), source()), host)
    assert f"! lvcreate --yes --name {TEMP} --snapshot --setactivationskip n -- vg/o" in lines
    assert copied == []
    # Told not to share, or to reserve all space: a copy, and what a thin volume never held reads as zeros.
    tp = [lv("tp", segtype="thin-pool", lv_role="private")]
    host = script(lvs=[tp, [], tp, [lv(TEMP)], [lv("v")]])
    for zero, blank in (("zero", True), ("1", True), ("", False), ("0", False), ("-1", False)):
        copied.clear()
        new = lv(TEMP, segtype="thin", zero=zero)
        host.answers["lvs"] = [report("lv", *r) for r in (tp, tp, [new], [lv("v")])]
        host.answers[selected('lv_name="v"')[2:]] = report("lv")
        host.lines.clear()
        lines = transcript(pool(), lambda b: b.clone(volume(allocation=0), source(), reflink=False), host)
        assert f"! lvcreate --yes --name {TEMP} --type thin --virtualsize {2 * EXTENT}b --thinpool tp -- vg" in lines
        assert copied == [("o", blank)]


def test_a_linked_clone_is_a_snapshot(copied: list[Any]) -> None:
    host = script(lvs=[[lv("o")], [lv(TEMP)], [lv("v")]])
    lines = transcript(pool(), lambda b: b.clone(volume(), source(), linked=True), host)
    assert f"! lvcreate --yes --name {TEMP} --snapshot --extents 2 -- vg/o" in lines
    assert copied == []


def test_a_sparse_source_is_copied_in_full_without_a_thin_pool(copied: list[Any]) -> None:
    host = script(lvs=[[], [], [lv(TEMP)], [lv("v")]])
    lines = transcript(pool(), lambda b: b.clone(volume(allocation=0), source(xml=ELSEWHERE)), host)
    assert LINEAR in lines
    assert copied == [("o", False)]


def test_what_clone_refuses(copied: list[Any]) -> None:
    def refused(wanted: Volume, made_of: Source, **options: Any) -> str:
        return refusal(pool(), lambda b: b.clone(wanted, made_of, **options), script(lvs=[lv("o")]))[0]

    assert refused(volume(capacity=1), source()) == (
        f"volume 'v' would have 1 bytes, and volume 'o' of pool 'p' has {2 * EXTENT}"
    )
    assert refused(volume(), source(xml=ELSEWHERE), linked=True) == (
        "volume 'o' of pool 'e' is not in the group 'vg', so no snapshot of it can be made there"
    )
    assert refused(volume(), source(), reflink=True) == (
        "volume 'o' of pool 'p' and a copy of it in 'vg' cannot share blocks"
    )
    assert refused(volume(), source()) == "pool 'p' has a volume 'v' already"
    assert copied == []


def test_options_of_other_pool_types_are_refused_in_words() -> None:
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), script())
    for verb in ("create", "clone"):
        with pytest.raises(errors.Unsupported) as caught:
            backend.require_options(verb, {"preallocation": "full"})
        assert str(caught.value) == f"pool 'p': {verb} does not know 'preallocation' in pools of type 'logical'"


def test_a_dry_run_changes_nothing_and_tells_all() -> None:
    host = Host(dry_run=True)
    answers = script()

    def query(argv: list[str], **how: Any) -> Any:
        return answers.query(argv, **how)

    host.query = query  # type: ignore[method-assign]
    backend = LogicalBackend(xmlmap.read(pool(), [LogicalPool]), host)
    made = backend.create(volume())
    assert made.path == "/dev/vg/v"
    assert [str(step) for step in host.plan] == [LINEAR[2:], f"{RENAME[2:]}v"]
