"""What the README and the manual show is what happens: their console sessions and Python blocks are run here.

A ``console`` block holds commands after ``$ `` (continued by ``> ``), each followed by what it prints. In the expected
output a line ``...`` stands for any number of lines; UUIDs, owners, times and the figures of a pool are those of the one
who wrote the page, and are not compared. The blocks of one page run in order, in one directory and on one root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/quickstart.md",
    "docs/volumes.md",
    "docs/flavors.md",
    "docs/storage-as-code.md",
    "docs/automation.md",
    "docs/coming-from-libvirt.md",
]
WITHOUT_PYTHON = ("docs/automation.md", "docs/coming-from-libvirt.md")
HOME = "/home/you"  # the directory of the reader in the pages, that of the test here
LOCAL = {  # what differs from machine to machine -> what stands for it
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "UUID",
    r"<(mode|owner|group|[acm]time)>[\d.]+<": r"<\1>N<",
    r'"(capacity|allocation|available|refreshed)": [\d.]+': r'"\1": N',
    r"\b\d{1,5}:\d{1,5}\b": "OWNER",
    r" {2,}": "  ",  # the width of a column
}


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no {language} block"
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_what_installs_it_can_be_typed_as_it_stands(page: str) -> None:
    """No word stands for another one, and what is installed is there."""
    block = blocks(page, "sh")[0]
    assert not re.search(r"\b[A-Z]{2,}\b", re.sub(r"\$HOME|\$?PATH", "", block))
    (extra,) = re.findall(r"pip install '\.\[(\w+)\]'", block)
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert extra in tomllib.load(file)["project"]["optional-dependencies"]


def steps(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output it should have."""
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *rest = step.splitlines()
        while rest and rest[0].startswith("> "):
            command += "\n" + rest.pop(0)[2:]
        yield command, "\n".join(rest)


def plain(text: str) -> list[str]:
    for local, general in LOCAL.items():
        text = re.sub(local, general, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def agrees(said: list[str], expected: list[str]) -> bool:
    if not expected:
        return not said
    if expected[0] == "...":
        return any(agrees(said[skip:], expected[1:]) for skip in range(len(said) + 1))
    return bool(said) and said[0] == expected[0] and agrees(said[1:], expected[1:])


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``poolkit`` keeps all its files below ``tmp_path``, whoever runs the tests."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "poolkit"
    command.write_text(f'#!/bin/sh\nexec {Path(sys.executable).parent}/poolkit --root "{tmp_path}/root" "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.mark.parametrize("page", PAGES)
def test_console_sessions(page: str, tmp_path: Path, machine: dict[str, str]) -> None:
    for block in blocks(page, "console"):
        for command, expected in steps(block):
            done = subprocess.run(
                ["bash", "-c", command.replace(HOME, str(tmp_path))],
                cwd=tmp_path,
                env=machine,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            said = done.stdout.replace(str(tmp_path), HOME)
            assert done.returncode == 0, f"{page}: $ {command}\n{said}"
            assert agrees(plain(said), plain(expected)), (
                f"{page}: $ {command}\n--- it says\n{said}\n--- not\n{expected}"
            )


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT_PYTHON])
def test_python_blocks(page: str, tmp_path: Path, machine: dict[str, str]) -> None:
    for block in blocks(page, "python"):
        code = block.replace(HOME, str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=machine, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}:\n{block}\n{done.stderr}"
