"""The disks (VDIs) of a repository: listing, finding, making, changing.

Nothing in XenAPI makes labels unique. So who makes a disk claims its label first, by a key in the SR's other-config. A disk
that is not finished has a key in its own other-config; it is in no listing, and by that key it is found to be taken back.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from secrets import token_hex
from typing import Any

from poolkit import errors
from poolkit.backend import Mark, Usage, VolumeInfo
from poolkit.families.xapi import marks, naming, probing, srtypes
from poolkit.families.xapi.client import NULL, Api
from poolkit.families.xapi.failures import Failed, gone
from poolkit.families.xapi.line import Address
from poolkit.families.xapi.marks import NEW, shown
from poolkit.families.xapi.records import Record, Unusable
from poolkit.families.xapi.repositories import Repository
from poolkit.families.xapi.transfer import Moving
from poolkit.families.xapi.wire import unhindered
from poolkit.host.undo import Undo

CLAIM = "poolkit-name-"
"""Begin of the keys of an SR that claim a label; a part of the label's digest and the claim's own token follow."""
STALE = 10.0
"""Seconds after which the claim of another one, who died with it, is let go of: it is held for a few calls."""

Fill = Callable[[str, Record], object]
"""What puts the content into a new disk, given its reference and record."""


class Disks:
    """The disks of one SR. ``undo`` makes an undo step of words and plain values."""

    def __init__(self, api: Api, repository: Repository, pool: str, undo: Callable[..., Undo]) -> None:
        self.api = api
        self.host = api.host
        self.repository = repository
        self.pool = pool
        self.undo = undo

    # -- looking ----------------------------------------------------------------------------------------------------

    def scan(self) -> Repository:
        """Let a host look what is on the storage; the SR as it is then. ``InvalidState`` if none has it plugged."""
        ref = self.repository.ref
        self.api.run("SR.scan", ref, what="scan the repository")
        self.repository = Repository(ref, self.api.record("SR", ref))
        return self.repository

    def usage(self) -> Usage:
        """The sizes of the SR; what the hosts do not know is 0."""
        record = self.repository.record
        size, used = max(0, record["physical_size"]), max(0, record["physical_utilisation"])
        return Usage(size, min(used, size), max(0, size - used))

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        """All disks, of one call; what is as it was known comes as the same object.

        One of which the hosts say what cannot be is listed with that as its error; where they do not even say whose it is,
        or what it is called, a warning tells of it.
        """
        with unhindered():
            found = self._listed(known)  # the records end with it, before garbage is looked for again
        yield from found

    def _listed(self, known: Mapping[str, VolumeInfo]) -> list[VolumeInfo]:
        vbds, everything = self.api.records("VBD"), self.api.usable("VDI", "SR", *marks.SHOWN, "name_label")
        records = [one for one in everything.values() if one["SR"] == self.repository.ref and shown(one)]
        found = []
        for name, record in zip(naming.names(records), records, strict=True):
            try:
                info = self.info(name, record, vbds)
            except Unusable as error:
                info = self._unread(name, record, str(error))
            old = known.get(name)
            found.append(old if old is not None and old == info else info)
        return found

    def _unread(self, name: str, record: Record, why: str) -> VolumeInfo:
        uuid = record["uuid"]
        path = f"{self.repository.uuid}/{uuid}"
        detail = {"error": why.removeprefix(f"pool '{self.pool}': "), "unread": True}
        return VolumeInfo(name, "network", "raw", key=uuid, path=path, detail=detail)

    def info(self, name: str, record: Record, vbds: Mapping[str, Record] | None = None) -> VolumeInfo:
        """A disk as a volume; ``vbds`` are all that there are, where they were asked for already."""
        uuid = record["uuid"]
        detail: dict[str, Any] = {}
        if record["VBDs"]:
            vbds = self.api.records("VBD") if vbds is None else vbds
            mine = [vbds[ref] for ref in record["VBDs"] if ref in vbds]
            detail["connections"] = sorted(vbd["uuid"] for vbd in mine)
            detail["plugged"] = sorted(vbd["uuid"] for vbd in mine if vbd["currently_attached"])
        if record["is_a_snapshot"]:
            detail["snapshot"] = True
        if record["missing"]:
            detail["error"] = "the repository does not find it any more"
        if parent := record["sm_config"].get("vhd-parent"):
            detail["parent"] = parent
        closed = record["read_only"] or record["is_a_snapshot"]
        size, used = record["virtual_size"], record["physical_utilisation"]
        return VolumeInfo(
            name, "network", "raw", max(0, size), max(0, used), mode=0o400 if closed else 0o600, key=uuid,
            path=f"{self.repository.uuid}/{uuid}", detail=detail or None,
        )  # fmt: skip

    def look(self, name: str, known: VolumeInfo | None) -> VolumeInfo:
        """One disk as it is now."""
        label = naming.label(name, self.pool)
        found = [one for one in self._labelled(label) if shown(one)]
        if len(found) > 1 and known is not None:
            found = [one for one in found if one["uuid"] == known.key]
        if not found and (parts := naming.twin(name)):
            twins = self._labelled(naming.label(parts[0], self.pool))
            found = [one for one in twins if shown(one) and one["uuid"].startswith(parts[1])]
        if not found:
            found = [one for one in self._unlabelled(name) if shown(one)]
        if (
            not found and known is not None and name.startswith(str(known.key))
        ):  # as names() calls it for lack of others
            found = [one for one in self._called(str(known.key)) if shown(one)]
        if len(found) != 1:
            raise self._missing(name, found)
        return self.info(name, found[0])

    def _labelled(self, label: str) -> list[Record]:
        return [one for one in marks.labelled(self.api, label) if one["SR"] == self.repository.ref]

    def _unlabelled(self, uuid: str) -> list[Record]:
        """The disk that is called by its uuid, since its label is no name."""
        return [one for one in self._called(uuid) if not naming.spelled(one["name_label"])]

    def _called(self, uuid: str) -> list[Record]:
        """The disk with that uuid, or none."""
        found: list[Record] = []
        with gone():
            found.append(self.api.record("VDI", self.api.ref("VDI.get_by_uuid", uuid)))
        return [one for one in found if one["SR"] == self.repository.ref]

    def _missing(self, name: str, found: Sequence[Record]) -> errors.PoolkitError:
        if not found:
            return errors.VolumeNotFound(
                f"pool '{self.pool}' has no volume '{name}'", pool=self.pool, volume=name
            )  # fmt: skip
        return errors.InvalidState(
            f"pool '{self.pool}' has {len(found)} disks that are called '{name}'", pool=self.pool, volume=name,
            hint=errors.Hint("list them anew, each gets a name of its own: ", errors.remedy("refresh", self.pool)),
        )  # fmt: skip

    def same(self, info: VolumeInfo) -> tuple[str, Record]:
        """Reference and record of the disk that was listed, by its uuid; ``Unsafe`` where another one has its name now."""
        with gone():
            ref = self.api.ref("VDI.get_by_uuid", info.key)
            record = self.api.record("VDI", ref)
            if record["SR"] == self.repository.ref and record["managed"]:
                return ref, record
        if any(shown(one) for one in self._labelled(naming.label(info.name, self.pool))):
            raise errors.Unsafe(
                f"the disk '{info.name}' was replaced since it was listed; it was left alone", pool=self.pool,
                volume=info.name, hint=errors.Hint("list it anew: ", errors.remedy("refresh", self.pool)),
            )  # fmt: skip
        raise self._missing(info.name, [])

    def moving(self, uuid: str, name: str) -> Moving:
        """The bytes of a disk, at a host that has the SR plugged."""
        address = None
        if not self.repository.record["shared"]:
            address = self._holder()
        return Moving(self.api, uuid, name, address)

    def _holder(self) -> Address | None:
        """The host of an SR that is not shared; None where the host that is asked will do."""
        port = self.api.port
        for ref in self.repository.record["PBDs"] if port and self.api.place.follow else ():
            with gone():
                pbd = self.api.record("PBD", ref)
                if pbd["currently_attached"]:
                    return Address(self.api.ref("host.get_address", pbd["host"]), port)
        return None

    # -- making -----------------------------------------------------------------------------------------------------

    def make(self, name: str, size: int, fill: Fill | None = None, mark: Mark | None = None) -> VolumeInfo | None:
        """Make a disk of at least ``size`` bytes; it is in a listing when it is whole. None in a dry run."""
        label, token = naming.label(name, self.pool), token_hex(8)
        undo = self.undo(f"remove the new disk {name}", "new", name, token)
        if not self.host.step(f"create disk {name} of {size} bytes", undo):
            return None
        record = {
            "name_label": label, "name_description": "", "SR": self.repository.ref, "virtual_size": size, "type": "user",
            "sharable": False, "read_only": False, "other_config": {NEW + token: "", **marks.given(mark, label)},
            "xenstore_data": {}, "sm_config": {}, "tags": [],
        }  # fmt: skip
        with self._claimed(name, label, token):
            self.host.files.fault("make the disk")
            ref = self.api.run("VDI.create", record, what=f"create {name}")
        made = self.api.record("VDI", ref)
        if self.repository.kind == "lun":
            which = made["sm_config"].get("SCSIid") or made["location"]
            self.host.warn(f"volume '{name}' is a LUN that was there already ({which})" + _OLD * (fill is None))
        if fill is not None:
            fill(ref, made)
        return self._finish(name, ref, token)

    def branch(
        self, name: str, info: VolumeInfo, *, snapshot: bool = False, size: int = 0, mark: Mark | None = None
    ) -> VolumeInfo | None:
        """Make a disk, or with ``snapshot`` a snapshot, that shares the data of a disk. None in a dry run."""
        self._require_branches(info)
        label, token = naming.label(name, self.pool), token_hex(8)
        undo = self.undo(f"remove the new disk {name}", "new", name, token)
        what = "snapshot" if snapshot else "clone"
        if not self.host.step(f"make {what} {name} of {info.name}", undo):
            return None
        source, record = self.same(info)
        self.api.call("VDI.add_to_other_config", source, NEW + token, record["uuid"])
        with self._claimed(name, label, token):
            self.host.files.fault(f"make the {what}")
            ref = self.api.run(f"VDI.{what}", source, {}, what=f"{what} {info.name}")
            self.api.call("VDI.set_name_label", ref, label)
        if mark is not None or marks.FLAVOR in record["other_config"]:
            marks.inherited(self.api, ref, mark, label)
        self.host.files.fault("unmark the source")
        self.api.call("VDI.remove_from_other_config", source, NEW + token)
        if size > record["virtual_size"]:
            self.api.run("VDI.resize", ref, size, what=f"resize {name}")
        return self._finish(name, ref, token)

    def _require_branches(self, info: VolumeInfo) -> None:
        """Refuse what the type, or the disk's own format, cannot do, before anything is tried."""
        repository = self.repository
        able = probing.features(self.api, repository.type)
        if not {"VDI_CLONE", "VDI_SNAPSHOT"} <= able:
            raise errors.Unsupported(
                f"pool '{self.pool}': pools of type 'xensm' on repositories of type '{repository.type}' have no "
                "copy-on-write: disks share no data", pool=self.pool, volume=info.name, hint="copy the volume",
            )  # fmt: skip
        _, record = self.same(info)
        if record["sm_config"].get("type") == "raw":
            raise errors.Unsupported(
                f"volume '{info.name}' is a raw logical volume, of which there are no snapshots and clones", pool=self.pool,
                volume=info.name, hint="copy the volume",
            )  # fmt: skip

    def _finish(self, name: str, ref: str, token: str) -> VolumeInfo:
        uuid = self.api.ref("VDI.get_uuid", ref)
        self.host.step(f"show disk {name}", self.undo(f"remove the new disk {name}", "made", name, uuid))
        self.api.call("VDI.remove_from_other_config", ref, NEW + token)
        return self.info(name, self.api.record("VDI", ref))

    @contextlib.contextmanager
    def _claimed(self, name: str, label: str, token: str) -> Iterator[None]:
        """The body may give ``label`` to a disk: nobody has it, and nobody else gets it meanwhile."""
        claim = self._claim(label, token, name)
        try:
            if any(one["managed"] for one in self._labelled(label)):
                raise errors.VolumeExists(
                    f"pool '{self.pool}' has a volume '{name}' already", pool=self.pool, volume=name
                )
            yield
        except BaseException:
            with self.api.deaf(), contextlib.suppress(Failed, errors.PoolkitError):
                self._release(claim)
            raise
        self._release(claim)

    def _claim(self, label: str, token: str, name: str) -> str:
        """Have the only claim of a label; its key. Each is a key of its own, so that who removes one never removes another's,
        and also where somebody claims again: who looks seldom must not take that for one claim that has been there all the time.

        Who has added its key and sees no other one then has the label: of two that both did, the later to look sees both.
        Who sees another takes its own away and waits; a claim that has been there for ``STALE`` is removed by anyone, who then
        waits for what its maker may have under way.
        """
        sr, begin, seen, broken = self.repository.ref, _claim(label), dict[str, float](), False
        mine = ""
        while True:
            if not seen:
                mine = f"{begin}-{token}-{token_hex(4)}"
                self.api.call("SR.add_to_other_config", sr, mine, token)
            now, config = time.monotonic(), self.api.mapping("SR.get_other_config", sr)
            others = [key for key in config if key.startswith(begin) and key != mine]
            if not others and not seen:
                if broken:
                    self.api.settle(*_MAKING)
                return mine
            if not seen:
                self._release(mine)
            seen = {key: seen.get(key, now) for key in others}
            for key in [key for key, since in seen.items() if now - since > STALE]:
                self.host.warn(f"somebody who was to make volume '{name}' has not come back; it is made all the same")
                self.api.call("SR.remove_from_other_config", sr, key)
                del seen[key]
                broken = True
            self.host.abort.wait(random.uniform(0.05, 0.2))  # noqa: S311 - only not in step with another one that waits
            self.host.check_abort()

    def _release(self, claim: str) -> None:
        self.api.call("SR.remove_from_other_config", self.repository.ref, claim)

    # -- changing ---------------------------------------------------------------------------------------------------

    def copied_from(self, source: VolumeInfo) -> Fill:
        """What copies a disk of the same hosts into a new one, there."""

        def fill(ref: str, record: Record) -> None:
            self.host.files.fault("copy the disk")
            origin = self.api.ref("VDI.get_by_uuid", source.key)
            self.api.run("VDI.copy", origin, NULL, NULL, ref, what=f"copy {source.name}")

        return fill

    def filled(self, name: str, fd: int, length: int) -> Fill:
        """What writes ``length`` bytes of an open file into a new disk, and zeros over the rest of one that is not blank."""

        def fill(ref: str, record: Record) -> None:
            end = record["virtual_size"] if self.repository.kind == "lun" else length
            self.moving(record["uuid"], name).fill(self.host, fd, length, end)

        return fill

    def resize(self, info: VolumeInfo, size: int) -> None:
        """Let a disk grow; one that a machine uses, where the hosts can do that."""
        self.require("VDI_RESIZE", "resize volumes", info)
        ref, record = self.same(info)
        online = "resize_online" in record["allowed_operations"] and "resize" not in record["allowed_operations"]
        if self.host.step(f"grow disk {info.name} to {size} bytes"):
            self.api.run("VDI.resize_online" if online else "VDI.resize", ref, size, what=f"resize {info.name}")

    def delete(self, info: VolumeInfo) -> None:
        """Destroy a disk; what snapshots and clones share with it stays."""
        self.require("VDI_DELETE", "delete volumes", info)
        ref, _ = self.same(info)
        if self.host.step(f"destroy disk {info.name}"):
            self.api.run("VDI.destroy", ref, what=f"destroy {info.name}")

    def require(self, feature: str, words: str, info: VolumeInfo | None = None) -> None:
        """``Unsupported`` for what the hosts' driver of the type cannot do."""
        if feature not in probing.features(self.api, self.repository.type):
            raise errors.Unsupported(
                f"pool '{self.pool}': pools of type 'xensm' on repositories of type '{self.repository.type}' cannot {words}",
                pool=self.pool, volume=info.name if info else None,
            )  # fmt: skip

    # -- undo -------------------------------------------------------------------------------------------------------

    def take_back(self, kind: str, name: str, token: str) -> None:
        """Destroy what ``make`` or ``branch`` made, if there is anything: by its key, or ``made`` by its uuid. Repeatable."""
        if kind == "made":
            found = [one for one in self._labelled(naming.label(name, self.pool)) if one["uuid"] == token]
            if found and found[0]["managed"]:
                self.api.run("VDI.destroy", self.api.ref("VDI.get_by_uuid", token))
            return
        self.api.settle(*_MAKING)
        key = NEW + token
        for ref, record in self.api.usable("VDI", "SR", "other_config", "uuid").items():
            if record["SR"] != self.repository.ref or key not in record["other_config"]:
                continue
            if record["other_config"][key] == record["uuid"]:
                self.api.call("VDI.remove_from_other_config", ref, key)
            else:
                self.api.run("VDI.destroy", ref)
        claim = f"{_claim(naming.label(name, self.pool))}-{token}"
        for one in self.api.mapping("SR.get_other_config", self.repository.ref):
            if one.startswith(claim):
                self._release(one)


_MAKING = ("VDI.create", "VDI.clone", "VDI.snapshot", "VDI.copy")
_OLD = ", and what it held is still on it"


def _claim(label: str) -> str:
    return CLAIM + hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def rounded(type: str, size: int) -> int:
    """The size that a disk gets which is asked for with ``size``, as far as the type tells it."""
    found = srtypes.known(type)
    block = found.block if found else 1
    return max(block, -(-size // block) * block)
