"""Definitions that are made of sources which discovery found."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolkit import xmlmap
from poolkit.documents import FoundDevice, FoundSource
from poolkit.engine import Engine
from poolkit.model import SourceHost

SOURCES = {
    "netfs": FoundSource(hosts=(SourceHost(name="nas"),), dir="/srv/a b", format="nfs"),
    "logical": FoundSource(
        devices=(FoundDevice(path="/dev/sda"), FoundDevice(path="/dev/sdb")), name="vg0", format="lvm2"
    ),
    "iscsi": FoundSource(
        hosts=(SourceHost(name="nas", port=3260),), devices=(FoundDevice(path="iqn.2004-10.com.example:disks"),)
    ),
    "disk": FoundSource(devices=(FoundDevice(path="/dev/mapper/mpatha"),), format="gpt"),
}
NAMES = {
    "netfs": ("a-b", "/mnt/a-b"),
    "logical": ("vg0", "/dev/vg0"),
    "disk": ("mpatha", "/dev"),
    "iscsi": ("disks", "/dev/disk/by-path"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_what_was_found_can_be_defined(tmp_path: Path, kind: str) -> None:
    with Engine(tmp_path) as engine:
        first, second = engine.proposed(kind, [SOURCES[kind], SOURCES[kind]])
        assert (first.name, first.target.path) == NAMES[kind]
        assert second.name == f"{first.name}-2"
        engine.define(xmlmap.write(first))
        again = engine.proposed(kind, [SOURCES[kind]])[0]
        assert again.name == f"{first.name}-2", "the name of a pool that there is cannot be defined anew"
        whole = xmlmap.write(first)
        assert all(line.strip() in whole for line in xmlmap.write(SOURCES[kind]).splitlines())
