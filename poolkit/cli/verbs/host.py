"""The verbs of this machine."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.cli.verbs import BYTES, Verb

_DEFINE = flag("--define", "print definitions of pools with these sources, ready to be defined")

VERBS: tuple[Verb, ...] = (
    Verb(
        "capabilities", "host_verbs:capabilities", "print the pool types and formats there are, as libvirt prints them",
        (data("type", "show what pools of one type can do, as a table", times="?"),), ("pool-capabilities",), "host", "types",
    ),
    Verb(
        "find-sources", "host_verbs:find_sources", "search for sources of pools",
        (
            data("type", "pool type"),
            data("srcSpec", "document with the <source> to search, such as a server", "file", "?"), _DEFINE,
        ),
        ("find-storage-pool-sources",), "host", "sources",
    ),
    Verb(
        "find-sources-as", "host_verbs:find_sources_as", "search for sources of pools on a server",
        (
            data("type", "pool type"), data("host", "server", times="?"), data("port", "its port", "number", "?"),
            option("--initiator", "iSCSI initiator name to search as", late=True), _DEFINE,
        ),
        ("find-storage-pool-sources-as",), "host", "sources",
    ),
    Verb(
        "probe", "host_verbs:probe", "say what the headers of image files or devices say; needs no pool",
        (data("file", "image files or block devices", "file", "+"), BYTES), group="host", json="images",
        more="Nothing but the file itself is opened. The answer is advice: whoever wrote the file wrote the header.",
    ),
    Verb(
        "recover", "host_verbs:recover", "finish or undo what commands that were killed had left", group="host", json="recovered",
        more="Every command does this first for what it touches; this one reports it.",
    ),
    Verb(
        "doctor", "host_verbs:doctor", "check folders, programs, definitions and left-over work", group="host", json="health",
        more="The exit status is 1 if something is wrong that keeps poolkit from working.",
    ),
    Verb(
        "systemd-unit", "unit_verbs:systemd_unit", "print a unit for systemd: one that starts pools at boot, or a drift check",
        (
            data("which", "boot starts the pools that are marked; drift compares with documents, by a timer", "word",
                 choices=("boot", "drift")),
            data("path", "for drift: the folders of documents (poolkit/documents in /etc or in the user's configuration)",
                 "file", "*"),
            flag("--user", "for the systemd of a user instead of the machine's"),
            option("--every", "for drift: when, as systemd.time(7) has it (hourly by default)"),
            option("--into", "write the units into this folder", "directory"),
        ),
        group="host", json="units",
        more="The units call this command by its path, with --root if it is given. The drift check fails (exit status 2) when "
        "there is something to do, which OnFailure= of a drop-in can tell somebody; the journal has what it is.",
    ),
)  # fmt: skip
