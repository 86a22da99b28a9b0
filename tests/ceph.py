"""A small Ceph cluster for tests: one monitor, one OSD that keeps its data in memory, one manager; cephx, loopback only.

Everything is in one folder and belongs to this process: the daemons run in the foreground and are killed with it. It is up in
about a second, and takes about 100 MB and what is written to it.

What is set to be quick: map changes are proposed every 50 ms (by default a second, which each snapshot takes twice), the
manager has no modules (statistics need none, and they take 270 MB and two seconds), and statistics are made every second.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poolkit.families import ceph

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph-mgr", "ceph-authtool", "monmaptool", "rbd")
PROFILE = ("--cap", "mon", "profile rbd", "--cap", "osd", "profile rbd", "--cap", "mgr", "profile rbd")
READ_ONLY = ("--cap", "mon", "profile rbd-read-only", "--cap", "osd", "profile rbd-read-only")

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:{host}:{port}/0]
mon_initial_members = a
public_addr = {address}
cluster_addr = {address}
ms_bind_msgr1 = false
ms_bind_ipv4 = {four}
ms_bind_ipv6 = {six}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/$name.keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
crash_dir = {folder}
log_to_stderr = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 2000
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
[client]
admin_socket =
log_file =
[mon]
mon_data = {folder}/mon
keyring = {folder}/mon/keyring
mon_cluster_log_to_file = false
mon_data_avail_crit = 1
mon_data_avail_warn = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
[mgr]
mgr_data = {folder}/mgr
mgr_module_path = {folder}/no-modules
mgr_initial_modules =
mgr_tick_period = 1
mgr_stats_period = 1
[osd]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
# how long an image counts as open whose client has died; 30 by default
osd_client_watch_timeout = 5
"""


class Cluster:
    """A cluster that is up; ``close`` ends it. ``keys`` has the key of each client, ``host`` the monitor's address for URLs."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.host = f"[{address}]" if ":" in address else address
        self.folder = Path(
            tempfile.mkdtemp(prefix="pk-ceph-", dir="/tmp")
        )  # short: sockets are in it (sun_path, 108 bytes)
        self.configuration = self.folder / "ceph.conf"
        self.keys: dict[str, str] = {}
        self._first = ""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._handle = ctypes.c_void_p()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for name in ("mon", "osd", "mgr", "no-modules"):
            (self.folder / name).mkdir()
        with self._socket() as free:
            free.bind((self.address, 0))
            self.port = free.getsockname()[1]
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        six = str(":" in self.address).lower()
        four = "false" if six == "true" else "true"
        where = {"host": self.host, "address": self.address, "four": four, "six": six, "port": self.port}
        self.configuration.write_text(CONFIGURATION.format(folder=self.folder, fsid=fsid, **where))
        everything = [word for what in ("mon", "osd", "mgr") for word in ("--cap", what, "allow *")]
        self._key("mon.", *everything)
        self._key("client.admin", *everything)
        self._key("client.poolkit", *PROFILE)
        self._key("client.reader", *READ_ONLY)
        self._key(
            "osd.0", "--cap", "mon", "allow profile osd", "--cap", "mgr", "allow profile osd", "--cap", "osd", "allow *"
        )
        self._key("mgr.x", "--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *")
        first = self.folder / "first.keyring"
        first.write_text(self._first)
        address = f"[v2:{self.host}:{self.port}/0]"
        monmap = str(self.folder / "monmap")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(first), *_as_root())
        self._daemon("ceph-mon", "a")
        # --no-mon-config: it would log in before it has a number
        self._run("ceph-osd", "-i", "0", "--mkfs", "--no-mon-config", "--osd-uuid", osd, *_as_root())
        until("the monitor", self._monitor_listens)
        self._connect()
        self.command(prefix="osd new", uuid=osd, id=0)
        # else the manager makes a pool of its own
        setting = {"who": "mgr", "name": "mgr/devicehealth/enable_monitoring", "value": "false"}
        self.command(prefix="config set", force=True, **setting)
        self._daemon("ceph-mgr", "x")
        self._daemon("ceph-osd", "0")
        until("the OSD", lambda: self.command(prefix="osd stat")["num_up_osds"] == 1)

    # -- daemons ----------------------------------------------------------------------------------------------------

    def _key(self, name: str, *capabilities: str) -> None:
        path = self.folder / f"{name}.keyring"
        self._run("ceph-authtool", "-C", str(path), "-n", name, "--gen-key", *capabilities)
        text = path.read_text()
        self._first += text
        self.keys[name.removeprefix("client.")] = text.split("key = ")[1].split()[0]

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{argv[0]} failed with status {done.returncode}: {done.stdout}"

    @property
    def environment(self) -> dict[str, str]:
        """For programs of Ceph: where the configuration is."""
        return {**os.environ, "CEPH_CONF": str(self.configuration)}

    def _daemon(self, program: str, name: str) -> None:
        kind = program.removeprefix("ceph-")
        with open(self.folder / f"{kind}.out", "ab") as out:
            self.daemons[kind] = subprocess.Popen(
                [program, "-f", "-i", name, *_as_root()], env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _monitor_listens(self) -> bool:
        with self._socket() as probe:
            return probe.connect_ex((self.address, self.port)) == 0

    def _socket(self) -> socket.socket:
        return socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)

    @contextmanager
    def frozen(self, kind: str) -> Iterator[None]:
        """A daemon that answers nothing for as long as the body: ``mon``, ``osd`` or ``mgr``."""
        os.kill(self.daemons[kind].pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.daemons[kind].pid, signal.SIGCONT)
            until("the OSD", lambda: self.command(prefix="osd stat")["num_up_osds"] == 1)
            self.rbd("ls", "rbd")  # it has got through what was waiting for it

    def close(self) -> None:
        """End the daemons and remove the folder."""
        if self._handle:
            _rados().rados_shutdown(self._handle)
            self._handle = ctypes.c_void_p()
        for kind in ("osd", "mgr", "mon"):
            if kind in self.daemons:
                self.daemons[kind].kill()  # the data is of no use any more
        for daemon in self.daemons.values():
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- administration -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        rados = _rados()
        assert rados.rados_create(ctypes.byref(self._handle), b"admin") == 0
        for name, value in {
            "mon_host": f"v2:{self.host}:{self.port}", "key": self.keys["admin"], "client_mount_timeout": "20", "log_file": "",
            "admin_socket": "", "log_to_stderr": "false",
        }.items():  # fmt: skip
            rados.rados_conf_set(self._handle, name.encode(), value.encode())
        answer = rados.rados_connect(self._handle)
        assert answer == 0, f"the monitor refuses its administrator: {answer}"

    def command(self, **words: Any) -> Any:
        """What a monitor answers to a command, as ``ceph`` would send it."""
        text = json.dumps({**words, "format": "json"}).encode()
        given = (ctypes.c_char_p * 1)(text)
        out, size, said, length = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_void_p(), ctypes.c_size_t()
        rados = _rados()
        answer = rados.rados_mon_command(
            self._handle, given, ctypes.c_size_t(1), None, ctypes.c_size_t(0), ctypes.byref(out), ctypes.byref(size),
            ctypes.byref(said), ctypes.byref(length),
        )  # fmt: skip
        found = ctypes.string_at(out, size.value) if out else b""
        why = ctypes.string_at(said, length.value).decode() if said else ""
        for buffer in (out, said):
            rados.rados_buffer_free(buffer)
        assert answer == 0, f"{words}: {answer} {why}"
        return json.loads(found) if found.strip() else None

    def make_pool(self, name: str) -> None:
        """A pool for images."""
        self.command(prefix="osd pool create", pool=name, pg_num=8)
        context = ctypes.c_void_p()
        rados, rbd = _rados(), ctypes.CDLL("librbd.so.1")
        assert rados.rados_ioctx_create(self._handle, name.encode(), ctypes.byref(context)) == 0
        try:
            assert rbd.rbd_pool_init(context, ctypes.c_bool(True)) == 0
        finally:
            rados.rados_ioctx_destroy(context)

    def make_namespace(self, pool: str, name: str) -> None:
        """A namespace of a pool."""
        context = ctypes.c_void_p()
        rados, rbd = _rados(), ctypes.CDLL("librbd.so.1")
        assert rados.rados_ioctx_create(self._handle, pool.encode(), ctypes.byref(context)) == 0
        try:
            assert rbd.rbd_namespace_create(context, name.encode()) == 0
        finally:
            rados.rados_ioctx_destroy(context)

    def delete_pool(self, name: str) -> None:
        """Take a pool away with all that is in it."""
        self.command(prefix="osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)

    def statistics(self, *pools: str) -> None:
        """Wait until the cluster has counted itself and ``pools``."""
        until("statistics", lambda: self._counted(pools))

    def _counted(self, pools: tuple[str, ...]) -> bool:
        found = self.command(prefix="df")
        return bool(found["stats"]["total_bytes"]) and set(pools) <= {pool["name"] for pool in found["pools"]}

    def rbd(self, *words: str, check: bool = True, **how: Any) -> subprocess.CompletedProcess[bytes]:
        """Ceph's own program for images."""
        return subprocess.run(["rbd", *words], env=self.environment, check=check, capture_output=True, **how)

    def settings(self, user: str = "admin", **more: str) -> dict[str, str]:
        """Options of a client, for ``poolkit.families.ceph.connect``."""
        return {
            "mon_host": f"v2:{self.host}:{self.port}", "key": self.keys[user], "log_file": "", "admin_socket": "",
            **dict.fromkeys(ceph.TIMEOUTS, "20"), **more,
        }  # fmt: skip


def until(what: str, ready: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something of the cluster."""
    deadline = time.monotonic() + seconds
    late = False
    while not ready():
        assert not late, f"still waiting for {what}"
        time.sleep(0.02)
        late = time.monotonic() > deadline


def _rados() -> ctypes.CDLL:
    library = ctypes.CDLL("librados.so.2")
    library.rados_shutdown.argtypes = library.rados_ioctx_destroy.argtypes = [ctypes.c_void_p]
    library.rados_buffer_free.argtypes = [ctypes.c_void_p]
    return library


def _as_root() -> list[str]:
    return ["--setuser", "root", "--setgroup", "root"] if os.geteuid() == 0 else []  # else they become user ceph


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # linux/prctl.h, PR_SET_PDEATHSIG
