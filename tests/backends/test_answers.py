"""What programs and libraries answer may be anything, such as that of another version: values, or an error, and no traceback."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poolkit import errors
from poolkit.families import lvm, partitiontable
from poolkit.families.ceph.interface import Facts
from poolkit.families.ceph.listing import Lister
from poolkit.host import Host
from poolkit.testing import ScriptedHost

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0", "-1", "512", "gpt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.text("0123456789.-,:[]/x", max_size=12)
GROUP = dict.fromkeys(lvm._GROUP_FIELDS, "1")
VOLUME = dict.fromkeys(lvm._FIELDS, "1")
TABLE = {
    "label": "gpt", "sectorsize": 512, "firstlba": 34, "lastlba": 4000, "id": "x",
    "partitions": [{"node": "/dev/sda1", "start": 40, "size": 8, "type": "x", "uuid": "y"}],
}  # fmt: skip


def report(rows: Any) -> str:
    return json.dumps({"report": [{"rows": rows}]}, indent=1)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(GROUP)), WORDS | ANYTHING).map(lambda odd: {**GROUP, **odd}) | ANYTHING
    )
)
@example([{**GROUP, "vg_size": "much"}])
@example([{key: value for key, value in GROUP.items() if key != "vg_size"}])
def test_groups(rows: Any) -> None:
    with contextlib.suppress(errors.HostError):
        for group in lvm.groups(ScriptedHost({"vgs": report(rows)})):
            assert 0 <= group.size < 1 << 63


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(VOLUME)), WORDS | ANYTHING).map(lambda odd: {**VOLUME, **odd}) | ANYTHING
    )
)
@example([{**VOLUME, "data_percent": "nan"}])
def test_logical_volumes(rows: Any) -> None:
    with contextlib.suppress(errors.HostError):
        for volume in lvm.listing(ScriptedHost({"lvs": report(rows)}), "vg").volumes.values():
            assert 0 <= volume.capacity < 1 << 63 and volume.percent >= 0


@given(ANYTHING.map(json.dumps) | st.text())
@example("[" * 100_000)
@example('{"report": [5]}')
def test_no_report_at_all(text: str) -> None:
    with contextlib.suppress(errors.HostError):
        lvm.members(ScriptedHost({"pvs": text}))


@given(
    st.dictionaries(st.sampled_from(sorted(TABLE)), ANYTHING),
    st.dictionaries(st.sampled_from(["node", "start", "size", "type", "uuid"]), ANYTHING),
    st.booleans(),
)
@example({"sectorsize": 0}, {}, False)
@example({"lastlba": "9" * 30}, {}, False)
@example({"table-length": {}}, {}, False)
@example({}, {"node": 5}, False)
def test_partition_tables_in_json(odd: Any, part: Any, both: bool) -> None:
    inner = {**TABLE, "partitions": [{**TABLE["partitions"][0], **part}], **odd}  # type: ignore[dict-item]
    text = json.dumps({"partitiontable": {**inner, "label": "dos"} if both else inner})
    with contextlib.suppress(errors.HostError, FileNotFoundError):  # of a good table the disk is read
        partitiontable.fetch(ScriptedHost({"sfdisk": text}), "/dev/sda", "dos" if both else "gpt", 1 << 30, 512)


@given(ANYTHING.map(lambda inner: json.dumps({"partitiontable": inner})) | ANYTHING.map(json.dumps))
@example("[" * 100_000)
@example('{"partitiontable": []}')
def test_no_partition_table_at_all(text: str) -> None:
    with contextlib.suppress(errors.HostError):
        partitiontable.fetch(ScriptedHost({"sfdisk": text}), "/dev/sda", "dos", 1 << 30, 512)


LINE = st.lists(WORDS | st.sampled_from(["free", "0s", "512", "8s"]), max_size=8).map(":".join)


@given(st.lists(LINE, max_size=5), st.sampled_from(["mac", "sun", "dvh", "bsd"]))
@example(["/dev/sda:8s:scsi:0:512", "1:0s:8s:8s:free"], "sun")
@example(["/dev/sda:8s:scsi:512:512", "CYL", "x", "1:0:0:1"], "sun")
def test_partition_tables_in_lines(lines: list[str], label: str) -> None:
    with contextlib.suppress(errors.HostError):
        partitiontable.fetch(ScriptedHost({"parted": "\n".join(["BYT", *lines])}), "/dev/sda", label, 1 << 30, 512)


class Image:
    """An image whose header says what it likes."""

    def __init__(self, size: int, objects: int, order: int) -> None:
        self.said = Facts(id="1", size=size, objects=objects, order=order, features=0, flags=0, parent=None)

    def facts(self) -> Facts:
        return self.said

    def snapshots(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("size", "objects", "order"), [(1 << 63, 1, 22), ((1 << 64) - 1, 1, 22), (1, (1 << 64) - 1, 255)]
)
def test_an_rbd_image_larger_than_anything_is_listed_as_unread(size: int, objects: int, order: int) -> None:
    lister = Lister(Host(), None, ("pool", ""), counted=True)  # type: ignore[arg-type]
    found = lister._facts("disk", Image(size, objects, order), 0)  # type: ignore[arg-type]
    assert found.capacity == found.allocation == 0 and found.detail and found.detail["unread"]
