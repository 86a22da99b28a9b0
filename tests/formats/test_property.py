"""Real headers, broken at random: no exception but ours, no unbounded read, and always an answer that makes sense."""

from __future__ import annotations

import importlib
import json
from tempfile import TemporaryFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolkit.errors import PoolkitError
from poolkit.formats import FORMATS, ImageInfo, as_format, check, content, probe, probe_fd, tables
from poolkit.formats._info import MAX_SIZE, Malformed
from poolkit.formats.description import _answer
from tests.formats import samples
from tests.formats.samples import Sparse
from tests.formats.test_hostile import vhdx

BASES: list[dict[int, bytes]] = [
    {0: data}
    for data in (
        samples.qcow2(backing=b"base.img", extensions=((0xE2792ACA, b"qcow2"), (0x6803F857, bytes(384)))),
        samples.qcow2(version=2, backing=b"/base"),
        samples.qcow2(
            incompatible=0x1C, autoclear=3, header_length=112, after=b"\1", extensions=((0x44415441, b"data.raw"),)
        ),
        samples.qcow(backing=b"base"),
        samples.qed(features=1, backing=b"base"),
        samples.vdi(),
        samples.vhd(),
        samples.vhd(kind=4, parent="parent.vhd"),
        samples.vhd_footer(kind=2),
        samples.vmdk(text=samples.descriptor('RW 2048 SPARSE "a.vmdk"', kind="monolithicSparse")),
        samples.vmdk(directory=(1 << 64) - 1) + samples.vmdk()[:512] + bytes(512),
        samples.descriptor('RW 2048 FLAT "a-flat.vmdk" 0', "RW 8 ZERO", extra='parentFileNameHint="b"'),
        samples.parallels(),
        samples.bochs(),
        samples.cloop(),
        samples.luks1(payload=8) + bytes(8192),
        samples.luks2(
            json.dumps({"segments": {"0": {"offset": "4096", "size": "dynamic", "sector_size": 512}}}).encode()
        ),
        bytes(1024) + samples.koly(),
        samples.cow2(),
        samples.cow3(),
    )
]
BASES += [
    {
        0: samples.qcow2(crypt=2, extensions=((0x0537BE77, b"\0\0\0\0\0\1\0\0\0\0\0\0\0\0\x10\0"),)),
        65536: samples.luks1() + bytes(4096),
    },
    {**vhdx().parts, (4 << 20) - 1: b"\0"},
    samples.iso(samples.qcow2()).parts,
    samples.iso().parts,
]

numbers = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 9, 0x7F, 0x80, 0xFE, 0xFF])
edges = st.sampled_from(
    [b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\xff" * 7 + b"\x7f", b"\0\0\0\1"]
)


@st.composite
def broken(draw: st.DrawFn) -> Sparse:
    """A header with bytes changed, numbers set to their limits, a part taken from another, the end cut off."""
    parts = {at: bytearray(data) for at, data in draw(st.sampled_from(BASES)).items()}
    places = list(parts)
    for _ in range(draw(st.integers(0, 6))):
        part = parts[draw(st.sampled_from(places))]
        if not part:
            continue
        # most fields stand near the start: half of the changes go there
        at = draw(st.integers(0, min(len(part), draw(st.sampled_from([128, 600, 20_000]))) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                part[at] = draw(numbers)
            case 1:
                value = draw(edges)
                part[at : at + len(value)] = value
            case 2:
                other = next(iter(draw(st.sampled_from(BASES)).values()))
                length = draw(st.integers(1, 600))
                part[at : at + length] = other[at : at + length]
            case 3:
                part[at : at + draw(st.integers(0, 64))] = draw(st.binary(max_size=64))
    end = max(at + len(part) for at, part in parts.items())
    size = draw(
        st.one_of(st.just(end), st.integers(0, end + 2000), st.sampled_from([512, 4096, 32775, 1 << 20, 1 << 40]))
    )
    return Sparse({at: bytes(part) for at, part in parts.items()}, size)


def sane(info: ImageInfo) -> None:
    assert info.format in FORMATS
    assert info.capacity is None or 0 <= info.capacity <= MAX_SIZE
    assert info.error is None or "malformed header" not in info.error, "a reader computed before it checked"
    assert info.error is not None or info.capacity is not None or "detached" in info.notes[0]
    assert not info.unsupported or info.error
    assert info.ambiguous == bool(set(info.also) & set(FORMATS))
    for text in _texts(_answer("x", info, 0, (), info.error)):
        assert text.isprintable()


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(broken())
def test_any_header_gets_an_answer(reader: Sparse) -> None:
    info = probe(reader)
    assert reader.reads <= 140
    assert reader.bytes <= 1 << 20
    sane(info)
    assert probe(reader) == info, "the same bytes get the same answer"
    if reader.size <= 1 << 20:
        with TemporaryFile() as file:
            file.write(reader.pread(reader.size, 0))
            file.flush()
            assert probe_fd(file.fileno(), reader.size) == info, "the fast way gives the same answer"
    reader.reads = reader.bytes = 0
    glance = check(reader, info, deep=False)
    assert reader.reads <= 40 and reader.bytes <= tables.GLANCE + (128 << 10)
    look = check(reader, info)
    for words in (glance, look):
        assert words is None or (words.isprintable() and "malformed tables" not in words)
    for format in ("raw", info.format):
        sane_pin = as_format(reader, format)
        assert sane_pin.format == format
        assert not sane_pin.ambiguous
    reader.reads = reader.bytes = 0
    assert "unreadable" not in content(reader)
    assert reader.bytes <= 1 << 20


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken(), st.sampled_from(FORMATS))
def test_every_reader_stands_any_bytes(reader: Sparse, name: str) -> None:
    """Each reader is given what the dispatcher would never give it, without the net under it."""
    module = importlib.import_module("poolkit.formats." + {"ploop": "parallels"}.get(name, name))
    if name == "dmg" and reader.size < 512:
        return  # known by its last 512 bytes: it is not asked about less
    try:
        module.read(reader, reader.pread(4096, 0), ImageInfo(name, tail=name == "vpc" and reader.size >= 512))
    except Malformed as error:
        assert str(error).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=700), st.text(max_size=12))
def test_any_bytes_and_any_format_name(data: bytes, name: str) -> None:
    sane(probe(Sparse({0: data})))
    try:
        as_format(Sparse({0: data}), name)
    except PoolkitError as error:
        assert str(error).isprintable()


def test_the_bases_are_sound() -> None:
    """A mutation of a header that is already broken would test little."""
    for parts in BASES:
        info = probe(Sparse(parts))
        assert (info.error, info.capacity is None) == (None, False), info
    assert {probe(Sparse(parts)).format for parts in BASES} == set(FORMATS) - {"raw"}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_can_be_on_record(format: str) -> None:
    blank = as_format(Sparse({}, 4096), format)
    assert blank.format == format
    if format == "raw":
        assert (blank.capacity, blank.error) == (4096, None)
    else:
        assert blank.capacity is None
        assert blank.error == f"the format on record is {format}; the content looks like raw"
