"""Documents that cannot be together: refused before anything is done, with the places of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine.plan import conflicts
from poolkit.host.mounts import Mount
from poolkit.host.port import Host

from .conftest import World

FLAVOR = "<flavor><name>gold</name><backend pool='images'/></flavor>"


def refused(world: World, *, prune: bool = False) -> list[str]:
    """What is said of the folder, without the path of the folder."""
    with pytest.raises(errors.InvalidDefinition) as caught:
        world.plan(prune=prune)
    assert world.root.exists() is False or not list(world.root.glob("**/*.part"))
    return [str(problem).replace(f"{world.documents}/", "") for problem in caught.value.problems]


def pool(world: World, name: str, target: Path | str, more: str = "", wanted: str = "build='if-empty'") -> None:
    world.write(
        f"{name}.xml",
        f"\n<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name>{more}<target><path>{target}</path></target>"
        f"<pk:wanted {wanted}/></pool>",
    )


def test_two_pools_of_one_target(world: World) -> None:
    pool(world, "a", world.storage)
    pool(world, "b", f"{world.storage}/")
    pool(world, "c", f"{world.storage}/below")
    (said,) = refused(world)
    assert said == f"b.xml:2:1: /pool: pool 'b' would use the target '{world.storage}', as pool 'a' does, at a.xml:2:1"


def test_two_pools_of_one_source(world: World) -> None:
    for name in ("a", "b"):
        world.write(
            f"{name}.xml",
            f"<pool type='logical'><name>{name}</name><source><name>vg</name></source></pool>",
        )
    (said,) = refused(world)
    assert said.startswith("b.xml:1:1: /pool: pool 'b' would use") and said.endswith("as pool 'a' does, at a.xml:1:1")


def test_a_pool_that_is_to_be_absent_is_in_nobodys_way(world: World) -> None:
    pool(world, "a", world.storage, wanted="state='absent'")
    pool(world, "b", world.storage)
    world.apply()


def test_what_a_pool_has_that_no_document_describes(world: World) -> None:
    world.engine.define(f"<pool type='dir'><name>theirs</name><target><path>{world.storage}</path></target></pool>")
    pool(world, "a", world.storage)
    (said,) = refused(world)
    assert said.endswith(
        f"'a' would use the target '{world.storage}', which belongs to pool 'theirs', which no document describes"
    )


@pytest.mark.parametrize("goes", ["elsewhere", "away"])
def test_a_pool_waits_for_what_another_described_one_lets_go_of(world: World, goes: str) -> None:
    """Be it a target, or a uuid that is to be its name."""
    world.engine.define(
        f"<pool type='dir'><name>theirs</name><uuid>{UUID}</uuid><target><path>{world.storage}/a</path></target></pool>"
    )
    name = UUID if goes == "away" else "a"
    pool(world, "theirs", world.storage / "b", wanted="state='absent'" if goes == "away" else "")
    pool(world, name, world.storage / ("a" if goes == "elsewhere" else "c"))
    (waits,) = (entry.after for entry in world.plan().entries if entry.name == name)
    assert waits == ("pool theirs",)
    world.apply()


def test_what_one_takes_of_two_others_is_told_of_the_one_that_keeps_it(world: World) -> None:
    for name in ("moves", "stays"):
        world.write(
            f"{name}.xml",
            f"<pool type='disk'><name>{name}</name><source><device path='/dev/{name}'/></source>"
            "<target><path>/dev</path></target></pool>",
        )
        world.engine.define((world.documents / f"{name}.xml").read_text())
    (world.documents / "stays.xml").unlink()
    world.write("moves.xml", (world.documents / "moves.xml").read_text().replace("/dev/moves", "/dev/other"))
    world.write(
        "a.xml",
        "<pool type='logical'><name>a</name><source><device path='/dev/moves'/><device path='/dev/stays'/>"
        "<name>vg</name></source></pool>",
    )
    (said,) = refused(world)
    assert said.endswith("which belongs to pool 'stays', which no document describes")


def test_two_paths_to_one_directory(world: World) -> None:
    (world.storage / "real").mkdir()
    os.symlink("real", world.storage / "linked")
    pool(world, "a", world.storage / "real", wanted="state='active'")
    pool(world, "b", world.storage / "linked", wanted="state='active'")
    (said,) = refused(world)
    assert said.startswith(
        "b.xml:2:1: /pool/target/path: pool 'b' would list the directory of pool 'a', at a.xml:2:1: "
    )
    pool(world, "b", world.storage / "linked", wanted="state='inactive'")
    world.apply()


@pytest.mark.parametrize("below", ["", "/deep/below"])
def test_two_paths_to_one_directory_that_is_not_there_yet(world: World, below: str) -> None:
    os.symlink("real", world.storage / "linked")
    pool(world, "a", f"{world.storage}/real{below}", wanted="state='active' build='if-empty'")
    pool(world, "b", f"{world.storage}/linked{below}", wanted="state='active'")
    (said,) = refused(world)
    assert said.startswith(
        "b.xml:2:1: /pool/target/path: pool 'b' would list the directory of pool 'a', at a.xml:2:1: "
    )
    pool(world, "b", f"{world.storage}/linked{below}/more", wanted="state='active' build='if-empty'")
    world.apply()


def test_a_loop_of_links_is_for_the_verb_to_tell(world: World) -> None:
    os.symlink("linked", world.storage / "linked")
    pool(world, "a", world.storage / "linked", wanted="state='active' build='if-empty'")
    pool(world, "b", world.storage / "linked/b", wanted="state='active' build='if-empty'")
    done = world.plan().apply()
    assert {result.entry.name for result in done.failed} == {"a", "b"}
    assert all("symbolic link" in str(result.error) for result in done.failed)


def test_pools_of_devices_may_find_them_by_two_paths_to_one_directory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share it with others of their kind; only who lists all of a directory has to have it alone."""
    for name, path in (("a", "/dev/disk/by-path"), ("b", "/dev/disk/by-id")):
        world.write(
            f"{name}.xml",
            f"<pool type='scsi' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name><source><adapter name='host{ord(name)}'/>"
            f"</source><target><path>{path}</path></target><pk:wanted state='active'/></pool>",
        )
    monkeypatch.setattr(conflicts, "_place", lambda path: ("the same",))
    assert len(world.plan().entries) == 2


def test_no_plan_touches_the_directory_of_a_network_file_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to see that two paths lead to one: that may hang."""
    away = world.storage / "away"
    away.mkdir()
    for name in ("a", "b"):
        (away / name).mkdir()
        pool(world, name, away / name, wanted="state='active'")
    mounts = [Mount("0:99", "/", str(away), "nfs4", "server:/away", "rw")]
    monkeypatch.setattr(conflicts, "_place", lambda path: pytest.fail(f"{path} was touched"))
    monkeypatch.setattr(Host, "mounts", lambda self: mounts)
    world.plan()


def test_directories_that_become_one_after_the_plan_leave_results(world: World) -> None:
    (world.storage / "real").mkdir()
    pool(world, "a", world.storage / "real", wanted="state='active'")
    pool(world, "b", world.storage / "linked", wanted="state='active'")
    plan = world.plan()
    os.symlink("real", world.storage / "linked")
    done = plan.apply()
    (failed,) = done.failed  # whichever came second
    assert failed.entry.name in ("a", "b")
    assert isinstance(failed.error, errors.PoolkitError) and "would list the directory of the active pool" in str(
        failed.error
    )


UUID = "3d9bbdd2-b5ec-4a7e-9d2c-4c1f8c0e2a0f"


@pytest.mark.parametrize("name", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_a_uuid_that_is_the_name_of_another(world: World, name: str) -> None:
    pool(world, "a", world.storage / "a", more=f"<uuid>{UUID}</uuid>")
    pool(world, name, world.storage / "b")
    (said,) = refused(world)
    assert said == f"a.xml:2:1: /pool/uuid: the uuid of pool 'a' is the name of another pool, at {name}.xml:2:1"


@pytest.mark.parametrize("there", ["a", UUID])
def test_a_uuid_that_is_the_name_of_another_when_one_of_them_is_there(world: World, there: str) -> None:
    pool(world, "a", world.storage / "a", more=f"<uuid>{UUID}</uuid>")
    pool(world, UUID, world.storage / "b")
    world.engine.define((world.documents / f"{there}.xml").read_text())
    (said,) = refused(world)
    assert said == f"a.xml:2:1: /pool/uuid: the uuid of pool 'a' is the name of another pool, at {UUID}.xml:2:1"


@pytest.mark.parametrize("described", ["both", "a", UUID.upper()])
def test_pools_that_are_there_may_go_on_with_such_names(world: World, described: str) -> None:
    """By the verbs a name that is spelled otherwise than a uuid may be there before that."""
    for name, more in ((UUID.upper(), ""), ("a", f"<uuid>{UUID}</uuid>")):
        pool(world, name, world.storage / name, more=more, wanted="")
        world.engine.define((world.documents / f"{name}.xml").read_text())
        if described not in ("both", name):
            (world.documents / f"{name}.xml").unlink()
    assert not world.plan()


def test_a_pool_may_have_its_own_uuid_as_its_name(world: World) -> None:
    pool(world, UUID, world.storage, more=f"<uuid>{UUID}</uuid>")
    world.apply()
    pool(
        world, UUID, world.storage, more="<features><cow state='no'/></features>"
    )  # another definition, of the same uuid
    world.apply()


def test_a_uuid_that_is_the_name_of_one_that_no_document_describes(world: World) -> None:
    world.engine.define(f"<pool type='dir'><name>{UUID}</name><target><path>/x</path></target></pool>")
    pool(world, "a", world.storage, more=f"<uuid>{UUID}</uuid>")
    (said,) = refused(world)
    assert said == (
        "a.xml:2:1: /pool/uuid: the uuid of pool 'a' is the name of another pool, which no document describes"
    )


@pytest.mark.parametrize(("described", "where"), [(True, "at x.xml:2:1"), (False, "which no document describes")])
def test_a_name_that_is_the_uuid_of_a_pool_that_is_there(world: World, described: bool, where: str) -> None:
    place = world.storage / "x"
    world.engine.define(
        f"<pool type='dir'><name>x</name><uuid>{UUID}</uuid><target><path>{place}</path></target></pool>"
    )
    if described:
        pool(world, "x", place)
    pool(world, UUID, world.storage / "a")
    (said,) = refused(world)
    assert said == f"{UUID}.xml:2:1: /pool/name: the name of pool '{UUID}' is the uuid of pool 'x', {where}"


def test_what_a_pool_type_refuses_of_its_own_definition(world: World) -> None:
    world.write(
        "xen.xml",
        "<pool type='xensm'><name>xen</name><source><host name='xen1'/><format type='nfs'/></source></pool>",
    )
    (said,) = refused(world)
    assert "xen.xml:1:1" in said and "a login is needed" in said


def test_a_link_that_leads_nowhere_is_told_with_all_else(world: World) -> None:
    os.symlink("gone.xml", world.documents / "link.xml")
    world.write("broken.xml", "<pool type='dir'><name>x</name>")
    said = refused(world)
    assert "link.xml: is a symbolic link to 'gone.xml', which leads nowhere" in said
    assert [one for one in said if one.startswith("broken.xml:1:")]
    (world.documents / "broken.xml").unlink()
    os.symlink("loop.xml", world.documents / "loop.xml")
    assert "loop.xml: is a symbolic link to 'loop.xml', which leads nowhere" in refused(world)


def test_a_pruned_pool_that_is_a_backend_of_a_flavor_that_stays(world: World) -> None:
    world.pool("images")
    world.write("gold.xml", FLAVOR)
    world.apply()
    (world.documents / "images.xml").unlink()
    (said,) = refused(world, prune=True)
    assert said.startswith(
        "gold.xml:1:1: /flavor: flavor 'gold' has pool 'images' as a backend, which no document describes"
    )
    assert not world.signs(), "without pruning nothing is to be done"


@pytest.mark.parametrize("described", [True, False])
def test_an_absent_pool_that_is_a_backend_of_a_flavor_that_stays(world: World, described: bool) -> None:
    world.pool("images")
    world.apply()
    if described:
        world.write("gold.xml", FLAVOR)
    else:
        world.engine.flavors.define(FLAVOR)
    pool(world, "images", world.storage / "images", wanted="state='absent'")
    (said,) = refused(world)
    assert said == (
        "images.xml:2:1: /pool: pool 'images' is to be absent, and is a backend of flavor 'gold'"
        + (", at gold.xml:1:1" if described else "")
    )


def test_a_pruned_pool_that_is_a_backend_of_a_flavor_of_others(world: World) -> None:
    world.pool("images")
    world.apply()
    world.engine.flavors.define(FLAVOR)
    (world.documents / "images.xml").unlink()
    (said,) = refused(world, prune=True)
    assert (
        said
        == "pool 'images': no document describes it any more, and it would be removed; it is a backend of flavor 'gold'"
    )


@pytest.mark.parametrize("ring", ["pq", "pqr"])
@pytest.mark.parametrize("state", ["active", "inactive"])
def test_pools_that_would_change_places_are_refused(world: World, ring: str, state: str) -> None:
    for name in (*ring, "s"):
        world.pool(name)
    world.apply()
    for name, target in zip(ring, ring[1:] + ring[0], strict=True):
        place(world, name, target, state)
    place(world, "s", "elsewhere", state)
    with pytest.raises(errors.InvalidDefinition) as caught:
        world.plan()
    (problem,) = caught.value.problems
    assert problem.message.startswith("pool 'p' would get what another pool has, and that in the end what 'p' has")
    for name in ring:
        assert str(world.documents / f"{name}.xml") in str(problem)
    place(world, "p", "for-a-while", state)
    if len(ring) == 2:  # a row of pools has an order
        world.apply(restart=True)
        place(world, "p", "q", state)
    world.apply(restart=True)


@pytest.mark.parametrize("target", ["p", "q"])
def test_a_pool_may_get_the_uuid_of_one_that_goes(world: World, target: str) -> None:
    uuid = "c5a4fbc8-71f5-4aa9-9f5c-8bd7cbf3e4a1"
    place(world, "p", "p", "active", uuid)
    world.apply()
    place(world, "q", target, "active", uuid)
    with pytest.raises(errors.InvalidDefinition, match="uuid"):
        world.plan()
    place(world, "p", "p", "absent")
    (new,) = (entry for entry in world.plan().entries if entry.name == "q")
    assert "pool p" in new.after
    world.apply(delete=True)
    assert [(one.name, one.uuid) for one in world.engine.pools()] == [("q", uuid)]


def place(world: World, name: str, target: str, state: str, uuid: str = "") -> None:
    world.write(
        f"{name}.xml",
        f"<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name>"
        f"{uuid and f'<uuid>{uuid}</uuid>'}<target><path>{world.storage}/{target}</path></target>"
        f"<pk:wanted state='{state}' build='if-empty'/></pool>",
    )
