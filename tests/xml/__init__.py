"""Tests of the mapping: reading, writing, schemas."""

from __future__ import annotations

from pathlib import Path

from poolkit.schemas import documents

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "xml"
FILES = sorted([*EXAMPLES.glob("*.xml"), *(HERE / "documents").glob("*.xml")], key=lambda path: path.name)
CLASSES = [cls for classes in documents().values() for cls in classes]
BY_STEM = documents()
