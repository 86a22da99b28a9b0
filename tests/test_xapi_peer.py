"""The XenAPI peer, seen by the client that PyPI has, unchanged.

With ``POOLKIT_XAPI_DATAMODEL=/path/xenapi.json`` (xen-api's own, made by its ``gen_json``) the fields and the calls are compared
with the published datamodel as well.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import pytest
import XenAPI

from .peers.xapi import pool  # noqa: F401 - registers the calls
from .peers.xapi.api import MESSAGES
from .peers.xapi.schema import CLASSES, ENUMS
from .xapi import Xapi

DATAMODEL = os.environ.get("POOLKIT_XAPI_DATAMODEL", "")
NFS = {"server": "nas", "serverpath": "/export"}
MIB = 1 << 20

pytestmark = pytest.mark.tools("qemu-img", "openssl")


@pytest.fixture
def session(xapi: Xapi) -> Iterator[Any]:
    session = XenAPI.Session(xapi.url)
    session.login_with_password(xapi.user, xapi.password, "1.0", "poolkit tests")
    yield session
    session("close")()


def make_sr(api: Any, type: str = "nfs", config: dict[str, str] | None = None, shared: bool = True) -> str:
    host = api.pool.get_master(api.pool.get_all()[0])
    sr: str = api.SR.create(host, NFS if config is None else config, "0", "sr", "", type, "", shared, {})
    return sr


def make_vdi(api: Any, sr: str, size: int = 4 * MIB, name: str = "vdi") -> str:
    record = {"name_label": name, "name_description": "", "SR": sr, "virtual_size": str(size), "type": "user"}
    vdi: str = api.VDI.create({**record, "sharable": False, "read_only": False, "other_config": {}})
    return vdi


def failure(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(XenAPI.Failure) as caught:
        call(*arguments)
    return list(caught.value.details)


def test_every_way_in_speaks_the_same(xapi: Xapi) -> None:
    ways = [(xapi.url, None), (xapi.tls_url, None)]
    ways.append(("http://" + str(xapi.unix[0]).replace("/", "_") + "/", XenAPI.UDSTransport()))
    seen = []
    for url, transport in ways:
        session = XenAPI.Session(url, transport, ignore_ssl=url.startswith("https"))
        session.login_with_password(xapi.user, xapi.password)
        seen.append(session.xenapi.host.get_all_records())
        assert failure(session.login_with_password, xapi.user, "wrong")[0] == "SESSION_AUTHENTICATION_FAILED"
        session("close")()
    assert len(seen[0]) == 2
    assert [sorted(each) for each in seen] == [sorted(seen[0])] * 3
    slave = XenAPI.Session(f"http://{xapi.hosts[1]}:{xapi.port}")
    assert failure(slave.login_with_password, xapi.user, xapi.password) == ["HOST_IS_SLAVE", xapi.hosts[0]]
    slave("close")()


def test_an_int_is_a_number_in_json_and_a_string_in_xml(xapi: Xapi, session: Any) -> None:
    vdi = make_vdi(session.xenapi, make_sr(session.xenapi), 3 * MIB)
    connection = http.client.HTTPConnection(xapi.hosts[0], xapi.port)
    request = {"jsonrpc": "2.0", "method": "VDI.get_record", "params": [session.handle, vdi], "id": 7}
    connection.request("POST", "/jsonrpc", json.dumps(request), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    request = {**request, "method": "event.from", "params": [session.handle, ["vdi"], "", 0.0]}
    connection.request("POST", "/jsonrpc", json.dumps(request), {"Content-Type": "application/json"})
    (event,) = json.loads(connection.getresponse().read())["result"]["events"]
    connection.close()
    assert event["snapshot"] == answer["result"]
    assert answer["result"]["virtual_size"] == 4 * MIB
    assert session.xenapi.VDI.get_record(vdi)["virtual_size"] == str(4 * MIB)


def test_the_life_of_an_sr(session: Any) -> None:
    api = session.xenapi
    sr = make_sr(api)
    uuid, vdi = api.SR.get_uuid(sr), make_vdi(api, sr)
    assert failure(api.SR.destroy, sr) == ["SR_HAS_PBD", sr]
    assert failure(api.SR.forget, sr) == ["SR_HAS_PBD", sr]
    for pbd in api.SR.get_PBDs(sr):
        api.PBD.unplug(pbd)
    assert failure(api.SR.destroy, sr) == ["SR_NOT_EMPTY"]
    disk = api.VDI.get_uuid(vdi)
    api.SR.forget(sr)
    sr = api.SR.introduce(uuid, "again", "", "nfs", "", True, {})
    assert api.SR.get_physical_size(sr) == "-1"
    assert failure(make_vdi, api, sr) == ["SR_HAS_NO_PBDS", sr]
    record = {"host": api.host.get_all()[0], "SR": sr, "device_config": NFS, "other_config": {}}
    pbd = api.PBD.create(record)
    assert failure(api.PBD.create, record)[0] == "PBD_EXISTS"
    api.PBD.plug(pbd)
    assert api.VDI.get_uuid(api.SR.get_VDIs(sr)[0]) == disk
    api.VDI.destroy(api.SR.get_VDIs(sr)[0])
    api.PBD.unplug(pbd)
    api.SR.destroy(sr)
    assert failure(api.SR.get_uuid, sr) == ["HANDLE_INVALID", "SR", sr]
    assert failure(api.SR.get_by_uuid, uuid) == ["UUID_INVALID", "SR", uuid]


def test_space_is_kept_as_the_type_does(xapi: Xapi, session: Any) -> None:
    api = session.xenapi
    thin, thick = make_sr(api), make_sr(api, "lvm", {"device": "/dev/sdb"}, shared=False)
    for sr in (thin, thick):
        xapi.control("size", sr=sr, size=64 * MIB)
    make_vdi(api, thin, 512 * MIB)
    make_vdi(api, thick, 40 * MIB)
    assert failure(make_vdi, api, thick, 40 * MIB)[0] == "SR_BACKEND_FAILURE_44"
    xapi.control("full", sr=thin)
    assert failure(make_vdi, api, thin)[0] == "SR_BACKEND_FAILURE_44"
    luns = make_sr(api, "hba", {}, shared=False)
    make_vdi(api, luns, 60 << 30)
    assert failure(make_vdi, api, luns, 60 << 30)[0] == "SR_BACKEND_FAILURE_44"


def test_disks_carry_their_bytes(xapi: Xapi, session: Any) -> None:
    api = session.xenapi
    vdi = make_vdi(api, make_sr(api))
    data = os.urandom(MIB) + bytes(3 * MIB)
    connection = http.client.HTTPConnection(xapi.hosts[0], xapi.port)
    task = api.task.create("import", "")
    connection.request("PUT", f"/import_raw_vdi?session_id={session.handle}&task_id={task}&vdi={vdi}&format=raw", data)
    assert connection.getresponse().read() == b""
    assert api.task.get_status(task) == "success"
    snapshot = api.VDI.snapshot(vdi, {})
    api.VDI.resize(vdi, str(8 * MIB))
    for each, wanted in (
        (snapshot, data),
        (vdi, data + bytes(4 * MIB)),
        (api.VDI.clone(vdi, {}), data + bytes(4 * MIB)),
    ):
        connection.request("GET", f"/export_raw_vdi?session_id={session.handle}&vdi={each}&format=raw")
        assert connection.getresponse().read() == wanted
    connection.close()


def test_a_task_is_told_of_and_cancelled(xapi: Xapi, session: Any) -> None:
    api = session.xenapi
    sr = make_sr(api)
    xapi.fault("SR.update", "slow", seconds=60)
    task = api.Async.SR.update(sr)
    api.task.cancel(task)
    while api.task.get_status(task) in ("pending", "cancelling"):
        time.sleep(0.02)
    assert api.task.get_error_info(task) == ["TASK_CANCELLED", task]


def test_faults(xapi: Xapi, session: Any) -> None:
    api = session.xenapi
    xapi.fault("SR.get_all", "fail", failure=["INTERNAL_ERROR", "x"], times=1)
    assert failure(api.SR.get_all) == ["INTERNAL_ERROR", "x"]
    assert api.SR.get_all() == []
    old = api.event.get_current_id()
    xapi.control("lose_events")
    events = getattr(api.event, "from")
    assert failure(events, ["*"], f"{int(old):020d},{int(old):020d}", 0.0) == ["EVENTS_LOST"]
    xapi.control("kill_sessions")
    assert api.SR.get_all() == []  # the client logs in anew by itself
    xapi.fault("SR.get_all", "cut", times=2)
    with pytest.raises(ExpatError):
        api.SR.get_all()


@pytest.mark.skipif(not DATAMODEL, reason="the published datamodel is not part of the project")
def test_fields_and_calls_are_those_of_the_datamodel() -> None:
    published = {each["name"]: each for each in json.loads(Path(DATAMODEL).read_text())}
    qualifiers = {"RO/runtime": "ro", "RO/constructor": "new", "RW": "rw"}
    for name, fields in CLASSES.items():
        wanted = {each["name"]: (each["type"], qualifiers[each["qualifier"]]) for each in published[name]["fields"]}
        assert {field.name: (field.type, field.qualifier) for field in fields.values()} == wanted
        for enum in published[name]["enums"]:
            if enum["name"] in ENUMS:
                assert set(ENUMS[enum["name"]].split()) <= {value["name"] for value in enum["values"]}
    for message in MESSAGES.values():
        cls, _, name = message.name.partition(".")
        known = next((each for each in published[cls]["messages"] if each["name"] == name), None)
        assert known, message.name
        types = [each["type"] for each in known["params"] if each["type"] != "session ref"]
        if cls != "session":
            assert [type.rstrip("?") for type in message.parameters] == types, message.name
        assert message.gives == known["result"][0], message.name
