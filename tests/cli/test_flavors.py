"""The verbs of flavors, and the verbs of volumes with ``--flavor``."""

from __future__ import annotations

from .conftest import Command


def test_a_flavor_stands_in_the_place_of_a_pool(poolkit: Command) -> None:
    poolkit.pool("a")
    file = poolkit.folder / "gold.xml"
    file.write_text("<flavor><name>gold</name><backend pool='a'/></flavor>")
    poolkit("flavor-define", file)
    answer = poolkit("vol-create-as", "--flavor", "gold", "d1", "1MiB", "--allocation", "0")
    assert "is in pool 'a'" in answer.err
    poolkit("vol-create-as", "d2", "1MiB", "--flavor=gold")
    document = poolkit.folder / "v.xml"
    document.write_text("<volume><name>d3</name><capacity>4096</capacity></volume>")
    assert poolkit("vol-create", document, "--flavor", "gold", "--json").json["pool"] == "a"
    assert [v["name"] for v in poolkit("vol-list", "a", "--json").json] == ["d1", "d2", "d3"]
    assert "took volume 'd4'" in poolkit("vol-create-as", "--flavor", "gold", "d4", "1EiB", status=15).err
    assert [v["turn"] for v in poolkit("flavor-explain", "gold", "1MiB", "--json").json] == [1]
    assert poolkit("flavor-delete", "gold", status=9)
    assert poolkit("vol-create", "a", document, "--flavor", "gold", status=2)


def test_clones_and_imports_go_through_a_flavor(poolkit: Command) -> None:
    for name in ("a", "b", "c"):
        poolkit.pool(name)
    file = poolkit.folder / "gold.xml"
    file.write_text("<flavor><name>gold</name><backend pool='a'/><backend pool='b'/></flavor>")
    poolkit("flavor-define", file)
    image = poolkit.folder / "image"
    image.write_bytes(b"content" * 1000)
    poolkit("vol-import", "c", "source", image)
    poolkit("destroy", "a")
    answer = poolkit(
        "vol-clone", "source", "d1", "--pool", "c", "--flavor", "gold", "--capacity", "8192", "--mode", "0640"
    )
    assert "is in pool 'b'" in answer.err
    assert poolkit("vol-import", "d2", image, "--flavor", "gold", "--json").json["pool"] == "b"
    found = {one["name"]: one for one in poolkit("vol-list", "b", "--json").json}
    assert {name: one["capacity"] for name, one in found.items()} == {"d1": 8192, "d2": 7000}
    assert found["d1"]["mode"] == "0640"
    assert all((poolkit.folder / "b" / name).read_bytes()[:7000] == image.read_bytes() for name in found)
    for words in (("vol-clone", "source", "d2", "--pool", "c"), ("vol-import", "d2", image)):
        assert "has a volume 'd2' already" in poolkit(*words, "--flavor", "gold", status=5).err
    assert (
        "took volume 'd4'"
        in poolkit("vol-clone", "source", "d4", "--pool", "c", "--capacity", "1EiB", "--flavor", "gold", status=15).err
    )
    assert (
        "took volume 'd4'"
        in poolkit("vol-import", "d4", image, "--capacity", "1EiB", "--flavor", "gold", status=15).err
    )
    poolkit("vol-clone", "source", "d4", "--pool", "c", "--flavor", "gold", "--to-pool", "b", status=2)
    assert poolkit("flavor-delete", "gold", status=9)


def test_a_backend_of_a_flavor_stays_unless_it_is_forced(poolkit: Command) -> None:
    poolkit.pool("a")
    for name in ("gold", "silver"):
        file = poolkit.folder / f"{name}.xml"
        file.write_text(f"<flavor><name>{name}</name><backend pool='b'/><backend pool='a' drained='yes'/></flavor>")
        poolkit("flavor-define", file)
    (poolkit.folder / "root/flavors/damaged.xml").write_text("<flavor")
    poolkit("destroy", "a")
    for verb in ("delete", "undefine"):
        error = poolkit("--json", verb, "a", status=9).error
        assert error["error"] == "has-dependents" and error["dependents"]["flavors"] == ["gold", "silver"]
        assert "a backend of the flavors 'gold' and 'silver'" in error["message"] and "--force" in error["hint"]
    poolkit("delete", "a", "--force")
    poolkit("undefine", "a", "--force")
    assert poolkit("list", "--all", "--name").out == ""
