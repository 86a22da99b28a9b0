"""The contract of the listing, and of what a backend does to its volumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import Recorded
from poolkit.engine import Engine
from poolkit.testing.means import SHOWN, ContractMeans


class VolumeContract(ContractMeans):
    """The tests of a listing and of the verbs of volumes."""

    # -- the listing ------------------------------------------------------------------------------------------------

    def test_each_listed_volume_is_sound(self, engine: Engine, pool_xml: str) -> None:
        """Names that can be given, keys and paths that no other has, sizes of at least 0, details that can be stored."""
        pool = self.started(engine, pool_xml)
        if "create" in self.verbs(pool):
            made = [self.made(pool, name) for name in self.volume_names[:2]]
            assert len(made) == 2, "the test needs two names for volumes"
        found = self.listed(engine, pool)
        assert found, "nothing is listed: the storage of the test must have a volume"
        names, shown = sorted(one.name for one in found), sorted(volume.name for volume in pool.volumes())
        assert names == shown, f"the backend lists {names}, and the pool shows {shown}"

    def test_a_listing_knows_what_has_not_changed(self, engine: Engine, pool_xml: str) -> None:
        """A volume whose stamp is the same is the same."""
        pool = self.started(engine, pool_xml)
        self.volume(pool)
        first = {one.name: one for one in self.listed(engine, pool)}
        again = {one.name: one for one in self.listed(engine, pool, first.values())}
        assert again.keys() == first.keys(), "the volumes of two listings differ although nothing happened"
        for name, info in again.items():
            if info.stamp and info.stamp == first[name].stamp:
                assert info == first[name], f"the facts of volume '{name}' changed, its stamp did not"

    def test_a_resize_is_seen_by_the_next_listing(self, engine: Engine, pool_xml: str) -> None:
        """A volume that was resized is not taken from the last listing."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "resize")
        volume = self.volume(pool)
        before = self.listed(engine, pool)
        size = self.backend(engine, pool).rounded(2 * volume.info.capacity)
        volume.resize(size)
        (now,) = [one for one in self.listed(engine, pool, before) if one.name == volume.name]
        assert now.capacity == size, f"the listing took the old size of volume '{volume.name}' from the last one"

    def test_a_format_on_record_stays(self, engine: Engine, pool_xml: str) -> None:
        """The record of a file decides over what is in it, in a listing and at a single look; that of another file does not."""
        pool = self.started(engine, pool_xml)
        backend: Any = self.backend(engine, pool)
        if not backend.keeps_formats:
            pytest.skip(f"not applicable: pools of type '{pool.info.type}' keep no formats")
        volume = self.volume(pool)
        found = backend.look(volume.name, None)
        other = "qcow2" if found.format != "qcow2" else "vmdk"
        for inode, format in ((found.inode, other), (found.inode + 1, found.format)):
            recorded = Recorded(inode, format)
            told = [one for one in backend.volumes({}, recorded={volume.name: recorded}) if one.name == volume.name]
            for way, info in (("looked at", backend.look(volume.name, None, recorded=recorded)), ("listed", told[0])):
                assert info.format == format, (
                    f"volume '{volume.name}', {way}, has the format {info.format}; what is on record says {format}"
                    if inode == found.inode
                    else f"volume '{volume.name}', {way}, was given the format on record of another file"
                )

    # -- volumes ----------------------------------------------------------------------------------------------------

    def test_a_volume_is_found_every_way(self, engine: Engine, pool_xml: str) -> None:
        """By name, path and key, before and after a refresh and a restart of the pool."""
        pool = self.started(engine, pool_xml)
        volume = self.volume(pool)
        name = volume.name
        if "create" in self.verbs(pool):
            assert volume.info.capacity >= self.capacity, (
                f"volume '{name}' has {volume.info.capacity} bytes where {self.capacity} were asked for"
            )
        for again in (lambda: None, pool.refresh, lambda: (pool.destroy(), pool.start())):
            again()
            found = pool.volume(name)
            assert found.info.capacity == volume.info.capacity, f"volume '{name}' changed its capacity by itself"
            by_path, by_key = engine.volume_by_path(found.path), engine.volume_by_key(found.key)
            assert by_path.name == name, f"the path of volume '{name}' leads to '{by_path.name}'"
            assert by_key.name == name, f"the key of volume '{name}' leads to '{by_key.name}'"
            assert name in [v.name for v in pool.volumes()], f"volume '{name}' is not listed"
        found = engine.volume_by_path(volume.path)
        assert found.definition() == volume.definition(), (
            f"by its path volume '{name}' has other facts than by its name"
        )

    def test_a_name_is_given_once(self, engine: Engine, pool_xml: str) -> None:
        """A second volume of the same name is refused and the first one keeps its data."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        first = self.made(pool)
        with pytest.raises(errors.VolumeExists, match=first.name):
            pool.create_volume(self.volume_xml(first.name))
        assert pool.volume(first.name).key == first.key, f"the volume '{first.name}' has another key now"

    def test_many_are_made_or_none(self, engine: Engine, pool_xml: str) -> None:
        """Volumes that are made in one go are all there, and none of them if one cannot be made."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "delete")
        first = self.made(pool)
        before = [self.facts(one) for one in self.listed(engine, pool)]
        documents = [self.volume_xml(name) for name in self.volume_names[:2]]
        with pytest.raises(errors.VolumeExists, match=first.name):
            pool.create_volumes(reversed(documents))
        now = [self.facts(one) for one in self.listed(engine, pool)]
        assert now == before, f"of volumes made in one go of which one failed, some were left: {now}, not {before}"
        shown = [volume.name for volume in pool.volumes()]
        assert shown.count(first.name) == 1 and self.volume_names[1] not in shown, f"the pool shows {shown}"
        first.delete()
        made = pool.create_volumes(documents)
        assert [volume.name for volume in made] == list(self.volume_names[:2]), "they are not in the order asked for"
        there = {one.name: self.facts(one) for one in self.listed(engine, pool)}
        for volume in made:
            assert there.get(volume.name) == self.facts(pool.volume(volume.name).info), (
                f"volume '{volume.name}' is on record as another than it is"
            )

    def test_a_foreign_volume_survives_a_failed_create(self, engine: Engine, pool_xml: str, tmp_path: Path) -> None:
        """What somebody else made under the wanted name since the last listing is neither taken over nor undone."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        with Engine(tmp_path / "another-root") as another:
            self.prepare(another)
            unaware = another.define(pool_xml)
            unaware.start()
            foreign = self.made(pool)
            data = self.fill(engine, foreign) if "upload" in self.verbs(pool) else None
            with pytest.raises(errors.PoolkitError) as caught:
                self.made(unaware)
        names = [one.name for one in self.listed(engine, pool)]
        assert foreign.name in names, (
            f"a failed create deleted the volume '{foreign.name}' that had the name already: undo by identity, not by name"
        )
        assert isinstance(caught.value, errors.VolumeExists), f"it must be VolumeExists, not {caught.value!r}"
        found = self.backend(engine, pool).look(foreign.name, None)
        identity = self.backend(engine, pool).identity
        assert identity(found) == identity(foreign.info), f"the volume '{foreign.name}' was replaced by a failed create"
        if data is not None:
            assert self.content(engine, foreign, len(data)) == data, (
                "a failed create changed the volume that had the name"
            )

    def test_work_meets_no_volume_that_came_later(self, engine: Engine, pool_xml: str, tmp_path: Path) -> None:
        """What was made under the name of a listed volume since is not touched by work on the one that was listed."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "delete")
        if not self.told_apart:
            pytest.skip("not applicable: what identifies a volume of this type is not new with each volume")
        verbs = self.verbs(pool)
        listed = self.made(pool)
        with contextlib.ExitStack() as stack:
            another = stack.enter_context(Engine(tmp_path / "another-root"))
            self.prepare(another)
            there = another.define(pool_xml)
            there.start()
            if os.path.isfile(listed.path):
                stack.enter_context(open(listed.path, "rb"))  # its inode number is given to no other while it is open
            there.volume(listed.name).delete()
            later = self.made(there, listed.name)
            data = self.fill(another, later) if "upload" in verbs else b""
            before = self.facts(later.info)
        work: dict[str, Callable[[], object]] = {
            "download": lambda: listed.download(BytesIO()),
            "upload": lambda: listed.upload(BytesIO(b"x")),
            "resize": lambda: listed.resize(2 * listed.info.capacity),
            "permit": lambda: listed.permit(mode=0o640),
            "wipe": listed.wipe,
            "delete": listed.delete,
        }
        for verb, do in work.items():
            if verb not in verbs:
                continue
            try:
                do()
            except errors.Unsafe:
                pass
            except errors.PoolkitError as error:
                raise AssertionError(f"{verb} of a volume that was replaced must be Unsafe, not {error!r}") from error
            else:
                raise AssertionError(
                    f"{verb} took another volume, made later under the name '{listed.name}', for the one that was listed: "
                    "identity must tell them apart"
                )
        found = [one for one in self.listed(engine, pool) if one.name == listed.name]
        assert [self.facts(one) for one in found] == [before], (
            f"the later volume '{listed.name}' was changed or deleted"
        )
        if data:
            pool.refresh()
            assert self.content(engine, pool.volume(listed.name), len(data)) == data, (
                f"the later volume '{listed.name}' was written to"
            )

    def test_a_volume_can_be_deleted_once(self, engine: Engine, pool_xml: str) -> None:
        """Deleting is repeatable; the name is free again."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "delete")
        volume = self.made(pool)
        assert volume.delete(), "delete of a volume that is there says that nothing changed"
        assert volume.name not in [v.name for v in pool.volumes()], "the pool shows a volume that was deleted"
        left = [one.name for one in self.listed(engine, pool)]
        assert volume.name not in left, f"delete said that it deleted volume '{volume.name}', which is there"
        assert not volume.delete(), "a second delete says that something changed"
        self.made(pool)

    def test_a_volume_grows(self, engine: Engine, pool_xml: str) -> None:
        """Growing works without a flag, shrinking only with it."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "resize")
        volume = self.volume(pool)
        size = volume.info.capacity
        assert volume.resize(size * 2), "a resize to the double says that nothing changed"
        now = pool.volume(volume.name).info.capacity
        assert now == size * 2, f"volume '{volume.name}' has {now} bytes after a resize to {size * 2}"
        with pytest.raises(errors.InvalidArgument) as caught:
            volume.resize(size)
        assert "shrink" in (caught.value.hint or ""), "the hint does not say how data may be cut off"

    def test_what_is_uploaded_is_there(self, engine: Engine, pool_xml: str) -> None:
        """Bytes come back as they went in, by every way of reading, also from an offset; the second time as well."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "upload")
        volume = self.volume(pool)
        head = self.fill(engine, volume)[:4096]
        self.fill(engine, volume, offset=4096)
        assert self.content(engine, volume, 4096) == head, "an upload from byte 4096 on changed bytes before that"

    def test_a_clone_has_the_same_bytes(self, engine: Engine, pool_xml: str) -> None:
        """The clone equals its source and is independent of it."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "clone", "upload")
        volume = self.made(pool)
        data = self.fill(engine, volume)
        clone = volume.clone(self.volume_names[1])
        self.fill(engine, volume)
        assert self.content(engine, clone, len(data)) == data, "the clone has not the bytes that its source had"

    def test_a_larger_clone_ends_in_zeros(self, engine: Engine, pool_xml: str) -> None:
        """What a clone has beyond its source's end reads as zeros, also where another volume was before."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create", "clone", "upload", "delete")
        volume = self.made(pool)
        data = self.fill(engine, volume)
        size = volume.info.capacity
        xml = self.volume_xml(self.volume_names[1], self.backend(engine, pool).rounded(2 * size))
        before = pool.create_volume(xml)
        self.fill(engine, before, size)
        before.delete()
        clone = volume.clone(xml)
        assert clone.info.capacity >= 2 * size, (
            f"the clone has {clone.info.capacity} bytes, not the {2 * size} asked for"
        )
        assert self.content(engine, clone, len(data)) == data, "the clone has not the bytes of its source"
        beyond = self.content(engine, clone, min(SHOWN, size), size)
        assert not beyond.strip(b"\0"), "beyond its source's end the clone has bytes of a volume that was deleted"

    def test_a_wipe_leaves_nothing(self, engine: Engine, pool_xml: str) -> None:
        """After a wipe with zeros no old byte can be read through the volume, at its end neither."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "wipe", "upload")
        volume = self.volume(pool)
        end = max(0, volume.info.capacity - 65536)
        self.fill(engine, volume)
        self.fill(engine, volume, offset=end)
        volume.wipe()
        volume = pool.volume(volume.name)
        for offset in (0, end):
            length = min(SHOWN, volume.info.capacity - offset)
            left = self.content(engine, volume, length, offset)
            assert not left.strip(b"\0"), (
                f"bytes from {offset} on can still be read after the wipe of volume '{volume.name}'"
            )

    def test_attaching_is_repeatable(self, engine: Engine, pool_xml: str) -> None:
        """What is attached is there and says where it is; a second time changes nothing; detached it is as it was."""
        pool = self.started(engine, pool_xml)
        self.require_attach(pool)
        volume = self.volume(pool)
        before = self.facts(volume.info)
        for _ in range(2):
            assert volume.attach(), f"the first attach of volume '{volume.name}' says that nothing changed"
            assert os.path.exists(volume.path), f"volume '{volume.name}' is attached, and nothing is at '{volume.path}'"
            assert not volume.attach(), "a second attach says that something changed"
            holders = (volume.look().info.detail or {}).get("attached")
            assert holders == [engine.host.node.name], f"it is attached here, and {holders} is said to have it"
            if "delete" in self.verbs(pool):
                with pytest.raises(errors.Busy):
                    volume.delete()
            assert volume.detach(), f"the first detach of volume '{volume.name}' says that nothing changed"
            assert not os.path.exists(volume.path), f"volume '{volume.name}' is detached, and '{volume.path}' is there"
            assert not volume.detach(), "a second detach says that something changed"
            now = volume.look().info
            assert "attached" not in (now.detail or {}), "it is detached, and somebody is said to have it"
            assert self.facts(now) == before, f"volume '{volume.name}' is another one after it was attached"

    def test_bad_names_are_refused(self, engine: Engine, pool_xml: str) -> None:
        """Names that could leave the pool or pass for options never reach the storage."""
        pool = self.started(engine, pool_xml)
        self.require(pool, "create")
        from poolkit.xmlmap import replace

        before = [one.name for one in self.listed(engine, pool)]
        good = pool.parse_volume(self.volume_xml("good"))
        for name in ("..", ".", "-rf", "a\nb", "x" * 256):
            try:
                pool.create_volume(replace(good, name=name))
            except errors.PoolkitError:
                pass
            else:
                raise AssertionError(f"the name {name!r} was accepted")
        names = [one.name for one in self.listed(engine, pool)]
        assert names == before, f"a create that was refused changed the listing from {before} to {names}"
