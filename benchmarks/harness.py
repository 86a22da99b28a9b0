"""What the benchmarks share: the scratch directory, the files, the peers, the clock and the table."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.libvirtd import PrivateLibvirtd

PYTHON = sys.executable


class Row(NamedTuple):
    """One line of the table: ``value`` measured beside ``base`` in the same unit, and the ratio it should not exceed.

    Without a base the bar is on the value itself. Without a bar the line is there for comparison only.
    """

    what: str
    value: float
    unit: str
    against: str = ""
    base: float | None = None
    bar: float | None = None

    @property
    def judged(self) -> float:
        """The number the bar is for."""
        return self.value / self.base if self.base else self.value

    @property
    def verdict(self) -> str:
        """``ok``, ``MISSED``, or nothing where there is no bar."""
        return "" if self.bar is None else "ok" if self.judged <= self.bar else "MISSED"


class Skip(Exception):
    """This benchmark cannot be made here; the text says why and appears under the table."""


class Bench:
    """One run: what the modules ask for is made once and is gone when the run ends."""

    def __init__(self, *, quick: bool = False, parent: str | None = None) -> None:
        self.quick = quick
        self.notes: list[str] = []
        self._stack = ExitStack()
        self._libvirtd: PrivateLibvirtd | None = None
        self._files: dict[int, Path] = {}
        # Not /tmp, which is often a tmpfs: volumes live on a disk's file system.
        where = parent or os.environ.get("POOLKIT_BENCH_DIR", "/var/tmp")
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="poolkit-bench.", dir=where)))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def rounds(self) -> int:
        """How often each thing is measured; the best one counts, because noise only ever adds."""
        return 2 if self.quick else 5

    def fresh(self, name: str) -> Path:
        """An empty directory of the scratch directory."""
        return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.scratch))

    def files(self, count: int) -> Path:
        """A directory of ``count`` raw images: 1 MiB each, with the first block written, so that nobody can skip it."""
        if count not in self._files:
            self._files[count] = self.new_files(count)
        return self._files[count]

    def new_files(self, count: int) -> Path:
        """Another such directory, for those who move its files."""
        directory = self.fresh(f"files{count}")
        block = bytes(range(1, 129)) * 32
        for number in range(count):
            fd = os.open(directory / f"disk{number:06}.img", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, block)
            os.ftruncate(fd, 1 << 20)
            os.close(fd)
        os.sync()
        return directory

    def floor(self) -> Callable[[Path], float]:
        """The C loop, compiled here: directory -> seconds for all its files."""
        program = self.compiled("floor.c", "refreshes: the C floor")

        def measure(directory: Path) -> float:
            told = subprocess.run([program, directory], check=True, stdout=subprocess.PIPE, text=True).stdout
            return int(told.split()[1]) / 1e9

        return measure

    def compiled(self, source: str, what: str) -> Path:
        """The program of a C file beside this one; Skip without a compiler."""
        compiler = next(filter(shutil.which, ("gcc", "clang", "cc")), "cc")
        self.need(what, compiler)
        program = self.scratch / Path(source).stem
        if not program.exists():
            subprocess.run(
                [compiler, "-O2", "-Wall", "-pthread", "-o", program, Path(__file__).with_name(source)], check=True
            )
        return program

    def libvirtd(self) -> PrivateLibvirtd | None:
        """A private libvirtd that lives as long as the run, or None with a note why not."""
        if self._libvirtd is None and (new := self.new_libvirtd()):
            self._libvirtd = self._stack.enter_context(new)
        return self._libvirtd

    def new_libvirtd(self) -> PrivateLibvirtd | None:
        """One that has done nothing yet, to be started and ended by ``with``; None with a note why not."""
        if reason := PrivateLibvirtd.missing():
            self.note(f"libvirtd's side: {reason}")
            return None
        return PrivateLibvirtd(self.fresh("libvirtd"))

    def need(self, what: str, *programs: str) -> None:
        """Raise Skip, with the names of the packages, unless these programs are there."""
        if lacking := [name for name in programs if not shutil.which(name)]:
            known = packages()
            wanted = sorted({known[name] for name in lacking if name in known})
            hint = f" (apt install {' '.join(wanted)})" if wanted else ""
            raise Skip(f"{what}: {', '.join(lacking)} not installed{hint}")

    def note(self, text: str) -> None:
        """A line under the table."""
        if text not in self.notes:
            self.notes.append(text)


def packages() -> dict[str, str]:
    """Which Debian package has a program, by the list that is installed from."""
    script = Path(__file__).parents[1] / "scripts" / "install-test-tools"
    groups = runpy.run_path(str(script))["read"]()
    return {program: package for group in groups.values() for package, found in group.items() for program in found}


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run_seconds(argv: Sequence[str], *, cwd: Path | None = None) -> float:
    """How long one process takes from start to end; it must succeed."""
    # An installed program has its bytecode; an environment that forbids writing it would measure the compiler.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return seconds(lambda: subprocess.run(argv, check=True, cwd=cwd, stdout=subprocess.DEVNULL, env=env))


def run_cpu(argv: Sequence[str | Path]) -> float:
    """Seconds of processor time, its own and the kernel's, that one process takes; it must succeed.

    Unlike time it hardly changes with what else the machine does.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(argv))
    return used.ru_utime + used.ru_stime


def best(rounds: int, *calls: Callable[[], float]) -> list[float]:
    """The best of ``rounds`` for each call, taken in turns so that a slow moment of the machine meets them all."""
    times = [[call() for call in calls] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The rows as a Markdown table with aligned columns."""
    cells = [("what", "measured", "against", "its value", "ratio", "at most", "")]
    for row in rows:
        ratio = f"{row.judged:.2f}" if row.base else ""
        bar = "" if row.bar is None else f"{row.bar:g}" if row.base else f"{row.bar:g} {row.unit}"
        base = f"{number(row.base)} {row.unit}" if row.base else ""
        cells.append((row.what, f"{number(row.value)} {row.unit}", row.against, base, ratio, bar, row.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for place, line in enumerate(cells):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        if place == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
