"""Pools of type xensm: repositories that exist or are made, their disks, and what the hosts refuse."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families.xapi import naming, srtypes
from poolkit.families.xapi.client import Api
from tests import leaks

from . import MIB, PEER, files, pool_of, started, volume_of

pytestmark = [PEER, pytest.mark.tools("qemu-img")]
NFS = {"server": "nas", "serverpath": "/export"}


def content(volume: Any, **how: int) -> bytes:
    out = BytesIO()
    volume.download(out, **how)
    return out.getvalue()


def names(pool: Pool) -> list[str]:
    pool.refresh()
    return sorted(volume.name for volume in pool.volumes())


def make_sr(api: Api, label: str = "theirs", type: str = "nfs", config: Any = None, *, shared: bool = True) -> str:
    """An SR that somebody else made; its uuid."""
    host = next(iter(api.call("pool.get_all_records").values()))["master"]
    sr = api.call("SR.create", host, NFS if config is None else config, "0", label, "", type, "user", shared, {})
    return str(api.call("SR.get_uuid", sr))


def make_vdi(api: Api, sr: str, label: str, size: int = 4 * MIB, **more: Any) -> str:
    record = {"name_label": label, "name_description": "", "SR": api.call("SR.get_by_uuid", sr), "virtual_size": size}
    more = {"type": "user", "sharable": False, "read_only": False, "other_config": {}, **more}
    return str(api.call("VDI.get_uuid", api.call("VDI.create", {**record, **more})))


def plugged(api: Api) -> list[bool]:
    return [pbd["currently_attached"] for pbd in api.call("PBD.get_all_records").values()]


# -- which repository -----------------------------------------------------------------------------------------------------


def test_a_repository_that_is_named_is_used_and_left_as_it_was(engine: Engine, xapi: Any, api: Api) -> None:
    sr = make_sr(api)
    disk = make_vdi(api, sr, "a disk")
    pool = engine.define(pool_of(xapi, config={}, more="<name>theirs</name>"))
    assert not pool.build(), "it is there already"
    pool.start()
    assert pool.volume("a disk").key == disk and pool.volume("a disk").path == f"{sr}/{disk}"
    pool.destroy()
    pool.undefine()
    assert plugged(api) == [True, True] and api.call("SR.get_by_uuid", sr)


def test_a_repository_that_is_not_known_is_introduced_and_forgotten_again(engine: Engine, xapi: Any, api: Api) -> None:
    sr = make_sr(api)
    ref = api.call("SR.get_by_uuid", sr)
    make_vdi(api, sr, "lost with the record")
    for pbd in api.call("SR.get_PBDs", ref):
        api.call("PBD.unplug", pbd)
    api.call("SR.forget", ref)
    pool = engine.define(pool_of(xapi, sr=f"uuid='{sr}'"))
    pool.start()
    record = api.call("SR.get_record", api.call("SR.get_by_uuid", sr))
    assert record["name_label"] == "xen" and len(record["PBDs"]) == 2 and plugged(api) == [True, True]
    assert len(names(pool)) == 1
    pool.create_volume(volume_of("new"))
    pool.destroy()
    assert plugged(api) == [False, False]
    pool.start()
    assert "new" in names(pool), "a pool that is only stopped loses no names"
    pool.destroy()
    pool.undefine()
    assert api.call("SR.get_all") == []
    pool = engine.define(pool_of(xapi, sr=f"uuid='{sr}'"))
    pool.start()
    assert len(names(pool)) == 2, "the data stays"


def test_undefine_goes_on_without_the_hosts(engine: Engine, xapi: Any, api: Api) -> None:
    sr = make_sr(api)
    pool = engine.define(pool_of(xapi, sr=f"uuid='{sr}'"))
    xapi.fault("session.login_with_password", "http")
    outcome = pool.undefine()
    assert "something of it is left elsewhere" in str(outcome.warnings)
    xapi.control("clear")


@pytest.mark.parametrize("filter", ["default-sr:true", "other-config:i18n-key=local-storage"])
def test_a_repository_is_found_by_what_the_guide_matches(engine: Engine, xapi: Any, api: Api, filter: str) -> None:
    make_sr(api, "another", "ext", {"device": "/dev/sdz"}, shared=False)
    sr = make_sr(api, "Local storage", "ext", {"device": "/dev/sda3"}, shared=False)
    ref = api.call("SR.get_by_uuid", sr)
    pool = engine.define(pool_of(xapi, "ext", {}, sr=f"filter='{filter}'"))
    with pytest.raises(errors.NotFound, match="know no repository") as caught:
        pool.start()
    assert "Local storage" in str(caught.value.hint)
    api.call("pool.set_default_SR", api.call("pool.get_all")[0], ref)
    api.call("SR.add_to_other_config", ref, "i18n-key", "local-storage")
    pool.start()
    assert pool.create_volume(volume_of("disk")).path.startswith(sr)
    pool.destroy()
    with pytest.raises(errors.Unsafe, match="filter"):
        pool.delete()
    with pytest.raises(errors.Unsupported, match="filter"):
        pool.build()


def test_the_host_tells_local_repositories_apart(engine: Engine, xapi: Any, api: Api) -> None:
    hosts = api.call("host.get_all")
    for number, host in enumerate(hosts):
        what = [host, {"device": f"/dev/sda{number}"}, "0", f"local {number}", "", "ext", "user", False, {}]
        api.call("SR.add_to_other_config", api.call("SR.create", *what), "i18n-key", "local-storage")
    local = "filter='other-config:i18n-key=local-storage'"
    pool = engine.define(pool_of(xapi, "ext", {}, sr=local))
    with pytest.raises(errors.InvalidArgument, match="several"):
        pool.start()
    pool = engine.define(pool_of(xapi, "ext", {}, sr=f"{local} host='xen2'"))
    pool.start()
    disk = pool.create_volume(volume_of("disk"))
    disk.upload(BytesIO(b"at the host that has it"))
    assert content(disk, length=23) == b"at the host that has it"
    sr = api.call("SR.get_record", api.call("SR.get_by_uuid", disk.path.partition("/")[0]))
    assert sr["name_label"] == "local 1"
    pool = engine.define(pool_of(xapi, "ext", {}, sr=f"{local} host='xen9'", name="other"))
    with pytest.raises(errors.NotFound, match="no host 'xen9'"):
        pool.start()


def test_one_of_several_must_be_meant(engine: Engine, xapi: Any, api: Api) -> None:
    uuids = [make_sr(api, "twin", config={**NFS, "serverpath": f"/{n}"}) for n in range(2)]
    pool = engine.define(pool_of(xapi, more="<name>twin</name>"))
    with pytest.raises(errors.InvalidArgument, match="several repositories") as caught:
        pool.start()
    assert all(uuid in str(caught.value.hint) for uuid in uuids)
    pool.undefine()
    pool = engine.define(pool_of(xapi, "ext", {}, sr=f"uuid='{uuids[0]}'"))
    with pytest.raises(errors.InvalidArgument, match="is of type nfs, not ext"):
        pool.start()


def test_a_device_with_a_repository_is_not_overwritten(engine: Engine, xapi: Any, api: Api) -> None:
    sr = make_sr(api, "old", "lvm", {"device": "/dev/sdb"}, shared=False)
    ref = api.call("SR.get_by_uuid", sr)
    for pbd in api.call("SR.get_PBDs", ref):
        api.call("PBD.unplug", pbd)
    pool = engine.define(pool_of(xapi, "lvm", {"device": "/dev/sdb"}))
    with pytest.raises(errors.Unsafe, match=sr) as caught:
        pool.build()
    assert "overwrite=True" in str(caught.value.hint)
    assert pool.build(overwrite=True) and not pool.build(overwrite=True)
    pool.start()
    assert pool.info.active
    assert pool.destroy() and pool.delete() and not pool.delete()
    assert api.call("SR.get_all") == [ref]


def test_beside_others_on_a_share_nothing_is_lost(engine: Engine, xapi: Any, api: Api) -> None:
    sr = make_sr(api)
    outcome = engine.define(pool_of(xapi)).build()
    assert outcome and sr in str(outcome.warnings)


def test_what_a_key_could_be_is_told(engine: Engine, xapi: Any) -> None:
    ((iqn, luns),) = xapi.control("luns", address="san").items()
    config = {"target": "san", "targetIQN": iqn, "SCSIid": "wrong"}
    pool = engine.define(pool_of(xapi, "lvmoiscsi", config))
    with pytest.raises(errors.InvalidArgument, match="SCSIid") as caught:
        pool.build()
    assert luns[0]["SCSIid"] in str(caught.value.hint)
    pool = engine.define(pool_of(xapi, "lvmoiscsi", {**config, "targetIQN": "iqn.wrong"}, name="other"))
    with pytest.raises(errors.InvalidArgument) as caught:
        pool.build()
    assert iqn in str(caught.value.hint)


@pytest.mark.parametrize(
    ("type", "config", "sr", "said"),
    [
        ("nfs", {"server": "nas"}, "", "need the parameter 'serverpath'"),
        ("nfs", {**NFS, "serverPath": "/x"}, "", "have no parameter 'serverPath'"),
        ("nfs", {**NFS, "SRmaster": "true"}, "", "set the parameter 'SRmaster' by themselves"),
        ("lvhdoiscsi", {"target": "a"}, "", "need the parameter 'targetIQN'"),
        ("lvmoiscsi", {"chappassword": "open"}, "", "is a password"),
        ("nfs", {}, "filter='whatever'", "no filter"),
        ("nfs", {}, "filter='default-sr:true' uuid='c3c8a2f7-27b1-4a5e-9d5c-0d5ba9f4c1f0'", "a uuid and a filter"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_defined(
    engine: Engine, xapi: Any, type: str, config: dict[str, str], sr: str, said: str
) -> None:
    xapi.control("calls")
    with pytest.raises(errors.InvalidArgument, match=said):
        engine.define(pool_of(xapi, type, config, sr=sr))
    assert xapi.control("calls") == [], "nobody has to be asked"


def test_a_type_that_the_hosts_do_not_have(engine: Engine, xapi: Any) -> None:
    with pytest.raises(errors.Unsupported, match="no driver for repositories of type 'strange'") as caught:
        engine.define(pool_of(xapi, "strange", {"any": "key"})).build()
    assert "lvmoiscsi" in str(caught.value.hint)


def test_the_table_of_types_is_that_of_the_hosts(api: Api) -> None:
    """Each type of the server is in the table, with the same keys in need."""
    for record in api.call("SM.get_all_records").values():
        found = srtypes.TYPES[record["type"]]
        required = {key for key, words in record["configuration"].items() if words.endswith("(required)")}
        assert required >= set(found.required), record["type"]
        assert set(record["configuration"]) <= {*found.required, *found.optional, "location"}, record["type"]


def test_a_machine_that_runs_keeps_the_repository_plugged(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    disk = pool.create_volume(volume_of("disk"))
    vm = api.call("VM.get_by_uuid", xapi.control("machine", host=1))
    vbd = {"VM": vm, "VDI": api.call("VDI.get_by_uuid", disk.key), "userdevice": "0", "bootable": False, "mode": "RW"}
    vbd |= {"type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    ref = api.call("VBD.create", vbd)
    api.call("VBD.plug", ref)
    for verb in (pool.destroy, disk.delete, lambda: disk.resize(16 * MIB)):
        with pytest.raises(errors.Busy, match="VDI_IN_USE") as caught:
            verb()
        assert "virtual machine" in str(caught.value.hint)
    assert plugged(api) == [True, True], "what was unplugged before it failed is plugged again"
    api.call("VBD.unplug", ref)
    pool.destroy()
    assert plugged(api) == [False, False]


# -- disks ----------------------------------------------------------------------------------------------------------------


def test_labels_of_any_kind_are_names(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    sr = make_sr_of(api)
    odd = ["a/b", "..", "-x", "50%", " ", "x" * 300, "", "tab\there", "\u00e4\u65e5", "twin", "twin"]
    uuids = {make_vdi(api, sr, label): label for label in odd}
    pool.refresh()
    volumes = {volume.key: volume for volume in pool.volumes()}
    assert volumes.keys() == uuids.keys()
    for uuid, label in uuids.items():
        name = volumes[uuid].name
        check_volume_name(name)
        if label == "twin":
            assert name == f"twin ({uuid[:8]})"
        elif label in ("", "x" * 300):
            assert name == uuid
        assert pool.volume(name).look().key == uuid
        pool.volume(name).resize(8 * MIB)
        pool.volume(name).delete()
    assert names(pool) == []


def test_a_label_may_be_the_uuid_of_another(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    sr = make_sr_of(api)
    plain = make_vdi(api, sr, "")
    make_vdi(api, sr, plain)
    pool.refresh()
    found = {volume.key: volume for volume in pool.volumes()}
    assert found[plain].name == f"{plain} (2)"
    assert found[plain].look().key == plain
    found[plain].delete()
    assert plain not in {record["uuid"] for record in api.call("VDI.get_all_records").values()}
    assert names(pool) == [plain], "the other one is called by its label"


def make_sr_of(api: Api) -> str:
    """The uuid of the only SR."""
    (record,) = api.call("SR.get_all_records").values()
    return str(record["uuid"])


@given(st.text(max_size=80))
def test_a_name_stands_for_one_label(label: str) -> None:
    name = naming.spelled(label)
    if name:
        check_volume_name(name)
        assert naming.label(name, "p") == label


def test_twins_that_came_since_are_told_apart(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    disk = pool.create_volume(volume_of("disk"))
    other = make_vdi(api, make_sr_of(api), "disk")
    disk.upload(BytesIO(b"the first one"))
    assert sorted(names(pool)) == sorted([f"disk ({disk.key[:8]})", f"disk ({other[:8]})"])
    assert content(engine.volume_by_key(disk.key), length=13) == b"the first one"
    with pytest.raises(errors.VolumeExists):
        pool.create_volume(volume_of("disk"))
    engine.volume_by_key(other).delete()
    assert names(pool) == ["disk"]


def test_snapshots_and_clones_share_data(engine: Engine, xapi: Any) -> None:
    pool = started(engine, xapi)
    disk = pool.create_volume(volume_of("disk"))
    data = os.urandom(MIB)
    disk.upload(BytesIO(data))
    snapshot = disk.clone("disk@before", linked=True)
    assert snapshot.info.detail["snapshot"] and snapshot.info.mode == 0o400
    disk.upload(BytesIO(b"changed"))
    clone = snapshot.clone(volume_of("clone", 16 * MIB), linked=True)
    assert content(snapshot)[:MIB] == data and content(clone) == data + bytes(15 * MIB)
    for change in (lambda: snapshot.upload(BytesIO(b"x")), lambda: snapshot.wipe()):
        with pytest.raises(errors.Unsupported, match="snapshot"):
            change()
    with pytest.raises(errors.VolumeExists):
        disk.clone("clone", linked=True)
    snapshot.delete()
    assert names(pool) == ["clone", "disk"], "what the chain is made of is no volume"
    assert content(pool.volume("disk"), length=7) == b"changed"


def test_what_shares_no_data_says_so_before_it_is_tried(engine: Engine, xapi: Any, api: Api) -> None:
    target = {"target": "san", "targetIQN": next(iter(xapi.control("luns", address="san")))}
    luns = started(engine, xapi, type="iscsi", config=target)
    outcome = luns.create_volume(volume_of("lun")).outcome
    assert "is a LUN that was there already" in str(outcome.warnings)
    assert luns.volume("lun").info.capacity == 1 << 30
    raws = started(engine, xapi, type="lvm", config={"device": "/dev/sdb"}, name="raw")
    make_vdi(api, luns_of(api, "lvm"), "raw", sm_config={"type": "raw"})
    raws.refresh()
    xapi.control("calls")
    for pool, name, said in ((luns, "lun", "type 'iscsi' have no copy-on-write"), (raws, "raw", "raw logical volume")):
        with pytest.raises(errors.Unsupported, match=said) as caught:
            pool.volume(name).clone("clone", linked=True)
        assert "copy" in str(caught.value.hint)
    assert not {"Async.VDI.clone", "Async.VDI.snapshot"} & set(xapi.control("calls"))


def luns_of(api: Api, type: str) -> str:
    return next(str(sr["uuid"]) for sr in api.call("SR.get_all_records").values() if sr["type"] == type)


def test_what_a_flavor_may_ask_of_a_repository(engine: Engine, xapi: Any) -> None:
    iqn = next(iter(xapi.control("luns", address="san")))
    started(engine, xapi, type="iscsi", config={"target": "san", "targetIQN": iqn}, name="luns")
    started(engine, xapi, name="files")
    started(engine, xapi, type="lvm", config={"device": "/dev/sdb"}, name="thick")
    backends = "".join(f"<backend pool='{name}'/>" for name in ("luns", "thick", "files"))
    for capability, taken in (("snapshot", "thick"), ("thin", "files"), ("shared", "luns")):
        engine.flavors.define(
            f"<flavor><name>{capability}</name><requires><capability name='{capability}'/></requires>{backends}</flavor>"
        )
        assert engine.flavors.get(capability).create_volume(volume_of(f"a {capability}")).pool.name == taken


def test_copies_within_the_hosts_go_by_themselves(engine: Engine, xapi: Any) -> None:
    pool = started(engine, xapi)
    other = started(engine, xapi, type="lvm", config={"device": "/dev/sdb"}, name="other")
    disk = pool.create_volume(volume_of("disk"))
    data = os.urandom(MIB)
    disk.upload(BytesIO(data), offset=MIB)
    xapi.control("calls")
    copy = disk.clone(volume_of("copy", 12 * MIB), pool=other)
    called = xapi.control("calls")
    assert "Async.VDI.copy" in called and not [call for call in called if "raw_vdi" in call or call == "task.create"]
    assert content(copy) == bytes(MIB) + data + bytes(10 * MIB)
    with pytest.raises(errors.Unsupported, match="not in this repository"):
        disk.clone("linked", pool=other, linked=True)


def test_copies_go_to_and_from_pools_of_files(engine: Engine, xapi: Any, tmp_path: Path) -> None:
    pool, others = started(engine, xapi), files(tmp_path / "files", engine)
    image = others.create_volume(
        f"<volume><name>image</name><capacity>{5 * MIB}</capacity><target><format type='qcow2'/></target></volume>"
    )
    plain = others.create_volume(volume_of("plain", 5 * MIB))
    data = os.urandom(3 * MIB)
    plain.upload(BytesIO(data))
    disk = plain.clone("disk", pool=pool)
    assert disk.info.capacity == 6 * MIB and content(disk) == data + bytes(3 * MIB)
    assert content(image.clone("empty", pool=pool)) == bytes(6 * MIB)
    back = disk.clone("<volume><name>back</name><target><format type='qcow2'/></target></volume>", pool=others)
    assert content(back.clone("again", pool=pool)) == data + bytes(3 * MIB)


def test_a_range_is_read_and_written(engine: Engine, xapi: Any, tmp_path: Path) -> None:
    disk = started(engine, xapi).create_volume(volume_of("disk"))
    disk.upload(BytesIO(b"x" * 4096 + b"rest"), offset=2 * MIB - 10, length=4096)
    assert content(disk, offset=2 * MIB - 12, length=4102) == b"\0\0" + b"x" * 4096 + bytes(4)
    with (tmp_path / "sparse").open("w+b") as file:
        disk.download(file, sparse=True)
        assert os.fstat(file.fileno()).st_size == 8 * MIB and os.fstat(file.fileno()).st_blocks * 512 <= 3 * MIB
    assert (tmp_path / "sparse").read_bytes() == content(disk)
    for how in ({"offset": 8 * MIB + 1}, {"offset": 0, "length": 9 * MIB}):
        with pytest.raises(errors.InvalidArgument, match="not within"):
            disk.upload(BytesIO(b"x"), **how)
    with pytest.raises(errors.InvalidArgument, match="more data"):
        disk.upload(BytesIO(bytes(8 * MIB + 1)))


def test_disks_cannot_shrink_or_be_wiped_in_other_ways(engine: Engine, xapi: Any) -> None:
    disk = started(engine, xapi).create_volume(volume_of("disk"))
    with pytest.raises(errors.Unsupported, match="cannot shrink"):
        disk.resize(MIB, shrink=True)
    with pytest.raises(errors.Unsupported, match="less than it promises"):
        disk.wipe("random")
    with pytest.raises(errors.Unsupported):
        disk.disk_xml()


# -- secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.tools("strace")
def test_no_password_is_seen_anywhere(xapi: Any, tmp_path: Path) -> None:
    iqn = next(iter(xapi.control("luns", address="san")))
    scsi = xapi.control("luns", address="san")[iqn][0]["SCSIid"]
    chap = "chap-pass-4711"
    login, login_file = leaks.secret(tmp_path, "xen login", "xapi", xapi.password)
    keys, keys_file = leaks.secret(tmp_path, "xen chap", "iscsi", chap)
    config = {"target": "san", "targetIQN": iqn, "SCSIid": scsi, "chapuser": "xen"}
    more = "<param name='chappassword'><secret type='iscsi' usage='xen chap'/></param>"
    (tmp_path / "pool.xml").write_text(pool_of(xapi, "lvmoiscsi", config, more=more))
    (tmp_path / "data").write_bytes(b"some data")
    lines = [
        *login, *keys, ["define", f"{tmp_path}/pool.xml"], ["start", "xen", "--build"], ["dumpxml", "xen"],
        ["vol-create-as", "xen", "disk", "8M"], ["vol-upload", "disk", f"{tmp_path}/data", "--pool", "xen"],
        ["vol-download", "disk", f"{tmp_path}/back", "--pool", "xen"], ["refresh", "xen"], ["destroy", "xen"],
        ["pool-info", "xen"], ["start", "no-such-pool"],
    ]  # fmt: skip
    told = ["SR_BACKEND_FAILURE_68", "", f"login failed with {chap}", ""]
    xapi.fault("SR.create", "fail", failure=told, times=1)
    _, said = leaks.look(tmp_path, lines, [xapi.password, chap], [login_file, keys_file])
    assert b"login failed with ***" in said, "a driver that repeats the password is not repeated"
    assert (tmp_path / "back").read_bytes()[:9] == b"some data"


def test_a_password_of_the_storage_gets_there(engine: Engine, xapi: Any, api: Api) -> None:
    config = {"server": "\\\\nas\\share", "username": "me"}
    xapi.control("wants", user="me", password="smb pass", type="smb", config=config)
    engine.define_secret("<secret private='yes'><usage type='smb'><name>share</name></usage></secret>")
    more = "<param name='password'><secret type='smb' usage='share'/></param>"
    pool = engine.define(pool_of(xapi, "smb", config, more=more))
    engine.secret("share").set_value(b"wrong pass")
    with pytest.raises(errors.PoolkitError, match="Authentication failed") as caught:
        pool.start(build=True)
    assert "wrong pass" not in str(caught.value)
    engine.secret("share").set_value(b"smb pass")
    pool.start(build=True)
    (pbd, *_) = api.call("PBD.get_all_records").values()
    assert "smb pass" not in str(pbd) and pbd["device_config"]["password_secret"]
    assert "smb pass" not in pool.xml()


def test_a_wrong_login_is_said(engine: Engine, xapi: Any) -> None:
    engine.secret("xen login").set_value(b"not the password")
    with pytest.raises(errors.LoginRefused, match="could not log in") as caught:
        started(engine, xapi)
    assert "not the password" not in str(caught.value) and "secret" in str(caught.value.hint)


def test_the_manual_has_the_table_of_types() -> None:
    page = (Path(__file__).parents[3] / "docs/pools/xensm.md").read_text()
    assert srtypes.table() in page, "write the answer of srtypes.table() between the two comments"
