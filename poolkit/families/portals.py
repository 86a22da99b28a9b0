"""iSCSI portals and logins, whoever logs in: addresses, target names, and the CHAP secrets of a definition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from poolkit import errors
from poolkit.families.servers import check_host
from poolkit.host import kernel
from poolkit.host.port import Host
from poolkit.model import AuthSecret, SourceHost
from poolkit.xmlmap import Element, simple, xml

PORT = 3260
"""The port of iSCSI targets (RFC 7143, section 4.2.7.1)."""

RECORDS = ("/etc/iscsi", "/var/lib/iscsi")
"""Where open-iscsi keeps its records and the host's name: Debian's place and upstream's, and Fedora's since 2.1.4."""

_MOST = 255  # bytes of a name or secret: AUTH_STR_MAX_LEN of open-iscsi, MAX_STRING_SIZE of libiscsi
_NAME = 223  # bytes of an iSCSI name (RFC 7143, section 4.2.7.1)
_LOOKUP = 10.0  # seconds that the name service has


LOGIN_HINT = (
    "check name and secret in <auth>, those of the target in <pk:mutual_auth>, and whether it lets this initiator in"
)
TARGET_HINT = "is the name right, and does the target let this initiator in?"
"""What to do about a login that is refused, and a target that is not there."""


class MutualAuth(Element):
    """How the target proves who it is, by CHAP in the other direction."""

    username: str = xml("@username", type=simple.Text, effect="acted", doc="The name that the target gives.")
    secret: AuthSecret = xml("secret", doc="Where its password is.")


class Chap(NamedTuple):
    """The two halves of a login: what we say, and what the target has to say; empty where nothing is asked for."""

    name: str = ""
    secret: str = ""
    name_in: str = ""
    secret_in: str = ""


class Portal(NamedTuple):
    """An address, without brackets, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        """As iscsiadm and libiscsi take it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def check(pool: Any) -> tuple[str, ...]:
    """What the definition claims for itself; ``InvalidArgument`` for names that no target or portal can have."""
    source = pool.source
    for name in (source.devices[0].path, source.initiator):
        if name is not None and (not re.fullmatch(r"[^\s/,\[\]]+", name) or len(name.encode()) > _NAME):
            raise errors.InvalidArgument(
                f"pool '{pool.name}': '{name[:80]}' is not the name of an iSCSI target or initiator", pool=pool.name,
                hint="a name such as iqn.2013-06.com.example:disks, of at most 223 bytes",
            )  # fmt: skip
    if pool.mutual_auth is not None and source.auth is None:
        raise errors.InvalidArgument(
            f"pool '{pool.name}': a target proves who it is only to one who logs in himself", pool=pool.name,
            hint="add <auth type='chap' …> to <source>",
        )  # fmt: skip
    who = f" as {source.initiator}" if source.initiator else ""
    return tuple(f"LUNs {source.devices[0].path} at {portal}{who}" for portal in portals(pool))


def portals(pool: Any) -> list[Portal]:
    """The portals that a definition names; names are not looked up."""
    return [Portal(check_host(pool.name, host.name), host.port or PORT) for host in pool.source.hosts]


def one(source: Any, type: str) -> Portal:
    """The one portal that a search for targets asks; ``InvalidArgument`` without it."""
    hosts: Sequence[SourceHost] = getattr(source, "hosts", ())
    if len(hosts) != 1:
        raise errors.InvalidArgument(
            f"to search for sources of {type} pools one host must be named, which is the portal",
            hint=errors.Hint("name it: ", errors.remedy("find-sources-as", type, ...)),
        )
    return Portal(check_host(None, hosts[0].name), hosts[0].port or PORT)


def name_of_host() -> str:
    """The name that this host logs in as where no other is asked for; empty if none is set."""
    for folder in RECORDS:
        for line in kernel.text(f"{folder}/initiatorname.iscsi").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "InitiatorName":
                return value.strip()
    return ""


def addresses(host: Host, portal: Portal) -> list[Portal]:
    """A portal by its addresses, each once, in the order in which the host's name service gives them; empty for none."""
    import ipaddress

    try:
        ipaddress.ip_address(portal.address)
        return [portal]
    except ValueError:
        pass
    # Without the option a host whose network has IPv6 alone gets loopback's IPv4 addresses as ::ffff:127.0.0.1 (getent(1)).
    argv = ["getent", "--no-addrconfig", "ahosts", "--", portal.address]
    try:
        said = host.query(argv, ok=(0, 2), timeout=_LOOKUP, shared=True).stdout
    except errors.ToolError:
        return []
    return [Portal(name, portal.port) for name in dict.fromkeys(line.split()[0] for line in said.splitlines() if line)]


def refused(pool: Any, failures: Sequence[errors.PoolkitError]) -> errors.PoolkitError:
    """One error for all portals that were tried: of the kind of the one that got furthest, with the words of all."""
    for kind in (errors.LoginRefused, errors.NotFound, errors.Unreachable):
        for error in failures:
            if isinstance(error, kind) and len(failures) > 1:
                start = f"pool '{pool.name}': "
                words = "; ".join(dict.fromkeys(str(one).removeprefix(start) for one in failures))
                return kind(f"{start}{words}", pool=pool.name, hint=error.hint)
    return failures[0]


def unknown(pool: str, portal: Portal) -> errors.Unreachable:
    """The error for a portal whose name has no address."""
    start = f"pool '{pool}': " if pool else ""
    return errors.Unreachable(
        f"{start}nobody knows an address of the portal '{portal.address}'", pool=pool or None,
        hint="is the name right, and does the name service answer? getent ahosts asks it",
    )  # fmt: skip


def chap(host: Host, pool: Any) -> Chap:
    """The login of a definition, its secrets fetched. Raises as ``host.secret``, and ``InvalidArgument`` for unfit ones."""
    ours, theirs = pool.source.auth, pool.mutual_auth
    if ours is None:
        return Chap()
    if ours.type != "chap":  # libvirt keeps such a definition, and does not start the pool
        raise errors.InvalidArgument(
            f"pool '{pool.name}': an iSCSI login is of the type chap, not {ours.type}", pool=pool.name,
            hint=errors.Hint("name a secret of type iscsi by <auth type='chap' …>: ", errors.remedy("edit", pool.name)),
        )  # fmt: skip
    login = Chap(_name(pool, ours.username), _value(host, pool, ours.secret))
    if theirs is None:
        return login
    return login._replace(name_in=_name(pool, theirs.username), secret_in=_value(host, pool, theirs.secret))


def _name(pool: Any, name: str) -> str:
    if why := _fault(name):
        raise errors.InvalidArgument(f"pool '{pool.name}': the name for the login {why}", pool=pool.name)
    return name


def _value(host: Host, pool: Any, secret: AuthSecret) -> str:
    value = host.secret("iscsi", uuid=secret.uuid, usage=secret.usage)
    try:
        text = value.decode()
        why = _fault(text)
    except UnicodeDecodeError:
        why = "is not text"
    if why:
        raise errors.InvalidArgument(
            f"pool '{pool.name}': the secret '{secret.uuid or secret.usage}' {why}, so it is no CHAP password",
            pool=pool.name,
            hint="12 to 16 letters and digits suit every target; a line feed at the end counts",
        )
    return text


def _fault(text: str) -> str:
    if not text:
        return "is empty"
    if len(text.encode()) > _MOST:
        return f"has more than {_MOST} bytes"
    if not text.isprintable():
        return "has a line feed or another character that cannot be printed"
    return "begins or ends with a blank" if text.strip() != text else ""
