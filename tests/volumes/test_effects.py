"""A changed value of each field of a volume is seen: in the volume, in a refusal or in a warning."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.content import images
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.model import Volume
from poolkit.xmlmap import reference, without_reports, write

from .conftest import MIB, make, xml

SECRET = (
    "<encryption format='{}'{}><secret type='passphrase' uuid='3e3fce45-4f53-4fa7-bb32-11f34168b82b'/>{}</encryption>"
)

# For each field that is acted on: a document's parts without it, and with another value of it.
PROBES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "name": ({}, {}),  # every probe has its own
    "capacity": ({}, {"size": 2 * MIB}),
    "allocation": ({}, {"more": "<allocation>4096</allocation>"}),
    "target/format/@type": ({}, {"format": "qcow2"}),
    "target/permissions/mode": ({}, {"target": "<permissions><mode>0640</mode></permissions>"}),
    "target/permissions/owner": ({}, {"target": "<permissions><owner>12345</owner></permissions>"}),
    "target/permissions/group": ({}, {"target": "<permissions><group>12345</group></permissions>"}),
    "target/nocow": ({}, {"target": "<nocow/>"}),
    "target/compat": ({"format": "qcow2"}, {"format": "qcow2", "target": "<compat>0.10</compat>"}),
    "target/clusterSize": ({"format": "qcow2"}, {"format": "qcow2", "target": "<clusterSize>4096</clusterSize>"}),
    **{
        f"target/features/{word}": ({"format": "qcow2"}, {"format": "qcow2", "target": f"<features><{word}/></features>"})
        for word in ("lazy_refcounts", "extended_l2", "data_file")
    },
    "backingStore/path": (
        {},
        {"format": "qcow2", "backing": "<backingStore><path>/none</path><format type='raw'/></backingStore>"},
    ),
    "backingStore/format/@type": (
        {"format": "qcow2", "backing": "<backingStore><path>{base}</path><format type='raw'/></backingStore>"},
        {"format": "qcow2", "backing": "<backingStore><path>{base}</path><format type='qcow2'/></backingStore>"},
    ),
    **{
        f"pkv:{element}/@{name}": ({}, {"more": f"<pkv:{element} xmlns:pkv='urn:poolkit:volume:1' {name}='{value}'/>"})
        for element, name, value in (
            ("layout", "stripes", "2"), ("layout", "mirrors", "1"), ("rbd", "features", "layering"),
            ("rbd", "object_size", "4096"),
            ("rbd", "data_pool", "other"), ("rbd", "stripe_unit", "4096"), ("rbd", "stripe_count", "2"),
        )
    },
    "target/encryption/@format": ({}, {"format": "qcow2", "target": SECRET.format("qcow", "", "")}),
    "target/encryption/@engine": (
        {"format": "qcow2", "target": SECRET.format("luks", "", "")},
        {"format": "qcow2", "target": SECRET.format("luks", " engine='librbd'", "")},
    ),
}  # fmt: skip
# Of an encrypted volume, whose making has tests of its own (test_secrets.py).
# What plan and apply act on has its tests there (tests/plan), and vol-create leaves it out.
ELSEWHERE = ("target/encryption/", "pkv:wanted/", "pkv:content/")


def test_there_is_a_probe_for_each_field() -> None:
    acted = {
        row.path.removeprefix("/volume/")
        for row in reference([Volume])
        if row.effect == "acted" and not row.type.startswith("an element")
    }
    assert {path for path in acted if not path.startswith(ELSEWHERE)} <= PROBES.keys() <= acted | {"name"}


_numbers = itertools.count()


def _seen(pool: Pool, parts: dict[str, Any]) -> tuple[str, ...]:
    """All that can be seen of the making of a volume, without what is its own."""
    name = f"probe{next(_numbers):04d}"
    size = parts.get("size", MIB)
    try:
        made = pool.create_volume(xml(name, **{**parts, "size": size}))
    except errors.PoolkitError as error:
        return (str(error).replace(name, ""),)
    warnings = made.outcome.warnings if made.outcome is not None else ()
    return (write(without_reports(made.definition())).replace(name, ""), *(w.replace(name, "") for w in warnings))


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize("path", [path for path in PROBES if path != "name"])
def test_a_changed_value_is_seen(pool: Pool, path: str) -> None:
    base = make(pool, "base").path
    before, after = (
        {key: value.replace("{base}", base) if isinstance(value, str) else value for key, value in parts.items()}
        for parts in PROBES[path]
    )
    assert _seen(pool, before) == _seen(pool, before)
    assert _seen(pool, before) != _seen(pool, after)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"target": "<path>/elsewhere/x</path>"}, "its path is '.*', as the pool has it; '/elsewhere/x' was left out"),
        ({"target": "<permissions><label>system_u:object_r:x:s0</label></permissions>"}, "the label was left out"),
        ({"target": "<compat>1.1</compat>"}, "a volume of format raw has no <compat>; left out"),
        ({"target": "<clusterSize>65536</clusterSize>"}, "a volume of format raw has no <clusterSize>; left out"),
        ({"target": "<features><lazy_refcounts/></features>"}, "a volume of format raw has no <features>; left out"),
        ({"target": "<nocow/>"}, "cannot turn copy-on-write off"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_said(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(images, "no_cow", lambda *_, **__: False)
    made = pool.create_volume(xml("disk", format="raw", **parts))
    assert made.outcome is not None
    (warning,) = made.outcome.warnings
    assert re.search(said, warning), warning


def test_the_type_of_a_volume_is_its_pools(pool: Pool) -> None:
    made = pool.create_volume(xml("disk").replace("<volume>", "<volume type='block'>"))
    assert made.outcome is not None
    assert made.outcome.warnings == ("volume 'disk': its type is file, as the pool has it; block was left out",)


def test_a_document_of_the_pool_itself_says_nothing_twice(pool: Pool) -> None:
    first = pool.create_volume(xml("disk"))
    text = first.xml()
    first.delete()
    again = pool.create_volume(text)
    assert again.outcome is not None and again.outcome.warnings == ()


def test_a_copy_that_is_asked_to_be_smaller_says_that_it_is_not(pool: Pool) -> None:
    made = make(pool, "disk", size=4 * MIB).clone(xml("copy", MIB))
    assert made.outcome is not None
    assert made.info.capacity == 4 * MIB
    assert made.outcome.warnings == (
        f"volume 'copy' has the {4 * MIB} bytes of its source, and not {MIB}: a copy is never smaller",
    )


@pytest.mark.parametrize(("state", "flags"), [("no", 0x00800000), ("yes", 0)])
def test_building_a_directory_turns_copy_on_write_off_and_on(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, flags: int
) -> None:
    held = [0x00800000 - flags]  # the other state
    _flags_of(monkeypatch, held)
    pool = engine.define(
        f"<pool type='dir'><name>p</name><features><cow state='{state}'/></features>"
        f"<target><path>{tmp_path}/p</path></target></pool>"
    )
    outcome = pool.build()
    assert held == [flags]
    assert outcome.warnings == ()


def _flags_of(monkeypatch: pytest.MonkeyPatch, held: list[int]) -> None:
    import fcntl

    def ioctl(_fd: int, request: int, data: bytes) -> bytes:
        if request == 0x40086602:  # FS_IOC_SETFLAGS
            held[0] = int.from_bytes(data, "little")
        return held[0].to_bytes(8, "little")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def test_a_file_system_that_has_no_say_in_it_is_named(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(*_: object) -> Callable[..., bytes]:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    pool = engine.define(
        f"<pool type='dir'><name>p</name><features><cow state='no'/></features><target><path>{tmp_path}/p</path></target></pool>"
    )
    (warning,) = pool.build().warnings
    assert "cannot turn copy-on-write off" in warning and str(tmp_path) in warning
