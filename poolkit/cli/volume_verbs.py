"""The verbs of volumes."""

from __future__ import annotations

import os

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import usage_error
from poolkit.cli.lookup import facts, find, permissions, preallocation, volume_format
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from poolkit.cli.arguments import Values
    from poolkit.cli.session import Session
    from poolkit.engine.volume import Volume


def create(session: Session, values: Values) -> None:
    """``vol-create POOL FILE``."""
    from poolkit.cli.document_verbs import load

    definition = load(session, values.file, "volume", lenient=values.lenient, validate=values.validate)
    _create(session, values, definition)


def create_as(session: Session, values: Values) -> None:
    """``vol-create-as POOL NAME CAPACITY``."""
    from poolkit import xmlmap
    from poolkit.backend import check_volume_name
    from poolkit.model import BackingStore, Layout, Volume, VolumeTarget

    check_volume_name(values.name, values.pool)
    backing = None
    if values.backing_vol is not None:
        path = values.backing_vol
        if "/" not in path and values.pool is None:
            raise usage_error("with --flavor the backing volume is given by its path", "vol-create-as")
        path = os.path.abspath(path) if "/" in path else session.engine.pool(values.pool).volume(path).path
        backing = BackingStore(path=path, format=volume_format(values.backing_vol_format))
    layout = None
    if values.stripes is not None or values.mirrors is not None:
        layout = Layout(stripes=values.stripes, mirrors=values.mirrors)
    definition = Volume(
        name=values.name, capacity=values.capacity, allocation=values.allocation,
        target=VolumeTarget(format=volume_format(values.format), permissions=permissions(values)), backing_store=backing,
        layout=layout,
    )  # fmt: skip
    if values.print_xml:
        session.xml(xmlmap.write(definition))
        return
    _create(session, values, definition)


def _create(session: Session, values: Values, definition: Any) -> None:
    how = preallocation(values)
    if values.flavor is not None:
        volume = session.engine.flavors.get(values.flavor).create_volume(definition, **how)
        session.note(f"volume '{volume.name}' is in pool '{volume.pool.name}'")
    else:
        volume = session.engine.pool(values.pool).create_volume(definition, **how)
    session.done(volume.outcome, volume.pool.name, volume=facts(volume))


def list_volumes(session: Session, values: Values) -> None:
    """``vol-list POOL``: volumes are read as they are printed, since a pool can have a million."""
    pool = session.engine.pool(values.pool)
    if session.json:
        session.values(facts(volume) for volume in pool.iter_volumes())
        return
    if values.name:
        for volume in pool.iter_volumes():
            session.print(volume.name)
        return
    odd, first = 0, ""

    def rows() -> Iterator[tuple[str, ...]]:
        nonlocal odd, first
        odd, first = 0, ""
        for volume in pool.iter_volumes():
            if volume.info.detail is not None and volume.info.problem:
                odd, first = odd + 1, first or volume.name
            yield _details(volume, values.bytes) if values.details else _summary(volume, values.bytes)

    heads = _DETAILS if values.details else _SUMMARY
    session.long_rows(heads, rows, right=("Capacity", "Allocation", "Physical"))
    if odd:
        what = "volume is" if odd == 1 else "volumes are"
        session.warn(
            errors.Hint(
                f"{odd} {what} damaged, unreadable, not what the record says or without a base, see '!'; what is wrong says ",
                errors.remedy("vol-info", first, pool=values.pool),
            )
        )


_SUMMARY = ("Name", "Format", "Capacity", "Allocation", "Path")
_DETAILS = ("Name", "Type", "Format", "Capacity", "Allocation", "Physical", "Mode", "Owner", "Backing", "Path")


def _summary(volume: Volume, exact: bool) -> tuple[str, ...]:
    info = volume.info
    return (
        info.name, _format_shown(volume), output.size(info.capacity, exact), output.size(info.allocation, exact),
        volume.path,
    )  # fmt: skip


def _details(volume: Volume, exact: bool) -> tuple[str, ...]:
    info = volume.info
    return (
        info.name, info.type, _format_shown(volume),
        *(output.size(number, exact) for number in (info.capacity, info.allocation, info.physical)),
        f"{info.mode:04o}", f"{info.owner}:{info.group}", _backing(volume), volume.path,
    )  # fmt: skip


def _format_shown(volume: Volume) -> str:
    """The format; a mark tells a volume that has a problem."""
    return (volume.info.format or "-") + (" !" if volume.info.problem else "")


def _backing(volume: Volume) -> str:
    return str((volume.info.detail or {}).get("backing", "-"))


def _now(volume: Volume) -> Volume:
    """The volume as it is now, or as it was listed while other work holds it."""
    try:
        return volume.look()
    except errors.Busy:
        return volume


def info(session: Session, values: Values) -> None:
    """``vol-info VOL``."""
    volume = _now(find(session, values.vol, values.pool))
    if session.json:
        session.value(facts(volume))
        return
    found = volume.info
    used = ("Physical", found.physical) if values.physical else ("Allocation", found.allocation)
    rows = [
        ("Name", found.name), ("Pool", volume.pool.name), ("Type", found.type), ("Format", found.format or "-"),
        ("Capacity", output.size(found.capacity, values.bytes)), (used[0], output.size(used[1], values.bytes)),
        ("Path", volume.path), ("Key", volume.key),
    ]  # fmt: skip
    for key, value in (found.detail or {}).items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((key.replace("_", " ").capitalize(), words))
    session.facts(rows)


def dumpxml(session: Session, values: Values) -> None:
    """``vol-dumpxml VOL``."""
    session.xml(_now(find(session, values.vol, values.pool)).xml())


def disk_xml(session: Session, values: Values) -> None:
    """``vol-disk-xml POOL VOL``."""
    volume = session.engine.volume(values.vol, values.pool)
    if values.qemu:
        if values.pool_form:
            raise usage_error("QEMU knows no pools: --qemu and --pool-form exclude each other", "vol-disk-xml")
        node = volume.blockdev(chain=values.chain, target=values.target, cache=values.cache)
        _warn(session, volume)
        if session.json:
            session.value({"blockdev": node, **_warnings(session, volume)})
        else:
            import json

            session.print(json.dumps(node))
        return
    text = volume.disk_xml(chain=values.chain, pool_form=values.pool_form, target=values.target, cache=values.cache)
    _warn(session, volume)
    if session.json:
        session.value({"xml": text, **_warnings(session, volume)})
    else:
        session.xml(text)


def _warnings(session: Session, volume: Volume) -> dict[str, Any]:
    found = volume.outcome.warnings if volume.outcome is not None else ()
    return {"warnings": [session.words(words) for words in found]} if found else {}


def _warn(session: Session, volume: Volume) -> None:
    for words in volume.outcome.warnings if volume.outcome is not None else ():
        session.warn(words)


def delete(session: Session, values: Values) -> None:
    """``vol-delete VOL``."""
    volume = find(session, values.vol, values.pool)
    outcome = volume.delete(force=values.force, delete_snapshots=values.delete_snapshots)
    session.done(outcome, volume.pool.name, volume=facts(volume))


def resize(session: Session, values: Values) -> None:
    """``vol-resize VOL CAPACITY``."""
    volume = find(session, values.vol, values.pool)
    outcome = volume.resize(
        values.capacity, delta=values.delta, allocate=values.allocate, shrink=values.shrink, force=values.force
    )
    session.done(outcome, volume.pool.name, volume=facts(volume))


def permit(session: Session, values: Values) -> None:
    """``vol-permit VOL``."""
    volume = find(session, values.vol, values.pool)
    asked = permissions(values)
    owner, group = (None if number == -1 else number for number in (asked.owner, asked.group))
    if asked.mode is owner is group is None:
        raise usage_error("say what to change: --mode, --owner or --group", "vol-permit")
    outcome = volume.permit(mode=asked.mode, owner=owner, group=group, force=values.force)
    session.done(outcome, volume.pool.name, volume=facts(volume))


def path(session: Session, values: Values) -> None:
    """``vol-path VOL``."""
    session.text("path", find(session, values.vol, values.pool).path)


def key(session: Session, values: Values) -> None:
    """``vol-key VOL``."""
    session.text("key", find(session, values.vol, values.pool).key)


def name(session: Session, values: Values) -> None:
    """``vol-name VOL``."""
    session.text("name", find(session, values.vol, values.pool).name)


def pool(session: Session, values: Values) -> None:
    """``vol-pool VOL``."""
    owner = find(session, values.vol, values.pool).pool
    if values.uuid:
        session.text("uuid", owner.uuid)
    else:
        session.text("pool", owner.name)
