"""The worked example of docs/writing-a-backend.md: its blocks are one file, which is installed, run and kept to the contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "writing-a-backend.md"
BY_IDENTITY = 'undo=undo.run_if(who, mine, ["rm", "--force", "--", final])'
BY_NAME = 'undo=["rm", "--force", "--", final]'


def blocks() -> tuple[str, str]:
    """The backend's file and the file of its test."""
    parts = PAGE.read_text().split("\n## The test\n")
    backend, test = (re.findall(r"(?ms)^```python\n(.*?)^```$", part) for part in parts)
    # Those that begin with a method belong to the class before them.
    whole = [indent(one, "    ") if one.startswith(("def ", "@contextmanager\ndef ")) else one for one in backend]
    return "\n\n".join(whole), "\n\n".join(test)


def install(place: Path, backend: str) -> None:
    """As pip would leave it, and its test beside it."""
    info = place / "poolkit_bucket-1.0.dist-info"
    info.mkdir(parents=True)
    (place / "poolkit_bucket.py").write_text(backend)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poolkit-bucket\nVersion: 1.0\n")
    entry = re.search(r"(?ms)^```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)^```$", PAGE.read_text())
    assert entry is not None
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n" + entry[2].replace('"', ""))
    (place / "test_bucket.py").write_text(blocks()[1])


def contract(place: Path) -> tuple[int, str]:
    """Run the page's test."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--tb=line",
            "--color=no",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "test_bucket.py",
        ],
        env={**os.environ, "PYTHONPATH": str(place), "COLUMNS": "1000"},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "site"


def test_the_example_keeps_the_contract(place: Path) -> None:
    install(place, blocks()[0])
    status, said = contract(place)
    assert status == 0, said
    assert len(re.findall(r"(?m)^PASSED ", said)) > 18
    assert "not applicable: pools of type 'bucket' have no clone" in said


def test_an_undo_by_name_does_not(place: Path) -> None:
    """A bucket whose failed create deletes the object that somebody else made under the name."""
    good = blocks()[0]
    assert good.count(BY_IDENTITY) == 1
    install(place, good.replace(BY_IDENTITY, BY_NAME))
    status, said = contract(place)
    assert status == 1
    (failed,) = re.findall(r"(?m)^FAILED test_bucket.py::TestBucket::(\S+) - (.*)$", said)
    assert failed[0] == "test_a_foreign_volume_survives_a_failed_create"
    assert (
        "a failed create deleted the volume 'first' that had the name already: undo by identity, not by name"
        in failed[1]
    )


def test_the_example_is_well_typed(place: Path) -> None:
    install(place, blocks()[0])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "poolkit_bucket.py"],
        env={**os.environ, "MYPYPATH": str(PAGE.parents[1])},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
