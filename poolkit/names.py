"""Names of pools and volumes: what no document can hold, which volumes may have, and how a sentence lists them."""

from __future__ import annotations

from poolkit import errors
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


SHOWN = 3
"""Names that a sentence lists before it counts."""


def quoted(names: Iterable[str], count: int | None = None) -> str:
    """The first few of ``count`` names (of all, without it), in quotes: ``'a', 'b' and 3 others``."""
    names = tuple(names)
    shown = names[:SHOWN]
    more = (len(names) if count is None else count) - len(shown)
    words = [f"'{name}'" for name in shown]
    if more:
        words.append("1 other" if more == 1 else f"{more} others")
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def name_fault(text: str) -> str:
    """Why ``text`` cannot be a name in a document: a character that XML does not hold, or a control character; or nothing."""
    if text.isprintable():
        return ""
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
        return "it contains a control character"
    from poolkit.xmlmap.quote import unwritable

    found = unwritable.search(text)
    if found is None:
        return ""
    if "\ud800" <= found[0] <= "\udfff":
        return "it is not valid Unicode text"
    return f"it contains the character U+{ord(found[0]):04X}, which XML cannot hold"


def check_volume_name(name: str, pool: str | None = None) -> str:
    """``name`` if it may name a volume, else ``InvalidArgument``.

    1 to 255 bytes of UTF-8 (NAME_MAX of Linux file systems) without '/', control characters (U+0000-1F, U+007F-9F),
    surrogates or U+FFFE and U+FFFF, which XML cannot hold; not '.' or '..'; not beginning with '-', which tools take for
    an option, nor with '.poolkit-'.
    """
    why = _name_fault(name)
    if why:
        shown = errors.shown(name, 80)
        raise errors.InvalidArgument(f"'{shown}' cannot be the name of a volume: {why}", pool=pool, volume=shown)
    return name


def _name_fault(name: str) -> str:
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "that is a directory"
    if "/" in name:
        return "it contains '/'"
    if name[0] == "-":
        return "it begins with '-'"
    if name.startswith(".poolkit-"):
        return "names that begin with '.poolkit-' are poolkit's own"
    why = name_fault(name)
    if why:
        return why
    size = len(name.encode("utf-8"))
    return f"it has {size} bytes, and 255 is the most" if size > 255 else ""
