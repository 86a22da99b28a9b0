"""From words of a command line to volumes, and from volumes to plain values: what the verbs of volumes share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli.arguments import Values, near, shown, usage_error

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.volume import Volume


def find(session: Session, word: str, pool: str | None, option: str = "pool") -> Volume:
    """The volume that is meant: by name, key or path in ``pool``; by key or path in any active pool without it.

    ``option`` is the verb's name for the option with the pool.
    """
    try:
        return session.engine.volume(word, pool)
    except errors.VolumeNotFound as error:
        if pool is None and "/" not in word:
            error.hint = errors.Hint("a volume is found by its name with ", errors.Option(option, ...))
            owners = _with_volume(session, word)
            if len(owners) == 1:
                error.hint = errors.Hint("add ", errors.Option(option, owners[0]))
        raise


def _with_volume(session: Session, name: str) -> list[str]:
    """The active pools that have a volume of that name on record."""
    from poolkit.backend import check_volume_name

    found = []
    try:
        check_volume_name(name, None)
        for info in session.engine.pools(active=True):
            with contextlib.suppress(errors.VolumeNotFound):
                session.engine.pool(info.name).volume(name)
                found.append(info.name)
    except errors.PoolkitError:
        return []
    return found


def volume_format(word: str | None) -> str | None:
    """``word`` if it is a volume format, else a usage error."""
    from poolkit.model import VOLUME_FORMATS

    if word is not None and word not in VOLUME_FORMATS:
        raise usage_error(f"'{shown(word)}' is not a volume format", hint=near(word, VOLUME_FORMATS))
    return word


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
