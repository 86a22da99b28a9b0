"""A scripted host on which mount and umount change the scripted mount table."""

from __future__ import annotations

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

    def _mounting(self, argv: list[str]) -> None:
        if argv[0] == "mount":
            source, target = argv[-2:]
            kind = argv[argv.index("-t") + 1] if "-t" in argv else "none"
            kind = {"nfs": "nfs4", "glusterfs": "fuse.glusterfs"}.get(kind, kind)
            self.mount_table.append(Mount("0:99", "/", target, kind, source, "rw"))
        elif argv[0] == "umount":
            self.mount_table = [mount for mount in self.mount_table if mount.target != argv[-1]]
