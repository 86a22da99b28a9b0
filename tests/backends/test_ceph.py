"""The two ways to librados and librbd do the same: each is asked everything that the backend asks, on a real cluster."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.families import ceph
from poolkit.families.ceph import CephError, naming
from poolkit.families.ceph.interface import FEATURES, ImageName, Images
from tests.ceph import PROGRAMS, Cluster

from .rbd import fresh, only

pytestmark = pytest.mark.tools(*PROGRAMS)
MIB = 1 << 20


def nothing(done: int, total: int) -> None:
    """For whoever wants no progress."""


@pytest.fixture(params=["libraries", "modules"])
def images(
    request: pytest.FixtureRequest, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Images]:
    """An empty namespace, reached by one of the ways."""
    only(request.param, tmp_path, monkeypatch)
    (places,) = [fresh(cluster)]
    place = next(places).namespace()
    with ceph.connect("poolkit", cluster.settings("poolkit"), way=request.param) as connection:
        assert connection.space()[0] >= connection.space()[1] > 0
        with connection.images(*place) as found:
            yield found


def number(call: Callable[[], object]) -> int:
    with pytest.raises(CephError) as caught:
        call()
    return caught.value.number


def test_the_life_of_an_image(images: Images) -> None:
    images.create("a", 8 * MIB, {"features": FEATURES["layering"], "order": 21})
    assert list(images.names()) == ["a"]
    with images.open("a", write=True) as image:
        facts = image.facts()
        assert (facts.id, facts.size, facts.order, facts.objects) == (images.names()["a"], 8 * MIB, 21, 4)
        assert (facts.features, facts.flags, facts.parent) == (FEATURES["layering"], 0, None)
        image.write(0, b"x" * 1000)
        image.write(4 * MIB, bytearray(b"y" * 1000))
        image.write(6 * MIB, memoryview(b"z" * 10))
        image.flush()
        assert image.read(4 * MIB + 990, 20) == b"y" * 10 + bytes(10)
        assert image.read(8 * MIB - 5, 5) == bytes(5)
        assert image.data(0, 8 * MIB) == [(0, 1000, True), (4 * MIB, 1000, True), (6 * MIB, 10, True)]
        image.zero(0, MIB)
        image.discard(6 * MIB, MIB)
        image.resize(16 * MIB, False, nothing)
        assert number(lambda: image.resize(2 * MIB, False, nothing)) == errno.EINVAL
        image.resize(6 * MIB, True, nothing)
        assert image.data(0, 6 * MIB) == [(4 * MIB, 1000, True)]
        assert len(image.watchers()) == 1
        assert number(lambda: images.remove("a", nothing)) == errno.EBUSY
    with images.open("a") as image:
        assert image.facts().size == 6 * MIB and image.watchers() == []
    images.remove("a", nothing)
    assert images.names() == {}


def test_what_is_taken_and_what_is_not_there(images: Images) -> None:
    images.create("a", MIB, {})
    images.create("b", MIB, {})
    before = images.names()
    assert number(lambda: images.create("a", MIB, {})) == errno.EEXIST
    assert number(lambda: naming.rename(images, "b", "a", before["b"])) == errno.EEXIST
    assert number(lambda: images.remove("none", nothing)) == errno.ENOENT
    assert number(lambda: images.open("none").__enter__()) == errno.ENOENT
    assert images.names() == before
    naming.rename(images, "b", "c", before["b"])
    assert images.names() == {"a": before["a"], "c": before["b"]}
    assert number(lambda: images.open("b").__enter__()) == errno.ENOENT
    with images.open("c") as image:
        assert image.facts().id == before["b"]
    images.remove("c", nothing)


def test_a_name_that_is_taken_in_the_middle_is_left_alone(images: Images) -> None:
    """Whoever makes an image has its object first, and its place in the directory then: each of them keeps others out."""
    images.create("b", MIB, {})
    ident = images.names()["b"]
    images.put("rbd_id.a", b"somebody else's")
    assert number(lambda: naming.rename(images, "b", "a", ident)) == errno.EEXIST
    assert number(lambda: images.put("rbd_id.a", b"ours")) == errno.EEXIST, "it was not removed"
    images.drop("rbd_id.a")
    images.create("a", MIB, {})
    before = images.names()
    images.drop("rbd_id.a")
    assert number(lambda: naming.rename(images, "b", "a", ident)) == errno.EEXIST
    assert images.names() == before
    images.put("rbd_id.a", len(before["a"]).to_bytes(4, "little") + before["a"].encode())
    for name in "ab":
        with images.open(name) as image:
            assert image.facts().id == before[name]


def test_versions_change_with_their_objects(images: Images) -> None:
    images.create("a", 8 * MIB, {"features": 61})
    images.create("b", 8 * MIB, {"features": 61})
    objects = [f"rbd_{what}.{images.names()[name]}" for name in "ab" for what in ("header", "object_map")]
    before = images.versions([*objects, "none"])
    assert all(before[:4]) and before[4] == 0
    assert images.versions(objects) == before[:4] and images.versions([]) == []
    with images.open("a", write=True) as image:
        image.write(0, b"x")
        image.flush()
    now = images.versions(objects)
    assert now[1] != before[1] and now[2:] == before[2:4]
    with images.open("b", write=True) as image:
        image.resize(16 * MIB, False, nothing)
    assert images.versions(objects)[2] != now[2]


def test_snapshots_and_clones(images: Images) -> None:
    images.create("a", 8 * MIB, {"features": 61})
    with images.open("a", write=True) as image:
        image.write(0, b"x" * 1000)
        image.snapshot("one")
        assert image.extents(0, 8 * MIB, "one") == []
        assert image.extents(0, 8 * MIB) == [(0, 4 * MIB, True)]
        image.write(4 * MIB, b"y")
        image.flush()
        assert image.extents(0, 8 * MIB, "one") == [(4 * MIB, 4 * MIB, True)]
        image.protect("one")
        assert [(one.name, one.protected, one.user) for one in image.snapshots()] == [("one", True, True)]
        assert number(lambda: image.remove_snapshot("one")) == errno.EBUSY
    images.clone("a", "one", images, "b", {"features": 61})
    with images.open("a") as image:
        assert [one.name for one in image.children()] == ["b"]
    with images.open("b", write=True) as image:
        parent = image.facts().parent
        assert parent is not None and (parent[0].name, parent[1]) == ("a", "one")
        assert isinstance(parent[0], ImageName)
        assert image.read(0, 2) == b"xx" and image.extents(0, 8 * MIB) == [] and image.data(0, MIB) == [(0, 1000, True)]
        told: list[tuple[int, int]] = []
        image.flatten(lambda done, total: told.append((done, total)))
        assert told and image.facts().parent is None and image.read(0, 2) == b"xx"
    assert number(lambda: images.remove("a", nothing)) == errno.ENOTEMPTY
    with images.open("a", write=True) as image:
        image.unprotect("one")
        image.remove_snapshot("one")
    with images.open("a") as image:
        image.copy(images, "c", {}, nothing)
    with images.open("c") as image:
        assert [start for start, _, _ in image.extents(0, 8 * MIB)] == [0, 4 * MIB]
        assert (image.read(999, 2), image.read(4 * MIB, 2)) == (b"x\0", b"y\0")


@pytest.mark.parametrize("way", ["libraries", "modules"])
@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ("poolkit", "AQBPx2FmAAAAABAA2Pz2wSu5v1E7nYlZr9cQ6g==", errno.EACCES),
        ("nobody", None, errno.EACCES),
        ("poolkit", "no key", errno.EINVAL),
    ],
)  # fmt: skip
def test_a_login_that_is_refused(
    cluster: Cluster, way: str, user: str, key: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    only(way, tmp_path, monkeypatch)
    settings = cluster.settings("poolkit", err_to_stderr="false")
    with pytest.raises(CephError) as caught:
        with ceph.connect(user, settings | ({"key": key} if key else {}), way=way):
            pass
    assert (caught.value.number, caught.value.what) == (expected, "connect")


def test_without_either_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libraries", "modules"):
        monkeypatch.delitem(sys.modules, f"poolkit.families.ceph.{name}", raising=False)
        monkeypatch.delattr(ceph, name, raising=False)
    monkeypatch.setitem(sys.modules, "rados", None)
    monkeypatch.setattr("ctypes.CDLL", lambda name, *_: (_ for _ in ()).throw(OSError(f"{name}: cannot open")))
    with pytest.raises(errors.ToolMissing) as caught:
        with ceph.connect("poolkit", {}):
            pass
    for error in (caught.value, ceph.lacks()):
        assert error is not None and "librbd1" in (error.hint or "") and "python3-rbd" in (error.hint or "")
