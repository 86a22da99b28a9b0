"""How the netfs backend has its work done by a child process: what goes there, what comes back, and when it is given up."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from poolkit import errors
from poolkit.backend import Source, Transfer, Usage, VolumeInfo
from poolkit.families.filepool import FileBackend
from poolkit.host import worker
from poolkit.host.port import Host


def client_died(host: Host, path: str) -> bool:
    """Whether the process behind the FUSE file system mounted at ``path`` is gone (ENOTCONN): the mount never recovers."""
    said = worker.asked(host, path)
    return said is not None and "Transport endpoint is not connected" in said.stderr


def require(backend: FileBackend) -> None:
    """Raise ``Unreachable`` unless the server answers."""
    if not worker.answers(backend.host, backend.place):
        _give_up(backend)


def call(backend: FileBackend, verb: str, *arguments: Any, **options: Any) -> Any:
    """``FileBackend``'s own ``verb``, in the child."""
    return _result(backend, _run(backend, _CALL, (verb, arguments, options)))


def transfer(
    backend: FileBackend, verb: str, info: VolumeInfo, stream: BinaryIO, part: Transfer, **options: Any
) -> Any:
    """``upload`` or ``download``, in the child, of a stream here."""
    if backend.host.dry_run and verb == "download":
        return 0
    return _result(backend, _run(backend, _TRANSFER, (verb, info, part, options), stream=stream))


def clone(backend: FileBackend, volume: Any, source: Source, options: Mapping[str, Any]) -> Any:
    """``clone``, in the child, of a source opened here."""
    with source.open() as fd:
        facts = (source.pool, source.info, source.path)
        return _result(backend, _run(backend, _CLONE, (volume, facts, dict(options)), fds=(fd,)))


def listing(backend: FileBackend, known: Mapping[str, VolumeInfo]) -> Generator[VolumeInfo, None, Usage]:
    """``volumes``, in the child, and the result of ``usage`` there."""
    work = _run(backend, _LISTING, (dict(known),))
    try:
        while True:
            item = next(work)
            yield known[item] if isinstance(item, str) else item
    except StopIteration as stop:
        usage: Usage = stop.value
        return usage
    except worker.Silent:
        _give_up(backend)


def _run(backend: FileBackend, function: str, facts: tuple[Any, ...], **how: Any) -> Generator[Any, None, Any]:
    def alive() -> bool:
        return worker.answers(backend.host, backend.place)

    return worker.run(backend.host, function, (backend.pool, *facts), answers=alive, **how)


def _result(backend: FileBackend, work: Generator[Any, None, Any]) -> Any:
    try:
        return worker.result(work)
    except worker.Silent:
        _give_up(backend)


def _give_up(backend: FileBackend) -> NoReturn:
    pool = backend.pool
    servers = " or ".join(f"'{host.name}'" for host in pool.source.hosts)
    raise errors.Unreachable(
        f"pool '{pool.name}': the server {servers} did not answer within {worker.DEADLINE:g} seconds",
        pool=pool.name, hint="the pool works again as soon as the server does; nothing has to be mounted anew",
    ) from None  # fmt: skip


# -- in the child -----------------------------------------------------------------------------------------------------

_CALL = f"{__name__}:do_call"
_TRANSFER = f"{__name__}:do_transfer"
_CLONE = f"{__name__}:do_clone"
_LISTING = f"{__name__}:do_listing"


class _There(FileBackend):
    """The verbs of files, with what netfs says of its own ones."""

    type = "netfs"
    trust_blocks = False


def do_call(host: Host, pool: Any, verb: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a verb; the directory must be there, for the mount may have gone since it was looked for."""
    return getattr(_There(pool, host), verb)(*arguments, **options)


def do_transfer(
    host: worker.Parent, pool: Any, verb: str, info: VolumeInfo, part: Transfer, options: Mapping[str, Any]
) -> Any:
    """Run ``upload`` or ``download`` with the parent's stream."""
    return getattr(_There(pool, host), verb)(info, worker.Stream(host), part, **options)


def do_clone(
    host: worker.Parent, pool: Any, volume: Any, facts: tuple[Any, VolumeInfo, str], options: Mapping[str, Any]
) -> Any:
    """Run ``clone`` with a source whose descriptor came along."""
    import contextlib

    @contextlib.contextmanager
    def opener() -> Iterator[int]:
        yield host.fds[0]

    owner, info, path = facts
    return _There(pool, host).clone(volume, Source(owner, info, path, opener), **options)


def do_listing(host: Host, pool: Any, known: Mapping[str, VolumeInfo]) -> Generator[VolumeInfo | str, None, Usage]:
    """List; what is as it was known goes back by name."""
    there = _There(pool, host)
    for info in there.volumes(known):
        yield info.name if known.get(info.name) is info else info
    return there.usage(())
