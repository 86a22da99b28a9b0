"""The other way: what there is, as the files that a libvirt host has in /etc/libvirt."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors, xmlmap
from poolkit.state.secrets import Passphrase

if TYPE_CHECKING:  # an engine is handed over
    from poolkit.engine.engine import Engine
    from poolkit.state.secrets import Secret

DROPPED = ("sheepdog",)
"""Pool types that libvirt has no more: its driver is gone since 8.8.0."""
LOGINS = ("chap", "ceph")  # virStorageAuthType
USAGES = ("volume", "ceph", "iscsi", "tls", "vtpm")  # virSecretUsageType


class Given(NamedTuple):
    """``files`` has the text of each document by its path, ``links`` where each link leads, ``values`` secrets in base64.

    ``marks`` names the pools that are marked for autostart, and ``left`` says, a sentence each, what is not in them.
    """

    files: dict[str, str]
    links: dict[str, str]
    values: dict[str, Passphrase]
    marks: tuple[str, ...]
    left: tuple[str, ...]


def documents(engine: Engine, *, secrets: bool = True, values: bool = False) -> Given:
    """All pools with their marks for autostart, and secrets, for libvirt: as ``storage/NAME.xml``, ``storage/autostart/NAME.xml``
    and ``secrets/UUID.xml``; with ``values`` those of secrets, too.

    What is poolkit's own is left out of each document and told, and so is what libvirt would not load. Changes nothing.
    """
    given = Given({}, {}, {}, (), ())
    left: list[str] = []
    marks: list[str] = []
    for info in engine.pools():
        try:
            definition = engine.pool(info.name).definition(inactive=True)
            why = _refused(definition)
        except errors.PoolkitError as error:
            definition, why = None, str(error).replace(f"pool '{info.name}' is ", "it is ", 1)
        if why:
            left.append(f"pool '{info.name}' was left out: {why}")
            continue
        left += [f"pool '{info.name}' loses {field}: libvirt has no such thing" for field in _lost(definition)]
        given.files[f"storage/{info.name}.xml"] = xmlmap.write(xmlmap.without_own(definition))
        if info.autostart:
            marks.append(info.name)
            given.links[f"storage/autostart/{info.name}.xml"] = f"../{info.name}.xml"
    for secret in engine.secrets() if secrets else ():
        left += _secret(engine, secret, given, values)
    return given._replace(marks=tuple(marks), left=tuple(left))


def _refused(definition: Any) -> str:
    """Why libvirt would not load a definition; empty if it does."""
    if definition.first is None or definition.type in DROPPED:
        return f"libvirt has no pools of type '{definition.type}'"
    auth = getattr(getattr(definition, "source", None), "auth", None)
    if auth is not None and auth.type not in LOGINS:
        return f"libvirt has no login of type '{auth.type}'"
    return ""


def _lost(definition: Any) -> list[str]:
    """What libvirt does not keep of a definition. What is wanted by a document is not part of it."""
    lost = [f"<{field.partition('/')[0]}>" for field in xmlmap.own_fields(definition) if field != "pk:wanted"]
    return lost + (["<metadata>"] if definition.metadata else [])


def _secret(engine: Engine, secret: Secret, given: Given, values: bool) -> list[str]:
    definition, name = secret.definition, f"secret {secret.uuid}"
    usage = secret.usage
    if usage is not None and usage[0] not in USAGES:
        return [f"{name} was left out: libvirt has no secrets of type '{usage[0]}'"]
    if definition.ephemeral:
        return [f"{name} was left out: it is kept in memory, for which libvirt has no file"]
    given.files[f"secrets/{secret.uuid}.xml"] = xmlmap.write(xmlmap.without_own(definition))
    if not values:
        return [f"the value of {name} was left out"] if secret.has_value else []
    if not secret.has_value:
        return []
    try:
        value = engine.secret_store.read(definition)  # also of a private one, which libvirt keeps in the same way
    except errors.PoolkitError as error:
        return [f"the value of {name} was left out: {error}"]
    given.values[f"secrets/{secret.uuid}.base64"] = Passphrase(base64.b64encode(value))
    return []
