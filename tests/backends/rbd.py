"""What tests of rbd pools share: definitions for a cluster, and places of their own in it."""

from __future__ import annotations

import itertools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families import ceph
from tests.ceph import Cluster

SECRET = "5f3a1f0e-6d0f-4c1e-9a3a-0d9c2b7e4c11"
_NUMBERS = itertools.count(1)


class Fresh:
    """Makes namespaces and pools of a cluster for one test."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pools: list[str] = []

    def namespace(self) -> tuple[str, str]:
        """An empty namespace of the pool that all tests share."""
        name = f"n{next(_NUMBERS)}"
        self.cluster.make_namespace("rbd", name)
        return "rbd", name

    def pool(self) -> str:
        """A new pool, removed at the end."""
        name = f"p{next(_NUMBERS)}"
        self.cluster.make_pool(name)
        self.cluster.statistics(name)
        self.pools.append(name)
        return name


def fresh(cluster: Cluster) -> Iterator[Fresh]:
    """For a fixture."""
    places = Fresh(cluster)
    yield places
    for name in places.pools:
        cluster.delete_pool(name)


def secret(engine: Engine, cluster: Cluster, user: str = "poolkit", uuid: str = SECRET) -> None:
    """The key of a user, as a secret of the engine."""
    engine.define_secret(
        f"<secret ephemeral='no' private='yes'><uuid>{uuid}</uuid>"
        f"<usage type='ceph'><name>client.{user} {uuid[:4]}</name></usage></secret>"
    )
    engine.secret(uuid).set_value(cluster.keys[user].encode())


def definition(
    cluster: Cluster, pool: str, namespace: str = "", *, user: str = "poolkit", uuid: str = SECRET, name: str = "disks",
    seconds: int = 20, **options: str,
) -> str:  # fmt: skip
    """A pool's document."""
    limits = dict.fromkeys(("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"), str(seconds))
    words = "".join(f"<rbd:option name='{key}' value='{value}'/>" for key, value in {**limits, **options}.items())
    space = f"<pk:namespace xmlns:pk='urn:poolkit:pool:1' name='{namespace}'/>" if namespace else ""
    return f"""<pool type='rbd' xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'>
      <name>{name}</name>
      <source>
        <host name='{cluster.address}' port='{cluster.port}'/>
        <name>{pool}</name>
        <auth type='ceph' username='{user}'><secret uuid='{uuid}'/></auth>
      </source>
      {space}<rbd:config_opts>{words}</rbd:config_opts>
    </pool>"""


def started(engine: Engine, cluster: Cluster, place: tuple[str, str] | tuple[str], **how: str) -> Pool:
    """A pool that is up."""
    secret(engine, cluster)
    pool = engine.define(definition(cluster, *place, **how))
    pool.start()
    return pool


def volume(name: str, capacity: int = 8 << 20, more: str = "") -> str:
    """A volume's document."""
    return f"<volume><name>{name}</name><capacity>{capacity}</capacity>{more}</volume>"


def noise(length: int) -> bytes:
    """Bytes that are no zeros."""
    return os.urandom(length)


def only(way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process and its children reach Ceph by one way: ``modules`` or ``libraries``.

    The modules are those of the distribution's Python: nothing else of its packages is to be seen. For another Python there
    are none.
    """
    place = folder / way
    place.mkdir(exist_ok=True)
    for name in ("rados", "rbd"):
        if way == "libraries":
            (place / f"{name}.py").write_text("raise ImportError('not in this test')\n")
            continue
        there = Path("/usr/lib/python3/dist-packages") / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        if not there.exists():
            pytest.skip(f"not applicable: the distribution has no module '{name}' for Python {sys.version_info.minor}")
        if not (place / there.name).exists():
            (place / there.name).symlink_to(there)
    for name in ("rados", "rbd", "poolkit.families.ceph.modules"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(ceph, "modules", raising=False)
    monkeypatch.syspath_prepend(str(place))
