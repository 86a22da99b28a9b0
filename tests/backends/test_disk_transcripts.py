"""What a disk pool runs, line by line: every verb, every failing step with what takes it back, every refusal's words."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, xmlmap
from poolkit.backend import VolumeInfo
from poolkit.backends.disk import DiskBackend, DiskPool
from poolkit.families import disknodes, partitiontable
from poolkit.host import Result
from poolkit.host.mounts import Mount
from poolkit.model import Volume
from poolkit.testing import Answer, ScriptedHost, transcript
from tests.backends.played import Machine, PartitionedHost, mapped, multipath

MIB = 1 << 20
SECTORS = MIB // 512
UUID = uuid.UUID("7" * 32)
MARK = str(UUID).upper()
QUIET = "sfdisk --quiet --no-reread --no-tell-kernel"
READ = "? sfdisk --json -- /dev/sda"
LINUX = partitiontable.GPT["linux"]
LABELS: dict[str, tuple[str, ...]] = {
    "": (), "gpt": ("mbr", "gpt"), "dos": ("mbr",), "sun": ("sun",), "mac": ("mac",),
}  # fmt: skip


class Shown(PartitionedHost):
    """Shows what a program is given to read as well, after a ``|``."""

    input: bytes | None = None

    def change(self, argv: Any, **how: Any) -> Result:
        self.input = how.get("input")
        return super().change(argv, **how)

    def _count(self, argv: Any) -> None:
        if self.input:
            self.lines.append("  | " + self.input.decode().rstrip("\n").replace("\n", " | "))
        super()._count(argv)


class Disk(Machine):
    """A machine with the disk ``/dev/sda`` of 200 MiB."""

    dm = False

    def given(
        self, *, label: str | None = None, holds: Sequence[str] = (), nodes: Iterable[int] | None = None
    ) -> None:  # fmt: skip
        """Its table, what else it holds, and which partitions have a node; what is not told stays."""
        if label is not None or holds:
            own = LABELS[label or ""]
            self.holds("sda", *own, *(name for name in holds if name not in own))
            if "gpt" in (*own, *holds):
                self.put("sda", 512 + 32, (200 * SECTORS - 1).to_bytes(8, "little"))  # the second table is at the end
        for number in range(1, 16) if nodes is not None else ():
            if self.dm:
                mapped(self, number) if number in nodes else None
            else:
                (self.part if number in nodes else self.unpart)("sda", number)

    def multipath(self) -> None:
        """The disk is a map now."""
        multipath(self, 200 * MIB)
        self.dm = True
        self.given(label="gpt")

    def host(
        self, answers: Any = None, *, kind: type[PartitionedHost] = PartitionedHost, **how: Any
    ) -> PartitionedHost:
        """A scripted host with this disk."""
        host = kind(answers, machine=self, **how)
        host.played = self
        return host

    def shown(self, answers: Any = None, **how: Any) -> PartitionedHost:
        """One that shows what programs are given to read."""
        return self.host(answers, kind=Shown, **how)


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
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(uuid, "uuid4", lambda: UUID)
    disk = Disk(tmp_path)
    disk.disk("sda", "8:0", 200 * MIB)
    disk.given(label="gpt")
    return disk


def mounted(*numbers: int) -> list[Mount]:
    return [Mount(f"8:{number}", "/", "/x", "ext4", f"/dev/sda{number}", "rw") for number in numbers]


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
        f"sda{number}", "block", format, size * MIB, size * MIB, mode=0o660, owner=os.geteuid(), group=os.getegid(),
        path=f"/dev/sda{number}",
        detail={"extents": [place]},
    )  # fmt: skip


# -- build ----------------------------------------------------------------------------------------------------------


def test_build_writes_a_table_with_an_identity_of_its_own(machine: Disk) -> None:
    machine.given(label="")
    host = machine.shown()
    assert run(host, lambda b: b.build()) == [
        f"! {QUIET} --wipe always -- /dev/sda",
        f"  | label: gpt | label-id: {MARK}",
    ]
    (step,) = host.journal.steps
    assert str(step) == f"run wipefs --all --quiet -- /dev/sda (if sfdisk --disk-id -- /dev/sda says '{MARK}')"
    assert run(machine.shown(), lambda b: b.build(), "dos")[1] == "  | label: dos | label-id: 0x77777777"
    assert run(machine.shown(), lambda b: b.build(), "unknown")[1] == "  | label: dos | label-id: 0x77777777"


@pytest.mark.parametrize(("label", "kind"), [("mac", "mac"), ("sun", "sun"), ("dvh", "sgi"), ("pc98", "dos")])
def test_build_of_other_tables(machine: Disk, label: str, kind: str) -> None:
    machine.given(label="")
    host = machine.host()
    assert run(host, lambda b: b.build(), label) == [f"! parted --script -- /dev/sda mklabel {label}"]
    assert str(host.journal.steps[0]) == (
        "run wipefs --all --quiet -- /dev/sda "
        f"(if blkid --probe --output value --match-tag PTTYPE -- /dev/sda says '{kind}')"
    )


def test_build_of_bsd_is_known_again_by_parted(machine: Disk) -> None:
    machine.given(label="")
    line = "/dev/sda:409600s:scsi:512:512:{}:QEMU DISK:;\n"
    question = "parted --script --machine -- /dev/sda unit s print"
    host = machine.host({question: Answer("BYT;\n" + line.format("unknown"), 1)})
    assert run(host, lambda b: b.build(), "bsd") == [f"? {question}", "! parted --script -- /dev/sda mklabel bsd"]
    assert str(host.journal.steps[0]) == (
        f"run blkdiscard --zeroout --force --length 8192 -- /dev/sda (if {question} says 'BYT;\n{line.format('bsd')}')"
    )


def test_build_leaves_what_is_built(machine: Disk) -> None:
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), machine.host({"sfdisk --json": table()}))
    assert backend.build() is False
    machine.given(label="dos")
    backend = DiskBackend(xmlmap.read(pool("unknown"), [DiskPool]), machine.host({"sfdisk --json": table(label="dos")}))
    assert backend.build() is False


def test_build_refuses_a_used_disk(machine: Disk) -> None:
    machine.given(label="", holds=("ext4",))
    error = refused(machine.host(), lambda b: b.build())
    assert isinstance(error, errors.Unsafe)
    assert str(error) == "pool 'p': '/dev/sda' holds ext4, which building would destroy"
    machine.given(label="gpt", holds=("mbr", "gpt"))
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX), (2, 11, 10, LINUX))})
    error = refused(host, lambda b: b.build(), "dos")
    assert str(error) == "pool 'p': '/dev/sda' holds mbr and gpt with 2 partitions, which building would destroy"
    assert host.changes == 0
    machine.given(label="")
    error = refused(machine.host(), lambda b: b.build(), "lvm2")
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


def test_build_overwrites_when_told_to(machine: Disk) -> None:
    machine.given(holds=("mbr", "gpt"), nodes=(1, 2))
    assert run(machine.host(), lambda b: b.build(overwrite=True)) == OVERWRITTEN


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_each_failing_step_of_build_is_taken_back(machine: Disk, step: int) -> None:
    machine.given(holds=("mbr", "gpt"), nodes=(1, 2))
    lines = run(machine.host(fail_at=step, mounts=mounted(1, 2)), lambda b: b.build(overwrite=True))
    # The undo of a step is written down before it begins, so that of the one that failed is done as well.
    assert lines[:-1] == OVERWRITTEN[:step] + TAKEN_BACK[4 - step :]
    words = {1: "partition 'sda2' is in use: mounted at '/x'", 2: "partition 'sda1' is in use: mounted at '/x'"}
    tool = {3: "wipefs", 4: "sfdisk"}.get(step)
    expected = f"'{tool}' failed with status 5: injected" if tool else f"pool 'p': {words[step]}"
    assert lines[-1] == f"error: {expected}"


def test_erase_takes_only_an_empty_table(machine: Disk) -> None:
    host = machine.host({"sfdisk --json": table()})
    assert run(host, lambda b: b.erase()) == [READ, "! wipefs --all --quiet -- /dev/sda"]
    error = refused(machine.host({"sfdisk --json": table((1, 1, 10, LINUX))}), lambda b: b.erase())
    assert str(error) == "pool 'p': the disk '/dev/sda' has the partitions sda1; nothing was deleted"
    machine.given(label="")
    assert DiskBackend(xmlmap.read(pool(), [DiskPool]), machine.host()).erase() is False


@pytest.mark.parametrize("label", ["dos", "gpt", "sun"])
def test_a_table_beside_something_else_is_no_empty_disk(machine: Disk, label: str) -> None:
    said = "BYT;\n/dev/sda:409600s:scsi:512:512:sun:DISK:;\nCYL;\n/dev/sda:25cyl:scsi:512:512:sun:D:;\n25:255:63:8kB;\n"
    host = machine.host({"sfdisk --json": table(label=label), "parted --script --machine": said})
    machine.given(label=label)
    assert DiskBackend(xmlmap.read(pool(label), [DiskPool]), host).build() is False
    machine.given(label=label, holds=("ext4",))
    for verb in ("build", "erase"):
        error = refused(host, lambda b, verb=verb: getattr(b, verb)(), label)
        assert isinstance(error, errors.Unsafe)
        assert str(error) == f"pool 'p': '/dev/sda' holds ext4 besides a table of type {label}"
    assert host.changes == 0


def test_what_the_last_partition_holds_is_not_the_disks(machine: Disk) -> None:
    machine.given(holds=("mbr", "gpt", "linux_raid_member"))
    error = refused(machine.host({"sfdisk --json": table()}), lambda b: b.build())
    assert "holds linux_raid_member besides" in str(error)
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX))})
    assert DiskBackend(xmlmap.read(pool(), [DiskPool]), host).build() is False


def test_disks_that_a_pool_can_be_made_of(machine: Disk) -> None:
    def found() -> list[tuple[str, str | None]]:
        return [(one.devices[0].path, one.format) for one in DiskBackend.discover(machine.host(), None)]

    machine.given(holds=("mbr", "gpt"))
    assert found() == [("/dev/sda", "gpt")]
    machine.given(holds=("mbr", "gpt", "ext4"))
    assert found() == []
    machine.given(holds=(), label="")
    assert found() == [("/dev/sda", None)]
    machine.write("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda partition 1 0 -2")
    assert found() == []


# -- start and facts --------------------------------------------------------------------------------------------------


def test_start_makes_missing_nodes(machine: Disk) -> None:
    machine.given(nodes=(1,))
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX), (3, 11, 10, LINUX))})
    assert run(host, lambda b: b.start()) == [READ, READ, "! partx --add --nr 3 -- /dev/sda"]


def test_start_says_what_is_wrong(machine: Disk) -> None:
    machine.given(label="")
    error = refused(machine.host(), lambda b: b.start())
    assert (str(error), error.hint) == (
        "pool 'p': the disk '/dev/sda' has no partition table",
        "make one: engine.pool('p').build()",
    )
    machine.given(label="dos")
    error = refused(machine.host(), lambda b: b.start())
    assert str(error) == "pool 'p': the disk '/dev/sda' has a partition table of type dos, not gpt"
    assert error.hint == "if the disk is the right one, change the definition: <format type='dos'/>"
    (machine.folder / "dev/sda").unlink()
    assert str(refused(machine.host(), lambda b: b.start())) == "pool 'p': there is no disk '/dev/sda'"


def test_a_refresh_is_one_question(machine: Disk) -> None:
    machine.given(nodes=(1, 2))
    host = machine.host(
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
def test_tables_that_disagree(machine: Disk, label: str, found: str, words: str) -> None:
    machine.given(label=label)
    error = refused(machine.host({"sfdisk": found}), lambda b: list(b.volumes({})), label)
    assert str(error) == f"the first sectors of '/dev/sda' show a table of type {label}, and sfdisk reads {words}"


def test_a_name_that_is_no_text(machine: Disk) -> None:
    named = table((1, 1, 10, LINUX)).replace('"uuid"', r'"name": "a\xed\xa0\x80 \\x41", "uuid"')
    (one,) = DiskBackend(xmlmap.read(pool(), [DiskPool]), machine.host({"sfdisk": named})).volumes({})
    assert one.name == "sda1"


def test_a_disk_that_grew(machine: Disk) -> None:
    small = table().replace(str(200 * SECTORS - 34), str(100 * SECTORS - 34))
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), machine.host({"sfdisk": small}))
    assert backend.usage(()).available == 99 * MIB - 33 * 512
    machine.put("sda", 512 + 32, (100 * SECTORS - 1).to_bytes(8, "little"))
    backend = DiskBackend(xmlmap.read(pool(), [DiskPool]), machine.host({"sfdisk": small}))
    assert backend.usage(()).available == 199 * MIB - 33 * 512


@pytest.mark.parametrize(("base", "separator"), [("mpath1", "-part"), ("mpath1", "p"), ("mpatha", ""), ("mpath1", "")])
def test_numbers_behind_names_with_digits(base: str, separator: str) -> None:
    assert partitiontable._number(f"/dev/mapper/{base}{separator}2", f"/dev/mapper/{base}") == 2


def test_the_separator_that_the_definition_asks_for() -> None:
    asked = [disknodes._dm_separator(dm, {}, wanted) for dm in ("mpatha", "mpath1") for wanted in (None, True, False)]
    assert asked == ["-part", "p", "", "-part", "p", "p"]


@pytest.mark.parametrize("answer", ["", "{}", '{"partitiontable": {"label": "gpt"}}', "no"])
def test_an_answer_that_is_no_table(machine: Disk, answer: str) -> None:
    error = refused(machine.host({"sfdisk": answer}), lambda b: list(b.volumes({})))
    assert str(error) == f"'sfdisk' answered something that is no partition table: {answer!r}"
    machine.given(label="mac")
    error = refused(machine.host({"parted": answer}), lambda b: list(b.volumes({})), "mac")
    assert str(error) == f"'parted' answered something that is no partition table: {answer!r}"


def test_what_parted_says(machine: Disk) -> None:
    machine.given(label="sun", nodes=(1,))
    said = (
        "BYT;\n/dev/sda:409600s:scsi:512:512:sun:QEMU: a disk:;\n1:32130s:64259s:32130s:linux-swap(v1)::;\n"
        "1:0s:32129s:32130s:free;\n1:64260s:401624s:337365s:free;\n"
        "CYL;\n/dev/sda:25cyl:scsi:512:512:sun:QEMU: a disk:;\n25:255:63:8225kB;\n1:2cyl:3cyl:2cyl:::;\n"
    )
    host = machine.host({"parted": said})
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


def test_create_in_the_smallest_extent(machine: Disk) -> None:
    before = table((1, 1, 10, LINUX), (2, 31, 10, LINUX), (3, 52, 10, LINUX))
    after = table((1, 1, 10, LINUX), (2, 31, 10, LINUX), (3, 52, 10, LINUX), (4, 41, 10, LINUX))
    host = machine.shown({"sfdisk --json": [before, after]})
    made = created(4, 41, line=f"type={LINUX}, uuid={MARK}")
    assert run(host, lambda b: b.create(new("sda4"))) == [READ, *made, READ]


def test_each_failing_step_of_create_is_taken_back(machine: Disk) -> None:
    made = created(1, 1, line=f"type={partitiontable.GPT['linux-swap']}, uuid={MARK}")
    question = "partx --show --noheadings --output START,SECTORS,UUID --nr 1 -- /dev/sda"
    ours = f"(if {question} says '{SECTORS} {10 * SECTORS} {MARK.lower()}')"
    back = [f"< run partx --delete --nr 1 -- /dev/sda {ours}", f"< run {QUIET} --delete -- /dev/sda 1 {ours}"]
    for step, tool in ((1, "sfdisk"), (2, "partx")):
        host = machine.shown({"sfdisk --json": table()}, fail_at=step)
        lines = run(host, lambda b: b.create(new("sda1", format="linux-swap")))
        done = made[: 2 if step == 1 else 3]
        assert lines == [READ, *done, *back, f"error: '{tool}' failed with status 5: injected"]


def test_create_on_dos_is_known_again_by_disk_and_number(machine: Disk) -> None:
    machine.given(label="dos")
    parts = [(n, 1 + 10 * (n - 1), 10, "83") for n in (1, 2, 3)]
    before = table(*parts, (4, 31, 100, "f"), label="dos", ident="0x12ab34cd")
    host = machine.shown({"sfdisk --json": before}, fail_at=2)
    lines = run(host, lambda b: b.create(new("sda5", format="linux-lvm")), "dos")
    assert lines[1:4] == created(5, 32, line="type=8e")
    assert f"says '{32 * SECTORS} {10 * SECTORS} 12ab34cd-05')" in lines[4]


def test_create_on_a_dos_disk_without_an_identity(machine: Disk) -> None:
    machine.given(label="dos")
    host = machine.shown({"sfdisk --json": table(label="dos", ident="0x00000000")}, fail_at=2)
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


def test_create_by_parted(machine: Disk) -> None:
    machine.given(label="mac")
    said = "BYT;\n/dev/sda:409600s:scsi:512:512:mac:DISK:;\n1:1s:63s:63s::Apple:;\n1:64s:409599s:409536s:free;\n"
    made = "2:2048s:22527s:20480s::primary:lvm;\n"
    host = machine.host({"parted --script --machine": [said, said + made]})
    assert run(host, lambda b: b.create(new("sda2", format="linux-lvm")), "mac") == [
        "? parted --script --machine -- /dev/sda unit s print free",
        "! parted --script --align none -- /dev/sda unit s mkpart primary ext2 2048s 22527s set 2 lvm on",
        "? parted --script --machine -- /dev/sda unit s print free",
    ]
    assert "run parted --script -- /dev/sda rm 2 (if" in str(host.journal.steps[0])


def test_create_on_multipath(machine: Disk) -> None:
    machine.multipath()
    after = table((1, 1, 10, LINUX)).replace("/dev/sda1", "/dev/mapper/mpatha-part1")
    host = machine.shown({"sfdisk --json": [table(), after]})
    lines = run(host, lambda b: b.create(new("mpatha-part1")))
    assert lines[2].startswith("  | /dev/mapper/mpatha-part1 : start=2048")
    assert lines[3] == "! kpartx -a -s -p -part -- /dev/mapper/mpatha"
    # The machine's own rules may have made the device under another name: kpartx knows it by its identity.
    first, newest = map(str, host.journal.steps)
    assert first == "run kpartx -u -s -p -part -- /dev/mapper/mpatha"
    assert newest.startswith(f"run {QUIET} --delete -- /dev/mapper/mpatha 1 (if partx --show")


def test_delete_on_multipath(machine: Disk) -> None:
    machine.multipath()
    machine.given(nodes=(1,))
    found = table((1, 1, 10, LINUX)).replace("/dev/sda1", "/dev/mapper/mpatha-part1")
    host = machine.host({"sfdisk --json": found})
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
def test_what_cannot_be_created(machine: Disk, volume: Volume, label: str, words: str) -> None:
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX))})
    error = refused(host, lambda b: b.create(volume), label)
    assert str(error) == words
    assert host.changes == 0


# -- delete and resize ------------------------------------------------------------------------------------------------


def test_delete_makes_the_kernel_forget_first(machine: Disk) -> None:
    machine.given(nodes=(1, 2))
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX), (2, 11, 10, LINUX))})
    assert run(host, lambda b: b.delete(info(1, 1, 10))) == [
        READ,
        "! partx --delete --nr 1 -- /dev/sda",
        f"! {QUIET} --delete -- /dev/sda 1",
    ]


def test_a_delete_that_fails_gives_the_node_back(machine: Disk) -> None:
    machine.given(nodes=(1,))
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX))}, fail_at=2)
    assert run(host, lambda b: b.delete(info(1, 1, 10)))[3:] == [
        "< run partx --add --nr 1 -- /dev/sda (if lsblk --noheadings --output NAME -- /dev/sda1 says '')",
        "error: 'sfdisk' failed with status 5: injected",
    ]


LOGICAL = [(1, 1, 100, "f"), (5, 2, 10, "83"), (6, 13, 10, "83"), (7, 24, 10, "83")]


def test_delete_renumbers_what_is_behind(machine: Disk) -> None:
    machine.given(label="dos", nodes=(1, 5, 6, 7))
    host = machine.host({"sfdisk --json": table(*LOGICAL, label="dos")})
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


def test_what_is_not_deleted(machine: Disk) -> None:
    machine.given(label="dos", nodes=(1, 5, 6, 7))
    host = machine.host({"sfdisk --json": table(*LOGICAL, label="dos")})

    def words(info: VolumeInfo) -> str:
        return str(refused(host, lambda b: b.delete(info), "dos"))

    assert words(info(1, 1, 100)) == "pool 'p': the extended partition 'sda1' holds sda5, sda6, sda7"
    assert words(info(8, 40, 10)) == "pool 'p' has no volume 'sda8'"
    assert words(info(6, 24, 10)) == "'sda6' was replaced since it was listed; it was left alone"
    host.mount_table = mounted(6)
    assert words(info(6, 13, 10)) == "pool 'p': volume 'sda6' is in use: mounted at '/x'"
    assert host.changes == 0


@pytest.mark.parametrize(
    "verb",
    [
        lambda b: b.delete(info(6, 13, 10)),
        lambda b: b.resize(info(6, 13, 10), 5 * MIB, shrink=True),
        lambda b: b.create(new("sda8")),
    ],
)
def test_another_volumes_deletion_is_seen_under_the_lock(machine: Disk, verb: Callable[[Any], Any]) -> None:
    machine.given(label="dos", nodes=(1, 5, 6, 7))

    class Waiting(PartitionedHost):
        def wait_for(self, ask: Callable[[], Any], seconds: float) -> Any:
            # What the other one did while this one waited for the lock: number 6 is the old 7 now.
            self.answers["sfdisk --json"] = table(*LOGICAL[:2], (6, 24, 10, "83"), label="dos")
            machine.given(nodes=(1, 5, 6))
            return super().wait_for(ask, seconds)

    host = machine.host({"sfdisk --json": table(*LOGICAL, label="dos")}, kind=Waiting)

    def listed(b: Any) -> Any:
        list(b.volumes({}))
        return verb(b)

    error = refused(host, listed, "dos")
    assert isinstance(error, errors.Unsafe if "sda6" in str(error) else errors.InvalidArgument)
    assert host.changes == 0


def test_resize_tells_table_and_kernel(machine: Disk) -> None:
    machine.given(nodes=(1,))
    before, after = table((1, 1, 10, LINUX)), table((1, 1, 20, LINUX))
    host = machine.shown({"sfdisk --json": [before, after]})
    done = [
        READ,
        f"! {QUIET} --partno 1 -- /dev/sda",
        f"  | size={20 * SECTORS}",
        f"! resizepart /dev/sda 1 {20 * SECTORS}",
    ]
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB)) == [*done, READ]
    host = machine.shown({"sfdisk --json": before}, fail_at=2)
    question = "partx --show --noheadings --output START,SECTORS,UUID --nr 1 -- /dev/sda"
    ours = f"(if {question} says '{SECTORS} {20 * SECTORS} u1')"
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB)) == [
        *done,
        f"< run resizepart /dev/sda 1 {10 * SECTORS} {ours}",
        f"< run {QUIET} --partno 1 -- /dev/sda {ours}",
        "error: 'resizepart' failed with status 5: injected",
    ]
    host = machine.shown({"sfdisk --json": [before, after]})
    assert run(host, lambda b: b.resize(info(1, 1, 10), 20 * MIB, force=True)) == [*done, READ]


def test_what_cannot_be_resized_says_so(machine: Disk) -> None:
    host = machine.host({"sfdisk --json": table((1, 1, 10, LINUX), (2, 21, 10, LINUX))})
    error = refused(host, lambda b: b.resize(info(1, 1, 10), 21 * MIB))
    assert isinstance(error, errors.NoSpace)
    assert str(error) == (
        f"pool 'p': volume 'sda1' can grow to {20 * MIB} bytes and not to {21 * MIB}: what follows it is in use"
    )
    machine.given(label="dos")
    host = machine.host({"sfdisk --json": table(*LOGICAL, label="dos")})
    error = refused(host, lambda b: b.resize(info(1, 1, 100), 150 * MIB), "dos")
    assert str(error) == "pool 'p': extended partitions cannot be resized"
    # The record of the next logical partition is in the way before the partition itself.
    for record, following in ((1, 12), (12, 23), (23, 1)):  # the chain that begins with the extended partition
        machine.put("sda", record * MIB + 470, ((following - 1) * SECTORS).to_bytes(4, "little"))
        machine.put("sda", record * MIB + 510, b"\x55\xaa")
    host = machine.host({"sfdisk --json": table(*LOGICAL, label="dos")})
    error = refused(host, lambda b: b.resize(info(5, 2, 10), 11 * MIB), "dos")
    assert f"can grow to {10 * MIB} bytes" in str(error)


def test_a_stable_name_for_each_partition(machine: Disk) -> None:
    machine.given(nodes=(1, 2))
    machine.block("sdb", "8:16")
    machine.block("sdb1", "8:17", within="sdb")
    links = {"wwn-1-part1": "sda1", "wwn-1": "sda", "ata-X-part1": "sda1", "ata-X": "sda", "ata-Y-part1": "sdb1"}
    for name, target in links.items():
        machine.link(f"/dev/disk/by-id/{name}", f"/dev/{target}")
    nodes = {"sda1": "/dev/sda1", "sda2": "/dev/sda2"}

    def paths(device: str, target: str) -> list[str]:
        disk = disknodes.Disk(device, "/dev/sda", "8:0", 0, 512, "", "", {})
        return list(disknodes.stable(machine.host(), target, disk, nodes).values())

    assert paths("/dev/sda", "/dev/") == ["/dev/sda1", "/dev/sda2"]
    assert paths("/dev/sda", "/dev/disk/by-id") == ["/dev/disk/by-id/ata-X-part1", "/dev/sda2"]
    assert paths("/dev/disk/by-id/wwn-1", "/dev/disk/by-id")[0] == "/dev/disk/by-id/wwn-1-part1"
    assert paths("/dev/sda", "/srv") == ["/dev/sda1", "/dev/sda2"]
