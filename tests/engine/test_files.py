"""The durable operations on files: each says whether it changed something, and does nothing in a dry run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from poolkit.host import Host, rollback
from poolkit.host import journal as journals
from poolkit.host.directory import Directory
from poolkit.host.files import Files

Done = Callable[[Files, Path], bool]


def _state(place: Path) -> list[tuple[str, int, str]]:
    """Names, modes and contents below a folder."""
    return sorted(
        (
            str(path.relative_to(place)),
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "",
        )
        for path in place.rglob("*")
    )


def _remove(files: Files, place: Path) -> bool:
    with Directory(str(place)) as directory:
        return files.remove(directory, "file")


# what is done, and whether it is undone when a later step fails
VERBS: dict[str, tuple[Done, bool]] = {
    "mkdir": (lambda files, place: files.mkdir(f"{place}/a/b"), True),
    "mkdir that is kept": (lambda files, place: files.mkdir(f"{place}/c", 0o700, keep=True), False),
    "rmdir": (lambda files, place: files.rmdir(f"{place}/empty"), False),
    "chmod": (lambda files, place: files.chmod(f"{place}/folder", 0o711), True),
    "symlink": (lambda files, place: files.symlink("to", f"{place}/link"), True),
    "unlink a file": (lambda files, place: files.unlink(f"{place}/file"), True),
    "unlink a link": (lambda files, place: files.unlink(f"{place}/old"), True),
    "remove": (_remove, False),
}


@pytest.mark.parametrize("name", VERBS)
def test_each_operation_says_whether_it_changed_something(name: str, tmp_path: Path) -> None:
    do, undone = VERBS[name]
    place = tmp_path / "place"
    place.mkdir()
    (place / "folder").mkdir(0o755)
    (place / "empty").mkdir()
    (place / "file").write_text("text")
    (place / "old").symlink_to("somewhere")
    before = _state(place)
    assert do(Host(dry_run=True).files, place) is True
    assert _state(place) == before
    journal = journals.Journal(str(tmp_path / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})
    host = Host().operation(journal=journal)
    assert do(host.files, place) is True
    after = _state(place)
    assert after != before
    assert do(Host().files, place) is False
    assert _state(place) == after
    rollback.roll_back(journal, host)
    assert _state(place) == (before if undone else after)


@pytest.mark.root
def test_an_owner_that_a_folder_has_is_no_change(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, 11, 12)
    assert not Host().files.chown(str(folder), 11, 12)
    assert not Host().files.chown(str(folder), -1, 12)
    assert not Host().files.chown(str(folder), 11, -1)
    assert Host(dry_run=True).files.chown(str(folder), 13, -1)
    assert (folder.stat().st_uid, folder.stat().st_gid) == (11, 12)
    for owner, group, then in ((13, -1, (13, 12)), (-1, 14, (13, 14)), (13, 15, (13, 15)), (16, 15, (16, 15))):
        assert Host().files.chown(str(folder), owner, group)
        assert (folder.stat().st_uid, folder.stat().st_gid) == then


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("kind", ["file", "symbolic link"])
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_what_is_replaced_waits_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, kind: str, ends: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = place / "p.xml"
    if kind == "file":
        path.write_text("old")
        path.chmod(0o640)
    else:
        (place / "elsewhere").write_text("old")
        path.symlink_to("elsewhere")
    before = _state(place)
    if not links:

        def link(*names: object, **how: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    journal = journals.Journal(str(tmp_path / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})
    Host().operation(journal=journal).files.replace(str(path), b"new", 0o604)
    assert (path.read_text(), path.lstat().st_mode & 0o7777, path.is_symlink()) == ("new", 0o604, False)
    assert len([one for one in place.iterdir() if one.name.startswith(".poolkit-")]) == 1
    if ends == "well":
        rollback.finish(journal.steps)
        assert path.read_text() == "new"
        assert [one for one in place.iterdir() if one.name.startswith(".poolkit-")] == []
    else:
        rollback.roll_back(journal, Host())
        assert _state(place) == before
