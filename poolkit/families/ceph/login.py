"""From the definition of a pool to a login at a Ceph cluster: monitors, time limits, and the key, which nobody else sees."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from poolkit import errors
from poolkit.families.ceph.interface import TIMEOUTS, CephError
from poolkit.host.port import Host

SECONDS = "30"
"""What the time-outs are where the definition does not say it: libvirt's values."""
PORTS = (3300, 6789)
"""Where monitors listen by default, for the second and the first version of their protocol."""
_PROBE = 3.0  # seconds that a monitor has to take a connection

OURS = frozenset(("mon_host", "mon_initial_members", "key", "keyfile", "keyring", "conf", "name", "id"))
"""Options that follow from other elements of the definition: a key in a document would be no secret."""

# Nothing is written where a client of Ceph would by itself, as log or socket, or read from a keyring of the host.
_QUIET = {"log_file": "", "admin_socket": "", "log_to_stderr": "false", "err_to_stderr": "false", "keyring": ""}


def settings(pool: Any, host: Host) -> tuple[str, dict[str, str]]:
    """The user and the options of the client for a pool of ``host``; asks the host for the secret.

    Raises ``SecretNotFound``, and ``InvalidArgument`` for options that other elements decide.
    """
    options = {**_QUIET, "mon_host": monitors(pool.source.hosts), **dict.fromkeys(TIMEOUTS, SECONDS)}
    for option in pool.config_options:
        if option.name in OURS:
            raise errors.InvalidArgument(
                f"pool '{pool.name}': the option '{option.name}' follows from other elements of the definition",
                pool=pool.name, hint="monitors are <host>, the login is <auth>, and its key is a secret",
            )  # fmt: skip
        options[option.name] = option.value
    for name in TIMEOUTS:
        if not _seconds(options[name]):
            host.warn(
                f"pool '{pool.name}': {name} '{options[name]}' would be no time limit; it is {SECONDS} seconds instead"
            )
            options[name] = SECONDS
    auth = pool.source.auth
    if auth is None:
        return "admin", {**options, "auth_client_required": "none"}
    key = _key(host.secret("ceph", uuid=auth.secret.uuid, usage=auth.secret.usage))
    host.hide(key)
    return auth.username, {**options, "key": key, "auth_client_required": "cephx"}


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def _key(value: bytes) -> str:
    """The key as Ceph takes it, from the text that ``ceph auth get-key`` prints, or from the bytes that libvirt keeps of it."""
    with contextlib.suppress(binascii.Error, ValueError):
        raw = base64.b64decode(value.strip(), validate=True)
        # src/auth/Crypto.cc: type, seconds, nanoseconds, length and as many bytes
        if len(raw) > 12 and len(raw) == 12 + int.from_bytes(raw[10:12], "little"):
            return value.strip().decode("ascii")
    return base64.b64encode(value).decode("ascii")


# -- monitors ---------------------------------------------------------------------------------------------------------


def monitors(hosts: Sequence[Any]) -> str:
    """The monitors as Ceph takes them. One at an unusual port is asked which protocol it speaks.

    Ceph tries both there, and waits for the one that is not spoken when the other has refused the key.
    """
    return ",".join(_monitor(host.name, host.port) for host in hosts)


def _monitor(name: str, port: int | None) -> str:
    shown = f"[{name}]" if ":" in name else name
    if not port:
        return shown
    if port not in PORTS:
        with contextlib.suppress(OSError), socket.create_connection((name, port), _PROBE) as probe:
            probe.settimeout(_PROBE)
            banner = probe.recv(8)  # "ceph v2\n", or "ceph v027" and addresses
            address = probe.getpeername()[0]
            version = {b"ceph v2\n": "v2", b"ceph v02": "v1"}.get(banner)
            if version is not None:
                return f"{version}:[{address}]:{port}" if ":" in address else f"{version}:{address}:{port}"
    return f"{shown}:{port}"


def reachable(pool: Any) -> bool:
    """Whether one of the monitors takes a connection; ends by itself after ten seconds."""
    found = threading.Event()

    def ask(name: str, port: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection((name, port), _PROBE):
            found.set()

    # A resolver may take its time: nobody waits for these longer than for the answer.
    for host in pool.source.hosts:
        for port in (host.port,) if host.port else PORTS:
            threading.Thread(target=ask, args=(host.name, port), daemon=True).start()
    return found.wait(10)


# -- words ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def worded(pool: Any, volume: str | None = None) -> Iterator[None]:
    """What Ceph answers in the body, as an error of poolkit."""
    try:
        yield
    except CephError as error:
        raise meaning(pool, error, volume) from error


def meaning(pool: Any, error: CephError, volume: str | None = None) -> errors.PoolkitError:
    """The error of poolkit for an answer of Ceph."""
    source = pool.source
    client = f"client.{source.auth.username}" if source.auth is not None else "a client without a login"
    head = f"pool '{pool.name}': "
    facts: dict[str, Any] = {"pool": pool.name, "volume": volume}
    number = error.number
    if number == errno.ETIMEDOUT:
        hosts = " or ".join(f"'{host.name}'" for host in source.hosts)
        return errors.Unreachable(
            f"{head}could not {error.what}: the cluster did not answer in time",
            hint=f"are the monitors {hosts} and the OSDs of the pool up? ceph -s on the cluster says it", **facts,
        )  # fmt: skip
    if error.what == "connect":
        if number in (errno.EACCES, errno.EPERM):
            return errors.PermissionDenied(
                f"{head}the cluster refuses {client}: the user is not known there, or its key is another one",
                hint=f"ceph auth get {client}, on the cluster, shows its key; the secret must have that", **facts,
            )  # fmt: skip
        if number in (errno.EINVAL, errno.ENOENT) and source.auth is not None:
            return errors.PermissionDenied(f"{head}the secret of {client} is not a key of Ceph", **facts)
    if number in (errno.EACCES, errno.EPERM):
        return errors.PermissionDenied(
            f"{head}{client} may not {error.what}",
            hint=f"on the cluster: ceph auth caps {client} mon 'profile rbd' osd 'profile rbd pool={source.name}'", **facts,
        )  # fmt: skip
    if number == errno.ENOENT and error.what.startswith("open the namespace"):
        return errors.HostError(
            f"{head}the pool '{source.name}' of the cluster has no namespace '{pool.namespace}'",
            hint=f"rbd namespace create {source.name}/{pool.namespace}, on the cluster, makes it", **facts,
        )  # fmt: skip
    if number == errno.ENOENT and error.what.startswith("open the pool"):
        return errors.HostError(
            f"{head}the cluster has no pool '{source.name}'", hint="ceph osd pool ls, on the cluster, names those it has",
            **facts,
        )  # fmt: skip
    if number in (errno.ENOSPC, errno.EDQUOT):
        return errors.NoSpace(f"{head}could not {error.what}: the cluster or the pool's quota is full", **facts)
    if number == errno.ESHUTDOWN:
        return errors.HostError(
            f"{head}the cluster has shut this client out (blocklist), since it took it for dead", hint="try again", **facts
        )  # fmt: skip
    if number == errno.ENOENT and error.what.startswith("create "):
        return errors.NotFound(
            f"{head}the image could not be made: the cluster does not have the data pool that it names",
            hint="ceph osd pool ls, on the cluster, tells its pools", **facts,
        )  # fmt: skip
    return errors.HostError(f"{head}could not {error.what}: {os.strerror(number)}", **facts)
