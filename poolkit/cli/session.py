"""One run of the command: its options, its engine, and everything it says to people and programs."""

from __future__ import annotations

import os
import sys

from poolkit import errors
from poolkit.cli import output
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import IO, Any

    from poolkit.cli.arguments import Values
    from poolkit.cli.progress import Reporter
    from poolkit.engine import Engine
    from poolkit.engine.operation import Outcome

    Function = Callable[["Session", Values], None]

_MAKE_ROOT = frozenset(
    {
        "define",
        "define-as",
        "create",
        "create-as",
        "secret-define",
        "find-sources",
        "find-sources-as",
        "plan",
        "diff",
        "apply",
        "import",
    }
)
"""Verbs for which the folder of --root need not be there: they make it, or ask nothing of it."""


SOMETHING_TO_DO = 2
"""Exit status of plan and diff where there is something to do, as of ``terraform plan -detailed-exitcode``."""


class Session:
    """What a verb's function works with. ``code`` becomes the exit status."""

    def __init__(self, options: Values, verb: str) -> None:
        self.options = options
        self.verb = verb
        self.json: bool = options.json
        self.document_warnings: list[str] = []
        self.quiet: bool = options.quiet
        self.code = 0
        self.stopping = False
        self.heeds = False
        """Whether the verb itself looks at ``stopping``, and comes to its end then."""
        self.out: IO[str] = sys.stdout
        self.err: IO[str] = sys.stderr
        self.paint = output.Paint(self.out, not options.no_color)
        self._engine: Engine | None = None
        self._reporter: Reporter | None = None

    # -- the engine -----------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine of this run, opened when first asked for."""
        if self._engine is None:
            from poolkit.engine import Engine

            options = self.options
            if options.root is not None and self.verb not in _MAKE_ROOT and not os.path.lexists(options.root):
                raise errors.InvalidArgument(
                    f"there is no folder '{errors.shown(options.root, 4096)}' for --root", hint="define makes one"
                )
            engine = self._engine = Engine(options.root, wait=options.wait or 0.0, dry_run=options.dry_run)
            engine.host.on_secret = _uncored(engine.host.on_secret)
            if options.log_json or (not self.quiet and self.err.isatty()):
                from poolkit.cli.progress import Reporter

                self._reporter = Reporter(self.err, self.verb, json=options.log_json)
                self._reporter.watch(engine)
            for line in engine.recovered:
                self.note(f"after a command that was killed: {line}")
        return self._engine

    @property
    def at_work(self) -> bool:
        """Whether somebody looks at whether to stop. All else can be left where it is: there is nothing to be taken back."""
        return self.heeds or (self._engine is not None and self._engine.host.at_work)

    def stop(self) -> None:
        """Ask the work under way to stop; it is undone."""
        self.stopping = True
        if self._engine is not None:
            self.note("stopping; once more to stop at once")
            self._engine.host.abort.set()

    def close(self) -> None:
        """End the progress display and close the engine."""
        if self._reporter is not None:
            self._reporter.close()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    # -- what it says -----------------------------------------------------------------------------------------------

    def print(self, text: str = "") -> None:
        """A line on standard output, with nothing in it that a terminal would obey."""
        self.out.write("\n".join(errors.shown(line, 1 << 30) for line in text.split("\n")) + "\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Lines that are clean already, and may be coloured."""
        self.out.write("".join(f"{line}\n" for line in lines))

    def xml(self, text: str) -> None:
        """A document on standard output, or what ``--xpath`` finds in it; with ``--json`` in an object."""
        if getattr(self.options, "xpath", None) is not None:
            from poolkit.cli.xpath import found

            text = found(text, self.options.xpath, wrap=self.options.wrap)
        if self.json:
            self.value({"xml": text, **self.document_facts()})
        else:
            text = output.xml_for_terminal(text)
            self.out.write(text if text.endswith("\n") else text + "\n")

    def value(self, value: Any) -> None:
        """One JSON value on standard output. Only ASCII is written, so that any name passes any terminal."""
        import json

        self.out.write(json.dumps(value, indent=2) + "\n")

    def values(self, values: Iterable[Any]) -> None:
        """A JSON list as :meth:`value` prints it, each value as it comes: however long, it is never in memory whole."""
        import json

        encode = json.JSONEncoder(indent=2).encode
        before = "[\n  "
        for value in values:
            self.out.write(before + encode(value).replace("\n", "\n  "))
            before = ",\n  "
        self.out.write("[]\n" if before[0] == "[" else "\n]\n")

    def text(self, name: str, value: str) -> None:
        """The one value that was asked for."""
        if self.json:
            self.value({name: value})
        else:
            self.print(value)

    def rows(
        self, heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), colour: str = ""
    ) -> None:
        """A table."""
        self.lines(output.table(heads, rows, self.paint, right=right, colour=colour))

    def long_rows(
        self, heads: Sequence[str], rows: Callable[[], Iterable[Sequence[str]]], *, right: Sequence[str] = ()
    ) -> None:
        """A table of any length, of which a part is in memory: ``rows`` is called again for what does not fit into it."""
        self.out.writelines(f"{line}\n" for line in output.long_table(heads, rows, self.paint, right=right))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values."""
        self.lines(output.facts(pairs, self.paint))

    def note(self, text: str) -> None:
        """A line on standard error for people; not with ``--json`` or ``--quiet``."""
        if not self.quiet and not self.json:
            self.say("note", text)

    def warn(self, text: str) -> None:
        """A warning on standard error; with ``--json`` it is the caller's to put it into the answer."""
        if not self.json:
            self.say("warning", text)

    def warn_of_document(self, problem: str) -> None:
        """A warning about a document that was read; with ``--json`` it goes into the answer of the verb."""
        if self.json:
            self.document_warnings.append(problem)
        else:
            self.say("warning", problem)

    def say(self, kind: str, text: str) -> None:
        """A line on standard error with a word before it."""
        paint = output.Paint(self.err, not self.options.no_color)
        code = {"error": output.RED, "warning": output.YELLOW}.get(kind, output.DIM)
        self.err.write(f"{paint(kind + ':', code)} {errors.shown(self.words(text), 1 << 16)}\n")

    def words(self, text: str) -> str:
        """``text`` as the command says it: the verbs that a hint proposes are command lines for this root."""
        from poolkit.cli.wording import worded

        return worded(text, self.options.root)

    # -- results ------------------------------------------------------------------------------------------------------

    def document_facts(self) -> dict[str, Any]:
        """The warnings about documents, for answers that have no outcome."""
        return {"warnings": list(self.document_warnings)} if self.document_warnings else {}

    def outcome_facts(self, outcome: Outcome) -> dict[str, Any]:
        """An outcome as plain values."""
        result: dict[str, Any] = {"changed": outcome.changed, "message": outcome.message}
        if outcome.pending:
            from poolkit.xmlmap.plain import plain

            result["pending"] = [{"path": p, "running": plain(a), "new": plain(b)} for p, a, b in outcome.pending]
        if outcome.removed is not None:
            result["removed"], result["stays"] = outcome.removed, outcome.stays
        if outcome.warnings or self.document_warnings:
            result["warnings"] = list(map(self.words, [*self.document_warnings, *outcome.warnings]))
        if self.options.dry_run:
            result["dry_run"] = True
            result["plan"] = list(outcome.plan)
        return result

    def done(self, outcome: Outcome | None, pool: str, **more: Any) -> None:
        """Report what a verb did; ``more`` is for JSON only."""
        from poolkit.engine.operation import Outcome

        outcome = Outcome(False) if outcome is None else outcome  # an unchanged one is false
        if self.json:
            self.value({"verb": self.verb, "pool": pool, **self.outcome_facts(outcome), **more})
            return
        if self.options.dry_run:
            for line in outcome.plan:
                self.print(line)
            if outcome.plan:
                self.note("nothing was changed; these are the steps")
            else:
                self.note(
                    "there is nothing to do" if not outcome.changed else "no step of this verb changes the machine"
                )
            return
        if not self.quiet:
            self.print(outcome.message)
        for path, running, new in outcome.pending:
            from poolkit.xmlmap.plain import word

            self.note(f"waits for the next start: {path}: {word(running)} becomes {word(new)}")
        for warning in outcome.warnings:
            self.warn(warning)

    def fail(self, error: errors.PoolkitError) -> None:
        """Report an error; its exit code becomes that of the command unless there is one already."""
        code = error.exit_code
        if code == SOMETHING_TO_DO and self.verb in ("plan", "diff"):
            code = 1  # the usual one is an answer there
        self.code = self.code or code
        if self._reporter is not None:
            self._reporter.pause()
        if self.options.debug:
            import traceback

            self.err.write(
                "".join(
                    errors.shown(line, 1 << 16) + "\n"
                    for line in "".join(traceback.format_exception(error)).split("\n")
                )
            )
        if self.json:
            self.error_object({**self.error_facts(error), **self.document_facts()})
            return
        self.tell(error)

    def tell(self, error: errors.PoolkitError) -> None:
        """An error and its hint on standard error, for people."""
        whose = _whose(error)
        for line in str(error).split("\n"):
            self.say("error", whose + line)
        if error.hint:
            self.say("hint", error.hint)

    def error_facts(self, error: errors.PoolkitError) -> dict[str, Any]:
        """An error as plain values, worded for the command line."""
        facts = error.as_dict() | {"exit_code": error.exit_code}
        return facts | {"hint": self.words(error.hint)} if error.hint else facts

    def error_object(self, facts: Mapping[str, Any]) -> None:
        """One JSON object on standard error."""
        import json

        self.err.write(json.dumps(facts, default=str) + "\n")

    # -- input --------------------------------------------------------------------------------------------------------

    def read(self, file: str) -> tuple[bytes, str]:
        """A document's bytes and the name for messages; ``-`` is standard input."""
        from poolkit.xmlmap import DEFAULT_LIMITS

        # One byte more than the reader takes is enough for it to say that the document is too large.
        limit = DEFAULT_LIMITS.size + 1
        if file == "-":
            if sys.stdin is None:  # started with a closed descriptor
                raise errors.InvalidArgument("standard input is closed", hint="name a file instead of -")
            return sys.stdin.buffer.read(limit), "<stdin>"
        try:
            # A FIFO or process substitution is welcome here: the caller named it.
            with open(file, "rb") as stream:
                return stream.read(limit), errors.shown(file, 4096)
        except OSError as error:
            raise errors.from_os_error(error, f"read '{errors.shown(file, 4096)}'") from error

    def question(self, text: str, answers: Mapping[str, str]) -> str:
        """Ask on the terminal; the first letter of an answer. The first answer stands for an empty line and for the end."""
        words = ", ".join(f"[{key}] {meaning}" for key, meaning in answers.items())
        while True:
            self.err.write(f"{text} {words}: ")
            self.err.flush()
            line = sys.stdin.readline()
            if not line:
                return "k" if "k" in answers else next(iter(answers))
            key = line.strip().lower()[:1] or next(iter(answers))
            if key in answers:
                return key


def terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def editor() -> str:
    """The command line of the user's editor."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"


def _uncored(ask: Any) -> Any:
    """``ask``, which gives the value of a secret, with no core dump of this process from then on."""

    def asked(*which: Any) -> Any:
        from poolkit.host import cores

        cores.forbid()
        return ask(*which)

    return asked


def _whose(error: errors.PoolkitError) -> str:
    """Of what an error is that comes from far below, where neither pool nor volume is known, and whose words name neither."""
    pool, volume, text = error.pool, error.volume, str(error)
    if isinstance(error, (errors.InvalidDefinition, errors.Aborted)) or any(
        f"'{name}'" in text for name in (pool, volume) if name
    ):
        return ""
    if volume:
        return f"volume '{volume}' of pool '{pool}': " if pool else f"volume '{volume}': "
    return f"pool '{pool}': " if pool else ""
