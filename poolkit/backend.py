"""What a storage backend is: a stateless executor for one pool definition on one host.

A backend is one file in ``poolkit/backends`` (or a class that an installed package offers under the entry point group
``poolkit.backends``) with the definition class of its pool type and a subclass of :class:`Backend`. Only ``usage`` and
``volumes`` must be written; every other verb is optional, and what a class overrides is what its pools can do. A backend
sees no states, no locks, no files of ours and no events; it talks to the machine through ``self.host`` alone.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

from poolkit import errors
from poolkit.facts import (
    DiskSource,
    Erased,
    Mark,
    Outside,
    Placed,
    Recorded,
    Source,
    State,
    Transfer,
    Usage,
    VolumeInfo,
)
from poolkit.lean import TYPE_CHECKING
from poolkit.names import check_volume_name, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO, ClassVar

    from poolkit.host.port import Host
    from poolkit.listing import Listing
    from poolkit.model import Volume

    DefinitionClass = type[Any]  # inside Backend the name `type` is the pool type

__all__ = [
    "VERBS", "Backend", "DefinitionOnly", "DiskSource", "Erased", "Mark", "Outside", "Placed", "Recorded", "Source", "State",
    "Transfer", "Usage", "VolumeInfo", "check_volume_name", "quoted",
]  # fmt: skip


# The verbs a backend may have beyond usage and volumes, in the order `capabilities` names them.
VERBS = (
    "build", "start", "stop", "erase", "create", "clone", "resize", "permit", "delete", "wipe", "upload",
    "download", "overwrite", "attach", "detach", "discover",
)  # fmt: skip

# Verbs that are no English ones with "volumes" behind them.
_SAID = {"upload": "write into", "download": "read", "permit": "change who may use"}


class Backend:
    """The base of all backends; see the module's text. Raises :class:`~poolkit.errors.Unsupported` for missing verbs."""

    type: ClassVar[str]
    definition: ClassVar[DefinitionClass]
    tools: ClassVar[tuple[str, ...]] = ()
    """Programs, and libraries by their file names, that it needs for anything at all; ``poolkit doctor`` reports them."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Debian's package for each program that it uses, where the two differ in name."""
    bytewise: ClassVar[tuple[str, ...]] = ()
    """Programs that hand the bytes of names on as they are, and start sooner without a character set and its dozen files."""
    needs_root: ClassVar[tuple[str, ...]] = ()
    """Those of ``start``, ``build`` and ``discover`` that only root can do: others get a sentence, and not a tool's."""
    may_hang: ClassVar[tuple[str, ...]] = ()
    """Methods that touch storage which may never answer, such as a mounted directory of a dead server.

    They are done by a child process with a backend of its own of this class, which is given up when ``answers`` says so. What a
    descriptor of ``open_volume`` is used for stays in this process.
    """
    working_on: str | None = None
    """While ``answers`` is asked: the volume that the work is about; None if it is about all."""
    below_by_detail: ClassVar[bool] = False
    """Whether ``below`` follows from ``detail`` and the target alone: it is asked once for all volumes that have the same."""
    file_backed: ClassVar[bool] = False
    """Volumes are entries of the directory ``target.path``: their path is that directory and their name.

    No other active pool of such a type may list the same directory, whatever path leads to it.
    """
    together: ClassVar[bool] = False
    """A volume and its backing store in the same pool are one, as where both are active together: who works on the one has the
    other as well, so that what is looked at of both stays so."""
    keeps_formats: ClassVar[bool] = False
    """Volumes have formats of their own, which stay on record: a guest that writes another header changes none.

    The engine keeps the record, and hands it to ``volumes`` and ``look`` of such a class as ``recorded``: of the names that it
    knows a format of, or of the one that is looked at (:class:`Recorded`). It goes before what ``known`` says, for a file that
    has its inode number, and means nothing for any other.
    """
    usual_target: ClassVar[str | None] = None
    """The target path of a definition that is made of what ``discover`` found; ``{name}`` in it is the pool's name."""
    searched: ClassVar[Any] = None
    """The class of the ``<source>`` that tells ``discover`` where to look; ``poolkit.documents.FoundSource`` by default."""
    counts_volumes: ClassVar[bool] = True
    """Whether ``usage`` looks at the volumes it is given; they are read for it after every verb."""
    offers: ClassVar[tuple[str, ...]] = ()
    """What volumes can have beyond the verbs, in the words that a flavor may require: thin, snapshot, shared, encryption."""
    mark: Mark | None = None
    """What the next volume that is made is to be marked with, where ``marks`` says that there are such."""
    source_formats: ClassVar[tuple[str, ...]] = ()
    """``<source><format type=…>`` values, the default first."""
    volume_formats: ClassVar[tuple[str, ...]] = ()
    """``<target><format type=…>`` values of volumes, the default first."""

    def __init__(self, definition: Any, host: Host) -> None:
        self.pool = definition
        self.host = host
        host.packages.update(self.packages)
        host.bytewise.update(self.bytewise)

    # -- the pool -------------------------------------------------------------------------------------------------

    @classmethod
    def lacks(cls) -> errors.ToolMissing | None:
        """What the type cannot do without beside programs, such as a library, and this machine does not have."""
        return None

    def claims(self) -> Iterable[str]:
        """What no other pool may claim: ``target DIR``, ``device PATH`` ... Asked at define; must not touch the host."""
        target = getattr(self.pool, "target", None)
        path = getattr(target, "path", None)
        return (f"target {os.path.normpath(path)}",) if path and self.file_backed else ()

    def state(self, *, closely: bool = False) -> State:
        """Whether the pool's storage is up now. Asks the host, changes nothing.

        A list of a thousand pools asks this a thousand times: it must not wait for anybody. With ``closely``, which is asked
        when an active pool is to be started, it may take its time to find out whether the pool is lame.
        """
        return State(True)

    def answers(self) -> bool:
        """Whether the storage still answers: asked while a method of ``may_hang`` says nothing for some seconds.

        Must end by itself, as a program with a time limit does. False gives the work up.
        """
        return False

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the storage the definition describes; ``overwrite`` allows to destroy what is there.

        Returns whether anything was changed; what is built already is left as it is. Raises ``Unsafe`` when the source
        holds something else and ``overwrite`` was not given.
        """
        raise self.unsupported("build")

    def start(self) -> None:
        """Bring the storage up. Starting what is up changes nothing."""

    def stop(self) -> None:
        """Take the storage down; no data changes. Stopping what is down changes nothing."""

    def erase(self) -> bool:
        """Delete what ``build`` made. Returns whether anything was there. Refuses what is not empty."""
        raise self.unsupported("erase", "delete")

    def erased(self) -> Erased:
        """What ``erase`` removes, and what stays of the pool's storage. Must not touch the host."""
        return Erased("what build made")

    def undefined(self) -> None:
        """Take away what only stood for the pool elsewhere, as its definition goes; data stays. By default there is nothing.

        Asked of an inactive pool. An error is told as a warning, and does not keep the definition.
        """

    def storage(self) -> str | None:
        """What tells the storage that is up from another in its place, as a text for ``changed_since``; None if nothing does.

        Asked once, when the pool has been started, and kept as long as it is active. Must not wait for anybody.
        """
        return None

    def moved_since(self, noted: str) -> bool:
        """Whether the volumes may be others than when ``storage`` noted that, as when another host has changed them.

        The pool is listed anew at the next look then, and what differs is told. Asked as often as whether the pool is up. Must
        not wait for anybody. Only for storage that tells it at no cost: ``storage`` is noted anew with each such listing.
        """
        return False

    def changed_since(self, noted: str) -> str:
        """Why what is up is not the storage that ``storage`` noted, as the end of a sentence; empty if it is.

        Asked as often as whether the pool is up. Must not wait for anybody.
        """
        return ""

    def live(self) -> Any:
        """The definition completed with what only the running storage tells (owner and mode, free extents)."""
        return self.pool

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The pool's sizes. Asked of the same object right after ``volumes``, with what that gave: nothing is asked twice.

        Asked as well after each verb that changes a volume, with the volumes that are on record.
        """
        raise self.unsupported("usage", "refresh")

    def provisioned(self, volumes: Iterable[VolumeInfo]) -> int:
        """Bytes of capacity that all volumes have together: what an over-subscription ratio limits. Asked with the listing."""
        return sum(volume.capacity for volume in volumes)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All volumes. ``known`` has the last listing by name: a volume whose stamp is unchanged is yielded from there."""
        raise self.unsupported("volumes", "refresh")

    def scan(self, found: Listing, **how: Any) -> None:
        """Put all volumes into ``found``, whose ``known`` is that of ``volumes``, as ``how`` is; the default asks that.

        For types of which a pool has so many volumes that an object for each costs more than the look at it.
        """
        for info in self.volumes(found.known, **how):
            found.add(info)

    def changes(self, since: str = "") -> str:
        """Wait until a volume has been made, changed or deleted after ``since``, an earlier answer; what to go on from.

        At once without ``since``, and where that is too long ago to be told. For storage that tells of changes by itself;
        it is asked without any lock, and ends when the caller asks to stop.
        """
        raise self.unsupported("changes", "tell of changes by themselves")

    def marks(self) -> str:
        """Where the storage keeps the marks of flavors with its volumes, for all who use it; empty if it keeps none.

        The same text for all pools of which one call of ``placed`` tells. Must not touch the host.
        """
        return ""

    def placed(self, flavor: str, name: str | None = None) -> list[Placed]:
        """All volumes that were made with a ``mark`` of that flavor, or those of one name, in all pools that ``marks`` means.

        Those that are being made are told as well, from the moment they are there. Copies and snapshots are none.
        """
        raise self.unsupported("placed", "tell what flavors have placed")

    def settle(self, info: VolumeInfo) -> None:
        """Note with a volume that was made with a ``mark`` that it stays: ``placed`` tells it from now on. Repeatable."""
        raise self.unsupported("settle", "keep the marks of flavors")

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One volume as it is now, or ``VolumeNotFound``. The default walks ``volumes``."""
        for info in self.volumes({} if known is None else {name: known}):
            if info.name == name:
                return info
        raise self.missing(name)

    # -- volumes ----------------------------------------------------------------------------------------------------

    def create(self, volume: Volume) -> VolumeInfo:
        """Make a volume. It appears whole or not at all; ``VolumeExists`` if the name is taken."""
        raise self.unsupported("create", "vol-create")

    def clone(self, volume: Volume, source: Source, *, linked: bool = False, reflink: bool | None = None) -> VolumeInfo:
        """Make a volume with the content of ``source``; whole or not at all, ``VolumeExists`` if the name is taken.

        ``volume.capacity`` is that of the source or larger. ``linked`` makes an overlay or snapshot that shares the
        source's data; ``reflink`` True demands shared blocks, False demands a copy.
        """
        raise self.unsupported("clone", "vol-clone")

    def own(self, source: Source) -> bool:
        """Whether ``clone`` asks the storage itself to copy ``source``, so that nobody has to open it."""
        return False

    def overwrite(self, info: VolumeInfo, source: Source) -> VolumeInfo:
        """Put the content of ``source``, images as what they hold, in the place of that of a volume which exists.

        For types whose volumes are made elsewhere; the others have ``clone``. ``InvalidArgument`` if it does not fit.
        """
        raise self.unsupported("overwrite", "copy a volume onto one that exists")

    def open_volume(self, info: VolumeInfo, *, write: bool = False) -> AbstractContextManager[int]:
        """A descriptor of a volume's bytes (regular file or block device), never reached through a planted link.

        What ``clone`` of any other backend reads from, and what upload, download and wipe of this one work on.
        """
        raise self.unsupported("open_volume", f"open volume '{info.name}' as a file")

    def copy_to(self, info: VolumeInfo, fd: int) -> None:
        """Write a volume's bytes, as they are, into the open file or device ``fd``, which reads as zeros: holes are left out.

        For storage that no descriptor can reach, instead of ``open_volume``: what ``clone`` of any other backend gets the
        bytes from. ``fd`` is at least as large as the volume, or a file that grows.
        """
        raise self.unsupported("copy_to", f"copy volume '{info.name}' elsewhere")

    def source(self, info: VolumeInfo) -> Source:
        """The volume as something that another volume, of any pool type, can be made from."""
        path = info.path or f"{getattr(getattr(self.pool, 'target', None), 'path', None) or ''}/{info.name}"
        if not self.sends():
            return Source(self.pool, info, path, lambda: self.open_volume(info))
        return self.sent(info, path, lambda fd: self.copy_to(info, fd))

    def sent(self, info: VolumeInfo, path: str, sender: Callable[[int], object]) -> Source:
        """The source that ``sender`` brings; see :meth:`copy_to`."""
        return Source(self.pool, info, path, lambda: self.host.spooled(info.allocation, sender), sender)

    def disk_source(self, info: VolumeInfo) -> DiskSource:
        """Where the bytes of a volume are for a machine: a source of :mod:`poolkit.disks`.

        ``vol-disk-xml`` makes libvirt's ``<disk>`` and QEMU's ``-blockdev`` of it, with the format on record and the secret of an
        encrypted volume; none of that is the backend's affair. Asks nobody and changes nothing. By default what the volume's
        type says: a file, or a block device that is opened past the host's page cache. A type whose volumes are reached over
        the network gives a ``NetworkSource`` with servers and login; it raises ``Unsupported`` for a volume that no machine
        can use, such as a snapshot that cannot be opened by itself.
        """
        from poolkit import disks

        path = info.path or f"{getattr(getattr(self.pool, 'target', None), 'path', None) or ''}/{info.name}"
        if info.type == "file":
            return DiskSource(disks.FileSource(file=path))
        if info.type == "block":
            return DiskSource(disks.BlockSource(dev=path), cache="none", io="native")
        raise self.unsupported("disk_source", f"give volume '{info.name}' to a machine: it is of type {info.type}")

    def landing(self) -> AbstractContextManager[int]:
        """A descriptor of an empty file that only this user can reach, for an image on its way to ``clone``; gone afterwards.

        By default it is in ``$TMPDIR``, else in ``/var/tmp``. A backend may have a place where ``clone`` costs less.
        """
        return self.host.spooled(0, lambda fd: None)

    def below(self, info: VolumeInfo) -> tuple[str, ...]:
        """Paths of the volumes, of this or other pools, that this one stands on: what is lost with any of them.

        By default the backing store that ``detail`` names. The engine lets none of them be deleted or overwritten without
        ``force``, but for those in the same folder of devices: there the storage itself knows what stands on what.
        """
        backing = (info.detail or {}).get("backing")
        return (str(backing),) if backing else ()

    def stands_on(self) -> Iterable[str]:
        """Devices and folders of this host that the pool needs while it is active, besides those that it claims.

        A pool or volume that one of them belongs to is not stopped or deleted without ``force``. Must not wait for anybody.
        """
        return ()

    def identity(self, info: VolumeInfo) -> Any:
        """What stays the same as long as the volume is itself: work that would meet another one under its name is refused."""
        return info.key

    def rounded(self, capacity: int) -> int:
        """The capacity in bytes that a volume really gets when ``capacity`` is asked for; asked before ``resize``."""
        return capacity

    def check_new(self, volume: Volume) -> None:
        """Raise what :meth:`create` would say of this definition whatever the storage holds. Asked by plans; touches no host."""

    def fixed_size(self, info: VolumeInfo) -> str | None:
        """Why :meth:`resize` can give that volume no other capacity; None if it may. Asked by plans; touches no host."""
        return None if "resize" in self.verbs() else f"pools of type '{self.type}' cannot resize volumes"

    def capacity_of(self, volume: Volume) -> int | None:
        """The capacity that :meth:`create` gives a volume of this definition; None where that does not say it.

        Asked to compare a document with a volume, for thousands of them: must not touch the host where that can be helped.
        """
        return self.rounded(volume.capacity) if volume.capacity else None

    def resize(self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False) -> VolumeInfo:
        """Set the capacity of a volume, in bytes; growing keeps all data, shrinking needs ``shrink``."""
        raise self.unsupported("resize", "vol-resize")

    def permit(self, info: VolumeInfo, mode: int | None, owner: int | None, group: int | None) -> VolumeInfo:
        """Set permission bits, owner and group of a volume; None leaves one as it is."""
        raise self.unsupported("permit", "vol-permit")

    def delete(self, info: VolumeInfo) -> None:
        """Delete a volume and its data."""
        raise self.unsupported("delete", "vol-delete")

    def wipe(self, info: VolumeInfo, algorithm: str) -> VolumeInfo | None:
        """Overwrite or discard the data of a volume; it keeps its name and size. None: the caller looks at it anew."""
        raise self.unsupported("wipe", "vol-wipe")

    def upload(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> VolumeInfo:
        """Write the bytes of ``stream`` into the volume's storage, as they are."""
        raise self.unsupported("upload", "vol-upload")

    def download(self, info: VolumeInfo, stream: BinaryIO, transfer: Transfer) -> int:
        """Write the volume's bytes, as they are, to ``stream``; returns how many."""
        raise self.unsupported("download", "vol-download")

    def exclusive(self, verb: str) -> AbstractContextManager[None]:
        """A bracket around a verb that changes storage that hosts share, or a volume of it (``build``, ``vol-create`` ...).

        Attaching and detaching for another node are ``vol-allow`` and ``vol-forget``.
        Raises ``RoleForbidden`` for what this host may not do (``self.host.node``), before anything is run, and
        ``LockUnavailable`` or ``Busy`` where other hosts cannot be kept out. By default nothing is shared.
        """
        return nullcontext()

    def attach(self, info: VolumeInfo, *, shared: bool = False, node: str | None = None) -> VolumeInfo:
        """Make a volume usable on this host, and on no other one unless ``shared``. Returns it as it is then. Repeatable.

        What is to be used by a machine is ``path`` of the result. ``node`` allows another host to attach it, where the
        storage needs that. ``Busy``, naming the host, for what is attached elsewhere.
        """
        raise self.unsupported("attach", "vol-attach")

    def detach(self, info: VolumeInfo, *, node: str | None = None, force: bool = False) -> VolumeInfo:
        """End what ``attach`` began. Repeatable. ``Busy`` while the volume is in use here.

        ``node`` ends it for another host, which is known to be dead: that needs ``force``.
        """
        raise self.unsupported("detach", "vol-detach")

    def attach_listed(
        self, info: VolumeInfo, noted: str, *, shared: bool = False, node: str | None = None
    ) -> VolumeInfo | None:
        """As ``attach``, of a volume as it was listed when ``storage`` was ``noted``, without a look before and after.

        For storage that compares and acts in one step. None if that cannot be, or the volume was not as listed any more: then
        ``attach`` follows, which finds what was done here. The role of the host has to be looked at here as well.
        """
        return None

    def detach_listed(
        self, info: VolumeInfo, noted: str, *, node: str | None = None, force: bool = False
    ) -> VolumeInfo | None:
        """As ``detach``; see :meth:`attach_listed`."""
        return None

    def take_control(self) -> bool:
        """Make this host the one that changes the storage, whichever was before. Returns whether anything changed."""
        raise self.unsupported("take_control", "take-control")

    def lock_status(self) -> Mapping[str, Any]:
        """What keeps the hosts of the storage apart, and who has what, as plain values by name. Changes nothing."""
        raise self.unsupported("lock_status", "lock-status")

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """Sources of this type that exist on ``source`` (see ``searched``; None for this host), or definitions of pools."""
        raise errors.Unsupported(f"sources of {cls.type} pools cannot be searched for")

    # -- undo by storage of its own kind ------------------------------------------------------------------------------

    def take_back(self, *what: Any) -> None:
        """Take a change back that the undo step of ``poolkit.families.away.taken_back`` described, for which no program is.

        Harmless when it never happened, and when it is done twice. Must end by itself: what it waits for has a time limit.
        ``Unreachable`` has it tried again later.
        """
        raise self.unsupported("take_back", f"take back {what}")

    # -- words --------------------------------------------------------------------------------------------------------

    def unsupported(self, method: str, verb: str | None = None) -> errors.Unsupported:
        """The error for a verb that this type of pool does not have."""
        words = verb or method
        if words.startswith("vol-"):
            done = words.removeprefix("vol-")
            words = f"{_SAID.get(done, done)} volumes"
        return errors.Unsupported(
            f"pool '{self.pool.name}': pools of type '{self.type}' cannot {words}", pool=self.pool.name
        )

    def require_options(self, verb: str, options: Mapping[str, Any]) -> None:
        """Raise ``Unsupported`` for an option that this backend's ``verb`` does not know."""
        if options:
            import inspect

            known = inspect.signature(getattr(self, verb)).parameters
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
                return  # it hands them on
            for name in sorted(options.keys() - known.keys()):
                raise errors.Unsupported(
                    f"pool '{self.pool.name}': {verb} does not know '{name}' in pools of type '{self.type}'",
                    pool=self.pool.name,
                )

    def missing(self, name: str) -> errors.VolumeNotFound:
        """The error for a volume that is not there."""
        return errors.VolumeNotFound(
            f"pool '{self.pool.name}' has no volume '{name}'", pool=self.pool.name, volume=name
        )

    def replaced(self, what: str, volume: str) -> errors.Unsafe:
        """The error for something that is no longer the volume that was listed; ``what`` names it, quotes included."""
        return errors.Unsafe(
            f"{what} was replaced since it was listed; it was left alone", pool=self.pool.name, volume=volume,
            hint=errors.Hint("list it anew: ", errors.remedy("refresh", self.pool.name)),
        )  # fmt: skip

    def offered(self) -> tuple[str, ...]:
        """As ``offers``, of this pool: its definition may say that it has less. Must not touch the host."""
        return self.offers

    @classmethod
    def sends(cls) -> bool:
        """Whether the bytes of its volumes have no descriptor: the class has ``copy_to``."""
        return _function(cls, "copy_to") is not _function(Backend, "copy_to")

    @classmethod
    def verbs(cls) -> tuple[str, ...]:
        """The optional verbs that this class has: those it overrides, so the answer cannot disagree with the code."""
        return tuple(v for v in VERBS if _function(cls, v) is not _function(Backend, v))


class DefinitionOnly(Backend):
    """A pool type whose definitions are read, checked and kept, and whose storage this version cannot drive."""

    def state(self, *, closely: bool = False) -> State:
        """Never up."""
        return State(False, why="this version cannot drive it")

    def start(self) -> None:
        """Says that the type cannot be started."""
        raise errors.Unsupported(
            f"pool '{self.pool.name}': this version can keep definitions of type '{self.type}', not start them",
            pool=self.pool.name,
        )


def _function(cls: type, name: str) -> object:
    attribute = getattr(cls, name)
    return getattr(attribute, "__func__", attribute)
