"""What there is below one root: as a model that each verb changes, and as it is found on the disk.

A state is a plain dictionary of facts: ``("volume", name)``, ``("pool", what)``, ``("secret", uuid, what)``. A verb says which
facts are to be different afterwards; whatever happens to it, each fact must be the old or the new one.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from poolkit.engine import Engine

KIB = 1024
Fact = tuple[str, ...]
State = dict[Fact, Any]
SECRETS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
ANYTHING = b"*"
"""Content that cannot be foretold, such as random bytes."""


class Disk(NamedTuple):
    """A volume: ``data`` is what a guest reads, without the zeros at its end; ``base`` the volume below it."""

    format: str
    capacity: int
    data: bytes = b""
    base: str = ""

    def __repr__(self) -> str:
        digest = "anything" if self.data == ANYTHING else hashlib.sha256(self.data).hexdigest()[:8]
        return f"{self.format} {self.capacity} {len(self.data)}:{digest}" + (f" on {self.base}" if self.base else "")

    def like(self, other: object) -> bool:
        """Whether the other one, found on the disk, is this one."""
        if not isinstance(other, Disk):
            return False
        return self._replace(data=b"") == other._replace(data=b"") and self.data in (ANYTHING, other.data)


def shut(data: bytes) -> bytes:
    """Content without the zeros at its end."""
    return data.rstrip(b"\0")


class World:
    """A root, a pool ``p`` with volumes, a place for the pool ``q``, and what is uploaded, in ``place``.

    ``work`` is for what no fault is to touch: documents, sources, downloads.
    """

    def __init__(self, place: Path, work: Path) -> None:
        self.place = place
        self.work = work
        self.root = place / "root"
        self.images = place / "p"
        self.downloaded = place / "down" / "loaded"
        self._read: dict[bytes, bytes] = {}
        for number in range(2):
            self._sources(number)
        for name, text in self._documents().items():
            (work / name).write_text(text)

    def _sources(self, number: int) -> None:
        chance = random.Random(number)
        data = chance.randbytes(40 * KIB) + bytes(8 * KIB) + chance.randbytes(16 * KIB)
        raw, image = self.work / f"raw{number}.img", self.work / f"image{number}.qcow2"
        raw.write_bytes(data)
        if not image.exists():
            subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, image], check=True)

    def _documents(self) -> dict[str, str]:
        found = {"p.xml": f"<pool type='dir'><name>p</name><target><path>{self.images}</path></target></pool>"}
        for number, extra in enumerate(("", "<features><cow state='no'/></features>")):
            target = f"<target><path>{self.place}/q/images</path></target>"
            found[f"q{number}.xml"] = f"<pool type='dir'><name>q</name>{extra}{target}</pool>"
            for uuid in SECRETS:
                found[f"{uuid}-{number}.xml"] = (
                    f"<secret ephemeral='no' private='no'><uuid>{uuid}</uuid><description>d{number}</description>"
                    f"<usage type='volume'><volume>/v/{uuid[0]}</volume></usage></secret>"
                )
                (self.work / f"{uuid}-{number}.value").write_bytes(uuid.encode() * (number + 1))
        return found

    def source(self, name: str) -> Disk:
        """What a file of ``work`` is as a volume."""
        path = self.work / name
        return Disk("qcow2", 64 * KIB, self.guest(path)) if name.endswith("qcow2") else Disk("raw", *_raw(path))

    def guest(self, path: Path) -> bytes:
        """What a guest reads from an image; fails where qemu-img finds it unsound."""
        done = subprocess.run(["qemu-img", "check", "-q", "-U", "-f", "qcow2", path], capture_output=True, check=False)
        sound = (
            0,
            3,
        )  # 3: clusters that nothing uses, which qemu-img leaves itself where a write fails (qemu-img(1), check)
        assert done.returncode in sound, f"{path} is not sound: {done.stdout.decode()}{done.stderr.decode()}"
        flat = self.work / "flat"
        subprocess.run(["qemu-img", "convert", "-q", "-U", "-f", "qcow2", "-O", "raw", path, flat], check=True)
        return shut(flat.read_bytes())

    # -- what is found ------------------------------------------------------------------------------------------------

    def found(self, engine: Engine, *, listed: bool = True) -> State:
        """The facts as they are, by the engine's word and by the files. The pool ``p`` is looked through anew.

        ``listed``: its last listing must have been right.
        """
        state: State = {}
        pools = {pool.name: pool for pool in engine.pools()}
        assert all(pool.state in ("active", "inactive") for pool in pools.values()), pools
        assert pools["p"].active, f"the pool is not active any more: {pools['p']}"
        state["pool", "defined"] = -1
        if "q" in pools and pools["q"].persistent:
            state["pool", "defined"] = int(engine.pool("q").definition(inactive=True).cow is False)
        state["pool", "active"] = "q" in pools and pools["q"].active
        state["pool", "autostart"] = "q" in pools and pools["q"].autostart
        state["pool", "built"] = (self.place / "q/images").is_dir()
        for secret in engine.secrets():
            state["secret", secret.uuid, "defined"] = secret.definition.description
        for uuid in SECRETS:
            file = self.root / "secrets" / f"{uuid}.value"
            if file.exists():
                state["secret", uuid, "value"] = file.read_bytes()
        names = {volume.name for volume in engine.pool("p").volumes()}
        files = set(os.listdir(self.images))
        assert names == files or not listed, f"the listing has {sorted(names)}, the directory {sorted(files)}"
        engine.pool("p").refresh()
        for volume in engine.pool("p").volumes():
            info = volume.info
            detail = info.detail or {}
            # Content that looks like an image is what a guest may write, too; half-written volumes are looked at apart.
            fine = (info.format == "raw" and detail.get("looks_like")) or detail.get("half_written")
            assert fine or not info.problem, f"{volume.name}: {info.problem}"
            path = self.images / volume.name
            backing = str((info.detail or {}).get("backing") or "")
            state["volume", volume.name] = Disk(
                info.format, info.capacity, self._content(path, info.format), os.path.basename(backing)
            )
        return state

    def _content(self, path: Path, format: str) -> bytes:
        if format != "qcow2":
            return _raw(path)[1]
        key = hashlib.sha256(path.read_bytes())
        for other in sorted(self.images.iterdir()):  # of which one may be below it
            key.update(f"{other.name} {other.stat().st_mtime_ns} {other.stat().st_size}".encode())
        if key.digest() not in self._read:
            self._read[key.digest()] = self.guest(path)
        return self._read[key.digest()]

    def left_over(self) -> list[str]:
        """Files that no verb leaves, finished or taken back."""
        found = [str(path) for path in self.place.rglob(".poolkit-*")]
        found += [str(path) for path in self.place.rglob("*.journal*")]
        found += [str(path) for path in self.root.glob("storage/autostart/*") if not path.exists()]
        return found


def _raw(path: Path) -> tuple[int, bytes]:
    data = path.read_bytes()
    return len(data), shut(data)
