"""Every verb of the command, as data. The parser, ``--help``, shell completion and the reference page read these tables.

To add a verb, add an entry to the table of its group, a module here, and the function it names (``module:function`` below
``poolkit.cli``). The function gets the :class:`~poolkit.cli.session.Session` and the parsed values, and reports through the
session alone. A table is loaded when one of its verbs is looked for, so that a command does not pay for those of others.
"""

from __future__ import annotations

from poolkit import lean
from poolkit.cli.arguments import data, flag, option
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from poolkit.cli.arguments import Argument

__all__ = ["GROUPS", "Verb", "find", "verbs", "words"]

GROUPS = {
    "pools": "Pools",
    "volumes": "Volumes",
    "flavors": "Flavors",
    "secrets": "Secrets",
    "documents": "Documents",
    "host": "This machine",
    "shell": "The command itself",
}
"""The sections of the help and of the reference page, in order; a section's verbs are in the module of its name."""

_BEGINNINGS = {"vol": "volumes", "flavor": "flavors", "secret": "secrets"}


class Verb(NamedTuple):
    """One verb. ``aliases`` has virsh's name first; ``json`` says what ``--json`` prints, ``more`` ends the long help."""

    name: str
    run: str
    help: str
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[str, ...] = ()
    group: str = "pools"
    json: str = "outcome"
    more: str = ""


# -- the arguments that verbs of several groups share ------------------------------------------------------------------

POOL = data("pool", "name or uuid of the pool", "pool")
XPATH = (
    option("--xpath", "print only what an XPath expression finds", late=True),
    flag("--wrap", "put what --xpath finds into one element"),
)
FILE = data("file", "the XML document; - is standard input", "file")
LENIENT = flag("--lenient", "drop unknown elements with a warning instead of refusing them")
VALIDATE = flag("--validate", "check the document with the RELAX NG and XSD grammars as well")
OVERWRITE = flag("--overwrite", "let build destroy what the source holds")
WATCH = (
    flag("--loop", "go on after the first"), option("--timeout", "give up after so long", "seconds"),
    flag("--list", "list the kinds of events"), flag("--timestamp", "print the time before each"),
)  # fmt: skip
BYTES = flag("--bytes", "print sizes in bytes")
NAME_ONLY = flag("--name", "print names only, one per line")


# -- finding them ------------------------------------------------------------------------------------------------------


def verbs() -> tuple[Verb, ...]:
    """All verbs in the order of the help."""
    return tuple(verb for group in GROUPS for verb in _table(group))


def find(word: str) -> Verb | None:
    """The verb of that name or alias."""
    likely = _BEGINNINGS.get(word.partition("-")[0], "pools")
    for group in (likely, *(group for group in GROUPS if group != likely)):
        for verb in _table(group):
            if word == verb.name or word in verb.aliases:
                return verb
    return None


def words() -> list[str]:
    """All names and aliases."""
    return [w for verb in verbs() for w in (verb.name, *verb.aliases)]


def _table(group: str) -> tuple[Verb, ...]:
    found: tuple[Verb, ...] = lean.module(f"poolkit.cli.verbs.{group}").VERBS
    return found
