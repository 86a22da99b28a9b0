"""A session at the master of a pool of hosts: calls, tasks and what has to be tried again.

One session belongs to one thread. The master is found: a host that is none names it, and is left for that one.
"""

from __future__ import annotations

import contextlib
import html
import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from poolkit import errors
from poolkit.families.xapi import failures, records, wire
from poolkit.families.xapi import line as lines
from poolkit.families.xapi.failures import AGAIN, Failed
from poolkit.families.xapi.line import Address, Line, Trust
from poolkit.families.xapi.records import Record
from poolkit.families.xapi.wire import Speech
from poolkit.host.port import Host

T = TypeVar("T")

NULL = "OpaqueRef:NULL"
PORTS = {"https": 443, "http": 80}
LOST = ("EVENTS_LOST", "EVENT_FROM_TOKEN_PARSE_FAILURE")
"""Failures after which events begin anew: the hosts do not know any more what has happened since."""
PATIENCE = 30.0
"""Seconds that a call is tried again for which other work of the hosts is in the way."""
FAREWELL = lines.FAREWELL
"""Seconds that a task has to end which was cancelled."""
_LARGEST = 1 << 30  # bytes of an answer: a million records of disks
_IDLE = 10.0  # seconds after which a connection may have been closed by the other side
NEWS = 5.0
"""Seconds that a host is asked to wait for news of a task."""
_HOPS = 3  # hosts that may name another one as the master


class Place(NamedTuple):
    """Where a pool of hosts is asked: addresses, and what is trusted (None: no TLS)."""

    addresses: tuple[Address, ...]
    trust: Trust | None
    follow: bool = True
    """Whether another address may be gone to for the master."""


class Login(NamedTuple):
    """Who asks."""

    user: str
    password: str


class _Nonsense(errors.Unreachable):
    """A host answered, and not as XAPI does."""

    @property
    def code(self) -> str:
        """As its base: what it is called is nobody's affair."""
        return "unreachable"


class Api:
    """A session; use as a context manager. Raises ``Failed`` for what the hosts refuse, and errors of poolkit for the rest."""

    def __init__(self, host: Host, place: Place, login: Login, pool: str) -> None:
        self.host = host
        self.pool = pool
        self.place = place
        self._login = login
        self._address = place.addresses[0]
        self._http: http.client.HTTPConnection | None = None
        self._used = 0.0
        self._number = 0
        self._deaf = False
        self._speech: Speech = "json"
        self.session = ""

    def __enter__(self) -> Api:
        try:
            self._open()
        except BaseException:
            self.hang_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._http is not None or kind is None or issubclass(kind, errors.Aborted):
                with self.deaf(), contextlib.suppress(Failed, errors.PoolkitError, OSError):
                    self._exchange("session.logout", [self.session])
        finally:
            self.hang_up()

    @property
    def where(self) -> str:
        """The host that is asked, for messages."""
        return str(self._address)

    @property
    def port(self) -> int:
        """The port of the host that is asked; 0 for a socket."""
        return self._address.port

    # -- the session ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Log in at the first host that answers, or at the master that it names."""
        failed: list[errors.Unreachable] = []
        for address in self.place.addresses:
            try:
                self._enter(address)
                return
            except errors.Unreachable as error:
                failed.append(error)
        if len(failed) == 1:
            raise failed[0]
        said = "; ".join(str(error).removeprefix(f"pool '{self.pool}': ") for error in failed)
        raise errors.Unreachable(f"pool '{self.pool}': none of its hosts answers: {said}", pool=self.pool)

    def _enter(self, address: Address) -> None:
        for _ in range(_HOPS):
            self.hang_up()
            self._address = address
            words = [self._login.user, self._login.password, "1.0", "poolkit"]
            try:
                self.session = self._worded(self._introduced("session.login_with_password", words), "a login")
                self.host.hide(self.session)
                return
            except Failed as failed:
                if failed.code != "HOST_IS_SLAVE" or not failed.params:
                    raise failures.meaning(failed, self.pool, doing=f"log in at {self.where}") from failed
                if not self.place.follow:
                    raise failures.meaning(failed, self.pool, doing=f"work at {self.where}") from failed
                address = Address(failed.params[0], address.port)
        raise errors.Unreachable(
            f"pool '{self.pool}': {self.where} is not the master, and no host says who is", pool=self.pool
        )

    def _introduced(self, method: str, words: list[Any]) -> Any:
        """The first call to a host. One that has no JSON-RPC is spoken to in XML-RPC, as its kind was before."""
        self._speech = "json"
        try:
            return self._exchange(method, words)
        except _Nonsense as error:
            self._speech = "xml"
            try:
                return self._exchange(method, words)
            except _Nonsense:
                raise error from None

    def hang_up(self) -> None:
        """Close the connection; the next call makes another one."""
        if self._http is not None:
            self._http.close()
            self._http = None

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Work on although an abort was asked for, to end orderly what it interrupts."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    # -- calls ------------------------------------------------------------------------------------------------------

    def call(self, method: str, *params: Any) -> Any:
        """What ``method`` gives; the session goes before ``params``. ``Failed`` for what is refused.

        What other work is in the way of is tried again for ``PATIENCE``; a session that has ended is begun anew, once. A call
        that only reads is made again when the connection breaks; any other may have been done and is not.
        """
        anew = True

        def once() -> Any:
            nonlocal anew
            try:
                return self._read_or_done(method, [self.session, *params])
            except Failed as failed:
                if failed.code not in ("SESSION_INVALID", "HOST_IS_SLAVE") or not anew:
                    raise
            anew = False
            self._open()
            return self._read_or_done(method, [self.session, *params])

        return self.again(once)

    def again(self, work: Callable[[], T]) -> T:
        """What ``work`` gives; it is done again for ``PATIENCE`` while a ``Failed`` says that other work is in its way."""
        until, pause = time.monotonic() + PATIENCE, 0.1
        while True:
            try:
                return work()
            except Failed as failed:
                if failed.code not in AGAIN or time.monotonic() > until:
                    raise
            self.host.abort.wait(pause)
            self.host.check_abort()
            pause = min(2 * pause, 2.0)

    def ref(self, method: str, *params: Any) -> str:
        """The one text that a call gives, such as a reference or a uuid; ``Unreachable`` for what is none."""
        return self._worded(self.call(method, *params), method)

    def _worded(self, value: Any, method: str) -> str:
        if not isinstance(value, str):
            raise self._nonsense(method, "answers what is no text")
        return value

    def refs(self, method: str, *params: Any) -> list[str]:
        """The texts that a call gives; ``Unreachable`` for what are none."""
        found = self.call(method, *params)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self._nonsense(method, "answers what is no list of references")
        return found

    def mapping(self, method: str, *params: Any) -> Mapping[str, Any]:
        """The values by name that a call gives; ``Unreachable`` for what are none."""
        found = self.call(method, *params)
        if not isinstance(found, dict):
            raise self._nonsense(method, "answers what is no mapping")
        return found

    def record(self, cls: str, ref: str) -> Record:
        """The record of an object: see ``records.checked``."""
        return records.checked(cls, self.mapping(f"{cls}.get_record", ref), ref, self.pool, self.where)

    def records(self, cls: str) -> Mapping[str, Record]:
        """The records of all objects of a class, by reference. One that cannot be used harms no other: see ``checked``."""
        return records.all_checked(cls, self.mapping(f"{cls}.get_all_records"), self.pool, self.where)

    def usable(self, cls: str, *fields: str) -> dict[str, Record]:
        """As ``records``, without those of which one of ``fields`` cannot be used; a warning tells of these."""
        return dict(records.usable(self.records(cls).items(), fields, self.host.warn))

    def _read_or_done(self, method: str, params: list[Any]) -> Any:
        reads = method.partition(".")[2].startswith(("get_", "from"))
        if self._http is not None and time.monotonic() - self._used > _IDLE:
            self.hang_up()
        try:
            return self._exchange(method, params)
        except errors.Unreachable:
            if not reads:
                raise
        return self._exchange(method, params)

    def _exchange(self, method: str, params: list[Any]) -> Any:
        """One request and its answer."""
        self._number += 1
        try:
            path, kind, body = wire.request(self._speech, self._number, method, params)
        except ValueError as error:
            raise errors.InvalidArgument(
                f"pool '{self.pool}': the hosts cannot be told what is no text ({method})", pool=self.pool
            ) from error
        with self._broken(method):
            connection = self.connection()
            connection.request("POST", path, body, {"Content-Type": kind, "User-Agent": "poolkit"})
            response = connection.getresponse()
            data = response.read(_LARGEST)
            status = response.status
            if response.will_close or response.read(1):
                self.hang_up()
        self._used = time.monotonic()
        if status != http.client.OK:
            raise self._nonsense(method, f"answers with the HTTP status {status}")
        try:
            answer = wire.answer(self._speech, self._number, data)
        except ValueError:
            raise self._nonsense(method, "answers what is no XenAPI") from None
        if answer.refused:
            raise self._refused(list(answer.refused), method)
        return answer.value

    def _nonsense(self, method: str, what: str) -> errors.Unreachable:
        self.hang_up()
        return _Nonsense(
            f"pool '{self.pool}': {self.where} {what} (to {method}); is XAPI there, and does it work?", pool=self.pool
        )

    @contextlib.contextmanager
    def _broken(self, method: str) -> Iterator[None]:
        """A connection that breaks in the body is ``Unreachable``; none is kept of which is not known what comes next."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self.hang_up()
            raise errors.Unreachable(
                f"pool '{self.pool}': {self.where} does not answer (to {method}): {lines.worded(error)}", pool=self.pool,
                hint=lines.distrusted(error),
            ) from error  # fmt: skip
        except BaseException:
            self.hang_up()
            raise

    def connection(self) -> http.client.HTTPConnection:
        """The connection, made if there is none."""
        if self._http is None:
            self._http = self.another(self._address)
        line: Any = self._http.sock
        line.deaf = self._deaf
        return self._http

    def another(self, address: Address | None = None) -> http.client.HTTPConnection:
        """A connection of one's own, to the host that is asked; ``OSError``."""
        address = address or self._address
        line: Any = Line(self.host, address, self.place.trust, deaf=self._deaf)
        made = http.client.HTTPConnection(address.name if address.port else "localhost", address.port or None)
        made.auto_open = 0
        made.sock = line
        return made

    # -- tasks ------------------------------------------------------------------------------------------------------

    def run(self, method: str, *params: Any, what: str = "") -> str:
        """Run what may take long as a task, and wait for it: a reference that it gives, or an empty text.

        ``what`` is told as progress. An abort cancels the task, and waits until it has ended. ``Failed`` as from ``call``.
        """

        def once() -> str:
            task = self.ref(f"Async.{method}", *params)
            try:
                return self.wait(task, what or method)
            except Failed as failed:
                failed.what = method
                raise

        return self.again(once)

    def wait(self, task: str, what: str, limit: float | None = None) -> str:
        """The result of a task, which is destroyed; after ``limit`` seconds ``Unreachable``. Cancelled if this is interrupted."""
        try:
            record = self._ended(task, what, limit)
        except BaseException:
            with self.deaf(), contextlib.suppress(Failed, errors.PoolkitError, OSError):
                self._cancel(task)
            raise
        self.forget_task(task)
        if record["status"] == "success":
            return _text(record["result"])
        if record["status"] == "cancelled":
            raise Failed("TASK_CANCELLED", [what], what)
        raise self._refused(record["error_info"] or ["INTERNAL_ERROR"], what)

    def _refused(self, told: list[Any], what: str) -> Failed:
        """A refusal, without the secrets that a driver may repeat in it."""
        code, *params = (self.host.redact(str(each)) for each in told)
        return Failed(code, params, what)

    def settle(self, *methods: str) -> None:
        """Wait for all tasks of these calls that are under way: one of them may be of a call whose answer was lost.

        ``Unreachable`` where one does not end in ``FAREWELL`` seconds.
        """
        labels = [f"Async.{method}" for method in methods]
        for ref, task in self.usable("task", "name_label", "status").items():
            if task["name_label"] in labels and task["status"] in ("pending", "cancelling"):
                with contextlib.suppress(Failed):  # somebody removed it
                    self._ended(ref, task["name_label"], FAREWELL)

    def forget_task(self, task: str) -> None:
        """Remove a task that has ended; what cannot be removed goes by itself."""
        with contextlib.suppress(Failed, errors.Unreachable):
            self.call("task.destroy", task)

    def _ended(self, task: str, what: str, limit: float | None = None) -> Record:
        """The record of a task when it has ended; events are waited for, and where none comes it is asked for itself."""
        until = None if limit is None else time.monotonic() + limit
        token, shown = "", -1.0
        while True:
            news = self.events([f"task/{task}"], token)
            token = str(news["token"])
            said = [each["snapshot"] for each in news["events"] if "snapshot" in each]
            record = records.checked("task", said[-1], task, self.pool, self.where) if said else None
            if not news["events"]:  # the one that told of its end may be lost
                record = self.record("task", task)
            if any(each.get("operation") == "del" for each in news["events"]):
                raise Failed("HANDLE_INVALID", ["task", task], what)
            if record is not None:
                if record["status"] not in ("pending", "cancelling"):
                    return record
                done = min(max(record["progress"], 0.0), 1.0)
                if not self._deaf and done != shown:
                    shown = done
                    self.host.progress(int(shown * 100), 100, what)
            if until is not None and time.monotonic() > until:
                raise errors.Unreachable(
                    f"pool '{self.pool}': {self.where} does not end a task ({what})", pool=self.pool
                )

    def events(self, classes: list[str], token: str = "", seconds: float | None = None) -> Mapping[str, Any]:
        """``event.from``: what has changed since ``token``, all of it without one. Lost events begin anew."""
        seconds = NEWS if seconds is None else seconds
        try:
            return self.batch(classes, token, seconds)
        except Failed as failed:
            if failed.code not in LOST or not token:
                raise
            return self.batch(classes, "", seconds)

    def batch(self, classes: list[str], token: str, seconds: float) -> Mapping[str, Any]:
        """``event.from`` itself: a token, and events of which each is a mapping."""
        news = self.mapping("event.from", classes, token, seconds)
        events = news.get("events")
        if not isinstance(events, list) or not all(isinstance(one, dict) for one in events) or "token" not in news:
            raise self._nonsense("event.from", "answers what is no batch of events")
        return news

    def _cancel(self, task: str) -> None:
        with contextlib.suppress(Failed):
            self.call("task.cancel", task)
        self._ended(task, "cancel", FAREWELL)
        self.forget_task(task)


def _text(result: str) -> str:
    """The text of a task's result, which is written as in XML-RPC whatever is spoken."""
    return html.unescape(re.sub("<[^>]*>", "", result)).strip()
