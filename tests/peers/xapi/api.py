"""A call from its name to its answer: who may call, what the parameters are, plain fields, tasks.

Modules of calls register theirs with ``@call(NAME, TYPES OF THE PARAMETERS ..., gives=TYPE)``. A parameter of type ``X ref`` is
handed over as the row it names, ``X ref?`` as None where it names none.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import faults
from .database import Database, Row, now
from .marshal import Failure, Text, given, xml
from .schema import CLASSES, NULL, Real

if TYPE_CHECKING:
    from .storage import Storage

NO_ASYNC = ("session", "task", "event")
NO_LISTING = ("session", "event")


@dataclass(frozen=True)
class Message:
    """A call that is more than a field."""

    name: str
    parameters: tuple[str, ...]
    gives: str
    run: Callable[..., Any]
    optional: int = 0


MESSAGES: dict[str, Message] = {}


def call(name: str, *parameters: str, gives: str = "void", optional: int = 0) -> Callable[[Any], Any]:
    """Register a function as the call ``name``; it gets the ``Call`` and the parameters after the session."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        MESSAGES[name] = Message(name, parameters, gives, run, optional)
        return run

    return register


def setter(cls: str, name: str, type: str, then: Callable[[Call, Row, Any], None] | None = None) -> None:
    """Register a call that sets a field which plain setters may not; ``then`` is done afterwards."""

    @call(f"{cls}.set_{name}", f"{cls} ref", type)
    def set_field(call: Call, row: Row, value: Any) -> None:
        call.db.set(row, **{name: value})
        if then is not None:
            then(call, row, value)


@dataclass
class Call:
    """A call that is under way."""

    api: Api
    host: int
    name: str = ""
    session: Row | None = None
    task: Row | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    of: str = "xml"
    """What the answer is written as: ``xml`` or ``json``."""

    @property
    def db(self) -> Database:
        return self.api.db

    def progress(self, part: float) -> None:
        """Say how much is done; TASK_CANCELLED where somebody wants it no more."""
        if self.cancelled.is_set() and self.task is not None:
            raise Failure("TASK_CANCELLED", self.task.ref)
        if self.task is not None:
            self.db.set(self.task, progress=Real(part))

    def linger(self, seconds: float, let_go: threading.Event) -> None:
        """Take some time, or until let go; a cancel is noticed meanwhile."""
        began = time.monotonic()
        while (past := time.monotonic() - began) < seconds and not let_go.is_set():
            self.progress(0.9 * past / seconds)
            self.cancelled.wait(min(0.05, seconds - past))
        self.progress(0.9)


class Api:
    """The server behind all its addresses."""

    def __init__(self, users: dict[str, str], storage: Storage) -> None:
        self.users = users
        self.storage = storage
        self.db = Database()
        self.faults = faults.Faults()
        self.hosts: list[Row] = []
        self.called: list[str] = []
        self.running: dict[str, Call] = {}  # by reference of the task
        self.old = False  # whether there is no JSON-RPC
        self.patience = 10.0  # seconds that a call waits for another one of the same SR

    # -- one call -------------------------------------------------------------------------------------------------

    def answer(self, host: int, method: str, params: list[Any], of: str) -> Any:
        """What ``method`` gives, for the wire ``of``; Failure where it fails."""
        self.called.append(method)
        words = method.split(".")
        asynchronous = words[0] == "Async"
        if asynchronous:
            words = words[1:]
        if len(words) != 2 or words[0] not in {*CLASSES, "event"}:
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        name = ".".join(words)
        message = MESSAGES.get(name)
        if asynchronous and (message is None or words[0] in NO_ASYNC):
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        run = Call(self, host, name, of=of)
        if name in ("session.login_with_password", "session.slave_local_login_with_password"):
            assert message is not None
            self.count(message, params)
            self.faults.before(run)
            return message.run(run, *params)
        if self.hosts[host].ref != next(iter(self.db.rows("pool")))["master"]:
            raise Failure("HOST_IS_SLAVE", self.master()["address"])
        run.session = self.session(params[0] if params else "")
        if message is None:
            self.faults.before(run)
            return self.plain(run, words[0], words[1], params[1:], of)
        arguments = self.arguments(message, params[1:])
        if asynchronous:
            return self.start(run, message, arguments).ref
        self.faults.before(run)
        return message.run(run, *arguments)

    def master(self) -> Row:
        return self.db.get("host", next(iter(self.db.rows("pool")))["master"])

    def session(self, ref: Any) -> Row:
        with self.db.lock:
            try:
                row = self.db.get("session", ref)
            except Failure:
                raise Failure("SESSION_INVALID", str(ref)) from None
            row.fields["last_active"] = now()
            row.changed()
            return row

    def count(self, message: Message, params: list[Any]) -> None:
        most = len(message.parameters)
        if not most - message.optional <= len(params) <= most:
            raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", message.name, str(most), str(len(params)))

    def arguments(self, message: Message, params: list[Any]) -> list[Any]:
        self.count(message, params)
        return [self.argument(type, value) for type, value in zip(message.parameters, params, strict=False)]

    def argument(self, type: str, value: Any) -> Any:
        if type.endswith(" ref?") and value in (NULL, ""):
            return None
        if type.endswith((" ref", " ref?")):
            return self.db.get(type.split()[0], value)
        if type.endswith(" record"):
            return value
        return given(value, type, "value" if "->" not in type else "map")

    # -- fields ---------------------------------------------------------------------------------------------------

    def plain(self, run: Call, cls: str, verb: str, params: list[Any], of: str) -> Any:
        """What every class has: look-ups, records, fields."""

        def exactly(wanted: int) -> None:
            if len(params) != wanted:
                raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", run.name, str(wanted), str(len(params)))

        db = self.db
        fields = CLASSES.get(cls, {})
        with db.lock:
            if verb in ("get_all", "get_all_records") and cls not in NO_LISTING:
                exactly(0)
                if verb == "get_all":
                    return list(db.tables[cls])
                return {ref: row.text(of) for ref, row in db.tables[cls].items()}
            if verb == "get_by_uuid":
                exactly(1)
                return db.by_uuid(cls, params[0]).ref
            if verb == "get_by_name_label" and "name_label" in fields:
                exactly(1)
                return [row.ref for row in db.rows(cls) if row["name_label"] == params[0]]
            if verb == "get_record":
                exactly(1)
                return db.get(cls, params[0]).text(of)
            prefix, _, name = verb.partition("_")
            if prefix == "get" and name in fields:
                exactly(1)
                return db.get(cls, params[0])[name]
            return self.change(run, cls, verb, params, exactly)

    def change(self, run: Call, cls: str, verb: str, params: list[Any], exactly: Callable[[int], None]) -> Any:
        fields = CLASSES.get(cls, {})
        for prefix in ("set_", "add_to_", "add_", "remove_from_", "remove_"):
            field = fields.get(verb.removeprefix(prefix)) if verb.startswith(prefix) else None
            kind = {"add_to_": " map", "remove_from_": " map", "add_": " set", "remove_": " set"}.get(prefix, "")
            if field is None or field.qualifier != "rw" or not field.type.endswith(kind):
                continue
            exactly(3 if prefix == "add_to_" else 2)
            row = self.db.get(cls, params[0])
            value = row[field.name]
            if prefix == "set_":
                value = given(params[1], field.type, field.name)
                if field.refers and not field.type.endswith("set") and value != NULL:
                    self.db.get(field.refers, value)
            elif prefix == "add_to_":
                key, text = given(params[1], "string", field.name), given(params[2], "string", field.name)
                if key in value:
                    raise Failure("MAP_DUPLICATE_KEY", cls, field.name, row.ref, key)
                value = {**value, key: text}
            elif prefix == "remove_from_":
                value = {k: v for k, v in value.items() if k != params[1]}
            elif prefix == "add_":
                value = value if params[1] in value else [*value, given(params[1], "string", field.name)]
            else:
                value = [each for each in value if each != params[1]]
            self.db.set(row, **{field.name: value})
            return None
        raise Failure("MESSAGE_METHOD_UNKNOWN", f"{cls}.{verb}")

    # -- tasks ----------------------------------------------------------------------------------------------------

    def start(self, run: Call, message: Message, arguments: list[Any]) -> Row:
        """Run a call on its own; the task that tells of it."""
        run.task = self.task(run, f"Async.{message.name}")
        self.running[run.task.ref] = run  # before anybody knows of it, who could cancel it
        threading.Thread(target=self._finish, args=(run, message, arguments), daemon=True).start()
        return run.task

    def _finish(self, run: Call, message: Message, arguments: list[Any]) -> None:
        with self.telling(run):
            self.faults.before(run)
            value = message.run(run, *arguments)
            assert run.task is not None
            self.db.set(run.task, result="" if value is None else xml(value))

    def task(self, run: Call, label: str, description: str = "") -> Row:
        operations = ["cancel", "destroy"]
        row = self.db.make(
            "task",
            name_label=label,
            name_description=description,
            created=now(),
            type="<none/>",
            resident_on=self.hosts[run.host].ref,
            allowed_operations=operations,
        )
        if run.session is not None:
            with self.db.lock:
                self.db.set(run.session, tasks=[*run.session["tasks"], row.ref])
        return row

    @contextmanager
    def telling(self, run: Call) -> Iterator[None]:
        """Say in the task of ``run`` how it went."""
        task = run.task
        assert task is not None
        self.running[task.ref] = run
        try:
            yield
        except Failure as failure:
            status = "cancelled" if failure.description[0] == "TASK_CANCELLED" else "failure"
            self._ended(task, status, failure.description)
        except Exception as error:
            traceback.print_exc()
            self._ended(task, "failure", ["INTERNAL_ERROR", repr(error)])
        else:
            self._ended(task, "success", [])
        finally:
            self.running.pop(task.ref, None)

    def _ended(self, task: Row, status: str, error: list[str]) -> None:
        self.db.set(
            task,
            status=status,
            error_info=error,
            finished=now(),
            progress=Real(1),
            current_operations={},
            allowed_operations=["destroy"],
        )


def record_text(row: Row, of: str) -> Text:
    """A record inside another answer."""
    return row.text(of)
