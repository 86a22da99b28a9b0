"""What systemd starts by itself, as its folders say it; systemd is not asked, so this works in an image as well."""

from __future__ import annotations

import os
from collections.abc import Iterator

from poolkit.host import kernel

# systemd.unit(5), "Unit File Load Path": the first file of a name counts.
SYSTEM = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
    "/lib/systemd/system",
)  # fmt: skip
USER = (
    "/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
)  # fmt: skip


def enabled(*, user: bool = False) -> Iterator[tuple[str, str]]:
    """Name and text of every service that another unit wants or requires; ``user``: those of the user's own systemd.

    A masked service has no text.
    """
    folders: tuple[str, ...] = SYSTEM
    if user:
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        folders = (f"{config}/systemd/user", *USER)
    seen = set()
    for folder in folders:
        for wanting in kernel.names(folder):
            if not wanting.endswith((".wants", ".requires")):
                continue
            for unit in kernel.names(f"{folder}/{wanting}"):
                if unit.endswith(".service") and unit not in seen:
                    seen.add(unit)
                    # An instance (name@x.service) is described by its template.
                    names = (unit, unit.partition("@")[0] + "@.service") if "@" in unit else (unit,)
                    yield unit, _text(folders, names)


def _text(folders: tuple[str, ...], names: tuple[str, ...]) -> str:
    for folder in folders:
        for name in names:
            if os.path.exists(path := f"{folder}/{name}"):
                return kernel.text(path).replace("\\\n", " ")
    return ""
