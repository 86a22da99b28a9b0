"""What reaches programs: formats always said, user's text never an option, and nothing secret."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.content import images
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.host import Host, Result
from poolkit.testing import ScriptedHost
from tests.formats import samples

from .conftest import MIB, SECRET, RecordingHost, check_call, content, make, put, xml

tools = pytest.mark.tools("qemu-img", "prlimit")
HARD_NAMES = [
    "--help", "-x", "a,b", "a,file.filename=x", "json:{}", "nbd:1", "a=b", "%s", "$(id)", "`id`", "a b", "'\"",
    "*", "\\", "~", "ü" * 100, "n" * 255,
]  # fmt: skip


@tools
@pytest.mark.parametrize("name", HARD_NAMES)
def test_hard_names_are_names(pool: Pool, other: Pool, host: RecordingHost, name: str) -> None:
    if name.startswith("-"):
        with pytest.raises(errors.InvalidArgument, match="begins with '-'"):
            make(pool, name)
        assert host.calls == []
        return
    from poolkit.xmlmap import replace

    wanted = replace(pool.parse_volume(xml("x", MIB, "qcow2")), name=name)
    made = pool.create_volume(wanted)
    assert (Path(other.info.target or "").parent / "images" / name).exists()
    linked = made.clone(replace(pool.parse_volume(xml("x", None, "qcow2")), name="linked"), pool=other, linked=True)
    assert (linked.info.detail or {})["backing"] == made.path or not name.isprintable()
    flat = linked.clone(xml("flat", None, "raw"))
    assert content(flat) == bytes(MIB)
    made.resize(2 * MIB)
    pool.refresh()
    assert pool.volume(name).info.capacity == 2 * MIB
    made.delete(force=True)
    for call in host.calls:
        check_call(call)
        assert all(word == name or name not in word or word.startswith("/") for word in call), call


@tools
def test_every_call_that_makes_reads_or_changes_an_image_says_its_format(
    pool: Pool, other: Pool, host: RecordingHost
) -> None:
    for format in ("qcow2", "vmdk", "vdi", "qed"):
        volume = make(pool, f"a-{format}", format)
        volume.clone(f"b-{format}", pool=other)
        volume.clone(f"l-{format}", linked=True)
        volume.clone(xml(f"c-{format}", 2 * MIB, "qcow2"))
        volume.wipe(force=True)
    calls = [c for c in host.calls if c[0] == "qemu-img" and c[1] != "--version"]
    assert {c[1] for c in calls} >= {"create", "convert", "resize"}
    for call in calls:
        check_call(call)


@tools
def test_a_passphrase_is_in_no_argument_log_error_or_document(
    engine: Engine, pool: Pool, host: RecordingHost, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    steps: list[str] = []
    host.on_step = steps.append
    secret = engine.define_secret("<secret><usage type='volume'><volume>x</volume></usage></secret>")
    secret.set_value(SECRET)
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/></encryption>"
    volume = pool.create_volume(xml("disk", MIB, "qcow2", target=encryption))
    texts = [volume.xml(), secret.xml(), repr(secret), repr(secret.value()), f"{secret.value()}", str(volume.info)]
    # A cipher that qemu-img does not know makes it fail with the secret at hand.
    broken = encryption.replace("</encryption>", "<cipher name='rot' size='13' mode='xts'/></encryption>")
    with pytest.raises(errors.ToolFailed) as caught:
        pool.create_volume(xml("broken", MIB, "qcow2", target=broken))
    texts += [str(caught.value), repr(caught.value.as_dict()), str(caught.value.hint)]
    texts += [" ".join(map(str, call)) for call in host.calls] + steps + [caplog.text, *capfd.readouterr()]
    for text in texts:
        assert SECRET.decode() not in text
    assert not (Path(volume.path).parent / "broken").exists()


def test_names_of_ciphers_cannot_carry_options(engine: Engine, pool: Pool) -> None:
    secret = engine.define_secret("<secret><usage type='volume'><volume>x</volume></usage></secret>")
    secret.set_value(SECRET)
    encryption = (
        f"<encryption format='luks'><secret type='passphrase' uuid='{secret.uuid}'/>"
        "<cipher name='aes,preallocation=full' size='256' mode='xts'/></encryption>"
    )
    host = ScriptedHost({"qemu-img --version": "qemu-img version 7.2.22"})
    with pytest.raises(errors.PoolkitError):
        pool.create_volume(xml("disk", MIB, "qcow2", target=encryption))
    assert host.lines == []


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ("qemu-img version 4.2.1 (Debian 1:4.2-3)", True), ("qemu-img version 5.0.0", True),
        ("qemu-img version 5.1.0", False), ("qemu-img version 7.2.22 (Debian 1:7.2)", False),
        ("qemu-img version 10.0.2", False),
    ],
)  # fmt: skip
def test_a_program_that_is_too_old_is_refused_with_a_sentence(told: str, refused: bool) -> None:
    host = ScriptedHost({"qemu-img --version": told})
    if refused:
        with pytest.raises(errors.Unsupported, match=r"needs qemu-img 5\.1 or later; here is") as caught:
            images.check_version(host)
        assert caught.value.hint
    else:
        images.check_version(host)


@tools
def test_a_new_image_takes_one_call(pool: Pool, host: RecordingHost) -> None:
    pool.create_volume(xml("disk", MIB, "qcow2"))
    assert [call[1] for call in host.calls if call[0] == "qemu-img"] == ["create"]


@tools
def test_the_version_is_asked_once_for_each_file_that_the_program_was(
    pool: Pool, host: RecordingHost, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        make(pool, name).clone(xml(f"{name}-copy", MIB, "qcow2"))
    assert host.calls.count(("qemu-img", "--version")) == 1
    program = tmp_path / "tool"
    for told in ("tool 1", "tool 2"):
        program.write_text(f"#!/bin/sh\necho {told}\n")
        program.chmod(0o755)
        host._programs["tool"] = str(program)
        assert {host.version("tool"), host.operation().version("tool")} == {f"{told}\n"}
        program.unlink()
    assert host.calls.count(("tool", "--version")) == 2


@tools
@pytest.mark.parametrize(
    ("told", "features", "words"),
    [
        ("5.0.0", "", r"poolkit needs qemu-img 5\.1 or later; here is 5\.0"),
        ("5.1.0", "<features><extended_l2/></features>", r"the feature extended_l2 needs qemu-img 5\.2"),
        ("7.2.22", "", "failed with status 1: Unknown option"),
    ],
)
def test_an_old_program_is_the_reason_why_it_failed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, told: str, features: str, words: str
) -> None:
    def run(self: RecordingHost, argv: Any, *args: Any, **how: Any) -> Result:
        if argv[-1] == "--version":
            return Result(tuple(argv), 0, f"qemu-img version {told}", "")
        raise errors.ToolFailed("'qemu-img' failed with status 1: Unknown option", argv=list(argv), status=1)

    monkeypatch.setattr(RecordingHost, "_run", run)
    with pytest.raises(errors.PoolkitError, match=words):
        pool.create_volume(xml("disk", MIB, "qcow2", target=features))


def test_what_a_version_lacks_is_refused_by_name() -> None:
    host = ScriptedHost({"qemu-img --version": "qemu-img version 5.1.0"})
    with pytest.raises(errors.Unsupported, match=r"the feature extended_l2 needs qemu-img 5\.2"):
        images.check_version(host, (5, 2), "the feature extended_l2")


@tools
def test_a_refresh_runs_no_program_and_opens_nothing_but_its_entries(
    pool: Pool, host: RecordingHost, place: Path
) -> None:
    import sys

    for number, data in enumerate(
        [samples.qcow2(backing=b"/etc/hostname"), samples.descriptor('RW 63 FLAT "/etc/passwd" 0'),
         samples.qcow2(incompatible=4, extensions=((0x44415441, b"/etc/shadow"),))]
    ):  # fmt: skip
        (place / f"v{number}").write_bytes(data)
    opened: list[str] = []
    watching = True

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(audit)
    try:
        pool.refresh()
    finally:
        watching = False
    assert len(pool.volumes()) == 3
    assert not [path for path in opened if path.startswith("/etc/")]
    assert host.calls == []


@tools
def test_a_tool_that_would_take_too_much_is_stopped(pool: Pool, place: Path) -> None:
    bomb = samples.vdi(size=0x1FFFFF00 << 20, blocks=0x1FFFFF00)
    (place / "bomb").write_bytes(bomb)
    with (place / "bomb").open("r+b") as file:
        file.truncate(4 << 30)
    pool.refresh()
    with pytest.raises(errors.PoolkitError) as caught:
        pool.volume("bomb").clone(xml("clone", None, "raw", more="<allocation>0</allocation>"))
    assert str(caught.value)
    assert sorted(p.name for p in place.iterdir()) == ["bomb"]


def test_a_tool_that_dies_is_an_error_of_that_volume(pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(pool, "disk")
    script = place.parent / "qemu-img"
    script.write_text("#!/bin/sh\ncase $1 in --version) echo qemu-img version 9.0.2;; *) kill -SEGV $$;; esac\n")
    script.chmod(0o755)
    monkeypatch.setattr(Host, "program", lambda self, name: str(script) if name == "qemu-img" else f"/usr/bin/{name}")
    with pytest.raises(errors.ToolCrashed, match="SIGSEGV"):
        source.clone(xml("clone", None, "qcow2"))
    assert [p.name for p in place.iterdir()] == ["disk"]
    source.upload(BytesIO(b"still works"))


def test_a_missing_program_is_named_with_its_package(pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.host.programs.SEARCH_PATH", ("/nonexistent",))
    with pytest.raises(errors.ToolMissing, match="'qemu-img' is not installed") as caught:
        make(pool, "disk", "qcow2")
    assert "qemu-utils" in (caught.value.hint or "")
    assert list(place.iterdir()) == []
    put(pool, "other", b"x")
