"""What a running libvirt says of pools and secrets, through its Python binding; nothing of it is changed."""

from __future__ import annotations

import shlex
import socket
from typing import Any
from urllib.parse import urlsplit

from poolkit import errors
from poolkit.engine.libvirt.found import Found, FoundPool, FoundSecret
from poolkit.state.secrets import Passphrase


def at(uri: str) -> Found:
    """What the libvirt at ``uri`` has, such as ``qemu:///system``.

    Raises ``Unsupported`` without the Python binding, and ``Unreachable`` when there is no connection. A connection without
    pools or secrets, as drivers for storage alone have none of the latter, is told of in ``notes``. The binding's own
    reports of errors are turned off in this process.
    """
    libvirt = _binding()
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise errors.Unreachable(
            f"no connection to the libvirt at '{uri}': {_said(error)}", hint="the same URI as for virsh -c"
        ) from error
    try:
        asked = _Asked(libvirt, connection, uri)
        pools, secrets = asked.pools(), asked.secrets()
        return Found(f"the libvirt at '{uri}'", tuple(pools), tuple(secrets), asked.here(), tuple(asked.notes))
    except libvirt.libvirtError as error:
        raise errors.HostError(f"the libvirt at '{uri}' does not answer: {_said(error)}") from error
    finally:
        connection.close()


def _binding() -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise errors.Unsupported(
            f"libvirt's Python binding is not installed: {error}",
            hint="pip install 'poolkit[libvirt]', or the system's package (Debian: python3-libvirt) for the system's Python; "
            "libvirt's folders are read without it",
        ) from error
    libvirt.registerErrorHandler(lambda *_: None, None)  # it prints every error, also those that are answers
    return libvirt


def _said(error: Any) -> str:
    return str(error.get_error_message() or error)


class _Asked:
    """One connection, and what it has not."""

    def __init__(self, libvirt: Any, connection: Any, uri: str) -> None:
        self.libvirt, self.connection, self.uri = libvirt, connection, uri
        self.notes: list[str] = []

    def here(self) -> bool:
        """Whether it is this host's: what is active elsewhere is not active here."""
        if urlsplit(self.uri).hostname is None:
            return True
        mine, its = socket.gethostname(), self.connection.getHostname()
        return str(its).partition(".")[0] == mine.partition(".")[0]

    def pools(self) -> list[FoundPool]:
        """All pools, by name."""
        try:
            all_pools = self.connection.listAllStoragePools(0)
        except self.libvirt.libvirtError as error:
            self._lacks(error, "pools")
            return []
        return sorted(self._each(all_pools, self._pool, "pool"), key=lambda one: one.name)

    def secrets(self) -> list[FoundSecret]:
        """All secrets, by uuid."""
        try:
            all_secrets = self.connection.listAllSecrets(0)
        except self.libvirt.libvirtError as error:
            self._lacks(error, "secrets")
            return []
        return sorted(self._each(all_secrets, self._secret, "secret"), key=lambda one: one.uuid)

    def _each(self, found: list[Any], ask: Any, kind: str) -> list[Any]:
        """What each says; one that is gone meanwhile is told of."""
        answers = []
        for one in found:
            try:
                answers.append(ask(one))
            except self.libvirt.libvirtError as error:
                self.notes.append(f"a {kind} was passed over: {_said(error)}")
        return answers

    def _lacks(self, error: Any, what: str) -> None:
        if error.get_error_code() != self.libvirt.VIR_ERR_NO_SUPPORT:
            raise error
        self.notes.append(f"this connection has no {what}: {_said(error)}")

    def _pool(self, pool: Any) -> FoundPool:
        name, persistent = pool.name(), bool(pool.isPersistent())
        text = self._stored(pool) if persistent else pool.XMLDesc(0)
        mark = f"virsh -c {shlex.quote(self.uri)} pool-autostart --disable {shlex.quote(name)}"
        marked = persistent and bool(pool.autostart())
        return FoundPool(
            name, text.encode(), f"<pool {name} of libvirt>", bool(pool.isActive()), persistent, mark if marked else ""
        )

    def _stored(self, pool: Any) -> Any:
        try:
            return pool.XMLDesc(self.libvirt.VIR_STORAGE_XML_INACTIVE)
        except self.libvirt.libvirtError as error:
            if error.get_error_code() != self.libvirt.VIR_ERR_INVALID_ARG:
                raise
            return pool.XMLDesc(0)  # a driver that does not tell the two apart

    def _secret(self, secret: Any) -> FoundSecret:
        text, value, why = secret.XMLDesc(0), None, ""
        try:
            value = Passphrase(secret.value(0))
        except self.libvirt.libvirtError as error:
            why = f"libvirt says: {_said(error)}"
        return FoundSecret(secret.UUIDString(), text.encode(), f"<secret {secret.UUIDString()} of libvirt>", value, why)
