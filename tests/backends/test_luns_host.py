"""What of a unit is looked at, on the host alone."""

from __future__ import annotations

from poolkit.families import luns
from poolkit.formats import signatures
from poolkit.host.descriptors import blank


def test_all_signatures_at_the_beginning_are_within_what_is_read() -> None:
    far = {name for offset, magic, name in signatures._SIGNS if offset + len(magic) > luns.HEAD}
    assert far == {"VMFS_volume_member"}


def test_what_a_unit_holds_is_found_up_to_the_last_byte_that_is_read() -> None:
    assert luns.recognised(bytes(luns.HEAD)) == ()
    head = bytearray(luns.HEAD)
    head[65600:65608] = b"_BHRfS_M"
    assert luns.recognised(bytes(head)) == ("btrfs",)


def test_blank() -> None:
    assert blank(b"") and blank(bytes(4097))
    assert not blank(b"\1") and not blank(bytes(4096) + b"\1") and not blank(b"\1" + bytes(4096))
