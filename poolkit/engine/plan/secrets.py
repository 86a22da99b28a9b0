"""What is missing of the secrets that wanted pools and volumes name: a plan tells it before their turn comes, and they fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from poolkit.engine.plan.present import Present
from poolkit.engine.plan.task import Task
from poolkit.model import AuthSecret, VolumeSecret
from poolkit.xmlmap import Element


def lacking(definition: Element, present: Present, described: Sequence[Task]) -> str:
    """Which secrets a definition names that cannot serve when it is carried out, as a note; empty if all are there.

    ``described`` are the secrets with a document: what one defines is there by then, and what it wants to be absent is not.
    """
    return "; ".join(filter(None, (_lacks(one, present, described) for one in dict.fromkeys(named(definition)))))


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


def _lacks(said: AuthSecret | VolumeSecret, present: Present, described: Sequence[Task]) -> str:
    words = f"needs secret '{said.uuid or said.usage}', which"
    there = [one for one in present.secrets() if _is(said, one.definition)]
    meant = [task for task in described if task.present in there or (task.wanted and _is(said, task.wanted.definition))]
    if any(task.definition is None for task in meant):
        return f"{words} is to be absent"
    if not there and not meant:
        return f"{words} is not defined"
    if any(one.has_value for one in there) or any(task.definition.value is not None for task in meant):
        return ""
    return f"{words} has no value yet"


def _is(said: AuthSecret | VolumeSecret, secret: Any) -> bool:
    if said.uuid is not None:
        return bool(said.uuid == secret.uuid)
    return secret.usage is not None and secret.usage.id == said.usage
