"""What the engine promises about definitions, states and look-ups."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.events import Event
from poolkit.host import Host


def xml(path: Path | str, name: str = "p", extra: str = "", body: str = "") -> str:
    return f"<pool type='dir'><name>{name}</name>{extra}{body}<target><path>{path}</path></target></pool>"


def volume(name: str, size: int = 4096) -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"


UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"


# -- define -------------------------------------------------------------------------------------------------------


def test_define_again_is_unchanged_with_or_without_uuid(engine: Engine, tmp_path: Path) -> None:
    first = engine.define(xml(tmp_path))
    assert first.outcome
    stamp = engine.core.store.stamp("p")
    assert not engine.define(xml(tmp_path)).outcome
    assert not engine.define(first.xml()).outcome
    assert engine.define(xml(tmp_path)).uuid == first.uuid
    assert engine.core.store.stamp("p") == stamp, "an unchanged definition was written again"


@pytest.mark.parametrize("age", [0, 10])
def test_a_definition_that_is_edited_in_place_counts_at_the_next_start(
    engine: Engine, tmp_path: Path, age: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "disk").write_bytes(b"")
    path = Path(engine.core.store.path("p"))
    # A file that changed a moment ago could change again and keep its stamp.
    now = SimpleNamespace(time=lambda: path.stat().st_ctime + age)
    monkeypatch.setattr("poolkit.state.store.time", now)
    pool = engine.define(xml(tmp_path / "a"))
    pool.start()
    pool.destroy()
    assert ("p" in engine.core.definitions._loaded) == bool(age)
    path.write_text(path.read_text().replace(f"{tmp_path}/a", f"{tmp_path}/b"))
    pool.start()
    assert [one.name for one in pool.volumes()] == ["disk"]
    assert pool.definition().target.path == f"{tmp_path}/b"


def test_sizes_in_a_document_are_not_part_of_it(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path, body="<capacity>5000</capacity><available>3</available>"))
    assert "<capacity unit='bytes'>0</capacity>" in pool.xml()
    assert "5000" not in engine.core.store.read("p")


def test_a_changed_definition_of_an_active_pool_says_what_waits(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    pool.start()
    other = tmp_path / "other"
    other.mkdir()
    changed = engine.define(xml(other))
    assert changed.outcome
    assert [(f, str(a), str(b)) for f, a, b in changed.outcome.pending] == [("target.path", str(tmp_path), str(other))]
    assert pool.definition().target.path == str(tmp_path)
    assert pool.definition(inactive=True).target.path == str(other)
    # While it runs, the old place is still where its volumes are, and still its own; so is the new one.
    made = pool.create_volume(volume("v"))
    assert made.path == f"{tmp_path}/v"
    assert engine.volume_by_path(f"{tmp_path}/v").name == "v"
    for place in (tmp_path, other):
        with pytest.raises(errors.Conflict):
            engine.define(xml(place, "q"))
    made.delete()
    pool.destroy()
    assert engine.define(xml(tmp_path, "q")).outcome
    pool.start()
    assert pool.definition().target.path == str(other)


def test_a_uuid_belongs_to_one_name(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path, extra=f"<uuid>{UUID}</uuid>"))
    with pytest.raises(errors.PoolExists, match="belongs to pool 'p'"):
        engine.define(xml(tmp_path / "q", "q", f"<uuid>{UUID}</uuid>"))
    with pytest.raises(errors.PoolExists, match=f"exists already with the uuid {UUID}"):
        engine.define(xml(tmp_path, extra=f"<uuid>{OTHER}</uuid>"))
    assert [p.name for p in engine.pools()] == ["p"]


@pytest.mark.parametrize("other", ["{}", "{}/", "{}/../images"])
def test_two_pools_on_one_target_conflict_by_name(engine: Engine, tmp_path: Path, other: str) -> None:
    place = tmp_path / "images"
    place.mkdir()
    engine.define(xml(place))
    with pytest.raises(errors.Conflict) as caught:
        engine.define(xml(other.format(place), "q"))
    assert "which belongs to pool 'p'" in str(caught.value)
    with pytest.raises(errors.Conflict):
        engine.create(xml(other.format(place), "q"))


@pytest.mark.parametrize("name", ["../x", "-p", ".p", "a/b", "x" * 201, "a\x07b"])
def test_names_that_cannot_be_files_are_refused(engine: Engine, tmp_path: Path, name: str) -> None:
    from poolkit.xmlmap import replace

    definition = replace(engine.parse(xml(tmp_path)), name=name)
    with pytest.raises(errors.InvalidArgument, match=r"cannot be the name of a pool|is not a name"):
        engine.define(definition)
    assert not engine.pools()


def test_bad_documents_lose_nothing(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path))
    before = engine.core.store.read("p")
    with pytest.raises(errors.InvalidDefinition) as caught:
        engine.define("<pool type='dir'>\n<name>p</name><target><pth>/x</pth></target></pool>", filename="p.xml")
    assert any(p.line == 2 and "did you mean 'path'" in str(p) for p in caught.value.problems)
    assert engine.core.store.read("p") == before


def test_a_definition_damaged_by_hand_does_not_hide_the_others(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path))
    Path(engine.core.store.path("bad")).write_text("<pool type='dir'><name>bad")
    states = {p.name: p.state for p in engine.pools()}
    assert states == {"bad": "invalid", "p": "inactive"}
    with pytest.raises(errors.InvalidDefinition):
        engine.pool("bad").start()
    # A good definition of that name repairs it.
    engine.define(xml(tmp_path / "bad", "bad"))
    assert {p.state for p in engine.pools()} == {"inactive"}


def test_a_file_put_into_the_folder_is_a_definition(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path))
    Path(engine.core.store.path("q")).write_text(xml(tmp_path / "q", "q", f"<uuid>{UUID}</uuid>"))
    assert engine.pool("q").uuid == UUID
    assert engine.pool(UUID).name == "q"
    Path(engine.core.store.path("q")).unlink()
    with pytest.raises(errors.PoolNotFound):
        engine.pool("q")


# -- states -------------------------------------------------------------------------------------------------------


def test_a_stopped_pool_stays_stopped_and_an_active_one_active(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    pool.start()
    with Engine(tmp_path / "root") as other:
        assert other.pool("p").info.active
        other.pool("p").destroy()
    with Engine(tmp_path / "root") as third:
        assert not third.pool("p").info.active


def test_nothing_is_active_after_a_reboot(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path)).start()
    with Engine(tmp_path / "root") as after:
        after.core.boot = "another boot"
        assert not after.pool("p").info.active
        assert after.pool("p").start()


def test_autostart_starts_what_is_marked(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    engine.define(xml(tmp_path / "gone", "broken")).autostart()
    assert pool.autostart()
    assert not pool.autostart()
    results = dict(engine.start_autostart())
    assert results["p"]
    assert isinstance(results["broken"], errors.HostError)
    assert pool.info.active
    assert pool.info.autostart
    assert pool.autostart(False)
    assert [p.name for p in engine.pools(autostart=True)] == ["broken"]


def test_a_transient_pool_vanishes_when_it_stops(engine: Engine, tmp_path: Path) -> None:
    pool = engine.create(xml(tmp_path))
    assert not pool.info.persistent
    assert not engine.create(xml(tmp_path)).outcome
    with pytest.raises(errors.InvalidState, match="transient"):
        pool.autostart()
    with pytest.raises(errors.InvalidState, match="no stored definition"):
        pool.xml(inactive=True)
    pool.destroy()
    with pytest.raises(errors.PoolNotFound):
        engine.pool("p")


def test_a_transient_pool_that_cannot_start_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(errors.HostError):
        engine.create(xml(tmp_path / "gone"))
    assert engine.pools() == []
    assert engine.create(xml(tmp_path / "gone"), build=True).info.active


def test_defining_a_transient_pool_makes_it_persistent(engine: Engine, tmp_path: Path) -> None:
    pool = engine.create(xml(tmp_path))
    engine.define(xml(tmp_path))
    assert pool.info.persistent
    assert pool.info.active
    pool.destroy()
    assert not engine.pool("p").info.active


def test_verbs_that_do_not_fit_the_state(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    for verb in (pool.refresh, pool.volumes, lambda: pool.volume("v"), lambda: pool.create_volume(volume("v"))):
        with pytest.raises(errors.InvalidState) as caught:
            verb()
        assert caught.value.hint == "start it: engine.pool('p').start()"
    pool.start()
    for verb in (pool.build, pool.delete, pool.undefine):
        with pytest.raises(errors.InvalidState, match="while it is active"):
            verb()


def test_a_failed_refresh_keeps_pool_and_listing(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = engine.define(xml(place))
    pool.build()
    pool.start()
    pool.create_volume(volume("v"))
    failing = Host()
    failing.directory = lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error", path))  # type: ignore[method-assign]
    failing._view = lambda: failing  # type: ignore[method-assign]
    with Engine(tmp_path / "root", host=failing) as broken, pytest.raises(errors.HostError, match="Input/output"):
        broken.pool("p").refresh()
    assert pool.info.active
    assert [v.name for v in pool.volumes()] == ["v"]
    assert "the last refresh failed" in pool.info.reason
    pool.refresh()
    assert pool.info.reason == ""


# -- listing and look-up ---------------------------------------------------------------------------------------------


def test_volumes_are_found_by_name_key_and_path(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = engine.define(xml(place))
    pool.build()
    pool.start()
    made = pool.create_volume(volume("v"))
    assert engine.volume_by_path(f"{place}/v").name == "v"
    assert engine.volume_by_key(made.key).pool.name == "p"
    assert engine.pool_by_target(f"{place}/").name == "p"
    for missing in (f"{place}/w", "v", "/", "", "../v", f"{place}/../images/w", "a\nb"):
        with pytest.raises(errors.VolumeNotFound):
            engine.volume_by_path(missing)
    pool.destroy()
    with pytest.raises(errors.VolumeNotFound):
        engine.volume_by_path(f"{place}/v")


def test_suggestions(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path, "images"))
    pool.start()
    pool.create_volume(volume("debian.raw"))
    with pytest.raises(errors.PoolNotFound) as caught:
        engine.pool("imagse")
    assert caught.value.hint == "did you mean 'images'?"
    with pytest.raises(errors.VolumeNotFound) as missing:
        pool.volume("debian.rwa")
    assert missing.value.hint == "did you mean 'debian.raw'?"


def test_a_define_that_only_could_not_tidy_up_is_done(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.define(xml(tmp_path / "old"))
    real = os.unlink

    def fail(path: str, **how: int) -> None:
        if os.path.basename(path).startswith(".poolkit-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        real(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        assert engine.define(xml(tmp_path / "new")).outcome, "it is committed: an error would be no truth"
    assert str(tmp_path / "new") in engine.pool("p").xml()
    assert engine.recover() == [f"finished: define of pool 'p' by process {os.getpid()}"]
    assert str(tmp_path / "new") in engine.pool("p").xml()
    folder = Path(engine.core.store.directory)
    assert not [entry.name for entry in folder.iterdir() if entry.name.startswith(".poolkit-")]


def test_a_refresh_keeps_what_was_made_meanwhile(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path / "images"))
    pool.build()
    pool.start()
    pool.create_volume(volume("old"))
    record = engine.core.inventory.record("p")
    assert record is not None
    scanned, known = engine.core.inventory.known(record)
    listing = list(known.values())
    usage = engine.core.definitions.backend(pool.definition()).usage(())
    with Engine(tmp_path / "root") as other:
        other.pool("p").create_volume(volume("new"))
        other.pool("p").volume("old").delete()
    engine.core.inventory.save_listing(record.id, listing, scanned, usage)
    assert [v.name for v in pool.volumes()] == ["new"]


def test_an_unchanged_file_is_not_opened_again(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    for name in "abc":
        (place / name).write_bytes(name.encode() * 8192)
        os.utime(place / name, (1, 1))
    script = f"""
import os, sys, time
from poolkit.engine import Engine
with Engine({str(tmp_path / "root")!r}) as engine:
    pool = engine.define({xml(place)!r})
    time.sleep(0.1)  # a file as young as the clock's tick is read again
    pool.start()
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    pool.refresh()
    print([o for o in opened if o in ("a", "b", "c")])
    with open({str(place / "b")!r}, "ab") as file:
        file.write(b"x")
    del opened[:]
    pool.refresh()
    print([o for o in opened if o in ("a", "b", "c")], pool.volume("b").info.capacity)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["[]", "['b'] 8193"]


def test_a_file_without_blocks_is_not_read(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    with (place / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (place / "full").write_bytes(b"x" * 512)
    script = f"""
import os
reads, pread = [], os.pread
os.pread = lambda fd, *where: reads.append(os.readlink(f"/proc/self/fd/{{fd}}")) or pread(fd, *where)
from poolkit.engine import Engine
with Engine({str(tmp_path / "root")!r}) as engine:
    pool = engine.define({xml(place)!r})
    pool.start()
    print([r.rpartition("/")[2] for r in reads if "images" in r], pool.volume("sparse").info.capacity)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.startswith("['full'")
    assert "sparse" not in out
    assert out.endswith(f"] {1 << 30}\n")


def test_what_a_guest_writes_does_not_change_the_recorded_format(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = engine.define(xml(place))
    pool.build()
    pool.start()
    made = pool.create_volume(volume("disk", 1 << 20))
    header = b"QFI\xfb\0\0\0\3" + bytes(96)
    with open(made.path, "r+b") as disk:
        disk.write(header)
    pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    assert pool.volume("disk").info.capacity == 1 << 20
    assert "looks like qcow2" in pool.volume("disk").warning
    # ... nor does it after the pool was forgotten and defined again, under another uuid.
    pool.destroy()
    pool.undefine()
    again = engine.define(xml(place))
    assert again.uuid != pool.uuid
    again.start()
    assert again.volume("disk").info.format == "raw"


# -- events, threads, dry run -----------------------------------------------------------------------------------------


def test_events_tell_what_happened_in_order(engine: Engine, tmp_path: Path) -> None:
    seen: list[Event] = []
    cancel = engine.subscribe(seen.append)
    engine.subscribe(lambda event: 1 / 0)  # a broken subscriber stops nobody
    pool = engine.define(xml(tmp_path / "images"))
    engine.define(xml(tmp_path / "images"))
    pool.build()
    pool.start()
    made = pool.create_volume(volume("v"))
    made.resize(8192)
    made.delete()
    pool.refresh()
    pool.destroy()
    pool.delete()
    pool.undefine()
    cancel()
    engine.define(xml(tmp_path / "images"))
    assert [(e.kind, e.volume) for e in seen] == [
        ("defined", None), ("created", None), ("started", None), ("volume-created", "v"), ("volume-changed", "v"),
        ("volume-deleted", "v"), ("refreshed", None), ("stopped", None), ("deleted", None), ("undefined", None),
    ]  # fmt: skip
    assert {e.pool for e in seen} == {"p"}
    assert {e.uuid for e in seen} == {pool.uuid}


def test_a_dry_run_shows_the_plan_and_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    with Engine(tmp_path / "root", dry_run=True) as dry:
        assert dry.define(xml(tmp_path / "images")).outcome
        assert dry.pools() == []
    pool = engine.define(xml(tmp_path / "images"))
    with Engine(tmp_path / "root", dry_run=True) as dry:
        outcome = dry.pool("p").build()
        assert outcome.plan == (f"mkdir {tmp_path}/images",)
        assert not (tmp_path / "images").exists()
    pool.build()
    pool.start()
    with Engine(tmp_path / "root", dry_run=True) as dry:
        made = dry.pool("p").create_volume(volume("v"))
        assert made.outcome is not None
        assert made.outcome.plan
        dry.pool("p").refresh()
        dry.pool("p").destroy()
        dry.pool("p").autostart()
    assert pool.info.active
    assert not pool.info.autostart
    assert pool.volumes() == []
    assert os.listdir(tmp_path / "images") == []


def test_a_dry_run_on_a_fresh_machine_makes_no_file(tmp_path: Path) -> None:
    with Engine(tmp_path / "root", dry_run=True) as dry:
        assert dry.define(xml(tmp_path / "images")).outcome
        assert dry.pools() == []
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    with pytest.raises(errors.InvalidArgument, match="is not a folder"):
        Engine(tmp_path / "root")


def test_threads_share_one_engine(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path / "images"))
    pool.build()
    pool.start()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                made = pool.create_volume(volume(f"{number}-{turn}"), wait=60)
                assert engine.volume_by_path(made.path).name == made.name
                pool.refresh(wait=60)
                made.delete(wait=60)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool.volumes() == []


def test_listing_leaks_no_descriptor(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path / "images"))
    pool.build()
    pool.start()
    pool.create_volume(volume("v"))
    engine.pools()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        engine.pools()
        pool.volumes()
        pool.refresh()
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: garbage of other tests is collected whenever it is


def test_a_damaged_inventory_is_set_aside(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        engine.define(xml(tmp_path / "images")).build()
    inventory = tmp_path / "root" / "state" / "inventory.sqlite"
    for extra in inventory.parent.glob("inventory.sqlite-*"):
        extra.unlink()
    inventory.write_bytes(b"this is not a database at all" * 100)
    with Engine(tmp_path / "root") as engine:
        assert engine.pool("p").start()
    assert inventory.with_name("inventory.sqlite.damaged").exists()


def test_a_lost_record_of_formats_makes_guesses_worth_less(tmp_path: Path) -> None:
    place = tmp_path / "images"
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(xml(place))
        pool.start(build=True)
        made = pool.create_volume(volume("disk", 1 << 20))
        # A guest writes a qcow2 header that names a file of the host as its backing file.
        header = bytearray(b"QFI\xfb\0\0\0\3" + bytes(96))
        header[8:16] = (104).to_bytes(8, "big")
        header[16:20] = (11).to_bytes(4, "big")
        header[20:24] = (16).to_bytes(4, "big")
        header[24:32] = (1 << 20).to_bytes(8, "big")
        header[100:104] = (104).to_bytes(4, "big")
        with open(made.path, "r+b") as disk:
            disk.write(bytes(header) + b"/etc/shadow")
    inventory = tmp_path / "root" / "state" / "inventory.sqlite"
    inventory.write_bytes(b"lost" * 1000)
    with Engine(tmp_path / "root") as engine:
        engine.pool("p").start()
        info = engine.pool("p").volume("disk").info
        assert info.detail is not None
        assert info.detail["ambiguous"]
        assert "adopt it" in info.detail["warning"]
        with pytest.raises(errors.PoolkitError):
            engine.pool("p").volume("disk").clone("copy")


def test_an_inventory_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    Engine(tmp_path / "root").define(xml(tmp_path / "images"))
    path = tmp_path / "root" / "state" / "inventory.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version=999")
    with pytest.raises(errors.HostError, match="later version"), Engine(tmp_path / "root") as engine:
        engine.pools()


def test_damage_inside_the_inventory_is_an_error_in_words(tmp_path: Path) -> None:
    with Engine(tmp_path / "root") as engine:
        for number in range(50):
            engine.define(xml(tmp_path / str(number), f"p{number}"))
    path = tmp_path / "root" / "state" / "inventory.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with Engine(tmp_path / "root") as engine, pytest.raises(errors.HostError, match="the inventory"):
        engine.pools()


def test_damage_to_a_definition_does_not_disarm_the_running_pool(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    pool = engine.define(xml(place))
    pool.start(build=True)
    pool.create_volume(volume("v"))
    Path(engine.core.store.path("p")).write_text("<pool type='dir'><na")
    assert pool.info.active
    assert pool.volume("v").path == f"{place}/v"
    with pytest.raises(errors.Conflict):
        engine.define(xml(place, "q"))
    pool.destroy()
    assert pool.info.state == "invalid"


def test_a_transient_pool_of_before_a_reboot_is_in_nobodys_way(engine: Engine, tmp_path: Path) -> None:
    engine.create(xml(tmp_path, extra=f"<uuid>{UUID}</uuid>"))
    with Engine(tmp_path / "root") as after:
        after.core.boot = "another boot"
        assert after.pools() == []
        assert after.define(xml(tmp_path, "q", f"<uuid>{UUID}</uuid>")).outcome


def test_two_ways_to_one_directory_are_not_two_pools(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    engine.define(xml(place)).start()
    second = engine.define(xml(tmp_path / "link", "q"))
    with pytest.raises(errors.Conflict, match="of the active pool 'p'"):
        second.start()
    assert not second.info.active


def test_a_failed_refresh_does_not_change_the_definition(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    pool.start()
    record = engine.core.inventory.record("p")
    assert record is not None
    engine.core.inventory.set_trouble(record.id, "the last refresh failed: because")
    assert not engine.define(xml(tmp_path)).outcome
    assert pool.info.reason == "the last refresh failed: because"


def test_a_comment_does_not_decide_the_type(engine: Engine, tmp_path: Path) -> None:
    assert engine.define("<!-- was: <pool type='fs'> -->" + xml(tmp_path)).info.type == "dir"


def test_threads_that_ended_leave_no_descriptor(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        thread = threading.Thread(target=engine.pools)
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_an_engine_goes_on_in_a_forked_child(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if [p.name for p in engine.pools()] == ["p"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [p.name for p in engine.pools()] == ["p"]


def test_what_could_not_be_undone_is_told_and_kept(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(errors.HostError) as caught, engine.core.operations.run("p", "test") as op:
        op.host.change(["true"], undo=["false"])
        raise OSError(5, "Input/output error")
    assert "could not undo 'run false'" in (caught.value.hint or "")
    assert len(engine.core.operations.failed()) == 1


def test_the_marks_of_complete_verbs_do_not_pile_up(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path / "images"))
    pool.start(build=True)
    pool.create_volume(volume("v")).look()
    pool.volume("v").delete()
    pool.destroy()
    assert len(engine.core.inventory._db.rows("SELECT * FROM completed")) <= 1, "each one takes the last one's away"


def test_marks_of_other_processes_go_when_there_are_many_but_not_those_with_a_journal(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolkit.state.pools.MARKS", 5)
    inventory = engine.core.inventory
    journal = Path(inventory.path).parent / "journal"
    engine.define(xml(tmp_path / "images")).start(build=True)  # which makes the folders
    journal.mkdir(exist_ok=True)
    (journal / "first.journal").touch()  # it could not be removed
    monkeypatch.setattr(time, "time", lambda: 1.0)  # the clock stands, or was set back
    for name in ("first", *map(str, range(20))):
        with inventory.transaction(name):
            pass
    kept = [name for (name,) in inventory._db.rows("SELECT operation FROM completed ORDER BY at")]
    assert kept == ["first", "14", "15", "16", "17", "18", "19"]
    (journal / "first.journal").unlink()
    with inventory.transaction("last"):
        pass
    assert not inventory.completed("first")
    assert inventory.completed("19")


def test_closing_an_engine_writes_nothing(engine: Engine, tmp_path: Path) -> None:
    engine.define(xml(tmp_path / "images")).start(build=True)
    statements: list[str] = []
    engine.core.inventory._db.connection.set_trace_callback(statements.append)
    engine.close()
    assert statements == []


def test_a_step_that_never_happened_leaves_no_record(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        pool = engine.define(xml(place))
        with pytest.raises(errors.HostError):
            pool.build()
        assert engine.core.operations.failed() == []
        pool.undefine()


def test_a_dump_of_a_running_pool_leaves_nothing_pending(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(xml(tmp_path))
    pool.start()
    again = engine.define(pool.xml())
    assert again.outcome is not None
    assert again.outcome.pending == ()


def test_no_two_pools_list_one_directory_by_two_paths(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their types are: also one that only an installed package knows."""
    from poolkit import registry
    from poolkit.backends.dir import DirBackend, DirPool

    class TreePool(DirPool):
        type = "tree"

    class TreeBackend(DirBackend):
        type = "tree"
        definition = TreePool

    class Point:
        name, value, dist = "tree", "a_package:TreeBackend", None

        def load(self) -> type:
            return TreeBackend

    registry.entry_points.cache_clear()
    registry.backend.cache_clear()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [Point()])
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    first = "<pool type='{}'><name>{}</name><target><path>{}</path></target></pool>"
    try:
        for one, other in [("dir", "tree"), ("tree", "dir"), ("tree", "tree"), ("dir", "dir")]:
            pool = engine.define(first.format(one, f"{one}-1", tmp_path / "images"))
            second = engine.define(first.format(other, f"{other}-2", tmp_path / "link"))
            pool.start()
            with pytest.raises(errors.Conflict, match=f"the directory of the active pool '{one}-1'"):
                second.start()
            pool.destroy()
            assert second.start()
            second.destroy()
            pool.undefine()
            second.undefine()
    finally:
        registry.entry_points.cache_clear()
        registry.backend.cache_clear()
