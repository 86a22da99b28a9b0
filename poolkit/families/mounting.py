"""Mounting and unmounting for the pool types fs and netfs: what is mounted where, who holds it, and the two programs."""

from __future__ import annotations

from poolkit import errors
from poolkit.host import kernel, undo
from poolkit.host.mounts import is_network
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from poolkit.host.mounts import Mount
    from poolkit.host.port import Host


SAFE = ("nosuid", "nodev", "noexec")
"""What every mount of ours has."""


def at(host: Host, target: str) -> Mount | None:
    """What is mounted at ``target``, the topmost if there are several; never waits for a server."""
    return host.mount_at(target)


def seen(host: Host, target: str, ours: Callable[[Mount], bool], wanted: Callable[[], str]) -> tuple[Mount | None, str]:
    """What is mounted at ``target`` if it is one of ``ours``, else None with the reason; ``wanted`` says what should be."""
    mount = at(host, target)
    if mount is None:
        return None, f"nothing is mounted at '{target}'"
    if not ours(mount):
        return None, f"{mount.words()} is mounted at '{target}', not '{wanted()}'"
    return mount, ""


def require_free(host: Host, pool: str, target: str, wanted: str) -> None:
    """Raise ``Conflict`` if anything is mounted at ``target``."""
    mount = at(host, target)
    if mount is not None:
        raise errors.Conflict(
            f"pool '{pool}': {mount.words()} is mounted at '{target}' already, not {wanted}",
            pool=pool, hint=f"unmount it (umount {target}), or give the pool another target",
        )  # fmt: skip


def is_safe(mount: Mount) -> bool:
    """Whether it has the options that every mount of ours has."""
    return set(SAFE) <= set(mount.options.split(","))


def warn_unsafe(host: Host, pool: str, mount: Mount) -> None:
    """Warn of a mount that somebody else has made without them."""
    lacks = ",".join(option for option in SAFE if option not in mount.options.split(","))
    if lacks:
        host.warn(
            f"pool '{pool}': '{mount.target}' was mounted already, without {lacks}: what guests write there could become "
            f"programs or devices of this host; to change that: mount -o remount,{lacks} {mount.target}"
        )


def require_uncovered(host: Host, pool: str, target: str, ours: Callable[[Mount], bool]) -> None:
    """Raise ``Busy`` if one of ``ours`` is mounted at ``target`` under something else."""
    real = host.locate(target)[0]
    stack = [mount for mount in host.mounts() if mount.target == real]
    if any(ours(mount) for mount in stack[:-1]):
        raise errors.Busy(
            f"pool '{pool}': {stack[-1].words()} is mounted at '{target}' on top of the pool's own mount",
            pool=pool, hint=f"unmount it first: umount {target}",
        )  # fmt: skip


def mount(
    host: Host,
    source: str,
    target: str,
    *,
    kind: str | None,
    options: Sequence[str],
    timeout: float = 600,
    bind: bool = False,
    pass_fds: Sequence[int] = (),
) -> None:
    """Run mount(8). ``kind`` is the kernel's name of the file system; ``pass_fds`` are descriptors that options name.

    Undone by unmounting exactly this. Raises as ``change``.
    """
    words = [*options, *SAFE]
    type = ["-t", kind] if kind else []
    host.change(
        ["mount", *type, "-o", ",".join(["bind", *words] if bind else words), "--", source, target],
        undo=undo.unmount(host.locate(target)[0], source),
        timeout=timeout,
        pass_fds=pass_fds,
    )


def unmount(host: Host, pool: str, mount: Mount, *, timeout: float = 600) -> None:
    """Run umount(8); ``Busy`` names who holds the mount."""
    try:
        host.change(["umount", "--", mount.target], timeout=timeout)
    except errors.ToolFailed as error:
        if "busy" not in error.stderr:  # the status is 32, or 16 from the helper for NFS
            raise
        users = list(holders(host, mount))
        by = f" by {errors.some(users)}" if users else ""
        raise errors.Busy(
            f"pool '{pool}': '{mount.target}' is in use{by}",
            pool=pool, hint="end those first; the pool stays active" if users else "lsof and fuser may know who it is",
        ) from error  # fmt: skip


def force(host: Host, pool: str, mount: Mount, *, timeout: float) -> None:
    """Take away a mount whose server is dead: its calls fail, the mount point is free, and what had it open keeps errors."""
    argv = ["umount", "--internal-only", "--force", "--lazy", "--", mount.target]
    try:
        host.change(argv, timeout=timeout)
    except errors.ToolTimeout:
        # The table forgets the mount before the kernel tries to write what is left, and that part may hang.
        if any(one == mount for one in host.mounts()):
            raise
    host.warn(
        f"pool '{pool}': its server does not answer, so '{mount.target}' was unmounted by force; "
        "what had not been written there is lost"
    )


def holders(host: Host, mount: Mount) -> Iterator[str]:
    """Who keeps a mount busy, in words: mounts below it, loop devices on its files, processes (where they can be seen).

    Processes are told by the mount's number and by paths that the kernel gives; nothing on the mount is touched.
    """
    below = mount.target.rstrip("/") + "/"
    for other in host.mounts():
        if other.target.startswith(below):
            yield f"a mount at '{other.target}'"
    for loop in kernel.names("/sys/block"):
        if loop.startswith("loop") and kernel.text(f"/sys/block/{loop}/loop/backing_file").startswith(below):
            yield f"the loop device '/dev/{loop}'"
    number = _number_of(mount)
    for pid in filter(str.isdigit, kernel.names("/proc")):
        if _uses(f"/proc/{pid}", mount, below, number):
            yield f"{kernel.text(f'/proc/{pid}/comm').strip() or 'a process'} (process {pid})"


def _uses(process: str, mount: Mount, below: str, number: str) -> bool:
    for link in ("cwd", "root", "exe"):
        if _inside(kernel.link(f"{process}/{link}"), below):
            return True
    for fd in kernel.names(f"{process}/fdinfo"):
        facts = kernel.text(f"{process}/fdinfo/{fd}")
        if number and f"mnt_id:\t{number}\n" in facts and _inside(kernel.link(f"{process}/fd/{fd}"), below):
            return True
    for line in kernel.text(f"{process}/maps").split("\n"):
        fields = line.split(None, 5)
        if len(fields) == 6 and _inside(fields[5], below):
            return True
    return False


def _inside(path: str, below: str) -> bool:
    return path.startswith(below) or path == below[:-1]


def _number_of(mount: Mount) -> str:
    """The number that ``fdinfo`` has for the mount."""
    number = ""
    for line in kernel.text("/proc/self/mountinfo").split("\n"):
        fields = line.split(" ", 5)
        if len(fields) == 6 and fields[2] == mount.device and fields[4] == _escaped(mount.target):
            number = fields[0]
    return number


def _escaped(path: str) -> str:
    return path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")


def erase_target(backend: Any) -> bool:
    """Remove the directory of a pool that is not mounted; ``Unsafe`` while anything is mounted there."""
    found = at(backend.host, backend.place)
    if found is not None:
        raise errors.Unsafe(
            f"pool '{backend.pool.name}': the directory '{backend.place}' was not removed: {found.words()} is mounted there",
            pool=backend.pool.name,
        )
    removed: bool = backend.erase_directory()
    return removed


__all__ = ["at", "erase_target", "force", "holders", "is_network", "mount", "require_free", "seen", "unmount"]
