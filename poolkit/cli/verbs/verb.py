"""What a verb is, and the arguments that verbs of several groups share."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from poolkit.cli.arguments import Argument


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
