"""A connection to a host: nothing on it waits for ever, and an abort is seen while it waits."""

from __future__ import annotations

import errno
import hashlib
import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from poolkit import errors
from poolkit.host import connecting
from poolkit.host.port import Host

CONNECT = 10.0
"""Seconds that a host has to take a connection and to agree on TLS, before the next one is tried."""
SILENCE = 60.0
"""Seconds without a byte after which a host is given up: what may take longer is a task, which is asked about."""
FAREWELL = 10.0
"""As ``SILENCE``, for what is only to end orderly after an abort."""
_PIECE = 1 << 18


class Address(NamedTuple):
    """Where a host is: a name and a port, or the path of a socket."""

    name: str
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Trust(NamedTuple):
    """What makes a certificate good: a file of certificates, else the system's; or the SHA-256 of the very certificate."""

    file: str | None = None
    fingerprints: tuple[str, ...] = ()

    def context(self) -> ssl.SSLContext:
        """How TLS is spoken; raises ``OSError`` for a file that cannot be used."""
        if not self.fingerprints:
            return ssl.create_default_context(cafile=self.file)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the certificate is compared as a whole instead
        return context


class Line:
    """A connected socket, as ``http.client`` uses one. Raises ``OSError``, and ``Aborted`` unless ``deaf``."""

    def __init__(self, host: Host, address: Address, trust: Trust | None, *, deaf: bool = False) -> None:
        self.host = host
        self.deaf = deaf
        """Whether an abort is not looked at: to end orderly what it interrupts."""
        self._streams = 0
        self._closed = False
        self._socket = _connect(address, self._turn)
        if trust is not None:
            try:
                self._socket = _secured(self._socket, address, trust, self._turn)
            except BaseException:
                self._socket.close()
                raise

    def _turn(self) -> None:
        if not self.deaf:
            self.host.check_abort()

    def _patiently(self, work: Callable[[], int]) -> int:
        """``work`` until it is done; ``TimeoutError`` after as long as the host may be silent."""
        silence = min(SILENCE, FAREWELL) if self.deaf else SILENCE
        until = time.monotonic() + silence
        while True:
            self._turn()
            try:
                return work()
            except TimeoutError:
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, f"no answer for {silence:g} seconds") from None

    def sendall(self, data: Any) -> None:
        """Send all of ``data``."""
        view = memoryview(data).cast("B")
        while view:
            view = view[self._patiently(lambda: self._socket.send(view[:_PIECE])) :]  # noqa: B023 - called at once

    def receive(self, view: Any) -> int:
        """Fill a part of ``view``; 0 at the end."""
        return self._patiently(lambda: self._socket.recv_into(view))

    def makefile(self, *_: Any) -> io.BufferedReader:
        """A stream of what comes; as with a socket's own, the line stays up until it is closed as well."""
        self._streams += 1
        return io.BufferedReader(_Coming(self), _PIECE)

    def close(self) -> None:
        """Hang up, when no stream is open any more."""
        self._closed = True
        if not self._streams:
            self._socket.close()

    def left(self) -> None:
        """A stream was closed."""
        self._streams -= 1
        if self._closed:
            self.close()


class _Coming(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any) -> int:
        return self._line.receive(view)

    def close(self) -> None:
        if not self.closed:
            self._line.left()
        super().close()


def _connect(address: Address, turn: Callable[[], None]) -> socket.socket:
    """A connected socket; ``OSError``."""
    turn()
    found: list[connecting.Place] = [(socket.AF_UNIX, address.name)]
    if address.port:
        try:
            found = connecting.places(address.name.strip("[]"), address.port)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, "it is no host name") from error
    return connecting.connect(found, CONNECT, turn)


def _secured(plain: socket.socket, address: Address, trust: Trust, turn: Callable[[], None]) -> ssl.SSLSocket:
    """TLS on a connected socket, with a host that is the one it should be."""
    name = address.name.strip("[]")
    secure = trust.context().wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
    try:
        _agreed(secure, turn)
        shown = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
        if trust.fingerprints and shown not in trust.fingerprints:
            raise ssl.SSLCertVerificationError(
                errno.EPERM, f"the fingerprint of its certificate is {shown}, not one of the definition"
            )
    except BaseException:
        secure.close()
        raise
    return secure


def _agreed(secure: ssl.SSLSocket, turn: Callable[[], None]) -> None:
    until = time.monotonic() + CONNECT
    while True:
        try:
            secure.do_handshake()
            return
        except TimeoutError:
            turn()
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "it did not agree on TLS in time") from None


def worded(error: Exception) -> str:
    """What went wrong on a line, as the end of a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {getattr(error, 'verify_message', '') or error.strerror or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def distrusted(error: Exception) -> errors.Hint | None:
    """What to do about a certificate that is not trusted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.Hint(
            "name the certificate ",
            errors.Setting("source/api/@certificate", "in the definition: <api certificate='FILE'/>"), ", or ",
            errors.Setting("source/api/@fingerprint", "<api fingerprint='SHA256'/>"),
        )  # fmt: skip
    return None
