"""What is compiled once for all threads: it is whole when it is published, and nothing changes it afterwards."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from poolkit.backends.dir import DirPool
from poolkit.model import PoolTarget
from poolkit.xmlmap import Element, element, read, reference, relaxng, simple, strategies, tree, write, writer, xml, xsd

from . import CLASSES, FILES

THREADS = 12


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and threads change as often as they can."""
    monkeypatch.setattr(tree, "_cache", {})
    monkeypatch.setattr(writer, "_writers", {})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """The results of ``work`` in many threads that begin together."""
    results: list[Any] = [None] * THREADS
    start = threading.Barrier(THREADS, timeout=60)

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    traced = threading.gettrace()
    threading.settrace(None)  # type: ignore[arg-type]  # CPython 3.11 fails where two threads install coverage's at once
    try:
        for thread in threads:
            thread.start()
    finally:
        threading.settrace(traced)  # type: ignore[arg-type]
    for thread in threads:
        thread.join()
    return results


def slowed(function: Any) -> Any:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.0005)
        try:
            return function(*arguments, **options)
        finally:
            time.sleep(0.0005)

    return slow


def test_a_writer_is_compiled_by_many_threads(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are stopped inside the compiler write what one thread alone writes, then and later."""
    pools = [DirPool(name="p", target=PoolTarget(path="/p")), *(read(f.read_text(), CLASSES) for f in FILES[:12])]
    alone = [write(pool) for pool in pools]
    assert "  <source>\n  </source>\n" in alone[0]
    for name in ("content", "kids", "objects", "condition"):
        monkeypatch.setattr(writer._Writer, name, slowed(getattr(writer._Writer, name)))
    monkeypatch.setattr(tree, "_place", slowed(tree._place))
    for _ in range(3):
        tree._cache.clear()
        writer._writers.clear()
        written = at_once(lambda number: [write(pool) for pool in pools[number % 2 :: 2]])
        assert written == [alone[number % 2 :: 2] for number in range(THREADS)]
        assert [write(pool) for pool in pools] == alone


def test_a_class_is_compiled_to_one_tree_for_all_threads(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_place", slowed(tree._place))
    found = at_once(lambda _: tree.compile_class(DirPool))
    assert {id(node) for node in found} == {id(tree.compile_class(DirPool))}


def test_nothing_that_threads_share_is_changed_after_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of the tree walks it; an assignment to a node, a use or a field of it is an error meanwhile."""
    for cls in CLASSES:
        tree.compile_class(cls)
    before = {cls: picture(tree.compile_class(cls)) for cls in CLASSES}
    monkeypatch.setattr(writer, "_writers", {})
    for cls in CLASSES:
        for field in every_part(tree.compile_class(cls)):
            if isinstance(field, element.Field) and field.default is not element.REQUIRED:
                field.initial()  # a class given as default becomes its instance once

    shared = {id(one) for cls in CLASSES for one in every_part(tree.compile_class(cls))}

    def refuse(self: object, name: str, value: object) -> None:
        assert id(self) not in shared, f"{type(self).__name__}.{name} is set to {value!r}"
        object.__setattr__(self, name, value)

    for kind in (tree.Node, tree.Use, element.Field):
        monkeypatch.setattr(kind, "__setattr__", refuse, raising=False)
    for file in FILES:
        write(read(file.read_text(), CLASSES))
    by_tag: dict[str, list[Any]] = {}
    for cls in CLASSES:
        by_tag.setdefault(cls.tag, []).append(cls)
    for classes in by_tag.values():
        relaxng(classes)
        xsd(classes)
        reference(classes)
        strategies.documents(classes)
    monkeypatch.undo()
    assert {cls: picture(tree.compile_class(cls)) for cls in CLASSES} == before


def every_part(node: tree.Node) -> Iterator[object]:
    yield node
    for use in node.uses.values():
        yield from (use, use.field)
    for kid in node.kids.values():
        yield from every_part(kid)
        for body in kid.bodies.values():
            yield from every_part(body)


def picture(node: tree.Node) -> tuple[Any, ...]:
    """All of a tree that can be compared."""
    facts = (node.name, node.key, node.declare, node.many, node.always, node.block, node.word, tuple(node.uses))
    below = [(key, picture(kid)) for key, kid in node.kids.items()]
    bodies = [(kind, picture(body)) for kind, body in node.bodies.items()]
    return (*facts, tuple(node.attrs), below, bodies)


class Base(Element):
    """A class that another one extends."""

    tag: ClassVar[str] = "base"
    name: str = xml("@name", doc="Name.")


class Derived(Base):
    """Has one field more."""

    tag: ClassVar[str] = "derived"
    size: int = xml("@size", type=simple.UInt, doc="Size.")


def test_a_class_does_not_take_the_compiled_methods_of_its_base() -> None:
    """Whichever is used first: the base's constructor and comparison know nothing of what the other class adds."""
    assert Base(name="a") == Base(name="a")
    assert Derived(name="a", size=1) != Derived(name="a", size=2)
    assert Derived(name="a", size=1) == pickle.loads(pickle.dumps(Derived(name="a", size=1)))
    with pytest.raises(TypeError):
        Base(name="a", size=1)  # type: ignore[call-arg]


def test_a_child_of_a_fork_in_the_middle_of_compiling_can_compile() -> None:
    """No lock is held while something is compiled that a child would find locked for ever."""
    script = """
import os, sys, threading, time
from poolkit.xmlmap import tree, write
from poolkit.backends.dir import DirPool
from poolkit.model import PoolTarget
inside, place = threading.Event(), tree._place
def slow(*arguments):
    inside.set()
    if os.getpid() == parent:
        time.sleep(0.05)
    return place(*arguments)
parent, tree._place = os.getpid(), slow
pool = DirPool(name="p", target=PoolTarget(path="/p"))
thread = threading.Thread(target=write, args=(pool,))
thread.start()
inside.wait()
child = os.fork()
if not child:
    os._exit(0 if "<name>p</name>" in write(pool) else 1)
status = os.waitpid(child, 0)[1]
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, env={**os.environ}, check=False)
    assert done.returncode == 0
