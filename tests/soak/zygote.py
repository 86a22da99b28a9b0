"""Runs the command again and again with the library of faults in it, each time in a child of a process that has it all loaded.

:class:`Commands` is this side; the module's ``main`` is the other one, started with ``LD_PRELOAD``. They speak in lines of JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.soak import faults

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a command that does not end is a failure of the test."""
VARIABLE = "POOLKIT_FAULTS_FD"
_SUBREAPER = 36  # linux/prctl.h, PR_SET_CHILD_SUBREAPER


class Ended(NamedTuple):
    """How a command ended: its status (negative for a signal), what it said, and what was counted."""

    argv: tuple[str, ...]
    fault: faults.Fault
    status: int
    out: str
    err: str
    calls: int
    where: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether poolkit itself was killed."""
        return self.status < 0

    def __str__(self) -> str:
        struck = f" [{self.where}]" if self.where else ""
        return f"poolkit {' '.join(self.argv)}: {self.fault}{struck}: status {self.status}\n{self.err}"


class Commands:
    """Gives commands to the process that forks for each; for the files below ``place``."""

    def __init__(self, place: Path, work: Path) -> None:
        self.control = faults.Control(place)
        preload = faults.library(work)
        self._out, self._err = work / "stdout", work / "stderr"
        environment = {
            **os.environ,
            "LD_PRELOAD": str(preload),
            VARIABLE: str(self.control.fd),
            "PYTHONPATH": str(ROOT),
        }
        for name in [name for name in environment if name.startswith("COV_")]:
            del environment[name]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.zygote", str(self.control.fd), str(preload)], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(self.control.fd,), text=True,
        )  # fmt: skip
        assert self._answer() == {"ready": True}

    def __call__(self, argv: Sequence[str], fault: faults.Fault = faults.NONE) -> Ended:
        """Run ``poolkit argv`` with ``fault``; returns when it and all that it had started have ended."""
        order = {"argv": list(argv), "fault": list(fault), "out": str(self._out), "err": str(self._err)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told = self._answer()
        out, err = (file.read_text(errors="replace") for file in (self._out, self._err))
        ended = Ended(
            tuple(argv), fault, told["status"], out, err, self.control.count, self.control.where, told["seconds"]
        )
        assert not told["stuck"], f"it did not end in {PATIENCE} s, or left a program behind: {ended}"
        return ended

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs the commands has died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        os.close(self.control.fd)


# -- the other side ------------------------------------------------------------------------------------------------------


def _load() -> None:
    """Have in memory what the commands need, so that each begins at once and no fault hits Python's own files."""
    import importlib
    import pkgutil

    import poolkit

    for module in pkgutil.walk_packages(poolkit.__path__, "poolkit."):
        if ".testing" not in module.name and not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in (
        "pwd", "grp", "hashlib", "difflib", "traceback", "subprocess", "asyncio", "lxml.etree", "sqlite3", "uuid", "zlib",
        "base64", "select", "urllib.parse", "encodings.idna", "concurrent.futures", "tempfile", "multiprocessing",
    ):  # fmt: skip
        importlib.import_module(name)


def _programs_too(fd: int, preload: str) -> None:
    """Give the library to the programs that poolkit starts; it builds their environment from nothing, and confines some."""
    from poolkit.host import confine, programs

    real, environment, apart = programs.start, programs._environment, confine.apart

    def start(argv: Any, *, pass_fds: Sequence[int] = (), **how: Any) -> Any:
        return real(argv, pass_fds=(*pass_fds, fd), **how)

    def confined(start: Any, *, programs: Any, fds: Any) -> Any:
        return apart(start, programs=(*programs, preload), fds=fds)

    programs.start = start
    programs._environment = lambda charset: {**environment(charset), "LD_PRELOAD": preload, VARIABLE: str(fd)}
    confine.apart = confined


def _main(fd: int, preload: str) -> None:
    control = faults.Control.__new__(faults.Control)
    import mmap

    control._memory = mmap.mmap(fd, mmap.PAGESIZE)
    control._fields = faults._Control.from_buffer(control._memory)
    _load()
    _programs_too(fd, preload)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        fault = faults.Fault(*order["fault"])
        began = time.monotonic()
        child = os.fork()
        if not child:
            _command(control, order, fault)
        with _late(fault, child):
            status, stuck = _wait(child)
        seconds = time.monotonic() - began
        stuck = _orphans(began) or stuck
        control.disarm()
        print(json.dumps({"status": status, "stuck": stuck, "seconds": seconds}), flush=True)


def _command(control: faults.Control, order: dict[str, Any], fault: faults.Fault) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        from poolkit.cli import main

        control.arm(fault, os.getpid())
        code = main(order["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


@contextlib.contextmanager
def _late(fault: faults.Fault, child: int) -> Iterator[None]:
    """Kill after a time: poolkit, the programs that it has started, or both."""
    if not fault.delay:
        yield
        return
    over = threading.Event()

    def strike() -> None:
        if over.wait(fault.delay):
            return
        programs = _below(child)
        victims = {faults.KILL_SELF: programs or [child], faults.KILL_LEADER: [child]}.get(
            fault.action, [child, *programs]
        )
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _below(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):  # it ends meanwhile
        for task in os.listdir(f"/proc/{pid}/task"):
            for word in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(word), *_below(int(word))]
    return found


def _wait(child: int) -> tuple[int, bool]:
    until = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL, True
        time.sleep(0.0005)


def _orphans(began: float) -> bool:
    """Wait for the programs that a command had started and that outlive it; whether one had to be killed."""
    stuck = False
    while True:
        try:
            done, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return stuck
        if done:
            continue
        if time.monotonic() - began > PATIENCE:
            stuck = True
            for pid in _below(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.0005)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
