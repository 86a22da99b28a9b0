"""How descriptors are opened and closed: through no link that was planted meanwhile, in nobody's place, and none stays open."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.host import Host, rollback
from poolkit.host import journal as journals
from poolkit.host.descriptors import read_at, sync_directory, write_all, write_at
from poolkit.host.directory import Directory, open_own, parent_of
from poolkit.host.files import Files

NOBODY = 65534


def opened() -> set[str]:
    """The descriptors of this process, but for the one that looks."""
    with os.scandir("/proc/self/fd") as found:
        names = {entry.name for entry in found}
    return {name for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    (place / "folder").mkdir(parents=True)
    (place / "file").write_text("text")
    (place / "old").write_text("old")
    (place / "there").symlink_to("folder")
    (place / "far").symlink_to(f"{place}/folder")
    (place / "loop").symlink_to("loop")
    (place / "to-file").symlink_to("file")
    os.mkfifo(place / "fifo")
    return place


def _way(path: str) -> Callable[[Path], object]:
    def walk(place: Path) -> None:
        with parent_of(f"{place}/{path}") as (folder, name):
            os.stat(name, dir_fd=folder, follow_symlinks=False)

    return walk


def _regular(name: str, *, fail: bool = False) -> Callable[[Path], object]:
    def look(place: Path) -> None:
        with Directory(str(place)) as directory, directory.regular(name):
            if fail:
                raise ValueError("in the body")

    return look


def _new(place: Path, *, body: Callable[[], object] = lambda: None, files: Files | None = None) -> None:
    with Directory(str(place)) as directory, (files or Host().files).new(directory, "made", format="raw") as new:
        write_all(new.fd, b"new")
        body()


def _named(place: Path) -> Files:
    """Files on a file system where each has a name from the beginning."""
    files = Host().files
    files.has_unnamed = lambda directory: False  # type: ignore[method-assign]
    return files


def _rewrite(place: Path, **how: Any) -> None:
    with Directory(str(place)) as directory, Host().files.rewrite(directory, "old", format="raw", **how) as new:
        write_all(new.fd, b"new")


def _scratch(place: Path) -> None:
    with Directory(str(place)) as directory, Host().files.scratch(directory) as fd:
        write_all(fd, b"x")


def _raise(error: BaseException) -> None:
    raise error


def _failing(word: str) -> Host:
    """A host that fails at the fault point whose label has ``word``."""

    def fault(label: str) -> None:
        if word in label:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return Host(fault=fault)


EVERY: dict[str, Callable[[Path], object]] = {
    "a way": _way("folder/x/../../file"),
    "a way through a link": _way("there/../file"),
    "a way from the root": _way("far"),
    "a way in a circle": _way("loop/x"),
    "a way that ends early": _way("none/x"),
    "a way through a file": _way("file/x"),
    "the name": _way("none"),
    "the name of a link": _way("to-file"),
    "open what is there": lambda place: os.close(open_own(f"{place}/file", os.O_RDONLY)),
    "open what is not": lambda place: open_own(f"{place}/none", os.O_RDONLY),
    "a directory": lambda place: Directory(str(place)).close(),
    "a directory by a link": lambda place: Directory(f"{place}/there").close(),
    "a directory by a link to a file": lambda place: Directory(f"{place}/to-file"),
    "a directory that is a file": lambda place: Directory(f"{place}/file"),
    "a regular file": _regular("file"),
    "a regular file that fails": _regular("file", fail=True),
    "a regular file that is none": _regular("fifo"),
    "a regular file that is a link": _regular("to-file"),
    "sync": lambda place: sync_directory(str(place)),
    "sync a file": lambda place: sync_directory(f"{place}/file"),
    "mkdir": lambda place: Host().files.mkdir(f"{place}/a/b"),
    "mkdir that fails": lambda place: _failing("fsync").files.mkdir(f"{place}/a/b"),
    "rmdir": lambda place: Host().files.rmdir(f"{place}/folder"),
    "chmod": lambda place: Host().files.chmod(f"{place}/folder", 0o711),
    "chmod to what it is": lambda place: Host().files.chmod(f"{place}/folder", 0o755),
    "chmod that fails": lambda place: _failing("chmod").files.chmod(f"{place}/folder", 0o711),
    "chown to what it is": lambda place: Host().files.chown(f"{place}/folder", -1, -1),
    "write": lambda place: Host().files.write(f"{place}/file", b"new"),
    "write that fails": lambda place: _failing("fsync file").files.write(f"{place}/file", b"new"),
    "replace": lambda place: Host().files.replace(f"{place}/file", b"new"),
    "symlink": lambda place: Host().files.symlink("to", f"{place}/link"),
    "unlink": lambda place: Host().files.unlink(f"{place}/file"),
    "new": _new,
    "new with a name": lambda place: _new(place, files=_named(place)),
    "new that fails": lambda place: _new(place, body=lambda: _raise(ValueError("in the body"))),
    "new with a name that fails": lambda place: _new(
        place, body=lambda: _raise(ValueError("in the body")), files=_named(place)
    ),
    "rewrite": _rewrite,
    "rewrite and scrub": lambda place: _rewrite(place, scrub=lambda: None),
    "rewrite and fail to scrub": lambda place: _rewrite(place, scrub=lambda: _raise(OSError(5, "I/O error"))),
    "scratch": _scratch,
}


def test_a_file_that_took_the_name_since_the_old_one_was_opened_is_not_rewritten(place: Path) -> None:
    fd = os.open(place / "old", os.O_RDONLY)
    try:
        (place / "old").rename(place / "moved")
        (place / "old").write_text("foreign")
        there = sorted(os.listdir(place))
        with pytest.raises(errors.Unsafe, match="was replaced meanwhile"):
            _rewrite(place, old=fd)
    finally:
        os.close(fd)
    assert ((place / "old").read_text(), (place / "moved").read_text()) == ("foreign", "old")
    assert sorted(os.listdir(place)) == there


@pytest.mark.parametrize("name", EVERY)
def test_no_descriptor_stays_open(place: Path, name: str) -> None:
    (place / "folder").chmod(0o755)
    EVERY[name]  # what it imports opens files of its own
    with contextlib.suppress(OSError, ValueError, errors.PoolkitError):
        EVERY["a way"](place)
    before = opened()
    with contextlib.suppress(OSError, ValueError, errors.PoolkitError):
        EVERY[name](place)
    assert opened() <= before  # fewer: garbage of other tests is collected whenever it is


def test_a_directory_can_be_closed_twice(place: Path) -> None:
    directory = Directory(str(place))
    directory.close()
    other = os.open(place, os.O_RDONLY)  # it gets the number
    directory.close()
    os.close(other)


@pytest.mark.parametrize("name", ["file", "fifo", "to-file"])
def test_only_a_directory_is_opened_as_one(place: Path, name: str) -> None:
    """A FIFO would be waited for, a device would do something."""
    for use in (Directory, sync_directory):
        with pytest.raises(NotADirectoryError):
            use(f"{place}/{name}")


@pytest.mark.root
def test_a_user_may_pass_through_what_he_cannot_list(tmp_path: Path) -> None:
    """Folders on the way are to be searched, not read: so home folders are, which nobody else can list."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "home/inner").mkdir(parents=True)
    (tmp_path / "home/inner").chmod(0o711)
    (tmp_path / "home").chmod(0o711)
    (tmp_path / "home/inner/mine").write_text("x")
    code = (
        "import os, sys; from poolkit.host.directory import open_own; os.chdir(sys.argv[1]); os.setgroups([]); "
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "for path in ('inner/mine', sys.argv[1] + '/inner/mine'):\n"
        "    assert os.read(open_own(path, os.O_RDONLY), 9) == b'x'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "home")], check=True)


# -- what is planted between two system calls -------------------------------------------------------------------------


@contextlib.contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, call: str, do: Callable[..., bool]) -> Iterator[list[str]]:
    """``do`` is called before each call of that function of ``os``, with its arguments, until it says that it has done it."""
    real = getattr(os, call)
    done: list[str] = []

    def called(*arguments: Any, **options: Any) -> Any:
        if not done and do(*arguments, **options):
            done.append(call)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, called)
        yield done
    assert done, "it did not come to that"


def _plant(place: Path, name: str, target: str) -> bool:
    os.rename(place / name, place / f"{name}.away")
    os.symlink(target, place / name)
    return True


def test_a_folder_on_the_way_that_becomes_a_link_is_not_followed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "victim").mkdir()
    (place / "victim/x").write_text("precious")

    def swap(path: object, flags: int, *_: Any, **__: Any) -> bool:
        return path == "folder" and bool(flags & os.O_DIRECTORY) and _plant(place, "folder", "victim")

    with meanwhile(monkeypatch, "open", swap), pytest.raises(OSError, match="folder") as caught:
        os.close(open_own(f"{place}/folder/x", os.O_RDONLY))
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)


def test_a_name_that_becomes_a_link_is_not_followed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(path: object, flags: int, *_: Any, **__: Any) -> bool:
        return path == "file" and not flags & os.O_PATH and _plant(place, "file", "old")

    with meanwhile(monkeypatch, "open", swap), pytest.raises(OSError, match="file") as caught:
        Host().files.chmod(f"{place}/file", 0o604)
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, f"{place}/file")
    assert stat.S_IMODE((place / "old").stat().st_mode) != 0o604


def test_a_directory_that_becomes_a_link_to_another_is_not_taken_for_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads where the descriptor leads sees it, and goes there step by step, past links of this user only."""

    def swap(path: object, *_: Any, **__: Any) -> bool:
        return path == f"{place}/folder" and _plant(place, "folder", "/dev")

    with meanwhile(monkeypatch, "open", swap), Directory(f"{place}/folder") as directory:
        assert os.readlink(f"/proc/self/fd/{directory.fd}") == "/dev"
    if os.geteuid() == 0:
        os.chown(place / "folder", NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(errors.Unsafe, match=f"user {NOBODY}"):
            Directory(f"{place}/folder")


def test_a_folder_that_is_made_and_replaced_by_a_link_gives_its_mode_to_nobody(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "victim").mkdir(0o700)

    def swap(path: object, flags: int, *_: Any, **__: Any) -> bool:
        made = path == "made" and bool(flags & os.O_DIRECTORY) and not flags & os.O_PATH
        return made and _plant(place, "made", "victim")

    with meanwhile(monkeypatch, "open", swap), pytest.raises(OSError, match="made"):
        Host().files.mkdir(f"{place}/made", 0o777)
    assert stat.S_IMODE((place / "victim").stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "made.away").stat().st_mode) == 0o700, "nobody could enter it before it was whole"


@pytest.mark.parametrize("planted", ["file", "link", "link to nothing"])
@pytest.mark.parametrize("verb", ["write", "replace", "new"])
def test_a_private_name_that_somebody_guessed_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, verb: str, planted: str
) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(size))
    private = place / f".poolkit-{'0' * 16}"
    if planted == "file":
        private.write_text("precious")
    else:
        private.symlink_to("old" if planted == "link" else "none")
    done = {
        "write": lambda: Host().files.write(f"{place}/made", b"new"),
        "replace": lambda: Host().files.replace(f"{place}/made", b"new"),
        "new": lambda: _new(place, files=_named(place)),
    }[verb]
    with pytest.raises(FileExistsError):
        done()
    assert (place / "old").read_text() == "old" and not (place / "none").exists() and not (place / "made").exists()
    if planted == "file" and verb == "new":
        assert private.read_text() == "precious"


def test_an_entry_that_is_a_terminal_becomes_nobodys(tmp_path: Path) -> None:
    """A process that leads a session without a terminal would get the first one that it opens, and its signals."""
    code = (
        "import errno, os, sys; from poolkit.host.directory import Directory\n"
        "os.setsid()\n"
        "with Directory(os.path.dirname(sys.argv[1])) as directory:\n"
        "    fd = directory.open(os.path.basename(sys.argv[1]))\n"
        "    assert os.isatty(fd)\n"
        "    try:\n"
        "        os.open('/dev/tty', os.O_RDONLY)\n"
        "    except OSError as error:\n"
        "        sys.exit(error.errno != errno.ENXIO)\n"
        "sys.exit(2)"
    )
    master, slave = pty.openpty()
    try:
        assert subprocess.run([sys.executable, "-c", code, os.ttyname(slave)], check=False).returncode == 0
    finally:
        os.close(master)
        os.close(slave)


# -- the way ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("folder/../file", "text"),
        ("there/../file", "text"),
        ("far/../file", "text"),
        ("there/x", "inner"),
        ("to-file", "text"),
        ("./there/./x", "inner"),
    ],
)
def test_the_way_ends_where_the_kernel_s_does(place: Path, path: str, content: str) -> None:
    (place / "folder/x").write_text("inner")
    fd = open_own(f"{place}/{path}", os.O_RDONLY)
    try:
        assert os.read(fd, 99) == content.encode()
    finally:
        os.close(fd)


def test_the_root_and_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for path in ("/", "."):
        with parent_of(path) as (folder, name):
            assert name == "." and os.path.samestat(os.stat(name, dir_fd=folder), os.stat(path))
    with parent_of("file") as (folder, name):
        assert (os.readlink(f"/proc/self/fd/{folder}"), name) == (str(place), "file")
    sync_directory("")  # here
    assert Host().files.mkdir("relative") and (place / "relative").is_dir()


def test_a_folder_that_is_missing_is_an_error_and_a_name_is_none(place: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_own(f"{place}/none/x", os.O_RDONLY)
    assert caught.value.filename == f"{place}/none/x"
    with parent_of(f"{place}/none") as (_, name):
        assert name == "none"


def test_an_error_of_the_body_comes_out_as_what_it_is(place: Path) -> None:
    for wrong in (ValueError("x"), OSError(errno.EIO, "I/O error", "/elsewhere/y")):
        with pytest.raises(type(wrong)) as caught, parent_of(f"{place}/file"):
            raise wrong
        assert caught.value is wrong
    assert wrong.filename == "/elsewhere/y"  # type: ignore[union-attr]
    with pytest.raises(FileNotFoundError) as named, parent_of(f"{place}/folder/none") as (folder, name):
        os.stat(name, dir_fd=folder)
    assert named.value.filename == f"{place}/folder/none"
    with Directory(str(place)) as directory, pytest.raises(FileNotFoundError), directory.regular("none"):
        pass


@pytest.mark.parametrize(("links", "fine"), [(40, True), (41, False)])
def test_as_many_links_as_the_kernel_follows(tmp_path: Path, links: int, fine: bool) -> None:
    (tmp_path / "0").write_text("end")
    for number in range(links):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    try:
        os.close(os.open(tmp_path / str(links), os.O_RDONLY))
        assert fine
    except OSError as error:
        assert (error.errno, fine) == (errno.ELOOP, False)
    if fine:
        os.close(open_own(f"{tmp_path}/{links}", os.O_RDONLY))
    else:
        with pytest.raises(OSError, match="Too many"):
            open_own(f"{tmp_path}/{links}", os.O_RDONLY)


def test_an_entry_is_itself_and_not_what_a_link_leads_to(place: Path) -> None:
    (place / "dangling").symlink_to("none")
    with Directory(str(place)) as directory:
        assert stat.S_ISLNK(directory.lstat("to-file").st_mode)
        assert directory.exists("dangling") and not directory.exists("none")
        with directory.regular("file") as fd, pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")  # it was opened to be read
        with directory.regular("file", write=True) as fd:
            os.write(fd, b"x")


def test_descriptor_0_is_one_as_well(tmp_path: Path) -> None:
    """Who was started with a closed standard input gets its number."""
    code = (
        "import os, sys; from poolkit.host.directory import Directory, parent_of\n"
        "os.close(0)\n"
        "Directory(sys.argv[1]).close()\n"
        "with parent_of(sys.argv[1]): pass\n"
        "with Directory(sys.argv[1]): pass\n"
        "assert os.open('/', os.O_RDONLY) == 0, 'it was left open'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


# -- modes, and what is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o022, 0o077], ids=oct)
def test_modes_are_what_was_said_whatever_the_mask_is(place: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        files = Host().files
        files.mkdir(f"{place}/a/b")
        files.mkdir(f"{place}/c/d", 0o777)
        files.write(f"{place}/written", b"")
        files.write(f"{place}/wide", b"", 0o644)
        files.replace(f"{place}/replaced", b"")
        _new(place, files=files)
    finally:
        os.umask(old)
    modes = {
        name: oct((place / name).stat().st_mode & 0o7777)
        for name in ("a", "a/b", "c", "c/d", "written", "wide", "replaced", "made")
    }
    assert modes == {
        "a": "0o755", "a/b": "0o755", "c": "0o755", "c/d": "0o777", "written": "0o600", "wide": "0o644", "replaced": "0o600",
        "made": "0o600",
    }  # fmt: skip


def test_what_is_no_file_gets_its_mode_and_is_not_waited_for(place: Path) -> None:
    assert Host().files.chmod(f"{place}/fifo", 0o604)
    assert stat.S_IMODE((place / "fifo").stat().st_mode) == 0o604
    assert not Host().files.chown(f"{place}/fifo", os.getuid(), os.getgid())


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are brought to the disk from now on."""
    seen: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_folder_that_others_may_use_is_on_the_disk_whoever_made_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = synced(monkeypatch)
    assert not Host(dry_run=True).files.mkdir(f"{place}/folder", keep=True)
    assert not Host().files.mkdir(f"{place}/folder")
    assert seen == []
    assert not Host().files.mkdir(f"{place}/folder", keep=True)
    assert seen == [str(place)]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_another_process_may_be_faster(place: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made = place / "made"

    def first(*_: Any, **__: Any) -> bool:
        if kind == "file":
            made.write_text("")
        else:
            subprocess.run(["mkdir", "--mode=750", "--", made], check=True)
        return True

    with meanwhile(monkeypatch, "mkdir", first):
        if kind == "folder":
            assert Host().files.mkdir(str(made)) is False
            assert stat.S_IMODE(made.stat().st_mode) == 0o750, "it is the other's"
        else:
            with pytest.raises(FileExistsError):
                Host().files.mkdir(str(made))


def _steps(place: Path, do: Callable[[Files], object]) -> list[str]:
    journal = journals.Journal(str(place.parent / "journal"), "op", {"pool": "p", "verb": "test", "volume": None})
    do(Host().operation(journal=journal).files)
    kinds = [step.kind for step in journal.steps]
    rollback.roll_back(journal, Host())
    return kinds


def test_what_undoes_a_file_is_written_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{place}/file"
    assert _steps(place, lambda files: files.write(path, b"kept")) == ["unlink"]  # its temporary name alone
    assert (place / "file").read_text() == "kept"
    assert _steps(place, lambda files: files.replace(path, b"new")) == ["restore", "unlink", "unlink"]
    assert (place / "file").read_text() == "kept"
    assert _steps(place, lambda files: files.write(path, b"gone", undone=True)) == ["unlink", "unlink"]
    assert not (place / "file").exists()
    (place / "file").write_text("text")

    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    # As before, with the temporary name of the copy.
    assert _steps(place, lambda files: files.replace(path, b"new")) == ["restore", "unlink", "unlink", "unlink"]
    assert (place / "file").read_text() == "text"
    seen = synced(monkeypatch)
    assert _steps(place, lambda files: files.replace(f"{place}/to-file", b"new")) == ["restore", "unlink", "unlink"]
    assert seen.index(str(place)) < seen.index(next(one for one in seen if ".poolkit-" in one)), "first the copy"
    assert os.readlink(place / "to-file") == "file"


def test_a_file_that_cannot_be_kept_is_not_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        Host().files.replace(f"{place}/file", b"new")
    assert (place / "file").read_text() == "text"


@pytest.mark.parametrize("step", ["fsync file", "rename file"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_write_that_fails_leaves_nothing_and_names_the_file(place: Path, step: str, error: BaseException) -> None:
    def fault(label: str) -> None:
        if label == step:
            raise error

    before = sorted(os.listdir(place))
    with pytest.raises(type(error)) as caught:
        Host(fault=fault).files.write(f"{place}/file", b"new")
    assert sorted(os.listdir(place)) == before and (place / "file").read_text() == "text"
    assert getattr(caught.value, "filename", None) == (f"{place}/file" if isinstance(error, OSError) else None)


def test_what_is_rewritten_is_new_with_the_old_mode_and_nothing_else_stays(place: Path) -> None:
    (place / "old").chmod(0o640)
    before, adopted = sorted(os.listdir(place)), []
    for scrub in (None, lambda: None):
        host = Host()
        host.on_adopt = lambda *what: adopted.append(what)
        with Directory(str(place)) as directory, host.files.rewrite(directory, "old", format="raw", scrub=scrub) as new:
            write_all(new.fd, b"new")
        assert (place / "old").read_text() == "new" and stat.S_IMODE((place / "old").stat().st_mode) == 0o640
        assert sorted(os.listdir(place)) == before
        assert adopted.pop() == ("old", (place / "old").stat().st_ino, "raw")
    with pytest.raises(errors.Unsafe, match="no knob of the kernel"):
        Host().files.tell(f"{place}/old", "x")


def test_a_dry_run_tells_and_does_nothing(place: Path) -> None:
    for do in (Files.write, Files.replace):
        host = Host(dry_run=True)
        do(host.files, f"{place}/file", b"new")
        assert [str(step) for step in host.plan] == [f"write {place}/file"]
    assert (
        sorted(os.listdir(place)) == sorted(["far", "fifo", "file", "folder", "loop", "old", "there", "to-file"])
        and (place / "file").read_text() == "text"
    )


# -- where work can be stopped ------------------------------------------------------------------------------------------

LABELS: dict[str, tuple[Callable[[Files, Path], object], list[str]]] = {
    "mkdir": (
        lambda files, place: files.mkdir(f"{place}/a/b"),
        ["mkdir P/a", "fsync directory of P/a", "mkdir P/a/b", "fsync directory of P/a/b"],
    ),
    "rmdir": (lambda files, place: files.rmdir(f"{place}/folder"), ["rmdir P/folder", "fsync directory of P/folder"]),
    "write": (
        lambda files, place: files.write(f"{place}/file", b"new"),
        ["write P/file", "fsync file", "rename file", "fsync directory of file"],
    ),
    "replace": (
        lambda files, place: files.replace(f"{place}/file", b"new"),
        ["keep P/file", "write P/file", "fsync file", "rename file", "fsync directory of file"],
    ),
    "symlink": (
        lambda files, place: files.symlink("to", f"{place}/link"),
        ["symlink P/link -> to", "fsync directory of P/link"],
    ),
    "unlink a file": (
        lambda files, place: files.unlink(f"{place}/file"), ["unlink P/file", "fsync directory of P/file"]
    ),
    "unlink a link": (
        lambda files, place: files.unlink(f"{place}/there"), ["unlink P/there", "fsync directory of P/there"]
    ),
    "remove": (lambda files, place: _removed(files, place), ["unlink P/old", "fsync directory of old"]),
    "new": (
        lambda files, place: _new(place, files=files),
        ["create P/made", "fsync made", "name made", "fsync directory of made"],
    ),
    "rewrite": (
        lambda files, place: _scrubbed(files, place),
        [
            "replace P/old", "fsync old", "keep old", "rename old", "fsync directory of old", "unlink the old old",
        ],
    ),
}  # fmt: skip


def _removed(files: Files, place: Path) -> None:
    with Directory(str(place)) as directory:
        assert files.remove(directory, "old")


def _scrubbed(files: Files, place: Path) -> None:
    with Directory(str(place)) as directory, files.rewrite(directory, "old", format="raw", scrub=lambda: None) as new:
        write_all(new.fd, b"new")


@pytest.mark.parametrize("name", LABELS)
def test_each_step_is_one_at_which_a_test_can_strike(place: Path, name: str) -> None:
    """Deaths and failures are tried at these labels: one that is lost is a step that is tried no more."""
    do, labels = LABELS[name]
    seen: list[str] = []
    do(Host(fault=seen.append).files, place)
    assert [label.replace(str(place), "P") for label in seen] == labels


def _named_as(place: Path) -> list[str]:
    """The names but for private ones, which the journal takes back."""
    return sorted(name for name in os.listdir(place) if not name.startswith(".poolkit-"))


@pytest.mark.parametrize("name", LABELS)
def test_a_request_to_stop_is_heard_before_each_operation(place: Path, name: str) -> None:
    host = Host()
    host.abort.set()
    before = _named_as(place)
    with pytest.raises(errors.Aborted):
        LABELS[name][0](host.files, place)
    assert _named_as(place) == before


@pytest.mark.parametrize("unnamed", [True, False], ids=["no name", "temporary"])
def test_a_request_to_stop_is_heard_before_a_new_file_has_its_name(place: Path, unnamed: bool) -> None:
    host = Host()
    if not unnamed:
        host.files.has_unnamed = lambda directory: False  # type: ignore[method-assign]
    before = sorted(os.listdir(place))
    with pytest.raises(errors.Aborted):
        _new(place, body=host.abort.set, files=host.files)
    assert sorted(os.listdir(place)) == before


# -- whole reads and writes -------------------------------------------------------------------------------------------


def test_short_reads_go_on_to_the_end_and_no_further(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_bytes(b"0123456789")
    real, asked = os.pread, []

    def short(fd: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return real(fd, min(length, 3), offset)

    monkeypatch.setattr(os, "pread", short)
    with open(place / "file", "rb") as file:
        assert read_at(file.fileno(), 7, 2) == b"2345678"
        assert asked == [7, 4, 1]
        assert read_at(file.fileno(), 7, 8) == b"89"
        assert read_at(file.fileno(), 1, 0) == b"0"
        asked.clear()
        assert read_at(file.fileno(), 5, 10) == b"" and asked == [5]


def test_short_writes_go_on_where_they_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    with open(place / "file", "r+b", buffering=0) as file:
        write_all(file.fileno(), b"0123456789")
        write_at(file.fileno(), bytearray(b"abcdefgh"), 4)
    assert (place / "file").read_bytes() == b"0123abcdefgh"
