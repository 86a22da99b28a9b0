"""Wanted against present, by meaning: what a document does not say is as the storage has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from poolkit import xmlmap
from poolkit.backend import Backend
from poolkit.engine.plan.entries import Change, When
from poolkit.xmlmap import Element

_ALIKE = {"iso": "raw", "vhd": "vpc", "none": None}


def of_pool(old: Any, wanted: Any, *, active: bool) -> Iterator[Change]:
    """How the definition of a pool differs; ``active`` pools take up what is acted on when they are started the next time."""
    if old.type != wanted.type:  # two classes have no fields to compare
        yield Change("type", old.type, wanted.type, "next-start" if active else "now")
        return
    for field, before, after in xmlmap.diff(old, wanted):
        when: When = "next-start" if active and _acted(type(wanted), field) else "now"
        yield Change(field, before, after, when)


def _acted(cls: Any, path: str) -> bool:
    """Whether the storage is touched by a value; what is only kept and printed is in force as soon as it is stored."""
    from poolkit.xmlmap.tree import Use

    for part in path.split("."):
        field = cls.xml_fields.get(part) if isinstance(cls, type) and issubclass(cls, Element) else None
        if field is None:
            return True
        if field.effect is not None:
            return bool(field.effect == "acted")
        classes = Use(field).classes
        cls = classes[0] if len(classes) == 1 else None
    return True


def of_volume(wanted: Any, present: Any, backend: Backend, place: str | None) -> Iterator[Change]:
    """How a volume differs from its document; ``present`` is what the storage tells, as a document.

    Sizes are those that the backend makes of the wanted ones. Space in use, labels, and how the volume was laid out when it
    was made are no differences.
    """
    if present.type == "dir" and wanted.type != "dir" and wanted.target.format != "dir":
        # Whatever else differs is the directory's own.
        yield Change("target.format", "dir", wanted.target.format or "raw", "replace")
        return
    size = backend.capacity_of(wanted)
    if size is not None and size != present.capacity:
        yield Change("capacity", present.capacity, size, "now" if size > present.capacity else "shrink")
    target, has = wanted.target, present.target
    format = _ALIKE.get(target.format, target.format)
    there = _ALIKE.get(has.format, has.format)
    if format == "luks":  # libvirt has no such format: it is raw with encryption
        format = "raw"
    if format is not None and there is not None and format != there:
        yield Change("target.format", has.format, target.format, "replace")
    if present.type == "file":
        for field in ("mode", "owner", "group"):
            value = getattr(target.permissions, field)
            if value not in (None, -1, getattr(has.permissions, field)):
                when: When = "now" if "permit" in backend.verbs() else "replace"
                yield Change(f"target.permissions.{field}", getattr(has.permissions, field), value, when)
    if there == "qcow2":
        if target.compat is not None and target.compat != (has.compat or "0.10"):
            yield Change("target.compat", has.compat or "0.10", target.compat, "replace")
        if target.cluster_size is not None and target.cluster_size != has.cluster_size:
            yield Change("target.cluster_size", has.cluster_size, target.cluster_size, "replace")
        if not set(target.feature_words) <= set(has.feature_words):
            yield Change("target.features", has.feature_words, target.feature_words, "replace")
    yield from _encryption(target.encryption, has.encryption)
    if wanted.content is None and backend.file_backed:
        yield from _backing(wanted.backing_store, present.backing_store, place)


def _encryption(wanted: Any, has: Any) -> Iterator[Change]:
    if (wanted is None) != (has is None):
        yield Change("target.encryption", has, wanted, "replace")
    elif wanted is not None and wanted.format != has.format:
        kin = {"luks": {"luks", "luks1", "luks-any", "default"}, "luks2": {"luks2", "luks-any", "default"}}
        if wanted.format not in kin.get(has.format, {has.format, "default"}):
            yield Change("target.encryption.format", has.format, wanted.format, "replace")


def _backing(wanted: Any, has: Any, place: str | None) -> Iterator[Change]:
    if wanted is None or has is None:
        if wanted is not has:
            yield Change("backing_store", has, wanted, "replace")
        return
    meant = wanted.path
    if "://" not in meant and place is not None:
        meant = os.path.normpath(os.path.join(place, meant))
    if meant != (has.path if "://" in has.path else os.path.normpath(has.path)):
        yield Change("backing_store.path", has.path, wanted.path, "replace")
    elif wanted.format is not None and has.format is not None and wanted.format != has.format:
        yield Change("backing_store.format", has.format, wanted.format, "replace")
