"""Backing chains are followed on request, through files only, and end where they cannot be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine.chain import DEPTH
from poolkit.engine.pool import Pool
from tests.formats import samples

from .conftest import MIB, make, put

RAW = ((0xE2792ACA, b"raw"),)
QCOW2 = ((0xE2792ACA, b"qcow2"),)


def last(pool: Pool, name: str) -> str:
    return pool.volume(name).chain()[-1].problem


def test_a_single_volume_is_its_own_chain(pool: Pool) -> None:
    (link,) = make(pool, "disk").chain()
    assert (link.format, link.capacity, link.pool, link.volume, link.problem) == ("raw", MIB, "images", "disk", "")


def test_a_chain_to_itself_and_around_ends(pool: Pool) -> None:
    put(pool, "self", samples.qcow2(backing=b"self", extensions=QCOW2))
    put(pool, "a", samples.qcow2(backing=b"b", extensions=QCOW2))
    put(pool, "b", samples.qcow2(backing=b"a", extensions=QCOW2))
    assert "comes back" in last(pool, "self")
    assert "comes back" in last(pool, "a")
    assert [link.volume for link in pool.volume("a").chain()] == ["a", "b", "a"]


def test_a_fifo_below_hangs_neither_refresh_nor_chain(pool: Pool, place: Path) -> None:
    os.mkfifo(place / "fifo")
    put(pool, "with-format", samples.qcow2(backing=b"fifo", extensions=RAW))
    put(pool, "without", samples.qcow2(backing=b"fifo"))
    assert "neither a file nor a block device" in last(pool, "with-format")
    assert "does not say its format" in last(pool, "without")


@pytest.mark.parametrize(
    ("backing", "format", "said"),
    [
        (b"nbd://host/disk", "raw", "not opened"),
        (b'json:{"driver":"raw"}', "raw", "not opened"),
        (b"/no/such/file", "raw", "No such file"),
        (b"/etc/hostname", None, "does not say its format"),
        (b"/proc/self/fd", "raw", "a directory"),
        (b"/x\x1b[31m", "raw", "no clean text"),
        (b"/x\xff", "raw", "no clean text"),
        (b"file:base", None, "does not say its format"),
    ],
)
def test_what_cannot_be_followed_says_why(pool: Pool, backing: bytes, format: str | None, said: str) -> None:
    extensions = ((0xE2792ACA, format.encode()),) if format else ()
    volume = put(pool, "top", samples.qcow2(backing=backing, extensions=extensions))
    links = volume.chain()
    assert len(links) == 2 and said in links[-1].problem
    assert links[-1].path.isprintable()


def test_a_link_below_is_not_followed(pool: Pool, place: Path) -> None:
    (place / "link").symlink_to("/etc/shadow")
    put(pool, "top", samples.qcow2(backing=b"link", extensions=RAW))
    assert "link" in last(pool, "top")


def test_an_image_that_contradicts_the_record_ends_the_chain(pool: Pool) -> None:
    make(pool, "base")
    put(pool, "top", samples.qcow2(backing=b"base", extensions=QCOW2))
    assert "its format on record is raw" in last(pool, "top")


def test_the_record_fills_in_a_format_that_is_not_said(pool: Pool) -> None:
    make(pool, "base")
    put(pool, "top", samples.qcow2(backing=b"base"))
    assert [(link.volume, link.format) for link in pool.volume("top").chain()] == [("top", "qcow2"), ("base", "raw")]


def test_a_long_chain_ends(pool: Pool, place: Path) -> None:
    for number in range(DEPTH + 5):
        (place / f"v{number}").write_bytes(samples.qcow2(backing=b"v%d" % (number + 1), extensions=QCOW2))
    pool.refresh()
    links = pool.volume("v0").chain()
    assert len(links) == DEPTH + 1 and f"more than {DEPTH}" in links[-1].problem


def test_going_up_from_a_link_is_not_guessed(pool: Pool, place: Path, tmp_path: Path) -> None:
    """By its words the name is a file of the pool; QEMU, which follows the link, would read another one."""
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    (tmp_path / "elsewhere" / "base").write_bytes(b"another disk".ljust(MIB, b"\0"))
    make(pool, "base")
    (place / "link").symlink_to(elsewhere)
    (place / "folder").mkdir()
    put(pool, "top", samples.qcow2(backing=b"link/../base", extensions=RAW))
    put(pool, "fine", samples.qcow2(backing=b"folder/../base", extensions=RAW))
    assert "goes up from a symbolic link" in last(pool, "top")
    assert [link.volume for link in pool.volume("fine").chain()] == ["fine", "base"]
    with pytest.raises(errors.Unsafe, match="goes up from a symbolic link"):
        pool.volume("top").clone("flat", pool=pool, linked=True)


LOCAL = [
    (b"base", "qcow2"),
    (b"./base", "qcow2"),
    (b"{place}/base", "qcow2"),
    (b"file:{place}/base", "qcow2"),
    (b"file://{place}/base", "qcow2"),
    (b"file:base", "qcow2"),
    (b'json:{"driver":"file","filename":"{place}/base"}', "qcow2"),
    (b'json:{"driver":"qcow2","file":{"driver":"file","filename":"{place}/base"}}', None),
    (b'json:{"driver":"qcow2","file":{"filename":"{place}/base"}}', None),
    (b'json:{"driver":"qcow2","file.driver":"file","file.filename":"{place}/base"}', None),
]


@pytest.mark.parametrize(("name", "said"), LOCAL)
def test_each_way_to_name_a_local_file_is_followed_and_printed_as_its_path(
    pool: Pool, place: Path, name: bytes, said: str | None
) -> None:
    make(pool, "base", "qcow2")
    extensions = ((0xE2792ACA, said.encode()),) if said else ()
    top = put(pool, "top", samples.qcow2(backing=name.replace(b"{place}", bytes(place)), extensions=extensions))
    assert [(link.volume, link.format, link.problem) for link in top.chain()] == [
        ("top", "qcow2", ""),
        ("base", "qcow2", ""),
    ]
    backing = top.definition().backing_store
    assert (backing.path, backing.format) == (f"{place}/base", "qcow2")
    # What is printed can be looked up, and be made again.
    assert pool._core.find_volume("path", backing.path)[1].name == "base"
    top.delete()
    assert pool.create_volume(top.xml()).definition().backing_store == backing


@pytest.mark.parametrize("said", ["file", "host_device", "unheard"])
def test_a_backing_format_that_is_none_is_raw(pool: Pool, said: str) -> None:
    make(pool, "base")
    top = put(pool, "top", samples.qcow2(backing=b"base", extensions=((0xE2792ACA, said.encode()),)))
    assert [(link.volume, link.format, link.problem) for link in top.chain()][1:] == [("base", "raw", "")]
    assert top.definition().backing_store.format == "raw"


def test_a_word_that_is_no_format_opens_no_image(pool: Pool) -> None:
    make(pool, "base", "qcow2")
    top = put(pool, "top", samples.qcow2(backing=b"base", extensions=((0xE2792ACA, b"file"),)))
    assert "takes it for raw; its format on record is qcow2" in top.chain()[-1].problem


@pytest.mark.parametrize(
    "name",
    [
        b"nbd://host/x",
        b"file://host/x",
        b'json:{"driver":"nbd","host":"h"}',
        b"json:[1]",
        b"json:{",
        b'json:{"file":1}',
    ],
)
def test_what_is_no_local_file_stays_as_it_is_stored(pool: Pool, name: bytes) -> None:
    top = put(pool, "top", samples.qcow2(backing=name, extensions=RAW))
    assert top.definition().backing_store.path == name.decode()
    assert "not a file" in top.chain()[-1].problem


def test_a_name_that_goes_up_keeps_its_way(pool: Pool, place: Path) -> None:
    top = put(pool, "top", samples.qcow2(backing=b"../base", extensions=RAW))
    assert top.definition().backing_store.path == f"{place}/../base"


def test_a_data_file_is_a_link_that_is_shown(pool: Pool, place: Path) -> None:
    top = put(pool, "top", samples.qcow2(extensions=((0x44415441, b"data.raw"),), incompatible=4))
    first, second = top.chain()
    assert "in another file" in first.problem
    assert (second.path, second.kind, second.format) == (f"{place}/data.raw", "data file", "raw")


def test_directories_are_links_that_are_shown(pool: Pool, place: Path) -> None:
    (place / "folder").mkdir()
    top = put(pool, "top", samples.qcow2(backing=b"fat:rw:%b" % bytes(place / "folder")))
    link = top.chain()[-1]
    assert (link.path, link.kind) == (f"{place}/folder", "dir") and "a directory" in link.problem
    (own,) = pool.volume("folder").chain()
    assert (own.kind, own.format, own.problem) == ("dir", "dir", "")
