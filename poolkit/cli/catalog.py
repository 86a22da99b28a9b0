"""The XML catalog of the grammars: by it editors and validators find the file of a name that stands in documents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from poolkit.cli import files
from poolkit.cli.arguments import Values
from poolkit.xmlmap.writer import escape_attribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolkit.cli.session import Session

_NAME = "urn:poolkit:schema:"
"""Begins the names of grammars: ``urn:poolkit:schema:pool`` is RELAX NG, ``urn:poolkit:schema:pool:xsd`` XML Schema 1.1."""


def catalog(where: Callable[[str], str]) -> str:
    """An XML catalog (OASIS, 1.1) with the URI that ``where`` gives for the name of each file.

    Besides the names of the grammars it has the name spaces of poolkit's own elements.
    """
    from poolkit.schemas import STEMS, documents
    from poolkit.xmlmap.grammar import namespaces

    found = {}
    for kind, stem in STEMS.items():
        found[f"{_NAME}{kind}"] = f"{stem}.rng"
        found[f"{_NAME}{kind}:xsd"] = f"{stem}.xsd"
    for classes in documents().values():
        found |= {uri: f"{prefix}.xsd" for uri, prefix in namespaces(classes).items()}
    lines = []
    for name, file in found.items():
        uri = escape_attribute(where(file))
        # Programs ask for a grammar as a resource, or as the system identifier of an entity.
        lines += [f"  <uri name='{name}' uri='{uri}'/>", f"  <system systemId='{name}' uri='{uri}'/>"]
    head = "<catalog xmlns='urn:oasis:names:tc:entity:xmlns:xml:catalog' prefer='public'>"
    return "\n".join(["<?xml version='1.0' encoding='UTF-8'?>", head, *lines, "</catalog>"]) + "\n"


def schema_catalog(session: Session, values: Values) -> None:
    """``schema --catalog``, ``schema --into DIR``."""
    from poolkit import registry, schemas

    if values.into is None:
        folder = os.path.dirname(os.path.abspath(schemas.__file__))
        text = catalog(lambda file: Path(folder, file).as_uri())
        if session.json:
            session.value({"xml": text})
        else:
            session.out.write(text)
        foreign = [c for c in registry.definitions() if c not in registry.built_in_definitions()]
        if foreign:
            session.note("the pool types of other packages are not in these grammars: --into DIR writes all of them")
        return
    texts = schemas.generate(registry.definitions()) | {"catalog.xml": catalog(lambda file: file)}
    files.write(session, values.into, texts)
    if session.json:
        session.value({"files": [os.path.join(values.into, name) for name in texts]})
