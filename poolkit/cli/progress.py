"""Progress for people (a bar with rate and time left, on a terminal) and for programs (JSON lines, ``--log-json``)."""

from __future__ import annotations

import json
import threading
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from poolkit.engine import Engine
    from poolkit.engine.events import Event

_PATIENCE = 0.4  # seconds before a bar appears: most work ends sooner, and rich takes a tenth of a second to load
_PAUSE = 0.1  # seconds between two progress lines; the last one of a piece of work always comes


class Reporter:
    """Listens to an engine and reports on ``stream``. With ``json`` each line is one object with ``time`` and ``event``:

    ``step`` (text), ``progress`` (what, done, total, rate in units a second), ``event`` (kind, pool, volume).
    """

    def __init__(self, stream: IO[str], verb: str, *, json: bool) -> None:
        self.stream = stream
        self.verb = verb
        self.json = json
        self.began: dict[str, float] = {}
        self.last = 0.0
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self._turn = threading.RLock()  # several pools may be started side by side

    def watch(self, engine: Engine) -> None:
        """Report what this engine does from now on."""
        engine.host.on_progress = self.progress
        if self.json:
            engine.host.on_step = self.step
            engine.subscribe(self.event)

    def step(self, text: str) -> None:
        """A change is about to be made."""
        self.write("step", text=text)

    def event(self, event: Event) -> None:
        """A pool or volume changed."""
        self.write("event", kind=event.kind, pool=event.pool, volume=event.volume)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """So much is done; bytes or steps. ``total`` 0 means that it is not known."""
        with self._turn:
            self._progress(done, total, what)

    def _progress(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        began = self.began.setdefault(what, now)
        if now - self.last < _PAUSE and done < total:
            return
        if self.json:
            self.last = now
            rate = done / (now - began) if now > began else None
            self.write("progress", what=what, done=done, total=total, rate=None if rate is None else round(rate))
        elif now - began >= _PATIENCE:
            self.last = now
            self.draw(done, total, what)

    def write(self, event: str, **facts: Any) -> None:
        """One line."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, "verb": self.verb, **facts})
        with self._turn:
            self.stream.write(line + "\n")
            self.stream.flush()

    def draw(self, done: int, total: int, what: str) -> None:
        """Show or move the bar."""
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as Speed

            self.bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                DownloadColumn(binary_units=True), Speed(), TimeRemainingColumn(),
                console=Console(file=self.stream, stderr=True), transient=True,
            )  # fmt: skip
            self.bar.start()
        task = self.tasks.get(what)
        if task is None:
            task = self.tasks[what] = self.bar.add_task(what or self.verb, total=total or None)
        self.bar.update(task, completed=done, total=total or None)

    def pause(self) -> None:
        """Take the bar away, so that lines can be written."""
        with self._turn:
            if self.bar is not None:
                self.bar.stop()
                self.bar = None
                self.tasks.clear()

    close = pause
