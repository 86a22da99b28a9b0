"""Text for people: tables, sizes, times and colours, without a library, since ``list`` must start fast."""

from __future__ import annotations

import os
from itertools import chain, islice

from poolkit.errors import shown
from poolkit.lean import TYPE_CHECKING
from poolkit.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO


BOLD, RED, GREEN, YELLOW, DIM = "1", "31", "32", "33", "2"


class Paint:
    """Colours, or none: none unless the stream is a terminal and neither NO_COLOR, TERM=dumb nor ``--no-color`` forbids it."""

    def __init__(self, stream: IO[str] | None, wanted: bool = True) -> None:
        # https://no-color.org: set and not empty means no colour, whatever its value.
        self.on = (
            wanted and stream is not None and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
            and stream.isatty()
        )  # fmt: skip

    def __call__(self, text: str, code: str) -> str:
        """``text`` in the colour ``code`` (SGR), if colours are on."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and code else text


def size(number: int | None, exact: bool = False) -> str:
    """A size for people: ``1.50 GiB``, or the bytes; ``-`` if not known."""
    if number is None:
        return "-"
    return str(number) if exact else format_size(max(number, 0))


def yes(value: bool) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"


def when(seconds: float | None) -> str:
    """A time for people, in the local zone; ``-`` if not known."""
    if seconds is None:
        return "-"
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def width(text: str) -> int:
    """Columns of a terminal that a text fills: East Asian wide characters fill two, combining marks none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], paint: Paint, *, right: Sequence[str] = (), colour: str = ""
) -> list[str]:
    """Lines of an aligned table. ``right`` names the heads of columns aligned to the right; ``colour`` that of the states."""
    cells = [_clean(row) for row in rows]
    layout = _Layout(heads, right)
    layout.widen(cells)
    state = heads.index(colour) if colour and paint.on else -1
    lines = [paint(layout.line(heads), BOLD)]
    for row in cells:
        padded = layout.padded(row)
        if state >= 0:
            padded[state] = paint(padded[state], STATES.get(row[state], ""))
        lines.append("  ".join(padded).rstrip())
    return lines


HELD = 10_000
"""Rows of a long table that are kept in memory while the widths of its columns are found: about 5 MB."""


def long_table(
    heads: Sequence[str], rows: Callable[[], Iterable[Sequence[str]]], paint: Paint, *, right: Sequence[str] = ()
) -> Iterator[str]:
    """The lines of :func:`table`, one after another. With more than ``HELD`` rows ``rows`` is called again to print them.

    What is wider then than it was the first time, because it was changed meanwhile, leaves its line out of step.
    """
    layout = _Layout(heads, right)
    found = map(_clean, rows())
    held = list(islice(found, HELD))
    layout.widen(held)
    more = next(found, None)
    if more is not None:
        held.clear()
        layout.widen(chain([more], found))
    yield paint(layout.line(heads), BOLD)
    yield from map(layout.line, held if more is None else map(_clean, rows()))


def _clean(row: Sequence[str]) -> list[str]:
    return [shown(cell, 4096) for cell in row]


class _Layout:
    """The widths of a table's columns, and which are aligned to the right."""

    def __init__(self, heads: Sequence[str], right: Sequence[str]) -> None:
        self._widths = [width(head) for head in heads]
        self._flush = [head in right for head in heads]

    def widen(self, rows: Iterable[Sequence[str]]) -> None:
        """Make room for all cells of ``rows``."""
        widths = self._widths
        for row in rows:
            for place, cell in enumerate(row):
                if (wide := width(cell)) > widths[place]:
                    widths[place] = wide

    def padded(self, cells: Sequence[str]) -> list[str]:
        """Cells as wide as their columns."""
        return [
            " " * (w - width(c)) + c if right else c + " " * (w - width(c))
            for c, w, right in zip(cells, self._widths, self._flush, strict=True)
        ]

    def line(self, cells: Sequence[str]) -> str:
        """A line, without blanks at its end."""
        return "  ".join(self.padded(cells)).rstrip()


STATES = {"active": GREEN, "invalid": RED, "problem": RED, "note": YELLOW, "ok": GREEN}


def facts(pairs: Iterable[tuple[str, str]], paint: Paint) -> list[str]:
    """Lines of names and values, as ``virsh pool-info`` has them."""
    rows = [(f"{name}:", shown(value, 4096)) for name, value in pairs]
    wide = max((len(name) for name, _ in rows), default=0)
    return [paint(name.ljust(wide + 1), BOLD) + " " + value for name, value in rows]


def xml_for_terminal(text: str) -> str:
    """The same document with C1 controls (U+0080-9F) and bidirectional controls, which terminals obey, as references."""
    if text.isascii() or all(c.isprintable() or c in "\n\t" for c in text):
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"&#x{ord(c):x};" for c in text)


def count_of(documents: int, *, dry: bool) -> str:
    """How many documents are, or would be, somewhere."""
    return f"{documents} document{'' if documents == 1 else 's'} {'would be' if dry else 'is' if documents == 1 else 'are'}"
