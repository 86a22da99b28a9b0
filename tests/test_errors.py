"""Errors cross process borders and are copied: nothing of them may be lost on the way."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolkit
from poolkit import errors
from poolkit.errors import InvalidDefinition, PoolkitError, Problem, ToolError


def tree(cls: type[PoolkitError] = PoolkitError) -> Iterator[type[PoolkitError]]:
    """Every error class of the package, those of other modules included."""
    yield cls
    for one in cls.__subclasses__():
        yield from tree(one)


for _module in pkgutil.walk_packages(poolkit.__path__, "poolkit."):
    if _module.name != "poolkit.__main__" and not _module.name.endswith((".testing", ".strategies", ".__main__")):
        importlib.import_module(_module.name)

CLASSES = sorted({cls for cls in tree() if cls.__module__.startswith("poolkit")}, key=lambda cls: cls.__name__)


def made(cls: type[PoolkitError]) -> PoolkitError:
    """An error with a value for everything that its class takes."""
    if issubclass(cls, InvalidDefinition):
        problems = [Problem("p.xml", 3, 7, "/pool/name", "is missing"), Problem("p.xml", 0, 0, "", "is 'odd'")]
        return cls(problems, pool="p", hint="write it")
    more: dict[str, Any] = {}
    if issubclass(cls, ToolError):
        more = {"argv": ["tool", "--", "é"], "status": -9, "stdout": "out", "stderr": "err\n"}
    return cls("what failed, and why", pool="p", volume="v", hint="do that", **more)


WAYS: dict[str, Callable[[PoolkitError], PoolkitError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda e, n=n: pickle.loads(pickle.dumps(e, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}


def test_the_tree_is_found() -> None:
    assert {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PoolkitError)} <= {
        *CLASSES
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_survives(cls: type[PoolkitError], way: str) -> None:
    error = made(cls)
    error.add_note("in a child")
    error.found_by = ("a caller", 3)  # type: ignore[attr-defined]
    other = WAYS[way](error)
    assert type(other) is cls and other is not error
    assert str(other) == str(error) and other.args == error.args and repr(other) == repr(error)
    assert vars(other) == vars(error)
    assert other.as_dict() == error.as_dict()
    again = WAYS[way](other)
    assert vars(again) == vars(error) and str(again) == str(error)


def test_a_plugin_may_give_its_error_any_constructor() -> None:
    error = TapeJammed(7, reel="left")
    other = pickle.loads(pickle.dumps(error))
    assert (other.drive, other.reel, str(other), other.pool) == (7, "left", "drive 7 has jammed", "tapes")


class TapeJammed(errors.HostError):
    """An error of a backend that somebody else wrote."""

    def __init__(self, drive: int, *, reel: str) -> None:
        super().__init__(f"drive {drive} has jammed", pool="tapes")
        self.drive, self.reel = drive, reel


@given(st.text(), st.integers(4, 300))
def test_text_of_others_is_shown_on_one_line_and_cut(text: str, most: int) -> None:
    shown = errors.shown(text, most)
    assert shown.isprintable() and len(shown) <= most
    shown.encode()  # half of a surrogate pair would stop whoever prints it
    if text.isprintable() and len(text) <= most:
        assert shown == text
    if len(text) > most:
        assert shown.endswith("...")


def test_what_cannot_be_printed_is_shown_as_escapes() -> None:
    assert errors.shown("grün\n\x1b[31m\udcff\u202e") == r"grün\n\x1b[31m\udcff\u202e"
