"""The volume group of a pool on LVM: its facts, and the commands that it gets."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager

from poolkit import errors
from poolkit.families import blockdevice, lvm, lvmrefusals
from poolkit.families.lvm import Listing


class LvmCommands(blockdevice.BlockBackend):
    """The group ``vg`` as the machine, or one of several hosts, has it."""

    @property
    def vg(self) -> str:
        """The volume group; ``InvalidArgument`` for a name that LVM cannot have."""
        name: str = self.pool.source.name
        why = lvm.name_fault(name)
        if why:
            raise errors.InvalidArgument(
                f"'{name[:60]}' cannot be the name of a volume group: {why}", pool=self.pool.name
            )
        return name

    def found(self) -> lvm.Group | None:
        """The group, if it is there; ``Unsafe`` if two have its name."""
        return lvm.group(self.host, self.vg)

    def group(self) -> lvm.Group:
        """The facts of the group; ``HostError`` if there is none, ``Unsafe`` if two have its name."""
        found = self.found()
        if found is None:
            raise self.gone()
        return found

    def gone(self) -> errors.HostError:
        """The error for a group that does not exist here."""
        return errors.HostError(
            f"pool '{self.pool.name}': there is no volume group '{self.vg}'",
            pool=self.pool.name,
            hint=errors.Hint(
                "connect its devices; only if there never was one: ", errors.remedy("build", self.pool.name)
            ),
        )

    @property
    def config(self) -> tuple[str, ...]:
        """Words that every command on the group gets, such as ``--config`` and its value."""
        return ()

    def command(self, tool: str, *words: str) -> list[str]:
        """A command that changes the group or what is active of it."""
        return [tool, *self.config, *words]

    def undo_selection(self, **wanted: str) -> str:
        """The selection (lvmreport(7)) of what an undo is to change, which may run long afterwards."""
        return lvm.quoted(**wanted)

    def by_hand(self, tool: str, *words: str) -> str:
        """A command on the group, as an administrator can give it."""
        return shlex.join([tool, *words])

    def lost(self) -> str:
        """What to do where a device of the group is missing."""
        return lvmrefusals.connect(self.by_hand("vgreduce", "--removemissing", self.vg))

    def worded(self, volume: str | None = None) -> AbstractContextManager[None]:
        """LVM's refusals as errors of their own, in the body."""
        return lvmrefusals.worded(self.pool.name, volume, self.lost)

    def listing(self, *names: str, select: str = "") -> Listing:
        """The logical volumes of the group, or some of them; ``HostError`` if there is no such group."""
        try:
            return lvm.listing(self.host, self.vg, *names, select=select, more=self.config)
        except errors.ToolFailed as error:
            if f'Volume group "{self.vg}" not found' in error.stderr:
                raise self.gone() from error
            if "Multiple VGs found with the same name" in error.stderr:
                self.found()  # raises, with their UUIDs
            raise
