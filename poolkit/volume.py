"""A volume of a pool and the verbs one does to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.backend import VolumeInfo
from poolkit.operation import Outcome, Progress

if TYPE_CHECKING:
    from poolkit.pool import Pool


class Volume:
    """A volume as it was listed; ``info`` has its facts and :meth:`look` renews them."""

    __slots__ = ("directory", "info", "outcome", "pool")

    def __init__(self, pool: Pool, info: VolumeInfo, directory: str | None, outcome: Outcome | None = None) -> None:
        self.pool = pool
        self.info = info
        self.directory = directory
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Volume {self.pool.name!r} {self.info.name!r}>"

    @property
    def name(self) -> str:
        """The name, unique in its pool."""
        return self.info.name

    @property
    def path(self) -> str:
        """Where the volume is on this host, or the address a client uses for it."""
        return self.info.path or f"{self.directory}/{self.info.name}"

    @property
    def key(self) -> str:
        """A name that is unique over all pools and stays the same over reboots."""
        return self.info.key or self.path

    @property
    def warning(self) -> str:
        """What an administrator should know of this volume, or an empty string."""
        return str((self.info.detail or {}).get("warning", ""))

    def look(self) -> Volume:
        """The same volume as it is now; ``VolumeNotFound`` if it is gone. Stores what it finds."""
        with self.pool.volume_work("vol-info", self.name, shared=True) as (op, backend, record):
            info = backend.look(self.name, self.pool.engine.inventory.volume(record.id, self.name))
            if info != self.info and not op.dry:
                self.pool.engine.inventory.put_volume(record.id, info, op.id)
        return Volume(self.pool, info, self.directory)

    def definition(self) -> Any:
        """The facts as a :class:`poolkit.model.Volume`."""
        from poolkit.describe import describer

        return describer(self.directory)(self.info)

    def xml(self) -> str:
        """The facts as XML, as libvirt prints them."""
        from poolkit import xmlmap

        return xmlmap.write(self.definition())

    def delete(self, *, wait: float | None = None) -> Outcome:
        """Delete the volume and its data. One that is gone already is dropped from the listing, unchanged."""
        inventory = self.pool.engine.inventory
        with self.pool.volume_work("vol-delete", self.name, wait=wait) as (op, backend, record):
            changed = True
            try:
                backend.delete(self.info)
            except errors.VolumeNotFound:
                changed = False
            if not op.dry:
                inventory.drop_volume(record.id, self.name, op.id)
        if changed:
            self.pool.emit("volume-deleted", self.name, op)
        words = "is deleted" if changed else "was gone already"
        return Outcome(changed, f"volume '{self.name}' {words}", plan=op.plan())

    def resize(
        self,
        capacity: int,
        *,
        delta: bool = False,
        allocate: bool = False,
        shrink: bool = False,
        wait: float | None = None,
        abort: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Set the capacity in bytes, or change it by so many with ``delta``; ``allocate`` backs the growth with space.

        Less than now needs ``shrink``: the data beyond the new end is lost. With ``shrink`` and ``delta`` the size is
        reduced by ``capacity``. Repeatable without ``delta``.
        """
        inventory = self.pool.engine.inventory
        with self.pool.volume_work("vol-resize", self.name, wait=wait, abort=abort, progress=progress) as work:
            op, backend, record = work
            now = backend.look(self.name, inventory.volume(record.id, self.name))
            wanted = capacity if not delta else now.capacity - abs(capacity) if shrink else now.capacity + capacity
            if wanted < 0 or (delta and capacity < 0 and not shrink):
                raise errors.InvalidArgument(f"volume '{self.name}' cannot have {wanted} bytes", volume=self.name)
            wanted = backend.rounded(wanted)
            if wanted < now.capacity and not shrink:
                raise errors.InvalidArgument(
                    f"volume '{self.name}' has {now.capacity} bytes; making it {wanted} would cut off data",
                    volume=self.name,
                    hint="if that is meant, add --shrink",
                )
            if wanted == now.capacity and not allocate:
                return Outcome(False, f"volume '{self.name}' has {wanted} bytes already")
            self.info = backend.resize(now, wanted, allocate=allocate, shrink=shrink)
            if not op.dry:
                inventory.put_volume(record.id, self.info, op.id)
        self.pool.emit("volume-changed", self.name, op)
        return Outcome(True, f"volume '{self.name}' has {wanted} bytes", plan=op.plan())
