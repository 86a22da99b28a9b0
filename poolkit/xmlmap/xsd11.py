"""XSD 1.1 of the mapped classes; see ``grammar``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .simple import Simple, Unit
from .tree import Node
from .variants import Lines, is_needed, must_be_there, schema_text


class Xsd:
    """The schema of one target name space; elements of other mapped name spaces are references to theirs.

    ``stem`` begins the names of types, so that schemas of no name space can be included in one; ``included`` are their files.
    """

    def __init__(self, uri: str, stem: str = "", included: Iterable[str] = ()) -> None:
        self.uri = uri
        self.stem = stem
        self.included = tuple(included)
        self.out = Lines()
        self.types: dict[tuple[Any, ...], str] = {}
        self.imports: dict[str, str] = {}

    def type_name(self, simple: Simple, *, empty: bool = False) -> str:
        """The name of a simple type, which is declared once per schema."""
        key = (simple.pattern, simple.words, simple.low, simple.high, simple.collapse, empty)
        name = self.types.get(key)
        if name is None:
            name = self.types[key] = f"{self.stem}{simple.name}{len(self.types)}"
        return f"t:{name}" if self.uri else name

    def simple_types(self) -> None:
        """Declare the simple types that were named."""
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
                    out.add(f'<xs:enumeration value="{schema_text(word)}"/>')
            else:
                out.add(f'<xs:pattern value="{schema_text(pattern)}"/>')
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
        """Attributes and rules of an element."""
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
            use = ' use="required"' if is_needed(one, {}) else ""
            out.add(f'<xs:attribute name="{name}" type="{self.type_name(one.simple)}"{use}/>')
        if cls is not None:
            for rule in cls.rules:
                out.add(f'<xs:assert test="{schema_text(rule.assertion)}"/>')

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
                    listed = " ".join(["##local", *map(schema_text, uris)])
                    out.add(
                        f'<xs:any notNamespace="{listed}" minOccurs="0" maxOccurs="unbounded" processContents="skip"/>'
                    )
                out.close("xs:all")
            self.attributes(node)
        out.close("xs:complexType")

    def child(self, kid: Node) -> None:
        """A child element, as often as it may be there."""
        out = self.out
        low = "1" if must_be_there(kid, {}) else "0"
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
        """Types chosen by the ``type`` attribute."""
        out = self.out
        for kind, body in bodies.items():
            test = f"@type = '{kind}'" + (" or not(@type)" if body.cls.type_optional else "")
            out.open(f'xs:alternative test="{test}"')
            self.complex(body)
            out.close("xs:alternative")
        out.add('<xs:alternative type="xs:error"/>')

    def several(self, tags: Iterable[str]) -> None:
        """Any number of documents."""
        out = self.out
        out.open("xs:complexType")
        out.open('xs:choice minOccurs="0" maxOccurs="unbounded"')
        for tag in tags:
            out.add(f'<xs:element ref="{tag}"/>')
        out.close("xs:choice")
        out.close("xs:complexType")

    def finish(self) -> str:
        """Wrap what was collected into a schema document."""
        body = self.out.lines
        self.out = Lines()
        self.out.depth = 1
        self.simple_types()
        head = ['<?xml version="1.0" encoding="UTF-8"?>']
        head.append("<!-- Generated from the mapping by python -m poolkit.schemas. -->")
        names = "".join(f' xmlns:{prefix}="{schema_text(uri)}"' for uri, prefix in self.imports.items())
        if self.uri:
            uri = schema_text(self.uri)
            names += f' xmlns:t="{uri}" targetNamespace="{uri}" elementFormDefault="qualified"'
        head.append(f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"{names}>')
        head += [
            f'  <xs:import namespace="{schema_text(uri)}" schemaLocation="{prefix}.xsd"/>'
            for uri, prefix in self.imports.items()
        ]
        head += [f'  <xs:include schemaLocation="{file}"/>' for file in self.included]
        return "\n".join([*head, *self.out.lines, *body, "</xs:schema>"]) + "\n"
