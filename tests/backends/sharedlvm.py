"""A shared volume group on a scripted host, for the tests of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from poolkit import xmlmap
from poolkit.backend import VolumeInfo
from poolkit.backends.shared_lvm import SharedLvmBackend, SharedLvmPool
from poolkit.families import lvm, lvmlocks
from poolkit.host import Result
from poolkit.host.node import Node
from poolkit.testing import ScriptedHost

MIB = 1 << 20
UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
OURS = f"poolkit-{UUID}"


def group(
    *, system: str = "", lock: str = "", tags: str = "", missing: int = 0, name: str = "vg", device: str = "/dev/vdb",
    left_out: bool = False,
) -> str:  # fmt: skip
    facts = (
        name, "U-G", 800 * MIB, 400 * MIB, 4 * MIB, missing, 1, system, lock, 7, tags, device, "U-P",
        "missing" if left_out else "",
    )  # fmt: skip
    return json.dumps({"report": [{"vg": [dict(zip(lvmlocks._FIELDS, map(str, facts), strict=True))]}]})


def rows(**facts: str) -> str:
    row = dict.fromkeys(lvm._FIELDS, "") | {
        "lv_name": "v", "lv_uuid": "U-v", "lv_size": str(8 * MIB), "lv_role": "public", "segtype": "linear",
        "seg_pe_ranges": "/dev/vdb:0-1", "lv_kernel_major": "-1", "lv_kernel_minor": "-1", "lv_attr": "-wi-------k",
        "vg_extent_size": str(4 * MIB), "lv_lockargs": "1.0.0:70254592",
    }  # fmt: skip
    return json.dumps({"report": [{"lv": [row | facts]}]})


class TaggingHost(ScriptedHost):
    """A host on which a group has the tags that it was given, or was made with, where the script has one answer of ``vgs``."""

    def change(self, argv: Sequence[str], **how: Any) -> Result:
        """As for every script, and the tags of the group are those of the command."""
        done = super().change(argv, **how)
        said = self.answers.get("vgs")
        if argv[0] in ("vgchange", "vgcreate") and isinstance(said, str):
            report = json.loads(said)
            for row in report["report"][0]["vg"]:
                tags = set(filter(None, row["vg_tags"].split(",")))
                for word, tag in pairwise(argv):
                    tags = tags | {tag} if word == "--addtag" else tags - {tag} if word == "--deltag" else tags
                row["vg_tags"] = ",".join(sorted(tags))
            self.answers["vgs"] = json.dumps(report)
        return done


def backend(role: str = "both", *, lock: str = "auto", node: str = "n1", **answers: Any) -> SharedLvmBackend:
    lines = {
        "vgs": group(system=OURS),
        "lvs": rows(),
        "lvmlockctl": "VG vg lock_type=sanlock X\nLS sanlock lvm_vg\n",
    } | answers
    host = TaggingHost(lines)
    host.on_node = lambda: Node(node, role)
    source = f"<source><name>vg</name><lock type='{lock}'/></source>"
    pool = xmlmap.read(f"<pool type='shared-lvm'><name>p</name><uuid>{UUID}</uuid>{source}</pool>", [SharedLvmPool])
    return SharedLvmBackend(pool, host)


def changes(one: SharedLvmBackend) -> list[list[str]]:
    return [shlex.split(line[2:]) for line in one.host.lines if line.startswith("! ")]  # type: ignore[attr-defined]


FAMILY = json.dumps({"report": [{"lv": [
    json.loads(rows(lv_role="public,origin,thickorigin", lv_tags="poolkit.attach.n2"))["report"][0]["lv"][0],
    json.loads(rows(lv_name="s", lv_uuid="U-s", lv_role="public,snapshot,thicksnapshot", origin="v", origin_size=str(8 * MIB)))[
        "report"
    ][0]["lv"][0],
]}]})  # fmt: skip
"""An origin that another node has, and its snapshot."""

V = VolumeInfo("v", "block", capacity=8 * MIB, key="U-v", path="/dev/vg/v")
