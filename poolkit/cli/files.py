"""Files that verbs write for other programs: units, grammars and documents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from poolkit import errors

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def write(session: Session, folder: str, texts: Mapping[str, str], *, mode: int = 0o644) -> None:
    """Write files into ``folder``, which is made if it is not there, and name each; ``HostError``.

    Repeatable: a file that is so already is not written. Nothing is written in a dry run.
    """
    for name, text in texts.items():
        path = os.path.join(folder, name)
        there = _is(path, text)
        if not (there or session.options.dry_run):
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                replace(path, text, mode)
            except OSError as error:
                raise errors.from_os_error(error, f"write '{errors.shown(path, 4096)}'") from error
        if not session.quiet and not session.json:
            verb = "is so already" if there else "would be written" if session.options.dry_run else "is written"
            session.print(f"{path}: {verb}")


def replace(path: str, text: str, mode: int) -> None:
    """Write a file beside its place and put it there: who reads it sees the old one or the new one. ``OSError``."""
    beside = f"{path}.{os.getpid()}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, mode)
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _is(path: str, text: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == text.encode()
    except OSError:
        return False
