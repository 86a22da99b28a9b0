"""What poolkit takes in the place of typing, re and json does what those do."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import random
import re
import threading
import typing
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import lean
from poolkit.later import once
from poolkit.values import value


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

    def test_the_first_objects_are_as_the_later_ones(self) -> None:
        """The first few are made without a ``__new__`` of the class's own, which is compiled for those behind."""

        class New(lean.NamedTuple):
            name: str
            count: int = 3

        for number in range(30):
            assert (New("a"), New("a", number), New(count=number, name="b")) == (("a", 3), ("a", number), ("b", number))
            for given, named in (((), {}), (("a",), {"name": "b"}), (("a",), {"other": 1}), (("a", 1, 2), {})):
                with pytest.raises(TypeError):
                    New(*given, **named)  # type: ignore[arg-type]


def test_the_first_values_are_as_the_later_ones() -> None:
    @value()
    class Plain:
        name: str
        count: int = 3

    @value(frozen=True)
    class Frozen:
        name: str
        count: int = 3

    kinds: list[Any] = [Plain, Frozen]
    for kind in kinds:
        for number in range(20):
            made = [kind("a"), kind("a", number), kind(count=number, name="b")]
            assert [(one.name, one.count) for one in made] == [("a", 3), ("a", number), ("b", number)]
            for given, named in (((), {}), (("a",), {"name": "b"}), (("a",), {"other": 1}), (("a", 1, 2), {})):
                with pytest.raises(TypeError):
                    kind(*given, **named)


def test_a_part_is_made_once() -> None:
    """Also where threads ask for it at the same time: all get what the first one has stored."""
    both, made = threading.Barrier(2), []

    class Whole:
        @once
        def part(self) -> object:
            both.wait(60)
            made.append(object())
            return made[-1]

    whole, found = Whole(), []
    threads = [threading.Thread(target=lambda: found.append(whole.part)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert found == [whole.part] * 2


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


def test_a_typed_dictionary_knows_its_keys_and_those_above() -> None:
    class Some(lean.TypedDict, total=False):
        one: int

    class More(Some, total=False):
        two: str

    assert More(one=1, two="2") == {"one": 1, "two": "2"}
    assert list(More.__annotations__) == ["one", "two"]
    assert list(Some.__annotations__) == ["one"]
