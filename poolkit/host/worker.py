"""Work that may hang in the kernel, done by a child process.

A system call on a network file system whose server does not answer cannot be interrupted from within, and a thread in it
cannot be ended. So such work runs in a child: a Python that imports the same poolkit, calls one function and tells its
parent all that happens. The parent keeps the journal, the plan, the abort switch, secrets and streams; the child has a host
of its own that asks the parent for them. When the child has said nothing for a while and the server does not answer either,
the child is killed, or left behind if even that is impossible, and the parent goes on.

A child whose call has ended waits for the next one, because a Python takes longer to start than most calls last. It ends with
the engine (:meth:`poolkit.host.Host.close`), with its parent, or after a minute without work.

One socket joins the two. A message is a length (8 bytes, big endian) and a pickled tuple whose first item is its kind.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, BinaryIO

from poolkit import errors
from poolkit.host import forks
from poolkit.host.appearing import Appearing
from poolkit.host.port import Host, Result
from poolkit.host.undo import Undo

SILENCE = 5.0
"""Seconds without a word from the child after which the server is asked whether it is still there."""
DEADLINE = 10.0
"""Seconds that a server has to answer the simplest question; work is given up after ``SILENCE`` and this."""
_BATCH = 512  # items of a listing that travel together
_CHUNK = 1 << 20  # bytes of a stream that travel together
_IDLE = 60.0  # seconds that a child waits for its next call
_MOST_FDS = 8  # descriptors that may come along with a call
_FAREWELL = 5.0  # seconds that a child has to end after its last word, or after it was killed

# What the parent can import, such as the pool types of other packages, the child can as well.
_START = (
    "import sys; number, first, *more = sys.argv[1:]; sys.path.insert(0, first); "
    "sys.path += [p for p in more if p not in sys.path]; from poolkit.host.worker import serve; serve(int(number))"
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
    raised. ``stream`` is what the child reads from or writes to by :class:`Stream`. What ``fds`` refer to is open in the child
    during the call, as its host's ``fds``. Errors of the function are raised here. Leaving the generator early ends the child.
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
        data = _packed(message)
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
                piece = self._socket.recv(_CHUNK)
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


def _packed(message: Any) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(8, "big") + data


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

    _own_session = False  # its programs are killed with it

    def __init__(
        self, connection: socket.socket, fds: Sequence[int], *, dry_run: bool, faults: bool, cautious: str | None
    ) -> None:
        super().__init__(dry_run=dry_run, fault=self._fault if faults else None)
        self.cautious = cautious
        self.fds = tuple(fds)
        """What came with the call; closed when it has ended."""
        self._connection = connection

    def tell(self, *message: Any) -> None:
        """Send a message that needs no answer."""
        self._connection.sendall(_packed(message))

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

    def keep_undo(self, undo: Undo) -> None:
        """In the parent's journal."""
        self.ask("undo", undo)

    def change(self, argv: Sequence[str], *, undo: Any = None, **how: Any) -> Result:
        """The program runs here; the undo is in the parent's journal before."""
        argv = tuple(argv)
        self.announce(argv, undo)
        if self.dry_run:
            return Result(argv, 0, "", "")
        ok, timeout = how.pop("ok", (0,)), how.pop("timeout", 600)
        input, untrusted, fds = how.pop("input", None), how.pop("untrusted", False), how.pop("pass_fds", ())
        whole = how.pop("whole", False)
        return self._run(argv, ok, timeout, input, untrusted, fds, abortable=not whole, changes=True, **how)

    def announce(self, argv: Sequence[str], undo: Any = None) -> None:
        """In the parent's plan, and the undo in its journal, when this returns."""
        self.ask("change", tuple(argv), undo)
        self._shared.clear()

    def _track(self, pid: int) -> None:
        self.ask("running", pid)

    def warn(self, text: str) -> None:
        """In the parent's outcome."""
        self.tell("warn", text)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Reported to the parent, which kills this process to abort it."""
        self.tell("progress", done, total, what)

    def adopt(self, name: str, inode: int, format: str) -> None:
        """In the engine's records when this returns."""
        if not self.dry_run:
            self.ask("adopt", name, inode, format)

    def enlist(self, files: Sequence[Appearing]) -> None:
        """In the engine's records when this returns."""
        if not self.dry_run:
            self.ask("enlist", files)

    def secret(self, type: str, *, uuid: str | None = None, usage: str | None = None) -> bytes:
        """The parent's secret."""
        value: bytes = self.ask("secret", type, uuid, usage)
        self.hide(value.decode("utf-8", "backslashreplace"))
        return value


def serve(number: int) -> None:
    """The child's whole life: one call after the other, told to the socket ``number``."""
    connection = socket.socket(fileno=number)
    connection.set_inheritable(False)
    at_work = threading.Event()
    _end_with_parent(connection, at_work)
    while True:
        connection.settimeout(_IDLE)
        try:
            head, fds, _, _ = socket.recv_fds(connection, 8, _MOST_FDS)
        except (TimeoutError, ConnectionError):
            break
        if not head:
            break
        connection.settimeout(None)
        for fd in fds:
            os.set_inheritable(fd, False)
        function, arguments, settings = _receive(connection, head)
        at_work.set()
        _do(Parent(connection, fds, **settings), function, arguments)
        at_work.clear()
        for fd in fds:
            os.close(fd)
    os._exit(0)  # libraries of a server that is away might wait for it at their end


def _end_with_parent(connection: socket.socket, at_work: threading.Event) -> None:
    """End this process as soon as its parent has died, whatever it does: what it was at is taken back by others now.

    A library that is at work in a thread of its own would go on otherwise.
    """
    import select

    gone = select.poll()
    gone.register(connection, 0)  # nothing but that the other end is closed

    def wait() -> None:
        gone.poll()
        at_work.wait()  # who has no work ends by himself
        os.kill(os.getpid(), signal.SIGKILL)  # nothing that is registered for the end may come first

    threading.Thread(target=wait, daemon=True).start()


def _do(host: Parent, function: str, arguments: Sequence[Any]) -> None:
    """One call."""
    import importlib

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


def _receive(connection: socket.socket, head: bytes = b"") -> Any:
    """One message, of which ``head`` has come already; the process ends with its parent."""
    head += _exactly(connection, 8 - len(head))
    return pickle.loads(_exactly(connection, int.from_bytes(head, "big")))  # noqa: S301


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            piece = connection.recv(min(size - len(data), _CHUNK))
        except ConnectionError:
            piece = b""
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)
