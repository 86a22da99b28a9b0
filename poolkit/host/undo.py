"""How a change is taken back: undo steps, as data.

A step is written to the journal (:mod:`poolkit.host.journal`), durably, *before* the change it belongs to is made. When a later
step fails, or the process dies and another one finds the journal, the steps are run newest first
(:mod:`poolkit.host.rollback`). Running the undo of a change that never happened must therefore be harmless, and running it
twice, or days later when a server is back; every kind below is.
"""

from __future__ import annotations

from poolkit.host.kernel import boot
from poolkit.lean import TYPE_CHECKING
from poolkit.values import value

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any


KINDS: dict[str, tuple[str, str]] = {
    "run": ("*argv", "run {argv}"),
    "run-if": ("question answer argv input", "run {argv} (if {question} says '{answer}')"),
    "write-back": ("question answer device pieces", "write the saved bytes back to {device} (if {question} says '{answer}')"),
    "unmount": ("target source", "unmount {target} {source}"),
    "unlink": ("path known boot", "unlink {path}"),
    "rmdir": ("path", "rmdir {path}"),
    "chmod": ("path mode known", "chmod {mode:04o} {path}"),
    "chown": ("path owner group known", "chown {owner}:{group} {path}"),
    "symlink": ("target path", "symlink {target} {path}"),
    "unsymlink": ("target path", "unsymlink {target} {path}"),
    "restore": ("kept path", "restore {kept} {path}"),
    "trim": ("path known size", "trim {path} to {size} bytes"),
    "overwrite": ("path name known random", "remove {path}"),
    "call": ("words function arguments", "{words} (by {function})"),
    "tell": ("words boot", "{words}"),
    "gone": ("path pool name boot known", "list '{name}' no more"),
    "damaged": ("line", "line {line} of the journal"),
}  # fmt: skip
"""The kinds of steps: their fields, in the order of the journal, and how one is told. Journals outlive versions of poolkit: a
field is added at the end, and none is ever removed. ``known`` is the identity of the file that the step means."""


@value(frozen=True)
class Undo:
    """One step: its ``kind``, of ``KINDS``, and the values of that kind's fields, which may lack the last ones."""

    kind: str
    args: tuple[Any, ...]

    def field(self, name: str) -> Any:
        """The value of a field; None where this kind or this step has none of that name."""
        names = KINDS.get(self.kind, ("*args", ""))[0].split()
        if names == [f"*{name}"]:
            return self.args
        return dict(zip(names, self.args, strict=False)).get(name)

    @property
    def ends_with_boot(self) -> bool:
        """Whether a restart of the machine leaves nothing that it would be needed for."""
        return self.kind == "unmount" or self.field("boot") is not None

    @property
    def counts(self) -> bool:
        """Whether it still means anything: not if it was for another boot of the machine."""
        return self.field("boot") in (None, boot())

    def __str__(self) -> str:
        names, words = KINDS.get(self.kind, ("*args", "{kind} {args}"))
        values = {name.lstrip("*"): self.field(name.lstrip("*")) for name in names.split()}
        shown = {k: " ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
        try:
            return words.format(**shown, kind=self.kind).strip() or self.kind
        except (KeyError, ValueError, TypeError):  # a damaged journal, or a newer one
            return " ".join([self.kind, *map(str, self.args)])


def run(argv: Sequence[str]) -> Undo:
    """Undo by running a program; its failure is reported, not raised."""
    return Undo("run", tuple(argv))


def run_if(question: Sequence[str], answer: str, argv: Sequence[str], *, input: str | None = None) -> Undo:
    """As ``run``, but only if the program ``question``, which reads, prints ``answer`` (but for white space).

    For what others may have replaced since: it is left alone unless it is still what this operation made. ``input`` is
    what the program gets to read.
    """
    return Undo("run-if", (list(question), answer, list(argv), *([] if input is None else [input])))


def write_back(question: Sequence[str], answer: str, device: str, pieces: Sequence[tuple[int, bytes]]) -> Undo:
    """Undo by writing saved bytes to a device again, under the condition of ``run_if``; ``pieces`` are (offset, bytes)."""
    import base64
    import zlib

    packed = [[offset, base64.b64encode(zlib.compress(data)).decode("ascii")] for offset, data in pieces]
    return Undo("write-back", (list(question), answer, device, packed))


def unmount(target: str, source: str) -> Undo:
    """Unmount ``target`` if ``source`` is what is mounted there: that text, device (also of a btrfs), directory or export."""
    return Undo("unmount", (target, source))


def unlink(path: str, facts: os.stat_result | None = None) -> Undo:
    """Undo a file by unlinking it: if it is still that of ``facts``; without them its name must be ours alone."""
    return Undo("unlink", (path,) if facts is None else (path, identity(facts)))


def unlink_whole(path: str, facts: os.stat_result) -> Undo:
    """Undo a name given to a file that is whole and on the disk: by unlinking it, if it is still that file.

    A restart of the machine ends that: whether the verb had ended well is not sure to be on record then, and a whole file
    does no harm.
    """
    return Undo("unlink", (path, identity(facts), boot()))


def rmdir(path: str) -> Undo:
    """Undo a new directory, if it is empty."""
    return Undo("rmdir", (path,))


def chmod(path: str, facts: os.stat_result) -> Undo:
    """Give what is at ``path`` the mode that it has now again, if it is still the same file."""
    return Undo("chmod", (path, facts.st_mode & 0o7777, identity(facts)))


def chown(path: str, facts: os.stat_result) -> Undo:
    """Give what is at ``path`` the owner and group that it has now again, if it is still the same file."""
    return Undo("chown", (path, facts.st_uid, facts.st_gid, identity(facts)))


def symlink(target: str, path: str) -> Undo:
    """Undo the removal of a symbolic link, unless something else has its name."""
    return Undo("symlink", (target, path))


def unsymlink(target: str, path: str) -> Undo:
    """Undo a new symbolic link, if it still leads to ``target``."""
    return Undo("unsymlink", (target, path))


def restore(kept: str, path: str) -> Undo:
    """Undo the removal of ``path``, which waits as ``kept`` until the operation is complete, unless something has its name."""
    return Undo("restore", (kept, path))


def trim(path: str, facts: os.stat_result) -> Undo:
    """Give back what was reserved beyond the end that a file has now, if it has that end still."""
    return Undo("trim", (path, identity(facts), facts.st_size))


def overwrite(path: str, name: str, facts: os.stat_result, *, random: bool) -> Undo:
    """Remove the file ``path`` (``facts``) whose place ``name`` another one has taken, overwritten once if ``random``.

    It has a second name until then, and is left as it is while that is ``name``.
    """
    return Undo("overwrite", (path, name, identity(facts), random))


def call(words: str, function: str, *arguments: Any) -> Undo:
    """Undo by ``function`` (``module:name``), called with a host and ``arguments``, plain values, in a child that is given up.

    It must be harmless when the change never happened, and end by itself. ``words`` say what it does.
    """
    return Undo("call", (words, function, list(arguments)))


def gone(path: str, pool: int, name: str, facts: os.stat_result | None = None) -> Undo:
    """The volume ``name`` of the pool of that number in the inventory is to be listed no more where no file is at ``path``.

    For one that is about to be removed, which nothing brings back; with ``facts`` for one that is listed before it has its name,
    and then it must be that file. A restart of the machine ends that: pools are listed anew when they start.
    """
    return Undo("gone", (path, pool, name, boot(), *([] if facts is None else [identity(facts)])))


def tell(words: str) -> Undo:
    """Undo nothing, for what cannot be taken back: ``words`` are told to whoever recovers what a dead process had begun.

    Until the machine is started again: what has to be known longer is on record elsewhere.
    """
    return Undo("tell", (words, boot()))


def identity(facts: os.stat_result) -> list[int]:
    """What tells a file from one that took its name: device and inode."""
    return [facts.st_dev, facts.st_ino]
