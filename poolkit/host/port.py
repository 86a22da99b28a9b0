"""The one port through which everything touches the machine.

``query`` reads and ``change`` writes. From that split come the dry run, the undo of a failed operation, the crash
journal, transcripts in tests, redaction of secrets and abort, and no backend knows of any of them.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress

from poolkit import errors
from poolkit.later import once
from poolkit.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO, TypeVar

    from poolkit.host.appearing import Appearing
    from poolkit.host.devices import Devices
    from poolkit.host.directory import Directory
    from poolkit.host.files import Files
    from poolkit.host.journal import Journal
    from poolkit.host.mounts import Mount, MountTable
    from poolkit.host.node import Node
    from poolkit.host.undo import Undo

    T = TypeVar("T")


class Result(NamedTuple):
    """What a program answered. ``stdout`` and ``stderr`` are text; bytes that are not UTF-8 appear as ``\\xNN``."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class Step(NamedTuple):
    """One change of an operation, as a dry run shows it: an argv, or a sentence for a system call."""

    argv: tuple[str, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        if self.argv:
            import shlex

            return shlex.join(self.argv)
        return self.text


class Host:
    """This machine. One object may be shared by threads; ``operation`` makes the view for one engine call.

    ``fault`` is called with a label before every change to durable state: tests raise or kill there. At a label that begins
    with "passed:" nothing can fail any more, and only kill makes sense.
    """

    _own_session = True
    """Whether programs get a session of their own, so that an abort ends all that they started."""

    def __init__(self, *, dry_run: bool = False, fault: Callable[[str], None] | None = None) -> None:
        self.dry_run = dry_run
        self.fault = fault
        self.plan: list[Step] = []
        self.warnings: list[str] = []
        self._above: Host | None = None
        self.journal: Journal | None = None
        self.on_progress: Callable[[int, int, str], None] | None = None
        self.on_step: Callable[[str], None] | None = None
        self.cautious: str | None = None
        """Where a damaged inventory was set aside: formats on record may be missing, so that a guess is worth less."""
        self.on_adopt: Callable[[str, int, str], None] | None = None
        self.on_enlist: Callable[[Sequence[tuple[Any, os.stat_result]]], None] | None = None
        self.on_secret: Callable[[str, str | None, str | None], bytes] | None = None
        self.on_node: Callable[[], Node] | None = None
        self._shared: dict[Any, Any] = {}
        self._secrets: list[str] = []
        self._programs: dict[str, str] = {}
        self._versions: dict[tuple[str, tuple[int, ...]], str] = {}
        self.packages: dict[str, str] = {}
        """Debian's packages for programs that pool types use, for the hint where one is missing."""
        self.bytewise: set[str] = set()
        """Programs of pool types that need no character set; see :class:`~poolkit.backend.Backend`."""
        self.children: list[Any] = []
        """Processes that wait for work that may hang (``poolkit.host.worker``)."""

    @once
    def files(self) -> Files:
        """Files and folders: making, changing and removing them, with an undo."""
        from poolkit.host.files import Files  # which a look at pools does without, as it does without devices

        return Files(self)

    @once
    def devices(self) -> Devices:
        """What the kernel says of disks, and their nodes."""
        from poolkit.host.devices import Devices

        return Devices()

    @once
    def abort(self) -> threading.Event:
        """Set, it stops the work under way at its next safe point; a view has that of the host it is of."""
        if self._above is not None:
            return self._above.abort
        from threading import Event  # which a look does without: nothing of it could be stopped half-way

        return Event()

    @property
    def at_work(self) -> bool:
        """Whether there may be work under way, which looks at ``abort``."""
        return "abort" in vars(self)

    def close(self) -> None:
        """End the processes that wait for work. Repeatable; the next work starts new ones."""
        with suppress(IndexError):  # threads may take from the list at the same time
            while True:
                self.children.pop().end()

    def operation(
        self,
        *,
        journal: Journal | None = None,
        abort: threading.Event | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Host:
        """A view of this machine for one engine call: its own plan, journal, abort switch and shared answers."""
        view = self._view()
        view.journal = journal
        view._above = self
        if abort is not None:
            view.abort = abort
        view.on_progress = progress or self.on_progress
        view.on_step = self.on_step
        view.on_secret = self.on_secret
        view.on_node = self.on_node
        view._programs = self._programs
        view._versions = self._versions
        view.packages = self.packages
        view.bytewise = self.bytewise
        view.children = self.children
        return view

    def _view(self) -> Host:
        return Host(dry_run=self.dry_run, fault=self.fault)

    # -- programs ---------------------------------------------------------------------------------------------

    def query(
        self,
        argv: Sequence[str],
        *,
        ok: Sequence[int] = (0,),
        timeout: float = 60,
        input: bytes | None = None,
        shared: bool = False,
        untrusted: bool = False,
        pass_fds: Sequence[int] = (),
        stdin: int | BinaryIO | None = None,
        stdout: int | BinaryIO | None = None,
    ) -> Result:
        """Run a program that only reads.

        ``argv[0]`` is a bare name, looked up on a fixed path; never a shell. ``ok`` lists the exit statuses that
        mean success. ``shared`` answers a repeated question from memory until the next change. ``untrusted``, for tools
        that read images, sets resource limits and confines the program: it can open what is in ``pass_fds`` and what is
        installed, and no network (``poolkit.host.confine``). ``timeout`` is in seconds. ``stdin`` and ``stdout``
        are what it reads from and writes to: a descriptor becomes the program's own, a stream is pumped, which sees an abort and,
        from a stream, reports progress. Raises ``ToolMissing``, ``ToolFailed``, ``ToolCrashed``, ``ToolTimeout`` or ``Aborted``.
        Repeatable.
        """
        if not shared:
            return self._run(argv, ok, timeout, input, untrusted, pass_fds, stdin=stdin, stdout=stdout)
        key = tuple(argv)
        if key not in self._shared:
            self._shared[key] = self._run(argv, ok, timeout, input, untrusted, pass_fds)
        result: Result = self._shared[key]
        return result

    def change(
        self,
        argv: Sequence[str],
        *,
        undo: Sequence[str] | Undo | None = None,
        ok: Sequence[int] = (0,),
        timeout: float = 600,
        input: bytes | None = None,
        untrusted: bool = False,
        pass_fds: Sequence[int] = (),
        limits: Mapping[str, int] | None = None,
        poll: Callable[[], None] | None = None,
        whole: bool = False,
        stdin: int | BinaryIO | None = None,
        stdout: int | BinaryIO | None = None,
    ) -> Result:
        """Run a program that changes something; ``undo`` takes the change back.

        ``undo`` is an argv (or an :class:`~poolkit.host.undo.Undo`) that is recorded durably before the program runs
        and performed if a later step of the operation fails or the process dies. It must be harmless when the
        change never happened. In a dry run nothing is run and the answer is empty. ``limits`` (names of prlimit(1), with
        ``untrusted``) replaces single limits; ``poll`` is called four times a second while it runs. ``whole`` is for what must
        not be killed because it would leave devices suspended or half a table written: an abort takes effect when it has ended.
        Otherwise as ``query``.
        """
        self.announce(argv, undo)
        if self.dry_run:
            return Result(tuple(argv), ok[0], "", "")
        result = self._run(
            argv, ok, timeout, input, untrusted, pass_fds, abortable=not whole, limits=limits, poll=poll, changes=True,
            stdin=stdin, stdout=stdout,
        )  # fmt: skip
        if whole:
            self.check_abort()
        return result

    @contextmanager
    def alongside(
        self,
        argv: Sequence[str],
        *,
        ready: Callable[[], bool],
        undo: Sequence[str] | Undo | None = None,
        timeout: float = 30,
        untrusted: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> Iterator[None]:
        """A program that works as long as the body does, such as one that serves a volume as a device or socket.

        The body begins when ``ready`` answers True, asked fifty times a second for ``timeout`` seconds; afterwards the program is
        told to end, and killed if it does not. ``undo`` is recorded before it starts, for what it leaves when it is killed with
        this process; it is harmless after an orderly end. In a dry run nothing is started. Raises as ``change``; a program that
        ends before it is ready is a ``ToolFailed``.
        """
        self.announce(argv, undo)
        if self.dry_run:
            yield
            return
        from poolkit.host.running import alongside

        with alongside(self, tuple(argv), ready, timeout, untrusted, tuple(pass_fds)):
            yield

    def _charset(self, program: str) -> str:
        return "C" if program in self.bytewise else "C.UTF-8"

    def _track(self, pid: int) -> None:
        """A program that changes something has begun."""
        if self.journal is not None:
            self.journal.running(pid)

    def announce(self, argv: Sequence[str], undo: Sequence[str] | Undo | None = None) -> None:
        """What ``change`` does before it runs the program: for one that somebody else runs."""
        self._step(argv[0], undo)
        self._plan(Step(argv=tuple(argv)))
        self._shared.clear()

    def run_undo(self, argv: Sequence[str], *, input: str | None = None) -> None:
        """Run the argv of an undo step; raises as ``query``. An abort does not stop it."""
        self._shared.clear()
        self._run(argv, (0,), 120, None if input is None else input.encode(), False, (), abortable=False)

    def ask_undo(self, argv: Sequence[str]) -> str:
        """What a program prints that an undo step depends on, whatever its status; an abort does not stop it."""
        return self._run(argv, range(256), 120, None, False, (), abortable=False).stdout

    def program(self, name: str) -> str:
        """The absolute path of a program on the fixed search path; raises ``ToolMissing`` with the package to install."""
        found = self._programs.get(name)
        if found is None:
            from poolkit.host.programs import PACKAGES, SEARCH_PATH

            for directory in SEARCH_PATH:
                candidate = f"{directory}/{name}"
                if os.access(candidate, os.X_OK):
                    found = self._programs[name] = candidate
                    break
            else:
                package = self.packages.get(name) or PACKAGES.get(name, name.split(".")[0])
                raise errors.ToolMissing(
                    f"the program '{name}' is not installed", argv=[name], hint=f"on Debian: apt install {package}"
                )
        return found

    def version(self, name: str) -> str:
        """What a program says of itself (``--version``): asked again when its file is another one, or was changed."""
        path = self.program(name)
        try:
            facts = os.stat(path)
        except OSError:
            return self.query([name, "--version"], shared=True).stdout
        key = path, (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if key not in self._versions:
            self._versions[key] = self.query([name, "--version"]).stdout
        return self._versions[key]

    @property
    def root(self) -> bool:
        """Whether this process may do what root may: mount, open any device."""
        return os.geteuid() == 0

    def has_program(self, name: str) -> bool:
        """Whether ``program`` would find it; for a library, such as ``libiscsi.so.7``, whether the loader does."""
        if ".so." in name:
            import ctypes

            try:
                ctypes.CDLL(name)
            except OSError:
                return False
            return True
        try:
            self.program(name)
        except errors.ToolMissing:
            return False
        return True

    def _run(
        self,
        argv: Sequence[str],
        ok: Sequence[int],
        timeout: float,
        input: bytes | None,
        untrusted: bool,
        pass_fds: Sequence[int],
        abortable: bool = True,
        limits: Mapping[str, int] | None = None,
        poll: Callable[[], None] | None = None,
        changes: bool = False,
        stdin: int | BinaryIO | None = None,
        stdout: int | BinaryIO | None = None,
    ) -> Result:
        from poolkit.host.running import run

        argv = tuple(argv)
        status, out, err = run(
            self, argv, ok, timeout, input, untrusted, pass_fds, abortable, limits, poll, changes, stdin, stdout
        )
        return Result(argv, status, out, err)

    # -- changes by system call -------------------------------------------------------------------------------

    def step(self, label: str, undo: Undo | None = None) -> bool:
        """Announce a change by system call: records ``undo``, shows it in the plan; False means: do not do it (dry run)."""
        self._step(label, undo)
        self._plan(Step(text=label))
        self._shared.clear()
        return not self.dry_run

    def _plan(self, step: Step) -> None:
        self.plan.append(step)
        if self.on_step is not None:
            self.on_step(self.redact(str(step)))

    def _step(self, label: str, undo: Sequence[str] | Undo | None) -> None:
        self.check_abort()
        if self.fault is not None:
            self.fault(label)
        if undo is not None and self.journal is not None and not self.dry_run:
            from poolkit.host import undo as steps

            self.keep_undo(undo if isinstance(undo, steps.Undo) else steps.run(undo))
            if self.fault is not None:
                self.fault(f"{label} (undo recorded)")

    def keep_undo(self, undo: Undo) -> None:
        """Write an undo step to the journal durably, for a change that is made in the next moment."""
        if self.journal is not None and not self.dry_run:
            self.journal.append(undo)

    def warn(self, text: str) -> None:
        """Say something that the caller should know although the work succeeded; it is in the outcome's warnings."""
        self.warnings.append(self.redact(text))

    # -- facts -------------------------------------------------------------------------------------------------

    def shared(self, key: object, ask: Callable[[], Any]) -> Any:
        """The answer of ``ask``, asked once per engine call and again after a change."""
        if key not in self._shared:
            self._shared[key] = ask()
        return self._shared[key]

    def mounts(self) -> MountTable:
        """The mount table of this process, read once per engine call and again after a change."""
        from poolkit.host.mounts import read

        mounts: MountTable = self.shared("mounts", read)
        return mounts

    def locate(self, path: str) -> tuple[str, Mount | None]:
        """The path without symbolic links and the mount it is on (``poolkit.host.mounts.locate``), asked as ``mounts``.

        Nothing that is mounted is touched, so a dead server cannot make this hang.
        """
        from poolkit.host.mounts import locate

        found: tuple[str, Mount | None] = self.shared(("locate", path), lambda: locate(path, self.mounts()))
        return found

    def mount_at(self, path: str) -> Mount | None:
        """The topmost mount whose mount point is exactly ``path`` (symbolic links resolved), or None."""
        real, mount = self.locate(path)
        return mount if mount is not None and mount.target == real else None

    def directory(self, path: str) -> Directory:
        """Open a directory for the fast path of plain system calls; use as a context manager."""
        from poolkit.host.directory import Directory

        return Directory(path)

    def adopt(self, name: str, inode: int, format: str) -> None:
        """Tell the engine, before it appears, which format the new volume of that inode has."""
        if self.on_adopt is not None and not self.dry_run:
            self.on_adopt(name, inode, format)

    def enlist(self, files: Sequence[Appearing]) -> None:
        """As :meth:`adopt`, for new volumes that are to be listed as their ``info`` (None where that cannot be told yet).

        An engine that can stores both at once, and all of them.
        """
        told = []
        for new in files:
            if new.info is None or self.on_enlist is None:
                self.adopt(new.name, new.facts.st_ino, new.format)
            else:
                told.append((new.info, new.facts))
        if told and self.on_enlist is not None and not self.dry_run:
            self.on_enlist(told)

    # -- progress, abort, secrets -----------------------------------------------------------------------------

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Report ``done`` of ``total`` (bytes, or steps); also where an abort takes effect."""
        self.check_abort()
        if self.on_progress is not None:
            self.on_progress(done, total, what)

    def wait_for(self, ask: Callable[[], T], seconds: float) -> T | None:
        """The first answer of ``ask`` that is something, such as a device that others make; None if none came in time.

        It is asked fifty times a second, and once more when the time is up, all of which this process may have waited for a
        processor. ``Aborted`` when the caller asks to stop meanwhile.
        """
        deadline = time.monotonic() + seconds
        late = False
        while not (answer := ask()):
            self.check_abort()
            if late:
                return None
            time.sleep(0.02)
            late = time.monotonic() > deadline
        return answer

    def check_abort(self) -> None:
        """Raise ``Aborted`` if the caller asked to stop."""
        if self.abort.is_set():
            raise errors.Aborted("stopped on request")

    def hide(self, secret: str) -> None:
        """Never show this text again: it is replaced in every error and plan of this view."""
        if secret:
            self._secrets.append(secret)

    def redact(self, text: str) -> str:
        """``text`` with all hidden secrets replaced."""
        for secret in self._secrets:
            if secret in text:  # else it stays the object it is: the parts of a hint count
                text = text.replace(secret, "***")
        return text

    def _redacted(self, argv: Sequence[str]) -> list[str]:
        return [self.redact(word) for word in argv]

    def secret(self, type: str, *, uuid: str | None = None, usage: str | None = None) -> bytes:
        """The value of a secret by its uuid or its usage, hidden from all messages from now on.

        ``type`` is what it is for, as ``<usage type='…'>`` says: volume, ceph, iscsi ... ``SecretNotFound``, or ``Unsafe`` for a
        uuid whose secret is for something else.
        """
        if self.on_secret is None:
            raise errors.SecretNotFound(f"there is no secret '{uuid or usage}': this host has no store of secrets")
        value = self.on_secret(type, uuid, usage)
        self.hide(value.decode("utf-8", "backslashreplace"))
        return value

    @property
    def node(self) -> Node:
        """Which host this is among those that share storage, and its role there; see :mod:`poolkit.state.settings`."""
        from poolkit.host.node import here

        node: Node = self.shared("node", self.on_node or here)
        return node

    @staticmethod
    def spooled(needed: int, fill: Callable[[int], object]) -> AbstractContextManager[int]:
        """A descriptor of an unnamed temporary file that ``fill`` has written, of about ``needed`` bytes, at its begin.

        ``NoSpace`` if so much is not free where large temporary files go, ``TMPDIR`` or ``/var/tmp``.
        """
        from poolkit.host import spool

        return spool.spooled(needed, fill)

    @contextmanager
    def secret_file(self, value: bytes) -> Iterator[tuple[str, int]]:
        """A path and a descriptor from which a child can read ``value``: memory only, never on a disk, never in argv.

        Give the descriptor as ``pass_fds`` and the path in the argv. The value is hidden from all messages.
        """
        fd = os.memfd_create("secret", os.MFD_CLOEXEC)
        try:
            from poolkit.host.descriptors import write_all

            os.fchmod(fd, 0o600)
            write_all(fd, value)
            os.lseek(fd, 0, os.SEEK_SET)
            self.hide(value.decode("utf-8", "backslashreplace"))
            yield f"/proc/self/fd/{fd}", fd
        finally:
            os.close(fd)
