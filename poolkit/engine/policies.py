"""Which backend of a flavor takes a volume: pure functions over facts, which ask nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Facts(NamedTuple):
    """One backend as it is now; sizes in bytes. ``place`` is its number in the flavor, ``ratio`` and ``reserve`` the flavor's.

    ``provisioned`` is the capacity of all volumes, ``promised`` the capacity and ``promised_space`` the space of those that
    are being made. ``total`` 0 means that the size is not known. ``refused`` says why it cannot be asked at all, and
    ``code`` is the code of that error.
    """

    pool: str
    place: int = 0
    priority: int = 0
    total: int = 0
    free: int = 0
    provisioned: int = 0
    promised: int = 0
    promised_space: int = 0
    ratio: float = 1.0
    reserve: int = 0
    thin: bool = False
    refused: str = ""
    code: str = ""

    @property
    def reserved(self) -> int:
        """Bytes that stay free: the reserve's percent of the pool, rounded down."""
        return self.total * self.reserve // 100


class Request(NamedTuple):
    """A volume: the bytes that a machine sees, and those that are taken at once."""

    capacity: int
    allocation: int

    def thin(self, facts: Facts) -> bool:
        """Whether the volume is thin in that backend: it takes less than its capacity, and the backend has such."""
        return facts.thin and self.allocation < self.capacity


def room(facts: Facts, request: Request, *, promised: bool = True) -> int:
    """Bytes of capacity that such a volume may have at most; without ``promised`` as if nothing were being made.

    Thin: (total - reserved) x ratio - provisioned. Thick: the least of what is free beyond the reserve and
    total - reserved - provisioned. These are Cinder's formulas (reserved_percentage, max_over_subscription_ratio), but that
    the ratio counts once.
    """
    under_way = facts.promised if promised else 0
    if request.thin(facts):
        return int((facts.total - facts.reserved) * facts.ratio) - facts.provisioned - under_way
    space = facts.promised_space if promised else 0
    return min(facts.free - facts.reserved - space, facts.total - facts.reserved - facts.provisioned - under_way)


def why_not(facts: Facts, request: Request, *, promised: bool = True) -> str:
    """Why the volume does not fit, with the numbers; empty if it does, or if the backend's size is not known."""
    if facts.total <= 0:
        return ""
    has = room(facts, request, promised=promised)
    if request.capacity > has:
        words = f"{request.capacity} bytes are asked for, and it has room for {max(has, 0)}"
        return words + (f" beside {facts.promised} that are being made" if promised and facts.promised else "")
    space = facts.free - facts.reserved - (facts.promised_space if promised else 0)
    if request.allocation > space:
        return f"{request.allocation} bytes of space are asked for, and {max(space, 0)} are free"
    return ""


def may_fit(facts: Facts, request: Request) -> bool:
    """Whether the volume would fit if none of those came into being that are being made, nor kept what they have taken."""
    given_back = facts._replace(free=facts.free + facts.promised_space)
    return not why_not(given_back, request, promised=False)


def order(policy: str, those: Iterable[Facts], request: Request, last: str = "") -> list[Facts]:
    """The backends in the order in which they are tried; every one of them fits.

    A lower priority goes first. Within one: first-fit keeps the flavor's order, most-free begins with the most room, best-fit
    with the least, round-robin behind the pool ``last``, which took the last volume.
    """
    known: Sequence[Facts] = sorted(those, key=lambda one: (one.priority, one.place))
    if policy == "most-free":
        return sorted(known, key=lambda one: (one.priority, -room(one, request)))
    if policy == "best-fit":
        return sorted(known, key=lambda one: (one.priority, room(one, request)))
    if policy == "round-robin":
        at = next((one.place for one in known if one.pool == last), -1)
        return sorted(known, key=lambda one: (one.priority, one.place <= at))
    return list(known)
