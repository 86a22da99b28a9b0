"""Running a program for the host: what is really run, what it may and how long, and what its end means."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from poolkit import errors
from poolkit.host import cores, programs

if TYPE_CHECKING:
    from poolkit.host.port import Host


def full(
    host: Host, argv: Sequence[str], untrusted: bool, limits: Mapping[str, int] | None
) -> tuple[list[str], tuple[str, ...]]:
    """What is really run, and the programs that it is confined to be."""
    command = [host.program(argv[0]), *argv[1:]]
    if not untrusted:
        if not host._secrets:
            return command, ()
        return [host.program("prlimit"), f"--core={cores.LIMIT}", "--", *command], ()
    all_limits = {**programs.UNTRUSTED_LIMITS, **(limits or {})}
    prlimit = host.program("prlimit")
    return [prlimit, *(f"--{name}={value}" for name, value in all_limits.items()), "--", *command], (
        prlimit,
        command[0],
    )


def run(
    host: Host,
    argv: tuple[str, ...],
    ok: Sequence[int],
    timeout: float,
    input: bytes | None,
    untrusted: bool,
    pass_fds: Sequence[int],
    abortable: bool,
    limits: Mapping[str, int] | None,
    poll: Callable[[], None] | None,
    changes: bool,
    stdin: int | BinaryIO | None,
    stdout: int | BinaryIO | None,
) -> tuple[int, str, str]:
    """Run a program to its end: its status and what it said. See ``query`` and ``change`` of the host."""
    command, confined = full(host, argv, untrusted, limits)
    until = time.monotonic() + timeout

    untold: list[Exception] = []

    def tick() -> None:
        if untold and abortable:
            raise untold[0]
        if poll is not None:
            poll()
        if abortable and host.abort.is_set():
            raise errors.Aborted(f"stopped while '{argv[0]}' was running")
        if time.monotonic() >= until:
            raise errors.ToolTimeout(
                f"'{argv[0]}' did not end within {timeout:g} seconds and was killed", argv=host._redacted(argv)
            )

    try:
        feed, drain = None, None
        if not (input is None and stdin is None and stdout is None):
            from poolkit.host import pumps

            feed = pumps.feed(host, stdin, input)
            drain = None if stdout is None or isinstance(stdout, int) else pumps.drain(host, stdout)
        process = programs.start(
            command, own_session=host._own_session, pass_fds=tuple(pass_fds), confined=confined,
            stdin=programs.PIPE if feed is not None else stdin if isinstance(stdin, int) else None,
            stdout=stdout if isinstance(stdout, int) else None, charset=host._charset(argv[0]),
        )  # fmt: skip
    except OSError as error:
        raise errors.from_os_error(error, f"run '{argv[0]}'") from error
    if changes:
        try:
            host._track(process.pid)
        except (OSError, errors.PoolkitError) as error:
            untold.append(error)  # it has begun: to leave it alone is worse than to wait for it
    with process:
        out, err = programs.converse(process, until, tick, feed, drain)
    if untold:
        raise untold[0]
    status, answer, words = process.returncode, _text(out), host.redact(_text(err))
    if status in ok:
        return status, answer, words
    from poolkit.host.toolwords import last_words

    answer = host.redact(answer)
    said = last_words(words or answer, pass_fds)
    if status < 0:
        import signal

        raise errors.ToolCrashed(
            f"'{argv[0]}' was killed by {signal.Signals(-status).name}{said}",
            argv=host._redacted(argv), status=status, stderr=words,
        )  # fmt: skip
    raise errors.ToolFailed(
        f"'{argv[0]}' failed with status {status}{said}",
        argv=host._redacted(argv), status=status, stdout=answer, stderr=words,
    )  # fmt: skip


@contextmanager
def alongside(
    host: Host,
    argv: tuple[str, ...],
    ready: Callable[[], bool],
    timeout: float,
    untrusted: bool,
    pass_fds: tuple[int, ...],
) -> Iterator[None]:
    """A program that works as long as the body does. See ``alongside`` of the host."""
    from poolkit.host import pumps

    command, confined = full(host, argv, untrusted, None)
    with open(os.memfd_create("output", os.MFD_CLOEXEC), "w+b") as output:
        try:
            process = programs.start(
                command, own_session=host._own_session, pass_fds=tuple(pass_fds), confined=confined,
                stdout=output.fileno(), stderr=output.fileno(), charset=host._charset(argv[0]),
            )  # fmt: skip
        except OSError as error:
            raise errors.from_os_error(error, f"run '{argv[0]}'") from error
        try:
            host._track(process.pid)
            up = host.wait_for(lambda: process.poll() is not None or ready(), timeout)
            if up is None or process.returncode is not None:
                words = host.redact(_text(pumps.words(output.fileno())))
                from poolkit.host.toolwords import last_words

                how = "was not ready in time" if up is None else f"ended with status {process.returncode}"
                raise errors.ToolFailed(
                    f"'{argv[0]}' {how}{last_words(words, pass_fds)}",
                    argv=host._redacted(argv),
                    status=process.returncode or 0,
                    stderr=words,
                )
            yield
        finally:
            programs.end(process)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
