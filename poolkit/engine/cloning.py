"""Volumes made from volumes, and overlays on images: what has to be looked up in other pools before a backend begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from poolkit import errors, registry
from poolkit.backend import VolumeInfo, check_volume_name
from poolkit.engine import standing, writing
from poolkit.engine.asked import left_out
from poolkit.engine.chain import trusted, walk
from poolkit.engine.core import Core
from poolkit.engine.keeping import expect, keep, keep_new
from poolkit.engine.operation import Outcome, Progress
from poolkit.engine.options import CloneOptions, of_backend
from poolkit.formats import read_as
from poolkit.xmlmap import replace

if TYPE_CHECKING:  # a pool imports this module, and hands itself and its volumes over
    import os
    import threading

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
    if not registry.backend(pool._core.record(pool.name).type).file_backed:
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
        writing.warn_of_copy(core, op, from_record, info)
        asked = definition
        # As in libvirt, a copy is never smaller than what it is made from.
        definition = replace(definition, capacity=max(definition.capacity or 0, info.capacity))
        options = of_backend(how, definition)
        if linked:
            _sound_chain(core, source)
        elif (info.detail or {}).get("backing") and backend.file_backed:
            wanted = definition.target.format or "raw"
            grows = definition.capacity > info.capacity
            if wanted != info.format or grows or not _carries(definition, info):
                options["chain"] = trusted(core, source.pool.name, source.path, source.info)
        if secret is not None:
            if not (info.detail or {}).get("encryption"):
                raise errors.InvalidArgument(
                    f"volume '{source.name}' is not encrypted, and a secret was given to open it", volume=source.name,
                    hint="the secret of the new volume is named in its document, by <encryption>",
                )  # fmt: skip
            options["secret"] = op.host.secret("volume", uuid=secret)
        backend.require_options("clone", options)
        core.still_there(backend, record, name, dry=op.dry)
        expect(core, op, backend, record, pool._placed)
        made = backend.clone(
            definition, backend_from.source(info), linked=linked, reflink=how.get("reflink"), **options
        )
        keep_new(core, op, backend, record, [made], pool._placed)
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


def overwrite(
    volume: Volume, source: Volume, options: dict[str, bool], wait: float | None, abort: threading.Event | None,
    progress: Progress | None,
) -> Outcome:  # fmt: skip
    """See :meth:`poolkit.engine.volume.Volume.overwrite`."""
    pool, core = volume.pool, volume.pool._core
    if source.pool == pool and source.name == volume.name:
        raise errors.InvalidArgument(
            f"volume '{source.name}' cannot be copied onto itself", pool=pool.name, volume=source.name
        )
    with (
        core.volume_work(source.pool.name, "vol-clone", source.name, shared=True, wait=wait, abort=abort) as reading,
        core.volume_work(
            pool.name, "vol-clone", volume.name, wait=wait, abort=abort, progress=progress
        ) as (op, backend, record),
    ):  # fmt: skip
        _, backend_from, from_record = reading
        info = core.same_volume(backend_from, from_record, source.info)
        now = core.same_volume(backend, record, volume.info)
        if options:
            backend.require_options("overwrite", options)
        force = options.get("force", False)
        standing.require_free_volume(core, op, backend, record, now, "overwritten", force=force)
        writing.warn_of_copy(core, op, from_record, info)
        with writing.in_place(core, (op, backend, record), now, "overwritten"):
            made = backend.overwrite(now, backend_from.source(info), **options)
        keep(core, op, backend, record, made)
    core.emit(op, "volume-changed", pool.name, pool.uuid, volume.name)
    words = f"volume '{volume.name}' has the content of volume '{source.name}' of pool '{source.pool.name}'"
    return op.outcome(True, words)


@contextlib.contextmanager
def held_bases(
    core: Core,
    paths: Iterable[str],
    ours: Callable[[str, str], bool],
    wait: float | None,
    abort: threading.Event | None,
) -> Iterator[None]:
    """In the body others may read the volumes that are backing stores at ``paths``, and no more.

    Those of which ``ours``, given pool and name, is true are left out: what is to be made locks them itself.
    """
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(paths):
            with contextlib.suppress(errors.VolumeNotFound):
                record, info = core.find_volume("path", path)
                if not ours(record.name, info.name):
                    stack.enter_context(
                        core.volume_work(record.name, "vol-create", info.name, shared=True, wait=wait, abort=abort)
                    )
        yield


@contextlib.contextmanager
def held_base(
    core: Core, definition: Any, new: tuple[str, str], wait: float | None, abort: threading.Event | None
) -> Iterator[Any]:
    """The definition as :func:`pinned` gives it, while its backing store is held (:func:`held_bases`).

    ``new`` is the pool and the name of what is to be made.
    """
    with held_bases(core, [definition.backing_store.path], lambda *found: found == new, wait, abort):
        yield pinned(core, definition)


def pinned(core: Core, definition: Any) -> Any:
    """``definition`` with the recorded format of its backing store, where that is a volume of an active pool.

    ``Unsafe`` when the document says another one: then the image's content would decide what a machine reads.
    """
    backing = definition.backing_store
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
    recorded = read_as(info.format)
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
    closed = bool(detail.get("encryption"))
    return (
        (not closed if target.encryption is None else not target.encryption.secrets)
        and target.cluster_size in (None, detail.get("cluster_size"))
        and target.compat in (None, detail.get("compat"))
        and set(target.feature_words) <= set(detail.get("features", ()))
    )


def _sound_chain(core: Core, source: Volume) -> None:
    links = walk(core, source.pool.name, source.path, source.info, deep=True)
    bad = next((link for link in links if link.problem), None)
    if bad is not None and bad.volume != source.name:
        raise errors.Unsafe(
            f"volume '{source.name}' stands on '{bad.path[:200]}': {bad.problem}", volume=source.name,
            hint="an overlay on it would inherit that",
        )  # fmt: skip
