"""Documents of a folder against a root: what is planned, what is done, and what is refused."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from poolkit import Engine, errors
from poolkit.engine.plan import stored

from .conftest import World, fingerprint

BACKING = "<backingStore><path>{}</path><format type='qcow2'/></backingStore>"


def test_a_folder_is_made_so_and_plans_to_nothing_then(world: World) -> None:
    world.pool("images", "autostart='yes' build='if-empty'")
    world.volume("images", "a", 1_000_001)
    world.volume("images", "b", 1_000_001, "qcow2", BACKING.format(world.storage / "images/z"))
    world.volume("images", "z", 1_000_001, "qcow2")
    plan = world.plan()
    assert [e.ident for e in plan.entries] == ["pool images", "volume images/a", "volume images/z", "volume images/b"]
    assert {e.action for e in plan.entries} == {"add"}
    world.apply()
    info = world.engine.pool("images").info
    assert (info.active, info.autostart) == (True, True)
    # a raw file has any size, an image has whole sectors
    assert [v.info.capacity for v in world.engine.pool("images").volumes()] == [1_000_001, 1_000_448, 1_000_448]
    assert not world.apply().changed


def test_a_plan_changes_nothing_at_all(world: World) -> None:
    world.pool("images")
    world.volume("images", "a")
    world.apply()
    world.volume("images", "b")
    world.volume("images", "a", 2 << 20)
    world.pool("other")
    world.engine.close()
    before = fingerprint(world.root, world.storage, world.documents)
    with Engine(world.root, dry_run=True) as engine:
        assert engine.plan(world.documents)
        assert engine.plan(world.documents).diff()
        assert engine.export(volumes=True).files
    assert fingerprint(world.root, world.storage, world.documents) == before


def test_no_pool_has_to_be_active(world: World) -> None:
    world.pool("images", "build='if-empty' state='active'")
    world.volume("images", "a")
    world.apply()
    world.engine.pool("images").destroy()
    assert world.signs() == {"pool images": "change"}
    world.volume("images", "b")
    assert world.signs() == {"pool images": "change", "volume images/b": "add"}
    world.pool("images", "state='inactive'")
    with pytest.raises(
        errors.InvalidDefinition, match=r"b\.xml:1:1: /volume: .*'images' is not active, and is not to be"
    ):
        world.plan()


def test_all_that_is_wrong_is_told_at_once_with_its_place(world: World) -> None:
    world.pool("images")
    first = world.volume("images", "a")
    world.write("images/again.xml", "\n\n" + first.read_text())
    world.write("broken.xml", "<pool type='dir'>\n<name>x</name><tagret/></pool>")
    world.write(
        "both.xml", "<documents>\n <volume><name>v</name><capacity>x</capacity></volume>\n <domain/></documents>"
    )
    world.write("nowhere/n.xml", "<volume><name>n</name><capacity>1</capacity></volume>")
    with pytest.raises(errors.InvalidDefinition) as caught:
        world.plan()
    told = [(os.path.basename(p.source), p.line, p.column) for p in caught.value.problems]
    assert told == [
        ("both.xml", 2, 34), ("both.xml", 3, 2), ("broken.xml", 1, 1), ("broken.xml", 2, 15), ("again.xml", 3, 1),
    ]  # fmt: skip
    for name in ("images/again.xml", "broken.xml", "both.xml"):
        (world.documents / name).unlink()
    with pytest.raises(errors.InvalidDefinition, match=r"n\.xml:1:1: .*pool 'nowhere', which no document describes"):
        world.plan()


def test_several_documents_in_one_file_share_its_prefixes(world: World) -> None:
    world.write(
        "all.xml",
        f"<documents xmlns:p='urn:poolkit:pool:1' xmlns:v='urn:poolkit:volume:1'><pool type='dir'><name>a</name><target>"
        f"<path>{world.storage}/a</path></target><p:wanted build='if-empty'/></pool>\n<volume><name>x</name>"
        "<capacity>7</capacity><v:wanted pool='a'/></volume></documents>",
    )
    world.apply()
    assert world.engine.pool("a").volume("x").info.capacity == 7


def test_what_destroys_data_needs_its_word_and_nothing_is_begun_without(world: World) -> None:
    world.pool("images")
    for name in ("gone", "small", "other"):
        world.volume("images", name, 2 << 20)
    world.apply()
    (world.storage / "images/other").write_bytes(b"data")
    world.engine.pool("images").refresh()
    world.volume("images", "gone", more="<pkv:wanted state='absent'/>")
    world.volume("images", "small", 1 << 20)
    world.volume("images", "other", 2 << 20, "qcow2")
    world.volume("images", "new")
    assert set(world.plan().needs) == {"shrink", "replace", "delete"}
    before = fingerprint(world.storage)
    for lacking in ("shrink", "replace", "delete"):
        words = {word: word != lacking for word in ("shrink", "replace", "delete")}
        with pytest.raises(errors.Unsafe, match="nothing was begun") as caught:
            world.plan().apply(**words)  # type: ignore[arg-type]
        assert f"{lacking}=True" in str(caught.value.hint)
    assert fingerprint(world.storage) == before
    world.apply(shrink=True, replace=True, delete=True)
    assert sorted(os.listdir(world.storage / "images")) == ["new", "other", "small"]


def test_pruning_takes_what_was_made_and_nothing_else(world: World) -> None:
    world.engine.define(f"<pool type='dir'><name>theirs</name><target><path>{world.storage}/t</path></target></pool>")
    world.pool("images")
    world.pool("spare", "state='active' build='if-empty'")
    world.volume("images", "mine")
    world.volume("images", "kept")
    world.apply()
    world.engine.pool("images").create_volume("<volume><name>foreign</name><capacity>5</capacity></volume>")
    for name in ("images/mine.xml", "spare.xml"):
        (world.documents / name).unlink()
    assert world.signs() == {}
    assert world.signs(prune=True) == {"volume images/mine": "remove", "pool spare": "remove"}
    world.apply(prune=True, delete=True)
    assert [v.name for v in world.engine.pool("images").volumes()] == ["foreign", "kept"]
    assert [p.name for p in world.engine.pools()] == ["images", "theirs"]
    assert (world.storage / "spare").is_dir()


def test_a_file_that_took_the_place_of_what_was_made_is_not_pruned(world: World) -> None:
    world.pool("images")
    world.volume("images", "mine")
    world.apply()
    (world.documents / "images/mine.xml").unlink()
    assert world.signs(prune=True) == {"volume images/mine": "remove"}
    (world.storage / "theirs").write_bytes(b"somebody's")
    os.replace(world.storage / "theirs", world.storage / "images" / "mine")
    world.engine.pool("images").refresh()
    assert world.signs(prune=True) == {}


def test_a_pool_of_the_same_name_that_others_made_is_not_pruned(world: World) -> None:
    world.pool("images")
    world.apply()
    text = world.engine.pool("images").xml(inactive=True)
    world.engine.pool("images").undefine()
    world.engine.define(text.replace(world.engine.parse(text).uuid, "11111111-1111-4111-8111-111111111111"))
    (world.documents / "images.xml").unlink()
    assert world.signs(prune=True) == {}


def test_a_changed_definition_of_an_active_pool_waits_or_is_restarted(world: World) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.apply()
    world.pool("images", "state='active' build='if-empty'", "<features><cow state='yes'/></features>")
    [entry] = world.plan().entries
    assert [(c.field, c.old, c.new, c.when) for c in entry.changes] == [("cow", None, True, "next-start")]
    world.apply()
    assert [c.field for c in world.plan().entries[0].pending] == ["cow"]
    assert world.engine.pool("images").definition().cow is None
    world.apply(restart=True)
    assert world.engine.pool("images").definition().cow is True
    assert world.plan().entries[0].pending == ()


def test_what_fails_stops_what_stands_on_it_and_nothing_else(world: World) -> None:
    world.pool("bad", "build='never'")  # its directory is not there
    world.volume("bad", "v")
    world.pool("good")
    world.volume("good", "w")
    done = world.plan().apply()
    assert {r.entry.ident: r.result for r in done.results} == {
        "pool bad": "failed", "volume bad/v": "skipped", "pool good": "done", "volume good/w": "done",
    }  # fmt: skip
    assert not done
    (world.storage / "bad").mkdir()
    world.apply()


def test_content_comes_from_files_and_volumes(world: World) -> None:
    import hashlib

    image = b"\1content" * 1000
    (world.documents / "base.img").write_bytes(image)
    digest = hashlib.sha256(image).hexdigest()
    world.pool("images")
    world.pool("machines")
    world.volume("images", "base", 0, more=f"<pkv:content file='../base.img' checksum='sha256:{digest}'/>")
    world.volume("machines", "m", 0, more="<pkv:content volume='base' pool='images'/>")
    world.apply()
    assert (world.storage / "machines/m").read_bytes() == image
    world.volume("images", "wrong", 0, more=f"<pkv:content file='../base.img' checksum='sha256:{'0' * 64}'/>")
    done = world.plan().apply()
    assert [(r.entry.name, r.result) for r in done.failed] == [("wrong", "failed")]
    world.volume("images", "wrong", 0, more="<pkv:content file='../none.img'/>")
    with pytest.raises(errors.InvalidDefinition, match=r"which is no file"):
        world.plan()


def test_a_stored_plan_is_refused_when_the_world_has_moved(world: World, tmp_path: Path) -> None:
    world.pool("images")
    world.volume("images", "a")
    text = stored.text(world.plan())
    assert json.loads(text)["plan"]["changed"] is True
    (world.documents / "images/a.xml").unlink()  # the plan has its own documents
    again = world.engine.stored_plan(text)
    assert again.apply()
    with pytest.raises(errors.PlanOutdated, match="pool 'images', volume 'a'"):
        world.engine.stored_plan(text)
    with pytest.raises(errors.InvalidArgument):
        world.engine.stored_plan('{"poolkit-plan": 1}')


def test_secrets_are_described_and_never_told(world: World) -> None:
    usage = "<usage type='ceph'><name>client.x</name></usage>"
    world.write("s.xml", f"<secret><description>one</description>{usage}</secret>")
    world.apply()
    [secret] = world.engine.secrets()
    secret.set_value(b"hunter2")
    world.write("s.xml", f"<secret><description>two</description>{usage}</secret>")
    assert [c.field for c in world.plan().entries[0].changes] == ["description"]
    world.apply()
    told = json.dumps(world.plan().as_dict()) + stored.text(world.plan()) + str(world.engine.export())
    assert "hunter2" not in told
    (world.documents / "s.xml").unlink()
    with pytest.raises(errors.Unsafe):
        world.plan(prune=True).apply()
    world.apply(prune=True, delete=True)
    assert world.engine.secrets() == []


def test_an_export_plans_to_nothing_here_and_in_another_root(world: World, tmp_path: Path) -> None:
    world.pool("images", "autostart='yes' build='if-empty'")
    world.volume("images", "a", 1_000_001)
    world.volume("images", "b", 1_000_001, "qcow2")
    world.volume("images", "c", 0, "qcow2", BACKING.format(world.storage / "images/b"))
    world.apply()
    world.write("images/.x.xml", "")
    made = world.engine.export(volumes=True)
    folder = tmp_path / "exported"
    for path, text in made.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    assert not world.engine.plan(folder)
    assert len(world.engine.plan(folder).entries) == 4
    with Engine(tmp_path / "second") as other:
        # The storage is as wanted; only the pools are not known there.
        assert {e.kind for e in other.plan(folder).entries if e.action != "none"} == {"pool"}
        assert other.plan(folder).apply()
        assert not other.plan(folder)


def test_a_diff_shows_both_sides(world: World) -> None:
    world.pool("images")
    world.volume("images", "a", 1 << 20)
    world.apply()
    assert world.plan().diff() == ""
    world.volume("images", "a", 2 << 20)
    lines = world.plan().diff().splitlines()
    assert lines[:2] == ["--- present/volume/images/a", "+++ wanted/volume/images/a"]
    assert [line for line in lines[3:] if line[0] in "+-"] == [
        f"-  <capacity unit='bytes'>{1 << 20}</capacity>", f"+  <capacity unit='bytes'>{2 << 20}</capacity>",
    ]  # fmt: skip


def test_pools_are_worked_on_side_by_side(world: World) -> None:
    meeting = threading.Barrier(2, timeout=60)
    for name in ("one", "two"):
        world.pool(name)
        world.volume(name, "v")

    def meet(event: object) -> None:
        if getattr(event, "kind", "") == "started":
            meeting.wait()  # would break if one waited for the other

    world.engine.subscribe(meet)
    world.apply()


def test_a_pool_that_content_comes_from_is_up_or_is_started(world: World) -> None:
    world.pool("images")
    world.volume("images", "base")
    world.pool("machines")
    world.apply()
    (world.documents / "images/base.xml").unlink()
    world.engine.pool("images").destroy()
    world.volume("machines", "m", 0, more="<pkv:content volume='base' pool='images'/>")
    assert world.signs() == {"pool images": "change", "pool machines": "change", "volume machines/m": "add"}
    world.pool("images", "state='inactive'")
    with pytest.raises(errors.InvalidDefinition, match="'m' cannot be worked on: pool 'images' is not active"):
        world.plan()
    world.pool("images")
    world.volume("images", "base", more="<pkv:wanted state='absent'/>")
    with pytest.raises(errors.InvalidDefinition, match="'base' of pool 'images', which is to be absent"):
        world.plan()


def test_what_came_or_went_behind_the_listing_is_worked_on_and_listed(world: World) -> None:
    world.pool("images")
    world.volume("images", "gone")
    world.apply()
    (world.storage / "images/gone").unlink()
    (world.storage / "images/came").write_bytes(bytes(4096))
    world.volume("images", "gone", more="<pkv:wanted state='absent'/>")
    world.volume("images", "came", 8192)
    assert world.signs() == {"volume images/came": "change"}
    world.apply()
    assert [(v.name, v.info.capacity) for v in world.engine.pool("images").volumes()] == [("came", 8192)]


def test_a_listing_that_cannot_be_made_is_told_and_the_rest_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolkit.engine.pool import Pool

    world.pool("images")
    world.volume("images", "a")
    world.apply()
    (world.storage / "images/came").write_bytes(bytes(4096))
    world.volume("images", "came", 4096)
    world.volume("images", "b")

    def refresh(self: Pool, **_: object) -> None:
        raise errors.Busy("others work on it")

    monkeypatch.setattr(Pool, "refresh", refresh)
    done = world.plan().apply()
    assert [(r.entry.ident, str(r.error)) for r in done.failed] == [("pool images", "others work on it")]
    assert (world.storage / "images/b").exists()


FLAVOR = "<flavor><name>{0}</name><description>{1}</description><backend pool='images'/>{2}</flavor>"


def test_flavors_come_before_pools_and_go_after_their_volumes(world: World) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.write("gold.xml", FLAVOR.format("gold", "one", ""))
    assert [e.ident for e in world.plan().entries] == ["flavor gold", "pool images"]
    assert world.plan().diff().splitlines()[1] == "+++ wanted/flavor/gold"
    world.apply()
    world.write("gold.xml", FLAVOR.format("gold", "two", ""))
    [entry, _] = world.plan().entries
    assert [(c.field, c.old, c.new) for c in entry.changes] == [("description", "one", "two")]
    world.apply()
    world.engine.flavors.get("gold").create_volume("<volume><name>v</name><capacity>5</capacity></volume>")
    world.volume("images", "v", more="<pkv:wanted state='absent'/>")
    world.write("gold.xml", FLAVOR.format("gold", "two", "<wanted state='absent'/>"))
    assert [e.ident for e in world.plan().entries if e.action == "remove"] == ["volume images/v", "flavor gold"]
    world.apply(delete=True)
    assert world.engine.flavors.list() == []
    assert world.signs() == {}


def test_flavors_go_before_the_pools_that_are_their_backends(world: World) -> None:
    for name in ("images", "more"):
        world.pool(name, "state='active' build='if-empty'")
    world.write("gold.xml", FLAVOR.format("gold", "one", ""))
    world.write("silver.xml", FLAVOR.format("silver", "one", "<backend pool='more'/>"))
    world.apply()
    world.pool("images", "state='absent'")
    with pytest.raises(errors.InvalidDefinition) as caught:
        world.plan()
    assert [problem.message for problem in caught.value.problems] == [
        f"pool 'images' is to be absent, and is a backend of flavor '{name}', at {world.documents}/{name}.xml:1:1"
        for name in ("gold", "silver")
    ]
    assert {problem.source for problem in caught.value.problems} == {f"{world.documents}/images.xml"}
    world.write("gold.xml", FLAVOR.format("gold", "one", "<wanted state='absent'/>"))
    world.write("silver.xml", FLAVOR.format("silver", "one", "").replace("images", "more"))
    entries = {entry.ident: entry for entry in world.plan().entries}
    assert set(entries["pool images"].after) == {"flavor gold", "flavor silver"}
    world.apply(delete=True)
    assert [pool.name for pool in world.engine.pools()] == ["more"] and world.signs() == {}
    for name in ("silver", "more"):
        (world.documents / f"{name}.xml").unlink()
    entries = {entry.ident: entry for entry in world.plan(prune=True).entries}
    assert entries["pool more"].after == ("flavor silver",)
    world.apply(prune=True)
    assert world.engine.flavors.list() == [] and list(world.engine.pools()) == []


def test_a_flavor_is_pruned_unless_others_changed_it(world: World) -> None:
    for name in ("mine", "theirs"):
        world.write(f"{name}.xml", FLAVOR.format(name, "one", ""))
    world.apply()
    world.write("mine.xml", FLAVOR.format("mine", "two", ""))
    world.apply()
    world.engine.flavors.define(FLAVOR.format("theirs", "another", ""))
    for name in ("mine", "theirs"):
        (world.documents / f"{name}.xml").unlink()
    assert world.signs(prune=True) == {"flavor mine": "remove"}
    world.apply(prune=True)
    assert [flavor.name for flavor in world.engine.flavors.list()] == ["theirs"]


def test_a_secret_that_is_to_be_absent_is_deleted_with_its_value_and_a_word(world: World) -> None:
    usage = "<usage type='ceph'><name>client.x</name></usage>"
    absent = "<wanted xmlns='urn:poolkit:secret:1' state='absent'/>"
    world.write("s.xml", f"<secret>{usage}</secret>")
    world.apply()
    world.engine.secrets()[0].set_value(b"hunter2")
    world.write("s.xml", f"<secret>{usage}{absent}</secret>")
    assert world.signs() == {"secret ceph client.x": "remove"}
    with pytest.raises(errors.Unsafe, match="nothing was begun"):
        world.plan().apply()
    world.apply(delete=True)
    assert world.engine.secrets() == []
    world.write("s.xml", f"<secret>{usage}</secret>")
    world.apply()
    [secret] = world.engine.secrets()
    assert secret.definition.wanted is None
    world.write("s.xml", f"<secret><uuid>11111111-1111-4111-8111-111111111111</uuid>{usage}</secret>")
    with pytest.raises(errors.InvalidDefinition, match=f"with the uuid {secret.uuid}; leave the uuid out"):
        world.plan()
    world.write("s.xml", f"<secret><uuid>{secret.uuid}</uuid>{usage.replace('client.x', 'client.y')}</secret>")
    with pytest.raises(errors.InvalidDefinition, match="exists and is for something else"):
        world.plan()


def test_an_export_has_room_for_pools_of_any_name(world: World, tmp_path: Path) -> None:
    world.pool("flavors")
    world.volume("flavors", "gold")
    world.write("gold.xml", FLAVOR.format("gold", "one", ""))
    world.apply()
    files = world.engine.export(volumes=True).files
    assert sorted(files) == ["flavors.xml", "flavors/gold%.xml", "flavors/gold.xml"]
    assert [e.action for e in world.engine.plan(list(files.values())).entries] == ["none"] * 3


def test_a_mode_is_changed_in_place_where_that_can_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.families.filepool import FileBackend

    mode = "<permissions><mode>0640</mode></permissions></target>"
    world.pool("images")
    world.volume("images", "a")
    world.apply()
    (world.storage / "images/a").write_bytes(b"data" * 1024)
    file = world.volume("images", "a", 8192)
    file.write_text(file.read_text().replace("</target>", mode))
    with monkeypatch.context() as without:
        without.setattr(FileBackend, "verbs", classmethod(lambda cls: ("resize",)))
        [entry] = [e for e in world.plan().entries if e.kind == "volume"]
        assert entry.needs == ("replace",)
        assert entry.note == "pools of type 'dir' cannot change who may use a volume that is there"
    [entry] = [e for e in world.plan().entries if e.kind == "volume"]
    assert [(c.field, c.old, c.new, c.when) for c in entry.changes] == [
        ("capacity", 4096, 8192, "now"), ("target.permissions.mode", 0o600, 0o640, "now"),
    ]  # fmt: skip
    assert (entry.steps, entry.needs) == (("vol-resize", "vol-permit"), ())
    world.apply()
    there = world.storage / "images/a"
    assert there.read_bytes() == b"data" * 1024 + bytes(4096)
    assert there.stat().st_mode & 0o7777 == 0o640
