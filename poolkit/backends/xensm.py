"""Pools of type ``xensm``: a storage repository of XenServer or XCP-ng, managed through its API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Literal

from poolkit import errors
from poolkit.backend import Backend, Erased, Placed, Source, State, Transfer, Usage, VolumeInfo
from poolkit.content import filling, space, wiping
from poolkit.families import away
from poolkit.families.xapi import following, login, machines, marks, naming, packed, searching, srtypes
from poolkit.families.xapi.disks import Disks, Fill, rounded
from poolkit.families.xapi.machines import Machines
from poolkit.families.xapi.repositories import Repositories
from poolkit.host.port import Host
from poolkit.host.undo import Undo
from poolkit.model import AuthSecret, Pool, SourceHost, Volume
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.checking import faults
from poolkit.xmlmap.rules import exactly_one


class XenApi(Element):
    """How the hosts are spoken to."""

    omit_empty: ClassVar[bool] = True
    scheme: Literal["https", "http"] = xml(
        "@scheme", default="https", effect="acted", doc="https, or http, which everybody on the way can read."
    )
    certificate: str | None = xml(
        "@certificate", type=simple.AbsPath, default=None, effect="acted",
        doc="File with the certificates to trust; those of the system by default.",
    )  # fmt: skip
    fingerprint: str | None = xml(
        "@fingerprint", type=simple.Text, default=None, effect="acted",
        doc="SHA-256 of the certificate to trust, in hexadecimal; several with blanks between.",
    )  # fmt: skip


class XenAuth(Element):
    """How to log in to the host."""

    type: Literal["xapi"] = xml("@type", effect="acted", doc="Always xapi.")
    username: str = xml("@username", type=simple.Text, effect="acted", doc="User name, usually root.")
    secret: AuthSecret = xml("secret", doc="Where the password is.")


class XenSecret(Element):
    """Which secret holds the value of a parameter."""

    rules = (exactly_one("uuid", "usage", paths=("@uuid", "@usage")),)
    type: Literal["xapi", "iscsi", "smb"] = xml("@type", default="xapi", effect="acted", doc="What the secret is for.")
    uuid: str | None = xml("@uuid", type=simple.Uuid, default=None, effect="acted", doc="The secret's uuid.")
    usage: str | None = xml("@usage", type=simple.Text, default=None, effect="acted", doc="The secret's usage.")


class XenParameter(Element):
    """One pair of the repository's device configuration; a password is given as a secret and never as a value."""

    rules = (exactly_one("value", "secret", paths=("@value", "secret")),)
    name: str = xml("@name", type=simple.Word, effect="acted", doc="Key, such as server or serverpath.")
    value: str | None = xml("@value", type=simple.Text, default=None, effect="acted", doc="Value, passed on as it is.")
    secret: XenSecret | None = xml("secret", default=None, doc="Secret that holds the value.")


class XenRepository(Element):
    """The storage repository as the hosts know it."""

    omit_empty: ClassVar[bool] = True
    uuid: str | None = xml(
        "@uuid", type=simple.Uuid, default=None, effect="acted",
        doc="Its uuid; with it one that exists is introduced, and none is made.",
    )  # fmt: skip
    filter: str | None = xml(
        "@filter", type=simple.Text, default=None, effect="acted",
        doc="What tells one that exists: default-sr:true, or other-config:KEY=VALUE.",
    )  # fmt: skip
    host: str | None = xml(
        "@host", type=simple.Text, default=None, effect="acted",
        doc="Host of one that is not shared, by name, address or uuid; the master by default.",
    )  # fmt: skip
    shared: bool | None = xml(
        "@shared", type=simple.YesNo, default=None, effect="acted",
        doc="Whether all hosts of the pool use it; its type decides by default.",
    )  # fmt: skip
    content: str | None = xml(
        "@content", type=simple.Word, default=None, effect="acted", doc="Content type: user by default, iso, disk."
    )


class XenSource(Element):
    """The hosts' API, the repository and its device configuration."""

    rules = (exactly_one("hosts", "socket", paths=("host", "socket/@path")),)
    hosts: tuple[SourceHost, ...] = xml(
        "host", default=(), doc="Hosts of the pool; one is enough, the master is found."
    )
    socket: str | None = xml(
        "socket/@path", type=simple.AbsPath, default=None, effect="acted",
        doc="Local socket of the API, instead of hosts.",
    )  # fmt: skip
    api: XenApi = xml("api", default=XenApi, doc="How the hosts are spoken to.")
    name: str | None = xml(
        "name",
        type=simple.Text,
        default=None,
        effect="acted",
        doc="Name label of the repository; the pool's by default.",
    )
    repository: XenRepository = xml("sr", default=XenRepository, doc="The repository.")
    format: str = xml(
        "format/@type", type=simple.Word, effect="acted",
        doc="Type of the repository: nfs, lvmoiscsi, ext, lvm, iso ...",
    )  # fmt: skip
    auth: XenAuth | None = xml("auth", default=None, doc="Login; not needed on the local socket.")
    parameters: tuple[XenParameter, ...] = xml("param", default=(), doc="Device configuration.")


class XenPool(Pool):
    """A storage repository of XenServer or XCP-ng."""

    type: ClassVar[str] = "xensm"
    spare: ClassVar[dict[str, tuple[str, ...]]] = {}
    source: XenSource = xml("source", doc="The repository.")
    flavor: str | None = xml(
        "flavor", type=simple.Word, default=None, effect="kept", doc="Group of pools a volume may be placed in."
    )


class XenSearch(Element):
    """Where repositories are searched for."""

    tag: ClassVar[str] = "source"
    block: ClassVar[bool] = True
    rules = (exactly_one("hosts", "socket", paths=("host", "socket/@path")),)
    hosts: tuple[SourceHost, ...] = xml("host", default=(), doc="Hosts of the pool; the master is found.")
    socket: str | None = xml("socket/@path", type=simple.AbsPath, default=None, effect="acted", doc="Local socket.")
    api: XenApi = xml("api", default=XenApi, doc="How the hosts are spoken to.")
    auth: XenAuth | None = xml("auth", default=None, doc="Login; not needed on the local socket.")


class XenBackend(Backend):
    """The disks (VDIs) of a storage repository (SR). Each verb has a session of its own at the hosts."""

    type = "xensm"
    offers = ("thin", "snapshot", "shared")
    definition = XenPool
    searched = XenSearch
    source_formats = tuple(srtypes.TYPES)
    volume_formats = ("raw",)
    counts_volumes = False
    _sizes: Usage | None = None
    _uuid: str | None = None

    # -- the pool ---------------------------------------------------------------------------------------------------

    def claims(self) -> Iterable[str]:
        """The repository, by what the definition says of it; ``InvalidArgument`` for what cannot be."""
        login.check(self.pool)
        wanted = login.wanted(self.pool, self.host)
        which = wanted.uuid or " ".join(filter(None, (wanted.filter or f"{wanted.type} {wanted.label}", wanted.host)))
        return (f"repository {which} at {self.marks()}",)

    @contextlib.contextmanager
    def repositories(self, doing: str, volume: str | None = None) -> Iterator[Repositories]:
        """A session, for what is done with the repository; ``doing`` says what that is."""
        with login.session(self.pool, self.host, volume, doing) as api:
            yield Repositories(api, login.wanted(self.pool, self.host), self._undo)

    @contextlib.contextmanager
    def disks(self, doing: str, volume: str | None = None) -> Iterator[Disks]:
        """A session, for what is done with disks."""
        with self.repositories(doing, volume) as repositories:
            yield Disks(repositories.api, repositories.need(), self.pool.name, self._undo)

    def _undo(self, words: str, *what: Any) -> Undo:
        return away.taken_back(self, words, *what)

    def state(self, *, closely: bool = False) -> State:
        """Up as far as this host knows. Asked ``closely``, lame where no host has the repository plugged any more."""
        if not closely:
            return State(True, whole=False)
        with self.repositories("look at the repository") as repositories:
            found = repositories.find()
            return State(True, whole=False, lame=found is None or not repositories.plugged(found))

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the repository; says whether it was not there."""
        with self.repositories("make the repository") as repositories:
            return repositories.build(overwrite=overwrite)

    def start(self) -> None:
        """Introduce the repository if it is named by its uuid, and plug it where it is not."""
        if self.host.dry_run:
            self.host.step("introduce and plug the repository where it is not")
            return
        with self.repositories("start the repository") as repositories:
            self._uuid = repositories.start()

    def storage(self) -> str | None:
        """The uuid of the repository that was started."""
        return self._uuid

    def stop(self) -> None:
        """Unplug what start plugged; what others plugged stays so."""
        with self.repositories("stop the repository") as repositories:
            repositories.stop(repositories.find())

    def erase(self) -> bool:
        """Destroy the repository, which must be empty."""
        with self.repositories("destroy the repository") as repositories:
            return repositories.erase()

    def erased(self) -> Erased:
        """The repository; what others share a server with it stays."""
        return Erased(f"the repository '{self.pool.source.name or self.pool.name}'")

    def offered(self) -> tuple[str, ...]:
        """What the type of repository has of it."""
        return srtypes.offered(self.pool.source.format, shared=login.wanted(self.pool, self.host).shared)

    def undefined(self) -> None:
        """The hosts forget the repository if it was introduced for this pool."""
        if self.pool.source.repository.uuid is not None:
            with self.repositories("forget the repository") as repositories:
                repositories.forget()

    # -- the listing ------------------------------------------------------------------------------------------------

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """Every disk that is a volume, after a scan of the storage."""
        with self.disks("list the disks") as found:
            found.scan()
            yield from found.volumes(known)
            self._sizes = found.usage()

    def changes(self, since: str = "") -> str:
        """Wait for an event of the hosts that is about a disk of the repository."""
        with self.disks("wait for changes") as found:
            return following.wait(found.api, found.repository.ref, since)

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The sizes of the repository."""
        if self._sizes is None:
            with self.disks("read the sizes") as found:
                self._sizes = found.usage()
        sizes, self._sizes = self._sizes, None
        return sizes

    def provisioned(self, volumes: Iterable[VolumeInfo]) -> int:
        """As the hosts count it, with what others have made since the listing; asked before ``usage``, which asks no more."""
        with self.disks("read the sizes") as found:
            self._sizes = found.usage()
            return max(0, int(found.repository.record["virtual_allocation"]))

    def marks(self) -> str:
        """The hosts."""
        return self.pool.source.socket or ",".join(sorted(map(str, login.place(self.pool).addresses)))

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        """What the disks of the hosts say of themselves."""
        with self.disks("look for what was placed", name) as found:
            label = None if name is None else naming.label(name, self.pool.name)
            return marks.placed(found.api, found.repository.ref, flavor, label)

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """Every repository that the hosts know, as a definition of a pool that uses it by its uuid."""
        given = XenSource(
            hosts=source.hosts, socket=getattr(source, "socket", None), api=getattr(source, "api", XenApi()), format="any",
            auth=source.auth,
        )  # fmt: skip
        with searching.session(XenPool(name="", source=given), host) as api:
            for found in searching.repositories(api):
                known = srtypes.known(found.type)
                shared = None if known is not None and known.shared == found.shared else found.shared
                repository = XenRepository(uuid=found.uuid, shared=shared)
                name = found.label if found.label.isprintable() else ""
                there = replace(given, repository=repository, format=found.type, name=name or None)
                made = XenPool(name=found.name, source=there)
                if fault := next(faults(made), None):
                    host.warn(f"repository {found.uuid} of type '{found.type[:60]}' is left out: {fault}")
                else:
                    yield made

    def settle(self, info: VolumeInfo) -> None:
        """The disk says so."""
        with self.disks("settle the disk", info.name) as found:
            marks.settle(found.api, *found.same(info))

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One disk as it is now."""
        with self.disks("look at the disk", name) as found:
            return found.look(name, known)

    def rounded(self, capacity: int) -> int:
        """Whole blocks of a VHD, where that is what the type keeps disks in."""
        return rounded(self.pool.source.format, capacity)

    def capacity_of(self, volume: Volume) -> int | None:
        """Known for VHDs. Elsewhere the hosts' driver decides; of LUNs the smallest that is free and large enough is taken."""
        found = srtypes.known(self.pool.source.format)
        return super().capacity_of(volume) if found and found.kind in ("vhd", "lvm") else None

    # -- new disks --------------------------------------------------------------------------------------------------

    def create(self, volume: Volume) -> VolumeInfo:
        """Make a disk of zeros; where disks are LUNs that exist, take the smallest that is large enough."""
        capacity = space.capacity_given(volume)
        if volume.backing_store is not None:
            raise errors.Unsupported(
                f"volume '{volume.name}': a disk that shares data is made by cloning", volume=volume.name,
                hint=errors.Hint("clone it: ", errors.Option("linked")),
            )  # fmt: skip
        return self._made(volume, capacity)

    def own(self, source: Source) -> bool:
        """A disk of the same hosts is copied there."""
        ours, theirs = self.pool.source, source.pool
        return isinstance(theirs, XenPool) and (ours.hosts, ours.socket) == (theirs.source.hosts, theirs.source.socket)

    def clone(
        self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None,
        secret: bytes | None = None,
    ) -> VolumeInfo:  # fmt: skip
        """Make a disk with the content of ``source``.

        ``linked`` shares the data of a disk of this repository; with the name ``DISK@TAG`` it makes a snapshot of ``DISK``.
        """
        if reflink:
            raise errors.Unsupported(
                f"volume '{volume.name}': disks share no blocks on demand", volume=volume.name,
                hint=errors.Hint("a clone that shares the data of a disk: ", errors.Option("linked")),
            )  # fmt: skip
        size = max(volume.capacity or 0, source.capacity)
        if linked:
            return self._linked(volume, source, size)
        found = srtypes.known(self.pool.source.format)
        if self.own(source) and not (found and found.kind == "lun"):
            return self._made(volume, size, lambda there: there.copied_from(source.info))
        with filling.raw(self.host, source, secret=secret) as fd:
            return self._made(volume, size, lambda there: there.filled(volume.name, fd, source.capacity))

    def _linked(self, volume: Volume, source: Source, size: int) -> VolumeInfo:
        if not self.own(source) or source.pool.name != self.pool.name:
            raise errors.Unsupported(
                f"{source} is not in this repository, so no disk can share its data", volume=volume.name, hint="copy it"
            )
        snapshot = volume.name.startswith(f"{source.info.name}@")
        with self.disks("share its data", volume.name) as found:
            made = found.branch(volume.name, source.info, snapshot=snapshot, size=size, mark=self.mark)
        return made or source.info._replace(name=volume.name)

    def _made(self, volume: Volume, size: int, fill: Callable[[Disks], Fill] | None = None) -> VolumeInfo:
        name = volume.name
        if volume.target.format not in (None, "raw", "unknown") or volume.target.encryption is not None:
            raise errors.Unsupported(f"volume '{name}': disks are raw to who uses them", volume=name)
        with self.disks("make the disk", name) as found:
            found.require("VDI_CREATE", "create volumes")
            made = found.make(name, self.rounded(size), fill(found) if fill else None, self.mark)
        return made or VolumeInfo(name, "network", "raw", size)

    def take_back(self, *what: Any) -> None:
        """Undo of what was made; only what is still that."""
        kind, *more = what
        with self.repositories("take a change back") as repositories:
            if kind == "vbd":
                machines.take_back(repositories.api, more[1])
            elif kind not in ("new", "made"):
                repositories.take_back(kind, *more)
            elif (found := repositories.find()) is not None:
                Disks(repositories.api, found, self.pool.name, self._undo).take_back(kind, *more)

    # -- changes ----------------------------------------------------------------------------------------------------

    def resize(self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False) -> VolumeInfo:
        """Let a disk grow."""
        if allocate:
            raise errors.Unsupported(
                f"volume '{info.name}': repositories reserve no space by themselves", volume=info.name
            )
        if capacity < info.capacity:
            raise errors.Unsupported(f"volume '{info.name}': disks of repositories cannot shrink", volume=info.name)
        with self.disks("grow the disk", info.name) as found:
            found.resize(info, capacity)
            return found.look(info.name, info)

    def delete(self, info: VolumeInfo) -> None:
        """Destroy a disk or a snapshot. Others that share its data keep it."""
        with self.disks("destroy the disk", info.name) as found:
            found.delete(info)

    def wipe(self, info: VolumeInfo, algorithm: str = "zero") -> VolumeInfo:
        """Write zeros over a disk."""
        wiping.check_algorithm(algorithm)
        if algorithm != "zero":
            raise errors.Unsupported(
                f"volume '{info.name}': what a repository does with '{algorithm}' would be less than it promises",
                volume=info.name, hint="use zero",
            )  # fmt: skip
        with self.disks("wipe the disk", info.name) as found:
            packed.require_open(info)
            found.same(info)
            if self.host.step(f"wipe {info.name} with {algorithm}"):
                found.moving(str(info.key), info.name).zero(self.host, info.capacity)
            return found.look(info.name, info)

    def attach(
        self, info: VolumeInfo, *, shared: bool = False, node: str | None = None, vm: str | None = None
    ) -> VolumeInfo:
        """Plug a disk into a virtual machine of the hosts. Without one nothing is to be done: the path says what the disk is."""
        machines.refuse_node(info, node)
        with self.disks("attach the disk", info.name) as found:
            if vm is not None:
                Machines(found, info, self._undo).attach(vm, shared=shared)
            return found.look(info.name, info)

    def detach(
        self, info: VolumeInfo, *, node: str | None = None, force: bool = False, vm: str | None = None
    ) -> VolumeInfo:
        """Take a disk from a machine, or from all that ``attach`` plugged it into."""
        machines.refuse_node(info, node)
        with self.disks("detach the disk", info.name) as found:
            Machines(found, info, self._undo).detach(vm, force=force)
            return found.look(info.name, info)

    # -- bytes ------------------------------------------------------------------------------------------------------

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, *, form: str | None = None) -> VolumeInfo:
        """Write the bytes of ``stream`` over those of the disk, or what is in it as a ``form``."""
        packed.check(info, transfer, form)
        space.check_range(info.name, transfer, info.capacity)
        packed.require_open(info)
        if not self.host.step(f"upload to {info.name} from byte {transfer.offset}"):
            return info
        with self.disks("write the disk", info.name) as found:
            found.same(info)
            packed.upload(self.host, found.moving(str(info.key), info.name), info, stream, transfer, form)
            return found.look(info.name, info)

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer, *, form: str | None = None) -> int:
        """Write the bytes of a disk to ``stream``, as they are or as a ``form``."""
        packed.check(info, transfer, form)
        space.check_range(info.name, transfer, info.capacity)
        with self.disks("read the disk", info.name) as found:
            found.same(info)
            return packed.download(self.host, found.moving(str(info.key), info.name), info, stream, transfer, form)

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        """Write the bytes of a disk into an open file or device, holes left out."""
        with self.disks("read the disk", info.name) as found:
            found.same(info)
            found.moving(str(info.key), info.name).send_to(self.host, fd, info.capacity)
