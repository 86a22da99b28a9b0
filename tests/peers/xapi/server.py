"""HTTP over TCP, TLS and Unix sockets, for every host of the pool."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import traceback
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from . import marshal, transfer
from .api import MESSAGES
from .faults import AT_WIRE
from .marshal import Failure

if TYPE_CHECKING:
    from .pool import Pool

LARGEST = 64 << 20  # bytes of a request
ERROR = b"<html><body><h1>HTTP 500 internal server error</h1>An unexpected error occurred.</body></html>"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Any
    wbufsize = -1
    disable_nagle_algorithm = False

    @property
    def peer(self) -> Pool:
        pool: Pool = self.server.pool
        return pool

    def setup(self) -> None:
        if self.request.family != socket.AF_UNIX:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        super().setup()

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        """No log."""

    def reply(self, status: int, type: str, body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.end()

    def end(self) -> None:
        """End the connection without any more."""
        self.wfile.flush()
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/export_raw_vdi":
            transfer.export(self)
        else:
            self.reply(404, "text/html", b"<html><body>not found</body></html>")

    def do_PUT(self) -> None:
        if self.path.partition("?")[0] == "/import_raw_vdi":
            transfer.import_(self)
        else:
            self.reply(404, "text/html", b"<html><body>not found</body></html>")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 <= length <= LARGEST:
            self.reply(413, "text/html", b"")
            return
        body = self.rfile.read(length)
        if self.path.partition("?")[0] == "/jsonrpc":
            if self.peer.api.old:
                self.reply(404, "text/html", b"<html><body>not found</body></html>")
                return
            self.json(body)
        else:
            self.xml(body)

    def xml(self, body: bytes) -> None:
        try:
            method, params = marshal.xml_call(body)
        except Exception:
            self.reply(500, "text/html", ERROR)
            return
        if method == "system.listMethods":
            self.reply(200, "text/xml", marshal.xml_raw(sorted(MESSAGES)).encode())
            return
        self.run(method, params, "text/xml", "xml", lambda value, failure: marshal.xml_reply(value, failure))

    def json(self, body: bytes) -> None:
        try:
            request = json.loads(body)
            method, params = request["method"], request.get("params", [])
            if not isinstance(method, str) or not isinstance(params, list):
                raise ValueError("no call")
        except (ValueError, KeyError, TypeError):
            self.reply(500, "text/html", ERROR)
            return
        self.run(method, params, "application/json", "json", lambda v, f: marshal.json_reply(request, v, f))

    def run(self, method: str, params: list[Any], type: str, of: str, write: Any) -> None:
        """Call, and answer; or do what a fault says."""
        fault = self.peer.api.faults.of(method.removeprefix("Async."), AT_WIRE)
        what = fault.what if fault else ""
        if what == "http":
            self.reply(500, "text/html", ERROR)
            return
        if what == "hang":
            self.peer.api.faults.wait()
            self.end()
            return
        value, failure = None, None
        try:
            value = self.peer.api.answer(self.server.host, method, params, of)
        except Failure as error:
            failure = error.description
        except Exception as error:
            traceback.print_exc()
            failure = ["INTERNAL_ERROR", repr(error)]
        if what == "vanish":
            self.end()
        else:
            self.reply(200, type, write(value, failure).encode(), cut=what == "cut")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A listening socket of one host."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    context: ssl.SSLContext | None = None

    def __init__(self, address: Any, pool: Pool, host: int, context: ssl.SSLContext | None = None) -> None:
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
            self.allow_reuse_address = False
        self.pool, self.host, self.context = pool, host, context
        super().__init__(address, Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake of TLS is done by the connection's own thread: a client that never ends it keeps nobody waiting."""
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError):
                return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""
