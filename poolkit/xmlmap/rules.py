"""Conditions between fields, each said so that the reader, RELAX NG and XSD 1.1 can all check it.

A rule has *variants*: for each way to meet it, what becomes of the fields it names (``"required"``, ``"absent"`` or the
tuple of words still allowed). RELAX NG has no conditions, so it gets a choice of the variants; XSD gets ``assertion``.
"""

from __future__ import annotations

from ..lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Variant = Mapping[str, "Change"]

Change = str | tuple[str, ...]


class Rule:
    """One condition. ``message`` is what the user reads, ``variants`` are keyed by dotted field names."""

    __slots__ = ("assertion", "fields", "kind", "message", "variants")

    def __init__(
        self, kind: str, fields: tuple[str, ...], variants: tuple[Variant, ...], assertion: str, message: str
    ) -> None:
        self.kind, self.fields, self.variants = kind, fields, variants
        self.assertion, self.message = assertion, message

    def holds(self, given: Mapping[str, object]) -> bool:
        """Whether the rule holds; ``given`` maps the dotted fields that the document contains to their values."""
        for variant in self.variants:
            for field, change in variant.items():
                value = given.get(field) or None  # an empty tuple is nothing given
                if change == "absent":
                    ok = value is None
                elif change == "required":
                    ok = value is not None
                else:
                    ok = value in change
                if not ok:
                    break
            else:
                return True
        return False


def exactly_one(one: str, other: str, *, paths: tuple[str, str]) -> Rule:
    """One of two fields must be given, and not both; ``paths`` are their places relative to the element."""
    return Rule(
        "exactly one",
        (one, other),
        ({one: "required", other: "absent"}, {one: "absent", other: "required"}),
        f"exists({paths[0]}) != exists({paths[1]})",
        f"needs either {paths[0]} or {paths[1]}, not both",
    )


def at_least_one(one: str, other: str, *, paths: tuple[str, str]) -> Rule:
    """One of two fields must be given, or both."""
    return Rule(
        "at least one",
        (one, other),
        ({one: "required"}, {one: "absent", other: "required"}),
        f"exists({paths[0]}[normalize-space()]) or exists({paths[1]}[normalize-space()])",
        f"needs {paths[0]} or {paths[1]}",
    )


def only_with(field: str, key: str, words: tuple[str, ...], others: tuple[str, ...], *, paths: tuple[str, str]) -> Rule:
    """``field`` may be given only when ``key`` is one of ``words``, of which one is its default."""
    listed = ", ".join(f"'{word}'" for word in others)
    return Rule(
        "only with",
        (field, key),
        ({key: words}, {field: "absent", key: others}),
        f"not({paths[0]}) or not({paths[1]} = ({listed}))",
        f"{paths[0]} is only for {paths[1]} {' or '.join(words)}",
    )


def requires(one: str, other: str, *, paths: tuple[str, str]) -> Rule:
    """``one`` may be given only together with ``other``."""
    return Rule(
        "requires",
        (one, other),
        ({one: "absent"}, {one: "required", other: "required"}),
        f"not({paths[0]}) or exists({paths[1]})",
        f"{paths[0]} needs {paths[1]} as well",
    )


def together(one: str, other: str, *, paths: tuple[str, str]) -> Rule:
    """Two fields are given both, or neither. Two ``requires`` would not do: rules of one field cannot be combined in RELAX NG."""
    return Rule(
        "together",
        (one, other),
        ({one: "absent", other: "absent"}, {one: "required", other: "required"}),
        f"exists({paths[0]}) = exists({paths[1]})",
        f"needs both {paths[0]} and {paths[1]}, or neither",
    )
