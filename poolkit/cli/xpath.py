"""``--xpath``: parts of a document, as virsh prints them."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from poolkit.cli.arguments import usage_error
from poolkit.errors import shown


def found(text: str, expression: str, *, wrap: bool = False) -> str:
    """The nodes that an XPath 1.0 expression finds in a document, a line each; ``wrap`` puts them into ``<nodes>``.

    ``InvalidArgument`` if it is no expression, or gives a number or a text instead of nodes.
    """
    from lxml import etree

    try:
        nodes = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True)).xpath(
            expression
        )
    except (etree.XPathError, ValueError) as error:  # lxml's own for control characters
        raise usage_error(f"'{shown(expression)}' is no XPath expression: {error}") from None
    if not isinstance(nodes, list):
        raise usage_error(f"the XPath expression '{shown(expression)}' finds no nodes but a value")
    lines: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            name = getattr(node, "attrname", None)
            lines.append(f" {name}={quoteattr(node)}" if name else str(node))
        elif isinstance(node, etree._Element):
            lines.append(etree.tostring(node, encoding="unicode", with_tail=False))
    body = "\n".join(lines)
    if wrap:
        return f"<nodes>\n{body}\n</nodes>\n" if body else "<nodes/>\n"
    return body
