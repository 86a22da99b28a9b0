"""The verbs of volume contents and of secrets, once well and once ill."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poolkit.cli import content_verbs
from poolkit.errors import Unsafe

from .conftest import Command

UUID = "0a81f5b2-8403-4b23-88d6-21ccc2f80d6f"


class Stream:
    """Standard input or output with bytes below it."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


@pytest.fixture
def images(poolkit: Command) -> Command:
    poolkit.pool()
    poolkit.volume()
    return poolkit


def disk(command: Command, name: str = "disk1") -> Path:
    return command.folder / "images" / name


def test_upload_and_download_move_ranges(images: Command) -> None:
    file, out = images.folder / "in", images.folder / "out"
    file.write_bytes(b"0123456789")
    said = images("vol-upload", "disk1", file, "--pool", "images", "--offset", "100", "--length", "5").out
    assert said == "volume 'disk1' is uploaded\n"
    assert disk(images).read_bytes()[99:106] == b"\x0001234\0"
    answer = images("vol-download", disk(images), out, "--offset", "101", "--length", "3", "--json").json
    assert (answer["changed"], answer["bytes"], out.read_bytes()) == (True, 3, b"123")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    images("vol-download", disk(images), out, "--sparse")
    assert out.read_bytes() == disk(images).read_bytes()


def test_a_download_that_fails_leaves_no_file(images: Command) -> None:
    out = images.folder / "out"
    error = images("vol-download", disk(images), out, "--offset", "2MiB", status=2).err
    assert "is not within it" in error and not out.exists()
    out.write_bytes(b"precious")
    out.chmod(0o640)
    images("vol-download", disk(images), out, "--offset", "2MiB", status=2)
    assert out.read_bytes() == b"precious"
    images("vol-download", disk(images), out, "--length", "4")
    assert (out.read_bytes(), stat.S_IMODE(out.stat().st_mode)) == (bytes(4), 0o640)
    assert [p.name for p in images.folder.glob("out*")] == ["out"]


@pytest.mark.root
def test_a_download_keeps_the_owner_of_the_file_it_replaces(images: Command) -> None:
    out = images.folder / "out"
    out.write_bytes(b"old")
    os.chown(out, 12345, 12346)
    images("vol-download", disk(images), out)
    assert (out.stat().st_uid, out.stat().st_gid) == (12345, 12346)
    assert out.read_bytes() == disk(images).read_bytes()


def test_a_server_that_is_dead_is_not_asked_whether_a_file_is_the_volume(
    images: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = images.folder / "out"
    out.write_bytes(b"old")
    real = os.stat

    def stat_file(path: Any, *args: Any, **how: Any) -> os.stat_result:
        assert path != str(disk(images)), "would hang"
        return real(path, *args, **how)

    monkeypatch.setattr(content_verbs.os, "stat", stat_file)
    images("vol-download", "disk1", out, "--pool", "images")


def test_a_volume_is_not_downloaded_onto_itself(images: Command) -> None:
    disk(images).write_bytes(b"x" * 512)
    link = images.folder / "link"
    link.symlink_to(disk(images))
    for target in (disk(images), link):
        assert "is the volume itself" in images("vol-download", disk(images), target, status=2).err
        assert disk(images).read_bytes() == b"x" * 512


def test_a_volume_with_two_names_is_resized_with_force_only(images: Command) -> None:
    (images.folder / "second").hardlink_to(disk(images))
    assert "--force" in images("vol-resize", disk(images), "2MiB", status=9).err
    images("vol-resize", disk(images), "2MiB", "--force")
    assert disk(images).stat().st_size == 2 << 20


def test_a_missing_upload_is_named(images: Command) -> None:
    assert "No such file" in images("vol-upload", disk(images), "/nonexistent", status=10).err


def test_standard_input_and_output(images: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(b"piped"))
    images("vol-upload", disk(images), "-", "--sparse")
    assert disk(images).read_bytes()[:5] == b"piped"
    stream = Stream()
    monkeypatch.setattr(content_verbs.sys, "stdout", stream)
    with content_verbs._writing("-") as (out, *_):
        out.write(b"bytes")
    assert stream.buffer.getvalue() == b"bytes"


def test_clone_and_its_options(images: Command) -> None:
    disk(images).write_bytes(b"data".ljust(1 << 20, b"\0"))
    said = images("vol-clone", "disk1", "copy", "--pool", "images").out
    assert said == "volume 'copy' is made from volume 'disk1' of pool 'images'\n"
    assert disk(images, "copy").read_bytes() == disk(images).read_bytes()
    images.pool("other")
    images("vol-clone", disk(images), "there", "--to-pool", "other", "--capacity", "2MiB", "--no-reflink")
    assert (images.folder / "other" / "there").stat().st_size == 2 << 20
    text = images("vol-clone", disk(images), "linked", "--linked", "--print-xml").out
    assert "<format type='qcow2'/>" in text and not disk(images, "linked").exists()
    said = images("vol-clone", disk(images), "less", "--capacity", "4KiB", status=2).err
    assert "a copy is never smaller" in said and not (images.folder / "less").exists()
    assert "contradict" in images("vol-clone", disk(images), "x", "--reflink", "--no-reflink", status=2).err


def test_a_copy_onto_a_volume_that_is_there(images: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories have clones instead; a type that has none is given the volume that is there, and its source."""
    images("vol-clone", "disk1", "copy", "--pool", "images")
    said = images("vol-clone", "disk1", "copy", "--pool", "images", "--overwrite", status=8).err
    assert "pools of type 'dir' cannot copy a volume onto one that exists" in said
    assert "has no volume 'new'" in images("vol-clone", "disk1", "new", "--pool", "images", "--overwrite", status=4).err
    assert "onto itself" in images("vol-clone", "disk1", "disk1", "--pool", "images", "--overwrite", status=2).err
    said = images("vol-clone", "disk1", "copy", "--pool", "images", "--overwrite", "--linked", status=2).err
    assert "mean nothing with it" in said
    from poolkit.backends.dir import DirBackend

    given: list[tuple[str, str]] = []

    def overwrite(self: DirBackend, info: Any, source: Any) -> Any:
        given.append((info.name, source.info.name))
        return info

    monkeypatch.setattr(DirBackend, "overwrite", overwrite)
    said = images("vol-clone", "disk1", "copy", "--pool", "images", "--overwrite").out
    assert "volume 'copy' has the content of volume 'disk1'" in said
    assert given == [("copy", "disk1")]
    assert "has a volume 'copy' already" in images("vol-clone", disk(images), "copy", status=5).err
    assert "cannot be the name" in images("vol-clone", disk(images), "../x", status=2).err
    plan = images("vol-clone", disk(images), "dry", "--dry-run").out
    assert plan == f"copy {disk(images)} to {disk(images, 'dry')} raw\n"


@pytest.mark.tools("qemu-img", "prlimit")
def test_formats_and_chains(images: Command) -> None:
    images("vol-clone", disk(images), "top", "--linked")
    rows = images("vol-chain", disk(images, "top"), "--json").json
    assert [(r["volume"], r["format"], r["problem"]) for r in rows] == [("top", "qcow2", ""), ("disk1", "raw", "")]
    assert "/images/disk1" in images("vol-chain", disk(images, "top")).out
    images("vol-clone", disk(images, "top"), "flat", "--format", "vdi")
    assert images("vol-info", disk(images, "flat"), "--json").json["format"] == "vdi"
    images("vol-create-as", "images", "full", "1MiB", "--format", "qcow2", "--prealloc", "falloc")
    images("vol-create-as", "images", "meta", "1MiB", "--format", "qcow2", "--prealloc-metadata")
    disk(images).unlink()
    answer = images("vol-chain", disk(images, "top"), status=9)
    assert "No such file" in answer.err
    document = images.folder / "volume.xml"
    document.write_text("<volume><name>from</name><capacity>0</capacity><target><format type='raw'/></target></volume>")
    assert images("vol-create-from", "images", document, "flat", "--inputpool", "images", "--json").json["changed"]
    assert disk(images, "from").stat().st_size == 1 << 20


def test_wipe_says_what_it_promises(images: Command) -> None:
    disk(images).write_bytes(b"x" * (1 << 20))
    assert "reads as zeros" in images("vol-wipe", disk(images)).out
    assert disk(images).read_bytes() == bytes(1 << 20)
    assert "overwritten nine times" in images("vol-wipe", "disk1", "--pool", "images", "--algorithm", "bsi").out
    assert "zero" in images("vol-wipe", disk(images), "--algorithm", "shred", status=2).err


def test_the_algorithms_of_the_command_are_those_of_the_code() -> None:
    from poolkit.cli.verbs import find
    from poolkit.content.wiping import ALGORITHMS

    verb = find("vol-wipe")
    assert verb is not None
    assert next(a for a in verb.arguments if a.name == "--algorithm").choices == ALGORITHMS, "in libvirt's order"


def test_adopt_records_a_format(images: Command) -> None:
    assert images("vol-adopt", disk(images), "--json").json["changed"] is False
    answer = images("vol-adopt", disk(images), "--format", "qcow2", status=9)
    assert "is not qcow2" in answer.err


def test_hard_links_need_force(images: Command) -> None:
    (images.folder / "other-name").hardlink_to(disk(images))
    assert "--force" in images("vol-wipe", disk(images), status=9).err
    images("vol-wipe", disk(images), "--force")


# -- secrets ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(poolkit: Command) -> Command:
    file = poolkit.folder / "secret.xml"
    usage = "<usage type='volume'><volume>/a</volume></usage>"
    file.write_text(f"<secret><uuid>{UUID}</uuid><description>words</description>{usage}</secret>")
    assert poolkit("secret-define", file, "--validate").out == f"secret {UUID} is defined\n"
    assert poolkit("secret-define", file, "--json").json["changed"] is False
    return poolkit


def test_a_value_comes_from_a_file_or_standard_input(secret: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    file = secret.folder / "value"
    file.write_bytes(b"hunter2")
    assert secret("secret-set-value", UUID, "--file", file, "--plain").out == f"secret {UUID} has its value\n"
    assert secret("secret-set-value", "/a", "--file", file, "--plain", "--json").json["changed"] is False
    assert secret("secret-get-value", "/a", "--show").out == "aHVudGVyMg==\n"
    monkeypatch.setattr(sys, "stdin", Stream(b"hunter2\n"))
    secret("secret-set-value", "/a", "--exact")
    assert secret("secret-get-value", "/a", "--show", "--json").json == {"base64": "aHVudGVyMgo="}
    monkeypatch.setattr(sys, "stdin", Stream(b"eW\n8="))
    secret("secret-set-value", "/a", "--base64")
    assert secret("secret-get-value", "/a", "--show").out == "eW8=\n"
    file.write_bytes(b"%%%")
    assert "not base64" in secret("secret-set-value", "/a", "--file", file, "--base64", status=2).err
    assert "No such file" in secret("secret-set-value", "/a", "--file", "/nonexistent", status=10).err


def test_a_value_is_shown_only_when_that_is_said(secret: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(b"hunter2"))
    secret("secret-set-value", UUID)
    assert "--show" in secret("secret-get-value", UUID, status=2).err
    told = secret("secret-list").out + secret("secret-list", "--json").out + secret("secret-dumpxml", UUID).out
    assert "hunter2" not in told and "aHVudGVyMg" not in told
    (row,) = json.loads(secret("secret-list", "--json").out)
    assert (row["usage"], row["has_value"], row["description"]) == ("/a", True, "words")


def test_undefine_removes_the_value(secret: Command) -> None:
    secret("secret-undefine", "/a", "--dry-run")
    assert len(secret("secret-list", "--json").json) == 1
    assert secret("secret-undefine", "/a").out == f"secret {UUID} is undefined\n"
    assert "no secret" in secret("secret-undefine", "/a", status=4).err
    assert list((secret.root / "secrets").iterdir()) == []


@pytest.mark.root
def test_a_download_follows_links_of_ones_own_only_and_takes_no_file_of_others(images: Command, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)  # no sticky bit: here the kernel's protected_symlinks says nothing
    for name, aim in (("own", victim), ("others", victim), ("folder", tmp_path)):
        (folder / name).symlink_to(aim)
        os.lchown(folder / name, 0 if name == "own" else 64055, 0)
    for target in (folder / "others", folder / "folder" / "victim", folder / "folder" / "new"):
        assert "of user 64055" in images("vol-download", disk(images), str(target), status=Unsafe.exit_code).err
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()
    images("vol-download", disk(images), str(folder / "own"))
    assert victim.read_bytes() == disk(images).read_bytes() and (folder / "own").is_symlink()

    folder.chmod(0o1777)
    theirs = folder / "theirs"
    theirs.write_text("")
    os.chown(theirs, 64055, 64055)
    assert "belongs to user 64055" in images("vol-download", disk(images), str(theirs), status=Unsafe.exit_code).err
    assert theirs.read_text() == ""


POOLKIT = [sys.executable, "-m", "poolkit"]


def run(images: Command, line: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which ``pk`` is the command."""
    pk = f'pk() {{ {sys.executable} -m poolkit --root "{images.root}" "$@"; }}; set -o pipefail; '
    return subprocess.run(["bash", "-c", pk + line], capture_output=True, check=False, cwd=images.folder)


def test_nothing_but_the_bytes_is_on_standard_output_by_any_name(images: Command) -> None:
    disk(images).write_bytes(bytes(range(256)) * 4096)
    for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        done = run(images, f"pk vol-download disk1 {name} images | cat")
        assert (done.returncode, done.stdout) == (0, bytes(range(256)) * 4096), (name, done.stderr)
        done = run(images, f"pk vol-download disk1 {name} images --json > out && cat out")
        assert done.stdout == bytes(range(256)) * 4096, name


def test_a_process_substitution_and_a_socket_take_a_download(images: Command) -> None:
    disk(images).write_bytes(b"x" * (1 << 20))
    done = run(images, "{ pk vol-download disk1 >(wc -c >&3) images; } 3>&1 >/dev/null | cat")
    assert (done.returncode, done.stdout) == (0, b"1048576\n"), done.stderr
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [*POOLKIT, "--root", str(images.root), "vol-download", "disk1", "/dev/stdout", "images", "0", "5"]
        assert subprocess.run(words, stdout=theirs.fileno(), check=False).returncode == 0
        assert ours.recv(100) == b"xxxxx"


def test_a_reader_that_goes_away_ends_a_download_as_any_answer(images: Command) -> None:
    disk(images).write_bytes(b"x" * (1 << 20))
    for name in ("-", "/dev/stdout"):
        done = run(images, f"pk vol-download disk1 {name} images | head -c 1")
        assert (done.returncode, done.stdout, done.stderr) == (141, b"x", b""), name


def test_a_download_that_is_killed_leaves_nothing(images: Command) -> None:
    disk(images).write_bytes(b"x" * (1 << 20))
    kill = (
        "import os, sys\nfrom poolkit.cli import main\nfrom poolkit.engine.volume import Volume\n"
        "def die(self, stream, **how):\n    stream.write(b'half')\n    stream.flush()\n    os.kill(os.getpid(), 9)\n"
        "Volume.download = die\nmain(sys.argv[1:])\n"
    )
    folder = images.folder / "to"
    folder.mkdir()
    words = [
        sys.executable,
        "-c",
        kill,
        "--root",
        str(images.root),
        "vol-download",
        "disk1",
        str(folder / "f"),
        "images",
    ]
    assert subprocess.run(words, check=False).returncode == -9
    assert list(folder.iterdir()) == []
    images("vol-download", "disk1", folder / "f", "images")
    assert (folder / "f").stat().st_mode & 0o777 == 0o600
    images("vol-download", "disk1", folder / "f", "images")
    assert [f.name for f in folder.iterdir()] == ["f"]


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_a_killed_download_leaves_nothing_after_the_next_command(images: Command, unnamed: bool, old: bool) -> None:
    target = images.folder / "out" / "disk.img"
    target.parent.mkdir()
    if old:
        target.write_bytes(b"old")
    before = sorted(target.parent.iterdir())
    code = f"""
import os, signal, sys
from poolkit.cli import content_verbs, main
from poolkit.content import copying
if not {unnamed}:  # as on NFS
    content_verbs._unnamed = lambda *_: None
download = copying.download
def die(*words):
    download(*words)
    os.kill(os.getpid(), signal.SIGKILL)
copying.download = die
main(["--root", {str(images.root)!r}, "vol-download", "disk1", {str(target)!r}, "--pool", "images"])
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    if not unnamed:
        assert len(list(target.parent.glob("disk.img.*.part"))) == 1, "nothing was left that could be removed"
    answer = images("vol-info", "disk1", "--pool", "images")
    assert unnamed or "undone: vol-download" in answer.err
    assert sorted(target.parent.iterdir()) == before
    images("vol-download", "disk1", str(target), "--pool", "images")
    assert target.stat().st_size == 1 << 20


def test_a_download_that_is_killed_before_it_has_its_name_leaves_nothing(images: Command) -> None:
    out = images.folder / "down" / "out"
    out.parent.mkdir()
    out.write_bytes(b"old")
    child = os.fork()
    if not child:
        try:
            os.replace = lambda *_, **__: os._exit(9)
            images("vol-download", "disk1", out, "--pool", "images")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(os.listdir(out.parent)) == 2
    images("recover")
    assert os.listdir(out.parent) == ["out"] and out.read_bytes() == b"old"
