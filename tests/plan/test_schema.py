"""The JSON Schema of plans; that every plan of these tests is as it says is seen to in conftest.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from poolkit.schemas import plan_schema

from .conftest import World


def judge(value: Any) -> None:
    jsonschema.validate(value, json.loads(plan_schema()), jsonschema.Draft202012Validator)


@pytest.fixture
def facts(world: World) -> dict[str, Any]:
    """A plan with one pool to add and one volume."""
    world.pool("images")
    world.volume("images", "a")
    return world.plan().as_dict()


def test_what_the_command_prints_is_judged(world: World, facts: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "poolkit", "--root", str(world.root), "plan", "--json", str(world.documents)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    judge(json.loads(done.stdout))
    assert json.loads(done.stdout) == json.loads(json.dumps(facts))
    command[-3:] = ["schema", "--document", "plan"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == plan_schema()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2), (["entries", 0, "action"], "make"), (["entries", 0, "kind"], "volume"), (["entries", 1, "pool"], None),
        (["entries", 0, "action"], "none"), (["entries", 0, "steps"], []), (["entries", 1, "after", 0], "images"),
        (["entries", 0, "changes", 0, "when"], "later"), (["entries", 0, "changes", 0, "new"], []), (["entries", 0, "more"], 1),
        (["entries", 0, "needs"], ["force"]),
    ],
)  # fmt: skip
def test_it_says_no_to_what_is_no_plan(facts: dict[str, Any], path: list[Any], value: Any) -> None:
    bad = json.loads(json.dumps(facts))
    judge(bad)
    at = bad
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        judge(bad)


def test_the_example_of_a_repository_can_be_planned(world: World) -> None:
    examples = Path(__file__).parents[2] / "examples" / "storage"
    plan = world.engine.plan([examples / "common", examples / "web1"])
    assert {(e.action, e.ident) for e in plan.entries} == {
        ("add", "flavor standard"), ("none", "secret ceph client.old"), ("add", "pool images"), ("add", "pool machines"),
        ("add", "volume images/debian"), ("add", "volume machines/web1"), ("remove", "volume machines/scratch"),
    }  # fmt: skip
