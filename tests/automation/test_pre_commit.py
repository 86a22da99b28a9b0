"""The hook for pre-commit, run by a real pre-commit: what the manual shows, in a repository of documents."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ..conftest import unavailable

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.tools("git")


def git(folder: Path, *words: str) -> str:
    """One git command, with nothing of the user's own settings."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what an installation of poolkit needs, and the hook."""
    if importlib.util.find_spec("pre_commit") is None:
        unavailable("needs pre-commit")
    place = tmp_path_factory.mktemp("hooks") / "poolkit"
    place.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("poolkit", "scripts"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, place)
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "all")
    return place


def configuration(hooks: Path) -> str:
    """What the manual shows, for the repository here."""
    (shown,) = re.findall(r"^```yaml\n(repos:\n.*?)^```$", (ROOT / "docs/automation.md").read_text(), re.M | re.S)
    text, count = re.subn(r"repo: \S+", f"repo: {hooks}", shown)
    assert count == 1
    return re.sub(r"rev: \S+", f"rev: {git(hooks, 'rev-parse', 'HEAD').strip()}", text)


def test_it_judges_the_documents_that_are_committed(tmp_path: Path, hooks: Path) -> None:
    (tmp_path / ".pre-commit-config.yaml").write_text(configuration(hooks))
    storage = tmp_path / "storage"
    storage.mkdir()
    shutil.copy(ROOT / "examples/xml/pool-netfs.xml", storage)
    shutil.copy(ROOT / "examples/xml/volume-qcow2.xml", storage)
    (tmp_path / "domain.xml").write_text("<domain type='kvm'/>\n")  # is no document of poolkit, and not in its folder
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")

    # The hook's environment gets poolkit alone, without the network: the rest is there as Python's path.
    environment = {
        **os.environ, "PRE_COMMIT_HOME": str(tmp_path / "cache"), "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    good = run()
    assert good.returncode == 0, good.stdout + good.stderr
    assert "validate storage documents" in good.stdout and "Passed" in good.stdout
    broken = storage / "pool-netfs.xml"
    broken.write_text(broken.read_text().replace("<target>", "<tagret>").replace("</target>", "</tagret>"))
    bad = run()
    assert bad.returncode == 1
    assert re.search(r"error: storage/pool-netfs\.xml:\d+:\d+: .*tagret.*did you mean 'target'", bad.stdout), bad.stdout
    assert "domain" not in bad.stdout + good.stdout
