"""One pytest process in one guest: started over all tests that may come, told which one is next, and listened to."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import bytecode
from .guest import Guest
from .measure import Measure

COLLECT_TIMEOUT = 300  # seconds from the start of the guest's pytest to its first test
FINISH_TIMEOUT = 180  # seconds between two tests, or from the last one to the end; a busy machine needs over 30
FORWARDED = ("CI", "HYPOTHESIS_", "POOLKIT_")  # environment variables (prefixes) that the guest's pytest gets


@dataclass(frozen=True)
class Chosen:
    """A test to run in the guest and the seconds it may take."""

    id: str
    timeout: float


class GuestRun:
    """The guest's pytest. It collects all of ``tests``, asks for one after the other, and tells each step as an event.

    ``stream`` gets what it prints as it comes.
    """

    def __init__(
        self,
        guest: Guest,
        root: Path,
        tests: Sequence[Chosen],
        options: Iterable[str],
        measure: Measure | None,
        stream: Callable[[str], None] | None,
    ) -> None:
        self.guest = guest
        self.measure = measure
        self.stream = stream
        self.replaced = False
        """It asked for a fresh guest."""
        share = guest.share
        (share / "next").mkdir()
        (share / "chosen.json").write_text(json.dumps([vars(test) for test in tests]))
        (share / "events").touch()
        bytecode.pack(share / "bytecode.tar", root)
        self.events = (share / "events").open("rb")
        self.rest = b""
        python = ["python3", *(measure.arguments(share) if measure else []), "-m", "pytest"]
        plugins = ["-p", "tests.lab.inside", "-p", "no:cacheprovider"]
        files = list(dict.fromkeys(test.id.partition("::")[0] for test in tests))
        argv = [
            *python,
            *plugins,
            "-o",
            "addopts=",
            "--strict-markers",
            "--continue-on-collection-errors",
            f"--rootdir={root}",
            *options,
            "--",
            *files,
        ]
        variables = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED)}
        variables |= {"PYTHONPYCACHEPREFIX": bytecode.PREFIX, "POOLKIT_LAB_GUEST": "1"}  # the source is read-only there
        variables["HYPOTHESIS_STORAGE_DIRECTORY"] = "/tmp/hypothesis"  # beside the source it could not be written
        words = [f"{key}={shlex.quote(value)}" for key, value in variables.items()]
        tail = "; status=$?; mkdir -p /lab/coverage; cp /tmp/coverage/data* /lab/coverage/ 2>/dev/null; exit $status"
        unpack = f"mkdir -p {bytecode.PREFIX}; tar -xf /lab/bytecode.tar -C {bytecode.PREFIX}"
        self.job = guest.submit(
            f"{unpack}; cd {shlex.quote(str(root))} && env {' '.join(words)} {shlex.join(argv)}{tail}"
        )
        self.output_file = (share / f"{self.job}.out").open("rb")
        self.printed = b""

    @property
    def over(self) -> bool:
        """Whether the guest's pytest has ended (all it told may still be unread)."""
        return (self.guest.share / f"{self.job}.rc").exists()

    def output(self) -> str:
        """What the guest's pytest printed in the end; with output captured that is its own trouble alone."""
        self.printed = (self.printed + self.output_file.read())[-4000:]
        return self.printed.decode(errors="replace")

    def event(self) -> dict[str, Any] | None:
        """The next thing it told, or None if there is nothing new."""
        self.rest += self.events.read()
        if self.stream and (text := self.output_file.read()):
            self.printed = (self.printed + text)[-4000:]
            self.stream(text.decode(errors="replace"))
        line, newline, rest = self.rest.partition(b"\n")
        if not newline:
            return None
        self.rest = rest
        event: dict[str, Any] = json.loads(line)
        self.replaced = self.replaced or event["event"] == "reboot"
        return event

    def answer(self, number: int, test: str) -> None:
        """Tell it the test it asked for with that number; an empty name means that there is none."""
        scratch = self.guest.share / "next" / "scratch"
        scratch.write_text(test)
        scratch.rename(scratch.with_name(str(number)))

    def close(self) -> str | None:
        """Bring the coverage here and close the files; the guest goes on. Returns what was lost, if anything was."""
        lost = None
        if self.measure and not (self.over and self.measure.fetch(self.guest.share / "coverage")):
            why = "its pytest left no data" if self.over else "its pytest did not end"
            lost = f"the coverage of the guest {self.guest.name} is lost: {why}"
        self.events.close()
        self.output_file.close()
        return lost
