"""Volumes made from volumes, and overlays on images: what has to be looked up in other pools before a backend begins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from poolkit import errors, registry
from poolkit.backend import check_volume_name
from poolkit.engine.operation import Progress
from poolkit.xmlmap import replace

if TYPE_CHECKING:
    from poolkit.engine.engine import Engine
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume


def definition_for(
    source: Volume, what: str | bytes | Any, pool: Pool, *, linked: bool = False, filename: str = "<string>", strict: bool = True
) -> Any:  # fmt: skip
    """The definition of a clone: a document, or the source's own with another name. A linked one is qcow2."""
    if not isinstance(what, (str, bytes)):
        return what
    head = what.lstrip()[:1]
    if head in ("<", b"<"):
        return pool.parse_volume(what, filename=filename, strict=strict)
    own = source.definition()
    allocation = 0
    name = what if isinstance(what, str) else what.decode("utf-8", "replace")
    if not registry.backend(pool.info.type).file_backed:
        own = replace(own, target=type(own.target)())  # a device has no format
        allocation = min(own.allocation or 0, own.capacity)
    elif linked:
        own = replace(own, target=type(own.target)(format="qcow2", nocow=own.target.nocow))
    target = replace(own.target, path=None, timestamps=None, permissions=type(own.target.permissions)())
    if own.type == "block" and source.pool.name != pool.name:
        target = replace(target, format=None)  # the type of a partition means nothing elsewhere
    return replace(
        own, name=name, type=None, key=None, physical=None, allocation=allocation, source=type(own.source)(),
        target=target, backing_store=None,
    )  # fmt: skip


def create_from(
    pool: Pool,
    what: str | bytes | Any,
    source: Volume,
    *,
    linked: bool = False,
    reflink: bool | None = None,
    secret: str | None = None,
    filename: str = "<string>",
    strict: bool = True,
    wait: float | None = None,
    abort: threading.Event | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Volume:
    """See :meth:`poolkit.engine.pool.Pool.create_volume_from`."""
    from poolkit.engine.chain import trusted
    from poolkit.engine.volume import Volume

    definition = definition_for(source, what, pool, linked=linked, filename=filename, strict=strict)
    name = check_volume_name(definition.name, pool.name)
    if source.pool.name == pool.name and source.name == name:
        raise errors.VolumeExists(f"volume '{name}' cannot be made from itself", pool=pool.name, volume=name)
    if definition.backing_store is not None:
        raise errors.InvalidArgument(
            f"volume '{name}': a volume made from another one has no backing store of its own", pool=pool.name,
            volume=name, hint="leave it out; a linked clone gets the source as its backing store",
        )  # fmt: skip
    engine = pool.engine
    with (
        source.pool.volume_work("vol-clone", source.name, shared=True, wait=wait, abort=abort) as reading,
        pool.volume_work("vol-clone", name, wait=wait, abort=abort, progress=progress) as (op, backend, record),
    ):
        _, backend_from, from_record = reading
        info = source.now(backend_from, from_record)
        # As in libvirt, a copy is never smaller than what it is made from.
        definition = replace(definition, capacity=max(definition.capacity or 0, info.capacity))
        if linked:
            _sound_chain(engine, source)
        elif (info.detail or {}).get("backing") and backend.file_backed:
            wanted = definition.target.format or info.format
            if wanted != info.format or not _carries(definition, info):
                options["chain"] = trusted(engine, source)
        if secret is not None:
            options["secret"] = op.host.secret(uuid=secret)
        backend.require_options("clone", options)
        if not op.dry and engine.inventory.volume(record.id, name) is not None:
            pool._still_there(backend, record, name)
        made = backend.clone(definition, backend_from.source(info), linked=linked, reflink=reflink, **options)
        if not op.dry:
            engine.inventory.put_volume(record.id, made, op.id)
    pool.emit("volume-created", name, op)
    words = f"volume '{name}' is made from volume '{source.name}' of pool '{source.pool.name}'"
    return Volume(pool, made, record.target, op.outcome(True, words))


def pinned(engine: Engine, definition: Any) -> Any:
    """``definition`` with the recorded format of its backing store, where that is a volume of an active pool.

    ``Unsafe`` when the document says another one: then the image's content would decide what a machine reads.
    """
    backing = getattr(definition, "backing_store", None)
    if backing is None:
        return definition
    try:
        volume = engine.volume_by_path(backing.path)
    except errors.VolumeNotFound:
        return definition
    detail = volume.info.detail or {}
    if detail.get("ambiguous"):
        raise errors.Unsafe(
            f"the backing store '{backing.path}' passes for several formats", volume=definition.name,
            hint=f"say which one it is: poolkit vol-adopt {volume.name} --pool {volume.pool.name} --format FORMAT",
        )  # fmt: skip
    recorded = volume.info.format or "raw"
    if backing.format is not None and backing.format != recorded:
        raise errors.Unsafe(
            f"the format of the backing store '{backing.path}' on record is {recorded}, not {backing.format}",
            volume=definition.name,
            hint=f"if the record is wrong: poolkit vol-adopt {volume.name} --pool {volume.pool.name} --format FORMAT",
        )
    return replace(definition, backing_store=replace(backing, format=recorded))


def _carries(definition: Any, info: Any) -> bool:
    """Whether a copy of the source's bytes is what the definition asks for."""
    detail = info.detail or {}
    target = definition.target
    return (
        target.cluster_size in (None, detail.get("cluster_size"))
        and target.compat in (None, detail.get("compat"))
        and set(target.features) <= set(detail.get("features", ()))
    )


def _sound_chain(engine: Engine, source: Volume) -> None:
    from poolkit.engine.chain import walk

    last = walk(engine, source)[-1]
    if last.problem and last.volume != source.name:
        raise errors.Unsafe(
            f"volume '{source.name}' stands on '{last.path[:200]}': {last.problem}", volume=source.name,
            hint="an overlay on it would inherit that",
        )  # fmt: skip
