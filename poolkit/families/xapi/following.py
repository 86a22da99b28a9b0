"""What changes in a repository, as the hosts tell it: events instead of looking again and again."""

from __future__ import annotations

from typing import Any

from poolkit.families.xapi.client import LOST, Api
from poolkit.families.xapi.failures import Failed

_WAIT = 30.0  # seconds that a host is asked to wait: less than the silence after which it is given up


def wait(api: Api, sr: str, since: str) -> str:
    """Wait until a disk of the SR has been made, changed or deleted after ``since``; what to go on from the next time.

    Without ``since``, and after events were lost, there is nothing to wait for: everything has to be looked at.
    """
    if not since:
        return token(api)
    while True:
        try:
            news = api.batch(["vdi"], since, _WAIT)
        except Failed as failed:
            if failed.code not in LOST:
                raise
            return token(api)
        since = str(news["token"])
        if any(_of(event, sr) for event in news["events"]):
            return since


def token(api: Api) -> str:
    """Where the hosts are now. It comes with what there is of a class, and of the class pool there is one."""
    return str(api.events(["pool"], "", 0.0)["token"])


def _of(event: Any, sr: str) -> bool:
    """Whether an event may be about a disk of the SR; of one that is gone nobody knows whose it was."""
    snapshot = event.get("snapshot")
    return not isinstance(snapshot, dict) or snapshot.get("SR") in (sr, None)
