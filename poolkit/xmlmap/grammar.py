"""RELAX NG and XSD 1.1 of the mapped classes, generated from the same tree that the reader walks.

Two things the reader checks are in neither: a size that exceeds 64 bits only after its unit is applied, and how often an
element of another name space may be nested. Everything else the three agree on, which a property test proves.

XML Schema needs one file per name space, so ``xsd`` takes the name space whose file is wanted; ``files`` makes them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .element import Element
from .rng import Rng
from .tree import compile_class, tag_table
from .variants import Lines
from .xsd11 import Xsd


def relaxng(classes: Sequence[type]) -> str:
    """The RELAX NG grammar of the documents of ``classes``, in XML form."""
    return Rng(classes).make()


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
    table = tag_table(classes)
    made = Xsd(namespace, "" if namespace else f"{next(iter(table), '')}-")
    out = made.out
    out.depth = 1
    if namespace:
        done: dict[str, list[str]] = {}
        for cls in classes:
            for kid in compile_class(cls).kids.values():
                if kid.uri != namespace:
                    continue
                made.out = Lines()
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
    for tag, kinds in table.items():
        bodies = {kind: compile_class(cls) for kind, cls in kinds.items()}
        out.open(f'xs:element name="{tag}"')
        if held := kinds[""].holds if "" in kinds else ():
            made.several(held)
        elif "" in bodies:
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


def referring(cls: type[Element], stem: str, stems: Sequence[str]) -> dict[str, str]:
    """The schema files of ``cls``, which holds documents, by name; they refer to ``STEM.rng`` and ``STEM.xsd`` beside them."""
    made = Xsd("", included=[f"{one}.xsd" for one in stems])
    made.out.depth = 1
    made.out.open(f'xs:element name="{cls.tag}"')
    made.several(cls.holds)
    made.out.close("xs:element")
    return {f"{stem}.rng": Rng([cls]).referring(cls, stems), f"{stem}.xsd": made.finish()}


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


__all__ = ["files", "namespaces", "referring", "relaxng", "rng_validator", "xsd", "xsd_validator"]
