"""Runs command lines, and looks for the values of secrets in all that they and their programs leave and say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

TREE = str(Path(__file__).parents[1])
MAIN = "import sys; sys.path[:0] = [{tree!r}]; from poolkit.cli import main; from poolkit.host import journal\n"
_SPIES = (
    "kept, append = open(sys.argv[2], 'ab', buffering=0), journal.Journal.append\n"
    "def spied(self, step):\n"
    "    append(self, step)\n"
    "    kept.write(open(self.path, 'rb').read())\n"
    "journal.Journal.append = spied\n"
    "import json\n"
    "from poolkit.content import images\n"
    "images.UNLOCKING = 10\n"  # milliseconds: what is made here guards nothing
    "for line in json.loads(sys.argv[1]):\n"
    "    for more in ([], ['--json'], ['--log-json', '--debug']):\n"
    "        print(main([*line, *more]), line[2], file=sys.stderr)\n"
)


def look(
    folder: Path, lines: Iterable[Sequence[str]], values: Sequence[str], own: Iterable[Path]
) -> tuple[bytes, bytes]:
    """Run ``lines`` over the root ``folder/root``, each as a person, as a program and for debugging reads it.

    Fails if any of ``values`` is in an argument or the environment of a program, in what is said, in a journal as it was at any
    time, or in a file below ``folder`` but for ``own`` and the store of secrets. Returns the calls of programs and what was said.
    """
    words = [["--root", f"{folder}/root", *line] for line in lines]
    argv = [
        "strace", "-f", "-qq", "-v", "-s", "100000", "-e", "trace=execve", "-o", f"{folder}/calls",
        sys.executable, "-c", MAIN.format(tree=TREE) + _SPIES, json.dumps(words), f"{folder}/journals",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, timeout=250, check=False, cwd=folder, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    calls, said = (folder / "calls").read_bytes(), done.stdout + done.stderr
    assert (folder / "journals").stat().st_size, "nothing was recorded"

    def leaks(data: bytes) -> bool:
        return any(value.encode() in data for value in values)

    assert not leaks(calls), "in the arguments or the environment of a program"
    assert not leaks(said), "in what the command says"
    left = (file for file in folder.rglob("*") if file.is_file() and file not in set(own))
    assert [str(file) for file in left if file.suffix != ".value" and leaks(file.read_bytes())] == []
    assert not list(folder.glob("core*"))
    return calls, said


def secret(folder: Path, name: str, usage: str, value: str) -> tuple[list[list[str]], Path]:
    """The command lines that define a secret with a value, and the file that has the value."""
    element = {"volume": "volume", "iscsi": "target"}.get(usage, "name")
    text = f"<secret private='yes'><usage type='{usage}'><{element}>{name}</{element}></usage></secret>"
    file = folder / f"{name.replace('/', '-')}.xml"
    file.write_text(text)
    own = file.with_suffix(".value")
    own.write_text(value)
    lines = [
        ["secret-define", str(file)],
        ["secret-set-value", name, "--file", str(own), "--plain"],
    ]
    return lines, own
