"""From the definition of a pool to a session: hosts, what is trusted, and the passwords, which nobody else sees."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from poolkit import errors
from poolkit.families.xapi import failures, srtypes
from poolkit.families.xapi.client import PORTS, Api, Login, Place
from poolkit.families.xapi.failures import Failed
from poolkit.families.xapi.line import Address, Trust
from poolkit.families.xapi.records import Unusable
from poolkit.families.xapi.repositories import Wanted
from poolkit.host.port import Host

_FILTER = re.compile(r"default-sr:true|other-config:[^=]+=.*")
_FINGERPRINT = re.compile("[0-9a-f]{64}")


def place(pool: Any) -> Place:
    """Where the hosts of a pool are asked; ``InvalidArgument`` for what cannot be."""
    source, api = pool.source, pool.source.api
    if source.socket is not None:
        return Place((Address(source.socket),), None, follow=False)
    usual = PORTS[api.scheme]
    hosts = tuple(
        Address(host.name.strip("[]"), host.port if host.port and host.port > 0 else usual) for host in source.hosts
    )
    if api.scheme == "http":
        if api.certificate or api.fingerprint:
            raise errors.InvalidArgument(
                f"pool '{pool.name}': <api> names a certificate, and http has none", pool=pool.name, hint="use https"
            )
        return Place(hosts, None)
    prints = tuple(word.replace(":", "").lower() for word in (api.fingerprint or "").split())
    if any(not _FINGERPRINT.fullmatch(one) for one in prints):
        raise errors.InvalidArgument(
            f"pool '{pool.name}': the fingerprint of a certificate has 64 hexadecimal digits (SHA-256)", pool=pool.name,
            hint="on the host: openssl x509 -in /etc/xensource/xapi-ssl.pem -noout -fingerprint -sha256",
        )  # fmt: skip
    return Place(hosts, Trust(api.certificate, prints))


def check(pool: Any) -> None:
    """Refuse a definition that no repository can be; nobody is asked."""
    place(pool)
    source = pool.source
    names = [parameter.name for parameter in source.parameters]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise errors.InvalidArgument(f"pool '{pool.name}': the parameter '{twice}' is given twice", pool=pool.name)
    if source.auth is None and source.socket is None:
        raise required(pool)
    repository = source.repository
    if repository.filter is not None:
        if not _FILTER.fullmatch(repository.filter):
            raise errors.InvalidArgument(
                f"pool '{pool.name}': '{repository.filter}' is no filter of repositories", pool=pool.name,
                hint="default-sr:true, or other-config:KEY=VALUE such as other-config:i18n-key=local-storage",
            )  # fmt: skip
        if repository.uuid is not None:
            raise errors.InvalidArgument(
                f"pool '{pool.name}': <sr> has a uuid and a filter; give one of them", pool=pool.name
            )
    given = {one.name: one.value for one in source.parameters}
    srtypes.check(pool.name, source.format, given, whole=bool(given) and repository.filter is None)


def required(pool: Any) -> errors.InvalidArgument:
    """The error for hosts that are to be reached over the network without a login."""
    return errors.InvalidArgument(
        f"pool '{pool.name}': a login is needed to reach hosts over the network", pool=pool.name,
        hint=errors.Hint(
            errors.Setting("source/auth", "<auth type='xapi' username='root'><secret uuid=.../></auth>")
        ),
    )  # fmt: skip


def wanted(pool: Any, host: Host) -> Wanted:
    """What the definition says of its repository."""
    source = pool.source
    repository, found = source.repository, srtypes.known(source.format)
    shared = repository.shared if repository.shared is not None else bool(found and found.shared)
    content = repository.content or ("iso" if found and found.kind == "iso" else "user")
    return Wanted(
        pool.name, str(pool.uuid), source.format, source.name or pool.name, repository.uuid, repository.filter,
        repository.host, shared, content, tuple(one.name for one in source.parameters), lambda: _config(pool, host),
    )  # fmt: skip


def _config(pool: Any, host: Host) -> dict[str, str]:
    """The device-config, with the values of secrets."""
    config = {}
    for one in pool.source.parameters:
        if one.secret is None:
            config[one.name] = str(one.value)
            continue
        config[one.name] = _text(pool, host.secret(one.secret.type, uuid=one.secret.uuid, usage=one.secret.usage), host)
        if not one.name.endswith("password"):
            host.warn(
                f"pool '{pool.name}': XAPI keeps secrets of parameters that end in 'password' alone: whoever may log in there "
                f"can read '{one.name}'"
            )
    return config


def _text(pool: Any, value: bytes, host: Host) -> str:
    try:
        text = value.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise errors.InvalidArgument(
            f"pool '{pool.name}': one of its secrets is no password: not one line of text", pool=pool.name
        )
    host.hide(text)
    return text


def _login(pool: Any, host: Host) -> Login:
    auth = pool.source.auth
    if auth is None:
        return Login("root", "")  # who may open the socket is root there, whatever the password
    value = host.secret("xapi", uuid=auth.secret.uuid, usage=auth.secret.usage)
    return Login(auth.username, _text(pool, value, host))


@contextlib.contextmanager
def session(pool: Any, host: Host, volume: str | None = None, doing: str = "") -> Iterator[Api]:
    """A session at the hosts of a pool; what they refuse in the body is an error of poolkit."""
    try:
        with Api(host, place(pool), _login(pool, host), pool.name) as api:
            yield api
    except Failed as failed:
        raise failures.meaning(failed, pool.name, volume, doing) from failed
    except Unusable as error:
        error.volume = error.volume or volume
        raise
