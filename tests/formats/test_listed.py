"""The quick answer for a listing is the full one, whatever the header says."""

from __future__ import annotations

import struct
import tempfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from poolkit.formats import listed, probe_fd


def overlay(name: bytes = b"base.qcow2", size: int = 1 << 30) -> bytearray:
    """A qcow2 header as QEMU writes it, with its backing file's name and format."""
    form = struct.pack(">II", 0xE2792ACA, 5) + b"qcow2\0\0\0" + bytes(8)
    place = 112 + len(form)
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, place, len(name), 16, size, 0, 2, 196608, 65536, 1, 0, 0, 0, 0, 0, 4, 112
    )
    return bytearray((head + bytes(8) + form + name).ljust(4096, b"\0"))


FIELDS = (
    "format",
    "capacity",
    "compat",
    "cluster_size",
    "features",
    "encryption",
    "data_file",
    "also",
    "ambiguous",
    "error",
    "unsupported",
    "notes",
)


def compare(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        quick, full = listed(file.fileno(), len(data)), probe_fd(file.fileno(), len(data))
    if quick is None:
        assert (full.format, full.capacity, full.also, full.error) == ("raw", len(data), (), None)
        return
    assert [getattr(quick, f) for f in FIELDS] == [getattr(full, f) for f in FIELDS]
    assert quick.backing == full.backing


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 159), st.integers(0, 255), max_size=4), st.integers(100, 40000))
@example({}, 4096)
@example({}, 40000)
def test_a_damaged_header_is_told_alike(damage: dict[int, int], size: int) -> None:
    data = overlay()
    for place, value in damage.items():
        data[place] = value
    compare(bytes(data).ljust(size, b"\0")[:size])


@settings(deadline=None)
@given(st.binary(max_size=64), st.sampled_from([0, 64, 510, 32769 - 4096, 40000 - 4096 - 512]))
def test_a_mark_anywhere_is_told_alike(mark: bytes, place: int) -> None:
    for known in (b"CD001", b"BEA01", b"koly", b"conectix", b"\x7f\x10\xda\xbe", b"KDMV", b"# Disk", mark):
        for head in (bytes(4096), bytes(overlay()), bytes(range(256)) * 16):
            data = bytearray(head.ljust(40000, b"\0"))
            at = place if place in (0, 64, 510) else place + 4096
            data[at : at + len(known)] = known
            compare(bytes(data))
