"""iSCSI targets for tests: tgtd, which runs anywhere, and the kernel's own (LIO), which needs the lab's guest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from ..lab.fixtures import sh

MIB = 1 << 20


class Tgt:
    """tgtd with targets whose logical units are files, at portals of the loopback interface."""

    def __init__(self, folder: Path, *portals: str, control: int = 7) -> None:
        self.folder = folder
        self.control = str(control)
        self.port = 3260
        self.names: list[str] = []
        self.process = subprocess.Popen(
            ["tgtd", "--foreground", "--control-port", self.control, "--iscsi", ",".join(f"portal={p}" for p in portals)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while subprocess.run(self._command("show", "sys"), capture_output=True, check=False).returncode:
            assert self.process.poll() is None and time.monotonic() < until, "tgtd does not start"
            time.sleep(0.05)

    def _command(self, op: str, mode: str, *more: str) -> list[str]:
        return ["tgtadm", "--control-port", self.control, "--lld", "iscsi", "--op", op, "--mode", mode, *more]

    def tell(self, op: str, mode: str, *more: str) -> None:
        """One tgtadm."""
        sh(*self._command(op, mode, *more))

    def target(self, name: str, *sizes: int) -> str:
        """A new target that everybody may use, with units of so many MiB from number 1 on; its name."""
        self.names.append(name)
        self.tell("new", "target", "--tid", self.tid(name), "-T", name)
        for number, size in enumerate(sizes, 1):
            self.unit(name, number, size)
        self.tell("bind", "target", "--tid", self.tid(name), "-I", "ALL")
        return name

    def tid(self, name: str) -> str:
        """The target's number."""
        return str(self.names.index(name) + 1)

    def unit(
        self, name: str, number: int, size: int, *, block: int = 512, wwid: str = "", read_only: bool = False
    ) -> Path:
        """A new logical unit of so many MiB; its file."""
        path = self.folder / f"{self.tid(name)}-{number}-{size}"
        if not path.exists():
            with open(path, "wb") as file:
                file.truncate(size * MIB)
        this = ("--tid", self.tid(name), "--lun", str(number))
        self.tell("new", "logicalunit", *this, "--backing-store", str(path), "--blocksize", str(block))
        if wwid:
            self.tell("update", "logicalunit", *this, "--params", f"scsi_id={wwid},scsi_sn={wwid[:16]}")
        if read_only:
            self.tell("update", "logicalunit", *this, "--params", "readonly=1")
        return path

    def remove(self, name: str, number: int) -> None:
        """Take a logical unit away."""
        self.tell("delete", "logicalunit", "--tid", self.tid(name), "--lun", str(number))

    def account(self, name: str, user: str, password: str, *, outgoing: bool = False) -> None:
        """Demand a login of the target's clients, or give the target one of its own."""
        self.tell("new", "account", "--user", user, "--password", password)
        self.tell("bind", "account", "--tid", self.tid(name), "--user", user, *(["--outgoing"] if outgoing else []))

    def freeze(self) -> None:
        """Let it hang: connections stay and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.unlink(f"/var/run/tgtd/socket.{self.control}")


class Lio:
    """A target of the kernel's own with one unit, at some portals; everybody may use it, or who logs in by CHAP."""

    CONFIG = Path("/sys/kernel/config/target")

    def __init__(
        self, folder: Path, name: str, *portals: str, size: int = 16, login: dict[str, str] | None = None
    ) -> None:
        sh("modprobe", "-a", "configfs", "target_core_mod", "target_core_file", "iscsi_target_mod")
        if not self.CONFIG.is_dir():
            sh("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
        file = folder / "lio"
        file.touch()
        os.truncate(file, size * MIB)
        self.store = self.CONFIG / "core" / "fileio_8" / "iscsi"
        self.store.mkdir(parents=True)
        (self.store / "control").write_text(f"fd_dev_name={file},fd_dev_size={size * MIB}")
        (self.store / "enable").write_text("1")
        (self.store / "wwn" / "vpd_unit_serial").write_text(
            "0123456789abcdef0123456789abcdef"
        )  # what its WWID is made of
        self.tpg = self.CONFIG / "iscsi" / name / "tpgt_1"
        (self.tpg / "lun" / "lun_0").mkdir(parents=True)
        (self.tpg / "lun" / "lun_0" / "store").symlink_to(self.store)
        for portal in portals:
            (self.tpg / "np" / portal).mkdir()
        attributes = {"generate_node_acls": "1", "demo_mode_write_protect": "0", "cache_dynamic_acls": "1"}
        for key, value in (attributes | {"authentication": "1" if login else "0"}).items():
            (self.tpg / "attrib" / key).write_text(value)
        for key, value in (login or {}).items():
            (self.tpg / "auth" / key).write_text(value)
        (self.tpg / "enable").write_text("1")

    def close(self) -> None:
        """Take it down."""
        (self.tpg / "enable").write_text("0")
        for portal in (self.tpg / "np").iterdir():
            portal.rmdir()
        (self.tpg / "lun" / "lun_0" / "store").unlink()
        (self.tpg / "lun" / "lun_0").rmdir()
        self.tpg.rmdir()
        self.tpg.parent.rmdir()
        self.store.rmdir()
