"""Which host this is among those that share one storage, and what it may do there."""

from __future__ import annotations

import os

from poolkit import errors
from poolkit.lean import pattern
from poolkit.values import value

ROLES = ("control", "compute", "both")
"""What a host may do: change the shared storage, use its volumes, or both."""

# lvm(8), "VALID NAMES": a tag has up to 1024 of A-Z a-z 0-9 _ + . - / = ! : & #; a host name (RFC 1123) needs few of them.
_NAME = pattern(r"[A-Za-z0-9_.-]{1,63}\Z")


@value(frozen=True)
class Node:
    """A host by the name it has among those that share storage. ``role`` is one of ``ROLES``, or empty: nothing says it."""

    name: str
    role: str = ""


def checked(name: str, role: str, where: str, hint: str | None = None) -> Node:
    """A node of these; ``InvalidArgument``, naming ``where`` they stand, for what cannot be one."""
    if not _NAME.match(name):
        raise errors.InvalidArgument(
            f"{where}: '{name[:80]!s}' cannot be the name of a node: it has 1 to 63 of the characters A-Z a-z 0-9 _ . -",
            hint=hint,
        )
    if role not in ("", *ROLES):
        raise errors.InvalidArgument(f"{where}: the role of a node is one of {', '.join(ROLES)}, not '{role[:80]}'")
    return Node(name, role)


def here() -> Node:
    """This machine, without a role, by its host name."""
    name = os.uname().nodename
    return checked(name, "", "the host name of this machine", 'give it another in host.toml: [node] name = "n1"')
