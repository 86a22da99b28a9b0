"""The verb that prints units for systemd, with the command as it is installed here."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from poolkit.cli import files
from poolkit.cli.arguments import Values, near, usage_error

if TYPE_CHECKING:
    from poolkit.cli.session import Session

_BOOT, _BOOT_USER = "poolkit-autostart.service", "poolkit-autostart-user.service"
_DRIFT = ("poolkit-drift.service", "poolkit-drift.timer")
_DOCUMENTS = "%E/poolkit/documents"
"""Where the drift unit looks if nothing else is said: below /etc, or below a user's configuration."""


def systemd_unit(session: Session, values: Values) -> None:
    """``systemd-unit boot|drift [PATH...]``."""
    drift = values.which == "drift"
    if not drift and (values.path or values.every is not None):
        raise usage_error("only the drift units have folders of documents, and times", "systemd-unit")
    if values.every is not None:
        _require_calendar(values.every)
    names = {name: name for name in _DRIFT} if drift else {_BOOT: _BOOT_USER if values.user else _BOOT}
    texts = {name: _filled(_template(kept), session, values) for name, kept in names.items()}
    if values.into is not None:
        files.write(session, values.into, texts)
    if session.json:
        session.value([{"name": name, "text": text} for name, text in texts.items()])
    elif values.into is None:
        # As `systemctl cat` shows several: each with its name in a comment.
        session.out.write("\n".join(f"# {name}\n{text}" for name, text in texts.items()))


_SHORTHANDS = ("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually")
_SPAN = re.compile(r"(\d+ *(us|ms|s|sec|m|min|h|hr|d|w|M|y|(second|minute|hour|day|week|month|year)s?)? *)+", re.ASCII)
_WEEKDAYS = re.compile(r"(mon|tue|wed|thu|fri|sat|sun)[a-z]*\b", re.IGNORECASE)


def _require_calendar(words: str) -> None:
    """Refuse what is plainly no calendar event of systemd.time(7): of such a timer systemd complains in its journal alone."""
    first = words.split()[0].lower() if words.isprintable() and words.strip() else ""
    if _SPAN.fullmatch(words.strip()):
        raise usage_error(
            f"--every: '{words}' is a span of time, and systemd wants a calendar event", "systemd-unit",
            "every 15 minutes is '*:0/15', every 6 hours is '0/6:00'; systemd-analyze calendar tells of any",
        )  # fmt: skip
    if not first or not (first in _SHORTHANDS or re.search(r"[\d*]", words) or _WEEKDAYS.match(first)):
        raise usage_error(
            "--every is a calendar event of systemd, such as hourly or 'Mon *-*-* 06:00'", "systemd-unit",
            near(first, _SHORTHANDS),
        )  # fmt: skip


def _template(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), "units", name), encoding="utf-8") as file:
        return file.read()


def _filled(text: str, session: Session, values: Values) -> str:
    """A unit with this command, this root and these folders in it."""
    root = session.options.root
    command = [*_command(), *(["--root", root] if root is not None else [])]
    text = text.replace("ExecStart=poolkit ", f"ExecStart={_words(command)} ")
    if root is not None:
        text = re.sub("(?m)^RequiresMountsFor=.*$", lambda _: f"RequiresMountsFor={_quoted(root)}", text)
    if values.path:
        text = text.replace(_DOCUMENTS, _words([os.path.abspath(path) for path in values.path]))
    if values.every is not None:
        text = re.sub("(?m)^OnCalendar=.*$", lambda _: f"OnCalendar={values.every}", text)
    return text


def _command() -> list[str]:
    """How this very command is called: its file, or the Python that has it."""
    called = os.path.abspath(sys.argv[0])
    if os.path.basename(called) == "poolkit" and os.access(called, os.X_OK) and os.path.isfile(called):
        return [called]
    return [sys.executable, "-m", "poolkit"]


def _words(words: list[str]) -> str:
    """Words of a command line for a unit, where alone a dollar begins a variable: systemd.service(5), "Command lines"."""
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(word: str) -> str:
    """One word of a unit: systemd.syntax(7), "Quoting", and systemd.unit(5), "Specifiers"."""
    if re.fullmatch(r"[\w./:@+=,-]+", word, re.ASCII):
        return word
    escaped = "".join(_ESCAPES.get(c) or (c if c.isprintable() else _bytes(c)) for c in word)
    return f'"{escaped}"'


_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%"}


def _bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
