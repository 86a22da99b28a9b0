"""From a document to an object, by expat: all problems at once, each with its place; limits hold while parsing.

expat is used because it knows line and column, calls us as it goes (so that a DOCTYPE is refused as it starts) and
never opens anything. Names are resolved here and not by expat's name space mode, which loses the prefixes that foreign
elements need to be kept verbatim.
"""

from __future__ import annotations

import pyexpat

from ..errors import Problem, shown
from ..lean import TYPE_CHECKING, NamedTuple
from ..units import LIMIT, factor
from .element import REQUIRED
from .quote import quoted, suggestion
from .simple import BLANK, Unit
from .source import Source
from .tree import compile_class

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .element import Element
    from .tree import Node, Use


MEBIBYTE = 1 << 20
LARGEST = 16 * MEBIBYTE  # what the limit of a document can be raised to
PROBLEMS = 40  # after so many a document is hopeless and the rest would only scroll by
XMLNS = "http://www.w3.org/2000/xmlns/"


class Limits(NamedTuple):
    """What a document may cost. ``size`` counts bytes and can be raised to 16 MiB; ``text`` counts characters."""

    size: int = MEBIBYTE
    depth: int = 64
    elements: int = 10_000
    attributes: int = 64
    text: int = 65_536
    lines: int = 100_000


DEFAULT_LIMITS = Limits()


class Part(NamedTuple):
    """Where a document that is a part of a file begins: line and column, and the prefixes that were declared before it."""

    place: tuple[int, int]
    namespaces: dict[str, str]


class _Stop(Exception):
    """Ends the parse; the problem is recorded already."""


class _Owner:
    """An object in the making."""

    __slots__ = ("body", "offset", "path", "rest", "values")

    def __init__(self, body: Node, offset: int, path: str) -> None:
        self.body, self.offset, self.path = body, offset, path
        self.values: dict[str, Any] = {}
        self.rest: list[str] = []


_ABSENT: Any = object()  # stands for an element that counts as not there
_SPARE = "means nothing here and was left out; libvirt takes it, too"
_BAD: Any = object()  # stands for a value that had a problem


def _type_of(attributes: list[str]) -> str | None:
    return next((attributes[i + 1] for i in range(0, len(attributes), 2) if attributes[i] == "type"), None)


def _declared_encoding(found: str | None) -> bool:
    return found is None or found.lower() in ("utf-8", "utf8", "us-ascii", "ascii")


class _Reader:
    def __init__(
        self,
        data: bytes,
        filename: str,
        strict: bool,
        warn: Callable[[Problem], object] | None,
        limits: Limits,
        part: Part | None = None,
    ) -> None:
        self.source = Source(data) if part is None else Source(data, part.place)
        self.filename, self.strict, self.warn, self.limits = filename, strict, warn, limits
        self.namespaces = {} if part is None else part.namespaces
        self.problems: list[Problem] = []

    # -- places and problems ---------------------------------------------------------------------------------

    def problem(self, offset: int, path: str, message: str, *, soft: bool = False) -> None:
        line, column = self.source.place(offset) if offset >= 0 else (0, 0)
        found = Problem(self.filename, line, column, shown(path), message)
        if soft and not self.strict:
            if self.warn is not None:
                self.warn(found)
            return
        self.problems.append(found)
        if len(self.problems) >= PROBLEMS:
            self.problems.append(Problem(self.filename, line, column, "", "too many problems; the rest was not read"))
            raise _Stop

    def note(self, offset: int, path: str, message: str) -> None:
        """A warning, however strictly the document is read."""
        if self.warn is not None:
            self.warn(Problem(self.filename, *self.source.place(offset), shown(path), message))

    def stop(self, offset: int, path: str, message: str) -> _Stop:
        line, column = self.source.place(offset) if offset >= 0 else (0, 0)
        self.problems.append(Problem(self.filename, line, column, shown(path), message))
        return _Stop()

    def value(self, use: Use, text: str, offset: int, path: str, attribute: str = "") -> Any:
        try:
            value = use.simple.parse(text)
            return value if use.field.skip is None or value != use.field.skip else use.field.initial()
        except ValueError as error:
            message = f"{quoted(text)} {error}" if text.strip(BLANK) else f"is empty; expected {use.simple.expected}"
            if use.simple.words:
                message += suggestion(text.strip(BLANK), list(use.simple.words))
            where = self.source.attribute_place(offset, attribute) if attribute else self.source.text_place(offset)
            self.problem(where, path, message)
            return _BAD

    # -- the parse -------------------------------------------------------------------------------------------

    def run(self, table: dict[str, dict[str, type[Element]]]) -> Any:
        parser = pyexpat.ParserCreate("UTF-8")
        parser.ordered_attributes = True
        parser.buffer_text = True
        limits = self.limits
        data = self.source.data
        no_scope: dict[str, str] = {"xml": "http://www.w3.org/XML/1998/namespace", "": "", **self.namespaces}
        scope = no_scope
        scopes: list[tuple[int, dict[str, str]]] = []
        # A frame: node, owner, text pieces, offset, path, keys seen, counters of repeated children, unit, slot
        stack: list[list[Any]] = []
        owners: list[_Owner] = []
        skip = 0  # depth inside what is not mapped
        keep = False  # ... and is kept verbatim
        outside: dict[str, str] = {}  # prefixes a kept fragment uses from around it
        inner = no_scope
        skip_offset = 0
        count = length = 0
        result: Any = None

        def open_scope(attributes: list[str]) -> None:
            nonlocal scope
            fresh = None
            for index in range(0, len(attributes), 2):
                name = attributes[index]
                if name[:5] == "xmlns" and (len(name) == 5 or name[5] == ":"):
                    if fresh is None:
                        fresh = dict(scope)
                        scopes.append((len(stack) + skip, scope))
                    prefix, uri = name[6:], attributes[index + 1]
                    if prefix and (not uri or prefix in ("xml", "xmlns") or uri == XMLNS):
                        self.problem(
                            parser.CurrentByteIndex, "", f"the prefix {quoted(prefix)} cannot mean {quoted(uri)}"
                        )
                    fresh[prefix] = uri
            if fresh is not None:
                scope = fresh

        def resolve(name: str, is_attribute: bool = False) -> str:
            prefix, colon, local = name.rpartition(":")
            if not colon:
                uri = "" if is_attribute else scope[""]
                return f"{{{uri}}}{name}" if uri else name
            uri = scope.get(prefix, "")
            if not uri or ":" in prefix or not local:
                path = stack[-1][4] if stack else ""
                self.problem(
                    parser.CurrentByteIndex,
                    f"{path}/{shown(name)}",
                    f"the prefix {quoted(prefix)} is not declared; add xmlns:{shown(prefix, 40)}='...'",
                )
                return name
            return f"{{{uri}}}{local}"

        def kept_prefixes(tag: str, attributes: list[str]) -> None:
            for name in (tag, *attributes[::2]):
                prefix, colon, _ = name.rpartition(":")
                if colon and prefix not in ("xmlns", "xml"):
                    resolve(name)
                    if prefix in inner and scope.get(prefix) == inner[prefix]:
                        outside[prefix] = inner[prefix]

        def start(tag: str, attributes: list[str]) -> None:
            nonlocal count, skip, keep, skip_offset, inner, length
            count += 1
            offset = parser.CurrentByteIndex
            if count > limits.elements:
                raise self.stop(offset, "", f"more than {limits.elements} elements")
            if len(stack) + skip >= limits.depth:
                raise self.stop(offset, "", f"elements are nested more than {limits.depth} deep")
            if len(attributes) > 2 * limits.attributes:
                raise self.stop(offset, "", f"more than {limits.attributes} attributes on one element")
            for index in range(1, len(attributes), 2):
                if len(attributes[index]) > limits.text:
                    raise self.stop(offset, "", f"an attribute is longer than {limits.text} characters")
            if skip:
                open_scope(attributes)
                skip += 1
                if keep:
                    kept_prefixes(tag, attributes)
                return
            before = scope
            if attributes:
                open_scope(attributes)
            key = resolve(tag) if ":" in tag or scope[""] else tag
            if not stack:
                body = self.root(table, key, tag, attributes, offset)
                owner = _Owner(body, offset, "/" + tag)
                owners.append(owner)
                frame = [body, owner, "", offset, owner.path, set(), {}, "", None]
            else:
                above = stack[-1]
                node = above[0].kids.get(key)
                path = f"{above[4]}/{tag}"
                owner = above[1]
                if node is None:
                    skip, skip_offset, keep = 1, offset, False
                    body = above[0]
                    if body.rest is not None and (key == "metadata" or body.foreign(key)):
                        keep, inner = True, before
                        outside.clear()
                        kept_prefixes(tag, attributes)
                    elif key in stack[0][0].cls.spare.get(above[4][len(stack[0][4]) + 1 :], ()):
                        self.note(offset, path, _SPARE)
                    elif key[0] == "{" or ":" not in key:  # an undeclared prefix has been told
                        self.unknown(offset, path, tag, key, above[0])
                    return
                spare = stack[0][0].cls.spare_types
                if spare and _type_of(attributes) in spare.get(path[len(stack[0][4]) + 1 :], ()):
                    skip, keep = 1, False
                    self.note(offset, path, _SPARE)
                    return
                if node.many:
                    number = above[6][key] = above[6].get(key, 0) + 1
                    if number > 1:
                        path = f"{path}[{number}]"
                elif key in above[5]:
                    skip, keep = 1, False
                    self.problem(offset, path, "is given twice; only the first counts", soft=True)
                    return
                above[5].add(key)
                body = node
                if node.use is not None:
                    kind = None
                    if len(node.bodies) > 1 or "" not in node.bodies:
                        kind = _type_of(attributes)
                    chosen = node.body(kind)
                    if chosen is None:
                        skip, keep = 1, False
                        owner.values[node.use.name] = _BAD
                        self.wrong_type(offset, path, kind, sorted(filter(None, node.bodies)))
                        return
                    body = chosen
                    owner = _Owner(body, offset, path)
                    owners.append(owner)
                elif node.flag is not None:
                    if node.word:
                        owner.values.setdefault(node.flag.name, set()).add(node.word)
                    else:
                        owner.values[node.flag.name] = True
                frame = [body, owner, "", offset, path, set(), {}, "", node]
            stack.append(frame)
            if attributes:
                self.attributes(frame, attributes, resolve)

        def end(tag: str) -> None:
            nonlocal skip, scope, result, keep, length
            if skip:
                skip -= 1
                if not skip and keep:
                    stack[-1][1].rest.append(self.source.fragment(skip_offset, parser.CurrentByteIndex, outside))
                    keep = False
                if not skip:
                    length = 0
            else:
                body, owner, text, offset, path, _, _, unit, slot = stack.pop()
                length = 0
                use = body.text
                if use is not None:
                    self.text(owner, use, text, offset, path, unit)
                elif text and text.strip(BLANK):
                    self.problem(
                        self.source.text_place(offset),
                        path,
                        f"takes no text, found {quoted(text.strip(BLANK))}",
                        soft=True,
                    )
                if body.cls is not None:
                    owners.pop()
                    made = self.finish(owner)
                    if stack:
                        holder = stack[-1][1]
                        if made is _ABSENT or (body.cls.omit_empty and slot.use.optional and made == body.cls()):
                            pass  # printed as nothing, so it is nothing
                        elif slot.many:
                            holder.values.setdefault(slot.use.name, []).append(made)
                        else:
                            holder.values[slot.use.name] = made
                    else:
                        result = made
            while scopes and scopes[-1][0] >= len(stack) + skip:
                scope = scopes.pop()[1]

        def chars(text: str) -> None:
            nonlocal length
            length += len(text)
            if length > limits.text:
                path = stack[-1][4] if stack else ""
                raise self.stop(parser.CurrentByteIndex, path, f"a text is longer than {limits.text} characters")
            if not skip:
                stack[-1][2] += text

        def doctype(*_: object) -> None:
            start = data.rfind(b"<!DOCTYPE", 0, parser.CurrentByteIndex + 1)
            raise self.stop(start, "", "a DOCTYPE is not allowed; remove it")

        def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
            if not _declared_encoding(encoding):
                raise self.stop(
                    0, "", f"the encoding {quoted(encoding or '')} is not supported; save the document as UTF-8"
                )

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = chars
        parser.StartDoctypeDeclHandler = doctype
        parser.XmlDeclHandler = declaration
        try:
            parser.Parse(data, True)
        except _Stop:
            return None
        except pyexpat.ExpatError as error:
            self.malformed(error, parser, stack)
            return None
        return result

    def malformed(self, error: pyexpat.ExpatError, parser: Any, stack: list[list[Any]]) -> None:
        """expat's own complaint in words, with the element that is open."""
        text = str(pyexpat.ErrorString(error.code) or "not well-formed")
        if self.source.data.isspace() or not self.source.data:
            self.problems.append(Problem(self.filename, 0, 0, "", "the document is empty"))
            return
        path = ""
        if stack:
            path = stack[-1][4]
            line = self.source.place(stack[-1][3])[0]
            if error.code in (3, 7) or text in ("no element found", "mismatched tag"):
                text = f"<{path.rpartition('/')[2].partition('[')[0]}> of line {line} is not closed"
        offset = min(parser.ErrorByteIndex, len(self.source.data))
        line, column = self.source.place(offset)
        self.problems.append(Problem(self.filename, line, column, shown(path), f"not well-formed XML: {text}"))

    def root(
        self, table: dict[str, dict[str, type[Element]]], key: str, tag: str, attributes: list[str], offset: int
    ) -> Node:
        kinds = table.get(key)
        if kinds is None:
            names = ", ".join(f"<{name}>" for name in sorted(table))
            uri, _, bare = key.removeprefix("{").rpartition("}")
            if uri and bare in table:
                raise self.stop(
                    offset,
                    f"/{shown(tag)}",
                    f"is in the namespace '{shown(uri)}', and <{bare}> is in none: leave it out",
                )
            raise self.stop(
                offset,
                f"/{shown(tag)}",
                f"is not a document for this place; expected {names}{suggestion(tag, list(table))}",
            )
        if "" in kinds:
            return compile_class(kinds[""])
        kind = next((attributes[i + 1] for i in range(0, len(attributes), 2) if attributes[i] == "type"), None)
        if kind is None or kind not in kinds:
            self.wrong_type(offset, f"/{tag}", kind, sorted(kinds))
            raise _Stop
        return compile_class(kinds[kind])

    def wrong_type(self, offset: int, path: str, kind: str | None, known: list[str]) -> None:
        listed = ", ".join(known)
        if kind is None:
            self.problem(offset, f"{path}/@type", f"is missing; expected one of {listed}")
        else:
            where = self.source.attribute_place(offset, "type")
            message = f"{quoted(kind)} is not one of {listed}{suggestion(kind, known)}"
            self.problem(where, f"{path}/@type", message)

    def unknown(self, offset: int, path: str, tag: str, key: str, node: Node) -> None:
        known = [kid.name for kid in node.kids.values()]
        space = key[1:].partition("}")[0] if key[0] == "{" else ""
        spaces = sorted({kid.uri for kid in node.kids.values() if kid.uri})
        if space and space not in spaces and node.rest is not None:
            message, known = f"unknown name space {quoted(space)}", spaces
            tag = space
        elif key[0] == "{":
            message = "unknown element; one of another name space is kept only directly below the root"
        elif known:
            message = f"unknown element; expected {'one of ' if len(known) > 1 else ''}{', '.join(known)}"
        else:
            message = "unknown element; none is expected here"
        self.problem(offset, path, message + suggestion(tag, known), soft=True)

    def attributes(self, frame: list[Any], attributes: list[str], resolve: Callable[[str, bool], str]) -> None:
        body, owner, _, offset, path = frame[:5]
        known = body.attrs
        for index in range(0, len(attributes), 2):
            name = attributes[index]
            use = known.get(name)
            if use is not None:
                owner.values[use.name] = self.value(use, attributes[index + 1], offset, f"{path}/@{name}", name)
            elif name == "unit" and body.text is not None and body.text.sized:
                text = attributes[index + 1]
                try:
                    frame[7] = Unit.parse(text)
                except ValueError as error:
                    self.problem(self.source.attribute_place(offset, name), f"{path}/@unit", f"{quoted(text)} {error}")
                    frame[7] = None
            elif (name == "type" and body.cls is not None and body.cls.xml_kind) or name[:5] == "xmlns":
                continue
            else:
                if ":" in name:
                    resolve(name, True)
                names = [*known, *(["unit"] if body.text is not None and body.text.sized else [])]
                if body.cls is not None and body.cls.xml_kind:
                    names.insert(0, "type")
                listed = (
                    f"expected {'one of ' if len(names) > 1 else ''}{', '.join(names)}"
                    if names
                    else "none is expected here"
                )
                self.problem(
                    self.source.attribute_place(offset, name),
                    f"{path}/@{shown(name)}",
                    f"unknown attribute; {listed}{suggestion(name, names)}",
                    soft=True,
                )

    def text(self, owner: _Owner, use: Use, text: str, offset: int, path: str, unit: str | None) -> None:
        needed = use.required and use.name != owner.body.cls.absent_without
        if not needed and not use.many and not text.strip(BLANK):
            return  # libvirt takes an empty element as absent
        value = self.value(use, text, offset, path)
        if unit and value is not _BAD and value is not None:
            value *= factor(unit)
            if value > LIMIT:
                self.problem(
                    self.source.text_place(offset), path, f"{quoted(text)} {shown(unit)} is more than 2^64 bytes"
                )
        elif unit is None:
            value = _BAD
        if use.many:
            owner.values.setdefault(use.name, []).append(value)
        else:
            owner.values[use.name] = value

    def finish(self, owner: _Owner) -> Any:
        """The object of ``owner``, or ``_BAD`` when something is wrong with it."""
        body, values = owner.body, owner.values
        cls = body.cls
        bad = False
        if cls.absent_without and cls.absent_without not in values:
            if values:
                word = cls.xml_fields[cls.absent_without].path
                self.note(owner.offset, owner.path, f"has no {word}, so it means nothing and was left out")
            return _ABSENT
        for name, value in values.items():
            if value is _BAD:
                bad = True
            elif type(value) is list:
                if any(one is _BAD for one in value):
                    bad = True
                values[name] = tuple(value)
            elif type(value) is set:
                simple = body.uses[name].simple
                values[name] = tuple(word for word in simple.words if word in value)
        for name, use in body.uses.items():
            field = use.field
            if len(values.get(name, ())) < field.min if use.many else (use.required and name not in values):
                bad = True
                self.problem(owner.offset, f"{owner.path}/{field.path}", f"is missing; expected {self.wanted(use)}")
        if body.rest is not None and owner.rest:
            values[body.rest.name] = tuple(owner.rest)
        if bad:
            return _BAD
        for rule in cls.rules:
            if not rule.holds({name: self.given(cls, values, name) for name in rule.fields}):
                self.problem(owner.offset, owner.path, rule.message)
                return _BAD
        for name, use in body.uses.items():
            if use.field.source and values.get(name) is None:
                values[name] = self.given(cls, values, use.field.source)
        complete = getattr(cls, "complete", None)
        if complete is not None:
            complete(values)
        return cls(**values)

    @staticmethod
    def given(kind: type[Element], values: dict[str, Any], name: str) -> Any:
        """The value of a dotted field, before defaults from other fields are filled in."""
        head, _, tail = name.partition(".")
        if head in values:
            value = values[head]
        else:
            field = kind.xml_fields[head]
            value = None if field.default is REQUIRED else field.initial()
        for part in tail.split(".") if tail else ():
            value = getattr(value, part, None)
        return value

    @staticmethod
    def wanted(use: Use) -> str:
        if use.simple is not None:
            return str(use.simple.expected)
        name = f"<{use.field.path.rpartition('/')[2]}>"
        return name if not use.many else f"at least {use.field.min or 1} {name}"
