"""What stands on what: volumes on volumes by the index of backing, and pools on the storage of other pools.

Known is what active pools have listed. A path in an image's header is a stranger's text: it is compared, its symbolic links are
followed, and what it names is asked for by stat(2), but only on file systems of this machine, and nothing is ever opened.
"""

from __future__ import annotations

import os
import stat

from poolkit import errors
from poolkit.host.mounts import locate, may_wait, number
from poolkit.later import later
from poolkit.lean import TYPE_CHECKING, NamedTuple
from poolkit.names import SHOWN, quoted
from poolkit.state.backing import Edge, Ground

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine import footing
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.host.port import Host
    from poolkit.listing import Listing
    from poolkit.state import backing
    from poolkit.state.backing import Standing
    from poolkit.state.inventory import Record
else:
    footing = later(globals(), "footing", "poolkit.engine.footing")
    backing = later(globals(), "backing", "poolkit.state.backing")


_MARKS = frozenset(("missing", "half_written"))


class Place(NamedTuple):
    """What is at a path: without symbolic links, what tells it from others whatever its name, and whether nothing is there."""

    real: str
    node: str | None = None
    missing: bool = False


def place(host: Host, path: str) -> Place:
    """What is at ``path``, asked once per engine call; what may wait for somebody is not asked."""
    found: Place = host.shared(("place", path), lambda: _place(host, path))
    return found


def _place(host: Host, path: str) -> Place:
    if not path.startswith("/"):
        return Place(path)
    folder, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        return _followed(host, path)
    # Ten thousand images have their bases in few folders, so the links on the way to a folder are followed once.
    real, waits = host.shared(("folder", folder), lambda: _folder_at(host, folder or "/"))
    there = f"{real.rstrip('/')}/{name}"
    if waits:
        return Place(there)
    if there in host.mounts().tops:
        return _followed(host, path)
    return _at(there, os.lstat) or _followed(host, path)


def _folder_at(host: Host, folder: str) -> tuple[str, bool]:
    """A folder without symbolic links, and whether who looks at it may wait for somebody, or gets nowhere."""
    try:
        real, mount = locate(folder, host.mounts(), may_wait)
    except OSError:  # a loop of links
        return folder, True
    return real, mount is None or may_wait(mount.fstype)


def _followed(host: Host, path: str) -> Place:
    """What is at a path of which the last part may be a link, or a mount point."""
    real, waits = _folder_at(host, path)
    return Place(real) if waits else _at(real, os.stat) or Place(real)


def _at(real: str, look: Callable[[str], os.stat_result]) -> Place | None:
    """What is at a path on a file system of this machine; None for a link that is not followed."""
    try:
        facts = look(real)
    except (FileNotFoundError, NotADirectoryError):
        return Place(real, missing=True)
    except (OSError, ValueError):
        return Place(real)
    kind = stat.S_IFMT(facts.st_mode)
    if kind == stat.S_IFLNK:
        return None
    return Place(
        real, f"block {number(facts.st_rdev)}" if kind == stat.S_IFBLK else f"{facts.st_dev:x}:{facts.st_ino:x}"
    )


def edges(backend: Backend, host: Host, volumes: Iterable[VolumeInfo], listed: Iterable[str] = ()) -> list[Edge]:
    """What each of ``volumes`` stands on; ``listed`` are the names of all volumes of the pool.

    Where the file system cannot be asked, a file of the pool's own folder is missing if it is not listed.
    """
    asked = _Asked(backend, host, listed)
    return [
        Edge(info.name, *ground) for info in volumes for ground in asked.below(info) if not asked.is_own(info, ground)
    ]


def below(backend: Backend, host: Host, found: Listing) -> Standing:
    """What the volumes of a listing stand on, as :func:`edges` has it.

    Where that follows from the detail, it is asked once for all volumes that have the same.
    """
    asked = _Asked(backend, host, found.names())
    if not backend.below_by_detail:
        return backing.Standing.of(edges(backend, host, found.told(), found.names()))
    result = backing.Standing(asked.folder)
    for sample, names in found.kinds():
        for ground in asked.below(sample):
            own = ground.said.rpartition("/")[2]
            on_it = (
                names if own not in names else [n for n in names if not asked.is_own(sample._replace(name=n), ground)]
            )
            if on_it:
                result.add(ground, on_it)
    return result


class _Asked:
    """What is asked for the volumes of one pool."""

    def __init__(self, backend: Backend, host: Host, listed: Iterable[str]) -> None:
        self.folder = _folder(backend)
        self._backend = backend
        self._host = host
        self._listed = listed
        self._names: frozenset[str] | None = None
        self._real = place(host, self.folder).real if self.folder is not None else None

    def is_own(self, info: VolumeInfo, ground: Ground) -> bool:
        """Whether that is the volume itself."""
        return ground.said == _path(info, self.folder)

    def below(self, info: VolumeInfo) -> Iterator[Ground]:
        """What a volume stands on by what it says."""
        if info.detail is None:
            return
        for said in self._backend.below(info):
            path = said
            # Nearly all are in order; what goes up stays as it is, for its folder may be a link.
            if said.startswith("/") and ("//" in said or "/." in said or said.endswith("/")):
                path = said if ".." in said.split("/") else os.path.normpath(said)
            if not _is_text(path):
                continue
            if not self._backend.file_backed and os.path.dirname(path) == os.path.dirname(info.path or ""):
                continue  # snapshots: their storage guards them itself
            there = place(self._host, path)
            missing = there.missing
            if there.node is None and not missing and os.path.dirname(there.real) == self._real:
                if self._names is None:
                    self._names = frozenset(self._listed)
                missing = bool(self._names) and os.path.basename(there.real) not in self._names
            yield Ground(path, there.real, there.node, missing)


def _folder(backend: Backend) -> str | None:
    return os.path.normpath(backend.pool.target.path) if backend.file_backed else None


def _path(info: VolumeInfo, folder: str | None) -> str:
    return info.path or f"{folder or ''}/{info.name}"


def _is_text(path: str) -> bool:
    if path.isascii():
        return True
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def paths(host: Host, record: Record, info: VolumeInfo) -> tuple[str, ...]:
    """The paths by which others may name a volume: as it is said, and without symbolic links."""
    said = _path(info, record.target)
    found = [said, place(host, said).real]
    if info.path is None and record.real is not None:
        found.append(f"{record.real}/{info.name}")
    return tuple(dict.fromkeys(filter(_is_text, found)))


# -- refusing -------------------------------------------------------------------------------------------------------


def require_free_volume(
    core: Core, op: Operation, backend: Backend, record: Record, info: VolumeInfo, doing: str, *, force: bool
) -> None:
    """``HasDependents`` if volumes of active pools, or active pools, stand on a volume, unless ``force``.

    ``doing`` is what would be done to it, as a participle.
    """
    if force:
        return
    host = op.host
    names = paths(host, record, info)
    there = place(host, names[0])
    if there.missing and backend.file_backed:
        return  # there is nothing any more that could be lost
    if there.node is not None and not (doing == "deleted" and _has_other_names(there.real)):
        # Other names of the same file: those of hard links, and those below another mount of its file system.
        others = core.inventory.said_of(there.node)
        names += tuple(said for said in others if said not in names and _place(host, said).node == there.node)
    query = backing.on_paths(names, (record.id, info.name), core.boot)
    volumes, count = core.inventory.standing(query, SHOWN)
    pools = footing.pools_on_volume(core, host, record, info, there.real)
    _refuse(f"volume '{info.name}' cannot be {doing}", record.name, volumes, count, pools, volume=info.name)


def _has_other_names(path: str) -> bool:
    """Whether the file stays when one name of it is deleted."""
    try:
        return os.stat(path).st_nlink > 1
    except OSError:
        return False


def require_free_pool(core: Core, op: Operation, backend: Backend, record: Record, doing: str, *, force: bool) -> None:
    """``HasDependents`` if stopping or deleting a pool takes away what volumes of others, or other active pools, stand on."""
    if force or (doing == "stopped" and "stop" not in backend.verbs()):
        return
    volumes: list[tuple[str, str]] = []
    count = 0
    if record.target is not None:
        folders = tuple(dict.fromkeys((record.target, record.real or record.target)))
        volumes, count = core.inventory.standing(backing.below_folder(folders, record.id, core.boot), SHOWN)
    pools = footing.pools_on_pool(core, op.host, backend, record)
    _refuse(f"pool '{record.name}' cannot be {doing}", record.name, volumes, count, pools)


def require_free_source(core: Core, host: Host, backend: Backend, record: Record | None) -> None:
    """``HasDependents`` if volumes of active pools stand on what building a pool anew destroys: its devices, or its files.

    Files are known by their paths below the pool's target, also while nothing is mounted there. To be asked before
    ``build(overwrite=True)``.
    """
    devices = [claim.removeprefix("device ") for claim in backend.claims() if claim.startswith("device /")]
    if not devices:
        return  # nothing is overwritten
    ident, name = (record.id, record.name) if record is not None else (0, backend.pool.name)
    names = dict.fromkeys(said for device in devices for said in (device, place(host, device).real))
    for node in footing.whole(devices):
        names |= dict.fromkeys(core.inventory.said_of(f"block {node}"))
    found, count = core.inventory.standing(backing.on_paths(tuple(names), (ident, ""), core.boot), SHOWN)
    if not count and backend.pool.target.path:
        folders = tuple(dict.fromkeys((backend.pool.target.path, place(host, backend.pool.target.path).real)))
        found, count = core.inventory.standing(backing.below_folder(folders, ident, core.boot), SHOWN)
    if count:
        hint = errors.Hint("take that away first, or stop its pool: ", errors.remedy("destroy", found[0][0]))
        _refuse(f"pool '{name}' cannot be built anew", name, found, count, (), hint=hint)


def _refuse(
    what: str, own: str, volumes: Sequence[tuple[str, str]], count: int, pools: Sequence[str], volume: str | None = None,
    hint: errors.Hint | None = None,
) -> None:  # fmt: skip
    if not count and not pools:
        return
    words = []
    if count:
        elsewhere = {pool for pool, _ in volumes} != {own}
        names = quoted((f"{pool}/{name}" if elsewhere else name for pool, name in volumes), count)
        words.append(f"the volume{'' if count == 1 else 's'} {names}")
    if pools:
        words.append(f"the active pool{'' if len(pools) == 1 else 's'} {quoted(pools)}")
    stand = "stands" if count + len(pools) == 1 else "stand"
    error = errors.HasDependents(
        f"{what}: {' and '.join(words)} {stand} on it", pool=own, volume=volume,
        hint=hint or errors.Hint(
            "take it away first; if it is not needed, add " if stand == "stands"
            else "take them away first; if they are not needed, add ",
            errors.Option("force"),
        ),
    )  # fmt: skip
    error.volumes, error.volume_count, error.pools = tuple(volumes), count, tuple(pools)
    raise error


# -- telling --------------------------------------------------------------------------------------------------------


def marked(info: VolumeInfo, missing: Sequence[str] | None) -> VolumeInfo:
    """A volume with the paths of what it stands on and what is not there, as ``detail["missing"]``."""
    return info._replace(detail={**(info.detail or {}), "missing": list(missing)}) if missing else info


def unmarked(info: VolumeInfo) -> VolumeInfo:
    """A volume as it is stored, where what is missing or half-written is kept by itself."""
    if info.detail is None or not info.detail.keys() & _MARKS:
        return info
    rest: dict[str, Any] = {key: value for key, value in info.detail.items() if key not in _MARKS}
    return info._replace(detail=rest or None)


def warn_of_missing(host: Host, pool: str, found: Standing | Sequence[Edge]) -> None:
    """Count the volumes of a listing whose backing store, data file or extent is not there."""
    all_of_it = backing.Standing.of(found)
    missing = [said for said, ground in all_of_it.grounds.items() if ground.missing]
    names = sorted({name for said in missing for name in all_of_it.names[said]})
    if names:
        what = "1 volume stands" if len(names) == 1 else f"{len(names)} volumes stand"
        host.warn(
            errors.Hint(
                f"{what} on images that are missing: {quoted(names)}; which they are says ",
                errors.remedy("vol-info", names[0], pool=pool),
            )
        )
