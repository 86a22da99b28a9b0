"""The list of system packages has what the tests ask for, and the scripts that read it say what is missing."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

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
which = lambda program, path=None: program if program == "virsh" else None
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
