"""A guest writes what it likes into its disk: the format on record decides what poolkit does, never the content."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.content import images
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Result
from tests.formats import samples

from .conftest import MIB, RecordingHost, content, make, put, xml

MARKER = b"this is a file of the host and none of the guest's business\n"


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    file = tmp_path / "host-secret"
    file.write_bytes(MARKER * 1000)
    return file


def evil(host_file: Path) -> bytes:
    """A qcow2 header that names a file of the host as its backing image."""
    backing = str(host_file).encode()
    return samples.qcow2(size=MIB, backing=backing, extensions=((0xE2792ACA, b"raw"),)).ljust(65536, b"\0")


def test_a_qcow2_header_in_a_raw_disk_changes_a_warning_only(
    pool: Pool, other: Pool, host: RecordingHost, host_file: Path
) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(evil(host_file)))
    pool.refresh()
    volume = pool.volume("disk")
    assert volume.info.format == "raw" and volume.info.capacity == MIB
    assert "<format type='raw'/>" in volume.xml() and "backingStore" not in volume.xml()
    assert "looks like qcow2" in volume.warning
    written = content(volume)
    assert written == evil(host_file).ljust(MIB, b"\0")
    for target in (pool, other):
        clone = volume.clone("clone", pool=target)
        assert clone.info.format == "raw"
        assert content(clone) == written
    assert host.calls == [], "a raw disk needs no program"


def test_the_record_survives_undefine_define_and_a_restart(engine: Engine, pool: Pool, host_file: Path) -> None:
    make(pool, "disk").upload(BytesIO(evil(host_file)))
    text = pool.xml(inactive=True)
    pool.destroy()
    pool.undefine()
    pool = engine.define(text)
    pool.start()
    assert pool.volume("disk").info.format == "raw"


def test_a_conversion_of_such_a_disk_has_its_bytes_and_not_the_hosts(
    pool: Pool, host_file: Path, host: RecordingHost
) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(evil(host_file)))
    converted = volume.clone(xml("converted", None, "qcow2"))
    back = converted.clone(xml("back", None, "raw"))
    assert content(back) == evil(host_file).ljust(MIB, b"\0")
    assert MARKER not in content(converted) + content(back)


def test_resizing_such_a_disk_changes_its_size_and_nothing_else(pool: Pool, host_file: Path, place: Path) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(evil(host_file)))
    before = (place / "disk").read_bytes()
    volume.resize(2 * MIB)
    assert (place / "disk").read_bytes() == before.ljust(2 * MIB, b"\0")
    assert host_file.read_bytes() == MARKER * 1000


def test_an_overlay_on_such_a_disk_says_raw_and_the_chain_ends_there(pool: Pool, host_file: Path) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(evil(host_file)))
    overlay = volume.clone("overlay", linked=True)
    assert overlay.info.format == "qcow2"
    assert (overlay.info.detail or {})["backing_format"] == "raw"
    assert [(link.volume, link.format, link.problem) for link in overlay.chain()] == [
        ("overlay", "qcow2", ""), ("disk", "raw", ""),
    ]  # fmt: skip


def test_what_is_uploaded_as_raw_is_downloaded_unchanged(pool: Pool, host_file: Path) -> None:
    image = samples.qcow2(size=1 << 40, backing=b"/etc/shadow").ljust(4096, b"\0")
    volume = make(pool, "disk", size=4096)
    volume.upload(BytesIO(image))
    assert content(volume) == image
    assert volume.info.format == "raw" and volume.info.capacity == 4096


@pytest.mark.parametrize(
    "data",
    [
        samples.qcow2(backing=b"/etc/passwd").ljust(400, b"\0"),
        samples.descriptor('RW 63 FLAT "/etc/passwd" 0').ljust(4096, b"\0"),
    ],
    ids=["qcow2 of 400 bytes", "padded descriptor"],
)
def test_small_headers_that_other_inspectors_miss_stay_raw_in_a_raw_volume(pool: Pool, data: bytes) -> None:
    volume = make(pool, "disk", size=len(data))
    volume.upload(BytesIO(data))
    pool.refresh()
    clone = pool.volume("disk").clone("clone")
    assert (clone.info.format, content(clone)) == ("raw", data)


def polyglot() -> bytes:
    """A qcow2 header before an ISO 9660 volume."""
    sparse = samples.iso(samples.qcow2())
    return sparse.pread(sparse.size, 0)


def test_an_ambiguous_file_is_listed_and_not_used_until_it_is_adopted(pool: Pool) -> None:
    volume = put(pool, "poly", polyglot())
    assert (volume.info.detail or {})["ambiguous"] is True
    for _ in range(2):  # being listed twice settles nothing
        (Path(pool.info.target or "") / "poly").touch()
        pool.refresh()
        with pytest.raises(errors.Unsafe, match="several formats") as caught:
            pool.volume("poly").clone("clone")
        assert "volume('poly').adopt(format=" in (caught.value.hint or "")
    with pytest.raises(errors.Unsafe, match="passes for"):
        pool.create_volume(
            xml("overlay", None, "qcow2", backing=f"<backingStore><path>{volume.path}</path></backingStore>")
        )
    with pytest.raises(errors.Unsafe, match="passes for qcow2 and for iso"):
        volume.adopt()
    assert volume.adopt("raw")
    assert not volume.adopt("raw")
    (Path(pool.info.target or "") / "poly").touch()
    pool.refresh()
    clone = pool.volume("poly").clone("clone")
    assert (clone.info.format, content(clone)) == ("raw", polyglot())


def test_adopting_takes_only_what_the_header_says(pool: Pool) -> None:
    volume = put(pool, "file", samples.qcow2(size=MIB).ljust(65536, b"\0"))
    assert volume.info.format == "qcow2"
    with pytest.raises(errors.Unsafe, match="is not vdi"):
        volume.adopt("vdi")
    with pytest.raises(errors.InvalidArgument, match="no format"):
        volume.adopt("docx")
    assert volume.adopt("raw")
    assert pool.volume("file").info.capacity == 65536
    assert "looks like qcow2" in pool.volume("file").warning
    assert volume.adopt()
    assert pool.volume("file").info.format == "qcow2"


def test_a_file_put_in_place_of_a_volume_is_a_new_file(pool: Pool, place: Path) -> None:
    make(pool, "disk")
    (place / "new").write_bytes(samples.qcow2(size=MIB))
    (place / "new").rename(place / "disk")
    pool.refresh()
    assert pool.volume("disk").info.format == "qcow2"


@pytest.mark.parametrize(
    ("told", "safe"),
    [
        ("qemu-img version 7.2.12", False),
        ("qemu-img version 7.2.13", True),
        ("qemu-img version 7.2.11 (Debian 1:7.2+dfsg-7+deb12u6)", False),
        ("qemu-img version 7.2.11 (Debian 1:7.2+dfsg-7+deb12u7)", True),
        ("qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", True),
        ("qemu-img version 5.2.0 (Debian 1:5.2+dfsg-11+deb11u3)", False),
        ("qemu-img version 8.1.5", False),
        ("qemu-img version 8.2.6", True),
        ("qemu-img version 9.0.1", False),
        ("qemu-img version 9.0.2", True),
        ("qemu-img version 9.1.0", True),
        ("qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)", True),
        ("what?", False),
    ],
)
def test_an_unsafe_qemu_img_gets_no_existing_image(
    pool: Pool, host: RecordingHost, monkeypatch: pytest.MonkeyPatch, told: str, safe: bool
) -> None:
    volume = make(pool, "disk")
    real = RecordingHost.query

    def query(self: RecordingHost, argv: Any, **how: Any) -> Result:
        if argv[-1] == "--version":
            return Result(tuple(argv), 0, told + "\nCopyright", "")
        return real(self, argv, **how)

    monkeypatch.setattr(RecordingHost, "query", query)
    if safe:
        images.check_reader(host)
        return
    host.calls.clear()
    with pytest.raises(errors.Unsupported, match="CVE-2024-4467") as caught:
        volume.clone(xml("copy", MIB, "qcow2"))
    assert "upgrade" in (caught.value.hint or "")
    assert host.calls == [], "it was run with an image"
    assert [v.name for v in pool.volumes()] == ["disk"]
