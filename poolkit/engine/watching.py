"""What others change of a storage that hosts share: seen at the next look at the pool, and told to the subscribers."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolkit.backend import Backend, VolumeInfo
    from poolkit.engine.core import Core
    from poolkit.engine.operation import Operation
    from poolkit.state.inventory import Record


class Change:
    """The listing of a pool before and after somebody changed its storage. Nothing of it costs anything where nobody did."""

    def __init__(self, core: Core, record: Record, backend: Backend) -> None:
        self._core, self._record = core, record
        self._moved = record.storage is not None and backend.moved_since(record.storage)
        # Read before the listing: what changes meanwhile counts as changed since.
        self._storage = backend.storage() if self._moved else None
        self._before = self._volumes() if self._moved else {}

    def _volumes(self) -> Mapping[str, VolumeInfo]:
        # Reading a volume changes when it was read, and the name of a new one when its inode was changed: no change of it.
        return {i.name: i._replace(atime=0, ctime=0, stamp=0) for i in self._core.inventory.volumes(self._record.id)}

    def listed(self) -> None:
        """Note which state of the storage is listed now."""
        if self._moved:
            self._core.inventory.note_storage(self._record.id, self._storage)

    def tell(self, op: Operation) -> bool:
        """Tell the subscribers of each volume that was made, changed or deleted; whether there was one."""
        if not self._moved or op.dry:
            return False
        before, now = self._before, self._volumes()
        different = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        for name in different:
            kind = "changed" if name in before and name in now else "created" if name in now else "deleted"
            self._core.emit(op, f"volume-{kind}", self._record.name, self._record.uuid, name)
        return bool(different)
