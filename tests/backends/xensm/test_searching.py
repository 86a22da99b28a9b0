"""find-sources of type xensm: the repositories of the hosts, as definitions that can be used."""

from __future__ import annotations

from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.cli import main
from poolkit.engine import Engine
from poolkit.families.xapi.client import Api

from . import MIB, PEER
from .test_records import answering
from .test_repositories import make_sr, make_vdi

pytestmark = [PEER, pytest.mark.tools("qemu-img")]


def where(xapi: Any, login: str = "<auth type='xapi' username='root'><secret usage='xen login'/></auth>") -> str:
    """The document that says where to look."""
    return f"<source><host name='{xapi.hosts[0]}' port='{xapi.port}'/><api scheme='http'/>{login}</source>"


def test_each_repository_is_a_definition_that_works(engine: Engine, xapi: Any, api: Api) -> None:
    shared, local = make_sr(api, "gold nfs"), make_sr(api, "gold nfs", "lvm", {"device": "/dev/sdb"}, shared=False)
    make_vdi(api, shared, "disk", 4 * MIB)
    found = engine.proposed("xensm", engine.discover("xensm", where(xapi)))
    assert {(one.name, one.source.repository.uuid, one.source.format) for one in found} <= {
        (name, uuid, type) for name in ("gold-nfs", "gold-nfs-2") for uuid, type in ((shared, "nfs"), (local, "lvm"))
    }
    assert {one.source.name for one in found} == {"gold nfs"} and len(found) == 2
    for one in found:
        pool = engine.define(xmlmap.write(one))
        pool.start()
        assert [volume.name for volume in pool.volumes()] == (["disk"] if one.source.format == "nfs" else [])


def test_a_repository_whose_record_is_broken_is_left_out(engine: Engine, xapi: Any, api: Api) -> None:
    make_sr(api, "good")
    bad = make_sr(api, "bad", "lvm", {"device": "/dev/sdb"})

    def change(method: str, value: Any) -> Any:
        if method == "SR.get_all_records":
            for one in value.values():
                if one["uuid"] == bad:
                    one["type"] = None
        return value

    with answering(change):
        assert [one.name for one in engine.discover("xensm", where(xapi))] == ["good"]

    def odd(method: str, value: Any) -> Any:
        if method == "SR.get_all_records":
            for one in value.values():
                one.update(name_label="a\x1bb", type="two words" if one["uuid"] == bad else one["type"])
        return value

    with answering(odd):
        (only,) = engine.discover("xensm", where(xapi))
        assert (only.name, only.source.name) == ("a-b", None)


def test_where_to_look_has_to_be_said_with_a_login(engine: Engine, xapi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^a login is needed to reach hosts"):
        engine.discover("xensm", where(xapi, ""))
    with pytest.raises(errors.LoginRefused) as caught:
        engine.discover("xensm", where(xapi).replace("root", "nobody"))
    assert str(caught.value).startswith("could not log in at") and caught.value.pool is None
    with pytest.raises(errors.InvalidDefinition, match="tagret"):
        engine.discover("xensm", "<source><tagret/></source>")
    monkeypatch.setattr("poolkit.engine.storage_manager.SOCKET", "/nowhere")
    with pytest.raises(errors.InvalidArgument, match="nothing says where XAPI is"):
        engine.discover("xensm")


def test_the_command_looks_where_the_host_says(
    engine: Engine, xapi: Any, api: Api, root: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sr = make_sr(api, "gold")
    settings = root / "host.toml"
    settings.write_text(f'[xapi]\nurl = "{xapi.url}"\nusername = "root"\nsecret = "xen login"\n')
    settings.chmod(0o600)
    assert main(["--root", str(root), "find-sources", "xensm"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("<sources>\n") and f"<sr uuid='{sr}'/>" in said and "<secret usage='xen login'/>" in said
    assert main(["--root", str(root), "find-sources-as", "xensm", "--define"]) == 0
    assert "<name>gold</name>" in capsys.readouterr().out
    document = root / "where.xml"
    document.write_text("\n<source>\n<host/></source>")
    assert main(["--root", str(root), "find-sources", "xensm", str(document)]) == 3
    assert f"{document}:3:1: " in capsys.readouterr().err
