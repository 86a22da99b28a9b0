"""The list of system packages has what the tests ask for, and the scripts that read it say what is missing."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import recipe

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "scripts" / "install-test-tools"
ESSENTIAL = {"apt", "dpkg", "util-linux", "mount", "bash", "coreutils"}  # part of every Debian


def groups() -> dict[str, dict[str, list[str]]]:
    return runpy.run_path(str(INSTALL))["read"]()


def programs() -> set[str]:
    return {p for packages in groups().values() for needs in packages.values() for p in needs}


def test_every_program_that_a_test_is_marked_with_is_installed() -> None:
    wanted = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        if "mark.lab" in text:  # such a test's programs are those of the guest
            continue
        for call in re.findall(r"mark\.tools\(([^)]*)\)", text):
            wanted |= set(re.findall(r"[\"']([\w.-]+)[\"']", call))
    assert wanted - programs() == set()


def test_the_packages_of_the_lab_are_installed() -> None:
    wanted = {*recipe.BUILD_TOOLS.values(), *recipe.BOOT_TOOLS.values()} - ESSENTIAL
    assert wanted - set(groups()["lab"]) == set()


def test_an_unknown_group_is_an_error() -> None:
    done = subprocess.run([sys.executable, INSTALL, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such group: nothing; there are oracle," in done.stderr


def test_elsewhere_than_on_debian_missing_programs_are_named(tmp_path: Path) -> None:
    (tmp_path / "virsh").symlink_to("/bin/true")
    code = f"""
import runpy
names = runpy.run_path({str(INSTALL)!r})
which = lambda program, path=None: program if program in ("virsh", "xmllint", "xmlcatalog") else None
names["shutil"].which = which
names["main"](["oracle", "lab"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert done.stderr.splitlines() == [
        "install-test-tools: lab: missing qemu-system-x86_64, mmdebstrap, mkfs.ext4, zstd; "
        "tests that need them will be skipped"
    ]


def test_the_readme_says_what_each_pool_type_can_do() -> None:
    command = [sys.executable, ROOT / "scripts" / "readme-table", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_runs_of_pytest_end_in_one_summary() -> None:
    combined = runpy.run_path(str(ROOT / "scripts" / "run-tests"))["combined"]
    lines = [
        "\x1b[32m==== \x1b[1m2299 passed\x1b[0m, 136 deselected, 1 warning in 1503.10s (0:25:03) ====\x1b[0m\n",
        "== 1 failed, 130 passed, 2 skipped, 2300 deselected, 3 errors in 900.00s (0:15:00) ==\n",
    ]
    assert combined(lines, 1510.5).strip("= \n") == (
        "1 failed, 2429 passed, 2 skipped, 1 warnings, 3 errors in 1510.50s (0:25:10)"
    )
    assert (
        combined(["== 5 passed in 1.00s ==", "== 7 deselected in 0.10s =="], 2).strip("= \n").startswith("5 passed in")
    )
    assert combined(["== 5 passed in 1.00s ==", "INTERNALERROR> it broke\n"], 2) == "INTERNALERROR> it broke\n"


@pytest.mark.parametrize("broken", ["", "host", "guest"])
def test_a_whole_run_is_two_runs_of_pytest(tmp_path: Path, broken: str) -> None:
    body = "import os, pytest\ndef test_host():\n    assert {}\n@pytest.mark.guest\ndef test_guest():\n    assert {}\n"
    shared = "'POOLKIT_LAB_SHARED' {} os.environ"
    host = "False" if broken == "host" else shared.format("not in")
    guest = "False" if broken == "guest" else shared.format("in")
    (tmp_path / "test_it.py").write_text(body.format(host, guest))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    lab: x\n    guest: x\n")
    code = f"""
import runpy, sys, pathlib, os
names = runpy.run_path({str(ROOT / "scripts" / "run-tests")!r})
os.chdir({str(tmp_path)!r})
status, summary = names["side_by_side"]([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"])
print(summary, end="")
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == (1 if broken else 0), done.stdout + done.stderr
    told = done.stdout.splitlines()[-1].strip("= ")
    assert told.startswith("1 failed, 1 passed in " if broken else "2 passed in ")
    if broken:
        assert f"FAILED test_it.py::test_{broken}" in done.stdout
