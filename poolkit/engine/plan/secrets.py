"""What is missing of the secrets that wanted pools and volumes name: a plan tells it before their turn comes, and they fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from poolkit.engine.plan.descriptions import absent
from poolkit.engine.plan.present import Present
from poolkit.engine.plan.sources import Wanted
from poolkit.model import AuthSecret, VolumeSecret
from poolkit.xmlmap import Element


def lacking(definition: Element, present: Present, documents: Sequence[Wanted]) -> str:
    """Which secrets a definition names that cannot serve when it is carried out, as a note; empty if all are there.

    ``documents`` are those of secrets: what they define is there by then, and what they want to be absent is not.
    """
    return "; ".join(filter(None, (_lacks(one, present, documents) for one in dict.fromkeys(named(definition)))))


def named(value: Any) -> Iterator[AuthSecret | VolumeSecret]:
    """Every mention of a secret in a definition."""
    if isinstance(value, (AuthSecret, VolumeSecret)):
        yield value
    elif isinstance(value, Element):
        for name in type(value).xml_fields:
            yield from named(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from named(one)


def _lacks(said: AuthSecret | VolumeSecret, present: Present, documents: Sequence[Wanted]) -> str:
    words = f"needs secret '{said.uuid or said.usage}', which"
    there = [one for one in present.secrets() if _is(said, one.uuid, one.definition.usage)]
    meant = [one for one in documents if _is(said, one.definition.uuid, one.definition.usage) or _of(one, there)]
    if any(absent(one) for one in meant):
        return f"{words} is to be absent"
    if not there and not meant:
        return f"{words} is not defined"
    if any(one.has_value for one in there) or any(one.definition.value is not None for one in meant):
        return ""
    return f"{words} has no value yet"


def _is(said: AuthSecret | VolumeSecret, uuid: str | None, usage: Any) -> bool:
    if said.uuid is not None:
        return said.uuid == uuid
    return usage is not None and usage.id == said.usage


def _of(one: Wanted, there: Iterable[Any]) -> bool:
    """Whether a document is that of a secret that is there."""
    uuid, usage = one.definition.uuid, one.definition.usage
    return any(old.uuid == uuid or (usage is not None and old.definition.usage == usage) for old in there)
