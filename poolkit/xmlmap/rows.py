"""The mapping as rows for people: the XML reference of the documentation and of ``poolkit schema --reference``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .element import REQUIRED
from .tree import Flag, Node, Use, compile_class
from .variants import must_be_there

_OURS = re.compile("/pkv?:")  # the prefixes of poolkit's own name spaces


class Row(NamedTuple):
    """One element or attribute.

    ``document`` is the document's kind (``pool dir``, ``volume``), ``path`` its place, ``kind`` ``element`` or
    ``attribute``, ``type`` what a value is, ``default`` what is taken when it is missing, ``cardinality`` ``1``,
    ``0..1``, ``0..n`` or ``1..n``, ``since`` the version of libvirt that brought it (empty for poolkit's own),
    ``effect`` what its value does: ``acted`` (a verb acts on it or refuses it), ``kept`` (information: read, kept and
    printed), ``reported`` (printed with what is found, and left out of a definition), or empty for an element that only
    holds others.
    """

    document: str
    path: str
    kind: str
    type: str
    default: str
    cardinality: str
    since: str
    effect: str
    doc: str

    @property
    def reported(self) -> bool:
        """Whether it is printed but never defined."""
        return self.effect == "reported"


def _type(use: Use) -> str:
    simple = use.simple
    if simple is Flag:
        return "an empty element"
    expected: str = simple.expected
    return expected + (", with @unit" if use.sized else "")


def _default(use: Use) -> str:
    field = use.field
    if field.source:
        return field.source.replace(".", "/")
    if field.default is REQUIRED or field.default in (None, ()) or use.simple is Flag:
        return ""
    value = field.initial()
    return str(use.simple.form(value) if use.simple.form is not None else value)


def _row(document: str, path: str, kind: str, use: Use, cardinality: str, above: str) -> Row:
    field = use.field
    return Row(
        document,
        path,
        kind,
        _type(use),
        _default(use),
        cardinality,
        field.since,
        _effect(use, above),
        field.doc,
    )


def _effect(use: Use, above: str) -> str:
    field = use.field
    owner: Any = field.owner
    return "reported" if field.reported and field.effect is None else above or field.effect or owner.effect or ""


def _walk(document: str, node: Node, path: str, above: str = "") -> Iterator[Row]:
    """``above`` is the effect that an element above speaks for all below it."""
    for name, use in node.attrs.items():
        yield _row(document, f"{path}/@{name}", "attribute", use, "1" if use.required else "0..1", above)
    for kid in node.kids.values():
        place = f"{path}/{kid.name}"
        low = "1" if must_be_there(kid, {}) else "0"
        cardinality = f"{low}..n" if kid.many else "1" if low == "1" else "0..1"
        if kid.use is not None:
            field = kid.use.field
            effect = _effect(kid.use, above)
            kinds = " or ".join(filter(None, kid.bodies)) if len(kid.bodies) > 1 else ""
            what = f"an element of @type {kinds}" if kinds else "an element"
            yield Row(document, place, "element", what, "", cardinality, field.since, effect, field.doc)
            for kind, body in kid.bodies.items():
                yield from _walk(document, body, f"{place}[@type='{kind}']" if kinds else place, effect)
        elif kid.flag is not None:
            doc = kid.flag.field.doc
            since = kid.flag.field.since
            yield Row(document, place, "element", "an empty element", "", "0..1", since, _effect(kid.flag, above), doc)
        elif kid.text is not None:
            yield _row(document, place, "element", kid.text, cardinality, above)
            yield from _walk(document, kid, place, above)
        else:
            yield Row(document, place, "element", "an element", "", cardinality, "", "", "")
            yield from _walk(document, kid, place, above)
    if node.rest is not None:
        yield Row(document, f"{path}/*", "element", "any", "", "0..n", "", "kept", node.rest.doc)


def reference(classes: Sequence[type]) -> list[Row]:
    """The rows of all documents of ``classes``, in the order in which they are printed."""
    rows: list[Row] = []
    for cls in classes:
        node = compile_class(cls)
        document = f"{node.name} {node.cls.xml_kind}".rstrip()
        if node.cls.xml_kind:
            kind = node.cls.xml_kind
            rows.append(
                Row(
                    document,
                    f"/{node.name}/@type",
                    "attribute",
                    kind,
                    "",
                    "1",
                    "",
                    "acted",
                    (cls.__doc__ or "").strip(),
                )
            )
        # What is libvirt's elsewhere, such as the permissions of a volume, is not so below an element of our own.
        rows += (r._replace(since="") if _OURS.search(r.path) else r for r in _walk(document, node, f"/{node.name}"))
    return rows


__all__ = ["Row", "reference"]
