"""Sizes and their units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolkit import units


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("", 1), ("b", 1), ("BYTE", 1), ("bytes", 1), ("k", 1024), ("KiB", 1024), ("kib", 1024), ("KB", 1000), ("kb", 1000),
        ("M", 2**20), ("MB", 10**6), ("gib", 2**30), ("GB", 10**9), ("T", 2**40), ("tb", 10**12), ("P", 2**50),
        ("PB", 10**15), ("e", 2**60), ("EiB", 2**60), ("EB", 10**18),
    ],
)  # fmt: skip
def test_factor(unit: str, factor: int) -> None:
    assert units.factor(unit) == factor


@pytest.mark.parametrize("unit", ["x", "ki", "kibb", "bb", "ib", "byt", "ZiB", "K B", " k"])
def test_unknown_units(unit: str) -> None:
    with pytest.raises(ValueError, match="unknown unit"):
        units.factor(unit)


def test_scale_holds_64_bits_and_no_more() -> None:
    assert units.scale(2**64 - 1) == 2**64 - 1
    assert units.scale(15, "EiB") == 15 * 2**60
    for number, unit in ((2**64, ""), (16, "EiB"), (19, "EB"), (-1, "k")):
        with pytest.raises(ValueError, match="is not between 0 and"):
            units.scale(number, unit)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10", 10),
        (" 10 G ", 10 * 2**30),
        ("512MiB", 2**29),
        ("1.5T", 3 * 2**39),
        (".5k", 512),
        ("0.1KB", 100),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert units.parse_size(text) == size


def test_default_unit_counts_only_where_none_is_given() -> None:
    assert units.parse_size("2", "G") == 2**31
    assert units.parse_size("2b", "G") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a size"), ("G", "is not a size"), ("1.2.3G", "is not a size"), ("1.", "is not a size"),
        ("-1", "is not a size"),
        ("1e3", "unknown unit"), ("0.0001k", "is not a whole number of bytes"), ("16E", "is not between"),
        ("9" * 50, "is not a size"),
        ("1 potato", "unknown unit"),
    ],
)  # fmt: skip
def test_sizes_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.00 B"), (1023, "1023.00 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (10 * 2**30, "10.00 GiB"),
        (2**64 - 1, "16.00 EiB"),
    ],
)  # fmt: skip
def test_format_size(size: int, text: str) -> None:
    assert units.format_size(size) == text


def test_format_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match="not negative"):
        units.format_size(-1)


@given(st.integers(0, units.LIMIT // 2**60), st.sampled_from(["", "KiB", "MB", "g", "PiB", "EiB"]))
def test_parse_is_scale(number: int, unit: str) -> None:
    assert units.parse_size(f"{number}{unit}") == units.scale(number, unit)
