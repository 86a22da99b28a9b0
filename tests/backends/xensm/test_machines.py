"""Disks of xensm pools in virtual machines, and as files that others take: VHDs and gzipped tars."""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.cli import main
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.families.xapi.client import Api
from tests.backends.deaths import deaths
from tests.backends.deaths import failures as failing
from tests.sweep import Sampled

from . import MIB, PEER, started, volume_of

pytestmark = [PEER, pytest.mark.tools("qemu-img")]


@pytest.fixture
def pool(engine: Engine, xapi: Any) -> Pool:
    return started(engine, xapi)


@pytest.fixture
def disk(pool: Pool) -> Volume:
    return pool.create_volume(volume_of("disk"))


def vbds(api: Api) -> list[dict[str, Any]]:
    return list(api.call("VBD.get_all_records").values())


# -- machines -------------------------------------------------------------------------------------------------------------


def test_a_disk_is_plugged_into_a_machine_and_taken_again(xapi: Any, api: Api, pool: Pool, disk: Volume) -> None:
    machine = xapi.control("machine", name="guest")
    assert disk.attach(vm="guest") and not disk.attach(vm=machine)
    (vbd,) = vbds(api)
    assert vbd["currently_attached"] and vbd["mode"] == "RW"
    assert disk.info.detail == {"connections": [vbd["uuid"]], "plugged": [vbd["uuid"]]}
    pool.refresh()
    assert pool.volume("disk").info == disk.info, "the listing says the same"
    with pytest.raises(errors.Busy, match="VDI_IN_USE"):
        disk.delete()
    assert disk.detach(vm="guest") and not disk.detach() and vbds(api) == []
    disk.delete()


def test_a_disk_is_in_one_machine_unless_it_is_shared(xapi: Any, api: Api, pool: Pool, disk: Volume) -> None:
    for name in ("one", "two"):
        xapi.control("machine", name=name)
    disk.attach(vm="one")
    with pytest.raises(errors.Busy, match="attached to machine 'one'"):
        disk.attach(vm="two")
    with pytest.raises(errors.Busy, match="VDI_IN_USE"):
        disk.attach(vm="two", shared=True)  # which the disk itself is not
    assert len(vbds(api)) == 1, "what could not be plugged was taken back"
    snapshot = disk.clone("disk@one", linked=True)
    snapshot.attach(vm="one")
    snapshot.attach(vm="two", shared=True)
    assert [vbd["mode"] for vbd in vbds(api)].count("RO") == 2
    assert snapshot.detach()
    assert len(vbds(api)) == 1


def test_a_machine_that_takes_no_disk(xapi: Any, api: Api, disk: Volume) -> None:
    xapi.control("machine", name="windows", kind="hvm")
    xapi.control("machine", name="windows", kind="hvm")
    with pytest.raises(errors.InvalidArgument, match="2 machines"):
        disk.attach(vm="windows")
    with pytest.raises(errors.Unsupported, match="without drivers for Xen"):
        disk.attach(vm=xapi.control("machine", name="third", kind="hvm"))
    with pytest.raises(errors.NotFound, match="no machine 'nobody'"):
        disk.attach(vm="nobody")
    with pytest.raises(errors.Unsupported, match="not poolkit's nodes"):
        disk.attach(node="n2")
    assert vbds(api) == []
    outcome = disk.attach(vm=xapi.control("machine", name="asleep", running=False))
    assert outcome and "when it is started" in str(outcome.warnings)
    assert disk.detach(vm="asleep") and vbds(api) == []


def test_without_a_machine_the_path_says_what_the_disk_is(api: Api, disk: Volume) -> None:
    outcome = disk.attach()
    assert not outcome and disk.path in str(outcome) and disk.path.endswith(str(disk.key))


def test_what_others_attached_is_taken_only_by_name(xapi: Any, api: Api, disk: Volume) -> None:
    vm = api.call("VM.get_by_uuid", xapi.control("machine"))
    vbd = {"VM": vm, "VDI": api.call("VDI.get_by_uuid", disk.key), "userdevice": "0", "bootable": False, "mode": "RW"}
    vbd |= {"type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    api.call("VBD.plug", api.call("VBD.create", vbd))
    assert not disk.detach() and len(vbds(api)) == 1
    assert disk.detach(vm="guest") and vbds(api) == []


def test_a_machine_that_lets_go_late(xapi: Any, api: Api, disk: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    xapi.control("machine")
    disk.attach(vm="guest")
    xapi.fault("VBD.unplug", "fail", failure=["DEVICE_DETACH_REJECTED", "VBD", "x", "busy"], times=1)
    assert disk.detach() and vbds(api) == []
    disk.attach(vm="guest")
    monkeypatch.setattr("poolkit.families.xapi.client.PATIENCE", 0.0)
    xapi.fault("VBD.unplug", "fail", failure=["DEVICE_DETACH_REJECTED", "VBD", "x", "busy"])
    with pytest.raises(errors.Busy, match="DEVICE_DETACH_REJECTED"):
        disk.detach()
    assert disk.detach(force=True) and vbds(api) == []
    xapi.control("clear")


@pytest.mark.parametrize("how", [deaths, failing], ids=["killed", "failing"])
def test_an_interrupted_attach_leaves_nothing(
    xapi: Any, api: Api, disk: Volume, root: Path, sampled: Sampled[int], how: Any
) -> None:
    xapi.control("machine")
    for again in how(root, lambda e: e.pool("xen").volume("disk").attach(vm="guest"), sampled):
        assert again.not_undone() == []
        there = again.pool("xen").volume("disk").look()
        assert all(vbd["currently_attached"] for vbd in vbds(api)), "half of it is left"
        assert how is deaths or vbds(api) == []
        there.detach()
        assert vbds(api) == []
    assert len(vbds(api)) == 1


# -- files ----------------------------------------------------------------------------------------------------------------


def test_a_disk_goes_out_and_comes_in_as_a_vhd(pool: Pool, disk: Volume, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    disk.upload(BytesIO(data), offset=MIB)
    out = tmp_path / "disk.vhd"
    with out.open("wb") as file:
        count = disk.download(file, form="vhd")
    assert count == out.stat().st_size < 4 * MIB
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", out, raw], check=True)
    assert raw.read_bytes() == bytes(MIB) + data + bytes(6 * MIB)
    other = pool.create_volume(volume_of("other"))
    with out.open("rb") as file:
        other.upload(file, form="vhd")
    back = BytesIO()
    other.download(back)
    assert back.getvalue() == raw.read_bytes()
    fixed = tmp_path / "fixed.vhd"
    options = "subformat=fixed,force_size=on"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", options, raw, fixed], check=True)
    with pytest.raises(errors.InvalidArgument, match="no VHD of the dynamic kind"):
        other.upload(BytesIO(fixed.read_bytes()), form="vhd")


def test_a_disk_goes_out_and_comes_in_as_a_tar(pool: Pool, disk: Volume, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    disk.upload(BytesIO(data))
    out = tmp_path / "disk.tgz"
    with out.open("wb") as file:
        count = disk.download(file, form="tar")
    assert count == out.stat().st_size < 2 * MIB
    with tarfile.open(out, "r:gz") as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert member.name == "disk.raw" and content is not None and content.read() == data + bytes(7 * MIB)
    other = pool.create_volume(volume_of("other", 12 * MIB))
    other.upload(BytesIO(b"old" * MIB))
    with out.open("rb") as file:
        other.upload(file, form="tar")
    back = BytesIO()
    other.download(back)
    assert back.getvalue() == data + bytes(11 * MIB), "what the archive does not have reads as zeros"


def tar_of(size: int, **how: Any) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("x.raw")
        member.size = size
        for key, value in how.items():
            setattr(member, key, value)
        tar.addfile(member, BytesIO(bytes(size)))
    return out.getvalue()


BAD: dict[str, tuple[str, bytes, str]] = {
    "no VHD": ("vhd", b"x" * 4096, "it is no VHD"),
    "a short VHD": ("vhd", b"conectix", "it is no VHD"),
    "a differencing VHD": ("vhd", b"conectix" + bytes(52) + b"\0\0\0\4" + bytes(448), "stands on another image"),
    "a large VHD": (
        "vhd", b"conectix" + bytes(40) + (9 * MIB).to_bytes(8, "big") + bytes(4) + b"\0\0\0\3" + bytes(448), "has 8388608",
    ),
    "no tar": ("tar", b"x" * 4096, "no gzipped tar"),
    "half a tar": ("tar", tar_of(4 * MIB)[:200], "no gzipped tar"),
    "a tar of a header": ("tar", tar_of(8 * MIB, type=tarfile.XHDTYPE), "no file begins in its first"),
    "a large tar": ("tar", tar_of(9 * MIB), "has 9437184 bytes"),
    "a tar of a link": ("tar", tar_of(0, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "does not begin with a plain file"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_is_no_such_file_is_refused(pool: Pool, disk: Volume, bad: str) -> None:
    form, data, said = BAD[bad]
    with pytest.raises(errors.InvalidArgument, match=said):
        disk.upload(BytesIO(data), form=form)


def test_forms_are_whole_and_of_this_type(engine: Engine, pool: Pool, disk: Volume, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="no form of a disk"):
        disk.download(BytesIO(), form="zip")
    with pytest.raises(errors.InvalidArgument, match="has the whole disk"):
        disk.upload(BytesIO(), form="vhd", offset=1)
    (tmp_path / "files").mkdir()
    files = engine.define(f"<pool type='dir'><name>f</name><target><path>{tmp_path}/files</path></target></pool>")
    files.start()
    plain = files.create_volume(volume_of("plain"))
    for verb in (plain.upload, plain.download):
        with pytest.raises(errors.Unsupported, match="does not know 'form'"):
            verb(BytesIO(), form="vhd")


def test_the_commands_do_the_same(
    xapi: Any, api: Api, disk: Volume, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xapi.control("machine")
    data = os.urandom(MIB)
    (tmp_path / "data").write_bytes(data)
    for line, said in (
        (["vol-upload", "disk", f"{tmp_path}/data"], "uploaded"),
        (["vol-download", "disk", f"{tmp_path}/x.tgz", "--form", "tar"], "are in"),
        (["vol-download", "disk", f"{tmp_path}/x.vhd", "--form", "vhd"], "are in"),
        (["vol-upload", "disk", f"{tmp_path}/x.vhd", "--form", "vhd"], "uploaded"),
        (["vol-attach", "disk", "--vm", "guest"], "attached to guest"),
        (["vol-detach", "disk", "--vm", "guest"], "detached from guest"),
    ):
        assert main(["--root", str(root), *line, "--pool", "xen"]) == 0
        assert said in capsys.readouterr().out
    out = BytesIO()
    disk.look().download(out)
    assert out.getvalue() == data + bytes(7 * MIB)
