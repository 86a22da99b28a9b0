"""What the generated grammars have against a document: the one path for the command, for programs and for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import Problem, shown
from .grammar import rng_validator, xsd_validator


class Judges:
    """RELAX NG and XSD 1.1 of the documents of ``classes``; making them takes some 0.1 s, so keep them for many documents."""

    def __init__(self, classes: Sequence[type]) -> None:
        self._rng: Any = rng_validator(classes)
        self._xsd: Any = xsd_validator(classes)

    def against(self, data: bytes, filename: str = "<string>") -> dict[str, list[Problem]]:
        """The problems that each judge (``rng``, ``xsd``) finds; the document should have been read before.

        Comments and processing instructions are no content. They are taken out as the document is parsed, because
        xmlschema does not take an element with siblings for the root of a document.
        """
        from lxml import etree

        # The reader has refused a DOCTYPE already; these settings keep it so should the order ever change.
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        try:
            tree = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            line, column = error.position
            return {"rng": [Problem(filename, line, column, "", f"libxml2: {error.msg}")], "xsd": []}
        self._rng.validate(tree)
        by_rng = [Problem(filename, e.line, e.column, "", f"RELAX NG: {shown(e.message)}") for e in self._rng.error_log]
        by_xsd = [
            Problem(filename, getattr(e, "sourceline", 0) or 0, 1, e.path or "", f"XSD: {shown(str(e.reason))}")
            for e in self._xsd.iter_errors(tree)
        ]
        return {"rng": by_rng, "xsd": by_xsd}


__all__ = ["Judges"]
