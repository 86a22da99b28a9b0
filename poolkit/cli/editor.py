"""``edit``: a definition in the user's editor, offered again until it is right; what was typed is never lost."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from poolkit import errors
from poolkit.cli.session import editor, terminal

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.engine.pool import Pool


def edit_pool(session: Session, pool: Pool) -> None:
    """Edit the stored definition of ``pool``; also one whose file is damaged."""
    from poolkit.engine.operation import Outcome

    if not (os.environ.get("VISUAL") or os.environ.get("EDITOR")) and not terminal():
        raise errors.InvalidArgument(
            f"pool '{pool.name}' cannot be edited without a terminal",
            pool=pool.name,
            hint=errors.Hint(
                "set $EDITOR to a program that needs none, or change a copy: ",
                errors.remedy("dumpxml", pool.name, inactive=True), ", and then ", errors.remedy("define", ...),
            ),
        )  # fmt: skip
    engine = session.engine
    stored = engine.stored_text(pool.name)
    try:
        text = pool.xml(inactive=True)
    except errors.InvalidDefinition as error:
        session.note(f"the stored definition is damaged and shown as it is: {error.problems[0]}")
        text = stored
    path = _temporary(pool.name, text)
    while True:
        try:
            _run_editor(path)
            edited = _read(path)
            if edited == text:
                os.unlink(path)
                session.done(Outcome(False, f"pool '{pool.name}' was not changed"), pool.name)
                return
            _check_name(session, pool, edited, path)
            try:
                changed = engine.define(edited, filename=path, expected=stored)
            except errors.DefinitionChanged:
                stored = engine.stored_text(pool.name)  # who saves again has been told
                raise
            os.unlink(path)
            session.done(changed.outcome, pool.name, uuid=changed.uuid)
            return
        except errors.PoolkitError as error:
            if not _again(session, error, path, text):
                return


def _again(session: Session, error: errors.PoolkitError, path: str, text: str) -> bool:
    """Show the error; whether the user wants to go on editing. A file without changes is not kept."""
    if session.json or not terminal():
        if _read(path) == text:
            os.unlink(path)
            raise error
        error.hint = errors.Hint.joined(error.hint, f"your text is kept in {path}")
        raise error
    session.fail(error)
    answer = session.question(
        "what now?", {"e": "edit again", "k": "keep the file and quit", "d": "discard the changes"}
    )
    if answer == "e":
        session.code = 0
        return True
    if answer == "d":
        os.unlink(path)
    else:
        session.say("note", errors.Hint(f"your text is in {path}; use it with: ", errors.remedy("define", path)))
    return False


def _temporary(name: str, text: str) -> str:
    import tempfile

    # mkstemp makes the file 0600; the suffix lets editors colour it.
    fd, path = tempfile.mkstemp(prefix=f"poolkit-{name[:60]}-", suffix=".xml")
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    return path


def _read(path: str) -> str:
    # Editors replace the file, so it is opened by its name again.
    try:
        with open(path, "rb") as file:
            return file.read((1 << 20) + 1).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise errors.from_os_error(error, f"read '{path}'") from error


def _check_name(session: Session, pool: Pool, text: str, path: str) -> None:
    name = session.engine.parse(text.encode("utf-8", "surrogateescape"), filename=path).name
    if name != pool.name:
        raise errors.InvalidArgument(
            f"pool '{pool.name}' cannot be renamed to '{name}' by editing it", pool=pool.name,
            hint="undefine it, and define it under the other name",
        )  # fmt: skip


def _run_editor(path: str) -> None:
    import shlex
    import signal
    import subprocess

    command = editor()
    try:
        argv = [*shlex.split(command), path]
    except ValueError as error:
        raise errors.InvalidArgument(f"the editor '{command}' cannot be run: {error}", hint="set $EDITOR") from None

    # Ctrl-C in the editor is the editor's; a handler, other than "ignore", is not inherited by the child.
    before = None
    try:
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:
        pass  # not the main thread
    try:
        status = subprocess.run(argv, check=False).returncode  # the user's own editor, on the user's terminal
    except OSError as error:
        raise errors.InvalidArgument(
            f"the editor '{command}' cannot be run: {error.strerror}", hint="set $VISUAL or $EDITOR to your editor"
        ) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        sys.stderr.flush()
    if status != 0:
        raise errors.Aborted(f"the editor '{command}' ended with status {status}, so nothing was saved")
