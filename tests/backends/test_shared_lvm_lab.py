"""Shared volume groups on one machine: the contract, with failures and deaths at every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit.engine import Engine
from poolkit.testing import BackendContract
from poolkit.testing.deaths import DeathContract
from poolkit.testing.means import ContractMeans
from tests.lab import inside
from tests.lab.fixtures import empty, sh, virtio_disks, wipe

pytestmark = pytest.mark.lab(timeout=300)

UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"


class Means(ContractMeans):
    """On a group that is built anew by each test."""

    lock = "system-id"

    @pytest.fixture
    def pool_xml(self, request: pytest.FixtureRequest) -> Iterator[str]:
        disk = virtio_disks()[0]
        assert wipe([disk]) == []
        yield (
            f"<pool type='shared-lvm'><name>shared</name><uuid>{UUID}</uuid><source><device path='{disk}'/>"
            f"<name>vg-shared</name><lock type='{self.lock}'/></source></pool>"
        )
        empty(request, [disk])

    def prepare(self, engine: Engine) -> None:
        """One machine that does everything."""
        settings = Path(engine.core.locations.settings)
        settings.parent.mkdir(mode=0o700, exist_ok=True)
        settings.write_text('[node]\nname = "one"\nrole = "both"\n')

    def traces(self) -> object:
        """Labelled devices, whoever they belong to, and what device-mapper has."""
        return sh("pvs", "--foreign", "--noheadings") + sh("dmsetup", "ls")


class TestContract(Means, BackendContract):
    """Under a system ID."""


class TestDeathsWithoutLock(Means, DeathContract):
    """Where nothing keeps hosts apart the steps are others."""

    lock = "none"


class TestDeathsUnderLvmlockd(Means, DeathContract):
    """And others again where locks are joined and left; the daemons live on when poolkit dies."""

    lock = "lvmlockd"

    @pytest.fixture(autouse=True)
    def daemons(self, request: pytest.FixtureRequest) -> Iterator[None]:
        sh("bash", str(Path(__file__).parents[1] / "lab" / "locks.sh"), "1")
        yield
        if "VG " in sh("lvmlockctl", "--info"):
            inside.reboot(request.session, "locks are left")  # sanlock does not end while there are
            return
        sh("killall", "-w", "lvmlockd", "sanlock")

    def traces(self) -> object:
        """Also the lockspaces."""
        return [super().traces(), "VG " in sh("lvmlockctl", "--info")]
