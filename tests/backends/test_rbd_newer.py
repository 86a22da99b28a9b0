"""Pools of type rbd under a newer Python than the distribution's, for which its modules are not built: librados and librbd."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph import PROGRAMS, Cluster

from .rbd import SECRET, Fresh, definition, fresh

pytestmark = pytest.mark.tools(*PROGRAMS)

ROOT = Path(__file__).parents[2]
NEWER = ("3.14", "3.13", "3.12")
# What a user does in the life of a pool; the key comes on standard input, the definition in a file.
LIFE = """
import sys
from io import BytesIO
from poolkit.engine import Engine

root, document, uuid = sys.argv[1:]
with Engine(root) as engine:
    engine.define_secret(f"<secret private='yes'><uuid>{uuid}</uuid><usage type='ceph'><name>key</name></usage></secret>")
    engine.secret(uuid).set_value(sys.stdin.buffer.readline().strip())
    pool = engine.define(open(document).read())
    pool.start()
    text = "<volume><name>{}</name><capacity>{}</capacity></volume>"
    disk = pool.create_volume(text.format("disk", 8 << 20))
    disk.upload(BytesIO(b"kept" * 1000))
    copy = disk.clone(text.format("copy", 8 << 20))
    copy.resize(16 << 20)
    disk.wipe()
    out = BytesIO()
    copy.download(out, length=4000)
    assert out.getvalue() == b"kept" * 1000
    out = BytesIO()
    disk.download(out, length=4000)
    assert out.getvalue() == bytes(4000)
    pool.refresh()
    assert [(v.name, v.info.capacity) for v in pool.volumes()] == [("copy", 16 << 20), ("disk", 8 << 20)]
    disk.delete()
    copy.delete()
    pool.refresh()
    assert not pool.volumes()
    pool.destroy()
print(*sys.version_info[:2], sep=".")
"""


def newer() -> tuple[str, str] | None:
    """The newest Python beyond 3.11 that works here, and its version."""
    for version in NEWER:
        found = [shutil.which(f"python{version}")]
        found += sorted(glob.glob(f"{os.path.expanduser('~')}/.pyenv/versions/{version}.*/bin/python3"), reverse=True)
        for path in filter(None, found):
            check = subprocess.run([path, "-c", "import ctypes, sqlite3"], capture_output=True, check=False)
            if not check.returncode:
                return path, version
    return None


@pytest.fixture
def pools(cluster: Cluster) -> Iterator[Fresh]:
    yield from fresh(cluster)


def test_a_newer_python_uses_the_libraries_themselves(cluster: Cluster, pools: Fresh, tmp_path: Path) -> None:
    found = newer()
    if found is None:
        pytest.skip("not applicable: no newer Python is installed")
    path, version = found
    document = tmp_path / "pool.xml"
    document.write_text(definition(cluster, *pools.namespace()))
    done = subprocess.run(
        [path, "-c", LIFE, str(tmp_path / "root"), str(document), SECRET], input=cluster.keys["poolkit"] + "\n",
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert done.stdout.split()[-1] == version
