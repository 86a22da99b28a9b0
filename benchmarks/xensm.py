"""Listing a repository of ten thousand disks, beside the one bare call that brings their records."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

from benchmarks.harness import Bench, Row, Skip
from poolkit import registry
from poolkit.engine import Engine
from tests.backends.xensm import prepare, started
from tests.backends.xensm.server import calls
from tests.xapi import Xapi


def run(bench: Bench) -> Iterator[Row]:
    """What the hosts know already, listed; and a refresh, which has the storage scanned and keeps what it finds."""
    if not shutil.which("qemu-img"):
        raise Skip("xensm: the XenAPI server of the tests needs qemu-img")
    try:
        import XenAPI
    except ImportError:
        raise Skip("xensm: the client of PyPI is not installed (XenAPI)") from None
    count = 1000 if bench.quick else 10_000
    what = f"xensm: {count} disks"
    with Xapi(tls=False) as xapi, Engine(bench.fresh("xensm")) as engine, calls(xapi) as api:
        prepare(engine, xapi)
        pool = started(engine, xapi)
        xapi.control("bulk", sr=api.call("SR.get_all")[0], count=count)
        pool.refresh()
        bare = best(bench, lambda: api.call("VDI.get_all_records"))
        backend = registry.executor(pool.definition(), engine.host.operation())
        with backend.disks("list the disks") as disks:
            known = {info.name: info for info in disks.volumes({})}
            listed = best(bench, lambda: list(disks.volumes(known)))
        yield Row(f"{what}, listed", listed, "s", "the bare VDI.get_all_records", bare, 1.5)
        session = XenAPI.Session(xapi.url)
        session.login_with_password(xapi.user, xapi.password)
        module = best(bench, session.xenapi.VDI.get_all_records)
        session("close")()
        yield Row(f"{what}, refreshed", best(bench, pool.refresh), "s", "that call by PyPI's XenAPI", module, 1.5)


def best(bench: Bench, work: Callable[[], object]) -> float:
    """The shortest time that ``work`` took."""
    times = []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
