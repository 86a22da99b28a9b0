"""How slow this machine is just now, beside a guest on a quiet machine; deadlines in the guest grow by that.

A guest without KVM is ten times slower than its host, and shares that host with whatever else it does. So a deadline that a
test can wait for is said for a quiet machine, and a fixed piece of work is timed to know what to make of it.
"""

from __future__ import annotations

import subprocess
import time

QUIET = 0.35  # seconds that the work takes in a guest without KVM on a quiet machine
FRESH = 20.0  # seconds for which a measurement is believed
LONGEST = 6.0  # what hangs should not hang for ever

_last = (float("-inf"), 1.0)


def work() -> None:
    """What tests in the guest mostly do: start programs, and run Python."""
    for _ in range(4):
        subprocess.run(["/bin/true"], check=True)
    sum(number % 7 for number in range(100_000))


def slowness() -> float:
    """By how much deadlines should be longer: 1 on a quiet machine, at most ``LONGEST``."""
    global _last
    now = time.monotonic()
    if now - _last[0] > FRESH:
        work()
        took = time.monotonic() - now
        _last = (time.monotonic(), min(LONGEST, max(1.0, took / QUIET)))
    return _last[1]


def scaled(seconds: float) -> float:
    """A deadline for this machine as it is now."""
    return seconds * slowness()
