"""Faults on demand. A rule says which call it is for and what happens to it.

Rules come over the control socket: ``{"method": "VDI.create", "what": "fail", "failure": [CODE, ...], "times": 1, "skip": 0}``.
``method`` may hold wildcards. What can happen:

* ``fail``: the call fails with ``failure``
* ``slow``: it takes ``seconds`` longer, or until the rules are cleared; a task shows progress, and can be cancelled meanwhile
* ``http``: the HTTP answer is 500
* ``hang``: no answer comes until the rules are cleared
* ``cut``: the connection ends in the middle of the answer
* ``vanish``: the call is done, and the connection ends without an answer
"""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .marshal import Failure

if TYPE_CHECKING:
    from .api import Call

AT_CALL = ("fail", "slow")
AT_WIRE = ("http", "hang", "cut", "vanish")


@dataclass
class Rule:
    """What happens to which calls, how often, after how many."""

    method: str
    what: str
    times: int = -1
    skip: int = 0
    seconds: float = 0
    failure: list[str] = field(default_factory=list)


class Faults:
    """The rules that hold now."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._released = threading.Event()

    def add(self, rule: dict[str, Any]) -> None:
        """One more rule."""
        new = Rule(**rule)
        if new.what not in AT_CALL + AT_WIRE:
            raise ValueError(f"no such fault: {new.what}")
        with self._lock:
            self._rules.append(new)

    def clear(self) -> None:
        """No rule any more; what hangs is let go."""
        with self._lock:
            self._rules.clear()
            self._released.set()
            self._released = threading.Event()

    def of(self, method: str, kinds: tuple[str, ...]) -> Rule | None:
        """The first rule for a call, which counts it."""
        with self._lock:
            for rule in self._rules:
                if rule.what in kinds and rule.times and fnmatch.fnmatchcase(method, rule.method):
                    if rule.skip:
                        rule.skip -= 1
                        continue
                    rule.times -= 1
                    return rule
        return None

    def wait(self) -> None:
        """Hang until the rules are cleared."""
        with self._lock:
            released = self._released
        released.wait()

    def before(self, call: Call) -> None:
        """What happens to a call before it does its work."""
        rule = self.of(call.name, AT_CALL)
        if rule is None:
            return
        if rule.what == "slow":
            call.linger(rule.seconds, self._released)
        else:
            raise Failure(*rule.failure)
