"""Work that may hang in the kernel, done by a child process.

A system call on a network file system whose server does not answer cannot be interrupted from within, and a thread in it
cannot be ended. So such work runs in a child: a Python that imports the same poolkit, calls one function and tells its
parent all that happens. The parent keeps the journal, the plan, the abort switch, secrets and streams; the child has a host
of its own that asks the parent for them. When the child has said nothing for a while and the server does not answer either,
the child is killed, or left behind if even that is impossible, and the parent goes on.

One socket joins the two. A message is a length (8 bytes, big endian) and a pickled tuple whose first item is its kind.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from poolkit import errors
from poolkit.host import Host, Result
from poolkit.undo import Undo

if TYPE_CHECKING:
    import subprocess

SILENCE = 5.0
"""Seconds without a word from the child after which the server is asked whether it is still there."""
_BATCH = 512  # items of a listing that travel together
_CHUNK = 1 << 20  # bytes of a stream that travel together
_FAREWELL = 2.0  # seconds that a child has to end after its last word, or after it was killed

_START = "import sys; sys.path.insert(0, sys.argv[1]); from poolkit.worker import serve; serve(int(sys.argv[2]))"


class Silent(errors.Unreachable):
    """The child was given up: neither it nor the server answered."""


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
    raised. ``stream`` is what the child reads from or writes to by :class:`Stream`. ``fds`` are open there, too, under the
    same numbers. Errors of the function are raised here. Leaving the generator early ends the child.
    """
    import subprocess

    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable or host.program("python3"), "-I", "-c", _START, root, str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        umask=0o077,
        start_new_session=True,
        pass_fds=(number, *fds),
    )
    theirs.close()
    ended = False
    try:
        facts = (function, tuple(arguments), host.dry_run, host.fault is not None)
        _send(ours, facts)
        for kind, *rest in _messages(ours, host, answers, SILENCE if silence is None else silence):
            if kind == "items":
                yield from rest[0]
            elif kind == "done":
                ended = True
                return rest[0]
            elif kind == "error":
                ended = True
                raise rest[0]
            else:
                reply = _serve_one(host, stream, kind, rest)
                if kind != "progress":
                    _send(ours, reply)
        raise errors.HostError("the process that worked on the network file system died")
    finally:
        ours.close()
        _end(process, ended)


def result(work: Generator[Any, None, Any]) -> Any:
    """What the function returns, for one that yields nothing."""
    try:
        while True:
            next(work)
    except StopIteration as stop:
        return stop.value


def _messages(
    connection: socket.socket, host: Host, answers: Callable[[], bool], silence: float
) -> Iterator[tuple[Any, ...]]:
    """The child's messages, while it or the server shows a sign of life."""
    connection.settimeout(0.25)  # how late an abort may be noticed
    data = bytearray()
    last = time.monotonic()
    while True:
        try:
            piece = connection.recv(_CHUNK)
        except TimeoutError:
            host.check_abort()
            if time.monotonic() - last > silence:
                if not answers():
                    raise Silent("the server did not answer")
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


def _serve_one(host: Host, stream: BinaryIO | None, kind: str, rest: list[Any]) -> Any:
    """Do what the child asks of its parent."""
    if kind == "step":
        return host.step(*rest)
    if kind == "change":
        argv, undo = rest
        host.announce(argv, undo)
        return None
    if kind == "record":
        return host.record(*rest)
    if kind == "fault":
        return host.files.fault(*rest)
    if kind == "progress":
        return host.progress(*rest)
    if kind == "adopt":
        return host.adopt(*rest)
    if kind == "secret":
        return host.secret(uuid=rest[0], usage=rest[1])
    if kind == "read" and stream is not None:
        return stream.read(*rest)
    if kind == "write" and stream is not None:
        stream.write(*rest)
        return None
    raise AssertionError(f"a child asked for '{kind}'")


def _end(process: subprocess.Popen[bytes], ended: bool) -> None:
    import signal
    import subprocess

    if ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_FAREWELL)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        process.returncode = -signal.SIGKILL  # it hangs in the kernel: it ends when the server is back, without us


def _send(connection: socket.socket, message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    connection.settimeout(None)
    connection.sendall(len(data).to_bytes(8, "big") + data)
    connection.settimeout(0.25)


# -- the child's side -------------------------------------------------------------------------------------------------


class Stream(io.RawIOBase):
    """The parent's stream, in the child."""

    def __init__(self, host: Parent) -> None:
        super().__init__()
        self._parent = host

    def readable(self) -> bool:
        """True: whether the parent's can be read shows when it is."""
        return True

    def writable(self) -> bool:
        """True, as for ``readable``."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        data: bytes = self._parent.ask("read", _CHUNK if size < 0 or size > _CHUNK else size) or b""
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one read of the parent's stream goes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK):
            self._parent.ask("write", bytes(view[start : start + _CHUNK]))
        return len(view)


class Parent(Host):
    """The host in the child: programs and files are used here, everything that must last is the parent's."""

    def __init__(self, connection: socket.socket, *, dry_run: bool, faults: bool) -> None:
        super().__init__(dry_run=dry_run, fault=self._fault if faults else None)
        self._connection = connection

    def tell(self, *message: Any) -> None:
        """Send a message that needs no answer."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._connection.sendall(len(data).to_bytes(8, "big") + data)

    def ask(self, *message: Any) -> Any:
        """Send a message and wait for its answer."""
        self.tell(*message)
        return _receive(self._connection)

    def _fault(self, label: str) -> None:
        self.ask("fault", label)

    def step(self, label: str, undo: Undo | None = None) -> bool:
        """Announced to the parent, whose journal has the undo when this returns."""
        self._shared.clear()
        return bool(self.ask("step", label, undo))

    def record(self, undo: Undo) -> None:
        """In the parent's journal."""
        self.ask("record", undo)

    def change(self, argv: Sequence[str], *, undo: Any = None, **how: Any) -> Result:
        """The program runs here; the undo is in the parent's journal before."""
        argv = tuple(argv)
        self.ask("change", argv, undo)
        self._shared.clear()
        if self.dry_run:
            return Result(argv, 0, "", "")
        ok, timeout = how.pop("ok", (0,)), how.pop("timeout", 600)
        input, untrusted, fds = how.pop("input", None), how.pop("untrusted", False), how.pop("pass_fds", ())
        return self._run(argv, ok, timeout, input, untrusted, fds, **how)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Reported to the parent, which kills this process to abort it."""
        self.tell("progress", done, total, what)

    def adopt(self, name: str, inode: int, format: str) -> None:
        """In the engine's records when this returns."""
        if not self.dry_run:
            self.ask("adopt", name, inode, format)

    def secret(self, *, uuid: str | None = None, usage: str | None = None) -> bytes:
        """The parent's secret."""
        value: bytes = self.ask("secret", uuid, usage)
        self.hide(value.decode("utf-8", "backslashreplace"))
        return value


def serve(number: int) -> None:
    """The child's whole life: one call, told to the socket ``number``."""
    import importlib

    connection = socket.socket(fileno=number)
    connection.set_inheritable(False)
    function, arguments, dry_run, faults = _receive(connection)
    host = Parent(connection, dry_run=dry_run, faults=faults)
    try:
        module, _, name = function.partition(":")
        answer = getattr(importlib.import_module(module), name)(host, *arguments)
        if isinstance(answer, Iterator):
            answer = _tell_items(host, answer)
        host.tell("done", answer)
    except Exception as error:
        error.__cause__ = error.__context__ = None
        host.tell("error", _portable(error))


def _tell_items(host: Parent, items: Iterator[Any]) -> Any:
    """Send what a generator gives, in batches; its return value."""
    batch: list[Any] = []
    while True:
        try:
            batch.append(next(items))
        except StopIteration as stop:
            host.tell("items", batch)
            return stop.value
        if len(batch) == _BATCH:
            host.tell("items", batch)
            batch = []


def _portable(error: Exception) -> Exception:
    if not isinstance(error, (errors.PoolkitError, OSError)):
        import traceback

        error.add_note("in a child process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return errors.HostError(f"{type(error).__name__}: {error}")
    return error


def _receive(connection: socket.socket) -> Any:
    """One message; the process ends with its parent."""
    head = _exactly(connection, 8)
    return pickle.loads(_exactly(connection, int.from_bytes(head, "big")))  # noqa: S301


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), _CHUNK))
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)
