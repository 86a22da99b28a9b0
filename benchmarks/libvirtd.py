"""A private libvirtd with the storage driver alone, as the peer of the measurements.

It runs in a mount namespace of its own with empty directories where libvirt keeps its files, so that nothing of the
machine's own libvirt is read or changed, and ends with the measurement. Needs root.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import time
from pathlib import Path

DRIVERS = "/usr/lib/*/libvirt/connection-driver/libvirt_driver_{}.so"

# libvirtd's paths are compiled in: each gets an empty tmpfs that only this process sees.
ISOLATE = """\
set -e
for directory in /run/libvirt /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$directory"
    mount -t tmpfs tmpfs "$directory"
done
exec libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid"
"""

CONFIGURATION = """\
unix_sock_dir = "{0}/sock"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_level = 4
log_outputs = "4:stderr"
"""


class PrivateLibvirtd:
    """``with PrivateLibvirtd(directory) as peer: peer.virsh("pool-list")``; the directory must exist and be empty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "sock" / "libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._pools: dict[Path, str] = {}

    @staticmethod
    def missing() -> str:
        """Why there can be none here; empty when there can."""
        if os.geteuid() != 0:
            return "a private libvirtd needs root"
        for program in ("libvirtd", "virsh", "unshare"):
            if not shutil.which(program):
                return f"{program} is not installed (apt install libvirt-daemon libvirt-clients util-linux)"
        if not glob.glob(DRIVERS.format("storage")):
            return "libvirt's storage driver is not installed (apt install libvirt-daemon)"
        return ""

    @property
    def pid(self) -> int:
        """The daemon's process id: the shell that prepared its mounts became it."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> PrivateLibvirtd:
        for name in ("drivers", "sock"):
            (self.directory / name).mkdir()
        for driver in ("storage", "secret"):
            for found in glob.glob(DRIVERS.format(driver)):
                os.symlink(found, self.directory / "drivers" / os.path.basename(found))
        (self.directory / "libvirtd.conf").write_text(CONFIGURATION.format(self.directory))
        with open(self.directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", ISOLATE, "sh", self.directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LIBVIRT_DRIVER_DIR": str(self.directory / "drivers")},
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"libvirtd did not start: {(self.directory / 'log').read_text().strip()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        return (
            self.socket.exists()
            and not subprocess.run(
                self._argv("uri"), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ).returncode
        )

    @property
    def uri(self) -> str:
        """What a client connects to."""
        return f"storage+unix:///system?socket={self.socket}"

    def _argv(self, *command: str | Path) -> list[str]:
        return ["virsh", "-q", "-c", self.uri, *map(str, command)]

    def virsh(self, *command: str | Path) -> str:
        """Run one virsh command; returns its output."""
        done = subprocess.run(self._argv(*command), check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"virsh {' '.join(map(str, command))}: {done.stderr.strip()}")
        return done.stdout

    def pool(self, directory: Path) -> str:
        """The name of the started pool on ``directory``, which is defined at the first call: two may not share one."""
        if directory not in self._pools:
            name = f"pool{len(self._pools)}"
            document = self.directory / f"{name}.xml"
            document.write_text(f"<pool type='dir'><name>{name}</name><target><path>{directory}</path></target></pool>")
            self.virsh("pool-define", document)
            self.virsh("pool-start", name)
            self._pools[directory] = name
        return self._pools[directory]

    def memory(self) -> int:
        """The daemon's greatest resident size so far, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("/proc/PID/status has no VmHWM")
