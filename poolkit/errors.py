"""Every error poolkit raises, as one tree.

    PoolkitError
    +-- InvalidDefinition        a document is wrong; carries every problem with its place
    +-- InvalidArgument          a value given to a call is wrong (size, name, flag)
    +-- NotFound
    |   +-- PoolNotFound  VolumeNotFound  SecretNotFound  FlavorNotFound
    +-- AlreadyExists
    |   +-- PoolExists  VolumeExists  SecretExists
    +-- NotPlaced                no backend of a flavor took the volume; says why of each
    +-- Conflict                 another pool owns that source or target
    +-- InvalidState             the verb does not fit the pool's state
    +-- Busy                     other work is in progress; names it; trying again later helps
    |   +-- DefinitionChanged
    |   +-- HeldElsewhere       another host of a shared storage has the volume
    +-- Unsupported              this pool type, format or host cannot do that
    +-- Unsafe                   refused to protect data or the host (ambiguous image, used disk, ...)
    |   +-- HasDependents        other volumes or pools stand on it; names them
    +-- HostError                the machine refused
    |   +-- NoSpace  SourceChanged  LoginRefused
    |   +-- PermissionDenied
    |   |   +-- RoleForbidden    the role of this host among those that share the storage does not allow it
    |   +-- Unreachable
    |   |   +-- LockUnavailable  what keeps the hosts of a shared storage apart does not work here
    |   +-- ToolError
    |       +-- ToolMissing  ToolFailed  ToolCrashed  ToolTimeout
    +-- Aborted                  the caller asked to stop

A message is one sentence that names the pool, volume or file and what went wrong; ``hint`` says what to do next. One that
proposes a verb is a :class:`~poolkit.hints.Hint`, whose parts the caller may word in its own language; this module has the names
of :mod:`poolkit.hints` as well.
``exit_code`` is the status of the command line, ``libvirt_code`` the number a libvirt client expects
(``virErrorNumber`` of libvirt's ``virterror.h``).
"""

from __future__ import annotations

import errno

from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, ClassVar

    from poolkit.hints import Hint as Hint  # noqa: PLC0414 - names of this module, too
    from poolkit.hints import Option as Option  # noqa: PLC0414
    from poolkit.hints import Part as Part  # noqa: PLC0414
    from poolkit.hints import Remedy as Remedy  # noqa: PLC0414
    from poolkit.hints import Setting as Setting  # noqa: PLC0414
    from poolkit.hints import remedy as remedy  # noqa: PLC0414
else:

    def __getattr__(name: str) -> Any:
        # Only who fails gives a hint.
        if name not in ("Hint", "Option", "Part", "Remedy", "Setting", "remedy"):
            raise AttributeError(f"module 'poolkit.errors' has no attribute {name!r}")
        from poolkit import hints

        value = globals()[name] = getattr(hints, name)
        return value


def shown(text: str, most: int = 200) -> str:
    """``text`` for a message: on one line, what cannot be printed as escapes, and cut to ``most`` characters."""
    cut = text[: most + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return cut if len(cut) <= most else cut[: most - 3] + "..."


def some(words: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first of ``words``, and how many are left out: ``a, b and 3 more``."""
    left = len(words) - most
    return between.join(words[:most]) + (f" and {left} more" if left > 0 else "")


class PoolkitError(Exception):
    """The root of the tree: ``except PoolkitError`` catches all that poolkit raises on purpose."""

    exit_code: ClassVar[int] = 1
    libvirt_code: ClassVar[int] = 1  # VIR_ERR_INTERNAL_ERROR

    def __init__(
        self, message: str, *, pool: str | None = None, volume: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.pool = pool
        self.volume = volume
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as it is: what a class's ``__init__`` takes is not what ``args`` holds."""
        return _rebuild, (type(self), self.args), self.__dict__

    @property
    def code(self) -> str:
        """The class's name in lower case with dashes, stable for programs: ``volume-not-found``."""
        name = type(self).__name__
        return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")

    def as_dict(self) -> dict[str, Any]:
        """The error as plain values, for JSON output and logs."""
        facts: dict[str, Any] = {"error": self.code, "message": str(self), "libvirt_code": self.libvirt_code}
        for key in ("pool", "volume", "hint"):
            if getattr(self, key) is not None:
                facts[key] = str(getattr(self, key))
        from poolkit.hints import Hint

        if isinstance(self.hint, Hint) and self.hint.remedies:
            facts["remedies"] = [action.as_dict() for action in self.hint.remedies]
        return facts


def _rebuild(cls: type[PoolkitError], args: tuple[Any, ...]) -> PoolkitError:
    return cls.__new__(cls, *args)


class Problem(NamedTuple):
    """One thing wrong with a document.

    ``line`` and ``column`` count from 1; 0 means that the place is not known. ``path`` is an XPath-like place
    (``/pool/source/format/@type``).
    """

    source: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class InvalidDefinition(PoolkitError):
    """A document is not well formed or says something that no pool or volume can mean."""

    exit_code = 3
    libvirt_code = 27  # VIR_ERR_XML_ERROR

    def __init__(self, problems: Iterable[Problem], *, pool: str | None = None, hint: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)), pool=pool, hint=hint)

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with the list of problems."""
        return {**super().as_dict(), "problems": [p._asdict() for p in self.problems]}


class InvalidArgument(PoolkitError):
    """A value given to a call cannot be meant: a negative size, a volume name with a slash."""

    exit_code = 2
    libvirt_code = 8  # VIR_ERR_INVALID_ARG


class NotFound(PoolkitError):
    """What was asked for by name, uuid, key or path does not exist."""

    exit_code = 4
    libvirt_code = 38  # VIR_ERR_SYSTEM_ERROR


class PoolNotFound(NotFound):
    """No pool has that name or uuid."""

    libvirt_code = 49  # VIR_ERR_NO_STORAGE_POOL


class VolumeNotFound(NotFound):
    """No volume has that name, key or path."""

    libvirt_code = 50  # VIR_ERR_NO_STORAGE_VOL


class SecretNotFound(NotFound):
    """No secret has that uuid or usage, or it has no value."""

    libvirt_code = 66  # VIR_ERR_NO_SECRET


class FlavorNotFound(NotFound):
    """No flavor has that name."""


class AlreadyExists(PoolkitError):
    """The name or uuid is taken."""

    exit_code = 5
    libvirt_code = 9  # VIR_ERR_OPERATION_FAILED


class PoolExists(AlreadyExists):
    """A pool of that name or uuid is defined with other content."""


class VolumeExists(AlreadyExists):
    """The pool has a volume of that name."""

    libvirt_code = 90  # VIR_ERR_STORAGE_VOL_EXIST


class SecretExists(AlreadyExists):
    """A secret of that uuid or usage exists."""


class NotPlaced(PoolkitError):
    """No backend of a flavor took the volume. ``backends`` has each as (pool, code of the error, why)."""

    exit_code = 15
    libvirt_code = 9
    backends: tuple[tuple[str, str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with the backends."""
        tried = [{"pool": pool, "error": code, "why": why} for pool, code, why in self.backends]
        return {**super().as_dict(), "backends": tried}


class Conflict(PoolkitError):
    """Two pools would own one source or one target."""

    exit_code = 5
    libvirt_code = 9


class InvalidState(PoolkitError):
    """The verb does not fit the state the pool or volume is in."""

    exit_code = 6
    libvirt_code = 55  # VIR_ERR_OPERATION_INVALID


class PlanOutdated(InvalidState):
    """A stored plan is not what would be planned now: what there is has changed since it was made."""


class Busy(PoolkitError):
    """Other work on the pool or volume is in progress; the message names it, who does it and since when."""

    exit_code = 7
    libvirt_code = 55


class DefinitionChanged(Busy):
    """Somebody else has stored another definition since the one that was to be replaced was read."""


class HeldElsewhere(Busy):
    """Another host, of those that share the storage, has the volume; the message names it where that can be told."""


class Unsupported(PoolkitError):
    """This pool type, image format or machine cannot do what was asked."""

    exit_code = 8
    libvirt_code = 3  # VIR_ERR_NO_SUPPORT


class Unsafe(PoolkitError):
    """Refused, because going on could destroy data or disclose files of the host."""

    exit_code = 9
    libvirt_code = 29  # VIR_ERR_OPERATION_DENIED


class HasDependents(Unsafe):
    """Volumes or pools stand on the one that would be lost or changed, or flavors name it.

    ``volumes`` are the first few as (pool, volume), ``volume_count`` how many there are, ``pools`` and ``flavors`` the names of
    all of these.
    """

    volumes: tuple[tuple[str, str], ...] = ()
    volume_count: int = 0
    pools: tuple[str, ...] = ()
    flavors: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with those that stand on it."""
        volumes = [{"pool": pool, "volume": volume} for pool, volume in self.volumes]
        count = {"volumes": volumes, "volume_count": self.volume_count, "pools": list(self.pools)}
        return {**super().as_dict(), "dependents": {**count, "flavors": list(self.flavors)}}


class HostError(PoolkitError):
    """The machine refused: a system call or a tool failed."""

    exit_code = 10
    libvirt_code = 38


class SourceChanged(HostError):
    """What was being copied was written to meanwhile; the copy was removed."""


class NoSpace(HostError):
    """The disk, group or quota is full."""

    exit_code = 11


class PermissionDenied(HostError):
    """The operating system does not let this user do that."""

    exit_code = 12


class RoleForbidden(PermissionDenied):
    """The role of this host, among those that share the storage, does not allow the verb; nothing was run."""


class Unreachable(HostError):
    """A server or device did not answer in time."""

    exit_code = 13


class LockUnavailable(Unreachable):
    """What keeps the hosts of a shared storage apart does not work on this host: its daemon is not there, or not ready."""


class LoginRefused(HostError):
    """A server refused the login: the name, the secret or the host is not one that it lets in."""

    exit_code = 14
    libvirt_code = 45  # VIR_ERR_AUTH_FAILED


class ToolError(HostError):
    """A program that poolkit ran did not do its work; carries the whole call."""

    exit_code = 10
    libvirt_code = 1

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str] = (),
        status: int | None = None,
        stdout: str = "",
        stderr: str = "",
        pool: str | None = None,
        volume: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, pool=pool, volume=volume, hint=hint)
        self.argv = tuple(argv)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with the call and what the tool said."""
        return {**super().as_dict(), "argv": list(self.argv), "status": self.status, "stderr": self.stderr}


class ToolMissing(ToolError):
    """The program is not installed; the hint names the package."""


class ToolFailed(ToolError):
    """The program ended with a status that means failure."""


class ToolCrashed(ToolError):
    """The program died of a signal."""


class ToolTimeout(ToolError):
    """The program did not end in time and was killed with its children."""


class Aborted(PoolkitError):
    """The caller stopped the work; what it had changed was undone."""

    exit_code = 130
    libvirt_code = 78  # VIR_ERR_OPERATION_ABORTED


_BY_ERRNO: dict[int, type[HostError]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.ESTALE: Unreachable,
    errno.ETIMEDOUT: Unreachable,
    errno.EHOSTDOWN: Unreachable,
    errno.EHOSTUNREACH: Unreachable,
}


def from_os_error(error: OSError, doing: str, *, pool: str | None = None, volume: str | None = None) -> HostError:
    """Turn an ``OSError`` into the typed error for it; ``doing`` says what was tried ("create directory '/x'")."""
    reason = error.strerror or str(error) or type(error).__name__
    kind = _BY_ERRNO.get(error.errno or 0, HostError)
    return kind(f"cannot {doing}: {reason}", pool=pool, volume=volume)
