"""What the system refuses: the error names the whole path and what to do, and leaves nothing behind that strikes later."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from poolkit import Engine, errors
from poolkit.engine.pool import Pool
from poolkit.host import rights
from poolkit.host.toolwords import sentence


@pytest.fixture
def pool(engine: Engine, tmp_path: Path) -> Pool:
    made = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    made.start(build=True)
    made.create_volume("<volume><name>v</name><capacity>5</capacity></volume>")
    return made


def _refuse(patch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refused(*args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number), *args[:1])

    patch.setattr(os, call, refused)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM])
@pytest.mark.parametrize(("call", "asked"), [("fchmod", {"mode": 0o640}), ("fchown", {"owner": 12345})])
def test_what_was_not_changed_is_not_changed_back_later(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, call: str, asked: dict[str, int], number: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(errors.PermissionDenied) as caught:
        _refuse(patch, call, number)
        pool.volume("v").permit(**asked)  # type: ignore[arg-type]
    path = pool.volume("v").path
    assert f"'{path}'" in str(caught.value)
    assert "could not undo" not in (caught.value.hint or "")
    os.chmod(path, 0o604)  # somebody does it by hand
    pool.refresh()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o604


@pytest.mark.parametrize("verb", ["resize", "delete", "upload"])
def test_an_entry_of_the_pool_is_named_whole_and_says_whose_it_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    volume = pool.volume("v")
    path = volume.path
    calls = {"open": os.open, "unlink": os.unlink, "rename": os.rename}

    def refusing(call: str) -> Any:
        def refused(name: Any, *args: Any, **more: Any) -> Any:
            if name == "v":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return calls[call](name, *args, **more)

        return refused

    work = {"resize": lambda: volume.resize(9), "delete": volume.delete, "upload": lambda: volume.upload(b"1")}[verb]
    with monkeypatch.context() as patch, pytest.raises(errors.PermissionDenied) as caught:
        for call in calls:
            patch.setattr(os, call, refusing(call))
        work()
    assert str(caught.value) == f"cannot {verb} volume 'v' of pool 'p' ('{path}'): Permission denied"
    place = os.path.dirname(path) if verb == "delete" else path  # a name is taken from its folder
    assert (caught.value.hint or "").startswith(f"'{place}' is of user {os.geteuid()} ")


def test_an_owner_who_took_the_right_from_himself_is_told_how_to_get_it_back(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolkit.engine import operation

    path = pool.volume("v").path
    os.chmod(path, 0)
    me = os.stat(path).st_uid or 1000
    os.chown(path, me, -1)
    monkeypatch.setattr(os, "geteuid", lambda: me)
    told = operation.worded(PermissionError(errno.EACCES, "no", path), "p", "vol-permit", "v")
    assert str(told).startswith("cannot change the permissions of volume 'v' of pool 'p'")
    assert (told.hint or "").endswith(f"you are user {me}, its owner: chmod u+rwX '{path}'")


def test_only_root_gives_files_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [5])
    _refuse(monkeypatch, "fchown", errno.EPERM)
    with pytest.raises(errors.PermissionDenied, match=r"'/a/b' cannot be given to user 0 by user 1000") as caught:
        rights.give(3, "/a/b", 0, -1)
    assert "only root gives files to other users" in (caught.value.hint or "")
    with pytest.raises(errors.PermissionDenied, match="to user 0 and group 7"):
        rights.give(3, "/a/b", 0, 7)
    with pytest.raises(PermissionError) as plain:  # that is refused for another reason
        rights.give(3, "/a/b", -1, 5)
    assert plain.value.filename == "/a/b"


def test_a_directory_that_cannot_be_changed_is_no_matter_of_its_mode(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolkit.engine import operation

    error = PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"{tmp_path}/p")
    assert " with mode " in (operation.worded(error, "p", "vol-create", "w").hint or "")
    for flag, word in ((0x10, "immutable"), (0x20, "append-only")):

        def answer(fd: int, request: int, flags: bytearray, flag: int = flag) -> None:
            flags[0] = flag

        monkeypatch.setattr("fcntl.ioctl", answer)
        told = operation.worded(error, "p", "vol-create", "w")
        assert told.hint == f"'{tmp_path}/p' is {word}: chattr -{word[0]} '{tmp_path}/p'"
    assert rights.kept_as_it_is("/dev/null") is None and rights.kept_as_it_is(f"{tmp_path}/none") is None


@pytest.mark.parametrize(
    ("make", "what"), [(lambda p: p.symlink_to("v"), "a symbolic link"), (os.mkfifo, "a special file")]
)
def test_what_is_in_the_way_and_no_volume_is_not_to_be_deleted_as_one(
    pool: Pool, tmp_path: Path, make: Any, what: str
) -> None:
    make(tmp_path / "p" / "w")
    with pytest.raises(errors.VolumeExists) as caught:
        pool.create_volume("<volume><name>w</name><capacity>1</capacity></volume>")
    assert caught.value.hint == f"choose another name; it is {what}, and if it is to go: rm '{tmp_path}/p/w'"


@pytest.mark.parametrize(("number", "first"), [(errno.EBUSY, "unmount that"), (errno.ENOTEMPTY, "delete its volumes")])
def test_what_keeps_a_directory_is_what_has_to_go(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, number: int, first: str
) -> None:
    pool.destroy()
    with monkeypatch.context() as patch, pytest.raises(errors.Unsafe) as caught:
        _refuse(patch, "rmdir", number)
        pool.delete()
    assert (caught.value.hint or "").startswith(f"{first} first; ")


def test_why_a_refresh_failed_is_kept_in_words(pool: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(errors.PermissionDenied):
        _refuse(patch, "scandir", errno.EACCES)
        pool.refresh()
    reason = pool.info.reason
    assert reason.startswith("the last refresh failed: cannot refresh pool 'p'") and "Errno" not in reason


def test_a_file_that_cannot_be_so_large() -> None:
    from poolkit.engine import operation

    told = operation.worded(OSError(errno.EFBIG, "File too large"), "p", "vol-resize", "v")
    assert (told.hint or "").startswith("the file system has no files so large")


def test_what_qemu_img_could_not_clean_up_is_not_the_cause() -> None:
    said = "qemu-img: Error when deleting file /p/#1 (deleted): Permission denied\nqemu-img: /p/#1: No space left on device"
    assert sentence(said) == "qemu-img: /p/#1: No space left on device"


@pytest.mark.parametrize("below", ["", "/x", "/x/y"])
def test_a_file_where_the_directory_is_to_be(engine: Engine, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    pool = engine.define(f"<pool type='dir'><name>q</name><target><path>{tmp_path}/file{below}</path></target></pool>")
    for verb in (pool.build, lambda: pool.start(build=True)):
        with pytest.raises(errors.HostError, match=f"^pool 'q': '{tmp_path}/file' is not a directory$"):
            verb()
    if not below:
        with pytest.raises(errors.HostError, match=f"^pool 'q': '{tmp_path}/file' is not a directory$"):
            pool.delete()
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_as_the_target_is_not_removed_nor_what_it_leads_to(engine: Engine, tmp_path: Path, there: bool) -> None:
    (tmp_path / "link").symlink_to("real")
    if there:
        (tmp_path / "real").mkdir()
    pool = engine.define(f"<pool type='dir'><name>q</name><target><path>{tmp_path}/link</path></target></pool>")
    pool.build()
    with pytest.raises(errors.Unsafe, match="it is a symbolic link to") as caught:
        pool.delete()
    assert caught.value.hint == f"if both are to go: rmdir '{tmp_path}/real' && rm '{tmp_path}/link'"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_dir()


def test_a_dry_run_foresees_what_keeps_a_directory(pool: Pool, engine: Engine) -> None:
    pool.destroy()
    with Engine(engine.locations.state.rpartition("/")[0], dry_run=True) as dry:
        with pytest.raises(errors.Unsafe, match="it is not empty"):
            dry.pool("p").delete()
        os.unlink(f"{pool.definition().target.path}/v")
        assert dry.pool("p").delete().plan == (f"rmdir {pool.definition().target.path}",)


def test_what_no_verb_deletes_is_named_where_it_keeps_a_directory(pool: Pool) -> None:
    place = pool.definition().target.path
    os.symlink("v", f"{place}/link")
    os.mkfifo(f"{place}/fifo")
    Path(f"{place}/new\nline").touch()
    Path(os.fsdecode(os.fsencode(place) + b"/bad\xff")).touch()
    pool.destroy()
    with pytest.raises(errors.Unsafe) as caught:
        pool.delete()
    assert (caught.value.hint or "").startswith(
        "delete its volumes and, by hand, what is none ('bad\\xff', 'fifo', 'link' and 1 other) first; "
    )


def test_names_of_verbs_are_no_english_verbs(engine: Engine, tmp_path: Path) -> None:
    pool = engine.define(f"<pool type='dir'><name>q</name><target><path>{tmp_path}/q</path></target></pool>")
    with pytest.raises(errors.InvalidState, match=r"^cannot tell the locks of it: pool 'q' is not active"):
        pool.lock_status()
    with pytest.raises(errors.InvalidState, match=r"^cannot take control of it: pool 'q' is not active"):
        pool.take_control()
