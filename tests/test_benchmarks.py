"""The benchmarks run, and their table says what was measured; no figure is judged here."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.__main__ import registry
from benchmarks.clone import MKFS
from benchmarks.harness import Row, best, table

ROOT = Path(__file__).parents[1]


def test_every_benchmark_of_the_package_is_found() -> None:
    assert {"refresh", "memory", "startup", "lookup", "xml"} <= set(registry())


def test_a_row_is_judged_by_its_ratio_or_by_its_value() -> None:
    lines = list(
        table(
            [
                Row("faster", 1.0, "us", "the floor", 2.0, bar=0.6),
                Row("slower", 3.0, "us", "the floor", 2.0, bar=1.0),
                Row("alone", 5.0, "ms", bar=4.0),
                Row("no bar", 1234.0, "B"),
            ]
        )
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [
        ["faster", "1 us", "the floor", "2 us", "0.50", "0.6", "ok"],
        ["slower", "3 us", "the floor", "2 us", "1.50", "1", "MISSED"],
        ["alone", "5 ms", "", "", "", "4 ms", "MISSED"],
        ["no bar", "1,234 B", "", "", "", "", ""],
    ]


def test_best_measures_in_turns() -> None:
    order: list[str] = []
    times = iter([3.0, 10.0, 2.0, 11.0])

    def measure(name: str) -> float:
        order.append(name)
        return next(times)

    assert best(2, lambda: measure("a"), lambda: measure("b")) == [2.0, 10.0]
    assert order == ["a", "b", "a", "b"]


@pytest.mark.root
@pytest.mark.tools("losetup", "sfdisk", "mkfs.xfs", "mkfs.btrfs", "mkfs.ext4", "qemu-img", "gcc")
@pytest.mark.timeout(900)  # it writes and syncs, beside whatever else the machine writes
def test_all_benchmarks_run_from_the_command_line() -> None:
    with tempfile.TemporaryDirectory() as folder:  # a short path: libvirtd has a socket below it
        done = run("--quick", "--dir", folder)
        assert os.listdir(folder) == []
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("1,000 qcow2 overlays", "10 % data, xfs", "10 % data, btrfs", "100 partitions", "by path, 2,000"):
        assert f"{words}" in done.stdout


def test_what_is_not_installed_is_named_with_its_package_and_breaks_nothing(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    done = run("disk", "images", "mount", "refresh", "clone", "--quick", "--dir", str(tmp_path), path=str(programs))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "images: qemu-img not installed (apt install qemu-utils)" in done.stdout
    assert "cc not installed (apt install gcc)" in done.stdout
    if os.geteuid() == 0:
        assert "disk: losetup, sfdisk, partx not installed (apt install fdisk util-linux)" in done.stdout
        assert "mount: losetup, mkfs.ext4, mount not installed (apt install e2fsprogs mount util-linux)" in done.stdout


def test_what_the_benchmarks_need_is_in_their_group_of_packages() -> None:
    needs, kinds = set(), set()
    for path in (ROOT / "benchmarks").glob("*.py"):
        for call in re.findall(r"\.need\(([^)]*)\)", path.read_text()):
            needs |= set(re.findall(r', "([\w.-]+)"', call))
    kinds |= {command[0] for command in MKFS.values()}
    groups = runpy.run_path(str(ROOT / "scripts" / "install-test-tools"))["read"]()
    assert {"sfdisk", "qemu-img", "losetup"} < needs
    assert needs | kinds <= {program for programs in groups["bench"].values() for program in programs}


def run(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, which finds programs in its PATH alone if one is given."""
    code = "import runpy, sys; sys.argv[0] = 'benchmarks'; runpy.run_module('benchmarks', run_name='__main__')"
    environment = dict(os.environ)
    if path:
        environment |= {"PATH": path, "PYTHONPATH": str(ROOT)}
        code = f"import shutil; which = shutil.which; shutil.which = lambda name: which(name, path={path!r}); {code}"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
