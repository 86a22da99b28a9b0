"""Text for people: tables, sizes, times and colours, without a library, since ``list`` must start fast."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO

from poolkit.cli.arguments import shown
from poolkit.units import format_size

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
    cells = [[shown(c, 4096) for c in row] for row in rows]
    widths = [max([width(head), *(width(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    flush = [head in right for head in heads]
    state = heads.index(colour) if colour and paint.on else -1
    lines = [paint("  ".join(_padded(heads, widths, flush)).rstrip(), BOLD)]
    for row in cells:
        padded = _padded(row, widths, flush)
        if state >= 0:
            padded[state] = paint(padded[state], STATES.get(row[state], ""))
        lines.append("  ".join(padded).rstrip())
    return lines


STATES = {"active": GREEN, "invalid": RED, "problem": RED, "note": YELLOW, "ok": GREEN}


def _padded(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> list[str]:
    return [
        " " * (w - width(c)) + c if right else c + " " * (w - width(c))
        for c, w, right in zip(cells, widths, flush, strict=True)
    ]


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
