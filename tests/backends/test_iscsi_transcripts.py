"""What pools of type iscsi run, and what each answer of iscsiadm means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, registry, xmlmap
from poolkit.families import initiator, portals
from poolkit.testing import Answer, ScriptedHost, transcript

UUID = "5b1e3b4e-94a7-4c1f-8a3f-0d5d0d1d7a11"
IQN = "iqn.2013-06.com.example:disks"
ME = f"poolkit-{UUID}"
ASK = f"iscsiadm -m discovery -t sendtargets -p {{}} -I {ME} -o nonpersistent"
NODE = f"iscsiadm -m node -T {IQN} -p {{}},1 -I {ME} {{}}"
SECRET = "never-to-be-seen"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records and sessions of this test alone."""
    monkeypatch.setattr(portals, "RECORDS", (f"{tmp_path}/iscsi",))
    monkeypatch.chdir(tmp_path)
    return tmp_path


Scripted = partial(ScriptedHost, machine=".")
"""A scripted host that sees the sessions of this test."""


def xml(hosts: Sequence[str] = ("192.0.2.1",), more: str = "", outer: str = "") -> str:
    servers = "".join(f"<host name='{host}'/>" for host in hosts)
    return (
        f"<pool type='iscsi' xmlns:pk='urn:poolkit:pool:1'><name>luns</name><uuid>{UUID}</uuid><source>{servers}"
        f"<device path='{IQN}'/>{more}</source><target><path>/dev/disk/by-path</path></target>{outer}</pool>"
    )


def session(machine: Path, number: int, interface: str = ME, target: str = IQN, name: str = "iqn.host") -> None:
    """A session as sysfs shows it, at 192.0.2.1."""
    place = machine / "sys/class/iscsi_session" / f"session{number}"
    place.mkdir(parents=True)
    facts = {"targetname": target, "ifacename": interface, "initiatorname": name, "state": "LOGGED_IN"}
    for fact, value in facts.items():
        (place / fact).write_text(f"{value}\n")


def record(machine: Path, portal: str = "192.0.2.1,3260,1") -> Path:
    place = machine / "iscsi" / "nodes" / IQN / portal
    place.mkdir(parents=True)
    lines = [
        "# BEGIN RECORD 2.1.8",
        "node.startup = automatic",
        "node.session.auth.authmethod = None",
        "# END RECORD",
        "",
    ]
    (place / ME).write_text("\n".join(lines))
    return place / ME


def start(backend: Any) -> Any:
    return backend.start()


def stop(backend: Any) -> Any:
    return backend.stop()


def found(address: str = "192.0.2.1:3260") -> dict[str, Any]:
    return {"iscsiadm -m discovery": f"{address},1 {IQN}\n{address},1 iqn.other\n"}


def test_start() -> None:
    assert transcript(xml(), start, Scripted(found())) == [
        f"! iscsiadm -m iface -I {ME} -o new",
        f"? {ASK.format('192.0.2.1:3260')}",
        f"! {NODE.format('192.0.2.1:3260', '-o new')}",
        f"! write the login into the node record of '{ME}'",
        f"! {NODE.format('192.0.2.1:3260', '--login')}",
    ]


def test_start_with_a_name_of_its_own() -> None:
    lines = transcript(xml(more="<initiator><iqn name='iqn.me'/></initiator>"), start, Scripted(found()))
    assert lines[:2] == [
        f"! iscsiadm -m iface -I {ME} -o new",
        f"! iscsiadm -m iface -I {ME} -o update -n iface.initiatorname -v iqn.me",
    ]


def test_start_at_an_address_of_six_words() -> None:
    lines = transcript(xml(["2001:db8::1"]), start, Scripted(found("[2001:db8::1]:3260")))
    assert lines[1] == f"? {ASK.format(chr(39) + '[2001:db8::1]:3260' + chr(39))}"
    assert lines[-1].endswith("--login") and "'[2001:db8::1]:3260,1'" in lines[-1]


def test_start_takes_each_address_of_a_name() -> None:
    answers = {
        "getent --no-addrconfig ahosts -- nas": "2001:db8::1 STREAM nas\n2001:db8::1 DGRAM\n192.0.2.1 STREAM\n",
        "iscsiadm -m discovery": [Answer("", 11, "Connection refused"), f"192.0.2.1:3260,1 {IQN}\n"],
    }  # fmt: skip
    lines = transcript(xml(["nas"]), start, Scripted(answers))
    assert [line for line in lines if "discovery" in line] == [
        f"? {ASK.format(chr(39) + '[2001:db8::1]:3260' + chr(39))}", f"? {ASK.format('192.0.2.1:3260')}"
    ]  # fmt: skip
    assert lines[-1] == f"! {NODE.format('192.0.2.1:3260', '--login')}"


def test_start_goes_where_the_portal_says_the_target_is() -> None:
    lines = transcript(xml(), start, Scripted(found("192.0.2.77:3260")))
    assert lines[-1] == f"! {NODE.format('192.0.2.77:3260', '--login')}"


def test_a_portal_that_does_not_tell_is_tried() -> None:
    lines = transcript(xml(), start, Scripted({"iscsiadm -m discovery": Answer("", 24, "auth")}))
    assert lines[-1] == f"! {NODE.format('192.0.2.1:3260', '--login')}"


def test_start_with_a_session_there_changes_nothing(machine: Path) -> None:
    session(machine, 3)
    assert transcript(xml(), start, Scripted()) == []


def test_start_forgets_what_is_left_of_a_restart(machine: Path) -> None:
    record(machine, "192.0.2.9,3260,1")
    (machine / "iscsi" / "ifaces").mkdir()
    (machine / "iscsi" / "ifaces" / ME).touch()
    lines = transcript(xml(), start, Scripted(found()))
    assert lines[:2] == [
        f"! {NODE.format('192.0.2.9:3260', '-o delete')}", f"! iscsiadm -m iface -I {ME} -o delete"
    ]  # fmt: skip


def test_stop_ends_only_the_pools_own_session(machine: Path) -> None:
    session(machine, 2, "default")
    session(machine, 3)
    session(machine, 4, "poolkit-00000000-0000-0000-0000-000000000000")
    record(machine)
    assert transcript(xml(), stop, Scripted()) == [
        "! iscsiadm -m session -r 3 --logout", f"! {NODE.format('192.0.2.1:3260', '-o delete')}"
    ]  # fmt: skip


def test_stop_of_what_is_down_changes_nothing() -> None:
    assert transcript(xml(), stop, Scripted()) == []


def test_the_login_is_written_into_the_record_and_nowhere_else(machine: Path) -> None:
    place = record(machine)
    host = Scripted(found())
    host.on_secret = lambda type, uuid, usage: f"{SECRET}-{usage}".encode()
    auth = "<auth type='chap' username='we'><secret usage='a'/></auth>"
    outer = "<pk:mutual_auth username='they'><pk:secret usage='b'/></pk:mutual_auth>"
    lines = transcript(xml(more=auth, outer=outer), start, host)
    text = place.read_text()
    assert text.splitlines() == [
        "# BEGIN RECORD 2.1.8", "node.startup = manual", "node.session.nr_sessions = 1",
        "node.session.initial_login_retry_max = 2", "node.session.auth.authmethod = CHAP", "node.session.auth.username = we",
        f"node.session.auth.password = {SECRET}-a", "node.session.auth.username_in = they",
        f"node.session.auth.password_in = {SECRET}-b", "# END RECORD",
    ]  # fmt: skip
    assert place.stat().st_mode & 0o777 == 0o600
    assert SECRET not in "\n".join([*lines, *map(str, host.journal.steps), *map(str, host.plan)])


def backend(document: str, host: ScriptedHost) -> Any:
    return registry.backend("iscsi")(xmlmap.read(document, registry.definitions()), host)


def run_start(document: str, host: ScriptedHost) -> None:
    backend(document, host).start()


def test_what_a_failed_login_has_taken_back() -> None:
    """Session, node record and interface record, newest first, each only in the state in which this start left it."""
    host = Scripted(found() | {NODE.format("192.0.2.1:3260", "--login"): Answer("", 19, "no")})
    with pytest.raises(errors.LoginRefused):
        run_start(xml(), host)
    assert [(step.field("answer"), step.field("argv")[-1]) for step in reversed(host.journal.steps)] == [
        ("session interface node", "--logout"), ("interface node", "delete"), ("interface", "delete")
    ]  # fmt: skip


ERRORS = [
    (4, "", errors.Unreachable, "does not answer"),
    (8, "", errors.Unreachable, "does not answer"),
    (11, "cannot make connection: Connection refused", errors.Unreachable, "refuses connections"),
    (12, "", errors.Unsupported, "no driver"),
    (13, "", errors.PermissionDenied, "failed with status 13"),
    (18, "", errors.HostError, "iscsid does not run"),
    (20, "", errors.HostError, "iscsid does not run"),
    (1, "odd", errors.HostError, "failed with status 1: odd"),
]


@pytest.mark.parametrize(("status", "stderr", "kind", "words"), ERRORS)
def test_what_discovery_answers(status: int, stderr: str, kind: type[errors.PoolkitError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        run_start(xml(), Scripted({"iscsiadm -m discovery": Answer("", status, stderr)}))
    assert caught.value.pool == "luns" and type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (19, errors.LoginRefused, "refused the login"),  # also a target that does not prove who it is
        (21, errors.NotFound, "does not have the target"),
        (24, errors.LoginRefused, "refused the login"),
        (8, errors.Unreachable, "does not answer"),
    ],
)
def test_what_a_login_answers(status: int, kind: type[errors.PoolkitError], words: str) -> None:
    answers = found() | {NODE.format("192.0.2.1:3260", "--login"): Answer("", status, "said")}
    with pytest.raises(kind, match=words) as caught:
        run_start(xml(), Scripted(answers))
    assert type(caught.value) is kind and "192.0.2.1:3260" in str(caught.value)


def test_a_portal_that_did_not_tell_may_not_have_the_target() -> None:
    login = NODE.format("192.0.2.1:3260", "--login")
    answers = {"iscsiadm -m discovery": Answer("", 24, "auth"), login: Answer("", 19, "no")}
    with pytest.raises(errors.NotFound, match="does not have the target"):
        run_start(xml(), Scripted(answers))


def test_a_session_that_came_meanwhile_is_the_pools() -> None:
    run_start(xml(), Scripted(found() | {NODE.format("192.0.2.1:3260", "--login"): Answer("", 15, "exists")}))


@pytest.mark.parametrize("said", ["", "192.0.2.1:3260,1 iqn.other\n"])
def test_a_target_that_is_not_offered(said: str) -> None:
    with pytest.raises(errors.NotFound, match=f"has no target '{IQN}'") as caught:
        run_start(xml(), Scripted({"iscsiadm -m discovery": said}))
    assert ("iqn.other" if said else "none") in str(caught.value.hint)


def test_a_name_that_would_work_on_the_terminal_is_not_shown() -> None:
    said = f"192.0.2.1:3260,1 iqn.other\n192.0.2.1:3260,1 iqn.\x1b[31m\n192.0.2.1:3260,1 {IQN}\x07\n"
    with pytest.raises(errors.NotFound) as caught:
        run_start(xml(), Scripted({"iscsiadm -m discovery": said}))
    assert "iqn.other" in str(caught.value.hint) and str(caught.value.hint).isprintable()


def test_the_error_is_that_of_the_portal_that_got_furthest() -> None:
    """One of three refuses connections, one has no such target, one does not let us in."""
    answers = {
        "iscsiadm -m discovery": [Answer("", 11, "refused"), "", f"192.0.2.3:3260,1 {IQN}\n"],
        "iscsiadm -m node": ["", Answer("", 24, "auth")],
    }  # fmt: skip
    with pytest.raises(errors.LoginRefused) as caught:
        run_start(xml(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), Scripted(answers))
    assert all(f"192.0.2.{number}" in str(caught.value) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("who", "up"), [("iqn.host", True), ("iqn.other", False)], ids=["by the host's name", "by another name"]
)
def test_whose_session_counts(machine: Path, who: str, up: bool) -> None:
    """A session of somebody else counts if it is at the pool's portal and by the name that the pool would take."""
    (machine / "iscsi").mkdir()
    (machine / "iscsi" / "initiatorname.iscsi").write_text("# one\nInitiatorName=iqn.host\n")
    session(machine, 1, "default", name=who)
    host = Scripted()
    found = [one._replace(portals=(portals.Portal("192.0.2.1", 3260),)) for one in initiator.sessions(host)]
    host._shared["iscsi sessions"] = found
    pool = backend(xml(), host)
    assert pool.state().up is up
    assert up or "not logged in" in pool.state().why
    host._shared["iscsi sessions"] = [one._replace(portals=(portals.Portal("192.0.2.9", 3260),)) for one in found]
    assert not pool.state().up, "it is at another portal"


@pytest.mark.parametrize("place", ["/srv/luns", "/devices"])
def test_a_target_path_without_devices_is_refused(place: str) -> None:
    document = xml().replace("/dev/disk/by-path", place)
    with pytest.raises(errors.InvalidArgument, match="no paths of devices"):
        backend(document, Scripted()).claims()
