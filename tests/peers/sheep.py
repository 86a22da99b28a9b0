"""A small Sheepdog cluster in one process: its nodes' ports, its VDIs and objects in memory, its wire protocol.

Written from the protocol's tables, as poolkit's client is, but from the other end and on its own: it shares no code with it, and
answers what a real 1.0.1 cluster was recorded to answer (``tests/data/sheepdog``). It prints one line of JSON with the ports, and
ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import json
import socketserver
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PAGE = 4096
WHOLE, MAP, REFERENCES = 12587576, 4664, 4198968
COUNT = 1 << 20
MiB4 = 22
CREATED = 0x6B00447D235F2530  # of the cluster


class Sparse:
    """Bytes of which most are zero."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pages: dict[int, bytearray] = {}

    def read(self, at: int, length: int) -> bytes:
        out = bytearray()
        while len(out) < length:
            page, offset = divmod(at + len(out), PAGE)
            piece = min(PAGE - offset, length - len(out))
            out += self.pages[page][offset : offset + piece] if page in self.pages else bytes(piece)
        return bytes(out)

    def write(self, at: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            page, offset = divmod(at + done, PAGE)
            piece = data[done : done + PAGE - offset]
            if page in self.pages or any(piece):
                self.pages.setdefault(page, bytearray(PAGE))[offset : offset + len(piece)] = piece
            done += len(piece)

    def number(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self.read(at, size), "little")

    def put(self, at: int, value: int, size: int = 4) -> None:
        self.write(at, value.to_bytes(size, "little"))


class Refused(Exception):
    """A result that is not success."""


class Cluster:
    """What all nodes know."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.inodes: dict[int, Sparse] = {}
        self.deleted: set[int] = set()
        self.objects: dict[int, Sparse] = {}
        self.ports: list[int] = []
        self.asked: list[int] = []

    # -- names ----------------------------------------------------------------------------------------------------

    @staticmethod
    def hash(name: bytes) -> int:
        """Where the search for a free number begins: FNV-1a of 64 bits."""
        value = 0xCBF29CE484222325
        for byte in name:
            value = (value ^ byte) * 0x100000001B3 % (1 << 64)
        return value & 0xFFFFFF

    def named(self, name: bytes) -> list[int]:
        return [v for v, i in self.inodes.items() if v not in self.deleted and i.read(0, 256).rstrip(b"\0") == name]

    def find(self, name: bytes, tag: bytes, snapshot: int) -> int:
        found = self.named(name)
        if not found:
            raise Refused(0x08)
        for vid in found:
            inode = self.inodes[vid]
            is_snapshot = inode.number(520, 8) != 0
            if tag or snapshot:
                same = inode.read(256, 256).rstrip(b"\0") == tag if tag else inode.number(556) == snapshot
                if is_snapshot and same:
                    return vid
            elif not is_snapshot:
                return vid
        raise Refused(0x0E if tag or snapshot else 0x08)

    def new(self, name: bytes, union: bytes) -> tuple[int, int, int]:
        size, base, copies, policy, _, shift, snapshot, _ = struct.unpack_from("<QIBBBBII", union)
        if self.options.full:
            raise Refused(0x15)
        working = [v for v in self.named(name) if not self.inodes[v].number(520, 8)]
        if working and not snapshot:
            raise Refused(0x04)
        if base and base not in self.inodes:
            raise Refused(0x09)
        vid = self.hash(name)
        while vid in self.inodes or not vid:
            vid = (vid + 1) & 0xFFFFFF
        now = time.time_ns()
        stamp = now // 10**9 << 32 | now % 10**9
        inode = Sparse(WHOLE)
        shift = shift or self.options.shift
        inode.write(0, name)
        inode.put(512, stamp, 8)
        inode.put(536, size, 8)
        inode.write(552, bytes([policy, 0, copies or self.options.copies, shift]))
        inode.put(556, 1)
        inode.put(560, vid)
        if base:
            below = self.inodes[base]
            inode.put(564, base)
            if snapshot:
                inode.put(556, below.number(556) + 1)
                below.put(520, stamp, 8)
            for index in range(self.span(below)):
                if owner := below.number(MAP + 4 * index):
                    inode.put(MAP + 4 * index, owner)
                    if not self.options.old:
                        inode.put(REFERENCES + 8 * index, below.number(REFERENCES + 8 * index) + 1)
        self.inodes[vid] = inode
        return vid, copies or self.options.copies, shift

    @staticmethod
    def span(inode: Sparse) -> int:
        """How many data objects its pages can name."""
        last = max((page for page in inode.pages if page * PAGE < REFERENCES), default=0)
        return min(COUNT, max(0, ((last + 1) * PAGE - MAP) // 4))

    def delete(self, name: bytes, tag: bytes, snapshot: int) -> int:
        vid = self.find(name, tag, snapshot)
        self.deleted.add(vid)
        if self.options.old:
            inode = self.inodes[vid]
            for index in range(self.span(inode)):
                self.release(inode.number(MAP + 4 * index), index, but=vid)
        self.inodes[vid].write(0, bytes(256))
        return vid

    def release(self, owner: int, index: int, *, but: int = 0) -> None:
        """Free an object that nobody names any more."""
        used = (i for v, i in self.inodes.items() if v != but and not (self.options.old and v in self.deleted))
        if owner and all(inode.number(MAP + 4 * index) != owner for inode in used):
            self.objects.pop(owner << 32 | index, None)

    # -- objects --------------------------------------------------------------------------------------------------

    def object(self, oid: int) -> Sparse:
        found = self.inodes.get(oid >> 32 & 0xFFFFFF) if oid >> 63 else self.objects.get(oid)
        if found is None:
            raise Refused(0x02)
        return found

    def read(self, oid: int, offset: int, length: int) -> bytes:
        found = self.object(oid)
        limit = REFERENCES if oid >> 63 and self.options.old else found.size
        if offset + length > limit:
            raise Refused(0x03)
        return found.read(offset, length)

    def write(self, oid: int, offset: int, data: bytes, create: bool) -> None:
        if self.options.full and create:
            raise Refused(0x15)
        if create:
            inode = self.inodes.get(oid >> 32 & 0xFFFFFF)
            if inode is None:
                raise Refused(0x02)
            self.objects.setdefault(oid, Sparse(1 << inode.read(555, 1)[0]))
        found = self.object(oid)
        if offset + len(data) > found.size:
            raise Refused(0x05)
        if not oid >> 63 or self.options.old or not MAP <= offset < REFERENCES:
            found.write(offset, data)
            return
        first = (offset - MAP) // 4
        before = [found.number(MAP + 4 * (first + n)) for n in range(min(len(data) // 4, self.span(found)))]
        found.write(offset, data)
        for n, owner in enumerate(before):
            if owner and found.number(MAP + 4 * (first + n)) != owner:
                self.release(owner, first + n)

    # -- requests -------------------------------------------------------------------------------------------------

    def answer(self, header: bytes, data: bytes, node: int) -> bytes:
        """The whole response."""
        version, op, _, _, number, length = struct.unpack_from("<BBHIII", header)
        union = header[16:]
        middle, payload = bytearray(32), b""
        try:
            if version != (2 if op < 0x80 else self.options.version):
                raise Refused(0x14)
            with self.lock:
                self.asked.append(op)
                payload = self.do(op, union, data, length, middle, node)
        except Refused as refused:
            middle[0:4] = int(refused.args[0]).to_bytes(4, "little")
        return struct.pack("<BBHIII", 0, op, 0, 1, number, len(payload)) + bytes(middle) + payload

    def do(self, op: int, union: bytes, data: bytes, length: int, middle: bytearray, node: int) -> bytes:
        states = {"running": 0, "unformatted": 0x16, "waiting": 0x17, "halted": 0x19}
        down = states[self.options.state]
        if op == 0x82:
            middle[4:8] = len(self.ports).to_bytes(4, "little")
            return b"".join(self.node(n) for n in range(len(self.ports)))
        if op in (0x87, 0xBE):
            if down:
                raise Refused(down)
            if op == 0x87:
                return struct.pack("<QQQ8s16s", CREATED, 0, 1, bytes.fromhex("0001000000000400"), b"plain")
            return self.cluster_info().ljust(length, b"\0")
        if down and op != 0x15:
            raise Refused(down)
        if op == 0x86:
            middle[4:8] = len(self.ports).to_bytes(4, "little")
            used = sum(len(o.pages) * PAGE for o in self.objects.values()) // len(self.ports)
            middle[16:32] = struct.pack("<QQ", self.options.space, self.options.space - used)
            return b""
        if op in (0x15, 0xC9):
            if op == 0xC9 and (self.options.no_deleted or self.options.old):
                raise Refused(0x05)
            bits = bytearray(2097152)
            for vid in (self.inodes if op == 0x15 else self.deleted) if not down else ():
                bits[vid // 8] |= 1 << vid % 8
            return bytes(bits)
        if op == 0x14:
            vid = self.find(
                data[:256].rstrip(b"\0"), data[256:512].rstrip(b"\0"), struct.unpack_from("<I", union, 16)[0]
            )
            inode = self.inodes[vid]
            middle[8:12] = vid.to_bytes(4, "little")
            middle[16:18] = inode.read(554, 2)
            return b""
        if op == 0x11:
            vid, copies, shift = self.new(data[:256].rstrip(b"\0"), union)
            middle[8:12] = vid.to_bytes(4, "little")
            middle[16:18] = bytes([copies, shift if self.options.version >= 10 else 0])
            return b""
        if op == 0x17:
            number = struct.unpack_from("<I", union, 16)[0]
            vid = self.delete(data[:256].rstrip(b"\0"), data[256:512].rstrip(b"\0"), number)
            middle[8:12] = vid.to_bytes(4, "little")
            return b""
        oid, _, _, _, _, _, offset = struct.unpack_from("<QQBBBxII", union)
        if op == 0x02:
            return self.read(oid, offset, length)
        if op in (0x01, 0x03):
            self.write(oid, offset, data, op == 0x01)
            return b""
        raise Refused(0x05)

    def node(self, number: int) -> bytes:
        """An entry of the list of nodes."""
        made = bytearray(80)
        made[0] = 1
        made[36:40] = bytes([127, 0, 0, 1])
        struct.pack_into("<H", made, 40, self.ports[number])
        struct.pack_into("<HxxIQ", made, 64, 128, number, 0x0EBF33C000)
        return bytes(made)

    def cluster_info(self) -> bytes:
        head = bytes.fromhex("0a00010001000000") + struct.pack("<Q", CREATED) + bytes.fromhex("040001000116000000")
        return (head + b"plain").ljust(48, b"\0") + b"".join(self.node(n) for n in range(len(self.ports)))


class Node(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        cluster: Cluster = self.server.cluster  # type: ignore[attr-defined]
        while True:
            header = self.take(48)
            if header is None:
                return
            _, _, flags, _, _, length = struct.unpack_from("<BBHIII", header)
            data = b""
            if flags & 1:
                taken = self.take(length)
                if taken is None:
                    return
                data = taken
            if cluster.options.silent:
                threading.Event().wait()
            self.request.sendall(cluster.answer(header, data, self.server.server_address[1]))

    def take(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            try:
                piece = self.request.recv(min(1 << 20, length - len(data)))
            except OSError:
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


def parsed(words: list[str]) -> argparse.Namespace:
    """The options of a cluster."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--version", type=int, default=10, help="the internal version of the protocol")
    parser.add_argument("--state", default="running", choices=("running", "unformatted", "waiting", "halted"))
    parser.add_argument("--space", type=int, default=70353240064, help="bytes of each node's store")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--shift", type=int, default=MiB4)
    parser.add_argument("--no-deleted", action="store_true", help="as 0.9.0: no list of deleted VDIs")
    parser.add_argument("--old", action="store_true", help="as 0.8: no reference counts")
    parser.add_argument("--full", action="store_true", help="no space is left")
    parser.add_argument("--silent", action="store_true", help="take connections and never answer")
    return parser.parse_args(words)


def main() -> None:
    """Serve until standard input ends."""
    cluster = Cluster(parsed(sys.argv[1:]))
    servers = [Server(("127.0.0.1", 0), Node) for _ in range(cluster.options.nodes)]
    for server in servers:
        server.cluster = cluster  # type: ignore[attr-defined]
        cluster.ports.append(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(cluster.ports), flush=True)
    sys.stdin.read()


class Sheep:
    """The cluster as a process of its own; use as a context manager."""

    def __init__(self, *options: str) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, Path(__file__), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.ports: list[int] = json.loads(self.process.stdout.readline())

    def __enter__(self) -> Sheep:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    main()
