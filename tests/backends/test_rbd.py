"""Pools of type rbd on a real Ceph cluster, with each of the two ways to its libraries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poolkit.engine import Engine
from poolkit.testing import BackendContract
from tests.ceph import PROGRAMS, Cluster

from .rbd import Fresh, definition, fresh, secret

pytestmark = pytest.mark.tools(*PROGRAMS)


@pytest.fixture
def pools(cluster: Cluster) -> Iterator[Fresh]:
    yield from fresh(cluster)


class TestRbd(BackendContract):
    """The contract, in a namespace of its own for each test."""

    @pytest.fixture
    def pool_xml(self, cluster: Cluster, pools: Fresh) -> str:
        return definition(cluster, *pools.namespace())

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def prepare(self, engine: Engine) -> None:
        secret(engine, self.cluster)
