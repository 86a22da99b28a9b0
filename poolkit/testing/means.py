"""What the tests of the contract are made of: a pool, its volumes, their bytes, and what no listing may be."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors, registry
from poolkit.backend import Backend, VolumeInfo, check_volume_name
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume

SHOWN = 1 << 20
"""Bytes of a volume that are written and compared."""


class ContractMeans:
    """See :class:`poolkit.testing.BackendContract`."""

    capacity = 8 << 20
    """Bytes of the volumes the tests make."""
    volume_names: tuple[str, ...] = ("first", "second")
    """Names that the backend accepts for new volumes."""
    told_apart = True
    """Whether a volume is told from another one that was made later under its name; partitions are told by their place."""
    attaches_here = True
    """Whether ``attach`` makes a volume usable on this machine; not if it is for a machine elsewhere."""
    overwrite = False
    """Whether ``build`` needs ``overwrite``."""

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        """An engine whose files are all below the test's own folder."""
        with Engine(tmp_path / "root") as engine:
            self.prepare(engine)
            yield engine

    def prepare(self, engine: Engine) -> None:
        """Give a new engine what the pool needs beside its definition, such as a secret."""

    def volume_xml(self, name: str, capacity: int | None = None) -> str:
        """The definition of a new volume."""
        size = self.capacity if capacity is None else capacity
        return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"

    def started(self, engine: Engine, pool_xml: str) -> Pool:
        """The pool, defined, built if its type can be, and active."""
        pool = engine.define(pool_xml)
        if "build" in self.verbs(pool):
            pool.build(overwrite=self.overwrite)
        pool.start()
        return pool

    def made(self, pool: Pool, name: str | None = None) -> Volume:
        """A new volume."""
        return pool.create_volume(self.volume_xml(name or self.volume_names[0]))

    def traces(self) -> object:
        """What a pool that is up, or was built, leaves on the machine, to be compared: mounts, device nodes, a signature ..."""
        return None

    @staticmethod
    def verbs(pool: Pool) -> tuple[str, ...]:
        """The optional verbs of the pool's backend."""
        return registry.backend(pool.info.type).verbs()

    def require(self, pool: Pool, *verbs: str) -> None:
        """Skip the test, by name, for a type without one of ``verbs``."""
        missing = [verb for verb in verbs if verb not in self.verbs(pool)]
        if missing:
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' have no {' and no '.join(missing)}")

    def require_attach(self, pool: Pool) -> None:
        """Skip the test, by name, for a type whose volumes need no attaching here."""
        self.require(pool, "attach", "detach")
        if not self.attaches_here:
            pytest.skip(
                f"not applicable: volumes of type '{pool.info.type}' are attached to machines, not to this host"
            )

    @staticmethod
    def backend(engine: Engine, pool: Pool) -> Backend:
        """The pool's backend, which asks the storage and not the inventory."""
        definition = pool.definition()
        return registry.executor(definition, engine.host.operation())

    def listed(self, engine: Engine, pool: Pool, known: Iterable[VolumeInfo] = ()) -> list[VolumeInfo]:
        """What the backend lists now, each volume checked."""
        found = list(self.backend(engine, pool).volumes({one.name: one for one in known}))
        target = getattr(getattr(pool.definition(), "target", None), "path", None)
        check_listing(found, target)
        return found

    @staticmethod
    def facts(info: VolumeInfo) -> tuple[object, ...]:
        """What of a volume only a change of it changes."""
        return info.name, info.key, info.path, info.capacity

    def volume(self, pool: Pool) -> Volume:
        """A volume to work on: a new one, or the first of those that the storage has."""
        if "create" in self.verbs(pool):
            return self.made(pool)
        volumes = pool.volumes()
        assert volumes, f"pools of type '{pool.info.type}' have no create: the storage of the test must have a volume"
        return volumes[0]

    def content(self, engine: Engine, volume: Volume, length: int, offset: int = 0) -> bytes:
        """Bytes of a volume, by every way there is to read them: they must agree."""
        ways: dict[str, bytes] = {}
        if "download" in self.verbs(volume.pool):
            out = BytesIO()
            volume.download(out, offset=offset, length=length)
            ways["download"] = out.getvalue()
        with contextlib.suppress(errors.Unsupported):
            backend = self.backend(engine, volume.pool)
            with backend.source(backend.look(volume.name, volume.info)).open() as fd:
                ways["opening it"] = os.pread(fd, length, offset)
        if not ways:
            pytest.skip(
                f"not applicable: volumes of type '{volume.pool.info.type}' cannot be read: no download, no open_volume"
            )
        for way, data in ways.items():
            assert len(data) == length, (
                f"{way} gave {len(data)} bytes of volume '{volume.name}' where {length} were asked for"
            )
        assert len(set(ways.values())) == 1, f"{' and '.join(ways)} give different bytes of volume '{volume.name}'"
        return next(iter(ways.values()))

    def fill(self, engine: Engine, volume: Volume, offset: int = 0) -> bytes:
        """Upload new bytes to a volume, and see them there; returns them."""
        data = os.urandom(min(SHOWN, volume.info.capacity - offset))
        volume.upload(BytesIO(data), offset=offset)
        assert self.content(engine, volume, len(data), offset) == data, (
            f"what was uploaded to volume '{volume.name}' is not what it holds afterwards"
        )
        return data


def check_listing(found: Iterable[VolumeInfo], target: str | None = None) -> None:
    """Raise ``AssertionError``, with the reason, for volumes that cannot be those of one pool.

    ``target`` is the folder of volumes that name neither path nor key.
    """
    owners: dict[tuple[str, str], str] = {}
    for info in found:
        check_volume_name(info.name)
        path = info.path or (f"{target}/{info.name}" if target else None)
        assert path or info.key, f"volume '{info.name}' has neither path nor key"
        for what, value in (("name", info.name), ("path", path), ("key", info.key or path)):
            if value and (what, value) in owners:
                raise AssertionError(
                    f"the volumes '{owners[what, value]}' and '{info.name}' have the same {what}: {value}"
                )
            owners[what, value or ""] = info.name
        for what in (
            "capacity",
            "allocation",
            "physical",
            "inode",
            "mode",
            "owner",
            "group",
            "atime",
            "mtime",
            "ctime",
        ):
            number = getattr(info, what)
            assert isinstance(number, int) and number >= 0, f"volume '{info.name}' has the {what} {number!r}"
        assert info.type in ("file", "block", "dir", "network", "netdir"), (
            f"volume '{info.name}' has the type {info.type!r}"
        )
        try:
            json.dumps(dict(info.detail or {}))
        except TypeError as error:
            raise AssertionError(f"volume '{info.name}': its details are no plain values: {error}") from error


def root_of(engine: Engine) -> str:
    """The folder that holds all files of an engine."""
    return engine.locations.storage.rpartition("/")[0]
