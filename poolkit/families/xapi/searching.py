"""The repositories that hosts know, for whoever has no definition yet."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from poolkit import errors
from poolkit.families.xapi import login
from poolkit.families.xapi.client import Api
from poolkit.host.port import Host


class Found(NamedTuple):
    """A repository; ``name`` is one for a pool, made of its ``label``."""

    uuid: str
    label: str
    type: str
    shared: bool
    name: str


def repositories(api: Api) -> Iterator[Found]:
    """All, by label; what a record does not tell leaves it out, with a warning."""
    records = api.usable("SR", "uuid", "name_label", "type", "shared").values()
    for one in sorted(records, key=lambda record: (record["name_label"], record["uuid"])):
        label = one["name_label"]
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", label)[:200].strip("-.") or one["uuid"]
        yield Found(one["uuid"], label, one["type"], one["shared"], name)


@contextlib.contextmanager
def session(pool: Any, host: Host) -> Iterator[Api]:
    """A session at the hosts of a definition that has no name yet: errors name none."""
    try:
        if pool.source.auth is None and pool.source.socket is None:
            raise login.required(pool)
        with login.session(pool, host, doing="list the repositories") as api:
            yield api
    except errors.PoolkitError as error:
        error.message = error.message.removeprefix("pool '': ")
        error.args = (error.message,)
        error.pool = None
        raise
