"""A volume group that hosts share, as one of them sees it: its lock, the commands that it gets, and whether all of it is here."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Sequence
from functools import cached_property

from poolkit import errors
from poolkit.families import lvm, lvmlocks, lvmrefusals
from poolkit.families.lvm import Listing
from poolkit.families.lvmgroups import LvmGroup

_AGAIN = 1.0  # seconds after which damaged metadata is read again: another host may have been writing it


class JointGroup(LvmGroup):
    """The group as its lock lets this host see and use it."""

    together = True

    @property
    def node(self) -> str:
        """The name of this host."""
        return self.host.node.name

    # -- the group and its lock ---------------------------------------------------------------------------------------

    def shared_group(self) -> lvmlocks.SharedGroup | None:
        """The group as it is now, whoever owns it."""
        return lvmlocks.group(self.host, self.vg)

    @cached_property
    def lock(self) -> str:
        """What keeps hosts apart, as the group records it; ``Unsafe`` where the definition says another one."""
        wanted, group = self.pool.source.lock, self.shared_group()
        if group is None:
            if wanted != "auto":
                return str(wanted)
            return "lvmlockd" if lvmlocks.lockspaces(self.host) is not None else "system-id"
        if group.lock_type not in ("", "none", "sanlock"):
            raise errors.Unsupported(
                f"pool '{self.pool.name}': the locks of the group '{self.vg}' are of type '{group.lock_type}', and poolkit knows "
                "those of sanlock alone", pool=self.pool.name,
                hint=f"stop the group on all hosts, and change it on one: vgchange --locktype sanlock {self.vg}",
            )  # fmt: skip
        have = group.lock
        if wanted == "auto" and have == "none":
            raise errors.Unsafe(
                f"pool '{self.pool.name}': nothing keeps the hosts of the group '{self.vg}' apart", pool=self.pool.name,
                hint="if that is meant: <lock type='none'/> in <source>; else make it a shared group: vgchange --locktype",
            )  # fmt: skip
        if wanted not in ("auto", have):
            raise errors.Unsafe(
                f"pool '{self.pool.name}': the group '{self.vg}' is under {have}, and the definition says {wanted}",
                pool=self.pool.name,
                hint=f"say in <source> what the group has: <lock type='{have}'/>; LVM changes the group itself, while it is used "
                "on no host (lvmlockd(8), lvmsystemid(7))",
            )
        if have == "system-id" and group.system_id != lvmlocks.system_id(self.pool.uuid):
            raise errors.Unsafe(
                f"pool '{self.pool.name}': the group '{self.vg}' belongs to '{group.system_id}', and this pool is "
                f"'{lvmlocks.system_id(self.pool.uuid)}'", pool=self.pool.name,
                hint="the pool has the same uuid on all hosts: write it into the definition",
            )  # fmt: skip
        return have

    @property
    def config(self) -> tuple[str, ...]:
        """How every command sees the group."""
        return lvmlocks.config(self.lock, str(self.pool.uuid))

    def command(self, tool: str, *words: str) -> list[str]:
        """A command on the group, if this host may give it."""
        compute = self.host.node.role == "compute"
        # A second guard, where LVM still has it: no metadata is written. It refuses a refresh as well, which writes none.
        guarded = compute and "--refresh" not in words
        config = lvmlocks.config(self.lock, str(self.pool.uuid), guarded=guarded)
        return lvmlocks.command(self.host.node, tool, words, config, self.pool.name)

    def found(self) -> lvm.Group | None:
        """The group as it is now, without the fields that only shared groups have."""
        group = self.shared_group()
        if group is None:
            return None
        return lvm.Group(
            group.name, group.uuid, group.size, group.free, group.extent, group.missing, group.volumes, group.devices,
            group.lost,
        )  # fmt: skip

    def gone(self) -> errors.HostError:
        """As for groups of one host, but for a device that belongs to a group which cannot be read."""
        return self.damage() or super().gone()

    def damage(self) -> errors.HostError | None:
        """The error for a device of the definition with a group that cannot be read, or is hidden here; None for none."""
        for path in self.devices:
            owner = lvm.owner(self.host, os.path.realpath(path))
            start = f"pool '{self.pool.name}': "
            if owner == lvm.UNKNOWN:
                return errors.HostError(
                    f"{start}the metadata of a volume group on '{path}' is damaged, and no other device has "
                    f"that of '{self.vg}'", pool=self.pool.name,
                    # vgcfgrestore finds no place to write to where all copies are damaged.
                    hint="connect the other devices of the group; if it has none, write its metadata anew from a copy, on one "
                    f"host while it is used on no other, on each device: pvck --repair --file COPY {shlex.quote(path)}",
                )  # fmt: skip
            if owner == self.vg:
                return errors.HostError(
                    f"{start}the volume group '{self.vg}' is on '{path}', at which LVM of this host does not look",
                    pool=self.pool.name,
                    hint=f"take each of its devices into LVM's devices file: lvmdevices --adddev {shlex.quote(path)}; without "
                    "such a file the filter of lvm.conf(5) leaves them out",
                )
        return None

    def listing(self, *names: str, select: str = "") -> Listing:
        """As for groups of one host; read again where another host may have been writing."""
        try:
            return super().listing(*names, select=select)
        except errors.PoolkitError as error:
            failed = error.__cause__ if isinstance(error.__cause__, errors.ToolFailed) else error
            for _ in lvmlocks.again(failed.stderr if isinstance(failed, errors.ToolFailed) else ""):
                with contextlib.suppress(errors.PoolkitError):
                    return super().listing(*names, select=select)
            raise

    def by_hand(self, tool: str, *words: str) -> str:
        """With the words without which LVM does not see the group, or not all of it."""
        return super().by_hand(tool, "--config", lvmlocks.by_hand(self.lock, str(self.pool.uuid)), *words)

    def require_whole(self) -> None:
        """Raise ``HostError`` where the group is not all here.

        LVM refuses some changes then and makes others, such as those of tags, and each shuts the device out for all hosts, also
        for those that have it, until somebody takes it in again.
        """
        group = self.shared_group()
        if group is not None and group.damaged:
            time.sleep(_AGAIN)
            group = lvmlocks.group(self.host, self.vg, anew=True)
        if group is None:
            return
        start = f"pool '{self.pool.name}': "
        if group.left_out:
            raise errors.HostError(
                f"{start}{_listed(group.left_out)} of '{self.vg}' is shut out, because the group was changed on a host that did "
                "not have it", pool=self.pool.name,
                hint=f"take it in again, on one host: {self.by_hand('vgextend', '--restoremissing', self.vg, *group.left_out)}",
            )  # fmt: skip
        if group.missing:
            raise errors.HostError(
                f"{start}{group.missing} of the {len(group.devices)} devices of '{self.vg}' "
                f"{'is' if group.missing == 1 else 'are'} missing here", pool=self.pool.name, hint=self.lost(),
            )  # fmt: skip
        if group.damaged:
            mend = self.by_hand("vgck", "--updatemetadata", self.vg)
            raise errors.HostError(
                f"{start}the copy of the metadata of '{self.vg}' on {_listed(group.damaged)} is damaged, so something else wrote "
                "there", pool=self.pool.name,
                hint=f"write it anew, on one host: {mend}; once more if LVM says that "
                "it does not repair it (2.03.16 may say so the first time), and if it still does: pvck(8), \"repair\"",
            )  # fmt: skip

    def check_guard(self) -> None:
        """Warn where LVM does not refuse to write metadata when it is told to: then only the closed list of commands does.

        The write that is tried is one of LVM's own dry run, so that nothing happens where it is not refused.
        """
        if self.host.node.role != "compute" or self.lock == "lvmlockd":
            return
        argv = self.command("vgchange", "--test", "--addtag", lvmlocks.TAG, "--", self.vg)
        tried = self.host.query(argv, ok=(0, 5))
        if tried.status and "--readonly" not in tried.stderr:
            self.host.warn(
                f"whether LVM here refuses to write the metadata of '{self.vg}' when it is told to could not be tried: "
                f"{lvmrefusals.sentence(tried.stderr)}"
            )
        if tried.status == 0:
            self.host.warn(
                f"LVM here would write the metadata of '{self.vg}' although it is told not to (locking_type=4): on this compute "
                "node nothing but poolkit's own list of commands keeps it from that"
            )


def _listed(paths: Sequence[str]) -> str:
    return " and ".join(f"'{path}'" for path in paths)
