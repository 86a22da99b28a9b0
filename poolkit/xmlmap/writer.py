"""From an object to text, byte for byte as libvirt prints it: two spaces, single quotes, the order of declaration.

For each class the writer is one Python function, made when the class is first written, with every nested class unrolled
and every indentation a constant: a volume with 25 values takes some 10 us.
"""

from __future__ import annotations

from ..lean import TYPE_CHECKING, pattern
from .tree import Flag, Node, Words, compile_class

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from typing import Any

    from .element import Element
    from .simple import Simple
    from .tree import Use


# What XML 1.0 cannot carry, and the C1 controls, which it can but no terminal should get.
_EACH = pattern("[&<>'\"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BLANKS = pattern("[\t\n\r]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;"}


def _is_plain(text: str) -> bool:
    # Nothing that has to be written in another way is printable but for these five.
    return text.isprintable() and not ("&" in text or "<" in text or ">" in text or "'" in text or '"' in text)


def _one(match: re.Match[str]) -> str:
    char = match[0]
    return _NAMED.get(char) or char.encode("unicode_escape", "surrogatepass").decode()


def escape(text: str) -> str:
    """``text`` for element content. A character that XML or a terminal cannot take becomes ``\\xNN`` or ``\\uNNNN``."""
    if _is_plain(text):
        return text
    return _EACH.sub(_one, text).replace("\r", "&#13;")


def escape_attribute(text: str) -> str:
    """As ``escape``; tabs and line ends become references, because a parser turns them into spaces otherwise."""
    if _is_plain(text):
        return text
    return _BLANKS.sub(lambda match: f"&#{ord(match[0])};", _EACH.sub(_one, text))


class _Code:
    """The source of one writer as it grows."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.space: dict[str, Any] = {"esc": escape, "att": escape_attribute}
        self.count = 0

    def add(self, depth: int, line: str) -> None:
        self.lines.append(" " * depth + line)

    def name(self, value: Any = None) -> str:
        self.count += 1
        made = f"v{self.count}"
        if value is not None:
            self.space[made] = value
        return made


def _braced(text: str) -> str:
    return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}").replace('"', '\\"')


class _Writer:
    def __init__(self, cls: type[Element]) -> None:
        self.code = _Code()
        self.cls = cls

    def convert(self, simple: Simple, expression: str, attribute: bool) -> str:
        """An expression for the text of a value, as it goes into an f-string."""
        if simple.form is not None:
            return f"{self.code.name(simple.form)}({expression})"
        if simple.words or simple.low is not None:  # words and numbers need no escape
            return expression
        return f"{'att' if attribute else 'esc'}({expression})"

    def given(self, use: Use, expression: str) -> str | None:
        """The condition under which a value is printed; None for always."""
        field = use.field
        if use.many or isinstance(use.simple, Words) or use.simple is Flag:
            return expression
        if field.fallback is not None:
            return None
        conditions = []
        if use.optional:
            conditions.append(f"{expression} is not None")
        if field.skip is not None:
            conditions.append(f"{expression} != {field.skip!r}")
        return " and ".join(conditions) or None

    def condition(self, node: Node, owner: str) -> list[str] | None:
        """What makes a structural element appear: a list of alternatives; None for always."""
        found: list[str] = []
        if node.always:
            return None
        uses = [(use, f"{owner}.{use.name}") for use in node.attrs.values()]
        if node.text is not None:
            uses.append((node.text, f"{owner}.{node.text.name}"))
        for use, expression in uses:
            test = self.given(use, expression)
            if test is None:
                return None
            found.append(test)
        for kid in node.kids.values():
            if kid.use is not None:
                inside = self.object_condition(kid, f"{owner}.{kid.use.name}")
                if kid.use.many or (kid.use.optional and inside is None):
                    found.append(f"{owner}.{kid.use.name}")
                elif kid.use.optional:
                    found.append(f"({owner}.{kid.use.name} and ({' or '.join(inside or [])}))")
                else:
                    inner = self.object_condition(kid, f"{owner}.{kid.use.name}")
                    if inner is None:
                        return None
                    found.extend(inner)
            elif kid.flag is not None:
                found.append(f"{kid.word!r} in {owner}.{kid.flag.name}" if kid.word else f"{owner}.{kid.flag.name}")
            else:
                inner = self.condition(kid, owner)
                if inner is None:
                    return None
                found.extend(inner)
        return found

    def object_condition(self, node: Node, expression: str) -> list[str] | None:
        """As ``condition``, of an element that is an object which is there."""
        if node.always or len(node.bodies) > 1:
            return None
        (body,) = node.bodies.values()
        if body.cls is None or not body.cls.omit_empty:
            return None
        return self.condition(body, expression)

    def value(self, use: Use, expression: str, attribute: bool) -> str:
        back = use.field.fallback
        if isinstance(back, str):
            owner = expression.rpartition(".")[0]
            other = f"{owner}.{back}"
            expression = f"({expression} if {expression} is not None else {other} if {other} is not None else 0)"
        elif back is not None:
            expression = f"({expression} if {expression} is not None else {back!r})"
        return self.convert(use.simple, expression, attribute)

    def content(
        self, node: Node, owner: str, depth: int, indent: int, name: str, head: str, *, always: bool = False
    ) -> None:
        """Print an element whose values are attributes of the local variable ``owner``; ``head`` follows the name.

        ``always``: its end tag is printed even when it is empty. That depends on where the element is, and nodes are
        shared between all places and threads, so it is no property of the node.
        """
        code = self.code
        pad = "  " * indent
        start = f"{pad}<{_braced(name)}{head}"
        pieces = start
        for attribute, use in node.attrs.items():
            expression = f"{owner}.{use.name}"
            test = self.given(use, expression)
            text = f" {attribute}='{{{self.value(use, expression, True)}}}'"
            if test is None:
                pieces += text
            else:
                code.add(depth, f'a(f"{pieces}")')
                code.add(depth, f'if {test}: a(f"{text}")')
                pieces = ""
        if node.text is not None:
            use = node.text
            expression = f"{owner}.{use.name}"
            if use.sized:
                pieces += f" unit='{use.field.unit}'"
            code.add(depth, f'a(f"{pieces}>{{{self.value(use, expression, False)}}}</{_braced(name)}>\\n")')
            return
        if not node.kids and node.rest is None:
            code.add(depth, f'a(f"{pieces}/>\\n")')
            return
        alternatives: list[str] | None = None
        if not (node.block or always):
            alternatives = self.condition(node, owner) if not node.attrs else self._kids_condition(node, owner)
        if alternatives:
            code.add(depth, f"if {' or '.join(alternatives)}:")
            code.add(depth + 1, f'a(f"{pieces}>\\n")')
            self.kids(node, owner, depth + 1, indent + 1)
            code.add(depth + 1, f'a("{pad}</{name}>\\n")')
            code.add(depth, "else:")
            code.add(depth + 1, f'a(f"{pieces}/>\\n")')
        else:
            code.add(depth, f'a(f"{pieces}>\\n")')
            self.kids(node, owner, depth, indent + 1)
            code.add(depth, f'a("{pad}</{name}>\\n")')

    def _kids_condition(self, node: Node, owner: str) -> list[str] | None:
        bare = Node("")
        bare.kids = node.kids
        return self.condition(bare, owner)

    def kids(self, node: Node, owner: str, depth: int, indent: int) -> None:
        """Print the children of an element."""
        code = self.code
        for kid in node.kids.values():
            declare = f" xmlns:{kid.prefix}='{escape_attribute(kid.declare)}'" if kid.declare else ""
            pad = "  " * indent
            if kid.use is not None:
                self.objects(kid, owner, depth, indent, declare)
            elif kid.flag is not None:
                test = f"{kid.word!r} in {owner}.{kid.flag.name}" if kid.word else f"{owner}.{kid.flag.name}"
                code.add(depth, f'if {test}: a("{pad}<{kid.name}{declare}/>\\n")')
            elif kid.many and kid.text is not None and kid.text.simple is not None:
                one = code.name()
                code.add(depth, f"for {one} in {owner}.{kid.text.name}:")
                text = self.convert(kid.text.simple, one, False)
                code.add(depth + 1, f'a(f"{pad}<{kid.name}{declare}>{{{text}}}</{kid.name}>\\n")')
            else:
                alternatives = self.condition(kid, owner)
                if alternatives:
                    code.add(depth, f"if {' or '.join(alternatives)}:")
                self.content(kid, owner, depth + bool(alternatives), indent, kid.name, declare)
        if node.rest is not None:
            code.add(depth, f'for m in {owner}.{node.rest.name}: a("{"  " * indent}" + m + "\\n")')

    def objects(self, kid: Node, owner: str, depth: int, indent: int, declare: str) -> None:
        """Print the element or elements of a field that holds objects."""
        code, use = self.code, kid.use
        one = code.name()
        if use.many:
            code.add(depth, f"for {one} in {owner}.{use.name}:")
            depth += 1
        else:
            code.add(depth, f"{one} = {owner}.{use.name}")
            tests = []
            if use.optional:
                tests.append(f"{one} is not None")
            inner = self.object_condition(kid, one)
            if inner:
                tests.append(f"({' or '.join(inner)})")
            if tests:
                code.add(depth, f"if {' and '.join(tests)}:")
                depth += 1
        bodies = list(kid.bodies.values())
        for index, body in enumerate(bodies):
            if len(bodies) > 1:
                code.add(depth, f"{'el' if index else ''}if type({one}) is {code.name(body.cls)}:")
            kind = f" type='{body.cls.xml_kind}'" if body.cls.xml_kind else ""
            inside = depth + (len(bodies) > 1)
            self.content(body, one, inside, indent, kid.name, kind + declare, always=kid.always)

    def make(self) -> Callable[[Any, Callable[[str], None]], None]:
        """Compile the writer of the class: ``f(obj, append)``."""
        root = compile_class(self.cls)
        code = self.code
        head = f" type='{self.cls.xml_kind}'" if self.cls.xml_kind else ""
        for prefix, uri in self.cls.namespaces.items():
            tests = [
                test
                for kid in root.kids.values()
                if kid.uri == uri
                for test in ([f"o.{kid.use.name}"] if kid.use is not None else self.condition(kid, "o") or ["True"])
            ]
            if tests:
                one = code.name()
                declared = f" xmlns:{prefix}='{escape_attribute(uri)}'"
                code.add(1, f'{one} = "{declared}" if {" or ".join(tests)} else ""')
                head += f"{{{one}}}"
        self.content(root, "o", 1, 0, root.name, head, always=True)
        source = "def write(o, a):\n" + "\n".join(code.lines)
        exec(compile(source, f"<writer of {self.cls.__name__}>", "exec"), code.space)  # noqa: S102
        return code.space["write"]  # type: ignore[no-any-return]


_writers: dict[type, Callable[[Any, Callable[[str], None]], None]] = {}


def write(obj: Element) -> str:
    """The document of ``obj``, as libvirt prints it, ending with a line end. Raises ``TypeError`` for a fragment."""
    cls = type(obj)
    writer = _writers.get(cls)
    if writer is None:
        if not cls.tag:
            raise TypeError(f"{cls.__name__} is a part of documents, not a document")
        # Two threads may both make it: what each makes is whole before it is published, and both are the same.
        writer = _writers.setdefault(cls, _Writer(cls).make())
    parts: list[str] = []
    writer(obj, parts.append)
    return "".join(parts)
