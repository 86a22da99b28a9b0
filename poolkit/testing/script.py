"""A machine from a script: what a program answers is data, and what was run is lines."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolkit import errors, registry
from poolkit.host import Host, Result, rollback, undo
from poolkit.host.devices import Devices
from poolkit.host.mounts import Mount, MountTable


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program of the script says."""

    stdout: str = ""
    status: int = 0
    stderr: str = ""


class ScriptedDevices(Devices):
    """A folder that plays the machine's ``/dev``, ``/sys`` and ``/proc``; without one there is nothing of all that.

    A file below its ``dev`` is a block device if ``sys/class/block/NAME/dev`` has a number for it. Links are to be relative.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = "/proc/0" if folder is None else os.path.realpath(folder)  # no process has the number 0

    def place(self, path: str) -> str:
        """Below the folder."""
        return self.folder + path

    def real(self, path: str) -> str:
        """``path`` without symbolic links, as the folder has them."""
        return os.path.realpath(self.place(path)).removeprefix(self.folder)

    def number_of(self, path: str, facts: os.stat_result) -> str:
        """As sysfs says by the name of the file."""
        return self.value(f"/sys/class/block/{os.path.basename(self.real(path))}/dev")


class ScriptedHost(Host):
    """A host without a machine.

    ``answers`` maps the beginning of a command line (as a shell would show it) to its output: text, an
    :class:`Answer`, or a list of them for successive calls. The longest match counts. A query without an answer is an
    error of the test; a change without one succeeds and says nothing. ``lines`` is the transcript: ``?`` a query, ``!`` a
    change, ``<`` an undo. ``fail_at`` makes the change of that number (from 1) fail. ``machine`` is a folder with what its
    kernel says and the devices it has (:class:`ScriptedDevices`).
    """

    root = True  # a script is allowed everything, whoever runs the tests

    def __init__(
        self,
        answers: Mapping[str, str | Answer | list[str | Answer]] | None = None,
        *,
        mounts: Iterable[Mount] = (),
        fail_at: int = 0,
        programs: Iterable[str] | None = None,
        machine: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.devices = ScriptedDevices(machine)
        self.answers = {k: list(v) if isinstance(v, list) else v for k, v in (answers or {}).items()}
        self.lines: list[str] = []
        self.fail_at = fail_at
        self.changes = 0
        self.mount_table = list(mounts)
        self.installed = None if programs is None else frozenset(programs)
        self.journal = _MemoryJournal()  # type: ignore[assignment]

    def _view(self) -> Host:
        return self

    def program(self, name: str) -> str:
        """Every program is installed, unless ``programs`` was given."""
        if self.installed is not None and name not in self.installed:
            return super().program(f"{name} (not in the script)")
        return f"/usr/sbin/{name}"

    def mounts(self) -> MountTable:
        """The scripted mount table; a test may change it between calls."""
        return MountTable(self.mount_table)

    def locate(self, path: str) -> tuple[str, Mount | None]:
        """From the scripted table as it is now."""
        self._shared.pop(("locate", path), None)
        return super().locate(path)

    def query(self, argv: Sequence[str], **how: Any) -> Result:
        """Answer from the script."""
        self.lines.append(f"? {shlex.join(argv)}")
        return self._answer(argv, how.get("ok", (0,)), required=True)

    def change(self, argv: Sequence[str], *, undo: Any = None, **how: Any) -> Result:
        """Write the change down, and fail if it is the one to fail."""
        self._step(argv[0], undo)
        self._shared.clear()
        self.lines.append(f"! {shlex.join(argv)}")
        self._count(argv)
        return self._answer(argv, how.get("ok", (0,)), required=False)

    def step(self, label: str, undo: Any = None) -> bool:
        """Write a change by system call down; it is not made."""
        self._step(label, undo)
        self.lines.append(f"! {label}")
        self._count([label])
        return False

    def run_undo(self, argv: Sequence[str], *, input: str | None = None) -> None:
        """Write the undo down."""
        self.lines.append(f"< {shlex.join(argv)}")

    def ask_undo(self, argv: Sequence[str]) -> str:
        """Answer what an undo step depends on, from the script."""
        self.lines.append(f"<? {shlex.join(argv)}")
        return self._answer(argv, range(256), required=True).stdout

    def _count(self, argv: Sequence[str]) -> None:
        self.changes += 1
        if self.changes == self.fail_at:
            raise errors.ToolFailed(
                f"'{argv[0]}' failed with status 5: injected", argv=argv, status=5, stderr="injected"
            )

    def _answer(self, argv: Sequence[str], ok: Sequence[int], *, required: bool) -> Result:
        line = shlex.join(argv)
        key = max((k for k in self.answers if line.startswith(k)), key=len, default=None)
        if key is None:
            if required:
                raise AssertionError(f"the script has no answer for: {line}")
            return Result(tuple(argv), 0, "", "")
        value = self.answers[key]
        if isinstance(value, list):
            value = value.pop(0) if len(value) > 1 else value[0]
        answer = Answer(value) if isinstance(value, str) else value
        if answer.status not in ok:
            raise errors.ToolFailed(
                f"'{argv[0]}' failed with status {answer.status}: {answer.stderr.strip()}",
                argv=argv,
                status=answer.status,
                stdout=answer.stdout,
                stderr=answer.stderr,
            )
        return Result(tuple(argv), answer.status, answer.stdout, answer.stderr)


class _MemoryJournal:
    def __init__(self) -> None:
        self.steps: list[undo.Undo] = []

    def append(self, step: undo.Undo) -> None:
        self.steps.append(step)

    def roll_back(self, host: ScriptedHost) -> None:
        for step in reversed(self.steps):
            if step.kind == "run":
                host.run_undo(step.args)
            else:
                host.lines.append(f"< {step}")
        self.steps.clear()


def transcript(xml: str, verb: Callable[[Any], Any], host: ScriptedHost) -> list[str]:
    """What ``verb`` (a function of the backend) runs for the pool defined by ``xml``: the lines, in order.

    If it fails its changes are undone and the last line is the error.
    """
    from poolkit import xmlmap

    definition: Any = xmlmap.read(xml, registry.definitions())
    backend = registry.backend(definition.type)(definition, host)
    try:
        verb(backend)
    except errors.PoolkitError as error:
        journal: Any = host.journal
        journal.roll_back(host)
        host.lines.append(f"error: {error}")
    return host.lines


def undone(host: ScriptedHost) -> list[str]:
    """Take back what the script's journal has, as it is done after a crash, and return the new lines: what each undo step asks
    of the machine (``<?``), and what it then runs (``<``).
    """
    before = len(host.lines)
    journal: Any = host.journal
    for step in reversed(journal.steps):
        rollback.perform(step, host, set())
    return host.lines[before:]
