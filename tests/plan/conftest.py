"""A folder of documents and a root that it is applied to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import Engine
from poolkit.engine.plan.entries import Applied
from poolkit.engine.plan.plan import Plan


def fingerprint(*folders: Path) -> str:
    """A hash of all that is in folders: names, contents, modes, and times of change."""
    told = hashlib.sha256()
    for folder in folders:
        for top, below, files in os.walk(folder):
            below.sort()
            for name in sorted([*below, *files]):
                path = os.path.join(top, name)
                facts = os.lstat(path)
                told.update(f"{path} {facts.st_mode:o} {facts.st_size} {facts.st_mtime_ns}\n".encode())
                if name in files and not os.path.islink(path):
                    told.update(Path(path).read_bytes())
    return told.hexdigest()


class World:
    """A root with an engine, a folder with documents, and one with storage."""

    def __init__(self, folder: Path) -> None:
        self.root, self.documents, self.storage = folder / "root", folder / "documents", folder / "storage"
        self.documents.mkdir()
        self.storage.mkdir()
        self.engine = Engine(self.root)

    def write(self, path: str, text: str) -> Path:
        """Put a document into the folder."""
        file = self.documents / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def pool(self, name: str, wanted: str = "build='if-empty'", more: str = "") -> Path:
        """Put the document of a pool into the folder; ``wanted`` are attributes of ``<pk:wanted>``."""
        return self.write(
            f"{name}.xml",
            f"<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name>{more}"
            f"<target><path>{self.storage}/{name}</path></target><pk:wanted {wanted}/></pool>",
        )

    def volume(self, pool: str, name: str, capacity: int = 1 << 20, format: str = "raw", more: str = "") -> Path:
        """Put the document of a volume into the pool's folder."""
        size = f"<capacity>{capacity}</capacity><allocation>0</allocation>" if capacity else ""
        return self.write(
            f"{pool}/{name}.xml",
            f"<volume xmlns:pkv='urn:poolkit:volume:1'><name>{name}</name>{size}"
            f"<target><format type='{format}'/></target>{more}</volume>",
        )

    def plan(self, *, prune: bool = False) -> Plan:
        """The plan of the folder."""
        return self.engine.plan(self.documents, prune=prune)

    def apply(self, **how: bool) -> Applied:
        """Apply the folder, and expect that all is as wanted then."""
        prune = how.pop("prune", False)
        done = self.plan(prune=prune).apply(**how)  # type: ignore[arg-type]
        assert done, [str(r.error) for r in done.failed] or done.remaining
        assert not self.plan(prune=prune)
        return done

    def signs(self, *, prune: bool = False) -> dict[str, str]:
        """What is to be done, by what tells each entry from the others."""
        return {e.ident: e.action for e in self.plan(prune=prune).entries if e.action != "none"}


@pytest.fixture(autouse=True)
def _each_plan_is_as_its_schema_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test of this folder plans."""
    import jsonschema

    from poolkit.schemas import plan_schema

    schema = json.loads(plan_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    really = Plan.__init__

    def judged(self: Plan, *args: Any, **how: Any) -> None:
        really(self, *args, **how)
        validator.validate(json.loads(json.dumps(self.as_dict())))

    monkeypatch.setattr(Plan, "__init__", judged)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.engine.close()
