"""Volumes made from volumes, and overlays on images: what has to be looked up in other pools before a backend begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolkit import errors, registry
from poolkit.backend import VolumeInfo, check_volume_name
from poolkit.engine.asked import left_out
from poolkit.engine.chain import trusted, walk
from poolkit.engine.core import Core
from poolkit.engine.operation import Outcome
from poolkit.engine.options import CloneOptions, of_backend
from poolkit.xmlmap import replace

if TYPE_CHECKING:  # a pool imports this module, and hands itself and its volumes over
    import os

    from poolkit import model
    from poolkit.engine.pool import Pool
    from poolkit.engine.volume import Volume


def definition_for(
    source: Volume, what: str | bytes | os.PathLike[str] | model.Volume, pool: Pool, *, linked: bool = False,
    filename: str = "<string>", strict: bool = True,
) -> Any:  # fmt: skip
    """The definition of a clone: a document, or the source's own with another name. A linked one is qcow2."""
    if not isinstance(what, (str, bytes)) or what.lstrip()[:1] in ("<", b"<"):
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
    pool: Pool, what: str | bytes | os.PathLike[str] | model.Volume, source: Volume, how: CloneOptions
) -> tuple[VolumeInfo, str | None, Outcome]:
    """See :meth:`poolkit.engine.pool.Pool.create_volume_from`: the new volume, the place of its pool, and the outcome."""
    linked, secret = how.get("linked", False), how.get("secret")
    definition = definition_for(
        source, what, pool, linked=linked, filename=how.get("filename", "<string>"), strict=how.get("strict", True)
    )
    name = check_volume_name(definition.name, pool.name)
    if source.pool == pool and source.name == name:
        raise errors.VolumeExists(f"volume '{name}' cannot be made from itself", pool=pool.name, volume=name)
    if definition.backing_store is not None:
        raise errors.InvalidArgument(
            f"volume '{name}': a volume made from another one has no backing store of its own", pool=pool.name,
            volume=name, hint="leave it out; a linked clone gets the source as its backing store",
        )  # fmt: skip
    core = pool._core
    wait, abort = how.get("wait"), how.get("abort")
    with (
        core.volume_work(source.pool.name, "vol-clone", source.name, shared=True, wait=wait, abort=abort) as reading,
        core.volume_work(
            pool.name, "vol-clone", name, wait=wait, abort=abort, progress=how.get("progress")
        ) as (op, backend, record),
    ):  # fmt: skip
        _, backend_from, from_record = reading
        info = core.same_volume(backend_from, from_record, source.info)
        asked = definition
        # As in libvirt, a copy is never smaller than what it is made from.
        definition = replace(definition, capacity=max(definition.capacity or 0, info.capacity))
        options = of_backend(how)
        if linked:
            _sound_chain(core, source)
        elif (info.detail or {}).get("backing") and backend.file_backed:
            wanted = definition.target.format or info.format
            grows = definition.capacity > info.capacity
            if wanted != info.format or grows or not _carries(definition, info):
                options["chain"] = trusted(core, source.pool.name, source.path, source.info)
        if secret is not None:
            options["secret"] = op.host.secret("volume", uuid=secret)
        backend.require_options("clone", options)
        core.still_there(backend, record, name, dry=op.dry)
        made = backend.clone(
            definition, backend_from.source(info), linked=linked, reflink=how.get("reflink"), **options
        )
        if not op.dry:
            core.inventory.put_volume(record.id, made, op.id)
        if 0 < (asked.capacity or 0) < info.capacity:
            op.host.warn(
                f"volume '{name}' has the {info.capacity} bytes of its source, and not {asked.capacity}: "
                "a copy is never smaller"
            )
        path = made.path or f"{record.target}/{name}"
        for words in left_out(asked, made, path, files=backend.file_backed):
            op.host.warn(words)
    core.emit(op, "volume-created", pool.name, pool.uuid, name)
    words = f"volume '{name}' is made from volume '{source.name}' of pool '{source.pool.name}'"
    return made, record.target, op.outcome(True, words)


def pinned(core: Core, definition: Any) -> Any:
    """``definition`` with the recorded format of its backing store, where that is a volume of an active pool.

    ``Unsafe`` when the document says another one: then the image's content would decide what a machine reads.
    """
    backing = getattr(definition, "backing_store", None)
    if backing is None:
        return definition
    try:
        record, info = core.find_volume("path", backing.path)
    except errors.VolumeNotFound:
        return definition
    detail = info.detail or {}
    if detail.get("unread"):
        raise errors.HostError(
            f"the backing store '{backing.path}' {info.problem}, so its format is not known", volume=definition.name
        )
    if detail.get("ambiguous"):
        raise errors.Unsafe(
            f"the backing store '{backing.path}' passes for several formats", volume=definition.name,
            hint=errors.Hint(
                "say which one it is: ", errors.remedy("vol-adopt", info.name, pool=record.name, format=...)
            ),
        )  # fmt: skip
    recorded = info.format or "raw"
    if backing.format is not None and backing.format != recorded:
        raise errors.Unsafe(
            f"the format of the backing store '{backing.path}' on record is {recorded}, not {backing.format}",
            volume=definition.name,
            hint=errors.Hint(
                "if the record is wrong: ", errors.remedy("vol-adopt", info.name, pool=record.name, format=...)
            ),
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


def _sound_chain(core: Core, source: Volume) -> None:
    links = walk(core, source.pool.name, source.path, source.info, deep=True)
    bad = next((link for link in links if link.problem), None)
    if bad is not None and bad.volume != source.name:
        raise errors.Unsafe(
            f"volume '{source.name}' stands on '{bad.path[:200]}': {bad.problem}", volume=source.name,
            hint="an overlay on it would inherit that",
        )  # fmt: skip
