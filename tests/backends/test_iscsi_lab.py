"""Pools of type iscsi in the lab, on real targets: tgtd and the kernel's own; portals that hang, refuse and come back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import errors
from poolkit.documents import FoundSource
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import initiator
from poolkit.host import Host, programs, worker
from poolkit.model import SourceHost
from poolkit.testing import BackendContract

from ..lab.fixtures import sh, wait_until
from ..sweep import Sampled
from .deaths import deaths
from .targets import MIB, Lio, Tgt

pytestmark = pytest.mark.lab

EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
IQN = "iqn.2004-10.com.example:plain"
CHAP = "iqn.2004-10.com.example:chap"
ME = "iqn.2004-10.com.example:me"
HERE = "<host name='127.0.0.1'/>"
PASSWORD, ANSWER = "opensesame-12", "sesame-opens-34"


@pytest.fixture(scope="module")
def daemon() -> Iterator[None]:
    """The kernel's initiator and iscsid, which finds out within three seconds that a target is silent."""
    sh("modprobe", "-a", "iscsi_tcp", "sd_mod")
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    Path("/etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.2004-10.com.example:host\n")
    settings = Path("/etc/iscsi/iscsid.conf")
    settings.write_text(re.sub(r"(noop_out_(?:interval|timeout)) = 5", r"\1 = 2", settings.read_text()))
    sh("iscsid")
    wait_until(lambda: sh("pgrep", "-x", "iscsid", check=False), "iscsid")
    yield
    sh("iscsiadm", "-m", "session", "-u", check=False)
    sh("killall", "-q", "-w", "iscsid", check=False)


@pytest.fixture(scope="module")
def tgt(daemon: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tgt]:
    server = Tgt(tmp_path_factory.mktemp("units"), "127.0.0.1:3260", "[::1]:3260")
    server.target(IQN, 8, 4)
    server.target(CHAP, 4)
    server.account(CHAP, "client", PASSWORD)
    server.account(CHAP, "server", ANSWER, outgoing=True)
    yield server
    server.close()


@pytest.fixture
def alone() -> Iterator[None]:
    """Without a session and records before and after the test."""
    assert left() == ([], [])
    yield
    sh("iscsiadm", "-m", "session", "-u", check=False)
    for record in left()[1]:
        os.unlink(record)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DEADLINE", 3.0)
    monkeypatch.setattr(worker, "SILENCE", 2.0)


def definition(target: str = IQN, hosts: str = HERE, more: str = "", outer: str = "", name: str = "luns") -> str:
    return (
        f"<pool type='iscsi' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name><source>{hosts}<device path='{target}'/>{more}"
        f"</source><target><path>/dev/disk/by-path</path></target>{outer}</pool>"
    )


def who(name: str) -> str:
    return f"<initiator><iqn name='{name}'/></initiator>"


def chap() -> str:
    return "<auth type='chap' username='client'><secret usage='luns'/></auth>"


def mutual() -> str:
    return "<pk:mutual_auth username='server'><pk:secret usage='answer'/></pk:mutual_auth>"


def keep(engine: Engine, usage: str, value: str) -> None:
    text = f"<secret><usage type='iscsi'><target>{usage}</target></usage></secret>"
    engine.define_secret(text).set_value(value.encode())


def left() -> tuple[list[tuple[str, str]], list[str]]:
    """The sessions of this host, and the records of poolkit's."""
    records = [str(path) for kind in ("ifaces", "nodes") for path in Path("/etc/iscsi", kind).rglob("*poolkit-*")]
    return sorted((one.target, one.interface) for one in initiator._sessions(Host().devices)), sorted(records)


def started(engine: Engine, document: str) -> Pool:
    pool = engine.define(document)
    pool.start()
    return pool


@pytest.fixture(scope="class")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("standing") / "root") as engine:
        yield engine
        for pool in engine.pools(active=True):
            engine.pool(pool.name).destroy()
    assert left() == ([], [])


class TestContract(BackendContract):
    """On a pool that mostly stays up: logging in takes most of the time."""

    test_an_interrupted_start_leaves_nothing = None  # further down it dies at steps of start and of stop

    @pytest.fixture
    def engine(self, standing: Engine) -> Engine:
        return standing

    @pytest.fixture
    def pool_xml(self, request: pytest.FixtureRequest, standing: Engine, tgt: Tgt) -> str:
        if request.function.__name__ == "test_the_lifecycle_is_repeatable" and standing.pools():
            standing.pool("luns").destroy()
            standing.pool("luns").undefine()
        return definition()


# -- sessions -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_killed_at_the_steps_of_start_and_stop(tgt: Tgt, tmp_path: Path, sampled: Sampled[int]) -> None:
    """A start is done or leaves nothing; a stop is done, or the pool is up as before."""
    root = tmp_path / "root"
    with Engine(root) as engine:
        engine.define(definition())
    for engine in deaths(root, lambda engine: engine.pool("luns").start(), sampled):
        pool = engine.pool("luns")
        if not pool.info.active:
            assert left() == ([], [])
        assert engine.not_undone() == []
        pool.destroy()
    for engine in deaths(root, lambda engine: engine.pool("luns").destroy(), sampled):
        pool = engine.pool("luns")
        if pool.info.active:
            assert len(left()[0]) == 1 and len(left()[1]) == 2
        else:
            assert left() == ([], [])
        assert engine.not_undone() == []
        pool.start()
    with Engine(root) as engine:
        engine.pool("luns").destroy()
    assert left() == ([], [])


@pytest.mark.usefixtures("alone")
def test_a_session_of_somebody_else_is_used_and_left(engine: Engine, tgt: Tgt) -> None:
    """By the same name it is the pool's as well; by another one the pool has a session of its own, and ends only that."""
    sh("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", "127.0.0.1:3260")
    sh("iscsiadm", "-m", "node", "-T", IQN, "-p", "127.0.0.1:3260", "--login")
    try:
        pool = engine.define(definition(hosts="<host name='localhost'/>"))
        outcome = pool.start()
        assert "logged in to the target" in " ".join(outcome.warnings)
        assert left() == ([(IQN, "default")], []) and len(pool.volumes()) == 2
        pool.volume("unit:0:0:1").upload(BytesIO(b"x"))
        assert pool.destroy()
        assert left() == ([(IQN, "default")], [])
        other = started(engine, definition(more=who(ME), name="mine"))
        assert len(left()[0]) == 2 and len(other.volumes()) == 2
        assert initiator.session(engine.host.operation(), other.definition()).initiator == ME  # type: ignore[union-attr]
        assert other.destroy()
        assert left() == ([(IQN, "default")], [])
        pool.start()
        sh("iscsiadm", "-m", "session", "-u")
        assert not pool.info.active and "not logged in to the target" in pool.info.reason
    finally:
        sh("iscsiadm", "-m", "session", "-u", check=False)
        sh("iscsiadm", "-m", "node", "-o", "delete", check=False)


@pytest.mark.usefixtures("alone")
def test_what_a_restart_of_the_machine_leaves(engine: Engine, tgt: Tgt) -> None:
    """Records of a session that is gone, at a portal that the definition does not name any more."""
    pool = started(engine, definition())
    sh("iscsiadm", "-m", "session", "-u")
    assert not pool.info.active and len(left()[1]) == 2
    pool.destroy()
    pool = engine.define(pool.xml(inactive=True).replace("127.0.0.1", "::1"))
    pool.start()
    assert [name for name in left()[1] if "nodes" in name and "::1,3260,1" in name] and len(left()[1]) == 2
    assert pool.volume("unit:0:0:1").path.startswith("/dev/disk/by-path/ip-")
    pool.destroy()


@pytest.mark.usefixtures("alone")
def test_discovery(engine: Engine, tgt: Tgt) -> None:
    for name in (None, ME):
        found = engine.discover("iscsi", FoundSource(hosts=(SourceHost(name="127.0.0.1"),), initiator=name))
        assert [(one.hosts[0].name, one.devices[0].path, one.initiator) for one in found] == [
            ("127.0.0.1", IQN, name), ("127.0.0.1", CHAP, name)
        ]  # fmt: skip
    assert left() == ([], [])


# -- who is let in ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_passwords_are_seen_by_nobody(tgt: Tgt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login in both directions: no argument, no environment, no journal and no plan has them; the record is root's alone."""
    seen: list[str] = []
    real = programs.start

    def spy(argv: object, **how: object) -> object:
        process = real(argv, **how)  # type: ignore[arg-type]
        seen.append(f"{argv} {Path(f'/proc/{process.pid}/environ').read_bytes()!r}")
        return process

    def fault(label: str) -> None:
        seen.append(label)
        seen.extend(
            path.read_text(errors="replace") for path in (tmp_path / "root").rglob("*journal*/*") if path.is_file()
        )

    monkeypatch.setattr(programs, "start", spy)
    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        keep(engine, "luns", PASSWORD)
        keep(engine, "answer", ANSWER)
        pool = engine.define(definition(CHAP, more=chap(), outer=mutual()))
        outcome = pool.start()
        (record,) = [Path(name) for name in left()[1] if "nodes" in name]
        assert record.stat().st_mode & 0o777 == 0o600
        assert f"password = {PASSWORD}\n" in record.read_text() and f"password_in = {ANSWER}\n" in record.read_text()
        assert len(pool.volumes()) == 1
        told = "\n".join([*seen, str(outcome), pool.xml()])
        assert "iscsiadm" in told and "interface node" in told, "the calls and the journal were seen"
        assert PASSWORD not in told and ANSWER not in told
        pool.destroy()
    assert left() == ([], []) and not sh("grep", "-r", "-e", PASSWORD, "-e", ANSWER, "/etc/iscsi", check=False)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("ours", "theirs"), [("another-one-56", None), (PASSWORD, "another-one-56"), (None, None)])
def test_a_login_that_is_refused(engine: Engine, tgt: Tgt, ours: str | None, theirs: str | None) -> None:
    for usage, value in (("luns", ours), ("answer", theirs)):
        if value is not None:
            keep(engine, usage, value)
    pool = engine.define(definition(CHAP, more=chap() if ours else "", outer=mutual() if theirs else ""))
    with pytest.raises(errors.LoginRefused, match="refused the login") as caught:
        pool.start()
    told = json.dumps(caught.value.as_dict())
    assert not [value for value in (ours, theirs) if value is not None and value in told]
    assert left() == ([], []) and not pool.info.active


@pytest.mark.usefixtures("alone")
def test_targets_and_portals_that_are_not_there(engine: Engine, tgt: Tgt) -> None:
    with pytest.raises(errors.NotFound, match="has no target 'iqn.2004-10.com.example:none'") as caught:  # noqa: RUF043
        started(engine, definition("iqn.2004-10.com.example:none"))
    assert IQN in str(caught.value.hint), "it says what there is"
    pool = engine.define(definition(hosts="<host name='127.0.0.1' port='1'/>", name="nobody"))
    with pytest.raises(errors.Unreachable, match="the portal 127.0.0.1:1 refuses connections"):  # noqa: RUF043
        pool.start()
    assert left() == ([], [])


@pytest.mark.usefixtures("alone")
def test_the_next_portal_and_the_next_address_are_used(engine: Engine, tgt: Tgt) -> None:
    """The first portal has no address, the second refuses; of localhost's addresses only one listens at this port."""
    tgt.tell("new", "portal", "--param", "portal=127.0.0.1:3261")
    sh("sed", "-i", "$a 127.0.0.1 two.example.com\\n::1 two.example.com", "/etc/hosts")
    pool = started(engine, definition(hosts="<host name='nowhere.invalid'/><host name='two.example.com' port='3261'/>"))
    assert len(pool.volumes()) == 2
    pool.destroy()
    pool = started(engine, definition(hosts="<host name='::1'/>", name="six"))
    assert len(pool.volumes()) == 2
    pool.destroy()


# -- units --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_units_come_go_grow_and_are_swapped(engine: Engine, tgt: Tgt) -> None:
    target = tgt.target("iqn.2004-10.com.example:units", 4)
    tgt.unit(target, 300, 4, block=4096, wwid="far")
    pool = started(engine, definition(target))
    first = pool.volume("unit:0:0:1")
    assert sorted(volume.name for volume in pool.volumes()) == ["unit:0:0:1", "unit:0:0:16684"], "300, flat addressing"
    tgt.unit(target, 7, 8, wwid="seven")
    tgt.remove(target, 300)
    pool.refresh()
    assert sorted(volume.name for volume in pool.volumes()) == ["unit:0:0:1", "unit:0:0:7"]
    tgt.remove(target, 1)
    tgt.unit(target, 1, 4, wwid="somebody-else")
    for verb in (lambda: first.upload(BytesIO(b"x")), first.wipe):
        with pytest.raises(errors.Unsafe, match="another logical unit") as caught:
            verb()
        assert first.key in str(caught.value)
    assert "another logical unit" in " ".join(pool.refresh().warnings)
    pool.volume("unit:0:0:1").upload(BytesIO(b"x"))
    pool.destroy()


@pytest.mark.usefixtures("alone")
def test_a_unit_grows_while_it_is_in_use(engine: Engine, tgt: Tgt) -> None:
    target = tgt.target("iqn.2004-10.com.example:growing")
    file = tgt.unit(target, 1, 4, wwid="growing")
    pool = started(engine, definition(target))
    volume = pool.volume("unit:0:0:1")
    key, capacity = volume.key, volume.info.capacity
    volume.upload(BytesIO(b"kept"))
    with open(volume.path, "rb") as user:
        tgt.remove(target, 1)  # tgtd takes a new size with a new unit alone; of the same WWID it is the same one
        os.truncate(file, 9 * MIB)
        tgt.unit(target, 1, 4, wwid="growing")
        assert not pool.refresh().warnings
        volume = pool.volume("unit:0:0:1")
        assert (volume.key, capacity, volume.info.capacity) == (key, 4 * MIB, 9 * MIB)
        assert pool.info.capacity == 9 * MIB
        assert user.seek(0, os.SEEK_END) == 9 * MIB, "whoever has it open sees the new size"
    volume.upload(BytesIO(b"end"), offset=9 * MIB - 3)
    out = BytesIO()
    volume.download(out, length=4)
    assert out.getvalue() == b"kept"
    pool.destroy()


@pytest.mark.usefixtures("alone")
def test_a_pool_in_use_is_not_stopped(engine: Engine, tgt: Tgt) -> None:
    pool = started(engine, definition())
    with open(pool.volume("unit:0:0:1").path, "rb"), pytest.raises(errors.Busy, match=rf"process {os.getpid()}"):
        pool.destroy()
    with pytest.raises(errors.Unsupported) as caught:
        pool.create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
    assert "by whoever runs the iSCSI target" in (caught.value.hint or "")
    assert pool.info.active and pool.destroy()


# -- targets that do not answer -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_a_target_that_hangs_is_given_up_and_comes_back(
    engine: Engine, tgt: Tgt, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = started(engine, definition())
    volume = pool.volume("unit:0:0:1")
    key = volume.key

    class Freezing(BytesIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() >= 2 * MIB:
                tgt.freeze()
            return super().readinto(buffer)  # type: ignore[arg-type]

    def back() -> bool:
        return all(one.answers for one in initiator._sessions(Host().devices))

    try:
        with pytest.raises(errors.Unreachable, match="did not answer"):
            volume.upload(Freezing(os.urandom(8 * MIB)))
        with pytest.raises(errors.Unreachable, match="did not answer"):
            pool.refresh()
        assert pool.info.active and "did not answer" in pool.info.reason
        assert len(pool.volumes()) == 2, "the last listing stays"
        tgt.thaw()
        wait_until(back, "the session", 60)
        pool.refresh()
        volume.upload(BytesIO(os.urandom(8 * MIB)))
        assert pool.info.reason == "" and pool.volume("unit:0:0:1").key == key
        tgt.freeze()
        wait_until(lambda: not back(), "the kernel to notice", 60)
        assert pool.destroy(), "a session is ended whether the target answers or not"
        assert left() == ([], [])
        monkeypatch.setattr(initiator, "DISCOVERY", 5.0)
        with pytest.raises(errors.Unreachable, match=r"the portal 127\.0\.0\.1:3260 did not answer in time"):
            pool.start()
        assert left() == ([], [])
    finally:
        tgt.thaw()
    pool.start()
    assert pool.volume("unit:0:0:1").key == key
    pool.destroy()


# -- beside others ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_the_kernels_target_and_libvirt(engine: Engine, daemon: None, tmp_path: Path) -> None:
    """LIO with two portals and CHAP in both directions; then the same target by libvirtd: names, paths, keys, sizes, XML."""
    name = "iqn.2004-10.com.example:kernel"
    login = {"userid": "client", "password": PASSWORD, "userid_mutual": "server", "password_mutual": ANSWER}
    target = Lio(tmp_path, name, "127.0.0.1:3270", "127.0.0.1:3271", login=login)
    try:
        keep(engine, "luns", PASSWORD)
        keep(engine, "answer", ANSWER)
        hosts = "<host name='127.0.0.1' port='3271'/><host name='127.0.0.1' port='3270'/>"
        pool = started(engine, definition(name, hosts=hosts, more=chap(), outer=mutual()))
        assert [
            (one.target, [portal.port for portal in one.portals]) for one in initiator._sessions(Host().devices)
        ] == [(name, [3271])]
        ours = {volume.name: volume for volume in pool.volumes()}
        told = {one: (volume.path, volume.key, volume.xml()) for one, volume in ours.items()}
        pool.destroy()
        place = tmp_path / "libvirt"
        place.mkdir()
        (target.tpg / "attrib" / "authentication").write_text("0")  # its driver for storage alone has no secrets
        with PrivateLibvirtd(place) as peer:
            document = place / "pool.xml"
            document.write_text(definition(name, hosts="<host name='127.0.0.1' port='3271'/>"))
            peer.virsh("pool-define", document)
            peer.virsh("pool-start", "luns")
            theirs = peer.virsh("vol-list", "luns").split()[::2]
            assert sorted(theirs) == sorted(told)
            for one, (path, key, text) in told.items():
                dump = peer.virsh("vol-dumpxml", one, "luns")
                assert f"<key>{key}</key>" in dump and f"<path>{path}</path>" in dump
                # Times are those of the device node, which is new with each login.
                without = re.compile(r"\s*<timestamps>.*?</timestamps>", re.DOTALL)
                assert without.sub("", text.strip()) == without.sub("", dump.strip())
            peer.virsh("pool-destroy", "luns")
    finally:
        target.close()


@pytest.mark.usefixtures("alone")
def test_the_examples_run_as_they_are(tgt: Tgt, tmp_path: Path) -> None:
    with open("/etc/hosts", "a") as file:
        file.write("127.0.0.1 iscsi.example.com\n")
    sh("ip", "address", "add", "192.0.2.10/32", "dev", "lo")
    tgt.tell("new", "portal", "--param", "portal=192.0.2.10:3260")
    tgt.target("demo-target", 4)
    tgt.target("iqn.2013-06.com.example:iscsi-pool", 4)
    tgt.account("iqn.2013-06.com.example:iscsi-pool", "myname", "a-pass-word-12")
    tgt.target("iqn.2013-06.com.example:vault", 4)
    tgt.account("iqn.2013-06.com.example:vault", "host7", "a-pass-word-34")
    tgt.account("iqn.2013-06.com.example:vault", "vault", "a-pass-word-56", outgoing=True)
    try:
        with Engine(tmp_path / "root") as engine:
            secret = (EXAMPLES / "secret-iscsi.xml").read_text()
            engine.define_secret(secret).set_value(b"a-pass-word-12")
            keep(engine, "vault", "a-pass-word-34")
            keep(engine, "vault-itself", "a-pass-word-56")
            for example in ("pool-iscsi.xml", "pool-iscsi-chap.xml", "pool-iscsi-mutual.xml"):
                pool = started(engine, (EXAMPLES / example).read_text())
                assert [volume.info.capacity for volume in pool.volumes()] == [4 * MIB], example
                assert pool.volumes()[0].path.startswith(pool.definition().target.path)
                pool.destroy()
    finally:
        sh("ip", "address", "del", "192.0.2.10/32", "dev", "lo", check=False)
