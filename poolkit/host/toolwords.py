"""What programs say, as their users can read it: names for descriptors, and sentences for some of qemu-img's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_DESCRIPTOR = re.compile(r"/proc/self/fd/([0-9]+)|/dev/fd/([0-9]+)")
_KNOWN = (
    # It was given a descriptor, and what it may not delete by that name is ours to delete: the cause is in its other lines.
    (re.compile(r"^(?:qemu-img: )?Error when deleting file .*$"), ""),
    # From QEMU's block/file-posix.c, block/qcow2.c, block/crypto.c and crypto/block-luks.c.
    (re.compile(r"Failed to get (?:shared )?\"\w+\" lock.*$"), "another program has the image open"),
    (re.compile(r"Is another process using the image.*$"), ""),
    (re.compile(r"Parameter '(?:[\w.-]+\.)?key-secret' is required.*$"), "the image is encrypted, and no secret opens it"),
    (re.compile(r"Invalid password, cannot unlock any keyslot.*$"), "the secret does not open the encrypted image"),
    # From libmount's error messages and mount.cifs.
    (
        re.compile(r"^(?:mount: )?\S*:? ?wrong fs type, bad option, bad superblock on .*$"),
        "its file system is not the one that was named, is damaged, or does not take one of the mount options",
    ),
    (
        re.compile(r"^(?:mount: )?\S*:? ?unknown filesystem type '([^']*)'\.?$"),
        r"this kernel has no file system '\1', and no program mount.\1 is installed",
    ),
    (re.compile(r"^(?:mount: )?\S*:? ?can't read superblock on (\S+?)\.?$"), r"the first blocks of '\1' cannot be read"),
    (re.compile(r"^.*dmesg\(1\).*$"), ""),
    (re.compile(r"^Refer to the mount\.cifs\(8\) manual page.*$"), ""),
)  # fmt: skip


def last_words(text: str, descriptors: Iterable[int] = ()) -> str:
    """As :func:`sentence`, after a colon; empty if it said nothing."""
    said = sentence(text, descriptors)
    return f": {said}" if said else ""


def sentence(text: str, descriptors: Iterable[int] = ()) -> str:
    """The last three lines of what a program said, in words for its users; empty if it said nothing.

    ``descriptors`` are those that it was given: the names of their files stand for the numbers.
    """
    given = set(descriptors)

    def named(match: re.Match[str]) -> str:
        number = int(match[1] or match[2])
        if number not in given:
            return match[0]
        try:
            return os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            return match[0]

    lines: list[str] = []
    for line in text.splitlines():
        line = _DESCRIPTOR.sub(named, line.strip())
        for pattern, words in _KNOWN:
            line = pattern.sub(words, line)
        if line and line not in lines[-1:]:
            lines.append(line)
    return "; ".join(lines[-3:])[:500]
