"""What outlives a process or an operation: programs that go on, journals, formats of files that were away for a while."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

import poolkit
from poolkit import errors
from poolkit.backend import Usage
from poolkit.engine import Engine
from poolkit.host import Host, journal

POOL = "<pool type='dir'><name>p</name><target><path>{}/images</path></target></pool>"


@pytest.fixture
def pool(engine: Engine, tmp_path: Path):
    pool = engine.define(POOL.format(tmp_path))
    pool.build()
    pool.start()
    return pool


@pytest.fixture
def every_file_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has no files without a name."""
    monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)


def test_a_program_of_a_dead_process_is_waited_for_before_it_is_undone(tmp_path: Path) -> None:
    root, undone, fifo = tmp_path / "root", tmp_path / "undone", tmp_path / "fifo"
    os.mkfifo(fifo)
    child = os.fork()
    if not child:
        with Engine(root) as engine, engine.core.operations.run("p", "build") as op:
            op.host.change(["cat", "--", str(fifo)], undo=["touch", "--", str(undone)])
        os._exit(0)
    head: dict[str, object] = {}
    while "running" not in head:
        time.sleep(0.01)
        for path in (root / "state" / "journal").glob("*.journal"):
            head = journal.read(str(path))[0]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with Engine(root) as engine:
        assert engine.recovered == []
        assert not undone.exists()
        with pytest.raises(errors.Busy, match=rf"died in build, and the program .* \(process {head['running']}\)"):
            engine.core.operations.recover("p")
        ending = threading.Timer(0.5, fifo.write_bytes, [b""])  # then it ends by itself
        ending.start()
        (line,) = engine.core.operations.recover("p", patience=60)
        ending.join()
        assert line.startswith("undone: build of pool 'p'")
        assert undone.exists()
        assert not journal.alive(head)


@pytest.mark.root
def test_what_died_on_a_file_system_waits_until_that_is_mounted(tmp_path: Path, every_file_named: None) -> None:
    root, place = tmp_path / "root", tmp_path / "images"
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    place.mkdir()
    mount = ["mount", "-o", "loop", str(image), str(place)]
    subprocess.run(mount, check=True)
    try:
        with Engine(root) as engine:
            engine.define(POOL.format(tmp_path)).start()
        if not (child := os.fork()):

            def fault(label: str) -> None:
                if label == "truncated":
                    os.kill(os.getpid(), signal.SIGKILL)

            engine = Engine(root, host=Host(fault=fault))
            engine.pool("p").create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert [name for name in os.listdir(place) if name.startswith(".poolkit-")]
        subprocess.run(["umount", str(place)], check=True)
        with Engine(root) as engine:
            assert engine.recovered == []
        subprocess.run(mount, check=True)
        with Engine(root) as engine:
            assert [line.partition(" by ")[0] for line in engine.recovered] == ["undone: vol-create of pool 'p'"]
        assert os.listdir(place) == ["lost+found"]
    finally:
        subprocess.run(["umount", str(place)], check=False)


@pytest.mark.root
def test_what_failed_when_its_file_system_went_away_is_taken_back_when_that_is_mounted(tmp_path: Path) -> None:
    place, storage = tmp_path / "images", tmp_path / "storage"
    mount = ["mount", "--bind", str(storage), str(place)]
    place.mkdir()
    storage.mkdir()
    subprocess.run(mount, check=True)
    away = False

    def fault(label: str) -> None:
        nonlocal away
        if label == "fsync directory of v" and not away:
            away = True
            subprocess.run(["umount", "--lazy", str(place)], check=True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    try:
        with Engine(tmp_path / "root", host=Host(fault=fault)) as engine:
            pool = engine.define(POOL.format(tmp_path))
            pool.start()
            with pytest.raises(errors.HostError, match="Input/output error") as failed:
                pool.create_volume("<volume><name>v</name><capacity>1048576</capacity></volume>")
            assert f"'{place}' is mounted no more" in str(failed.value.hint)
            assert engine.core.operations.failed() == [] and len(engine.core.operations.waiting()) == 1
            assert os.listdir(storage) == ["v"]
            subprocess.run(mount, check=True)
            pool.refresh()
            assert engine.core.operations.left() == [] and os.listdir(storage) == [] == pool.volumes()
    finally:
        subprocess.run(["umount", str(place)], check=False)


def test_an_abort_lets_some_programs_come_to_their_end(tmp_path: Path) -> None:
    begun, go, done, abort = tmp_path / "begun", tmp_path / "go", tmp_path / "done", threading.Event()
    view = Host().operation(abort=abort)

    def stop() -> None:
        while not begun.exists():
            time.sleep(0.01)
        abort.set()
        go.touch()

    stopping = threading.Thread(target=stop)
    stopping.start()
    script = f"touch {begun}; until [ -e {go} ]; do sleep 0.05; done; sleep 1; touch {done}"
    with pytest.raises(errors.Aborted):
        view.change(["bash", "-c", script], whole=True)
    assert done.exists()
    stopping.join()


def test_a_journal_is_gone_for_good_when_the_verb_returns(
    engine: Engine, pool, every_file_named: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = journal.sync_directory, []

    def watched(path: str) -> None:
        real(path)
        seen.append(sorted(os.listdir(path)))

    monkeypatch.setattr(journal, "sync_directory", watched)
    pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    assert any(seen), "there was a journal"
    assert seen[-1] == [], "and the last word to the disk was without it"


def test_the_format_of_a_file_that_was_away_stays(engine: Engine, pool, tmp_path: Path) -> None:
    volume = pool.create_volume("<volume><name>disk</name><capacity>1048576</capacity></volume>")
    assert volume.info.format == "raw"
    header = b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, 1 << 40)
    with open(volume.path, "r+b") as file:
        file.write(header.ljust(512, b"\0"))
    away = tmp_path / "away"
    os.rename(volume.path, away)
    pool.refresh()
    assert pool.volumes() == []
    os.rename(away, volume.path)
    pool.refresh()
    assert pool.volume("disk").info.format == "raw"
    shutil.copy(volume.path, away)  # another file of that name is another file
    os.replace(away, volume.path)
    pool.refresh()
    assert pool.volume("disk").info.format == "qcow2"


def test_a_pool_that_was_taken_away_meanwhile_does_not_become_active(engine: Engine) -> None:
    with pytest.raises(errors.HostError, match="was taken away meanwhile"):
        engine.core.inventory.set_active(4711, "<pool/>", engine.core.boot, None, [], Usage(0, 0, 0))


def test_a_listing_of_old_files_drops_no_new_pool(engine: Engine, pool) -> None:
    record = engine.core.inventory.record("p")
    assert record is not None
    engine.core.index._remove(record._replace(active=0, live=None))
    assert engine.core.inventory.record("p") is not None
    os.unlink(engine.core.store.path("p"))
    engine.core.inventory.set_inactive(record.id)
    assert engine.core.index.sync("p") is None


def test_a_linked_target_is_followed(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "images").symlink_to("real")
    xml = POOL.format(tmp_path).replace("</path>", "</path><permissions><mode>0750</mode></permissions>")
    pool = engine.define(xml)
    assert pool.build()
    assert (tmp_path / "real").stat().st_mode & 0o7777 == 0o750
    assert pool.start()


def test_unknown_options_are_refused_in_words(engine: Engine, pool) -> None:
    with pytest.raises(errors.Unsupported, match="pool 'p': create does not know 'stripes' in pools of type 'dir'"):
        pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>", backend={"stripes": 2})


def test_a_misspelt_keyword_is_refused_before_anything_is_done(engine: Engine, pool) -> None:
    made = pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    with pytest.raises(
        TypeError, match=r"create_volume_from\(\) has no keyword argument 'linkd'; did you mean 'linked'"
    ):
        made.clone("w", linkd=True)
    with pytest.raises(TypeError, match=r"create_volume\(\) has no keyword argument 'linked'"):
        pool.create_volume("<volume><name>w</name><capacity>4096</capacity></volume>", linked=True)
    assert [v.name for v in pool.volumes()] == ["v"]


def test_a_pool_is_equal_to_itself_wherever_it_was_looked_up(engine: Engine, pool, tmp_path: Path) -> None:
    assert engine.pool("p") == pool == engine.pool(pool.uuid)
    assert len({engine.pool("p"), pool}) == 1
    with Engine(tmp_path / "elsewhere") as other:
        assert other.define(pool.xml(inactive=True)) != pool


def test_what_changes_tables_of_lvm_or_partitions_is_never_killed() -> None:
    root = Path(poolkit.__file__).parent
    modules = ("lvm", "lvmvolumes", "lvmgroups", "lvmshared", "lvmatonce", "disknodes", "partvolumes")
    found = 0
    for name in (
        *(f"families/{module}" for module in modules),
        "backends/logical",
        "backends/shared_lvm",
        "backends/disk",
    ):
        for node in ast.walk(ast.parse((root / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("host.change"):
                found += 1
                said = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert said.get("whole") == "True", f"{name}:{node.lineno}"
    assert found > 20
