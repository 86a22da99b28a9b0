"""LVM's label read without LVM: a device of a group of which nothing is active is never overwritten."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.families import pvlabel
from tests.backends.loops import loop_devices

# The first 8 KiB of devices of LVM 2.03.16: one that holds the group's metadata, and the same when the group was removed; the
# first KiB of one that belongs to it and holds none (pvcreate --metadatacopies 0).
NAMED = (
    "eNrtmE9P2zAUwMcmTZov23U3K2wSTHOx3TS0SJtIIUBHWkophYFQFFKXBpImJKlVQPs2+3a77Dpph9kJDCaVHSZN04R/UWS/9+z4+fmPlPfokeIh"
    "Y5t1y95qWTPX8pdvrz5Dqe81KcSYGGeXW5sbtvehVmPN410/rpc7E7u8Y/V6ut3fs0TTl0XPF78f6Mb89flU82PxzqjlUCgUCoVCoVAoFIq/Bhl3"
    "t2D+szc5rJivE9x6835m2v/a06IYPinKxvdlXUXv/4eflKIBIvAK+H34Dmr2PjftAK3hYYp2zY0uGrjbdYRPzzZROq4N0aJ7sbvf1EDKzkeR6EDA"
    "IEpCN5N9Ax5SYcncbJwK+VDrWDuNA8us25b2FgrJXJXlXqfRtbQjMAjck7zdEWCTjI0yJ/UvmVBUSY2C0J04ARcSzqvxdZVlbt/NXMeLYp+luQ7E"
    "w4vU99zA4VEwDoX2Sug4/jmnIoeBZBIDySwGkmkMJPMYSCYyUJHJ0ECfcd+TDmgLoroQRFFMNHB3QqZtb62Y3XxGv0xAtL/rPcYgZo7omMjAUKxX"
    "pexF45GUazXwSTxAvLNwnY1Y4masD48vioPIWZL60QjSEi6XiDFH5+EcxZQiXEGkOr8Em8LYijgsY4j1JUqWKkSMQQ0AvGgkAymd0roiqHCtWJxe"
    "Hhi4nkTjWAM3A8jVE56nXuLHWaHQ9hI/Y3CQRCHkJ17ChGcQncObbXIbmJKITG4XHZ1hlOY7gIfas1lo+6PxBPIQGiVSLek6GniIG5VFOEvgTrMN"
    "2x3Lara7zurHltlsrMBlDCdVwzH02w9mfihjSRZrBia0Qoj47P3TVsf4n51/qs7/n51/4eFt1I8Tw+U9ZLTIELWHax1U50EXbXO9hzbLHRP1Thvr"
    "B5WpHtIHfUPlG6c/9Yai6oZSKBQKheIefgAQmeVo"
)
REMOVED = (
    "eNrtmN1O2zAUgGHSLmZN2q4m7c4KmgTTXGy3DS0S01II0JGUUkphIBSF1KWB/JGkVgHtFfYWe6Xd7CX2CLNTGEyCaZo0TRr+qio+xz7xOcc/Us7U"
    "lOIhYxkN09psmdNX8uOn4Wco9T2bQoyJfnqxubFuee/rdWYf7fhJo9wZW+Vts9erWP1dUwx9ObF8/uuJrru/Pbuz+5FaCoVCoVAoFAqFQqH4q7z4"
    "8ukrLD72xgdV41WKW6/fTv/G95ri/4Afl+IBIvAS+H24BDVrjxtWgFbxMEM7xnoXDdytBsInpxsoG9WHaME939mzNZCxsygWBgQM4jR0c2kb8JCK"
    "ntzNR5mQD7SOud3cN42GZWpvoJCMFfnc7TS7pnYIBoF7XIw7BGycsyh3Mv+CCUWN1CkI3bETcCHhoplcNVnu9t3cdbw48VlW6EAyPM98zw0cHgej"
    "UGgvhY7jHzFNahhIFjGQrGIgWcZAso6BZCEDTSoZGugz7nvSAW1eNOeDOE6IBm4HZFjW5rLRLSL6KQAx/rb3GIOEOcIwlYmhuFKTshePIinX6+Cj"
    "+AHxn4FrLGKpm7M+PDqfHETO0syPI0hLuFwi+iydg7MUU4pwFZHa3CK0RWcr5rCMIa4sUrJYJWIOqgPgxZFMpHRK64qkwtXJ4vSKxMC1NB4lGrie"
    "QK6e8DzzUj/JJwptN/VzBgdpHEJ+7KVMeAbRGbzeJjeJKYnMFP3C0BnGWbEDeKg9mYGWH43GkIdQL5FaqVJBAw9xvboAZwjcttuw3TFNu911Vj60"
    "DLu5DN9hOK7pjl65eWHuhzKXZKGuY0KrhIjX3h+2Osb/7PxTdf7/7PwLD2+yfpTqLu8hvUWGqD1c7aAGD7poi1d6aKPcMVDvpLm2X73TQ/qgb6hi"
    "4/TvvKGouqEUCoVCobiH749t4sA="
)
NAMELESS = (
    "eNpjYBgFIxn4ODq5+vj7uTJC+b84piorgMTDfI0UDAwMk4rMEsvCzPwMMwIy3IKcynJCAstMwryNgxzDsjzdo0yBSiUhOgVIspcJiBlHg3/AAQCp"
    "GhB5"
)


def head(packed: str) -> bytes:
    return zlib.decompress(base64.b64decode(packed))


def group(data: bytes, path: Path) -> str | None:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return pvlabel.group(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("packed", "name"), [(NAMED, "vg.of-1"), (NAMELESS, ""), (REMOVED, None)])
def test_which_group_a_device_is_in(tmp_path: Path, packed: str, name: str | None) -> None:
    assert group(head(packed), tmp_path / "device") == name
    moved = head(packed)[512:1024]
    assert group(bytes(1536) + moved, tmp_path / "device") == (None if name is None else ""), (
        "in the last sector looked at"
    )
    assert group(bytes(2048) + moved, tmp_path / "device") is None


def test_no_label_is_in_no_group(tmp_path: Path) -> None:
    for data in (b"", bytes(8192), b"LABELONE" * 1024, bytes(512) + b"LABELONE"):
        assert group(data, tmp_path / "device") is None


@pytest.mark.parametrize("at", [512 + 32 + 40 + 32, 4096 + 40, 4096 + 24 + 8])
def test_a_number_beyond_every_device(tmp_path: Path, at: int) -> None:
    for number in (1 << 61, (1 << 63) - 1, (1 << 64) - 1):
        data = bytearray(head(NAMED))
        data[at : at + 8] = number.to_bytes(8, "little")
        assert group(bytes(data), tmp_path / "device") in ("", None, "vg.of-1")


@pytest.mark.parametrize("packed", [NAMED, NAMELESS])
def test_whatever_a_label_says_it_is_read_to_an_end(tmp_path: Path, packed: str) -> None:
    drawn = random.Random(1)
    for _ in range(2000):
        data = bytearray(head(packed))
        for _ in range(drawn.choice((1, 2, 8))):
            place = drawn.choice((drawn.randrange(512, 1024), drawn.randrange(len(data)), 4096 + drawn.randrange(128)))
            if place < len(data):
                data[place] = drawn.choice((0, 255, drawn.randrange(256)))
        found = group(bytes(data), tmp_path / "device")
        assert found is None or found.isprintable()


@pytest.fixture
def make_device(tmp_path: Path) -> Iterator[Callable[..., str]]:
    with loop_devices(tmp_path) as make:
        yield make


@pytest.mark.root
@pytest.mark.tools("losetup", "sfdisk", "partx", "wipefs", "mkfs.ext4")
@pytest.mark.parametrize("type", ["fs", "disk"])
@pytest.mark.parametrize(("packed", "which"), [(NAMED, "the volume group 'vg.of-1'"), (NAMELESS, "a volume group")])
def test_a_device_of_a_group_is_never_overwritten(
    engine: Engine, tmp_path: Path, make_device: Callable[..., str], type: str, packed: str, which: str
) -> None:
    device = make_device()
    Path(device).write_bytes(head(packed))
    before = Path(device).read_bytes()
    format, target = {"fs": ("ext4", f"{tmp_path}/mnt"), "disk": ("gpt", "/dev")}[type]
    pool = engine.define(
        f"<pool type='{type}'><name>p</name><source><device path='{device}'/><format type='{format}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )
    with pytest.raises(errors.Unsafe, match=f"'{device}' belongs to {which}$") as caught:
        pool.build(overwrite=True)
    assert f"wipefs --all {device}" in (caught.value.hint or "")
    assert Path(device).read_bytes() == before
    subprocess.run(["wipefs", "--all", "--quiet", device], check=True)
    assert pool.build()


@pytest.mark.root
@pytest.mark.tools("losetup", "sfdisk", "partx", "wipefs")
def test_a_disk_with_a_partition_of_a_group_is_never_overwritten(
    engine: Engine, make_device: Callable[..., str]
) -> None:
    device = make_device()
    pool = engine.define(
        f"<pool type='disk'><name>p</name><source><device path='{device}'/><format type='gpt'/></source>"
        "<target><path>/dev</path></target></pool>"
    )
    pool.start(build=True)
    path = pool.create_volume(f"<volume><name>{device[5:]}p1</name><capacity>8388608</capacity></volume>").path
    Path(path).write_bytes(head(NAMED))
    os.sync()
    pool.destroy()
    with pytest.raises(errors.Unsafe, match=f"'{path}' belongs to the volume group 'vg.of-1'"):
        pool.build(overwrite=True)
    subprocess.run(["wipefs", "--all", "--quiet", path], check=True)
    assert pool.build(overwrite=True)
