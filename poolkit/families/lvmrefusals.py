"""LVM's refusals as errors of their own, and the words of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from poolkit import errors


@contextlib.contextmanager
def worded(pool: str, volume: str | None, lost: Callable[[], str]) -> Iterator[None]:
    """Turn LVM's refusals that callers tell apart into their own errors: no space, name taken, in use.

    ``lost`` says what to do where a device is missing.
    """
    try:
        yield
    except errors.ToolFailed as error:
        said = error.stderr
        facts: dict[str, Any] = {"pool": pool, "volume": volume}
        if "nsufficient" in said and ("free space" in said or "extents" in said):
            raise errors.NoSpace(f"pool '{pool}': {sentence(said)}", **facts) from error
        if target := re.search(r"(\S+): Required device-mapper target\(s\) not detected", said):
            # In a container, or with a kernel made for one: libdevmapper then knows no version of the driver.
            none = "(unknown version)" in said or "communicate with kernel device-mapper" in said
            raise errors.HostError(
                f"pool '{pool}': the kernel has no device mapper" + ("" if none else f" for '{target[1]}'"),
                pool=pool, volume=volume, hint=f"load it: modprobe {'dm_mod' if none else _module(target[1])}",
            ) from error  # fmt: skip
        if "already exists in volume group" in said and volume is not None:
            raise errors.VolumeExists(f"pool '{pool}' has a volume '{volume}' already", **facts) from error
        if "already locked with incompatible mode" in said:
            raise errors.Busy(
                f"pool '{pool}': volume '{volume}' is attached to this host otherwise than it is to be", pool=pool, volume=volume,
                hint="detach it first",
            ) from error  # fmt: skip
        # "Failed to lock" is also said where the lock could not be asked for.
        held = re.search(r"locked by other host|Failed to lock (logical volume|origin LV)", said)
        if held and not re.search(r"LV \S+ lock failed: ", said):
            raise errors.HeldElsewhere(f"pool '{pool}': {sentence(said)}", **facts) from error
        if re.search(r"Lockspace (for \S+ )?not stopped", said):
            raise errors.Busy(
                f"pool '{pool}': another host has the locks of its volume group", pool=pool,
                hint=errors.Hint(
                    "stop the pool on all other hosts: ", errors.remedy("destroy", pool),
                    "; one that died keeps them for about three minutes",
                ),
            ) from error  # fmt: skip
        if lockless := _LOCKLESS.search(said):
            line = next(line for line in said.splitlines() if lockless[0] in line)
            told = said if "WARNING" in line else line
            raise errors.LockUnavailable(f"pool '{pool}': {sentence(told)}", **facts, hint=_lock_hint(said)) from error
        partial = "Refusing activation of partial LV" in said
        if partial or "while PVs are missing" in said:
            what = f"volume '{volume}' cannot be activated" if partial else "its volume group cannot be changed"
            raise errors.HostError(
                f"pool '{pool}': {what} while {missing_words(_NOT_FOUND.findall(said))} missing",
                pool=pool, volume=volume, hint=lost(),
            ) from error  # fmt: skip
        if re.search(r"\bin use\b|is used by another device|contains a filesystem in use", said):
            raise errors.Busy(f"pool '{pool}': {sentence(said)}", **facts) from error
        raise


# lib/locking/lvmlockd.c: "VG vg lock failed: held by other host.", "Global lock failed: check that global lockspace is started"
_LOCKLESS = re.compile(r"lockspace|lvmlockd|lock (start|manager)|(VG|Global|LV)( \S+)? lock failed")


def _lock_hint(said: str) -> str:
    if "held by other host" in said:
        return "another host is changing the group: try again"
    if "global lockspace" in said:
        return (
            "start the pool whose group has the global lock of LVM; if there is none any more, give it to one whose locks are "
            "started, on one host: lvmlockctl --gl-enable GROUP"
        )
    return (
        "what lvmlockd and sanlock say: lvmlockctl --info, sanlock client status; host_id in lvmlocal.conf has to be a number of "
        "this host alone"
    )


_NOT_FOUND = re.compile(r"Couldn't find device with uuid ([A-Za-z0-9-]+)")


def connect(remove: str = "vgreduce --removemissing") -> str:
    """What to do where a device is missing; ``remove`` is the command that takes it out of the group."""
    return (
        f"connect that device; if it is lost for good, {remove} takes it out of the group, and with --force "
        "all volumes that had data on it, too"
    )


CONNECT = connect()


def missing_words(uuids: Sequence[str]) -> str:
    """Physical volumes that are not there, by UUID, as the subject of "missing" with its verb."""
    found = list(dict.fromkeys(uuids))
    if not found:
        return "a physical volume is"
    return f"the physical volume {found[0]} is" if len(found) == 1 else f"the physical volumes {', '.join(found)} are"


def sentence(said: str) -> str:
    """The last line of what LVM said that is no warning, without its full stop."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith("WARNING")]
    return lines[-1].rstrip(".")[:300] if lines else "LVM refused"


def _module(target: str) -> str:
    """The kernel's module with a target of the device mapper, by the name that LVM has for it."""
    thin, raid = target.startswith("thin"), target.startswith(("raid", "mirror"))
    return "dm_thin_pool" if thin else "dm_raid" if raid else f"dm_{target}"
