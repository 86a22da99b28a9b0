"""Sizes with libvirt's units, in integers only: ``parse("10", "GiB")``, ``parse_size("1.5G")`` and back.

libvirt's rule: a unit is ``B``, ``byte``, ``bytes`` or a letter of ``K M G T P E``, in any case. The letter alone or with
``iB`` counts in powers of 1024, with ``B`` in powers of 1000. The largest size is what 64 bits hold.
"""

from __future__ import annotations

LIMIT = 2**64 - 1  # libvirt keeps sizes in C's unsigned long long
LETTERS = "KMGTPE"


def factor(unit: str) -> int:
    """The number of bytes in one ``unit``; the empty unit is the byte. Raises ``ValueError``."""
    low = unit.lower()
    if low in ("", "b", "byte", "bytes"):
        return 1
    power = LETTERS.lower().find(low[0]) + 1
    if power and low[1:] in ("", "ib"):
        return int(1024**power)
    if power and low[1:] == "b":
        return int(1000**power)
    raise ValueError(f"unknown unit {unit[:20]!r}; use bytes, KiB, MiB, GiB, TiB, PiB, EiB or KB, MB, GB, TB, PB, EB")


def scale(number: int, unit: str = "") -> int:
    """``number`` of ``unit`` in bytes. Raises ``ValueError`` for a negative number, an unknown unit, over 64 bits."""
    size = number * factor(unit)
    if not 0 <= size <= LIMIT:
        raise ValueError(f"{number} {unit}".rstrip() + f" is not between 0 and {LIMIT} bytes")
    return size


def parse_size(text: str, default_unit: str = "") -> int:
    """A size as people type it, ``"10G"``, ``"512 MiB"``, ``"1.5T"``, in bytes.

    ``default_unit`` counts for a number without a unit, and ``Gi`` is ``GiB``. A fraction is exact (no floating point) and
    must come to whole bytes. Raises ``ValueError`` with a sentence that says what is wrong.
    """
    stripped = text.strip()
    end = 0
    while end < len(stripped) and stripped[end] in "0123456789.":
        end += 1
    number, unit = stripped[:end], stripped[end:].strip() or default_unit
    if len(unit) == 2 and unit[1] in "iI":
        unit += "B"  # Gi, as Kubernetes writes it
    whole, dot, part = number.partition(".")
    if len(number) > 40 or not (whole + part) or "." in part or (dot and not part):
        raise ValueError(f"{text[:60]!r} is not a size; write a number and a unit, such as 10GiB")
    size, rest = divmod(int(whole + part) * factor(unit), 10 ** len(part))
    if rest:
        raise ValueError(f"{text[:60]!r} is not a whole number of bytes")
    return scale(size)


def format_size(size: int) -> str:
    """``size`` bytes for people, as virsh prints it: two decimals, powers of 1024 (``"1.50 GiB"``).

    Raises ``ValueError`` for a negative size.
    """
    if size < 0:
        raise ValueError("a size is not negative")
    power = min(max(size.bit_length() - 1, 0) // 10, 6)
    unit = 1024**power
    hundredths = (size * 100 + unit // 2) // unit
    return f"{hundredths // 100}.{hundredths % 100:02d} {'B' if not power else LETTERS[power - 1] + 'iB'}"
