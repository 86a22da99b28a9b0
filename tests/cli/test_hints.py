"""Hints: data to the library, command lines to the command, and every one of them can be followed."""

from __future__ import annotations

import ast
import os
import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import errors
from poolkit.cli import arguments, main
from poolkit.cli.verbs import find, words
from poolkit.cli.wording import command, worded
from poolkit.errors import Hint, Option, remedy
from poolkit.host.toolwords import last_words, sentence

from .conftest import Command, proposed

PACKAGE = Path(poolkit.__file__).parent


def trees(*, cli: bool = False) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if cli or "cli" not in file.relative_to(PACKAGE).parts:
            yield file, ast.parse(file.read_text())


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """The text constants of a module that are no docstrings."""
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node


def test_no_text_of_the_library_writes_a_command_line() -> None:
    verb = re.compile(r"\bpoolkit (?:" + "|".join(sorted(words(), key=len, reverse=True)) + r")(?![\w-])")
    found = [f"{file.name}:{text.lineno}" for file, tree in trees() for text in texts(tree) if verb.search(text.value)]
    assert not found, "a hint that proposes a verb is a Hint with a remedy"


def test_no_hint_of_the_library_names_an_option_of_the_command() -> None:
    known = {a.option for name in words() for a in getattr(find(name), "arguments", ())}
    tools = ("wipefs", "lvextend", "partx", "vgextend", "pvck")  # their options are meant
    found = []
    for file, tree in trees():
        for call in ast.walk(tree):
            if not isinstance(call, ast.keyword) or call.arg != "hint":
                continue
            for text in texts(call.value):
                if set(re.findall(r"--[a-z-]+", text.value)) & known and not any(t in text.value for t in tools):
                    found.append(f"{file.name}:{text.lineno}: {text.value}")
    assert not found


def calls() -> list[Any]:
    found = []
    for file, tree in trees(cli=True):
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) == "remedy":
                found.append(pytest.param(call, id=f"{file.stem}-{call.lineno}"))
    return found


@pytest.mark.parametrize("call", calls())
def test_every_remedy_in_the_code_is_a_command_line(call: ast.Call) -> None:
    verbs = [c.value for c in ast.walk(call.args[0]) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
    if not verbs:
        return  # handed on by a function whose callers name it
    options = {
        str(k.arg): k.value.value if isinstance(k.value, ast.Constant) and k.value.value in (True, ...) else "x"
        for k in call.keywords
    }
    operands = [a.value if isinstance(a, ast.Constant) and isinstance(a.value, str) else "1" for a in call.args[1:]]
    for verb in verbs:
        assert isinstance(ast.parse(str(remedy(verb, *operands, **options)), mode="eval").body, ast.Call), (
            "a call in Python"
        )
        line = shlex.split(command(remedy(verb, *operands, **options), "/r"))
        word, rest = arguments.split(line[1:])
        entry = find(word or "")
        assert entry is not None, word
        arguments.parse(entry.arguments, rest, entry.name)


def test_a_hint_is_data_and_text() -> None:
    hint = Hint(
        "if so: ", remedy("build", "-it's", overwrite=True), ", or add ", Option("prealloc", "full", "preallocation")
    )
    assert hint == "if so: engine.pool(\"-it's\").build(overwrite=True), or add preallocation='full'"
    line = "if so: poolkit --root '/a b' build --overwrite -- '-it'\"'\"'s', or add --prealloc full"
    assert worded(hint, "/a b") == line
    assert worded("plain", "/a") == "plain"
    other = pickle.loads(pickle.dumps(hint))
    assert other == hint and other.parts == hint.parts
    assert Hint.joined(None, hint, "", "more").remedies == hint.remedies
    error = errors.Unsafe("no", hint=hint)
    assert error.as_dict()["remedies"] == [{"verb": "build", "operands": ["-it's"], "options": {"overwrite": True}}]
    assert str(remedy("vol-adopt", "v", pool="p", format=...)) == "engine.pool('p').volume('v').adopt(format=...)"
    assert command(remedy("secret-define", ...)) == "poolkit secret-define FILE"


def follow(answer: Any, *, status: int = 0) -> None:
    """Run each command line that the hints of an answer have."""
    lines = proposed(answer.err)
    assert lines, answer
    for line in lines:
        assert main(shlex.split(line)[1:]) == status, line


def test_hints_work_when_followed(poolkit: Command, capsys: pytest.CaptureFixture[str]) -> None:
    poolkit("define", poolkit.document())
    follow(poolkit("start", "images", status=10))  # the directory is missing: build
    follow(poolkit("vol-list", "images", status=6))  # not active: start
    path = poolkit.volume()
    follow(poolkit("vol-info", "other.img", "--pool", "images", status=4))  # unknown: refresh
    follow(poolkit("info", "nothing-like-it", status=4))
    follow(poolkit("undefine", "images", status=6))  # active: destroy
    path.with_name("-odd name.iso").write_bytes(b"QFI\xfb" + b"\0\0\0\3" + bytes(500))
    poolkit("start", "images")
    answer = poolkit("vol-list", "images", status=0)
    if "warning" in answer.err:
        follow(answer)


def test_the_hint_for_a_volume_names_the_verbs_own_option(poolkit: Command) -> None:
    poolkit.pool()
    poolkit.volume()
    document = poolkit.folder / "v.xml"
    document.write_text("<volume><name>new</name><capacity>1048576</capacity></volume>")
    answer = poolkit("vol-create-from", "images", document, "disk1", status=4)
    assert "hint: add --inputpool images" in answer.err
    poolkit("vol-create-from", "images", document, "disk1", "--inputpool", "images")
    assert "hint: add --pool images" in poolkit("vol-info", "disk1", status=4).err


def test_a_pool_that_is_not_there_is_suggested_whatever_the_case(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    assert "did you mean 'images'?" in poolkit("info", "IMAGES", status=4).err


def test_json_words_hints_for_the_command(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    error = poolkit("vol-list", "images", "--json", status=6).error
    assert error["hint"] == f"start it: poolkit --root {poolkit.root} start images"
    assert error["remedies"] == [{"verb": "start", "operands": ["images"], "options": {}}]


def test_what_tools_say_is_worded(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "disk.img", os.O_CREAT | os.O_RDWR)
    try:
        said = last_words(
            f"qemu-img: Could not open '/proc/self/fd/{fd}': Failed to get \"write\" lock\n"
            "Is another process using the image [x]?\n",
            [fd],
        )
        assert said == f": qemu-img: Could not open '{tmp_path}/disk.img': another program has the image open"
        assert last_words(f"/proc/self/fd/{fd}") == f": /proc/self/fd/{fd}", "not one that the program was given"
    finally:
        os.close(fd)
    assert last_words("qemu-img: Parameter 'encrypt.key-secret' is required for cipher\n").endswith(
        "no secret opens it"
    )
    assert last_words("") == ""


@pytest.mark.parametrize("number", [None, 6])
def test_an_error_of_the_system_names_no_descriptor(
    poolkit: Command, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    from poolkit.cli import pool_verbs

    def broken(session: Any, values: Any) -> None:
        raise OSError(13, "Permission denied", number if number is not None else "/x/y")

    monkeypatch.setattr(pool_verbs, "list_pools", broken)
    answer = poolkit("list", status=12)
    place = "" if number is not None else " of '/x/y'"
    assert answer.err == f"error: cannot do the work of 'list'{place}: Permission denied\n"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "mount: /srv/p: wrong fs type, bad option, bad superblock on /dev/sdb, missing codepage or helper program, or other "
            "error.\n       dmesg(1) may have more information after failed mount system call.\n",
            "its file system is not the one that was named, is damaged, or does not take one of the mount options",
        ),
        (
            "mount: /tmp/x: unknown filesystem type 'cifs'.\n       dmesg(1) may have more information.\n",
            "this kernel has no file system 'cifs', and no program mount.cifs is installed",
        ),
        ("mount: /mnt: can't read superblock on /dev/sdb.", "the first blocks of '/dev/sdb' cannot be read"),
        (
            "mount error(111): could not connect to 127.0.0.1\nRefer to the mount.cifs(8) manual page (e.g. man mount.cifs) and "
            "kernel log messages (dmesg)",
            "mount error(111): could not connect to 127.0.0.1",
        ),
        (
            "qemu-img: Could not open '/x/a': Invalid password, cannot unlock any keyslot",
            "qemu-img: Could not open '/x/a': the secret does not open the encrypted image",
        ),
        ("mount.nfs: Connection refused", "mount.nfs: Connection refused"),
    ],
)  # fmt: skip
def test_what_programs_say_is_said_in_words(said: str, words: str) -> None:
    assert sentence(said) == words


def test_a_folder_for_a_file_is_named(poolkit: Command, tmp_path: Path) -> None:
    poolkit.pool()
    poolkit.volume()
    answer = poolkit("vol-upload", "disk1", tmp_path, "--pool", "images", status=10)
    assert answer.err == f"error: cannot read '{tmp_path}': Is a directory\n"
