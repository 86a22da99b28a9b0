"""From words of a command line to volumes, and from volumes to plain values: what the verbs of volumes share."""

from __future__ import annotations

import os
from contextlib import suppress

from poolkit import errors
from poolkit.cli.arguments import near, usage_error
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from poolkit.cli.arguments import Values
    from poolkit.cli.session import Session
    from poolkit.engine.volume import Volume
    from poolkit.model import Permissions


def find(session: Session, word: str, pool: str | None, option: str = "pool") -> Volume:
    """The volume that is meant: by name, key or path in ``pool``; by key or path in any active pool without it.

    ``option`` is the verb's name for the option with the pool.
    """
    try:
        try:
            return session.engine.volume(word, pool)
        except errors.PoolkitError:
            # A path as people type it. Keys with slashes that are no paths, such as those of images of Ceph, come first.
            if "/" not in word or word.startswith("/"):
                raise
            with suppress(errors.VolumeNotFound):
                return session.engine.volume(os.path.abspath(word), pool)
            raise
    except errors.VolumeNotFound as error:
        if pool is None and "/" not in word:
            error.hint = errors.Hint("a volume is found by its name with ", errors.Option(option, ...))
            owners = _with_volume(session, word)
            if len(owners) == 1:
                error.hint = errors.Hint("add ", errors.Option(option, owners[0]))
        raise
    except errors.PoolNotFound as error:
        if pool is not None and "/" not in pool and word in _with_volume(session, pool):
            error.hint = f"the volume comes first, then its pool: {errors.shown(pool, 60)} {errors.shown(word, 60)}"
        raise


def _with_volume(session: Session, name: str) -> list[str]:
    """The active pools that have a volume of that name on record."""
    try:
        return [info.name for info in session.engine.pools(active=True) if session.engine.pool(info.name).lists(name)]
    except errors.PoolkitError:
        return []


def volume_format(word: str | None) -> str | None:
    """``word`` if it is a volume format, else a usage error."""
    from poolkit.model import VOLUME_FORMATS

    if word is not None and word not in VOLUME_FORMATS:
        raise usage_error(f"'{errors.shown(word)}' is not a volume format", hint=near(word, VOLUME_FORMATS))
    return word


def permissions(values: Values, source: Volume | None = None) -> Permissions:
    """What ``--owner``, ``--group`` and ``--mode`` say; what they do not is as that of ``source``, or the pool's default."""
    import grp
    import pwd

    from poolkit.model import Permissions

    def number(word: str | None, what: str, ask: Callable[[str], int], default: int | None) -> int | None:
        if word is None:
            return default
        if word.isascii() and word.isdigit() and int(word) < 2**32 - 1:
            return int(word)
        try:
            return ask(word)
        except KeyError:
            raise usage_error(f"{what}: there is no {what} '{errors.shown(word)}' on this machine") from None

    info = source.info if source is not None else None
    mode = info.mode if info is not None else None
    if values.mode is not None:
        if (
            not (values.mode.isascii() and values.mode.isdigit())
            or set(values.mode) & {"8", "9"}
            or int(values.mode, 8) > 0o777
        ):
            raise usage_error(f"mode: '{errors.shown(values.mode)}' is no octal number up to 0777")
        mode = int(values.mode, 8)
    owner = number(values.owner, "user", lambda w: pwd.getpwnam(w).pw_uid, info.owner if info is not None else None)
    group = number(values.group, "group", lambda w: grp.getgrnam(w).gr_gid, info.group if info is not None else None)
    return Permissions(mode=mode, owner=owner, group=group)


def preallocation(values: Values) -> dict[str, Any]:
    """The backend's option for ``--prealloc-metadata`` and ``--prealloc``."""
    wanted = values.prealloc or ("metadata" if values.prealloc_metadata else None)
    return {} if wanted is None else {"preallocation": wanted}


def facts(volume: Volume) -> dict[str, Any]:
    """The facts of a volume as plain values; see ``SHAPES["volume"]``."""
    info = volume.info
    return {
        "pool": volume.pool.name, "name": info.name, "key": volume.key, "path": volume.path, "type": info.type,
        "format": info.format or None, "capacity": info.capacity, "allocation": info.allocation,
        "physical": info.physical, "mode": f"{info.mode:04o}", "owner": info.owner, "group": info.group,
        "atime": _time(info.atime), "mtime": _time(info.mtime), "ctime": _time(info.ctime), **(info.detail or {}),
    }  # fmt: skip


def _time(nanoseconds: int) -> str | None:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}" if nanoseconds else None
