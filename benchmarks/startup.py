"""What one call of the command costs from start to end."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import PYTHON, Bench, Row, best, run_cpu, run_seconds
from benchmarks.pools import NAME, definition, started_pool

START, MANY = 2.5, 3.0
"""How many times an empty Python a frequent verb may take, and a thousand pools one pool."""
FLOOR = "import _sqlite3, fcntl, os, pyexpat; _sqlite3.connect(':memory:').execute('SELECT 1'); os._exit(0)"
"""What every verb that looks at a pool needs of Python: SQLite for what is known of pools, expat for their documents."""


def run(bench: Bench) -> Iterator[Row]:
    """The frequent verbs against an empty Python; ``list`` with many pools against one."""
    yield from frequent(bench)
    many = 20 if bench.quick else 1_000
    one_root, many_root = defined(bench, 1), defined(bench, many)
    command = str(Path(PYTHON).with_name("poolkit"))
    few_list = [command, "--root", str(one_root), "list", "--all"]
    many_list = [command, "--root", str(many_root), "list", "--all"]
    few, lots = best(
        (1 if bench.quick else 4) * bench.rounds,
        lambda: 1e3 * run_seconds(few_list),
        lambda: 1e3 * run_seconds(many_list),
    )
    yield Row(f"poolkit list, {many:,} pools", lots, "ms", "1 pool", few, MANY)


def frequent(bench: Bench) -> Iterator[Row]:
    """Each frequent verb of an installed wheel, in processor time, beside an empty Python of the same environment."""
    if importlib.util.find_spec("hatchling") is None:
        bench.note("frequent verbs: hatchling not installed (pip install hatchling)")
        return
    python = installed(bench)
    root = bench.fresh("root")
    with started_pool(bench, bench.fresh("images"), root=root) as pool:
        pool.create_volume("<volume><name>v</name><capacity unit='MiB'>1</capacity></volume>")
    number = itertools.count()
    verbs = {
        "list": ["list"],
        "info": ["info", NAME],
        "dumpxml": ["dumpxml", NAME],
        "vol-list": ["vol-list", NAME],
        "vol-info": ["vol-info", "v", NAME],
        "vol-create-as": ["vol-create-as", NAME, "{}", "1MiB"],
    }
    command = [python.with_name("poolkit"), "--root", root]
    sides = [[python, "-c", "pass"], [python, "-c", FLOOR], *([*command, *words] for words in verbs.values())]
    calls = [
        lambda argv=argv: 1e3 * run_cpu([f"n{next(number)}" if word == "{}" else word for word in argv])  # type: ignore[misc]
        for argv in sides
    ]
    empty, floor, *measured = best((1 if bench.quick else 4) * bench.rounds, *calls)
    yield Row("Python with SQLite and expat alone", floor, "ms CPU", "python -c pass", empty)
    for name, value in zip(verbs, measured, strict=True):
        yield Row(f"poolkit {name}", value, "ms CPU", "python -c pass", empty, START)


def installed(bench: Bench) -> Path:
    """The Python of an environment with poolkit as people have it: a wheel, compiled, and nothing that tests bring along.

    What poolkit depends on is left out: these verbs load none of it.
    """
    place = bench.fresh("venv")
    venv.create(place, symlinks=True)
    wheels = bench.fresh("wheel")
    tree = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (wheel,) = wheels.glob("*.whl")
    (site,) = place.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    python = place / "bin" / "python"
    (script,) = site.glob("*.data/scripts/poolkit")
    command = python.with_name("poolkit")
    command.write_text(script.read_text().replace("#!python", f"#!{python}", 1))
    command.chmod(0o755)
    subprocess.run([python, "-m", "compileall", "-q", site], check=True, stdout=subprocess.DEVNULL)
    return python


def defined(bench: Bench, count: int) -> Path:
    """A root with ``count`` inactive pools."""
    from poolkit.engine import Engine

    root = bench.fresh("root")
    with Engine(root=root) as engine:
        for number in range(count):
            engine.define(definition(f"pool{number}", root / f"target{number}"))
    return root
