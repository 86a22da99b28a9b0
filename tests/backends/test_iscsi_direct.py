"""Pools of type iscsi-direct on a real target: tgtd on this machine, no kernel's initiator and no virtual machine."""

from __future__ import annotations

import glob
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks.libvirtd import PrivateLibvirtd
from poolkit import errors
from poolkit.backends.iscsi_direct import IscsiDirectBackend
from poolkit.documents import FoundSource
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import libiscsi
from poolkit.model import SourceHost
from poolkit.testing import BackendContract
from tests import leaks
from tests.volumes.conftest import new_pool

from ..lab.fixtures import sh
from .targets import MIB, Tgt

pytestmark = pytest.mark.tools("tgtd", "tgtadm", "iscsi-ls")

IQN = "iqn.2004-10.com.example:plain"
CHAP = "iqn.2004-10.com.example:chap"
ME = "iqn.2004-10.com.example:me"
PASSWORD, ANSWER = "opensesame-12", "sesame-opens-34"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def tgt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tgt]:
    port = free_port()
    server = Tgt(tmp_path_factory.mktemp("units"), f"127.0.0.1:{port}", f"[::1]:{port}", control=port % 30000 + 1)
    server.port = port
    server.target(IQN, 4, 8)
    server.target(CHAP, 4)
    server.account(CHAP, "client", PASSWORD)
    server.account(CHAP, "server", ANSWER, outgoing=True)
    yield server
    server.close()


def definition(tgt: Tgt, target: str = IQN, hosts: str = "", more: str = "", outer: str = "") -> str:
    hosts = hosts or f"<host name='127.0.0.1' port='{tgt.port}'/>"
    return (
        f"<pool type='iscsi-direct' xmlns:pk='urn:poolkit:pool:1'><name>luns</name><source>{hosts}<device path='{target}'/>"
        f"<initiator><iqn name='{ME}'/></initiator>{more}</source>{outer}</pool>"
    )


class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, tgt: Tgt) -> str:
        return definition(tgt)


def started(engine: Engine, document: str) -> Pool:
    pool = engine.define(document)
    pool.start()
    return pool


def chap(secret: str = "luns") -> str:
    return f"<auth type='chap' username='client'><secret usage='{secret}'/></auth>"


def mutual(secret: str = "answer") -> str:
    return f"<pk:mutual_auth username='server'><pk:secret usage='{secret}'/></pk:mutual_auth>"


def keep(engine: Engine, usage: str, value: str) -> None:
    text = f"<secret><usage type='iscsi'><target>{usage}</target></usage></secret>"
    engine.define_secret(text).set_value(value.encode())


@pytest.fixture
def odd(tgt: Tgt) -> Iterator[str]:
    """A target with units that are not like others."""
    name = f"iqn.2004-10.com.example:odd{len(tgt.names)}"
    tgt.target(name)
    tgt.unit(name, 3, 4, block=4096, wwid="larger-blocks")
    tgt.unit(name, 5, 4, read_only=True, wwid="only-to-be-read")
    tgt.unit(name, 300, 4, wwid="far-away")
    yield name


def test_every_unit_that_is_a_disk_is_listed(engine: Engine, tgt: Tgt, odd: str) -> None:
    """Unit 0 of tgtd is a controller; a number above 255 has the bits of its addressing method; blocks have two sizes."""
    pool = started(engine, definition(tgt, odd))
    found = {volume.name: volume for volume in pool.volumes()}
    assert sorted(found) == ["unit:0:0:16684", "unit:0:0:3", "unit:0:0:5"]
    assert {volume.info.capacity for volume in found.values()} == {4 * MIB}
    assert found["unit:0:0:16684"].path == f"ip-127.0.0.1:{tgt.port}-iscsi-{odd}-lun-16684"
    assert found["unit:0:0:16684"].info.type == "network"
    assert pool.info.capacity == pool.info.allocation == 12 * MIB and pool.info.available == 0


@pytest.mark.parametrize("name", ["unit:0:0:3", "unit:0:0:16684"])
def test_bytes_need_not_fill_blocks(engine: Engine, tgt: Tgt, odd: str, name: str) -> None:
    """What is around the bytes of an upload stays as it was, whatever the size of a block."""
    volume = started(engine, definition(tgt, odd)).volume(name)
    before = os.urandom(3 * MIB)
    volume.upload(BytesIO(before))
    volume.upload(BytesIO(b"between"), offset=5000)
    volume.upload(BytesIO(b"end"), offset=4 * MIB - 3)
    out = BytesIO()
    volume.download(out)
    assert out.getvalue() == before[:5000] + b"between" + before[5007:] + bytes(MIB - 3) + b"end"
    out = BytesIO()
    assert volume.download(out, offset=4999, length=9) == 9
    assert out.getvalue() == before[4999:5000] + b"between" + before[5007:5008]
    with pytest.raises(errors.InvalidArgument, match="more data than the volume has room for"):
        volume.upload(BytesIO(bytes(2)), offset=4 * MIB - 1)
    with pytest.raises(errors.InvalidArgument, match="is not within it"):
        volume.download(BytesIO(), offset=4 * MIB, length=1)


def test_a_unit_that_is_read_only_is_left_alone(engine: Engine, tgt: Tgt, odd: str) -> None:
    volume = started(engine, definition(tgt, odd)).volume("unit:0:0:5")
    for verb in (lambda: volume.upload(BytesIO(b"x")), volume.wipe):
        with pytest.raises(errors.Unsafe, match="read-only") as caught:
            verb()
        assert caught.value.volume == "unit:0:0:5" and str(caught.value).startswith("pool 'luns': ")
    assert volume.download(BytesIO()) == 4 * MIB


@pytest.mark.parametrize("algorithm", ["zero", "dod", "schneier"])
def test_a_wipe_overwrites_all(engine: Engine, tgt: Tgt, algorithm: str) -> None:
    volume = started(engine, definition(tgt)).volume("unit:0:0:1")
    volume.upload(BytesIO(os.urandom(4 * MIB)))
    volume.wipe(algorithm)
    out = BytesIO()
    volume.download(out)
    last = {"zero": b"\0", "dod": b"\xff"}.get(algorithm)
    if last is None:
        assert max(out.getvalue().count(value) for value in range(256)) < 4 * MIB // 200, "the last pass is random"
    else:
        assert out.getvalue() == last * (4 * MIB)


def test_space_that_cannot_be_taken_back_is_said(engine: Engine, tgt: Tgt) -> None:
    volume = started(engine, definition(tgt)).volume("unit:0:0:1")
    with pytest.raises(errors.Unsupported, match="no unmap"):
        volume.wipe("trim")


def test_a_copy_goes_into_a_pool_of_files(engine: Engine, tgt: Tgt, tmp_path: Path) -> None:
    volume = started(engine, definition(tgt)).volume("unit:0:0:2")
    volume.wipe()
    data = os.urandom(MIB)
    volume.upload(BytesIO(data), offset=2 * MIB)
    images = new_pool(engine, tmp_path / "images")
    made = volume.clone("copy", pool=images)
    assert Path(made.path).read_bytes() == bytes(2 * MIB) + data + bytes(5 * MIB)
    assert os.stat(made.path).st_blocks * 512 < 2 * MIB, "zeros became holes"
    wanted = f"<volume><name>image</name><capacity>{8 * MIB}</capacity><target><format type='qcow2'/></target></volume>"
    assert images.create_volume_from(wanted, volume).info.format == "qcow2"


def test_a_volume_cannot_be_made_here(engine: Engine, tgt: Tgt) -> None:
    pool = started(engine, definition(tgt))
    volume = pool.volume("unit:0:0:1")
    for verb in (
        lambda: pool.create_volume(f"<volume><name>v</name><capacity>{MIB}</capacity></volume>"),
        lambda: volume.clone("v"), volume.delete, lambda: volume.resize(2 * volume.info.capacity),
    ):  # fmt: skip
        with pytest.raises(errors.Unsupported) as caught:
            verb()
        assert "by whoever runs the iSCSI target" in (caught.value.hint or "")


# -- who is let in ------------------------------------------------------------------------------------------------------


def test_a_login_by_secret_in_both_directions(engine: Engine, tgt: Tgt) -> None:
    keep(engine, "luns", PASSWORD)
    keep(engine, "answer", ANSWER)
    pool = started(engine, definition(tgt, CHAP, more=chap(), outer=mutual()))
    assert [volume.name for volume in pool.volumes()] == ["unit:0:0:1"]
    assert "<pk:secret usage='answer'/>" in pool.xml()


@pytest.mark.parametrize(
    ("ours", "theirs"), [(PASSWORD, "another-one-56"), ("another-one-56", ANSWER), ("another-one-56", None), (None, None)]
)  # fmt: skip
def test_a_login_that_is_refused(engine: Engine, tgt: Tgt, ours: str | None, theirs: str | None) -> None:
    """Ours is wrong or missing, or the target does not prove who it is: one error, without the passwords."""
    for usage, value in (("luns", ours), ("answer", theirs)):
        if value is not None:
            keep(engine, usage, value)
    pool = engine.define(definition(tgt, CHAP, more=chap() if ours else "", outer=mutual() if theirs else ""))
    with pytest.raises(errors.LoginRefused, match="refused the login") as caught:
        pool.start()
    assert not pool.info.active
    told = f"{caught.value.as_dict()} {caught.value.hint}"
    assert not [value for value in (ours, theirs) if value is not None and value in told]


@pytest.mark.root
@pytest.mark.tools("strace")
def test_a_password_shows_nowhere(tmp_path: Path, tgt: Tgt) -> None:
    lines, own = leaks.secret(tmp_path, "luns", "iscsi", PASSWORD)
    more, other = leaks.secret(tmp_path, "wrong", "iscsi", "no-sesame-12345")
    (tmp_path / "pool.xml").write_text(definition(tgt, CHAP, more=chap()))
    (tmp_path / "bad.xml").write_text(definition(tgt, CHAP, more=chap("wrong")).replace(">luns<", ">bad<"))
    (tmp_path / "content").write_bytes(os.urandom(4096))
    unit = ["unit:0:0:1", "--pool", "luns"]
    _, said = leaks.look(
        tmp_path,
        [
            *lines, *more, ["define", f"{tmp_path}/pool.xml"], ["define", f"{tmp_path}/bad.xml"], ["start", "bad"],
            ["start", "luns"], ["vol-upload", unit[0], f"{tmp_path}/content", *unit[1:]],
            ["vol-download", unit[0], f"{tmp_path}/down", *unit[1:]], ["vol-info", *unit], ["vol-dumpxml", *unit],
            ["vol-disk-xml", "luns", unit[0]], ["vol-wipe", *unit], ["refresh", "luns"], ["dumpxml", "luns"], ["doctor"],
            ["destroy", "luns"],
        ],
        (PASSWORD, "no-sesame-12345"),
        (own, other),
    )  # fmt: skip
    for verb in (b"start", b"vol-upload", b"vol-disk-xml", b"refresh"):
        assert b"\n0 " + verb + b"\n" in said, f"{verb!r} never succeeded"


@pytest.mark.parametrize("value", ["", "line\n", " blank", "x" * 256, "\udcff"])
def test_a_secret_that_is_no_password_is_refused(engine: Engine, tgt: Tgt, value: str) -> None:
    text = "<secret><usage type='iscsi'><target>luns</target></usage></secret>"
    secret = engine.define_secret(text)
    if value:
        secret.set_value(value.encode("utf-8", "surrogateescape"))
    pool = engine.define(definition(tgt, CHAP, more=chap()))
    with pytest.raises((errors.InvalidArgument, errors.SecretNotFound)):
        pool.start()


def test_a_target_that_is_not_there(engine: Engine, tgt: Tgt) -> None:
    with pytest.raises(errors.NotFound, match=r"does not have the target 'iqn\.2004-10\.com\.example:none'"):
        started(engine, definition(tgt, "iqn.2004-10.com.example:none"))


def test_a_portal_that_is_not_there(engine: Engine, tgt: Tgt) -> None:
    with pytest.raises(errors.Unreachable, match=r"the portal 127\.0\.0\.1:1 does not answer"):
        started(engine, definition(tgt, hosts="<host name='127.0.0.1' port='1'/>"))


def test_a_name_without_an_address(engine: Engine, tgt: Tgt) -> None:
    with pytest.raises(errors.Unreachable, match=r"nobody knows an address of the portal 'nowhere\.invalid'"):
        started(engine, definition(tgt, hosts="<host name='nowhere.invalid'/>"))


@pytest.mark.parametrize("first", ["<host name='127.0.0.1' port='1'/>", "<host name='nowhere.invalid'/>"])
def test_the_next_portal_is_used_when_the_first_is_not_there(engine: Engine, tgt: Tgt, first: str) -> None:
    pool = started(engine, definition(tgt, hosts=f"{first}<host name='::1' port='{tgt.port}'/>"))
    assert len(pool.volumes()) == 2


def test_all_portals_are_named_in_the_error(engine: Engine, tgt: Tgt) -> None:
    hosts = f"<host name='127.0.0.1' port='1'/><host name='127.0.0.1' port='{tgt.port}'/>"
    with pytest.raises(
        errors.NotFound, match=rf"127\.0\.0\.1:1 does not answer; the portal 127\.0\.0\.1:{tgt.port} does not"
    ):
        started(engine, definition(tgt, "iqn.2004-10.com.example:none", hosts=hosts))


def test_a_login_that_cannot_be_meant_is_refused(engine: Engine, tgt: Tgt) -> None:
    outer = "<pk:mutual_auth username='x'><pk:secret usage='y'/></pk:mutual_auth>"
    with pytest.raises(errors.InvalidArgument, match="one who logs in"):
        engine.define(definition(tgt, outer=outer))
    more = "<auth type='ceph' username='x'><secret usage='y'/></auth>"
    pool = engine.define(definition(tgt, more=more))  # as libvirt, which says it when it is to log in
    with pytest.raises(errors.InvalidArgument, match="of the type chap"):
        pool.start()


@pytest.mark.parametrize("name", ["iqn.x:a/b", "iqn.x:a,b", "i" * 224])
def test_a_name_that_no_target_has_is_refused_at_define(engine: Engine, tgt: Tgt, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not the name of an iSCSI target"):
        engine.define(definition(tgt, name))


def test_discovery(engine: Engine, tgt: Tgt) -> None:
    asked = FoundSource(hosts=(SourceHost(name="localhost", port=tgt.port),), initiator=ME)
    found = engine.discover("iscsi-direct", asked)
    assert {(one.hosts[0].name, one.devices[0].path, one.initiator) for one in found} >= {
        ("localhost", IQN, ME), ("localhost", CHAP, ME)
    }  # fmt: skip
    with pytest.raises(errors.InvalidArgument, match="one host must be named"):
        engine.discover("iscsi-direct")


# -- what changes below ---------------------------------------------------------------------------------------------------


def test_units_come_go_and_are_swapped(engine: Engine, tgt: Tgt, odd: str) -> None:
    """A unit in the place of another one is not written to before the pool is listed anew, which warns."""
    pool = started(engine, definition(tgt, odd))
    volume = pool.volume("unit:0:0:3")
    tgt.unit(odd, 9, 8)
    tgt.remove(odd, 3)
    with pytest.raises(errors.VolumeNotFound):
        volume.download(BytesIO())
    tgt.unit(odd, 3, 4, wwid="somebody-else")
    for verb in (lambda: volume.upload(BytesIO(b"x")), volume.wipe, lambda: volume.download(BytesIO())):
        with pytest.raises(errors.Unsafe, match="another logical unit") as caught:
            verb()
        assert str(volume.key) in str(caught.value), "the error names the old WWID"
    outcome = pool.refresh()
    assert "another logical unit" in " ".join(outcome.warnings)
    assert [one.name for one in pool.volumes()] == ["unit:0:0:16684", "unit:0:0:3", "unit:0:0:5", "unit:0:0:9"]
    pool.volume("unit:0:0:3").upload(BytesIO(b"x"))


def test_a_target_that_hangs_is_given_up_and_comes_back(
    engine: Engine, tgt: Tgt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an upload, at a refresh and at start: an error in time, the last listing stays, all works again.

    In this process, where the time limit of each answer can be made short.
    """
    monkeypatch.setattr(IscsiDirectBackend, "may_hang", ())
    pool = started(engine, definition(tgt))
    volume = pool.volume("unit:0:0:2")
    patient = libiscsi.TIMEOUT
    monkeypatch.setattr(libiscsi, "TIMEOUT", 2)

    class Freezing(BytesIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() >= 2 * MIB:
                tgt.freeze()
            return super().readinto(buffer)  # type: ignore[arg-type]

    try:
        with pytest.raises(errors.Unreachable, match="does not answer"):
            volume.upload(Freezing(os.urandom(8 * MIB)))
        with pytest.raises(errors.Unreachable, match="does not answer"):
            pool.refresh()
        assert pool.info.active and "does not answer" in pool.info.reason
        assert [one.name for one in pool.volumes()] == ["unit:0:0:1", "unit:0:0:2"], "the last listing stays"
        assert pool.destroy(), "nothing of it is up on this host"
        with pytest.raises(errors.Unreachable, match="does not answer"):
            pool.start()
        assert not pool.info.active
    finally:
        tgt.thaw()
    monkeypatch.setattr(libiscsi, "TIMEOUT", patient)
    pool.start()
    volume.upload(BytesIO(b"again"))
    assert pool.info.reason == ""


def test_a_missing_library_names_its_package(engine: Engine, tgt: Tgt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libiscsi, "LIBRARY", "libiscsi.so.none")
    libiscsi._library.cache_clear()
    try:
        with pytest.raises(errors.ToolMissing, match=r"libiscsi\.so\.none is not installed") as caught:
            libiscsi.Session("127.0.0.1:1", ME, IQN)
        assert "apt install libiscsi7" in (caught.value.hint or "")
    finally:
        libiscsi._library.cache_clear()
    assert engine.host.has_program("libiscsi.so.7") and not engine.host.has_program("libnothing.so.1")


def test_a_machine_logs_in_by_itself(engine: Engine, tgt: Tgt) -> None:
    keep(engine, "luns", PASSWORD)
    keep(engine, "answer", ANSWER)
    volume = started(engine, definition(tgt, CHAP, more=chap(), outer=mutual())).volume("unit:0:0:1")
    text = volume.disk_xml()
    assert "<driver name='qemu' type='raw'" in text
    assert (
        f"<source protocol='iscsi' name='{CHAP}/1'>" in text and f"<host name='127.0.0.1' port='{tgt.port}'/>" in text
    )
    assert "<secret type='iscsi' usage='luns'/>" in text and f"<iqn name='{ME}'/>" in text


@pytest.mark.root
@pytest.mark.tools("libvirtd", "virsh", "unshare")
def test_beside_libvirtd(engine: Engine, tgt: Tgt, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Names, paths and XML are libvirt's, but for what the docs say: the key, and the last block that libvirt forgets."""
    if not glob.glob("/usr/lib/*/libvirt/storage-backend/libvirt_storage_backend_iscsi-direct.so"):
        pytest.skip("needs libvirt-daemon-driver-storage-iscsi-direct")
    document = definition(tgt)
    pool = started(engine, document)
    ours = {volume.name: volume.xml().strip() for volume in pool.volumes()}
    with tempfile.TemporaryDirectory() as folder, PrivateLibvirtd(Path(folder)) as peer:
        place = tmp_path_factory.mktemp("libvirt") / "pool.xml"
        place.write_text(document)
        peer.virsh("pool-define", place)
        peer.virsh("pool-start", "luns")
        theirs = {name: peer.virsh("vol-dumpxml", name, "luns").strip() for name in ours}
    for name, text in theirs.items():
        volume = pool.volume(name)
        short = str(volume.info.capacity - 512)
        assert (
            text.replace(short, str(volume.info.capacity)).replace(
                f"<key>{volume.path}</key>", f"<key>{volume.key}</key>"
            )
            == ours[name]
        )


EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
# In a network and with names of its own: the examples have the usual port, and a host of example.com.
APART = 'ip link set lo up && mount --bind "$1" /etc/hosts && shift && exec "$@"'
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from poolkit.engine import Engine
from tests.backends.targets import MIB, Tgt

work, examples = Path(sys.argv[2]), Path(sys.argv[3])
server = Tgt(work, "127.0.0.1:3260", control=31)
try:
    server.tell("new", "account", "--user", "machines", "--password", "password-one-12")
    for name in ("target1", "vault"):
        server.target(f"iqn.2013-06.com.example:{name}", 4)
        server.tell("bind", "account", "--tid", server.tid(f"iqn.2013-06.com.example:{name}"), "--user", "machines")
    server.account("iqn.2013-06.com.example:vault", "vault", "password-of-vault", outgoing=True)
    with Engine(work / "root") as engine:
        values = {"iscsi.example.com": "password-one-12", "vault": "password-one-12", "vault-itself": "password-of-vault"}
        for usage, value in values.items():
            text = f"<secret><usage type='iscsi'><target>{usage}</target></usage></secret>"
            engine.define_secret(text).set_value(value.encode())
        for example in ("pool-iscsi-direct.xml", "pool-iscsi-direct-mutual.xml"):
            pool = engine.define((examples / example).read_text())
            pool.start()
            assert [volume.info.capacity for volume in pool.volumes()] == [4 * MIB], example
            pool.destroy()
finally:
    server.close()
"""


@pytest.mark.root
@pytest.mark.tools("unshare", "mount", "ip")
def test_the_examples_run_as_they_are(tmp_path: Path) -> None:
    hosts, script = tmp_path / "hosts", tmp_path / "run.py"
    hosts.write_text("127.0.0.1 localhost iscsi.example.com\n")
    script.write_text(RUN)
    sh(
        "unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", APART, "sh", str(hosts), sys.executable,
        str(script), str(Path(__file__).parents[2]), str(tmp_path), str(EXAMPLES),
    )  # fmt: skip
