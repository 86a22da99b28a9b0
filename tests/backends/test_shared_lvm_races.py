"""One volume group, two real machines: changes at the same moment, a machine that dies, and a group that is damaged."""

from __future__ import annotations

import pytest

from tests.backends.nodes import DEVICE, LOCKS, PATIENCE, Node, began, ended
from tests.sweep import Sampled

pytestmark = pytest.mark.timeout(3 * PATIENCE)


CREATES = """
refusals = 0
for number in range({count}):
    while True:
        try:
            pool.create_volume(volume(f"{name}-{{number}}", 4 * MIB), wait=30)
            break
        except errors.Busy as error:
            if "has control" in str(error):  # the other node
                refusals += 1
                break
            raise
        except errors.LockUnavailable:
            pass
print(refusals)
"""


@pytest.mark.parametrize("lock", LOCKS)
def test_both_change_the_group_at_the_same_time(nodes: tuple[Node, Node], lock: str, sampled: Sampled[int]) -> None:
    """Twice thirty volumes in ``make soak``: nothing is lost, and no extent is given twice."""
    one, two = began(nodes, lock)
    count = len(list(sampled(range(30))))
    work = [node.submit(CREATES.format(name=node.name, count=count)) for node in (one, two)]
    assert [wait().split()[-1] for wait in work] == (["0", "0"] if lock == "lvmlockd" else ["0", str(count)])
    made = ("one", "two") if lock == "lvmlockd" else ("one",)
    for node in (one, two):
        node(
            f"""
            pool.refresh()
            names = {{v.name for v in pool.volumes()}}
            assert names == {{f"{{node}}-{{n}}" for node in {made} for n in range({count})}}, names
            ranges = sorted((start, end) for v in pool.volumes() for _, start, end in v.info.detail["extents"])
            assert all(end <= start for (_, end), (start, _) in zip(ranges, ranges[1:])), ranges
            """
        )
    ended(one, two)


RACE = """
try:
    pool.volume("a").{verb}
    print("done")
except errors.PoolkitError as error:
    said = str(error)  # while a lock changes hands its lease may name nobody
    assert "two" in said or "one" in said or "another host" in said or isinstance(error, errors.VolumeNotFound), error
    print(type(error).__name__)
"""


def test_one_attaches_while_the_other_does_something_else(nodes: tuple[Node, Node]) -> None:
    """At the same moment: one of them is refused, or the other one comes after; never do both have the volume."""
    one, two = began(nodes, "lvmlockd", "a")
    for verb in ("attach()", "clone('s', linked=True)", "resize(32 * MIB)", "delete()"):
        jobs = [one.submit(RACE.format(verb=verb)), two.submit(RACE.format(verb="attach()"))]
        first, second = (job().split()[-1] for job in jobs)
        assert (first, second) in {
            "attach()": {("done", "HeldElsewhere"), ("HeldElsewhere", "done")},
            "clone('s', linked=True)": {("HeldElsewhere", "done"), ("done", "HeldElsewhere"), ("done", "done")},
            "resize(32 * MIB)": {("done", "done"), ("done", "HeldElsewhere")},
            "delete()": {("HeldElsewhere", "done"), ("done", "VolumeNotFound"), ("done", "HeldElsewhere")},
        }[verb], (verb, first, second)
        held = [
            node("print('a' in os.listdir('/dev/vg-shared') if os.path.exists('/dev/vg-shared') else False)")
            for node in nodes
        ]
        assert sum("True" in text for text in held) <= 1, held
        for node in nodes:
            node(
                """
                pool.refresh()
                for v in pool.volumes():
                    if v.name == "a" and "NODE" in (v.info.detail or {}).get("attached", []):
                        v.detach()
                """.replace("NODE", node.name)
            )
        one("for v in pool.refresh() and pool.volumes() or pool.volumes(): v.delete() if v.name == 's' else None")
    ended(one, two)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_machine_dies_while_it_has_a_volume(nodes: tuple[Node, Node], lock: str) -> None:
    """It had control and a volume; the other one takes over, and finds what was written."""
    one, two = began(nodes, lock, "a")
    two.become("compute" if lock == "lvmlockd" else "both")
    two(
        f"""
        if {lock == "system-id"}:
            pool.take_control()
        v = pool.volume("a")
        v.attach()
        with open(v.path, "r+b", buffering=0) as device:
            device.write(b"the last words" + bytes(498))
            os.fsync(device.fileno())
        """
    )
    two.guest.stop()
    if lock == "system-id":
        one(
            """
            v = pool.volume("a").look()
            assert v.info.detail["attached"] == ["two"]
            for call in (v.attach, v.delete):
                refused(errors.Busy, call, "two")
            assert pool.take_control().changed
            refused(errors.HeldElsewhere, v.attach, "two")
            refused(errors.Unsafe, lambda: v.detach(node="two"), "nothing can tell")
            v.detach(node="two", force=True)
            v.attach()
            """
        )
    one(
        """
        import time
        v = pool.volume("a")
        for attempt in range(150):
            try:
                v.attach()
                break
            except errors.HeldElsewhere:
                time.sleep(2)
        assert v.info.detail["attached"] == ["one"]
        out = BytesIO(); v.download(out, length=14)
        assert out.getvalue() == b"the last words"
        v.detach(); v.delete()
        pool.destroy()
        """
    )


def test_a_damaged_group_is_refused(nodes: tuple[Node, Node]) -> None:
    one, _ = began(nodes, "system-id", "a")
    one("pool.destroy()")
    # The metadata area, behind LVM's label: 4 KiB to 1 MiB.
    one.guest.exec(f"dd if=/dev/urandom of={DEVICE} bs=512 seek=9 count=2000 conv=fsync 2>/dev/null")
    one(
        """
        for call in (pool.start, pool.build):
            error = refused(errors.PoolkitError, call, "vg-shared")
            assert "damaged" in str(error) and "vgcfgrestore" in error.hint, (str(error), error.hint)
        """
    )
