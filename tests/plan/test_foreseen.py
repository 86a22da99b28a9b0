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


CEPH = (
    "<pool type='rbd' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name>"
    "<source><host name='localhost' port='1'/><name>{name}</name>"
    "<auth type='ceph' username='a'><secret {secret}/></auth></source><pk:wanted state='{state}'/></pool>"
)
UUID = "0fd0b4e4-64a9-4f7f-8e1f-3f7e6e0bdf0a"
SECRET = "<secret xmlns:pks='urn:poolkit:secret:1'>{uuid}<usage type='ceph'><name>key</name></usage>{more}</secret>"


def notes(world: World) -> dict[str, str]:
    return {entry.name: entry.note for entry in world.plan().entries if entry.kind != "secret"}


@pytest.mark.parametrize("secret", ["usage='key'", f"uuid='{UUID}'"])
def test_a_pool_whose_secret_is_missing_is_told(world: World, secret: str) -> None:
    said = f"needs secret '{'key' if 'key' in secret else UUID}', which "
    uuid = f"<uuid>{UUID}</uuid>"
    world.write("p.xml", CEPH.format(name="p", secret=secret, state="active"))
    world.write("q.xml", CEPH.format(name="q", secret=secret.replace("key", "other"), state="inactive"))
    assert notes(world) == {"p": f"{said}is not defined", "q": ""}, "only what is to be started"
    document = world.write("s.xml", SECRET.format(uuid=uuid, more=""))
    assert notes(world)["p"] == f"{said}has no value yet"
    value = world.documents / "value"
    value.write_bytes(b"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")
    value.chmod(0o600)
    document.write_text(SECRET.format(uuid=uuid, more=f"<pks:value file='{value}'/>"))
    assert notes(world)["p"] == ""
    document.unlink()
    made = world.engine.define_secret(SECRET.format(uuid=uuid, more=""))
    assert notes(world)["p"] == f"{said}has no value yet"
    made.set_value(b"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")
    assert notes(world)["p"] == ""
    document.write_text(SECRET.format(uuid="", more="<pks:wanted state='absent'/>"))
    assert notes(world)["p"] == f"{said}is to be absent"


@pytest.mark.tools("qemu-img")
def test_a_volume_whose_secret_is_missing_is_told(world: World) -> None:
    world.pool("images")
    luks = "<encryption format='luks'><secret type='passphrase' usage='k'/></encryption>"
    world.write(
        "images/v.xml", VOLUME.format(f"<capacity>1048576</capacity><target><format type='raw'/>{luks}</target>")
    )
    lacks = "needs secret 'k', which is not defined"
    assert notes(world)["v"] == f"{UNSEEN}; {lacks}"
    done = world.plan().apply()
    assert [str(result.error) for result in done.failed] == ["there is no secret 'k'"]
    assert not (world.storage / "images" / "v").exists()
    assert notes(world) == {"images": "", "v": lacks}
    value = world.documents / "value"
    value.write_bytes(b"a passphrase")
    value.chmod(0o600)
    text = (
        SECRET.format(uuid="", more=f"<pks:value file='{value}'/>")
        .replace("ceph", "volume")
        .replace("name>", "volume>")
    )
    world.write("s.xml", text.replace(">key<", ">k<"))
    (volume,) = (entry for entry in world.plan().entries if entry.kind == "volume")
    assert volume.note == "" and "secret volume k" in volume.after, "it waits for what it needs"
    assert world.apply()
