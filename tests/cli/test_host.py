"""capabilities, find-sources, probe, recover and doctor."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree

from poolkit import errors, registry
from poolkit.documents import FoundDevice, FoundSource
from poolkit.engine import Engine

from .conftest import Command


def test_capabilities_have_libvirts_order(poolkit: Command) -> None:
    import re

    text = poolkit("capabilities").out
    types = re.findall(r"<pool type='([^']*)'", text)
    assert types[:14] == [
        "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog", "gluster", "zfs",
        "vstorage",
    ]  # fmt: skip
    directory = text.partition("<pool type='fs'")[0]
    assert "<defaultFormat type='raw'/>" in directory
    assert re.findall(r"<value>(.*?)</value>", directory) == [
        "none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
        "vmdk",
    ]  # fmt: skip
    logical = text.partition("<pool type='logical'")[2].partition("</pool>")[0]
    assert "<defaultFormat type='lvm2'/>" in logical and re.findall(r"<value>(.*?)</value>", logical) == [
        "unknown",
        "lvm2",
    ]


def test_capabilities_name_every_type(poolkit: Command) -> None:
    for verb in ("capabilities", "pool-capabilities"):
        tree = etree.fromstring(poolkit(verb).out)
        assert tree.tag == "storagepoolCapabilities"
        assert sorted(tree.xpath("pool/@type")) == sorted(registry.types())
        assert tree.xpath("pool[@type='dir']/@supported") == ["yes"]
    facts = {t["type"]: t for t in poolkit("capabilities", "--json").json}
    assert {"build", "start", "erase", "create", "resize", "delete"} <= set(facts["dir"]["verbs"])
    assert facts["dir"].keys() == {"type", "supported", "verbs", "source_formats", "volume_formats", "tools", "error"}


def test_a_type_that_has_only_definitions_is_not_supported(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.backend import DefinitionOnly
    from poolkit.backends.dir import DirPool

    only = type("Only", (DefinitionOnly,), {"type": "dir", "definition": DirPool})
    monkeypatch.setattr(registry, "backend", lambda _: only)
    facts = poolkit("capabilities", "dir", "--json").json
    assert facts[0]["supported"] is False and "cannot start its pools" in facts[0]["error"]
    assert "supported='no'" in poolkit("capabilities").out


def test_capabilities_of_one_type(poolkit: Command) -> None:
    assert "Type:            dir\n" in poolkit("capabilities", "dir").out
    assert "did you mean 'dir'?" in poolkit("capabilities", "dirr", status=8).err


def test_a_broken_package_is_reported_and_hides_nothing(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.backend

    def broken(name: str) -> object:
        if name == "dir":
            raise ImportError("no module named 'gone'")
        return real(name)

    monkeypatch.setattr(registry, "backend", broken)
    facts = poolkit("capabilities", "--json").json
    (broken_one,) = [one for one in facts if one["type"] == "dir"]
    assert broken_one["supported"] is False and broken_one["error"] == "no module named 'gone'"
    assert len(facts) == len(registry.types())
    doctor = poolkit("doctor", "--json", status=None).json
    assert any(c["name"] == "type dir" and "gone" in c["message"] for c in doctor["checks"])


def test_sources_that_cannot_be_searched(poolkit: Command) -> None:
    assert "cannot be searched" in poolkit("find-sources", "dir", status=8).err
    assert "there is no pool type 'none'" in poolkit("find-storage-pool-sources", "none", status=8).err
    bad = poolkit.folder / "bad.xml"
    bad.write_text("<source><hots name='x'/></source>")
    assert f"error: {bad}:1:9:" in poolkit("find-sources", "dir", bad, status=3).err


def test_found_sources_are_printed_as_libvirt_does(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.backends.dir import DirBackend

    asked = []

    def discover(cls: type, host: object, source: FoundSource | None) -> list[FoundSource]:
        asked.append(source)
        return [FoundSource(name="vg", devices=(FoundDevice(path="/dev/sda"),))]

    monkeypatch.setattr(DirBackend, "discover", classmethod(discover))
    text = poolkit("find-sources-as", "dir", "server", "2049", "--initiator", "iqn.2001-04.com.example:x").out
    assert etree.fromstring(text).xpath("/sources/source/name/text()") == ["vg"]
    assert asked[0].hosts[0].name == "server" and asked[0].hosts[0].port == 2049
    file = poolkit.folder / "source.xml"
    file.write_text("<source><host name='other'/></source>")
    found = poolkit("find-sources", "dir", file, "--json").json
    assert "<name>vg</name>" in found[0]["xml"]
    assert asked[1].hosts[0].name == "other"
    assert "'x' is not a whole number" in poolkit("find-sources-as", "dir", "server", "x", status=2).err


def test_definitions_of_found_sources_can_be_defined(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.backends.netfs import NetfsBackend
    from poolkit.model import SourceHost

    def discover(cls: type, host: object, source: FoundSource | None) -> list[FoundSource]:
        assert source is not None
        return [FoundSource(hosts=(SourceHost(name=source.hosts[0].name),), dir="/srv/images", format="nfs")]

    monkeypatch.setattr(NetfsBackend, "discover", classmethod(discover))
    file = poolkit.folder / "found.xml"
    file.write_text(poolkit("find-sources-as", "netfs", "nas1", "--define").out)
    poolkit("define", file, "--validate")
    source = poolkit.folder / "source.xml"
    source.write_text("<source><host name='nas2'/></source>")
    (second,) = poolkit("find-sources", "netfs", source, "--define", "--json").json
    file.write_text(second["xml"])
    assert "<name>images-2</name>" in second["xml"] and "<path>/mnt/images-2</path>" in second["xml"]
    poolkit("define", file)


def test_probe_says_what_headers_say(poolkit: Command) -> None:
    poolkit.root.rmdir()
    raw = poolkit.folder / "raw"
    raw.write_bytes(bytes(8192))
    answer = poolkit("probe", raw, "--bytes")
    assert answer.out.splitlines()[1].split()[:3] == [str(raw), "raw", "8192"]
    [facts] = poolkit("probe", raw, "--json").json
    assert {
        "path", "format", "virtual_size", "backing_file", "backing_format", "data_file", "encrypted", "compat", "cluster_size",
        "also", "ambiguous", "error",
    } <= facts.keys()  # fmt: skip
    assert not poolkit.root.exists(), "probing needs no pool and leaves nothing behind"


def test_probe_warns_of_polyglots_and_reports_bad_files(poolkit: Command) -> None:
    both = bytearray(65536)
    both[0:8] = b"QFI\xfb\0\0\0\3"
    both[32769:32774] = b"CD001"
    file = poolkit.folder / "both\x1b[31m"
    file.write_bytes(both)
    answer = poolkit("probe", file)
    assert "it could also be iso" in answer.err
    assert "\x1b" not in answer.out + answer.err and "\\x1b[31m" in answer.out
    answer = poolkit("probe", poolkit.folder / "missing", file, status=10)
    assert "missing: No such file or directory" in answer.err


def test_recover_finishes_what_a_killed_command_left(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    assert poolkit("recover").out == "nothing was left over\n"
    script = (
        "import os, signal, sys\n"
        "from poolkit import Engine, Host\n"
        "def fault(label):\n"
        "    if 'undo recorded' in label and 'images' in label:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "host = Host(fault=fault)\n"
        "Engine(sys.argv[1], host=host).pool('images').build()\n"
    )
    code = subprocess.run([sys.executable, "-c", script, str(poolkit.root)], check=False).returncode
    assert code == -9
    assert "build of pool 'images'" in poolkit("recover", "--dry-run").out
    found = poolkit("recover", "--json").json
    assert found["failed"] == [] and "build of pool 'images'" in found["recovered"][0]
    assert poolkit("recover", "--json").json == {"recovered": [], "failed": []}


def test_recover_and_doctor_report_what_could_not_be_undone(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    journals = poolkit.root / "state" / "journal"
    journals.mkdir(exist_ok=True)
    (journals / "x.journal.failed").write_text("{}\n")
    assert "could not be undone" in poolkit("recover", status=1).err
    found = poolkit("doctor", "--json", status=1).json
    assert found["ok"] is False
    assert [c["name"] for c in found["checks"] if c["status"] == "problem"] == ["journal"]


def test_doctor_is_content_with_a_healthy_root(poolkit: Command) -> None:
    poolkit.pool()
    found = poolkit("doctor", "--json").json
    assert found["ok"] is True
    assert all(c.keys() == {"name", "status", "message", "hint"} for c in found["checks"])
    names = [c["name"] for c in found["checks"]]
    assert {"version", "folder storage", "inventory", "pools", "type dir", "type netfs"} <= set(names)
    assert "1 known, 1 active" in poolkit("doctor").out


def test_doctor_finds_what_is_wrong(poolkit: Command) -> None:
    poolkit.pool()
    (poolkit.folder / "images").rmdir()
    storage = poolkit.root / "storage"
    (storage / "damaged.xml").write_text("<pool")
    (storage / "autostart").mkdir()
    (storage / "autostart" / "ghost.xml").symlink_to("../ghost.xml")
    (poolkit.root / "state" / "inventory.sqlite.damaged").write_text("")
    os.chmod(storage, 0o777)
    found = {c["name"]: c for c in poolkit("doctor", "--json", status=1).json["checks"] if c["status"] != "ok"}
    assert "everybody can write" in found["folder storage"]["message"]
    os.chmod(storage, 0o700)
    found = {c["name"]: c for c in poolkit("doctor", "--json", status=1).json["checks"] if c["status"] != "ok"}
    assert found["pool images"]["status"] == "note" and "does not exist" in found["pool images"]["message"]
    assert found["pool damaged"]["status"] == "problem" and found["pool damaged"]["hint"].endswith(
        f"poolkit --root {poolkit.root} edit damaged"
    )
    assert "'ghost'" in found["autostart"]["message"]
    assert found["inventory"]["status"] == "note"
    answer = poolkit("doctor", "--quiet", status=1)
    assert {line.split()[0] for line in answer.out.splitlines()[1:]} == {"problem"}


def test_doctor_reads_what_is_said_of_this_host(poolkit: Command) -> None:
    settings = poolkit.root / "host.toml"

    def found() -> list[dict[str, str]]:
        return [one for one in poolkit("doctor", "--json", status=None).json["checks"] if one["name"] == "settings"]

    assert found() == []
    for text, status in (("[node]\nrole = 'control'\n", "ok"), ("[xapi\n", "problem"), ("[xapi]\nurl = 5\n", "problem"),
                         ("[node]\nrole = 'king'\n", "problem")):  # fmt: skip
        settings.write_text(text)
        settings.chmod(0o600)
        (one,) = found()
        assert one["status"] == status and str(settings) in one["message"]


def test_doctor_lets_nobody_throw_the_formats_on_record_away(poolkit: Command) -> None:
    """A page is damaged that opening does not read: what the hint says to move is what poolkit looks for."""
    poolkit.pool()
    poolkit("list")
    path = poolkit.root / "state" / "inventory.sqlite"
    db = sqlite3.connect(path)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'grounds_said'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    found = {c["name"]: c for c in poolkit("doctor", "--json", status=1).json["checks"]}
    assert found["inventory"]["status"] == "problem" and f"{path}.damaged" in found["inventory"]["hint"]
    path.rename(f"{path}.damaged")
    with Engine(poolkit.root) as engine:
        assert engine.core.inventory.damaged == f"{path}.damaged"


def test_doctor_works_where_nothing_else_does(poolkit: Command) -> None:
    poolkit.root.rmdir()
    poolkit.root.write_text("a file in the way")
    found = json.loads(poolkit("doctor", "--json", status=1).out)
    assert {c["name"] for c in found["checks"] if c["status"] == "problem"} >= {"folder state", "engine"}


def test_doctor_names_the_package_of_a_missing_program(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.backends.dir import DirBackend

    monkeypatch.setattr(DirBackend, "tools", ("qemu-img", "no-such-program", "other-program"))
    monkeypatch.setattr(DirBackend, "packages", {"other-program": "other-package"})
    monkeypatch.setattr("poolkit.host.programs.SEARCH_PATH", ())

    def find() -> dict[str, str]:
        return next(c for c in poolkit("doctor", "--json", status=None).json["checks"] if c["name"] == "type dir")

    assert find()["status"] == "note"
    assert "apt install no-such-program other-package qemu-utils" in find()["hint"]
    poolkit("define", poolkit.document())
    assert find()["status"] == "problem" and "needed by pool 'images'" in find()["message"]


def test_errors_have_one_exit_code_for_each_class(poolkit: Command) -> None:
    from poolkit.cli.shell import exit_codes

    codes = dict(exit_codes())
    assert codes[errors.Busy.exit_code] == "Busy, DefinitionChanged, HeldElsewhere" and 70 in codes and 130 in codes


def test_doctor_says_what_is_missing_for_what(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.host import confine
    from poolkit.host.port import Host

    def checks() -> dict[str, Any]:
        return {c["name"]: c for c in poolkit("doctor", "--json").json["checks"]}

    real = Host.has_program
    monkeypatch.setattr(Host, "has_program", lambda self, name: name != "qemu-img" and real(self, name))
    found = checks()["program qemu-img"]
    assert found["status"] == "note" and "converting" in found["message"] and found["hint"].endswith("qemu-utils")
    monkeypatch.setattr(Host, "has_program", lambda self, name: False)
    for type, packages in (("rbd", "librados2 librbd1"), ("iscsi-direct", "libiscsi7"), ("iscsi", "open-iscsi")):
        assert checks()[f"type {type}"]["hint"] == f"on Debian: apt install {packages}"
    monkeypatch.setattr(Host, "has_program", lambda self, name: True)
    for version, status in (("7.2.12", "note"), ("7.2.13", "ok"), ("8.1.9", "note"), ("9.0.2", "ok"), ("10.0.0", "ok")):
        said = SimpleNamespace(stdout=f"qemu-img version {version} (Debian)\n")
        monkeypatch.setattr(Host, "query", lambda self, argv, said=said, **how: said)
        assert checks()["program qemu-img"]["status"] == status, version
    monkeypatch.setattr(confine, "abi", lambda: 0)
    assert checks()["landlock"]["status"] == "note"
    assert checks()["user"]["status"] == ("ok" if os.geteuid() == 0 else "note")
    monkeypatch.setattr(Host, "root", property(lambda self: False))
    found = checks()["user"]
    assert found["status"] == "note" and {"fs", "iscsi", "logical"} <= set(found["message"].replace(",", "").split())


def test_what_needs_root_says_so(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.host.port import Host

    monkeypatch.setattr(Host, "root", property(lambda self: False))
    for type, source in (
        ("logical", "<name>no-such-group</name>"), ("fs", "<device path='/dev/null'/>"),
        ("netfs", "<host name='localhost'/><dir path='/e'/>"), ("disk", "<device path='/dev/zero'/>"),
    ):  # fmt: skip
        file = poolkit.folder / f"{type}.xml"
        target = poolkit.folder / type
        names = f"<name>{type}</name><source>{source}</source><target><path>{target}</path></target>"
        file.write_text(f"<pool type='{type}'>{names}</pool>")
        poolkit("define", file)
        answer = poolkit("start", type, status=12)
        assert f"cannot start pool '{type}': that needs root" in answer.err
    for verb in ("build", "start"):
        assert "needs root" in poolkit(verb, "logical", status=12).err
    for type in ("logical", "disk"):
        assert "needs root" in poolkit("find-sources", type, status=12).err
    poolkit.pool()  # a directory needs none


@pytest.mark.parametrize(
    ("flag", "blocks", "inodes", "words"),
    [
        (os.ST_RDONLY, 9, 9, "is mounted read-only"), (0, 0, 9, "without a free block"), (0, 9, 0, "without a free inode"),
        (0, 9, None, ""),
    ],
)  # fmt: skip
def test_doctor_says_that_the_file_system_of_a_folder_takes_nothing(
    poolkit: Command, monkeypatch: pytest.MonkeyPatch, flag: int, blocks: int, inodes: int | None, words: str
) -> None:
    poolkit("define-as", "p", "dir", "--target", f"{poolkit.folder}/p")
    real = os.statvfs

    def told(path: Any) -> Any:
        facts = list(real(path))
        if str(path).startswith(str(poolkit.root)):
            facts[4], facts[5], facts[7], facts[8] = blocks, inodes or 0, inodes or 0, flag
            facts[5] = 100 if inodes is not None else 0
        return os.statvfs_result(facts)

    monkeypatch.setattr(os, "statvfs", told)
    answer = poolkit("--json", "doctor", status=1 if words else None)
    (found,) = [one for one in answer.json["checks"] if one["name"] == "folder state"]
    assert found["status"] == ("problem" if words else "ok")
    assert words in found["message"]
