"""What a libvirt host has of pools and secrets, read from its folders; nothing of it is changed.

libvirt keeps a definition as ``storage/NAME.xml``, a mark for autostart as a link ``storage/autostart/NAME.xml``, a secret as
``secrets/UUID.xml`` with its value in ``UUID.base64``, all in /etc/libvirt or in the user's configuration. What is active is
a file ``NAME.xml`` with ``<poolstate>`` in /run/libvirt/storage, also of transient pools, which have no definition.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import stat
from typing import TYPE_CHECKING, NamedTuple

from poolkit import errors
from poolkit.state.secrets import LARGEST, Passphrase

if TYPE_CHECKING:
    from poolkit.xmlmap.reader import Part

SYSTEM = "/etc/libvirt"
_RUN = "run/libvirt/storage"
_MOST = 1 << 20  # bytes of a document; the reader's own limit


class FoundPool(NamedTuple):
    """A pool of libvirt: ``data`` is its document, ``part`` where it stands in its file if that has more than it.

    ``mark`` is what undoes its mark for autostart there, empty where it has none. ``error`` is why its document cannot be read.
    """

    name: str
    data: bytes
    source: str
    active: bool = False
    persistent: bool = True
    mark: str = ""
    part: Part | None = None
    error: errors.PoolkitError | None = None


class FoundSecret(NamedTuple):
    """A secret of libvirt; ``why`` says why there is no value where there is none."""

    uuid: str
    data: bytes
    source: str
    value: Passphrase | None = None
    why: str = ""
    error: errors.PoolkitError | None = None


class Found(NamedTuple):
    """What a libvirt host has: ``here`` tells whether it is this host, ``notes`` what could not be looked at, a sentence each."""

    where: str
    pools: tuple[FoundPool, ...] = ()
    secrets: tuple[FoundSecret, ...] = ()
    here: bool = True
    notes: tuple[str, ...] = ()


def in_folders(place: str | os.PathLike[str] | None = None) -> Found:
    """What the folders of libvirt have: of this system as root, else of the user, or those at ``place``.

    ``place`` is the root folder of another system, or a copy of libvirt's folder. Raises ``InvalidArgument`` where there is no
    libvirt, and a ``HostError`` for a folder that cannot be read; what is wrong with one file is told of its object.
    """
    config, run = _places(None if place is None else os.path.abspath(os.fspath(place)))
    notes = () if run else ("which pools are active is not known: a copy of libvirt's folder does not have that",)
    return Found(
        f"the folder '{config}'", tuple(_pools(f"{config}/storage", run)), tuple(_secrets(config)), notes=notes
    )


def _places(place: str | None) -> tuple[str, str]:
    """The folder of libvirt's configuration, and that of what is active; the second is empty if that is not known."""
    if place is None:
        if os.geteuid() == 0:
            config, run = SYSTEM, f"/{_RUN}"
        else:
            config = (os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) + "/libvirt"
            session = os.environ.get("XDG_RUNTIME_DIR")
            run = f"{session}/libvirt/storage/run" if session else ""
        if not os.path.isdir(config):
            raise errors.InvalidArgument(
                f"libvirt has no folder '{config}' here",
                hint=errors.Hint(
                    "to take it from elsewhere: ", errors.Option("from", ..., "place"), " for its folders, or ",
                    errors.Option("uri", ...), " for a connection",
                ),
            )  # fmt: skip
        return config, run
    if os.path.isdir(f"{place}/etc/libvirt"):
        return f"{place.rstrip('/')}/etc/libvirt", f"{place.rstrip('/')}/{_RUN}"
    if os.path.isdir(f"{place}/storage") or os.path.isdir(f"{place}/secrets"):
        return place, f"/{_RUN}" if os.path.realpath(place) == SYSTEM else ""
    raise errors.InvalidArgument(
        f"'{place}' has nothing of libvirt: neither 'etc/libvirt' nor 'storage' nor 'secrets'",
        hint="name the root folder of a system, or a copy of its folder /etc/libvirt",
    )


def _names(folder: str, ending: str) -> list[str]:
    """The names of the files in a folder that end so, without the ending; none if there is no folder."""
    try:
        return sorted(
            name.removesuffix(ending) for name in os.listdir(folder) if name.endswith(ending) and name[0] != "."
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise errors.from_os_error(error, f"read the folder '{folder}'") from error


def _read(path: str, most: int = _MOST) -> bytes:
    """A file's bytes; the last part of its path must be no link: what libvirt keeps is none, and one could lead anywhere."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise errors.Unsafe(f"'{path}' is no regular file")
            return file.read(most + 1)
    except OSError as error:
        raise errors.from_os_error(error, f"read '{path}'") from error


def _pools(folder: str, run: str) -> list[FoundPool]:
    marked = {n for n in _names(f"{folder}/autostart", ".xml") if os.path.islink(f"{folder}/autostart/{n}.xml")}
    active = set(_names(run, ".xml")) if run else set()
    found = []
    names = _names(folder, ".xml")
    for name in names:
        path = f"{folder}/{name}.xml"
        mark = f"rm {shlex.quote(f'{folder}/autostart/{name}.xml')}" if name in marked else ""
        one = FoundPool(name, b"", path, name in active, mark=mark)
        try:
            found.append(one._replace(data=_read(path)))
        except errors.PoolkitError as error:
            found.append(one._replace(error=error))
    return [*found, *(_transient(f"{run}/{name}.xml", name) for name in sorted(active.difference(names)))]


def _transient(path: str, name: str) -> FoundPool:
    """An active pool without a definition, of the file that says what is active."""
    from poolkit.engine.plan.wrapper import parts

    one = FoundPool(name, b"", path, active=True, persistent=False)
    try:
        inner = [(data, part) for root, data, _, part in parts(_read(path), path) if root == "pool"]
        if len(inner) != 1:
            raise errors.HostError(f"'{path}' has no <pool>")
        return one._replace(data=inner[0][0], part=inner[0][1])
    except errors.PoolkitError as error:
        return one._replace(error=error)


def _secrets(config: str) -> list[FoundSecret]:
    folder = f"{config}/secrets"
    found = []
    for uuid in _names(folder, ".xml"):
        one = FoundSecret(uuid, b"", f"{folder}/{uuid}.xml")
        try:
            value, why = _value(folder, uuid)
            found.append(one._replace(data=_read(one.source), value=value, why=why))
        except errors.PoolkitError as error:
            found.append(one._replace(error=error))
    return found


def _value(folder: str, uuid: str) -> tuple[Passphrase | None, str]:
    path = f"{folder}/{uuid}.base64"
    if not os.path.lexists(path):
        others = [name for name in os.listdir(folder) if name.startswith(f"{uuid}.") and not name.endswith(".xml")]
        return None, f"libvirt keeps it encrypted, in '{others[0]}'" if others else "libvirt has none"
    try:
        data = base64.b64decode(b"".join(_read(path, 2 * LARGEST).split()), validate=True)
    except binascii.Error:
        return None, f"'{path}' is not base64"
    except errors.PoolkitError as error:
        return None, str(error)
    if not 0 < len(data) <= LARGEST:
        return None, f"'{path}' has {len(data)} bytes"
    return Passphrase(data), ""
