"""What poolkit needs of ``typing``, ``re`` and ``json``, without loading them.

A short command would spend more on importing them, with ``enum`` behind them, than on all that it does. So modules on the way
of the frequent verbs take these names from here, and names for annotations below ``if TYPE_CHECKING:``.
Type checkers see the library's own in each place; what stands in for it at run time does the same for all that poolkit
does with it. ``tests/cli/test_names.py`` says which modules must stay away from which verbs, and ``tests/test_lean.py``
compares each name with the library's.
"""

from __future__ import annotations

__all__ = [
    "TYPE_CHECKING",
    "Literal",
    "NamedTuple",
    "Protocol",
    "Signature",
    "TypedDict",
    "dumps",
    "loads",
    "module",
    "overload",
    "pattern",
]

TYPE_CHECKING = False  # type checkers take the name for true


class Signature:
    """``__signature__`` of classes whose makers are compiled late, for those who look (``inspect``, Sphinx)."""

    __slots__ = ("_maker",)

    def __init__(self, maker: Callable[[Any], Any]) -> None:
        self._maker = maker

    def __get__(self, one: object, owner: type) -> Any:
        import inspect

        found = inspect.signature(self._maker(owner))
        return found.replace(parameters=list(found.parameters.values())[1:])


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from re import compile as pattern
    from types import ModuleType
    from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypedDict, overload

    _quote: Any
    _encoder: Any
    _scanner: Any
else:
    from _collections import _tuplegetter
    from _json import encode_basestring_ascii as _quote
    from _json import make_encoder as _encoder
    from _json import make_scanner as _scanner

    Protocol = object

    class TypedDict(dict):
        """``typing.TypedDict``: a dictionary that says which keys it has."""

        def __init_subclass__(cls, total: bool = True) -> None:
            bases = [vars(base).get("__annotations__", {}) for base in reversed(cls.__mro__)]
            cls.__annotations__ = {name: hint for base in bases for name, hint in base.items()}

    class Literal:
        """``typing.Literal`` as far as mapped fields need it (:mod:`poolkit.xmlmap.tree`): the words, or nothing."""

        __slots__ = ("__args__",)

        def __init__(self, *args: Any) -> None:
            self.__args__ = args

        def __class_getitem__(cls, words: Any) -> Any:
            return cls(*words) if isinstance(words, tuple) else cls(words)

        def __or__(self, other: Any) -> Any:
            return Literal(self, type(None) if other is None else other)

        def __ror__(self, other: Any) -> Any:
            return Literal(type(None) if other is None else other, self)

    def overload(function: Any) -> Any:
        """A signature, for type checkers alone."""
        return function

    # -- typing.NamedTuple ---------------------------------------------------------------------------------------

    def _new_of(cls: Any) -> Any:
        """``__new__`` of one class, as fast as Python allows."""
        names, defaults = cls._fields, cls._field_defaults
        takes = "".join(f", {n}=_{n}" if n in defaults else f", {n}" for n in names)
        scope = {"_new": tuple.__new__, **{f"_{n}": v for n, v in defaults.items()}}
        gives = "".join(f"{n}, " for n in names)
        new = eval(f"lambda _cls{takes}: _new(_cls, ({gives}))", scope)  # noqa: S307 - names of a class body
        new.__name__, new.__qualname__ = "__new__", f"{cls.__qualname__}.__new__"
        return new

    class _Row(tuple):
        """What all classes made with ``NamedTuple`` share; the names are those of the standard library."""

        __slots__ = ()
        __signature__ = Signature(_new_of)

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes: Any) -> Any:
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        __replace__ = _replace

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            pairs = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    def _first_new(cls: Any, *given: Any, **named: Any) -> Any:
        """``__new__`` of a class of which few objects have been made: to compile its own takes as long as twenty of these."""
        made: Any = next(one for one in cls.__mro__ if "_field_defaults" in vars(one))
        names, defaults = made._fields, made._field_defaults
        rest = names[len(given) :]
        if made._few and len(given) <= len(names) and all(n in named or n in defaults for n in rest):
            made._few -= 1
            if named.keys() <= set(rest):
                return tuple.__new__(cls, (*given, *(named[n] if n in named else defaults[n] for n in rest)))
        made.__new__ = new = _new_of(made)  # which knows the words for wrong arguments, too
        return new(cls, *given, **named)

    _GETTERS = [_tuplegetter(place, None) for place in range(20)]

    class _RowMaker(type):
        def __new__(mcls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(mcls, name, bases, space)
            names = tuple(space.get("__annotations__", ()))
            defaults = {n: space[n] for n in names if n in space}
            space.update(zip(names, _GETTERS))  # noqa: B905 - there are more of them
            space.update(
                __slots__=(), _fields=names, _field_defaults=defaults, __match_args__=names, __new__=_first_new, _few=10
            )
            return type(name, (_Row,), space)

    class NamedTuple(metaclass=_RowMaker):
        """The base of a class of named places in a tuple, as ``typing.NamedTuple``."""

    # -- re ------------------------------------------------------------------------------------------------------

    class pattern:
        """``re.compile``, done when a method is first asked for."""

        def __init__(self, text: str | bytes, flags: int = 0) -> None:
            self._made = (text, flags)

        def __getattr__(self, name: str) -> Any:
            import re

            found = getattr(re.compile(*self._made), name)
            setattr(self, name, found)
            return found


def loads(text: str | bytes | bytearray) -> Any:
    """``json.loads`` of UTF-8, by the half of it that is written in C, which needs none of ``json``'s regular expressions."""
    if not isinstance(text, str):
        text = text.decode("utf-8", "surrogatepass")
    text = text.strip(" \t\n\r")
    try:
        found, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("there is no JSON value where one should be") from None
    if end != len(text):
        raise ValueError("there is more than one JSON value")
    return found


def dumps(
    value: Any, *, default: Callable[[Any], Any] | None = None, separators: tuple[str, str] = (", ", ": ")
) -> str:
    """``json.dumps``, likewise; what stands in itself is a ``RecursionError``."""
    between, after = separators
    return "".join(_encoder(None, default or _not_json, _quote, None, after, between, False, False, True)(value, 0))


def _not_json(value: Any) -> NoReturn:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _Reading:
    """How ``json.JSONDecoder`` reads by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(word: str) -> float:
        """``NaN``, ``Infinity`` and ``-Infinity``."""
        return float(word)


_scan: Any = _scanner(_Reading)


def module(name: str) -> ModuleType:
    """The module of that full name, imported: ``importlib.import_module`` for names that are not relative."""
    import sys

    __import__(name)
    return sys.modules[name]
