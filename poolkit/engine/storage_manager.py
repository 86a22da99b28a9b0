"""XenAPI storage repositories as backends of flavors, each known by a number: what ``nova-manage sm`` had promised.

A backend is a pool of type xensm and its entry in one flavor, where its number stands: one more than the highest there is.
"""

from __future__ import annotations

import os
import re
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from poolkit import errors
from poolkit.engine.operation import Outcome
from poolkit.state import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolkit import documents
    from poolkit.engine.engine import Engine
    from poolkit.engine.pool import Pool

SOCKET = "/var/lib/xcp/xapi"
"""Where XenServer and XCP-ng have the socket of their API."""
TYPE = "xensm"
"""The type of its pools."""
_OWN = ("name_label", "shared", "content_type", "sr_uuid")
"""Keys that say something of the repository; all others are its device configuration."""
_BY_USAGE = "_secret"  # ends a key whose value is the usage of a secret
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


class StorageBackend(NamedTuple):
    """A backend of a flavor. ``uuid`` is the repository's, once it was started; a password in ``config`` is ``secret:USAGE``."""

    number: int
    flavor: str
    pool: str
    uuid: str | None
    type: str
    config: dict[str, str]


class StorageManager:
    """The backends of all flavors of one root that are storage repositories."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def backends(self) -> list[StorageBackend]:
        """All that have a number, in its order. No host is asked."""
        return sorted((self._backend(flavor, one) for flavor, one in self._numbered()), key=lambda one: one[:3])

    def add(self, flavor: str, type: str, config: Mapping[str, str], *, overwrite: bool = False) -> StorageBackend:
        """Make a storage repository, start it as a pool, and give it to a flavor.

        ``config`` has the repository's device configuration, and ``name_label`` (also the pool's name),
        ``shared``, ``content_type``. With ``sr_uuid``, or where the hosts know one of that name and type, the repository that
        exists is introduced. A password is given as ``KEY_secret``, with the usage of a secret. If a step fails there is no pool
        and no backend; a repository that was made before it stays. ``FlavorNotFound``, ``PoolExists``, ``InvalidArgument``,
        ``Unsafe`` for storage that holds something unless ``overwrite``, and what hosts refuse. Needs ``[xapi]`` in
        ``host.toml``, or to run on the host. With ``dry_run`` no host is asked, and the backend is the one that would be.
        """
        engine = self._engine
        engine.flavors.get(flavor)
        name = config.get("name_label") or f"{flavor}-{self._next()}"
        if any(record.name == name for record in engine.pools()):
            raise errors.PoolExists(
                f"there is a pool '{name}' already", pool=name,
                hint="give the repository another name_label, or name the pool in the flavor's document",
            )  # fmt: skip
        try:
            pool = engine.define(_document(name, type, config, self._where()))
            if engine.host.dry_run:
                return StorageBackend(self._next(), flavor, name, config.get("sr_uuid"), type, _shown(config))
            try:
                pool.start(build="sr_uuid" not in config, overwrite=overwrite)
                made = engine.flavors.change(flavor, lambda now: _with(now, name, self._next()))
            except BaseException:
                self._take_back(pool)
                raise
        except errors.PoolkitError as error:
            error.hint = self._advice(error.hint)
            raise
        return self._backend(flavor, made.definition.backends[-1])

    def remove(self, number: int) -> Outcome:
        """Take a backend from its flavor; its pool is stopped and forgotten unless another flavor has it. Data stays.

        ``NotFound``, ``InvalidArgument`` where several have the number; ``HasDependents`` while the flavor has volumes in it,
        ``Busy`` while a machine has one of its disks.
        """
        from poolkit import xmlmap

        engine = self._engine
        flavor, one = self._only(number)
        left = [volume for pool, volume in engine.flavors.get(flavor.name).volumes() if pool == one.pool]
        if left:
            error = errors.HasDependents(
                f"backend {number} cannot be removed: flavor '{flavor.name}' has volumes in it: {errors.some(left, 3)}",
                pool=one.pool, hint="delete them first",
            )  # fmt: skip
            error.volumes, error.volume_count = tuple((one.pool, name) for name in left[:5]), len(left)
            raise error
        others = [other for other, backend in self._all() if backend.pool == one.pool and other.name != flavor.name]
        pool = None if others else self._pool(one.pool)
        was_active = pool is not None and pool.info.active
        if pool is not None:
            pool.destroy()
        try:
            engine.flavors.change(
                flavor.name,
                lambda now: xmlmap.replace(now, backends=tuple(b for b in now.backends if b.pool != one.pool)),
            )
        except BaseException:
            if pool is not None and was_active:
                pool.start()
            raise
        dry = engine.host.dry_run
        if pool is not None and not dry:  # in a dry run it is active still
            pool.undefine()
        done = "would be removed" if dry else "is removed"
        return Outcome(True, f"backend {number} {done} from flavor '{flavor.name}'; its repository and data stay")

    # -- what there is ------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[tuple[documents.Flavor, documents.FlavorBackend]]:
        for flavor in self._engine.flavors.list():
            for backend in flavor.definition.backends:
                yield flavor.definition, backend

    def _numbered(self) -> list[tuple[documents.Flavor, documents.FlavorBackend]]:
        return [(flavor, backend) for flavor, backend in self._all() if backend.number is not None]

    def _next(self) -> int:
        return 1 + max((one.number or 0 for _, one in self._numbered()), default=0)

    def _only(self, number: int) -> tuple[documents.Flavor, documents.FlavorBackend]:
        """The backend with that number, and its flavor: documents can give a number twice."""
        found = [one for one in self._numbered() if one[1].number == number]
        if len(found) == 1:
            return found[0]
        if not found:
            raise errors.NotFound(
                f"there is no backend {number}",
                hint=errors.Hint("the backends are told by ", errors.remedy("sm", "backend-list")),
            )
        words = [f"pool '{one.pool}' of flavor '{flavor.name}'" for flavor, one in found]
        raise errors.InvalidArgument(
            f"{len(found)} backends have the number {number}: {errors.some(words)}",
            hint="give each a number of its own in the documents of the flavors",
        )

    def _pool(self, name: str) -> Pool | None:
        try:
            return self._engine.pool(name)
        except errors.PoolNotFound:
            return None

    def _backend(self, flavor: documents.Flavor | str, one: documents.FlavorBackend) -> StorageBackend:
        pool, name = self._pool(one.pool), flavor if isinstance(flavor, str) else flavor.name
        definition: Any = pool.definition() if pool is not None else None
        if definition is None or definition.type != TYPE:
            kind = definition.type if definition is not None else ""
            return StorageBackend(one.number or 0, name, one.pool, None, kind, {})
        record = self._engine.core.record(one.pool)
        source = definition.source
        config = {
            p.name: p.value if p.secret is None else f"secret:{p.secret.usage or p.secret.uuid}"
            for p in source.parameters
        }
        return StorageBackend(
            one.number or 0, name, one.pool, record.storage or source.repository.uuid, source.format, config
        )

    def _advice(self, hint: str | None) -> str | None:
        """The hint of a pool type for whoever wrote no definition: KEY=VALUE, and what ``host.toml`` has."""
        if not isinstance(hint, errors.Hint):
            return hint
        return errors.Hint(*(self._said(part) if isinstance(part, errors.Setting) else part for part in hint.parts))

    def _said(self, part: errors.Setting) -> errors.Part:
        """Where what a pool type wants to have in the definition is said here; as it is for what is not said here at all."""
        there = f"in '{self._engine.locations.settings}': [xapi]"
        words = {
            "source/param": f"{part.key}=...",
            "source/sr/@uuid": "sr_uuid=UUID",
            "source/format/@type": f"type {part.key}" if part.key else "TYPE",
            "source/api/@certificate": f'{there} certificate = "FILE"',
            "source/api/@fingerprint": 'fingerprint = "SHA256"',
            "source/auth": f'{there} username = "root", secret = "USAGE"',
            "source/auth/secret": f"the secret that [xapi] of '{self._engine.locations.settings}' names",
            "source/host": f'{there} url = "https://MASTER"',
        }
        return words.get(part.path, part)

    def _take_back(self, pool: Pool) -> None:
        """What was made for a backend that did not become one; what cannot be taken back stays, to be looked at."""
        try:
            pool.destroy()
            pool.undefine()
        except errors.PoolkitError as error:
            self._engine.host.warn(f"pool '{pool.name}' is left: {error}")

    def place(self) -> str:
        """The ``<source>`` that says where XAPI is, and the login. ``InvalidArgument`` if nothing does."""
        where = self._where()
        return f"<source>{_api(where)}{_auth(where)}</source>"

    def _where(self) -> settings.Xapi:
        """Where XAPI is; ``InvalidArgument`` if nothing says it and this is no such host."""
        path = self._engine.locations.settings
        said = settings.xapi(path)
        if said.url:
            return said
        if os.path.exists(SOCKET):
            return said._replace(url=f"unix:{SOCKET}")
        raise errors.InvalidArgument(
            f"nothing says where XAPI is: this host has no '{SOCKET}', and '{path}' no [xapi]",
            hint=f'write into \'{path}\': [xapi] url = "https://HOST", username = "root", secret = "USAGE"',
        )


def _shown(config: Mapping[str, str]) -> dict[str, str]:
    """The device configuration that is asked for, as :class:`StorageBackend` has it."""
    return {
        key.removesuffix(_BY_USAGE): f"secret:{value}" if key.endswith(_BY_USAGE) else value
        for key, value in config.items()
        if key not in _OWN
    }


def _with(flavor: documents.Flavor, pool: str, number: int) -> documents.Flavor:
    from poolkit import documents, xmlmap

    made = documents.FlavorBackend(pool=pool, number=number)
    return xmlmap.replace(flavor, backends=(*flavor.backends, made))


def _document(name: str, type: str, config: Mapping[str, str], where: settings.Xapi) -> str:
    """The definition of the pool; whether it can be one is the mapping's to say."""
    own = {key: value for key, value in config.items() if key in _OWN}
    parameters = ""
    for key, value in config.items():
        if key in _OWN:
            continue
        if not _KEY.match(key):
            raise errors.InvalidArgument(f"'{key[:80]}' is no key of a repository's configuration", hint="KEY=VALUE")
        if key.endswith(_BY_USAGE):
            parameters += (
                f"<param name={quoteattr(key.removesuffix(_BY_USAGE))}><secret usage={quoteattr(value)}/></param>"
            )
        elif key.endswith("password"):
            raise errors.InvalidArgument(
                f"'{key}' is a password, and programs' arguments are seen by everybody",
                hint=f"define a secret of type xapi, and give {key}{_BY_USAGE}=ITS-USAGE",
            )
        else:
            parameters += f"<param name={quoteattr(key)} value={quoteattr(value)}/>"
    words = {"uuid": own.get("sr_uuid"), "shared": _yes_no(own.get("shared")), "content": own.get("content_type")}
    repository = "".join(f" {key}={quoteattr(value)}" for key, value in words.items() if value)
    label = f"<name>{escape(own['name_label'])}</name>" if own.get("name_label") else ""
    return (
        f"<pool type='xensm'><name>{escape(name)}</name><uuid>{uuid.uuid4()}</uuid><source>{_api(where)}{label}<sr{repository}/>"
        f"<format type={quoteattr(type)}/>{_auth(where)}{parameters}</source></pool>"
    )


def _api(where: settings.Xapi) -> str:
    try:
        parts = urllib.parse.urlsplit(where.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urllib.parse.SplitResult("", "", "", "", ""), None, None
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return f"<socket path={quoteattr(parts.path)}/>"
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or "@" in parts.netloc:
        # The address is not repeated: a password may be in it.
        raise errors.InvalidArgument(
            "host.toml: the url of [xapi] is no address of XAPI", hint="https://HOST, http://HOST or unix:/PATH"
        )
    words = {"scheme": parts.scheme, "certificate": where.certificate, "fingerprint": where.fingerprint}
    api = "".join(f" {key}={quoteattr(value)}" for key, value in words.items() if value)
    at = f" port='{port}'" if port else ""
    return f"<host name={quoteattr(host)}{at}/><api{api}/>"


def _auth(where: settings.Xapi) -> str:
    if not where.secret:
        return ""
    user = quoteattr(where.username or "root")
    return f"<auth type='xapi' username={user}><secret usage={quoteattr(where.secret)}/></auth>"


def _yes_no(word: str | None) -> str | None:
    return {"true": "yes", "false": "no"}.get(word.lower(), word) if word else None
