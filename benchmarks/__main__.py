"""``python -m benchmarks [NAME...] [--quick] [--check] [--write]``."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import platform
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import benchmarks
from benchmarks.harness import Bench, Row, Skip, table

Run = Callable[[Bench], Iterator[Row]]


def main() -> int:
    """Run the chosen benchmarks and print the table; status 1 when one failed, or missed a bar and ``--check`` is given."""
    found = registry()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(found)}; all without one")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to see that all works")
    parser.add_argument("--check", action="store_true", help="status 1 when a bar was missed")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md as well")
    parser.add_argument("--dir", help="where the scratch directory is made (default: /var/tmp)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in found]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(found)}")
    # A user's PATH, and that of some services, lacks the folders of mkfs and sfdisk.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    # Ended from outside it cleans up as well: a libvirtd and a hundred thousand files would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    notes: list[str] = []
    failed = False
    with Bench(quick=options.quick, parent=options.dir) as bench:
        head = machine(bench)
    print(head, flush=True)
    for name in options.names or found:
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = alone(found[name], name, options.quick, options.dir)
        rows += done.rows
        notes += [note for note in done.notes if note not in notes]
        failed |= done.failed
    lines = [*table(rows), *(f"\nNot measured: {note}" for note in notes)]
    print("", *lines, sep="\n")
    if options.write:
        record(head, lines)
    return 1 if failed or (options.check and any(row.verdict == "MISSED" for row in rows)) else 0


class Done(NamedTuple):
    """What came of one benchmark."""

    rows: list[Row]
    notes: list[str]
    failed: bool = False


def alone(run: Run, name: str, quick: bool, parent: str | None) -> Done:
    """Make a benchmark in a process of its own: what those before left in memory would be copied by each of its forks."""
    ours, theirs = Pipe(duplex=False)
    process = get_context("fork").Process(target=measured, args=(theirs, run, name, quick, parent))
    process.start()
    theirs.close()
    try:
        done = Done(*ours.recv())
    except EOFError:
        done = Done([], [f"{name}: it failed, see above"], failed=True)
    finally:
        process.terminate()  # it cleans up, too
        process.join()
    return done


def measured(to: Connection, run: Run, name: str, quick: bool, parent: str | None) -> None:
    """Make a benchmark, and tell what came of it."""
    rows: list[Row] = []
    with Bench(quick=quick, parent=parent) as bench:
        failed = True
        try:
            rows.extend(run(bench))
            failed = False
        except Skip as reason:
            bench.note(str(reason))
            failed = False
        except FileNotFoundError as error:
            bench.note(f"{name}: {error.filename!r} is not there")
        except Exception:  # the others' figures are worth having
            traceback.print_exc()
            bench.note(f"{name}: it failed, see above")
    to.send((rows, bench.notes, failed))  # whatever name this module runs under


def registry() -> dict[str, Run]:
    """Every module of this package that has a function ``run``, by name."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if not module.name.startswith("_"):
            run = getattr(importlib.import_module(f"benchmarks.{module.name}"), "run", None)
            if run is not None:
                found[module.name] = run
    return found


def record(head: str, lines: list[str]) -> None:
    """Replace the results in the README beside this file."""
    readme = Path(__file__).with_name("README.md")
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    results = [f"`{command}`", f"{head}, {date.today().isoformat()}", "", *lines]
    before, mark, _ = readme.read_text().partition("## Results\n")
    readme.write_text(f"{before}{mark}\n" + "\n".join(results) + "\n")


def machine(bench: Bench) -> str:
    """One line on what was measured where."""
    find = ["findmnt", "-n", "-o", "FSTYPE", "--target", str(bench.scratch)]
    kind = ""
    if shutil.which(find[0]):
        kind = subprocess.run(find, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    kind = kind or "an unknown file system"
    version = platform.python_version()
    load = os.getloadavg()[0]
    return f"Linux, {os.cpu_count()} CPUs, Python {version}, scratch on {kind}, load {load:.1f} at the start"


if __name__ == "__main__":
    sys.exit(main())
