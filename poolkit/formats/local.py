"""What the name of a backing image means, where it means a file of this host by one of QEMU's roundabout ways."""

from __future__ import annotations

import os
import re

from poolkit.formats._info import Backing

_ALIASES = {"parallels": "ploop", "vhd": "vpc"}
_FAT = re.compile(r"fat:(?:\d\d:)?(?:floppy:)?(?:rw:)?")
"""The prefix of QEMU's vvfat, which shows a directory as a disk: fat:[12:|16:|32:][floppy:][rw:]DIRECTORY."""


def known_format(said: str | None) -> str | None:
    """The format a header's word for its backing image means; as for libvirt, one that is none (``file``) is raw.

    Raw is the safe answer: it makes no program look into the content.
    """
    from poolkit.formats import FORMATS

    if said is None:
        return None
    name = _ALIASES.get(said, said)
    return name if name in FORMATS else "raw"


def meant(name: str, kind: str, format: str | None = None) -> tuple[str, str | None] | None:
    """Path and format of the local file that a stored name means; None for what is elsewhere or not understood.

    ``kind`` is ``Backing.kind``. Understood are plain paths, ``file:PATH``, ``file:///PATH``, ``fat:DIRECTORY`` and ``json:``
    with a node of driver file or host_device, directly or below a format's node. The path may be relative to the image's folder.
    """
    if kind == "file":
        return name, known_format(format)
    if kind == "json":
        found = _node(name[5:])
        return None if found is None else (found[0], known_format(format or found[1]))
    if kind == "protocol":
        if name.startswith("file:"):
            path = name[5:]
            if path.startswith("//"):
                # The authority of file: is empty or this host.
                host, _, path = path[2:].partition("/")
                path = f"/{path}" if host in ("", "localhost") else ""
            return (path, known_format(format)) if path else None
        if match := _FAT.match(name):
            path = name[match.end() :]
            return (path, "raw") if path else None
    return None


def file_of(backing: Backing) -> tuple[bytes, str | None] | None:
    """As ``meant``, of a record; the path in the bytes that the header has."""
    if backing.kind == "file":
        return backing.raw, known_format(backing.format)
    found = meant(backing.name, backing.kind, backing.format) if backing.clean else None
    return None if found is None else (os.fsencode(found[0]), found[1])


def beside(path: str, image: str) -> str:
    """``path`` as the image ``image`` means it, absolute. One that goes up is not shortened: its folder may be a link."""
    if path.startswith("/"):
        return path
    joined = f"{os.path.dirname(image)}/{path}"
    return joined if ".." in path.split("/") else os.path.normpath(joined)


def _node(text: str) -> tuple[str, str | None] | None:
    """File name and format of the node that a pseudo-protocol name describes."""
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    driver = value.get("driver")
    inner = value.get("file")
    if inner is None:
        # The keys may be flattened: "file.driver", "file.filename".
        inner = {key[5:]: one for key, one in value.items() if key.startswith("file.")} or None
    format = driver if inner is not None and isinstance(driver, str) else None
    if inner is None:
        inner = value
    if not isinstance(inner, dict) or inner.get("driver", "file") not in ("file", "host_device"):
        return None
    path = inner.get("filename")
    return (path, format) if isinstance(path, str) and path else None
