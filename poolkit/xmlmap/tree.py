"""The declarations of a class as a tree of XML nodes, compiled once per class; reader, writer and schemas walk it."""

from __future__ import annotations

import sys

from ..lean import TYPE_CHECKING, Literal
from .element import REQUIRED, ElementMeta
from .simple import Simple, choice, of_hint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .element import Element, Field


Flag: Any = Simple("flag", expected="an empty element")
"""The type of a ``bool`` that is true when its (empty) element is there."""


class Words(Simple):
    """The type of a ``tuple[str, ...]`` kept as one empty element per word, at a path that ends in ``/*``."""

    __slots__ = ()

    def __init__(self, *words: str) -> None:
        super().__init__("words", words=words)


class Use:
    """How one field is used: its hint taken apart. ``simple`` or ``classes`` says what a value is."""

    __slots__ = ("classes", "field", "many", "name", "optional", "simple", "sized")

    def __init__(self, field: Field) -> None:
        hint = _evaluate(field)
        self.field, self.name = field, field.name
        self.optional = self.many = False
        parts = getattr(hint, "__args__", ())
        if type(None) in parts:
            self.optional = True
            rest = tuple(part for part in parts if part is not type(None))
            hint, parts = (rest[0], getattr(rest[0], "__args__", ())) if len(rest) == 1 else (None, rest)
        if getattr(hint, "__origin__", None) is tuple and not isinstance(field.type, Words):
            self.many = True
            hint = parts[0]
            parts = getattr(hint, "__args__", ())
        self.classes: tuple[type[Element], ...] = ()
        self.simple: Any = None
        if isinstance(hint, ElementMeta):
            self.classes = (hint,)  # type: ignore[assignment]
        elif parts and all(isinstance(part, ElementMeta) for part in parts):
            self.classes = parts
        else:
            self.simple = field.type or of_hint(hint)
        self.sized = self.simple is not None and self.simple.name == "size"

    @property
    def required(self) -> bool:
        """Whether a document must contain it."""
        return self.field.default is REQUIRED and not self.field.source


_COMMON: dict[str, Any] = {
    "str": str, "str | None": str | None, "int": int, "int | None": int | None, "bool": bool, "bool | None": bool | None,
    "tuple[str, ...]": tuple[str, ...],
}  # fmt: skip


def _evaluate(field: Field) -> Any:
    text = field.owner.__annotations__[field.name]
    if not isinstance(text, str):
        return text
    found = _COMMON.get(text)  # most fields have one of these
    if found is not None:
        return found
    space = vars(sys.modules[field.owner.__module__])
    try:
        return eval(text, {"Any": object, "Literal": Literal}, space)  # noqa: S307
    except NameError:  # a module of somebody else's may have names of typing for type checkers alone
        import typing

        return eval(text, {**vars(typing)}, space)  # noqa: S307


class Node:
    """One element. ``use`` is set where the element is a whole object; then ``bodies`` maps type to its content."""

    __slots__ = (
        "always",
        "attrs",
        "block",
        "bodies",
        "cls",
        "declare",
        "flag",
        "key",
        "kids",
        "many",
        "name",
        "prefix",
        "rest",
        "text",
        "uri",
        "use",
        "uses",
        "word",
    )

    def __init__(self, name: str, uri: str = "", prefix: str = "") -> None:
        self.name = f"{prefix}:{name}" if prefix else name
        self.key = f"{{{uri}}}{name}" if uri else name
        self.uri, self.prefix = uri, prefix
        self.declare = ""
        self.attrs: dict[str, Use] = {}
        self.kids: dict[str, Node] = {}
        self.text: Use | None = None
        self.flag: Use | None = None
        self.word = ""
        self.use: Any = None
        self.bodies: dict[str, Node] = {}
        self.many = self.always = self.block = False
        self.cls: Any = None
        self.uses: dict[str, Use] = {}
        self.rest: Field | None = None

    def foreign(self, key: str) -> bool:
        """Whether a child belongs to a name space of which nothing is mapped here, nor to one of the same owner."""
        return key[0] == "{" and not any(kid.uri and key[1:].startswith(_owned(kid.uri)) for kid in self.kids.values())

    def body(self, kind: str | None) -> Node | None:
        """The content for a value of the ``type`` attribute, where several classes share the element."""
        if kind is None:
            for body in self.bodies.values():
                if body.cls is not None and (body.cls.type_optional or not body.cls.xml_kind):
                    return body
            return None
        return self.bodies.get(kind)


def _owned(uri: str) -> str:
    """What all name spaces of one owner begin with: ``urn:OWNER:``; of others (RFC 8141 has them for URNs alone) all of it."""
    parts = uri.split(":")
    return f"{parts[0]}:{parts[1]}:" if parts[0] == "urn" and len(parts) > 2 else f"{uri}}}"


_cache: dict[tuple[type[Element], str], Node] = {}


def compile_class(cls: type[Element], uri: str = "", prefix: str = "", name: str = "") -> Node:
    """The tree of one class. ``uri`` is the namespace of the element that holds it.

    Safe in threads without a lock, which a fork could leave locked in the child: a tree is published when it is whole,
    the first one is everybody's, and nothing changes it afterwards.
    """
    key = (cls, uri)
    made = _cache.get(key)
    if made is not None:
        return made
    root = Node(name or cls.tag or cls.__name__, uri, prefix)
    root.cls, root.block = cls, cls.block
    for field in cls.xml_fields.values():
        if field.foreign:
            root.rest = field
        else:
            use = root.uses[field.name] = Use(field)
            _place(cls, root, use)
    return _cache.setdefault(key, root)


def _child(cls: type[Element], node: Node, segment: str) -> Node:
    prefix, _, local = segment.rpartition(":")
    uri, declare = node.uri, ""
    if prefix:
        uri = cls.namespaces.get(prefix) or cls.local_namespaces[prefix]
        if prefix in cls.local_namespaces and node.uri != uri:
            declare = uri
    else:
        prefix = node.prefix
    key = f"{{{uri}}}{local}" if uri else local
    kid = node.kids.get(key)
    if kid is None:
        kid = node.kids[key] = Node(local, uri, prefix)
        kid.declare = declare
    return kid


def _place(cls: type[Element], root: Node, use: Use) -> None:
    node = root
    segments = use.field.path.split("/")
    for segment in segments:
        if segment == ".":
            node.text = use
        elif segment == "*":
            for word in use.simple.words:
                kid = _child(cls, node, word)
                kid.flag, kid.word = use, word
            return
        elif segment[0] == "@":
            node.attrs[segment[1:]] = use
            return
        else:
            node = _child(cls, node, segment)
    if use.classes:
        node.use, node.many = use, use.many
        node.always = use.field.always
        for one in use.classes:
            node.bodies[one.xml_kind] = compile_class(one, node.uri, node.prefix, node.name.rpartition(":")[2])
    elif node is not root:
        node.many = use.many
        if use.simple is Flag:
            node.flag = use
        else:
            node.text = use


def tag_table(classes: Iterable[type]) -> dict[str, dict[str, type[Element]]]:
    """Root element -> value of ``type`` -> class. Raises ``TypeError`` for two classes that claim one document."""
    table: dict[str, dict[str, type[Element]]] = {}
    for cls in classes:
        if not isinstance(cls, ElementMeta) or not cls.tag:  # type: ignore[attr-defined]
            raise TypeError(f"{cls.__name__} does not describe a document: it has no tag")
        kinds = table.setdefault(cls.tag, {})  # type: ignore[attr-defined]
        if kinds.setdefault(cls.xml_kind, cls) is not cls:  # type: ignore[arg-type]
            raise TypeError(f"two classes describe <{cls.tag} type='{cls.xml_kind}'>")  # type: ignore[attr-defined]
    return table


__all__ = ["Flag", "Node", "Use", "Words", "choice", "compile_class", "tag_table"]
