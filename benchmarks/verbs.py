"""The verbs as people run them: whole commands beside those of qemu-img, cp and virsh, in processor time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import PYTHON, Bench, Row, best, run_cpu
from benchmarks.libvirtd import PrivateLibvirtd
from benchmarks.pools import NAME, started_pool

COMMAND = str(Path(PYTHON).with_name("poolkit"))
START = 2.5
"""How many times the processor time of an empty Python a command may take that only asks, or makes a raw volume."""
SIZE = 64 << 20
SYNCS = re.compile(r"\b(?:fsync|fdatasync|sync_file_range|syncfs)\(")
FORKS = re.compile(r"\b(?:v?fork\(|clone3?\((?!.*CLONE_THREAD))")
THREADS = re.compile(r"\bclone3?\(.*CLONE_THREAD")


class Side(NamedTuple):
    """One command of a comparison; each ``{}`` is a number that is new at each call."""

    name: str
    argv: Sequence[str | Path]


class Verb(NamedTuple):
    """A verb of ours and what does the same elsewhere; ``bar`` is for the ratio to an empty Python."""

    name: str
    ours: Sequence[str | Path]
    peers: Sequence[Side]
    bar: float | None = None


def run(bench: Bench) -> Iterator[Row]:
    """Each verb beside each of its peers and an empty Python; then how often it syncs and starts a process."""
    bench.need("verbs: the peer", "qemu-img")
    place, root = bench.fresh("images"), bench.fresh("root")
    libvirtd = bench.libvirtd()
    theirs = bench.fresh("theirs")
    with started_pool(bench, place, root=root) as pool:
        for name in ("source", "target", "grown"):
            pool.create_volume(
                f"<volume><name>{name}</name><capacity>{SIZE}</capacity><allocation>0</allocation></volume>"
            )
    data = bench.scratch / "data"
    data.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    subprocess.run(
        [COMMAND, "--root", root, "vol-upload", "source", data, "--pool", NAME], check=True, stdout=subprocess.DEVNULL
    )
    shutil.copy(data, theirs / "target")
    for grown in ("grown", "resized"):
        (theirs / grown).touch()
    pool_name = libvirtd.pool(theirs) if libvirtd is not None else ""
    numbers = count()
    for verb in verbs(root, place, theirs, data, libvirtd, pool_name):
        sides = [Side("", verb.ours), Side("python -c pass", [PYTHON, "-c", "pass"]), *verb.peers]
        calls = [lambda argv=side.argv: 1e3 * run_cpu(fresh(argv, numbers)) for side in sides]  # type: ignore[misc]
        ours, *others = best(1 if bench.quick else 2 * bench.rounds, *calls)
        for side, base in zip(sides[1:], others, strict=True):
            bar = verb.bar if side.name == "python -c pass" else None
            yield Row(f"{verb.name}, whole command", ours, "ms CPU", side.name, base, bar)
        yield from asked(bench, verb, numbers)


def fresh(argv: Sequence[str | Path], numbers: Iterator[int]) -> list[str]:
    """The words with a new number."""
    number = next(numbers)
    return [str(word).replace("{}", str(number)) for word in argv]


def verbs(
    root: Path, place: Path, theirs: Path, data: Path, libvirtd: PrivateLibvirtd | None, name: str
) -> Iterator[Verb]:
    """What is compared with what."""

    def ours(*words: str | Path) -> list[str | Path]:
        return [COMMAND, "--root", root, *words]

    def virsh(*words: str | Path) -> list[Side]:
        return [] if libvirtd is None else [Side(f"virsh {words[0]}", ["virsh", "-q", "-c", libvirtd.uri, *words])]

    def qemu(verb: str, *words: str | Path) -> Side:
        return Side(f"qemu-img {verb}", ["qemu-img", verb, *words])

    yield Verb("list", ours("list", "--all"), virsh("pool-list", "--all"), START)
    in_theirs = ("--pool", name)
    yield Verb(
        "vol-info", ours("vol-info", "source", "--pool", NAME),
        [qemu("info", "-f", "raw", place / "source"), *virsh("vol-info", "target", *in_theirs)], START,
    )  # fmt: skip
    yield Verb(
        "vol-create-as, raw", ours("vol-create-as", NAME, "raw{}", "1GiB", "--allocation", "0"),
        [
            qemu("create", "-q", "-f", "raw", theirs / "q{}", "1G"),
            *virsh("vol-create-as", name, "raw{}", "1GiB", "--allocation", "0"),
        ], START,
    )  # fmt: skip
    yield Verb(
        "vol-create-as, qcow2", ours("vol-create-as", NAME, "qcow{}", "1GiB", "--format", "qcow2"),
        [
            qemu("create", "-q", "-f", "qcow2", theirs / "qq{}", "1G"),
            *virsh("vol-create-as", name, "qcow{}", "1GiB", "--format", "qcow2"),
        ],
    )  # fmt: skip
    copy = ["cp", "--reflink=auto", "--sparse=auto", "--", place / "source", theirs / "copy{}"]
    yield Verb(
        "vol-clone, 64 MiB", ours("vol-clone", "source", "clone{}", "--pool", NAME),
        [Side("cp --reflink=auto", copy), *virsh("vol-clone", "target", "clone{}", *in_theirs)],
    )  # fmt: skip
    yield Verb(
        "vol-resize", ours("vol-resize", "grown", "7{}MiB", "--pool", NAME),  # a later number is a larger size
        [
            qemu("resize", "-q", "-f", "raw", theirs / "resized", "7{}M"),
            *virsh("vol-resize", "grown", "7{}MiB", *in_theirs),
        ],
    )  # fmt: skip
    yield Verb(
        "vol-upload, 64 MiB", ours("vol-upload", "target", data, "--pool", NAME),
        [Side("cp", ["cp", "--", data, theirs / "up"]), *virsh("vol-upload", "target", data, *in_theirs)],
    )  # fmt: skip
    yield Verb("vol-wipe, 64 MiB", ours("vol-wipe", "target", "--pool", NAME), virsh("vol-wipe", "target", *in_theirs))


def asked(bench: Bench, verb: Verb, numbers: Iterator[int]) -> Iterator[Row]:
    """How often the verb waits for the disk and starts a process: what a promise needs, and no more."""
    if not shutil.which("strace"):
        bench.note("fsyncs and forks of the verbs: strace not installed (apt install strace)")
        return
    log = bench.scratch / "calls"
    argv = [
        "strace",
        "-f",
        "-o",
        str(log),
        "-e",
        "trace=fsync,fdatasync,sync_file_range,syncfs,fork,vfork,clone,clone3",
    ]
    run_cpu([*argv, *fresh(verb.ours, numbers)])
    told = log.read_text()
    yield Row(f"{verb.name}: waits for the disk", len(SYNCS.findall(told)), "syncs")
    yield Row(f"{verb.name}: processes", len(FORKS.findall(told)), "forks")
    yield Row(f"{verb.name}: threads, of the programs as well", len(THREADS.findall(told)), "threads")
