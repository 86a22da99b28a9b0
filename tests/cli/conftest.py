"""The command line in this process, on a root of its own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from poolkit.cli import arguments, main
from poolkit.cli.verbs import find


class Answer(NamedTuple):
    """What one command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


def proposed(err: str) -> list[str]:
    """The command lines that hints, notes and warnings have, as they stand there."""
    lines = []
    for said in err.splitlines():
        if said.startswith(("hint: ", "note: ", "warning: ")):
            lines += re.findall(r"poolkit --root (?:[^;,]|(?<=\S)[;,](?=\S))+", said)
    return [line.removesuffix(" says why") for line in lines]


def well_formed(line: str, root: Path) -> None:
    """Fail unless a proposed line is one that the command takes, for the same root."""
    words = shlex.split(line)
    assert words[:3] == ["poolkit", "--root", str(root)], line
    word, rest = arguments.split(words[1:])
    verb = find(word or "")
    assert verb is not None, line
    arguments.parse(verb.arguments, rest, verb.name)


class Command:
    """Runs ``poolkit --root ROOT ...``; ``pool`` makes definitions below the same folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(mode=0o700)  # what only reads makes none
        self.capsys = capsys

    def __call__(self, *words: str | Path, status: int | None = 0) -> Answer:
        self.capsys.readouterr()
        code = main(["--root", str(self.root), *map(str, words)])
        answer = Answer(code, *self.capsys.readouterr())
        assert "Traceback" not in answer.err
        for line in proposed(answer.err):
            well_formed(line, self.root)
        if status is not None:
            assert code == status, answer
        return answer

    def document(self, name: str = "images", more: str = "") -> Path:
        """A file with the definition of a directory pool."""
        file = self.folder / f"{name}.xml"
        target = f"<target><path>{self.folder / name}</path></target>"
        file.write_text(f"<pool type='dir'><name>{name}</name>{more}{target}</pool>\n")
        return file

    def pool(self, name: str = "images") -> str:
        """A pool that is defined, built and active."""
        self("define", self.document(name))
        self("start", name, "--build")
        return name

    def volume(self, name: str = "disk1", pool: str = "images") -> Path:
        """A sparse volume of 1 MiB; its path."""
        self("vol-create-as", pool, name, "1MiB", "--allocation", "0")
        return self.folder / pool / name


@pytest.fixture
def poolkit(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield Command(tmp_path, capsys)


Run = Callable[..., Answer]
