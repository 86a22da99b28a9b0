"""The child's side of work that may hang: one call after the other for the process that started it.

The other side, and what travels between the two, is :mod:`poolkit.host.worker`.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from poolkit import errors
from poolkit.host.appearing import Appearing
from poolkit.host.port import Host, Result
from poolkit.host.undo import Undo
from poolkit.host.worker import CHUNK, packed

_BATCH = 512  # items of a listing that travel together
_IDLE = 60.0  # seconds that a child waits for its next call
_MOST_FDS = 8  # descriptors that may come along with a call


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
        data: bytes = self._parent.ask("read", CHUNK if size < 0 or size > CHUNK else size) or b""
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
        for start in range(0, len(view), CHUNK):
            self._parent.ask("write", bytes(view[start : start + CHUNK]))
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
        self._connection.sendall(packed(message))

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
        last = _do(Parent(connection, fds, **settings), function, arguments)
        for fd in fds:
            os.close(fd)
        at_work.clear()  # before the last word: whoever has heard it may leave at once
        try:
            connection.sendall(last)
        except ConnectionError:
            break
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


def _do(host: Parent, function: str, arguments: Sequence[Any]) -> bytes:
    """One call; gives the message that ends it."""
    import importlib

    try:
        module, _, name = function.partition(":")
        answer = getattr(importlib.import_module(module), name)(host, *arguments)
        if isinstance(answer, Iterator):
            answer = _tell_items(host, answer)
        return packed(("done", answer))
    except Exception as error:
        error.__cause__ = error.__context__ = None
        return packed(("error", _portable(error)))


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
            piece = connection.recv(min(size - len(data), CHUNK))
        except ConnectionError:
            piece = b""
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)
