"""The verbs of volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli import output
from poolkit.cli.arguments import Values
from poolkit.cli.lookup import facts, find, permissions, preallocation, volume_format

if TYPE_CHECKING:
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
    from poolkit.model import BackingStore, Volume, VolumeTarget

    check_volume_name(values.name, values.pool)
    backing = None
    if values.backing_vol is not None:
        path = values.backing_vol
        if not path.startswith("/"):
            path = session.engine.pool(values.pool).volume(path).path
        backing = BackingStore(path=path, format=volume_format(values.backing_vol_format))
    definition = Volume(
        name=values.name, capacity=values.capacity, allocation=values.allocation,
        target=VolumeTarget(format=volume_format(values.format), permissions=permissions(values)), backing_store=backing,
    )  # fmt: skip
    if values.print_xml:
        session.xml(xmlmap.write(definition))
        return
    _create(session, values, definition)


def _create(session: Session, values: Values, definition: Any) -> None:
    pool = session.engine.pool(values.pool)
    volume = pool.create_volume(definition, **preallocation(values))
    session.done(volume.outcome, pool.name, volume=facts(volume))


def list_volumes(session: Session, values: Values) -> None:
    """``vol-list POOL``."""
    volumes = session.engine.pool(values.pool).volumes()
    if session.json:
        session.value([facts(volume) for volume in volumes])
    elif values.name:
        for volume in volumes:
            session.print(volume.name)
    elif values.details:
        session.rows(
            ("Name", "Type", "Format", "Capacity", "Allocation", "Physical", "Mode", "Owner", "Backing", "Path"),
            [
                (
                    v.name, v.info.type, _format_shown(v),
                    *(output.size(n, values.bytes) for n in (v.info.capacity, v.info.allocation, v.info.physical)),
                    f"{v.info.mode:04o}", f"{v.info.owner}:{v.info.group}", _backing(v), v.path,
                )
                for v in volumes
            ],
            right=("Capacity", "Allocation", "Physical"),
        )  # fmt: skip
    else:
        session.rows(
            ("Name", "Format", "Capacity", "Allocation", "Path"),
            [
                (
                    v.name, _format_shown(v), output.size(v.info.capacity, values.bytes),
                    output.size(v.info.allocation, values.bytes), v.path,
                )
                for v in volumes
            ],
            right=("Capacity", "Allocation"),
        )  # fmt: skip
    odd = sum(1 for volume in volumes if volume.info.problem)
    if odd and not session.json and not values.name:
        what = "volume is" if odd == 1 else "volumes are"
        session.warn(
            errors.Hint(
                f"{odd} {what} damaged, unreadable or not what the record says, see '!'; what is wrong says ",
                errors.remedy("vol-info", next(v.name for v in volumes if v.info.problem), pool=values.pool),
            )
        )


def _format_shown(volume: Volume) -> str:
    """The format; a mark tells a volume that is damaged, unreadable or not what the record says."""
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


def delete(session: Session, values: Values) -> None:
    """``vol-delete VOL``."""
    if values.delete_snapshots:
        raise errors.Unsupported(
            "snapshots are not deleted along with a volume",
            hint="a snapshot is a volume of its own: delete it by its name",
        )
    volume = find(session, values.vol, values.pool)
    session.done(volume.delete(force=values.force), volume.pool.name, volume=facts(volume))


def resize(session: Session, values: Values) -> None:
    """``vol-resize VOL CAPACITY``."""
    volume = find(session, values.vol, values.pool)
    outcome = volume.resize(
        values.capacity, delta=values.delta, allocate=values.allocate, shrink=values.shrink, force=values.force
    )
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
