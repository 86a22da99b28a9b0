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
        (b"/proc/self/fd", "raw", "neither a file"),
        (b"/x\x1b[31m", "raw", "no clean text"),
        (b"/x\xff", "raw", "no clean text"),
        (b"/etc/hostname", "unheard", "not known"),
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
