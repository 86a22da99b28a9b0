"""Pools of type netfs in the lab, on real servers: NFS 3 and 4.2, Samba, Gluster; servers that hang, die and come back."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.documents import FoundSource
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from poolkit.host import Host, worker
from poolkit.model import SourceHost
from poolkit.testing import BackendContract

from ..lab.fixtures import NfsServer, sh, wait_until
from ..sweep import Sampled
from .deaths import deaths, failures
from .servers import PASSWORD, Gluster, Samba

pytestmark = pytest.mark.lab

EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def nfs() -> Iterator[NfsServer]:
    """One server for the module: each test gets a folder of its own below the one export."""
    server = NfsServer(Path("/srv/nfs"))
    server.start()
    server.export("vols", "256m")
    yield server
    server.close()


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    server = Samba(tmp_path_factory.mktemp("samba"))
    yield server
    server.close()


def definition(source: str, target: Path, name: str = "net") -> str:
    return (
        f"<pool type='netfs'><name>{name}</name><source>{source}</source><target><path>{target}</path></target></pool>"
    )


def exported(version: str = "4.2") -> str:
    """The source of a fresh directory of the NFS server."""
    path = Path(f"/srv/nfs/vols/{next(_numbers)}")
    path.mkdir()
    return f"<host name='127.0.0.1'/><dir path='{path}'/><format type='nfs'/><protocol ver='{version}'/>"


def shared(samba: Samba) -> str:
    path = samba.share / str(next(_numbers))
    path.mkdir()
    return f"<host name='127.0.0.1'/><dir path='files/{path.name}'/><format type='cifs'/>"


@pytest.fixture(autouse=True)
def nothing_mounted(tmp_path: Path) -> Iterator[None]:
    yield
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if line.split()[1].startswith(f"{tmp_path}/"):
            sh("umount", "-l", line.split()[1], check=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for. The guest is slow, so only tests of dead servers use them."""
    monkeypatch.setattr(worker, "DEADLINE", 3.0)
    monkeypatch.setattr(worker, "SILENCE", 2.0)


@pytest.fixture(scope="class")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for a class, whose pool may stay up from test to test."""
    root = tmp_path_factory.mktemp("standing")
    with Engine(root / "root") as engine:
        yield engine
        for pool in engine.pools(active=True):
            engine.pool(pool.name).destroy()
    assert mount_line(root / "mnt") == ""


@pytest.fixture(scope="class")
def nfs_source(nfs: NfsServer) -> str:
    return exported()


@pytest.fixture(scope="class")
def samba_source(samba: Samba) -> str:
    return shared(samba)


class OnOneMount(BackendContract):
    """The contract on a pool that stays mounted: most of the time would go into mounting it anew."""

    FROM_NOTHING = ("test_the_lifecycle_is_repeatable", "test_a_dry_run_changes_nothing")
    # Further down both die and fail at every step on one server.
    test_an_interrupted_start_leaves_nothing = test_an_interrupted_create_leaves_nothing = None

    @pytest.fixture
    def engine(self, standing: Engine) -> Engine:
        return standing

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, standing: Engine) -> Iterator[Path]:
        place = Path(standing.locations.storage).parents[1] / "mnt"
        if request.function.__name__ in self.FROM_NOTHING:
            if standing.pools():
                pool = standing.pool("net")
                pool.destroy()
                pool.undefine()
            with contextlib.suppress(FileNotFoundError):
                place.rmdir()  # a test that undefines its pool leaves the directory, whichever test comes next
        yield place
        if standing.pools(active=True):
            for made in standing.pool("net").volumes():
                made.delete()

    def started(self, engine: Engine, pool_xml: str) -> Pool:
        if engine.pools(active=True):
            return engine.pool("net")
        return super().started(engine, pool_xml)


class TestNfs(OnOneMount):
    @pytest.fixture
    def pool_xml(self, nfs_source: str, target: Path) -> str:
        return definition(nfs_source, target)


class TestCifs(OnOneMount):
    told_apart = False  # what is open keeps its name, and else the server gives its number to the next file

    @pytest.fixture
    def pool_xml(self, samba_source: str, target: Path) -> str:
        return definition(samba_source, target)

    def made(self, pool: Pool, name: str | None = None) -> Volume:
        made = super().made(pool, name)
        time.sleep(1.1)  # for a second (actimeo) the client believes its own estimate of the space that a file takes
        return made.look()


def volume(name: str = "v", capacity: int = 1 << 20) -> str:
    return f"<volume><name>{name}</name><capacity>{capacity}</capacity></volume>"


def answering(target: Path) -> None:
    """Wait until a server that is back is found by its client, which tries again at growing intervals."""
    asked = ["stat", "--file-system", "--", str(target)]
    wait_until(lambda: not subprocess.run(asked, capture_output=True, check=False).returncode, "the server", 120)


def mount_line(target: Path) -> str:
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {target} " in line]
    return lines[0] if lines else ""


@pytest.mark.parametrize("version", ["3", "4.2"])
def test_the_version_is_the_definitions(engine: Engine, nfs: NfsServer, tmp_path: Path, version: str) -> None:
    source = exported(version)
    pool = engine.define(definition(source, tmp_path / "mnt"))
    pool.start()
    line = mount_line(tmp_path / "mnt")
    assert f"vers={version}" in line.split(" - ")[1]
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    made = pool.create_volume(volume())
    made.clone("w")
    assert sorted(v.name for v in pool.volumes()) == ["v", "w"]
    assert sorted(os.listdir(source.split("'")[3])) == ["v", "w"], "nothing unfinished is left on the server"
    pool.destroy()
    assert mount_line(tmp_path / "mnt") == ""


def test_the_second_server_is_used_when_the_first_is_not_there(engine: Engine, nfs: NfsServer, tmp_path: Path) -> None:
    source = exported().replace("<host name='127.0.0.1'/>", "<host name='127.0.0.9' port='1'/><host name='127.0.0.1'/>")
    pool = engine.define(definition(source, tmp_path / "mnt"))
    pool.start()
    assert "127.0.0.1:/srv/nfs/vols" in mount_line(tmp_path / "mnt")
    pool.destroy()


def test_an_export_that_is_mounted_elsewhere_under_another_name(engine: Engine, nfs: NfsServer, tmp_path: Path) -> None:
    source = exported()
    other = tmp_path / "other"
    other.mkdir()
    sh("mount", "-t", "nfs", "-o", "vers=4.2", f"127.0.0.1:{source.split(chr(39))[3]}", str(other))
    pool = engine.define(definition(source.replace("127.0.0.1", "localhost"), tmp_path / "mnt"))
    assert pool.start()
    assert pool.info.active
    pool.create_volume(volume())
    assert pool.destroy()
    assert mount_line(tmp_path / "mnt") == ""
    assert mount_line(other) != ""


def test_discovery(engine: Engine, nfs: NfsServer) -> None:
    found = engine.discover("netfs", FoundSource(hosts=(SourceHost(name="127.0.0.1"),), format="nfs"))
    assert [(one.hosts[0].name, one.dir, one.format) for one in found] == [("127.0.0.1", "/srv/nfs/vols", "nfs")]


def test_a_refused_export_is_said_and_undone(engine: Engine, nfs: NfsServer, tmp_path: Path) -> None:
    pool = engine.define(definition("<host name='127.0.0.1'/><dir path='/etc'/><format type='nfs'/>", tmp_path / "mnt"))
    with pytest.raises(errors.ToolFailed, match=r"could not mount '127\.0\.0\.1:/etc': mount\.nfs: "):
        pool.start()
    assert not (tmp_path / "mnt").exists()
    assert not pool.info.active


def test_a_busy_mount_names_the_process(engine: Engine, nfs: NfsServer, tmp_path: Path) -> None:
    pool = engine.define(definition(exported(), tmp_path / "mnt"))
    pool.start()
    pool.create_volume(volume())
    with open(tmp_path / "mnt" / "v", "rb"), pytest.raises(errors.Busy, match=rf"\(process {os.getpid()}\)"):
        pool.destroy()
    assert pool.destroy()


def test_a_dead_server_makes_the_pool_unreachable_and_it_recovers(
    engine: Engine, nfs: NfsServer, tmp_path: Path, impatient: None
) -> None:
    pool = engine.define(definition(exported(), tmp_path / "mnt"))
    pool.start()
    made = pool.create_volume(volume())
    words = "pool 'net': the server '127.0.0.1' did not answer within 3 seconds"
    nfs.stop()
    try:
        for verb in (pool.refresh, made.look, lambda: pool.create_volume(volume("w"))):
            with pytest.raises(errors.Unreachable) as caught:
                verb()
            assert str(caught.value) == words
        assert pool.info.active, "a server that is away for a while takes nothing down"
        assert pool.info.reason == f"the last refresh failed: {words}"
        assert [v.name for v in pool.volumes()] == ["v"], "the last listing stays"
        assert "<name>net</name>" in pool.xml()
    finally:
        nfs.start()
    answering(tmp_path / "mnt")
    pool.refresh()
    assert pool.info.reason == ""
    assert [v.name for v in pool.volumes()] == ["v"]
    pool.create_volume(volume("w"))
    assert pool.destroy()


def test_a_dead_servers_pool_can_be_taken_down(engine: Engine, nfs: NfsServer, tmp_path: Path, impatient: None) -> None:
    pool = engine.define(definition(exported(), tmp_path / "mnt"))
    pool.start()
    nfs.stop()
    try:
        outcome = pool.destroy()
        assert outcome.warnings == (
            f"pool 'net': its server does not answer, so '{tmp_path}/mnt' was unmounted by force; "
            "what had not been written there is lost",
        )
        assert mount_line(tmp_path / "mnt") == ""
        assert not pool.info.active
        with pytest.raises(errors.Unreachable, match=r"could not mount '127\.0\.0\.1:/srv/nfs/vols"):
            pool.start()
        assert mount_line(tmp_path / "mnt") == ""
    finally:
        nfs.start()
    assert pool.start()
    assert pool.destroy()


def test_a_server_that_dies_in_the_middle_leaves_nothing_that_is_listed(
    nfs: NfsServer, tmp_path: Path, impatient: None
) -> None:
    died = []

    def fault(label: str) -> None:
        if label == "truncated" and not died:
            died.append(label)
            nfs.stop()

    with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
        source = exported()
        pool = engine.define(definition(source, tmp_path / "mnt"))
        pool.start()
        try:
            with pytest.raises(errors.Unreachable, match="did not answer within 3 seconds") as caught:
                pool.create_volume(volume())
            assert died
            assert "it is tried again with the next verb on the pool" in (caught.value.hint or "")
        finally:
            nfs.start()
        answering(tmp_path / "mnt")
        pool.refresh()
        assert pool.volumes() == []
        assert os.listdir(source.split("'")[3]) == []
        assert engine.core.operations.failed() == []
        pool.create_volume(volume())
        assert pool.destroy()


def test_a_server_that_hangs_with_open_connections(
    engine: Engine, samba: Samba, tmp_path: Path, impatient: None
) -> None:
    pool = engine.define(definition(shared(samba), tmp_path / "mnt"))
    pool.start()
    pool.create_volume(volume())
    samba.freeze()
    try:
        with pytest.raises(errors.Unreachable, match=r"the server '127\.0\.0\.1' did not answer within 3 seconds"):
            pool.refresh()
    finally:
        samba.thaw()
    answering(tmp_path / "mnt")
    pool.refresh()
    assert [v.name for v in pool.volumes()] == ["v"]
    assert pool.destroy()


def test_what_smb_shows_of_a_new_volume_stays(engine: Engine, samba: Samba, tmp_path: Path) -> None:
    pool = engine.define(definition(shared(samba), tmp_path / "mnt"))
    pool.start()
    first = pool.create_volume(volume()).info
    pool.destroy()
    pool.start()
    second = pool.volume("v").info
    facts = ("type", "format", "capacity", "physical", "mode", "owner", "group", "inode")
    assert {fact: getattr(first, fact) for fact in facts} == {fact: getattr(second, fact) for fact in facts}
    assert first.mode == 0o600
    pool.destroy()


@pytest.mark.tools("qemu-img")
def test_a_login_of_smb_by_a_secret(engine: Engine, samba: Samba, tmp_path: Path) -> None:
    shared(samba)
    login = "<auth type='smb' username='root'><secret usage='nas'/></auth>"
    source = f"<host name='127.0.0.1'/><dir path='private'/><format type='cifs'/>{login}"
    pool = engine.define(definition(source, tmp_path / "mnt"))
    with pytest.raises(errors.SecretNotFound, match="there is no secret 'nas'"):
        pool.start()
    secret = engine.define_secret("<secret><usage type='smb'><name>nas</name></usage></secret>")
    with pytest.raises(errors.SecretNotFound, match="has no value"):
        pool.start()
    secret.set_value(b"wrong")
    with pytest.raises(errors.PermissionDenied, match=r"'//127.0.0.1/private' lets user 'root' not in") as caught:
        pool.start()
    assert "wrong" not in str(caught.value.as_dict())
    assert not pool.info.active and not engine.left_over()
    secret.set_value(PASSWORD.encode())
    pool.start()
    pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    line = next(one for one in Path("/proc/mounts").read_text().splitlines() if "/mnt cifs" in one)
    assert "username=root" in line and "correct" not in line and "sec=none" not in line
    kept = [
        file for file in (tmp_path / "root").rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()
    ]
    assert [file.suffix for file in kept] == [".value"]
    pool.destroy()


def test_images_can_be_made_on_a_server_of_smb(engine: Engine, samba: Samba, tmp_path: Path) -> None:
    """QEMU's locks would be in the way of its own writes."""
    pool = engine.define(definition(shared(samba), tmp_path / "mnt"))
    pool.start()
    wanted = f"<volume><name>v</name><capacity>{1 << 20}</capacity><target><format type='qcow2'/></target></volume>"
    made = pool.create_volume(wanted)
    made.resize(2 << 20)
    assert (made.info.format, made.info.capacity) == ("qcow2", 2 << 20)
    pool.destroy()


@pytest.mark.lab(timeout=300)
def test_gluster(engine: Engine, tmp_path: Path) -> None:
    server = Gluster()
    try:
        found = engine.discover("netfs", FoundSource(hosts=(SourceHost(name=server.address),), format="glusterfs"))
        assert [(one.dir, one.format) for one in found] == [("images", "glusterfs")]
        with open("/etc/hosts", "a") as file:
            file.write(f"{server.address} gluster.example.com\n")
        pool = engine.define((EXAMPLES / "pool-netfs-glusterfs.xml").read_text())
        assert pool.start()
        assert " - fuse.glusterfs gluster.example.com:images " in mount_line(Path("/srv/gluster"))
        pool.create_volume(volume())
        pool.refresh()
        assert [v.name for v in pool.volumes()] == ["v"]
        assert (server.brick / "v").exists()
        assert not pool.start()
        sh("killall", "-q", "-w", "-KILL", "glusterfs")  # the client: a mount that never works again
        with pytest.raises(errors.HostError, match="Transport endpoint is not connected"):
            pool.refresh()
        assert pool.info.active
        assert pool.start()
        assert [v.name for v in pool.volumes()] == ["v"]
        pool.volume("v").delete()
        assert pool.destroy()
    finally:
        server.close()


ONE = """
import sys
from poolkit.engine import Engine

with Engine(sys.argv[1]) as engine:
    pool = engine.define(open(sys.argv[2]).read())
    assert pool.start()
    pool.refresh()
    assert pool.info.active
    assert pool.destroy()
"""


def test_the_examples_run_as_they_are(nfs: NfsServer, samba: Samba, tmp_path: Path) -> None:
    with open("/etc/hosts", "a") as file:
        file.write("127.0.0.1 nfs.example.com nas1.example.com nas2.example.com files.example.com\n")
    configuration = samba.share.parent / "smb.conf"
    configuration.write_text(configuration.read_text() + f"[isos]\npath = {samba.share}\nguest ok = yes\n")
    sh("smbcontrol", "-s", str(configuration), "smbd", "reload-config")
    places = ("/var/lib/virt/images", "/export/images")
    for place in places:
        Path(place).mkdir(parents=True, exist_ok=True)
        sh("exportfs", "-o", "rw,no_root_squash,insecure,no_subtree_check", f"127.0.0.1:{place}")
    try:
        for name in ("pool-netfs.xml", "pool-netfs-nfs4.xml", "pool-netfs-cifs.xml"):
            # In a mount table of its own, for the first one mounts over the very directory that the server exports.
            sh(
                "unshare", "--mount", "--propagation", "private",
                sys.executable, "-c", ONE, str(tmp_path / name), str(EXAMPLES / name),
            )  # fmt: skip
    finally:
        for place in places:
            sh("exportfs", "-u", f"127.0.0.1:{place}", check=False)


# -- death at every step ----------------------------------------------------------------------------------------------


HOW = pytest.mark.parametrize("interrupted", [deaths, failures])
Interrupted = Callable[[Path, Callable[[Engine], object], Sampled[int]], Iterator[Engine]]


@HOW
@pytest.mark.lab(timeout=300)
def test_an_interrupted_start_leaves_nothing_mounted(
    nfs: NfsServer, tmp_path: Path, sampled: Sampled[int], interrupted: Interrupted
) -> None:
    root, target = tmp_path / "root", tmp_path / "mnt"
    with Engine(root) as engine:
        engine.define(definition(exported(), target))
    for engine in interrupted(root, lambda engine: engine.pool("net").start(build=True), sampled):
        assert engine.core.operations.failed() == []
        if interrupted is deaths and engine.pool("net").info.active:
            engine.pool("net").destroy()  # it died after the inventory's commit: the pool was up
        assert mount_line(target) == ""
    with Engine(root) as engine:
        assert engine.pool("net").destroy()


@HOW
@pytest.mark.lab(timeout=300)
def test_an_interrupted_create_leaves_nothing_on_the_server(
    nfs: NfsServer, tmp_path: Path, sampled: Sampled[int], interrupted: Interrupted
) -> None:
    root, source = tmp_path / "root", exported()
    with Engine(root) as engine:
        engine.define(definition(source, tmp_path / "mnt")).start()
    for engine in interrupted(root, lambda engine: engine.pool("net").create_volume(volume()), sampled):
        assert engine.core.operations.failed() == []
        if interrupted is deaths and engine.pool("net").volumes():
            engine.pool("net").volume("v").delete()  # it died after the inventory's commit
        assert os.listdir(source.split("'")[3]) == []
        engine.pool("net").refresh()
        assert engine.pool("net").volumes() == []
    with Engine(root) as engine:
        assert [v.name for v in engine.pool("net").volumes()] == ["v"]
        assert engine.pool("net").destroy()


@pytest.mark.tools("qemu-img", "prlimit")
def test_images_are_made_changed_converted_and_wiped_on_a_server(
    engine: Engine, nfs: NfsServer, tmp_path: Path
) -> None:
    """A confined program reaches a file of a server through its descriptor, and no file by name."""
    place = tmp_path / "mnt"
    pool = engine.define(definition(exported(), place))
    pool.start()
    base = pool.create_volume(volume("base"))
    overlay = base.clone("overlay", linked=True)
    overlay.resize(4 << 20)
    raw = f"<volume><name>flat</name><capacity>{4 << 20}</capacity><target><format type='raw'/></target></volume>"
    flat = overlay.clone(raw)
    assert (flat.info.format, flat.info.capacity) == ("raw", 4 << 20)
    overlay.wipe("random")
    pool.refresh()
    found = {v.name: (v.info.format, v.info.capacity) for v in pool.volumes()}
    assert found == {"base": ("raw", 1 << 20), "overlay": ("qcow2", 4 << 20), "flat": ("raw", 4 << 20)}
    assert sorted(os.listdir(place)) == ["base", "flat", "overlay"]
    pool.destroy()
