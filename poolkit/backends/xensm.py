"""Pools of type ``xensm``: a storage repository of XenServer or XCP-ng, managed through its API."""

from __future__ import annotations

from typing import ClassVar, Literal

from poolkit.model import AuthSecret, Pool, SourceHost
from poolkit.xmlmap import Effect, Element, simple, xml
from poolkit.xmlmap.rules import exactly_one


class XenAuth(Element):
    """How to log in to the host."""

    type: Literal["xapi"] = xml("@type", doc="Always xapi.")
    username: str = xml("@username", type=simple.Text, doc="User name, usually root.")
    secret: AuthSecret = xml("secret", doc="Where the password is.")


class XenParameter(Element):
    """One pair of the repository's device configuration; a password is given as a secret and never as a value."""

    rules = (exactly_one("value", "secret", paths=("@value", "secret")),)
    name: str = xml("@name", type=simple.Word, doc="Key, such as server or serverpath.")
    value: str | None = xml("@value", type=simple.Text, default=None, doc="Value, passed on as it is.")
    secret: AuthSecret | None = xml("secret", default=None, doc="Secret that holds the value.")


class XenRepository(Element):
    """The storage repository as the hosts know it."""

    omit_empty: ClassVar[bool] = True

    uuid: str | None = xml(
        "@uuid",
        type=simple.Uuid,
        default=None,
        doc="Its uuid; with it a repository that exists is introduced, without made.",
    )
    shared: bool | None = xml(
        "@shared", default=None, doc="Whether all hosts of the pool use it; its type decides by default."
    )
    content: str | None = xml(
        "@content", type=simple.Word, default=None, doc="Content type: user by default, iso, disk."
    )


class XenSource(Element):
    """The host's API, the repository and its device configuration."""

    rules = (exactly_one("hosts", "socket", paths=("host", "socket/@path")),)
    hosts: tuple[SourceHost, ...] = xml(
        "host", default=(), doc="Hosts of the pool; one is enough, the master is found."
    )
    socket: str | None = xml(
        "socket/@path", type=simple.AbsPath, default=None, doc="Local socket of the API, instead of hosts."
    )
    name: str | None = xml(
        "name", type=simple.Text, default=None, doc="Name label of the repository; the pool's by default."
    )
    repository: XenRepository = xml("sr", default=XenRepository, doc="The repository.")
    format: str = xml("format/@type", type=simple.Word, doc="Type of the repository: nfs, lvmoiscsi, ext, lvm, iso ...")
    auth: XenAuth | None = xml("auth", default=None, doc="Login; not needed on the local socket.")
    parameters: tuple[XenParameter, ...] = xml("param", default=(), doc="Device configuration.")


class XenPool(Pool):
    """A storage repository."""

    type: ClassVar[str] = "xensm"
    effect: ClassVar[Effect | None] = "kept"
    spare: ClassVar[dict[str, tuple[str, ...]]] = {}
    source: XenSource = xml("source", doc="The repository.")
    flavor: str | None = xml("flavor", type=simple.Word, default=None, doc="Group of pools a volume may be placed in.")
