"""A XenAPI server for tests: the peer of ``tests/peers/xapi``, or a real host.

``xapi`` gives a pool that is as new. With ``POOLKIT_XAPI_URL`` (``https://HOST``), ``POOLKIT_XAPI_USER`` (root) and
``POOLKIT_XAPI_PASSWORD_FILE`` it is that real host instead; tests that turn the peer's knobs (``xapi.control``) are skipped
there. A test on a real host must make its own SR and remove it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REAL = os.environ.get("POOLKIT_XAPI_URL", "")
USER, PASSWORD = "root", "s3cret & <more>"


class Xapi:
    """The peer as a process of its own; ``close`` ends it.

    ``url`` and ``tls_url`` are the master's, ``hosts`` the addresses of all (the same port on each), ``unix`` the paths of
    their sockets, ``certificate`` what to trust for TLS, ``password_file`` holds the password of ``user``.
    """

    real = False

    def __init__(self, hosts: int = 2, size: int = 0, tls: bool = True) -> None:
        # Short, for the sockets in it; and without "_", which the PyPI client reads as "/" in the path of a socket.
        while "_" in (name := tempfile.mkdtemp(prefix="pk-xapi-", dir="/tmp")):
            os.rmdir(name)
        self.folder = Path(name)
        self.user, self.password = USER, PASSWORD
        self.password_file = self.folder / "password"
        self.certificate = self.folder / "certificate.pem"
        (self.folder / "users").write_text(f"{USER} {PASSWORD}\n")
        self.password_file.write_text(PASSWORD)
        options = ["--folder", str(self.folder), "--users", str(self.folder / "users"), "--hosts", str(hosts)]
        options += ["--size", str(size)] if size else []
        try:
            if tls and shutil.which("openssl"):
                options += ["--certificate", str(self._key())]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.peers.xapi", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
            )
            assert self.process.stdout is not None
            facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        self.hosts: list[str] = facts["hosts"]
        self.port: int = facts["port"]
        self.tls_port: int = facts["tls_port"]
        self.unix = [Path(path) for path in facts["unix"]]
        self.url = f"http://{self.hosts[0]}:{self.port}"
        self.tls_url = f"https://{self.hosts[0]}:{self.tls_port}"

    def _key(self) -> Path:
        """A key and a certificate that it signed itself, in one file; the certificate alone in another."""
        key = self.folder / "key.pem"
        names = "subjectAltName=DNS:localhost," + ",".join(f"IP:127.0.0.{n}" for n in range(1, 9))
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        words += ["-subj", "/CN=localhost", "-addext", names, "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(["openssl", *words], check=True, capture_output=True)
        key.write_text(key.read_text() + self.certificate.read_text())
        return key

    def control(self, do: str, /, **order: Any) -> Any:
        """Turn a knob of the peer: see ``tests/peers/xapi/control.py``."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.folder / "control"))
            control.sendall(json.dumps({"do": do, **order}).encode() + b"\n")
            with control.makefile() as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["ok"]

    def fault(self, method: str, what: str, **how: Any) -> None:
        """Let something happen to calls of ``method``: see ``tests/peers/xapi/faults.py``."""
        self.control("fault", method=method, what=what, **how)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Xapi:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class RealXapi:
    """A host that is there already."""

    real = True

    def __init__(self) -> None:
        parts = urllib.parse.urlsplit(REAL)
        self.url = self.tls_url = REAL.rstrip("/")
        self.hosts = [parts.hostname or ""]
        self.port = self.tls_port = parts.port or (443 if parts.scheme == "https" else 80)
        self.unix: list[Path] = []
        self.user = os.environ.get("POOLKIT_XAPI_USER", "root")
        self.password_file = Path(os.environ["POOLKIT_XAPI_PASSWORD_FILE"])
        self.password = self.password_file.read_text().rstrip("\n")
        certificate = os.environ.get("POOLKIT_XAPI_CERTIFICATE", "")
        self.certificate = Path(certificate) if certificate else None

    def control(self, do: str, /, **order: Any) -> Any:
        pytest.skip("the knobs of the peer are not on a real host")

    def fault(self, method: str, what: str, **how: Any) -> None:
        self.control("fault")


@pytest.fixture(scope="session")
def xapi_server() -> Iterator[Xapi | RealXapi]:
    """The process for all tests of this one; ``xapi`` is the fixture to ask for."""
    if REAL:
        yield RealXapi()
        return
    with Xapi() as server:
        yield server


@pytest.fixture
def xapi(xapi_server: Xapi | RealXapi) -> Xapi | RealXapi:
    """A XenAPI pool of two hosts, as new."""
    if isinstance(xapi_server, Xapi):
        xapi_server.control("reset")
    return xapi_server
