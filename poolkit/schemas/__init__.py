"""RELAX NG and XSD 1.1 schemas of all documents, generated from the mapping by ``python -m poolkit.schemas``.

The files here are those of the pool types that come with poolkit. ``poolkit schema`` prints the grammar of what is
installed, which includes the pool types of other packages.
"""

from __future__ import annotations


def pool_classes() -> list[type]:
    """The definition classes of the pool types that come with poolkit, by type."""
    from poolkit.registry import built_in_definitions

    return built_in_definitions()


def plan_schema() -> str:
    """The JSON Schema of what ``plan --json`` prints."""
    from pathlib import Path

    return Path(__file__).with_name("plan.schema.json").read_text(encoding="utf-8")


STEMS = {
    "pool": "storagepool", "volume": "storagevol", "secret": "secret", "flavor": "flavor", "sources": "sources",
    "capabilities": "storagepoolcaps", "documents": "documents",
}  # fmt: skip
"""The stem of the schema files (libvirt's names) by the kind of document."""


def documents(pools: list[type] | None = None) -> dict[str, list[type]]:
    """The classes of every kind of document, by the stem of its schema files; ``pools`` are those that come with poolkit."""
    from poolkit import documents, model

    return {
        "storagepool": pool_classes() if pools is None else pools,
        "storagevol": [model.Volume],
        "secret": [documents.Secret],
        "flavor": [documents.Flavor],
        "storagepoolcaps": [documents.StoragePoolCapabilities, documents.PoolCapabilities],
        "sources": [documents.Sources, documents.FoundSource],
    }


def several(pools: list[type] | None = None) -> list[type]:
    """The classes of a file with several documents, and of each document that may be in it; ``pools`` as in ``documents``."""
    from poolkit import documents, model

    return [
        documents.Documents,
        *(pool_classes() if pools is None else pools),
        model.Volume,
        documents.Secret,
        documents.Flavor,
    ]


def generate(pools: list[type] | None = None) -> dict[str, str]:
    """Every schema file by name, with the pool types that come with poolkit or those of ``pools``.

    Those of a file with several documents refer to the others, which have to stand beside them.
    """
    from poolkit.documents import Documents
    from poolkit.xmlmap.grammar import files, referring

    made: dict[str, str] = {}
    for stem, classes in documents(pools).items():
        made |= files(classes, stem)
    return made | referring(Documents, STEMS["documents"], [STEMS[tag] for tag in Documents.holds])
