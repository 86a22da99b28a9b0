"""Servers of network file systems: how they and their directories are named, and what they offer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.host.port import Host
from poolkit.model import SourceHost

if TYPE_CHECKING:
    from poolkit.documents import FoundSource

TIMEOUT = 30.0
"""Seconds for a server to name what it exports."""

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")


def check_host(pool: str | None, name: str) -> str:
    """A host name or address as mount(8) takes it, an IPv6 address without brackets; ``InvalidArgument``."""
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if ":" in bare:
        import ipaddress

        try:
            address = ipaddress.IPv6Address(bare)
        except ValueError:
            address = None
        # A scope is any text to Python: a comma or a blank in it would begin another word for mount(8).
        if address is not None and re.fullmatch(r"[A-Za-z0-9_.-]+", address.scope_id or "0"):
            return str(address)
    elif _NAME.fullmatch(bare):
        return bare
    whose = f"pool '{pool}': " if pool else ""
    raise errors.InvalidArgument(f"{whose}'{name[:80]}' is not a host name or address", pool=pool)


def check_dir(pool: str, kind: str, dir: str) -> str:
    """The directory, share or volume if the protocol can name it; ``InvalidArgument``."""
    why = ""
    if ".." in dir.split("/"):
        why = "it contains '..'"
    elif kind == "nfs" and not dir.startswith("/"):
        why = "it is not an absolute path"
    elif kind == "cifs" and (re.search(r"[,\\]", dir) or not dir.strip("/")):
        why = "a share's name has no comma and no backslash, and is not empty"
    elif kind == "glusterfs" and not re.fullmatch(r"/?[A-Za-z0-9_-]+(/[A-Za-z0-9_./@+-]*)?", dir):
        why = "a volume's name has letters, digits, '_' and '-', and a folder in it also '.', '@' and '+'"
    if why:
        raise errors.InvalidArgument(
            f"pool '{pool}': the source directory '{dir[:80]}' cannot be used: {why}", pool=pool
        )
    return dir


def spell(kind: str, host: str, dir: str) -> str:
    """The source as mount(8) and the kernel's table of mounts spell it."""
    if kind == "cifs":
        return f"//{host}/{dir.strip('/')}"
    # mount.glusterfs takes all before the last colon for the host, and a bracket for nothing at all.
    return f"[{host}]:{dir}" if ":" in host and kind == "nfs" else f"{host}:{dir}"


def discover(host: Host, source: Any) -> list[FoundSource]:
    """The exports and, where the program gluster is installed, the volumes of the host that ``source`` names.

    ``source.format`` narrows it to nfs or glusterfs. Raises ``InvalidArgument`` without a host, ``Unreachable`` for one
    that does not answer in time, ``ToolError`` for one that serves neither; what serves one of the two is no error.
    """
    hosts: Any = getattr(source, "hosts", ())
    if len(hosts) != 1:
        raise errors.InvalidArgument(
            "to search for sources of netfs pools one host must be named",
            hint=errors.Hint("name it: ", errors.remedy("find-sources-as", "netfs", ...)),
        )
    name = check_host(None, hosts[0].name)
    format = getattr(source, "format", None) or "auto"
    found: list[FoundSource] = []
    ways = [_exports] if format in ("auto", "nfs") else []
    if format == "glusterfs" or (format == "auto" and host.has_program("gluster")):
        ways.append(_volumes)
    failures: list[errors.PoolkitError] = []
    for how in ways:
        try:
            found += _ask(host, name, how)
        except (errors.ToolError, errors.Unreachable) as error:
            failures.append(error)  # it may serve the other one alone
    if failures and len(failures) == len(ways):
        raise failures[0]
    return found


def _ask(host: Host, name: str, how: Any) -> list[FoundSource]:
    try:
        return list(how(host, name))
    except errors.ToolTimeout:
        raise errors.Unreachable(f"the server '{name}' did not answer within {TIMEOUT:g} seconds") from None


def _exports(host: Host, name: str) -> Iterator[FoundSource]:
    from poolkit.documents import FoundSource

    # One line each: the path, padded with blanks, and who may mount it, which has none.
    said = host.query(["showmount", "--no-headers", "--exports", "--", name], timeout=TIMEOUT).stdout
    for line in said.splitlines():
        path = line.rsplit(None, 1)[0] if line.strip() else ""
        if path.startswith("/") and path.isprintable():
            yield FoundSource(hosts=(SourceHost(name=name),), dir=path, format="nfs")


def _volumes(host: Host, name: str) -> Iterator[FoundSource]:
    from poolkit.documents import FoundSource

    argv = ["gluster", "--mode=script", "--log-file=/dev/null", f"--remote-host={name}", "volume", "list"]
    for line in host.query(argv, timeout=TIMEOUT).stdout.splitlines():
        if line.strip() and " " not in line.strip():
            yield FoundSource(hosts=(SourceHost(name=name),), dir=line.strip(), format="glusterfs")
