"""From the words of a command line to values: the form of arguments, and the parser that follows virsh's rules.

Any argument may be given in its place or by name (``vol-info disk1 --pool images``, ``vol-info --vol disk1 --pool images``),
options stand anywhere, ``--`` ends them, and nothing is abbreviated, so that a script keeps its meaning when an option is
added. argparse has neither the first rule nor a start-up cost below that of the whole ``list`` verb.
"""

from __future__ import annotations

import os

from poolkit.errors import InvalidArgument, shown
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Any


class Argument(NamedTuple):
    """One argument of a verb.

    ``name`` has leading dashes if it is an option. ``kind`` says what a value is: ``flag`` (no value), ``text``, ``pool``,
    ``volume``, ``file``, ``directory``, ``size``, ``change`` (a size that may be negative), ``number``,
    ``seconds``, ``word`` (one of ``choices``), ``words`` (several, with commas), ``verb``, ``refused`` (``help`` says why).
    ``times`` is ``1`` (needed), ``?``, ``*`` or ``+``; an option is never needed unless it is ``1``. A
    ``late`` option may be given by its place, too, behind all that have one, as virsh has it. ``instead``
    names the argument whose place is not filled where this option is given.
    """

    name: str
    help: str
    kind: str = "text"
    times: str = "1"
    choices: tuple[str, ...] = ()
    short: str = ""
    late: bool = False
    instead: str = ""

    @property
    def key(self) -> str:
        """The attribute that has the value."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def option(self) -> str:
        """The name by which it is given."""
        return self.name if self.name.startswith("--") else f"--{self.name}"

    @property
    def called(self) -> str:
        """How a message names it: as the usage line does where its name alone says little."""
        return self.value if self.placed and self.kind in ("file", "word") else self.name

    @property
    def placed(self) -> bool:
        """Whether it may be given by its place."""
        return not self.name.startswith("--")

    @property
    def value(self) -> str:
        """What a value looks like in help, such as ``SIZE``; empty for a flag."""
        if self.kind == "flag":
            return ""
        if self.kind == "word":
            return "|".join(self.choices) if len(self.choices) < 5 else self.key.upper()
        names = {
            "size": "SIZE",
            "change": "SIZE",
            "number": "N",
            "seconds": "SECONDS",
            "file": "FILE" if self.key not in ("path", "dir") else self.key.upper(),  # those may be folders
            "directory": "DIR",
            "pool": "POOL",
        }
        return names.get(self.kind, self.key.upper().replace("_", "-"))


def data(name: str, help: str, kind: str = "text", times: str = "1", choices: tuple[str, ...] = ()) -> Argument:
    """An argument that is given by its place, or by its name."""
    return Argument(name, help, kind, times, choices)


def option(
    name: str, help: str, kind: str = "text", choices: tuple[str, ...] = (), *, needed: bool = False, late: bool = False
) -> Argument:
    """An option with a value."""
    return Argument(name, help, kind, "1" if needed else "?", choices, late=late)


def flag(name: str, help: str, short: str = "") -> Argument:
    """An option without a value."""
    return Argument(name, help, "flag", "?", (), short)


_URI = ("-c", "--connect")  # of virsh


class Values:
    """The values of one command line, as attributes; a missing one is None, a missing flag False, a missing list ``[]``."""

    def __init__(self, arguments: Sequence[Argument]) -> None:
        for argument in arguments:
            self.__dict__[argument.key] = False if argument.kind == "flag" else [] if argument.times in "*+" else None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value


GLOBAL = (
    option(
        "--root", "keep definitions and state below DIR instead of in the system's or the user's folders", "directory"
    ),
    flag("--json", "answer with JSON on standard output, and errors with one JSON object on standard error"),
    flag("--dry-run", "show what would be done, and change nothing"),
    option("--wait", "wait so long for other work on the same pool before giving up (0 by default)", "seconds"),
    flag("--quiet", "print only what was asked for: no notes, no progress, no report of success", "-q"),
    flag("--no-color", "no colours, as with NO_COLOR in the environment"),
    flag("--log-json", "write one JSON line per step, event and progress report to standard error"),
    flag("--debug", "show the traceback of an error"),
    flag("--help", "explain poolkit or the verb", "-h"),
    flag("--version", "print poolkit's version"),
)
"""The options of all verbs; they may stand before and after the verb."""


def usage_error(message: str, verb: str | None = None, hint: str | None = None) -> InvalidArgument:
    """The error for a command line that cannot be meant."""
    return InvalidArgument(message, hint=hint or f"poolkit {verb + ' ' if verb else ''}--help explains the arguments")


def near(word: str, words: Sequence[str]) -> str | None:
    """A sentence with the word that was probably meant."""
    import difflib

    close = difflib.get_close_matches(word, words, 1)
    return f"did you mean '{close[0]}'?" if close else None


def without_replaced(arguments: Sequence[Argument], words: Sequence[str]) -> list[Argument]:
    """The arguments but those whose place an option among ``words`` takes."""
    options = {word.partition("=")[0] for word in (words[: words.index("--")] if "--" in words else words)}
    gone = {a.instead for a in arguments if a.instead and a.option in options}
    return [a for a in arguments if a.key not in gone]


def next_place(arguments: Sequence[Argument], seen: Container[str]) -> Argument | None:
    """The argument that the next word without a name is for: the first place that is free, then the first late option."""
    places = [*(a for a in arguments if a.placed), *(a for a in arguments if a.late)]
    return next((a for a in places if a.times in "*+" or a.key not in seen), None)


class _Parser:
    def __init__(self, arguments: Sequence[Argument], verb: str | None) -> None:
        self.verb = verb
        self.arguments = arguments
        self.options = {a.option: a for a in arguments} | {a.short: a for a in arguments if a.short}
        self.values = Values(arguments)
        self.seen: set[str] = set()

    def take(self, words: Sequence[str], at: int) -> int:
        """Take the option at ``words[at]``; the index of the next word."""
        word = words[at]
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        argument = self.options.get(name)
        if argument is None and name in _URI:
            raise usage_error(
                "poolkit is a library and a command with no daemon behind it, so there is no URI to connect to",
                self.verb, "leave it out; --root DIR chooses other folders than the system's or the user's",
            )  # fmt: skip
        if argument is None:
            where = f"the verb '{self.verb}'" if self.verb else "poolkit"
            hint = near(name, [o for o in self.options if o.startswith("--")])
            raise usage_error(f"{where} has no option '{shown(name)}'", self.verb, hint)
        at += 1
        if argument.kind == "flag":
            if equals:
                raise usage_error(f"the option '{name}' takes no value", self.verb)
            setattr(self.values, argument.key, True)
            self.seen.add(argument.key)
            return at
        if not equals:
            if at >= len(words):
                raise usage_error(f"the option '{name}' needs a value ({argument.value})", self.verb)
            value = words[at]
            at += 1
        self.put(argument, value)
        return at

    def put(self, argument: Argument, word: str) -> None:
        """Store a value."""
        value = convert(argument, word, self.verb)
        if argument.times in "*+":
            getattr(self.values, argument.key).append(value)
        elif argument.key in self.seen:
            raise usage_error(f"'{argument.name}' is given twice", self.verb)
        else:
            setattr(self.values, argument.key, value)
        self.seen.add(argument.key)

    def place(self, word: str) -> None:
        """Store a word that has no name in the first place that is free."""
        argument = next_place(self.arguments, self.seen)
        if argument is not None:
            self.put(argument, word)
            return
        raise usage_error(f"'{shown(word)}' is one argument too many", self.verb)

    def finish(self) -> None:
        """Raise if something needed is missing."""
        missing = [a for a in self.arguments if a.times in "1+" and a.key not in self.seen]
        if missing:
            raise usage_error(f"{missing[0].called} is missing ({missing[0].help})", self.verb)


def is_option(word: str) -> bool:
    """Whether a word is an option: a dash alone means standard input, and a dash before a digit a negative number."""
    return word.startswith("-") and len(word) > 1 and not (word[1].isdigit() and word[1].isascii())


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The verb, and all other words. Global options may come before the verb."""
    options = {a.name: a for a in GLOBAL}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
        if word == "--" or not is_option(word):
            break
        name, equals, _ = word.partition("=")
        argument = options.get(name)
        valued = word in _URI or (argument is not None and argument.kind != "flag" and not equals)
        at += 2 if valued else 1
    if at >= len(words):
        return None, list(words)
    return words[at], [w for w in words[:at] if w != "--"] + list(words[at + 1 :])


def parse(arguments: Sequence[Argument], words: Sequence[str], verb: str | None = None) -> Values:
    """The values of ``words``; raises ``InvalidArgument`` with a sentence. ``--help`` and ``--version`` excuse missing ones."""
    taken = without_replaced(arguments, words)
    parser = _Parser([*taken, *(g for g in GLOBAL if g.name not in {a.option for a in arguments})], verb)
    for argument in arguments:
        if argument not in taken:
            setattr(parser.values, argument.key, None)
    at = 0
    only_data = False
    while at < len(words):
        word = words[at]
        if not only_data and word == "--":
            only_data = True
            at += 1
        elif not only_data and is_option(word):
            at = parser.take(words, at)
        else:
            parser.place(word)
            at += 1
    if not (parser.values.help or parser.values.version):
        parser.finish()
    return parser.values


def convert(argument: Argument, word: str, verb: str | None = None) -> Any:
    """The value that ``word`` means for ``argument``; ``InvalidArgument``."""
    kind = argument.kind
    try:
        if kind == "refused":
            raise ValueError(argument.help)
        if kind in ("size", "change"):
            from poolkit.units import parse_size

            below = kind == "change" and word.startswith("-")
            return -parse_size(word[1:]) if below else parse_size(word)
        if kind == "number":
            return _whole(word)
        if kind == "seconds":
            return _seconds(word)
        if kind == "word" and word not in argument.choices:
            raise ValueError(f"'{shown(word)}' is not one of {', '.join(argument.choices)}")
        if kind == "words":
            return _words(argument, word)
        if kind == "directory" and not word:
            raise ValueError("it is empty")
        if "\0" in word:
            raise ValueError("it contains a NUL character")
        if kind not in ("file", "directory") and not _is_text(word):
            raise ValueError(f"'{shown(word)}' is not valid UTF-8")
    except ValueError as error:
        hint = near(word, argument.choices) if argument.choices else None
        name = "" if argument.placed and kind == "word" else f"{argument.name}: "
        raise usage_error(f"{name}{error}", verb, hint) from None
    return os.path.abspath(word) if kind == "directory" else word


def _is_text(word: str) -> bool:
    """Whether a word of the command line is text: bytes that are none are surrogates in it."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _whole(word: str) -> int:
    if not (word.isascii() and word.isdigit()) or len(word) > 20:
        raise ValueError(f"'{shown(word)}' is not a whole number")
    return int(word)


def _seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1
    if not 0 <= value <= 1e9:
        raise ValueError(f"'{shown(word)}' is not a number of seconds")
    return value


def _words(argument: Argument, word: str) -> tuple[str, ...]:
    words = tuple(w for w in word.split(",") if w)
    for one in words:
        if argument.choices and one not in argument.choices:
            raise ValueError(f"'{shown(one)}' is not one of {', '.join(argument.choices)}")
    return words
