"""Two machines on one disk: each runs pieces of Python over an engine of its own."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.pieces import PIECES
from tests.lab import bytecode
from tests.lab.guest import SHARED, drive

ROOT = Path(__file__).parents[2]
DEVICE = "/dev/disk/by-id/virtio-SHARED"
SECOND = "/dev/disk/by-id/virtio-SECOND"
DISK = 1 << 30  # bytes of each of them; sanlock takes 256 MiB
PATIENCE = 600  # seconds; a piece takes 1 to 15 at rest, and a busy machine takes its time

UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
POOL = f"""
xml = '''<pool type='shared-lvm'><name>shared</name><uuid>{UUID}</uuid><source><device path='{DEVICE}'/>
<name>vg-shared</name><lock type='%s'/></source></pool>'''
pool = engine.define(xml)
"""
LOCKS = ("system-id", "lvmlockd")

_PRELUDE = """
import os
from io import BytesIO
from poolkit import errors
from poolkit.engine import Engine

MIB = 1 << 20

def refused(kind, call, *words):
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), (str(error), words)
        return error
    raise AssertionError(f"it was not refused: {words}")

def volume(name, size=16 * MIB, more=""):
    return f"<volume><name>{name}</name><capacity>{size}</capacity>{more}</volume>"

engine = Engine("/root/root", wait=600)  # for another piece on the same machine
try:
    pool = engine.pool("shared")
except errors.PoolNotFound:
    pool = None
"""


class Node:
    """One of the machines, by its name. What runs its pieces is started with it."""

    def __init__(self, guest: Any, name: str) -> None:
        self.guest = guest
        self.name = name
        self._count = 0
        self.begin()

    def begin(self) -> None:
        """Start what runs pieces, in a machine that has just been booted."""
        bytecode.pack(self.guest.share / "bytecode.tar", ROOT)
        self.guest.exec(f"modprobe dm_mod; install -d -m 700 /root/root; mkfifo {PIECES}", PATIENCE)
        self.guest.submit(
            f"mkdir {bytecode.PREFIX}; cp -a /usr/share/lab/bytecode/. {bytecode.PREFIX}; "
            f"cp -a /opt/lab/.bytecode/. {bytecode.PREFIX} 2>/dev/null; tar -xf /lab/bytecode.tar -C {bytecode.PREFIX}; "
            f"export PYTHONPYCACHEPREFIX={bytecode.PREFIX}; exec python3 {ROOT}/tests/backends/pieces.py /lab"
        )

    def become(self, role: str) -> None:
        """Write what the host is; nothing where ``role`` is empty."""
        text = f'[node]\nname = "{self.name}"\n' + (f'role = "{role}"\n' if role else "")
        self.guest.exec(f"cat > /root/root/host.toml <<'EOF'\n{text}EOF", PATIENCE)

    def __call__(self, code: str, timeout: float = PATIENCE) -> str:
        """Run a piece of Python, in which ``pool`` is the shared one; its output. What it raises fails the test."""
        return self.submit(code)(timeout)

    def submit(self, code: str) -> Callable[..., str]:
        """Begin a piece of Python; what is returned waits for its end."""
        self._count += 1
        name, share = f"piece{self._count}", self.guest.share
        (share / f"{name}.py").write_text(_PRELUDE + textwrap.dedent(code))
        self.guest.submit(f"echo {name} > {PIECES}")

        def wait(timeout: float = PATIENCE) -> str:
            self.guest.wait_for(share / f"{name}.rc", timeout, "running a piece of Python")
            output = (share / f"{name}.out").read_text(errors="replace")
            status = (share / f"{name}.rc").read_text()
            assert status == "0", f"on {self.name}, running\n{textwrap.dedent(code)}\n{output}"
            return output

        return wait


class Pair:
    """The two nodes and their disks. ``make`` boots the machines of names, beside each other."""

    def __init__(self, make: Callable[..., list[Any]], folder: Path) -> None:
        self.disks = [folder / "shared", folder / "second"]
        for disk in self.disks:
            disk.touch()
            os.truncate(disk, DISK)
        extra = drive(self.disks[1], "SECOND", *SHARED)
        how: dict[str, Any] = {"shared": self.disks[0], "extra": extra, "disks": 0, "cpus": 1, "memory": 768}
        self._make = lambda *names: make(*names, sources=[ROOT], **how)
        self._nodes: dict[str, Node] = {}

    def ready(self) -> tuple[Node, Node]:
        """Both nodes, up, with nothing on the disks; one that was killed is booted."""
        dead = [name for name in ("one", "two") if name not in self._nodes or not self._nodes[name].guest.running]
        if dead:
            self._nodes |= {guest.name: Node(guest, guest.name) for guest in self._make(*dead)}
        for disk in self.disks:
            os.truncate(disk, 0)
            os.truncate(disk, DISK)
        for node in self._nodes.values():
            flush = f"blockdev --flushbufs {DEVICE}; blockdev --flushbufs {SECOND}"
            node.guest.exec(f"rm -rf /root/root; install -d -m 700 /root/root; {flush}", PATIENCE)
        return self._nodes["one"], self._nodes["two"]

    def clean(self) -> None:
        """Switch off what has something of the disks left, or lacks one, as after a failed test: it is booted for the next."""
        look = (
            f"dmsetup ls | grep -v 'No devices'; lvmlockctl --info 2>/dev/null | grep ^VG; [ -e {SECOND} ] || echo gone"
        )
        for node in self._nodes.values():
            if node.guest.running and node.guest.exec(look, PATIENCE).output.strip():
                node.guest.stop()


def locks(*nodes: Node) -> None:
    """Have sanlock and lvmlockd run, with a number for each host.

    A read or write of a lease fails after sanlock's time-out, and a host that is not heard of for eight times as long loses its
    locks, so that this has to be longer where other work holds up both machines, now or before the test has ended.
    """
    seconds = min(10, 1 + max(1, round(os.getloadavg()[0] / (os.cpu_count() or 1))))
    script = f"bash {ROOT}/tests/lab/locks.sh"
    jobs = [node.guest.submit(f"{script} {number} {seconds}") for number, node in enumerate(nodes, 1)]
    for node, job in zip(nodes, jobs, strict=True):
        done = node.guest.share / f"{job}.rc"
        node.guest.wait_for(done, PATIENCE, "starting lvmlockd")
        assert done.read_text().strip() == "0", (node.guest.share / f"{job}.out").read_text()


@pytest.fixture(scope="module")
def pair(lab_guests: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two machines for all tests of the module."""
    return Pair(lab_guests, tmp_path_factory.mktemp("nodes"))


@pytest.fixture
def nodes(lab_guests: Any, pair: Pair) -> Iterator[tuple[Node, Node]]:
    """Both, with nothing on the disks."""
    yield pair.ready()
    pair.clean()


def began(nodes: tuple[Node, Node], lock: str, *volumes: str, disks: int = 1) -> tuple[Node, Node]:
    """The group built by ``one``, with volumes, and the pool up on both, whose role is "both"."""
    pool = POOL if disks == 1 else POOL.replace("<name>vg", f"<device path='{SECOND}'/><name>vg")
    one, two = nodes
    for node in nodes:
        node.become("both")
    if lock == "lvmlockd":
        locks(one, two)
    more = "; ".join(f"pool.create_volume(volume('{name}'))" for name in volumes)
    one(f"{pool % lock}\npool.build(); pool.start(); {more}")
    two(f"{pool % ('auto' if lock != 'none' else 'none')}\npool.start()")
    return one, two


def ended(one: Node, two: Node) -> None:
    """Everything goes, the volumes and the group, and nothing is left on either machine."""
    two("pool.destroy()")
    one.become("both")
    one(
        """
        if pool.lock_status()["lock"] == "system-id":
            pool.take_control()
        pool.refresh()
        for v in sorted(pool.volumes(), key=lambda v: "backing" not in (v.info.detail or {})):  # snapshots first
            for node in (v.info.detail or {}).get("attached", []):
                v.detach(node=node, force=True) if node != "one" else v.detach()
            v.delete()
        pool.destroy()
        for attempt in range(30):
            try:
                pool.delete()
                break
            except errors.PoolkitError as error:
                if not isinstance(error, errors.Busy):
                    raise
                import time
                time.sleep(1)
        """
    )
    assert one.guest.exec("vgs --foreign --shared --noheadings 2>/dev/null; pvs --noheadings 2>/dev/null").output == ""
