"""RELAX NG and XSD 1.1 of the mapped classes, generated from the same tree that the reader walks.

Two things the reader checks are in neither: a size that exceeds 64 bits only after its unit is applied, and how often an
element of another name space may be nested. Everything else the three agree on, which a property test proves.

XML Schema needs one file per name space, so ``xsd`` takes the name space whose file is wanted; ``files`` makes them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .element import Element
from .rules import Change
from .simple import Simple, Unit
from .tree import Flag, Node, Use, compile_class, tag_table

Changes = Mapping[str, Change]
XSD_TYPES = "http://www.w3.org/2001/XMLSchema-datatypes"


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return "".join(c if " " <= c < "\x7f" else f"&#{ord(c)};" for c in text)


class _Out:
    """Indented lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def add(self, line: str) -> None:
        self.lines.append("  " * self.depth + line)

    def open(self, tag: str) -> None:
        self.add(f"<{tag}>")
        self.depth += 1

    def close(self, tag: str) -> None:
        self.depth -= 1
        self.add(f"</{tag}>")


def _nested(changes: Changes, name: str) -> dict[str, Change]:
    """The changes that concern the fields of the object in field ``name``."""
    lead = name + "."
    return {key[len(lead) :]: change for key, change in changes.items() if key.startswith(lead)}


def _variants(cls: type[Element]) -> list[dict[str, Change]]:
    """Every way to meet all rules of a class."""
    found: list[dict[str, Change]] = []
    for combination in itertools.product(*(rule.variants for rule in cls.rules)):
        merged: dict[str, Change] = {}
        for variant in combination:
            merged.update(variant)
        found.append(merged)
    return found


def _needed(use: Use, changes: Changes) -> bool:
    change = changes.get(use.name)
    if isinstance(change, tuple):
        return use.field.initial() not in change
    if use.many:
        return change == "required" or use.field.min > 0
    return change == "required" or (change != "absent" and use.required)


def _inside(node: Node) -> Iterable[Use]:
    """The fields that a structural element holds."""
    yield from node.attrs.values()
    for one in (node.text, node.flag, node.use):
        if one is not None:
            yield one
    if node.use is None:
        for kid in node.kids.values():
            yield from _inside(kid)


def _must(node: Node, changes: Changes) -> bool:
    """Whether a child element must be there."""
    if node.use is not None:
        return _needed(node.use, changes) or "required" in _nested(changes, node.use.name).values()
    if node.many and node.text is not None:
        return _needed(node.text, changes)
    if node.flag is not None:
        return False
    return any(_needed(use, changes) for use in _inside(node))


# -- RELAX NG ----------------------------------------------------------------------------------------------------


class _Rng:
    def __init__(self, classes: Sequence[type]) -> None:
        self.out = _Out()
        self.classes = classes

    def make(self) -> str:
        out = self.out
        out.add('<?xml version="1.0" encoding="UTF-8"?>')
        out.add("<!-- Generated from the mapping by python -m poolkit.schemas. -->")
        out.open(f'grammar xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="{XSD_TYPES}"')
        out.open("start")
        table = tag_table(self.classes)
        roots = [cls for kinds in table.values() for cls in kinds.values()]
        out.open("choice")
        for cls in roots:
            out.add(f'<ref name="{self.label(cls)}"/>')
        out.close("choice")
        out.close("start")
        for cls in roots:
            out.open(f'define name="{self.label(cls)}"')
            node = compile_class(cls)
            out.open(f'element name="{cls.tag}"')
            self.body(node, {})
            out.close("element")
            out.close("define")
        out.open('define name="anything"')
        out.open("zeroOrMore")
        out.open("choice")
        out.add("<text/>")
        out.add("<attribute><anyName/></attribute>")
        out.add('<element><anyName/><ref name="anything"/></element>')
        out.close("choice")
        out.close("zeroOrMore")
        out.close("define")
        out.close("grammar")
        return "\n".join(out.lines) + "\n"

    @staticmethod
    def label(one: type[Element]) -> str:
        return f"{one.tag}-{one.xml_kind}" if one.xml_kind else one.tag

    def simple(self, simple: Simple, *, empty: bool = False, words: tuple[str, ...] | None = None) -> None:
        out = self.out
        listed = words if words is not None else simple.words
        several = empty or len(listed) > 1
        if several:
            out.open("choice")
        if listed:
            for word in listed:
                out.add(f'<value type="token">{_escape(word)}</value>')
        else:
            kind = "integer" if simple.low is not None else "token" if simple.collapse else "string"
            out.open(f'data type="{kind}"')
            pattern = simple.pattern
            if simple.collapse:  # libxml2 matches before it collapses white space, the standard after it
                pattern = f"[ \t\n\r]*({pattern})[ \t\n\r]*"
            out.add(f'<param name="pattern">{_escape(pattern)}</param>')
            if simple.low is not None:
                out.add(f'<param name="minInclusive">{simple.low}</param>')
                out.add(f'<param name="maxInclusive">{simple.high}</param>')
            out.close("data")
        if empty:
            out.add('<value type="token"></value>')
        if several:
            out.close("choice")

    def body(self, node: Node, changes: Changes) -> None:
        """Attributes and content of an object; a choice of variants where rules ask for one."""
        cls = node.cls
        variants = _variants(cls)
        out = self.out
        if len(variants) > 1:
            out.open("choice")
        for variant in variants:
            if len(variants) > 1:
                out.open("group")
            if cls.xml_kind:
                if cls.type_optional:
                    out.open("optional")
                out.add(f'<attribute name="type"><value type="token">{cls.xml_kind}</value></attribute>')
                if cls.type_optional:
                    out.close("optional")
            self.inner(node, {**changes, **variant})
            if len(variants) > 1:
                out.close("group")
        if len(variants) > 1:
            out.close("choice")

    def inner(self, node: Node, changes: Changes) -> None:
        out = self.out
        for name, use in node.attrs.items():
            change = changes.get(use.name)
            if change == "absent":
                continue
            needed = _needed(use, changes)
            if not needed:
                out.open("optional")
            out.open(f'attribute name="{name}"')
            self.simple(use.simple, words=change if isinstance(change, tuple) else None)
            out.close("attribute")
            if not needed:
                out.close("optional")
        if node.text is not None:
            use = node.text
            if use.sized:
                out.open("optional")
                out.open('attribute name="unit"')
                self.simple(Unit)
                out.close("attribute")
                out.close("optional")
            if changes.get(use.name) == "absent":
                out.add('<value type="token"></value>')
            else:
                self.simple(use.simple, empty=not _needed(use, changes) and not use.many)
            return
        if not node.kids and node.rest is None:
            out.add("<empty/>")
            return
        out.open("interleave")
        before = len(out.lines)
        for kid in node.kids.values():
            self.child(kid, changes)
        if node.rest is not None:
            self.rest(node)
        if len(out.lines) == before:  # every child is absent in this variant
            out.add("<empty/>")
        out.close("interleave")

    def rest(self, node: Node) -> None:
        out = self.out
        out.open("zeroOrMore")
        out.open("element")
        out.open("choice")
        out.add("<name>metadata</name>")
        out.open("anyName")
        out.open("except")
        out.add('<nsName ns=""/>')
        for uri in dict.fromkeys(kid.uri for kid in node.kids.values() if kid.uri):
            out.add(f'<nsName ns="{_escape(uri)}"/>')
        out.close("except")
        out.close("anyName")
        out.close("choice")
        out.add('<ref name="anything"/>')
        out.close("element")
        out.close("zeroOrMore")

    def child(self, kid: Node, changes: Changes) -> None:
        out = self.out
        must = _must(kid, changes)
        if kid.use is not None and changes.get(kid.use.name) == "absent":
            return
        wrap = ("oneOrMore" if must else "zeroOrMore") if kid.many else ("" if must else "optional")
        if wrap:
            out.open(wrap)
        local = kid.name.rpartition(":")[2]
        out.open(f'element name="{local}"' + (f' ns="{_escape(kid.uri)}"' if kid.uri else ""))
        if kid.use is not None:
            nested = _nested(changes, kid.use.name)
            if len(kid.bodies) > 1:
                out.open("choice")
            for body in kid.bodies.values():
                if len(kid.bodies) > 1:
                    out.open("group")
                self.body(body, nested)
                if len(kid.bodies) > 1:
                    out.close("group")
            if len(kid.bodies) > 1:
                out.close("choice")
        elif kid.flag is not None:
            out.add("<empty/>")
        else:
            self.inner(kid, changes)
        out.close("element")
        if wrap:
            out.close(wrap)


# -- XSD 1.1 -----------------------------------------------------------------------------------------------------


class _Xsd:
    """The schema of one target name space; elements of other mapped name spaces are references to theirs."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.out = _Out()
        self.types: dict[tuple[Any, ...], str] = {}
        self.imports: dict[str, str] = {}
        self.elements: dict[str, tuple[Node, Changes]] = {}

    def type_name(self, simple: Simple, *, empty: bool = False) -> str:
        key = (simple.pattern, simple.words, simple.low, simple.high, simple.collapse, empty)
        name = self.types.get(key)
        if name is None:
            name = self.types[key] = f"{simple.name}{len(self.types)}"
        return f"t:{name}" if self.uri else name

    def simple_types(self) -> None:
        out = self.out
        for key, name in self.types.items():
            pattern, words, low, high, collapse, empty = key
            out.open(f'xs:simpleType name="{name}"')
            if empty:
                out.open("xs:union")
                out.open("xs:simpleType")
            base = "integer" if low is not None else "token" if collapse else "string"
            out.open(f'xs:restriction base="xs:{base}"')
            if words:
                for word in words:
                    out.add(f'<xs:enumeration value="{_escape(word)}"/>')
            else:
                out.add(f'<xs:pattern value="{_escape(pattern)}"/>')
            if low is not None:
                out.add(f'<xs:minInclusive value="{low}"/>')
                out.add(f'<xs:maxInclusive value="{high}"/>')
            out.close("xs:restriction")
            if empty:
                out.close("xs:simpleType")
                out.open("xs:simpleType")
                out.add('<xs:restriction base="xs:token"><xs:enumeration value=""/></xs:restriction>')
                out.close("xs:simpleType")
                out.close("xs:union")
            out.close("xs:simpleType")

    def attributes(self, node: Node) -> None:
        out = self.out
        cls = node.cls
        if cls is not None and cls.xml_kind:
            use = "" if cls.type_optional else ' use="required"'
            out.open(f'xs:attribute name="type"{use}')
            out.add(
                f'<xs:simpleType><xs:restriction base="xs:token"><xs:enumeration value="{cls.xml_kind}"/>'
                "</xs:restriction></xs:simpleType>"
            )
            out.close("xs:attribute")
        for name, one in node.attrs.items():
            use = ' use="required"' if _needed(one, {}) else ""
            out.add(f'<xs:attribute name="{name}" type="{self.type_name(one.simple)}"{use}/>')
        if cls is not None:
            for rule in cls.rules:
                out.add(f'<xs:assert test="{_escape(rule.assertion)}"/>')

    def complex(self, node: Node) -> None:
        """The complex type of an element's content."""
        out = self.out
        out.open("xs:complexType")
        if node.text is not None:
            use = node.text
            out.open("xs:simpleContent")
            base = self.type_name(use.simple, empty=not use.required and not use.many)
            out.open(f'xs:extension base="{base}"')
            if use.sized:
                out.add(f'<xs:attribute name="unit" type="{self.type_name(Unit)}"/>')
            self.attributes(node)
            out.close("xs:extension")
            out.close("xs:simpleContent")
        else:
            if node.kids or node.rest is not None:
                out.open("xs:all")
                for kid in node.kids.values():
                    self.child(kid)
                if node.rest is not None:
                    uris = dict.fromkeys(kid.uri for kid in node.kids.values() if kid.uri)
                    out.open('xs:element name="metadata" minOccurs="0" maxOccurs="unbounded"')
                    out.open('xs:complexType mixed="true"')
                    out.open("xs:sequence")
                    out.add('<xs:any minOccurs="0" maxOccurs="unbounded" processContents="skip"/>')
                    out.close("xs:sequence")
                    out.add('<xs:anyAttribute processContents="skip"/>')
                    out.close("xs:complexType")
                    out.close("xs:element")
                    listed = " ".join(["##local", *map(_escape, uris)])
                    out.add(
                        f'<xs:any notNamespace="{listed}" minOccurs="0" maxOccurs="unbounded" processContents="skip"/>'
                    )
                out.close("xs:all")
            self.attributes(node)
        out.close("xs:complexType")

    def child(self, kid: Node) -> None:
        out = self.out
        low = "1" if _must(kid, {}) else "0"
        if kid.use is not None and kid.many:
            low = str(kid.use.field.min)
        occurs = f' minOccurs="{low}" maxOccurs="{"unbounded" if kid.many else 1}"'
        local = kid.name.rpartition(":")[2]
        if kid.uri != self.uri:
            self.imports[kid.uri] = kid.prefix
            out.add(f'<xs:element ref="{kid.prefix}:{local}"{occurs}/>')
            return
        out.open(f'xs:element name="{local}"{occurs}')
        self.content(kid)
        out.close("xs:element")

    def content(self, kid: Node) -> None:
        """What an element is: one type, or one of several chosen by the ``type`` attribute."""
        if kid.use is None:
            self.complex(kid)
        elif len(kid.bodies) == 1 and "" in kid.bodies:
            self.complex(kid.bodies[""])
        else:
            self.alternatives(kid.bodies)

    def alternatives(self, bodies: Mapping[str, Node]) -> None:
        out = self.out
        for kind, body in bodies.items():
            test = f"@type = '{kind}'" + (" or not(@type)" if body.cls.type_optional else "")
            out.open(f'xs:alternative test="{test}"')
            self.complex(body)
            out.close("xs:alternative")
        out.add('<xs:alternative type="xs:error"/>')

    def finish(self) -> str:
        """Wrap what was collected into a schema document."""
        body = self.out.lines
        self.out = _Out()
        self.out.depth = 1
        self.simple_types()
        head = ['<?xml version="1.0" encoding="UTF-8"?>']
        head.append("<!-- Generated from the mapping by python -m poolkit.schemas. -->")
        names = "".join(f' xmlns:{prefix}="{_escape(uri)}"' for uri, prefix in self.imports.items())
        if self.uri:
            names += (
                f' xmlns:t="{_escape(self.uri)}" targetNamespace="{_escape(self.uri)}" elementFormDefault="qualified"'
            )
        head.append(f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"{names}>')
        head += [
            f'  <xs:import namespace="{_escape(uri)}" schemaLocation="{prefix}.xsd"/>'
            for uri, prefix in self.imports.items()
        ]
        return "\n".join([*head, *self.out.lines, *body, "</xs:schema>"]) + "\n"


def relaxng(classes: Sequence[type]) -> str:
    """The RELAX NG grammar of the documents of ``classes``, in XML form."""
    return _Rng(classes).make()


def namespaces(classes: Sequence[type]) -> dict[str, str]:
    """The mapped name spaces of ``classes``: name to prefix."""
    found: dict[str, str] = {}
    for cls in classes:
        for kid in compile_class(cls).kids.values():
            if kid.uri:
                found[kid.uri] = kid.prefix
    return found


def xsd(classes: Sequence[type], namespace: str = "") -> str:
    """The XSD 1.1 schema of the documents of ``classes``; with ``namespace``, of their elements in that name space.

    The schema of the documents imports the others as ``PREFIX.xsd``; see ``files``.
    """
    made = _Xsd(namespace)
    out = made.out
    out.depth = 1
    if namespace:
        done: dict[str, list[str]] = {}
        for cls in classes:
            for kid in compile_class(cls).kids.values():
                if kid.uri != namespace:
                    continue
                made.out = _Out()
                made.out.depth = 1
                local = kid.name.rpartition(":")[2]
                made.out.open(f'xs:element name="{local}"')
                made.content(kid)
                made.out.close("xs:element")
                if done.setdefault(local, made.out.lines) != made.out.lines:
                    raise TypeError(f"<{kid.name}> means two things")
        made.out = out
        for lines in done.values():
            out.lines += lines
        return made.finish()
    for tag, kinds in tag_table(classes).items():
        bodies = {kind: compile_class(cls) for kind, cls in kinds.items()}
        out.open(f'xs:element name="{tag}"')
        if "" in bodies:
            made.complex(bodies[""])
        else:
            made.alternatives(bodies)
        out.close("xs:element")
    return made.finish()


def files(classes: Sequence[type], stem: str) -> dict[str, str]:
    """Every schema file of ``classes`` by name: ``STEM.rng``, ``STEM.xsd`` and one ``PREFIX.xsd`` per name space."""
    made = {f"{stem}.rng": relaxng(classes), f"{stem}.xsd": xsd(classes)}
    for uri, prefix in namespaces(classes).items():
        made[f"{prefix}.xsd"] = xsd(classes, uri)
    return made


def rng_validator(classes: Sequence[type]) -> Any:
    """An ``lxml.etree.RelaxNG`` of ``classes``."""
    from lxml import etree

    return etree.RelaxNG(etree.fromstring(relaxng(classes).encode()))


def xsd_validator(classes: Sequence[type]) -> Any:
    """An ``xmlschema.XMLSchema11`` of ``classes``."""
    import xmlschema

    sources = {f"{prefix}.xsd": xsd(classes, uri) for uri, prefix in namespaces(classes).items()}
    main = xsd(classes)
    for name in sources:
        main = main.replace(f' schemaLocation="{name}"', "")
    return xmlschema.XMLSchema11([main, *sources.values()])


__all__ = ["Flag", "files", "namespaces", "relaxng", "rng_validator", "xsd", "xsd_validator"]
