"""rbd pools where something fails: the cluster, the login, the pool, another client, or the process in the middle of its work."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import ceph
from poolkit.testing.interruption import interrupted
from tests import leaks
from tests.ceph import PROGRAMS, Cluster, until

from .rbd import SECRET, Fresh, definition, fresh, noise, secret, started, volume

pytestmark = pytest.mark.tools(*PROGRAMS)
MIB = 1 << 20


@pytest.fixture
def pools(cluster: Cluster) -> Iterator[Fresh]:
    yield from fresh(cluster)


@pytest.fixture
def place(pools: Fresh) -> tuple[str, str]:
    return pools.namespace()


# -- the cluster -----------------------------------------------------------------------------------------------------------


def test_a_stopped_osd_ends_every_verb_after_the_deadline(
    engine: Engine, cluster: Cluster, place: tuple[str, str]
) -> None:
    pool = started(engine, cluster, place, seconds=2)
    made = pool.create_volume(volume("disk"))
    with cluster.frozen("osd"):
        for act in (
            pool.refresh,
            lambda: pool.create_volume(volume("other")),
            lambda: made.upload(BytesIO(b"x")),
            made.delete,
        ):
            with pytest.raises(errors.Unreachable, match="did not answer in time") as caught:
                act()
            assert "OSDs" in (caught.value.hint or "")
        assert pool.info.active and "did not answer" in pool.info.reason
        assert [one.name for one in pool.volumes()] == ["disk"], "the last listing stays"
    made.upload(BytesIO(b"x"))
    pool.refresh()
    assert [one.name for one in pool.volumes()] == ["disk"] and engine.not_undone() == []
    assert set(cluster.rbd("ls", "/".join(place)).stdout.split()) == {b"disk"}, "what failed was taken back"


def test_a_monitor_that_says_nothing(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    secret(engine, cluster)
    pool = engine.define(definition(cluster, *place, seconds=2))
    with cluster.frozen("mon"), pytest.raises(errors.Unreachable, match="did not answer"):
        pool.start()
    assert not pool.info.active
    pool.start()


def test_a_monitor_that_is_not_there(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    secret(engine, cluster)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    document = definition(cluster, *place, seconds=2).replace(f"port='{cluster.port}'", f"port='{port}'")
    pool = engine.define(document)
    with pytest.raises(errors.Unreachable, match="did not answer"):
        pool.start()
    both = document.replace(
        "</name>\n      <source>", "</name>\n      <source>" + f"<host name='127.0.0.1' port='{cluster.port}'/>"
    )
    pool = engine.define(both.replace("<name>disks", "<name>both"))
    pool.start()
    assert pool.info.active, "one of several monitors is enough"


def test_a_time_limit_that_would_be_none_is_not_taken(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    secret(engine, cluster)
    document = definition(cluster, *place).replace(
        "'rados_osd_op_timeout' value='20'", "'rados_osd_op_timeout' value='0'"
    )
    assert "value='0'" in document
    outcome = engine.define(document).start()
    assert any("rados_osd_op_timeout '0' would be no time limit" in words for words in outcome.warnings)


# -- the login -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "value", "words"),
    [
        ("poolkit", b"AQBPx2FmAAAAABAA2Pz2wSu5v1E7nYlZr9cQ6g==", "refuses client.poolkit"),
        ("nobody", None, "refuses client.nobody"),
        ("poolkit", b"no key at all", "not a key of Ceph|refuses client.poolkit"),
    ],
)
def test_a_login_that_is_refused_says_whose(
    engine: Engine, cluster: Cluster, place: tuple[str, str], user: str, value: bytes | None, words: str
) -> None:
    secret(engine, cluster)
    if value is not None:
        engine.secret(SECRET).set_value(value)
    pool = engine.define(definition(cluster, *place, user=user))
    with pytest.raises(errors.PermissionDenied, match=words) as caught:
        pool.start()
    assert cluster.keys["poolkit"] not in str(caught.value) and not pool.info.active


def test_a_missing_secret_is_named(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    pool = engine.define(definition(cluster, *place))
    with pytest.raises(errors.SecretNotFound, match=SECRET):
        pool.start()


def test_a_user_who_may_only_read(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    writer = started(engine, cluster, place)
    writer.create_volume(volume("disk")).upload(BytesIO(b"data"))
    writer.destroy()
    writer.undefine()
    other = "6f3a1f0e-6d0f-4c1e-9a3a-0d9c2b7e4c11"
    secret(engine, cluster, "reader", other)
    pool = engine.define(definition(cluster, *place, user="reader", uuid=other))
    pool.start()
    out = BytesIO()
    assert pool.volume("disk").download(out, length=4) == 4 and out.getvalue() == b"data"
    acts: list[Callable[[], object]] = [
        lambda: pool.create_volume(volume("other")),
        lambda: pool.volume("disk").upload(BytesIO(b"x")),
        lambda: pool.volume("disk").clone("clone", linked=True),
        pool.volume("disk").delete,
    ]
    for act in acts:
        with pytest.raises(errors.PermissionDenied, match="reader may not") as caught:
            act()
        assert "profile rbd" in (caught.value.hint or "")
    assert [one.name for one in pool.volumes()] == ["disk"]


# -- the pool --------------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_deleted_under_us(engine: Engine, cluster: Cluster) -> None:
    cluster.make_pool("going")
    pool = started(engine, cluster, ("going",))
    made = pool.create_volume(volume("disk"))
    cluster.delete_pool("going")
    for act in (pool.refresh, made.delete, lambda: pool.create_volume(volume("other"))):
        with pytest.raises(errors.HostError, match="no pool 'going'"):
            act()
    assert [one.name for one in pool.volumes()] == ["disk"], "an empty listing would be a lie"
    assert pool.destroy()


def test_a_namespace_that_is_not_there(engine: Engine, cluster: Cluster) -> None:
    secret(engine, cluster)
    pool = engine.define(definition(cluster, "rbd", "never"))
    with pytest.raises(errors.HostError, match="no namespace 'never'") as caught:
        pool.start()
    assert "rbd namespace create rbd/never" in (caught.value.hint or "")


def test_a_pool_whose_quota_is_full(engine: Engine, cluster: Cluster, pools: Fresh) -> None:
    name = pools.pool()
    pool = started(engine, cluster, (name,))
    made = pool.create_volume(volume("disk", 64 * MIB))
    cluster.command(prefix="osd pool set-quota", pool=name, field="max_bytes", val=str(4 * MIB))
    made.upload(BytesIO(noise(8 * MIB)))

    def full() -> bool:
        found = cluster.command(prefix="osd dump")["pools"]
        return "full_quota" in next(one["flags_names"] for one in found if one["pool_name"] == name)

    def refused() -> bool:  # the OSDs hear of it somewhat later than the monitor says it
        try:
            made.upload(BytesIO(noise(MIB)), offset=32 * MIB)
        except errors.NoSpace as error:
            return "full" in str(error)
        return False

    until("the quota", full)
    until("the OSDs to know it", refused)
    with pytest.raises(errors.NoSpace, match="full"):
        pool.create_volume(volume("other"))
    pool.refresh()
    assert [one.name for one in pool.volumes()] == ["disk"]
    cluster.command(prefix="osd pool set-quota", pool=name, field="max_bytes", val="0")
    until("the quota to go", lambda: not full())
    assert made.delete() and engine.not_undone() == []


# -- others ----------------------------------------------------------------------------------------------------------------


def test_an_image_that_is_open_elsewhere(engine: Engine, cluster: Cluster, place: tuple[str, str]) -> None:
    pool = started(engine, cluster, place)
    made = pool.create_volume(volume("disk"))
    with ceph.connect("poolkit", cluster.settings("poolkit")) as connection, connection.images(*place) as images:
        with images.open("disk", write=True) as image:
            (user,) = image.watchers()
            with pytest.raises(errors.Busy, match=user):
                made.delete()
            made.download(BytesIO())
            assert made.outcome is not None and any(user in words for words in made.outcome.warnings)
    assert made.delete()


def test_one_of_eight_gets_the_name(tmp_path: Path, cluster: Cluster, place: tuple[str, str]) -> None:
    engines = []
    for number in range(8):  # roots of their own: nothing but the cluster can tell them apart
        engine = Engine(tmp_path / str(number))
        started(engine, cluster, place)
        engines.append(engine)
    keys: list[str] = []
    refused: list[BaseException] = []
    barrier = threading.Barrier(8)

    def make(engine: Engine) -> None:
        pool = engine.pool("disks")
        barrier.wait()
        try:
            keys.append(str((pool.create_volume(volume("disk")).info.detail or {})["id"]))
        except errors.PoolkitError as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1 and len(refused) == 7
    assert {type(error) for error in refused} == {errors.VolumeExists}, refused
    with ceph.connect("poolkit", cluster.settings("poolkit")) as connection, connection.images(*place) as images:
        assert images.names() == {"disk": keys[0]}, "seven left nothing, and the one is that of the eighth"
    for engine in engines:
        engine.close()


@pytest.mark.root
@pytest.mark.tools("strace", "qemu-img")
def test_a_key_shows_nowhere(tmp_path: Path, cluster: Cluster, place: tuple[str, str]) -> None:
    key, wrong = cluster.keys["poolkit"], cluster.keys["reader"]
    lines, own = leaks.secret(tmp_path, "right", "ceph", key)
    more, other = leaks.secret(tmp_path, "wrong", "ceph", wrong)
    text = definition(cluster, *place, seconds=5).replace(f"uuid='{SECRET}'", "usage='{}'")
    (tmp_path / "pool.xml").write_text(text.replace("{}", "right"))
    (tmp_path / "bad.xml").write_text(text.replace("{}", "wrong").replace("<name>disks<", "<name>bad<", 1))
    (tmp_path / "content").write_bytes(noise(4096))
    _, said = leaks.look(
        tmp_path,
        [
            *lines, *more, ["define", f"{tmp_path}/pool.xml"], ["define", f"{tmp_path}/bad.xml"], ["start", "bad"],
            ["start", "disks"], ["vol-create-as", "disks", "a", "8MiB"],
            ["vol-upload", "a", f"{tmp_path}/content", "--pool", "disks"],
            ["vol-download", "a", f"{tmp_path}/down", "--pool", "disks"], ["vol-clone", "a", "b", "--pool", "disks"],
            ["vol-clone", "a", "c", "--pool", "disks", "--linked"], ["vol-resize", "a", "16MiB", "--pool", "disks"],
            ["vol-wipe", "b", "--pool", "disks"], ["vol-info", "a", "--pool", "disks"], ["vol-dumpxml", "a", "--pool", "disks"],
            ["vol-disk-xml", "disks", "a"], ["vol-disk-xml", "disks", "a", "--qemu"], ["vol-delete", "c", "--pool", "disks"],
            ["refresh", "disks"], ["dumpxml", "disks"], ["doctor"], ["destroy", "disks"],
        ],
        (key, wrong),
        (own, other),
    )  # fmt: skip
    for verb in (b"start", b"vol-upload", b"vol-clone", b"vol-disk-xml"):
        assert b"\n0 " + verb + b"\n" in said, f"{verb!r} never succeeded"


# -- deaths ----------------------------------------------------------------------------------------------------------------


def _copy(engine: Engine) -> None:
    engine.pool("disks").volume("base").clone("new")


def _linked(engine: Engine) -> None:
    engine.pool("disks").volume("base").clone("new", linked=True)


def _flat(engine: Engine) -> None:
    engine.pool("disks").volume("base").clone("new", linked=True, backend={"flatten": True})


def _filled(engine: Engine) -> None:
    engine.pool("disks").create_volume_from(volume("new"), engine.pool("files").volume("file"))


@pytest.mark.parametrize("verb", [_copy, _linked, _flat, _filled])
def test_a_death_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, cluster: Cluster, place: tuple[str, str], verb: Callable[[Engine], None],
    sampled: Callable[[Iterable[int]], Iterable[int]],
) -> None:  # fmt: skip
    root = tmp_path / "root"
    data = noise(MIB)
    with Engine(root) as engine:
        started(engine, cluster, place).create_volume(volume("base")).upload(BytesIO(data))
        files = engine.define(
            f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>"
        )
        files.build()
        files.start()
        files.create_volume(volume("file")).upload(BytesIO(data))
    step = 0
    for step in sampled(itertools.count(1)):
        done = not interrupted(root, step, "killed", verb)
        with Engine(root) as engine:
            assert engine.not_undone() == [], f"step {step}"
            pool = engine.pool("disks")
            pool.refresh()
            names = sorted(one.name for one in pool.volumes())
            assert names in (["base"], ["base", "new"]), f"step {step}"
            with (
                ceph.connect("poolkit", cluster.settings("poolkit")) as connection,
                connection.images(*place) as images,
            ):
                assert sorted(images.names()) == names, f"step {step}: something is left"
                with images.open("base") as image:
                    kept = image.snapshots()
                    assert image.read(0, MIB) == data
                if names == ["base"]:
                    assert kept == [], f"step {step}: a snapshot is left, and no clone needs it"
                else:
                    with images.open("new") as image:
                        assert image.read(0, MIB) == data, f"step {step}: it is not whole"
            if "new" in names:
                pool.volume("new").delete()
                base = pool.volume("base").look()
                if (base.info.detail or {}).get("snapshots"):
                    cluster.rbd("snap", "purge", "--no-progress", "/".join((*place, "base")), check=False)
                    for one in (base.info.detail or {})["snapshots"]:
                        cluster.rbd("snap", "unprotect", f"{'/'.join((*place, 'base'))}@{one}", check=False)
                    cluster.rbd("snap", "purge", "--no-progress", "/".join((*place, "base")))
        if done:
            break
    assert step > 3, "nothing was interrupted"


def test_a_death_in_the_middle_of_an_upload_and_of_a_copy(
    tmp_path: Path, cluster: Cluster, place: tuple[str, str]
) -> None:
    """The process and its child die while bytes flow; the new image is removed although its client seems to be there still."""
    root = tmp_path / "root"
    with Engine(root) as engine:
        pool = started(engine, cluster, place)
        pool.create_volume(volume("disk", 64 * MIB))
        files = engine.define(
            f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>"
        )
        files.build()
        files.start()
        files.create_volume(volume("file", 64 * MIB)).upload(BytesIO(noise(64 * MIB)))

    def died(verb: Callable[[Engine, Any], object]) -> None:
        child = os.fork()
        if not child:
            with Engine(root) as engine:
                verb(engine, lambda done, *_: done > 16 * MIB and os._exit(9))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    def upload(engine: Engine, progress: Any) -> None:
        engine.pool("disks").volume("disk").upload(BytesIO(noise(64 * MIB)), progress=progress)

    def copy(engine: Engine, progress: Any) -> None:
        engine.pool("disks").create_volume_from(
            volume("new", 64 * MIB), engine.pool("files").volume("file"), progress=progress
        )

    died(upload)
    died(copy)
    with Engine(root) as engine:
        assert any("undone" in line for line in engine.recovered), engine.recovered
        assert engine.not_undone() == []
        with ceph.connect("poolkit", cluster.settings("poolkit")) as connection, connection.images(*place) as images:
            assert list(images.names()) == ["disk"]
        out = BytesIO()
        assert engine.pool("disks").volume("disk").download(out) == 64 * MIB


def test_an_abort_takes_the_new_image_back(
    engine: Engine, cluster: Cluster, place: tuple[str, str], tmp_path: Path
) -> None:
    pool: Pool = started(engine, cluster, place)
    files = engine.define(f"<pool type='dir'><name>files</name><target><path>{tmp_path}/files</path></target></pool>")
    files.build()
    files.start()
    source = files.create_volume(volume("file", 64 * MIB))
    source.upload(BytesIO(noise(64 * MIB)))
    stop = threading.Event()

    def progress(done: int, total: int, what: str) -> None:
        if done > 8 * MIB:
            stop.set()

    with pytest.raises(errors.Aborted):
        pool.create_volume_from(volume("new", 64 * MIB), source, abort=stop, progress=progress)
    with ceph.connect("poolkit", cluster.settings("poolkit")) as connection, connection.images(*place) as images:
        assert images.names() == {}
    assert engine.not_undone() == []
