"""A file dropped into ``poolkit/backends`` is a pool type: every part of poolkit knows it, with nothing else touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import poolkit
from poolkit import registry

FILE = '''
"""Pools of type toy-shop: what is on a shelf."""

from typing import ClassVar

from poolkit.backend import Backend, Usage, VolumeInfo
from poolkit.model import Pool
from poolkit.xmlmap import Element, xml


class Shelf(Element):
    """Where toys stand."""

    label: str = xml("shelf/@label", default="top", doc="Which shelf.")


class ToyShop(Pool):
    """A shelf of toys."""

    type: ClassVar[str] = "toy-shop"
    source: Shelf = xml("source", default=Shelf, doc="The shelf.")


class ToyShopBackend(Backend):
    type = "toy-shop"
    definition = ToyShop
    tools = ("toyctl",)
    packages = {"toyctl": "toy-utils"}
    bytewise = ("toyctl",)

    def usage(self, volumes):
        return Usage(300, sum(one.allocation for one in volumes), 270)

    def volumes(self, known):
        for name in ("ball", "doll"):
            key = f"toy:{self.pool.source.label}/{name}"
            yield VolumeInfo(name, "network", "raw", 10, 10, key=key, path=key)

    def delete(self, info):
        self.host.change(["toyctl", "sell", "--", info.name])
'''

DOCUMENT = "<pool type='toy-shop'><name>shop</name></pool>"


def copied(folder: Path, **files: str) -> Path:
    """A copy of poolkit with more files among its backends."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(poolkit.__file__).parent, folder / "tree" / "poolkit", ignore=ignore)
    for name, text in files.items():
        (folder / "tree" / "poolkit" / "backends" / f"{name}.py").write_text(text)
    return folder / "tree"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copied(tmp_path, toy_shop=FILE, _not_a_type="raise SystemExit('it was imported')")


def python(tree: Path, *argv: str, status: int = 0) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *argv],
        env={**env, "PYTHONPATH": str(tree), "NO_COLOR": "1"},
        cwd=tree.parent,  # not a folder that has another poolkit
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_dropped_file_is_a_pool_type(tree: Path, tmp_path: Path) -> None:
    def run(*argv: str, status: int = 0) -> str:
        return python(tree, "-m", "poolkit", "--root", str(tmp_path / "root"), *argv, status=status)

    assert python(tree, "-c", "import poolkit; print(poolkit.__file__)").startswith(str(tree))
    document = tmp_path / "shop.xml"
    document.write_text(DOCUMENT)
    run("validate", str(document))
    run("define", str(document))
    run("start", "shop")
    assert [v["name"] for v in json.loads(run("--json", "vol-list", "shop"))] == ["ball", "doll"]
    assert "<pool type='toy-shop'>" in run("dumpxml", "shop")
    assert "toy-shop" in run("list", "--type", "toy-shop", "--details")
    types = json.loads(run("--json", "capabilities"))
    assert [t["type"] for t in types] == sorted(t["type"] for t in types)
    (toy,) = [t for t in types if t["type"] == "toy-shop"]
    assert toy["supported"] and toy["verbs"] == ["delete"] and toy["tools"] == ["toyctl"]
    # the missing program, and the package that has it: where it is looked for, and where it is called
    assert "type toy-shop" in (said := run("doctor", status=1)) and "apt install toy-utils" in said
    assert "apt install toy-utils" in run("vol-delete", "ball", "--pool", "shop", status=10)


def test_a_program_of_its_own_needs_no_entry_elsewhere(tree: Path, tmp_path: Path) -> None:
    tool, said = tmp_path / "bin" / "toyctl", tmp_path / "said"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$LC_ALL $*" >> {said}\n')
    tool.chmod(0o755)
    script = f"""if 1:
        from poolkit.engine import Engine
        from poolkit.host import programs
        programs.SEARCH_PATH = ({str(tool.parent)!r}, *programs.SEARCH_PATH)
        with Engine({str(tmp_path / "root")!r}) as engine:
            shop = engine.create({DOCUMENT!r})
            shop.volume("ball").delete()
    """
    python(tree, "-c", script)
    assert said.read_text() == "C sell -- ball\n"


def test_messages_schemas_and_the_reference_know_it(tree: Path, tmp_path: Path) -> None:
    document = tmp_path / "shop.xml"
    document.write_text(DOCUMENT.replace("toy-shop", "toyshop"))
    said = python(tree, "-m", "poolkit", "--root", str(tmp_path / "root"), "validate", str(document), status=3)
    assert "did you mean 'toy-shop'?" in said and "sheepdog, toy-shop, vstorage, xensm" in said
    script = """if 1:
        from poolkit import schemas
        from poolkit.xmlmap.rows import reference
        assert all("toy-shop" in text for name, text in schemas.generate().items() if name.startswith("storagepool."))
        rows = [(r.document, r.path, r.doc) for r in reference(schemas.pool_classes())]
        assert ("pool toy-shop", "/pool/source/shelf/@label", "Which shelf.") in rows
        from poolkit import registry
        assert registry.backend("toy-shop").definition.first is None, "libvirt is not asked about it"
    """
    python(tree, "-c", script)


def test_a_file_that_cannot_be_loaded_is_an_error_in_words(tmp_path: Path) -> None:
    copy = copied(tmp_path, broken="import nothing_of_that_name", empty="")
    document = tmp_path / "pool.xml"
    for type, why in (
        ("broken", "poolkit.backends.broken cannot be loaded: No module named 'nothing_of_that_name'"),
        ("empty", "poolkit.backends.empty has no Backend and no Pool of that type"),
    ):
        document.write_text(f"<pool type='{type}'><name>a</name></pool>")
        said = python(copy, "-m", "poolkit", "--root", str(tmp_path / "root"), "define", str(document), status=8)
        assert f"pool type '{type}': {why}" in said
        assert "Traceback" not in said
    document.write_text(f"<pool type='dir'><name>d</name><target><path>{tmp_path}</path></target></pool>")
    python(copy, "-m", "poolkit", "--root", str(tmp_path / "root"), "define", str(document))


def test_types_are_found_in_an_archive(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "tree.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in tree.rglob("*.py"):
            file.write(path, path.relative_to(tree))
    script = "from poolkit import registry; print(registry.backend('toy-shop').__module__, *registry.built_in())"
    shutil.rmtree(tree)
    assert python(archive, "-c", script).split() == [
        "poolkit.backends.toy_shop",
        *sorted((*registry.built_in(), "toy-shop")),
    ]
