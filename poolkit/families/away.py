"""Methods of backends that may hang, done by a child process: what goes there, what comes back, and when it is given up.

A class names them in ``Backend.may_hang``. The child makes a backend of the same class and calls it there; the journal, the
plan, secrets and streams stay with the parent (:mod:`poolkit.host.worker`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from poolkit import errors
from poolkit.backend import Backend, Source, Transfer, Usage, VolumeInfo
from poolkit.host import worker
from poolkit.host.port import Host


class Away:
    """Stands for a backend: what may hang is called in a child, everything else here."""

    def __init__(self, backend: Backend) -> None:
        self._here = backend
        self._usage: Usage | None = None

    def __getattr__(self, name: str) -> Any:
        if name != "source" and name not in self._here.may_hang:
            return getattr(self._here, name)
        special = _SPECIAL.get(name)
        return functools.partial(self._call, name) if special is None else functools.partial(special, self)

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        return self._result(self._run(_CALL, (verb, arguments, options)))

    def _live(self) -> Any:
        try:
            return self._call("live")
        except (errors.HostError, errors.Unreachable, OSError):
            return self._here.pool  # a stale handle, a client that died: still the definition

    def _volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """The sizes come with the listing; what is unchanged comes back as its name alone."""
        work = self._run(_LISTING, (dict(known), "usage" in self._here.may_hang))
        try:
            while True:
                item = next(work)
                yield known[item] if isinstance(item, str) else item
        except StopIteration as stop:
            self._usage = stop.value
        except worker.Silent:
            self._give_up()

    def _sizes(self, volumes: Sequence[VolumeInfo]) -> Usage:
        found, self._usage = self._usage, None
        usage: Usage = found or self._call("usage", volumes)
        return usage

    def _clone(self, volume: Any, source: Source, **options: Any) -> Any:
        """The source is opened here and read there."""
        with source.open() as fd:
            facts = (source.pool, source.info, source.path)
            return self._result(self._run(_CLONE, (volume, facts, options), fds=(fd,)))

    def _upload(self, info: VolumeInfo, stream: BinaryIO, part: Transfer, **options: Any) -> Any:
        return self._result(self._run(_TRANSFER, ("upload", info, part, options), stream=stream))

    def _download(self, info: VolumeInfo, stream: BinaryIO, part: Transfer, **options: Any) -> Any:
        if self._here.host.dry_run:
            return 0
        return self._result(self._run(_TRANSFER, ("download", info, part, options), stream=stream))

    def _source(self, info: VolumeInfo) -> Source:
        found = self._here.source(info)
        return Source(found.pool, found.info, found.path, lambda: self.open_volume(info))

    @contextlib.contextmanager
    def _open_volume(self, info: VolumeInfo, **options: Any) -> Iterator[int]:
        """Opened here after the storage has answered. What reads the descriptor may still come to hang."""
        if not self._here.answers():
            self._give_up()
        with self._here.open_volume(info, **options) as fd:
            yield fd

    def _run(self, function: str, facts: tuple[Any, ...], **how: Any) -> Generator[Any, None, Any]:
        here = self._here
        return worker.run(here.host, function, (type(here), here.pool, *facts), answers=here.answers, **how)

    def _result(self, work: Generator[Any, None, Any]) -> Any:
        try:
            return worker.result(work)
        except worker.Silent:
            self._give_up()

    def _give_up(self) -> NoReturn:
        pool = self._here.pool
        hosts = getattr(getattr(pool, "source", None), "hosts", ())
        who = f"the server {' or '.join(repr(str(host.name)) for host in hosts)}" if hosts else "its storage"
        raise errors.Unreachable(
            f"pool '{pool.name}': {who} did not answer within {worker.DEADLINE:g} seconds", pool=pool.name,
            hint=f"the pool works again as soon as {'the server' if hosts else 'the storage'} does; nothing has to be "
            "mounted anew",
        ) from None  # fmt: skip


_SPECIAL: dict[str, Any] = {
    "live": Away._live, "volumes": Away._volumes, "usage": Away._sizes, "clone": Away._clone, "upload": Away._upload,
    "download": Away._download, "source": Away._source, "open_volume": Away._open_volume,
}  # fmt: skip


# -- in the child -----------------------------------------------------------------------------------------------------

_CALL = f"{__name__}:do_call"
_TRANSFER = f"{__name__}:do_transfer"
_CLONE = f"{__name__}:do_clone"
_LISTING = f"{__name__}:do_listing"

Class = type[Backend]


def do_call(host: Host, cls: Class, pool: Any, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Run a verb."""
    return getattr(cls(pool, host), verb)(*arguments, **options)


def do_transfer(
    host: worker.Parent, cls: Class, pool: Any, verb: str, info: VolumeInfo, part: Transfer, options: Mapping[str, Any]
) -> Any:
    """Run ``upload`` or ``download`` with the parent's stream."""
    return getattr(cls(pool, host), verb)(info, worker.Stream(host), part, **options)


def do_clone(
    host: worker.Parent, cls: Class, pool: Any, volume: Any, facts: tuple[Any, VolumeInfo, str], options: Mapping[str, Any]
) -> Any:  # fmt: skip
    """Run ``clone`` with a source whose descriptor came along."""

    @contextlib.contextmanager
    def opener() -> Iterator[int]:
        yield host.fds[0]

    owner, info, path = facts
    return cls(pool, host).clone(volume, Source(owner, info, path, opener), **options)


def do_listing(
    host: Host, cls: Class, pool: Any, known: Mapping[str, VolumeInfo], sizes: bool
) -> Generator[VolumeInfo | str, None, Usage | None]:
    """List; what is as it was known goes back by name."""
    there = cls(pool, host)
    found = []
    for info in there.volumes(known):
        found.append(info)
        yield info.name if known.get(info.name) is info else info
    return there.usage(found) if sizes else None
