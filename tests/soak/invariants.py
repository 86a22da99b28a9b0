"""What must hold after each command, whatever happened in it."""

from __future__ import annotations

import re
import signal

from poolkit import errors
from poolkit.cli import PIPE
from poolkit.engine import Engine
from poolkit.engine.health import examine
from tests.soak.faults import FAIL, SHORT
from tests.soak.verbs import Call, after
from tests.soak.world import Disk, State, World
from tests.soak.zygote import Commands, Ended

WORST = ("Traceback", "internal error", "do the work of", "cannot write the answer", "Fatal Python", "Bus error")
"""What is only said of an error that nobody has worded: poolkit's own bugs."""
DOCTORS = ("doctor", "recover")


class Broken(AssertionError):
    """Something does not hold; says what, after which command."""


def statuses() -> set[int]:
    """The exit statuses of the table that have a meaning of their own."""
    found = {0, PIPE}
    left: list[type[errors.PoolkitError]] = [errors.PoolkitError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.add(kind.exit_code)
    return found - {errors.PoolkitError.exit_code}


def spoken(call: Call, ended: Ended) -> None:
    """The command ended as the table says, and what it said is worded."""
    if bad := [word for word in WORST if word in ended.err or word in ended.out]:
        raise Broken(f"'{bad[0]}' is said by {ended}")
    verb = call.argv[0]
    if ended.killed:
        if not ended.fault.kills or ended.status != -signal.SIGKILL:
            raise Broken(f"killed by a signal of its own: {ended}")
        return
    allowed = statuses() | ({1} if verb in DOCTORS else set())
    if ended.status not in allowed:
        raise Broken(f"no status of the table: {ended}")
    if ended.status and not re.search(r"^error: .{10,}", ended.err, re.M) and verb not in DOCTORS:
        raise Broken(f"failed without a word: {ended}")
    if re.search(r"\[Errno \d+\]", ended.err):
        raise Broken(f"an error of the system as Python words it: {ended}")


def findings(engine: Engine) -> set[str]:
    """What doctor has to say, but for what was recovered."""
    return {
        f"{one.name}: {one.message}"
        for one in examine(None, lambda: engine)
        if one.status != "ok" and one.name != "recovered"
    }


def told(world: World, commands: Commands) -> str:
    """What ``recover`` says, after which nothing may be left over."""
    ended = commands(("--root", str(world.root), "recover"))
    if ended.status:
        raise Broken(f"recover fails: {ended}\n{ended.out}")
    if left := world.left_over():
        raise Broken(f"left over after recover: {left}\n{ended.out}")
    return ended.out + ended.err


def settled(world: World, before: State, call: Call, ended: Ended, usual: set[str], said: str) -> State:
    """The state that was found, each fact of which is the old or the new one."""
    try:
        with Engine(world.root) as engine:
            # Where the inventory could not be written, again and again, the listing is right after the next refresh.
            lasting = ended.fault.action in (FAIL, SHORT) and ended.fault.lasting > 0
            now = world.found(engine, listed=not lasting and "until the next refresh" not in ended.err)
            unusual = findings(engine) - usual
            marked = {
                volume.name for volume in engine.pool("p").volumes() if (volume.info.detail or {}).get("half_written")
            }
    except errors.PoolkitError as error:
        raise Broken(f"cannot look: {type(error).__name__}: {error}\nafter {ended}") from error
    except AssertionError as error:
        raise Broken(f"{error}\nafter {ended}") from error
    if unusual:
        raise Broken(f"doctor says {sorted(unusual)} after {ended}")
    if call.argv[0] == "vol-download":
        downloaded(world, call.argv[1], ended)
    new = after(before, call)
    for fact in before.keys() | new.keys() | now.keys():
        old_value, new_value, value = before.get(fact), new.get(fact), now.get(fact)
        done = _same(new_value, value)
        if done or (ended.status and _same(old_value, value)):
            continue
        if fact == ("volume", call.in_place) and _half(old_value, value) and ended.status:
            # Where the mark cannot be made the work goes on: one of the calls that failed may have been for that.
            if call.in_place in marked or not ended.fault.kills:
                continue
            raise Broken(f"{fact} is half-written, and nothing says so: {ended}")
        raise Broken(f"{fact} was {old_value}, was to be {new_value}, and is {value}: {ended}\nrecover: {said}")
    if call.refused and not ended.status:
        raise Broken(f"not refused: {ended}")
    return now


def downloaded(world: World, name: str, ended: Ended) -> None:
    """What was downloaded is whole, or there is nothing or that of another time."""
    file = world.downloaded
    if file.exists() and file.read_bytes() != (world.images / name).read_bytes():
        raise Broken(f"a part of '{name}' was left as if it were whole: {ended}")
    if not file.exists() and not ended.status:
        raise Broken(f"nothing was downloaded: {ended}")
    if strange := [path.name for path in file.parent.iterdir() if path != file]:
        raise Broken(f"beside the download there is {strange}: {ended}")
    file.unlink(missing_ok=True)


def _same(wanted: object, value: object) -> bool:
    return wanted.like(value) if isinstance(wanted, Disk) else wanted == value


def _half(old: object, value: object) -> bool:
    """Whether a volume differs from the old one in its content alone."""
    return isinstance(old, Disk) and isinstance(value, Disk) and old._replace(data=b"") == value._replace(data=b"")
