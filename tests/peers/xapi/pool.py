"""The pool as a whole: its hosts' sockets, and the control socket that tests turn its knobs with."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import ssl
import threading
from pathlib import Path
from typing import Any

from . import branching, disks, events, machines, probing, repositories, sessions  # noqa: F401 - they register calls
from .api import MESSAGES, Api
from .control import Control
from .server import Server
from .storage import GIB, Storage


class Pool:
    """Hosts of a pool, on one port of 127.0.0.1, 127.0.0.2 and so on, as HOST_IS_SLAVE names an address only."""

    def __init__(self, folder: Path, users: dict[str, str], hosts: int, size: int, certificate: Path | None) -> None:
        self.folder, self.users, self.count, self.size = folder, users, hosts, size
        self.names = [f"127.0.0.{index + 1}" for index in range(hosts)]
        self.port, self.tls_port = 0, 0
        self.servers: list[Any] = []
        self.made = 0
        self.api = self.fresh()
        self.control = Control(self)
        self.unix = [folder / ("xapi" if index == 0 else f"xapi{index + 1}") for index in range(hosts)]
        self.port = self.listen(None)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.tls_port = self.listen(context)
        for index, path in enumerate(self.unix):
            path.unlink(missing_ok=True)
            self.servers.append(Server(str(path), self, index))
            path.chmod(0o600)

    def fresh(self) -> Api:
        """A pool as it is at the start, with nothing on its storage."""
        # What is still at work for a client that is gone may make files there yet: each time it is another folder.
        for old in self.folder.glob("storage*"):
            shutil.rmtree(old, ignore_errors=True)
        self.made += 1
        api = Api(dict(self.users), Storage(self.folder / f"storage{self.made}", self.size or 64 * GIB))
        machines.populate(api, self.count, self.names)
        return api

    def reset(self) -> None:
        """Begin anew; what hangs is let go, and who waits for events learns that the session is gone."""
        old = self.api
        old.faults.clear()
        with old.db.lock:
            for session in list(old.db.rows("session")):
                old.db.drop(session)
            old.db.lock.notify_all()
        self.api = self.fresh()

    def listen(self, context: ssl.SSLContext | None) -> int:
        """Listen on one free port of all addresses."""
        for _ in range(50):
            first = Server((self.names[0], 0), self, 0, context)
            port = int(first.server_address[1])
            made = [first]
            try:
                for index, name in list(enumerate(self.names))[1:]:
                    made.append(Server((name, port), self, index, context))
            except OSError:
                for server in made:
                    server.server_close()
                continue
            self.servers += made
            return port
        raise OSError("no port is free on all addresses")

    def serve(self) -> None:
        """Serve all sockets, each from a thread of its own."""
        path = self.folder / "control"
        path.unlink(missing_ok=True)
        control = ControlServer(str(path))
        control.pool = self
        os.chmod(path, 0o600)
        for server in [*self.servers, control]:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()

    def facts(self) -> dict[str, Any]:
        """Where it is to be found."""
        return {
            "hosts": self.names,
            "port": self.port,
            "tls_port": self.tls_port,
            "unix": [str(path) for path in self.unix],
            "control": str(self.folder / "control"),
            "calls": len(MESSAGES),
        }


class ControlHandler(socketserver.StreamRequestHandler):
    """A line of JSON in, ``{"do": WHAT, ...}``; a line of JSON out, ``{"ok": ...}`` or ``{"error": ...}``."""

    def handle(self) -> None:
        for line in self.rfile:
            try:
                order = json.loads(line)
                answer = {"ok": self.server.pool.control.do(order.pop("do"), **order)}  # type: ignore[attr-defined]
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class ControlServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The control socket."""

    address_family = socket.AF_UNIX
    daemon_threads = True
    pool: Pool

    def __init__(self, path: str) -> None:
        super().__init__(path, ControlHandler)  # type: ignore[arg-type]
