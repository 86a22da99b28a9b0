"""A program of QEMU's that has an image open as a machine has its disk."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator


@contextlib.contextmanager
def held(path: str, format: str = "raw", *, write: bool = True) -> Iterator[int]:
    """While the body runs it is open, to be written or as a base that is read; gives the process."""
    with tempfile.TemporaryDirectory() as folder:
        socket, ready = os.path.join(folder, "nbd"), os.path.join(folder, "pid")
        driver = "host_device" if stat.S_ISBLK(os.stat(path).st_mode) else "file"
        argv = [
            "qemu-storage-daemon", "--nbd-server", f"addr.type=unix,addr.path={socket}",
            "--blockdev", f"driver={driver},filename={path},node-name=file,read-only={'off' if write else 'on'}",
            "--blockdev", f"driver={format},file=file,node-name=disk,read-only={'off' if write else 'on'}",
            "--export", f"type=nbd,id=export,node-name=disk,writable={'on' if write else 'off'}",
            "--pidfile", ready,
        ]  # fmt: skip
        with subprocess.Popen(argv) as process:
            try:
                while not os.path.exists(ready):  # it is written when all is open
                    assert process.poll() is None, "the program did not start"
                    time.sleep(0.01)
                yield process.pid
            finally:
                process.terminate()
