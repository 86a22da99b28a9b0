"""What poolkit takes in the place of typing, contextlib, functools, re, json and threading does what those do."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
import pickle
import random
import re
import threading
import time
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poolkit import lean


class Ours(lean.NamedTuple):
    """Words."""

    name: str
    count: int = 3
    kind: str | None = None

    @property
    def both(self) -> str:
        return f"{self.name}{self.count}"


class Theirs(typing.NamedTuple):
    """Words."""

    name: str
    count: int = 3
    kind: str | None = None

    @property
    def both(self) -> str:
        return f"{self.name}{self.count}"


class TestNamedTuple:
    def test_it_is_made_and_shown_alike(self) -> None:
        for given, named in ((("a",), {}), (("a", 4, "k"), {}), ((), {"name": "a", "kind": "x"})):
            ours, theirs = Ours(*given, **named), Theirs(*given, **named)  # type: ignore[arg-type]
            assert tuple(ours) == tuple(theirs)
            assert ours == theirs
            assert hash(ours) == hash(theirs)
            assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
            assert ours._asdict() == theirs._asdict()
            assert (ours.name, ours.count, ours.kind, ours.both) == (
                theirs.name, theirs.count, theirs.kind, theirs.both,
            )  # fmt: skip
            assert tuple(ours._replace(count=9)) == tuple(theirs._replace(count=9))
        assert Ours._make(("a", 1, None)) == ("a", 1, None)

    def test_it_tells_the_same_of_its_fields(self) -> None:
        for name in ("_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__"):
            assert getattr(Ours, name) == getattr(Theirs, name), name
        assert inspect.signature(Ours).parameters.keys() == inspect.signature(Theirs).parameters.keys()
        assert list(Ours.__annotations__) == list(Theirs.__annotations__)
        assert type(Ours) is type
        assert not hasattr(Ours("a"), "__dict__")

    @pytest.mark.parametrize(
        "call",
        [
            lambda kind: kind(),
            lambda kind: kind("a", 1, None, 4),
            lambda kind: kind("a", wrong=1),
            lambda kind: kind._make(("a",)),
            lambda kind: kind("a")._replace(wrong=1),
            lambda kind: setattr(kind("a"), "name", "b"),
            lambda kind: setattr(kind("a"), "other", "b"),
        ],
    )
    def test_it_refuses_the_same(self, call: Callable[[Any], object]) -> None:
        with pytest.raises(Exception) as theirs:
            call(Theirs)
        # Python 3.13 has another error for a field that is not there.
        kinds = (TypeError, ValueError) if isinstance(theirs.value, TypeError | ValueError) else type(theirs.value)
        with pytest.raises(kinds):
            call(Ours)

    def test_it_is_copied_pickled_and_matched(self) -> None:
        one = Ours("a", 5)
        for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert made == one
            assert type(made) is Ours
        match one:
            case Ours(name, count):
                assert (name, count) == ("a", 5)

    def test_a_class_below_has_its_own_new(self) -> None:
        class Below(Ours):
            def __new__(cls, *given: Any) -> Below:
                return super().__new__(cls, "below", *given)

        assert Below(1) == ("below", 1, None)
        assert type(Below(1)) is Below


class _Odd(Exception):
    """An error of a test."""


def _trial(contextmanager: Any, steps: Callable[[list[object]], Iterator[object]], body: BaseException | None) -> Any:
    """What a context manager of ``steps`` does around a body that raises ``body``."""
    seen: list[object] = []
    try:
        with contextmanager(steps)(seen) as given:
            seen.append(("given", given))
            if body is not None:
                raise body
        seen.append("went on")
    except BaseException as error:
        same = "the body's" if error is body else repr(error)
        seen += [same, repr(error.__cause__), repr(error.__context__)]
    return seen


def _plain(seen: list[object]) -> Iterator[object]:
    try:
        yield 5
    finally:
        seen.append("ended")


def _swallows(seen: list[object]) -> Iterator[object]:
    try:
        yield 5
    except BaseException as error:
        seen.append(type(error))


def _raises_another(seen: list[object]) -> Iterator[object]:
    try:
        yield 5
    except BaseException as error:
        raise _Odd("another") from error


def _raises_the_same(seen: list[object]) -> Iterator[object]:
    try:
        yield 5
    except BaseException as error:
        raise error


def _never(seen: list[object]) -> Iterator[object]:
    seen.append("began")
    if seen is None:
        yield


def _twice(seen: list[object]) -> Iterator[object]:
    try:
        yield 1
    except BaseException:
        seen.append("caught")
    yield 2


def _raises_at_the_end(seen: list[object]) -> Iterator[object]:
    yield 1
    raise _Odd("at the end")


@pytest.mark.parametrize(
    "body",
    [
        None,
        _Odd("body"),
        StopIteration("stop"),
        RuntimeError("odd"),
        KeyboardInterrupt(),
        GeneratorExit(),
        SystemExit(3),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "steps", [_plain, _swallows, _raises_another, _raises_the_same, _never, _twice, _raises_at_the_end]
)
def test_contextmanager(steps: Any, body: BaseException | None) -> None:
    assert _trial(lean.contextmanager, steps, body) == _trial(contextlib.contextmanager, steps, body)


def test_a_traceback_names_the_body_once() -> None:
    def depth(contextmanager: Any) -> int:
        try:
            with contextmanager(_plain)([]):
                raise _Odd
        except _Odd as error:
            trace, count = error.__traceback__, 0
            while trace is not None:
                trace, count = trace.tb_next, count + 1
            return count

    assert depth(lean.contextmanager) <= depth(contextlib.contextmanager)


def test_suppress_and_nullcontext() -> None:
    with lean.suppress(KeyError, _Odd):
        raise _Odd
    with pytest.raises(ValueError), lean.suppress(KeyError):
        raise ValueError
    with pytest.raises(ValueError), lean.suppress():
        raise ValueError
    with lean.nullcontext(4) as four:
        assert four == 4
    with pytest.raises(ValueError), lean.nullcontext():
        raise ValueError


def test_caches() -> None:
    calls: list[object] = []

    @lean.cache
    def known(word: str, more: int = 1) -> str:
        """Words."""
        calls.append(word)
        return word * more

    assert [known("a"), known("a"), known("a", more=2)] == ["a", "a", "aa"]
    assert calls == ["a", "a"]
    known.cache_clear()
    assert known("a") == "a"
    assert len(calls) == 3
    assert (known.__name__, known.__doc__) == ("known", "Words.")

    @lean.lru_cache(maxsize=1)
    def last(number: int) -> int:
        calls.append(number)
        return number

    del calls[:]
    assert [last(1), last(1), last(2), last(1)] == [1, 1, 2, 1]
    assert calls == [1, 2, 1]

    class Holder:
        count = 0

        @lean.cached_property
        def made(self) -> int:
            """Words."""
            self.count += 1
            return self.count

    one = Holder()
    assert (one.made, one.made) == (1, 1)
    del one.made
    assert one.made == 2
    assert Holder.made.__doc__ == "Words."
    assert lean.partial is functools.partial


def test_pattern() -> None:
    ours, theirs = lean.pattern(r"(a+)b", re.IGNORECASE), re.compile(r"(a+)b", re.IGNORECASE)
    for text in ("AAB", "xaab", ""):
        assert bool(ours.match(text)) == bool(theirs.match(text))
        assert ours.sub("-", text) == theirs.sub("-", text)
    assert ours.pattern == theirs.pattern


def _value(made: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: made.choice([None, True, False, float("inf"), float("-inf")]),
        lambda: made.choice([0, -1, 1 << 70, made.randrange(-(10**6), 10**6)]),
        made.random,
        lambda: "".join(map(chr, made.choices([34, 92, 10, 9, 0, 31, 47, 65, 127, 233, 0xD800, 0x2028, 0x1F600], k=5))),
    ]
    if depth < 3:
        kinds += [
            lambda: [_value(made, depth + 1) for _ in range(made.randrange(4))],
            lambda: tuple(_value(made, depth + 1) for _ in range(made.randrange(4))),
            lambda: {
                made.choice(["", "a", "\u2028", 5, None, True, 1.5]): _value(made, depth + 1)
                for _ in range(made.randrange(4))
            },
        ]
    return made.choice(kinds)()


def test_json_is_written_and_read_alike() -> None:
    made = random.Random(5)
    for _ in range(3000):
        value = _value(made)
        text = json.dumps(value)
        assert lean.dumps(value) == text
        assert lean.dumps(value, separators=(",", ":")) == json.dumps(value, separators=(",", ":"))
        assert lean.loads(text) == json.loads(text)
        assert lean.loads(f" \n{text}\t\r".encode()) == json.loads(text)
        assert lean.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == json.loads(text)
        broken = text[: made.randrange(len(text) + 1)] + made.choice(["", " ", ",", "}", "\\", "nul", "1"])
        try:
            expected = repr(json.loads(broken))
        except ValueError:
            with pytest.raises(ValueError):
                lean.loads(broken)
        else:
            assert repr(lean.loads(broken)) == expected
    assert lean.dumps([object], default=str) == json.dumps([object], default=str)
    assert repr(lean.loads("NaN")) == "nan"
    with pytest.raises(TypeError, match="set is not JSON"):
        lean.dumps({1})
    with pytest.raises(ValueError):
        lean.loads(b"\xff")
    with pytest.raises(RecursionError):
        lean.loads("[" * 100_000)


def test_an_event_lets_all_go_on() -> None:
    event = lean.Event()
    assert not event.is_set()
    assert not event.wait(0)
    assert not event.wait(0.01)
    ended: list[bool] = []
    threads = [threading.Thread(target=lambda: ended.append(event.wait(30))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not ended
    event.set()
    event.set()
    for thread in threads:
        thread.join(30)
    assert ended == [True] * 4
    assert event.is_set()
    assert event.wait()
    event.clear()
    event.clear()
    assert not event.wait(0.01)
    event.set()
    assert event.wait(0)


def test_a_typed_dictionary_knows_its_keys_and_those_above() -> None:
    class Some(lean.TypedDict, total=False):
        one: int

    class More(Some, total=False):
        two: str

    assert More(one=1, two="2") == {"one": 1, "two": "2"}
    assert list(More.__annotations__) == ["one", "two"]
    assert list(Some.__annotations__) == ["one"]


def test_local_values_are_those_of_one_thread() -> None:
    assert lean.local is threading.local
    assert type(lean.Lock()) is type(threading.Lock())
    assert lean.get_ident is threading.get_ident
