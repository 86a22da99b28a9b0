"""Definitions of pools that do not exist yet, made of the sources that discovery found."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Any
from xml.sax.saxutils import escape

from poolkit import registry, xmlmap
from poolkit.documents import FoundSource


def proposed(type: str, found: Any, taken: Collection[str] = ()) -> Any:
    """A definition of a pool of ``type`` with the source ``found``, ready to be defined; its name is none of ``taken``.

    Name and target path are proposals; all else is the source's. ``InvalidDefinition`` where the type needs what discovery does
    not tell.
    """
    if not isinstance(found, FoundSource):  # the type gives whole definitions
        return xmlmap.replace(found, name=_free(found.name, taken))
    backend = registry.backend(type)
    name = _free(_name(found), taken)
    target = ""
    if backend.usual_target is not None:
        target = f"<target><path>{escape(backend.usual_target.format(name=name))}</path></target>"
    text = f"<pool type='{type}'><name>{escape(name)}</name>{xmlmap.write(found)}{target}</pool>"
    return xmlmap.read(text, [backend.definition], filename="what was found", strict=False)


def _name(found: FoundSource) -> str:
    """What tells the source from others, as far as it can be part of a name."""
    device = found.devices[0].path if found.devices else ""
    words = (
        found.name or os.path.basename((found.dir or "").rstrip("/")) or device.rpartition("/")[2].rpartition(":")[2]
    )
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", words).strip("-.") or "pool"


def _free(name: str, taken: Collection[str]) -> str:
    number, wanted = 1, name
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
