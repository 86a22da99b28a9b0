"""What a wheel has beside the package: manual pages and completion files, written from the table of verbs as it is built.

Hatchling runs this for every wheel, in an environment that has nothing but itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "bash": "share/bash-completion/completions/poolkit",
    "zsh": "share/zsh/site-functions/_poolkit",
    "fish": "share/fish/vendor_completions.d/poolkit.fish",
}


def written(root: Path, version: str, folder: Path) -> dict[str, str]:
    """Write all files into ``folder``: from each to its place below the prefix of an installation."""
    sys.path.insert(0, str(root))
    try:
        from poolkit.cli.manual import pages
        from poolkit.cli.shell import SCRIPTS
    finally:
        sys.path.remove(str(root))
    folder.mkdir(parents=True, exist_ok=True)
    places = {}
    for name, text in pages(version).items():
        (folder / name).write_text(text, encoding="utf-8")
        places[str(folder / name)] = f"share/man/man1/{name}"
    for shell, place in COMPLETIONS.items():
        (folder / f"poolkit.{shell}").write_text(SCRIPTS[shell], encoding="utf-8")
        places[str(folder / f"poolkit.{shell}")] = place
    return places


class WheelData(BuildHookInterface):  # type: ignore[misc]
    """Adds the files to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        root = Path(self.root)
        folder = root / ".cache" / "wheel-data"
        build_data["shared_data"].update(written(root, self.metadata.version, folder))
