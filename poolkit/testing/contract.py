"""The behaviour that every backend owes, as tests of pytest."""

from __future__ import annotations

from poolkit.testing.deaths import DeathContract
from poolkit.testing.documents import DocumentContract
from poolkit.testing.marks import MarkContract
from poolkit.testing.means import check_listing
from poolkit.testing.pools import PoolContract
from poolkit.testing.volumes import VolumeContract

__all__ = ["BackendContract", "check_listing"]


class BackendContract(PoolContract, VolumeContract, MarkContract, DocumentContract, DeathContract):
    """What every backend owes. Subclass it, define the fixture ``pool_xml`` and run it on real storage.

    ``pool_xml`` is the definition of a pool whose storage exists or can be built. A type without ``create`` needs storage that
    has volumes already; what they hold is overwritten. What cannot be asked of a type is skipped, with a sentence that begins
    with "not applicable" and names the missing verb.

    The tests that interrupt a verb at every step take all steps; a fixture ``sampled`` (a function from the steps to those to
    take), where the project has one, chooses among them.
    """
