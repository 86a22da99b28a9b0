"""Pools of type ``iscsi``: an iSCSI target that the host logs in to, and whose logical units are the volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from poolkit import errors
from poolkit.backend import State, VolumeInfo
from poolkit.families import blockdevice, initiator, portals, scsibus
from poolkit.families.initiator import Session
from poolkit.families.luns import MAY_HANG, LunVolumes
from poolkit.families.portals import MutualAuth
from poolkit.families.scsibus import Lun
from poolkit.host import worker
from poolkit.host.port import Host
from poolkit.model import Auth, Pool, PoolTarget, SourceHost, product, vendor
from poolkit.xmlmap import Element, simple, xml

_UDEV = 10.0  # seconds that udev has to close what it looks into
_WORKERS = (" ((udev-worker))", " (systemd-udevd)")  # how its processes are told as users of a device


class IscsiTarget(Element):
    """The target's name."""

    path: str = xml("@path", type=simple.Iqn, since="0.4.1", effect="acted", doc="iSCSI qualified name of the target.")


class IscsiSource(Element):
    """The portals, the target and how to log in."""

    hosts: tuple[SourceHost, ...] = xml(
        "host", min=1, since="0.4.1", doc="Portals; the first that lets us in is used. libvirt tries only the first."
    )
    devices: tuple[IscsiTarget, ...] = xml("device", min=1, since="0.4.1", doc="The target; only the first is used.")
    initiator: str | None = xml(
        "initiator/iqn/@name",
        type=simple.Iqn,
        default=None,
        since="0.8.8",
        effect="acted",
        doc="Name to log in as; the host's by default.",
    )
    auth: Auth | None = xml("auth", default=None, since="0.9.7", doc="CHAP login.")
    vendor: str | None = vendor()
    product: str | None = product()


class IscsiPool(Pool):
    """The logical units of one iSCSI target."""

    type: ClassVar[str] = "iscsi"
    first: ClassVar[str | None] = "0.4.1"
    source: IscsiSource = xml("source", doc="The portals and the target.")
    target: PoolTarget = xml("target", doc="Where stable device names are, usually /dev/disk/by-path.")
    mutual_auth: MutualAuth | None = xml(
        "pk:mutual_auth", default=None, doc="CHAP in the other direction: the target has to prove who it is."
    )


class IscsiBackend(LunVolumes):
    """Logical units of a target that open-iscsi logs in to; the target makes, grows and removes them.

    Whatever sends a command to the target may wait for one that does not answer. Logging in and out is done by programs that
    have deadlines of their own, and the state is read from the kernel, which asks nobody.
    """

    type = "iscsi"
    definition = IscsiPool
    usual_target = "/dev/disk/by-path"
    tools = ("iscsiadm",)
    packages: ClassVar[Mapping[str, str]] = {"iscsiadm": "open-iscsi", "getent": "libc-bin", "find": "findutils"}
    needs_root = ("start", "discover")
    may_hang = tuple(verb for verb in MAY_HANG if verb not in ("start", "stop"))
    provider: ClassVar[str] = "whoever runs the iSCSI target"

    @property
    def iqn(self) -> str:
        """The target's name."""
        name: str = self.pool.source.devices[0].path
        return name

    def claims(self) -> Iterable[str]:
        """The target, as this initiator; ``InvalidArgument`` for names and places that cannot be."""
        self.check_place()
        return portals.check(self.pool)

    def session(self) -> Session | None:
        """The pool's session, or the one of somebody else that it uses."""
        return initiator.session(self.host, self.pool)

    def _is_own(self, session: Session) -> bool:
        return session.interface == initiator.interface(self.pool)

    def state(self, *, closely: bool = False) -> State:
        """Whether there is a session. A target that does not answer does not change that: iscsid logs in again."""
        found = self.session()
        if found is None:
            return State(False, why=f"this host is not logged in to the target '{self.iqn}'")
        return State(True, whole=self._is_own(found))  # start says of somebody else's that it is used

    def start(self) -> None:
        """Log in, unless there is a session to the same target, portal and by the same name: that one is used, and left alone."""
        found = self.session()
        if found is None:
            initiator.login(self.host, self.pool)
        elif not self._is_own(found):
            self.host.warn(
                f"pool '{self.pool.name}': this host was logged in to the target '{self.iqn}' already; that session is "
                "used, and stays when the pool is stopped"
            )

    def stop(self) -> None:
        """Log out of the pool's own session; ``Busy`` with who uses its units. A session of somebody else stays."""
        found = self.session()
        if found is None or self._is_own(found):
            if found is not None:
                self._require_unused(found)
            initiator.logout(self.host, self.pool)

    def _require_unused(self, session: Session) -> None:
        found: dict[str, list[str]] = {}

        def told() -> bool:
            # udev looks into each device that somebody had open for writing, for a moment: nobody needs to hear of that.
            for lun in self._behind(session):
                found[lun.name] = blockdevice.users(self.host, lun.number, processes=True)
            return not any(user.endswith(_WORKERS) for users in found.values() for user in users)

        self.host.wait_for(told, _UDEV)
        others = {name: [user for user in users if not user.endswith(_WORKERS)] for name, users in found.items()}
        used = [f"volume '{name}' is {errors.some(users)}" for name, users in others.items() if users]
        if used:
            raise errors.Busy(
                f"pool '{self.pool.name}' cannot be stopped: {errors.some(used, 10, '; ')}", pool=self.pool.name,
                hint="end those first; the pool stays active",
            )  # fmt: skip

    def luns(self) -> list[Lun]:
        """The units of the session."""
        found = self.session()
        return [] if found is None else self._behind(found)

    def _behind(self, session: Session) -> list[Lun]:
        units = session.units
        return [lun for lun in scsibus.luns(self.host, [session.host]) if lun.address in units]

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """Every unit, after the target was asked for new ones and for sizes; ``Unreachable`` for one that does not answer."""
        found = self.session()
        if found is not None:
            self._require_alive(found)
            scsibus.rescan(self.host, [found.host])
        yield from super().volumes(known)
        if found is not None:
            self._require_alive(found)  # or what was listed are the errors of units that cannot be asked

    def _require_alive(self, session: Session) -> None:
        if not self.host.wait_for(lambda: session.answers, worker.DEADLINE):
            raise errors.Unreachable(
                f"pool '{self.pool.name}': the target '{self.iqn}' did not answer within {worker.DEADLINE:g} seconds",
                pool=self.pool.name,
                hint="the pool works again as soon as the target does; iscsid logs in again by itself",
            )

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """The targets that the portal named in ``source`` offers to this host, or to the initiator that it names."""
        return initiator.sources(host, source)
