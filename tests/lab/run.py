"""One pytest process in one guest: what the outer plugin starts, listens to and, if need be, ends."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .guest import POLL, Guest, GuestError
from .measure import Measure

COLLECT_TIMEOUT = 180  # seconds from the start of the guest's pytest to its first test
FINISH_TIMEOUT = 180  # seconds from the last test until the guest's pytest has ended; a busy machine needs over 30
FORWARDED = ("CI", "HYPOTHESIS_", "POOLKIT_")  # environment variables (prefixes) that the guest's pytest gets


@dataclass(frozen=True)
class Chosen:
    """A test to run in the guest and the seconds it may take."""

    id: str
    timeout: float


class Lost(Exception):
    """The guest or its pytest is gone, or a test took too long; the text tells it for a report."""


class GuestRun:
    """The guest's pytest over ``tests``; ``events`` yields what it tells."""

    def __init__(
        self, guest: Guest, root: Path, tests: Sequence[Chosen], options: Iterable[str], measure: Measure | None
    ) -> None:
        self.guest = guest
        self.tests = tests
        self.measure = measure
        share = guest.share
        (share / "chosen.json").write_text(json.dumps([vars(test) for test in tests]))
        (share / "events").touch()
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
        variables |= {"PYTHONDONTWRITEBYTECODE": "1", "POOLKIT_LAB_GUEST": "1"}
        variables["HYPOTHESIS_STORAGE_DIRECTORY"] = "/tmp/hypothesis"  # beside the source it could not be written
        words = [f"{key}={shlex.quote(value)}" for key, value in variables.items()]
        tail = "; status=$?; mkdir -p /lab/coverage; cp /tmp/coverage/data* /lab/coverage/ 2>/dev/null; exit $status"
        self.job = guest.submit(f"cd {shlex.quote(str(root))} && env {' '.join(words)} {shlex.join(argv)}{tail}")
        self.output_file = (share / f"{self.job}.out").open("rb")
        self.printed = b""
        self.started = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the guest's pytest has ended (all it told may still be unread)."""
        return (self.guest.share / f"{self.job}.rc").exists()

    def output(self) -> str:
        """What the guest's pytest printed in the end; with output captured that is its own trouble alone."""
        self.printed = (self.printed + self.output_file.read())[-4000:]
        return self.printed.decode(errors="replace")

    def next_event(self, deadline: float, stream: Callable[[str], None] | None) -> dict[str, Any] | None:
        """The next event, or None when the run is over. Raises Lost at ``deadline`` or when the guest died."""
        while True:
            ended = self.over or not self.guest.running
            self.rest += self.events.read()
            if stream and (text := self.output_file.read()):
                self.printed = (self.printed + text)[-4000:]
                stream(text.decode(errors="replace"))
            line, newline, rest = self.rest.partition(b"\n")
            if newline:
                self.rest = rest
                event: dict[str, Any] = json.loads(line)
                return event
            if ended:
                if self.over:
                    return None
                raise Lost(self.guest.obituary("died"))
            if time.monotonic() > deadline:
                raise Lost(self.guest.obituary("was killed, for the test took too long"))
            time.sleep(POLL)

    def close(self, timeout: float) -> str | None:
        """Bring the coverage here, which the guest's pytest may take ``timeout`` seconds to write, and close the files.

        The guest goes on. Returns what was lost, if anything was.
        """
        lost = None
        if self.measure:
            try:
                self.guest.wait_for(self.guest.share / f"{self.job}.rc", timeout, "writing its coverage")
                if not self.measure.fetch(self.guest.share / "coverage"):
                    lost = "the guest's coverage is lost: its pytest left no data"
            except GuestError as error:
                lost = f"the guest's coverage is lost: {str(error).splitlines()[0]}"
        self.events.close()
        self.output_file.close()
        return lost
