"""New volumes of every format, as the tools themselves see them afterwards."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import programs
from tests.formats import samples

from .conftest import MIB, SECRET, RecordingHost, entries, make, put, xml

FORMATS = {
    "raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vpc": "vpc", "vhd": "vpc", "vhdx": "vhdx",
    "qed": "qed", "qcow": "qcow", "ploop": "parallels",
}  # fmt: skip
tools = pytest.mark.tools("qemu-img", "prlimit")


def qemu_info(path: str | Path, format: str) -> Any:
    told = subprocess.run(
        ["qemu-img", "info", "-f", format, "--output=json", "--", path], stdout=subprocess.PIPE, check=True
    )
    return json.loads(told.stdout)


@tools
@pytest.mark.parametrize("format", FORMATS)
def test_the_format_and_size_are_what_was_asked_for(pool: Pool, format: str) -> None:
    volume = make(pool, "disk", format, 10 * MIB)
    told = qemu_info(volume.path, FORMATS[format])
    assert told["virtual-size"] == volume.info.capacity == 10 * MIB
    assert volume.info.format == ("vpc" if format == "vhd" else format)
    assert stat.S_IMODE(os.stat(volume.path).st_mode) == 0o600
    pool.refresh()
    assert pool.volume("disk").info.capacity == 10 * MIB
    assert not volume.info.detail or "error" not in volume.info.detail


@tools
def test_a_vmdk_names_itself_and_not_a_temporary_file(pool: Pool) -> None:
    volume = make(pool, "disk.vmdk", "vmdk")
    data = Path(volume.path).read_bytes()
    assert b'SPARSE "disk.vmdk"' in data and b"poolkit-" not in data


@tools
@pytest.mark.parametrize(
    ("target", "facts"),
    [
        ("<compat>0.10</compat>", {"compat": "0.10"}),
        ("<compat>1.1</compat><features><lazy_refcounts/></features>", {"compat": "1.1", "lazy-refcounts": True}),
        ("<features><extended_l2/></features>", {"compat": "1.1", "extended-l2": True}),
    ],
)
def test_qcow2_has_its_options(pool: Pool, target: str, facts: dict[str, Any]) -> None:
    volume = pool.create_volume(xml("disk", MIB, "qcow2", target=target))
    data = qemu_info(volume.path, "qcow2")["format-specific"]["data"]
    assert facts.items() <= data.items()


@tools
def test_the_cluster_size_is_as_asked(pool: Pool) -> None:
    volume = pool.create_volume(xml("disk", MIB, "qcow2", target="<clusterSize unit='KiB'>128</clusterSize>"))
    assert qemu_info(volume.path, "qcow2")["cluster-size"] == (volume.info.detail or {})["cluster_size"] == 131072


@tools
@pytest.mark.parametrize(
    ("format", "how", "least"),
    [
        ("raw", "off", 0), ("raw", "falloc", 8 * MIB), ("raw", "full", 8 * MIB), ("qcow2", "off", 0),
        ("qcow2", "metadata", 0), ("qcow2", "falloc", 8 * MIB), ("qcow2", "full", 8 * MIB), ("vdi", "metadata", 0),
        ("vpc", "full", 0), ("vhdx", "full", 0),
    ],
)  # fmt: skip
def test_preallocation(pool: Pool, format: str, how: str, least: int) -> None:
    volume = make(pool, "disk", format, 8 * MIB, preallocation=how)
    assert volume.info.allocation >= least
    assert volume.info.capacity == 8 * MIB
    if least == 0:
        assert volume.info.allocation < 8 * MIB


def test_a_raw_volume_is_reserved_unless_told_otherwise(pool: Pool) -> None:
    assert pool.create_volume(xml("full")).info.allocation >= MIB
    assert make(pool, "sparse").info.allocation == 0
    half = pool.create_volume(xml("half", more=f"<allocation>{MIB // 2}</allocation>"))
    assert MIB // 2 <= half.info.allocation < MIB


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (xml("d", None), {}, "needs a capacity"),
        (xml("d", 1 << 63), {}, "less than 2\\^63"),
        (xml("d", format="raw"), {"preallocation": "metadata"}, "preallocation 'metadata' is not one of"),
        (xml("d", format="qed"), {"preallocation": "falloc"}, "preallocation 'falloc' is not one of"),
        (xml("d", format="qcow2", target="<compat>2.0</compat>"), {}, "compat is 0.10 or 1.1"),
        (xml("d", format="qcow2", target="<compat>0.10</compat><features><lazy_refcounts/></features>"), {}, "need compat"),
        (xml("d", format="qcow2", target="<clusterSize>3000</clusterSize>"), {}, "power of two"),
        (xml("d", format="qcow2", target="<clusterSize unit='MiB'>4</clusterSize>"), {}, "power of two"),
        (xml("d", format="vdi", backing="<backingStore><path>/x</path><format type='raw'/></backingStore>"), {},
         "cannot open the backing store|no backing store"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_a_sentence(
    pool: Pool, place: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.PoolkitError, match=said):
        pool.create_volume(text, **options)
    assert entries(place) == {}


@pytest.mark.parametrize("format", ["bochs", "dmg", "cloop", "cow", "dir"])
def test_formats_nobody_can_make_are_refused(pool: Pool, place: Path, format: str) -> None:
    with pytest.raises(errors.Unsupported, match=f"'{format}' cannot be created"):
        pool.create_volume(xml("disk", format=format))
    assert entries(place) == {}


def test_an_image_whose_data_would_be_elsewhere_is_not_made(pool: Pool) -> None:
    with pytest.raises(errors.Unsafe, match="second file"):
        pool.create_volume(xml("disk", format="qcow2", target="<features><data_file/></features>"))


# -- overlays -----------------------------------------------------------------------------------------------------------


def overlay(path: str | Path, format: str | None = None, size: int | None = None) -> str:
    kind = f"<format type='{format}'/>" if format else ""
    return xml("overlay", size, "qcow2", backing=f"<backingStore><path>{path}</path>{kind}</backingStore>")


@tools
def test_an_overlay_carries_the_recorded_format_of_its_backing_volume(pool: Pool) -> None:
    base = make(pool, "base", "qcow2", 4 * MIB)
    made = pool.create_volume(overlay(base.path))
    told = qemu_info(made.path, "qcow2")
    assert told["backing-filename-format"] == "qcow2" and told["full-backing-filename"] == base.path
    assert made.info.capacity == 4 * MIB, "the capacity comes from the backing image when none is given"


def test_a_document_cannot_overrule_the_record_of_a_backing_volume(pool: Pool) -> None:
    base = make(pool, "base")
    with pytest.raises(errors.Unsafe, match="on record is raw, not qcow2"):
        pool.create_volume(overlay(base.path, "qcow2"))


def test_a_backing_file_outside_of_all_pools_needs_its_format(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB))
    with pytest.raises(errors.Unsafe, match="needs its format"):
        pool.create_volume(overlay(tmp_path / "base", size=MIB))


@tools
def test_a_backing_file_outside_of_all_pools_works_with_its_format(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "base, with a comma").write_bytes(bytes(MIB))
    made = pool.create_volume(overlay(tmp_path / "base, with a comma", "raw"))
    assert qemu_info(made.path, "qcow2")["backing-filename"] == f"{tmp_path}/base, with a comma"


def test_a_backing_path_is_opened_as_what_it_is_and_no_further(pool: Pool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/shadow")
    for path, said in (
        ("fifo", "neither a file"),
        ("link", "is a link"),
        ("missing", "No such file"),
        (".", "neither"),
    ):
        with pytest.raises(errors.PoolkitError, match=said):
            pool.create_volume(overlay(tmp_path / path, "raw", MIB))
    for path in ("relative", "json:{}", "nbd://host/x"):
        with pytest.raises(errors.PoolkitError, match="not an absolute path"):
            pool.create_volume(overlay(path, "raw", MIB))


@pytest.mark.parametrize(
    ("data", "format", "said"),
    [
        (samples.qcow2(incompatible=4, extensions=((0x44415441, b"/etc/passwd"),)), "qcow2", "another file"),
        (samples.qcow2(incompatible=1 << 5), "qcow2", "is not used as qcow2"),
        (samples.qcow2()[:72], "qcow2", "is not used as qcow2"),
        (samples.descriptor('RW 63 FLAT "/etc/passwd" 0'), "vmdk", "description of other files"),
        (bytes(4096), "qcow2", "looks like raw"),
        (samples.vhd(kind=4), "vpc", "is not used as vpc"),
    ],
    ids=["data file", "unknown feature", "truncated", "descriptor", "not at all", "differencing"],
)
def test_a_backing_image_is_looked_at_first(pool: Pool, tmp_path: Path, data: bytes, format: str, said: str) -> None:
    (tmp_path / "base").write_bytes(data)
    with pytest.raises(errors.Unsafe, match=said):
        pool.create_volume(overlay(tmp_path / "base", format, MIB))


# -- encryption ---------------------------------------------------------------------------------------------------------


@tools
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_encrypted_volume_opens_with_its_secret_only(
    engine: Engine, pool: Pool, host: RecordingHost, format: str
) -> None:
    secret = engine.define_secret("<secret><usage type='volume'><volume>/some/volume</volume></usage></secret>")
    secret.set_value(SECRET)
    encryption = (
        f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/>"
        "<cipher name='aes' size='256' mode='xts' hash='sha256'/><ivgen name='plain64'/></encryption>"
    )
    volume = pool.create_volume(xml("disk", MIB, format, target=encryption, more="<allocation>0</allocation>"))
    assert (volume.info.detail or {})["encryption"] == "luks"
    assert "<encryption format='luks'" in volume.xml() and f"<format type='{format}'/>" in volume.xml()
    assert SECRET not in Path(volume.path).read_bytes()
    # Opened by cryptsetup's format or QEMU's: the right passphrase works and a wrong one does not.
    for value, good in ((SECRET, True), (b"wrong", False)):
        key = Path(engine.locations.state) / "key"
        key.write_bytes(value)
        image = f"driver={'luks' if format == 'raw' else 'qcow2'},file.filename={volume.path}"
        image += ",key-secret=k" if format == "raw" else ",encrypt.key-secret=k"
        out = Path(engine.locations.state) / "out"
        words = ["--object", f"secret,id=k,file={key}", "--image-opts", image, "-O", "raw", str(out)]
        done = subprocess.run(["qemu-img", "convert", *words], capture_output=True, check=False)
        assert (done.returncode == 0) is good, done.stderr
    assert any("--object" in call for call in host.calls)


def test_encryption_without_a_secret_or_of_a_weak_kind_is_refused(pool: Pool, place: Path) -> None:
    for text, kind, said in (
        ("<encryption format='luks'/>", errors.InvalidArgument, "needs a secret"),
        (
            "<encryption format='luks'><secret type='passphrase' usage='none'/></encryption>",
            errors.SecretNotFound,
            "'none'",
        ),
        (
            "<encryption format='qcow'><secret type='passphrase' usage='x'/></encryption>",
            errors.Unsupported,
            "use|cannot",
        ),
        ("<encryption format='luks2'><secret type='passphrase' usage='x'/></encryption>", errors.Unsupported, "cannot"),
    ):
        with pytest.raises(kind, match=said):
            pool.create_volume(xml("disk", MIB, "qcow2", target=text))
    assert entries(place) == {}


# -- the name and the file ----------------------------------------------------------------------------------------------

NAMES = ["../x", "a/b", "/etc/passwd", "", ".", "..", "n" * 256, "a\nb", "-rf", "a\0b", ".poolkit-x", "a\udce4"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_could_leave_the_pool_or_pass_for_options_are_refused(
    engine: Engine, pool: Pool, place: Path, name: str
) -> None:
    from poolkit.xmlmap import replace

    make(pool, "good")
    before = entries(place)
    good = pool.parse_volume(xml("good2"))
    with pytest.raises(errors.PoolkitError):
        pool.create_volume(replace(good, name=name))
    with pytest.raises(errors.PoolkitError):
        pool.volume("good").clone(replace(good, name=name))
    with pytest.raises(errors.PoolkitError):
        pool.volume("good").clone(name)
    with pytest.raises(errors.PoolkitError):
        pool.volume(name)
    for find in (engine.volume_by_path, engine.volume_by_key):
        with pytest.raises(errors.PoolkitError):
            find(f"{place}/{name}")
    assert entries(place) == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory", "hard link", "fifo"])
@pytest.mark.parametrize("format", ["raw", pytest.param("qcow2", marks=tools)])
def test_what_has_the_name_already_is_left_alone(
    pool: Pool, place: Path, tmp_path: Path, format: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = place / "disk"
    if kind == "file":
        target.write_text("precious")
    elif kind == "link":
        target.symlink_to(victim)
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    elif kind == "directory":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        os.link(victim, target)
    before = entries(place)
    with pytest.raises(errors.VolumeExists):
        make(pool, "disk", format)
    assert entries(place) == before
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_full_allocation_is_refused_before_anything_is_written(pool: Pool, place: Path) -> None:
    room = os.statvfs(place)
    size = (room.f_bavail + room.f_blocks) * room.f_frsize
    for options in ({}, {"preallocation": "falloc"}, {"preallocation": "full"}):
        with pytest.raises(errors.NoSpace, match="are free"):
            pool.create_volume(xml("disk", size), **options)
    with pytest.raises(errors.NoSpace, match="are free"):
        pool.create_volume(xml("disk", size, "qcow2"), preallocation="full")
    assert entries(place) == {}
    assert make(pool, "disk", size=size).info.capacity == size


def test_a_dry_run_says_what_it_would_make(pool: Pool, place: Path, tmp_path: Path) -> None:
    with Engine(tmp_path / "root", dry_run=True) as dry:
        made = dry.pool("images").create_volume(xml("disk", MIB, "qcow2"))
        assert made.outcome is not None and made.outcome.plan == (f"create {place}/disk qcow2 {MIB} bytes",)
    assert entries(place) == {}
    pool.refresh()
    assert pool.volumes() == []


@tools
def test_copy_on_write_can_be_turned_off_where_there_is_none(pool: Pool) -> None:
    assert pool.create_volume(xml("disk", MIB, "qcow2", target="<nocow/>")).info.capacity == MIB


def test_hostile_files_do_not_disturb_a_refresh(pool: Pool, place: Path) -> None:
    put(pool, "short", samples.qcow2()[:72])
    os.mkfifo(place / "fifo")
    (place / "link").symlink_to("/etc/shadow")
    put(pool, "fifo-backed", samples.qcow2(backing=str(place / "fifo").encode()))
    assert [v.name for v in pool.volumes()] == ["fifo-backed", "short"]
    assert "error" in (pool.volume("short").info.detail or {})


@tools
def test_an_image_tool_cannot_write_more_than_was_asked_for(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    start = programs.start

    def started(argv: Any, **how: Any) -> Any:
        if any(word.endswith("qemu-img") for word in argv) and "--version" not in argv:
            seen.append(list(argv))
        return start(argv, **how)

    monkeypatch.setattr(programs, "start", started)
    pool.create_volume(xml("image", 4 * MIB, "qcow2"))
    pool.volume("image").resize(8 * MIB)
    pool.volume("image").clone(xml("copy", 8 * MIB, "vmdk"))
    assert len(seen) >= 3
    for argv in seen:
        limits = dict(word[2:].split("=") for word in argv[1 : argv.index("--")])
        assert argv[0].endswith("prlimit") and limits.keys() >= {"fsize", "as", "cpu", "nofile", "core"}
        assert int(limits["fsize"]) <= 8 * MIB * 9 // 8 + (256 << 20)


@pytest.mark.parametrize("format", ["linux", "extended", "ext4"])
def test_a_format_of_other_pool_types_is_refused(pool: Pool, place: Path, format: str) -> None:
    with pytest.raises(
        errors.Unsupported, match=f"^volume 'disk': pools of type 'dir' have no volumes of format '{format}'$"
    ):
        pool.create_volume(xml("disk", MIB, format))
    assert not entries(place)
