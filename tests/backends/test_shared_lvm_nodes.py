"""One volume group, two real machines: what each may do, who has a volume, and that nothing is lost or torn."""

from __future__ import annotations

import json
import shlex

import pytest

from poolkit.families import lvmlocks
from tests.backends import matrix
from tests.backends.nodes import LOCKS, PATIENCE, POOL, UUID, Node, began, ended
from tests.sweep import Sampled

pytestmark = pytest.mark.timeout(3 * PATIENCE)


# LVM that knows no locking_type=4 any more.
LAX = r"""
rm /usr/sbin/vgchange
cat > /usr/sbin/vgchange <<'END'
#!/bin/bash
exec -a vgchange /usr/sbin/lvm "${@/global{locking_type=4\}/}"
END
chmod 755 /usr/sbin/vgchange
"""


def test_a_hand_over(nodes: tuple[Node, Node]) -> None:
    """A control node and a compute node under a system ID: who allows, who attaches, and bytes that arrive."""
    one, two = nodes
    # Without a role nothing is changed.
    one(POOL % "system-id" + 'refused(errors.RoleForbidden, pool.build, "has no role")')
    one.become("control")
    two.become("compute")
    one(
        """
        pool.build(); pool.start(); pool.create_volume(volume("a"))
        assert pool.volume("a").info.detail.get("attached") is None and not pool.volume("a").warning
        assert not os.path.exists("/dev/vg-shared")
        assert pool.lock_status()["control"] == "one"
        """
    )
    # What every other command of LVM sees is a group of somebody else.
    assert "vg-shared" not in two.guest.exec("vgs --noheadings 2>/dev/null").output
    assert two.guest.exec("lvcreate -y -n stray -L 4M vg-shared", check=False).status
    # LVM refuses here to write metadata when it is told to; where it would not, the start of a compute node says so.
    two(POOL % "auto" + "outcome = pool.start(); assert not outcome.warnings, outcome.warnings")
    two.guest.exec(LAX)
    two(
        """
        before = pool.lock_status()["sequence"]
        pool.destroy()
        (warning,) = pool.start().warnings
        assert "LVM here would write the metadata" in warning, warning
        assert pool.lock_status()["sequence"] == before
        """
    )
    two.guest.exec("ln -sf lvm /usr/sbin/vgchange")
    one('pool.volume("a").attach(node="two")')
    two('refused(errors.RoleForbidden, lambda: pool.volume("a").detach(node="one", force=True), "from another node")')
    two(
        """
        v = pool.volume("a")
        assert v.attach().changed and not v.attach().changed
        assert v.info.detail["attached"] == ["two"] and v.path == "/dev/vg-shared/a"
        with open(v.path, "r+b", buffering=0) as device:
            device.write(b"written by two" + bytes(498))
            os.fsync(device.fileno())
            refused(errors.Busy, v.detach, "open in process")
        """
    )
    one(
        """
        for call in (
            lambda: pool.volume("a").attach(node="three"),
            lambda: pool.volume("a").clone("copy"),
            lambda: pool.volume("a").resize(8 * MIB, shrink=True),
            lambda: pool.volume("a").wipe(),
        ):
            refused(errors.HeldElsewhere, call, "two")
        outcome = pool.volume("a").resize(32 * MIB)
        assert "attached to two" in outcome.warnings[0]
        """
    )
    two(
        """
        def size():
            with open("/dev/vg-shared/a", "rb") as device:
                return device.seek(0, 2)
        v = pool.volume("a").look()
        assert size() == 16 * MIB and "old size" in v.warning, v.warning
        assert v.attach().changed and size() == 32 * MIB and not v.look().warning
        outcome = v.detach()
        assert not os.path.exists("/dev/vg-shared/a") and "node='two', force=True" in outcome.warnings[0]
        """
    )
    one(
        """
        v = pool.volume("a").look()
        refused(errors.Unsafe, lambda: v.detach(node="two"), "nothing can tell")
        assert v.detach(node="two", force=True).changed
        refused(errors.RoleForbidden, v.attach, "is the control node and no compute node")
        """
    )
    one.become("both")
    one(
        """
        v = pool.volume("a").look()
        assert v.attach().changed
        out = BytesIO(); v.download(out, length=14)
        assert out.getvalue() == b"written by two"
        assert v.detach().changed
        # A detached volume is attached for as long as its bytes are read or written.
        v.upload(BytesIO(b"written by one"))
        v.clone("copy")
        snap = v.clone("snap", linked=True)
        out = BytesIO(); snap.download(out, length=14)
        assert out.getvalue() == b"written by one"
        refused(errors.Unsupported, lambda: v.attach(shared=True), "one host only")
        refused(errors.Unsupported, lambda: pool.create_volume(volume("thin", more="<allocation>0</allocation>")), "thin")
        assert not os.path.exists("/dev/vg-shared"), os.listdir("/dev/vg-shared")
        """
    )
    # Another pool, by its uuid, has nothing to do with this group.
    one(
        f"""
        pool.destroy(); pool.undefine()
        other = engine.define('''<pool type='shared-lvm'><name>other</name>
        <source><name>vg-shared</name></source></pool>''')
        refused(errors.PoolkitError, other.start, "poolkit-{UUID}")
        other.undefine()
        """
    )
    one(POOL % "system-id" + "pool.start()")
    ended(one, two)


WROTE = """
with open(v.path, "r+b", buffering=0) as device:
    device.write(b"written by NODE" + bytes(497))
    os.fsync(device.fileno())
"""


@pytest.mark.parametrize("lock", ["lvmlockd", "none"])
def test_a_hand_over_without_records(nodes: tuple[Node, Node], lock: str) -> None:
    """A compute node attaches by itself; what it wrote is read by the other one, and what that wrote by both at once."""
    one, two = began(nodes, lock, "a")
    two.become("compute")
    two('v = pool.volume("a"); assert v.attach().changed and not v.attach().changed' + WROTE.replace("NODE", "two"))
    if lock == "lvmlockd":
        one(
            """
            v = pool.volume("a")
            for call in (v.attach, lambda: v.attach(shared=True), lambda: v.clone("s", linked=True), v.delete, v.wipe):
                refused(errors.HeldElsewhere, call, "two")
            assert "attached to two" in v.resize(32 * MIB).warnings[0]
            refused(errors.Unsupported, lambda: v.detach(node="two", force=True), "only a node itself")
            """
        )
    else:
        one('pool.volume("a").resize(32 * MIB)')
    two(
        """
        def size():
            with open("/dev/vg-shared/a", "rb") as device:
                return device.seek(0, 2)
        v = pool.volume("a").look()
        assert size() == 16 * MIB and "old size" in v.warning, v.warning
        assert v.attach().changed and size() == 32 * MIB and not v.look().warning
        assert not v.detach().warnings and not os.path.exists("/dev/vg-shared/a")
        """
    )
    read = """
v = pool.volume("a")
v.attach(HOW)
out = BytesIO(); v.download(out, length=14)
assert out.getvalue() == b"written by NODE", out.getvalue()
"""
    one(read.replace("HOW", "").replace("NODE", "two") + WROTE.replace("NODE", "one") + "v.detach()")
    for node in (one, two):
        node(read.replace("HOW", "shared=True").replace("NODE", "one"))
    for node in (one, two):
        node("assert pool.volume('a').detach().changed")
    ended(one, two)


@pytest.mark.parametrize("lock", [*LOCKS, "none"])
def test_nothing_is_hidden_and_nothing_comes_up_by_itself(nodes: tuple[Node, Node], lock: str) -> None:
    """LVM's hints say which devices had a group once, and what activates all groups activates none of these volumes."""
    for node in nodes:
        node.guest.exec("vgs; test -e /run/lvm/hints")  # now LVM thinks to know that no device here has a group
    one, two = began(nodes, lock, "a")
    config = shlex.join(lvmlocks.config(lock, UUID))
    for node in (one, two):
        node.guest.exec(
            f"""
            vgchange --activate ay; vgchange --activate y
            vgchange {config} --activate ay vg-shared; vgchange {config} --activate y vg-shared
            [ ! -e /dev/vg-shared ] && ! dmsetup ls | grep -v -e lvmlock -e 'No devices'
            """
        )
        node("assert [v.name for v in pool.volumes()] == ['a']")
    ended(one, two)


OPERATIONS = """
import json
answers = []
def tried(operation, call, back=None):
    # What is allowed is taken back, so that the next operation finds the same.
    try:
        call()
        answers.append((operation, "", "allowed"))
    except errors.PoolkitError as error:
        answers.append((operation, type(error).__name__, str(error)))
        return
    if back is not None:
        back()

pool.refresh()
snapshot = any(v.name == "os" for v in pool.volumes())
tried("create", lambda: pool.create_volume(volume("n")), lambda: pool.volume("n").delete())
tried("delete", lambda: pool.volume("a").delete(), lambda: pool.create_volume(volume("a")))
tried("extend", lambda: pool.volume("a").resize(pool.volume("a").info.capacity + 4 * MIB))
tried("snapshot", lambda: pool.volume("a").clone("s", linked=True), lambda: pool.volume("s").delete())
if snapshot:
    tried("delete snapshot", lambda: pool.volume("os").delete(), lambda: pool.volume("o").clone("os", linked=True))
tried("attach", lambda: pool.volume("a").attach(), lambda: pool.volume("a").detach())
tried("attach shared", lambda: pool.volume("a").attach(shared=True), lambda: pool.volume("a").detach())
tried("detach", lambda: pool.volume("a").detach())
print("ANSWERS" + json.dumps(answers))
"""


@pytest.mark.parametrize("lock", [*LOCKS, "none"])
def test_the_matrix_of_permitted_operations(
    nodes: tuple[Node, Node], lock: str, sampled: Sampled[tuple[str, str]]
) -> None:
    """Every operation, in every role, for every state of the volume on the other machine."""
    one, two = began(nodes, lock, "a", "o")
    one("pool.volume('o').clone('os', linked=True)")
    states = ("free",) if lock == "none" else matrix.ELSEWHERE
    # Of the sample a sample, which is one of twelve: each takes a minute where sanlock is asked for everything.
    chosen = list(sampled(sampled((state, role) for state in states for role in matrix.ROLES)))
    wrong = []
    for state in states:
        roles = [role for elsewhere, role in chosen if elsewhere == state]
        if roles:
            held(one, two, lock, state)
        for role in roles:
            one.become(role)
            expected = {cell.operation: cell for cell in matrix.cells(lock, state) if cell.role == role}
            answers = json.loads(one(OPERATIONS).partition("ANSWERS")[2])
            assert [operation for operation, _, _ in answers] == list(expected)
            for operation, kind, said in answers:
                cell = expected[operation]
                if kind != cell.kind or cell.said not in said:
                    wrong.append((cell, kind, said))
        one.become("both")
        if roles:
            let_go(one, two, lock, state)
    assert wrong == []
    ended(one, two)


def held(one: Node, two: Node, lock: str, state: str) -> None:
    """Have ``two`` attach the volumes that it is to have."""
    names, how = {"free": ("", ""), "exclusive": ("ao", ""), "shared": ("a", "shared=True")}[state]
    if names and lock == "system-id":
        one(f"for name in {names!r}: pool.volume(name).look().attach(node='two', {how})")
    if names:
        two(f"pool.refresh()\nfor name in {names!r}: pool.volume(name).attach({how})")
    if state == "shared":
        one("pool.volume('os').delete()")


def let_go(one: Node, two: Node, lock: str, state: str) -> None:
    """Nobody has anything again."""
    if state != "free":
        two("pool.refresh()\nfor v in pool.volumes(): v.detach()")
    if state != "free" and lock == "system-id":
        one("for name in 'ao': pool.volume(name).look().detach(node='two', force=True)")


@pytest.mark.parametrize("lock", [*LOCKS, "none"])
def test_what_the_other_machine_changes_shows_and_is_told(nodes: tuple[Node, Node], lock: str) -> None:
    one, two = began(nodes, lock, "a")
    two.become("compute")
    told = "told = []; engine.subscribe(lambda event: told.append((event.kind, event.volume)))"
    two(f"{told}\nassert [v.name for v in pool.volumes()] == ['a'] and told == [], told")
    one("pool.create_volume(volume('b')); pool.volume('a').resize(32 * MIB)")
    two(
        f"""
        {told}
        sizes = {{v.name: v.info.capacity for v in pool.volumes()}}
        assert sizes == {{"a": 32 * MIB, "b": 16 * MIB}}, sizes
        assert sorted(told, key=str) == [("refreshed", None), ("volume-changed", "a"), ("volume-created", "b")], told
        told.clear()
        assert pool.info.active and pool.volume("b") and not told, told
        """
    )
    # What watches sees it as well, and what one changed oneself is no news.
    watching = two.submit(
        """
        from poolkit import cli
        from poolkit.cli import watch

        class Clock:
            def __getattr__(self, name):
                return getattr(time, name)
            def sleep(self, seconds):
                open("/lab/looking", "w").close()  # it has looked once
                time.sleep(seconds)

        import time
        watch.time = Clock()
        assert cli.main(["--root", "/root/root", "event", "--event", "refresh", "--timeout", "500"]) == 0
        """
    )
    two.guest.wait_for(two.guest.share / "looking", PATIENCE, "looking for events")
    (two.guest.share / "looking").unlink()
    one(f"{told}\npool.volume('b').delete(); assert [v.name for v in pool.volumes()] == ['a'] and len(told) == 1, told")
    assert "event 'refresh' for storage pool 'shared'" in watching()
    two("assert [v.name for v in pool.volumes()] == ['a']")
    ended(one, two)
