"""Hints: what to do about an error, in words of the library, with the verbs and options in them as data.

:mod:`poolkit.errors` has these names as well.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any


class Remedy(NamedTuple):
    """A verb that helps, as data: see :func:`remedy`. ``...`` as a value means that the caller has to choose it."""

    verb: str
    operands: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        options = dict(self.options)
        method = self.verb.removeprefix("vol-").removeprefix("secret-").replace("-", "_")
        if self.verb.startswith("vol-"):
            owner = f"engine.pool({_python(options.pop('pool', ...))})"
            if method != "list":
                owner += f".volume({_python(self.operands[0])})"
            else:
                method = "volumes"
        elif self.verb.startswith("secret-"):
            if method == "define":
                return f"engine.define_secret({_python(*self.operands)})"
            owner = f"engine.secret({_python(self.operands[0])})"
        elif self.verb == "flavor-list":
            return "engine.flavors.list()"
        elif self.verb.startswith("flavor-"):
            owner, method = f"engine.flavors.get({_python(self.operands[0])})", self.verb.removeprefix("flavor-")
        elif self.verb in _OF_ENGINE:
            return f"engine.{_OF_ENGINE[self.verb]}({', '.join(map(_python, self.operands))})"
        else:
            owner = f"engine.pool({_python(self.operands[0])})"
        named = (f"{key}={_python(value)}" for key, value in options.items())
        given = ", ".join((*map(_python, self.operands[1:]), *named))
        return f"{owner}.{_METHODS.get(method, method)}({given or ('...' if method == 'set_value' else '')})"

    def as_dict(self) -> dict[str, Any]:
        """As plain values; null is what the caller has to choose."""
        operands = [None if value is ... else value for value in self.operands]
        options = {key: None if value is ... else value for key, value in self.options}
        return {"verb": self.verb, "operands": operands, "options": options}


_OF_ENGINE = {"find-sources-as": "discover", "recover": "recover", "edit": "define", "list": "pools"}
_METHODS = {"info": "look"}


def _python(value: Any) -> str:
    return "..." if value is ... else repr(value)


def remedy(verb: str, *operands: Any, **options: Any) -> Remedy:
    """The call of ``verb`` with what the command line takes in places and options: ``remedy("build", "p", overwrite=True)``."""
    return Remedy(verb, operands, tuple(options.items()))


class Option(NamedTuple):
    """What to add to the call that failed: ``--force`` of the command, ``force=True`` of the library.

    ``keyword`` is the library's name for it where that is another one.
    """

    name: str
    value: Any = True
    keyword: str = ""

    def __str__(self) -> str:
        return f"{self.keyword or self.name}={_python(self.value)}"


class Setting(NamedTuple):
    """What to say in the definition: ``path`` is where in it, such as ``source/param``, and ``text`` how it is written there.

    ``key`` is the name of one of several, such as that of a parameter. Who writes no definitions words it by path and key.
    """

    path: str
    text: str
    key: str = ""

    def __str__(self) -> str:
        return self.text


Part = str | Remedy | Option | Setting


class Hint(str):
    """A hint in the library's words, with the parts it was made of: text, :class:`Remedy`, :class:`Option`, :class:`Setting`.

    It is a plain ``str`` to whoever does not care; the command words ``parts`` as command lines.
    """

    parts: tuple[Part, ...]

    def __new__(cls, *parts: Part) -> Hint:
        """A hint of these parts."""
        self = super().__new__(cls, "".join(map(str, parts)))
        self.parts = parts
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its parts."""
        return Hint, self.parts

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The verbs it proposes."""
        return tuple(part for part in self.parts if isinstance(part, Remedy))

    @classmethod
    def joined(cls, *hints: str | None) -> Hint:
        """Several hints as one, with semicolons between."""
        parts: list[Part] = []
        for hint in filter(None, hints):
            parts += ["; "] if parts else []
            parts += hint.parts if isinstance(hint, Hint) else [hint]
        return cls(*parts)
