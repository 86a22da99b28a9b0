"""What both schema generators ask of the tree: which children must be there, and in which variants of the rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from .element import Element
from .rules import Change
from .tree import Node, Use

Changes = Mapping[str, Change]


def schema_text(text: str) -> str:
    """``text`` for an attribute or element of a schema, in ASCII alone."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return "".join(c if " " <= c < "\x7f" else f"&#{ord(c)};" for c in text)


class Lines:
    """Indented lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def add(self, line: str) -> None:
        """One line."""
        self.lines.append("  " * self.depth + line)

    def open(self, tag: str) -> None:
        """A start tag; what follows is indented."""
        self.add(f"<{tag}>")
        self.depth += 1

    def close(self, tag: str) -> None:
        """The end tag."""
        self.depth -= 1
        self.add(f"</{tag}>")


def nested_changes(changes: Changes, name: str) -> dict[str, Change]:
    """The changes that concern the fields of the object in field ``name``."""
    lead = name + "."
    return {key[len(lead) :]: change for key, change in changes.items() if key.startswith(lead)}


def rule_variants(cls: type[Element]) -> list[dict[str, Change]]:
    """Every way to meet all rules of a class."""
    found: list[dict[str, Change]] = []
    for combination in itertools.product(*(rule.variants for rule in cls.rules)):
        merged: dict[str, Change] = {}
        for variant in combination:
            merged.update(variant)
        found.append(merged)
    return found


def is_needed(use: Use, changes: Changes) -> bool:
    """Whether the document must say a field's value."""
    change = changes.get(use.name)
    if isinstance(change, tuple):
        return use.field.initial() not in change
    if use.many:
        return change == "required" or use.field.min > 0
    return change == "required" or (change != "absent" and use.required)


def fields_inside(node: Node) -> Iterable[Use]:
    """The fields that a structural element holds."""
    yield from node.attrs.values()
    for one in (node.text, node.flag, node.use):
        if one is not None:
            yield one
    if node.use is None:
        for kid in node.kids.values():
            yield from fields_inside(kid)


def must_be_there(node: Node, changes: Changes) -> bool:
    """Whether a child element must be there."""
    if node.use is not None:
        return is_needed(node.use, changes) or "required" in nested_changes(changes, node.use.name).values()
    if node.many and node.text is not None:
        return is_needed(node.text, changes)
    if node.flag is not None:
        return False
    return any(is_needed(use, changes) for use in fields_inside(node))
