"""Whether all is well with one root and this machine: folders, programs, definitions, pools, and left-over work."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from poolkit import errors, registry
from poolkit.backend import Backend
from poolkit.content import images
from poolkit.engine.capabilities import pool_types
from poolkit.engine.engine import Engine
from poolkit.host import forks, private
from poolkit.host.port import Host
from poolkit.state.store import Locations


class Finding(NamedTuple):
    """``status`` is ``ok``, ``note`` (works, but people should know) or ``problem`` (something cannot work)."""

    name: str
    status: Literal["ok", "note", "problem"]
    message: str
    hint: str | None = None


def examine(root: str | os.PathLike[str] | None = None, opened: Callable[[], Engine] | None = None) -> list[Finding]:
    """Everything found about a root and this machine; changes nothing that an ``Engine`` of that root does not.

    ``opened`` gives the engine to ask; without it one is opened and closed. Each part stands alone, so that a broken one does
    not hide the rest.
    """
    if opened is None:
        try:
            with Engine(root) as engine:
                return examine(root, lambda: engine)
        except (errors.PoolkitError, OSError) as error:
            return _unopened(Locations.choose(root), error)
    locations = Locations.choose(root)
    try:
        engine = opened()
    except (errors.PoolkitError, OSError) as error:
        return _unopened(locations, error)
    found = [*_machine(), *_folders(locations)]
    for part in (_settings, _left_over, _inventory, _pools, _secrets):
        try:
            found += part(engine)
        except (errors.PoolkitError, OSError) as error:
            name = part.__name__.strip("_").replace("_", "-")
            found.append(Finding(name, "problem", str(error), getattr(error, "hint", None)))
    return [*found, *_user(), *_confinement(), *_features(), *_programs(_used(engine))]


def _unopened(locations: Locations, error: Exception) -> list[Finding]:
    why = Finding("engine", "problem", str(error), getattr(error, "hint", None))
    return [*_machine(), *_folders(locations), why, *_user(), *_confinement(), *_features(), *_programs({})]


def _machine() -> Iterator[Finding]:
    import platform

    from poolkit import __version__

    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    yield Finding(
        "version", "ok",
        f"poolkit {__version__}, Python {platform.python_version()}, Linux {platform.release()}, running as {user}",
    )  # fmt: skip


_FEATURES = (
    ("qemu-img", "images of every format but raw: making, converting, resizing, and encrypted volumes"),
    ("prlimit", "limits for qemu-img, without which it is not run on images"),
    ("parted", "partition tables other than dos and gpt"),
    ("showmount", "searching for the exports of NFS servers"),
    ("mount.nfs", "pools on NFS servers"),
    ("mount.cifs", "pools on SMB servers"),
    ("mount.glusterfs", "pools on Gluster servers"),
    ("gluster", "searching for the volumes of Gluster servers"),
    ("udevadm", "waiting for the names of new devices"),
)  # fmt: skip


def _backends() -> Iterator[type[Backend]]:
    """The classes of all types that can be loaded; the others are reported as types."""
    for one in registry.types():
        try:
            backend = registry.backend(one)
        except Exception:  # noqa: S112 - whatever a package raises when it is loaded
            continue
        yield backend


def _user() -> Iterator[Finding]:
    if Host().root:
        yield Finding("user", "ok", "root")
        return
    types = sorted(backend.type for backend in _backends() if "start" in backend.needs_root)
    yield Finding(
        "user",
        "note",
        f"not root: pools of type {', '.join(types)} cannot be brought up",
        "run poolkit as root for them",
    )


def _confinement() -> Iterator[Finding]:
    from poolkit.host import confine

    if confine.abi():
        yield Finding(
            "landlock", "ok", f"programs that read images are confined by the kernel (version {confine.abi()})"
        )
    else:
        yield Finding(
            "landlock", "note", "this kernel has no Landlock: programs that read images could open other files",
            "use Linux 5.13 or newer with landlock in its lsm= list",
        )  # fmt: skip


def _features() -> Iterator[Finding]:
    from poolkit.host.programs import PACKAGES

    host = Host()
    packages = dict(PACKAGES)
    for backend in _backends():
        packages.update(backend.packages)
    for program, use in _FEATURES:
        if not host.has_program(program):
            package = packages.get(program, program)
            yield Finding(
                f"program {program}", "note", f"missing: needed for {use}", f"on Debian: apt install {package}"
            )
        elif program == "qemu-img":
            yield _qemu_img(host)
        else:
            yield Finding(f"program {program}", "ok", use)
    for backend in _backends():
        if lack := backend.lacks():
            yield Finding(f"pools of type {backend.type}", "note", str(lack), lack.hint)


def _qemu_img(host: Host) -> Finding:
    import re

    name = "program qemu-img"
    try:
        said = host.query(["qemu-img", "--version"]).stdout
    except errors.PoolkitError as error:
        return Finding(name, "note", str(error), error.hint)
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", said)
    if found is None:
        return Finding(name, "note", "its version cannot be told")
    version = f"version {found[1]}"
    if not images.reads_safely(said):
        return Finding(
            name, "note", f"{version}: QEMU's own release has CVE-2024-4467 (an image that makes it open other files)",
            "distributions mend it without a new number: see whether yours has, and upgrade",
        )  # fmt: skip
    return Finding(name, "ok", version)


def _folders(locations: Locations) -> Iterator[Finding]:
    for name in ("storage", "state", "run", "secrets"):
        yield _folder(f"folder {name}", getattr(locations, name))


def _folder(name: str, path: str) -> Finding:
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if os.access(parent, os.W_OK | os.X_OK) and os.path.isdir(parent):
            return Finding(name, "ok", f"{path} is not there yet and is made when it is needed")
        return Finding(
            name, "problem", f"{path} cannot be made: '{parent}' is not a folder you may write", "use --root DIR"
        )
    except OSError as error:
        return Finding(name, "problem", f"{path}: {error.strerror}")
    if not stat.S_ISDIR(facts.st_mode):
        return Finding(name, "problem", f"{path} is not a folder", "move it away")
    try:
        private.check(path)
    except (errors.PoolkitError, OSError) as error:
        return Finding(name, "problem", str(error), getattr(error, "hint", None))
    try:
        room = os.statvfs(path)
    except OSError as error:
        return Finding(name, "problem", f"{path}: {error.strerror}")
    if room.f_flag & os.ST_RDONLY:
        return Finding(
            name,
            "problem",
            f"{path} is on a file system that is mounted read-only: nothing can be changed",
            "mount it writable",
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(name, "problem", f"{path} cannot be read and written by you")
    # A file of a line takes a block, and some file systems (btrfs) count no inodes.
    if not room.f_bavail or (room.f_files and not room.f_favail):
        what = "block" if not room.f_bavail else "inode"
        return Finding(
            name, "problem", f"{path} is on a file system without a free {what}: what needs a note there is refused",
            "make room on it; volumes can still be deleted",
        )  # fmt: skip
    return Finding(name, "ok", path)


def _settings(engine: Engine) -> Iterator[Finding]:
    """What the administrator says of this host; verbs read it only when they need it."""
    from poolkit.state import settings

    path = engine.locations.settings
    if not os.path.lexists(path):
        return
    settings.read(path)
    settings.xapi(path)
    yield Finding("settings", "ok", path)


def _left_over(engine: Engine) -> Iterator[Finding]:
    from poolkit.state.secrets import temporaries

    for line in engine.recovered:
        yield Finding("recovered", "note", line)
    failed = engine.core.operations.failed()
    for path in failed:
        yield Finding(
            "journal", "problem", f"work of a dead process could not be undone completely: {path}",
            "look at its steps, put the storage right, and remove the file",
        )  # fmt: skip
    waiting = engine.core.operations.waiting()
    for path in waiting:
        yield Finding(
            "journal", "note", f"what is left of failed work waits to be taken back: {path}",
            errors.Hint(
                "the next verb on its pool takes it back when its server answers, or its disk can be written, or ",
                errors.remedy("recover"),
            ),
        )  # fmt: skip
    if not failed and not waiting:
        yield Finding("journal", "ok", "no work is left half done")
    for path in temporaries(engine.locations.storage):
        yield Finding("temporary file", "note", f"{path} is left over from a command that died", "it can be removed")
    for path in engine.secret_store.left_over():
        yield Finding(
            "temporary file", "problem", f"{path} is left over from a command that died, and may hold the value of a secret",
            errors.Hint("take it away: ", errors.remedy("recover")),
        )  # fmt: skip


def _inventory(engine: Engine) -> Iterator[Finding]:
    import sqlite3

    path = engine.core.inventory.path
    if not os.path.exists(path):
        yield Finding("inventory", "ok", f"{path} is not there yet and is made when it is needed")
        return
    try:
        # Opened on its own, for reading only, since the answer must not depend on what the engine has in memory.
        with forks.undivided():
            db = sqlite3.connect(f"file:{_quote(path)}?mode=ro", uri=True, timeout=10)
            try:
                answer = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            finally:
                db.close()
    except sqlite3.OperationalError as error:
        # It cannot be read just now, as while a change waits for room or rights to be taken back; nothing is wrong with it.
        yield Finding("inventory", "problem", f"{path} cannot be read: {error}", "make room, or look at its rights")
        return
    except sqlite3.Error as error:
        answer = str(error)
    if answer == "ok":
        yield Finding("inventory", "ok", path)
    else:
        yield Finding(
            "inventory", "problem", f"{path}: {answer}",
            f"it has the formats on record: keep it as {path}.damaged (mv), and start the pools again; new images with a "
            "backing file then wait for vol-adopt",
        )  # fmt: skip
    for name in engine.core.inventory.damaged_pools():
        yield Finding("inventory", "problem", f"the listing of pool '{name}' is damaged", _act("refresh", name))
    if os.path.lexists(f"{path}.damaged"):
        yield Finding(
            "inventory",
            "note",
            f"a damaged one was put aside as {path}.damaged",
            "while it is there, new images with a backing file wait for vol-adopt; remove it when all is well",
        )


def _secrets(engine: Engine) -> Iterator[Finding]:
    store = engine.secret_store
    known = store.list()
    for problem in store.damaged:
        yield Finding("secret", "problem", problem, "put its file right, or define the secret again")
    if known and not store.damaged:
        yield Finding("secrets", "ok", f"{len(known)} known")


def _act(verb: str, name: str) -> errors.Hint:
    return errors.Hint(errors.remedy(verb, name))


def _quote(path: str) -> str:
    from urllib.parse import quote

    return quote(path, errors="surrogateescape")


def _pools(engine: Engine) -> Iterator[Finding]:
    infos = engine.pools()
    for info in infos:
        name = f"pool {info.name}"
        if not info.type:
            problem = info.reason or "its definition cannot be read"
            yield Finding(name, "problem", problem, errors.Hint("put it right: ", errors.remedy("edit", info.name)))
        elif info.reason:
            hint = _act("refresh" if info.active else "start", info.name)
            yield Finding(name, "note", info.reason, hint)
        for work in engine.core.locks.current(info.name):
            yield Finding(name, "note", f"work in progress: {work}")
    yield Finding("pools", "ok", f"{len(infos)} known, {sum(i.active for i in infos)} active")
    known = {info.name for info in infos}
    for name in sorted(engine.core.store.autostart_names() - known):
        yield Finding("autostart", "note", f"'{name}' is marked for autostart, but is not defined")


def _used(engine: Engine) -> dict[str, list[str]]:
    """The pools of each type."""
    try:
        found: dict[str, list[str]] = {}
        for info in engine.pools():
            found.setdefault(info.type, []).append(info.name)
        return found
    except errors.PoolkitError:
        return {}


def _programs(used: dict[str, list[str]]) -> Iterator[Finding]:
    from poolkit.host.programs import PACKAGES

    host = Host()
    for facts in pool_types():
        name = f"type {facts.type}"
        pools = used.get(facts.type, [])
        bad: Literal["note", "problem"] = "problem" if pools else "note"
        needed = f"; needed by pool '{pools[0]}'" if pools else ""
        if facts.error:
            yield Finding(name, bad, f"cannot be used: {facts.error}{needed}")
            continue
        missing = [tool for tool in facts.tools if not host.has_program(tool)]
        if missing:
            known = {**PACKAGES, **registry.backend(facts.type).packages}
            packages = sorted({known.get(tool, tool.split(".")[0]) for tool in missing})
            yield Finding(
                name, bad, f"missing: {', '.join(missing)}{needed}", f"on Debian: apt install {' '.join(packages)}"
            )
        else:
            yield Finding(name, "ok", f"has {', '.join(facts.tools)}" if facts.tools else "needs no programs")
