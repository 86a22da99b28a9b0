"""Small value classes without ``dataclasses``, whose import (with ``inspect``) and code generation cost a tenth of a ``list``.

    @value()
    class Work:
        pool: str
        since: float = 0.0

gives the class ``__init__`` (by place or by name), ``==``, ``repr`` and slots. Objects are values: do not change one that others
may hold; ``frozen=True`` enforces that and makes it hashable.
"""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING, Signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        """Python 3.11 has the real one, which only type checkers need."""
        return lambda one: one


@dataclass_transform()
def value(*, frozen: bool = False, ignore: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """A decorator that makes a class of the annotated names, in order; ``ignore`` names those that do not count in ``==``."""

    def make(cls: type[T]) -> type[T]:
        names = tuple(n for n, hint in cls.__annotations__.items() if not str(hint).startswith("ClassVar"))
        body = {k: v for k, v in vars(cls).items() if k not in (*names, "__dict__", "__weakref__")}
        defaults = {n: vars(cls)[n] for n in names if n in vars(cls)}
        counted = tuple(n for n in names if n not in ignore)
        scope = (cls.__qualname__, names, defaults, frozen)
        few = [None] * 5

        def first(self: Any, *given: Any, **named: Any) -> None:
            """``__init__`` of a class of which few objects have been made: to compile its own takes as long as ten of these."""
            found = {**defaults, **dict(zip(names, given, strict=False)), **named}
            if few and len(given) <= len(names) and len(found) == len(names) and not named.keys() & names[: len(given)]:
                few.pop()
                for name in names:
                    object.__setattr__(self, name, found[name])
                return
            made.__init__ = init = _init_of(*scope)  # type: ignore[method-assign]
            init(self, *given, **named)

        def values(self: Any) -> tuple[Any, ...]:
            return tuple(getattr(self, n) for n in counted)

        def equal(self: Any, other: object) -> Any:
            return values(self) == values(other) if type(other) is type(self) else NotImplemented

        def words(self: Any) -> str:
            return f"{cls.__qualname__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

        body.update(__slots__=names, __init__=first, __eq__=equal, __match_args__=names)
        body["__signature__"] = Signature(lambda _: _init_of(*scope))
        body.setdefault("__repr__", words)
        body["__hash__"] = (lambda self: hash(values(self))) if frozen else None
        if frozen:
            body.update(__setattr__=_refuse, __delattr__=_refuse, __reduce__=lambda self: (type(self), values_of(self)))

        def values_of(self: Any) -> tuple[Any, ...]:
            return tuple(getattr(self, n) for n in names)

        meta: Any = type(cls)
        made: type[T] = meta(cls.__name__, cls.__bases__, body)
        return made

    return make


def _init_of(of: str, names: tuple[str, ...], defaults: dict[str, Any], frozen: bool) -> Any:
    """``__init__`` of a class, as fast as Python allows."""
    put = "object.__setattr__(self, {0!r}, {0})" if frozen else "self.{0} = {0}"
    lines = "; ".join(put.format(n) for n in names)
    scope: dict[str, Any] = {f"_{n}": v for n, v in defaults.items()}
    signature = ", ".join(f"{n}=_{n}" if n in defaults else n for n in names)
    exec(f"def __init__(self, {signature}): {lines}", scope)  # noqa: S102 - names of a class body, as dataclasses does
    scope["__init__"].__qualname__ = f"{of}.__init__"
    return scope["__init__"]


def replaced(one: T, **changes: Any) -> T:
    """A value like ``one``, a value of :func:`value`, with some of its fields changed."""
    names = type(one).__slots__  # type: ignore[attr-defined]
    return type(one)(**{name: getattr(one, name) for name in names} | changes)


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")
