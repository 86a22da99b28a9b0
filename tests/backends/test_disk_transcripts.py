"""What a disk pool runs, line by line: every verb, every failing step with what takes it back, every refusal's words."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backend import VolumeInfo
from poolkit.backends import disk as disk_module
from poolkit.backends.disk import DiskBackend, DiskPool
from poolkit.families import blockdevice, disknodes, partitiontable, partvolumes
from poolkit.host import Host, Result
from poolkit.model import Volume
from poolkit.testing import Answer, ScriptedHost, transcript

MIB = 1 << 20
SECTORS = MIB // 512
UUID = uuid.UUID("7" * 32)
MARK = str(UUID).upper()
QUIET = "sfdisk --quiet --no-reread --no-tell-kernel"
READ = "? sfdisk --json -- /dev/sda"
LINUX = partitiontable.GPT["linux"]
ENDS = [(0, b"old"), (199 * MIB, b"end")]


class Shown(ScriptedHost):
    """Shows what a program is given to read as well, after a ``|``."""

    input: bytes | None = None

    def change(self, argv: Any, **how: Any) -> Result:
        self.input = how.get("input")
        return super().change(argv, **how)

    def _count(self, argv: Any) -> None:
        if self.input:
            self.lines.append("  | " + self.input.decode().rstrip("\n").replace("\n", " | "))
        super()._count(argv)


def table(*parts: tuple[int, int, int, str], label: str = "gpt", ident: str = "ID") -> str:
    """Number, start and size in MiB, type."""
    entries = [
        {"node": f"/dev/sda{n}", "start": start * SECTORS, "size": size * SECTORS, "type": code, "uuid": f"U{n}"}
        for n, start, size, code in parts
    ]
    found = {"label": label, "id": ident, "device": "/dev/sda", "unit": "sectors", "sectorsize": 512}
    if label == "gpt":
        found |= {"firstlba": 2048, "lastlba": 200 * SECTORS - 34}
    return json.dumps({"partitiontable": found | ({"partitions": entries} if entries else {})})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A disk /dev/sda of 200 MiB that a test may change: its label, what it holds, the nodes of its partitions."""
    facts: dict[str, Any] = {"label": "gpt", "holds": (), "nodes": (), "users": [], "dm": "", "there": True}

    def look(path: str, separator: bool | None) -> disknodes.Disk | None:
        if not facts["there"]:
            return None
        if facts["dm"]:
            names = {n: f"mpatha-part{n}" for n in facts["nodes"]}
            return disknodes.Disk(path, "/dev/mapper/mpatha", "253:0", 200 * MIB, 512, "mpatha", "-part", names)
        return disknodes.Disk(path, "/dev/sda", "8:0", 200 * MIB, 512, "", "", {n: f"sda{n}" for n in facts["nodes"]})

    @contextlib.contextmanager
    def locked(host: Host, disk: disknodes.Disk) -> Iterator[None]:
        yield

    monkeypatch.setattr(disknodes, "look", look)
    monkeypatch.setattr(disknodes, "locked", locked)
    monkeypatch.setattr(disknodes, "arrive", lambda host, disk, number, what: disk)
    monkeypatch.setattr(disknodes, "head", lambda path: b"")
    monkeypatch.setattr(partitiontable, "label", lambda head: facts["label"])
    monkeypatch.setattr(partvolumes, "_permissions", lambda node: (0o660, 0, 6))
    monkeypatch.setattr(partitiontable, "_sectors", lambda *_: facts.get("header", b""))
    monkeypatch.setattr(partitiontable, "_records", lambda *_: facts.get("records", []))
    monkeypatch.setattr(blockdevice, "holds", lambda host, path: facts["holds"])
    monkeypatch.setattr(disk_module, "_content", lambda host, path: facts["holds"])
    monkeypatch.setattr(blockdevice, "number", lambda path: "8:1")
    monkeypatch.setattr(blockdevice, "users", lambda host, number, processes=False: facts["users"])
    monkeypatch.setattr(DiskBackend, "_ends", lambda self, disk: ENDS)
    monkeypatch.setattr(uuid, "uuid4", lambda: UUID)
    return facts


def pool(label: str = "gpt") -> str:
    return (
        f"<pool type='disk'><name>p</name><source><device path='/dev/sda'/><format type='{label}'/></source>"
        "<target><path>/dev</path></target></pool>"
    )


def run(host: ScriptedHost, verb: Callable[[Any], Any], label: str = "gpt") -> list[str]:
    return transcript(pool(label), verb, host)


def refused(host: ScriptedHost, verb: Callable[[Any], Any], label: str = "gpt") -> errors.PoolkitError:
    backend = DiskBackend(xmlmap.read(pool(label), [DiskPool]), host)
    with pytest.raises(errors.PoolkitError) as caught:
        verb(backend)
    return caught.value


def new(name: str, capacity: int = 10 * MIB, format: str = "") -> Volume:
    target = f"<target><format type='{format}'/></target>" if format else ""
    text = f"<volume><name>{name}</name><capacity>{capacity}</capacity>{target}</volume>"
    return xmlmap.read(text, [Volume])


def info(number: int, start: int, size: int, format: str = "linux") -> VolumeInfo:
    place = ["/dev/sda", start * MIB, (start + size) * MIB]
    return VolumeInfo(
        f"sda{number}", "block", format, size * MIB, size * MIB, mode=0o660, group=6, path=f"/dev/sda{number}",
        detail={"extents": [place]},
    )  # fmt: skip


# -- build ----------------------------------------------------------------------------------------------------------


def test_build_writes_a_table_with_an_identity_of_its_own(machine: dict[str, Any]) -> None:
    machine["label"] = ""
    host = Shown()
    assert run(host, lambda b: b.build()) == [
        f"! {QUIET} --wipe always -- /dev/sda",
        f"  | label: gpt | label-id: {MARK}",
    ]
    (step,) = host.journal.steps
    assert str(step) == f"run wipefs --all --quiet -- /dev/sda (if sfdisk --disk-id -- /dev/sda says '{MARK}')"
    assert run(Shown(), lambda b: b.build(), "dos")[1] == "  | label: dos | label-id: 0x77777777"
    assert run(Shown(), lambda b: b.build(), "unknown")[1] == "  | label: dos | label-id: 0x77777777"


@pytest.mark.parametrize(("label", "kind"), [("mac", "mac"), ("sun", "sun"), ("dvh", "sgi"), ("pc98", "dos")])
def test_build_of_other_tables(machine: dict[str, Any], label: str, kind: str) -> None:
    machine["label"] = ""
    host = ScriptedHost()
    assert run(host, lambda b: b.build(), label) == [f"! parted --script -- /dev/sda mklabel {label}"]
    assert str(host.journal.steps[0]) == (
        "run wipefs --all --quiet -- /dev/sda "
        f"(if blkid --probe --output value --match-tag PTTYPE -- /dev/sda says '{kind}')"
    )


def test_build_of_bsd_is_known_again_by_parted(machine: dict[str, Any]) -> None:
    machine["label"] = ""
    line = "/dev/sda:409600s:scsi:512:512:{}:QEMU DISK:;\n"
    question = "parted --script --machine -- /dev/sda unit s print"
    host = ScriptedHost({question: Answer("BYT;\n" + line.format("unknown"), 1)})
    assert run(host, lambda b: b.build(), "bsd") == [f"? {question}", "! parted --script -- /dev/sda mklabel bsd"]
    assert str(host.journal.steps[0]) == (
        f"run blkdiscard --zeroout --force --length 8192 -- /dev/sda (if {question} says 'BYT;\n{line.format('bsd')}')"
    )


def test_build_leaves_what_is_built(machine: dict[str, Any]) -> None:
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), ScriptedHost())
    assert backend.build() is False
    machine["label"] = "dos"
    backend = DiskBackend(xmlmap.read(pool("unknown"), [DiskPool]), ScriptedHost())
    assert backend.build() is False


def test_build_refuses_a_used_disk(machine: dict[str, Any]) -> None:
    machine |= {"label": "", "holds": ("ext4",)}
    error = refused(ScriptedHost(), lambda b: b.build())
    assert isinstance(error, errors.Unsafe)
    assert str(error) == "pool 'p': '/dev/sda' holds ext4, which building would destroy"
    machine |= {"label": "gpt", "holds": ("mbr", "gpt")}
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX), (2, 11, 10, LINUX))})
    error = refused(host, lambda b: b.build(), "dos")
    assert str(error) == "pool 'p': '/dev/sda' holds mbr and gpt with 2 partitions, which building would destroy"
    assert host.changes == 0
    machine["label"] = ""
    error = refused(ScriptedHost(), lambda b: b.build(), "lvm2")
    assert str(error) == "pool 'p': a table of type lvm2 cannot be written"


OVERWRITTEN = [
    "! partx --delete --nr 2 -- /dev/sda",
    "! partx --delete --nr 1 -- /dev/sda",
    "! wipefs --all --quiet -- /dev/sda",
    f"! {QUIET} --wipe always -- /dev/sda",
]
TAKEN_BACK = [
    f"< run wipefs --all --quiet -- /dev/sda (if sfdisk --disk-id -- /dev/sda says '{MARK}')",
    "< write the saved bytes back to /dev/sda "
    "(if blkid --probe --output value --match-tag TYPE --match-tag PTTYPE -- /dev/sda says '')",
    "< run partx --add --nr 1 -- /dev/sda (if lsblk --noheadings --output NAME -- /dev/sda1 says '')",
    "< run partx --add --nr 2 -- /dev/sda (if lsblk --noheadings --output NAME -- /dev/sda2 says '')",
]


def test_build_overwrites_when_told_to(machine: dict[str, Any]) -> None:
    machine |= {"holds": ("mbr", "gpt"), "nodes": (1, 2)}
    assert run(ScriptedHost(), lambda b: b.build(overwrite=True)) == OVERWRITTEN


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_each_failing_step_of_build_is_taken_back(machine: dict[str, Any], step: int) -> None:
    machine |= {"holds": ("mbr", "gpt"), "nodes": (1, 2), "users": ["mounted at '/x'"]}
    lines = run(ScriptedHost(fail_at=step), lambda b: b.build(overwrite=True))
    # The undo of a step is written down before it begins, so that of the one that failed is done as well.
    assert lines[:-1] == OVERWRITTEN[:step] + TAKEN_BACK[4 - step :]
    words = {1: "partition 'sda2' is in use: mounted at '/x'", 2: "partition 'sda1' is in use: mounted at '/x'"}
    tool = {3: "wipefs", 4: "sfdisk"}.get(step)
    expected = f"'{tool}' failed with status 5: injected" if tool else f"pool 'p': {words[step]}"
    assert lines[-1] == f"error: {expected}"


def test_erase_takes_only_an_empty_table(machine: dict[str, Any]) -> None:
    host = ScriptedHost({"sfdisk --json": table()})
    assert run(host, lambda b: b.erase()) == [READ, "! wipefs --all --quiet -- /dev/sda"]
    error = refused(ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX))}), lambda b: b.erase())
    assert str(error) == "pool 'p': the disk '/dev/sda' has the partitions sda1; nothing was deleted"
    machine["label"] = ""
    assert DiskBackend(xmlmap.read(pool(), [DiskPool]), ScriptedHost()).erase() is False


@pytest.mark.parametrize(("label", "own"), [("dos", ("mbr",)), ("gpt", ("mbr", "gpt")), ("sun", ("sun",))])
def test_a_table_beside_something_else_is_no_empty_disk(
    machine: dict[str, Any], label: str, own: tuple[str, ...]
) -> None:
    said = "BYT;\n/dev/sda:409600s:scsi:512:512:sun:DISK:;\nCYL;\n/dev/sda:25cyl:scsi:512:512:sun:D:;\n25:255:63:8kB;\n"
    host = ScriptedHost({"sfdisk --json": table(label=label), "parted --script --machine": said})
    machine |= {"label": label, "holds": own}
    assert DiskBackend(xmlmap.read(pool(label), [DiskPool]), host).build() is False
    machine["holds"] = (*own, "ext4")
    for verb in ("build", "erase"):
        error = refused(host, lambda b, verb=verb: getattr(b, verb)(), label)
        assert isinstance(error, errors.Unsafe)
        assert str(error) == f"pool 'p': '/dev/sda' holds ext4 besides a table of type {label}"
    assert host.changes == 0


def test_what_the_last_partition_holds_is_not_the_disks(machine: dict[str, Any]) -> None:
    machine["holds"] = ("mbr", "gpt", "linux_raid_member")
    error = refused(ScriptedHost({"sfdisk --json": table()}), lambda b: b.build())
    assert "holds linux_raid_member besides" in str(error)
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX))})
    assert DiskBackend(xmlmap.read(pool(), [DiskPool]), host).build() is False


def test_disks_that_a_pool_can_be_made_of(machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disknodes, "whole", lambda: [disknodes.look("/dev/sda", None)])

    def found() -> list[tuple[str, str | None]]:
        return [(one.devices[0].path, one.format) for one in DiskBackend.discover(ScriptedHost(), None)]

    machine["holds"] = ("mbr", "gpt")
    assert found() == [("/dev/sda", "gpt")]
    machine["holds"] = ("mbr", "gpt", "ext4")
    assert found() == []
    machine |= {"holds": (), "label": ""}
    assert found() == [("/dev/sda", None)]
    machine["users"] = ["swap space"]
    assert found() == []


# -- start and facts --------------------------------------------------------------------------------------------------


def test_start_makes_missing_nodes(machine: dict[str, Any]) -> None:
    machine["nodes"] = (1,)
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX), (3, 11, 10, LINUX))})
    assert run(host, lambda b: b.start()) == [READ, READ, "! partx --add --nr 3 -- /dev/sda"]


def test_start_says_what_is_wrong(machine: dict[str, Any]) -> None:
    machine["label"] = ""
    error = refused(ScriptedHost(), lambda b: b.start())
    assert (str(error), error.hint) == (
        "pool 'p': the disk '/dev/sda' has no partition table",
        "make one: engine.pool('p').build()",
    )
    machine["label"] = "dos"
    error = refused(ScriptedHost(), lambda b: b.start())
    assert str(error) == "pool 'p': the disk '/dev/sda' has a partition table of type dos, not gpt"
    assert error.hint == "if the disk is the right one, change the definition: <format type='dos'/>"
    machine["there"] = False
    assert str(refused(ScriptedHost(), lambda b: b.start())) == "pool 'p': there is no disk '/dev/sda'"


def test_a_refresh_is_one_question(machine: dict[str, Any]) -> None:
    machine["nodes"] = (1, 2)
    host = ScriptedHost(
        {"sfdisk --json": table((2, 101, 20, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), (1, 1, 50, LINUX))}
    )
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), host)
    one, two = backend.volumes({})
    assert one == info(1, 1, 50)._replace(key="/dev/sda1")
    assert two.format == "none"
    assert two.detail["partition_type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert backend.usage(()) == (200 * MIB, 70 * MIB, 50 * MIB + 79 * MIB - 33 * 512)
    assert [v is w for v, w in zip(backend.volumes({"sda1": one}), (one, two), strict=True)] == [True, False]
    free = [(e.start // MIB, e.end) for e in backend.live().source.devices[0].free_extents]
    assert free == [(51, 101 * MIB), (121, 200 * MIB - 33 * 512)]
    assert host.lines == [READ]


@pytest.mark.parametrize(
    ("label", "found", "words"),
    [
        ("gpt", table((1, 1, 10, "ee"), label="dos"), "one of type dos"),
        ("dos", table((1, 1, 10, LINUX)), "one of type gpt"),
        ("dos", table((1, 1, 10, "ee"), label="dos"), "the protective record of gpt"),
    ],
)
def test_tables_that_disagree(machine: dict[str, Any], label: str, found: str, words: str) -> None:
    machine["label"] = label
    error = refused(ScriptedHost({"sfdisk": found}), lambda b: list(b.volumes({})), label)
    assert str(error) == f"the first sectors of '/dev/sda' show a table of type {label}, and sfdisk reads {words}"


def test_a_name_that_is_no_text(machine: dict[str, Any]) -> None:
    named = table((1, 1, 10, LINUX)).replace('"uuid"', r'"name": "a\xed\xa0\x80 \\x41", "uuid"')
    (one,) = DiskBackend(xmlmap.read(pool(), [DiskPool]), ScriptedHost({"sfdisk": named})).volumes({})
    assert one.name == "sda1"


def test_a_disk_that_grew(machine: dict[str, Any]) -> None:
    small = table().replace(str(200 * SECTORS - 34), str(100 * SECTORS - 34))
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), ScriptedHost({"sfdisk": small}))
    assert backend.usage(()).available == 99 * MIB - 33 * 512
    machine["header"] = b"EFI PART" + bytes(24) + (100 * SECTORS - 1).to_bytes(8, "little")
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), ScriptedHost({"sfdisk": small}))
    assert backend.usage(()).available == 199 * MIB - 33 * 512


@pytest.mark.parametrize(("base", "separator"), [("mpath1", "-part"), ("mpath1", "p"), ("mpatha", ""), ("mpath1", "")])
def test_numbers_behind_names_with_digits(base: str, separator: str) -> None:
    assert partitiontable._number(f"/dev/mapper/{base}{separator}2", f"/dev/mapper/{base}") == 2


def test_the_separator_that_the_definition_asks_for() -> None:
    asked = [disknodes._dm_separator(dm, {}, wanted) for dm in ("mpatha", "mpath1") for wanted in (None, True, False)]
    assert asked == ["-part", "p", "", "-part", "p", "p"]


@pytest.mark.parametrize("answer", ["", "{}", '{"partitiontable": {"label": "gpt"}}', "no"])
def test_an_answer_that_is_no_table(machine: dict[str, Any], answer: str) -> None:
    error = refused(ScriptedHost({"sfdisk": answer}), lambda b: list(b.volumes({})))
    assert str(error) == f"'sfdisk' answered something that is no partition table: {answer!r}"
    machine["label"] = "mac"
    error = refused(ScriptedHost({"parted": answer}), lambda b: list(b.volumes({})), "mac")
    assert str(error) == f"'parted' answered something that is no partition table: {answer!r}"


def test_what_parted_says(machine: dict[str, Any]) -> None:
    machine |= {"label": "sun", "nodes": (1,)}
    said = (
        "BYT;\n/dev/sda:409600s:scsi:512:512:sun:QEMU: a disk:;\n1:32130s:64259s:32130s:linux-swap(v1)::;\n"
        "1:0s:32129s:32130s:free;\n1:64260s:401624s:337365s:free;\n"
        "CYL;\n/dev/sda:25cyl:scsi:512:512:sun:QEMU: a disk:;\n25:255:63:8225kB;\n1:2cyl:3cyl:2cyl:::;\n"
    )
    host = ScriptedHost({"parted": said})
    backend = DiskBackend(xmlmap.read(pool("sun"), [DiskPool]), host)
    (one,) = backend.volumes({})
    cylinder = 255 * 63 * 512
    assert (one.name, one.format, one.capacity) == ("sda1", "linux-swap", 2 * cylinder)
    # The first cylinder holds the table itself.
    gaps = [(e.start // cylinder, e.end // cylinder) for e in backend.live().source.devices[0].free_extents]
    assert gaps == [(1, 2), (4, 25)]
    assert host.lines == ["? parted --script --machine -- /dev/sda unit s print free unit cyl print"]


# -- create -----------------------------------------------------------------------------------------------------------


def created(number: int, start: int, mark: str = MARK, line: str = "") -> list[str]:
    return [
        f"! {QUIET} --append --wipe never --wipe-partitions always -- /dev/sda",
        f"  | /dev/sda{number} : start={start * SECTORS}, size={10 * SECTORS}, {line}",
        f"! partx --add --nr {number} -- /dev/sda",
    ]


def test_create_in_the_smallest_extent(machine: dict[str, Any]) -> None:
    before = table((1, 1, 10, LINUX), (2, 31, 10, LINUX), (3, 52, 10, LINUX))
    after = table((1, 1, 10, LINUX), (2, 31, 10, LINUX), (3, 52, 10, LINUX), (4, 41, 10, LINUX))
    host = Shown({"sfdisk --json": [before, after]})
    made = created(4, 41, line=f"type={LINUX}, uuid={MARK}")
    assert run(host, lambda b: b.create(new("sda4"))) == [READ, *made, READ]


def test_each_failing_step_of_create_is_taken_back(machine: dict[str, Any]) -> None:
    made = created(1, 1, line=f"type={partitiontable.GPT['linux-swap']}, uuid={MARK}")
    question = "partx --show --noheadings --output START,SECTORS,UUID --nr 1 -- /dev/sda"
    ours = f"(if {question} says '{SECTORS} {10 * SECTORS} {MARK.lower()}')"
    back = [f"< run partx --delete --nr 1 -- /dev/sda {ours}", f"< run {QUIET} --delete -- /dev/sda 1 {ours}"]
    for step, tool in ((1, "sfdisk"), (2, "partx")):
        host = Shown({"sfdisk --json": table()}, fail_at=step)
        lines = run(host, lambda b: b.create(new("sda1", format="linux-swap")))
        done = made[: 2 if step == 1 else 3]
        assert lines == [READ, *done, *back, f"error: '{tool}' failed with status 5: injected"]


def test_create_on_dos_is_known_again_by_disk_and_number(machine: dict[str, Any]) -> None:
    machine["label"] = "dos"
    parts = [(n, 1 + 10 * (n - 1), 10, "83") for n in (1, 2, 3)]
    before = table(*parts, (4, 31, 100, "f"), label="dos", ident="0x12ab34cd")
    host = Shown({"sfdisk --json": before}, fail_at=2)
    lines = run(host, lambda b: b.create(new("sda5", format="linux-lvm")), "dos")
    assert lines[1:4] == created(5, 32, line="type=8e")
    assert f"says '{32 * SECTORS} {10 * SECTORS} 12ab34cd-05')" in lines[4]


def test_create_on_a_dos_disk_without_an_identity(machine: dict[str, Any]) -> None:
    machine["label"] = "dos"
    host = Shown({"sfdisk --json": table(label="dos", ident="0x00000000")}, fail_at=2)
    lines = run(host, lambda b: b.create(new("sda1")), "dos")
    assert f"says '{SECTORS} {10 * SECTORS}')" in lines[4]


def test_number_three_of_sun_is_the_whole_disk() -> None:
    parts = tuple(partitiontable.Partition(n, n * MIB, (n + 1) * MIB, "primary", "none") for n in (1, 2))
    gaps = (partitiontable.Gap(10 * MIB, 90 * MIB),)
    sun = partitiontable.Table("sun", "", 512, MIB, parts, gaps, (), 90 * MIB)
    assert partitiontable.place(sun, MIB, "none").number == 4
    parts = tuple(partitiontable.Partition(n, n * MIB, (n + 1) * MIB, "primary", "none") for n in (1, 2, 4, 5, 6, 7, 8))
    with pytest.raises(errors.NoSpace, match="has 7 partitions, which is the most"):
        partitiontable.place(sun._replace(parts=parts), MIB, "none")


def test_create_by_parted(machine: dict[str, Any]) -> None:
    machine["label"] = "mac"
    said = "BYT;\n/dev/sda:409600s:scsi:512:512:mac:DISK:;\n1:1s:63s:63s::Apple:;\n1:64s:409599s:409536s:free;\n"
    made = "2:2048s:22527s:20480s::primary:lvm;\n"
    host = ScriptedHost({"parted --script --machine": [said, said + made]})
    assert run(host, lambda b: b.create(new("sda2", format="linux-lvm")), "mac") == [
        "? parted --script --machine -- /dev/sda unit s print free",
        "! parted --script --align none -- /dev/sda unit s mkpart primary ext2 2048s 22527s set 2 lvm on",
        "? parted --script --machine -- /dev/sda unit s print free",
    ]
    assert "run parted --script -- /dev/sda rm 2 (if" in str(host.journal.steps[0])


def test_create_on_multipath(machine: dict[str, Any]) -> None:
    machine["dm"] = "mpatha"
    after = table((1, 1, 10, LINUX)).replace("/dev/sda1", "/dev/mapper/mpatha-part1")
    host = Shown({"sfdisk --json": [table(), after]})
    lines = run(host, lambda b: b.create(new("mpatha-part1")))
    assert lines[2].startswith("  | /dev/mapper/mpatha-part1 : start=2048")
    assert lines[3] == "! kpartx -a -s -p -part -- /dev/mapper/mpatha"
    # The machine's own rules may have made the device under another name: kpartx knows it by its identity.
    first, newest = map(str, host.journal.steps)
    assert first == "run kpartx -u -s -p -part -- /dev/mapper/mpatha"
    assert newest.startswith(f"run {QUIET} --delete -- /dev/mapper/mpatha 1 (if partx --show")


def test_delete_on_multipath(machine: dict[str, Any]) -> None:
    machine |= {"dm": "mpatha", "nodes": (1,)}
    found = table((1, 1, 10, LINUX)).replace("/dev/sda1", "/dev/mapper/mpatha-part1")
    host = ScriptedHost({"sfdisk --json": found})
    assert run(host, lambda b: b.delete(info(1, 1, 10)._replace(name="mpatha-part1")))[1:] == [
        "! dmsetup remove -- mpatha-part1",
        f"! {QUIET} --delete -- /dev/mapper/mpatha 1",
    ]
    error = refused(host, lambda b: b.create(new("mpathap2")))
    assert str(error).startswith("pool 'p': the next partition of '/dev/sda' is 'mpatha-part2'")


@pytest.mark.parametrize(
    ("volume", "label", "words"),
    [
        (new("data"), "gpt", "pool 'p': the next partition of '/dev/sda' is 'sda2', and no other name can be chosen"),
        (new("sda1"), "gpt", "pool 'p': there is a partition 'sda1' already"),
        (new("sda2", 0), "gpt", "pool 'p': volume 'sda2' has no capacity"),
        (new("sda2", format="qcow2"), "gpt", "pool 'p': volume 'sda2': 'qcow2' is no type of a partition"),
        (new("sda2", format="extended"), "gpt", "pool 'p': a table of type gpt has no extended partitions"),
        (
            new("sda2", 500 * MIB),
            "gpt",
            f"pool 'p': no free extent has {500 * MIB} bytes; the largest has {189 * MIB - 33 * 512}",
        ),
    ],
)
def test_what_cannot_be_created(machine: dict[str, Any], volume: Volume, label: str, words: str) -> None:
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX))})
    error = refused(host, lambda b: b.create(volume), label)
    assert str(error) == words
    assert host.changes == 0


# -- delete and resize ------------------------------------------------------------------------------------------------


def test_delete_makes_the_kernel_forget_first(machine: dict[str, Any]) -> None:
    machine["nodes"] = (1, 2)
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX), (2, 11, 10, LINUX))})
    assert run(host, lambda b: b.delete(info(1, 1, 10))) == [
        READ,
        "! partx --delete --nr 1 -- /dev/sda",
        f"! {QUIET} --delete -- /dev/sda 1",
    ]


def test_a_delete_that_fails_gives_the_node_back(machine: dict[str, Any]) -> None:
    machine["nodes"] = (1,)
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX))}, fail_at=2)
    assert run(host, lambda b: b.delete(info(1, 1, 10)))[3:] == [
        "< run partx --add --nr 1 -- /dev/sda (if lsblk --noheadings --output NAME -- /dev/sda1 says '')",
        "error: 'sfdisk' failed with status 5: injected",
    ]


LOGICAL = [(1, 1, 100, "f"), (5, 2, 10, "83"), (6, 13, 10, "83"), (7, 24, 10, "83")]


def test_delete_renumbers_what_is_behind(machine: dict[str, Any]) -> None:
    machine |= {"label": "dos", "nodes": (1, 5, 6, 7)}
    host = ScriptedHost({"sfdisk --json": table(*LOGICAL, label="dos")})
    assert run(host, lambda b: b.delete(info(6, 13, 10)), "dos") == [
        READ,
        "! partx --delete --nr 6 -- /dev/sda",
        "! partx --delete --nr 7 -- /dev/sda",
        f"! {QUIET} --delete -- /dev/sda 6",
        "! partx --add --nr 6 -- /dev/sda",
    ]
    assert host.warnings == [
        "the logical partitions behind 'sda6' have other names now; list them anew: engine.pool('p').refresh()"
    ]


def test_what_is_not_deleted(machine: dict[str, Any]) -> None:
    machine |= {"label": "dos", "nodes": (1, 5, 6, 7)}
    host = ScriptedHost({"sfdisk --json": table(*LOGICAL, label="dos")})

    def words(info: VolumeInfo) -> str:
        return str(refused(host, lambda b: b.delete(info), "dos"))

    assert words(info(1, 1, 100)) == "pool 'p': the extended partition 'sda1' holds sda5, sda6, sda7"
    assert words(info(8, 40, 10)) == "pool 'p' has no volume 'sda8'"
    assert words(info(6, 24, 10)) == "'sda6' was replaced since it was listed; it was left alone"
    machine["users"] = ["mounted at '/srv'"]
    assert words(info(6, 13, 10)) == "pool 'p': volume 'sda6' is in use: mounted at '/srv'"
    assert host.changes == 0


@pytest.mark.parametrize(
    "verb",
    [
        lambda b: b.delete(info(6, 13, 10)),
        lambda b: b.resize(info(6, 13, 10), 5 * MIB, shrink=True),
        lambda b: b.create(new("sda8")),
    ],
)
def test_another_volumes_deletion_is_seen_under_the_lock(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, verb: Callable[[Any], Any]
) -> None:
    machine |= {"label": "dos", "nodes": (1, 5, 6, 7)}
    host = ScriptedHost({"sfdisk --json": table(*LOGICAL, label="dos")})

    @contextlib.contextmanager
    def locked(host: ScriptedHost, disk: disknodes.Disk) -> Iterator[None]:
        # What the other one did while this one waited: number 6 is the old 7 now.
        host.answers["sfdisk --json"] = table(*LOGICAL[:2], (6, 24, 10, "83"), label="dos")
        machine["nodes"] = (1, 5, 6)
        yield

    monkeypatch.setattr(disknodes, "locked", locked)

    def listed(b: Any) -> Any:
        list(b.volumes({}))
        return verb(b)

    error = refused(host, listed, "dos")
    assert isinstance(error, errors.Unsafe if "sda6" in str(error) else errors.InvalidArgument)
    assert host.changes == 0


def test_resize_tells_table_and_kernel(machine: dict[str, Any]) -> None:
    machine["nodes"] = (1,)
    before, after = table((1, 1, 10, LINUX)), table((1, 1, 20, LINUX))
    host = Shown({"sfdisk --json": [before, after]})
    done = [
        READ,
        f"! {QUIET} --partno 1 -- /dev/sda",
        f"  | size={20 * SECTORS}",
        f"! resizepart /dev/sda 1 {20 * SECTORS}",
    ]
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB)) == [*done, READ]
    host = Shown({"sfdisk --json": before}, fail_at=2)
    question = "partx --show --noheadings --output START,SECTORS,UUID --nr 1 -- /dev/sda"
    ours = f"(if {question} says '{SECTORS} {20 * SECTORS} u1')"
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB)) == [
        *done,
        f"< run resizepart /dev/sda 1 {10 * SECTORS} {ours}",
        f"< run {QUIET} --partno 1 -- /dev/sda {ours}",
        "error: 'resizepart' failed with status 5: injected",
    ]
    host = Shown({"sfdisk --json": [before, after]})
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB, force=True)) == [*done, READ]


def test_what_cannot_be_resized_says_so(machine: dict[str, Any]) -> None:
    host = ScriptedHost({"sfdisk --json": table((1, 1, 10, LINUX), (2, 21, 10, LINUX))})
    error = refused(host, lambda b: b.resize(info(1, 1, 10), 21 * MIB))
    assert isinstance(error, errors.NoSpace)
    assert str(error) == (
        f"pool 'p': volume 'sda1' can grow to {20 * MIB} bytes and not to {21 * MIB}: what follows it is in use"
    )
    machine["label"] = "dos"
    host = ScriptedHost({"sfdisk --json": table(*LOGICAL, label="dos")})
    error = refused(host, lambda b: b.resize(info(1, 1, 100), 150 * MIB), "dos")
    assert str(error) == "pool 'p': extended partitions cannot be resized"
    # The record of the next logical partition is in the way before the partition itself.
    machine["records"] = [(1 * MIB, MIB + 512), (12 * MIB, 12 * MIB + 512), (23 * MIB, 23 * MIB + 512)]
    host = ScriptedHost({"sfdisk --json": table(*LOGICAL, label="dos")})
    error = refused(host, lambda b: b.resize(info(5, 2, 10), 11 * MIB), "dos")
    assert f"can grow to {10 * MIB} bytes" in str(error)


def test_a_stable_name_for_each_partition(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"wwn-1-part1": "sda1", "ata-X-part1": "sda1", "ata-X": "sda", "ata-Y-part1": "sdb1"}
    monkeypatch.setattr("os.listdir", lambda path: list(links))
    monkeypatch.setattr(
        "os.path.realpath", lambda path: f"/dev/{links.get(path.rpartition('/')[2], path.rpartition('/')[2])}"
    )
    nodes = {"sda1": "/dev/sda1", "sda2": "/dev/sda2"}

    def paths(device: str, target: str) -> list[str]:
        disk = disknodes.Disk(device, "/dev/sda", "8:0", 0, 512, "", "", {})
        return list(disknodes.stable(target, disk, nodes).values())

    assert paths("/dev/sda", "/dev/") == ["/dev/sda1", "/dev/sda2"]
    assert paths("/dev/sda", "/dev/disk/by-id") == ["/dev/disk/by-id/ata-X-part1", "/dev/sda2"]
    assert paths("/dev/disk/by-id/wwn-1", "/dev/disk/by-id")[0] == "/dev/disk/by-id/wwn-1-part1"
    assert paths("/dev/sda", "/srv") == ["/dev/sda1", "/dev/sda2"]
