"""What a storage backend is: a stateless executor for one pool definition on one host.

A backend is one file in ``poolkit/backends`` (or a class that an installed package offers under the entry point group
``poolkit.backends``) with the definition class of its pool type and a subclass of :class:`Backend`. Only ``usage`` and
``volumes`` must be written; every other verb is optional, and what a class overrides is what its pools can do. A backend
sees no states, no locks, no files of ours and no events; it talks to the machine through ``self.host`` alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

from poolkit import errors
from poolkit.values import value

if TYPE_CHECKING:
    from poolkit.host.port import Host
    from poolkit.model import Volume

DefinitionClass = type[Any]  # inside Backend the name `type` is the pool type

# The verbs a backend may have beyond usage and volumes, in the order `capabilities` names them.
VERBS = (
    "build", "start", "stop", "erase", "create", "clone", "resize", "delete", "wipe", "upload", "download",
    "discover",
)  # fmt: skip


class Usage(NamedTuple):
    """Sizes of a pool in bytes."""

    capacity: int
    allocation: int
    available: int


class State(NamedTuple):
    """Whether a pool's storage is up.

    ``why`` says why it is not, as the end of a sentence ("nothing is mounted at '/x'"). ``whole`` False: a part of what is up
    may be down, so that starting the pool has work to do. ``lame``: what is up can never work again and has to be started
    anew; told only where ``Backend.state`` was asked to look closely.
    """

    up: bool
    whole: bool = True
    lame: bool = False
    why: str = ""


class Erased(NamedTuple):
    """What ``erase`` removes and what it leaves there, in words that begin or end a sentence; ``stays`` is empty for nothing."""

    removed: str
    stays: str = ""


class VolumeInfo(NamedTuple):
    """One volume as a backend finds it; sizes in bytes, times in nanoseconds since 1970.

    ``stamp`` changes whenever the volume does: a refresh that finds it unchanged keeps what it knows. It is 0 where that
    cannot be told. ``detail`` has the rarer facts, by name: ``backing``, ``backing_format``, ``encryption``, ``compat``,
    ``cluster_size``, ``features``, ``extents``, ``warning``, ``error`` ...; all are plain JSON values.
    """

    name: str
    type: str = "file"
    format: str = ""
    capacity: int = 0
    allocation: int = 0
    physical: int = 0
    stamp: int = 0
    inode: int = 0
    mode: int = 0
    owner: int = 0
    group: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    key: str | None = None
    path: str | None = None
    detail: Mapping[str, Any] | None = None

    @property
    def recorded(self) -> bool:
        """Whether the format is a fact to keep: it was read, and the file passes for no other or is known by its record."""
        detail = self.detail or {}
        return not detail.get("unread") and (not detail.get("ambiguous") or bool(detail.get("replaced")))

    @property
    def problem(self) -> str:
        """What is wrong with the volume, or where its content contradicts the format on record; else an empty string."""
        detail = self.detail or {}
        if detail.get("error"):
            return str(detail["error"])
        if detail.get("ambiguous") or detail.get("looks_like"):
            return str(detail.get("warning") or "it passes for several formats")
        return ""


class Transfer(NamedTuple):
    """The range of an upload or download: ``length`` 0 means to the end. ``sparse`` keeps holes as holes."""

    offset: int = 0
    length: int = 0
    sparse: bool = False


@value(frozen=True)
class Source:
    """What a new volume is made from: a volume of this or another pool, handed over by its own backend.

    ``pool`` is the definition of the pool it belongs to (a backend that finds its own pool here may use a means of its
    own, such as a snapshot); ``info`` the volume as it is now. ``path`` is for tools and people. The format is the recorded
    one, never a guess. Built by :meth:`Backend.source`.
    """

    pool: Any
    info: VolumeInfo
    path: str
    opener: Callable[[], AbstractContextManager[int]]

    def open(self) -> AbstractContextManager[int]:
        """A context manager that gives a read-only descriptor of the bytes: a regular file or block device, checked.

        Raises ``Unsafe`` for anything else, and ``Unsupported`` for storage that no descriptor can reach.
        """
        return self.opener()

    @property
    def format(self) -> str:
        """The recorded format; storage without formats is ``raw``."""
        return self.info.format or "raw"

    @property
    def capacity(self) -> int:
        """Bytes that a machine sees."""
        return self.info.capacity

    @property
    def allocation(self) -> int:
        """Bytes in use."""
        return self.info.allocation

    def __str__(self) -> str:
        return f"volume '{self.info.name}' of pool '{self.pool.name}'"


class Backend:
    """The base of all backends; see the module's text. Raises :class:`~poolkit.errors.Unsupported` for missing verbs."""

    type: ClassVar[str]
    definition: ClassVar[DefinitionClass]
    tools: ClassVar[tuple[str, ...]] = ()
    """Programs it needs for anything at all; ``poolkit doctor`` reports them."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Debian's package for each program that it uses, where the two differ in name."""
    needs_root: ClassVar[tuple[str, ...]] = ()
    """Those of ``start``, ``build`` and ``discover`` that only root can do: others get a sentence, and not a tool's."""
    may_hang: ClassVar[tuple[str, ...]] = ()
    """Methods that touch storage which may never answer, such as a mounted directory of a dead server.

    They are done by a child process with a backend of its own of this class, which is given up when ``answers`` says so. What a
    descriptor of ``open_volume`` is used for stays in this process.
    """
    file_backed: ClassVar[bool] = False
    """Volumes are entries of the directory ``target.path``: their path is that directory and their name.

    No other active pool of such a type may list the same directory, whatever path leads to it.
    """
    source_formats: ClassVar[tuple[str, ...]] = ()
    """``<source><format type=…>`` values, the default first."""
    volume_formats: ClassVar[tuple[str, ...]] = ()
    """``<target><format type=…>`` values of volumes, the default first."""

    def __init__(self, definition: Any, host: Host) -> None:
        self.pool = definition
        self.host = host
        host.packages.update(self.packages)

    # -- the pool -------------------------------------------------------------------------------------------------

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

    def storage(self) -> str | None:
        """What tells the storage that is up from another in its place, as a text for ``changed_since``; None if nothing does.

        Asked once, when the pool has been started, and kept as long as it is active. Must not wait for anybody.
        """
        return None

    def changed_since(self, noted: str) -> str:
        """Why what is up is not the storage that ``storage`` noted, as the end of a sentence; empty if it is.

        Asked as often as whether the pool is up. Must not wait for anybody.
        """
        return ""

    def live(self) -> Any:
        """The definition completed with what only the running storage tells (owner and mode, free extents)."""
        return self.pool

    def usage(self, volumes: Sequence[VolumeInfo]) -> Usage:
        """The pool's sizes. Asked of the same object right after ``volumes``, with what that gave: nothing is asked twice."""
        raise self.unsupported("usage", "refresh")

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All volumes. ``known`` has the last listing by name: a volume whose stamp is unchanged is yielded from there."""
        raise self.unsupported("volumes", "refresh")

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

    def open_volume(self, info: VolumeInfo, *, write: bool = False) -> AbstractContextManager[int]:
        """A descriptor of a volume's bytes (regular file or block device), never reached through a planted link.

        What ``clone`` of any other backend reads from, and what upload, download and wipe of this one work on.
        """
        raise self.unsupported("open_volume", f"open volume '{info.name}' as a file")

    def source(self, info: VolumeInfo) -> Source:
        """The volume as something that another volume, of any pool type, can be made from."""
        path = info.path or f"{getattr(getattr(self.pool, 'target', None), 'path', None) or ''}/{info.name}"
        return Source(self.pool, info, path, lambda: self.open_volume(info))

    def below(self, info: VolumeInfo) -> tuple[str, ...]:
        """Paths of the volumes, of this or other pools, that this one stands on: what is lost with any of them.

        By default the backing store that ``detail`` names. Images say it themselves in their headers, and are asked there.
        """
        backing = (info.detail or {}).get("backing")
        return (str(backing),) if backing else ()

    def identity(self, info: VolumeInfo) -> Any:
        """What stays the same as long as the volume is itself: work that would meet another one under its name is refused."""
        return info.key

    def rounded(self, capacity: int) -> int:
        """The capacity in bytes that a volume really gets when ``capacity`` is asked for; asked before ``resize``."""
        return capacity

    def resize(self, info: VolumeInfo, capacity: int, *, allocate: bool = False, shrink: bool = False) -> VolumeInfo:
        """Set the capacity of a volume, in bytes; growing keeps all data, shrinking needs ``shrink``."""
        raise self.unsupported("resize", "vol-resize")

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

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """Sources of this type that exist on ``source`` (a definition's source, or None for this host)."""
        raise errors.Unsupported(f"sources of {cls.type} pools cannot be searched for")

    # -- words --------------------------------------------------------------------------------------------------------

    def unsupported(self, method: str, verb: str | None = None) -> errors.Unsupported:
        """The error for a verb that this type of pool does not have."""
        return errors.Unsupported(
            f"pool '{self.pool.name}': pools of type '{self.type}' cannot {verb or method}", pool=self.pool.name
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


def check_volume_name(name: str, pool: str | None = None) -> str:
    """``name`` if it may name a volume, else ``InvalidArgument``.

    1 to 255 bytes of UTF-8 (NAME_MAX of Linux file systems) without '/', control characters (U+0000-1F, U+007F-9F),
    surrogates or U+FFFE and U+FFFF, which XML cannot hold; not '.' or '..'; not beginning with '-', which tools take for
    an option, nor with '.poolkit-'.
    """
    why = _name_fault(name)
    if why:
        shown = name[:60].encode("unicode_escape").decode("ascii")
        raise errors.InvalidArgument(f"'{shown}' cannot be the name of a volume: {why}", pool=pool, volume=shown)
    return name


def _name_fault(name: str) -> str:
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "that is a directory"
    if "/" in name:
        return "it contains '/'"
    if name[0] == "-":
        return "it begins with '-'"
    if name.startswith(".poolkit-"):
        return "names that begin with '.poolkit-' are poolkit's own"
    from poolkit.xmlmap.quote import name_fault

    why = name_fault(name)
    if why:
        return why
    size = len(name.encode("utf-8"))
    return f"it has {size} bytes, and 255 is the most" if size > 255 else ""
