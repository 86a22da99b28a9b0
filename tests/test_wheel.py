"""What a wheel brings beside the package: manual pages, completion files and units, each read by the program it is for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from poolkit.cli.arguments import GLOBAL
from poolkit.cli.verbs import GROUPS, verbs
from poolkit.errors import PoolkitError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installation finds below its prefix: the data of a wheel that was built of a copy of the tree."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "_build", "tests", "benchmarks")
    shutil.copytree(ROOT, place / "tree", ignore=ignored)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        command, cwd=place / "tree", env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "wheel")
    (data,) = (place / "wheel").glob("*.data/data")
    return data


def pages(prefix: Path) -> list[Path]:
    return sorted((prefix / "share/man/man1").iterdir())


def plain(page: Path) -> str:
    """The page as a reader sees it, on one line."""
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-rLL=200n", "-P-cbou", page], capture_output=True, text=True, check=True
    )  # fmt: skip
    return " ".join(done.stdout.split())


def test_there_is_a_page_for_the_command_and_each_group(prefix: Path) -> None:
    assert [page.name for page in pages(prefix)] == sorted(["poolkit.1", *(f"poolkit-{group}.1" for group in GROUPS)])


@pytest.mark.tools("groff")
def test_the_pages_have_every_verb_option_and_status(prefix: Path) -> None:
    read = {page.stem: plain(page) for page in pages(prefix)}
    for verb in verbs():
        page = read[f"poolkit-{verb.group}"]
        assert f"poolkit {verb.name}" in page and f" {verb.name} {verb.help}" in read["poolkit"], verb.name
        for argument in verb.arguments:
            assert argument.option in page, (verb.name, argument.name)
            assert argument.help[1:] in page, (verb.name, argument.name)
    for argument in GLOBAL:
        assert argument.name in read["poolkit"] and argument.help[1:] in read["poolkit"]
    assert {error.exit_code for error in PoolkitError.__subclasses__()} <= set(
        map(int, re.findall(r"\d+", read["poolkit"]))
    )


@pytest.mark.tools("mandoc")
def test_the_pages_are_sound_for_mandoc(prefix: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages(prefix)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout + done.stderr == "" and done.returncode == 0


@pytest.mark.tools("groff")
def test_the_pages_are_sound_for_groff(prefix: Path) -> None:
    for page in pages(prefix):
        done = subprocess.run(
            ["groff", "-man", "-ww", "-z", "-Tutf8", page], capture_output=True, text=True, check=True
        )
        assert done.stderr == "", page.name


@pytest.mark.tools("man")
def test_man_shows_the_pages(prefix: Path) -> None:
    for page in pages(prefix):
        done = subprocess.run(
            ["man", "-l", page], capture_output=True, text=True, check=True, env={**os.environ, "PAGER": "cat"}
        )
        assert "NAME" in done.stdout and page.stem.lower() in done.stdout


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", "share/bash-completion/completions/poolkit"),
        pytest.param("zsh", "share/zsh/site-functions/_poolkit", marks=pytest.mark.tools("zsh")),
        pytest.param("fish", "share/fish/vendor_completions.d/poolkit.fish", marks=pytest.mark.tools("fish")),
    ],
)
def test_completion_files_are_what_the_verb_prints(prefix: Path, shell: str, place: str) -> None:
    command = [sys.executable, "-m", "poolkit", "completion", shell]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (prefix / place).read_text() == printed
    done = subprocess.run([shell, "-n", prefix / place], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


def test_the_units_are_those_that_the_verb_prints(prefix: Path) -> None:
    printed = {"system": [], "user": ["--user"]}
    for place, how in printed.items():
        (unit,) = (prefix / "lib/systemd" / place).iterdir()
        assert unit.name == "poolkit-autostart.service"
        command = [sys.executable, "-m", "poolkit", "systemd-unit", "boot", "--json", *how]
        (said,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert said["name"] == unit.name
        # A wheel does not know where it is going to be: systemd looks for its command.
        assert said["text"] == unit.read_text().replace("=poolkit ", f"={sys.executable} -m poolkit ")
    templates = {unit.name for unit in (prefix.parents[1] / "poolkit/cli/units").iterdir()}
    assert {"poolkit-drift.service", "poolkit-drift.timer"} <= templates  # what the verb prints of an installation
