"""RELAX NG of the mapped classes; see ``grammar``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .element import Element
from .simple import Simple, Unit
from .tree import Node, compile_class, tag_table
from .variants import Changes, Lines, is_needed, must_be_there, nested_changes, rule_variants, schema_text

XSD_TYPES = "http://www.w3.org/2001/XMLSchema-datatypes"


class Rng:
    """The grammar as it grows."""

    def __init__(self, classes: Sequence[type]) -> None:
        self.out = Lines()
        self.classes = classes

    def make(self) -> str:
        """The whole grammar."""
        out = self.out
        self.head()
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
            if cls.holds:
                self.several(one for one in roots if one.tag in cls.holds)
            else:
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

    def several(self, classes: Iterable[type[Element]]) -> None:
        """Any number of documents."""
        out = self.out
        out.open("zeroOrMore")
        out.open("choice")
        for cls in classes:
            out.add(f'<ref name="{self.label(cls)}"/>')
        out.close("choice")
        out.close("zeroOrMore")

    def referring(self, cls: type[Element], stems: Iterable[str]) -> str:
        """The grammar of a document of several, whose own grammars stand beside it as ``STEM.rng``."""
        out = self.out
        self.head()
        out.open("start")
        out.open("choice")
        out.add(f'<ref name="{self.label(cls)}"/>')
        out.add('<ref name="held"/>')
        out.close("choice")
        out.close("start")
        out.open(f'define name="{self.label(cls)}"')
        out.open(f'element name="{cls.tag}"')
        out.open("zeroOrMore")
        out.add('<ref name="held"/>')
        out.close("zeroOrMore")
        out.close("element")
        out.close("define")
        out.open('define name="held"')
        out.open("choice")
        for stem in stems:
            out.add(f'<externalRef href="{stem}.rng"/>')
        out.close("choice")
        out.close("define")
        out.close("grammar")
        return "\n".join(out.lines) + "\n"

    def head(self) -> None:
        """What stands before a grammar's definitions."""
        out = self.out
        out.add('<?xml version="1.0" encoding="UTF-8"?>')
        out.add("<!-- Generated from the mapping by python -m poolkit.schemas. -->")
        out.open(f'grammar xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="{XSD_TYPES}"')

    @staticmethod
    def label(one: type[Element]) -> str:
        """The name of the definition of a document."""
        return f"{one.tag}-{one.xml_kind}" if one.xml_kind else one.tag

    def simple(self, simple: Simple, *, empty: bool = False, words: tuple[str, ...] | None = None) -> None:
        """A simple type; ``empty`` allows nothing as well, ``words`` narrows a choice."""
        out = self.out
        listed = words if words is not None else simple.words
        several = empty or len(listed) > 1
        if several:
            out.open("choice")
        if listed:
            for word in listed:
                out.add(f'<value type="token">{schema_text(word)}</value>')
        else:
            kind = "integer" if simple.low is not None else "token" if simple.collapse else "string"
            out.open(f'data type="{kind}"')
            pattern = simple.pattern
            if simple.collapse:  # libxml2 matches before it collapses white space, the standard after it
                pattern = f"[ \t\n\r]*({pattern})[ \t\n\r]*"
            out.add(f'<param name="pattern">{schema_text(pattern)}</param>')
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
        variants = rule_variants(cls)
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
        """Attributes and content without the rules of the object they belong to."""
        out = self.out
        for name, use in node.attrs.items():
            change = changes.get(use.name)
            if change == "absent":
                continue
            needed = is_needed(use, changes)
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
                self.simple(use.simple, empty=not is_needed(use, changes) and not use.many)
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
        """Elements that are kept verbatim."""
        out = self.out
        out.open("zeroOrMore")
        out.open("element")
        out.open("choice")
        out.add("<name>metadata</name>")
        out.open("anyName")
        out.open("except")
        out.add('<nsName ns=""/>')
        for uri in dict.fromkeys(kid.uri for kid in node.kids.values() if kid.uri):
            out.add(f'<nsName ns="{schema_text(uri)}"/>')
        out.close("except")
        out.close("anyName")
        out.close("choice")
        out.add('<ref name="anything"/>')
        out.close("element")
        out.close("zeroOrMore")

    def child(self, kid: Node, changes: Changes) -> None:
        """A child element, as often as it may be there."""
        out = self.out
        must = must_be_there(kid, changes)
        if kid.use is not None and changes.get(kid.use.name) == "absent":
            return
        wrap = ("oneOrMore" if must else "zeroOrMore") if kid.many else ("" if must else "optional")
        if wrap:
            out.open(wrap)
        local = kid.name.rpartition(":")[2]
        out.open(f'element name="{local}"' + (f' ns="{schema_text(kid.uri)}"' if kid.uri else ""))
        if kid.use is not None:
            nested = nested_changes(changes, kid.use.name)
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
