"""Documents that cannot be together: refused before anything is done, with the places of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolkit import errors

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


def test_a_uuid_that_is_the_name_of_another(world: World) -> None:
    uuid = "3d9bbdd2-b5ec-4a7e-9d2c-4c1f8c0e2a0f"
    pool(world, "a", world.storage / "a", more=f"<uuid>{uuid}</uuid>")
    pool(world, uuid, world.storage / "b")
    (said,) = refused(world)
    assert said == f"a.xml:2:1: /pool/uuid: the uuid of pool 'a' is the name of another pool, at {uuid}.xml:2:1"


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
