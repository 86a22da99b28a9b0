"""The verbs of the soak: what each is called with in a state, and what the state is to be afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.soak.world import ANYTHING, KIB, SECRETS, Disk, State, World, shut

NAMES = tuple(f"v{number}" for number in range(6))


class Call(NamedTuple):
    """A command line, the facts it is to change (None: the fact goes), and the volume that it writes in place."""

    argv: tuple[str, ...]
    changes: State
    in_place: str = ""
    refused: bool = False
    """Nothing changes, and the status is not 0."""


Maker = Callable[[random.Random, State, World], Call | None]
MAKERS: dict[str, Maker] = {}


def _verb(name: str) -> Callable[[Maker], Maker]:
    def put(maker: Maker) -> Maker:
        MAKERS[name] = maker
        return maker

    return put


def choose(chance: random.Random, state: State, world: World) -> Call:
    """A call that makes sense in a state."""
    names = tuple(MAKERS)
    weights = [1 if name in READING else 4 for name in names]
    while True:
        if call := MAKERS[chance.choices(names, weights)[0]](chance, state, world):
            return call


def after(state: State, call: Call) -> State:
    """The state when the call has done its work."""
    changed = {**state, **call.changes}
    return {fact: value for fact, value in changed.items() if value is not None}


def _volumes(state: State) -> dict[str, Disk]:
    return {fact[1]: value for fact, value in state.items() if fact[0] == "volume"}


def _free(chance: random.Random, state: State) -> str | None:
    free = [name for name in NAMES if name not in _volumes(state)]
    return chance.choice(free) if free else None


def _one(chance: random.Random, state: State, *formats: str, below: bool = False) -> tuple[str, Disk] | None:
    """A volume of one of the formats; only with ``below`` one that others stand on, or that stands on one."""
    volumes = _volumes(state)
    bases = {disk.base for disk in volumes.values()}
    fit = [
        (name, disk)
        for name, disk in volumes.items()
        if disk.format in formats and (below or (name not in bases and not disk.base))
    ]
    return chance.choice(fit) if fit else None


# -- volumes -------------------------------------------------------------------------------------------------------------


@_verb("vol-create raw")
def _create_raw(chance: random.Random, state: State, world: World) -> Call | None:
    if (name := _free(chance, state)) is None:
        return None
    size = chance.choice((64, 200, 1024)) * KIB
    more = chance.choice(((), ("--allocation", "0")))
    return Call(("vol-create-as", "p", name, str(size), *more), {("volume", name): Disk("raw", size)})


@_verb("vol-create qcow2")
def _create_image(chance: random.Random, state: State, world: World) -> Call | None:
    if (name := _free(chance, state)) is None:
        return None
    size = chance.choice((64, 1024)) * KIB
    more = chance.choice(((), ("--prealloc", "metadata")))
    argv = ("vol-create-as", "p", name, str(size), "--format", "qcow2", "--allocation", "0", *more)
    return Call(argv, {("volume", name): Disk("qcow2", size)})


@_verb("vol-create overlay")
def _overlay(chance: random.Random, state: State, world: World) -> Call | None:
    name, base = _free(chance, state), _one(chance, state, "raw", "qcow2")
    if name is None or base is None:
        return None
    argv = ("vol-clone", base[0], name, "--pool", "p", "--linked")
    return Call(argv, {("volume", name): Disk("qcow2", base[1].capacity, base[1].data, base[0])})


@_verb("vol-clone")
def _clone(chance: random.Random, state: State, world: World) -> Call | None:
    name, source = _free(chance, state), _one(chance, state, "raw", "qcow2")
    if name is None or source is None:
        return None
    format = chance.choice(("raw", "qcow2"))
    more = chance.choice(((), ("--no-reflink",))) if format == source[1].format else ()
    argv = ("vol-clone", source[0], name, "--pool", "p", "--format", format, *more)
    return Call(argv, {("volume", name): source[1]._replace(format=format)})


@_verb("vol-import")
def _import(chance: random.Random, state: State, world: World) -> Call | None:
    if (name := _free(chance, state)) is None:
        return None
    file = chance.choice(("raw0.img", "raw1.img", "image0.qcow2", "image1.qcow2"))
    format = chance.choice(("raw", "qcow2"))
    argv = ("vol-import", "p", name, str(world.work / file), "--format", format)
    return Call(argv, {("volume", name): world.source(file)._replace(format=format)})


@_verb("vol-delete")
def _delete(chance: random.Random, state: State, world: World) -> Call | None:
    volumes = _volumes(state)
    if not volumes:
        return None
    name = chance.choice(tuple(volumes))
    stands = any(disk.base == name for disk in volumes.values())
    argv = ("vol-delete", name, "--pool", "p")
    return Call(argv, {} if stands else {("volume", name): None}, refused=stands)


@_verb("vol-resize")
def _resize(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "raw", "qcow2")) is None:
        return None
    name, disk = found
    size = disk.capacity + chance.choice((64, 512)) * KIB
    more: tuple[str, ...] = ("--allocate",) if disk.format == "raw" and chance.random() < 0.5 else ()
    if disk.capacity > 64 * KIB and (disk.capacity > 2048 * KIB or chance.random() < 0.3):
        size, more = 64 * KIB, ("--shrink",)
    argv = ("vol-resize", name, str(size), "--pool", "p", *more)
    return Call(argv, {("volume", name): disk._replace(capacity=size, data=shut(disk.data[:size]))})


@_verb("vol-wipe")
def _wipe(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "raw", "qcow2")) is None:
        return None
    name, disk = found
    algorithm = chance.choice(("zero", "random", "dod", "nnsa"))
    raw = disk.format == "raw"
    data = b"" if not raw or algorithm in ("zero", "nnsa") else ANYTHING
    argv = ("vol-wipe", name, "--pool", "p", "--algorithm", algorithm)
    return Call(argv, {("volume", name): disk._replace(data=data)}, name if raw else "")


@_verb("vol-upload")
def _upload(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "raw")) is None:
        return None
    name, disk = found
    fit = [file for file in ("raw0.img", "raw1.img", "image0.qcow2") if _size(world, file) <= disk.capacity]
    file = chance.choice(fit)  # a header that arrives in a raw volume makes no image of it
    data = (world.work / file).read_bytes()
    data += disk.data[len(data) :]
    argv = ("vol-upload", name, str(world.work / file), "--pool", "p")
    return Call(argv, {("volume", name): disk._replace(data=shut(data))}, name)


def _size(world: World, file: str) -> int:
    return (world.work / file).stat().st_size


@_verb("vol-upload image")
def _upload_image(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "qcow2")) is None:
        return None
    file = chance.choice(("image0.qcow2", "image1.qcow2"))
    argv = ("vol-upload", found[0], str(world.work / file), "--pool", "p")
    return Call(argv, {("volume", found[0]): world.source(file)})


@_verb("vol-download")
def _download(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "raw", "qcow2", below=True)) is None:
        return None
    return Call(("vol-download", found[0], str(world.downloaded), "--pool", "p"), {})


@_verb("vol-adopt")
def _adopt(chance: random.Random, state: State, world: World) -> Call | None:
    if (found := _one(chance, state, "raw", "qcow2", below=True)) is None:
        return None
    return Call(("vol-adopt", found[0], "--pool", "p", "--format", found[1].format), {})


@_verb("refresh")
def _refresh(chance: random.Random, state: State, world: World) -> Call:
    return Call(("refresh", "p"), {})


# -- a pool and its life ---------------------------------------------------------------------------------------------------


@_verb("define")
def _define(chance: random.Random, state: State, world: World) -> Call:
    number = chance.randrange(2)
    return Call(("define", str(world.work / f"q{number}.xml")), {("pool", "defined"): number})


@_verb("undefine")
def _undefine(chance: random.Random, state: State, world: World) -> Call | None:
    if state["pool", "active"] or state["pool", "defined"] < 0:
        return None
    return Call(("undefine", "q"), {("pool", "defined"): -1, ("pool", "autostart"): False})


@_verb("build")
def _build(chance: random.Random, state: State, world: World) -> Call | None:
    if state["pool", "active"] or state["pool", "defined"] < 0:
        return None
    return Call(("build", "q"), {("pool", "built"): True})


@_verb("start")
def _start(chance: random.Random, state: State, world: World) -> Call | None:
    if state["pool", "active"] or state["pool", "defined"] < 0:
        return None
    return Call(("start", "q", "--build"), {("pool", "built"): True, ("pool", "active"): True})


@_verb("destroy")
def _destroy(chance: random.Random, state: State, world: World) -> Call | None:
    if not state["pool", "active"]:
        return None
    return Call(("destroy", "q"), {("pool", "active"): False})


@_verb("delete")
def _delete_pool(chance: random.Random, state: State, world: World) -> Call | None:
    if state["pool", "active"] or state["pool", "defined"] < 0:
        return None
    return Call(("delete", "q"), {("pool", "built"): False})


@_verb("autostart")
def _autostart(chance: random.Random, state: State, world: World) -> Call | None:
    if state["pool", "defined"] < 0:
        return None
    off = chance.random() < 0.5
    return Call(("autostart", "q", *(("--disable",) if off else ())), {("pool", "autostart"): not off})


# -- secrets -------------------------------------------------------------------------------------------------------------


@_verb("secret-define")
def _secret(chance: random.Random, state: State, world: World) -> Call:
    uuid, number = chance.choice(SECRETS), chance.randrange(2)
    argv = ("secret-define", str(world.work / f"{uuid}-{number}.xml"))
    return Call(argv, {("secret", uuid, "defined"): f"d{number}"})


@_verb("secret-set-value")
def _value(chance: random.Random, state: State, world: World) -> Call | None:
    uuid = chance.choice(SECRETS)
    if ("secret", uuid, "defined") not in state:
        return None
    file = world.work / f"{uuid}-{chance.randrange(2)}.value"
    argv = ("secret-set-value", uuid, "--file", str(file), "--plain")
    return Call(argv, {("secret", uuid, "value"): file.read_bytes()})


@_verb("secret-undefine")
def _forget(chance: random.Random, state: State, world: World) -> Call | None:
    uuid = chance.choice(SECRETS)
    if ("secret", uuid, "defined") not in state:
        return None
    return Call(("secret-undefine", uuid), {("secret", uuid, "value"): None, ("secret", uuid, "defined"): None})


# -- the machine -----------------------------------------------------------------------------------------------------------


READING = {"list": ("--all",), "vol-list": ("p",), "info": ("p",), "secret-list": (), "recover": (), "doctor": ()}
"""Verbs that change nothing, or only what is left over; with their operands."""


def _reading(*argv: str) -> Maker:
    def make(chance: random.Random, state: State, world: World) -> Call:
        return Call(argv, {})

    return make


for _name, _operands in READING.items():
    MAKERS[_name] = _reading(_name, *_operands)
