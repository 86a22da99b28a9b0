"""Methods of backends that may hang, done by a child process: what goes there, what comes back, and when it is given up.

A class names them in ``Backend.may_hang``. The child makes a backend of the same class and calls it there; the journal, the
plan, secrets and streams stay with the parent (:mod:`poolkit.host.worker`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

from poolkit import errors
from poolkit.backend import Backend, Mark, Source, Transfer, Usage, VolumeInfo
from poolkit.host import streams, undo, worker
from poolkit.host.port import Host
from poolkit.host.undo import Undo

if TYPE_CHECKING:
    from poolkit.host.child import Parent


def _lent(stream: BinaryIO) -> tuple[int, ...]:
    """The descriptor of a regular file, which the child uses itself: it can see and make holes, and bytes need not travel twice.

    Both have one offset, which is put where the stream is.
    """
    fd = streams.descriptor(stream)
    if fd is None or not stat.S_ISREG(os.fstat(fd).st_mode):
        return ()
    if stream.writable():
        stream.flush()
    os.lseek(fd, stream.tell(), os.SEEK_SET)
    return (fd,)


def taken_back(backend: Backend, words: str, *what: Any) -> Undo:
    """An undo step that calls ``Backend.take_back`` with ``what``, plain values; ``words`` say what it does.

    For changes that no program takes back. It is done in a child process, by a backend of the same class and definition.
    """
    from poolkit import xmlmap

    cls = type(backend)
    document = xmlmap.write(backend.pool)
    return undo.call(words, _TAKE_BACK, f"{cls.__module__}:{cls.__qualname__}", document, list(what))


class Away:
    """Stands for a backend: what may hang is called in a child, everything else here."""

    def __init__(self, backend: Backend) -> None:
        self._here = backend
        self._usage: Usage | None = None

    @property
    def mark(self) -> Mark | None:
        """As that of the backend, here and in the child."""
        return self._here.mark

    @mark.setter
    def mark(self, mark: Mark | None) -> None:
        self._here.mark = mark

    def __getattr__(self, name: str) -> Any:
        if name == "scan" and "volumes" in self._here.may_hang:
            scan: Any = Backend.scan
            return functools.partial(scan, self)
        if name != "source" and name not in self._here.may_hang:
            return getattr(self._here, name)
        special = _SPECIAL.get(name)
        return functools.partial(self._call, name) if special is None else functools.partial(special, self)

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        volume = next(iter(arguments), None)
        about = volume if isinstance(volume, str) else getattr(volume, "name", None)
        return self._result(self._run(_CALL, (verb, arguments, options), about=about))

    def _live(self) -> Any:
        try:
            return self._call("live")
        except (errors.HostError, errors.Unreachable, OSError):
            return self._here.pool  # a stale handle, a client that died: still the definition

    def _volumes(self, known: Mapping[str, VolumeInfo], **options: Any) -> Iterator[VolumeInfo]:
        """The sizes come with the listing; what is unchanged comes back as its name alone."""
        work = self._run(_LISTING, (dict(known), "usage" in self._here.may_hang, options))
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
        usage: Usage = found or self._call("usage", list(volumes))
        return usage

    def _clone(self, volume: Any, source: Source, **options: Any) -> Any:
        """The source is opened here and read there, unless the storage copies it by itself."""
        if self._here.own(source):
            return self._result(
                self._run(_CLONE, (volume, (source.pool, source.info, source.path, source.words), options))
            )
        with source.open() as fd:
            facts = (source.pool, source.info, source.path, source.words)
            return self._result(self._run(_CLONE, (volume, facts, options), fds=(fd,)))

    def _overwrite(self, info: VolumeInfo, source: Source, **options: Any) -> Any:
        with source.open() as fd:
            facts = (source.pool, source.info, source.path, source.words)
            return self._result(self._run(_CLONE, (info, facts, options, "overwrite"), fds=(fd,), about=info.name))

    def _upload(self, info: VolumeInfo, stream: BinaryIO, part: Transfer, **options: Any) -> Any:
        facts = ("upload", info, part, options)
        return self._result(self._run(_TRANSFER, facts, stream=stream, fds=_lent(stream), about=info.name))

    def _download(self, info: VolumeInfo, stream: BinaryIO, part: Transfer, **options: Any) -> Any:
        if self._here.host.dry_run:
            return 0
        facts = ("download", info, part, options)
        return self._result(self._run(_TRANSFER, facts, stream=stream, fds=_lent(stream), about=info.name))

    def _source(self, info: VolumeInfo) -> Source:
        found = self._here.source(info)
        if found.sender is not None and "copy_to" in self._here.may_hang:
            return self._here.sent(info, found.path, functools.partial(self._copy_to, info))
        if found.sender is not None:
            return found
        return Source(found.pool, found.info, found.path, lambda: self.open_volume(info))

    def _copy_to(self, info: VolumeInfo, fd: int) -> None:
        self._result(self._run(_SEND, (info,), fds=(fd,)))

    @contextlib.contextmanager
    def _open_volume(self, info: VolumeInfo, **options: Any) -> Iterator[int]:
        """Opened here after the storage has answered. What reads the descriptor may still come to hang."""
        self._here.working_on = info.name
        if not self._here.answers():
            self._give_up()
        with self._here.open_volume(info, **options) as fd:
            yield fd

    def _run(
        self, function: str, facts: tuple[Any, ...], *, about: str | None = None, **how: Any
    ) -> Generator[Any, None, Any]:
        here = self._here
        here.working_on = about
        made = type(here) if here.mark is None else _Marking(type(here), here.mark)
        return worker.run(here.host, function, (made, here.pool, *facts), answers=here.answers, **how)

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
    "live": Away._live, "volumes": Away._volumes, "usage": Away._sizes, "clone": Away._clone,
    "overwrite": Away._overwrite, "upload": Away._upload, "download": Away._download, "source": Away._source,
    "open_volume": Away._open_volume, "copy_to": Away._copy_to,
}  # fmt: skip


# -- in the child -----------------------------------------------------------------------------------------------------

_CALL = f"{__name__}:do_call"
_TRANSFER = f"{__name__}:do_transfer"
_CLONE = f"{__name__}:do_clone"
_SEND = f"{__name__}:do_send"
_TAKE_BACK = f"{__name__}:do_take_back"
_LISTING = f"{__name__}:do_listing"

Class = Callable[[Any, Host], Backend]


class _Marking(NamedTuple):
    """A class of backends of which each marks what it makes."""

    cls: type[Backend]
    mark: Mark

    def __call__(self, pool: Any, host: Host) -> Backend:
        made = self.cls(pool, host)
        made.mark = self.mark
        return made


def do_call(host: Host, cls: Class, pool: Any, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Run a verb."""
    return getattr(cls(pool, host), verb)(*arguments, **options)


def do_transfer(
    host: Parent, cls: Class, pool: Any, verb: str, info: VolumeInfo, part: Transfer, options: Mapping[str, Any]
) -> Any:
    """Run ``upload`` or ``download`` with the parent's stream, or with the file that is below it."""
    backend = cls(pool, host)
    if not host.fds:
        from poolkit.host.child import Stream

        return getattr(backend, verb)(info, Stream(host), part, **options)
    with open(host.fds[0], "rb" if verb == "upload" else "wb", buffering=0, closefd=False) as file:
        return getattr(backend, verb)(info, file, part, **options)


def do_clone(
    host: Parent, cls: Class, pool: Any, volume: Any, facts: tuple[Any, VolumeInfo, str, str], options: Mapping[str, Any],
    verb: str = "clone",
) -> Any:  # fmt: skip
    """Run ``clone`` or ``overwrite`` with a source whose descriptor came along."""

    @contextlib.contextmanager
    def opener() -> Iterator[int]:
        yield host.fds[0]

    owner, info, path, words = facts
    return getattr(cls(pool, host), verb)(volume, Source(owner, info, path, opener, words=words), **options)


def do_take_back(host: Host, cls: str, document: str, what: Sequence[Any]) -> None:
    """Take back what a backend of the class ``module:name`` did for the pool of ``document``."""
    import importlib

    from poolkit import xmlmap
    from poolkit.model import Pool

    module, _, name = cls.partition(":")
    backend: type[Backend] = getattr(importlib.import_module(module), name)
    pool = xmlmap.given(document, Pool, lambda _: [backend.definition], filename="<journal>", strict=False)
    backend(pool, host).take_back(*what)


def do_send(host: Parent, cls: Class, pool: Any, info: VolumeInfo) -> None:
    """Run ``copy_to`` with the descriptor that came along."""
    cls(pool, host).copy_to(info, host.fds[0])


def do_listing(
    host: Host, cls: Class, pool: Any, known: Mapping[str, VolumeInfo], sizes: bool, options: Mapping[str, Any]
) -> Generator[VolumeInfo | str, None, Usage | None]:
    """List; what is as it was known goes back by name."""
    there = cls(pool, host)
    found = []
    for info in there.volumes(known, **options):
        found.append(info)
        yield info.name if known.get(info.name) is info else info
    return there.usage(found) if sizes else None
