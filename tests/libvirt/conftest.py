"""Libvirt hosts: folders that are written as libvirt writes them, and a private libvirtd."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ..cli.conftest import poolkit

__all__ = ["poolkit"]

UUID = "1b4e28ba-2fa1-11d2-883f-{:012d}"
BANNER = "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n"


class Folders:
    """The folders of a libvirt host below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = root / "etc/libvirt/storage"
        self.secrets = root / "etc/libvirt/secrets"
        self.run = root / "run/libvirt/storage"
        for folder in (self.storage / "autostart", self.secrets, self.run):
            folder.mkdir(parents=True)

    @staticmethod
    def uuid(name: str) -> str:
        """The uuid of a pool or secret of that name."""
        return UUID.format(int.from_bytes(name.encode()[:4]))

    def document(self, name: str, more: str = "", uuid: str = "") -> str:
        """The document of a directory pool, whose directory is made."""
        target = self.root / "images" / name
        target.mkdir(parents=True, exist_ok=True)
        return (
            f"<pool type='dir'>\n  <name>{name}</name>\n  <uuid>{uuid or self.uuid(name)}</uuid>\n"
            "  <capacity unit='bytes'>0</capacity>\n  <allocation unit='bytes'>0</allocation>\n"
            "  <available unit='bytes'>0</available>\n  <source>\n  </source>\n"
            f"  <target>\n    <path>{target}</path>\n  </target>\n{more}</pool>\n"
        )

    def pool(
        self, name: str, text: str = "", *, active: bool = False, marked: bool = False, stored: bool = True
    ) -> None:
        """A pool as libvirt keeps it; ``stored`` is not a transient one."""
        text = text or self.document(name)
        if stored:
            (self.storage / f"{name}.xml").write_text(BANNER + text)
        if marked:
            (self.storage / "autostart" / f"{name}.xml").symlink_to(f"/etc/libvirt/storage/{name}.xml")
        if active:
            (self.run / f"{name}.xml").write_text(f"{BANNER}<poolstate>\n{text}</poolstate>\n")

    def secret(self, name: str, value: bytes | None = b"open sesame", private: str = "no") -> str:
        """A secret for a volume of that path, and its uuid."""
        uuid = self.uuid(name)
        (self.secrets / f"{uuid}.xml").write_text(
            f"<secret ephemeral='no' private='{private}'>\n  <uuid>{uuid}</uuid>\n  <usage type='volume'>\n"
            f"    <volume>/{name}</volume>\n  </usage>\n</secret>\n"
        )
        if value is not None:
            (self.secrets / f"{uuid}.base64").write_bytes(base64.b64encode(value))
        return uuid


@pytest.fixture
def there(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "there")
