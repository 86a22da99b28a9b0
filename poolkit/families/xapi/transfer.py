"""The bytes of disks, over HTTP: ``/export_raw_vdi`` and ``/import_raw_vdi``.

A host sends and takes whole disks only. A part is read by letting go of the rest, and written by writing all of it anew.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import stat
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

from poolkit import errors
from poolkit.backend import Transfer
from poolkit.families.xapi import line as lines
from poolkit.families.xapi.client import Api
from poolkit.families.xapi.line import Address
from poolkit.host import streams
from poolkit.host.descriptors import write_at
from poolkit.host.port import Host

PIECE = 1 << 20
"""Bytes that are moved at once."""
_REASON = 5.0  # seconds for a host to say why it ended a transfer


class Moving:
    """One disk, whose bytes come or go; ``name`` is that of the volume."""

    def __init__(self, api: Api, uuid: str, name: str, address: Address | None = None) -> None:
        self.api = api
        self.uuid = uuid
        self.name = name
        self.address = address
        """The host that has the repository, where that is not the master."""

    # -- reading ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def coming(self, format: str = "raw", *, whole: bool = True) -> Iterator[http.client.HTTPResponse]:
        """The bytes of the disk; with ``whole`` all are read, and the host is asked whether it sent all that there was."""
        with contextlib.ExitStack() as stack:
            # A host's own end of a reading that was broken off may be in the way.
            task, connection, response = self.api.again(lambda: self._opened(stack, format))
            yield response
            connection.close()
            if whole:
                self.api.wait(task, "export")

    def _opened(
        self, stack: contextlib.ExitStack, format: str
    ) -> tuple[str, http.client.HTTPConnection, http.client.HTTPResponse]:
        """A task that reads, its connection and the answer, in ``stack``; ``Failed`` with what the task says of a refusal."""
        with contextlib.ExitStack() as attempt:
            task = attempt.enter_context(self._task("export"))
            connection = attempt.enter_context(self._asked("GET", "/export_raw_vdi", task, format))
            response = self._answered(connection)
            if response.status != http.client.OK:
                with contextlib.suppress(errors.Unreachable):
                    self.api.wait(task, "export", _REASON)
                raise self._refused(response)
            stack.enter_context(attempt.pop_all())
        return task, connection, response

    def piece(self, response: http.client.HTTPResponse) -> bytes:
        """Some more bytes; none at the end."""
        with self._broken("export"):
            return response.read(PIECE)

    def receive(self, size: int) -> Generator[tuple[int, memoryview], None, None]:
        """The raw bytes of a disk of ``size`` bytes, piece by piece, each with its offset; the last one is not the disk's end."""
        buffer = memoryview(bytearray(PIECE))
        with self.coming() as response:
            done = 0
            while done < size:
                with self._broken("export"):
                    count = response.readinto(buffer[: min(PIECE, size - done)])
                if not count:
                    raise errors.HostError(
                        f"pool '{self.api.pool}': {self.api.where} sent {done} of the {size} bytes of volume '{self.name}'",
                        pool=self.api.pool, volume=self.name,
                    )  # fmt: skip
                yield done, buffer[:count]
                done += count

    def send_to(self, host: Host, fd: int, size: int) -> None:
        """Write a disk into an open file or device that reads as zeros; runs of zeros are left out."""
        for at, data in self.receive(size):
            host.files.fault("copy")
            _written(fd, data, at)
            host.progress(at + len(data), size, "copy")
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)

    def download(self, host: Host, stream: BinaryIO, transfer: Transfer, size: int) -> int:
        """Write a range of a disk to a stream; returns how many bytes. With ``sparse`` a regular file gets holes."""
        start, end = transfer.offset, transfer.offset + transfer.length if transfer.length else size
        out = streams.descriptor(stream)
        sparse = transfer.sparse and out is not None and stat.S_ISREG(os.fstat(out).st_mode)
        stream.flush()
        with contextlib.closing(self.receive(size)) as pieces:
            for at, whole in pieces:
                data = whole[max(0, start - at) : max(0, end - at)]
                if data:
                    host.files.fault("download")
                    if sparse and out is not None and not _holds(data):
                        here = os.lseek(out, len(data), os.SEEK_CUR)
                        os.ftruncate(out, max(here, os.fstat(out).st_size))
                    else:
                        streams.put(host, stream, data)
                    host.progress(min(at + len(whole), end) - start, end - start, "download")
                if at + len(whole) >= end < size:
                    break
        return end - start

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, length: int, pieces: Callable[[], Iterator[Any]], format: str = "raw") -> None:
        """Write ``length`` bytes, in pieces, over the begin of the disk; ``format`` vhd for an image of one."""
        with self._task("import") as task:
            failed: errors.PoolkitError | None = None
            try:
                with self._asked("PUT", "/import_raw_vdi", task, format, length) as connection:
                    done = 0
                    for piece in pieces():
                        with self._broken("import"):
                            connection.send(piece)
                        done += len(piece)
                    if done != length:
                        raise errors.SourceChanged(
                            f"the source of volume '{self.name}' became shorter while it was copied"
                        )
                    with self._broken("import"):
                        response = self._answered(connection)
                        if response.status != http.client.OK:
                            raise self._refused(response)
                        response.read(PIECE)
            except errors.Unreachable as error:
                failed = error  # a host that will not have it ends the connection: the task says why
            try:
                self.api.wait(task, "import", None if failed is None else _REASON)
            except errors.Unreachable as error:
                raise failed or error from None
            if failed is not None:
                raise failed

    def fill(self, host: Host, fd: int, length: int, size: int) -> None:
        """Write the first ``length`` bytes of an open file or device, and zeros up to ``size``, over the disk."""

        def pieces() -> Iterator[Any]:
            done = 0
            while done < size:
                host.files.fault("copy")
                wanted = min(PIECE, size - done)
                data = os.pread(fd, min(wanted, max(0, length - done)), done)
                if not data and done < length:
                    return
                data = data if done + len(data) < length else data + bytes(wanted - len(data))
                yield data
                done += len(data)
                host.progress(done, size, "copy")

        self.put(size, pieces)

    def zero(self, host: Host, size: int) -> None:
        """Write zeros over the disk."""

        def pieces() -> Iterator[Any]:
            zeros = bytes(PIECE)
            for done in range(0, size, PIECE):
                host.files.fault("wipe")
                yield zeros[: size - done]
                host.progress(min(done + PIECE, size), size, "zero")

        self.put(size, pieces)

    # -- HTTP -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _task(self, what: str) -> Iterator[str]:
        """A task for a transfer, which says in the end how it went."""
        task = self.api.ref("task.create", f"poolkit {what}", f"{what} of VDI {self.uuid}")
        try:
            yield task
        except BaseException:
            with self.api.deaf():
                self.api.forget_task(task)
            raise

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, task: str, format: str, length: int | None = None
    ) -> Iterator[http.client.HTTPConnection]:
        """A connection of its own with the head of a request on it."""
        query = {"session_id": self.api.session, "task_id": task, "vdi": self.uuid, "format": format}
        words = f"{path}?{urllib.parse.urlencode(query)}"
        with self._broken(path), contextlib.ExitStack() as stack:
            connection = self.api.another(self.address)
            stack.callback(connection.close)
            connection.putrequest(method, words, skip_accept_encoding=True)
            if length is not None:
                connection.putheader("Content-Length", str(length))
            connection.endheaders()
            stack.pop_all()
        try:
            yield connection
        finally:
            connection.close()

    def _answered(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        with self._broken("transfer"):
            return connection.getresponse()

    def _refused(self, response: http.client.HTTPResponse) -> errors.Unreachable:
        words = f"pool '{self.api.pool}': {self.api.where} refuses to transfer volume '{self.name}'"
        return errors.Unreachable(f"{words}: HTTP status {response.status}", pool=self.api.pool, volume=self.name)

    @contextlib.contextmanager
    def _broken(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise errors.Unreachable(
                f"pool '{self.api.pool}': the connection to {self.api.where} broke ({what}): {lines.worded(error)}",
                pool=self.api.pool, volume=self.name,
            ) from error  # fmt: skip


def _holds(data: Any) -> bool:
    return bool(bytes(data).strip(b"\0"))


def _written(fd: int, data: memoryview, at: int) -> None:
    """Write what is not zeros, in parts of 64 KiB."""
    for start in range(0, len(data), 1 << 16):
        part = data[start : start + (1 << 16)]
        if _holds(part):
            write_at(fd, part, at + start)
