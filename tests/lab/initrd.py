"""The kernel and the first root: what turns a kernel package into something qemu boots in two seconds."""

from __future__ import annotations

import lzma
import stat
import struct
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in @MODULES@; do insmod /modules/$m; done
i=0
while [ $i -lt 200 ]; do S=$(grep -lx labroot /sys/block/*/serial) && break; sleep 0.05; i=$((i+1)); done
B=${S%/serial}
mount -t ext4 -o ro /dev/${B##*/} /root || { echo "lab: no root image" >/dev/console; poweroff -f; }
mount --move /proc /root/proc; mount --move /sys /root/sys; mount --move /dev /root/dev
exec switch_root /root /usr/sbin/lab-init
"""


def unpack_kernel(bzimage: Path, target: Path) -> None:
    """Write the ELF kernel inside ``bzimage``: booting it (PVH) saves the unpacking in the guest, 3 s without KVM.

    The offsets are those of the x86 boot protocol (Documentation/arch/x86/boot.rst): 0x1f1 setup_sects, 0x248
    payload_offset, 0x24c payload_length. With a packing unknown here the bzImage itself is written; it boots as well.
    """
    image = bzimage.read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[((image[0x1F1] or 4) + 1) * 512 + offset :][:length]
    if payload.startswith(b"\xfd7zXZ\0"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        kernel = zlib.decompressobj(31).decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        packed = payload[:-4]  # the last four bytes are the unpacked size, not zstd's
        kernel = subprocess.run(["zstd", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    else:
        kernel = image
    target.write_bytes(kernel)


def module_order(modules: Path, names: Iterable[str]) -> list[str]:
    """The files of the named modules and of all they depend on, in loading order, relative to ``modules``."""
    depends: dict[str, tuple[str, list[str]]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        depends[Path(path).name.split(".ko")[0].replace("-", "_")] = (path, needs.split())
    order: dict[str, None] = {}
    for name in names:
        if name in depends:  # a kernel may have it built in
            path, needs = depends[name]
            order.update(dict.fromkeys([*reversed(needs), path]))
    return list(order)


def cpio_entry(number: int, name: str, mode: int, data: bytes = b"", rdev: tuple[int, int] = (0, 0)) -> bytes:
    """One member of a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def write_initrd(root: Path, modules: Path, names: Iterable[str], target: Path) -> None:
    """Write an archive with busybox from ``root``, the named modules and ``INIT``."""
    order = module_order(modules, names)
    init = INIT.replace("@MODULES@", " ".join(Path(path).name for path in order))
    members: list[tuple[str, int, bytes, tuple[int, int]]] = [
        (name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in ("bin", "proc", "sys", "dev", "modules", "root")
    ]
    members += [
        ("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)),
        ("bin/busybox", stat.S_IFREG | 0o755, (root / "usr/bin/busybox").read_bytes(), (0, 0)),
        ("bin/sh", stat.S_IFLNK | 0o777, b"busybox", (0, 0)),
        ("init", stat.S_IFREG | 0o755, init.encode(), (0, 0)),
    ]
    members += [
        (f"modules/{Path(path).name}", stat.S_IFREG | 0o644, (modules / path).read_bytes(), (0, 0)) for path in order
    ]
    members.append(("TRAILER!!!", 0, b"", (0, 0)))
    target.write_bytes(b"".join(cpio_entry(number, *member) for number, member in enumerate(members, 1)))
