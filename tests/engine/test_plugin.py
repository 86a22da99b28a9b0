"""A backend costs one file: a toy pool type is installed beside poolkit and works everywhere, with nothing else touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = '''
"""Pools of type toy: volumes are numbers in memory of the definition."""

from typing import ClassVar

from poolkit.backend import Backend, Usage, VolumeInfo
from poolkit.model import Pool, SourceHost
from poolkit.xmlmap import Element, xml


class ToySource(Element):
    """Where toys come from."""

    host: SourceHost = xml("host", doc="The toy shop.")
    shelf: str = xml("shelf/@label", default="top", doc="Which shelf.")


class ToyPool(Pool):
    """A shelf of toys."""

    type: ClassVar[str] = "toy"
    source: ToySource = xml("source", doc="The shop.")


class ToyBackend(Backend):
    type = "toy"
    definition = ToyPool
    tools = ("a-tool-nobody-has",)

    def usage(self, volumes):
        return Usage(300, 30, 270)

    def volumes(self, known):
        for name in ("ball", "doll"):
            key = f"toy://{self.pool.source.host.name}/{self.pool.source.shelf}/{name}"
            yield VolumeInfo(name, "network", "raw", 10, 10, key=key, path=key)
'''

METADATA = "Metadata-Version: 2.1\nName: poolkit-toy\nVersion: 1.0\n"
DEFINITION = "<pool type='toy'><name>shop</name><source><host name='toys.example.com'/>{}</source></pool>"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as pip would leave it: the one file and its entry point."""
    site = tmp_path / "site"
    info = site / "poolkit_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "poolkit_toy.py").write_text(TOY)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(
        "[poolkit.backends]\ntoy = poolkit_toy:ToyBackend\ndir = poolkit_toy:ToyBackend\n"
    )
    return site


def poolkit(site: Path, root: Path, *argv: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "poolkit", "--root", str(root), *argv],
        env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_one_file_adds_a_pool_type(site: Path, tmp_path: Path) -> None:
    root, document = tmp_path / "root", tmp_path / "shop.xml"
    document.write_text(DEFINITION.format(""))
    poolkit(site, root, "validate", str(document))
    poolkit(site, root, "define", str(document))
    poolkit(site, root, "start", "shop")
    volumes = json.loads(poolkit(site, root, "--json", "vol-list", "shop"))
    assert [v["name"] for v in volumes] == ["ball", "doll"]
    assert poolkit(site, root, "vol-pool", "toy://toys.example.com/top/doll").strip() == "shop"
    assert "<shelf label='top'/>" in poolkit(site, root, "dumpxml", "shop")
    # parser, schema, capabilities and doctor know it as well
    document.write_text(DEFINITION.format("<shelv label='low'/>"))
    said = poolkit(site, root, "validate", str(document), status=3)
    assert "did you mean 'shelf'?" in said
    assert "toy" in poolkit(site, root, "schema")
    assert "toy" in poolkit(site, root, "capabilities")
    assert "a-tool-nobody-has" in poolkit(site, root, "doctor", status=1)
    said = poolkit(site, root, "build", "shop", status=6)
    assert "while it is active" in said
    poolkit(site, root, "destroy", "shop")
    said = poolkit(site, root, "build", "shop", status=8)
    assert "pool 'shop': pools of type 'toy' cannot build" in said


def test_it_cannot_replace_a_built_in(site: Path, tmp_path: Path) -> None:
    script = "from poolkit import registry; print(registry.backend('dir').__module__, registry.types().count('dir'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["poolkit.backends.dir", "1"]


def test_a_broken_package_is_an_error_in_words(site: Path, tmp_path: Path) -> None:
    (site / "poolkit_toy-1.0.dist-info" / "entry_points.txt").write_text(
        "[poolkit.backends]\ntoy = poolkit_toy:ToySource\n"
    )
    document = tmp_path / "shop.xml"
    document.write_text(DEFINITION.format(""))
    said = poolkit(site, tmp_path / "root", "define", str(document), status=8)
    assert "poolkit-toy" in said
    assert "is not a Backend of that type" in said
    assert "Traceback" not in said
    # ... and the others still work.
    document.write_text(f"<pool type='dir'><name>d</name><target><path>{tmp_path}</path></target></pool>")
    poolkit(site, tmp_path / "root", "define", str(document))
