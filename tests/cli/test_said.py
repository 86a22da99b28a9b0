"""What people type without thinking twice, and what the command says to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.cli.arguments import Argument
from poolkit.cli.verbs import verbs
from poolkit.content.recipes import PREALLOCATION
from poolkit.units import parse_size

from .conftest import Command


def document(name: str, path: str, more: str = "") -> str:
    return f"<pool type='dir'{more}><name>{name}</name><target><path>{path}</path></target></pool>"


@pytest.fixture
def images(poolkit: Command, tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    poolkit("define-as", "images", "dir", "--target", str(place))
    poolkit("start", "images")
    return place


@pytest.mark.parametrize(
    "text",
    [
        document("p", "/a&#10;b"),
        document("a&#10;b", "/a"),
        "<pool type='netfs'><name>p</name><source><host name='h'/><dir path='/a&#9;b'/></source>"
        "<target><path>/a</path></target></pool>",
        "<pool type='fs'><name>p</name><source><device path='/dev/a&#127;'/></source><target><path>/a</path></target></pool>",
    ],
)
def test_a_control_character_in_a_path_is_named(poolkit: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "p.xml").write_text(text)
    answer = poolkit("define", str(tmp_path / "p.xml"), status=3)
    assert "no control characters" in answer.err or "it has a control character, such as a newline" in answer.err


@pytest.mark.parametrize(
    "text",
    [document("p", "/a", " xmlns='urn:other'"), "<o:pool xmlns:o='urn:other' type='dir'><o:name>p</o:name></o:pool>"],
)
def test_a_document_in_another_namespace(poolkit: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "p.xml").write_text(text)
    answer = poolkit("define", str(tmp_path / "p.xml"), status=3)
    assert "is in the namespace 'urn:other', and <pool> is in none: leave it out" in answer.err
    assert "did you mean" not in answer.err


def test_a_name_stands_for_one_pool(poolkit: Command, images: Path) -> None:
    uuid = poolkit("uuid", "images").out.strip()
    for name in (uuid, uuid.upper(), uuid.replace("-", "")):
        answer = poolkit("define-as", name, "dir", "--target", "/srv/other", status=5)
        assert f"pool '{name}' would have the uuid of pool 'images' as its name" in answer.err
    other = "11111111-2222-3333-4444-555555555555"
    poolkit("define-as", other, "dir", "--target", "/srv/other")
    text = document("third", "/srv/third").replace("</name>", f"</name><uuid>{other}</uuid>")
    (images.parent / "third.xml").write_text(text)
    answer = poolkit("define", str(images.parent / "third.xml"), status=5)
    assert f"pool 'third' would have the name of pool '{other}' as its uuid" in answer.err
    poolkit("define-as", other, "dir", "--target", "/srv/another")  # it may be changed


def test_a_volume_by_the_path_that_a_shell_completes(
    poolkit: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poolkit("vol-create-as", "images", "base", "1MiB")
    monkeypatch.chdir(images)
    for word in ("./base", "../images/base"):
        assert poolkit("vol-name", word).out == "base\n"
        assert poolkit("vol-name", word, "--pool", "images").out == "base\n"
    poolkit("vol-name", "./none", status=4)
    monkeypatch.chdir(images.parent)
    answer = poolkit(
        "vol-create-as", "images", "over", "0", "--format", "qcow2", "--backing-vol", "images/base", "--backing-vol-format",
        "raw", "--print-xml",
    )  # fmt: skip
    assert f"<path>{images}/base</path>" in answer.out


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "none.none"])
@pytest.mark.parametrize("coerced", [True, False])
def test_every_locale_speaks_utf8(images: Path, tmp_path: Path, locale: str, coerced: bool) -> None:
    environment = {**os.environ, "LC_ALL": locale}
    environment.pop("PYTHONUTF8", None)
    if not coerced:
        environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "poolkit", "--root", str(tmp_path / "root")]

    def run(*words: str) -> str:
        done = subprocess.run([*command, *words], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8")

    run("vol-create-as", "images", "dïsk", "4096")
    assert "dïsk" in run("vol-list", "images")
    assert (images / "dïsk").stat().st_size == 4096
    (tmp_path / "früh").mkdir()
    run("define-as", "früh", "dir", "--target", f"{tmp_path}/früh")
    run("start", "früh")


@pytest.mark.parametrize(
    "words",
    [
        ("define-as", b"p", b"dir", b"--target", b"/srv/\xff"), ("define-as", b"p\xff", b"dir", b"--target", b"/srv"),
        ("vol-create-as", b"images", b"v\xff", b"1"), ("vol-info", b"v\xff"), ("info", b"\xff"), ("secret-dumpxml", b"\xff"),
        ("define-as", b"p", b"dir", b"--source-host=\xff"), ("vol-import", b"images", b"\xff", b"/dev/null"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_an_error_of_the_caller(
    images: Path, tmp_path: Path, words: tuple[bytes, ...]
) -> None:
    command = [sys.executable, "-m", "poolkit", "--root", str(tmp_path / "root"), *words]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2 and b"is not valid UTF-8" in done.stderr, done.stderr


@pytest.mark.parametrize(("text", "size"), [("1Gi", 1 << 30), ("1.5gi", 3 << 29), ("10 Mi", 10 << 20), ("2Ki", 2048)])
def test_sizes_as_kubernetes_writes_them(text: str, size: int) -> None:
    assert parse_size(text) == size
    with pytest.raises(ValueError, match="unknown unit"):
        parse_size(text.replace("i", "j"))


def test_what_is_left_out_is_counted(poolkit: Command, images: Path) -> None:
    assert errors.some(["a", "b"]) == "a, b"
    assert errors.some(list("abcdefg")) == "a, b, c, d, e and 2 more"
    for number in range(5):
        (images / f"bad{number}").write_bytes(b"QFI\xfb\0\0\0\3" + b"\xff" * 600)
    answer = poolkit("refresh", "images")
    assert "5 volumes are" in answer.err and "and 2 more" in answer.err


def test_no_list_of_names_is_cut_in_silence() -> None:
    found = []
    for path in (Path(__file__).parents[2] / "poolkit").rglob("*.py"):
        found += [
            f"{path.name}: {line.strip()}"
            for line in path.read_text().splitlines()
            if re.search(r"['\"][,;] ['\"]\.join\(.*\[:\d+\]\)", line)
        ]
    assert [line for line in found if not line.startswith("errors.py")] == []


def test_edit_without_a_terminal(
    poolkit: Command, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    answer = poolkit("edit", "images", status=2)
    assert "cannot be edited without a terminal" in answer.err and "dumpxml --inactive images" in answer.err
    monkeypatch.setenv("EDITOR", "false")
    answer = poolkit("edit", "images", status=130)
    assert "is kept in" not in answer.err
    assert list((tmp_path / "tmp").iterdir()) == [], "a copy of what is stored is no loss"
    monkeypatch.setenv("EDITOR", "sed -i s/dir/dri/")
    answer = poolkit("edit", "images", status=3)
    assert "is kept in" in answer.err


def arguments() -> list[tuple[str, Argument]]:
    return [(verb.name, one) for verb in verbs() for one in verb.arguments if one.choices]


@pytest.mark.parametrize(("verb", "argument"), arguments())
def test_help_names_every_choice(poolkit: Command, verb: str, argument: Argument) -> None:
    help = " ".join(poolkit(verb, "--help").out.split())
    for choice in argument.choices:
        assert re.search(rf"\b{choice}\b", help), choice


def offered(poolkit: Command, *line: str) -> set[str]:
    return {word.partition("\t")[0] for word in poolkit("_complete", *line, "").out.splitlines()}


def test_completion_offers_the_formats_that_can_be(poolkit: Command, images: Path) -> None:
    made = set(PREALLOCATION) - {"luks"}
    assert offered(poolkit, "vol-create-as", "images", "v", "1", "--format") == made
    assert offered(poolkit, "vol-clone", "v", "w", "--to-pool", "images", "--format") == made
    assert "dir" not in offered(poolkit, "vol-adopt", "v", "--format") >= {"raw", "luks", "dmg"}
    assert "dmg" in offered(poolkit, "vol-import", "images", "v", "f", "--source-format")
    assert offered(poolkit, "define-as", "p", "fs", "--source-format") >= {"ext4", "xfs"}
    poolkit("define-as", "disk", "disk", "--source-dev", "/dev/none", "--target", "/dev")
    assert "linux-swap" in offered(poolkit, "vol-create-as", "disk", "v", "1", "--format")
    for format in made:
        poolkit("vol-create-as", "images", f"v-{format}", "1MiB", "--format", format, "--dry-run")


def test_what_waits_for_the_next_start_is_said_in_words(poolkit: Command, images: Path) -> None:
    more = "<pk:volumes xmlns:pk='urn:poolkit:pool:1'><pk:permissions><pk:mode>0660</pk:mode></pk:permissions></pk:volumes>"
    (images.parent / "p.xml").write_text(document("images", str(images)).replace("</pool>", f"{more}</pool>"))
    answer = poolkit("define", str(images.parent / "p.xml"))
    assert "nothing becomes mode 0660" in answer.err
    answer = poolkit("define", str(images.parent / "p.xml"), "--json")
    assert answer.json["pending"][0]["new"] == "mode 0660"


def test_an_xpath_with_control_characters(poolkit: Command, images: Path) -> None:
    answer = poolkit("dumpxml", "images", "--xpath", "\x1b[31m", status=2)
    assert "is no XPath expression" in answer.err and "\x1b" not in answer.err


def test_an_error_from_far_below_says_of_what_it_is(poolkit: Command, images: Path) -> None:
    text = "<volume><name>over</name><capacity>1</capacity><backingStore><path>/none</path><format type='raw'/></backingStore>"
    (images.parent / "v.xml").write_text(f"{text}<target><format type='qcow2'/></target></volume>")
    answer = poolkit("vol-create", "images", str(images.parent / "v.xml"), status=10)
    assert answer.err.startswith("error: volume 'over' of pool 'images': cannot open the backing store '/none'")
    answer = poolkit("vol-create-as", "images", "much", "10TiB", status=11)
    assert answer.err.startswith("error: volume 'much' of pool 'images': ") and " are free" in answer.err
    answer = poolkit("vol-info", "none", "--pool", "images", status=4)
    assert answer.err.startswith("error: pool 'images' has no volume 'none'"), "it is named there"
