"""The command ``poolkit``: the verb table (:mod:`poolkit.cli.verbs`) and what runs it."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from contextlib import suppress

from poolkit import errors
from poolkit.cli import arguments
from poolkit.cli.verbs import Verb, find, verbs, words
from poolkit.lean import TYPE_CHECKING, module

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from poolkit.cli.session import Session
else:
    import _signal as signal  # the module without the enumerations of its numbers

__all__ = ["Verb", "main", "verbs"]

INTERNAL = 70
"""Exit status after an error of poolkit itself (EX_SOFTWARE of sysexits.h)."""
_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what writing the answer can meet
PIPE = 141
"""Exit status when the reader of the output went away: that of a program killed by SIGPIPE, as shells show it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return the exit status; raises nothing.

    Without ``argv`` it is the process's own, which then ends here.
    """
    if argv is None:
        _speak_utf8()
        # Cycles are rare here, and looking for them while modules are loaded is a twelfth of a short command.
        gc.set_threshold(100_000, 50, 50)
        _end(_answered(list(sys.argv[1:])))
    return _answered(list(argv))


def _end(status: int) -> NoReturn:
    """End the process: what Python does in ``sys.exit``, without freeing each object before the kernel frees them all.

    That is a sixth of a short command.
    """
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        with suppress(OSError, ValueError):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    sys.exit(status)


def _answered(argv: list[str]) -> int:
    if sys.stdout is None or sys.stderr is None:  # started with a closed descriptor
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _main(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()
        return PIPE
    except OSError as error:
        _drop_output()
        sys.stderr.write(f"error: cannot write the answer: {error.strerror or error}\n")
        return errors.from_os_error(error, "write").exit_code


def _speak_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding: documents and names of files are UTF-8."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or sys.flags.utf8_mode:
        return
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - this very command


def _drop_output() -> None:
    # What is left in the buffer would fail again when Python ends, with a message of Python's own.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), sys.stdout.fileno())


def _main(argv: list[str]) -> int:
    word, rest = arguments.split(argv)
    early = {"json": "--json" in argv, "debug": "--debug" in argv}
    if word is None:
        return _without_verb(rest, early)
    if word == "_complete":
        from poolkit.cli.complete import answer

        return answer(rest)
    verb = find(word)
    try:
        if verb is None:
            raise arguments.usage_error(
                f"there is no verb '{errors.shown(word)}'",
                hint=arguments.near(word, words()) or "poolkit help lists the verbs",
            )
        values = arguments.parse(verb.arguments, rest, verb.name)
    except errors.PoolkitError as error:
        return _refuse(error, early, verb.name if verb is not None else "")
    if values.help:
        from poolkit.cli.shell import explain

        explain(verb)
        return 0
    if values.version:
        return _version()
    return _run(verb, values)


def _without_verb(rest: list[str], early: dict[str, bool]) -> int:
    from poolkit.cli.shell import overview

    try:
        values = arguments.parse((), rest)
    except errors.PoolkitError as error:
        return _refuse(error, early)
    if values.version:
        return _version()
    overview(sys.stdout if values.help else sys.stderr)
    return 0 if values.help else errors.InvalidArgument.exit_code


def _version() -> int:
    from poolkit import __version__

    sys.stdout.write(f"poolkit {__version__}\n")
    return 0


def _refuse(error: errors.PoolkitError, early: dict[str, bool], verb: str = "") -> int:
    """Report an error of the command line itself: the options are not known yet."""
    from poolkit.cli.session import Session

    values = arguments.Values(arguments.GLOBAL)
    values.json, values.debug = early["json"], early["debug"]
    session = Session(values, verb)
    session.fail(error)
    return session.code


def function(verb: Verb) -> Any:
    """The function that a verb's entry names."""
    place, _, name = verb.run.partition(":")
    return getattr(module(f"poolkit.cli.{place}"), name)


def _run(verb: Verb, values: arguments.Values) -> int:
    from poolkit.cli.session import Session

    session = Session(values, verb.name)
    restore = _catch_signals(session)
    try:
        function(verb)(session, values)
    except errors.PoolkitError as error:
        session.fail(error)
    except KeyboardInterrupt:
        session.fail(errors.Aborted("stopped on request"))
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno in _OUTPUT:
            raise
        # A number is a descriptor, which tells nobody anything.
        named = error.filename if isinstance(error.filename, (str, bytes)) else None
        where = f" of '{errors.shown(os.fsdecode(named))}'" if named else ""
        session.fail(errors.from_os_error(error, f"do the work of '{verb.name}'{where}"))
    except Exception as error:
        _internal(session, error)
    finally:
        restore()
        session.close()
    return session.code


def _internal(session: Session, error: Exception) -> None:
    import traceback

    from poolkit import __version__

    session.code = INTERNAL
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {os.path.basename(last[0].filename)}:{last[0].lineno}" if last else ""
    message = (
        f"internal error: {type(error).__name__}{place}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    )
    hint = (
        f"this is a bug in poolkit {__version__}: please report it with the command line and the output of --debug; "
        "what was under way has been undone"
    )
    if session.options.debug:
        lines = "".join(traceback.format_exception(error)).split("\n")
        session.err.write("".join(errors.shown(line, 1 << 16) + "\n" for line in lines))
    if session.json:
        session.error_object({"error": "internal", "message": message, "hint": hint, "exit_code": INTERNAL})
    else:
        session.say("error", message)
        session.say("hint", hint)


def _catch_signals(session: Session) -> Any:
    """Let the first Ctrl-C, SIGTERM or SIGHUP stop the work at its next safe point, and the second at once."""

    def stop(number: int, frame: object) -> None:
        if not session.at_work or session.stopping:
            raise KeyboardInterrupt
        session.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        before = [signal.signal(number, stop) for number in numbers]
    except ValueError:  # not the main thread, which alone is interrupted
        return lambda: None

    def restore() -> None:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    return restore
