"""What every test of the project shares: the tiers, and what happens where a tier's means are missing.

* ``@pytest.mark.tools("qemu-img", ...)``: the test needs these programs.
* ``@pytest.mark.root``: the test needs root on the machine it runs on.
* ``@pytest.mark.lab``: the test runs inside the lab's virtual machine (tests/lab/README.md).

Where the means are missing the test is skipped with a sentence that names them. With ``CI=true`` in the environment it
fails instead: a continuous integration that skips a tier would report green for what it never ran.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

# Images of containers like to forbid byte code. Each command and each helper process that a test starts, hundreds of them, would
# compile the package anew, which costs as much again as all that it does; and each run of pytest would rewrite all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test measures time, and a busy machine makes neither a slow example nor a slow choice of one a fault.
settings.register_profile("poolkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("poolkit")

pytest_plugins = ["tests.lab.plugin", "tests.sweep", "tests.xapi", "pytester"]

if TYPE_CHECKING:
    from poolkit.engine import Engine
    from tests.ceph import Cluster

# A user's PATH often lacks the folders of mkfs, lvm and parted; the host port looks there as well.
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
)


def unavailable(reason: str) -> None:
    """Skip the test with ``reason``, or fail it where nothing may be skipped (``CI=true``)."""
    __tracebackhide__ = True
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true: this may not be skipped)", pytrace=False)
    pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    """Only a process that a test forks ends by ``os._exit``: a fault that ends the run so must not make it green."""
    really, run = os._exit, os.getpid()
    capture = config.pluginmanager.getplugin("capturemanager")

    def end(status: int) -> NoReturn:
        if os.getpid() == run:
            if capture is not None:
                capture.suspend_global_capture()
            os.write(2, b"the run of the tests was ended by os._exit\n")
            status = status or 70
        really(status)

    os._exit = end


@pytest.fixture(autouse=True, scope="session")
def _quick_passphrases() -> None:
    """No test tries passphrases, but dozens of encrypted images are made and opened: two seconds of processor each time."""
    from poolkit.content import images

    images.UNLOCKING = 10


@pytest.fixture(autouse=True)
def _files_of_state_are_closed() -> Iterator[None]:
    """A test may leave an engine open: from Python 3.13 on a connection of SQLite that nobody closes is told of, as late as the
    collector finds it, in some other test.
    """
    from poolkit.state.database import Database

    made: list[Database] = []
    really = Database.__init__

    def init(database: Database, *how: Any, **more: Any) -> None:
        really(database, *how, **more)
        made.append(database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "__init__", init)
        yield
    for database in made:
        database.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ask for the means a test's markers name, before any of its fixtures is set up."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        unavailable("needs root")
    for marker in item.iter_markers("tools"):
        missing = [name for name in marker.args if not shutil.which(name, path=SEARCH_PATH)]
        if missing:
            unavailable(f"needs {', '.join(missing)}")


def tier(reason: str) -> str | None:
    """The tier a skip reason belongs to; None for a skip that a test decided for reasons of its own."""
    match = re.match(r"(?:Skipped: )?needs (root|the lab|.*)", reason)
    if match is None:
        return None
    return {"root": "root", "the lab": "lab"}.get(match[1], f"tools ({match[1]})")


def inapplicable(report: object) -> str | None:
    """What the contract of backends does not ask of a pool type, if that is why the test was skipped: no means are missing."""
    where = getattr(report, "longrepr", None)
    match = re.match(r"Skipped: not applicable: (.*)", where[2]) if isinstance(where, tuple) else None
    return match[1] if match else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say by name and count which tiers did not run: a skip must not hide in a line of dots."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple) and (name := tier(report.longrepr[2])):
            counts[name] += 1
    if counts:
        terminalreporter.section("skipped tiers")
        for name, count in sorted(counts.items()):
            terminalreporter.write_line(f"{name}: {count} test{'s' if count > 1 else ''} skipped")
    not_asked = Counter(
        reason for report in terminalreporter.stats.get("skipped", []) if (reason := inapplicable(report))
    )
    if not_asked:
        terminalreporter.section("not applicable")
        for name, count in sorted(not_asked.items()):
            terminalreporter.write_line(f"{name}: {count} test{'s' if count > 1 else ''} of the contract")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine whose files are all below the test's own folder."""
    from poolkit.engine import Engine

    with Engine(tmp_path / "root") as engine:
        yield engine


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Ceph cluster with the pool ``rbd``, for all tests of this process that need one; they have their own places in it."""
    from tests.ceph import Cluster

    cluster = Cluster()
    try:
        cluster.make_pool("rbd")
        cluster.statistics("rbd")
        yield cluster
    finally:
        cluster.close()
