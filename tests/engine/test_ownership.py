"""Whatever others own or can write is never taken for poolkit's own: not its journals, not a folder above them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine import Engine
from poolkit.host import private

NOBODY = 65534
CALLS: dict[str, Callable[[Engine], object]] = {
    "pools": lambda e: e.pools(),
    "define": lambda e: e.define("<pool type='dir'><name>p</name><target><path>/nowhere/p</path></target></pool>"),
    "secrets": lambda e: e.secrets(),
}


def plant(root: Path) -> Path:
    """A journal whose undo makes a file: the file."""
    made = root.parent / "owned"
    folder = root / "state/journal"
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "x.journal"
    lines = [{"pool": "p", "verb": "start", "id": "x", "pid": 1}, ["run", "touch", str(made)]]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in (root, root / "state", folder):
        path.chmod(0o700)
    journal.chmod(0o600)
    return made


def test_our_own_is_undone(tmp_path: Path) -> None:
    made = plant(tmp_path / "root")
    with Engine(tmp_path / "root") as engine:
        assert engine.recovered == ["undone: start of pool 'p' by process 1"]
    assert made.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720, 0o702], ids=oct)
@pytest.mark.parametrize("where", ["state/journal/x.journal", "state/journal", "state", "."])
def test_what_others_can_write_is_refused(tmp_path: Path, where: str, mode: int) -> None:
    made = plant(tmp_path / "root")
    path = tmp_path / "root" / where
    path.chmod(mode)
    if mode == 0o1777 and where in ("state", "."):
        return  # what is below is ours, and none but us can move it: as in /tmp
    if os.stat(path).st_gid == os.getgid() and mode in (0o770, 0o720) and where in ("state", "."):
        os.chown(path, -1, NOBODY)  # not our private group
    with pytest.raises(errors.Unsafe) as caught:
        Engine(tmp_path / "root")
    assert f"'{path}'" in str(caught.value) and "chmod go-w" in (caught.value.hint or "")
    assert not made.exists()


@pytest.mark.root
@pytest.mark.parametrize("where", ["state/journal/x.journal", "state/journal", "state", "."])
def test_what_belongs_to_others_is_refused(tmp_path: Path, where: str) -> None:
    made = plant(tmp_path / "root")
    path = tmp_path / "root" / where
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(errors.Unsafe, match="belongs to another user") as caught:
        Engine(tmp_path / "root")
    assert f"'{path}'" in str(caught.value) and "chown" in (caught.value.hint or "")
    assert not made.exists()


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_a_journal_is_a_regular_file_with_one_name(tmp_path: Path, kind: str) -> None:
    made = plant(tmp_path / "root")
    journal = tmp_path / "root/state/journal/x.journal"
    other = tmp_path / "other"
    if kind == "hard link":
        other.hardlink_to(journal)
    else:
        journal.rename(other)
        if kind == "link":
            journal.symlink_to(other)
        elif kind == "fifo":
            os.mkfifo(journal, 0o600)
        else:
            journal.mkdir(0o700)
    with pytest.raises(errors.PoolkitError):
        Engine(tmp_path / "root")
    assert not made.exists()


@pytest.mark.root
@pytest.mark.parametrize("where", ["state", "journal"])
def test_a_link_of_somebody_else_is_not_followed(tmp_path: Path, where: str) -> None:
    made = plant(tmp_path / "root")
    folder = tmp_path / "root" / ("state" if where == "state" else "state/journal")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    os.chown(folder, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(errors.Unsafe):
        Engine(tmp_path / "root")
    assert not made.exists()
    os.chown(folder, 0, 0, follow_symlinks=False)
    with Engine(tmp_path / "root"):
        assert made.exists()  # a link of ours is as good as what it leads to


@pytest.mark.root
def test_where_a_link_leads_counts_as_well(tmp_path: Path) -> None:
    made = plant(tmp_path / "root")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (tmp_path / "root/state").rename(foreign / "state")
    (tmp_path / "root/state").symlink_to("../foreign/state")
    os.chown(foreign, NOBODY, NOBODY)
    with pytest.raises(errors.Unsafe, match="foreign"):
        Engine(tmp_path / "root")
    assert not made.exists()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(errors.Unsafe, match="circle"):
        private.check(f"{tmp_path}/a")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("folder", ["storage", "state", "run", "secrets"])
def test_each_folder_is_looked_at_by_what_uses_it(tmp_path: Path, folder: str, call: str) -> None:
    uses = {
        "pools": ("storage", "state"),
        "define": ("storage", "state", "run"),
        "secrets": ("secrets",),
    }
    with Engine(tmp_path / "root") as engine:
        path = tmp_path / "root" / folder
        path.mkdir(parents=True)  # after the engine was opened
        path.chmod(0o777)
        if folder in uses[call]:
            with pytest.raises(errors.Unsafe, match="everybody can write"):
                CALLS[call](engine)
        else:
            CALLS[call](engine)


@pytest.fixture
def no_mask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def test_what_poolkit_makes_is_for_nobody_else_whatever_the_umask(tmp_path: Path, no_mask: None) -> None:
    root = tmp_path / "deep/er/root"
    with Engine(root) as engine:
        engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/x</path></target></pool>").build()
        engine.pool("p").autostart()
        for ephemeral in ("yes", "no"):
            usage = f"<usage type='volume'><volume>/{ephemeral}</volume></usage>"
            engine.define_secret(f"<secret ephemeral='{ephemeral}' private='no'>{usage}</secret>").set_value(b"s")
        memory = Path(engine.secret_store.memory)
    made = [p for top in (tmp_path / "deep", memory) for p in (top, *top.rglob("*")) if not p.is_symlink()]
    assert len([p for p in made if p.is_dir()]) > 8
    assert [p for p in made if p.stat().st_mode & 0o022] == []
    assert [p for p in made if p.is_file() and p.stat().st_mode & 0o077 and "sqlite" not in p.name] == []
    with Engine(root) as engine:
        assert [p.name for p in engine.pools()] == ["p"]
        for secret in engine.secrets():
            secret.undefine()


@pytest.mark.parametrize("unnamed", [True, False], ids=["no name", "temporary"])
def test_what_is_not_finished_is_for_nobody_else(
    tmp_path: Path, no_mask: None, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    if not unnamed:
        monkeypatch.setattr("poolkit.host.files.Files.has_unnamed", lambda *_: False)
    made: list[tuple[str, int]] = []
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **how: Any) -> int:
        fd = real(path, flags, mode, **how)
        if flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY):
            made.append((str(path), os.fstat(fd).st_mode & 0o777))
        return fd

    monkeypatch.setattr(os, "open", opened)
    with Engine(tmp_path / "root") as engine:
        pool = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/x</path></target></pool>")
        usage = "<usage type='volume'><volume>/v</volume></usage>"
        engine.define_secret(f"<secret ephemeral='no' private='no'>{usage}</secret>").set_value(b"s")
        pool.build()
        pool.start()
        pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    temporary = [path for path, _ in made if ".poolkit-" in path or path == "."]
    assert len(temporary) == 4, "a definition, a secret, its value and a volume"
    assert [(path, mode) for path, mode in made if mode & 0o077] == []


def test_a_strange_mask_takes_nothing_away_from_us(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        private.make(f"{tmp_path}/a/b")
    finally:
        os.umask(old)
    assert [(tmp_path / p).stat().st_mode & 0o7777 for p in ("a", "a/b")] == [0o700, 0o700]


@pytest.mark.root
def test_another_user_cannot_make_root_run_a_program(tmp_path: Path) -> None:
    """As it would be done: a folder in a place that everybody can write, made before root's."""
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/tmp") and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    plant(place / "root")
    for path in (place / "root", *(place / "root").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for verb in ("list", "doctor", "recover"):
        done = subprocess.run(
            [sys.executable, "-m", "poolkit", "--root", place / "root", verb], capture_output=True, text=True
        )
        assert done.returncode == (1 if verb == "doctor" else 9), done.stderr
        assert "belongs to another user" in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert not (place / "owned").exists()
