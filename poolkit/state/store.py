"""Where poolkit keeps its files, and the definitions among them.

| what | root | a user | ``--root DIR`` |
|---|---|---|---|
| definitions, autostart links | /etc/poolkit/storage | $XDG_CONFIG_HOME/poolkit/storage | DIR/storage |
| inventory, journals | /var/lib/poolkit | $XDG_STATE_HOME/poolkit | DIR/state |
| work in progress (locks) | /run/poolkit | $XDG_STATE_HOME/poolkit/run | DIR/run |
| flavors | /etc/poolkit/flavors | $XDG_CONFIG_HOME/poolkit/flavors | DIR/flavors |
| secrets | /etc/poolkit/secrets | $XDG_CONFIG_HOME/poolkit/secrets | DIR/secrets |
| this host (settings) | /etc/poolkit/host.toml | $XDG_CONFIG_HOME/poolkit/host.toml | DIR/host.toml |
"""

from __future__ import annotations

import os
import stat
import time

from poolkit import errors
from poolkit.host import private
from poolkit.lean import TYPE_CHECKING
from poolkit.names import name_fault
from poolkit.values import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolkit.host.port import Host


_SUFFIX = ".xml"
LARGEST = 1 << 20  # bytes of a definition; the reader's own limit
_TICK = 2.0  # seconds; the coarsest clock of a file system's times (FAT)


@value(frozen=True)
class Locations:
    """The folders of one engine, and the file that says what this host is; all absolute."""

    storage: str
    state: str
    run: str
    secrets: str
    settings: str

    @property
    def flavors(self) -> str:
        """The folder of flavors, beside the file that says what this host is."""
        return f"{os.path.dirname(self.settings)}/flavors"

    @classmethod
    def choose(cls, root: str | os.PathLike[str] | None = None) -> Locations:
        """The folders below ``root``; without it, those of the system for root and of the user for others."""
        if root is not None:
            base = os.path.abspath(os.fspath(root))
            return cls(f"{base}/storage", f"{base}/state", f"{base}/run", f"{base}/secrets", f"{base}/host.toml")
        if os.geteuid() == 0:
            return cls(
                "/etc/poolkit/storage",
                "/var/lib/poolkit",
                "/run/poolkit",
                "/etc/poolkit/secrets",
                "/etc/poolkit/host.toml",
            )
        home = os.path.expanduser("~")
        config = _absolute("XDG_CONFIG_HOME") or f"{home}/.config"
        state = (_absolute("XDG_STATE_HOME") or f"{home}/.local/state") + "/poolkit"
        # Not $XDG_RUNTIME_DIR: a job of cron has none, and its locks must be those of the session.
        config += "/poolkit"
        return cls(f"{config}/storage", state, f"{state}/run", f"{config}/secrets", f"{config}/host.toml")


def check_root(root: str | os.PathLike[str]) -> None:
    """``InvalidArgument`` for a root that is no folder, and cannot become one because something above it is none."""
    path = os.path.abspath(os.fspath(root))
    while True:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                return
        except (FileNotFoundError, NotADirectoryError):
            above = os.path.dirname(path)
            if above == path:
                return
            if os.path.islink(path):
                raise errors.InvalidArgument(f"the root '{path}' is a symbolic link that leads nowhere") from None
            path = above
            continue
        except OSError:
            return  # whoever uses it first says what is wrong
        raise errors.InvalidArgument(
            f"'{path}' is not a folder, so '{os.path.abspath(os.fspath(root))}' cannot be the root of poolkit's files"
        )


def _absolute(variable: str) -> str | None:
    # XDG Base Directory Specification: relative paths are invalid and are ignored.
    value = os.environ.get(variable, "")
    return value if value.startswith("/") else None


def check_pool_name(name: str) -> str:
    """``name`` if it may name a pool, else ``InvalidArgument``: it becomes a file name, so it is 1 to 200 bytes of text.

    No '/', no control character or one that XML cannot hold (U+FFFE, U+FFFF), and not beginning with '.' or '-'.
    """
    if not name:
        raise errors.InvalidArgument("a pool needs a name")
    shown = name[:60]
    if not (name.isascii() and name.isprintable()) or "\\" in name:
        shown = shown.encode("unicode_escape").decode("ascii")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise errors.InvalidArgument(f"'{shown}' cannot be the name of a pool: it is not valid Unicode text") from None
    why = (
        "it contains '/'" if "/" in name
        else f"it begins with '{name[0]}'" if name[0] in ".-"
        else name_fault(name)
        or (f"it has {size} bytes, and 200 is the most" if size > 200 else "")
    )  # fmt: skip
    if why:
        raise errors.InvalidArgument(f"'{shown}' cannot be the name of a pool: {why}", pool=shown)
    return name


class Store:
    """Definitions as files ``NAME.xml`` and autostart as links to them; all writes are durable."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations
        self.directory = locations.storage
        self.autostart_directory = f"{locations.storage}/autostart"

    def path(self, name: str) -> str:
        """The file of the pool's definition, whether or not it exists."""
        return f"{self.directory}/{name}{_SUFFIX}"

    def names(self) -> Iterator[tuple[str, int]]:
        """Name and change stamp of every definition; the stamp differs when the file was replaced or edited."""
        private.check(self.directory)
        try:
            entries = os.scandir(self.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise errors.from_os_error(error, f"read the folder '{self.directory}'") from error
        with entries:
            for entry in entries:
                name = entry.name
                if name.endswith(_SUFFIX) and name[0] != ".":
                    try:
                        facts = entry.stat()
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(facts.st_mode):
                        yield name[: -len(_SUFFIX)], stamp(facts)

    def stamp(self, name: str) -> int | None:
        """The change stamp of one definition, or None if there is none."""
        try:
            return stamp(os.stat(self.path(name)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.from_os_error(error, f"look at the definition '{self.path(name)}'", pool=name) from error

    def read(self, name: str) -> str:
        """The text of a definition; ``PoolNotFound`` if there is none."""
        return self.read_with_stamp(name)[0]

    def read_with_stamp(self, name: str) -> tuple[str, int | None]:
        """The text of a definition and its stamp; None while a change in the same tick of the clock could leave that as it is."""
        private.check(self.directory)
        try:
            with open(self.path(name), "rb") as file:
                facts = os.fstat(file.fileno())
                data = file.read(LARGEST + 1)
        except FileNotFoundError:
            raise errors.PoolNotFound(f"there is no pool '{name}'", pool=name) from None
        except OSError as error:
            raise errors.from_os_error(error, f"read the definition '{self.path(name)}'", pool=name) from error
        settled = time.time() - facts.st_ctime > _TICK
        return data.decode("utf-8", "surrogateescape"), stamp(facts) if settled else None

    def save(self, name: str, text: str, host: Host) -> None:
        """Write a definition durably: it is the old one or the new one at any instant. Undone by the old one."""
        host.files.mkdir(self.directory, 0o755 if self.directory.startswith("/etc/") else 0o700, keep=True)
        private.check(self.directory)
        host.files.replace(self.path(name), text.encode("utf-8"), 0o600)

    def remove(self, name: str, host: Host) -> bool:
        """Remove the autostart link, then the definition. Returns whether there was one."""
        self.set_autostart(name, False, host)
        return host.files.unlink(self.path(name))

    def autostart(self, name: str) -> bool:
        """Whether the pool is marked to be started at boot."""
        return os.path.islink(f"{self.autostart_directory}/{name}{_SUFFIX}")

    def autostart_names(self) -> frozenset[str]:
        """All marked pools, in one directory read."""
        try:
            return frozenset(n[: -len(_SUFFIX)] for n in os.listdir(self.autostart_directory) if n.endswith(_SUFFIX))
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise errors.from_os_error(error, f"read the folder '{self.autostart_directory}'") from error

    def set_autostart(self, name: str, on: bool, host: Host) -> bool:
        """Set or clear the mark; returns whether anything changed."""
        link = f"{self.autostart_directory}/{name}{_SUFFIX}"
        if not on:
            return host.files.unlink(link)
        host.files.mkdir(self.autostart_directory, 0o700, keep=True)
        return host.files.symlink(f"../{name}{_SUFFIX}", link)


def stamp(facts: os.stat_result) -> int:
    """One number that changes with the file: inode, size and both times of change."""
    return hash((facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
