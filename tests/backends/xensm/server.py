"""What tests ask a XenAPI server themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from poolkit.families.xapi.client import Api, Login, Place
from poolkit.families.xapi.line import Address, Trust
from poolkit.host import Host


@contextlib.contextmanager
def calls(xapi: Any) -> Iterator[Api]:
    """A session of the test's own."""
    tls = xapi.url.startswith("https")
    trust = Trust(str(xapi.certificate) if xapi.certificate else None) if tls else None
    with Api(
        Host(), Place((Address(xapi.hosts[0], xapi.port),), trust), Login(xapi.user, xapi.password), "test"
    ) as api:
        yield api
