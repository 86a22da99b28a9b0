"""Pools of type xensm for tests: their definitions, and the secret of the login."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from tests.xapi import REAL

MIB = 1 << 20
PEER = pytest.mark.skipif(bool(REAL), reason="a real host has no such storage, and no knobs for tests")
LOGIN = "<secret private='yes'><usage type='xapi'><name>xen login</name></usage></secret>"


def prepare(engine: Engine, xapi: Any) -> None:
    """Give an engine the password of the hosts."""
    engine.define_secret(LOGIN)
    engine.secret("xen login").set_value(xapi.password.encode())


def pool_of(
    xapi: Any, type: str = "nfs", config: Mapping[str, str] | None = None, *, name: str = "xen", sr: str = "", more: str = "",
    hosts: str | None = None,
) -> str:  # fmt: skip
    """The definition of a pool; ``sr`` has the attributes of <sr>, ``hosts`` what says where the API is."""
    given = {"server": "nas", "serverpath": "/export"} if config is None else config
    params = "".join(f"<param name={quoteattr(key)} value={quoteattr(value)}/>" for key, value in given.items())
    tls = xapi.url.startswith("https")
    api = (
        f"<api certificate='{xapi.certificate}'/>"
        if tls and xapi.certificate
        else ""
        if tls
        else "<api scheme='http'/>"
    )
    where = f"<host name='{xapi.hosts[0]}' port='{xapi.port}'/>{api}" if hosts is None else hosts
    auth = f"<auth type='xapi' username='{xapi.user}'><secret usage='xen login'/></auth>"
    return (
        f"<pool type='xensm'><name>{name}</name><source>{where}<sr {sr}/><format type='{type}'/>{auth}{params}{more}"
        "</source></pool>"
    )


def volume_of(name: str, size: int = 8 * MIB) -> str:
    """The definition of a volume."""
    return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"


def started(engine: Engine, xapi: Any, **how: Any) -> Pool:
    """A pool whose repository was made, active."""
    pool = engine.define(pool_of(xapi, **how))
    pool.start(build=True)
    return pool


def files(folder: Path, engine: Engine) -> Pool:
    """A pool of files beside it."""
    folder.mkdir()
    pool = engine.define(f"<pool type='dir'><name>files</name><target><path>{folder}</path></target></pool>")
    pool.start()
    return pool
