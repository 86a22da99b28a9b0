"""The host port: programs are run safely, and every failure is a typed error that carries the call."""

from __future__ import annotations

import os
import threading
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from poolkit import errors
from poolkit.host import Host, libc, rollback, undo
from poolkit.host import journal as journals
from poolkit.host.directory import Directory
from poolkit.host.mounts import Mount, locate, parse, shows
from poolkit.host.undo import identity
from poolkit.testing import ScriptedHost, undone

host = Host()


def sh(script: str, **how: object) -> str:
    # A shell here plays the part of a misbehaving tool; poolkit itself never starts one.
    return Host().query(["sh", "-c", script], **how).stdout  # type: ignore[arg-type]


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    names = {line.partition("=")[0] for line in sh("env").splitlines()}
    assert names <= {"PATH", "LC_ALL", "HOME", "LVM_SUPPRESS_FD_WARNINGS", "MALLOC_ARENA_MAX", "PWD", "SHLVL", "_"}
    assert "LC_ALL=C.UTF-8" in sh("env")


def test_children_have_a_private_umask_a_closed_stdin_and_no_descriptors(tmp_path: Path) -> None:
    assert sh("umask").strip() == "0077"
    assert sh("cat").strip() == ""
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    assert str(leak) not in sh("ls /proc/self/fd").split()
    os.close(leak)


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(errors.ToolMissing) as caught:
        host.query(["mkfs.nosuchfs", "/x"])
    assert str(caught.value) == "the program 'mkfs.nosuchfs' is not installed"
    assert "apt install" in (caught.value.hint or "")


def test_a_relative_path_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = tmp_path / "evil"
    evil.write_text("#!/bin/sh\necho evil\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ToolMissing):
        host.query(["evil"])


def test_a_failure_carries_the_call_and_the_last_words() -> None:
    with pytest.raises(errors.ToolFailed) as caught:
        host.query(["sh", "-c", "echo one >&2; echo two >&2; exit 5"])
    error = caught.value
    assert (error.status, error.stderr) == (5, "one\ntwo\n")
    assert str(error) == "'sh' failed with status 5: one; two"
    assert error.argv[:2] == ("sh", "-c")
    assert host.query(["sh", "-c", "exit 5"], ok=(0, 5)).status == 5


def test_death_by_a_signal_is_a_crash() -> None:
    with pytest.raises(errors.ToolCrashed, match="SIGSEGV"):
        host.query(["sh", "-c", "kill -SEGV $$"])


def test_a_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    for seconds in (0.5, 5, 50):  # a busy machine may not have it running by then
        with pytest.raises(errors.ToolTimeout, match=f"did not end within {seconds} seconds"):
            host.query(["sh", "-c", f"sleep 300 & echo $! >{pid}; wait"], timeout=seconds)
        if pid.exists() and pid.read_text():
            break
    deadline = time.monotonic() + 30
    while _alive(int(pid.read_text())):
        assert time.monotonic() < deadline, "the grandchild lives on"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_abort_stops_a_running_program() -> None:
    mine = Host()
    threading.Timer(0.2, mine.abort.set).start()
    with pytest.raises(errors.Aborted):
        mine.query(["sleep", "300"])


def test_input_reaches_the_program_whatever_its_size() -> None:
    data = b"0123456789" * 100_000
    assert host.query(["wc", "-c"], input=data).stdout.strip() == str(len(data))


def test_output_that_is_not_text_is_shown_escaped() -> None:
    assert sh(r"printf 'a\377b'") == r"a\xffb"


def test_untrusted_tools_have_limits() -> None:
    assert sh("ulimit -v", untrusted=True).strip() == str((1 << 30) // 1024)
    assert sh("ulimit -c", untrusted=True).strip() == "0"


def test_a_secret_is_never_shown() -> None:
    mine = Host()
    with mine.secret_file(b"hunter2") as (path, fd):
        assert mine.query(["cat", path], pass_fds=[fd]).stdout == "hunter2"
        with pytest.raises(errors.ToolFailed) as caught:
            mine.query(["sh", "-c", f"cat {path} >&2; exit 1"], pass_fds=[fd])
    assert "hunter2" not in str(caught.value) + repr(caught.value.as_dict())
    assert "***" in caught.value.stderr


def test_a_secret_on_standard_output_of_what_failed_is_not_shown() -> None:
    mine = Host()
    with mine.secret_file(b"hunter2") as (path, fd), pytest.raises(errors.ToolFailed) as caught:
        mine.query(["sh", "-c", f"cat {path}; exit 1"], pass_fds=[fd])
    assert "***" in str(caught.value) and "***" in caught.value.stdout
    assert "hunter2" not in str(caught.value) + repr(caught.value.as_dict()) + caught.value.stdout


def test_a_shared_question_is_asked_once_until_a_change(tmp_path: Path) -> None:
    mine = Host()
    ask = ["sh", "-c", f"echo x >>{tmp_path}/asked"]
    for _ in range(3):
        mine.query(ask, shared=True)
    assert (tmp_path / "asked").read_text() == "x\n"
    mine.change(["true"])
    mine.query(ask, shared=True)
    assert (tmp_path / "asked").read_text() == "x\nx\n"


def test_a_shared_answer_is_asked_for_again_after_a_change_by_system_call(tmp_path: Path) -> None:
    mine = Host()
    answers = iter(range(10))
    assert [mine.shared("x", lambda: next(answers)) for _ in range(2)] == [0, 0]
    mine.step("a change")
    assert mine.shared("x", lambda: next(answers)) == 1
    mine.files.mkdir(f"{tmp_path}/new")
    assert mine.shared("x", lambda: next(answers)) == 2
    mine.run_undo(["true"])
    assert mine.shared("x", lambda: next(answers)) == 3


def test_a_dry_run_runs_no_change(tmp_path: Path) -> None:
    dry = Host(dry_run=True)
    assert dry.change(["touch", f"{tmp_path}/made"]).status == 0
    assert dry.files.mkdir(f"{tmp_path}/folder")
    assert list(tmp_path.iterdir()) == []
    assert [str(s) for s in dry.plan] == [f"touch {tmp_path}/made", f"mkdir {tmp_path}/folder"]


def test_the_mount_table_is_read_whole() -> None:
    mounts = {m.target: m for m in host.mounts()}
    assert mounts["/proc"].fstype == "proc"
    assert host.mount_at("/proc") is not None
    assert host.mount_at("/proc/self") is None


def test_a_line_of_the_mount_table_can_hold_anything() -> None:
    lines = [
        b"21 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro",
        b"22 21 0:40 / /mnt/a\\040b\\011c\\134040\\012 rw - nfs4 nas:/x\\043y rw,vers=4.2",
        b"23 21 0:41 / /mnt/\xff rw - tmpfs  rw",
        b"24 21 0:42 / /mnt/cr\rlf rw - fuse.x a\rb rw",
        b"no mount at all",
        b"",
    ]
    assert list(parse(b"\n".join(lines))) == [
        Mount("8:1", "/", "/", "ext4", "/dev/sda1", "rw,relatime,rw,errors=remount-ro"),
        Mount("0:40", "/", "/mnt/a b\tc\\040\n", "nfs4", "nas:/x#y", "rw,rw,vers=4.2"),
        Mount("0:41", "/", "/mnt/\\xff", "tmpfs", "", "rw,rw"),
        Mount("0:42", "/", "/mnt/cr\rlf", "fuse.x", "a\rb", "rw,rw"),
    ]


def test_a_chain_of_links_is_as_long_as_the_kernel_follows(tmp_path: Path) -> None:
    mounts = host.mounts()
    before = tmp_path / "end"
    before.write_text("")
    for number in range(1, 42):
        link = tmp_path / f"link{number}"
        link.symlink_to(before)
        before = link
    assert (tmp_path / "link40").stat()
    assert locate(f"{tmp_path}/link40", mounts)[0] == f"{tmp_path}/end"
    for look in (os.stat, lambda path: locate(path, mounts)):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            look(f"{tmp_path}/link41")


def test_a_path_goes_up_from_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "up").symlink_to("a/b/../../a/./b")
    (tmp_path / "out").symlink_to("a/../../../" + "../" * 40 + "proc")
    mounts = host.mounts()
    assert locate(f"{tmp_path}/up/x", mounts)[0] == f"{tmp_path}/a/b/x"
    place, mount = locate(f"{tmp_path}/out/self", mounts)
    assert place.startswith("/proc/") and mount is not None and mount.target == "/proc"
    (tmp_path / "root").symlink_to("/" + "../" * 3)
    assert locate(f"{tmp_path}/root", mounts) == ("/", host.mount_at("/"))
    assert locate("/..", []) == ("/", None)


@pytest.mark.parametrize(
    ("device", "root", "path", "same"),
    [
        ("8:2", "/images", "/no-srv/images", True),
        ("8:1", "/images", "/no-srv/images", False),  # of another file system
        ("8:2", "/images", "/no-srv", False),
        ("8:2", "/", "/no-srv", True),
        ("8:2", "/", "/no-srv/images", False),
        ("8:1", "/no-home/images", "/no-home/images", True),
        ("8:3", "/inner/deep", "/no-inner/deep", True),  # that is a directory of its file system, too
        ("8:3", "/deep", "/no-inner/deep", False),
    ],
)
def test_a_bind_mount_is_known_by_file_system_and_directory(device: str, root: str, path: str, same: bool) -> None:
    table = [
        Mount("8:1", "/", "/", "ext4", "/dev/sda1", "rw"),
        Mount("8:2", "/", "/no-srv", "xfs", "/dev/sdb", "rw"),
        Mount("8:3", "/inner", "/no-inner", "xfs", "/dev/sdc", "rw"),
    ]
    assert shows(Mount(device, root, "/no-pool", "any", "source", "rw"), path, table) is same
    assert not shows(Mount(device, root, "/no-pool", "any", "source", "rw"), path, [])


# -- undo -----------------------------------------------------------------------------------------------------------


def _journal(tmp_path: Path) -> journals.Journal:
    return journals.Journal(str(tmp_path / "journal"), "op", {"pool": "p", "verb": "test"})


def test_undo_runs_newest_first_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    mine = Host().operation(journal=_journal(tmp_path))
    for name in ("a", "b", "c"):
        mine.change(
            ["touch", f"{tmp_path}/{name}"], undo=["sh", "-c", f"echo {name} >>{tmp_path}/order; [ {name} != b ]"]
        )
    assert mine.journal is not None
    failures = rollback.roll_back(mine.journal, mine)
    assert (tmp_path / "order").read_text().split() == ["c", "b", "a"]
    assert len(failures) == 1
    assert "could not undo" in failures[0]
    # What could not be undone is kept for people to look at.
    assert [p.suffix for p in (tmp_path / "journal").iterdir()] == [".failed"]


def test_undo_is_on_disk_before_the_change(tmp_path: Path) -> None:
    seen: list[list[undo.Undo]] = []
    mine = Host(fault=lambda label: None).operation(journal=_journal(tmp_path))
    mine.change(["true"], undo=["rm", "-f", "--", "/nowhere"])
    assert mine.journal is not None
    seen.append(journals.read(mine.journal.path)[1])
    assert seen == [[undo.run(["rm", "-f", "--", "/nowhere"])]]


def test_a_torn_journal_ends_at_its_last_whole_line(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append(undo.Undo("unlink", ("/a",)))
    journal.append(undo.Undo("unlink", ("/b",)))
    text = Path(journal.path).read_bytes()
    for cut in range(len(text)):
        Path(journal.path).write_bytes(text[:cut])
        steps = journals.read(journal.path)[1]
        assert steps in ([], [undo.Undo("unlink", ("/a",))], journal.steps)
    rollback.complete(journal)


def test_undo_of_what_never_happened_is_harmless(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.write_text("precious")
    facts = keep.stat()
    aside = tmp_path / ".poolkit-aside"
    aside.write_text("older")
    link = tmp_path / "link"
    link.symlink_to(keep)
    (tmp_path / "folder").mkdir()
    folder_link = tmp_path / "folder-link"
    folder_link.symlink_to("folder")
    steps = [
        undo.Undo("unlink", (str(tmp_path / "absent"),)),
        undo.Undo("unlink", (str(keep), [facts.st_dev, facts.st_ino + 1])),
        undo.Undo("unlink", (str(keep), [facts.st_dev + 1, facts.st_ino])),
        undo.Undo("unsymlink", ("elsewhere", str(link))),
        undo.Undo("restore", (str(aside), str(keep))),
        undo.Undo("rmdir", (str(tmp_path),)),
        undo.Undo("chmod", (str(tmp_path / "absent"), 0o700, [0, 0])),
        undo.Undo("chmod", (str(keep), 0o777, [facts.st_dev, facts.st_ino + 1])),
        undo.Undo("chmod", (str(link), 0o777, [facts.st_dev, facts.st_ino])),
        undo.Undo("chown", (str(keep), 12345, 12345, [facts.st_dev, facts.st_ino + 1])),
        undo.Undo("chmod", (str(keep), 0o777, [facts.st_dev + 1, facts.st_ino])),
        undo.Undo("symlink", ("elsewhere", str(keep))),
        undo.Undo("rmdir", (str(folder_link),)),
        undo.Undo("rmdir", (str(keep),)),
    ]
    assert rollback.undo_all(steps, host).failures == ()
    assert keep.read_text() == "precious"
    assert keep.stat().st_mode == facts.st_mode
    assert keep.stat().st_uid == facts.st_uid
    assert link.is_symlink() and folder_link.is_symlink() and (tmp_path / "folder").is_dir()
    assert rollback.undo_all([undo.Undo("explode", ())], host).failures != ()


def test_undo_removes_what_is_still_its_own(tmp_path: Path) -> None:
    path = tmp_path / "made"
    path.write_text("")
    facts = path.stat()
    kept = tmp_path / ".poolkit-kept"
    kept.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to("target")
    steps = [
        undo.Undo("unlink", (str(path), [facts.st_dev, facts.st_ino])),
        undo.Undo("unsymlink", ("target", str(link))),
        undo.Undo("symlink", ("old target", str(tmp_path / "old"))),
        undo.Undo("restore", (str(kept), str(tmp_path / "file"))),
    ]
    for _ in range(2):
        assert rollback.undo_all(steps, host).failures == ()
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "old"]
    assert (tmp_path / "old").readlink() == Path("old target")
    assert (tmp_path / "file").read_text() == "kept"


def test_undo_of_what_others_made_of_it_since_is_left_alone(tmp_path: Path) -> None:
    """Space that was reserved behind the end of a file is given back only by that file, and only if it did not grow."""
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 4096)
    mine = identity(path.stat())

    def reserved() -> int:
        libc.fallocate(fd, libc.FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        return os.fstat(fd).st_blocks * 512

    fd = os.open(path, os.O_RDWR)
    try:
        assert reserved() >= 1 << 20
        for known, size in (([mine[0], mine[1] + 1], 4096), ([mine[0] + 1, mine[1]], 4096), (mine, 2048), (mine, 8192)):
            rollback.perform(undo.Undo("trim", (str(path), known, size)), host, set())
            assert os.fstat(fd).st_blocks * 512 >= 1 << 20 and path.read_bytes() == b"x" * 4096
        for _ in range(2):
            rollback.perform(undo.Undo("trim", (str(path), mine, 4096)), host, set())
            assert os.fstat(fd).st_blocks * 512 < 1 << 20 and path.read_bytes() == b"x" * 4096
    finally:
        os.close(fd)


@pytest.mark.root
def test_undo_gives_back_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.write_text("")
    known = identity(path.stat())
    steps = [undo.Undo("chmod", (str(path), 0o640, known)), undo.Undo("chown", (str(path), 65534, 65533, known))]
    for _ in range(2):
        assert rollback.undo_all(steps, host).failures == ()
        facts = path.stat()
        assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o640, 65534, 65533)


def test_saved_bytes_go_back_to_a_device_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 512)
    step = undo.write_back(["true"], "", str(path), [(0, b"saved")])
    (failure,) = rollback.undo_all([step], host).failures
    assert "is not a block device" in failure
    assert path.read_bytes() == b"x" * 512


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "socket"])
def test_only_a_regular_file_is_opened_as_one(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "x"
    if kind == "link":
        (tmp_path / "secret").write_text("s")
        target.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    else:
        import socket

        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(target))
        listener.close()
    with Directory(str(tmp_path)) as directory:
        for write in (False, True):
            with pytest.raises(errors.Unsafe) as caught, directory.regular("x", write=write):
                pass
            assert str(target) in str(caught.value)


def test_a_new_file_has_its_final_mode_before_its_name(tmp_path: Path) -> None:
    seen = []

    def fault(label: str) -> None:
        names = [p for p in tmp_path.iterdir() if p.is_file()]
        seen.extend((p.name, p.stat().st_mode & 0o777) for p in names)

    mine = Host(fault=fault)
    os.umask(0)
    try:
        with Directory(str(tmp_path)) as directory, mine.files.new(directory, "final", format="raw", mode=0o640) as new:
            os.write(new.fd, b"x")
    finally:
        os.umask(0o022)
    assert {mode for name, mode in seen if name == "final"} == {0o640}
    assert {mode for name, mode in seen if name != "final"} <= {0o600, 0o640}


def test_writing_a_file_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fault(label: str) -> None:
        if "fsync" in label and "directory" not in label:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Host(fault=fault).files.write(str(path), b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_what_arrives_late_is_waited_for(tmp_path: Path) -> None:
    host = Host()
    answers = iter(["", "", "8:16"])
    assert host.wait_for(lambda: next(answers), 60) == "8:16"
    assert host.wait_for(lambda: "", 0.05) is None
    host.abort.set()
    with pytest.raises(errors.Aborted):
        host.wait_for(lambda: False, 60)
    assert host.wait_for(lambda: True, 60) is True, "what is there needs no waiting"


def test_what_came_while_nobody_could_look_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the process gets no processor for as long as it was to wait."""
    clock = [0.0]

    def held_up() -> str:
        clock[0] += 100
        return "" if clock[0] < 150 else "8:16"

    monkeypatch.setattr(
        "poolkit.host.port.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None)
    )
    assert Host().wait_for(held_up, 10) == "8:16"


def test_the_kernel_is_told_in_one_write(tmp_path: Path) -> None:
    knob = "/proc/self/comm"
    before = Path(knob).read_text()
    try:
        host = Host()
        host.files.tell(knob, "poolkit-knob")
        assert Path(knob).read_text() == "poolkit-knob\n"
        assert [str(step) for step in host.plan] == [f"write 'poolkit-knob' to {knob}"]
        Host(dry_run=True).files.tell(knob, "not written")
        assert Path(knob).read_text() == "poolkit-knob\n"
    finally:
        Path(knob).write_text(before)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(errors.Unsafe, match="is no knob of the kernel"):
        Host().files.tell(str(tmp_path / "file"), "x")
    assert (tmp_path / "file").read_text() == "precious"
    undo = ["scsictl", "remove", "host0"]
    scripted = ScriptedHost()
    scripted.files.tell("/sys/class/scsi_host/host0/scan", "- - -", undo=undo)
    assert scripted.lines == ["! write '- - -' to /sys/class/scsi_host/host0/scan"]
    assert undone(scripted) == ["< scsictl remove host0"], "it was on record"


# -- bytes in and out of programs, and programs that stay -------------------------------------------------------------


def test_a_program_reads_and_writes_descriptors_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(1 << 20))
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        result = Host().query(["cat"], stdin=source.fileno(), stdout=target.fileno())
    assert result.stdout == ""
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 20) + 7])
def test_streams_are_pumped_through_a_program_with_progress(size: int) -> None:
    data, out = os.urandom(size), BytesIO()
    told: list[tuple[int, int]] = []
    view = Host().operation(progress=lambda done, total, what: told.append((done, total)))
    view.change(["cat"], stdin=BytesIO(data), stdout=out)
    assert out.getvalue() == data
    assert told[-1] == (size, size)


def test_a_program_that_wants_no_input_is_not_waited_for() -> None:
    assert Host().query(["true"], stdin=BytesIO(bytes(1 << 22))).status == 0


def test_a_source_that_gives_nothing_does_not_hide_the_end_of_the_program() -> None:
    read, write = os.pipe()
    with open(read, "rb") as stream, open(write, "wb", buffering=0) as more:
        with pytest.raises(errors.ToolFailed, match="it is over") as caught:
            Host().query(["sh", "-c", "exec <&-; echo it is over >&2; exit 3"], stdin=stream, timeout=60)
        assert caught.value.status == 3
        more.write(b"early")
        with pytest.raises(errors.ToolFailed) as caught:
            Host().query(["sh", "-c", "head -c 5 >&2; exit 4"], stdin=stream, timeout=60)
        assert (caught.value.status, caught.value.stderr) == (4, "early")
        with pytest.raises(errors.ToolTimeout):
            Host().query(["sleep", "60"], stdin=stream, timeout=0.3)


def test_a_program_may_answer_before_it_gets_its_input() -> None:
    read, write = os.pipe()
    taken: list[bytes] = []

    class Answering(BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            taken.append(bytes(data))
            if len(taken) == 1:
                os.write(write, b"then more")
                os.close(write)
            return len(data)

    with open(read, "rb") as stream:
        Host().query(["sh", "-c", "echo first; exec cat"], stdin=stream, stdout=Answering(), timeout=60)
    assert b"".join(taken) == b"first\nthen more"


def test_an_abort_is_seen_while_a_stream_stalls() -> None:
    reading, writing = os.pipe()
    view = Host().operation()
    with open(reading, "rb") as stream, open(writing, "wb"):
        timer = threading.Timer(0.3, view.abort.set)
        timer.start()
        with pytest.raises(errors.Aborted):
            view.query(["cat"], stdin=stream, timeout=30)
        timer.join()


def test_a_program_lives_as_long_as_the_work_beside_it(tmp_path: Path) -> None:
    marker = tmp_path / "up"
    view = Host().operation()
    with view.alongside(
        ["sh", "-c", f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 600"], ready=marker.exists
    ):
        pid = int(marker.read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists(), "it is waited for as well"
    assert str(view.plan[0]).startswith("sh -c")


def test_a_program_that_is_gone_before_it_is_ready_says_why() -> None:
    with pytest.raises(errors.ToolFailed, match="'sh' ended with status 3: no such disk"):
        with Host().alongside(["sh", "-c", "echo no such disk >&2; exit 3"], ready=lambda: False):
            raise AssertionError
    with pytest.raises(errors.ToolFailed, match="'sleep' was not ready in time"):
        with Host().alongside(["sleep", "600"], ready=lambda: False, timeout=0.2):
            raise AssertionError


def test_an_error_beside_a_program_ends_it(tmp_path: Path) -> None:
    marker = tmp_path / "up"
    script = f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 600"
    with pytest.raises(ValueError, match="mine"):
        with Host().alongside(["sh", "-c", script], ready=marker.exists):
            pid = int(marker.read_text())
            raise ValueError("mine")
    assert not Path(f"/proc/{pid}").exists()


def test_a_dry_run_starts_no_program_beside_the_work(tmp_path: Path) -> None:
    view = Host(dry_run=True).operation()
    with view.alongside(["touch", str(tmp_path / "x")], ready=lambda: True):
        pass
    assert not (tmp_path / "x").exists() and len(view.plan) == 1
