"""The verb that makes volumes of images from outside."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from poolkit import errors
from poolkit.cli.arguments import Values
from poolkit.cli.lookup import facts, permissions, preallocation, volume_format

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def import_volume(session: Session, values: Values) -> None:
    """``vol-import POOL NAME FILE``."""
    place = session.engine.pool(values.pool) if values.flavor is None else session.engine.flavors.get(values.flavor)
    origin = values.file
    if origin == "-":
        if sys.stdin is None:  # started with a closed descriptor
            raise errors.InvalidArgument("standard input is closed", hint="name a file instead of -")
        if os.isatty(sys.stdin.fileno()):
            raise errors.InvalidArgument(
                "standard input is a terminal, and not an image", hint="give it a file: poolkit vol-import ... - < FILE"
            )
        origin = sys.stdin.buffer
    volume = place.import_volume(
        values.name, origin, format=volume_format(values.format), source_format=values.source_format,
        capacity=values.capacity, allocation=values.allocation, checksum=values.checksum,
        permissions=permissions(values), secret=values.secret, **preallocation(values),
    )  # fmt: skip
    if values.flavor is not None:
        session.note(f"volume '{volume.name}' is in pool '{volume.pool.name}'")
    session.done(volume.outcome, volume.pool.name, volume=facts(volume))
