"""What apply would refuse whatever comes is refused by the plan, with the place, or told with its reason."""

from __future__ import annotations

import os

import pytest

from poolkit import errors
from poolkit.engine.plan.entries import UNSEEN
from tests.plan.conftest import World

VOLUME = "<volume><name>v</name>{}</volume>"
TARGET = "<capacity>4096</capacity><target>{}</target>"
WRONG = [
    ("", "needs a capacity"),
    (TARGET.format("<format type='bochs'/>"), "the format 'bochs' cannot be created; these can be: raw, qcow2"),
    (TARGET.format("<format type='linux'/>"), "pools of type 'dir' have no volumes of format 'linux'"),
    (TARGET.format("<format type='dir'/>"), "the format 'dir' cannot be created"),
    (TARGET.format("<format type='luks'/>"), "encryption needs a secret"),
    (TARGET.format("<format type='raw'/><encryption format='luks'/>"), "encryption needs a secret"),
    (TARGET.format("<format type='qcow2'/><clusterSize>1000</clusterSize>"), "the cluster size of qcow2 is a power of two"),
    (TARGET.format("<format type='qcow2'/><compat>0.10</compat><features><lazy_refcounts/></features>"), "need compat 1.1"),
    (
        "<capacity>1</capacity><target><format type='qcow2'/></target>"
        "<backingStore><path>base</path><format type='raw'/></backingStore>",
        "the backing store 'base' is not an absolute path; name the whole path",
    ),
    ("<capacity>1</capacity><backingStore><path>/b</path><format type='raw'/></backingStore>", "has no backing store"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_can_be_no_volume_is_wrong_in_its_document(world: World, text: str, why: str) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.apply()
    place = world.write("images/v.xml", VOLUME.format(text))
    with pytest.raises(errors.InvalidDefinition) as caught:
        world.plan()
    assert why in str(caught.value) and str(caught.value).startswith(f"{place}:1:1: /volume: ")


def test_what_may_be_there_already_is_judged_when_it_is_seen(world: World) -> None:
    world.pool("images")
    world.write("images/v.xml", VOLUME.format(TARGET.format("<format type='bochs'/>")))
    world.write("images/w.xml", VOLUME.format("").replace("<name>v<", "<name>w<"))
    assert [entry.action for entry in world.plan().entries] == ["add", "add", "add"]
    world.write("images/x.xml", VOLUME.format(TARGET.format("<format type='linux'/>")).replace("<name>v<", "<name>x<"))
    with pytest.raises(errors.InvalidDefinition, match="no volumes of format 'linux'"):
        world.plan()


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("capacity", [1 << 20, 4 << 20])
def test_an_image_that_cannot_be_resized_is_made_anew_by_the_word_alone(world: World, capacity: int) -> None:
    world.pool("images")
    world.volume("images", "v", 2 << 20, "vmdk")
    world.apply()
    world.volume("images", "v", capacity, "vmdk")
    entry = world.plan().entries[1]
    assert (entry.needs, entry.note) == (("replace",), "images of format vmdk cannot be resized")
    assert [(change.field, change.when) for change in entry.changes] == [("capacity", "replace")]
    with pytest.raises(errors.Unsafe):
        world.plan().apply(shrink=True)
    world.apply(replace=True)


@pytest.mark.parametrize("format", ["", "<target><format type='raw'/></target>"])
@pytest.mark.parametrize("capacity", [0, 4096])
def test_a_directory_is_no_volume_of_that_name(world: World, format: str, capacity: int) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.apply()
    (world.storage / "images" / "v").mkdir()
    (world.storage / "images" / "v" / "kept").touch()
    world.write("images/v.xml", VOLUME.format(f"<capacity>{capacity}</capacity>{format}"))
    entry = world.plan().entries[1]
    assert [(c.field, c.old, c.new, c.when) for c in entry.changes] == [("target.format", "dir", "raw", "replace")]
    done = world.plan().apply(replace=True)
    assert not done and "not empty" in str(done.failed[0].error)
    os.unlink(world.storage / "images" / "v" / "kept")
    world.apply(replace=True)
    assert (world.storage / "images" / "v").is_file()


@pytest.mark.parametrize("active", [True, False])
def test_a_symbolic_link_in_the_way_is_told(world: World, active: bool) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.apply()
    if not active:  # then apply alone finds out
        world.engine.pool("images").destroy()
        os.rename(world.storage / "images", world.storage / "away")
    place = world.storage / ("images" if active else "away") / "v"
    place.symlink_to("nowhere")
    world.volume("images", "v")
    plan = world.plan()
    note = "a symbolic link has its name, and is not replaced" if active else UNSEEN
    assert (plan.entries[1].action, plan.entries[1].note) == ("add", note)
    if not active:
        os.rename(world.storage / "away", world.storage / "images")
    done = plan.apply()
    assert "rm '" in (done.failed[0].error.hint or "")  # type: ignore[union-attr]


def test_a_directory_is_not_resized(world: World) -> None:
    world.pool("images", "state='active' build='if-empty'")
    world.apply()
    (world.storage / "images" / "v").mkdir()
    pool = world.engine.pool("images")
    pool.refresh()
    with pytest.raises(errors.Unsupported, match="volume 'v': it is a directory, which has no capacity") as caught:
        pool.volume("v").resize(4096)
    assert caught.value.hint is None
