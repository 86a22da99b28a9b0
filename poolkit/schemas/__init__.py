"""RELAX NG and XSD 1.1 schemas of all documents, generated from the mapping by ``python -m poolkit.schemas``.

The files here are those of the pool types that come with poolkit. ``poolkit schema`` prints the grammar of what is
installed, which includes the pool types of other packages.
"""

from __future__ import annotations


def pool_classes() -> list[type]:
    """The definition classes of the pool types that come with poolkit, by type."""
    from poolkit.registry import built_in_definitions

    return built_in_definitions()


def documents() -> dict[str, list[type]]:
    """The classes of every kind of document, by the stem of its schema files (libvirt's names)."""
    from poolkit import documents, model

    return {
        "storagepool": pool_classes(),
        "storagevol": [model.Volume],
        "secret": [documents.Secret],
        "storagepoolcaps": [documents.StoragePoolCapabilities, documents.PoolCapabilities],
        "sources": [documents.Sources, documents.FoundSource],
    }


def generate() -> dict[str, str]:
    """Every schema file by name."""
    from poolkit.xmlmap.grammar import files

    made: dict[str, str] = {}
    for stem, classes in documents().items():
        made |= files(classes, stem)
    return made
