"""VDI.snapshot, clone and copy. A branch of a VHD makes a base that both share, as tapdisk's chains are."""

from __future__ import annotations

import os
import uuid
from typing import Any

from .api import Call, call
from .database import Row, now
from .disks import disk_of, idle, made, refreshed, row_of, scratch, using
from .drivers import backend_failure, driver
from .marshal import Failure
from .operations import disks_of, operation
from .schema import NULL
from .storage import CHAIN, Disk, copy_sparse

MAP = "(string -> string) map"
COPIED = ("name_label", "name_description", "type", "sharable", "read_only", "other_config", "xenstore_data", "tags")
HEADER = 2560  # bytes of a dynamic VHD that has no blocks, but for its table


def copied(vdi: Row) -> dict[str, Any]:
    """What a new VDI has of the one that it was made from."""
    return {name: vdi[name] for name in COPIED}


@call("VDI.snapshot", "VDI ref", MAP, gives="VDI ref")
def snapshot(call: Call, vdi: Row, driver_params: dict[str, str]) -> str:
    if vdi["sharable"]:
        raise Failure("VDI_IS_SHARABLE", vdi.ref)
    fields = {"is_a_snapshot": True, "snapshot_of": vdi.ref, "snapshot_time": now()}
    return branched(call, vdi, "vdi_snapshot", fields).ref


@call("VDI.clone", "VDI ref", MAP, gives="VDI ref")
def clone(call: Call, vdi: Row, driver_params: dict[str, str]) -> str:
    sr = call.db.get("SR", vdi["SR"])
    if not vdi["is_a_snapshot"]:
        idle(call.api, vdi, "clone")
    if "VDI_CLONE" not in driver(sr["type"]).features:
        return full_copy(call, vdi, sr, copied(vdi)).ref
    return branched(call, vdi, "vdi_clone", {}).ref


def branched(call: Call, vdi: Row, name: str, fields: dict[str, Any]) -> Row:
    """A second VDI with the same content, at little cost."""
    api = call.api
    sr = call.db.get("SR", vdi["SR"])
    disks = disks_of(api, sr)
    with operation(call, sr, name), using(call, vdi, name.removeprefix("vdi_")):
        found, place, disk = disk_of(api, vdi)
        leaf = Disk(str(uuid.uuid4()), disk.size, None, disk.format, kept=dict(disk.kept))
        if disk.file is not None:
            leaf.file = disk.file.with_name(f"{leaf.location}{disk.file.suffix}")
        if found.kind == "array":
            api.storage.want(found, place, disk.size)
            if disk.file is not None and leaf.file is not None:
                copy_sparse(disk.file, leaf.file)
        else:
            depth, above = 1, disk
            while above.parent:
                depth, above = depth + 1, disks[above.parent]
            if depth >= CHAIN:
                raise backend_failure(109, "The snapshot chain is too long")
            if found.kind == "lvm":  # what is written from now on needs all of its room anew
                leaf.kept["snapshot"] = "yes"
                api.storage.want(found, place, disk.file.stat().st_size if disk.file else 0)
            base = under(disks, disk, leaf)
            row_of(call, sr, found, base)
        disks[leaf.location] = leaf
        row = row_of(call, sr, found, leaf, **copied(vdi), **fields)
        if disk.parent:
            call.db.set(vdi, sm_config={**vdi["sm_config"], "vhd-parent": disk.parent})
        refreshed(call, sr, found, (vdi, disk), (row, leaf))
    return row


def under(disks: dict[str, Disk], disk: Disk, leaf: Disk) -> Disk:
    """Put a base below ``disk``, which ``leaf`` shares with it. All three are one file until one is written, anew."""
    base = Disk(str(uuid.uuid4()), disk.size, None, disk.format, disk.shared, disk.parent, hidden=True)
    if disk.file is not None and leaf.file is not None:
        base.file = disk.file.with_name(f"{base.location}{disk.file.suffix}")
        os.link(disk.file, base.file)
        os.link(disk.file, leaf.file)
        tables = HEADER if disk.format == "vpc" else 0
        disk.shared = leaf.shared = max(disk.file.stat().st_size - tables, 0)
    disk.parent = leaf.parent = base.location
    disks[base.location] = base
    return base


@call("VDI.copy", "VDI ref", "SR ref?", "VDI ref?", "VDI ref?", gives="VDI ref", optional=2)
def copy(call: Call, vdi: Row, sr: Row | None, base_vdi: Row | None = None, into_vdi: Row | None = None) -> str:
    if into_vdi is not None:
        fill(call, vdi, into_vdi)
        return into_vdi.ref
    if sr is None:
        raise Failure("HANDLE_INVALID", "SR", NULL)
    fields = copied(vdi)
    return full_copy(call, vdi, sr, {**fields, "read_only": False}).ref


def full_copy(call: Call, vdi: Row, sr: Row, fields: dict[str, Any]) -> Row:
    """A new VDI with the same content and nothing shared."""
    disks_of(call.api, call.db.get("SR", vdi["SR"]))
    disks_of(call.api, sr)
    with operation(call, sr, "vdi_create"):
        row, _ = made(call, sr, {**fields, "virtual_size": vdi["virtual_size"]})
    try:
        fill(call, vdi, row)
    except BaseException:
        from .disks import destroy

        destroy(call, row)
        raise
    return row


def fill(call: Call, vdi: Row, row: Row) -> None:
    """Write the content of a VDI into another."""
    api = call.api
    with using(call, vdi, "copy"):
        _, _, source = disk_of(api, vdi)
        found, place, target = disk_of(api, row)
        if target.size < source.size:
            raise Failure("VDI_TOO_SMALL", row.ref, str(source.size))
        call.progress(0.1)
        if target.file is not None:
            data = source.file.stat().st_size if source.file and source.format == "vpc" else 0
            if found.kind == "vhd":
                api.storage.want(found, place, data)
            with scratch(place.folder) as raw:
                api.storage.to_raw(source, raw)
                call.progress(0.5)
                api.storage.from_raw(target, raw)
        call.progress(0.9)
        refreshed(call, call.db.get("SR", row["SR"]), found, (row, target))
