"""Random folders of documents, and random deeds of others between two applies, each the same again for the same seed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from poolkit import Engine, errors
from poolkit.engine.plan.entries import Applied

POOLS = "abcd"
VOLUMES = "tuvwxyz"
WORDS = {"restart": True, "shrink": True, "replace": True, "delete": True}
"""All that an apply may be allowed, but for building over something."""


class Volume(NamedTuple):
    """What the document of a volume says; ``below`` is a volume it stands on, ``source`` one that it is copied from."""

    capacity: int
    format: str
    allocation: int
    mode: int | None = None
    below: tuple[str, str] | None = None
    source: tuple[str, str] | None = None
    file: str | None = None


class Pool(NamedTuple):
    """What the document of a pool says."""

    state: str | None
    autostart: bool | None
    cow: bool | None
    within: str | None
    volumes: dict[str, Volume | None]


class Folder:
    """The documents of one folder as plain values: a second folder is a first one with some of them changed."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.pools: dict[str, Pool | None] = {}
        self.secrets: dict[str, str | None] = {}
        """The description of each; None if it is to be absent."""
        self.flavors: dict[str, str | None] = {}
        for name in POOLS:
            if chance.random() < 0.8:
                self.pools[name] = self._pool(name)
        for name in ("one", "two"):
            if chance.random() < 0.5:
                self.secrets[name] = f"the {chance.randrange(9)}th"
            if chance.random() < 0.5:
                self.flavors[name] = f"the {chance.randrange(9)}th"

    def _pool(self, name: str) -> Pool:
        chance = self.chance
        there = [one for one, pool in self.pools.items() if pool is not None and pool.state != "inactive"]
        pool = Pool(
            chance.choice([None, "active", "active", "inactive"]), chance.choice([None, True, False]),
            chance.choice([None, None, True, False]), chance.choice(there) if there and chance.random() < 0.2 else None, {},
        )  # fmt: skip
        self.pools[name] = pool
        if pool.state != "inactive":
            for volume in VOLUMES:
                if chance.random() < 0.4:
                    pool.volumes[volume] = self.volume(name, volume)
        return pool

    def volume(self, pool: str, name: str) -> Volume:
        """A volume that may stand on one of those before it."""
        chance = self.chance
        size = chance.choice([1, 511, 4096, 65_537, 200_000, chance.randrange(1, 1 << 20)])
        made = Volume(
            size, chance.choice(["raw", "raw", "qcow2"]), chance.choice([0, size]), chance.choice([None, 0o600, 0o644])
        )
        others = [
            (one, volume) for one, facts in self.pools.items() if facts is not None for volume, said in facts.volumes.items()
            if said is not None and (one, volume) != (pool, name) and self._before((one, volume), (pool, name))
        ]  # fmt: skip
        images = [one for one in others if self.pools[one[0]].volumes[one[1]].format == "qcow2"]  # type: ignore[union-attr]
        way = chance.random()
        if way < 0.2 and images:
            return made._replace(format="qcow2", allocation=0, below=chance.choice(images))
        if way < 0.35 and others:
            return made._replace(capacity=2 << 20, allocation=0, source=chance.choice(others))
        if way < 0.5:
            return made._replace(capacity=0, allocation=0, format="raw", file=chance.choice(["one.img", "two.img"]))
        return made

    @staticmethod
    def _before(one: tuple[str, str], other: tuple[str, str]) -> bool:
        """What is made first; by name, and in no order of the folder: volumes from z to t."""
        return (one[0], other[1]) < (other[0], one[1])

    def write(self, folder: Path, storage: Path) -> None:
        """Make the folder anew."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, file in enumerate(("one.img", "two.img"), 1):
            (folder / file).write_bytes(bytes([number]) * 70_000)
        for secret, text in self.secrets.items():
            wanted = "" if text is not None else "<wanted xmlns='urn:poolkit:secret:1' state='absent'/>"
            (folder / f"secret-{secret}.xml").write_text(
                f"<secret><description>{text}</description><usage type='ceph'><name>{secret}</name></usage>{wanted}</secret>"
            )
        # A pool that is a backend of a flavor does not go.
        backend = "a" if self.pools.get("a") is not None else "elsewhere"
        flavors = [
            f"<flavor><name>{name}</name><description>{text}</description><backend pool='{backend}'/>{gone}</flavor>"
            for name, text in self.flavors.items()
            for gone in ("" if text is not None else "<wanted state='absent'/>",)
        ]
        (folder / "flavors.xml").write_text(f"<documents>{''.join(flavors)}</documents>")
        for name, pool in self.pools.items():
            self._write_pool(folder, storage, name, pool)

    def place(self, storage: Path, name: str) -> Path:
        """The directory of a pool."""
        pool = self.pools.get(name)
        return storage / name if pool is None or pool.within is None else self.place(storage, pool.within) / name

    def _write_pool(self, folder: Path, storage: Path, name: str, pool: Pool | None) -> None:
        wanted, more = "state='absent'", ""
        if pool is not None:
            wanted = "build='if-empty'" + (f" state='{pool.state}'" if pool.state else "")
            if pool.autostart is not None:
                wanted += f" autostart='{'yes' if pool.autostart else 'no'}'"
            if pool.cow is not None:
                more = f"<features><cow state='{'yes' if pool.cow else 'no'}'/></features>"
        (folder / f"{name}.xml").write_text(
            f"<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name>{more}<target>"
            f"<path>{self.place(storage, name)}</path></target><pk:wanted {wanted}/></pool>"
        )
        if pool is not None:
            (folder / name).mkdir()
            for volume, facts in pool.volumes.items():
                (folder / name / f"{volume}.xml").write_text(self._volume(storage, volume, facts))

    def _volume(self, storage: Path, name: str, volume: Volume | None) -> str:
        space = "xmlns:pkv='urn:poolkit:volume:1'"
        if volume is None:
            return f"<volume {space}><name>{name}</name><pkv:wanted state='absent'/></volume>"
        more = ""
        if volume.below is not None:
            path = self.place(storage, volume.below[0]) / volume.below[1]
            more = f"<backingStore><path>{path}</path><format type='qcow2'/></backingStore>"
        if volume.source is not None:
            more = f"<pkv:content pool='{volume.source[0]}' volume='{volume.source[1]}'/>"
        if volume.file is not None:
            more = f"<pkv:content file='../{volume.file}'/>"
        size = (
            f"<capacity>{volume.capacity}</capacity><allocation>{volume.allocation}</allocation>"
            if volume.capacity
            else ""
        )
        mode = f"<permissions><mode>{volume.mode:04o}</mode></permissions>" if volume.mode is not None else ""
        return f"<volume {space}><name>{name}</name>{size}<target><format type='{volume.format}'/>{mode}</target>{more}</volume>"

    def carrying(self) -> set[tuple[str, str]]:
        """Volumes that others stand on or are copied from: the storage refuses to take them away or to shrink them."""
        volumes = [
            v for pool in self.pools.values() if pool is not None for v in pool.volumes.values() if v is not None
        ]
        return {one for v in volumes for one in (v.below, v.source) if one is not None}

    def change(self) -> None:
        """Some documents say something else then, some are gone, some say that a thing is to be gone."""
        chance = self.chance
        for name, pool in list(self.pools.items()):
            for volume, facts in list(pool.volumes.items()) if pool is not None else ():
                if facts is None or pool is None or (name, volume) in self.carrying():
                    continue
                way = chance.random()
                if way < 0.1:
                    pool.volumes[volume] = None
                elif way < 0.2:
                    del pool.volumes[volume]
                elif way < 0.5:
                    pool.volumes[volume] = self.volume(name, volume)
            if pool is not None:
                self.pools[name] = pool._replace(
                    autostart=chance.choice([pool.autostart, None, True]), cow=chance.choice([pool.cow, None, True])
                )
        for texts in (self.secrets, self.flavors):
            for name in list(texts):
                if chance.random() < 0.5:
                    texts[name] = chance.choice(["changed", None])


def deeds(seed: str, engine: Engine, spared: set[tuple[str, str]]) -> None:
    """What others do meanwhile, but not to the volumes that are ``spared``.

    What is done to a thing follows from its name and the seed, not from what else there is.
    """
    for pool in [engine.pool(info.name) for info in engine.pools()]:
        chance = random.Random(f"{seed} {pool.name}")
        way = chance.random()
        if way < 0.15:
            pool.autostart(not pool.info.autostart)
        if not pool.info.active:
            if way < 0.3:
                pool.undefine(force=True)
            continue
        for volume in files(pool):
            way = random.Random(f"{seed} {pool.name}/{volume.name}").random()
            if (pool.name, volume.name) in spared:
                continue
            if way < 0.1:
                volume.delete()
            elif way < 0.2:
                with contextlib.suppress(errors.Unsafe):  # what it stands on may be in a pool that is not active
                    volume.resize(volume.info.capacity + 4096)
        if chance.random() < 0.3:
            pool.create_volume(f"<volume><name>foreign</name><capacity>{chance.randrange(1, 9999)}</capacity></volume>")
        if chance.random() < 0.3:
            pool.destroy()


def files(pool: Any) -> list[Any]:
    """The volumes of a pool but for folders: those of pools within it are listed or not, as it comes."""
    return [volume for volume in pool.volumes() if volume.info.type == "file"]


class Random:
    """A world of one seed: twins of the same seed are alike but for their places."""

    def __init__(self, place: Path, seed: str) -> None:
        self.seed = seed
        self.root, self.documents, self.storage = place / "root", place / "documents", place / "storage"
        self.storage.mkdir(parents=True)
        self.folder = Folder(random.Random(seed))
        self.folder.write(self.documents, self.storage)

    def later(self) -> None:
        """Others have done something, and the folder was changed."""
        with Engine(self.root) as engine:
            deeds(f"{self.seed} deeds", engine, self.folder.carrying())
        self.folder.change()
        self.folder.write(self.documents, self.storage)

    def apply(self, engine: Engine, **how: Any) -> Applied:
        """Apply the folder with all words."""
        return engine.plan(self.documents).apply(**(WORDS | how))

    def told(self) -> dict[str, Any]:
        """All that is there, without what is different in a twin."""
        facts: dict[str, Any] = {}
        with Engine(self.root) as engine:
            for info in engine.pools():
                pool = engine.pool(info.name)
                text = pool.xml(inactive=True).replace(info.uuid, "").replace(str(self.storage), "")
                facts[info.name] = (text, info.active, info.autostart)
                for volume in files(pool) if info.active else ():
                    now = volume.info
                    below = (now.detail or {}).get("backing")
                    content = Path(volume.path).read_bytes() if now.format == "raw" else None
                    facts[f"{info.name}/{volume.name}"] = (
                        now.format, now.capacity, now.mode, below and os.path.basename(below), content,
                    )  # fmt: skip
            for flavor in engine.flavors.list():
                facts[f"flavor {flavor.name}"] = flavor.xml()
            for secret in engine.secrets():
                facts[str(secret.definition.usage)] = secret.definition.description
        return facts
