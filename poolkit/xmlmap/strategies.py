"""Hypothesis strategies made from the mapping: valid documents of a class, and the same documents with one thing broken.

    @given(documents([DirPool]))
    def test_round_trip(tree): ...

A ``Tree`` is a document that is not bound to be right; ``str(tree)`` is its text. Sizes stay so small that no unit
makes them exceed 64 bits. Needs the package hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .element import Element
from .rules import Change
from .simple import CONTROL, Simple
from .tree import Node, Use, compile_class
from .variants import is_needed, must_be_there, nested_changes, rule_variants
from .writer import escape, escape_attribute

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy


class Tree:
    """An element with attributes, children and text, all of which may be wrong."""

    __slots__ = ("attrs", "kids", "name", "text")

    def __init__(self, name: str, attrs: dict[str, str], kids: list[Tree], text: str = "") -> None:
        self.name, self.attrs, self.kids, self.text = name, attrs, kids, text

    def __str__(self) -> str:
        attrs = "".join(f" {name}='{escape_attribute(value)}'" for name, value in self.attrs.items())
        inside = escape(self.text) + "".join(map(str, self.kids))
        return f"<{self.name}{attrs}>{inside}</{self.name}>"

    __repr__ = __str__

    def walk(self) -> list[Tree]:
        """This element and all below it."""
        return [self, *(below for kid in self.kids for below in kid.walk())]


@cache
def texts(simple: Simple) -> SearchStrategy[str]:
    """Texts that a simple type takes."""
    from hypothesis import strategies as st

    if simple.words:
        return st.sampled_from(simple.words)
    if simple.low is not None and simple.high is not None:
        top = min(simple.high, 2**20) if simple.name == "size" else simple.high
        return st.integers(simple.low, top).map(str)
    clean = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters=CONTROL)
    return st.from_regex(simple.pattern, fullmatch=True, alphabet=clean).filter(lambda text: len(text) <= 200)


def _body(draw: DrawFn, node: Node, changes: dict[str, Change]) -> tuple[dict[str, str], list[Tree]]:
    from hypothesis import strategies as st

    variant = draw(st.sampled_from(rule_variants(node.cls)))
    attrs: dict[str, str] = {}
    if node.cls.xml_kind and not (node.cls.type_optional and draw(st.booleans())):
        attrs["type"] = node.cls.xml_kind
    more, kids, _ = _inner(draw, node, {**changes, **variant})
    return {**attrs, **more}, kids


def _text(draw: DrawFn, use: Use, changes: dict[str, Change]) -> str:
    from hypothesis import strategies as st

    change = changes.get(use.name)
    if isinstance(change, tuple):
        return draw(st.sampled_from(change))
    return draw(texts(use.simple))


def _inner(draw: DrawFn, node: Node, changes: dict[str, Change]) -> tuple[dict[str, str], list[Tree], str]:
    """Attributes, children in any order, and text."""
    from hypothesis import strategies as st

    attrs: dict[str, str] = {}
    for name, use in node.attrs.items():
        if changes.get(use.name) != "absent" and (is_needed(use, changes) or draw(st.booleans())):
            attrs[name] = _text(draw, use, changes)
    if node.text is not None:
        if node.text.sized and draw(st.booleans()):
            attrs["unit"] = draw(st.sampled_from(["B", "bytes", "KiB", "k", "MB", "g", "TiB"]))
        return attrs, [], "" if changes.get(node.text.name) == "absent" else _text(draw, node.text, changes)
    kids: list[Tree] = []
    for kid in node.kids.values():
        low = 1 if must_be_there(kid, changes) else 0
        if (kid.use is not None and changes.get(kid.use.name) == "absent") or (
            kid.text is not None and changes.get(kid.text.name) == "absent"
        ):
            continue
        for _ in range(draw(st.integers(low, 2 if kid.many else 1))):
            tree = Tree(kid.name, {}, [])
            if kid.declare:
                tree.attrs[f"xmlns:{kid.prefix}"] = kid.declare
            if kid.use is not None:
                body = draw(st.sampled_from(list(kid.bodies.values())))
                more, tree.kids = _body(draw, body, nested_changes(changes, kid.use.name))
                _name_below(tree, kid.prefix)
            elif kid.flag is not None:
                more = {}
            else:
                more, tree.kids, tree.text = _inner(draw, kid, changes)
            tree.attrs |= more
            kids.append(tree)
    if node.rest is not None and draw(st.integers(0, 3)) == 0:
        kids.append(Tree("metadata", {}, [Tree("q:note", {"xmlns:q": "urn:q", "k": "v"}, [], "any")]))
    return attrs, draw(st.permutations(kids)), ""


def _name_below(tree: Tree, prefix: str) -> None:
    """Nothing to do for a class's own elements: they carry the prefix of the element that holds them."""
    for kid in tree.kids:
        if prefix and ":" not in kid.name:
            kid.name = f"{prefix}:{kid.name}"
            _name_below(kid, prefix)


def _document(draw: DrawFn, cls: type[Element]) -> Tree:
    node = compile_class(cls)
    attrs, kids = _body(draw, node, {})
    for prefix, uri in cls.namespaces.items():
        attrs[f"xmlns:{prefix}"] = uri
    return Tree(cls.tag, attrs, kids)


def documents(classes: Sequence[type]) -> SearchStrategy[Tree]:
    """Valid documents of ``classes``."""
    from hypothesis import strategies as st

    @st.composite
    def make(draw: DrawFn) -> Tree:
        return _document(draw, draw(st.sampled_from(list(classes))))

    return make()


GARBAGE = (
    "",
    " ",
    "?",
    "-1",
    "0",
    "+7",
    "08",
    "yes",
    "NO",
    "raw",
    "nfs",
    "/",
    "a/b",
    "..",
    "x y",
    "\x85",
    "1.5",
    "0x1f",
    "9" * 30,
    "é",
    " 7 ",
    "\n0644\t",
)


def _break(draw: DrawFn, root: Tree) -> None:
    from hypothesis import strategies as st

    trees = root.walk()
    tree = draw(st.sampled_from(trees))
    parents = [one for one in trees if tree in one.kids]

    def rename() -> None:
        tree.name = draw(st.sampled_from(["bogus", "name", "q:alien", "source", tree.name + "s"]))
        if tree.name == "q:alien":
            tree.attrs["xmlns:q"] = "urn:q"

    def remove() -> None:
        for parent in parents:
            parent.kids.remove(tree)

    def repeat() -> None:
        for parent in parents:
            parent.kids.append(tree)

    def add_attribute() -> None:
        tree.attrs[draw(st.sampled_from(["bogus", "type", "unit", "name", "port"]))] = draw(st.sampled_from(GARBAGE))

    def drop_attribute() -> None:
        names = [name for name in tree.attrs if not name.startswith("xmlns")]
        if names:
            del tree.attrs[draw(st.sampled_from(names))]

    def change_attribute() -> None:
        names = [name for name in tree.attrs if not name.startswith("xmlns")]
        if names:
            tree.attrs[draw(st.sampled_from(names))] = draw(st.sampled_from(GARBAGE))

    def change_text() -> None:
        tree.text = draw(st.sampled_from(GARBAGE))

    def add_child() -> None:
        tree.kids.append(
            Tree(draw(st.sampled_from(["bogus", "name", "path", "format", "host", "permissions"])), {}, [])
        )

    deeds: list[Callable[[], Any]] = [
        rename, remove, repeat, add_attribute, drop_attribute, change_attribute, change_text, add_child
    ]  # fmt: skip
    draw(st.sampled_from(deeds))()


def broken(classes: Sequence[type]) -> SearchStrategy[Tree]:
    """Documents of ``classes`` with one thing changed; most are invalid, and nobody says which."""
    from hypothesis import strategies as st

    @st.composite
    def make(draw: DrawFn) -> Tree:
        tree = _document(draw, draw(st.sampled_from(list(classes))))
        _break(draw, tree)
        return tree

    return make()


__all__ = ["GARBAGE", "Tree", "broken", "documents", "texts"]
