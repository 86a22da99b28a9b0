"""Pools of type ``iscsi-direct``: the logical units of an iSCSI target, reached through libiscsi without a login of the host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from poolkit import disks, errors
from poolkit.backend import Backend, DiskSource, Source, Transfer, Usage, VolumeInfo
from poolkit.backends.iscsi import IscsiTarget
from poolkit.content import blocks, space
from poolkit.families import luns, portals, wwid
from poolkit.families.portals import MutualAuth
from poolkit.host import libiscsi, worker
from poolkit.host.libiscsi import Session
from poolkit.host.port import Host
from poolkit.model import Auth, Pool, SourceHost, product, vendor
from poolkit.xmlmap import Element, simple, xml

_DISKS = (0x00, 0x07, 0x0E, 0x14)  # peripheral device types, those that the kernel's disk driver takes (SPC-3 table 83)
_LONGEST = 60.0  # seconds without news that the library's own time limits add up to, with all portals


class IscsiDirectSource(Element):
    """The portals, the target, who asks and how to log in."""

    hosts: tuple[SourceHost, ...] = xml(
        "host", min=1, since="4.7.0", doc="Portals; the first that lets us in is used. libvirt tries only the first."
    )
    devices: tuple[IscsiTarget, ...] = xml("device", min=1, since="4.7.0", doc="The target; only the first is used.")
    initiator: str = xml(
        "initiator/iqn/@name", type=simple.Iqn, since="4.7.0", effect="acted", doc="Name to log in as."
    )
    auth: Auth | None = xml("auth", default=None, since="4.7.0", doc="CHAP login.")
    vendor: str | None = vendor()
    product: str | None = product()


class IscsiDirectPool(Pool):
    """The logical units of one iSCSI target, which machines reach themselves."""

    type: ClassVar[str] = "iscsi-direct"
    first: ClassVar[str | None] = "4.7.0"
    source: IscsiDirectSource = xml("source", doc="The portals and the target.")
    mutual_auth: MutualAuth | None = xml(
        "pk:mutual_auth", default=None, doc="CHAP in the other direction: the target has to prove who it is."
    )


class _Unit:
    """One logical unit of an open session, as blocks."""

    def __init__(self, session: Session, code: int) -> None:
        self._session, self._code = session, code
        found = session.capacity(code)
        self.block = found.block
        self.size = found.blocks * found.block

    def read(self, first: int, count: int) -> bytes:
        return self._session.read(self._code, first, count, self.block)

    def write(self, first: int, data: bytes) -> None:
        self._session.write(self._code, first, data, self.block)

    def zero(self, first: int, count: int, *, unmap: bool = False) -> bool:
        try:
            self._session.zero(self._code, first, count, self.block, unmap=unmap)
        except libiscsi.Refused:
            return False
        return True

    def flush(self) -> None:
        self._session.flush(self._code)


class IscsiDirectBackend(Backend):
    """Logical units without a device on this host: each verb logs in, works, and logs out.

    A C library speaks with the target, so all of it is done by a child process.
    """

    type = "iscsi-direct"
    definition = IscsiDirectPool
    tools = (libiscsi.LIBRARY,)
    packages: ClassVar[Mapping[str, str]] = {libiscsi.LIBRARY: libiscsi.PACKAGE, "getent": "libc-bin"}
    may_hang = ("volumes", "look", "wipe", "upload", "download", "copy_to")
    provider: ClassVar[str] = "whoever runs the iSCSI target"

    def __init__(self, definition: Any, host: Host) -> None:
        super().__init__(definition, host)
        self._silent = self._asked = 0.0

    @property
    def iqn(self) -> str:
        """The target's name."""
        name: str = self.pool.source.devices[0].path
        return name

    def claims(self) -> Iterable[str]:
        """The target, as this initiator; ``InvalidArgument`` for names that cannot be."""
        return portals.check(self.pool)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Logged in to the first portal that lets us in."""
        start = f"pool '{self.pool.name}': "
        login = portals.chap(self.host, self.pool)
        failures: list[errors.PoolkitError] = []
        with contextlib.ExitStack() as stack:
            for named in portals.portals(self.pool):
                found = portals.addresses(self.host, named)
                if not found:
                    failures.append(portals.unknown(self.pool.name, named))
                for address in found:
                    session = Session(str(address), self.pool.source.initiator, self.iqn, login=login, start=start)
                    try:
                        stack.enter_context(session)
                    except (errors.Unreachable, errors.NotFound, errors.LoginRefused) as error:
                        failures.append(error)
                        continue
                    yield session
                    return
        raise portals.refused(self.pool, failures)

    # -- facts --------------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """Every unit that is a disk; one that became another unit since ``known`` is warned of."""
        with self.session() as session:
            for code in session.units():
                info = self._info(session, code)
                if info is None:
                    continue
                old = known.get(info.name)
                if old is not None and old.key != info.key:
                    self.host.warn(f"pool '{self.pool.name}': {luns.swapped(info.name, old.key, info.key)}")
                yield old if old == info and old is not None else info

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One unit as it is now; ``Unsafe``, with both WWIDs, if it is another one than ``known``."""
        with self.session() as session:
            info = self._info(session, self._code(session, name))
            if info is None:
                raise self.missing(name)
            self._same(known, info)
            return info

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The sum of the units; as in libvirt all of it counts as allocated."""
        total = sum(volume.capacity for volume in volumes)
        return Usage(total, total, 0)

    def _info(self, session: Session, code: int) -> VolumeInfo | None:
        """What is to be said of a unit; None for what is no disk, or there no more."""
        detail: dict[str, Any] = {}
        path = f"ip-{self._portal()}-iscsi-{self.iqn}-lun-{code}"
        name, size = "", 0
        held: tuple[str, ...] = ()
        try:
            inquiry = session.inquiry(code)
            if not inquiry or inquiry[0] & 0x1F not in _DISKS or inquiry[0] >> 5:
                return None
            name = _wwid(session, code, inquiry)
            unit = _Unit(session, code)
            size = unit.size
            held = luns.recognised(blocks.pread(unit, luns.HEAD, 0))
        except libiscsi.Gone:
            return None
        except errors.Unreachable:
            raise
        except errors.PoolkitError as error:
            detail["error"] = f"it cannot be read: {str(error).partition(': ')[2]}"
        if held:
            detail["holds"] = list(held)
        return VolumeInfo(
            f"unit:0:0:{code}",
            "network",
            "",
            size,
            size,
            key=name or path,
            path=path,
            detail=detail or None,
        )

    def _portal(self) -> str:
        """The first portal as libvirt has it in paths: with the name as it was given."""
        return str(portals.portals(self.pool)[0])

    def _code(self, session: Session, name: str) -> int:
        """How commands name the unit of a volume."""
        for code in session.units():
            if name == f"unit:0:0:{code}":
                return code
        raise self.missing(name)

    def _same(self, known: VolumeInfo | None, info: VolumeInfo) -> None:
        if known is not None and known.key != info.key:
            raise errors.Unsafe(
                f"pool '{self.pool.name}': {luns.swapped(info.name, known.key, info.key)}; it was left alone",
                pool=self.pool.name, volume=info.name,
                hint=errors.Hint("if that is right, list it anew: ", errors.remedy("refresh", self.pool.name)),
            )  # fmt: skip

    # -- bytes --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, info: VolumeInfo) -> Iterator[_Unit]:
        """The unit that was listed, as blocks."""
        with self.session() as session:
            code = self._code(session, info.name)
            now = self._info(session, code)
            if now is None:
                raise self.missing(info.name)
            self._same(info, now)
            try:
                yield _Unit(session, code)
            except errors.PoolkitError as error:
                error.pool, error.volume = self.pool.name, info.name
                raise

    def source(self, info: VolumeInfo) -> Source:
        """The unit as raw bytes, whatever it holds."""
        return super().source(info._replace(format="raw"))

    def disk_source(self, info: VolumeInfo) -> DiskSource:
        """The unit at the pool's first portal, with its login. QEMU does not ask a target to prove who it is."""
        source = self.pool.source
        login = None
        if source.auth is not None:
            secret = source.auth.secret
            login = disks.DiskAuth(
                username=source.auth.username,
                secret=disks.DiskSecret(type="iscsi", uuid=secret.uuid, usage=secret.usage),
            )
        hosts = tuple(disks.DiskHost(name=host.name, port=host.port) for host in source.hosts[:1])
        name = f"{self.iqn}/{info.name.rpartition(':')[2]}"
        return DiskSource(
            disks.NetworkSource(protocol="iscsi", name=name, hosts=hosts, auth=login, initiator=source.initiator)
        )

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        """Write the unit's bytes into an open file or device; runs of zeros are left out."""
        with self._open(info) as unit:
            blocks.copy_to(self.host, unit, fd)

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        """Write the bytes of ``stream`` over those of the unit, within its size."""
        label = f"upload to {info.path} from byte {transfer.offset}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self._open(info) as unit:
            space.check_range(info.name, transfer, unit.size)
            self.host.step(label)
            blocks.upload(self.host, unit, stream, transfer)
        return self.look(info.name, info)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the unit's bytes to ``stream``."""
        with self._open(info) as unit:
            space.check_range(info.name, transfer, unit.size)
            return blocks.download(self.host, unit, stream, transfer)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        """Wipe every byte of the unit."""
        label = f"wipe {info.path} with {algorithm}"
        if self.host.dry_run:
            self.host.step(label)
            return info
        with self._open(info) as unit:
            self.host.step(label)
            blocks.wipe(self.host, unit, algorithm)
        return self.look(info.name, info)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def answers(self) -> bool:
        """Yes, for as long as the library's own time limits may last: with an answer or an error it ends by itself."""
        now = time.monotonic()
        if now - self._asked > 2 * worker.SILENCE:
            self._silent = now
        self._asked = now
        return now - self._silent < _LONGEST * len(self.pool.source.hosts)

    def unsupported(self, method: str, verb: str | None = None) -> errors.Unsupported:
        """As its base; says who can."""
        return luns.made_elsewhere(super().unsupported(method, verb), method, self.provider)

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """The targets that the portal named in ``source`` offers to the initiator that it names."""
        from poolkit.documents import FoundDevice, FoundSource

        portal = portals.one(source, "iscsi-direct")
        who = source.initiator or portals.name_of_host() or "iqn.2016-04.com.open-iscsi:poolkit"
        failures: list[errors.PoolkitError] = [portals.unknown("", portal)]
        for address in portals.addresses(host, portal):
            try:
                with Session(str(address), who, None) as session:
                    return [
                        FoundSource(hosts=source.hosts, devices=(FoundDevice(path=name),), initiator=source.initiator)
                        for name in session.targets()
                    ]
            except (errors.Unreachable, errors.LoginRefused) as error:
                failures.append(error)
        raise failures[-1]


def _wwid(session: Session, code: int, inquiry: bytes) -> str:
    maker = inquiry[8:16].decode("latin-1"), inquiry[16:32].decode("latin-1")
    pages = []
    for page in (0x83, 0x80):
        try:
            pages.append(session.inquiry(code, page))
        except libiscsi.Refused:
            pages.append(b"")
    return wwid.of_pages(pages[0], pages[1], *maker)
