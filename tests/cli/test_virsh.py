"""virsh by habit: its verbs, its options and its places mean here what they mean there, or are refused with the reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from poolkit.cli import arguments
from poolkit.cli.as_verbs import document
from poolkit.cli.verbs import find
from poolkit.cli.watch import Seen, pool_changes, secret_changes
from poolkit.xmlmap import read

from .conftest import Command

UUID = "0a81f5b2-8403-4b23-88d6-21ccc2f80d6f"


def virsh(*words: str) -> str:
    return subprocess.run(["virsh", "help", *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("virsh") is None, reason="virsh is not installed")
@pytest.mark.parametrize("group", ["pool", "volume", "secret"])
def test_every_option_and_place_of_virshs_own_help(group: str) -> None:
    names = [line.split()[0] for line in virsh(group).splitlines()[1:] if line.strip()]
    assert len(names) >= 7
    for name in names:
        verb = find(name)
        assert verb is not None, name
        text = virsh(name).partition("  OPTIONS\n")[2]
        options = re.findall(r"^    (\[?)--([A-Za-z0-9-]+)\]?(?: <(\w+)>)?", text, re.MULTILINE)
        mine = {a.option: a for a in verb.arguments}
        for _, option, kind in options:
            assert f"--{option}" in mine, (name, option)
            if (name, option) != ("secret-set-value", "base64"):
                assert bool(kind) == (mine[f"--{option}"].kind != "flag"), (name, option)
        placed = [option for bracket, option, kind in options if bracket]
        ours = [a.option for a in verb.arguments if a.placed]
        assert ours[: len(placed)] == [f"--{o}" for o in placed], name


@pytest.fixture
def images(poolkit: Command) -> Command:
    poolkit.pool()
    return poolkit


def test_places_behind_the_needed_ones(images: Command) -> None:
    images("vol-create-as", "images", "v", "10M", "0", "qcow2")
    told = images("vol-info", "v", "images", "--json").json
    assert (told["format"], told["capacity"]) == ("qcow2", 10 << 20)
    images("vol-resize", "v", "20M", "images")
    images("vol-clone", "v", "w", "images")
    images("vol-download", "w", images.folder / "out", "images", "0", "4")
    assert (images.folder / "out").read_bytes() == b"QFI\xfb"
    images("vol-upload", "w", images.folder / "out", "images", "0", "4", status=None)
    assert [p["name"] for p in images("pool-list", "dir", "--json").json] == ["images"]
    assert "one argument too many" in images("vol-info", "v", "images", "more", status=2).err


def test_a_negative_change_of_the_size(images: Command) -> None:
    images("vol-create-as", "images", "v", "30M", "0")
    images("vol-resize", "v", "-10M", "--pool", "images", "--delta", "--shrink")
    assert images("vol-info", "v", "images", "--json").json["capacity"] == 20 << 20
    images("vol-resize", "v", "-1M", "images", status=2)
    images("vol-resize", "v", "-1M", "images", "--delta", status=2)
    images("vol-create-as", "images", "x", "-10M", status=2)
    assert images("vol-info", "v", "images", "--json").json["capacity"] == 20 << 20


def test_pools_from_arguments(poolkit: Command) -> None:
    target = poolkit.folder / "as"
    line = ("as", "dir", "-", "-", "-", "-", target)
    assert f"<path>{target}</path>" in poolkit("pool-define-as", *line, "--print-xml").out
    assert poolkit("list", "--all", "--name").out == ""
    poolkit("pool-define-as", *line)
    assert "<source>" not in poolkit("pool-dumpxml", "as").out.replace("<source>\n  </source>", "")
    poolkit("pool-undefine", "as")
    poolkit("pool-create-as", "as", "dir", "--target", target, "--build")
    assert poolkit("info", "as", "--json").json["persistent"] is False
    poolkit("pool-define-as", "x", "nsf", status=3)
    assert "belong together" in poolkit("pool-define-as", "x", "iscsi", "--auth-type", "chap", status=2).err


def test_every_argument_reaches_the_document(poolkit: Command) -> None:
    from poolkit import registry

    entry = find("define-as")
    assert entry is not None
    lines = {
        "iscsi": "--source-host h --source-dev iqn.2020-01.org.x:t --source-initiator iqn.2020-01.org.x:i --target /t "
        f"--auth-type chap --auth-username u --secret-uuid {UUID}",
        "netfs": "--source-host h --source-path /e --source-format nfs --source-protocol-ver 4 --target /t",
        "logical": "--source-name vg --source-dev /dev/sdz --source-format lvm2 --target /dev/vg",
        "scsi": "--adapter-wwnn 20000000c9831b4b --adapter-wwpn 10000000c9831b4b --adapter-parent scsi_host5 --target /t",
    }
    for type, line in lines.items():
        values = arguments.parse(entry.arguments, ["p", type, *line.split()], entry.name)
        text = document(values)
        for value in line.split()[1::2]:
            assert value in text, text
        read(text.encode(), registry.candidates(text.encode()))
    odd = arguments.parse(entry.arguments, ["a<b", "dir", "--target", "/a&b"], entry.name)
    assert "<name>a&lt;b</name>" in document(odd) and "/a&amp;b" in document(odd)


def test_xpath(images: Command) -> None:
    images.volume()
    assert images("pool-dumpxml", "images", "--xpath", "/pool/name").out == "<name>images</name>\n"
    assert images("dumpxml", "images", "//name", "--wrap").out == "<nodes>\n<name>images</name>\n</nodes>\n"
    assert images("vol-dumpxml", "disk1", "images", "--xpath", "/volume/@type").out == ' type="file"\n'
    assert "no XPath expression" in images("dumpxml", "images", "--xpath", "///", status=2).err
    assert "no nodes" in images("dumpxml", "images", "--xpath", "count(//*)", status=2).err


def test_snapshots_are_not_deleted_along(images: Command) -> None:
    path = images.volume()
    assert (
        "a snapshot is a volume of its own"
        in images("vol-delete", "disk1", "images", "--delete-snapshots", status=8).err
    )
    assert path.exists()


@pytest.mark.parametrize(
    "line", [["-c", "qemu:///system", "list"], ["--connect", "qemu:///system", "list"], ["list", "-c", "x"]]
)
def test_a_uri_is_answered_with_what_poolkit_is(poolkit: Command, line: list[str]) -> None:
    assert "no daemon behind it" in poolkit(*line, status=2).err


@pytest.fixture
def secret(poolkit: Command) -> Command:
    file = poolkit.folder / "secret.xml"
    file.write_text(f"<secret><uuid>{UUID}</uuid><usage type='volume'><volume>/a</volume></usage></secret>")
    poolkit("secret-define", file)
    return poolkit


def test_a_file_has_the_value_in_base64_as_in_virsh(secret: Command) -> None:
    file = secret.folder / "value"
    file.write_bytes(b"aHVudGVyMg==\n")
    secret("secret-set-value", UUID, "--file", file)
    assert secret("secret-get-value", UUID, "--show", "--json").json == {"base64": "aHVudGVyMg=="}
    file.write_bytes(b"hunter 2\n")
    assert "unless --plain" in secret("secret-set-value", UUID, "--file", file, status=2).err
    secret("secret-set-value", UUID, "--file", file, "--plain")
    assert secret("secret-get-value", UUID, "--show", "--json").json == {"base64": "aHVudGVyIDIK"}


def test_a_value_on_the_command_line_is_refused_with_the_reason(secret: Command) -> None:
    answer = secret("secret-set-value", UUID, "--base64=aHVudGVyMg==", status=2)
    assert "takes no value" in answer.err and "aHVudGVyMg" not in answer.err
    for line in ([UUID, "aHVudGVyMg=="], [UUID, "--base64", "aHVudGVyMg=="]):
        answer = secret("secret-set-value", *line, status=2)
        assert "every user of the machine" in answer.err and "aHVudGVyMg" not in answer.err
    assert "--plain says how --file is read" in secret("secret-set-value", UUID, "--plain", status=2).err


def test_secret_list_takes_virshs_filters(secret: Command) -> None:
    assert len(secret("secret-list", "--no-ephemeral", "--no-private", "--json").json) == 1
    assert secret("secret-list", "--ephemeral", "--json").json == []
    assert secret("secret-list", "--private", "--json").json == []
    secret("secret-list", "--private", "--no-private", status=2)


def test_events_are_what_differs_between_two_looks() -> None:
    one = {"u": Seen("p", True, False, None)}
    up = {"u": Seen("p", True, True, 1.0)}
    assert list(pool_changes({}, up)) == [("lifecycle", "p", "Defined"), ("lifecycle", "p", "Started")]
    assert list(pool_changes(one, up)) == [("lifecycle", "p", "Started")]
    assert list(pool_changes(up, {"u": Seen("p", True, True, 2.0)})) == [("refresh", "p", "")]
    assert list(pool_changes(up, one)) == [("lifecycle", "p", "Stopped")]
    assert list(pool_changes(up, {})) == [("lifecycle", "p", "Stopped"), ("lifecycle", "p", "Undefined")]
    assert list(pool_changes(up, up)) == []
    bare, full = {"s": Seen("s", True, False, None)}, {"s": Seen("s", True, False, (1, 2))}
    assert list(secret_changes({}, full)) == [("lifecycle", "s", "Defined"), ("value-changed", "s", "")]
    assert list(secret_changes(bare, full)) == [("value-changed", "s", "")]
    assert list(secret_changes(full, {})) == [("lifecycle", "s", "Undefined")]


def test_an_event_is_seen_though_another_process_makes_it(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.cli import watch

    assert poolkit("pool-event", "--list").out == "lifecycle\nrefresh\n"
    assert "one of --list" in poolkit("secret-event", status=2).err
    assert poolkit("pool-event", "--event", "lifecycle", "--timeout", "0", status=1).out == ""
    poolkit("define", poolkit.document())

    def another(_: float) -> None:
        words = [sys.executable, "-m", "poolkit", "--root", str(poolkit.root), "start", "images", "--build"]
        subprocess.run(words, check=True, capture_output=True)

    monkeypatch.setattr(watch.time, "sleep", another)
    told = poolkit("pool-event", "--event", "lifecycle", "--pool", "images").out
    assert told == "event 'lifecycle' for storage pool 'images': Started\n"


@pytest.mark.parametrize("verb", ["define-as", "create-as"])
def test_a_pool_from_arguments_makes_the_folder_of_root(poolkit: Command, verb: str) -> None:
    shutil.rmtree(poolkit.root, ignore_errors=True)
    folder = poolkit.folder / "p"
    folder.mkdir()
    poolkit(verb, "p", "dir", "--target", folder)
    assert poolkit("list", "--all", "--name").out == "p\n"
