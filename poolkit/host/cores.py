"""No core dumps of whoever has seen a secret: the memory of a program that crashes would be written to a disk, or mailed."""

from __future__ import annotations

LIMIT = 1
"""For RLIMIT_CORE, in bytes. core(5): less than a page, no file is written. A dump that is piped to a program knows no limit but
this one (fs/coredump.c, do_coredump: "RLIMIT_CORE is set to 1, aborting core")."""


def forbid() -> None:
    """From now on this process and what it starts leave no core dump. Repeatable."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (LIMIT if hard == resource.RLIM_INFINITY else min(LIMIT, hard), hard))
