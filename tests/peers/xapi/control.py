"""What tests can order of the peer that no XenAPI client can: faults, sizes, guests, many records at once."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from . import machines
from .api import Api, Call
from .database import Row
from .disks import row_of
from .drivers import driver
from .operations import allowed, counted, place_of
from .storage import GIB, Disk, Place

if TYPE_CHECKING:
    from .pool import Pool


class Control:
    """Each public method is an order."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def _api(self) -> Api:
        return self._pool.api

    def do(self, what: str, /, **order: Any) -> Any:
        if what.startswith("_") or what == "do" or not hasattr(self, what):
            raise ValueError(f"no such order: {what}")
        return getattr(self, what)(**order)

    def _sr(self, sr: str) -> Row:
        """An SR by uuid or reference."""
        db = self._api.db
        return db.tables["SR"].get(sr) or db.by_uuid("SR", sr)

    def _place(self, sr: str = "", type: str = "", config: dict[str, str] | None = None) -> Place:
        """The storage of an SR, or what a device-config means."""
        if sr:
            return place_of(self._api, self._sr(sr))[1]
        return self._api.storage.place(driver(type), config or {})

    def reset(self) -> None:
        """As it was at the start."""
        self._pool.reset()

    def fault(self, **rule: Any) -> None:
        """One more rule of ``faults``."""
        self._api.faults.add(rule)

    def clear(self) -> None:
        """No fault any more."""
        self._api.faults.clear()
        self._api.storage.coalesce = True
        for place in self._api.storage.places.values():
            place.reachable, place.lasts = True, -1

    def calls(self) -> list[str]:
        """The calls since the last time that this was asked."""
        called, self._api.called = self._api.called, []
        return called

    def size(self, size: int, sr: str = "", type: str = "", config: dict[str, str] | None = None) -> None:
        """How large the storage of an SR is."""
        self._place(sr, type, config).size = size
        if sr:
            counted(self._api, self._sr(sr))

    def full(self, sr: str) -> None:
        """Let the storage of an SR have no byte left."""
        found, place = place_of(self._api, self._sr(sr))
        place.size = self._api.storage.used(found, place)
        counted(self._api, self._sr(sr))

    def reachable(self, yes: bool, sr: str = "", type: str = "", config: dict[str, str] | None = None) -> None:
        """Does the storage answer."""
        self._place(sr, type, config).reachable = yes

    def lasts(self, disks: int, sr: str) -> None:
        """The storage answers no more when so many disks have been made."""
        self._place(sr).lasts = disks

    def wants(self, user: str, password: str, type: str, config: dict[str, str]) -> None:
        """The storage wants a password."""
        self._place("", type, config).secret = (user, password)

    def target(self, address: str, iqns: dict[str, list[float]]) -> dict[str, list[dict[str, Any]]]:
        """An iSCSI target, its IQNs and the sizes of their LUNs in GiB; the LUNs that they are."""
        storage = self._api.storage
        storage.targets[address] = {iqn: storage.luns(iqn, sizes) for iqn, sizes in iqns.items()}
        return self.luns(address)

    def luns(self, address: str = "") -> dict[str, list[dict[str, Any]]]:
        """The LUNs of a target, or those of the fibre-channel fabric."""
        found = self._api.storage.target(address) if address else {"": self._api.storage.fabric}
        return {
            iqn: [{"SCSIid": lun.scsi_id, "size": lun.size, "LUNid": lun.number} for lun in luns]
            for iqn, luns in found.items()
        }

    def folder(self, sr: str) -> str:
        """Where the files of an SR are."""
        return str(self._place(sr).folder / self._sr(sr).uuid)

    def bulk(self, sr: str, count: int, size: int = GIB) -> None:
        """Many VDIs that read as zeros and have no file."""
        row = self._sr(sr)
        found, place = place_of(self._api, row)
        call = Call(self._api, 0)
        disks = place.repositories.setdefault(row.uuid, {})
        for number in range(count):
            disk = Disk(str(uuid.uuid4()), size)
            disks[disk.location] = disk
            row_of(call, row, found, disk, name_label=f"bulk-{number:05d}")
        counted(self._api, row)

    def machine(self, name: str = "guest", kind: str = "pv", running: bool = True, host: int = 0) -> str:
        """A virtual machine; its uuid."""
        return machines.machine(self._api, name, kind, running, self._api.hosts[host]).uuid

    def master(self, host: int) -> None:
        """Another host is the master."""
        pool = next(iter(self._api.db.rows("pool")))
        self._api.db.set(pool, master=self._api.hosts[host].ref)

    def kill_sessions(self) -> int:
        """End all sessions."""
        db = self._api.db
        with db.lock:
            rows = list(db.rows("session"))
            for row in rows:
                db.drop(row)
            db.lock.notify_all()
        return len(rows)

    def lose_events(self) -> None:
        """Forget all changes up to now: who asks for those since an older token has lost some."""
        with self._api.db.lock:
            self._api.db.generation += 1
            self._api.db.forget(self._api.db.generation)
            self._api.db.lock.notify_all()

    def unplugged(self, sr: str) -> None:
        """The PBDs of an SR fall out, as when a host loses its storage."""
        row = self._sr(sr)
        for pbd in self._api.db.of(row, "PBDs"):
            self._api.db.set(pbd, currently_attached=False)
        allowed(self._api, row)

    def coalesce(self, yes: bool) -> None:
        """Does the garbage collector run, that makes chains shorter."""
        self._api.storage.coalesce = yes

    def patience(self, seconds: float) -> None:
        """How long a call waits for another one of the same SR before OTHER_OPERATION_IN_PROGRESS."""
        self._api.patience = seconds

    def old(self) -> None:
        """Be a host that has XML-RPC alone."""
        self._api.old = True

    def user(self, name: str, password: str) -> None:
        """Another user who may log in."""
        self._api.users[name] = password
