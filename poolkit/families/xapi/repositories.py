"""Storage repositories: which one a definition means, and how it comes and goes.

An SR is known to a pool of hosts (a record) and plugged by each host that uses it (a PBD). What poolkit plugs is marked with its
pool, and so is what it introduces: only that is unplugged and forgotten by it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import NamedTuple

from poolkit import errors
from poolkit.families.xapi import probing, srtypes
from poolkit.families.xapi.client import NULL, Api
from poolkit.families.xapi.failures import Failed, gone
from poolkit.families.xapi.records import Record
from poolkit.host.undo import Undo

MARK = "poolkit"
"""Key of a PBD's other-config: the uuid of the pool that plugged it."""
INTRODUCED = "poolkit-introduced"
"""Key of an SR's sm-config: the uuid of the pool that introduced it."""
BUILT = "poolkit-built"
"""Key of an SR's sm-config: a text drawn for the SR alone, by which one that was not finished is known."""


class Wanted(NamedTuple):
    """What a definition says of its repository. ``config`` gives the device-config with its secrets; asked when it is needed."""

    pool: str
    owner: str
    type: str
    label: str
    uuid: str | None
    filter: str | None
    host: str | None
    shared: bool
    content: str
    keys: tuple[str, ...]
    config: Callable[[], dict[str, str]]


class Repository(NamedTuple):
    """An SR as its record says it."""

    ref: str
    record: Record

    @property
    def uuid(self) -> str:
        """What it is called by everywhere and for ever."""
        return str(self.record["uuid"])

    @property
    def type(self) -> str:
        """Its type."""
        return str(self.record["type"])

    @property
    def kind(self) -> str:
        """How it keeps disks, as in the table of types; ``vhd`` for a type that is not there."""
        found = srtypes.known(self.type)
        return found.kind if found else "vhd"


class Repositories:
    """The work on the SR of one pool. ``undo`` makes an undo step of words and plain values."""

    def __init__(self, api: Api, wanted: Wanted, undo: Callable[..., Undo]) -> None:
        self.api = api
        self.host = api.host
        self.wanted = wanted
        self.undo = undo

    # -- which one --------------------------------------------------------------------------------------------------

    def find(self) -> Repository | None:
        """The SR that the definition means, if the hosts know it; ``InvalidArgument`` where several could be meant."""
        wanted = self.wanted
        found = [one for one in self._named() if one.type == srtypes.plain(wanted.type)]
        if len(found) > 1 and wanted.host is not None:
            (host,) = self._hosts(False)
            found = [one for one in found if host in [pbd["host"] for pbd in self.pbds(one).values()]]
        if len(found) > 1:
            raise errors.InvalidArgument(
                f"pool '{wanted.pool}': the hosts have several repositories {self.words}", pool=wanted.pool,
                hint=errors.Hint(
                    "name one by its uuid, ", errors.Setting("source/sr/@uuid", "<sr uuid=...>"),
                    f", or its host: {errors.some([one.uuid for one in found])}",
                ),
            )  # fmt: skip
        return found[0] if found else None

    @property
    def words(self) -> str:
        """The SR that is meant, in words."""
        wanted = self.wanted
        if wanted.uuid:
            return f"with the uuid {wanted.uuid}"
        return (
            f"of type {wanted.type} that match {wanted.filter}"
            if wanted.filter
            else f"called '{wanted.label}' of type {wanted.type}"
        )

    def _named(self) -> Iterator[Repository]:
        api, wanted = self.api, self.wanted
        if wanted.uuid:
            refs: list[str] = []
            with gone():
                refs.append(api.ref("SR.get_by_uuid", wanted.uuid))
            if not refs:
                return
            (ref,) = refs
            record = api.record("SR", ref)
            if record["type"] != srtypes.plain(wanted.type):
                raise errors.InvalidArgument(
                    f"pool '{wanted.pool}': repository {wanted.uuid} is of type {record['type']}, not {wanted.type}",
                    pool=wanted.pool,
                    hint=errors.Hint(
                        errors.Setting("source/format/@type", f"<format type='{record['type']}'/>", record["type"])
                    ),
                )  # fmt: skip
            yield Repository(ref, record)
        elif wanted.filter == "default-sr:true":
            for pool in api.records("pool").values():
                with gone():  # the default may be one that was forgotten
                    if pool["default_SR"] != NULL:
                        yield Repository(pool["default_SR"], api.record("SR", pool["default_SR"]))
        elif wanted.filter:
            key, _, value = wanted.filter.removeprefix("other-config:").partition("=")
            for ref, record in api.usable("SR", "other_config").items():
                if record["other_config"].get(key) == value:
                    yield Repository(ref, record)
        else:
            for ref in api.refs("SR.get_by_name_label", wanted.label):
                with gone():
                    yield Repository(ref, api.record("SR", ref))

    def need(self) -> Repository:
        """The SR; ``NotFound`` where the hosts do not know it."""
        found = self.find()
        if found is not None:
            return found
        wanted = self.wanted
        hint: str = f"there are {errors.some(self._others())}"
        if not (wanted.uuid or wanted.filter):
            hint = errors.Hint("make it: ", errors.remedy("build", wanted.pool), f"; {hint}")
        raise errors.NotFound(
            f"pool '{wanted.pool}': the hosts know no repository {self.words}", pool=wanted.pool, hint=hint
        )

    def _others(self) -> list[str]:
        records = self.api.usable("SR", "name_label", "type", "uuid").values()
        return [f"'{one['name_label']}' ({one['type']}, {one['uuid']})" for one in records] or ["none"]

    # -- hosts ------------------------------------------------------------------------------------------------------

    def _master(self) -> str:
        """The reference of the master."""
        for pool in self.api.records("pool").values():
            return str(pool["master"])
        raise errors.HostError(f"pool '{self.wanted.pool}': {self.api.where} is in no pool", pool=self.wanted.pool)

    def _hosts(self, shared: bool) -> list[str]:
        """The references of the hosts that use the SR: all that work, or the one of an SR that is not shared."""
        records = self.api.records("host")
        if shared:
            return [ref for ref, record in records.items() if record["enabled"]]
        name = self.wanted.host
        if name is None:
            return [self._master()]
        for ref, record in records.items():
            if name in map(record.get, ("uuid", "name_label", "hostname", "address")):
                return [ref]
        said = errors.some([str(record.get("name_label")) for record in records.values()])
        raise errors.NotFound(
            f"pool '{self.wanted.pool}': there is no host '{name}'", pool=self.wanted.pool, hint=f"there are {said}"
        )

    def pbds(self, found: Repository) -> dict[str, Record]:
        """The PBDs of an SR by reference."""
        records = {}
        for ref in self.api.refs("SR.get_PBDs", found.ref):
            with gone():
                records[ref] = self.api.record("PBD", ref)
        return records

    def plugged(self, found: Repository) -> bool:
        """Whether any host has the SR plugged."""
        return any(pbd["currently_attached"] for pbd in self.pbds(found).values())

    # -- coming -----------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Let the hosts know the SR, and each host that uses it have it plugged; its uuid. What is so already stays as it is."""
        wanted = self.wanted
        found = self.find() if wanted.uuid else self.need()
        if found is None:
            found = self._introduce()
        shared = bool(found.record["shared"])
        pbds = self.pbds(found)
        by_host = {pbd["host"]: ref for ref, pbd in pbds.items()}
        for host in self._hosts(True) if shared else list(by_host) or self._hosts(False):
            ref = by_host.get(host)
            if ref is None:
                self._plug_new(found, host)
            elif not pbds[ref]["currently_attached"]:
                self._plug(ref, pbds[ref])
        return found.uuid

    def _introduce(self) -> Repository:
        wanted, api = self.wanted, self.api
        srtypes.check(wanted.pool, wanted.type, dict.fromkeys(wanted.keys), whole=True)
        probing.check_type(api, wanted.pool, wanted.type, wanted.keys)
        self.host.step(
            f"introduce repository {wanted.uuid}",
            self.undo(f"forget repository {wanted.uuid}", "introduced", wanted.uuid),
        )
        what = [wanted.uuid, wanted.label, "", srtypes.plain(wanted.type), wanted.content, wanted.shared]
        ref = api.ref("SR.introduce", *what, {INTRODUCED: wanted.owner})
        return Repository(ref, api.record("SR", ref))

    def _plug_new(self, found: Repository, host: str) -> None:
        wanted, api = self.wanted, self.api
        srtypes.check(wanted.pool, wanted.type, dict.fromkeys(wanted.keys), whole=True)
        uuid = api.ref("host.get_uuid", host)
        undo = self.undo(f"remove the connection of host {uuid}", "pbd", found.uuid, uuid)
        self.host.step(f"connect host {uuid} with repository {found.uuid}", undo)
        record = {"host": host, "SR": found.ref, "device_config": wanted.config(), "other_config": {MARK: wanted.owner}}
        try:
            ref = api.ref("PBD.create", record)
        except Failed as failed:
            if failed.code != "PBD_EXISTS" or len(failed.params) < 3:
                raise
            ref = failed.params[2]  # somebody else was faster
        self._plugged(ref)

    def _plug(self, ref: str, pbd: Record) -> None:
        undo = self.undo(f"unplug connection {pbd['uuid']}", "plugged", pbd["uuid"])
        self.host.step(f"plug connection {pbd['uuid']}", undo)
        self.api.call("PBD.remove_from_other_config", ref, MARK)
        self.api.call("PBD.add_to_other_config", ref, MARK, self.wanted.owner)
        self._plugged(ref)

    def _plugged(self, ref: str) -> None:
        self.host.files.fault("plug")
        self.api.run("PBD.plug", ref, what="plug the repository")

    def build(self, *, overwrite: bool) -> bool:
        """Make the SR; False if the hosts know it. ``Unsafe`` where its device holds another one, unless ``overwrite``."""
        wanted, api = self.wanted, self.api
        if wanted.filter:
            raise errors.Unsupported(
                f"pool '{wanted.pool}': a repository that is found by a filter cannot be made", pool=wanted.pool,
                hint="leave the filter out, and give <name> and parameters",
            )  # fmt: skip
        if self.find() is not None:
            return False
        if wanted.uuid:
            raise errors.InvalidArgument(
                f"pool '{wanted.pool}': a new repository gets a uuid of its own; one that exists is introduced",
                pool=wanted.pool, hint=errors.Hint("introduce it: ", errors.remedy("start", wanted.pool)),
            )  # fmt: skip
        probing.check_type(api, wanted.pool, wanted.type, wanted.keys)
        host = self._master() if wanted.shared else self._hosts(False)[0]
        config = wanted.config()
        probing.look(api, wanted.pool, host, wanted.type, config, overwrite=overwrite)
        srtypes.check(wanted.pool, wanted.type, dict.fromkeys(wanted.keys), whole=True)
        token = token_hex(16)
        undo = self.undo(f"destroy the new repository {wanted.label}", "built", token)
        if not self.host.step(f"make repository '{wanted.label}' of type {wanted.type}", undo):
            return True
        what = [0, wanted.label, "", srtypes.plain(wanted.type), wanted.content, wanted.shared, {BUILT: token}]
        ref = api.run("SR.create", host, config, *what, what="make the repository")
        self.host.files.fault("mark")
        for pbd in api.refs("SR.get_PBDs", ref):
            api.call("PBD.remove_from_other_config", pbd, MARK)
            api.call("PBD.add_to_other_config", pbd, MARK, wanted.owner)
        return True

    # -- going ------------------------------------------------------------------------------------------------------

    def stop(self, found: Repository | None) -> None:
        """Unplug what was plugged for this pool. ``Busy`` where a machine has one of the disks; then all stays plugged."""
        for ref, pbd in self.pbds(found).items() if found else ():
            if not pbd["currently_attached"] or pbd["other_config"].get(MARK) != self.wanted.owner:
                continue
            undo = self.undo(f"plug connection {pbd['uuid']} again", "unplugged", pbd["uuid"])
            if self.host.step(f"unplug connection {pbd['uuid']}", undo):
                self.api.run("PBD.unplug", ref, what="unplug the repository")
                self.api.call("PBD.remove_from_other_config", ref, MARK)

    def erase(self) -> bool:
        """Destroy the SR; False if the hosts do not know it. ``Unsafe`` while it has disks."""
        wanted = self.wanted
        if wanted.filter:
            raise errors.Unsafe(
                f"pool '{wanted.pool}': a repository that is found by a filter is not destroyed", pool=wanted.pool,
                hint="name it by its uuid",
            )  # fmt: skip
        found = self.find()
        if found is None:
            return False
        disks = [vdi for vdi in self.api.records("VDI").values() if vdi["SR"] == found.ref]
        left = [vdi["name_label"] or vdi["uuid"] for vdi in disks if vdi["managed"] and vdi["type"] != "rrd"]
        if left:
            raise errors.Unsafe(
                f"pool '{wanted.pool}': the repository has {len(left)} disks ({errors.some(left)}); nothing was deleted",
                pool=wanted.pool, hint="delete its volumes first",
            )  # fmt: skip
        self.stop(found)
        if not self.pbds(found) and not self.host.dry_run:
            self._plug_new(found, self._hosts(bool(found.record["shared"]))[0])
            self.stop(found)
        if self.host.step(f"destroy repository {found.uuid}"):
            self.api.run("SR.destroy", found.ref, what="destroy the repository")
        return True

    def forget(self) -> bool:
        """Let the hosts forget the SR if it was introduced for this pool; says whether it was. Its data stays."""
        found = self.find() if self.wanted.uuid else None
        if found is None or found.record["sm_config"].get(INTRODUCED) != self.wanted.owner:
            return False
        self.stop(found)
        if self.host.step(f"forget repository {found.uuid}"):
            self.api.run("SR.forget", found.ref, what="forget the repository")
        return True

    # -- undo -------------------------------------------------------------------------------------------------------

    def take_back(self, kind: str, *more: str) -> None:
        """What an undo step described: see the calls of ``undo``. Only of what is still as it was made."""
        back: dict[str, Callable[..., None]] = {
            "introduced": self._back_introduced, "pbd": self._back_pbd, "plugged": self._back_plugged,
            "unplugged": self._back_unplugged, "built": self._back_built,
        }  # fmt: skip
        back[kind](*more)

    def _back_introduced(self, uuid: str) -> None:
        with gone():
            ref = self.api.ref("SR.get_by_uuid", uuid)
            if self.api.record("SR", ref)["sm_config"].get(INTRODUCED) == self.wanted.owner:
                self.api.run("SR.forget", ref)

    def _back_pbd(self, sr: str, host: str) -> None:
        with gone():
            found = self.api.ref("SR.get_by_uuid", sr)
            there = self.api.ref("host.get_by_uuid", host)
            for ref, pbd in self.pbds(Repository(found, {})).items():
                if pbd["host"] == there and pbd["other_config"].get(MARK) == self.wanted.owner:
                    self.api.run("PBD.unplug", ref)
                    self.api.call("PBD.destroy", ref)

    def _back_plugged(self, uuid: str) -> None:
        with gone():
            ref = self.api.ref("PBD.get_by_uuid", uuid)
            if self.api.record("PBD", ref)["other_config"].get(MARK) == self.wanted.owner:
                self.api.run("PBD.unplug", ref)
                self.api.call("PBD.remove_from_other_config", ref, MARK)

    def _back_unplugged(self, uuid: str) -> None:
        with gone():
            ref = self.api.ref("PBD.get_by_uuid", uuid)
            if not self.api.record("PBD", ref)["currently_attached"]:
                self.api.call("PBD.remove_from_other_config", ref, MARK)
                self.api.call("PBD.add_to_other_config", ref, MARK, self.wanted.owner)
                self.api.run("PBD.plug", ref)

    def _back_built(self, token: str) -> None:
        self.api.settle("SR.create")
        for ref, record in self.api.usable("SR", "sm_config").items():
            if record["sm_config"].get(BUILT) == token:
                for pbd in self.api.refs("SR.get_PBDs", ref):
                    self.api.run("PBD.unplug", pbd)
                self.api.run("SR.destroy", ref)
