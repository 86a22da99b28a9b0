"""Mapped classes as values: frozen, comparable, replaceable, cheap to import; and the writer's escapes."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys

import pytest
from lxml import etree

from poolkit.backends.dir import DirPool
from poolkit.backends.logical import LogicalPool, LogicalSource
from poolkit.model import Permissions, PoolTarget, SourceHost, Volume, VolumeTarget
from poolkit.xmlmap import (
    Element,
    definition_alone,
    diff,
    escape,
    escape_attribute,
    read,
    replace,
    without_reports,
    write,
    xml,
)

POOL = DirPool(name="a", target=PoolTarget(path="/a", permissions=Permissions(mode=0o711)))


def test_keyword_arguments_only() -> None:
    with pytest.raises(TypeError, match="name"):
        DirPool(target=PoolTarget(path="/a"))  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        SourceHost("h")
    with pytest.raises(TypeError, match="bogus"):
        SourceHost(name="h", bogus=1)  # type: ignore[call-arg]


def test_frozen() -> None:
    with pytest.raises(AttributeError, match=r"DirPool is frozen; use replace\(obj, name=\.\.\.\)"):
        POOL.name = "b"
    with pytest.raises(AttributeError, match="frozen"):
        del POOL.name
    with pytest.raises(AttributeError):
        POOL.bogus = 1  # type: ignore[attr-defined]


def test_equality_is_of_definitions() -> None:
    assert replace(POOL, capacity=7, available=7) == POOL
    assert hash(replace(POOL, capacity=7)) == hash(POOL)
    assert replace(POOL, name="b") != POOL
    assert POOL != 1
    assert Permissions() != PoolTarget(path="/")


def test_replace_in_its_three_forms() -> None:
    assert replace(POOL, name="b").name == dataclasses.replace(POOL, name="b").name == "b"
    assert POOL.__replace__(name="b") == replace(POOL, name="b")
    with pytest.raises(TypeError):
        replace(POOL, bogus=1)
    assert [field.name for field in dataclasses.fields(SourceHost)] == ["name", "port"]
    assert dataclasses.asdict(SourceHost(name="h", port=1)) == {"name": "h", "port": 1}


def test_copies() -> None:
    for made in (copy.copy(POOL), copy.deepcopy(POOL), pickle.loads(pickle.dumps(POOL))):
        assert made == POOL
        assert write(made) == write(POOL)


def test_repr_leaves_defaults_out() -> None:
    assert repr(POOL) == "DirPool(name='a', target=PoolTarget(path='/a', permissions=Permissions(mode=457)))"


def test_diff_names_the_field() -> None:
    other = replace(POOL, name="b", capacity=7, target=replace(POOL.target, permissions=Permissions()))
    assert diff(POOL, other) == [("name", "a", "b"), ("target.permissions.mode", 0o711, None)]
    assert diff(POOL, POOL) == []
    logical = LogicalPool(name="a", source=LogicalSource(name="a"))
    assert diff(POOL, logical) == [("", POOL, logical)]


def test_without_reports() -> None:
    text = (
        "<pool type='disk'><name>a</name><capacity>7</capacity><source><device path='/d'><freeExtent start='1' end='2'/>"
        "</device></source><target><path>/dev</path></target></pool>"
    )
    from poolkit.schemas import pool_classes

    value = read(text, pool_classes())
    assert value.capacity == 7
    assert value.source.devices[0].free_extents
    bare = without_reports(value)
    assert bare == value
    assert (bare.capacity, bare.source.devices[0].free_extents) == (0, ())


def test_what_goes_with_a_definition_is_neither_part_of_it_nor_a_report() -> None:
    text = (
        "<volume xmlns:pkv='urn:poolkit:volume:1'><name>a</name><key>/a</key><capacity>7</capacity>"
        "<pkv:wanted pool='images'/></volume>"
    )
    value = read(text, [Volume])
    plain = replace(value, wanted=None, key=None)
    assert value == plain
    assert (without_reports(value).wanted, without_reports(value).key) == (value.wanted, None)
    assert write(definition_alone(value)) == write(plain)


def test_what_is_printed_can_be_read_whatever_a_name_is() -> None:
    for name in ("a&b<c>'\"", "new\nline\r\ttab", "esc\x1b[31m", "nul\x00", "\ud800", "\ufffe", "c1\x85\x9b", "é漢🙂"):
        text = write(Volume(name=name, target=VolumeTarget(path=f"/{name}")))
        text.encode()
        assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text)
        found = etree.fromstring(text.encode()).findtext("name")
        if name.isprintable():
            assert found == name
            assert read(text, [Volume]).name == name
    assert escape("\x1b\x9b\ud800") == r"\x1b\x9b\ud800"
    assert escape("a\r\n\t") == "a&#13;\n\t"
    assert escape_attribute("a\r\n\t'") == "a&#13;&#10;&#9;&apos;"
    assert escape("plain é") == "plain é"


def test_a_fragment_is_not_a_document() -> None:
    with pytest.raises(TypeError, match="Permissions is a part of documents"):
        write(Permissions())


def test_subclass_field_keeps_its_place() -> None:
    class Base(Element):
        tag = "base"
        one: str = xml("one", doc="One.")
        two: str = xml("two", doc="Two.")

    class Derived(Base):
        tag = "derived"
        three: str = xml("three", doc="Three.")
        one: str = xml("uno", default="x", doc="One, elsewhere.")

    assert (
        write(Derived(two="b", three="c"))
        == "<derived>\n  <uno>x</uno>\n  <two>b</two>\n  <three>c</three>\n</derived>\n"
    )
    assert read("<derived><three>c</three><two>b</two></derived>", [Base, Derived]) == Derived(two="b", three="c")


def test_a_hint_that_means_nothing() -> None:
    class Wrong(Element):
        tag = "wrong"
        field: float = xml("field", doc="A float.")

    with pytest.raises(TypeError, match="no simple type for the hint <class 'float'>"):
        write(Wrong(field=1.0))


def test_importing_the_model_leaves_the_heavy_modules_out() -> None:
    heavy = {
        "dataclasses",
        "inspect",
        "lxml",
        "xmlschema",
        "difflib",
        "hypothesis",
        "poolkit.xmlmap.reader",
        "poolkit.xmlmap.writer",
    }
    code = f"import sys, poolkit.model; print(sorted(set({sorted(heavy)!r}) & set(sys.modules)))"
    # The measuring of coverage follows into child processes and brings modules of its own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=env)
    assert done.stdout == "[]\n"
