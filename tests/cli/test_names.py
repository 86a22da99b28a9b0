"""The names that ``import poolkit`` offers, and what that import costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import poolkit


def test_every_public_name_is_there() -> None:
    for name in poolkit.__all__:
        assert getattr(poolkit, name) is not None
        assert name in dir(poolkit)
    assert poolkit.Engine.__module__ == "poolkit.engine.engine"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        poolkit.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import poolkit", "typing_extensions poolkit.engine sqlite3 lxml xmlschema rich argparse asyncio"),
        ("from poolkit.cli import main; main(['--version'])", "poolkit.engine sqlite3 lxml xmlschema rich argparse"),
        (
            "import sys; from poolkit.cli import main; main(['list', '--root', sys.argv[1]])",
            "lxml xmlschema rich argparse asyncio subprocess inspect dataclasses hashlib poolkit.formats",
        ),
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
