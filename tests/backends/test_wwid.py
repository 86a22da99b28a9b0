"""WWIDs out of pages of vital product data, against what scsi_id of Debian 12 printed for the same units."""

from __future__ import annotations

import pytest

from poolkit.families import wwid


def page(*designators: tuple[int, int, bytes], association: int = 0) -> bytes:
    body = b"".join(bytes([code, association << 4 | kind, 0, len(value)]) + value for kind, code, value in designators)
    return bytes([0, 0x83]) + len(body).to_bytes(2, "big") + body


NAA5 = bytes.fromhex("500140512345678a")
NAA6 = bytes.fromhex("6001405a1b2c3d4e5f60718293a4b5c6")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (page((3, 1, NAA6)), "36001405a1b2c3d4e5f60718293a4b5c6"),
        (page((3, 1, NAA5), (3, 1, NAA6)), "36001405a1b2c3d4e5f60718293a4b5c6"),
        (page((1, 2, b"LIO-ORG disk:1234"), (3, 1, NAA5)), "3500140512345678a"),
        (page((1, 2, b"LIO-ORG disk:1234"), (2, 1, b"\x00\x11\x22\x33\x44\x55\x66\x77")), "20011223344556677"),
        (page((1, 2, b"ATA     QEMU HARDDISK   QM00001  ")), "1ATA_QEMU_HARDDISK_QM00001"),
        (page((0, 2, b"SCSI1")), "0QEMU_QEMU_HARDDISK_SCSI1"),
        (page((0, 2, b"a/b;c\xe4")), "0QEMU_QEMU_HARDDISK_a/b_c_"),
    ],
)
def test_the_designator_is_chosen_and_spelt_as_udev_does(found: bytes, expected: str) -> None:
    assert wwid.of_pages(found, b"", "QEMU    ", "QEMU HARDDISK   ") == expected


def test_the_makers_name_is_nobodys_own() -> None:
    """Units that share it must not share a key, or one could be taken for another."""
    assert wwid.of_pages(page((1, 2, b"LIO-ORG \0"))) == ""
    assert wwid.of_pages(page((1, 2, b"LIO-ORG "))) == ""


def test_the_serial_number_stands_in() -> None:
    serial = bytes([0, 0x80, 0, 8]) + b"  1234  "
    assert wwid.of_pages(b"", serial, "Linux   ", "scsi_debug      ") == "SLinux_scsi_debug_1234"
    assert wwid.of_pages(page((3, 1, NAA5)), serial) == "3500140512345678a"
    assert wwid.of_pages(b"", b"", "Linux   ", "scsi_debug      ") == ""


def test_names_of_ports_and_targets_are_not_the_units() -> None:
    assert wwid.of_pages(page((3, 1, NAA5), association=1)) == ""
    assert wwid.of_pages(page((3, 1, NAA5), association=2)) == ""


@pytest.mark.parametrize("cut", range(len(page((3, 1, NAA6), (1, 2, b"x"))) + 1))
def test_a_page_that_is_cut_short_gives_whole_names_or_none(cut: int) -> None:
    assert wwid.of_pages(page((3, 1, NAA6), (1, 2, b"x"))[:cut]) in ("", "36001405a1b2c3d4e5f60718293a4b5c6")
