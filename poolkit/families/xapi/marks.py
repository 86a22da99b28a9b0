"""What disks say of themselves in their other-config: that they are not finished, and which flavor placed them.

A disk that was placed has the flavor, its own label and a word for the attempt from the moment it is there, and its own uuid
when it is certain that it stays. XAPI gives the marks of a disk to each copy and snapshot: those have another label, or
another's uuid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from poolkit.backend import Mark, Placed
from poolkit.families.xapi import naming
from poolkit.families.xapi.client import Api
from poolkit.families.xapi.failures import gone
from poolkit.families.xapi.records import Record

NEW = "poolkit-new-"
"""Begin of the key of a disk that is being made, and of the disk that it is branched off; the value is the uuid of the latter."""
TYPES = ("user", "system", "ephemeral")
"""Types of disks that are volumes; the others are XAPI's own (statefiles, metadata, memory images)."""

SHOWN = ("managed", "type", "other_config", "uuid")
"""Fields that ``shown`` looks at."""
_NEEDED = ("SR", *SHOWN, "name_label", "is_a_snapshot")
SHOWN = ("managed", "type", "other_config", "uuid")
"""Fields that ``shown`` looks at."""
_NEEDED = ("SR", *SHOWN, "name_label", "is_a_snapshot")

FLAVOR, LABEL, ATTEMPT, SETTLED = "poolkit-flavor", "poolkit-volume", "poolkit-attempt", "poolkit-placed"


def shown(record: Mapping[str, Any]) -> bool:
    """Whether a disk is a volume: not a part of others, not XAPI's own, and finished."""
    if not record["managed"] or record["type"] not in TYPES:
        return False
    config = record["other_config"]
    return not config or not any(key.startswith(NEW) and uuid != record["uuid"] for key, uuid in config.items())


def given(mark: Mark | None, label: str) -> dict[str, str]:
    """What a new disk has in its other-config."""
    return {} if mark is None else {FLAVOR: mark.flavor, LABEL: label, ATTEMPT: mark.attempt}


def inherited(api: Api, ref: str, mark: Mark | None, label: str) -> None:
    """The marks of a disk that shares another's data: its own, and not those of the other."""
    for key in (FLAVOR, LABEL, ATTEMPT, SETTLED):
        api.call("VDI.remove_from_other_config", ref, key)
    for key, value in given(mark, label).items():
        api.call("VDI.add_to_other_config", ref, key, value)


def settle(api: Api, ref: str, record: Record) -> None:
    """The disk stays."""
    if SETTLED not in record["other_config"]:
        api.call("VDI.add_to_other_config", ref, SETTLED, record["uuid"])


def placed(api: Api, sr: str, flavor: str, label: str | None) -> list[Placed]:
    """The disks of a flavor, or those of one label, in all repositories of the hosts; those of ``sr`` are here."""
    records = list(labelled(api, label) if label is not None else api.usable("VDI", *_NEEDED).values())
    own = [one for one in records if one["SR"] == sr and shown(one)]
    names = {one["uuid"]: name for name, one in zip(naming.names(own), own, strict=True)}
    found = []
    for one in records:
        marks, uuid = one["other_config"], one["uuid"]
        if _is(one, flavor):
            word = marks.get(ATTEMPT, "")
            found.append(Placed(names.get(uuid, ""), uuid, Mark(flavor, word), uuid in names, SETTLED in marks))
    return found


def _is(record: Mapping[str, Any], flavor: str) -> bool:
    marks = record["other_config"]
    if record["is_a_snapshot"] or marks.get(FLAVOR) != flavor or marks.get(LABEL) != record["name_label"]:
        return False
    return bool(record["managed"]) and marks.get(SETTLED, record["uuid"]) == record["uuid"]


def labelled(api: Api, label: str) -> Iterator[Record]:
    """The disks of a label in all repositories."""
    for ref in api.refs("VDI.get_by_name_label", label):
        with gone():
            yield api.record("VDI", ref)
