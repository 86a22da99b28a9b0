"""Samples of many cases: another one in each run, the same one with its seed, and all of them where all are asked for."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.sweep import SEVERAL, STRIDE, Points, sample

SUITE = """
def test_sweeps(sampled):
    for case in sampled(range(100)):
        print("case", case)
        assert case < 90

def test_plain():
    pass
"""


def test_a_sample_is_the_same_with_its_seed_and_another_with_another() -> None:
    drawn = [tuple(sample(range(200), seed, "a")) for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != tuple(sample(range(200), "1", "b"))
    assert list(drawn[0]) == sorted(set(drawn[0]))


def test_every_case_has_its_turn_and_about_one_of_four_is_taken() -> None:
    counts = [0] * 40
    for seed in range(400):
        for case in sample(range(40), str(seed), "x"):
            counts[case] += 1
    assert min(counts) > 400 // STRIDE // 2 and max(counts) < 400 // STRIDE * 2
    few = [len(list(sample(range(40), str(seed), "x", SEVERAL))) for seed in range(100)]
    assert 40 / SEVERAL / 2 < sum(few) / 100 < 40 / SEVERAL * 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_few_cases_one_is_taken_at_least(count: int) -> None:
    assert all(list(sample(range(count), str(seed), "x")) for seed in range(50))
    assert list(sample([], "1", "x")) == []


def test_the_cases_need_not_have_an_end() -> None:
    assert next(sample(itertools.count(), "1", "x")) < STRIDE


def test_all_means_all() -> None:
    assert list(sample(range(100), "all", "x")) == list(range(100))


def test_points_are_counted_across_a_fork() -> None:
    points = Points()
    assert points.add() == 1
    if not (child := os.fork()):
        points.add()
        os._exit(0)
    os.waitpid(child, 0)
    assert points.count == 2


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makepyfile(SUITE)
    pytester.makeini("[pytest]\naddopts = -p tests.sweep --strict-markers\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return pytester


def test_the_seed_is_told_at_the_head_and_below_a_failure(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLKIT_SWEEP", "all")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["sweeps: every case", "*POOLKIT_SWEEP=all takes these cases again: 0, 1, 2,*, 90"])
    assert len([line for line in result.outlines if line.startswith("case ")]) == 91

    monkeypatch.delenv("POOLKIT_SWEEP")
    first = suite.runpytest_subprocess("-rP")
    (seed,) = {line.rpartition("=")[2] for line in first.outlines if line.startswith("sweeps: ")}
    cases = [line for line in first.outlines if line.startswith("case ")]
    assert 5 < len(cases) < 60
    monkeypatch.setenv("POOLKIT_SWEEP", seed)
    again = suite.runpytest_subprocess("-rP")
    assert [line for line in again.outlines if line.startswith("case ")] == cases


def test_tests_that_take_samples_can_be_selected(suite: pytest.Pytester) -> None:
    suite.runpytest_subprocess("-m", "sweep", "--co", "-q").stdout.fnmatch_lines(["*::test_sweeps", "*1/2 tests coll*"])


def test_all_cases_have_the_time_of_all(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.makepyfile(
        "def told(node): return [mark.args for mark in node.iter_markers('timeout')]\n"
        "def test_sweeps(sampled, request): assert told(request.node) == [(80.0,)]\n"
        "def test_plain(request): assert told(request.node) == []\n"
    )
    monkeypatch.setenv("POOLKIT_SWEEP", "all")
    suite.runpytest_subprocess("-o", "timeout=20").assert_outcomes(passed=2)
