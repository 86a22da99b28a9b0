"""The layout of Sheepdog's messages and objects, as bytes; nothing here talks to anybody.

A message is a header of 48 bytes, little endian, and ``data_length`` bytes of payload: with a request only where it has the flag
``WRITE``, with a response only where something is read. Numbers and offsets are those of sheepdog's ``include/sheepdog_proto.h``
and ``include/internal_proto.h``, versions 0.8 to 1.0.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from poolkit import errors

PORT = 7000
HEADER = 48
NAME = 256
"""Bytes of a name or tag, the NUL at its end included (SD_MAX_VDI_LEN, SD_MAX_VDI_TAG_LEN)."""

# Operations of clients (protocol version 2) ...
CREATE_AND_WRITE, READ, WRITE, NEW_VDI, GET_VDI_INFO, READ_VDIS, DELETE_VDI = 0x01, 0x02, 0x03, 0x11, 0x14, 0x15, 0x17
# ... and of Sheepdog's own tools, which must say the internal version exactly.
INTERNAL = 0x80
NODES, STAT_NODE, STAT_CLUSTER, READ_DELETED = 0x82, 0x86, 0x87, 0xC9
VERSION = 2
VERSIONS = (10, 9, 8, 7, 6, 5)
"""Internal versions, as they are tried: 1.0 has 10, 0.9 and 0.8 have 9, 0.7 has 8 (SD_SHEEP_PROTO_VER)."""

F_WRITE, F_DIRECT = 0x01, 0x08  # SD_FLAG_CMD_WRITE, SD_FLAG_CMD_DIRECT

OK, NO_OBJECT, EXISTS, LOCKED, NO_VDI, NO_TAG = 0x00, 0x02, 0x04, 0x07, 0x08, 0x0E
WRONG_VERSION, NO_SPACE, UNFORMATTED, WAITING, HALTED, READ_ONLY = 0x14, 0x15, 0x16, 0x17, 0x19, 0x1A
MEANINGS = {
    0x01: "an unknown error", NO_OBJECT: "no such object", 0x03: "I/O error", 0x05: "bad parameters", 0x06: "a system error",
    LOCKED: "a machine has the disk open", 0x09: "no such base", 0x0A: "the disk cannot be read",
    0x0B: "the disk cannot be written", 0x0F: "the node is starting", 0x11: "the node is shutting down",
    0x12: "out of memory", 0x13: "it has as many disks as it can have", READ_ONLY: "it cannot be written to",
}  # fmt: skip
"""What results mean that are no error of their own here."""

NODE = 80
MOST_NODES = 6144  # SD_MAX_NODES
BITMAP = 2097152
"""Bytes of the map of VDIs in use: one bit for each of 2^24 (SD_NR_VDIS)."""
STATUS = 48  # of struct cluster_info, without nodes
INODE, MAP, REFERENCES = 4664, 4664, 4198968
"""Bytes of an inode before its map of objects; where that begins; and where the references of versions since 0.9 begin."""
HEAD = 568
MOST_OBJECTS = 1 << 20
SHIFT = 22
"""A data object has 4 MiB unless the inode says otherwise."""
SIZE_AT, TAG_AT = 536, 256
HYPER = 1 << 54
"""Bytes of the largest volume that there can be, 16 PiB (store_policy 1)."""

_HEAD = struct.Struct("<BBHIII")
_OBJECT = struct.Struct("<QQBBBxIII")
_VDI = struct.Struct("<QIBBBBII8x")
_INODE = struct.Struct("<256s256sQQQQQBBBBIII")
_ANSWER_VDI = struct.Struct("<I4xIIBB14x")


class Damaged(errors.HostError):
    """An inode says what cannot be. It is the fault of its disk alone."""

    @property
    def code(self) -> str:
        """As its base: what it is called is nobody's affair."""
        return "host-error"


class Inode(NamedTuple):
    """A VDI as its inode has it; sizes in bytes, times in nanoseconds since 1970. ``name`` and ``tag`` are bytes without NUL."""

    name: bytes
    tag: bytes
    created: int
    snapshot_at: int
    size: int
    copy_policy: int
    store_policy: int
    copies: int
    shift: int
    snapshot: int
    vid: int
    parent: int

    @property
    def is_snapshot(self) -> bool:
        """Whether it can no longer be written to."""
        return self.snapshot_at != 0

    @property
    def hyper(self) -> bool:
        """Whether its objects are in a tree instead of a map (larger than 4 TiB)."""
        return self.store_policy != 0

    @property
    def objects(self) -> int:
        """How many data objects its size spans."""
        return -(-self.size >> self.shift)


def request(
    operation: int, length: int, union: bytes = bytes(32), *, flags: int = 0, version: int = VERSION, number: int = 0
) -> bytes:
    """The header of a request; ``length`` is what is sent with it, or the room for the answer."""
    return _HEAD.pack(version, operation, flags, 0, number, length) + union


def object_union(oid: int, offset: int = 0, *, copies: int = 0, copy_policy: int = 0) -> bytes:
    """The middle of a request for an object."""
    return _OBJECT.pack(oid, 0, copies, copy_policy, 0, 0, offset, 0)


def vdi_union(
    size: int = 0, base: int = 0, *, copies: int = 0, copy_policy: int = 0, shift: int = 0, snapshot: int = 0
) -> bytes:
    """The middle of a request for a VDI: ``base`` is the one it is made from, ``snapshot`` its number or 1 to make one."""
    return _VDI.pack(size, base, copies, copy_policy, 0, shift, snapshot, 0)


def padded(text: bytes) -> bytes:
    """A name or tag as it is sent."""
    return text.ljust(NAME, b"\0")


def inode_oid(vid: int) -> int:
    """The object that holds a VDI's inode."""
    return 1 << 63 | vid << 32


def data_oid(vid: int, index: int) -> int:
    """The object that holds a piece of a VDI's data."""
    return vid << 32 | index


class Answer(NamedTuple):
    """The header of a response: what it answers, what came of it, and the bytes that follow; ``union`` is its middle."""

    operation: int
    number: int
    length: int
    union: bytes

    @property
    def result(self) -> int:
        """0 for success, else one of the results."""
        return int.from_bytes(self.union[:4], "little")

    @property
    def vid(self) -> int:
        """The VDI that a request found or made."""
        return int(_ANSWER_VDI.unpack(self.union)[1])

    @property
    def shift(self) -> int:
        """Size of the data objects of a VDI that was made, as a power of two; 0 where the version does not say."""
        return int(_ANSWER_VDI.unpack(self.union)[4])

    @property
    def space(self) -> tuple[int, int]:
        """Bytes of a node's store, and how many of them are free."""
        size, free = struct.unpack_from("<QQ", self.union, 16)
        return size, free

    @property
    def offset(self) -> int:
        """Where in an object the bytes belong that follow: zeros at either end are not sent."""
        return int.from_bytes(self.union[8:16], "little")


def answer(header: bytes) -> Answer:
    """A response taken apart."""
    _, operation, _, _, number, length = _HEAD.unpack_from(header)
    return Answer(operation, number, length, header[16:48])


def inode(data: bytes, vid: int) -> Inode:
    """The inode of a VDI; ``Damaged`` for one that cannot be."""
    name, tag, created, snapshot_at, _, size, _, copy, store, copies, shift, number, own, parent = _INODE.unpack_from(
        data
    )
    shift = shift or SHIFT
    if own != vid and name.strip(b"\0"):
        raise Damaged(f"the inode of VDI {vid:x} says that it is {own:x}")
    if not 20 <= shift <= 31 or size > HYPER or (not store and size > MOST_OBJECTS << shift):
        raise Damaged(f"the inode of VDI {vid:x} says {size} bytes in objects of 2^{shift}")
    return Inode(
        name.partition(b"\0")[0], tag.partition(b"\0")[0], _time(created), _time(snapshot_at), size, copy, store, copies,
        shift, number, own, parent,
    )  # fmt: skip


def _time(stamp: int) -> int:
    """Seconds above, nanoseconds below."""
    return (stamp >> 32) * 1_000_000_000 + min(stamp & 0xFFFFFFFF, 999_999_999)


def node_address(data: bytes, at: int) -> tuple[str, int]:
    """Address and port of a node of the list; ``HostError`` for none."""
    import ipaddress

    raw, port = data[at + 24 : at + 40], int.from_bytes(data[at + 40 : at + 42], "little")
    if not port:
        raise errors.HostError("the cluster lists a node without a port")
    if not any(raw[:12]):
        return str(ipaddress.IPv4Address(raw[12:])), port
    return str(ipaddress.IPv6Address(raw)), port


def vids(bitmap: bytes) -> list[int]:
    """The numbers of the bits that are set."""
    found = []
    for at in range(0, len(bitmap), 4096):
        piece = bitmap[at : at + 4096]
        if any(piece):
            found += [
                (at + place) * 8 + bit
                for place, byte in enumerate(piece)
                if byte
                for bit in range(8)
                if byte >> bit & 1
            ]
    return found
