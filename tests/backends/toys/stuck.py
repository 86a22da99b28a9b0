"""A toy whose start can hang in each of three ways: in a program, in a child process, in the caller itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from poolkit.backend import Backend, State, Usage, VolumeInfo
from poolkit.model import Pool
from poolkit.xmlmap import Element, simple, xml


class StuckSource(Element):
    """How."""

    how: str = xml("how/@in", default="nothing", doc="program, child, caller; nothing: it ends.")
    path: str = xml("how/@path", type=simple.AbsPath, default="/", doc="A FIFO that nobody writes to.")


class StuckPool(Pool):
    """Nothing."""

    type: ClassVar[str] = "stuck"
    source: StuckSource = xml("source", default=StuckSource, doc="How it hangs.")


class StuckBackend(Backend):
    """Leaves a folder beside the FIFO, which undo removes."""

    type = "stuck"
    definition = StuckPool
    may_hang = ("volumes", "usage")

    @property
    def path(self) -> Path:
        return Path(self.pool.source.path)

    @property
    def begun(self) -> Path:
        return self.path.parent / f"begun-{self.pool.name}"

    def state(self, *, closely: bool = False) -> State:
        return State(self.begun.is_dir())

    def start(self) -> None:
        self.host.files.mkdir(str(self.begun))
        if self.pool.source.how == "program":
            self.host.change(["cat", "--", str(self.path)])
        if self.pool.source.how == "caller":
            self.path.read_bytes()
            self.host.step("go on")

    def answers(self) -> bool:
        return True  # what hangs here is given up by nobody but the caller

    def usage(self, volumes: Any) -> Usage:
        return Usage(0, 0, 0)

    def volumes(self, known: Mapping[str, VolumeInfo]) -> Iterator[VolumeInfo]:
        if self.pool.source.how == "child":
            self.path.read_bytes()
        yield VolumeInfo("v", "network", "raw", 8, 8, key=f"stuck:{self.pool.name}", detail={"pid": os.getpid()})
