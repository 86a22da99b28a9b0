"""poolkit's own files and folders: made for their user alone, and refused where somebody else could put something into them.

A journal that others can write is a list of commands that poolkit would run for them; definitions, locks and secrets are no
better. So a folder of ours must belong to its user or to root, and nobody else may write in it. The same holds for each folder
above it and for each symbolic link on the way, as in sshd's StrictModes: who can rename a folder above ours can put another in
its place. Two things are allowed above that are not allowed in the folder itself: others may write where the sticky bit keeps
them from what is not theirs, as in /tmp, and the group may write if it is the owner's private one, as umask 002 makes folders.
Who owns / counts as root, who has no number of its own in a user namespace; the mode of / itself is not looked at, since who
can write there needs none of our folders.
"""

from __future__ import annotations

import errno
import os
import stat

from poolkit import errors

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # of one path, as the kernel has it (path_resolution(7))


def check(path: str) -> bool:
    """Whether the folder ``path`` (absolute) exists; ``Unsafe`` if others could put something into it or in its place.

    Costs one lstat(2) for each part of the path. What does not exist yet is checked as far as it does. Raises ``OSError``.
    """
    trusted = {0, os.geteuid()}
    above = {*trusted, os.lstat("/").st_uid}
    left = [part for part in reversed(path.split("/")) if part]
    here, links = "", 0
    while left:
        part = left.pop()
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        if part == ".":
            continue
        here = f"{here}/{part}"
        try:
            facts = os.lstat(here)
        except FileNotFoundError:
            return False
        if facts.st_uid not in (above if left or stat.S_ISLNK(facts.st_mode) else trusted):
            raise _foreign(here, facts, path)
        if stat.S_ISLNK(facts.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise errors.Unsafe(f"'{path}' leads in a circle of symbolic links")
            target = os.readlink(here)
            here = "" if target.startswith("/") else here.rpartition("/")[0]
            left += [part for part in reversed(target.split("/")) if part]
        elif facts.st_mode & _OTHERS and not (left and (facts.st_mode & stat.S_ISVTX or _private_group(facts))):
            raise _writable(here, facts, path)
    return True


def make(path: str, mode: int = 0o700) -> None:
    """Make the folder ``path`` and what is missing above it, durably, whatever the umask is; ``Unsafe`` as for ``check``.

    Those above get mode 0700. Repeatable.
    """
    if check(path):
        return
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not check(path):  # another process was faster
            raise
        return
    from poolkit.host.descriptors import sync_directory

    os.chmod(path, mode)
    sync_directory(parent)


def files(path: str, ending: str) -> list[str]:
    """The files in the folder ``path`` whose names have that end, in order; ``Unsafe`` as for ``check``, ``HostError``."""
    try:
        if not check(path):
            return []
        return sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(ending))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise errors.from_os_error(error, f"read the folder '{path}'") from error


def open_private(path: str, flags: int) -> int:
    """Open or make one of poolkit's own files, for its user alone, and the folder if that is missing."""
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        make(os.path.dirname(path))
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def open_ours(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a file that only its user can have written: regular, ours, with one name. ``Unsafe`` for any other; ``OSError``."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise errors.Unsafe(f"'{path}' is a symbolic link; it was not followed", hint=f"remove it: {path}") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise errors.Unsafe(f"'{path}' is not a regular file; it was not used", hint=f"remove it: {path}")
        if facts.st_uid not in (0, os.geteuid()):
            raise _foreign(path, facts, path)
        if facts.st_mode & _OTHERS:
            raise _writable(path, facts, path)
        if facts.st_nlink > 1:
            raise errors.Unsafe(
                f"'{path}' has another name, under which others may have written it; it was not used",
                hint=f"look at it, then remove it: {path}",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _private_group(facts: os.stat_result) -> bool:
    """Whether the group is that of the owner alone: it has the owner's name, and no other member, also by what passwd(5) says."""
    import grp
    import pwd

    try:
        owner = pwd.getpwuid(facts.st_uid)
        group = grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    writes = not facts.st_mode & stat.S_IWOTH
    return (
        writes
        and group.gr_name == owner.pw_name
        and owner.pw_gid == group.gr_gid
        and set(group.gr_mem) <= {owner.pw_name}
        and not any(user.pw_gid == group.gr_gid and user.pw_uid != owner.pw_uid for user in pwd.getpwall())
    )


def _foreign(where: str, facts: os.stat_result, path: str) -> errors.Unsafe:
    return errors.Unsafe(
        f"'{where}' belongs to another user ({facts.st_uid}), who could make poolkit run commands{_above(where, path)}",
        hint=f"work as that user, choose another folder with --root, or take it over: chown {os.geteuid()} '{where}'",
    )


def _writable(where: str, facts: os.stat_result, path: str) -> errors.Unsafe:
    who = "everybody" if facts.st_mode & stat.S_IWOTH else f"group {facts.st_gid}"
    return errors.Unsafe(
        f"{who} can write in '{where}' (mode {stat.S_IMODE(facts.st_mode):04o}) and could make poolkit run commands"
        f"{_above(where, path)}",
        hint=f"see that nothing strange is in there, then: chmod go-w '{where}'",
    )


def _above(where: str, path: str) -> str:
    return "" if where == path else f": '{path}' is below it"
