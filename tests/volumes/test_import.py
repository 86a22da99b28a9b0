"""Volumes from images: files, streams and servers, in each way in which they can be another thing than they should."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, model
from poolkit.engine.pool import Pool
from poolkit.host import web
from tests.formats import samples

from .conftest import MIB, RecordingHost, content, entries

tools = pytest.mark.tools("qemu-img", "prlimit")
IMAGE = samples.qcow2(size=MIB).ljust(65536, b"\0")
DISK = b"boot sector".ljust(MIB, b"\0")


def sum_of(data: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


class Server(http.server.ThreadingHTTPServer):
    """Answers each path as ``answers`` says: with a function that is given the handler."""

    daemon_threads = True
    answers: dict[str, Callable[[Any], None]]
    asked: list[str]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, *_: Any) -> None: ...


def file(data: bytes, length: int | None = -1, sent: int | None = None) -> Callable[[Any], None]:
    """Sends ``data``, or the first ``sent`` bytes of it; ``length`` is what the head says (None: nothing, -1: the truth)."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(len(data) if length == -1 else length))
        handler.end_headers()
        handler.wfile.write(data[:sent])

    return answer


def chunked(data: bytes, whole: bool) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) + (b"0\r\n\r\n" if whole else b""))
        handler.close_connection = True

    return answer


def moved(location: str, status: int = 302) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Location", location)
        handler.end_headers()

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = {}, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture
def refused(pool: Pool, place: Path) -> Iterator[Pool]:
    """The pool, in which nothing may have appeared at the end, under whatever name."""
    before = entries(place)
    yield pool
    assert entries(place) == before
    assert pool.volumes() == []


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_a_file_a_stream_and_an_address_are_the_same_volume(pool: Pool, image: Path, server: Server) -> None:
    server.answers["/i"] = file(IMAGE)
    with image.open("rb") as stream:
        made = [
            pool.import_volume("path", image),
            pool.import_volume("stream", stream),
            pool.import_volume("memory", BytesIO(IMAGE)),
            pool.import_volume("address", server.url("/i")),
        ]
    for volume in made:
        assert (volume.info.format, volume.info.capacity) == ("qcow2", MIB)
        assert volume.outcome is not None and volume.outcome.changed
        assert content(volume) == IMAGE
        assert pool.volume(volume.name).info.format == "qcow2", "the format is not on record"


@pytest.mark.parametrize("kind", ["sha256", "sha512"])
def test_the_right_checksum(pool: Pool, image: Path, server: Server, kind: str) -> None:
    server.answers["/i"] = file(IMAGE)
    right = sum_of(IMAGE, kind)
    assert content(pool.import_volume("a", image, checksum=right)) == IMAGE
    assert content(pool.import_volume("b", BytesIO(IMAGE), checksum=right.upper().replace("SHA", "sha"))) == IMAGE
    assert content(pool.import_volume("c", server.url("/i"), checksum=right)) == IMAGE


def test_zeros_become_holes_and_the_size_stays(pool: Pool) -> None:
    volume = pool.import_volume("disk", BytesIO(DISK + bytes(7 * MIB + 3)))
    assert volume.info.format == "raw" and volume.info.capacity == 8 * MIB + 3
    assert content(volume) == DISK + bytes(7 * MIB + 3)
    assert os.stat(volume.path).st_blocks * 512 < 2 * MIB


def test_a_raw_disk_can_grow_and_be_reserved(pool: Pool) -> None:
    volume = pool.import_volume("disk", BytesIO(DISK), capacity=3 * MIB, allocation=3 * MIB)
    assert volume.info.capacity == 3 * MIB and volume.info.allocation >= 3 * MIB
    assert content(volume) == DISK + bytes(2 * MIB)


@tools
@pytest.mark.parametrize("origin", ["path", "stream"])
def test_an_image_can_grow_and_become_another_format(pool: Pool, tmp_path: Path, origin: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(DISK)

    def source() -> Any:
        return path if origin == "path" else BytesIO(path.read_bytes())

    made = pool.import_volume("made", source(), format="qcow2", capacity=4 * MIB)
    assert (made.info.format, made.info.capacity) == ("qcow2", 4 * MIB)
    path.write_bytes(content(made))
    grown = pool.import_volume("grown", source(), capacity=8 * MIB)
    assert (grown.info.format, grown.info.capacity) == ("qcow2", 8 * MIB)
    raw = pool.import_volume("raw", source(), format="raw")
    assert content(raw) == DISK + bytes(3 * MIB)


def test_owner_and_mode(pool: Pool, image: Path) -> None:
    volume = pool.import_volume("disk", image, permissions=model.Permissions(mode=0o640))
    assert volume.info.mode == 0o640
    assert pool.import_volume("other", BytesIO(IMAGE)).info.mode == 0o600


def test_progress_is_told(pool: Pool) -> None:
    seen: list[tuple[int, int, str]] = []
    pool.import_volume("disk", BytesIO(DISK * 3), progress=lambda *what: seen.append(what))
    assert seen[-1][0] == 3 * MIB and [one[0] for one in seen] == sorted(one[0] for one in seen)


def test_a_file_on_its_way_needs_its_space_once(pool: Pool, place: Path, host: RecordingHost) -> None:
    pool.import_volume("disk", BytesIO(IMAGE))
    inode = (place / "disk").stat().st_ino
    labels = [str(step) for step in host.plan]
    assert inode and labels.count(f"create {place}/disk") <= 1


def test_a_dry_run_foresees_and_makes_nothing(pool: Pool, place: Path, image: Path, server: Server) -> None:
    from poolkit.engine import Engine

    server.answers["/i"] = file(IMAGE)
    before = entries(place)
    with Engine(place.parent / "root", dry_run=True) as engine:
        dry = engine.pool("images")
        plan = dry.import_volume("disk", image).outcome.plan
        assert any(str(image) in line for line in plan)
        assert any("/i" in line for line in dry.import_volume("disk", server.url("/i")).outcome.plan)
        with pytest.raises(errors.Unsafe, match="checksum"):
            dry.import_volume("disk", image, checksum=sum_of(b""))
    assert entries(place) == before and server.asked == []


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["path", "stream", "address"])
def test_a_wrong_checksum_leaves_nothing(refused: Pool, image: Path, server: Server, origin: str) -> None:
    server.answers["/i"] = file(IMAGE)
    what: Any = {"path": image, "stream": BytesIO(IMAGE), "address": server.url("/i")}[origin]
    with pytest.raises(errors.Unsafe, match="checksum is"):
        refused.import_volume("disk", what, checksum=sum_of(IMAGE + b"x"))


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha256:12", "md5:" + 32 * "0", "sha256:" + 64 * "g", 64 * "0"]
)
def test_what_is_no_checksum(refused: Pool, image: Path, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="sha256:HEX"):
        refused.import_volume("disk", image, checksum=text)


BAD: dict[str, tuple[bytes, type[errors.PoolkitError], str]] = {
    "empty": (b"", errors.InvalidArgument, "is empty"),
    "packed": (gzip.compress(DISK), errors.InvalidArgument, "packed with gzip"),
    "packed by xz": (b"\xfd7zXZ\0" + bytes(600), errors.InvalidArgument, "packed with xz"),
    "with a backing image": (
        samples.qcow2(size=MIB, backing=b"/etc/shadow").ljust(65536, b"\0"), errors.Unsafe, "stands on a backing image",
    ),
    "a description of other files": (
        b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        b'RW 2048 FLAT "/etc/shadow" 0\n', errors.Unsafe, "/etc/shadow",
    ),
    "ambiguous": (
        (IMAGE[:32769] + b"CD001").ljust(65536, b"\0"), errors.Unsafe, "passes for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("origin", ["path", "stream"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_leaves_nothing(refused: Pool, tmp_path: Path, name: str, origin: str) -> None:
    data, kind, words = BAD[name]
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(kind, match=words):
        refused.import_volume("disk", path if origin == "path" else BytesIO(data))


def test_the_caller_may_say_what_it_is(pool: Pool) -> None:
    packed = gzip.compress(DISK)
    volume = pool.import_volume("disk", BytesIO(packed), source_format="raw")
    assert volume.info.format == "raw" and content(volume) == packed
    both = BAD["ambiguous"][0]
    assert pool.import_volume("both", BytesIO(both), source_format="raw").info.format == "raw"
    with pytest.raises(errors.Unsafe, match="is not used as vdi"):
        pool.import_volume("no", BytesIO(IMAGE), source_format="vdi")
    with pytest.raises(errors.InvalidArgument, match="no format of an image"):
        pool.import_volume("no", BytesIO(IMAGE), source_format="nothing")


def test_less_than_the_image_has_is_refused(refused: Pool, image: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"has {MIB} bytes: {MIB - 512} would cut off data"):
        refused.import_volume("disk", image, capacity=MIB - 512)
    for capacity in (-1, 0, 1 << 63):
        with pytest.raises(errors.InvalidArgument, match="cannot have"):
            refused.import_volume("disk", image, capacity=capacity)


def test_what_is_no_file(refused: Pool, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="is a directory"):
        refused.import_volume("disk", tmp_path)
    with pytest.raises(errors.HostError, match="No such file"):
        refused.import_volume("disk", tmp_path / "none")


def test_a_name_that_is_taken(pool: Pool, image: Path) -> None:
    pool.import_volume("disk", image)
    with pytest.raises(errors.VolumeExists):
        pool.import_volume("disk", BytesIO(DISK))
    assert content(pool.volume("disk")) == IMAGE


def test_a_fifo_is_a_stream(pool: Pool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(IMAGE))
    writer.start()
    assert content(pool.import_volume("disk", fifo)) == IMAGE
    writer.join()


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [file(IMAGE, sent=40_000), file(IMAGE, length=70_000), chunked(IMAGE, whole=False)])
def test_a_body_that_ends_early_leaves_nothing(refused: Pool, server: Server, answer: Callable[[Any], None]) -> None:
    server.answers["/i"] = answer
    with pytest.raises(errors.HostError, match="ended before all of it was there"):
        refused.import_volume("disk", server.url("/i"))


def test_chunks_that_end_as_they_should(pool: Pool, server: Server) -> None:
    server.answers["/i"] = chunked(IMAGE, whole=True)
    volume = pool.import_volume("disk", server.url("/i"))
    assert content(volume) == IMAGE and volume.outcome is not None and volume.outcome.warnings == ()


def test_a_length_that_nobody_says_is_warned_of_unless_there_is_a_checksum(pool: Pool, server: Server) -> None:
    server.answers["/i?token=hidden"] = file(IMAGE, length=None)
    outcome = pool.import_volume("a", server.url("/i?token=hidden")).outcome
    assert outcome is not None and "does not say how long it is" in outcome.warnings[0]
    assert "hidden" not in outcome.warnings[0]
    outcome = pool.import_volume("b", server.url("/i?token=hidden"), checksum=sum_of(IMAGE)).outcome
    assert outcome is not None and outcome.warnings == ()


def test_more_than_there_is_room_for_is_refused_before_it_is_read(refused: Pool, server: Server) -> None:
    server.answers["/i"] = file(b"x", length=1 << 62)
    with pytest.raises(errors.NoSpace, match=f"{1 << 62} bytes are needed"):
        refused.import_volume("disk", server.url("/i"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(pool: Pool, server: Server, status: int) -> None:
    server.answers.update({"/a": moved("/b", status), "/b": moved(server.url("/i"), status), "/i": file(IMAGE)})
    assert content(pool.import_volume("disk", server.url("/a"))) == IMAGE


@pytest.mark.parametrize(
    "aim",
    ["file:///etc/passwd", "file:/etc/passwd", "ftp://127.0.0.1/i", "gopher://127.0.0.1/", "data:,x", "unix:///x"],
)
def test_a_redirect_to_another_scheme_is_not_followed(refused: Pool, server: Server, aim: str) -> None:
    server.answers["/a"] = moved(aim)
    with pytest.raises(errors.Unsafe, match="it was not followed"):
        refused.import_volume("disk", server.url("/a"))


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    with pytest.raises(errors.Unsafe, match="from https to http"):
        web._aim("https://a.example/i", "http://a.example/i")
    assert web._aim("https://a.example/i", "//b.example/j") == "https://b.example/j"
    assert web._aim("http://a.example/i", "https://a.example/i") == "https://a.example/i"


def test_a_redirect_without_end_or_aim(refused: Pool, server: Server) -> None:
    server.answers.update({"/a": moved("/a"), "/none": moved(""), "/bad": moved("http://[x")})
    with pytest.raises(errors.HostError, match="10 redirects"):
        refused.import_volume("disk", server.url("/a"))
    assert len(server.asked) == 11
    for path, words in (("/none", "to nowhere"), ("/bad", "no address")):
        with pytest.raises(errors.HostError, match=words):
            refused.import_volume("disk", server.url(path))


def test_a_server_that_refuses_or_is_not_there(refused: Pool, server: Server) -> None:
    with pytest.raises(errors.HostError, match=r"refuses 'http://127.0.0.1:\d+/none': 404 Not Found") as caught:
        refused.import_volume("disk", server.url("/none?token=hidden"))
    assert "hidden" not in str(caught.value)
    with pytest.raises(errors.Unreachable, match="cannot be reached: Connection refused") as caught:
        refused.import_volume("disk", "http://127.0.0.1:1/i?token=hidden")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("file:///etc/passwd", errors.Unsupported), ("ftp://a.example/i", errors.Unsupported),
        ("http://", errors.InvalidArgument), ("http://a.example:port/i", errors.InvalidArgument),
        ("http://a.example/i\r\nX: y", errors.InvalidArgument), ("https://[::1/i", errors.InvalidArgument),
        ("https://user:hidden@a.example/i", errors.Unsafe),
    ],
)  # fmt: skip
def test_addresses_that_are_none(refused: Pool, url: str, kind: type[errors.PoolkitError]) -> None:
    with pytest.raises(kind) as caught:
        refused.import_volume("disk", url)
    assert "hidden" not in str(caught.value) and caught.value.message.isprintable()


def test_a_proxy_of_the_environment_is_asked(pool: Pool, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url("").rstrip("/"))
    server.answers["http://a.example/i"] = file(IMAGE)
    assert content(pool.import_volume("disk", "http://a.example/i")) == IMAGE
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.answers["/i"] = file(IMAGE)
    assert content(pool.import_volume("direct", server.url("/i"))) == IMAGE


def test_without_the_package_it_says_what_is_missing(refused: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(errors.Unsupported, match="urllib3") as caught:
        refused.import_volume("disk", "http://127.0.0.1/i")
    assert caught.value.hint == "pip install 'poolkit[http]'"


def test_the_command_does_not_load_what_only_servers_need(pool: Pool, place: Path, image: Path) -> None:
    code = (
        "import sys; from poolkit.cli import main; "
        f"assert main(['--root', {str(place.parent / 'root')!r}, 'vol-import', 'images', 'disk', {str(image)!r}]) == 0; "
        "sys.exit('urllib3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- stopped ----------------------------------------------------------------------------------------------------------


def test_an_abort_leaves_nothing(refused: Pool) -> None:
    abort = threading.Event()
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb") as feed:
        feed.write(IMAGE[:40_000])
        feed.flush()
        threading.Timer(0.2, abort.set).start()
        with pytest.raises(errors.Aborted):
            refused.import_volume("disk", stream, abort=abort)


def test_killed_while_the_bytes_come_leaves_nothing(refused: Pool, place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "poolkit",
        "--root",
        str(place.parent / "root"),
        "vol-import",
        "images",
        "disk",
        "-",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(range(256)) * 4096)
    process.stdin.flush()

    def taken() -> bool:
        found = 0
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it is closed meanwhile, or has no name
                found += str(place) in os.readlink(link) and link.stat().st_size > 0
        return found > 0

    while not taken():
        assert process.poll() is None, "the bytes did not arrive in the pool's directory"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    refused.refresh()
