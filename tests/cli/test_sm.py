"""``sm``: the commands of the storage manager's manual, against the peer that speaks XenAPI."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.backends.xensm.server import calls

from .conftest import Command

ADD = ("backend-add", "gold", "nfs", "name_label=mybackend", "server=myserver", "serverpath=/local/scratch/myname")


@pytest.fixture
def sm(poolkit: Command, xapi: Any) -> Command:
    """The command, with a ``host.toml`` that says where the peer is."""
    document = poolkit.folder / "secret.xml"
    document.write_text("<secret><usage type='xapi'><name>xen login</name></usage></secret>")
    poolkit("secret-define", document)
    poolkit("secret-set-value", "xen login", "--file", xapi.password_file, "--plain")
    settings = poolkit.root / "host.toml"
    settings.write_text(f'[xapi]\nurl = "{xapi.url}"\nusername = "{xapi.user}"\nsecret = "xen login"\n')
    settings.chmod(0o600)
    return poolkit


@pytest.fixture
def api(xapi: Any) -> Iterator[Any]:
    with calls(xapi) as api:
        yield api


def repositories(api: Any) -> list[str]:
    return sorted(sr["name_label"] for sr in api.call("SR.get_all_records").values() if sr["type"] == "nfs")


def test_the_commands_of_the_manual(sm: Command, api: Any) -> None:
    sm("sm", "flavor-create", "gold", "Not all that glitters")
    assert "gold  Not all that glitters" in sm("sm", "flavor-list").out
    assert "already" in sm("sm", "flavor-create", "gold", status=5).err
    answer = sm("sm", *ADD)
    assert answer.out.startswith("backend 1 of flavor 'gold' is pool 'mybackend', repository ")
    (sr,) = [sr for sr in api.call("SR.get_all_records").values() if sr["name_label"] == "mybackend"]
    (backend,) = sm("sm", "backend-list", "--json").json
    config = {"server": "myserver", "serverpath": "/local/scratch/myname"}
    assert backend == {
        "number": 1, "flavor": "gold", "pool": "mybackend", "uuid": sr["uuid"], "type": "nfs", "config": config,
    }  # fmt: skip
    assert f"gold    mybackend  {sr['uuid']}  nfs   server=myserver" in sm("sm", "backend-list").out
    sm("vol-create-as", "--flavor", "gold", "disk1", "4MiB", "--allocation", "0")
    assert "has volumes in it: disk1" in sm("sm", "backend-remove", "1", status=9).err
    assert sm("sm", "flavor-delete", "gold", status=9)
    sm("vol-delete", "disk1", "mybackend")
    assert "data stay" in sm("sm", "backend-remove", "1").out
    assert sm("sm", "backend-list", "--json").json == [] and repositories(api) == ["mybackend"]
    assert not any(pbd["currently_attached"] for ref in sr["PBDs"] for pbd in [api.call("PBD.get_record", ref)])
    assert sm("sm", "backend-remove", "1", status=4)
    sm("sm", "flavor-delete", "gold")
    assert sm("sm", "flavor-list", "--json").json == []
    assert sm("sm", "flavor-delete", "gold", status=4)


def test_the_manual(sm: Command) -> None:
    """The commands of the page on flavors, in order, with the answers that it shows; a uuid is another each time."""
    page = (Path(__file__).parents[2] / "docs" / "flavors.md").read_text()
    _, _, session = page.partition("```text\n$ poolkit sm")
    lines = f"$ poolkit sm{session.partition('```')[0]}".splitlines()
    commands = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    assert len(commands) > 5
    for at, end in zip(commands, [*commands[1:], len(lines)], strict=True):
        out = sm(*shlex.split(lines[at])[2:]).out
        shown = [re.escape(line).replace("UUID", "[0-9a-f-]{36}").replace("\\ ", " +") for line in lines[at + 1 : end]]
        shown = [line.replace("SR +[0-9a-f-]{36}", "SR UUID") for line in shown]
        assert re.fullmatch("".join(f" *{line} *\n" for line in shown), out), (lines[at], out)


def test_a_repository_that_exists_is_introduced(sm: Command, api: Any) -> None:
    sm("sm", "flavor-create", "gold")
    sm("sm", *ADD)
    (first,) = sm("sm", "backend-list", "--json").json
    sm("sm", "backend-remove", "1")
    again = sm("sm", *ADD, "--json").json
    assert (again["number"], again["uuid"]) == (1, first["uuid"]), "the hosts knew it by its name"
    sm("sm", "backend-remove", "1")
    reference = api.call("SR.get_by_uuid", first["uuid"])
    api.call("SR.forget", reference)
    words = ("server=myserver", "serverpath=/local/scratch/myname")
    introduced = sm(
        "sm", "backend-add", "gold", "nfs", "name_label=old", f"sr_uuid={first['uuid']}", *words, "--json"
    ).json
    assert introduced["uuid"] == first["uuid"]


def test_numbers_are_kept_and_pools_shared(sm: Command) -> None:
    for flavor in ("gold", "silver"):
        sm("sm", "flavor-create", flavor, "a = b, and blanks")
    for number, name in enumerate(("a", "b"), 1):
        made = sm(
            "sm", "backend-add", "gold", "nfs", f"name_label={name}", "server=s", f"serverpath=/x={number} y", "--json"
        )
        assert made.json["number"] == number and made.json["config"]["serverpath"] == f"/x={number} y"
    document = sm.folder / "silver.xml"
    document.write_text("<flavor><name>silver</name><backend pool='b' number='3'/></flavor>")
    sm("flavor-define", document)
    sm("sm", "backend-remove", "1")
    assert [one["number"] for one in sm("sm", "backend-list", "--json").json] == [2, 3]
    sm("sm", "backend-remove", "2")
    assert [pool["name"] for pool in sm("list", "--json").json] == ["b"], "another flavor has it"
    assert sm("sm", "backend-list", "silver", "--json").json[0]["number"] == 3


def test_a_number_that_two_have_is_refused(sm: Command) -> None:
    for flavor, pool in (("gold", "a"), ("silver", "b")):
        document = sm.folder / "flavor.xml"
        document.write_text(f"<flavor><name>{flavor}</name><backend pool='{pool}' number='3'/></flavor>")
        sm("flavor-define", document)
    assert [one["pool"] for one in sm("sm", "backend-list", "--json").json] == ["a", "b"]
    said = sm("sm", "backend-remove", "3", status=2).err
    assert "pool 'a' of flavor 'gold'" in said and "pool 'b' of flavor 'silver'" in said


def test_what_others_change_of_a_flavor_while_a_repository_is_made_stays(sm: Command, xapi: Any) -> None:
    """Making a repository takes long; meanwhile the flavor gets a description and a backend with the next number."""
    sm("sm", "flavor-create", "gold")
    changed = "<flavor><name>gold</name><description>changed</description><backend pool='theirs' number='1'/></flavor>"
    with Engine(sm.root) as engine:
        define = engine.flavors.define

        def during(pool: Pool, **how: Any) -> Any:
            define(changed)
            return start(pool, **how)

        start = Pool.start
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pool, "start", during)
            config = {"name_label": "mybackend", "server": "myserver", "serverpath": "/local/scratch/myname"}
            made = engine.storage_manager.add("gold", "nfs", config)
        flavor = engine.flavors.get("gold").definition
    assert (made.number, made.pool) == (2, "mybackend") and flavor.description == "changed"
    assert [(one.pool, one.number) for one in flavor.backends] == [("theirs", 1), ("mybackend", 2)]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("backend-add", "gold", "nfs", "server"), 2, "no KEY=VALUE"),
        (("backend-add", "gold", "nfs", "server=a", "server=b"), 2, "given twice"),
        (("backend-add", "gold", "iscsi", "chappassword=x"), 2, "is a password"),
        (("backend-add", "gold", "nfs", "sever=a", "serverpath=/x"), 2, "have no parameter 'sever'"),
        (("backend-add", "gold", "nfs", "server=a"), 2, "need the parameter 'serverpath'"),
        (("backend-add", "lead", "nfs", "server=a", "serverpath=/x"), 4, "lead"),
        (("backend-add", "gold"), 2, "takes FLAVOR TYPE KEY=VALUE"),
        (("backend-remove", "one"), 2, "no number"),
        (("backend-remove", "7"), 4, "there is no backend 7"),
        (("backend-list", "lead"), 4, "lead"),
        (("flavor-create",), 2, "takes FLAVOR"),
        (("flavour-list",), 2, "flavor-list"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(
    sm: Command, api: Any, words: tuple[str, ...], status: int, said: str
) -> None:
    sm("sm", "flavor-create", "gold")
    assert said in sm("sm", *words, status=status).err
    assert repositories(api) == [] and sm("list", "--all", "--json").json == []


def test_a_repository_that_cannot_be_made_leaves_no_pool(sm: Command, xapi: Any, api: Any) -> None:
    sm("sm", "flavor-create", "gold")
    xapi.fault("SR.create", "fail", failure=["SR_BACKEND_FAILURE_73", "", "NFS mount error", ""])
    sm("sm", *ADD, status=None)
    assert repositories(api) == [] and sm("list", "--all", "--json").json == []
    assert sm("sm", "backend-list", "--json").json == []


def test_a_dry_run_says_what_would_be(sm: Command, api: Any) -> None:
    sm("sm", "flavor-create", "gold")
    said = sm("--dry-run", "sm", *ADD).out
    assert said.startswith("backend 1 of flavor 'gold' would be pool 'mybackend', a new repository")
    facts = sm("--dry-run", "--json", "sm", "backend-add", "gold", "smb", "server=s", "password_secret=xen login").json
    assert facts["config"] == {"server": "s", "password": "secret:xen login"} and facts["dry_run"]
    assert "need the parameter" in sm("--dry-run", "sm", *ADD[:-1], status=2).err
    assert repositories(api) == [] and sm("list", "--all", "--json").json == []
    sm("sm", *ADD)
    assert "would be removed" in sm("--dry-run", "sm", "backend-remove", "1").out
    assert len(sm("sm", "backend-list", "--json").json) == 1 and sm("info", "mybackend", "--json").json["active"]


def test_hints_are_in_the_words_of_sm(sm: Command, xapi: Any) -> None:
    sm("sm", "flavor-create", "gold")
    assert sm("sm", *ADD[:-1], status=2).err.endswith("\nhint: serverpath=...\n")
    settings = sm.root / "host.toml"
    settings.write_text(f'[xapi]\nurl = "{xapi.url}"\nusername = "nobody"\nsecret = "xen login"\n')
    assert f"hint: is the secret that [xapi] of '{settings}' names the password" in sm("sm", *ADD, status=14).err
    settings.write_text(f'[xapi]\nurl = "{xapi.url}"\n')
    assert f"""hint: in '{settings}': [xapi] username = "root", secret = "USAGE\"\n""" in sm("sm", *ADD, status=2).err


@pytest.mark.tools("openssl")
def test_the_certificate_is_named_where_sm_has_it(sm: Command, xapi: Any) -> None:
    sm("sm", "flavor-create", "gold")
    settings = sm.root / "host.toml"
    settings.write_text(f'[xapi]\nurl = "{xapi.tls_url}"\nusername = "{xapi.user}"\nsecret = "xen login"\n')
    said = sm("sm", *ADD, status=13).err
    assert (
        f"""hint: name the certificate in '{settings}': [xapi] certificate = "FILE", or fingerprint = "SHA256\""""
        in said
    )
    settings.write_text(f'{settings.read_text()}certificate = "{xapi.certificate}"\n')
    assert sm("sm", *ADD).out.startswith("backend 1 of flavor 'gold' is pool 'mybackend', repository ")


def test_pools_that_a_deleted_flavor_leaves_are_told(sm: Command) -> None:
    sm("sm", "flavor-create", "gold")
    sm("sm", *ADD)
    answer = sm("sm", "flavor-delete", "gold")
    assert "the pools of its backends stay, without numbers: mybackend" in answer.err


def test_without_a_word_of_where_xapi_is(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.engine.storage_manager.SOCKET", str(poolkit.folder / "none"))
    poolkit("sm", "flavor-create", "gold")
    answer = poolkit("sm", *ADD, status=2)
    assert "nothing says where XAPI is" in answer.err and '[xapi] url = "https://HOST"' in answer.err
    settings = poolkit.root / "host.toml"
    for text, said in {
        '[xapi]\nurl = "ftp://x"': "no address of XAPI", '[xapi]\nurl = "https://x:y"': "no address of XAPI",
        '[xapi]\nurl = "https://[x"': "no address of XAPI", '[xapi]\nurl = "https://root:hunter2@x"': "no address of XAPI",
        "[xapi]\nurl = 5": "are texts", '[xapi]\nuser = "root"': "not 'user'", "[xen]": "not 'xen'",
        '[xapi]\nurl = "https://xen1.example.com"': "a login is needed",
    }.items():  # fmt: skip
        settings.write_text(text)
        settings.chmod(0o600)
        answer = poolkit("sm", *ADD, status=2)
        assert said in answer.err and "hunter2" not in answer.err
