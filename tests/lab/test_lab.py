"""The lab proves itself: real storage inside, and what happens outside when a test fails, hangs or takes the guest down."""

from __future__ import annotations

import functools
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from . import bytecode, image, lanes, plugin, speed, state
from .fixtures import NfsServer, ScsiHost, sh, wait_until
from .guest import Guest


@pytest.mark.lab
def test_machine() -> None:
    assert platform.python_version_tuple()[:2] == ("3", "11")
    assert os.geteuid() == 0
    import poolkit

    assert Path(poolkit.__file__).parents[1] == Path(__file__).parents[2]
    with pytest.raises(OSError, match="Read-only"):
        (Path(__file__).parent / "scratch").touch()


@pytest.mark.lab(disks=2)
def test_lvm(lab_disks: list[str]) -> None:
    assert len(lab_disks) == 2
    sh("vgcreate", "-y", "lab", *lab_disks)
    sh("lvcreate", "-y", "-n", "one", "-L", "64m", "lab")
    assert sh("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_size", "lab").strip() == str(64 << 20)
    assert os.path.exists("/dev/lab/one")  # left there: the fixture cleans up


@pytest.mark.lab
def test_disks_are_empty_again(lab_disks: list[str]) -> None:
    assert len(lab_disks) == 4
    assert sh("vgs", "--noheadings") == ""
    for disk in lab_disks:
        assert sh("wipefs", disk) == ""
        with open(disk, "rb") as handle:
            assert not any(handle.read(1 << 20))


@pytest.mark.lab
@pytest.mark.parametrize("version", ["3", "4.2"])
def test_nfs(lab_nfs: NfsServer, version: str, tmp_path: Path) -> None:
    path = lab_nfs.export("vols")
    assert path in sh("showmount", "--no-headers", "--exports", "127.0.0.1")
    sh("mount", "-t", "nfs", "-o", f"vers={version}", f"127.0.0.1:{path}", str(tmp_path))
    (tmp_path / "file").write_text("over the wire")
    assert Path(path, "file").read_text() == "over the wire"


@pytest.mark.lab
def test_scsi(lab_scsi) -> None:
    first, second = lab_scsi(luns=2, hosts=2)
    assert isinstance(first, ScsiHost)
    assert len(first.disks) == len(second.disks) == 2
    assert Path(f"/sys/class/scsi_host/{first.name}").is_dir()


@pytest.mark.lab
def test_scsi_disks(lab_scsi_disks: list[str]) -> None:
    paths = {os.path.realpath(path) for path in Path("/dev/disk/by-path").glob("*-scsi-*")}
    assert {os.path.realpath(disk) for disk in lab_scsi_disks} <= paths


@pytest.mark.lab
@pytest.mark.tools("lvs", "mount.cifs", "glusterd", "multipathd", "tgtd", "targetcli", "libvirtd", "virsh", "xorriso")
def test_programs() -> None:
    assert sh("uname", "-r").startswith("6.")


SUITE = """
import os, signal, time
import pytest

@pytest.mark.lab
def test_passes(capsys):
    assert os.path.exists("/lab")

@pytest.mark.lab
def test_fails():
    print("seen by the guest alone")
    left, right = 1, 2
    assert left == right, "as it should"

@pytest.mark.lab
def test_skips():
    pytest.skip("its own reason")

@pytest.mark.lab
@pytest.mark.xfail(reason="known")
def test_xfails():
    assert False

@pytest.mark.lab(timeout=3)
def test_slow():
    time.sleep(600)

@pytest.mark.lab(timeout=2)
def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)

@pytest.mark.lab
def test_after_the_hang():
    pass

@pytest.mark.lab
def test_panics():
    open("/proc/sysrq-trigger", "w").write("c")
    time.sleep(60)

@pytest.mark.lab
def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.lab
def test_after_the_crash():
    pass

def test_on_the_host():
    assert not os.path.exists("/lab/chosen.json")
"""


@pytest.fixture
def suite(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of its own with the plugin, run as a process of its own."""
    cache = image.cache()  # asked before pytester gives us another home
    pytester: pytest.Pytester = request.getfixturevalue("pytester")
    monkeypatch.setenv("POOLKIT_LAB_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")  # the summary's lines are cut at the width of the terminal
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(test_suite=SUITE)
    pytester.makeini("[pytest]\naddopts = -p tests.lab.plugin --strict-markers\n")
    return pytester


def outer(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest on the suite."""
    return suite.run(sys.executable, "-m", "pytest", *arguments, timeout=800)


@pytest.mark.timeout(900)
def test_reports(bootable: None, suite: pytest.Pytester) -> None:
    result = outer(suite, "-v", "-rA", "-k", "not hang and not panics and not dies and not crash")
    result.assert_outcomes(passed=2, failed=2, skipped=1, xfailed=1, deselected=5)
    result.stdout.fnmatch_lines_random(
        [
            "*test_suite.py::test_passes PASSED*",
            "*left, right = 1, 2*",
            "*AssertionError: as it should*",
            "*seen by the guest alone*",
            "*SKIPPED*its own reason*",
            "*XFAIL*known*",
            "*FAILED*::test_slow - Failed: Timeout*",
        ]
    )


@pytest.mark.timeout(900)
def test_hangs_and_crashes_cost_one_test_each(bootable: None, suite: pytest.Pytester) -> None:
    result = outer(suite, "-v", "-o", "lab_grace=3", "-k", "hang or panics or dies or crash")
    result.assert_outcomes(passed=2, failed=3, deselected=6)
    result.stdout.fnmatch_lines_random(
        [
            "*FAILED*::test_hangs - the guest lab was killed, for the test took too long*",
            "*FAILED*::test_panics - the guest lab died*",
            "*Kernel panic*",
            "*FAILED*::test_dies - the guest's pytest ended without finishing this test*",
            "*::test_after_the_hang PASSED*",
            "*::test_after_the_crash PASSED*",
        ]
    )


def test_a_test_that_starts_a_guest_must_say_so(suite: pytest.Pytester) -> None:
    body = """
        import subprocess, sys

        def test_itself():
            from tests.lab.guest import Guest
            Guest("sly").start()

        def test_by_a_program():
            subprocess.run([sys.executable, "-m", "tests.lab", "run", "true"], check=True)
    """
    suite.makepyfile(test_sly=body)
    result = outer(suite, "test_sly.py")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_itself starts a guest without the fixture*",
            "*test_by_a_program starts a guest without the fixture*",
        ]
    )


def test_the_quick_tests_start_no_guest(pytestconfig: pytest.Config) -> None:
    makefile = (pytestconfig.rootpath / "Makefile").read_text()
    (selection,) = re.findall(r'^quick:.*\n.*\n.*pytest -q -m "([^"]*)"', makefile, re.MULTILINE)
    command = [sys.executable, "-m", "pytest", "--co", "-q", "-m"]
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=False, cwd=pytestconfig.rootpath)
    chosen = {line for line in run([*command, selection]).stdout.splitlines() if "::" in line}
    guests = {line for line in run([*command, "guest or lab"]).stdout.splitlines() if "::" in line}  # not a sample
    assert "tests/lab/test_lab.py::test_reports" in guests and len(guests) > 100
    assert len(chosen) > 1000 and not chosen & guests


def test_guests_are_as_many_as_are_worth_it() -> None:
    plenty = 16 << 30
    assert [lanes.count(tests, 2, plenty) for tests in (1, 39, 40, 1000)] == [1, 1, 2, 2]
    assert lanes.count(1000, 1, plenty) == lanes.count(1000, 8, 4 << 30) == 1


@pytest.mark.timeout(900)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one processor there is one guest")
def test_two_guests_share_the_tests_and_one_may_die(
    bootable: None, suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugin.SHARED, raising=False)
    body = """
        import os, signal
        import pytest

        @pytest.mark.lab
        @pytest.mark.parametrize("number", range(60))
        def test_one(number):
            print("here is", os.uname().nodename)
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    suite.makepyfile(test_many=body)
    result = outer(suite, "-rfP", "test_many.py")
    result.assert_outcomes(passed=59, failed=1)
    assert {"here is lab", "here is lab2"} <= set(result.outlines)
    result.stdout.fnmatch_lines(["*FAILED*test_one[[]3[]] - the guest's pytest ended without finishing this test*"])


@pytest.mark.timeout(900)
def test_node_ids_and_first_failure(bootable: None, suite: pytest.Pytester) -> None:
    result = outer(suite, "-x", "test_suite.py::test_fails", "test_suite.py::test_passes")
    result.assert_outcomes(failed=1)


def test_collect_only_needs_no_guest(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(suite.path))
    result = outer(suite, "--co", "-q", "-m", "lab")
    assert "test_suite.py::test_panics" in result.outlines
    assert "test_suite.py::test_on_the_host" not in result.outlines


@pytest.mark.parametrize("ci", ["", "true"])
def test_no_qemu_is_a_named_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("POOLKIT_LAB_PATH", str(suite.path))
    result = outer(suite, "-ra", "-k", "passes or host")
    if ci:
        result.assert_outcomes(passed=1, errors=1, deselected=9)
    else:
        result.assert_outcomes(passed=1, skipped=1, deselected=9)
    result.stdout.fnmatch_lines(["*needs the lab: qemu-system-x86_64*not installed*"])


@pytest.mark.timeout(900)
def test_two_guests_share_a_disk(lab_guest, tmp_path: Path) -> None:
    disk = tmp_path / "shared"
    with disk.open("wb") as handle:
        handle.truncate(64 << 20)
    one = lab_guest("one", shared=disk, ip="10.0.0.1/24", disks=0)
    two = lab_guest("two", shared=disk, ip="10.0.0.2/24", disks=0)
    path = "/dev/disk/by-id/virtio-SHARED"
    one.exec(f"echo written by one | dd of={path} bs=512 conv=sync oflag=direct")
    assert two.exec(f"dd if={path} bs=512 count=1 iflag=direct status=none").output.startswith("written by one")
    two.exec(f"echo written by two | dd of={path} bs=512 seek=8 conv=sync oflag=direct")
    assert one.exec(f"dd if={path} bs=512 skip=8 count=1 iflag=direct status=none").output.startswith("written by two")
    one.exec("ping -c 1 -W 10 10.0.0.2")


@pytest.mark.timeout(900)
def test_guests_that_go_on_from_one_state_are_themselves(lab_guest) -> None:
    one, two = lab_guest("one", hardware=True, cpus=1), lab_guest("two", hardware=True, cpus=1)
    if one.state is None:
        pytest.skip("guests are booted here, as they are with KVM")
    assert one.state == two.state
    told = [guest.exec("hostname; cat /proc/sys/kernel/random/uuid /etc/machine-id; date +%s") for guest in (one, two)]
    (name, *drawn, clock), (other, *others, _) = (result.output.split() for result in told)
    assert (name, other) == ("one", "two")
    assert not set(drawn) & set(others), "they draw the same numbers"
    assert abs(int(clock) - time.time()) < 600, "the clock stands where the state was saved"
    one.exec("test -e /dev/disk/by-id/virtio-DISK4 && touch /root/file && python3 -c 'import pytest, lxml.etree'")


@pytest.mark.timeout(900)
def test_a_guest_that_does_not_go_on_is_booted(lab_guest) -> None:
    guest = Guest("odd", memory=1536, disks=1)
    folder = image.cache() / f"state-{state.key(image.ensure(), guest.shape())}"
    folder.mkdir()
    (folder / state.MEMORY).write_bytes(b"no state at all")
    try:
        said: list[str] = []
        assert lab_guest("odd", memory=1536, disks=1, say=said.append).exec("cat /proc/uptime").status == 0
        if said:  # with KVM it is booted at once
            assert said == ["a guest did not go on from its saved state, so it is booted"]
            assert not (folder / state.MEMORY).exists(), "the next one would try again"
    finally:
        shutil.rmtree(folder)


def test_byte_code_of_the_tree_is_carried_over(tmp_path: Path) -> None:
    source = tmp_path / "poolkit" / "module.py"
    source.parent.mkdir()
    (source.parent / "__init__.py").touch()
    source.write_text("value = 'compiled here'\n")
    (source.parent / "other.py").touch()  # nobody has compiled it
    py_compile.compile(str(source))
    stat = source.stat()
    source.write_text("value = 'read in there'\n")  # as long and as old, so only who compiles it anew sees the change
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    count = bytecode.pack(tmp_path / "tar", tmp_path)
    if sys.implementation.cache_tag != bytecode.TAG:
        assert count == 0
        return
    assert count == 3
    with tarfile.open(tmp_path / "tar") as archive:
        archive.extractall(tmp_path / "prefix", filter="data")
    shutil.rmtree(source.parent / "__pycache__")
    run = functools.partial(subprocess.run, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
    command = [sys.executable, "-c", "import poolkit.module; print(poolkit.module.value)"]
    prefix = {"PYTHONPYCACHEPREFIX": str(tmp_path / "prefix")}
    assert (
        run(command, env={**os.environ, **prefix, "PYTHONSAFEPATH": "", "PYTHONPATH": str(tmp_path)}).stdout
        == "compiled here\n"
    )


@pytest.mark.parametrize(("took", "slowness"), [(0.1, 1.0), (1.0, 2.0), (2.0, 4.0), (100.0, 6.0)])
def test_deadlines_grow_with_the_slowness_of_the_guest(
    monkeypatch: pytest.MonkeyPatch, took: float, slowness: float
) -> None:
    clock = [0.0]
    monkeypatch.setattr(speed, "_last", (float("-inf"), 1.0))
    monkeypatch.setattr(speed, "QUIET", 0.5)
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(speed, "work", lambda: clock.__setitem__(0, clock[0] + took))
    assert speed.scaled(30) == 30 * slowness
    monkeypatch.setattr(speed, "work", lambda: pytest.fail("it was measured a moment ago"))
    assert speed.slowness() == slowness


@pytest.mark.lab
def test_deadlines_of_poolkit_and_of_tests_are_scaled(request: pytest.FixtureRequest, monkeypatch) -> None:
    monkeypatch.setattr(speed, "_last", (time.monotonic() + 3600, 5.0))
    inside = request.config.pluginmanager.get_plugin("lab-inside")
    assert inside.limit(request.node) == 5 * 240
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"did not come within 0\.5 s"):
        wait_until(lambda: False, "nothing", 0.1)
    assert time.monotonic() - began >= 0.5


@pytest.mark.timeout(900)
def test_a_module_that_breaks_in_the_guest_costs_its_own_tests(bootable: None, suite: pytest.Pytester) -> None:
    body = "import os\nimport pytest\n\nassert not os.path.exists('/lab'), 'not here'\n\n"
    test = "@pytest.mark.lab\ndef test_{}():\n    pass\n\n"
    suite.makepyfile(test_breaks=body + test.format("one") + test.format("two"))
    result = outer(suite, "test_breaks.py", "test_suite.py::test_passes")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*ERROR*::test_one - the guest could not collect this test: *"])


@pytest.mark.timeout(900)
def test_coverage_comes_back(bootable: None, suite: pytest.Pytester) -> None:
    suite.makepyfile(
        measured="def inside():\n    return 1\n\n\ndef nowhere():\n    return 2\n",
        test_measured="import pytest\n\n@pytest.mark.lab\ndef test_it():\n    import measured\n    assert measured.inside()\n",
    )
    run = [sys.executable, "-m", "coverage"]
    result = suite.run(*run, "run", "--parallel-mode", "--source=.", "-m", "pytest", "test_measured.py", timeout=800)
    result.assert_outcomes(passed=1)
    suite.run(*run, "combine")
    report = suite.run(*run, "report", "-m", "--include=measured.py")
    report.stdout.re_match_lines([r"measured\.py +4 +1 +75% +6"])
