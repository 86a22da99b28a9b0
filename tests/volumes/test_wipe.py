"""What is left after a wipe, and which passes each algorithm makes."""

from __future__ import annotations

import errno
import os
from io import BytesIO
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.content import wiping
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host, libc
from tests.backends.loops import loop_devices
from tests.formats import samples

from .conftest import MIB, SECRET, content, entries, make, put, refuse_ioctl, xml

SIZE = MIB + 12345  # no multiple of anything


@pytest.mark.parametrize("algorithm", [a for a in wiping.ALGORITHMS if a != "pfitzner33"])
def test_no_old_byte_is_readable(pool: Pool, algorithm: str) -> None:
    volume = make(pool, "disk", size=SIZE)
    volume.upload(BytesIO(b"secret!!" * (SIZE // 8)))
    outcome = volume.wipe(algorithm)
    assert outcome and wiping.PROMISES[algorithm] in outcome.message
    data = content(volume)
    assert len(data) == SIZE and b"secret!!" not in data
    assert volume.info.format == "raw" and pool.volume("disk").info.capacity == SIZE


def passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str) -> list[bytes]:
    """The first 6 bytes of every pass."""
    seen: list[bytes] = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if offset == 0:
            seen.append(bytes(data[:6]))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(2 * MIB + 5)
        wiping.wipe(Host(), file.fileno(), 2 * MIB + 5, algorithm)
        data = (tmp_path / "file").read_bytes()
    last = wiping.PASSES[algorithm][-1]
    if last:
        assert data == (last * len(data))[: len(data)], "the pattern must not start anew within the file"
    return seen


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("nnsa", "RR0"), ("dod", "R0F"), ("schneier", "0FRRRRR"), ("pfitzner7", "R" * 7), ("random", "R"),
        ("pfitzner33", "R" * 33),
    ],
)  # fmt: skip
def test_the_passes_are_those_of_scrub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, expected: str
) -> None:
    seen = passes(tmp_path, monkeypatch, algorithm)
    assert "".join({bytes(6): "0", b"\xff" * 6: "F"}.get(s, "R") for s in seen) == expected
    fresh = [s for s in seen if s not in (bytes(6), b"\xff" * 6)]
    assert len(set(fresh)) == len(fresh), "each random pass has bytes of its own"


def test_bsi_and_gutmann_have_their_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bsi = passes(tmp_path, monkeypatch, "bsi")
    assert [s[0] for s in bsi] == [0xFF, 0xFE, 0xFD, 0xFB, 0xF7, 0xEF, 0xDF, 0xBF, 0x7F]
    gutmann = passes(tmp_path, monkeypatch, "gutmann")
    assert len(gutmann) == 35
    fixed = [s.hex()[:6] for s in gutmann[4:31]]
    steps = [f"{n:x}" * 6 for n in range(16)]
    turns = ["924924", "492492", "249249"]
    assert fixed == ["555555", "aaaaaa", *turns, *steps, *turns, "6db6db", "b6db6d", "db6db6"]


def test_what_reads_back_wrong_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, o: b"\1" + real(fd, n, o)[1:])
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(4096)
        with pytest.raises(errors.HostError, match="read back other data"):
            wiping.wipe(Host(), file.fileno(), 4096, "dod")


@pytest.mark.root
@pytest.mark.tools("losetup")
@pytest.mark.parametrize("algorithm", sorted(wiping.VERIFIED))
def test_it_is_the_medium_that_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    real = os.fsync
    with loop_devices(tmp_path) as make_device:
        device = make_device(2)

        def fsync(fd: int) -> None:
            real(fd)
            with (tmp_path / "loop0.img").open("r+b") as medium:  # which kept one sector as it was
                medium.seek(MIB + 512)
                medium.write(b"secret!!" * 64)
                medium.flush()
                real(medium.fileno())

        monkeypatch.setattr(os, "fsync", fsync)
        fd = os.open(device, os.O_RDWR)
        try:
            with pytest.raises(errors.HostError, match="the medium is bad"):
                wiping.wipe(Host(), fd, 2 * MIB, algorithm)
        finally:
            os.close(fd)


def test_zero_keeps_the_space_of_a_full_volume_and_frees_a_sparse_one(pool: Pool) -> None:
    full = pool.create_volume(xml("full"))
    full.upload(BytesIO(b"x" * MIB))
    full.wipe()
    assert full.look().info.allocation >= MIB
    sparse = make(pool, "sparse", size=2 * MIB)
    sparse.upload(BytesIO(b"x" * MIB))
    sparse.wipe()
    assert sparse.look().info.allocation == 0
    full.wipe("trim")
    assert full.look().info.allocation == 0


@pytest.mark.parametrize("algorithm", ["zero", "trim"])
def test_without_the_kernels_help_zeros_are_written_and_trim_says_so(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    volume = make(pool, "disk")
    volume.upload(BytesIO(b"x" * MIB))
    monkeypatch.setattr(libc, "fallocate", refuse)
    if algorithm == "trim":
        with pytest.raises(errors.Unsupported, match="cannot take space back"):
            volume.wipe("trim")
    else:
        volume.wipe("zero")
        assert content(volume) == bytes(MIB)


@pytest.mark.tools("qemu-img", "prlimit")
@pytest.mark.parametrize("format", ["qcow2", "vdi", "vmdk"])
def test_a_wiped_image_is_an_empty_one(pool: Pool, format: str) -> None:
    volume = make(pool, "disk", format, 4 * MIB)
    volume.wipe("random")
    assert (volume.info.format, volume.info.capacity) == (format, 4 * MIB)
    assert "error" not in (volume.info.detail or {})
    flat = volume.clone(xml("flat", None, "raw"))
    assert content(flat) == bytes(4 * MIB)


@pytest.mark.tools("qemu-img", "prlimit")
@pytest.mark.parametrize("format", ["qcow2", "luks"])
def test_a_wiped_encrypted_image_keeps_its_capacity(pool: Pool, engine: Engine, format: str) -> None:
    secret = engine.define_secret("<secret><usage type='volume'><volume>/any</volume></usage></secret>")
    secret.set_value(SECRET)
    target = f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/></encryption>"
    more = "<allocation>0</allocation>"
    volume = pool.create_volume(xml("disk", 64 * MIB, format.replace("luks", "raw"), target=target, more=more))
    assert volume.info.format == format
    volume.wipe()
    assert (volume.info.format, volume.info.capacity) == ("raw", 64 * MIB)
    pool.refresh()
    assert (pool.volume("disk").info.format, pool.volume("disk").info.capacity) == ("raw", 64 * MIB)
    assert content(volume) == bytes(64 * MIB)


def test_a_wiped_image_that_claims_more_than_a_file_can_have_keeps_the_size_of_its_file(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = put(pool, "disk", samples.qcow2(size=1 << 62, crypt=1).ljust(65536, b"\0"))
    assert volume.info.capacity == 1 << 62

    real = os.ftruncate

    def refuse(fd: int, length: int) -> None:  # some file systems do not
        if length > MIB:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        real(fd, length)

    monkeypatch.setattr(os, "ftruncate", refuse)
    volume.wipe()
    assert (volume.info.format, volume.info.capacity) == ("raw", 65536)


def test_an_interruption_gives_no_data_back_that_is_not_wiped(
    pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = make(pool, "disk", format="qcow2")
    (place / "disk").write_bytes((place / "disk").read_bytes() + b"secret" * 1000)
    volume = volume.look()
    held = os.open(place / "disk", os.O_RDONLY)
    monkeypatch.setattr(wiping, "wipe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        volume.wipe("random")
    assert os.fstat(held).st_nlink == 0
    assert b"secret" not in os.pread(held, 4 * MIB, 0)
    os.close(held)
    assert os.listdir(place) == ["disk"]


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_unknown_algorithm_is_refused_before_anything(pool: Pool, place: Path) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(b"data"))
    with pytest.raises(errors.InvalidArgument, match="no way of wiping 'shred'") as caught:
        volume.wipe("shred")
    assert "gutmann" in (caught.value.hint or "")
    assert content(volume)[:4] == b"data"


@pytest.mark.root
@pytest.mark.tools("losetup")
@pytest.mark.parametrize("algorithm", ["zero", "trim", "random"])
def test_block_devices_are_wiped_by_the_same_code(tmp_path: Path, algorithm: str) -> None:
    from poolkit.content import copying
    from tests.backends.loops import loop_devices

    with loop_devices(tmp_path) as new:
        fd = os.open(new(4), os.O_RDWR)
        try:
            assert copying.size_of(fd) == 4 * MIB
            os.pwrite(fd, b"secret" * 10000, MIB)
            wiping.wipe(Host(), fd, 4 * MIB, algorithm)
            assert b"secret" not in os.pread(fd, 4 * MIB, 0)
        finally:
            os.close(fd)


@pytest.mark.root
@pytest.mark.tools("losetup")
@pytest.mark.parametrize("discard", [True, False])
def test_zeros_go_to_a_thin_device_only_where_there_is_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, discard: bool
) -> None:
    from tests.backends.loops import loop_devices

    if not discard:
        refuse_ioctl(monkeypatch, 0x1277, errno.EOPNOTSUPP)  # linux/fs.h, BLKDISCARD
    with loop_devices(tmp_path) as new:
        fd = os.open(new(4), os.O_RDWR)
        try:
            os.pwrite(fd, b"secret" * 10000, MIB)
            os.fsync(fd)
            written: list[int] = []
            real = os.pwrite
            monkeypatch.setattr(os, "pwrite", lambda fd, data, at: written.append(at) or real(fd, data, at))
            wiping.wipe(Host(), fd, 4 * MIB, "zero", thin=True)
            assert written == ([] if discard else [MIB])
            assert not os.pread(fd, 4 * MIB, 0).strip(b"\0")
        finally:
            os.close(fd)


def test_a_dry_run_wipes_nothing(pool: Pool, tmp_path: Path, place: Path) -> None:
    from poolkit.engine import Engine

    make(pool, "disk").upload(BytesIO(b"data"))
    before = entries(place)
    with Engine(tmp_path / "root", dry_run=True) as dry:
        assert dry.pool("images").volume("disk").wipe().plan == (f"wipe {place}/disk with zero",)
        dry.pool("images").volume("disk").resize(2 * MIB)
        dry.pool("images").volume("disk").upload(BytesIO(b"other"))
    assert entries(place) == before and (place / "disk").read_bytes()[:4] == b"data"


@pytest.mark.tools("qemu-img", "prlimit")
def test_a_wiped_image_keeps_options_owner_and_mode_and_its_old_data_is_gone(pool: Pool) -> None:
    features = "<compat>1.1</compat><clusterSize unit='B'>16384</clusterSize><features><extended_l2/></features>"
    target = f"<permissions><mode>0640</mode></permissions>{features}"
    made = pool.create_volume(xml("disk", 4 * MIB, "qcow2", target=target, more="<allocation>0</allocation>"))
    with open(made.path, "r+b") as old:
        old.seek(0, os.SEEK_END)
        old.write(b"secret!!" * 8192)
        old.flush()
        pool.refresh()
        volume = pool.volume("disk")
        before = volume.info
        volume.wipe("random")
        old.seek(0)
        assert b"secret!!" not in old.read(), "who has the old file open finds nothing in it"
        assert os.fstat(old.fileno()).st_nlink == 0
    after = pool.volume("disk").info
    assert after.inode != before.inode
    for what in ("name", "format", "capacity", "mode", "owner", "group"):
        assert getattr(after, what) == getattr(before, what)
    for what in ("compat", "cluster_size", "features"):
        assert (after.detail or {})[what] == (before.detail or {})[what]


@pytest.mark.tools("qemu-img", "prlimit")
def test_a_wipe_that_fails_says_what_became_of_image_and_data(pool: Pool, engine: Engine) -> None:
    volume = make(pool, "disk", "qcow2")

    def fail(label: str) -> None:
        if label == "wipe random":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    engine.host.fault = fail
    with pytest.raises(errors.HostError) as caught:
        volume.wipe("random")
    assert "new and empty" in (caught.value.hint or "") and "before all of it was overwritten" in (
        caught.value.hint or ""
    )
    engine.host.fault = None
    pool.refresh()
    assert (pool.volume("disk").info.format, pool.volume("disk").info.capacity) == ("qcow2", MIB)


@pytest.mark.tools("qemu-img", "prlimit")
def test_what_cannot_be_trimmed_is_refused_before_the_image_is_replaced(
    pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    volume = make(pool, "disk", "qcow2")
    before = entries(place)
    monkeypatch.setattr(libc, "fallocate", refuse)
    with pytest.raises(errors.Unsupported, match="cannot take space back"):
        volume.wipe("trim")
    assert entries(place) == before
