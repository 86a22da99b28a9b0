"""The whole matrix of permitted operations on a scripted host: what is refused, and in which words, and what comes to a command.

That the commands do then what they should, two machines show (``test_shared_lvm_nodes.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backend import Source, VolumeInfo
from poolkit.backends.shared_lvm import SharedLvmBackend
from poolkit.families.lvmlocks import LOCKS
from poolkit.model import Volume
from poolkit.testing import Answer
from tests.backends import matrix
from tests.backends.sharedlvm import MIB, OURS, V, backend, changes, group, rows

LVMLOCKD_SAYS = Answer(status=5, stderr="  LV locked by other host: vg/v\n  Failed to lock logical volume vg/v.\n")
SNAPSHOT = VolumeInfo("s", "block", capacity=8 * MIB, key="U-s", path="/dev/vg/s", detail={"backing": "/dev/vg/v"})


def new(name: str = "n") -> Any:
    return xmlmap.read(f"<volume><name>{name}</name><capacity>{8 * MIB}</capacity></volume>", [Volume])


DO: dict[str, tuple[str, Callable[[SharedLvmBackend], object]]] = {
    "create": ("vol-create", lambda b: b.create(new())),
    "delete": ("vol-delete", lambda b: b.delete(V)),
    "extend": ("vol-resize", lambda b: b.resize(V, 16 * MIB)),
    "snapshot": (
        "vol-clone",
        lambda b: b.clone(new(), Source(b.pool, V, "/dev/vg/v", lambda: b.open_volume(V)), linked=True),
    ),
    "delete snapshot": ("vol-delete", lambda b: b.delete(SNAPSHOT)),
    "attach": ("vol-attach", lambda b: b.attach(V)),
    "attach shared": ("vol-attach", lambda b: b.attach(V, shared=True)),
    "detach": ("vol-detach", lambda b: b.detach(V)),
}


def shared(cell: matrix.Cell, lock: str) -> SharedLvmBackend:
    """The backend of node ``one`` in the situation of a cell."""
    what = {"free": "", "exclusive": "poolkit.attach.two", "shared": "poolkit.share.two"}[cell.elsewhere]
    facts = {"lv_tags": what} if lock == "system-id" else {}
    answers: dict[str, Any] = {}
    if cell.operation == "delete snapshot":
        origin = rows(lv_role="public,origin,thickorigin", **facts)
        own = rows(
            lv_name="s", lv_uuid="U-s", lv_role="public,snapshot,thicksnapshot", origin="v", origin_size=str(8 * MIB)
        )
        answers["lvs"] = origin.replace("]}]}", own[own.index('[{"lv_name"') :].replace("[{", ", {", 1))
    else:
        answers["lvs"] = rows(**facts)
    answers["vgs"] = group(
        system=OURS if lock == "system-id" else "",
        lock="sanlock" if lock == "lvmlockd" else "",
        tags="poolkit.control.one",
    )
    if lock == "lvmlockd" and cell.elsewhere != "free":
        allowed = cell.operation == "attach shared" and cell.elsewhere == "shared"
        answers |= {} if allowed else {"lvchange": LVMLOCKD_SAYS}
        answers |= dict.fromkeys(("lvremove", "lvcreate"), LVMLOCKD_SAYS) if cell.operation != "create" else {}
        answers |= {
            "sanlock direct dump /dev/mapper/vg-lvmlock:70254592:1048576": "70254592  lvm_vg  K 0000001695 0002 0001 5\n",
            "sanlock direct dump /dev/mapper/vg-lvmlock:0:1048576": "00000512  lvm_vg  12e48603.two 0000001695 0002 0001\n",
        }
    return backend(cell.role, lock="none" if lock == "none" else "auto", node="one", **answers)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("role", matrix.ROLES)
def test_every_cell(lock: str, role: str) -> None:
    seen = 0
    for cell in matrix.cells(lock):
        if cell.role != role:
            continue
        verb, do = DO[cell.operation]
        one = shared(cell, lock)
        try:
            with one.exclusive(verb):
                do(one)
        except errors.RoleForbidden as error:
            assert cell.kind == "RoleForbidden", (cell, error)
            assert cell.said in str(error), (cell, error)
            assert changes(one) == [], cell
        except errors.HeldElsewhere as error:
            assert cell.kind == "HeldElsewhere", (cell, error)
            assert cell.said in str(error), (cell, error)
        except errors.HostError as error:  # the scripted LVM made no device
            assert cell.said == matrix.ALLOWED and "/dev/vg" in str(error), (cell, error)
        except KeyError as error:  # nor a volume under a private name
            assert cell.said == matrix.ALLOWED and str(error).startswith("'.poolkit-"), (cell, error)
            assert changes(one)[-1][0] == "lvcreate", cell
        else:
            assert cell.said == matrix.ALLOWED, cell
        seen += 1
    assert seen == (8 if lock == "none" else 23)
