"""What the kernel says of devices and processes in sysfs and procfs. What is not there, or may not be read, is empty."""

from __future__ import annotations

import os


def value(path: str) -> str:
    """The one value of an attribute, without the white space around it."""
    return text(path).strip()


def text(path: str) -> str:
    """All of a file, line by line as it is; bytes that are not UTF-8 appear as ``\\xNN``."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            return file.read()
    except OSError:
        return ""


def names(path: str) -> list[str]:
    """The entries of a folder, numbers in their order."""
    try:
        return sorted(os.listdir(path), key=lambda name: (len(name), name))
    except OSError:
        return []


def link(path: str) -> str:
    """Where a symbolic link leads."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
