"""A scripted host on which mount and umount change the scripted mount table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from poolkit.host import Result
from poolkit.host.mounts import Mount
from poolkit.testing import ScriptedHost


class MountingHost(ScriptedHost):
    """See the module's text; what is mounted gets the device number 0:99."""

    def change(self, argv: Sequence[str], **how: Any) -> Result:
        answer = super().change(argv, **how)
        self._mounting(list(argv))
        return answer

    def run_undo(self, argv: Sequence[str], **how: Any) -> None:
        super().run_undo(argv, **{name: value for name, value in how.items() if value is not None})
        self._mounting(list(argv))

    def ask_undo(self, argv: Sequence[str]) -> str:
        self.lines.append(f"<? {shlex.join(argv)}")
        return self._answer(argv, range(256), required=True).stdout

    def _mounting(self, argv: list[str]) -> None:
        if argv[0] == "mount":
            source, target = argv[-2:]
            kind = argv[argv.index("-t") + 1] if "-t" in argv else "none"
            kind = {"nfs": "nfs4", "glusterfs": "fuse.glusterfs"}.get(kind, kind)
            self.mount_table.append(Mount("0:99", "/", target, kind, source, "rw"))
        elif argv[0] == "umount":
            self.mount_table = [mount for mount in self.mount_table if mount.target != argv[-1]]


def undone(host: ScriptedHost) -> list[str]:
    """Take back what the journal has, by the real undo, and return the new lines."""
    from poolkit.host import rollback

    before = len(host.lines)
    for step in reversed(host.journal.steps):  # type: ignore[attr-defined]
        rollback.perform(step, host, set())
    return host.lines[before:]
