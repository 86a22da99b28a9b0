"""Mapped classes: a field is a declaration, an object is a value.

    class SourceHost(Element):
        name: str = xml("@name", type=Host, doc="...")
        port: int | None = xml("@port", type=Port, default=None, doc="...")

An ``Element`` is frozen, has keyword arguments only, ``__slots__``, equality over its comparable fields, a hash and a
``repr`` without defaults. ``replace`` makes a changed copy; ``dataclasses.replace``, ``fields`` and ``asdict`` work as
well. It is not made by ``dataclasses``, because that costs 0.4 ms per class at import, plus the import of ``inspect``;
here a class costs some 20 us and its methods are compiled when they are used often.
"""

from __future__ import annotations

from ..lean import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    from .rules import Rule
    from .simple import Simple

    E = TypeVar("E", bound="Element")
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """At run time the mark for type checkers costs nothing."""
        return lambda cls: cls


REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED", "__slots__": ()})()
"""The default of a field that has none."""


Effect = Literal["acted", "kept", "reported"]


class Field:
    """One mapped item: where it is in the XML, what it holds, how it is documented. Made by ``xml``."""

    __slots__ = (
        "always",
        "beside",
        "default",
        "doc",
        "effect",
        "fallback",
        "foreign",
        "max",
        "min",
        "name",
        "owner",
        "path",
        "reported",
        "since",
        "skip",
        "source",
        "type",
        "unit",
    )

    name: str
    owner: ElementMeta
    type: Simple | None
    default: Any
    doc: str
    effect: Effect | None
    since: str
    min: int
    max: int | None
    reported: bool
    beside: bool
    always: bool
    skip: Any
    fallback: Any
    source: str
    unit: str
    foreign: bool

    def __init__(
        self, path: str, type: Simple | None, default: Any, doc: str, since: str, effect: Effect | None, min: int,
        max: int | None, reported: bool, beside: bool, always: bool, skip: Any, fallback: Any, source: str, unit: str,
        foreign: bool,
    ) -> None:  # fmt: skip
        self.path, self.type, self.default, self.doc, self.since, self.effect = path, type, default, doc, since, effect
        self.min, self.max, self.reported, self.beside, self.always = min, max, reported, beside, always
        self.skip, self.fallback, self.source, self.unit, self.foreign = skip, fallback, source, unit, foreign

    @property
    def compare(self) -> bool:
        """Whether the value counts in equality: it is part of what is defined."""
        return not (self.reported or self.beside)

    def initial(self) -> Any:
        """The default value; a class given as default stands for its empty instance."""
        default = self.default
        if isinstance(default, ElementMeta):
            default = self.default = default()
        return default


def xml(
    path: str,
    *,
    type: Simple | None = None,
    default: Any = REQUIRED,
    doc: str,
    since: str = "",
    effect: Effect | None = None,
    min: int = 0,
    max: int | None = None,
    reported: bool = False,
    beside: bool = False,
    always: bool = False,
    skip: Any = None,
    fallback: Any = None,
    source: str = "",
    unit: str = "bytes",
) -> Any:
    """Declare a field of an ``Element``.

    ``path`` is relative to the class's element: ``"name"``, ``"@type"``, ``"dir/@path"``, ``"fs:mount_opts/fs:option"``; ``"."``
    is the element's own text. ``type`` is a ``Simple`` type where the hint alone does not say it. ``min`` and ``max``
    count a ``tuple``. ``default`` without a value makes the field required; an ``Element`` class stands for its empty
    instance. Two words say that a value does not count in equality: ``reported``, it is found and told, and nobody defines
    it; ``beside``, it goes with a definition and is no part of it. ``always``: the element is printed even when it is
    empty. ``skip``: a value that is not printed. ``fallback``: the dotted field that is printed when this one is None (or
    a constant). ``source``: the dotted field a missing value is read from. ``unit`` is the unit printed with a size.
    ``effect`` says what a value does: ``acted``, a verb acts on it or refuses it; ``kept``, it is information that is
    read, kept and printed. A field of values needs it unless it is reported or the class says it; on a field of an
    ``Element`` it speaks for all below.
    ``doc`` is a sentence for the reference, ``since`` libvirt's version.
    """
    return Field(
        path, type, default, doc, since, effect, min, max, reported, beside, always, skip, fallback, source, unit, False
    )


def foreign(*, default: tuple[str, ...], doc: str) -> Any:
    """Declare the field that keeps ``<metadata>`` and elements of other namespaces, verbatim, as ``tuple[str, ...]``.

    ``default`` is for type checkers, who take a field without one for one that must be given.
    """
    return Field(
        "metadata",
        type=None,
        default=default,
        doc=doc,
        since="",
        effect="kept",
        min=0,
        max=None,
        reported=False,
        beside=False,
        always=False,
        skip=None,
        fallback=None,
        source="",
        unit="",
        foreign=True,
    )


class _DataclassFields:
    """``__dataclass_fields__``, made when ``dataclasses`` asks for it, so that importing it costs nothing before."""

    def __get__(self, obj: object, owner: ElementMeta) -> dict[str, Any]:
        import dataclasses

        made: dict[str, Any] = {}
        for name, field in owner.xml_fields.items():
            one: Any = dataclasses.field(compare=field.compare, kw_only=True)
            one.name, one.type = name, field.owner.__annotations__[name]
            if field.default is not REQUIRED:
                one.default = field.initial()
            one._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
            made[name] = one
        return made


class ElementMeta(type):
    """Collects the fields of a class and gives them slots."""

    xml_fields: dict[str, Field]
    xml_kind: str = ""

    def __new__(mcls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> ElementMeta:
        """Make the class; a field declared again keeps its place."""
        fields: dict[str, Field] = {}
        for base in bases:
            fields.update(getattr(base, "xml_fields", {}))
        known = set(fields)
        own = {key: value for key, value in space.items() if isinstance(value, Field)}
        for key, field in own.items():
            del space[key]
            field.name = key
            fields[key] = field
        space["__slots__"] = tuple(key for key in own if key not in known)
        space["xml_fields"] = fields
        if "type" in fields:  # a field of its own and not the mark that tells classes apart
            space["xml_kind"] = ""
        elif isinstance(space.get("type"), str):
            space["xml_kind"] = space["type"]
        # Each class compiles its own when it is first used: one that is inherited would know the base's fields alone.
        space.setdefault("__init__", _first_init)
        space.setdefault("_key", _first_key)
        cls = super().__new__(mcls, name, bases, space)
        for field in own.values():
            field.owner = cls
        return cls


def _compile_init(cls: ElementMeta) -> Callable[..., None]:
    """``__init__`` of one class: keyword arguments into slots, as fast as Python allows."""
    space: dict[str, Any] = {}
    params, lines = [], []
    for index, (name, field) in enumerate(cls.xml_fields.items()):
        space[f"set{index}"] = getattr(cls, name).__set__
        if field.default is REQUIRED:
            params.append(name)
        else:
            space[f"default{index}"] = field.initial()
            params.append(f"{name}=default{index}")
        lines.append(f" set{index}(self, {name})\n")
    star = "*, " if params else ""
    exec(f"def __init__(self, {star}{', '.join(params)}):\n{''.join(lines) or ' pass'}", space)  # noqa: S102
    return space["__init__"]  # type: ignore[no-any-return]


_FEW = 3
"""Objects of a class that are made before its ``__init__`` is compiled, which takes as long as ten of them."""
_made: dict[type, int] = {}


def _first_init(self: Any, **values: Any) -> None:
    cls: Any = type(self)
    fields = cls.xml_fields
    count = _made[cls] = _made.get(cls, 0) + 1
    if count > _FEW or not values.keys() <= fields.keys():
        cls.__init__ = _compile_init(cls)
        cls.__init__(self, **values)
        return
    put = object.__setattr__
    for name, field in fields.items():
        if name in values:
            put(self, name, values[name])
        elif field.default is REQUIRED:
            _compile_init(cls)(self, **values)  # it knows the words for what is missing
        else:
            put(self, name, field.initial())


def _first_key(self: Any) -> Any:
    from operator import attrgetter

    cls = type(self)
    names = [name for name, field in cls.xml_fields.items() if field.compare]
    fields: Any = attrgetter(*names) if names else lambda _: ()

    def get(self: Element) -> Any:  # a plain function, because attrgetter would not bind
        return fields(self)

    cls._key = get
    return get(self)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(xml, foreign))
class Element(metaclass=ElementMeta):
    """The root of all mapped classes; see the module's text.

    Class attributes: ``tag`` is the name of the element where the class stands for a whole document; ``type`` the value
    of its ``type`` attribute, which tells classes with one tag apart; ``type_optional`` says that a missing attribute
    means this class; ``namespaces`` maps prefixes declared on the root element to their names, ``local_namespaces``
    those declared where they are used; ``rules`` are conditions between fields; ``effect`` is that of the fields of the
    class and of all below it, but for those of its own that say theirs (see ``xml``); ``spare`` maps places below the root
    to elements that libvirt's parser takes there although they mean nothing: they are left out with a warning, and no error;
    ``spare_types`` maps places of elements that mean something to the values of their ``type`` that mean nothing there;
    ``absent_without`` is the field without which the element counts as not there; ``holds`` are the elements of whole
    documents that stand in this one, in any order and number, for the grammars: each is read by itself.
    """

    tag: ClassVar[str] = ""
    type_optional: ClassVar[bool] = False
    namespaces: ClassVar[dict[str, str]] = {}
    local_namespaces: ClassVar[dict[str, str]] = {}
    rules: ClassVar[tuple[Rule, ...]] = ()
    block: ClassVar[bool] = False
    omit_empty: ClassVar[bool] = False
    effect: ClassVar[Effect | None] = None
    spare: ClassVar[dict[str, tuple[str, ...]]] = {}
    spare_types: ClassVar[dict[str, tuple[str, ...]]] = {}
    absent_without: ClassVar[str] = ""
    holds: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:
        xml_kind = ""
        __dataclass_fields__ = _DataclassFields()

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{type(self).__name__} is frozen; use replace(obj, {name}=...)")

        def __delattr__(self, name: str) -> None:
            raise AttributeError(f"{type(self).__name__} is frozen")

    if TYPE_CHECKING:

        def _key(self) -> Any: ...

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self is other or bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, field in type(self).xml_fields.items()
            if field.default is REQUIRED or getattr(self, name) != field.initial()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {name: getattr(self, name) for name in type(self).xml_fields})

    def __replace__(self: E, **changes: Any) -> E:
        return replace(self, **changes)


def _rebuild(cls: Callable[..., Any], values: dict[str, Any]) -> Any:
    return cls(**values)


def replace(obj: E, **changes: Any) -> E:
    """A copy of ``obj`` with some fields changed. Raises ``TypeError`` for a field it does not have."""
    cls = type(obj)
    for name in cls.xml_fields:
        if name not in changes:
            changes[name] = getattr(obj, name)
    return cls(**changes)


def diff(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """What differs between two definitions of one class: ``(dotted field, old value, new value)``.

    Fields that do not count in equality are left out; objects of two classes differ as a whole.
    """
    if type(old) is not type(new) or not isinstance(old, Element):
        return [] if old == new else [(path, old, new)]
    found: list[tuple[str, Any, Any]] = []
    for name, field in type(old).xml_fields.items():
        if field.compare:
            found += diff(getattr(old, name), getattr(new, name), f"{path}.{name}" if path else name)
    return found


def without_reports(obj: E) -> E:
    """A copy with every field that is ``reported`` at its default, at every depth.

    Figures such as the capacity of a pool, which a dump carries, are gone; what goes with the definition stays.
    """
    return _without(obj, lambda field: field.reported)


def definition_alone(obj: E) -> E:
    """A copy with every field that does not count in equality at its default, at every depth: what is defined, and no more."""
    return _without(obj, lambda field: not field.compare)


def without_own(obj: E) -> E:
    """A copy with every field that stands in a name space of the class's own at its default: what others can read of it."""
    own = tuple(f"{prefix}:" for prefix in type(obj).local_namespaces)
    return _without(obj, lambda field: field.path.startswith(own)) if own else obj


def own_fields(obj: Element) -> list[str]:
    """The paths of the fields with a value that :func:`without_own` leaves out."""
    own = tuple(f"{prefix}:" for prefix in type(obj).local_namespaces)
    return list(_beginning(obj, own)) if own else []


def _beginning(obj: Element, own: tuple[str, ...]) -> Iterator[str]:
    for name, field in type(obj).xml_fields.items():
        value = getattr(obj, name)
        if field.path.startswith(own):
            if value != field.initial():
                yield field.path
        elif isinstance(value, Element):
            yield from _beginning(value, own)


def _without(obj: E, drops: Callable[[Field], bool]) -> E:
    changes: dict[str, Any] = {}
    for name, field in type(obj).xml_fields.items():
        value = getattr(obj, name)
        if drops(field):
            changes[name] = field.initial()
        elif isinstance(value, Element):
            changes[name] = _without(value, drops)
        elif isinstance(value, tuple) and value and isinstance(value[0], Element):
            changes[name] = tuple(_without(one, drops) for one in value)
    return replace(obj, **changes) if changes else obj
