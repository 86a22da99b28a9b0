"""The option --regen, and where the documents are."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden files anew: pytest tests/xml --regen")


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    # Without this directory on the command line the option is not registered.
    return bool(request.config.getoption("--regen", default=False))
