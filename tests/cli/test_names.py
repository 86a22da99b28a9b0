"""The names that ``import poolkit`` offers, and what that import costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest

import poolkit
from poolkit.engine import operation
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume


def test_every_public_name_is_there() -> None:
    for name in poolkit.__all__:
        assert getattr(poolkit, name) is not None
        assert name in dir(poolkit)
    assert poolkit.Engine.__module__ == "poolkit.engine.engine"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        poolkit.nothing  # noqa: B018


def test_a_verb_says_what_it_returns() -> None:
    """Also at run time, though the module with the answer's class is loaded with the first that does any work."""
    for verb in (Pool.undefine, Pool.build, Pool.delete, Volume.permit):
        assert typing.get_type_hints(verb)["return"] is operation.Outcome


_NEVER = (
    "lxml xmlschema rich argparse asyncio subprocess inspect dataclasses hashlib importlib.metadata email pickle socket"
)
"""What costs more than all of the verb that would load it."""

# A pool that runs, made by other processes.
_POOL = """
import os, sys
from pathlib import Path
from poolkit.cli import main
root = Path(sys.argv[1])
(root / "t").mkdir()
def do(*words, status=0):
    assert main(["--root", str(root), *words]) == status
(root / "p.xml").write_text(f"<pool type='dir'><name>p</name><target><path>{root}/t</path></target></pool>")
for words in (["define", str(root / "p.xml")], ["start", "p"]):
    command = [sys.executable, "-c", "from poolkit.cli import main; main()", "--root", str(root), *words]
    assert not os.spawnv(os.P_WAIT, sys.executable, command)
"""


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import poolkit", "typing_extensions poolkit.engine sqlite3 lxml xmlschema rich argparse asyncio"),
        ("from poolkit.cli import main; main(['--version'])", "poolkit.engine sqlite3 lxml xmlschema rich argparse"),
        (
            "import sys; from poolkit.cli import main; main(['list', '--root', sys.argv[1]])",
            "lxml xmlschema rich argparse asyncio subprocess inspect dataclasses hashlib poolkit.formats importlib.metadata "
            "email",
        ),
        (
            f"{_POOL}\ndo('vol-create-as', 'p', 'v', '1MiB')",
            f"{_NEVER} poolkit.engine.cloning poolkit.host.worker",
        ),
        (f"{_POOL}\ndo('vol-info', '--pool', 'p', 'v', status=4)", f"{_NEVER} ctypes poolkit.content"),
        (f"{_POOL}\ndo('vol-list', 'p'); do('info', 'p')", f"{_NEVER} ctypes poolkit.content poolkit.formats"),
    ],
)
def test_what_is_not_needed_is_not_loaded(statement: str, unwanted: str, tmp_path: Path) -> None:
    script = f"{statement}\nimport sys\nsys.exit(' '.join(m for m in {unwanted.split()!r} if m in sys.modules) or 0)"
    # The measuring of coverage follows into child processes and brings modules of its own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    argv = [sys.executable, "-c", script, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


_LOADED = """
import atexit, sys
told, before = sys.argv.pop(1), set(sys.modules)
def tell():
    with open(told, "w") as file:
        file.write(" ".join(set(sys.modules) - before))
atexit.register(tell)
from poolkit.cli import main
main()
"""
_NO_NEED = {
    *_NEVER.split(),
    *"typing re enum json signal datetime pathlib tempfile shutil random uuid".split(),
    *"argparse logging tomllib sqlite3 importlib ctypes warnings copyreg difflib traceback string textwrap".split(),
    *"threading pyexpat struct bisect".split(),
}
"""Of the standard library: with each of them a frequent verb takes up to two thirds of an empty Python longer."""
_NOT_OF_OURS = {
    *"poolkit.host.worker poolkit.state.schema poolkit.engine.cloning poolkit.formats poolkit.content.images".split(),
    *"poolkit.hints poolkit.schemas poolkit.xmlmap.grammar poolkit.families.mountoptions poolkit.cli.progress".split(),
}
_DEFINITIONS = "poolkit.xmlmap poolkit.model poolkit.registry poolkit.backend poolkit.backends poolkit.families"
"""What a look at a pool does without, where what was noted of its storage tells whether it is up."""
_WORK = (
    "poolkit.engine.operation poolkit.engine.writing poolkit.engine.standing poolkit.state.locks poolkit.state.unfinished "
    "poolkit.host.undo poolkit.host.journal poolkit.host.rollback"
)
"""What only work needs, or a look at what work has left."""


@pytest.mark.parametrize(
    ("words", "most", "more"),
    [
        (["list"], 32, ""),
        (["info", "p"], 33, ""),
        (["dumpxml", "p"], 56, f"pyexpat poolkit.host.undo {_DEFINITIONS}"),
        (["vol-list", "p"], 39, ""),
        (["vol-info", "v", "p"], 38, ""),
        (["vol-create-as", "p", "w", "1MiB"], 84, f"threading pyexpat struct bisect {_DEFINITIONS} {_WORK}"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_frequent_verb_loads_little(words: list[str], most: int, more: str, tmp_path: Path) -> None:
    """What ``python -m benchmarks startup`` measures, held without a clock; ``most`` is a bound on poolkit's own modules.

    Who needs another module on such a way: see whether it can be loaded later (``poolkit.later``, or an import in the function),
    and whether ``poolkit.lean`` has what is taken of the library, before the bound is raised.
    """
    root = tmp_path / "root"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

    def command(*words: str) -> list[str]:
        told = tmp_path / "told"
        argv = [sys.executable, "-c", _LOADED, told, "--root", root, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return told.read_text().split()

    (tmp_path / "t").mkdir()
    command("define-as", "p", "dir", "--target", str(tmp_path / "t"))
    command("start", "p")
    command("vol-create-as", "p", "v", "1MiB")
    time.sleep(0.1)  # a file that was changed just now can change again without showing it
    command("refresh", "p")
    loaded = command(*words)
    ours = [name for name in loaded if name.split(".")[0] == "poolkit"]
    unwanted = (_NO_NEED | _NOT_OF_OURS | {*_DEFINITIONS.split(), *_WORK.split()}) - {*more.split()}
    if "threading" in more.split() and sys.version_info >= (3, 13):
        unwanted -= {"warnings"}  # which it imports there
    assert sorted(unwanted.intersection(loaded)) == []
    assert len(ours) <= most, sorted(ours)


def test_a_command_ends_as_any_program_does(tmp_path: Path) -> None:
    """What was registered for the end runs, all output is there, and the status is the command's."""
    script = "import atexit; atexit.register(print, 'the end'); from poolkit.cli import main; main(); print('never')"
    for words, status in ((["list"], 0), (["vol-list", "none"], 4)):
        argv = [sys.executable, "-c", script, "--root", str(tmp_path), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stdout.splitlines()[-1] == "the end"
        assert "none" in done.stderr or not status
