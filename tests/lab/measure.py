"""Coverage across the border: the guest measures what the outer run measures, with the same settings.

The source tree has the same path on both sides, so the data needs no mapping. It is put beside the outer run's own
data file as one more parallel file, which ``coverage combine`` (and pytest-cov by itself) takes up.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from pathlib import Path

SETTINGS = ("branch", "source", "source_pkgs", "include", "omit", "concurrency", "patch")


class Measure:
    """The settings and the data file of the outer run's measurement."""

    def __init__(self, settings: dict[str, object], data_file: Path) -> None:
        self.settings = settings
        self.data_file = data_file

    @classmethod
    def current(cls) -> Measure | None:
        """The measurement that is going on in this process, started by pytest-cov or by ``coverage run``."""
        coverage = sys.modules.get("coverage")
        running = coverage.Coverage.current() if coverage else None
        if running is None:
            return None
        settings = {}
        for name in SETTINGS:
            try:
                settings[name] = running.get_option(f"run:{name}")
            except Exception:
                continue
        return cls(settings, Path(os.path.abspath(running.config.data_file)))

    def arguments(self, share: Path) -> list[str]:
        """Words for the guest's python3, whose data goes to its memory: SQLite's files do not live well on 9p."""
        lines = ["[run]", "parallel = true", "data_file = /tmp/coverage/data"]
        for name, value in self.settings.items():
            if isinstance(value, (list, tuple)):
                if value:
                    lines += [f"{name} =", *(f"    {entry}" for entry in value)]
            elif value is not None:
                lines.append(f"{name} = {value}")
        (share / "coveragerc").write_text("\n".join(lines) + "\n")
        return ["-m", "coverage", "run", "--rcfile=/lab/coveragerc"]

    def fetch(self, folder: Path) -> int:
        """Put the guest's data files beside the outer run's; returns how many there were."""
        files = list(folder.glob("data*"))
        for found in files:
            target = self.data_file.with_name(f"{self.data_file.name}.lab.{os.getpid()}.{uuid.uuid4().hex[:12]}")
            shutil.copyfile(found, target)
            found.unlink()
        return len(files)
