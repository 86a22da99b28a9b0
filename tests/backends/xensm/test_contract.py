"""The contract of backends for pools of type xensm, on a XenAPI server: one repository of each kind.

The server is the peer of ``tests/peers/xapi``; with ``POOLKIT_XAPI_URL`` it is a real host, where the NFS contract alone is
run, on the export ``POOLKIT_XAPI_NFS`` (``SERVER:/PATH``).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.testing import BackendContract

from . import PEER, pool_of, prepare
from .server import calls

pytestmark = pytest.mark.tools("qemu-img")


class Contract(BackendContract):
    """What the repositories have in common."""

    lacks: tuple[str, ...] = ()
    attaches_here = False
    xapi: Any

    @pytest.fixture(autouse=True)
    def _server(self, xapi: Any) -> None:
        self.xapi = xapi

    def prepare(self, engine: Engine) -> None:
        prepare(engine, self.xapi)

    def verbs(self, pool: Pool) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the pool's type, without what this type of repository has not."""
        return tuple(verb for verb in super().verbs(pool) if verb not in self.lacks)

    def traces(self) -> object:
        """What a repository is to the hosts."""
        with calls(self.xapi) as api:
            return sorted(
                (cls, record["uuid"], str(record.get("currently_attached")), str(record["other_config"]))
                for cls in ("SR", "PBD")
                for record in api.call(f"{cls}.get_all_records").values()
            )


class TestNfs(Contract):
    """Files on a share."""

    @pytest.fixture
    def pool_xml(self) -> str:
        server, _, path = os.environ.get("POOLKIT_XAPI_NFS", "nas:/export").partition(":")
        return pool_of(self.xapi, config={"server": server, "serverpath": path}, name="poolkit-contract")


@PEER
class TestLvm(Contract):
    """Logical volumes on a disk of one host."""

    @pytest.fixture
    def pool_xml(self) -> str:
        return pool_of(self.xapi, "lvm", {"device": "/dev/sdb"})


@PEER
class TestLvmOverIscsi(Contract):
    """Logical volumes on a LUN that all hosts see."""

    @pytest.fixture
    def pool_xml(self) -> str:
        ((iqn, luns),) = self.xapi.control("luns", address="san").items()
        return pool_of(self.xapi, "lvmoiscsi", {"target": "san", "targetIQN": iqn, "SCSIid": luns[-1]["SCSIid"]})


@PEER
class TestIscsi(Contract):
    """LUNs that exist: one that is let go of is the same when it is taken again."""

    told_apart = False
    lacks = ("resize",)

    @pytest.fixture
    def pool_xml(self) -> str:
        iqn = "iqn.2010-01.org.example:small"
        self.xapi.control("target", address="small", iqns={iqn: [1 / 64, 1 / 64, 1 / 64, 1 / 32, 1 / 32]})
        return pool_of(self.xapi, "iscsi", {"target": "small", "targetIQN": iqn})


@PEER
class TestIso(Contract):
    """Images: the label is the file's name."""

    volume_names = ("first.iso", "second.iso")
    lacks = ("resize",)

    @pytest.fixture
    def pool_xml(self) -> str:
        return pool_of(self.xapi, "iso", {"location": "nas:/isos"})
