"""What the library says, in the words of the command: hints become command lines that can be pasted as they are."""

from __future__ import annotations

import shlex

from poolkit.cli.verbs import find
from poolkit.errors import Hint, Option, Remedy
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def command(action: Remedy, root: str | None = None) -> str:
    """The command line of a verb that the library proposes; a value that the user has to choose stands in capitals."""
    verb = find(action.verb)
    arguments = verb.arguments if verb is not None else ()
    words = ["poolkit", *(["--root", root] if root else []), action.verb]
    for key, value in action.options:
        words += _option(key, value)
    placed = [a for a in arguments if a.placed]
    operands = [
        (placed[min(at, len(placed) - 1)].value if placed else "VALUE") if value is ... else str(value)
        for at, value in enumerate(action.operands)
    ]
    if any(word.startswith("-") for word in operands):
        words.append("--")
    return shlex.join([*words, *operands])


def _option(key: str, value: Any) -> list[str]:
    name = "--" + key.replace("_", "-")
    if value is True:
        return [name]
    return [name, key.upper() if value is ... else str(value)]


def worded(text: str, root: str | None = None) -> str:
    """``text`` in the words of the command, if it has parts to word."""
    if not isinstance(text, Hint):
        return text
    said = []
    for part in text.parts:
        if isinstance(part, Remedy):
            said.append(command(part, root))
        else:
            said.append(" ".join(_option(part.name, part.value)) if isinstance(part, Option) else str(part))
    return "".join(said)
