"""The value of a secret is in no argument or environment of any program, log, error, journal, inventory or core dump."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import leaks
from tests.leaks import MAIN, TREE

VALUE = "correct-horse-battery-staple"
WRONG = "wrong-horse-battery-staple"
LUKS = "<encryption format='luks'><secret type='passphrase' usage='{usage}'/></encryption>"


class Case(NamedTuple):
    """One pool type: the secrets that its documents name, and every verb of it that meets one."""

    type: str
    usage: str
    pool: str
    verbs: tuple[tuple[str, ...], ...]
    works: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()


# {f} is the test's own folder, {usage} the name of the right secret. A type joins by one line.
CASES = [
    Case(
        "dir", "volume", "<pool type='dir'><name>p</name><target><path>{f}/images</path></target></pool>",
        (
            ("build", "p"), ("start", "p"), ("vol-create", "p", "{f}/v0"), ("vol-create", "p", "{f}/v1"),
            ("vol-create", "p", "{f}/v2"), ("vol-clone", "raw", "plain", "--pool", "p", "--format", "qcow2", "--secret", "right"),
            ("vol-clone", "raw", "bad", "--pool", "p", "--format", "qcow2", "--secret", "wrong"),
            ("vol-clone", "raw", "copy", "--pool", "p"), ("vol-resize", "raw", "4MiB", "--pool", "p"),
            ("vol-resize", "cow", "4MiB", "--pool", "p"), ("vol-info", "raw", "--pool", "p"), ("vol-list", "p", "--details"),
            ("vol-dumpxml", "raw", "--pool", "p"), ("vol-chain", "cow", "--pool", "p"), ("vol-disk-xml", "p", "raw"),
            ("vol-download", "raw", "{f}/down", "--pool", "p"), ("vol-upload", "raw", "{f}/down", "--pool", "p"),
            ("vol-wipe", "cow", "--pool", "p"), ("refresh", "p"), ("vol-delete", "raw", "--pool", "p"), ("destroy", "p"),
        ),
        (
            "build", "start", "vol-create", "vol-clone", "vol-resize", "vol-info", "vol-list", "vol-dumpxml", "vol-chain",
            "vol-disk-xml", "vol-download", "vol-upload", "vol-wipe", "refresh", "vol-delete", "destroy",
        ),
        tuple(
            f"<volume><name>{name}</name><capacity>1048576</capacity><target><format type='{format}'/>"
            f"{LUKS.format(usage=usage)}</target></volume>"
            for name, format, usage in (("raw", "raw", "right"), ("cow", "qcow2", "right"), ("none", "raw", "absent"))
        ),
        ("raw", "cow"),
    ),
    Case(
        "netfs", "smb",
        "<pool type='netfs'><name>p</name><source><host name='127.0.0.1' port='1'/><dir path='x'/><format type='cifs'/>"
        "<auth type='smb' username='ann'><secret usage='right'/></auth></source><target><path>{f}/mnt</path></target></pool>",
        (("build", "p"), ("start", "p"), ("start", "p", "--debug"), ("dumpxml", "p"), ("info", "p"), ("destroy", "p")),
        ("build", "dumpxml", "info", "destroy"),
    ),
]  # fmt: skip

COMMON = (
    ("secret-list",), ("secret-dumpxml", "right"), ("secret-get-value", "right"), ("doctor",), ("recover",), ("list", "--all"),
    ("undefine", "p"), ("secret-undefine", "right"),
)  # fmt: skip


def define(case: Case, folder: Path) -> tuple[list[list[str]], list[Path]]:
    """The command lines that come first, and the files that have the values."""
    (folder / "pool.xml").write_text(case.pool.format(f=folder))
    for number, text in enumerate(case.volumes):
        (folder / f"v{number}").write_text(text)
    lines, own = [["define", f"{folder}/pool.xml"]], []
    # What is read later is opened with the secret that is for its path.
    paths = [(f"{folder}/images/{name}", VALUE) for name in case.opened]
    for name, value in (("right", VALUE), ("wrong", WRONG), *paths):
        more, file = leaks.secret(folder, name, case.usage, value)
        lines += more
        own.append(file)
    return lines, own


@pytest.mark.root
@pytest.mark.tools("strace", "qemu-img")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_a_value_shows_nowhere(case: Case, tmp_path: Path) -> None:
    lines = [[word.format(f=tmp_path) for word in line] for line in (*case.verbs, *COMMON)]
    first, own = define(case, tmp_path)
    calls, said = leaks.look(tmp_path, first + lines, (VALUE, WRONG), own)
    program = {"dir": b"qemu-img", "netfs": b"credentials=/proc/self/fd/"}[case.type]
    assert calls.count(program) > 1, "nothing was recorded"
    for verb in (*case.works, "secret-dumpxml", "doctor", "list"):
        assert f"\n0 {verb}\n".encode() in said, f"{verb} never succeeded"


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("who", ["poolkit", "tool"])
def test_a_crash_leaves_no_core_dump_with_it(tmp_path: Path, who: str, guarded: bool) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("core dumps do not go to the working directory here")
    script = MAIN.format(tree=TREE) + (
        "import os, resource\n"
        "from poolkit.cli.session import Session; from poolkit.cli import arguments; from poolkit.host import cores, programs\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)\n"
        "values = arguments.Values(arguments.GLOBAL); values.root = sys.argv[1]\n"
        "session = Session(values, 'define')\n"
        "session.engine.define_secret(\"<secret><usage type='smb'><name>n</name></usage></secret>\").set_value(b'crash-value')\n"
        "host = session.engine.host.operation()\n"
        "if sys.argv[3] == 'False': cores.LIMIT = 1 << 40; programs.UNTRUSTED_LIMITS['core'] = 1 << 40\n"
        "host.secret('smb', usage='n')\n"
        "if sys.argv[2] == 'poolkit': os.abort()\n"
        "os.chdir(sys.argv[1]); start = programs.start\n"
        "import subprocess\n"
        "from poolkit.host import running\n"
        "full = running.full(host, ['python3', '-c', 'import os; os.abort()'], False, None)[0]\n"
        "subprocess.run(full, cwd=sys.argv[4])\n"
    )
    (tmp_path / "cwd").mkdir()
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "root"), who, str(guarded), str(tmp_path / "cwd")],
        cwd=tmp_path / "cwd", check=False, capture_output=True, timeout=100,
    )  # fmt: skip
    found = list((tmp_path / "cwd").glob("core*"))
    assert bool(found) != guarded, os.listdir(tmp_path / "cwd")
