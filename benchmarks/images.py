"""Refreshes of a directory pool of 10,000 qcow2 images beside the C floor: overlays of one template, and images with data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, best
from benchmarks.pools import first_refresh

NOT_MORE = 2.0
UNCHANGED = 0.75


def run(bench: Bench) -> Iterator[Row]:
    """Overlays as qemu-img makes them, of one template or each of its own, and images that are full."""
    bench.need("refresh of qcow2 images", "qemu-img")
    count = 1_000 if bench.quick else 10_000
    floor = bench.floor()
    for what, files, bars in (
        ("overlays", overlays(bench, count), (NOT_MORE, UNCHANGED)),
        ("images with data", full(bench, count), (NOT_MORE, UNCHANGED)),
        # No bar: their bases are asked for as well.
        ("overlays, each with a base of its own", based(bench, count), (None, None)),
    ):
        floor(files)
        again: list[float] = []
        first = partial(first_refresh, bench, files, again)

        def floor_of(files: Path = files) -> float:
            return floor(files)

        base, ours = (1e6 * total / count for total in best(bench.rounds, floor_of, first))
        yield Row(f"first refresh, {count:,} qcow2 {what}", ours, "us/file", "C floor", base, bars[0])
        unchanged = 1e6 * min(again) / count
        yield Row(f"unchanged refresh, {count:,} qcow2 {what}", unchanged, "us/file", "C floor", base, bars[1])


def overlays(bench: Bench, count: int) -> Path:
    """One overlay made by qemu-img and copied; a refresh reads headers only, which the copies share."""
    directory = bench.fresh("overlays")
    data = _made(directory, "create", "-u", "-b", "/srv/base.img", "-F", "raw", to="1G")
    for number in range(count):
        (directory / f"disk{number:06}.qcow2").write_bytes(data)
    os.sync()
    return directory


def based(bench: Bench, count: int) -> Path:
    """Overlays as those of ``overlays``, and for each a base in another directory."""
    directory, bases = bench.fresh("based"), bench.fresh("bases")
    first = b"base%06d.img" % 0
    data = _made(directory, "create", "-u", "-b", f"{bases}/{first.decode()}", "-F", "raw", to="1G")
    for number in range(count):
        base = b"base%06d.img" % number
        (bases / base.decode()).touch()
        (directory / f"disk{number:06}.qcow2").write_bytes(data.replace(first, base))
    os.sync()
    return directory


def full(bench: Bench, count: int) -> Path:
    """Images with data and no backing image, each of another size: no two of them begin alike."""
    directory = bench.fresh("full")
    raw = bench.fresh("raw") / "raw"
    raw.write_bytes(b"x" * 65536)
    os.truncate(raw, 1 << 30)
    data = bytearray(_made(directory, "convert", "-O", "qcow2", str(raw)))
    size = int.from_bytes(data[24:32], "big")
    for number in range(count):
        data[24:32] = (size - 512 * number).to_bytes(8, "big")
        (directory / f"disk{number:06}.qcow2").write_bytes(data)
    os.sync()
    return directory


def _made(directory: Path, verb: str, *options: str, to: str | None = None) -> bytes:
    """What qemu-img makes, as bytes."""
    model = directory / "model"
    form = ["-f", "raw" if verb == "convert" else "qcow2"]
    subprocess.run(["qemu-img", verb, "-q", *form, *options, str(model), *([to] if to else [])], check=True)
    data = model.read_bytes()
    model.unlink()
    return data
