"""Attaching and detaching by one command of LVM, on a scripted host; what comes of it is seen in the lab."""

from __future__ import annotations

from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import VolumeInfo
from tests.backends.sharedlvm import OURS, V, backend, changes, group, rows

NOTED = "U-G 7 system-id"


def test_what_has_to_be_so_is_part_of_the_command_that_attaches() -> None:
    one = backend()
    assert one.attach_listed(V, NOTED) is None, "the scripted LVM makes no device"
    where = f'vg_uuid="U-G" && lv_uuid="U-v" && vg_systemid="{OURS}" && lv_attr=~"^-"'
    assert [argv[3:] for argv in changes(one)] == [
        [
            "--addtag", "poolkit.attach.n1",
            "--select", f"{where} && lv_tags={{}} && vg_tags={{poolkit.control.n1}} && vg_missing_pv_count=0", "--", "vg",
        ],
        [
            "--activate", "y", "--ignoreactivationskip", "--yes",
            "--select", f"{where} && lv_tags={{poolkit.attach.n1}}", "--", "vg",
        ],
    ]  # fmt: skip
    assert [line for line in one.host.lines if line.startswith("?")] == []  # type: ignore[attr-defined]


def test_a_compute_node_attaches_at_once_what_it_was_given() -> None:
    one = backend("compute")
    one.attach_listed(V, NOTED)
    (argv,) = changes(one)
    assert argv[3] == "--activate" and "lv_tags={poolkit.attach.n1}" in argv[8] and "locking_type=4" in argv[2]
    locked = backend("compute")
    locked.attach_listed(V, "U-G 7 lvmlockd")
    (argv,) = changes(locked)
    assert argv[3:5] == ["--activate", "ey"] and 'vg_lock_type="sanlock"' in argv[8] and "lv_tags" not in argv[8]


def test_a_control_node_attaches_nothing_at_once_either() -> None:
    one = backend("control")
    for call in (lambda: one.attach_listed(V, NOTED), lambda: one.detach_listed(V, NOTED)):
        with pytest.raises(errors.RoleForbidden, match="is the control node"):
            call()
    assert one.host.lines == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("info", "noted", "how"),
    [
        (V, NOTED, {"shared": True}),
        (V, NOTED, {"node": "n2"}),
        (V._replace(key=None), NOTED, {}),
        (V._replace(detail={"backing": "/dev/vg/o"}), NOTED, {}),
        (V._replace(detail={"attached": ["n2"]}), NOTED, {}),
        (V._replace(detail={"warning": "it has the old size"}), NOTED, {}),
        (V, "U-G 7 none", {}),  # the definition says system-id
        (V, "U-G", {}),
    ],
)
def test_what_is_not_plain_is_attached_the_long_way(info: VolumeInfo, noted: str, how: dict[str, Any]) -> None:
    one = backend(lock="system-id")
    assert one.attach_listed(info, noted, **how) is None
    assert one.host.lines == []  # type: ignore[attr-defined]


def test_a_volume_that_is_not_active_is_not_detached_at_once() -> None:
    one = backend()
    assert one.detach_listed(V, NOTED) is None
    assert changes(one) == []


def test_a_record_is_not_taken_away_while_another_node_has_control() -> None:
    held = group(system=OURS, tags="poolkit.control.n2")
    one = backend(vgs=held, lvs=rows(lv_tags="poolkit.attach.n1"))
    one.detach(V)
    assert changes(one) == []
    assert "the control node has to be told" in one.host.warnings[0]
