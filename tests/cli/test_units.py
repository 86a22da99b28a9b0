"""systemd-unit: units that systemd finds sound, and whose command lines this command takes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Command

COMMAND = str(Path(sys.executable).parent / "poolkit")


def units(*words: str | Path) -> None:
    """The installed command, so that it says its own path."""
    subprocess.run([COMMAND, *map(str, words)], check=True, capture_output=True)


def verified(folder: Path, *, user: bool = False) -> None:
    """Fail if systemd has anything against the units in a folder."""
    found = sorted(folder.iterdir())
    command = ["systemd-analyze", "verify", "--man=no", *(["--user"] if user else []), *map(str, found)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    complaints = [line for line in said.splitlines() if any(unit.name in line for unit in found)]
    assert complaints == []


def called(unit: Path) -> list[str]:
    """The command line of a unit."""
    found = re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert found is not None
    return shlex.split(found[1].replace("%%", "%").replace("$$", "$"))


@pytest.mark.tools("systemd-analyze")
@pytest.mark.parametrize("how", [[], ["--user"]])
def test_the_boot_unit_starts_what_is_marked(tmp_path: Path, poolkit: Command, how: list[str]) -> None:
    poolkit.pool()
    poolkit("autostart", "images")
    poolkit("destroy", "images")
    units("--root", poolkit.root, "systemd-unit", "boot", *how, "--into", tmp_path / "units")
    (unit,) = (tmp_path / "units").iterdir()
    assert unit.name == "poolkit-autostart.service"
    verified(tmp_path / "units", user=bool(how))
    assert called(unit)[0] == COMMAND
    # What pools of the machine need of it: iSCSI's disks, and the locks of shared volume groups.
    after = " ".join(re.findall("^After=(.*)$", unit.read_text(), re.MULTILINE)).split()
    assert how or {"open-iscsi.service", "sanlock.service", "lvmlockd.service"} <= {*after}
    subprocess.run(called(unit), check=True)
    assert poolkit("info", "images", "--json").json["active"]


@pytest.mark.tools("systemd-analyze")
@pytest.mark.parametrize("folder", ["documents", "my 100% $documents"])
def test_the_drift_unit_fails_when_there_is_something_to_do(tmp_path: Path, poolkit: Command, folder: str) -> None:
    (tmp_path / folder).mkdir()
    os.rename(poolkit.document(), tmp_path / folder / "images.xml")
    how = ["--every", "*:0/15", "--into", tmp_path / "units"]
    units("--root", poolkit.root, "systemd-unit", "drift", tmp_path / folder, *how)
    service, timer = sorted((tmp_path / "units").iterdir())
    assert (service.name, timer.name) == ("poolkit-drift.service", "poolkit-drift.timer")
    verified(tmp_path / "units")
    assert "\nOnCalendar=*:0/15\n" in timer.read_text()
    drifted = subprocess.run(called(service), capture_output=True, text=True, check=False)
    assert drifted.returncode == 2 and drifted.stdout.startswith("+ pool images\n")  # what the journal has
    poolkit("apply", tmp_path / folder)
    assert subprocess.run(called(service), capture_output=True, check=False).returncode == 0


@pytest.mark.tools("systemd-analyze")
def test_a_word_of_the_command_line_stays_one_word(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\c'
    units("systemd-unit", "drift", folder, "--into", tmp_path / "units")
    verified(tmp_path / "units")
    assert called(tmp_path / "units/poolkit-drift.service")[-1] == str(folder)


def test_the_mount_of_the_root_is_waited_for(tmp_path: Path, poolkit: Command) -> None:
    """A dollar is one there: only command lines have variables."""
    root = tmp_path / "100% $HOME"
    units("--root", root, "systemd-unit", "boot", "--into", tmp_path / "units")
    (unit,) = (tmp_path / "units").iterdir()
    escaped = str(root).replace("%", "%%")
    assert f'\nRequiresMountsFor="{escaped}"\n' in unit.read_text()
    assert called(unit)[called(unit).index("--root") + 1] == str(root)


def test_both_drift_units_are_printed_with_their_names(poolkit: Command) -> None:
    said = poolkit("systemd-unit", "drift").out
    assert re.findall("^# (.*)$", said, re.MULTILINE) == ["poolkit-drift.service", "poolkit-drift.timer"]
    assert f"--root {poolkit.root} --quiet plan %E/poolkit/documents\n" in said
    facts = poolkit("systemd-unit", "drift", "--json").json
    assert [one["name"] for one in facts] == ["poolkit-drift.service", "poolkit-drift.timer"]


def test_files_are_written_once_and_not_in_a_dry_run(tmp_path: Path, poolkit: Command) -> None:
    place = tmp_path / "units"
    line = ("systemd-unit", "boot", "--into", place)
    assert "would be written" in poolkit(*line, "--dry-run").out
    assert not place.exists()
    assert "is written" in poolkit(*line).out
    before = os.stat(place / "poolkit-autostart.service")
    assert before.st_mode & 0o777 == 0o644
    assert "is so already" in poolkit(*line).out
    assert os.stat(place / "poolkit-autostart.service").st_ino == before.st_ino


@pytest.mark.parametrize(
    "line", [["boot", "/srv"], ["boot", "--every", "hourly"], ["drift", "--every", " "], ["drift", "--every", "a\nUser=x"]]
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(poolkit: Command, line: list[str]) -> None:
    assert poolkit("systemd-unit", *line, status=2).err.startswith("error: ")


@pytest.mark.parametrize(
    ("every", "said"),
    [
        ("15min", "is a span of time"), ("1h 30m", "is a span of time"), ("600", "is a span of time"),
        ("2 hours", "is a span of time"), ("sometimes", "is a calendar event"), ("dayly", "did you mean 'daily'?"),
    ],
)  # fmt: skip
def test_a_time_that_systemd_would_not_take_is_refused(poolkit: Command, every: str, said: str) -> None:
    assert said in poolkit("systemd-unit", "drift", "--every", every, status=2).err


@pytest.mark.tools("systemd-analyze")
@pytest.mark.parametrize(
    "every",
    ["daily", "Weekly", "quarterly", "hourly UTC", "Mon", "sat,sunday", "Mon..Fri", "*:0/15", "0/6:00", "06:30",
     "Mon *-*-* 06:00", "*-*-01", "2031-01-01", "*-02~01 12:00:00 Europe/Berlin"],
)  # fmt: skip
def test_a_time_that_systemd_takes_is_taken(poolkit: Command, every: str) -> None:
    subprocess.run(["systemd-analyze", "calendar", every], check=True, capture_output=True)
    assert f"\nOnCalendar={every}\n" in poolkit("systemd-unit", "drift", "--every", every).out
