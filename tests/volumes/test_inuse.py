"""What a machine has open is left alone, by the word of QEMU's own locks."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.engine.pool import Pool
from poolkit.engine.volume import Volume
from tests.machine import held

from .conftest import MIB, content, entries, make, xml

pytestmark = pytest.mark.tools("qemu-img", "qemu-storage-daemon", "prlimit")


VERBS: dict[str, Callable[[Volume, bool], object]] = {
    "resize": lambda v, force: v.resize(2 * MIB, force=force),
    "wipe": lambda v, force: v.wipe(force=force),
    "upload": lambda v, force: v.upload(BytesIO(bytes(512)), force=force),
    "delete": lambda v, force: v.delete(force=force),
}


@pytest.mark.parametrize("write", [True, False], ids=["a disk", "a base"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_volume_in_use_is_left_alone(pool: Pool, place: Path, verb: str, format: str, write: bool) -> None:
    volume = make(pool, "disk", format)
    with held(volume.path, format, write=write) as pid:
        before = entries(place)
        with pytest.raises(errors.Busy, match=rf"'disk' is in use by process {pid} \(qemu-storage") as caught:
            VERBS[verb](volume, False)
        assert "force=True" in (caught.value.hint or "")
        assert entries(place) == before
    if (verb, format) != ("upload", "qcow2"):  # what is uploaded here is no image
        assert VERBS[verb](volume, False), "it can be done when the machine has ended"


@pytest.mark.parametrize("verb", VERBS)
def test_force_does_it_all_the_same(pool: Pool, place: Path, verb: str) -> None:
    volume = make(pool, "disk")
    volume.upload(BytesIO(b"x" * MIB))
    with held(volume.path):
        VERBS[verb](volume, True)
        if verb == "delete":
            assert entries(place) == {}
        elif verb == "resize":
            assert Path(volume.path).stat().st_size == 2 * MIB
        else:
            assert content(volume)[:512] == bytes(512)


def test_a_machine_that_starts_during_an_upload_keeps_its_disk(pool: Pool, place: Path) -> None:
    volume = make(pool, "disk", "qcow2")
    data, before = Path(volume.path).read_bytes(), entries(place)

    class Stream(BytesIO):
        def readinto(self, buffer: Any) -> int:
            if not self.tell():
                stack.enter_context(held(volume.path, "qcow2"))
            return super().readinto(buffer)

    with ExitStack() as stack, pytest.raises(errors.Busy, match="'disk' is in use by process"):
        volume.upload(Stream(data))
    assert entries(place) == before


def test_a_copy_of_a_running_raw_disk_says_that_it_may_be_torn(pool: Pool) -> None:
    volume = make(pool, "disk")
    with held(volume.path) as pid:
        clone = volume.clone("clone")
        words = f"volume 'disk' of pool 'images' is being written to by process {pid}"
        assert clone.outcome is not None and any(words in line and "torn" in line for line in clone.outcome.warnings)
        volume.download(BytesIO())
        assert volume.outcome is not None and any("torn" in line for line in volume.outcome.warnings)
        with pytest.raises(errors.Busy, match="is being written to"):
            volume.clone("overlay", linked=True)
    clone = volume.clone("quiet")
    assert clone.outcome is not None and not clone.outcome.warnings
    assert volume.clone("overlay", linked=True)


def test_a_running_image_is_not_copied_and_one_that_is_read_is(pool: Pool) -> None:
    volume = make(pool, "disk", "qcow2")
    with held(volume.path, "qcow2"):
        for what in ("copy", xml("flat", None, "raw")):
            with pytest.raises(errors.Busy, match="is being written to"):
                volume.clone(what)
    with held(volume.path, "qcow2", write=False):
        assert volume.clone("copy")
    assert {v.name for v in pool.volumes()} == {"disk", "copy"}


def test_who_it_is_may_be_hidden(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = make(pool, "disk")
    real = os.listdir
    with held(volume.path):
        monkeypatch.setattr(os, "listdir", lambda path=".": [] if path == "/proc" else real(path))
        with pytest.raises(errors.Busy, match="a program that this process cannot see"):
            volume.wipe()
