"""A connection to one node of a cluster: requests go out, answers come back, each within its time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from poolkit import errors
from poolkit.families.sheep import wire
from poolkit.host import connecting
from poolkit.host.port import Host

CONNECT = 5.0
"""Seconds that a node has to take a connection, before the next host is tried."""
ANSWER = 30.0
"""Seconds that a node has to answer: as long as a cluster may take to move its data when a node is lost."""
SLOWEST = 1 << 20
"""Bytes a second that an answer must bring beyond that."""
_PIECE = 1 << 20


class Failed(Exception):
    """What a node answered that is not success; ``result`` is its number."""

    def __init__(self, result: int, answer: wire.Answer) -> None:
        super().__init__(result)
        self.result = result
        self.answer = answer


class Connection:
    """A connection; use as a context manager. Not for several threads at once."""

    def __init__(self, host: Host, address: tuple[str, int], pool: str, version: int = wire.VERSIONS[0]) -> None:
        self.host = host
        self.address = address
        self.pool = pool
        self.version = version
        """The cluster's internal version; what it really is shows the first internal request."""
        self._number = 0
        self._socket = _connect(host, address, pool)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def where(self) -> str:
        """The node, for messages."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def ask(
        self, operation: int, room: int = 0, union: bytes = bytes(32), *, send: bytes | None = None, flags: int = 0
    ) -> tuple[wire.Answer, bytes]:
        """Send a request and return its answer; ``room`` is how many bytes that may have at most, ``send`` the payload.

        ``Failed`` for any result but success; ``Unreachable`` when there is no answer in time, ``HostError`` for one that
        cannot be meant.
        """
        internal = operation >= wire.INTERNAL
        while True:
            try:
                return self._ask(operation, room, union, send, flags, self.version if internal else wire.VERSION)
            except Failed as failed:
                older = [v for v in wire.VERSIONS if v < self.version]
                if not internal or failed.result != wire.WRONG_VERSION or not older:
                    raise
                self.version = older[0]

    def _ask(
        self, operation: int, room: int, union: bytes, send: bytes | None, flags: int, version: int
    ) -> tuple[wire.Answer, bytes]:
        length = room if send is None else len(send)
        if send is not None:
            flags |= wire.F_WRITE
        until = time.monotonic() + ANSWER + length / SLOWEST
        self._send(wire.request(operation, length, union, flags=flags, version=version) + (send or b""), until)
        answer = wire.answer(self._receive(wire.HEADER, until))
        if answer.operation != operation or answer.number != 0:
            raise self._nonsense("something that was not asked")
        if answer.length > (room if send is None else 0):
            raise self._nonsense(f"with {answer.length} bytes where {room if send is None else 0} have room")
        data = self._receive(answer.length, until)
        if answer.result != wire.OK:
            raise Failed(answer.result, answer)
        return answer, data

    def _nonsense(self, what: str) -> errors.HostError:
        self._socket.close()  # where the next answer would begin is not known any more
        return errors.HostError(
            f"pool '{self.pool}': {self.where} answers {what}; is it a node of a Sheepdog cluster?", pool=self.pool
        )

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view[:_PIECE]) :]
            except TimeoutError:
                self._check(until)
            except OSError as error:
                raise self._lost(error) from error

    def _receive(self, length: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                piece = self._socket.recv(min(_PIECE, length - len(data)))
            except TimeoutError:
                piece = None
            except OSError as error:
                raise self._lost(error) from error
            if piece == b"":
                raise self._lost(None)
            data += piece or b""
            self._check(until)
        return bytes(data)

    def _check(self, until: float) -> None:
        self.host.check_abort()
        if time.monotonic() > until:
            self._socket.close()
            raise errors.Unreachable(
                f"pool '{self.pool}': {self.where} takes connections and does not answer", pool=self.pool
            )

    def _lost(self, error: OSError | None) -> errors.Unreachable:
        self._socket.close()
        why = (error.strerror or str(error)) if error is not None else "it closed the connection"
        return errors.Unreachable(f"pool '{self.pool}': the connection to {self.where} was lost: {why}", pool=self.pool)


def _connect(host: Host, address: tuple[str, int], pool: str) -> socket.socket:
    """A connected socket; ``Unreachable``."""
    name, port = address
    shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    host.check_abort()
    try:
        found = connecting.places(name, port)
    except (OSError, UnicodeError) as error:
        raise errors.Unreachable(f"pool '{pool}': '{name}' has no address: {error}", pool=pool) from error
    try:
        return connecting.connect(found, CONNECT, host.check_abort)
    except OSError as error:
        why = error.strerror or str(error)
        raise errors.Unreachable(f"pool '{pool}': no connection to {shown}: {why}", pool=pool) from None


@contextlib.contextmanager
def connected(
    host: Host, hosts: Sequence[tuple[str, int]], pool: str, check: Callable[[Connection], object] | None = None
) -> Iterator[Connection]:
    """A connection to the first of ``hosts`` that answers ``check``; ``Unreachable`` with what each of them said.

    What a node answers of its cluster (``Failed``, or an error that comes of it) holds for all of them.
    """
    failures = []
    for address in hosts:
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(Connection(host, address, pool))
                if check is not None:
                    check(connection)
            except errors.Unreachable as error:
                if isinstance(error.__cause__, Failed):
                    raise
                failures.append(error)
                continue
            yield connection
            return
    if len(failures) == 1:
        raise failures[0]
    said = "; ".join(str(error).removeprefix(f"pool '{pool}': ") for error in failures)
    raise errors.Unreachable(f"pool '{pool}': none of its hosts answers: {said}", pool=pool)
