"""Pools of type xensm where hosts, sessions and connections fail, where a process dies at any step, and with many at once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families.xapi import client, disks, failures, line, marks
from poolkit.families.xapi.client import Api
from poolkit.families.xapi.failures import Failed
from poolkit.host import Host
from tests.backends.deaths import deaths
from tests.backends.deaths import failures as failing
from tests.sweep import Sampled

from . import MIB, PEER, pool_of, prepare, started, volume_of

pytestmark = [PEER, pytest.mark.tools("qemu-img", "openssl")]
DATAMODEL = os.environ.get("POOLKIT_XAPI_DATAMODEL", "")


def names(pool: Pool) -> list[str]:
    pool.refresh()
    return sorted(volume.name for volume in pool.volumes())


def nothing_is_left(api: Api) -> None:
    """No disk that is not finished, no claim and no task."""
    for vdi in api.call("VDI.get_all_records").values():
        assert not [key for key in vdi["other_config"] if key.startswith(marks.NEW)], vdi["name_label"]
    for sr in api.call("SR.get_all_records").values():
        assert not [key for key in sr["other_config"] if key.startswith(disks.CLAIM)]
    assert not [task for task in api.call("task.get_all_records").values() if task["status"] == "pending"]


# -- ways in --------------------------------------------------------------------------------------------------------------


def test_tls_with_a_certificate_that_is_trusted(engine: Engine, xapi: Any) -> None:
    where = f"<host name='{xapi.hosts[0]}' port='{xapi.tls_port}'/><api certificate='{xapi.certificate}'/>"
    pool = started(engine, xapi, hosts=where)
    pool.create_volume(volume_of("disk")).upload(BytesIO(b"over TLS"))
    assert names(pool) == ["disk"]
    out = BytesIO()
    pool.volume("disk").download(out, length=8)
    assert out.getvalue() == b"over TLS"


def test_tls_with_a_certificate_that_is_not_trusted(engine: Engine, xapi: Any) -> None:
    with pytest.raises(errors.Unreachable, match="certificate is not trusted") as caught:
        started(engine, xapi, hosts=f"<host name='{xapi.hosts[0]}' port='{xapi.tls_port}'/>")
    assert "fingerprint" in str(caught.value.hint)


def test_tls_with_the_fingerprint_of_a_certificate(engine: Engine, xapi: Any) -> None:
    text = xapi.certificate.read_text()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()
    shown = ":".join(fingerprint[at : at + 2].upper() for at in range(0, 64, 2))
    where = f"<host name='{xapi.hosts[1]}' port='{xapi.tls_port}'/><api fingerprint='%s'/>"
    assert names(started(engine, xapi, hosts=where % f"{'0' * 64} {shown}")) == []
    with pytest.raises(errors.Unreachable, match=fingerprint):
        started(engine, xapi, hosts=where % ("0" * 64), name="other")
    with pytest.raises(errors.InvalidArgument, match="64 hexadecimal digits"):
        started(engine, xapi, hosts=where % "12", name="other")


def test_the_local_socket_needs_no_password(engine: Engine, xapi: Any) -> None:
    xapi.control("user", name="root", password="")  # as XAPI has it: who may open the socket is root
    where = f"<socket path='{xapi.unix[0]}'/>"
    text = pool_of(xapi, hosts=where)
    auth = text[text.index("<auth") : text.index("</auth>") + 7]
    pool = engine.define(text.replace(auth, ""))
    pool.start(build=True)
    pool.create_volume(volume_of("disk")).upload(BytesIO(b"x"))
    assert names(pool) == ["disk"]
    with pytest.raises(errors.InvalidArgument, match="a login is needed"):
        engine.define(pool_of(xapi, name="other").replace(auth, ""))
    pool = engine.define(pool_of(xapi, hosts=f"<socket path='{xapi.unix[1]}'/>", name="member").replace(auth, ""))
    with pytest.raises(errors.Unreachable, match="HOST_IS_SLAVE"):
        pool.start(build=True)


def test_an_old_host_speaks_xml_rpc(engine: Engine, xapi: Any) -> None:
    xapi.control("old")
    pool = started(engine, xapi)
    disk = pool.create_volume(volume_of("disk \u00e4", 3 * MIB))
    assert disk.info.capacity == 4 * MIB
    disk.upload(BytesIO(b"old"))
    disk.resize(8 * MIB)
    disk.clone("disk \u00e4@one", linked=True).clone("copy")
    assert names(pool) == ["copy", "disk \u00e4", "disk \u00e4@one"] and pool.info.capacity == 64 << 30
    pool.volume("copy").delete()
    with pytest.raises(errors.VolumeExists):
        pool.create_volume(volume_of("disk \u00e4"))


def test_what_is_no_xapi_at_all(engine: Engine, xapi: Any) -> None:
    xapi.fault("session.login_with_password", "http")
    with pytest.raises(errors.Unreachable, match="HTTP status 500") as caught:
        started(engine, xapi)
    assert caught.value.code == "unreachable"


def test_the_master_is_found(engine: Engine, xapi: Any) -> None:
    dead = f"<host name='127.0.0.77' port='{xapi.port}'/>"
    member = f"<host name='{xapi.hosts[1]}' port='{xapi.port}'/><api scheme='http'/>"
    pool = started(engine, xapi, hosts=dead + member)
    xapi.control("master", host=1)
    pool.create_volume(volume_of("disk"))
    assert names(pool) == ["disk"]


def test_another_master_during_a_session(xapi: Any, api: Api) -> None:
    assert api.where == f"{xapi.hosts[0]}:{xapi.port}"
    xapi.control("master", host=1)
    assert len(api.call("host.get_all")) == 2
    assert api.where == f"{xapi.hosts[1]}:{xapi.port}"


def test_no_host_at_all(engine: Engine, xapi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "<host name='127.0.0.77' port='1'/><host name='no-such-host.invalid' port='1'/><api scheme='http'/>"
    with pytest.raises(errors.Unreachable, match="none of its hosts answers") as caught:
        started(engine, xapi, hosts=where)
    assert "127.0.0.77:1" in str(caught.value) and "no-such-host.invalid:1" in str(caught.value)


# -- what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_full_repository(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    xapi.control("full", sr=api.call("SR.get_all")[0])
    with pytest.raises(errors.NoSpace, match="insufficient space"):
        pool.create_volume(volume_of("disk"))
    assert names(pool) == []
    nothing_is_left(api)


def test_a_slow_task_tells_how_far_it_is(engine: Engine, xapi: Any) -> None:
    pool = started(engine, xapi)
    xapi.fault("VDI.create", "slow", seconds=100)
    parts: list[int] = []

    def told(done: int, total: int, what: str) -> None:
        if what == "create disk" and total == 100:
            parts.append(done)
            if len(set(parts)) == 3:
                xapi.control("clear")  # let it end

    pool.create_volume(volume_of("disk"), progress=told)
    assert len(set(parts)) > 2 and parts == sorted(parts)


def test_an_abort_cancels_the_task(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    xapi.fault("VDI.create", "slow", seconds=60)
    stop = threading.Event()

    def told(done: int, total: int, what: str) -> None:
        if what == "create disk":
            stop.set()

    with pytest.raises(errors.Aborted):
        pool.create_volume(volume_of("disk"), abort=stop, progress=told)
    assert names(pool) == [] and "task.cancel" in xapi.control("calls")
    nothing_is_left(api)


@pytest.mark.parametrize("what", ["kill_sessions", "lose_events"])
def test_what_is_lost_during_a_task_is_begun_anew(engine: Engine, xapi: Any, api: Api, what: str) -> None:
    pool = started(engine, xapi)
    xapi.fault("VDI.create", "slow", seconds=100)
    orders = iter((what, "clear"))

    def told(done: int, total: int, doing: str) -> None:
        if doing == "create disk" and (order := next(orders, "")):
            xapi.control(order)

    pool.create_volume(volume_of("disk"), progress=told)
    assert next(orders, "") == "", "it ended before it was told of again"
    assert names(pool) == ["disk"]
    nothing_is_left(api)


def test_a_session_that_ends_again_and_again(api: Api, xapi: Any) -> None:
    xapi.control("kill_sessions")
    assert api.call("SR.get_all") == []
    xapi.fault("SR.get_all", "fail", failure=["SESSION_INVALID", "x"])
    with pytest.raises(Failed) as caught:
        api.call("SR.get_all")
    assert failures.kind_of(caught.value) is errors.Unreachable
    xapi.control("clear")


@pytest.mark.parametrize("what", ["http", "cut", "vanish"])
def test_a_connection_that_breaks(engine: Engine, xapi: Any, api: Api, what: str) -> None:
    pool = started(engine, xapi)
    xapi.fault("VDI.get_all_records", what, times=1)
    assert names(pool) == [], "what only reads is asked again"
    xapi.fault("VDI.create", "slow", seconds=0.5)
    xapi.fault("VDI.create", what, times=1)
    with pytest.raises(errors.Unreachable):
        pool.create_volume(volume_of("disk"))
    assert names(pool) == [], "it may have been made, and was taken back"
    nothing_is_left(api)


def test_a_host_that_hangs(engine: Engine, xapi: Any, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = started(engine, xapi)
    monkeypatch.setattr(line, "SILENCE", 0.5)
    xapi.fault("VDI.get_all_records", "hang")
    with pytest.raises(errors.Unreachable, match="no answer for"):
        pool.refresh()
    host = Host()
    threading.Timer(0.2, host.abort.set).start()
    monkeypatch.setattr(line, "SILENCE", 60.0)
    api.host = host
    with pytest.raises(errors.Aborted):
        api.connection().close()
        api.hang_up()
        api.call("VDI.get_all_records")
    xapi.control("clear")


def test_other_work_is_waited_for(engine: Engine, xapi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = started(engine, xapi)
    code = ["OTHER_OPERATION_IN_PROGRESS", "SR", "OpaqueRef:x", "scan", "OpaqueRef:y"]
    xapi.fault("VDI.create", "fail", failure=code, times=2)
    pool.create_volume(volume_of("disk"))
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    xapi.fault("VDI.create", "fail", failure=code)
    with pytest.raises(errors.Busy, match="OTHER_OPERATION_IN_PROGRESS"):
        pool.create_volume(volume_of("other"))
    assert names(pool) == ["disk"]


def test_a_repository_that_no_host_has_plugged_any_more(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    pool.create_volume(volume_of("disk"))
    xapi.control("unplugged", sr=api.call("SR.get_all")[0])
    with pytest.raises(errors.InvalidState) as caught:
        pool.refresh()
    assert "start" in str(caught.value.hint)
    pool.start()
    assert names(pool) == ["disk"]


def test_a_claim_of_the_dead_is_let_go_of(engine: Engine, xapi: Any, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = started(engine, xapi)
    monkeypatch.setattr(disks, "STALE", 0.3)
    key = disks.CLAIM + hashlib.sha256(b"disk").hexdigest()[:16]
    api.call("SR.add_to_other_config", api.call("SR.get_all")[0], key, "somebody")
    outcome = pool.create_volume(volume_of("disk")).outcome
    assert "has not come back" in str(outcome.warnings)
    nothing_is_left(api)


CODES = [
    ("SR_BACKEND_FAILURE_44", errors.NoSpace), ("SR_BACKEND_FAILURE_73", errors.Unreachable),
    ("SR_BACKEND_FAILURE_68", errors.LoginRefused), ("SR_BACKEND_FAILURE_107", errors.InvalidArgument),
    ("SR_BACKEND_FAILURE_79", errors.InvalidArgument), ("SR_BACKEND_FAILURE_109", errors.Busy),
    ("SR_BACKEND_FAILURE_46", errors.VolumeNotFound), ("SR_BACKEND_FAILURE_47", errors.InvalidState),
    ("SR_BACKEND_FAILURE_39", errors.Unsafe), ("SR_BACKEND_FAILURE_1200", errors.HostError),
    ("SR_BACKEND_FAILURE_38", errors.Unsupported), ("SR_NOT_EMPTY", errors.Unsafe), ("VDI_IN_USE", errors.Busy),
    ("RBAC_PERMISSION_DENIED", errors.PermissionDenied), ("INTERNAL_ERROR", errors.HostError),
    ("MESSAGE_REMOVED", errors.Unsupported), ("HOST_OFFLINE", errors.Unreachable), ("TASK_CANCELLED", errors.Aborted),
    ("SR_NOT_SHARABLE", errors.HeldElsewhere), ("SR_FULL", errors.NoSpace), ("UUID_INVALID", errors.NotFound),
]  # fmt: skip


@pytest.mark.parametrize(("code", "kind"), CODES, ids=str)
def test_codes_are_errors_of_their_kind(code: str, kind: type[errors.PoolkitError]) -> None:
    error = failures.meaning(Failed(code, ["", "what the host says", "<xml/>"]), "p", doing="do it")
    assert (
        type(error) is kind and code in str(error) and "what the host says" in str(error) and "<xml" not in str(error)
    )


def test_no_space_is_seen_in_the_words_as_well() -> None:
    failed = Failed("SR_BACKEND_FAILURE_200", ["", "error", "[Errno 28] No space left on device"])
    assert failures.kind_of(failed) is errors.NoSpace
    assert failures.kind_of(Failed("HANDLE_INVALID", ["VDI", "x"])) is errors.VolumeNotFound


# -- deaths ---------------------------------------------------------------------------------------------------------------


def new(kind: str) -> Callable[[Engine], object]:
    def make(engine: Engine) -> object:
        disk = engine.pool("xen").volume("disk")
        return disk.clone("disk@new" if kind == "snapshot" else "new", linked=kind != "copy")

    return make


@pytest.mark.parametrize("how", [deaths, failing], ids=["killed", "failing"])
@pytest.mark.parametrize("kind", ["copy", "clone", "snapshot"])
def test_an_interrupted_clone_leaves_nothing(
    engine: Engine, xapi: Any, api: Api, root: Path, sampled: Sampled[int], how: Any, kind: str
) -> None:
    pool = started(engine, xapi)
    data = os.urandom(MIB)
    pool.create_volume(volume_of("disk")).upload(BytesIO(data))
    for again in how(root, new(kind), sampled):
        there = again.pool("xen")
        left = set(names(there)) - {"disk"}
        nothing_is_left(api)
        assert again.not_undone() == []
        assert not left or how is deaths
        for name in left:
            out = BytesIO()
            there.volume(name).download(out)
            assert out.getvalue() == data + bytes(7 * MIB), "half a clone is left"
            there.volume(name).delete()
    assert len(names(pool)) == 2


@pytest.mark.parametrize("how", [deaths, failing], ids=["killed", "failing"])
def test_an_interrupted_start_of_what_is_introduced(
    engine: Engine, xapi: Any, api: Api, root: Path, sampled: Sampled[int], how: Any
) -> None:
    pool = started(engine, xapi)
    sr = api.call("SR.get_uuid", api.call("SR.get_all")[0])
    pool.destroy()
    api.call("SR.forget", api.call("SR.get_all")[0])
    pool.undefine()
    text = engine.define(pool_of(xapi, sr=f"uuid='{sr}'")).xml(inactive=True)
    for again in how(root, lambda e: e.pool("xen").start(), sampled):
        if again.pool("xen").info.active:
            again.pool("xen").destroy()
            again.pool("xen").undefine()
            again.define(text)
        assert api.call("SR.get_all") == [] and api.call("PBD.get_all") == []
        assert again.not_undone() == []


@pytest.mark.parametrize("how", [deaths, failing], ids=["killed", "failing"])
def test_an_interrupted_stop_is_all_or_nothing(
    engine: Engine, xapi: Any, api: Api, root: Path, sampled: Sampled[int], how: Any
) -> None:
    pool = started(engine, xapi)
    for again in how(root, lambda e: e.pool("xen").destroy(), sampled):
        up = [pbd["currently_attached"] for pbd in api.call("PBD.get_all_records").values()]
        assert len(set(up)) == 1, "one host has it plugged, and the other has not"
        assert again.not_undone() == []
        again.pool("xen").start()
        assert again.pool("xen").info.active
    assert not pool.info.active


# -- many -----------------------------------------------------------------------------------------------------------------


def test_eight_processes_make_disks(xapi: Any, api: Api, tmp_path: Path) -> None:
    """Each has a root of its own, so that nothing but the hosts decides: all make disks, and one of them makes ``the one``."""
    with Engine(tmp_path / "first") as engine:
        prepare(engine, xapi)
        started(engine, xapi)
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            status = 99
            disks.STALE = 600  # all are alive, however long each has to wait for a processor
            try:
                status = making(tmp_path / f"root{number}", xapi, number)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    won = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(won) == [0] * 7 + [1]
    found = sorted(vdi["name_label"] for vdi in api.call("VDI.get_all_records").values())
    assert found == sorted([f"disk-{process}-{number}" for process in range(8) for number in range(2)] + ["the one"])
    nothing_is_left(api)


def making(root: Path, xapi: Any, number: int) -> int:
    """How many disks called ``the one`` were made."""
    with Engine(root) as engine:
        prepare(engine, xapi)
        pool = engine.define(pool_of(xapi))
        pool.start()
        won = 1
        try:
            pool.create_volume(volume_of("the one", 2 * MIB))
        except errors.VolumeExists:
            won = 0
        for disk in range(2):
            pool.create_volume(volume_of(f"disk-{number}-{disk}", 2 * MIB))
    return won


# -- the published datamodel ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATAMODEL, reason="the published datamodel is not part of the project")
def test_calls_and_records_are_those_of_the_datamodel(engine: Engine, xapi: Any, api: Api) -> None:
    published = {each["name"]: each for each in json.loads(Path(DATAMODEL).read_text())}
    xapi.control("calls")
    pool = started(engine, xapi)
    disk = pool.create_volume(volume_of("disk"))
    disk.upload(BytesIO(b"x"))
    disk.resize(16 * MIB)
    disk.clone("disk@one", linked=True).clone("clone", linked=True)
    disk.clone("copy")
    disk.delete()
    for name in names(pool):
        pool.volume(name).delete()
    for cls in ("SR", "PBD", "VDI", "SM", "host", "pool", "task"):
        wanted = {field["name"]: field["type"] for field in published[cls]["fields"]}
        for record in api.call(f"{cls}.get_all_records").values():
            assert record.keys() == wanted.keys()
            assert all(fits(record[name], type) for name, type in wanted.items()), record
    pool.destroy()
    pool.delete()
    for call in set(xapi.control("calls")):
        cls, _, name = call.removeprefix("Async.").partition(".")
        known = next((each for each in published[cls]["messages"] if each["name"] == name), None)
        assert known is not None, call
        assert not call.startswith("Async.") or cls not in ("session", "task", "event"), call


def fits(value: Any, type: str) -> bool:
    """Whether a value of JSON can be of a type of the datamodel."""
    if type.endswith(" set"):
        return isinstance(value, list) and all(fits(one, type.removesuffix(" set")) for one in value)
    if type.endswith(" map"):
        inner = type[1:].removesuffix(") map").partition(" -> ")
        return isinstance(value, dict) and all(fits(k, "string") and fits(v, inner[2]) for k, v in value.items())
    if type in ("int", "bool"):
        return isinstance(value, {"int": int, "bool": bool}[type])
    return isinstance(value, int | float) if type == "float" else isinstance(value, str)


def test_a_listing_asks_no_more_for_more_disks(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    asked = []
    for count in (1, 400):
        xapi.control("bulk", sr=api.call("SR.get_all")[0], count=count)
        pool.refresh()
        xapi.control("calls")
        pool.refresh()
        asked.append(sorted(call for call in xapi.control("calls") if call != "event.from"))
    assert len(pool.volumes()) == 401 and asked[0] == asked[1]
    assert asked[0].count("VDI.get_all_records") == 1


# -- events ---------------------------------------------------------------------------------------------------------------


def test_a_pool_is_followed(engine: Engine, xapi: Any, api: Api) -> None:
    pool = started(engine, xapi)
    other = started(engine, xapi, type="lvm", config={"device": "/dev/sdb"}, name="other")
    stop = threading.Event()
    turns = pool.follow(abort=stop)
    next(turns)
    sr, ref = (
        next(ref for ref, one in api.call("SR.get_all_records").items() if one["type"] == t) for t in ("nfs", "lvm")
    )
    told: list[list[str]] = []

    def make(place: str, label: str) -> None:
        record = {"name_label": label, "name_description": "", "SR": place, "virtual_size": MIB, "type": "user"}
        api.call("VDI.create", {**record, "sharable": False, "read_only": False, "other_config": {}})

    for change in (lambda: (make(ref, "not ours"), make(sr, "by somebody else")), lambda: xapi.control("lose_events")):
        threading.Timer(0.3, change).start()
        next(turns)
        told.append(sorted(volume.name for volume in pool.volumes()))
    assert told == [["by somebody else"]] * 2 and other.volumes() == []
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(errors.Aborted):
        for _ in turns:  # one change may be told in several events
            pass


def test_types_that_tell_of_nothing_are_not_followed(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = engine.define(f"<pool type='dir'><name>f</name><target><path>{tmp_path}/files</path></target></pool>")
    files.start()
    with pytest.raises(errors.Unsupported, match="'dir' cannot tell of changes"):
        next(files.follow())


def test_the_command_follows_until_it_is_stopped(engine: Engine, xapi: Any, api: Api, root: Path) -> None:
    started(engine, xapi)
    command = [sys.executable, "-m", "poolkit", "--root", str(root), "refresh", "xen", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "has 0 volumes" in process.stdout.readline()
        record = {"name_label": "new", "name_description": "", "SR": api.call("SR.get_all")[0], "virtual_size": MIB}
        api.call("VDI.create", {**record, "type": "user", "sharable": False, "read_only": False, "other_config": {}})
        assert "has 1 volumes" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
