"""Pools of type ``logical``: an LVM volume group whose logical volumes are the volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from poolkit import errors
from poolkit.backend import State, quoted
from poolkit.families import lvm, lvmrefusals
from poolkit.families.lvmgroups import LvmGroup, PhysicalVolume
from poolkit.model import OptionalTarget, Pool, product, vendor
from poolkit.xmlmap import Element, replace, simple, xml
from poolkit.xmlmap.rules import at_least_one

if TYPE_CHECKING:
    from poolkit.host.port import Host


class LogicalSource(Element):
    """The volume group."""

    devices: tuple[PhysicalVolume, ...] = xml(
        "device", default=(), since="0.4.1", doc="Devices that build makes it of."
    )
    name: str | None = xml(
        "name",
        type=simple.Name,
        default=None,
        since="0.4.5",
        effect="acted",
        doc="Volume group; the pool's name by default.",
    )
    format: Literal["lvm2", "unknown"] = xml(
        "format/@type", default="lvm2", since="0.4.1", effect="kept", doc="LVM version 2."
    )
    vendor: str | None = vendor()
    product: str | None = product()


class ThinPool(Element):
    """A thin pool of the group, for volumes with less allocation than capacity."""

    name: str = xml("@name", type=simple.Word, effect="acted", doc="Its name in the group.")
    capacity: int | None = xml(
        "capacity",
        type=simple.Size,
        default=None,
        effect="acted",
        doc="Space that build gives it; all of the group by default.",
    )


class LogicalPool(Pool):
    """A volume group of this host."""

    type: ClassVar[str] = "logical"
    first: ClassVar[str | None] = "0.4.1"
    rules = (at_least_one("name", "source.name", paths=("name", "source/name")),)
    name: str = xml(
        "name",
        type=simple.Name,
        source="source.name",
        since="0.4.1",
        effect="acted",
        doc="Name; the source's by default.",
    )
    source: LogicalSource = xml("source", default=LogicalSource, doc="The volume group and its devices.")
    target: OptionalTarget = xml(
        "target", default=OptionalTarget, doc="/dev/ and the volume group; what is given is ignored."
    )
    thin_pool: ThinPool | None = xml(
        "pk:thin_pool", default=None, doc="Thin pool that build makes and new volumes use."
    )

    @staticmethod
    def complete(values: dict[str, Any]) -> None:
        """The source's name defaults to the pool's, and the target follows from it."""
        source = values.get("source") or LogicalSource()
        if source.name is None:
            source = replace(source, name=values["name"])
        values["source"] = source
        values["target"] = replace(values.get("target") or OptionalTarget(), path=f"/dev/{source.name}")


class LogicalBackend(LvmGroup):
    """A volume group that this host alone uses, and its logical volumes."""

    type = "logical"
    needs_root = ("start", "build", "discover")
    definition = LogicalPool
    tools = bytewise = (
        "vgs", "lvs", "pvs", "pvcreate", "pvremove", "vgcreate", "vgchange", "vgremove", "lvcreate", "lvrename", "lvremove",
        "lvextend", "lvreduce", "lvchange", "wipefs",
    )  # fmt: skip
    packages: ClassVar[Mapping[str, str]] = dict.fromkeys(tools, "lvm2") | {"wipefs": "util-linux"}
    source_formats = ("lvm2", "unknown")

    @property
    def thin_pool_name(self) -> str | None:  # type: ignore[override]
        """The thin pool that the definition names."""
        return self.pool.thin_pool.name if self.pool.thin_pool is not None else None

    def claims(self) -> Iterable[str]:
        """The group and its devices; ``InvalidArgument`` for a thin pool that cannot be made."""
        thin = self.thin_pool_name
        why = lvm.name_fault(thin, self.vg) if thin is not None else ""
        if why:
            raise errors.InvalidArgument(f"'{thin}' cannot be the name of a thin pool: {why}", pool=self.pool.name)
        if self.pool.thin_pool is not None and self.pool.thin_pool.capacity == 0:
            raise errors.InvalidArgument(f"the thin pool '{thin}' needs a capacity above 0", pool=self.pool.name)
        return (f"group {self.vg}", *(f"device {path}" for path in self.devices))

    def state(self, *, closely: bool = False) -> State:
        """Whether the group is there and something of it is active; a group without volumes is up when it is there.

        It is never told to be whole: some of its volumes may have been active before the pool, such as the host's own disk.
        """
        if lvm.active(self.host, self.vg):
            return State(True, whole=False)
        try:
            group = lvm.group(self.host, self.vg)
        except errors.Unsafe as error:
            return State(False, why=str(error))
        if group is None:
            return State(False, why=f"there is no volume group '{self.vg}'")
        if not group.volumes or all(v.skip or v.partial for v in self.listing().volumes.values() if v.own):
            return State(True, whole=False)
        return State(False, why=f"no logical volume of the group '{self.vg}' is active")

    def start(self) -> None:
        """Activate what is not active; of that, a failure or a crash leaves nothing active.

        Where a device of the group is missing, what can be had without it is activated, with a warning that names the device.
        """
        down = self._down()
        if not any(v.partial for v in down):
            if down:
                with self.worded():
                    self.host.change(
                        ["vgchange", "--activate", "ly", "--", self.vg], undo=self._activate("ln", down), whole=True
                    )
            return
        # LVM refuses volumes that lack data, with status 5, and activates the others.
        said = self.host.change(
            ["vgchange", "--activate", "ly", "--activationmode", "degraded", "--", self.vg],
            undo=self._activate("ln", down), ok=(0, 5), whole=True,
        )  # fmt: skip
        if self.host.dry_run:
            return
        left = self._down()
        if failed := [v.name for v in left if not v.partial]:
            raise errors.HostError(
                f"pool '{self.pool.name}': {quoted(failed)} could not be activated: {said.stderr.strip()[-300:]}",
                pool=self.pool.name,
            )
        names = [v.name for v in left if v.listed]
        what = f"; without it {quoted(names)} cannot be used" if names else ""
        self.host.warn(f"pool '{self.pool.name}': {self.missing_device()}{what}; {lvmrefusals.CONNECT}")

    def _down(self) -> list[lvm.LogicalVolume]:
        return [v for v in self.listing().volumes.values() if v.own and not v.active and not v.skip]

    def stop(self) -> None:
        """Deactivate all volumes; ``Busy``, naming them and who has them open, when one is in use."""
        if lvm.group(self.host, self.vg) is None:
            return
        up = [v for v in self.listing().volumes.values() if v.own and v.active]
        used = [f"volume '{v.name}' is {self.use(v)}" for v in up if v.open and v.segtype not in lvm.POOLS]
        if used:
            raise errors.Busy(
                f"pool '{self.pool.name}' cannot be stopped: {errors.some(used, 10, '; ')}", pool=self.pool.name
            )
        if up:
            with self.worded():
                self.host.change(
                    ["vgchange", "--activate", "ln", "--", self.vg], undo=self._activate("ly", up), whole=True
                )

    def _activate(self, how: str, volumes: list[lvm.LogicalVolume]) -> list[str]:
        names = [f"{self.vg}/{v.name}" for v in sorted(volumes, key=lambda v: v.segtype in lvm.POOLS)]
        # --yes: LVM asks before it changes a snapshot, because its origin changes with it.
        return ["lvchange", "--yes", "--activate", how, "--", *names]

    # -- making and unmaking ------------------------------------------------------------------------------------------

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the group of the devices, and the thin pool. A group that exists is taken as it is if its devices fit."""
        group = lvm.group(self.host, self.vg)
        changed = group is None
        if group is None:
            self.build_group(overwrite)
        else:
            self.check_devices(group)
        return self._build_thin_pool(new=changed) or changed

    def _build_thin_pool(self, *, new: bool) -> bool:
        wanted = self.pool.thin_pool
        if wanted is None:
            return False
        # In a dry run a new group is not there to be asked.
        found = None if new else self.listing(select=lvm.quoted(lv_name=wanted.name)).volumes.get(wanted.name)
        if found is not None and found.segtype == "thin-pool":
            return False
        if found is not None:
            raise errors.AlreadyExists(
                f"pool '{self.pool.name}': '{wanted.name}' in the group '{self.vg}' is no thin pool but "
                f"a {found.segtype} volume",
                pool=self.pool.name,
            )
        # lvcreate takes whole sectors, and rounds them up to extents itself.
        size = (
            ["--extents", "100%FREE"] if wanted.capacity is None else ["--size", f"{-(-wanted.capacity // 512) * 512}b"]
        )
        self.new(wanted.name, ["--type", "thin-pool", *size, "--", self.vg])
        return True

    # -- facts ----------------------------------------------------------------------------------------------------------

    def stands_on(self) -> Iterable[str]:
        """The devices of the group, which the definition need not name."""
        group = lvm.group(self.host, self.vg)
        return () if group is None else [path for path in group.devices if path.startswith("/")]

    def storage(self) -> str | None:
        """The UUID of the group."""
        return (self.listing().uuid or self.group().uuid).replace("-", "")

    def changed_since(self, noted: str) -> str:
        """Whether the group of that name is another one, told from the volumes that are active."""
        now = lvm.active_uuid(self.host, self.vg)
        if not now:
            group = lvm.group(self.host, self.vg)
            now = group.uuid.replace("-", "") if group is not None else noted
        return "" if now == noted else f"another volume group has the name '{self.vg}' now"

    def live(self) -> Any:
        """The definition with the devices of the group: those it names under their names there, then the others."""
        group = self.group()
        named = {self.host.devices.number(d.path): d for d in self.pool.source.devices}
        found = [
            named.get(self.host.devices.number(path)) or PhysicalVolume(path=path)
            for path in group.devices
            if path[0] == "/"
        ]
        return replace(self.pool, source=replace(self.pool.source, devices=tuple(found)))

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """Every volume group of this host."""
        from poolkit.documents import FoundDevice, FoundSource

        for group in lvm.groups(host):
            devices = tuple(FoundDevice(path=path) for path in group.devices if path[0] == "/")
            yield FoundSource(devices=devices, name=group.name, format="lvm2")
