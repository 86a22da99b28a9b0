"""Work that may hang in the kernel, done by a child process.

A system call on a network file system whose server does not answer cannot be interrupted from within, and a thread in it
cannot be ended. So such work runs in a child: a Python that imports the same poolkit, calls one function and tells its
parent all that happens. The parent keeps the journal, the plan, the abort switch, secrets and streams; the child has a host
of its own that asks the parent for them (:mod:`poolkit.host.child`). When the child has said nothing for a while and the
server does not answer either, the child is killed, or left behind if even that is impossible, and the parent goes on.

A child whose call has ended waits for the next one, because a Python takes longer to start than most calls last. It ends with
the engine (:meth:`poolkit.host.Host.close`), with its parent, or after a minute without work.

One socket joins the two. A message is a length (8 bytes, big endian) and a pickled tuple whose first item is its kind.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, BinaryIO

from poolkit import errors
from poolkit.host import forks
from poolkit.host.port import Host, Result

SILENCE = 5.0
"""Seconds without a word from the child after which the server is asked whether it is still there."""
DEADLINE = 10.0
"""Seconds that a server has to answer the simplest question; work is given up after ``SILENCE`` and this."""
CHUNK = 1 << 20  # bytes of a stream that travel together
_FAREWELL = 5.0  # seconds that a child has to end after its last word, or after it was killed

# What the parent can import, such as the pool types of other packages, the child can as well.
_START = (
    "import sys; number, first, *more = sys.argv[1:]; sys.path.insert(0, first); "
    "sys.path += [p for p in more if p not in sys.path]; from poolkit.host.child import serve; serve(int(number))"
)


_children: weakref.WeakSet[_Child] = weakref.WeakSet()


def _leave(cut: bool) -> None:
    # A fork of this process must not keep the child waiting for work: it ends when the last copy of its socket is closed.
    for child in list(_children):
        child.disown()
    _children.clear()


forks.in_child(_leave)


class Silent(errors.Unreachable):
    """The child was given up: neither it nor the server answered."""


def answers(host: Host, path: str) -> bool:
    """Whether the server of the file system mounted at ``path`` answers."""
    return asked(host, path) is not None


def asked(host: Host, path: str) -> Result | None:
    """What stat(1) says of the file system mounted at ``path``; None when its server does not answer: statfs(2) asks it."""
    try:
        return host.query(["stat", "--file-system", "--format=%T", "--", path], ok=range(256), timeout=DEADLINE)
    except errors.ToolTimeout:
        return None


def run(
    host: Host,
    function: str,
    arguments: Sequence[Any],
    *,
    answers: Callable[[], bool],
    stream: BinaryIO | None = None,
    fds: Sequence[int] = (),
    silence: float | None = None,
) -> Generator[Any, None, Any]:
    """Call ``function`` (``module:name``) in a child with a host and ``arguments``; give what it yields, return its result.

    ``answers`` is asked after ``silence`` seconds without news whether the server still lives: if not, ``Silent`` is
    raised. ``stream`` is what the child reads from or writes to by :class:`poolkit.host.child.Stream`. What ``fds`` refer to
    is open in the child during the call, as its host's ``fds``. Errors of the function are raised here. Leaving the generator
    early ends the child.
    """
    waited = _waiting(host)
    child = waited or _Child()
    told = ended = False
    try:
        settings = {"dry_run": host.dry_run, "faults": host.fault is not None, "cautious": host.cautious}
        child.send((function, tuple(arguments), settings), fds)
        for kind, *rest in child.messages(host, answers, SILENCE if silence is None else silence):
            told = True
            if kind == "items":
                yield from rest[0]
            elif kind in ("done", "error"):
                ended = True
                if kind == "error":
                    raise rest[0]
                return rest[0]
            else:
                reply = _serve_one(host, stream, kind, rest)
                if kind not in ("progress", "warn"):
                    child.send(reply)
        if not waited or told:
            raise errors.HostError("the process that did the work died")
    finally:
        child.idle = ended
        if ended:
            host.children.append(child)
        else:
            child.end()
    # It had ended while it waited: it asks before it changes anything, so nothing has happened.
    return (yield from run(host, function, arguments, answers=answers, stream=stream, fds=fds, silence=silence))


def _waiting(host: Host) -> _Child | None:
    """A child of this process that has nothing to do, if there is one."""
    with contextlib.suppress(IndexError):  # threads may take from the list at the same time
        while True:
            child: _Child = host.children.pop()
            if child.usable:
                child.idle = False
                return child
            child.end()
    return None


def result(work: Generator[Any, None, Any]) -> Any:
    """What the function returns, for one that yields nothing."""
    try:
        while True:
            next(work)
    except StopIteration as stop:
        return stop.value


class _Child:
    """A child process and the socket to it."""

    def __init__(self) -> None:
        _children.add(self)
        self.idle = False
        """It has nothing to do, and ends by itself when the socket is closed."""
        self._parent = os.getpid()
        self._socket, theirs = socket.socketpair()
        number = theirs.fileno()
        cache = ["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else []
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self._process = subprocess.Popen(
            [
                sys.executable or Host().program("python3"),
                "-I",
                *cache,
                "-c",
                _START,
                str(number),
                root,
                *filter(None, sys.path),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            umask=0o077,
            start_new_session=True,
            pass_fds=(number,),
        )
        theirs.close()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.end()

    @property
    def usable(self) -> bool:
        """Whether it lives and is ours: after fork(2) the socket belongs to two."""
        return self._parent == os.getpid() and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """How it ended, as ``Popen.returncode`` has it; None while it lives."""
        return self._process.poll()

    def disown(self) -> None:
        """Close this process's copy of the socket, which is another's; repeatable."""
        if hasattr(self, "_socket"):
            self._socket.close()

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send a call or an answer; that a child has died is found out when it is listened to."""
        self._socket.settimeout(None)
        data = packed(message)
        with contextlib.suppress(ConnectionError):
            sent = socket.send_fds(self._socket, [data], list(fds)) if fds else 0
            self._socket.sendall(data[sent:])

    def messages(self, host: Host, answers: Callable[[], bool], silence: float) -> Iterator[tuple[Any, ...]]:
        """What it tells, while it or the server shows a sign of life."""
        data = bytearray()
        last = time.monotonic()
        while True:
            try:
                self._socket.settimeout(0.25)  # how late an abort may be noticed
                piece = self._socket.recv(CHUNK)
            except TimeoutError:
                host.check_abort()
                if time.monotonic() - last > silence:
                    if not answers():
                        raise Silent("the server did not answer") from None
                    last = time.monotonic()
                continue
            except ConnectionError:
                return
            if not piece:
                return
            data += piece
            while len(data) >= 8 and len(data) >= (size := 8 + int.from_bytes(data[:8], "big")):
                message = pickle.loads(data[8:size])  # noqa: S301 (our own code, at our own rights)
                del data[:size]
                yield message
            last = time.monotonic()

    def end(self) -> None:
        """End it, at once if it is at work. One that hangs in the kernel is left behind and ends when the server is back.

        Repeatable.
        """
        self._socket.close()
        if self._parent != os.getpid():
            self._process.returncode = 0  # another process's to wait for
        if self.idle:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL)
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.returncode = -signal.SIGKILL


def _serve_one(host: Host, stream: BinaryIO | None, kind: str, rest: list[Any]) -> Any:
    """Do what the child asks of its parent."""
    if kind == "step":
        return host.step(*rest)
    if kind == "change":
        argv, undo = rest
        host.announce(argv, undo)
        return None
    if kind == "undo":
        return host.keep_undo(*rest)
    if kind == "fault":
        return host.files.fault(*rest)
    if kind == "progress":
        return host.progress(*rest)
    if kind == "warn":
        return host.warn(*rest)
    if kind == "running":
        return host._track(*rest)
    if kind == "adopt":
        return host.adopt(*rest)
    if kind == "enlist":
        return host.enlist(*rest)
    if kind == "secret":
        return host.secret(rest[0], uuid=rest[1], usage=rest[2])
    if kind == "read" and stream is not None:
        from poolkit.host import streams

        buffer = bytearray(rest[0])
        return bytes(buffer[: streams.reader(host, stream)(memoryview(buffer))])
    if kind == "write" and stream is not None:
        from poolkit.host import streams

        streams.put(host, stream, rest[0])
        return None
    raise AssertionError(f"a child asked for '{kind}'")


def packed(message: Any) -> bytes:
    """A message as it travels, in either direction."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(8, "big") + data
