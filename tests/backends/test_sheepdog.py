"""Sheepdog pools, on a cluster that speaks the real protocol.

No package registry carries Sheepdog. So the cluster is the one of ``tests/peers/sheep.py``, a process of its own that answers
what a real 1.0.1 cluster was recorded to answer (``tests/data/sheepdog/session.json``), which is tested here as well. With
``POOLKIT_SHEEP_HOST=ADDRESS[:PORT]`` the tests that need no special cluster run on that one; they delete what they made.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.backends.sheepdog import SheepdogBackend
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families.sheep import client, naming, wire
from poolkit.families.sheep.cluster import MOST_VDIS, Cluster
from poolkit.host import Host
from poolkit.testing import BackendContract
from poolkit.testing.interruption import How, interrupted

from ..peers import sheep as peer
from ..peers.sheep import Sheep
from ..sweep import Sampled
from ..volumes.conftest import Broken

MIB = 1 << 20
REAL = os.environ.get("POOLKIT_SHEEP_HOST", "")
SESSION = json.loads((Path(__file__).parents[1] / "data/sheepdog/session.json").read_text())
Address = tuple[str, int]


def pool_of(*addresses: Address, name: str = "flock") -> str:
    hosts = "".join(f"<host name='{host}' port='{port}'/>" for host, port in addresses)
    return f"<pool type='sheepdog'><name>{name}</name><source>{hosts}</source></pool>"


def volume_of(name: str, size: int = 8 * MIB) -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"


@contextlib.contextmanager
def asking(address: Address) -> Iterator[Cluster]:
    with client.connected(Host(), [address], "test") as connection:
        yield Cluster(connection)


@pytest.fixture
def address() -> Iterator[Address]:
    """A cluster: the real one, of which what is new is deleted in the end, or the stand-in."""
    if not REAL:
        with Sheep("--nodes", "2") as sheep:
            yield "127.0.0.1", sheep.ports[0]
        return
    host, _, port = REAL.partition(":")
    real = host, int(port or wire.PORT)
    with asking(real) as cluster:
        before = set(cluster.vids())
    yield real
    with asking(real) as cluster:
        for vid in set(cluster.vids()) - before:
            if found := cluster.inode(vid):
                cluster.delete(found)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "root") as engine:
        yield engine


@pytest.fixture
def pool(engine: Engine, address: Address) -> Pool:
    pool = engine.define(pool_of(address))
    pool.start()
    return pool


def started(engine: Engine, sheep: Sheep) -> Pool:
    pool = engine.define(pool_of(("127.0.0.1", sheep.ports[0])))
    pool.start()
    return pool


def content(volume: Any, **how: int) -> bytes:
    out = BytesIO()
    volume.download(out, **how)
    return out.getvalue()


def names(pool: Pool) -> list[str]:
    pool.refresh()
    return sorted(volume.name for volume in pool.volumes())


class TestContract(BackendContract):
    @pytest.fixture
    def pool_xml(self, address: Address) -> str:
        return pool_of(address)


# -- the recorded session -------------------------------------------------------------------------------------------------


def sent_of(exchange: dict[str, Any]) -> bytes:
    header = bytes.fromhex(exchange["request"])
    if not header[2] & 1:
        return b""
    length = int.from_bytes(header[12:16], "little")
    if header[1] == wire.CREATE_AND_WRITE:
        return b"x" * length  # of which the recording has the first bytes
    data = bytearray(length)
    for at, text in exchange.get("sent", {}).items():
        piece = bytes.fromhex(text)[: length - int(at)]
        data[int(at) : int(at) + len(piece)] = piece
    return bytes(data)


def got_of(exchange: dict[str, Any]) -> bytes:
    data = bytearray(int.from_bytes(bytes.fromhex(exchange["response"])[12:16], "little"))
    for at, text in exchange.get("got", {}).items():
        piece = bytes.fromhex(text)[: len(data) - int(at)]
        data[int(at) : int(at) + len(piece)] = piece
    return bytes(data)


def without_times(header: bytes, data: bytes) -> bytes:
    """A response with the times of an inode blanked, and of a failure only the result: the rest of that means nothing."""
    if header[16:20] != bytes(4):
        return header[:20]
    if header[1] == wire.READ and len(data) >= wire.HEAD:
        data = data[:512] + bytes(any(data[at : at + 8]) for at in (512, 520)) + data[528:]  # there is a time or none
    return header + data


def test_the_stand_in_answers_as_the_real_cluster_did() -> None:
    cluster = peer.Cluster(peer.parsed([]))
    cluster.ports = [7000]
    count = 0
    for step in SESSION:
        for exchange in step["exchanges"]:
            said = cluster.answer(bytes.fromhex(exchange["request"]), sent_of(exchange), 0)
            expected = without_times(bytes.fromhex(exchange["response"]), got_of(exchange))
            mine = without_times(said[:48], said[48:])
            assert mine == expected, (step["command"], exchange["request"])
            count += 1
    assert count == 59


def test_the_client_asks_as_sheepdogs_own_tool_did() -> None:
    """The whole life of the recorded disks: every request of the client's is one of the recording's, byte for byte."""
    recorded = {bytes.fromhex(e["request"]) + sent_of(e): e for step in SESSION for e in step["exchanges"]}
    asked: list[bytes] = []

    class Replay(client.Connection):
        def __init__(self) -> None:
            self.host, self.pool, self.version, self._number = Host(), "p", 10, 0
            self.address = ("sheep", 7000)

        def _ask(
            self, operation: int, room: int, union: bytes, send: bytes | None, flags: int, version: int
        ) -> tuple[wire.Answer, bytes]:
            length = room if send is None else len(send)
            flags |= wire.F_WRITE if send is not None else 0
            request = wire.request(operation, length, union, flags=flags, version=version) + (send or b"")
            asked.append(request)
            assert request in recorded, request[:48].hex()
            exchange = recorded[request]
            answer = wire.answer(bytes.fromhex(exchange["response"]))
            if answer.result:
                raise client.Failed(answer.result, answer)
            return answer, got_of(exchange)

    a, c = 0x1EC8C, 0x1EFF2
    cluster = Cluster(Replay())
    cluster.check()
    assert cluster.nodes() == [("127.0.0.1", 7000)]
    assert cluster.find(b"a") == 0x1EC8D  # the last answer to that question
    assert cluster.find(b"a", b"s1") == a
    assert cluster.vids() == [a, a + 1, c]
    with pytest.raises(client.Failed):
        cluster.find(b"nosuch")
    disk = wire.Inode(b"a", b"", 0, 0, 128 * MIB, 0, 0, 1, 22, 1, a, 0)
    assert cluster.entries(disk, 0, 32) == [a, a] + [0] * 30
    cluster.write(disk, 0, b"x" * (4 * MIB), create=True)
    cluster.take(disk, 0)
    cluster.take(disk, 1)
    cluster.set_tag(disk, b"s1")
    assert cluster.new(b"a", 128 * MIB, disk, snapshot=True) == (a + 1, 22)
    assert cluster.new(b"c", 128 * MIB, disk) == (c, 22)
    cluster.drop(disk, 0, 32)
    with pytest.raises(client.Failed) as failed:
        cluster.new(b"a", 64 * MIB)  # the second time
    assert failed.value.result == wire.EXISTS
    for name, tag in ((b"c", b""), (b"a", b"s1"), (b"a", b"")):
        cluster.connection.ask(wire.DELETE_VDI, union=wire.vdi_union(), send=wire.padded(name) + wire.padded(tag))
    assert len(asked) > 15


def test_an_inode_is_read_as_it_was_recorded() -> None:
    step = next(s for s in SESSION if s["command"] == "vdi delete -s s1 a")
    data = next(got_of(e) for e in step["exchanges"] if len(got_of(e)) > 4 * MIB)
    inode = wire.inode(data[: wire.HEAD], 0x1EC8C)
    assert (inode.name, inode.tag, inode.size, inode.snapshot, inode.shift) == (b"a", b"s1", 128 * MIB, 1, 22)
    assert inode.is_snapshot and inode.created // 10**9 == 1795179646 and inode.objects == 32


# -- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vdi", "name"),
    [
        (b"plain", "plain"), (b"with space", "with space"), (b"nl\nhere", "nl%0Ahere"), (b"tab\there", "tab%09here"),
        (b"a@b", "a%40b"), (b"50%", "50%25"), (b"a/b", "a%2Fb"), (b"..", "%2E."), (b"-dash", "%2Ddash"), (b"\xff", "%FF"),
        ("\u00e4\u65e5".encode(), "\u00e4\u65e5"), (b"back\\slash", "back\\slash"), (b".poolkit-x", "%2Epoolkit-x"),
    ],
)  # fmt: skip
def test_any_name_can_be_written(vdi: bytes, name: str) -> None:
    assert naming.spelled(vdi) == name
    assert naming.meant(name, "p") == (vdi, b"", 0)


BYTES = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"/"))


@given(BYTES.filter(bool), BYTES, st.integers(1, 2**32 - 1))
def test_a_name_stands_for_one_disk(vdi: bytes, tag: bytes, number: int) -> None:
    for name, expected in (
        (naming.spelled(vdi), (vdi, b"", 0)),
        (naming.spelled(vdi, tag, number), (vdi, tag, 0) if tag else (vdi, b"", number)),
        (naming.spelled(vdi, tag, number, unique=False), (vdi, b"", number)),
    ):
        check_volume_name(name)
        assert naming.meant(name, "p") == expected


@pytest.mark.parametrize("name", ["a%", "a%4", "a%zz", "a%41", "a%0a", "@tag", "a@", "a@#x", "a@b@c", "a@#01", "%00"])
def test_names_of_no_disk_are_refused(pool: Pool, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        pool.create_volume(volume_of(name))


def test_odd_names_and_tags_are_listed_cloned_and_deleted(pool: Pool, address: Address) -> None:
    with asking(address) as cluster:
        vid, _ = cluster.new(b"nl\nhere and there", 5 * MIB)
        inode = cluster.inode(vid)
        assert inode is not None
        cluster.set_tag(inode, b"tag with\nspace")
        cluster.new(inode.name, inode.size, inode, snapshot=True)
        second = cluster.inode(cluster.find(inode.name))
        assert second is not None
        cluster.new(inode.name, inode.size, second, snapshot=True)  # without a tag
    odd = "nl%0Ahere and there"
    assert {odd, f"{odd}@tag with%0Aspace", f"{odd}@#2"} <= set(names(pool))
    clone = pool.volume(f"{odd}@tag with%0Aspace").clone("clone", linked=True)
    assert clone.info.capacity == 5 * MIB
    for volume in [v for v in pool.volumes() if v.name.startswith(odd)]:
        volume.delete()
    assert not any(name.startswith(odd) for name in names(pool))


# -- disks ----------------------------------------------------------------------------------------------------------------


def test_a_disk_that_was_left_half_written_is_marked(pool: Pool) -> None:
    disk = pool.create_volume(volume_of("disk"))
    with pytest.raises(errors.HostError):
        disk.upload(Broken(b"x" * MIB))
    assert "half-written" in pool.volume("disk").look().info.problem
    pool.refresh()
    assert "half-written" in pool.volume("disk").info.problem
    disk.wipe()
    assert pool.volume("disk").info.problem == ""


def test_data_goes_through_snapshots_and_clones(pool: Pool) -> None:
    first = os.urandom(9 * MIB)
    disk = pool.create_volume(volume_of("disk", 10 * MIB + 1))
    disk.upload(BytesIO(first))
    assert disk.info.allocation == 12 * MIB
    before = disk.clone("disk@before", linked=True)
    assert before.info.allocation == 12 * MIB and before.info.detail["snapshot_of"] == "disk"
    disk = pool.volume("disk")
    disk.upload(BytesIO(b"new"), offset=4 * MIB - 1)
    changed = first[: 4 * MIB - 1] + b"new" + first[4 * MIB + 2 :]
    end = bytes(MIB + 1)
    assert content(disk) == changed + end and content(before) == first + end
    assert disk.info.allocation == 8 * MIB, "only what was written to is the disk's own"
    clone = before.clone("clone", linked=True)
    assert clone.info.allocation == 0 and content(clone) == first + end
    copy = clone.clone("copy")
    assert copy.info.allocation == 12 * MIB
    before.delete()
    pool.volume("disk").delete()
    assert content(pool.volume("clone")) == first + end, "a clone keeps the data of a snapshot that is deleted"
    assert content(copy) == first + end
    assert content(copy, offset=4 * MIB - 3, length=9) == first[4 * MIB - 3 : 4 * MIB + 6]


def test_a_clone_can_be_larger(pool: Pool) -> None:
    disk = pool.create_volume(volume_of("disk", 2 * MIB))
    disk.upload(BytesIO(b"x" * 2 * MIB))
    snapshot = disk.clone("disk@one", linked=True)
    for linked in (True, False):
        clone = snapshot.clone(volume_of(f"larger-{linked}", 9 * MIB), linked=linked)
        assert content(clone) == b"x" * 2 * MIB + bytes(7 * MIB)


def test_snapshots_are_not_changed(pool: Pool) -> None:
    disk = pool.create_volume(volume_of("disk"))
    snapshot = disk.clone("disk@one", linked=True)
    for change in (
        lambda: snapshot.upload(BytesIO(b"x")), lambda: snapshot.wipe(), lambda: snapshot.resize(16 * MIB),
        lambda: snapshot.disk_xml(),
    ):  # fmt: skip
        with pytest.raises(errors.Unsupported, match="snapshot"):
            change()
    with pytest.raises(errors.VolumeExists):
        pool.volume("disk").clone("disk@one", linked=True)
    with pytest.raises(errors.InvalidArgument, match="is called 'disk@' and a tag"):
        pool.volume("disk").clone("other@one", linked=True)
    with pytest.raises(errors.InvalidArgument, match="name of a snapshot"):
        pool.create_volume(volume_of("disk@two"))
    with pytest.raises(errors.Unsupported, match="of a snapshot") as caught:
        pool.volume("disk").clone("clone", linked=True)
    assert "disk@clone" in str(caught.value.hint)


def test_a_disk_is_itself_after_a_snapshot_and_not_after_it_was_replaced(pool: Pool, address: Address) -> None:
    old = pool.create_volume(volume_of("disk"))
    with asking(address) as cluster:
        inode = cluster.inode(int(old.info.detail["vdi_id"], 16))
        assert inode is not None
        cluster.set_tag(inode, b"by somebody else")
        cluster.new(b"disk", inode.size, inode, snapshot=True)
    old.upload(BytesIO(b"still the same disk"))
    pool.create_volume(volume_of("deleted")).clone("deleted@one", linked=True)
    pool.volume("deleted").delete()
    assert {"deleted", "deleted@one"} & set(names(pool)) == {"deleted@one"}
    with asking(address) as cluster:
        for tag in (b"by somebody else", b""):
            found = cluster.inode(cluster.find(b"disk", tag))
            assert found is not None
            cluster.delete(found)
        cluster.new(b"disk", 8 * MIB)
    with pytest.raises(errors.Unsafe, match="replaced"):
        old.upload(BytesIO(b"another disk"))


def test_growing_and_the_limits_of_a_disk(pool: Pool) -> None:
    disk = pool.create_volume(volume_of("disk", 1))
    assert disk.info.capacity == 1
    disk.resize(5 * MIB + 3)
    assert pool.volume("disk").info.capacity == 5 * MIB + 3
    with pytest.raises(errors.Unsupported, match="cannot shrink"):
        disk.resize(MIB, shrink=True)
    largest = disk.info.detail["object_size"] << 20
    with pytest.raises(errors.InvalidArgument, match="at most"):
        disk.resize(largest + 1)
    with pytest.raises(errors.InvalidArgument, match="at most"):
        pool.create_volume(volume_of("huge", largest + 1))
    assert "huge" not in names(pool), "it was taken back"
    assert pool.create_volume(volume_of("largest", largest)).info.capacity == largest


def test_wiping_leaves_snapshots(pool: Pool) -> None:
    disk = pool.create_volume(volume_of("disk", 9 * MIB))
    disk.upload(BytesIO(b"a" * 9 * MIB))
    snapshot = disk.clone("disk@one", linked=True)
    disk = pool.volume("disk")
    disk.upload(BytesIO(b"b" * MIB))
    for algorithm in ("zero", "trim"):
        disk.wipe(algorithm)
        assert content(disk) == bytes(9 * MIB) and disk.info.allocation == 0
    assert content(snapshot) == b"a" * 9 * MIB
    with pytest.raises(errors.Unsupported, match="less than it promises"):
        disk.wipe("random")


def test_sparse_transfers_keep_holes(pool: Pool, tmp_path: Path) -> None:
    disk = pool.create_volume(volume_of("disk", 64 * MIB))
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB)
        file.write(b"data")
    with source.open("rb") as file:
        disk.upload(file, sparse=True)
    assert disk.info.allocation == 4 * MIB
    with (tmp_path / "target").open("w+b") as file:
        disk.download(file, sparse=True)
        assert os.fstat(file.fileno()).st_blocks * 512 <= 8 * MIB
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    for stream, how in ((BytesIO(bytes(2 * MIB)), {"offset": 63 * MIB}), (BytesIO(b"x"), {"offset": 64 * MIB})):
        with pytest.raises(errors.InvalidArgument, match="room"):
            disk.upload(stream, **how)
    with pytest.raises(errors.InvalidArgument, match="not within"):
        disk.download(BytesIO(), offset=65 * MIB)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_copies_go_to_and_from_pools_of_files(engine: Engine, pool: Pool, tmp_path: Path, format: str) -> None:
    (tmp_path / "files").mkdir()
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>")
    files.start()
    data = os.urandom(3 * MIB)
    (tmp_path / "plain").write_bytes(data + bytes(6 * MIB))
    image = tmp_path / "files" / "image"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format, tmp_path / "plain", image], check=True)
    files.refresh()
    disk = files.volume("image").clone("disk", pool=pool)
    assert content(disk) == data + bytes(6 * MIB) and disk.info.allocation == 4 * MIB
    back = disk.clone(
        f"<volume><name>back</name><allocation>0</allocation><target><format type='{format}'/></target></volume>",
        pool=files,
    )
    subprocess.run(["qemu-img", "compare", "-f", format, "-F", "raw", back.path, tmp_path / "plain"], check=True)
    with pytest.raises(errors.Unsupported, match="not in this cluster"):
        files.volume("image").clone("linked", pool=pool, linked=True)


def test_a_machine_gets_the_first_host(pool: Pool, address: Address) -> None:
    disk = pool.create_volume(volume_of("it's &lt;one>"))
    text = disk.disk_xml()
    assert f"<host name='{address[0]}' port='{address[1]}'/>" in text
    assert "<source protocol='sheepdog' name='it&apos;s &lt;one&gt;'>" in text
    assert disk.blockdev()["file"]["vdi"] == "it's <one>"


# -- deaths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "failing"])
@pytest.mark.parametrize("kind", ["copy", "linked", "snapshot"])
def test_an_interrupted_clone_leaves_nothing(
    engine: Engine, pool: Pool, tmp_path: Path, sampled: Sampled[int], how: How, kind: str
) -> None:
    disk = pool.create_volume(volume_of("disk"))
    disk.upload(BytesIO(b"x" * 5 * MIB))
    disk.clone("disk@base", linked=True)
    source, new = ("disk@base", "clone") if kind != "snapshot" else ("disk", "disk@new")
    before = names(pool)
    root = str(tmp_path / "root")
    for step in sampled(range(1, 200)):
        came = interrupted(root, step, how, lambda e: e.pool("flock").volume(source).clone(new, linked=kind != "copy"))
        with Engine(root) as again:
            left = set(names(again.pool("flock"))) - set(before)
            assert left <= {new} and (left or came in ("killed", "failed"))
            assert came != "failed" or not left
            assert again.not_undone() == []
            if left:
                volume = again.pool("flock").volume(new)
                assert content(volume) == b"x" * 5 * MIB + bytes(3 * MIB), "half a clone is left"
                volume.delete()
        if not came:
            break
    assert content(pool.volume("disk"), length=5 * MIB) == b"x" * 5 * MIB


def test_of_many_hosts_one_makes_a_disk(address: Address, tmp_path: Path) -> None:
    """Each with a root of its own, so that nothing but the cluster decides."""
    made: list[str] = []
    others: list[errors.PoolkitError] = []
    ready = threading.Barrier(4)

    def make(number: int) -> None:
        with Engine(tmp_path / f"root{number}") as engine:
            pool = engine.define(pool_of(address))
            pool.start()
            ready.wait()
            try:
                made.append(pool.create_volume(volume_of("disk", MIB + number)).info.detail["vdi_id"])
            except errors.PoolkitError as error:
                others.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error) for error in others] == [errors.VolumeExists] * 3
    with asking(address) as cluster:
        assert [f"{cluster.find(b'disk'):x}"] == made, "the disk is that of the one who made it"


def test_undo_leaves_what_is_not_its_own(pool: Pool, address: Address) -> None:
    disk = pool.create_volume(volume_of("disk"))
    vid = int(disk.info.detail["vdi_id"], 16)
    backend = SheepdogBackend(pool.definition(), Host())
    backend.take_back("marked", "disk", 8 * MIB + 1)
    backend.take_back("vdi", "disk", vid + 1)
    backend.take_back("size", "disk", vid, 4 * MIB, 16 * MIB)
    backend.take_back("tag", "disk", vid, b"no".hex())
    backend.take_back("vdi", "nosuch", vid)
    assert pool.volume("disk").look().info == disk.info
    backend.take_back("vdi", "disk", vid)
    backend.take_back("vdi", "disk", vid)
    assert "disk" not in names(pool)


# -- clusters that are not as they should be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        ("unformatted", errors.InvalidState, "is not formatted"), ("halted", errors.Unreachable, "is halted"),
        ("waiting", errors.Unreachable, "waits for nodes"),
    ],
)  # fmt: skip
def test_a_cluster_that_does_not_work_says_why(
    engine: Engine, state: str, error: type[errors.PoolkitError], said: str
) -> None:
    with Sheep("--state", state) as sheep:
        with pytest.raises(error, match=said) as caught:
            started(engine, sheep)
        assert caught.value.hint
        assert engine.pool("flock").info.state == "inactive"


@pytest.mark.parametrize("options", [["--version", str(v)] for v in (10, 9, 8, 7, 6, 5)] + [
    ["--version", "9", "--old"], ["--version", "9", "--no-deleted"], ["--shift", "20"],
])  # fmt: skip
def test_every_version_of_the_protocol(engine: Engine, options: list[str]) -> None:
    with Sheep("--nodes", "2", *options) as sheep:
        pool = started(engine, sheep)
        disk = pool.create_volume(volume_of("disk", 9 * MIB))
        disk.upload(BytesIO(b"a" * 9 * MIB))
        snapshot = disk.clone("disk@one", linked=True)
        snapshot.clone("clone", linked=True).upload(BytesIO(b"b" * MIB), offset=MIB)
        assert content(snapshot) == b"a" * 9 * MIB
        pool.volume("clone").wipe()
        assert content(pool.volume("clone")) == bytes(9 * MIB)
        if "--old" in options:
            with pytest.raises(errors.Unsupported, match="take space back"):
                pool.volume("clone").wipe("trim")
        assert names(pool) == ["clone", "disk", "disk@one"] and pool.info.allocation >= 9 * MIB
        for name in ("clone", "disk@one", "disk"):
            pool.volume(name).delete()
        assert names(pool) == [] and pool.info.allocation == 0, "objects are left"


def test_an_unknown_version_is_said(engine: Engine) -> None:
    with Sheep("--version", "77") as sheep, pytest.raises(errors.Unsupported, match="version of Sheepdog's protocol"):
        started(engine, sheep)


def test_a_full_cluster_is_said(engine: Engine) -> None:
    with Sheep("--full") as sheep, pytest.raises(errors.NoSpace, match="no space left"):
        started(engine, sheep).create_volume(volume_of("disk"))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_hosts_are_tried_in_turn(engine: Engine) -> None:
    dead = closed_port()
    with Sheep() as sheep:
        pool = engine.define(
            pool_of(("127.0.0.1", dead), ("no-such-host.invalid", 7000), ("127.0.0.1", sheep.ports[0]))
        )
        pool.start()
        assert pool.create_volume(volume_of("disk")).name == "disk"
    with pytest.raises(errors.Unreachable, match="none of its hosts answers") as caught:
        pool.refresh()
    assert str(dead) in str(caught.value) and "no-such-host.invalid" in str(caught.value)
    assert [v.name for v in pool.volumes()] == ["disk"], "the last listing stays"


def test_a_host_that_is_silent_is_passed_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    patient, ask = client.ANSWER, client.Connection._ask
    with Sheep("--silent") as silent, Sheep() as sheep:

        def asked(self: client.Connection, *words: Any) -> Any:
            monkeypatch.setattr(client, "ANSWER", 0.5 if self.address[1] in silent.ports else patient)
            return ask(self, *words)

        monkeypatch.setattr(client.Connection, "_ask", asked)
        pool = engine.define(pool_of(("127.0.0.1", silent.ports[0]), ("127.0.0.1", sheep.ports[0])))
        pool.start()
        assert pool.create_volume(volume_of("disk")).name == "disk"


def test_sizes_are_those_of_all_nodes(engine: Engine) -> None:
    with Sheep("--nodes", "3", "--space", str(1 << 30)) as sheep:
        pool = started(engine, sheep)
        pool.create_volume(volume_of("disk")).upload(BytesIO(b"x" * 8 * MIB))
        pool.refresh()
        assert pool.info.capacity == 3 << 30
        assert 8 * MIB - 3 <= pool.info.allocation <= 9 * MIB
        assert pool.info.available == pool.info.capacity - pool.info.allocation


def test_a_server_that_never_answers_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.3)
    with Sheep("--silent") as sheep, pytest.raises(errors.Unreachable, match="does not answer"):
        started(engine, sheep)


def test_an_abort_ends_the_wait_for_a_server(tmp_path: Path) -> None:
    host = Host()
    with Sheep("--silent") as sheep, Engine(tmp_path / "root", host=host) as engine:
        pool = engine.define(pool_of(("127.0.0.1", sheep.ports[0])))
        threading.Timer(0.2, host.abort.set).start()
        with pytest.raises(errors.Aborted):
            pool.start()


# -- servers that lie ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def liar(answer: Callable[[bytes], bytes | None]) -> Iterator[Address]:
    """A server whose responses ``answer`` makes of the headers of requests; None closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while header := connection.recv(48, socket.MSG_WAITALL):
                    if header[2] & 1:
                        connection.recv(int.from_bytes(header[12:16], "little"), socket.MSG_WAITALL)
                    said = answer(header)
                    if said is None:
                        return
                    connection.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        yield "127.0.0.1", server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def said(header: bytes, data: bytes = b"", *, length: int | None = None, result: int = 0, middle: bytes = b"") -> bytes:
    size = len(data) if length is None else length
    head = struct.pack("<BBHIII", 0, header[1], 0, 1, 0, size) + result.to_bytes(4, "little") + middle
    return head.ljust(48, b"\0") + data


def honest(header: bytes) -> bytes:
    """An empty cluster."""
    room = int.from_bytes(header[12:16], "little")
    return said(header, bytes(room) if header[1] in (0x15, 0xC9, 0x87) else b"")


def inode_bytes(vid: int, *, size: int = MIB, shift: int = 22, own: int | None = None, name: bytes = b"x") -> bytes:
    data = bytearray(wire.HEAD)
    data[: len(name)] = name
    struct.pack_into("<Q", data, 536, size)
    data[554:556] = bytes([1, shift])
    struct.pack_into("<I", data, 560, vid if own is None else own)
    return bytes(data)


def lying_inode(**how: Any) -> Callable[[bytes], bytes]:
    def answer(header: bytes) -> bytes:
        if header[1] == 0x15:
            return said(header, b"\x80" + bytes(wire.BITMAP - 1))
        if header[1] == 0x02:
            return said(header, inode_bytes(7, **how))
        return honest(header)

    return answer


LIES: dict[str, tuple[Callable[[bytes], bytes | None], type[errors.PoolkitError], str]] = {
    "closes": (lambda h: None, errors.Unreachable, "closed the connection"),
    "is a web server": (lambda h: b"HTTP/1.1 400 Bad Request\r\n" + bytes(60), errors.HostError, "not asked"),
    "is too long": (lambda h: said(h, length=1 << 31), errors.HostError, "2147483648 bytes where"),
    "answers something else": (lambda h: b"\0" + bytes([h[1] ^ 1]) + said(h)[2:], errors.HostError, "not asked"),
    "cuts": (lambda h: said(h, bytes(10), length=40) if h[1] == 0x87 else None, errors.Unreachable, "does not answer"),
    "has all disks": (
        lambda h: said(h, b"\xff" * wire.BITMAP) if h[1] == 0x15 else honest(h), errors.HostError,
        f"more than {MOST_VDIS}",
    ),
    "has a node without a port": (
        lambda h: said(h, bytes(80)) if h[1] == 0x82 else honest(h), errors.HostError, "without a port",
    ),
    "is infinitely large": (
        lambda h: said(h, result=0, middle=b"\xff" * 28) if h[1] == 0x86 else honest(h), errors.HostError, "says that it has",
    ),
    "has errors of its own": (lambda h: said(h, result=0x99), errors.HostError, "result 0x99"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_server_that_lies_is_found_out(engine: Engine, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lie == "cuts":
        monkeypatch.setattr(client, "ANSWER", 0.5)
    answer, error, words = LIES[lie]
    ports: list[int] = []

    def with_node(header: bytes) -> bytes | None:
        if lie == "is infinitely large" and header[1] == 0x82:
            node = bytearray(80)
            node[36:40] = bytes([127, 0, 0, 1])
            struct.pack_into("<H", node, 40, ports[0])
            return said(header, bytes(node))
        return answer(header)

    with liar(with_node) as address:
        ports.append(address[1])
        pool = engine.define(pool_of(address))
        with pytest.raises(error, match=words):
            pool.start()
        assert pool.info.state == "inactive"


@pytest.mark.parametrize(
    ("lie", "words"),
    [({"own": 9}, "says that it is 9"), ({"size": 1 << 63}, "bytes in objects of"), ({"shift": 200}, "objects of 2^200")],
    ids=str,
)  # fmt: skip
def test_a_disk_that_cannot_be_is_told_of(engine: Engine, lie: dict[str, int], words: str) -> None:
    def one_node(header: bytes) -> bytes:
        if header[1] == 0x82:  # the nodes: this one
            node = bytearray(80)
            node[36:40] = bytes([127, 0, 0, 1])
            struct.pack_into("<H", node, 40, ports[0])
            return said(header, bytes(node))
        return lying_inode(**lie)(header)

    ports: list[int] = []
    with liar(one_node) as address:
        ports.append(address[1])
        pool = engine.define(pool_of(address))
        assert words in str(pool.start().warnings) and not list(pool.volumes())


def test_one_damaged_disk_does_not_hide_the_others(pool: Pool, address: Address) -> None:
    for name in ("bad", "good"):
        pool.create_volume(volume_of(name))
    with asking(address) as cluster:
        inode = cluster.inode(cluster.find(b"bad"))
        assert inode is not None
        cluster._write_inode(inode, wire.SIZE_AT, (1 << 60).to_bytes(8, "little"))
    warnings = pool.refresh().warnings
    assert [volume.name for volume in pool.volumes()] == ["good"]
    assert f"the inode of VDI {inode.vid:x} says" in str(warnings)


@given(st.binary(min_size=wire.HEAD, max_size=wire.HEAD), st.integers(0, 1 << 24))
def test_any_bytes_are_an_inode_or_are_refused(data: bytes, vid: int) -> None:
    with contextlib.suppress(wire.Damaged):
        found = wire.inode(data, vid)
        assert 0 <= found.size <= wire.HYPER and 20 <= found.shift <= 31


def test_zeros_at_the_ends_of_an_object_need_not_be_sent() -> None:
    with (
        liar(lambda h: said(h, b"mid", middle=bytes(4) + (5).to_bytes(8, "little"))) as address,
        asking(address) as cluster,
    ):
        assert cluster.read(1, 0, 0, 10) == bytes(5) + b"mid" + bytes(2)
        with pytest.raises(errors.HostError, match="beyond the end"):
            cluster.read(1, 0, 0, 7)


def test_data_that_is_laid_out_in_other_ways_is_left_alone(engine: Engine) -> None:
    with Sheep() as sheep:
        pool = started(engine, sheep)
        for name, at in (("coded", 552), ("hyper", 553)):
            vid = int(pool.create_volume(volume_of(name)).info.detail["vdi_id"], 16)
            with asking(("127.0.0.1", sheep.ports[0])) as cluster:
                inode = cluster.inode(vid)
                assert inode is not None
                cluster._write_inode(inode, at, b"\x01")
        pool.refresh()
        for name in ("coded", "hyper"):
            volume = pool.volume(name)
            assert "cannot be worked on" in volume.warning
            for verb in (lambda v=volume: v.upload(BytesIO(b"x")), lambda v=volume: v.download(BytesIO())):
                with pytest.raises(errors.Unsupported, match="not worked on here"):
                    verb()
        with pytest.raises(errors.Unsupported, match="hyper volume"):
            pool.volume("hyper").delete()
        pool.volume("coded").delete()
