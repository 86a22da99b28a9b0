"""Every verb of volumes, once well and once ill."""

from __future__ import annotations

import os
import pwd

import pytest

from .conftest import Command


@pytest.fixture
def images(poolkit: Command) -> Command:
    poolkit.pool()
    return poolkit


def test_create_as_makes_a_volume(images: Command) -> None:
    assert images("vol-create-as", "images", "disk1", "1MiB", "--allocation", "0").out == "volume 'disk1' is created\n"
    path = images.folder / "images" / "disk1"
    assert path.stat().st_size == 1 << 20 and path.stat().st_blocks == 0
    answer = images("vol-create-as", "--pool", "images", "--name", "disk2", "--capacity", "8K", "--json").json
    assert answer["changed"] is True
    assert answer["volume"]["capacity"] == answer["volume"]["allocation"] == 8192
    assert images("vol-create-as", "images", "disk1", "1", status=5).err.startswith(
        "error: pool 'images' has a volume 'disk1'"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["../evil", "1"], "cannot be the name of a volume"),
        (["disk", "-1"], "capacity: '-1' is not a size"),
        (["disk", "1ZiB"], "capacity:"),
        (["disk"], "capacity is missing"),
        (["disk", "1", "0", "raw", "b", "raw", "7"], "'7' is one argument too many"),
        (["disk", "1", "--format", "qcov2"], "did you mean 'qcow2'?"),
        (["disk", "1", "--name", "other"], "'name' is given twice"),
    ],
)
def test_create_as_refuses_what_cannot_be_meant(images: Command, words: list[str], said: str) -> None:
    assert said in images("vol-create-as", "images", *words, status=2).err
    assert list((images.folder / "images").iterdir()) == []


def test_create_as_can_print_the_document_only(images: Command) -> None:
    text = images("vol-create-as", "images", "disk1", "1K", "--print-xml", "--backing-vol", "/base", "--backing-vol-format",
                  "raw").out  # fmt: skip
    assert "<name>disk1</name>" in text and "<path>/base</path>" in text
    assert list((images.folder / "images").iterdir()) == []


def test_create_reads_a_document(images: Command) -> None:
    file = images.folder / "volume.xml"
    file.write_text("<volume><name>disk1</name><capacity unit='KiB'>64</capacity><allocation>0</allocation></volume>")
    assert images("vol-create", "images", file, "--validate").status == 0
    assert (images.folder / "images" / "disk1").stat().st_size == 65536
    file.write_text("<volume><name>disk2</name><capacity unit='Kib'>x</capacity></volume>")
    assert images("vol-create", "images", file, status=3).err.startswith(f"error: {file}:1:")


def test_list_shows_names_sizes_and_paths(images: Command) -> None:
    path = images.volume()
    assert images("vol-list", "images", "--bytes").out.splitlines() == [
        "Name   Format  Capacity  Allocation  Path",
        f"disk1  raw      1048576           0  {path}",
    ]
    assert "1.00 MiB" in images("vol-list", "images", "--details").out
    assert images("vol-list", "images", "--name").out == "disk1\n"
    images("destroy", "images")
    assert "is not active" in images("vol-list", "images", status=6).err


def test_a_volume_is_found_by_name_key_and_path(images: Command) -> None:
    path = str(images.volume())
    images.pool("other")
    for words in (["disk1", "--pool", "images"], [path], [path, "--pool", "images"]):
        assert images("vol-info", *words, "--json").json["name"] == "disk1", words
    assert images("vol-path", "disk1", "--pool", "images").out == f"{path}\n"
    assert images("vol-key", "disk1", "--pool", "images").out == f"{path}\n"
    assert images("vol-name", path).out == "disk1\n"
    assert images("vol-pool", path).out == "images\n"
    assert images("vol-pool", path, "--uuid").out == images("uuid", "images").out
    assert images("vol-name", path, "--json").json == {"name": "disk1"}
    assert "is a volume of pool 'images'" in images("vol-info", path, "--pool", "other", status=4).err


@pytest.mark.parametrize(
    "verb", ["vol-info", "vol-dumpxml", "vol-delete", "vol-path", "vol-key", "vol-name", "vol-pool", "vol-resize"]
)
def test_an_unknown_volume(images: Command, verb: str) -> None:
    images.volume()
    size = ["1M"] if verb == "vol-resize" else []
    assert "did you mean 'disk1'?" in images(verb, "disk", "--pool", "images", *size, status=4).err
    assert "hint: add --pool images" in images(verb, "disk1", *size, status=4).err
    assert images(verb, "/none/such", *size, "--json", status=4).error["error"] == "volume-not-found"


def test_info_shows_the_volume_as_it_is_now(images: Command) -> None:
    path = images.volume()
    with open(path, "r+b") as file:
        file.truncate(3 << 20)
    facts = images("vol-info", path, "--json").json
    assert facts["capacity"] == 3 << 20
    assert {"pool", "name", "key", "path", "type", "format", "capacity", "allocation", "physical", "mode", "owner", "group",
            "atime", "mtime", "ctime"} <= facts.keys()  # fmt: skip
    text = images("vol-info", path, "--bytes", "--physical").out
    assert "Physical:  3145728\n" in text


def test_info_answers_while_other_work_holds_the_volume(images: Command) -> None:
    from poolkit import Engine

    path = images.volume()
    with Engine(images.root) as engine, engine.core.locks.work("images", "vol-wipe", volume="disk1"):
        assert images("vol-info", path, "--json").json["capacity"] == 1 << 20


def test_dumpxml_prints_the_facts(images: Command) -> None:
    path = images.volume()
    text = images("vol-dumpxml", "disk1", "--pool", "images").out
    assert text.startswith(f"<volume type='file'>\n  <name>disk1</name>\n  <key>{path}</key>\n")


def test_resize_grows_and_shrinks_only_when_asked(images: Command) -> None:
    path = images.volume()
    assert images("vol-resize", path, "2MiB").out == "volume 'disk1' has 2097152 bytes\n"
    assert "--shrink" in images("vol-resize", path, "1MiB", status=2).err
    assert images("vol-resize", path, "1MiB", "--delta", "--json").json["volume"]["capacity"] == 3 << 20
    images("vol-resize", path, "1MiB", "--shrink")
    assert path.stat().st_size == 1 << 20
    images("vol-resize", "disk1", "64KiB", "--pool", "images", "--delta", "--allocate")
    assert path.stat().st_blocks > 0


def test_delete_is_repeatable_while_it_is_listed(images: Command) -> None:
    path = images.volume()
    answer = images("vol-delete", path, "--dry-run")
    assert path.exists() and str(path) in answer.out
    path.unlink()
    assert images("vol-delete", path).out == "volume 'disk1' was gone already\n"
    assert images("vol-list", "images", "--json").json == []


def test_volumes_to_look_at_are_marked_and_counted(images: Command) -> None:
    images("vol-create-as", "images", "fine", "1M", "--allocation", "0")
    folder = images.folder / "images"
    (folder / "half").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(30))
    said = images("refresh", "images").err
    assert "1 volume is damaged" in said and "'half'" in said
    listed = images("vol-list", "images")
    assert [line.split()[:3] for line in listed.out.splitlines() if line.split()[:1] == ["half"]] == [
        ["half", "qcow2", "!"]
    ]
    assert "!" not in next(line for line in listed.out.splitlines() if line.startswith("fine"))
    assert "1 volume is damaged" in listed.err
    assert "half" in images("vol-list", "images", "--details").out
    assert images("vol-list", "images", "--name").err == ""
    assert "truncated" in next(v for v in images("vol-list", "images", "--json").json if v["name"] == "half")["error"]
    assert "truncated" in images("vol-info", "--pool", "images", "half").out
    assert "truncated" in images("probe", folder / "half", status=None).err


def test_owner_group_and_mode(images: Command) -> None:
    me = (os.geteuid(), os.getegid())
    name = pwd.getpwuid(me[0]).pw_name
    images("vol-create-as", "images", "a", "1M", "--mode", "0640", "--owner", name, "--group", str(me[1]))
    facts = (images.folder / "images" / "a").stat()
    assert (facts.st_mode & 0o777, facts.st_uid, facts.st_gid) == (0o640, *me)
    images("vol-clone", "a", "b", "images")
    images("vol-clone", "a", "c", "images", "--same-owner")
    images("vol-clone", "a", "d", "images", "--same-owner", "--mode", "604")
    modes = [(images.folder / "images" / n).stat().st_mode & 0o777 for n in "bcd"]
    assert modes == [0o600, 0o640, 0o604]
    if me[0] == 0:
        images("vol-create-as", "images", "e", "1M", "--owner", "65534", "--group", "65534")
        assert (images.folder / "images" / "e").stat().st_uid == 65534
        images("vol-clone", "e", "f", "images", "--same-owner")
        assert (images.folder / "images" / "f").stat().st_gid == 65534
    for words in (
        ["--mode", "rw"],
        ["--mode", "0888"],
        ["--mode", "7777"],
        ["--owner", "no such user"],
        ["--group", "4294967295"],
    ):
        images("vol-create-as", "images", "g", "1M", *words, status=2)
    assert not (images.folder / "images" / "g").exists()


def test_a_dry_run_foresees_what_is_in_the_way(images: Command) -> None:
    path = images.volume()
    assert "has a volume 'disk1' already" in images("--dry-run", "vol-create-as", "images", "disk1", "1M", status=5).err
    (path.parent / "unlisted").write_bytes(b"x")
    assert "already" in images("--dry-run", "vol-create-as", "images", "unlisted", "1M", status=5).err
    assert "already" in images("--dry-run", "vol-clone", "disk1", "unlisted", "images", status=5).err
    assert "the pool has" in images("--dry-run", "vol-create-as", "images", "big", "1000T", status=11).err
    assert images("--dry-run", "vol-create-as", "images", "big", "1000T", "0").out.startswith("create ")
    target = images.folder / "out"
    told = images("--dry-run", "vol-download", "disk1", target, "images")
    assert told.out == f"write 1048576 bytes of volume 'disk1' to '{target}'\n" and not target.exists()
    assert "is the volume itself" in images("--dry-run", "vol-download", "disk1", path, "images", status=2).err
    images("--dry-run", "vol-download", "disk1", images.folder / "none" / "out", "images", status=10)


def test_adopt_says_what_is_shown_from_then_on(images: Command) -> None:
    data = bytearray(1 << 20)
    data[32769:32774] = b"CD001"
    (images.folder / "images" / "cd").write_bytes(data)
    images("refresh", "images")
    told = images("vol-adopt", "cd", "images", "--format", "raw").out
    assert f"shown as {images('vol-info', 'cd', 'images', '--json').json['format']}" in told


def test_disk_xml_prints_the_element_or_qemus_node(images: Command) -> None:
    images.volume("disk1")
    path = images.folder / "images" / "disk1"
    text = images("vol-disk-xml", "images", "disk1").out
    assert text.startswith("<disk type='file' device='disk'>\n") and f"<source file='{path}'/>" in text
    assert images("vol-disk-xml", "images", path, "--json").json["xml"] == text
    node = images("vol-disk-xml", "--pool", "images", "--vol", "disk1", "--qemu", "--target", "vdb").json
    assert node == {"node-name": "vdb", "driver": "raw", "file": {"driver": "file", "filename": str(path)}}
    assert images("vol-disk-xml", "images", "disk1", "--qemu", "--json").json["blockdev"]["driver"] == "raw"
    assert "<source pool='images' volume='disk1'/>" in images("vol-disk-xml", "images", "disk1", "--pool-form").out


def test_disk_xml_warns_of_a_chain_that_is_not_written_down(images: Command) -> None:
    images.volume("base")
    images("vol-clone", "--pool", "images", "base", "top", "--linked")
    answer = images("vol-disk-xml", "images", "top")
    assert answer.err.startswith("warning: volume 'top' stands on an image that its own header names")
    assert len(images("vol-disk-xml", "images", "top", "--json").json["warnings"]) == 1
    assert images("vol-disk-xml", "images", "top", "--chain").err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["disk1", "--qemu", "--pool-form"], "QEMU knows no pools"),
        (["disk1", "--chain", "--pool-form"], "no backing chain of its own"),
        (["disk1", "--target", "eth0"], "is no name of a disk"),
        (["disk1", "--cache", "fast"], "cache: 'fast'"),
    ],
)
def test_disk_xml_refuses_what_cannot_be_meant(images: Command, words: list[str], said: str) -> None:
    images.volume("disk1")
    assert said in images("vol-disk-xml", "images", *words, status=2).err
    images("vol-disk-xml", "images", "nosuch", status=4)


def test_vol_permit_changes_what_is_said_and_no_more(images: Command) -> None:
    images("vol-create-as", "images", "v", "1M")
    images("vol-permit", "v", "images", status=2)
    assert images("vol-permit", "v", "images", "--mode", "0640").out == "volume 'v' has new permissions\n"
    assert images("vol-permit", "v", "images", "--mode", "0640", "--json").json["changed"] is False
    assert images("vol-info", "v", "images", "--json").json["mode"] == "0640"
