"""Records as hosts send them, made sure of: a field that is used is there and is of its type, or an error says which is not.

A host may be older than the data model, newer, or broken, and its database may hold what no version wrote. One record that
cannot be used is the fault of what it describes alone: whoever lists many passes over it, and says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from operator import itemgetter
from typing import Any

from poolkit import errors

Record = dict[str, Any]

_LARGEST = (1 << 63) - 1  # an int of XenAPI has 64 bits
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")

# The fields that are used, and the types that the data model gives them. A map has texts; a table may have anything.
_FIELDS = {
    "SR": "uuid:uuid name_label:text type:text shared:bool PBDs:set physical_size:int physical_utilisation:int"
    " virtual_allocation:int other_config:map sm_config:map",
    "PBD": "uuid:uuid host:text SR:text currently_attached:bool other_config:map",
    "VDI": "uuid:uuid name_label:text SR:text VBDs:set virtual_size:int physical_utilisation:int type:text location:text"
    " managed:bool missing:bool read_only:bool is_a_snapshot:bool other_config:map sm_config:map allowed_operations:set",
    "VBD": "uuid:uuid VM:text currently_attached:bool other_config:map",
    "VM": "uuid:uuid power_state:text guest_metrics:text",
    "SM": "type:text features:table capabilities:set configuration:map",
    "host": "uuid:uuid name_label:text hostname:text address:text enabled:bool",
    "pool": "master:text default_SR:text",
    "task": "name_label:text status:text progress:float result:text error_info:set",
}
_TYPES = {"uuid": str, "text": str, "bool": bool, "int": int, "float": float, "set": list, "map": dict, "table": dict}
_WORDS = {
    "uuid": "a uuid", "text": "a text", "bool": "true or false", "int": "a number of 64 bits", "float": "a number",
    "set": "a list of texts", "map": "texts by name", "table": "values by name",
}  # fmt: skip


class Unusable(errors.HostError):
    """A record of a host lacks a field, or has what that field cannot be. Nothing was done with it."""

    @property
    def code(self) -> str:
        """As its base: what it is called is nobody's affair."""
        return "host-error"


class _Shape:
    """The fields of a class: what a record of it must have."""

    def __init__(self, fields: str) -> None:
        self.kinds = dict(field.split(":") for field in fields.split())
        self.values = itemgetter(*self.kinds)
        self.needs = [(_TYPES[kind], _CLOSER.get(kind)) for kind in self.kinds.values()]

    def holds(self, raws: Iterable[Any]) -> bool:
        """Whether all of these records have all fields, each as it must be. It goes by fields, in few steps for many records."""
        try:
            columns = zip(*map(self.values, raws), strict=True)
            return all(
                {*map(type, column)} == {kind} and (closer is None or closer(column))
                for (kind, closer), column in zip(self.needs, columns, strict=False)
            )
        except (KeyError, TypeError):
            return False


def _texts(values: Iterable[Iterable[Any]]) -> bool:
    """Whether all that these have are texts; ``TypeError`` where one is not."""
    "".join(chain.from_iterable(values))
    return True


_CLOSER: dict[str, Callable[[Collection[Any]], bool]] = {
    "uuid": lambda values: all(map(_UUID.fullmatch, values)),
    "int": lambda values: min(values) >= -_LARGEST and max(values) <= _LARGEST,
    "float": lambda values: all(map(math.isfinite, values)),
    "set": _texts,
    "map": lambda values: _texts(map(dict.values, values)),
}
_SHAPES = {cls: _Shape(fields) for cls, fields in _FIELDS.items()}


class _Odd(dict[str, Any]):
    """A record of which not all can be used; asked for what cannot be, it raises ``Unusable``."""

    def __init__(self, cls: str, raw: Any, ref: str, pool: str, where: str) -> None:
        super().__init__(raw if isinstance(raw, dict) else {})
        self._who, self._pool = f"{cls} {self.get('uuid') or ref}"[:120], pool
        self._where = where
        self._faults: dict[str, str] = {}
        for name, kind in _SHAPES[cls].kinds.items():
            if name in self and (found := _meant(kind, self[name])) is not None:
                self[name] = found
            elif name in self:
                said = repr(self.pop(name))
                said = said if len(said) <= 60 else f"{said[:60]}..."
                self._faults[name] = f"has {said} as the field '{name}', which is to be {_WORDS[kind]}"

    def __missing__(self, field: str) -> Any:
        fault = self._faults.get(field, f"lacks the field '{field}'")
        raise Unusable(
            f"pool '{self._pool}': the record of {self._who} at {self._where} {fault}", pool=self._pool,
            hint="look at it there, with xe; the host may be older than what poolkit knows, or its database damaged",
        )  # fmt: skip


def _meant(kind: str, value: Any) -> Any:
    """A value of a field as its type has it, None for what cannot be. XML-RPC writes an int as a text of digits."""
    if kind == "int" and type(value) is str and value.removeprefix("-").isdecimal() and len(value) <= 20:
        value = int(value)
    if kind == "float" and type(value) is int:
        value = float(value) if abs(value) <= _LARGEST else None
    try:
        closer = _CLOSER.get(kind)
        return value if type(value) is _TYPES[kind] and (closer is None or closer((value,))) else None
    except TypeError:
        return None


def checked(cls: str, raw: Any, ref: str, pool: str, where: str) -> Record:
    """A record of ``cls`` whose fields, as they are asked for, are what they must be: or ``Unusable`` is raised then.

    ``ref``, ``pool`` and ``where``, which is the host, are for messages. Ints are ints, in whatever they came.
    """
    return raw if _SHAPES[cls].holds((raw,)) else _Odd(cls, raw, ref, pool, where)


def all_checked(cls: str, raws: Mapping[str, Any], pool: str, where: str) -> Mapping[str, Record]:
    """Each of the records, by their references, as ``checked``; where all are in order, which is the rule, at once."""
    if _SHAPES[cls].holds(raws.values()):
        return raws
    return {ref: checked(cls, raw, ref, pool, where) for ref, raw in raws.items()}


def usable(
    records: Iterable[tuple[str, Record]], fields: Iterable[str], warn: Callable[[str], object]
) -> Iterator[tuple[str, Record]]:
    """Those of references and records of which all ``fields`` can be used; one warning tells of the others."""
    left, first = 0, ""
    needed = tuple(fields)
    for ref, record in records:
        if isinstance(record, _Odd):
            try:
                for field in needed:
                    record[field]
            except Unusable as error:
                left, first = left + 1, first or str(error)
                continue
        yield ref, record
    if left:
        warn(f"{first}; it is passed over" + (f", and so are {left - 1} more" if left > 1 else ""))
