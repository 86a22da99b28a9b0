"""A run of the tests that does not come to its end is not green."""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = """
import os

def test_forks():
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def test_ends_all():
    os._exit(0)
"""


def test_a_run_that_is_ended_in_the_middle_is_not_green(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(SUITE)
    run = pytester.runpytest_subprocess("-p", "tests.conftest", "-v")
    assert run.ret == 70
    run.stdout.fnmatch_lines(["*::test_forks PASSED*"])
    run.stderr.fnmatch_lines(["the run of the tests was ended by os._exit"])
