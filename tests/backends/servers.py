"""Servers of network file systems inside the lab's guest; the kernel's NFS server is in ``tests/lab/fixtures.py``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from ..lab.fixtures import sh, wait_until

CONFIGURATION = """
[global]
map to guest = Bad User
guest account = root
server role = standalone server
interfaces = lo
bind interfaces only = yes
disable netbios = yes
load printers = no
lock directory = {run}
state directory = {run}
cache directory = {run}
pid directory = {run}
private dir = {run}
passdb backend = tdbsam:{run}/passdb.tdb
ncalrpc dir = {run}/ncalrpc
log file = {run}/log
[files]
path = {share}
guest ok = yes
read only = no
force user = root
[private]
path = {share}
guest ok = no
valid users = root
read only = no
"""

PASSWORD = "correct, horse=battery %staple"
"""Of the user ``root`` of SMB."""


class Samba:
    """smbd with a share ``files`` that everybody may write to, and ``private`` for its user with the password."""

    def __init__(self, folder: Path) -> None:
        self.share = folder / "share"
        self.run = folder / "run"
        self.share.mkdir(parents=True)
        self.run.mkdir()
        (folder / "smb.conf").write_text(CONFIGURATION.format(run=self.run, share=self.share))
        subprocess.run(
            ["smbpasswd", "-c", str(folder / "smb.conf"), "-L", "-s", "-a", "root"],
            input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, capture_output=True,
        )  # fmt: skip
        self.process = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", "-s", str(folder / "smb.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: " 0A " in _listening(445), "smbd")

    def freeze(self) -> None:
        """Let it hang: connections stay and nothing is answered."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Unmount its clients and end it."""
        self.thaw()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[2] == "cifs":
                sh("umount", "-l", line.split()[1], check=False)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _listening(port: int) -> str:
    wanted = f":{port:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    return "\n".join(line for line in lines if wanted in line)


class Gluster:
    """glusterd with one volume, ``images``, of one brick, at an address of its own: it takes no loopback address."""

    address = "10.9.9.9"

    def __init__(self) -> None:
        sh("modprobe", "-a", "dummy", "fuse")
        sh("ip", "link", "add", "gluster0", "type", "dummy")
        sh("ip", "addr", "add", f"{self.address}/32", "dev", "gluster0")
        sh("ip", "link", "set", "gluster0", "up")
        self.brick = Path("/var/tmp/brick")
        self.brick.mkdir()
        sh("glusterd")
        sh("gluster", "--mode=script", "volume", "create", "images", f"{self.address}:{self.brick}", "force")
        sh("gluster", "--mode=script", "volume", "start", "images")

    def close(self) -> None:
        """Unmount its clients and end it."""
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[2] == "fuse.glusterfs":
                sh("umount", "-l", line.split()[1], check=False)
        sh("killall", "-q", "-w", "-KILL", "glusterd", "glusterfsd", "glusterfs", check=False)
        sh("ip", "link", "del", "gluster0", check=False)
        sh("rm", "-rf", str(self.brick), "/var/lib/glusterd/vols/images", check=False)
