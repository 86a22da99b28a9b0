"""What an administrator says of this host, in a file beside the definitions: ``host.toml``.

    [node]
    name = "n2"          # its name among the hosts that share storage; the host name by default
    role = "compute"     # control, compute or both: what it may do to shared storage

    [xapi]
    url = "https://xen1.example.com"    # where ``poolkit sm`` makes repositories; also http://, or unix:/var/lib/xcp/xapi
    username = "root"
    secret = "xen login"                # usage of the secret of type xapi that has the password
    certificate = "/etc/poolkit/xen.pem"    # what to trust, or fingerprint = "..."; the system's certificates by default

Nothing of it stands in definitions, since those are the same on all hosts.
"""

from __future__ import annotations

from poolkit import errors
from poolkit.host import node, private
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any


_LARGEST = 64 << 10  # bytes
_TABLES = {"node": ("name", "role"), "xapi": ("url", "username", "secret", "certificate", "fingerprint")}


class Xapi(NamedTuple):
    """Where the API of XenServer or XCP-ng is, and how to log in; what is not said is empty."""

    url: str = ""
    username: str = ""
    secret: str = ""
    certificate: str = ""
    fingerprint: str = ""


def read(path: str) -> node.Node:
    """The node that the file at ``path`` describes; this machine without a role if there is none.

    Raises ``InvalidArgument``, with the file's name, for what it must not say, and ``Unsafe`` for a file that others can write.
    """
    found = _table(path, "node")
    name = found["name"] if "name" in found else node.here().name
    return node.checked(name, found.get("role", ""), f"'{path}'")


def xapi(path: str) -> Xapi:
    """What the file at ``path`` says of XAPI; errors as for :func:`read`."""
    return Xapi(**_table(path, "xapi"))


def _table(path: str, name: str) -> dict[str, str]:
    try:
        fd = private.open_ours(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise errors.from_os_error(error, f"read '{path}'") from error
    import tomllib

    with open(fd, "rb") as file:
        text = file.read(_LARGEST)
    try:
        said = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(f"'{path}' is no TOML: {error}") from error
    unknown = sorted(said.keys() - _TABLES.keys())
    if unknown:
        raise errors.InvalidArgument(f"'{path}' has the tables [node] and [xapi], not '{unknown[0]}'")
    table: Any = said.get(name, {})
    if not isinstance(table, dict):
        raise errors.InvalidArgument(f"'{path}': {name} is a table: [{name}]")
    words = errors.some(_TABLES[name], len(_TABLES[name]))
    unknown = sorted(table.keys() - set(_TABLES[name]))
    if unknown:
        raise errors.InvalidArgument(f"'{path}': [{name}] has {words}, not '{unknown[0]}'")
    if not all(isinstance(value, str) for value in table.values()):
        raise errors.InvalidArgument(f"'{path}': {words} of [{name}] are texts")
    return table
