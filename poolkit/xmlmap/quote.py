"""Text from documents made safe to show: short, on one line, no control character; and what no document can hold."""

from __future__ import annotations

from ..errors import shown
from ..lean import pattern


def quoted(text: str, longest: int = 80) -> str:
    """``text`` as ``shown``, in single quotes."""
    return f"'{shown(text, longest)}'"


def suggestion(word: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` when one of ``known`` looks like ``word``, otherwise nothing."""
    if len(word) > 64:
        return ""
    for one in known:
        if one.lower() == word.lower():
            return f"; did you mean '{one}'?"
    for one in sorted(known, key=len):  # letters left out: nfs for netfs
        letters = iter(one)
        if len(word) > 2 and all(letter in letters for letter in word):
            return f"; did you mean '{one}'?"
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


# What XML 1.0 cannot hold and the controls that no document takes; tab and line ends are up to each type.
_UNWRITABLE = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"
unwritable = pattern(f"[{_UNWRITABLE}]")
