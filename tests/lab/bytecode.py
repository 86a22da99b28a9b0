"""The source tree's byte code for a guest, which would compile it twenty times slower than the Python outside.

Python tells by time and size whether byte code belongs to its source, so what is old is no danger: it is compiled anew.
"""

from __future__ import annotations

import compileall
import sys
import tarfile
from pathlib import Path

from . import recipe

PREFIX = "/tmp/bytecode"  # the guest's PYTHONPYCACHEPREFIX: the tree is read-only there
FOLDERS = ("poolkit", "tests", "benchmarks")
TAG = f"cpython-{recipe.PYTHON_VERSION.replace('.', '')}"


def pack(target: Path, root: Path) -> int:
    """Write a tar with the byte code of the tree at ``root``, as it lies below the prefix; returns how many files it has.

    That of the package is made if need be; pytest makes that of the tests when it collects them. It is empty where the Python
    outside is of another version than the guest's.
    """
    if sys.implementation.cache_tag == TAG:
        compileall.compile_dir(root / "poolkit", quiet=2)
    count = 0
    with tarfile.open(target, "w") as archive:
        for folder in FOLDERS:
            for path in (root / folder).rglob("__pycache__/*.pyc"):
                source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
                if TAG in path.name and sys.implementation.cache_tag == TAG and source.exists():
                    archive.add(path, f"{str(source.parent).strip('/')}/{path.name}", recursive=False)
                    count += 1
    return count
