"""The command as a whole: words to values, help, errors, signals, pipes, colours, progress and completion."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolkit import cli, errors
from poolkit.cli import arguments, main, output
from poolkit.cli.complete import candidates
from poolkit.cli.progress import Reporter
from poolkit.cli.shell import SCRIPTS
from poolkit.cli.verbs import GROUPS, find, verbs, words
from poolkit.cli.verbs.shapes import SHAPES

from .conftest import Command

POOLKIT = [sys.executable, "-m", "poolkit"]


# -- the table --------------------------------------------------------------------------------------------------------


def test_each_verb_is_in_the_table_of_its_group() -> None:
    for group in GROUPS:
        assert {verb.group for verb in import_module(f"poolkit.cli.verbs.{group}").VERBS} == {group}


def test_a_verb_is_found_without_the_tables_of_others() -> None:
    code = (
        "import sys; from poolkit.cli.verbs import find; assert find(sys.argv[1]); "
        "print(*(m for m in sys.modules if '.verbs.' in m))"
    )
    for word, group in (
        ("list", "pools"),
        ("vol-list", "volumes"),
        ("secret-list", "secrets"),
        ("flavor-list", "flavors"),
    ):
        done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == {f"poolkit.cli.verbs.{group}"}


def test_every_entry_of_the_table_is_whole() -> None:
    names = words()
    assert len(names) == len(set(names))
    for verb in verbs():
        assert callable(cli.function(verb)), verb.name
        assert find(verb.name) == verb
        assert verb.json in SHAPES or ";" in verb.json, verb.name
        keys = [a.key for a in verb.arguments]
        assert len(keys) == len(set(keys)), verb.name
        assert not {a.option for a in verb.arguments} & {g.name for g in arguments.GLOBAL}, verb.name
        assert find(verb.name) is verb


def test_every_verb_of_virsh_that_poolkit_has_goes_by_both_names() -> None:
    for name in ("define", "undefine", "build", "start", "refresh", "destroy", "delete", "autostart", "list", "info", "dumpxml",
                 "edit", "create", "uuid", "name", "capabilities"):  # fmt: skip
        assert find(f"pool-{name}") is find(name) is not None
    assert find("find-storage-pool-sources") is find("find-sources")
    assert find("find-storage-pool-sources-as") is find("find-sources-as")


@pytest.mark.parametrize("verb", verbs(), ids=lambda v: v.name)
def test_help_of_every_verb(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb.name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: poolkit {verb.name}")
    for argument in verb.arguments:
        assert (argument.value if argument.placed else argument.name) in text
    assert main(["help", verb.name]) == 0
    assert capsys.readouterr().out == text


def test_help_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main(["help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb.name} " in text for verb in verbs())
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    assert main(["help", "lst"]) == 2
    assert "did you mean 'list'?" in capsys.readouterr().err
    assert main(["help", "--json"]) == 0
    assert [v["name"] for v in json.loads(capsys.readouterr().out)] == [v.name for v in verbs()]
    assert main(["--version"]) == main(["list", "--version"]) == 0
    assert capsys.readouterr().out.startswith("poolkit 0.")


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["lst"], 2, "there is no verb 'lst'"),
        (["list", "--al"], 2, "the verb 'list' has no option '--al'\nhint: did you mean '--all'?"),
        (["--al", "list"], 2, "has no option '--al'"),
        (["--frobnicate"], 2, "poolkit has no option '--frobnicate'"),
        (["list", "--all=yes"], 2, "takes no value"),
        (["list", "--type"], 2, "needs a value (TYPE)"),
        (["--root"], 2, "needs a value (DIR)"),
        (["--root", "", "list"], 2, "--root: it is empty"),
        (["info"], 2, "pool is missing (name or uuid of the pool)"),
        (["define"], 2, "FILE is missing (the XML document; - is standard input)"),
        (["diff"], 1, "PATH is missing (folders of documents, or documents)"),
        (["export"], 2, "DIR is missing (the folder, "),
        (["import"], 2, "libvirt is missing (what from)"),
        (["import", "libvrt"], 2, "error: 'libvrt' is not one of libvirt\nhint: did you mean 'libvirt'?"),
        (["sm"], 2, "ACTION is missing"),
        (["systemd-unit"], 2, "boot|drift is missing"),
        (["info", "a", "b"], 2, "'b' is one argument too many"),
        (["info", "a\0b"], 2, "NUL"),
        (["info", "a", "--pool", "b"], 2, "'pool' is given twice"),
        (["list", "--wait", "soon"], 2, "'soon' is not a number of seconds"),
        (["list", "--wait", "-1"], 2, "'-1' is not a number of seconds"),
        (["list", "--wait", "nan"], 2, "'nan' is not a number of seconds"),
        (["completion", "csh"], 2, "'csh' is not one of bash, zsh, fish"),
        (["info", "\x1b[31mred"], 4, "there is no pool '\\x1b[31mred'"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant(poolkit: Command, line: list[str], status: int, said: str) -> None:
    answer = poolkit(*line, status=status)
    assert said in answer.err and answer.err.startswith("error: ")
    assert "\x1b" not in answer.err
    error = poolkit(*line[:1], "--json", *line[1:], status=None).error if line[0] != "--root" else {"exit_code": 2}
    assert error["exit_code"] == 2 or "message" in error


def test_options_stand_before_and_after_the_verb(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    one = poolkit("--json", "list", "--all").out
    assert one == poolkit("list", "--json", "--all").out == poolkit("list", "--all", "--json").out
    assert poolkit("--wait", "1.5", "info", "--", "images").out == poolkit("info", "--pool=images", "--wait=2").out
    assert poolkit("--", "uuid", "images").out == poolkit("uuid", "images").out


# -- errors, signals, pipes ---------------------------------------------------------------------------------------------


def test_an_error_of_poolkit_itself_is_one_line(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.engine import Engine

    def broken(self: object, **_: object) -> None:
        raise RuntimeError("wires\ncrossed \x1b]0;title\x07 \x9b2J")

    monkeypatch.setattr(Engine, "pools", broken)
    answer = poolkit("list", status=70)
    first, second = answer.err.splitlines()
    assert first.startswith("error: internal error: RuntimeError at test_command.py:") and first.endswith(": wires")
    assert second.startswith("hint: this is a bug in poolkit")
    assert poolkit("list", "--json", status=70).error["error"] == "internal"
    poolkit.capsys.readouterr()
    assert main(["--root", str(poolkit.root), "--debug", "list"]) == 70
    shown = poolkit.capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown and "crossed \\x1b]0;title\\x07 \\x9b2J" in shown
    assert shown.replace("\n", "").isprintable()


def test_debug_shows_where_an_error_comes_from(poolkit: Command) -> None:
    assert main(["--root", str(poolkit.root), "info", "x", "--debug"]) == 4
    assert "Traceback" in poolkit.capsys.readouterr().err


def test_an_operating_system_error_is_a_sentence(poolkit: Command) -> None:
    (poolkit.root / "storage").write_text("a file in the way")
    answer = poolkit("list", status=10)
    assert answer.err.startswith("error: ") and "Not a directory" in answer.err


def test_a_file_cannot_be_the_root(poolkit: Command) -> None:
    poolkit.root.rmdir()
    poolkit.root.write_text("a file in the way")
    assert "is not a folder" in poolkit("list", status=2).err


def test_ctrl_c_undoes_the_work_and_ends_with_130(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.backends.dir import DirBackend

    def slow(self: Any) -> bool:
        made = self.build_directory()
        os.kill(os.getpid(), signal.SIGINT)
        self.host.check_abort()
        return made

    monkeypatch.setattr(DirBackend, "build", lambda self, overwrite=False: slow(self))
    poolkit("define", poolkit.document())
    handler = signal.getsignal(signal.SIGINT)
    answer = poolkit("build", "images", status=130)
    assert "stopping" in answer.err and "error: stopped on request" in answer.err
    assert not (poolkit.folder / "images").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_outside_of_work_ends_at_once(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr("poolkit.cli.document_verbs.validate", waiting)
    assert poolkit("validate", "x", status=130).err == "error: stopped on request\n"
    monkeypatch.setattr("poolkit.state.pools.Pools.stamps", waiting)
    assert poolkit("list", status=130).err == "error: stopped on request\n"  # a look leaves nothing to be taken back


def test_ctrl_c_ends_what_waits_for_events(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolkit.cli.watch.time.sleep", lambda seconds: os.kill(os.getpid(), signal.SIGINT))
    poolkit("define", poolkit.document())
    answer = poolkit("event", "--event", "lifecycle", "--loop", status=1)
    assert "stopping" in answer.err and "events received: 0" in answer.err


def test_a_reader_that_goes_away_is_no_error(poolkit: Command) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*POOLKIT, "help"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_below_the_answer_is_an_error(poolkit: Command) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*POOLKIT, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == errors.NoSpace.exit_code
    assert done.stderr == b"error: cannot write the answer: No space left on device\n"


def test_closed_standard_streams(poolkit: Command) -> None:
    line = f"{sys.executable} -m poolkit list --all --root '{poolkit.root}' >&- 2>&-"
    assert subprocess.run(line, shell=True, check=False).returncode == 0


def test_a_document_from_a_closed_standard_input(poolkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input is closed" in poolkit("define", "-", status=2).err


def test_the_command_as_a_program(poolkit: Command) -> None:
    done = subprocess.run(
        [*POOLKIT, "--root", poolkit.root, "define", poolkit.document()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "pool 'images' is defined\n", "")
    done = subprocess.run([*POOLKIT, "--root", poolkit.root, "info", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")


# -- colours, tables, progress ------------------------------------------------------------------------------------------


def on_terminal(line: list[str], **environment: str) -> str:
    """What a command shows on a terminal."""
    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")} | {"TERM": "xterm", **environment}
    process = subprocess.Popen([*POOLKIT, *line], stdout=follower, stderr=follower, stdin=follower, env=env)
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
    process.wait()
    os.close(leader)
    return text.decode()


def test_colours_only_for_people_who_want_them(poolkit: Command) -> None:
    poolkit.pool()
    line = ["--root", str(poolkit.root), "list"]
    assert "\x1b[32mactive" in on_terminal(line)
    assert "\x1b" not in on_terminal(line, NO_COLOR="1")
    assert "\x1b" not in on_terminal(line, TERM="dumb")
    assert "\x1b" not in on_terminal([*line, "--no-color"])
    assert "\x1b[31merror:" in on_terminal([*line, "--bogus"])


def test_tables_keep_their_columns_with_any_name() -> None:
    paint = output.Paint(None)
    lines = output.table(
        ("Name", "Size"), [("日本", "1"), ("a\x1b[2J", "22"), ("e\u0301", "3")], paint, right=("Size",)
    )
    assert lines == ["Name      Size", "日本         1", "a\\x1b[2J    22", "e\u0301            3"]


def test_sizes_and_times_for_people() -> None:
    assert output.size(1536 * 1024) == "1.50 MiB"
    assert output.size(1536, exact=True) == "1536"
    assert output.size(None) == output.when(None) == "-"
    assert output.when(0).startswith(("1970", "1969"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_draws_a_bar_for_long_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("poolkit.cli.progress.time.monotonic", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = Reporter(stream, "vol-clone", json=False)
    reporter.progress(0, 1 << 30, "copy")
    now[0] += 0.2
    reporter.progress(1 << 20, 1 << 30, "copy")
    assert stream.getvalue() == ""
    for _ in range(3):
        now[0] += 5
        reporter.progress(int((now[0] - 100) * (1 << 25)), 1 << 30, "copy")
    assert reporter.bar is not None
    [task] = reporter.bar.tasks
    assert task.speed is not None and task.time_remaining is not None
    reporter.close()
    assert "copy" in stream.getvalue() and "%" in stream.getvalue() and "GiB" in stream.getvalue()


def test_log_json_has_a_line_for_every_step_event_and_piece_of_progress(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    lines = [json.loads(line) for line in poolkit("build", "images", "--log-json").err.splitlines()]
    assert [line["event"] for line in lines][-1] == "event" and lines[-1]["kind"] == "created"
    steps = [line["text"] for line in lines if line["event"] == "step"]
    assert any(str(poolkit.folder / "images") in step for step in steps)
    assert all(line["verb"] == "build" and line["time"] > 0 for line in lines)
    stream = io.StringIO()
    reporter = Reporter(stream, "vol-upload", json=True)
    reporter.progress(5, 10, "write")
    reporter.progress(10, 10, "write")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(f["event"], f["what"], f["done"], f["total"]) for f in found] == [
        ("progress", "write", 5, 10), ("progress", "write", 10, 10),
    ]  # fmt: skip


def test_quiet_prints_no_report_of_success(poolkit: Command) -> None:
    assert poolkit("-q", "define", poolkit.document())[1:] == ("", "")
    assert poolkit("--quiet", "uuid", "images").out != ""


# -- completion -----------------------------------------------------------------------------------------------------------


def plain(*line: str) -> list[str]:
    return [c.partition("\t")[0] for c in candidates(line)]


def test_completion_of_verbs_and_options(poolkit: Command) -> None:
    assert plain("vol-create-a") == ["vol-create-as"]
    assert plain("pool-st") == ["pool-start"]
    assert "list" in plain("") and "pool-list" not in plain("")
    assert plain("list", "--d") == ["--details", "--dry-run", "--debug"]
    assert "--all" not in plain("list", "--all", "--")
    assert plain("--js") == ["--json"]
    assert plain("nonsense", "") == []
    assert plain("help", "unde") == ["undefine"]
    assert plain("completion", "") == ["bash", "zsh", "fish"]
    assert plain("list", "--type", "net") == ["netfs"]
    assert plain("vol-create-as", "p", "n", "1", "--format", "qcow") == ["qcow", "qcow2"]
    assert plain("find-sources", "ne") == ["netfs"]
    assert plain("define", "") == plain("probe", "a", "b", "") == [":file"]
    assert plain("--root", "") == plain("--root", "=", "") == [":directory"]


def test_completion_of_pools_and_volumes(poolkit: Command) -> None:
    poolkit.pool()
    path = str(poolkit.volume())
    poolkit("define", poolkit.document("iso"))
    root = str(poolkit.root)
    assert plain("--root", root, "start", "") == ["images", "iso"]
    assert plain("start", "--root", "=", root, "im") == plain(f"--root={root}", "start", "im") == ["images"]
    assert plain("--root", root, "vol-info", "--pool", "=") == ["images", "iso"]
    assert plain("--root", root, "vol-info", "--pool", "images", "") == ["disk1"]
    assert plain("--root", root, "vol-info", "/") == [path]
    assert plain("--root", root, "start", "images", "") == []


def test_completion_never_fails_loudly(poolkit: Command) -> None:
    poolkit.root.rmdir()
    assert main(["_complete", "--root", str(poolkit.root), "vol-info", "--pool", "x", ""]) == 0
    assert not poolkit.root.exists(), "pressing a key makes nothing"
    poolkit("define", poolkit.document())
    assert main(["_complete", "--root", str(poolkit.root), "vol-info", "--pool", "x", ""]) == 1
    assert poolkit.capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_scripts_are_valid(shell: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    import shutil

    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_with_the_script(poolkit: Command) -> None:
    poolkit("define", poolkit.document())
    poolkit("define", poolkit.document("a b"))
    wrapper = poolkit.folder / "poolkit"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m poolkit "$@"\n')
    wrapper.chmod(0o755)

    def complete(*words: str) -> list[str]:
        line = " ".join(map(json.dumps, words))
        script = (
            f"{SCRIPTS['bash']}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _poolkit\n"
            'for c in "${COMPREPLY[@]}"; do echo "$c"; done'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=poolkit.folder)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    command = str(wrapper)
    assert complete(command, "vol-res") == ["vol-resize"]
    assert complete(command, "--root", str(poolkit.root), "start", "") == ["a\\ b", "images"]
    assert complete(command, "define", "ima") == ["images.xml"]
    assert complete(command, "--root", "=", "poo") == []


# -- anything at all ------------------------------------------------------------------------------------------------------

OPTIONS = sorted({a.option for v in verbs() for a in (*v.arguments, *arguments.GLOBAL)} - {"--debug", "--root"})
SAFE = sorted(set(words()) - {"edit", "pool-edit"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.lists(
    st.one_of(
        st.sampled_from(SAFE),
        st.sampled_from(OPTIONS),
        st.sampled_from(["images", "disk1", "1M", "--", "-", "=", "", "dir", "--json"]),
        st.text(max_size=12).filter(lambda t: not t.startswith("/")),
    ), max_size=6,
))  # fmt: skip
def test_no_words_bring_out_a_traceback(poolkit: Command, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"<pool/>")))
    monkeypatch.chdir(poolkit.folder)
    rest = [w for w in line if not w.startswith("--root")]
    answer = poolkit(*rest, status=None)
    assert answer.status in {0, 1, *range(2, 14), 130}, (rest, answer)
    assert "internal error" not in answer.err
    for text in (answer.err, answer.out):
        assert (
            all(c.isprintable() or c == "\n" or (c == "\t" and "completion" in rest) for c in text)
            or "_complete" in rest
        ), (rest, text)
