"""What the tests of xensm pools stand on: an engine that knows the login, and a session of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit.engine import Engine
from poolkit.families.xapi.client import Api
from tests.xapi import Xapi

from . import prepare
from .server import calls


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the engine keeps its own."""
    return tmp_path / "root"


@pytest.fixture
def engine(root: Path, xapi: Any) -> Iterator[Engine]:
    """An engine with the secret of the login; what a test let go wrong is right again when it is closed."""
    with Engine(root) as engine:
        prepare(engine, xapi)
        yield engine
        if isinstance(xapi, Xapi):
            xapi.control("clear")


@pytest.fixture
def api(xapi: Any) -> Iterator[Api]:
    """A session at the hosts."""
    with calls(xapi) as api:
        yield api
